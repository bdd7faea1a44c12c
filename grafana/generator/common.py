"""Variables that several dashboards share."""

from __future__ import annotations

from typing import Any, Final

from grafana.generator.firing import firing
from grafana.generator.parts import annotation, choose, choose_time, type_in
from grafana.generator.queries import (
    BY_NAME,
    CLUSTER,
    ENVIRONMENT,
    ID,
    MEANING,
    NAME,
    NAMESPACE,
    PLACE,
    PROMETHEUS,
    RUN,
    UNRECORDED,
    VERDICTS,
    WHO,
    Query,
    known,
    label,
    numbered,
    series,
)
from otel_progress import semconv as s

Json = dict[str, Any]
ACTIVE: Final = series(s.ACTIVE)
JOB_VARIABLE: Final = choose(
    "job", "Service", f"label_values({ACTIVE}{{{PLACE}}}, job)", "The job in Prometheus: `service.name`."
)
SERVICE_VARIABLE: Final = choose(
    "service",
    "Service in Loki",
    f'label_values({ACTIVE}{{job=~"$job"}}, job)',
    "The service in Loki, without `service.namespace`.",
    everything=None,
    regex="/^(?:.*\\/)?(?<value>[^\\/]+)$/",
    hide=2,
)
NAME_VARIABLE: Final = choose(
    "name", "Kind of work", f'label_values({ACTIVE}{{job=~"$job"}}, {NAME})', "The name of the operation."
)


def place(name: str, title: str, attribute: str, column: str) -> Json:
    """Return the variable that selects where processes run, by a resource attribute that Prometheus promotes."""
    text = f"`{attribute}`. Empty unless Prometheus promotes it: see collector-config/README.md."
    return choose(name, title, f"label_values({ACTIVE}, {column})", text)


PLACE_VARIABLES: Final = (
    place("environment", "Environment", "deployment.environment.name", ENVIRONMENT),
    place("cluster", "Cluster", "k8s.cluster.name", CLUSTER),
    place("namespace", "Namespace", "k8s.namespace.name", NAMESPACE),
)


EVERY: Final = numbered(UNRECORDED, tuple(VERDICTS))


def choices() -> str:
    """Return the query for the list of runs; the label `choice` is name, start and state.

    PromQL makes the text, because a variable shows a part of a series as it is.
    """
    who = f"{NAME}, {ID}"
    ended = f'run:progress_active:last6h{{job=~"$job", {NAME}=~"$name"}} == 0'
    verdicts = f"run:progress_verdict{{{BY_NAME}}} or on ({RUN}) {ended}\nor on ({WHO}) ({EVERY})"
    state = f'count_values by ({who}) ("state", max by ({who}) (\n{verdicts}\n))'
    for name, number in VERDICTS.items():
        state = f'label_replace({state}, "state", "{MEANING.get(name, name)}", "state", "{number}")'
    recorded = f'run:progress_start_time_seconds:last6h{{job=~"$job", {NAME}=~"$name"}}'
    start = f"max by ({who}) ({recorded} or on ({RUN}) {known(s.RUN_START_TIME, UNRECORDED)})"
    clock = f"1e6 + 1e4 * day_of_month({start}) + 100 * hour({start}) + minute({start})"
    since = f'count_values by ({who}) ("since", {clock})'
    since = f'label_replace({since}, "since", "day $1 at $2:$3 UTC", "since", "1(..)(..)(..)")'
    joined = f"{state} * on ({who}) group_left (since) {since} or on ({who}) {state}"
    return f'label_join({joined}, "choice", ", ", "{NAME}", "since", "state")'


ID_VARIABLE: Final = choose(
    "id",
    "Operation",
    f"query_result({choices()})",
    "The operation: its name, start and state. Type in the id of one that is not listed.",
    several=False,
    regex=f'/choice="(?<text>.*)", *{ID}="(?<value>.*)", *{NAME}="/',
)
UNRECORDED_VARIABLE: Final = choose(
    "unrecorded",
    "Unrecorded",
    """query_result(
      label_replace(absent(run:progress_verdict), "ids", ".+", "", "")
      or on () label_replace(vector(1), "ids", "-", "", "")
    )""",
    "Runs whose verdict Prometheus does not record: all (`.+`) if grafana/alerts/panels.yaml is not loaded, else none.",
    several=False,
    regex='/ids="(?<value>[^"]+)"/',
    hide=2,
)
TRACE_VARIABLE: Final = type_in(
    "trace", "Trace", "The trace whose spans are shown. A click on a trace in *Its attempts* fills it in."
)
CURRENCY_VARIABLE: Final = choose(
    "currency",
    "Currency",
    f"label_values({series(s.COST, '_total')}, {label(s.CURRENCY)})",
    "The currency of costs.",
    several=False,
)
GAP_VARIABLE: Final = choose_time(
    "gap",
    "Heard within",
    "The maximum gap between two samples: at least three export intervals. The alerts and recorded verdicts use 3m.",
    "3m",
    "5m",
    "10m",
)
KNOWN_VARIABLE: Final = choose_time(
    "known",
    "Known for",
    "How long a run that is not heard from stays known. The alerts and recorded verdicts use 6h.",
    "6h",
    "1h",
    "1d",
)
WINDOW_VARIABLE: Final = choose_time(
    "window", "Over", "The window of counts and quantiles.", "1h", "5m", "15m", "6h", "1d", "7d"
)

HEARD_VARIABLE: Final = choose_time(
    "heard",
    "Unheard after",
    "How long the series of a run may stop before it shows as unheard: more than four export intervals. Recorded "
    "verdicts use 45s.",
    "45s",
    "90s",
    "3m",
)
ALERTED: Final = f'job=~"$job|otel-collector|", {NAME}=~"$name|", {ENVIRONMENT}=~"$environment|"'
"""The selector of alerts; some have no name or no service."""
ALERT_MARKS: Final = annotation(
    "Alerts",
    Query(PROMETHEUS, f"max by (alertname, {NAME}, {ID}) {firing(ALERTED)}", ()),
    f"{{{{alertname}}}} {{{{{NAME}}}}} {{{{{ID}}}}}",
    "red",
)

ESTIMATE: Final = (
    "The estimate comes from the pace so far, from the expected durations of a plan, or mainly from earlier runs of "
    "the name: the log events say which (`progress.eta.source`: `rate`, `plan` or `history`) and how many earlier "
    "runs it uses (`progress.eta.runs`). While the operation is stuck or loops there is none."
)
"""Where an ETA comes from, for descriptions."""
WORK: Final = (*PLACE_VARIABLES, JOB_VARIABLE, SERVICE_VARIABLE, NAME_VARIABLE)
