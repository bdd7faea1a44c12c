"""Health: one pure function, `judge`, turns a snapshot, the time and what was heard of the process into a verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from otel_progress.model.fields import Branch, SnapshotFields
from otel_progress.model.status import Health, Status, word
from otel_progress.model.units import in_seconds, units

BEATS: Final = 3
"""Heartbeat intervals without a sign of life after which a process counts as dead."""
NOT_MOVING: Final = frozenset({Health.SILENT, Health.LOOPING})
"""The verdicts that mean that there is no progress."""


@dataclass(frozen=True)
class Hearing:
    """What an outside observer has heard of a process; all in seconds, by the observer's monotonic clock.

    Attributes:
        silence: time since anything was heard of the process.
        interval: time between two heartbeats, as the process announced it.
        watching: how long the observer has been listening without a gap. Its own start, a time in which it heard
            nothing at all or was asleep, and a jump of its clock are gaps.
    """

    silence: float
    interval: float = 5.0
    watching: float = math.inf

    @property
    def allowed(self) -> float:
        """The silence at which the process counts as dead."""
        return BEATS * self.interval


@dataclass(frozen=True)
class Verdict:
    """A conclusion with its evidence.

    Attributes:
        health: the conclusion.
        limit: the limit that decided (`stall_after`, `slow_after`, `start_within`, `overdue_after`, `loop_after`,
            `heartbeat`), or None.
        seconds: the time that was measured against the limit.
        allowed: the value of the limit, in seconds.
        overdue: whether a declared wait is past its own limit.
        clock: what was measured: `idle`, `elapsed`, `pending`, `wait`, `steps`, `heartbeat`.
        source: where the limit comes from (`from the plan`, `learned from 41 runs, …`); None if the user set it.
        seen: the last known activity, in words.
        detail: the evidence in words, if there is more to say than the limit.
        branch: the label of the branch that decided; None if there is only one.
    """

    health: Health
    limit: str | None = None
    seconds: float = 0.0
    allowed: float | None = None
    overdue: bool = False
    clock: str | None = None
    source: str | None = None
    seen: str | None = None
    detail: str | None = None
    branch: str | None = None

    @property
    def reason(self) -> str | None:
        """The evidence in words."""
        text = self.detail
        if text is None:
            if self.limit is None or self.allowed is None:
                return None
            source = f" ({self.source})" if self.source else ""
            text = f"{_WORDS[self.limit]} {self.seconds:.0f} s, {self.limit} is {in_seconds(self.allowed)}{source}"
        return text if self.branch is None else f"{self.branch}: {text}"

    @property
    def troubled(self) -> bool:
        """Whether it needs attention."""
        return self.health not in (Health.PROGRESSING, Health.WAITING) or self.overdue


_WORDS: Final = {
    "stall_after": "no progress for",
    "slow_after": "running for",
    "start_within": "not started for",
    "overdue_after": "waiting for",
}


def judge(snapshot: SnapshotFields, now: float, hearing: Hearing | None = None, *, judges: bool = False) -> Verdict:
    """Return the verdict on a snapshot at `now`, assuming that nothing happened since.

    `now` is in seconds since 1970 by the clock of the snapshot: an observer adds the time since it received the
    snapshot to the snapshot's own time, so that clocks that differ cause no verdict.

    A limit is reached at exactly its value. Each branch is judged on its own, and the worst verdict counts: dead,
    silent, looping, overdue, slow; else progressing if any branch moves, and waiting only if all branches wait. Within
    a branch, looping outranks the waits between its turns, and a declared wait stops the stuck clock.

    Dead outranks all others, as nothing else can be known then. A process that was not heard while the observer could
    not listen is unknown. An operation that its process calls stuck stays stuck until the process reports progress.
    An outside observer concludes silence itself only if it `judges`: a process that judges itself reports silence at
    once, but may hold back updates of work that moves, so the age of a snapshot proves nothing. A final status counts
    as progressing.

    Args:
        snapshot: the operation.
        now: seconds since 1970, by the clock of the snapshot.
        hearing: what an outside observer heard of the process; None inside the process.
        judges: whether the observer judges the operation, as its process does not; then `snapshot` has the idle time
            that the observer knows.

    Example:
        `judge(snapshot, snapshot.timestamp + 60).health`
    """
    seen = snapshot.at(now, 0.0 if hearing is None or judges else max(0.0, now - snapshot.timestamp - hearing.watching))
    if seen.status.final:
        return Verdict(Health.PROGRESSING)
    if hearing is not None:
        outside = _outside(snapshot, now, hearing, judges=judges)
        if outside is not None:
            return outside
    if seen.status is Status.PENDING:
        if seen.start_within is not None and seen.elapsed >= seen.start_within:
            return Verdict(Health.SLOW, "start_within", seen.elapsed, seen.start_within, clock="pending")
        return Verdict(Health.WAITING, clock="pending")
    if seen.branches:
        proven = seen.branches if hearing is None or judges else snapshot.branches
        verdicts = [_branch(branch, known.idle) for branch, known in zip(seen.branches, proven)]
    else:
        verdicts = [_branch(_only(seen), seen.idle if hearing is None or judges else snapshot.idle, _last(seen))]
    worst = max(verdicts, key=rank)
    if rank(worst) <= _RANKS[Health.PROGRESSING] and _is_slow(seen, worst):
        source = seen.slow_after_source
        return Verdict(Health.SLOW, "slow_after", seen.elapsed, seen.slow_after, clock="elapsed", source=source)
    return worst


def next_change(snapshot: SnapshotFields, now: float, hearing: Hearing | None = None) -> float:
    """Return the earliest time from `now` on at which the verdict can change if nothing is heard; infinity for never.

    The time is by the clock of the snapshot, as `now` is. Until then only the times in the evidence grow. The result
    is never late; because of rounding it may be early by some microseconds.
    """
    if snapshot.status.final:
        return math.inf
    if hearing is not None:
        outside = _outside(snapshot, now, hearing)
        if outside is not None:
            return now + _left(hearing.allowed, hearing.watching) if outside.health is Health.UNKNOWN else math.inf
    later = max(0.0, now - snapshot.timestamp)
    left = (_left(limit, spent + later) for limit, spent in _limits(snapshot, hearing is None))
    at = max(now, snapshot.timestamp) + min(left, default=math.inf)
    if hearing is not None:
        at = min(at, now + _left(hearing.allowed, hearing.silence))
    return max(now, at - _margin(snapshot, now)) if at < math.inf else math.inf


def _limits(snapshot: SnapshotFields, inside: bool) -> Iterator[tuple[float | None, float]]:
    """Yield the limits that time alone can reach, each with the time already spent at the snapshot."""
    if snapshot.status is Status.PENDING:
        yield snapshot.start_within, snapshot.elapsed
        return
    yield snapshot.slow_after, snapshot.elapsed
    for branch in snapshot.branches or (_only(snapshot),):
        if branch.wait is not None:
            yield branch.wait.overdue_after, branch.wait.elapsed
        elif inside and branch.child is None:
            yield branch.stall_after, branch.idle


def _left(limit: float | None, spent: float) -> float:
    """Return the time left of a limit; infinity if it is reached or absent."""
    return limit - spent if limit is not None and spent < limit < math.inf else math.inf


def _margin(snapshot: SnapshotFields, now: float) -> float:
    """Return a bound of the rounding error between two ways to compute the same time."""
    spent = (snapshot.timestamp, now, snapshot.elapsed, snapshot.idle)
    return 8 * math.ulp(max(map(abs, spent)))


def plainly_moves(seen: SnapshotFields) -> bool:
    """Whether a snapshot has one branch within all its limits, so that `judge` would return progressing at its time.

    This holds for most snapshots, and costs a tenth of a full verdict.
    """
    return (
        seen.status is Status.RUNNING
        and not seen.branches
        and seen.loop is None
        and seen.wait is None
        and seen.health is Health.PROGRESSING
        and (seen.stall_after is None or seen.idle < seen.stall_after)
        and (seen.slow_after is None or seen.elapsed < seen.slow_after)
    )


def judge_branch(branch: Branch) -> Verdict:
    """Return the verdict on one branch, from inside its process."""
    return _branch(branch, branch.idle)


def rank(verdict: Verdict) -> int:
    """Return the severity of a verdict; an operation gets the verdict of its branch with the highest rank."""
    return _OVERDUE if verdict.overdue else _RANKS[verdict.health]


_RANKS: Final = {
    Health.WAITING: 0,
    Health.PROGRESSING: 1,
    Health.SLOW: 2,
    Health.LOOPING: 4,
    Health.SILENT: 5,
    Health.UNKNOWN: 6,
    Health.DEAD: 7,
}
_OVERDUE: Final = 3


def _is_slow(seen: SnapshotFields, worst: Verdict) -> bool:
    """Whether it has run for too long; an operation whose branches all wait is not slow."""
    return worst.health is not Health.WAITING and seen.slow_after is not None and seen.elapsed >= seen.slow_after


def _only(seen: SnapshotFields) -> Branch:
    """Return the operation itself as its only branch."""
    return Branch(
        idle=seen.idle,
        stall_after=seen.stall_after,
        stall_after_source=seen.stall_after_source,
        health=seen.health,
        wait=seen.wait,
        loop=seen.loop,
    )


def _outside(snapshot: SnapshotFields, now: float, hearing: Hearing, *, judges: bool = False) -> Verdict | None:
    """Return unknown or dead, if what was heard of the process proves it.

    An observer that judges knows how long it has heard of no progress since it listens, once it hears the process.
    """
    allowed = hearing.allowed
    is_old = not judges and now - snapshot.timestamp >= hearing.watching
    if hearing.watching < allowed and (hearing.silence >= hearing.watching or is_old):
        detail = f"the monitor was not listening until {hearing.watching:.0f} s ago"
        return Verdict(Health.UNKNOWN, "heartbeat", hearing.silence, allowed, clock="heartbeat", detail=detail)
    if hearing.silence >= allowed:
        detail = f"its process was not heard of for {hearing.silence:.0f} s, {in_seconds(allowed)} are allowed"
        return Verdict(
            Health.DEAD, "heartbeat", hearing.silence, allowed, clock="heartbeat", seen=_last(snapshot), detail=detail
        )
    return None


def _branch(branch: Branch, proven: float, seen: str | None = None) -> Verdict:
    """Return the verdict on a branch that was idle for at least `proven` seconds; `seen` is its last known activity."""
    name = None if seen is not None or branch.path == branch.lane == branch.child is None else branch.label
    if branch.child is not None:
        return _child(branch, name)
    loop, wait = branch.loop, branch.wait
    if loop is not None:
        return Verdict(
            Health.LOOPING, "loop_after", loop.seconds, clock="steps", seen=seen, detail=loop.reason, branch=name
        )
    if wait is not None:
        limit = wait.overdue_after
        overdue = limit is not None and wait.elapsed >= limit
        return Verdict(
            Health.WAITING, "overdue_after", wait.elapsed, limit, overdue, "wait", seen=wait.reason, branch=name
        )
    idle, limit, source = branch.idle, branch.stall_after, branch.stall_after_source
    if limit is not None and proven >= limit:
        return Verdict(Health.SILENT, "stall_after", idle, limit, clock="idle", source=source, seen=seen, branch=name)
    if branch.health in NOT_MOVING:
        last = f", last progress {idle:.0f} s ago" if idle >= 1 else ""
        detail = f"moving again{last}; not yet recovered"
        return Verdict(
            branch.health, "stall_after", idle, limit, clock="idle", source=source, detail=detail, branch=name
        )
    return Verdict(Health.PROGRESSING, "stall_after", idle, limit, clock="idle", source=source, branch=name)


def _child(branch: Branch, name: str | None) -> Verdict:
    """Return the verdict on a branch that waits for a child: that of the child."""
    wait = branch.wait
    overdue = wait is not None and wait.overdue_after is not None and wait.elapsed >= wait.overdue_after
    if wait is not None and not overdue and branch.health not in NOT_MOVING:
        return Verdict(Health.WAITING, clock="wait", seen=wait.reason, branch=name)
    return Verdict(
        branch.health,
        "stall_after",
        branch.idle,
        branch.stall_after,
        overdue,
        "child",
        detail=_of_child(branch),
        branch=name,
    )


def _of_child(branch: Branch) -> str:
    """Return the evidence on a child, with its current idle time."""
    reason, limit = branch.reason or f"is {word(branch.health)}", branch.stall_after
    before, found, _ = reason.rpartition(_WORDS["stall_after"])
    if not found or limit is None or branch.health is not Health.SILENT:
        return reason
    source = f" ({branch.stall_after_source})" if branch.stall_after_source else ""
    return f"{before}{found} {branch.idle:.0f} s, stall_after is {in_seconds(limit)}{source}"


def _last(seen: SnapshotFields) -> str | None:
    """Return the last known activity in words."""
    parts = [part for part in (seen.stage, _count(seen), seen.message) if part]
    return ", ".join(parts) or None


def _count(seen: SnapshotFields) -> str | None:
    """Return the count in words."""
    progress = seen.progress
    if progress.completed is None:
        return None
    return units(progress.completed, progress.total, progress.unit)


def hold(limit: float | None) -> float:
    """Return how long a stuck operation must move before it has recovered, in seconds.

    In that time it must never be idle for half its limit.
    """
    return 5.0 if limit is None else min(10.0, limit / 2)
