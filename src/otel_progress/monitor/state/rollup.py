"""The figures of an operation, including all operations below it, in whatever process.

Cost, tokens and the number of children add up. Its own process knows best how far it is, including children in that
process; the monitor counts children only if they run in other processes. Small falls do not
move the shown ratio back: `show` is the rule of the process, too, and what was shown is all that is stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from otel_progress.model.estimate import Estimate
from otel_progress.model.health import NOT_MOVING
from otel_progress.model.ratio import held
from otel_progress.model.snapshot import Progress, Snapshot
from otel_progress.model.status import Status
from otel_progress.model.values import Number, finite
from otel_progress.monitor.state.child_estimates import ChildWork, by_children

DEPTH: Final = 16
"""The most levels that are followed."""
MOST: Final = 10_000
"""The most operations that are rolled up into one."""
_COST: Final = "cost."
_BEHIND: Final = 1
"""How many ended children the count of the parent may be off: the ends arrive one by one."""
_KNOWN_BEFORE: Final = frozenset({"history", "plan"})
"""Sources of an ETA that its own process knows without counting anything."""


class Shown(NamedTuple):
    """The ratio shown in an attempt."""

    value: float


def show(before: Shown | None, raw: float) -> Shown:
    """The ratio to show for a raw ratio, after what was shown before: small falls do not move it back."""
    return Shown(held(None if before is None else before.value, raw))


@dataclass
class Whole:
    """The figures of an operation and its children.

    Attributes:
        ratio: the raw ratio from 0 to 1: its own, or that of its children; None if neither is known, as that of
            children is without a total.
        completed: completed units, if its children are these units.
        eta: its own, or that of its children by the longest path.
        rolled_up: whether the ratio comes from its children.
        cost: the cost of it and all below it, by currency.
        tokens: the tokens used by it and all below it, by direction.
        children: the number of its children.
        idle: seconds since the newest progress of it, or of what is below it in other processes, whose end is progress.
    """

    ratio: float | None = None
    completed: Number | None = None
    eta: Estimate | None = None
    rolled_up: bool = False
    cost: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)
    children: int = 0
    idle: float = math.inf


class Part(NamedTuple):
    """An operation, its process, whether its figures may be seen, and since how many seconds it is so, or has ended."""

    snapshot: Snapshot
    instance: str = ""
    visible: bool = True
    later: float = 0.0


Below = Callable[[str], Iterable[Part]]
"""Returns the children of an operation."""


def roll_up(part: Part, below: Below, most: int = MOST) -> Whole:
    """Roll up an operation with all operations below it, `most` operations in all."""
    return _Roll(below, most).up(part, 0)


class _Roll:
    """One roll-up; each operation counts once, even if parents form a cycle."""

    def __init__(self, below: Below, most: int) -> None:
        self._below = below
        self._most = most
        self._seen: set[str] = set()

    def up(self, part: Part, depth: int) -> Whole:
        snapshot = part.snapshot
        self._seen.add(snapshot.operation_id)
        whole = Whole(_raw(snapshot.progress), eta=_eta_of(part), idle=_idle(part))
        if part.visible:
            _add(whole, snapshot.usage)
        parts: list[tuple[Part, Whole]] = []
        if depth < DEPTH:
            below = self._below(snapshot.operation_id)
            parts.extend((child, self.up(child, depth + 1)) for child in below if self._is_new(child.snapshot))
        for child, one in parts:
            whole.children += child.visible
            if child.visible and child.instance != part.instance:
                whole.idle = min(whole.idle, one.idle)
            for mine, theirs in ((whole.cost, one.cost), (whole.tokens, one.tokens)):
                for key, amount in theirs.items():
                    _raise(mine, key, amount)
        elsewhere = any(child.instance != part.instance or one.rolled_up for child, one in parts)
        if elsewhere and (not _counts(snapshot) or _counts_children(snapshot, [child.snapshot for child, _ in parts])):
            _infer(whole, snapshot, parts)
        return whole

    def _is_new(self, snapshot: Snapshot) -> bool:
        return snapshot.operation_id not in self._seen and len(self._seen) < self._most


def _eta_of(part: Part) -> Estimate | None:
    """Its own ETA now; it stands still while the operation waits."""
    seen = part.snapshot
    return (seen.progress if seen.wait is not None else seen.progress.after(part.later, seen.update_pause)).eta


def _idle(part: Part) -> float:
    """Seconds since it made progress, or reported its end; infinity if it has done neither."""
    seen = part.snapshot
    if _is_done(seen):
        return part.later
    return seen.idle + seen.still(part.later) if seen.status is Status.RUNNING else math.inf


def _infer(whole: Whole, snapshot: Snapshot, given: list[tuple[Part, Whole]]) -> None:
    """The progress of an operation from children that its own process cannot count."""
    parts = [(child.snapshot, one) for child, one in given]
    found = _by_total(snapshot, parts) if snapshot.progress.total else (None, None)  # nobody said how many they are
    own = snapshot.progress.completed
    earlier = whole.eta if own or (whole.eta is not None and whole.eta.source in _KNOWN_BEFORE) else None
    if found[0] is None:
        if not whole.ratio:
            whole.ratio = None  # the process counted nothing, and what its children did is not known
            whole.eta = earlier
        return
    only_ended = own is None and snapshot.status is Status.COMPLETED  # then its own ratio says no more than that
    whole.ratio, whole.completed = max(found[0], 0.0 if only_ended else whole.ratio or 0.0), own or found[1]
    whole.rolled_up = True
    whole.eta = _eta(snapshot, given) or earlier


def _by_total(snapshot: Snapshot, parts: list[tuple[Snapshot, Whole]]) -> tuple[float | None, Number | None]:
    """By the operation's own total: of its children, or of the units that they count."""
    total, unit = snapshot.progress.total or 0, snapshot.progress.unit
    counts = [child.progress.completed for child, _ in parts if child.progress.unit == unit != "item"]
    known = [count for count in counts if count is not None]
    if known:
        done = sum(known)
        return min(1.0, done / total), done
    if len(parts) > total:
        return None, None  # it is a total of something else
    ratios = [_ratio_of(child, one) or 0.0 for child, one in parts]
    return min(1.0, sum(ratios) / total), sum(_is_done(child) for child, _ in parts)


def _is_done(child: Snapshot) -> bool:
    """Whether a child is over and reported its end: one that was lost is not completed."""
    return child.status.final and child.status is not Status.LOST


def _ratio_of(child: Snapshot, part: Whole) -> float | None:
    """The ratio of a child: 1 if it reported its end, the last known one if it was lost, 0 if it has not started."""
    if _is_done(child):
        return 1.0
    if part.ratio is None:
        return 0.0 if child.status in (Status.PENDING, Status.LOST) else None
    return min(max(part.ratio, 0.0), 1.0)


def _eta(snapshot: Snapshot, parts: list[tuple[Part, Whole]]) -> Estimate | None:
    """The ETA that the children give together."""
    work = [_work(child, one) for child, one in parts]
    return by_children(work, _ahead(snapshot, [(child.snapshot, one) for child, one in parts]), snapshot.timestamp)


def _work(child: Part, whole: Whole) -> ChildWork:
    seen = child.snapshot
    over, began = seen.status.final, seen.started_at
    return ChildWork(
        spent=seen.elapsed + (0.0 if over else child.later),
        eta=None if over else whole.eta,
        began=began,
        over=over,
        whole=seen.status is Status.COMPLETED,
        pending=seen.status is Status.PENDING,
        stands=seen.health in NOT_MOVING,
    )


def _ahead(snapshot: Snapshot, parts: list[tuple[Snapshot, Whole]]) -> float | None:
    """How many children are to come that are not known; None if the operation has no total.

    If the total counts units of the children, the rest of it is as many children as have had such a share so far.
    """
    total = snapshot.progress.total
    if not total:
        return None
    shares = _shares(snapshot, parts)
    if not shares:
        return max(0.0, float(total) - len(parts))
    given = sum(shares)
    return max(0.0, (float(total) - given) * len(shares) / given) if given > 0 else None


def _shares(snapshot: Snapshot, parts: list[tuple[Snapshot, Whole]]) -> list[float]:
    """How many units of the operation's own kind each child does; empty if they count something else."""
    unit = snapshot.progress.unit
    if unit == "item":
        return []
    counted = [child.progress for child, _ in parts if child.progress.unit == unit]
    return [float(one.total or one.completed or 0) for one in counted if one.completed is not None]


def _counts(snapshot: Snapshot) -> bool:
    """Whether it counts by itself, so that its children are not all there is to do."""
    own = snapshot.progress
    if own.completed or (own.ratio and own.total is None):
        return True
    return any(_stage_counts(snapshot))


def _counts_children(snapshot: Snapshot, children: Sequence[Snapshot]) -> bool:
    """Whether what it counts are its children, one unit as each ends: then they know more of the rest than its pace."""
    own = snapshot.progress
    if not own.total or not own.completed or len(children) > own.total or any(_stage_counts(snapshot)):
        return False
    done = sum(_is_done(child) for child in children)
    return done > 0 and abs(own.completed - done) <= _BEHIND


def _stage_counts(snapshot: Snapshot) -> Iterable[bool]:
    """For each stage that runs, whether it counts."""
    return (
        stage.progress.completed is not None or stage.progress.total is not None
        for stage in snapshot.stages
        if stage.has_run and not stage.status.final
    )


def _raw(progress: Progress) -> float | None:
    return progress.ratio if progress.ratio_raw is None else progress.ratio_raw


def _add(whole: Whole, usage: Mapping[str, Any]) -> None:
    for key, amount in usage.items():
        if not finite(amount):
            continue
        if key.startswith(_COST):
            currency = key[len(_COST) :]
            _raise(whole.cost, currency, amount)
        elif key.endswith("_tokens"):
            direction = key[: -len("_tokens")]
            _raise(whole.tokens, direction, amount)


def _raise(sums: dict[str, float], key: str, amount: float) -> None:
    total = sums.get(key, 0) + amount
    if finite(total):
        sums[key] = total
