"""Listeners: the user's callbacks, called in a thread of their own behind a bounded queue.

A callback that hangs blocks only the other listeners; calls that exceed the queue are dropped and counted.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_progress import forks, semconv
from otel_progress.errors import InvalidState
from otel_progress.live import hooks, misuse
from otel_progress.live.engine import process, runtime
from otel_progress.live.guard import drops, say
from otel_progress.live.reporting import announce
from otel_progress.model.status import Health, Status

if TYPE_CHECKING:
    from otel_progress.live.handle import Callback, OnVerdict
    from otel_progress.live.state import OperationState
    from otel_progress.model.snapshot import Event, Snapshot


_ADDED_BY: Final[dict[str | None, str]] = {semconv.STALLED: "on_stall", semconv.RECOVERED: "on_recover"}
"""The function that adds a listener to one event."""
QUEUE: Final = 10_000
"""Calls that may wait, of all listeners, and of each async one; ends may fill twice as many."""


class Listener:
    """A callback, and the events that it gets."""

    __slots__ = ("_gets_event", "broken", "callback", "only")

    def __init__(self, callback: Callable[..., Any], only: str | None = None) -> None:
        """Decide by its signature what it gets; `only` names the one event that it gets."""
        self.callback: Callable[..., Any] = callback
        self.only = only
        self.broken = False
        self._gets_event = _takes_two(callback)

    def wants(self, event: Event, over: bool = False) -> bool:
        """Whether it gets this event; `over`: its operation has ended.

        Events close together share a snapshot. A callback that gets only snapshots would see the end several times, so
        of an operation that has ended it gets the end only.
        """
        if self.only is not None:
            return self.only == event.name
        return self._gets_event or event.name == semconv.OPERATION_ENDED or not (over or event.snapshot.status.final)

    def tell(self, event: Event) -> None:
        """Call it; an error, even SystemExit, is logged once and counted."""
        try:
            result = self._call(event)
            if inspect.iscoroutine(result):
                result.close()
                raise TypeError("the listener returned a coroutine; add an 'async def' function instead")
        except BaseException:
            self._failed()

    def _call(self, event: Event) -> Any:
        return self.callback(event.snapshot, event) if self._gets_event else self.callback(event.snapshot)

    def _failed(self) -> None:
        drops.add(semconv.DROP_LISTENER_ERROR)
        if not self.broken:
            self.broken = True
            say("listener %r failed; it still gets every change", self.callback, exc_info=True)


class VerdictChange(NamedTuple):
    """The verdict on an operation changed."""

    old: Health
    new: Health
    snapshot: Snapshot
    name: str = "verdict"


class VerdictListener(Listener):
    """A callback for changed verdicts: it gets the old health, the new one, and the snapshot as evidence."""

    __slots__ = ()

    def _call(self, event: Any) -> Any:
        return self.callback(event.old, event.new, event.snapshot)


class AsyncListener(Listener):
    """An async callback, called on the loop where it was added: one event after the other."""

    __slots__ = ("_loop", "_pid", "_queue", "_task")

    def __init__(self, callback: Callable[..., Any], only: str | None = None) -> None:
        """Bind it to the running loop.

        Raises:
            InvalidState: if no loop runs.
        """
        super().__init__(callback, only)
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise InvalidState("an async listener must be added inside the loop on which it should run") from None
        self._pid = os.getpid()
        self._queue: deque[Event] = deque()
        self._task: asyncio.Task[None] | None = None

    def tell(self, event: Event) -> None:
        """Queue the event for its loop, which a forked child does not have."""
        if os.getpid() != self._pid:
            return
        if _is_full(self._queue, event):
            drops.add(semconv.DROP_LISTENER)
            return
        self._queue.append(event)
        try:
            self._loop.call_soon_threadsafe(self._go_on)
        except RuntimeError:  # the loop is closed
            self._queue.clear()
            self._failed()

    def _go_on(self) -> None:
        if self._task is None:
            self._task = self._loop.create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._queue:
                await self._tell_one(self._queue.popleft())
        finally:
            self._task = None

    async def _tell_one(self, event: Event) -> None:
        try:
            await self._call(event)
        except GeneratorExit:
            raise
        except asyncio.CancelledError:
            if _is_cancelled():  # the loop is about to end
                raise
            self._failed()
        except BaseException:  # SystemExit and KeyboardInterrupt would end the loop
            self._failed()


def _is_cancelled() -> bool:
    """Whether this task is being cancelled; Python 3.10 can't distinguish that from a future of the callback."""
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is None or bool(cancelling())


def _takes_two(callback: Callable[..., Any]) -> bool:
    """Whether it requires two arguments; a second one with a default belongs to the callback itself."""
    try:
        parameters = inspect.signature(callback).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(one.kind in positional and one.default is one.empty for one in parameters) >= 2


def _is_full(queue: deque[Any], event: Event) -> bool:
    return len(queue) >= (2 * QUEUE if event.name == semconv.OPERATION_ENDED else QUEUE)


to_all: list[Listener] = []
"""Listeners to the changes of all operations."""
to_all_verdicts: list[Listener] = []
"""Listeners to the verdicts on all operations."""


class Dispatcher:
    """Calls the listeners, in a thread."""

    def __init__(self) -> None:
        """Nothing is queued."""
        self._queue: deque[tuple[Listener, Event]] = deque()
        self._ready = threading.Condition()
        self._thread: threading.Thread | None = None
        self._busy = False

    def put(self, listener: Listener, event: Any) -> None:
        """Queue a call."""
        if _is_full(self._queue, event):
            drops.add(semconv.DROP_LISTENER)
            return
        with self._ready:
            self._queue.append((listener, event))
            self._ready.notify()
            if self._thread is None and process.threads_allowed:
                self._thread = threading.Thread(target=self._run, name="otel-progress-listeners", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            with self._ready:
                self._busy = False
                self._ready.notify_all()
                while not self._queue:
                    self._ready.wait()
                listener, event = self._queue.popleft()
                self._busy = True
            listener.tell(event)

    def drain(self, timeout: float) -> None:
        """Wait until all were called, or call them here if there is no thread."""
        if self._thread is None:
            while self._queue:
                listener, event = self._queue.popleft()
                listener.tell(event)
            return
        with self._ready:
            self._ready.wait_for(lambda: not self._queue and not self._busy, timeout)


dispatcher = Dispatcher()


def listen(callback: Callback, operation: OperationState | None, only: str | None = None) -> Callable[[], None]:
    """Call `callback` on every change of one operation, or of all; returns a function that removes it.

    With `only`, it gets only events of this name.
    """
    if not callable(callback):
        return _refused(_ADDED_BY.get(only, "add_listener"), callback)
    listener = (AsyncListener if _is_async(callback) else Listener)(callback, only)
    if operation is None:
        where = to_all
    else:
        where = operation._listeners = operation._listeners or []
    if tell_all not in hooks.sinks:
        hooks.sinks.append(tell_all)
    return _added(listener, where, operation)


def _added(listener: Listener, where: list[Listener], operation: OperationState | None) -> Callable[[], None]:
    """Add a listener, and have its operation watched; returns a function that removes it."""
    where.append(listener)
    runtime.want()
    if operation is not None and operation._status is Status.RUNNING and not operation._announced:
        announce(operation)

    def remove() -> None:
        if listener in where:
            where.remove(listener)

    return remove


def _refused(call: str, callback: object) -> Callable[[], None]:
    misuse.refused(call, "callback", callback, "a function")
    return lambda: None


class AsyncVerdictListener(AsyncListener):
    """An async callback for changed verdicts."""

    __slots__ = ()

    def _call(self, event: Any) -> Any:
        return self.callback(event.old, event.new, event.snapshot)


def listen_to_verdicts(callback: OnVerdict, operation: OperationState | None) -> Callable[[], None]:
    """Call `callback` on each change of the verdict on one operation, or on all; returns a function that removes it."""
    if not callable(callback):
        return _refused("on_verdict", callback)
    listener = (AsyncVerdictListener if _is_async(callback) else VerdictListener)(callback)
    if operation is None:
        where = to_all_verdicts
    else:
        where = operation._verdict_listeners = operation._verdict_listeners or []
    if tell_verdict not in hooks.verdicts:
        hooks.verdicts.append(tell_verdict)
    return _added(listener, where, operation)


def tell_verdict(about: OperationState, old: Health, new: Health, snapshot: Snapshot) -> None:
    """Queue the calls for a changed verdict; a hook of the ticker."""
    for listener in (*to_all_verdicts, *(about._verdict_listeners or ())):
        dispatcher.put(listener, VerdictChange(old, new, snapshot))


def _is_async(callback: object) -> bool:
    return any(map(inspect.iscoroutinefunction, (callback, getattr(callback, "__call__", None))))


def tell_all(event: Event, operation: OperationState | None) -> None:
    """Queue the calls for an event; a hook of the ticker."""
    over = operation is not None and operation._status.final
    for listener in (*to_all, *((operation._listeners or ()) if operation is not None else ())):
        if listener.wants(event, over):
            dispatcher.put(listener, event)


def after_fork_in_child() -> None:
    """Start anew: the thread is gone, and the queue is the parent's."""
    global dispatcher
    dispatcher = Dispatcher()


def _drain(timeout: float) -> None:
    """Drain the current queue, which is another one in a forked child."""
    dispatcher.drain(timeout)


forks.in_child.append(after_fork_in_child)
process.after_flush.append(_drain)
