"""Parents whose child operations run in other processes: only the monitor sees that a parent waits for them.

The parent's own process cannot see such children, so it calls the parent stuck when nothing else moves. That verdict
stands only if no child in another process explains the silence: the parent is as well as the worst of its active
children there, and after the last of them has ended it has its own `stall_after` to notice. Children in the parent's
own process are judged by that process; they count here only if the monitor knows better, for the same reason.

If the trace context was passed on, the span above a child is that of the stage that started it. If that is known of
all children, each branch of the parent is judged by its own children, and the stuck one is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Final, NamedTuple

from otel_progress.model.health import NOT_MOVING, Verdict, judge_branch, rank
from otel_progress.model.snapshot import Branch, Snapshot, Wait
from otel_progress.model.status import Health
from otel_progress.monitor.state.ledger import Entry, Ledger

DEPTH: Final = 16
"""The most levels of children that are followed."""
STOPPED: Final = frozenset({Health.SILENT, Health.LOOPING, Health.DEAD})
"""A child with one of these verdicts is why its parent makes no progress."""
_WORST: Final = (Health.DEAD, Health.SILENT, Health.LOOPING, None, Health.SLOW, Health.UNKNOWN, Health.PROGRESSING)
"""The order in which verdicts of several children decide; None stands for an overdue wait, waiting comes last."""


@dataclass(frozen=True)
class Judgement(Verdict):
    """A verdict that rests on more than what the operation's own process reported.

    Attributes:
        child: the id of the child operation that decided.
        frozen: whether the process is proven to be stopped.
        wait: the wait of the child that decided, if it is overdue.
    """

    child: str | None = None
    frozen: bool = False
    wait: Wait | None = None

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
        """`own` returns the verdict on an operation from what its own process reported."""
        self._ledger = ledger
        self._own = own

    def instead(self, entry: Entry, own: Verdict, now: float) -> Verdict:
        """The verdict that replaces an operation's own verdict of being stuck."""
        return self._instead(entry, own, now, {entry.head.operation_id})

    def lines(self, entry: Entry, now: float, later: float) -> list[JudgedBranch]:
        """The branches of an operation, `later` seconds after they were reported, as judged by children elsewhere.

        Branches whose child has ended are left out.
        """
        branches = running(entry.snapshot, self._ledger).branches
        if len(branches) < 2:
            return []
        found = self._lines(entry, branches, now, {entry.head.operation_id})
        still = entry.snapshot.still(later)
        return found or [JudgedBranch(branch.later(later, still), None, _judged(branch, later)) for branch in branches]

    def changes_at(self, entry: Entry, own: Verdict, now: float, changes_at: Callable[[Entry, float], float]) -> float:
        """The earliest time at which `instead` could change by time alone.

        `changes_at` returns that time for the verdicts on the operations below, from what their own processes reported.
        """
        return self._changes_at(entry, own, now, {entry.head.operation_id}, changes_at)

    def _changes_at(
        self, entry: Entry, own: Verdict, now: float, above: set[str], changes_at: Callable[[Entry, float], float]
    ) -> float:
        branches = running(entry.snapshot, self._ledger).branches
        limits = {limit for limit in (own.allowed, *(branch.stall_after for branch in branches)) if limit is not None}
        spans = {stage.span_id: stage.path for stage in entry.snapshot.stages if stage.span_id}
        last: dict[str | None, float] = {}
        for child in self._ended_elsewhere(entry):
            last[None] = last[_host(child, spans)] = child.heard_at
        moments = [at for ended in last.values() for limit in limits if (at := ended + limit) > now]
        for child in self._open(entry, above):
            moments.append(changes_at(child, now))
            known = self._own(child, now)
            if known.health is Health.SILENT and len(above) < DEPTH:
                key = child.head.operation_id
                moments.append(self._changes_at(child, known, now, above | {key}, changes_at))
        return min(moments, default=math.inf)

    def _instead(self, entry: Entry, own: Verdict, now: float, above: set[str]) -> Verdict:
        branches = running(entry.snapshot, self._ledger).branches
        lines = self._lines(entry, branches, now, above) if len(branches) > 1 else []
        if lines:
            worst = max(lines, key=lambda line: (rank(line.judged), line.rests_on is not None))
            if worst.judged.health in STOPPED or worst.rests_on is not None:
                return worst.judged
            return Judgement.of(worst.judged)
        found = [(child, self._of(child, now, above)) for child in self._open(entry, above)]
        elsewhere = [(child, verdict) for child, verdict in found if _counts(entry, child, verdict)]
        if len(elsewhere) < len(found) and any(
            verdict.health in STOPPED for child, verdict in found if not _counts(entry, child, verdict)
        ):
            return own  # a child in the parent's own process is stuck: the process is right
        if elsewhere:
            child, verdict = min(elsewhere, key=lambda one: _rank(one[1]))
            return replace(_waits(own, child, verdict), branch=None)  # nobody knows which branch waits for it
        ended = self._ended_last(entry)
        if ended is not None and own.allowed is not None and now - ended.heard_at < own.allowed:
            return _ended(own, ended, now)
        return own

    def _lines(self, entry: Entry, branches: tuple[Branch, ...], now: float, above: set[str]) -> list[JudgedBranch]:
        """Each branch with the verdict from its children elsewhere; none if it is unknown whose they are."""
        spans = {stage.span_id: stage.path for stage in entry.snapshot.stages if stage.span_id}
        hosted: dict[str, list[tuple[Entry, Verdict]]] = {}
        inside: dict[str, tuple[Entry, Verdict]] = {}
        for child in self._open(entry, above):
            verdict = self._of(child, now, above)
            if child.instance == entry.instance:
                if isinstance(verdict, Judgement):
                    inside[child.head.operation_id] = child, verdict
                continue
            host = _host(child, spans)
            if host is None:
                return []
            hosted.setdefault(host, []).append((child, verdict))
        ended = {host: child for child in self._ended_elsewhere(entry) if (host := _host(child, spans)) is not None}
        if not hosted and not inside and not ended:
            return []
        later = max(0.0, now - entry.heard_at)
        still = entry.snapshot.still(later)
        return [
            _line(branch.later(later, still), _judged(branch, later), hosted, inside, ended, now) for branch in branches
        ]

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
        """The child in another process that ended last."""
        return max(self._ended_elsewhere(entry), key=lambda child: child.heard_at, default=None)

    def _ended_elsewhere(self, entry: Entry) -> list[Entry]:
        """The ended children in other processes, in the order of their ends."""
        known = self._ledger.operations.get
        ended = [
            child
            for key in tuple(self._ledger.children.get(entry.head.operation_id, ()))
            if (child := known(key)) is not None and not child.open and child.instance != entry.instance
        ]
        return sorted(ended, key=lambda child: child.heard_at)


class JudgedBranch(NamedTuple):
    """A branch as it is now, the child elsewhere on which its verdict rests, and that verdict."""

    branch: Branch
    rests_on: str | None
    judged: Verdict


def running(snapshot: Snapshot, ledger: Ledger) -> Snapshot:
    """The snapshot without branches that wait for a child which has ended; one branch always remains."""
    known = ledger.operations.get
    left = tuple(
        branch
        for branch in snapshot.branches
        if branch.child is None or (child := known(branch.child)) is None or child.open
    )
    return snapshot if not left or len(left) == len(snapshot.branches) else replace(snapshot, branches=left)


def _host(child: Entry, spans: dict[str, str]) -> str | None:
    """The path of the parent's stage that started a child, if the trace context was passed on."""
    span = child.snapshot.span
    return None if span is None else spans.get(span.parent_id or "")


def _judged(branch: Branch, later: float) -> Verdict:
    """The verdict on a branch some seconds after it was reported; only its process can call it silent."""
    if branch.wait is not None:
        return judge_branch(branch.later(later, later))
    said = judge_branch(branch)
    if said.health is Health.SILENT and branch.health not in NOT_MOVING:
        said = replace(said, health=branch.health)
    return replace(said, seconds=said.seconds + later) if said.clock == "idle" else said


def _line(
    branch: Branch,
    own: Verdict,
    hosted: dict[str, list[tuple[Entry, Verdict]]],
    inside: dict[str, tuple[Entry, Verdict]],
    ended: dict[str, Entry],
    now: float,
) -> JudgedBranch:
    if branch.child is not None:
        known = inside.get(branch.child)
        return JudgedBranch(branch, None, own) if known is None else _as(branch, _waits(own, *known))
    path = branch.path or ""
    found = [one for host, those in hosted.items() if path == host or path.startswith(f"{host}/") for one in those]
    if found:
        return _as(branch, _waits(own, *min(found, key=lambda one: _rank(one[1]))))
    last = max(
        (child for host, child in ended.items() if path == host or path.startswith(f"{host}/")),
        key=lambda child: child.heard_at,
        default=None,
    )
    if own.health is Health.SILENT and last is not None and now - last.heard_at < (branch.stall_after or 0.0):
        return _as(branch, _ended(own, last, now))
    return JudgedBranch(branch, None, own)


def _as(branch: Branch, verdict: Judgement) -> JudgedBranch:
    """The branch as judged by its child in another process."""
    verdict = replace(verdict, branch=branch.label)
    moves = verdict.health not in STOPPED
    told = replace(
        branch,
        health=verdict.health,
        reason=verdict.detail,
        idle=verdict.seconds,
        wait=verdict.wait,
        stuck_at=None if moves else branch.stuck_at,
    )
    return JudgedBranch(told, verdict.child, verdict)


def _counts(parent: Entry, child: Entry, verdict: Verdict) -> bool:
    """Whether a child explains its parent's silence: it runs elsewhere, or waits for one that does."""
    return child.instance != parent.instance or isinstance(verdict, Judgement)


def _waits(own: Verdict, child: Entry, verdict: Verdict) -> Judgement:
    """The verdict on a parent, or on one of its branches, from the child that decides."""
    health = Health.SILENT if verdict.health is Health.DEAD else verdict.health
    detail = f"waits for child {name_of(child)} in another process, which {said_of(verdict)}"
    key = child.head.operation_id
    wait = (verdict.wait if isinstance(verdict, Judgement) else child.snapshot.wait) if verdict.overdue else None
    if wait is not None and not isinstance(verdict, Judgement):
        wait = replace(wait, elapsed=verdict.seconds)
    if health in STOPPED:
        told = Judgement.of(own, detail=detail, child=key)
        return replace(
            told, health=health, limit=verdict.limit, seconds=verdict.seconds, allowed=verdict.allowed, clock="child",
            source=verdict.source,
        )  # fmt: skip
    return Judgement(
        health, overdue=verdict.overdue, seconds=verdict.seconds, clock="child", seen=own.seen, detail=detail,
        child=key, wait=wait,
    )  # fmt: skip


def _ended(own: Verdict, ended: Entry, now: float) -> Judgement:
    """Its last child elsewhere has ended: its own limit starts from there."""
    since = max(0.0, now - ended.heard_at)
    detail = f"its child {name_of(ended)} in another process ended {since:.0f} s ago"
    return Judgement(
        Health.PROGRESSING, "stall_after", since, own.allowed, False, "idle", own.source, own.seen, detail,
        child=ended.head.operation_id,
    )  # fmt: skip


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
    Health.UNKNOWN: "is not heard at the moment",
}


def said_of(verdict: Verdict) -> str:
    """A verdict as the end of a sentence, with its evidence if it needs attention."""
    if verdict.clock == "pending" and verdict.health is Health.WAITING:
        return "has not started"
    said = "waits for longer than its limit" if verdict.overdue else _SAID[verdict.health]
    if isinstance(verdict, Judgement) and verdict.frozen:
        said = "is frozen"
    return f"{said} ({verdict.reason})" if verdict.troubled and verdict.reason else said


def _rank(verdict: Verdict) -> int:
    """The sort key of the deciding child: lower is worse."""
    health = None if verdict.overdue else verdict.health
    return _WORST.index(health) if health in _WORST else len(_WORST)
