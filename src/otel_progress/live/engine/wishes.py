"""What a monitor wishes of this process without touching the job: all updates for a while, or whole events.

A wish is no command: nobody has to be allowed anything, and nobody waits for an answer. What the events of a process
may cost is bounded by its budget, whatever is wished.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from otel_progress.live.engine import keyframes
from otel_progress.live.engine.cadence import cadence

LIVE: Final = "live"
KEYFRAME: Final = "keyframe"
KNOWN: Final = (KEYFRAME, LIVE)
"""The wishes that this version knows."""
IDS: Final = 1_000
"""The most operations in one wish; further ones are ignored."""


def is_wish(given: object) -> bool:
    """Whether what a monitor sent is a wish."""
    return isinstance(given, Mapping) and "do" in given


def grant(wish: Mapping[str, Any]) -> None:
    """Do what is wished; an unknown wish is ignored.

    Raises:
        ValueError: if a wish is invalid; nothing is done then.
    """
    if wish["do"] == LIVE:
        seconds = wish.get("for")
        if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 < seconds < math.inf:
            raise ValueError("a live wish says for how many seconds")
        cadence.ask(None if wish.get("ids") is None else _ids(wish), seconds)
    elif wish["do"] == KEYFRAME:
        for key in _ids(wish):
            keyframes.request_id(key)


def _ids(wish: Mapping[str, Any]) -> list[str]:
    ids = wish.get("ids")
    if not isinstance(ids, list) or not all(isinstance(key, str) for key in ids):
        raise ValueError("a wish names operations")
    return ids[:IDS]
