"""The only reader of time.

Durations come from the monotonic clock, timestamps from the wall clock, so a jump of the wall clock
never makes a duration. `otel_progress.testing` puts a fake clock here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def monotonic(self) -> float:
        """Seconds that never go back; their zero has no meaning."""

    def time_ns(self) -> int:
        """Nanoseconds since 1970, as the wall clock has it."""


class SystemClock:
    """The machine's own clocks."""

    monotonic = staticmethod(time.monotonic)
    time_ns = staticmethod(time.time_ns)


_clock: Clock = SystemClock()
monotonic: Callable[[], float] = time.monotonic
"""Seconds that never go back; their zero has no meaning."""
time_ns: Callable[[], int] = time.time_ns
"""Nanoseconds since 1970, as the wall clock has it."""


def install(clock: Clock) -> Clock:
    """Take time from this clock from now on; returns the one before."""
    global _clock, monotonic, time_ns
    before, _clock = _clock, clock
    monotonic, time_ns = clock.monotonic, clock.time_ns
    return before


def unix() -> float:
    """Seconds since 1970."""
    return time_ns() / 1e9
