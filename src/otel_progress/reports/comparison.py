"""Many runs compared: each run in short, statistics of all, and what changed of late."""

from __future__ import annotations

import math
import statistics as numbers
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from otel_progress.model.snapshot import Snapshot
from otel_progress.model.statistics import Spread, Statistics, Tally, aggregate, tally
from otel_progress.model.status import Status, word
from otel_progress.render.words import trouble

ROWS: Final = 10_000
"""Runs that are kept one by one, the newest; statistics count all."""
STAGES: Final = 64
"""Stages of a run whose durations are kept."""
ENOUGH: Final = 4
"""Runs from which on something is called a change."""
RECENT: Final = 4
"""The newest runs are one part in so many, at least one run."""
NOTABLE: Final = 0.10
"""The part by which a number must differ to be called a change."""
SHORTEST: Final = 0.01
"""Seconds by which a duration must differ as well."""


class RunRow(NamedTuple):
    """One run in short; durations in seconds, `started_at` in Unix seconds."""

    operation_id: str
    name: str
    status: Status
    started_at: float | None
    duration: float
    attempt: int
    completed: float | None
    unit: str
    ok: int
    failed: int
    cost: Mapping[str, float]
    stages: Mapping[str, float]
    reason: str | None
    state: str = ""

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.status.final

    @property
    def bad(self) -> bool:
        """Whether it failed or was lost."""
        return self.status in (Status.FAILED, Status.LOST)


class Change(NamedTuple):
    """What differs between the newest runs and those before.

    Attributes:
        what: `duration`, `failure rate`, `cost`, `units`, or `stage` with its path in `of`.
        of: the stage, the currency or the unit that it is about.
        before: the number for the runs before; None if there was none.
        recent: the number for the newest runs; None if there is none any more.
    """

    what: str
    of: str
    before: float | None
    recent: float | None

    @property
    def factor(self) -> float | None:
        """By which part it changed: 0.5 is half as much again; None from nothing or to nothing."""
        if not self.before or self.recent is None:
            return None
        return self.recent / self.before - 1


@dataclass(frozen=True)
class Comparison:
    """Many runs compared.

    Attributes:
        name: their name, or the names.
        rows: the runs one by one, the oldest first; at most 10,000.
        number: how many runs there were.
        statistics: of all of them; durations are those of the runs that ended, the middle of them as a median.
        changes: what changed, the largest change first.
        recent: how many of the newest runs `changes` compares with those before; 0 if there are too few.
        since: runs from this time on, in Unix seconds; None if they were named one by one.
        source: where they were read, in words.
        as_of: when, in Unix seconds.
    """

    name: str
    rows: tuple[RunRow, ...]
    number: int
    statistics: Statistics
    changes: tuple[Change, ...]
    recent: int
    source: str
    as_of: float
    since: float | None = None

    @property
    def ended(self) -> int:
        """Runs that are over."""
        return ended_of(self.statistics.runs)

    @property
    def failure_rate(self) -> float | None:
        """Failed and lost runs as a part of those that ended."""
        runs = self.statistics.runs
        return (runs.failed + _whole(runs.others.get(Status.LOST.value, 0))) / self.ended if self.ended else None

    @property
    def retried(self) -> int:
        """Runs that are not the first attempt of their id."""
        return self.statistics.runs.retried


_OPEN: Final = frozenset(status.value for status in Status if not status.final)


def ended_of(runs: Tally) -> int:
    """The runs of a tally that are over; a lost run is over as well."""
    others = sum(_whole(n) for key, n in runs.others.items() if key not in _OPEN)
    return runs.ok + runs.failed + runs.skipped + others


def success_of(runs: Tally) -> float | None:
    """Completed runs as a part of those that ended, lost ones among them."""
    ended = ended_of(runs)
    return runs.ok / ended if ended else None


def compare(
    snapshots: Iterable[Snapshot], *, source: str, as_of: float, since: float | None = None, most: int = ROWS
) -> Comparison:
    """Compare runs; they are taken one by one, and beyond `most` each needs 8 bytes."""
    rows: deque[RunRow] = deque(maxlen=most)
    names: dict[str, int] = {}
    spent = array("d")
    found = aggregate(_noted(snapshots, rows, names, spent)).statistics
    found = replace(found, durations=_spread(sorted(spent)))
    ordered = sorted(rows, key=lambda row: row.started_at or 0.0)
    recent, changed = changes(ordered)
    shown = ", ".join(sorted(names, key=lambda name: -names[name])[:3]) + (", ..." if len(names) > 3 else "")
    return Comparison(shown, tuple(ordered), sum(names.values()), found, changed, recent, source, as_of, since)


def _spread(spent: Sequence[float]) -> Spread | None:
    """Durations of runs, in order of their length; the median is the middle one, or the mean of the two middle ones."""
    if not spent:
        return None
    p90, p99 = (spent[max(0, math.ceil(part * len(spent)) - 1)] for part in (0.9, 0.99))
    return Spread(len(spent), math.fsum(spent), median(spent), p90, p99, spent[-1])


def _noted(
    snapshots: Iterable[Snapshot], rows: deque[RunRow], names: dict[str, int], spent: array[float]
) -> Iterator[Snapshot]:
    for snapshot in snapshots:
        rows.append(row_of(snapshot))
        if snapshot.status.final and snapshot.started_at is not None:
            spent.append(snapshot.elapsed)
        name = snapshot.name if snapshot.name in names or len(names) < STAGES else ""
        names[name] = names.get(name, 0) + 1
        yield snapshot


def row_of(one: Snapshot) -> RunRow:
    """A run in short."""
    items = tally(one.outcomes)
    cost = {key.removeprefix("cost."): n for key, n in one.usage.items() if key.startswith("cost.")}
    return RunRow(
        one.operation_id,
        one.name,
        one.status,
        one.started_at,
        one.elapsed,
        one.attempt,
        one.progress.completed,
        one.progress.unit,
        items.ok,
        items.failed,
        _floats(cost),
        _stages(one),
        one.reason,
        _state(one),
    )


def _state(one: Snapshot) -> str:
    """A word for how a run stands: `completed`, `stuck`."""
    bad = trouble(one)
    if one.status.final or (bad is None and one.status is not Status.RUNNING):
        return one.status.value
    return word(one.health) if bad is None else bad[0].lower()


def _stages(one: Snapshot) -> dict[str, float]:
    """Seconds that all ended runs of each stage took together."""
    spent = {runs.path: runs.seconds for runs in one.repeated[:STAGES]}
    repeated = frozenset(spent)
    for stage in one.stages:
        if stage.status.final and stage.is_timed and stage.path not in repeated:
            if stage.path in spent or len(spent) < STAGES:
                spent[stage.path] = spent.get(stage.path, 0.0) + stage.elapsed
    return spent


def changes(rows: Sequence[RunRow]) -> tuple[int, tuple[Change, ...]]:
    """Compare the newest quarter of the ended runs with those before; returns how many runs that is, and what differs.

    Durations and units are medians of completed runs, cost is the mean of all, the failure rate counts failed and lost.
    """
    ended = [row for row in rows if row.ended]
    if len(ended) < ENOUGH:
        return 0, ()
    recent = max(1, len(ended) // RECENT)
    before, newest = ended[:-recent], ended[-recent:]
    found = [
        Change("failure rate", "", _rate(before), _rate(newest)),
        Change("duration", "", *(median([row.duration for row in _done(some)]) for some in (before, newest))),
        *_units(before, newest),
        *_each("cost", before, newest, lambda row: row.cost, numbers.fmean),
        *_each("stage", _done(before), _done(newest), lambda row: row.stages, numbers.median),
    ]
    one_name = len({row.name for row in ended}) == 1  # runs of another name have other stages
    notable = [change for change in found if _is_notable(change) and (one_name or None not in change)]
    return recent, tuple(sorted(notable, key=lambda change: -abs(9e9 if change.factor is None else change.factor)))


def _is_notable(change: Change) -> bool:
    if change.before is None or change.recent is None:
        return change.what == "stage" and change.before != change.recent
    apart = abs(change.recent - change.before)
    if change.what in ("duration", "stage") and apart < SHORTEST:
        return False
    return apart > 0 and apart >= NOTABLE * max(change.before, 1e-12 if change.what != "failure rate" else 0.0)


def _each(what: str, before: Sequence[RunRow], newest: Sequence[RunRow], of: Any, middle: Any) -> list[Change]:
    keys = dict.fromkeys(key for row in (*before, *newest) for key in of(row))
    if not before or not newest:
        return []
    found = []
    for key in list(keys)[:STAGES]:
        values = [[of(row)[key] for row in some if key in of(row)] for some in (before, newest)]
        if what == "cost":  # a run without cost cost nothing
            values = [[of(row).get(key, 0.0) for row in some] for some in (before, newest)]
        found.append(Change(what, key, *(middle(some) if some else None for some in values)))
    return found


def _units(before: Sequence[RunRow], newest: Sequence[RunRow]) -> list[Change]:
    units = {row.unit for row in (*_done(before), *_done(newest)) if row.completed is not None}
    if len(units) != 1:
        return []
    middles = (median([row.completed for row in _done(some) if row.completed is not None]) for some in (before, newest))
    return [Change("units", units.pop(), *middles)]


def _done(rows: Sequence[RunRow]) -> list[RunRow]:
    return [row for row in rows if row.status is Status.COMPLETED]


def _rate(rows: Sequence[RunRow]) -> float:
    return sum(row.bad for row in rows) / len(rows)


def median(values: Sequence[float]) -> float | None:
    """The median; None of nothing."""
    return numbers.median(values) if values else None


def _floats(values: Mapping[str, object]) -> dict[str, float]:
    return {key: float(n) for key, n in values.items() if isinstance(n, (int, float))}


def _whole(value: object) -> int:
    return int(value) if isinstance(value, (int, float)) else 0
