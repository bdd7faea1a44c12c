"""The guard: errors of ours never reach the job; they are counted and logged once, as is what limits drop.

Only the job's own exceptions (`model/origin.py`) and documented `ProgressError`s propagate. Any other error is counted
as `semconv.DROP_ERROR`.
"""

from __future__ import annotations

import logging
import sys
from typing import Final

from otel_progress import semconv
from otel_progress.errors import ProgressError
from otel_progress.model.origin import of_the_job
from otel_progress.model.values import Drops

log = logging.getLogger("otel_progress")
drops: Final = Drops()
"""What the limits of this process dropped, by reason; a metric and the process's heartbeat report it."""
NOTHING_LEFT: Final = (MemoryError, RecursionError)
"""Errors that even `swallow` may raise: no memory, or no frame, is left."""
KINDS: Final = 1_000
"""Kinds of errors that are logged; beyond this number they are only counted."""
_told: set[str] = set()


def say(text: str, *args: object, exc_info: bool = False) -> None:
    """Log a warning; errors of the user's logging handlers reach neither the job nor our threads."""
    try:
        log.warning(text, *args, exc_info=exc_info or None)
    except BaseException as error:
        if of_the_job(error):
            raise


def tell_once(what: str, *args: object, trace: bool = True) -> None:
    """Count the exception being handled, and log it once for each text; raise it if it is the job's own.

    Args:
        what: the text.
        args: what is filled in.
        trace: whether its traceback is logged; not for what is wrong outside this process.
    """
    error = sys.exc_info()[1]
    if error is not None and of_the_job(error):
        raise error
    drops.add(semconv.DROP_ERROR)
    if what not in _told and len(_told) < KINDS:
        _told.add(what)
        say(what, *args, exc_info=trace and error is not None)


def swallow(error: BaseException, call: str) -> None:
    """Count an error of ours in a public call, and log it once for each call; raise the job's own and documented ones.

    It never raises anything else, even if no frame or memory is left.
    """
    if isinstance(error, ProgressError):
        raise error
    try:
        passes = of_the_job(error)
    except Exception:
        passes = not isinstance(error, Exception)
    if passes:
        raise error
    try:
        tell_once(f"telemetry failed in {call}; the job goes on")
    except NOTHING_LEFT:
        return
    except BaseException as another:
        if of_the_job(another):
            raise
