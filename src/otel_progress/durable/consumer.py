"""Who takes the items of a loop: a loop with a body, or a comprehension or a call that has all of them at once."""

from __future__ import annotations

import dis
from functools import lru_cache
from types import CodeType, FrameType
from typing import Final

COLLECTS: Final = frozenset({"LIST_APPEND", "SET_ADD", "MAP_ADD"})
"""What a comprehension does with each item, last."""
_COMPREHENSIONS: Final = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>"})
"""Frames of comprehensions, up to Python 3.11."""
ALL_AT_ONCE: Final = frozenset({"LIST_EXTEND", "SET_UPDATE", "UNPACK_SEQUENCE", "UNPACK_EX", "CALL_FUNCTION_EX"})
"""Instructions that take all items: `[*items]`, `f(*items)`, `a, b = items`."""


def collects(frame: FrameType | None) -> bool:
    """Whether the code that takes an item puts all of them into a collection before it goes on."""
    if frame is None:
        return False
    code = frame.f_code
    return code.co_name in _COMPREHENSIONS or _collects(code, frame.f_lasti)


@lru_cache(256)
def _collects(code: CodeType, at: int) -> bool:
    steps = list(dis.get_instructions(code))
    here = next((number for number, step in enumerate(steps) if step.offset == at), None)
    if here is None:
        return False
    if steps[here].opname in ALL_AT_ONCE:
        return True
    if steps[here].opname != "FOR_ITER":
        return False
    pairs = zip(steps[here:], steps[here + 1 :], strict=False)
    heads = (before for before, step in pairs if "JUMP" in step.opname and step.argval == at)  # back to the head
    return any(before.opname in COLLECTS for before in heads)
