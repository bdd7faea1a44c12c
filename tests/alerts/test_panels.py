"""The dashboards hold back the same parents as the rules."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from grafana.generator.queries import BY_NAME, WHO, verdict

from otel_progress import semconv as s

from . import promtool as tool
from .runs import label
from .scenarios import SCENARIOS, Scenario

PANELS: dict[str, tuple[int, set[str], set[str], set[str]]] = {
    "child_elsewhere": (600, set(), set(), {"r1"}),
    "child_elsewhere_stuck": (600, {"c1"}, set(), {"r1"}),
    "child_elsewhere_ends": (700, {"r1"}, set(), set()),
    "child_here_beside_hang": (600, {"r1"}, set(), set()),
    "one_of_two_waits_for_a_child": (600, {"r2"}, set(), {"r1"}),
    "branch_hangs_beside_wait": (300, {"r1"}, set(), set()),
    "slow_waits": (400, set(), {"r1"}, set()),
}
"""A moment of a scenario: which runs are stuck, which wait, and which are held back."""


@pytest.mark.parametrize("ruled", [True, False])
@pytest.mark.parametrize("scenario", [it for it in SCENARIOS if it.name in PANELS], ids=str)
def test_stuck_and_waiting(promtool: str, scenario: Scenario, ruled: bool, tmp_path: Path) -> None:
    """A parent that is held back is shown as waiting; without the rules, with the verdict of its process."""
    time, stuck, waiting, held = PANELS[scenario.name]
    shown = {"silent": stuck, "waiting": waiting | held} if ruled else {"silent": stuck | held, "waiting": waiting}
    test = tool.test_of(scenario)
    test["promql_expr_test"] = [
        {"expr": chosen(health), "eval_time": f"{time}s", "exp_samples": [sample(key) for key in sorted(keys)]}
        for health, keys in shown.items()
    ]
    file = tmp_path / "test.json"
    rules = [str(tool.RULES)] if ruled else []
    file.write_text(json.dumps({"rule_files": rules, "evaluation_interval": "15s", "tests": [test]}), encoding="utf-8")
    done = subprocess.run(
        [promtool, "test", "rules", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def chosen(health: str) -> str:
    """Return the query of a panel with all names and services selected."""
    query = verdict(health, BY_NAME, WHO)
    return (
        f"group by ({label(s.OPERATION_ID)}) ({query})".replace("$gap", "3m")
        .replace("$heard", "45s")
        .replace("$namespace", ".*")
        .replace("$cluster", ".*")
        .replace("$environment", ".*")
        .replace("$job", ".+")
        .replace("$name", ".+")
    )


def sample(key: str) -> dict[str, object]:
    """Return the run with this id."""
    return {"labels": tool.selector("", ((label(s.OPERATION_ID), key),)), "value": 1}
