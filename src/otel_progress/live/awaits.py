"""What an asyncio task awaits: the chain of coroutines, and the tasks and futures behind it.

It looks from another thread while the loop runs on, reads only attributes that asyncio and the interpreter made, and
never asks an object of the user for one.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, FunctionType, GeneratorType
from typing import Any, Final

from otel_progress.live.spots import Spot, printable, spot

NODES: Final = 5000
"""Frames, or steps of an await chain, that are looked at."""
NEAR: Final = 64
"""Objects looked at that one object refers to."""
DEPTH: Final = 8
"""Futures that stand for each other, one after another."""


def field(thing: Any, name: str) -> Any:
    """An attribute of a task, future or thread, past what a subclass made of attributes."""
    try:
        return object.__getattribute__(thing, name)
    except Exception:
        return None


def types_of(module: str, *names: str) -> tuple[type, ...]:
    """These classes, as far as somebody imported their module."""
    loaded = sys.modules.get(module)
    found = (getattr(loaded, name, None) for name in names)
    return tuple(kind for kind in found if isinstance(kind, type))


def is_task(thing: Any) -> bool:
    """Whether it is an asyncio task."""
    return issubclass(type(thing), types_of("asyncio.tasks", "Task", "_PyTask"))


def is_future(thing: Any) -> bool:
    """Whether it is an asyncio future or task."""
    return issubclass(type(thing), types_of("asyncio.futures", "Future", "_PyFuture"))


def task_name(task: Any) -> str:
    """The name of a task."""
    base = next(iter(kind for kind in type(task).__mro__ if kind in types_of("asyncio.tasks", "Task", "_PyTask")), None)
    name = base.get_name(task) if base is not None else None  # type: ignore[attr-defined]
    return printable(name, 60) if type(name) is str else "?"


_FRAME_AND_NEXT: Final = {
    CoroutineType: ("cr_frame", "cr_await"),
    GeneratorType: ("gi_frame", "gi_yieldfrom"),
    AsyncGeneratorType: ("ag_frame", "ag_await"),
}


def chain(thing: Any) -> tuple[list[Spot], Any]:
    """What a coroutine awaits, and what that awaits, innermost first; and the innermost of these itself."""
    spots: list[Spot] = []
    last = None
    for _ in range(NODES):
        names = _FRAME_AND_NEXT.get(type(thing))
        if names is None:
            # What awaits an async generator, or wraps a coroutine, does not say for whom; the collector knows.
            thing = next((found for found in gc.get_referents(thing)[:NEAR] if type(found) in _FRAME_AND_NEXT), None)
            if thing is None:
                break
            continue
        frame = getattr(thing, names[0])
        if frame is None:
            break
        last = thing
        here = spot(frame)
        if not here.file.ours:
            spots.append(here)
        thing = getattr(thing, names[1])
        if thing is None:
            break
    spots.reverse()
    return spots, last


def awaited(waiter: Any, last: Any) -> Iterator[Any]:
    """The tasks, and the futures of pools, for which a task waits that hangs in `last`."""
    found = list(_expand(waiter, 0))
    if not found and type(last) is CoroutineType:
        code = last.cr_code
        about = Spot(code, 0).file
        if about.library and about.name.startswith(("asyncio/", "anyio/")) and code.co_name in _HOLDS_TASKS:
            for thing in _locals(last):
                found += _members(thing)
    seen: set[int] = set()
    for other in found:
        if id(other) not in seen and field(other, "_state") in ("PENDING", "RUNNING"):
            seen.add(id(other))
            yield other


_HOLDS_TASKS: Final = frozenset({"wait_for", "_wait", "__aexit__", "_aexit"})
"""Coroutines of asyncio and anyio that wait for tasks in their local variables, or in a task group there."""


def _locals(coroutine: Any) -> list[Any]:
    """What the local variables of a suspended coroutine hold."""
    near = gc.get_referents(coroutine)[:NEAR]
    # Until 3.10 they are the frame's, not the coroutine's own.
    return near + [thing for frame in near if type(frame) is FrameType for thing in gc.get_referents(frame)[:NEAR]]


def _members(thing: Any) -> Iterable[Any]:
    """The tasks that this is, or holds."""
    if type(thing).__name__ == "TaskGroup":
        thing = field(thing, "_tasks")
    if type(thing) in (set, list, tuple):
        return [each for each in list(thing)[:NODES] if is_task(each)]
    return _expand(thing, 0) if is_future(thing) else ()


def _expand(future: Any, depth: int) -> Iterator[Any]:
    """The tasks, and the futures of pools, that end this future."""
    if is_task(future):
        yield future
    elif is_future(future) and depth < DEPTH:
        children = field(future, "_children")  # of gather
        for child in list(children)[:NODES] if type(children) is list else ():
            yield from _expand(child, depth + 1)
        for callback in (field(future, "_callbacks") or ())[:NEAR]:
            inner = _captured(callback[0])
            if is_future(inner):
                yield from _expand(inner, depth + 1)
            elif inner is not None:
                yield inner


_CAPTURES: Final = {"_outer_done_callback": "inner", "_call_check_cancel": "source"}
"""Callbacks of asyncio that know the future behind another one: of shield, and of pools."""


def _captured(callback: Any) -> Any:
    if type(callback) is not FunctionType:
        return None
    code: CodeType = callback.__code__
    name = _CAPTURES.get(code.co_name)
    if name is None or name not in code.co_freevars or "asyncio" not in code.co_filename:
        return None
    try:
        return (callback.__closure__ or ())[code.co_freevars.index(name)].cell_contents
    except (ValueError, IndexError):
        return None
