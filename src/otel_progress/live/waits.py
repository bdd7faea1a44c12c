"""Declared waits: for a human, a rate limit, a child, a back-off."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from otel_progress import clock, semconv
from otel_progress.live import short_waits, standstill
from otel_progress.live.branches import Lookup, paused_since, touch_lanes
from otel_progress.live.diagnosis.places import here
from otel_progress.live.guard import NOTHING_LEFT, drops, swallow
from otel_progress.live.records import DeclaredWait
from otel_progress.live.reporting import report, tell_agent
from otel_progress.live.running import touch
from otel_progress.model import values
from otel_progress.model.values import Attributes, Value

if TYPE_CHECKING:
    from otel_progress.live.state import HandleState


class Waiting(DeclaredWait):
    """A wait of an operation or a stage, for `with` or `async with`; it may be entered once."""

    __slots__ = ("_node",)

    def __init__(self, node: HandleState | None, reason: str, overdue_after: float | None) -> None:
        """A wait that has not begun; without a node it does nothing."""
        known = None if overdue_after is None else values.number(overdue_after, drops)
        super().__init__(reason, float(known) if known is not None and known > 0 else None)
        self._node = node

    def __enter__(self) -> Waiting:
        """Begin the wait."""
        try:
            self._begin()
        except BaseException as error:
            try:
                swallow(error, "waiting")
            except NOTHING_LEFT:
                pass
            except BaseException:  # a signal handler's: the block is never entered
                self.__exit__(None, None, None)
                raise
        return self

    def _begin(self) -> None:
        node = self._node
        if node is None:
            return
        self.since = clock.monotonic()
        self.place = here()
        self.is_folded = short_waits.is_folded(node.operation, self.reason)
        if node._waits is None:
            node._waits = []
        node._waits.append(self)
        vars(node.operation).setdefault("_pauses", {})[self] = node
        node.operation._counts_until = 0.0
        if node.operation._session is not None:
            node.operation._session.flush()
        tell_agent(node.operation, semconv.GEN_AI_PAUSED)
        if not self.is_folded:
            report(semconv.WAIT_STARTED, node, Attributes({semconv.WAIT_REASON: self.reason}))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the wait; the idle time restarts at zero."""
        try:
            self._end()
        except BaseException as broken:
            waits = None if self._node is None else self._node._waits
            if waits and self in waits:
                waits.remove(self)
            try:
                swallow(broken, "waiting")
            except NOTHING_LEFT:
                pass

    def _end(self) -> None:
        node = self._node
        if node is None or node._waits is None or self not in node._waits:
            return
        now = clock.monotonic()
        _leave_out(node, now)
        node._waits.remove(self)
        if node.operation._pauses is not None:
            node.operation._pauses.pop(self, None)
        node._waited += now - self.since
        touch(node.operation, node, now)
        if node.operation._has_tracked:
            touch_lanes(node, self.place, now)
        short_waits.count(node.operation, self, now - self.since)
        about: dict[str, Value] = {
            semconv.WAIT_REASON: self.reason,
            semconv.WAIT_DURATION: round(now - self.since, 3),
        }
        if now > self.due:
            about[semconv.WAIT_OVERDUE_BY] = round(now - self.due, 3)
        tell_agent(node.operation, semconv.GEN_AI_RESUMED)
        if self.is_folded:
            short_waits.tell_end(node.operation)
        else:
            report(semconv.WAIT_ENDED, node, Attributes(about))

    async def __aenter__(self) -> Waiting:
        """Begin the wait."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the wait."""
        self.__exit__(kind, error, trace)


def _leave_out(node: HandleState, now: float) -> None:
    """Leave a wait that ends out of the pace of each handle in which every branch waited."""
    now = standstill.awake(now)
    pausing: HandleState | None = node
    lookup = Lookup()
    while pausing is not None:
        since = paused_since(pausing, now, lookup)
        if since is not None:
            pausing._stood += max(0.0, now - max(since, pausing._stood_until))
            pausing._stood_until = now
            pausing._stood_times += 1
            if pausing._pace is not None:
                pausing._pace.skip(since, now)
        pausing = None if pausing is node.operation else pausing._parent
