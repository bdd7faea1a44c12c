"""What runs inside and around a handle: stages, children, parents; and how many stages are kept."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from otel_progress.live.records import Parent
from otel_progress.live.registry import registry
from otel_progress.live.state import HandleState, StageState
from otel_progress.model.stage_runs import DONE_BEFORE, FoldedRuns
from otel_progress.model.status import Status

if TYPE_CHECKING:
    from otel_progress.live.state import OperationState

STEPS_NEAR: Final = 8
"""Handles around one that record its steps, beside the operation."""
MOVES_NEAR: Final = 64
"""Handles around one whose progress its own thread records; the ticker does so for those farther out."""
_MOVES_NEAR: Final = range(MOVES_NEAR)
STAGES: Final = 64
"""Stages that a snapshot lists."""
KEPT_BAD: Final = 32
"""Stages that did not complete and are listed before any other that ended."""


def innermost(operation: OperationState) -> HandleState:
    """The running stage that started last, else the operation."""
    running = operation._running
    if not running:
        return operation
    try:
        return next(reversed(running))
    except (StopIteration, RuntimeError):  # it changes in another thread
        known = tuple(running)
        return known[-1] if known else operation


def around(node: HandleState) -> list[HandleState]:
    """A handle and those around it: the nearest ones, and the operation."""
    operation, found = node.operation, [node]
    while found[-1] is not operation:
        above = found[-1]._parent if len(found) < STEPS_NEAR else operation
        found.append(operation if above is None else above)
    return found


def is_inside(stage: HandleState, outer: HandleState) -> bool:
    """Whether a stage is inside another handle, at any depth."""
    operation = stage.operation
    above = stage._parent
    while above is not None and above is not outer and above is not operation:
        above = above._parent
    return above is outer


def children(operation: OperationState) -> list[OperationState]:
    """The running child operations that were started in this process."""
    return operation._children.alive() if operation._children else []


def host_of(operation: OperationState) -> HandleState | None:
    """The operation or stage of this process in which an operation was started, if any.

    What a forked child inherited is of its parent process.
    """
    given = operation._opts.parent
    host = given if isinstance(given, HandleState) else operation._parent if given is None else None
    if host is None or (isinstance(host, StageState) and host._op is None):
        return None
    return host if registry.owns(host.operation) else None


def parent_of(operation: OperationState) -> OperationState | None:
    """The operation of this process that an operation is a part of, if any."""
    host = host_of(operation)
    if host is not None:
        return host.operation
    given = operation._opts.parent
    key = given.operation_id if isinstance(given, Parent) else given
    return None if key is None else registry.find(key)


def touch(operation: OperationState, node: HandleState | None, now: float) -> None:
    """Record progress of an operation, of a handle in it, and of the handles around that one.

    Of very deep stages the ticker records it for those farther out.
    """
    operation._moved_at = now
    for _ in _MOVES_NEAR:
        if node is None or node is operation:
            return
        node._moved_at = now
        node = node._parent


def fold(operation: OperationState) -> None:
    """Keep `STAGES` stages, and of the others only number and time, by status and by path.

    Running stages stay. Of those that ended, the oldest go first: runs of a path that was run again, then other
    completed ones, then the rest; the newest `KEPT_BAD` of those go last.
    """
    with registry.lock:
        stages = operation._stages or []
        excess = len(stages) - STAGES
        if excess <= 0:
            return
        folded = operation._folded = operation._folded or {}
        runs = operation._runs = FoldedRuns() if operation._runs is None else operation._runs
        gone = sorted(_order(stages[:], runs)[:excess])
        for position in reversed(gone):
            stage = stages[position]
            status, spent = stage._status.value, (stage._ended or 0.0) - (stage._started or 0.0)
            count, seconds = folded.get(status, (0, 0.0))
            folded[status] = (count + 1, seconds + spent)
            if not left_out(stage):
                runs.add(stage._path or stage.name, status, spent)
            del stages[position]


def left_out(stage: StageState) -> bool:
    """Whether an earlier attempt had completed it: it did not run, so its time is none of a run."""
    return stage._message == DONE_BEFORE and stage._status is Status.COMPLETED


def _order(stages: list[StageState], runs: FoldedRuns) -> list[int]:
    """The indices of ended stages, in the order in which they are folded."""
    ended = [(place, stage) for place, stage in enumerate(stages) if stage._status.final]
    bad = [place for place, stage in ended if stage._status is not Status.COMPLETED]
    kept = frozenset(bad[-KEPT_BAD:])
    paths = [stage._path for _, stage in ended]
    times = Counter(paths)
    once = {path for path, count in times.items() if count < 2 and path not in runs}
    ranked = [(2 if place in kept else int(path in once), place) for (place, _), path in zip(ended, paths, strict=True)]
    ranked.sort()
    return [place for _, place in ranked]
