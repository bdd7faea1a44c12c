"""What earlier runs teach: how long a kind of work goes without progress, and how long it takes in all.

Durations stand in a histogram with logarithmic buckets, four for each doubling, which forgets: when it is full, all
counts are halved. Limits follow from the median and a high quantile of it, as for a log-normal distribution (which
times of tasks follow closely: long tails, never below zero), mixed with a prior until enough was seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

FULL: Final = 5_000.0
"""Counts that a histogram holds before it forgets half."""
PRIOR: Final = 1_800.0
"""The idle time that is allowed where nothing is known, in seconds."""
PRIOR_WEIGHT: Final = 50.0
"""So many gaps outweigh the prior."""
FLOOR: Final = 60.0
"""No learned limit is shorter, in seconds; who wants a shorter one names it."""
BEYOND: Final = 1.5
"""A learned limit is at least so many times the longest that ended well."""
FACTOR: Final = 3.0
_DEVIATIONS: Final = 4.0
_LEAST_SPREAD: Final = 0.25
_QUANTILE: Final = 0.95
_NORMAL_AT_QUANTILE: Final = 1.645
RUNS: Final = 5
"""Runs that must have completed before the time of a whole run is limited."""
_FIRST, _LAST = -20, 100


@dataclass
class Durations:
    """A histogram of durations in seconds, from 0.03 s to a year, to within a tenth."""

    counts: dict[int, float] = field(default_factory=dict)

    def add(self, seconds: float, times: float = 1.0) -> None:
        """So many more durations of this length."""
        if not seconds > 0 or times <= 0:
            return
        bucket = min(max(round(4 * math.log2(seconds)), _FIRST), _LAST)
        self.counts[bucket] = self.counts.get(bucket, 0.0) + times
        if self.total > FULL:
            self.counts = {key: count / 2 for key, count in self.counts.items() if count >= 1}

    @property
    def total(self) -> float:
        """How many there are."""
        return sum(self.counts.values())

    def quantile(self, part: float) -> float:
        """The duration that so many of all don't exceed, in seconds."""
        left = part * self.total
        for bucket in sorted(self.counts):
            left -= self.counts[bucket]
            if left <= 0:
                return float(2.0 ** (bucket / 4))
        return self.longest

    @property
    def longest(self) -> float:
        """The longest of all, in seconds."""
        return float(2.0 ** (max(self.counts) / 4)) if self.counts else 0.0

    def bound(self, factor: float) -> float:
        """What a healthy duration all but never exceeds, in seconds."""
        median = math.log(self.quantile(0.5))
        spread = max(_LEAST_SPREAD, (math.log(self.quantile(_QUANTILE)) - median) / _NORMAL_AT_QUANTILE)
        return max(factor * math.exp(median + _DEVIATIONS * spread), BEYOND * self.longest)


@dataclass
class Learned:
    """What the runs of one operation or stage name taught.

    Attributes:
        runs: how many completed.
        gaps: times without progress that ended with progress, in seconds.
        durations: how long the runs took, in seconds.
    """

    runs: int = 0
    gaps: Durations = field(default_factory=Durations)
    durations: Durations = field(default_factory=Durations)

    def stall_after(self, steady: float = 0.0, every: float = 1.0) -> float | None:
        """The idle time that is allowed, in seconds; None before any progress was seen.

        Args:
            steady: how many more gaps the run of now had, each no longer than `every`.
            every: in seconds.
        """
        gaps = self.gaps
        if steady >= 1:
            gaps = Durations(dict(gaps.counts))
            gaps.add(every, steady)
        total = gaps.total
        if total < 1:
            return None
        learned = max(FLOOR, gaps.bound(FACTOR))
        weight = total / (total + PRIOR_WEIGHT)
        return max(learned, math.exp((1 - weight) * math.log(PRIOR) + weight * math.log(learned)))

    def slow_after(self) -> float | None:
        """The run time that is allowed, in seconds; None before enough runs completed."""
        return max(FLOOR, self.durations.bound(FACTOR)) if self.runs >= RUNS and self.durations.counts else None

    def source(self, stage: str = "") -> str:
        """Where the limits come from, in words; of a stage or, without one, of an operation."""
        what = f"run{'s' if self.runs > 1 else ''}" + (f" of {stage}" if stage else "")
        return f"learned from {self.runs} {what}" if self.runs else "learned from this run"

    def merge(self, other: Learned) -> None:
        """Take in what was learned elsewhere."""
        self.runs += other.runs
        for mine, theirs in ((self.gaps, other.gaps), (self.durations, other.durations)):
            for bucket, count in theirs.counts.items():
                mine.add(2.0 ** (bucket / 4), count)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "runs": self.runs,
            "gaps": {str(bucket): round(count, 2) for bucket, count in sorted(self.gaps.counts.items())},
            "durations": {str(bucket): round(count, 2) for bucket, count in sorted(self.durations.counts.items())},
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Learned:
        """The reverse of `to_dict`.

        Raises:
            TypeError, ValueError, KeyError, AttributeError: where it is something else.
        """
        runs = int(given["runs"])
        if runs < 0:
            raise ValueError("a number of runs is below 0")
        return cls(runs, _read(given["gaps"]), _read(given["durations"]))


def _read(given: Mapping[str, Any]) -> Durations:
    counts = {min(max(int(bucket), _FIRST), _LAST): float(count) for bucket, count in given.items()}
    if not all(0 <= count <= FULL for count in counts.values()):
        raise ValueError("a count is out of its range")
    return Durations(counts)
