"""Exceptions that nobody caught: they ended a thread, a child of multiprocessing, or this process."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from types import CodeType
from typing import Any, Final

from otel_progress.live.guard import tell_once

heard: Final[list[Callable[[BaseException], None]]] = []
"""Called with the exception that ends a thread, in that thread."""
_of_child: BaseException | None = None


def uncaught() -> BaseException | None:
    """The exception that ends this process, as nobody caught it; None while nobody knows of one."""
    if _of_child is not None:
        return _of_child
    if hasattr(sys, "ps1"):
        return None  # in a session at a prompt it ended nothing
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    return error if isinstance(error, BaseException) else None


def child_ends() -> None:
    """A child of multiprocessing ends: an exception that left its function is remembered.

    Call it in a finalizer, which runs while that exception is handled. One that the parent handled when it forked is
    none of the child's.
    """
    global _of_child
    error = sys.exc_info()[1]
    trace = None if error is None else error.__traceback__
    if trace is not None and trace.tb_frame.f_code is _bootstrap() and not isinstance(error, SystemExit):
        _of_child = error


def _bootstrap() -> CodeType | None:
    """The code of multiprocessing that handles what the function of a child raised."""
    process: Any = getattr(sys.modules.get("multiprocessing.process"), "BaseProcess", None)
    return getattr(getattr(process, "_bootstrap", None), "__code__", None)


@functools.cache
def watch_threads() -> None:
    """Have `heard` called for exceptions that end threads; what stood in `threading.excepthook` is called after it."""
    before = threading.excepthook

    @functools.wraps(before)
    def excepthook(args: threading.ExceptHookArgs, /) -> None:
        try:
            if args.exc_value is not None:
                for call in heard:
                    call(args.exc_value)
        except Exception:
            tell_once("the crash of a thread could not be told; the job goes on")
        before(args)

    threading.excepthook = excepthook
