"""The watchdog: what follows when an operation is found stuck or moves again: evidence, events, a cancel request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_progress import semconv
from otel_progress.live.branches import Line, key_of, lines, loop_of, open_lanes, who_loops
from otel_progress.live.diagnosis import call_stack, vitals
from otel_progress.live.engine import commands, process
from otel_progress.live.engine.troubles import ended_at, follows, is_next, label_of
from otel_progress.live.guard import tell_once
from otel_progress.live.state import Movement, Trouble
from otel_progress.model.health import STUCK, hold
from otel_progress.model.status import Health, Status
from otel_progress.model.values import Attributes, Value

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from otel_progress.live.diagnosis.call_stack import Where
    from otel_progress.live.diagnosis.places import Place
    from otel_progress.live.engine.branch_verdicts import Judged
    from otel_progress.live.state import HandleState, OperationState


MOVES: Final = 3
"""Movements within the limit after which a stuck branch counts as moving."""
SOON: Final = 2.0
"""Seconds by which the next stage may have started before the end of a stuck one was noticed."""
TOLD: Final = 16
"""Branches listed in one event."""


def look(operation: OperationState, now: float) -> bool:
    """Detect loops in all handles of an operation; returns whether one began or ended."""
    changed = False
    for node in (operation, *(operation._running or ())):
        loops, before = node._loops, node._loop
        if loops is None:
            continue
        loops.look(node, now)
        node._loop = loops.found(node, now)
        changed = changed or (before is None) is not (node._loop is None)
    return changed


def release(operation: OperationState, now: float) -> float | None:
    """Release branches that are gone or have moved for long enough; returns since when the last of them moves."""
    troubles = operation._troubles
    if not troubles:
        return None
    since = None
    running = {line.key: line for line in lines(operation)}
    _hand_over(troubles, running, now)
    for key, trouble in tuple(troubles.items()):
        moves_since = _moves_since(trouble, running.get(key), now)
        if moves_since is not None:
            since = moves_since
            del troubles[key]
    return since


def _hand_over(troubles: dict[object, Trouble], running: dict[object, Line], now: float) -> None:
    """Hand the troubles of branches that are gone to the stages that continue them."""
    for key, trouble in tuple(troubles.items()):
        if key in running:
            trouble.gone_at = None
            continue
        line = _goes_on(key, trouble, running, troubles, now)
        if line is not None:
            del troubles[key]
            troubles[line.key] = trouble


def _moves_since(trouble: Trouble, line: Line | None, now: float) -> float | None:
    """Since when a branch moves again, if that is long enough; None while it is stuck."""
    if line is None:
        since = _again(trouble, now).since
        return since if now - since >= trouble.hold else None
    child = line.child
    if child is not None:
        return None if child._health in STUCK or child._troubles else max(child._moved_at, trouble.since)
    if not _released(line, trouble, now):
        return None
    moved_at = line.moved_at if line.moved_at > trouble.since else now
    return moved_at if trouble.again is None else trouble.again.since


def _goes_on(
    key: object, trouble: Trouble, running: dict[object, Line], troubles: dict[object, Trouble], now: float
) -> Line | None:
    """The next stage of the same path, which takes over the trouble: what failed ten times fails again.

    Its movement is kept. If the next stage started at once in the same place, the trouble was never seen gone.
    """
    free = [line for at, line in running.items() if at not in troubles]
    found = next((line for line in free if follows(line, key, trouble) or _same_loop(line, trouble)), None)
    if found is None:
        trouble.eased = True
        gone_at = trouble.gone_at = trouble.gone_at or now
        found = next((line for line in free if is_next(line, trouble, ended_at(key) or gone_at - SOON)), None)
    if found is not None:
        trouble.gone_at = None
        if trouble.again is not None and not trouble.again.moves:
            trouble.again = None  # it begins with the next stage: one that hangs at once did not move again
    return found


def _same_loop(line: Line, trouble: Trouble) -> bool:
    """Whether a branch is part of a loop that was already reported; a loop continues between its stages."""
    return trouble.loops is not None and line.child is None and who_loops(line.node) is trouble.loops


def _again(trouble: Trouble, now: float) -> Movement:
    """The movement of a branch whose stage is over: from its end on, unless another stage follows."""
    if trouble.again is None:
        trouble.again = Movement(now, moves=0)
    return trouble.again


def _released(line: Line, trouble: Trouble, now: float) -> bool:
    """Whether a stuck branch has moved for long enough to count as moving.

    It must move for the hold time, and in it either never be idle for half its limit, or move three times without
    reaching the limit.
    """
    limit, loop = line.limit, loop_of(line.node)
    needed = hold(limit)
    if trouble.health is Health.LOOPING:
        if loop is not None:
            _stuck_again(trouble, line)
            trouble.found_at = now
        return loop is None and now - trouble.found_at >= needed
    if line.waits(now) is not None:
        return True
    idle = now - line.moved_at
    if limit is not None and idle >= limit:
        _stuck_again(trouble, line)
        return False
    again = trouble.again
    if again is None:
        if line.moved_at <= trouble.since:
            return False
        again = trouble.again = Movement(line.moved_at)
    elif line.moved_at != again.last:
        again.last = line.moved_at
        again.moves += 1
    if limit is not None and idle >= limit / 2:
        again.calm = None
    elif again.calm is None:
        again.calm = line.moved_at
    if now - again.since < needed:
        return False
    return again.moves >= MOVES or (again.calm is not None and now - again.calm >= needed)


def _stuck_again(trouble: Trouble, line: Line) -> None:
    """It moved, but not for long enough: the same trouble continues, maybe at another line."""
    trouble.again = None
    if trouble.eased:
        trouble.eased, trouble.where = False, _where(line, ())


def stalled(operation: OperationState, judged: list[Judged], now: float) -> Attributes:
    """Record that branches are stuck, the worst first; returns the attributes of the event."""
    troubles = operation._troubles
    if troubles is None:
        troubles = operation._troubles = {}
    blocked: Collection[Any] = ()
    about: dict[str, Value] = {semconv.HEALTH_REASON: judged[0].verdict.reason or ""}
    try:
        about |= _vitals(process.lag.worst(process.loops))
        blocked = process.lag.blocked()
    except Exception:
        tell_once("the vitals of the process could not be read; the stuck operation is reported without them")
    for line, _, verdict, _ in judged:
        since = line.moved_at if verdict.health is Health.SILENT else now - verdict.seconds
        trouble = troubles[line.key] = Trouble(verdict.health, since, now, label_of(line), hold(line.limit))
        if operation._stalled_at is None or since < operation._stalled_at:
            operation._stalled_at = since
        if verdict.health is Health.LOOPING and line.child is None:
            trouble.loops = who_loops(line.node)
        if len(troubles) <= TOLD:
            trouble.where = _where(line, blocked)
    where = troubles[judged[0].line.key].where
    if where is not None:
        about |= {semconv.STACK: where.stack, semconv.STUCK_AT: where.at}
    if any(line.node is not operation or line.lane or line.child for line, *_ in judged):
        about[semconv.STUCK_BRANCHES] = tuple(branch.label for _, branch, *_ in judged[:TOLD])
    return Attributes(about)


def renamed(operation: OperationState, judged: list[Judged], now: float) -> bool:
    """Whether a stuck branch changed between silent and looping; its evidence is taken again."""
    troubles = operation._troubles or {}
    changed = False
    for line, _, verdict, _ in judged:
        trouble = troubles.get(line.key)
        if trouble is not None and verdict.health in STUCK and trouble.health is not verdict.health:
            trouble.health, trouble.found_at, trouble.again, changed = verdict.health, now, None, True
            trouble.eased = False
            trouble.loops = who_loops(line.node) if verdict.health is Health.LOOPING else None
    return changed


def recovered(operation: OperationState, moved_at: float | None, now: float) -> Attributes:
    """Record that no branch is stuck any more; returns the attributes of the event."""
    since = operation._stalled_at or now
    until = moved_at if moved_at is not None and moved_at > since else now
    operation._stalled_at = None
    return Attributes({semconv.STALL_DURATION: max(0.0, until - since)})


def closed(operation: OperationState) -> Attributes | None:
    """The attributes of the recovery of a stuck operation that completed before it was reported; None for others."""
    if operation._stalled_at is None or operation._status is not Status.COMPLETED:
        return None
    ended = operation._ended or operation._stalled_at
    again = [
        ended if trouble.again is None else trouble.again.since for trouble in (operation._troubles or {}).values()
    ]
    return recovered(operation, max(again, default=ended), ended)


def ask_to_stop(operation: OperationState, reason: str) -> None:
    """Ask the operation to cancel; its task is cancelled only if it is still stuck when its event loop gets to it."""
    commands.stop(operation, reason, still=lambda operation: operation._stalled_at is not None)


def _where(line: Line, blocked: Collection[Any]) -> Where | None:
    """The call stack of a branch; of a child, where that is stuck."""
    try:
        if line.child is not None:
            return next((it.where for it in (line.child._troubles or {}).values() if it.where is not None), None)
        return call_stack.where(list(_places(line)), blocked=blocked)
    except Exception:
        tell_once("the line at which an operation is stuck could not be found; it is reported without it")
        return None


def _places(line: Line) -> Iterator[Place]:
    """The places of a branch: threads that carry its work, then its own; those around it if that is unknown."""
    if line.lane is not None:
        yield line.lane.place
        return
    seen: list[Place] = []  # no set: a reference to a task that is gone has no hash
    node: HandleState | None = line.node
    while node is not None:
        known = node._context is not None and key_of(node._place) is not None
        for place in (*(node._carried or ()), *(lane.place for lane in open_lanes(node).values()), node._place):
            if place is not None and place not in seen and len(seen) < call_stack.LOOKED:
                seen.append(place)
                yield place
        node = node._parent if node is not node.operation and not known else None


def _vitals(lag: float | None) -> dict[str, Value]:
    """The vitals of the process, as evidence."""
    about: dict[str, Value] = dict(vitals.vitals())
    if lag is not None:
        about[semconv.PROCESS_LOOP_LAG] = lag
    return about
