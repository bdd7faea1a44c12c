"""A limit of concurrency that follows errors and latency; how its size changes is in `aimd`."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from otel_progress import clock
from otel_progress.api import current
from otel_progress.errors import InvalidArgument, InvalidState
from otel_progress.live import hooks
from otel_progress.model.units import duration
from otel_progress.model.values import NAME_LENGTH, shown
from otel_progress.workflow.aimd import Size
from otel_progress.workflow.machine import Machine
from otel_progress.workflow.needed import needed
from otel_progress.workflow.one_wait import OneWait
from otel_progress.workflow.retry_after import retry_after
from otel_progress.workflow.step import RetryOn, check_errors, is_one_of

if TYPE_CHECKING:
    import anyio
    from anyio.lowlevel import RunVar


class _Use:
    """A use of a place: of which operation, and whether it waits no more."""

    __slots__ = ("inside", "operation_id")

    def __init__(self) -> None:
        """Of the operation that is current here."""
        one = current()
        self.operation_id = None if one is None else one.id
        self.inside = False


class AdaptiveLimit:
    """A limit for `async with` and `with`; `adaptive` makes one.

    The tasks of each event loop, and all threads together, are counted apart: each of them gets all places.
    """

    def __init__(self, start: int, least: int, most: int, name: str, on: RetryOn) -> None:
        """Nothing is in use; see `adaptive`."""
        from anyio.lowlevel import RunVar

        self.name = name
        self._size, self._on = Size(start, least, most), on
        self._of_loop: RunVar[anyio.CapacityLimiter] = RunVar(name)
        self._free = threading.Condition()
        self._threads = 0
        self._queue: deque[_Use] = deque()
        self._uses: dict[tuple[str, int], Any] = {}
        self._paused_until = -math.inf
        self._machine = Machine()
        self._waits = OneWait(self._why)
        hooks.limits.add(self)

    @property
    def size(self) -> int:
        """How many tasks, or threads, it lets through at once now."""
        return self._size.now

    async def __aenter__(self) -> AdaptiveLimit:
        """Wait for a place, and for the end of a pause."""
        use, who = self._in_task(), _task()
        self._arrive(who, use)
        try:
            await use.__aenter__()
        except BaseException:
            del self._uses[who]
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the place back, and learn from how it went."""
        await self._leave(_task()).__aexit__(kind, error, trace)

    def __enter__(self) -> AdaptiveLimit:
        """Wait for a place, and for the end of a pause, in a thread."""
        use, who = self._in_thread(), ("thread", threading.get_ident())
        self._arrive(who, use)
        try:
            use.__enter__()
        except BaseException:
            del self._uses[who]
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the place back, and learn from how it went."""
        self._leave(("thread", threading.get_ident())).__exit__(kind, error, trace)

    def _arrive(self, who: tuple[str, int], use: object) -> None:
        if who in self._uses:  # it would wait for itself
            raise InvalidState(f"this {who[0]} is inside the limit {self.name!r} already")
        self._uses[who] = use

    def _leave(self, who: tuple[str, int]) -> Any:
        if who not in self._uses:
            raise InvalidState(f"this {who[0]} is not inside the limit {self.name!r}: use 'with' or 'async with'")
        return self._uses.pop(who)

    @asynccontextmanager
    async def _in_task(self) -> AsyncIterator[None]:
        import anyio

        use, limiter = _Use(), self._limiter()
        try:
            limiter.acquire_on_behalf_of_nowait(use)
        except anyio.WouldBlock:
            with self._waits.waiting(use.operation_id):
                await limiter.acquire_on_behalf_of(use)
        try:
            if (left := self._pause_left()) > 0:
                with self._waits.waiting(use.operation_id):
                    await anyio.sleep(left)
            with self._judging(use, lambda: limiter.borrowed_tokens):
                yield
        finally:
            limiter.release_on_behalf_of(use)
            limiter.total_tokens = self.size
            if use.inside:
                inside: Any = limiter.statistics().borrowers
                hands_over = any(one.operation_id == use.operation_id for one in inside)
                self._waits.leaves(use.operation_id, hands_over=hands_over)

    @contextmanager
    def _in_thread(self) -> Iterator[None]:
        use = _Use()
        with self._free:
            self._queue.append(use)
            try:
                if not self._is_next(use):
                    with self._waits.waiting(use.operation_id):
                        self._free.wait_for(lambda: self._is_next(use))
                self._threads += 1
            finally:
                self._queue.remove(use)
                self._free.notify_all()
        try:
            if (left := self._pause_left()) > 0:
                with self._waits.waiting(use.operation_id):
                    threading.Event().wait(left)
            with self._judging(use, lambda: self._threads):
                yield
        finally:
            if use.inside:
                self._waits.leaves(use.operation_id, hands_over=True)
            with self._free:
                self._threads -= 1
                self._free.notify_all()  # the size may have grown by more than this one

    def _is_next(self, use: _Use) -> bool:
        """Whether a place is free for a thread that waits, the first in the queue."""
        return self._queue[0] is use and self._threads < self.size

    def _limiter(self) -> anyio.CapacityLimiter:
        """The places of this event loop, as many as there are now."""
        import anyio

        found = self._of_loop.get(None)
        if found is None:
            found = anyio.CapacityLimiter(self.size)
            self._of_loop.set(found)
        found.total_tokens = self.size
        return found

    @contextmanager
    def _judging(self, use: _Use, in_use: Callable[[], int]) -> Iterator[None]:
        """Grow or shrink by how a use goes."""
        began, error = clock.monotonic(), None
        self._waits.works(use.operation_id)
        use.inside = True
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._judge(began, in_use(), error)

    def _judge(self, began: float, in_use: int, error: BaseException | None) -> None:
        now = clock.monotonic()
        with self._free:
            if isinstance(error, Exception) and is_one_of(error, self._on):
                self._paused_until = max(self._paused_until, now + (retry_after(error) or 0.0))
                self._size.had_trouble(began, now)
            elif error is None:
                full = in_use >= self.size and not self._machine.is_busy(now)
                self._size.went_well(began, now, full=full, short=self._machine.is_short_of_memory(now))

    def _pause_left(self) -> float:
        return self._paused_until - clock.monotonic()

    def _why(self) -> str:
        """What those wait for that wait now, in words."""
        left = self._pause_left()
        if left > 0:
            return f"{self.name}: pause of {duration(left)}, as the server asks"
        return f"{self.name}: all {self.size} places are in use"


def _task() -> tuple[str, int]:
    import anyio

    return "task", anyio.get_current_task().id


def adaptive(
    *, start: int = 8, most: int = 64, least: int = 1, name: str = "limit", on: RetryOn = Exception
) -> AdaptiveLimit:
    """Make a limit of concurrency for `async with` and `with` that finds its size itself.

    It starts with `start` places. Each use that ends well while all places are taken adds 1/size of a place; an
    exception, or recent uses that take twice their usual time, take 30% of the places, once for all uses that had begun
    before. An HTTP answer's `Retry-After` pauses all uses. While the machine's processors are busy (95%) it does not
    grow; while memory is short (95%) it shrinks. The tasks of each event loop are counted apart, and so
    are all threads together: a limit that tasks and threads share lets through up to twice its size.

    Args:
        start: Places at the start.
        most: Places at most.
        least: Places at least.
        name: The name, in waits and in the metric `progress.limit.size`; use few values.
        on: Which exceptions mean trouble: a class, several, or a function that decides. All by default.

    Raises:
        InvalidArgument: If not 1 <= least <= start <= most, or an option is no number.
        MissingDependency: If the extra is not installed.

    Example: `adaptive(start=8, most=64, name="search API")`
    """
    needed()
    if any(type(one) is not int for one in (start, most, least)) or not 1 <= least <= start <= most:
        raise InvalidArgument(
            "adaptive() needs whole numbers with 1 <= least <= start <= most, "
            f"not least={shown(least)}, start={shown(start)}, most={shown(most)}"
        )
    if not isinstance(name, str) or not 0 < len(name) <= NAME_LENGTH:
        raise InvalidArgument(f"the name of a limit must be a text that is not empty, not {shown(name)}")
    check_errors("on of adaptive()", on)
    return AdaptiveLimit(start, least, most, name, on)
