"""JSON text inside attributes, made safe to send on.

A sender may put well-formed JSON into an attribute that would make our own responses ill-formed.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

DEPTH: Final = 20
"""The deepest nesting of values that is kept."""
BRACKETS: Final = 300
"""A text with more lists and objects than this may be nested too deep."""
_UNSAFE: Final = re.compile(
    r"\\u[dD][89a-fA-F]|(?<![0-9.a-f])[0-9]{16}|[0-9][eE][+]?[0-9]{3,}(?![0-9a-f])|NaN|Infinity"
)
"""JSON that strict parsers reject: unpaired surrogates, NaN and infinity, and numbers beyond 64 bits."""
_INT: Final = 2**63 - 1


def sound_json(text: Any) -> Any:
    """The JSON text without what strict parsers reject, and no deeper than `DEPTH`; `null` if it cannot be parsed."""
    if not isinstance(text, str) or not (_UNSAFE.search(text) or text.count("[") + text.count("{") > BRACKETS):
        return text
    try:
        return json.dumps(_sound(json.loads(text), 0), ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        return "null"


def _sound(value: Any, depth: int) -> Any:
    if depth > DEPTH:
        return None
    if isinstance(value, dict):
        return {_utf8(key): _sound(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_sound(item, depth + 1) for item in value]
    if isinstance(value, str):
        return _utf8(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return max(-_INT, min(value, _INT))
    return value


def whole_texts(value: Any) -> Any:
    """The value with a question mark for each unpaired surrogate in its texts."""
    if isinstance(value, dict):
        return {_utf8(key): whole_texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [whole_texts(item) for item in value]
    return _utf8(value) if isinstance(value, str) else value


def _utf8(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
