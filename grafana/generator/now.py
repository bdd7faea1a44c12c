"""The dashboard *Operations now*: what runs, and what needs attention."""

from __future__ import annotations

from typing import Final

from grafana.generator import links
from grafana.generator.common import GAP_VARIABLE, KNOWN_VARIABLE, WORK
from grafana.generator.parts import (
    BAD,
    COLOURED_CELL,
    GAUGE_CELL,
    MAPPED,
    NEAR,
    PLAIN,
    SOURCES,
    Dashboard,
    column,
    lines,
    links_column,
    stat,
    steps,
    table,
)
from grafana.generator.queries import (
    BY_NAME,
    HOST,
    ID,
    LOGS,
    LOKI,
    NAME,
    PROMETHEUS,
    STAGE,
    STUCK_AT,
    WHO,
    Query,
    Row,
    alive,
    hosts,
    known,
    label,
    last,
    late,
    lost,
    near,
    numbered,
    of_runs,
    overdue,
    series,
    value,
    verdict,
)
from otel_progress import semconv as s

BAD_VERDICTS: Final = ("not started", "slow", "overdue", "looping", "silent", "dead")


def row(operation: str, name: str, low: float, high: float = float("inf"), **more: str) -> Row:
    """Return the expected row of one operation."""
    return Row({ID: operation, NAME: name, "job": "shop", **more}, low, high)


RATE: Final = f"deriv({series(s.RUN_COMPLETED)}{{{BY_NAME}}}[$gap])"
COUNTS: Final = {
    "running": (alive(BY_NAME), 7),
    "progressing": (verdict("progressing", BY_NAME, WHO), 2),
    "waiting": (f"{verdict('waiting', BY_NAME, WHO)} unless on ({WHO}) {overdue(BY_NAME)}", 1),
    "overdue": (overdue(BY_NAME), 1),
    "slow": (verdict("slow", BY_NAME, WHO), 1),
    "looping": (verdict("looping", BY_NAME, WHO), 1),
    "stuck": (verdict("silent", BY_NAME, WHO), 1),
    "not heard from": (lost(BY_NAME), 1),
    "not started": (late(BY_NAME), 1),
}
WHICH: Final = (
    links_column(NAME, "Kind of work", links.of_kind(), 150),
    links_column(ID, "Operation", links.of_row("job"), 210),
)

counts = stat(
    "Operations by verdict",
    "From Prometheus: run series (operations older than 5 s, at most 1,000 in a process). Each process judges "
    "its operations; *not heard from* means no sample within `Heard within`, and no end. If the rules are loaded, "
    "a parent that is idle while a child in another process is active counts as waiting.",
    (24, 4),
    *(
        Query(PROMETHEUS, f"count({found}) or vector(0)", (Row({}, number, number),), name, True)
        for name, (found, number) in COUNTS.items()
    ),
    text="value_and_name",
    overrides=[
        column(name, name, thresholds=BAD["thresholds"]) for name in ("overdue", "looping", "stuck", "not heard from")
    ]
    + [
        column(name, name, thresholds=steps((None, "green"), (1, "yellow"))["thresholds"])
        for name in ("slow", "not started")
    ],
)

trouble = table(
    "Somebody should look at these",
    "From Prometheus: run series. The worst first: not heard from, stuck, looping, overdue, slow, not started. "
    "*Idle* of an operation that is not heard from is its last value. A click on an operation links to its dashboard, "
    "its trace, its events and the runbook.",
    (24, 7),
    Query(
        PROMETHEUS,
        numbered(BY_NAME, BAD_VERDICTS),
        (
            row("killed-1", "import", 8, 8),
            row("stuck-1", "import", 7, 7, **{STAGE: "fetch", STUCK_AT: "~dashboard_program.py:.* in hang_here"}),
            row("looping-1", "agent", 6, 6),
            row("overdue-1", "approve", 5, 5),
            row("slow-1", "import", 4, 4),
            row("late-1", "import", 3, 3),
        ),
        instant=True,
        format="table",
        only=True,
    ),
    Query(
        PROMETHEUS,
        f"{known(s.RUN_IDLE, BY_NAME, labels=WHO)}\nand on ({WHO}) (\n{numbered(BY_NAME, BAD_VERDICTS)}\n)",
        (row("stuck-1", "import", 1), row("killed-1", "import", 0)),
        instant=True,
        format="table",
    ),
    Query(
        PROMETHEUS,
        f"{known(s.RUN_STALL_AFTER, BY_NAME, labels=WHO)}\nand on ({WHO}) (\n{numbered(BY_NAME, BAD_VERDICTS)}\n)",
        (row("stuck-1", "import", 1, 1), row("killed-1", "import", 60, 60)),
        instant=True,
        format="table",
    ),
    columns=("A", NAME, ID, STAGE, STUCK_AT, "B", "C", "job"),
    overrides=(
        column("A", "Verdict", width=190, custom__cellOptions=COLOURED_CELL, **MAPPED),
        *WHICH,
        column(STAGE, "Stage", width=140),
        column(STUCK_AT, "Stuck at"),
        column("B", "Idle", "dtdurations", 110),
        column("C", "Limit", "dtdurations", 110),
        column("job", "Service", width=130),
    ),
    sort="Verdict",
)


def number(expression: str, *expected: Row, only: bool = False) -> Query:
    """Return the query of a table column."""
    return Query(PROMETHEUS, expression, expected, instant=True, format="table", only=only)


running = table(
    "Running",
    "From Prometheus: run series. The nearest to its limit first: the higher of idle / stall_after and elapsed / "
    "slow_after; from 100% on it is exceeded. *Rate* is the recent units per second. Attempt and message: see below.",
    (24, 10),
    number(
        numbered(BY_NAME, ("progressing", "waiting", "slow", "looping", "silent"), f"{WHO}, {STAGE}"),
        row("moving-1", "import", 1, 1, **{STAGE: "load"}),
        row("child-1", "chunk", 1, 1),
        row("waiting-1", "approve", 2, 2),
        row("overdue-1", "approve", 2, 2),
        row("slow-1", "import", 4, 4),
        row("looping-1", "agent", 6, 6),
        row("stuck-1", "import", 7, 7, **{STAGE: "fetch"}),
        only=True,
    ),
    number(value(s.RUN_RATIO, BY_NAME), row("moving-1", "import", 0.0001, 0.9)),
    number(
        f"{of_runs(RATE, BY_NAME)} > 0",
        row("moving-1", "import", 100, 2000),
    ),
    number(value(s.RUN_ETA, BY_NAME), row("moving-1", "import", 10)),
    number(value(s.RUN_IDLE, BY_NAME), row("stuck-1", "import", 1), row("moving-1", "import", 0, 5)),
    number(
        f"{value(s.RUN_STALL_AFTER, BY_NAME)} < Inf", row("stuck-1", "import", 1, 1), row("moving-1", "import", 60, 60)
    ),
    number(near(BY_NAME), row("stuck-1", "import", 1), row("slow-1", "import", 1), row("moving-1", "import", 0, 0.5)),
    number(f"time() - {value(s.RUN_START_TIME, BY_NAME)}", row("moving-1", "import", 1, 600)),
    number(hosts(BY_NAME), row("moving-1", "import", 1, 1, **{HOST: "~.+"})),
    columns=(NAME, ID, "A", STAGE, "B", "C", "D", "E", "F", "G", "H", HOST, "job"),
    hide=("Value #I", "instance"),
    overrides=(
        *WHICH,
        column("A", "Verdict", width=120, custom__cellOptions=COLOURED_CELL, **MAPPED),
        column(STAGE, "Stage", width=120),
        column("B", "Progress", "percentunit", 150, custom__cellOptions=GAUGE_CELL, min=0, max=1, **PLAIN),
        column("C", "Rate", "short", 80, decimals=1),
        column("D", "ETA", "dtdurations", 110),
        column("E", "Idle", "dtdurations", 100),
        column("F", "Limit", "dtdurations", 100),
        column("G", "Near its limit", "percentunit", 130, custom__cellOptions=GAUGE_CELL, min=0, max=1, **NEAR),
        column("H", "Running for", "dtdurations", 110),
        column(HOST, "Host", width=120),
        column("job", "Service", width=110),
    ),
    sort="Near its limit",
)

SAID: Final = (NAME, ID, label(s.OPERATION_ATTEMPT), label(s.STATUS), label(s.STAGE_CURRENT), label(s.MESSAGE), HOST)
said = table(
    "What they said last",
    "From Loki: the newest log event of each operation among the last 1,000, with its attempt, its current step and "
    "its host.",
    (24, 8),
    Query(
        LOKI,
        f'{LOGS} | {NAME}=~"$name" | {ID}!=""',
        (
            Row({ID: "moving-1", label(s.OPERATION_ATTEMPT): "1", label(s.MESSAGE): "reading orders", HOST: "~.+"}),
            Row({ID: "stuck-1", label(s.STAGE_CURRENT): "fetch"}),
            Row({ID: "ended-1", label(s.STATUS): "completed"}),
            Row({ID: "failed-1", label(s.STATUS): "failed"}),
        ),
        more={"maxLines": 1000},
    ),
    columns=SAID,
    overrides=(
        links_column(NAME, "Kind of work", links.of_kind(), 150),
        links_column(ID, "Operation", links.of_row(), 210),
        *(
            column(f"{name} (firstNotNull)", title, width=width)
            for name, title, width in (
                (label(s.OPERATION_ATTEMPT), "Attempt", 80),
                (label(s.STATUS), "Status", 110),
                (label(s.STAGE_CURRENT), "Stage", 140),
                (label(s.MESSAGE), "Says", 0),
                (HOST, "Host", 140),
            )
        ),
    ),
    transformations=[
        {"id": "extractFields", "options": {"source": "labels", "format": "json", "replace": False, "keepTime": False}},
        {
            "id": "groupBy",
            "options": {
                "fields": {
                    NAME: {"operation": "groupby", "aggregations": []},
                    ID: {"operation": "groupby", "aggregations": []},
                    **{name: {"operation": "aggregate", "aggregations": ["firstNotNull"]} for name in SAID[2:]},
                }
            },
        },
    ],
)

over_time = lines(
    "Running, by kind of work",
    "From Prometheus: `progress_operation_active`, which also counts operations without run series.",
    (12, 7),
    Query(
        PROMETHEUS,
        f"sum by ({NAME}) ({last(s.ACTIVE, BY_NAME)})",
        (Row({NAME: "import"}, 3, 4), Row({NAME: "approve"}, 2, 2), Row({NAME: "report"}, 0, 0)),
        f"{{{{{NAME}}}}}",
    ),
    unit="short",
    defaults={"min": 0, "decimals": 0},
    custom={"stacking": {"mode": "normal", "group": "A"}, "fillOpacity": 30},
)

stall_ratio = lines(
    "The worst idle / stall_after, by kind of work",
    "From Prometheus: `progress_operation_stall_ratio`. From 100% on an operation is stuck, or waits for a child in "
    "another process.",
    (12, 7),
    Query(
        PROMETHEUS,
        f"max by ({NAME}) ({last(s.STALL_RATIO, BY_NAME)})",
        (Row({NAME: "import"}, 1), Row({NAME: "approve"}, 0, 0)),
        f"{{{{{NAME}}}}}",
    ),
    unit="percentunit",
    defaults={"min": 0, **NEAR},
    custom={"thresholdsStyle": {"mode": "line"}},
)

alerts = table(
    "Alerts that fire",
    "From Prometheus: the alerts of `grafana/alerts/rules.yaml`, if these are loaded.",
    (24, 6),
    number(
        f"max by (severity, alertname, {NAME}, {ID}, job, instance) "
        '(ALERTS{alertname=~"Operation.+|StuckByName|ReporterLost|PipelineDown|ErrorRate", alertstate="firing"})',
        Row({"alertname": "OperationStuck", ID: "stuck-1", "severity": "critical"}, 1, 1),
        Row({"alertname": "OperationLost", ID: "killed-1"}, 1, 1),
    ),
    columns=("severity", "alertname", NAME, ID, "job", "instance"),
    hide=("Value",),
    overrides=(
        column("severity", "Severity", width=100),
        links_column("alertname", "Alert", [links.link("What to do", f"/d/{links.RUNBOOK}")], 200),
        *WHICH,
        column("job", "Service", width=140),
        column("instance", "Instance"),
    ),
)

NOW = Dashboard(
    links.NOW,
    "Operations now",
    "What runs now, the nearest to its limit first; stuck and lost operations on top.",
    (*WORK, GAP_VARIABLE, KNOWN_VARIABLE, *SOURCES),
    {
        "": (counts, trouble, running),
        "Alerts": (alerts,),
        "In words": (said,),
        "Over time": (over_time, stall_ratio),
    },
)
