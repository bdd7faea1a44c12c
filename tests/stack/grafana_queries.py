"""Runs a panel's query as Grafana does: fills in the variables, queries the data source, returns rows."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grafana.generator.queries import Query

    from .backends import Loki, Prometheus, Tempo

RANGE = 2400
"""The time range of the dashboard, in seconds."""
STEP = 2
BUILT_IN = {
    "__range": f"{RANGE}s",
    "__interval": "10s",
    "__rate_interval": "20s",
    "__auto": "10s",
}


class Found(NamedTuple):
    """A series with its last value, a log line, or a span."""

    labels: dict[str, str]
    value: float = 1.0
    line: str = ""


OPEN = re.compile(r"\$\{?(?!__all)[A-Za-z_]")
"""A variable that is left in a query; `$1` is a group of `label_replace`, and `$__all` the value for all."""


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Return the text with `$name` and `${name}` replaced; unknown names stay."""
    known = {**BUILT_IN, **variables}
    return re.sub(
        r"\$\{(\w+)\}|\$(\w+)",
        lambda found: known.get(found[1] or found[2], found[0]),
        text,
    )


def ask(
    query: Query,
    variables: Mapping[str, str],
    prometheus: Prometheus,
    loki: Loki | None,
    tempo: Tempo | None,
) -> list[Found]:
    """Return the result of a query from its data source."""
    text = interpolate(query.text, variables)
    assert not OPEN.search(text), text
    now = time.time()
    if query.source == "prometheus":
        if query.instant:
            return [Found(it.labels, it.value) for it in prometheus.query(text)]
        samples = prometheus.query_range(text, now - RANGE, now, STEP)
        return [Found(it.labels, it.value) for it in samples]
    if query.source == "loki":
        assert loki is not None
        if query.instant:
            return [Found(it.labels, it.value) for it in loki.query(text)]
        return [Found(*it) for it in _loki_range(loki, text, now)]
    assert tempo is not None
    if re.fullmatch("[0-9a-f]+", text):  # a trace id, as Grafana decides
        return [Found({"name": span.name}) for span in tempo.trace(text)]
    return [
        Found({key: str(value) for key, value in _attributes(span).items()} | {"name": str(span.get("name", ""))}, 1.0)
        for trace in tempo.search(text, now - RANGE, now + 1)
        for span_set in trace.get("spanSets", [])
        for span in span_set["spans"]
    ]


def _loki_range(loki: Loki, text: str, now: float) -> list[tuple[dict[str, str], float, str]]:
    data = loki.get(
        "/loki/api/v1/query_range", query=text, limit=1000, start=now - RANGE, end=now, step=STEP, direction="backward"
    )["data"]
    if data["resultType"] == "streams":
        return [(it["stream"], 1.0, line) for it in data["result"] for _, line in it["values"]]
    return [(it["metric"], float(it["values"][-1][1]), "") for it in data["result"]]


def _attributes(span: dict[str, object]) -> dict[str, object]:
    given = span.get("attributes", [])
    assert isinstance(given, list)
    return {item["key"]: next(iter(item["value"].values()), None) for item in given}


def matches(found: Found, labels: Mapping[str, str], low: float, high: float, line: str) -> bool:
    """Return whether a row is the expected one. A label that begins with `~` is a regular expression."""
    for name, wanted in labels.items():
        given = found.labels.get(name, "")
        if not (re.fullmatch(wanted[1:], given) if wanted.startswith("~") else given == wanted):
            return False
    return low <= found.value <= high and line in found.line
