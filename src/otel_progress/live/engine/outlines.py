"""The ETA from the stages and child operations of earlier runs, which no plan names (`model/outline.py`).

The ticker notes what starts and ends inside each handle; at the end of a completed handle that is learned.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from otel_progress.live.engine import learning
from otel_progress.live.nested_counts import NO_DIGITS
from otel_progress.live.running import children, host_of
from otel_progress.model.estimate import Estimate
from otel_progress.model.outline import STAGES, StageSoFar, names_ended

if TYPE_CHECKING:
    from otel_progress.live.state import HandleState, OperationState
    from otel_progress.model.outline import Outline

MANY: Final = 16
"""With more running stages or children than this, none is asked for its own estimate."""
DEPTH: Final = 4
"""Levels of handles that are asked for their own estimate."""

SOON: Final = 0.8
"""The part of its usual time after which a stage may be late: if the others before it were quicker than usual."""

Ask = Callable[["HandleState", int], "Estimate | None"]
"""Returns the estimate of a running stage or child, which may itself ask as many levels as the number says."""


def worked(node: HandleState, moment: float) -> float:
    """Seconds from its start to a moment, without declared waits and without the time in which the process stood."""
    return max(0.0, moment - (node._started or moment) - node._stood - node._slept)


def begun(node: HandleState) -> None:
    """Note that a stage or a child operation started in the handle around it."""
    around = _around(node)
    if around is None or node._started is None:
        return
    kept = around._inner
    if kept is None:
        kept = around._inner = {}
    stage = kept.get(node.name)
    if stage is None:
        if len(kept) >= STAGES:
            return
        before = frozenset(names_ended(kept))
        stage = kept[node.name] = StageSoFar(first=worked(around, node._started), before=before)
    stage.started += 1
    stage.running += 1


def ended(node: HandleState) -> None:
    """Note that a stage or a child operation ended in the handle around it."""
    around = _around(node)
    stage = None if around is None or around._inner is None else around._inner.get(node.name)
    if stage is None or around is None or node._ended is None:
        return
    stage.running = max(0, stage.running - 1)
    stage.until = max(stage.until, worked(around, node._ended))


def _around(node: HandleState) -> HandleState | None:
    """The handle of this process in which a stage or a child operation was started, if any."""
    around = host_of(node) if node is node.operation else node._parent or node._op
    return None if around is node else around


def known(node: HandleState) -> Outline | None:
    """What earlier runs taught about the stages of a handle; None if that is nothing, or this is part of a run."""
    before = learning.learning.learned(node.operation, learning.stage_of(node))
    outline = None if before is None else before.outline
    return outline if outline is not None and outline.stages and not node._restored else None


def late_in(stage: HandleState, now: float) -> float:
    """Seconds until a running stage has run for as long as its plan or earlier runs say; infinity if nobody knows."""
    around = _around(stage)
    if around is None:
        return math.inf
    plan = around._opts.plan
    index = None if plan is None else plan.index(stage.name)
    usual = None if plan is None or index is None else plan.stages[index].expected
    if usual is None:
        outline = known(around)
        known_stage = None if outline is None else outline.stages.get(stage.name)
        usual = None if known_stage is None else known_stage.span
    return math.inf if usual is None else max(0.0, SOON * usual - worked(stage, now))


def tempo(node: HandleState) -> float:
    """How long the ended stages around a stage took, as a multiple of earlier runs."""
    around = _around(node)
    outline = None if around is None else known(around)
    return 1.0 if outline is None or around is None else outline.tempo(dict(around._inner or {}))


def left(node: HandleState, outline: Outline, now: float, ask: Ask, depth: int = 0) -> Estimate | None:
    """The time left of a handle by its earlier runs; None if this run goes another way or their time is over."""
    seen = dict(node._inner or {})  # the ticker may add to it meanwhile
    inside, own = running_in(node), dict[str, Estimate]()
    for inner in inside if len(inside) <= MANY and depth < DEPTH else ():
        found = ask(inner, depth + 1)
        if found is not None and (inner.name not in own or found.eta > own[inner.name].eta):
            own[inner.name] = found
    return outline.left(seen, worked(node, now), own)


def side_by_side(node: HandleState, ask: Ask, depth: int = 0) -> Estimate | None:
    """The time left of the longest of all that runs inside a handle, if nothing tells of more to come.

    That is so while things of different kinds run side by side, each has an estimate, and none began after another one
    had ended. Those of one kind (`task 1`, `task 2`) may be the first ones of a pool.
    """
    seen = dict(node._inner or {})  # the ticker may add to it meanwhile
    kinds = {name.translate(NO_DIGITS) for name in seen}
    if not 1 < len(seen) == len(kinds) <= MANY or depth >= DEPTH:
        return None
    if any(one.started > 1 or one.before for one in seen.values()):
        return None
    inside = running_in(node)
    if len(inside) > sum(one.running for one in seen.values()):
        return None  # one has begun that was not noted yet
    found = [ask(inner, depth + 1) for inner in inside]
    known = [one for one in found if one is not None]
    if not known or len(known) < len(found):
        return None
    last = max(known, key=lambda one: one.eta)
    low, high = max(one.low for one in known), max(one.high for one in known)
    return replace(last, low=low, high=high) if last.eta else None


def running_in(node: HandleState) -> list[HandleState]:
    """The stages and child operations of this process that run directly inside a handle."""
    operation: OperationState = node.operation
    stages = (stage for stage in tuple(operation._running or ()) if (stage._parent or operation) is node)
    return [*stages, *(child for child in children(operation) if (host_of(child) or operation) is node)]
