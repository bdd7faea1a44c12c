"""An operation with all that runs below it, in whatever process: made from raw figures alone, and nothing is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from otel_progress.model.estimate import Estimate
from otel_progress.model.snapshot import Progress, Snapshot
from otel_progress.model.values import finite

DEPTH: Final = 16
"""The deepest that operations are followed."""
MOST: Final = 10_000
"""The most operations that one is rolled up from."""
_COST: Final = "cost."


@dataclass
class Whole:
    """What follows for an operation from itself and its children.

    Attributes:
        ratio: from 0 to 1; its own where it has one, else the mean of its children.
        eta: its own, else that of the child that takes longest.
        rolled_up: whether one of the two comes from its children.
        cost: what it and all below it cost, by currency.
        tokens: what they used, by direction.
        children: how many there are right below it.
    """

    ratio: float | None = None
    eta: Estimate | None = None
    rolled_up: bool = False
    cost: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)
    children: int = 0


Below = Callable[[str], Iterable[Snapshot]]
"""The operations right below one."""


def roll_up(snapshot: Snapshot, below: Below) -> Whole:
    """An operation with all below it."""
    return _Roll(below).up(snapshot, 0)


class _Roll:
    """One roll-up; each operation counts once, also where parents go in a circle."""

    def __init__(self, below: Below) -> None:
        self._below = below
        self._seen: set[str] = set()

    def up(self, snapshot: Snapshot, depth: int) -> Whole:
        self._seen.add(snapshot.operation_id)
        own = snapshot.progress
        whole = Whole(own.ratio if depth == 0 else _raw(own), own.eta)
        _add(whole, snapshot.usage)
        parts: list[tuple[Snapshot, Whole]] = []
        if depth < DEPTH:
            below = self._below(snapshot.operation_id)
            parts.extend((child, self.up(child, depth + 1)) for child in below if self._is_new(child))
        for _, part in parts:
            for mine, theirs in ((whole.cost, part.cost), (whole.tokens, part.tokens)):
                for key, amount in theirs.items():
                    _raise(mine, key, amount)
        whole.children = len(parts)
        if parts and not snapshot.status.final and not _counts(snapshot):
            _infer(whole, parts)
        return whole

    def _is_new(self, snapshot: Snapshot) -> bool:
        return snapshot.operation_id not in self._seen and len(self._seen) < MOST


def _infer(whole: Whole, parts: list[tuple[Snapshot, Whole]]) -> None:
    """Ratio and ETA where the operation has none of its own; a child that is over is done, however it ended.

    With all its children over, how far it is itself is not known.
    """
    if all(child.status.final for child, _ in parts):
        return
    if whole.ratio is None and any(child.status.final or part.ratio is not None for child, part in parts):
        done = sum(1.0 if child.status.final else min(max(part.ratio or 0.0, 0.0), 1.0) for child, part in parts)
        whole.ratio, whole.rolled_up = min(done / len(parts), 0.9999), True
    running = [part.eta for child, part in parts if not child.status.final]
    etas = [eta for eta in running if eta is not None]
    if whole.eta is None and etas and len(etas) == len(running):
        whole.eta = Estimate(
            max(eta.eta for eta in etas), max(eta.low for eta in etas), max(eta.high for eta in etas), "children"
        )
        whole.rolled_up = True


def _counts(snapshot: Snapshot) -> bool:
    """Whether it counts itself, in a stage that runs: then its children are not all there is to do."""
    return any(
        stage.progress.completed is not None or stage.progress.total is not None
        for stage in snapshot.stages
        if stage.started_at is not None and not stage.status.final
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
