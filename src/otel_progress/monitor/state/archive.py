"""Operations and processes that are in the store but no longer in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_progress import clock
from otel_progress.monitor.state.restore import entry_of, process_of

if TYPE_CHECKING:
    from otel_progress.monitor.state.journal import Journal
    from otel_progress.monitor.state.ledger import Entry, Ledger, Process
    from otel_progress.monitor.state.loading import Loading
    from otel_progress.monitor.state.store import Store


class Archive:
    """Reads one operation or process at a time; any thread may use it."""

    def __init__(self, store: Store, ledger: Ledger, journal: Journal, loading: Loading) -> None:
        """What the journal has not stored yet counts, too."""
        self._store = store
        self._ledger = ledger
        self._journal = journal
        self._loading = loading

    def operation(self, operation_id: str) -> Entry | None:
        """An operation that is not in the ledger."""
        waiting = self._journal.operations.get(operation_id)  # it may have made room before it was stored
        if waiting is not None:
            return waiting
        kept = self._store.recall(operation_id)
        if kept is None:
            return None
        return entry_of(kept, clock.monotonic() if self._loading.done else None)

    def process(self, instance: str) -> Process | None:
        """A process, from the ledger or from the store."""
        found = self._ledger.processes.get(instance)
        if found is None:
            for known in self._store.processes([instance]):
                return process_of(known, clock.monotonic())
        return found
