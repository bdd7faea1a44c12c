"""Callbacks of the user, in a thread of their own behind a bounded queue.

One that hangs stops only the other listeners; what then no longer fits the queue is counted.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from otel_progress import semconv
from otel_progress.errors import InvalidState
from otel_progress.live import hooks
from otel_progress.live.drops import drops
from otel_progress.live.engine import runtime
from otel_progress.model.status import Status

if TYPE_CHECKING:
    from otel_progress.live.operation import Operation
    from otel_progress.model.snapshot import Event, Snapshot

log = logging.getLogger("otel_progress")
QUEUE: Final = 10_000


class Listener:
    """A callback, and the loop it belongs to if it is async."""

    __slots__ = ("broken", "callback", "loop", "only")

    def __init__(self, callback: Callable[[Snapshot], object], only: str | None = None) -> None:
        """Take the loop of here along for an async callback; `only` is the one event that it is told of."""
        self.callback = callback
        self.only = only
        self.loop: asyncio.AbstractEventLoop | None = None
        self.broken = False
        if inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(getattr(callback, "__call__", None)):
            try:
                self.loop = asyncio.get_running_loop()
            except RuntimeError:
                raise InvalidState("an async listener must be added inside the loop on which it should run") from None

    def tell(self, snapshot: Snapshot) -> None:
        """Call it; what it raises is logged once and counted."""
        try:
            if self.loop is None:
                result = self.callback(snapshot)
                if inspect.iscoroutine(result):
                    result.close()
                    raise TypeError("the listener returned a coroutine; add an 'async def' function instead")
            else:
                self.loop.call_soon_threadsafe(self._spawn, snapshot)
        except Exception:
            self._failed()

    def _spawn(self, snapshot: Snapshot) -> None:
        assert self.loop is not None
        task = self.loop.create_task(self._run(snapshot))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    async def _run(self, snapshot: Snapshot) -> None:
        try:
            result: Any = self.callback(snapshot)
            await result
        except Exception:
            self._failed()

    def _failed(self) -> None:
        drops.add(semconv.DROP_LISTENER_ERROR)
        if not self.broken:
            self.broken = True
            log.warning("listener %r failed; it is told of every change all the same", self.callback, exc_info=True)


_tasks: set[asyncio.Task[None]] = set()
_all: list[Listener] = []


class Teller:
    """The thread that calls the listeners."""

    def __init__(self) -> None:
        """Nothing to tell yet."""
        self._queue: deque[tuple[Listener, Snapshot]] = deque()
        self._ready = threading.Condition()
        self._thread: threading.Thread | None = None
        self._busy = False

    def put(self, listener: Listener, snapshot: Snapshot) -> None:
        """Queue a call."""
        if len(self._queue) >= QUEUE:
            drops.add(semconv.DROP_LISTENER)
            return
        with self._ready:
            self._queue.append((listener, snapshot))
            self._ready.notify()
            if self._thread is None and runtime.threads_allowed:
                self._thread = threading.Thread(target=self._run, name="otel-progress-listeners", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            with self._ready:
                self._busy = False
                self._ready.notify_all()
                while not self._queue:
                    self._ready.wait()
                listener, snapshot = self._queue.popleft()
                self._busy = True
            listener.tell(snapshot)

    def drain(self, timeout: float) -> None:
        """Wait until all were told, or call them here where there is no thread."""
        if self._thread is None:
            while self._queue:
                listener, snapshot = self._queue.popleft()
                listener.tell(snapshot)
            return
        with self._ready:
            self._ready.wait_for(lambda: not self._queue and not self._busy, timeout)


teller = Teller()


def listen(
    callback: Callable[[Snapshot], object], operation: Operation | None, only: str | None = None
) -> Callable[[], None]:
    """Tell the callback of every change of one operation, or of all; returns what takes it out again.

    With `only`, it is told of the changes with this event's name alone.
    """
    listener = Listener(callback, only)
    if operation is None:
        where = _all
    else:
        where = operation._listeners = operation._listeners or []
    where.append(listener)
    if tell_all not in hooks.sinks:
        hooks.sinks.append(tell_all)
    runtime.want()
    if operation is not None and operation._status is Status.RUNNING and not operation._seen_by_ticker:
        operation._announce()

    def remove() -> None:
        if listener in where:
            where.remove(listener)

    return remove


def tell_all(event: Event, operation: Operation | None) -> None:
    """The sink of the ticker."""
    for listener in (*_all, *((operation._listeners or ()) if operation is not None else ())):
        if listener.only is None or listener.only == event.name:
            teller.put(listener, event.snapshot)


def after_fork_in_child() -> None:
    """The thread is gone, and what was queued is the parent's."""
    global teller
    teller = Teller()


def _drain(timeout: float) -> None:
    """Of the teller of now, which is another one in a forked child."""
    teller.drain(timeout)


runtime.in_child.append(after_fork_in_child)
runtime.after_flush.append(_drain)
