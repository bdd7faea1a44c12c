"""What a webhook posts: its own JSON, or a message of Slack, Microsoft Teams or Discord; pure.

Names, messages and reasons come from jobs, so they are data: no text of theirs mentions, links, formats or notifies
anybody. Slack gets them in `plain_text` objects, Teams in text runs, which know no markup; Discord has neither, so its
markup is escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from otel_progress.errors import InvalidArgument
from otel_progress.model import units
from otel_progress.model.sentences import conclusion

BODY_BYTES: Final = 256 * 1024
"""The largest body of a delivery."""
TEXT: Final = 1_000
"""The most characters of a message; services cut or refuse longer ones."""
FACT: Final = 300
"""The most characters of a fact."""
_GOOD: Final = frozenset({"recovered", "completed"})
_BAD: Final = frozenset({"failed", "lost", "dead", "frozen", "stuck", "looping", "stalled"})
_MILD: Final = frozenset({"overdue", "slow", "cancelled", "interrupted"})
_DISCORD: Final = re.compile(r"([\\*_~`|>#\-+\[\](){}.!<:])")
_COLOURS: Final = {"good": 0x2DA44E, "attention": 0xCF222E, "warning": 0xBF8700, "default": 0x6E7781}
_CARD: Final = "application/vnd.microsoft.card.adaptive"
_SCHEMA: Final = "http://adaptivecards.io/schemas/adaptive-card.json"

Json = dict[str, Any]


class Change:
    """One change of an operation, as a delivery tells it.

    Attributes:
        id: the id of the delivery.
        kind: the kind of the change.
        time: when the delivery was made, in Unix seconds.
        row: the row of the operation.
        event: the event, if there is one: its name, `timestamp`, `text`, `attributes`, maybe `stage`.
    """

    def __init__(
        self, id: str, kind: str, time: float, row: Mapping[str, Any], event: Mapping[str, Any] | None = None
    ) -> None:
        """Keep what was given."""
        self.id, self.kind, self.time, self.row, self.event = id, kind, time, row, event

    @property
    def text(self) -> str:
        """The change in one sentence."""
        said = None if self.event is None else self.event.get("text")
        return line(said if isinstance(said, str) and said else conclusion(self.row), TEXT)

    @property
    def tone(self) -> str:
        """`good`, `warning`, `attention`, or `default` for news without a judgement."""
        for word in (self.kind, str(self.row.get("state"))):
            for tone, words in (("good", _GOOD), ("attention", _BAD), ("warning", _MILD)):
                if word in words:
                    return tone
        return "default"

    def facts(self) -> list[tuple[str, str]]:
        """What helps to judge it: labels and values."""
        row = self.row
        where = " ".join(str(row[key]) for key in ("service", "host") if row.get(key))
        elapsed = row.get("elapsed")
        found = [
            ("progress", _progress(row.get("progress") or {})),
            ("left", _left(row)),
            ("stage", row.get("stage")),
            ("stuck at", row.get("stuck_at")),
            ("elapsed", None if elapsed is None else units.duration(elapsed)),
            ("runs on", f"{where} (pid {row['pid']})" if where and row.get("pid") else where),
            ("id", row.get("id")),
        ]
        return [(label, line(value, FACT)) for label, value in found if value]


def _progress(progress: Mapping[str, Any]) -> str:
    ratio, completed = progress.get("ratio"), progress.get("completed")
    parts = [
        units.percent(ratio) if ratio is not None else "",
        units.units(completed, progress.get("total"), progress.get("unit") or "item") if completed is not None else "",
    ]
    return ", ".join(part for part in parts if part)


def _left(row: Mapping[str, Any]) -> str:
    eta = (row.get("progress") or {}).get("eta")
    if not eta or row.get("ended"):
        return ""
    text = units.left(eta["seconds"], eta.get("low"), eta.get("high"))
    return units.remaining(text, waits=row.get("status") == "waiting", source=eta.get("source"))


def line(value: object, most: int) -> str:
    """The text on one line, without control characters and signs that change its direction, at most so long."""
    text = str(value)
    if not text.isprintable():
        text = "".join(sign if sign.isprintable() else " " for sign in text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def generic(change: Change) -> Json:
    """The JSON of our own: everything, for programs."""
    said = {"version": 1, "id": change.id, "kind": change.kind, "time": change.time, "operation": change.row}
    return said if change.event is None else {**said, "event": change.event}


def slack(change: Change) -> Json:
    """A message of Slack: an incoming webhook takes it."""
    text, facts = change.text, change.facts()
    fields = [_plain(f"{label}: {value}") for label, value in facts]
    return {
        "text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"),  # for notifications
        "blocks": [
            {"type": "section", "text": _plain(text)},
            {"type": "context", "elements": fields},
        ],
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _plain(text: str) -> Json:
    return {"type": "plain_text", "text": text, "emoji": False}


def teams(change: Change) -> Json:
    """An Adaptive Card: a Teams workflow "when a webhook request is received" posts it."""
    tone = change.tone
    title = _run(change.text, weight="Bolder", color=tone.capitalize())
    facts = [_runs(_run(f"{label}: ", isSubtle=True), _run(value)) for label, value in change.facts()]
    card = {"$schema": _SCHEMA, "type": "AdaptiveCard", "version": "1.4", "body": [_runs(title), *facts]}
    return {"type": "message", "attachments": [{"contentType": _CARD, "contentUrl": None, "content": card}]}


def _runs(*runs: Json) -> Json:
    return {"type": "RichTextBlock", "spacing": "Small", "inlines": list(runs)}


def _run(text: str, **style: object) -> Json:
    return {"type": "TextRun", "text": text, **style}


def discord(change: Change) -> Json:
    """A message of Discord that mentions nobody."""
    fields = [{"name": label, "value": _escaped(value), "inline": True} for label, value in change.facts()]
    embed = {"description": _escaped(change.text), "color": _COLOURS[change.tone], "fields": fields}
    return {"allowed_mentions": {"parse": []}, "embeds": [embed]}


def _escaped(text: str) -> str:
    """The text without Discord's markup; a sign of no width after `@` keeps it from looking like a mention."""
    return _DISCORD.sub(r"\\\1", text).replace("@", "@\u200b")


FORMATS: Final[Mapping[str, Callable[[Change], Json]]] = {
    "generic": generic,
    "slack": slack,
    "teams": teams,
    "discord": discord,
}
"""Formats of a body by name."""


def checked(format: str) -> str:
    """The format, if there is one of this name.

    Raises:
        InvalidArgument: if there is none.
    """
    if format not in FORMATS:
        raise InvalidArgument(f"format must be {', '.join(FORMATS)}, not {format!r}")
    return format


def body(format: str, change: Change) -> bytes | None:
    """The body of a delivery, without the event if it would be too large; None if it still is, or is no JSON."""
    try:
        found = _json(FORMATS[format](change))
        if len(found) > BODY_BYTES:
            found = _json(FORMATS[format](Change(change.id, change.kind, change.time, change.row)))
    except Exception:
        return None
    return found if len(found) <= BODY_BYTES else None


def _json(value: object) -> bytes:
    """JSON in UTF-8; halves of surrogate pairs, which UTF-8 can't express, become `?`."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=str)
    return text.encode("utf-8", "replace")
