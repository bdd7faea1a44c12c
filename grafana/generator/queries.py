"""The parts of queries; names come from `otel_progress.semconv`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from otel_progress import semconv as s
from otel_progress.model.status import Health

PROMETHEUS: Final = "prometheus"
LOKI: Final = "loki"
TEMPO: Final = "tempo"


def label(attribute: str) -> str:
    """Return the label of Prometheus or Loki for an attribute name."""
    return attribute.replace(".", "_")


def series(metric: s.Metric, suffix: str = "") -> str:
    """Return a metric's name in Prometheus. The suffix is `_total`, or `_bucket`, `_sum` or `_count` of a histogram."""
    return label(metric.name) + ("_seconds" if metric.unit == "s" else "") + suffix


ID: Final = label(s.OPERATION_ID)
NAME: Final = label(s.OPERATION_NAME)
STAGE: Final = label(s.STAGE_NAME)
HEALTH: Final = label(s.HEALTH)
STATUS: Final = label(s.STATUS)
STUCK_AT: Final = label(s.STUCK_AT)
UNIT: Final = label(s.UNIT)
EVENT: Final = label(s.EVENT_NAME)
HOST: Final = label(s.HOST_NAME)
LOOP: Final = label(s.LOOP)
EXIT: Final = label(s.EXIT)
ENVIRONMENT: Final = "deployment_environment_name"
CLUSTER: Final = "k8s_cluster_name"
NAMESPACE: Final = "k8s_namespace_name"
TRACE: Final = "trace_id"
ROWS: Final = 100
"""The largest number of rows of a table that merges several queries: Grafana's merge is slow with thousands."""


@dataclass(frozen=True)
class Row:
    """A series, log line or span that a query returns in the tests: its labels, and the bounds of its value."""

    labels: Mapping[str, str] = field(default_factory=dict)
    low: float = 0.0
    high: float = float("inf")
    line: str = ""
    """Text that the log line contains."""


@dataclass(frozen=True)
class Query:
    """A query of a panel, and the rows that it returns in the tests."""

    source: str
    text: str
    expect: tuple[Row, ...]
    legend: str = ""
    instant: bool = False
    format: str = "time_series"
    only: bool = False
    """Whether the query returns only the expected rows."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the query in the JSON."""
    native: bool = False
    """Whether it reads native histograms, which the tests have in a Prometheus of their own."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Values of dashboard variables in the tests that differ from the common ones."""


# -- Prometheus

RUN: Final = f"{ENVIRONMENT}, job, instance, {NAME}, {ID}"
"""The labels that identify the series of a run."""
WHO: Final = f"{ENVIRONMENT}, job, {NAME}, {ID}"
"""The labels that identify a run, in whatever process."""
HELD_BACK: Final = "run:progress_idle_held_back_seconds"
"""The recorded series of parents that are idle because they wait for a child in another process."""
PLACE: Final = f'{ENVIRONMENT}=~"$environment", {CLUSTER}=~"$cluster", {NAMESPACE}=~"$namespace"'
"""Where the process runs. `.*`, the value for all, also matches series without these labels."""
BY_NAME: Final = f'job=~"$job", {NAME}=~"$name", {PLACE}'
BY_ID: Final = f'{BY_NAME}, {ID}="$id"'
OF: Final = label(s.OF)
OWN: Final = f'{OF}=""'
"""Selects counts and times that are the operation's own."""
OF_STAGE: Final = f'{OF}="{s.OF_STAGE}"'
"""Selects those of its current stage, where it has none of its own."""
LIMITS: Final = frozenset({s.RUN_START_TIME, s.RUN_STALL_AFTER, s.RUN_SLOW_AFTER})
"""What is sent once a minute, and holds until it is sent anew."""
UNRECORDED: Final = f'{BY_NAME}, {ID}=~"$unrecorded"'
"""Selects runs only if Prometheus has not loaded grafana/alerts/panels.yaml: else no series, which costs no time."""


def last(metric: s.Metric, which: str, window: str = "$gap") -> str:
    """Return the query for the last value of each series within a window, which bridges gaps."""
    return f"last_over_time({series(metric)}{{{which}}}[{window}])"


def alive(which: str) -> str:
    """Return the query for the runs that are active and heard from."""
    return f"({last(s.RUN_ACTIVE, which, '$heard')} == 1)"


def of_runs(expression: str, which: str, labels: str = WHO) -> str:
    """Return the query for the values of an expression for active runs."""
    return f"max by ({labels}) ({expression} and on ({RUN}) {alive(which)})"


def value(metric: s.Metric, which: str, labels: str = WHO, of: str = "") -> str:
    """Return the query for the values of a run series for active runs; `of` chooses among its counts.

    A plain selector, because a value that is not known any more ends with a staleness marker. A Prometheus before 2.48
    that scrapes has none and finds the old value for 5 minutes: so no time left is shown while a run is stuck or loops.
    """
    chosen = f"{which}, {of}" if of else which
    found = last(metric, chosen) if metric in LIMITS else f"{series(metric)}{{{chosen}}}"
    if metric is s.RUN_ETA:
        halted = f'{which}, {HEALTH}=~"{Health.SILENT.value}|{Health.LOOPING.value}"'
        found = f"({found} unless on ({RUN}) ({last(s.RUN_HEALTH, halted)} == 1))"
    return of_runs(found, which, labels)


def verdict(health: str, which: str, labels: str = f"{WHO}, {STAGE}, {STUCK_AT}, {LOOP}") -> str:
    """Return the query for the runs with this verdict, a regular expression.

    A process calls a parent stuck that waits for a child in another process. If the alert rules are loaded, they
    correct that, and the parent counts as waiting.
    """
    chosen = f'{which}, {HEALTH}=~"{health}"'
    stands = f"({last(s.RUN_HEALTH, chosen)} == 1)"
    if health == Health.SILENT.value:
        stands = f"({stands} unless on ({RUN}) {HELD_BACK})"
    if health == Health.LOOPING.value:  # beside a stuck branch it is not the worst
        silent = last(s.RUN_HEALTH, f'{which}, {HEALTH}="{Health.SILENT.value}"')
        stands = f"({stands} unless on ({RUN}) (({silent} == 1) unless on ({RUN}) {HELD_BACK}))"
    if health == Health.WAITING.value:
        silent = last(s.RUN_HEALTH, f'{which}, {HEALTH}="{Health.SILENT.value}"')
        stands = f"({stands} or ({silent} == 1) and on ({RUN}) {HELD_BACK})"
    return of_runs(stands, which, labels)


def known(metric: s.Metric, which: str, how: str = "max", labels: str = RUN) -> str:
    """Return the query for the last value within the time that a silent run stays known."""
    return f"{how} by ({labels}) ({last(metric, which, '$known')})"


def newest(which: str) -> str:
    """Return the query for the start of the newest attempt of each run."""
    start = known(s.RUN_START_TIME, which)
    return f"({start} == on ({WHO}) group_left () max by ({WHO}) ({start}))"


def with_stage(runs: str, which: str, labels: str = WHO) -> str:
    """Return the query for runs that are not heard from, with the last stage and line where they are known.

    Args:
        runs: a query whose series have the labels `RUN`.
        which: the selector.
        labels: the labels of the result beside the stage and the line.
    """
    hang = last(s.RUN_HEALTH, f'{which}, {HEALTH}="{Health.SILENT.value}"', "$known")
    stood = f"topk by ({RUN}) (1, (2 * {hang} or {last(s.RUN_HEALTH, which, '$known')}) > 0)"
    anywhere = f"{stood} or on ({RUN}) {last(s.RUN_ACTIVE, which, '$known')} + 1"  # the value plays no part
    place = f"{STAGE}, {STUCK_AT}, {LOOP}"
    return f"max by ({labels}, {place}) ({runs} * on ({RUN}) group_left ({place}) ({anywhere}))"


def lost(which: str) -> str:
    """Return the query for the newest attempts that are not heard from and did not end, as in the alert.

    An outage holds back new conclusions from silence; what the rules took for lost before it stays lost.
    """
    open_ones = f"({known(s.RUN_ACTIVE, which, 'min')} == 1)"
    return f"""((
  {open_ones}
  unless on ({WHO}) present_over_time({series(s.RUN_ACTIVE)}{{{which}}}[$gap])
  and on ({RUN}) {newest(which)}
  unless on () collector:progress_blind:last5m
  or on ({RUN}) {open_ones} and on ({RUN}) run:progress_lost_time_seconds
))"""


def unheard(which: str) -> str:
    """Return the query for the runs whose series stopped a short time ago, without an end."""
    return f"""(
  (min by ({RUN}) ({last(s.RUN_ACTIVE, which)}) == 1)
  unless on ({WHO}) present_over_time({series(s.RUN_ACTIVE)}{{{which}}}[$heard])
  and on ({RUN}) {newest(which)}
)"""


def killed(which: str) -> str:
    """Return the query for the runs whose process is proven gone, with its exit; a newer attempt makes that void."""
    at = f"max by ({RUN}, {EXIT}) ({last(s.RUN_LOST, which, '$known')})"
    start = f"max by ({WHO}) ({known(s.RUN_START_TIME, which)})"
    return f"(({at} >= on ({WHO}) group_left () {start}) > 0)"


def overdue(which: str) -> str:
    """Return the query for the runs with an overdue wait; the value is negative."""
    return f"({value(s.RUN_WAIT_REMAINING, which)} < 0)"


def late(which: str) -> str:
    """Return the query for the runs that did not start within their limit; the value is the pending time."""
    pending, within = (f"max by ({WHO}) ({last(it, which)})" for it in (s.RUN_PENDING, s.RUN_START_WITHIN))
    return f"({pending} >= {within})"


VERDICTS: Final = {
    "ended": 0,
    Health.PROGRESSING.value: 1,
    Health.WAITING.value: 2,
    "not started": 3,
    Health.SLOW.value: 4,
    "overdue": 5,
    "unheard": 6,
    Health.LOOPING.value: 7,
    Health.SILENT.value: 8,
    Health.DEAD.value: 9,
    "killed": 10,
}
"""Verdict to number: the higher, the worse."""
MEANING: Final = {"silent": "stuck", "dead": "not heard from"}
"""The word on dashboards of a verdict, where it differs."""


def _found(name: str, which: str, labels: str) -> str:
    ended = f"({known(s.RUN_ACTIVE, which)} == 0)"
    staged = STAGE in labels and ID in labels
    if name == "killed" and staged:
        return with_stage(killed(which), which, f"{WHO}, {EXIT}")
    if name in ("dead", "unheard"):
        runs = lost(which) if name == "dead" else unheard(which)
        return with_stage(runs, which) if staged else f"max by ({labels}) ({runs})"
    others = {"ended": ended, "killed": killed(which), "overdue": overdue(which), "not started": late(which)}
    if name in ("overdue", "not started"):
        return others[name]
    return f"max by ({labels}) ({others[name]})" if name in others else verdict(name, which, labels)


def numbered(which: str, names: tuple[str, ...], labels: str = f"{WHO}, {STAGE}, {STUCK_AT}, {LOOP}") -> str:
    """Return the query for these verdicts as numbers, of each run only the worst."""
    worst_first = sorted(names, key=lambda name: -VERDICTS[name])
    parts = [f"{VERDICTS[name]} + 0 * {_found(name, which, labels)}" for name in worst_first]
    return f"\nor on ({WHO if ID in labels else labels}) ".join(parts)


def near(which: str, labels: str = WHO) -> str:
    """Return the query for the used share of a limit: the highest of idle / stall_after and elapsed / slow_after.

    An overdue wait counts as 1, and so does a loop: how long they were to take is not among the series. The idle time
    of a parent that waits for a child in another process does not count.
    """
    own = f"({series(s.RUN_IDLE)}{{{which}}} unless on ({RUN}) {HELD_BACK})"
    idle = f"{of_runs(own, which, labels)} / {value(s.RUN_STALL_AFTER, which, labels)}"
    slow = f"(time() - {value(s.RUN_START_TIME, which, labels)}) / {value(s.RUN_SLOW_AFTER, which, labels)}"
    overdue = f"({value(s.RUN_WAIT_REMAINING, which, labels)} < 0)"
    loops = verdict(Health.LOOPING.value, which, labels)
    return f"""max by ({labels}) (
  label_replace({idle}, "limit", "stall_after", "", "")
  or label_replace({slow}, "limit", "slow_after", "", "")
  or label_replace(1 + 0 * {overdue}, "limit", "wait", "", "")
  or label_replace(1 + 0 * {loops}, "limit", "loop", "", "")
)"""


def nearest(which: str) -> str:
    """Return the query for the same share of all runs that are heard; it is 0 without limits."""
    return f"({near(which, RUN)} or on ({RUN}) 0 * max by ({RUN}) {alive(which)})"


def beyond(which: str) -> str:
    """Return the query for the seconds by which each run is past a limit of its own."""
    idle = f"({value(s.RUN_IDLE, which)} - {value(s.RUN_STALL_AFTER, which)} >= 0)"
    slow = f"(time() - {value(s.RUN_START_TIME, which)} - {value(s.RUN_SLOW_AFTER, which)} >= 0)"
    pending, within = (f"max by ({WHO}) ({last(it, which)})" for it in (s.RUN_PENDING, s.RUN_START_WITHIN))
    return f"""(
  -{overdue(which)}
  or on ({WHO}) {idle}
  or on ({WHO}) {slow}
  or on ({WHO}) ({pending} - {within} >= 0)
)"""


def heard(which: str) -> str:
    """Return the query for the time in ms at which each run was last heard that is not heard from and has no end.

    A step of 2 minutes finds the time of the newest sample itself, because a sample is visible for 5 minutes.
    """
    newest_sample = f"max by ({WHO}) (max_over_time(timestamp({series(s.RUN_ACTIVE)}{{{which}}})[$known:2m]))"
    gone = f"present_over_time({series(s.RUN_ACTIVE)}{{{which}}}[$heard])"
    open_or_proven = f"(({known(s.RUN_ACTIVE, which, 'min', WHO)} == 1) or {killed(which)})"
    return f"1000 * ({newest_sample} unless on ({WHO}) {gone} and on ({WHO}) {open_or_proven})"


# -- Recorded by grafana/alerts/panels.yaml, or else computed

OPEN: Final = tuple(name for name in VERDICTS if name != "ended")
PLACES: Final = f"{STAGE}, {STUCK_AT}, {LOOP}, {EXIT}, start"
"""What the recorded verdict says beside the number."""


def fresh(recorded: str) -> str:
    """Return the query for a recorded series as it is now: not what was recorded before a restart of Prometheus."""
    return f"({recorded} and last_over_time({recorded}[45s]))"


def judgement(labels: str = f"{WHO}, {PLACES}", which: str = "") -> str:
    """Return the query for the worst verdict, as a number, of each run that did not end.

    Args:
        labels: the labels of the result.
        which: a comparison with `VERDICTS`, such as `>= 3`.
    """
    recorded = fresh(f"run:progress_verdict{{{BY_NAME}}}")
    computed = from_start(f"({numbered(UNRECORDED, OPEN)})", UNRECORDED)
    return f"(max by ({labels}) ({recorded} or on ({WHO}) {computed}){which and ' ' + which})"


def nearness() -> str:
    """Return the query for the used share of a limit of each run that is heard."""
    return f"(run:progress_near_limit:ratio{{{BY_NAME}}} or on ({RUN}) {nearest(UNRECORDED)})"


def attention() -> tuple[str, str]:
    """Return the queries for the share of its limit that each run that is heard has used, at most 1, and for its rank.

    The rank is the share, plus the verdict of those that somebody should look at: the higher, the more it needs a look.
    Without recorded verdicts it is the share.
    """
    share = f"clamp_max(max by ({RUN}) ({nearness()}), 1)"
    # The label `start` keeps both apart, so that the share is computed once.
    verdicts = f"max by ({RUN}, start) (run:progress_verdict{{{BY_NAME}}}) >= {VERDICTS['not started']}"
    trouble = f"({verdicts} and on ({RUN}) run:progress_near_limit:ratio)"
    return share, f"sum by ({RUN}) ({share} or {trouble})"


def past() -> str:
    """Return the query for the seconds by which runs are past a limit of their own."""
    recorded = f'run:progress_past_limit_seconds{{job=~"$job", {NAME}=~"$name"}}'
    return f"max by ({WHO}) ({recorded} or on ({WHO}) {beyond(UNRECORDED)})"


def last_heard() -> str:
    """Return the query for the time in ms at which each run was last heard that is not heard from."""
    recorded = f'run:progress_heard_time_seconds{{job=~"$job", {NAME}=~"$name"}}'
    silent = f"(run:progress_verdict == {VERDICTS['unheard']} or run:progress_verdict >= {VERDICTS['dead']})"
    return f"(1000 * max by ({WHO}) ({recorded} and on ({RUN}) {silent}) or on ({WHO}) {heard(UNRECORDED)})"


def from_start(found: str, which: str) -> str:
    """Return a query with the start of each run in ms as the label `start`, from which its links begin."""
    ms = f"floor(1000 * max by ({WHO}) ({known(s.RUN_START_TIME, which)})) - 60000"
    started = f'count_values by ({WHO}) ("start", {ms})'
    pending = f"1 + 0 * max by ({WHO}) ({last(s.RUN_PENDING, which)})"
    return f"({found}) * on ({WHO}) group_left (start) ({started} or on ({WHO}) {pending})"


PLACED: Final = "place"
"""The label with the environment for links: that of the run, or all if it has none."""


def placed(expression: str) -> str:
    """Return a query with the label `place`: a column that no row has does not exist, and breaks its link."""
    everywhere = f'label_replace({expression}, "{PLACED}", "$$__all", "", "")'
    return f'label_replace({everywhere}, "{PLACED}", "$1", "{ENVIRONMENT}", "(.+)")'


def hosts(which: str) -> str:
    """Return the query for the host of each active run, as a label."""
    return (
        f"max by ({WHO}, instance, {HOST}) ({alive(which)}"
        f" * on (job, instance) group_left ({HOST}) max by (job, instance, {HOST}) (target_info))"
    )


def grown(metric: str, which: str, by: str, window: str = "$window") -> str:
    """Return the query for the increase of counters in a window.

    Unlike `increase()` it counts processes that sent their counts only once. An instance is one process, so no counter
    ever falls.
    """
    now = f"last_over_time({metric}{{{which}}}[{window}])"
    before = f"last_over_time({metric}{{{which}}}[$gap] offset {window})"
    return f"sum by ({by}) ({now} - ({before} or 0 * {now}))"


# -- Loki

LOGS: Final = f'{{service_name=~"$service", {ENVIRONMENT}=~"$environment"}}'
EVERYWHERE: Final = '{service_name=~".+"}'
"""Children may run in other services."""
SAYS: Final = f"{ENVIRONMENT}, service_name, {NAME}, {ID}"
"""The labels that identify a run in Loki: several services may use the same id."""
OF_RUN: Final = f'{LOGS} | {ID}="$id"'
AT: Final = "| label_format at=`{{__timestamp__ | unixEpochMillis}}` | unwrap at"
"""The time of a log event as a number, in ms."""


def started_at() -> str:
    """Return the stage of a query that makes the labels `start` (in ms) and `place`, for links.

    The first ten digits are the seconds since 1970, until 2286; the operation's dashboard begins with this second.
    """
    start = label(s.START_TIME)
    return (
        f"| label_format start=`{{{{ if .{start} }}}}{{{{ trunc 10 .{start} }}}}000{{{{ else }}}}now-6h{{{{ end }}}}`, "
        f"{PLACED}=`{{{{ if .{ENVIRONMENT} }}}}{{{{ .{ENVIRONMENT} }}}}{{{{ else }}}}$__all{{{{ end }}}}`"
    )


def with_attempt() -> str:
    """Return the stage of a query that sets the label of the attempt to 1 where a log event does not say it."""
    attempt = label(s.OPERATION_ATTEMPT)
    return f"| label_format {attempt}=`{{{{ if .{attempt} }}}}{{{{ .{attempt} }}}}{{{{ else }}}}1{{{{ end }}}}`"


def number(attribute: str, which: str, window: str = "$__interval", how: str = "last") -> str:
    """Return the query for a number in log events."""
    return f'{how}_over_time({which} | {label(attribute)}!="" | unwrap {label(attribute)} | __error__="" [{window}])'


# -- Tempo

SPANS: Final = f'{{ span.{s.OPERATION_ID} = "$id" }}'
"""Finds the trace of a run. A search sees one block of a long trace, so the spans are asked for by the trace id."""
