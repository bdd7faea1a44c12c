"""The line of code for every kind of hang: real programs, inspected from inside."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from urllib.parse import unquote

import pytest

from .program import Program

HANGS = Path(__file__).with_name("programs") / "hangs"
WAIT = 60.0


def marked(program: str) -> dict[str, str]:
    """Return the line of each mark of a program."""
    lines = (HANGS / f"{program}.py").read_text(encoding="utf-8").splitlines()
    return {
        found.group(1): f"hangs/{program}.py:{number} in "
        for number, line in enumerate(lines, 1)
        if (found := re.search(r"  # ([a-z_ ]+)$", line))
    }


def look(program: str, *args: str, operation: str = "job", mark: str | None = None) -> str:
    """Run a program until its operation is found at its line, and return the call stack."""
    at = marked(program)[mark or args[0]]
    with Program("looked_at", HANGS / f"{program}.py", *args) as running:
        deadline = time.monotonic() + WAIT
        seen = ["nothing", ""]
        while at not in seen[0]:  # what waits for another thread names both
            assert time.monotonic() < deadline, f"not at {at!r} but at {seen[0]}\n{seen[1]}"
            try:
                words = running.line("settled", timeout=max(0.1, deadline - time.monotonic()))
            except AssertionError as error:
                raise AssertionError(f"not at {at!r} but at {seen[0]}\n{seen[1]}\n{error}"[:3000]) from None
            if words[1] == operation:
                seen = [unquote(word) for word in (*words[2:], "")][:2]
    return seen[1]


def shapes(program: str, *but: str) -> list[str]:
    """Return the marks of a program, each the name of a kind of hang."""
    return sorted(mark for mark in marked(program) if " " not in mark and mark not in but)


NEW = {"task_group", "nested_groups", "timeout", "tracked_nested_generators"} if sys.version_info < (3, 11) else set()


@pytest.mark.parametrize("shape", shapes("tasks", "answer", "lock_holder", "condition_holder", "from_thread", *NEW))
def test_asyncio(shape: str) -> None:
    """In asyncio it is the line of the task or thread for which the others wait."""
    look("tasks", shape)


@pytest.mark.parametrize("shape", ["gather", "as_completed", "to_thread", "blocked", "stream", "tracked_generator"])
def test_uvloop(shape: str) -> None:
    """Another event loop gives the same line."""
    look("tasks", shape, "uvloop")


@pytest.mark.parametrize("shape", ["run", "run_until_complete"])
def test_around_an_event_loop(shape: str) -> None:
    """An operation around an event loop is at the line of its main task."""
    look("outside", shape, mark="run")


@pytest.mark.parametrize("shape", shapes("threads", "holder"))
def test_threads(shape: str) -> None:
    """With threads it is the line of the thread for which the others wait, else the user's line that waits."""
    look("threads", shape)


def sections(stack: str) -> list[tuple[str, str]]:
    """Return the title of each thread and task in the text, and its innermost line."""
    lines = stack.split("\n")
    return [(line, lines[number + 1].strip()) for number, line in enumerate(lines) if line and not line.startswith(" ")]


@pytest.mark.parametrize(
    ("program", "args", "mark"),
    [
        ("tasks", ["lock_held"], "lock_holder"),
        ("tasks", ["condition_held"], "condition_holder"),
        ("threads", ["rlock"], "holder"),
        ("trio_tasks", ["lock_held"], "lock_holder"),
        ("anyio_tasks", ["lock_held", "asyncio"], "lock_holder"),
        ("anyio_tasks", ["lock_held", "trio"], "lock_holder"),
    ],
)
def test_who_holds_the_lock(program: str, args: list[str], mark: str) -> None:
    """The holder of a lock comes second if the lock knows it, or a task is inside `async with`."""
    (_, waiter), (title, holder) = sections(look(program, *args))[:2]
    assert waiter.startswith(marked(program)[args[0]])
    assert title.endswith(", which holds the lock that the above waits for:")
    assert holder.startswith(marked(program)[mark])


@pytest.mark.parametrize(
    ("program", "args"),
    [("tasks", []), ("trio_tasks", []), ("anyio_tasks", ["asyncio"]), ("anyio_tasks", ["trio"])],
)
def test_a_thread_that_asks_the_event_loop(program: str, args: list[str]) -> None:
    """If a thread waits for an event loop to run something, it is the line of that."""
    look(program, "from_thread", *args, operation="thread")


def test_another_task_blocks_trio() -> None:
    """If another task blocks trio, it is the line of that task, and the text says so first."""
    first = sections(look("trio_tasks", "blocked_by_another", operation="mine"))[0]
    assert first[0].startswith("the event loop is blocked by task ")


@pytest.mark.parametrize("operation", ["one", "other"])
@pytest.mark.parametrize("shape", ["threads", "tasks"])
def test_two_operations(shape: str, operation: str) -> None:
    """Two operations in a process are each at their own line, and do not show the other's."""
    stack = look("two", shape, operation=operation, mark=f"{shape} {operation}")
    other = marked("two")[f"{shape} {'other' if operation == 'one' else 'one'}"]
    assert other not in stack


@pytest.mark.parametrize("shape", shapes("trio_tasks", "lock_holder", "from_thread", "blocked_by_another"))
def test_trio(shape: str) -> None:
    """In trio it is the line of the task or thread for which the others wait."""
    look("trio_tasks", shape)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("shape", shapes("anyio_tasks", "lock_holder", "from_thread"))
def test_anyio(shape: str, backend: str) -> None:
    """With AnyIO it is the same line on either backend."""
    look("anyio_tasks", shape, backend)
