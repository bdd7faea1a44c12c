"""Progress over time as a few points: how many units were completed when."""

from __future__ import annotations

import math
from array import array
from typing import Final

from otel_progress.model.values import Number

POINTS: Final = 64
"""Points that are kept, at most; half of them once it is full."""
CLOSEST: Final = 1.0
"""Seconds between two points, at first; twice as many each time it is full."""
BURST: Final = 0.25
"""Seconds for the units that end a stop, at least: less would make a rate of them that is no news."""
EXACT: Final = 2.0**53
"""Whole numbers below it are exact."""
Points = tuple[tuple[float, Number], ...]


class Curve:
    """Points (seconds since the start, completed units), spread evenly over a run of any length.

    Where nothing was completed for a while, both ends of that time are points, too.
    """

    __slots__ = ("apart", "last", "moved", "points", "still")

    def __init__(self, told: Points = (), restored: Number | None = None) -> None:
        """Start at 0 seconds, or go on with what `until` returned; its last point is of that moment alone.

        Args:
            told: points of an earlier curve.
            restored: the units that were done before the start; None without a point for the start.
        """
        self.points = array("d")  # seconds and units in turn: 16 bytes a point, not 120
        self.apart = CLOSEST
        self.last: tuple[float, Number] | None = None
        """What `add` was told last."""
        self.still = 0.0
        """Until when (s) that count is known to have stood."""
        self.moved = False
        """Whether more was completed since, how much is not known."""
        if restored is not None and not told:
            self.points.extend((0.0, restored))
            self.last = (0.0, restored)
        between = []
        for seconds, completed in told[:-1][:POINTS]:
            gap = seconds - self.points[-2] if self.points else math.inf
            if gap > 0:
                between.append(gap)
                self.points.extend((seconds, completed))
        if len(between) > 1:
            self.apart = max(CLOSEST, sorted(between[1:])[(len(between) - 1) // 4])

    def stands(self, seconds: float) -> None:
        """Take note that nothing more was completed until then, since the last `add`."""
        if not self.moved:
            self.still = seconds

    def add(self, seconds: float, completed: Number) -> None:
        """Add a point, unless it is too close to the last one."""
        for corner in self._corners(seconds, completed):
            self._keep(*corner, least=0.0)
        self._keep(seconds, completed, self.apart)
        if self.last is None or completed != self.last[1]:
            self.last = (round(seconds, 3), completed)
        self.still, self.moved = max(self.still, seconds), False

    def until(self, seconds: float, completed: Number | None) -> Points:
        """Return the points, the last one for this moment."""
        if completed is None:
            return ()
        flat = self.points.tolist()
        pairs = zip(flat[::2], flat[1::2], strict=False)
        points = [(at, _whole(units)) for at, units in pairs if at < seconds]
        latest = points[-1][0] if points else -math.inf
        corners = [corner for corner in self._corners(seconds, completed) if latest < corner[0] < seconds]
        return (*points[: POINTS - len(corners)], *corners, (round(seconds, 3), completed))

    def _corners(self, seconds: float, completed: Number) -> Points:
        """Both ends of the time for which the last count stood, if that is long enough to be seen."""
        if self.last is None:
            return ()
        at, units = self.last
        if completed == units and not self.moved:
            return (self.last,) if seconds - at >= self.apart else ()
        end = min(self.still, seconds - BURST)
        return (self.last, (round(end, 3), units)) if end - at >= self.apart else ()

    def _keep(self, seconds: float, completed: Number, least: float) -> None:
        points = self.points
        after = seconds - points[-2] if points else math.inf
        if after <= 0 or after < least:
            return
        if len(points) >= 2 * POINTS:
            self.points = points = self._thinned()  # a new one: another thread may read the old one
            if seconds - points[-2] < min(least * 2, self.apart):
                return
        points.extend((round(seconds, 3), completed))

    def _thinned(self) -> array[float]:
        """At most about half of the points: the first, and those that are far enough from the one before."""
        old = self.points
        points = old
        while len(points) > 1.5 * POINTS:
            self.apart *= 2
            points = old[:2]
            for at in range(2, len(old), 2):
                if old[at] - points[-2] >= self.apart or self._ends_a_stand(old, at):
                    points.extend(old[at : at + 2])
        return points

    def _ends_a_stand(self, points: array[float], at: int) -> bool:
        """Whether a point is one end of a time without a unit that is still long enough to be seen."""
        before = points[at + 1] == points[at - 1] and points[at] - points[at - 2] >= self.apart
        later = points[at : at + 4]
        return before or (len(later) == 4 and later[3] == later[1] and later[2] - later[0] >= self.apart)


def _whole(number: float) -> Number:
    return int(number) if number.is_integer() and abs(number) < EXACT else number
