"""Rows of a recording stage: enter and exit, against a span with the same attributes, and one without any."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import logfire
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

import otel_progress as progress
from benchmarks.harness import Row, compare, full_or_short, microseconds, scaled, tell
from otel_progress import semconv
from otel_progress.live.engine import process
from otel_progress.live.registry import registry

TIMES = 200
ROUNDS = full_or_short(300, 10)


class Forget(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        del spans
        return SpanExportResult.SUCCESS


def processor() -> BatchSpanProcessor:
    return BatchSpanProcessor(Forget(), max_queue_size=100_000)


def times(step: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(TIMES):
            step()

    return run


def row(what: str, operation: progress.Operation, path: str | None) -> Row:
    """Measure enter and exit of a stage, beside spans with the same attributes and without any."""
    tracer = trace.get_tracer("raw")
    said = {semconv.OPERATION_ID: operation.id, semconv.OPERATION_NAME: operation.name}
    if path is not None:
        said[semconv.STAGE_PATH] = path

    def ours() -> None:
        with progress.stage("parse"):
            pass

    def same() -> None:
        with tracer.start_as_current_span("parse", attributes=said):
            pass

    def bare() -> None:
        with tracer.start_as_current_span("parse"):
            pass

    def told() -> None:
        """Do the work of the ticker, which runs once a second in another thread: take the changes, fold old stages."""
        registry.changes.clear()
        if operation._stages is not None:
            del operation._stages[1 if path else 0 :]

    steps = {"ours": ours, "same": same, "bare": bare}
    costs = scaled(compare({name: times(step) for name, step in steps.items()}, ROUNDS, between=told), TIMES)
    mine = costs["ours"]
    return Row(
        what,
        f"{microseconds(mine)} = {mine.ratio(costs['same'])} x the raw span",
        "1.0 x raw `start_as_current_span`",
        f"raw, same attributes {microseconds(costs['same'])}; raw, no attributes {microseconds(costs['bare'])} "
        f"(ours is {mine.ratio(costs['bare'])} x)",
        mine.least <= costs["same"].least,
    )


def peer() -> str:
    """Measure logfire.span beside the raw span; separately, as what it leaves in memory slows its neighbours."""
    logger = logfire.configure(
        local=True, send_to_logfire=False, console=False, metrics=False, additional_span_processors=[processor()]
    )
    tracer = trace.get_tracer("raw")

    def bare() -> None:
        with tracer.start_as_current_span("parse"):
            pass

    def fire() -> None:
        with logger.span("parse"):
            pass

    costs = scaled(compare({"bare": times(bare), "logfire": times(fire)}, full_or_short(100, 5)), TIMES)
    cost = costs["logfire"]
    return f"; logfire.span {microseconds(cost)} = {cost.ratio(costs['bare'])} x raw, no attributes"


def main() -> None:
    provider = TracerProvider()
    provider.add_span_processor(processor())
    trace.set_tracer_provider(provider)
    process.threads_allowed = False
    with progress.operation("survey") as operation:
        rows = [row("stage enter + exit, recording", operation, None)]
        with progress.stage("outer"):
            rows.append(row("the same, a stage inside a stage", operation, "outer/parse"))
        rows[0].peers += peer()
    tell(*rows)


if __name__ == "__main__":
    main()
