"""Tasks of asyncio and trio behind one interface: their name, state, and what they wait for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from otel_progress.live.diagnosis import awaits, reading, trio_tasks
from otel_progress.live.diagnosis.awaits import Link, chain
from otel_progress.live.diagnosis.places import current
from otel_progress.live.diagnosis.reading import field

RANKED: Final = 256
"""Awaited tasks that are ranked by whether they move by themselves."""


def is_task(thing: Any) -> bool:
    """Whether it is a task."""
    return reading.is_task(thing) or trio_tasks.is_task(thing)


def name(task: Any) -> str:
    """The name of a task."""
    return trio_tasks.name(task) if trio_tasks.is_task(task) else awaits.task_name(task)


def links(task: Any) -> list[Link]:
    """The await chain of a task, innermost first."""
    return chain(field(task, "coro" if trio_tasks.is_task(task) else "_coro"))


def is_over(task: Any) -> bool:
    """Whether a task is done."""
    return trio_tasks.is_over(task) if trio_tasks.is_task(task) else field(task, "_state") != "PENDING"


def runs(task: Any) -> bool:
    """Whether a task runs at this moment."""
    return trio_tasks.is_running(task) if trio_tasks.is_task(task) else current(field(task, "_loop")) is task


def is_ready(task: Any) -> bool:
    """Whether it is ready to run."""
    return trio_tasks.is_ready(task) if trio_tasks.is_task(task) else awaits.is_ready(task)


def behind(task: Any, chained: Sequence[Link]) -> list[Any]:
    """The tasks, and futures of threads, for which a task with this await chain waits."""
    return trio_tasks.children(task, chained) if trio_tasks.is_task(task) else awaits.awaited(task, chained)


def ranked(things: Sequence[Any], is_blocked: Callable[[Any], bool]) -> list[Any]:
    """Awaited tasks and futures, first those that will not move by themselves."""
    if len(things) < 2:
        return list(things)
    seen: set[int] = set()
    return sorted(things[:RANKED], key=lambda thing: _patience(thing, is_blocked, seen)) + list(things[RANKED:])


def _patience(thing: Any, is_blocked: Callable[[Any], bool], seen: set[int]) -> tuple[int, float]:
    """The rank: what blocks its event loop, what waits, what sleeps (longest first), then what moves."""
    if not is_task(thing):
        return 1, 0.0
    if runs(thing):
        return (0 if is_blocked(thing) else 3), 0.0
    if is_ready(thing):
        return 3, 0.0
    chained = links(thing)
    wakes_at = (trio_tasks if trio_tasks.is_task(thing) else awaits).wakes_at(chained)
    if wakes_at is not None:
        return 2, -wakes_at
    if id(thing) in seen or len(seen) > RANKED:
        return 1, 0.0
    seen.add(id(thing))
    return min((_patience(each, is_blocked, seen) for each in behind(thing, chained)[:RANKED]), default=(1, 0.0))
