"""`track(key=...)` in a resumable operation: what is left out, what is marked, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing.pool
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from otel_progress import (
    CheckpointError,
    CheckpointMismatch,
    InvalidArgument,
    InvalidState,
    Operation,
    operation,
    stage,
    track,
)
from otel_progress.durable import order
from otel_progress.testing import Capture

WORDS = [f"w{n}" for n in range(10)]


class Store:
    """One file, for attempts of one operation."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def attempt(self, **options: object) -> Operation:
        return operation("job", id="job-1", resume=str(self.path), **options)  # type: ignore[call-overload, no-any-return]


@pytest.fixture
def store(tmp_path: Path, progress_capture: Capture) -> Store:
    """Return a store for attempts under a clock that stands still."""
    return Store(tmp_path / "work.db")


@dataclass
class Point:
    """A dataclass of the job."""

    x: int
    y: int


class Odd(PurePosixPath):
    """A path that has none."""

    def __fspath__(self) -> str:
        raise Broken


class Broken(Exception):
    """What the body of a loop raises here."""


def key(item: str) -> str:
    return item


def test_done_items_are_left_out_and_count_as_done(store: Store) -> None:
    """A later attempt takes only what is not marked; the count has both, and the total stays."""
    with pytest.raises(Broken), store.attempt():
        for word in track(WORDS, key=key):
            if word == "w4":
                raise Broken
    with store.attempt() as op:
        assert op.attempt == 2
        assert list(track(WORDS, key=key)) == WORDS[4:]
        progress = op.snapshot().progress
    assert (progress.completed, progress.total) == (10, 10)


def test_restored_items_are_no_pace(store: Store, progress_capture: Capture) -> None:
    """The rate is that of the items done in this attempt."""
    with pytest.raises(Broken), store.attempt():
        for number in track(range(1000), key=lambda number: number):
            if number == 900:
                raise Broken
    with store.attempt() as op:
        for number in track(range(1000), key=lambda number: number):
            progress_capture.advance(1)
            if number == 930:
                break
        found = op.snapshot().progress
    assert found.completed == 930
    assert found.rate == pytest.approx(1.0, rel=0.2)


def test_break_marks_nothing(store: Store) -> None:
    """The item in hand at a break is taken again."""
    with store.attempt():
        for word in track(WORDS, key=key):
            if word == "w2":
                break
    with store.attempt():
        assert list(track(WORDS, key=key)) == WORDS[2:]


@pytest.mark.parametrize("retry", [True, False])
def test_a_failed_item_is_tried_again_unless_that_is_not_wanted(store: Store, retry: bool) -> None:
    """`record("failed")` and an exception that leaves the body both make the item in hand a failed one."""
    with pytest.raises(Broken), store.attempt() as op:
        for word in track(WORDS, key=key):
            if word == "w1":
                op.record("failed", item="the second word")
            if word == "w4":
                raise Broken
    with store.attempt():
        rest = list(track(WORDS, key=key, retry_failed=retry))
    assert rest == (["w1", *WORDS[4:]] if retry else WORDS[5:])


def test_a_break_before_a_failure_elsewhere_is_no_failure(store: Store) -> None:
    """An exception that comes after the loop was left does not make its last item a failed one."""
    with pytest.raises(Broken), store.attempt():
        for word in track(WORDS, key=key):
            if word == "w3":
                break
        raise Broken
    with store.attempt():
        assert list(track(WORDS, key=key, retry_failed=False)) == WORDS[3:]


def test_without_a_key_mark_goes_by_position(store: Store) -> None:
    """`mark=True` alone leaves out as many items as were done, and takes failed ones again."""
    with pytest.raises(Broken), store.attempt() as op:
        for word in track(iter(WORDS), mark=True):
            if word == "w1":
                op.record("failed", item=word)
            if word == "w5":
                raise Broken
    with store.attempt():
        assert list(track(iter(WORDS), mark=True)) == ["w1", *WORDS[5:]]
    with store.attempt():
        assert list(track(iter(WORDS), mark=True)) == []


def test_a_loop_without_key_or_mark_is_as_ever(store: Store) -> None:
    """Loops of a library that knows nothing of resuming are not touched: their results are in memory."""
    for _ in range(2):
        with store.attempt():
            assert list(track(WORDS)) == WORDS


def test_a_key_means_nothing_without_a_store(progress_capture: Capture) -> None:
    """The same code runs in an operation that is not resumable, and outside of any."""
    with operation("job"):
        assert list(track(WORDS, key=key)) == WORDS
    assert list(track(WORDS, key=key)) == WORDS


def test_numbers_are_keys(store: Store) -> None:
    """5 and "5" are the same key."""
    with store.attempt() as op:
        assert list(track([5, 6], key=lambda number: number)) == [5, 6]
        assert op.is_done("5")
        assert op.is_done(6)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (None, "a text or a whole number"),
        (True, "a text or a whole number"),
        (1.5, "a text or a whole number"),
        (b"x", "a text or a whole number"),
        ("", "must not be empty"),
        ("x" * 1025, "at most 1024"),
        pytest.param(10**5000, "at most 1024", id="endless"),
        ("a\0b", "without NUL"),
        ("\ud800", "UTF-8"),
    ],
)
def test_a_bad_key_is_refused(store: Store, bad: object, says: str) -> None:
    """Keys are texts or whole numbers, not empty, and short; the error says what to do."""
    with pytest.raises(InvalidArgument, match=says), store.attempt():
        list(track(["item"], key=lambda _: bad))


@pytest.mark.parametrize("mark", [True, False])
def test_endless_keys_are_refused(store: Store, mark: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are held in memory, so a stream ends with an error that names the way for one."""
    for module in ("loop", "session"):
        monkeypatch.setattr(f"otel_progress.durable.{module}.KEYS", 5)
    taken = []
    with pytest.raises(CheckpointError, match=r"at most 5 keys.*offset"), store.attempt() as op:
        for number in track(itertools.count(), key=str, mark=mark):
            taken.append(number)
            if not mark:
                op.done(number)
    assert taken == [0, 1, 2, 3, 4]


def test_two_items_with_one_key_are_refused(store: Store) -> None:
    """One of them would be left out in silence."""
    with pytest.raises(InvalidArgument, match="same key 'a'"), store.attempt():
        list(track(["a", "b", "a"], key=key))


def test_other_orders_are_noticed(store: Store) -> None:
    """A loop by position whose first items are others, or fewer, is an error: it would leave out what nobody did."""
    with store.attempt():
        for word in track(WORDS, mark=True):
            if word == "w5":
                break
    changed = {
        "others now": [["new", *WORDS], WORDS[1:], WORDS[::-1], [*WORDS[:2], "new", *WORDS[3:]]],
        "only 3": [WORDS[:3], iter(WORDS[:3])],
    }
    for says, inputs in changed.items():
        for items in inputs:
            with pytest.raises(CheckpointMismatch, match=says), store.attempt():
                list(track(items, mark=True))
    with store.attempt():
        assert list(track([*WORDS, "w10"], mark=True)) == [*WORDS[5:], "w10"]


@pytest.mark.parametrize(("policy", "rest"), [("restart", ["new", *WORDS]), ("keep", WORDS[4:])])
def test_a_loop_over_other_items_goes_on_as_the_job_says(store: Store, policy: str, rest: list[str]) -> None:
    """`restart` takes all items, and the next attempt goes on from there; `keep` goes on at the position."""
    with pytest.raises(Broken), store.attempt() as op:
        for word in track(WORDS, mark=True):
            if word == "w1":
                op.record("failed", item=word)
            if word == "w5":
                raise Broken
    now = ["new", *WORDS]
    with store.attempt(resume_mismatch=policy):
        items = iter(track(now, mark=True, retry_failed=False))
        taken = [next(items) for _ in range(2)]
    with store.attempt():
        taken += list(track(now, mark=True, retry_failed=False))[1:]
    assert taken == rest


def test_items_of_any_kind_have_a_digest() -> None:
    """Values are recognised by another process, in lists as well; objects by their type; long ones cost no more."""
    given = [1, 2.5, None, "x", b"x", Path("y"), date(2026, 1, 1), ("a", 1), {"a": [1]}, Point(1, 2), 10**5000]
    assert len({order.of([one]) for one in given}) == len(given)
    assert order.of(given) == order.of([*given[:-2], Point(1, 2), 10**5000])
    assert order.of(["ab", "c"]) != order.of(["a", "bc"])
    assert order.of([object()]) == order.of([object()])
    assert order.of(["x" * 10**7]) != order.of(["x" * (10**7 - 1)])
    assert order.of([[[[[[[1]]]]]]])
    assert order.of([Odd()]) == order.of([Odd()])


def test_a_set_has_no_position(progress_capture: Capture) -> None:
    """Another process has its items in another order."""
    with operation("job"), pytest.raises(InvalidArgument, match="no order"):
        track({"a", "b"}, mark=True)


def test_bad_options_are_refused(progress_capture: Capture) -> None:
    """The error names what is accepted."""
    with operation("job"), pytest.raises(InvalidArgument, match="True or False"):
        track(WORDS, mark="all")  # type: ignore[arg-type]
    with operation("job"), pytest.raises(InvalidArgument, match="key is a function"):
        track(WORDS, key="id")  # type: ignore[arg-type]


def test_a_loop_that_resumes_nothing_is_told_once(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Who makes an operation resumable and forgets the loop learns it at its start, and may say that it is meant so."""
    with store.attempt():
        list(track(WORDS, mark=False))
        for word in track(WORDS, mark=False):
            list(track(word))
    with store.attempt() as op:
        assert op.restored is None
        list(track(WORDS))
    assert not caplog.records
    for _ in range(2):
        with operation("forgotten", id="job-2", resume=str(store.path)):
            for _ in range(2):
                assert list(track(WORDS)) == WORDS
    (record,) = caplog.records
    assert "'forgotten' can be resumed, but its loop takes all items in each attempt" in record.getMessage()


def test_a_second_loop_in_a_handle_is_refused(store: Store) -> None:
    """Keys of two loops could be the same, and then the second would leave out what nobody did."""
    with pytest.raises(InvalidState, match="a stage of its own"), store.attempt():
        list(track(WORDS, key=key))
        list(track(WORDS, key=key))


def test_loops_that_take_all_items_stand_beside_one_that_is_resumed(store: Store) -> None:
    """They are not resumed, so any number of them may run in its handle, before and after it."""
    for attempt in range(2):
        with store.attempt():
            words = {word: len(word) for word in track(WORDS, mark=False)}
            assert list(words) == WORDS
            assert list(track(WORDS, key=key)) == ([] if attempt else WORDS)
            assert list(track(WORDS, mark=False)) == WORDS


@pytest.mark.parametrize("options", [{"key": key}, {"mark": True}, {"key": key, "mark": False}])
def test_any_second_loop_that_is_resumed_is_refused(store: Store, options: dict[str, Any]) -> None:
    """By key, by position or by `done`: what one of them marked would be done for the other."""
    with pytest.raises(InvalidState, match="a stage of its own"), store.attempt():
        list(track(WORDS, mark=True))
        list(track(WORDS, **options))


def test_stages_of_one_name_go_on_one_by_one(store: Store) -> None:
    """The second stage of a name goes on with the second of the attempt before, also by position."""
    taken: list[str] = []
    for stop in (14, 99):
        with contextlib.suppress(Broken), store.attempt():
            for number in range(2):
                with stage("epoch"):
                    for word in track(WORDS, mark=True):
                        taken.append(f"{number} {word}")
                        if len(taken) == stop:
                            raise Broken
    whole = [f"{number} {word}" for number in range(2) for word in WORDS]
    assert taken == [*whole[:14], *whole[13:]]


def test_stages_have_keys_of_their_own(store: Store) -> None:
    """Each stage has its own keys, and so has each further run of a completed one."""
    for attempt in range(2):
        taken: list[tuple[str, str]] = []
        with pytest.raises(Broken), store.attempt():
            for name in ("read", "write", "write"):
                with stage(name):
                    for word in track(WORDS, key=key):
                        taken.append((name, word))
                        if len(taken) == 25 - 20 * attempt:
                            raise Broken
        if not attempt:
            assert taken == [(name, word) for name in ("read", "write", "write") for word in WORDS][:25]
        else:
            assert taken == [("write", word) for word in WORDS[4:9]]


def test_a_stage_that_failed_is_continued(store: Store) -> None:
    """A retry within one attempt goes on where the stage failed."""
    taken: list[str] = []
    with store.attempt():
        for _ in range(2):
            try:
                with stage("read"):
                    for word in track(WORDS, key=key):
                        taken.append(word)
                        if len(taken) == 4:
                            raise Broken
            except Broken:
                pass
    assert taken == [*WORDS[:4], *WORDS[3:]]


def test_stages_inside_an_item_belong_to_it(store: Store) -> None:
    """What a stage did for one item is not taken for another; it is forgotten once the item is done."""
    pages = ["p1", "p2", "p3"]
    read: list[tuple[str, str]] = []
    for _ in range(2):
        with pytest.raises(Broken), store.attempt():
            for book in track(["a", "b", "c"], key=key):
                with stage("read"):
                    for page in track(pages, key=key):
                        read.append((book, page))
                        if len(read) in (5, 8):
                            raise Broken
    whole = [(book, page) for book in "abc" for page in pages]
    assert read == [*whole[:5], *whole[4:7]]


def test_a_pool_that_takes_all_items_is_refused(store: Store) -> None:
    """Items that wait in a pool would be marked as done."""
    with pytest.raises(InvalidState, match="mark=False"), store.attempt(), ThreadPoolExecutor(2) as pool:
        pool.map(str, track(WORDS, key=key))
    with (
        pytest.raises(InvalidState, match="mark=False"),
        store.attempt(),
        multiprocessing.pool.ThreadPool(2) as threads,
    ):
        threads.map(str, track(WORDS, key=key))


def test_another_thread_that_takes_an_item_is_refused(store: Store) -> None:
    """The error comes with the first item."""
    found: list[BaseException] = []

    def take(items: Iterator[str]) -> None:
        try:
            next(items)
        except InvalidState as error:
            found.append(error)

    with store.attempt():
        items = iter(track(WORDS, key=key))
        thread = threading.Thread(target=take, args=(items,))
        thread.start()
        thread.join()
    assert "another thread or task" in str(found[0])
    with store.attempt():
        assert list(track(WORDS, key=key)) == WORDS


def test_a_pool_marks_by_done(store: Store) -> None:
    """With `mark=False` a pool may take the items, and those that came back are marked."""

    def work(word: str) -> str:
        return word

    with store.attempt() as op, multiprocessing.pool.ThreadPool(2) as pool:
        for word in pool.imap_unordered(work, track(WORDS, key=key, mark=False)):
            if word not in ("w3", "w7"):
                op.done(word)
        assert op.snapshot().progress.completed == 8
    with store.attempt() as op:
        assert op.is_done("w4")
        assert not op.is_done("w3")
        assert list(track(WORDS, key=key, mark=False)) == ["w3", "w7"]


def test_done_marks_without_a_loop(store: Store) -> None:
    """Code without a loop asks and marks; each key counts as a unit, once."""
    with store.attempt(total=3) as op:
        for word in ("a", "b", "a"):
            op.done(word)
        assert op.snapshot().progress.completed == 2
    with store.attempt(total=3) as op:
        assert [op.is_done(word) for word in "abc"] == [True, True, False]
        op.done("c")
        assert op.snapshot().progress.completed == 3


def test_done_marks_the_item_in_hand(store: Store) -> None:
    """It is marked even if the loop is left before the next one is taken."""
    with store.attempt() as op:
        for word in track(WORDS, key=key):
            if word == "w1":
                op.done("w1")
                break
    with store.attempt():
        assert list(track(WORDS, key=key)) == WORDS[2:]


def test_an_async_loop_is_resumed(store: Store) -> None:
    """`async for` leaves out and marks as `for` does."""

    async def words() -> AsyncIterator[str]:
        for word in WORDS:
            yield word

    async def run(most: int) -> list[str]:
        taken = []
        async with store.attempt():
            async for word in track(words(), key=key):
                taken.append(word)
                if len(taken) == most:
                    break
        return taken

    assert asyncio.run(run(4)) == WORDS[:4]
    assert asyncio.run(run(99)) == WORDS[3:]


@pytest.mark.parametrize("options", [{"key": key}, {"mark": True}, {"key": key, "mark": False}])
def test_an_async_loop_goes_the_same_way(store: Store, options: dict[str, Any]) -> None:
    """By key, by position and by `done`; the error of the source passes, and what was done before is kept."""

    async def words(most: int) -> AsyncIterator[str]:
        for word in WORDS[:most]:
            yield word
        if most < len(WORDS):
            raise Broken

    async def run(most: int) -> list[str]:
        taken = []
        async with store.attempt() as op:
            async for word in track(words(most), **options):
                taken.append(word)
                if options.get("mark") is False:
                    op.done(word)
                assert op.snapshot().progress.completed == WORDS.index(word) + (options.get("mark") is False)
        return taken

    with pytest.raises(Broken):
        asyncio.run(run(4))
    assert asyncio.run(run(10)) == WORDS[4:]
    assert asyncio.run(run(10)) == []


def test_stages_of_one_name_in_several_tasks_are_refused(store: Store) -> None:
    """A later attempt could not tell which is which."""

    async def work(name: str) -> None:
        with stage(name) as st:
            await asyncio.sleep(0)
            st.checkpoint(at=1)
            await asyncio.sleep(0)

    async def run(*names: str) -> None:
        with store.attempt():
            await asyncio.gather(*(work(name) for name in names))

    with pytest.raises(InvalidState, match="name each after its work"):
        asyncio.run(run("shard", "shard"))
    asyncio.run(run("shard 1", "shard 2"))


def test_an_error_of_the_items_passes(store: Store) -> None:
    """What the iterable raises comes through, and what was done before is marked."""

    def words() -> Iterator[str]:
        yield from WORDS[:3]
        raise Broken

    with pytest.raises(Broken), store.attempt():
        for _ in track(words(), key=key):
            pass
    with store.attempt():
        assert list(track(WORDS, key=key)) == WORDS[3:]


def test_many_marks_are_saved_on_the_way(store: Store) -> None:
    """At most 1,000 marks are not saved at any time."""
    with store.attempt() as op:
        for number in track(range(2500), key=lambda number: number):
            assert op._scope.behind() <= 1000
            if number == 2400:
                saved = len(op._session._store.keys("job-1", "").done)
                assert saved >= 1400


def test_an_empty_loop_is_no_trouble(store: Store) -> None:
    """No items, no marks."""
    for _ in range(2):
        with store.attempt():
            assert list(track([], key=key)) == []


def test_what_was_done_before_the_end_can_not_be_marked_after_it(store: Store) -> None:
    """After the end nothing is saved, and that is said."""
    with store.attempt() as op:
        pass
    with pytest.raises(CheckpointError, match="has ended"):
        op.done("late")
