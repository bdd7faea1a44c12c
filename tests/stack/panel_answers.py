"""The answers of the data sources as Grafana's data sources give them to a panel: as data frames.

Prometheus answers for real. What it can't know here (Loki, Tempo, alerts, the Collector's own metrics) is modelled: the
rows that the query promises (`Query.expect`), which `test_dashboards.py` holds against the real programs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from . import panel_story as story
from .grafana_queries import interpolate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grafana.generator.parts import Panel
    from grafana.generator.queries import Query, Row

    from .backends import Prometheus, Sample

Frame = dict[str, Any]
STEP = 60
BACK = 120
"""How far range queries look back; a golden table has only the last value of a line."""
BUILT_IN = {"__range": f"{story.LENGTH}s", "__interval": "60s", "__rate_interval": "240s", "__auto": "60s"}
SAID_BEFORE = 20
"""How long before the end a modelled log event was said, in seconds."""
MODELLED = re.compile(r"\bALERTS\b|otelcol_|prometheus_tsdb|\bup\{")
PATTERNS = {"host_name": "host-1"}
"""What stands for a label of which the expectation has only a pattern."""
NAMES = {"overdue-1": "approve", "waiting-1": "approve", "looping-1": "agent", "child-1": "chunk"}
"""The names of the operations that are no import."""
COMMON = {
    "job": "shop",
    "instance": "process-1",
    "severity": "warning",
    "progress_operation_name": "import",
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
    "start": "1700000000000",
    "place": "$__all",
}
"""What a modelled row says where the expectation leaves a label of the query open."""


def frames(panel: Panel, variables: Mapping[str, str], prometheus: Prometheus) -> list[Frame]:
    """Return the data frames of all queries of a panel."""
    tables = [ref for ref, query in panel.queries.items() if as_table(query)]
    found: list[Frame] = []
    for ref, query in panel.queries.items():
        if query.source == "tempo":
            found.append(spans(ref, query))
            continue
        if query.source == "loki" and query.text.startswith("{"):
            found.append(logs(ref, query))
            continue
        series = answer(query, variables, prometheus)
        if query.format == "heatmap":
            series = apart(series)
        if as_table(query):
            single = len(tables) == 1 and query.source == "prometheus"
            found.append(as_one_table(ref, series, "Value" if single else f"Value #{ref}"))
        else:
            found += [line(ref, query, *one) for one in series]
    return found


def as_table(query: Query) -> bool:
    """Return whether the data source gives one table for the query: Loki does so for each instant query."""
    return query.format == "table" or (query.source == "loki" and query.instant)


Series = list[tuple[dict[str, str], list[tuple[float, float]]]]


def apart(buckets: Series) -> Series:
    """Return classic buckets in order, each without those below it."""
    ordered = sorted(buckets, key=lambda it: float(it[0]["le"]))
    below: dict[float, float] = {}
    found: Series = []
    for given, points in ordered:
        found.append((given, [(moment, value - below.get(moment, 0)) for moment, value in points]))
        below = dict(points)
    return found


def answer(query: Query, variables: Mapping[str, str], prometheus: Prometheus) -> Series:
    """Return series with their values, sorted by label, after the query's own order: Prometheus leaves it open."""
    if query.source != "prometheus" or MODELLED.search(query.text):
        # The time of a log event, where the expectation leaves it open.
        least = 1000.0 * (story.END - SAID_BEFORE) if "unwrap at" in query.text else 0.0
        return [(labels(query, row), [(story.END, max(row.low, least))]) for row in query.expect]
    text = interpolate(query.text, {**BUILT_IN, **variables})
    left = re.search(r"\$(?!__all)\{?[A-Za-z_]\w*", text)
    assert left is None, f"unknown variable {left[0] if left else ''} in {text}"
    if query.instant:
        samples: list[Sample] = prometheus.query(text, story.END)
    else:
        samples = prometheus.query_range(text, story.END - BACK, story.END, STEP)
    ordered = sorted(samples, key=lambda it: sorted(it.labels.items()))
    if "sort_desc(" in text:
        ordered.sort(key=lambda it: -it.value)
    return [(it.labels, it.values) for it in ordered]


def labels(query: Query, row: Row) -> dict[str, str]:
    """Return the labels of a modelled row."""
    open_ones = {key: value for key, value in COMMON.items() if re.search(rf"\b{key}\b", query.text)}
    if "progress_operation_name" in open_ones:
        operation = row.labels.get("progress_operation_id", "")
        open_ones["progress_operation_name"] = NAMES.get(operation, open_ones["progress_operation_name"])
    given = {**open_ones, **row.labels}
    return {key: PATTERNS.get(key, value[1:]) if value.startswith("~") else value for key, value in given.items()}


def times(moments: list[float]) -> dict[str, Any]:
    """Return the field with times, in milliseconds."""
    return {"name": "Time", "type": "time", "values": [1000 * it for it in moments], "config": {}}


def as_one_table(ref: str, series: Series, name: str) -> Frame:
    """Return one frame for all series: a column for each label, and the value."""
    columns: list[str] = []
    for found, _ in series:
        columns += [key for key in sorted(found) if key not in columns]
    texts = [
        {"name": key, "type": "string", "config": {}, "values": [found.get(key, "") for found, _ in series]}
        for key in columns
    ]
    values = [plain(points[-1][1]) for _, points in series]
    return {
        "refId": ref,
        "fields": [
            times([points[-1][0] for _, points in series]),
            *texts,
            {"name": name, "type": "number", "config": {}, "values": values},
        ],
    }


def line(ref: str, query: Query, found: dict[str, str], points: list[tuple[float, float]]) -> Frame:
    """Return the frame of one series, named by the legend."""
    legend = query.legend
    if legend:
        name = re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda it: found.get(it[1], ""), legend)
        config = {"displayNameFromDS": name}
    else:
        config = {}
    values = [plain(value) for _, value in points]
    value = {"name": "Value", "type": "number", "labels": found, "config": config, "values": values}
    return {"refId": ref, "fields": [times([moment for moment, _ in points]), value]}


def plain(value: float) -> float | str | None:
    """Return a value as JSON knows it."""
    return value if value - value == 0 else None


def logs(ref: str, query: Query) -> Frame:
    """Return the frame of log lines, with their labels as one column."""
    rows = query.expect
    count = len(rows)
    return {
        "refId": ref,
        "fields": [
            {"name": "labels", "type": "other", "config": {}, "values": [labels(query, row) for row in rows]},
            times([float(story.END)] * count),
            {"name": "Line", "type": "string", "config": {}, "values": [row.line for row in rows]},
        ],
    }


def spans(ref: str, query: Query) -> Frame:
    """Return the frame of spans, with a column for each selected attribute."""
    rows = [labels(query, row) for row in query.expect]
    names = sorted({key for row in rows for key in row})
    return {
        "refId": ref,
        "fields": [
            {"name": name, "type": "string", "config": {}, "values": [row.get(name, "") for row in rows]}
            for name in names
        ],
    }
