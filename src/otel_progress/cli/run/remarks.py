"""Notes of `run` on operations that ended: they appear in the activity feed of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from otel_progress import clock
from otel_progress.outbound.certificate import remark

if TYPE_CHECKING:
    from otel_progress.model.snapshot import Snapshot
    from otel_progress.monitor.state.ledger import Ledger

KNOWN: Final = 1_000
"""The most operations whose number of notes is remembered."""


class Remarks:
    """Sends notes, and numbers them behind the events of the operation."""

    def __init__(self, ledger: Ledger, put: Callable[[str, bytes], None]) -> None:
        """Find processes in the ledger, and send with `put`."""
        self._ledger, self._put = ledger, put
        self._counts: dict[tuple[str, float | None], int] = {}

    def add(self, ended: Snapshot, text: str, status: str) -> None:
        """Send a note of this status, such as `warning`."""
        entry = self._ledger.operations.get(ended.operation_id)
        process = None if entry is None else self._ledger.processes.get(entry.instance)
        if process is None:
            return
        key = ended.operation_id, ended.started_at
        count = self._counts[key] = self._counts.pop(key, 0) + 1
        if len(self._counts) > KNOWN:
            del self._counts[next(iter(self._counts))]
        self._put("logs", remark(ended, text, status, process.resource, clock.time_ns(), count))
