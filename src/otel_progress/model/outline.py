"""What the stages of earlier runs say about the rest of a run: which are to come, how long they take, what they need.

No plan names these stages. A stage is expected to begin when those that ended before it in all earlier runs have
ended, so what is left is the longest path through them (critical path method; Kelley and Walker 1959).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from otel_progress.model import outlasting
from otel_progress.model.estimate import Estimate
from otel_progress.model.past import UNLIKE, changed
from otel_progress.model.values import NAME_LENGTH

STAGES: Final = 32
"""The most stages of one name that are remembered."""
NEWEST: Final = 0.3
"""The least weight of the newest run."""
EXPECTED: Final = 0.5
"""Stages in at least this share of the runs are expected."""
LATE: Final = 5.0
"""Seconds by which a stage may begin later than before, at least."""
_VARIES: Final = 0.04
"""Mean square by which the logarithm of a duration varies before that is known."""
_FAR: Final = 3.0
"""The farthest that a duration may be from earlier ones (log)."""
_WIDE: Final = (0.1, 1.2)
"""Least and largest half width of an interval (log)."""
_AGAIN: Final = 0.5
"""The part of the time it ran that an overdue stage may take longer: if that delays the whole, nobody knows its end."""
_REST: Final = 0.05
"""The least part of its usual duration that is left of a running stage."""
NONE: Final[Mapping[str, Estimate]] = {}
"""No stage has an estimate of its own; never modified."""
_CHANGED: Final = 0.6
"""The weight of the newest run if it shows that runs changed for good."""
_PROOF: Final = 2
"""Ended stages that must agree before a run counts as slower or faster than earlier ones."""
_ONE_VARIES: Final = 0.7
"""By how much the duration of one run of a stage that repeats varies (log); that of many is known better."""
_REPEATS: Final = 1.5
"""Runs of a stage, on average, from which on it repeats."""
_TURNS: Final = 1.3
"""Repeating stages take turns if their spans add up to more than this multiple of the whole run."""
_MOST: Final = 1e10
"""The longest duration that is remembered, in seconds."""


@dataclass(slots=True)
class StageSoFar:
    """The runs of one stage, or child operation, within the run of the handle around it. Times are in seconds of it.

    Attributes:
        started: how often it started.
        running: how many of these run now.
        first: when the first one started.
        until: when the last one ended.
        before: the names of the others that had ended when it started first.
    """

    started: int = 0
    running: int = 0
    first: float = 0.0
    until: float = 0.0
    before: frozenset[str] = frozenset()


@dataclass(slots=True)
class UsualStage:
    """How a stage went in earlier runs.

    Attributes:
        share: the share of the runs that had it.
        times: how often it ran in one of them.
        span: seconds from its first start to its last end.
        gap: seconds from the last end of what it needs, else from the start of the whole, to its own start.
        before: the names of the stages that had ended before it in each run.
    """

    share: float
    times: float
    span: float
    gap: float
    before: frozenset[str] = frozenset()

    def mix(self, newer: UsualStage, part: float) -> None:
        """Move towards newer runs by this part."""
        for name in ("times", "span", "gap"):
            setattr(self, name, getattr(self, name) + part * (getattr(newer, name) - getattr(self, name)))
        self.before &= newer.before


class _Path(NamedTuple):
    """When something ends: expected, earliest and latest, in seconds of the run."""

    eta: float
    low: float
    high: float


@dataclass
class Outline:
    """The stages of the completed runs of a name.

    Attributes:
        runs: the number of completed runs.
        took: their mean duration without waits, in seconds.
        varies: the mean square of how far the logarithm of the next duration was from that.
        last: seconds from the end of the last stage to the end of the whole.
        stages: the stages by name, in the order in which they came.
        missed: how far (log) the newest run is from `took` if it was unlike those before, else 0.
    """

    runs: int = 0
    took: float = 0.0
    varies: float = _VARIES
    last: float = 0.0
    stages: dict[str, UsualStage] = field(default_factory=dict)
    missed: float = 0.0

    def add(self, took: float, stages: Mapping[str, StageSoFar]) -> None:
        """Add a completed run of `took` seconds."""
        if 0 < took < _MOST:
            until = max((stage.until for stage in stages.values()), default=0.0)
            self._take(took, max(0.0, took - until), {name: _usual(stage, stages) for name, stage in stages.items()})

    def _take(self, took: float, last: float, stages: Mapping[str, UsualStage]) -> None:
        """Add a completed run whose last stage ended `last` seconds before it."""
        newest = max(NEWEST, 1.0 / (self.runs + 1))
        if self.runs and self.took > 0:
            off = min(_FAR, max(-_FAR, math.log(took) - math.log(self.took)))
            if changed(self.missed, off):
                newest = _CHANGED  # runs before the last two say nothing any more
                self.took *= math.exp(self.missed)
                self.varies, self.missed = max(_VARIES, (off - self.missed) ** 2), 0.0
            else:
                unlike = abs(off) > UNLIKE * math.sqrt(self.varies)
                self.varies += max(NEWEST, 1.0 / (self.runs + 2)) * (off * off - self.varies)
                moved = math.log(self.took + newest * (took - self.took)) - math.log(self.took)
                self.missed = off - moved if unlike else 0.0
        self.took += newest * (took - self.took)
        self.last += newest * (last - self.last)
        for usual in self.stages.values():
            usual.share -= newest * usual.share
        for name, stage in stages.items():
            self._add(name, stage, newest)
        self.runs += 1

    def _add(self, name: str, newer: UsualStage, newest: float) -> None:
        usual = self.stages.get(name)
        if usual is not None:
            usual.share += newest
            usual.mix(newer, newest)
            return
        if len(self.stages) >= STAGES:
            least = min(self.stages, key=lambda each: self.stages[each].share)
            if self.stages[least].share >= newest:
                return
            del self.stages[least]
        newer.share = newest
        self.stages[name] = newer

    # -- the rest of a run

    def left(self, seen: Mapping[str, StageSoFar], now: float, own: Mapping[str, Estimate] = NONE) -> Estimate | None:
        """The time left of a run; None if it goes another way than earlier runs, or its usual time is over.

        Args:
            seen: the stages that have started.
            now: seconds since the start, without waits.
            own: the estimates of stages that run, by name, as far as they have one.
        """
        if not self.runs:
            return None
        known = sum(name in self.stages for name in seen)
        if not self.stages or 2 * known < len(seen):
            return self.by_duration(now)
        if self._takes_turns():
            return self.by_duration(now)
        forecast = _Forecast(self, seen, now, own)
        found = forecast.finish()
        if found is not None and forecast.overdue:
            longer = _Forecast(self, seen, now, own, _AGAIN).finish()
            found = found if longer is not None and longer.eta <= found.eta + LATE else None
        return None if found is None else self._estimate(*(one - now for one in found))

    def _takes_turns(self) -> bool:
        """Whether stages run again and again in turns, as in the loop of an agent: how often varies from run to run.

        Then the duration of the whole is known better than the number of further runs of each.
        """
        return sum(usual.span for usual in self.stages.values() if usual.times >= _REPEATS) > _TURNS * self.took

    @property
    def width(self) -> float:
        """Half the width of the interval (log)."""
        width = 1.2816 * math.sqrt(self.varies) * (1 + 1.0 / max(1, self.runs))
        return min(_WIDE[1], max(_WIDE[0], width))

    def by_duration(self, now: float, tempo: float = 1.0) -> Estimate | None:
        """The time left of a run by the duration of earlier ones, times `tempo`; None beyond their upper bound."""
        took = self.took * tempo
        if not took > 0 or now >= took * math.exp(self.width):
            return None
        return self._estimate(*outlasting.left(took, self.width, now))

    def tempo(self, seen: Mapping[str, StageSoFar]) -> float:
        """How long the stages of a run take, as a multiple of earlier runs: what all ended ones agree on, at least.

        It is 1 as long as fewer than two stages have ended, and if some were slower and some faster than before.
        """
        ratios = []
        for name, stage in seen.items():
            known = self.stages.get(name)
            if known is not None and stage.started and not stage.running and stage.started >= known.times - EXPECTED:
                ratios.append((stage.until - stage.first + 1.0) / (known.span + 1.0))
        if len(ratios) < _PROOF or min(ratios) <= 1.0 <= max(ratios):
            return 1.0
        return min(ratios) if min(ratios) > 1.0 else max(ratios)

    def _estimate(self, left: float, low: float, high: float) -> Estimate | None:
        if not 0 < left < _MOST:
            return None
        return Estimate(left, min(left, max(0.0, low)), max(left, high), "history", self.runs)

    # -- kept in a file

    def to_list(self) -> list[Any]:
        """Return plain JSON types."""
        stages = [
            [name, *(round(one, 6) for one in (usual.share, usual.times, usual.span, usual.gap)), sorted(usual.before)]
            for name, usual in self.stages.items()
        ]
        kept = (self.took, self.varies, self.last)
        return [self.runs, *(round(one, 6) for one in kept), stages, round(self.missed, 6)]

    @classmethod
    def from_list(cls, given: Any) -> Outline:
        """Read what `to_list` returned.

        Raises:
            TypeError, ValueError: if it is anything else.
        """
        runs, took, varies, last, stages, *more = given
        found = cls(int(_sound(runs)), _sound(took), _sound(varies), _sound(last))
        if more:  # earlier versions had none
            found.missed = math.copysign(_sound(abs(more[0])), more[0])
        for name, share, times, span, gap, before in stages[:STAGES]:
            if not isinstance(name, str) or not all(isinstance(one, str) for one in before):
                raise TypeError("the name of a stage is not a text")
            usual = UsualStage(_sound(share), _sound(times), _sound(span), _sound(gap), frozenset(before[:STAGES]))
            found.stages[name[:NAME_LENGTH]] = usual
        return found

    def merge(self, other: Outline) -> None:
        """Add what another process learned."""
        if not other.runs:
            return
        if other.runs == 1 and self.runs:  # as most processes have it, so that runs are compared with each other
            self._take(other.took, other.last, {name: replace(usual) for name, usual in other.stages.items()})
            return
        whole = self.runs + other.runs
        part = max(other.runs / whole, min(1.0, NEWEST * other.runs)) if self.runs else 1.0
        for name in ("took", "varies", "last"):
            setattr(self, name, getattr(self, name) + part * (getattr(other, name) - getattr(self, name)))
        for usual in self.stages.values():
            usual.share -= part * usual.share
        for name, newer in other.stages.items():
            known = self.stages.get(name)
            if known is not None:
                known.share += part * newer.share
                known.mix(newer, part)
            elif len(self.stages) < STAGES:
                self.stages[name] = UsualStage(part * newer.share, newer.times, newer.span, newer.gap, newer.before)
        self.runs, self.missed = whole, other.missed


def _sound(value: Any) -> float:
    number = float(value)
    if not 0 <= number < _MOST:
        raise ValueError("a number of earlier runs is invalid")
    return number


def _usual(stage: StageSoFar, stages: Mapping[str, StageSoFar]) -> UsualStage:
    """Keep how a stage went; one that ran again later, as in turns, is nothing that this stage waited for."""
    before = frozenset(name for name in stage.before if name in stages and stages[name].until <= stage.first)
    gap = max(0.0, stage.first - max((stages[name].until for name in before), default=0.0))
    return UsualStage(0.0, float(stage.started), max(0.0, stage.until - stage.first), gap, before)


class _Forecast:
    """When each stage of a run ends, and with the last one the whole."""

    def __init__(
        self,
        outline: Outline,
        seen: Mapping[str, StageSoFar],
        now: float,
        own: Mapping[str, Estimate],
        again: float = 0.0,
    ) -> None:
        """Stages that are overdue go on for as long as they ran, times `again`."""
        self._outline = outline
        self._seen = seen
        self._now = now
        self._own = own
        self._again = again
        factor = math.exp(outline.width)
        self._tempo = outline.tempo(seen)
        self._factors = (self._tempo, self._tempo / factor, self._tempo * factor)
        self._late: set[str] = set()
        self._ends: dict[str, _Path | None] = {}
        self._begun = {name for name, stage in seen.items() if stage.started}
        self._goes_on = [name for name, stage in seen.items() if stage.running and self._has_end(name)]
        self.overdue = False

    def _has_end(self, name: str) -> bool:
        """Whether it is known when a running stage ends."""
        return name in self._own or name in self._outline.stages

    def finish(self) -> _Path | None:
        """When the whole ends; None if its usual time is over."""
        for name in self._goes_on:  # these wait for nothing
            self._end(name)
        ends = [self._end(name) for name in dict.fromkeys((*self._seen, *self._outline.stages))]
        found = [end for end in ends if end is not None]
        if not found or max(found) in (self._ends[name] for name in self._late):
            return None
        last = self._outline.last
        return _Path(*(one + last * factor for one, factor in zip(_latest(found), self._factors)))

    def _end(self, name: str) -> _Path | None:
        """When a stage ends; None if it is not expected."""
        if name not in self._ends:
            self._ends[name] = None  # a circle ends here
            stage, usual = self._seen.get(name), self._outline.stages.get(name)
            if stage is not None and stage.started:
                self._ends[name] = self._going(name, stage, usual)
            elif usual is not None and self._is_expected(name, usual):
                self._ends[name] = self._to_come(usual)
        return self._ends[name]

    def _going(self, name: str, stage: StageSoFar, usual: UsualStage | None) -> _Path:
        """When a stage ends that has begun, all its further runs included."""
        ended = self._at(stage.until)
        more = 0.0 if usual is None else max(0.0, usual.times - stage.started)
        if usual is None or (not stage.running and (more < EXPECTED or self._is_passed(name))):
            return self._after(self._own[name]) if stage.running and name in self._own else ended
        done = stage.started - stage.running
        each = (self._now - stage.first) / done if done > 2 else usual.span / max(1.0, usual.times)
        rest = self._after(self._own[name]) if name in self._own else self._rest(name, stage, usual, each)
        few = math.exp(_ONE_VARIES / math.sqrt(max(1, done)))
        factors = (factor * by for factor, by in zip(self._factors, (1.0, 1 / few, few)))
        return _Path(*(one + more * each * factor for one, factor in zip(rest, factors)))

    def _rest(self, name: str, stage: StageSoFar, usual: UsualStage, each: float) -> _Path:
        """When the current run of a stage ends that has no estimate of its own."""
        if usual.times >= _REPEATS or not stage.running:
            return self._in(each if stage.running else 0.0)
        ran = self._now - stage.first
        if ran > self._tempo * max(usual.span, each) * math.exp(self._outline.width) + LATE:
            self.overdue = True  # later than ever before, so nobody knows how long it takes
            return self._at(self._now + ran * self._again)
        if ran < self._tempo * each or each <= 0:
            return _Path(*(self._now + max(each * factor - ran, each * _REST) for factor in self._factors))
        self._late.add(name)
        rest = outlasting.left(self._tempo * each, self._outline.width, ran)
        return _Path(*(self._now + max(left, each * _REST) for left in rest))

    def _to_come(self, usual: UsualStage) -> _Path:
        """When a stage ends that has not begun.

        If it is late, it begins after those that run, as far as their ends are known. Else it may have another name
        now, or not come: then its time passes although it has not begun.
        """
        ends = [end for name in usual.before if (end := self._end(name)) is not None]
        needed = _latest(ends) if ends else _Path(0.0, 0.0, 0.0)
        late = self._now - needed.eta - usual.gap
        running = [self._ends[name] for name in self._goes_on] if late > LATE else []
        if running:
            needed = _latest([end for end in (needed, *running) if end is not None])
        begins = [one + usual.gap * by for one, by in zip(needed, self._factors)]
        eta, low, high = (max(self._now, one) + usual.span * by for one, by in zip(begins, self._factors))
        if late <= LATE or running:
            return _Path(eta, low, high)
        passed = late - LATE
        return _Path(eta - passed, low - passed, high)

    def _is_expected(self, name: str, usual: UsualStage) -> bool:
        return usual.share >= EXPECTED and not self._is_passed(name)

    def _is_passed(self, name: str) -> bool:
        """Whether a stage has begun that always came after this one."""
        stages = self._outline.stages
        return any(name in stages[other].before for other in self._begun if other in stages)

    def _after(self, left: Estimate) -> _Path:
        return _Path(self._now + left.eta, self._now + left.low, self._now + left.high)

    def _at(self, moment: float) -> _Path:
        return _Path(moment, moment, moment)

    def _in(self, seconds: float) -> _Path:
        return _Path(*(self._now + seconds * factor for factor in self._factors))


def _latest(ends: list[_Path]) -> _Path:
    return _Path(*map(max, zip(*ends, strict=True)))


def names_ended(stages: Mapping[str, StageSoFar]) -> Collection[str]:
    """The names of stages that have ended and do not run."""
    return [name for name, stage in stages.items() if stage.started and not stage.running]
