"""What stages and child operations leave to the handle around them when they end, so that outer counts go on.

Written by the thread in which something ends, read by the ticker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

from otel_progress import semconv
from otel_progress.live.drops import drops
from otel_progress.live.registry import registry
from otel_progress.model import values
from otel_progress.model.status import Status
from otel_progress.model.values import Number

if TYPE_CHECKING:
    from otel_progress.live.handle import Handle

Units: TypeAlias = "dict[str | None, Number]"
"""Counts by the unit that was named; None where none was."""
KINDS: Final = 16
"""Kinds of stages that are remembered."""
_NO_DIGITS: Final = str.maketrans("", "", "0123456789")


class Below:
    """What was counted inside a handle.

    Attributes:
        sums: units that stages counted.
        ended: stages with something to say, and child operations, that ended.
        counted: how many stages counted at all.
        largest: the largest total that one of them had.
        bare: whether one counted by `advance` alone, without a total of its own.
        child_sums: units that child operations counted.
        children: child operations that ended.
        kinds: names of stages that counted, without their numbers; at most 16.
        again: whether one of a kind came again.
        planned: how far child operations came that the plan names, as a ratio; the newest run of each name.
    """

    __slots__ = ("again", "bare", "child_sums", "children", "counted", "ended", "kinds", "largest", "planned", "sums")

    def __init__(self) -> None:
        """Nothing yet."""
        self.sums: Units = {}
        self.counted = 0
        self.ended = 0
        self.largest: Number = 0
        self.bare = False
        self.kinds: set[str] = set()
        self.again = False
        self.child_sums: Units = {}
        self.children = 0
        self.planned: dict[str, float] = {}

    def take(self, stage: Handle, below: Below | None) -> bool:
        """Add what a stage counted, and in units that it did not count, what was counted inside it; whether it was."""
        done, total, others = stage._progress()
        if done is None and not others and below is None:
            return False
        units: Units = {}
        if below is not None:
            units.update(below.sums)
            for unit, amount in below.child_sums.items():
                units[unit] = units.get(unit, 0) + amount
            self.largest = max(self.largest, below.largest)
            self.bare = self.bare or (below.bare and stage._total is None)
        units.update(others)
        if done is not None:
            units[stage._unit if stage._unit_named else None] = done
            self.largest = max(self.largest, total or 0)
            self.bare = self.bare or (total is None and stage._lanes is None)
        add(self.sums, units)
        kind = stage.name.translate(_NO_DIGITS)
        self.again = self.again or kind in self.kinds
        if len(self.kinds) < KINDS:
            self.kinds.add(kind)
        return bool(units)


def below(node: Handle) -> Below:
    """What was counted inside a handle, made when it is needed first."""
    if node._below is None:
        vars(node).setdefault("_below", Below())  # one step, so that two threads get the same
    found: Below = vars(node)["_below"]
    return found


def leave(stage: Handle) -> None:
    """A stage ended: what it counted stays with what runs around it; not of one that failed and was all of it."""
    outer = around(stage)
    if stage._status is Status.FAILED and stage._total is not None and stage._total == outer._total:
        return  # all of it has to come again
    stage._plain_advanced()  # it may run code of the user's number, which must not hold the lock
    kept = below(outer)
    with registry.lock:
        kept.ended += 1
        kept.counted += kept.take(stage, stage._below)


def around(node: Handle) -> Handle:
    """The nearest handle around it that runs, else its operation."""
    operation = node.operation
    outer = node._parent
    while outer is not None and outer is not operation and outer._status is not Status.RUNNING:
        outer = outer._parent
    return outer or operation


def add(sums: Units, units: Mapping[str | None, Number]) -> None:
    """Add counts to others, within the number of units that are kept."""
    for unit, amount in units.items():
        if unit in sums or len(sums) < values.ATTRIBUTE_COUNT:
            sums[unit] = min(sums.get(unit, 0) + amount, values.INT_MAX)
        else:
            drops.add(semconv.DROP_ATTRIBUTE)
