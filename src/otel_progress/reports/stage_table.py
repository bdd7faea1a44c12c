"""The table of the stages of a run."""

from __future__ import annotations

from otel_progress import semconv
from otel_progress.model.snapshot import StageSnapshot
from otel_progress.model.statistics import StageStatistics, Statistics, Tally
from otel_progress.model.status import Status
from otel_progress.model.units import duration, part, plural, size
from otel_progress.render.words import clean
from otel_progress.reports import charts, phrases
from otel_progress.reports.document import ROWS, Cell, Table, table
from otel_progress.reports.run import Run


def stages(run: Run, found: Statistics) -> Table | None:
    """A row a path, with the figures of all its runs."""
    one = run.snapshot
    listed: dict[str, list[StageSnapshot]] = {}
    for stage in one.stages:
        listed.setdefault(stage.path, []).append(stage)
    known = {stage.path: stage for stage in found.stages}
    rows = [_stage(path, listed.get(path, []), known.get(path), run) for path in dict.fromkeys((*listed, *known))]
    if not rows:
        return None
    named = {path for path in known if path != semconv.OTHER_STAGE}
    spent = sum(stage.durations.total for path, stage in known.items() if stage.durations and "/" not in path)
    folded = sum(n for _, n, _ in one.folded) - sum(runs.folded for runs in one.repeated if runs.path in named)
    more = [f"+ {len(rows) - ROWS:,} more rows"] if len(rows) > ROWS else []
    more += [f"{folded:,} more {plural('stage', folded)} ended; their names are no longer known"] if folded > 0 else []
    more += overlapping(spent, one.elapsed)
    return table(
        "stage|state|>runs|>failed|>began after|>duration|>share|counted"
        "|>p50|>p90|>tokens|>cost|>CPU|>peak memory|reason",
        rows[:ROWS],
        "; ".join(more),
    )


def overlapping(spent: float, whole: float) -> list[str]:
    """What shares mean, if stages took longer than the time there was."""
    if spent <= whole * 1.01:
        return []
    return ["share is of the time from start to end; what ran side by side overlaps, and adds up to more than 100%"]


def _stage(path: str, listed: list[StageSnapshot], found: StageStatistics | None, run: Run) -> tuple[object, ...]:
    one = run.snapshot
    open_for = sum(stage.elapsed for stage in listed if not stage.status.final)
    spent = (found.durations.total if found and found.durations else 0.0) + open_for
    first = min((stage.started_at for stage in listed if stage.started_at is not None), default=None)
    open_ = next((stage for stage in listed if not stage.status.final), None)
    newest = open_ or max(reversed(listed), key=lambda stage: stage.started_at or 0.0, default=None)
    bad = [stage for stage in listed if stage.status.final and stage.status is not Status.COMPLETED]
    worst = open_ if open_ and open_.reason else bad[-1] if bad else None
    runs = found.runs if found else Tally()
    status = newest.status if newest else Status.FAILED if runs.failed else Status.COMPLETED
    number = runs.ok + runs.failed + runs.skipped + sum(int(n) for _, n in phrases.numbers(runs.others))
    many = found.durations if found and found.durations and found.durations.count > 1 else None
    counted = ", ".join(phrases.quantity(key, n) for key, n in phrases.numbers(found.units) if n) if found else ""
    before = first is None or number > len(listed)  # earlier runs are folded: their start is not known
    untimed = bool(listed) and all(stage.untimed for stage in listed) and many is None and not spent
    return (
        "other stages" if path == semconv.OTHER_STAGE else clean(path),
        Cell(status.value, charts.tone_of(status) if status is not Status.PENDING else ""),
        f"{number:,}" if number > 1 else "",
        Cell(f"{runs.failed:,}" if runs.failed and number > 1 else "", "bad"),
        "" if before or first is None else duration(max(0.0, first - run.began)),
        duration(spent) if (number or open_for) and not untimed else "",
        part(spent / one.elapsed) if one.elapsed and spent else "",
        counted,
        duration(many.p50) if many and many.p50 is not None else "",
        duration(many.p90) if many and many.p90 is not None else "",
        phrases.tokens(found.tokens) if found else "",
        phrases.money(found.cost) if found else "",
        duration(found.cpu_seconds) if found and found.cpu_seconds is not None else "",
        size(found.peak_memory) if found and found.peak_memory is not None else "",
        clean(worst.reason) if worst and worst.reason and worst.reason != one.reason else "",
    )
