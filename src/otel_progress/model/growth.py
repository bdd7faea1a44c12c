"""How the total of a run grows while it is worked off, as that of a crawler or of a queue."""

from __future__ import annotations

from array import array
from typing import Final

_TIMES: Final = 3
"""How often a total grew before it is said to grow without end."""
_FALLS: Final = 0.9
"""The rest is no less than this part of what it was at half of the units, if the total grows as fast as the count."""
_LATELY: Final = 0.15
"""The part of the time since the start, without any growth, after which a total is taken as final."""


class Growth:
    """A total that has changed, in constant memory. Times are in seconds since the start of the run."""

    __slots__ = ("_at", "_halves", "_more", "_now", "_times")

    def __init__(self, time: float, units: float, total: float) -> None:
        """Begin with the total before it changed first."""
        self._now = array("d", (time, units, total))
        self._halves = self._now[:], self._now[:]
        self._at, self._times, self._more = time, 0, 0.0

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

    def is_endless(self) -> bool:
        """Whether the rest has not become less since about half of the run, as the total grew again and again."""
        time, units, total = self._now
        _, before, first = self._halves[0]
        if self._times < _TIMES or time - self._at > _LATELY * time or units <= before:
            return False
        return total - units + self._more >= _FALLS * (first - before)  # it may grow before a unit is done, or after
