"""How a run stands, in a word."""

from __future__ import annotations

from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Status, word
from otel_progress.render import words
from otel_progress.reports import charts
from otel_progress.reports.run import Run


def state_of(one: Snapshot) -> tuple[str, str]:
    """The word for how a run stands, and its tone."""
    if one.status.final:
        return one.status.value, charts.tone_of(one.status)
    bad = words.trouble(one)
    if bad is not None:
        return bad[0].lower(), "bad" if bad[1] == "red" else "warn"
    return (one.status.value if one.status is not Status.RUNNING else word(one.health)), "open"


def standing(run: Run) -> tuple[str, str]:
    """The word for how a run stands, and its tone; one without an end whose process is gone does not run."""
    one = run.snapshot
    if one.status.final or run.alive:
        return state_of(one)
    if run.alive is False:
        return "no end known", "bad"
    return state_of(one) if words.trouble(one) is not None else ("no end known", "warn")
