"""The runtime: starts the ticker, and runs the hooks at a fork and at the end of the process.

Nothing starts before events are wanted and an operation starts (or `configure` is called).
"""

from __future__ import annotations

import atexit
import importlib
import os
import sys
import threading
from typing import TYPE_CHECKING, Final

from otel_progress import clock, forks, settings
from otel_progress.live import context, crashes, hooks, misuse
from otel_progress.live.diagnosis import places, vitals
from otel_progress.live.diagnosis.places import here
from otel_progress.live.engine import learning, own_threads, process, raw_exit, resources
from otel_progress.live.engine.cadence import cadence
from otel_progress.live.engine.termination import Termination
from otel_progress.live.engine.ticker import FOREVER, Ticker
from otel_progress.live.guard import tell_once
from otel_progress.live.outcome import ending, words
from otel_progress.live.registry import FORK_WAIT, registry
from otel_progress.live.reporting import announce
from otel_progress.model.status import Status

if TYPE_CHECKING:
    from otel_progress.live.state import OperationState

EXIT_SECONDS: Final = 2.0
"""Seconds that the end of the process waits in all, at most."""

END_SHARE: Final = 0.35
"""The share of the time at the end in which running operations are ended as interrupted."""
EMIT_SHARE: Final = 0.5
"""The share of the time that is left in which a round at the end emits; the rest is for sending."""
AGAIN_SECONDS: Final = 0.1
"""Seconds that must be left for one more round at the end."""
ENDED: Final = "the process ended"
INTERRUPTS: Final = 50
"""Operations that are ended as interrupted between two looks at the clock."""

ticker = Ticker()
_lock = threading.RLock()
_hooked = False
_parked_by: int | None = None
_finalized = False
_waited = 0.0
"""Seconds that the end of the process already waited, in a SIGTERM handler or a finalizer."""


def want() -> None:
    """Events are wanted from now on."""
    hooks.wanted = True
    learning.use_named()
    _hook()
    if _prepare not in hooks.on_operation:
        hooks.on_operation.insert(0, _prepare)
    around = []
    here = context.running_here()
    while here is not None:
        if here.operation is here and context.is_alive(here):
            around.append(here.operation)
        here = here._parent
    for operation in reversed(around):
        if not operation._announced:
            announce(operation)
    if registry.live or registry.pending or hooks.watcher is not None:
        ensure()


def unwant() -> None:
    """A consumer of events is gone; without any, and without a named history, operations report nothing."""
    consumers = hooks.sinks or hooks.paced_sinks or hooks.on_change or hooks.verdicts
    hooks.wanted = bool(consumers) or settings.history_file() is not None


def ensure() -> None:
    """Start the ticker, and install the hooks for fork and exit."""
    _hook()
    with _lock:
        if process.threads_allowed:
            ticker.start()


hooks.on_expect = ensure


def _hook() -> None:
    """Install the hooks for fork and exit."""
    global _hooked
    with _lock:
        if _hooked:
            return
        _hooked = True
    if registry.pid != os.getpid():
        registry.after_fork_in_child()  # that fork happened before the hooks
    vitals.prepare()
    atexit.register(_exit)
    raw_exit.watch(_leave)
    if settings.run_endpoint():  # below `run`: the program may know nothing of us
        own_threads.hide()
    # Python calls hooks of a child in the order of registration, and ours uses a pool: its lock must be free by then.
    importlib.import_module("concurrent.futures.thread")
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_before_fork,
            after_in_parent=_after_fork_in_parent,
            after_in_child=_after_fork_in_child,
        )
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        _begin_child()


def rest() -> None:
    """Let the ticker's thread end if events are no longer wanted."""
    global ticker
    with _lock:
        if not hooks.wanted:
            registry.changes.clear()  # nobody is left who would take them
            ticker.stop()
            ticker = Ticker(ticker.interval, ticker.budget.rate)


def set_pace(interval: float, budget: float, keyframe_interval: float, update_interval: float | None) -> None:
    """Send changes of state within `interval` (s), at most `budget` rationed events a second, keyframes this often.

    Plain updates of an operation wait `update_interval` seconds, or if that is None a share of its age.
    """
    ticker.interval, ticker.budget.rate, cadence.fixed = interval, budget, update_interval
    ticker.keyframe_interval = keyframe_interval


def finish(timeout: float, interrupt: str | None = None) -> bool:
    """Report and send everything within `timeout` seconds; with `interrupt` as the reason, end running operations.

    The ticker does the work and this only waits, without a lock, so that a signal handler may call it. What there is
    no time for stays in the registry, whose `unreported` counts it.
    """
    began = clock.monotonic()
    deadline = began + timeout

    def last_round() -> None:
        try:
            if interrupt is not None:
                registry.free(timeout / 8)
                _interrupt_all(interrupt, began + END_SHARE * timeout)
            if not ticker.resting or registry.live or registry.changes or not process.threads_allowed:
                ticker.hurries = True
                _emit_all(deadline)
        finally:
            ticker.hurries = False
            ticker.emit_until = FOREVER
        learning.learning.finish(timeout / 8)
        for call in tuple(process.at_exit):
            call(max(0.0, deadline - clock.monotonic()))
        for call in tuple(process.after_flush):
            call(max(0.0, deadline - clock.monotonic()))

    ticker.emit_until = began  # a round that runs now leaves the rest to the last one
    return ticker.ask(last_round, timeout)


def _emit_all(deadline: float) -> None:
    """Emit all changes, in rounds with sending between them, as many as there is time for."""
    while True:
        now = clock.monotonic()
        ticker.emit_until = now + EMIT_SHARE * max(0.0, deadline - now)
        ticker.round(sample=True)
        if not registry.changes or deadline - clock.monotonic() < AGAIN_SECONDS:
            return
        for call in tuple(process.in_haste):
            call(max(0.0, deadline - clock.monotonic()))


def _interrupt_all(reason: str, deadline: float) -> None:
    """End running operations as interrupted, as many as there is time for; what they report goes first.

    What only integrations see has failed where an exception ends the process: nobody else says so.

    Short operations that ended before, and wait to be reported, may be thousands. Called in the ticker's thread.
    """
    interrupted = set()
    error = crashes.uncaught() if reason == ENDED else None
    process.interrupts = True
    try:
        for number, operation in enumerate(registry.operations(), 1):
            if error is not None and operation._observed:
                operation._finish(ending(error), words(error), error)
            else:
                operation._finish(Status.INTERRUPTED, reason, None)
            interrupted.add(operation)
            if number % INTERRUPTS == 0 and clock.monotonic() >= deadline:
                break
    finally:
        process.interrupts = False
    changes = registry.changes
    waiting = [changes.popleft() for _ in range(len(changes))]
    waiting.sort(key=lambda change: change[1] not in interrupted)
    changes.extendleft(reversed(waiting))


def finish_process(interrupt: str, *, final: bool = False) -> None:
    """End running operations as interrupted, as the process ends; all calls together wait at most 2 s.

    `final` says that the process surely ends; a signal handler can't know.
    """
    global _waited
    since = clock.monotonic()
    if final:
        _tell_ends((EXIT_SECONDS - _waited) / 2)
        _waited += clock.monotonic() - since
        since = clock.monotonic()
    finish(max(0.1, EXIT_SECONDS - _waited), interrupt)
    _waited += clock.monotonic() - since
    for call in tuple(process.at_last):
        call(final)


def hand_over(timeout: float) -> bool:
    """Send what was reported within `timeout` seconds; operations continue. A signal handler may call this."""
    deadline = clock.monotonic() + timeout

    def send() -> None:
        ticker.emit_until = clock.monotonic() + EMIT_SHARE * max(0.0, deadline - clock.monotonic())
        try:
            ticker.round()
        finally:
            ticker.emit_until = FOREVER
        for call in (*process.in_haste, *process.at_exit):
            call(max(0.0, deadline - clock.monotonic()))

    return ticker.running and ticker.ask(send, timeout)


def _wake() -> None:
    ticker.wake()


def _all_sent() -> bool:
    """Whether everything reported was sent."""
    return not registry.changes and not process.parking.locked() and all(sent() for sent in tuple(process.all_sent))


termination = Termination(_wake, hand_over, _all_sent)


def _exit() -> None:
    finish_process(ENDED, final=True)


def _exit_of_child() -> None:
    crashes.child_ends()
    _exit()


def _tell_ends(timeout: float) -> None:
    """Have what ended say so."""
    for call in tuple(hooks.on_process_end):
        try:
            call(max(0.0, timeout))
        except Exception:
            tell_once("what ended just before the process could not be told")


def _leave(timeout: float) -> None:
    """The process ends by `os._exit`, or executes another program: send what ended; what runs is left open."""
    if registry.pid != os.getpid():
        return
    deadline = clock.monotonic() + timeout
    _tell_ends(timeout / 2)
    if not _all_sent():
        hand_over(max(0.0, deadline - clock.monotonic()))


def _before_fork() -> None:
    global _parked_by
    _flush_children()
    termination.disarm()
    deadline = clock.monotonic() + FORK_WAIT
    if process.parking.acquire(timeout=FORK_WAIT):
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
        process.parking.release()


def _after_fork_in_child() -> None:
    global ticker, termination, _lock, _parked_by, _finalized, _waited
    termination.close()
    termination = Termination(_wake, hand_over, _all_sent)
    hooks.on_end = hooks.nobody
    process.after_fork_in_child()
    _lock = threading.RLock()
    _parked_by, _finalized, _waited = None, False, 0.0
    learning.learning.after_fork_in_child()
    resources.forget()
    registry.after_fork_in_child()
    if hooks.watcher is not None:
        hooks.watcher.forget()
    ticker = Ticker(ticker.interval, ticker.budget.rate)
    for call in tuple(forks.in_child):
        try:
            call()
        except Exception:
            tell_once("a part of the telemetry could not be set up in a forked child; the job goes on")


def _prepare(operation: OperationState) -> None:
    """Prepare the start of an operation whose events are wanted."""
    operation._place = here()
    if "gevent" in sys.modules and places.are_shared():
        misuse.warn_of(
            "gevent",
            "patched late",
            "gevent replaced the threads of Python after otel_progress was imported, so operations may not be seen "
            "while they run; call gevent.monkey.patch_all() before any other import",
        )
    termination.started()
    if ticker.resting:
        ensure()
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        loop = asyncio._get_running_loop()
        if loop is not None:
            process.loops.add(loop)


_children_flush = False


def _flush_children() -> None:
    """Have children of multiprocessing hand over the ends of operations, and flush at their own end."""
    global _children_flush
    util = sys.modules.get("multiprocessing.util")
    if util is not None and not _children_flush:
        _children_flush = True
        util.register_after_fork(registry, _begin_child)


def _begin_child(_: object = None) -> None:
    """Set up a child of multiprocessing: it ends by SIGTERM or without atexit, but runs finalizers."""
    global _finalized
    termination.begin()
    util = sys.modules.get("multiprocessing.util")
    if util is not None and not _finalized:
        _finalized = True
        util.Finalize(None, _exit_of_child, exitpriority=100)
