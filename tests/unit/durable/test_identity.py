"""Whose result is it: what tells stages and calls that run once apart, and that a result is whole or made again."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from otel_progress import (
    CarryingExecutor,
    CheckpointError,
    InvalidArgument,
    InvalidState,
    Operation,
    operation,
    semconv,
    stage,
    track,
)
from otel_progress.durable import saving
from otel_progress.durable.store import open_store
from otel_progress.model.sentences import sentence
from otel_progress.model.snapshot import Event
from otel_progress.render.plain import closing, outcome
from otel_progress.testing import Capture


class Broken(Exception):
    """What a job raises here."""


@pytest.fixture
def path(tmp_path: Path, progress_capture: Capture) -> str:
    """Return the path of a store, under a clock that stands still."""
    return str(tmp_path / "work.db")


def attempt(path: str) -> Operation:
    return operation("job", id="job-1", resume=path)


def page_of(item: str, **options: Any) -> str:
    """The page of an item, from a block that runs once."""
    with stage("fetch", once=True, **options) as fetch:
        if fetch.restored is None:
            fetch.result(page=f"page {item}")
            return f"page {item}"
        return str(fetch.restored["page"])


# -- a result is kept, or the call runs again


@stage("fetch", once=True)
def fetch_page(number: int) -> str:
    return f"page {number}"


def test_results_of_threads_are_kept(path: str) -> None:
    """Whatever the writer saves while a stage ends, its result is not replaced by an empty one."""
    expected = [f"page {number}" for number in range(60)]
    for _ in range(3):
        with attempt(path), CarryingExecutor(4) as pool:
            assert list(pool.map(fetch_page, range(60))) == expected
            assert list(pool.map(fetch_page, range(60))) == expected


@pytest.mark.parametrize("step", range(4))
def test_a_write_between_any_two_steps_changes_no_result(path: str, step: int) -> None:
    """The result is written when the stage completes, whole."""
    for _ in range(2):
        with attempt(path) as op:
            session = op._session
            with stage("fetch", once=True) as fetch:
                if step == 0:
                    session._writer.flush(1)
                if fetch.restored is None:
                    fetch.result(a=1)
                    if step == 1:
                        session._writer.flush(1)
                    fetch.result(b=2)
                    if step == 2:
                        session._writer.flush(1)
                else:
                    assert fetch.restored == {"a": 1, "b": 2}
    assert open_store(path).state("job-1", "fetch", "result") == '{"a":1,"b":2}'


def test_a_result_of_a_stage_that_did_not_complete_is_not_kept(path: str) -> None:
    """What follows `result` in the stage may be the work itself."""
    for _ in range(2):
        with contextlib.suppress(Broken), attempt(path) as op, stage("fetch", once=True) as fetch:
            assert fetch.restored is None
            fetch.result(rows=1)
            op._session._writer.flush(1)
            raise Broken


def test_a_stage_that_is_left_out_says_so(path: str) -> None:
    """It would look like work that took no time."""
    for message in (None, "done before"):
        with attempt(path) as op:
            assert fetch_page(1) == "page 1"
        assert op.snapshot().stages[0].message == message


def test_a_stage_that_runs_all_the_same_does_not_say_that_it_was_done(path: str) -> None:
    """Code that does not like the result makes a new one; that is work, and so it is shown."""
    for version in (1, 2):
        with attempt(path) as op, stage("fetch", once=True) as fetch:
            if fetch.restored is None or fetch.restored["version"] != version:
                fetch.result(version=version)
        assert op.snapshot().stages[0].message is None


def test_a_stage_that_is_left_out_does_not_look_like_work(path: str) -> None:
    """Neither in the feed, nor in the tree, nor in the summary at the end, is there a time of it."""
    for _ in range(2):
        with attempt(path) as op:
            fetch_page(1)
    seen = op.snapshot()
    found = [line for line in closing(seen, "job", 10) if "fetch" in str(line)]
    assert ["".join(text for text, _ in line).strip() for line in found] == ["✓ fetch  done before"]
    assert outcome(seen.stages[0]) == "done before"
    ended = Event(semconv.STAGE_ENDED, 0, seen, stage="fetch")
    assert sentence(ended) == "job: stage fetch was done before"


@pytest.mark.parametrize("many", [8, 300], ids=["listed", "folded"])
def test_calls_that_are_left_out_are_no_runs(path: str, progress_capture: Capture, many: int) -> None:
    """The median of a stage is that of calls that were made, not of those whose result was kept."""

    @stage("fetch", once=True)
    def slow_page(number: int) -> int:
        progress_capture.clock.sleep(2)
        return number

    for most in (many - 3, many):
        with attempt(path) as op:
            assert [slow_page(number) for number in range(most)] == list(range(most))
    runs = op.snapshot().repeated
    assert [(one.count, one.median, one.longest) for one in runs] == [(3, 2.0, 2.0)]
    found = op.statistics().stages
    assert [(one.durations.count, one.durations.p50) for one in found if one.durations] == [(3, 2.0)]
    assert "fetch x 3: 3 completed, 6 s in all" in op.summary()
    with attempt(path) as op:
        assert [slow_page(number) for number in range(5)] == list(range(5))
    assert "  fetch x 5: done before" in op.summary().splitlines()
    assert not [one for one in op.statistics().stages if one.durations]


def test_a_call_that_comes_again_at_once_gets_what_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for the write that is under way, in the writer's own thread, and for no more than that."""
    monkeypatch.setattr(saving, "WAIT_SECONDS", 2.0)
    calls = []

    @stage("fetch", once=True)
    def fetch(item: str) -> str:
        calls.append(item)
        return f"page {item}"

    with operation("job", id="job-1", resume=str(tmp_path / "work.db")):
        assert [fetch("a") for _ in range(5)] == ["page a"] * 5
    assert calls == ["a"]


def test_a_function_without_a_stored_value_is_called_again(path: str) -> None:
    """A result that another program left without a value is no value."""
    calls: list[int] = []

    @stage("plan", once=True)
    def plan() -> int:
        calls.append(1)
        return 5

    for _ in range(2):
        with attempt(path) as op:
            assert plan() == 5
            op._session._writer.flush(1)
            store = open_store(path)
            with store._lock:  # type: ignore[attr-defined]
                store._connected().execute("""UPDATE states SET text = '{}' WHERE kind = 'result'""")  # type: ignore[attr-defined]
    assert len(calls) == 2


def test_one_call_at_two_places_at_once_runs_twice(path: str) -> None:
    """Both get a value; later ones get the stored one."""
    calls: list[str] = []

    @stage("fetch", once=True)
    async def fetch(page: str) -> str:
        calls.append(page)
        await asyncio.sleep(0)
        return page

    async def run() -> None:
        async with attempt(path):
            assert await asyncio.gather(fetch("a"), fetch("a"), fetch("b")) == ["a", "a", "b"]
            assert await fetch("a") == "a"

    asyncio.run(run())
    asyncio.run(run())
    assert sorted(calls) == ["a", "a", "b"]


# -- what tells calls apart


def test_functions_of_one_stage_name_are_told_apart(path: str) -> None:
    """The name of a stage is a label; the function is part of what is known of a call."""

    @stage("ask", once=True)
    def first(text: str) -> str:
        return f"first {text}"

    @stage("ask", once=True)
    def second(text: str) -> str:
        return f"second {text}"

    for _ in range(2):
        with attempt(path):
            assert [first("x"), second("x")] == ["first x", "second x"]


def test_closures_are_told_apart_by_what_they_hold(path: str) -> None:
    """Plain values tell them apart in each attempt; where they hold others, a second one is refused."""

    def maker(number: object) -> Callable[[], str]:
        @stage("make", once=True)
        def make() -> str:
            return str(number)

        return make

    for _ in range(2):
        with attempt(path):
            assert [maker(number)() for number in range(3)] == ["0", "1", "2"]
    with attempt(path), pytest.raises(InvalidState, match="for two objects"):
        print([maker([number])() for number in range(2)])


def test_methods_of_two_objects_are_told_apart(path: str) -> None:
    """A dataclass by its fields; of other objects the second one is refused."""

    @dataclass
    class Site:
        url: str

        @stage("read", once=True)
        def read(self) -> str:
            return self.url

    class Agent:
        def __init__(self, name: str) -> None:
            self.name = name

        @stage("answer", once=True)
        def answer(self, question: str) -> str:
            return f"{self.name}: {question}"

    for _ in range(2):
        with attempt(path):
            assert [Site(url).read() for url in "ab"] == ["a", "b"]
            one, two = Agent("one"), Agent("two")
            assert [one.answer("x"), one.answer("x")] == ["one: x", "one: x"]
            with pytest.raises(InvalidState, match="for two objects"):
                two.answer("x")


def test_partials_are_told_apart_by_what_they_bind(path: str) -> None:
    """An argument is one, whoever gives it."""

    def ask(model: str, question: str) -> str:
        return f"{model}: {question}"

    for _ in range(2):
        with attempt(path):
            calls = [stage("ask", once=True)(functools.partial(ask, model)) for model in "ab"]
            assert [call("x") for call in calls] == ["a: x", "b: x"]


# -- stages of items


def test_a_block_that_runs_once_is_refused_the_second_time(path: str) -> None:
    """The next item of a plain loop would get the result of the one before; a key tells them apart."""
    with attempt(path):
        assert page_of("a") == "page a"
        with pytest.raises(InvalidState, match="has completed here"):
            page_of("b")
    for _ in range(2):
        with attempt(path):
            assert [page_of(item, key=item) for item in "aba"] == ["page a", "page b", "page a"]


def test_a_block_in_a_stage_that_comes_again_is_refused(path: str) -> None:
    """Also where the stage around it failed, as the next one may be of another item."""
    with attempt(path), contextlib.suppress(Broken):
        with stage("item"):
            page_of("a")
            raise Broken
    with attempt(path):
        with contextlib.suppress(Broken), stage("item"):
            page_of("a")
            raise Broken
        with pytest.raises(InvalidState, match="has completed here"), stage("item"):
            page_of("b")


def test_a_stage_with_a_key_may_come_again(path: str) -> None:
    """Its key says that it is the same work: what completed inside it is left out."""
    for _ in range(2):
        with attempt(path):
            for item in "aabb":
                with contextlib.suppress(Broken), stage("item", key=item):
                    assert page_of(item) == f"page {item}"
                    raise Broken


def test_work_that_begins_anew_gets_its_results(path: str) -> None:
    """A workflow that tries a step again says so."""
    with attempt(path) as op, stage("step") as step:
        assert page_of("a") == "page a"
        op._session.tries_again(step)
        assert page_of("b") == "page a"
        with contextlib.suppress(Broken):
            for word in track("xyz", key=str):
                if word == "y":
                    raise Broken
        op._session.tries_again(step)
        assert list(track("xyz", key=str)) == ["y", "z"]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("kind", ["fetch", "item"])
def test_a_pool_without_names_is_refused_at_the_first_item(path: str, workers: int, kind: str) -> None:
    """Nobody knows whose result it would be in a later attempt; so also if the items do not overlap."""
    ran: list[str] = []

    def work(item: str) -> str:
        outer: Any = stage("item") if kind == "item" else contextlib.nullcontext()
        with outer:
            page = page_of(item)
            ran.append(item)
            return page

    with attempt(path), CarryingExecutor(workers) as pool:
        for future in [pool.submit(work, item) for item in track("abcd", key=str, mark=False)]:
            with pytest.raises(InvalidState, match="may belong to any of them"):
                future.result()
    assert ran == []


def test_a_task_for_each_item_is_refused_unless_it_is_named(path: str) -> None:
    """The same in asyncio; with a key, or in a function that gets the item, each item gets its own."""

    @stage("read", once=True)
    async def read(item: str) -> str:
        return f"page {item}"

    async def one(op: Operation, item: str, named: bool) -> None:
        async with stage("item", **({"key": item} if named else {})):  # type: ignore[arg-type]
            assert await read(item) == f"page {item}"
            assert page_of(item) == f"page {item}"
            await asyncio.sleep(0)
        if named:
            op.done(item)

    async def run(named: bool, items: str) -> None:
        async with attempt(path) as op:
            await asyncio.gather(*[one(op, item, named) for item in track(items, key=str, mark=False)])

    with pytest.raises(InvalidState, match="may belong to any of them"):
        asyncio.run(run(False, "abcd"))
    asyncio.run(run(True, "abcd"))
    asyncio.run(run(True, "dcbaxyz"))


def test_an_item_is_known_where_it_was_taken(path: str) -> None:
    """In the place that took one item, and has not marked it, a stage belongs to that one; by `is_done` as well."""
    for number in range(2):
        with attempt(path) as op:
            with stage("plan", once=True) as plan:
                assert plan.restored == (None if not number else {})
            for item in track("abc", key=str, mark=False):
                assert page_of(item) == f"page {item}"
                if item != "b":
                    op.done(item)
                else:
                    op.record("failed", item=item)
            for item in ("x", "y"):
                if not op.is_done(item):
                    assert page_of(item) == f"page {item}"
                    op.done(item)
            with stage("publish", once=True) as publish:
                assert publish.restored == (None if not number else {})


def test_a_list_of_what_is_left_makes_no_item_known(path: str) -> None:
    """Who asks for several keys in a row works on one of them, nobody knows on which."""
    with attempt(path) as op:
        left = [item for item in "abcd" if not op.is_done(item)]
        with pytest.raises(InvalidState, match="may belong to any of them"):
            page_of(left[0])
        for item in left:
            assert page_of(item, key=item) == f"page {item}"
            op.done(item)
        assert page_of("whole") == "page whole"


def test_what_is_done_is_forgotten(path: str) -> None:
    """What stages inside an item kept is needed as long as the item is not done."""
    with attempt(path) as op:
        for item in track("abc", key=str, mark=False):
            page_of(item)
            op._session._writer.flush(1)
            assert open_store(path).state("job-1", f'["{item}"]/fetch', "result") is not None
            op.done(item)
            op._session._writer.flush(1)
            assert open_store(path).state("job-1", f'["{item}"]/fetch', "result") is None


@pytest.mark.parametrize("bad", [True, "", 1.5, ["a"], b"a"])
def test_a_bad_key_of_a_stage_is_refused(bad: Any) -> None:
    """It is a text or a whole number."""
    with pytest.raises(InvalidArgument, match="the key of a stage"):
        stage("item", key=bad)


# -- under load


class Killed(BaseException):
    """Ends an attempt at any moment."""


def _items(draw: random.Random) -> Iterator[str]:
    items = [f"i{number}" for number in range(24)]
    draw.shuffle(items)
    yield from items


@pytest.mark.parametrize("seed", range(6))
def test_no_item_ever_gets_the_result_of_another(path: str, seed: int) -> None:
    """In threads and tasks, in another order each time, ended at random moments, until all are done."""
    draw = random.Random(seed)
    wrong: list[tuple[str, Any]] = []

    @stage("read", once=True)
    def read(item: str) -> str:
        return f"text {item}"

    def one(op: Operation, item: str, budget: list[int], lock: Any) -> None:
        with stage("item", key=item):
            for found, want in ((page_of(item), f"page {item}"), (read(item), f"text {item}")):
                if found != want:
                    wrong.append((item, found))
                with lock:
                    budget[0] -= 1
                if budget[0] < 0:
                    raise Killed
        op.done(item)

    async def tasks(op: Operation, budget: list[int]) -> None:
        async def later(item: str) -> None:
            await asyncio.sleep(0)
            one(op, item, budget, contextlib.nullcontext())

        await asyncio.gather(*[later(item) for item in track(_items(draw), key=str, mark=False)])

    for number in range(40):
        budget = [draw.randrange(30)]
        try:
            with attempt(path) as op:
                if (number + seed) % 2:
                    asyncio.run(tasks(op, budget))
                else:
                    lock = threading.Lock()
                    with CarryingExecutor(draw.choice([1, 2, 4])) as pool:
                        items = track(_items(draw), key=str, mark=False)
                        futures = [pool.submit(one, op, item, budget, lock) for item in items]
                    for future in futures:
                        future.result()
            break
        except Killed:
            continue
    else:
        raise AssertionError("the job never ended")
    assert wrong == []


# -- who takes all items at once


@pytest.mark.parametrize(
    "take",
    [
        lambda items: [item for item in items if item],
        lambda items: {item: 1 for item in items if item},
        lambda items: [*items],
        list,
        tuple,
        sorted,
    ],
)
def test_who_takes_all_items_at_once_is_warned(
    path: str, take: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """What is only queued would be marked; with `mark=False` nothing is said."""
    with attempt(path):
        take(track("abc", key=str, mark=False))
    assert caplog.text == ""
    with attempt(path), stage(f"load {id(take)}"):
        take(track("abc", key=str))
    assert "use track(..., mark=False)" in caplog.text


def test_a_loop_with_a_body_is_not_warned(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the body does, and whatever is between: the work is done when the next item is taken."""
    with attempt(path):
        with stage("a"):
            for item in track("abc", key=str):
                if item == "b":
                    continue
                assert [part for part in item if part]
        with stage("b"):
            rows: list[str] = []
            for _, item in enumerate(track(list("abc"), key=str)):
                rows.append(item)
        with stage("c"):
            for _ in zip(track(list("abc"), key=str), "abc", strict=True):
                pass
        with stage("d"):
            items = iter(track(list("abc"), key=str))
            while next(items, None) is not None:
                pass
        with stage("e"):
            assert sum(len(item) for item in track(list("abc"), key=str)) == 3
        with stage("f"):
            tracked = track(list("abc"), key=str)
            for _ in tracked:
                assert len(tracked) == 3
    assert caplog.text == ""


def test_a_comprehension_in_a_task_is_refused(path: str) -> None:
    """`gather` over coroutines would have all of them marked before the first runs."""

    async def run(**options: Any) -> None:
        async with attempt(path) as op:

            async def fetch(item: str) -> None:
                await asyncio.sleep(0)
                if item == "c":
                    raise Broken
                op.done(item)

            await asyncio.gather(*[fetch(item) for item in track("abc", key=str, **options)])

    with pytest.raises(InvalidState, match="takes all items"):
        asyncio.run(run())
    for _ in range(2):
        with pytest.raises(Broken):
            asyncio.run(run(mark=False))
    assert open_store(path).keys("job-1", "").done == {"a", "b"}


# -- what is refused


@pytest.mark.parametrize("state", [{1: 2}, {"a": {3: 1}}, {"a": [{"b": ({True: 1},)}]}])
def test_keys_that_would_come_back_as_texts_are_refused(path: str, state: dict[Any, Any]) -> None:
    """Code that works in a first attempt works in later ones."""
    with attempt(path) as op, pytest.raises(CheckpointError, match="would come back as a text"):
        op.checkpoint(value=state)


def test_a_state_that_is_not_given_by_name_is_refused(path: str) -> None:
    """Nothing that was to be saved is ignored."""
    with attempt(path) as op:
        with pytest.raises(InvalidArgument):
            op.checkpoint({"a": 1})  # type: ignore[call-arg]
        with pytest.raises(InvalidArgument):
            op.done()  # type: ignore[call-arg]


@pytest.mark.parametrize("bad", ["", "  ", "x" * 500, "\ud800", lambda: "x", object()])
def test_an_id_that_is_not_found_again_is_refused(path: str, bad: Any) -> None:
    """Two ids are never taken for one, and none is made up."""
    with pytest.raises(InvalidArgument, match="id"):
        operation("job", id=bad, resume=path)


def test_an_address_is_told_without_its_password() -> None:
    """Errors end up in logs."""
    with pytest.raises(InvalidArgument) as told:
        open_store("postgres://user:secret@host/db")
    assert "secret" not in str(told.value)
    assert "postgres://host/db" in str(told.value)


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    """The remedy is to create it."""
    with pytest.raises(CheckpointError, match="the folder does not exist"):
        open_store(str(tmp_path / "none" / "work.db"))
