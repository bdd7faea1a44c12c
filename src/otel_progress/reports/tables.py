"""The tables of a run: pauses, outcomes, failures, resources, attempts and the feed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from otel_progress import semconv
from otel_progress.model.resources import Resources
from otel_progress.model.statistics import Statistics, Tally
from otel_progress.model.status import Status
from otel_progress.model.units import count, duration, part, percent, size, spelled
from otel_progress.render.words import clean
from otel_progress.reports import charts, phrases
from otel_progress.reports.document import ROWS, Cell, Facts, Table, table
from otel_progress.reports.run import Run, Told, moment

FEED: Final = 200
"""Lines of the feed: the first few and the newest."""
FIRST: Final = 20
QUIET: Final = frozenset({semconv.UPDATED, semconv.HEARTBEAT, semconv.PROCESS_HEARTBEAT, semconv.CHECKPOINT})
"""Events that the feed leaves out."""


def tallied(
    rows: list[tuple[str, Tally]], first: str, success: Callable[[Tally], float | None] = lambda one: one.success_rate
) -> Table | None:
    """A table of outcomes; empty columns are left out. Give `success_of` for runs, so that lost ones are no success."""
    made: list[tuple[object, ...]] = []
    for name, tally in rows:
        others = ", ".join(f"{count(n)} {clean(key)}" for key, n in phrases.numbers(tally.others) if n)
        rate_ = success(tally)
        numbers = [f"{n:,}" if n else "" for n in (tally.ok, tally.failed, tally.skipped, tally.retried)]
        if any(numbers) or others:
            made.append((clean(name), *numbers, others, "" if rate_ is None else part(rate_)))
    return table(f"{first}|>ok|>failed|>skipped|>retried|others|>success", made[:ROWS]) if made else None


def pauses(run: Run) -> Table | None:
    """Waits and stalls, in order."""
    rows: list[tuple[object, ...]] = []
    for pause in run.pauses[:ROWS]:
        seconds = duration(pause.seconds(run.as_of)) + (" so far" if pause.end is None else "")
        stuck = pause.kind == "stall"
        rows.append(
            (
                Cell("stuck" if stuck else "waited", "bad" if stuck else "wait"),
                clean(pause.stage or ""),
                duration(max(0.0, pause.begin - run.began)),
                seconds,
                clean(spelled(pause.reason, pause.seconds(run.as_of) if pause.end is None else 0.0)),
                clean(pause.stuck_at or ""),
            )
        )
    hidden = len(run.pauses) - ROWS
    more = f"+ {hidden:,} more" if hidden > 0 else ""
    return table("what|stage|>began after|>duration|reason|line", rows, more) if rows else None


def outcomes(found: Statistics) -> Table | None:
    """Outcomes of records, by component if there are any."""
    rows = [("all", found.items), *found.components]
    return tallied(rows, "component" if found.components else "records")


def failures(found: Statistics) -> Table | None:
    """The most frequent messages of failures."""
    rows: list[tuple[object, ...]] = [(Cell(clean(message), "bad"), f"{n:,}") for message, n in found.failures]
    return table("failure|>times", rows) if rows else None


def resources(found: Resources | None, *, ended: bool) -> Facts | None:
    """What the process used."""
    if found is None:
        return None
    pairs = (
        ("CPU time", None if found.cpu_seconds is None else duration(found.cpu_seconds)),
        ("CPU lately", None if found.cpu is None or ended else f"{count(round(found.cpu, 2))} cores"),
        ("memory", None if found.memory is None else size(found.memory)),
        ("peak memory", None if found.peak_memory is None else size(found.peak_memory)),
        ("threads", None if found.threads is None else count(found.threads)),
        ("read from disks", _by_process(found.read_bytes)),
        (
            "written to disks",
            _by_process(found.written_bytes),
        ),
        ("child processes", None if not found.children else count(found.children)),
        ("their memory", None if not found.children_memory else size(found.children_memory)),
    )
    rows = tuple((name, value) for name, value in pairs if value is not None)
    return Facts(rows) if rows else None


def _by_process(count_: float | None) -> str | None:
    """Bytes that the process has read or written: not those of the run alone."""
    return None if count_ is None else f"{size(count_)} since the process began"


def attempts(run: Run) -> Table | None:
    """The attempts, if there was more than one."""
    rows: list[tuple[object, ...]] = []
    for one in run.attempts:
        spent = None if one.started_at is None or one.ended_at is None else one.ended_at - one.started_at
        status = Status(one.status) if one.status in set(Status) else None
        rows.append(
            (
                f"{one.number}",
                moment(one.started_at),
                Cell(one.status or "no end was reported", "" if status is None else charts.tone_of(status)),
                "" if spent is None else duration(max(0.0, spent)),
                "" if one.ratio is None else percent(one.ratio),
                clean(one.reason or ""),
            )
        )
    return table("attempt|started (UTC)|state|>duration|>reached|reason", rows[:ROWS]) if len(rows) > 1 else None


def feed(run: Run) -> Table | None:
    """What happened, in order; the middle is left out if it is long."""
    told = [one for one in run.feed if one.event not in QUIET]
    hidden = max(0, len(told) - FEED)
    some = told if not hidden else [*told[:FIRST], *told[FIRST + hidden :]]
    rows: list[tuple[object, ...]] = [(moment(one.timestamp)[5:], _text(one, run)) for one in some]
    more = f"{hidden:,} more lines after the first {FIRST}" if hidden else ""
    return table("time (UTC)|what happened", rows, more) if rows else None


def _text(told: Told, run: Run) -> str:
    """An event in words; how long it was stuck is said as in the table of stalls."""
    text = told.text.removeprefix(run.snapshot.name).removeprefix(":").strip()
    if told.event != semconv.RECOVERED:
        return clean(text)
    ended = [p for p in run.pauses if p.kind == "stall" and p.end is not None and p.begin < told.timestamp]
    ended = [p for p in ended if not told.stage or p.stage in (None, told.stage)] or ended
    if not ended or "moves again after" not in text:
        return clean(text)
    seconds = max(ended, key=lambda pause: pause.begin).seconds(run.as_of)
    return clean(text.partition("moves again after")[0] + f"moves again; it was stuck for {duration(seconds)}")
