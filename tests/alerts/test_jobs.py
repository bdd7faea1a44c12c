"""The optional alerts about jobs that must run and must not fail."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from . import promtool as tool

JOBS = tool.RULES.with_name("jobs.yaml")
HOUR = 3600
RUN = 'job="batch",instance="a",progress_operation_name="nightly-example",progress_operation_id="n-1"'
PROD, STAGING = (f'{RUN},deployment_environment_name="{it}"' for it in ("prod", "staging"))
OTHER = RUN.replace("nightly-example", "import")
UP = {'up{job="otel-collector",instance="c0"}': "1x2400"}


def began(at: int, until: int, who: str = RUN) -> dict[str, str]:
    """Return the series of a run that starts at a minute and is heard until another."""
    count = until - at
    return {
        f"progress_run_active{{{who}}}": f"_x{at} 1x{count} 0",
        f"progress_run_start_time_seconds{{{who}}}": f"_x{at} {at * 60}x{count}",
    }


def ended(at: int, status: str, who: str = RUN) -> dict[str, str]:
    """Return the series that says how a run ended at a minute."""
    return {f'progress_run_ended_seconds{{{who},progress_status="{status}"}}': f"_x{at} {at * 60}"}


def counted(at: int) -> dict[str, str]:
    """Return the counter of a process that lives for a moment, as that of a job of less than 5 s."""
    return {
        'progress_operation_started_total{job="batch",instance="q",progress_operation_name="nightly-example"}': f"_x{at} 1x3"
    }


def failed_at_once(at: int, status: str = "failed") -> dict[str, str]:
    """Return the counters of a process whose run ended within seconds, which has no series of its own."""
    who = f'job="batch",instance="q",progress_operation_name="nightly-example",progress_status="{status}"'
    return {f"progress_operation_ended_total{{{who}}}": f"_x{at} 1x3"} | counted(at)


def given_id(first: int, second: int, status: str = "failed") -> dict[str, str]:
    """Return the series of two processes with one `service.instance.id`, whose runs end within seconds."""
    count = f"_x{first} 1x3 _x{second - first - 4} 1x3"
    ends, starts = failed_at_once(0, status)
    process = 'target_info{job="batch",instance="q",host_name="h",process_pid='
    pids = {f'{process}"{pid}"}}': f"_x{at} 1x3" for pid, at in ((11, first), (12, second))}
    return {ends: count, starts: count, **pids}


def unscraped(*minutes: int) -> dict[str, str]:
    """Return the series of a Collector that can't be scraped from one minute until before another."""
    begin, end = minutes
    return dict.fromkeys(UP, f"1x{begin - 1} 0x{end - begin - 1} 1x2400")


def old_counter(cut: int, again: int) -> dict[str, str]:
    """Return the counter of a process that started a run long ago, and is not heard for some time."""
    [name] = counted(0)
    return {name: f"5x{cut - 1} _x{again - cut} 5x2400"}


def needed() -> str:
    """Return the rules that these rules use: a day takes long to evaluate."""
    found = yaml.safe_load(tool.RULES.read_text(encoding="utf-8"))
    for group in found["groups"]:
        group["rules"] = [
            rule
            for rule in group["rules"]
            if rule.get("record", "").startswith(
                ("collector:", "progress:", "run:progress_active", "run:progress_start_time")
            )
        ]
    return yaml.safe_dump(found)


@pytest.mark.parametrize(
    ("series", "minute", "alerts"),
    [
        pytest.param(began(60, 120), 60 + 26 * 60, [], id="it_ran_a_day_ago"),
        pytest.param(began(60, 120), 65 + 26 * 60, ["OperationMissing"], id="the_next_run_did_not_start"),
        pytest.param(
            began(60, 120) | began(1500, 1510, RUN.replace("n-1", "n-2")), 1700, [], id="the_next_run_started"
        ),
        pytest.param({}, 25 * 60, [], id="listed_a_day_ago"),
        pytest.param({}, 27 * 60, ["OperationMissing"], id="it_never_ran"),
        pytest.param(counted(120), 27 * 60, [], id="a_run_too_short_for_series"),
        pytest.param(counted(130) | unscraped(120, 121), 27 * 60, [], id="a_short_run_after_a_failed_scrape"),
        pytest.param(
            old_counter(60, 200) | unscraped(60, 200),
            27 * 60,
            ["OperationMissing"],
            id="an_old_counter_after_a_long_outage",
        ),
        pytest.param(given_id(60, 100), 1640, [], id="a_short_process_of_the_same_instance_started"),
        pytest.param(given_id(60, 100), 1670, ["OperationMissing"], id="no_further_process_of_the_instance_started"),
        pytest.param(given_id(120, 170), 195, ["OperationFailed"], id="a_short_process_of_the_same_instance_failed"),
        pytest.param(given_id(120, 170, "completed"), 175, [], id="a_short_process_of_the_same_instance_completed"),
        pytest.param(
            failed_at_once(130) | unscraped(120, 121), 135, ["OperationFailed"], id="failed_after_a_failed_scrape"
        ),
        pytest.param(began(60, 120, OTHER), 27 * 60, ["OperationMissing"], id="another_job_ran"),
        pytest.param(began(60, 120) | ended(120, "failed"), 125, ["OperationFailed"], id="failed"),
        pytest.param(began(60, 120) | ended(120, "failed"), 190, [], id="failed_long_ago"),
        pytest.param(began(60, 120) | ended(120, "completed"), 125, [], id="completed"),
        pytest.param(began(60, 120) | ended(120, "cancelled"), 125, [], id="cancelled"),
        pytest.param(began(60, 120, OTHER) | ended(120, "failed", OTHER), 125, [], id="a_job_that_is_not_listed"),
        pytest.param(
            began(60, 120) | ended(120, "failed") | began(130, 140, RUN.replace('"a"', '"b"')),
            135,
            [],
            id="tried_again",
        ),
        pytest.param(failed_at_once(120), 125, ["OperationFailed"], id="failed_within_seconds"),
        pytest.param(failed_at_once(120), 190, [], id="failed_within_seconds_long_ago"),
        pytest.param(failed_at_once(120, "completed"), 125, [], id="completed_within_seconds"),
        pytest.param(
            began(60, 120, PROD) | ended(120, "failed", PROD) | began(130, 140, STAGING),
            135,
            ["OperationFailed"],
            id="another_environment_starts",
        ),
    ],
)
def test_jobs(promtool: str, series: dict[str, str], minute: int, alerts: list[str], tmp_path: Path) -> None:
    """A listed job that did not start in time is missing, one that failed is told; of others nothing is said."""
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in {**UP, **series}.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertname=~"OperationMissing|OperationFailed", alertstate="firing"})',
                "eval_time": f"{minute}m",
                "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in alerts],
            }
        ],
    }
    rules = tmp_path / "rules.yaml"
    rules.write_text(needed(), encoding="utf-8")
    jobs = tmp_path / "jobs.yaml"
    jobs.write_text(tool.without_annotations(JOBS.read_text(encoding="utf-8")), encoding="utf-8")
    file = tmp_path / "test.json"
    content = {
        "rule_files": [str(rules), str(jobs)],
        "evaluation_interval": "30s" if minute < 200 else "2m",
        "tests": [test],
    }
    file.write_text(json.dumps(content), encoding="utf-8")
    done = subprocess.run(
        [promtool, "test", "rules", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def fires(promtool: str, folder: Path, series: dict[str, str], checks: list[tuple[str, dict[str, list[str]]]]) -> None:
    """Evaluate the rules with a job that must start each 5 minutes; `checks` has the samples of queries, by time."""
    rules, jobs, file = (folder / name for name in ("rules.yaml", "jobs.yaml", "test.json"))
    rules.write_text(needed(), encoding="utf-8")
    said = tool.without_annotations(JOBS.read_text(encoding="utf-8"))
    jobs.write_text(said.replace("vector(93600)", "vector(300)"), encoding="utf-8")
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": expr, "eval_time": at, "exp_samples": [{"labels": labels, "value": 1} for labels in samples]}
            for expr, times in checks
            for at, samples in times.items()
        ],
    }
    content = {"rule_files": [str(rules), str(jobs)], "evaluation_interval": "10s", "tests": [test]}
    file.write_text(json.dumps(content), encoding="utf-8")
    done = subprocess.run(
        [promtool, "test", "rules", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("series", "times"),
    [
        # From minute 10 to 14 no Collector works; the job never runs, and is missing from minute 5 on.
        ({}, {"6m": True, "9m": True, "11m": True, "14m30s": True, "18m": True, "20m": True, "30m": True}),
        # A run until minute 7, so that its time is over in the outage: not told before 5 minutes after it.
        ({"begin": "7"}, {"9m": False, "11m": False, "13m": False, "18m": False, "20m": True, "30m": True}),
        # A start is heard after the outage.
        ({"begin": "16"}, {"9m": True, "13m": True, "15m": True, "18m": False}),
    ],
    ids=["missing_before", "its_time_is_over_in_it", "started_after_it"],
)
def test_an_outage_ends_no_missing_job(
    promtool: str, series: dict[str, str], times: dict[str, bool], tmp_path: Path
) -> None:
    """An outage of the Collectors begins no OperationMissing, and ends none."""
    up = {
        'up{job="otel-collector",instance="c"}': "1x39 0x15 1x80",
        'otelcol_exporter_sent_metric_points_total{job="otel-collector",instance="c"}': "0+50x39 _x16 0+50x80",
    }
    for minute in series.values():
        at = int(minute) * 4
        up[f"progress_run_active{{{RUN}}}"] = f"_x{at} 1x3 0"
        up[f"progress_run_start_time_seconds{{{RUN}}}"] = f"_x{at} {int(minute) * 60}x3"
    firing = 'count by (alertname) (ALERTS{alertname="OperationMissing", alertstate="firing"})'
    expected = {at: ['{alertname="OperationMissing"}'] if told else [] for at, told in times.items()}
    fires(promtool, tmp_path, up, [(firing, expected)])


def test_tries_of_a_run_are_one_alert(promtool: str, tmp_path: Path) -> None:
    """Each failure of a run is the same alert, whichever process tried it and however it failed; a newer try ends it."""
    first, second, third = (RUN.replace('"a"', f'"{it}"') for it in "abc")
    series = dict(UP)
    for who, at, minutes in ((first, 2, 3), (second, 7, 3), (third, 12, 4)):
        series[f"progress_run_active{{{who}}}"] = f"_x{at * 4} 1x{minutes * 4} 0"
        series[f"progress_run_start_time_seconds{{{who}}}"] = f"_x{at * 4} {at * 60}x{minutes * 4}"
    for who, at, status in ((first, 5, "failed"), (second, 10, "interrupted"), (third, 16, "completed")):
        series[f'progress_run_ended_seconds{{{who},progress_status="{status}"}}'] = f"_x{at * 4} {at * 60}"
    firing = 'count by (instance) (ALERTS{alertname="OperationFailed", alertstate="firing"})'
    times = {
        "4m": 0,
        "5m30s": 1,
        "6m30s": 1,
        "8m": 0,
        "9m30s": 0,
        "10m20s": 1,
        "11m30s": 1,
        "13m": 0,
        "15m": 0,
        "20m": 0,
    }
    fires(promtool, tmp_path, series, [(firing, {at: ["{}"] * count for at, count in times.items()})])


def test_rules_load(promtool: str) -> None:
    """Prometheus accepts the rules."""
    done = subprocess.run(
        [promtool, "check", "rules", str(JOBS)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
