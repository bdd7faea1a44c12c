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

from otel_progress import clock, forks
from otel_progress.live import context, hooks
from otel_progress.live.diagnosis import vitals
from otel_progress.live.diagnosis.loop_lag import Lag
from otel_progress.live.diagnosis.places import here
from otel_progress.live.engine import learning
from otel_progress.live.engine.children import Termination
from otel_progress.live.engine.ticker import Ticker
from otel_progress.live.guard import tell_once
from otel_progress.live.registry import FORK_WAIT, registry
from otel_progress.model.status import Status

if TYPE_CHECKING:
    from otel_progress.live.operation import Operation

EXIT_SECONDS: Final = 2.0
"""The most that the end of the process waits for, in all."""

ticker = Ticker()
threads_allowed = True
"""False under the fake clock, where a test turns the crank."""

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

lag = Lag()
loops: weakref.WeakSet[Any] = weakref.WeakSet()
"""The event loops on which operations started; the heartbeat asks how late they are."""

parking = threading.Lock()
"""Held by our threads while they may hold locks of the SDK; a fork waits for it, 50 ms at the most."""

_lock = threading.RLock()
_hooked = False
_parked_by: int | None = None
_finalized = False
_waited = 0.0
"""How long the end of the process was held up already, by SIGTERM or a finalizer."""


def want() -> None:
    """Somebody takes events from now on."""
    hooks.wanted = True
    _hook()
    if _prepare not in hooks.on_operation:
        hooks.on_operation.insert(0, _prepare)
    around = []
    here = context.running_here()
    while here is not None:
        if here.operation is here and here._alive:
            around.append(here.operation)
        here = here._parent
    for operation in reversed(around):
        if not operation._seen_by_ticker:
            operation._announce()
    if registry.live or registry.pending:
        ensure()


def unwant() -> None:
    """Somebody takes events no longer; with nobody left, operations report nothing."""
    hooks.wanted = bool(hooks.sinks or hooks.on_change or hooks.verdicts)


def ensure() -> None:
    """Run the ticker, and hook into fork and exit."""
    _hook()
    with _lock:
        if threads_allowed:
            ticker.start()


hooks.on_expect = ensure


def _hook() -> None:
    """Hear of forks and of the end, from now on."""
    global _hooked
    with _lock:
        if _hooked:
            return
        _hooked = True
    if registry.pid != os.getpid():
        registry.after_fork_in_child()  # nobody heard of that fork
    vitals.prepare()
    atexit.register(_exit)
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        _begin_child()


def rest() -> None:
    """Nobody takes events any more: let the ticker's thread end."""
    global ticker
    with _lock:
        if not hooks.wanted:
            ticker.stop()
            ticker = Ticker(ticker.interval, ticker.budget)


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
            registry.free(timeout / 8)
            for operation in registry.operations():
                operation._finish(Status.INTERRUPTED, interrupt, None)
        if not ticker.resting or registry.live or registry.changes or not threads_allowed:
            ticker.hurries = True
            try:
                ticker.round(sample=True)
            finally:
                ticker.hurries = False
        learning.learning.finish(timeout / 8)
        for call in tuple(at_exit):
            call(max(0.0, deadline - clock.monotonic()))
        for call in tuple(after_flush):
            call(max(0.0, deadline - clock.monotonic()))

    return ticker.ask(last_round, timeout)


def finish_process(interrupt: str, *, final: bool = False) -> None:
    """The process ends: running operations end as interrupted; all calls of this together wait 2 s at the most.

    `final` says that it surely ends; a signal handler can't know.
    """
    global _waited
    since = clock.monotonic()
    finish(max(0.1, EXIT_SECONDS - _waited), interrupt)
    _waited += clock.monotonic() - since
    for call in tuple(at_last):
        call(final)


def hand_over(timeout: float) -> bool:
    """Have all that was reported sent, within so many seconds; operations go on. A signal handler may call this."""
    deadline = clock.monotonic() + timeout

    def send() -> None:
        ticker.round()
        for call in (*in_haste, *at_exit):
            call(max(0.0, deadline - clock.monotonic()))

    return ticker.running and ticker.ask(send, timeout)


def _wake() -> None:
    ticker.wake()


def _all_sent() -> bool:
    """Whether all that was reported was sent."""
    return not registry.changes and not parking.locked() and all(sent() for sent in tuple(all_sent))


termination = Termination(_wake, hand_over, _all_sent)


def _exit() -> None:
    finish_process("the process ended", final=True)


def _before_fork() -> None:
    global _parked_by
    _flush_children()
    termination.disarm()
    deadline = clock.monotonic() + FORK_WAIT
    if parking.acquire(timeout=FORK_WAIT):
        _parked_by = threading.get_ident()
    for call in tuple(forks.before):
        call()
    registry.before_fork(max(0.0, deadline - clock.monotonic()))


def _after_fork_in_parent() -> None:
    global _parked_by
    registry.after_fork_in_parent()
    for call in tuple(forks.after):
        call()
    if _parked_by == threading.get_ident():
        _parked_by = None
        parking.release()


def _after_fork_in_child() -> None:
    global ticker, termination, lag, _lock, parking, _parked_by, _finalized, _waited
    termination.close()
    termination = Termination(_wake, hand_over, _all_sent)
    hooks.on_end = hooks.nobody
    lag = Lag()
    _lock, parking = threading.RLock(), threading.Lock()
    _parked_by, _finalized, _waited = None, False, 0.0
    loops.clear()
    learning.learning.after_fork_in_child()
    registry.after_fork_in_child()
    ticker = Ticker(ticker.interval, ticker.budget)
    for call in tuple(forks.in_child):
        try:
            call()
        except Exception:
            tell_once("a part of the telemetry could not be set up in a forked child; the job goes on")


def _prepare(operation: Operation) -> None:
    """An operation starts while somebody wants events."""
    operation._place = here()
    termination.started()
    if ticker.resting:
        ensure()
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        loop = asyncio._get_running_loop()
        if loop is not None:
            loops.add(loop)


_children_flush = False


def _flush_children() -> None:
    """Have children of multiprocessing hand over what ends in them, and flush at their end."""
    global _children_flush
    util = sys.modules.get("multiprocessing.util")
    if util is not None and not _children_flush:
        _children_flush = True
        util.register_after_fork(registry, _begin_child)


def _begin_child(_: object = None) -> None:
    """This is a child of multiprocessing: it ends by SIGTERM, or without atexit, but runs its finalizers."""
    global _finalized
    termination.begin()
    util = sys.modules.get("multiprocessing.util")
    if util is not None and not _finalized:
        _finalized = True
        util.Finalize(None, _exit, exitpriority=100)
