"""Rows of live spans: what they add to a span of the SDK, and to a round of the ticker where many are shown."""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.sdk.trace import ReadableSpan, Span, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from benchmarks.harness import Row, compare, full_or_short, microseconds, scaled, tell
from benchmarks.stages import Forget
from otel_progress.integrations.live_spans.processor import MOST, LiveSpans
from otel_progress.live import hooks
from otel_progress.testing import capture

TIMES = 500
ROUNDS = full_or_short(200, 5)
LOOKS = full_or_short(40, 3)
AT_MOST = 0.2
"""What a start and what an end may add to a span, as a part of what the SDK's own span costs."""


def spans() -> Row:
    """Measure the start and the end of a span, without and with live spans beside a batch processor."""
    plain = TracerProvider(shutdown_on_exit=False)
    plain.add_span_processor(BatchSpanProcessor(Forget(), max_queue_size=100_000))
    tracer = plain.get_tracer("plain")
    live = LiveSpans()
    live._rests = False
    made: list[Span] = [tracer.start_span("part") for _ in range(TIMES)]  # type: ignore[misc]
    for span in made:
        span.end()
    ended: list[ReadableSpan] = [span._readable_span() for span in made]

    def bare() -> None:
        for _ in range(TIMES):
            tracer.start_span("part").end()

    def starts() -> None:
        for span in made:
            live.on_start(span)

    def ends() -> None:
        for span in ended:
            live.on_end(span)

    def both() -> None:
        starts()
        ends()
        live._fresh.clear()

    def start_alone() -> None:
        starts()
        live._open.clear()
        live._fresh.clear()

    steps: dict[str, Callable[[], None]] = {"bare": bare, "start": start_alone, "both": both}
    costs = scaled(compare(steps, ROUNDS), TIMES)
    base, start, whole = costs["bare"], costs["start"], costs["both"]
    end = whole.over(start)
    return Row(
        "live span: start, end",
        f"{microseconds(start)}, {microseconds(end)} = {start.ratio(base)} x and {end.ratio(base)} x a span of the SDK",
        f"{AT_MOST} x a span of the SDK each",
        f"start and end of a span with a batch processor {microseconds(base)}",
        max(start.least, end.least) <= AT_MOST * base.least,
    )


def shown() -> Row:
    """Measure a round of the ticker with as many shown spans as there may be, all idle, beside one with none."""
    from otel_progress.live.engine import runtime

    with capture():
        tracer = (provider := TracerProvider(shutdown_on_exit=False)).get_tracer("idle")
        live = LiveSpans()
        provider.add_span_processor(live)
        none = compare({"none": lambda: runtime.ticker.round(sample=True)}, LOOKS)["none"]
        hooks.watcher = live
        try:
            held = [tracer.start_span(f"job {number % 20}") for number in range(MOST)]
            runtime.ticker.round()
            live.look(1e12)
            runtime.ticker.round(sample=True)
            count = len(live._shown)
            found = compare({"many": lambda: runtime.ticker.round(sample=True)}, LOOKS)["many"]
        finally:
            hooks.watcher = None
            live.close()
            del held
    share = (found.least - none.least) / 0.25
    return Row(
        f"{count} idle live spans",
        f"{found.least * 1e3:.1f} ms a round, {share:.1%} of one core at four rounds a second",
        "8% of one core",
        f"a round without any {none.least * 1e3:.2f} ms; no more are shown at a time",
        share <= 0.08,
    )


def main() -> None:
    tell(spans(), shown())


if __name__ == "__main__":
    main()
