"""Keeps our own errors away from the job."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TypeVar

from typing_extensions import ParamSpec

from otel_progress.errors import ProgressError

P = ParamSpec("P")
log = logging.getLogger("otel_progress")
_told: set[str] = set()


def say(text: str, *args: object, exc_info: bool = False) -> None:
    """Log a warning; what a handler of the user's raises reaches neither the job nor a thread of ours."""
    try:
        log.warning(text, *args, exc_info=exc_info or None)
    except Exception:
        return


def tell_once(what: str, *args: object) -> None:
    """Log the exception that is being handled, once for each kind of text."""
    if what not in _told:
        _told.add(what)
        say(what, *args, exc_info=True)


R = TypeVar("R")


def guarded(fn: Callable[P, None]) -> Callable[P, None]:
    """The function, but an error of ours in it is logged once instead of reaching the job."""

    @functools.wraps(fn)
    def guard(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            fn(*args, **kwargs)
        except ProgressError:
            raise
        except Exception:
            tell_once(f"telemetry failed in {fn.__qualname__}; the job goes on")

    return guard
