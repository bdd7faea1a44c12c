"""What the monitor concludes: the verdict on each operation that is not over, and since when it can tell at all.

Whether the observer was blind is judged for each sender. It was blind to all while it was not running, asleep, or
refused what came. It may have been blind to a host when nothing came from there for long and then something does.
A process that was found dead stays dead until it is heard itself: what others say proves nothing about it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple

from otel_progress import semconv as s
from otel_progress.model.conditions import Label
from otel_progress.model.health import STUCK, Hearing, Verdict, judge, next_change
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Health, Status, word
from otel_progress.model.values import finite
from otel_progress.monitor.state.child_processes import STOPPED, Children, JudgedBranch, Judgement, running
from otel_progress.monitor.state.ledger import Entry, Head, Ledger, Process

GAP: Final = 2.5
"""After so many missed heartbeats of a host's processes, the way from that host may have been cut."""
ASLEEP: Final = 3.0
"""A pause between two looks, in seconds, from which on the monitor itself was asleep, and knows nothing of it."""
BEFORE: Final = "; before that: "
"""What stands in a reason between why nothing is known now, and what was known before."""
HOSTS: Final = 10_000
"""Hosts that are remembered; with more, all are forgotten."""

HEARD: Final = Hearing(0.0, math.inf, math.inf)
"""Of a process that is heard: the clocks of its operations alone decide."""

__all__ = ["Judgement", "Label", "Observer", "Standing"]


class _Host(NamedTuple):
    """When a host was last heard, and since when it is heard without a gap."""

    heard_at: float
    since: float = -math.inf


class Standing(NamedTuple):
    """What follows for all operations of a process from whether it is heard; until it changes, only they can change.

    Attributes:
        beats: it gives heartbeats.
        interval: seconds from one to the next.
        blind_since: of a process that is heard, while the observer was blind until lately: since when it hears.
        unheard: nothing was heard of it since the observer was blind.
        dead: it is dead.
        frozen: it is dead, and proven to be stopped.
        missed: it was not heard for so long that its operations count as lost.
    """

    beats: bool
    interval: float
    blind_since: float | None = None
    unheard: bool = False
    dead: bool = False
    frozen: bool = False
    missed: bool = False

    @property
    def is_well(self) -> bool:
        """Whether to hear it changes nothing."""
        return self.blind_since is None and not (self.unheard or self.dead or self.missed)


class Observer:
    """Judges the operations of a ledger. All times are those of the monotonic clock."""

    def __init__(self, ledger: Ledger, now: float) -> None:
        """It hears from now on."""
        self._ledger = ledger
        self._hears_since = self._looked_at = now
        self._hosts: dict[str, _Host] = {}
        self.is_loading = False
        """Whether processes may be missing only because they were not loaded yet."""
        self.epoch = 0
        """Rises when it was blind to some process until now."""
        self.dead: dict[str, float] = {}
        """Processes that were found dead, with when they had been heard last."""
        self._children = Children(ledger, self._own)
        self.is_stopped: Callable[[str], str | None] = lambda _: None
        """How a process of this machine, by its instance, is proven to be stopped; None where it is not."""

    # -- what was heard

    def look(self, now: float) -> None:
        """To be called each second: a longer pause was a time in which nothing could be heard."""
        if now - self._looked_at > ASLEEP:
            self.was_deaf(now)
        self._looked_at = now

    def hears(self, before: Process | None, host: str | None, now: float) -> None:
        """Something came from a process, known before or not; it was sent from this host."""
        if host is None:
            return
        known = self._hosts.get(host)
        since = -math.inf if known is None else known.since
        if before is not None and before.beats and known is not None and now - known.heard_at > GAP * before.interval:
            since = now
            self.epoch += 1
        if len(self._hosts) >= HOSTS and known is None:
            self._hosts.clear()
            self.epoch += 1
        self._hosts[host] = _Host(now, since)

    def was_deaf(self, now: float) -> None:
        """What was said could not be taken until now."""
        self._hears_since = now
        self.epoch += 1

    def found_dead(self, instance: str) -> None:
        """A process was dead before the monitor was started again, and stays so until it is heard."""
        process = self._ledger.processes.get(instance)
        if process is not None:
            self.dead[instance] = process.heard_at

    def forget(self, instance: str) -> None:
        """A process has no operation any more that is not over."""
        self.dead.pop(instance, None)

    def standing(self, process: Process, now: float, presume_after: float) -> tuple[Standing, float]:
        """How a process stands, and the earliest moment at which that can change if nothing is heard.

        One that is found dead here stays so until it is heard itself.
        """
        hearing = self.hearing(Entry(_NOBODY, process.instance, now), now)
        silence, allowed, heard_at = hearing.silence, hearing.allowed, process.heard_at
        blind = hearing.watching < allowed
        unheard = blind and silence >= hearing.watching
        dead = not blind and silence >= allowed
        if dead:
            self.dead[process.instance] = heard_at
        else:
            self.dead.pop(process.instance, None)
        may_be = allowed if math.isfinite(allowed) else 0.0
        missed = min(silence, now - self._hears_since) - may_be >= presume_after  # only time in which it could hear
        moments = [max(heard_at, self._hears_since) + may_be + presume_after] if not missed else []
        if blind:
            moments.append(now + allowed - hearing.watching)
        elif not dead:
            moments.append(heard_at + allowed)
        standing = Standing(
            process.beats,
            process.interval,
            self._since(process) if blind and not unheard else None,
            unheard,
            dead,
            dead and self.is_stopped(process.instance) is not None,
            missed,
        )
        at = min(moments, default=math.inf)
        return standing, at - 8 * math.ulp(at) if at < math.inf else at

    def _since(self, process: Process) -> float:
        """Since when this process could be heard without a gap."""
        host = self._hosts.get(process.host) if process.host is not None else None
        if host is None or process.heard_at >= host.since:
            return self._hears_since
        return max(self._hears_since, host.since)

    def hearing(self, entry: Entry, now: float) -> Hearing:
        """What is known of the process of an operation. One that gives no heartbeats is never missed."""
        process = self._ledger.processes.get(entry.instance)
        if process is None:
            if self.is_loading:
                return Hearing(max(0.0, now - entry.heard_at), watching=0.0)
            return Hearing(now - entry.heard_at, math.inf, math.inf)
        if not process.beats:
            return Hearing(now - process.heard_at, math.inf, math.inf)
        silence = now - process.heard_at
        if self.dead.get(process.instance) == process.heard_at:
            return Hearing(silence, process.interval, math.inf)
        return Hearing(silence, process.interval, now - self._since(process))

    # -- what follows

    def verdict(self, entry: Entry, now: float, snapshot: Snapshot | None = None) -> Verdict:
        """The verdict on an operation, with its evidence."""
        own = self._own(entry, now, snapshot)
        if own.health is Health.UNKNOWN and own.detail is not None and entry.head.health in STUCK:
            said = entry.snapshot if snapshot is None else snapshot
            before = ", ".join(filter(None, (word(entry.head.health), said.health_reason)))
            return replace(own, detail=f"{own.detail}{BEFORE}{before}")
        if own.health is Health.SILENT:
            return self._children.instead(entry, own, now)
        if own.health is Health.DEAD:
            stopped = self.is_stopped(entry.instance)
            if stopped is not None:
                return Judgement.of(own, frozen=True, detail=f"its process is {stopped}; {own.reason}")
        return own

    def _own(self, entry: Entry, now: float, snapshot: Snapshot | None = None) -> Verdict:
        """What follows from what its own process says, and whether that is heard."""
        seen = running(entry.snapshot if snapshot is None else snapshot, self._ledger)
        return judge(seen, seen.timestamp + max(0.0, now - entry.heard_at), self.hearing(entry, now))

    def label(self, entry: Entry, now: float) -> Label:
        """The same without evidence; all but the head of an operation is read only where that decides nothing."""
        hearing, since = self.hearing(entry, now), max(0.0, now - entry.heard_at)
        if hearing.watching < hearing.allowed and (hearing.silence >= hearing.watching or since >= hearing.watching):
            return Label(Health.UNKNOWN)
        if hearing.silence >= hearing.allowed:
            return Label(Health.DEAD, frozen=self.is_stopped(entry.instance) is not None)
        if (entry.head.status, entry.head.health) in _PLAIN and since < _due(entry):
            return Label(entry.head.health)
        verdict = self.verdict(entry, now)
        return Label(verdict.health, verdict.overdue)

    def next_look(self, entry: Entry, now: float) -> tuple[float, frozenset[str]]:
        """The earliest moment at which the label can change by time alone, but for how its process stands.

        With it come the ids of operations that it rests on, but which are not known to be below it.
        """
        since = max(0.0, now - entry.heard_at)
        if (entry.head.status, entry.head.health) in _PLAIN and since < (due := _due(entry)):
            return _early(entry.heard_at + due), _NONE
        hearing = self.hearing(entry, now)
        if hearing.silence >= min(hearing.allowed, hearing.watching) or (
            since >= hearing.watching and hearing.watching < hearing.allowed
        ):
            return math.inf, _NONE
        snapshot = entry.snapshot
        at = self._changes_at(entry, now)
        own = self._own(entry, now)
        if own.health is Health.SILENT:
            at = min(at, _early(self._children.changes_at(entry, own, now, self._changes_at)))
        known, key = self._ledger.operations.get, entry.head.operation_id
        children = {branch.child for branch in snapshot.branches if branch.child is not None}
        return at, frozenset(one for one in children if (child := known(one)) is None or child.head.parent_id != key)

    def _changes_at(self, entry: Entry, now: float) -> float:
        """When what its own process said of it may be judged otherwise, as long as that is heard."""
        seen = running(entry.snapshot, self._ledger)
        since = max(0.0, now - entry.heard_at)
        at = next_change(seen, seen.timestamp + since, HEARD)
        return now + (at - seen.timestamp - since)

    def is_stuck(self, entry: Entry, now: float) -> bool | None:
        """Whether one that its process calls stuck is; None where the monitor knows no better."""
        verdict = self.verdict(entry, now)
        return verdict.health in STOPPED if isinstance(verdict, Judgement) and not verdict.frozen else None

    def lines(self, entry: Entry, now: float) -> list[JudgedBranch]:
        """The branches of an operation, where more than one runs, as they and their children elsewhere are now."""
        return self._children.lines(entry, now, self.later(entry, now))

    def explained(self, entry: Entry, now: float) -> set[str]:
        """The branches that only wait for a child elsewhere which moves, by what people call them."""
        found = self.lines(entry, now)
        return {one.branch.label for one in found if one.rests_on is not None and one.judged.health not in STOPPED}

    def later(self, entry: Entry, now: float) -> float:
        """For how many seconds what was said of an operation is known to go on.

        While its process is heard that is until now. Of one whose process is dead, or not heard for another reason,
        it ends with the last sign of life: whether it went on after that, nobody knows.
        """
        hearing = self.hearing(entry, now)
        if hearing.silence < hearing.allowed and hearing.silence < hearing.watching:
            return max(0.0, now - entry.heard_at)
        return max(0.0, now - hearing.silence - entry.heard_at)


def _early(moment: float) -> float:
    """The moment, less what rounding may have added to it."""
    return moment - 8 * math.ulp(moment) if moment < math.inf else moment


_NONE: Final = frozenset[str]()
_NOBODY: Final = Head("", "", Status.RUNNING, Health.UNKNOWN, 0.0)
_PLAIN: Final = frozenset(
    {
        (Status.RUNNING, Health.PROGRESSING),
        (Status.WAITING, Health.WAITING),
        (Status.PENDING, Health.WAITING),
    }
)
"""What a process says of itself that nothing but time can change; all else is judged by all that it said."""


def _due(entry: Entry) -> float:
    """After how many seconds the verdict that its process gave may change by time alone; 0 where that is not known."""
    if entry.said is None:
        return 0.0
    get, head = entry.said.brief.get, entry.head
    elapsed = get(s.ELAPSED)
    if elapsed is None:
        elapsed = 0.0 if head.started_at is None else max(0.0, head.timestamp - head.started_at)
    limits = (get(s.WAIT_REMAINING), 0.0), (get(s.SLOW_AFTER), elapsed), (get(s.START_WITHIN), elapsed)
    due = math.inf
    for limit, spent in limits:
        if limit is not None:
            due = min(due, limit - spent) if finite(limit) and finite(spent) else 0.0
    return due
