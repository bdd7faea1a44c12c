"""Compares what a webhook received with what was expected: pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.incident.plan import Message

ID = "progress_operation_id"
NAME = "progress_operation_name"
Mark = Literal["expected", "missing", "false", "late", "incomplete"]
GOOD: tuple[Mark, ...] = ("expected",)


@dataclass(frozen=True)
class Received:
    """A change that a message told: an alert that began to fire, or was resolved."""

    at: float
    status: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]

    @property
    def about(self) -> str:
        """The run, else the name, else the instance that the alert is about."""
        return next((self.labels[key] for key in (ID, NAME, "instance") if self.labels.get(key)), "")


@dataclass(frozen=True)
class Line:
    """A line of the report."""

    scenario: str
    alert: str
    about: str
    status: str
    mark: Mark
    delay: float | None = None
    within: float | None = None
    lacks: tuple[str, ...] = ()
    received: Received | None = field(default=None, compare=False)


def changes(messages: Sequence[tuple[float, Mapping[str, Any]]]) -> list[Received]:
    """Return the changes in messages of Alertmanager, which repeat what they told before of the same group."""
    last: dict[tuple[tuple[str, str], ...], str] = {}
    found = []
    for at, message in messages:
        for alert in message["alerts"]:
            key = tuple(sorted(alert["labels"].items()))
            if last.get(key) != alert["status"]:
                last[key] = alert["status"]
                found.append(Received(at, alert["status"], alert["labels"], alert.get("annotations", {})))
    return found


def without_news(messages: Sequence[tuple[float, Mapping[str, Any]]]) -> list[Line]:
    """Return a line for each message that told nothing new: what it says had been said."""
    lines = []
    for number, (_, message) in enumerate(messages):
        if len(changes(messages[: number + 1])) == len(changes(messages[:number])):
            name = message["alerts"][0]["labels"].get("alertname", "")
            lines.append(Line("", name, "a message without news", message["status"], "false"))
    return lines


def lacking(wanted: Message, got: Received) -> tuple[str, ...]:
    """Return what the alert should say and does not: texts, links, its severity."""
    texts = list(got.annotations.values())
    lacks = [f"text {text!r}" for text in wanted.says if not any(re.search(text, it) for it in texts)]
    lacks += [f"link {name}" for name in wanted.links if not link(got, name)]
    severity = got.labels.get("severity", "")
    if not re.fullmatch(wanted.severity, severity):
        lacks.append(f"severity {wanted.severity} (is {severity or 'none'})")
    return tuple(lacks)


def link(got: Received, name: str) -> str:
    """Return the absolute URL of this kind, or an empty text. A placeholder is no address."""
    for key, value in got.annotations.items():
        if name in key and re.match(r"https?://[^\s/]+", value) and ".invalid" not in value:
            return value
    return ""


def compare(wanted: Sequence[tuple[str, Message]], moments: Mapping[str, float], got: Sequence[Received]) -> list[Line]:
    """Return a line for each expected message and each unexpected one.

    Args:
        wanted: scenario and message.
        moments: name to seconds since 1970.
        got: what was received, oldest first.
    """
    left = list(got)
    lines = []
    for scenario, message in wanted:
        cause = moments.get(message.cause)
        match = next((it for it in left if _fits(message, it, cause)), None)
        if match is not None:
            left.remove(match)
        if match is None or cause is None:
            if not message.optional:
                lines.append(
                    Line(scenario, message.alert, message.run, message.status, "missing", None, message.within)
                )
            continue
        delay = match.at - cause
        lacks = lacking(message, match)
        mark: Mark = "late" if delay > message.within else "incomplete" if lacks else "expected"
        lines.append(
            Line(scenario, message.alert, match.about, match.status, mark, delay, message.within, lacks, match)
        )
    lines += [Line("", it.labels.get("alertname", ""), it.about, it.status, "false", received=it) for it in left]
    return lines


def _fits(message: Message, got: Received, cause: float | None) -> bool:
    """Whether this is the alert, whenever it came; before its cause it would be false."""
    return (
        cause is not None
        and got.at >= cause
        and got.status == message.status
        and got.labels.get("alertname") == message.alert
        and (not message.run or got.labels.get(ID) == message.run)
    )


def row_fits(
    labels: Sequence[tuple[str, str]], low: float, high: float, given: Mapping[str, str], value: float
) -> bool:
    """Return whether a row of a panel has these labels, and its value is within the bounds."""
    for name, wanted in labels:
        text = given.get(name, "")
        if not (re.fullmatch(wanted[1:], text) if wanted.startswith("~") else text == wanted):
            return False
    return low <= value <= high
