"""A parent whose child operations run in other processes: only the monitor knows that it waits for them.

Its own process can't see such children, so it calls the parent stuck when nothing else moves. That verdict holds only
where no child elsewhere explains the silence: the parent is as well as the worst of its active children there, and
after the last of them has ended it has its own `stall_after` to notice. Children in the parent's own process are that
process's own business; they count here only where the monitor knows better than that process, for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Final

from otel_progress.model.health import STUCK, Verdict
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Health
from otel_progress.monitor.ledger import Entry, Ledger

DEPTH: Final = 16
"""The deepest that children are followed."""
STOPPED: Final = frozenset({Health.SILENT, Health.LOOPING, Health.DEAD})
"""A child of which this is true is why its parent makes no progress."""
_WORST: Final = (Health.DEAD, Health.SILENT, Health.LOOPING, None, Health.SLOW, Health.UNKNOWN, Health.PROGRESSING)
"""The order of what decides among several children; None stands for an overdue wait, waiting comes last."""


@dataclass(frozen=True)
class Judgement(Verdict):
    """A verdict that rests on more than what its own process said.

    Attributes:
        child: the id of the child operation that decided.
        frozen: the process is proven to be stopped.
    """

    child: str | None = None
    frozen: bool = False

    @classmethod
    def of(
        cls, verdict: Verdict, *, detail: str | None = None, child: str | None = None, frozen: bool = False
    ) -> Judgement:
        """The same verdict with more evidence."""
        known = {one.name: getattr(verdict, one.name) for one in fields(Verdict)}
        return cls(**{**known, "detail": detail or verdict.detail}, child=child, frozen=frozen)


class Children:
    """What children in other processes mean for a parent that its own process calls stuck."""

    def __init__(self, ledger: Ledger, own: Callable[[Entry, float], Verdict]) -> None:
        """`own` is the verdict on an operation from what its own process says."""
        self._ledger = ledger
        self._own = own

    def instead(self, entry: Entry, own: Verdict, now: float) -> Verdict:
        """The verdict on one whose own one is that it is stuck."""
        return self._instead(entry, own, now, {entry.head.operation_id})

    def _instead(self, entry: Entry, own: Verdict, now: float, above: set[str]) -> Verdict:
        found = [(child, self._of(child, now, above)) for child in self._open(entry, above)]
        elsewhere = [(child, verdict) for child, verdict in found if _counts(entry, child, verdict)]
        if len(elsewhere) < len(found) and any(
            verdict.health in STOPPED for child, verdict in found if not _counts(entry, child, verdict)
        ):
            return own  # a child in the parent's own process is stuck: the process is right
        if elsewhere:
            if _has_another_hang(entry.snapshot, [child.snapshot for child, _ in elsewhere]):
                return own
            child, verdict = min(elsewhere, key=lambda one: _rank(one[1]))
            return _waits(own, child, verdict)
        ended = self._ended_last(entry)
        if ended is not None and own.allowed is not None and now - ended.heard_at < own.allowed:
            since = max(0.0, now - ended.heard_at)
            detail = f"its child {name_of(ended)} in another process ended {since:.0f} s ago"
            return Judgement(
                Health.PROGRESSING, "stall_after", since, own.allowed, False, "idle", own.source, own.seen, detail,
                child=ended.head.operation_id,
            )  # fmt: skip
        return own

    def _of(self, child: Entry, now: float, above: set[str]) -> Verdict:
        own = self._own(child, now)
        if own.health is not Health.SILENT or len(above) >= DEPTH:
            return own
        return self._instead(child, own, now, above | {child.head.operation_id})

    def _open(self, entry: Entry, above: set[str]) -> Iterator[Entry]:
        for key in tuple(self._ledger.children.get(entry.head.operation_id, ())):
            child = self._ledger.operations.get(key)
            if child is not None and child.open and key not in above:
                yield child

    def _ended_last(self, entry: Entry) -> Entry | None:
        """The child elsewhere that ended last."""
        known = self._ledger.operations.get
        ended = [
            child
            for key in tuple(self._ledger.children.get(entry.head.operation_id, ()))
            if (child := known(key)) is not None and not child.open and child.instance != entry.instance
        ]
        return max(ended, key=lambda child: child.heard_at, default=None)


def _counts(parent: Entry, child: Entry, verdict: Verdict) -> bool:
    """Whether a child explains its parent's silence: it runs elsewhere, or it waits for one that does."""
    return child.instance != parent.instance or isinstance(verdict, Judgement)


def _has_another_hang(parent: Snapshot, children: list[Snapshot]) -> bool:
    """Whether a branch of the parent is stuck that provably waits for none of these children.

    The span above a child is that of the stage that started it, where the context was carried there. Only where that is
    known of all of them can a stuck branch be one that waits for none.
    """
    stuck = [branch.path or "" for branch in parent.branches if branch.health in STUCK and branch.child is None]
    if len(parent.branches) < 2 or not stuck:
        return False
    spans = {stage.span_id: stage.path for stage in parent.stages if stage.span_id and not stage.status.final}
    hosts = [None if child.span is None else spans.get(child.span.parent_id or "") for child in children]
    if None in hosts:
        return False
    return any(all(path != host and not path.startswith(f"{host}/") for host in hosts) for path in stuck)


def _waits(own: Verdict, child: Entry, verdict: Verdict) -> Judgement:
    """What follows for a parent from the child that decides."""
    health = Health.SILENT if verdict.health in STOPPED else verdict.health
    detail = f"waits for child {name_of(child)} in another process, which {said_of(verdict)}"
    key = child.head.operation_id
    if health is Health.SILENT:
        return Judgement.of(own, detail=detail, child=key)
    return Judgement(
        health, overdue=verdict.overdue, seconds=own.seconds, clock="child", seen=own.seen, detail=detail, child=key
    )


def name_of(entry: Entry) -> str:
    """The name and the id of an operation, as evidence."""
    head = entry.head
    return head.name if head.name == head.operation_id else f"{head.name}/{head.operation_id}"


_SAID: Final = {
    Health.PROGRESSING: "is progressing",
    Health.WAITING: "waits",
    Health.SLOW: "is slow",
    Health.SILENT: "is stuck",
    Health.LOOPING: "is looping",
    Health.DEAD: "is dead",
    Health.UNKNOWN: "is not heard just now",
}


def said_of(verdict: Verdict) -> str:
    """A verdict as the end of a sentence, with its evidence where somebody should look."""
    if verdict.clock == "pending" and verdict.health is Health.WAITING:
        return "has not started"
    said = "waits for longer than it may" if verdict.overdue else _SAID[verdict.health]
    return f"{said} ({verdict.reason})" if verdict.troubled and verdict.reason else said


def _rank(verdict: Verdict) -> int:
    """What decides among several children: the lower, the worse."""
    health = None if verdict.overdue else verdict.health
    return _WORST.index(health) if health in _WORST else len(_WORST)
