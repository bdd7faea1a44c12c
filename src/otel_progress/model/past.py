"""How earlier runs of a name went: their time per unit, and how the time ran over the share done.

All values are exponentially weighted over the runs, so that a name whose runs change is followed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

PARTS: Final = 16
"""Parts of a course, by units."""
NEWEST: Final = 0.25
"""Least weight of the newest run."""
_ALIKE: Final = 0.3
"""Spread (log) of the time per unit between runs that is assumed before it is known."""
_ADAPT: Final = 1.4
"""How fast the width follows how often the intervals of a run held."""
_KNOWN_WELL: Final = 0.67
"""Part of the spread between runs that is the error of a forecast: it is corrected while a run goes on."""
WIDE: Final = 0.42
"""Width of intervals from earlier runs, before it is adapted to how often they hold."""
_LIMITS: Final = (0.12, 3.6)
_MOST: Final = 100.0
"""Largest logarithm of a time per unit that is learned."""
_TRUSTED: Final = 3.5
"""Logarithm of the weight of one earlier run before any test; forecasters of the run alone have about 0."""
_TINY: Final = 1e-9
_UNEVEN: Final = 3.0
"""A sixteenth of the units that took this many times as long as the median one had a pause in it."""
_PAUSE_PARTS: Final = 4
"""The most sixteenths over which the looks spread a pause; where more are slow, the units are."""


@dataclass
class Record:
    """What the completed runs of a name taught about their pace.

    Attributes:
        runs: the number of completed runs that counted units.
        each: the mean logarithm of their time per unit, in seconds.
        varies: the mean square of how far the next run was from that.
        shares: how much of the time each sixteenth of the units took.
        wide: by how much errors in tests are multiplied, so that intervals hold what they say.
    """

    runs: int = 0
    each: float = 0.0
    varies: float = _ALIKE * _ALIKE
    shares: list[float] = field(default_factory=lambda: [1.0 / PARTS] * PARTS)
    wide: float = WIDE

    def add(self, shares: Sequence[float] | None, time: float, done: float, held: float | None = None) -> None:
        """Add a completed run.

        Args:
            shares: how much of the time each sixteenth of the units took; None if it was only a part of a run.
            time: its duration without waits, in seconds.
            done: its units.
            held: the part of its intervals that held its end, if it had any.
        """
        if not (0 < time < math.inf and 0 < done < math.inf):
            return
        each = math.log(time) - math.log(done)
        if abs(each) > _MOST:
            return
        newest = max(NEWEST, 1.0 / (self.runs + 1))
        if self.runs:
            off = each - self.each
            self.varies += max(NEWEST, 1.0 / (self.runs + 2)) * (off * off - self.varies)
        self.each += newest * (each - self.each)
        if shares is not None:
            self.shares = [old + newest * (max(_TINY, new) - old) for old, new in zip(self.shares, shares)]
        if held is not None:
            self.wide = min(_LIMITS[1], max(_LIMITS[0], self.wide * math.exp(_ADAPT * (0.8 - held))))
        self.runs += 1

    def to_list(self) -> list[float]:
        """Return plain numbers."""
        return [self.runs, *(round(each, 6) for each in (self.each, self.varies, self.wide, *self.shares))]

    @classmethod
    def from_list(cls, given: Any) -> Record:
        """Read what `to_list` returned.

        Raises:
            TypeError, ValueError: if it is anything else.
        """
        runs, each, varies, wide, *shares = map(float, given)
        whole = sum(shares)
        if (
            len(shares) != PARTS
            or not all(math.isfinite(one) and one >= 0 for one in (runs, varies, *shares))
            or not (abs(each) <= _MOST and _LIMITS[0] <= wide <= _LIMITS[1] and whole > 0)
        ):
            raise ValueError("the course of earlier runs is invalid")
        found = cls()
        found.runs, found.each, found.varies, found.wide = int(runs), each, varies, wide
        found.shares = [one / whole for one in shares]
        return found

    def merge(self, other: Record) -> None:
        """Add what another process learned."""
        whole = self.runs + other.runs
        if not other.runs:
            return
        part = max(other.runs / whole, min(1.0, NEWEST * other.runs)) if self.runs else 1.0
        self.each += part * (other.each - self.each)
        self.varies += part * (other.varies - self.varies)
        self.wide += part * (other.wide - self.wide)
        self.shares = [mine + part * (theirs - mine) for mine, theirs in zip(self.shares, other.shares)]
        self.runs = whole


class Past:
    """Earlier runs, prepared for a run of a known total."""

    __slots__ = ("_base", "_begin", "_ends", "_median", "each", "runs", "total", "varies", "wide")

    def __init__(self, record: Record, total: float, base: float = 0.0) -> None:
        """Prepare the earlier runs for a run of `total` units, of which an earlier attempt completed `base`.

        The methods count units from `base` on.
        """
        self.runs, self.each, self.varies, self.wide = record.runs, record.each, record.varies, record.wide
        self.total = total
        whole, ends = 0.0, [0.0]
        for share in record.shares:
            whole += share
            ends.append(whole)
        self._ends = [end / whole for end in ends]
        self._median = sorted(record.shares)[PARTS // 2] / whole
        self._base = base
        self._begin = self._share_at(0.0)

    def _part(self, count: float) -> float:
        """Which sixteenth of the whole a count lies in, as a fraction."""
        return (count + self._base) / self.total * PARTS

    def _time_share(self, count: float) -> float:
        """The part of the time of a whole run that passes until a count, without what an earlier attempt took."""
        return self._share_at(count) - self._begin

    def _share_at(self, count: float) -> float:
        at = min(max(self._part(count), 0.0), PARTS)
        index = min(int(at), PARTS - 1)
        return self._ends[index] + (self._ends[index + 1] - self._ends[index]) * (at - index)

    def _block(self, done: float) -> tuple[int, int] | None:
        """The parts around a count in which earlier runs had a pause: a few, as its place is known roughly."""
        first = min(int(self._part(max(0.0, done))), PARTS - 1)
        last = first + 1
        while first > 0 and self._has_pause(first - 1) and self._has_pause(last - 1):
            first -= 1
        while last < PARTS and self._has_pause(last) and self._has_pause(first):
            last += 1
        return (first, last) if self._has_pause(first) and last - first <= _PAUSE_PARTS else None

    def _has_pause(self, part: int) -> bool:
        return self._ends[part + 1] - self._ends[part] > _UNEVEN * self._median

    def entry(self, done: float) -> float:
        """Return the count at which the pause of earlier runs around a count began; the count itself if none did."""
        block = self._block(done)
        return done if block is None else max(0.0, self.total * block[0] / PARTS - self._base)

    def pause(self, done: float, grain: float, spent: float) -> float:
        """Return the seconds that the unit in hand takes at most by earlier runs; 0 if they had no pause there.

        Args:
            done: the completed units.
            grain: the size of the unit in hand.
            spent: seconds since `entry(done)`.
        """
        block = self._block(done)
        if block is None:
            spent, block = 0.0, self._block(done + grain * (1 - _TINY))
        if block is None:
            return 0.0
        return max(0.0, (self._ends[block[1]] - self._ends[block[0]]) * math.exp(self.each) * self.total - spent)

    def _rest(self, done: float, left: float, spent: float) -> float:
        """How much more of the time is left than the share of the units says, as a pause is still to come; or less."""
        block = self._block(done)
        if block is None or self._part(done + left) < block[1] - _TINY:
            return 0.0
        whole = self._ends[block[1]] - self._ends[block[0]]
        quick = max(0.0, block[1] - self._part(done)) * self._median
        still = max(whole - spent / math.exp(self.each) / self.total, quick)
        return still - (self._ends[block[1]] - self._share_at(done))

    def forecasts(self, time: float, done: float, left: float, spent: float) -> tuple[float, float]:
        """Return the logarithms of the time per unit: as long as earlier runs took, and at the pace of this run.

        Args:
            time: seconds since the start.
            done: units completed until then.
            left: units that are foretold.
            spent: seconds since `entry(done)`.
        """
        before, after = self._time_share(done), self._time_share(done + left)
        rest = self._rest(done, left, spent)
        share = max(after - before + rest, _TINY)
        level = self.each + math.log(self.total)  # of the duration
        by_level = level + math.log(share / left)
        gone = max(before - rest, _TINY)
        pace = math.log(time) - math.log(gone) - level
        known = gone / (gone + 0.05)
        return by_level + pace * known * 0.3, by_level + pace * known

    def priors(self) -> tuple[float, float]:
        """Return the logarithms of the weights before any test."""
        known = math.log(1 + self.runs)
        alike = -math.log(max(0.02, self.varies) / (_ALIKE * _ALIKE)) / 2
        return _TRUSTED + known + alike, _TRUSTED + known

    @property
    def error(self) -> float:
        """The standard error (log) of a forecast from earlier runs that is assumed before any test."""
        return _KNOWN_WELL * math.sqrt(self.varies) * (1 + 0.5 / self.runs)


def by_earlier_runs(record: Record, total: float, ran: float) -> tuple[float, float] | None:
    """Return the seconds left of a run that completed nothing so far, and half the width of the interval (log).

    None if the time that earlier runs took for `total` units is over.
    """
    if not record.runs or not 0 < total < math.inf:
        return None
    left = math.exp(record.each) * total - ran
    width = 1.2816 * math.sqrt(record.wide / WIDE * record.varies) * (1 + 1.0 / record.runs)
    return (left, min(2.5, width)) if 0 < left * math.exp(2.5) < math.inf else None
