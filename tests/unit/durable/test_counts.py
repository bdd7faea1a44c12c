"""What is said of a resume: counts, totals, and where it goes on, as the store really has them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import pytest

from otel_progress import Operation, operation, stage, track, waiting
from otel_progress.durable.holder import this_process
from otel_progress.durable.store import open_store
from otel_progress.testing import Capture


class Broken(Exception):
    """What a job raises here."""


@pytest.fixture
def path(tmp_path: Path, progress_capture: Capture) -> str:
    """Return the path of a store, under a clock that stands still."""
    return str(tmp_path / "work.db")


def attempt(path: str, **options: Any) -> Operation:
    return operation("job", id="job-1", resume=path, **options)


def far(op: Operation) -> tuple[float | None, float | None]:
    progress = op.snapshot().progress
    return progress.completed, progress.total


def told(op: Operation) -> list[str]:
    return [note.text for note in op.snapshot().notes]


def did(path: str, *keys: int, failed: tuple[int, ...] = ()) -> None:
    """Run an attempt that does these keys, and breaks."""
    with contextlib.suppress(Broken), attempt(path):
        for key in track([*keys, *failed], key=str):
            if key in failed:
                raise Broken
        raise Broken


# -- a loop that marks


@pytest.mark.parametrize(
    "items", [range(10), list(range(10)), dict.fromkeys(range(10)), dict.fromkeys(range(10)).keys()]
)
def test_bar_begins_with_all_that_is_done_wherever_it_lies(path: str, items: Any) -> None:
    """Done items in the middle and at the end count from the first item on, each once."""
    did(path, 3, 5, 9)
    seen: list[tuple[int, Any]] = []
    with attempt(path) as op:
        seen.extend((item, far(op)) for item in track(items, key=str))
    assert seen == [(item, (3 + place, 10)) for place, item in enumerate([0, 1, 2, 4, 6, 7, 8])]
    assert far(op) == (10, 10)
    assert told(op)[0].startswith("resumed at 3 items (") or told(op)[0].startswith("resumed at 3 of ")


def test_items_of_a_generator_count_when_the_loop_comes_to_them(path: str) -> None:
    """What it will yield is not known, so nothing is claimed of it."""
    did(path, 3, 5, 9)
    with attempt(path) as op:
        seen = [(item, far(op)[0]) for item in track((number for number in range(10)), key=str)]
    assert seen == [(0, 0), (1, 1), (2, 2), (4, 4), (6, 6), (7, 7), (8, 8)]
    assert far(op) == (10, 10)


def test_removed_items_count_no_more(path: str) -> None:
    """The count is of the items that are there now."""
    did(path, 1, 2, 3, 4)
    with attempt(path) as op:
        seen = [(item, far(op)) for item in track([4, 5, 6], key=str)]
    assert seen == [(5, (1, 3)), (6, (2, 3))]
    assert far(op) == (3, 3)


def test_failed_items_that_are_tried_again_do_not_count(path: str) -> None:
    """They are counted when they are done."""
    with attempt(path) as op:
        for item in track(range(6), key=str):
            if item in (1, 4):
                op.record("failed", item=item)
    with attempt(path) as op:
        assert [(item, far(op)) for item in track(range(6), key=str)] == [(1, (4, 6)), (4, (5, 6))]
    assert told(op)[0].startswith("resumed at 4 of 6 items (attempt 2, after it completed ")


def test_failed_items_that_stay_failed_are_said(path: str) -> None:
    """Nobody takes a partial result for a whole one: in the outcomes, and in the feed."""
    did(path, 0, 1, failed=(2,))
    with attempt(path) as op:
        assert list(track(range(4), key=str, retry_failed=False)) == [3]
    assert op.snapshot().outcomes == {"failed": 1}
    assert told(op)[1] == "left out: 1 item that failed in earlier attempts"


def test_items_that_are_set_aside_are_not_done(path: str) -> None:
    """They are left out, and neither counted nor taken off the total."""
    did(path, 0, 1)
    open_store(path).set_aside("job-1", "", "2")
    for _ in range(2):
        with attempt(path) as op:
            list(track(range(4), key=str))
        assert far(op) == (3, 4)
        assert op.snapshot().outcomes == {"set aside": 1}


def test_a_key_that_can_not_be_made_ends_the_loop_at_its_item(path: str) -> None:
    """Looking ahead raises nothing."""
    did(path, 0, 1)
    seen: list[int] = []
    with pytest.raises(ZeroDivisionError), attempt(path):
        for item in track([0, 1, 5, 6], key=lambda item: str(item if item < 6 else 1 / 0)):
            seen.append(item)
    assert seen == [5]


# -- a loop that goes by done()


def test_items_that_a_pool_has_taken_are_not_done(path: str) -> None:
    """Nothing is done until `done` says so; what earlier attempts did counts from the beginning."""
    for number in range(2):
        with attempt(path) as op:
            items = list(track(range(10), key=str, mark=False))
            assert far(op) == (3 * number, 10)
            for item in items[:3]:
                op.done(item)
            assert far(op) == (3 * number + 3, 10)
    with attempt(path) as op:
        list(track((number for number in range(10)), key=str, mark=False))
        assert far(op)[0] == 6
    assert told(op)[0].startswith("resumed at 6 of 10 items (")


def test_counting_by_done_is_no_second_count(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """The documented pattern for pools warns of nothing, also if an item fails."""
    with attempt(path) as op, ThreadPool(2) as pool:
        for item in pool.imap_unordered(int, track(range(6), key=str, mark=False)):
            if item == 3:
                op.record("failed", item=item)
            else:
                op.done(item)
    assert far(op) == (5, 6)
    assert caplog.text == ""
    with attempt(path) as op:
        assert list(track(range(6), key=str, mark=False)) == [3]
    assert far(op) == (5, 6)
    assert caplog.text == ""


def test_a_generator_counts_what_it_yields(path: str) -> None:
    """Stored keys that do not come any more are not counted."""
    with attempt(path) as op:
        for item in range(8):
            op.done(item)

    def new() -> Iterator[int]:
        yield from range(6, 12)

    with attempt(path) as op:
        for item in track(new(), key=str, mark=False):
            op.done(item)
    assert far(op)[0] == 6


# -- by hand


def test_what_was_done_by_hand_counts_when_it_is_asked_for(path: str) -> None:
    """The count is what the feed says, also if nothing is left."""
    for number in range(2):
        with attempt(path, total=5) as op:
            for item in range(5):
                if not op.is_done(item):
                    op.done(item)
            assert far(op) == (5, 5)
        assert [text.startswith("resumed at 5 of 5 items (") for text in told(op)] == [True] * number


def test_marks_of_an_import_are_left_out_by_the_loop(path: str) -> None:
    """`done` before the loop and the loop count each item once, in the first attempt as in later ones."""
    for number in range(3):
        with attempt(path) as op:
            for key in ("1", "2"):
                op.done(key)
            seen = [(item, far(op)) for item in track(range(5), key=str)]
            assert seen == ([] if number else [(0, (2, 5)), (3, (3, 5)), (4, (4, 5))])
        assert far(op) == (5, 5)


def test_a_cursor_restores_no_count(path: str) -> None:
    """A state is the job's own: the feed says how far the attempt before was, and claims no more."""
    with pytest.raises(Broken), attempt(path, total=2000, unit="row") as op:
        op.advance(550)
        op.checkpoint(cursor=550)
        raise Broken
    with attempt(path, total=2000, unit="row") as op:
        pass
    assert told(op) == ["resumed (attempt 2, after it failed 0 s ago at 550 of 2,000 rows)"]


def test_stages_say_how_far_they_were(path: str) -> None:
    """Without keys of the operation itself it is the stage that was last."""
    with pytest.raises(Broken), attempt(path), stage("load"):
        for item in track(range(10), key=str):
            if item == 4:
                raise Broken
    with attempt(path) as op, stage("load"):
        assert list(track(range(10), key=str)) == [4, 5, 6, 7, 8, 9]
    assert told(op) == ["resumed at 4 of 10 items in load (attempt 2, after it failed 0 s ago)"]


# -- at the time of a death


def test_store_knows_how_far_it_is_with_each_write(path: str, progress_capture: Capture) -> None:
    """The number goes with the marks, so that none is older than they are."""
    with attempt(path) as op:
        session = op._session
        for item in track(range(100), key=str):
            if item % 10 == 0:
                progress_capture.clock.sleep(0.01)
                session._writer.flush(1)
                found = open_store(path).operation("job-1")
                assert found is not None
                assert (found.summary.completed, len(open_store(path).keys("job-1", "").done)) == (item, item)


@pytest.mark.parametrize(
    ("ticks", "said"), [(1, "its process died at most 4 s"), (0, "its lease expired, last renewed 4")]
)
def test_only_a_death_that_is_proven_is_told_as_one(
    path: str, ticks: int, said: str, progress_capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was stopped may go on; and nobody knows when one died that said nothing."""
    holder = replace(this_process(), ticks=ticks) if ticks else replace(this_process(), boot="another machine")
    monkeypatch.setattr("otel_progress.durable.opening.this_process", lambda: holder)
    op = attempt(path).start()
    op._session._writer.flush(1)
    op._session.over = op._session._lost = True  # it never says how it ended
    monkeypatch.undo()
    progress_capture.clock.sleep(4 if ticks else 40)
    with operation("job", id="job-2", resume=path):
        pass
    store = open_store(path)
    from otel_progress.durable.wording import how_it_ended, resumed

    found = store.operation("job-1")
    assert found is not None
    assert resumed(found, how_it_ended(found), 2, None).startswith(f"resumed (attempt 2, after {said}")
    op.complete()


@pytest.mark.parametrize(
    ("left", "says"),
    [
        ("def", "resumed at 1 of 3 items ("),
        ("efg", "resumed (attempt 2, after it failed 0 s ago at 4 of 6 items)"),
        ("", "resumed (attempt 2"),
        ("abcdefgh", "resumed at 4 of 8 items ("),
        (iter("def"), "resumed at 4 of 6 items ("),
    ],
)
@pytest.mark.parametrize("mark", [True, False])
def test_items_that_are_gone_are_not_counted(path: str, mark: bool, left: Any, says: str) -> None:
    """The feed says what the bar shows: of those that are there now; of an iterator nobody knows it."""

    def run(items: Any) -> Operation:
        with attempt(path) as op:
            for item in track(items, key=str, mark=mark):
                if item == "e":
                    raise Broken
                if not mark:
                    op.done(item)
        return op

    if not isinstance(left, str):
        left = iter("def")
    with contextlib.suppress(Broken):
        run("abcdef" if mark else list("abcdef"))
    with attempt(path) as op, contextlib.suppress(Broken):
        for item in track(list(left) if isinstance(left, str) else left, key=str, mark=mark):
            if item == "e":
                break
    assert told(op)[0].startswith(says)


@pytest.mark.parametrize("failed", [0, 1, 3])
def test_an_item_that_failed_at_the_end_costs_no_other(path: str, failed: int) -> None:
    """By position, what an exception ended is not one of those that are done."""
    with contextlib.suppress(Broken), attempt(path) as op:
        for item in track(list("abcdef"), mark=True):
            if item in "abc"[:failed]:
                op.record("failed", item=item)
            if item == "e":
                raise Broken
    with attempt(path) as op:
        seen = [far(op)[0] for _ in track(list("abcdef"), mark=True) if True]
    done = 4 - failed
    assert told(op)[0].startswith(f"resumed at {done} of 6 items (" if done else "resumed (")
    assert seen == [float(number) for number in range(done, 6)]


def test_what_goes_on_is_said_at_the_first_sign(path: str, progress_capture: Capture) -> None:
    """Not later than after a second, however long the job prepares its loop; the time is that of the start."""
    with contextlib.suppress(Broken), attempt(path) as op:
        for item in track(list("abc"), key=str):
            if item == "b":
                raise Broken
    with attempt(path) as op:
        assert told(op) == []
        progress_capture.clock.sleep(0.9)
        op._session._writer.flush(1)
        assert told(op) == []
        progress_capture.clock.sleep(0.1)
        op._session._writer.flush(1)
        assert told(op) == ["resumed at 1 of 3 items (attempt 2, after it failed 0 s ago)"]
    for first in (lambda: op.is_done("x"), lambda: waiting("x").__enter__()):
        with attempt(path) as op:
            first()
            assert told(op)[0].startswith("resumed at 1 item")
    with contextlib.suppress(Broken), attempt(path) as op:
        raise Broken
    assert told(op)[0].startswith("resumed at 1 item")
    with attempt(path) as op:
        with stage("list the items"):
            items = list("bcd")
        for _ in track(items, key=str):
            """What the stage found is what counts."""
    assert told(op)[0].startswith("resumed (")


def test_a_loop_that_goes_by_position_in_place_of_key_says_so(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """The other way round, also with an item that failed: its key is no position."""
    with contextlib.suppress(Broken), attempt(path):
        for item in track(list("abcd"), key=str):
            if item == "d":
                raise Broken
    with attempt(path) as op:
        assert [item for item in track(list("abcd"), mark=True) if item] == list("abcd")
    assert "goes by position now: 3 done items come again" in caplog.text
    assert "at 3 of 4 items)" in told(op)[1]


def test_a_loop_that_goes_by_key_in_place_of_position_says_so(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """What was done by position can't be told by key, so it comes again, and not silently."""
    with contextlib.suppress(Broken), attempt(path):
        for item in track(list("abcd"), mark=True):
            if item == "d":
                raise Broken
    with attempt(path) as op:
        assert [item for item in track(list("abcd"), key=str) if item] == list("abcd")
    assert "3 done items come again" in told(op)[0]
    assert told(op)[1].startswith("resumed (attempt 2, after it failed 0 s ago at 3 of 4 items)")
    assert "3 done items come again" in caplog.text
