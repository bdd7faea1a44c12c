"""How the total of a run grows while it is worked off, as that of a crawler or of a queue."""

from __future__ import annotations

from array import array
from typing import Final

_TIMES: Final = 3
"""How often a total grew before it is said to grow without end."""
_AS_FAST, _SLOWER = 0.9, 0.7
"""From this part of the count on the total grows as fast, until it grows by less than the second part of it."""
_GOES_ON: Final = 0.5
"""The part of the growth that is expected to go on."""
_MAY_GO_ON: Final = 0.95
"""The part for which the upper end leaves room, and that for an error of the pace as well."""
_LATELY: Final = 0.15
"""The part of the time since the start, without any growth, after which a total is taken as final."""


class Growth:
    """A total that has changed, in constant memory. Times are in seconds since the start of the run."""

    __slots__ = ("_at", "_endless", "_halves", "_more", "_now", "_times")

    def __init__(self, time: float, units: float, total: float) -> None:
        """Begin with the total before it changed first."""
        self._now = array("d", (time, units, total))
        self._halves = self._now[:], self._now[:]
        self._at, self._times, self._more = time, 0, 0.0
        self._endless = False

    @property
    def total(self) -> float:
        """The newest total."""
        return self._now[2]

    def note(self, time: float, units: float, total: float) -> None:
        """Note the total at a moment."""
        if total > self._now[2]:
            self._at, self._times, self._more = time, self._times + 1, total - self._now[2]
        self._now = array("d", (time, units, total))
        if time >= 2 * self._halves[1][0]:
            self._halves = self._halves[1], self._now

    def since_half(self) -> float:
        """Return the units by which the total grew in about the last half of the run; as many more may come."""
        return max(0.0, self._now[2] - self._halves[0][2])

    def to_come(self, left: float, goes_on: float = _GOES_ON) -> float:
        """Return by how many units the total will grow until the units that are left, and those, are done.

        Args:
            left: units that are left now.
            goes_on: the part of the growth that goes on.
        """
        time, units, _ = self._now
        done = units - self._halves[0][1]
        if self._times < _TIMES or time - self._at > _LATELY * time or done <= 0:
            return 0.0
        each = goes_on * min(1.0, self.since_half() / done)
        return left * each / (1 - each)

    def widened(self, low: float, high: float, left: float, each: float) -> tuple[float, float]:
        """Return the interval of an estimate that expects `to_come`, with room for no growth, and for nearly all of it.

        Args:
            low: its lower end, in seconds.
            high: its upper end.
            left: units that are left now.
            each: seconds a unit.
        """
        more, most = self.to_come(left), self.to_come(left, _MAY_GO_ON)
        if not more:
            return low, high + each * self.since_half()
        return low * left / (left + more), high * (left + most) / (left + more)

    def is_endless(self) -> bool:
        """Whether the total has grown as fast as the count since about half of the run, again and again."""
        time, units, total = self._now
        _, before, first = self._halves[0]
        if self._times < _TIMES or time - self._at > _LATELY * time or units <= before:
            self._endless = False
        else:  # it may grow before a unit is done, or after
            part = _SLOWER if self._endless else _AS_FAST
            self._endless = total - first + self._more >= part * (units - before)
        return self._endless
