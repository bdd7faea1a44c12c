"""What runs beside the job: the ticker, and what has to happen at a fork and at the end.

Nothing starts before somebody wants events and an operation (or `configure`) comes.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from otel_progress import clock
from otel_progress.live import context, hooks
from otel_progress.live.registry import FORK_WAIT, registry
from otel_progress.live.ticker import Ticker
from otel_progress.model.status import Status

if TYPE_CHECKING:
    from otel_progress.live.operation import Operation

EXIT_SECONDS: Final = 2.0

ticker = Ticker()
threads_allowed = True
"""False under the fake clock, where a test turns the crank."""

at_exit: list[Callable[[float], None]] = []
"""Called at the end of the process, after the last round, with the seconds that are left."""
in_child: list[Callable[[], None]] = []
"""Called in a forked child, before any code of the user."""

loops: weakref.WeakSet[Any] = weakref.WeakSet()
"""The event loops on which operations started; the heartbeat asks how late they are."""

parking = threading.Lock()
"""Held by our threads while they may hold locks of the SDK; a fork waits for it, 50 ms at the most."""

_lock = threading.Lock()
_hooked = _parked = False


def want() -> None:
    """Somebody takes events from now on."""
    hooks.wanted = True
    if _prepare not in hooks.on_operation:
        hooks.on_operation.insert(0, _prepare)
    here = context.running_here()
    if here is not None and not here.operation._seen_by_ticker:
        here.operation._announce()
    if registry.live:
        ensure()


def ensure() -> None:
    """Run the ticker, and hook into fork and exit."""
    global _hooked
    with _lock:
        if not _hooked:
            _hooked = True
            atexit.register(_exit)
            os.register_at_fork(
                before=_before_fork,
                after_in_parent=_after_fork_in_parent,
                after_in_child=_after_fork_in_child,
            )
            process = sys.modules.get("multiprocessing.process")
            if process is not None and process.parent_process() is not None:
                _flush_at_end_of_child()
        if threads_allowed:
            ticker.start()


def set_pace(interval: float, budget: float) -> None:
    """Look so that nothing is older than `interval` (s); pass on so many rationed events a second."""
    ticker.interval, ticker.budget = interval, budget


def finish(timeout: float, interrupt: str | None = None) -> bool:
    """Have everything told and sent, within so many seconds; with `interrupt`, running operations end with it.

    The ticker does it, so that a signal handler may call this: it takes no lock, and only waits.
    """
    deadline = clock.monotonic() + timeout

    def last_round() -> None:
        if interrupt is not None:
            for operation in registry.operations():
                operation._finish(Status.INTERRUPTED, interrupt, None)
        ticker.round(sample=True)
        for call in tuple(at_exit):
            call(max(0.0, deadline - clock.monotonic()))

    return ticker.ask(last_round, timeout)


def _exit() -> None:
    finish(EXIT_SECONDS, "the process ended")


def _after_fork_in_parent() -> None:
    registry.after_fork_in_parent()
    if _parked:
        parking.release()


def _after_fork_in_child() -> None:
    global ticker, _lock, parking
    _lock, parking = threading.Lock(), threading.Lock()
    loops.clear()
    registry.after_fork_in_child()
    ticker = Ticker(ticker.interval, ticker.budget)
    for call in tuple(in_child):
        call()


def _prepare(operation: Operation) -> None:
    """An operation starts while somebody wants events."""
    if ticker.resting:
        ensure()
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        loop = asyncio._get_running_loop()
        if loop is not None:
            loops.add(loop)


def _before_fork() -> None:
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.register_after_fork(registry, _flush_at_end_of_child)
    global _parked
    _parked = parking.acquire(timeout=FORK_WAIT)
    registry.before_fork()


def _flush_at_end_of_child(_: object = None) -> None:
    """A child of multiprocessing ends without atexit, but runs its finalizers."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, _exit, exitpriority=100)
