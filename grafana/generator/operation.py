"""The dashboard *One operation*: how far it is, where it is stuck, what it reported, what it costs."""

from __future__ import annotations

from typing import Final

from grafana.generator import links
from grafana.generator.common import GAP_VARIABLE, ID_VARIABLE, KNOWN_VARIABLE, WORK
from grafana.generator.parts import (
    MAPPED,
    NEAR,
    SOURCES,
    Dashboard,
    column,
    gauge,
    lines,
    links_column,
    logs,
    override,
    stat,
    table,
    timeline,
)
from grafana.generator.queries import (
    BY_ID,
    EVENT,
    ID,
    LOGS,
    LOKI,
    NAME,
    NEWEST,
    OF_RUN,
    PROMETHEUS,
    SPANS,
    STAGE,
    TEMPO,
    VERDICTS,
    Query,
    Row,
    label,
    near,
    number,
    numbered,
    value,
)
from otel_progress import semconv as s

ONE: Final = "job"
"""Labels of a single series for the operation; its name and id are in the variables."""


def over_time(expression: str, legend: str, *expected: Row) -> Query:
    """Return the query of a line over time from Prometheus."""
    return Query(PROMETHEUS, expression, expected, legend)


def now(expression: str, *expected: Row, legend: str = "") -> Query:
    """Return the query of a current value from Prometheus."""
    return Query(PROMETHEUS, expression, expected, legend, instant=True)


def said(attribute: str, legend: str, *expected: Row, how: str = "last") -> Query:
    """Return the query of a number over time from the log events."""
    return Query(LOKI, f"max by ({ID}) ({number(attribute, OF_RUN, how=how)})", expected, legend)


LIMIT: Final = {"custom__lineStyle": {"fill": "dash", "dash": [10, 10]}, "custom__fillOpacity": 0}
USED: Final = f"(time() - {value(s.RUN_START_TIME, BY_ID, ONE)}) / {value(s.RUN_SLOW_AFTER, BY_ID, ONE)}"
STATES: Final = tuple(VERDICTS)
SPOKEN: Final = f'{OF_RUN} | {EVENT}!="{s.UPDATED}" | {EVENT}!="{s.HEARTBEAT}"'
USAGE: Final = f'{OF_RUN} | {label(s.USAGE)}!="" | line_format "{{{{.{label(s.USAGE)}}}}}"'

head = (
    stat(
        "Verdict",
        "From Prometheus: the verdict of the process; *ended* after its end, *not heard from* without an end and "
        "without a sample within `Heard within`.",
        (4, 4),
        now(f"max(\n{numbered(BY_ID, STATES)}\n)", Row({}, 1, 1)),
        background=True,
        defaults=MAPPED,
    ),
    gauge(
        "Progress",
        "From Prometheus: `progress_run_ratio`, as displayed: it never falls.",
        (4, 4),
        now(value(s.RUN_RATIO, BY_ID, ONE), Row({}, 0.0001, 0.9)),
    ),
    stat(
        "Left",
        "From Prometheus: the estimated time to the end.",
        (4, 4),
        now(value(s.RUN_ETA, BY_ID, ONE), Row({}, 10)),
        unit="dtdurations",
        defaults={"noValue": "not known"},
    ),
    stat(
        "Should end",
        "From Prometheus: the current time plus the estimated time to the end.",
        (4, 4),
        now(f"1000 * (time() + {value(s.RUN_ETA, BY_ID, ONE)})", Row({}, 1.7e12, 5e12)),
        unit="dateTimeAsLocal",
        defaults={"noValue": "not known"},
    ),
    gauge(
        "Near its limit",
        "From Prometheus: the higher of idle / stall_after and elapsed / slow_after.",
        (4, 4),
        now(near(BY_ID), Row({}, 0, 0.5)),
        defaults=NEAR,
    ),
    stat(
        "Attempt",
        "From Loki: the newest attempt; the same id may run again.",
        (4, 4),
        Query(
            LOKI,
            f"max({number(s.OPERATION_ATTEMPT, OF_RUN, '$__range', 'max')})",
            (Row({}, 1, 1),),
            instant=True,
        ),
    ),
)

progress = lines(
    "Progress, and its time",
    "From Prometheus: the progress, and the used share of the time limit (elapsed / slow_after, which by default "
    "follows from the plan). The operation is late if the second line is above the first.",
    (12, 8),
    over_time(value(s.RUN_RATIO, BY_ID, ONE), "progress", Row({"job": "shop"}, 0.0001, 0.9)),
    over_time(USED, "time used of its limit", Row({"job": "shop"}, 0, 0.2)),
    unit="percentunit",
    defaults={"min": 0},
    overrides=[override("time used of its limit", **LIMIT)],
)

eta = lines(
    "Time to the end",
    "From Prometheus the estimate, from Loki its interval with a coverage of about 80%. If the line falls straight "
    "to 0, the estimate holds.",
    (12, 8),
    over_time(value(s.RUN_ETA, BY_ID, ONE), "estimate", Row({"job": "shop"}, 10)),
    said(s.ETA_LOW, "low", Row({ID: "moving-1"}, 10)),
    said(s.ETA_HIGH, "high", Row({ID: "moving-1"}, 10)),
    unit="dtdurations",
    defaults={"min": 0},
    overrides=[override("low", **LIMIT), override("high", **LIMIT)],
)

states = timeline(
    "Stages, waits and stalls",
    "From Prometheus: a line for each stage that was running at a sample (every 10 s), coloured by the verdict. The "
    "trace shows shorter stages.",
    (24, 7),
    Query(
        PROMETHEUS,
        numbered(BY_ID, ("progressing", "waiting", "slow", "looping", "silent"), STAGE),
        (Row({STAGE: "load"}, 1, 1),),
        f"{{{{{STAGE}}}}}",
    ),
)

idle = lines(
    "Idle, and its limit",
    "From Prometheus: seconds since the last progress; a wait stops the clock. At the limit the operation is stuck.",
    (12, 7),
    over_time(value(s.RUN_IDLE, BY_ID, ONE), "idle", Row({"job": "shop"}, 0, 5)),
    over_time(f"{value(s.RUN_STALL_AFTER, BY_ID, ONE)} < Inf", "limit (stall_after)", Row({"job": "shop"}, 60, 60)),
    unit="dtdurations",
    defaults={"min": 0},
    overrides=[override("limit (stall_after)", **LIMIT)],
)

rate = lines(
    "Done, and how fast",
    "From Prometheus: completed units of work and the total; from Loki: the rate, on the right axis.",
    (12, 7),
    over_time(value(s.RUN_COMPLETED, BY_ID, ONE), "completed", Row({"job": "shop"}, 100, 1e6)),
    over_time(value(s.RUN_TOTAL, BY_ID, ONE), "total", Row({"job": "shop"}, 1e6, 1e6)),
    said(s.RATE, "a second", Row({ID: "moving-1"}, 100, 2000)),
    unit="short",
    defaults={"min": 0},
    overrides=[override("total", **LIMIT), override("a second", custom__axisPlacement="right")],
)

stuck = logs(
    "Where it is stuck",
    "From Loki: the call stack of each stall, the innermost line of the user's code first. Empty without a stall.",
    (12, 9),
    Query(
        LOKI,
        f'{LOGS} | {ID}="$id" | {label(s.STACK)}!=""'
        f' | line_format "{{{{.{label(s.HEALTH_REASON)}}}}}\\n{{{{.{label(s.STACK)}}}}}"',
        (Row({ID: "stuck-1"}, line="in hang_here"),),
        variables={"id": "stuck-1"},
        more={"maxLines": 20},
    ),
)

feed = logs(
    "What it said",
    "From Loki: all events except plain updates and heartbeats.",
    (12, 9),
    Query(
        LOKI,
        SPOKEN,
        (
            Row({ID: "moving-1"}, line="import started"),
            Row({ID: "moving-1"}, line="import: stage load started"),
            Row({ID: "moving-1", label(s.NOTE_TEXT): "the file is open"}, line="the file is open"),
        ),
        more={"maxLines": 500},
    ),
)

trace = table(
    "Its spans",
    "From Tempo: the ended spans of the operation and its stages. A click on a trace or span opens the trace.",
    (12, 9),
    Query(
        TEMPO,
        f"{SPANS} | select(name, span.{s.STAGE_PATH}, span.{s.STATUS}, status)",
        (Row({"name": "read", s.STATUS: "completed"}),),
        more={"limit": 20, "spss": 100, "tableType": "spans"},
    ),
    columns=(),
    transformations=[],
)

CHILD: Final = f'{LOGS} | {label(s.OPERATION_PARENT_ID)}="$id"'
children = table(
    "Its children",
    "From Loki: the child operations, from their newest log events.",
    (12, 9),
    Query(
        LOKI,
        f"topk by ({ID}) (1, max by ({NAME}, {ID}, {label(s.STATUS)}, {label(s.HEALTH)}) "
        f"(max_over_time({CHILD} {NEWEST} [$__range])))",
        (Row({ID: "child-1", NAME: "chunk", label(s.STATUS): "running"}),),
        instant=True,
        only=True,
    ),
    columns=(),
    overrides=(
        links_column(NAME, "Kind of work", links.of_kind(), 160),
        links_column(ID, "Operation", links.of_row()),
        column(label(s.STATUS), "Status", width=120),
        column(label(s.HEALTH), "Verdict", width=120),
    ),
    transformations=[
        {"id": "labelsToFields", "options": {"mode": "columns"}},
        {"id": "merge", "options": {}},
        {
            "id": "organize",
            "options": {
                "excludeByName": {"Time": True, "Value #A": True, "Value": True},
                "indexByName": {NAME: 0, ID: 1, label(s.STATUS): 2, label(s.HEALTH): 3},
                "renameByName": {},
            },
        },
    ],
)

tokens = lines(
    "Tokens",
    "From Loki: tokens used so far, from its log events.",
    (12, 7),
    *(
        Query(
            LOKI,
            f'max by ({ID}) (last_over_time({USAGE} | json {kind}_tokens="{kind}_tokens"'
            f' | unwrap {kind}_tokens | __error__="" [$__interval]))',
            (Row({ID: "moving-1"}, 9),),
            kind,
        )
        for kind in ("input", "output")
    ),
    unit="short",
    defaults={"min": 0},
)

cost = lines(
    "Cost",
    "From Loki: the cost so far, by currency, from its log events.",
    (12, 7),
    Query(
        LOKI,
        f'max by (currency) (last_over_time({USAGE} | regexp `"cost\\.(?P<currency>[A-Z]{{3}})":(?P<cost>[0-9.eE+-]+)`'
        ' | unwrap cost | __error__="" [$__interval]))',
        (Row({"currency": "USD"}, 0.004),),
        "{{currency}}",
    ),
    unit="none",
    defaults={"min": 0, "decimals": 4},
)

ONE_OPERATION = Dashboard(
    links.OPERATION,
    "One operation",
    "How far one operation is, whether and where it is stuck, what it reported, and what it costs.",
    (*WORK, ID_VARIABLE, GAP_VARIABLE, KNOWN_VARIABLE, *SOURCES),
    {
        "": (*head, progress, eta, states, idle, rate),
        "What happened": (feed, stuck, trace, children),
        "Cost": (tokens, cost),
    },
)
