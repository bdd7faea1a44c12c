"""Where the work of a span runs now: the tasks and threads whose context has it, or one inside it, as current."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context
from functools import partial
from types import FrameType
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context as SpanContexts

from otel_progress.live.diagnosis.places import Place
from otel_progress.live.diagnosis.reading import field
from otel_progress.live.diagnosis.workers import is_frame, outward
from otel_progress.live.guard import tell_once

TASKS: Final = 1_000
"""Tasks that are examined."""
THREADS: Final = 256
"""Threads that are examined."""
_POOL: Final = "concurrent/futures/thread.py"
_ANYIO: Final = "anyio/_backends/_asyncio.py"
_present: Final[Any] = weakref.ref(Place)
"""For a thread that is running now, seen from another one."""
Find = Callable[[int], bool]
"""Whether the span with this id belongs to the work that is looked for."""


def working(places: Iterable[Place], is_ours: Find) -> list[Place]:
    """Where work runs now, by the places in which its spans began: what surely works in it first.

    Of those places it leaves out tasks and threads that ended, or that have gone on to other work.
    """
    try:
        return _working(list(places), is_ours)
    except Exception:
        tell_once("where the work of a span runs could not be seen")
        return []


def _working(places: list[Place], is_ours: Find) -> list[Place]:
    tasks, known = _tasks(places, is_ours)
    sure = [*_threads(is_ours), *tasks]
    maybe = []
    for place in places:
        task = None if place.task is None else place.task()
        if place.alive() is None or (place.task is not None and (task is None or _is_over(task))):
            continue
        if task is not None:
            if known.get(id(task)) is None:  # else it is sure already, or has another span as current
                maybe.append(place)
        elif _serves(place.thread, is_ours):
            maybe.append(place)
    found: dict[Place, None] = {}
    seen: set[tuple[int, int]] = set()
    for place in (*sure, *maybe):
        key = place.thread, 0 if place.task is None else id(place.task())
        if key not in seen:
            seen.add(key)
            found[place] = None
    return list(found)


def _threads(is_ours: Find) -> list[Place]:
    """The worker threads that run in a context of their own, in which a span of ours is current."""
    found = []
    for thread, frame in list(sys._current_frames().items())[:THREADS]:
        context = next(filter(None, map(_context_in, outward(frame))), None)
        span_id = current_span(context)
        if span_id is not None and is_ours(span_id):
            found.append(Place(thread, _present))
    return found


def _tasks(places: list[Place], is_ours: Find) -> tuple[list[Place], dict[int, bool]]:
    """The tasks that work in it, and of each task with a current span whether that is ours."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return [], {}
    loops: dict[Any, Place] = {}
    for place in places:
        loop = field(None if place.task is None else place.task(), "_loop")
        if loop is not None and place.alive() is not None:
            loops.setdefault(loop, place)
    found: list[Place] = []
    known: dict[int, bool] = {}
    for loop, place in loops.items():
        for task in list(asyncio.all_tasks(loop))[:TASKS]:
            span_id = current_span(context_of(task))
            if span_id is not None:
                known[id(task)] = ours = is_ours(span_id)
                if ours:
                    found.append(Place(place.thread, place.alive, weakref.ref(task)))
    return found, known


def _is_over(task: Any) -> bool:
    done = getattr(task, "done", None)
    return bool(done is not None and done())


def context_of(task: Any) -> Context | None:
    """The context of an asyncio task."""
    return next((found for found in gc.get_referents(task) if isinstance(found, Context)), None)


def current_span(context: Context | None) -> int | None:
    """The id of the span that is current in a context, if there is one."""
    if context is None:
        return None
    for value in context.values():
        if isinstance(value, SpanContexts):
            ids = trace.get_current_span(value).get_span_context()
            return ids.span_id or None
    return None


def _serves(thread: int, is_ours: Find) -> bool:
    """Whether a thread may still work for us: a pool's thread may rest, or have turned to somebody else's work."""
    frame = sys._current_frames().get(thread)
    is_pooled = False
    for at in outward(frame):
        context = _context_in(at)
        if context is not None:
            span_id = current_span(context)
            return span_id is not None and is_ours(span_id)
        if is_frame(at, _POOL, "run"):
            return True  # it has no context of its own: what it began is all that is known
        is_pooled = is_pooled or is_frame(at, _POOL, "_worker")
    return not is_pooled


def _context_in(frame: FrameType) -> Context | None:
    """The context in which a worker runs its work in this frame, if it has one of its own."""
    if is_frame(frame, _ANYIO, "run"):
        found = frame.f_locals.get("context")
        return found if isinstance(found, Context) else None
    if is_frame(frame, _POOL, "run"):
        item = frame.f_locals.get("self")
        return next(filter(None, map(_bound, _functions(item))), None)
    return None


def _functions(item: Any) -> Iterator[Any]:
    """What a work item of a pool calls."""
    yield field(item, "fn")
    task = field(item, "task")
    if type(task) is tuple and task:
        yield task[0]


def _bound(fn: Any) -> Context | None:
    """The context to whose `run` a call leads."""
    for _ in range(3):
        owner = getattr(fn, "__self__", None)
        if isinstance(owner, Context):
            return owner
        if not isinstance(fn, partial):
            return None
        fn = fn.func
    return None


def is_ours_thread(place: Place) -> bool:
    """Whether a place is a thread of this package, whose own work is nobody's."""
    thread = threading._active.get(place.thread)  # type: ignore[attr-defined] # noqa: SLF001
    return thread is not None and str(field(thread, "_name")).startswith("otel-progress")
