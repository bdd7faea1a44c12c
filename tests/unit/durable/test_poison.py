"""Keys that end the process again and again: which are blamed, when they are set aside, and what is said."""

from __future__ import annotations

import sqlite3
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
        ([("", "x", 3), ("", "y", 3), ("", "z", 2)], [("", "x"), ("", "y")]),
        ([("a", "doc", 2), (f"{inside('a', 'doc')}b", "page", 2)], [(f"{inside('a', 'doc')}b", "page")]),
        ([("a", "doc", 2), ("ab", "page", 2)], []),
    ],
)
def test_which_keys_are_blamed(in_hand: list[tuple[str, str, int]], expected: list[tuple[str, str]]) -> None:
    """One key after two deaths; several that were in hand each time after three; the innermost loop alone."""
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


def test_what_is_set_aside_is_skipped_and_told(tmp_path: Path) -> None:
    """The loop goes on without it, and the operation says so: in its outcomes, and in the feed."""
    store = SqliteStore(tmp_path / "work.db")
    die(store, "y")
    die(store, "y", how="SIGSEGV")
    seen, op = work(store.path)
    assert seen == ["x", "z"]
    snapshot = op.snapshot()
    assert snapshot.outcomes == {"set aside": 1}
    assert any(note.text == "set aside, as it ended the process: y" for note in snapshot.notes)


def test_store_knows_what_is_in_hand_after_a_death(tmp_path: Path) -> None:
    """After a death each item is noted before the job works on it, so that one that kills at once is found."""
    store = SqliteStore(tmp_path / "work.db")
    die(store)
    with progress.operation("job", id="a", resume=store.path) as op:
        for key in op.track("xyz", key=str):
            with sqlite3.connect(store.path) as db:
                assert db.execute("SELECT item FROM hands").fetchall() == [(key,)]
            db.close()
