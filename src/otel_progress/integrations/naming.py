"""Names of work that names itself only in words: few values, as they are labels of metrics."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import FrameType

LIBRARIES: Final = frozenset({"tqdm", "rich", "functools", "contextlib", "otel_progress"})
"""Packages whose functions make bars for somebody else."""
UUID_DASHES: Final = 4
_MARKUP: Final = re.compile(r"\[/?[a-z#@][^\]]*\]")
_UUID: Final = re.compile(
    r"[ _:/-]?(?<![0-9a-f])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9a-f])", re.IGNORECASE
)
_NUMBERS: Final = re.compile(r"[\d.,:/%|()\[\]#]*\d[\d.,:/%|()\[\]#]*")


def plain(words: str) -> str:
    """Words without rich's markup."""
    return _MARKUP.sub("", words).strip()


def without_ids(name: str) -> str:
    """A name without the UUID in it, as in CrewAI's `Crew_….kickoff`; as it is if nothing else is left."""
    return _UUID.sub("", name) or name if name.count("-") >= UUID_DASHES else name


def named(words: str, frame: FrameType | None) -> str:
    """Words without their numbers, else the function that called from this frame, else its file."""
    kept = " ".join(_NUMBERS.sub(" ", words).split()).strip(" -:_.")
    if kept:
        return kept
    while frame is not None and frame.f_back is not None and _is_library(frame):
        frame = frame.f_back
    if frame is None:
        return "work"
    function = frame.f_code.co_name
    return PurePath(frame.f_code.co_filename).stem if function.startswith("<") else function


def _is_library(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in LIBRARIES
