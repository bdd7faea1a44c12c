"""The SDK and the real Collector: what arrives while the work runs, after a kill, and across an outage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from otel_progress.model.deltas import merge

from .build import OLDEST
from .needed import built

if TYPE_CHECKING:
    from typing_extensions import Self

    from .collector import Collector

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("sdk_program.py")
PROTOCOLS = ("http/protobuf", "grpc")
STATE = ("progress.operation.started", "progress.stage.started", "progress.stage.ended", "progress.operation.ended")


class Run:
    """The running program."""

    def __init__(self, collector: Collector, protocol: str, *args: str, python: Path | str = sys.executable) -> None:
        """Start it with a Collector."""
        endpoint = collector.grpc_endpoint if protocol == "grpc" else collector.http_endpoint
        kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
        env = {
            **kept,
            "OTEL_SERVICE_NAME": "stack",
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
            "OTEL_PROGRESS_RUN_SERIES_AFTER": "0.5",
            "OTEL_PROGRESS_HEARTBEAT": "1",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "PYTHONPATH": str(ROOT / "src"),
        }
        self.process = subprocess.Popen(
            [str(python), str(PROGRAM), *args], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def line(self, word: str) -> str:
        """Return the rest of its next line, which begins with this word."""
        assert self.process.stdout is not None
        first, _, rest = self.process.stdout.readline().strip().partition(" ")
        assert first == word, f"it said {first} {rest}"
        return rest

    def tell(self, line: str) -> None:
        """Write it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """Let it end, and wait."""
        self.tell("end")
        self.line("ended")
        assert self.process.wait(10) == 0


def events(collector: Collector, operation: str) -> list[dict[str, Any]]:
    """Return the log events of an operation, in order."""
    found = [log for log in collector.logs() if log["attributes"].get("progress.operation.id") == operation]
    return sorted(found, key=lambda log: log["attributes"]["progress.sequence"])  # type: ignore[arg-type]


def last(collector: Collector, operation: str) -> dict[str, Any]:
    """Return the newest state of an operation: its newest event, merged with the keyframe that it names."""
    found = [log["attributes"] for log in events(collector, operation)]
    if not found:
        return {}
    newest = found[-1]
    named = newest.get("progress.keyframe")
    keyframe: dict[str, Any] = next((one for one in found if one["progress.sequence"] == named), {})
    return merge(keyframe, newest) if named is not None else newest


def points(collector: Collector, metric: str, **labels: str) -> list[Any]:
    """Return the points of a metric with these labels; `operation_id` means `progress.operation.id`."""
    wanted = {f"progress.{key.replace('_', '.')}": value for key, value in labels.items()}
    return [
        point
        for point in collector.metric_points()
        if point["name"] == metric and wanted.items() <= point["attributes"].items()
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_all_signals_arrive_while_the_work_runs(collector: Collector, protocol: str) -> None:
    """Log events, spans of ended stages, run series and metrics by name are at the Collector before the work ends."""
    with Run(collector, protocol, "work", "op-1") as program:
        trace = program.line("ready")
        collector.wait_for(lambda: points(collector, "progress.run.idle", operation_id="op-1"))
        collector.wait_for(lambda: points(collector, "progress.operation.active"))
        collector.wait_for(lambda: [span for span in collector.spans() if span["name"] == "first"])
        collector.wait_for(lambda: last(collector, "op-1").get("progress.stage.current") == "second")
        assert program.process.poll() is None, "the work has ended before its signals arrived"
        assert [log["event_name"] for log in events(collector, "op-1") if log["event_name"] in STATE] == [
            *STATE[:3],
            STATE[1],
        ]
        started = events(collector, "op-1")[0]
        assert started["trace_id"] == trace
        assert started["attributes"]["progress.operation.name"] == "work"
        assert started["attributes"]["progress.operation.attempt"] == 1
        [first] = collector.spans()
        assert (first["trace_id"], first["parent_span_id"]) == (trace, started["span_id"])
        assert first["attributes"]["progress.operation.id"] == "op-1"
        [active] = {point["value"] for point in points(collector, "progress.run.active", operation_id="op-1")}
        assert active == 1
        assert points(collector, "progress.run.stall_after", operation_id="op-1")[0]["value"] == 60
        beats = collector.wait_for(
            lambda: [log for log in collector.logs() if log["event_name"] == "progress.process.heartbeat"]
        )
        assert beats[-1]["attributes"]["progress.process.in_flight"] == 1
        program.end()
    check_ended(collector, "op-1", trace)


def check_ended(collector: Collector, operation: str, trace: str) -> None:
    """The trace is complete, the end is reported, the run series are 0, and histograms have exemplars of the trace."""
    assert last(collector, operation)["progress.status"] == "completed"
    assert points(collector, "progress.run.active", operation_id=operation)[-1]["value"] == 0
    spans = {span["name"]: span for span in collector.spans()}
    assert spans.keys() == {"work", "first", "second"}
    root = spans["work"]
    assert root["parent_span_id"] == ""
    assert {span["trace_id"] for span in spans.values()} == {trace}
    assert {span["parent_span_id"] for span in spans.values()} == {"", root["span_id"]}
    assert root["attributes"]["color"] == "blue"
    names = [event["name"] for event in root["events"]]
    assert names.count("progress.stage.started") == names.count("progress.stage.ended") == 2
    assert len({item["resource"]["service.instance.id"] for item in (*collector.logs(), *collector.spans())}) == 1
    [duration] = points(collector, "progress.operation.duration")[-1:]
    assert duration["count"] == 1
    assert [exemplar["span_id"] for exemplar in duration["exemplars"]] == [root["span_id"]]
    stages = {
        exemplar["span_id"] for point in points(collector, "progress.stage.duration") for exemplar in point["exemplars"]
    }
    assert stages == {spans["first"]["span_id"], spans["second"]["span_id"]}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_killed_operation_is_found_with_all_but_its_last_second(collector: Collector, protocol: str) -> None:
    """After SIGKILL the last snapshot has everything reported up to 1 s before, even without any span."""
    with Run(collector, protocol, "work", "victim") as program:
        program.line("ready")
        said: list[float] = []
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            program.tell(f"say-{len(said)} to everyone")
            said.append(float(program.line("said")))
            time.sleep(0.05)
        killed = time.monotonic()
        program.process.send_signal(signal.SIGKILL)
        assert program.process.wait(10) == -signal.SIGKILL
    count = sum(moment <= killed - 1.0 for moment in said)
    assert count > 10
    known = last(collector, "victim")
    assert known["progress.completed"] >= count
    assert int(known["progress.message"].split()[0].removeprefix("say-")) >= count - 1
    stages = {
        log["attributes"]["progress.stage.name"] for log in events(collector, "victim") if log["event_name"] == STATE[2]
    }
    assert stages >= {f"say-{number}" for number in range(count)}
    assert known["progress.status"] == "running"
    assert "work" not in {span["name"] for span in collector.spans()}
    assert known["progress.span.start_time"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_state_change_is_lost_or_doubled_when_the_collector_restarts(collector: Collector, protocol: str) -> None:
    """The Collector is stopped and started meanwhile: each change of state arrives once."""
    with Run(collector, protocol, "work", "op-1") as program:
        program.line("ready")
        collector.wait_for(lambda: last(collector, "op-1").get("progress.stage.current") == "second")
        collector.stop()
        for number in range(20):
            program.tell(f"say-{number} while it is away")
            program.line("said")
        time.sleep(0.6)
        collector.start()
        collector.wait_for(lambda: last(collector, "op-1").get("progress.completed") == 20)
        program.end()
    found = events(collector, "op-1")
    sequences = Counter(log["attributes"]["progress.sequence"] for log in found)
    assert max(sequences.values()) == 1
    told = Counter(log["attributes"]["progress.stage.name"] for log in found if log["event_name"] == STATE[2])
    assert told == Counter(["first", "second", *(f"say-{number}" for number in range(20))])
    assert [log["event_name"] for log in found if log["event_name"] in (STATE[0], STATE[3])] == [STATE[0], STATE[3]]
    assert Counter(span["name"] for span in collector.spans()) == told + Counter(["work"])


@pytest.fixture(params=["oldest", "newest"])
def python(request: pytest.FixtureRequest) -> Path:
    """Return an interpreter with the oldest supported packages, and our own."""
    return built(OLDEST) if request.param == "oldest" else Path(sys.executable)


def test_live_operation_is_visible_after_3000_others(collector: Collector, python: Path) -> None:
    """With 3,000 consecutive operation ids the live one keeps its series, and no id is merged or omitted."""
    with Run(collector, "http/protobuf", "many", "3000", python=python) as program:
        done = int(program.line("ready"))

        def seen() -> list[Any]:
            return [
                point for point in points(collector, "progress.run.idle", operation_id="live") if point["time"] > done
            ]

        collector.wait_for(lambda: len(seen()) >= 2)
        assert not any("otel.metric.overflow" in point["attributes"] for point in collector.metric_points())
        program.end()
    started = {log["attributes"]["progress.operation.id"] for log in collector.logs() if log["event_name"] == STATE[0]}
    ended = {log["attributes"]["progress.operation.id"] for log in collector.logs() if log["event_name"] == STATE[3]}
    assert started == ended == {"live", *(f"short-{number}" for number in range(3000))}
    asked = [str(python), "-c", "from importlib.metadata import version; print(version('opentelemetry-sdk'))"]
    version = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    assert {log["resource"]["telemetry.sdk.version"] for log in collector.logs()} == {version}
    assert points(collector, "progress.operation.started", operation_name="short")[-1]["value"] == 3000


def test_survey_is_one_whole_trace(collector: Collector) -> None:
    """The survey of examples/ on real input: every parent span arrived, and one trace has them all."""
    env = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.http_endpoint, "OTEL_SERVICE_NAME": "survey"}
    survey = [sys.executable, str(ROOT / "examples" / "survey.py"), "--limit", "40", "--otlp"]
    done = subprocess.run(survey, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    spans = collector.spans()
    ids = {span["span_id"] for span in spans}
    assert len({span["trace_id"] for span in spans}) == 1
    assert [span["name"] for span in spans if span["parent_span_id"] not in ids] == ["survey"]
    assert {"discover", "parse", "tokenize", "relate", "report"} <= {span["name"] for span in spans}
    operations = {log["attributes"].get("progress.operation.id") for log in collector.logs()} - {None}
    ended = {log["attributes"]["progress.operation.id"] for log in collector.logs() if log["event_name"] == STATE[3]}
    assert operations == ended
