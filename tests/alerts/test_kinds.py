"""Panels of *Kinds of work* and *The pipeline* in cases that a busy stack rarely shows."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from grafana.generator.kinds import THROUGHPUT, WELL
from grafana.generator.pipeline import AGE

UNITS = "progress_units_completed_total"
ENDED = "progress_operation_ended_total"
WHO = 'job="shop", instance="1", progress_operation_name'


@pytest.mark.parametrize(
    ("expression", "series", "wanted"),
    [
        pytest.param(WELL, {f'{ENDED}{{{WHO}="a", progress_status="failed"}}': "3x20"}, 0, id="only_failed"),
        pytest.param(WELL, {f'{ENDED}{{{WHO}="a", progress_status="lost"}}': "1x20"}, 0, id="only_killed"),
        pytest.param(
            WELL,
            {
                f'{ENDED}{{{WHO}="a", progress_status="completed"}}': "3x20",
                f'{ENDED}{{{WHO}="a", progress_status="lost"}}': "1x20",
            },
            0.75,
            id="kills_count",
        ),
        pytest.param(WELL, {f'{ENDED}{{{WHO}="a", progress_status="completed"}}': "0x20"}, None, id="none_ended"),
        # Its process sent its count once, at its end: 600 units within four minutes.
        pytest.param(
            f"round(10 * ({THROUGHPUT}))", {f'{UNITS}{{{WHO}="a", progress_unit="row"}}': "_x8 600"}, 25, id="short_run"
        ),
        pytest.param(AGE, {f'progress_operation_active{{{WHO}="a"}}': "1x6 0 _x13"}, None, id="batch_job_ended"),
        pytest.param(AGE, {f'progress_operation_active{{{WHO}="a"}}': "1x6 _x14"}, 240, id="service_is_silent"),
        pytest.param(AGE, {f'progress_operation_active{{{WHO}="a"}}': "1x20"}, 0, id="service_is_heard"),
    ],
)
def test_value(promtool: str, expression: str, series: dict[str, str], wanted: float | None, tmp_path: Path) -> None:
    """A kind that only failed or was killed is 0% well, and a service is silent only while something runs in it."""
    text = (
        expression.replace("$namespace", ".*")
        .replace("$cluster", ".*")
        .replace("$environment", ".*")
        .replace("$job", ".+")
        .replace("$name", ".+")
        .replace("$gap", "5m")
        .replace("$window", "1h")
        .replace("$__rate_interval", "4m")
    )
    samples = [] if wanted is None else [{"labels": "{}", "value": wanted}]
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": f"sum({text})", "eval_time": "10m", "exp_samples": samples}],
    }
    file = tmp_path / "test.json"
    file.write_text(json.dumps({"evaluation_interval": "1m", "tests": [test]}), encoding="utf-8")
    done = subprocess.run(
        [promtool, "test", "rules", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
