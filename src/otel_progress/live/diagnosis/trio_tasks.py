"""Tasks of trio: what one waits for, such as its children in a nursery, or a thread.

Read from another thread, and only from objects that trio and the interpreter created.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import FrameType
from typing import Any, Final

from otel_progress.live.diagnosis.awaits import NODES, Link, libraries, variables
from otel_progress.live.diagnosis.reading import field, module_of, types_of
from otel_progress.live.diagnosis.source_lines import file, printable

RUN: Final = "trio/_core/_run.py"
"""The file of trio's event loop."""
LATE: Final = 0.1
"""Seconds by which a deadline is overdue before the loop counts as blocked."""


def is_task(thing: Any) -> bool:
    """Whether it is a trio task."""
    return type(thing) in types_of("trio.lowlevel", "Task")


def name(task: Any) -> str:
    """The name of a task."""
    found = field(task, "name")
    return printable(found, 60) if type(found) is str else "?"


def is_over(task: Any) -> bool:
    """Whether a task is done."""
    coroutine = field(task, "coro")
    return getattr(coroutine, "cr_frame", None) is None


def is_running(task: Any) -> bool:
    """Whether a task runs now, in the thread of its loop."""
    return bool(getattr(field(task, "coro"), "cr_running", False))


def is_ready(task: Any) -> bool:
    """Whether it is ready to run."""
    return field(task, "_next_send_fn") is not None


def children(task: Any, links: Sequence[Link]) -> list[Any]:
    """The tasks of the nursery whose end a task awaits; none if it waits for something else."""
    nurseries = field(task, "child_nurseries")
    if not nurseries or all((link.spot.code.co_name, link.spot.file.name) != _END for link in libraries(links)):
        return []
    found = [each for each in list(field(nurseries[-1], "child_tasks") or ())[:NODES] if is_task(each)]
    return sorted(found, key=lambda each: field(each, "_counter") or 0)


_END: Final = ("_nested_child_finished", RUN)


def in_thread(links: Sequence[Link]) -> bool:
    """Whether a task waits for a function in a thread."""
    for link in libraries(links):
        if link.spot.file.name != "trio/_core/_traps.py":
            return link.spot.code.co_name == "to_thread_run_sync"
    return False


def wakes_at(links: Sequence[Link]) -> float | None:
    """When a sleeping task wakes up, by the clock of its loop; None if it does not only sleep."""
    for link in libraries(links):
        if link.spot.file.name == "trio/_timeouts.py" and link.spot.code.co_name == "sleep_until":
            times = [thing for thing in variables(link.thing) if type(thing) is float]
            return max(times, default=0.0)
    return None


def runner(frame: FrameType) -> Any:
    """The loop that runs in a frame; None if the frame belongs to another function."""
    name, variable = (frame.f_code.co_name, "runner")
    if name not in ("run", "guest_tick") or file(frame.f_code.co_filename).name != RUN:
        return None
    if name == "guest_tick":
        return field(frame.f_locals.get("self"), variable)
    return frame.f_locals.get(variable)


def running(loop: Any) -> Any:
    """The task that a loop runs now, if any."""
    found = field(loop, "tasks")
    if type(found) is not set:
        return None
    return next((task for task in list(found)[:NODES] if is_task(task) and is_running(task)), None)


def is_late(loop: Any) -> bool:
    """Whether a deadline of this loop is long overdue, so that the loop is blocked."""
    clock, heap = field(loop, "clock"), field(field(loop, "deadlines"), "_heap")
    if module_of(type(clock)) != "trio._core._run" or type(heap) is not list:
        return False
    try:
        limit = clock.current_time() - LATE
        # Those that were given up stay for a while.
        return any(due < limit and field(scope, "_registered_deadline") == due for due, _, scope in heap[:NODES])
    except (TypeError, ValueError):
        return False
