"""Progress over time as a few points: how many units were completed when."""

from __future__ import annotations

from typing import Final

from otel_progress.model.values import Number

POINTS: Final = 64
"""Points that are kept, at most; half of them once it is full."""
CLOSEST: Final = 1.0
"""Seconds between two points, at first; twice as many each time it is full."""


class Curve:
    """Points (seconds since the start, completed units), spread evenly over a run of any length."""

    __slots__ = ("apart", "points")

    def __init__(self) -> None:
        """Start without points."""
        self.points: list[tuple[float, Number]] = []
        self.apart = CLOSEST

    def add(self, seconds: float, completed: Number) -> None:
        """Add a point, unless it is too close to the last one."""
        points = self.points
        if points and seconds - points[-1][0] < self.apart:
            return
        if len(points) >= POINTS:
            self.apart *= 2
            points = self.points = points[::2]  # a new list: another thread may read the old one
            if seconds - points[-1][0] < self.apart:
                return
        points.append((round(seconds, 3), completed))

    def until(self, seconds: float, completed: Number | None) -> tuple[tuple[float, Number], ...]:
        """Return the points, the last one for this moment."""
        if completed is None:
            return ()
        points = tuple(point for point in self.points if point[0] < seconds)
        return (*points, (round(seconds, 3), completed))
