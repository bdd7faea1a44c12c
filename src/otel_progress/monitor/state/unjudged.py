"""Operations whose process does not judge them: the monitor says when one is stuck, by the progress that it heard.

Our SDK judges its own operations, since it sees each unit. A program in another language, without an SDK of ours, sends
its state and its heartbeats; if its work hangs, only the states that no longer change show it. Such an operation is
stuck once nothing moved in it for its `progress.stall_after`, and it recovers by the rules of the SDK.

Progress is what changes in the state: counts, stages, message, outcomes, usage, a wait that begins or ends; and an
event that says so itself, such as a heartbeat of the work. A sender that sends `progress.idle` knows better: that
counts. What a delta says itself counts, too, while its keyframe is missing.

Events that arrive late, and show by their times that it moved all the while, refute a stall.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_progress import semconv as s
from otel_progress.model.fields import UNDERWAY
from otel_progress.model.health import NOT_MOVING, hold
from otel_progress.model.snapshot import Snapshot, Wait
from otel_progress.model.status import Health, Status
from otel_progress.model.values import finite

if TYPE_CHECKING:
    from otel_progress.monitor.state.ledger import Entry, ReportedEvent

MONITOR: Final = "monitor"
"""The value of `progress.judged_by` that leaves the verdicts to the monitor."""
PROCESS: Final = "process"
"""Its value if the process reports itself when an operation is stuck."""
_MOVES: Final = s.EVENTS - {s.UPDATED, s.STALLED, s.SLOW, s.WAIT_OVERDUE, s.PROCESS_HEARTBEAT, s.OPERATION_ENDED}
"""Events that are progress themselves."""
_TOLD: Final = (
    *(s.STATUS, s.COMPLETED, s.TOTAL, s.RATIO, s.MESSAGE, s.OUTCOMES, s.COUNTERS, s.USAGE, s.RESULT, s.STAGE_CURRENT),
)
"""Attributes of a delta whose change is progress."""
_TOLD_OF_STAGES: Final = ("path", "status", "completed", "total", "ratio", "message", "outcomes", "counters")
_NONE: Final = -math.inf
UNNAMED: Final = "no reason given"
"""The reason of a wait that the sender does not name."""
GAPS: Final = 10
"""Times without progress that were heard before an operation without a limit has one."""
TIMES: Final = 10
"""How many times the longest of them is the limit."""
SHORTEST: Final = 60.0
"""The shortest such limit in seconds."""


class ConcludedStall(NamedTuple):
    """A stall, and what was heard since it was concluded.

    Attributes:
        said: when the operation had moved last, by the sender.
        heard: when that was heard.
        limit: the limit that it reached, in seconds.
        gap: the longest time without progress since then, by the sender; infinite if its clock was set back.
    """

    said: float
    heard: float
    limit: float
    gap: float = 0.0

    def with_gap(self, gap: float) -> ConcludedStall:
        """After one more time without progress."""
        return self._replace(gap=max(self.gap, gap if gap >= 0 else math.inf))

    def is_refuted(self, said: float, heard: float) -> bool:
        """Whether it was none: up to this sign of progress no time without any can have reached the limit.

        What the times of the events leave of the time that passed, as when the clock was set, may all be such a time.
        """
        return self.gap + max(0.0, (heard - self.heard) - (said - self.said)) < self.limit


@dataclass
class _Movement:
    """When an operation moved last; `heard` times are monotonic, `said` ones of the sender's clock.

    Attributes:
        attempt: the attempt that it belongs to.
        signature: the parts of the state whose change is progress.
        said: when it moved, by the sender.
        heard: when that was heard.
        waits: whether it waited at its newest event.
        gaps: how many times without progress ended with progress.
        longest: the longest of them, in seconds.
        stuck: whether it is stuck.
        stall: that stall, unless it began before this monitor started.
        refuted: whether the last stall was none, as events that arrived late showed.
        again: since when a stuck one moves again.
    """

    attempt: tuple[int, float | None]
    signature: int
    said: float
    heard: float
    waits: bool = False
    gaps: int = 0
    longest: float = 0.0
    stuck: bool = False
    stall: ConcludedStall | None = None
    refuted: bool = False
    again: float | None = None


class Unjudged:
    """When the operations moved that the monitor judges. It belongs to the thread of the core; others may read."""

    def __init__(self) -> None:
        """None yet."""
        self._known: dict[str, _Movement] = {}

    def covers(self, operation_id: str) -> bool:
        """Whether the monitor judges this operation."""
        return operation_id in self._known

    def forget(self, operation_id: str) -> None:
        """It ended, or left memory, or its process judges it."""
        self._known.pop(operation_id, None)

    def is_stuck(self, operation_id: str) -> bool:
        """Whether it was found stuck, and is not known to move again."""
        known = self._known.get(operation_id)
        return known is not None and known.stuck

    def stuck(self) -> list[str]:
        """The ids of those that were found stuck, and are not known to move again."""
        return [key for key, known in self._known.items() if known.stuck]

    def hear(self, entry: Entry, newest: ReportedEvent, since: float) -> None:
        """The newest event of an open operation was heard: it was applied, or waits for its keyframe.

        `since` is the time from which on the monitor could hear its process.
        """
        seen, known = entry.snapshot, self._known.get(entry.head.operation_id)
        attempt, at = (entry.number, entry.head.started_at), entry.newest_at
        mark, idle = _signature(seen, entry.pending), newest.brief.get(s.IDLE)
        if known is None or known.attempt != attempt:
            known = self._known[seen.operation_id] = _Movement(attempt, mark, at, entry.heard_at)
        elif not finite(idle) and (mark != known.signature or newest.event in _MOVES):
            _move(known, at, entry.heard_at, since)
        elif isinstance(idle, (int, float)) and finite(idle) and at - idle > known.said:
            _move(known, at - idle, entry.heard_at - idle, since)
        known.signature, known.waits = mark, _waits(seen)

    def recall(self, entry: Entry, now: float, stuck_for: float | None) -> None:
        """An operation was loaded after a start; if it was stuck already, for how many seconds."""
        attempt, seen = (entry.number, entry.head.started_at), entry.snapshot
        known = self._known[seen.operation_id] = _Movement(attempt, _signature(seen), seen.timestamp, entry.heard_at)
        if stuck_for is not None:  # it was reported when the limit was reached
            idle = stuck_for + (_named_limit(seen) or SHORTEST)
            known.said, known.heard, known.stuck = _NONE, now - idle, True

    def idle(self, entry: Entry, now: float, since: float) -> float:
        """Seconds without progress, of which at most those count in which the monitor heard, so `since` a time.

        The sender's own clock counts where it says less: several events that arrive together happened one by one. What
        was heard counts where that is less: the sender's clock may have been set. While an update may still wait, the
        silence counts for nothing.
        """
        known = self._known[entry.head.operation_id]
        at_event = min(entry.newest_at - known.said, entry.heard_at - known.heard)
        return max(0.0, min(max(0.0, at_event) + _still(entry, now), now - since))

    def is_in_doubt(self, entry: Entry, now: float, since: float) -> bool:
        """Whether it was stuck before the monitor could not hear, and no longer is known to be.

        Nothing was heard of progress since then, nor was its limit reached: it may have moved meanwhile.
        """
        known = self._known[entry.head.operation_id]
        limit = _limit(entry.snapshot, known)[0]
        is_old = known.stuck and known.heard < since and not _waits(entry.snapshot)
        return is_old and (limit is None or self.idle(entry, now, since) < limit)

    def seen(self, entry: Entry, snapshot: Snapshot, now: float, since: float) -> Snapshot:
        """The snapshot with the idle time, the limit and the verdict that the monitor knows."""
        known = self._known.get(entry.head.operation_id)
        if known is None:
            return snapshot
        idle = self.idle(entry, now, since) - _still(entry, now)  # at the time of the snapshot
        limit, source = _limit(snapshot, known)
        health = Health.SILENT if known.stuck and snapshot.health not in NOT_MOVING else snapshot.health
        wait = snapshot.wait
        if wait is None and snapshot.status is Status.WAITING:
            wait = Wait(UNNAMED, max(0.0, idle))
        return replace(snapshot, idle=idle, stall_after=limit, stall_after_source=source, health=health, wait=wait)

    def advance(self, entry: Entry, now: float, since: float) -> None:
        """Decide whether it is stuck.

        It recovers when it has moved for the hold time, and was never idle for half its limit in it. Time in which the
        monitor could not hear is no time in which it moved.
        """
        known = self._known[entry.head.operation_id]
        seen = entry.snapshot
        limit, idle = _limit(seen, known)[0], self.idle(entry, now, since)
        if _waits(seen):
            known.stuck, known.again = False, None
        elif limit is None:
            return
        elif not known.stuck:
            if idle >= limit:
                known.stuck, known.refuted = True, False
                known.stall = ConcludedStall(known.said, known.heard, limit)
        elif known.heard < since or idle >= limit / 2:
            known.again = None
        elif known.again is None or known.again < since:
            known.again = now - idle
        if known.again is not None and now - known.again >= hold(limit):
            known.stuck, known.again = False, None

    def take_refuted(self, operation_id: str) -> bool:
        """Whether its last stall was none; this is told once."""
        known = self._known.get(operation_id)
        found = known is not None and known.refuted
        if known is not None:
            known.refuted = False
        return found

    def next_look(self, entry: Entry, now: float, since: float) -> float:
        """The earliest time at which `advance` can decide otherwise, if nothing is heard."""
        known = self._known[entry.head.operation_id]
        limit, _ = _limit(entry.snapshot, known)
        if limit is None or _waits(entry.snapshot):
            return math.inf
        idle = self.idle(entry, now, since)
        if not known.stuck:
            waits_until = entry.heard_at + (entry.snapshot.update_pause or 0.0) + UNDERWAY
            if now <= waits_until and not _still(entry, now):
                return math.nextafter(waits_until, math.inf)
            return now + max(0.0, limit - idle)
        if known.heard < since:
            return now + limit - idle if idle < limit else math.inf
        left = [limit / 2 - idle] if idle < limit / 2 else []
        left += [] if known.again is None else [known.again + hold(limit) - now]
        return now + max(0.0, min(left, default=math.inf))


def _still(entry: Entry, now: float) -> float:
    """Seconds since its newest event in which it is known to have made no progress."""
    return entry.snapshot.still(max(0.0, now - entry.heard_at))


def _waits(seen: Snapshot) -> bool:
    """Whether it need not move now: it has not started, or waits, with or without a reason."""
    return seen.wait is not None or seen.status in (Status.WAITING, Status.PENDING)


def _move(known: _Movement, said: float, heard: float, since: float) -> None:
    is_whole = known.said > _NONE and known.heard >= since
    if is_whole and not known.waits:  # the longer of both: a limit that is too short is a false alarm
        known.gaps, known.longest = known.gaps + 1, max(known.longest, said - known.said, heard - known.heard)
    if known.stuck and known.stall is not None:
        known.stall = known.stall.with_gap(said - known.said)
        if known.stall.is_refuted(said, heard):
            known.stuck, known.stall, known.again, known.refuted = False, None, None, True
    known.said, known.heard = said, heard


def _limit(seen: Snapshot, known: _Movement) -> tuple[float | None, str | None]:
    """The limit that the sender names, or else one from the gaps so far, with its source."""
    named = _named_limit(seen)
    if named is not None:
        return named, seen.stall_after_source
    if known.gaps < GAPS:  # what was learned is gone with a restart
        return (SHORTEST, "the shortest that is learned") if known.stuck else (None, None)
    return max(SHORTEST, known.longest * TIMES), f"{TIMES} times the longest of {known.gaps} gaps"


def _named_limit(seen: Snapshot) -> float | None:
    """The idle time at which it is stuck: that of its current stage, of the stages around it, or its own."""
    limits = {stage.path: stage.stall_after for stage in seen.stages if not stage.status.final}
    path = seen.stage or ""
    while path:
        limit = limits.get(path)
        if finite(limit) and limit is not None and limit > 0:
            return limit
        path = path.rpartition("/")[0]
    own = seen.stall_after
    return own if own is not None and own > 0 else None


def _signature(seen: Snapshot, waiting: ReportedEvent | None = None) -> int:
    """A number that changes with everything that is progress."""
    stages = tuple((one.path, one.status, *_counts(one)) for one in seen.stages)
    wait = None if seen.wait is None else seen.wait.reason
    about = (seen.status, seen.stage, wait, seen.heartbeat_at, seen.folded)
    return hash((*about, *_counts(seen), stages, repr(seen.usage), repr(seen.result), _told_by(waiting)))


def _told_by(delta: ReportedEvent | None) -> str:
    """What a delta whose keyframe is missing says itself, as far as a change of it is progress."""
    if delta is None:
        return ""
    said = delta.attributes
    return repr([said.get(key) for key in _TOLD] + [_stages_told(said.get(s.STAGES))])


def _stages_told(stages: object) -> list[Any]:
    """The stages of a delta without what changes with time alone."""
    try:
        items = json.loads(stages) if isinstance(stages, str) else None
    except (ValueError, RecursionError):
        return []
    found = (item[-1] if isinstance(item, list) and item else item for item in items or ())
    return [[item.get(key) for key in _TOLD_OF_STAGES] for item in found if isinstance(item, dict)]


def _counts(about: Any) -> tuple[Any, ...]:
    progress = about.progress
    counts = (progress.completed, progress.total, progress.ratio, progress.ratio_raw)
    return (*counts, about.message, repr(about.outcomes), repr(about.counters))
