"""Time in which the whole process stood still: stopped, on a machine that slept, or with the GIL held.

The ticker notices it by its own lateness. Until it has looked, every other look leaves the same time out, so that it
does not matter who looks first.
"""

from __future__ import annotations

from typing import Final

from otel_progress.live.registry import registry

LATE: Final = 1.0
"""Seconds, and intervals of the ticker, by which it may be late without any standstill."""
INTERVALS: Final = 2.0


def slept(now: float) -> float:
    """Seconds, up to a monotonic time, in which the process stood still and which the ticker has not noticed yet."""
    due, tolerated = registry.next_look
    late = now - due
    return late if late > tolerated else 0.0


def awake(now: float) -> float:
    """The monotonic time, or when the process stood still if the ticker has not noticed that yet."""
    return now - slept(now)


def looked(now: float, pause: float, interval: float) -> float:
    """Note that the ticker looks and is to look again after a pause (s); returns how long the process stood still."""
    found = slept(now)
    registry.next_look = now + pause, INTERVALS * interval + LATE
    registry.stood = now, found
    return found
