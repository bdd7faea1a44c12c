"""The size of a limit: it grows slowly while all is well, else shrinks at once.

This is AIMD (additive increase, multiplicative decrease: Chiu and Jain, 1989), as TCP does it.
"""

from __future__ import annotations

import math
from typing import Final

SHRINK: Final = 0.7
"""What is left of the size after trouble."""
SLOWER: Final = 2.0
"""The limit shrinks when recent uses take this many times the usual time."""
RECENT, USUAL = 0.2, 0.02
"""Weights of the newest use in the averages of recent and of usual times."""
LEARN: Final = 20
"""Uses before times are judged."""


class Size:
    """How many a limit lets through, by how their uses went. All times are monotonic (s)."""

    def __init__(self, start: int, least: int, most: int) -> None:
        """Begin with `start`."""
        self._size, self._least, self._most = float(start), float(least), float(most)
        self._shrunk_at = -math.inf
        self._uses, self._recent, self._usual = 0, 0.0, 0.0

    @property
    def now(self) -> int:
        """How many there may be now."""
        return int(self._size)

    def went_well(self, began: float, now: float, *, full: bool, short: bool) -> None:
        """A use went well: grow if all places were in use; shrink if it took long, or something else is `short`."""
        self._uses += 1
        self._recent += (now - began - self._recent) * max(RECENT, 1 / self._uses)
        self._usual += (now - began - self._usual) * max(USUAL, 1 / self._uses)
        if short or (self._uses > LEARN and self._recent > SLOWER * self._usual):
            self.had_trouble(began, now)
        elif full:
            self._size = min(self._most, self._size + 1 / self._size)

    def had_trouble(self, began: float, now: float) -> None:
        """Shrink, once for all uses that had begun before: they tell of the same trouble."""
        if began > self._shrunk_at:
            self._shrunk_at = now
            self._size = max(self._least, self._size * SHRINK)
