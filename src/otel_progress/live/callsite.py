"""Warnings about wrong use: in the log, once for each place in the user's code.

Methods of a running job never raise. What they can't use they leave out, and say so here.
"""

from __future__ import annotations

import sys
from typing import Final

from otel_progress.live import redaction
from otel_progress.live.guard import say
from otel_progress.model.values import shown

SITES: Final = 1000
"""Call sites that are remembered; beyond this number no more warnings are logged."""
_told: Final[set[tuple[str, str, int]]] = set()


def warn(call: str, text: str, *args: object) -> None:
    """Log a warning about a call, once for each kind of it and line of the user's code: `call() at file:line text`.

    Args:
        call: the function that was called.
        text: what is wrong, and what to do; a format for `args`.
        args: what the text names.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("otel_progress."):
        frame = frame.f_back
    where = frame.f_code.co_filename, frame.f_lineno
    _once((f"{call} {text}", *where), "%s() at %s:%d " + text, call, *where, *args)


def warn_of(kind: str, name: str, text: str, *args: object) -> None:
    """Log a warning about an operation or a stage, once for each kind and name, where no line of code is known."""
    _once((kind, name, 0), text, *args)


def refused(call: str, option: str, value: object, wanted: str = "a number of at least 0") -> None:
    """Warn of a value that a method of a running job can't use."""
    warn(call, "is ignored: %s must be %s, not %s", option, wanted, redaction.masked("value", shown(value)))


def _once(site: tuple[str, str, int], text: str, *args: object) -> None:
    if site in _told or len(_told) > SITES:
        return
    _told.add(site)
    if len(_told) > SITES:
        say("wrong use at more than %d places: no more of them are named", SITES)
    else:
        say(text, *args)
