"""Screens: a dashboard with what is selected (else its defaults), and its text as a person reads it; kept in `panels/shown/`."""

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

from . import build
from . import panel_answers as answers
from . import panel_story as story

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grafana.generator.parts import Dashboard, Panel

    from .backends import Prometheus

SHOWN = Path(__file__).with_name("panels") / "shown"
LINE = re.compile(r"\S*(panel_story\.py):\d+")
"""A line of the story, which moves when the story is edited."""
CHOSEN = {
    "job": ".*",
    "service": "shop",
    "name": ".*",
    "id": "moving-1",
    "currency": "USD",
    "unrecorded": ".+",
}


@dataclass(frozen=True)
class Screen:
    """A dashboard with the values of variables that differ from the common ones."""

    name: str
    uid: str
    variables: Mapping[str, str] = field(default_factory=dict)
    modelled: bool = True
    """Whether panels of other sources than Prometheus are shown, whose answers are those of `CHOSEN`."""

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
    Screen("now_calm", links.NOW, {"name": "chunk"}),
    Screen("kinds", links.KINDS),
    Screen("operation_moving", links.OPERATION),
    Screen("operation_in_stages", links.OPERATION, {"id": "stages-1"}, modelled=False),
    Screen("operation_stuck", links.OPERATION, {"id": "stuck-1"}, modelled=False),
    Screen("operation_killed", links.OPERATION, {"id": "killed-1"}, modelled=False),
    Screen("pipeline", links.PIPELINE),
    Screen("runbook", links.RUNBOOK, {"id": "stuck-1", "name": "import", "instance": ".*"}),
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
    """Return the text of each screen, by its name: what a person reads, as Markdown."""
    asked = {screen.name: [(it, given(it, screen, prometheus)) for it in panels(screen)] for screen in SCREENS}
    found = iter(run([content for items in asked.values() for _, content in items]))
    texts = {}
    for screen in SCREENS:
        parts = [f"# {screen.dashboard.title}\n"]
        parts += [f"## {it.json['title']} ({it.json['type']})\n\n{body(next(found))}\n" for it, _ in asked[screen.name]]
        texts[screen.name] = LINE.sub(r"\1:N", "\n".join(parts))
    return texts


def panels(screen: Screen) -> list[Panel]:
    """Return the panels of a screen that ask something."""
    return [it for it in screen.dashboard.panels() if it.queries and (screen.modelled or not others(it))]


def given(panel: Panel, screen: Screen, prometheus: Prometheus) -> dict[str, Any]:
    """Return a panel with its answers and the variables that its links know."""
    chosen = variables(screen)
    sources = {kind: f"otel-progress-{kind}" for kind in ("prometheus", "loki", "tempo")}
    frames = answers.frames(panel, chosen, prometheus)
    return {"panel": panel.json, "frames": frames, "variables": {**chosen, **sources}}


def run(contents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what a person sees in these panels: one run of Node for all."""
    program = build.binary(build.PANELS)
    assert program is not None
    done = subprocess.run(
        [build.find_node(), str(program)],
        input=json.dumps({"from": 1000 * story.BEGIN, "to": 1000 * story.END, "panels": contents}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def others(panel: Panel) -> bool:
    """Return whether a panel asks other sources than Prometheus."""
    return any(query.source != "prometheus" for query in panel.queries.values())


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
    """Return the links of the first row, decoded; those of all rows must be filled in.

    A number is filled in as it is shown, such as "1.70 Tri" for a time in ms; `.numeric` gives the number.
    """
    for row in shown["links"]:
        for link in (it for found in row.values() for it in found):
            left = re.search(r"\$(?!__all\b)\{?\w|\d [A-Z][a-z]+(?=&)", unquote(link["href"]))
            assert not left, f"{left[0]} in the link {link}"
    return "\n".join(
        f"- {name} → {link['title']}: {unquote(link['href'])}"
        for name, found in shown["links"][0].items()
        for link in found
    )
