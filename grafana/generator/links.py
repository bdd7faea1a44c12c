"""URLs inside Grafana: a dashboard, or a query in Explore."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import quote

from grafana.generator.queries import ID, LOKI, NAME, PLACED, PROMETHEUS, SPANS, TEMPO, TRACE

NOW: Final = "otel-progress-now"
OPERATION: Final = "otel-progress-operation"
KINDS: Final = "otel-progress-kinds"
PIPELINE: Final = "otel-progress-pipeline"
RUNBOOK: Final = "otel-progress-runbook"

SOURCES: Final = f"${{{PROMETHEUS}:queryparam}}&${{{LOKI}:queryparam}}&${{{TEMPO}:queryparam}}"
ALL: Final = "%24__all"
"""The value of a variable in a URL that selects everything."""
Link = dict[str, Any]


def cell(name: str) -> str:
    """Return the URL-encoded value of another column of the same row."""
    return f"${{__data.fields.{name}:percentencode}}"


def link(title: str, url: str) -> Link:
    """Return a link for a menu."""
    return {"title": title, "url": url, "targetBlank": False}


def dashboard(uid: str, since: str = "", **variables: str) -> str:
    """Return the URL of a dashboard of ours with these variables and the same data sources.

    Its time range is the same, or from `since` (Unix time in ms) to now.
    """
    parts = [f"var-{name}={value}" for name, value in variables.items()]
    return f"/d/{uid}?" + "&".join([*parts, SOURCES, f"from={since}&to=now" if since else "${__url_time_range}"])


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


def trace_of(value: str, since: str = "") -> str:
    """Return the URL in Explore that finds the trace of an operation; a click on it shows all its spans."""
    text = SPANS.replace("$id", "<id>")
    query = {"queryType": "traceql", "query": text, "limit": 20, "tableType": "traces"}
    return explore(TEMPO, query, id=value, **_from(since))


def trace(value: str, since: str = "") -> str:
    """Return the URL of all spans of a trace in Explore, by its id."""
    return explore(TEMPO, {"queryType": "traceql", "query": "<trace>"}, trace=value, **_from(since))


def events_of(value: str, since: str = "") -> str:
    """Return the URL of the log events of an operation in Explore."""
    text = f'{{service_name=~".+"}} | {ID}="<id>"'
    return explore(LOKI, {"expr": text, "queryType": "range"}, id=value, **_from(since))


def _from(since: str) -> dict[str, str]:
    return {"from": since} if since else {}


def runbook(**cells: str) -> Link:
    """Return the link to the runbook, with these variables."""
    return link("What to do", dashboard(RUNBOOK, **cells))


def of_row(trace_id: bool = False) -> list[Link]:
    """Return the links of a row about an operation, with a column for the trace id or without.

    The row has columns for name, id, `place` (the environment) and `start`: the Unix time in ms at which the ranges
    begin. No link passes the service: a child may run in another one, but in the same environment.
    """
    since = cell("start")
    more = {"trace": cell(TRACE)} if trace_id else {}
    where = {"environment": cell(PLACED)}
    return [
        link("This operation", dashboard(OPERATION, since, job=ALL, **where, name=cell(NAME), id=cell(ID), **more)),
        link("Its trace", trace(cell(TRACE), since) if trace_id else trace_of(cell(ID), since)),
        link("Its events", events_of(cell(ID), since)),
        runbook(name=cell(NAME), id=cell(ID), **where),
    ]


def of_trace() -> list[Link]:
    """Return the links of a row about an attempt of the operation that is shown."""
    same = "&".join(f"${{{name}:queryparam}}" for name in ("job", "name", "id"))
    shown = f"{dashboard(OPERATION, trace=cell(TRACE))}&{same}"
    return [link("Show its spans", shown), link("The trace in Explore", trace(cell(TRACE)))]


def of_kind() -> list[Link]:
    """Return the links of a row about a kind of work."""
    return [
        link("This kind of work", dashboard(KINDS, name=cell(NAME))),
        link("What runs of it now", dashboard(NOW, name=cell(NAME))),
    ]
