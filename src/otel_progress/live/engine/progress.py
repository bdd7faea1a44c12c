"""How far an operation or a stage is, and when it will be done."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_progress.live.below import Below, around
from otel_progress.live.branches import Lookup, paused_since
from otel_progress.live.handle import Handle
from otel_progress.live.running import innermost
from otel_progress.model import values
from otel_progress.model.estimate import Estimate, Pace, planned
from otel_progress.model.health import STUCK
from otel_progress.model.plan import Plan
from otel_progress.model.snapshot import Progress
from otel_progress.model.status import Status
from otel_progress.model.values import Number

if TYPE_CHECKING:
    from otel_progress.live.operation import Operation
    from otel_progress.live.stage import Stage

ALMOST: Final = 0.9999
"""The most that is shown before the end, of what was left at the last fall of the raw ratio."""
DEPTH: Final = 16
"""The deepest that child operations are followed."""
MANY: Final = 1_000
"""A total above this counts no stages: nobody has so many."""
OVER: Final = 1.5
"""So many times the total, stages may count in all; with more, they count something else."""
FEW: Final = 2
"""Stages of different kinds that may make up one unit, such as training and validation of an epoch."""

_NOTHING: Final = Handle._advanced
_BELOW_ONE: Final = math.nextafter(1.0, 0.0)


# -- what was counted


class Measure(NamedTuple):
    """How far a handle is, from its own counts and from what runs inside it.

    Attributes:
        completed: units done, or None where that is not known.
        total: units in all, or None where that is not known.
        unit: what is counted.
        others: counts in other units.
        raw: from 0 to 1, or None where no ratio is known.
        reached: `completed`, and the part of the next unit that is done; the pace goes by it.
    """

    completed: Number | None
    total: Number | None
    unit: str
    others: Mapping[str, Number]
    raw: float | None
    reached: Number | None = None


class _Inside(Below):
    """What is known of the inside of a handle: what ended there, and what runs."""

    __slots__ = ("ahead", "fraction", "kids", "running")

    def __init__(self, kept: Below | None) -> None:
        super().__init__()
        if kept is not None:
            self.sums, self.child_sums = dict(kept.sums), dict(kept.child_sums)
            self.counted, self.children = kept.counted, kept.children
            self.largest, self.bare, self.planned = kept.largest, kept.bare, dict(kept.planned)
            self.kinds, self.again = set(kept.kinds), kept.again
        self.running = 0
        self.ahead: Number = 0
        self.fraction = 0.0
        self.kids: list[Operation] = []

    def sum_in(self, unit: str | None) -> Number:
        return self.sums.get(unit, 0) + self.child_sums.get(unit, 0)


class Survey:
    """How far an operation and its stages are, read once, from the inside out.

    An outer count that nobody moved takes what its stages counted in its unit. What runs inside one that counts by
    itself is a part of its next unit.
    """

    def __init__(self, operation: Operation | None, depth: int = 0) -> None:
        """Read the counts of an operation, `depth` operations deep in others; without one, nothing runs."""
        self._depth = depth
        self._measures: dict[int, Measure] = {}
        self._inside: dict[int, _Inside] = {}
        self.lookup = Lookup()
        if operation is not None:
            self._read(operation, depth)

    def _read(self, operation: Operation, depth: int) -> None:
        for child in _children(operation) if depth < DEPTH else ():
            host = child._host() or operation
            if host.operation is operation:
                final = host is not operation and host._status.final
                self._open(around(host) if final else host).kids.append(child)
        for stage in reversed(tuple(operation._running or ())):
            outer = around(stage)
            if id(stage) not in self._inside and _says_nothing(stage) and not outer._part[1]:
                continue
            self._measures[id(stage)] = measure = self._measure(stage)
            inside = self._open(outer)
            inside.running += 1
            inside.take(stage, self._inside.pop(id(stage), stage._below))
            inside.ahead += max(0, (measure.total or 0) - (measure.completed or 0))
            if measure.raw is not None and _is_inner(stage, outer):
                inside.fraction += measure.raw
        self._measures[id(operation)] = self._measure(operation)
        self._inside.clear()

    def of(self, node: Handle) -> Measure:
        """How far the operation, or one of its stages is."""
        return self._measures.get(id(node)) or self._measure(node)

    def _open(self, node: Handle) -> _Inside:
        inside = self._inside.get(id(node))
        if inside is None:
            inside = self._inside[id(node)] = _Inside(node._below)
        return inside

    def _measure(self, node: Handle) -> Measure:
        done, total, others = node._progress()
        inside = self._inside.get(id(node)) or (None if node._below is None else _Inside(node._below))
        plan: Plan | None = getattr(node._opts, "plan", None)  # type: ignore[attr-defined]
        if inside is None and plan is None and node._ratio is None and node._status is not Status.COMPLETED:
            return _plain(node, done, total, others)
        found = Measure(done, total, node._unit, others, node._ratio, done)
        if inside is not None and inside.kids and (total or node._unit_named or plan is not None):
            self._take_children(node, inside, plan)
        if node._ratio is None:
            if done is not None:
                found = _counted(node, found, inside)
            elif inside is not None:
                found = _from_inside(node, found, inside)
            if found.raw is None and plan is not None:
                found = found._replace(raw=self._planned(node, plan, inside))
            elif done is None and total and found.raw is None:
                found = found._replace(raw=0.0)
            if found.completed is None and total is not None and plan is None:
                found = found._replace(completed=0)
        return found if node._status is not Status.COMPLETED else _ended(found, done, node._ratio)

    def _take_children(self, host: Handle, inside: _Inside, plan: Plan | None) -> None:
        """Add how far the child operations are that run in it."""
        for child in inside.kids:
            measure = Survey(child, self._depth + 1).of(child)
            unit = measure.unit if child._unit_named else None
            if measure.completed is not None:
                inside.child_sums[unit] = inside.child_sums.get(unit, 0) + measure.completed
            if plan is not None and plan.index(child.name) is not None:
                inside.planned[child.name] = measure.raw or 0.0
            if measure.raw is not None and _is_inner(child, host):
                inside.fraction += measure.raw

    def _planned(self, operation: Any, plan: Plan, inside: Below | None) -> float:
        """The ratio by the plan, from stages and child operations of its names."""
        parts = {name: (ratio, None) for name, ratio in (inside.planned.items() if inside is not None else ())}
        for name, stage in (operation._weighed or {}).items():
            done = 1.0 if stage._status is Status.COMPLETED else self.of(stage).raw or 0.0
            parts[name] = (done, stage._opts.weight)
        return _phase_ratio(plan, parts) if plan.starts is not None else _weighted_ratio(plan, parts)


def _says_nothing(stage: Handle) -> bool:
    """Whether nobody counted in a stage, nor said how much there is: it adds nothing to what is around it."""
    return (
        stage._advanced is _NOTHING
        and stage._below is None
        and stage._lanes is None
        and stage._more is None
        and stage._total is None
        and stage._ratio is None
        and not stage._own
        and not stage._recorded
    )


def settled(node: Handle) -> Measure:
    """How far one is in which nothing runs any more."""
    return Survey(None).of(node)


def _children(operation: Operation) -> Iterable[Operation]:
    """The child operations that were started in this process and run."""
    return operation._children.alive() if operation._children else ()


def _is_inner(inner: Handle, outer: Handle) -> bool:
    """Whether the inner one may be a part of the next units of the outer.

    It is not where the outer counted more since it began than others ended there: then both count the same.
    """
    advanced, base, ended = inner._began
    over = 0 if outer._below is None else outer._below.ended
    try:
        return bool(outer._advanced + outer._base - advanced - base <= over - ended)
    except Exception:
        return False


def _plain(node: Handle, done: Number | None, total: Number | None, others: Mapping[str, Number]) -> Measure:
    """Of one that runs and has nothing but its own counts."""
    if done is None:
        return Measure(None if total is None else 0, total, node._unit, others, 0.0 if total else None)
    return Measure(done, total, node._unit, others, min(1.0, done / total) if total else None, done)


def _counted(node: Handle, found: Measure, inside: _Inside | None) -> Measure:
    """Of one that counts by itself."""
    total, done = found.total, found.completed or 0
    if not total:
        return found
    reached = done if inside is None else done + _part(node, done, total, inside)
    return found._replace(raw=min(1.0, reached / total), reached=reached)


def _from_inside(node: Handle, found: Measure, inside: _Inside) -> Measure:
    """Of one that counts nothing by itself, from what is inside it."""
    total = found.total
    done, unit = _summed(node, total, inside)
    known = done if done and _same(total, done, inside) else inside.sum_in(node._unit) if node._unit_named else None
    if known:
        raw = min(1.0, known / total) if total else None
        return found._replace(completed=known, unit=unit if known == done else node._unit, raw=raw, reached=known)
    part = _part(node, inside.children, total, inside) if total else 0.0
    if not total or not (inside.children or part or inside.kids):
        return found
    reached = min(total, inside.children + part)
    raw = reached / total
    if done and inside.largest <= total:
        raw = min(raw, done / total)  # a first stage that may be one unit, or count some of them
    return found._replace(completed=inside.children, raw=raw, reached=reached)


def _summed(node: Handle, total: Number | None, inside: _Inside) -> tuple[Number, str]:
    """What was counted inside it in what may be its unit, and that unit."""
    unit = node._unit
    if total is None:
        return 0, unit
    sums = inside.sums if total <= MANY else {key: inside.sum_in(key) for key in (*inside.sums, *inside.child_sums)}
    if node._unit_named:
        return sums.get(unit, 0) + sums.get(None, 0), unit
    named = [key for key in sums if key is not None]
    if len(named) != 1:
        return sums.get(None, 0), unit
    return sums[named[0]] + sums.get(None, 0), named[0]


def _same(total: Number | None, done: Number, inside: _Inside) -> bool:
    """Whether stages are known to count the units of the handle around them, and none of them is such a unit."""
    if total is None or inside.largest > total:
        return False
    if total > MANY or total != int(total) or inside.largest == total:
        return True
    if done + inside.ahead > OVER * total:
        return False
    return inside.bare or (inside.counted > 0 and (inside.again or inside.counted > FEW))


def _part(node: Handle, done: Number, total: Number, inside: _Inside) -> float:
    """What is done of the next units; it doesn't fall until they are counted."""
    fraction = min(inside.fraction, max(1, inside.running + len(inside.kids)))
    if node._part[0] == done:
        fraction = max(fraction, node._part[1])
    if fraction:
        node._part = (done, fraction)
    return max(0.0, min(fraction, total - done))


def _ended(found: Measure, own: Number | None, ratio: float | None) -> Measure:
    """Of one that completed: all is done, unless its count says otherwise."""
    done, total = found.completed, found.total
    if own is None and not done:
        found, done = found._replace(completed=None), None
    short = done is not None and total and done < total and ratio is None
    return found._replace(raw=done / total if short else 1.0)  # type: ignore[operator]


# -- ratio

_Parts = Mapping[str, "tuple[float, float | None]"]


def _weighted_ratio(plan: Plan, parts: _Parts) -> float:
    furthest = passed(plan, parts)
    reached = whole = 0.0
    for position, stage in enumerate(plan.stages):
        ratio, weight = parts.get(stage.name, (None, None))
        if ratio is None and position < furthest:
            continue
        weight = stage.weight if weight is None else weight
        whole += weight
        reached += weight * (ratio or 0.0)
    for name, (ratio, weight) in parts.items():
        if weight is not None and plan.index(name) is None:
            whole += weight
            reached += weight * ratio
    return min(1.0, reached / whole) if whole else 0.0


def _phase_ratio(plan: Plan, parts: _Parts) -> float:
    starts = (*(plan.starts or ()), 1.0)
    latest = passed(plan, parts)
    ratio, _ = parts.get(plan.stages[latest].name, (None, None))
    if ratio is None:
        return 0.0
    start, end = starts[latest], starts[latest + 1]
    if ratio >= 1:
        return end
    return start + (end - start) * ratio if plan.interpolate else start


def passed(plan: Plan, begun: Collection[str]) -> int:
    """The position of the furthest planned stage that has started; what stands before it and has not, is skipped."""
    return max((i for i, stage in enumerate(plan.stages) if stage.name in begun), default=0)


def begun(operation: Operation) -> Collection[str]:
    """The names of stages and child operations that take part in the ratio and have started."""
    names = dict.fromkeys(operation._weighed or ())
    if operation._opts.plan is not None:
        names |= dict.fromkeys(operation._below.planned if operation._below is not None else ())
        names |= dict.fromkeys(
            child.name for child in _children(operation) if (child._host() or operation) is operation
        )
    return names.keys()


def shown_ratio(node: Handle, raw: float | None) -> float | None:
    """The raw ratio so that it never falls: after each fall, its rest is mapped onto the rest of the shown one.

    One that completed shows 1, or what its count says where that stayed below its total. One that ended otherwise
    with all units done shows none: 99% would say that something was left.
    """
    if node._status is Status.COMPLETED:
        node._shown = 1.0 if raw is None or raw >= 1 else max(node._shown or 0.0, raw)
        return node._shown
    shown = node._shown if raw is None else _mapped(node, raw)
    return None if node._status.final and shown is not None and shown >= ALMOST else shown


def _mapped(node: Handle, raw: float) -> float:
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
    if _is_alone(node):
        reached: float | None = node._progress()[0]
    else:
        found = _surveyed(node.operation, now).of(node)
        reached = found.reached if _by_count(node, found) else found.raw
    if reached is None:
        return
    if node._pace is None:
        if not reached:
            return
        node._pace = Pace(node._started or now)
    node._pace.observe(now, float(reached))


def _is_alone(node: Handle) -> bool:
    """Whether it only counts: nothing runs or ran inside it, and no ratio or plan says how far it is."""
    operation = node.operation
    running = operation._running
    if node._below is not None or operation._children or node._ratio is not None:
        return False
    if node is operation:
        return operation._opts.plan is None and (not running or _runs_one_that_says_nothing(operation, running))
    return innermost(operation) is node


def _runs_one_that_says_nothing(operation: Operation, running: Collection[Stage]) -> bool:
    return len(running) == 1 and not operation._part[1] and _says_nothing(innermost(operation))


def _surveyed(operation: Operation, now: float) -> Survey:
    """The survey of this moment; stages that run side by side share it."""
    if not operation._running:
        return Survey(operation)
    if operation._surveyed is None or operation._surveyed[0] != now:
        operation._surveyed = (now, Survey(operation))
    survey: Survey = operation._surveyed[1]
    return survey


def _by_count(node: Handle, found: Measure) -> bool:
    """Whether the pace is that of a count, not that of a ratio."""
    if found.reached is None:
        return False
    return bool(found.total) or (node._ratio is None and getattr(node._opts, "plan", None) is None)  # type: ignore[attr-defined]


def eta(node: Handle, found: Measure, now: float, survey: Survey) -> Estimate | None:
    """When a handle will be done: by its plan where that names times for all that is left, else by its pace.

    None where nothing is left, and while it stands still for longer than its pace explains.
    """
    operation = node.operation
    if node._status is not Status.RUNNING or (node is operation and operation._health in STUCK):
        return None
    now = min(now, paused_since(node, now, survey.lookup) or now)
    options = node._opts  # type: ignore[attr-defined]
    plan: Plan | None = getattr(options, "plan", None)
    if plan is not None and not node._own and not found.total:
        by_plan = _plan_eta(plan, node, now, survey)
        if by_plan is not None:
            return by_plan if by_plan.eta > 0 else None
    pace = node._pace
    if pace is None:
        expected = getattr(options, "expected", None)
        return planned([(expected, now - (node._started or now))], 0, 0) if expected else None
    reached = float(found.reached or 0)
    if _by_count(node, found):
        return pace.estimate(found.total - reached, now, 1.0, reached) if found.total else None
    return pace.estimate(1 - found.raw, now, 0.0, found.raw) if found.raw is not None else None


def _plan_eta(plan: Plan, operation: Any, now: float, survey: Survey) -> Estimate | None:
    """The time the plan leaves, where it names an expected time for each stage that is not over."""
    weighed = operation._weighed or {}
    furthest = passed(plan, begun(operation))
    over = operation._below.planned if operation._below is not None else {}
    left: list[tuple[float, float]] = []
    measured: float | None = None
    actual = expected = 0.0
    for position, stage in enumerate(plan.stages):
        run = weighed.get(stage.name)
        if run is None:
            if position < furthest or stage.name in over:
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
            known = survey.of(run)
            own = eta(run, known, now, survey) if run._pace is not None else None
            if own is not None:
                measured = (measured or 0.0) + own.eta
            elif known.total and known.reached is not None and known.reached >= known.total:
                measured = measured or 0.0
            elif run._pace is not None and run._pace.idle(now, float(known.reached or 0)):
                return None
            else:
                left.append((stage.expected, now - (run._started or now)))
    return planned(left, actual, expected, measured)


def progress_of(node: Handle, now: float, survey: Survey) -> Progress:
    """The progress of a handle as a value."""
    found = survey.of(node)
    rate = node._pace.rate if node._pace is not None and _by_count(node, found) else None
    done, total = found.completed, found.total
    if done is not None:
        done = min(done, values.INT_MAX)
    if total is not None:
        total = min(total, values.INT_MAX)
    left = eta(node, found, now, survey)
    return Progress(done, total, found.unit, shown_ratio(node, found.raw), found.raw, rate, left)
