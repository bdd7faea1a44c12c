"""Events of this process as the monitor's API shows them: the row of an operation, and the event itself."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from otel_progress import semconv, settings
from otel_progress.model import json_keys
from otel_progress.model.health import judge
from otel_progress.model.sentences import sentence

if TYPE_CHECKING:
    from otel_progress.model.snapshot import Event, Snapshot
    from otel_progress.monitor.state.rollup import Part

MOST: Final = 10_000
"""The most child operations that are remembered for their parents."""

Json = dict[str, Any]


class OperationRows:
    """Makes rows as the monitor does, from the events of one process; not thread-safe.

    Cost and tokens of children add up in their parents, as far as their events were seen here. What only an observer
    knows is left out, such as a verdict of dead, and children in other processes.
    """

    def __init__(self) -> None:
        """Learn about this process; it has no children yet."""
        from otel_progress.monitor.state.ledger import Process
        from otel_progress.monitor.web import row_json  # noqa: F401  # imported now: the process may be about to end
        from otel_progress.telemetry.setup import resource

        about = {
            semconv.SERVICE_NAME: settings.service_name(),
            semconv.HOST_NAME: socket.gethostname(),
            semconv.PROCESS_PID: os.getpid(),
            **resource(),
        }
        pid, host = about[semconv.PROCESS_PID], about[semconv.HOST_NAME]
        self._process = Process(
            str(about.get(semconv.SERVICE_INSTANCE_ID)),
            about,
            0.0,
            pid=pid if isinstance(pid, int) else None,
            host=host if isinstance(host, str) else None,
        )
        self._children: dict[str, dict[str, Snapshot]] = {}
        self._count = 0

    def row(self, event: Event) -> Json:
        """The row of an operation right after an event; its `revision` is the sequence number of the event."""
        from otel_progress.monitor.state.ledger import Entry, head_of_snapshot
        from otel_progress.monitor.state.rollup import Part, roll_up
        from otel_progress.monitor.web.row_json import row_json

        seen, process = event.snapshot, self._process
        entry = Entry(head_of_snapshot(seen), process.instance, 0.0, snapshot=seen)
        entry.revision = event.sequence
        verdict = None if seen.status.final else judge(seen, seen.timestamp)
        whole = roll_up(Part(seen, process.instance), self._below)
        self.hear(seen)
        return json_keys.of_row(row_json(entry, seen, process, verdict, whole, None, was_stuck_before=False))

    def hear(self, seen: Snapshot) -> None:
        """Remember the figures of a child for its parent; of an event without a row, too."""
        self._forget(seen)
        if seen.parent_id is None:
            return
        siblings = self._children.get(seen.parent_id, {})
        if seen.operation_id not in siblings:
            if self._count >= MOST:
                return
            self._count += 1
        self._children.setdefault(seen.parent_id, {})[seen.operation_id] = seen

    def _forget(self, seen: Snapshot) -> None:
        """Forget the children of an operation that ended."""
        if seen.status.final:
            self._count -= len(self._children.pop(seen.operation_id, ()))

    def _below(self, operation_id: str) -> Iterator[Part]:
        from otel_progress.monitor.state.rollup import Part

        for child in self._children.get(operation_id, {}).values():
            yield Part(child, self._process.instance)


def event_json(event: Event) -> Json:
    """An event as the monitor's API lists it."""
    out: Json = {
        "event": event.name,
        "timestamp": event.timestamp / 1e9,
        "text": sentence(event),
        "attributes": json_keys.plain(event.attributes),
    }
    if event.stage is not None:
        out["stage"] = event.stage
    return out


def json_text(value: object) -> str:
    """JSON text that every reader accepts, halves of surrogate pairs included."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=str)
    return text.encode("utf-8", "replace").decode()
