"""The one thread that all goes through: from a request to the ledger, into the store, and only then acknowledged.

Whoever gives a request waits for the commit, so what was acknowledged survives a SIGKILL. Where the store can't write,
nothing is acknowledged: the sender keeps it and comes again. Others read the ledger without a lock: its entries never
change, and whole dicts are copied in one step.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.model.health import STUCK
from otel_progress.model.status import Health, Status
from otel_progress.monitor.intake import records, requests
from otel_progress.monitor.intake.records import Record
from otel_progress.monitor.intake.request_queue import (
    FULL,
    LATE,
    TURN_BYTES,
    TURN_REQUESTS,
    TURN_SECONDS,
    Job,
    RequestQueue,
)
from otel_progress.monitor.intake.requests import Answer, Done, Envelope, Refused, Taken
from otel_progress.monitor.state import foreign_traces
from otel_progress.monitor.state.conditions import Label
from otel_progress.monitor.state.ledger import (
    Entry,
    Head,
    Ledger,
    Process,
    head_of,
    instance_of,
    lose,
    presumed,
)
from otel_progress.monitor.state.loading import Loading
from otel_progress.monitor.state.restore import entry_of, known_of, process_of, raw_of, rolled_of
from otel_progress.monitor.state.rollup import show
from otel_progress.monitor.state.saved import Batch, Event, Kept
from otel_progress.monitor.state.schedule import Rounds
from otel_progress.monitor.state.timeline import INFERRED, branches_of, stuck_branches
from otel_progress.monitor.state.verdicts import Observer

if TYPE_CHECKING:
    from otel_progress.monitor.state.store import Store
    from otel_progress.monitor.state.watcher import Watcher

HELD_BYTES: Final = 128 * 1024 * 1024
"""The most that is held of all operations; where it is more, the largest make room."""
TICK: Final = 1.0
THIN: Final = 1.0
"""Of plain updates one in so many seconds goes into the history of an operation."""
ENDED: Final = 2_000
"""So many operations that are over are held in memory; the others are read when somebody asks."""
PRESUME_AFTER: Final = 6 * 3600.0
"""An operation whose process was not heard of for so many seconds counts as lost, until it is heard of again."""
PRUNE_EVERY: Final = 60.0
SAVE_EVERY: Final = 30.0
"""How often it is saved when a process was heard of, in seconds."""
STALLS: Final = 16
"""The most stalls of one operation that are held back at a time."""
RECALLED: Final = 64
"""The most stalls and recoveries of a stuck operation that are read at a start."""
ABOVE: Final = 16
"""The most operations above one whose rows are newer ones with it."""
TRACES: Final = 100_000
"""So many traces are known to be told of by log events."""
UNSAVED: Final = 100_000
"""So many operations may wait for a store that can't write; then nothing more is taken."""
CALLED: Final = 10_000
"""So many events that somebody was called for are remembered, so that none is passed on twice."""
BEHIND: Final = 3.0
"""What waits for so many seconds to be taken was not heard yet: nobody is dead for that."""
LEAP: Final = 1 << 20
"""Revisions leap so far at a start: some may have been shown that were not stored any more."""
TEXT: Final = 4_096
NOT_TAKEN: Final = ("no_room", "client_gone", "too_large", "records")
"""Why requests are not taken; the last one counts records that hold too much, in requests that were taken."""
_TOO_MANY: Final = (
    f"records with more than {requests.RECORD_PARTS} attributes and values are not taken, and no more than "
    f"{requests.READ} attributes of a request are read"
)
_LABELS: Final = {health: Label(health) for health in Health}
_CALLS: Final = frozenset({s.OPERATION_ENDED, s.STALLED, s.RECOVERED, s.OVERDUE, s.SLOW})
_OVERRULED: Final = frozenset({s.STALLED, s.RECOVERED})
_ALWAYS: Final = s.EVENTS - {s.UPDATED, s.HEARTBEAT, s.PROCESS_HEARTBEAT}


class Told(NamedTuple):
    """An event that was taken, for those who pass it on."""

    record: Record
    head: Head | None
    """Of the operation that it is about; a heartbeat of a process is about none."""
    resource: Mapping[str, Any]
    held: bool = False
    """What it tells is overruled: it is for other monitors, not for people."""


class Core:
    """The monitor's state, and the thread that changes it."""

    def __init__(
        self,
        store: Store,
        *,
        forwards: Iterable[str] = (),
        presume_after: float = PRESUME_AFTER,
        on_stored: Callable[[list[Told]], None] | None = None,
        wants: Callable[[str], bool] = lambda _: True,
        on_verdict: Callable[[Entry, str], None] | None = None,
        on_rival: Callable[[Entry], None] | None = None,
        wake: Callable[[str], None] | None = None,
    ) -> None:
        """Go on from what the store has.

        Args:
            store: where state and history are kept.
            forwards: the signals whose requests are kept to be passed on.
            presume_after: seconds without a sign of its process, after which an operation counts as lost.
            on_stored: called with the events that were stored, each once; it must be quick.
            wants: which events it is called with, by their names.
            on_verdict: called when the monitor concludes what no event says: `dead`, `recovered`, `stalled`, `lost`.
            on_rival: called when two processes are found to run one id.
            wake: called with a signal of which something waits to be passed on.
        """
        self.ledger = Ledger(
            most_ended=ENDED,
            recall=self._recall,
            on_change=self._changed,
            on_forget=self._forgotten,
            on_drop=self._dropped,
            on_rival=self._rival,
        )
        self.observer = Observer(self.ledger, clock.monotonic())
        self.rounds = Rounds(self.ledger, self.observer, presume_after)
        self.labels: dict[str, Label] = {}
        self.watcher: Watcher | None = None
        self.damage: str | None = None
        """What is wrong with pages of the file."""
        self._trouble: str | None = None
        self._misplaced: str | None = None
        """What is wrong with the place of the file."""
        self.taken = self.refused = 0
        self._store = store
        self._forwards = frozenset(forwards)
        self._presume_after = presume_after
        self._on_stored = on_stored
        self._is_wanted = wants if on_stored is not None else lambda _: False
        self._on_verdict = on_verdict
        self._on_rival = on_rival
        self._wake = wake
        self._remember_nothing()
        self._stopped = False
        self._next_prune = clock.monotonic() + 5
        self._thread = threading.Thread(target=self._run, name="otel-progress-ledger", daemon=True)
        self.ledger.revision = store.newest_revision() + LEAP
        self._opened = self._load_at = clock.monotonic()
        self.loading = Loading(store, self.ledger, self._loaded, self._unsaved.__contains__)
        self._load_more()

    def _remember_nothing(self) -> None:
        self._spans = foreign_traces.Spans()
        self.dropped, self.queue, self._taking = Counter[str](), RequestQueue(), 0
        self._ready = threading.Condition()
        self._changes: dict[str, None] = {}
        self._fresh: dict[str, None] = {}
        self._called: dict[tuple[Any, ...], None] = {}
        self._inferred: list[Event] = []
        self._silent: set[str] = set()
        self._lost, self._overdue = set[str](), set[str]()
        self._stalls: dict[str, dict[int, Told]] = {}
        """Stalls that are overruled, by operation and sequence: told if nothing overrules them any more."""
        self._open_stalls: dict[str, dict[str, None]] = {}
        """The branches that the history tells to be stuck, by operation."""
        self._released: list[Told] = []
        self._began = clock.time_ns()
        self._showing = threading.Lock()
        self._shown: set[str] = set()
        self._behind_since: float | None = None
        self._gone: deque[str] = deque(maxlen=10_000)
        self._unsaved: dict[str, Entry] = {}
        self._unsaved_processes: set[str] = set()
        self._saved_at: dict[str, float] = {}
        self._sent: list[int] = []
        self._kept_at: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self._held = 0
        self._touched: deque[Entry] = deque(maxlen=requests.RECORDS)
        self._traces: dict[bytes, None] = {}

    # -- for others

    @property
    def trouble(self) -> str | None:
        """Why nothing can be stored, or may not be found again, while that is so."""
        return self._trouble or self.damage

    @trouble.setter
    def trouble(self, why: str | None) -> None:
        self._trouble = why

    def start(self) -> None:
        """Take what comes."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Take what has come, and no more."""
        with self._ready:
            self._stopped = True
            self._ready.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def offer(self, envelope: Envelope, done: Done, *, own: bool = True) -> None:
        """Take a request; `done` is called with the answer when it is stored, by another thread.

        Raises:
            Refused: where too much waits already.
        """
        if len(envelope.body) > requests.BYTES:
            self.dropped["too_large"] += 1
            raise Refused(413, f"the request is larger than {requests.BYTES} bytes")
        with self._ready:
            if self._stopped:
                raise Refused(503, "the monitor is ending", 1)
            try:
                out = self.queue.put(Job(envelope, done, own))
            except Refused:
                self._has_no_room()
                raise
            self._ready.notify()
        for job in out:
            self._has_no_room()
            job.done(Refused(429, FULL, 1))

    def _has_no_room(self) -> None:
        self.refused += 1
        self.dropped["no_room"] += 1
        self.observer.was_deaf(clock.monotonic())

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be taken."""
        return not self.queue

    def intake(self) -> dict[str, int]:
        """How many requests wait, and how many, and how many records, were not taken, by reason."""
        return {"waiting": len(self.queue), **{reason: self.dropped[reason] for reason in NOT_TAKEN}}

    def forget(self, ids: list[int]) -> None:
        """These requests were passed on."""
        with self._ready:
            self._sent.extend(ids)

    def changes(self) -> dict[str, None]:
        """The operations that changed since this was called last, in order."""
        with self._ready:
            out, self._changes = self._changes, {}
        return out

    def gone(self) -> list[str]:
        """The operations that made room since this was called last."""
        return [self._gone.popleft() for _ in range(len(self._gone))]

    def find(self, operation_id: str) -> Entry | None:
        """An operation, also one that ended long ago."""
        return self.ledger.operations.get(operation_id) or self._recall(operation_id)

    def process_of(self, instance: str) -> Process | None:
        """A process, also one that was heard of long ago."""
        found = self.ledger.processes.get(instance)
        if found is None:
            for known in self._store.processes([instance]):
                return process_of(known, clock.monotonic())
        return found

    def searched(self, entry: Entry) -> str:
        """What a search for an operation looks at."""
        return _searched(entry.head, self.ledger.processes.get(entry.instance))

    # -- the thread

    def _run(self) -> None:
        due = clock.monotonic()
        while True:
            with self._ready:
                until = due if self.loading.done else min(due, self._load_at)
                self._ready.wait_for(self._has_work, max(0.0, until - clock.monotonic()))
                if self._stopped and not self.queue:
                    break
            jobs: list[Job] = []
            try:
                if self.queue or self._sent:
                    self._work(self._turn(jobs))
                    self._note_delay()
                if clock.monotonic() >= due:
                    due = clock.monotonic() + TICK
                    self._tick(clock.monotonic())
                if not self.loading.done and clock.monotonic() >= self._load_at:
                    self._load_more()
            except Exception as error:  # whatever one request does, the next one is taken
                self.trouble = f"{type(error).__name__}: {error}"
                for job in jobs:
                    with contextlib.suppress(Exception):
                        job.done(Refused(503, "the monitor failed", 5))
        self._save(Batch())

    def _turn(self, taken: list[Job]) -> Iterator[Job]:
        """The next requests, until they cost so much that others should be answered first; `taken` gets them, too."""
        spent, until = 0, clock.monotonic() + TURN_SECONDS
        while len(taken) < TURN_REQUESTS and spent < TURN_BYTES and clock.monotonic() <= until:
            with self._ready:
                job = self.queue.pop()
            if job is None:
                return
            if job.envelope.sender.is_gone():
                self._drop(job)
                continue
            spent += job.envelope.cost
            taken.append(job)
            yield job

    def _drop(self, job: Job) -> None:
        """Nobody waits for the answer: who wants it to be taken will send it again."""
        self.dropped["client_gone"] += 1
        now = clock.monotonic()
        if now - job.since > LATE:
            self.observer.was_deaf(now)
        job.done(Refused(408, "the connection ended before the request was taken"))

    def _note_delay(self) -> None:
        if not self.queue:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = clock.monotonic()
        elif clock.monotonic() - self._behind_since > BEHIND:
            self.observer.was_deaf(clock.monotonic())

    def _has_work(self) -> bool:
        return bool(self.queue) or self._stopped

    def _work(self, jobs: Iterable[Job]) -> None:
        """Take requests, store what follows, and answer."""
        from otel_progress.monitor.state.store import StoreError

        batch = Batch()
        told: list[Told] = []
        calls: list[Done] = []
        answers: list[Answer] = []
        self._taking, now = 0, clock.monotonic()
        misplaced = self._check_place()
        for job in jobs:
            calls.append(job.done)
            try:
                if misplaced is not None:
                    raise Refused(503, f"the monitor can't store it: {misplaced}", 5)
                if len(self._unsaved) >= UNSAVED:
                    raise Refused(503, "too many operations are waiting to be stored", 5)
                answers.append(self._take(job, batch, told, now))
            except Refused as refused:
                self.dropped["too_large"] += refused.status == 413
                answers.append(refused.with_traceback(None))  # else it keeps the request in memory
            except StoreError as error:  # what is known of an operation can't be read: it is not the request's fault
                self.trouble = str(error)
                answers.append(Refused(503, f"the monitor can't read what it has: {error}", 5))
            except Exception as error:
                answers.append(Refused(400, f"the request can't be read ({type(error).__name__})"))
        failed = self._save(batch)
        self._tell_changes()
        if failed is not None:
            answers = [failed if isinstance(answer, Taken) else answer for answer in answers]
        self.refused += sum(isinstance(answer, Refused) for answer in answers)
        for done, answer in zip(calls, answers):
            done(answer)
        if failed is None:
            self.taken += self._taking
            self._pass_on(told)
            if self._wake is not None:
                for signal in {signal for signal, _ in batch.outgoing}:
                    self._wake(signal)
        if any(isinstance(answer, Refused) and answer.status == 503 for answer in answers):
            self.observer.was_deaf(clock.monotonic())

    def _pass_on(self, told: list[Told]) -> None:
        """Each event that somebody is called for once, also where its sender repeats it."""
        new = []
        for one in told:
            head, event = one.head, one.record.event
            if head is not None and event in _CALLS and not one.held:
                number = 0 if event == s.OPERATION_ENDED else head.sequence
                key = (head.operation_id, head.started_at, head.attempt, event, number)
                if key in self._called:
                    continue
                if len(self._called) >= CALLED:
                    del self._called[next(iter(self._called))]
                self._called[key] = None
                if event == s.OVERDUE:
                    self._note_overdue(head.operation_id)
            new.append(one)
        if new and self._on_stored is not None:
            try:
                self._on_stored(new)
            except Exception as error:  # it is stored, whatever becomes of it elsewhere
                self.trouble = f"it can't be passed on ({type(error).__name__}: {error})"

    def _tell_changes(self) -> None:
        """Those who look from outside hear of what changed when it is in the store, with its history."""
        with self._ready:
            self._changes.update(self._fresh)
        self._fresh.clear()

    def _save(self, batch: Batch) -> Refused | None:
        """Write a batch and all that is not saved yet; what to say to those who wait, where it can't be."""
        from otel_progress.monitor.state.store import StoreError

        with self._ready:
            sent, self._sent = self._sent, []
        batch.sent.extend(sent)
        batch.events.extend(self._inferred)
        batch.operations.extend(self._kept(entry) for entry in self._unsaved.values())
        batch.processes.extend(
            known_of(process) for key in self._unsaved_processes if (process := self.ledger.processes.get(key))
        )
        if not (batch.operations or batch.events or batch.processes or batch.outgoing or batch.sent):
            return None
        try:
            self._store.write(batch)
        except StoreError as error:
            self.trouble = str(error)
            with self._ready:
                self._sent = [*sent, *self._sent]
            return Refused(503, f"the monitor can't store it: {error}", 5)
        self.trouble = None
        self._unsaved.clear()
        self._unsaved_processes.clear()
        self._inferred.clear()
        return None

    def _take(self, job: Job, batch: Batch, told: list[Told], now: float) -> Taken:
        parcel = job.envelope.open()
        unread = self.ledger.unread
        if parcel.signal == "logs":
            for group in records.groups(parcel, self._may_be_due):
                self._hear(group, batch, told, now, own=job.own)
        elif parcel.signal == "traces":
            for group in self._spans.groups(parcel, self._is_ours, self.ledger.find, now):
                self._hear(group, batch, told, now, own=job.own)
        for entry in self._touched:
            key = entry.head.operation_id
            if isinstance(entry.said, Record) and self.ledger.operations.get(key) is entry:
                self._weigh(key, len(entry.said.raw))
        self._touched.clear()
        while self._held > HELD_BYTES:
            self.ledger.forget(max(self._sizes, key=self._sizes.__getitem__))
        if job.own and parcel.signal in self._forwards:
            batch.outgoing.append((parcel.signal, parcel.body))
        unread, refused = self.ledger.unread - unread, parcel.allowance.refused
        self.dropped["records"] += refused
        why = [_TOO_MANY] if refused else []
        why += ["they bear the name of a progress event, but are none"] if unread else []
        return Taken(unread + refused, "; ".join(why))

    def _hear(self, group: records.Group, batch: Batch, told: list[Told], now: float, *, own: bool) -> None:
        self.loading.meet_process(instance_of(group.resource))
        if not group.records and instance_of(group.resource) not in self.ledger.processes:
            return  # a sign of life of nobody we know
        if not own:  # it was said some time ago, to another monitor
            now -= _age(group)
        before = self.ledger.processes.get(instance_of(group.resource))
        process = self.ledger.hear(group.resource, (), now)
        self.observer.hears(before, process.host, now)
        self.rounds.hear(process)
        self._taking += group.void
        for record in group.records:
            if record.event == s.PROCESS_HEARTBEAT:
                interval = record.brief.get(s.HEARTBEAT_INTERVAL)
                before, process = process, self.ledger.beat(process, interval, record.time / 1e9)
                if (before.beats, before.interval) != (process.beats, process.interval):
                    self._unsaved_processes.add(process.instance)
                    self.rounds.hear(process)
                if own and self._is_wanted(record.event):
                    told.append(Told(record, None, group.resource))
                continue
            self._meet(record)
            if record.event == s.OPERATION_ENDED and self._is_second_end(record):
                continue
            head = self.ledger.take(record, process.instance, now)
            if head is None:
                continue
            self._taking += 1
            held = record.event in _OVERRULED and self._is_overruled(head, record, group.resource, now)
            if held:
                self.rounds.mark(head.operation_id)
            wanted = own and self._is_wanted(record.event)
            if not held and (record.event in _ALWAYS or self._is_due(head, record)):
                wanted = wanted and not self._was_told(head, record)
                batch.events.append(_event(head, record, self._number_of(head)))
                if record.event == s.STALLED:
                    self._note_stall(head.operation_id, record)
                    self._end_stalls(self.ledger.operations[head.operation_id])
                self._fresh[head.operation_id] = None
                if record.event == s.OPERATION_STARTED:
                    self._know_trace(record.trace)
            if wanted:
                told.append(Told(record, head, group.resource, held))
        if now - self._saved_at.get(process.instance, -SAVE_EVERY) >= SAVE_EVERY:
            self._saved_at[process.instance] = now
            self._unsaved_processes.add(process.instance)
        if own and self.watcher is not None:
            self.watcher.notice(process, _late(group))

    def _meet(self, record: Record) -> None:
        """What is said of an operation meets what is stored of it."""
        if not self.loading.done:
            key, parent = record.brief.get(s.OPERATION_ID), record.brief.get(s.OPERATION_PARENT_ID)
            if isinstance(key, str):
                self.loading.meet(key, parent if isinstance(parent, str) else None)

    def _number_of(self, head: Head) -> int:
        """Which attempt an event is of: each start time is one."""
        entry = self.ledger.operations.get(head.operation_id)
        if entry is None:
            return head.attempt
        mine = entry.head
        if mine.started_at == head.started_at or (head.started_at is None and mine.attempt == head.attempt):
            return entry.number
        for rival in (entry.rivals or {}).values():
            if rival.head.started_at == head.started_at:
                return rival.number
        known = None if head.started_at is None else self._store.attempt_at(head.operation_id, head.started_at)
        return head.attempt if known is None else known

    def _was_told(self, head: Head, record: Record) -> bool:
        """Whether an earlier run of the monitor passed this on: what happened before it began may have been stored."""
        if record.event not in _CALLS or record.time >= self._began:
            return False
        return self._store.has_event(head.operation_id, head.started_at or 0.0, head.sequence, record.event)

    # -- stalls that the monitor knows better

    def _is_overruled(self, head: Head, record: Record, resource: Mapping[str, Any], now: float) -> bool:
        """Whether a process tells a stall that the monitor knows to be none, or the end of one that was not told."""
        entry = self.ledger.operations.get(head.operation_id)
        if entry is None or entry.instance != instance_of(resource) or entry.head.started_at != head.started_at:
            return False
        held = self._stalls.get(head.operation_id)
        if record.event == s.RECOVERED:
            return self._stalls.pop(head.operation_id, None) is not None
        if not entry.open:
            return False
        if self.observer.is_stuck(entry, now) is not False:
            labels, explained = self._explained(entry, record, now)
            if labels & explained and not labels <= explained:
                self._stalls.setdefault(head.operation_id, {})  # told soon, of the branches that are stuck alone
            return bool(labels & explained)
        if held is None:
            held = self._stalls[head.operation_id] = {}
        if len(held) < STALLS:
            held[head.sequence] = Told(record, head, resource)
        return True

    def _explained(self, entry: Entry, record: Record, now: float) -> tuple[set[Any], set[str]]:
        """The branches that a stall is about, and those that only wait for children elsewhere which move."""
        labels = record.own.get(s.STUCK_BRANCHES)
        return set(labels) if isinstance(labels, list) else set(), self.observer.explained(entry, now)

    def _release(self, entry: Entry) -> None:
        """Nothing overrules a stall any more: it is told now, but for branches whose own child moves."""
        key, now = entry.head.operation_id, clock.monotonic()
        held = self._stalls.pop(key)
        held = {number: one for number, one in held.items() if set.isdisjoint(*self._explained(entry, one.record, now))}
        for one in held.values():
            if one.head is not None:
                self._inferred.append(_event(one.head, one.record, entry.number))
                self._note_stall(key, one.record)
            if self._is_wanted(s.STALLED):
                self._released.append(one)
        if not held:  # nobody was told of it by an event, or was told that it is over
            verdict = self.observer.verdict(entry, now)
            reason, labels = verdict.reason or "no progress", [] if verdict.branch is None else [verdict.branch]
            own = {s.HEALTH_REASON: reason}
            for line in self.observer.lines(entry, now):
                if line.branch.label == verdict.branch and line.branch.stuck_at is not None:
                    own[s.STUCK_AT] = line.branch.stuck_at
            self._infer_event(entry, s.STALLED, f"stuck: {reason}", own, labels)
            self._open_stalls.setdefault(key, {}).update(dict.fromkeys(labels))
            self._conclude(entry, "stalled")
        self._fresh[key] = None

    def _take_back(self, entry: Entry, now: float) -> None:
        """A stall that was told is overruled, as a child elsewhere came to be known: it is over, for now."""
        self._stalls[entry.head.operation_id] = {}
        reason = self.observer.verdict(entry, now).reason or "it moves"
        self._infer_event(entry, s.RECOVERED, f"not stuck: {reason}")
        self._open_stalls.pop(entry.head.operation_id, None)
        self._conclude(entry, "recovered")

    def _note_stall(self, key: str, record: Record) -> None:
        """The history tells that these branches are stuck."""
        stage = record.brief.get(s.STAGE_PATH)
        labels = branches_of(record.own, stage if isinstance(stage, str) else None)
        known = self._open_stalls.setdefault(key, {})
        known.update(dict.fromkeys(labels[: STALLS - len(known)]))

    def _end_stalls(self, entry: Entry) -> None:
        """An operation is still stuck, but some of its branches move again or are over: that no event says."""
        key = entry.head.operation_id
        known = self._open_stalls.get(key)
        if not known:
            return
        if not entry.open or entry.head.health not in STUCK:
            if not entry.open or entry.head.health is not Health.UNKNOWN:
                del self._open_stalls[key]
            return
        seen = entry.snapshot
        stuck = {branch.label for branch in seen.branches if branch.health in STUCK} or {seen.stage or ""}
        gone = [label for label in known if label not in stuck]
        if not gone or not stuck & known.keys():
            return  # the same branch may be called otherwise when it is the only one
        for label in gone:
            del known[label]
        paths = {stage.path for stage in seen.stages}
        stage = gone[0] if gone[0] in paths else None
        words = f"still stuck, but not {', '.join(gone)} any more"
        self._infer_event(entry, s.RECOVERED, words, {}, gone, stage=stage, timestamp=entry.head.timestamp)

    def _infer_event(
        self,
        entry: Entry,
        event: str,
        text: str,
        own: dict[str, Any] | None = None,
        labels: list[str] | None = None,
        *,
        stage: str | None = None,
        timestamp: float | None = None,
    ) -> None:
        """An event that nobody reported goes into the history."""
        own = dict(own or {}) | ({s.STUCK_BRANCHES: labels} if labels else {})
        found = _inferred(entry, event, text, self.ledger.revision % INFERRED)
        if own:
            found = found._replace(attributes=json.dumps(own, default=repr))
        if stage is None and labels and labels[0] in {one.path for one in entry.snapshot.stages}:
            stage = labels[0]
        self._inferred.append(found._replace(stage=stage, timestamp=timestamp or found.timestamp))

    def _recall_stalls(self, entry: Entry) -> None:
        """After a start: stalls that are in no history were held back."""
        head = entry.head
        rows = self._store.events(head.operation_id, before=2**62, names=(s.STALLED, s.RECOVERED), limit=RECALLED)
        told = stuck_branches(event for _, event in rows if event.started_at == (head.started_at or 0.0))
        if not told:
            self._stalls[head.operation_id] = {}
        else:
            self._open_stalls[head.operation_id] = dict.fromkeys(told)

    def _conclude(self, entry: Entry, kind: str) -> None:
        """Tell what no event says."""
        if self._on_verdict is not None:
            try:
                self._on_verdict(entry, kind)
            except Exception as error:
                self.trouble = f"it can't be passed on ({type(error).__name__}: {error})"

    def _rival(self, entry: Entry) -> None:
        """Two processes run one id."""
        self._fresh[entry.head.operation_id] = None
        if self._on_rival is not None:
            try:
                self._on_rival(entry)
            except Exception as error:
                self.trouble = f"it can't be passed on ({type(error).__name__}: {error})"

    def _dropped(self, key: str) -> None:
        self._stalls.pop(key, None)
        self._open_stalls.pop(key, None)
        self.rounds.forget(key)
        self._weigh(key, 0)

    def _weigh(self, key: str, size: int) -> None:
        """So many bytes are held of an operation; 0 where it is held no more."""
        self._held += size - self._sizes.get(key, 0)
        if size:
            self._sizes[key] = size
        else:
            self._sizes.pop(key, None)

    def _may_be_due(self, operation_id: str, time: int) -> bool:
        kept = self._kept_at.get(operation_id)
        return kept is None or not 0 < time - kept < THIN * 1e9  # one that comes again is as due as it was

    def _is_second_end(self, record: Record) -> bool:
        """Whether another one told the end of this attempt already; one that is only inferred does not count.

        What happened right before an end may show that it is over, too, but does not tell the end.
        """
        head = head_of(record)
        known = None if head is None else self.ledger.find(head.operation_id)
        if head is None or known is None or known.open or known.presumed is not None:
            return False
        mine = known.head
        told = isinstance(known.said, Record) and known.said.event == s.OPERATION_ENDED
        same = (mine.attempt, mine.started_at) == (head.attempt, head.started_at)
        return told and same and (mine.sequence, mine.status) != (head.sequence, head.status)

    def _know_trace(self, trace: bytes) -> None:
        if len(self._traces) >= TRACES:
            del self._traces[next(iter(self._traces))]
        self._traces[trace] = None

    def _is_due(self, head: Head, record: Record) -> bool:
        """Whether a plain update goes into the history."""
        if not self._may_be_due(head.operation_id, record.time):
            return False
        if len(self._kept_at) > 200_000:
            self._kept_at.clear()
        self._kept_at[head.operation_id] = record.time
        return True

    def _is_ours(self, trace_id: bytes, instance: str) -> bool:
        """Whether log events tell of this trace, or of all that this process does."""
        self.loading.meet_process(instance)
        process = self.ledger.processes.get(instance)
        return trace_id in self._traces or (process is not None and process.beats)

    def _changed(self, entry: Entry) -> None:
        key = entry.head.operation_id
        self._unsaved[key] = entry
        self._fresh[key] = None
        self._touched.append(entry)
        self.rounds.change(key)
        self._end_stalls(entry)
        if entry.open:
            head = entry.head
            plain = entry.said is not None and (head.status, head.health) == (Status.RUNNING, Health.PROGRESSING)
            self.labels[key] = _LABELS[head.health] if plain else self.observer.label(entry, entry.heard_at)
            if key in self._lost:
                self._lost.discard(key)
                self._conclude(entry, "recovered")
            self._end_overdue(entry)
        else:
            self.labels.pop(key, None)
            self.rounds.forget(key)
            self._kept_at.pop(key, None)
            self._silent.discard(key)
            self._overdue.discard(key)
            self._stalls.pop(key, None)
        if entry.head.parent_id is not None:
            self._touch_above(entry)

    def _touch_above(self, entry: Entry) -> None:
        """What is above an operation shows its figures and may be as well as it is: their rows are newer ones."""
        seen, operations = {entry.head.operation_id}, self.ledger.operations
        for _ in range(ABOVE):
            parent = entry.head.parent_id
            if parent is None or parent in seen or parent not in operations:
                return
            seen.add(parent)
            entry = operations[parent]
            self.ledger.touch(entry)
            self._fresh[parent] = None

    # -- each second

    def _tick(self, now: float) -> None:
        self.observer.look(now)
        self._check_place()
        self._forget_what_made_room()
        if self.watcher is not None:
            self.watcher.tick()
        self._look_around(now)
        for snapshot in self._spans.settle(now):
            settled = self.ledger.presume(snapshot)
            if settled is not None:
                self._infer(settled)
        with self._showing:
            shown, self._shown = self._shown, set()
        self._unsaved.update({key: found for key in shown if (found := self.ledger.operations.get(key)) is not None})
        if self._unsaved or self._unsaved_processes or self._inferred:
            self._save(Batch())
        self._tell_changes()
        if self._released:
            released, self._released = self._released, []
            self._pass_on(released)
        if len(self._saved_at) > len(self.ledger.processes) + 1000:
            self._saved_at = {key: at for key, at in self._saved_at.items() if key in self.ledger.processes}
        if now >= self._next_prune:
            self._next_prune = now + PRUNE_EVERY
            self._prune()

    def _check_place(self) -> str | None:
        """What is wrong with the place of the file; also where nothing is written that is told, and when it is over."""
        from otel_progress.monitor.state.store import StoreError

        before, self._misplaced = self._misplaced, None
        try:
            self._store.check()
        except StoreError as error:
            self._misplaced = self._trouble = str(error)
        else:
            if before is not None and self._trouble == before:
                self._trouble = None
        return self._misplaced

    def _look_around(self, now: float) -> None:
        """Judge what may have changed; what that changes in turn, too. What is not there yet may decide."""
        if not self.loading.done:
            return
        while entries := self.rounds.due(now):
            for entry in entries:
                if self.ledger.operations.get(entry.head.operation_id) is entry:
                    self._look_at(entry, now)
                    self.rounds.looked(entry, now)

    def _forget_what_made_room(self) -> None:
        operations = self.ledger.operations
        if len(self.labels) > len(operations):
            self.labels = {key: label for key, label in self.labels.items() if key in operations}
            self._silent &= operations.keys()
            self._overdue &= operations.keys()

    def _prune(self) -> None:
        from otel_progress.monitor.state.store import StoreError

        gone: list[str] = []
        try:
            if self._store.prune(clock.time_ns() / 1e9, gone=gone.extend):
                self._next_prune = clock.monotonic()  # there is more; what comes in goes first
        except StoreError as error:
            self.trouble = str(error)
        for key in gone:
            self.ledger.drop(key)
        self._gone.extend(gone)

    def _look_at(self, entry: Entry, now: float) -> None:
        key, label = entry.head.operation_id, self.observer.label(entry, now)
        if label != self.labels.get(key):
            self.labels[key] = label
            self.ledger.touch(entry)
            self._fresh[key] = None
        if key in self._stalls:
            if label.health in STUCK:
                self._release(entry)
        elif entry.head.health in STUCK and self.observer.is_stuck(entry, now) is False:
            self._take_back(entry, now)
        self._end_overdue(entry)
        silent = label.health is Health.DEAD
        if silent != (key in self._silent) and label.health is not Health.UNKNOWN:
            self._tell_silence(entry, silent)
        if self.rounds.is_missed(entry.instance):
            lost = self.ledger.presume_lost(key, f"its process was not heard of for {_duration(self._presume_after)}")
            if lost is not None:
                self._infer(lost)
                if len(self._lost) >= CALLED:
                    self._lost.clear()
                self._lost.add(key)
                self._conclude(lost, "lost")

    def _note_overdue(self, key: str) -> None:
        entry = self.ledger.operations.get(key)
        if entry is not None and entry.open:
            self._overdue.add(key)
            self.rounds.mark(key)

    def _end_overdue(self, entry: Entry) -> None:
        """A wait that was told to be overdue is over; where it is stuck instead, that is told by itself."""
        key = entry.head.operation_id
        label = self.labels.get(key)
        if key not in self._overdue or label is None or label.overdue or label.health in (Health.DEAD, Health.UNKNOWN):
            return
        self._overdue.discard(key)
        if label.health not in STUCK:
            self._conclude(entry, "recovered")

    def _tell_silence(self, entry: Entry, silent: bool) -> None:
        key = entry.head.operation_id
        if silent:
            self._silent.add(key)
        else:
            self._silent.discard(key)
        self._unsaved[key] = entry
        self._unsaved_processes.add(entry.instance)
        self._conclude(entry, "dead" if silent else "recovered")

    def _forgotten(self, entry: Entry) -> None:
        """It ran, and is held no more: in the store it counts as lost, so that it makes room there too in its time."""
        lost = presumed(entry, lose(entry.snapshot, "the monitor holds too many operations to follow it"))
        lost.revision = entry.revision
        self._unsaved[entry.head.operation_id] = lost
        self.labels.pop(entry.head.operation_id, None)

    def _infer(self, entry: Entry) -> None:
        """Its history tells of an end that nobody reported."""
        head, reason = entry.head, entry.snapshot.reason or "nothing more was heard of it"
        self._infer_event(entry, s.OPERATION_ENDED, f"counts as {head.status.value}: {reason}")

    # -- what is kept

    def _loaded(self, brought: list[tuple[Kept, Entry]]) -> None:
        """These operations came from the store."""
        now = clock.monotonic()
        for kept, entry in brought:
            if isinstance(entry.said, Record) and entry.open and not entry.instance.startswith(foreign_traces.MARK):
                self._know_trace(entry.said.trace)
            if kept.dead:
                self._silent.add(kept.operation_id)
                process = self.ledger.processes.get(entry.instance)
                if process is not None and process.heard_at < self._opened:
                    self.observer.found_dead(entry.instance)
            if entry.open and entry.head.health in STUCK:
                self._recall_stalls(entry)
        for kept, entry in brought:
            if entry.open and self.ledger.operations.get(kept.operation_id) is entry:
                self.rounds.change(kept.operation_id)
                self.labels[kept.operation_id] = label = self.observer.label(entry, now)
                if label.overdue:
                    self._overdue.add(kept.operation_id)

    def _load_more(self) -> None:
        """The next slice; where it can't be read it is tried again in a second."""
        from otel_progress.monitor.state.store import StoreError

        try:
            self.loading.step()
        except StoreError as error:
            self.trouble = str(error)
            self._load_at = clock.monotonic() + TICK
        self.observer.is_loading = not self.loading.done

    def show(self, entry: Entry, raw: float | None) -> float | None:
        """How far an operation is shown whose ratio is rolled up; it never falls within an attempt, and never goes."""
        key, rolled = entry.head.operation_id, self.ledger.rolled
        with self._showing:
            known = rolled.get(key)
            before = known[1] if known is not None and known[0] == entry.number else entry.rolled
            if raw is None or not entry.open:
                return None if before is None else before.value
            found = show(before, raw)
            if found != before:
                rolled[key] = entry.number, found
                self._shown.add(key)
            return found.value

    def _recall(self, operation_id: str) -> Entry | None:
        waits = self._unsaved.get(operation_id)  # it may have made room before it was stored
        if waits is not None:
            return waits
        kept = self._store.recall(operation_id)
        if kept is None:
            return None
        ago = 0.0 if self.loading.done else max(0.0, clock.time_ns() / 1e9 - kept.timestamp)
        return entry_of(kept, clock.monotonic() - ago)

    def _kept(self, entry: Entry) -> Kept:
        head = entry.head
        process = self.ledger.processes.get(entry.instance)
        return Kept(
            head.operation_id,
            head.name,
            head.status.value,
            head.health.value,
            head.parent_id,
            head.agent,
            self.owner_of(head),
            head.started_at,
            head.timestamp,
            entry.number,
            head.sequence,
            entry.instance,
            entry.revision,
            _searched(head, process),
            entry.said.raw if isinstance(entry.said, Record) else raw_of(entry),
            entry.presumed is not None,
            head.operation_id in self._silent,
            rolled_of(self.ledger.rolled.get(head.operation_id, (entry.number, entry.rolled)), entry.number),
        )

    def owner_of(self, head: Head) -> str | None:
        """Whom it belongs to: as it says, or as those above it."""
        for _ in range(8):
            if head.owner is not None or head.parent_id is None:
                break
            above = self.ledger.operations.get(head.parent_id)
            if above is None:
                break
            head = above.head
        return head.owner


def _age(group: records.Group) -> float:
    """How long ago the newest of it was said, in seconds, by the clocks of this machine and of that one."""
    newest = max((record.time for record in group.records), default=clock.time_ns())
    return max(0.0, (clock.time_ns() - newest) / 1e9)


def _late(group: records.Group) -> float:
    """How long the starts and ends in it were on their way, in seconds; other events may have waited for a budget."""
    prompt = (s.OPERATION_STARTED, s.OPERATION_ENDED)
    oldest = min((record.time for record in group.records if record.event in prompt), default=clock.time_ns())
    return max(0.0, (clock.time_ns() - oldest) / 1e9)


def _searched(head: Head, process: Process | None) -> str:
    about = process.words if process is not None else ""
    return f"{head.operation_id} {head.name} {head.agent or ''} {about}".lower()


def _event(head: Head, record: Record, number: int) -> Event:
    own, brief = record.own, record.brief
    stage, ratio = brief.get(s.STAGE_PATH), brief.get(s.RATIO)
    status = head.status.value if record.event == s.OPERATION_ENDED else own.get(s.NOTE_STATUS)
    return Event(
        head.operation_id,
        head.started_at or 0.0,
        number,
        head.sequence,
        head.timestamp,
        record.event,
        stage if isinstance(stage, str) else None,
        record.text[:TEXT],
        status if isinstance(status, str) else None,
        head.agent,
        ratio if isinstance(ratio, float) else None,
        json.dumps(own, default=repr) if own else None,
    )


def _inferred(entry: Entry, event: str, text: str, number: int) -> Event:
    """An event that nobody reported; its number is below 0, so that it never stands in the way of a real one."""
    head = entry.head
    return Event(
        head.operation_id,
        head.started_at or 0.0,
        entry.number,
        -(head.sequence * INFERRED + number) or -1,
        clock.time_ns() / 1e9,
        event,
        text=f"{head.name} {text}"[:TEXT],
        status=head.status.value if event == s.OPERATION_ENDED else None,
        agent=head.agent,
    )


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds:g} s"
