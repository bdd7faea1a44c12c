"""Attributes read from the wire have their type or are absent, and no record breaks a list."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from monitor_parts import Parts, fake_time, parts
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_progress import clock
from otel_progress import semconv as s

NUMBER, TEXT = AnyValue(int_value=3), AnyValue(string_value="three")
ODD = {
    "no value": AnyValue(),
    "text": TEXT,
    "empty text": AnyValue(string_value=""),
    "true": AnyValue(bool_value=True),
    "nan": AnyValue(double_value=float("nan")),
    "infinity": AnyValue(double_value=float("inf")),
    "below all": AnyValue(double_value=float("-inf")),
    "huge": AnyValue(double_value=1e308),
    "below zero": AnyValue(double_value=-1.0),
    "-1": AnyValue(int_value=-1),
    "2**63": AnyValue(double_value=2.0**63),
    "2**63-1": AnyValue(int_value=2**63 - 1),
    "-2**63": AnyValue(int_value=-(2**63)),
    "bytes": AnyValue(bytes_value=b"\xff\x00"),
    "array": AnyValue(array_value=ArrayValue(values=[NUMBER, TEXT, AnyValue()])),
    "kvlist": AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="a", value=NUMBER), KeyValue(key="b")])),
    "null": AnyValue(string_value="null"),
    "list of null": AnyValue(string_value="[null]"),
    "list of an object": AnyValue(string_value='[{"path": "a", "status": "running", "elapsed": null, "idle": null}]'),
    "list of numbers": AnyValue(string_value='[["a", NaN, 1e999]]'),
    "object": AnyValue(string_value='{"a": null, "kind": null, "cost.USD": NaN, "x_tokens": "many"}'),
}
KEYS = sorted(
    {value for value in vars(s).values() if isinstance(value, str) and value.startswith("progress.")}
    - s.EVENTS
    - {s.PREFIX}
)
PLAIN: dict[str, Any] = {
    s.OPERATION_NAME: "job",
    s.STATUS: "running",
    s.START_TIME: 1.7e9,
    s.ELAPSED: 5.0,
    s.SLOW_AFTER: 100.0,
    s.IDLE: 1.0,
    s.STALL_AFTER: 30.0,
    s.ETA: 3.0,
    s.ETA_LOW: 2.0,
    s.ETA_HIGH: 4.0,
}
KINDS = (s.UPDATED, s.STALLED, s.WAIT_STARTED, s.NOTE, s.OPERATION_ENDED)


def value(given: Any) -> AnyValue:
    """Return an OTLP value."""
    if isinstance(given, AnyValue):
        return given
    if isinstance(given, str):
        return AnyValue(string_value=given)
    return AnyValue(int_value=given) if isinstance(given, int) else AnyValue(double_value=given)


def request(*saids: tuple[str, dict[str, Any]]) -> bytes:
    """Return a request with these events, by name and attributes."""
    now = clock.time_ns()
    records = [
        LogRecord(
            event_name=name,
            time_unix_nano=now,
            attributes=[KeyValue(key=key, value=value(given)) for key, given in said.items()],
        )
        for name, said in saids
    ]
    resource = Resource(attributes=[KeyValue(key="service.instance.id", value=value("p1"))])
    scope = ScopeLogs(scope=InstrumentationScope(name=s.SCOPE), log_records=records)
    groups = [ResourceLogs(resource=resource, scope_logs=[scope])]
    return ExportLogsServiceRequest(resource_logs=groups).SerializeToString()


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Parts]:
    """The state of a monitor."""
    with fake_time(), parts(tmp_path / "m.db") as found:
        yield found


def shown(monitor: Parts) -> dict[str, Any]:
    """Return every operation of the list, after reading its details and its history."""
    rows = {}
    for key, entry in monitor.core.ledger.operations.items():
        rows[key] = json.loads(monitor.views.row_text(entry))
        monitor.views.state(entry)
        monitor.views.detail(entry)
        monitor.core.ledger.search_text(entry)
    return rows


@pytest.mark.parametrize("kind", KINDS)
def test_no_value_of_any_attribute_takes_the_list_away(monitor: Parts, kind: str) -> None:
    """Whatever value an attribute has, its operation is shown with all its other attributes, also after a restart."""
    saids = [
        (kind, {s.SEQUENCE: 1, s.OPERATION_ID: f"{key} {name}", **PLAIN, key: odd})
        for key in KEYS
        for name, odd in ODD.items()
        if key not in (s.OPERATION_ID, s.OPERATION_NAME, s.STATUS)
    ]
    assert monitor.take(*(request(one) for one in saids))
    for _ in range(2):
        monitor.tick()
        while not monitor.core.loading.done:
            monitor.core.loading.step()
        rows = shown(monitor)
        assert len(rows) > 0.9 * len(saids)
        for key, row in rows.items():
            assert (row["name"], row["status"]) == ("job", "running"), key
            assert 0 <= row["elapsed"] <= 1e12, key
            assert not key.startswith(s.ELAPSED + " ") or row["idle"] >= 1, "the rest of it is kept"
            json.dumps(row, allow_nan=False)
        monitor.restart()


def test_a_row_that_cannot_be_shown_leaves_the_others(monitor: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list leaves out what can't be shown, counts it, and has all the rest."""
    said = {s.SEQUENCE: 1, **PLAIN}
    del said[s.IDLE]
    monitor.take(*(request((s.UPDATED, {**said, s.OPERATION_ID: key})) for key in ("good", "odd")))
    whole = type(monitor.views)._row

    def row(views: Any, entry: Any, seen: Any) -> Any:
        if entry.head.operation_id == "odd":
            raise TypeError
        return whole(views, entry, seen)

    monkeypatch.setattr(type(monitor.views), "_row", row)
    entries = list(monitor.core.ledger.operations.values())
    assert [key for key, _ in monitor.views.texts(entries)] == ["good"]
    assert list(monitor.views.unshown) == ["odd"]
    monkeypatch.undo()
    assert len(monitor.views.texts(entries)) == 2
    assert not monitor.views.unshown
