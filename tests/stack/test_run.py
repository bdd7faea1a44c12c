"""`run` in front of a real Collector: its death certificate arrives as any other telemetry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .backends import CONFIG, Prometheus
from .needed import built

if TYPE_CHECKING:
    from .collector import Collector
    from .otlp_json import Span

KILLED = "killed by SIGKILL"
PROGRAM = Path(__file__).parents[1] / "stress" / "programs" / "watched.py"


@pytest.mark.stack
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_certificate_arrives(collector: Collector, protocol: str) -> None:
    """A killed command leaves a complete trace at the Collector: its root is lost, and each span has its parent."""
    endpoint = collector.http_endpoint if protocol == "http/protobuf" else collector.grpc_endpoint
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    env = {**kept, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    command = [sys.executable, "-m", "otel_progress.cli", "run", "--", sys.executable, str(PROGRAM), "killed"]
    done = subprocess.run(command, env=env, input="signal9\n", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 137, done.stderr

    (end,) = collector.wait_for(
        lambda: [log for log in collector.logs() if log["attributes"].get("progress.status") == "lost"]
    )
    spans = collector.wait_for(lambda: _trace(collector, end["trace_id"]))

    assert end["event_name"] == "progress.operation.ended"
    assert end["severity_text"] == "ERROR"
    ids = {span["span_id"] for span in spans}
    assert [span["name"] for span in spans if span["parent_span_id"] not in ids] == ["train"]
    assert sorted(span["name"] for span in spans if span["status"] == "error") == ["inner", "outer", "train"]
    assert {span["resource"]["service.instance.id"] for span in spans} == {end["resource"]["service.instance.id"]}
    instance, id_ = str(end["resource"]["service.instance.id"]), end["attributes"]["progress.operation.id"]
    (lost,) = collector.wait_for(lambda: [one for one in _points(collector, instance) if one[0] == "progress.run.lost"])
    assert lost[1] == {"progress.operation.name": "train", "progress.operation.id": id_, "progress.exit": KILLED}
    counted = [one[2] for one in _points(collector, instance) if one[1].get("progress.status") == "lost"]
    assert (counted[0], counted[-1]) == (0, 1)
    assert [one[2] for one in _points(collector, instance) if one[0] == "progress.run.active"][-1] == 0


@pytest.mark.stack
def test_prometheus_hears_of_the_kill(tmp_path: Path) -> None:
    """A kill is known to Prometheus as soon as `run` has ended, with its cause, and it is an increase of the lost."""
    prometheus = Prometheus(built("prometheus"), tmp_path / "prometheus", config=CONFIG / "prometheus.yaml")
    with prometheus:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
        env = {**kept, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{prometheus.otlp_endpoint}/v1/metrics"}
        command = [sys.executable, "-m", "otel_progress.cli", "run", "--", sys.executable, str(PROGRAM), "killed"]
        done = subprocess.run(
            command, env=env, input="signal9\n", capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 137, done.stderr
        (lost,) = prometheus.query("progress_run_lost_seconds")
        assert lost.labels["progress_exit"] == KILLED
        (rise,) = prometheus.query('increase(progress_operation_ended_total{progress_status="lost"}[5m])')
        assert rise.values[0][1] >= 1
        assert [one.values[0][1] for one in prometheus.query("progress_run_active")] == [0]
        assert prometheus.query("progress_operation_active > 0") == []


def _trace(collector: Collector, trace_id: str) -> list[Span]:
    """Return the spans of a trace that includes its root."""
    spans = [span for span in collector.spans() if span["trace_id"] == trace_id]
    return spans if any(span["name"] == "train" for span in spans) else []


def _points(collector: Collector, instance: str) -> list[tuple[str, dict[str, object], float]]:
    """Return the points of a process, in order: name, labels, value."""
    found = [point for point in collector.metric_points() if point["resource"]["service.instance.id"] == instance]
    return [
        (point["name"], dict(point["attributes"]), point["value"] or 0)
        for point in sorted(found, key=lambda point: point["time"])
    ]
