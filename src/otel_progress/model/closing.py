"""What comes after the last unit: a commit, an upload, a report. Earlier runs of a name say how long it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from otel_progress.model import outlasting
from otel_progress.model.estimate import Estimate

NEWEST: Final = 0.3
"""The least weight of the newest run."""
LEAST: Final = 2.0
"""Seconds; what is shorter is none."""
_VARIES: Final = 0.2
"""Deviation (log) that is assumed before it is known."""
_SURE: Final = 1.0
"""With a larger deviation (log), nobody knows how long it takes."""
_EIGHTY: Final = 1.2816
"""Standard deviations within which a normal value is in 80% of all cases."""
_MOST: Final = 1e10
"""The longest time that is remembered, in seconds."""


@dataclass
class Closing:
    """How long the completed runs of a name went on after their last unit.

    Attributes:
        runs: the number of completed runs.
        seconds: how long it took, on average.
        squares: the mean square of that.
    """

    runs: int = 0
    seconds: float = 0.0
    squares: float = 0.0

    def add(self, seconds: float) -> None:
        """Add a completed run."""
        if not 0 <= seconds < _MOST:
            return
        newest = max(NEWEST, 1.0 / (self.runs + 1))
        self.seconds += newest * (seconds - self.seconds)
        self.squares += newest * (seconds * seconds - self.squares)
        self.runs += 1

    def merge(self, other: Closing) -> None:
        """Add what another process learned."""
        if not other.runs:
            return
        whole = self.runs + other.runs
        part = max(other.runs / whole, min(1.0, NEWEST * other.runs)) if self.runs else 1.0
        self.seconds += part * (other.seconds - self.seconds)
        self.squares += part * (other.squares - self.squares)
        self.runs = whole

    @property
    def _width(self) -> float | None:
        """Half the width of the interval (log); None if nothing is known to come."""
        if not self.runs or self.seconds < LEAST:
            return None
        relative = max(0.0, self.squares / self.seconds**2 - 1)
        deviation = math.sqrt(math.log1p(relative) + _VARIES**2 / self.runs)
        return _EIGHTY * deviation if deviation <= _SURE else None

    def after(self, left: Estimate) -> Estimate:
        """The time left with what comes after the last unit; `left` is the time until that."""
        width = self._width
        if width is None:
            return left
        low, high = self.seconds / math.exp(width), self.seconds * math.exp(width)
        return Estimate(left.eta + self.seconds, left.low + low, left.high + high, left.source, left.runs)

    def left(self, ran: float) -> Estimate | None:
        """The time left `ran` seconds after the last unit; None if earlier runs don't tell, or took less."""
        width = self._width
        if width is None or ran > self.seconds * math.exp(2 * width):
            return None
        return Estimate(*outlasting.left(self.seconds, width, ran), "history", self.runs)

    def to_list(self) -> list[float]:
        """Return plain numbers."""
        return [self.runs, round(self.seconds, 6), round(self.squares, 6)]

    @classmethod
    def from_list(cls, given: Any) -> Closing:
        """Read what `to_list` returned.

        Raises:
            TypeError, ValueError: if it is anything else.
        """
        runs, seconds, squares = map(float, given)
        if not (0 <= runs < _MOST and 0 <= seconds < _MOST and 0 <= squares < _MOST**2):
            raise ValueError("the ends of earlier runs are invalid")
        return cls(int(runs), seconds, squares)
