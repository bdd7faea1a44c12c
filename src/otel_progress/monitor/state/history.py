"""The events that go into the history of an operation: those that are reported, and those that the monitor infers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.model.attribute_types import is_amount, is_ratio
from otel_progress.model.sentences import SENTENCES
from otel_progress.model.snapshot import Event
from otel_progress.model.timeline import INFERRED
from otel_progress.model.values import Attributes
from otel_progress.model.wire import ratios_of
from otel_progress.monitor.intake.records import Record
from otel_progress.monitor.state.ledger import Entry, Head, Ledger, bare, read
from otel_progress.monitor.state.listener import ALERTING
from otel_progress.monitor.state.saved import HistoryEvent

if TYPE_CHECKING:
    from otel_progress.model.status import Status
    from otel_progress.monitor.state.store import Store

THIN: Final = 1.0
"""Seconds between two plain updates of an operation in its history, if few run."""
PLAIN_A_SECOND: Final = 500
"""The most plain updates of all operations that go into the history per second; with more, those of each are rarer."""
REMEMBERED: Final = 200_000
"""The most operations whose last stored update is remembered; beyond it all are forgotten."""
TEXT: Final = 4_096
"""The most characters of an event in words."""
_ALWAYS: Final = s.EVENTS - {s.UPDATED, s.HEARTBEAT, s.PROCESS_HEARTBEAT}


class History:
    """Decides which events are stored, and numbers them. It belongs to the thread of the core.

    Attributes:
        inferred: events that nobody reported, waiting to be stored.
    """

    def __init__(self, store: Store, ledger: Ledger) -> None:
        """What happens before now may be in the store already."""
        self.inferred: list[HistoryEvent] = []
        self._store = store
        self._ledger = ledger
        self._began = clock.time_ns()
        self._kept_at: dict[str, int] = {}

    def keeps(self, head: Head, record: Record) -> bool:
        """Whether an event is stored; of plain updates only one every `THIN` seconds or more is."""
        if record.event in _ALWAYS:
            return True
        if not self.may_be_due(head.operation_id, record.time):
            return False
        if len(self._kept_at) > REMEMBERED:
            self._kept_at.clear()
        self._kept_at[head.operation_id] = record.time
        return True

    def may_be_due(self, operation_id: str, time: int) -> bool:
        """Whether a plain update at this time in ns is due; a repeated one is as due as it was."""
        kept = self._kept_at.get(operation_id)
        return kept is None or not 0 < time - kept < self._pause * 1e9

    @property
    def _pause(self) -> float:
        """Seconds between two plain updates of an operation."""
        return max(THIN, len(self._ledger.operations) / PLAIN_A_SECOND)

    def forget(self, operation_id: str) -> None:
        """The operation ended: no plain updates follow."""
        self._kept_at.pop(operation_id, None)

    def has(self, head: Head, record: Record) -> bool:
        """Whether an alerting event is in the store already, as an earlier run of the monitor passed it on."""
        if record.event not in ALERTING or record.time >= self._began:
            return False
        return self._store.has_event(head.operation_id, head.started_at or 0.0, head.sequence, record.event)

    def event(self, head: Head, record: Record) -> HistoryEvent:
        """A reported event, as it is stored."""
        own, brief = record.own, record.brief
        stage = brief.get(s.STAGE_PATH)
        status = head.status.value if record.event == s.OPERATION_ENDED else own.get(s.NOTE_STATUS)
        return HistoryEvent(
            head.operation_id,
            head.started_at or 0.0,
            self._attempt(head),
            head.sequence,
            head.timestamp,
            record.event,
            stage if isinstance(stage, str) else None,
            (record.text or self._words(head, record))[:TEXT],
            status if isinstance(status, str) else None,
            head.agent,
            _ratio(record, head.status),
            json.dumps(own, default=repr) if own else None,
        )

    def _words(self, head: Head, record: Record) -> str:
        """An event in words, if its emitter sends none."""
        said, stage = SENTENCES.get(record.event), record.brief.get(s.STAGE_PATH)
        if said is None:
            return ""
        own = Attributes({key: value for key, value in record.own.items() if isinstance(value, (str, int, float))})
        path = stage if isinstance(stage, str) else None
        entry = self._ledger.operations.get(head.operation_id)
        known = entry.snapshot if entry is not None and entry.said is record else read(record)
        snapshot = known or bare(head)
        return f"{head.name}{said(Event(record.event, record.time, snapshot, head.sequence, path, own))}"

    def _attempt(self, head: Head) -> int:
        """The number of the attempt that an event belongs to: each start time is one attempt."""
        entry = self._ledger.operations.get(head.operation_id)
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

    def infer(
        self,
        entry: Entry,
        event: str,
        text: str,
        own: dict[str, Any] | None = None,
        branches: list[str] | None = None,
        *,
        stage: str | None = None,
        timestamp: float | None = None,
        behind: HistoryEvent | None = None,
    ) -> None:
        """Add an event that nobody reported.

        Args:
            entry: its operation.
            event: its name.
            text: the event in words, behind the name of the operation.
            own: its attributes.
            branches: the branches that it is about.
            stage: the path of its stage; by default the first branch, if that is a stage.
            timestamp: when it happened; by default now.
            behind: another inferred event that it follows at the same time, whatever was reported since.
        """
        own = dict(own or {}) | ({s.STUCK_BRANCHES: branches} if branches else {})
        if stage is None and branches and branches[0] in {one.path for one in entry.snapshot.stages}:
            stage = branches[0]
        head = entry.head
        number = head.sequence * INFERRED + self._ledger.revision % INFERRED
        if behind is not None:
            timestamp, base = behind.timestamp, -behind.sequence // INFERRED * INFERRED
            number = base + (-behind.sequence + INFERRED // 2) % INFERRED
        found = HistoryEvent(
            head.operation_id,
            head.started_at or 0.0,
            entry.number,
            -number or -1,  # below 0, so that it never replaces a reported one
            timestamp or clock.time_ns() / 1e9,
            event,
            stage,
            f"{head.name} {text}"[:TEXT],
            head.status.value if event == s.OPERATION_ENDED else None,
            head.agent,
            attributes=json.dumps(own, default=repr) if own else None,
        )
        self.inferred.append(found)

    def infer_end(self, entry: Entry) -> None:
        """Add the end of an operation that nobody reported, at its last sign of life: it may have arrived late."""
        reason = entry.snapshot.reason or "nothing more was received from it"
        said = f"counts as {entry.head.status.value}: {reason}"
        self.infer(entry, s.OPERATION_ENDED, said, timestamp=entry.snapshot.timestamp)


def _ratio(record: Record, status: Status) -> float | None:
    """The ratio that an event says, or that follows from its counts, as in `wire.from_attributes`."""
    brief: Mapping[str, Any] = record.brief
    said, completed, total = brief.get(s.RATIO), brief.get(s.COMPLETED), brief.get(s.TOTAL)
    if is_ratio(said):
        return float(said)  # type: ignore[arg-type]
    if not record.is_foreign or not (is_amount(completed) and is_amount(total)):
        return None
    return ratios_of(completed, total, status)[1]
