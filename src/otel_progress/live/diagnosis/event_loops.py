"""Event loops: what the thread of one runs, and whether that blocks the loop."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import islice
from types import FrameType
from typing import Any, Final

from otel_progress.live.diagnosis import tasks, trio_tasks
from otel_progress.live.diagnosis.places import current
from otel_progress.live.diagnosis.reading import field, types_of
from otel_progress.live.diagnosis.source_lines import file
from otel_progress.live.diagnosis.workers import THREADS, outward

LATE: Final = 0.1
"""Seconds by which a timer is overdue before its event loop counts as blocked."""


class EventLoops:
    """The event loops of these threads at one moment."""

    def __init__(self, frames: Mapping[int, FrameType], blocked: Collection[Any]) -> None:
        """`blocked` are loops known not to respond."""
        self._frames = frames
        self._blocked = blocked

    def busy(self, thread: int) -> list[FrameType]:
        """What the thread of an event loop runs now, without the loop itself; empty while the loop waits."""
        frames: list[FrameType] = []
        loops_own = True
        for outer in outward(self._frames.get(thread)):
            about, function = file(outer.f_code.co_filename), outer.f_code.co_name
            if about.library and function in _LOOP and about.name.startswith(("asyncio/", trio_tasks.RUN)):
                if not frames and function == "_run":
                    return [outer]  # a callback in C
                break
            if not about.ours:
                frames.append(outer)
                loops_own = loops_own and about.library and about.name.startswith(_LOOPS_OWN)
        return [] if loops_own else frames

    def thread_of(self, task: Any, thread: int) -> int:
        """The thread in which the loop of this task runs; the given one if that is unknown."""
        if not trio_tasks.is_task(task):
            ident = field(field(task, "_loop"), "_thread_id")
            return ident if type(ident) is int else thread
        mine = field(task, "_runner")
        return next((ident for ident in (thread, *islice(self._frames, THREADS)) if self._trio(ident) is mine), thread)

    def running(self, task: Any, thread: int) -> Any:
        """The task that runs now in the loop of this one, if any."""
        if not trio_tasks.is_task(task):
            return current(field(task, "_loop"))
        return trio_tasks.running(self._trio(thread))

    def is_late(self, task: Any, thread: int) -> bool:
        """Whether the loop of this task is late."""
        if trio_tasks.is_task(task):
            return trio_tasks.is_late(self._trio(thread))
        loop = field(task, "_loop")
        return any(known is loop for known in self._blocked) or _is_late(loop)

    def is_blocked_for(self, task: Any, thread: int) -> bool:
        """Whether the loop does not run this task although it could."""
        return tasks.is_ready(task) or self.is_late(task, thread)

    def _trio(self, thread: int) -> Any:
        """The loop of trio that runs in a thread."""
        frames = outward(self._frames.get(thread))
        return next((found for found in map(trio_tasks.runner, frames) if found is not None), None)


_LOOP: Final = frozenset({"_run", "_run_once", "run_forever", "run_until_complete", "run", "unrolled_run"})
"""Functions of asyncio and trio below which the code of tasks and callbacks runs."""
_LOOPS_OWN: Final = ("asyncio/", "selectors.", "trio/_core/")


def _is_late(loop: Any) -> bool:
    """Whether a timer of an asyncio loop is long overdue, so that the loop is blocked."""
    timers = field(loop, "_scheduled")
    for asyncio in types_of("asyncio", "BaseEventLoop"):
        try:
            return bool(field(timers[0], "_when") + LATE < asyncio.time(loop))  # type: ignore[attr-defined]
        except (TypeError, LookupError):
            break
    return False
