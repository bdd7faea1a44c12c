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
    variables: Mapping[str, str] = field(default_factory=dict)
    """Values of dashboard variables in the tests that differ from the common ones."""


# -- Prometheus

RUN: Final = f"job, instance, {NAME}, {ID}"
"""The labels that identify the series of a run."""
WHO: Final = f"job, {NAME}, {ID}"
"""The labels that identify a run, in whatever process."""
HELD_BACK: Final = "run:progress_idle_held_back_seconds"
"""The recorded series of parents that are idle because they wait for a child in another process."""
BY_NAME: Final = f'job=~"$job", {NAME}=~"$name"'
BY_ID: Final = f'{BY_NAME}, {ID}="$id"'


def last(metric: s.Metric, which: str, window: str = "$gap") -> str:
    """Return the query for the last value of each series within a window, which bridges gaps."""
    return f"last_over_time({series(metric)}{{{which}}}[{window}])"


def alive(which: str) -> str:
    """Return the query for the runs that are active and heard from."""
    return f"({last(s.RUN_ACTIVE, which)} == 1)"


def of_runs(expression: str, which: str, labels: str = WHO) -> str:
    """Return the query for the values of an expression for active runs."""
    return f"max by ({labels}) ({expression} and on ({RUN}) {alive(which)})"


def value(metric: s.Metric, which: str, labels: str = WHO) -> str:
    """Return the query for the values of a run series for active runs."""
    return of_runs(last(metric, which), which, labels)


def verdict(health: str, which: str, labels: str = f"{WHO}, {STAGE}, {STUCK_AT}") -> str:
    """Return the query for the runs with this verdict, a regular expression.

    A process calls a parent stuck that waits for a child in another process. If the alert rules are loaded, they
    correct that, and the parent counts as waiting.
    """
    chosen = f'{which}, {HEALTH}=~"{health}"'
    stands = f"({last(s.RUN_HEALTH, chosen)} == 1)"
    if health == Health.SILENT.value:
        stands = f"({stands} unless on ({RUN}) {HELD_BACK})"
    if health == Health.WAITING.value:
        silent = last(s.RUN_HEALTH, f'{which}, {HEALTH}="{Health.SILENT.value}"')
        stands = f"({stands} or ({silent} == 1) and on ({RUN}) {HELD_BACK})"
    return of_runs(stands, which, labels)


def known(metric: s.Metric, which: str, how: str = "max", labels: str = RUN) -> str:
    """Return the query for the last value within the time that a silent run stays known."""
    return f"{how} by ({labels}) ({last(metric, which, '$known')})"


def lost(which: str) -> str:
    """Return the query for the newest attempts that are not heard from and did not end, as in the alert."""
    start = known(s.RUN_START_TIME, which)
    return f"""max by ({WHO}) (
  ({known(s.RUN_ACTIVE, which, "min")} == 1)
  unless on ({WHO}) present_over_time({series(s.RUN_ACTIVE)}{{{which}}}[$gap])
  and ({start} == on ({WHO}) group_left () max by ({WHO}) ({start}))
  unless on () collector:progress_blind:last5m
)"""


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
    Health.LOOPING.value: 6,
    Health.SILENT.value: 7,
    Health.DEAD.value: 8,
}
"""Verdict to number: the higher, the worse."""


def numbered(which: str, names: tuple[str, ...], labels: str = f"{WHO}, {STAGE}, {STUCK_AT}") -> str:
    """Return the query for these verdicts as numbers, the worst first."""
    parts = []
    for name, number in sorted(VERDICTS.items(), key=lambda item: -item[1]):
        if name in names:
            found = {
                "ended": f"max by ({labels}) ({known(s.RUN_ACTIVE, which)} == 0)",
                "overdue": overdue(which),
                "not started": late(which),
                Health.DEAD.value: lost(which),
            }.get(name) or verdict(name, which, labels)
            parts.append(f"{number} + 0 * {found}")
    return "\nor ".join(parts)


def near(which: str) -> str:
    """Return the query for the used share of a limit: the higher of idle / stall_after and elapsed / slow_after."""
    idle = f"{value(s.RUN_IDLE, which)} / {value(s.RUN_STALL_AFTER, which)}"
    slow = f"(time() - {value(s.RUN_START_TIME, which)}) / {value(s.RUN_SLOW_AFTER, which)}"
    return f"""max by ({WHO}) (
  label_replace({idle}, "limit", "stall_after", "", "")
  or label_replace({slow}, "limit", "slow_after", "", "")
)"""


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

LOGS: Final = '{service_name=~"$service"}'
OF_RUN: Final = f'{LOGS} | {ID}="$id"'
NEWEST: Final = f'| unwrap {label(s.SEQUENCE)} | __error__=""'


def number(attribute: str, which: str, window: str = "$__interval", how: str = "last") -> str:
    """Return the query for a number in log events."""
    return f'{how}_over_time({which} | {label(attribute)}!="" | unwrap {label(attribute)} | __error__="" [{window}])'


# -- Tempo

SPANS: Final = f'{{ span.{s.OPERATION_ID} = "$id" }}'
