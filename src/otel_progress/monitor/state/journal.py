"""What changed in memory and is not yet in the store, or not yet published."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from otel_progress import clock
from otel_progress.monitor.intake.requests import RETRY_AFTER, Refused
from otel_progress.monitor.state.restore import kept_of, keyframe_to_keep, known_of
from otel_progress.monitor.state.saved import Batch
from otel_progress.monitor.state.store import StoreError

if TYPE_CHECKING:
    from otel_progress.monitor.intake.records import Record
    from otel_progress.monitor.state.faults import Faults
    from otel_progress.monitor.state.history import History
    from otel_progress.monitor.state.ledger import Entry, Ledger
    from otel_progress.monitor.state.saved import Mute
    from otel_progress.monitor.state.store import Store

REMOVED: Final = 10_000
"""The most removed operations that wait to be published."""


class Journal:
    """Writes changes to the store, and lets readers see them once they are stored.

    It belongs to the thread of the core, except for `changes`, `removed` and `sent`, which any thread may call.

    Attributes:
        operations: the operations that changed since they were last stored.
        processes: the processes, by instance, that changed since then.
        dead: the operations whose process was reported dead; this is stored with them.
        mutes: the operations that were muted, or unmuted (None), since they were last stored.
        gone: the operations that were removed, as they turned out to be others.
        restarted: the operations of which it became known when they really began, with that time.
    """

    def __init__(self, store: Store, ledger: Ledger, history: History, faults: Faults) -> None:
        """Nothing has changed yet."""
        self.operations: dict[str, Entry] = {}
        self.processes: set[str] = set()
        self.dead: set[str] = set()
        self.mutes: dict[str, Mute | None] = {}
        self.gone: set[str] = set()
        self.restarted: dict[str, float] = {}
        self._store = store
        self._ledger = ledger
        self._history = history
        self._faults = faults
        self._lock = threading.Lock()
        self._sent: list[int] = []
        self._fresh: dict[str, None] = {}
        self._changes: dict[str, None] = {}
        self._removed: deque[str] = deque(maxlen=REMOVED)
        self._keyframes: dict[str, Record] = {}
        """The stored keyframe of each operation."""

    def holds(self, operation_id: str) -> bool:
        """Whether it knows better than the store what became of an operation."""
        return operation_id in self.operations or operation_id in self.gone

    # -- changes, on their way to readers

    def touch(self, operation_id: str) -> None:
        """What is shown of an operation changed; `publish` lets readers see it."""
        self._fresh[operation_id] = None

    def publish(self) -> None:
        """Let readers see what changed; to be called when it is stored, together with its history."""
        with self._lock:
            self._changes.update(self._fresh)
        self._fresh.clear()

    def changes(self) -> dict[str, None]:
        """The operations that changed since the last call, in order; any thread may call it."""
        with self._lock:
            out, self._changes = self._changes, {}
        return out

    def removed(self) -> list[str]:
        """The operations that were removed since the last call; any thread may call it."""
        return [self._removed.popleft() for _ in range(len(self._removed))]

    def forget(self, operation_id: str) -> None:
        """An operation left memory."""
        self._keyframes.pop(operation_id, None)

    def remove(self, operation_id: str) -> None:
        """An operation turned out to be another one: remove it with its history."""
        self.operations.pop(operation_id, None)
        self.restarted.pop(operation_id, None)
        self.forget(operation_id)
        self._history.inferred[:] = [one for one in self._history.inferred if one.operation_id != operation_id]
        self.gone.add(operation_id)
        self._removed.append(operation_id)

    # -- forwarded requests

    def sent(self, ids: list[int]) -> None:
        """These requests were forwarded; any thread may call it."""
        with self._lock:
            self._sent.extend(ids)

    @property
    def has_sent(self) -> bool:
        """Whether forwarded requests wait to be deleted from the store."""
        return bool(self._sent)

    # -- the store

    def save(self, batch: Batch) -> Refused | None:
        """Write a batch and all changes; returns the answer to those who wait if that fails."""
        with self._lock:
            sent, self._sent = self._sent, []
        batch.sent.extend(sent)
        batch.events.extend(self._history.inferred)
        batch.operations.extend(kept_of(entry, self._ledger, self.dead) for entry in self.operations.values())
        keyframes = {key: keyframe_to_keep(entry) for key, entry in self.operations.items()}
        keyframes = {key: one for key, one in keyframes.items() if self._keyframes.get(key) is not one}
        batch.keyframes.update((key, None if one is None else one.raw) for key, one in keyframes.items())
        batch.processes.extend(
            known_of(process) for key in self.processes if (process := self._ledger.processes.get(key))
        )
        batch.mutes.update(self.mutes)
        batch.removed |= self.gone
        batch.events[:] = [event for event in batch.events if event.operation_id not in self.gone]
        batch.restarted.update(self.restarted)
        if batch == Batch():
            return None
        try:
            self._store.write(batch)
        except StoreError as error:
            self._faults.current = str(error)
            with self._lock:
                self._sent = [*sent, *self._sent]
            return Refused(503, f"the monitor cannot store the request: {error}", RETRY_AFTER)
        self._faults.current = None
        for key, one in keyframes.items():
            if one is None:
                self._keyframes.pop(key, None)
            else:
                self._keyframes[key] = one
        self.operations.clear()
        self.processes.clear()
        self.mutes.clear()
        self.gone.clear()
        self.restarted.clear()
        self._history.inferred.clear()
        return None

    def save_changes(self) -> None:
        """Write all changes, if there are any."""
        if self.operations or self.processes or self.mutes or self.gone or self._history.inferred:
            self.save(Batch())

    def check_place(self) -> str | None:
        """What is wrong with the place of the file, also while nothing is written; None once it is in order again."""
        faults = self._faults
        before, faults.displaced = faults.displaced, None
        try:
            self._store.check()
        except StoreError as error:
            faults.displaced = faults.current = str(error)
        else:
            if before is not None and faults.current == before:
                faults.current = None
        return faults.displaced

    def prune(self) -> bool:
        """Remove operations that are too old from the store and from memory; whether there are more of them."""
        gone: list[str] = []
        has_more = False
        try:
            has_more = bool(self._store.prune(clock.time_ns() / 1e9, gone=gone.extend)) or self._store.unfinished
        except StoreError as error:
            self._faults.current = str(error)
        for key in gone:
            self._ledger.drop(key)
        self._removed.extend(gone)
        return has_more
