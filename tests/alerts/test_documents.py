"""The rules, their annotations, the runbook and Alertmanager's configuration agree."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, quote, quote_plus, urlsplit

import pytest
import yaml
from grafana.generator.firing import since

from otel_progress import semconv as s

from . import promtool as tool
from .runs import Run, label, metric
from .scenarios import SCENARIOS

ROOT = Path(__file__).parents[2]
RULES = tool.RULES.read_text(encoding="utf-8")
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
ALERTMANAGER = tool.RULES.with_name("alertmanager.yaml")
LINKS = tool.RULES.with_name("links.yaml")
JOBS = tool.RULES.with_name("jobs.yaml")
WATCHDOG = tool.RULES.with_name("watchdog.yaml")
TEMPLATE = tool.RULES.with_name("otel-progress.tmpl")
ADDRESS = '{{{{ range query "progress:links" }}}}{{{{ .Labels.{} }}}}{{{{ end }}}}'
OURS = {"product": "otel-progress"}
"""The label that all of these alerts have, and no other."""
ENTRIES = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))


def blocks() -> list[tuple[str, str]]:
    """Return the name and the text of each alert rule."""
    return re.findall(r"- alert: (\S+)\n(.*?)(?=\n      - |\Z)", RULES, re.DOTALL)


def test_runbook_has_every_alert() -> None:
    """Each alert has an entry in the runbook, and each entry an alert."""
    assert set(ENTRIES) == tool.alerts() | tool.alerts(WATCHDOG) | tool.alerts(JOBS)


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_entries_say_what_they_must(name: str) -> None:
    """An entry says what the alert means, how to look (with a query), what to do, and when it is false."""
    for part in ("What it means", "How to look", "What to do", "When it is false"):
        assert f"**{part}.**" in ENTRIES[name]
    assert re.search(r"```(promql|logql|traceql)\n", ENTRIES[name])


def test_lost_is_not_heard_from() -> None:
    """OperationLost first says that the run is not heard from, as nothing else is known."""
    assert ENTRIES["OperationLost"].lstrip().startswith("**What it means.** It is *not heard from*")
    assert "not heard from" in next(text for name, text in blocks() if name == "OperationLost")


@pytest.mark.parametrize(("name", "text"), blocks())
def test_alerts_are_complete(name: str, text: str) -> None:
    """An alert has the label of all of ours, a severity, a summary, a description, and links to its own entry, a dashboard and a silence."""
    assert re.search(r"product: otel-progress\n +severity: (critical|warning)\n", text)
    assert "summary: " in text
    assert "description: " in text
    assert re.search(rf"runbook_url: >-\n +{re.escape(ADDRESS.format('runbook'))}\S*.*#{name.lower()}\n", text)
    assert "dashboard_url: " in text
    assert "silence_url: " in text


def test_names_are_those_of_semconv() -> None:
    """Rules, routing and runbook use only series and labels of semconv.py."""
    attributes = {label(value) for value in vars(s).values() if isinstance(value, str) and value.startswith(s.PREFIX)}
    metrics = {metric(of, counter) for of in s.METRICS for counter in (False, True)} | {
        f"{metric(of)}_bucket" for of in (s.OPERATION_DURATION, s.STAGE_DURATION)
    }
    for text in (RULES, JOBS.read_text(encoding="utf-8"), ALERTMANAGER.read_text(encoding="utf-8"), RUNBOOK):
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


WHO = "var-name=load&var-id=r1&var-job=work&var-service=work&var-instance=a"
ANNOTATIONS = {
    "stuck_recovers": (
        "OperationStuck",
        300,
        {
            "summary": "load is stuck in fetch: no progress for 3 min 20 s",
            "description": (
                "Run r1 of load in work (a) is alive, but made no progress in its stage fetch for 3 min 20 s; "
                "its limit is 1 min. It has completed 412 of 1000."
            ),
            "stage": "fetch",
            "stuck_at": "worker.py:12 in fetch",
            "process": "pid 4711 on worker-3",
            "parent": "none",
            "outcome": "unknown",
            "runbook_url": f"https://runbook.invalid?{WHO}#operationstuck",
            "dashboard_url": (
                "https://grafana.invalid/d/otel-progress-operation?var-name=load&var-id=r1&var-job=work&from=-60000&to=now"
            ),
            "silence_url": (
                "https://alertmanager.invalid/#/silences/new?filter="
                "%7Bjob%3D%22work%22%2Cprogress_operation_name%3D%22load%22%2Cprogress_operation_id%3D%22r1%22%7D"
            ),
        },
    ),
    "looping": (
        "OperationLooping",
        300,
        {
            "summary": "load goes round in circles: read → search",
            "description": (
                "Run r1 of load in work (a) is busy, but repeats the same steps without new progress: read → search, "
                "12 times, for 0.42 USD, with 15000 tokens."
            ),
            "stage": "fetch",
            "stuck_at": "worker.py:12 in fetch",
            "parent": "none",
            "runbook_url": f"https://runbook.invalid?{WHO}#operationlooping",
        },
    ),
    "waits_too_long": (
        "OperationOverdueWait",
        390,
        {
            "summary": "load waits longer than its limit of 3 min 20 s (approval by Ann): overdue by 1 min 30 s",
            "description": (
                "Run r1 of load in work (a) is in a declared wait that is overdue by 1 min 30 s; "
                "it waits for: approval by Ann, and its limit is 3 min 20 s."
            ),
        },
    ),
    "waits_a_little_too_long": (
        "OperationOverdueWait",
        300,
        {
            "summary": "load waits longer than its limit of 3 min 20 s (approval by Ann)",
            "description": (
                "Run r1 of load in work (a) is in a declared wait that is overdue now; "
                "it waits for: approval by Ann, and its limit is 3 min 20 s."
            ),
        },
    ),
    "killed": (
        "OperationLost",
        700,
        {
            "summary": "load is not heard from for 5 min",
            "description": (
                "Nothing was heard for 5 min of run r1 of load in work (a), and it had not reported its end: "
                "its process was killed, stopped, frozen or cut off. "
                "At the last count it had completed 412 of 1000."
            ),
            "stage": "fetch",
            "process": "pid 4711 on worker-3",
            "parent": "none",
            "runbook_url": f"https://runbook.invalid?{WHO}#operationlost",
        },
    ),
    "proven": (
        "OperationLost",
        700,
        {
            "summary": "load is lost: killed by SIGKILL (out of memory)",
            "description": (
                "The process of run r1 of load in work (a) is gone: killed by SIGKILL (out of memory). The run had not ended. "
                "At the last count it had completed 412 of 1000."
            ),
            "stage": "fetch",
        },
    ),
    "proven_gone": (
        "OperationLost",
        700,
        {
            "summary": "load is lost: its process is gone",
            "description": (
                "The process of run r1 of load in work (a) is gone. The run had not ended. "
                "At the last count it had completed 412 of 1000."
            ),
        },
    ),
    "stuck_killed": (
        "OperationLost",
        800,
        {"stage": "fetch", "stuck_at": "worker.py:12 in fetch", "process": "pid 4711 on worker-3"},
    ),
    "killed_in_an_outage": (
        "OperationLost",
        990,
        {
            "summary": "load is unheard since an outage; it may have ended",
            "description": (
                "Nothing was heard for 11 min 40 s of run r1 of load in work (a). Its silence began in an outage of the "
                "Collectors or of Prometheus, or just before a restart of a Collector: it may have ended, or its "
                "process was killed. At the last count it had completed 412 of 1000."
            ),
        },
    ),
}
ANNOTATIONS |= {
    "branch_hangs_beside_loop": (
        "OperationStuck",
        400,
        {"stage": "hangs", "stuck_at": "worker.py:12 in fetch"},
    ),
    "branch_hangs_beside_loop:looping": (
        "OperationLooping",
        400,
        {
            "summary": "load goes round in circles: read → search",
            "stage": "circles",
            "stuck_at": "agent.py:7 in turn",
        },
    ),
    "branch_overdue_beside_hang": ("OperationOverdueWait", 400, {"stage": "approval"}),
}
COUNTED = {"progress_run_completed": 412, "progress_run_total": 1000}
PROCESS = 'target_info{job="work",instance="a",host_name="worker-3",process_pid="4711",service_version="1"}'
NOT_BY_MODEL = {
    "progress_run_loop_repeats": (12, ""),
    "progress_run_loop_cost": (0.42, ',progress_currency="USD"'),
    "progress_run_loop_tokens": (15000, ""),
    "progress_run_overdue_after_seconds": (
        200,
        ',progress_wait_reason="approval by Ann",progress_stage_name="approval"',
    ),
}
"""Series that only the texts use."""


def checked(promtool: str, test: dict[str, object], rules: Path, folder: Path) -> None:
    """Run a test of promtool."""
    file = folder / "test.json"
    content = {"rule_files": [str(rules), str(LINKS)], "evaluation_interval": "15s", "tests": [test]}
    file.write_text(json.dumps(content), encoding="utf-8")
    done = subprocess.run(
        [promtool, "test", "rules", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# Looping is known only from the series with the line.
@pytest.mark.parametrize(
    ("name", "told"), [(name, True) for name in ANNOTATIONS] + [("stuck_recovers", False), ("killed", False)]
)
def test_annotations(promtool: str, name: str, told: bool, tmp_path: Path) -> None:
    """The annotations name the run, its times, its count, its process, its stage, its line and its loop.

    Without a process and a line the alert remains.
    """
    alert, time, annotations = ANNOTATIONS[name]
    [scenario] = [it for it in SCENARIOS if str(it) == f"{name.removesuffix('_gone').partition(':')[0]}-pushed"]
    test = tool.test_of(scenario)
    who = 'job="work",instance="a",progress_operation_name="load",progress_operation_id="r1"'
    test["input_series"] = [dict(it) for it in test["input_series"]]  # scenarios share them
    if name.endswith("_gone"):
        for it in test["input_series"]:
            it["series"] = it["series"].replace("killed by SIGKILL (out of memory)", "gone")
    if told:
        test["input_series"].append({"series": PROCESS, "values": "1x60"})
    else:
        annotations = annotations | ({"process": "unknown"} if "process" in annotations else {})
    for series, count in COUNTED.items():
        test["input_series"].append({"series": f"{series}{{{who}}}", "values": f"{count}x60"})
    if not told:
        test["input_series"] = [it for it in test["input_series"] if not it["series"].startswith("progress_run_health")]
        annotations = {key: "unknown" if key in ("stage", "stuck_at") else text for key, text in annotations.items()}
        annotations = {
            key: text.replace(" in its stage fetch", "").replace(" in fetch", "") for key, text in annotations.items()
        }
    if name == "looping" or alert == "OperationOverdueWait":
        for series, (value, more) in NOT_BY_MODEL.items():
            test["input_series"].append({"series": f"{series}{{{who}{more}}}", "values": f"{value}x60"})
    severity = next(fires for fires in scenario.alerts if fires.alert == alert).severity or tool.SEVERITY.get(alert)
    labels = {**OURS, "job": "work", "instance": "a", "severity": severity or "critical"}
    labels |= {label(s.OPERATION_NAME): "load", label(s.OPERATION_ID): "r1"}
    test["promql_expr_test"] = []
    expected = [{"exp_labels": labels, "exp_annotations": annotations}]
    test["alert_rule_test"] = [{"eval_time": f"{time}s", "alertname": alert, "exp_alerts": expected}]
    rules = tmp_path / "rules.yaml"
    rules.write_text(only_annotations(RULES, annotations), encoding="utf-8")
    checked(promtool, test, rules, tmp_path)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("stuck_recovers", "1 min. The current stage has completed 412 of 1000."),
        ("killed", "or cut off. At the last count its stage had completed 412 of 1000."),
    ],
)
def test_the_count_of_a_stage_is_called_that(promtool: str, name: str, says: str, tmp_path: Path) -> None:
    """Where only the current stage counts, a message does not take its count for the operation's."""
    alert, time, annotations = ANNOTATIONS[name]
    description = annotations["description"]
    own = next(text for text in ("1 min. It has", "or cut off. At the last count it had") if text in description)
    whole = {"description": description[: description.index(own)] + says}
    [scenario] = [it for it in SCENARIOS if str(it) == f"{name}-pushed"]
    test = tool.test_of(scenario)
    who = 'job="work",instance="a",progress_operation_name="load",progress_operation_id="r1",progress_of="stage"'
    counted = [{"series": f"{series}{{{who}}}", "values": f"{count}x60"} for series, count in COUNTED.items()]
    labels = {**OURS, "job": "work", "instance": "a", "severity": "critical"}
    labels |= {label(s.OPERATION_NAME): "load", label(s.OPERATION_ID): "r1"}
    expected = [{"exp_labels": labels, "exp_annotations": whole}]
    test |= {
        "input_series": [*test["input_series"], *counted],
        "promql_expr_test": [],
        "alert_rule_test": [{"eval_time": f"{time}s", "alertname": alert, "exp_alerts": expected}],
    }
    rules = tmp_path / "rules.yaml"
    rules.write_text(only_annotations(RULES, whole), encoding="utf-8")
    checked(promtool, test, rules, tmp_path)


@pytest.mark.parametrize("key", ["a/b c+d%&e", 'run "A"&b=1 {x}#% \\', "Prüfung №1", "a\tb\u202e \u00a0"])
def test_links_lead_to_the_run(promtool: str, key: str, tmp_path: Path) -> None:
    """Every link of an alert is absolute, survives odd names, and has the run's name, its id and its own time range."""
    [scenario] = [it for it in SCENARIOS if str(it) == "stuck_recovers-pushed"]
    run = replace(scenario.world.runs[0], name="load", id=key)
    test = tool.test_of(replace(scenario, world=replace(scenario.world, runs=(run,))))
    pane = (
        "https://grafana.invalid/explore?schemaVersion=1&panes=%7B%22one%22%3A%7B%22datasource%22%3A%22otel-progress-{0}"
        "%22%2C%22queries%22%3A%5B%7B%22refId%22%3A%22A%22%2C%22datasource%22%3A%7B%22type%22%3A%22{0}%22%2C%22uid%22%3A%22"
        "otel-progress-{0}%22%7D%2C{1}%7D%5D%2C%22range%22%3A%7B%22from%22%3A%22-60000%22%2C%22to%22%3A%22now%22%7D%7D%7D"
    )
    # Go, and so Loki and Tempo, write these with escapes.
    text = re.sub(r"[\u202e\u00a0]", lambda it: f"\\u{ord(it[0]):04x}", json.dumps(key, ensure_ascii=False))
    # Alertmanager knows no other escapes than these: others it compares as they are written.
    matcher = '"' + key.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    of = quote_plus(json.dumps(text, ensure_ascii=False)[1:-1])
    annotations = {
        "trace_url": pane.format(
            "tempo",
            "%22queryType%22%3A%22traceql%22%2C%22query%22%3A%22%7B%20resource.service.name%20%3D%20%5C%22work%5C%22%20%26%26%20"
            f"span.progress.operation.id%20%3D%20{of}%20%7D%22%2C%22limit%22%3A20%2C%22tableType%22%3A%22traces%22",
        ),
        "logs_url": pane.format(
            "loki",
            f"%22expr%22%3A%22%7Bservice_name%3D%5C%22work%5C%22%7D%20%7C%20progress_operation_id%3D{of}%22"
            "%2C%22queryType%22%3A%22range%22",
        ),
        "silence_url": "https://alertmanager.invalid/#/silences/new?filter="
        + quote(f'{{job="work",progress_operation_name="load",progress_operation_id={matcher}}}', safe=""),
    }
    for url in annotations.values():
        assert urlsplit(url).hostname
    panes = json.loads(parse_qs(urlsplit(annotations["trace_url"]).query)["panes"][0])
    assert panes["one"]["queries"][0]["query"] == (
        f'{{ resource.service.name = "work" && span.progress.operation.id = {text} }}'
    )
    panes = json.loads(parse_qs(urlsplit(annotations["logs_url"]).query)["panes"][0])
    assert panes["one"]["queries"][0]["expr"] == f'{{service_name="work"}} | progress_operation_id={text}'
    labels = {**OURS, "job": "work", "instance": "a", "severity": "critical"}
    labels |= {label(s.OPERATION_NAME): "load", label(s.OPERATION_ID): key}
    expected = [{"exp_labels": labels, "exp_annotations": annotations}]
    test["promql_expr_test"] = []
    test["alert_rule_test"] = [{"eval_time": "300s", "alertname": "OperationStuck", "exp_alerts": expected}]
    rules = tmp_path / "rules.yaml"
    rules.write_text(only_annotations(RULES, annotations), encoding="utf-8")
    checked(promtool, test, rules, tmp_path)


OUTCOMES = {
    "failed": ("stuck_ends", Run(moves=((0, 100),), end=500, outcome="failed"), "OperationStuck", 510, "failed"),
    "cancelled": (
        "stuck_ends",
        Run(moves=((0, 100),), end=500, outcome="cancelled"),
        "OperationStuck",
        510,
        "cancelled",
    ),
    "recovered": ("stuck_recovers", None, "OperationStuck", 510, "recovered"),
    "heard_again": ("stopped", None, "OperationLost", 910, "recovered"),
    "resumed": ("resumed_late", None, "OperationLost", 920, "resumed"),
    "killed_and_resumed": ("stuck_proven", None, "OperationStuck", 820, "resumed"),
}


@pytest.mark.parametrize("case", OUTCOMES)
def test_outcome(promtool: str, case: str, tmp_path: Path) -> None:
    """The last annotations of an alert, which Prometheus sends with its end, say how it ended; a failure is no recovery."""
    name, run, alert, time, outcome = OUTCOMES[case]
    [scenario] = [it for it in SCENARIOS if str(it) == f"{name}-pushed"]
    if run is not None:
        scenario = replace(scenario, world=replace(scenario.world, runs=(run,)))
    severity = tool.SEVERITY.get(alert, "critical")
    labels = {**OURS, "job": "work", "instance": "a", "severity": severity}
    labels |= {label(s.OPERATION_NAME): "load", label(s.OPERATION_ID): "r1"}
    test = tool.test_of(scenario)
    test["promql_expr_test"] = []
    told = [{"exp_labels": labels, "exp_annotations": {"outcome": outcome}}]
    test["alert_rule_test"] = [
        {"eval_time": f"{time - 10}s", "alertname": alert, "exp_alerts": told},
        {"eval_time": f"{time}s", "alertname": alert, "exp_alerts": []},
    ]
    rules = tmp_path / "rules.yaml"
    rules.write_text(only_annotations(RULES, ["outcome"]), encoding="utf-8")
    file = tmp_path / "test.json"
    content = {"rule_files": [str(rules), str(LINKS)], "evaluation_interval": "10s", "tests": [test]}
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
    rules.write_text(only_annotations(RULES, ["parent"]), encoding="utf-8")
    expected = [
        {"exp_labels": {**series, **OURS, "severity": "critical"}, "exp_annotations": {"parent": "r1 (load in work)"}}
    ]
    test["promql_expr_test"] = []
    test["alert_rule_test"] = [{"eval_time": f"{time}s", "alertname": alert, "exp_alerts": expected}]
    checked(promtool, test, rules, tmp_path)


def only_annotations(rules: str, names: Collection[str]) -> str:
    """Return the rules with only these annotations."""
    found = yaml.safe_load(rules)
    for group in found["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                rule["annotations"] = {key: text for key, text in rule["annotations"].items() if key in names}
    return yaml.safe_dump(found)


def test_alerts_name_the_process() -> None:
    """Every alert about a run or an instance names the pid and the host, and each message shows them."""
    have = {rule for rule, text in blocks() if " process: " in text}
    assert have == {rule for rule, _ in blocks()} - {"PipelineDown", "ErrorRate"}
    assert TEMPLATE.read_text(encoding="utf-8").count(".Annotations.process") == 2
    assert ".Annotations.process" in TEMPLATE.with_name("receivers.yaml").read_text(encoding="utf-8")


def test_alerts_of_runs_name_the_parent() -> None:
    """Every alert about a run that has started names its parent."""
    have = {rule for rule, text in blocks() if " parent: " in text}
    assert have == {rule for rule, _ in blocks() if rule.startswith("Operation")} - {"OperationNotStarted"}


# -- Alertmanager


def amtool() -> str:
    """Return the path of amtool."""
    found = shutil.which("amtool")
    if found is None:
        pytest.skip("there is no amtool: `make stack` installs it")
    return found


def test_alertmanager_takes_its_configuration() -> None:
    """Alertmanager accepts all configurations."""
    files = [
        str(ALERTMANAGER),
        str(ALERTMANAGER.with_name("receivers.yaml")),
        str(ALERTMANAGER.with_name("slack.yaml")),
        str(ROOT / "examples" / "alerting" / "alertmanager.yaml"),
    ]
    done = subprocess.run([amtool(), "check-config", *files], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_the_configuration_for_slack_is_the_others_together() -> None:
    """The complete configuration for Slack routes and inhibits as alertmanager.yaml, with the receiver of receivers.yaml."""
    ours, plain, receivers = (
        yaml.safe_load(ALERTMANAGER.with_name(f"{name}.yaml").read_text(encoding="utf-8"))
        for name in ("slack", "alertmanager", "receivers")
    )
    assert ours["inhibit_rules"] == plain["inhibit_rules"]
    assert json.dumps(ours["route"]) == json.dumps(plain["route"]).replace('"default"', '"slack"')
    [slack] = ours["receivers"][0]["slack_configs"]
    [other] = receivers["receivers"][0]["slack_configs"]
    assert {key: text for key, text in slack.items() if key != "api_url_file"} == {
        key: text for key, text in other.items() if key != "api_url"
    }


def test_inhibition_names_alerts() -> None:
    """Each alert named in an inhibition exists, and PipelineDown inhibits every other one."""
    _, text = ALERTMANAGER.read_text(encoding="utf-8").split("inhibit_rules:")
    patterns = re.findall(r'alertname=~?"([^"]+)"', text)
    for pattern in patterns:
        for part in pattern.split("|"):
            assert any(re.fullmatch(part, name) for name in tool.alerts()), part
    [everything] = [pattern for pattern in patterns if "Operation.*" in pattern]
    assert {name for name in tool.alerts() if re.fullmatch(everything, name)} == tool.alerts() - {"PipelineDown"}


FIRING: list[dict[str, str]] = [
    {**OURS, "alertname": name, "severity": severity, "job": "work", "instance": instance, **more}
    for name, severity in (
        ("OperationLost", "critical"),
        ("OperationLost", "warning"),
        ("OperationLooping", "critical"),
        ("OperationStuck", "critical"),
        ("OperationSlow", "warning"),
        ("OperationOverdueWait", "warning"),
        ("OperationNotStarted", "warning"),
        ("StuckByName", "critical"),
        ("ReporterLost", "critical"),
        ("ReporterLost", "warning"),
        ("PipelineDown", "critical"),
        ("PipelineDown", "warning"),
        ("ErrorRate", "warning"),
    )
    for instance in ("a", "b")
    for more in (
        (
            {label(s.OPERATION_NAME): "load", label(s.OPERATION_ID): "r1"},
            {label(s.OPERATION_NAME): "load", label(s.OPERATION_ID): "r2"},
        )
        if name.startswith("Operation")
        else ({label(s.OPERATION_NAME): "load"},)
        if name in ("StuckByName", "ErrorRate")
        else ({},)
    )
]


def inhibited(alert: dict[str, str], firing: list[dict[str, str]]) -> bool:
    """Return whether Alertmanager holds an alert back while these fire."""
    for rule in yaml.safe_load(ALERTMANAGER.read_text(encoding="utf-8"))["inhibit_rules"]:
        sources = [it for it in firing if matches(it, rule["source_matchers"])]
        if matches(alert, rule["target_matchers"]) and any(
            all(alert.get(key) == it.get(key) for key in rule.get("equal", ())) for it in sources if it is not alert
        ):
            return True
    return False


def test_alerts_of_others_are_left_alone() -> None:
    """An alert of another product with one of our names inhibits none of ours, and none of ours inhibits it."""
    foreign = [{key: text for key, text in it.items() if key not in OURS} for it in FIRING]
    for it in FIRING:
        assert not inhibited(it, [*foreign, it]), it
    for it in foreign:
        assert not inhibited(it, [*FIRING, it]), it


@pytest.mark.parametrize("name", ["alertmanager.yaml", "receivers.yaml"])
def test_only_alerts_of_ours_take_our_route(name: str) -> None:
    """The route to append to another configuration takes all alerts of ours and no other, and both files have the same times."""
    [ours] = yaml.safe_load(TEMPLATE.with_name(name).read_text(encoding="utf-8"))["route"]["routes"]
    assert ours["matchers"] == [f'{key}="{value}"' for key, value in OURS.items()]
    by = ["alertname", "severity", label(s.ENVIRONMENT), "job", label(s.OPERATION_NAME)]
    # Prometheus sends a resolved alert again after 60 s, at the next evaluation: each message must have all of them.
    assert (ours["group_wait"], ours["group_interval"], ours["group_by"]) == ("10s", "90s", by)


@pytest.mark.parametrize("name", ["alertmanager.yaml", "receivers.yaml"])
def test_the_watchdog_reaches_nobody_but_its_receiver(name: str) -> None:
    """The alert that always fires goes to a receiver of its own, and no other alert does."""
    command = [amtool(), "config", "routes", "test", f"--config.file={TEMPLATE.with_name(name)}"]
    for alert in [{**OURS, "alertname": "Watchdog", "severity": "none"}, *FIRING]:
        labels = [f"{key}={value}" for key, value in alert.items()]
        done = subprocess.run([*command, *labels], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert (done.stdout.strip() == "watchdog") == (alert["alertname"] == "Watchdog"), alert
        assert alert["alertname"] == "Watchdog" or "watchdog" not in done.stdout


def test_the_watchdog_fires_from_the_start(promtool: str, tmp_path: Path) -> None:
    """The watchdog needs no data, and nothing inhibits it."""
    (tmp_path / "watchdog.yaml").write_text(WATCHDOG.read_text(encoding="utf-8"), encoding="utf-8")
    labels = selected = 'ALERTS{alertname="Watchdog", alertstate="firing", product="otel-progress", severity="none"}'
    test = {
        "interval": "10s",
        "promql_expr_test": [{"expr": selected, "eval_time": "10s", "exp_samples": [{"labels": labels, "value": 1}]}],
    }
    file = tmp_path / "test.json"
    file.write_text(json.dumps({"rule_files": ["watchdog.yaml"], "tests": [test]}), encoding="utf-8")
    done = subprocess.run(
        [promtool, "test", "rules", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not inhibited({**OURS, "alertname": "Watchdog", "severity": "none"}, FIRING)


def matches(alert: dict[str, str], matchers: list[str]) -> bool:
    """Return whether all matchers apply to an alert."""
    found = [re.fullmatch(r'(\w+)(=~?)"(.*)"', matcher) for matcher in matchers]
    return all(it and re.fullmatch(it[3] if it[2] == "=~" else re.escape(it[3]), alert.get(it[1], "")) for it in found)


def test_dashboards_hide_what_alertmanager_inhibits(promtool: str, tmp_path: Path) -> None:
    """The dashboards list exactly the firing alerts that the shipped routing does not inhibit, and since when."""
    labels = "alertname, severity, job, instance, progress_operation_name, progress_operation_id"
    query = "max without (start) (" + since('job=~".+"', labels) + ")"
    chance = random.Random(7)
    tests = []
    for _ in range(60):
        firing = chance.sample(FIRING, chance.randint(1, 6))
        series = [
            (name, {**it, **more}, value)
            for it in firing
            for name, more, value in (("ALERTS", {"alertstate": "firing"}, 1), ("ALERTS_FOR_STATE", {}, 7))
        ]
        shown = [it for it in firing if not inhibited(it, firing)]
        tests.append(
            {
                "interval": "10s",
                "input_series": [
                    {"series": tool.selector(name, tuple(it.items())), "values": f"{value}x3"}
                    for name, it, value in series
                ],
                "promql_expr_test": [
                    {
                        "expr": query,
                        "eval_time": "20s",
                        "exp_samples": [
                            {
                                "labels": tool.selector("", tuple(kv for kv in it.items() if kv[0] not in OURS)),
                                "value": 7000,
                            }
                            for it in shown
                        ],
                    }
                ],
            }
        )
    file = tmp_path / "tests.json"
    file.write_text(json.dumps({"evaluation_interval": "10s", "tests": tests}), encoding="utf-8")
    done = subprocess.run(
        [promtool, "test", "rules", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def at(seconds: float) -> str:
    """Return a time as Alertmanager writes it."""
    return f"2026-11-29T{12 + int(seconds) // 3600:02}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02}Z"


def sent(
    status: str, run: str, severity: str = "critical", begin: float = 0, end: float = 0, **annotations: str
) -> dict[str, object]:
    """Return an alert as Alertmanager gives it to a template; begin and end are in seconds after noon."""
    links = ("runbook", "dashboard", "trace", "logs", "silence")
    return {
        "status": status,
        "startsAt": at(begin),
        "endsAt": at(end),
        "labels": {"alertname": "OperationStuck", "severity": severity, label(s.OPERATION_ID): run},
        "annotations": {
            "summary": f"load is {status} <b>",
            "description": f"Run {run}.",
            "stage": "fetch",
            **{f"{link}_url": f"https://{link}.example/?a=1&id={run}#x" for link in links},
            **annotations,
        },
    }


MESSAGE: dict[str, object] = {
    "status": "firing",
    "commonLabels": {"alertname": "OperationStuck", "job": "work", label(s.OPERATION_NAME): "load"},
    "alerts": [
        sent("resolved", "r0", "warning"),
        sent("firing", "r1"),
        sent("resolved", "r2", stage="unknown", stuck_at="unknown"),
    ],
}
"""A recovered run stands before the one that hangs, as Alertmanager sorts by labels."""


def rendered(text: str, data: Path, kind: str = "text", message: dict[str, object] = MESSAGE) -> str:
    """Return what a template makes of a message."""
    data.write_text(json.dumps(message), encoding="utf-8")
    options = [f"--template.glob={TEMPLATE}", f"--template.data={data}", f"--template.type={kind}"]
    command = [amtool(), "template", "render", *options, f"--template.text={text}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "<no value>" not in done.stdout
    return done.stdout


def texts(value: object) -> list[str]:
    """Return all templates in a receiver."""
    if isinstance(value, dict):
        return [text for it in value.values() for text in texts(it)]
    if isinstance(value, list):
        return [text for it in value for text in texts(it)]
    return [value] if isinstance(value, str) and "{{" in value else []


def test_receivers_name_the_run_that_fires(tmp_path: Path) -> None:
    """No field of a receiver shows a recovered run as the one that fires, whatever the order in the group."""
    [*receivers] = yaml.safe_load(TEMPLATE.with_name("receivers.yaml").read_text(encoding="utf-8"))["receivers"]
    single = [text for it in receivers for text in texts(it) if ".text" not in text and ".html" not in text]
    assert len(single) >= 10
    for text in single:
        shown = rendered(text, tmp_path / "data.json")
        assert "r0" not in shown, text
        assert "r2" not in shown, text
        assert "resolved" not in shown, text


def test_messages_begin_with_what_fires(tmp_path: Path) -> None:
    """The texts for Slack and e-mail have the firing alerts first, then the resolved ones with their times."""
    for name, kind in (("slack.text", "text"), ("email.html", "html")):
        shown = rendered(f'{{{{ template "otel_progress.{name}" . }}}}', tmp_path / "data.json", kind)
        assert re.findall(r"Run (r\d)\.", shown) == ["r1"]
        assert shown.index("Run r1.") < shown.index(
            "Over: r0 is over, how it ended is not known, seen at 12:00:00 UTC; r2 is over, how it ended is not known, seen at 12:00:00 UTC"
        )
        assert "unknown" not in shown


def of_many(firing: int, resolved: int = 0) -> dict[str, object]:
    """Return a message about these numbers of runs, of which the last one began ten minutes after the others."""
    runs = [sent("firing", f"r{number}", begin=600 * (number == firing - 1)) for number in range(firing)]
    over = [sent("resolved", f"o{number}", end=60 + 600 * (number == resolved - 1)) for number in range(resolved)]
    return {**MESSAGE, "status": "firing" if firing else "resolved", "alerts": [*over, *runs]}


MANY = {
    1: ("load is firing <b> (run r0)", ["r0"], []),
    3: ("OperationStuck load in work, 3 firing: r2, r0, r1", ["r2", "r0", "r1"], []),
    200: (
        "OperationStuck load in work, 200 firing: r199, r0, r1, r2, r3, r4, r5, r6, r7, r8 (10 of 200)",
        ["r199", "r0", "r1"],
        [f"r{number}" for number in range(2, 22)],
    ),
}
"""How many runs fire: the summary, the runs that a message for Slack has in full, and those that it lists."""


@pytest.mark.parametrize("firing", MANY)
def test_one_message_for_many_runs(firing: int, tmp_path: Path) -> None:
    """A message about many runs has a bounded length, names the newest runs first, and says how many there are."""
    summary, full, listed = MANY[firing]
    message = of_many(firing)
    text = '{{ template "otel_progress.%s" . }}'
    data = tmp_path / "data.json"
    assert rendered(text % "title", data, message=message).strip() == f"[FIRING: {firing}] OperationStuck load in work"
    assert rendered(text % "summary", data, message=message).strip() == summary
    shown = rendered(text % "slack.text", data, message=message)
    assert re.findall(r"^Run (r\d+)\.$", shown, re.MULTILINE) == full
    assert re.findall(r"[:,] <https://dashboard\.example/\S+\|(r\d+)>", shown) == listed
    assert ("(23 of 200 are shown)" in shown) == (firing == 200)
    assert len(shown) < 4000
    mail = rendered(text % "email.html", data, "html", message)
    assert len(re.findall(r"<h3>", mail)) == min(firing, 10)
    assert len(re.findall(r">r\d+</a>", mail)) == min(max(firing - 10, 0), 100)
    assert ("(110 of 200 are shown)" in mail) == (firing == 200)
    assert mail.count("<p>") == mail.count("</p>")


def test_resolved_names_only_what_is_resolved(tmp_path: Path) -> None:
    """What recovered stands behind the word, each with the time of its end, the last first, whatever else fires."""
    data = tmp_path / "data.json"
    for name, kind in (("slack.text", "text"), ("email.html", "html")):
        text = f'{{{{ template "otel_progress.{name}" . }}}}'
        shown = rendered(text, data, kind, of_many(2, 3))
        _, over = shown.split("Over: ")
        told = "is over, how it ended is not known, seen at"
        times = [f"o2 {told} 12:11:00 UTC", f"o0 {told} 12:01:00 UTC", f"o1 {told} 12:01:00 UTC"]
        assert re.match("; ".join(times) + r"(</p>|\s*$)", over)
        assert not re.search(r"\bo\d", _)
        shown = rendered(text, data, kind, of_many(0, 30))
        assert len(re.findall(r"o\d+ is over", shown)) == 20
        assert "(20 of 30)" in shown
        assert "firing" not in shown
        assert "Over: " not in rendered(text, data, kind, of_many(2))


def test_a_resolved_message_names_the_run(tmp_path: Path) -> None:
    """When nothing fires any more, the title, the summary and the severity are those of the recovered run."""
    common = {
        "alertname": "OperationStuck",
        "job": "work",
        label(s.OPERATION_NAME): "load",
        label(s.OPERATION_ID): "r2",
    }
    message: dict[str, object] = {
        "status": "resolved",
        "commonLabels": common,
        "alerts": [sent("resolved", "r2", outcome="recovered")],
    }
    title = ("title", "[RESOLVED] OperationStuck load r2 in work")
    for name, wanted in (
        title,
        ("summary", "load is resolved <b>; it recovered, seen at 12:00:00 UTC (run r2)"),
        ("pagerduty.severity", "critical"),
    ):
        text = f'{{{{ template "otel_progress.{name}" . }}}}'
        assert rendered(text, tmp_path / "data.json", message=message).strip() == wanted


ENDINGS = {
    ("failed",): ("[OVER: FAILED]", "danger", "r0 failed, seen at 12:00:00 UTC"),
    ("cancelled",): ("[OVER]", "warning", "r0 cancelled, seen at 12:00:00 UTC"),
    ("interrupted",): ("[OVER]", "warning", "r0 interrupted, seen at 12:00:00 UTC"),
    ("resumed",): ("[OVER]", "warning", "r0 was resumed, seen at 12:00:00 UTC"),
    ("ended",): ("[OVER]", "warning", "r0 ended, seen at 12:00:00 UTC"),
    ("recovered", "unknown"): ("[OVER]", "warning", "r0 recovered, seen at 12:00:00 UTC; r1 is over"),
    ("recovered", "failed"): (
        "[OVER: 1 OF 2 FAILED]",
        "danger",
        "r0 recovered, seen at 12:00:00 UTC; r1 failed, seen at 12:00:00 UTC",
    ),
    ("recovered",): ("[RESOLVED]", "good", "r0 recovered, seen at 12:00:00 UTC"),
    ("unknown",): ("[OVER]", "warning", "r0 is over, how it ended is not known, seen at 12:00:00 UTC"),
}


@pytest.mark.parametrize("outcomes", ENDINGS, ids=" ".join)
def test_a_failure_is_not_told_as_a_recovery(outcomes: tuple[str, ...], tmp_path: Path) -> None:
    """When an alert is over, the message says how each run ended, and is green only if each is known to be well."""
    title, color, text = ENDINGS[outcomes]
    alerts = [sent("resolved", f"r{number}", outcome=it) for number, it in enumerate(outcomes)]
    message = {**MESSAGE, "status": "resolved", "alerts": alerts}
    for name, wanted in (("title", title), ("slack.title", title), ("slack.color", color), ("slack.text", text)):
        shown = rendered(f'{{{{ template "otel_progress.{name}" . }}}}', tmp_path / "data.json", message=message)
        assert wanted in shown
    assert text in rendered('{{ template "otel_progress.email.html" . }}', tmp_path / "data.json", "html", message)


OTHERS = {
    "OperationFailed": ("unknown", "[NO LONGER TOLD]", "warning", "had failed, its alert expired, nothing recovered"),
    "OperationFailed again": ("tried again", "[OVER]", "warning", "was tried again, seen at"),
    "OperationLost": ("unknown", "[NO LONGER TOLD]", "warning", "how it ended is not known"),
    "ReporterLost": ("", "[NO LONGER TOLD]", "warning", "how it ended is not known"),
    "StuckByName": ("", "[OVER]", "warning", "how it ended is not known"),
    "OperationNotStarted": ("", "[OVER]", "warning", "how it ended is not known"),
    "PipelineDown": ("", "[RESOLVED]", "good", " is over, seen at"),
    "ErrorRate": ("", "[RESOLVED]", "good", " is over, seen at"),
    "OperationMissing": ("", "[RESOLVED]", "good", " is over, seen at"),
}
"""Alerts, their outcome, and how the message about their end begins, looks and reads."""


@pytest.mark.parametrize("case", OTHERS)
def test_an_alert_that_expires_is_no_recovery(case: str, tmp_path: Path) -> None:
    """The end of an alert is good news only if it proves that what was told is over."""
    outcome, title, color, text = OTHERS[case]
    alert = sent("resolved", "r0", outcome=outcome)
    alert["labels"]["alertname"] = case.split(maxsplit=1)[0]  # type: ignore[index]
    message = {**MESSAGE, "status": "resolved", "alerts": [alert]}
    for name, wanted in (("slack.title", title), ("slack.color", color), ("slack.text", text), ("summary", text)):
        shown = rendered(f'{{{{ template "otel_progress.{name}" . }}}}', tmp_path / "data.json", message=message)
        assert wanted in shown


def test_messages_name_the_environment_and_the_time_of_the_run(tmp_path: Path) -> None:
    """A title says in which environment it is, and an end has the time at which the run ended, not that of the alert."""
    common = {**MESSAGE["commonLabels"], label(s.ENVIRONMENT): "prod"}  # type: ignore[dict-item]
    alert = sent("resolved", "r0", outcome="failed", over_at="2026-11-29 11:58:07 +0000 UTC")
    message = {**MESSAGE, "status": "resolved", "commonLabels": common, "alerts": [alert]}
    for name, wanted in (
        ("title", "in work (prod)"),
        ("slack.title", "in work (prod)"),
        ("slack.text", "r0 failed at 11:58:07 UTC"),
    ):
        shown = rendered(f'{{{{ template "otel_progress.{name}" . }}}}', tmp_path / "data.json", message=message)
        assert wanted in shown


def test_a_few_more_runs_come_first(tmp_path: Path) -> None:
    """Runs that get stuck 50 s after ten others lead the next message, also in the title of PagerDuty."""
    runs = [sent("firing", f"r{number:02}", begin=50 * (number >= 10)) for number in range(14)]
    message = {**MESSAGE, "alerts": runs}
    shown = rendered('{{ template "otel_progress.summary" . }}', tmp_path / "data.json", message=message)
    assert "14 firing: r10, r11, r12, r13, r00" in shown
    shown = rendered('{{ template "otel_progress.slack.text" . }}', tmp_path / "data.json", message=message)
    assert re.findall(r"^Run (r\d+)\.$", shown, re.MULTILINE) == ["r10", "r11", "r12"]


def test_messages_name_the_parent_the_time_and_the_severity(tmp_path: Path) -> None:
    """Who reads a message later knows since when it holds, how bad it is, and what waits for the run."""
    message = {**MESSAGE, "alerts": [sent("firing", "r1", "warning", 75, parent="n-1 (nightly in batch)")]}
    for name, kind in (("slack.text", "text"), ("email.html", "html")):
        shown = rendered(f'{{{{ template "otel_progress.{name}" . }}}}', tmp_path / "data.json", kind, message)
        assert "Since: 12:01:15 UTC, warning" in shown
        assert "n-1 (nightly in batch)" in shown
    shown = rendered('{{ template "otel_progress.slack.color" . }}', tmp_path / "data.json", message=message)
    assert shown.strip() == "warning"


@pytest.mark.parametrize(
    ("name", "kind", "wanted"),
    [
        ("title", "text", ["[FIRING: 1] OperationStuck load in work"]),
        ("summary", "text", ["load is firing <b> (run r1)"]),
        (
            "slack.text",
            "text",
            [
                "*load is firing &lt;b&gt;* (run r1)",
                "Over: r0 is over, how it ended is not known, seen at ",
                *(
                    f"<https://{it}.example/?a=1&id=r1#x|"
                    for it in ("runbook", "dashboard", "trace", "logs", "silence")
                ),
                "Stage: `fetch`",
            ],
        ),
        (
            "email.html",
            "html",
            [
                "load is firing &lt;b&gt;",
                *(
                    f'href="https://{it}.example/?a=1&amp;id=r1#x"'
                    for it in ("runbook", "dashboard", "trace", "logs", "silence")
                ),
            ],
        ),
        ("pagerduty.severity", "text", ["critical"]),
    ],
)
def test_templates(name: str, kind: str, wanted: list[str], tmp_path: Path) -> None:
    """Each message for Slack, e-mail and PagerDuty has its title, texts and links."""
    shown = rendered(f'{{{{ template "otel_progress.{name}" . }}}}', tmp_path / "data.json", kind)
    for part in wanted:
        assert part in shown


def test_names_are_no_markup(tmp_path: Path) -> None:
    """A name, an id, a stage or a reason can neither mention a channel nor link in Slack, nor break a line or a subject."""
    evil = "<!channel> & <http://x|y>\n`a`"
    alert = sent("firing", "r1", stage=evil, description=f"waits for {evil}", summary=f"{evil} is stuck")
    common = {"alertname": "OperationStuck", label(s.OPERATION_NAME): evil, label(s.OPERATION_ID): evil, "job": "work"}
    message: dict[str, object] = {"status": "firing", "commonLabels": common, "alerts": [alert]}
    over = {**message, "status": "resolved", "alerts": [sent("resolved", "r1")]}
    for one in (message, over):
        one["alerts"][0]["labels"][label(s.OPERATION_ID)] = evil  # type: ignore[index]
    for one in (message, over):
        for name in ("slack.title", "slack.text"):
            shown = rendered(f'{{{{ template "otel_progress.{name}" . }}}}', tmp_path / "data.json", message=one)
            assert "<!" not in shown
            assert "<http:" not in shown
            assert "&lt;!channel&gt; &amp; &lt;http://x|y&gt; 'a'" in shown
        for name in ("slack.title", "title"):
            shown = rendered(f'{{{{ template "otel_progress.{name}" . }}}}', tmp_path / "data.json", message=one)
            assert "\n" not in shown.strip()
