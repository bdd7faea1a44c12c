"""The query for the alerts that a person is told: those that fire and that Alertmanager does not inhibit."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from grafana.generator.queries import WHO

ROUTING: Final = Path(__file__).parents[1] / "alerts" / "alertmanager.yaml"
NAMES: Final = "Operation.+|StuckByName|ReporterLost|PipelineDown|ErrorRate"
"""The alerts of grafana/alerts/rules.yaml."""
OURS: Final = 'product="otel-progress"'
"""The label of these alerts: others may have the same names."""


def inhibitions() -> list[dict[str, Any]]:
    """Return the inhibition rules of the shipped configuration of Alertmanager."""
    rules: list[dict[str, Any]] = yaml.safe_load(ROUTING.read_text(encoding="utf-8"))["inhibit_rules"]
    return rules


def firing(which: str) -> str:
    """Return the query for the firing alerts of a selector without those that another one inhibits.

    Alertmanager inhibits what it sends, but `ALERTS` of Prometheus has everything.
    """
    rows = f'ALERTS{{alertstate="firing", {OURS}, alertname=~"{NAMES}", {which}}}'
    for rule in inhibitions():
        target, cause = (
            f'ALERTS{{alertstate="firing", {", ".join(rule[side])}}}' for side in ("target_matchers", "source_matchers")
        )
        rows += f"\nunless ({target} and on ({', '.join(rule.get('equal', ()))}) {cause})"
    return f"({rows})"


def since(which: str, labels: str) -> str:
    """Return the query for these alerts whose value is the time, in ms, since which their condition holds.

    The label `start` is the start of the run in ms, a minute early, at which links begin; 6 hours ago without a run.
    """
    alerts = f"1000 * max by ({labels}) (ALERTS_FOR_STATE and ignoring (alertstate) {firing(which)})"
    newest = f"max by ({WHO}) (run:progress_start_time_seconds:last6h)"
    starts = f'count_values by ({WHO}) ("start", floor(1000 * {newest}) - 60000)'
    return (
        f"({alerts}) * on ({WHO}) group_left (start) {starts}"
        f'\nor ignoring (start) label_replace({alerts}, "start", "now-6h", "", "")'
    )
