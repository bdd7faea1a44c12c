"""The budget for events that change no state: notes, heartbeats of the work, and updates.

What exceeds it waits; operations take turns, and an update replaces all earlier ones of its operation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from otel_progress import semconv
from otel_progress.live.guard import drops, tell_once

if TYPE_CHECKING:
    from otel_progress.live.state import Change, HandleState, OperationState
    from otel_progress.model.values import Attributes

    Emit = Callable[[str, OperationState, HandleState, int, Attributes], None]

RATIONED_EACH: Final = 200
"""Notes and heartbeats of one operation that may wait."""
STAGE_EVENTS: Final = 50.0
"""Stage events a second of one operation; the changes of further ones are seen in snapshots only."""


class Budget:
    """Rations events, so that no second has more than `rate` of them.

    Attributes:
        rate: events a second.
        waiting: operations that have something to send, in the order of their turns, and since which round.
    """

    def __init__(self, rate: float) -> None:
        """Nothing waits."""
        self.rate = rate
        self.waiting: dict[OperationState, int] = {}
        self._left = 0
        self._allowance = 0
        self._spent: deque[tuple[float, int]] = deque()

    def begin_round(self, now: float) -> None:
        """Find what this round may send."""
        most = max(1, int(self.rate))
        spent = self._spent
        while spent and now - spent[0][0] >= most / self.rate:
            spent.popleft()
        self._left = self._allowance = max(0, most - sum(count for _, count in spent))

    def end_round(self, now: float) -> None:
        """Note what this round sent."""
        if self._left < self._allowance:
            self._spent.append((now, self._allowance - self._left))

    def queue(self, change: Change, number: int) -> None:
        """Let a note or a heartbeat wait for its turn, from the round of this number on."""
        operation = change[1]
        queue = operation._rationed
        if queue is None:
            queue = operation._rationed = deque()
        if len(queue) >= RATIONED_EACH:
            queue.popleft()
            drops.add(semconv.DROP_BUDGET)
        queue.append(change)
        self.waiting.setdefault(operation, number)

    def pay(self, number: int, emit: Emit, update: Callable[[OperationState], None]) -> None:
        """Send what the budget allows, one event of each operation in turn.

        Args:
            number: of this round.
            emit: sends an event.
            update: sends an update of an operation.
        """
        waiting = self.waiting
        while self._left >= 1 and waiting:
            operation = next(iter(waiting))
            del waiting[operation]
            safely(self._pay_one, operation, number, emit, update)

    def _pay_one(
        self, operation: OperationState, number: int, emit: Emit, update: Callable[[OperationState], None]
    ) -> None:
        queue = operation._rationed
        if queue:
            event, _, node, when, attributes = queue.popleft()
            if queue:
                self.waiting[operation] = number
            self._left -= 1
            emit(event, operation, node, when, attributes)
        elif not operation._status.final:
            self._left -= 1
            update(operation)

    def pay_all(self, operation: OperationState, emit: Emit) -> None:
        """Before the end of an operation, send what still waits of it, as far as the budget allows."""
        self.waiting.pop(operation, None)
        queue, operation._rationed = operation._rationed, None
        for event, _, node, when, attributes in queue or ():
            if self._left < 1:
                drops.add(semconv.DROP_BUDGET)
                continue
            self._left -= 1
            emit(event, operation, node, when, attributes)


def may_send_stage(operation: OperationState, now: float) -> bool:
    """Whether an operation may send one more stage event now."""
    tokens, then = operation._stage_tokens or (STAGE_EVENTS, now)
    tokens = min(STAGE_EVENTS, tokens + (now - then) * STAGE_EVENTS)
    operation._stage_tokens = (tokens - 1 if tokens >= 1 else tokens, now)
    return bool(tokens >= 1)


def safely(call: Callable[..., None], *args: Any) -> None:
    """Call it; a failure for one operation, or in one part of ours, stops no other."""
    try:
        call(*args)
    except Exception:
        tell_once(f"{getattr(call, '__qualname__', call)!s} failed; the job goes on")
