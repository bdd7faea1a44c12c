"""The dashboard *The pipeline itself*: whether the other dashboards show everything, and how old their data is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from grafana.generator import links
from grafana.generator.common import GAP_VARIABLE, JOB_VARIABLE, PLACE_VARIABLES, SERVICE_VARIABLE, WINDOW_VARIABLE
from grafana.generator.firing import firing
from grafana.generator.parts import SOURCES, SPARSE, Dashboard, annotation, lines, stat, steps
from grafana.generator.queries import EVENT, LOGS, LOKI, PLACE, PROMETHEUS, Query, Row, grown, label, last, series
from otel_progress import semconv as s

BY_JOB: Final = f'job=~"$job", {PLACE}'
REASON: Final = label(s.DROP_REASON)
DROPS: Final = series(s.DROPS, "_total")
COLLECTOR: Final = 'job="otel-collector"'
SENT: Final = {"log_records": "otlp_http/loki", "metric_points": "otlp_http/prometheus", "spans": "otlp_http/tempo"}
SIGNALS: Final = tuple(SENT)
OURS: Final = f'{LOGS} | {label(s.HEARTBEAT_INTERVAL)}!=""'
HEARTBEATS: Final = f'{LOGS} | {label(s.PROCESS_IN_FLIGHT)}!=""'
EVENTS: Final = f'{LOGS} | {label(s.SEQUENCE)}!=""'
INSTANCE: Final = "service_instance_id"


def now(expression: str, *expected: Row, legend: str = "") -> Query:
    """Return the query of a current value."""
    return Query(PROMETHEUS, expression, expected, legend, instant=True)


def line(expression: str, legend: str, *expected: Row) -> Query:
    """Return the query of a line over time."""
    return Query(PROMETHEUS, expression, expected, legend)


def rate(metric: str, by: str) -> str:
    """Return the query for the rate of a counter of the Collector."""
    return f"sum by ({by}) (rate({metric}{{{COLLECTOR}}}[$__rate_interval]))"


def total(metrics: Iterable[str]) -> str:
    """Return the query for the sum of several rates. Counters that do not exist yet count as 0."""
    parts = (f"(sum(rate({metric}{{{COLLECTOR}}}[$__rate_interval])) or vector(0))" for metric in metrics)
    return "\n+ ".join(parts)


OWN_SERIES: Final = f"count({last(s.RUN_ACTIVE, BY_JOB)} == 1)"
ACTIVE: Final = f"{series(s.ACTIVE)}{{{BY_JOB}}}"
AGE: Final = f"time() - max by (job) (timestamp({ACTIVE}) and ({ACTIVE} > 0))"
"""The age of the newest sample of each service in which something runs; a service whose work ended may be silent."""
RUNNING: Final = f"sum({last(s.ACTIVE, BY_JOB)})"

head = (
    stat(
        "Collectors up",
        "From Prometheus: `up` of the job `otel-collector`.",
        (4, 4),
        now(f"sum(up{{{COLLECTOR}}})", Row({}, 1, 1)),
        defaults=steps((None, "red"), (1, "green")),
    ),
    stat(
        "Processes heard",
        "From Prometheus: instances that reported their number of operations within `Heard within`.",
        (4, 4),
        now(f"count(count by (job, instance) ({last(s.ACTIVE, BY_JOB)}))", Row({}, 1, 3)),
    ),
    stat(
        "Without series of their own",
        "From Prometheus: running operations without run series. They are younger than 5 s, or beyond the "
        "1,000 of a process; alerts see them only by name.",
        (4, 4),
        now(f"{RUNNING} - ({OWN_SERIES} or vector(0))", Row({}, -1, 1)),
    ),
    stat(
        "Series of runs",
        "From Prometheus: all run series written within `Heard within`; about 13 for each operation.",
        (4, 4),
        now(f'count(last_over_time({{__name__=~"progress_run_.+", {BY_JOB}}}[$gap]))', Row({}, 40, 200)),
    ),
    stat(
        "Age of the newest metrics",
        "From Prometheus: the age for the service with the oldest metrics, among those in which "
        "an operation runs; usually "
        "less than an export interval (60 s) and a scrape. Red from four export intervals on.",
        (4, 4),
        now(f"max({AGE})", Row({}, 0, 10)),
        unit="s",
        defaults={"decimals": 1, "noValue": "nothing runs", **steps((None, "green"), (120, "yellow"), (240, "red"))},
    ),
    stat(
        "Newest log event",
        "From Loki: the time of the newest log event within 15 minutes; a process sends one every 15 s at least.",
        (4, 4),
        Query(
            LOKI,
            f"max(max_over_time({OURS} | label_format at=`{{{{__timestamp__ | unixEpochMillis}}}}` | unwrap at [15m]))",
            (Row({}, 1.7e12, 5e12),),
            instant=True,
        ),
        unit="dateTimeFromNow",
    ),
)

drops = lines(
    "Dropped by a limit of the SDK",
    "From Prometheus: the increase within `Over`, by reason; docs/semantic-conventions.md explains the reasons. "
    "`outside_operation` is a call without a current operation.",
    (12, 8),
    line(
        grown(DROPS, BY_JOB, f"job, {REASON}"),
        f"{{{{job}}}}: {{{{{REASON}}}}}",
        Row({"job": "shop", REASON: s.DROP_OUTSIDE}, 1, 1),
    ),
    unit="short",
    defaults={"min": 0},
)

age = lines(
    "Age of the newest metrics, by service",
    "From Prometheus: the time since the newest sample of each service in which an operation runs. "
    "A line that rises straight is a service that is silent.",
    (12, 8),
    line(
        AGE,
        "{{job}}",
        Row({"job": "shop"}, 0, 10),
    ),
    unit="s",
    defaults={"min": 0},
)

into = lines(
    "Into the Collectors",
    "From Prometheus: the Collectors' own metrics: accepted per second by signal, and refused.",
    (12, 8),
    *(
        line(rate(f"otelcol_receiver_accepted_{signal}_total", "receiver"), signal, Row({"receiver": "otlp"}))
        for signal in SIGNALS
    ),
    line(
        total(f"otelcol_receiver_{how}_{signal}_total" for how in ("refused", "failed") for signal in SIGNALS),
        "refused",
        Row({}, 0, 0),
    ),
    unit="cps",
    defaults={"min": 0},
)

out_of = lines(
    "Out of the Collectors",
    "From Prometheus: the Collectors' own metrics: sent per second by exporter and signal, and failed.",
    (12, 8),
    *(
        line(
            rate(f"otelcol_exporter_sent_{signal}_total", "exporter"),
            f"{{{{exporter}}}} {signal}",
            Row({"exporter": to}),
        )
        for signal, to in SENT.items()
    ),
    line(
        total(f"otelcol_exporter_{how}_failed_{signal}_total" for how in ("send", "enqueue") for signal in SIGNALS),
        "failed",
        Row({}, 0, 0),
    ),
    unit="cps",
    defaults={"min": 0},
)

queues = lines(
    "What waits in the Collectors",
    "From Prometheus: how full the queue to each backend is.",
    (12, 8),
    line(
        f"max by (instance, exporter) (otelcol_exporter_queue_size{{{COLLECTOR}}}"
        f" / otelcol_exporter_queue_capacity{{{COLLECTOR}}})",
        "{{exporter}} of {{instance}}",
        Row({"exporter": "otlp_http/prometheus"}, 0, 1),
    ),
    unit="percentunit",
    defaults={"min": 0},
)

memory = lines(
    "Memory of the Collectors",
    "From Prometheus: resident memory.",
    (6, 8),
    line(
        f'max by (instance) ({{__name__=~"otelcol_process_memory_rss(_bytes)?", {COLLECTOR}}})',
        "{{instance}}",
        Row({}, 1e7, 1e9),
    ),
    unit="bytes",
    defaults={"min": 0},
)

head_series = lines(
    "Series in Prometheus",
    "From Prometheus: all series that it holds now, if it scrapes itself.",
    (6, 8),
    line("max by (instance) (prometheus_tsdb_head_series)", "{{instance}}", Row({}, 100)),
    unit="short",
    defaults={"min": 0},
)

RECENT: Final = "15m"
"""These two panels read all log events: over the whole range, an open tab would read as much as is written."""
events = lines(
    "Log events",
    "From Loki: events of operations per second, by event name, without heartbeats of processes. Only the "
    "last 15 minutes.",
    (12, 8),
    Query(
        LOKI,
        f"sum by ({EVENT}) (rate({EVENTS} [$__interval]))",
        (Row({EVENT: s.UPDATED}, 0.01),),
        f"{{{{{EVENT}}}}}",
    ),
    unit="cps",
    defaults={"min": 0},
    recent=RECENT,
)

lag = lines(
    "Operations in flight, by process",
    "From Loki: operations in flight, from the heartbeats of the processes, one a minute at least. Only the last "
    "15 minutes.",
    (12, 8),
    Query(
        LOKI,
        f"max by (service_name, {INSTANCE}) (last_over_time({HEARTBEATS} | unwrap {label(s.PROCESS_IN_FLIGHT)}"
        ' | __error__="" [$__interval]))',
        (Row({"service_name": "shop"}, 1, 10),),
        f"{{{{service_name}}}} {{{{{INSTANCE}}}}}",
    ),
    unit="short",
    defaults={"min": 0, "decimals": 0},
    custom=SPARSE,
    recent=RECENT,
)

ITS_ALERTS: Final = 'alertname=~"PipelineDown|ReporterLost"'
PIPELINE_MARKS: Final = annotation(
    "Alerts",
    Query(PROMETHEUS, f"max by (alertname, job, instance) {firing(ITS_ALERTS)}", ()),
    "{{alertname}} {{job}} {{instance}}",
    "red",
)

PIPELINE = Dashboard(
    links.PIPELINE,
    "The pipeline itself",
    "What the SDK dropped, what is queued in the Collectors, how many series there are, and how old the data is.",
    (*PLACE_VARIABLES, JOB_VARIABLE, SERVICE_VARIABLE, WINDOW_VARIABLE, GAP_VARIABLE, *SOURCES),
    {
        "": (*head, drops, age),
        "Collectors": (into, out_of, queues, memory, head_series),
        "Log events": (events, lag),
    },
    refresh="1m",
    collapsed=frozenset({"Log events"}),
    annotations=(PIPELINE_MARKS,),
)
