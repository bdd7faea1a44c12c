"""A monitor without server and threads: a test decides what arrives, and how much time passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.model import wire
from otel_progress.model.snapshot import Snapshot
from otel_progress.monitor.intake.request_queue import Job
from otel_progress.monitor.intake.requests import Acknowledgement, Envelope
from otel_progress.monitor.state.core import Core
from otel_progress.monitor.state.ledger import Entry
from otel_progress.monitor.state.listener import CoreListener, StoredEvent
from otel_progress.monitor.state.saved import HistoryEvent, StoredOperation
from otel_progress.monitor.state.store import Store
from otel_progress.monitor.web.publish import Publisher
from otel_progress.monitor.web.stream import Hub
from otel_progress.monitor.web.views import Views
from otel_progress.outbound import otlp
from otel_progress.testing import FakeClock

WALL = 1_700_000_000.0


def event_of(snapshot: Snapshot, event: str = s.UPDATED, trace: str | None = None, **more: Any) -> bytes:
    """Return the log record with a snapshot."""
    given = {**wire.to_attributes(snapshot), **more}
    given = {key: value for key, value in given.items() if value is not None}
    moment = round(snapshot.timestamp * 1e9)
    span = "2" * 16 if trace else None
    return otlp.log_record(event, moment, moment, 9, "said", otlp.attributes(6, given), trace, span, True)


def beat_of(interval: float = 5.0) -> bytes:
    """Return a heartbeat of a process."""
    given = otlp.attributes(6, {s.HEARTBEAT_INTERVAL: interval})
    return otlp.log_record(s.PROCESS_HEARTBEAT, clock.time_ns(), clock.time_ns(), 9, "", given, None, None, False)


def request_of(*records: bytes, instance: str = "p1", **resource: Any) -> bytes:
    """Return a request of one process."""
    about = otlp.resource({"service.instance.id": instance, **resource})
    return otlp.envelope(about, otlp.scope(s.SCOPE, ""), records)


def open_in(store: Store) -> list[StoredOperation]:
    """All operations in a store that have not ended."""
    return store.open_slice(0, 2**62, 1_000_000)[0]


class Recorder(CoreListener):
    """Keeps what the core reports."""

    def __init__(self) -> None:
        self.events: list[StoredEvent] = []
        self.conclusions: list[tuple[str, str]] = []
        """What was concluded, and of which operation."""
        self.rivals: list[str] = []
        """Instances of the newest run, where an id runs twice."""

    def wants(self, event: str) -> bool:
        """All events."""
        return True

    def stored(self, events: list[StoredEvent]) -> None:
        """Keep them."""
        self.events += events

    def concluded(self, entry: Entry, kind: str) -> None:
        """Keep it."""
        self.conclusions.append((kind, entry.head.operation_id))

    def rivalled(self, entry: Entry) -> None:
        """Keep it."""
        self.rivals.append(entry.instance)

    @property
    def kinds(self) -> list[str]:
        """What was concluded."""
        return [kind for kind, _ in self.conclusions]


class Parts:
    """The monitor's inside, on a file that survives it."""

    def __init__(self, path: Path, kind: type[Store] = Store, **options: Any) -> None:
        self.path = path
        self.kind = kind
        self.options = options
        self.open()

    def open(self) -> None:
        """Start with the content of the file."""
        self.store = self.kind(self.path)
        self.core = Core(self.store, **self.options)
        self.views = Views(self.core, self.store)
        self.hub = Hub(0.1, "0")
        self.publisher = Publisher(self.core, self.store, self.views, self.hub, 0.1)

    def listen(self) -> Recorder:
        """Keep what the core reports from now on."""
        found = Recorder()
        self.core.listen(found)
        return found

    def restart(self) -> None:
        """End without closing, and start again."""
        self.store.close()
        self.open()

    def take(self, *bodies: bytes, signal: str = "logs") -> list[Acknowledgement]:
        """Deliver requests together, and return the responses."""
        answers: list[Acknowledgement] = []
        self.core.work([Job(Envelope(signal, body), answers.append, True) for body in bodies])
        return answers

    def say(self, *snapshots: Snapshot, event: str = s.UPDATED, instance: str = "p1", **more: Any) -> Acknowledgement:
        """Let a process report this."""
        return self.take(request_of(*(event_of(one, event, **more) for one in snapshots), instance=instance))[0]

    def take_of(self, instance: str, *records: bytes) -> Acknowledgement:
        """Let a process send these records."""
        return self.take(request_of(*records, instance=instance))[0]

    def beat(self, instance: str = "p1", interval: float = 5.0) -> None:
        """Let a process send a heartbeat."""
        self.take(request_of(beat_of(interval), instance=instance))

    def tick(self) -> None:
        """Do what the core does each second."""
        self.core.tick(clock.monotonic())

    def health(self, operation_id: str = "a") -> str:
        """Return the displayed verdict."""
        row = self.row(operation_id)
        return str(row["verdict"]["health"])

    def row(self, operation_id: str = "a") -> dict[str, Any]:
        """Return the displayed row."""
        entry = self.core.ledger.find(operation_id)
        assert entry is not None
        return self.views.row(entry)

    def history(self, operation_id: str = "a") -> list[HistoryEvent]:
        """Return the stored events."""
        return [event for _, event in self.store.events(operation_id, limit=10_000)]


@contextmanager
def fake_time() -> Iterator[FakeClock]:
    """Return a clock that stands still."""
    fake = FakeClock()
    before = clock.install(fake)
    try:
        yield fake
    finally:
        clock.install(before)


@contextmanager
def parts(path: Path, **options: Any) -> Iterator[Parts]:
    """Return a monitor's inside, and close it at the end."""
    found = Parts(path, **options)
    try:
        yield found
    finally:
        found.store.close()


def seconds(fake: FakeClock, monitor: Parts, count: float) -> None:
    """Let time pass, with one tick of the core each second."""
    left = count
    while left > 0:
        fake.sleep(min(1.0, left))
        left -= 1.0
        monitor.tick()


def names(events: Sequence[HistoryEvent]) -> list[str]:
    """Return their names."""
    return [event.event for event in events]
