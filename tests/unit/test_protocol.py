"""docs/protocol.md agrees with semconv.py, with the vectors, and with what a monitor takes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from monitor_parts import WALL, Parts

from otel_progress import semconv
from otel_progress.live.engine import commands
from otel_progress.monitor.intake import records, requests
from otel_progress.monitor.intake.request_queue import Job
from otel_progress.monitor.intake.requests import Accepted, Acknowledgement, Envelope
from otel_progress.monitor.state import ledger
from otel_progress.monitor.web import cancel

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
README = (ROOT / "conformance" / "README.md").read_text(encoding="utf-8")
VECTORS = sorted((ROOT / "conformance" / "vectors").glob("*.json"))


def anchors(text: str) -> set[str]:
    """What links to the headings of a page name."""
    return {title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def test_names_exist() -> None:
    """Each attribute, event and metric that the page names is one of semconv.py."""
    known = {value for value in vars(semconv).values() if isinstance(value, str)}
    named = set(re.findall(r"`((?:progress|gen_ai|process|service|host|event)\.[\w.]+)`", PAGE))
    assert named - known == set()


def test_links_lead_to_headings() -> None:
    """Each link inside the page leads to a heading of it, and each heading is unique."""
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors(PAGE)
    titles = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_vectors_are_about_rules_of_the_page(path: Path) -> None:
    """A vector names the sections that it tests, has its steps in order, and uses the keys that its README explains."""
    vector = json.loads(path.read_text(encoding="utf-8"))
    assert vector["title"]
    assert vector["schema"] in (1, 2)
    assert vector.keys() <= {"title", "rules", "schema", "optional", "steps"}
    assert {rule.removeprefix("docs/protocol.md#") for rule in vector["rules"]} <= anchors(PAGE)
    assert [step["at"] for step in vector["steps"]] == sorted(step["at"] for step in vector["steps"])
    assert any("expect" in step for step in vector["steps"])
    explained = set(re.findall(r"`([\w.]+)`", README))
    for step in vector["steps"]:
        assert set(step) <= {
            "at",
            "send",
            "rejected",
            "restart",
            "cancel",
            "reason",
            "poll",
            "commands",
            "asks",
            "expect",
        }
        for wanted in step.get("expect", {}).get("operations", {}).values():
            assert set(wanted) <= explained
            assert set(wanted.get("progress", ())) <= explained


def test_vectors_of_what_a_reader_may_leave_out_are_optional() -> None:
    """A reader MAY correct a wait late, SHOULD end a refuted stall, and SHOULD say slow; without these it passes all others."""
    optional = {path.stem for path in VECTORS if json.loads(path.read_text(encoding="utf-8")).get("optional")}
    assert optional == {"wait-start-late", "late-batch", "slow-by-time-alone"}
    assert "`optional`" in README


def test_each_rule_of_a_reader_has_a_vector() -> None:
    """The sections that ask something of a reader are those that vectors are about."""
    tested = {rule.partition("#")[2] for path in VECTORS for rule in json.loads(path.read_text())["rules"]}
    asked = {
        title.lower().replace(" ", "-")
        for title, text in re.findall(r"^## (.+)\n((?:(?!^## ).*\n?)*)", PAGE, re.MULTILINE)
        if re.search(r"reader[^.|]*MUST", text)
    }
    assert asked <= tested | {"what-an-event-carries"}, asked - tested


OPTIONAL = ("keyframes-and-deltas", "run-series", "the-control-channel")
"""The sections with rules for emitters that only those need who do more."""


def test_rules_for_emitters_are_in_one_section() -> None:
    """What an emitter must do is in one section, the minimum first, and each sentence of the page stands there once."""
    sections = {
        title.lower().replace(" ", "-"): text
        for title, text in re.findall(r"^## (.+)\n((?:(?!^## ).*\n?)*)", PAGE, re.MULTILINE)
    }
    first, *others = sections
    assert first == "what-your-emitter-must-do"
    assert re.findall(r"^### (.+)$", sections[first], re.MULTILINE) == ["The minimum", "Beyond the minimum"]
    assert all(f"(#{name})" in sections[first] for name in OPTIONAL)
    for name in others:
        if name not in OPTIONAL:
            assert re.search(r"[Ee]mitter[^.|,]*\b(MUST|SHOULD)\b", sections[name]) is None, name
    sentences = [one.strip() for one in re.split(r"[.|\n]+\s", PAGE) if len(one.split()) > 5]
    assert len(sentences) == len(set(sentences))


def test_the_example_is_taken(monitor: Parts) -> None:
    """The request of the minimum is accepted without a mistake, and is a running operation with its count."""
    text = next(text for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL) if "resourceLogs" in text)
    answers: list[Acknowledgement] = []
    monitor.core.work([Job(Envelope("logs", text.encode(), is_json=True), answers.append, True)])
    assert answers == [Accepted()]
    row: dict[str, Any] = monitor.row("import-1")
    assert (row["state"], row["started_at"], row["progress"]["completed"]) == ("progressing", WALL, 40)
    assert monitor.core.mistakes.health() == {}


def test_commands_are_those_of_the_channel() -> None:
    """The kinds of commands, the states of answers and the words of a refusal are those of both ends."""
    section = PAGE.split("## The control channel", 1)[1].split("\n## ", 1)[0]
    for word in (cancel.CANCEL, cancel.CANCEL_OWNED, cancel.WARN, cancel.UNKNOWN_KIND, *cancel.STATES):
        assert f"`{word}`" in section
    assert {commands.CANCEL, commands.CANCEL_OWNED} == {cancel.CANCEL, cancel.CANCEL_OWNED}
    assert f"`{semconv.CONTROL_HEADER}`" in section
    assert f"{cancel.WAIT_MOST:.0f} at most" in section


def test_limits_are_those_of_the_monitor() -> None:
    """The limits on the page are those of the code."""
    section = PAGE.split("## Limits", 1)[1].split("\n## ", 1)[0]
    assert f"unpacked | {requests.LARGEST // 2**20} MiB" in section
    assert f"a record | {records.RECORD_BYTES // 1024} KiB" in section
    assert f"an id | {ledger.KEY_LENGTH:,} characters" in section
    assert f"a short text | {records.SHORT:,} characters" in section
    assert f"another text | {records.TEXT:,} characters" in section
    assert f"beside the state | {records.ATTRIBUTES} |" in section
