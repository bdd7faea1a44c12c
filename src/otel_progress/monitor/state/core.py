"""The core: one thread takes requests, changes the state, stores it, and only then acknowledges.

A sender waits for the commit, so what was acknowledged survives SIGKILL. While the store cannot write, nothing is
acknowledged: the sender keeps the request and sends it again. Other threads read the ledger without a lock: its
entries never change, and whole dicts are copied in one step.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.model.health import NOT_MOVING
from otel_progress.model.status import Status
from otel_progress.monitor.intake import records
from otel_progress.monitor.intake.inbox import Inbox
from otel_progress.monitor.intake.mistakes import (
    Mistake,
    Mistakes,
    mistakes,
    newer_schema,
    no_instance,
    refusal,
    sequence_anew,
    shared_instance,
    too_large,
    unknown_event,
)
from otel_progress.monitor.intake.records import Record
from otel_progress.monitor.intake.request_queue import Job
from otel_progress.monitor.intake.requests import (
    READ,
    RECORD_PARTS,
    RECORDS,
    RETRY_AFTER,
    Accepted,
    Acknowledgement,
    Done,
    Envelope,
    Parcel,
    Refused,
)
from otel_progress.monitor.state import foreign_traces
from otel_progress.monitor.state.archive import Archive
from otel_progress.monitor.state.aside import Aside
from otel_progress.monitor.state.attempts import is_same_attempt, is_same_start
from otel_progress.monitor.state.clocks import Clocks
from otel_progress.monitor.state.faults import Faults
from otel_progress.monitor.state.history import History
from otel_progress.monitor.state.journal import Journal
from otel_progress.monitor.state.judging import Judging
from otel_progress.monitor.state.ledger import MARK, Entry, Ledger, head_of, lose
from otel_progress.monitor.state.listener import CoreListener, CoreListeners, StoredEvent
from otel_progress.monitor.state.loading import SLICE, Loading
from otel_progress.monitor.state.mutes import Answer, Mutes
from otel_progress.monitor.state.process_keys import declared_instance, keys_of, promised_interval
from otel_progress.monitor.state.restore import keyframe_to_keep
from otel_progress.monitor.state.room import BYTES_FULL
from otel_progress.monitor.state.saved import Batch, Mute, Query, StoredOperation
from otel_progress.monitor.state.shown_ratio import ShownRatios
from otel_progress.monitor.state.stalls import OVERRULABLE, Stalls
from otel_progress.monitor.state.store import StoreError
from otel_progress.monitor.state.unjudged import MONITOR, PROCESS
from otel_progress.monitor.state.verdicts import Observer

if TYPE_CHECKING:
    from otel_progress.model.states import Label
    from otel_progress.monitor.state.ledger import Head, Process, ReportedEvent
    from otel_progress.monitor.state.store import Store
    from otel_progress.monitor.state.watcher import Gone, Watcher

TICK: Final = 1.0
"""Seconds between two rounds of judging."""
ENDED: Final = 2_000
"""The most ended operations in memory; older ones are read from the store on demand."""
PRESUME_AFTER: Final = 6 * 3600.0
"""Seconds without a sign of its process after which an operation counts as lost, until it is heard of again."""
PRUNE_EVERY: Final = 60.0
"""Seconds between two removals of old operations."""
SAVE_EVERY: Final = 30.0
"""Seconds between two writes of when a process was last heard of."""
ABOVE: Final = 16
"""The most ancestors of an operation whose rows change with it."""
SPANS_LATE: Final = 600.0
"""Seconds after the end of an operation for which spans of its trace are waited for over a start of the monitor."""
TRACES: Final = 100_000
"""The most traces that are known to belong to operations of ours."""
LEAP: Final = 1 << 20
"""By how much revisions rise at a start: newer ones may have been shown that were never stored."""
REASONS: Final = 5
"""The most reasons in one answer."""
LIGHTER: Final = 0.98
"""The share of the allowed bytes that is left when operations were put aside because there were more."""
NAME: Final = 60
"""The most characters of the name of a sender in a message."""
BREATHE: Final = 0.2
"""Seconds after which a request that takes long lets small ones of others through."""
LATER: Final = 1.0
"""Seconds by which an event must have happened later than the newest one for its number to be called wrong."""
SLICED: Final = 200
"""The most events of a process that are taken at a time."""
SMALL: Final = 256 * 1024
"""The most that a request may cost that is let through, see `Envelope.cost`."""
_TOO_LARGE: Final = f"events are too large: one may have {records.RECORD_BYTES // 1024} KiB"
_TOO_MANY: Final = (
    f"records with more than {RECORD_PARTS} attributes and values are not accepted, and at most {READ} attributes of "
    "a request are read"
)


@dataclass(frozen=True)
class CoreLimits:
    """How much the core holds.

    Attributes:
        held_bytes: the most bytes of all operations in memory; beyond it the client with the most gives up its own.
        unsaved: the most operations that wait for a store that cannot write; beyond it nothing is accepted.
        slice: the operations loaded at a time after a start.
        traces: the most traces of other programs that are followed.
        spans: the most spans of them whose position is remembered.
    """

    held_bytes: int = 256 * 1024 * 1024
    unsaved: int = 100_000
    slice: int = SLICE
    traces: int = foreign_traces.TRACES
    spans: int = foreign_traces.SPANS


class Core:
    """The monitor's state, and the thread that changes it.

    Attributes:
        ledger: the newest state of each operation and process.
        observer: judges operations.
        inbox: the requests that wait, and how many were not accepted.
        journal: what changed and is not stored or published yet.
        judging: the labels of open operations.
        archive: what is in the store only.
        shown: the shown ratios of operations with children.
        mutes: the muted operations.
        loading: how much of what ran before the start is in memory.
        faults: what is wrong with the monitor itself.
        watcher: proves that processes of this machine are gone.
        taken: the number of records that were stored.
        refused: the number of records that were refused although their request was accepted.
        mistakes: what senders get wrong.
        clocks: whose clocks are wrong.
        aside: the operations that were put aside to make room.
    """

    def __init__(
        self,
        store: Store,
        *,
        forwards: Iterable[str] = (),
        presume_after: float = PRESUME_AFTER,
        listeners: Iterable[CoreListener] = (),
        limits: CoreLimits = CoreLimits(),  # it is immutable
    ) -> None:
        """Continue from what is in the store.

        Args:
            store: keeps state and history.
            forwards: the signals whose requests are stored to be forwarded.
            presume_after: seconds without a sign of its process after which an operation counts as lost.
            listeners: learn what is stored and concluded; `listen` adds more.
            limits: how much is held.
        """
        self.faults = Faults()
        self.ledger = Ledger(
            most_ended=ENDED,
            on_change=self._changed,
            on_aside=self._put_aside,
            on_drop=self._dropped,
            on_rival=self._rivalled,
            on_late=self._heard_late,
        )
        self.observer = Observer(self.ledger, clock.monotonic())
        self.inbox = Inbox(self.observer.was_deaf)
        self.watcher: Watcher | None = None
        self.taken = self.refused = 0
        self.mistakes = Mistakes()
        self.clocks = Clocks()
        self.aside = Aside(self.ledger.room)
        self._why: dict[str, None] = {}
        """Why records of the current request were refused, or what is wrong with them."""
        self._store = store
        self._forwards = frozenset(forwards)
        self._limits = limits
        self._listeners = CoreListeners(self.faults)
        for listener in listeners:
            self._listeners.add(listener)
        self._history = History(store, self.ledger)
        self.journal = Journal(store, self.ledger, self._history, self.faults)
        self.stalls = Stalls(self.ledger, self.observer, store, self._history, self._listeners)
        self.judging = Judging(
            self.ledger, self.observer, self.journal, self._history, self.stalls, self._listeners, presume_after
        )
        self.shown = ShownRatios(self.ledger)
        self.mutes = Mutes(store, self.ledger, self.journal)
        self._traces = foreign_traces.ForeignTraces(limits.traces, limits.spans)
        self._own_traces: dict[bytes, None] = {}
        self._saved_at: dict[str, float] = {}
        """When it was last stored that a process was heard of, by instance."""
        self._sizes: dict[str, int] = {}
        """The bytes held of each operation."""
        self._held = self._taking = 0
        self._is_watching = False
        """Whether the processes from before the start are watched."""
        self._touched: deque[Entry] = deque(maxlen=RECORDS)
        self._thread = threading.Thread(target=self._run, name="otel-progress-ledger", daemon=True)
        self._tick_at = clock.monotonic()
        self._breathe_at = 0.0
        """When a request that takes long lets others through."""
        self._is_breathing = False
        self._next_prune = clock.monotonic() + 5
        self.ledger.revision = store.newest_revision() + LEAP
        self._opened = self._load_at = clock.monotonic()
        self.loading = Loading(store, self.ledger, self._loaded, self.journal.holds, limits.slice)
        self.archive = Archive(store, self.ledger, self.journal, self.loading)
        self.ledger.recall = self.archive.operation
        self._recall_traces()
        self.load_more()

    # -- for other threads

    @property
    def labels(self) -> dict[str, Label]:
        """The label of each open operation."""
        return self.judging.labels

    def listen(self, listener: CoreListener) -> None:
        """Notify a listener of what is stored and concluded; to be called before `start`."""
        self._listeners.add(listener)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Take the requests that wait, and stop the thread."""
        self.inbox.stop()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def offer(self, envelope: Envelope, done: Done, *, own: bool = True) -> None:
        """Queue a request; `done` is called with the answer once it is stored, by another thread.

        Args:
            envelope: the request.
            done: called with the answer.
            own: whether it was sent to this monitor, not received from another one.

        Raises:
            Refused: if it is too large, or if there is no room.
        """
        self.inbox.offer(envelope, done, own)

    def mute(self, operation_id: str, mute: Mute | None, done: Answer) -> None:
        """Mute an operation, or unmute it (None); `done` is called once that is stored, by another thread."""
        self.mutes.change(operation_id, mute, done)
        self.inbox.wake()

    def submit(self, signal: str, body: bytes) -> None:
        """Queue a request of this process itself, such as the end of an operation whose process is gone."""
        with contextlib.suppress(Refused):
            self.inbox.offer(Envelope(signal, body), lambda _: None, own=True)

    # -- the thread

    def _run(self) -> None:
        self._tick_at = clock.monotonic()
        while self.inbox.wait(self._tick_at if self.loading.done else min(self._tick_at, self._load_at)):
            jobs: list[Job] = []
            try:
                self.observer.look(clock.monotonic())  # before what arrived while it slept
                if self.inbox.queue or self.journal.has_sent or self.mutes.asked:
                    self.inbox.gather()
                    self.work(self.inbox.turn(jobs))
                    self.inbox.note_delay()
                self._tick_in_time()
                if not self.loading.done and clock.monotonic() >= self._load_at:
                    self.load_more()
            except Exception as error:  # whatever one request causes, the next one is taken
                self.faults.current = f"{type(error).__name__}: {error}"
                for job in jobs:
                    with contextlib.suppress(Exception):
                        job.done(Refused(503, "the monitor failed", 5))
        self.journal.save(Batch())

    def _tick_in_time(self) -> None:
        if clock.monotonic() >= self._tick_at:
            self._tick_at = clock.monotonic() + TICK
            self.tick(clock.monotonic())

    def _breathe(self, now: float) -> float:
        """Between two slices of requests that take long: answer small ones of others, and judge if it is time.

        Returns the time, a later one if others were let through.
        """
        if self._is_breathing or clock.monotonic() < self._breathe_at:
            return now
        self._is_breathing = True
        client, why, taking, self._why = self.ledger.room.client, self._why, self._taking, {}
        try:
            if self.inbox.queue:
                self.work(self.inbox.turn([], most_cost=SMALL))
            self._tick_in_time()
        except Exception as error:  # it is not the fault of the request that takes long
            self.faults.current = f"{type(error).__name__}: {error}"
        finally:
            self.ledger.room.client, self._why, self._taking = client, why, taking
            self._is_breathing, self._breathe_at = False, clock.monotonic() + BREATHE
        return clock.monotonic()

    def work(self, jobs: Iterable[Job]) -> None:
        """Take requests, store what follows from them, and answer."""
        batch = Batch()
        stored: list[StoredEvent] = []
        calls: list[Done] = []
        answers: list[Acknowledgement] = []
        self._taking, now = 0, clock.monotonic()
        if not self._is_breathing:
            self._breathe_at = now + BREATHE
        displaced = self.journal.check_place()
        for job in jobs:
            calls.append(job.done)
            answers.append(self._answer(job, batch, stored, now, displaced))
        self.ledger.room.client = None
        self.mutes.take()
        failed = self.journal.save(batch)
        self.mutes.stored(failed)
        self._publish()
        if failed is not None:
            answers = [failed if isinstance(answer, Accepted) else answer for answer in answers]
        self.inbox.refused += sum(isinstance(answer, Refused) for answer in answers)
        for done, answer in zip(calls, answers):
            done(answer)
        if failed is None:
            self.taken += self._taking
            self._pass_on(stored)
            self._listeners.queued({signal for signal, _ in batch.outgoing})
        if any(isinstance(answer, Refused) and answer.status == 503 for answer in answers):
            self.observer.was_deaf(clock.monotonic())

    def _answer(
        self, job: Job, batch: Batch, stored: list[StoredEvent], now: float, displaced: str | None
    ) -> Acknowledgement:
        """Take a request; the answer to it, if the batch can be written."""
        if displaced is not None:
            return Refused(503, f"the monitor cannot store the request: {displaced}", RETRY_AFTER)
        if len(self.journal.operations) >= self._limits.unsaved:
            return Refused(503, "too many operations are waiting to be stored", RETRY_AFTER)
        try:
            return self._take(job, batch, stored, now)
        except Refused as refused:
            self.inbox.dropped["too_large"] += refused.status == 413
            return refused.with_traceback(None)  # a traceback would keep the request in memory
        except StoreError as error:  # what is known of an operation cannot be read: not the request's fault
            self.faults.current = str(error)
            return Refused(503, f"the monitor cannot read its store: {error}", RETRY_AFTER)
        except Exception as error:
            return Refused(400, f"the request cannot be read ({type(error).__name__})")

    def _publish(self) -> None:
        """Let readers see what changed, and listeners what is no longer muted."""
        self.journal.publish()
        for entry in self.mutes.unheard():
            self._listeners.unmuted(entry)

    def _pass_on(self, events: list[StoredEvent]) -> None:
        """Notify the listeners of stored events."""
        fresh = self._listeners.fresh(events)
        for one in fresh:
            if one.head is not None and one.record.event == s.WAIT_OVERDUE and not one.held:
                self.judging.note_overdue(one.head.operation_id)
        self._listeners.stored(fresh)

    # -- one request

    def _take(self, job: Job, batch: Batch, stored: list[StoredEvent], now: float) -> Accepted:
        unread = refused = oversized = 0
        sender = job.envelope.sender
        self.ledger.room.client = (sender.token, sender.address) if job.own else None
        self._why.clear()
        if job.envelope.signal == "metrics" and not (job.own and "metrics" in self._forwards):
            job.envelope.check()
            return Accepted()
        for parcel in job.envelope.parcels():
            for group in self._groups(parcel, now):
                for part in records.sliced(group, SLICED):
                    before = self.ledger.unread
                    self._hear(part, batch, stored, now, own=job.own, port=sender.port)
                    unread += self.ledger.unread - before
                    now = self._breathe(now)
            self._weigh_touched()
            if job.own and parcel.signal in self._forwards:
                batch.outgoing.append((parcel.signal, parcel.body))
            refused, oversized = refused + parcel.allowance.refused, oversized + parcel.allowance.too_large
        self.refused += unread + refused + oversized
        self.inbox.dropped["records"] += refused + oversized
        self.mistakes.counts["too_many_parts"] += refused
        self.mistakes.counts["too_large"] += oversized
        why = [_TOO_MANY] if refused else []
        why += [_TOO_LARGE] if oversized else []
        why += list(self._why)[:REASONS]
        return Accepted(unread + refused + oversized, "; ".join(why))

    def _groups(self, parcel: Parcel, now: float) -> Iterator[records.Group]:
        """The events in a request."""
        if parcel.signal == "logs":
            yield from records.groups(parcel, self._history.may_be_due)
        elif parcel.signal == "traces":
            yield from self._traces.groups(parcel, self.is_ours, self.ledger.find, now, self._owns)

    def _hear(
        self,
        group: records.Group,
        batch: Batch,
        stored: list[StoredEvent],
        now: float,
        *,
        own: bool,
        port: int | None,
    ) -> None:
        """Take the events of one process, which came from this port of this machine."""
        group = with_judge(group)
        for name in group.unknown:
            self._complain(unknown_event(name), group)
        for key in keys_of(group.resource):
            self.loading.meet_process(key)
        instance = self.ledger.instance_of(group.resource)
        newer = newer_schema(group.resource)
        if newer is not None:
            self._complain(newer, group)
        if group.records and group.scope != s.SCOPE:
            self._examine_resource(group, instance)
        if not group.records and instance not in self.ledger.processes:
            return  # a sign of life of an unknown process
        if not own:  # another monitor received it some time ago
            now -= _age(group)
        elif not instance.startswith(MARK):
            self.clocks.hear(instance, [record.time for record in group.records if record.event != s.OPERATION_ENDED])
        before = self.ledger.processes.get(instance)
        process = self.ledger.hear(group.resource, (), now)
        if process.is_judged_outside and promises_verdicts(group):
            process = self._leave_verdicts(process)
        self._note_beats(before, process)
        self.observer.hears(before, process.host, now)
        self.judging.rounds.hear(process)
        self._taking += group.void
        for record in group.records:
            self._examine(record, group)
            if record.event == s.PROCESS_HEARTBEAT:
                interval = record.brief.get(s.HEARTBEAT_INTERVAL)
                before, process = process, self.ledger.beat(process, interval, record.time / 1e9)
                self._note_beats(before, process)
                self.judging.rounds.hear(process)
                if own and self._listeners.want(record.event):
                    stored.append(StoredEvent(record, None, group.resource))
            else:
                self._hear_event(record, group, instance, batch, stored, now, own=own)
        if now - self._saved_at.get(instance, -SAVE_EVERY) >= SAVE_EVERY:
            self._saved_at[instance] = now
            self.journal.processes.add(instance)
        if own and self.watcher is not None:
            self.watcher.notice(process, _delay(group), port)
            if self.ledger.processes[instance].seen != process.seen:
                self.journal.processes.add(instance)

    def _note_beats(self, before: Process | None, process: Process) -> None:
        """A process was heard, which may promise another interval than before."""
        if process.beats and (before is None or not before.beats):
            for entry in self.ledger.open_of(MARK + declared_instance(process.instance)):
                self._drop_trace(bytes.fromhex(entry.head.operation_id))
        if before is not None and (
            (before.beats, before.interval) != (process.beats, process.interval)
            or before.resource is not process.resource
        ):
            self.journal.processes.add(process.instance)

    def _examine(self, record: Record, group: records.Group) -> None:
        """Tell what was too large in an event, and what else is wrong with one of a program without our SDK."""
        for field in record.left_out:
            self._complain(too_large(field, records.RECORD_BYTES), group)
        if group.scope == s.SCOPE:
            return
        if record.event == s.PROCESS_HEARTBEAT or head_of(record) is not None:
            is_promised = promised_interval(group.resource) is not None
            for mistake in mistakes(record, is_promised=is_promised):
                self._complain(mistake, group)

    def _examine_resource(self, group: records.Group, instance: str) -> None:
        """Tell what is wrong with how a program without our SDK names its process."""
        nameless, declared = no_instance(group.resource), self.ledger.processes.get(declared_instance(instance))
        if nameless is not None:
            self._complain(nameless, group)
        if declared is not None and declared.instance != instance:
            self._complain(shared_instance(declared.pid), group)

    def _complain(self, mistake: Mistake, group: records.Group) -> None:
        """Count a mistake of a sender; the first one about a field is told, in the answer as well.

        Many SDKs name no instance unless they are told to: that is nothing for each of their answers.
        """
        instance = self.ledger.instance_of(group.resource)
        name = str(group.resource.get(s.SERVICE_NAME) or "a program")[:NAME]
        told = self.mistakes.note(mistake, instance, f"{name} ({instance[:NAME]})")
        if told is not None and mistake.kind != "instance":
            self._why[told] = None

    def _leave_verdicts(self, process: Process) -> Process:
        """A process turns out to judge its operations itself."""
        for entry in self.ledger.open_of(process.instance):
            self.observer.unjudged.forget(entry.head.operation_id)
        self.journal.processes.add(process.instance)
        return self.ledger.learn(process, {s.JUDGED_BY: PROCESS})

    def _hear_event(
        self,
        record: Record,
        group: records.Group,
        instance: str,
        batch: Batch,
        stored: list[StoredEvent],
        now: float,
        *,
        own: bool,
    ) -> None:
        """Take one event of an operation."""
        self._load_for(record)
        if record.event == s.OPERATION_ENDED and self._is_second_end(record, instance):
            return
        known = self.ledger.operations.get(str(record.brief.get(s.OPERATION_ID)))
        told = _is_told_loss(known, record, instance)
        was_held = record.brief.get(s.OPERATION_ID) in self.stalls.held  # the end drops it
        head = self.ledger.take(record, instance, now)
        if head is None:
            mistake = refusal(record)
            self._complain(mistake, group)
            self._why[mistake.words] = None
            return
        self._taking += 1
        key = head.operation_id
        if group.scope != s.SCOPE:
            self._examine_order(record, head, group)
        if not instance.startswith(MARK):
            self._absorb_spans(record.trace, key)
        elif known is not None and known.head.started_at != head.started_at:
            self._correct_start(key)
        overruled = record.event in OVERRULABLE and self.stalls.overrules(
            head, record, group.resource, now, was_held=was_held
        )
        if overruled:
            self.judging.rounds.mark(key)
        held = overruled or told
        wanted = own and self._listeners.want(record.event)
        if not held and self._history.keeps(head, record):
            wanted = wanted and not self._history.has(head, record)
            batch.events.append(self._history.event(head, record))
            if record.event == s.STALLED:
                self.stalls.note(key, record)
                self.stalls.end_recovered(self.ledger.operations[key])
            self.journal.touch(key)
        if wanted:
            stored.append(StoredEvent(record, head, group.resource, held))

    def _examine_order(self, record: Record, head: Head, group: records.Group) -> None:
        """Tell a program without our SDK that an event of it counts as older than one that happened before it."""
        entry = self.ledger.operations.get(head.operation_id)
        if entry is None or entry.said is record or entry.pending is record or not entry.open or head.status.final:
            return
        mine, later = entry.head, head.timestamp - entry.newest_at
        if (
            later > LATER
            and head.sequence <= mine.sequence
            and is_same_start(head, mine)
            and mine.attempt == head.attempt
        ):
            self._complain(sequence_anew(head.sequence, mine.sequence, later), group)

    def _load_for(self, record: Record) -> None:
        """Load what is stored of an operation before an event changes it."""
        if not self.loading.done:
            key, parent = record.brief.get(s.OPERATION_ID), record.brief.get(s.OPERATION_PARENT_ID)
            if isinstance(key, str):
                self.loading.meet(key, parent if isinstance(parent, str) else None)

    def _is_second_end(self, record: Record, instance: str) -> bool:
        """Whether the end of this attempt was reported by another process before; an inferred end does not count.

        An event right before the end may show that the operation is over, too, but does not report the end.
        """
        head = head_of(record)
        known = None if head is None else self.ledger.find(head.operation_id)
        if head is None or known is None or known.open or known.presumed is not None:
            return False
        mine = known.head
        reported = isinstance(known.said, Record) and known.said.event == s.OPERATION_ENDED
        same = is_same_attempt(mine, head, known.instance == instance)
        return reported and same and (mine.sequence, mine.status) != (head.sequence, head.status)

    def _correct_start(self, operation_id: str) -> None:
        """The start of a trace is known better than before: its history belongs to the same attempt."""
        entry = self.ledger.operations.get(operation_id)
        if entry is not None and entry.head.started_at is not None:
            self.journal.restarted[operation_id] = entry.head.started_at

    def _absorb_spans(self, trace: bytes, operation_id: str) -> None:
        """Our events report on an operation: what its spans alone told is the same operation."""
        if trace and trace not in self._own_traces:
            self._note_trace(trace)
            self._drop_trace(trace)
        claimed = self._traces.claimed(operation_id)
        if claimed is not None and claimed not in self._own_traces:
            self._note_trace(claimed)
            self._drop_trace(claimed)

    def _owns(self, trace: bytes, operation_id: str) -> bool:
        """Whether our events report on the operation that a span of this trace names."""
        entry = self.ledger.find(operation_id)
        if entry is None or entry.instance.startswith(MARK):
            return False
        self._note_trace(trace)
        self._drop_trace(trace)
        return True

    def _drop_trace(self, trace: bytes) -> None:
        """Remove the operation that was known by the spans of this trace."""
        self._traces.drop(trace)
        entry = self.ledger.find(trace.hex())
        if entry is not None and entry.instance.startswith(MARK):
            self.ledger.remove(trace.hex())
            self.journal.remove(trace.hex())

    def _note_trace(self, trace: bytes) -> None:
        if not trace or trace in self._own_traces:
            return
        if len(self._own_traces) >= TRACES:
            del self._own_traces[next(iter(self._own_traces))]
        self._own_traces[trace] = None

    def is_ours(self, trace_id: bytes, instance: str) -> bool:
        """Whether our events report on this trace, or on everything that this process does."""
        self.loading.meet_process(instance)
        process = self.ledger.processes.get(instance)
        return trace_id in self._own_traces or (process is not None and process.beats)

    # -- memory

    def _weigh_touched(self) -> None:
        """Count the bytes of the operations that changed; some make room if it is too much."""
        for entry in self._touched:
            key = entry.head.operation_id
            if isinstance(entry.said, Record) and self.ledger.operations.get(key) is entry:
                keyframe = keyframe_to_keep(entry)
                self._weigh(key, len(entry.said.raw) + (0 if keyframe is None else len(keyframe.raw)))
        self._touched.clear()
        if self._held > self._limits.held_bytes:
            self._lighten()

    def _lighten(self) -> None:
        """Make room in bytes, and a little more, as it takes a look at all: ended operations are in the store, too."""
        for key in self.ledger.ended():
            if self._held <= self._limits.held_bytes:
                return
            self.ledger.drop(key)
        most = self._limits.held_bytes * LIGHTER
        while self._held > most:
            for key in self.ledger.room.heaviest(self._sizes):
                if self._held <= most:
                    return
                self.ledger.put_aside(key, BYTES_FULL)

    def _weigh(self, key: str, size: int) -> None:
        self._held += size - self._sizes.get(key, 0)
        if size:
            self._sizes[key] = size
        else:
            self._sizes.pop(key, None)

    @property
    def held(self) -> int:
        """The bytes held of all operations."""
        return self._held

    # -- what the ledger reports

    def _changed(self, entry: Entry) -> None:
        key = entry.head.operation_id
        self.journal.operations[key] = entry
        self.journal.touch(key)
        self._touched.append(entry)
        self._follow_progress(entry)
        self.judging.change(entry)
        if not entry.open:
            self._history.forget(key)
        if entry.head.parent_id is not None:
            self._touch_above(entry)

    def _follow_progress(self, entry: Entry) -> None:
        """Notice when an operation moves whose process does not judge it."""
        process = self.ledger.processes.get(entry.instance)
        if entry.open and isinstance(entry.said, Record) and process is not None and process.is_judged_outside:
            self.observer.follow(entry, entry.pending or entry.said)
        elif entry.open or entry.presumed is not None:
            self.observer.unjudged.forget(entry.head.operation_id)
        else:
            self.observer.unjudged.end(entry)

    def _heard_late(self, entry: Entry, late: ReportedEvent, now: float) -> None:
        self.observer.unjudged.hear_late(entry, late, now)

    def _touch_above(self, entry: Entry) -> None:
        """The rows of its ancestors change with an operation, as they show its figures and its health."""
        seen, operations = {entry.head.operation_id}, self.ledger.operations
        for _ in range(ABOVE):
            parent = entry.head.parent_id
            if parent is None or parent in seen or parent not in operations:
                return
            seen.add(parent)
            entry = operations[parent]
            self.ledger.touch(entry)
            self.journal.touch(parent)

    def _dropped(self, key: str) -> None:
        self.observer.unjudged.forget(key)
        self.judging.forget(key)
        self.journal.forget(key)
        self._weigh(key, 0)

    def _put_aside(self, entry: Entry, why: str) -> None:
        """An open operation has to make room: it stays in the store, as one that the store may remove in time."""
        told = self.aside.note(entry, why)
        if told is not None and self.ledger.room.is_of_client(entry.holder):
            self._why[told] = None
        key = entry.head.operation_id
        self.journal.operations[key] = entry
        self.journal.touch(key)
        self.labels.pop(key, None)

    def _rivalled(self, entry: Entry) -> None:
        self.journal.touch(entry.head.operation_id)
        self._listeners.rivalled(entry)

    # -- each second

    def tick(self, now: float) -> None:
        """Judge, store what follows, and remove what is too old; to be called each second."""
        self.observer.look(now)
        self.journal.check_place()
        self.judging.tidy()
        self.mutes.expire(clock.unix())
        if self.watcher is not None:
            if self.loading.done and not self._is_watching:
                self._is_watching = True
                self.watcher.restore()
            self.watcher.tick()
            self._presume_gone(self.watcher.take_gone())
        if self.loading.done:  # before that, an operation may rest on one that is not in memory yet
            self.judging.judge(now)
        for snapshot in self._traces.settle(now):
            settled = self.ledger.presume(snapshot)
            if settled is not None:
                self._history.infer_end(settled)
        for key in self.shown.changed():
            entry = self.ledger.operations.get(key)
            if entry is not None:
                self.journal.operations[key] = entry
        self.journal.save_changes()
        self._publish()
        if self.stalls.released:
            released, self.stalls.released = self.stalls.released, []
            self._pass_on(released)
        if len(self._saved_at) > len(self.ledger.processes) + 1000:
            self._saved_at = {key: at for key, at in self._saved_at.items() if key in self.ledger.processes}
        if now >= self._next_prune:
            has_more = self.journal.prune()  # a bit at a time, as requests come first
            self._next_prune = clock.monotonic() if has_more else now + PRUNE_EVERY

    def _presume_gone(self, gone: Iterable[Gone]) -> None:
        """The operations of processes that seem to be gone count as lost, until one of them is heard again."""
        for instance, reason, moment in gone:
            for entry in self.ledger.open_of(instance):
                key = entry.head.operation_id
                if instance.startswith(MARK) and self._traces.is_called(bytes.fromhex(key)):
                    continue  # it was called, and the call is over: its caller may go on
                lost = self.ledger.presume(lose(entry.snapshot, reason, moment))
                if lost is not None:
                    self._history.infer_end(lost)
                    self._listeners.concluded(lost, "lost")

    # -- after a start

    def load_more(self) -> None:
        """Load the next slice of what ran before; if it cannot be read, it is retried in a second."""
        try:
            self.loading.step()
        except StoreError as error:
            self.faults.current = str(error)
            self._load_at = clock.monotonic() + TICK
        self.observer.is_loading = not self.loading.done

    def _recall_traces(self) -> None:
        """Spans of operations that ended before the start may still come: they are no operations of their own."""
        with contextlib.suppress(StoreError):
            for kept in self._store.ended(Query(since=clock.unix() - SPANS_LATE), ENDED)[0]:
                if not kept.instance.startswith(MARK):
                    self._note_trace(records.parse_record(kept.raw).trace)

    def _recall_stall(self, entry: Entry, now: float) -> None:
        """An operation that the monitor judges was loaded: it may have been stuck already."""
        since = self.stalls.stuck_since(entry)
        self.observer.unjudged.recall(entry, now, None if since is None else max(0.0, clock.unix() - since))
        if since is not None:
            self.judging.stuck.add(entry.head.operation_id)

    def _loaded(self, brought: list[tuple[StoredOperation, Entry]]) -> None:
        """These operations were loaded from the store."""
        now = clock.monotonic()
        for kept, entry in brought:
            if isinstance(entry.said, Record) and entry.open and not entry.instance.startswith(MARK):
                self._note_trace(entry.said.trace)
            if kept.dead:
                self.journal.dead.add(kept.operation_id)
                process = self.ledger.processes.get(entry.instance)
                if process is not None and process.heard_at < self._opened:
                    self.observer.found_dead(entry.instance)
            process = self.ledger.processes.get(entry.instance)
            if entry.open and process is not None and process.is_judged_outside:
                self._recall_stall(entry, now)
            elif entry.open and entry.head.health in NOT_MOVING:
                self.stalls.recall(entry)
        for kept, entry in brought:
            if entry.open and self.ledger.operations.get(kept.operation_id) is entry:
                self.judging.restore(entry, now)


def _is_told_loss(known: Entry | None, record: Record, instance: str) -> bool:
    """Whether it is the proof that an operation was lost, which is said already."""
    if known is None or known.presumed is None or known.head.status is not Status.LOST:
        return False
    head = head_of(record)
    if head is None or record.event != s.OPERATION_ENDED or head.status is not Status.LOST:
        return False
    return is_same_attempt(known.presumed.head, head, known.instance == instance)


def with_judge(group: records.Group) -> records.Group:
    """The events of one process, whose resource says whether the monitor judges its operations.

    The scope of our SDK, also of those that do not say so, promises that the process does.
    """
    if not group.records or group.resource.get(s.JUDGED_BY) in (MONITOR, PROCESS):
        return group
    if group.scope == s.SCOPE or any(record.brief.get(s.JUDGED_BY) == PROCESS for record in group.records):
        return group
    return group._replace(resource={**group.resource, s.JUDGED_BY: MONITOR})


def promises_verdicts(group: records.Group) -> bool:
    """Whether these events say that their process judges its operations; the certificate of a lost one does not."""
    if group.resource.get(s.JUDGED_BY) == MONITOR:
        return False
    return any(record.event != s.OPERATION_ENDED for record in group.records)


def _age(group: records.Group) -> float:
    """Seconds since the newest event in it happened, by the clocks of both machines."""
    newest = max((record.time for record in group.records), default=clock.time_ns())
    return max(0.0, (clock.time_ns() - newest) / 1e9)


def _delay(group: records.Group) -> float:
    """Seconds that the starts and ends in it took to arrive; other events may have waited for a budget."""
    prompt = (s.OPERATION_STARTED, s.OPERATION_ENDED)
    oldest = min((record.time for record in group.records if record.event in prompt), default=clock.time_ns())
    return max(0.0, (clock.time_ns() - oldest) / 1e9)
