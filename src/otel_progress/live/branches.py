"""The branches of an operation: what runs side by side in it, each with its own idle time.

A branch is an innermost running stage, a `track` loop in a thread or task of its own, or a running child operation. The
place (thread and task) that started a child waits for it, so it is no branch of its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_progress.live import hooks
from otel_progress.live.running import STAGES, children, host_of, innermost, is_inside
from otel_progress.model.reported import Wait
from otel_progress.model.status import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from otel_progress.live.diagnosis.places import Place
    from otel_progress.live.lane import Lane
    from otel_progress.live.records import DeclaredWait
    from otel_progress.live.state import HandleState, OperationState, StageState
    from otel_progress.model.loop import Loop

Key = tuple[int, int]
DEPTH: Final = 32
"""The deepest level of children that is searched for waits."""
NOWHERE: Final = -1.0
"""Neither a handle nor anything around it names a limit."""
NOTICED: Final = 2.0
"""Seconds within which the ticker notices that a loop took its next item."""
CONSUMER: Final = "its consumer"
"""The reason of the wait of a suspended generator."""


class LiveBranch(NamedTuple):
    """A branch as it is now.

    Attributes:
        node: the operation or stage in which it runs.
        moved_at: when it last made progress (s, monotonic).
        lane: its `track` loop, where the node has several.
        child: the child operation that it waits for.
        wait: the declared wait that stops its clock.
    """

    node: HandleState
    moved_at: float
    lane: Lane | None = None
    child: OperationState | None = None
    wait: DeclaredWait | None = None

    @property
    def key(self) -> object:
        """Identifies it while it runs; keeps no child alive."""
        return self.child.id if self.child is not None else self.lane or self.node

    @property
    def limit(self) -> float | None:
        """The allowed idle time, in seconds."""
        return stall_after(self.node)

    def idle(self, now: float) -> float:
        """Seconds without progress, not counting a declared wait."""
        return max(0.0, (now if self.wait is None else min(now, self.wait.since)) - self.moved_at)

    def waits(self, now: float) -> Wait | None:
        """What it waits for: a declared wait, or the consumer of an idle suspended generator."""
        if self.wait is not None:
            return self.wait.seen(now)
        limit, idle = self.limit, now - self.moved_at
        if limit is not None and idle >= limit and _is_suspended(self.node):
            return Wait(CONSUMER, idle)
        return None


def live_branches(operation: OperationState) -> list[LiveBranch]:
    """The running branches of an operation; at least one while it runs."""
    only = only_branch(operation)
    if only is not None:
        return [only]
    found = _Look(operation, tuple(operation._running or ())).found
    return [_alone(found[0])] if len(found) == 1 and found[0].child is None else found


def only_branch(operation: OperationState) -> LiveBranch | None:
    """The only branch of an operation, if it obviously has only one; None if that needs a closer look."""
    running = operation._running
    if operation._children or operation._lanes is not None:
        return None
    if not running:
        waits = operation._waits
        return LiveBranch(operation, operation._moved_at, wait=_most_overdue(waits) if waits else None)
    if len(running) > 1 or operation._waits:
        return None
    stage = innermost(operation)
    if stage is operation or stage._lanes is not None or stage._waits:
        return None
    return LiveBranch(stage, _moved_around(stage, _moved_at(stage)))


def find_wait(operation: OperationState, now: float, depth: int = 0) -> Wait | None:
    """The wait that is due first, if all branches of an operation wait; else None."""
    found = None
    if depth > DEPTH:
        return None
    if _plainly_works(operation) or (operation._children and _newest_works(operation)):
        return None
    for live in live_branches(operation):
        own = live.child is None or live.wait is not None
        wait = live.waits(now) if own else find_wait(live.child, now, depth + 1)  # type: ignore[arg-type]
        if wait is None:
            return None
        if found is None or _left(wait) < _left(found):
            found = wait
    return found


def _plainly_works(operation: OperationState) -> bool:
    """Whether the branch of the newest stage certainly does not wait; looks at no other."""
    if operation._children:
        return False
    node: HandleState | None = innermost(operation)
    while node is not None:
        if node._waits or node._suspended:
            return False
        node = node._parent if node is not operation else None
    return True


def _newest_works(operation: OperationState) -> bool:
    """Whether the newest child certainly does not wait, and no declared wait is open around it."""
    if operation._pauses:
        return False
    child = operation._children.newest() if operation._children else None
    return child is not None and _plainly_works(child)


class Lookup:
    """The branches of one operation at one moment, found on first use."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        """Nothing is looked up yet."""
        self._lines: list[LiveBranch] | None = None

    def live_branches(self, operation: OperationState) -> list[LiveBranch]:
        """The running branches of the operation, which must be the same in each call."""
        if self._lines is None:
            self._lines = live_branches(operation)
        return self._lines


def paused_since(node: HandleState, now: float, lookup: Lookup | None = None) -> float | None:
    """Since when every branch in a handle waits (s, monotonic); None while any of them works.

    Args:
        node: the handle.
        now: the monotonic time.
        lookup: the branches of its operation, if several handles of it are asked about at one moment.
    """
    operation = node.operation
    if not operation._children and not operation._pauses:
        return None
    if len(operation._running or ()) > STAGES:  # too many to look at for each of them
        return max(node._moved_at, _most_overdue(node._waits).since) if node._waits else None
    since: float | None = None
    for live in live_branches(operation) if lookup is None else lookup.live_branches(operation):
        if live.node is node or (live.node is not operation and is_inside(live.node, node)):
            began = _waits_since(live, now)
            if began is None:
                return None
            since = max(began, node._moved_at if since is None else since)
    return since


def _waits_since(live: LiveBranch, now: float) -> float | None:
    """Since when a branch, or the child it stands for, waits (s, monotonic)."""
    if live.child is None:
        return None if live.wait is None else live.wait.since
    wait = find_wait(live.child, now)
    return None if wait is None else now - wait.elapsed


def _left(wait: Wait) -> float:
    return math.inf if wait.overdue_after is None else wait.overdue_after - wait.elapsed


class _Look:
    """One look at the handles of an operation."""

    def __init__(self, operation: OperationState, stages: tuple[StageState, ...]) -> None:
        self.operation = operation
        nodes: tuple[HandleState, ...] = (operation, *stages)
        self.outer: set[HandleState | None] = {stage._parent for stage in stages} if stages else set()
        self.lanes = {node: found for node in nodes if node._lanes and (found := open_lanes(node))}
        self.latest = self._latest(stages)
        self.children: dict[HandleState, list[OperationState]] = {}
        for child in children(operation):
            host = host_of(child)
            while host is not None and host is not operation and host._status.final:
                host = host._parent
            self.children.setdefault(host or operation, []).append(child)
        self.found: list[LiveBranch] = []
        for node in reversed(nodes):
            leaf = node not in self.outer and (node is not operation or not stages)
            self.found += self._of_leaf(node) if leaf else self._of_outer(node)
        for node in nodes:
            if node._waits and (node in self.outer or node in self.children):
                self._add_waits(node)

    def _latest(self, stages: tuple[StageState, ...]) -> dict[Key, float]:
        """When each place last made progress, by its loops and by stages entered with `with`."""
        latest: dict[Key, float] = {}
        for node in self.lanes:
            for lane in tuple(node._lanes or ()):
                key = None if lane.closed else key_of(lane.place)  # one inside another proves that both live
                if key is not None:
                    latest[key] = max(latest.get(key, 0.0), lane.moved_at)
        for stage in stages:
            place = None if stage in self.outer else _entered_at(stage)
            if place is not None:
                latest[place] = max(latest.get(place, 0.0), stage._moved_at)
        return latest

    # -- an innermost one

    def _of_leaf(self, node: HandleState) -> Iterator[LiveBranch]:
        lanes, hosted = self.lanes.get(node, {}), self.children.get(node, [])
        for child in hosted:
            yield self._child(node, child)
        if len(lanes) > 1:
            node._loops_apart = True  # the one that is left when the others are over has its own clock still
        apart = bool(lanes) and node._loops_apart and not _counts_otherwise(node)
        if not apart:
            if not hosted:
                yield self._whole(node)
            return
        places = {key_of(child._place) for child in hosted}
        if places - lanes.keys():
            return  # a child of a place without a loop of its own: any of the loops may wait for it
        for key, lane in lanes.items():
            if key not in places:
                yield LiveBranch(node, max(lane.moved_at, self.latest[key]), lane, wait=self._wait(node, key, lanes))

    def _whole(self, node: HandleState) -> LiveBranch:
        """An innermost handle that is a single branch."""
        moved_at, key = _moved_at(node), _entered_at(node)
        if key is not None:
            moved_at = max(moved_at, self.latest.get(key, 0.0))
        return LiveBranch(node, moved_at, wait=self._wait(node, key, {}))

    # -- one with stages inside

    def _of_outer(self, node: HandleState) -> Iterator[LiveBranch]:
        """The children of an outer handle, and its loops in places where no stage inside it runs."""
        hosted = self.children.get(node, [])
        for child in hosted:
            yield self._child(node, child)
        lanes = self.lanes.get(node)
        if not lanes or _counts_otherwise(node):
            return
        below = [(key_of(stage._place), stage) for stage in self.operation._running or () if is_inside(stage, node)]
        busy = {key for key, _ in below} | {key_of(child._place) for child in hosted}
        strangers = [stage for key, stage in below if key not in lanes]
        for key, lane in lanes.items():
            # A stage that started since, elsewhere, may be a part of the item in hand.
            theirs = any((stage._started or 0.0) >= lane.moved_at - NOTICED for stage in strangers)
            if key not in busy and not theirs and not hosted:
                yield LiveBranch(node, max(lane.moved_at, self.latest[key]), lane, wait=self._wait(node, key, lanes))

    def _child(self, node: HandleState, child: OperationState) -> LiveBranch:
        """The branch of a child; a wait declared where it was started is a wait for it."""
        return LiveBranch(node, child._moved_at, child=child, wait=self._wait(node, key_of(child._place), {}))

    # -- waits

    def _wait(self, node: HandleState, key: Key | None, lanes: dict[Key, Lane]) -> DeclaredWait | None:
        """The wait that applies to a branch: its own, else one declared around it at its place."""
        own = [wait for wait in node._waits or () if not lanes or key_of(wait.place) == key]
        own = own or [wait for wait in node._waits or () if key_of(wait.place) not in lanes]  # it may be any of them
        if own:
            return _most_overdue(own)
        above = node._parent if node is not self.operation else None
        while above is not None:
            around = [wait for wait in above._waits or () if key is None or key_of(wait.place) == key]
            if around:
                return _most_overdue(around)
            above = above._parent if above is not self.operation else None
        return None

    def _add_waits(self, node: HandleState) -> None:
        """Add a branch for each wait that was declared where no branch is."""
        taken = {live.wait for live in self.found}
        self.found += [
            LiveBranch(node, node._moved_at, wait=wait) for wait in tuple(node._waits or ()) if wait not in taken
        ]


def key_of(place: Place | None) -> Key | None:
    """Identifies a thread and task while they run; None once they are gone."""
    if place is None or place.alive() is None:
        return None
    if place.task is None:
        return place.thread, 0
    task = place.task()
    if task is None or getattr(task, "done", _never)():
        return None
    return place.thread, id(task)


def _never() -> bool:
    return False


def _entered_at(node: HandleState) -> Key | None:
    """Where a handle was entered with `with`; None if it was only started, as its work may be anywhere."""
    return None if node._context is None else key_of(node._place)


def open_lanes(node: HandleState) -> dict[Key, Lane]:
    """The running loops of a handle, by place."""
    found: dict[Key, Lane] = {}
    for lane in tuple(node._lanes or ()):
        if lane.closed or lane.nested:
            continue
        key = key_of(lane.place)
        if key is not None and (key not in found or lane.moved_at > found[key].moved_at):
            found[key] = lane
    return found


def touch_lanes(around: HandleState | None, at: Place | None, now: float) -> None:
    """Record progress at a place for the loop around it there, or for all loops if there is none."""
    if around is None:
        return
    node: HandleState | None = around
    operation, place = around.operation, key_of(at)
    while node is not None:
        if node._lanes is not None:
            lanes = open_lanes(node)
            for key, lane in lanes.items():
                if place == key or place not in lanes:
                    lane.moved_at = max(lane.moved_at, now)
        node = node._parent if node is not operation else None


def _counts_otherwise(node: HandleState) -> bool:
    """Whether it counts beside its loops, so that the counts belong to none of them."""
    return bool(
        node._counts_itself
        or node._advanced
        or node._recorded
        or node._uncounted
        or (node._extras and node._extras.units)
    )


def _moved_at(node: HandleState) -> float:
    """When an innermost handle moved: by its own counts, or by those made around it on its behalf."""
    return max(node._moved_at, node._counted_at)


def _alone(live: LiveBranch) -> LiveBranch:
    """The only branch: counts made around it count for it, whatever it counts itself."""
    return live._replace(moved_at=_moved_around(live.node, live.moved_at))


def _moved_around(node: HandleState, latest: float) -> float:
    """When a handle moved, or anything was counted around it."""
    operation = node.operation
    above = node._parent if node is not operation else None
    while above is not None:
        latest = max(latest, above._counted_at)
        above = above._parent if above is not operation else None
    return latest


def _is_suspended(node: HandleState) -> bool:
    """Whether it belongs to a suspended generator."""
    around: HandleState | None = node
    while around is not None and not around._suspended:
        around = around._parent if around is not around.operation else None
    return around is not None


def _most_overdue(waits: Iterable[DeclaredWait]) -> DeclaredWait:
    """The wait that is due first; without limits, the newest."""
    return min(reversed(tuple(waits)), key=lambda wait: wait.due)


def loop_of(node: HandleState) -> Loop | None:
    """The loop of a branch in this handle, or of a handle around it."""
    repeats = who_loops(node)
    return None if repeats is None else repeats._loop


def who_loops(node: HandleState) -> HandleState | None:
    """The nearest handle, from this one outward, that is caught in a loop which this one takes part in."""
    around: HandleState | None = node
    while around is not None and (
        around._loop is None or (around is not node and not around._loops.involves(node, around))
    ):
        around = around._parent if around is not around.operation else None
    return around


# -- limits


def stall_after(node: HandleState) -> float | None:
    """The allowed idle time of a branch in this handle: named, set for all work, learned, or usual for its kind."""
    named = named_stall_after(node)
    if named is None:
        named = hooks.stall_after
    if named is not None:
        return None if math.isinf(named) else named
    usual, learned = node._usual_limit, node._learned
    if usual == math.inf:
        return None
    if learned is None or learned.stall_after is None or (usual is not None and not learned.by_runs):
        return usual
    return learned.stall_after


def named_stall_after(node: HandleState) -> float | None:
    """The named limit of a handle or the nearest one around it; infinity if it may idle."""
    operation, passed = node.operation, []
    around: HandleState | None = node
    limit: float | None = None
    while around is not None and limit is None:
        limit = around._named_limit
        if limit is None:
            passed.append(around)
            limit = around._opts.stall_after
            around = around._parent if around is not operation else None
    if node._status is not Status.PENDING:  # what is around it is known for good
        for each in passed:
            each._named_limit = NOWHERE if limit is None else limit
    return None if limit is None or limit == NOWHERE else limit
