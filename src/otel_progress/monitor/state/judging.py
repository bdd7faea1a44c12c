"""What the monitor concludes each second, and reports: labels, dead processes, lost operations, waits that end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_progress.model.health import NOT_MOVING
from otel_progress.model.states import Label
from otel_progress.model.status import Health, Status
from otel_progress.model.units import duration
from otel_progress.monitor.state.ledger import SNAPSHOTS
from otel_progress.monitor.state.schedule import Rounds

if TYPE_CHECKING:
    from otel_progress.monitor.state.history import History
    from otel_progress.monitor.state.journal import Journal
    from otel_progress.monitor.state.ledger import Entry, Ledger
    from otel_progress.monitor.state.listener import CoreListeners
    from otel_progress.monitor.state.stalls import Stalls
    from otel_progress.monitor.state.verdicts import Observer

LOST: Final = 10_000
"""The most operations presumed lost whose return is reported; beyond it all are forgotten."""
_LABELS: Final = {health: Label(health) for health in Health}


class Judging:
    """Keeps the label of each open operation. It belongs to the thread of the core.

    Attributes:
        labels: the label of each open operation; other threads may read it.
        overdue: the operations with a wait that was reported to be overdue.
        stuck: the operations that the monitor itself reported to be stuck, as their processes do not.
        rounds: which operations are to be judged.
    """

    def __init__(
        self,
        ledger: Ledger,
        observer: Observer,
        journal: Journal,
        history: History,
        stalls: Stalls,
        listeners: CoreListeners,
        presume_after: float,
    ) -> None:
        """Nothing is judged yet; an operation not heard of for `presume_after` seconds is presumed lost."""
        self.labels: dict[str, Label] = {}
        self.overdue: set[str] = set()
        self.stuck: set[str] = set()
        self.rounds = Rounds(ledger, observer, presume_after)
        self._ledger = ledger
        self._observer = observer
        self._journal = journal
        self._history = history
        self._stalls = stalls
        self._listeners = listeners
        self._presume_after = presume_after
        self._lost: set[str] = set()

    def change(self, entry: Entry) -> None:
        """Something was said of an operation: its label follows at once, the rest in the next round."""
        key = entry.head.operation_id
        self._stalls.end_recovered(entry)
        head = entry.head
        plain = entry.said is not None and (head.status, head.health) == (Status.RUNNING, Health.PROGRESSING)
        plain = plain and not self._observer.judges(entry)
        if plain and self._goes_on(entry):
            return
        self.rounds.change(key)
        if entry.open:
            self.labels[key] = _LABELS[head.health] if plain else self._observer.label(entry, entry.heard_at)
            if key in self._lost:
                self._lost.discard(key)
                self._listeners.concluded(entry, "recovered")
            self._end_overdue(entry)
        else:
            self.labels.pop(key, None)
            self.rounds.forget(key)
            self._journal.dead.discard(key)
            self.overdue.discard(key)
            if key in self.stuck and self._observer.unjudged.take_refuted(key):
                self._stalls.conclude_end(entry, is_refuted=True)
            self.stuck.discard(key)
            self._stalls.drop(key)

    def _goes_on(self, entry: Entry) -> bool:
        """Whether an operation that progresses did so before, and nothing else rests on it: it need not be judged."""
        key = entry.head.operation_id
        return (
            self.labels.get(key) == _LABELS[Health.PROGRESSING]
            and self.rounds.is_settled(entry)
            and key not in self._lost
            and key not in self.overdue
            and key not in self.stuck
            and key not in self._stalls.held
            and key not in self._journal.dead
        )

    def restore(self, entry: Entry, now: float) -> None:
        """An operation was loaded from the store."""
        key = entry.head.operation_id
        self.rounds.change(key)
        self.labels[key] = label = self._observer.label(entry, now)
        if label.overdue:
            self.overdue.add(key)

    def forget(self, operation_id: str) -> None:
        """An operation is held in memory no more."""
        self.labels.pop(operation_id, None)
        self._stalls.forget(operation_id)
        self.rounds.forget(operation_id)

    def tidy(self) -> None:
        """Forget the labels of operations that made room."""
        operations = self._ledger.operations
        if len(self.labels) > len(operations):
            self.labels = {key: label for key, label in self.labels.items() if key in operations}
            self._journal.dead &= operations.keys()
            self.overdue &= operations.keys()
            self.stuck &= operations.keys()

    def judge(self, now: float) -> None:
        """Judge what may have changed, and what that changes in turn."""
        for key in self._observer.unjudged.take_back():
            self._take_back(key)
        while entries := self.rounds.due(now):
            for entry in entries:
                if self._ledger.operations.get(entry.head.operation_id) is entry:
                    self._judge(entry, now)
                    self.rounds.looked(entry, now)
                if len(self._ledger.operations) > SNAPSHOTS:
                    entry.release_snapshot()

    def _take_back(self, operation_id: str) -> None:
        """The last stall of an operation was none: this round reports it, or corrects the history if it is over."""
        if operation_id in self.stuck:
            self.rounds.mark(operation_id)
            return
        entry = self._ledger.operations.get(operation_id)
        if entry is not None and self._observer.unjudged.take_refuted(operation_id):
            self._stalls.take_out(entry)
            self._journal.touch(operation_id)

    def _judge(self, entry: Entry, now: float) -> None:
        self._observer.advance(entry, now)
        key, label = entry.head.operation_id, self._observer.label(entry, now)
        if label != self.labels.get(key):
            self.labels[key] = label
            self._ledger.touch(entry)
            self._journal.touch(key)
        missed = self.rounds.is_missed(entry.instance)
        if missed:
            pass  # it is lost, whether others were judged before or not: no stall of it begins or ends
        elif key in self._stalls.held:
            if label.health in NOT_MOVING:
                self._stalls.release(entry)
                self._journal.touch(key)
        elif entry.head.health in NOT_MOVING and self._observer.is_stuck(entry, now) is False:
            self._stalls.take_back(entry, now)
        if not missed:
            self._report_stall(entry, label, now)
        self._end_overdue(entry)
        dead = label.health is Health.DEAD
        if dead != (key in self._journal.dead) and label.health is not Health.UNKNOWN:
            self._report_death(entry, dead)
        if missed:
            self._presume_lost(entry)

    def _report_stall(self, entry: Entry, label: Label, now: float) -> None:
        """Report the stall of an operation that the monitor judges, and its end, unless its process reports it."""
        key = entry.head.operation_id
        if not self._observer.judges(entry) or entry.head.health in NOT_MOVING:
            self.stuck.discard(key)
        elif label.health in NOT_MOVING:
            if key not in self.stuck:
                self.stuck.add(key)
                self._stalls.conclude(entry, now)
                self._journal.touch(key)
        elif key in self.stuck and label.health not in (Health.DEAD, Health.UNKNOWN):
            self.stuck.discard(key)
            self._stalls.conclude_end(entry, is_refuted=self._observer.unjudged.take_refuted(key))
            self._journal.touch(key)

    def _presume_lost(self, entry: Entry) -> None:
        reason = f"its process was not heard of for {duration(self._presume_after)}"
        lost = self._ledger.presume_lost(entry.head.operation_id, reason)
        if lost is not None:
            self._history.infer_end(lost)
            if len(self._lost) >= LOST:
                self._lost.clear()
            self._lost.add(entry.head.operation_id)
            self._listeners.concluded(lost, "lost")

    def note_overdue(self, operation_id: str) -> None:
        """A wait was reported to be overdue; its end will be reported, too."""
        entry = self._ledger.operations.get(operation_id)
        if entry is not None and entry.open:
            self.overdue.add(operation_id)
            self.rounds.mark(operation_id)

    def _end_overdue(self, entry: Entry) -> None:
        """Report that an overdue wait is over; if the operation is stuck instead, an event of its own says so."""
        key = entry.head.operation_id
        label = self.labels.get(key)
        if key not in self.overdue or label is None or label.overdue or label.health in (Health.DEAD, Health.UNKNOWN):
            return
        self.overdue.discard(key)
        if label.health not in NOT_MOVING:
            self._listeners.concluded(entry, "recovered")

    def _report_death(self, entry: Entry, dead: bool) -> None:
        key = entry.head.operation_id
        if dead:
            self._journal.dead.add(key)
        else:
            self._journal.dead.discard(key)
        self._journal.operations[key] = entry
        self._journal.processes.add(entry.instance)
        self._listeners.concluded(entry, "dead" if dead else "recovered")
