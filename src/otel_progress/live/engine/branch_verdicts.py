"""The verdicts on the branches of an operation, and which branch determines that of the operation."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_progress.live import standstill
from otel_progress.live.branches import DEPTH, LiveBranch, find_wait, live_branches, loop_of, only_branch, stall_after
from otel_progress.live.engine.limits import stall_limit
from otel_progress.live.engine.stuck_branches import follows
from otel_progress.live.running import children, innermost
from otel_progress.model.health import NOT_MOVING, judge_branch, rank
from otel_progress.model.snapshot import Branch
from otel_progress.model.status import Health

if TYPE_CHECKING:
    from otel_progress.live.diagnosis.places import Place
    from otel_progress.live.state import HandleState, OperationState, StuckBranch
    from otel_progress.model.health import Verdict
    from otel_progress.model.loop import Loop
    from otel_progress.model.reported import Wait

MOST: Final = 16
"""Branches that a snapshot holds: the worst, and one that moves if any does."""
_TROUBLED: Final = 2
"""The rank from which on a branch needs attention."""


class Judged(NamedTuple):
    """A branch, its value, and the verdict on it."""

    live: LiveBranch
    branch: Branch
    verdict: Verdict
    told_at: float = 0.0
    """When it was reported as stuck (s, monotonic); infinity if it is stuck and not yet reported."""

    @property
    def weight(self) -> tuple[int, float, float]:
        """How bad it is: by the verdict; of stuck ones, the last one reported is worst; then by the pressure."""
        return rank(self.verdict), self.told_at, self.pressure

    @property
    def pressure(self) -> float:
        """The idle time as a part of its limit; from 1 on it is stuck."""
        limit = self.branch.stall_after
        return self.branch.idle / limit if limit and self.branch.wait is None else 0.0


def kept(judged: Judged) -> Judged:
    """The same without the child, so that it is not kept alive."""
    return judged._replace(live=judged.live._replace(child=None))


class BranchSummary(NamedTuple):
    """The parts of a snapshot that come from the branches."""

    node: HandleState
    troubled: bool
    waiting: bool
    shown: dict[str, Any]
    branches: tuple[Branch, ...] = ()


def examine(operation: OperationState, now: float) -> list[Judged]:
    """All branches of an operation with their verdicts, the worst first."""
    found = []
    for live in live_branches(operation):
        branch = _value(operation, live, now)
        verdict = judge_branch(branch)
        found.append(Judged(live, branch, verdict, _told_at(operation, live, verdict)))
    found.sort(key=lambda judged: judged.weight, reverse=True)
    return found


def _calm(operation: OperationState, now: float) -> LiveBranch | None:
    """The only branch of an operation, if it obviously moves: no wait, no loop, no trouble, below its limit.

    This is the usual case. The verdict is progressing, as `examine` would find.
    """
    live = only_branch(operation)
    if live is None or live.wait is not None or operation._stuck_branches or loop_of(live.node) is not None:
        return None
    limit = live.limit
    return live if limit is None or now - live.moved_at < limit else None


def see(operation: OperationState, now: float) -> BranchSummary:
    """The parts of a snapshot that come from the branches, at a monotonic time."""
    now = standstill.awake(now)
    calm = _calm(operation, now)
    if calm is not None:
        limit, source = stall_limit(calm.node)
        return BranchSummary(calm.node, False, False, _fields(calm.idle(now), limit, source))
    found = examine(operation, now)
    worst = found[0]
    live = worst.live
    troubled = rank(worst.verdict) >= _TROUBLED
    waiting = all(judged.branch.wait is not None for judged in found)
    if len(found) == 1 and live.lane is None and live.child is None:
        return BranchSummary(live.node, troubled, waiting, _shown(operation, worst))
    if not troubled and worst.pressure == 0.0 and not waiting:  # without limits, the one that moved last
        worst = max(found, key=lambda judged: judged.live.moved_at if judged.branch.wait is None else 0.0)
    if waiting and not troubled:
        worst = min(found, key=lambda judged: _due(judged.branch))
    chosen = found[:MOST]
    if len(found) > MOST and all(judged.verdict.health is not Health.PROGRESSING for judged in chosen):
        chosen[-1] = next(
            (judged for judged in found[MOST:] if judged.verdict.health is Health.PROGRESSING), chosen[-1]
        )
    told = tuple(_told(operation, judged) for judged in chosen)
    return BranchSummary(live.node, troubled, waiting, _shown(operation, worst), told)


def _shown(operation: OperationState, judged: Judged) -> dict[str, Any]:
    """The determining branch, as fields of the snapshot."""
    branch = judged.branch
    stuck = _stuck(operation, judged.live)
    shown = _fields(branch.idle, branch.stall_after, branch.stall_after_source)
    shown |= {"loop": branch.loop, "wait": branch.wait}
    if stuck is not None and not stuck.eased:
        shown["health"] = stuck.health
        if stuck.still_at is not None:
            shown |= {"stuck_at": stuck.still_at.at or None, "stack": stuck.still_at.stack}
    return shown


def _fields(idle: float, limit: float | None, source: str | None) -> dict[str, Any]:
    """The fields of a snapshot for a branch that moves."""
    return {
        "idle": idle,
        "stall_after": limit,
        "stall_after_source": source,
        "health": Health.PROGRESSING,
        "loop": None,
        "wait": None,
    }


class Figures(NamedTuple):
    """The values for the run series of an operation, from its own branches; children have series of their own.

    `node`, `stuck_at` and `loop` are those of the branch that determines the verdict, `wait` and `waits_in` those of
    the wait that is due first. `beside` is a branch that loops while another one is stuck.
    """

    idle: float
    stall_after: float | None
    wait_remaining: float | None
    node: HandleState
    stuck_at: str | None = None
    loop: Loop | None = None
    wait: Wait | None = None
    waits_in: HandleState | None = None
    beside: Judged | None = None


def figures(operation: OperationState, now: float) -> Figures:
    """The values of the worst branch that is no child, and of the wait that is due first (in seconds)."""
    now = standstill.awake(now)
    calm = _calm(operation, now)
    if calm is not None:
        return Figures(calm.idle(now), calm.limit, None, innermost(operation))
    found = examine(operation, now)
    own = [judged for judged in found if judged.live.child is None]
    if not own:
        first = found[0].branch
        return Figures(0.0, stall_after(operation), None, found[0].live.node, first.stuck_at, first.loop)
    worst = max(own, key=lambda judged: (rank(judged.verdict), judged.pressure))
    first_due = min(own, key=lambda judged: _due(judged.branch))
    left = _due(first_due.branch)
    troubled = rank(found[0].verdict) >= _TROUBLED
    silent = found[0].verdict.health is Health.SILENT
    loops = (judged for judged in own if silent and judged.verdict.health is Health.LOOPING)
    return Figures(
        0.0 if worst.branch.wait is not None else worst.branch.idle,
        worst.branch.stall_after,
        left if left < math.inf else None,
        found[0].live.node if troubled else innermost(operation),
        found[0].branch.stuck_at,
        found[0].branch.loop,
        first_due.branch.wait,
        first_due.live.node,
        next(loops, None),
    )


def _told(operation: OperationState, judged: Judged) -> Branch:
    """The branch with the verdict on it."""
    verdict = judged.verdict
    reason = replace(verdict, branch=None).reason if verdict.troubled else None
    stuck = _stuck(operation, judged.live)
    at = None if stuck is not None and stuck.still_at is None else judged.branch.stuck_at
    return replace(judged.branch, health=verdict.health, reason=reason, stuck_at=at)


def _value(operation: OperationState, live: LiveBranch, now: float) -> Branch:
    node = live.node
    path = None if node is operation else node._path
    if live.child is not None:
        found = _child(live.child, path, now)
        return found if live.wait is None else replace(found, wait=live.wait.seen(now))
    limit, source = stall_limit(node)
    stuck = _stuck(operation, live)
    where = None if stuck is None or stuck.eased else stuck.where
    return Branch(
        path=path,
        lane=None if live.lane is None else place_name(live.lane.place),
        idle=live.idle(now),
        stall_after=limit,
        stall_after_source=source,
        health=Health.PROGRESSING if stuck is None else stuck.shown,
        wait=live.waits(now) if operation._ended is None else None,
        loop=loop_of(node),
        stuck_at=None if where is None else where.at or None,
    )


def _child(child: OperationState, path: str | None, now: float, depth: int = 0) -> Branch:
    """The branch that waits for a child; its health is that of the child when last judged."""
    worst = child._worst
    if worst is None or child._health is Health.PROGRESSING:
        return Branch(path, None, child.id, child.name, max(0.0, now - child._moved_at), wait=find_wait(child, now))
    branch = _now(child, worst, now, depth)
    verdict = judge_branch(branch)
    return Branch(
        path=path,
        child=child.id,
        child_name=child.name,
        idle=branch.idle,
        stall_after=branch.stall_after,
        stall_after_source=branch.stall_after_source,
        health=child._health,
        reason=verdict.reason if verdict.troubled else None,
        wait=branch.wait if verdict.health is Health.WAITING else None,
        loop=branch.loop,
        stuck_at=branch.stuck_at,
    )


def _now(child: OperationState, worst: Judged, now: float, depth: int) -> Branch:
    """The branch that determined the verdict on a child last time, as it is now."""
    below = worst.branch.child
    if below is None:
        return _value(child, worst.live, now)
    found = next((each for each in children(child) if each.id == below), None) if depth < DEPTH else None
    return worst.branch if found is None else _child(found, worst.branch.path, now, depth + 1)


def _stuck(operation: OperationState, live: LiveBranch) -> StuckBranch | None:
    """The trouble of a branch, or of the stage before it that the next look hands over."""
    stuck_branches = operation._stuck_branches
    if not stuck_branches or operation._ended is not None:
        return None
    found = stuck_branches.get(live.key)
    if found is not None:
        return found
    return next((stuck for key, stuck in tuple(stuck_branches.items()) if follows(live, key, stuck)), None)


def _told_at(operation: OperationState, live: LiveBranch, verdict: Verdict) -> float:
    if verdict.health not in NOT_MOVING:
        return 0.0
    stuck = _stuck(operation, live)
    return math.inf if stuck is None else stuck.told_at


def _due(branch: Branch) -> float:
    wait = branch.wait
    return math.inf if wait is None or wait.overdue_after is None else wait.overdue_after - wait.elapsed


def place_name(place: Place) -> str:
    """The display name of a thread or task."""
    task = None if place.task is None else place.task()
    name = getattr(task, "get_name", None)
    if name is not None:
        return f"task {name()}"
    for thread in threading.enumerate():
        if thread.ident == place.thread:
            return f"thread {thread.name}"
    return f"thread {place.thread}"
