"""Limits from what was seen: how long a kind of work goes without progress, and how long it takes in all.

Durations stand in a histogram with logarithmic buckets, four for each doubling, which forgets: when it is full, all
counts are halved. A limit has three parts.

*What is typical.* The median and a high quantile of all gaps give a log-normal distribution, and so a bound for gaps
of the same kind (times of tasks follow it closely: long tails, never below zero). On top of it there is room for what
gaps of the same kind don't show: a pause of another kind, such as an upload at the end, and a change of pace.

*What whole runs showed.* Runs of one name are exchangeable, so the chance that the next one has a longer gap than all
`k` before is 1/(k + 1), whatever the distribution is (the rank argument of conformal prediction: Vovk, Gammerman and
Shafer, "Algorithmic Learning in a Random World", 2005, ch. 2). The limit is some times the second longest, so that one
incident moves it little.

*How much was seen.* Until enough was seen, the limit is mixed with a prior of half an hour.

`benchmarks/limits.py` measures the false alarms and the delays of these rules; the numbers below were chosen by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from otel_progress.model.units import duration

FULL: Final = 5_000.0
"""Counts that a histogram holds before it forgets half."""
PRIOR: Final = 1_800.0
"""The idle time that is allowed where nothing is known, in seconds."""
EVERY: Final = 1.0
"""A gap that is too short to be seen one by one counts as this long, in seconds."""
SHORT: Final = 2.0
"""Gaps below this, in seconds, are not seen one by one: counts are read about once a second."""
FLOOR: Final = 15.0
"""No learned limit is shorter, in seconds; who wants a shorter one names it."""
SLACK: Final = 40.0
"""Room for a pause of a kind that was not seen yet, in seconds."""
PACE: Final = 12.0
"""So many times slower than what is typical may a run become that is the first of its name."""
PACE_KNOWN: Final = 5.0
"""The same where `KNOWN` runs completed, and for the longest gap but one."""
BEYOND: Final = 2.5
"""A learned limit is at least so many times the longest gap that ended well."""
KNOWN: Final = 20.0
"""So many completed runs outweigh the prior."""
UNCOUNTED: Final = 10.0
"""Runs that must have completed before a limit is given to what never counted a unit."""
MANY: Final = 200.0
"""So many units without a gap, in at least `STEADY` seconds, outweigh the prior."""
STEADY: Final = 10.0
GAPS: Final = 50.0
"""So many gaps of the run of now weigh as much as the prior."""
EMPTY: Final = 1.0
"""A shorter run (in seconds) that counted nothing may have had nothing to do: it weighs less."""
FACTOR: Final = 3.0
_DEVIATIONS: Final = 4.0
_WIDE: Final = 2.0
"""So many deviations more for each unit of spread above 1: a wide spread is known less well."""
_FEW: Final = 1.0
"""A spread that few durations show may be too small: so much more of it, divided by the root of their number."""
_LEAST_SPREAD: Final = 0.25
_QUANTILE: Final = 0.95
_NORMAL_AT_QUANTILE: Final = 1.645
RUNS: Final = 5
"""Runs that must have completed before the time of a whole run is limited."""
SLOW_FLOOR: Final = 60.0
SLOW_WEIGHT: Final = 14.0
"""So many runs weigh as much as the prior in the limit of a whole run."""
_FIRST, _LAST = -20, 100


@dataclass
class Durations:
    """A histogram of durations in seconds, from 0.03 s to a year, to within a tenth."""

    counts: dict[int, float] = field(default_factory=dict)

    def add(self, seconds: float, times: float = 1.0) -> None:
        """Add `times` durations of this length."""
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
        counts = self.counts  # another thread may put another one in its place
        left = part * sum(counts.values())
        for bucket in sorted(counts):
            left -= counts[bucket]
            if left <= 0:
                return float(2.0 ** (bucket / 4))
        return self.longest

    @property
    def longest(self) -> float:
        """The longest of all, in seconds."""
        return float(2.0 ** (max(self.counts) / 4)) if self.counts else 0.0

    @property
    def second(self) -> float:
        """The longest but one, in seconds; 0 where there is one at most."""
        counts, above = self.counts, 0.0
        for bucket in sorted(counts, reverse=True):
            above += counts[bucket]
            if above > 1:
                return float(2.0 ** ((bucket + 0.5) / 4))
        return 0.0

    def bound(self, factor: float) -> float:
        """What a healthy duration all but never exceeds, in seconds."""
        median = math.log(self.quantile(0.5))
        spread = max(_LEAST_SPREAD, (math.log(self.quantile(_QUANTILE)) - median) / _NORMAL_AT_QUANTILE)
        deviations = (_DEVIATIONS + _WIDE * max(0.0, spread - 1)) * (1 + _FEW / math.sqrt(max(1.0, self.total)))
        return max(factor * math.exp(median + deviations * spread), BEYOND * self.longest)


@dataclass(frozen=True)
class Seen:
    """What the run of now showed so far.

    Attributes:
        units: completed.
        steady: how long it moved without a gap that can be seen, in seconds.
        gaps: how many gaps were seen one by one.
        longest: the longest of them, in seconds.
    """

    units: float = 0.0
    steady: float = 0.0
    gaps: int = 0
    longest: float = 0.0

    @property
    def evidence(self) -> float:
        """From 0 to 1: how well the run of now is known."""
        moves = self.steady / EVERY + self.gaps
        return max(moves / (moves + GAPS), min(1.0, self.units / MANY, self.steady / STEADY))


NOTHING: Final = Seen()


@dataclass
class Learned:
    """What the runs of one operation or stage name taught.

    Attributes:
        runs: how many completed.
        gaps: times without progress that ended with progress, in seconds.
        durations: how long the runs took, in seconds.
        longest: the longest time without progress of each run that completed, in seconds; of a run that counted
            nothing, the whole of it.
    """

    runs: int = 0
    gaps: Durations = field(default_factory=Durations)
    durations: Durations = field(default_factory=Durations)
    longest: Durations = field(default_factory=Durations)

    def ended(self, seconds: float, longest: float, *, counted: bool) -> None:
        """Take in a run that completed.

        Args:
            seconds: how long it took.
            longest: its longest time without progress, in seconds.
            counted: whether it completed any unit.
        """
        self.runs += 1
        self.durations.add(seconds)
        self.longest.add(max(longest, EVERY), 1.0 if counted else min(1.0, seconds / EMPTY))

    @property
    def evidence(self) -> float:
        """From 0 to 1: how well runs of this name are known."""
        return min(1.0, self.longest.total / KNOWN)

    def stall_after(self, seen: Seen = NOTHING) -> float | None:
        """The idle time that is allowed, in seconds; None before any progress, or enough whole runs, were seen."""
        limit = self.bound(seen.steady)
        return None if limit is None else self.mixed(limit, seen)

    def bound(self, steady: float = 0.0) -> float | None:
        """What a healthy gap all but never exceeds, in seconds, after so many steady seconds of the run of now."""
        gaps, known = self.gaps, self.evidence
        if steady >= EVERY:
            gaps = Durations(dict(gaps.counts))
            gaps.add(EVERY, steady / EVERY)
        second = max(self.longest.second, gaps.second)
        limits = [FLOOR, SLACK + PACE_KNOWN * second, BEYOND * self.longest.longest]
        if gaps.total >= 1:
            pace = PACE + (PACE_KNOWN - PACE) * known
            limits += [SLACK + pace * gaps.quantile(_QUANTILE), gaps.bound(FACTOR)]
        elif self.longest.total < UNCOUNTED:
            return None
        else:
            limits.append(self.longest.bound(FACTOR))
        return max(limits)

    def mixed(self, limit: float, seen: Seen) -> float:
        """A bound, mixed with the prior as long as little was seen; in seconds."""
        return _mixed(limit, max(self.evidence, seen.evidence))

    def slow_after(self) -> float | None:
        """The run time that is allowed, in seconds; None before enough runs completed."""
        if self.runs < RUNS or not self.durations.counts:
            return None
        return _mixed(max(SLOW_FLOOR, self.durations.bound(FACTOR)), self.runs / (self.runs + SLOW_WEIGHT))

    def source(self, stage: str = "", seen: Seen = NOTHING) -> str:
        """The evidence for `stall_after`, in words; of a stage or, without one, of an operation."""
        if seen.evidence >= self.evidence:
            if seen.units < 1:
                return "learned from this run"
            return f"{_count(seen.units, 'unit')} so far, longest gap {_seconds(seen.longest)}"
        said = self.runs_source(stage)
        if self.gaps.total < 1:
            return f"{said}, none longer than {duration(self.durations.longest)}"
        return f"{said}, longest gap {_seconds(self.longest.longest)}"

    def runs_source(self, stage: str = "") -> str:
        """The evidence for `slow_after`, in words."""
        return f"learned from {_count(self.runs, 'run')}" + (f" of {stage}" if stage else "")

    def merge(self, other: Learned) -> None:
        """Take in what was learned elsewhere."""
        self.runs += other.runs
        for mine, theirs in (
            (self.gaps, other.gaps),
            (self.durations, other.durations),
            (self.longest, other.longest),
        ):
            for bucket, count in theirs.counts.items():
                mine.add(2.0 ** (bucket / 4), count)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"runs": self.runs, **{name: _plain(getattr(self, name)) for name in ("gaps", "durations", "longest")}}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Learned:
        """The reverse of `to_dict`.

        Raises:
            TypeError, ValueError, KeyError, AttributeError: where it is something else.
        """
        runs = int(given["runs"])
        if runs < 0:
            raise ValueError("a number of runs is below 0")
        gaps, durations = _read(given["gaps"]), _read(given["durations"])
        if "longest" in given:
            return cls(runs, gaps, durations, _read(given["longest"]))
        longest = Durations(dict(durations.counts))  # of a file that an earlier version wrote
        if gaps.counts:
            longest = Durations({max(gaps.counts): min(float(runs), FULL)})
        return cls(runs, gaps, durations, longest)


def _mixed(limit: float, evidence: float) -> float:
    """Between the prior and what was learned, by how much was seen; never below what was learned."""
    return max(limit, float(PRIOR * (limit / PRIOR) ** evidence))


def _count(number: float, what: str) -> str:
    return f"{number:,.0f} {what}{'' if number == 1 else 's'}"


def _seconds(longest: float) -> str:
    return f"under {duration(SHORT)}" if longest < SHORT else duration(longest)


def _plain(durations: Durations) -> dict[str, float]:
    return {str(bucket): round(count, 2) for bucket, count in sorted(durations.counts.items())}


def _read(given: Mapping[str, Any]) -> Durations:
    counts = {min(max(int(bucket), _FIRST), _LAST): float(count) for bucket, count in given.items()}
    if not all(0 <= count <= FULL for count in counts.values()):
        raise ValueError("a count is out of its range")
    return Durations(counts)
