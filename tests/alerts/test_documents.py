"""The rules, their annotations, the runbook and Alertmanager's configuration agree."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from otel_progress import semconv as s

from . import promtool as tool
from .runs import label, metric
from .scenarios import SCENARIOS

ROOT = Path(__file__).parents[2]
RULES = tool.RULES.read_text(encoding="utf-8")
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
ALERTMANAGER = tool.RULES.with_name("alertmanager.yaml")
ENTRIES = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))


def blocks() -> list[tuple[str, str]]:
    """Return the name and the text of each alert rule."""
    return re.findall(r"- alert: (\S+)\n(.*?)(?=\n      - |\Z)", RULES, re.DOTALL)


def test_runbook_has_every_alert() -> None:
    """Each alert has an entry in the runbook, and each entry an alert."""
    assert set(ENTRIES) == tool.alerts()


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_entries_say_what_they_must(name: str) -> None:
    """An entry says what the alert means, how to look (with a query), what to do, and when it is false."""
    for part in ("What it means", "How to look", "What to do", "When it is false"):
        assert f"**{part}.**" in ENTRIES[name]
    assert re.search(r"```(promql|logql|traceql)\n", ENTRIES[name])


def test_lost_is_not_heard_from() -> None:
    """OperationLost first says that the run is not heard from, as nothing else is known."""
    assert ENTRIES["OperationLost"].lstrip().startswith("**What it means.** It is *not heard from*")
    assert "not heard from" in dict(blocks())["OperationLost"]


@pytest.mark.parametrize(("name", "text"), blocks())
def test_alerts_are_complete(name: str, text: str) -> None:
    """An alert has a severity, a summary, a description, and the link to its own entry."""
    assert re.search(r"severity: (critical|warning)\n", text)
    assert "summary: " in text
    assert "description: " in text
    assert text.rstrip().splitlines()[-1].strip() == f"runbook_url: https://runbook.invalid#{name.lower()}" or (
        f"runbook_url: https://runbook.invalid#{name.lower()}\n" in text
    )


def test_names_are_those_of_semconv() -> None:
    """Rules, routing and runbook use only series and labels of semconv.py."""
    attributes = {label(value) for value in vars(s).values() if isinstance(value, str) and value.startswith(s.PREFIX)}
    metrics = {metric(of, counter) for of in s.METRICS for counter in (False, True)} | {
        f"{metric(of)}_bucket" for of in (s.OPERATION_DURATION, s.STAGE_DURATION)
    }
    for text in (RULES, ALERTMANAGER.read_text(encoding="utf-8"), RUNBOOK):
        found = set(re.findall(r"(?<![\w:])progress_\w+", text))
        assert found
        assert found <= attributes | metrics, found - attributes - metrics


def test_queries_of_the_runbook_are_queries(promtool: str, tmp_path: Path) -> None:
    """Prometheus accepts each query of the runbook."""
    queries = re.findall(r"```promql\n(.*?)```", RUNBOOK, re.DOTALL)
    assert len(queries) >= 10
    rules = [{"record": f"query{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "queries.json"
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}), encoding="utf-8")
    done = subprocess.run(
        [promtool, "check", "rules", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_rules_load(promtool: str) -> None:
    """Prometheus accepts the rules."""
    done = subprocess.run(
        [promtool, "check", "rules", str(tool.RULES)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


ANNOTATIONS = {
    "stuck_recovers": (
        "OperationStuck",
        300,
        {
            "summary": "load is stuck: no progress for 3m 20s",
            "description": "Run r1 of load in work (a) is alive, but made no progress for 3m 20s; its limit is 1m 0s.",
            "stage": "fetch",
            "stuck_at": "worker.py:12 in fetch",
            "parent": "none",
            "runbook_url": "https://runbook.invalid#operationstuck",
        },
    ),
    "looping": (
        "OperationLooping",
        300,
        {
            "summary": "load goes round in circles",
            "description": "Run r1 of load in work (a) is busy, but repeats the same steps without new progress.",
            "stage": "fetch",
            "stuck_at": "worker.py:12 in fetch",
            "parent": "none",
            "runbook_url": "https://runbook.invalid#operationlooping",
        },
    ),
    "killed": (
        "OperationLost",
        700,
        {
            "summary": "load is not heard from",
            "description": (
                "Nothing was heard for more than 4 minutes of run r1 of load in work (a), and it had not reported its end: "
                "its process was killed, stopped, frozen or cut off. "
                "When it was last heard, it had made no progress for 0s."
            ),
            "stage": "fetch",
            "parent": "none",
            "runbook_url": "https://runbook.invalid#operationlost",
        },
    ),
}


# Looping is known only from the series with the line.
@pytest.mark.parametrize(
    ("name", "told"), [(name, True) for name in ANNOTATIONS] + [("stuck_recovers", False), ("killed", False)]
)
def test_annotations(promtool: str, name: str, told: bool, tmp_path: Path) -> None:
    """The annotations name the run, its idle time, its limit, its stage and its line; without a line the alert remains."""
    alert, time, annotations = ANNOTATIONS[name]
    [scenario] = [it for it in SCENARIOS if str(it) == f"{name}-pushed"]
    test = tool.test_of(scenario)
    if not told:
        test["input_series"] = [it for it in test["input_series"] if not it["series"].startswith("progress_run_health")]
        annotations = {key: "unknown" if key in ("stage", "stuck_at") else text for key, text in annotations.items()}
    labels = {"job": "work", "instance": "a", "severity": "critical"}
    labels |= {label(s.OPERATION_NAME): "load", label(s.OPERATION_ID): "r1"}
    expected = [{"exp_labels": labels, "exp_annotations": annotations}]
    test["promql_expr_test"] = []
    test["alert_rule_test"] = [{"eval_time": f"{time}s", "alertname": alert, "exp_alerts": expected}]
    file = tmp_path / "test.json"
    content = {"rule_files": [str(tool.RULES)], "evaluation_interval": "15s", "tests": [test]}
    file.write_text(json.dumps(content), encoding="utf-8")
    done = subprocess.run(
        [promtool, "test", "rules", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# A child has another name and instance, and a doubled series must not be reported twice.
CHILDREN = {
    "child_elsewhere_stuck": ("OperationStuck", 600, "b"),
    "child_elsewhere_killed": ("OperationLost", 800, "b"),
    "child_here_stuck": ("OperationStuck", 450, "a"),
}


@pytest.mark.parametrize("doubled", [False, True])
@pytest.mark.parametrize("name", CHILDREN)
def test_the_alert_of_a_child_names_its_parent(promtool: str, name: str, doubled: bool, tmp_path: Path) -> None:
    """The annotation `parent` is the id of the parent, once."""
    alert, time, instance = CHILDREN[name]
    [scenario] = [it for it in SCENARIOS if str(it) == f"{name}-pushed"]
    way = replace(scenario.world.way, doubled=doubled)
    test = tool.test_of(replace(scenario, world=replace(scenario.world, way=way)))
    series = {"job": "work", "instance": instance, label(s.OPERATION_NAME): "part", label(s.OPERATION_ID): "c1"}
    rules = tmp_path / "rules.yaml"
    rules.write_text(only_annotation(RULES, "parent"), encoding="utf-8")
    expected = [{"exp_labels": {**series, "severity": "critical"}, "exp_annotations": {"parent": "r1"}}]
    test["promql_expr_test"] = []
    test["alert_rule_test"] = [{"eval_time": f"{time}s", "alertname": alert, "exp_alerts": expected}]
    file = tmp_path / "test.json"
    content = {"rule_files": [str(rules)], "evaluation_interval": "15s", "tests": [test]}
    file.write_text(json.dumps(content), encoding="utf-8")
    done = subprocess.run(
        [promtool, "test", "rules", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def only_annotation(rules: str, name: str) -> str:
    """Return the rules with only one annotation."""
    found = yaml.safe_load(rules)
    for group in found["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                rule["annotations"] = {key: text for key, text in rule["annotations"].items() if key == name}
    return yaml.safe_dump(found)


def test_alerts_of_runs_name_the_parent() -> None:
    """Every alert about a run that has started names its parent."""
    have = {rule for rule, text in blocks() if " parent: >-\n" in text}
    assert have == {rule for rule, _ in blocks() if rule.startswith("Operation")} - {"OperationNotStarted"}


# -- Alertmanager


def amtool() -> str:
    """Return the path of amtool."""
    found = shutil.which("amtool")
    if found is None:
        pytest.skip("there is no amtool: `make stack` installs it")
    return found


def test_alertmanager_takes_its_configuration() -> None:
    """Alertmanager accepts both configurations."""
    files = [str(ALERTMANAGER), str(ROOT / "examples" / "alerting" / "alertmanager.yaml")]
    done = subprocess.run([amtool(), "check-config", *files], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_inhibition_names_alerts() -> None:
    """Each alert named in an inhibition exists, and PipelineDown inhibits every other one."""
    text = ALERTMANAGER.read_text(encoding="utf-8")
    patterns = re.findall(r'alertname=~?"([^"]+)"', text)
    for pattern in patterns:
        for part in pattern.split("|"):
            assert any(re.fullmatch(part, name) for name in tool.alerts()), part
    [everything] = [pattern for pattern in patterns if "Operation.*" in pattern]
    assert {name for name in tool.alerts() if re.fullmatch(everything, name)} == tool.alerts() - {"PipelineDown"}
