"""Warnings about wrong use, logged once for each line of the user's code.

Methods of a running job never raise. They ignore what they can't use, and log it here.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from otel_progress.live import redaction
from otel_progress.live.guard import drops, say
from otel_progress.model import values
from otel_progress.model.values import Number, shown

if TYPE_CHECKING:
    from otel_progress.live.state import HandleState

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
    """Log a warning about an operation or a stage, once for each kind and name; for when no line of code is known."""
    _once((kind, name, 0), text, *args)


def refused(call: str, option: str, value: object, wanted: str = "a number of at least 0") -> None:
    """Warn about an invalid value given to a method of a running job."""
    warn(call, "is ignored: %s must be %s, not %s", option, wanted, redaction.masked("value", shown(value)))


def too_early(node: HandleState, call: str) -> None:
    """Warn that a handle was used before its start, unless it started outside of any operation."""
    if node._started is None and not node._warned_outside:
        warn(
            call,
            "comes before the start of %s %r, so nobody sees it; call start() first, or open it with 'with'",
            node._kind,
            node.name,
        )


def too_late(node: HandleState, call: str) -> bool:
    """Whether a handle has ended, so that a call changes nothing; warns about it."""
    if not node._status.final:
        return False
    warn(call, "is ignored: %s %r has ended (%s), and its figures are final", node._kind, node.name, node._status.value)
    return True


def advanced_late(node: HandleState) -> None:
    """Warn that `advance` was called after the end of a handle; the call itself does not check, for speed."""
    warn_of(
        "late",
        f"{node.operation.name}/{node._path or ''}",
        "advance() is ignored after the end of %s %r: its figures are final; call it inside the 'with' block",
        node._kind,
        node.name,
    )


def accepted(call: str, option: str, value: object) -> Number | None:
    """A number of at least 0 given to a method of a running job; None, with a warning, if it is anything else."""
    known = values.count(value, drops)
    if known is None:
        refused(call, option, value)
    return known


def _once(site: tuple[str, str, int], text: str, *args: object) -> None:
    if site in _told or len(_told) > SITES:
        return
    _told.add(site)
    if len(_told) > SITES:
        say("wrong use at more than %d places: no more of them are logged", SITES)
    else:
        say(text, *args)
