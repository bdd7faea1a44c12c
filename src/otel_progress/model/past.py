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
UNLIKE: Final = 2.0
"""Standard deviations beyond which a run is unlike those before; a second such run says that they changed for good."""
_AS_FAR: Final = 0.5
"""The second one is at least this part as far away, on the same side."""
_NOISE: Final = 0.07
"""The mean square by which the time of a sixteenth of the units differs from earlier runs, before that is known."""
_NOISIEST: Final = 25.0
_PROOF: Final = 0.05
"""The least part of a run after which its own pace says as much as earlier runs: its first units are special."""
_NOISY: Final = 0.5
"""The same at most where single parts vary, however much the runs differ: a few of these may have been odd."""
_MOST: Final = 100.0
"""Largest logarithm of a time per unit that is learned."""
_TRUSTED: Final = 3.5
"""Logarithm of the weight of one earlier run before any test; forecasters of the run alone have about 0."""
_TINY: Final = 1e-9
_LEAST_VARIES: Final = 0.02
"""The least mean square by which the pace of a run is taken to differ from that of earlier ones."""
_CHANCE: Final = 3.0
"""How much the noise of single parts counts for the error of what is left."""
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
        noises: the mean square of how far the share of each sixteenth was from the usual one, in sixteenths.
        missed: how far (log) the newest run is from `each` if it was unlike those before, else 0.
    """

    runs: int = 0
    each: float = 0.0
    varies: float = _ALIKE * _ALIKE
    shares: list[float] = field(default_factory=lambda: [1.0 / PARTS] * PARTS)
    wide: float = WIDE
    noises: list[float] = field(default_factory=lambda: [_NOISE] * PARTS)
    missed: float = 0.0

    @property
    def noise(self) -> float:
        """The mean of `noises`."""
        return sum(self.noises) / PARTS

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
        newest, off = max(NEWEST, 1.0 / (self.runs + 1)), each - self.each
        if self.runs and changed(self.missed, off):
            newest = 0.5  # of the last two runs, which is all that counts
            self.each += self.missed
            self.varies = max(_ALIKE * _ALIKE, (off - self.missed) ** 2)
            self.missed, off = 0.0, each - self.each
        elif self.runs:
            self.missed = (1 - newest) * off if abs(off) > UNLIKE * math.sqrt(self.varies) else 0.0
            self.varies += max(NEWEST, 1.0 / (self.runs + 2)) * (off * off - self.varies)
        self.each += newest * off
        if shares is not None:
            if self.runs:
                differ = zip(self.noises, self._differs(shares))
                self.noises = [old + newest * (min(_NOISIEST, new) - old) for old, new in differ]
            self.shares = [old + newest * (max(_TINY, new) - old) for old, new in zip(self.shares, shares)]
        if held is not None:
            self.wide = min(_LIMITS[1], max(_LIMITS[0], self.wide * math.exp(_ADAPT * (0.8 - held))))
        self.runs += 1

    def _differs(self, shares: Sequence[float]) -> list[float]:
        """The squares by which shares differ from the usual ones; those of a few runs are uncertain themselves."""
        whole, uncertain = sum(self.shares), 1 + max(NEWEST / 2, 1 / self.runs)
        return [(PARTS * (new - old / whole)) ** 2 / uncertain for old, new in zip(self.shares, shares)]

    def to_list(self) -> list[float]:
        """Return plain numbers."""
        kept = (self.each, self.varies, self.wide, *self.shares, self.noise, self.missed, *self.noises)
        return [self.runs, *(round(each, 6) for each in kept)]

    @classmethod
    def from_list(cls, given: Any) -> Record:
        """Read what `to_list` returned.

        Raises:
            TypeError, ValueError: if it is anything else.
        """
        runs, each, varies, wide, *shares = map(float, given)
        shares, more = shares[:PARTS], shares[PARTS:] or [_NOISE, 0.0]  # earlier versions had no noise
        noise, missed, *noises = more
        noises = noises or [noise] * PARTS  # or only its mean
        whole = sum(shares)
        if (
            not len(shares) == len(noises) == PARTS
            or not all(math.isfinite(one) and one >= 0 for one in (runs, varies, *shares))
            or not (all(0 <= one <= _NOISIEST for one in noises) and abs(missed) <= 2 * _MOST)
            or not (abs(each) <= _MOST and _LIMITS[0] <= wide <= _LIMITS[1] and whole > 0)
        ):
            raise ValueError("the course of earlier runs is invalid")
        found = cls()
        found.runs, found.each, found.varies, found.wide = int(runs), each, varies, wide
        found.noises, found.missed = noises, missed
        found.shares = [one / whole for one in shares]
        return found

    def merge(self, other: Record) -> None:
        """Add what another process learned."""
        whole = self.runs + other.runs
        if not other.runs:
            return
        if other.runs == 1 and self.runs:  # as most processes have it, so that runs are compared with each other
            wide = self.wide * other.wide / WIDE
            self.add(other.shares, math.exp(other.each), 1.0)
            self.wide = min(_LIMITS[1], max(_LIMITS[0], wide))
            return
        part = max(other.runs / whole, min(1.0, NEWEST * other.runs)) if self.runs else 1.0
        self.each += part * (other.each - self.each)
        self.varies += part * (other.varies - self.varies)
        self.wide += part * (other.wide - self.wide)
        self.noises = [mine + part * (theirs - mine) for mine, theirs in zip(self.noises, other.noises)]
        self.missed = other.missed
        self.shares = [mine + part * (theirs - mine) for mine, theirs in zip(self.shares, other.shares)]
        self.runs = whole


def changed(missed: float, off: float) -> bool:
    """Whether two runs in a row differ from those before (log) so that these say nothing any more.

    Args:
        missed: by how much the run before differed, if that was far; else 0.
        off: by how much the newest one differs.
    """
    return off * missed > 0 and abs(off) >= _AS_FAR * abs(missed)


class Past:
    """Earlier runs, prepared for a run of a known total."""

    __slots__ = (
        *("_base", "_begin", "_ends", "_median", "_noises"),
        *("each", "proof", "runs", "total", "varies", "wide"),
    )

    def __init__(self, record: Record, total: float, base: float = 0.0) -> None:
        """Prepare the earlier runs for a run of `total` units, of which an earlier attempt completed `base`.

        The methods count units from `base` on.
        """
        self.runs, self.each, self.varies, self.wide = record.runs, record.each, record.varies, record.wide
        self.total = total
        self._noises = record.noises  # shared: a record replaces it
        noise = record.noise
        between = record.varies - noise / PARTS  # the rest of how runs differ is chance
        self.proof = max(_PROOF, min(_NOISY, noise), noise / PARTS / max(_LEAST_VARIES, between))
        """The part of a run after which its own pace says as much as earlier runs."""
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
        known = gone / (gone + self.proof)
        return by_level + pace * known * 0.3, by_level + pace * known

    def priors(self) -> tuple[float, float]:
        """Return the logarithms of the weights before any test."""
        known = math.log(1 + self.runs)
        alike = -math.log(max(_LEAST_VARIES, self.varies) / (_ALIKE * _ALIKE)) / 2
        return _TRUSTED + known + alike, _TRUSTED + known

    def usual(self, done: float, left: float) -> float:
        """Return the seconds that earlier runs took for the next `left` units after `done`, however this run goes."""
        share = self._time_share(done + left) - self._time_share(done)
        return math.exp(self.each) * self.total * max(share, _TINY)

    def unproven(self, done: float) -> float:
        """Return how much of what earlier runs took still has to be expected, from 1 to 0.

        It falls as this run proves its own pace (`proof`).
        """
        return max(0.0, 1 - (self._time_share(done) / self.proof) ** 2)

    def error(self, done: float) -> float:
        """Return the standard error (log) of a forecast from earlier runs that is assumed before any test.

        The fewer parts are left, the less do their differences cancel out.
        """
        known = _KNOWN_WELL * (1 + 0.5 / self.runs + 0.5 / self.runs**3)
        left = PARTS - min(max(self._part(done), 0.0), PARTS - _TINY)
        part, noises = PARTS - math.ceil(left), self._noises
        noise = sum(noises[part + 1 :]) + (left % 1.0 or 1.0) * noises[part]
        noise = (noise + left * sum(noises) / PARTS) / 2  # a few runs say little about a single part
        rest = PARTS * max(1 - self._share_at(done), _TINY)
        return math.sqrt(known * known * self.varies + _CHANCE * noise / (rest * rest))


def by_earlier_runs(record: Record, total: float, ran: float) -> tuple[float, float] | None:
    """Return the seconds left of a run that completed nothing so far, and half the width of the interval (log).

    None if the time that earlier runs took for `total` units is over.
    """
    if not record.runs or not 0 < total < math.inf:
        return None
    whole, first = math.exp(record.each) * total, max(record.shares[0] / sum(record.shares), 1.0 / total)
    left = whole - (ran if ran >= whole else min(ran, first * whole))  # nothing is done, so all but the first is left
    width = 1.2816 * math.sqrt(record.wide / WIDE * record.varies) * (1 + 1.0 / record.runs)
    return (left, min(2.5, width)) if 0 < left * math.exp(2.5) < math.inf else None
