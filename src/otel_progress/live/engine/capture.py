"""Capture: turns handles into snapshots; the one place where handles become values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from otel_progress.live import hooks, redaction, standstill
from otel_progress.live.counting import plain_advanced
from otel_progress.live.engine import branch_verdicts, labels, learning, resources
from otel_progress.live.engine.last_stage import until_all_end
from otel_progress.live.engine.limits import slow_limit
from otel_progress.live.engine.progress import progress_of
from otel_progress.live.engine.sampling import sample
from otel_progress.live.registry import registry
from otel_progress.live.running import STAGES, fold, innermost, left_out
from otel_progress.live.survey import Survey, begun, passed_over
from otel_progress.model.health import NOT_MOVING, judge, plainly_moves
from otel_progress.model.plan import StagePlan
from otel_progress.model.snapshot import Progress, Snapshot, StageSnapshot
from otel_progress.model.stage_runs import Runs, StageRuns
from otel_progress.model.status import Status
from otel_progress.model.tallies import MESSAGES
from otel_progress.model.values import EMPTY, Attributes, Number, without_noise

if TYPE_CHECKING:
    from otel_progress.live.state import HandleState, OperationState, StageState


def capture(operation: OperationState, now: float, now_ns: int, *, curve: bool = True) -> Snapshot:
    """The snapshot of an operation at a monotonic time (s) and a timestamp (ns); without its `curve` if so said."""
    labels.ask(operation)
    survey = Survey(operation)  # it may run code of the user's number, which must not hold the lock
    with registry.lock:
        snapshot = _capture(operation, now, now_ns, survey, curve)
    if plainly_moves(snapshot):
        return snapshot  # its fields say so already
    verdict = judge(snapshot, snapshot.timestamp)
    object.__setattr__(snapshot, "health", verdict.health)
    object.__setattr__(snapshot, "health_reason", verdict.reason if verdict.troubled else None)
    object.__setattr__(snapshot, "overdue", verdict.overdue)
    return _without_eta(snapshot) if verdict.health in NOT_MOVING else snapshot


def _without_eta(snapshot: Snapshot) -> Snapshot:
    """Remove the ETA and rate of what is stuck; other stages that move keep theirs."""
    stuck = f"{snapshot.stage}/" if snapshot.stage is not None else ""
    stages = tuple(
        replace(stage, progress=replace(stage.progress, eta=None, rate=None))
        if stuck.startswith(f"{stage.path}/")
        else stage
        for stage in snapshot.stages
    )
    return replace(snapshot, progress=replace(snapshot.progress, eta=None, rate=None), stages=stages)


def _capture(operation: OperationState, now: float, now_ns: int, survey: Survey, curve: bool) -> Snapshot:
    if operation._stages is not None and len(operation._stages) > STAGES:
        fold(operation)
    end = now if operation._ended is None else operation._ended
    start = operation._created if operation._started is None else operation._started
    options = operation._opts
    more = operation._extras
    seen = branch_verdicts.see(operation, end)
    current = seen.node if seen.troubled else innermost(operation)
    others = survey.of(operation).others
    status = operation._status
    if operation._started is not None and not operation._started_ns:
        operation._started_ns = now_ns - int((now - operation._started) * 1e9)
    progress = progress_of(operation, now, survey)
    shown, folded = _listed(operation, now)
    stages = _stages(operation, shown, now, survey)
    if status is Status.RUNNING and stages:
        progress, stages = until_all_end(progress, stages)
    return Snapshot(
        operation_id=operation.id,
        name=operation._text_name,
        status=Status.WAITING if seen.waiting and status is Status.RUNNING else status,
        timestamp=now_ns / 1e9,
        attempt=operation.attempt,
        parent_id=operation.parent_id,
        sequence=operation._sequence,
        reason=operation._reason,
        hint=operation._hint,
        started_at=operation._started_ns / 1e9 if operation._started is not None else None,
        elapsed=max(0.0, end - start),
        **seen.shown,
        **slow_limit(operation),
        start_within=options.start_within,
        stage=None if current is operation else current._path,
        message=_message(current),
        description=redaction.described(options.description),
        agent=options.agent,
        progress=progress,
        stages=stages,
        folded=_folded(operation, folded, now),
        branches=seen.branches,
        outcomes=_outcomes(operation),
        counters=Attributes(others) if others else EMPTY,
        usage=EMPTY if more is None or not more.usage else _spent(more.usage),
        result=EMPTY if more is None else more.result,
        attributes=EMPTY if more is None else more.attributes,
        notes=tuple(operation._notes or ()),
        heartbeat_at=None if more is None else more.beat_at,
        cancel_requested=operation._cancel_reason is not None,
        span=hooks.tracing.ids(operation) if operation._span is not None else None,
        repeated=_repeated(operation),
        **_told(operation, end - start, progress.completed, curve),
        resources=resources.sampler.of(operation, end),
        child_outcomes=_child_outcomes(operation),
        update_pause=operation._update_pause or None,
        observed=not hooks.takes_requests(operation),
    )


def capture_stage(stage: StageState, now: float) -> StageSnapshot:
    """The snapshot of one stage at a monotonic time (s)."""
    operation = stage._op
    if operation is not None and not operation._announced and not operation._status.final:
        sample(operation, now)  # nobody else looks
    if operation is not None:
        labels.ask(operation)
    plain_advanced(stage)
    with registry.lock:
        return _stage(stage, now, Survey(operation))


def _told(operation: OperationState, seconds: float, completed: Number | None, curve: bool) -> dict[str, Any]:
    """Records by component, failures by message, and progress over time."""
    more, known = operation._extras, operation._curve
    out: dict[str, Any] = {} if known is None or not curve else {"curve": known.until(seconds, completed)}
    if more is not None and more.components:
        out["components"] = tuple((name, Attributes(counts)) for name, counts in more.components.items())
    if more is not None and more.failures:
        out["failures"] = more.failures.top(MESSAGES - 1)
    return out


def _spent(usage: Mapping[str, Number]) -> Attributes:
    """Tokens and cost."""
    return Attributes({key: without_noise(n) for key, n in dict(usage).items()})


def _outcomes(node: HandleState) -> Attributes:
    """The outcomes it recorded; if it recorded none, the number of child operations that failed."""
    if node._extras is not None and node._extras.outcomes:
        return Attributes(node._extras.outcomes)
    failed = 0 if node._nested is None else node._nested.failed
    return Attributes({"failed": failed}) if failed else EMPTY


def _child_outcomes(node: HandleState) -> Attributes:
    """How the child operations of this process ended."""
    nested = node._nested
    return EMPTY if nested is None or nested.ends is None else Attributes(nested.ends)


def _message(node: HandleState | None) -> str | None:
    while node is not None:
        if node._current_step is not None:
            return node._current_step
        if node.operation is node:
            return None
        node = node._parent
    return None


# -- stages


def _stages(
    operation: OperationState, listed: list[StageState], now: float, survey: Survey
) -> tuple[StageSnapshot, ...]:
    """The stages that started, then planned ones that did not; at most `STAGES` in all."""
    ran = [_seen(stage, now, survey) for stage in listed]
    plan = operation._opts.plan
    if plan is not None:
        known = begun(operation)  # those that run as child operations are shown there
        over = passed_over(plan, known)
        for stage in plan.stages:
            if stage.name not in known and len(ran) < STAGES:
                skipped = operation._status.final or stage.name in over
                ran.append(_pending(operation, stage, skipped=skipped))
    return tuple(ran)


def _listed(operation: OperationState, now: float) -> tuple[list[StageState], list[StageState]]:
    """The stages that are listed, at most `STAGES`, and the others.

    Beyond that number, those that are stuck, loop, or wait for too long come first, then the newest.
    """
    stages = list(operation._stages or ())
    if len(stages) <= STAGES:
        return stages, []
    branches = dict(operation._stuck_branches or {})
    paths = {stuck.label for stuck in branches.values()}
    overdue = {node for wait, node in tuple((operation._pauses or {}).items()) if now >= wait.due}
    bad = [
        stage
        for stage in stages
        if stage in branches or stage._path in paths or stage in overdue or stage._loop is not None
    ]
    kept = set(bad[-STAGES:])
    for stage in reversed(stages):
        if len(kept) >= STAGES:
            break
        kept.add(stage)
    return [stage for stage in stages if stage in kept], [stage for stage in stages if stage not in kept]


def _folded(operation: OperationState, others: list[StageState], now: float) -> tuple[tuple[str, int, float], ...]:
    """Number and seconds, by status, of the stages that are not listed."""
    folded = dict(operation._folded or {})
    for stage in others:
        count, seconds = folded.get(stage.status.value, (0, 0.0))
        folded[stage.status.value] = (count + 1, seconds + (stage._ended or now) - (stage._started or now))
    return tuple((status, count, round(seconds, 3)) for status, (count, seconds) in sorted(folded.items()))


def _repeated(operation: OperationState) -> tuple[StageRuns, ...]:
    """The ended runs of each path that has more than one, in the order of their first run."""
    stages = operation._stages
    if stages is None:
        return ()
    gone = sum(count for count, _ in (operation._folded or {}).values())
    made_of = len(stages), gone, len(operation._running or ())
    known = operation._repeated
    if known is None or known[0] != made_of:
        known = operation._repeated = (made_of, _runs(operation))
    found: tuple[StageRuns, ...] = known[1]
    return found


def _runs(operation: OperationState) -> tuple[StageRuns, ...]:
    """The same, counted anew."""
    folded = operation._runs
    by_path: dict[str, list[StageState]] = {path: [] for path in folded or ()}
    ended = [stage for stage in list(operation._stages or ()) if stage._status.final and not left_out(stage)]
    for stage in ended:
        by_path.setdefault(stage._path or stage.name, []).append(stage)
    if not folded and len(by_path) == len(ended):
        return ()
    found: list[StageRuns] = []
    for path, told in by_path.items():
        before = folded.get(path) if folded else None
        if len(told) + (before.count if before else 0) > 1:
            runs = Runs()
            if before:
                runs.merge(before)
            for stage in told:
                runs.add(stage._status.value, max(0.0, (stage._ended or 0.0) - (stage._started or 0.0)))
            found.append(runs.seen(path, before.count if before else 0))
    return tuple(found)


def _pending(operation: OperationState, stage: StagePlan, *, skipped: bool) -> StageSnapshot:
    expected = stage.expected if skipped or stage.expected is not None else _usual(operation, stage.name)
    return StageSnapshot(
        name=stage.name,
        path=stage.name,
        status=Status.SKIPPED if skipped else Status.PENDING,
        progress=Progress(None, stage.total, stage.unit or "item"),
        planned=True,
        weight=stage.weight,
        expected=expected,
        description=redaction.described(stage.description),
        critical=stage.critical,
        depends_on=stage.depends_on,
    )


def _usual(operation: OperationState, stage: str) -> float | None:
    """How long earlier runs took for a stage, in seconds."""
    before = learning.learning.learned(operation, stage)
    return None if before is None else before.durations.quantile(0.5) or None


def _seen(stage: StageState, now: float, survey: Survey) -> StageSnapshot:
    """The snapshot of a stage; once its end was told it is always the same, unless children go on in it."""
    if not stage._end_told or (stage._nested is not None and stage._nested.ends is not None):
        return _stage(stage, now, survey)
    known, made_of = stage._last_snapshot, (stage._text_name, stage.operation._opts.plan)
    if known is None or known[:2] != made_of:
        known = stage._last_snapshot = (*made_of, _stage(stage, now, survey))
    snapshot: StageSnapshot = known[2]
    return snapshot


def _stage(stage: StageState, now: float, survey: Survey) -> StageSnapshot:
    end = now if stage._ended is None else stage._ended
    started = now if stage._started is None else stage._started
    others = survey.of(stage).others
    options, more = stage._opts, stage._extras
    plan = stage.operation._opts.plan
    planned_stage = None
    if plan is not None and stage._parent is stage._op:
        position = plan.index(stage.name)
        planned_stage = None if position is None else plan.stages[position]
    wait = stage._waits[-1].seen(now) if stage._waits and not stage._status.final else None
    idle_until = standstill.awake(end if wait is None else end - wait.elapsed)
    expected = options.expected or (planned_stage.expected if planned_stage else None)
    name = stage._text_name
    used = None if stage._used is None else resources.sampler.of(stage, end)
    return StageSnapshot(
        name=name,
        path=name if stage._started is None else stage._path or stage.name,  # before the start it has no parent
        status=stage.status,
        progress=progress_of(stage, now, survey),
        planned=planned_stage is not None,
        weight=options.weight if options.weight is not None else (planned_stage.weight if planned_stage else None),
        expected=expected,
        started_at=None if stage._started is None else stage._started_ns / 1e9,
        elapsed=max(0.0, end - started),
        idle=max(0.0, idle_until - max(started, stage._moved_at, stage._counted_at)),
        stall_after=None if options.stall_after is None or math.isinf(options.stall_after) else options.stall_after,
        description=redaction.described(options.description or (planned_stage.description if planned_stage else None)),
        message=stage._current_step,
        reason=stage._reason,
        critical=options.critical and (planned_stage is None or planned_stage.critical),
        depends_on=options.depends_on or (planned_stage.depends_on if planned_stage else ()),
        wait=wait,
        outcomes=_outcomes(stage),
        counters=Attributes(others) if others else EMPTY,
        attributes=EMPTY if more is None else more.attributes,
        span_id=_span_id(stage),
        cpu_seconds=None if used is None else used.cpu_seconds,
        peak_memory=None if used is None else used.peak_memory,
        usage=EMPTY if more is None or not more.spent else _spent(more.spent),
        child_outcomes=_child_outcomes(stage),
    )


def _span_id(stage: StageState) -> str | None:
    if stage._span is None or stage._status.final:
        return None
    ids = hooks.tracing.ids(stage)
    return None if ids is None else ids.span_id
