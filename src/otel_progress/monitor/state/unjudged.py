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
from typing import TYPE_CHECKING, Any, Final

from otel_progress import semconv as s
from otel_progress.model.fields import UNDERWAY
from otel_progress.model.health import NOT_MOVING, hold
from otel_progress.model.snapshot import Snapshot, Wait
from otel_progress.model.status import Health, Status
from otel_progress.model.values import finite
from otel_progress.monitor.state.concluded_stalls import ConcludedStalls, Moment
from otel_progress.monitor.state.ledger import read

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
    again: float | None = None


class Unjudged:
    """When the operations moved that the monitor judges. It belongs to the thread of the core; others may read."""

    def __init__(self) -> None:
        """None yet."""
        self._known: dict[str, _Movement] = {}
        self._stalls = ConcludedStalls()
        self._refuted: set[str] = set()

    def covers(self, operation_id: str) -> bool:
        """Whether the monitor judges this operation."""
        return operation_id in self._known

    def forget(self, operation_id: str) -> None:
        """It left memory, or its process judges it."""
        known = self._known.pop(operation_id, None)
        if known is not None or self._stalls:
            self._stalls.forget(operation_id)
            self._refuted.discard(operation_id)

    def end(self, entry: Entry) -> None:
        """An operation ended; its last stall may still turn out to be none."""
        key, head = entry.head.operation_id, entry.head
        known = self._known.pop(key, None)
        if known is not None and known.stuck:
            at = Moment(head.sequence, head.timestamp, entry.heard_at, known.signature)
            if self._stalls.end(key, at):
                self._refuted.add(key)

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
        key, known = entry.head.operation_id, self._known.get(entry.head.operation_id)
        seen, attempt, at = entry.snapshot, (entry.number, entry.head.started_at), entry.newest_at
        mark, waits = _signature(seen, entry.pending), _waits(seen)
        if known is None or known.attempt != attempt:
            self.forget(key)
            known = self._known[key] = _Movement(attempt, mark, at, entry.heard_at)
            known.waits = waits
            return
        idle = newest.brief.get(s.IDLE)
        if isinstance(idle, (int, float)) and finite(idle):
            moved = at - idle > known.said
            at, heard = at - idle, entry.heard_at - idle
        else:
            moved, heard = mark != known.signature or newest.event in _MOVES, entry.heard_at
        if moved:
            _move(known, at, heard, since)
            now = Moment(newest.brief.get(s.SEQUENCE, 0), at, heard, mark, waits=waits)
            if known.stuck and self._stalls.hear(key, now):
                self._take_back(key)
        known.signature, known.waits = mark, waits

    def hear_late(self, entry: Entry, late: ReportedEvent, now: float) -> None:
        """An event was heard that says all, and of which newer ones are known: `take_back` says what follows."""
        key = entry.head.operation_id
        seen = read(late) if key in self._stalls else None
        if seen is None:
            return
        idle = late.brief.get(s.IDLE)
        at, moves = late.time / 1e9, late.event in _MOVES
        if isinstance(idle, (int, float)) and finite(idle):
            at, moves = at - idle, True
        self._stalls.hear_late(key, Moment(seen.sequence, at, now, _signature(seen), moves, _waits(seen)))

    def take_back(self) -> list[str]:
        """The operations whose last stall was none, as events that were heard late since the last call show."""
        found = self._stalls.refuted()
        for key in found:
            self._take_back(key)
        return found

    def _take_back(self, operation_id: str) -> None:
        self._refuted.add(operation_id)
        known = self._known.get(operation_id)
        if known is not None:
            known.stuck, known.again = False, None

    def recall(self, entry: Entry, now: float, stuck_for: float | None) -> None:
        """An operation was loaded after a start; if it was stuck already, for how many seconds."""
        attempt, seen = (entry.number, entry.head.started_at), entry.snapshot
        mark = _signature(seen, entry.pending)
        known = self._known[seen.operation_id] = _Movement(attempt, mark, entry.newest_at, entry.heard_at)
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
        key, seen = entry.head.operation_id, entry.snapshot
        known = self._known[key]
        limit, idle = _limit(seen, known)[0], self.idle(entry, now, since)
        if _waits(seen):
            known.stuck, known.again = False, None
        elif limit is None:
            return
        elif not known.stuck:
            if idle >= limit:
                known.stuck = True
                self._refuted.discard(key)
                sequence = entry.head.sequence if entry.pending is None else entry.pending.brief.get(s.SEQUENCE, 0)
                self._stalls.begin(key, Moment(sequence, known.said, known.heard, known.signature), limit)
        elif known.heard < since or idle >= limit / 2:
            known.again = None
        elif known.again is None or known.again < since:
            known.again = now - idle
        if known.again is not None and now - known.again >= hold(limit):
            known.stuck, known.again = False, None

    def take_refuted(self, operation_id: str) -> bool:
        """Whether its last stall was none; this is told once."""
        found = operation_id in self._refuted
        self._refuted.discard(operation_id)
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
