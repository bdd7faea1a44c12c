"""Handlers that `configure(handlers=...)` or `OTEL_PROGRESS_HANDLERS` chose: found by name, started and stopped."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from otel_progress import forks, settings
from otel_progress.errors import InvalidArgument
from otel_progress.handlers.handler import CallableHandler
from otel_progress.handlers.outlet import Outlet
from otel_progress.live.guard import say
from otel_progress.live.preload import nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "otel_progress.handlers"
"""The group of entry points by which other packages register handlers."""
BUILT_IN: Final = {
    "apprise": "apprise:AppriseHandler",
    "archive": "archive:Archive",
    "console": "console:Console",
    "jsonlines": "jsonlines:JsonLines",
    "logging": "log_records:LoggingHandler",
    "notebook": "notebook:NotebookHandler",
    "redis": "redis:RedisHandler",
    "webhook": "webhook:WebhookHandler",
}
"""Our own handlers by name: module and class."""

_started: list[Outlet] = []
_is_chosen = False
_lock = threading.RLock()


def start(given: Iterable[Any]) -> None:
    """Start these handlers, in the place of those that ran by an earlier call.

    Each is a handler, a name, an object with `handle(event)`, or a function of an event.

    Raises:
        InvalidArgument: if one is none of these; then nothing is changed.
        MissingDependency: if what one needs is not installed.
    """
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise InvalidArgument(f'handlers must be a list, such as ["console"] or [Console()], not {given!r}')
    global _is_chosen
    chosen = [_outlet(one) for one in given]
    with _lock:
        _is_chosen = True
        stop()
        idle = [one for one in chosen if not one._running]  # the others are not ours to stop
        _started.extend(one.start() for one in idle)


def start_named(names: Iterable[str]) -> None:
    """Start the handlers that the environment names, once, unless others were chosen.

    One that can't be started is logged, and the others start.
    """
    global _is_chosen
    with _lock:
        if _is_chosen:
            return
        _is_chosen = True
        for name in names:
            try:
                _started.append(named(name).start())
            except Exception as error:
                say("OTEL_PROGRESS_HANDLERS: %s is not started: %s", name, error)


def stop() -> None:
    """Stop what `start` and `start_named` started; may be called twice."""
    with _lock:
        while _started:
            _started.pop().stop()


def named(name: str) -> Outlet:
    """A handler by its name, set up by the environment.

    Raises:
        InvalidArgument: if there is none of this name, or a variable that it needs is missing or invalid.
        MissingDependency: if what it needs is not installed.
    """
    where = BUILT_IN.get(name)
    if where is not None:
        module, _, attribute = where.partition(":")
        made = getattr(import_module(f"otel_progress.handlers.{module}"), attribute)
    else:
        made = _registered(name).load()
    from_environment = getattr(made, "from_environment", None)
    return _outlet(made() if from_environment is None else from_environment(settings.environment()))


def _registered(name: str) -> EntryPoint:
    """The entry point of another package's handler."""
    from importlib.metadata import entry_points

    found = {one.name: one for one in entry_points(group=GROUP)}
    if name not in found:
        known = sorted({*BUILT_IN, *found})
        hint = f" (did you mean {near!r}?)" if (near := nearest(name, known)) else ""
        raise InvalidArgument(f"there is no handler {name!r}{hint}; there are: {', '.join(known)}")
    return found[name]


def _outlet(given: Any) -> Outlet:
    if isinstance(given, Outlet):
        return given
    return named(given.strip()) if isinstance(given, str) else CallableHandler(given)


def _after_fork_in_child() -> None:
    """The handlers are the parent's."""
    global _lock
    _lock = threading.RLock()
    _started.clear()


forks.in_child.append(_after_fork_in_child)
