"""The state of every operation, made from log events that come in any order, twice, or not at all.

Each event carries the whole operation, so the newest one is the state: newest by the start of its attempt, then by
attempt, then by sequence. A final status stays, whatever comes late; only a newer attempt begins anew. Nothing here
reads a clock: times are given, in seconds of the observer's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, Protocol

from otel_progress import semconv as s
from otel_progress.model import wire
from otel_progress.model.snapshot import Snapshot, StageSnapshot
from otel_progress.model.status import Status
from otel_progress.model.values import finite

OPERATIONS: Final = 100_000
"""The most operations that are kept; those that ended first go first."""
PROCESSES: Final = 10_000
"""The most processes that are kept; those without running operations go first."""
INTERVAL: Final = 5.0
"""Seconds from one heartbeat to the next, of a process that did not say."""
_INSTANCE: Final = "service.instance.id"


class Said(Protocol):
    """A log event as it came in; its time in ns since 1970, ids in hex or empty."""

    @property
    def event(self) -> str:
        """Its name."""

    @property
    def time(self) -> int:
        """When it happened."""

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What it says."""

    @property
    def trace_id(self) -> str:
        """The trace of the operation."""

    @property
    def span_id(self) -> str:
        """The span of the operation."""

    @property
    def sampled(self) -> bool:
        """Whether the trace is kept."""


@dataclass(frozen=True)
class Process:
    """One process that was heard of.

    Attributes:
        instance: its `service.instance.id`, which is fresh in each process.
        resource: all that it says of itself.
        heard_at: when it was last heard of.
        interval: seconds from one of its heartbeats to the next.
        pid: its number on its host.
        created: when it was created, in ISO 8601.
        host: where it runs.
    """

    instance: str
    resource: Mapping[str, Any]
    heard_at: float
    interval: float = INTERVAL
    pid: int | None = None
    created: str | None = None
    host: str | None = None


@dataclass(frozen=True)
class Entry:
    """One operation: its newest snapshot, and the process that said it.

    `presumed` tells that it counts as lost without proof, so a sign of life of the same attempt undoes that.
    """

    snapshot: Snapshot
    instance: str
    heard_at: float
    presumed: Snapshot | None = None

    @property
    def open(self) -> bool:
        """Whether it is not over, as far as is known."""
        return not self.snapshot.status.final


class _Rank(NamedTuple):
    """What orders the events of one operation id."""

    started_at: float
    attempt: int
    sequence: int


def _rank(snapshot: Snapshot) -> _Rank:
    """One that has not started is as new as its event: what ran before it is older, its own start is newer."""
    started = snapshot.timestamp if snapshot.started_at is None else snapshot.started_at
    return _Rank(started, snapshot.attempt, snapshot.sequence)


@dataclass
class Ledger:
    """What is known; it is not locked: its owner does that.

    Attributes:
        operations: by id, the newest attempt of each.
        processes: by instance.
        unread: events that were no events of an operation, although they bore the name of one.
        forgotten: operations that ran when they had to make room.
    """

    most: int = OPERATIONS
    operations: dict[str, Entry] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)
    unread: int = 0
    forgotten: int = 0
    _open: dict[str, dict[str, None]] = field(default_factory=dict)
    _ended: dict[str, None] = field(default_factory=dict)

    def hear(self, resource: Mapping[str, Any], events: Iterable[Said], now: float) -> Process:
        """Take what one process said."""
        process = self._process(resource, now)
        for event in events:
            if event.event == s.PROCESS_HEARTBEAT:
                process = self._beat(process, event.attributes.get(s.HEARTBEAT_INTERVAL))
                continue
            snapshot = read(event)
            if snapshot is None:
                self.unread += 1
            else:
                self.apply(snapshot, process.instance, now)
        return process

    def apply(self, snapshot: Snapshot, instance: str, now: float) -> Entry:
        """Take a snapshot; returns what holds now."""
        before = self.operations.get(snapshot.operation_id)
        if before is None:
            return self._put(Entry(snapshot, instance, now))
        said = before.presumed or before.snapshot  # by the process itself, or by one who has proof
        if _same_attempt(said, snapshot, before.instance == instance):
            if not _follows(said, snapshot):
                return before
        elif before.instance == instance and snapshot.attempt != said.attempt:
            if snapshot.attempt < said.attempt:  # within a process the count is right, whatever its clock does
                return before
        elif _rank(snapshot) < _rank(said):
            return before
        return self._put(Entry(snapshot, instance, now))

    def presume_lost(self, operation_id: str, reason: str) -> Entry | None:
        """It counts as lost, without proof, until it is heard of again; None where it is over or unknown."""
        entry = self.operations.get(operation_id)
        if entry is None or not entry.open:
            return None
        return self._put(replace(entry, snapshot=lose(entry.snapshot, reason), presumed=entry.snapshot))

    def open_of(self, instance: str) -> list[Entry]:
        """The operations of a process that are not over, as far as is known."""
        return [self.operations[key] for key in self._open.get(instance, ())]

    def busy(self) -> Iterator[Process]:
        """The processes that have operations which are not over."""
        for instance in tuple(self._open):
            process = self.processes.get(instance)
            if process is not None:
                yield process

    # -- inside

    def _process(self, resource: Mapping[str, Any], now: float) -> Process:
        instance = _instance(resource)
        known = self.processes.get(instance)
        if known is not None:
            process = replace(known, heard_at=now)
        else:
            pid, created, host = resource.get(s.PROCESS_PID), resource.get(s.PROCESS_CREATED), resource.get(s.HOST_NAME)
            process = Process(
                instance,
                dict(resource),
                now,
                INTERVAL,
                pid if isinstance(pid, int) and pid > 0 else None,
                created if isinstance(created, str) else None,
                host if isinstance(host, str) else None,
            )
            self._make_room_for_process()
        self.processes[instance] = process
        return process

    def _beat(self, process: Process, interval: object) -> Process:
        if isinstance(interval, (int, float)) and 0 < interval < float("inf"):
            process = self.processes[process.instance] = replace(process, interval=float(interval))
        return process

    def _put(self, entry: Entry) -> Entry:
        key = entry.snapshot.operation_id
        before = self.operations.get(key)
        if before is not None:
            self._take_out(key, before.instance)
        elif len(self.operations) >= self.most:
            self._make_room()
        self.operations[key] = entry
        if entry.open:
            self._open.setdefault(entry.instance, {})[key] = None
        else:
            self._ended[key] = None
        return entry

    def _take_out(self, key: str, instance: str) -> None:
        self._ended.pop(key, None)
        running = self._open.get(instance)
        if running is not None:
            running.pop(key, None)
            if not running:
                del self._open[instance]

    def _make_room(self) -> None:
        oldest = next(iter(self._ended or self.operations))
        entry = self.operations.pop(oldest)
        self.forgotten += entry.open
        self._take_out(oldest, entry.instance)

    def _make_room_for_process(self) -> None:
        if len(self.processes) >= PROCESSES:
            idle = next((instance for instance in self.processes if instance not in self._open), None)
            if idle is None:
                idle = next(iter(self.processes))
                for key in tuple(self._open.get(idle, ())):
                    self.operations.pop(key)
                    self.forgotten += 1
                self._open.pop(idle, None)
            del self.processes[idle]


def _instance(resource: Mapping[str, Any]) -> str:
    """What tells one process from another; of one without an instance id, what else is known."""
    given = resource.get(_INSTANCE)
    if isinstance(given, str) and given:
        return given
    return "/".join(str(resource.get(key, "")) for key in (s.HOST_NAME, s.PROCESS_PID, s.PROCESS_CREATED))


def _same_attempt(one: Snapshot, other: Snapshot, same_process: bool) -> bool:
    """Whether both are of one attempt; before its start, an attempt is known by its number and its process."""
    if one.attempt != other.attempt:
        return False
    if one.started_at is None or other.started_at is None:
        return same_process
    return one.started_at == other.started_at


def _follows(said: Snapshot, snapshot: Snapshot) -> bool:
    """Whether it comes after what was said of the same attempt; nothing comes after an end but the same, said again."""
    newer = snapshot.sequence > said.sequence
    if said.status.final:
        return newer and snapshot.status is said.status
    return newer or snapshot.status.final


def read(event: Said) -> Snapshot | None:
    """The snapshot that an event carries; None where it carries none that can be meant."""
    try:
        snapshot = wire.from_attributes(
            event.attributes, event.time / 1e9, event.trace_id or None, event.span_id or None, event.sampled
        )
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RecursionError):
        return None
    return snapshot if _sound(snapshot) else None


def _sound(snapshot: Snapshot) -> bool:
    """Whether what is compared and shown is of its type; whoever sends may be wrong."""
    whole = (snapshot.attempt, snapshot.sequence)
    numbers: list[object] = []
    texts: list[object] = [snapshot.parent_id, snapshot.stage]
    parts: tuple[Snapshot | StageSnapshot, ...] = (snapshot, *snapshot.stages)
    for about in parts:
        progress = about.progress
        numbers += (about.started_at, about.elapsed, about.idle, progress.completed, progress.total, progress.ratio)
        texts += (about.name, progress.unit, about.reason, about.message, about.description)
    for stage in snapshot.stages:
        texts += (stage.path, stage.span_id)
    return (
        all(type(number) is int for number in whole)
        and all(number is None or finite(number) for number in numbers)
        and all(text is None or isinstance(text, str) for text in texts)
    )


def lose(snapshot: Snapshot, reason: str, timestamp: float | None = None) -> Snapshot:
    """The same as lost, with all its open stages; its sequence is one above the last heard."""
    moment = snapshot.timestamp if timestamp is None else max(timestamp, snapshot.timestamp)
    later = snapshot.at(moment)
    stages = tuple(
        stage if stage.status.final or stage.status is Status.PENDING else replace(stage, status=Status.LOST)
        for stage in snapshot.stages
    )
    return replace(
        later,
        timestamp=moment,
        status=Status.LOST,
        reason=reason,
        sequence=snapshot.sequence + 1,
        stages=stages,
        progress=replace(later.progress, eta=None),
        wait=None,
    )
