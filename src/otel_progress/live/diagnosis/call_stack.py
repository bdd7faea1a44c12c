"""Where an operation is stuck: the stack of its thread, or the await chain of its task.

Called in a thread of ours while the job runs. It reads frames, coroutines and futures as they are; it runs no code of
the user, never blocks, and keeps no frame. It shows file names, line numbers, functions and source lines, never values.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property
from types import FrameType
from typing import Any, Final, NamedTuple

from otel_progress import clock
from otel_progress.live import redaction
from otel_progress.live.diagnosis import greenlets, holders, movement, packages, tasks, trio_tasks
from otel_progress.live.diagnosis.awaits import Link, shown, source
from otel_progress.live.diagnosis.event_loops import EventLoops
from otel_progress.live.diagnosis.places import Place, are_shared, current, here
from otel_progress.live.diagnosis.reading import field, types_of
from otel_progress.live.diagnosis.source_lines import Spot, forget, printable, spot, told
from otel_progress.live.diagnosis.workers import Workers, consumers, outward
from otel_progress.live.guard import tell_once

__all__ = ["AT_LENGTH", "FRAMES", "LOOKED", "PLACES", "STACK_LENGTH", "Place", "Where", "here", "where"]

LOOKED: Final = 16
"""Places that are examined."""
PLACES: Final = 4
"""Places shown, and tasks or threads shown for which one of them waits."""
FRAMES: Final = 30
"""Frames shown."""
STACK_LENGTH: Final = 4096
"""Characters of a stack."""
AT_LENGTH: Final = 200
"""Characters of the line at which it is stuck."""
DEPTH: Final = 8
"""Length of a chain of tasks and threads that wait for each other."""
FUTURES: Final = 256
"""Futures for which one thread waits that are examined."""


class Where(NamedTuple):
    """Where it is stuck."""

    stack: str
    """The stack as text, innermost first: the user's lines, with libraries condensed."""
    at: str
    """The innermost line of the user's code in its own thread, as `worker.py:12 in fetch`; without one, of code without
    a file, as `<string>:3 in work`; else of a library. If it waits for another thread, that follows:
    `, waiting for thread pool_0 at tool.py:3 in read`, or `, waiting for thread pool_0, which moves`."""
    mine: bool = True
    """Whether that line is no library's."""


def where(
    places: Sequence[Place], *, blocked: Collection[Any] = (), moving: Callable[[], Collection[int]] = tuple
) -> Where | None:
    """The stack of the work at these places, or None if it ended or its thread did.

    Places that show for whom they wait go first; otherwise they keep their order. The task or thread for which a place
    waits is shown before it.

    Args:
        places: where the work runs.
        blocked: event loops known not to respond.
        moving: returns the idents of threads whose own work makes progress; called only if others wait for a thread.
    """
    found = _seen(places, blocked, moving)
    if found is not None and not found.mine and packages.find():
        # The user's code may be installed too.
        forget()
        found = _seen(places, blocked, moving)
    return None if found is None else found.where


class _Seen(NamedTuple):
    """The result of a look."""

    where: Where
    mine: bool
    """Whether it has a line of the user's code."""


def _seen(places: Sequence[Place], blocked: Collection[Any], moving: Callable[[], Collection[int]]) -> _Seen | None:
    for plain in (False, True):
        try:
            look = _Look(blocked, plain, moving)
            try:
                return look.at(places)
            finally:
                # Our own frame is among them: they would keep each other, and the user's, alive.
                look.clear()
        except Exception:
            tell_once("where an operation is stuck could not be seen; the job goes on")
    return None


class _Section(NamedTuple):
    """A thread or a task in the text."""

    who: str
    """As `thread pool_0`."""
    spots: list[Spot]
    thread: int
    """The ident of its thread."""
    does: str = ""
    """What follows its name in the title."""
    runs: bool = False
    """Whether these are the lines that the thread runs now."""
    said: bool = False
    """Whether its title is worth showing even without a line of the user's code."""

    @property
    def mine(self) -> Spot | None:
        """The user's innermost line in it."""
        return next((found for found in self.spots if found.mine), None)


class _Look:
    """One look at the threads as they are now."""

    def __init__(self, blocked: Collection[Any], plain: bool, moving: Callable[[], Collection[int]]) -> None:
        """With `plain`, only the places themselves, not what they wait for."""
        self.plain = plain
        self.ask_what_moves = moving
        self.moves_known: dict[int, bool] = {}
        current(None)  # so that asyncio is known
        self.frames = sys._current_frames() | greenlets.frames()
        self.workers = Workers(self.frames)
        self.loops = EventLoops(self.frames, blocked)
        self.seen: set[int] = set()

    def clear(self) -> None:
        """Release all frames."""
        self.frames.clear()
        self.workers.clear()

    def at(self, places: Sequence[Place]) -> _Seen | None:
        """The text for these places."""
        found = [(place, sections) for place in self.leading(places[:LOOKED]) if (sections := self.place(place))]
        telling = [each for each in found if any(section.mine for section in each[1])]
        shown = (telling or found)[:PLACES]
        sections = [section for _, those in shown for section in those if section.spots]
        if not sections:
            return None
        homes = {self.home(place) for place, _ in shown}
        most = max(3, FRAMES // len(sections))
        lines = []
        for section in sections[: FRAMES // 3]:
            moves = _MOVES if section.thread not in homes and self.moves(section) else ""
            lines += [f"{section.who}{section.does}{moves}:", *("  " + line for line in told(section.spots, most))]
        text = "\n".join(lines)
        mine = any(section.mine for section in sections)
        line, known = self.line(*shown[0])
        text, at = redaction.masked("stack", text), redaction.masked("stack", line)
        text = text if len(text) <= STACK_LENGTH else text[: STACK_LENGTH - 1] + "…"
        return _Seen(Where(text, printable(at, AT_LENGTH), known), mine)

    def line(self, place: Place, sections: Sequence[_Section]) -> tuple[str, bool]:
        """The line at which a place is stuck, and for what other thread it waits; whether that is no library's."""
        home = self.home(place)
        here = [section for section in sections if section.thread == home and section.spots]
        others = [section for section in sections if section.thread != home and section.mine]
        own = next((section.mine for section in here if section.mine), None)
        own = own or next((one for section in here for one in section.spots if one.generated), None)
        other = next((section for section in others if not self.moves(section)), None)
        if other is not None:
            behind = str(other.mine)
            return (behind if own is None else f"{own}, waiting for {other.who} at {behind}"), True
        if own is None and others:
            return f"{others[0].mine}, in {others[0].who}{_MOVES}", True
        first = own or next(section.spots[0] for section in (*here, *sections) if section.spots)
        return f"{first}, waiting for {others[0].who}{_MOVES}" if others else str(first), own is not None

    def home(self, place: Place) -> int:
        """The ident of the thread in which a place is."""
        task = None if place.task is None else place.task()
        return place.thread if task is None else self.loops.thread_of(task, place.thread)

    def moves(self, section: _Section) -> bool:
        """Whether the thread of a section is known to move."""
        return section.runs and self.is_moving(section.thread)

    @cached_property
    def moving(self) -> Collection[int]:
        """The idents of threads whose own work makes progress."""
        return self.ask_what_moves()

    def is_moving(self, ident: int) -> bool:
        """Whether a thread is known to move: its work made progress, or its lines changed."""
        known = self.moves_known.get(ident)
        if known is None:
            frame = self.frames.get(ident)
            known = frame is not None and (ident in self.moving or movement.changed(ident, frame, clock.monotonic()))
            self.moves_known[ident] = known
        return known

    def leading(self, places: Sequence[Place]) -> list[Place]:
        """The places in their order, but first those that show for whom they wait."""

        def waits(place: Place) -> bool:
            self.seen = set()
            return len(self.place(place)) > 1

        ordered = sorted(places, key=lambda place: not waits(place)) if len(places) > 1 else list(places)
        self.seen = set()
        return ordered

    def place(self, place: Place) -> list[_Section]:
        """The sections of a place."""
        if are_shared():
            return []
        if place.task is None:
            return [] if place.alive() is None else self.thread(place.thread)
        task = place.task()
        if task is None:
            return []
        sections = self.task(task, place.thread)
        return sections and self.with_loop(task, place.thread, sections)

    def first(self, key: int) -> bool:
        """Whether this was not examined before."""
        if key in self.seen:
            return False
        self.seen.add(key)
        return True

    # -- threads

    def thread(self, ident: int, depth: int = 0) -> list[_Section]:
        """The stack of a thread, after what it waits for."""
        frame = self.frames.get(ident)
        if frame is None or depth > DEPTH or not self.first(ident):
            return []
        return self.running(_Section(f"thread {_name(ident)}", [], ident, runs=True), outward(frame), depth)

    def running(self, own: _Section, frames: Iterable[FrameType], depth: int) -> list[_Section]:
        """The frames of a thread, innermost first, after what it waits for, and before who holds what it waits for."""
        ident = own.thread
        spots: list[Spot] = []
        leads: list[FrameType] = []
        innermost: FrameType | None = None
        mine = False
        for frame in frames:
            here = spot(frame)
            if here.file.ours:
                continue
            innermost = innermost or frame
            mine = mine or here.mine
            if not mine and not self.plain and _lead(frame) is not None:
                leads.append(frame)
            spots.append(here)
        # The outermost is nearest to what the user called.
        for lead in reversed(leads):
            sections = self.lead(lead, ident, depth)
            if sections:
                return _after(sections, own._replace(spots=spots))
        own = own._replace(spots=spots)
        return [own] if self.plain or innermost is None else [own, *self.lock_owner(innermost, ident)]

    def lead(self, frame: FrameType, thread: int, depth: int) -> list[_Section]:
        """What a thread in this function of a library waits for."""
        kind, name = _lead(frame) or ("", "")
        found = frame.f_locals.get(name)
        if kind == "pool":
            return self.threads(self.workers.among(field(found, "_threads")), depth)
        if kind == "queue":
            return self.threads(consumers(found, self.frames, thread), depth)
        if kind == "job":
            return self.threads(self.workers.of_job(found), depth)
        if kind == "trio":
            return self.task(field(found, "main_task"), thread, depth + 1)
        if kind == "host":
            found = next(filter(tasks.is_task, self.workers.for_what(thread)), None)
        sections: list[_Section] = []
        many = list(found)[:FUTURES] if type(found) is set else [found]
        if len(many) > 1:
            many.sort(key=lambda each: any(map(self.is_moving, self.workers.of(each))))
        for each in many:
            if len(sections) < PLACES:
                sections += self.behind(each, thread, depth)
        return sections

    def behind(self, thing: Any, thread: int, depth: int) -> list[_Section]:
        """The sections of the thread or task that works for a future, or is this thing."""
        if tasks.is_task(thing):
            return self.task(thing, thread, depth + 1)
        if issubclass(type(thing), threading.Thread):
            ident = field(thing, "_ident")
            return self.thread(ident, depth + 1) if ident is not None else []
        working = self.workers.of(thing)
        if not working and issubclass(type(thing), types_of("concurrent.futures", "Future")):
            if field(thing, "_state") == "PENDING":
                working = self.workers.of_queue_with(thing)
            task = source(thing)
            if task is not None:
                return self.task(task, thread, depth + 1)
        return self.threads(working, depth)

    def threads(self, idents: Sequence[int], depth: int) -> list[_Section]:
        """The sections of threads for which another waits."""
        sections: list[_Section] = []
        for ident in sorted(idents, key=self.is_moving)[:PLACES] if len(idents) > 1 else idents:
            sections += self.thread(ident, depth + 1)
        return sections

    def lock_owner(self, frame: FrameType, ident: int) -> list[_Section]:
        """The thread that holds the lock for which another one waits."""
        owner = holders.thread_that_owns(frame)
        if owner is None or owner == ident or not self.first(owner):
            return []
        spots = [found for found in map(spot, outward(self.frames.get(owner))) if not found.file.ours]
        return [_Section(f"thread {_name(owner)}", spots, owner, _HOLDS, runs=True)] if spots else []

    # -- tasks

    def task(self, task: Any, thread: int, depth: int = 0) -> list[_Section]:
        """The await chain of a task, after what it waits for; the stack of its thread while it runs there."""
        if tasks.is_over(task) or depth > DEPTH or not self.first(id(task)):
            return []
        thread = self.loops.thread_of(task, thread)
        own = _Section(f"task {tasks.name(task)}", [], thread)
        busy = self.loops.busy(thread) if tasks.runs(task) else []
        if busy:
            return self.running(own._replace(does=f", running in thread {_name(thread)}", runs=True), busy, depth)
        links = tasks.links(task)
        own = own._replace(spots=shown(links))
        if self.plain:
            return [own]
        if trio_tasks.in_thread(links):
            return _after(self.threads(self.workers.of(task), depth), own)
        behind = tasks.behind(task, links) or holders.consumers(task, links)
        sections = []
        for other in tasks.ranked(behind, lambda other: self.loops.is_late(other, thread))[:PLACES]:
            sections += self.behind(other, thread, depth)
        more = f" and {len(behind) - PLACES} more tasks" if len(behind) > PLACES else ""
        return _after(sections, own, more) + self.task_that_holds(task, links, thread)

    def task_that_holds(self, task: Any, links: Sequence[Link], thread: int) -> list[_Section]:
        """The task that holds the lock for which another one waits."""
        owner = holders.task_that_holds(task, links)
        if owner is None or owner is task or not self.first(id(owner)):
            return []
        return [_Section(f"task {tasks.name(owner)}", shown(tasks.links(owner)), thread, _HOLDS)]

    def with_loop(self, task: Any, thread: int, sections: list[_Section]) -> list[_Section]:
        """Add what else the thread of the event loop runs; first if that blocks the loop."""
        busy, runs = self.loops.busy(thread), self.loops.running(task, thread)
        if not busy or id(runs) in self.seen or not self.first(-thread):
            return sections
        by = "a callback" if runs is None else f"task {tasks.name(runs)}"
        if self.loops.is_blocked_for(task, thread):
            title = f"the event loop is blocked by {by} in thread {_name(thread)}"
            *others, own = self.running(_Section(title, [], thread, runs=True), busy, 0)
            return [*others, own._replace(said=True), *sections]
        # One look can't tell a blocked loop from one that is at work.
        meanwhile = _Section(f"meanwhile the event loop runs {by}", [spot(frame) for frame in busy], thread)
        return [*sections, meanwhile] if meanwhile.mine else sections


_AWAITS: Final = ", which waits for the above"
_HOLDS: Final = ", which holds the lock that the above waits for"
_MOVES: Final = ", which moves"
_LEADS: Final = {
    ("join", "threading.py"): ("", "self"),
    ("shutdown", "concurrent/futures/thread.py"): ("pool", "self"),
    ("result", "concurrent/futures/_base.py"): ("", "self"),
    ("exception", "concurrent/futures/_base.py"): ("", "self"),
    ("wait", "concurrent/futures/_base.py"): ("", "fs"),
    ("as_completed", "concurrent/futures/_base.py"): ("", "pending"),
    ("join", "queue.py"): ("queue", "self"),
    ("wait", "multiprocessing/pool.py"): ("job", "self"),
    ("next", "multiprocessing/pool.py"): ("job", "self"),
    ("run_until_complete", "asyncio/base_events.py"): ("", "future"),
    ("run", "asyncio/runners.py"): ("", "task"),
    ("run", trio_tasks.RUN): ("trio", "runner"),
    ("_send_message_to_trio", "trio/_threads.py"): ("host", "trio_token"),
}
"""Functions of libraries that wait, and for what: the kind, and the local variable that holds it."""
_WAITING: Final = frozenset(function for function, _ in _LEADS)


def _lead(frame: FrameType) -> tuple[str, str] | None:
    code = frame.f_code
    if code.co_name not in _WAITING:
        return None
    about = spot(frame).file
    return _LEADS.get((code.co_name, about.name)) if about.library else None


def _after(sections: list[_Section], own: _Section, more: str = "") -> list[_Section]:
    """What a thread or task waits for, then itself; without sections that have no line of the user, if others do."""
    waits = own._replace(does=own.does + _AWAITS + more)
    mine = [section for section in sections if section.mine or section.said]
    if mine:
        return [*mine, waits]
    return [own] if own.mine else [*sections, waits]


def _name(ident: int) -> str:
    """The name of a thread."""
    name = field(getattr(threading, "_active", {}).get(ident), "_name")
    return printable(name, 60) if type(name) is str else str(ident)
