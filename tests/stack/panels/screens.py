"""Screens: a dashboard with what is selected, and its text as a person reads it; kept in `shown/`."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from grafana.generator import DASHBOARDS, links

from .. import build
from . import answers, story

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grafana.generator.parts import Dashboard

    from ..backends import Prometheus

SHOWN = Path(__file__).with_name("shown")
CHOSEN = {
    "job": ".*",
    "service": "shop",
    "name": ".*",
    "id": "moving-1",
    "currency": "USD",
    "gap": "3m",
    "known": "6h",
    "window": "10m",
}


@dataclass(frozen=True)
class Screen:
    """A dashboard with the values of variables that differ from the common ones."""

    name: str
    uid: str
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def dashboard(self) -> Dashboard:
        """The dashboard."""
        return next(it for it in DASHBOARDS if it.uid == self.uid)

    @property
    def file(self) -> Path:
        """Where its text is kept."""
        return SHOWN / f"{self.name}.md"


SCREENS = (
    Screen("now", links.NOW),
    Screen("kinds", links.KINDS, {"gap": "5m"}),
    Screen("operation_moving", links.OPERATION),
    Screen("operation_in_stages", links.OPERATION, {"id": "stages-1"}),
    Screen("operation_stuck", links.OPERATION, {"id": "stuck-1"}),
    Screen("operation_killed", links.OPERATION, {"id": "killed-1"}),
    Screen("pipeline", links.PIPELINE),
)


def tell(prometheus: Prometheus) -> None:
    """Send the story to Prometheus."""
    url = urlsplit(f"{prometheus.otlp_endpoint}/v1/metrics")
    with contextlib.closing(http.client.HTTPConnection(url.netloc, timeout=20)) as connection:
        for request in story.tell():
            connection.request("POST", url.path, request, {"Content-Type": "application/x-protobuf"})
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == http.client.OK, body


def variables(screen: Screen) -> dict[str, str]:
    """Return the values of all variables: those of the screen, else the default of the dashboard."""
    found = {}
    for item in screen.dashboard.variables:
        chosen = item.get("allValue") or item.get("current", {}).get("value", "")
        found[item["name"]] = chosen if isinstance(chosen, str) else ".*"
    return {**found, **CHOSEN, **screen.variables}


def show(prometheus: Prometheus) -> dict[str, str]:
    """Return the text of each screen, by its name."""
    return {screen.name: text_of(screen, prometheus) for screen in SCREENS}


def text_of(screen: Screen, prometheus: Prometheus) -> str:
    """Return what a person reads on a screen, as Markdown."""
    chosen = variables(screen)
    panels = [panel for panel in screen.dashboard.panels() if panel.json["type"] != "text"]
    given = {
        "variables": {**chosen, **{kind: f"otel-progress-{kind}" for kind in ("prometheus", "loki", "tempo")}},
        "from": 1000 * story.BEGIN,
        "to": 1000 * story.END,
        "panels": [{"panel": it.json, "frames": answers.frames(it, chosen, prometheus)} for it in panels],
    }
    program = build.binary(build.PANELS)
    assert program is not None
    done = subprocess.run(
        [build.find_node(), str(program)],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    parts = [f"# {screen.dashboard.title}\n"]
    for panel, shown in zip(panels, json.loads(done.stdout), strict=True):
        parts.append(f"## {panel.json['title']} ({panel.json['type']})\n\n{body(shown)}\n")
    return "\n".join(parts)


def body(shown: dict[str, Any]) -> str:
    """Return the content of a panel."""
    if not shown["rows"]:
        return "(empty)"
    if shown["kind"] == "logs":
        return "\n".join(f"    {line}" for [text] in shown["rows"] for line in text.splitlines())
    if shown["kind"] != "table":
        return "\n".join(f"- {name}: {text}" if name else f"- {text}" for name, text in shown["rows"])
    names = [it["name"] for it in shown["columns"]]
    rows = [names, ["---"] * len(names), *shown["rows"]]
    text = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
    return "\n\n".join(filter(None, (widths(shown), text, links_of(shown))))


def widths(shown: dict[str, Any]) -> str:
    """Return the widths of the columns, in pixels, and a warning if there are further tables that nobody sees."""
    fixed = [it["width"] for it in shown["columns"] if it["width"]]
    free = len(shown["columns"]) - len(fixed)
    told = f"{sum(fixed)} px in {len(fixed)} columns, {free} free" if fixed else ""
    more = f"ONE OF {shown['tables']} TABLES" if shown["tables"] > 1 else ""
    return " · ".join(filter(None, (told, more)))


def links_of(shown: dict[str, Any]) -> str:
    """Return the links of the first row, decoded; those of all rows must be filled in."""
    for row in shown["links"]:
        for link in (it for found in row.values() for it in found):
            assert not re.search(r"\$\{?\w", unquote(link["href"])), link
    return "\n".join(
        f"- {name} → {link['title']}: {unquote(link['href'])}"
        for name, found in shown["links"][0].items()
        for link in found
    )
