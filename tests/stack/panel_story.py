"""A story of a quarter of an hour under a fake clock, told by the library itself, as OTLP requests with metrics.

It is the same to the millisecond whenever it is told, so that what the panels show can be compared.
"""

from __future__ import annotations

import contextvars
import threading
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

import otel_progress as progress
from otel_progress import testing
from otel_progress.workflow import adaptive

if TYPE_CHECKING:
    from collections.abc import Iterator

BEGIN = testing.START // 10**9
LENGTH = 900
"""How long it lasts, in seconds."""
END = BEGIN + LENGTH
KILLED = 600
"""When the process of the operation `killed-1` is killed, in seconds since the beginning."""
REPORTS = 600
"""When the first of the operations that end is started."""
BY_NAME_EVERY = 60
USED = {"process.cpu.utilization": 0.75, "process.memory.usage": 268_435_456.0}
"""What the process of the story uses; what this one really uses is another number each time."""
HERE = {"service.name": "shop", "service.instance.id": "process-1", "host.name": "host-1"}
THERE = {**HERE, "service.instance.id": "process-2", "host.name": "host-2"}

over = threading.Event()


def hang_here() -> None:
    """Do nothing until the end."""
    over.wait()


def moving() -> Iterator[None]:
    """Count rows, with a child, and pay for it."""
    with progress.operation("import", id="moving-1", total=100_000, unit="row", slow_after=3600) as it:
        with progress.stage("read", unit="file", total=2) as stage:
            stage.advance(2)
            yield
        with progress.stage("load"), progress.operation("chunk", id="child-1", total=1_000):
            while True:
                progress.advance()
                it.advance(100)
                it.usage(input_tokens=80, output_tokens=9, cost=0.004)
                yield


def in_stages() -> Iterator[None]:
    """Have counts only in the stages: the usual code."""
    with progress.operation("train", id="stages-1", stall_after=300):
        with progress.stage("prepare", total=60, unit="file") as stage:
            for _ in range(60):
                stage.advance()
                yield
        with progress.stage("fit", total=2_000, unit="batch") as stage:
            while True:
                stage.advance()
                yield


def miscounted() -> Iterator[None]:
    """Count more units in a stage than its total."""
    with progress.operation("scan", id="scan-1"), progress.stage("list", total=600, unit="file") as stage:
        while True:
            stage.advance()
            yield


def slow() -> Iterator[None]:
    """Run longer than the limit, with an id that looks like a number."""
    with progress.operation("import", id="20261129", slow_after=300, stall_after=60):
        while True:
            progress.advance()
            yield


def looping() -> Iterator[None]:
    """Repeat two steps without a unit of progress."""
    with progress.operation("agent", id="looping-1", loop_after=3, stall_after=3600):
        while True:
            progress.step("search cats")
            progress.usage(input_tokens=50, output_tokens=5, cost=0.01)
            yield
            progress.step("read cats")
            yield


def waiting(operation: str, limit: float) -> Iterator[None]:
    """Wait for a person."""
    with progress.operation("approve", id=operation, stall_after=60):
        yield
        with progress.waiting("approval", overdue_after=limit):
            while True:
                yield


def killed() -> Iterator[None]:
    """Make progress until the process is killed."""
    with progress.operation("import", id="killed-1", total=1_000_000, stall_after=60, slow_after=3600):
        while True:
            progress.advance(7)
            yield


def reports() -> Iterator[None]:
    """End several operations, one of them badly, and a kind that only fails; within the last minutes."""
    for _ in range(REPORTS):
        yield
    for number, length in enumerate((30, 60, 20, 90), 1):
        try:
            with progress.operation("report", id=f"report-{number}", unit="page"):
                with progress.stage("collect"):
                    for _ in range(length):
                        yield
                with progress.stage("print", unit="page") as stage:
                    stage.advance(10)
                    yield
                progress.usage(input_tokens=100, output_tokens=10, cost=0.5)
                if number == 4:
                    raise ValueError("no paper")
        except ValueError:
            pass
    try:
        with progress.operation("sync", id="sync-1"):
            yield
            raise OSError("no route")
    except OSError:
        pass
    while True:
        yield


def stuck() -> None:
    """Hang in a thread of its own, so that the line is that of the hang."""
    with progress.operation("import", id="stuck-1", stall_after=120), progress.stage("fetch"):
        started.set()
        hang_here()


started = threading.Event()


def tell() -> list[bytes]:
    """Return the requests of the story, in order of time."""
    over.clear()
    started.clear()
    with testing.capture(run_series_after=5) as captured:
        thread = threading.Thread(target=stuck, daemon=True)
        thread.start()
        assert started.wait(20)
        late = progress.operation("import", id="late-1", start_within=240)
        limit = adaptive(start=8, name="search API")
        works = [moving(), in_stages(), miscounted(), slow(), looping()]
        works += [waiting("waiting-1", 3600), waiting("overdue-1", 650), killed(), reports()]
        contexts = [contextvars.copy_context() for _ in works]
        requests: list[ExportMetricsServiceRequest] = []
        for second in range(LENGTH):
            for context, work in zip(contexts, works):
                context.run(next, work)
            captured.clock.sleep(1)
            captured.look()
            if second % BY_NAME_EVERY == BY_NAME_EVERY - 1:
                requests.append(by_name(captured))
            for body in captured.metrics_receiver.requests:
                requests += apart(ExportMetricsServiceRequest.FromString(body), second)
            captured.metrics_receiver.requests.clear()
        found = [request.SerializeToString() for request in requests]
        for context, work in zip(contexts, works):
            context.run(work.close)  # type: ignore[attr-defined]
        over.set()
        thread.join(20)
        del late, limit  # until here, as what nobody holds is forgotten
    return found


def by_name(captured: testing.Capture) -> ExportMetricsServiceRequest:
    """Return the metrics by name; the SDK reads the real clock, so the times are set to those of the story."""
    data = captured._memory._reader.get_metrics_data()
    assert data is not None
    request = ExportMetricsServiceRequest.FromString(encode_metrics(data).SerializeToString())
    for metric, points in parts(request):
        for point in points:
            if metric.name in USED:
                point.as_double = USED[metric.name]
            point.time_unix_nano = captured.clock.time_ns()
            point.start_time_unix_nano = testing.START
            for exemplar in point.exemplars if hasattr(point, "exemplars") else ():
                exemplar.time_unix_nano = point.time_unix_nano
    return under(request, HERE)


def apart(request: ExportMetricsServiceRequest, second: int) -> list[ExportMetricsServiceRequest]:
    """Return a request for each of the two processes; the second is silent once it is killed."""
    both = []
    for place, resource in ((False, HERE), (True, THERE)):
        copy = ExportMetricsServiceRequest.FromString(request.SerializeToString())
        for _, points in parts(copy):
            kept = [it for it in points if ("killed-1" in str(it.attributes)) == place]
            del points[:]
            points.extend(kept)
        if not place or second < KILLED:
            both.append(under(copy, resource))
    return both


def parts(request: ExportMetricsServiceRequest) -> Iterator[tuple[Any, Any]]:
    """Return each metric with its points."""
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                yield metric, getattr(metric, metric.WhichOneof("data") or "gauge").data_points


def under(request: ExportMetricsServiceRequest, resource: dict[str, str]) -> ExportMetricsServiceRequest:
    """Return the request with this resource."""
    for item in request.resource_metrics:
        del item.resource.attributes[:]
        item.resource.attributes.extend(
            KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in resource.items()
        )
    return request
