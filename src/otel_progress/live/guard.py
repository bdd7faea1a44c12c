"""Keeps our own errors away from the job.

What passes is an exception of the job's own (`model/origin.py`), and a `ProgressError`, which is documented where it is
raised. Anything else is counted (`semconv.DROP_ERROR`) and logged once.
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
"""What even `swallow` may meet: no memory, or no frame, is left."""
KINDS: Final = 1_000
"""Kinds of errors that are logged; beyond this number they are only counted."""
_told: set[str] = set()


def say(text: str, *args: object, exc_info: bool = False) -> None:
    """Log a warning; what a handler of the user's raises reaches neither the job nor a thread of ours."""
    try:
        log.warning(text, *args, exc_info=exc_info or None)
    except BaseException as error:
        if of_the_job(error):
            raise


def tell_once(what: str, *args: object) -> None:
    """Count the exception that is being handled, and log it once for each kind of text; the job's own goes on."""
    error = sys.exc_info()[1]
    if error is not None and of_the_job(error):
        raise error
    drops.add(semconv.DROP_ERROR)
    if what not in _told and len(_told) < KINDS:
        _told.add(what)
        say(what, *args, exc_info=error is not None)


def swallow(error: BaseException, call: str) -> None:
    """Count an error of ours in a call, and log it once a call; raise the job's own, and documented ones, again.

    It never raises anything else, even where no frame or no memory is left.
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
