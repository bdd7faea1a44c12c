"""The watchdog: what follows when an operation is found stuck or moves again: evidence, events, a cancel request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_progress import semconv
from otel_progress.live.branches import LiveBranch, key_of, live_branches, loop_of, open_lanes, who_loops
from otel_progress.live.diagnosis import call_stack, vitals
from otel_progress.live.engine import commands, process
from otel_progress.live.engine.moving_threads import moving_threads
from otel_progress.live.engine.stuck_branches import ended_at, follows, is_next, label_of
from otel_progress.live.guard import tell_once
from otel_progress.live.state import Movement, StuckBranch
from otel_progress.model.health import NOT_MOVING, hold, judge_branch
from otel_progress.model.snapshot import Branch
from otel_progress.model.status import Health, Status
from otel_progress.model.values import Attributes, Value

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from otel_progress.live.diagnosis.call_stack import Where
    from otel_progress.live.diagnosis.places import Place
    from otel_progress.live.engine.branch_verdicts import Judged
    from otel_progress.live.records import DeclaredWait
    from otel_progress.live.state import HandleState, OperationState


MOVES: Final = 3
"""Movements within the limit after which a stuck branch counts as moving."""
SOON: Final = 2.0
"""Seconds by which the next stage may have started before the end of a stuck one was noticed."""
TOLD: Final = 16
"""Branches listed in one event."""
USUAL: Final = 60.0
"""The limit (s) by which other threads are judged to move, for a loop without one."""


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
    stuck_branches = operation._stuck_branches
    if not stuck_branches:
        return None
    since = None
    running = {live.key: live for live in live_branches(operation)}
    _hand_over(stuck_branches, running, now)
    for key, stuck in tuple(stuck_branches.items()):
        moves_since = _moves_since(stuck, running.get(key), now)
        if moves_since is not None:
            since = moves_since
            del stuck_branches[key]
    return since


def _hand_over(stuck_branches: dict[object, StuckBranch], running: dict[object, LiveBranch], now: float) -> None:
    """Hand the troubles of branches that are gone to the stages that continue them."""
    for key, stuck in tuple(stuck_branches.items()):
        if key in running:
            stuck.gone_at = None
            continue
        live = _goes_on(key, stuck, running, stuck_branches, now)
        if live is not None:
            del stuck_branches[key]
            stuck_branches[live.key] = stuck


def _moves_since(stuck: StuckBranch, live: LiveBranch | None, now: float) -> float | None:
    """Since when a branch moves again, if that is long enough; None while it is stuck."""
    if live is None:
        since = _again(stuck, now).since
        return since if now - since >= stuck.hold else None
    child = live.child
    if child is not None:
        return None if child._health in NOT_MOVING or child._stuck_branches else max(child._moved_at, stuck.since)
    if not _released(live, stuck, now):
        return None
    moved_at = live.moved_at if live.moved_at > stuck.since else now
    return moved_at if stuck.again is None else stuck.again.since


def _goes_on(
    key: object,
    stuck: StuckBranch,
    running: dict[object, LiveBranch],
    stuck_branches: dict[object, StuckBranch],
    now: float,
) -> LiveBranch | None:
    """The next stage of the same path, which takes over the trouble: what failed ten times fails again.

    Its movement is kept. If the next stage started at once in the same place, the trouble was never seen gone.
    """
    free = [live for at, live in running.items() if at not in stuck_branches]
    found = next((live for live in free if follows(live, key, stuck) or _same_loop(live, stuck)), None)
    if found is None:
        stuck.eased = True
        gone_at = stuck.gone_at = stuck.gone_at or now
        found = next((live for live in free if is_next(live, stuck, ended_at(key) or gone_at - SOON)), None)
    if found is not None:
        stuck.gone_at = None
        if stuck.again is not None and not stuck.again.moves:
            stuck.again = None  # it begins with the next stage: one that hangs at once did not move again
    return found


def _same_loop(live: LiveBranch, stuck: StuckBranch) -> bool:
    """Whether a branch is part of a loop that was already reported; a loop continues between its stages."""
    return stuck.loops is not None and live.child is None and who_loops(live.node) is stuck.loops


def _again(stuck: StuckBranch, now: float) -> Movement:
    """The movement of a branch whose stage is over: from its end on, unless another stage follows."""
    if stuck.again is None:
        stuck.again = Movement(now, moves=0)
    return stuck.again


def _released(live: LiveBranch, stuck: StuckBranch, now: float) -> bool:
    """Whether a stuck branch has moved for long enough to count as moving.

    It must move for the hold time, and in it either never be idle for half its limit, or move three times without
    reaching the limit.
    """
    limit, loop = live.limit, loop_of(live.node)
    needed = hold(limit)
    if stuck.health is Health.LOOPING:
        if loop is not None:
            _stuck_again(stuck, live, now)
            stuck.found_at = now
        return loop is None and now - stuck.found_at >= needed
    if live.waits(now) is not None:
        return True
    idle = now - live.moved_at
    if limit is not None and idle >= limit:
        _stuck_again(stuck, live, now)
        return False
    again = stuck.again
    if again is None:
        if live.moved_at <= stuck.since:
            return False
        again = stuck.again = Movement(live.moved_at)
    elif live.moved_at != again.last:
        again.last = live.moved_at
        again.moves += 1
    if limit is not None and idle >= limit / 2:
        again.calm = None
    elif again.calm is None:
        again.calm = live.moved_at
    if now - again.since < needed:
        return False
    return again.moves >= MOVES or (again.calm is not None and now - again.calm >= needed)


def _stuck_again(stuck: StuckBranch, live: LiveBranch, now: float) -> None:
    """It moved, but not for long enough: the same trouble continues, maybe at another line."""
    stuck.again = None
    if stuck.eased:
        stuck.eased, stuck.where = False, _where(live, (), now)


def stalled(operation: OperationState, judged: list[Judged], now: float) -> Attributes:
    """Record that branches are stuck, the worst first; returns the attributes of the event."""
    stuck_branches = operation._stuck_branches
    if stuck_branches is None:
        stuck_branches = operation._stuck_branches = {}
    blocked: Collection[Any] = ()
    about: dict[str, Value] = {semconv.HEALTH_REASON: judged[0].verdict.reason or ""}
    try:
        about |= _vitals(process.lag.worst(process.loops))
        blocked = process.lag.blocked()
    except Exception:
        tell_once("the vitals of the process could not be read; the stuck operation is reported without them")
    for live, _, verdict, _ in judged:
        since = live.moved_at if verdict.health is Health.SILENT else now - verdict.seconds
        stuck = stuck_branches[live.key] = StuckBranch(verdict.health, since, now, label_of(live), hold(live.limit))
        if operation._stalled_at is None or since < operation._stalled_at:
            operation._stalled_at = since
        if verdict.health is Health.LOOPING and live.child is None:
            stuck.loops = who_loops(live.node)
        if len(stuck_branches) <= TOLD:
            stuck.where = _where(live, blocked, now)
    where = stuck_branches[judged[0].live.key].where
    if where is not None:
        about[semconv.STACK] = where.stack
        if where.at:
            about[semconv.STUCK_AT] = where.at
    if any(live.node is not operation or live.lane or live.child for live, *_ in judged):
        about[semconv.STUCK_BRANCHES] = tuple(branch.label for _, branch, *_ in judged[:TOLD])
    return Attributes(about)


def renamed(operation: OperationState, judged: list[Judged], now: float) -> bool:
    """Whether a stuck branch changed between silent and looping; its evidence is taken again."""
    stuck_branches = operation._stuck_branches or {}
    changed = False
    for live, _, verdict, _ in judged:
        stuck = stuck_branches.get(live.key)
        if stuck is not None and verdict.health in NOT_MOVING and stuck.health is not verdict.health:
            stuck.health, stuck.found_at, stuck.again, changed = verdict.health, now, None, True
            stuck.eased = False
            stuck.loops = who_loops(live.node) if verdict.health is Health.LOOPING else None
    return changed


def recovered(operation: OperationState, moved_at: float | None, now: float) -> Attributes:
    """Record that no branch is stuck any more; returns the attributes of the event."""
    since = operation._stalled_at or now
    until = moved_at if moved_at is not None and moved_at > since else now
    operation._stalled_at = None
    return Attributes({semconv.STALL_DURATION: max(0.0, until - since)})


def overdue(wait: DeclaredWait, now: float) -> Attributes:
    """The attributes of the event that a declared wait is past its limit."""
    seen = wait.seen(now)
    return Attributes(
        {
            semconv.HEALTH_REASON: judge_branch(Branch(wait=seen)).reason or "",
            semconv.WAIT_REASON: wait.reason,
            semconv.WAIT_DURATION: round(seen.elapsed, 3),
            semconv.WAIT_OVERDUE_BY: round(max(0.0, now - wait.due), 3),
        }
    )


def closed(operation: OperationState) -> Attributes | None:
    """The attributes of the recovery of a stuck operation that completed before it was reported; None for others."""
    if operation._stalled_at is None or operation._status is not Status.COMPLETED:
        return None
    ended = operation._ended or operation._stalled_at
    again = [
        ended if stuck.again is None else stuck.again.since for stuck in (operation._stuck_branches or {}).values()
    ]
    return recovered(operation, max(again, default=ended), ended)


def ask_to_stop(operation: OperationState, reason: str) -> None:
    """Ask the operation to cancel; its task is cancelled only if it is still stuck when its event loop gets to it."""
    commands.stop(operation, reason, still=lambda operation: operation._stalled_at is not None)


def _where(live: LiveBranch, blocked: Collection[Any], now: float) -> Where | None:
    """The call stack of a branch; of a child, where that is stuck."""
    try:
        if live.child is not None:
            return next((it.where for it in (live.child._stuck_branches or {}).values() if it.where is not None), None)
        since = now - (live.limit or USUAL) / 2
        found = call_stack.where(list(_places(live)), blocked=blocked, moving=lambda: moving_threads(since))
        return found if found is None or found.mine or live.node._adopted is None else found._replace(at="")
    except Exception:
        tell_once("the line at which an operation is stuck could not be found; it is reported without it")
        return None


def _places(live: LiveBranch) -> Iterator[Place]:
    """The places of a branch: threads that carry its work, then its own; those around it if that is unknown."""
    if live.lane is not None:
        yield live.lane.place
        return
    seen: list[Place] = []  # no set: a reference to a task that is gone has no hash
    node: HandleState | None = live.node
    while node is not None:
        own = (node._place,) if node._adopted is None else node._adopted.places()
        known = (
            bool(own) if node._adopted is not None else node._context is not None and key_of(node._place) is not None
        )
        for place in (*(node._carried or ()), *(lane.place for lane in open_lanes(node).values()), *own):
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
