"""The outage drill: each program goes away while a real program works, and everything that arrives is counted."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .alert_demo import demo
from .backends import CONFIG, Prometheus
from .collector import LOCAL, Collector
from .drill import (
    EACH,
    ENDED,
    PATIENCE,
    STARTED,
    Drill,
    Single,
    arrived,
    counted,
    distinct,
    doubles,
    dropped,
    overlay,
    spans_arrived,
    spans_of,
    whole,
)
from .needed import built

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ACCEPTED = "otelcol_receiver_accepted_log_records_total"
PROTOCOLS = ("http/protobuf", "grpc")
FAST = """
exporters:
  otlp_http/tempo: {retry_on_failure: &retry {initial_interval: 20ms, max_interval: 300ms%s}}
  otlp_http/prometheus: {retry_on_failure: *retry}
  otlp_http/loki: {retry_on_failure: *retry}
service: {telemetry: {logs: {sampling: {enabled: false}}}}
"""
"""A hundredth of the Collector's retry intervals."""
RETRY, RETRIES = "Will retry the request", 25
"""This many operations, 300 ms apart, take longer than 6 s, a hundredth of 10 minutes."""
GIVES_UP = ", max_elapsed_time: 3s"
"""A hundredth of the 300 s after which the Collector gives up by default."""

pytestmark = [pytest.mark.timeout(360)]


def to(**backends: Collector) -> dict[str, str]:
    """The destinations of the signals."""
    return {name: backend.http_endpoint for name, backend in backends.items()}


@pytest.fixture
def backend(collector_binary: Path, tmp_path: Path) -> Iterator[Collector]:
    """A receiver that stores logs and metrics as they arrive."""
    with Collector(collector_binary, tmp_path / "backend") as running:
        yield running


@pytest.fixture
def traces(collector_binary: Path, tmp_path: Path) -> Iterator[Collector]:
    """A receiver of traces."""
    with Collector(collector_binary, tmp_path / "traces") as running:
        yield running


def all_spans(ids: set[str]) -> Counter[tuple[str, str]]:
    """Return the spans of these operations, once each."""
    return Counter((operation, name) for operation in ids for name in ("drill", "only"))


def hold(program: Drill, single: Single, prefix: str) -> set[str]:
    """Run 50 operations, and wait until the Collector has acknowledged all their data."""
    enough = single.figure(ACCEPTED) + 50 * len(EACH)
    ids = program.do(prefix, 50)
    single.wait_for(lambda: single.figure(ACCEPTED) >= enough, PATIENCE)
    return ids


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_collector_killed(collector_binary: Path, backend: Collector, tmp_path: Path, protocol: str) -> None:
    """The Collector is killed twice with a full queue: every event and span arrives, and afterwards once."""
    single = Single(
        collector_binary,
        tmp_path / "single",
        to(TEMPO=backend, PROMETHEUS=backend, LOKI=backend),
        overlay(tmp_path / "fast.yaml", FAST % ""),
    )
    with single:
        endpoint = single.grpc_endpoint if protocol == "grpc" else single.http_endpoint
        with Drill(endpoint, protocol) as program:
            ids = program.do("before", 50)
            for number in range(2):
                backend.stop()
                ids |= hold(program, single, f"held-{number}")
                single.kill()
                ids |= program.do(f"away-{number}", 50)
                backend.start()
                single.start()
                ids |= program.do(f"back-{number}", 50)
            backend.wait_for(lambda: counted(backend.logs(), ids) == whole(ids), PATIENCE)
            backend.wait_for(lambda: spans_of(backend).keys() == all_spans(ids).keys(), PATIENCE)
            after = program.do("after", 50)
            program.end()
        backend.wait_for(lambda: counted(backend.logs(), after) == whole(after), PATIENCE)
        backend.wait_for(lambda: spans_of(backend).keys() == all_spans(ids | after).keys(), PATIENCE)
    assert counted(backend.logs(), ids | after) == whole(ids | after)
    assert doubles(backend.logs(), after) == 0
    assert {span: count for span, count in spans_of(backend).items() if span[0] in after} == all_spans(after)
    assert dropped(backend.logs()) == {}
    print(f"{doubles(backend.logs(), ids)} doubles of {len(EACH) * len(ids)} events")


@pytest.mark.parametrize("gives_up", [False, True])
def test_traces_away_for_ten_minutes(
    collector_binary: Path, backend: Collector, traces: Collector, tmp_path: Path, gives_up: bool
) -> None:
    """Nothing is lost while the trace backend is away for 10 minutes (of 600 ms), and the other signals go on.

    A Collector with the default limit loses the first data, which the drill would notice.
    """
    fast = overlay(tmp_path / "fast.yaml", FAST % (GIVES_UP if gives_up else ""))
    with (
        Single(
            collector_binary, tmp_path / "single", to(TEMPO=traces, PROMETHEUS=backend, LOKI=backend), fast
        ) as single,
        Drill(single.http_endpoint) as program,
    ):
        ids = program.do("before", 20)
        traces.wait_for(lambda: spans_of(traces) == all_spans(ids), PATIENCE)
        traces.stop()
        early = program.do("early", 20)
        # The first unsent spans are older than 10 minutes when the backend is back.
        failed = "otelcol_exporter_send_failed_spans_total"
        if gives_up:
            single.wait_for(lambda: single.figure(failed) == 2 * len(early), PATIENCE)
        else:
            early |= program.do("minutes", 20)
            single.wait_for(lambda: single.log_file.read_text(encoding="utf-8").count(RETRY) >= RETRIES, PATIENCE)
            assert single.figure(failed) == 0
        late = program.do("late", 20)
        backend.wait_for(lambda: counted(backend.logs(), late) == whole(late), PATIENCE)
        traces.start()
        ids |= late | (set() if gives_up else early)
        traces.wait_for(lambda: spans_of(traces).keys() >= all_spans(ids).keys(), PATIENCE)
        program.end()
        assert spans_of(traces).keys() == all_spans(ids).keys()


def test_queue_on_disk_is_full(collector_binary: Path, backend: Collector, tmp_path: Path) -> None:
    """What the full queue refuses waits in the process; what does not fit there is dropped and counted, but no end."""
    single = Single(
        collector_binary,
        tmp_path / "single",
        to(TEMPO=backend, PROMETHEUS=backend, LOKI=backend),
        overlay(tmp_path / "fast.yaml", FAST % ""),
        OTEL_PROGRESS_QUEUE="2000000",
    )
    with single, Drill(single.http_endpoint, OTEL_PROGRESS_OUTBOX="300") as program:
        ids = program.do("before", 10)
        program.order("start long 10 0")
        long = {f"long-{number}" for number in range(10)}
        backend.wait_for(lambda: counted(backend.logs(), long).keys() == {(name, STARTED) for name in long}, PATIENCE)
        backend.stop()
        refused = "otelcol_exporter_enqueue_failed_log_records_total"
        number = 0
        while not single.figure(refused) or number < 5:
            ids |= program.do(f"full-{number}", 20, 40)
            number += 1
        for late in range(3):
            ids |= program.do(f"late-{late}", 50, 40)
        program.order("finish")
        assert program.process.poll() is None
        assert single.pid is not None
        backend.start()
        backend.wait_for(lambda: dropped(backend.logs()).get("outbox"), PATIENCE)
        program.do("after", 1)
        backend.wait_for(lambda: ("after-0", ENDED) in distinct(backend.logs()), PATIENCE)
        program.end()
    check_honest(backend, ids | long, long)


def check_honest(backend: Collector, ids: set[str], known: set[str]) -> None:
    """What did not arrive was counted; the receiver has the end of each operation that it knows."""
    found = counted(backend.logs(), ids)
    missing = sum((whole(ids - known) - found).values())
    counts = [
        point["value"] or 0
        for point in backend.metric_points()
        if point["name"] == "progress.sdk.dropped" and point["attributes"]["progress.drop.reason"] == "outbox"
    ]
    assert 0 < dropped(backend.logs())["outbox"] <= max(counts)
    assert 0 < missing <= max(counts)
    heard = {operation for operation, _ in distinct(backend.logs())}
    ended = {operation for operation, event in distinct(backend.logs()) if event == ENDED}
    assert known <= heard
    assert heard - ended == set()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_collector_away_for_longer_than_the_outbox_holds(collector_binary: Path, tmp_path: Path, protocol: str) -> None:
    """No ended operation looks lost, in events or in series, and what was dropped is counted."""
    backend = Collector(collector_binary, tmp_path / "backend")
    endpoint = backend.grpc_endpoint if protocol == "grpc" else backend.http_endpoint
    with backend, Drill(endpoint, protocol, OTEL_PROGRESS_OUTBOX="50") as program:
        program.order("start known 40 0")
        known = {f"known-{number}" for number in range(40)}
        backend.wait_for(lambda: active(backend) == dict.fromkeys(known, 1), PATIENCE)
        backend.wait_for(lambda: counted(backend.logs(), known).keys() == {(name, STARTED) for name in known}, PATIENCE)
        backend.stop()
        ids = program.do("away", 100)
        program.order("finish")
        ids |= program.do("late", 100)
        backend.start()
        ids |= program.do("back", 10)
        backend.wait_for(lambda: dropped(backend.logs()).get("outbox"), PATIENCE)
        backend.wait_for(lambda: {(name, ENDED) for name in known} <= distinct(backend.logs()).keys(), PATIENCE)
        program.end()
        backend.wait_for(lambda: set(active(backend).values()) == {0}, PATIENCE)
        assert known <= active(backend).keys()
    check_honest(backend, ids | known, known)


def active(backend: Collector) -> dict[str, float]:
    """Return the last value of `progress.run.active` of each operation."""
    return {
        str(point["attributes"]["progress.operation.id"]): point["value"] or 0
        for point in sorted(backend.metric_points(), key=lambda point: point["time"])
        if point["name"] == "progress.run.active"
    }


SMALL = "receivers: {otlp: {protocols: {grpc: {max_recv_msg_size_mib: 1}, http: {max_request_body_size: 1048576}}}}"
"""A Collector with smaller limits than the defaults: 4 MiB over gRPC, 20 MiB over HTTP."""


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_requests_stay_below_the_limits(collector_binary: Path, tmp_path: Path, protocol: str) -> None:
    """All signals of 1,000 operations with large attributes reach a Collector that accepts 1 MiB a request."""
    configs = (LOCAL, overlay(tmp_path / "small.yaml", SMALL))
    backend = Collector(collector_binary, tmp_path / "backend", configs=configs)
    endpoint = backend.grpc_endpoint if protocol == "grpc" else backend.http_endpoint
    with backend, Drill(endpoint, protocol) as program:
        ids = {f"large-{number}" for number in range(1000)}
        program.order("start large 1000 60")
        backend.wait_for(lambda: arrived(backend, STARTED) == len(ids), PATIENCE)
        backend.wait_for(lambda: active(backend) == dict.fromkeys(ids, 1), PATIENCE)
        program.order("finish")
        backend.wait_for(lambda: arrived(backend, ENDED) == len(ids), PATIENCE)
        # At its end a process sends for two seconds at most, which a busy machine may need for less than all.
        backend.wait_for(lambda: spans_arrived(backend, "drill") == len(ids), PATIENCE)
        program.end()
    assert {id_ for id_, event in distinct(backend.logs()) if event == ENDED} == ids
    assert active(backend) == dict.fromkeys(ids, 0)
    assert dropped(backend.logs()) == {}
    assert spans_of(backend) == Counter((id_, "drill") for id_ in ids)


LIVING = 'progress_run_active{progress_operation_id="living-0"}'
COPY = """
exporters: {otlp_http/copy: {endpoint: "${env:OTEL_PROGRESS_LOKI}"}}
service: {pipelines: {metrics: {exporters: [otlp_http/prometheus, otlp_http/copy]}}}
"""
"""All metrics go to the backend of the logs too."""
TAKEN = "otelcol_receiver_accepted_metric_points_total"
SPEED = 20
"""The divisor of all times of the alert rules."""
RULES = Path(__file__).parents[2] / "grafana" / "alerts" / "rules.yaml"
LOST = 'ALERTS{alertname="OperationLost",alertstate="firing",progress_operation_id="%s"}'


def quick_rules(folder: Path) -> Path:
    """A configuration of Prometheus with the shipped alert rules, accelerated."""
    text = demo.faster(RULES.read_text(encoding="utf-8"), SPEED)
    (folder / "rules.yaml").write_text(text, encoding="utf-8")
    base = (CONFIG / "prometheus.yaml").read_text(encoding="utf-8")
    assert "15s" in base
    config = folder / "prometheus.yaml"
    config.write_text(f"{base.replace('15s', '1s')}\nrule_files: [{folder / 'rules.yaml'}]\n", encoding="utf-8")
    return config


def outage(end: Callable[[], None], prometheus: Prometheus, single: Single, points: int) -> None:
    """Prometheus is away until this many points are queued; then the living series goes on."""
    end()
    enough = single.figure(TAKEN) + points
    single.wait_for(lambda: single.figure(TAKEN) >= enough, PATIENCE)
    back = time.time()
    prometheus.start()
    prometheus.wait_for(lambda: prometheus.query(f"timestamp({LIVING}) > {back}"), PATIENCE)


def test_prometheus_restarts(collector_binary: Path, backend: Collector, tmp_path: Path) -> None:
    """Data from an outage of Prometheus is in its series later; a living operation is not lost, a killed one is."""
    prometheus = Prometheus(built("prometheus"), tmp_path / "prometheus", config=quick_rules(tmp_path))
    single = Single(
        collector_binary,
        tmp_path / "single",
        {**to(TEMPO=backend, LOKI=backend), "PROMETHEUS": prometheus.otlp_endpoint},
        overlay(tmp_path / "fast.yaml", FAST % ""),
        overlay(tmp_path / "copy.yaml", COPY),
    )
    with prometheus, single, Drill(single.http_endpoint) as living, Drill(single.http_endpoint) as victim:
        living.order("start living 1 0")
        victim.order("start victim 1 0")
        prometheus.wait_for(lambda: len(prometheus.query("progress_run_active == 1")) == 2, PATIENCE)
        victim.process.kill()
        # The first one takes longer than the 3 minutes (of 9 s) without a point after which an operation is lost.
        outage(prometheus.stop, prometheus, single, points=350)
        outage(prometheus.kill, prometheus, single, points=50)
        prometheus.wait_for(lambda: prometheus.query(LOST % "victim-0"), PATIENCE)
        assert prometheus.query(f"count_over_time({LOST % 'living-0'}[10m])") == []
        living.order("finish")
        living.end()
        prometheus.wait_for(lambda: prometheus.query(f"{LIVING} == 0"), PATIENCE)
        prometheus.wait_for(lambda: stored(prometheus) == said(backend), PATIENCE)
        assert len(said(backend)) > 0


PROGRAM = Path(__file__).parents[1] / "stress" / "programs" / "watched.py"


def run_watched(name: str, endpoint: str, state: Path) -> subprocess.Popen[str]:
    """Start a program under `otel-progress run`; it ends as its first line of input says."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_PROGRESS_RUN_SERIES_AFTER": "0.1"}
    return subprocess.Popen(
        [sys.executable, "-m", "otel_progress.cli", "run", "--", sys.executable, str(PROGRAM), name],
        env={**kept, **env, "OTEL_METRIC_EXPORT_INTERVAL": "500", "XDG_STATE_HOME": str(state)},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def test_what_ended_in_an_outage_of_the_collector(collector_binary: Path, backend: Collector, tmp_path: Path) -> None:
    """The ends of what ran reach Prometheus afterwards: of a process that goes on, and of commands that are gone."""
    prometheus = Prometheus(built("prometheus"), tmp_path / "prometheus", config=CONFIG / "prometheus.yaml")
    backends = {**to(TEMPO=backend, LOKI=backend), "PROMETHEUS": prometheus.otlp_endpoint}
    single = Single(collector_binary, tmp_path / "single", backends, overlay(tmp_path / "fast.yaml", FAST % ""))
    with prometheus, single, Drill(single.http_endpoint) as living:
        well, killed = (run_watched(name, single.http_endpoint, tmp_path) for name in ("well", "killed"))
        living.order("start living 1 0")
        prometheus.wait_for(lambda: len(prometheus.query("progress_run_active == 1")) == 3, PATIENCE)
        single.kill()
        living.order("finish")
        well.communicate("normally\n", PATIENCE)
        killed.communicate("signal9\n", PATIENCE)
        assert (well.returncode, killed.returncode) == (0, 137)
        single.start()
        run_watched("next", single.http_endpoint, tmp_path).communicate("normally\n", PATIENCE)
        prometheus.wait_for(lambda: len(prometheus.query("progress_run_active == 0")) >= 3, PATIENCE)
        assert prometheus.query("progress_run_active == 1") == []
        counts = prometheus.query(
            'sum by (progress_status) (progress_operation_ended_total{progress_operation_name="train"})'
        )
        assert {count.labels["progress_status"]: count.values[0][1] for count in counts} == {"completed": 2, "lost": 1}
        living.end()


def stored(prometheus: Prometheus) -> set[int]:
    """Return the times of the living series' points in Prometheus, in milliseconds."""
    return {round(1000 * moment) for sample in prometheus.query(f"{LIVING}[1h]") for moment, _ in sample.values}


def said(backend: Collector) -> set[int]:
    """Return the expected times of the points."""
    return {
        point["time"] // 1_000_000
        for point in backend.metric_points()
        if point["name"] == "progress.run.active" and point["attributes"]["progress.operation.id"] == "living-0"
    }
