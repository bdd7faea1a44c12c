"""The report of the drill as text, Markdown and JSON: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.incident.match import GOOD, Line, link
from benchmarks.incident.plan import Scenario
from benchmarks.incident.values import Value

KINDS = ("runbook", "dashboard", "trace", "logs")


def wrong(lines: Sequence[Line], values: Sequence[Value]) -> int:
    """Return the number of lines that are not as expected."""
    return sum(it.mark not in GOOD for it in lines) + sum(it.mark != "expected" for it in values)


def told(line: Line) -> str:
    """Return a message in one line."""
    delay = "" if line.delay is None else f"{line.delay:6.1f} s"
    bar = "" if line.within is None else f"(at most {line.within:.0f} s)"
    text = f"{line.mark:<10} {delay:>8} {bar:<17} {line.status:<8} {line.alert:<20} {line.about}"
    return text + (f"  lacks: {'; '.join(line.lacks)}" if line.lacks else "")


def details(line: Line) -> list[str]:
    """Return the texts and links of a message."""
    if line.received is None:
        return []
    return [f"    {key}: {' '.join(value.split())}" for key, value in sorted(line.received.annotations.items())]


def shown(value: Value) -> str:
    """Return a value of a panel in one line."""
    wanted = "no row" if value.panel.absent else _wanted(value)
    return f"{value.mark:<10} {value.panel.where} of {value.panel.run}: {value.shown} (expected: {wanted})"


def _wanted(value: Value) -> str:
    panel = value.panel
    labels = [f"{key}={text}" for key, text in panel.labels if key != "progress_operation_id"]
    bounds = []
    if panel.high != float("inf"):
        bounds = [f"{panel.low:g}" if panel.low == panel.high else f"{panel.low:g} to {panel.high:g}"]
    return ", ".join(bounds + labels) or "a row"


def markdown(
    scenarios: Sequence[Scenario], lines: Sequence[Line], values: Sequence[Value], left_out: Sequence[str]
) -> str:
    """Return the tables for the documentation."""
    rows = ["| what happened | about | message | delay | at most | mark |", "|---|---|---|---:|---:|---|"]
    about = {it.name: it.about for it in scenarios}
    for it in lines:
        delay = "" if it.delay is None else f"{it.delay:.0f} s"
        bar = "" if it.within is None else f"{it.within:.0f} s"
        mark = it.mark + (f": {', '.join(it.lacks)}" if it.lacks else "")
        mark = mark if it.mark in GOOD else f"**{mark}**".replace("|", "\\|")
        rows.append(f"| {it.scenario} | {it.about} | {it.alert} {it.status} | {delay} | {bar} | {mark} |")
    shown_rows = ["| about | where | shows | expected | mark |", "|---|---|---|---|---|"]
    for value in values:
        wanted = "no row" if value.panel.absent else _wanted(value)
        mark = value.mark if value.mark == "expected" else f"**{value.mark}**"
        cells = [f"{value.panel.run}, {value.panel.at:.0f} s", value.panel.where, value.shown, wanted, mark]
        shown_rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    quiet = [it for it in scenarios if not it.messages]
    parts = [f"- *{name}*: {text}." for name, text in about.items()]
    parts += ["", "Messages at the webhook:", "", *rows]
    if quiet:
        parts += ["", f"No message was expected about: {', '.join(it.name for it in quiet)}."]
    parts += [f"Not played: {text}." for text in left_out]
    parts += ["", "Values of panels and stores (the time is that of the reading):", "", *shown_rows]
    return "\n".join(parts)


def as_json(lines: Sequence[Line], values: Sequence[Value], left_out: Sequence[str]) -> dict[str, Any]:
    """Return everything as JSON."""
    return {
        "wrong": wrong(lines, values),
        "left_out": list(left_out),
        "messages": [
            {
                "scenario": it.scenario,
                "alert": it.alert,
                "about": it.about,
                "status": it.status,
                "mark": it.mark,
                "delay": it.delay,
                "within": it.within,
                "lacks": list(it.lacks),
                "annotations": dict(it.received.annotations) if it.received else {},
                "links": {kind: link(it.received, kind) for kind in KINDS} if it.received else {},
            }
            for it in lines
        ],
        "values": [
            {
                "scenario": it.scenario,
                "where": it.panel.where,
                "run": it.panel.run,
                "at": it.panel.at,
                "mark": it.mark,
                "shown": it.shown,
            }
            for it in values
        ],
    }
