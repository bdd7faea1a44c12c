"""Which threads move: their lines of code changed since an earlier glance.

A thread at the same lines may stand or work: nothing is known of it.
"""

from __future__ import annotations

import sys
from collections import deque
from itertools import islice
from types import FrameType
from typing import Final

from otel_progress.live.diagnosis.source_lines import spot
from otel_progress.live.diagnosis.workers import THREADS, outward

APART: Final = 0.5
"""Seconds between two glances, at least."""
BEFORE: Final = 1.0
"""Seconds before a limit from which on threads are glanced at."""
LASTS: Final = 5.0
"""Seconds for which a glance is kept."""
FRAMES: Final = 64
"""Innermost frames of a thread that are compared."""

_glances: Final[deque[tuple[float, dict[int, int]]]] = deque(maxlen=3)
"""When the threads were glanced at (s, monotonic), and the digests of their lines."""


def glance(now: float) -> None:
    """Note the lines of all threads, to compare them soon; a call right after another one does nothing."""
    if not _glances or not 0.0 <= now - _glances[-1][0] < APART:
        frames = sys._current_frames()
        try:
            _glances.append((now, {ident: _lines(frame) for ident, frame in islice(frames.items(), THREADS)}))
        finally:
            frames.clear()


def forget() -> None:
    """Forget all glances, as another clock counts from here on."""
    _glances.clear()


def changed(ident: int, frame: FrameType, now: float) -> bool:
    """Whether the lines of a thread, which is in this frame, differ from those of an earlier glance."""
    before = {lines[ident] for at, lines in _glances if 0.0 <= now - at <= LASTS and ident in lines}
    return bool(before) and before != {_lines(frame)}


def _lines(frame: FrameType) -> int:
    """A digest of the user's lines in a stack; of all its lines if none is the user's."""
    spots = [spot(each) for each in islice(outward(frame), FRAMES)]
    mine = [(id(found.code), found.line) for found in spots if found.mine]
    return hash(tuple(mine or [(id(found.code), found.line) for found in spots]))
