"""What a hook of Claude Code posts: the fields that are read, checked. Whatever else it holds is ignored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from otel_progress.model.values import finite
from otel_progress.monitor.intake.requests import Refused

ID: Final = 200
"""The most characters of an id."""
NAME: Final = 100
"""The most characters of a name that is kept."""
TEXT: Final = 200
"""The most characters of a text that is kept."""
DIGITS: Final = 8
"""Hexadecimal digits of the hash of an input."""


@dataclass(frozen=True)
class HookEvent:
    """One event of a session.

    Attributes:
        session: the id of the session.
        name: the name of the event, such as `PreToolUse`.
        agent: the id of the sub-agent that it happened in; None for the main agent.
        agent_type: the kind of that sub-agent.
        tool: the name of the tool.
        tool_use: the id of the call of the tool; None if the event has none.
        input_hash: a hash of the input of the tool, which does not reveal it.
        input_text: the input of the tool as JSON.
        timeout: the time limit that the input gives the tool, in seconds.
        duration: how long the call took, in seconds, if it was said.
        text: why it failed, what is asked for, or why the session ended.
        kind: the kind of a notification.
        interrupted: whether the user interrupted the tool.
        folder: the working directory.
    """

    session: str
    name: str
    agent: str | None = None
    agent_type: str | None = None
    tool: str = "tool"
    tool_use: str | None = None
    input_hash: str = ""
    input_text: str = ""
    timeout: float | None = None
    duration: float | None = None
    text: str = ""
    kind: str = ""
    interrupted: bool = False
    folder: str | None = None


def read(body: bytes) -> HookEvent:
    """Read the body of a request.

    Raises:
        Refused: if it is no JSON object, or lacks what each event has; the text names the field.
    """
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:TEXT]
        raise Refused(400, f"the body is not valid JSON: {why}") from None
    if not isinstance(given, dict):
        raise Refused(400, f"the body must be a JSON object, not {type(given).__name__}")
    tool_input = given.get("tool_input")
    has_input = isinstance(tool_input, dict)
    text = json.dumps(tool_input, sort_keys=True, ensure_ascii=False) if has_input else ""
    timeout = tool_input.get("timeout") if isinstance(tool_input, dict) else None
    return HookEvent(
        session=_needed(given, "session_id"),
        name=_needed(given, "hook_event_name"),
        agent=_text(given, "agent_id", ID),
        agent_type=_text(given, "agent_type", NAME),
        tool=(_text(given, "tool_name", NAME) or "tool").replace("/", "∕"),  # noqa: RUF001  # it would part a path
        tool_use=_text(given, "tool_use_id", ID),
        input_hash=hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:DIGITS] if has_input else "",
        input_text=_clean(text[: 4 * TEXT]),
        timeout=_seconds(timeout),
        duration=_seconds(given.get("duration_ms")),
        text=_first(given, "error_message", "error", "message", "reason"),
        kind=_text(given, "notification_type", NAME) or "",
        interrupted=given.get("is_interrupt") is True,
        folder=_text(given, "cwd", 1_000),
    )


def _needed(given: Mapping[str, Any], key: str) -> str:
    value = given.get(key)
    if value is None:
        raise Refused(400, f"{key} is missing: is this a hook of Claude Code?")
    if not isinstance(value, str) or not value or len(value) > ID:
        raise Refused(400, f"{key} must be a text of 1 to {ID} characters")
    return _clean(value)


def _text(given: Mapping[str, Any], key: str, most: int) -> str | None:
    value = given.get(key)
    return _clean(value[:most]) or None if isinstance(value, str) else None


def _first(given: Mapping[str, Any], *keys: str) -> str:
    return next((found for key in keys if (found := _text(given, key, 4 * TEXT))), "")


def _clean(text: str) -> str:
    """The text without lone surrogates, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def _seconds(given: object) -> float | None:
    """A number of milliseconds as seconds; None if it is none."""
    return given / 1000 if isinstance(given, (int, float)) and finite(given) and given > 0 else None
