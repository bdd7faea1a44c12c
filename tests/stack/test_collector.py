"""The Collector that the tests use: sent data arrives, and our configurations keep their promises."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from . import build
from .collector import CONFIGS, LOCAL, Collector, CollectorError

if TYPE_CHECKING:
    from pathlib import Path

FORWARD = CONFIGS / "forward.yaml"

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
PARENT = "00f067aa0ba902b7"
RESOURCE = {"attributes": [{"key": "service.name", "value": {"stringValue": "smoke"}}]}
SCOPE = {"name": "tests.stack"}


def send(endpoint: str, signal: str, request: dict[str, Any]) -> None:
    """Send an OTLP/JSON request, and require that it is accepted."""
    connection = http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=10)
    try:
        connection.request("POST", f"/v1/{signal}", json.dumps(request), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
    finally:
        connection.close()


def send_log(endpoint: str, name: str, **more: Any) -> None:
    """Send one log event."""
    record = {"eventName": name, "timeUnixNano": "1700000000000000001", **more}
    scoped = {"scope": SCOPE, "logRecords": [record]}
    send(endpoint, "logs", {"resourceLogs": [{"resource": RESOURCE, "scopeLogs": [scoped]}]})


def names(collector: Collector) -> list[str]:
    """Return the names of the received log events."""
    return [log["event_name"] for log in collector.logs()]


def test_log_arrives(collector: Collector) -> None:
    """A log event arrives with its time, ids, resource, scope and attributes of every type."""
    attributes = {
        "text": {"stringValue": '{"resourceLogs":["ä\n'},
        "yes": {"boolValue": True},
        "big": {"intValue": str(2**63 - 1)},
        "share": {"doubleValue": 0.5},
        "raw": {"bytesValue": "AP8="},
        "list": {"arrayValue": {"values": [{"intValue": "1"}, {"stringValue": "two"}]}},
        "map": {"kvlistValue": {"values": [{"key": "a", "value": {"intValue": "0"}}]}},
        "nothing": {},
    }
    send_log(
        collector.http_endpoint,
        "progress.test",
        traceId=TRACE,
        spanId=SPAN,
        severityNumber=9,
        severityText="INFO",
        body={"stringValue": "hello"},
        attributes=[{"key": key, "value": value} for key, value in attributes.items()],
    )

    [log] = collector.wait_for(collector.logs)

    assert log == {
        "event_name": "progress.test",
        "time_unix_nano": 1_700_000_000_000_000_001,
        "observed_time_unix_nano": 0,
        "severity_number": 9,
        "severity_text": "INFO",
        "body": "hello",
        "attributes": {
            "text": '{"resourceLogs":["ä\n',
            "yes": True,
            "big": 2**63 - 1,
            "share": 0.5,
            "raw": b"\x00\xff",
            "list": [1, "two"],
            "map": {"a": 0},
            "nothing": None,
        },
        "trace_id": TRACE,
        "span_id": SPAN,
        "resource": {"service.name": "smoke"},
        "scope": "tests.stack",
    }


def test_span_arrives(collector: Collector) -> None:
    """A span arrives with its ids, times, kind, status, events and links."""
    attributes = [{"key": "n", "value": {"intValue": "3"}}]
    span = {
        "name": "load",
        "traceId": TRACE,
        "spanId": SPAN,
        "parentSpanId": PARENT,
        "startTimeUnixNano": "1000",
        "endTimeUnixNano": "2000",
        "kind": 1,
        "status": {"code": 2, "message": "broken"},
        "attributes": attributes,
        "events": [{"name": "started", "timeUnixNano": "1500", "attributes": attributes}],
        "links": [{"traceId": TRACE, "spanId": PARENT, "attributes": attributes}],
    }
    scoped = {"scope": SCOPE, "spans": [span, {"name": "bare", "traceId": TRACE, "spanId": SPAN}]}
    send(collector.http_endpoint, "traces", {"resourceSpans": [{"resource": RESOURCE, "scopeSpans": [scoped]}]})

    full, bare = collector.wait_for(collector.spans)

    assert full == {
        "name": "load",
        "trace_id": TRACE,
        "span_id": SPAN,
        "parent_span_id": PARENT,
        "start": 1000,
        "end": 2000,
        "kind": "internal",
        "status": "error",
        "status_message": "broken",
        "attributes": {"n": 3},
        "events": [{"name": "started", "time": 1500, "attributes": {"n": 3}}],
        "links": [{"trace_id": TRACE, "span_id": PARENT, "attributes": {"n": 3}}],
        "resource": {"service.name": "smoke"},
        "scope": "tests.stack",
    }
    assert (bare["parent_span_id"], bare["status"], bare["events"]) == ("", "unset", [])


def test_metrics_arrive(collector: Collector) -> None:
    """Gauges, sums and histograms arrive with value, unit, times, attributes and exemplars."""
    attributes = [{"key": "stage", "value": {"stringValue": "load"}}]
    point = {"startTimeUnixNano": "1000", "timeUnixNano": "2000", "attributes": attributes}
    exemplar = {"asDouble": 1.5, "timeUnixNano": "1500", "traceId": TRACE, "spanId": SPAN}
    counted = {"count": "2", "sum": 3.5, "explicitBounds": [1, 5], "bucketCounts": ["0", "2", "0"]}
    total = {"aggregationTemporality": 2, "isMonotonic": True, "dataPoints": [{**point, "asInt": "7"}]}
    spread = {"aggregationTemporality": 1, "dataPoints": [{**point, **counted, "exemplars": [exemplar]}]}
    metrics = [
        {"name": "idle", "unit": "s", "gauge": {"dataPoints": [{**point, "asDouble": 0.25}]}},
        {"name": "done", "unit": "{item}", "sum": total},
        {"name": "took", "unit": "s", "histogram": spread},
    ]
    scoped = {"scope": SCOPE, "metrics": metrics}
    send(
        collector.http_endpoint,
        "metrics",
        {"resourceMetrics": [{"resource": RESOURCE, "scopeMetrics": [scoped]}]},
    )

    gauge, total_point, histogram = collector.wait_for(collector.metric_points)

    assert gauge == {
        "name": "idle",
        "unit": "s",
        "kind": "gauge",
        "temporality": "",
        "monotonic": False,
        "value": 0.25,
        "count": None,
        "sum": None,
        "bounds": [],
        "buckets": [],
        "attributes": {"stage": "load"},
        "time": 2000,
        "start_time": 1000,
        "exemplars": [],
        "resource": {"service.name": "smoke"},
        "scope": "tests.stack",
    }
    assert (total_point["kind"], total_point["value"], total_point["monotonic"]) == ("sum", 7, True)
    assert total_point["temporality"] == "cumulative"
    assert (histogram["kind"], histogram["value"], histogram["temporality"]) == ("histogram", None, "delta")
    assert (histogram["count"], histogram["sum"]) == (2, 3.5)
    assert (histogram["bounds"], histogram["buckets"]) == ([1, 5], [0, 2, 0])
    assert histogram["exemplars"] == [
        {"value": 1.5, "time": 1500, "trace_id": TRACE, "span_id": SPAN, "attributes": {}}
    ]


def test_grpc_endpoint_speaks_http2(collector: Collector) -> None:
    """A server that speaks HTTP/2 listens on the gRPC endpoint."""
    address = urlsplit(collector.grpc_endpoint)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=10) as connection:
        connection.sendall(preface)
        frame = connection.recv(9, socket.MSG_WAITALL)
    settings_frame = 4
    assert frame[3] == settings_frame


def test_restart_keeps_what_arrived(collector: Collector) -> None:
    """After a restart on the same ports, old and new records are there."""
    endpoint = collector.http_endpoint
    send_log(endpoint, "before")
    collector.stop()
    assert names(collector) == ["before"]

    collector.start()
    send_log(collector.http_endpoint, "after")

    assert collector.http_endpoint == endpoint
    assert names(collector) == ["before", "after"]


def test_kill_loses_nothing_acknowledged(collector: Collector) -> None:
    """What the Collector has acknowledged is on disk, even if it is killed the next moment."""
    expected = [f"event-{number}" for number in range(50)]
    for name in expected:
        send_log(collector.http_endpoint, name)
    collector.kill()

    assert collector.pid is None
    assert names(collector) == expected


def test_half_written_line_is_left_out(collector: Collector) -> None:
    """A truncated line harms neither the lines before it nor those after it."""
    send_log(collector.http_endpoint, "before")
    collector.kill()
    [file] = collector.directory.rglob("logs.jsonl")
    whole = file.read_text()
    with file.open("a") as damaged:
        damaged.write(whole[: len(whole) // 2])
    assert names(collector) == ["before"]

    collector.start()
    send_log(collector.http_endpoint, "after")

    assert names(collector) == ["before", "after"]


def test_wait_for_says_what_arrived(collector: Collector) -> None:
    """A wait that fails ends in time, and reports how much arrived."""
    send_log(collector.http_endpoint, "only")
    started = time.monotonic()
    with pytest.raises(AssertionError, match=r"1 logs, 0 spans, 0 metric points"):
        collector.wait_for(lambda: len(collector.logs()) > 1, timeout=0.2)
    assert time.monotonic() - started < 5


def test_bad_configuration_is_reported(collector_binary: Path, tmp_path: Path) -> None:
    """A Collector that cannot start reports the reason at once."""
    forwarder = Collector(collector_binary, tmp_path, configs=[LOCAL, FORWARD], env={"OTEL_PROGRESS_FORWARD": ""})
    with pytest.raises(CollectorError, match="endpoint must be specified"):
        forwarder.start()


def test_forward_survives_outage_and_kill(collector_binary: Path, tmp_path: Path) -> None:
    """With forward.yaml, data from an outage of the other Collector arrives later, in spite of a kill."""
    backend = Collector(collector_binary, tmp_path / "backend")
    forwarder = Collector(
        collector_binary,
        tmp_path / "forwarder",
        configs=[LOCAL, FORWARD],
        env={"OTEL_PROGRESS_FORWARD": backend.http_endpoint},
    )
    expected = [f"event-{number}" for number in range(20)]
    with forwarder:
        for name in expected:
            send_log(forwarder.http_endpoint, name)
        forwarder.kill()
        forwarder.start()
        with backend:
            # An unfinished request is sent again, so an event may arrive twice, but none may be missing.
            backend.wait_for(lambda: set(names(backend)) >= set(expected))
        assert names(forwarder) == expected


def test_build_without_go_says_what_to_do(tmp_path: Path) -> None:
    """Without Go and without a binary the build exits with 3 and names the workaround."""
    done = subprocess.run(
        [sys.executable, str(build.__file__)],
        env={"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == build.EXIT_NO_GO
    assert "tools/install-go.sh" in done.stderr
