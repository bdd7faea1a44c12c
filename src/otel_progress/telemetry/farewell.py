"""The last log line of a process that could not send everything: what, where, and the cure."""

from __future__ import annotations

from collections.abc import Callable

from otel_progress.live.guard import say, tell_once
from otel_progress.outbound.trouble import Trouble, is_late_answer_of_run
from otel_progress.settings import run_endpoint
from otel_progress.telemetry.outbox import Unsent
from otel_progress.telemetry.pipeline import Pipeline

Unreported = Callable[[], tuple[int, int]]
UnsentSpans = Callable[[], tuple[int, Trouble | None]]


class Farewell:
    """Logs what could not be sent by the end of the process; never raises."""

    def __init__(
        self, pipeline: Pipeline, spans: UnsentSpans, unreported: Unreported, running: Callable[[], int]
    ) -> None:
        """Report on a pipeline and its outbox.

        Args:
            pipeline: what sends.
            spans: counts the spans that wait.
            unreported: counts ends and other events that were not emitted.
            running: counts the ended operations whose metrics say that they run.
        """
        self._pipeline = pipeline
        self._running = running
        self._spans = spans
        self._unreported = unreported
        self._said = ""
        self._over = False

    def say(self, final: bool, *, replaced: bool = False) -> None:
        """Log what is unsent, if anything and if it changed; after a `final` call nothing more is logged.

        What `otel-progress run` took without answering in time is not unsent.

        If the configuration is `replaced`, the next one gets what was not emitted yet.
        """
        if self._over:
            return
        self._over = final
        try:
            ends, others = (0, 0) if replaced else self._unreported()  # first: one may be on its way to the pipeline
            events, trouble = self._pipeline.unsent(final=final)
            events = Unsent(events.ends + ends, events.others + others, events.why)
            if is_late_answer_of_run(trouble):
                events, trouble = Unsent(), None
            spans, of_spans = self._spans()
            if is_late_answer_of_run(of_spans):
                spans, of_spans = 0, None
            of_metrics = self._pipeline.trouble_of_metrics
            told = is_late_answer_of_run(of_metrics) or (of_metrics is None and bool(run_endpoint()))
            running = 0 if told else self._running()  # `run` knows of an end by its event
            if running:
                trouble = trouble or of_metrics
            text = line(events, spans, trouble or of_spans, running)
        except Exception:
            tell_once("what could not be sent is not known")
            return
        if text and text != self._said:
            self._said = text
            say("%s", text)


def line(events: Unsent, spans: int, trouble: Trouble | None, running: int = 0) -> str:
    """Say what could not be sent, in one line; empty if everything was.

    `running` operations have ended, and their metrics do not say so.
    """
    ends = "end of an operation", "ends of operations"
    others = ("other event", "other events") if events.ends else ("event", "events")
    metrics = "last metric of an operation", "last metrics of operations"
    counts = ((events.ends, ends), (events.others, others), (running, metrics), (spans, ("span", "spans")))
    parts = [f"{count} {words[count != 1]}" for count, words in counts if count]
    if not parts:
        return ""
    what = " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
    why = trouble.text if trouble else events.why or "there was no time; run `otel-progress doctor`"
    return f"{what} could not be sent before the end: {why}"
