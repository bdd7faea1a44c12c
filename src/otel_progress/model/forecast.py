"""Forecasters of one count, side by side: how long will the units that are left take?

Each forecaster names a time per unit: the mean of the whole run, of its last half, quarter and tenth, a trend, the
median of its parts, and two from earlier runs (their time per unit, and their course at the pace of this run). They
are combined in proportion to exp(-loss) (Cesa-Bianchi and Lugosi, "Prediction, Learning, and Games", 2006, ch. 2).
The loss comes from tests on the run so far: each point of the run that is kept remembers what the forecasters said
there, and all later points tell how wrong they were; what was tested about as far ahead as now counts most.

If the pace changed far beyond its spread, the forecasters forget what was before (`Course.renew`).

The interval comes from the errors that the combination makes in the same tests, each divided by what such an error is
for its time ahead (conformal prediction with normalized errors: Lei et al., "Distribution-Free Predictive Inference
for Regression", 2018), and from an error that is assumed before any test. Across runs it follows how often the end
was inside (Gibbs and Candès, "Adaptive Conformal Inference Under Distribution Shift", 2021).
"""

from __future__ import annotations

import itertools
import math
from array import array
from bisect import bisect_left, bisect_right
from itertools import repeat
from operator import add, mul
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_progress.model.change import QUICKER, SLOWER, STEADY, change_of_pace, is_set_up, new_pace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_progress.model.past import Past

KNOTS: Final = 24
"""Points of a course that are kept; beyond, about every second one is dropped."""
_APART: Final = 1.5 / KNOTS
"""How far points are apart, as a part of what had passed when points were dropped last."""
SHARES: Final = (1.0, 0.5, 0.25, 0.1)
"""Memories of the forecasters: shares of the completed units, the newest first."""
BRIEF: Final = 3.0
"""Shortest memory, in seconds: counts are read about once a second, so shorter ones measure the looks."""
INSTANT: Final = 1e-9
"""Shortest time between two points, in seconds."""
MANY: Final = 1e100
FEW: Final = 1e-100
"""Counts outside of these bounds are not followed."""
ORIGINS: Final = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9)
"""Where in the units completed so far the forecasters are tested."""
_PRIOR: Final = (3.0, 1.0, 0.0, -0.5, -2.5, 0.5, 1.0)
"""Logarithms of the weights before any test: long memories first."""
HALF, TREND = 1, 4
OWN: Final = len(_PRIOR)
"""Number of forecasters that know this run alone; those of earlier runs follow."""
_SHARPNESS: Final = 12.0
"""How fast a forecaster loses weight with its errors."""
_EARLY: Final = 3.0
"""The tests count in full for earlier runs once this inverse share of the run is done: its first units say little."""
_MISTRUST: Final = 60.0
"""The most that tests count against earlier runs; so it takes a part of the run to prove them wrong."""
_EXACT: Final = 0.01
"""Error of a test that makes no difference."""
_NEAREST: Final = 1e-9
"""The shortest time ahead, for each second that tells the pace, for which forecasts are tested."""
_NEAR: Final = 0.5
"""How much less a test counts whose horizon differs from that of the forecast."""
_TREND: Final = 0.5
"""Part of a trend that is expected to go on."""
_WORST: Final = 1.5
"""Largest error of one test; a single stall must not decide."""
_LEAST: Final = 1e-3
"""Smallest time per unit, as a part of the mean of the run."""
_SPREAD: Final = 0.65
"""Standard error (log) of a forecast that is assumed before any test."""
_ASSUMED: Final = 4.5
"""Weight of that assumption, in tests."""
_UNEVEN: Final = 0.12
"""Error of the tests from which on the assumption holds in full; steady work makes it smaller."""
_DOUBT: Final = 0.75
"""Weight, in tests, of the doubt whether steady work stays so."""
_CALIBRATED: Final = 1.2
"""Factor from the errors of the tests to those of forecasts: they cover more of the run, and what changes in it."""
_STEADY: Final = 0.8
"""Part of the squared error that does not depend on how far ahead a forecast is."""
_AT_ONCE: Final = 3.0
"""A first batch that took this many times less, unit by unit, than the second came at once."""
_BRISK: Final = 1.4
"""Seconds between two of the newest points, at least."""
_NEWEST: Final = 4
"""Newest points that are kept, however long the run is."""
_WIDEST: Final = 1.2
"""Largest standard error (log)."""
_FLOOR: Final = 0.008
"""Smallest standard error (log), from the looks."""
_STEPS: Final = 0.4
"""Part of the squared error that a single step left has."""
_LATE: Final = 2.5
"""How much larger the relative error of a forecast by earlier runs is at the end than at the start."""


_SAID: Final = Struct(f"{OWN - 1}h")
"""What the forecasters said at a point: all but the mean of the run, which the point tells."""
_SCALE: Final = 4000.0
"""How finely that is kept: so many steps for each unit of a logarithm."""
_FARTHEST: Final = 8.0
"""The largest logarithm that is kept."""


class Test(NamedTuple):
    """What all forecasters said after `units` about the next `left`: their errors (log)."""

    units: float
    left: float
    weight: float
    errors: list[float]


class Review(NamedTuple):
    """What the tests at one moment of a run say.

    Attributes:
        units: completed units at that moment.
        total: units in all.
        error: the standard error (log) of a forecast that is far ahead.
        weights: the weight of each forecaster.
    """

    units: float
    total: float
    error: float
    weights: Sequence[float]

    def error_at(self, horizon: float, steps: float, late: float) -> float:
        """Return the standard error (log) for a horizon.

        Args:
            horizon: how far ahead the end is (`Course.horizon`).
            steps: the steps of the count that are left.
            late: the share of the time that has passed; at the end, earlier runs say little about what is left.
        """
        known = sum(self.weights[OWN:])
        return error_at(self.error * (1 + known * _LATE * late**4), horizon, steps)


class Course:
    """How a count went: times and counts, about evenly spaced in time, in constant memory."""

    __slots__ = ("_asked", "_latest", "_points", "_said", "_thinned", "lost", "may_turn", "since")

    def __init__(self) -> None:
        """Start at time 0 with no unit."""
        self.since = (0.0, 0.0)
        self._points = array("d", (0.0, 0.0))  # times and counts in turn
        self._latest = array("d", (0.0, 0.0, 0.0, 0.0))  # when the last count was reached, and it; the newest points
        self._said, self._asked = b"", 0
        self._thinned = 0  # the last point when points were dropped last
        self.may_turn = False
        self.lost: tuple[float, float] | None = None
        """The count and the seconds of a stall that was left out."""

    @property
    def times(self) -> array[float]:
        """When each kept count was reached, in seconds since the start; the first one is the start."""
        return self._points[::2]

    @property
    def counts(self) -> array[float]:
        """The kept counts."""
        return self._points[1::2]

    @property
    def step(self) -> float:
        """Seconds after which a point is kept."""
        return _APART * self._points[2 * self._thinned]

    def add(self, time: float, count: float) -> bool:
        """Add that the count was reached at this time, in seconds since the start, without waits.

        Returns whether it was kept as a point.
        """
        last, most = self._points[-2:]
        if not (time - last >= INSTANT and max(most, FEW) < count < MANY):
            return False
        latest, step = self._latest, self.step
        if count > latest[-1] and (time - latest[-2] >= _BRISK or len(latest) == 4):
            newest = latest[max(2, len(latest) - 2 * _NEWEST + 2) :]
            latest = self._latest = latest[:2] + newest + array("d", (time, count))
            self.may_turn = True
        at, of = latest[:2]
        latest[0], latest[1] = time, count
        if last + INSTANT <= at <= time - max(INSTANT, 2 * step) and max(most, FEW) < of < count:
            self._keep(at, of)  # a long pause began there
            last, most = self._points[-2:]
        if time - last < step and count - most < _APART * self._points[2 * self._thinned + 1]:
            return False
        self._keep(time, count)
        return True

    def _keep(self, time: float, count: float) -> None:
        # a sum, as an array that grows in place keeps room for more
        self._points = self._points + array("d", (time, count))
        if len(self._points) > 2 * KNOTS:
            self._thin()

    def _thin(self) -> None:
        """Drop every second point, except those beside a long pause, whose place matters to later runs."""
        times, counts = self.times, self.counts
        long, last = 2 * _APART * times[-1], len(times) - 1
        kept = [
            knot
            for knot in range(last + 1)
            if knot % 2 == 0
            or times[knot] - times[knot - 1] > long
            or (knot < last and times[knot + 1] - times[knot] > long)
        ]
        first = bisect_left(counts, self.since[1])
        said = [(place, self._packed(knot)) for place, knot in enumerate(kept) if knot > first]
        self._said, self._asked = b"".join(there for _, there in said), sum(1 << place for place, _ in said)
        self._points = array("d", itertools.chain.from_iterable((times[knot], counts[knot]) for knot in kept))
        self._thinned = len(kept) - 1

    def said_at(self, knot: int) -> list[float]:
        """What the forecasters said at a point; found when it is first asked, from the points up to there."""
        (time, count), (since, base) = self._points[2 * knot : 2 * knot + 2], self.since
        mean = _log((time - since) / (count - base))
        said = [each / _SCALE for each in _SAID.unpack(self._packed(knot))]
        return [mean, *(each if place == TREND else mean + each for place, each in enumerate(said, 1))]

    def _packed(self, knot: int) -> bytes:
        """The same as it is kept: the trend, and how far the others are from the mean of the run."""
        place = _SAID.size * (self._asked & (1 << knot) - 1).bit_count()
        if not self._asked >> knot & 1:
            mean, *others = self._say(*self._points[2 * knot : 2 * knot + 2])
            told = (each if place == TREND else each - mean for place, each in enumerate(others, 1))
            packed = _SAID.pack(*(round(_SCALE * max(-_FARTHEST, min(_FARTHEST, each))) for each in told))
            self._said = self._said[:place] + packed + self._said[place:]
            self._asked |= 1 << knot
        return self._said[place : place + _SAID.size]

    def renew(self) -> bool:
        """Forget the pace before a proven change of pace, but not the course; returns whether there was one."""
        first = bisect_left(self.counts, self.since[1])
        times, counts = self.times[first:], self.counts[first:]
        parts = [(t - at) / (n - of) for at, t, of, n in zip(times, times[1:], counts, counts[1:], strict=False)]
        if max(parts, default=0.0) < STEADY * min(parts, default=math.inf):
            return False
        found = change_of_pace(times, counts)
        if found is None:
            return False
        self._start_at(first + found)
        return True

    def turn(self) -> bool:
        """Forget the pace before its newest points if all of them show another one; returns whether they do."""
        newest = self._latest[2:]
        if len(newest) < 2 * (_NEWEST - 1):
            return False
        self.may_turn = False  # until there is another point
        at, of, time, count = newest[-4:]
        since, base = self.since
        part, before = (time - at) * (of - base), (at - since) * (count - of)
        if before < QUICKER * part and part < SLOWER * before:
            return False
        found = new_pace(newest, self.since, self.times, self.counts)
        if found is None:
            return False
        self._start_from(*found)
        return True

    def leave_out_set_up(self) -> bool:
        """Forget the first step if it took far longer than those after it, as work was prepared; returns whether."""
        if self.since[1] or not is_set_up(self.times, self.counts):
            return False
        self._start_at(1)
        return True

    def leave_out(self, count: float, seconds: float) -> None:
        """Leave out seconds that passed between a count and the next: later times are earlier by as much."""
        before = 0.0 if self.lost is None else self.lost[1]
        self.lost = (
            None if before + seconds <= INSTANT else (count if self.lost is None else self.lost[0], before + seconds)
        )
        self._points, self._latest = (_earlier(points, count, seconds) for points in (self._points, self._latest))

    def at_once(self, soon: float) -> tuple[float, float] | None:
        """The time and the count of a first batch that came within `soon` seconds, and far faster than the second.

        What is completed as a run starts took no time, or took it before the start. A single unit is left out of all
        forecasts; of many nobody knows whether others are as quick.
        """
        if len(self.times) != 3 or self.since[1]:
            return None
        (_, first, second), (_, some, more) = self.times, self.counts
        slower = (second - first) * some / (first * (more - some))
        if first > soon or slower < _AT_ONCE:
            return None
        if some <= 1:
            self._start_at(1)
        return first, some

    def _start_at(self, knot: int) -> None:
        """Let the pace begin at this point."""
        self._start_from(self.times[knot], self.counts[knot])

    def _start_from(self, time: float, count: float) -> None:
        """Let the pace begin at this moment."""
        self.since = time, count
        self._said, self._asked = b"", 0
        latest = self._latest
        newest = ((t, n) for t, n in zip(latest[2::2], latest[3::2]) if n > count)
        self._latest = latest[:2] + array("d", (time, count, *itertools.chain.from_iterable(newest)))

    def time_at(self, count: float, time: float, done: float) -> float:
        """Return when a count was reached, if `done` was reached at `time`."""
        times, counts = self.times, self.counts
        after = bisect_left(counts, count)
        if after == 0:
            return times[0]
        at, of = (times[after], counts[after]) if after < len(counts) and counts[after] < done else (time, done)
        before = counts[after - 1]
        if of <= before:
            return at
        return times[after - 1] + (at - times[after - 1]) * min(1.0, (count - before) / (of - before))

    def shares(self, parts: int, time: float, done: float) -> list[float]:
        """Divide the completed units into equal parts; return the share of the time, stalls included, of each part."""
        after, lost = (done, 0.0) if self.lost is None else self.lost
        counts = (done * part / parts for part in range(parts + 1))
        marks = [(self.time_at(n, time, done) + (lost if n > after else 0.0)) / (time + lost) for n in counts]
        return [end - begin for begin, end in itertools.pairwise(marks)]

    def forecasts(self, time: float, done: float, left: float, past: Past | None = None) -> list[float]:
        """Return the logarithm of the time per unit that each forecaster expects for the next `left` units.

        Args:
            time: when `done` was reached, in seconds since the start.
            done: completed units, above 0.
            left: units that are foretold.
            past: earlier runs, prepared for the total of this one.
        """
        return self._ahead(self._say(time, done), time, done, left, past)

    def horizon(self, done: float, left: float) -> float:
        """Return how far ahead a forecast is: the units left for each one that tells the pace."""
        return left / (done - self.since[1])

    def spent(self, time: float, done: float, past: Past) -> float:
        """Return the seconds since a pause of earlier runs around a count began; 0 if they had none there."""
        return time - self.time_at(past.entry(done), time, done)

    def _ahead(self, said: Sequence[float], time: float, done: float, left: float, past: Past | None) -> list[float]:
        """The logarithms of the times per unit, from what the forecasters said at a moment."""
        found = list(said)
        found[TREND] = found[HALF] + said[TREND] * min(1.0, self.horizon(done, left) + 0.5)
        if past is not None:
            found += past.forecasts(time, done, left, self.spent(time, done, past))
        return found

    def _say(self, time: float, done: float) -> list[float]:
        """What the forecasters say at a moment, whatever is left; of the trend, how much steeper it makes the half."""
        since, base = self.since
        whole = done - base
        mean = (time - since) / whole
        least, part = _LEAST * mean, done - self.counts[max(0, bisect_left(self.counts, done) - 1)]
        found = [_log(mean)]
        for share in SHARES[1:]:
            span = max(share * whole, part, BRIEF / mean)
            each = (time - self.time_at(done - span, time, done)) / span if span < whole else mean
            found.append(_log(max(each, least)))
        half = math.exp(found[1])
        slope = _log(max(half, 0.05 * mean) / max(2 * mean - half, 0.05 * mean))
        found.append(_TREND * max(-2.0, min(2.0, slope)))
        median, smooth = self._typical(time, done)
        found.append(_log(max(median, least)))
        found.append(_log(max(smooth, least)))
        return found

    def _typical(self, time: float, done: float) -> tuple[float, float]:
        """The median time per unit of its parts, weighted by their units, and the mean without the longest pause."""
        times, counts, (since, base) = self.times, self.counts, self.since
        first, n = bisect_left(counts, base), bisect_left(counts, done)
        marks = itertools.pairwise(zip(times[first:n], counts[first:n]))
        parts = [((t - at) / (count - of), count - of) for (at, of), (t, count) in marks]
        parts.append(((time - times[n - 1]) / (done - counts[n - 1]), done - counts[n - 1]))
        mean = (time - since) / (done - base)
        each, units = max(parts, key=lambda part: (part[0] - mean) * part[1])
        rest = done - base - units
        smooth = (time - since - each * units) / rest if len(parts) > 2 and rest > 0 else mean
        parts.sort()
        left = (done - base) / 2
        for each, units in parts:
            left -= units
            if left <= 0:
                return each, smooth
        return mean, smooth

    def _tests(self, time: float, done: float, horizon: float, past: Past | None) -> list[Test]:
        """The errors of all forecasters between moments of this run; what starts at one moment counts as one test."""
        found: list[Test] = []
        origins, points = self._origins(time, done), self._points
        ends = [(points[2 * i + 1], points[2 * i]) for i in origins]
        ends.append((done, time))
        for index, i in enumerate(origins):
            n, t = ends[index]
            own, later = self.said_at(i), ends[index + 1 :]
            units = n - self.since[1]
            ahead = units * horizon
            near = [1.0 / (1.0 + _NEAR * abs(math.log((end - n) / ahead))) for end, _ in later]
            share = max(near) / sum(near)
            half, slope = own[HALF], own[TREND]
            for (end, at), weight in zip(later, near):
                left = end - n
                own[TREND] = half + slope * min(1.0, left / units + 0.5)
                told = own if past is None else [*own, *past.forecasts(t, n, left, self.spent(t, n, past))]
                real = math.log((at - t) / left)
                found.append(Test(units, left, weight * share, [each - real for each in told]))
        return found

    def _origins(self, time: float, done: float) -> list[int]:
        """Points at which the forecasters are tested: about evenly spaced in units."""
        base, found = self.since[1], list[int]()
        times, counts = self.times, self.counts
        start = bisect_left(counts, base)
        for part in ORIGINS:
            i = bisect_right(counts, base + part * (done - base)) - 1
            if i > (found[-1] if found else start) and done - counts[i] > FEW and time - times[i] > INSTANT:
                found.append(i)
        return found

    def review(self, time: float, done: float, left: float, past: Past | None = None) -> Review:
        """Test all forecasters on what happened so far, and return their weights and the width of the interval."""
        horizon = max(self.horizon(done, left), _NEAREST)
        tests = self._tests(time, done, horizon, past)
        prior = _PRIOR if past is None else (*_PRIOR, *past.priors())
        losses = [-each for each in prior]
        if tests:
            sums = [0.0] * len(prior)
            for _, _, weight, errors in tests:
                told = map(min, map(abs, errors), repeat(_WORST))
                sums = [*map(add, sums, map(mul, repeat(weight), told))]
            best, many = min(sums), len({test.units for test in tests})
            scale = _SHARPNESS * many / len(ORIGINS) / (best + _EXACT * (1 + many))
            seen = min(1.0, _EARLY * done / (done + left))
            if past is not None:
                # fast units at the start say little about slow ones that are known to come
                seen = min(seen, (_EARLY * time / (time + past.usual(done, left))) ** 2)
                seen = min(seen, done / (done + left) / past.proof)  # nor do a few units that vary much
            losses = [
                loss + (scale * (each - best) if index < OWN else seen * min(_MISTRUST, scale * (each - best)))
                for index, (loss, each) in enumerate(zip(losses, sums))
            ]
        least = min(losses)
        weights = [math.exp(least - each) for each in losses]
        whole = sum(weights)
        shares = [each / whole for each in weights]
        return Review(done, done + left, self._error(tests, shares, horizon, done, past), shares)

    def _error(
        self, tests: list[Test], weights: Sequence[float], horizon: float, done: float, past: Past | None
    ) -> float:
        """The standard error (log) of a forecast that is far ahead: from the tests, and what is assumed before any."""
        known = sum(weights[OWN:])
        squares = number = 0.0
        for units, left, weight, errors in tests:
            error = sum(map(mul, weights, errors))
            squares += weight * error * error / _ahead_of(left / units)
            number += weight
        assumed = _SPREAD * _SPREAD
        if past is not None:
            assumed = known * past.error(done) ** 2 / _ahead_of(horizon) + (1 - known) * assumed
        if number:
            uneven = min(1.0, math.sqrt(squares / number) / _UNEVEN)
            assumed *= ((_DOUBT + number * uneven) / (_DOUBT + number)) ** 2
        error = math.sqrt((_ASSUMED * assumed + squares) / (_ASSUMED + number))
        return _CALIBRATED * error * (1.0 if past is None else 1.0 + known * (past.wide - 1.0))


def _earlier(points: array[float], count: float, seconds: float) -> array[float]:
    """Points, times and counts in turn, of which those after a count are so many seconds earlier."""
    marks = ((time - seconds if n > count else time, n) for time, n in zip(points[::2], points[1::2]))
    return array("d", itertools.chain.from_iterable(marks))


def _ahead_of(horizon: float) -> float:
    """The squared error for a horizon, as a part of that far ahead."""
    return _STEADY + (1 - _STEADY) * horizon / (1 + horizon)


def error_at(error: float, horizon: float, steps: float) -> float:
    """Return the standard error (log) for a horizon, from that far ahead; the last steps are more uncertain."""
    return min(_WIDEST, error * math.sqrt(_ahead_of(horizon) + _STEPS / max(1.0, steps)) + _FLOOR)


def untested(horizon: float, steps: float) -> float:
    """Return the standard error (log) of a forecast that was not tested."""
    return error_at(_CALIBRATED * _SPREAD, horizon, steps)


def _log(each: float) -> float:
    """The logarithm, finite for whatever times and counts come."""
    return math.log(min(max(each, FEW), MANY))
