"""What ended stages leave to the handle around them, so that outer counts include inner ones.

Written by the thread in which something ends, read by the ticker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from otel_progress import semconv
from otel_progress.live.counting import counts_records, own_progress, plain_advanced
from otel_progress.live.guard import drops
from otel_progress.live.records import NestedCounts, UnitCounts
from otel_progress.live.registry import registry
from otel_progress.model import values
from otel_progress.model.status import Status

if TYPE_CHECKING:
    from otel_progress.live.state import HandleState
    from otel_progress.model.values import Number

KINDS: Final = 16
"""Kinds of stages that are remembered."""
NO_DIGITS: Final = str.maketrans("", "", "0123456789")
"""Makes the kind of a name: `epoch ` of `epoch 12`."""


def take(into: NestedCounts, stage: HandleState, nested: NestedCounts | None) -> bool:
    """Add what a stage counted, and what was counted inside it in other units; returns whether there was anything."""
    done, total, others = own_progress(stage)
    into.begun += stage._status is not Status.FAILED
    if total and stage._status is not Status.FAILED:
        add(into.totals, {_unit_of(stage): total})
    elif nested is not None and nested.totals:
        add(into.totals, nested.totals)
    if done is None and not others and nested is None:
        return False
    into.recorded += (stage._recorded if counts_records(stage) else 0) + (0 if nested is None else nested.recorded)
    units: UnitCounts = {}
    if nested is not None:
        units.update(nested.sums)
        for unit, amount in nested.child_sums.items():
            units[unit] = units.get(unit, 0) + amount
        into.largest = max(into.largest, nested.largest)
        into.bare = into.bare or (nested.bare and stage._total is None)
    units.update(others)
    if done is not None:
        units[_unit_of(stage)] = done
        into.largest = max(into.largest, total or 0)
        into.restored += stage._restored
        into.bare = into.bare or (total is None and stage._lanes is None)
    add(into.sums, units)
    kind = stage._text_name.translate(NO_DIGITS)
    into.again = into.again or kind in into.kinds
    if len(into.kinds) < KINDS:
        into.kinds.add(kind)
    return bool(units)


def _unit_of(stage: HandleState) -> str | None:
    """The unit that a stage named; None if it counts in that of the handle around it."""
    return stage._unit if stage._unit_named else None


def nested_in(node: HandleState) -> NestedCounts:
    """The counts of what ended inside a handle, created on first use."""
    if node._nested is None:
        vars(node).setdefault("_nested", NestedCounts())  # one step, so that two threads get the same
    found: NestedCounts = vars(node)["_nested"]
    return found


def leave(stage: HandleState) -> None:
    """Leave the counts of a stage that ended to the handle around it, unless it failed and was all of its work."""
    outer = outer_of(stage)
    if stage._status is Status.FAILED and stage._total is not None and stage._total == outer._total:
        return  # all of it has to come again
    plain_advanced(stage)  # it may run code of the user's number, which must not hold the lock
    kept = nested_in(outer)
    with registry.lock:
        kept.ended += 1
        kept.counted += take(kept, stage, stage._nested)


def outer_of(node: HandleState) -> HandleState:
    """The nearest running handle around it, else its operation."""
    operation = node.operation
    outer = node._parent
    while outer is not None and outer is not operation and outer._status is not Status.RUNNING:
        outer = outer._parent
    return outer or operation


def add(sums: UnitCounts, units: Mapping[str | None, Number]) -> None:
    """Add counts to others, up to the number of units that are kept."""
    for unit, amount in units.items():
        if unit in sums or len(sums) < values.ATTRIBUTE_COUNT:
            sums[unit] = min(sums.get(unit, 0) + amount, values.INT_MAX)
        else:
            drops.add(semconv.DROP_ATTRIBUTE)
