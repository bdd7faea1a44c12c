"""The ledger: the newest state of each operation, from log events that arrive in any order, repeatedly, or not at all.

A keyframe carries the whole operation, and a delta what differs from the keyframe that it names, so the newest event is
the state: newest by its attempt, see `attempts`, then by sequence. Of a delta whose keyframe is missing only the newest
is kept, until the keyframe comes; `lacking` has its operation. A late event never undoes a final status; only a newer
attempt starts over. Nothing here reads a clock: times are arguments, in seconds of the observer's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from otel_progress import semconv as s
from otel_progress.model import stage_runs, wire
from otel_progress.model.attribute_types import is_amount, is_whole
from otel_progress.model.curve import Curve, Points
from otel_progress.model.ratio import ALMOST
from otel_progress.model.snapshot import Progress, Snapshot, StageSnapshot
from otel_progress.model.status import Health, Status
from otel_progress.model.values import Number, finite
from otel_progress.monitor.intake.mistakes import LATEST
from otel_progress.monitor.state import waits
from otel_progress.monitor.state.attempts import ROUNDED, began_later, is_older, is_same_attempt, is_same_start
from otel_progress.monitor.state.process_keys import OF_REQUESTS, is_another, is_interval, keys_of, promised_interval
from otel_progress.monitor.state.rollup import Shown
from otel_progress.monitor.state.room import OPERATIONS_FULL, PROCESSES_FULL, Room

if TYPE_CHECKING:
    from otel_progress.monitor.state.holders import Holder

OPERATIONS: Final = 100_000
"""The most operations in memory; those that ended first are dropped first, then `Room` decides."""
PROCESSES: Final = 10_000
"""The most processes in memory; those without running operations are dropped first, then `Room` decides."""
SHED: Final = 16
"""The most ended operations that are examined to find one that may be dropped."""
SNAPSHOTS: Final = 10_000
"""Operations up to which their states stay in memory as they were read, which takes five times as much."""
INTERVAL: Final = 5.0
"""Seconds between two heartbeats of a process that did not report its interval."""
RIVALS: Final = 8
"""The most older runs of an id that may still be alive beside the newest one."""
RIVAL_AFTER: Final = 1.0
"""Seconds after the start of a newer run from which on an event proves that an older run is alive, by their clocks;
earlier events may only have been delayed.
"""
OWNERS_ABOVE: Final = 8
"""The most ancestors that are searched for the owner of an operation."""
MARK: Final = "spans:"
"""The prefix of the instance of a process that is known only by its spans."""
WORDS: Final = 200
KEY_LENGTH: Final = 1_024
"""The most characters of an id; an event with a longer one is invalid."""
_SEARCHED: Final = (s.SERVICE_NAME, s.HOST_NAME)


class ReportedEvent(Protocol):
    """A log event as it was received; ids are in hex or empty."""

    @property
    def event(self) -> str:
        """Its name."""

    @property
    def time(self) -> int:
        """When it happened, in ns since 1970."""

    @property
    def is_foreign(self) -> bool:
        """Whether no SDK of ours sent it."""

    @property
    def brief(self) -> Mapping[str, Any]:
        """The attributes that identify its operation."""

    @property
    def owner(self) -> str | None:
        """The owner of its operation; read from the first event of an operation."""

    @property
    def attributes(self) -> Mapping[str, Any]:
        """All attributes."""

    @property
    def trace_id(self) -> str:
        """The trace id of the operation."""

    @property
    def span_id(self) -> str:
        """The span id of the operation."""

    @property
    def sampled(self) -> bool:
        """Whether the trace is sampled."""

    def build_on(self, keyframe: Any) -> None:
        """Complete a delta by its keyframe."""


class Seen(NamedTuple):
    """A process as the monitor saw it alive on its own machine.

    Attributes:
        boot: identifies the run of the kernel; see `procfs.PidSpace`.
        namespace: identifies the pid namespace.
        machine: identifies the installation of the system.
        pid: its process id.
        ticks: its start in clock ticks since boot.
        is_certain: whether it is proven to be the reported one.
    """

    boot: str
    namespace: str
    machine: str
    pid: int
    ticks: int
    is_certain: bool


@dataclass(frozen=True)
class Process:
    """A process that was heard of.

    Attributes:
        instance: its key: the `service.instance.id`, see `Ledger.instance_of`.
        resource: its resource attributes.
        heard_at: when it was last heard of.
        interval: the longest silence that it promises, in seconds.
        beats: whether it promises any.
        words: the text that a search for one of its operations looks at.
        seen: the process as it was seen alive on this machine.
        pid: its process id.
        created: when it was created, in ISO 8601.
        host: the name of its host.
    """

    instance: str
    resource: Mapping[str, Any]
    heard_at: float
    interval: float = INTERVAL
    pid: int | None = None
    created: str | None = None
    host: str | None = None
    beats: bool = False
    words: str = ""
    seen: Seen | None = None

    @property
    def is_judged_outside(self) -> bool:
        """Whether the monitor says when its operations are stuck, as it does not promise to say so itself."""
        return self.resource.get(s.JUDGED_BY) == "monitor" and not self.instance.startswith(MARK)


class Head(NamedTuple):
    """The fields that identify and order the events of an operation; named as in `Snapshot`."""

    operation_id: str
    name: str
    status: Status
    health: Health
    timestamp: float
    attempt: int = 1
    sequence: int = 0
    started_at: float | None = None
    parent_id: str | None = None
    agent: str | None = None
    owner: str | None = None
    counted: int = 1


class Rival(NamedTuple):
    """An older run of an id in another process that may still be alive.

    Attributes:
        head: its newest event.
        number: the number of the attempt.
        instance: its process.
        proven: whether it was heard of after the newer run began.
    """

    head: Head
    number: int
    instance: str
    proven: bool = False


class Entry:
    """One operation according to its newest event, and the process that sent it.

    A process numbers its attempts from its own memory; `number` is the monitor's own count over all processes, where
    each start time is an attempt. `presumed` is the last reported state of an operation that is presumed lost; a sign
    of life of that attempt restores it.

    Attributes:
        head: what identifies and orders it.
        instance: the process.
        heard_at: when the event was received, by the observer's monotonic clock.
        number: the number of the attempt.
        rivals: older runs of the id that had not ended when this one began, by their processes.
        over: the newest older run of each process whose end was heard: its late events prove nothing.
        presumed: the last reported state, if the end is inferred.
        revision: rises with each change of the ledger.
        rolled: the shown ratio of an operation that left memory, if it was rolled up.
        holder: who holds it, while it is open and in memory.
        said: the event, if the state came as one.
        keyframe: the newest event of the attempt that carried the whole operation; deltas build on it.
        pending: the newest delta whose keyframe is missing.
        curve: completed units over time, while it is open: most events carry only the present.
        wait_start: when its wait began, if its process is without an SDK of ours.
    """

    __slots__ = (
        "_snapshot",
        "curve",
        "head",
        "heard_at",
        "holder",
        "instance",
        "keyframe",
        "number",
        "over",
        "pending",
        "presumed",
        "revision",
        "rivals",
        "rolled",
        "said",
        "wait_start",
    )

    def __init__(
        self,
        head: Head,
        instance: str,
        heard_at: float,
        *,
        said: ReportedEvent | None = None,
        snapshot: Snapshot | None = None,
        presumed: Entry | None = None,
        before: Entry | None = None,
    ) -> None:
        """From an event or a snapshot; `before` is the previous entry of the same attempt."""
        self.head = head
        self.number: int = head.attempt if before is None else before.number
        self.rivals: dict[str, Rival] | None = None if before is None else before.rivals
        self.over: dict[str, Head] | None = None if before is None else before.over
        self.curve: Curve | None = None if before is None else before.curve
        self.wait_start: waits.WaitStart | None = None if before is None else before.wait_start
        self.instance = instance
        self.heard_at = heard_at
        self.presumed = presumed
        self.revision = 0
        self.rolled: Shown | None = None
        self.holder: Holder | None = None
        self.said = said
        self.keyframe: ReportedEvent | None = None if before is None else before.keyframe
        if said is not None and keyframe_of(said) is None:
            self.keyframe = said
        waiting = None if before is None else before.pending
        is_newer = waiting is not None and waiting.brief.get(s.SEQUENCE, 0) > head.sequence
        self.pending: ReportedEvent | None = waiting if is_newer else None
        self._snapshot = snapshot

    def heard_again(self, delta: ReportedEvent, now: float) -> Entry:
        """The same state, heard of again by a delta whose keyframe is missing."""
        known = self._snapshot if self.said is None else None  # the clocks of the snapshot go on
        entry = Entry(self.head, self.instance, now, said=self.said, snapshot=known, before=self)
        entry.pending = delta
        return entry

    @property
    def open(self) -> bool:
        """Whether it has not ended, as far as is known."""
        return not self.head.status.final

    @property
    def is_partial(self) -> bool:
        """Whether its state is a delta without a keyframe."""
        return self.keyframe is None and self.said is not None

    @property
    def lacks_keyframe(self) -> bool:
        """Whether it runs, and its newest delta can't be applied, as its keyframe is missing."""
        return (self.pending is not None or self.is_partial) and self.open

    @property
    def snapshot(self) -> Snapshot:
        """The reported state; if parts of the event are invalid, only the valid ones."""
        seen = self._snapshot  # another thread may release it
        if seen is None:
            seen = self._snapshot = self._read()
        return seen

    def _read(self) -> Snapshot:
        found = None if self.said is None else read(self.said)
        if found is None or self.said is None:
            return bare(self.head)
        found = _since(found, self.head.started_at, self.said.brief.get(s.ELAPSED) is None)
        return self._heard_until(waits.timed(found, self.wait_start))

    @property
    def heard_later(self) -> float:
        """Seconds from the event that tells its state to the delta that waits for its keyframe; 0 if none does."""
        if self.pending is None or not self.open:
            return 0.0
        return max(0.0, self.pending.time / 1e9 - self.head.timestamp)

    @property
    def waited(self) -> float:
        """Seconds for which the remaining time of its wait, as its event says it, had counted when that was heard."""
        counted = 0.0 if self.wait_start is None else self.wait_start.since_left(self.head.timestamp)
        return counted + self.heard_later

    @property
    def newest_at(self) -> float:
        """When its newest event happened, in Unix seconds by the clock of its process."""
        return self.head.timestamp + self.heard_later

    def _heard_until(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with the time until the delta that waits for its keyframe: its state is older, its clock not."""
        later = self.heard_later
        if not later:
            return snapshot
        wait = snapshot.wait and replace(snapshot.wait, elapsed=snapshot.wait.elapsed + later)
        return replace(snapshot, elapsed=snapshot.elapsed + later, wait=wait)

    @property
    def is_read(self) -> bool:
        """Whether the state is in memory as it was read, too."""
        return self._snapshot is not None

    def release_snapshot(self) -> None:
        """Keep the state only as it was reported, which takes a fifth of the memory; it is read again when needed."""
        if self.said is not None:
            self._snapshot = None

    @property
    def curve_so_far(self) -> Points:
        """Completed units over time: as reported, or else what was heard since the monitor knows the operation."""
        seen = self.snapshot
        if seen.curve and not self.open:
            return seen.curve
        return () if self.curve is None else self.curve.until(seen.elapsed, seen.progress.completed)


def keyframe_of(event: ReportedEvent) -> int | None:
    """The sequence of the keyframe that a delta names; None for an event that carries the whole operation."""
    named = event.brief.get(s.KEYFRAME)
    return named if is_whole(named) else None


def bare(head: Head) -> Snapshot:
    """A snapshot of the fields of a head."""
    return Snapshot(
        head.operation_id,
        head.name,
        head.status,
        head.timestamp,
        attempt=head.attempt,
        parent_id=head.parent_id,
        sequence=head.sequence,
        health=head.health,
        started_at=head.started_at,
        agent=head.agent,
    )


def head_of(event: ReportedEvent) -> Head | None:
    """The head of an event; None if it is not a valid event of an operation.

    It is valid with an id, a name and a status. The attempt, the sequence and the start time may be missing, but not be
    of another type or negative, as they say which attempt the event belongs to and which event is the newest.
    """
    get = event.brief.get
    key, name, status = get(s.OPERATION_ID), get(s.OPERATION_NAME), _STATUSES.get(get(s.STATUS))
    started, attempt, sequence = get(s.START_TIME), get(s.OPERATION_ATTEMPT, 1), get(s.SEQUENCE, 0)
    parent, agent = get(s.OPERATION_PARENT_ID), get(s.GEN_AI_AGENT)
    if (
        type(key) is not str
        or not 0 < len(key) <= KEY_LENGTH
        or type(name) is not str
        or status is None
        or not is_whole(attempt)
        or not is_whole(sequence)
        or not (finite(started) or s.START_TIME not in event.brief)
        or (type(parent) is str and len(parent) > KEY_LENGTH)
    ):
        return None
    if started is not None and started > LATEST:
        started = None  # nobody knows when it was
    return Head(
        key,
        name,
        status,
        _HEALTHS.get(get(s.HEALTH), Health.UNKNOWN),
        event.time / 1e9,
        attempt,
        sequence,
        started,
        parent if type(parent) is str else None,
        agent if type(agent) is str else None,
        counted=attempt if event.is_foreign else 1,
    )


def head_of_snapshot(snapshot: Snapshot) -> Head:
    """The head of a snapshot."""
    owner = snapshot.attributes.get(s.OWNER)
    return Head(
        snapshot.operation_id,
        snapshot.name,
        snapshot.status,
        snapshot.health,
        snapshot.timestamp,
        snapshot.attempt,
        snapshot.sequence,
        snapshot.started_at,
        snapshot.parent_id,
        snapshot.agent,
        owner if isinstance(owner, str) else None,
    )


_STATUSES: Final[Mapping[Any, Status]] = {status.value: status for status in Status if status is not Status.SKIPPED}
_HEALTHS: Final[Mapping[Any, Health]] = {health.value: health for health in Health}


@dataclass
class Ledger:
    """The state of all operations and processes. It has no lock: it belongs to one thread.

    Attributes:
        operations: the newest attempt of each operation, by id.
        processes: by instance.
        children: the ids of the children of each operation.
        unread: the number of invalid events.
        room: who holds how many of them, and who makes room.
        most: the most operations in memory.
        most_processes: the most processes in memory.
        most_ended: the most ended operations in memory; `recall` finds older ones.
        recall: finds an operation that is not in memory.
        on_change: called with each operation that changed.
        on_aside: called with each open operation that had to make room, and why: one of `room.REASONS`.
        on_drop: called with the id of each operation that left memory.
        on_part: called with the id of each operation that lost a child.
        rolled: the attempt and shown ratio of operations whose ratio is rolled up from children, by id.
        on_rival: called with an operation when an older run of its id is found to be alive.
        on_late: called with an operation, an event of the same attempt that says all and did not become its state, as a
            newer one is known, and when it was heard.
        lacking: the ids of operations whose newest keyframe is missing and is to be asked for, the oldest first.
        incomplete: the ids of all operations whose newest keyframe is missing.
    """

    most: int = OPERATIONS
    most_processes: int = PROCESSES
    operations: dict[str, Entry] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)
    children: dict[str, dict[str, None]] = field(default_factory=dict)
    unread: int = 0
    room: Room = field(default_factory=Room)
    most_ended: int = OPERATIONS
    recall: Callable[[str], Entry | None] | None = None
    on_change: Callable[[Entry], None] | None = None
    on_aside: Callable[[Entry, str], None] | None = None
    on_drop: Callable[[str], None] | None = None
    on_part: Callable[[str], None] | None = None
    on_rival: Callable[[Entry], None] | None = None
    on_late: Callable[[Entry, ReportedEvent, float], None] | None = None
    rolled: dict[str, tuple[int, Shown]] = field(default_factory=dict)
    revision: int = 0
    lacking: dict[str, None] = field(default_factory=dict)
    incomplete: dict[str, None] = field(default_factory=dict)
    _rivals: dict[str, set[str]] = field(default_factory=dict)
    _open: dict[str, dict[str, None]] = field(default_factory=dict)
    _ended: dict[str, None] = field(default_factory=dict)

    def hear(self, resource: Mapping[str, Any], events: Iterable[ReportedEvent], now: float) -> Process:
        """Take the events of one process."""
        process = self._process(resource, now)
        for event in events:
            if event.event == s.PROCESS_HEARTBEAT:
                process = self.beat(process, event.brief.get(s.HEARTBEAT_INTERVAL), event.time / 1e9)
            else:
                self.take(event, process.instance, now)
        return process

    def take(self, event: ReportedEvent, instance: str, now: float) -> Head | None:
        """Take one event of an operation; returns its head, or None if it is invalid."""
        head = head_of(event)
        if head is None:
            self.unread += 1
            return None
        if head.status.final and is_amount(event.brief.get(s.PROCESS_PID)):
            self._seen_to_end(event, head, instance, now)
            return head
        named, before = keyframe_of(event), self.find(head.operation_id)
        head = _settled(head, before, instance)
        known = None if before is None else self._run_of(before, head, instance)
        is_whole = named is None
        if known is None:  # of another attempt, or unknown: what a delta says itself is better than nothing
            self._apply(head, instance, now, before, event)
        elif named is None:
            self._apply(head, instance, now, before, event)
            self._complete(event, head, instance, now)
        elif known.keyframe is not None and known.keyframe.brief.get(s.SEQUENCE) == named:
            event.build_on(known.keyframe)
            is_whole = True
            if head.started_at is None:
                head = _settled(head_of(event) or head, before, instance)
            else:
                head = _completed(head, event)
            self._apply(head, instance, now, before, event)
        elif known.is_partial:
            self._apply(head, instance, now, before, event)
        else:
            self._keep(known, head, event, now)
        entry = self.operations.get(head.operation_id)
        if entry is not None and entry.lacks_keyframe:
            self.lacking[head.operation_id] = None
        else:
            self.lacking.pop(head.operation_id, None)
        is_late = is_whole and known is not None and entry is not None and entry.said is not event
        if is_late and entry is not None and self.on_late is not None:
            self.on_late(entry, event, now)
        return head

    def _seen_to_end(self, event: ReportedEvent, head: Head, instance: str, now: float) -> None:
        """Another process saw the process of this operation end, and says why; all else is as it was heard."""
        entry = self.find(head.operation_id)
        process = None if entry is None else self.processes.get(entry.instance)
        if entry is None or process is None or process.pid != event.brief[s.PROCESS_PID]:
            return
        if process.host != self.processes[instance].host or not (entry.open or entry.head.status is Status.LOST):
            return
        known, reason = entry.presumed or entry, event.attributes.get(s.STATUS_REASON)
        text = reason if isinstance(reason, str) else head.status.value
        snapshot = lose(known.snapshot, text, head.timestamp, head.status)
        head = head_of_snapshot(snapshot)._replace(owner=entry.head.owner)
        self._put(Entry(head, entry.instance, now, snapshot=snapshot, before=known))

    def _run_of(self, entry: Entry, head: Head, instance: str) -> Entry | None:
        """What its process reported of an operation, if an event is of the same attempt; else None."""
        known = entry.presumed or entry
        same = entry.instance == instance
        return known if same and is_same_attempt(known.head, head, same) else None

    def _keep(self, known: Entry, head: Head, delta: ReportedEvent, now: float) -> None:
        """Keep the newest delta whose keyframe is missing: the state stays, and its operation is alive."""
        newest = known.head.sequence if known.pending is None else known.pending.brief.get(s.SEQUENCE, 0)
        if not known.open or head.sequence <= newest:
            return
        self._put(known.heard_again(delta, now))

    def _complete(self, keyframe: ReportedEvent, head: Head, instance: str, now: float) -> None:
        """A keyframe came: complete the delta that waits for it."""
        entry = self.operations.get(head.operation_id)
        if entry is None or not entry.open:
            return
        delta = entry.said if entry.is_partial else entry.pending
        if delta is None or keyframe_of(delta) != head.sequence:
            return
        delta.build_on(keyframe)
        found = head_of(delta)
        if found is not None:
            known = Entry(head, instance, now, said=keyframe, before=entry)
            found = found._replace(owner=entry.head.owner or keyframe.owner, started_at=head.started_at)
            completed = Entry(found, instance, now, said=delta, before=known)
            completed.wait_start = waits.after(entry.wait_start, waits.start_in(delta, found), head.sequence)
            _draw(completed)
            self._put(completed)

    def apply(self, snapshot: Snapshot, instance: str, now: float) -> Entry:
        """Take a snapshot; returns the resulting entry."""
        before = self.find(snapshot.operation_id)
        return self._apply(head_of_snapshot(snapshot), instance, now, before, None, snapshot)

    def _apply(
        self,
        head: Head,
        instance: str,
        now: float,
        before: Entry | None,
        said: ReportedEvent | None,
        snapshot: Snapshot | None = None,
    ) -> Entry:
        """Take a state; `before` is what is known of the operation."""
        if before is None:
            if said is not None:
                head = head._replace(owner=said.owner)
            entry = Entry(head, instance, now, said=said, snapshot=snapshot)
            entry.wait_start = waits.after(None, waits.start_in(said, head), -1)
            _draw(entry)
            return self._put(entry)
        known = (before.presumed or before).head  # reported by the process itself, or by somebody with proof
        same = before.instance == instance
        spans = before.instance.startswith(MARK) and instance.startswith(MARK)
        again = spans or is_same_attempt(known, head, same)  # a trace runs once, whenever its first span began
        if again:
            if not _follows(known, head):
                return self._correct(before, head, said)
        elif same and head.attempt != known.attempt:
            if head.attempt < known.attempt:  # within a process the count is right, whatever its clock does
                return before
        elif is_older(head, known):
            if not same:
                self._meet(before, head, instance)
            return before
        elif not same and known.status.final and is_same_start(head, known):
            earliest = max(known.timestamp, (known.started_at or 0.0) + 2 * ROUNDED)
            head = head._replace(started_at=earliest)
        owner = known.owner
        if owner is None and said is not None and head.attempt != known.attempt:
            owner = said.owner
        if head.owner is None and owner is not None:
            head = head._replace(owner=owner)
        entry = Entry(head, instance, now, said=said, snapshot=snapshot, before=before)
        if not again:
            self._begin(entry, before)
        start = waits.start_in(said, head)
        entry.wait_start = (
            waits.after(before.wait_start, start, known.sequence) if again else waits.after(None, start, -1)
        )
        _draw(entry)
        return self._put(entry)

    def _correct(self, entry: Entry, head: Head, late: ReportedEvent | None) -> Entry:
        """A late event of the attempt changes no state, but may say when the wait of the newest one began."""
        known = entry.wait_start
        if known is None or late is None or not entry.open or entry.presumed is not None:
            return entry
        start = waits.corrected(known, waits.start_in(late, head), entry.head)
        if start == known:
            return entry
        changed = Entry(entry.head, entry.instance, entry.heard_at, said=entry.said, before=entry)
        changed.wait_start = start
        return self._put(changed)

    def _begin(self, entry: Entry, before: Entry) -> None:
        """Start a new attempt: its number follows the last one; an older run may be alive in its own process."""
        entry.number, entry.curve = max(before.number + 1, entry.head.attempt), None
        entry.pending = None
        if entry.keyframe is not entry.said:
            entry.keyframe = None
        rivals = {key: one for key, one in (before.rivals or {}).items() if key != entry.instance}
        if before.open and before.presumed is None and before.instance != entry.instance:
            rivals[before.instance] = Rival(before.head, before.number, before.instance)
        elif before.presumed is None and before.instance != entry.instance:
            _note_end(entry, before.head, before.instance)
        entry.rivals = dict(list(rivals.items())[-RIVALS:]) or None
        for instance in entry.rivals or ():
            self._rivals.setdefault(instance, set()).add(entry.head.operation_id)

    def _meet(self, entry: Entry, head: Head, instance: str) -> None:
        """Take an event of an older run in another process."""
        rivals = entry.rivals or {}
        known, over = rivals.get(instance), (entry.over or {}).get(instance)
        if over is not None and not began_later(head, over):
            return
        if head.status.final:
            _note_end(entry, head, instance)
            if known is not None and not began_later(known.head, head):
                self._part(entry, instance)
            return
        if known is None:
            if entry.head.started_at is None or head.timestamp < entry.head.started_at + RIVAL_AFTER:
                return
            number = max(1, min(head.attempt, entry.number - 1))
            entry.rivals = {**dict(list(rivals.items())[1 - RIVALS :]), instance: Rival(head, number, instance)}
            self._rivals.setdefault(instance, set()).add(entry.head.operation_id)
        self._prove(entry, instance, head.timestamp)

    def _prove(self, entry: Entry, instance: str, moment: float) -> None:
        """The process of an older run was alive at this moment, by its clock."""
        rival = (entry.rivals or {}).get(instance)
        began = entry.head.started_at
        if rival is None or rival.proven or began is None or moment < began + RIVAL_AFTER:
            return
        entry.rivals = {**(entry.rivals or {}), instance: rival._replace(proven=True)}
        self.touch(entry)
        if self.on_rival is not None:
            self.on_rival(entry)

    def _part(self, entry: Entry, instance: str) -> None:
        """An older run has ended."""
        entry.rivals = {key: one for key, one in (entry.rivals or {}).items() if key != instance} or None
        ids = self._rivals.get(instance)
        if ids is not None:
            ids.discard(entry.head.operation_id)
            if not ids:
                del self._rivals[instance]
        self.touch(entry)

    def touch(self, entry: Entry) -> None:
        """Give an operation a new revision: its row changed although nothing was reported."""
        self.revision += 1
        entry.revision = self.revision

    def find(self, operation_id: str) -> Entry | None:
        """An operation, from memory or from `recall`."""
        entry = self.operations.get(operation_id)
        return self.recall(operation_id) if entry is None and self.recall is not None else entry

    def owner_of(self, head: Head) -> str | None:
        """The owner of an operation: its own, or that of an ancestor."""
        for _ in range(OWNERS_ABOVE):
            if head.owner is not None or head.parent_id is None:
                break
            above = self.operations.get(head.parent_id)
            if above is None:
                break
            head = above.head
        return head.owner

    def search_text(self, entry: Entry) -> str:
        """The text that a search for an operation looks at, in lower case."""
        head, process = entry.head, self.processes.get(entry.instance)
        about = process.words if process is not None else ""
        return f"{head.operation_id} {head.name} {head.agent or ''} {about}".lower()

    def presume_lost(self, operation_id: str, reason: str) -> Entry | None:
        """Presume an operation lost until it is heard of again; None if it has ended or is unknown."""
        entry = self.operations.get(operation_id)
        if entry is None or not entry.open:
            return None
        return self.presume(lose(entry.snapshot, reason))

    def presume(self, snapshot: Snapshot) -> Entry | None:
        """Presume that an operation ended as the snapshot says, until it is heard of again; None if it has ended."""
        entry = self.operations.get(snapshot.operation_id)
        if entry is None or not entry.open:
            return None
        return self._put(presumed(entry, snapshot))

    def remove(self, operation_id: str) -> None:
        """Remove an operation that turned out to be another one."""
        if operation_id in self.operations:
            self._drop(operation_id)

    def restore(self, entry: Entry) -> None:
        """Add an operation that was known before; it keeps its revision."""
        revision = entry.revision
        self._put(entry)
        entry.revision = revision
        if entry.lacks_keyframe:
            self.lacking[entry.head.operation_id] = None

    def drop(self, operation_id: str) -> None:
        """Drop an ended operation from memory."""
        entry = self.operations.get(operation_id)
        if entry is not None and not entry.open:
            self._drop(operation_id)

    def health(self) -> dict[str, Any]:
        """How many operations lack a keyframe, and the newest of them, for `/health`; any thread may call it."""
        found = tuple(self.incomplete)
        return {"keyframes": {"missing": len(found), "newest": found[-1]}} if found else {}

    def open_of(self, instance: str) -> list[Entry]:
        """The open operations of a process."""
        return [self.operations[key] for key in self._open.get(instance, ())]

    def is_busy(self, instance: str) -> bool:
        """Whether a process has open operations."""
        return instance in self._open

    def busy(self) -> Iterator[Process]:
        """The processes that have open operations."""
        for instance in tuple(self._open):
            process = self.processes.get(instance)
            if process is not None:
                yield process

    # -- inside

    def _process(self, resource: Mapping[str, Any], now: float) -> Process:
        instance = self.instance_of(resource)
        known, interval = self.processes.get(instance), promised_interval(resource)
        if known is None:
            process = process_of(instance, resource, now, interval)
            self._make_room_for_process()
        elif interval is None:
            process = replace(known, heard_at=max(now, known.heard_at))
        else:
            process = replace(known, heard_at=max(now, known.heard_at), interval=interval, beats=True)
        if known is not None and (more := _description(known, resource)):
            process = replace(process, resource={**known.resource, **more})
        self.know(process, now)
        return process

    def instance_of(self, resource: Mapping[str, Any]) -> str:
        """The key of a process: its instance id, and for each other process with the same id also what it is.

        Whoever sets the instance id by hand gives it to each run of a program, and perhaps to several at a time. None
        of them must prove that another one is alive.
        """
        first, other = keys_of(resource)
        if other is None or first.startswith(MARK):
            return first
        known = self.processes.get(first)
        if known is None:
            return other if other in self.processes else first
        return other if is_another(known.pid, known.created, resource) else first

    def know(self, process: Process, now: float) -> None:
        """Hold a process in memory."""
        self.processes[process.instance] = process
        self.room.hear(process, now, busy=process.instance in self._open)

    def learn(self, process: Process, about: Mapping[str, Any]) -> Process:
        """Something more is known of a process: these attributes of its resource."""
        process = self.processes[process.instance] = replace(process, resource={**process.resource, **about})
        return process

    def see(self, process: Process, seen: Seen) -> None:
        """A process was seen alive on this machine."""
        if process.seen != seen:
            self.processes[process.instance] = replace(process, seen=seen)

    def beat(self, process: Process, interval: object, moment: float = 0.0) -> Process:
        """Take a heartbeat; `moment` is its time (Unix), `interval` the seconds until the next one."""
        if process.instance in self._rivals:
            for key in tuple(self._rivals[process.instance]):
                entry = self.operations.get(key)
                if entry is None or process.instance not in (entry.rivals or ()):
                    self._rivals[process.instance].discard(key)
                else:
                    self._prove(entry, process.instance, moment)
        if is_interval(interval):
            process = self.processes[process.instance] = replace(process, interval=float(interval), beats=True)
        return process

    def _put(self, entry: Entry) -> Entry:
        key, parent = entry.head.operation_id, entry.head.parent_id
        before = self.operations.get(key)
        if before is None:
            if len(self.operations) >= self.most:
                self._make_room()
        elif before.instance != entry.instance or not (before.open and entry.open):
            self._take_out(key, before)
        if before is None or before.head.parent_id != parent:
            if before is not None:
                self._orphan(key, before)
            if parent is not None:
                self.children.setdefault(parent, {})[key] = None
        self.revision += 1
        entry.revision = self.revision
        self.operations[key] = entry
        if entry.lacks_keyframe:
            self.incomplete[key] = None
        else:
            self.incomplete.pop(key, None)
        if entry.open:
            self._open.setdefault(entry.instance, {})[key] = None
            held = None if before is None or before.instance != entry.instance else before.holder
            process = self.processes.get(entry.instance)
            entry.holder = self.room.enter(key, entry.instance, process) if held is None else held
        else:
            self._ended[key] = None
            if len(self._ended) > self.most_ended:
                self._shed()
        if self.on_change is not None:
            self.on_change(entry)
        return entry

    def _take_out(self, key: str, entry: Entry) -> None:
        self._ended.pop(key, None)
        if entry.holder is not None:
            entry.holder.remove(key)
            entry.holder = None
        running = self._open.get(entry.instance)
        if running is not None:
            running.pop(key, None)
            if not running:
                del self._open[entry.instance]
                if entry.instance in self.processes:
                    self.room.idle[entry.instance] = None

    def _orphan(self, key: str, entry: Entry) -> None:
        siblings = self.children.get(entry.head.parent_id or "")
        if siblings is not None:
            siblings.pop(key, None)
            if not siblings:
                del self.children[entry.head.parent_id or ""]
            if self.on_part is not None:
                self.on_part(entry.head.parent_id or "")

    def _shed(self) -> None:
        """Drop ended operations, except those below one in memory whose figures include them."""
        for key in list(islice(self._ended, SHED)):
            if len(self._ended) <= self.most_ended:
                return
            parent = self.operations[key].head.parent_id
            if parent is None or parent == key or parent not in self.operations:
                self._drop(key)
            else:
                self._ended[key] = self._ended.pop(key)

    def _make_room(self) -> None:
        ended = next(iter(self._ended), None)
        if ended is None:
            self.put_aside(self.room.next_operation(self.processes), OPERATIONS_FULL)
        else:
            self._drop(ended)

    def put_aside(self, key: str, why: str) -> None:
        """Drop an open operation from memory to make room: it is followed again from its next event on."""
        entry = self.operations[key]
        if entry.open:
            self.room.counts[why] += 1
            if self.on_aside is not None:
                self.on_aside(entry, why)
        self._drop(key)

    def ended(self) -> list[str]:
        """The ended operations in memory, those that ended first in front."""
        return list(self._ended)

    def _drop(self, key: str) -> None:
        entry = self.operations.pop(key)
        self.lacking.pop(key, None)
        self.incomplete.pop(key, None)
        self._take_out(key, entry)
        self._orphan(key, entry)
        rolled = self.rolled.pop(key, None)
        if rolled is not None and rolled[0] == entry.number:
            entry.rolled = rolled[1]
        if self.on_drop is not None:
            self.on_drop(key)

    def _make_room_for_process(self) -> None:
        if len(self.processes) < self.most_processes:
            return
        instance = self.room.next_process()
        for key in tuple(self._open.get(instance, ())):
            self.put_aside(key, PROCESSES_FULL)
        del self.processes[instance]
        self.room.drop_process(instance)


def _note_end(entry: Entry, head: Head, instance: str) -> None:
    """An older run in this process is known to have ended."""
    others = {key: one for key, one in (entry.over or {}).items() if key != instance}
    entry.over = {**dict(list(others.items())[1 - RIVALS :]), instance: head}


def process_of(instance: str, resource: Mapping[str, Any], now: float, interval: float | None = None) -> Process:
    """A process from its resource attributes; with an interval if it is known to send heartbeats."""
    pid, created, host = resource.get(s.PROCESS_PID), resource.get(s.PROCESS_CREATED), resource.get(s.HOST_NAME)
    return Process(
        instance,
        {key: value for key, value in resource.items() if key not in OF_REQUESTS},
        now,
        INTERVAL if interval is None else interval,
        pid if isinstance(pid, int) and pid > 0 else None,
        created if isinstance(created, str) else None,
        host if isinstance(host, str) else None,
        interval is not None,
        " ".join(str(about)[:WORDS] for key in _SEARCHED if (about := resource.get(key)) is not None),
    )


def _description(known: Process, resource: Mapping[str, Any]) -> dict[str, Any]:
    """What a request says about a process that earlier ones left out: only some describe it."""
    return {key: value for key, value in resource.items() if key.startswith(s.DESCRIBING) and key not in known.resource}


def _settled(head: Head, known: Entry | None, instance: str) -> Head:
    """The head of an event with the start that is known of its attempt; a trace learns its start from its spans."""
    if known is None or instance.startswith(MARK):
        return head
    before = (known.presumed or known).head
    if head.started_at in (None, before.started_at) or before.started_at is None:
        return head
    same = is_same_attempt(before, head, known.instance == instance)
    if not same and known.instance == instance and head.attempt == before.attempt:
        said = (known.presumed or known).said  # its start was taken as the end of the run before
        same = said is not None and said.brief.get(s.START_TIME) == head.started_at and _is_late(before, said)
    return head._replace(started_at=before.started_at) if same else head


def _completed(head: Head, delta: ReportedEvent) -> Head:
    """The head of a delta that was put on its keyframe: what it did not say itself is as in the keyframe."""
    get = delta.brief.get
    health, parent, agent = _HEALTHS.get(get(s.HEALTH), Health.UNKNOWN), get(s.OPERATION_PARENT_ID), get(s.GEN_AI_AGENT)
    return head._replace(
        health=health,
        parent_id=parent if type(parent) is str else None,
        agent=agent if type(agent) is str else None,
    )


def _is_late(head: Head, said: ReportedEvent) -> bool:
    """Whether the start that is known of an attempt is later than its process says."""
    return head.started_at is not None and head.started_at > said.brief[s.START_TIME]


def _since(snapshot: Snapshot, started_at: float | None, is_derived: bool) -> Snapshot:
    """A snapshot with the start that is known of its attempt; a derived elapsed time follows from it."""
    if started_at is None or snapshot.started_at in (None, started_at):
        return snapshot
    elapsed = wire.since(started_at, snapshot.timestamp) if is_derived else snapshot.elapsed
    return replace(snapshot, started_at=started_at, elapsed=elapsed)


def elapsed_of(event: ReportedEvent, head: Head) -> float | None:
    """The elapsed time that an event says, else the time since the start; None if the start is unknown, too."""
    said: float | None = event.brief.get(s.ELAPSED)
    return said if said is not None or head.started_at is None else wire.since(head.started_at, head.timestamp)


def counted(event: ReportedEvent, head: Head) -> tuple[float, Number] | None:
    """How many units an event says were completed, and when (seconds since the start); None if it does not say it."""
    seconds, completed = elapsed_of(event, head), event.brief.get(s.COMPLETED)
    if seconds is None or completed is None or not finite(seconds) or not is_amount(completed):
        return None
    return seconds, completed


def _draw(entry: Entry) -> None:
    """Add what an event says to the curve of its operation; one that carries the whole curve replaces it."""
    count = counted(entry.said, entry.head) if entry.said is not None and entry.open else None
    if entry.said is None or count is None:
        return
    get = entry.said.brief.get
    told = get(s.CURVE)
    if isinstance(told, str):
        try:
            entry.curve = Curve(wire.read_curve(told))
        except (ValueError, RecursionError):
            pass
    if entry.curve is None:
        restored: Any = get(s.RESTORED)
        entry.curve = Curve(restored=restored if finite(restored) and restored >= 0 else 0)
    entry.curve.add(*count)


def _follows(known: Head, head: Head) -> bool:
    """Whether it follows an event of the same attempt; nothing follows an end except the same end, repeated."""
    newer = head.sequence > known.sequence
    if known.status.final:
        return newer and head.status is known.status
    return newer or head.status.final


def read(event: ReportedEvent) -> Snapshot | None:
    """The snapshot that an event carries; None if it is invalid."""
    try:
        snapshot = wire.from_attributes(
            event.attributes,
            event.time / 1e9,
            event.trace_id or None,
            event.span_id or None,
            event.sampled,
            derives=event.is_foreign,
        )
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RecursionError):
        return None
    return snapshot if _sound(snapshot) else None


def _sound(snapshot: Snapshot) -> bool:
    """Whether the fields that are compared and shown have the right types; senders are untrusted."""
    whole = (snapshot.attempt, snapshot.sequence)
    numbers: list[object] = [snapshot.stall_after, snapshot.slow_after, snapshot.start_within, snapshot.heartbeat_at]
    texts: list[object] = [getattr(snapshot, name) for name in _TEXTS]
    parts: tuple[Snapshot | StageSnapshot, ...] = (snapshot, *snapshot.stages)
    for about in parts:
        progress, wait = about.progress, about.wait
        numbers += (about.started_at, about.elapsed, about.idle, progress.completed, progress.total, progress.ratio)
        numbers += (progress.ratio_raw, progress.rate)
        texts += (about.name, progress.unit, about.reason, about.message, about.description)
        if progress.eta is not None:
            numbers += (progress.eta.eta, progress.eta.low, progress.eta.high, progress.eta.runs)
            texts.append(progress.eta.source)
        if wait is not None:
            numbers += (wait.elapsed, wait.overdue_after)
            texts.append(wait.reason)
    for stage in snapshot.stages:
        texts += (stage.path, stage.span_id, *stage.depends_on)
        numbers += (stage.weight, stage.expected, stage.stall_after)
    for status, count, seconds in snapshot.folded:
        texts.append(status)
        numbers += (count, seconds)
    if snapshot.loop is not None:
        numbers += (snapshot.loop.repeats, snapshot.loop.limit, snapshot.loop.seconds)
        texts += (snapshot.loop.kind, *snapshot.loop.keys)
    return (
        all(type(number) is int for number in whole)
        and all(map(finite, [number for number in numbers if number is not None]))
        and not {type(text) for text in texts} - _OF_TEXTS
    )


_OF_TEXTS: Final = frozenset({str, type(None)})
_TEXTS: Final = (
    "parent_id",
    "stage",
    "stall_after_source",
    "slow_after_source",
    "health_reason",
    "stuck_at",
    "stack",
    "agent",
)


def presumed(entry: Entry, snapshot: Snapshot) -> Entry:
    """An operation with an inferred end, until it is heard of again."""
    head = head_of_snapshot(snapshot)._replace(owner=entry.head.owner)
    snapshot = replace(snapshot, curve=entry.curve_so_far)
    return Entry(head, entry.instance, entry.heard_at, snapshot=snapshot, presumed=entry, before=entry)


def lose(snapshot: Snapshot, reason: str, timestamp: float | None = None, status: Status = Status.LOST) -> Snapshot:
    """The snapshot as lost, with all its open stages, or as ended otherwise; its sequence is one above the last."""
    moment = snapshot.timestamp if timestamp is None else max(timestamp, snapshot.timestamp)
    later = snapshot.at(moment)
    open_ones = [
        stage
        for stage in snapshot.stages
        if stage.status is not Status.PENDING and (not stage.status.final or stage.status is Status.LOST)
    ]
    ended = {id(stage): _lost_stage(stage, status, moment - snapshot.timestamp) for stage in open_ones}
    stages = tuple(ended.get(id(stage), stage) for stage in snapshot.stages)
    return replace(
        later,
        timestamp=moment,
        status=status,
        reason=reason,
        sequence=snapshot.sequence + 1,
        stages=stages,
        repeated=stage_runs.with_ends(snapshot.repeated, stages, tuple(ended.values())),
        progress=_left_at(later),
        wait=None,
    )


def _lost_stage(stage: StageSnapshot, status: Status, later: float) -> StageSnapshot:
    """An open stage as it ended with its operation; `later` is the time (s) since it was reported."""
    elapsed = stage.elapsed if stage.status.final else stage.elapsed + later
    return replace(stage, status=status, elapsed=elapsed, progress=_unless_all(stage.progress))


def _left_at(snapshot: Snapshot) -> Progress:
    """The progress to show: not 0% if the operation counted nothing and its innermost stage did."""
    own = replace(_unless_all(snapshot.progress), eta=None)
    if own.completed or own.ratio != 0:
        return own
    stage = next((stage for stage in reversed(snapshot.stages) if stage.path == snapshot.stage), None)
    counted = stage is not None and bool(stage.progress.completed or stage.progress.ratio)
    return replace(own, ratio=None, ratio_raw=None) if counted else own


def _unless_all(progress: Progress) -> Progress:
    """The progress without its ratio if all units are done: 99% would suggest that something was left."""
    return progress if progress.ratio is None or progress.ratio < ALMOST else replace(progress, ratio=None)
