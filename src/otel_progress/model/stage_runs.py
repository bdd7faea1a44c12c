"""Stages that ran more than once: counts, outcomes and durations of all runs of a stage path."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from otel_progress import semconv
from otel_progress.model.sketch import BUCKETS, FARTHEST, Sketch
from otel_progress.model.status import Status
from otel_progress.model.values import Attributes, finite

PATHS: Final = 32
"""Stage paths of an operation that are counted by path; the others share `_other`."""

DONE_BEFORE: Final = "done before"
"""The message of a stage that a resumed operation leaves out, as an earlier attempt completed it."""


class Ended(Protocol):
    """What is asked of a stage that ended."""

    @property
    def message(self) -> str | None:
        """What it said last."""

    @property
    def status(self) -> Status:
        """How it ended."""


def was_done_before(stage: Ended) -> bool:
    """Whether a stage was left out: it did not run, so its time is none of a run."""
    return stage.message == DONE_BEFORE and stage.status is Status.COMPLETED


@dataclass(frozen=True)
class StageRuns:
    """Statistics of all ended runs of one stage path; durations are in seconds.

    Attributes:
        path: the path of the stage, or `_other` for the paths beyond the limit.
        counts: number of ended runs by status.
        seconds: total duration.
        median: the duration that half of the runs do not exceed. Quantiles are accurate to within 2%.
        p90: the duration that 90% of the runs do not exceed.
        p95: the duration that 95% of the runs do not exceed.
        longest: the longest run.
        folded: number of runs that the snapshot does not list.
        p99: the duration that 99% of the runs do not exceed; None if its sender did not say.
        buckets: the runs by bucket of a `Sketch`, from which statistics of many operations follow; events carry
            them at the end of the operation only.
    """

    path: str
    counts: Attributes
    seconds: float
    median: float
    p90: float
    p95: float
    longest: float
    folded: int = 0
    p99: float | None = None
    buckets: tuple[tuple[int, int], ...] = ()

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def count(self) -> int:
        """Number of ended runs."""
        return sum(count for count in self.counts.values() if isinstance(count, int))


class Runs:
    """Collects the runs of one path in constant memory."""

    __slots__ = ("count", "counts", "longest", "seconds", "shortest", "sketch")

    def __init__(self) -> None:
        """Start without runs."""
        self.count = 0
        self.counts: dict[str, int] = {}
        self.seconds = self.longest = 0.0
        self.shortest = math.inf
        self.sketch = Sketch()

    def add(self, status: str, seconds: float) -> None:
        """Add a run that ended with this status after `seconds`."""
        self.count += 1
        self.counts[status] = self.counts.get(status, 0) + 1
        self.seconds += seconds
        self.longest = max(self.longest, seconds)
        self.shortest = min(self.shortest, seconds)
        self.sketch.add(seconds)

    def merge(self, other: Runs) -> None:
        """Add the runs of another path."""
        self.count += other.count
        for status, count in other.counts.items():
            self.counts[status] = self.counts.get(status, 0) + count
        self.seconds += other.seconds
        self.longest = max(self.longest, other.longest)
        self.shortest = min(self.shortest, other.shortest)
        self.sketch.merge(other.sketch)

    def quantile(self, part: float) -> float:
        """The duration in seconds that this part (0 to 1) of the runs don't exceed."""
        return min(max(self.sketch.quantile(part), self.shortest), self.longest)

    def seen(self, path: str, folded: int) -> StageRuns:
        """Return the statistics as a value for a snapshot."""
        median, p90, p95, p99 = (_digits(self.quantile(part)) for part in (0.5, 0.9, 0.95, 0.99))
        counts = Attributes(sorted(self.counts.items()))
        buckets = tuple(sorted(self.sketch.buckets.items()))
        seconds, longest = round(self.seconds, 3), _digits(self.longest)
        return StageRuns(path, counts, seconds, median, p90, p95, longest, folded, p99, buckets)


def _digits(seconds: float) -> float:
    return float(f"{seconds:.4g}")


class Run(Ended, Protocol):
    """What is asked of a run of a stage."""

    @property
    def path(self) -> str:
        """The path of the stage."""

    @property
    def elapsed(self) -> float:
        """How long it took, in seconds."""


def with_ends(repeated: tuple[StageRuns, ...], listed: Sequence[Run], ended: Sequence[Run]) -> tuple[StageRuns, ...]:
    """The runs of each path that has more than one, once the open ones have ended, too.

    Args:
        repeated: the runs before.
        listed: all runs that the snapshot lists, as they ended.
        ended: those of them that were open; of a path with runs that are not listed, the quantiles leave them out.
    """
    known = {runs.path: runs for runs in repeated}
    for path in dict.fromkeys(one.path for one in ended):
        before = known.get(path)
        if before is not None and before.folded:
            found = Runs()
            for one in ended:
                if one.path == path:
                    found.add(one.status.value, one.elapsed)
            counts = {status: count for status, count in before.counts.items() if isinstance(count, int)}
            for status, count in found.counts.items():
                counts[status] = counts.get(status, 0) + count
            known[path] = replace(
                before,
                counts=Attributes(sorted(counts.items())),
                seconds=round(before.seconds + found.seconds, 3),
                longest=max(before.longest, _digits(found.longest)),
            )
            continue
        found = Runs()
        for one in listed:
            if one.path == path and one.status.final and not was_done_before(one):
                found.add(one.status.value, one.elapsed)
        if found.count > 1:
            known[path] = found.seen(path, 0)
    return tuple(known.values())


class FoldedRuns(dict[str, Runs]):
    """Runs that a snapshot no longer lists, by path, for at most `PATHS` paths and `_other`.

    If there are more paths, the one with the fewest runs is merged into `_other`, so that a frequent step is kept among
    thousands of names that occur once.
    """

    __slots__ = ()

    def add(self, path: str, status: str, seconds: float) -> None:
        """Add a run of a path."""
        runs = self.get(path)
        if runs is None:
            if len(self) >= PATHS + (semconv.OTHER_STAGE in self):
                self._merge_rarest()
            runs = self[path] = Runs()
        runs.add(status, seconds)

    def _merge_rarest(self) -> None:
        rarest = min((path for path in self if path != semconv.OTHER_STAGE), key=lambda path: self[path].count)
        runs = self.pop(rarest)
        self.setdefault(semconv.OTHER_STAGE, Runs()).merge(runs)


def to_list(runs: StageRuns, *, buckets: bool = False) -> list[Any]:
    """Return the list that represents it in the wire format, with `buckets` if they are wanted."""
    out = [
        runs.path,
        dict(runs.counts),
        runs.seconds,
        runs.median,
        runs.p90,
        runs.p95,
        runs.longest,
        runs.folded,
        runs.p99,
    ]
    return [*out, runs.buckets] if buckets else out


def from_list(given: list[Any]) -> StageRuns:
    """Read what `to_list` returned; further elements, which a newer sender may add, are ignored.

    Raises:
        ValueError, TypeError, AttributeError, OverflowError: if it is anything else.
    """
    path, counts, seconds, median, p90, p95, longest, folded = given[:8]
    numbers = (seconds, median, p90, p95, longest, folded, *counts.values())
    if not isinstance(path, str) or not all(map(finite, numbers)):
        raise ValueError("the runs of a stage must be a path, counts and durations")
    known = Attributes({str(status): int(count) for status, count in counts.items()})
    durations = (float(seconds), float(median), float(p90), float(p95), float(longest))
    p99 = float(given[8]) if len(given) > 8 and finite(given[8]) else None
    buckets = read_buckets(given[9], sum(known.values())) if len(given) > 9 else ()  # type: ignore[arg-type]
    return StageRuns(path, known, *durations, int(folded), p99, buckets)


def read_buckets(given: Any, count: int) -> tuple[tuple[int, int], ...]:
    """Read the buckets of a sketch; nothing if they are not those of `count` runs, as senders are untrusted."""
    if not isinstance(given, list) or len(given) > BUCKETS:
        return ()
    pairs = [(pair[0], pair[1]) for pair in given if isinstance(pair, list) and len(pair) == 2]
    valid = all(type(key) is int and type(n) is int and abs(key) < FARTHEST and n > 0 for key, n in pairs)
    return tuple(pairs) if valid and sum(n for _, n in pairs) == count and len(dict(pairs)) == len(given) else ()
