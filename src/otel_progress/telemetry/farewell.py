"""The last line of a process whose receiver was away: what it could not send, where to, and the cure."""

from __future__ import annotations

from collections.abc import Callable

from otel_progress.live.guard import say, tell_once
from otel_progress.outbound.trouble import Trouble
from otel_progress.telemetry.outbox import Unsent
from otel_progress.telemetry.pipeline import Pipeline

Spans = Callable[[], tuple[int, Trouble | None]]


class Farewell:
    """Says once what could not be sent by the end; it never raises."""

    def __init__(self, pipeline: Pipeline, spans: Spans) -> None:
        """Of this pipeline, and of the spans that this counts."""
        self._pipeline = pipeline
        self._spans = spans
        self._said = ""
        self._over = False

    def say(self, final: bool) -> None:
        """Log it, if anything is unsent; after a `final` one there is nothing more to say."""
        if self._over:
            return
        self._over = final
        try:
            events, trouble = self._pipeline.unsent(final=final)
            spans, of_spans = self._spans()
            text = line(events, spans, trouble or of_spans)
        except Exception:
            tell_once("what could not be sent is not known")
            return
        if text and text != self._said:
            self._said = text
            say("%s", text)


def line(events: Unsent, spans: int, trouble: Trouble | None) -> str:
    """What could not be sent, in one line; empty where there is nothing."""
    ends = "end of an operation", "ends of operations"
    others = ("other event", "other events") if events.ends else ("event", "events")
    counts = ((events.ends, ends), (events.others, others), (spans, ("span", "spans")))
    parts = [f"{count} {words[count != 1]}" for count, words in counts if count]
    if not parts:
        return ""
    what = " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
    why = trouble.text if trouble else "there was no time; run `otel-progress doctor`"
    return f"{what} could not be sent before the end: {why}"
