"""Keys that end the process again and again: which are blamed, when they are set aside, and what is said."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing.pool
import sqlite3
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import pytest

import otel_progress as progress
from otel_progress.durable.holder import Holder, this_process
from otel_progress.durable.kept import poisonous
from otel_progress.durable.scope import inside
from otel_progress.durable.sqlite import SqliteStore
from otel_progress.durable.store import Batch, Claim, Suspect
from otel_progress.testing import FakeClock

GONE = replace(this_process(), ticks=1)
"""A process with our pid that started at another time: it is dead, and the pid was used again."""


@pytest.fixture
def store(tmp_path: Path, fake: FakeClock) -> SqliteStore:
    return SqliteStore(tmp_path / "work.db")


def die(store: SqliteStore, *keys: str, scope: str = "", holder: Holder = GONE, how: str | None = None) -> None:
    """Run an attempt that dies with these keys in hand; with `how`, somebody saw it die."""
    lease = store.acquire(Claim("a", "job", holder)).lease
    store.write(lease, Batch(hands={scope: keys}))
    if how is not None:
        store.died("a", lease.attempt, how)


def aside(store: SqliteStore) -> set[str]:
    """The keys that the next attempt skips."""
    store.acquire(Claim("a", "job", GONE))
    return {one.key for one in store.suspects("a") if one.aside}


@pytest.mark.parametrize(
    ("in_hand", "expected"),
    [
        ([], []),
        ([("", "x", 1)], []),
        ([("", "x", 2)], [("", "x")]),
        ([("", "x", 2), ("", "y", 1)], [("", "x")]),
        ([("", "x", 2), ("", "y", 2)], []),
        ([("", "x", 3), ("", "y", 3), ("", "z", 2)], []),
        ([("", "x", 9), ("", "y", 9)], []),
        ([("a", "doc", 2), (f"{inside('a', 'doc')}b", "page", 2)], [(f"{inside('a', 'doc')}b", "page")]),
        ([("a", "doc", 2), ("ab", "page", 2)], []),
    ],
)
def test_which_keys_are_blamed(in_hand: list[tuple[str, str, int]], expected: list[tuple[str, str]]) -> None:
    """One key after two deaths, if no other was in hand as often; of the innermost loop alone."""
    assert poisonous(in_hand, "SIGSEGV") == expected


@pytest.mark.parametrize("how", [None, "its process is gone", "SIGKILL"])
def test_death_that_anybody_may_have_caused_blames_one_key_alone(how: str | None) -> None:
    """What waits in a pool that is killed again and again is never set aside, nor is an item after two kills."""
    assert poisonous([("", "x", 2)], how) == []
    assert poisonous([("", "x", 3)], how) == [("", "x")]
    assert poisonous([("", "x", 9), ("", "y", 9)], how) == []
    assert poisonous([("", "x", 9), ("", "y", 1)], how) == []
    assert poisonous([("a", "doc", 3), (f"{inside('a', 'doc')}b", "page", 3)], how) == [
        (f"{inside('a', 'doc')}b", "page")
    ]


def test_key_is_set_aside_after_the_second_death(store: SqliteStore) -> None:
    """The first death is a suspicion, the second one is enough."""
    die(store, "x")
    assert aside(store) == set()
    assert store.suspects("a") == [Suspect("", "x", 1, False)]
    die(store, "x", how="SIGSEGV")
    assert aside(store) == {"x"}
    assert store.keys("a", "").aside == {"x"}


def test_deaths_at_other_keys_are_no_pattern(store: SqliteStore) -> None:
    """A process that dies at another key each time has another reason to die."""
    for key in "xyz":
        die(store, key)
    assert aside(store) == set()


def test_items_of_a_pool_are_blamed_later(store: SqliteStore) -> None:
    """Of several items in hand nobody knows which one it was, until one of them was there more often."""
    die(store, "x", "y")
    die(store, "x", "z", how="exit code 3")
    assert aside(store) == {"x"}


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_stop_by_somebody_blames_no_key(store: SqliteStore, how: str) -> None:
    """A deployment or Ctrl+C in the middle of a long item is not the fault of the item."""
    for _ in range(3):
        die(store, "x", how=how)
    assert aside(store) == set()
    for _ in range(2):
        die(store, "x", how="SIGKILL, out of memory")
    assert aside(store) == {"x"}


def test_restart_of_the_machine_blames_no_key(store: SqliteStore, fake: FakeClock) -> None:
    """After a power cut the item in hand is tried again, as often as it takes."""
    if not GONE.boot:
        pytest.skip("the system does not tell its boots apart")
    for number in range(3):
        die(store, "x", holder=replace(GONE, boot=f"boot {number}"))
        fake.sleep(60)
    assert aside(store) == set()


def test_item_that_is_done_is_no_suspect(store: SqliteStore) -> None:
    """A key that came through after a death is cleared."""
    die(store, "x")
    lease = store.acquire(Claim("a", "job", GONE)).lease
    store.write(lease, Batch(done={"": ["x"]}))
    assert store.suspects("a") == []


def test_release_tries_again(store: SqliteStore) -> None:
    """After the cause is mended, what was set aside is tried once more."""
    die(store, "x")
    die(store, "x", how="SIGSEGV")
    assert aside(store) == {"x"}
    store.release("a")
    assert aside(store) == set()


# -- in a pool


def pool_that_dies(path: Path, poison: int, window: int, workers: int, how: str) -> tuple[int, set[str], set[str]]:
    """Run 200 items in a pool until a run completes; returns the number of runs, what was done, and what was set aside.

    The window says how many items are handed to the pool before the first is done. It works on the oldest, and the
    poison ends the process as soon as the item before it is done.
    """
    store = SqliteStore(path)
    for number in range(1, 30):
        op = progress.operation("job", id="a", resume=store).start()
        queue: list[int] = []
        items = iter(op.track(range(200), key=str, mark=False))
        more = True
        while more or queue:
            while more and len(queue) < window:
                item = next(items, None)
                more = item is not None
                if item is not None:
                    queue.append(item)
            if poison in queue[:workers]:
                op._session._writer.flush(1)
                op._session.over = op._session._lost = True  # a process that is killed says nothing
                store.died("a", op.attempt, how)
                with contextlib.suppress(progress.ProgressError):
                    op.complete()
                break
            if queue:
                op.done(queue.pop(0))
        else:
            with contextlib.suppress(progress.CheckpointError):
                op.complete()
            if op.status == "failed":
                continue
            found = store.keys("a", "")
            return number, set(found.done), set(found.aside)
    raise AssertionError([one for one in store.suspects("a") if one.deaths > 1])


@pytest.mark.parametrize("poison", [0, 70, 199])
@pytest.mark.parametrize("window", [1, 8, 32, 64, 120, 200])
def test_one_item_of_a_pool_is_set_aside_and_no_other(
    tmp_path: Path, fake: FakeClock, window: int, poison: int
) -> None:
    """Whatever waits beside it is done in the end; and a bounded number of restarts finds the one."""
    runs, done, aside = pool_that_dies(tmp_path / "work.db", poison, window, 1, "exit code 139")
    assert aside == {str(poison)}
    assert len(done) == 199
    assert runs <= 4


@pytest.mark.parametrize("poison", [0, 70, 199])
@pytest.mark.parametrize(("window", "workers"), [(2, 2), (8, 4), (32, 4), (64, 16), (120, 8)])
@pytest.mark.parametrize("how", ["exit code 139", "SIGKILL"])
def test_suspects_that_are_worked_on_together_are_halved(
    tmp_path: Path, fake: FakeClock, window: int, workers: int, poison: int, how: str
) -> None:
    """With several workers the last suspects die together; then some wait for the next attempt, until one is alone."""
    runs, done, aside = pool_that_dies(tmp_path / "work.db", poison, window, workers, how)
    assert aside == {str(poison)}
    assert len(done) == 199
    assert runs <= 24


def test_suspects_of_tasks_are_halved(tmp_path: Path, fake: FakeClock) -> None:
    """In asyncio all are in hand at once; what one attempt leaves, it says, and does not complete."""
    store = SqliteStore(tmp_path / "work.db")
    for _ in range(3):
        die(store, "3", "4", "5", "6", how="exit code 139")

    async def fetch(op: progress.Operation, item: int) -> None:
        await asyncio.sleep(0)
        op.done(item)

    async def run() -> progress.Operation:
        async with progress.operation("job", id="a", resume=store.path) as op:
            await asyncio.gather(*[fetch(op, item) for item in op.track(range(12), key=str, mark=False)])
        return op

    for left in (2, 1):
        with pytest.raises(progress.CheckpointError, match=f"all but {left} item"):
            asyncio.run(run())
        found = store.operation("a")
        assert found is not None
        assert (found.status, len(store.keys("a", "").done)) == ("failed", 12 - left)
    assert asyncio.run(run()).status == "completed"
    assert len(store.keys("a", "").done) == 12


def test_suspects_of_chance_are_not_held_back(tmp_path: Path, fake: FakeClock) -> None:
    """Anybody may kill a job once or twice: the next attempt does all that is left."""
    store = SqliteStore(tmp_path / "work.db")
    for _ in range(2):
        die(store, "3", "4", "5", "6", how="SIGKILL")
    with progress.operation("job", id="a", resume=store.path) as op:
        for item in list(op.track(range(12), key=str, mark=False)):
            op.done(item)
    assert op.status == "completed"


def test_suspects_are_alone_where_another_thread_takes_them(tmp_path: Path) -> None:
    """The thread of a pool that takes the items can wait: each suspect is tried when nothing else is in hand."""
    store = SqliteStore(tmp_path / "work.db")
    die(store, "3", "4", "5", how="SIGSEGV")
    beside: dict[int, int] = {}
    with progress.operation("job", id="a", resume=store.path) as op, multiprocessing.pool.ThreadPool(4) as pool:
        hand = op._scope.hand
        work = pool.imap_unordered(lambda item: (item, len(hand)), op.track(range(12), key=str, mark=False))
        for item, others in work:
            beside[item] = others
            op.done(item)
    assert {item: beside[item] for item in (3, 4, 5)} == {3: 1, 4: 1, 5: 1}
    assert len(beside) == 12
    assert store.suspects("a") == []


def test_death_of_a_worker_counts(tmp_path: Path) -> None:
    """A pool that lost a process raises; what was in hand then is a suspect, as after the death of the job."""
    store = SqliteStore(tmp_path / "work.db")
    for number in range(2):
        with pytest.raises(BrokenProcessPool), progress.operation("job", id="a", resume=store) as op:
            with op.stage("load") as load:
                for item in load.track(range(3 - number), key=str, mark=False):
                    if item == 1:
                        raise BrokenProcessPool("a process was terminated")
                    load.done(item)
    assert store.suspects("a") == [Suspect("load", "1", 2, aside=True)]
    with progress.operation("job", id="a", resume=store) as op, op.stage("load") as load:
        for item in load.track(range(3), key=str, mark=False):
            load.done(item)
    assert store.keys("a", "load").done == {"0", "2"}


def test_mark_of_another_handle_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It would not be left out by the loop, as each handle has keys of its own."""
    with progress.operation("job", id="a", resume=tmp_path / "work.db") as op, op.stage("load") as load:
        for item in load.track(range(3), key=str, mark=False):
            op.done(item)
    assert "call done(key) of the handle whose loop it is" in caplog.text


def test_worker_that_died_and_was_replaced_blames_nobody(tmp_path: Path) -> None:
    """A job that goes on after it completes as any other."""
    store = SqliteStore(tmp_path / "work.db")
    with progress.operation("job", id="a", resume=store) as op:
        with contextlib.suppress(BrokenProcessPool), op.stage("load"):
            next(iter(progress.track(range(3), key=str, mark=False)))
            raise BrokenProcessPool("a process was terminated")
    assert store.suspects("a") == []


# -- in a job


def test_variable_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`resume=True` uses the store of `OTEL_PROGRESS_CHECKPOINTS`, as `recover` and `run` do."""
    monkeypatch.setenv("OTEL_PROGRESS_CHECKPOINTS", str(tmp_path / "work.db"))
    with progress.operation("job", id="a", resume=True):
        pass
    assert [one.id for one in SqliteStore(tmp_path / "work.db").operations()] == ["a"]


def work(path: Path) -> tuple[list[str], progress.Operation]:
    with progress.operation("job", id="a", resume=path) as op:
        seen = list(op.track("xyz", key=str))
    return seen, op


def test_what_is_set_aside_is_skipped_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The loop goes on without it, and the operation says so: in its outcomes, in the feed, and in the log."""
    store = SqliteStore(tmp_path / "work.db")
    die(store, "y")
    die(store, "y", how="SIGSEGV")
    seen, op = work(store.path)
    assert seen == ["x", "z"]
    snapshot = op.snapshot()
    assert snapshot.outcomes == {"set aside": 1}
    assert any(note.text == "set aside, as it ended the process: y" for note in snapshot.notes)
    assert "leaves out y, as it ended the process" in caplog.text


def test_store_knows_what_is_in_hand_after_a_death(tmp_path: Path) -> None:
    """After a death each item is noted before the job works on it, so that one that kills at once is found."""
    store = SqliteStore(tmp_path / "work.db")
    die(store)
    with progress.operation("job", id="a", resume=store.path) as op:
        for key in op.track("xyz", key=str):
            with sqlite3.connect(store.path) as db:
                assert db.execute("SELECT item FROM hands").fetchall() == [(key,)]
            db.close()
