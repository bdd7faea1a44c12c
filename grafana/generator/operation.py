"""The dashboard *One operation*: how far it is, where it is stuck, what it reported, what it costs."""

from __future__ import annotations

from typing import Final

from grafana.generator import links
from grafana.generator.common import (
    ALERTED,
    ESTIMATE,
    GAP_VARIABLE,
    HEARD_VARIABLE,
    ID_VARIABLE,
    KNOWN_VARIABLE,
    TRACE_VARIABLE,
    UNRECORDED_VARIABLE,
    WORK,
)
from grafana.generator.firing import firing
from grafana.generator.parts import (
    COLOURED_CELL,
    MAPPED,
    NEAR,
    SOURCES,
    SPARSE,
    Dashboard,
    annotation,
    column,
    gauge,
    hidden,
    lines,
    links_column,
    logs,
    override,
    stat,
    table,
    text,
    timeline,
    traces,
)
from grafana.generator.queries import (
    AT,
    BY_ID,
    EVENT,
    EVERYWHERE,
    EXIT,
    ID,
    LOKI,
    LOOP,
    NAME,
    OF_RUN,
    OF_STAGE,
    OWN,
    PLACED,
    PROMETHEUS,
    RUN,
    SAYS,
    STAGE,
    STUCK_AT,
    TEMPO,
    TRACE,
    VERDICTS,
    WHO,
    Query,
    Row,
    alive,
    beyond,
    known,
    label,
    last,
    near,
    newest,
    number,
    numbered,
    of_runs,
    series,
    started_at,
    value,
    with_attempt,
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


JOINED: Final = SPARSE["spanNulls"]
LIMIT: Final = {"custom__lineStyle": {"fill": "dash", "dash": [10, 10]}, "custom__fillOpacity": 0}
USED: Final = f"(time() - {value(s.RUN_START_TIME, BY_ID, ONE)}) / {value(s.RUN_SLOW_AFTER, BY_ID, ONE)}"
STATES: Final = tuple(VERDICTS)
SPOKEN: Final = f'{OF_RUN} | {EVENT}!="{s.UPDATED}" | {EVENT}!="{s.HEARTBEAT}"'
USAGE: Final = f'{OF_RUN} | {label(s.USAGE)}!="" | line_format "{{{{.{label(s.USAGE)}}}}}"'


def its_own(metric: s.Metric) -> str:
    """Return the query for a count or a time of the operation itself."""
    return value(metric, BY_ID, ONE, OWN)


def stages(metric: s.Metric) -> str:
    """Return the query for that of its current stage."""
    return value(metric, BY_ID, ONE, OF_STAGE)


def left(metric: s.Metric, of: str = "") -> str:
    """Return the query for the last value within the time range of the newest attempt, if it is not heard any more."""
    which = f"{BY_ID}, {of}" if of else BY_ID
    found = last(metric, which, "$__range")
    return f"max by ({ONE}) ({found} unless on ({RUN}) {alive(BY_ID)} and on ({RUN}) {newest(BY_ID)})"


def cell(expression: str, *expected: Row) -> Query:
    """Return the query of a table column."""
    return Query(PROMETHEUS, expression, expected, instant=True, format="table")


THIS: Final = {ID: "moving-1", NAME: "import"}
STAGE_RATE: Final = of_runs(f"rate({series(s.RUN_COMPLETED)}{{{BY_ID}, {OF_STAGE}}}[1m])", BY_ID, ONE)
STAGE_SHARE: Final = (
    f"{stages(s.RUN_COMPLETED)} / {stages(s.RUN_TOTAL)}"
    f" or {left(s.RUN_COMPLETED, OF_STAGE)} / {left(s.RUN_TOTAL, OF_STAGE)}"
)
LEFT_NEAR: Final = f"{left(s.RUN_IDLE)} / {left(s.RUN_STALL_AFTER)}"
STAGED: Final = {"id": "staged-1"}

SAMPLED: Final = f"timestamp({series(s.RUN_ACTIVE)}{{{BY_ID}}})"
short = table(
    "In short",
    "From Prometheus: the worst verdict that holds, by how much a limit is passed, where it is, what loops, how its "
    "process died, and when it was last heard. After an end it is the last known state. *Killed*: the process is "
    "proven gone; *not heard from*: no sample within `Heard within`; *unheard*: the series stopped a moment ago.",
    (24, 4),
    cell(numbered(BY_ID, STATES), Row(THIS, VERDICTS["progressing"], VERDICTS["progressing"])),
    Query(PROMETHEUS, beyond(BY_ID), (Row({ID: "stuck-1"}, 0),), "", True, "table", variables={"id": "stuck-1"}),
    cell(
        f"1000 * max by ({WHO}) (max_over_time(timestamp({series(s.RUN_ACTIVE)}{{{BY_ID}}})[$known:1m]))",
        Row(THIS, 1.7e12),
    ),
    cell(f"1000 * max by ({WHO}) ({known(s.RUN_START_TIME, BY_ID)})", Row(THIS, 1.7e12)),
    columns=("A", NAME, "B", STAGE, STUCK_AT, LOOP, EXIT, "C", "D", "job"),
    hide=(ID,),
    overrides=(
        column("A", "Verdict", width=125, custom__cellOptions=COLOURED_CELL, **MAPPED),
        links_column(NAME, "Kind of work", links.of_kind(), 140),
        column("B", "Past its limit", "dtdhms", 105),
        column(STAGE, "Stage", width=130),
        column(STUCK_AT, "Stuck at", width=250),
        column(LOOP, "Loops", width=140),
        column(EXIT, "Died of", width=150),
        column("C", "Last heard", "dateTimeFromNow", 120),
        column("D", "Started", "dateTimeFromNow", 120),
        column("job", "Service", width=100),
    ),
)

head = (
    gauge(
        "Progress",
        "From Prometheus: `progress_run_ratio`, as displayed: it never falls. Not known without a total or a plan. If "
        "it is not heard any more, the last known within the time range.",
        (4, 4),
        now(f"{value(s.RUN_RATIO, BY_ID, ONE)} or {left(s.RUN_RATIO)}", Row({}, 0.0001, 0.9)),
    ),
    stat(
        "Left",
        f"From Prometheus: the estimated time to the end. {ESTIMATE}",
        (4, 4),
        now(its_own(s.RUN_ETA), Row({}, 10)),
        unit="dtdurations",
        defaults={"noValue": "not known", "decimals": 1},
    ),
    stat(
        "Should end",
        f"From Prometheus: the current time plus the estimated time to the end. {ESTIMATE}",
        (4, 4),
        now(f"1000 * (time() + {its_own(s.RUN_ETA)})", Row({}, 1.7e12, 5e12)),
        unit="dateTimeAsLocal",
        defaults={"noValue": "not known"},
    ),
    gauge(
        "Current stage",
        "From Prometheus: the share of the current stage, where the operation has no count of its own. If it is not "
        "heard any more, the last known within the time range.",
        (4, 4),
        Query(PROMETHEUS, STAGE_SHARE, (Row({}, 0.0001, 0.9),), instant=True, variables=STAGED),
        defaults={"noValue": "no count of its own"},
    ),
    stat(
        "Left in the stage",
        "From Prometheus: the estimated time to the end of the current stage, where the operation has no count of "
        f"its own. {ESTIMATE}",
        (4, 4),
        Query(PROMETHEUS, stages(s.RUN_ETA), (Row({}, 1),), instant=True, variables=STAGED),
        unit="dtdurations",
        defaults={"noValue": "not known", "decimals": 1},
    ),
    gauge(
        "Near its limit",
        "From Prometheus: the higher of idle / stall_after and elapsed / slow_after; 100% with an overdue wait. If "
        "it is not heard any more, the last known idle / stall_after within the time range.",
        (4, 4),
        now(f"{near(BY_ID, ONE)} or {LEFT_NEAR}", Row({}, 0, 0.5)),
        defaults=NEAR,
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
    "From Prometheus the estimate, and that of the current stage where only stages count; from Loki the interval of "
    "the estimate with a coverage of about 80%. If the line falls straight to 0, the estimate holds. "
    f"{ESTIMATE}",
    (12, 8),
    over_time(its_own(s.RUN_ETA), "estimate", Row({"job": "shop"}, 10)),
    said(s.ETA_LOW, "low", Row({ID: "moving-1"}, 10)),
    said(s.ETA_HIGH, "high", Row({ID: "moving-1"}, 10)),
    Query(PROMETHEUS, stages(s.RUN_ETA), (Row({}, 1),), "of the current stage", variables=STAGED),
    unit="dtdurations",
    defaults={"min": 0, "decimals": 1},
    overrides=[override("low", **LIMIT, custom__spanNulls=JOINED), override("high", **LIMIT, custom__spanNulls=JOINED)],
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
    defaults={"min": 0, "decimals": 1},
    overrides=[override("limit (stall_after)", **LIMIT)],
)

rate = lines(
    "Done, and how fast",
    "From Prometheus: completed units of work and the total, or those of the current stage where only stages count; "
    "from Loki and Prometheus: the rate, on the right axis.",
    (12, 7),
    over_time(its_own(s.RUN_COMPLETED), "completed", Row({"job": "shop"}, 100, 1e6)),
    over_time(its_own(s.RUN_TOTAL), "total", Row({"job": "shop"}, 1e6, 1e6)),
    said(s.RATE, "a second", Row({ID: "moving-1"}, 100, 2000)),
    Query(PROMETHEUS, stages(s.RUN_COMPLETED), (Row({}, 1, 5000),), "in the stage", variables=STAGED),
    Query(PROMETHEUS, stages(s.RUN_TOTAL), (Row({}, 5000, 5000),), "total of the stage", variables=STAGED),
    Query(PROMETHEUS, STAGE_RATE, (Row({}, 1, 100),), "a second in the stage", variables=STAGED),
    unit="short",
    defaults={"min": 0},
    overrides=[
        override("/^total/", **LIMIT),
        override("/^a second/", custom__axisPlacement="right", custom__spanNulls=JOINED),
    ],
)

STOOD: Final = f'{EVENT}=~"{s.STALLED}|{s.UPDATED}" | {label(s.STACK)}!=""'
stuck = logs(
    "Where it is stuck",
    "From Loki: the newest call stacks of its stalls, the innermost line of the user's code first. While it is "
    "stuck, the "
    "stack is repeated every 5 minutes. Empty without a stall within the time range.",
    (12, 9),
    Query(
        LOKI,
        f'{OF_RUN} | {STOOD} | line_format "{{{{.{label(s.HEALTH_REASON)}}}}}\\n{{{{.{label(s.STACK)}}}}}"',
        (Row({ID: "stuck-1"}, line="in hang_here"),),
        variables={"id": "stuck-1"},
        more={"maxLines": 5},
    ),
)

feed = logs(
    "What it said",
    "From Loki: all events within the time range except plain updates and heartbeats.",
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

ATTEMPT: Final = label(s.OPERATION_ATTEMPT)
attempts = table(
    "Its attempts",
    "From Loki: the attempts with this id within the time range, each with the time of its newest event. A click on "
    "the trace shows its spans here, or in Explore.",
    (12, 6),
    Query(
        LOKI,
        f"topk by ({ATTEMPT}) (1, max by ({ATTEMPT}, {TRACE}, {label(s.STATUS)}, {label(s.MESSAGE)}) "
        f"(max_over_time({OF_RUN} {with_attempt()} {AT} [$__range])))",
        (Row({ATTEMPT: "1", TRACE: "~[0-9a-f]{32}"}, 1.7e12),),
        instant=True,
    ),
    columns=(ATTEMPT, "A", label(s.STATUS), label(s.MESSAGE), TRACE),
    overrides=(
        column(ATTEMPT, "Attempt", width=75),
        column("A", "Said last", "dateTimeFromNow", 120),
        column(label(s.STATUS), "Status", width=95),
        column(label(s.MESSAGE), "Says", width=170),
        links_column(TRACE, "Trace", links.of_trace(), 200),
    ),
    sort="Attempt",
)

note = text(
    "About its spans",
    "**A span exists only after its stage has ended.** Until the first stage has ended, the trace is not found. "
    "Click the trace of an attempt at the left to show its spans below; running stages are under *Stages, waits and "
    "stalls*.",
    (12, 6),
)

trace = traces(
    "Its spans",
    "From Tempo: all spans of the trace that `Trace` names, also those of its children in other services. Empty "
    "without a trace id, and before the first stage has ended.",
    (24, 11),
    Query(TEMPO, "$trace", (Row({"name": "read"}),)),
)

CHILD: Final = f'{EVERYWHERE} | {label(s.OPERATION_PARENT_ID)}="$id"'
CHILDREN: Final = (NAME, ID, label(s.STATUS), label(s.HEALTH), label(s.MESSAGE), "service_name", TRACE, "start", PLACED)
OPEN: Final = "pending|running|waiting"
"""The status of an operation that has not ended."""


def of_children(lines: str) -> str:
    """Return the query for the time of the newest of these lines, for each child and all that it said."""
    return f"max by ({', '.join(CHILDREN)}) (max_over_time({CHILD} | {lines} {started_at()} {AT} [$__range]))"


GOING_ON: Final = of_children(f'{label(s.STATUS)}=~"{OPEN}"')
OVER: Final = of_children(f'{label(s.STATUS)}!~"{OPEN}" | label_format {label(s.HEALTH)}={label(s.STATUS)}')
children = table(
    "Its children",
    "From Loki: the child operations of all services, from their newest log events within the time range. The "
    "verdict of one "
    "that ended is its status.",
    (24, 8),
    Query(
        LOKI,
        f"topk by ({SAYS}) (1, {GOING_ON} or {OVER})",
        (Row({ID: "child-1", NAME: "chunk", label(s.STATUS): "running", label(s.HEALTH): "progressing"}),),
        instant=True,
        only=True,
    ),
    columns=(NAME, ID, label(s.HEALTH), label(s.STATUS), label(s.MESSAGE), "A", "service_name"),
    hide=(label(s.STATUS),),
    overrides=(
        links_column(NAME, "Kind of work", links.of_kind(), 160),
        links_column(ID, "Operation", links.of_row(trace_id=True), 260),
        column(label(s.HEALTH), "Verdict", width=120),
        column(label(s.MESSAGE), "Says", width=380),
        column("A", "Said last", "dateTimeFromNow", 140),
        column("service_name", "Service", width=160),
        hidden(TRACE, "Trace"),
        hidden("start", "From"),
        hidden(PLACED, "In"),
    ),
    sort="Said last",
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
    custom=SPARSE,
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
    custom=SPARSE,
)

OWN_ALERTS: Final = f'{ALERTED}, {ID}="$id"'
MARKS: Final = (
    annotation(
        "Starts",
        Query(PROMETHEUS, f"1000 * max by ({NAME}) ({series(s.RUN_START_TIME)}{{{BY_ID}}})", ()),
        f"{{{{{NAME}}}}} started",
        "blue",
        at_value=True,
    ),
    annotation(
        "Stalls", Query(LOKI, f'{OF_RUN} | {EVENT}=~"{s.STALLED}|{s.WAIT_OVERDUE}"', ()), "{{event_name}}", "orange"
    ),
    annotation("Alerts", Query(PROMETHEUS, f"max by (alertname) {firing(OWN_ALERTS)}", ()), "{{alertname}}", "red"),
)

ONE_OPERATION = Dashboard(
    links.OPERATION,
    "One operation",
    "How far one operation is, whether and where it is stuck, what it reported, and what it costs.",
    (*WORK, UNRECORDED_VARIABLE, ID_VARIABLE, TRACE_VARIABLE, HEARD_VARIABLE, GAP_VARIABLE, KNOWN_VARIABLE, *SOURCES),
    {
        "": (short, *head, stuck, feed, progress, eta, states, idle, rate),
        "Attempts and children": (attempts, note, children),
        "Trace": (trace,),
        "Cost": (tokens, cost),
    },
    since="now-6h",
    refresh="1m",
    collapsed=frozenset({"Trace", "Cost"}),
    annotations=MARKS,
)
