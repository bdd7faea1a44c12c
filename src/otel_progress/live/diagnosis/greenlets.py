"""Greenlets that take the place of threads, as in programs that gevent or eventlet has patched.

Each of them has an ident of its own, and Python lists the stack of none that is suspended.
"""

from __future__ import annotations

import sys
import weakref
from types import FrameType
from typing import Any, Final

_known: Final[weakref.WeakValueDictionary[int, Any]] = weakref.WeakValueDictionary()
"""The greenlets in which work was started, by ident."""


def note(ident: int) -> None:
    """Note the running greenlet if it is what this ident names; that of a thread is not."""
    greenlet = sys.modules.get("greenlet")
    running = None if greenlet is None else greenlet.getcurrent()
    if running is not None and id(running) == ident:
        _known[ident] = running


def frames() -> dict[int, FrameType]:
    """The innermost frame of each that is suspended, by ident."""
    found = {ident: one.gr_frame for ident, one in list(_known.items())}
    return {ident: frame for ident, frame in found.items() if frame is not None}
