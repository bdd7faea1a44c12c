"""Seconds until the monitor answers after a start, with many ended operations in its database."""

from __future__ import annotations

import http.client
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import Row, full_or_short
from benchmarks.monitor.load import PATIENCE, Monitor
from benchmarks.monitor.traffic import NAMES, Program, Shape
from otel_progress import semconv as s
from otel_progress.model import wire
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Status
from otel_progress.monitor.state.saved import Batch, HistoryEvent, StoredOperation
from otel_progress.monitor.state.store import Store
from otel_progress.outbound import otlp

BAR: Final = 1.0
OPERATIONS: Final = full_or_short(100_000, 1_000)
STARTS: Final = full_or_short(5, 1)
CHUNK: Final = 2_000
LIST: Final = "/operations?limit=100"


def template() -> tuple[Snapshot, bytes]:
    """Return a typical ended operation and its last event."""
    program = Program(Shape(operations=1, programs=1), 0, 1.7e9)
    snapshot = program.last()
    encoded = otlp.attributes(6, wire.to_attributes(snapshot))
    moment = int(snapshot.timestamp * 1e9)
    span = snapshot.span
    assert span is not None
    text = f"{snapshot.name} completed after 1 s"
    raw = otlp.log_record(
        s.OPERATION_ENDED, moment, moment, otlp.INFO, text, encoded, span.trace_id, span.span_id, True, tagged=False
    )
    return snapshot, raw


def fill(path: Path, operations: int) -> None:
    """Write a database with this number of ended operations, each with its start, a stage and its end."""
    snapshot, raw = template()
    mark, begin = snapshot.operation_id.encode(), time.time() - operations
    store = Store(path)
    try:
        for at in range(0, operations, CHUNK):
            batch = Batch()
            for number in range(at, min(at + CHUNK, operations)):
                key = f"{number:0{len(mark)}d}"
                name, ended = NAMES[number % len(NAMES)], begin + number
                batch.operations.append(
                    StoredOperation(
                        key,
                        name,
                        Status.COMPLETED.value,
                        snapshot.health.value,
                        None,
                        "surveyor",
                        None,
                        ended - 9,
                        ended,
                        1,
                        3,
                        "gone",
                        number + 1,
                        f"{key} {name} surveyor",
                        raw.replace(mark, key.encode()),
                    )
                )
                for place, event in enumerate((s.OPERATION_STARTED, s.STAGE_STARTED, s.OPERATION_ENDED), 1):
                    text = f"{name}: an event"
                    batch.events.append(HistoryEvent(key, ended - 9, 1, place, ended, event, "load", text))
            store.write(batch)
    finally:
        store.close()


def answered(monitor: Monitor, path: str) -> tuple[float, int]:
    """Return the seconds from its start until this answer, and the bytes of the answer."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        connection = http.client.HTTPConnection(monitor.host, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 200:
                return time.monotonic() - monitor.began, len(body)
        except OSError:
            time.sleep(0.002)
        finally:
            connection.close()
    raise monitor.failed(f"{path} was not answered")


def measure(seconds: float = 0.0) -> dict[str, Any]:
    """Start it repeatedly; return the seconds of each start."""
    del seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder / "monitor.db", OPERATIONS)
        found: dict[str, list[float]] = {LIST: [], "/health": []}
        size = cpu = 0.0
        for number in range(2 * STARTS):
            first, second = (LIST, "/health") if number % 2 else ("/health", LIST)
            with Monitor(folder) as monitor:
                took, _ = answered(monitor, first)
                found[first].append(took)
                cpu = monitor.cpu()
                answered(monitor, second)
                known = monitor.get("/operations?limit=1")["total"]
                size = monitor.size()
        if known != OPERATIONS:
            raise SystemExit(f"the monitor knows {known} operations instead of {OPERATIONS}")
        (folder / "empty").mkdir()
        with Monitor(folder / "empty") as monitor:
            empty, _ = answered(monitor, LIST)
    return {
        "operations": OPERATIONS,
        "file_mb": round(size / 1e6, 1),
        "list_s": round(statistics.median(found[LIST]), 3),
        "list_worst_s": round(max(found[LIST]), 3),
        "health_s": round(statistics.median(found["/health"]), 3),
        "cpu_s": round(cpu, 3),
        "empty_file_s": round(empty, 3),
    }


def rows(found: dict[str, Any]) -> list[Row]:
    """Return the row of the table."""
    return [
        Row(
            f"restart with {found['operations']:,} finished operations, to the first list",
            f"{found['list_s']:.2f} s (worst {found['list_worst_s']:.2f}; health {found['health_s']:.2f}; "
            f"{found['cpu_s']:.2f} s CPU)",
            f"{BAR:g} s",
            f"with an empty file {found['empty_file_s']:.2f} s",
            found["list_s"] <= BAR,
        )
    ]
