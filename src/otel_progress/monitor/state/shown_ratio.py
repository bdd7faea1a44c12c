"""The ratio that is shown of an operation with children; small falls do not move it back."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from otel_progress.monitor.state.rollup import show

if TYPE_CHECKING:
    from otel_progress.monitor.state.ledger import Entry, Ledger


class ShownRatios:
    """Remembers the shown ratios in the ledger; any thread may use it."""

    def __init__(self, ledger: Ledger) -> None:
        """For the operations of a ledger."""
        self._ledger = ledger
        self._lock = threading.Lock()
        self._changed: set[str] = set()

    def show(self, entry: Entry, raw: float | None, *, rolled_up: bool) -> float | None:
        """The ratio to show for a raw ratio; None if that is not known, or none that was rolled up was ever shown.

        Once a rolled-up ratio was shown, the operation's own ratio continues from there. An ended one keeps its last.
        """
        key, rolled = entry.head.operation_id, self._ledger.rolled
        with self._lock:
            known = rolled.get(key)
            before = known[1] if known is not None and known[0] == entry.number else entry.rolled
            if raw is None or not entry.open or (before is None and not rolled_up):
                return None if before is None or (raw is None and entry.open) else before.value
            found = show(before, raw)
            if found != before:
                rolled[key] = entry.number, found
                self._changed.add(key)
            return found.value

    def changed(self) -> set[str]:
        """The operations whose shown ratio changed since the last call."""
        with self._lock:
            changed, self._changed = self._changed, set()
        return changed
