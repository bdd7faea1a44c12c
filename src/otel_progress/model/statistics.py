"""Statistics of one run, or of many: outcomes, durations, units, tokens, cost, failures.

All follow from snapshots, so a process, a monitor and a report say the same. A number that is not known is None.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from otel_progress import semconv
from otel_progress.model.fields import SnapshotFields, StageSnapshot
from otel_progress.model.sketch import Sketch
from otel_progress.model.stage_runs import StageRuns, was_done_before
from otel_progress.model.status import Status
from otel_progress.model.tallies import Failures, Tallies
from otel_progress.model.values import Attributes, Number, finite, no_attributes, without_noise

STAGES: Final = 128
"""Stage paths with statistics of their own; the runs of others are counted under `_other`."""
FAILURES: Final = 10
"""Messages of failures that are listed, the most frequent first."""
RESULTS: Final = 10_000
"""Runs whose results `aggregate` keeps; the statistics count all of them."""
_WORDS: Final = {"completed": "ok", "ok": "ok", "failed": "failed", "skipped": "skipped", "retried": "retried"}
"""How statuses of stages and runs count as outcomes; others are `others`."""


@dataclass(frozen=True)
class Tally:
    """Numbers of items, stages or runs by outcome.

    Attributes:
        ok: those that completed.
        failed: those that failed.
        skipped: those that were left out.
        retried: tries after the first. A retry is not an outcome: success does not depend on it.
        others: the numbers of other outcomes, such as `cancelled` and `lost`.
        alone: whether only failures were recorded, beside units that were counted otherwise: then `ok` is not known.
    """

    ok: int = 0
    failed: int = 0
    skipped: int = 0
    retried: int = 0
    others: Attributes = field(default_factory=no_attributes)
    alone: bool = False

    @property
    def success_rate(self) -> float | None:
        """`ok` as a part of those that are `ok`, `failed` or `lost`, from 0 to 1; None if `ok` is not known."""
        tried = self.ok + self.failed + _whole(self.others.get("lost"))
        return self.ok / tried if tried and not self.alone else None

    def to_dict(self) -> dict[str, Any]:
        """Return it in plain JSON types, with `success_rate`."""
        numbers = {"ok": self.ok, "failed": self.failed, "skipped": self.skipped, "retried": self.retried}
        return {**numbers, "success_rate": _digits(self.success_rate), "others": dict(self.others)}


@dataclass(frozen=True)
class Spread:
    """How long runs took, in seconds. Quantiles are within 2% if they come from counts, else as their sender said.

    Attributes:
        count: number of runs.
        total: their sum.
        p50: the duration that half of the runs do not exceed; `p90` and `p99` alike. None if not known.
        p90: the duration that 90% of the runs do not exceed.
        p99: the duration that 99% of the runs do not exceed.
        longest: the longest.
    """

    count: int
    total: float
    p50: float | None
    p90: float | None
    p99: float | None
    longest: float

    @property
    def mean(self) -> float:
        """The mean duration in seconds."""
        return self.total / self.count if self.count else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it in plain JSON types, with `mean`."""
        quantiles = {"mean": self.mean, "p50": self.p50, "p90": self.p90, "p99": self.p99, "longest": self.longest}
        return {"count": self.count, "total": _digits(self.total), **{k: _digits(v) for k, v in quantiles.items()}}


@dataclass(frozen=True)
class StageStatistics:
    """All ended runs of one stage path.

    Attributes:
        path: the path of the stage; `_other` for those beyond the limit.
        runs: runs by outcome.
        durations: how long they took; None if none has ended.
        items: records by outcome, of the runs that the snapshot lists.
        units: completed units by unit, of the same runs.
        tokens: tokens by direction, of the same runs; what was spent beside all stages is in those of the operation.
        cost: money by currency, likewise.
        cpu_seconds: CPU time that the process used meanwhile, of the same runs; None if not measured.
        peak_memory: the most resident memory seen meanwhile, in bytes.
    """

    path: str
    runs: Tally
    durations: Spread | None
    items: Tally
    units: Attributes = field(default_factory=no_attributes)
    tokens: Attributes = field(default_factory=no_attributes)
    cost: Attributes = field(default_factory=no_attributes)
    cpu_seconds: float | None = None
    peak_memory: Number | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it in plain JSON types."""
        return {
            "path": self.path,
            "runs": self.runs.to_dict(),
            "durations": None if self.durations is None else self.durations.to_dict(),
            "items": self.items.to_dict(),
            "units": dict(self.units),
            "tokens": dict(self.tokens),
            "cost": dict(self.cost),
            "cpu_seconds": self.cpu_seconds,
            "peak_memory": self.peak_memory,
        }


@dataclass(frozen=True)
class Statistics:
    """Statistics of one run, or of many.

    Attributes:
        runs: runs by outcome; one that still runs is in `others`. `retried` are those with an attempt above 1.
        durations: how long they took; one that still runs counts as long as it took so far.
        items: records by outcome (`record`).
        children: child operations of this process that ended, by outcome; their records are their own. A monitor counts
            those of other processes as well.
        stages: by stage path.
        components: records by the component that they named.
        units: completed units by unit.
        rate: completed units a second, over the whole time, without those that an earlier attempt completed; by unit.
        tokens: tokens by direction (`input`, `output`).
        cost: money by currency.
        cost_per_unit: money for one unit completed meanwhile, by currency; empty with several units, or none.
        failures: the most frequent messages of failures, with their number.
        curve: of one run, completed units over time: (seconds since its start, units); at most 64 points.
    """

    runs: Tally
    durations: Spread | None
    items: Tally
    children: Tally = field(default_factory=Tally)
    stages: tuple[StageStatistics, ...] = ()
    components: tuple[tuple[str, Tally], ...] = ()
    units: Attributes = field(default_factory=no_attributes)
    rate: Attributes = field(default_factory=no_attributes)
    tokens: Attributes = field(default_factory=no_attributes)
    cost: Attributes = field(default_factory=no_attributes)
    cost_per_unit: Attributes = field(default_factory=no_attributes)
    failures: tuple[tuple[str, int], ...] = ()
    curve: tuple[tuple[float, Number], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it in plain JSON types; durations in seconds, rates from 0 to 1 or in units a second."""
        return {
            "runs": self.runs.to_dict(),
            "durations": None if self.durations is None else self.durations.to_dict(),
            "items": self.items.to_dict(),
            "children": self.children.to_dict(),
            "stages": [stage.to_dict() for stage in self.stages],
            "components": {name: tally.to_dict() for name, tally in self.components},
            "units": dict(self.units),
            "rate": dict(self.rate),
            "tokens": dict(self.tokens),
            "cost": dict(self.cost),
            "cost_per_unit": dict(self.cost_per_unit),
            "failures": [{"message": message, "count": count} for message, count in self.failures],
            "curve": [list(point) for point in self.curve],
        }


@dataclass(frozen=True)
class Aggregate:
    """What many runs have in common.

    Attributes:
        statistics: of all of them together.
        results: what each run gave to `result`, with its operation id, in the given order; at most 10,000 runs.
        results_dropped: runs with results beyond that.
    """

    statistics: Statistics
    results: tuple[tuple[str, Attributes], ...] = ()
    results_dropped: int = 0

    def values(self, key: str) -> list[Any]:
        """Return the results under one key, of the runs that have it."""
        return [result[key] for _, result in self.results if key in result]

    def to_dict(self) -> dict[str, Any]:
        """Return it in plain JSON types."""
        return {
            "statistics": self.statistics.to_dict(),
            "results": [{"operation_id": key, "result": dict(result)} for key, result in self.results],
            "results_dropped": self.results_dropped,
        }


def statistics_of(snapshot: SnapshotFields) -> Statistics:
    """Return the statistics of one run."""
    found = _Gathered()
    found.add(snapshot)
    return found.value()


def aggregate(operations: Iterable[Any]) -> Aggregate:
    """Gather the results and the statistics of many runs: operations, or their snapshots.

    Example: `aggregate(runs).statistics.durations.p90`

    Raises:
        TypeError: if an item is neither.
    """
    found, dropped = _Gathered(), 0
    results: list[tuple[str, Attributes]] = []
    for given in operations:
        snapshot = given if isinstance(given, SnapshotFields) else _snapshot_of(given)
        found.add(snapshot)
        if snapshot.result:
            if len(results) < RESULTS:
                results.append((snapshot.operation_id, snapshot.result))
            else:
                dropped += 1
    return Aggregate(found.value(), tuple(results), dropped)


def _snapshot_of(given: Any) -> SnapshotFields:
    snapshot = getattr(given, "snapshot", None)
    found = snapshot() if callable(snapshot) else None
    if not isinstance(found, SnapshotFields):
        raise TypeError(f"aggregate() takes operations or snapshots, not a {type(given).__name__}")
    return found


class _Times:
    """Durations while they are gathered."""

    def __init__(self) -> None:
        self.sketch = Sketch()
        self.total = self.longest = 0.0
        self.shortest = math.inf
        self.count = 0
        self.told: StageRuns | None = None
        """The runs whose quantiles are known as numbers alone."""

    def add(self, seconds: float) -> None:
        self.sketch.add(seconds)
        self.shortest = min(self.shortest, max(0.0, seconds))
        self._count(1, seconds, seconds)

    def add_runs(self, runs: StageRuns) -> None:
        if runs.buckets:
            self.sketch.merge(Sketch(runs.buckets))
        else:
            self.told = runs
        self.shortest = 0.0  # not known
        self._count(runs.count, runs.seconds, runs.longest)

    def _count(self, count: int, seconds: float, longest: float) -> None:
        self.count += count
        self.total += max(0.0, seconds)
        self.longest = max(self.longest, longest)

    def value(self) -> Spread | None:
        if not self.count:
            return None
        told = self.told
        if self.sketch.count == self.count:
            quantiles = (self.sketch.quantile(part) for part in (0.5, 0.9, 0.99))
            p50, p90, p99 = (min(max(found, self.shortest), self.longest) for found in quantiles)
            return Spread(self.count, self.total, p50, p90, p99, self.longest)
        if told is not None and told.count == self.count:
            return Spread(self.count, self.total, told.median, told.p90, told.p99, self.longest)
        return Spread(self.count, self.total, None, None, None, self.longest)


class _Stage:
    """The runs of a stage path while they are gathered."""

    def __init__(self) -> None:
        self.runs: dict[str, int] = {}
        self.items: dict[str, int] = {}
        self.units: dict[str, Number] = {}
        self.usage: dict[str, Number] = {}
        self.times = _Times()
        self.cpu: float | None = None
        self.peak: Number | None = None
        self.alone = False

    def value(self, path: str) -> StageStatistics:
        units, (tokens, cost) = Attributes(self.units), _spent(self.usage)
        spread, items = self.times.value(), tally(self.items, alone=self.alone)
        return StageStatistics(path, tally(self.runs), spread, items, units, tokens, cost, self.cpu, self.peak)


class _Gathered:
    """Statistics while they are gathered, in constant memory."""

    def __init__(self) -> None:
        self.runs: dict[str, int] = {}
        self.times = _Times()
        self.items: dict[str, int] = {}
        self.children: dict[str, int] = {}
        self.stages: dict[str, _Stage] = {}
        self.components = Tallies()
        self.units: dict[str, Number] = {}
        self.restored: dict[str, Number] = {}
        self.usage: dict[str, Number] = {}
        self.failures = Failures()
        self.curve: tuple[tuple[float, Number], ...] = ()
        self.number = 0
        self.alone = False

    def add(self, snapshot: SnapshotFields) -> None:
        """Add a run."""
        self.number += 1
        _count(self.runs, snapshot.status.value, 1)
        if snapshot.attempt > 1:
            _count(self.runs, "retried", 1)
        if snapshot.started_at is not None:
            self.times.add(snapshot.elapsed)
        _add_all(self.items, records_of(snapshot))
        self.alone = self.alone or _fails_alone(snapshot)
        _add_all(self.children, snapshot.child_outcomes)
        _add_all(self.usage, snapshot.usage)
        self._add_units(snapshot)
        self._add_stages(snapshot)
        for component, counts in snapshot.components:
            for outcome, count in counts.items():
                self.components.add(component, outcome, _whole(count))
        for message, count in _failures(snapshot):
            self.failures.add(message, count)
        self.curve = snapshot.curve

    def _add_units(self, snapshot: SnapshotFields) -> None:
        progress = snapshot.progress
        if progress.completed is not None:
            _count(self.units, progress.unit, progress.completed)
            _count(self.restored, progress.unit, progress.restored or 0)
        _add_all(self.units, snapshot.counters)

    def _add_stages(self, snapshot: SnapshotFields) -> None:
        repeated = {runs.path for runs in snapshot.repeated}
        for runs in snapshot.repeated:
            stage = self._stage(runs.path)
            _add_all(stage.runs, runs.counts)
            stage.times.add_runs(runs)
        for one in snapshot.stages:
            if one.status is Status.PENDING:
                continue
            stage = self._stage(one.path)
            _add_all(stage.items, records_of(one))
            stage.alone = stage.alone or _fails_alone(one)
            _add_all(stage.usage, one.usage)
            if one.progress.completed is not None:
                _count(stage.units, one.progress.unit, one.progress.completed)
            _add_all(stage.units, one.counters)
            _add_resources(stage, one)
            if was_done_before(one) or (one.path in repeated and one.status.final):
                continue
            _count(stage.runs, one.status.value, 1)
            if one.status.final and one.is_timed:
                stage.times.add(one.elapsed)

    def _stage(self, path: str) -> _Stage:
        found = self.stages.get(path)
        if found is None:
            if len(self.stages) >= STAGES:
                path = semconv.OTHER_STAGE
            found = self.stages.setdefault(path, _Stage())
        return found

    def value(self) -> Statistics:
        """Return what was gathered."""
        seconds = self.times.total
        tokens, cost = _spent(self.usage)
        fresh = {unit: n - self.restored.get(unit, 0) for unit, n in self.units.items() if n}
        units = {unit: n for unit, n in fresh.items() if n > 0}
        only = next(iter(units.values())) if len(units) == 1 else 0
        return Statistics(
            runs=tally(self.runs),
            durations=self.times.value(),
            items=tally(self.items, alone=self.alone),
            children=tally(self.children),
            stages=tuple(stage.value(path) for path, stage in self.stages.items()),
            components=tuple(
                (name, tally(counts, alone=self.alone and not counts.get("ok")))
                for name, counts in self.components.items()
            ),
            units=Attributes(self.units),
            rate=_divided(units, seconds),
            tokens=tokens,
            cost=cost,
            cost_per_unit=_divided(cost, only),
            failures=self.failures.top(FAILURES)[:FAILURES],
            curve=self.curve if self.number == 1 else (),
        )


def tally(counts: Mapping[str, object], *, alone: bool = False) -> Tally:
    """Return counts by outcome, or by status, as a tally; see `Tally.alone`."""
    known = {"ok": 0, "failed": 0, "skipped": 0, "retried": 0}
    others: dict[str, int] = {}
    for outcome, count in counts.items():
        into, word = (known, _WORDS[outcome]) if outcome in _WORDS else (others, outcome)
        into[word] = into.get(word, 0) + _whole(count)
    return Tally(**known, others=Attributes(others), alone=alone and known["failed"] > 0)


def _failures(snapshot: SnapshotFields) -> Iterable[tuple[str, int]]:
    """Messages of failed items, of failed stages, and of the run, unless a stage inside it failed with the same."""
    yield from snapshot.failures
    failed = [stage for stage in snapshot.stages if stage.status is Status.FAILED and stage.reason]
    for stage in failed:
        inside = f"{stage.path}/"
        if not any(other.path.startswith(inside) and other.reason == stage.reason for other in failed):
            yield stage.reason or "", 1
    own = snapshot.reason if snapshot.status is Status.FAILED else None
    if own and not any(stage.reason == own for stage in failed):
        yield own, 1


def _divided(amounts: Mapping[str, Any], by: Number) -> Attributes:
    """Each amount divided; without those that are too large for a number, and nothing if it is by none."""
    out = {key: float(f"{n / by:.12g}") for key, n in amounts.items()} if by > 0 else {}
    return Attributes({key: n for key, n in out.items() if finite(n)})


def _spent(usage: Mapping[str, Number]) -> tuple[Attributes, Attributes]:
    """Tokens by direction, and cost by currency."""
    tokens = {key.removesuffix("_tokens"): n for key, n in usage.items() if key.endswith("_tokens")}
    cost = {key.removeprefix("cost."): n for key, n in usage.items() if key.startswith("cost.")}
    return Attributes(tokens), Attributes({currency: without_noise(n) for currency, n in cost.items()})


def records_of(about: SnapshotFields | StageSnapshot) -> Attributes:
    """The outcomes of records. An operation without any shows how many children failed: that is not one of them."""
    failed = about.child_outcomes.get("failed")
    shown = bool(failed) and dict(about.outcomes) == {"failed": failed}
    told = isinstance(about, SnapshotFields) and (about.components or about.failures)
    return no_attributes() if shown and not told else about.outcomes


def _fails_alone(about: SnapshotFields | StageSnapshot) -> bool:
    """Whether it recorded failures and no success, and counted units that are no records: some of these went well."""
    records = records_of(about)
    if not records.get("failed") or records.get("ok"):
        return False
    if _has_uncounted(about, sum(map(_whole, records.values()))):
        return True
    stages = about.stages if isinstance(about, SnapshotFields) else ()
    return any(_has_uncounted(stage, sum(map(_whole, records_of(stage).values()))) for stage in stages)


def _has_uncounted(about: SnapshotFields | StageSnapshot, records: int) -> bool:
    """Whether it counted units itself that are no records."""
    progress = about.progress
    fresh = (progress.completed or 0) - (progress.restored or 0)
    return (fresh > 0 and fresh != records) or any(_whole(n) > 0 for n in about.counters.values())


def _add_resources(into: _Stage, stage: StageSnapshot) -> None:
    if stage.cpu_seconds is not None:
        into.cpu = (into.cpu or 0.0) + stage.cpu_seconds
    if stage.peak_memory is not None:
        into.peak = max(into.peak or 0, stage.peak_memory)


def _add_all(into: dict[str, Any], more: Mapping[str, object]) -> None:
    for key, number in more.items():
        _count(into, key, number)


def _count(into: dict[str, Any], key: str, number: object) -> None:
    if finite(number) and (key in into or len(into) < STAGES):
        total = into.get(key, 0) + number
        into[key] = total if finite(total) else into.get(key, 0)


def _whole(number: object) -> int:
    return int(number) if finite(number) else 0  # type: ignore[call-overload]


def _digits(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else float(f"{number:.4g}")
