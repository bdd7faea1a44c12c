"""Exponential histograms in a real Prometheus: one series for each stage, and quantiles that mean something."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from grafana.generator.kinds import BY_STAGE, KINDS, histogram

from otel_progress import semconv as s

from .backends import Prometheus
from .grafana_queries import interpolate
from .needed import built

KINDS_QUERIES = {
    (panel.json["title"], ref): query.text for panel in KINDS.panels() for ref, query in panel.queries.items()
}
CHOSEN = {
    **dict.fromkeys(("environment", "cluster", "namespace", "job", "name"), ".*"),
    "window": "10m",
    "gap": "5m",
    "__rate_interval": "10m",
}
PROGRAM = """
import time
import otel_progress as progress

progress.configure()
for number in range(20):
    with progress.operation("job"), progress.stage("load"):
        time.sleep(0.02 + 0.002 * number)
    if number == 9:
        time.sleep(2)
progress.shutdown()
"""


def test_quantiles_of_exponential_histograms(tmp_path: Path) -> None:
    """By the standard variable, Prometheus stores native histograms; the median is right within their error."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    with Prometheus(built("prometheus"), tmp_path) as prometheus:
        variables = {
            "OTEL_SERVICE_NAME": "native",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{prometheus.otlp_endpoint}/v1/metrics",
            "OTEL_METRIC_EXPORT_INTERVAL": "300",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "base2_exponential_bucket_histogram",
        }
        subprocess.run([sys.executable, "-c", PROGRAM], env={**kept, **variables}, check=True, timeout=60)
        counted = "histogram_count(progress_stage_duration_seconds)"
        prometheus.wait_for(lambda: [it.value for it in prometheus.query(counted)] == [20], 20)
        [at] = prometheus.query("timestamp(progress_stage_duration_seconds)")
        grown = histogram(s.STAGE_DURATION, BY_STAGE, "")
        text = interpolate(grown, {**CHOSEN, "window": "1500ms"})
        [ten] = prometheus.query(f"histogram_count({text})", at.value)
        assert ten.value == 10, "the increase in a window, where the series was there before it"
        [mean] = prometheus.query("histogram_avg(progress_stage_duration_seconds)")
        [median] = prometheus.query("histogram_quantile(0.5, progress_stage_duration_seconds)")
        assert median.value == pytest.approx(mean.value, rel=0.5)  # of even durations, on a busy machine
        for panel, ref, low, high in (
            ("Quantiles of duration", "A", 0.02, 0.2),
            ("Kinds of work", "F", 0.02, 2),
            ("Where the time goes", "A", 20 * 0.02, 20),
            ("The slowest stages", "A", 0.02, 2),
        ):
            text = interpolate(KINDS_QUERIES[panel, ref], CHOSEN)
            [found] = prometheus.query(text)
            assert low <= found.value <= high, panel
        cells = interpolate(KINDS_QUERIES["How long they took", "B"], CHOSEN)
        [all_ended] = prometheus.query(f"histogram_count({cells})")
        assert 0 < all_ended.value <= 20, "the heat map"
        [series] = prometheus.query('count({__name__=~"progress_stage_duration.*"})')
        assert series.value == 1
