"""What each service gets: the change in one sentence, its facts, and no markup that a job could smuggle in."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from otel_progress.errors import InvalidArgument
from otel_progress.outbound import payloads
from otel_progress.outbound.payloads import BODY_BYTES, FORMATS, Change, body

ROW: dict[str, Any] = {
    "id": "survey-1",
    "name": "survey",
    "status": "running",
    "state": "stuck",
    "verdict": {"health": "stuck", "reason": "no progress for 192 s, stall_after is 45 s"},
    "stage": "load",
    "stuck_at": "job.py:7 in fetch",
    "elapsed": 312.4,
    "service": "backup",
    "host": "vm1",
    "pid": 42,
    "progress": {"ratio": 0.42, "completed": 420, "total": 1000, "unit": "file", "eta": {"seconds": 240.0}},
}
EVENT = {"event": "progress.stalled", "timestamp": 1.0, "text": "survey: stuck in load: no progress", "attributes": {}}
EVIL = "<!channel> <@U1> @everyone @here </b><script>alert(1)</script> *b* _i_ ~s~ `c` [x](https://evil.example) <at>a</at> # h | t || s ||"


def said(format: str, row: dict[str, Any] = ROW, event: dict[str, Any] | None = EVENT, kind: str = "stalled") -> Any:
    made = body(format, Change("d1", kind, 1.5, row, event))
    assert made is not None
    return json.loads(made)


def texts(value: Any) -> list[str]:
    """All texts inside."""
    if isinstance(value, dict):
        return [text for one in value.values() for text in texts(one)]
    if isinstance(value, list):
        return [text for one in value for text in texts(one)]
    return [value] if isinstance(value, str) else []


def test_generic_holds_everything() -> None:
    """Programs get the row and the event as they are."""
    assert said("generic") == {
        "version": 1, "id": "d1", "kind": "stalled", "time": 1.5, "operation": ROW, "event": EVENT
    }  # fmt: skip
    assert "event" not in said("generic", event=None)


@pytest.mark.parametrize("format", ["slack", "teams", "discord"])
def test_people_get_the_sentence_and_what_helps_to_judge(format: str) -> None:
    """The same words as on every screen: sentence, progress, time left, stage, line, elapsed, place, id."""
    whole = re.sub(r"\\(.)", r"\1", "\n".join(texts(said(format))))
    for words in (
        "survey: stuck in load: no progress",
        "42%, 420 of 1,000 files",
        "about 4 min left",
        "load",
        "job.py:7 in fetch",
        "5 min 12 s",
        "backup vm1 (pid 42)",
        "survey-1",
    ):
        assert words in whole


def test_a_conclusion_has_a_sentence_without_an_event() -> None:
    """What the monitor concluded is told by the row."""
    assert said("slack", event=None)["text"] == "survey: stuck: no progress for 3 min 12 s, stall_after is 45 s"
    lost = {"id": "a", "name": "a", "state": "lost", "ended": True, "elapsed": 60.0, "reason": "killed by SIGKILL"}
    assert said("slack", lost, None, "lost")["text"] == "a lost after 1 min (killed by SIGKILL)"
    assert said("slack", {**ROW, "verdict": None, "state": "progressing"}, None)["text"] == "survey: progressing"


def test_slack_has_no_markup_but_in_the_notification() -> None:
    """Texts of jobs are `plain_text` without emoji; the text of the notification is escaped."""
    row = {**ROW, "stage": EVIL, "name": EVIL}
    found = said("slack", row, {**EVENT, "text": EVIL})
    assert "<" not in found["text"]
    assert found["text"].startswith("&lt;!channel&gt; &lt;@U1&gt;")
    section, context = found["blocks"]
    for one in (section["text"], *context["elements"]):
        assert (one["type"], one["emoji"]) == ("plain_text", False)
    assert len(context["elements"]) <= 10


def test_teams_has_texts_without_markup() -> None:
    """Texts of jobs stand in text runs, which show markup as it is; the card is what Workflows takes."""
    found = said("teams", {**ROW, "stage": EVIL}, {**EVENT, "text": EVIL})
    (attachment,) = found["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert {block["type"] for block in card["body"]} == {"RichTextBlock"}
    assert {run["type"] for block in card["body"] for run in block["inlines"]} == {"TextRun"}
    assert card["body"][0]["inlines"][0]["color"] == "Attention"


def test_discord_mentions_nobody_and_formats_nothing() -> None:
    """No mention is parsed, and every sign of its markup is escaped."""
    found = said("discord", {**ROW, "stage": EVIL}, {**EVENT, "text": EVIL})
    assert found["allowed_mentions"] == {"parse": []}
    (embed,) = found["embeds"]
    for text in (embed["description"], *(field["value"] for field in embed["fields"])):
        assert not re.search(r"(?<!\\)[*_~`|<>\[\]()#]", text)
        assert "@everyone" not in text
        assert "https:" not in text


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "name", ["", "a\nb", "a\x00b", "\u202egnp.exe", "\ud800", "x" * 100_000, "\U0001f600" * 2_000, "{0} %s ${x}"]
)
def test_any_text_is_bounded_and_valid(format: str, name: str) -> None:
    """Line breaks, control characters, halves of surrogates and huge texts: the body is UTF-8, JSON, and within limits."""
    row = {**ROW, "name": name, "stage": name, "reason": name, "stuck_at": name, "id": name or "x"}
    made = body(format, Change("d", "failed", 1.0, row, {**EVENT, "text": name}))
    assert made is None or json.loads(made.decode())
    if format != "generic":
        assert made is not None
        assert len(made) < 24_000  # Teams takes 28 kB
        assert not any(sign in text for text in texts(json.loads(made)) for sign in "\n\x00\u202e")


@pytest.mark.parametrize(
    ("kind", "row", "tone"),
    [
        ("ended", {"state": "completed"}, "good"),
        ("ended", {"state": "cancelled"}, "warning"),
        ("recovered", {"state": "progressing"}, "good"),
        ("failed", {"state": "failed"}, "attention"),
        ("overdue", {"state": "overdue"}, "warning"),
        ("updated", {"state": "progressing"}, "default"),
        ("updated", {"state": "stuck"}, "attention"),
    ],
)
def test_the_tone_says_how_bad_it_is(kind: str, row: dict[str, Any], tone: str) -> None:
    """By the kind, else by the state."""
    assert Change("d", kind, 1.0, row).tone == tone


def test_what_does_not_fit_loses_the_event_first() -> None:
    """A body beyond the limit has no event; if the row alone is too large, there is none."""
    huge = {**EVENT, "text": "x" * BODY_BYTES}
    assert "event" not in said("generic", event=huge)
    assert body("generic", Change("d", "failed", 1.0, {"message": "x" * BODY_BYTES})) is None
    with pytest.raises(InvalidArgument, match="format must be generic, slack, teams, discord, not 'irc'"):
        payloads.checked("irc")
