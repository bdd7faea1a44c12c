"""Worker threads: which of them work for a future, a task, a job of a pool, or a queue."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from types import BuiltinMethodType, CellType, FrameType, FunctionType, MethodType
from typing import Any, Final

from otel_progress.live.diagnosis.awaits import NODES
from otel_progress.live.diagnosis.reading import field, module_of
from otel_progress.live.diagnosis.source_lines import file

THREADS: Final = 256
"""Threads that are searched."""
HELD: Final = 400
"""Objects given to a thread that are examined."""
SMALL: Final = 64
"""Entries of a dictionary that is searched."""

_POOL: Final = "concurrent/futures/thread.py"


def outward(frame: FrameType | None) -> Iterator[FrameType]:
    """A frame and those around it."""
    for _ in range(NODES):
        if frame is None:
            return
        yield frame
        frame = frame.f_back


def is_frame(frame: FrameType, name: str, function: str) -> bool:
    """Whether it belongs to this function in this file of a library."""
    code = frame.f_code
    if code.co_name != function:
        return False
    about = file(code.co_filename)
    return about.library and about.name == name


class Workers:
    """The threads of pools at one moment, and what each works for."""

    def __init__(self, frames: Mapping[int, FrameType]) -> None:
        """Of these threads, read on first use."""
        self._frames = frames
        self._works: list[tuple[Any, int]] | None = None

    def clear(self) -> None:
        """Release all references."""
        self._works = None

    def of(self, thing: Any) -> list[int]:
        """The idents of the threads that work for this future or trio task."""
        return [ident for each, ident in self._read() if each is thing]

    def for_what(self, ident: int) -> list[Any]:
        """What this thread works for."""
        return [each for each, worker in self._read() if worker == ident]

    def of_queue_with(self, future: Any) -> list[int]:
        """The busy threads of the pool in whose queue this future waits."""
        queues = field(getattr(sys.modules.get("concurrent.futures.thread"), "_threads_queues", None), "data")
        if type(queues) is not dict:
            return []
        known = [(ref(), queue) for ref, queue in islice(tuple(queues.items()), THREADS)]
        holding = {id(queue): queue for _, queue in known}
        holding = {key: queue for key, queue in holding.items() if _holds_work(queue, future)}
        return self.among({thread for thread, queue in known if id(queue) in holding and thread is not None})

    def among(self, threads: Any) -> list[int]:
        """The idents of those of these Thread objects that are busy."""
        if type(threads) not in (set, list):
            return []
        mine = {field(thread, "_ident") for thread in list(threads)[:NODES]}
        return [ident for _, ident in self._read() if ident in mine]

    def of_job(self, result: Any) -> list[int]:
        """The idents of the threads that work for the ThreadPool to which this result belongs."""
        pool = field(field(result, "_pool"), "_pool")
        idents = [field(thread, "_ident") for thread in pool[:THREADS]] if type(pool) is list else []
        return [ident for ident in idents if ident in self._frames and _is_inside_worker(self._frames[ident])]

    def _read(self) -> list[tuple[Any, int]]:
        if self._works is None:
            self._works = []
            for ident, innermost in islice(self._frames.items(), THREADS):
                self._works += [(thing, ident) for thing in map(_work_of, outward(innermost)) if thing is not None]
        return self._works


def _work_of(frame: FrameType) -> Any:
    """What a thread works for in this frame: a future of a pool, a task of trio, or None."""
    # These frames end with the work, so that what is read of them is not kept for longer.
    if is_frame(frame, _POOL, "run"):
        return field(frame.f_locals.get("self"), "future")
    if is_frame(frame, "trio/_threads.py", "worker_fn"):
        register = frame.f_locals.get("task_register")
        return register[0] if type(register) is list and register else None
    return None


def _is_inside_worker(innermost: FrameType) -> bool:
    """Whether a thread of a ThreadPool is busy; an idle one is in `worker` itself."""
    return innermost.f_code.co_name != "worker" and any(
        is_frame(frame, "multiprocessing/pool.py", "worker") for frame in outward(innermost)
    )


def _holds_work(queue: Any, future: Any) -> bool:
    """Whether a queue of a pool holds the work of this future."""
    for near in gc.get_referents(queue)[:NODES]:
        for item in near[:NODES] if type(near) is list else (near,):
            if module_of(type(item)) == "concurrent.futures.thread" and field(item, "future") is future:
                return True
    return False


# -- queues


def consumers(queue: Any, frames: Mapping[int, FrameType], joining: int) -> list[int]:
    """The threads that work on an item of this queue.

    A thread does if it was given the queue or has it in a global variable, one of its functions calls `task_done`, and
    it does not wait for the next item.
    """
    found = []
    for ident, innermost in islice(frames.items(), THREADS):
        if ident != joining and _consumes(queue, ident, innermost):
            found.append(ident)
    return found


def _consumes(queue: Any, ident: int, innermost: FrameType) -> bool:
    marked = False
    given: list[Any] = [getattr(threading, "_active", {}).get(ident)]
    for frame in outward(innermost):
        code = frame.f_code
        about = file(code.co_filename)
        if about.library:
            if (about.name, code.co_name) == ("queue.py", "get") and frame.f_locals.get("self") is queue:
                return False
            if (about.name, code.co_name) == (_POOL, "run"):
                given.append(frame.f_locals.get("self"))
            continue
        if "task_done" in code.co_names:
            marked = True
            given += known(frame)
    return marked and any(thing is queue for thing in reached(given))


def known(frame: FrameType) -> list[Any]:
    """The variables of a running function: global ones, and its own if reading them is harmless."""
    names, variables = frame.f_code.co_names, frame.f_globals
    found = [variables[name] for name in names if name in variables] if type(variables) is dict else []
    if sys.version_info >= (3, 13):
        # Before, reading would copy them into a dictionary that is the user's too, and that lives on.
        return found + list(frame.f_locals.values())
    return found + gc.get_referents(frame)[:SMALL]


def reached(given: list[Any]) -> Iterator[Any]:
    """What a thread was given: its function with arguments, what that is bound to, and attributes of these."""
    near = [(thing, 0) for thing in given if thing is not None]
    seen: set[int] = set()
    while near and len(seen) < HELD:
        thing, depth = near.pop(0)
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        yield thing
        if depth < 6:
            near += [(each, depth + 1) for each in _inside(thing)]


def _inside(thing: Any) -> list[Any]:
    kind = type(thing)
    if kind is FunctionType:
        return [*(thing.__closure__ or ()), *(thing.__defaults__ or ()), *gc.get_referents(thing.__dict__)[:SMALL]]
    if kind is dict:
        return gc.get_referents(thing)[:SMALL] if len(thing) <= SMALL else []
    if kind in (tuple, list):
        return list(thing[:SMALL])
    if kind in (CellType, MethodType, BuiltinMethodType, partial) or module_of(kind) not in _CLOSED:
        return [each for each in gc.get_referents(thing)[:SMALL] if not issubclass(type(each), type)]
    return []


_CLOSED: Final = frozenset({"builtins", "_thread", "asyncio", "contextvars", "_contextvars", "weakref", "collections"})
"""Modules whose objects are not searched."""
