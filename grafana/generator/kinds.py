"""The dashboard *Kinds of work*: how often, how long, how successfully, at what cost."""

from __future__ import annotations

from typing import Final

from grafana.generator import links
from grafana.generator.common import (
    ALERT_MARKS,
    CURRENCY_VARIABLE,
    JOB_VARIABLE,
    NAME_VARIABLE,
    PLACE_VARIABLES,
    WINDOW_VARIABLE,
)
from grafana.generator.parts import (
    COLOURED_TEXT,
    GOOD,
    SOURCES,
    Dashboard,
    bars,
    choose_time,
    column,
    heatmap,
    lines,
    links_column,
    table,
)
from grafana.generator.queries import (
    BY_NAME,
    NAME,
    OWN,
    PLACE,
    PROMETHEUS,
    STAGE,
    STATUS,
    UNIT,
    Query,
    Row,
    grown,
    label,
    last,
    series,
)
from otel_progress import semconv as s
from otel_progress.model.status import Status

STARTED: Final = series(s.STARTED, "_total")
ENDED: Final = series(s.ENDED, "_total")
UNITS: Final = series(s.UNITS_COMPLETED, "_total")
COST: Final = series(s.COST, "_total")
CURRENCY: Final = label(s.CURRENCY)
COMPLETED: Final = f'{BY_NAME}, {STATUS}="{Status.COMPLETED.value}"'
REPORT: Final = {NAME: "report"}
LEGEND: Final = f"{{{{{NAME}}}}}"
ALL_ENDED: Final = grown(ENDED, BY_NAME, NAME)
WELL: Final = f"({grown(ENDED, COMPLETED, NAME)} or 0 * {ALL_ENDED}) / ({ALL_ENDED} > 0)"
"""The share of completed operations: 0 where all failed or were killed, and no value where none ended."""
GAP: Final = choose_time(
    "gap",
    "Heard within",
    "The maximum gap between two samples: at least four export intervals (metrics by name: 60 s).",
    "5m",
    "10m",
    "30m",
)
DURATION: Final = {"min": 0, "decimals": 1}
"""Durations with a second unit, such as 1 minute, 5 seconds."""
SLOW: Final = {"interval": "1m"}
"""The step of queries with `$__rate_interval`, which makes it at least four export intervals."""


def histogram(metric: s.Metric, by: str, part: str = "_bucket", window: str = "$window") -> str:
    """Return the query for the increase of a histogram's series."""
    return grown(series(metric, part), BY_NAME, by, window)


def quantile(level: float, metric: s.Metric, by: str) -> str:
    """Return the query for a quantile of durations: from classic buckets, else from native histograms.

    Where nothing ended in the window, the quantile is NaN; the comparison removes it.
    """
    classic = f"histogram_quantile({level}, {histogram(metric, f'{by}, le')}) >= 0"
    native = f"histogram_quantile({level}, {histogram(metric, by, '')}) >= 0"
    return f"({classic}\nor\n{native})"


def total_time(metric: s.Metric, by: str) -> str:
    """Return the query for the sum of durations, of classic and of native histograms."""
    native = f"histogram_sum({histogram(metric, by, '')})"
    return f"{histogram(metric, by, '_sum')}\nor\n{native}"


def number(expression: str, *expected: Row) -> Query:
    """Return the query of a table column."""
    return Query(PROMETHEUS, expression, expected, instant=True, format="table")


def line(expression: str, legend: str, *expected: Row) -> Query:
    """Return the query of a line over time."""
    return Query(PROMETHEUS, expression, expected, legend)


LIMIT: Final = label(s.LIMIT_NAME)
IN_CURRENCY: Final = f'{BY_NAME}, {CURRENCY}="$currency"'
COST_PER_UNIT: Final = (
    f"{grown(COST, IN_CURRENCY, NAME)}\n/ on ({NAME}) group_right () ({grown(UNITS, BY_NAME, f'{NAME}, {UNIT}')} > 0)"
)

overview = table(
    "Kinds of work",
    "From Prometheus: increases of counters and histograms by name within `Over`. *Completed* is the share of "
    "completed operations among all that ended.",
    (24, 8),
    number(grown(STARTED, BY_NAME, NAME), Row(REPORT, 4, 4), Row({NAME: "import"}, 4, 5)),
    number(grown(ENDED, BY_NAME, NAME), Row(REPORT, 4, 4)),
    number(
        WELL,
        Row(REPORT, 0.75, 0.75),
    ),
    number(f"sum by ({NAME}) ({last(s.ACTIVE, BY_NAME)})", Row({NAME: "import"}, 3, 4)),
    number(quantile(0.5, s.OPERATION_DURATION, NAME), Row(REPORT, 0.01, 2)),
    number(quantile(0.9, s.OPERATION_DURATION, NAME), Row(REPORT, 0.05, 5)),
    columns=(NAME, "A", "B", "C", "D", "E", "F"),
    overrides=(
        links_column(NAME, "Kind of work", links.of_kind()),
        column("A", "Started", "short", 110, decimals=0),
        column("B", "Ended", "short", 110, decimals=0),
        column("C", "Completed", "percentunit", 110, custom__cellOptions=COLOURED_TEXT, **GOOD),
        column("D", "Running", "short", 110, decimals=0),
        column("E", "Half took less than", "dtdurations", 190, decimals=1),
        column("F", "90% took less than", "dtdurations", 190, decimals=1),
    ),
    sort="Started",
)

success = lines(
    "Success",
    "From Prometheus: the share of completed operations among all that ended within `Over`.",
    (12, 7),
    line(WELL, LEGEND, Row(REPORT, 0.75, 0.75)),
    unit="percentunit",
    defaults={"min": 0, "max": 1},
)

endings = lines(
    "How they ended",
    "From Prometheus: operations that ended within `Over`, by status.",
    (12, 7),
    line(
        f"{grown(ENDED, BY_NAME, f'{NAME}, {STATUS}')} > 0",
        f"{LEGEND}: {{{{{STATUS}}}}}",
        Row({**REPORT, STATUS: "completed"}, 3, 3),
        Row({**REPORT, STATUS: "failed"}, 1, 1),
    ),
    unit="short",
    defaults={"min": 0, "decimals": 0},
)

durations = heatmap(
    "How long they took",
    "From Prometheus: the histogram of durations, in seconds; classic buckets or native histograms. An exemplar links "
    "to its trace.",
    (12, 8),
    Query(
        PROMETHEUS,
        histogram(s.OPERATION_DURATION, "le", window="$__rate_interval"),
        (Row({"le": "+Inf"}, 0, 4), Row({"le": "1.5"}, 0, 4)),
        "{{le}}",
        format="heatmap",
        more={"exemplar": True, **SLOW},
    ),
    # Not in one query: the format of classic buckets would spoil the cells of native ones.
    Query(
        PROMETHEUS,
        f"sum({histogram(s.OPERATION_DURATION, NAME, '', '$__rate_interval')})",
        (Row({}),),
        native=True,
        more={"exemplar": True, **SLOW},
    ),
)

quantiles = lines(
    "Quantiles of duration",
    "From Prometheus: 50%, 90% and 99% of the operations that ended within `Over` took less than this.",
    (12, 8),
    *(
        line(quantile(level, s.OPERATION_DURATION, NAME), f"{LEGEND} {name}", Row(REPORT, 0.01, 5))
        for level, name in ((0.5, "50%"), (0.9, "90%"), (0.99, "99%"))
    ),
    unit="dtdurations",
    defaults=DURATION,
)

BY_STAGE: Final = f"{NAME}, {STAGE}"
stages = lines(
    "Where the time goes",
    "From Prometheus: the total duration of the stages that ended within `Over`, in seconds.",
    (12, 8),
    line(
        total_time(s.STAGE_DURATION, BY_STAGE),
        f"{LEGEND}: {{{{{STAGE}}}}}",
        Row({**REPORT, STAGE: "collect"}, 0.2, 5),
        Row({**REPORT, STAGE: "print"}, 0, 5),
    ),
    unit="dtdurations",
    defaults=DURATION,
    custom={"fillOpacity": 30, "stacking": {"mode": "normal", "group": "A"}},
)

slowest = bars(
    "The slowest stages",
    "From Prometheus: 90% of the runs of a stage that ended within `Over` took less than this. The ten longest.",
    (12, 8),
    Query(
        PROMETHEUS,
        f"sort_desc(topk(10, {quantile(0.9, s.STAGE_DURATION, BY_STAGE)}))",
        (Row({**REPORT, STAGE: "collect"}, 0.05, 5), Row({NAME: "import", STAGE: "read"}, 0, 5)),
        f"{LEGEND}: {{{{{STAGE}}}}}",
        instant=True,
    ),
    unit="dtdurations",
)

SECONDS: Final = "scalar(count_over_time(vector(0)[$__rate_interval:1s]))"
THROUGHPUT: Final = f"({grown(UNITS, BY_NAME, f'{NAME}, {UNIT}', '$__rate_interval')}) / {SECONDS}"
"""Not `rate()`, which needs two samples of a process: one that ends within two exports would have no throughput."""
throughput = lines(
    "Throughput",
    "From Prometheus: units of work completed per second, as a mean over four export intervals. A run that is shorter "
    "than that shows, too.",
    (8, 7),
    Query(
        PROMETHEUS,
        THROUGHPUT,
        (Row({NAME: "import", UNIT: "row"}, 100, 2000),),
        f"{LEGEND}: {{{{{UNIT}}}}}",
        more=SLOW,
    ),
    unit="short",
    defaults={"min": 0},
)

eta_error = lines(
    "How wrong the estimate is",
    "From Prometheus: how fast the estimated end moves away, in seconds per second, as a mean over running operations. "
    "0%: the estimate holds. 100%: the end gets no nearer.",
    (8, 7),
    line(
        f"avg by ({NAME}) (abs(deriv({series(s.RUN_ETA)}{{{BY_NAME}, {OWN}}}[$gap]) + 1))",
        LEGEND,
        Row({NAME: "import"}, 0, 5),
    ),
    unit="percentunit",
    defaults={"min": 0},
)

cost = lines(
    "Cost of a unit",
    "From Prometheus: the cost within `Over`, in `Currency`, divided by the completed units, for each kind of unit.",
    (8, 7),
    line(
        COST_PER_UNIT,
        f"{LEGEND}, per {{{{{UNIT}}}}}",
        Row({**REPORT, UNIT: "page"}, 0.05, 0.05),
        Row({NAME: "import", UNIT: "row"}, 0.00001, 0.0001),
    ),
    unit="none",
    defaults={"min": 0},
)

tokens = lines(
    "Tokens",
    "From Prometheus: tokens used within `Over`, by direction.",
    (8, 7),
    line(
        grown(series(s.TOKENS, "_total"), BY_NAME, f"{NAME}, {label(s.TOKEN_DIRECTION)}"),
        f"{LEGEND}: {{{{{label(s.TOKEN_DIRECTION)}}}}}",
        Row({**REPORT, label(s.TOKEN_DIRECTION): "input"}, 300, 300),
        Row({**REPORT, label(s.TOKEN_DIRECTION): "output"}, 30, 30),
    ),
    unit="short",
    defaults={"min": 0},
)

spent = lines(
    "Spent",
    "From Prometheus: the cost within `Over`, by currency.",
    (8, 7),
    line(
        grown(COST, BY_NAME, f"{NAME}, {CURRENCY}"),
        f"{LEGEND}: {{{{{CURRENCY}}}}}",
        Row({**REPORT, CURRENCY: "USD"}, 1.5, 1.5),
    ),
    unit="none",
    defaults={"min": 0},
)

limits = lines(
    "Adaptive limits",
    "From Prometheus: how many tasks each adaptive limit of concurrency lets through at once, as the sum over the "
    "processes of a service. It grows while all goes well, and shrinks after errors and with latency. A limit has no "
    "kind of work: it is shared.",
    (8, 7),
    line(
        f'sum by (job, {LIMIT}) (last_over_time({series(s.LIMIT_SIZE)}{{job=~"$job", {PLACE}}}[$gap]))',
        f"{{{{{LIMIT}}}}} in {{{{job}}}}",
        Row({LIMIT: "search API", "job": "shop"}, 8, 8),
    ),
    unit="short",
    defaults={"min": 0, "decimals": 0},
)

PROCESSES: Final = f'job=~"$job", {PLACE}'
ITS_LIMITS: Final = "Sampled every 5 s while operations run, if psutil is installed; a process has no kind of work."
cpu = lines(
    "What the processes use: CPU",
    f"From Prometheus: CPU cores in use, as the sum over the processes of a service. {ITS_LIMITS}",
    (12, 7),
    line(
        f"sum by (job) (last_over_time({series(s.PROCESS_CPU_UTILIZATION, '_ratio')}{{{PROCESSES}}}[$gap]))",
        "{{job}}",
        Row({"job": "shop"}, 0, 64),
    ),
    unit="short",
    defaults={"min": 0},
)

memory = lines(
    "What the processes use: memory",
    f"From Prometheus: resident memory, as the sum over the processes of a service. {ITS_LIMITS}",
    (12, 7),
    line(
        f"sum by (job) (last_over_time({series(s.PROCESS_MEMORY_USAGE, '_bytes')}{{{PROCESSES}}}[$gap]))",
        "{{job}}",
        Row({"job": "shop"}, 1e6, 1e11),
    ),
    unit="bytes",
    defaults={"min": 0},
)

KINDS = Dashboard(
    links.KINDS,
    "Kinds of work",
    "For each operation name: how often it runs, how it ends, how long it and its stages take, and what it costs.",
    (*PLACE_VARIABLES, JOB_VARIABLE, NAME_VARIABLE, CURRENCY_VARIABLE, WINDOW_VARIABLE, GAP, *SOURCES),
    {
        "": (overview, success, endings),
        "Time": (durations, quantiles, stages, slowest),
        "Work and cost": (throughput, eta_error, cost, tokens, spent, limits, cpu, memory),
    },
    since="now-6h",
    refresh="1m",
    collapsed=frozenset({"Work and cost"}),
    annotations=(ALERT_MARKS,),
)
