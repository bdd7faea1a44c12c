"""What comes after the last unit: a commit, an upload, a report. Earlier runs of a name say how long it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

from otel_progress.model import outlasting
from otel_progress.model.estimate import Estimate
from otel_progress.model.run_means import RunMeans

LEAST: Final = 2.0
"""Seconds; what is shorter is none."""
_VARIES: Final = 0.2
"""Deviation (log) that is assumed before it is known."""
_SURE: Final = 1.0
"""With a larger deviation (log), nobody knows how long it takes."""
_EIGHTY: Final = 1.2816
"""Standard deviations within which a normal value is in 80% of all cases."""


@dataclass
class Closing(RunMeans):
    """How long the completed runs of a name went on after their last unit."""

    what: ClassVar[str] = "ends"

    def add(self, seconds: float) -> None:
        """Add a completed run."""
        self._add(seconds)

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
