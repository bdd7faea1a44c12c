"""What a request to mute an operation asks for."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from otel_progress.monitor.web.request_error import RequestError

BY: Final = 100
REASON: Final = 500
"""The most characters of who and why."""
LONGEST: Final = 30 * 86_400.0
"""The longest mute with a time, in seconds."""
_KEYS: Final = ("by", "reason", "until")
_EXAMPLE: Final = '{"by": "anna", "reason": "known, see the ticket", "until": 1790000000}'


class AskedMute(NamedTuple):
    """Who mutes, why, and until when (Unix seconds; None: until the operation ends)."""

    by: str | None = None
    reason: str | None = None
    until: float | None = None


def asked_mute(body: bytes, now: float) -> AskedMute:
    """Read the body of a request; an empty one asks for a mute until the operation ends.

    Raises:
        RequestError: if it is invalid; the text says how.
    """
    try:
        given = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise RequestError(400, f"send JSON, as in {_EXAMPLE}; each key may be left out")
    odd = next((key for key in given if key not in _KEYS), None)
    if odd is not None:
        raise RequestError(400, f"{odd[:50]!r} is not a key of a mute; it takes {', '.join(_KEYS)}")
    return AskedMute(_text(given, "by", BY), _text(given, "reason", REASON), _until(given.get("until"), now))


def _text(given: dict[str, Any], key: str, most: int) -> str | None:
    value = given.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > most:
        raise RequestError(400, f"{key} must be text of at most {most} characters")
    return value.strip() or None


def _until(value: Any, now: float) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not now < value <= now + LONGEST:
        raise RequestError(400, f"until must be a time in Unix seconds, at most {LONGEST / 86_400:g} days from now")
    return float(value)
