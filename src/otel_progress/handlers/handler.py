"""The base of handlers: your own outlet is a class with one method, `handle`."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import TYPE_CHECKING, Any, Final

from otel_progress import clock, semconv
from otel_progress.errors import InvalidArgument
from otel_progress.handlers.mailbox import Mailbox
from otel_progress.handlers.outlet import Outlet
from otel_progress.live.engine import process
from otel_progress.live.guard import drops, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_progress.live.state import OperationState
    from otel_progress.model.snapshot import Event

__all__ = ["CallableHandler", "Handler"]

EXIT_SECONDS: Final = 1.0
"""The longest that `stop()` and the end of the process wait for one handler."""
_ending: Final[list[float]] = []
"""Once the process ends: when it no longer waits for `closed()` of its handlers, by the monotonic clock."""


class Handler(Outlet):
    """Gets the events of every operation of this process; subclass it, and write `handle`.

    Use it with `with`, with `start()` and `stop()`, or by `configure(handlers=[...])`. `handle` runs in a thread of the
    handler, one event at a time, so it may block: the job never waits for it. While it works, updates of one operation
    are merged to the newest; starts, ends, stalls and other changes are kept in order. If more than 1,000 changes wait,
    further ones are dropped and counted, but never an end, a stall or a recovery. An error of `handle` is counted and
    logged once, and the next event is handled as usual. A forked child handles nothing until it starts a handler of its
    own.

    With `items = True` in the class it gets the items of `track(items, label=...)` as well: `progress.item.started` and
    `progress.item.completed`, with the name of the item as the attribute `progress.item`. The ticker sees the item in
    hand four or five times a second; `progress.items.unseen` counts those between that nobody saw.

    `handle` may be `async`; it then runs on an event loop of that thread. `opened` and `closed` are called in the same
    thread, before the first event and after the last one.

    Example:
        ```python
        class Print(Handler):
            def handle(self, event):
                print(event.name, event.snapshot.name)


        with Print():
            work()
        ```
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Name the thread of the class."""
        super().__init_subclass__(**options)
        cls._name = cls.__name__.lower()

    def handle(self, event: Event) -> Any:
        """Take one event, with the snapshot of its operation; what it returns is awaited if it is awaitable."""
        raise NotImplementedError(f"{type(self).__name__} needs a method handle(self, event)")

    def opened(self) -> None:
        """Prepare; called before the first event."""

    def closed(self) -> None:
        """Release what `opened` took; called after the last event, also at the end of the process. It has a second."""

    def pause(self, seconds: float) -> bool:
        """Wait, as between two tries; returns false at once if the handler is to end. Only `handle` may call it."""
        with self._ready:
            return not self._ready.wait_for(lambda: self._ends, seconds)

    # -- life cycle

    def _begin(self) -> None:
        self._mailbox, self._ready = Mailbox(), threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._busy = self._is_open = self._ends = self._hangs = False
        _ending.clear()
        self._failed: set[str] = set()

    def _finish(self) -> None:
        self._leave()
        self._let_end()
        thread, self._thread = self._thread, None
        if thread is None:
            self._close()
        elif thread is not threading.current_thread():
            thread.join(EXIT_SECONDS)
            if thread.is_alive():
                say("%s did not take all events within a second; what waits is lost", self._shown)

    def _exit(self, left: float) -> None:
        """Wait until the handler took what waits; the process ends without it if it takes too long."""
        if self._thread is not None:
            with self._ready:
                self._hangs = not self._ready.wait_for(
                    lambda: not self._busy and not len(self._mailbox), min(left, EXIT_SECONDS)
                )

    def _let_end(self) -> None:
        with self._ready:
            self._ends = True
            self._ready.notify_all()

    def _places(self) -> tuple[tuple[list[Any], Any], ...]:
        return (*super()._places(), (process.at_last, self._close_at_last))

    def _close_at_last(self, surely_ends: bool) -> None:
        """Call `closed` at the end of the process; all handlers share the second that it waits, and end at once."""
        if not surely_ends:
            return
        if not _ending:
            _ending.append(clock.monotonic() + EXIT_SECONDS)
        for call in tuple(process.at_last):
            other = getattr(call, "__self__", None)
            if isinstance(other, Handler):
                other._let_end()  # noqa: SLF001  # of this class
        thread = self._thread
        if thread is None:
            self._close()
        elif not self._hangs:
            thread.join(max(0.0, _ending[0] - clock.monotonic()))
            if not thread.is_alive():
                self._thread = None  # what other exit handlers still do is handled in the ticker's thread

    @property
    def _shown(self) -> str:
        return f"the handler {type(self).__name__}"

    # -- from the ticker to the handler

    def _take(self, event: Event, _: OperationState) -> None:
        """Queue an event; called by the ticker, which must not wait."""
        if self._thread is None:
            self._give(event)
            return
        with self._ready:
            if not self._mailbox.put(event):
                drops.add(semconv.DROP_LISTENER)
            self._ready.notify_all()

    def _run(self) -> None:
        while (event := self._next()) is not None:
            self._give(event)
        self._close()
        with self._ready:
            self._busy = False
            self._ready.notify_all()

    def _next(self) -> Event | None:
        """Wait for an event; None at the end."""
        with self._ready:
            self._busy = False
            self._ready.notify_all()
            self._ready.wait_for(lambda: self._ends or len(self._mailbox))
            self._busy = True
            return self._mailbox.take()

    def _give(self, event: Event) -> None:
        if not self._is_open:
            self._is_open = True
            self._guarded(self.opened)
        self._guarded(self.handle, event)

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._guarded(self.closed)
        if self._loop is not None:
            self._loop.close()
            self._loop = None

    def _guarded(self, call: Callable[..., Any], *args: Any) -> None:
        """Call a method of the handler; errors are counted and logged once for each method."""
        try:
            result = call(*args)
            if inspect.isawaitable(result):
                self._await(result)
        except BaseException:
            drops.add(semconv.DROP_LISTENER_ERROR)
            if call.__name__ not in self._failed:
                self._failed.add(call.__name__)
                say("%s failed in %s(); it still gets every event", self._shown, call.__name__, exc_info=True)

    def _await(self, result: Any) -> None:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(_of(result))


async def _of(result: Any) -> Any:
    return await result


class CallableHandler(Handler):
    """Passes every event to a function, or to the method `handle` of any object."""

    def __init__(self, target: Any) -> None:
        """Wrap it.

        Raises:
            InvalidArgument: if it has no `handle`, and can't be called.
        """
        found = getattr(target, "handle", target)
        if isinstance(target, type) or not callable(found):
            raise InvalidArgument(
                f"a handler must be a Handler, the name of one, an object with handle(event), or a function of an "
                f"event, not {target!r}" + (" (make an object of this class)" if isinstance(target, type) else "")
            )
        self._target = target
        self.items = bool(getattr(target, "items", False))
        self._call = found

    @property
    def _shown(self) -> str:
        return f"the handler {getattr(self._target, '__qualname__', type(self._target).__name__)}"

    def handle(self, event: Event) -> Any:
        """Pass it on."""
        return self._call(event)
