"""The holder of a lock, or the consumers of a queue, for which a thread or a task waits, if that can be known."""

from __future__ import annotations

import dis
import re
import sys
import threading
from collections.abc import Sequence
from types import FrameType, FunctionType, MethodType
from typing import Any, Final

from otel_progress.live.diagnosis import trio_tasks
from otel_progress.live.diagnosis.awaits import Link, chain, libraries, names_of, tasks_of, variables
from otel_progress.live.diagnosis.reading import field, is_task, module_of, types_of
from otel_progress.live.diagnosis.source_lines import file
from otel_progress.live.diagnosis.workers import reached

_RLOCK: Final = type(threading.RLock())
_OWNER: Final = re.compile(r" owner=(\d+) ")
_SYNC: Final = ("asyncio/locks.py", "anyio/", "trio/_sync.py")


# -- tasks


def task_that_holds(task: Any, links: Sequence[Link]) -> Any:
    """The task that holds the lock for which this one waits, at these links; None if that can't be known."""
    lock = lock_of(links)
    if lock is None:
        return None
    owner = task_that_owns(lock)
    return task_that_entered(lock, field(task, "_loop")) if owner is None else owner


def lock_of(links: Sequence[Link]) -> Any:
    """The lock that a task waits to acquire; None if it waits for something else."""
    kinds = types_of("asyncio.locks", "Lock", "Condition")
    for link in libraries(links):
        if link.spot.code.co_name == "acquire" and link.spot.file.name.startswith(_SYNC):
            for thing in variables(link.thing):
                if type(thing) in kinds or task_that_owns(thing) is not None:
                    return thing
    return None


def task_that_owns(lock: Any) -> Any:
    """The task that holds a lock of AnyIO or trio, which know it."""
    if module_of(type(lock)).partition(".")[0] not in ("anyio", "trio"):
        return None
    owner = next((each for each in (field(lock, "_owner_task"), field(lock, "_owner")) if each is not None), None)
    return owner if is_task(owner) or trio_tasks.is_task(owner) else None


def task_that_entered(lock: Any, loop: Any) -> Any:
    """The task that is inside `async with` this lock of asyncio."""
    lock = _inner(lock)
    for task in tasks_of(loop):
        links = chain(field(task, "_coro"))
        if not _waits_for(lock, links) and any(_has_exit(variables(link.thing), lock) for link in links):
            return task
    return None


def _inner(lock: Any) -> Any:
    """The lock of a condition."""
    found = field(lock, "_lock") if module_of(type(lock)) == "asyncio.locks" else None
    return lock if found is None else found


def _waits_for(lock: Any, links: Sequence[Link]) -> bool:
    """Whether a task waits to acquire the lock, or in a condition that released it."""
    return any(
        link.spot.code.co_name in ("acquire", "wait") and any(_inner(thing) is lock for thing in variables(link.thing))
        for link in libraries(links)
    )


def _has_exit(near: list[Any], lock: Any) -> bool:
    """Whether a suspended coroutine holds the `__aexit__` of the lock."""
    if any(type(thing) is MethodType and _is_exit(thing.__func__) and _inner(thing.__self__) is lock for thing in near):
        return True
    # From 3.14 on the function and what it is bound to are two.
    leaves = any(_is_exit(thing) for thing in near)
    return leaves and any(_inner(thing) is lock for thing in near)


def _is_exit(thing: Any) -> bool:
    code = thing.__code__ if type(thing) is FunctionType else None
    return code is not None and code.co_name == "__aexit__" and file(code.co_filename).library


def consumers(task: Any, links: Sequence[Link]) -> list[Any]:
    """The tasks that work on an item of the queue that a task joins.

    A task does if a function of it that calls `task_done` has the queue in a variable, and it does not wait for the
    next item.
    """
    kinds = types_of("asyncio.queues", "Queue")
    queue = None
    for link in libraries(links):
        if (link.spot.code.co_name, link.spot.file.name) == ("join", "asyncio/queues.py"):
            queue = next((thing for thing in variables(link.thing) if issubclass(type(thing), kinds)), None)
    if queue is None:
        return []
    return [other for other in tasks_of(field(task, "_loop")) if other is not task and _consumes(other, queue)]


def _consumes(task: Any, queue: Any) -> bool:
    mine = False
    for link in chain(field(task, "_coro")):
        known = variables(link.thing)
        if link.spot.file.library:
            if link.spot.code.co_name == "get" and any(thing is queue for thing in known):
                return False
        elif "task_done" in link.spot.code.co_names:
            known += [names_of(link).get(name) for name in link.spot.code.co_names]
            mine = mine or any(thing is queue for thing in reached(known))
    return mine


# -- threads


def thread_that_owns(frame: FrameType) -> int | None:
    """The ident of the thread that holds the RLock for which this innermost frame of a thread waits."""
    lock = field(frame.f_locals.get("self"), "_lock") if _is_condition(frame) else _lock_entered(frame)
    if type(lock) is not _RLOCK:
        return None
    found = _OWNER.search(repr(lock))
    return int(found.group(1)) or None if found else None


def _is_condition(frame: FrameType) -> bool:
    return file(frame.f_code.co_filename).name == "threading.py" and frame.f_code.co_name == "__enter__"


def _lock_entered(frame: FrameType) -> Any:
    """What a frame enters with `with` now, or acquires, if that is a variable or an attribute of one."""
    steps = [step for step in dis.get_instructions(frame.f_code) if step.offset <= frame.f_lasti]
    names = _path(steps)
    if not names:
        return None
    base, *attributes = names
    thing = frame.f_globals.get(base) if type(frame.f_globals) is dict else None
    if sys.version_info >= (3, 13):
        # Before, reading a function's own variables would copy them into a dictionary that is the user's too.
        thing = frame.f_locals.get(base, thing)
    for name in attributes:
        known = field(thing, "__dict__")
        thing = known.get(name) if type(known) is dict else None
    return thing


def _path(steps: list[dis.Instruction]) -> list[str]:
    """The variable, and its attributes, whose `__enter__` or `acquire` the last of these steps calls."""
    steps = [step for step in steps if step.opname not in _AROUND]
    if not steps or not (steps[-1].opname in _ENTERS or steps[-1].opname.startswith("CALL")):
        return []
    enters = steps.pop().opname in _ENTERS
    if enters or (steps and steps[-1].opname == "LOAD_SPECIAL"):
        while steps and steps[-1].opname == "LOAD_SPECIAL":
            steps.pop()
    elif not (steps and steps.pop().argval == "acquire"):
        return []
    names: list[str] = []
    for step in reversed(steps):
        names.insert(0, str(step.argval))
        if step.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
            return names if step.opname.startswith(("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FAST", "LOAD_DEREF")) else []
    return []


_ENTERS: Final = frozenset({"BEFORE_WITH", "SETUP_WITH"})
_AROUND: Final = frozenset({"CACHE", "PRECALL", "PUSH_NULL", "COPY", "SWAP", "RESUME", "NOP"})
