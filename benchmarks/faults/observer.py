"""The outside observer: receives log events, judges each operation repeatedly, and records its conclusions."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_progress import semconv as s
from otel_progress.model.health import Hearing, Verdict, judge
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Health
from otel_progress.monitor.intake import records, requests
from otel_progress.monitor.intake.server import Intake
from otel_progress.monitor.state.ledger import Entry, Ledger, read

LOOK: Final = 0.1
"""Seconds between two judgements."""
DEAF: Final = 2.0
"""Seconds (two heartbeats) without any event after which the observer assumes that it cannot hear.

With three, the first of several processes that fell silent together would count as dead.
"""


@dataclass(frozen=True)
class Conclusion:
    """A verdict at a time (seconds since 1970), with its evidence."""

    at: float
    label: str
    evidence: str = ""
    stuck_at: str = ""
    stage: str = ""


@dataclass
class Observed:
    """All about an operation: verdicts of its own process, verdicts from outside, received spans."""

    inside: list[Conclusion] = field(default_factory=list)
    outside: list[Conclusion] = field(default_factory=list)
    spans: list[str] = field(default_factory=list)


def label(verdict: Verdict, snapshot: Snapshot) -> str:
    """Return a verdict in one word: a health, `overdue`, or the final status."""
    if snapshot.status.final:
        return snapshot.status.value
    if verdict.health is Health.WAITING and snapshot.status.value == "pending":
        return "progressing"
    return "overdue" if verdict.overdue else verdict.health.value


class Observer:
    """An OTLP receiver with a ledger; `away` simulates a Collector outage."""

    def __init__(self) -> None:
        self.away = False
        self.seen: dict[str, Observed] = {}
        self._ledger = Ledger()
        self._lock = threading.Lock()
        self._heard_at = self._watching_since = time.monotonic()
        self._intake = Intake(self._take)
        self.endpoint = self._intake.endpoint
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)

    def start(self) -> None:
        """Start receiving and judging."""
        self._intake.start()
        self._thread.start()

    def stop(self) -> None:
        """Stop receiving."""
        self._stop.set()
        self._thread.join(5)
        self._intake.stop()

    def of(self, operation: str) -> Observed:
        """Return what is known of an operation so far."""
        with self._lock:
            return self._of(operation)

    def _of(self, operation: str) -> Observed:
        return self.seen.setdefault(operation, Observed())

    # -- hearing

    def _take(self, parcel: requests.Parcel) -> requests.Accepted:
        if self.away:
            raise requests.Refused(503, "the Collector is away")
        with self._lock:
            now = time.monotonic()
            if now - self._heard_at > DEAF:
                self._watching_since = now
            self._heard_at = now
            if parcel.signal == "logs":
                for group in records.groups(parcel):
                    self._ledger.hear(group.resource, group.records, now)
                    for record in group.records:
                        self._note(record)
            elif parcel.signal == "traces":
                self._note_spans(parcel.message)
        return requests.Accepted()

    def _note(self, record: records.Record) -> None:
        """Record what the process itself concluded, at its own time."""
        snapshot = None if record.event == s.PROCESS_HEARTBEAT else read(record)
        if snapshot is None or s.EXIT_CODE in record.attributes or s.EXIT_SIGNAL in record.attributes:
            return
        concluded = label(Verdict(snapshot.health, overdue=snapshot.overdue), snapshot)
        reason = snapshot.health_reason or ""
        self._of(snapshot.operation_id).inside.append(
            Conclusion(
                record.time / 1e9, concluded, f"{record.event}: {reason}", snapshot.stuck_at or "", snapshot.stage or ""
            )
        )

    def _note_spans(self, message: Any) -> None:
        assert isinstance(message, ExportTraceServiceRequest)
        for group in message.resource_spans:
            for scope in group.scope_spans:
                for span in scope.spans:
                    about = {pair.key: pair.value.string_value for pair in span.attributes}
                    if s.OPERATION_ID in about and s.STATUS in about:
                        self._of(about[s.OPERATION_ID]).spans.append(about[s.STATUS])

    # -- judging

    def _run(self) -> None:
        while not self._stop.wait(LOOK):
            with self._lock:
                self._look(time.monotonic(), time.time())

    def _look(self, now: float, wall: float) -> None:
        deaf = now - self._heard_at > DEAF
        for key, entry in self._ledger.operations.items():
            verdict = self._judge(entry, now, 0.0 if deaf else now - self._watching_since)
            concluded = label(verdict, entry.snapshot)
            told = self._of(key).outside
            if not told or told[-1].label != concluded:
                told.append(Conclusion(wall, concluded, verdict.reason or entry.snapshot.reason or ""))

    def _judge(self, entry: Entry, now: float, watching: float) -> Verdict:
        process = self._ledger.processes[entry.instance]
        hearing = Hearing(now - process.heard_at, process.interval, watching)
        return judge(entry.snapshot, entry.snapshot.timestamp + now - entry.heard_at, hearing)
