"""What arrives after the end of an operation, spans and log events mixed, neither reopens nor moves it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from monitor_parts import Parts, beat_of, event_of, fake_time, names, open_in, parts, request_of, seconds
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_progress import semconv as s
from otel_progress.model.snapshot import Progress, Snapshot, StageSnapshot, Wait
from otel_progress.model.status import Health, Status
from otel_progress.testing import FakeClock

AT = 1_700_000_000.0
TRACE = bytes(range(1, 17))
KEY = TRACE.hex()
RUNNING = Snapshot("job", "import", Status.RUNNING, AT + 1, sequence=1, started_at=AT)
WAITING = replace(RUNNING, status=Status.WAITING, health=Health.WAITING, wait=Wait("lock", 0.0, 5.0))
KINDS = {
    s.OPERATION_STARTED: RUNNING,
    s.UPDATED: RUNNING,
    s.STAGE_STARTED: replace(RUNNING, stage="load", stages=(StageSnapshot("load", "load", Status.RUNNING),)),
    s.STALLED: replace(RUNNING, health=Health.SILENT, health_reason="no progress"),
    s.RECOVERED: RUNNING,
    s.WAIT_STARTED: WAITING,
    s.WAIT_OVERDUE: replace(WAITING, overdue=True),
    s.NOTE: RUNNING,
}
Told = tuple[str, Any]
"""A signal, and its request."""


def told(event: str, number: int, snapshot: Snapshot) -> Told:
    """A log event, with counts of its own."""
    progress = Progress(number * 7 % 90, 100, ratio=number * 7 % 90 / 100)
    said = replace(snapshot, sequence=number, timestamp=AT + number, progress=progress)
    return "logs", request_of(event_of(said, event, KEY), instance="shop-1")


def span(number: int, above: int, start: float, end: float, **names: str) -> Told:
    """A span of the same trace, of the same process or of one that it called."""
    message = ExportTraceServiceRequest()
    group = message.resource_spans.add()
    for key, value in {"service.name": "shop", "service.instance.id": "shop-1", **names}.items():
        group.resource.attributes.add(key=key.replace("__", ".")).value.string_value = value
    group.scope_spans.add().spans.append(
        Span(
            trace_id=TRACE,
            span_id=number.to_bytes(8, "big"),
            parent_span_id=above.to_bytes(8, "big") if above else b"",
            name=f"span {number}",
            start_time_unix_nano=int((AT + start) * 1e9),
            end_time_unix_nano=int((AT + end) * 1e9),
        )
    )
    return "traces", message.SerializeToString()


ROOT = span(1, 0, 0, 9)
SPANS = [span(2, 1, 1, 5), span(3, 2, 2, 30), span(4, 2, 3, 4, service__instance__id="bank-1"), span(5, 9, -3, 1)]
BEAT: Told = ("logs", request_of(beat_of(), instance="shop-1"))
END = 20
"""The sequence of the end: a sequence identifies an event."""
NUMBERS = st.integers(1, 30).filter(lambda number: number != END)
LOGS = st.builds(lambda kind, number: told(kind, number, KINDS[kind]), st.sampled_from(list(KINDS)), NUMBERS)
ENDS = [status for status in Status if status.final and status is not Status.SKIPPED]


def shown(monitor: Parts, key: str) -> dict[str, Any]:
    """What a row says of an operation that is over; its spans may still become stages."""
    row = monitor.row(key)
    kept = ("name", "status", "state", "attempt", "started_at", "elapsed", "progress", "reason", "timestamp")
    return {name: row.get(name) for name in kept}


def hear(monitor: Parts, one: Told) -> None:
    """A request arrives."""
    monitor.take(one[1], signal=one[0])


@settings(max_examples=120)
@given(
    before=st.lists(LOGS | st.sampled_from([*SPANS, BEAT]), max_size=5),
    after=st.lists(LOGS | st.sampled_from([ROOT, *SPANS, BEAT]), min_size=1, max_size=8),
    end=st.sampled_from(ENDS),
    again=st.integers(0, 8),
)
def test_nothing_moves_what_ended_by_an_event(before: list[Told], after: list[Told], end: Status, again: int) -> None:
    """Updates, stalls, waits, spans and heartbeats that come late, whatever their sequence, change no figure of it."""
    ended = told(s.OPERATION_ENDED, END, replace(RUNNING, status=end))
    with fake_time() as fake, TemporaryDirectory() as folder, parts(Path(folder) / "m.db") as monitor:
        for one in (*before, ended):
            hear(monitor, one)
        wanted = shown(monitor, "job")
        assert wanted["status"] == end.value
        for number, one in enumerate(after):
            hear(monitor, one)
            seconds(fake, monitor, 1)
            if number == again:
                hear(monitor, ended)
            assert shown(monitor, "job") == wanted
        assert (open_in(monitor.store), monitor.core.labels) == ([], {})
        assert list(monitor.core.ledger.operations) == ["job"]
        assert names(monitor.history("job")).count(s.OPERATION_ENDED) == 1
        monitor.restart()
        assert shown(monitor, "job") == wanted


@settings(max_examples=60)
@given(st.permutations([ROOT, *SPANS]), st.sets(st.integers(0, 4), max_size=2))
def test_nothing_moves_what_ended_by_its_root_span(order: list[Told], restarts: set[int]) -> None:
    """Spans that come after the root are stages more, but the operation stays over, with its start and its end."""
    with fake_time() as fake, TemporaryDirectory() as folder, parts(Path(folder) / "m.db") as monitor:
        wanted = None
        for number, one in enumerate(order):
            hear(monitor, one)
            seconds(fake, monitor, 1)
            if number in restarts:
                monitor.restart()
            if one is ROOT:
                wanted = shown(monitor, KEY)
                assert (wanted["status"], wanted["started_at"], wanted["elapsed"]) == ("completed", AT, 9.0)
            if wanted is not None:
                assert shown(monitor, KEY) == wanted
        assert open_in(monitor.store) == []
        assert names(monitor.history(KEY)).count(s.OPERATION_ENDED) == 1


def test_spans_after_the_end_and_a_restart_make_no_row(monitor: Parts, fake: FakeClock) -> None:
    """The trace of an operation that ended is known after a restart, too: its spans leave the process seconds later."""
    hear(monitor, told(s.OPERATION_ENDED, END, replace(RUNNING, status=Status.COMPLETED)))
    for one in itertools.chain(SPANS, [ROOT]):
        monitor.restart()
        hear(monitor, one)
        seconds(fake, monitor, 1)
        assert open_in(monitor.store) == []
        assert monitor.core.ledger.find(KEY) is None
