"""Declared waits to come, by those of earlier runs of a name, else by those of this run if there were several."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

from otel_progress.model.estimate import Estimate
from otel_progress.model.run_means import RunMeans

_EIGHTY: Final = 1.2816
"""Standard deviations within which a normal value is in 80% of all cases."""
_VARIES: Final = 0.3
"""Relative deviation of the time waited that is assumed before it is known."""
_SURE: Final = 0.7
"""Waits are expected if their deviation is at most this part of their mean: in nearly all runs, about as long."""
_ONE: Final = 0.5
"""With fewer waits to come, none is expected."""
_AGAIN: Final = 3
"""The waits of a run from which on more are expected: as many for each unit as so far."""
_MOST: Final = 1e10
"""The longest time that is remembered, in seconds."""


@dataclass
class UsualWaits(RunMeans):
    """The waits of the completed runs of a name in which all of a run waited; their time is that of a whole run.

    Attributes:
        times: how often a run waited, on average.
    """

    what: ClassVar[str] = "waits"
    times: float = 0.0

    def add(self, seconds: float, times: int) -> None:
        """Add a completed run."""
        self._add(seconds, times=times)

    def extend(self, left: Estimate, begun: int) -> Estimate | None:
        """Return the estimate with the waits that are still to come; None if earlier runs say nothing about them.

        Args:
            left: the time left without waits.
            begun: how often this run has waited, the wait of now included: nobody knows how long that lasts.
        """
        if not self.runs or self.seconds <= 0 or self.times <= 0:
            return None
        varies = math.sqrt(max(0.0, self.squares - self.seconds**2) + (_VARIES * self.seconds) ** 2 / self.runs)
        if varies > _SURE * self.seconds:
            return None
        to_come = self.times - begun
        if to_come < _ONE:
            return left
        more = to_come * self.seconds / self.times
        return _longer(left, more, min(more, _EIGHTY * varies))


def recurring(left: Estimate, seconds: float, times: int, ahead: float) -> Estimate:
    """Return the estimate with waits to come of a run that waited again and again.

    Args:
        left: the time left without waits.
        seconds: how long it waited in all.
        times: how often.
        ahead: the work that is left, as a multiple of what was done.
    """
    if times < _AGAIN or not 0 < ahead * times < _MOST or ahead * times < _ONE:
        return left
    more = seconds * ahead
    return _longer(left, more, more * min(1.0, _EIGHTY / math.sqrt(times)))


def _longer(left: Estimate, more: float, off: float) -> Estimate:
    return Estimate(left.eta + more, left.low + more - off, left.high + more + off, left.source, left.runs)
