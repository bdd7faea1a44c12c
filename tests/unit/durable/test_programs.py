"""Programs as people write them, ended in the middle and started again: each shows a rule that holds for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import sys
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from otel_progress import CarryingExecutor, CheckpointMismatch, Operation, operation, stage, track
from otel_progress.testing import Capture


class Crash(BaseException):
    """What ends an attempt, as a kill does; no body catches it."""


@pytest.fixture
def path(tmp_path: Path, progress_capture: Capture) -> str:
    """Return the path of a store, under a clock that stands still."""
    return str(tmp_path / "work.db")


def job(path: str, **options: Any) -> Operation:
    return operation("job", id="job-1", resume=path, **options)


def test_an_agent_that_keeps_its_state_after_each_node_goes_on_at_that_node(path: str) -> None:
    """The graph is chosen while it runs, and a node may come again; its state is that of the last checkpoint."""
    ran: list[str] = []

    def agent(crash_after: int) -> int:
        with job(path) as op:
            state: dict[str, Any] = op.restored or {"node": "plan", "found": 0}
            while state["node"] != "end":
                node, found = state["node"], state["found"]
                with op.stage(node):
                    ran.append(node)
                    found += node == "search"
                    then = "search" if found < 3 else "end" if node == "write" else "write"
                    op.checkpoint(node=then, found=found)
                    state = {"node": then, "found": found}
                if len(ran) == crash_after:
                    raise Crash
            return int(state["found"])

    with contextlib.suppress(Crash):
        agent(crash_after=3)
    assert agent(crash_after=-1) == 3
    assert ran == ["plan", "search", "search", "search", "write"]


def test_a_crawler_finds_its_frontier_again(path: str) -> None:
    """Pages that are done still say which pages they lead to, and are not fetched again."""
    fetched: list[str] = []

    def crawl(crash_after: int) -> int:
        frontier, seen = deque(["0"]), {"0"}
        with job(path) as op:
            while frontier:
                page = frontier.popleft()
                if not op.is_done(page):
                    if len(fetched) == crash_after:
                        raise Crash
                    fetched.append(page)
                    op.done(page)
                number = int(page)
                new = [str(link) for link in (2 * number + 1, 2 * number + 2) if link < 50 and str(link) not in seen]
                seen.update(new)
                frontier.extend(new)
            return int(op.snapshot().progress.completed or 0)

    for crash_after in (7, 20):
        with contextlib.suppress(Crash):
            crawl(crash_after)
    assert crawl(-1) == 50
    assert sorted(fetched, key=int) == [str(page) for page in range(50)]


def test_threads_with_a_stage_each_may_start_in_another_order(path: str) -> None:
    """A stage is known by its name, wherever and whenever it runs; the feed names the one that it counts."""
    did: list[tuple[str, int]] = []

    def load(op: Operation, name: str, most: int) -> None:
        with op.stage(name) as one:
            for item in one.track(range(6), key=int):
                if item == most:
                    raise Crash
                did.append((name, item))

    with contextlib.suppress(Crash), job(path) as op:
        for name, most in (("a", 2), ("b", 4)):
            with contextlib.suppress(Crash):
                load(op, name, most)
        raise Crash
    with job(path) as op, CarryingExecutor(2) as pool:
        assert list(pool.map(lambda name: load(op, name, -1), ["c", "b", "a"])) == [None] * 3
    assert sorted(did) == [(name, item) for name in "abc" for item in range(6)]
    assert [note.text for note in op.snapshot().notes if "resumed" in note.text][0].startswith(
        "resumed at 4 of 6 items in b (attempt 2, after it "
    )


def test_newer_code_goes_on_where_it_kept_the_names(path: str) -> None:
    """A new stage runs whole, a stage of another name too, and what kept its name goes on; but only if one says so."""

    def run(version: int, last: str, crash: bool = False, **options: Any) -> list[str]:
        did: list[str] = []
        with contextlib.suppress(Crash), job(path, fingerprint=f"v{version}", **options):
            for name in ("fetch", "clean", last) if version == 2 else ("fetch", last):
                with stage(name):
                    for item in track(range(4), key=int):
                        if crash and name == last and item == 2:
                            raise Crash
                        did.append(f"{name} {item}")
        return did

    assert run(1, "load", crash=True)[-1] == "load 1"
    with pytest.raises(CheckpointMismatch, match="belongs to v1, and this is v2"):
        run(2, "store")
    kept = run(2, "store", resume_mismatch="keep")
    assert kept == [f"{name} {item}" for name in ("clean", "store") for item in range(4)]


def test_a_quota_a_day_takes_the_next_items(path: str) -> None:
    """Each day some items, then `break`: the one in hand was not done, so it comes first the next day."""
    days = []
    for _ in range(3):
        with job(path):
            today = []
            for item in track(range(10), key=int):
                if len(today) == 4:
                    break
                today.append(item)
        days.append(today)
    assert days == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_an_exit_in_the_middle_of_an_item_leaves_it_for_the_next_attempt(path: str) -> None:
    """`sys.exit` for a maintenance window is no end of the item."""
    done: list[int] = []
    with pytest.raises(SystemExit), job(path):
        for item in track(range(5), key=int):
            if item == 2:
                sys.exit("maintenance")
            done.append(item)
    with job(path):
        done += track(range(5), key=int)
    assert done == [0, 1, 2, 3, 4]


class Asked(list[int]):
    """What was asked, by an agent that crashes at its first question 5."""

    crash = True


asked = Asked()


@stage("ask", once=True)
async def ask(question: int) -> dict[str, int]:
    await asyncio.sleep(0)
    if question == 5 and asked.crash:
        asked.crash = False
        raise Crash
    asked.append(question)
    return {"answer": question * question}


def test_gathered_calls_that_run_once_are_not_made_again(path: str) -> None:
    """Of many tasks at once, each has the result of its own arguments, whichever ended before the crash."""

    async def main() -> list[int]:
        async with job(path):
            found = await asyncio.gather(*map(ask, range(10)))
        return [one["answer"] for one in found]

    with pytest.raises(Crash):
        asyncio.run(main())
    assert asyncio.run(main()) == [number * number for number in range(10)]
    assert sorted(asked) == list(range(10))


def test_many_small_operations_keep_nothing_open(path: str) -> None:
    """A worker that resumes each of its tasks for weeks holds one file, one thread and no memory of them."""

    def open_files() -> int:
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    before = 0
    for number in range(60):
        with operation("task", id=f"task-{number}", resume=path):
            list(track(range(3), key=int))
        before = before or open_files()
    assert open_files() <= before


def test_keys_may_be_whole_numbers_of_other_libraries(path: str) -> None:
    """NumPy's numbers have `__index__`; a member of an IntEnum is its number, whatever text it has."""

    class Number:
        def __init__(self, value: int) -> None:
            self.value = value

        def __index__(self) -> int:
            return self.value

    class Page(enum.IntEnum):
        FIRST = 1

    with job(path) as op:
        op.done(Number(5))  # type: ignore[arg-type] # what type checkers know of NumPy's
        op.done(Page.FIRST)
    with job(path) as op:
        assert [op.is_done(key) for key in (5, "5", Number(5), 1, "1", 2)] == [True] * 5 + [False]  # type: ignore[arg-type]
