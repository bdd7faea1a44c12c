"""Panels and dashboards as Grafana's classic JSON (schema version 42), which Grafana 11 to 13 read from files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from grafana.generator.links import Link
from grafana.generator.queries import LOKI, MEANING, PROMETHEUS, TEMPO, VERDICTS, Query

Json = dict[str, Any]
MIXED: Final = {"type": "datasource", "uid": "-- Mixed --"}
WIDTH: Final = 24
COLOURS: Final = (
    "text",
    "green",
    "blue",
    "yellow",
    "yellow",
    "orange",
    "semi-dark-orange",
    "purple",
    "red",
    "dark-red",
    "dark-red",
)
"""The colours of the verdicts, by names of Grafana's palette, which fit the dark and the light theme."""


@dataclass(frozen=True)
class Panel:
    """A panel with its size and its queries."""

    json: Json
    width: int
    height: int
    queries: Mapping[str, Query] = field(default_factory=dict)


@dataclass(frozen=True)
class Dashboard:
    """A dashboard; each row is a list of panels under a title.

    A collapsed row asks for nothing until a person opens it.
    """

    uid: str
    title: str
    description: str
    variables: Sequence[Json]
    rows: Mapping[str, Sequence[Panel]]
    since: str = "now-1h"
    refresh: str = "10s"
    collapsed: frozenset[str] = frozenset()
    annotations: Sequence[Json] = ()

    def panels(self) -> Iterable[Panel]:
        """Return all panels, in order."""
        return (panel for row in self.rows.values() for panel in row)


def source(kind: str) -> Json:
    """Return the data source that the variable of this name selects."""
    return {"type": kind, "uid": f"${{{kind}}}"}


def target(ref: str, query: Query) -> Json:
    """Return the JSON of a query in a panel."""
    common: Json = {"refId": ref, "datasource": source(query.source)}
    if query.source == PROMETHEUS:
        more: Json = {"expr": query.text, "legendFormat": query.legend or "__auto", "format": query.format}
        more |= {"instant": query.instant, "range": not query.instant, "editorMode": "code"}
    elif query.source == LOKI:
        more = {"expr": query.text, "legendFormat": query.legend, "editorMode": "code"}
        more["queryType"] = "instant" if query.instant else "range"
    else:
        more = {"query": query.text, "queryType": "traceql"}
    return {**common, **more, **query.more}


def panel(
    kind: str,
    title: str,
    description: str,
    size: tuple[int, int],
    *queries: Query,
    unit: str = "",
    defaults: Json | None = None,
    custom: Json | None = None,
    options: Json | None = None,
    overrides: Sequence[Json] = (),
    transformations: Sequence[Json] = (),
    more: Json | None = None,
) -> Panel:
    """Return a panel of any kind."""
    named = {chr(ord("A") + number): query for number, query in enumerate(queries)}
    fields: Json = {**({"unit": unit} if unit else {}), **(defaults or {}), "custom": custom or {}}
    sources = {query.source for query in queries}
    json: Json = {
        "type": kind,
        "title": title,
        "description": description,
        "fieldConfig": {"defaults": fields, "overrides": list(overrides)},
        "options": options or {},
        **(more or {}),
    }
    if queries:
        json["datasource"] = source(next(iter(sources))) if len(sources) == 1 else MIXED
        json["targets"] = [target(ref, query) for ref, query in named.items()]
    if transformations:
        json["transformations"] = list(transformations)
    return Panel(json, *size, named)


# -- values


def steps(*parts: tuple[float | None, str], mode: str = "absolute") -> Json:
    """Return thresholds: pairs of a lower bound and a colour."""
    return {"thresholds": {"mode": mode, "steps": [{"value": value, "color": colour} for value, colour in parts]}}


NEAR: Final = steps((None, "green"), (0.7, "yellow"), (1, "red"))
"""Thresholds for a share of a limit."""
GOOD: Final = steps((None, "red"), (0.9, "yellow"), (0.99, "green"))
"""Thresholds for a share of successes."""
BAD: Final = steps((None, "green"), (1, "red"))
"""Thresholds for a number that should be 0."""
PLAIN: Final = steps((None, "blue"))
BY_THRESHOLD: Final = {"color": {"mode": "thresholds"}}
PALETTE: Final = {"color": {"mode": "palette-classic"}}
MAPPED: Final[Json] = {
    "mappings": [
        {
            "type": "value",
            "options": {
                str(number): {"text": MEANING.get(name, name), "color": colour, "index": number}
                for (name, number), colour in zip(VERDICTS.items(), COLOURS)
            },
        }
    ]
}
"""Mappings of verdict numbers to words and colours."""


def override(name: str, **properties: Any) -> Json:
    """Return the overrides of one field. `custom__x` means `custom.x`."""
    matcher = {"id": "byRegexp", "options": name} if name.startswith("/") else {"id": "byName", "options": name}
    given = [{"id": key.replace("__", "."), "value": value} for key, value in properties.items()]
    return {"matcher": matcher, "properties": given}


def column(ref: str, title: str, unit: str = "", width: int = 0, **properties: Any) -> Json:
    """Return a column with the values of the query `ref`, or of a label."""
    value = f"/^Value( #{ref})?$/" if len(ref) == 1 else ref
    more: Json = {"displayName": title}
    if unit:
        more["unit"] = unit
    if width:
        more["custom__width"] = width
    return override(value, **more, **properties)


def hidden(ref: str, title: str) -> Json:
    """Return a column that only links read."""
    return column(ref, title, custom__hidden=True)


def needs(ref: str) -> Json:
    """Return the transformation that keeps only the rows with a value of this query."""
    test = {"fieldName": f"Value #{ref}", "config": {"id": "isNotNull", "options": {}}}
    return {"id": "filterByValue", "options": {"type": "include", "match": "all", "filters": [test]}}


def links_column(ref: str, title: str, links: Sequence[Link], width: int = 0) -> Json:
    """Return a column with links."""
    return column(ref, title, width=width, links=list(links))


GAUGE_CELL: Final = {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}
COLOURED_CELL: Final = {"type": "color-background", "mode": "basic", "applyToRow": False}
COLOURED_TEXT: Final = {"type": "color-text"}


# -- kinds of panels


def table(
    title: str,
    description: str,
    size: tuple[int, int],
    *queries: Query,
    columns: Sequence[str],
    hide: Sequence[str] = (),
    overrides: Sequence[Json] = (),
    sort: str | Sequence[str] = (),
    ascending: bool = False,
    filters: Sequence[Json] = (),
    transformations: Sequence[Json] | None = None,
) -> Panel:
    """Return a table of instant queries, merged on common labels. A column is a label, or `A` for the query A."""
    single = len(queries) == 1
    # Loki's data source says the letter of the query in any case.
    plain = len(queries) == 1 and queries[0].source == PROMETHEUS
    names = [name if len(name) > 1 else ("Value" if plain else f"Value #{name}") for name in columns]
    organize = {
        "id": "organize",
        "options": {
            "indexByName": {name: number for number, name in enumerate(names)},
            "excludeByName": {"Time": True, **dict.fromkeys(hide, True)},
            "renameByName": {},
        },
    }
    # Rows are merged where all common columns are equal, and the times of stores differ by milliseconds. Without a
    # common column nothing is merged, and only the time is in the answer of a query that found nothing.
    merge = [
        {"id": "formatTime", "options": {"timeField": "Time", "outputFormat": "[now]", "useTimezone": False}},
        {"id": "merge", "options": {}},
    ]
    chosen = [*([] if single else merge), *filters, organize]
    return panel(
        "table",
        title,
        description,
        size,
        *queries,
        # No unit for all: Grafana would show an id such as 20261129 as 20.3 Mil, and fill that into links.
        defaults={"noValue": "", **BY_THRESHOLD, **PLAIN},
        custom={"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False, "filterable": True},
        options={
            "showHeader": True,
            "cellHeight": "sm",
            "sortBy": [
                {"displayName": name, "desc": not ascending} for name in ([sort] if isinstance(sort, str) else sort)
            ],
        },
        overrides=overrides,
        transformations=chosen if transformations is None else transformations,
    )


def stat(
    title: str,
    description: str,
    size: tuple[int, int],
    *queries: Query,
    unit: str = "short",
    text: str = "auto",
    background: bool = False,
    defaults: Json | None = None,
    overrides: Sequence[Json] = (),
    fields: str = "",
) -> Panel:
    """Return a panel with big numbers."""
    return panel(
        "stat",
        title,
        description,
        size,
        *queries,
        unit=unit,
        defaults={"noValue": "none", **BY_THRESHOLD, **PLAIN, **(defaults or {})},
        options={
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": fields, "values": False},
            "colorMode": "background" if background else "value",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "textMode": text,
            "wideLayout": True,
        },
        overrides=overrides,
    )


def gauge(title: str, description: str, size: tuple[int, int], *queries: Query, defaults: Json | None = None) -> Panel:
    """Return a panel with a share from 0 to 1 as an arc."""
    return panel(
        "gauge",
        title,
        description,
        size,
        *queries,
        unit="percentunit",
        defaults={"min": 0, "max": 1, "noValue": "not known", **BY_THRESHOLD, **PLAIN, **(defaults or {})},
        options={
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "orientation": "auto",
            "showThresholdLabels": False,
            "showThresholdMarkers": True,
        },
    )


LEGEND: Final = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}


def lines(
    title: str,
    description: str,
    size: tuple[int, int],
    *queries: Query,
    unit: str,
    defaults: Json | None = None,
    custom: Json | None = None,
    overrides: Sequence[Json] = (),
    recent: str = "",
) -> Panel:
    """Return a panel with values over time; of the dashboard's time range, or of its last part, such as `15m`."""
    return panel(
        "timeseries",
        title,
        description,
        size,
        *queries,
        unit=unit,
        defaults={**PALETTE, **(defaults or {})},
        custom={"drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "auto", **(custom or {})},
        options={"legend": LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}},
        overrides=overrides,
        more={"timeFrom": recent} if recent else None,
    )


SPARSE: Final[Json] = {"spanNulls": 330_000}
"""Joins the points of a line that are at most 5.5 minutes apart, in ms: a running operation says something each 5."""
BARS: Final[Json] = {"drawStyle": "bars", "fillOpacity": 60, "stacking": {"mode": "normal", "group": "A"}}
STACKED: Final[Json] = {"fillOpacity": 30, "stacking": {"mode": "normal", "group": "A"}}


def bars(title: str, description: str, size: tuple[int, int], *queries: Query, unit: str) -> Panel:
    """Return a bar gauge."""
    return panel(
        "bargauge",
        title,
        description,
        size,
        *queries,
        unit=unit,
        defaults={**PALETTE, "min": 0, "decimals": 1},
        options={
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "displayMode": "basic",
            "orientation": "horizontal",
            "showUnfilled": True,
            "valueMode": "color",
            "namePlacement": "auto",
            "sizing": "auto",
        },
    )


def timeline(title: str, description: str, size: tuple[int, int], *queries: Query) -> Panel:
    """Return a panel with verdicts over time, a line for each series."""
    return panel(
        "state-timeline",
        title,
        description,
        size,
        *queries,
        unit="short",
        defaults={**BY_THRESHOLD, **PLAIN, **MAPPED},
        custom={"lineWidth": 0, "fillOpacity": 80, "spanNulls": False, "insertNulls": False},
        options={
            "mergeValues": True,
            "showValue": "auto",
            "alignValue": "left",
            "rowHeight": 0.9,
            "legend": LEGEND,
            "tooltip": {"mode": "single", "sort": "none"},
        },
    )


def heatmap(title: str, description: str, size: tuple[int, int], *queries: Query) -> Panel:
    """Return a heat map of durations over time, from classic buckets or from native histograms."""
    return panel(
        "heatmap",
        title,
        description,
        size,
        *queries,
        unit="short",
        custom={"scaleDistribution": {"type": "linear"}, "hideFrom": {"legend": False, "tooltip": False, "viz": False}},
        options={
            "calculate": False,
            "cellGap": 1,
            "cellValues": {"unit": "short"},
            "color": {
                "mode": "scheme",
                "scheme": "Viridis",
                "steps": 64,
                "exponent": 0.5,
                "fill": "blue",
                "scale": "exponential",
                "reverse": False,
            },
            "exemplars": {"color": "orange"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "showValue": "never",
            "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": "s"},
        },
    )


def logs(title: str, description: str, size: tuple[int, int], *queries: Query, time: bool = True) -> Panel:
    """Return a panel with log lines, the newest first."""
    return panel(
        "logs",
        title,
        description,
        size,
        *queries,
        options={
            "showTime": time,
            "showLabels": False,
            "showCommonLabels": False,
            "wrapLogMessage": True,
            "prettifyLogMessage": False,
            "enableLogDetails": True,
            "dedupStrategy": "none",
            "sortOrder": "Descending",
        },
    )


def traces(title: str, description: str, size: tuple[int, int], *queries: Query) -> Panel:
    """Return a panel with the spans of one trace over time."""
    return panel("traces", title, description, size, *queries)


def text(title: str, content: str, size: tuple[int, int]) -> Panel:
    """Return a panel with Markdown text."""
    return panel(
        "text",
        title,
        "",
        size,
        options={
            "mode": "markdown",
            "content": content,
            "code": {"language": "plaintext", "showLineNumbers": False, "showMiniMap": False},
        },
    )


# -- variables

_ALL: Final = {"text": ["All"], "value": ["$__all"]}


def choose_source(kind: str) -> Json:
    """Return the variable that selects a data source; ours by default."""
    return {
        "type": "datasource",
        "name": kind,
        "label": kind.capitalize(),
        "query": kind,
        "current": {"text": f"otel-progress {kind.capitalize()}", "value": f"otel-progress-{kind}"},
        "regex": "",
        "refresh": 1,
        "hide": 0,
        "multi": False,
        "includeAll": False,
        "options": [],
        "skipUrlSync": False,
    }


def choose(
    name: str,
    label: str,
    query: str,
    description: str,
    *,
    several: bool = True,
    everything: str | None = ".*",
    regex: str = "",
    hide: int = 0,
) -> Json:
    """Return the variable that selects one, several or all values of a query to Prometheus."""
    return {
        "type": "query",
        "name": name,
        "label": label,
        "description": description,
        "datasource": source(PROMETHEUS),
        "definition": query,
        "query": {
            "qryType": 3 if query.startswith("query_result") else 1,
            "query": query,
            "refId": "PrometheusVariableQueryEditor-VariableQuery",
        },
        "regex": regex,
        "refresh": 2,
        "sort": 1,
        "hide": hide,
        "multi": several,
        "includeAll": several,
        **(
            {"allValue": everything, "current": _ALL}
            if several and everything
            else {"current": _ALL if several else {}}
        ),
        "allowCustomValue": True,
        "options": [],
        "skipUrlSync": False,
    }


def choose_time(name: str, label: str, description: str, *values: str) -> Json:
    """Return the variable that selects a duration; the first value is the default."""
    return {
        "type": "custom",
        "name": name,
        "label": label,
        "description": description,
        "query": ",".join(values),
        "current": {"text": values[0], "value": values[0]},
        "options": [{"text": value, "value": value, "selected": value == values[0]} for value in values],
        "hide": 0,
        "multi": False,
        "includeAll": False,
        "allowCustomValue": True,
        "skipUrlSync": False,
    }


def type_in(name: str, label: str, description: str, default: str = "") -> Json:
    """Return the variable for a text that a person types in or a link fills in."""
    return {
        "type": "textbox",
        "name": name,
        "label": label,
        "description": description,
        "query": default,
        "current": {"text": default, "value": default},
        "options": [],
        "hide": 0,
        "skipUrlSync": False,
    }


SOURCES: Final = tuple(choose_source(kind) for kind in (PROMETHEUS, LOKI, TEMPO))


# -- the whole


def layout(rows: Mapping[str, Sequence[Panel]], collapsed: frozenset[str] = frozenset()) -> list[Json]:
    """Return the panels with ids and positions: from left to right, with a new line when one does not fit."""
    placed: list[Json] = []
    top = number = 0
    for title, panels in rows.items():
        inside, height = _line_up(panels, top + bool(title))
        if title:
            number += 1
            place = {"x": 0, "y": top, "w": WIDTH, "h": 1}
            closed = title in collapsed
            row: Json = {"id": number, "type": "row", "title": title, "collapsed": closed, "panels": []}
            placed.append({**row, "gridPos": place})
            top += 1
        numbered = [{"id": number + count, **item} for count, item in enumerate(inside, 1)]
        number += len(numbered)
        if title in collapsed:
            placed[-1]["panels"] = numbered
        else:
            placed += numbered
            top += height
    return placed


def _line_up(panels: Sequence[Panel], top: int) -> tuple[list[Json], int]:
    """Return panels with positions from the line `top` on, and the height of all."""
    placed: list[Json] = []
    left = height = 0
    start = top
    for one in panels:
        if left + one.width > WIDTH:
            left, top, height = 0, top + height, 0
        placed.append({**one.json, "gridPos": {"x": left, "y": top, "w": one.width, "h": one.height}})
        left, height = left + one.width, max(height, one.height)
    return placed, top + height - start


def annotation(name: str, query: Query, title: str, colour: str, *, on: bool = True, at_value: bool = False) -> Json:
    """Return marks on all time axes.

    Args:
        name: the name of the switch on the dashboard.
        query: the moments; from Prometheus each change of a series to a value, from Loki each line.
        title: the title of a mark, which may name labels.
        colour: the colour.
        on: whether they are shown at first.
        at_value: whether the value of a series is the time of the mark, in ms.
    """
    common: Json = {"name": name, "enable": on, "hide": False, "iconColor": colour, "datasource": source(query.source)}
    common |= {"expr": query.text, "titleFormat": title, "textFormat": "", "tagKeys": ""}
    if query.source == PROMETHEUS:
        common |= {"step": "60s", "useValueForTime": at_value}
    return common


def build(dashboard: Dashboard) -> Json:
    """Return the JSON of a dashboard."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["otel-progress"],
        "schemaVersion": 42,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": dashboard.refresh,
        "time": {"from": dashboard.since, "to": "now"},
        "timepicker": {},
        "fiscalYearStartMonth": 0,
        "links": [
            {
                "type": "dashboards",
                "title": "otel-progress",
                "tags": ["otel-progress"],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "icon": "external link",
                "tooltip": "",
                "url": "",
            }
        ],
        "annotations": {"list": list(dashboard.annotations)},
        "templating": {"list": list(dashboard.variables)},
        "panels": layout(dashboard.rows, dashboard.collapsed),
    }
