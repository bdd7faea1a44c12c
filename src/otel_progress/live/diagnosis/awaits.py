"""What an asyncio task awaits: the chain of coroutines, and the tasks and futures behind it.

Read from another thread while the loop runs, and only from attributes that asyncio and the interpreter created, never
from objects of the user.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from types import AsyncGeneratorType, CellType, CodeType, CoroutineType, FrameType, FunctionType, GeneratorType
from typing import Any, Final, NamedTuple

from otel_progress.live.diagnosis.reading import field, is_task, module_of, types_of
from otel_progress.live.diagnosis.source_lines import Spot, printable, spot

NODES: Final = 5000
"""Frames, or links of an await chain, that are read."""
NEAR: Final = 64
"""Referents of one object that are examined."""
TASKS: Final = 512
"""Tasks of an event loop that are examined."""
DEPTH: Final = 8
"""Length of a chain of futures that stand for each other."""


def is_future(thing: Any) -> bool:
    """Whether it is an asyncio future or task."""
    return issubclass(type(thing), types_of("asyncio.futures", "Future", "_PyFuture"))


def task_name(task: Any) -> str:
    """The name of a task."""
    base = next(iter(kind for kind in type(task).__mro__ if kind in types_of("asyncio.tasks", "Task", "_PyTask")), None)
    name = base.get_name(task) if base is not None else None  # type: ignore[attr-defined]
    return printable(name, 60) if type(name) is str else "?"


_FRAME: Final = {CoroutineType: "cr_frame", GeneratorType: "gi_frame", AsyncGeneratorType: "ag_frame"}
_AWAITED_BY_GENERATORS: Final = frozenset({"FutureIter", "coroutine_wrapper"})
"""What an async generator may await, besides those and the awaits of other async generators."""


class Link(NamedTuple):
    """A coroutine or generator in an await chain, and the line at which it is."""

    thing: Any
    spot: Spot


def chain(thing: Any) -> list[Link]:
    """What a coroutine awaits, and what that awaits, innermost first."""
    links: list[Link] = []
    for _ in range(NODES):
        name = _FRAME.get(type(thing))
        if name is None:
            # What awaits an async generator, or wraps a coroutine, does not say for whom; the collector knows.
            thing = next((found for found in gc.get_referents(thing)[:NEAR] if type(found) in _FRAME), None)
            if thing is None:
                break
            continue
        frame = getattr(thing, name)
        if frame is None:
            break
        links.append(Link(thing, spot(frame)))
        thing = _awaited_by(thing)
        if thing is None:
            break
    links.reverse()
    return links


def _awaited_by(thing: Any) -> Any:
    """What a coroutine or generator awaits; None while it runs.

    An interpreter before 3.13 that is asked for what a running one awaits reads memory that is none of its stack: it
    dies if that one is being closed. No other thread runs between the two reads of a line here. An async generator does
    not say whether it runs, so what it awaits is the last that the collector sees on its stack.
    """
    if type(thing) is CoroutineType:
        return None if thing.cr_running else thing.cr_await
    if type(thing) is GeneratorType:
        return None if thing.gi_running else thing.gi_yieldfrom
    near = [each for each in variables(thing) if type(each) in _FRAME or _is_await(type(each).__name__)]
    return near[-1] if near else None


def _is_await(name: str) -> bool:
    return name in _AWAITED_BY_GENERATORS or name.startswith("async_generator_")


def names_of(link: Link) -> dict[str, Any]:
    """The global variables of a coroutine's function."""
    frame = getattr(link.thing, _FRAME[type(link.thing)])
    return frame.f_globals if frame is not None and type(frame.f_globals) is dict else {}


def shown(links: Iterable[Link]) -> list[Spot]:
    """The lines of a chain, without those of this library."""
    return [link.spot for link in links if not link.spot.file.ours]


def libraries(links: Iterable[Link]) -> Iterator[Link]:
    """The innermost links that belong to libraries."""
    return takewhile(lambda link: link.spot.file.library, links)


def variables(thing: Any) -> list[Any]:
    """The values of the local variables of a suspended coroutine or generator, and its other referents."""
    near = gc.get_referents(thing)[:NEAR]
    # Until 3.10 they are the frame's, not the coroutine's own.
    return near + [each for frame in near if type(frame) is FrameType for each in gc.get_referents(frame)[:NEAR]]


# -- asyncio


def awaited(task: Any, links: Sequence[Link]) -> list[Any]:
    """The tasks, futures of pools, and threads for which a task with this await chain waits."""
    waiter = field(task, "_fut_waiter")
    found = list(_expand(waiter, 0))
    if not found:
        for link in libraries(links):
            name = link.spot.code.co_name
            if name in _HOLDS_TASKS and link.spot.file.name.startswith(("asyncio/", "anyio/")):
                for thing in variables(link.thing):
                    found += _members(thing)
                if name == "_wait_for_one" and not found:
                    found += _to_complete(links)
            elif name == "start" and link.spot.file.name.startswith("anyio/"):
                found += _starting(variables(link.thing))
            elif name == "run_sync_in_worker_thread":
                return [thing for thing in variables(link.thing) if _is_working(thing)]
    seen: set[int] = {id(task)}
    pending = []
    for other in found:
        if id(other) not in seen and field(other, "_state") in ("PENDING", "RUNNING"):
            seen.add(id(other))
            pending.append(other)
    return pending


def tasks_of(loop: Any) -> list[Any]:
    """The pending tasks of an event loop, at most some hundred."""
    asyncio = sys.modules.get("asyncio.tasks")
    found: list[Any] = []
    for name in ("_all_tasks", "_scheduled_tasks", "_eager_tasks"):
        known = getattr(asyncio, name, None)
        found += [ref() for ref in list(field(known, "data") or ())[:NODES]] if type(known) is not set else list(known)
    if sys.version_info >= (3, 14):
        found += list(asyncio.all_tasks(loop))[:NODES]  # type: ignore[union-attr]
    mine = [
        task for task in found if is_task(task) and field(task, "_loop") is loop and field(task, "_state") == "PENDING"
    ]
    return list({id(task): task for task in mine}.values())[:TASKS]


def _is_working(thing: Any) -> bool:
    """Whether it is a thread of AnyIO that works."""
    return type(thing).__name__ == "WorkerThread" and field(thing, "_ident") and not field(thing, "stopping")


def source(future: Any) -> Any:
    """The task of an event loop that resolves this future of a thread, if any."""
    for callback in (field(future, "_done_callbacks") or ())[:NEAR]:
        inner = _captured(callback)
        if is_task(inner):
            return inner
    return None


def is_ready(task: Any) -> bool:
    """Whether it is ready to run."""
    waiter = field(task, "_fut_waiter")
    return waiter is None or field(waiter, "_state") != "PENDING"


def wakes_at(links: Sequence[Link]) -> float | None:
    """When a sleeping task wakes up, by the clock of its loop; None if it does not only sleep."""
    inner = links[0] if links else None
    if inner is None or (inner.spot.file.name, inner.spot.code.co_name) != ("asyncio/tasks.py", "sleep"):
        return None
    handles = types_of("asyncio.events", "TimerHandle")
    times = (field(thing, "_when") for thing in variables(inner.thing) if issubclass(type(thing), handles))
    return next((when for when in times if type(when) is float), 0.0)


_HOLDS_TASKS: Final = frozenset({"wait_for", "_wait", "_wait_for_one", "__aexit__", "_aexit"})
"""Coroutines of asyncio and anyio that wait for tasks in their local variables, or in a task group there."""
_HOLDERS: Final = {"TaskGroup": "_tasks", "_AsCompletedIterator": "_todo"}
"""What keeps tasks for these coroutines, and where."""


def _members(thing: Any) -> Iterable[Any]:
    """The tasks, and the futures of pools, that this is, holds, or waits for."""
    if type(thing) is CellType:
        thing = next(iter(gc.get_referents(thing)), None)
    name = _HOLDERS.get(type(thing).__name__)
    if name is not None:
        held = field(thing, name)
        thing = held if type(held) in _MANY else _first_of_tasks(thing)
    if type(thing) in _MANY:
        return [end for each in list(thing)[:NODES] if is_future(each) for end in _expand(each, 0)]
    return _expand(thing, 0) if is_future(thing) else ()


def _to_complete(links: Sequence[Link]) -> list[Any]:
    """What `as_completed` still waits for; until 3.12 only its generator, in the loop around this await, knows it."""
    position = next(number for number, link in enumerate(links) if link.spot.code.co_name == "_wait_for_one")
    near = [thing for link in links[position + 1 : position + 3] for thing in variables(link.thing)]
    for _ in range(3):
        for thing in near:
            if type(thing) is GeneratorType and thing.gi_code.co_name == "as_completed":
                return [each for found in variables(thing) if type(found) is CellType for each in _members(found)]
        near = [each for thing in near if _is_iterator(thing) for each in variables(thing)]
    return []


def _is_iterator(thing: Any) -> bool:
    """Whether it forwards the items of another iterator, as far as that can be known."""
    kind = type(thing)
    return kind is GeneratorType or (
        module_of(kind).partition(".")[0] in ("builtins", "itertools", "otel_progress") and hasattr(kind, "__next__")
    )


def _starting(things: list[Any]) -> list[Any]:
    """The task that an AnyIO task group is starting."""
    known = [thing for thing in things if is_task(thing)]
    handles = [thing for thing in things if type(thing).__name__ == "TaskHandle"]
    if known or not handles:
        return known
    members = [task for thing in things if type(thing).__name__ in _HOLDERS for task in _members(thing)]
    return [task for task in members if any(each is handles[0] for each in variables(field(task, "_coro")))]


_MANY: Final = (set, list, tuple)


def _first_of_tasks(thing: Any) -> Any:
    """A collection of tasks that this holds, under any name."""
    near = gc.get_referents(thing)[:NEAR]
    near += [each for found in near if type(found) is dict for each in gc.get_referents(found)[:NEAR]]
    return next((each for each in near if type(each) in _MANY and any(map(is_task, list(each)[:NEAR]))), ())


def _expand(future: Any, depth: int) -> Iterator[Any]:
    """The tasks, and futures of pools, that resolve this future."""
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
"""Callbacks of asyncio (of `shield` and of pools) that hold the future behind another one."""


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
