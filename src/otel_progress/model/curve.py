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
EXACT: Final = 2.0**53
"""Whole numbers below it are exact."""
Points = tuple[tuple[float, Number], ...]


class Curve:
    """Points (seconds since the start, completed units), spread evenly over a run of any length."""

    __slots__ = ("apart", "points")

    def __init__(self, told: Points = (), restored: Number | None = None) -> None:
        """Start at 0 seconds, or go on with what `until` returned; its last point is of that moment alone.

        Args:
            told: points of an earlier curve.
            restored: the units that were done before the start; None without a point for the start.
        """
        self.points = array("d")  # seconds and units in turn: 16 bytes a point, not 120
        self.apart = CLOSEST
        if restored is not None and not told:
            self.points.extend((0.0, restored))
        closest = math.inf
        for seconds, completed in told[:-1][:POINTS]:
            between = seconds - self.points[-2] if self.points else math.inf
            if between > 0:
                closest = min(closest, between)
                self.points.extend((seconds, completed))
        if closest < math.inf:
            self.apart = max(CLOSEST, closest)

    def add(self, seconds: float, completed: Number) -> None:
        """Add a point, unless it is too close to the last one."""
        points = self.points
        if points and seconds - points[-2] < self.apart:
            return
        if len(points) >= 2 * POINTS:
            self.apart *= 2
            points = array("d")  # a new one: another thread may read the old one
            for at in range(0, len(self.points), 4):
                points.extend(self.points[at : at + 2])
            self.points = points
            if seconds - points[-2] < self.apart:
                return
        points.extend((round(seconds, 3), completed))

    def until(self, seconds: float, completed: Number | None) -> Points:
        """Return the points, the last one for this moment."""
        if completed is None:
            return ()
        flat = self.points.tolist()
        pairs = zip(flat[::2], flat[1::2], strict=False)
        points = tuple((at, _whole(units)) for at, units in pairs if at < seconds)
        return (*points, (round(seconds, 3), completed))


def _whole(number: float) -> Number:
    return int(number) if number.is_integer() and abs(number) < EXACT else number
