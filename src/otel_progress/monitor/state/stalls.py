"""Stalls that a process reports although the monitor knows better, and branches that recover without an event.

A process calls a branch stuck that only waits for a child in another process. The monitor sees that child move, so it
holds the stall back, and reports it only if it becomes true.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.model.health import NOT_MOVING
from otel_progress.model.status import Health
from otel_progress.model.timeline import branches_of, stuck_branches
from otel_progress.model.units import spelled
from otel_progress.monitor.state.listener import StoredEvent

if TYPE_CHECKING:
    from otel_progress.monitor.intake.records import Record
    from otel_progress.monitor.state.history import History
    from otel_progress.monitor.state.ledger import Entry, Head, Ledger
    from otel_progress.monitor.state.listener import CoreListeners
    from otel_progress.monitor.state.saved import HistoryEvent
    from otel_progress.monitor.state.store import Store
    from otel_progress.monitor.state.verdicts import Observer

HELD: Final = 16
"""The most stalls of one operation that are held back, and the most of its branches that are known to be stuck."""
RECALLED: Final = 64
"""The most stalls and recoveries of a stuck operation that are read from the store after a start."""
OVERRULABLE: Final = frozenset({s.STALLED, s.RECOVERED})
"""Events that the monitor may overrule."""


class Stalls:
    """Holds stalls back. It belongs to the thread of the core.

    Attributes:
        held: the stalls held back, by operation and sequence number.
        released: stalls that became true and are to be passed on.
    """

    def __init__(
        self, ledger: Ledger, observer: Observer, store: Store, history: History, listeners: CoreListeners
    ) -> None:
        """Nothing is held back."""
        self.held: dict[str, dict[int, StoredEvent]] = {}
        self.released: list[StoredEvent] = []
        self._reported: dict[str, dict[str, None]] = {}
        """The branches that are stuck according to the history, by operation."""
        self._ledger = ledger
        self._observer = observer
        self._store = store
        self._history = history
        self._listeners = listeners

    def forget(self, operation_id: str) -> None:
        """The operation is held in memory no more."""
        self.drop(operation_id)
        self._reported.pop(operation_id, None)

    def drop(self, operation_id: str) -> None:
        """The operation ended: what was held back never became true."""
        self.held.pop(operation_id, None)

    def overrules(self, head: Head, record: Record, resource: Mapping[str, Any], now: float, *, was_held: bool) -> bool:
        """Whether an event reports a stall that is none, or the end of a stall that was held back.

        Args:
            head: the operation after the event.
            record: the event.
            resource: the resource of its process.
            now: the monotonic time.
            was_held: whether a stall was held back before the event.
        """
        entry = self._ledger.operations.get(head.operation_id)
        if (
            entry is None
            or entry.instance != self._ledger.instance_of(resource)
            or entry.head.started_at != head.started_at
        ):
            return False
        held = self.held.get(head.operation_id)
        if record.event == s.RECOVERED:
            return self.held.pop(head.operation_id, None) is not None or was_held
        if not entry.open:
            return False
        if self._observer.is_stuck(entry, now) is not False:
            labels, explained = self._explained(entry, record, now)
            if labels & explained and not labels <= explained:
                self.held.setdefault(head.operation_id, {})  # reported soon, of the stuck branches alone
            return bool(labels & explained)
        if held is None:
            held = self.held[head.operation_id] = {}
        if len(held) < HELD:
            held[head.sequence] = StoredEvent(record, head, resource)
        return True

    def _explained(self, entry: Entry, record: Record, now: float) -> tuple[set[Any], set[str]]:
        """The branches that a stall is about, and those that only wait for moving children in other processes."""
        labels = record.own.get(s.STUCK_BRANCHES)
        return set(labels) if isinstance(labels, list) else set(), self._observer.explained(entry, now)

    def release(self, entry: Entry) -> None:
        """Nothing overrules the stalls any more: report them, except for branches whose own child moves."""
        key, now = entry.head.operation_id, clock.monotonic()
        held = self.held.pop(key)
        held = {number: one for number, one in held.items() if set.isdisjoint(*self._explained(entry, one.record, now))}
        for one in held.values():
            if one.head is not None:
                self._history.inferred.append(self._history.event(one.head, one.record))
                self.note(key, one.record)
            if self._listeners.want(s.STALLED):
                self.released.append(one)
        if not held:  # no event reported it, or its end was reported
            self.conclude(entry, now)

    def conclude(self, entry: Entry, now: float) -> None:
        """Report a stall that no event reports."""
        verdict = self._observer.verdict(entry, now)
        reason, labels = verdict.reason or "no progress", [] if verdict.branch is None else [verdict.branch]
        own = {s.HEALTH_REASON: reason}
        for line in self._observer.lines(entry, now):
            if line.branch.label == verdict.branch and line.branch.stuck_at is not None:
                own[s.STUCK_AT] = line.branch.stuck_at
        self._history.infer(entry, s.STALLED, f"is stuck: {spelled(reason)}", own, labels)
        self._reported.setdefault(entry.head.operation_id, {}).update(dict.fromkeys(labels))
        self._listeners.concluded(entry, "stalled")

    def conclude_end(self, entry: Entry, *, is_refuted: bool = False) -> None:
        """Report the end of a stall that the monitor concluded; one that late events refute ends when it began."""
        if not (is_refuted and self.take_out(entry)):
            self._history.infer(entry, s.RECOVERED, "is not stuck any more")
        self._reported.pop(entry.head.operation_id, None)
        if entry.open:
            self._listeners.concluded(entry, "recovered")

    def take_out(self, entry: Entry) -> bool:
        """The last stall that the monitor concluded was none: it ends when it began; returns whether there was one."""
        begun = [event for event in self._stored(entry) if event.event == s.STALLED and event.sequence < 0]
        if begun:
            self._history.infer(entry, s.RECOVERED, "was not stuck: its events arrived late", behind=begun[-1])
        return bool(begun)

    def take_back(self, entry: Entry, now: float) -> None:
        """A reported stall is overruled, as a child in another process became known: report its end."""
        self.held[entry.head.operation_id] = {}
        reason = self._observer.verdict(entry, now).reason or "it moves"
        subject = "it " if reason.startswith("waits") else ""
        self._history.infer(entry, s.RECOVERED, f"is not stuck: {subject}{spelled(reason)}")
        self._reported.pop(entry.head.operation_id, None)
        self._listeners.concluded(entry, "recovered")

    def note(self, operation_id: str, record: Record) -> None:
        """The history reports these branches as stuck."""
        stage = record.brief.get(s.STAGE_PATH)
        labels = branches_of(record.own, stage if isinstance(stage, str) else None)
        known = self._reported.setdefault(operation_id, {})
        known.update(dict.fromkeys(labels[: HELD - len(known)]))

    def end_recovered(self, entry: Entry) -> None:
        """Report branches that move again, or are over, while their operation is still stuck: no event does."""
        key = entry.head.operation_id
        known = self._reported.get(key)
        if not known:
            return
        if not entry.open or entry.head.health not in NOT_MOVING:
            if not entry.open or entry.head.health is not Health.UNKNOWN:
                del self._reported[key]
            return
        seen = entry.snapshot
        stuck = {branch.label for branch in seen.branches if branch.health in NOT_MOVING} or {seen.stage or ""}
        gone = [label for label in known if label not in stuck]
        if not gone or not stuck & known.keys():
            return  # a branch may have another label while it is the only one
        for label in gone:
            del known[label]
        paths = {stage.path for stage in seen.stages}
        stage = gone[0] if gone[0] in paths else None
        words = f"still stuck, but not {', '.join(gone)} any more"
        self._history.infer(entry, s.RECOVERED, words, {}, gone, stage=stage, timestamp=entry.head.timestamp)

    def stuck_since(self, entry: Entry) -> float | None:
        """After a start: since when an operation is stuck according to its history, in Unix seconds."""
        newest = max(self._stored(entry), key=lambda event: (event.timestamp, event.event == s.RECOVERED), default=None)
        return newest.timestamp if newest is not None and newest.event == s.STALLED else None

    def recall(self, entry: Entry) -> None:
        """After a start: a stall that is in no history was held back."""
        reported = stuck_branches(self._stored(entry))
        if not reported:
            self.held[entry.head.operation_id] = {}
        else:
            self._reported[entry.head.operation_id] = dict.fromkeys(reported)

    def _stored(self, entry: Entry) -> list[HistoryEvent]:
        """The stalls of this attempt and their ends in the store, in the order in which they were stored."""
        head = entry.head
        rows = self._store.events(head.operation_id, before=2**62, names=(s.STALLED, s.RECOVERED), limit=RECALLED)
        return [event for _, event in rows if event.started_at == (head.started_at or 0.0)]
