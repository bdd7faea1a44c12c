"""The survey: the progress of an operation and its stages, from their own counts and those inside them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_progress.live.branches import Lookup
from otel_progress.live.counting import only_restored, own_progress
from otel_progress.live.nested_counts import outer_of, take
from otel_progress.live.records import NestedCounts
from otel_progress.live.running import children, host_of
from otel_progress.live.state import HandleState
from otel_progress.model.status import Status

if TYPE_CHECKING:
    from otel_progress.live.state import OperationState
    from otel_progress.model.plan import Plan
    from otel_progress.model.values import Number

DEPTH: Final = 16
"""The deepest level of child operations that is read."""
MANY: Final = 1_000
"""A total above this does not count stages: no job has as many."""
OVER: Final = 1.5
"""Stages that count more than this many times the total count something else."""
FEW: Final = 2
"""Stages of different kinds that may make up one unit, such as training and validation of an epoch."""
NOTHING: Final = HandleState._advanced
"""The count of a handle that never advanced."""


class Measure(NamedTuple):
    """The progress of a handle, from its own counts and those inside it.

    Attributes:
        completed: completed units, or None if unknown.
        total: units in all, or None if unknown.
        unit: what is counted.
        others: counts in other units.
        raw: the ratio from 0 to 1, or None if unknown.
        reached: `completed` plus the completed part of the next unit; the pace is measured by it.
        restored: those of them that an earlier run completed.
    """

    completed: Number | None
    total: Number | None
    unit: str
    others: Mapping[str, Number]
    raw: float | None
    reached: Number | None = None
    restored: Number = 0


class _Inside(NestedCounts):
    """The counts inside a handle: of what ended there, and of what runs."""

    __slots__ = ("ahead", "fraction", "kids", "running")

    def __init__(self, kept: NestedCounts | None) -> None:
        super().__init__()
        if kept is not None:
            self.sums, self.child_sums = dict(kept.sums), dict(kept.child_sums)
            self.counted, self.children = kept.counted, kept.children
            self.largest, self.bare, self.planned = kept.largest, kept.bare, dict(kept.planned)
            self.kinds, self.again, self.restored = set(kept.kinds), kept.again, kept.restored
        self.running = 0
        self.ahead: Number = 0
        self.fraction = 0.0
        self.kids: list[OperationState] = []

    def sum_in(self, unit: str | None) -> Number:
        return self.sums.get(unit, 0) + self.child_sums.get(unit, 0)


class Survey:
    """The progress of an operation and its stages, read once, from the inside out.

    A handle that counts nothing itself takes what its stages counted in its unit. What runs inside a handle that counts
    itself is part of its next unit.
    """

    def __init__(self, operation: OperationState | None, depth: int = 0) -> None:
        """Read the counts of an operation that is `depth` levels inside others; None if nothing runs."""
        self._depth = depth
        self._measures: dict[int, Measure] = {}
        self._inside: dict[int, _Inside] = {}
        self.lookup = Lookup()
        if operation is not None:
            self._read(operation, depth)

    def _read(self, operation: OperationState, depth: int) -> None:
        for child in children(operation) if depth < DEPTH else ():
            host = host_of(child) or operation
            if host.operation is operation:
                final = host is not operation and host._status.final
                self._open(outer_of(host) if final else host).kids.append(child)
        for stage in reversed(tuple(operation._running or ())):
            outer = outer_of(stage)
            if id(stage) not in self._inside and says_nothing(stage) and not outer._partial_unit[1]:
                continue
            self._measures[id(stage)] = measure = self._measure(stage)
            inside = self._open(outer)
            inside.running += 1
            take(inside, stage, self._inside.pop(id(stage), stage._nested))
            inside.ahead += max(0, (measure.total or 0) - (measure.completed or 0))
            if measure.raw is not None and _is_inner(stage, outer):
                inside.fraction += measure.raw
        self._measures[id(operation)] = self._measure(operation)
        self._inside.clear()

    def of(self, node: HandleState) -> Measure:
        """The progress of the operation or one of its stages."""
        return self._measures.get(id(node)) or self._measure(node)

    def _open(self, node: HandleState) -> _Inside:
        inside = self._inside.get(id(node))
        if inside is None:
            inside = self._inside[id(node)] = _Inside(node._nested)
        return inside

    def _measure(self, node: HandleState) -> Measure:
        done, total, others = own_progress(node)
        inside = self._inside.get(id(node)) or (None if node._nested is None else _Inside(node._nested))
        plan: Plan | None = node._opts.plan
        if inside is None and plan is None and node._ratio is None and node._status is not Status.COMPLETED:
            return _plain(node, done, total, others)
        found = Measure(done, total, node._unit, others, node._ratio, done)
        if inside is not None and inside.kids and (total or node._unit_named or plan is not None):
            self._take_children(node, inside, plan)
        if node._ratio is None:
            if done is not None and inside is not None and only_restored(node):
                found = _after_restored(node, found, inside)
            elif done is not None:
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

    def _take_children(self, host: HandleState, inside: _Inside, plan: Plan | None) -> None:
        """Add the progress of the child operations that run in a handle."""
        for child in inside.kids:
            measure = Survey(child, self._depth + 1).of(child)
            unit = measure.unit if child._unit_named else None
            if measure.completed is not None:
                inside.child_sums[unit] = inside.child_sums.get(unit, 0) + measure.completed
            if plan is not None and plan.index(child.name) is not None:
                inside.planned[child.name] = measure.raw or 0.0
            if measure.raw is not None and _is_inner(child, host):
                inside.fraction += measure.raw

    def _planned(self, operation: Any, plan: Plan, inside: NestedCounts | None) -> float:
        """The ratio by the plan, from the stages and child operations that it names."""
        parts = {name: (ratio, None) for name, ratio in (inside.planned.items() if inside is not None else ())}
        for name, stage in (operation._weighed or {}).items():
            done = 1.0 if stage._status is Status.COMPLETED else self.of(stage).raw or 0.0
            parts[name] = (done, stage._opts.weight)
        return _phase_ratio(plan, parts) if plan.starts is not None else _weighted_ratio(plan, parts)


def says_nothing(stage: HandleState) -> bool:
    """Whether a stage counted nothing and named no total, so that it adds nothing to the handle around it."""
    return (
        stage._advanced is NOTHING
        and stage._nested is None
        and stage._lanes is None
        and stage._extras is None
        and stage._total is None
        and stage._ratio is None
        and not stage._counts_itself
        and not stage._named_before
        and not stage._recorded
    )


def settled(node: HandleState) -> Measure:
    """The progress of a handle in which nothing runs any more."""
    return Survey(None).of(node)


def _is_inner(inner: HandleState, outer: HandleState) -> bool:
    """Whether the inner handle may be part of the next units of the outer one.

    It is not if the outer one counted more units since then than others ended in it: then both count the same units.
    """
    advanced, base, ended = inner._outer_at_start
    over = 0 if outer._nested is None else outer._nested.ended
    try:
        return bool(outer._advanced + outer._base - advanced - base <= over - ended)
    except Exception:
        return False


def _plain(node: HandleState, done: Number | None, total: Number | None, others: Mapping[str, Number]) -> Measure:
    """The progress of a running handle that has only its own counts."""
    if done is None:
        return Measure(None if total is None else 0, total, node._unit, others, 0.0 if total else None)
    return Measure(done, total, node._unit, others, min(1.0, done / total) if total else None, done)


def _counted(node: HandleState, found: Measure, inside: _Inside | None) -> Measure:
    """The progress of a handle that counts itself."""
    total, done = found.total, found.completed or 0
    if not total:
        return found
    part = 0.0 if inside is None else _part(node, done, total, inside)
    reached = done + part
    if inside is not None and done <= node._restored and _has_other_units(node, inside):
        part = 0.0
    return found._replace(raw=min(1.0, reached / total), reached=done + part)


def _from_inside(node: HandleState, found: Measure, inside: _Inside) -> Measure:
    """The progress of a handle that counts nothing itself, from what is inside it."""
    total = found.total
    done, unit = _summed(node, total, inside)
    known = done if done and _same(total, done, inside) else inside.sum_in(node._unit) if node._unit_named else None
    if known:
        raw = min(1.0, known / total) if total else None
        unit = unit if known == done else node._unit
        return found._replace(completed=known, unit=unit, raw=raw, reached=known, restored=inside.restored)
    part = _part(node, inside.children, total, inside) if total else 0.0
    if not total or not (inside.children or part or inside.kids):
        return found
    reached = min(total, inside.children + part)
    raw = reached / total
    if done and inside.largest <= total:
        raw = min(raw, done / total)  # a first stage that may be one unit, or count some of them
    if not inside.children and _has_other_units(node, inside):
        reached = 0.0
    return found._replace(completed=inside.children, raw=raw, reached=reached)


def _has_other_units(node: HandleState, inside: _Inside) -> bool:
    """Whether stages inside count another unit: until a first unit is done, nobody knows that they are parts of one.

    Downloading 5 files may come before 1,000 rows. The ratio has them as a part of one unit at the most; a pace that
    did would make each row take as long as the download.
    """
    return any(unit is not None and unit != node._unit for unit in inside.sums)


def _after_restored(node: HandleState, found: Measure, inside: _Inside) -> Measure:
    """The progress of a handle that names only what an earlier run completed: what is inside it counts the rest.

    Units that the stages inside name as restored, too, count once.
    """
    total, before = found.total, max(0, node._named_before - inside.restored)
    left = None if total is None else max(0, total - before)
    rest = _from_inside(node, found._replace(total=left, completed=None, reached=None), inside)
    done, reached = before + (rest.completed or 0), before + (rest.reached or 0)
    raw = min(1.0, (before + (rest.raw or 0.0) * (left or 0)) / total) if total else None
    return rest._replace(total=total, completed=done, raw=raw, reached=reached, restored=node._named_before)


def _summed(node: HandleState, total: Number | None, inside: _Inside) -> tuple[Number, str]:
    """The count inside a handle in what may be its unit, and that unit."""
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
    """Whether the stages inside count the same units as the handle, instead of being one unit each."""
    if total is None or inside.largest > total:
        return False
    if total > MANY or total != int(total) or inside.largest == total:
        return True
    if done + inside.ahead > OVER * total:
        return False
    return inside.bare or (inside.counted > 0 and (inside.again or inside.counted > FEW))


def _part(node: HandleState, done: Number, total: Number, inside: _Inside) -> float:
    """The completed part of the next units; it does not fall until they are counted."""
    fraction = min(inside.fraction, max(1, inside.running + len(inside.kids)))
    if node._partial_unit[0] == done:
        fraction = max(fraction, node._partial_unit[1])
    if fraction:
        node._partial_unit = (done, fraction)
    return max(0.0, min(fraction, total - done))


def _ended(found: Measure, own: Number | None, ratio: float | None) -> Measure:
    """The progress of a completed handle: all of it, unless its count says otherwise."""
    done, total = found.completed, found.total
    if own is None and not done:
        found, done = found._replace(completed=None), None
    short = done is not None and total and done < total and ratio is None
    return found._replace(raw=done / total if short else 1.0)  # type: ignore[operator]


# -- ratio

_Parts = Mapping[str, "tuple[float, float | None]"]


def _weighted_ratio(plan: Plan, parts: _Parts) -> float:
    skipped = passed_over(plan, parts)
    reached = whole = 0.0
    for stage in plan.stages:
        ratio, weight = parts.get(stage.name, (None, None))
        if ratio is None and stage.name in skipped:
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
    latest = _furthest(plan, parts)
    ratio, _ = parts.get(plan.stages[latest].name, (None, None))
    if ratio is None:
        return 0.0
    start, end = starts[latest], starts[latest + 1]
    if ratio >= 1:
        return end
    return start + (end - start) * ratio if plan.interpolate else start


def _furthest(plan: Plan, begun: Collection[str]) -> int:
    """The position of the furthest planned stage that started."""
    return max((i for i, stage in enumerate(plan.stages) if stage.name in begun), default=0)


def passed_over(plan: Plan, begun: Collection[str]) -> set[str]:
    """The planned stages that will not run any more, as later ones have started.

    Later ones are those that depend on it; in a plan without dependencies, all that stand behind it.
    """
    if not plan.is_parallel:
        return {stage.name for stage in plan.stages[: _furthest(plan, begun)]}.difference(begun)
    depends = {stage.name: stage.depends_on for stage in plan.stages}
    found: set[str] = set()
    left = list(begun)
    while left:
        for name in depends.get(left.pop(), ()):
            if name not in found:
                found.add(name)
                left.append(name)
    return found.difference(begun)


def begun(operation: OperationState) -> Collection[str]:
    """The names of started stages and child operations that take part in the ratio."""
    names = dict.fromkeys(operation._weighed or ())
    if operation._opts.plan is not None:
        names |= dict.fromkeys(operation._nested.planned if operation._nested is not None else ())
        names |= dict.fromkeys(
            child.name for child in children(operation) if (host_of(child) or operation) is operation
        )
    return names.keys()
