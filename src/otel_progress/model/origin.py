"""Origin of an exception: the job's own, which must reach the job, or one of ours, which must not.

During a call of ours, code of the job may run: a signal handler, an exception set by another thread, a special method
(`__str__`, `__eq__`, ...) of a value that the job passed. What a handler or another thread raises belongs to the job: a
time limit, Ctrl+C. What a special method raises does not, as the job did not call it.
"""

from __future__ import annotations

import functools
import opcode
import signal
import sys
from types import CodeType, FrameType, FunctionType, MethodType, TracebackType
from typing import Final

_RAISES: Final = opcode.opmap["RAISE_VARARGS"]
_getsignal: Final = sys.modules["_signal"].getsignal
"""The function of the C module: `signal.getsignal` makes an enum of each result, which takes twenty times as long."""
_WRAPPED: Final = 8
"""Wrappers that are unwrapped to find the code of a signal handler."""
_OURS: Final = "otel_progress."
_OTHERS: Final = frozenset({"otel_progress", "opentelemetry", "google", "grpc", "requests", "urllib3", "wrapt", "rich"})
"""Packages that we call besides the standard library; we handle their errors."""


def of_the_job(error: BaseException) -> bool:
    """Whether an exception that was caught inside a call of ours belongs to the job.

    True if a signal handler raised it, if another thread set it with `PyThreadState_SetAsyncExc`, and for
    KeyboardInterrupt, SystemExit and similar exceptions unless a special method of a value raised them.
    """
    handlers: set[CodeType] | None = None
    special = False
    before: FrameType | None = None
    last: TracebackType | None = error.__traceback__
    step = last
    while step is not None:
        frame = step.tb_frame
        if before is not None:
            handlers = _handlers() if handlers is None else handlers
            if frame.f_code in handlers or _interrupted(frame, before):
                return True
        special = special or _is_foreign(frame)
        before, last, step = frame, step, step.tb_next
    if last is None:
        return not isinstance(error, Exception)
    if isinstance(error, Exception):
        return not special and _was_set(error, last)
    return not special or (isinstance(error, KeyboardInterrupt) and not _raised(last))


def _handlers() -> set[CodeType]:
    """Return the code objects of the current signal handlers."""
    found: set[CodeType] = set()
    for number in range(1, signal.NSIG):
        handler = _getsignal(number)
        if handler is not None and type(handler) is not int:
            found |= _codes(handler)
    return found


def _codes(handler: object) -> set[CodeType]:
    """Return the code that a call runs, also behind partials, methods and decorators."""
    found: set[CodeType] = set()
    for _ in range(_WRAPPED):
        kind = type(handler)
        if kind is functools.partial:
            handler = handler.func  # type: ignore[attr-defined]
        elif kind is MethodType:
            handler = handler.__func__  # type: ignore[attr-defined]
        elif kind is FunctionType:
            found.add(handler.__code__)  # type: ignore[attr-defined]
            handler = vars(handler).get("__wrapped__")
        else:
            handler = None if handler is None else kind.__dict__.get("__call__")
            if type(handler) is not FunctionType:
                break
    return found


def _interrupted(frame: FrameType, before: FrameType) -> bool:
    """Whether this is a signal handler: one of its values is the frame that it interrupted."""
    if frame.f_code.co_argcount == 0 and not frame.f_code.co_flags & 0x04:
        return False
    if frame.f_globals.get("__name__", "").startswith(_OURS):
        return False
    values = tuple(frame.f_locals.values())
    return any(one is before or (type(one) is tuple and any(part is before for part in one)) for one in values)


def _is_foreign(frame: FrameType) -> bool:
    """Whether this is code of the job. Unless it is a signal handler, it runs under a special method of a value."""
    return not _is_known(str(frame.f_globals.get("__name__", "")))


def _is_known(module: str) -> bool:
    """Whether this module is ours, from the standard library, or from a package that we call."""
    package = module.partition(".")[0]
    return package in _OTHERS or package in sys.stdlib_module_names


def _was_set(error: Exception, last: TracebackType) -> bool:
    """Whether another thread set it: no code raised it, and no package that we call defines its type."""
    return not _is_known(str(type(error).__module__)) and not _raised(last)


def _raised(last: TracebackType) -> bool:
    """Whether a `raise` statement raised it."""
    return last.tb_lasti >= 0 and last.tb_frame.f_code.co_code[last.tb_lasti] == _RAISES
