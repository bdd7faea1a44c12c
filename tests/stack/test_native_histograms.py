"""Exponential histograms in a real Prometheus: one series for each stage, and quantiles that mean something."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .backends import Prometheus
from .needed import built

PROGRAM = """
import time
import otel_progress as progress

progress.configure()
for number in range(20):
    with progress.operation("job"), progress.stage("load"):
        time.sleep(0.02 + 0.002 * number)
progress.shutdown()
"""


def test_quantiles_of_exponential_histograms(tmp_path: Path) -> None:
    """By the standard variable, Prometheus stores native histograms; the median is right within their error."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    with Prometheus(built("prometheus"), tmp_path) as prometheus:
        variables = {
            "OTEL_SERVICE_NAME": "native",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{prometheus.otlp_endpoint}/v1/metrics",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "base2_exponential_bucket_histogram",
        }
        subprocess.run([sys.executable, "-c", PROGRAM], env={**kept, **variables}, check=True, timeout=60)
        [count] = prometheus.wait_for(lambda: prometheus.query("histogram_count(progress_stage_duration_seconds)"), 20)
        assert count.value == 20
        [mean] = prometheus.query("histogram_avg(progress_stage_duration_seconds)")
        [median] = prometheus.query("histogram_quantile(0.5, progress_stage_duration_seconds)")
        assert median.value == pytest.approx(mean.value, rel=0.5)  # of even durations, on a busy machine
        [series] = prometheus.query('count({__name__=~"progress_stage_duration.*"})')
        assert series.value == 1
