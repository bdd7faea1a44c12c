"""What a keyframe and a delta carry is the same in both pages, in the code that sends and in the code that reads."""

from __future__ import annotations

import re
from pathlib import Path

from otel_progress import semconv as s
from otel_progress.live.engine import keyframes
from otel_progress.model import deltas, wire
from otel_progress.monitor.intake import records

DOCS = Path(__file__).parents[2] / "docs"
NAMES = (DOCS / "semantic-conventions.md").read_text(encoding="utf-8")
PROTOCOL = (DOCS / "protocol.md").read_text(encoding="utf-8")
ORDER = {s.EVENT_NAME, s.SEQUENCE, s.KEYFRAME, s.UNSET}
"""What says which event it is."""


def section(page: str, title: str) -> str:
    """The text of a section."""
    return re.split(r"\n#+ ", page.split(f"# {title}\n", 1)[1], maxsplit=1)[0]


def named(text: str) -> set[str]:
    """The names of ours in a text."""
    return set(re.findall(r"`((?:progress|gen_ai)\.[\w.]+)`", text))


def paragraph(text: str, begin: str) -> str:
    """The paragraph that begins so."""
    return next(part for part in text.split("\n") if part.startswith(begin))


def of_events(text: str) -> set[str]:
    """The attributes of ours in tables that log events of operations have."""
    rows = re.findall(r"^\| `((?:progress|gen_ai)\.[\w.]+)` \|.*\| ([^|]*) \|$", text, re.MULTILINE)
    return {name for name, where in rows if "events" in where.split(", ")}


SINGLE = of_events(section(NAMES, "Attributes of single events"))
DELTAS = section(PROTOCOL, "Keyframes and deltas")
OF_EVENTS = named(next(line for line in DELTAS.split("\n") if line.startswith("1. "))) - {s.GEN_AI_AGENT}
"""The attributes that the protocol names as those of an event, beside those of single events."""


def test_state_is_what_the_pages_leave_to_it() -> None:
    """What describes the state is each documented attribute of events, but those that the protocol calls the event's."""
    documented = of_events(NAMES.split("\n## Attributes\n", 1)[1].split("\n## ", 1)[0])
    assert documented - SINGLE - OF_EVENTS - ORDER == wire.STATE


def test_attributes_of_single_events_are_those_that_the_code_keeps_with_them() -> None:
    """Each is read with its event, and none is a part of the state but those of a wait and of a verdict."""
    assert SINGLE - {s.ITEMS_UNSEEN} <= s.EVENT_ATTRIBUTES
    assert wire.STATE & set(records._OWN_IN) >= s.EVENT_ATTRIBUTES - SINGLE - OF_EVENTS


def test_events_that_are_keyframes_are_named_alike() -> None:
    """Both pages name the events that the code sends as keyframes, and no other."""
    for text in (paragraph(DELTAS, "`progress.operation.started`"), paragraph(NAMES, "Keyframes are `")):
        assert named(text.partition(". " if "MUST be" in text else "whatever")[0]) == keyframes.ALWAYS
        assert f"{keyframes.INTERVAL / 60:.0f} minutes" in text
        assert re.search(rf"more than {deltas.FEW} (changed )?stages", text)


def test_what_each_delta_carries_is_named_alike() -> None:
    """The page of names has what our SDK always sends; the protocol asks for that, but for what it may leave out."""
    ours = paragraph(NAMES, "A delta has always")
    first, rest = ours.split("; of the other attributes", 1)
    assert named(first) == {*deltas.ALWAYS, s.SEQUENCE, s.KEYFRAME}
    must = paragraph(DELTAS, "- `progress.operation.id`")
    assert named(must) == {*deltas.ALWAYS, s.SEQUENCE} - {s.STAGE_CURRENT, s.MESSAGE}
    assert named(rest) >= deltas.SLOW
