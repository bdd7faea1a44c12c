"""After a start, what ran before is loaded from the store into the ledger, a slice at a time, while requests go first.

Requests are accepted and answered meanwhile. An operation that is reported on before its turn is loaded at once, with
its ancestors and descendants, so that the event meets the stored state. Nothing is concluded until all are loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from otel_progress import clock
from otel_progress.monitor.state.restore import entry_of, process_of, shown_of

if TYPE_CHECKING:
    from otel_progress.monitor.state.ledger import Entry, Ledger
    from otel_progress.monitor.state.saved import StoredOperation
    from otel_progress.monitor.state.store import Store

SLICE: Final = 256
"""Operations loaded at a time; a request waits for one slice at most."""
BELOW: Final = 2_000
"""The most ended operations that are loaded with a slice, as children of running ones."""
DEPTH: Final = 16
"""The most levels above and below an operation that are loaded with it."""


class Loading:
    """Loads operations into a ledger; it belongs to the thread of the core.

    Attributes:
        of: the number of operations that had not ended at the start.
        loaded: how many of them are in the ledger, or ended before their turn.
        done: whether everything is loaded.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        on_loaded: Callable[[list[tuple[StoredOperation, Entry]]], None],
        is_newer: Callable[[str], bool],
        slice: int = SLICE,
    ) -> None:
        """Nothing is loaded yet.

        Args:
            store: where they are stored.
            ledger: where they are loaded to.
            on_loaded: called with those that were loaded.
            is_newer: whether an operation has changes that are not in the store yet.
            slice: the operations loaded at a time.
        """
        self.of, self._last = store.open_count()
        self.loaded = 0
        self.done = self.of == 0
        self._store = store
        self._ledger = ledger
        self._on_loaded = on_loaded
        self._is_newer = is_newer
        self._after = 0
        self._slice = slice

    def progress(self) -> dict[str, int] | None:
        """How far loading is, for responses; None once it is done."""
        return None if self.done else {"loaded": min(self.loaded, self.of), "of": self.of}

    def step(self) -> None:
        """Load the next slice.

        Raises:
            StoreError: if it cannot be read; the next call retries.
        """
        kept, after = self._store.open_slice(self._after, self._last, self._slice)
        self._bring(kept)
        self._after = after
        self.loaded += len(kept)
        self.done = len(kept) < self._slice

    def meet(self, operation_id: str, parent_id: str | None) -> None:
        """Load an operation that is reported on, with its ancestors and descendants.

        Raises:
            StoreError: if they cannot be read.
        """
        if self.done or operation_id in self._ledger.operations:
            return
        found = self._one(operation_id)
        above = parent_id if found is None else found.parent_id
        kept = [] if found is None else [found]
        for _ in range(DEPTH):
            one = None if above is None or above in self._ledger.operations else self._one(above)
            if one is None or one in kept:
                break
            kept.append(one)
            above = one.parent_id
        level = [operation_id]
        for _ in range(DEPTH):
            below = self._store.below(level, BELOW)
            level = [one.operation_id for one in below if one.operation_id not in self._ledger.operations]
            kept += below
            if not level:
                break
        self._bring(kept)

    def meet_process(self, instance: str | None) -> None:
        """Load a process that is heard, as its heartbeats may be known; None is none.

        Raises:
            StoreError: if it cannot be read.
        """
        if not self.done and instance is not None:
            self._bring_processes({instance})

    def _one(self, operation_id: str) -> StoredOperation | None:
        return None if self._is_newer(operation_id) else self._store.recall(operation_id)

    def _bring(self, kept: list[StoredOperation]) -> None:
        found = {one.operation_id: one for one in kept if self._is_missing(one)}
        level = list(found)
        while level and len(found) < len(kept) + BELOW:
            below = self._store.below(level, BELOW, ended=True)
            new = {one.operation_id: one for one in below if one.operation_id not in found and self._is_missing(one)}
            found |= new
            level = list(new)
        self._bring_processes({one.instance for one in found.values()})
        ledger = self._ledger
        revision, hook, ledger.on_change = ledger.revision, ledger.on_change, None
        try:
            brought = []
            for one in found.values():
                entry = entry_of(one)
                ledger.restore(entry)
                shown = shown_of(one.rolled)
                if shown is not None and entry.open:
                    ledger.rolled[one.operation_id] = one.attempt, shown
                brought.append((one, entry))
        finally:
            ledger.revision, ledger.on_change = revision, hook
        self._on_loaded(brought)

    def _is_missing(self, one: StoredOperation) -> bool:
        return one.operation_id not in self._ledger.operations and not self._is_newer(one.operation_id)

    def _bring_processes(self, instances: Iterable[str]) -> None:
        known = self._ledger.processes
        now, wall = clock.monotonic(), clock.time_ns() / 1e9
        missing = [instance for instance in instances if instance not in known]
        for one in self._store.processes(missing) if missing else ():
            self._ledger.know(process_of(one, now - max(0.0, wall - one.heard_at)), now)
