"""Where work runs: a thread, and in asyncio or trio a task."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from threading import get_ident
from typing import Any, NamedTuple

from otel_progress.live.diagnosis import greenlets


class _Alive:
    """Lives as long as its thread; unlike idents, these are never reused."""

    __slots__ = ("__weakref__",)


class Place(NamedTuple):
    """Where an operation or a stage runs. It keeps neither the thread nor the task alive.

    Two places are equal if they are the same thread and the same task, also once that has ended.
    """

    thread: int
    alive: weakref.ref[_Alive]
    task: weakref.ref[Any] | None = None
    """The asyncio or trio task; None outside of one."""


class _Here(threading.local):
    """This thread as a place, made once."""

    def __init__(self) -> None:
        self.alive = _Alive()
        self.place = Place(get_ident(), weakref.ref(self.alive))
        greenlets.note(self.place.thread)


_here = _Here()
_modules = sys.modules
_new, _ref = tuple.__new__, weakref.ref


def _without_asyncio() -> Any:
    """Use asyncio's own functions once it was imported; this module never imports it."""
    global _running_loop, _current_task
    asyncio = _modules.get("asyncio")
    current_task, running_loop = getattr(asyncio, "current_task", None), getattr(asyncio, "_get_running_loop", None)
    if current_task is None or running_loop is None:
        return None
    _current_task, _running_loop = current_task, running_loop
    return running_loop()


def _without_trio() -> Any:
    """Use trio's own function once it was imported; this module never imports it."""
    global _trio_task
    lowlevel = getattr(_modules.get("trio"), "lowlevel", None)
    current_task, in_task = getattr(lowlevel, "current_task", None), getattr(lowlevel, "in_trio_task", None)
    if current_task is None:
        return None

    def trio_task() -> Any:
        try:
            return current_task() if in_task is None or in_task() else None
        except RuntimeError:
            return None

    _trio_task = trio_task
    return trio_task()


_running_loop: Callable[[], Any] = _without_asyncio
_current_task: Callable[[Any], Any] = lambda _: None  # noqa: E731
_trio_task: Callable[[], Any] = _without_trio


def here() -> Place:
    """The place of the caller: this thread, and the task running in it."""
    loop = _running_loop()
    task = None if loop is None else _current_task(loop)
    if task is None and "trio" in _modules:
        task = _trio_task()
    place = _here.place
    return place if task is None else _new(Place, (place[0], place[1], _ref(task)))


def are_shared() -> bool:
    """Whether work of all greenlets has the place of their thread: threads were replaced after this module came."""
    return threading.get_ident is not get_ident


async def sleep(seconds: float) -> None:
    """Let other tasks of asyncio or trio run for so long."""
    task_of_trio = _trio_task() if "trio" in _modules else None
    library = _modules["trio"] if task_of_trio is not None else _modules["asyncio"]
    await library.sleep(seconds)


def current(loop: Any) -> Any:
    """The task running in this asyncio event loop, if any."""
    _running_loop()  # so that asyncio is known
    try:
        return _current_task(loop)
    except RuntimeError:
        return None
