"""A limit of concurrency that follows errors and latency: it grows slowly while all is well, else shrinks at once.

This is AIMD (additive increase, multiplicative decrease: Chiu and Jain, 1989), as TCP does it.
"""

from __future__ import annotations

import math
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from otel_progress import clock
from otel_progress.api import current
from otel_progress.errors import InvalidArgument, InvalidState
from otel_progress.live import hooks
from otel_progress.model.units import duration
from otel_progress.model.values import NAME_LENGTH, shown
from otel_progress.workflow.machine import Machine
from otel_progress.workflow.needed import needed
from otel_progress.workflow.one_wait import OneWait
from otel_progress.workflow.retry_after import retry_after
from otel_progress.workflow.step import RetryOn, check_errors, is_one_of

if TYPE_CHECKING:
    import anyio
    from anyio.lowlevel import RunVar

SHRINK: Final = 0.7
"""What is left of the size after trouble."""
SLOWER: Final = 2.0
"""The limit shrinks when recent uses take this many times the usual time."""
RECENT, USUAL = 0.2, 0.02
"""Weights of the newest use in the averages of recent and of usual times."""
LEARN: Final = 20
"""Uses before times are judged."""


class _Use:
    """A task or thread at the limit: its operation, and since when it is inside."""

    __slots__ = ("operation_id", "since")

    def __init__(self) -> None:
        """Of the operation that is current here."""
        one = current()
        self.operation_id = None if one is None else one.id
        self.since = 0.0


class AdaptiveLimit:
    """A limit for `async with` and `with`; `adaptive` makes one.

    The tasks of each event loop, and all threads together, are counted apart: each of them gets all places.
    """

    def __init__(self, start: int, least: int, most: int, name: str, on: RetryOn) -> None:
        """Nothing is in use; see `adaptive`."""
        from anyio.lowlevel import RunVar

        self.name = name
        self._size, self._least, self._most, self._on = float(start), least, most, on
        self._of_loop: RunVar[anyio.CapacityLimiter] = RunVar(name)
        self._free = threading.Condition()
        self._threads = 0
        self._uses: dict[tuple[str, int], _Use] = {}
        self._paused_until = self._shrunk_at = -math.inf
        self._judged, self._recent, self._usual = 0, 0.0, 0.0
        self._machine = Machine()
        self._waits = OneWait(self._why)
        hooks.limits.add(self)

    @property
    def size(self) -> int:
        """How many tasks, or threads, it lets through at once now."""
        return int(self._size)

    async def __aenter__(self) -> AdaptiveLimit:
        """Wait for a place, and for the end of a pause."""
        import anyio

        limiter, use = self._limiter(), self._arrive(("task", anyio.get_current_task().id))
        try:
            try:
                limiter.acquire_on_behalf_of_nowait(use)
            except anyio.WouldBlock:
                with self._waits.waiting(use.operation_id):
                    await limiter.acquire_on_behalf_of(use)
            if (left := self._pause_left()) > 0:
                with self._waits.waiting(use.operation_id):
                    await anyio.sleep(left)
        except BaseException:
            del self._uses["task", anyio.get_current_task().id]
            if use in limiter.statistics().borrowers:
                limiter.release_on_behalf_of(use)
            raise
        self._begin(use)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the place back, and learn from how it went."""
        import anyio

        limiter, use = self._limiter(), self._uses.pop(("task", anyio.get_current_task().id))
        self._judge(use, limiter.borrowed_tokens, error)
        limiter.release_on_behalf_of(use)
        limiter.total_tokens = self.size
        inside: Any = limiter.statistics().borrowers
        hands_over = any(one.operation_id == use.operation_id for one in inside)
        self._waits.leaves(use.operation_id, hands_over=hands_over)

    def _limiter(self) -> anyio.CapacityLimiter:
        """The places of this event loop, as many as there are now."""
        import anyio

        found = self._of_loop.get(None)
        if found is None:
            found = anyio.CapacityLimiter(self.size)
            self._of_loop.set(found)
        found.total_tokens = self.size
        return found

    def __enter__(self) -> AdaptiveLimit:
        """Wait for a place, and for the end of a pause, in a thread."""
        use = self._arrive(("thread", threading.get_ident()))
        inside = False
        try:
            with self._free:
                if self._threads >= self.size:
                    with self._waits.waiting(use.operation_id):
                        self._free.wait_for(lambda: self._threads < self.size)
                self._threads += 1
                inside = True
            if (left := self._pause_left()) > 0:
                with self._waits.waiting(use.operation_id):
                    threading.Event().wait(left)
        except BaseException:
            del self._uses["thread", threading.get_ident()]
            if inside:
                self._leave()
            raise
        self._begin(use)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the place back, and learn from how it went."""
        use = self._uses.pop(("thread", threading.get_ident()))
        self._judge(use, self._threads, error)
        self._waits.leaves(use.operation_id, hands_over=True)
        self._leave()

    def _leave(self) -> None:
        with self._free:
            self._threads -= 1
            self._free.notify_all()  # the size may have grown by more than this one

    def _arrive(self, who: tuple[str, int]) -> _Use:
        """Remember who comes.

        Raises:
            InvalidState: If it is inside already: it would wait for itself.
        """
        if who in self._uses:
            raise InvalidState(f"this {who[0]} is inside the limit {self.name!r} already")
        use = self._uses[who] = _Use()
        return use

    def _begin(self, use: _Use) -> None:
        use.since = clock.monotonic()
        self._waits.works(use.operation_id)

    # -- what it learns

    def _judge(self, use: _Use, in_use: int, error: BaseException | None) -> None:
        """Grow or shrink by how a use went, with so many in use at its end."""
        now = clock.monotonic()
        with self._free:
            if isinstance(error, Exception) and is_one_of(error, self._on):
                self._paused_until = max(self._paused_until, now + (retry_after(error) or 0.0))
                self._shrink(use, now)
            elif error is None:
                self._learn(now - use.since)
                slower = self._judged > LEARN and self._recent > SLOWER * self._usual
                if slower or self._machine.is_short_of_memory(now):
                    self._shrink(use, now)
                elif in_use >= self.size and not self._machine.is_busy(now):
                    self._size = min(float(self._most), self._size + 1 / self._size)

    def _shrink(self, use: _Use, now: float) -> None:
        """Shrink, once for all uses that had begun before: they tell of the same trouble."""
        if use.since > self._shrunk_at:
            self._shrunk_at = now
            self._size = max(float(self._least), self._size * SHRINK)

    def _learn(self, seconds: float) -> None:
        self._judged += 1
        self._recent += (seconds - self._recent) * max(RECENT, 1 / self._judged)
        self._usual += (seconds - self._usual) * max(USUAL, 1 / self._judged)

    def _pause_left(self) -> float:
        return self._paused_until - clock.monotonic()

    def _why(self) -> str:
        """What those wait for that wait now, in words."""
        left = self._pause_left()
        if left > 0:
            return f"{self.name}: pause of {duration(left)}, as the server asks"
        return f"{self.name}: all {self.size} places are in use"


def adaptive(
    *, start: int = 8, most: int = 64, least: int = 1, name: str = "limit", on: RetryOn = Exception
) -> AdaptiveLimit:
    """Make a limit of concurrency for `async with` and `with` that finds its size itself.

    It starts with `start` places. Each use that ends well while all places are taken adds 1/size of a place; an
    exception, or recent uses that take twice their usual time, take 30% of the places, once for all uses that had begun
    before. An HTTP answer's `Retry-After` pauses all uses. While the machine's processors are busy (95%) it does not
    grow; while memory is short (95%) it shrinks.

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
