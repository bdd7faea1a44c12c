"""The runs of one stage, taken together: how many, how they ended, and how long they took."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from otel_progress import semconv
from otel_progress.model.history import Durations
from otel_progress.model.values import Attributes, finite

PATHS: Final = 32
"""Stage paths of an operation whose runs are taken together one path at a time; the rest share `_other`."""
_SCALE: Final = 64.0
"""`Durations` begins at 0.03 s; a stage may take less."""


@dataclass(frozen=True)
class StageRuns:
    """All ended runs of one stage path, taken together; durations are in seconds.

    Attributes:
        path: the path of the stage, or `_other` for those that are too many to be named.
        counts: how many ended, by status.
        seconds: how long they took in all.
        median: the duration that half of the runs don't exceed. Quantiles are right to within a tenth; of more than
            5,000 runs, later ones weigh more.
        p90: the duration that 90% of the runs don't exceed.
        p95: the duration that 95% of the runs don't exceed.
        longest: the longest run.
        folded: how many of the runs the snapshot does not tell one by one.
    """

    path: str
    counts: Attributes
    seconds: float
    median: float
    p90: float
    p95: float
    longest: float
    folded: int = 0

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def count(self) -> int:
        """How many runs ended."""
        return sum(count for count in self.counts.values() if isinstance(count, int))


class Runs:
    """Counts the runs of one path; its size does not grow with their number."""

    __slots__ = ("count", "counts", "longest", "seconds", "shortest", "sketch")

    def __init__(self) -> None:
        """None yet."""
        self.count = 0
        self.counts: dict[str, int] = {}
        self.seconds = self.longest = 0.0
        self.shortest = math.inf
        self.sketch = Durations()

    def add(self, status: str, seconds: float) -> None:
        """Count a run that ended so, after so many seconds."""
        self.count += 1
        self.counts[status] = self.counts.get(status, 0) + 1
        self.seconds += seconds
        self.longest = max(self.longest, seconds)
        self.shortest = min(self.shortest, seconds)
        self.sketch.add((seconds or 1e-9) * _SCALE)

    def merge(self, other: Runs) -> None:
        """Count the runs of another path, too."""
        self.count += other.count
        for status, count in other.counts.items():
            self.counts[status] = self.counts.get(status, 0) + count
        self.seconds += other.seconds
        self.longest = max(self.longest, other.longest)
        self.shortest = min(self.shortest, other.shortest)
        for bucket, number in other.sketch.counts.items():
            self.sketch.counts[bucket] = self.sketch.counts.get(bucket, 0.0) + number

    def quantile(self, part: float) -> float:
        """The duration in seconds that this part (0 to 1) of the runs don't exceed."""
        return min(max(self.sketch.quantile(part) / _SCALE, self.shortest), self.longest)

    def seen(self, path: str, folded: int) -> StageRuns:
        """As a value for a snapshot."""
        median, p90, p95 = (_digits(self.quantile(part)) for part in (0.5, 0.9, 0.95))
        counts = Attributes(sorted(self.counts.items()))
        return StageRuns(path, counts, round(self.seconds, 3), median, p90, p95, _digits(self.longest), folded)


def _digits(seconds: float) -> float:
    return float(f"{seconds:.4g}")


class FoldedRuns(dict[str, Runs]):
    """The runs by path that are not kept one by one, for at most `PATHS` paths and `_other`.

    Where there are more paths, the one with the fewest runs gives up its place, and its runs are counted as `_other`:
    a step that comes again and again keeps its place among thousands of names that come once.
    """

    __slots__ = ()

    def add(self, path: str, status: str, seconds: float) -> None:
        """Count a run of a path."""
        runs = self.get(path)
        if runs is None:
            if len(self) >= PATHS + (semconv.OTHER_STAGE in self):
                self._give_up()
            runs = self[path] = Runs()
        runs.add(status, seconds)

    def _give_up(self) -> None:
        fewest = min((path for path in self if path != semconv.OTHER_STAGE), key=lambda path: self[path].count)
        runs = self.pop(fewest)
        self.setdefault(semconv.OTHER_STAGE, Runs()).merge(runs)


def to_list(runs: StageRuns) -> list[Any]:
    """As the list that stands for it on the wire."""
    return [
        runs.path,
        dict(runs.counts),
        runs.seconds,
        runs.median,
        runs.p90,
        runs.p95,
        runs.longest,
        runs.folded,
    ]


def from_list(given: list[Any]) -> StageRuns:
    """The reverse of `to_list`; more elements, which a newer sender may add, are left out.

    Raises:
        ValueError, TypeError, AttributeError, OverflowError: where it is something else.
    """
    path, counts, seconds, median, p90, p95, longest, folded = given[:8]
    numbers = (seconds, median, p90, p95, longest, folded, *counts.values())
    if not isinstance(path, str) or not all(map(finite, numbers)):
        raise ValueError("the runs of a stage must be a path, counts and durations")
    known = Attributes({str(status): int(count) for status, count in counts.items()})
    return StageRuns(path, known, float(seconds), float(median), float(p90), float(p95), float(longest), int(folded))
