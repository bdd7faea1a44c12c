"""What the process and its end share with the parts that run beside the job: hooks for fork and exit, event loops.

`runtime.py` runs these hooks; others add to them.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

from otel_progress.live.diagnosis.loop_lag import LoopLag

threads_allowed = True
"""Whether threads may start; False under the fake clock, where tests drive the ticker."""

at_exit: list[Callable[[float], object]] = []
"""Called at the end of the process, after the last round, with the seconds that are left."""
after_flush: list[Callable[[float], object]] = []
"""Called after those, with the seconds left then: what may hang must not delay sending."""
in_haste: list[Callable[[float], object]] = []
"""Called before `at_exit` if time is short; they send the ends of operations."""
at_last: list[Callable[[bool], None]] = []
"""Called when the end of the process waits no longer, with whether it surely ends. They are quick, take no lock for
long, and never raise."""
all_sent: list[Callable[[], bool]] = []
"""Return whether everything they were given was sent; they take no lock."""

interrupts = False
"""Whether running operations are being ended because the process ends."""

lag = LoopLag()
loops: weakref.WeakSet[Any] = weakref.WeakSet()
"""The event loops on which operations started; the heartbeat reports their lag."""

parking = threading.Lock()
"""Held by our threads while they may hold locks of the SDK; a fork waits for it, at most 50 ms."""


def after_fork_in_child() -> None:
    """Start anew: the lock and the event loops are the parent's."""
    global lag, parking
    lag, parking = LoopLag(), threading.Lock()
    loops.clear()
