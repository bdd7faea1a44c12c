"""The alert rules under promtool: each scenario fires exactly its stated alerts at the stated times."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from otel_progress import semconv as s

from . import promtool as tool
from .mutants import MUTANTS, Mutant
from .runs import label
from .scenarios import SCENARIOS, Scenario

PARTS = 40


def named(name: str) -> list[Scenario]:
    """Return the scenario with scraped series, and with pushed series."""
    found = [scenario for scenario in SCENARIOS if scenario.name == name]
    assert len(found) == 2, name
    return found


@pytest.mark.parametrize("part", range(PARTS))
def test_scenarios(promtool: str, part: int, tmp_path: Path) -> None:
    """At each moment exactly the stated alerts fire, with and without stale markers."""
    said = tool.run(promtool, tool.RULES, SCENARIOS[part::PARTS], tmp_path)
    assert not said, said


def test_every_alert_fires_somewhere() -> None:
    """Each alert of the rules fires in a scenario, and scenarios state only alerts of the rules."""
    assert {alert for scenario in SCENARIOS for alert in scenario.touches} == tool.alerts()


@pytest.mark.parametrize("rule", sorted({mutant.rule for mutant in MUTANTS}))
def test_mutants(promtool: str, rule: str, tmp_path: Path) -> None:
    """A scenario notices each fault in a rule."""
    text = tool.RULES.read_text(encoding="utf-8")
    survivors = []
    for number, mutant in enumerate(MUTANTS):
        if mutant.rule == rule:
            folder = tmp_path / str(number)
            folder.mkdir()
            broken = folder / "broken.yaml"
            broken.write_text(tool.affected_by(rule, tool.without_annotations(mutant.of(text))), encoding="utf-8")
            if not fails(promtool, broken, mutant, folder):
                survivors.append(str(mutant))
    assert not survivors, "\n".join(survivors)


def fails(promtool: str, broken: Path, mutant: Mutant, folder: Path) -> bool:
    """Return whether the scenario finds other alerts than stated. A rule that does not load is not a valid mutant."""
    there = tool.alerts(broken)
    for scenario in reversed(named(mutant.caught_by)):
        stated = tuple(fires for fires in scenario.alerts if fires.alert in there)
        said = tool.run(promtool, broken, [replace(scenario, alerts=stated)], folder)
        assert not said or "got:" in said, f"{mutant}: {said}"
        if said:
            return True
    return False


def test_every_rule_has_mutants() -> None:
    """Each rule, alert or recording, has a mutant."""
    # test_outcome, and test_what_ended_while_prometheus_was_away_is_told
    only_texts = {"run:progress_outcome", "progress:returned_time_seconds", "progress:away_time_seconds"}
    assert {mutant.rule for mutant in MUTANTS} == tool.alerts() | tool.records() - only_texts


TROUBLES = ("OperationStuck", "OperationLooping", "OperationSlow", "OperationOverdueWait")


def left_over() -> list[dict[str, str]]:
    """Return what the rules recorded until a restart of Prometheus, of a run that ended while it was away.

    Without Prometheus nothing marks these series as stale.
    """
    run = (("job", "work"), ("instance", "a"), (label(s.OPERATION_NAME), "load"), (label(s.OPERATION_ID), "r1"))
    silent = (*run, (label(s.HEALTH), "silent"), (label(s.STAGE_NAME), "fetch"))
    found = [
        ("run:progress_active:last6h", run),
        ("run:progress_idle_seconds:last3m", run),
        ("run:progress_stall_after_seconds:last3m", run),
        ("run:progress_health:last3m", silent),
        ("run:progress_gone_time_seconds", run),
        ("run:progress_lost_time_seconds", run),
        ("instance:progress_lost_time_seconds", run[:2]),
        ("instance:progress_in_flight:last1h", run[:2]),
    ]
    for alert in TROUBLES:
        found += [(f"run:progress_trouble_seconds{it}", (*run, ("alert", alert))) for it in ("", ":held")]
    return [{"series": tool.selector(name, labels), "values": "1000+0x2"} for name, labels in found]


@pytest.mark.parametrize(("back", "told"), [(400, True), (600, False)])
def test_what_ended_while_prometheus_was_away_is_told(promtool: str, back: int, told: bool, tmp_path: Path) -> None:
    """What fired before a short absence and is over after it fires for 45 s more: so its end is told with how it ended.

    After 4 minutes Alertmanager has ended it, and it does not fire again.
    """
    kept = ("progress:listened_time_seconds", "progress:returned_time_seconds", "progress:away_time_seconds")
    rules = yaml.safe_load(tool.RULES.read_text(encoding="utf-8"))
    [group] = rules["groups"]
    group["rules"] = [it for it in group["rules"] if it.get("record") in (*kept, "run:progress_over_seconds")]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    run = 'alert="OperationStuck",job="work",instance="a",progress_operation_name="load",progress_operation_id="r1"'
    # The rules were evaluated until 290 s, and again from `back` on: the next evaluation finds that.
    gap = (back - 290) // 10
    series = {
        "progress:listening_time_seconds": f"0+10x29 _x{gap} {back + 10}+10x20",
        f"run:progress_trouble_seconds:held{{{run}}}": "100x29",
        f"run:progress_trouble_held_time_seconds{{{run}}}": "0+10x29",
    }
    firing = [{"labels": f"run:progress_over_seconds{{{run}}}", "value": 100}] if told else []
    checks = [
        {"expr": "run:progress_over_seconds", "eval_time": f"{back + 20}s", "exp_samples": firing},
        {"expr": "run:progress_over_seconds", "eval_time": f"{back + 60}s", "exp_samples": []},
    ]
    test = {
        "interval": "10s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": checks,
    }
    content = {"rule_files": ["rules.yaml"], "evaluation_interval": "10s", "tests": [test]}
    (tmp_path / "test.json").write_text(json.dumps(content), encoding="utf-8")
    command = [promtool, "test", "rules", str(tmp_path / "test.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_was_over_before_a_restart_is_not_told(promtool: str, tmp_path: Path) -> None:
    """What Prometheus recorded before it restarted is no reason for an alert after it."""
    (tmp_path / "rules.yaml").write_text(tool.RULES.read_text(encoding="utf-8"), encoding="utf-8")
    content = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "10s",
        "tests": [
            {
                "interval": "10s",
                "input_series": left_over(),
                "promql_expr_test": [
                    {"expr": tool.FIRING, "eval_time": f"{at}s", "exp_samples": []} for at in (40, 100, 200, 290)
                ],
            }
        ],
    }
    (tmp_path / "test.json").write_text(json.dumps(content), encoding="utf-8")
    done = subprocess.run(
        [promtool, "test", "rules", str(tmp_path / "test.json")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_arrives_late_proves_no_recovery(promtool: str, tmp_path: Path) -> None:
    """Samples of more than 3 minutes ago, from the queue of a Collector, end no alert: they say nothing about now.

    promtool knows no time of arrival, so it is given: samples that are too old for every window arrive from 500 s to
    560 s, and from 800 s to 860 s.
    """
    rules = yaml.safe_load(tool.without_annotations(tool.RULES.read_text(encoding="utf-8")))
    [group] = rules["groups"]
    group["rules"] = [it for it in group["rules"] if it.get("record") != "run:progress_arrived_time_seconds"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    who = 'job="work",instance="a",progress_operation_name="load",progress_operation_id="r1"'
    series = {
        'up{job="otel-collector",instance="c"}': "1x120",
        'otelcol_exporter_sent_metric_points_total{job="otel-collector",instance="c"}': "0+50x120",
        f"progress_run_active{{{who}}}": "1x30 _x90",
        f"progress_run_start_time_seconds{{{who}}}": "0x30 _x90",
        f"progress_run_idle_seconds{{{who}}}": "0+10x30 _x90",
        f"progress_run_stall_after_seconds{{{who}}}": "60x30 _x90",
        f"run:progress_arrived_time_seconds{{{who}}}": "0+10x30 300x19 500+10x6 560x23 800+10x6 860x40",
    }
    firing = 'count by (alertname) (ALERTS{alertname=~"OperationStuck|OperationLost", alertstate="firing"})'
    stuck, lost = '{alertname="OperationStuck"}', '{alertname="OperationLost"}'
    expected = {at: [stuck] for at in (250, 470, 490, 510, 530, 550, 600)}
    expected |= {at: [lost, stuck] for at in (700, 790, 810, 830, 850, 900, 1000)}
    checks = [
        {"expr": firing, "eval_time": f"{at}s", "exp_samples": [{"labels": it, "value": 1} for it in told]}
        for at, told in expected.items()
    ]
    checks += [
        {"expr": "run:progress_outcome", "eval_time": f"{at}s", "exp_samples": []} for at in range(300, 1001, 10)
    ]
    test = {
        "interval": "10s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": checks,
    }
    content = {"rule_files": ["rules.yaml"], "evaluation_interval": "10s", "tests": [test]}
    (tmp_path / "test.json").write_text(json.dumps(content), encoding="utf-8")
    command = [promtool, "test", "rules", str(tmp_path / "test.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
