"""The query for the alerts that a person is told: those that fire and that Alertmanager does not inhibit."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from grafana.generator.queries import ENVIRONMENT, RUN, WHO, series
from otel_progress import semconv as s

ROUTING: Final = Path(__file__).parents[1] / "alerts" / "alertmanager.yaml"
NAMES: Final = "Operation.+|StuckByName|ReporterLost|PipelineDown|ErrorRate"
"""The alerts of grafana/alerts/rules.yaml."""
OURS: Final = 'product="otel-progress"'
"""The label of these alerts: others may have the same names."""


def inhibitions() -> list[dict[str, Any]]:
    """Return the inhibition rules of the shipped configuration of Alertmanager."""
    rules: list[dict[str, Any]] = yaml.safe_load(ROUTING.read_text(encoding="utf-8"))["inhibit_rules"]
    return rules


def now(alerts: str) -> str:
    """Return the query for what fires now.

    A plain selector also finds what fired before a restart of Prometheus, for 5 minutes, as nothing marks that as
    stale; and a window alone finds what ended in it. jobs.yaml is evaluated each 30 s.
    """
    return f"({alerts} and last_over_time({alerts}[45s]))"


def firing(which: str) -> str:
    """Return the query for the firing alerts of a selector without those that another one inhibits.

    Alertmanager inhibits what it sends, but `ALERTS` of Prometheus has everything.
    """
    rows = now(f'ALERTS{{alertstate="firing", {OURS}, alertname=~"{NAMES}", {which}}}')
    for rule in inhibitions():
        target, cause = (
            f'ALERTS{{alertstate="firing", {", ".join(rule[side])}}}' for side in ("target_matchers", "source_matchers")
        )
        rows += f"\nunless ({target} and on ({', '.join(rule.get('equal', ()))}) {cause})"
    return f"({rows})"


FIRES: Final = f'alertstate="firing", {OURS}'
WHOSE: Final = f"alertname, {RUN}"


def begun() -> str:
    """Return the query for the time, in seconds, at which the condition of each alert began.

    It comes from the run's own series, so that a restart of Prometheus does not change it: the last progress of what is
    stuck or loops, when a limit passed, and when a lost run was last heard or died. Of other alerts, and where these
    series are gone, it is what Prometheus remembers: at the earliest its own start.
    """

    def of(names: str, expression: str, equal: str = RUN) -> str:
        mine = f'ALERTS{{{FIRES}, alertname=~"{names}"}}'
        return f"max by ({WHOSE}) ({mine} * on ({equal}) group_left () {expression})"

    def each(expression: str) -> str:
        return f"max by ({RUN}) ({expression})"

    idle, wait, pending = (series(it) for it in (s.RUN_IDLE, s.RUN_WAIT_REMAINING, s.RUN_PENDING))
    # Of a run that is not heard for some minutes, the last that is known of it.
    quiet = "run:progress_heard_time_seconds {} last_over_time(run:progress_{}_seconds:last3m[5m])"
    progress = f"({each(f'timestamp({idle}) - {idle}')} or {quiet.format('-', 'idle')})"
    passed = "(run:progress_start_time_seconds:last6h + last_over_time(run:progress_slow_after_seconds:last3m[5m]))"
    created = each(f"timestamp({pending}) - {pending}")
    late = f"({created} + {each(series(s.RUN_START_WITHIN))})"
    own = (
        of("OperationStuck|OperationLooping", progress),
        of("OperationSlow", passed),
        of("OperationOverdueWait", each(f"timestamp({wait}) + {wait}")),
        of("OperationNotStarted", late),
        of("OperationLost", "(run:progress_gone_time_seconds or run:progress_heard_time_seconds)"),
        of("ReporterLost", "instance:progress_heard_time_seconds", "job, instance"),
        f"max by ({WHOSE}) (ALERTS_FOR_STATE{{{OURS}}})",
    )
    return f"\nor on ({WHOSE}) ".join(own)


def since(which: str, labels: str) -> str:
    """Return the query for these alerts whose value is the time, in ms, at which their condition began.

    The labels contain those of `WHO`. The label `start` is the start of the run in ms, a minute early, at which links
    begin; 6 hours ago without a run.
    """
    alerts = f"1000 * max by ({ENVIRONMENT}, {labels}) ({firing(which)} * on ({WHOSE}) group_left () ({begun()}))"
    newest = f"max by ({WHO}) (run:progress_start_time_seconds:last6h and on ({WHO}) ALERTS{{{FIRES}}})"
    starts = f'count_values by ({WHO}) ("start", floor(1000 * {newest}) - 60000)'
    others = f'label_replace(group by ({WHO}) (ALERTS{{{FIRES}}}), "start", "now-6h", "", "")'
    return f"max by ({labels}, start) (({alerts}) * on ({WHO}) group_left (start) ({starts} or on ({WHO}) {others}))"
