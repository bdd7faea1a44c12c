"""What runs beside the job: the ticker, and what has to happen at a fork and at the end.

Nothing starts before somebody wants events and an operation (or `configure`) comes.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from otel_progress.live import context, hooks
from otel_progress.live.registry import registry
from otel_progress.live.ticker import Ticker

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

_lock = threading.Lock()
_hooked = False


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
                after_in_parent=registry.after_fork_in_parent,
                after_in_child=_after_fork_in_child,
            )
            process = sys.modules.get("multiprocessing.process")
            if process is not None and process.parent_process() is not None:
                _flush_at_end_of_child()
        if threads_allowed:
            ticker.start()


def finish(timeout: float, interrupt: str | None = None) -> None:
    """Have everything told and sent, within so many seconds; with `interrupt`, running operations end with it."""
    from otel_progress import clock
    from otel_progress.model.status import Status

    deadline = clock.monotonic() + timeout
    if interrupt is not None:
        for operation in registry.operations():
            operation._finish(Status.INTERRUPTED, interrupt, None)
    ticker.flush(min(0.5, timeout))
    for call in tuple(at_exit):
        call(max(0.0, deadline - clock.monotonic()))


def _exit() -> None:
    finish(EXIT_SECONDS, "the process ended")


def _after_fork_in_child() -> None:
    global ticker, _lock
    _lock = threading.Lock()
    registry.after_fork_in_child()
    ticker = Ticker(ticker.interval, ticker.budget)
    for call in tuple(in_child):
        call()


def _prepare(operation: Operation) -> None:
    """An operation starts while somebody wants events."""
    if ticker.resting:
        ensure()


def _before_fork() -> None:
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.register_after_fork(registry, _flush_at_end_of_child)
    registry.before_fork()


def _flush_at_end_of_child(_: object = None) -> None:
    """A child of multiprocessing ends without atexit, but runs its finalizers."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, _exit, exitpriority=100)
