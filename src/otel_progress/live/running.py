"""The stages of an operation that run now, and how many are kept."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from otel_progress.live.registry import registry
from otel_progress.model.repeats import FoldedRuns
from otel_progress.model.status import Status

if TYPE_CHECKING:
    from otel_progress.live.handle import Handle
    from otel_progress.live.operation import Operation
    from otel_progress.live.stage import Stage

NEAR: Final = 8
"""Handles around one that hear of its steps, beside the operation."""
STAGES: Final = 64
"""Stages that a snapshot tells one by one."""
KEPT_BAD: Final = 32
"""Stages that did not complete and are told one by one before any other that ended."""


def innermost(operation: Operation) -> Handle:
    """The stage that started last and still runs, else the operation."""
    running = operation._running
    if not running:
        return operation
    try:
        return next(reversed(running))
    except (StopIteration, RuntimeError):  # it changes in another thread
        known = tuple(running)
        return known[-1] if known else operation


def around(node: Handle) -> list[Handle]:
    """A handle and what it runs in: the nearest ones, and the operation."""
    operation, found = node.operation, [node]
    while found[-1] is not operation:
        above = found[-1]._parent if len(found) < NEAR else operation
        found.append(operation if above is None else above)
    return found


def is_inside(stage: Handle, outer: Handle) -> bool:
    """Whether a stage runs below another handle, at any depth."""
    operation = stage.operation
    above = stage._parent
    while above is not None and above is not outer and above is not operation:
        above = above._parent
    return above is outer


def fold(operation: Operation) -> None:
    """Keep `STAGES` stages; of the others only counts and time, by status and by path.

    Those that run stay. Of those that ended the oldest go first: runs of a path that comes again, then others that
    completed, then those that did not; of these the newest `KEPT_BAD` stay to the last.
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
            runs.add(stage._path or stage.name, status, spent)
            del stages[position]


def _order(stages: list[Stage], runs: FoldedRuns) -> list[int]:
    """The places of the stages that ended, first those that are folded first."""
    ended = [(place, stage) for place, stage in enumerate(stages) if stage._status.final]
    bad = [place for place, stage in ended if stage._status is not Status.COMPLETED]
    kept = frozenset(bad[-KEPT_BAD:])
    paths = [stage._path for _, stage in ended]
    times = Counter(paths)
    once = {path for path, count in times.items() if count < 2 and path not in runs}
    ranked = [(2 if place in kept else int(path in once), place) for (place, _), path in zip(ended, paths, strict=True)]
    ranked.sort()
    return [place for _, place in ranked]
