"""The dashboard *Operations now*: what runs, and what needs attention."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from grafana.generator import links
from grafana.generator.common import (
    ALERT_MARKS,
    ALERTED,
    ESTIMATE,
    GAP_VARIABLE,
    HEARD_VARIABLE,
    KNOWN_VARIABLE,
    UNRECORDED_VARIABLE,
    WORK,
)
from grafana.generator.firing import since
from grafana.generator.parts import (
    BAD,
    COLOURED_CELL,
    COLOURED_TEXT,
    GAUGE_CELL,
    MAPPED,
    NEAR,
    PLAIN,
    SOURCES,
    Dashboard,
    Panel,
    annotation,
    column,
    hidden,
    lines,
    links_column,
    needs,
    stat,
    steps,
    table,
)
from grafana.generator.queries import (
    AT,
    BY_NAME,
    ENVIRONMENT,
    EVENT,
    EXIT,
    HOST,
    ID,
    LOGS,
    LOKI,
    LOOP,
    MEANING,
    NAME,
    OF_STAGE,
    OWN,
    PLACED,
    PROMETHEUS,
    ROWS,
    RUN,
    SAYS,
    STAGE,
    STUCK_AT,
    TRACE,
    UNRECORDED,
    VERDICTS,
    WHO,
    Query,
    Row,
    attention,
    judgement,
    killed,
    label,
    last,
    last_heard,
    late,
    lost,
    nearness,
    overdue,
    past,
    placed,
    series,
    started_at,
    unheard,
    verdict,
    with_attempt,
)
from otel_progress import semconv as s

SEVERITIES: Final = [
    {
        "type": "value",
        "options": {
            "critical": {"text": "critical", "color": "red", "index": 0},
            "warning": {"text": "warning", "color": "yellow", "index": 1},
        },
    }
]
COUNTED: Final = "counted"
LEAST: Final = "not started"
"""The least verdict that somebody should look at."""


def row(operation: str, name: str, low: float, high: float = float("inf"), **more: str) -> Row:
    """Return the expected row of one operation."""
    return Row({ID: operation, NAME: name, "job": "shop", **more}, low, high)


def judged(operation: str, name: str, word: str, **more: str) -> Row:
    """Return the expected row of an operation with a verdict."""
    return row(operation, name, VERDICTS[word], VERDICTS[word], **more)


def number(expression: str, *expected: Row, only: bool = False) -> Query:
    """Return the query of a table column."""
    return Query(PROMETHEUS, expression, expected, instant=True, format="table", only=only)


ITS_OWN: Final = f"{BY_NAME}, {OWN}"
STAGES: Final = f"{BY_NAME}, {OF_STAGE}"
OWN_RATE: Final = f"(deriv({series(s.RUN_COMPLETED)}{{{ITS_OWN}}}[$gap]) > 0)"
STAGE_RATE: Final = f"(rate({series(s.RUN_COMPLETED)}{{{STAGES}}}[1m]) > 0)"
COUNTS: Final = {
    "progressing": (verdict("progressing", UNRECORDED, WHO), 3),
    "waiting": (f"{verdict('waiting', UNRECORDED, WHO)} unless on ({WHO}) {overdue(UNRECORDED)}", 1),
    "overdue": (overdue(UNRECORDED), 1),
    "slow": (verdict("slow", UNRECORDED, WHO), 1),
    "looping": (verdict("looping", UNRECORDED, WHO), 1),
    "silent": (verdict("silent", UNRECORDED, WHO), 1),
    "unheard": (f"max by ({WHO}) ({unheard(UNRECORDED)})", 0),
    "dead": (f"max by ({WHO}) ({lost(UNRECORDED)})", 1),
    "killed": (f"max by ({WHO}) ({killed(UNRECORDED)})", 0),
    "not started": (late(UNRECORDED), 1),
}


def counted(name: str) -> str:
    """Return the query for the number of runs with a verdict."""
    computed = COUNTS[name][0]
    recorded = f"run:progress_verdict{{{BY_NAME}}} == {VERDICTS[name]}"
    return f"count(max by ({WHO}) ({recorded}) or on ({WHO}) {computed}) or vector(0)"


RECORDED: Final = f'run:progress_heard_time_seconds{{job=~"$job", {NAME}=~"$name"}}'
SEEN: Final = (
    f"""time() - max(
  timestamp({series(s.RUN_ACTIVE)}{{{BY_NAME}}})
  or timestamp({series(s.ACTIVE)}{{{BY_NAME}}})
  or {RECORDED} and on ({RUN}) run:progress_verdict{{{BY_NAME}}}
  or max_over_time(timestamp({series(s.RUN_ACTIVE)}{{{UNRECORDED}}})[$known:4m])
)""",
    "min(collector:progress_works:count) or vector(-1)",
)
"""The newest sample is seen for 5 minutes. An older one is known by the record of the runs that did not end; without
the rules, by a step of 4 minutes, which meets the last sample while it is seen."""
WHICH: Final = (
    links_column(NAME, "Kind of work", links.of_kind(), 120),
    links_column(ID, "Operation", links.of_row(), 130),
    hidden("start", "From"),
    hidden(PLACED, "In"),
)

seen = stat(
    "Can this be believed?",
    "From Prometheus: the time since the newest metrics of any operation (they come each 10 s while one runs), "
    "and the number of Collectors that work. "
    "While none works, silence proves nothing, and what looks healthy may not be. *unknown* without the alert rules, "
    "or if Prometheus does not scrape the Collectors.",
    (4, 4),
    Query(PROMETHEUS, SEEN[0], (Row({}, 0, 10),), "heard", True),
    Query(PROMETHEUS, SEEN[1], (Row({}, -1, 1),), "Collectors that work", True),
    text="value_and_name",
    overrides=[
        column(
            "heard",
            "last heard, ago",
            "dtdurations",
            decimals=1,
            noValue="nothing heard",
            **steps((None, "green"), (90, "yellow"), (180, "red")),
        ),
        column(
            "Collectors that work",
            "Collectors that work",
            mappings=[{"type": "value", "options": {"-1": {"text": "unknown", "color": "text", "index": 0}}}],
            **steps((None, "text"), (0, "red"), (1, "green")),
        ),
    ],
)

counts = stat(
    "Operations by verdict",
    "From Prometheus: run series (operations older than 5 s, at most 1,000 in a process). Each process judges "
    "its operations. *Unheard*: the series stopped a moment ago, without an end. *Not heard from*: no sample within "
    "`Heard within`. *Killed*: the process is proven gone. If the rules are loaded, a parent that is idle while a "
    "child in another process is active counts as waiting.",
    (20, 4),
    Query(PROMETHEUS, f"count(max by ({WHO}) ({nearness()})) or vector(0)", (Row({}, 8, 8),), "running", True),
    *(
        Query(PROMETHEUS, counted(name), (Row({}, number, number),), MEANING.get(name, name), True)
        for name, (_, number) in COUNTS.items()
    ),
    text="value_and_name",
    overrides=[
        column(name, name, thresholds=BAD["thresholds"])
        for name in ("overdue", "looping", "stuck", "not heard from", "killed")
    ]
    + [
        column(name, name, thresholds=steps((None, "green"), (1, "yellow"))["thresholds"])
        for name in ("slow", "unheard", "not started")
    ],
)

PASSED: Final = (("stuck", "import"), ("overdue", "approve"), ("slow", "import"), ("late", "import"))
TROUBLE: Final = f"topk({ROWS}, {judgement(which=f'>= {VERDICTS[LEAST]}')})"
IS_STUCK: Final = f"and on ({WHO}) {TROUBLE} == {VERDICTS['silent']}"
IN_TROUBLE: Final = f"and on ({WHO}) {TROUBLE}"
WAITS: Final = f'{LOGS} | {NAME}=~"$name" | {label(s.OVERDUE)}="true"'
NO_MORE: Final = f'{LOGS} | {NAME}=~"$name" | {EVENT}=~"{s.WAIT_ENDED}|{s.OPERATION_ENDED}"'
trouble = table(
    "Somebody should look at these",
    "From Prometheus: run series; from Loki: what an overdue wait waits for. The worst first: killed, not heard from, "
    f"stuck, looping, unheard, overdue, slow, not started; at most {ROWS}. *Past its limit* is by how much it is "
    "overdue, "
    "idle beyond `stall_after`, slow, or late to start. A click on an operation opens its dashboard at its own "
    "start, its "
    "trace, its events or the runbook.",
    (24, 8),
    number(
        placed(TROUBLE),
        judged("killed-1", "import", "dead"),
        judged("stuck-1", "import", "silent", **{STAGE: "fetch", STUCK_AT: "~dashboard_program.py:.* in hang_here"}),
        judged("looping-1", "agent", "looping", **{LOOP: "search cats"}),
        judged("overdue-1", "approve", "overdue"),
        judged("slow-1", "import", "slow"),
        judged("late-1", "import", "not started"),
        only=True,
    ),
    number(
        f"{past()} {IN_TROUBLE}",
        row("stuck-1", "import", 0),
        row("overdue-1", "approve", 0),
        row("slow-1", "import", 0),
    ),
    number(f"max by ({WHO}) ({series(s.RUN_IDLE)}{{{BY_NAME}}}) {IS_STUCK}", row("stuck-1", "import", 1)),
    number(f"{last_heard()} {IN_TROUBLE}", row("killed-1", "import", 1.7e12)),
    number(
        f"max by ({WHO}, {LOOP}) ({last(s.RUN_LOOP_REPEATS, BY_NAME)}) > 0 {IN_TROUBLE}", row("looping-1", "agent", 3)
    ),
    Query(
        LOKI,
        f"max by ({NAME}, {ID}, {label(s.WAIT_REASON)}) ("
        f"max by ({SAYS}, {label(s.WAIT_REASON)}) (max_over_time({WAITS} {AT} [10m]))"
        f" unless on ({SAYS}) max by ({SAYS}) (max_over_time({NO_MORE} {AT} [10m])))",
        (Row({ID: "overdue-1", label(s.WAIT_REASON): "approval"}),),
        instant=True,
    ),
    columns=("A", NAME, ID, "B", STAGE, STUCK_AT, LOOP, "E", label(s.WAIT_REASON), EXIT, "C", "D", "job"),
    hide=("Value #F", "instance"),
    filters=(needs("A"),),
    overrides=(
        column("A", "Verdict", width=110, custom__cellOptions=COLOURED_CELL, **MAPPED),
        *WHICH,
        column("B", "Past its limit", "dtdhms", 90),
        column(STAGE, "Stage", width=90),
        column(STUCK_AT, "Stuck at", width=190),
        column(LOOP, "Loops", width=105),
        column("E", "Times", "short", 55, decimals=0),
        column(label(s.WAIT_REASON), "Waits for", width=105),
        column(EXIT, "Died of", width=115),
        column("C", "Idle", "dtdhms", 80),
        column("D", "Last heard", "dateTimeFromNow", 100),
        column("job", "Service", width=80),
        column(ENVIRONMENT, "Environment", width=90),
    ),
    sort="Verdict",
)

SHARE, RANK = attention()
NEAREST: Final = f"topk({ROWS}, {RANK})"


def shown(expression: str) -> str:
    """Return the query for values of the runs of the table, by an expression with the labels `RUN`."""
    return f"max by ({WHO}) ({expression}\nand on ({RUN}) {NEAREST})"


def current(metric: s.Metric, which: str = BY_NAME) -> str:
    """Return the query for the value of a run series of the runs of the table; none once it has been withdrawn."""
    return shown(f"{series(metric)}{{{which}}}")


DONE, TOTAL = (f"max by ({RUN}) ({series(it)}{{{STAGES}}})" for it in (s.RUN_COMPLETED, s.RUN_TOTAL))
EXCESS: Final = (
    f'label_join(count_values by ({RUN}) ("done", {DONE} > {TOTAL}) * on ({RUN}) group_left (total)'
    f' count_values by ({RUN}) ("total", {TOTAL} < {DONE}), "{COUNTED}", " of ", "done", "total")'
)
"""1 for a stage that counted more units than its total, with both counts as text."""
running = table(
    f"Running: the {ROWS} that most need a look",
    "From Prometheus: run series. First what somebody should look at, the worst verdict first; then the nearest to "
    "its limit: the higher of idle / stall_after and elapsed / slow_after. 100%: a limit is reached, or it loops; "
    "*Past its limit*, above, says by how much. A parent that waits for a child in another process has no idle time "
    "of its own. "
    "*Progress* and *Time left* are the operation's; *Stage's progress* and *Left in stage* are the current stage's "
    "own, where only stages count; if it counted more than its total, *Counted* says so. *Units a second* is the "
    f"recent rate of the operation, else of the stage. {ESTIMATE}",
    (24, 10),
    number(
        placed(f"max by ({WHO}, {STAGE}, start) ({judgement()}\nand on ({WHO}) {NEAREST})"),
        judged("moving-1", "import", "progressing", **{STAGE: "load"}),
        judged("child-1", "chunk", "progressing"),
        judged("staged-1", "import", "progressing", **{STAGE: "convert"}),
        judged("waiting-1", "approve", "waiting"),
        judged("overdue-1", "approve", "overdue"),
        judged("slow-1", "import", "slow"),
        judged("looping-1", "agent", "looping"),
        judged("stuck-1", "import", "silent", **{STAGE: "fetch"}),
        only=True,
    ),
    number(current(s.RUN_RATIO), row("moving-1", "import", 0.0001, 0.9)),
    number(
        f"{shown(OWN_RATE)} or on ({WHO}) {shown(STAGE_RATE)}",
        row("moving-1", "import", 100, 2000),
        row("staged-1", "import", 1, 100),
    ),
    number(current(s.RUN_ETA, ITS_OWN), row("moving-1", "import", 10)),
    number(current(s.RUN_IDLE), row("stuck-1", "import", 1), row("moving-1", "import", 0, 5)),
    number(
        shown(SHARE),
        row("stuck-1", "import", 1, 1),
        row("slow-1", "import", 1, 1),
        row("overdue-1", "approve", 1, 1),
        row("looping-1", "agent", 1, 1),
        row("moving-1", "import", 0, 0.5),
    ),
    number(f"time() - {current(s.RUN_START_TIME)}", row("moving-1", "import", 1, 600)),
    number(
        f"max by ({WHO}, {COUNTED}) (({EXCESS}\nor on ({RUN}) {DONE} / {TOTAL})\nand on ({RUN}) {NEAREST})",
        row("staged-1", "import", 0.0001, 0.9),
    ),
    number(current(s.RUN_ETA, STAGES), row("staged-1", "import", 1)),
    columns=(NAME, ID, "A", "F", "B", "D", STAGE, "H", COUNTED, "I", "C", "E", "G", "job"),
    hide=("instance",),
    overrides=(
        *WHICH,
        column("A", "Verdict", width=100, custom__cellOptions=COLOURED_CELL, **MAPPED),
        column("F", "Near its limit", "percentunit", 110, custom__cellOptions=GAUGE_CELL, min=0, max=1, **NEAR),
        column("B", "Progress", "percentunit", 95, custom__cellOptions=GAUGE_CELL, min=0, max=1, **PLAIN),
        column("D", "Time left", "dtdhms", 90),
        column(STAGE, "Stage", width=90),
        column("H", "Stage's progress", "percentunit", 120, custom__cellOptions=GAUGE_CELL, min=0, max=1, **PLAIN),
        column(COUNTED, "Counted", width=75),
        column("I", "Left in stage", "dtdhms", 95),
        column("C", "Units a second", "short", 105, decimals=1),
        column("E", "Idle", "dtdhms", 80),
        column("G", "Running for", "dtdhms", 90),
        column("job", "Service", width=70),
        column(ENVIRONMENT, "Environment", width=90),
    ),
    sort=("Near its limit", "Verdict"),
)

SAID: Final = (
    NAME,
    ID,
    "service_name",
    label(s.STATUS),
    label(s.STAGE_CURRENT),
    label(s.MESSAGE),
    label(s.WAIT_REASON),
    label(s.OPERATION_ATTEMPT),
    HOST,
    TRACE,
    ENVIRONMENT,
    "start",
    PLACED,
)
said = table(
    "What they said last",
    "From Loki: the newest log event of each operation within 10 minutes, with its age, the newest first. A running "
    "operation says something at least every 5 minutes.",
    (24, 10),
    Query(
        LOKI,
        f"topk by ({SAYS}) (1, max by ({', '.join(SAID)}) "
        f'(max_over_time({LOGS} | {NAME}=~"$name" | {ID}!="" {with_attempt()} {started_at()} {AT} [10m])))',
        (
            Row(
                {
                    ID: "moving-1",
                    "service_name": "shop",
                    label(s.OPERATION_ATTEMPT): "1",
                    label(s.MESSAGE): "reading orders",
                    HOST: "~.+",
                }
            ),
            Row({ID: "stuck-1", label(s.STAGE_CURRENT): "fetch"}),
            Row({ID: "ended-1", label(s.STATUS): "completed"}),
            Row({ID: "failed-1", label(s.STATUS): "failed"}),
        ),
        instant=True,
    ),
    columns=("A", *SAID),
    overrides=(
        column("A", "Said", "dateTimeFromNow", 130),
        links_column(NAME, "Kind of work", links.of_kind(), 140),
        links_column(ID, "Operation", links.of_row(trace_id=True), 160),
        column("service_name", "Service", width=90),
        column(label(s.STATUS), "Status", width=100),
        column(label(s.STAGE_CURRENT), "Stage", width=120),
        column(label(s.MESSAGE), "Says", width=210),
        column(ENVIRONMENT, "Environment", width=90),
        column(label(s.WAIT_REASON), "Waits for", width=150),
        column(label(s.OPERATION_ATTEMPT), "Attempt", width=75),
        column(HOST, "Host", width=120),
        hidden(TRACE, "Trace"),
        hidden("start", "From"),
        hidden(PLACED, "In"),
    ),
    sort="Said",
)

over_time = lines(
    "Running, by kind of work",
    "From Prometheus: `progress_operation_active`, which also counts operations without run series.",
    (12, 7),
    Query(
        PROMETHEUS,
        f"sum by ({NAME}) ({last(s.ACTIVE, BY_NAME)})",
        (Row({NAME: "import"}, 3, 5), Row({NAME: "approve"}, 2, 2), Row({NAME: "report"}, 0, 0)),
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


def alerts_table(
    title: str, description: str, size: tuple[int, int], which: str, *expected: Row, **chosen: str
) -> Panel:
    """Return the table of the firing alerts of a selector, which returns the rows in the tests if this is chosen."""
    about = {"name": NAME, "id": ID, "job": "job", "instance": "instance", "environment": PLACED}
    runbook = links.runbook(**{name: links.cell(given) for name, given in about.items()})
    return table(
        title,
        f"{description} Without those that `alertmanager.yaml` inhibits. *Since* is the last progress of what is stuck "
        "or loops, when the limit of what is slow, overdue or late passed, and when what is lost was last heard or "
        "died; of other alerts, when Prometheus first saw the condition, at the earliest its own start. A "
        "click on an alert opens its entry in the runbook with the run filled in.",
        size,
        replace(
            number(placed(since(which, f"severity, alertname, {ENVIRONMENT}, {NAME}, {ID}, job, instance")), *expected),
            variables=chosen,
        ),
        columns=("severity", "alertname", "Value", NAME, ID, "job", ENVIRONMENT, "instance"),
        overrides=(
            column("severity", "Severity", width=100, custom__cellOptions=COLOURED_TEXT, mappings=SEVERITIES),
            links_column("alertname", "Alert", [runbook], 190),
            column("A", "Since", "dateTimeFromNow", 140),
            links_column(NAME, "Kind of work", links.of_kind(), 170),
            links_column(ID, "Operation", links.of_row(), 280),
            column("job", "Service", width=150),
            column(ENVIRONMENT, "Environment", width=90),
            column("instance", "Instance", width=190),
            hidden("start", "From"),
            hidden(PLACED, "In"),
        ),
        sort="Since",
    )


alerts = alerts_table(
    "Alerts that fire",
    "From Prometheus: the alerts of `grafana/alerts/rules.yaml` that fire, if these are loaded. An alert has no "
    "cluster or namespace; those without an environment are always shown.",
    (24, 6),
    ALERTED,
    Row({"alertname": "OperationStuck", ID: "stuck-1", "severity": "critical"}, 1.7e12),
    Row({"alertname": "OperationLost", ID: "killed-1"}, 1.7e12),
)

STARTS: Final = annotation(
    "Starts",
    Query(LOKI, f'{LOGS} | {NAME}=~"$name" | {EVENT}="{s.OPERATION_STARTED}"', ()),
    f"{{{{{NAME}}}}} {{{{{ID}}}}} started",
    "blue",
    on=False,
)
STALLS: Final = annotation(
    "Stalls",
    Query(LOKI, f'{LOGS} | {NAME}=~"$name" | {EVENT}="{s.STALLED}"', ()),
    f"{{{{{NAME}}}}} {{{{{ID}}}}} is stuck or loops",
    "orange",
    on=False,
)

NOW = Dashboard(
    links.NOW,
    "Operations now",
    "What runs now, the nearest to its limit first; stuck and lost operations on top.",
    (*WORK, UNRECORDED_VARIABLE, HEARD_VARIABLE, GAP_VARIABLE, KNOWN_VARIABLE, *SOURCES),
    {
        "": (seen, counts, trouble),
        "Alerts": (alerts,),
        "What runs": (running,),
        "In words": (said,),
        "Over time": (over_time, stall_ratio),
    },
    collapsed=frozenset({"In words", "Over time"}),
    annotations=(ALERT_MARKS, STARTS, STALLS),
    refresh="15s",
)
