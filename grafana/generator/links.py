"""URLs inside Grafana: a dashboard, or a query in Explore."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import quote

from grafana.generator.queries import ID, LOKI, NAME, PROMETHEUS, SPANS, TEMPO

NOW: Final = "otel-progress-now"
OPERATION: Final = "otel-progress-operation"
KINDS: Final = "otel-progress-kinds"
PIPELINE: Final = "otel-progress-pipeline"
RUNBOOK: Final = "otel-progress-runbook"

SOURCES: Final = f"${{{PROMETHEUS}:queryparam}}&${{{LOKI}:queryparam}}&${{{TEMPO}:queryparam}}"
Link = dict[str, Any]


def cell(name: str) -> str:
    """Return the URL-encoded value of another column of the same row."""
    return f"${{__data.fields.{name}:percentencode}}"


def link(title: str, url: str) -> Link:
    """Return a link for a menu."""
    return {"title": title, "url": url, "targetBlank": False}


def dashboard(uid: str, **variables: str) -> str:
    """Return the URL of a dashboard of ours with these variables, the same data sources and the same time range."""
    parts = [f"var-{name}={value}" for name, value in variables.items()]
    return f"/d/{uid}?" + "&".join([*parts, SOURCES, "${__url_time_range}"])


def explore(source: str, query: dict[str, Any], **cells: str) -> str:
    """Return the URL of a query in Explore. `<name>` in its text is a placeholder for a value."""
    pane = {
        "datasource": "<source>",
        "queries": [{"refId": "A", "datasource": {"type": source, "uid": "<source>"}, **query}],
        "range": {"from": "<from>", "to": "<to>"},
    }
    text = quote(json.dumps({"one": pane}, separators=(",", ":")), safe="")
    filled = {"source": f"${{{source}}}", "from": "${__from}", "to": "${__to}", **cells}
    for name, value in filled.items():
        text = text.replace(quote(f"<{name}>", safe=""), value)
    return f"/explore?schemaVersion=1&panes={text}"


def trace_of(value: str) -> str:
    """Return the URL of the spans of an operation in Explore."""
    text = SPANS.replace("$id", "<id>")
    return explore(TEMPO, {"queryType": "traceql", "query": text, "limit": 20, "tableType": "traces"}, id=value)


def events_of(value: str) -> str:
    """Return the URL of the log events of an operation in Explore."""
    text = f'{{service_name=~".+"}} | {ID}="<id>"'
    return explore(LOKI, {"expr": text, "queryType": "range"}, id=value)


def of_row(*more: str) -> list[Link]:
    """Return the links of a row about an operation, which has columns for name, id and `more` variables."""
    variables = {name: cell(name) for name in more}
    return [
        link("This operation", dashboard(OPERATION, **variables, name=cell(NAME), id=cell(ID))),
        link("Its trace", trace_of(cell(ID))),
        link("Its events", events_of(cell(ID))),
        link("What to do", f"/d/{RUNBOOK}"),
    ]


def of_kind() -> list[Link]:
    """Return the links of a row about a kind of work."""
    return [
        link("This kind of work", dashboard(KINDS, name=cell(NAME))),
        link("What runs of it now", dashboard(NOW, name=cell(NAME))),
    ]
