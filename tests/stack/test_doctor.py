"""`otel-progress doctor` with the real Collector, Prometheus, Loki and Tempo: it finds exactly what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from .backends import CONFIG, Loki, Prometheus, Tempo
from .collector import CONFIGS, Collector
from .needed import built
from .ports import free_ports
from .test_sdk import STATE, events

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SINGLE = CONFIGS / "single.yaml"
RULES = CONFIGS.parent / "grafana" / "alerts" / "rules.yaml"
HTTP, GRPC = "http/protobuf", "grpc"
PROTOCOLS = (HTTP, GRPC)
NO_LOGS = """
extensions: {health_check: {endpoint: "${env:OTEL_PROGRESS_HEALTH}"}}
receivers:
  otlp: {protocols: {grpc: {endpoint: "${env:OTEL_PROGRESS_GRPC}"}, http: {endpoint: "${env:OTEL_PROGRESS_HTTP}"}}}
exporters: {nop: {}}
service:
  extensions: [health_check]
  telemetry: {metrics: {level: none}}
  pipelines:
    traces: {receivers: [otlp], exporters: [nop]}
    metrics: {receivers: [otlp], exporters: [nop]}
"""

NO_STORES = ("--prometheus", "none", "--loki", "none", "--tempo", "none")
"""Ignore programs at the usual ports of this machine; a later option overrides this."""

pytestmark = [pytest.mark.timeout(360)]


def examine(endpoint: str, protocol: str = HTTP, *options: str, **env: str) -> dict[str, Any]:
    """Run the command as a user does, and return its report."""
    done = subprocess.run(
        [sys.executable, "-m", "otel_progress.cli", "doctor", "--json", *NO_STORES, *options],
        env=environment(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_EXPORTER_OTLP_PROTOCOL=protocol, **env),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["ok"] is (done.returncode == 0)
    return report


def environment(**more: str) -> dict[str, str]:
    """Return our environment, without what would change telemetry."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PYTEST_"))} | more


def codes(report: dict[str, Any]) -> set[str]:
    """The findings."""
    return {line["code"] for line in report["lines"] if "code" in line}


def followed(report: dict[str, Any]) -> dict[str, float]:
    """Backend to the delay of the test operation."""
    lines = [line for line in report["lines"] if line["step"] == "end to end" and line["level"] == "ok"]
    return {line["text"].split()[0]: line["seconds"] for line in lines}


def endpoint_of(collector: Collector, protocol: str) -> str:
    """Return the address for this protocol."""
    return collector.grpc_endpoint if protocol == GRPC else collector.http_endpoint


# -- the Collector


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_collector_is_fine(collector: Collector, protocol: str) -> None:
    """With the Collector of `local.yaml` nothing is wrong, and the whole test operation arrived."""
    report = examine(endpoint_of(collector, protocol), protocol)
    assert codes(report) == set()
    found = collector.wait_for(
        lambda: (ev := events(collector, report["operation"])) and ev[-1]["event_name"] == STATE[3] and ev
    )
    assert found[0]["event_name"] == STATE[0]
    assert collector.wait_for(lambda: [span for span in collector.spans() if span["name"] == "otel_progress.doctor"])
    series = [point for point in collector.metric_points() if point["name"] == "progress.run.active"]
    assert [point["value"] for point in series][-1] == 0
    assert series[0]["value"] == 1


@pytest.mark.parametrize(("protocol", "code"), [(HTTP, "port_of_grpc"), (GRPC, "port_of_http")])
def test_the_other_port_of_the_collector(collector: Collector, protocol: str, code: str) -> None:
    """HTTP to the gRPC port, and the reverse, is the only finding."""
    report = examine(collector.grpc_endpoint if protocol == HTTP else collector.http_endpoint, protocol)
    assert codes(report) == {code}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tls_that_the_collector_does_not_speak(collector: Collector, protocol: str) -> None:
    """https:// for a plain Collector is the only finding."""
    report = examine(endpoint_of(collector, protocol).replace("http:", "https:"), protocol)
    assert codes(report) == {"tls_not_spoken"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_collector_without_a_pipeline(collector_binary: Path, tmp_path: Path, protocol: str) -> None:
    """A Collector without a pipeline for logs is reported for logs; the others are sent."""
    config = tmp_path / "no-logs.yaml"
    config.write_text(NO_LOGS, encoding="utf-8")
    with Collector(collector_binary, tmp_path / "collector", configs=[config]) as collector:
        report = examine(endpoint_of(collector, protocol), protocol)
    lines = [line for line in report["lines"] if "code" in line]
    assert [(line["code"], line["signals"]) for line in lines] == [("path", ["logs"])]
    sent = {
        line["signals"][0] for line in report["lines"] if line["step"] == "test operation" and line["level"] == "ok"
    }
    assert sent == {"metrics", "traces"}


# -- the whole way


def through(binary: Path, folder: Path, *options: str, **env: str) -> dict[str, Any]:
    """Return the report for the Collector of `single.yaml`."""
    guard, [own] = free_ports(1)
    env["OTEL_PROGRESS_SELF_PORT"] = str(own)
    with guard, Collector(binary, folder, configs=[SINGLE], env=env) as collector:
        return examine(collector.http_endpoint, HTTP, *options)


def test_followed_to_prometheus(collector_binary: Path, tmp_path: Path) -> None:
    """The run series of the test operation are found in Prometheus, with their delay."""
    with Prometheus(built("prometheus"), tmp_path / "prometheus") as prometheus:
        options = ("--prometheus", prometheus.endpoint)
        report = through(collector_binary, tmp_path / "c", *options, OTEL_PROGRESS_PROMETHEUS=prometheus.otlp_endpoint)
        assert codes(report) == {"rules_missing"}
        assert set(followed(report)) == {"Prometheus"}
        label = f'{{progress_operation_id="{report["operation"]}"}}'
        assert prometheus.query(f"last_over_time(progress_run_start_time_seconds{label}[1h])")


def test_runbook_of_the_shipped_rules(collector_binary: Path, tmp_path: Path) -> None:
    """With our rules unchanged in Prometheus, links without an address are reported."""
    config = tmp_path / "prometheus.yaml"
    base = (CONFIG / "prometheus.yaml").read_text(encoding="utf-8")
    config.write_text(f"{base}\nrule_files: [{RULES}]\n", encoding="utf-8")
    with Prometheus(built("prometheus"), tmp_path / "prometheus", config=config) as prometheus:
        options = ("--prometheus", prometheus.endpoint)
        report = through(collector_binary, tmp_path / "c", *options, OTEL_PROGRESS_PROMETHEUS=prometheus.otlp_endpoint)
    assert codes(report) == {"alertmanager_missing", "collector_unscraped", "link_unset", "rules_incomplete"}
    assert report["ok"]


class Closed(Prometheus):
    """A Prometheus without OTLP."""

    def command(self) -> Sequence[str]:
        """Without the option for it."""
        return [part for part in super().command() if "otlp" not in part]


def test_prometheus_without_its_receiver(collector_binary: Path, tmp_path: Path) -> None:
    """A Prometheus without its OTLP receiver is reported as that."""
    with Closed(built("prometheus"), tmp_path / "prometheus") as prometheus:
        options = ("--prometheus", prometheus.endpoint, "--timeout", "12")
        report = through(collector_binary, tmp_path / "c", *options, OTEL_PROGRESS_PROMETHEUS=prometheus.otlp_endpoint)
    assert codes(report) == {"otlp_receiver_off", "rules_missing"}


def test_metrics_that_go_elsewhere(collector_binary: Path, tmp_path: Path) -> None:
    """Series that never reach Prometheus are reported as missing."""
    with Prometheus(built("prometheus"), tmp_path / "prometheus") as prometheus:
        options = ("--prometheus", prometheus.endpoint, "--timeout", "12")
        report = through(collector_binary, tmp_path / "c", *options, OTEL_PROGRESS_PROMETHEUS="http://127.0.0.1:1")
    assert codes(report) == {"series_missing", "rules_missing"}


def test_prometheus_that_keeps_dots(collector_binary: Path, tmp_path: Path) -> None:
    """A Prometheus that does not translate names is reported as that."""
    config = tmp_path / "prometheus.yaml"
    config.write_text("otlp: {translation_strategy: NoTranslation}\n", encoding="utf-8")
    with Prometheus(built("prometheus"), tmp_path / "prometheus", config=config) as prometheus:
        options = ("--prometheus", prometheus.endpoint, "--timeout", "12")
        report = through(collector_binary, tmp_path / "c", *options, OTEL_PROGRESS_PROMETHEUS=prometheus.otlp_endpoint)
    assert codes(report) == {"names_unescaped", "rules_missing"}


@pytest.mark.loki
def test_followed_to_loki(collector_binary: Path, tmp_path: Path) -> None:
    """The first and the last event are found in Loki by their names, with their delay."""
    with Loki(built("loki"), tmp_path / "loki") as loki:
        options = ("--loki", loki.endpoint)
        report = through(collector_binary, tmp_path / "c", *options, OTEL_PROGRESS_LOKI=loki.otlp_endpoint)
    assert codes(report) == set()
    assert set(followed(report)) == {"Loki"}


@pytest.mark.loki
def test_straight_to_loki(tmp_path: Path) -> None:
    """Events that reach Loki without a Collector are found by their names too."""
    with Loki(built("loki"), tmp_path / "loki") as loki:
        env = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}
        report = examine(loki.otlp_endpoint, HTTP, "--loki", loki.endpoint, **env)
    assert codes(report) == {"exporter_off"}
    assert set(followed(report)) == {"Loki"}


@pytest.mark.loki
def test_events_that_go_elsewhere(collector_binary: Path, tmp_path: Path) -> None:
    """Events that never reach Loki are reported as missing."""
    with Loki(built("loki"), tmp_path / "loki") as loki:
        options = ("--loki", loki.endpoint, "--timeout", "12")
        report = through(collector_binary, tmp_path / "c", *options, OTEL_PROGRESS_LOKI="http://127.0.0.1:1")
    assert codes(report) == {"events_missing"}


@pytest.mark.tempo
def test_followed_to_tempo(collector_binary: Path, tmp_path: Path) -> None:
    """The trace of the test operation is found in Tempo, with its delay."""
    with Tempo(built("tempo"), tmp_path / "tempo") as tempo:
        options = ("--tempo", tempo.endpoint)
        report = through(collector_binary, tmp_path / "c", *options, OTEL_PROGRESS_TEMPO=tempo.otlp_endpoint)
    assert codes(report) == set()
    assert set(followed(report)) == {"Tempo"}


@pytest.mark.tempo
def test_traces_that_go_elsewhere(collector_binary: Path, tmp_path: Path) -> None:
    """A trace that never reaches Tempo is reported as missing."""
    with Tempo(built("tempo"), tmp_path / "tempo") as tempo:
        options = ("--tempo", tempo.endpoint, "--timeout", "12")
        report = through(collector_binary, tmp_path / "c", *options, OTEL_PROGRESS_TEMPO="http://127.0.0.1:1")
    assert codes(report) == {"trace_missing"}
