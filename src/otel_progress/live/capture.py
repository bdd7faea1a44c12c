"""From handles to a snapshot: counts become progress, stages become a tree that stays small."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from otel_progress.live import hooks
from otel_progress.live.registry import registry
from otel_progress.model import values
from otel_progress.model.estimate import Estimate, Pace, planned
from otel_progress.model.health import judge
from otel_progress.model.plan import Plan, StagePlan
from otel_progress.model.snapshot import Progress, Snapshot, StageSnapshot, Wait
from otel_progress.model.status import Status
from otel_progress.model.values import EMPTY, Attributes, Number

if TYPE_CHECKING:
    from otel_progress.live.node import Handle
    from otel_progress.live.operation import Operation
    from otel_progress.live.stage import Stage

STAGES: Final = 64
"""Stages that a snapshot tells one by one."""
ALMOST: Final = 0.9999
"""The most that is shown before the end, of what was left at the last fall of the raw ratio."""

_BELOW_ONE: Final = math.nextafter(1.0, 0.0)


def capture(operation: Operation, now: float, now_ns: int) -> Snapshot:
    """The snapshot of an operation at a monotonic time (s) and a timestamp (ns)."""
    for node in (operation, *(operation._running or ())[-STAGES:]):
        node._plain_advanced()  # it may run code of the user's number, which must not hold the lock
    with registry.lock:
        snapshot = _capture(operation, now, now_ns)
    verdict = judge(snapshot, snapshot.timestamp)
    object.__setattr__(snapshot, "health", verdict.health)
    object.__setattr__(snapshot, "health_reason", verdict.reason if verdict.troubled else None)
    return snapshot


def _capture(operation: Operation, now: float, now_ns: int) -> Snapshot:
    if operation._stages is not None and len(operation._stages) > STAGES:
        fold(operation)
    end = now if operation._ended is None else operation._ended
    start = operation._created if operation._started is None else operation._started
    options = operation._opts
    more = operation._more
    current = innermost(operation)
    done, total, others = operation._progress()
    raw = raw_ratio(operation, done, total)
    wait = None if operation._status.final else find_wait(operation, now)
    idle_until = end if wait is None else max(operation._moved_at, end - wait.elapsed)
    status = operation._status
    if operation._started is not None and not operation._started_ns:
        operation._started_ns = now_ns - int((now - operation._started) * 1e9)
    return Snapshot(
        operation_id=operation.id,
        name=operation.name,
        status=Status.WAITING if wait is not None and status is Status.RUNNING else status,
        timestamp=now_ns / 1e9,
        attempt=operation.attempt,
        parent_id=operation.parent_id,
        sequence=operation._sequence,
        reason=operation._reason,
        started_at=operation._started_ns / 1e9 if operation._started is not None else None,
        elapsed=max(0.0, end - start),
        idle=max(0.0, idle_until - operation._moved_at),
        **_limits(operation),
        start_within=options.start_within,
        **_evidence(operation),
        stage=None if current is operation else current._path,
        message=_message(current),
        description=options.description,
        agent=options.agent,
        progress=_progress(operation, done, total, raw, eta(operation, done, total, raw, now)),
        stages=_stages(operation, now),
        folded=_folded(operation, now),
        wait=wait,
        outcomes=EMPTY if more is None or not more.outcomes else Attributes(more.outcomes),
        counters=Attributes(others) if others else EMPTY,
        usage=EMPTY if more is None or not more.usage else Attributes(more.usage),
        result=EMPTY if more is None else more.result,
        attributes=EMPTY if more is None else more.attributes,
        notes=tuple(operation._notes or ()),
        heartbeat_at=None if more is None else more.beat_at,
        cancel_requested=operation._cancel_reason is not None,
        span=hooks.tracing.ids(operation) if operation._span is not None else None,
    )


def innermost(operation: Operation) -> Handle:
    """The stage that started last and still runs, else the operation."""
    running = operation._running
    try:
        return running[-1] if running else operation
    except IndexError:
        return operation


def _limits(operation: Operation) -> dict[str, Any]:
    """The limits that count, and the sources of those that nobody named."""
    learned = operation._learned
    said = operation._opts.slow_after
    limits: dict[str, Any] = {"stall_after": named_stall_after(operation), "slow_after": said}
    if learned is not None:
        if limits["stall_after"] is None:
            limits |= {"stall_after": learned.stall_after, "stall_after_source": learned.stall_source}
        if said is None:
            limits |= {"slow_after": learned.slow_after, "slow_after_source": learned.slow_source}
    return limits


def _evidence(operation: Operation) -> dict[str, Any]:
    """The verdict that stands, and what it rests on."""
    stuck = operation._stuck
    at: dict[str, Any] = {} if stuck is None else {"stuck_at": stuck.at, "stack": stuck.stack}
    return {"health": operation._health, "loop": operation._loop, **at}


def stall_after(operation: Operation) -> float | None:
    """The idle time that counts: the limit that was named, else the learned one."""
    named = named_stall_after(operation)
    learned = operation._learned
    return named if named is not None or learned is None else learned.stall_after


def slow_after(operation: Operation) -> float | None:
    """The run time that counts: the limit that was named, else that of the plan, else the learned one."""
    named, learned = operation._opts.slow_after, operation._learned
    return named if named is not None or learned is None else learned.slow_after


def named_stall_after(operation: Operation) -> float | None:
    """The limit of the innermost running stage, else that of its parent, and so on up."""
    node: Handle | None = innermost(operation)
    while node is not None and node is not operation:
        limit: float | None = node._opts.stall_after  # type: ignore[attr-defined]
        if limit is not None:
            return limit
        node = node._parent
    return operation._opts.stall_after


def find_wait(operation: Operation, now: float) -> Wait | None:
    """The declared pause that is on: the innermost; none while a stage runs that does not wait."""
    running = operation._running
    for node in (*reversed(running or ()), operation):
        waits = node._waits
        if waits:
            if running and len(running) > 1 and not _all_wait(operation, tuple(running)):
                return None
            return waits[-1].seen(now)
    return None


def _all_wait(operation: Operation, running: tuple[Stage, ...]) -> bool:
    """Whether each innermost running stage waits, or is inside one that does."""
    inside = {stage._parent for stage in running}
    for leaf in running:
        node: Handle | None = None if leaf in inside else leaf
        while node is not None and not node._waits:
            if node is operation:
                return False
            node = node._parent
    return True


def _message(node: Handle | None) -> str | None:
    while node is not None:
        if node._message is not None:
            return node._message
        if node.operation is node:
            return None
        node = node._parent
    return None


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
    passed = _passed(plan, weighed)
    reached = whole = 0.0
    for position, stage in enumerate(plan.stages):
        run = weighed.get(stage.name)
        if run is None and position < passed:
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
    latest = _passed(plan, weighed)
    run = weighed.get(plan.stages[latest].name)
    if run is None:
        return 0.0
    start, end = starts[latest], starts[latest + 1]
    if run._status is Status.COMPLETED:
        return end
    return start + (end - start) * _own_ratio(run) if plan.interpolate else start


def _passed(plan: Plan, weighed: dict[str, Stage]) -> int:
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
    """When a handle will be done: by its plan where that names times for all that is left, else by its pace."""
    if node._status is not Status.RUNNING:
        return None
    options = node._opts  # type: ignore[attr-defined]
    plan: Plan | None = getattr(options, "plan", None)
    if plan is not None and not node._own and not total:
        by_plan = _plan_eta(plan, node._weighed or {}, now)  # type: ignore[attr-defined]
        if by_plan is not None:
            return by_plan
    pace = node._pace
    wait = find_wait(node.operation, now)
    if wait is not None:
        now -= wait.elapsed
    if pace is None:
        expected = getattr(options, "expected", None)
        return planned([(expected, now - (node._started or now))], 0, 0) if expected else None
    if _by_count(node, done, total):
        return pace.estimate(max(0, total - (done or 0)), now) if total else None
    return pace.estimate(1 - raw, now, 0.0) if raw is not None else None


def _plan_eta(plan: Plan, weighed: dict[str, Stage], now: float) -> Estimate | None:
    """The time the plan leaves, where it names an expected time for each stage that is not over."""
    passed = _passed(plan, weighed)
    left: list[tuple[float, float]] = []
    measured: float | None = None
    actual = expected = 0.0
    for position, stage in enumerate(plan.stages):
        run = weighed.get(stage.name)
        if run is None:
            if position < passed:
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
            if own is None:
                left.append((stage.expected, now - (run._started or now)))
            else:
                measured = (measured or 0.0) + own.eta
    return planned(left, actual, expected, measured)


def _progress(
    node: Handle, done: Number | None, total: Number | None, raw: float | None, eta: Estimate | None
) -> Progress:
    rate = node._pace.rate if node._pace is not None and _by_count(node, done, total) else None
    if done is not None:
        done = min(done, values.INT_MAX)
    if total is not None:
        total = min(total, values.INT_MAX)
    return Progress(done, total, node._unit, shown_ratio(node, raw), raw, rate, eta)


# -- stages


def _stages(operation: Operation, now: float) -> tuple[StageSnapshot, ...]:
    """Those that ran, then the planned ones that did not, at most `STAGES` in all."""
    ran = [_stage(stage, now) for stage in list(operation._stages or ())[-STAGES:]]
    plan = operation._opts.plan
    if plan is not None:
        weighed = operation._weighed or {}
        passed = _passed(plan, weighed)
        for position, stage in enumerate(plan.stages):
            if stage.name not in weighed and len(ran) < STAGES:
                skipped = operation._status.final or position < passed
                ran.append(_pending(stage, skipped=skipped))
    return tuple(ran)


def _folded(operation: Operation, now: float) -> tuple[tuple[str, int, float], ...]:
    """Count and seconds, by status, of the stages that are not told one by one; of those that run, the oldest."""
    folded = dict(operation._folded or {})
    for stage in (operation._stages or ())[:-STAGES]:
        count, seconds = folded.get(stage.status.value, (0, 0.0))
        folded[stage.status.value] = (count + 1, seconds + (stage._ended or now) - (stage._started or now))
    return tuple((status, count, round(seconds, 3)) for status, (count, seconds) in sorted(folded.items()))


def _pending(stage: StagePlan, *, skipped: bool) -> StageSnapshot:
    return StageSnapshot(
        name=stage.name,
        path=stage.name,
        status=Status.SKIPPED if skipped else Status.PENDING,
        progress=Progress(None, stage.total, stage.unit or "item"),
        planned=True,
        weight=stage.weight,
        expected=stage.expected,
        description=stage.description,
        critical=stage.critical,
        depends_on=stage.depends_on,
    )


def _stage(stage: Stage, now: float) -> StageSnapshot:
    end = now if stage._ended is None else stage._ended
    started = stage._started or now
    done, total, others = stage._progress()
    raw = raw_ratio(stage, done, total)
    options, more = stage._opts, stage._more
    plan = stage.operation._opts.plan
    planned_stage = None
    if plan is not None and stage._parent is stage._op:
        position = plan.index(stage.name)
        planned_stage = None if position is None else plan.stages[position]
    wait = stage._waits[-1].seen(now) if stage._waits and not stage._status.final else None
    expected = options.expected or (planned_stage.expected if planned_stage else None)
    return StageSnapshot(
        name=stage.name,
        path=stage._path or stage.name,
        status=stage.status,
        progress=_progress(stage, done, total, raw, eta(stage, done, total, raw, now)),
        planned=planned_stage is not None,
        weight=options.weight if options.weight is not None else (planned_stage.weight if planned_stage else None),
        expected=expected,
        started_at=stage._started_ns / 1e9,
        elapsed=max(0.0, end - started),
        idle=max(0.0, end - stage._moved_at) if wait is None else max(0.0, end - wait.elapsed - stage._moved_at),
        stall_after=options.stall_after,
        description=options.description or (planned_stage.description if planned_stage else None),
        message=stage._message,
        reason=stage._reason,
        critical=options.critical and (planned_stage is None or planned_stage.critical),
        depends_on=options.depends_on or (planned_stage.depends_on if planned_stage else ()),
        wait=wait,
        outcomes=EMPTY if more is None or not more.outcomes else Attributes(more.outcomes),
        counters=Attributes(others) if others else EMPTY,
        attributes=EMPTY if more is None else more.attributes,
        span_id=_span_id(stage),
    )


def _span_id(stage: Stage) -> str | None:
    if stage._span is None or stage._status.final:
        return None
    ids = hooks.tracing.ids(stage)
    return None if ids is None else ids.span_id


def fold(operation: Operation) -> None:
    """Keep the stages that run, then the newest, `STAGES` in all; of the others only counts and time by status."""
    with registry.lock:
        stages = operation._stages or []
        excess = len(stages) - STAGES
        if excess <= 0:
            return
        folded = operation._folded = operation._folded or {}
        old: list[int] = []
        for position, stage in enumerate(stages):
            if len(old) >= excess:
                break
            if stage._status.final:
                old.append(position)
        for position in reversed(old):
            stage = stages[position]
            count, seconds = folded.get(stage._status.value, (0, 0.0))
            spent = (stage._ended or 0.0) - (stage._started or 0.0)
            folded[stage._status.value] = (count + 1, seconds + spent)
            del stages[position]
