"""Loops that are tried again in the same attempt: they go on after what is done, and hide no error."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import otel_progress as progress
from otel_progress import InvalidState
from otel_progress.testing import Capture
from otel_progress.workflow import Step, Workflow


@pytest.fixture
def store(tmp_path: Path, progress_capture: Capture) -> str:
    """A fresh store."""
    return str(tmp_path / "work.db")


class Fails:
    """Lets an item fail so many times, and remembers those that were done."""

    def __init__(self, item: int = 3, times: int = 1) -> None:
        """`item` fails the first `times` times."""
        self.item, self.left = item, times
        self.done: list[int] = []

    def __call__(self, item: int) -> None:
        """Do an item."""
        if item == self.item and self.left:
            self.left -= 1
            raise ConnectionError("reset")
        self.done.append(item)


def again(fn: Callable[[], Any], tries: int = 2) -> None:
    """Call a function until it succeeds, as people write it."""
    for number in range(tries):
        try:
            fn()
        except ConnectionError:
            if number == tries - 1:
                raise
        else:
            return


def counts(operation: progress.Operation) -> tuple[Any, Any]:
    """What the bar shows."""
    seen = operation.snapshot().progress
    return seen.completed, seen.total


def pages(until: int) -> Iterator[int]:
    """A source that breaks once, between two items."""
    yield from range(until)
    raise ConnectionError("reset")


@pytest.mark.parametrize("options", [{"key": str}, {"mark": True}], ids=["key", "position"])
def test_a_retry_goes_on(options: Any, store: str) -> None:
    """The second try begins with the item that failed; the bar counts each item once."""
    work = Fails()

    def load() -> None:
        for item in progress.track(range(5), **options):
            work(item)

    with progress.operation("load", id="l", resume=store) as one:
        again(load)
        assert counts(one) == (5, 5)
    assert work.done == [0, 1, 2, 3, 4]
    assert [note.text for note in one.snapshot().notes] == ["the loop begins again: 3 items are done"]
    with progress.operation("load", id="l", resume=store):
        assert list(progress.track(range(5), **options)) == []


@pytest.mark.parametrize("options", [{"key": str}, {"mark": True}], ids=["key", "position"])
def test_a_source_that_fails_between_two_items(options: Any, store: str) -> None:
    """The item before is done, and is not handed out again."""
    done: list[int] = []
    sources = iter([pages(3), iter(range(5))])

    def load() -> None:
        for item in progress.track(next(sources), total=5, **options):
            done.append(item)

    with progress.operation("load", id="l", resume=store) as one:
        again(load)
        assert counts(one)[0] == 5
    assert done == [0, 1, 2, 3, 4]


def test_twenty_tries(store: str) -> None:
    """However often it is tried again, no item counts twice."""
    work = Fails(times=20)

    def load() -> None:
        for item in progress.track(range(5), key=str):
            work(item)

    with progress.operation("load", id="l", resume=store) as one:
        again(load, tries=21)
        assert counts(one) == (5, 5)
    assert work.done == [0, 1, 2, 3, 4]


def test_a_retry_in_a_later_attempt(store: str) -> None:
    """What an earlier attempt did and what the try before did are both left out, and count once each."""
    with pytest.raises(ConnectionError), progress.operation("load", id="l", resume=store):
        work = Fails(2)
        for item in progress.track(range(8), key=str):
            work(item)
    work = Fails(5)

    def load() -> None:
        for item in progress.track(range(8), key=str):
            work(item)

    with progress.operation("load", id="l", resume=store) as one:
        again(load)
        assert counts(one) == (8, 8)
    assert work.done == [2, 3, 4, 5, 6, 7]


def test_a_retry_with_its_done_items_last(store: str) -> None:
    """Items that only the second try finds done count as well."""
    with pytest.raises(ConnectionError), progress.operation("load", id="l", resume=store):
        work = Fails(2)
        for item in progress.track(range(8), key=str):
            work(item)
    work = Fails(5)

    def load() -> None:
        for item in progress.track(range(7, -1, -1), key=str):
            work(item)

    with progress.operation("load", id="l", resume=store) as one:
        again(load)
        assert counts(one) == (8, 8)
    assert work.done == [7, 6, 5, 4, 3, 2]


@pytest.mark.parametrize(("retry_failed", "expected"), [(True, [0, 2, 1, 3, 4]), (False, [0, 2, 3, 4])])
def test_failed_items_of_the_try_before(retry_failed: bool, expected: list[int], store: str) -> None:
    """They are tried again, or left, as in a later attempt."""
    work, first = Fails(), [1]

    def load() -> None:
        for item in progress.track(range(5), key=str, retry_failed=retry_failed):
            if item in first:
                first.remove(item)
                progress.record("failed", item=item)
                continue
            work(item)

    with progress.operation("load", id="l", resume=store):
        again(load)
    assert work.done == expected


def test_an_async_loop(store: str) -> None:
    """The same where the loop is async, and its generator ends later."""
    work = Fails()

    async def source() -> AsyncIterator[int]:
        for item in range(5):
            await asyncio.sleep(0)
            yield item

    async def main() -> None:
        async with progress.operation("load", id="l", resume=store) as one:
            for _ in range(2):
                try:
                    async for item in progress.track(source(), key=str, total=5):
                        await asyncio.sleep(0)
                        work(item)
                    break
                except ConnectionError:
                    pass
            await asyncio.sleep(0.01)
            assert counts(one) == (5, 5)

    asyncio.run(main())
    assert work.done == [0, 1, 2, 3, 4]


def test_items_that_the_job_marks(store: str) -> None:
    """With `mark=False` those in hand are handed out again; what is done is not."""
    handed = []
    work = Fails()

    def load() -> None:
        given = list(progress.track(range(5), key=str, mark=False))
        handed.append(given)
        for item in given:
            work(item)
            progress.current().done(item)  # type: ignore[union-attr]

    with progress.operation("load", id="l", resume=store) as one:
        again(load)
        assert counts(one) == (5, 5)
    assert handed == [[0, 1, 2, 3, 4], [3, 4]]


def test_what_is_no_retry(store: str) -> None:
    """A loop that ended, or that `break` left, is not begun again: the next one may have other items of these keys."""

    def load(leave: bool) -> None:
        for _ in progress.track(range(5), key=str):
            if leave:
                break

    for name, leave in (("all", False), ("some", True)):
        with progress.operation("load", id=name, resume=store):
            load(leave)
            with pytest.raises(InvalidState, match="stage of its own"):
                load(leave)


def test_another_loop_is_no_retry(store: str) -> None:
    """After an error a loop elsewhere in the code may have other items."""
    with progress.operation("load", id="l", resume=store):
        with pytest.raises(ConnectionError):
            for _ in progress.track(range(5), key=str):
                raise ConnectionError
        with pytest.raises(InvalidState, match="stage of its own"):
            for _ in progress.track(range(5), key=str):
                pass


def test_the_same_loop_in_two_threads_is_no_retry(store: str) -> None:
    """One that is still open is not taken over."""
    opened, over = threading.Event(), threading.Event()

    def load(one: progress.Operation) -> None:
        for _ in one.track(range(2), key=str):
            opened.set()
            over.wait(10)

    with progress.operation("load", id="l", resume=store) as one:
        thread = threading.Thread(target=load, args=(one,))
        thread.start()
        opened.wait(10)
        try:
            with pytest.raises(InvalidState):
                load(one)
        finally:
            over.set()
            thread.join()


def test_a_stage_around_what_is_tried_again(store: str) -> None:
    """A stage that fails and is opened again has the keys it had, also if the loop in it had ended."""
    done: list[int] = []
    fails = Fails(0)

    def load() -> None:
        with progress.stage("load"):
            done.extend(progress.track(range(3), key=str))
            fails(0)  # the commit

    with progress.operation("load", id="l", resume=store):
        again(load)
    assert done == [0, 1, 2]


# -- steps


def run(store: str, step: Step, id: str = "w") -> Workflow:
    """Run a workflow of one step, which has to complete."""
    work = Workflow("w", stages=[step], checkpoint=store)
    work.run("t", id=id)
    return work


def step_counts(work: Workflow, id: str = "w") -> tuple[Any, Any]:
    """What the bar of the step shows."""
    snapshot = work.get_progress(id)
    assert snapshot is not None
    return snapshot.stages[0].progress.completed, snapshot.stages[0].progress.total


@pytest.mark.parametrize("kind", ["thread", "coroutine"])
def test_a_step_is_tried_again(kind: str, store: str) -> None:
    """Its loop goes on where the first try left it; a later run with the same id finds all of it done."""
    work = Fails()

    def load(task: object) -> str:
        for item in progress.track(range(5), key=str):
            work(item)
        return "loaded"

    async def later(task: object) -> str:
        return load(task)

    flow = run(store, Step("load", load if kind == "thread" else later, retries=1, backoff=0.001))
    assert work.done == [0, 1, 2, 3, 4]
    assert step_counts(flow) == (5, 5)


def test_the_error_of_a_step_is_its_own(store: str) -> None:
    """After the last try its exception comes out, in a second run of the id as well."""
    work = Fails(times=6)

    def load(task: object) -> None:
        for item in progress.track(range(5), key=str):
            work(item)

    for _ in range(2):
        with pytest.raises(ConnectionError, match="reset"):
            run(store, Step("load", load, retries=2, backoff=0.001))
    run(store, Step("load", load, retries=2, backoff=0.001))
    assert work.done == [0, 1, 2, 3, 4]


def test_a_step_that_fails_after_its_loop(store: str) -> None:
    """What comes after the loop is tried again alone; so it is where the loop has a stage of its own."""
    done: list[str] = []
    commit = Fails(0, times=2)

    def load(task: object) -> None:
        done.extend(progress.track(["a", "b"], key=str))
        with progress.stage("inner"):
            done.extend(progress.track(["c", "d"], key=str))
        commit(0)

    run(store, Step("load", load, retries=2, backoff=0.001))
    assert done == ["a", "b", "c", "d"]


def test_a_fallback_goes_on(store: str) -> None:
    """A fallback does what the first way left."""
    work = Fails(times=9)

    def first(task: object) -> None:
        for item in progress.track(range(5), key=str):
            work(item)

    def second(task: object) -> None:
        work.done.extend(progress.track(range(5), key=str))

    run(store, Step("load", first, retries=1, backoff=0.001, fallback=second))
    assert work.done == [0, 1, 2, 3, 4]


def test_a_try_that_is_left_behind(store: str) -> None:
    """A thread whose try took too long takes no further item once the next try goes on; nothing is marked twice."""
    done: list[int] = []
    hangs, over = threading.Event(), threading.Event()

    def load(task: object) -> None:
        first = not hangs.is_set()
        try:
            for item in progress.track(range(5), key=str):
                if item == 2 and first:
                    hangs.set()
                    over.wait(10)
                    continue
                done.append(item)
            over.set()
        except progress.OperationCancelled:
            done.append(-1)
            raise

    run(store, Step("load", load, retries=1, backoff=0.001, timeout=0.3))
    for _ in range(500):
        if -1 in done:
            break
        threading.Event().wait(0.01)
    assert sorted(done) == [-1, 0, 1, 2, 3, 4]


def test_two_steps_of_one_function(store: str) -> None:
    """Each step has keys of its own."""
    work = Fails()
    seen: list[str] = []

    async def load(task: object) -> None:
        for item in progress.track(range(5), key=str):
            seen.append(f"{item}")
            await anyio.sleep(0)
            work(item)

    steps = [Step("a", load, retries=1, backoff=0.001), Step("b", load, retries=1, backoff=0.001)]
    Workflow("w", stages=steps, checkpoint=store).run("t", id="w")
    assert sorted(work.done) == sorted([*range(5), *range(5)])
    assert len(seen) == 11
