"""The guard around public functions; functions measured in nanoseconds have a `try` of their own instead."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import CodeType
from typing import Any, Final, TypeVar

from typing_extensions import ParamSpec

from otel_progress.errors import InvalidArgument, ProgressError
from otel_progress.live import misuse, preload
from otel_progress.live.guard import NOTHING_LEFT, swallow
from otel_progress.model.values import shown

P = ParamSpec("P")
R = TypeVar("R")
_GIVES_UP: Final = (*NOTHING_LEFT, AttributeError, TypeError, NameError)
"""Errors of the guard itself: no memory or frame is left, or its globals are gone at interpreter shutdown."""
_KEYWORDS: Final = 0x08


def public(
    returns: Any = None, *, makes: Callable[..., Any] | None = None, strict: bool = False, name: str | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Guard a public function, so that no error of ours leaves it.

    Args:
        returns: the return value after an error.
        makes: makes the return value after an error, from the arguments; written in C, so that it needs no frame.
        strict: whether unknown arguments raise `InvalidArgument`; otherwise the call is ignored with a warning, as a
            method of a running job never raises.
        name: the name that users know; that of the function by default.

    Example: `@public(returns=False)`
    """

    def decorate(fn: Callable[P, R]) -> Callable[P, R]:
        # Locals, as module globals may be gone when the interpreter shuts down.
        documented, failed, misused, gives_up = ProgressError, swallow, _misused, _GIVES_UP
        call = fn.__name__ if name is None else name

        @functools.wraps(fn)
        def guard(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return fn(*args, **kwargs)
            except documented:
                raise
            except BaseException as error:
                try:
                    if type(error) is TypeError and error.__traceback__.tb_next is None:  # type: ignore[union-attr]
                        misused(fn, call, error, kwargs, strict)
                    else:
                        failed(error, call)
                except gives_up as another:
                    if another is error:
                        raise
            try:
                return returns if makes is None else makes(*args, **kwargs)  # type: ignore[no-any-return]
            except gives_up:
                return returns  # type: ignore[no-any-return]

        return guard

    return decorate


def _misused(fn: Callable[..., Any], call: str, error: TypeError, given: dict[str, Any], strict: bool) -> None:
    """Report arguments that the function does not take."""
    code: CodeType = fn.__code__
    known = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    wrong = "" if code.co_flags & _KEYWORDS else next((key for key in given if key not in known), "")
    if wrong:
        text = f"there is no option {shown(wrong)}"
        near = preload.nearest(wrong, known)
        text += (
            f"; did you mean {near!r}?" if near else f"; it takes {', '.join(name for name in known if name != 'self')}"
        )
    else:
        text = str(error).partition("() ")[2] or str(error)
    if strict:
        raise InvalidArgument(f"{call}(): {text}")
    misuse.warn(call, "is ignored: %s", text)
