"""The verdict on each open operation, and since when the monitor can judge at all.

Whether the observer was blind is decided for each sender. It was blind to all of them while it was not running,
asleep, or refusing requests. It may have been blind to a host if nothing came from there for long and then something
does. A process that was found dead stays dead until it is heard itself: other processes prove nothing about it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final, NamedTuple

from otel_progress import semconv as s
from otel_progress.model.health import NOT_MOVING, Hearing, Verdict, judge, next_change
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.states import Label
from otel_progress.model.status import Health, Status, word
from otel_progress.model.values import finite
from otel_progress.monitor.state.aside import ASIDE
from otel_progress.monitor.state.child_processes import STOPPED, Children, JudgedBranch, Judgement, running
from otel_progress.monitor.state.ledger import Entry, Head, Ledger, Process, ReportedEvent, elapsed_of
from otel_progress.monitor.state.unjudged import Unjudged

GAP: Final = 2.5
"""The missed heartbeats of a host's processes after which the connection to that host may have been cut."""
ASLEEP: Final = 3.0
"""Seconds between two looks from which on the monitor itself was asleep, so that it knows nothing."""
BEFORE: Final = "; before that: "
"""In a reason, separates why nothing is known now from what was known before."""
HOSTS: Final = 10_000
"""The most hosts that are remembered; beyond it all are forgotten."""

HEARD: Final = Hearing(0.0, math.inf, math.inf)
"""For a process that is heard: only the clocks of its operations decide."""

__all__ = ["Judgement", "Label", "Observer", "Standing"]


class _Host(NamedTuple):
    """When a host was last heard, and since when it has been heard without a gap."""

    heard_at: float
    since: float = -math.inf


class Standing(NamedTuple):
    """The standing of a process, which all its operations share; until it changes, only single operations can change.

    Attributes:
        beats: whether it sends heartbeats.
        interval: seconds between two of them.
        blind_since: for a process that is heard again after the observer was blind: since when.
        unheard: whether nothing was heard of it since the observer was blind.
        dead: whether it is dead.
        frozen: whether it is dead, and proven to be stopped.
        missed: whether it was not heard for so long that its operations count as lost.
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
        """Whether hearing it changes nothing."""
        return self.blind_since is None and not (self.unheard or self.dead or self.missed)


class Observer:
    """Judges the operations of a ledger. All times are of the monotonic clock."""

    def __init__(self, ledger: Ledger, now: float) -> None:
        """It hears from now on."""
        self._ledger = ledger
        self._hears_since = self._looked_at = now
        self._hosts: dict[str, _Host] = {}
        self.is_loading = False
        """Whether processes may be missing only because they are not loaded yet."""
        self.epoch = 0
        """Rises when the observer was blind to some process until now."""
        self.dead: dict[str, float] = {}
        """Processes that were found dead, with the time when they were last heard."""
        self.unjudged = Unjudged()
        """The operations that the monitor judges, as their processes do not."""
        self._children = Children(ledger, self._proven)
        self.is_stopped: Callable[[str], str | None] = lambda _: None
        """Why a process of this machine, by its instance, is proven to be stopped; None if it is not."""

    # -- what was heard

    def look(self, now: float) -> None:
        """To be called each second: during a longer pause nothing could be heard."""
        if now - self._looked_at > ASLEEP:
            self.was_deaf(now)
        self._looked_at = now

    def hears(self, before: Process | None, host: str | None, now: float) -> None:
        """Something arrived from a process; `before` is what was known of it, `host` where it runs."""
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
        """Nothing could be received until now."""
        self._hears_since = now
        self.epoch += 1

    def found_dead(self, instance: str) -> None:
        """A process was dead before the restart of the monitor, and stays dead until it is heard."""
        process = self._ledger.processes.get(instance)
        if process is not None:
            self.dead[instance] = process.heard_at

    def forget(self, instance: str) -> None:
        """A process has no open operations any more."""
        self.dead.pop(instance, None)

    def standing(self, process: Process, now: float, presume_after: float) -> tuple[Standing, float]:
        """The standing of a process, and the earliest time at which it can change if nothing is heard.

        A process that is found dead stays dead until it is heard itself.
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
        """How well the process of an operation is heard. One that sends no heartbeats is never missed."""
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
        if self._is_aside(entry):
            return Verdict(Health.UNKNOWN, detail=ASIDE)
        own = found = self._own(entry, now, snapshot)
        if own.health is Health.SILENT:
            found = self._children.instead(entry, own, now)
        if found is own:
            found = self._or_unsure(entry, own, now)
        if found.health is Health.UNKNOWN and found.detail is not None and self.was_stuck(entry):
            said = entry.snapshot if snapshot is None else snapshot
            health = entry.head.health if entry.head.health in NOT_MOVING else Health.SILENT
            before = ", ".join(filter(None, (word(health), said.health_reason)))
            return replace(found, detail=f"{found.detail}{BEFORE}{before}")
        return self._or_frozen(entry, found)

    def was_stuck(self, entry: Entry) -> bool:
        """Whether an operation was stuck when its process was last heard, as its process said or the monitor found."""
        found = entry.head.health in NOT_MOVING or self.unjudged.is_stuck(entry.head.operation_id)
        return entry.open and found

    def _proven(self, entry: Entry, now: float) -> Verdict:
        """The verdict from its own process, and whether that process is proven to be stopped."""
        return self._or_frozen(entry, self._or_unsure(entry, self._own(entry, now), now))

    def _or_unsure(self, entry: Entry, own: Verdict, now: float) -> Verdict:
        """Unknown, if it was found stuck before the monitor could not hear, and may have moved meanwhile."""
        since = self._heard_since(entry)
        stuck = own.health is Health.SILENT and self.judges(entry)
        if not stuck or not self.unjudged.is_in_doubt(entry, now, since):
            return own
        detail = f"the monitor was not listening until {now - since:.0f} s ago"
        return replace(own, health=Health.UNKNOWN, detail=detail)

    def _or_frozen(self, entry: Entry, own: Verdict) -> Verdict:
        stopped = self.is_stopped(entry.instance) if own.health is Health.DEAD else None
        if stopped is None:
            return own
        return Judgement.of(own, frozen=True, detail=f"its process is {stopped}; {own.reason}")

    def _own(self, entry: Entry, now: float, snapshot: Snapshot | None = None) -> Verdict:
        """The verdict from what its own process reported, and whether that process is heard."""
        said, judges = entry.snapshot if snapshot is None else snapshot, self.judges(entry)
        if judges:
            said = self.unjudged.seen(entry, said, now, self._heard_since(entry))
        seen = running(said, self._ledger)
        at = seen.timestamp + max(0.0, now - entry.heard_at)
        return judge(seen, at, self.hearing(entry, now), judges=judges)

    def judges(self, entry: Entry) -> bool:
        """Whether the monitor says when this operation is stuck."""
        return self.unjudged.covers(entry.head.operation_id) and entry.open

    def advance(self, entry: Entry, now: float) -> None:
        """Decide whether an operation is stuck that the monitor judges, if its process is heard."""
        hearing = self.hearing(entry, now)
        if self.judges(entry) and hearing.silence < min(hearing.allowed, hearing.watching):
            self.unjudged.advance(entry, now, self._heard_since(entry))

    def _heard_since(self, entry: Entry) -> float:
        """Since when the process of an operation could be heard without a gap."""
        process = self._ledger.processes.get(entry.instance)
        return self._hears_since if process is None or not process.beats else self._since(process)

    def follow(self, entry: Entry, newest: ReportedEvent) -> None:
        """The newest event of an open operation that the monitor judges was heard."""
        self.unjudged.hear(entry, newest, self._heard_since(entry))

    def idle(self, entry: Entry, now: float) -> float:
        """Seconds for which an operation is known to make no progress; without those in which nobody could hear it."""
        seen, later, since = entry.snapshot, self.later(entry, now), self._heard_since(entry)
        end = entry.heard_at + later
        if end < since:
            since = -math.inf  # it was not heard since then: its clocks end before that
        if self.judges(entry):
            return self.unjudged.idle(entry, end, since)
        return seen.idle if seen.wait else seen.idle + min(seen.still(later), end - max(since, entry.heard_at))

    def label(self, entry: Entry, now: float) -> Label:
        """The verdict without evidence; more than the head of an operation is read only if that does not decide it."""
        if self._is_aside(entry):
            return Label(Health.UNKNOWN)
        hearing, since = self.hearing(entry, now), max(0.0, now - entry.heard_at)
        is_old = since >= hearing.watching and not self.judges(entry)
        if hearing.watching < hearing.allowed and (hearing.silence >= hearing.watching or is_old):
            return Label(Health.UNKNOWN)
        if hearing.silence >= hearing.allowed:
            return Label(Health.DEAD, frozen=self.is_stopped(entry.instance) is not None)
        if self._is_plain(entry) and since < _due(entry):
            return Label(entry.head.health)
        verdict = self.verdict(entry, now)
        return _label(verdict.health, verdict.overdue)

    def _is_aside(self, entry: Entry) -> bool:
        """Whether an operation has not ended, and is in the store only: it was put aside to make room."""
        return entry.open and not self.is_loading and entry.head.operation_id not in self._ledger.operations

    def _is_plain(self, entry: Entry) -> bool:
        """Whether only time can change what was reported; all others are judged by the whole snapshot."""
        return (entry.head.status, entry.head.health) in _PLAIN and not self.judges(entry)

    def due(self, entry: Entry) -> float:
        """When the label of a plain operation can change by time alone."""
        return _early(entry.heard_at + _due(entry))

    def next_look(self, entry: Entry, now: float) -> tuple[float, frozenset[str]]:
        """The earliest time at which the label can change by time alone, apart from the standing of its process.

        With it come the ids of operations on which it rests, but which are not known to be its children.
        """
        since = max(0.0, now - entry.heard_at)
        if self._is_plain(entry) and since < (due := _due(entry)):
            return _early(entry.heard_at + due), _NONE
        hearing = self.hearing(entry, now)
        if hearing.silence >= min(hearing.allowed, hearing.watching) or (
            since >= hearing.watching and hearing.watching < hearing.allowed and not self.judges(entry)
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
        """When the verdict from its own process can change, as long as that process is heard."""
        seen = running(entry.snapshot, self._ledger)
        since = max(0.0, now - entry.heard_at)
        at = next_change(seen, seen.timestamp + since, HEARD)
        at = now + (at - seen.timestamp - since)
        return min(at, self.unjudged.next_look(entry, now, self._heard_since(entry))) if self.judges(entry) else at

    def is_stuck(self, entry: Entry, now: float) -> bool | None:
        """Whether an operation that its process calls stuck is stuck; None if the monitor knows no better."""
        verdict = self.verdict(entry, now)
        return verdict.health in STOPPED if isinstance(verdict, Judgement) and not verdict.frozen else None

    def lines(self, entry: Entry, now: float) -> list[JudgedBranch]:
        """The branches of an operation with more than one, as they and their children elsewhere are now."""
        return self._children.lines(entry, now, self.later(entry, now))

    def explained(self, entry: Entry, now: float) -> set[str]:
        """The labels of branches that only wait for a moving child in another process."""
        found = self.lines(entry, now)
        return {one.branch.label for one in found if one.rests_on is not None and one.judged.health not in STOPPED}

    def later(self, entry: Entry, now: float) -> float:
        """For how many seconds the reported state is known to have continued.

        While its process is heard, that is until now. If the process is dead or unheard, it ends with the last sign of
        life: whether the operation continued after that is unknown.
        """
        hearing = self.hearing(entry, now)
        if hearing.silence < hearing.allowed and hearing.silence < hearing.watching:
            return max(0.0, now - entry.heard_at)
        return max(0.0, now - hearing.silence - entry.heard_at)


def _early(moment: float) -> float:
    """The moment, less the possible rounding error."""
    return moment - 8 * math.ulp(moment) if moment < math.inf else moment


_label = lru_cache(maxsize=64)(Label)
"""Many operations share few labels."""
_NONE: Final = frozenset[str]()
_NOBODY: Final = Head("", "", Status.RUNNING, Health.UNKNOWN, 0.0)
_PLAIN: Final = frozenset(
    {
        (Status.RUNNING, Health.PROGRESSING),
        (Status.WAITING, Health.WAITING),
        (Status.PENDING, Health.WAITING),
    }
)
"""Reported states that only time can change."""


def _due(entry: Entry) -> float:
    """Seconds after which the reported verdict can change by time alone; 0 if unknown."""
    if entry.said is None:
        return 0.0
    get = entry.said.brief.get
    due, waits = math.inf, get(s.WAIT_REMAINING)
    if waits is not None:
        due = _left(due, waits, entry.waited)
    for limit in (get(s.SLOW_AFTER), get(s.START_WITHIN)):
        if limit is not None:
            due = _left(due, limit, (elapsed_of(entry.said, entry.head) or 0.0) + entry.heard_later)
    return due


def _left(due: float, limit: Any, spent: float) -> float:
    """What is left of a limit, if that is less; 0 if either is no number."""
    return min(due, limit - spent) if finite(limit) and finite(spent) else 0.0
