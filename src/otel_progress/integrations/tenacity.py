"""tenacity, and stamina, which is made of it: a pause before a retry is a declared wait, and each failure is a note."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Final

from otel_progress.integrations.switch import Patch, Switch
from otel_progress.live.late import running_here
from otel_progress.live.late_waits import waiting_here

LIBRARY: Final = "tenacity"
TESTED: Final = ("8.2", "10")
MODULES: Final = ("tenacity",)
REASON: Final = "retry"
_switch = Switch("tenacity")
_patched: Any = None
_plain: Any = None
_given_up: Final = Patch()


def install() -> None:
    """Patch the classes of a retry and its state.

    Raises:
        AttributeError: if there are no such classes or methods.
    """
    global _patched, _plain
    library = sys.modules["tenacity"]
    if _patched is not library:
        retrying, state = library.BaseRetrying, library.RetryCallState
        _plain = state.prepare_for_next_attempt
        _given_up.put(library.RetryError, {"__init__": _giving_up})
        state.prepare_for_next_attempt = _prepare(_plain)
        retrying.sleep = _Sleep()
        _patched = library
    _switch.on = True


def uninstall() -> None:
    """Restore the classes."""
    global _patched
    _switch.on = False
    library, _patched = _patched, None
    if library is not None:
        library.RetryCallState.prepare_for_next_attempt = _plain
        del library.BaseRetrying.sleep
        _given_up.restore()


class _Sleep:
    """The attribute `sleep` of a retry: the function that it was given, which waits when tenacity itself takes it."""

    def __get__(self, retry: Any, owner: Any = None) -> Any:
        if retry is None:
            return self
        try:
            given = vars(retry)["sleep"]
        except KeyError:
            raise AttributeError("sleep") from None
        caller = str(sys._getframe(1).f_globals.get("__name__", ""))
        if not _switch.on or caller.partition(".")[0] != LIBRARY:
            return given
        return _Pausing(given, inspect.iscoroutinefunction(type(retry).__call__))

    def __set__(self, retry: Any, given: Any) -> None:
        vars(retry)["sleep"] = given.sleep if isinstance(given, _Pausing) else given

    def __delete__(self, retry: Any) -> None:
        del vars(retry)["sleep"]


class _Pausing:
    """Sleeps in a declared wait of what runs here."""

    __slots__ = ("is_async", "sleep")

    def __init__(self, sleep: Callable[[float], Any], is_async: bool) -> None:
        self.sleep = sleep
        self.is_async = is_async

    def __repr__(self) -> str:
        return repr(self.sleep)

    def __call__(self, seconds: float) -> Any:
        if self.is_async:
            return _pause(self.sleep(seconds))
        wait = _wait()
        if wait is None:
            return self.sleep(seconds)
        with wait:
            return self.sleep(seconds)


async def _pause(sleeping: Awaitable[Any]) -> Any:
    wait = _wait()
    if wait is None:
        return await sleeping
    with wait:
        return await sleeping


def _wait() -> Any:
    """A declared wait; None where nothing runs, or where the program declares one itself."""
    try:
        return waiting_here(REASON)
    except BaseException:
        _switch.failed()
        return None


def _prepare(plain: Any) -> Any:
    def prepare_for_next_attempt(self: Any) -> Any:
        if _switch.on:
            try:
                _tell(self)
            except BaseException:
                _switch.failed()
        return plain(self)

    return wraps(plain)(prepare_for_next_attempt)


def _giving_up(plain: Any) -> Any:
    def __init__(self: Any, last_attempt: Any) -> None:  # noqa: N807
        if _switch.on:
            try:
                _tell_last(last_attempt)
            except BaseException:
                _switch.failed()
        plain(self, last_attempt)

    return __init__


def _tell_last(attempt: Any) -> None:
    """Note what failed last: the text of a `RetryError` has only its type."""
    node = running_here()
    if node is None or node._waits:
        return
    error = attempt.exception() if attempt.failed else None
    why = "" if error is None else f": {type(error).__name__}: {error}"
    node.note(f"gave up after try {attempt.attempt_number}{why}", "warning")


def _tell(state: Any) -> None:
    """Note what failed, and when it is tried again."""
    node = running_here()
    if node is None or node._waits:
        return
    outcome = state.outcome
    error = outcome.exception() if outcome is not None and outcome.failed else None
    what = getattr(state.fn, "__name__", None) or "attempt"
    why = "" if error is None else f": {type(error).__name__}: {error}"
    pause = round(float(state.next_action.sleep), 3)
    node.note(f"{what}, try {state.attempt_number}{why}", "warning", retry_in=pause)
