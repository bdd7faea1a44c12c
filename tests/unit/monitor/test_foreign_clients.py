"""Recorded requests of real programs without our SDK, and what a monitor must show of them.

The recordings were made by real exporters; names and paths of their machine were replaced. The clocks are moved to that
of the test.
"""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from monitor_parts import WALL, Parts, event_of, fake_time, names, open_in, parts, request_of, seconds

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Status
from otel_progress.monitor.intake.messages import REQUESTS
from otel_progress.monitor.intake.requests import Accepted
from otel_progress.testing import FakeClock

RECORDED = Path(__file__).parent / "recorded"
TIMES = ("startTimeUnixNano", "endTimeUnixNano", "timeUnixNano", "observedTimeUnixNano")
Request = tuple[str, dict[str, Any]]
"""Signal and message."""


def recorded(name: str, now: float = WALL) -> list[Request]:
    """The requests of a program, as if it had begun now."""
    found = [(one["signal"], one["message"]) for one in json.loads((RECORDED / f"{name}.json").read_text())["requests"]]
    first = min(int(text) for text in times(found))
    return [moved(one, round(now * 1e9) - first) for one in found]


def times(given: Any) -> Iterator[str]:
    """All times in requests that are set."""
    if isinstance(given, dict):
        yield from (text for key, text in given.items() if key in TIMES and int(text))
        given = list(given.values())
    if isinstance(given, (list, tuple)):
        for one in given:
            yield from times(one)


def moved(one: Any, ns: int) -> Any:
    """The same, that many ns later."""
    if isinstance(one, dict):
        found = {key: moved(item, ns) for key, item in one.items()}
        found |= {key: str(int(text) + ns) for key, text in one.items() if key in TIMES and int(text)}
        if found.get("key") == s.START_TIME:
            found["value"] = {"doubleValue": float(one["value"]["doubleValue"]) + ns / 1e9}
        return found
    return (
        [moved(item, ns) for item in one]
        if isinstance(one, list)
        else ((one[0], moved(one[1], ns)) if isinstance(one, tuple) else one)
    )


def send(monitor: Parts, *requests: Request) -> None:
    """Deliver requests one by one; each is accepted as a whole."""
    for signal, message in requests:
        body = json_format.ParseDict(message, REQUESTS[signal]()).SerializeToString()
        assert monitor.take(body, signal=signal) == [Accepted()], (signal, message)


def only(monitor: Parts) -> dict[str, Any]:
    """The row of the only operation."""
    (key,) = monitor.core.ledger.operations
    return monitor.row(key)


SDKS = {
    "go-sdk": ("import", "go-import", "completed", ["read", "convert", "write"]),
    "node-sdk": ("agent run", "node-agent", "completed", ["chat", "chat"]),
    "python-instrument": ("nightly", "nightly", "completed", ["GET", "GET"]),
}


@pytest.mark.parametrize("name", SDKS)
def test_sdk_of_another_language(monitor: Parts, name: str) -> None:
    """One operation for the trace, with the name, the service and the start of its root, live before that ends."""
    title, service, status, stages = SDKS[name]
    requests = recorded(name)
    send(monitor, requests[0])
    row = only(monitor)
    assert (row["name"], row["status"]) == (service, "running")
    send(monitor, *requests)
    row = only(monitor)
    assert (row["name"], row["service"], row["status"]) == (title, service, status)
    assert row["started_at"] == pytest.approx(WALL, abs=0.01)
    entry = monitor.core.ledger.find(row["id"])
    assert entry is not None
    assert [stage.path for stage in entry.snapshot.stages] == stages
    assert monitor.core.mistakes.health() == {}


def test_open_inference_tokens_of_the_javascript_sdk(monitor: Parts) -> None:
    """The calls have 15 + 15 and 2 + 3; the agent that sums them up adds nothing."""
    send(monitor, *recorded("node-sdk"))
    assert only(monitor)["tokens"] == {"input": 30, "output": 5}


@settings(max_examples=25)
@given(st.data(), st.sampled_from([*SDKS, "node-fetch", "collector"]))
def test_any_order_and_doubles_end_the_same(data: st.DataObject, name: str) -> None:
    """Exporters retry, and proxies reorder: the same single operation, ended once."""
    from tempfile import TemporaryDirectory

    requests = recorded(name)
    order = data.draw(st.permutations([*requests, *requests]))
    with fake_time(), TemporaryDirectory() as folder, parts(Path(folder) / "m.db") as monitor:
        send(monitor, *order)
        assert only(monitor)["status"] == "completed"
        (key,) = monitor.core.ledger.operations
        assert names(monitor.history(key)).count(s.OPERATION_ENDED) == 1
        assert open_in(monitor.store) == []


@pytest.mark.parametrize("name", ["node-fetch", "collector"])
def test_emitter_of_log_events(monitor: Parts, name: str) -> None:
    """Directly and through a Collector that batches: the counts, the stage, the end, and no mistakes."""
    send(monitor, *recorded(name))
    row = only(monitor)
    assert (row["id"], row["name"], row["status"], row["host"]) == ("import-7", "import", "completed", "host-1")
    assert (row["progress"]["completed"], row["progress"]["total"]) == (4, 4)
    assert monitor.core.mistakes.health() == {}


def test_requests_of_node_have_the_header_that_browsers_share() -> None:
    """What made the monitor refuse them is in the recording, so that it is not forgotten."""
    found = json.loads((RECORDED / "node-fetch.json").read_text())["requests"]
    assert {one["headers"]["sec-fetch-mode"] for one in found} == {"cors"}


@pytest.mark.parametrize("name", ["node-fetch", "collector"])
def test_emitter_that_hangs_behind_a_collector(monitor: Parts, fake: FakeClock, name: str) -> None:
    """Without its end it is stuck after its limit; heartbeats that go on are no progress, but no death either."""
    requests = recorded(name)
    text = json.dumps(requests)
    assert s.OPERATION_ENDED in text
    send(monitor, *[without(one, s.OPERATION_ENDED) for one in requests])
    beat = without(requests[0], s.OPERATION_STARTED, s.UPDATED, s.OPERATION_ENDED)
    for _ in range(4):
        seconds(fake, monitor, 1)
        send(monitor, beat)
    assert monitor.health("import-7") == "stuck"


def without(one: Request, *events: str) -> Request:
    """The request without these events."""
    signal, message = copy.deepcopy(one)
    for resource in message["resourceLogs"]:
        for scope in resource["scopeLogs"]:
            scope["logRecords"] = [record for record in scope["logRecords"] if record["eventName"] not in events]
    return signal, message


@pytest.mark.parametrize("skew", [-7200.0, 7200.0, -86_400.0])
@pytest.mark.parametrize("name", [*SDKS, "node-fetch"])
def test_clock_of_the_program_is_hours_off(monitor: Parts, fake: FakeClock, name: str, skew: float) -> None:
    """Nothing is dead, stuck or lost for it, and it ends."""
    seconds(fake, monitor, 4)  # before that, a monitor knows nothing of a process with heartbeats
    requests = recorded(name, WALL + skew)
    send(monitor, *requests[:-1])
    monitor.tick()
    label = only(monitor)
    assert label["status"] == "running"
    assert label["verdict"]["health"] == "progressing"
    send(monitor, requests[-1])
    assert only(monitor)["status"] == "completed"


def test_two_services_with_operations_of_one_name(monitor: Parts) -> None:
    """Each has its own row and its own service; ids decide, not names."""
    one, other = recorded("node-fetch"), recorded("node-fetch")
    text = json.dumps(other).replace("import-7", "import-8").replace("node-4711", "node-9").replace("-emitter", "-two")
    send(monitor, *one[:3])
    send(monitor, *[(signal, message) for signal, message in json.loads(text)])
    rows = {key: monitor.row(key) for key in monitor.core.ledger.operations}
    assert {key: (row["name"], row["service"], row["status"]) for key, row in rows.items()} == {
        "import-7": ("import", "node-emitter", "running"),
        "import-8": ("import", "node-two", "completed"),
    }


def test_batch_after_an_outage(monitor: Parts, fake: FakeClock) -> None:
    """Everything an hour late and in one turn: it has ended, and nothing was ever in trouble."""
    recorder = monitor.listen()
    requests = [*recorded("node-fetch"), *recorded("go-sdk")]
    fake.sleep(3600)
    monitor.tick()
    send(monitor, *requests)
    seconds(fake, monitor, 3)
    assert {entry.head.status for entry in monitor.core.ledger.operations.values()} == {Status.COMPLETED}
    assert recorder.kinds == []


def test_traces_of_telemetrygen(monitor: Parts) -> None:
    """Many tiny traces of one service without an instance id, children before their roots: each ended once."""
    send(monitor, *recorded("telemetrygen"), *recorded("telemetrygen"))
    rows = [monitor.row(key) for key in monitor.core.ledger.operations]
    assert [(row["name"], row["service"], row["status"]) for row in rows] == [
        ("lets-go", "telemetrygen", "completed")
    ] * 5
    assert monitor.core.labels == {}


def spans(one: Request) -> list[dict[str, Any]]:
    """The spans of a request."""
    return [span for resource in one[1]["resourceSpans"] for scope in resource["scopeSpans"] for span in scope["spans"]]


def test_foreign_caller_of_our_operation(monitor: Parts) -> None:
    """A Go program whose trace our operation continues: our operation is shown, not its trace beside it."""
    requests = recorded("go-sdk")
    trace = base64.b64decode(spans(requests[0])[0]["traceId"]).hex()
    send(monitor, requests[0])
    ours = Snapshot("ours", "work", Status.RUNNING, clock.unix(), sequence=1, started_at=clock.unix())
    monitor.take(request_of(event_of(ours, s.OPERATION_STARTED, trace), instance="py"))
    send(monitor, *requests[1:])
    assert list(monitor.core.ledger.operations) == ["ours"]
