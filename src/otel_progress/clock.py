"""The clock; no other module reads the time.

Durations come from the monotonic clock and timestamps from the wall clock, so that a jump of the wall clock never shows
up in a duration. `otel_progress.testing` installs a fake clock here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """A source of time."""

    def monotonic(self) -> float:
        """Seconds that never go backwards, from an arbitrary zero."""

    def time_ns(self) -> int:
        """Nanoseconds since 1970, by the wall clock."""


class SystemClock:
    """The clocks of the machine."""

    monotonic = staticmethod(time.monotonic)
    time_ns = staticmethod(time.time_ns)


_clock: Clock = SystemClock()
monotonic: Callable[[], float] = time.monotonic
"""Seconds that never go backwards, from an arbitrary zero."""
time_ns: Callable[[], int] = time.time_ns
"""Nanoseconds since 1970, by the wall clock."""


def install(clock: Clock) -> Clock:
    """Use another clock from now on; returns the previous one."""
    global _clock, monotonic, time_ns
    before, _clock = _clock, clock
    monotonic, time_ns = clock.monotonic, clock.time_ns
    return before


def unix() -> float:
    """Seconds since 1970, by the wall clock."""
    return time_ns() / 1e9
