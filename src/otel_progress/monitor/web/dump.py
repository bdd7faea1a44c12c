"""JSON text on one line that every reader accepts."""

from __future__ import annotations

import json
import math
from typing import Any, Final

DEPTH: Final = 40
"""The deepest nesting of values."""
_LINE_ENDS: Final = "\x85\u2028\u2029"
_dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def dump(value: object) -> str:
    """JSON text on one line; what JSON cannot express becomes null or a description."""
    try:
        text = _dump(value)
    except (ValueError, TypeError, RecursionError):
        text = json.dumps(_sane(value), ensure_ascii=False, separators=(",", ":"))
    return text if text.isascii() else _plain(text)


def _plain(text: str) -> str:
    """The text without unpaired surrogates, and with characters escaped that some readers take for a line end."""
    for end in _LINE_ENDS:
        if end in text:
            text = text.replace(end, f"\\u{ord(end):04x}")
    return text.encode("utf-8", "replace").decode()


def _sane(value: Any, depth: int = 0) -> Any:
    if depth > DEPTH:
        return "…"
    if isinstance(value, dict):
        return {str(key): _sane(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_sane(item, depth + 1) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool)) or value is None else repr(value)
