"""What follows when an operation is found stuck, or moves again: evidence, events, a request to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_progress import semconv
from otel_progress.live import stack, vitals
from otel_progress.live.engine import commands, learning, limits
from otel_progress.live.guard import tell_once
from otel_progress.live.running import find_wait, innermost
from otel_progress.model.health import Verdict, hold
from otel_progress.model.status import Health
from otel_progress.model.values import Attributes, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_progress.live.node import Handle
    from otel_progress.live.operation import Operation
    from otel_progress.live.stack import Place


MOVES: Final = 3
"""So many movements within the limit, and one that was stuck moves again."""


def look(operation: Operation, now: float) -> bool:
    """Take note of what repeats, or spends; whether that began or ended a loop."""
    loops = operation._loops
    if loops is None:
        return False
    loops.look(operation, now)
    before = operation._loop
    operation._loop = loops.found(operation, now, limits.stall_after(operation))
    if operation._loop is not None:
        operation._found_at = now
    return (before is None) is not (operation._loop is None)


class Again:
    """How one that was stuck moves again: since when, how often, and since when it was never idle for long."""

    __slots__ = ("calm", "last", "moves", "since")

    def __init__(self, moved_at: float) -> None:
        """It moved at this monotonic time, for the first time."""
        self.since = self.last = moved_at
        self.calm: float | None = moved_at
        self.moves = 1


def released(operation: Operation, now: float) -> bool:
    """Whether one that was stuck has moved long enough to count as moving.

    It needs to move for the hold, and meanwhile either never be idle for half its limit, or move three times
    without reaching the limit.
    """
    limit = limits.stall_after(operation)
    needed = hold(limit)
    if operation._health is Health.LOOPING:
        return operation._loop is None and now - operation._found_at >= needed
    if find_wait(operation, now) is not None:
        return True
    moved_at = operation._moved_at
    idle = now - moved_at
    if limit is not None and idle >= limit:
        operation._again = None
        return False
    again = operation._again
    if again is None:
        again = operation._again = Again(moved_at)
    elif moved_at != again.last:
        again.last = moved_at
        again.moves += 1
    if limit is not None and idle >= limit / 2:
        again.calm = None
    elif again.calm is None:
        again.calm = moved_at
    if now - again.since < needed:
        return False
    return again.moves >= MOVES or (again.calm is not None and now - again.calm >= needed)


def stalled(operation: Operation, verdict: Verdict, now: float) -> Attributes:
    """It is stuck from now on: what goes with the event."""
    if operation._stalled_at is None:
        operation._stalled_at = operation._moved_at if verdict.health is Health.SILENT else now - verdict.seconds
    operation._again = None
    from otel_progress.live.engine import runtime

    about: dict[str, Value] = {semconv.HEALTH_REASON: verdict.reason or ""}
    try:
        about |= _vitals(runtime.lag.worst(runtime.loops))
        operation._stuck = stack.where(list(_places(operation)), blocked=runtime.lag.blocked())
    except Exception:
        tell_once("it could not be found where an operation is stuck; that it is stuck is told")
    if operation._stuck is not None:
        about[semconv.STACK] = operation._stuck.stack
        if operation._stuck.at is not None:
            about[semconv.STUCK_AT] = operation._stuck.at
    return Attributes(about)


def recovered(operation: Operation, now: float) -> Attributes:
    """It moves again: what goes with the event."""
    again = operation._again
    since = operation._stalled_at or now
    until = again.since if again is not None else operation._moved_at if operation._moved_at > since else now
    operation._stalled_at = operation._again = operation._stuck = None
    return Attributes({semconv.STALL_DURATION: max(0.0, until - since)})


def ask_to_stop(operation: Operation, reason: str) -> None:
    """Ask the work to cancel; its task only where it is still stuck when its event loop comes to it."""
    commands.stop(operation, reason, still=lambda operation: operation._stalled_at is not None)


def gap(operation: Operation, before: float, now: float) -> None:
    """Progress came, the last before it at `before`: worth to learn where it was not steady."""
    if not operation._seen_by_ticker:
        return
    node, seconds, limit = innermost(operation), now - before, limits.stall_after(operation)
    node._gaps += seconds
    if limit is not None and seconds > limit:
        seconds = limit  # one incident teaches little; gaps that come again and again raise the limit step by step
    learning.learning.gap(operation, node, seconds)


def _places(operation: Operation) -> Iterator[Place]:
    """Where it runs: the innermost stages first."""
    nodes: list[Handle] = [*reversed(operation._running or ()), operation]
    seen: list[Place] = []  # no set: a reference to a task that is gone has no hash
    for node in nodes:
        for place in (*(node._carried or ()), node._place):
            if place is not None and place not in seen and len(seen) < stack.PLACES:
                seen.append(place)
                yield place


def _vitals(lag: float | None) -> dict[str, Value]:
    """How the process is, as evidence."""
    about: dict[str, Value] = dict(vitals.vitals())
    if lag is not None:
        about[semconv.PROCESS_LOOP_LAG] = lag
    return about
