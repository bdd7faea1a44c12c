"""Reads the expected values: queries of the shipped dashboards on Prometheus, and facts in the log and trace stores."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.stack.grafana_queries import BUILT_IN

from benchmarks.harness import ROOT
from benchmarks.incident.match import ID, row_fits
from benchmarks.incident.plan import Panel

if TYPE_CHECKING:
    from benchmarks.incident.place import Place

BOARDS = ROOT / "grafana" / "dashboards"
RANGE = 900
STEP = 10
ANY = ".*"


@dataclass(frozen=True)
class Value:
    """What a panel showed: expected, or missing, or false where it should show nothing."""

    scenario: str
    panel: Panel
    mark: str
    shown: str


def board(name: str) -> dict[str, Any]:
    """Return a dashboard's JSON."""
    found: dict[str, Any] = json.loads((BOARDS / f"{name}.json").read_text())
    return found


def panels(json_: dict[str, Any]) -> list[dict[str, Any]]:
    """Return its panels, also those in collapsed rows."""
    return [inner for it in json_["panels"] for inner in (it, *it.get("panels", ()))]


def address(where: str) -> tuple[str, str, str]:
    """Return dashboard, panel and query of `dashboard: panel/A`; the query may be empty: any."""
    name, _, title = where.partition(": ")
    found = re.fullmatch(r"(.+)/([A-Z])", title)
    return (name, found[1], found[2]) if found else (name, title, "")


def variables(json_: dict[str, Any], run: str) -> dict[str, str]:
    """Return the values of its variables when a run was selected, and everything else is as delivered."""
    found = dict(BUILT_IN) | {"__range": f"{RANGE}s"}
    for it in json_["templating"]["list"]:
        current = it.get("current", {}).get("value")
        found[it["name"]] = current if it["type"] in ("custom", "constant") and isinstance(current, str) else ANY
    return {**found, "id": run, "unrecorded": "-"}  # the rules are loaded, so the verdicts are recorded


def fill(text: str, given: dict[str, str]) -> str:
    """Return a query with its variables filled in."""
    return re.sub(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)", lambda found: given.get(found[1] or found[2], found[0]), text)


def read(place: Place, scenario: str, panel: Panel) -> Value:
    """Read a value, and compare it."""
    try:
        rows = list(_rows(place, panel))
    except Exception as error:
        return Value(scenario, panel, "missing", f"{type(error).__name__}: {error}"[:200])
    right = [row for row in rows if row_fits(panel.labels, panel.low, panel.high, *row)]
    if panel.absent:
        return Value(scenario, panel, "false" if right else "expected", _text(right) if right else "nothing")
    who = [label for label in panel.labels if label[0] == ID]
    mine = [row for row in rows if row_fits(who, -float("inf"), float("inf"), *row)]
    return Value(scenario, panel, "expected" if right else "missing", _text(right or mine))


def _rows(place: Place, panel: Panel) -> Any:
    if panel.where.startswith("logs"):
        window = "_time:6m " if panel.where.endswith("5 min") else ""
        return [(line.labels, 1.0) for line in place.logs.query(f'{window}"progress.operation.id":="{panel.run}"')]
    if panel.where == "trace":
        lines = place.logs.query(f'"progress.operation.id":="{panel.run}"')
        ids = {line.labels["trace_id"] for line in lines if line.labels.get("trace_id")}
        return [({"name": it.span.name}, 1.0) for id_ in ids for it in place.traces.trace(id_)]
    name, title, ref = address(panel.where)
    json_ = board(name)
    shown = [it for it in panels(json_) if it.get("title") == title]
    if not shown:
        raise LookupError(f"there is no panel {title!r}")
    given = variables(json_, panel.run)
    return [
        row
        for target in shown[0]["targets"]
        if target["datasource"]["type"] == "prometheus" and ref in ("", target["refId"])
        for row in _asked(place, target, fill(target["expr"], given))
    ]


def _asked(place: Place, target: dict[str, Any], text: str) -> list[tuple[dict[str, str], float]]:
    if target.get("instant"):
        return [(it.labels, it.value) for it in place.prometheus.query(text)]
    now = time.time()
    found = place.prometheus.query_range(text, now - RANGE, now, STEP)
    return [(it.labels, it.value) for it in found if it.values[-1][0] > now - 2 * STEP]


def _text(rows: list[tuple[dict[str, str], float]]) -> str:
    left_out = ("job", "instance", "progress_operation_name", "progress_operation_id", "__name__")
    texts = []
    for labels, value in rows[:2]:
        if "event_name" in labels:
            texts.append(f"{labels['event_name']}: {labels.get('_msg', '')}")
            continue
        more = ", ".join(f"{key}={text}" for key, text in labels.items() if key not in left_out)
        texts.append(f"{value:g}" + (f" ({more})" if more else ""))
    return "; ".join(texts) or "nothing"
