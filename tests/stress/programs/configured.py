"""Set telemetry up in one way, then run one operation with a stage.

Arguments: the way.
"""

import logging
import sys
import time

import otel_progress as progress

sys.stdout.reconfigure(line_buffering=True)

way = sys.argv[1]


def job(name="job", seconds=0.0):
    """Run the work."""
    with progress.operation(name, id=name), progress.stage("step"):
        progress.advance()
        time.sleep(seconds)


def user_providers():
    """Set up the user's own providers with the user's own exporters."""
    from opentelemetry import _logs, metrics, trace
    from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
    from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    resource = Resource.create({"service.name": "theirs"})
    spans, reader, logs = InMemorySpanExporter(), InMemoryMetricReader(), InMemoryLogRecordExporter()
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(tracers)
    metrics.set_meter_provider(MeterProvider([reader], resource=resource))
    loggers = LoggerProvider(resource=resource)
    loggers.add_log_record_processor(SimpleLogRecordProcessor(logs))
    _logs.set_logger_provider(loggers)
    user = logging.getLogger("user")
    user.setLevel(logging.INFO)
    user.propagate = False
    user.addHandler(LoggingHandler(logger_provider=loggers))
    progress.configure()
    progress.configure()
    user.info("a line of the user's own log")
    job()
    print("spans", ",".join(sorted(span.name for span in spans.get_finished_spans())))
    print("logs", len(logs.get_finished_logs()))
    data = reader.get_metrics_data()
    points = [
        point.value
        for group in data.resource_metrics
        for scope in group.scope_metrics
        for metric in scope.metrics
        if metric.name == "progress.operation.started"
        for point in metric.data.data_points
    ]
    print("started", *points)


if way == "plain":
    progress.configure()
    job()
elif way == "explicit":
    progress.configure("given", endpoint=sys.argv[2], headers={"X-Key": "secret"}, resource={"team": "red"})
    job()
elif way == "twice":
    progress.configure("first")
    job("one")
    progress.configure("second")
    job("two")
elif way == "undone":
    progress.configure()
    job("one")
    progress.shutdown()
    progress.shutdown()
    job("unseen")
    progress.configure()
    job("two")
elif way == "running":
    progress.configure()
    with progress.operation("running", id="running") as operation, progress.stage("step"):
        progress.shutdown()
    print("status", operation.status.value)
elif way == "user":
    user_providers()
elif way == "nothing":
    job(seconds=1.5 if len(sys.argv) > 2 else 0.0)
elif way == "only-spans":
    # The application uses the providers of configure(), and runs no operation.
    from opentelemetry import metrics, trace

    progress.configure()
    with trace.get_tracer("user").start_as_current_span("theirs"):
        metrics.get_meter("user").create_counter("theirs").add(3)
elif way == "without-sdk":

    @progress.operation
    def decorated():
        """Stand for a function of an instrumented library."""
        progress.note("said to nobody")
        return sum(progress.track(range(10)))

    job()
    print("sum", decorated())
    print("headers", len(progress.inject()))
    spent = []
    for _ in range(10):
        before = time.process_time()  # what others need of the processor does not count, but what they evict does
        for _ in range(1_000):
            decorated()
        spent.append(time.process_time() - before)
    print("microseconds", min(spent) * 1_000)
    try:
        progress.configure()
    except progress.MissingDependency as error:
        print("error", *str(error).split())
print("end", time.monotonic())
