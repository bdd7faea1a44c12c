"""Jaeger and VictoriaLogs behind the real Collector: what arrives, and how an operation of a killed process looks."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from .backends import BackendError
from .collector import CONFIGS, Collector
from .needed import built
from .ports import free_ports
from .stores import Jaeger, JaegerSpan, VictoriaLogs
from .test_backends import attributes, record, spans
from .test_sdk import STATE, Run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .backends import Line

CONFIG = (CONFIGS / "single.yaml", CONFIGS / "jaeger-victorialogs.yaml")
WATCHED = Path(__file__).parents[1] / "stress" / "programs" / "watched.py"

pytestmark = [pytest.mark.timeout(360)]


@pytest.fixture
def jaeger(tmp_path: Path) -> Iterator[Jaeger]:
    """Return a running Jaeger."""
    with Jaeger(built("jaeger"), tmp_path / "jaeger") as running:
        yield running


@pytest.fixture
def victorialogs(tmp_path: Path) -> Iterator[VictoriaLogs]:
    """Return a running VictoriaLogs."""
    with VictoriaLogs(built("victorialogs"), tmp_path / "victorialogs") as running:
        yield running


class Stack(NamedTuple):
    """Both backends, and the Collector in front of them."""

    collector: Collector
    jaeger: Jaeger
    victorialogs: VictoriaLogs

    def events(self, operation: str) -> list[Line]:
        """Return the log events of an operation, oldest first."""
        return self.victorialogs.query(f'"progress.operation.id":="{operation}"')

    def names(self, operation: str) -> list[str]:
        """Return the names of the events of an operation that change its state."""
        return [name for line in self.events(operation) if (name := line.labels["event_name"]) in STATE]

    def trace(self, trace_id: str) -> dict[str, JaegerSpan]:
        """Return the spans of a trace, by name."""
        return {it.span.name: it for it in self.jaeger.trace(trace_id)}


@pytest.fixture
def stack(collector_binary: Path, jaeger: Jaeger, victorialogs: VictoriaLogs, tmp_path: Path) -> Iterator[Stack]:
    """Return the shipped configuration with both backends."""
    guard, [own] = free_ports(1)
    env = {
        "OTEL_PROGRESS_JAEGER": jaeger.otlp_endpoint,
        "OTEL_PROGRESS_VICTORIALOGS": victorialogs.otlp_endpoint,
        "OTEL_PROGRESS_SELF_PORT": str(own),
    }
    with guard, Collector(collector_binary, tmp_path / "collector", configs=CONFIG, env=env) as collector:
        yield Stack(collector, jaeger, victorialogs)


def test_operation_arrives(stack: Stack) -> None:
    """A running operation has its events and ended stages; at the end the whole trace, under the ids in its events."""
    with Run(stack.collector, "http/protobuf", "work", "op-1") as program:
        trace_id = program.line("ready")
        stack.jaeger.wait_for(lambda: set(stack.trace(trace_id)) == {"first"})
        stack.victorialogs.wait_for(lambda: len(stack.names("op-1")) == 4)
        assert stack.events("op-1")[-1].labels["progress.status"] == "running"
        program.end()
    stack.victorialogs.wait_for(lambda: stack.names("op-1")[-1:] == [STATE[3]])
    [started, *_, ended] = stack.events("op-1")
    assert ended.labels["progress.status"] == "completed"
    assert ended.labels["service.name"] == "stack"
    assert started.labels["trace_id"] == trace_id
    found = stack.jaeger.wait_for(lambda: "work" in (spans := stack.trace(trace_id)) and spans)
    assert isinstance(found, dict)
    root = found["work"]
    assert root.span.span_id == ended.labels["span_id"]
    assert {it.span.parent_span_id for name, it in found.items() if name != "work"} == {root.span.span_id}
    assert root.span.attributes["progress.operation.id"] == "op-1"
    assert root.span.attributes["color"] == "blue"
    assert "progress.note" in found["first"].span.events
    assert [it.warnings for it in found.values()] == [[], [], []]


def test_operation_is_found_by_its_attributes(stack: Stack) -> None:
    """Jaeger finds a running operation by the id on its ended stages; VictoriaLogs has one stream for the service."""
    with Run(stack.collector, "http/protobuf", "work", "op-1") as program:
        program.line("ready")
        [[stage]] = stack.jaeger.wait_for(lambda: stack.jaeger.search("stack", progress__operation__id="op-1"))
        assert stage.span.name == "first"
        assert stack.jaeger.search("stack", progress__operation__id="other") == []
        [line, *more] = stack.victorialogs.wait_for(lambda: stack.victorialogs.query('{"service.name"="stack"}'))
        assert {it.labels["_stream"] for it in (line, *more)} == {'{service.name="stack"}'}
        program.end()


def test_killed_operation(stack: Stack) -> None:
    """Of a killed process Jaeger has the ended stages without a root, VictoriaLogs everything reported until then."""
    with Run(stack.collector, "http/protobuf", "work", "victim") as program:
        trace_id = program.line("ready")
        program.tell("fetch the last page")
        program.line("said")
        stack.victorialogs.wait_for(lambda: len(stack.names("victim")) == 6)
        stack.jaeger.wait_for(lambda: set(stack.trace(trace_id)) == {"first", "fetch"})
        program.process.kill()
        program.process.wait()
    assert stack.names("victim") == [STATE[0], *(STATE[1], STATE[2]), STATE[1], *(STATE[1], STATE[2])]
    found = stack.trace(trace_id)
    assert set(found) == {"first", "fetch"}
    assert all(any("invalid parent" in text for text in it.warnings) for it in found.values()), found
    told = [it.labels for it in stack.events("victim")]
    assert told[-1]["progress.status"] == "running"
    counts = [it["progress.completed"] for it in told if "progress.completed" in it]  # deltas say what changed
    assert counts[-1] == "1"


def test_killed_operation_with_a_certificate(stack: Stack) -> None:
    """Under `otel-progress run` the trace of a killed command is complete, each span once, and its end is `lost`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    env = {**kept, "OTEL_EXPORTER_OTLP_ENDPOINT": stack.collector.http_endpoint, "OTEL_SERVICE_NAME": "watched"}
    command = [sys.executable, "-m", "otel_progress.cli", "run", "--", sys.executable, str(WATCHED), "killed"]
    done = subprocess.run(command, env=env, input="signal9\n", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 137, done.stderr
    lost = '"progress.status":="lost" event_name:="progress.operation.ended"'
    [end] = stack.victorialogs.wait_for(lambda: stack.victorialogs.query(lost))
    trace_id = end.labels["trace_id"]
    stack.jaeger.wait_for(lambda: {"train", "outer", "inner"} <= stack.trace(trace_id).keys())
    every = stack.jaeger.trace(trace_id)
    assert len({it.span.span_id for it in every}) == len(every)
    assert [it.warnings for it in every] == [[] for _ in every]
    broken = {it.span.name for it in every if it.span.status == "ERROR"}
    assert broken == {"train", "outer", "inner"}
    root = stack.trace(trace_id)["train"].span
    assert root.parent_span_id == ""
    assert root.span_id == end.labels["span_id"]


def test_outage_of_both_stores(stack: Stack) -> None:
    """Data from an outage of both waits in the Collector, and is complete when they are back."""
    with Run(stack.collector, "http/protobuf", "work", "op-1") as program:
        trace_id = program.line("ready")
        stack.victorialogs.wait_for(lambda: len(stack.names("op-1")) == 4)
        for store in (stack.jaeger, stack.victorialogs):
            store.stop()
        said = [f"say-{number}" for number in range(5)]
        for word in said:
            program.tell(word)
            program.line("said")
        program.end()
        for store in (stack.jaeger, stack.victorialogs):
            store.start()
    stack.victorialogs.wait_for(lambda: stack.names("op-1")[-1:] == [STATE[3]], 60)
    stack.jaeger.wait_for(lambda: stack.trace(trace_id).keys() == {"work", "first", "second", *said}, 60)
    ended = [it.labels["progress.stage.name"] for it in stack.events("op-1") if it.labels["event_name"] == STATE[2]]
    assert sorted(ended) == sorted(["first", "second", *said])


# -- the stores themselves


def test_jaeger_keeps_what_it_took(jaeger: Jaeger) -> None:
    """An acknowledged span survives SIGKILL and a restart at the same address, with all its data."""
    trace_id = secrets.token_hex(16)
    assert jaeger.trace(trace_id) == []
    jaeger.send(spans(trace_id, "import", "fetch", progress__operation__id="op-1"))
    jaeger.wait_for(lambda: len(jaeger.trace(trace_id)) == 2)
    endpoint = jaeger.endpoint
    jaeger.kill()
    jaeger.start()
    assert jaeger.endpoint == endpoint
    found = {it.span.name: it.span for it in jaeger.wait_for(lambda: jaeger.trace(trace_id))}
    assert found["fetch"].attributes["progress.operation.id"] == "op-1"
    assert found["fetch"].resource["service.name"] == "shop"
    assert found["fetch"].parent_span_id == found["import"].span_id
    assert (found["fetch"].events, found["fetch"].status) == (["progress.note"], "ERROR")


def test_jaeger_is_open_to_this_machine_alone(jaeger: Jaeger) -> None:
    """With our configuration Jaeger binds every port to the loopback address."""
    assert jaeger.pid is not None
    assert listening(jaeger.pid) == {"127.0.0.1"}


def test_victorialogs_keeps_what_it_took(victorialogs: VictoriaLogs) -> None:
    """A record with its event name, its ids and its attributes under their own names survives SIGKILL."""
    now = time.time()
    names: dict[str, Any] = {"progress__operation__name": "import", "progress__ratio": 0.5}
    more = {"body": {"stringValue": "import: started"}, "traceId": "0af7651916cd43dd8448eb211c80319c"}
    victorialogs.send(record("progress.operation.started", now, attributes=attributes(**names), **more))
    query = 'event_name:="progress.operation.started" "progress.ratio":>0.2'
    victorialogs.wait_for(lambda: victorialogs.query(query))
    victorialogs.wait_for(victorialogs.written)
    victorialogs.kill()
    victorialogs.start()
    [line] = victorialogs.wait_for(lambda: victorialogs.query(query))
    assert (line.time, line.text) == (int(now * 1e9), "import: started")
    assert line.labels["progress.operation.name"] == "import"
    assert line.labels["trace_id"] == more["traceId"]
    assert line.labels["service.instance.id"] == "one"
    assert line.labels["_stream"] == '{service.name="shop"}'


def test_bad_configuration_is_reported(tmp_path: Path) -> None:
    """The error has Jaeger's output."""
    config = tmp_path / "bad.yaml"
    config.write_text("no_such_key: 1\n", encoding="utf-8")
    jaeger = Jaeger(built("jaeger"), tmp_path / "bad", config=config)
    with pytest.raises(BackendError, match="no_such_key"):
        jaeger.start()
    assert jaeger.pid is None


def test_query_that_is_wrong_is_an_error(victorialogs: VictoriaLogs) -> None:
    """A query that does not parse fails with the server's message."""
    with pytest.raises(BackendError, match=r"answered 400 .*pars"):
        victorialogs.query("{ no")


def listening(pid: int) -> set[str]:
    """Return the addresses on which a process listens."""
    sockets = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            sockets.add(str(entry.readlink()))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text(encoding="utf-8").splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and f"socket:[{columns[9]}]" in sockets:
                raw = columns[1].partition(":")[0]
                four = len(raw) == 8
                found.add(".".join(str(int(raw[at : at + 2], 16)) for at in (6, 4, 2, 0)) if four else raw)
    return found
