"""Writes promtool's unit tests from scenarios, and runs them."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from otel_progress import semconv as s

from .runs import EXPORT, Labels, label
from .scenarios import GAP, LATE, OVER, ROUND, Fires, Scenario
from .ways import Point, World

RULES = Path(__file__).parents[2] / "grafana" / "alerts" / "rules.yaml"
SHOWN = ("alertname", "severity", "instance", label(s.OPERATION_NAME), label(s.OPERATION_ID))
SEPARATOR = "\n      - "
"""What stands before each rule."""
LITTLE_COLLECTION = {"GOGC": "800"}
"""promtool ends after seconds, so it spends no time on memory."""
FIRING = f'count by ({", ".join(SHOWN)}) (ALERTS{{alertstate="firing"}})'


def alerts(rules: Path = RULES) -> set[str]:
    """Return the names of the alerts in the rules."""
    return set(re.findall(r"- alert: (\S+)", rules.read_text(encoding="utf-8")))


def records() -> set[str]:
    """Return the names of the recorded series in the rules."""
    return set(re.findall(r"- record: (\S+)", RULES.read_text(encoding="utf-8")))


def run(promtool: str, rules: Path, scenarios: Sequence[Scenario], folder: Path) -> str:
    """Return promtool's differences for the scenarios under these rules; empty if there are none."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for place, (behind, group) in enumerate(groupby(sorted(scenarios, key=_behind), key=_behind)):
        used = folder / f"rules{place}.yaml"
        used.write_text(_rules_for(behind, without_annotations(rules.read_text(encoding="utf-8"))), encoding="utf-8")
        tests = [test_of(scenario) for scenario in group]
        content = {"rule_files": [used.name], "evaluation_interval": f"{ROUND}s", "tests": tests}
        files.append(folder / f"tests{place}.json")  # JSON is YAML
        files[-1].write_text(json.dumps(content), encoding="utf-8")
    command = [promtool, "test", "rules", *map(str, files)]
    env = {**os.environ, **LITTLE_COLLECTION}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def without_annotations(rules: str) -> str:
    """Return the rules without annotations, whose many queries take most of the time."""
    return re.sub(r"^        annotations:\n(?:          .*\n)+", "", rules, flags=re.MULTILINE)


def affected_by(rule: str, rules: str) -> str:
    """Return the rules whose result depends on one of them, and all that these need: the time is that of the rules."""
    head, *blocks = rules.split(SEPARATOR)
    names = [block.split(maxsplit=2)[1] for block in blocks]
    needs = [set(re.findall(r"[\w:]+", block)) & {*names} - {name} for name, block in zip(names, blocks, strict=True)]
    wanted = {rule}
    for _ in blocks:
        wanted |= {name for name, needed in zip(names, needs, strict=True) if needed & wanted}
    for _ in blocks:
        wanted |= {other for name, needed in zip(names, needs, strict=True) if name in wanted for other in needed}
    return SEPARATOR.join([head, *(block for name, block in zip(names, blocks, strict=True) if name in wanted)])


def _behind(scenario: Scenario) -> int:
    """Return how late the samples arrive, by their own time."""
    way = scenario.world.way
    return 0 if way.scraped else max(0, -int(way.skew))


def _rules_for(behind: int, rules: str) -> str:
    """Return the rules as they see pushed samples whose clock is behind: promtool knows no time of arrival.

    A sample that arrives now with a time two minutes ago is two minutes deep in every window.
    """
    if behind >= GAP:  # no window of 3m ever has a sample: one between two exports
        return re.sub(r"(?<![\w:])(progress_\w+(?:\{[^}]*\})?)\[3m\]", r"\1[1s] offset 5s", rules)
    return rules.replace("[3m]", f"[{GAP - behind}s]") if behind else rules


def test_of(scenario: Scenario) -> dict[str, Any]:
    """Return the scenario as input of promtool."""
    return {
        "interval": f"{EXPORT}s",
        "input_series": _input(scenario.world),
        "promql_expr_test": [_check(scenario, time) for time in moments(scenario)],
    }


@cache
def _input(world: World) -> list[dict[str, str]]:
    series = world.series().items()
    return [{"series": selector(name, labels), "values": values(points)} for (name, labels), points in series]


def selector(name: str, labels: Labels) -> str:
    """Return the name of a series in promtool's notation."""
    return f"{name}{{{','.join(f'{key}={json.dumps(value)}' for key, value in labels)}}}"


def values(points: Iterable[Point]) -> str:
    """Return the points in promtool's notation."""
    words = []
    for value, same in groupby(points):
        count = len(list(same))
        if value is None:
            words.append(f"_x{count}")
        elif value == "stale":
            words.extend(["stale"] * count)
        else:
            words.append(" ".join(["Inf"] * count) if value == math.inf else f"{value:.10g}+0x{count - 1}")
    return " ".join(words)


def moments(scenario: Scenario) -> list[int]:
    """Return the times to check: just before and after each edge, and each second evaluation that is not close to one."""
    until = scenario.world.until
    late = {fires.begin: LATE for fires in scenario.alerts}
    late |= {fires.end: OVER for fires in scenario.alerts}
    edges = {edge: more for edge, more in late.items() if 0 < edge < math.inf}
    small = until < 3000 and len(scenario.world.runs) < 50
    each = range(0, int(until) + 1, 2 * ROUND if small else 300)
    found = {at for edge, more in edges.items() for at in (math.floor(edge) - 1, math.ceil(edge) + more)} | set(each)
    return sorted(
        at for at in found if 0 <= at <= until and not any(edge <= at < edge + more for edge, more in edges.items())
    )


def _check(scenario: Scenario, time: int) -> dict[str, Any]:
    firing = sorted({_shown(fires) for fires in scenario.alerts if fires.begin <= time < fires.end})
    samples = [{"labels": selector("", labels), "value": 1} for labels in firing]
    # promtool prints the expression, and so the name of the scenario.
    return {"expr": f"{FIRING} # {scenario}", "eval_time": f"{time}s", "exp_samples": samples}


SEVERITY = dict.fromkeys(("OperationSlow", "OperationOverdueWait", "OperationNotStarted", "ErrorRate"), "warning")


def _shown(fires: Fires) -> Labels:
    severity = fires.severity or SEVERITY.get(fires.alert, "critical")
    found = zip(SHOWN, (fires.alert, severity, fires.instance, fires.name, fires.id), strict=True)
    return tuple((key, value) for key, value in found if value)
