"""Rate and ETA: how fast work goes, and when it will be done, as an interval.

The rate is that of the recent past: counts are weighted with a half-life that grows with the run (a third of its
length, at least 10 s), in the time up to the last unit. After a proven change of pace only what came since counts. The
ETA comes from several forecasters that are tested on the run so far, and from earlier runs (`model/forecast.py`,
`model/past.py`). The interval comes from their errors, and should contain the end in about 80% of all cases.

Between two units the estimate runs down by the one in hand. Once that takes longer than usual, the spread of the times
of others says how much of it is left (`model/tail.py`).

There is no estimate while the count stands still for longer than the pace so far explains: 3 times the longest pause
between two steps, twice the usual time of a step, what the spread of steps makes no surprise, or 1.5 times the pause
that earlier runs had there. An estimate also ends when its time is over and nothing explains that. It returns with the
next unit, never before; after a step that nothing explained with the one after, which tells a stall, which is left out
of the pace, from units that became slow.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from otel_progress.model import tail
from otel_progress.model.asymptote import approaches
from otel_progress.model.forecast import INSTANT, MANY, OWN, Course, Review, untested
from otel_progress.model.growth import Growth
from otel_progress.model.past import PARTS, Past, Record

_HALF_LIFE: Final = 10.0
_LOOK: Final = 0.75
"""Seconds between two looks at a count: a unit was completed within that time before it was noticed."""
_AGAIN: Final = 1.15
"""Growth of the count, or change of the horizon, after which the forecasters are tested again."""
_SAME: Final = 1.03
"""Growth of the count up to which the combination is used again."""
_NEXT: Final = 1.3
"""Growth of the count from one kept interval to the next."""
_FORETOLD: Final = 8
"""Intervals of a run that are kept to see how many held its end."""
_FIRST: Final = 5.0
"""The first seconds, which count in full for the rate: a unit that is counted at once takes no time."""
_PAUSES: Final = 3.0
"""A pause is explained up to this multiple of the longest pause so far."""
_STEPS: Final = 2.0
"""A pause is explained up to this multiple of the usual time of a step."""
_LEAST: Final = 3
"""Steps that must be seen before they explain a pause; until then, the time up to the last unit does."""
_EARLY: Final = 5.0
"""Seconds of a pause that are explained while fewer steps were seen."""
_ONCE: Final = 1.5
"""The same after a single step, as nobody knows whether it came at once."""
_FAR, _NEARBY = 0.76, 0.44
"""Quantiles of the normal distribution that the upper end has if the error is large, and what is added if small."""
_ROUNDING: Final = 1e-9
"""Relative difference of totals that is due to rounding."""
_UP, _DOWN = 0.62, 2.5
"""The farthest upper end (log), and how much farther the lower end is: large errors are mostly estimates too high."""
_MAINLY: Final = 0.5
"""Weight of earlier runs from which on an estimate is said to come from them."""
_HEARD: Final = 0.1
"""Weight of earlier runs from which on their pauses are expected again."""
_KNOWN: Final = 1.5
"""A pause that earlier runs had at the same unit is explained up to this multiple."""
_SET_UP_STEPS: Final = 6
"""Among the first steps, one that was set-up is sought."""
_STALL, _STALL_SEEN = 6.0, 8
"""A stall takes this many times the longest pause so far, at least, and comes after this many steps."""
_DOUBTED: Final = 1.5
"""After a quick batch, each unit may take this many times as long as the first ones that came later."""
_DOUBTFUL: Final = 8
"""Steps after which such a batch no longer widens the interval."""
_ONE: Final = 1.5
"""Units in a step up to which the times of steps are those of units."""
_NOTED: Final = 3 * _LOOK
"""The shortest step that can hold back an estimate."""
_AS_SLOW: Final = 2.0
"""A step is as slow as the one before if it takes at least this inverse part of its time."""
_OUTLASTS: Final = 0.5
"""The part of the time of a unit after which the times of others say how much is left of it."""
_IN_HAND: Final = 0.9
"""Largest part of the current step that counts as done, so that the ETA stays above 0 while work is left."""


@dataclass(frozen=True)
class Estimate:
    """Seconds until the end: the expected value, and an interval that contains the end in about 80% of all cases."""

    eta: float
    low: float
    high: float
    source: str
    """`rate` (from the pace so far), `plan` (from the expected durations), `history` (mainly from earlier runs), or
    `children` (by a monitor, from child operations in other processes)."""
    runs: int = 0
    """Number of earlier runs that it uses."""

    def after(self, seconds: float) -> Estimate | None:
        """The same estimate `seconds` later, if nothing was heard since; None if its time is over."""
        if seconds <= 0:
            return self
        if self.eta <= seconds:
            return None
        low, high = max(0.0, self.low - seconds), max(0.0, self.high - seconds)
        return Estimate(self.eta - seconds, low, high, self.source, self.runs)

    def at_least(self, part: Estimate) -> Estimate:
        """The estimate of a whole that does not end before this part of it."""
        if part.eta > self.eta:
            return Estimate(part.eta, max(self.low, part.low), max(self.high, part.high), part.source, part.runs)
        if part.low <= self.low and part.high <= self.high:
            return self
        return Estimate(self.eta, max(self.low, part.low), max(self.high, part.high), self.source, self.runs)


MayReview = Callable[[], bool]


def always() -> bool:
    """There is time for everything."""
    return True


class _Forecast(NamedTuple):
    """The combined forecast: its count and total, seconds a unit, its standard error (log), weight of earlier runs."""

    units: float
    total: float
    each: float
    error: float
    known: float


_FORECAST: Final = struct.Struct("3d2f")
_UNITS_TOTAL: Final = struct.Struct("2d")


class Pace:
    """The pace of one count, in constant memory."""

    __slots__ = (
        *("_course", "_foretold", "_record", "_reviewed", "_base", "_kept", "_past"),
        *("_counted", "_done", "_last", "_start", "_then", "_time"),
        *("_moved", "_moves", "_pause", "_seen", "_still", "_known_pause"),
        *("_ends", "_ends_of", "_looked", "_looked_at", "_near", "_unit_at", "_total", "_growth"),
        *("_doubt", "_holds", "_left_out", "_slow", "_stall", "_tail", "_undecided", "_fell"),
    )

    def __init__(self, now: float, done: float = 0.0, record: Record | None = None) -> None:
        """Start at `now` (seconds, monotonic) with `done` units completed before, and what earlier runs taught."""
        self._start = self._then = self._counted = self._moved = self._unit_at = self._looked_at = self._near = now
        self._last = self._base = self._looked = done
        self._record = record
        self._past: Past | None = None
        self._forget()

    def _forget(self) -> None:
        self._done = self._time = 0.0
        self._course = Course()
        self._reviewed: bytes | None = None
        self._kept: bytes | None = None
        self._foretold: array[float] | None = None
        self._moves = self._pause = 0.0
        self._known_pause = 0.0
        self._seen = 0
        self._still = False
        self._ends = math.inf
        self._ends_of = -1.0
        self._total = 0.0
        self._growth: Growth | None = None
        self._slow = self._doubt = 0.0
        self._tail: bytes | None = None
        self._stall: tuple[float, float] | None = None
        self._left_out: tuple[float, float] | None = None
        self._holds = self._undecided = False
        self._fell: tuple[float, float] | None = None

    def observe(self, now: float, done: float, moved: float | None = None) -> None:
        """Record the total count at `now`.

        A count that fell in part, as to a checkpoint, keeps the pace so far, and the time since the last observation
        is left out. One that fell to its start restarts the estimate. Only the next lower count shows that it fell: one
        that is back where it was had a single wrong value.

        Args:
            now: the monotonic time, in seconds.
            done: the total count.
            moved: when the last unit was completed, if that is known.
        """
        if done < self._last:
            if self._fell is None:
                self._fell = now, done
            if self._fell[1] == done:
                return
            self._observe(*self._fell, None)
        self._fell = None
        self._observe(now, done, moved)

    def _observe(self, now: float, done: float, moved: float | None) -> None:
        span = now - self._then
        if span <= 0:
            return
        step = done - self._last
        self._look(now, done, moved)
        self._then, self._last = now, done
        if step < 0 and done > max(0.0, self._base):
            self._start += span
            self._counted += span
            self._moved = self._unit_at = self._near = now
            self._base += step
            self._looked = done
            self._kept = self._reviewed = None
            return
        if step < 0:
            self._forget()
            self._moved = self._start = self._counted = self._unit_at = self._near = now
            self._base = self._looked = done
            return
        keep = 0.5 ** (span / max(_HALF_LIFE, (now - self._start) / 3))
        self._done = self._done * keep + step
        self._time *= keep
        self._moves *= keep
        if step:
            self._moves += 1
            self._seen += 1
            self._pause *= keep
            if self._still:
                self._pause = max(self._pause, now - self._moved)
            self._moved = now
            stalled = 0.0 if self._stall is None and self._left_out is None else self._leave_out_stall()
            reached = self._placed(done, moved)
            self._time += max(0.0, reached - self._counted - stalled)
            self._counted = reached
            self._reach(reached - self._start, done - self._base)
            self._undecided = self._holds
        self._still = not step

    def _leave_out_stall(self) -> float:
        """Leave the stall that ended with this step out of the pace; returns its seconds.

        The next step decides: if it is about as slow, there was no stall, but work became slow.
        """
        found, out = self._stall, self._left_out
        if out is not None and self._slow >= out[1] / _AS_SLOW:
            self._shift(out[0], -out[1])
            found = None
        self._left_out, self._stall = found, None
        if found is not None:
            self._shift(*found)
            return found[1]
        return 0.0 if out is None or self._slow < out[1] / _AS_SLOW else -out[1]

    def _shift(self, count: float, seconds: float) -> None:
        self._start += seconds
        self._course.leave_out(count, seconds)

    def _reach(self, time: float, units: float) -> None:
        """Note when a count was reached; after a proven change of pace, what was before no longer counts."""
        course = self._course
        kept = course.add(time, units)
        if self._seen == 2 and kept and (first := course.at_once(_LOOK)) is not None:
            since, base = first
            self._doubt = _DOUBTED * (time - since) / (units - base)
        elif (
            (1 < self._seen < _SET_UP_STEPS and course.leave_out_set_up())
            or (course.may_turn and course.turn())
            or (kept and course.renew())
        ):
            since, base = course.since
        else:
            return
        self._tail = None
        self._done, self._time = units - base, time - since
        self._moves = min(self._moves, self._done)
        self._reviewed = self._kept = None

    def pause(self, seconds: float) -> None:
        """Exclude a declared wait of this many seconds from the pace."""
        self._start += seconds
        self._then += seconds
        self._counted += seconds
        self._moved += seconds
        self._unit_at += seconds
        self._looked_at += seconds
        self._near += seconds
        self._ends += seconds

    def skip(self, since: float, now: float) -> None:
        """Exclude a declared wait that began at `since`, except for the part already observed."""
        self.pause(max(0.0, now - max(since, self._then)))

    @property
    def began(self) -> bool:
        """Whether it has seen any unit completed."""
        return self._seen > 0

    @property
    def is_unsettled(self) -> bool:
        """Whether the next steps decide what its pace is, so that each is to be observed."""
        return self._seen < _SET_UP_STEPS or self._slow > 0

    def restore(self, units: float) -> None:
        """Take more units as completed by an earlier run."""
        self._base += units
        self._last += units
        self._looked += units
        self._past = None

    @property
    def rate(self) -> float | None:
        """Units a second at the last observation; None before the first unit and during an unexplained pause."""
        return None if self._unexplained(self._then - self._unit_at) else self._rate

    def rate_at(self, now: float, done: float, moved: float | None = None) -> float | None:
        """Units a second; None before the first unit, during an unexplained pause, and after the estimate ended."""
        over = self._ends_of == done and now >= self._ends
        return None if over or self.idle(now, done, moved) or self._undecided else self._rate

    @property
    def _rate(self) -> float | None:
        """Recent units in the time up to the last one; of the unit in hand, only what exceeds the usual time counts."""
        time = self._time + max(0.0, self._then - self._counted - self._usual)
        since, base = self._course.since
        units = self._last - self._base - base
        if units > 0:  # both sums count what is old for less
            time = max(time, min(_FIRST, self._then - self._start - since) * min(1.0, self._done / units))
        rate = self._done / time if self._done > 0 and time > 0 else 0.0
        return rate if 0 < rate < math.inf else None

    def idle(self, now: float, done: float, moved: float | None = None) -> bool:
        """Whether the count has stood still for longer than the pace so far explains."""
        return self._unexplained(now - self._unit(now, done, moved))

    def _unit(self, now: float, done: float, moved: float | None) -> float:
        """When the last unit was completed, at the latest."""
        self._look(now, done, moved)
        return self._unit_at

    def _look(self, now: float, done: float, moved: float | None) -> None:
        """Note when a new count was reached: at the latest, and on average, in the middle between two looks."""
        if done > self._looked:
            unit_at = now if moved is None or moved <= self._looked_at else min(now, moved)
            pause = unit_at - self._unit_at
            if pause >= _NOTED or unit_at > self._ends or self._slow or self._holds:
                self._judge_step(unit_at, pause)
            if self._seen and not self._holds and (self._tail is not None or pause >= _NOTED):
                before = self._tail or tail.start(max(_LOOK, self._usual), self._seen - 1)
                self._tail = tail.add(before, max(_LOOK, pause))
            self._near = (max(self._looked_at, unit_at - _LOOK) + unit_at) / 2
            self._looked, self._unit_at = done, unit_at
        self._looked_at = now

    def _judge_step(self, now: float, pause: float) -> None:
        """Note what a step says that took longer than was expected.

        After a step that nothing explained nobody knows whether it was a stall or work became slow: the next one tells.
        """
        if self._seen < _LEAST:
            return
        late = self._ends_of >= 0 and now > self._ends
        alone = self._record is None or not self._record.runs
        self._holds = alone and pause >= _NOTED and self._unexplained(pause)
        self._undecided = self._undecided or self._holds
        repeats = self._slow > 0 and pause >= max(_NOTED, self._slow / _AS_SLOW)
        self._slow = pause if late or self._holds or repeats else 0.0
        usual = max(self._pause, self._usual)
        if self._holds and self._seen >= _STALL_SEEN and pause >= _STALL * usual and not repeats:
            self._stall = self._looked - self._base, pause - self._usual

    def late_in(self, now: float) -> float:
        """Seconds until the unit in hand takes longer than is usual: then the estimate may rise before it is done."""
        return math.inf if self._tail is None else max(0.0, self._unit_at + self._usual - now)

    def is_over(self, now: float) -> bool:
        """Whether rate and estimate ended, as no unit came for longer than the pace explains."""
        return self._seen > 0 and min(self._ends, self._unit_at + self._explained) <= now

    def ends_at(self, now: float) -> float:
        """When rate and estimate end unless a unit is completed before; infinity if none is to end."""
        if not self._seen:
            return math.inf
        ends = min(self._ends, self._unit_at + self._explained)
        return ends if ends > now else math.inf

    def _unexplained(self, pause: float) -> bool:
        return self._seen > 0 and pause > self._explained

    @property
    def _explained(self) -> float:
        """Seconds without a unit that the pace so far explains."""
        explained = max(_PAUSES * self._pause, _STEPS * self._usual, _KNOWN * self._known_pause)
        if self._tail is not None:
            explained = max(explained, tail.explained(self._tail))
        if self._seen < _LEAST:
            early = _EARLY if self._seen > 1 else _ONCE
            return max(early, explained, _PAUSES * (self._unit_at - self._start))
        return explained

    @property
    def _usual(self) -> float:
        """The usual time of a step."""
        return self._time / self._moves if self._moves > 0 else 0.0

    @property
    def _step(self) -> float:
        """Mean number of units between two samples that differ."""
        return self._done / self._moves if self._moves > 0 else 0.0

    def _is_over(self, remaining: float, now: float, done: float, each: float) -> bool:
        """Whether the estimate since the last unit has ended; it stays so until the next unit."""
        unit_at = self._unit_at
        if self._ends_of != done:
            self._ends_of = self._looked if self._looked == done else done  # of two equal numbers one is kept
            self._ends = unit_at + max(remaining * each, 0.0 if self._tail is None else self._explained)
        if self._unexplained(now - unit_at):
            self._ends = min(self._ends, now)
        return now >= self._ends

    def estimate(
        self,
        remaining: float,
        now: float,
        grain: float = 1.0,
        done: float | None = None,
        moved: float | None = None,
        may_review: MayReview = always,
        wider: float = 1.0,
    ) -> Estimate | None:
        """Estimate when the rest will be done; None if nothing is left or the pace supports no estimate.

        Args:
            remaining: units that are left.
            now: the monotonic time, in seconds.
            grain: the size of one unit, 0 for a ratio.
            done: how much is done now, if that may exceed the last observation.
            moved: when the last unit was completed, if that is known.
            may_review: whether there is time to test the forecasters, which takes about 0.1 ms. Without any test the
                estimate follows the rate.
            wider: by how much the error is larger than that of a count.
        """
        rate = self._rate
        if rate is None or not 0 < remaining < math.inf:
            return None
        total = remaining + (self._last if done is None else done)
        done = self._last if done is None else max(done, self._last)  # a fall, or a wrong value: the next count tells
        units, at = done - self._base, self._reached_at(now, done, moved)
        time = at - self._start
        if self._seen == 1:
            # it took no longer than until it was noticed, and the second one takes at least as long as it did so far
            time, self._kept = max(time, min(_FIRST, max(self._unit_at - self._start, now - at))), None
        if not (units > 0 and time > 0):
            return None
        self._follow(time, units, total)
        if self._undecided or (self._seen == 1 and self._came_at_once(units)):
            return None
        found = None if self.is_overtaken else self._forecast(time, units, remaining, grain, rate, may_review)
        if found is None:
            return None
        known = found.known
        if not grain and known <= _MAINLY and approaches(self._course, time, units, remaining):
            return None
        self._known_pause = self._pause_known(time, units, remaining, grain) if known > _HEARD else 0.0
        each = max(found.each, self._known_pause / remaining, self._slow / remaining)
        if self._is_over(remaining, now, done, each):
            return None
        unit = max(each * min(remaining, max(grain, self._step)), self._known_pause)
        rest, most = self._in_hand(unit, max(0.0, now - at))
        more = 0.0 if self._growth is None else self._growth.to_come(remaining)
        eta = each * (remaining + more) - unit + rest
        low, high = interval(eta, wider * found.error)
        low, high = self._widened(low, max(high, eta - rest + most), eta, units, remaining, grain)
        if self._growth is not None:
            low, high = self._growth.widened(low, high, remaining, each)
        if not 0 < eta <= high < math.inf:
            return None
        lost = 0.0 if self._course.lost is None else self._course.lost[1]
        self._foretell(time + lost + low, time + lost + high)
        runs = 0 if self._record is None or not known else self._record.runs
        return Estimate(eta, low, high, "history" if known > _MAINLY else "rate", runs)

    def _widened(
        self, low: float, high: float, eta: float, units: float, remaining: float, grain: float
    ) -> tuple[float, float]:
        """An interval that leaves room for what the errors of forecasts do not show."""
        past = self._prepared(remaining + units)
        if past is not None:
            unproven = past.unproven(units)
            if not unproven:
                return low, high
            earlier = unproven * past.usual(units, remaining) + (1 - unproven) * eta
            return min(low, earlier), max(high, earlier)
        steps = max(1.0, remaining / (max(grain, self._step) or remaining))
        if self._doubt and self._seen < _DOUBTFUL and not self._course.since[1]:
            high = max(high, self._doubt * remaining)
        if self._tail is not None and self._step < _ONE * grain:
            high = max(high, eta * math.exp(tail.may_take_longer(self._tail, steps)))
        return low, max(high, self._slow * steps)

    def _in_hand(self, unit: float, waited: float) -> tuple[float, float]:
        """The seconds left of the unit in hand, expected and at most; `unit` is what it takes, on average."""
        rest = max(unit - waited, (1 - _IN_HAND) * unit)
        if self._tail is None or waited <= unit * _OUTLASTS:
            return rest, rest
        known, most = tail.left(self._tail, unit, waited)
        return max(rest, known), max(rest, most)

    def _forecast(
        self, time: float, units: float, left: float, grain: float, rate: float, may_review: MayReview
    ) -> _Forecast | None:
        """Combine the forecasters; None if the result is not finite."""
        since, base = self._course.since
        if not units > base or not time > since:
            return None
        horizon, total = self._course.horizon(units, left), units + left
        if not (0 < horizon < math.inf and time > INSTANT and units < MANY and 0 < time / units < math.inf):
            return None
        if self._kept is not None:
            kept = _Forecast(*_FORECAST.unpack(self._kept))
            if kept.total == total and kept.units <= units < _SAME * kept.units:
                return kept
        past, steps = self._prepared(total), left / (grain or self._step or left)
        review = self._last_review()
        if review is None or review.total != total or not review.units <= units < _AGAIN * review.units:
            if may_review():
                review = self._course.review(time, units, left, past)
                self._reviewed = struct.pack(f"2d{1 + len(review.weights)}f", *review[:3], *review.weights)
            elif review is None:
                return _Forecast(units, total, 1.0 / rate, untested(horizon, steps), 0.0)
        said = self._course.forecasts(time, units, left, past)
        each = math.exp(sum(weight * one for weight, one in zip(review.weights, said)))
        if not 0 < each < math.inf:
            return None
        known = sum(review.weights[OWN:])
        error = review.error_at(horizon, steps, time / (time + each * left))
        found = _Forecast(units, total, each, error, known)
        self._kept = _FORECAST.pack(*found)
        return found

    def _came_at_once(self, units: float) -> bool:
        """Whether all so far is a batch that was there at the first look: it says nothing of the pace."""
        known = self._record is not None and self._record.runs
        return not known and units > 1 and self._unit_at - self._start <= _LOOK

    def _last_review(self) -> Review | None:
        """The last tests of the forecasters; kept as bytes, which take a quarter of the memory."""
        if self._reviewed is None:
            return None
        units, total = _UNITS_TOTAL.unpack_from(self._reviewed)
        error, *weights = memoryview(self._reviewed)[_UNITS_TOTAL.size :].cast("f")
        return Review(units, total, error, weights)

    def _pause_known(self, time: float, units: float, left: float, grain: float) -> float:
        """Seconds that the unit in hand may take by earlier runs; 0 if they had no pause there."""
        past = self._prepared(units + left)
        return 0.0 if past is None else past.pause(units, grain, self._course.spent(time, units, past))

    def _prepared(self, total: float) -> Past | None:
        """Earlier runs, prepared for a run of this total."""
        record = self._record
        if record is None or not record.runs or self._base < 0:
            return None
        total += self._base
        if self._past is None or self._past.total != total or self._past.runs != record.runs:
            self._past = Past(record, total, self._base)
        return self._past

    def _follow(self, time: float, units: float, total: float) -> None:
        """Note how the total changes."""
        known = self._total if self._growth is None else self._growth.total
        if known > 0 and abs(total - known) > _ROUNDING * total:
            self._ends_of = -1.0
            self._growth = self._growth or Growth(time, units, known)
        if self._growth is None:
            self._total = total
        else:
            self._growth.note(time, units, total)

    @property
    def is_overtaken(self) -> bool:
        """Whether the total grows as fast as the count, so that nobody knows the end."""
        return self._growth is not None and self._growth.is_endless()

    def _foretell(self, low: float, high: float) -> None:
        """Keep an interval for the end, to see later whether it held."""
        if self._record is None or self._reviewed is None:
            return
        (units, _), kept = _UNITS_TOTAL.unpack_from(self._reviewed), self._foretold
        if kept is None or units >= _NEXT * kept[-1]:
            newest = array("f", (low, high, units))
            self._foretold = newest if kept is None else kept[-3 * (_FORETOLD - 1) :] + newest

    def reached(self, done: float | None) -> float:
        """Return the final count: `done`, if that is what it observed."""
        return self._last if done is None or done < self._last else float(done)

    def teach(self, record: Record, now: float, done: float) -> None:
        """Add this run, which completed `done` units at `now`, to what runs of its name taught."""
        lost = 0.0 if self._course.lost is None else self._course.lost[1]
        units, work = done - self._base, now - self._start
        time = work + lost
        kept = self._foretold or ()
        held = [kept[i] <= time <= kept[i + 1] for i in range(0, len(kept), 3)]
        part = sum(held) / len(held) if len(held) > 2 else None
        if units > 0 and time > 0:
            record.add(None if self._base else self._course.shares(PARTS, work, units), time, units, part)

    def _reached_at(self, now: float, done: float, moved: float | None) -> float:
        """When the last unit was completed, as nearly as looks at the count can tell."""
        self._look(now, done, moved)
        return self._placed(done, moved)

    def _placed(self, done: float, moved: float | None) -> float:
        """The same, after the look at this moment."""
        unit_at = self._unit_at
        if moved is None or done <= self._base:
            return unit_at
        each = (unit_at - self._start) / (done - self._base)
        return max(self._near, unit_at - each / 2)  # of several units that a look found, the last one is newer


def interval(eta: float, error: float) -> tuple[float, float]:
    """Return the interval that contains the end in about 80% of all cases, if its logarithm varies by this error.

    The shortest such interval of a lognormal distribution has ends that are equally likely, so it lies the lower, the
    wider it is. Measured errors are skewed further: a start that is slower than the rest makes estimates many times too
    high, while none is as far too low.
    """
    up = error * (_FAR + _NEARBY / (1 + 5 * error))
    return eta * math.exp(-up - _DOWN * error * error), eta * math.exp(min(_UP, up))


def planned(
    remaining: Iterable[tuple[float, float]], actual: float, expected: float, measured: float | None = None
) -> Estimate | None:
    """Estimate the remaining time from the expected durations of a plan.

    None if nothing is left, if a running stage has exceeded the upper bound of what was planned for it, and if only
    stages are left that have exceeded the expected time.

    Args:
        remaining: for each unfinished stage, its expected duration and its running time so far, in seconds.
        actual: total duration of the finished stages, in seconds.
        expected: total duration that the plan expected for them, in seconds.
        measured: remaining seconds of running stages by their own pace; those are not in `remaining`.
    """
    pairs = list(remaining)
    if not pairs and measured is None:
        return None
    factor = (actual + 30) / (expected + 30) if expected else 1.0
    eta = (measured or 0.0) + sum(max(want * factor - ran, want * factor * 0.05) for want, ran in pairs)
    if not math.isfinite(eta * 2):
        return None
    left = sum(want for want, _ in pairs)
    known = expected / (expected + left) if expected else 0.0
    widest = 2.0 - 0.6 * known
    if any(ran > want * factor * widest for want, ran in pairs):
        return None
    if not measured and pairs and all(ran >= want * factor for want, ran in pairs):
        return None
    return Estimate(eta, eta * (0.5 + 0.3 * known), eta * widest, "plan")
