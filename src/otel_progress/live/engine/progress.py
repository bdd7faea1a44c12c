"""How far an operation or a stage is, and when it will be done."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from otel_progress.live.branches import paused_since
from otel_progress.model import values
from otel_progress.model.estimate import Estimate, Pace, planned
from otel_progress.model.health import STUCK
from otel_progress.model.plan import Plan
from otel_progress.model.snapshot import Progress
from otel_progress.model.status import Status
from otel_progress.model.values import Number

if TYPE_CHECKING:
    from otel_progress.live.node import Handle
    from otel_progress.live.stage import Stage

ALMOST: Final = 0.9999
"""The most that is shown before the end, of what was left at the last fall of the raw ratio."""

_BELOW_ONE: Final = math.nextafter(1.0, 0.0)


# -- ratio


def raw_ratio(node: Handle, done: Number | None, total: Number | None) -> float | None:
    """From 0 to 1: what was said, else completed / total, else the plan's; None without any."""
    if node._status is Status.COMPLETED:
        return 1.0
    if node._ratio is not None:
        return node._ratio
    if total and done is not None:
        return min(1.0, done / total)
    plan = getattr(node._opts, "plan", None)  # type: ignore[attr-defined]
    if plan is None:
        return None
    weighed: dict[str, Stage] = node._weighed or {}  # type: ignore[attr-defined]
    return _phase_ratio(plan, weighed) if plan.starts is not None else _weighted_ratio(plan, weighed)


def _own_ratio(stage: Stage | None) -> float:
    if stage is None:
        return 0.0
    done, total, _ = stage._progress()
    return raw_ratio(stage, done, total) or 0.0


def _weighted_ratio(plan: Plan, weighed: dict[str, Stage]) -> float:
    furthest = passed(plan, weighed)
    reached = whole = 0.0
    for position, stage in enumerate(plan.stages):
        run = weighed.get(stage.name)
        if run is None and position < furthest:
            continue
        weight = stage.weight if run is None or run._opts.weight is None else run._opts.weight
        whole += weight
        reached += weight * _own_ratio(run)
    for name, run in weighed.items():
        if plan.index(name) is None and run._opts.weight is not None:
            whole += run._opts.weight
            reached += run._opts.weight * _own_ratio(run)
    return min(1.0, reached / whole) if whole else 0.0


def _phase_ratio(plan: Plan, weighed: dict[str, Stage]) -> float:
    starts = (*(plan.starts or ()), 1.0)
    latest = passed(plan, weighed)
    run = weighed.get(plan.stages[latest].name)
    if run is None:
        return 0.0
    start, end = starts[latest], starts[latest + 1]
    if run._status is Status.COMPLETED:
        return end
    return start + (end - start) * _own_ratio(run) if plan.interpolate else start


def passed(plan: Plan, weighed: dict[str, Stage]) -> int:
    """The position of the furthest planned stage that has started; what stands before it and has not, is skipped."""
    return max((i for i, stage in enumerate(plan.stages) if stage.name in weighed), default=0)


def shown_ratio(node: Handle, raw: float | None) -> float | None:
    """The raw ratio so that it never falls: after each fall, its rest is mapped onto the rest of the shown one."""
    if node._status is Status.COMPLETED:
        node._shown = 1.0
        return 1.0
    if raw is None:
        return node._shown
    shown, scale = node._shown, node._scale
    if scale is not None:
        base, start = scale
        mapped = base + (1 - base) * (raw - start) / (1 - start) if start < 1 else base
    else:
        mapped = raw
    if shown is not None and mapped < shown:
        node._scale = (shown, min(raw, 1.0))
        mapped = shown
    base = 0.0 if node._scale is None else node._scale[0]
    most = min(base + (1 - base) * ALMOST, _BELOW_ONE)
    node._shown = shown = max(node._shown or 0.0, min(mapped, most))
    return shown


# -- progress and time


def observe(node: Handle, now: float) -> None:
    """Let the pace see how far it is."""
    done, total, _ = node._progress()
    if not _by_count(node, done, total):
        raw = raw_ratio(node, done, total)
        if raw is None:
            return
        done = raw
    if node._pace is None:
        if not done:
            return
        node._pace = Pace(node._started or now)
    node._pace.observe(now, float(done or 0))


def _by_count(node: Handle, done: Number | None, total: Number | None) -> bool:
    """Whether the pace is that of a count, not that of a ratio."""
    if done is None:
        return False
    return bool(total) or (node._ratio is None and getattr(node._opts, "plan", None) is None)  # type: ignore[attr-defined]


def eta(node: Handle, done: Number | None, total: Number | None, raw: float | None, now: float) -> Estimate | None:
    """When a handle will be done: by its plan where that names times for all that is left, else by its pace.

    None where nothing is left, and while it stands still for longer than its pace explains.
    """
    operation = node.operation
    if node._status is not Status.RUNNING or (node is operation and operation._health in STUCK):
        return None
    now = min(now, paused_since(node, now) or now)
    options = node._opts  # type: ignore[attr-defined]
    plan: Plan | None = getattr(options, "plan", None)
    if plan is not None and not node._own and not total:
        by_plan = _plan_eta(plan, node._weighed or {}, now)  # type: ignore[attr-defined]
        if by_plan is not None:
            return by_plan if by_plan.eta > 0 else None
    pace = node._pace
    if pace is None:
        expected = getattr(options, "expected", None)
        return planned([(expected, now - (node._started or now))], 0, 0) if expected else None
    if _by_count(node, done, total):
        return pace.estimate(total - (done or 0), now, 1.0, float(done or 0)) if total else None
    return pace.estimate(1 - raw, now, 0.0, raw) if raw is not None else None


def _plan_eta(plan: Plan, weighed: dict[str, Stage], now: float) -> Estimate | None:
    """The time the plan leaves, where it names an expected time for each stage that is not over."""
    furthest = passed(plan, weighed)
    left: list[tuple[float, float]] = []
    measured: float | None = None
    actual = expected = 0.0
    for position, stage in enumerate(plan.stages):
        run = weighed.get(stage.name)
        if run is None:
            if position < furthest:
                continue
            if stage.expected is None:
                return None
            left.append((stage.expected, 0.0))
        elif run._status.final:
            if stage.expected is not None and run._ended is not None and run._started is not None:
                actual, expected = actual + run._ended - run._started, expected + stage.expected
        elif stage.expected is None:
            return None
        else:
            done, total, _ = run._progress()
            own = eta(run, done, total, raw_ratio(run, done, total), now) if run._pace is not None else None
            if own is not None:
                measured = (measured or 0.0) + own.eta
            elif total and done is not None and done >= total:
                measured = measured or 0.0
            elif run._pace is not None and run._pace.idle(now, float(done or 0)):
                return None
            else:
                left.append((stage.expected, now - (run._started or now)))
    return planned(left, actual, expected, measured)


def progress_of(
    node: Handle, done: Number | None, total: Number | None, raw: float | None, eta: Estimate | None
) -> Progress:
    """The progress of a handle as a value."""
    rate = node._pace.rate if node._pace is not None and _by_count(node, done, total) else None
    if done is not None:
        done = min(done, values.INT_MAX)
    if total is not None:
        total = min(total, values.INT_MAX)
    return Progress(done, total, node._unit, shown_ratio(node, raw), raw, rate, eta)
