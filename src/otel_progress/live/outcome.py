"""The outcome of an exception: the status it means, and its text."""

from __future__ import annotations

from itertools import islice
from typing import Final

from otel_progress.errors import OperationCancelled
from otel_progress.live import redaction
from otel_progress.live.guard import drops
from otel_progress.model import values
from otel_progress.model.origin import of_the_job
from otel_progress.model.status import Status

_CANCELLED = frozenset(
    {
        ("asyncio.exceptions", "CancelledError"),
        ("concurrent.futures._base", "CancelledError"),
        ("trio", "Cancelled"),
        ("trio._core._exceptions", "Cancelled"),
        ("greenlet", "GreenletExit"),
    }
)


NOTES: Final = 8
"""Notes of an exception that are read."""
INNER: Final = 32
"""Exceptions of a group whose notes are read."""
_READ: Final = slice(values.MESSAGE_LENGTH + redaction.MARGIN)
_OF_A_SCOPE = ("Cancelled via cancel scope ", "cancelled due to unknown")
"""How anyio and trio begin the message of a cancel without a reason; anyio's names objects in memory."""


def ending(error: BaseException | None) -> Status:
    """The status of a block left with this exception, or without one; safe for any exception."""
    if error is None:
        return Status.COMPLETED
    try:
        return _ending(error)
    except BaseException as broken:
        if of_the_job(broken):
            raise
        return Status.FAILED


def _ending(error: BaseException) -> Status:
    if isinstance(error, (OperationCancelled, GeneratorExit)):
        return Status.CANCELLED
    if isinstance(error, KeyboardInterrupt):
        return Status.INTERRUPTED
    if isinstance(error, SystemExit):
        well = error.code is None or (isinstance(error.code, int) and error.code == 0)
        return Status.COMPLETED if well else Status.INTERRUPTED
    if any((cls.__module__, cls.__name__) in _CANCELLED for cls in type(error).__mro__):
        return Status.CANCELLED
    return Status.FAILED


def message(error: BaseException, limit: int = values.MESSAGE_LENGTH) -> str:
    """The text of an exception, at most `limit` characters; empty if it has none or its `str` fails."""
    try:
        said = str.__str__(str(error))
    except BaseException as broken:
        if of_the_job(broken):
            raise
        return ""
    if said.startswith(_OF_A_SCOPE):
        return ""
    return said if len(said) <= limit else f"{said[: limit - 1]}…"


def hint_of(error: BaseException) -> str | None:
    """What the notes of an exception say (PEP 678), or those of the exceptions in a group, in one line; safe."""
    try:
        return _hint_of(error)
    except BaseException as broken:
        if of_the_job(broken):
            raise
        return None


def _hint_of(error: BaseException) -> str | None:
    lines: list[str] = []
    waiting, looked = [error], 0
    while looked < len(waiting) and len(lines) < NOTES:
        one = waiting[looked]
        looked += 1
        notes = getattr(one, "__notes__", None)
        for note in islice(notes, NOTES) if type(notes) is list else ():
            line = " ".join(str.__getitem__(note, _READ).split()) if isinstance(note, str) else ""
            if line and line not in lines:
                lines.append(line)
        inner = getattr(one, "exceptions", None)
        if type(inner) is tuple and len(waiting) < INNER:
            waiting += [each for each in inner[:INNER] if isinstance(each, BaseException)]
    return redaction.text("hint", "; ".join(lines)) if lines else None


def why(reason: str | None, asked: str | None) -> str | None:
    """Why something was cancelled: the reason of its end, or if that says nothing, of the request to stop."""
    if asked is None or reason not in (None, "CancelledError", "Cancelled"):
        return reason
    return f"cancelled: {asked}"


def words(error: BaseException | None) -> str | None:
    """An exception as one line."""
    if error is None:
        return None
    try:
        return _words(error)
    except BaseException as broken:
        if of_the_job(broken):
            raise
        return None


def _words(error: BaseException) -> str:
    name = values.text(type.__dict__["__name__"].__get__(type(error)), drops)  # whatever its metaclass says
    said = message(error, values.MESSAGE_LENGTH + redaction.MARGIN + 1)  # not all of a huge one is copied
    return redaction.text("exception", f"{name}: {said}" if said else name)
