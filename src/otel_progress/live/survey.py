"""The survey: the progress of an operation and its stages, from their own counts and those inside them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_progress.live.branches import Lookup
from otel_progress.live.counting import counts_records, only_records, only_restored, own_progress
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
"""Stages that count more than this many times the total count something else; a total may be a bit too small."""
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
        undecided: whether nobody can tell yet what its total counts: the units of its stages, or the stages.
    """

    completed: Number | None
    total: Number | None
    unit: str
    others: Mapping[str, Number]
    raw: float | None
    reached: Number | None = None
    restored: Number = 0
    undecided: bool = False


class _Inside(NestedCounts):
    """The counts inside a handle: of what ended there, and of what runs."""

    __slots__ = ("ahead", "fraction", "kids", "over", "running")

    def __init__(self, kept: NestedCounts | None) -> None:
        super().__init__()
        if kept is not None:
            self.sums, self.child_sums = dict(kept.sums), dict(kept.child_sums)
            self.counted, self.children = kept.counted, kept.children
            self.largest, self.bare, self.planned = kept.largest, kept.bare, dict(kept.planned)
            self.kinds, self.again, self.restored = set(kept.kinds), kept.again, kept.restored
            self.recorded = kept.recorded
            self.begun, self.totals = kept.begun, dict(kept.totals)
        self.over = self.begun
        """Stages that ended and count as begun."""
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
                found = _before_records(node, found, inside) or _counted(node, found, inside)
            elif inside is not None:
                found = _from_inside(node, found, inside)
            if found.raw is None and plan is not None:
                found = found._replace(raw=self._planned(node, plan, inside))
            elif done is None and total and found.raw is None and not found.undecided:
                found = found._replace(raw=0.0)
            if found.completed is None and total is not None and plan is None and not found.undecided:
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


def by_count(node: HandleState, found: Measure) -> bool:
    """Whether the pace of a handle measures a count, not a ratio."""
    if found.reached is None:
        return False
    return bool(found.total) or (node._ratio is None and node._opts.plan is None)


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
        return found if inside is None or not inside.recorded else _with_records(node, found, done, inside)
    part = 0.0 if inside is None else _part(node, done, total, inside)
    reached = done + part
    if inside is not None and done <= node._restored and _has_other_units(node, inside):
        part = 0.0
    return found._replace(raw=min(1.0, reached / total), reached=done + part)


def _before_records(node: HandleState, found: Measure, inside: _Inside | None) -> Measure | None:
    """The count of what is inside, where it is in the unit of the handle and larger than its records; else None.

    Records as many as the stages may count these, unless the stages name the unit of the handle.
    """
    if inside is None or not only_records(node):
        return None
    done, _, whole = _summed(node, found.total, inside)
    named = node._unit_named and inside.sum_in(node._unit)
    if not named and (node._recorded <= inside.begun or not (done and _same(node, found.total, done, whole, inside))):
        return None
    bare = found._replace(completed=None, reached=None)
    rest = _after_restored(node, bare, inside) if node._named_before else _from_inside(node, bare, inside)
    return None if rest.undecided or (rest.completed or 0) <= (found.completed or 0) else rest


def _with_records(node: HandleState, found: Measure, done: Number, inside: _Inside) -> Measure:
    """Records of the handle itself and of its stages are units of one kind, unless a total says what its own count."""
    if not counts_records(node):
        return found
    done += inside.recorded
    return found._replace(completed=done, reached=done)


def _from_inside(node: HandleState, found: Measure, inside: _Inside) -> Measure:
    """The progress of a handle that counts nothing itself, from what is inside it."""
    total = found.total
    done, unit, whole = _summed(node, total, inside)
    same = _same(node, total, done, whole, inside)
    known = done if done and same else inside.sum_in(node._unit) if node._unit_named else None
    if known:
        raw = min(1.0, known / total) if total else None
        unit = unit if known == done else node._unit
        return found._replace(completed=known, unit=unit, raw=raw, reached=known, restored=inside.restored)
    each = total is not None and total > 0 and _is_one_unit_each(node, total, inside)
    unsettled = same is None or (not each and (inside.over > 0 or inside.bare))
    if done and unsettled and not (inside.children or inside.kids):
        return found._replace(undecided=True)
    ended = inside.children + (inside.over if each else 0)
    part = _part(node, ended, total, inside) if total else 0.0
    if not total or not (ended or part or inside.kids):
        return found
    reached = min(total, ended + part)
    raw = reached / total
    if not ended and _has_other_units(node, inside):
        reached = 0.0
    return found._replace(completed=ended, raw=raw, reached=reached)


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
    if rest.undecided:
        return rest._replace(total=total)
    done, reached = before + (rest.completed or 0), before + (rest.reached or 0)
    raw = min(1.0, (before + (rest.raw or 0.0) * (left or 0)) / total) if total else None
    return rest._replace(total=total, completed=done, raw=raw, reached=reached, restored=node._named_before)


def _summed(node: HandleState, total: Number | None, inside: _Inside) -> tuple[Number, str, Number]:
    """The count inside a handle in what may be its unit, that unit, and the totals of its stages in it."""
    unit, totals = node._unit, inside.totals
    if total is None:
        return 0, unit, 0
    sums = inside.sums if total <= MANY else {key: inside.sum_in(key) for key in (*inside.sums, *inside.child_sums)}
    if node._unit_named:
        return sums.get(unit, 0) + sums.get(None, 0), unit, totals.get(unit, 0) + totals.get(None, 0)
    named = [key for key in sums if key is not None]
    if len(named) != 1:
        return sums.get(None, 0), unit, totals.get(None, 0)
    unit = named[0]
    return sums[unit] + sums.get(None, 0), unit, totals.get(unit, 0) + totals.get(None, 0)


def _same(node: HandleState, total: Number | None, done: Number, whole: Number, inside: _Inside) -> bool | None:
    """Whether the stages inside count the same units as the handle, instead of being units; None if nobody can tell.

    The first evidence decides: a stage that has the name of the unit; totals that add up to that of the handle; as
    many stages as it has units; counts far beyond it; a second stage of a kind, or many stages, that it did not count.
    """
    if total is None or inside.largest > total or _has_name_of_unit(node, inside):
        return False
    if total > MANY or total != int(total) or total in (whole, _planned_total(node)):
        return True
    if _is_their_number(node, total, inside) or (inside.begun > 1 and done + inside.ahead > OVER * total):
        return False
    if whole > total:
        return None
    return True if inside.bare or _is_uncounted(inside) else None


def _is_their_number(node: HandleState, total: Number, inside: _Inside) -> bool:
    """Whether a total is the number of stages, planned or begun."""
    plan = node._opts.plan
    return total > 1 and (inside.begun == total or (plan is not None and len(plan.stages) == total))


def _has_name_of_unit(node: HandleState, inside: _Inside) -> bool:
    return node._unit_named and any(kind.strip(" #-_") == node._unit for kind in inside.kinds)


def _is_one_unit_each(node: HandleState, total: Number, inside: _Inside) -> bool:
    """Whether each stage is one unit of the handle, where they don't count its units; else several may make up one."""
    return _is_their_number(node, total, inside) or _has_name_of_unit(node, inside) or _is_uncounted(inside)


def _is_uncounted(inside: _Inside) -> bool:
    """Whether so many stages ended that a handle that counts them by itself would have done so."""
    return inside.counted > 0 and (inside.again or inside.counted > FEW)


def _planned_total(node: HandleState) -> Number | None:
    """The sum of the totals of all planned stages, if each has one."""
    plan = node._opts.plan
    totals = () if plan is None else tuple(stage.total for stage in plan.stages)
    return None if None in totals or not totals else sum(one or 0 for one in totals)


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
