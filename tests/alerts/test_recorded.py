"""What `grafana/alerts/panels.yaml` records for the dashboards: the same verdicts, and a row for each alert."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from grafana.generator.now import SEEN, TROUBLE
from grafana.generator.queries import EXIT, ID, STAGE, VERDICTS, attention, judgement, last_heard, nearness, past

from otel_progress import semconv as s

from . import promtool as tool
from .scenarios import ROUND, SCENARIOS
from .test_now import (
    AGAIN,
    ENDED,
    GONE,
    LIVING,
    LOAD,
    OTHER_BEFORE,
    OVERDUE,
    PROVEN,
    PROVEN_AGAIN,
    A,
    R,
    filled,
    of,
)

PANELS = tool.RULES.with_name("panels.yaml")
UP = {'up{job="otel-collector", instance="c"}': "1x200"}
DOWN = {'up{job="otel-collector", instance="c"}': "1x8 0x200"}
"""The only Collector is gone from 2 min 15 s on."""
PLACE = 'deployment_environment_name="live", k8s_cluster_name="eu", k8s_namespace_name="shop"'
UNJUDGED = {of(metric, A.replace('"r"', '"x"')): "1x100" for metric in (s.RUN_ACTIVE, s.RUN_START_TIME)}
"""A run of which no verdict is known."""


def placed(given: dict[str, str]) -> dict[str, str]:
    """Return series with the labels of a place."""
    return {name.replace("}", f", {PLACE}}}"): values for name, values in given.items()}


PLACED = placed(GONE)
PENDING = {of(s.RUN_PENDING): "0+15x100", of(s.RUN_START_WITHIN): "60x100"}
STATE = f"max by ({ID}, {STAGE}, {EXIT}) ({judgement()})"
WORST = f"max by ({ID}) ({judgement()})"


Asked = dict[tuple[str, int], dict[frozenset[tuple[str, str]], float]]
"""Queries at times (in seconds), and their expected results by labels."""


def case(name: str, given: dict[str, str], asked: Asked) -> dict[str, Any]:
    """Return a test for promtool, which prints the name with a result that differs."""
    checks = []
    for (expression, seconds), wanted in asked.items():
        samples = [
            {"labels": "{" + ", ".join(f'{key}="{it}"' for key, it in sorted(labels)) + "}", "value": number}
            for labels, number in wanted.items()
        ]
        checks.append({"expr": f"{recorded(expression)} # {name}", "eval_time": f"{seconds}s", "exp_samples": samples})
    series = [{"series": name, "values": values} for name, values in {**UP, **given}.items()]
    return {"interval": "15s", "input_series": series, "promql_expr_test": checks}


def recorded(expression: str) -> str:
    """Return the query as it is where the rules are loaded."""
    return filled(expression.replace("$unrecorded", "-"))


def compare(promtool: str, tests: list[dict[str, Any]], folder: Path) -> None:
    """Run promtool with both files of rules, in their order."""
    rules = folder / "rules.yaml"
    rules.write_text(tool.without_annotations(tool.RULES.read_text(encoding="utf-8")), encoding="utf-8")
    file = folder / "test.json"
    content = {"rule_files": [rules.name, str(PANELS)], "evaluation_interval": f"{ROUND}s", "tests": tests}
    file.write_text(json.dumps(content), encoding="utf-8")
    command = [promtool, "test", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


KILLED = {**LOAD, EXIT: "killed by SIGKILL"}


def of_run(more: dict[str, str]) -> frozenset[tuple[str, str]]:
    """Return the labels of the only run."""
    return frozenset({**R, **more}.items())


KILLED = {**LOAD, EXIT: "killed by SIGKILL"}


VERDICT: dict[str, tuple[dict[str, str], dict[int, tuple[str, dict[str, str]] | None]]] = {
    "living": (LIVING, {300: ("progressing", LOAD)}),
    "gone": (GONE, {150: ("progressing", LOAD), 195: ("unheard", LOAD), 345: ("unheard", LOAD), 420: ("dead", LOAD)}),
    "no_collector_works": ({**GONE, **DOWN}, {195: ("unheard", LOAD), 450: ("unheard", LOAD)}),
    "the_newest_of_two_attempts": (OTHER_BEFORE, {420: ("dead", LOAD)}),
    "ended": (ENDED, {195: None, 420: None}),
    "goes_on_elsewhere": (AGAIN, {210: ("progressing", LOAD), 450: ("progressing", LOAD)}),
    "killed": (PROVEN, {165: ("killed", KILLED), 300: ("killed", KILLED)}),
    "a_newer_attempt_voids_a_kill": (PROVEN_AGAIN, {300: ("progressing", LOAD)}),
    "overdue": (OVERDUE, {30: ("progressing", LOAD), 300: ("overdue", LOAD)}),
    "not_started": (PENDING, {45: None, 300: ("not started", {})}),
    "by_two_routes": (
        {
            **LIVING,
            **UNJUDGED,
            **placed({**LIVING, **UNJUDGED}),
        },
        {300: ("progressing", LOAD)},
    ),
    "in_a_stage_after_another": (
        {**GONE, of(s.RUN_HEALTH, A, f'progress_health="progressing", {STAGE}="read"'): "1x3 0x4"},
        {420: ("dead", LOAD)},
    ),
}


def test_verdicts(promtool: str, tmp_path: Path) -> None:
    """The recorded verdict is that of the dashboards without rules; while no Collector works, an unheard run has a row."""
    tests = []
    for name, (given, moments) in VERDICT.items():
        asked: Asked = {
            (STATE, at): {} if found is None else {of_run(found[1]): float(VERDICTS[found[0]])}
            for at, found in moments.items()
        }
        tests.append(case(name, given, asked))
    compare(promtool, tests, tmp_path)


SEEN_IN: dict[str, dict[frozenset[tuple[str, str]], float]] = {"eu": {frozenset(): 780}, "us": {}}
"""Where something was heard, and how many seconds ago."""


def test_columns(promtool: str, tmp_path: Path) -> None:
    """The used share of a limit, what is past it and when a run was last heard are those of the run."""
    nothing = frozenset[tuple[str, str]]()
    cases: dict[str, tuple[dict[str, str], Asked]] = {
        "overdue": (OVERDUE, {(f"sum({nearness()})", 300): {nothing: 1}, (f"sum({past()})", 300): {nothing: 240}}),
        "living": (LIVING, {(f"sum({nearness()})", 300): {nothing: 0}, (f"sum({past()})", 300): {}}),
        "gone": (GONE, {(f"sum({last_heard()})", 420): {nothing: 120_000}, (f"sum({nearness()})", 300): {}}),
        "proven": (PROVEN, {(f"sum({last_heard()})", 420): {nothing: 135_000}}),
        "ended": (ENDED, {(f"sum({last_heard()})", 420): {}}),
        "last heard": (PLACED, {(SEEN[0].replace("$cluster", it), 900): at for it, at in SEEN_IN.items()}),
        # It is not heard from, but still selected by where it ran; its links begin a minute before its start.
        "here": (PLACED, {(WORST.replace("$cluster", "eu"), 420): {of_run({}): 9}}),
        "elsewhere": (PLACED, {(WORST.replace("$cluster", "us"), 420): {}}),
        "start": (PLACED, {(f"max by (start) ({judgement()})", 420): {frozenset({("start", "-60000")}): 9}}),
    }
    compare(promtool, [case(name, given, asked) for name, (given, asked) in cases.items()], tmp_path)


def test_parent_of_a_child_elsewhere_waits(promtool: str, tmp_path: Path) -> None:
    """A parent that is idle while its child in another process is active is recorded as waiting, and the child as it is."""
    [scenario] = [it for it in SCENARIOS if str(it) == "child_elsewhere-pushed"]
    test = tool.test_of(scenario)
    asked: Asked = {
        (WORST, 600): {frozenset({(ID, "r1")}): VERDICTS["waiting"], frozenset({(ID, "c1")}): VERDICTS["progressing"]}
    }
    compare(promtool, [{**test, "promql_expr_test": case("", {}, asked)["promql_expr_test"]}], tmp_path)


def test_the_child_that_is_stuck_comes_first(promtool: str, tmp_path: Path) -> None:
    """A stuck child stands above its parent in another process, whose limit is shorter, and no share exceeds 100%."""
    [scenario] = [it for it in SCENARIOS if str(it) == "child_elsewhere_stuck-pushed"]
    test = tool.test_of(scenario)
    share, rank = attention()
    parent, child = frozenset({(ID, "r1")}), frozenset({(ID, "c1")})
    asked: Asked = {
        (f"max by ({ID}) ({share})", 600): {parent: 0, child: 1},
        (f"max by ({ID}) ({rank})", 600): {parent: 0, child: 1 + VERDICTS["silent"]},
    }
    compare(promtool, [{**test, "promql_expr_test": case("", {}, asked)["promql_expr_test"]}], tmp_path)


HELD = ("OperationLost", "OperationOverdueWait", "OperationNotStarted")
"""Alerts that end with their condition; the others go on for a while after a recovery."""
WHO = "job, progress_operation_name, progress_operation_id"
FIRES = f'group(ALERTS{{alertstate="firing", alertname=~"{"|".join(HELD)}"}})'
UNSEEN = f'ALERTS{{alertstate="firing", alertname=~"{"|".join(HELD)}"}} unless on ({WHO}) {TROUBLE}'
NOT_LOST = (
    f'ALERTS{{alertstate="firing", alertname="OperationLost"}} unless on ({WHO}) ({judgement()} >= {VERDICTS["dead"]})'
)
SHOWN = ("restart_while_lost", "outage_while_lost", "branch_overdue")


def test_each_alert_has_its_row(promtool: str, tmp_path: Path) -> None:
    """*Somebody should look at these* has a row whenever an alert about a run fires, also over a Collector's restart."""
    tests = []
    for scenario in (it for it in SCENARIOS if it.name in SHOWN and not it.world.way.scraped):
        test = tool.test_of(scenario)
        test["promql_expr_test"] = test["promql_expr_test"][::4]
        lost = [
            {**check, "expr": f"{recorded(NOT_LOST)} # {scenario}", "exp_samples": []}
            for check in test["promql_expr_test"]
        ]
        for check in test["promql_expr_test"]:
            check |= {"expr": f"{recorded(UNSEEN)} # {scenario}", "exp_samples": []}
        fires = min(it.begin for it in scenario.alerts if it.alert in HELD) + 60
        fired = {
            "expr": f"{FIRES} # {scenario}",
            "eval_time": f"{int(fires)}s",
            "exp_samples": [{"labels": "{}", "value": 1}],
        }
        test["promql_expr_test"] += [fired, *lost]
        tests.append(test)
    assert len(tests) == len(SHOWN)
    compare(promtool, tests, tmp_path)
