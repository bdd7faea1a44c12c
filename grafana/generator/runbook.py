"""The runbook as a dashboard, so that links to it work in every Grafana."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from grafana.generator import links
from grafana.generator.parts import Dashboard, text

FILE: Final = Path(__file__).parents[2] / "docs" / "runbook.md"
head, *entries = FILE.read_text(encoding="utf-8").split("\n## ")

RUNBOOK = Dashboard(
    links.RUNBOOK,
    "Runbook",
    "For each alert: what it means, how to look, what to do. Generated from docs/runbook.md.",
    (),
    {
        "": tuple(
            text(title, content.strip(), (12, 14)) for title, _, content in (entry.partition("\n") for entry in entries)
        )
    },
    refresh="",
)
