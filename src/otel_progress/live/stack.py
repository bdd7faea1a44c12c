"""Where an operation is stuck: the stack of its thread, or the await chain of its task.

Called in our own thread while the job runs on. It reads frames, coroutines and futures as they are; it calls no code
of the user, waits for nothing, and keeps no frame. What it shows are file names, line numbers, functions and source
lines, never a value.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from threading import get_ident
from types import FrameType
from typing import Any, Final, NamedTuple

from otel_progress.live.awaits import NODES, awaited, chain, field, is_task, task_name, types_of
from otel_progress.live.guard import tell_once
from otel_progress.live.spots import Spot, printable, spot, told

PLACES: Final = 4
"""Places told of, and tasks told of that one task waits for."""
FRAMES: Final = 30
"""Frames shown."""
STACK_LENGTH: Final = 4096
"""Characters of a stack."""
AT_LENGTH: Final = 200
"""Characters of the line at which it hangs."""
DEPTH: Final = 8
"""Tasks and threads that wait for each other, one after another."""
THREADS: Final = 256
"""Threads among which the one is looked for that does what another waits for."""
LATE: Final = 0.1
"""Seconds by which a timer is due before its event loop counts as blocked."""


class _Alive:
    """Lives as long as its thread: idents are used again, these are not."""

    __slots__ = ("__weakref__",)


class Place(NamedTuple):
    """Where an operation or a stage runs: a thread, and in asyncio a task. It keeps neither alive."""

    thread: int
    alive: weakref.ref[_Alive]
    task: weakref.ref[Any] | None = None


class Where(NamedTuple):
    """Where it is stuck."""

    stack: str
    """The stack in words, innermost first: the user's lines, with libraries condensed."""
    at: str
    """The innermost line of the user's code, as `worker.py:12 in fetch`; of a library, where it has none."""


class _Here(threading.local):
    """This thread as a place, made once."""

    def __init__(self) -> None:
        self.alive = _Alive()
        self.place = Place(get_ident(), weakref.ref(self.alive))


_here = _Here()
_new, _ref = tuple.__new__, weakref.ref


def _without_asyncio() -> Any:
    """Take asyncio's own functions once somebody has imported it; this module never does."""
    global _running_loop, _current_task
    asyncio = sys.modules.get("asyncio")
    current_task, running_loop = getattr(asyncio, "current_task", None), getattr(asyncio, "_get_running_loop", None)
    if current_task is None or running_loop is None:
        return None
    _current_task, _running_loop = current_task, running_loop
    return running_loop()


_running_loop: Callable[[], Any] = _without_asyncio
_current_task: Callable[[Any], Any] = lambda _: None  # noqa: E731


def here() -> Place:
    """The place of the caller: this thread, and the task that runs in it."""
    loop = _running_loop()
    if loop is None:
        return _here.place
    task = _current_task(loop)
    place = _here.place
    return place if task is None else _new(Place, (place[0], place[1], _ref(task)))


def where(places: Sequence[Place], *, blocked: Collection[Any] = ()) -> Where | None:
    """Where the work of these places is now, or None where it can't be seen: it ended, or its thread did.

    Places that say more go first; else they stay in the order given. What a place waits for, if it is another task or
    a thread of a pool, comes before it. `blocked` are event loops known to give no answer.
    """
    try:
        look = _Look(blocked)
        try:
            return look.at(places)
        finally:
            # Our own frame is among them: they would keep each other, and the user's, alive.
            look.frames.clear()
    except Exception:
        tell_once("where an operation is stuck could not be seen; the job goes on")
        return None


class _Section(NamedTuple):
    """A thread or a task in the text."""

    title: str
    spots: list[Spot]

    @property
    def mine(self) -> Spot | None:
        """The user's innermost line in it."""
        return next((found for found in self.spots if found.mine), None)


class _Look:
    """One look at the threads as they are now."""

    def __init__(self, blocked: Collection[Any]) -> None:
        _running_loop()  # so that asyncio is known
        self.frames = sys._current_frames()
        self.blocked = blocked
        self.seen: set[int] = set()

    def at(self, places: Sequence[Place]) -> Where | None:
        """The text for these places."""
        found = [sections for sections in map(self.place, places[: 4 * PLACES]) if sections]
        telling = [sections for sections in found if any(section.mine for section in sections)]
        sections = [section for those in (telling or found)[:PLACES] for section in those if section.spots]
        if not sections:
            return None
        most = max(3, FRAMES // len(sections))
        lines = []
        for section in sections[: FRAMES // 3]:
            lines += [section.title + ":", *("  " + line for line in told(section.spots, most))]
        text = "\n".join(lines)
        mine = next((section.mine for section in sections if section.mine), None)
        at = str(mine or sections[0].spots[0])
        return Where(
            text if len(text) <= STACK_LENGTH else text[: STACK_LENGTH - 1] + "…",
            printable(at, AT_LENGTH),
        )

    def place(self, place: Place) -> list[_Section]:
        """What is to be told of a place."""
        if place.task is None:
            return [] if place.alive() is None else self.thread(place.thread)
        task = place.task()
        sections = [] if task is None else self.task(task, place.thread)
        return sections and self.with_loop(task, place.thread, sections)

    # -- threads

    def thread(self, ident: int, depth: int = 0) -> list[_Section]:
        """The stack of a thread, after what it waits for."""
        frame = self.frames.get(ident)
        if frame is None or depth > DEPTH or not self.first(ident):
            return []
        spots: list[Spot] = []
        sections: list[_Section] = []
        mine = False
        for outer in _outward(frame):
            here = spot(outer)
            if here.file.ours:
                continue
            if not mine and not sections:
                sections = self.lead(outer, here, ident, depth)
            mine = mine or here.mine
            spots.append(here)
        return [*sections, _Section(f"thread {_name(ident)}" + (_AWAITS if sections else ""), spots)]

    def lead(self, frame: FrameType, here: Spot, thread: int, depth: int) -> list[_Section]:
        """What a thread waits for, if this frame of the standard library tells."""
        name = _LEADS.get((here.file.name, here.code.co_name)) if here.file.library else None
        if name is None:
            return []
        found = frame.f_locals.get(name)
        if issubclass(type(found), threading.Thread):
            ident = field(found, "_ident")
            return self.thread(ident, depth + 1) if ident is not None else []
        if is_task(found):
            return self.task(found, thread, depth + 1)
        return self.worker(found, depth)

    def worker(self, future: Any, depth: int) -> list[_Section]:
        """The thread of a pool that works for this future."""
        if not issubclass(type(future), types_of("concurrent.futures", "Future")):
            return []
        for ident, frame in tuple(self.frames.items())[:THREADS]:
            for outer in _outward(frame):
                here = outer.f_code
                if here.co_name == "run" and spot(outer).file.name == "concurrent/futures/thread.py":
                    item = outer.f_locals.get("self")
                    if item is not None and field(item, "future") is future:
                        return self.thread(ident, depth + 1)
        return []

    # -- tasks

    def task(self, task: Any, thread: int, depth: int = 0) -> list[_Section]:
        """The await chain of a task, after what it waits for; the stack of its thread while it runs there."""
        if field(task, "_state") != "PENDING" or depth > DEPTH or not self.first(id(task)):
            return []
        title = f"task {task_name(task)}"
        if _current(field(task, "_loop")) is task:
            busy = self.busy(thread)
            if busy:
                return [_Section(f"{title}, running in thread {_name(thread)}", busy)]
        spots, last = chain(field(task, "_coro"))
        behind = list(islice(awaited(field(task, "_fut_waiter"), last), NODES))
        sections: list[_Section] = []
        for other in behind[:PLACES]:
            sections += self.task(other, thread, depth + 1) if is_task(other) else self.worker(other, depth)
        if sections:
            title += _AWAITS + (f" and {len(behind) - PLACES} more tasks" if len(behind) > PLACES else "")
        return [*sections, _Section(title, spots)]

    def with_loop(self, task: Any, thread: int, sections: list[_Section]) -> list[_Section]:
        """The same with what else the thread of the event loop runs: before it, where it blocks the loop."""
        loop = field(task, "_loop")
        busy, current = self.busy(thread), _current(loop)
        if not busy or id(current) in self.seen or not self.first(id(loop)):
            return sections
        by = "a callback" if current is None else f"task {task_name(current)}"
        if _is_ready(task) or _is_late(loop) or any(known is loop for known in self.blocked):
            return [_Section(f"the event loop is blocked by {by} in thread {_name(thread)}", busy), *sections]
        # One look can't tell a blocked loop from one that is at work.
        meanwhile = _Section(f"meanwhile the event loop runs {by}", busy)
        return [*sections, meanwhile] if meanwhile.mine else sections

    def busy(self, thread: int) -> list[Spot]:
        """What the thread of an event loop runs now, without the loop itself; empty while the loop waits."""
        spots: list[Spot] = []
        loops_own = True
        for outer in _outward(self.frames.get(thread)):
            here = spot(outer)
            name = here.file.name
            if here.file.library and name.startswith("asyncio/") and here.code.co_name in _LOOP:
                if not spots and here.code.co_name == "_run":
                    return [here]  # a callback in C
                break
            if not here.file.ours:
                spots.append(here)
                loops_own = loops_own and here.file.library and name.startswith(("asyncio/", "selectors."))
        return [] if loops_own else spots

    def first(self, key: int) -> bool:
        """Whether this was not looked at before."""
        if key in self.seen:
            return False
        self.seen.add(key)
        return True


_AWAITS: Final = ", which waits for the above"
_LEADS: Final = {
    ("threading.py", "join"): "self",
    ("concurrent/futures/_base.py", "result"): "self",
    ("concurrent/futures/_base.py", "exception"): "self",
    ("asyncio/base_events.py", "run_until_complete"): "future",
    ("asyncio/runners.py", "run"): "task",
}
"""Functions of the standard library that wait, and the local variable that holds what for."""
_LOOP: Final = frozenset({"_run", "_run_once", "run_forever", "run_until_complete", "run"})
"""Functions of asyncio below which the code of tasks and callbacks runs."""


def _outward(frame: FrameType | None) -> Iterator[FrameType]:
    """A frame and those around it."""
    for _ in range(NODES):
        if frame is None:
            return
        yield frame
        frame = frame.f_back


def _name(ident: int) -> str:
    """The name of a thread."""
    name = field(getattr(threading, "_active", {}).get(ident), "_name")
    return printable(name, 60) if type(name) is str else str(ident)


def _current(loop: Any) -> Any:
    """The task that runs in this loop."""
    try:
        return _current_task(loop)
    except RuntimeError:
        return None


def _is_ready(task: Any) -> bool:
    """Whether the loop has only to run it."""
    waiter = field(task, "_fut_waiter")
    return waiter is None or field(waiter, "_state") != "PENDING"


def _is_late(loop: Any) -> bool:
    """Whether a timer of the loop is long due: then it has not come round since."""
    timers = field(loop, "_scheduled")
    for asyncio in types_of("asyncio", "BaseEventLoop"):
        try:
            return bool(field(timers[0], "_when") + LATE < asyncio.time(loop))  # type: ignore[attr-defined]
        except (TypeError, LookupError):
            break
    return False
