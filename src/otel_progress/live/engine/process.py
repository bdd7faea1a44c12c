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
"""Called after those, with what they left: what may hang must not keep anything from being sent."""
in_haste: list[Callable[[float], object]] = []
"""Called before `at_exit` where there is no time for all: they send the ends of operations."""
at_last: list[Callable[[bool], None]] = []
"""Called when the end of the process waits no longer; True unless the process may go on all the same. They are quick,
take no lock for long, and never raise."""
all_sent: list[Callable[[], bool]] = []
"""Say whether what they were given was sent; they take no lock."""
before_fork: list[Callable[[], None]] = []
"""Called in a thread that forks, before it does; 50 ms at the most, all together."""
after_fork: list[Callable[[], None]] = []
"""Called in that thread after it."""
in_child: list[Callable[[], None]] = []
"""Called in a forked child, before any code of the user."""

lag = LoopLag()
loops: weakref.WeakSet[Any] = weakref.WeakSet()
"""The event loops on which operations started; the heartbeat asks how late they are."""

parking = threading.Lock()
"""Held by our threads while they may hold locks of the SDK; a fork waits for it, 50 ms at the most."""


def after_fork_in_child() -> None:
    """Start anew: locks and event loops are the parent's."""
    global lag, parking
    lag, parking = LoopLag(), threading.Lock()
    loops.clear()
