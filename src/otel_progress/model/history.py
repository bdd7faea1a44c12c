"""Learned limits: how long a kind of work goes without progress, and how long it takes, from earlier runs.

Durations are kept in a histogram with logarithmic buckets, four per doubling. It forgets: when it is full, all
counts are halved. A limit has three parts.

*Typical gaps.* The median and a high quantile of all gaps give a log-normal distribution, and so a bound for gaps of
the same kind (task durations follow it closely: long tails, never below zero). Slack is added for what those gaps do
not show: a pause of another kind, such as an upload at the end, and a change of pace.

*Longest gaps of whole runs.* Runs of one name are exchangeable, so the probability that the next one has a longer gap
than all `k` before is 1/(k + 1), whatever the distribution (the rank argument of conformal prediction: Vovk, Gammerman
and Shafer, "Algorithmic Learning in a Random World", 2005, ch. 2). The limit is a multiple of the second longest, so
that one incident moves it little.

*Amount of evidence.* While there is little evidence, the limit is mixed with a prior of half an hour.

`benchmarks/limits.py` measures the false alarms and the delays of these rules; the constants below were chosen by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from otel_progress.model.closing import Closing
from otel_progress.model.outline import Outline
from otel_progress.model.past import Record
from otel_progress.model.units import duration
from otel_progress.model.usual_waits import UsualWaits
from otel_progress.model.values import NAME_LENGTH

FULL: Final = 5_000.0
"""Total count at which a histogram halves all its counts."""
PRIOR: Final = 1_800.0
"""Idle time that is allowed without any evidence, in seconds."""
EVERY: Final = 1.0
"""Length that is assumed for gaps too short to be seen one by one, in seconds."""
SHORT: Final = 2.0
"""Shortest gap that is seen by itself, in seconds: counts are read about once a second."""
FLOOR: Final = 15.0
"""Shortest learned limit, in seconds; a shorter limit must be set explicitly."""
SLACK: Final = 40.0
"""Slack for a pause of a kind that was not seen yet, in seconds."""
PACE: Final = 12.0
"""Multiple of the typical gap that is allowed in the first run of a name."""
PACE_KNOWN: Final = 5.0
"""The same after `KNOWN` completed runs; also applied to the second longest gap."""
BEYOND: Final = 2.5
"""A learned limit is at least this multiple of the longest gap that ended with progress."""
UNLIKE: Final = 30.0
"""Multiple of the longest gap beyond which a log-normal bound says nothing, if that is more than the prior."""
KNOWN: Final = 20.0
"""Completed runs after which the prior has no weight."""
UNCOUNTED: Final = 10.0
"""Completed runs that are needed before work that counts no units gets a limit."""
MANY: Final = 200.0
"""Units completed without a gap, in at least `STEADY` seconds, after which the prior has no weight."""
STEADY: Final = 10.0
"""Seconds without a gap that `MANY` units must span."""
GAPS: Final = 50.0
"""Gaps of the current run that weigh as much as the prior."""
EMPTY: Final = 1.0
"""A run without units that is shorter than this, in seconds, may have had nothing to do and weighs less."""
FACTOR: Final = 3.0
"""Safety factor on a log-normal bound."""
_DEVIATIONS: Final = 4.0
"""Standard deviations above the median (of the logarithms) that a bound allows."""
_WIDE: Final = 2.0
"""Additional deviations for each unit of spread above 1: a wide spread is less certain."""
_FEW: Final = 1.0
"""Widening of the spread for few durations, divided by the square root of their number."""
_LEAST_SPREAD: Final = 0.25
_QUANTILE: Final = 0.95
_NORMAL_AT_QUANTILE: Final = 1.645
RUNS: Final = 5
"""Completed runs that are needed for a limit on the duration of a whole run."""
SLOW_FLOOR: Final = 60.0
"""Shortest learned limit on the duration of a whole run, in seconds."""
SLOW_WEIGHT: Final = 14.0
"""Runs that weigh as much as the prior in the limit on a whole run."""
RATIO: Final = "ratio"
"""The unit of runs that named no count, only how much of them was done."""
_FIRST, _LAST = -20, 100
"""Lowest and highest bucket of a histogram."""


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
        """Number of durations."""
        return sum(self.counts.values())

    def quantile(self, part: float) -> float:
        """Return the duration that `part` of all durations do not exceed, in seconds."""
        counts = self.counts  # another thread may replace the dict
        left = part * sum(counts.values())
        for bucket in sorted(counts):
            left -= counts[bucket]
            if left <= 0:
                return float(2.0 ** (bucket / 4))
        return self.longest

    @property
    def longest(self) -> float:
        """The longest duration, in seconds."""
        return float(2.0 ** (max(self.counts) / 4)) if self.counts else 0.0

    @property
    def second(self) -> float:
        """The second longest duration, in seconds; 0 if there is at most one."""
        counts, above = self.counts, 0.0
        for bucket in sorted(counts, reverse=True):
            above += counts[bucket]
            if above > 1:
                return float(2.0 ** ((bucket + 0.5) / 4))
        return 0.0

    def bound(self, factor: float) -> float:
        """Return the duration that healthy work almost never exceeds, in seconds."""
        median = math.log(self.quantile(0.5))
        spread = max(_LEAST_SPREAD, (math.log(self.quantile(_QUANTILE)) - median) / _NORMAL_AT_QUANTILE)
        deviations = (_DEVIATIONS + _WIDE * max(0.0, spread - 1)) * (1 + _FEW / math.sqrt(max(1.0, self.total)))
        return max(factor * math.exp(median + deviations * spread), BEYOND * self.longest)


@dataclass(frozen=True)
class Seen:
    """Evidence from the current run.

    Attributes:
        units: completed units.
        steady: seconds of progress without a visible gap.
        gaps: number of visible gaps.
        longest: the longest visible gap, in seconds.
    """

    units: float = 0.0
    steady: float = 0.0
    gaps: int = 0
    longest: float = 0.0

    @property
    def evidence(self) -> float:
        """Weight of the evidence from the current run, from 0 to 1."""
        moves = self.steady / EVERY + self.gaps
        return max(moves / (moves + GAPS), min(1.0, self.units / MANY, self.steady / STEADY))


NOTHING: Final = Seen()


@dataclass
class Learned:
    """Evidence from all runs of one operation or stage name.

    Attributes:
        runs: number of completed runs.
        gaps: gaps that ended with progress, in seconds.
        durations: durations of the runs, in seconds.
        longest: the longest gap of each completed run, in seconds; for a run without units, its whole duration.
        course: how the completed runs went that counted units; use `course_in`.
        unit: what they counted, or `RATIO`; empty if nobody knows.
        outline: how long the completed runs took, and the stages that they had.
        waits: how long they waited.
        closing: how long they went on after their last unit.
    """

    runs: int = 0
    gaps: Durations = field(default_factory=Durations)
    durations: Durations = field(default_factory=Durations)
    longest: Durations = field(default_factory=Durations)
    course: Record = field(default_factory=Record)
    unit: str = ""
    outline: Outline = field(default_factory=Outline)
    waits: UsualWaits = field(default_factory=UsualWaits)
    closing: Closing = field(default_factory=Closing)

    def course_in(self, unit: str) -> Record | None:
        """Return how runs went that counted in this unit; None if none did."""
        return self.course if self.course.runs and self.unit in (unit, "") else None

    def new_course(self, unit: str) -> Record:
        """Return what the next run is added to; runs that counted in another unit are forgotten."""
        if self.course_in(unit) is None:
            self.course = Record()
        self.unit = unit[:NAME_LENGTH]
        return self.course

    def ended(self, seconds: float, longest: float, *, counted: bool) -> None:
        """Add a completed run.

        Args:
            seconds: its duration.
            longest: its longest gap, in seconds.
            counted: whether it completed any unit.
        """
        self.runs += 1
        self.durations.add(seconds)
        self.longest.add(max(longest, EVERY), 1.0 if counted else min(1.0, seconds / EMPTY))

    @property
    def evidence(self) -> float:
        """Weight of the evidence from completed runs, from 0 to 1."""
        return min(1.0, self.longest.total / KNOWN)

    def stall_after(self, seen: Seen = NOTHING) -> float | None:
        """Return the allowed idle time, in seconds; None before any progress or enough completed runs."""
        limit = self.bound(seen.steady)
        return None if limit is None else self.mixed(limit, seen)

    def bound(self, steady: float = 0.0) -> float | None:
        """Return the gap that healthy work almost never exceeds, in seconds.

        `steady` adds the seconds of the current run without a visible gap to the evidence.
        """
        gaps, known = self.gaps, self.evidence
        if steady >= EVERY:
            gaps = Durations(dict(gaps.counts))
            gaps.add(EVERY, steady / EVERY)
        second = max(self.longest.second, gaps.second)
        limits = [FLOOR, SLACK + PACE_KNOWN * second, BEYOND * self.longest.longest]
        if gaps.total >= 1:
            pace = PACE + (PACE_KNOWN - PACE) * known
            most = max(PRIOR, UNLIKE * max(gaps.longest, self.longest.longest))
            limits += [SLACK + pace * gaps.quantile(_QUANTILE), min(gaps.bound(FACTOR), most)]
        elif self.longest.total < UNCOUNTED:
            return None
        else:
            limits.append(self.longest.bound(FACTOR))
        return max(limits)

    def mixed(self, limit: float, seen: Seen) -> float:
        """Mix a bound with the prior, by the amount of evidence; in seconds."""
        return _mixed(limit, max(self.evidence, seen.evidence))

    def slow_after(self) -> float | None:
        """Return the allowed duration of a run, in seconds; None before enough runs completed."""
        if self.runs < RUNS or not self.durations.counts:
            return None
        return _mixed(max(SLOW_FLOOR, self.durations.bound(FACTOR)), self.runs / (self.runs + SLOW_WEIGHT))

    def source(self, stage: str = "", seen: Seen = NOTHING) -> str:
        """Return the evidence for `stall_after` in words; `stage` names the stage, if it is not the operation."""
        if seen.evidence >= self.evidence:
            if seen.units < 1:
                return "learned from this run"
            return f"{_count(seen.units, 'unit')} so far, longest gap {_seconds(seen.longest)}"
        said = self.runs_source(stage)
        if self.gaps.total < 1:
            return f"{said}, none longer than {duration(self.durations.longest)}"
        return f"{said}, longest gap {_seconds(self.longest.longest)}"

    def runs_source(self, stage: str = "") -> str:
        """Return the evidence for `slow_after` in words."""
        return f"learned from {_count(self.runs, 'run')}" + (f" of {stage}" if stage else "")

    def merge(self, other: Learned) -> None:
        """Add the evidence that another process learned."""
        self.runs += other.runs
        if other.course.runs:
            self.new_course(other.unit).merge(other.course)
        self.outline.merge(other.outline)
        self.waits.merge(other.waits)
        self.closing.merge(other.closing)
        for mine, theirs in (
            (self.gaps, other.gaps),
            (self.durations, other.durations),
            (self.longest, other.longest),
        ):
            for bucket, count in theirs.counts.items():
                mine.add(2.0 ** (bucket / 4), count)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        found = {"runs": self.runs, **{name: _plain(getattr(self, name)) for name in ("gaps", "durations", "longest")}}
        found |= {"course": self.course.to_list(), "unit": self.unit} if self.course.runs else {}
        found |= {"outline": self.outline.to_list()} if self.outline.runs else {}
        found |= {"waits": self.waits.to_list()} if self.waits.seconds else {}
        return found | ({"closing": self.closing.to_list()} if self.closing.seconds else {})

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Learned:
        """Read what `to_dict` returned.

        Raises:
            TypeError, ValueError, KeyError, AttributeError: if it is anything else.
        """
        runs = int(given["runs"])
        if runs < 0:
            raise ValueError("the number of runs is negative")
        gaps, durations = _read(given["gaps"]), _read(given["durations"])
        course = Record.from_list(given["course"]) if "course" in given else Record()
        unit = str(given.get("unit", ""))[:NAME_LENGTH]
        outline = Outline.from_list(given["outline"]) if "outline" in given else Outline()
        waits = UsualWaits.from_list(given["waits"]) if "waits" in given else UsualWaits(runs=outline.runs)
        closing = Closing.from_list(given["closing"]) if "closing" in given else Closing(runs=course.runs)
        if "longest" in given:
            return cls(runs, gaps, durations, _read(given["longest"]), course, unit, outline, waits, closing)
        longest = Durations(dict(durations.counts))  # the file is from an earlier version
        if gaps.counts:
            longest = Durations({max(gaps.counts): min(float(runs), FULL)})
        return cls(runs, gaps, durations, longest)


def _mixed(limit: float, evidence: float) -> float:
    """Interpolate between the prior and the learned limit by the evidence; never below the learned limit."""
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
        raise ValueError("a count is out of range")
    return Durations(counts)
