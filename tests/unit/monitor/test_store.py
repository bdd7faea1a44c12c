"""The store: what was acknowledged stays, whatever happens to the process or the disk; what can't be used is told."""

from __future__ import annotations

import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from otel_progress.errors import InvalidArgument, ProgressError
from otel_progress.monitor.state import store as module
from otel_progress.monitor.state.saved import Batch, HistoryEvent, Query, StoredOperation, StoredProcess
from otel_progress.monitor.state.store import Store, StoreError, StoreLimits

DAY = 86_400.0


def kept(id: str, status: str = "running", **given: object) -> StoredOperation:
    """The state of an operation; what matters is given."""
    made = StoredOperation(
        id, "survey", status, "progressing", None, None, None, 1.0, 2.0, 1, 1, "i", 1, id.lower(), b"raw", False
    )
    return made._replace(**given)  # type: ignore[arg-type]


def open_in(store: Store) -> list[StoredOperation]:
    """All operations that have not ended."""
    return store.open_slice(0, 2**62, 1_000_000)[0]


def event(id: str, sequence: int, **given: object) -> HistoryEvent:
    """An event of an operation; what matters is given."""
    return HistoryEvent(id, 1.0, 1, sequence, float(sequence), "progress.note")._replace(**given)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "of mine" / "a?b%20#.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """A new store."""
    made = Store(path)
    yield made
    made.close()


def reopened(store: Store) -> Store:
    """The same file, opened anew."""
    store.close()
    return Store(store.path)


def sequences(store: Store, id: str = "a", **given: object) -> list[int]:
    """The sequences of the events that are found."""
    return [found.sequence for _, found in store.events(id, **given)]  # type: ignore[arg-type]


# -- state and history


def test_all_is_there_after_a_restart(store: Store) -> None:
    """What was written is read back the same, by this process and by the next."""
    one = kept("a", parent_id="p", agent="x", owner="o", started_at=None, raw=b"\0\xff", revision=7)
    two = kept("b", "lost", presumed=True, parent_id="p")
    said = event("a", 1, stage="s/t", text="found", status="warning", agent="x", ratio=0.5, attributes='{"k":1}')
    process = StoredProcess("i", '{"host":"h"}', 3.5, None)
    store.write(Batch([one, two], [said], [process], [("logs", b"request")]))
    again = reopened(store)
    assert open_in(again) == [one]
    assert (again.recall("a"), again.recall("b"), again.recall("c")) == (one, two, None)
    assert again.ended(Query(), 10) == ([two], None)
    assert again.events("a") == [(1, said)]
    assert again.processes(["i", "i", "j"]) == [process]
    assert again.children("p", 10) == [two, one]
    assert again.children("p", 1) == [two]
    assert again.outgoing("logs", 100) == [(1, b"request")]
    assert (again.newest_revision(), again.newest_event_id()) == (7, 1)
    again.close()


def test_newest_state_replaces_the_one_before(store: Store) -> None:
    """An operation is one row, as it was written last; it leaves those that run when it ends, and comes back."""
    for status, runs in (("pending", True), ("running", True), ("completed", False), ("waiting", True)):
        store.write(Batch([kept("a", status)]))
        assert store.recall("a") == kept("a", status)
        assert open_in(store) == ([kept("a", status)] if runs else [])
        assert store.count(Query()) == (not runs)


def test_event_again_is_no_second_row(store: Store) -> None:
    """The same event is kept once, in one batch or in two; another attempt, start or sequence is another event."""
    others = [event("a", 2), event("a", 1, attempt=2), event("a", 1, started_at=9.0), event("b", 1)]
    store.write(Batch([kept("a"), kept("b")], [event("a", 1), event("a", 1)]))
    store.write(Batch(events=[event("a", 1, text="told anew"), *others]))
    store.write(Batch(events=[event("a", 1), *others]))
    assert [found for _, found in store.events("a")] == [event("a", 1), *others[:3]]
    assert [found for _, found in store.events("b")] == others[3:]


def test_history_is_read_in_pages_both_ways(store: Store) -> None:
    """`after` goes on from a number, `before` ends below it; each is oldest first, and names choose."""
    store.write(Batch([kept("a"), kept("b")]))
    for number in range(1, 21):
        name = "progress.note" if number % 2 else "progress.stalled"
        store.write(Batch(events=[event("a", number, event=name), event("b", number)]))
    ids = [id for id, _ in store.events("a")]
    assert ids == sorted(ids)
    assert sequences(store, limit=3) == [1, 2, 3]
    assert sequences(store, after=ids[2], limit=3) == [4, 5, 6]
    assert sequences(store, before=ids[5], limit=3) == [3, 4, 5]
    assert sequences(store, after=ids[3], before=ids[5]) == [5]
    assert sequences(store, names=["progress.stalled"], limit=3) == [2, 4, 6]
    assert sequences(store, names=[]) == []
    assert sequences(store, after=ids[-1]) == sequences(store, after=10**30) == []
    assert store.events("nobody") == []
    assert ids[-1] < store.newest_event_id() == 40


def test_late_event_has_a_higher_number(store: Store) -> None:
    """Whoever follows the history by number sees what comes late, too."""
    store.write(Batch([kept("a")], [event("a", 1), event("a", 3)]))
    seen = store.newest_event_id()
    store.write(Batch(events=[event("a", 2)]))
    assert sequences(store, after=seen) == [2]


def test_event_of_an_operation_that_is_not_kept_is_counted(store: Store) -> None:
    """It would be a history that nobody can find, and nothing would ever remove."""
    store.write(Batch(events=[event("a", 1)]))
    store.write(Batch([kept("a")], [event("a", 2)]))
    assert sequences(store) == [2]
    assert store.strays == 1


# -- lists of what is over


def test_pages_give_each_once_the_newest_first(store: Store) -> None:
    """Pages follow one another without a gap or a repetition, also where many ended in one moment."""
    store.write(Batch([kept(f"o{n}", "failed", timestamp=float(n // 7)) for n in range(50)]))
    store.write(Batch([kept("runs", timestamp=99.0)]))
    found: list[StoredOperation] = []
    cursor = None
    while True:
        page, cursor = store.ended(Query(), 4, cursor)
        assert len(page) == 4 or cursor is None
        found += page
        if cursor is None:
            break
    assert len({one.operation_id for one in found}) == len(found) == 50
    assert [one.timestamp for one in found] == sorted((one.timestamp for one in found), reverse=True)
    assert store.ended(Query(), 50)[1] is None
    assert store.ended(Query(), 0) == ([], None)


@pytest.mark.parametrize("cursor", ["", "x", "ä", "bnVsbA==", "WzEsMl0=", "W10=", "A" * 100_000])
def test_cursor_of_somebody_else_is_refused(store: Store, cursor: str) -> None:
    """What is no cursor of ours is an error of the caller, not of the store."""
    with pytest.raises(InvalidArgument, match="start without one"):
        store.ended(Query(), 1, cursor)


def test_query_finds_what_is_meant(store: Store) -> None:
    """Each condition holds alone and with others; signs of SQL mean nothing, case does not matter in a search."""
    rng = random.Random(5)
    texts = ["100%", "100 percent", "a_b", "acb", "ärger", "it's", "", "n\0ul"]
    stored = [
        kept(
            f"o{n}",
            rng.choice(["completed", "failed", "lost", "running"]),
            name=rng.choice(["x", "y"]),
            text=rng.choice(texts),
            parent_id=rng.choice([None, "p"]),
            owner=rng.choice([None, "me"]),
            timestamp=float(rng.randrange(10)),
        )
        for n in range(300)
    ]
    store.write(Batch(stored))
    for _ in range(200):
        query = Query(
            rng.choice([(), ("failed",), ("failed", "lost"), ("running",)]),
            rng.choice([None, "x"]),
            rng.choice([None, "", "0%", "A_B", "ÄRG", "'", "n\0U"]),
            rng.choice([None, 3.0]),
            rng.choice([None, 7.0]),
            rng.choice([None, "p"]),
            rng.choice([None, "me", "you"]),
        )
        meant = {one.operation_id for one in stored if fits(one, query)}
        assert {one.operation_id for one in store.ended(query, 1000)[0]} == meant, query
        assert store.count(query) == len(meant)


def fits(one: StoredOperation, query: Query) -> bool:
    """The same in other words."""
    return (
        one.status != "running"
        and (not query.statuses or one.status in query.statuses)
        and query.name in (None, one.name)
        and (query.search or "").lower() in one.text
        and (query.since is None or one.timestamp >= query.since)
        and (query.until is None or one.timestamp < query.until)
        and query.parent in (None, one.parent_id)
        and query.owner in (None, one.owner)
    )


@pytest.mark.parametrize("query", [Query(), Query(search="x"), Query(("failed",), "x", owner="o", since=1.0)])
def test_lists_are_counted_in_the_index_alone(store: Store, query: Query) -> None:
    """To filter a list, no row is read from the table, however many are stored."""
    where, given = module._where(query)
    plan = store._read(f"EXPLAIN QUERY PLAN SELECT count(*) FROM operations WHERE {where}", given)
    assert ["COVERING INDEX ended_operations" in row[3] for row in plan] == [True]


def test_parts_of_an_operation_are_found_by_it(store: Store) -> None:
    """To list what is part of one operation, no other is looked at."""
    where, given = module._where(Query(parent="p"))
    plan = store._read(f"EXPLAIN QUERY PLAN SELECT count(*) FROM operations WHERE {where}", given)
    assert ["INDEX children" in row[3] for row in plan] == [True]


def test_restart_with_many_that_are_over(store: Store) -> None:
    """With 100,000 finished operations a new start finds those that run, and the newest that ended."""
    for at in range(0, 100_000, 10_000):
        store.write(
            Batch([kept(f"o{n}", "completed", timestamp=float(n), raw=b"x" * 500) for n in range(at, at + 10_000)])
        )
    store.write(Batch([kept("runs")]))
    again = reopened(store)
    assert open_in(again) == [kept("runs")]
    assert [one.operation_id for one in again.ended(Query(), 2)[0]] == ["o99999", "o99998"]
    assert again.count(Query(search="o9999")) == 11
    again.close()


# -- odd values

ODD = [
    "a\0b",
    "\0",
    "",
    "a" * 100_000,
    "'; DROP TABLE operations; --",
    "\U0001f600",
    "ä/ö?%_",
    "\u2028",
    "half \ud83d",
    "\udc00",
]


@pytest.mark.parametrize("id", ODD)
def test_odd_ids_break_nothing(store: Store, id: str) -> None:
    """An id of any characters is found again, and whatever else is in the batch is stored."""
    store.write(
        Batch([kept("a"), kept(id, parent_id=id)], [event("a", 1), event(id, 1, text=id)], [StoredProcess(id, id, 1.0)])
    )
    store.write(Batch([kept(id, parent_id=id, sequence=2)], [event(id, 1), event(id, 2)]))
    found = store.recall(id)
    assert found is not None
    assert found.sequence == 2
    assert found.operation_id == id.encode("utf-8", "backslashreplace").decode()
    assert [one[1].sequence for one in store.events(id)] == [1, 2]
    assert store.children(id, 5) == [found]
    assert len(store.processes([id])) == 1
    assert store.recall("a") == kept("a")
    assert sequences(store) == [1]
    assert store.strays == 0


def test_numbers_that_do_not_fit_break_nothing(store: Store) -> None:
    """What is no number, or too large, becomes the nearest that can be stored; all else of the batch is."""
    odd = kept("a", "failed", timestamp=math.nan, started_at=math.inf, sequence=10**30, attempt=-(10**30))
    store.write(Batch([odd, kept("b")], [event("a", 10**30), event("a", 1, started_at=math.nan, ratio=math.nan)]))
    found = store.recall("a")
    assert found is not None
    assert (found.timestamp, found.started_at, found.sequence) == (0.0, math.inf, 2**63 - 1)
    assert found.attempt < -(2**62)
    assert sequences(store) == [2**63 - 1, 1]
    assert store.recall("b") == kept("b")


# -- what waits to leave


def test_outgoing_comes_in_order_and_fits(store: Store) -> None:
    """The oldest come first, by signal, as many as fit and at least one; ids are never given twice."""
    store.write(Batch(outgoing=[("logs", b"aaaa"), ("traces", b"t"), ("logs", b"bb"), ("logs", b"cc")]))
    assert store.outgoing("logs", 6) == [(1, b"aaaa"), (3, b"bb")]
    assert store.outgoing("logs", 0) == [(1, b"aaaa")]
    assert store.outgoing("logs", 6, after=1) == [(3, b"bb"), (4, b"cc")]
    assert store.outgoing("metrics", 6) == []
    assert (store.outgoing_bytes("logs"), store.outgoing_bytes("logs", after=1)) == (8, 4)
    assert store.outgoing_sizes("logs", after=1, limit=1) == [(3, 2)]
    store.write(Batch(sent=[1, 2, 3, 4, 99]))
    again = reopened(store)
    again.write(Batch(outgoing=[("logs", b"d")]))
    assert again.outgoing("logs", 6) == [(5, b"d")]
    again.close()


# -- making room


def history(store: Store, ids: list[str], number: int, status: str, timestamp: float, text: str = "") -> None:
    """Operations with `count` events each."""
    store.write(Batch([kept(id, status, timestamp=timestamp) for id in ids]))
    for id in ids:
        store.write(Batch(events=[event(id, n, text=text) for n in range(1, number + 1)]))


def test_old_ones_go(store: Store) -> None:
    """What ended more than the given days ago goes with its history, just then; what runs stays, however old."""
    for name, status, at in (("old", "failed", 0.0), ("edge", "failed", 10 * DAY), ("runs", "running", 0.0)):
        history(store, [name], 3, status, at)
    store.write(
        Batch(
            processes=[
                StoredProcess("gone", "{}", 0.0),
                StoredProcess("i", "{}", 0.0),
                StoredProcess("new", "{}", 39 * DAY),
            ]
        )
    )
    went: list[str] = []
    assert store.prune(40 * DAY - 1, gone=went.extend) == 1
    assert went == ["old"]
    assert store.recall("old") is None
    assert store.events("old") == []
    assert sequences(store, "edge") == sequences(store, "runs") == [1, 2, 3]
    assert [one.instance for one in store.processes(["gone", "i", "new"])] == ["i", "new"]
    assert store.prune(41 * DAY, gone=went.extend) == 1
    assert went == ["old", "edge"]
    assert store.prune(10_000 * DAY) == 0
    assert open_in(store) == [kept("runs", timestamp=0.0)]
    assert store.aged == 2
    assert store._read("SELECT count(*) FROM events") == [(3,)]


def test_processes_have_a_limit(store: Store) -> None:
    """Those that were not heard for the longest go first, but none that has a running operation."""
    store.limits = StoreLimits(processes=3)
    names = [f"p{n}" for n in range(10)]
    store.write(
        Batch(
            [kept("a", instance="p1")], processes=[StoredProcess(name, "{}", float(n)) for n, name in enumerate(names)]
        )
    )
    store.prune(10.0)
    assert [one.instance for one in store.processes(names)] == ["p1", "p7", "p8", "p9"]
    store.write(Batch(processes=[StoredProcess("p7", "{}", 99.0, 2.5)]))
    store.prune(10.0)
    assert store.processes(["p7"]) == [StoredProcess("p7", "{}", 99.0, 2.5)]


def test_oldest_that_are_over_go_when_there_is_too_much(path: Path) -> None:
    """Above the limit the oldest end goes first, only as many as must; the file becomes smaller, what runs stays."""
    store = Store(path, most_bytes=4_000_000, limits=StoreLimits(free_pages=16))
    ids = [f"o{n:03}" for n in range(300)]
    for n, id in reversed(list(enumerate(ids))):
        history(store, [id], 100, "completed", float(n), "x" * 300)
    history(store, ["runs"], 100, "running", -1.0)
    store.write(Batch(outgoing=[("logs", b"x" * 3_000_000)]))
    went: list[str] = []
    while store.prune(1.0, gone=went.extend) or store.unfinished:
        pass
    assert went == ids[: len(went)]
    assert 100 < len(went) < 250
    assert store.squeezed == len(went)
    assert path.stat().st_size < 7_200_000
    assert store.recall("runs") is not None
    assert len(sequences(store, "runs", limit=1000)) == len(sequences(store, ids[-1], limit=1000)) == 100
    assert store.outgoing_bytes("logs") == 3_000_000
    store.close()


def test_history_of_one_that_runs_has_a_limit(store: Store) -> None:
    """Only its newest events stay; its state and the history of others are not touched."""
    store.limits = StoreLimits(events=20, chunk=7)
    history(store, ["a", "b"], 50, "running", 0.0)
    history(store, ["c"], 20, "running", 0.0)
    history(store, ["d"], 50, "completed", 0.0)
    assert store.prune(1.0) == store.trimmed == 60
    for id in "ab":
        assert sequences(store, id) == list(range(31, 51))
    assert len(sequences(store, "c")) == 20
    assert len(sequences(store, "d")) == 50
    assert len(open_in(store)) == 3
    assert store.prune(1.0) == 0


def test_histories_of_many_that_run_are_looked_at_in_turn(store: Store) -> None:
    """A call looks at some of them, however many there are, and the next ones at the others."""
    store.limits = StoreLimits(events=5, trimmed=3)
    history(store, [f"r{n}" for n in range(8)], 9, "running", 0.0)
    assert [store.prune(1.0) for _ in range(4)] == [12, 12, 8, 0]


def test_prune_takes_little_time_and_goes_on(store: Store) -> None:
    """Where its time is over it stops between two transactions and says so; calls after that bring it to its end."""
    store.limits = StoreLimits(events=2, chunk=5)
    history(store, [f"e{n}" for n in range(10)], 12, "completed", 0.0)
    history(store, [f"r{n}" for n in range(10)], 12, "running", 0.0)
    assert store.prune(1e9, seconds=0.0) == 0
    assert store.unfinished
    calls = 0
    while store._read("SELECT count(*) FROM events") != [(20,)]:
        store.prune(1e9, seconds=0.001)
        calls += 1
        assert calls < 10_000
    assert (store.aged, store.trimmed) == (10, 100)
    assert store.prune(1e9) == 0
    assert not store.unfinished


def test_numbers_are_never_given_twice(store: Store) -> None:
    """After all that had them is gone, events have higher numbers, and the revision stays."""
    store.write(Batch([kept("a", "failed", revision=9)], [event("a", 1), event("a", 2)]))
    store.prune(1e9)
    again = reopened(store)
    assert (again.newest_event_id(), again.newest_revision()) == (2, 9)
    again.write(Batch([kept("a")], [event("a", 1)]))
    assert again.events("a") == [(3, event("a", 1))]
    again.close()


def test_operation_that_comes_back_has_its_own_history(store: Store) -> None:
    """After an operation was let go, what is said of it, or of another in its place, is of that one alone."""
    store.write(Batch([kept("a", "failed")], [event("a", 1)]))
    store.prune(1e9)
    store.write(Batch([kept("b")], [event("b", 1), event("a", 2)]))
    store.write(Batch([kept("a")], [event("a", 3)]))
    assert (sequences(store, "a"), sequences(store, "b")) == ([3], [1])


# -- files that can't be used


def refused(path: Path, *parts: str) -> StoreError:
    """Opening it is an error of ours that says where and what, and leaves the file as it was."""
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreError) as told:
        Store(path)
    for part in (str(path), *parts):
        assert part in str(told.value)
    assert before is None or path.read_bytes() == before
    assert isinstance(told.value, ProgressError)
    return told.value


def made(path: Path) -> Path:
    """A store with something in it, closed."""
    store = Store(path)
    store.write(Batch([kept(f"o{n}") for n in range(500)], [event(f"o{n}", 1) for n in range(500)]))
    store.close()
    return path


def test_file_of_a_newer_version_is_refused(path: Path) -> None:
    """A file that this version can't understand is left as it is."""
    with sqlite3.connect(made(path)) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    refused(path, "newer version", "another --db")


def test_file_of_another_program_is_refused(tmp_path: Path) -> None:
    """No table of ours is put into somebody else's database."""
    with sqlite3.connect(tmp_path / "x.db") as db:
        db.execute("CREATE TABLE theirs (a)")
    db.close()
    refused(tmp_path / "x.db", "another program", "another --db")


@pytest.mark.parametrize("content", [b"hello", b"\0" * 4096, b"# a text\n" * 1000])
def test_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    """A typo in --db must not cost anyone a file."""
    (tmp_path / "x.db").write_bytes(content)
    refused(tmp_path / "x.db", "not a database", "another --db")


def test_damaged_file_is_told(path: Path) -> None:
    """Damage is told when it is met, with what to do, and the file is not touched."""
    size = made(path).stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))
    with pytest.raises(StoreError, match=r"is damaged .*keep it for analysis, and start with another --db") as told:
        with_store(path, lambda store: open_in(store))
    assert not told.value.passing
    with pytest.raises(StoreError, match="is damaged"):
        with_store(path, lambda store: store.write(Batch([kept("a")])))
    with path.open("r+b") as file:
        file.write(b"\xa5" * 100)
    refused(path, "not a database", "header is damaged")


def with_store(path: Path, use: Callable[[Store], object]) -> None:
    """Open, use, close."""
    store = Store(path)
    try:
        use(store)
    finally:
        store.close()


def test_path_that_is_no_file_is_told(tmp_path: Path) -> None:
    """A folder, or a path through a file, is told."""
    refused(tmp_path, "can't be opened", "another --db")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file" / "x.db", "can't be opened", "another --db")


def test_folder_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    """Without the right to write there, it is told what to allow."""
    made(tmp_path / "there" / "x.db")
    (tmp_path / "there").chmod(0o555)
    (tmp_path / "there" / "x.db").chmod(0o444)
    for name in ("x.db", "y.db"):
        told = child(
            f"""
            import os, sys
            from otel_progress.monitor.state.store import Store, StoreError, StoreLimits
            if os.geteuid() == 0:
                os.chmod({str(tmp_path)!r}, 0o755)
                os.seteuid(65534)
            try:
                Store({str(tmp_path / "there" / name)!r})
            except StoreError as error:
                print(error)
            """
        )
        assert "change its permissions" in told or "can't be opened" in told
        assert name in told


def test_only_its_owner_may_read_it(path: Path, store: Store) -> None:
    """What programs say of themselves is not for everyone on the machine."""
    store.write(Batch([kept("a")]))
    for file in path.parent.iterdir():
        if file.suffix != ".lock":
            assert file.stat().st_mode & 0o077 == 0, file
    assert path.parent.stat().st_mode & 0o077 == 0


@pytest.fixture(params=["by the system", "by SQLite"])
def lock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a file is held; not all systems know the first."""
    kind: str = request.param
    if kind == "by SQLite":
        monkeypatch.setitem(sys.modules, "fcntl", None)
    return kind


def test_one_monitor_a_file(lock: str, path: Path) -> None:
    """A second one is told who holds it, by whatever name it calls it; when the first ends, it may have it."""
    store = Store(path)
    link = path.parent / "link.db"
    link.symlink_to(path)
    for name in (path, link):
        with pytest.raises(StoreError, match=r"in use by another monitor.*stop that one") as told:
            Store(name)
        assert (f"(pid {os.getpid()})" in str(told.value)) is (lock == "by the system")
    store.write(Batch([kept("a")]))
    store.close()
    with_store(link, lambda again: again.write(Batch([kept("b")])))


def test_lock_ends_with_the_process(path: Path) -> None:
    """After a SIGKILL the next one starts at once."""
    with writing(path) as running:
        assert running.stdout is not None
        running.stdout.readline()
        with pytest.raises(StoreError, match=rf"\(pid {running.pid}\)"):
            Store(path)
        running.kill()
        running.wait()
    Store(path).close()


# -- migrations


def test_migration_keeps_what_is_stored(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of an older version gets what is new, once, and keeps the rest."""
    made(path)
    scripts = [*module.migrations(), "ALTER TABLE events ADD COLUMN more TEXT; UPDATE events SET text = 'moved';"]
    monkeypatch.setattr(module, "migrations", lambda: scripts)
    for _ in range(2):
        store = Store(path)
        assert len(open_in(store)) == 500
        assert store.events("o7") == [(8, event("o7", 1, text="moved"))]
        assert store._read("PRAGMA user_version") == [(len(scripts),)]
        store.close()


def test_older_file_tells_by_who_judges_which_events_another_sdk_sent(path: Path) -> None:
    """A file from before that was stored is read: what the monitor judges was sent by no SDK of ours."""
    processes = [StoredProcess(key, f'{{"progress.judged_by": "{key}"}}', 1.0) for key in ("monitor", "process")]
    operations = [kept(one.instance, instance=one.instance) for one in processes]
    with_store(path, lambda store: store.write(Batch(operations=operations, processes=processes)))
    with closing(sqlite3.connect(path)) as db:
        for column in ("is_foreign", "waiting"):
            db.execute(f"ALTER TABLE operations DROP COLUMN {column}")
        db.execute("PRAGMA user_version = 5")
    with_store(path, lambda store: check([one.is_foreign for one in open_in(store)] == [True, False]))


def test_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one transaction: the file stays as the version before has it."""
    made(path)
    scripts = [*module.migrations(), "UPDATE events SET text = 'half'; SELECT nonsense;"]
    with monkeypatch.context() as patch:
        patch.setattr(module, "migrations", lambda: scripts)
        with pytest.raises(StoreError, match="no such column"):
            Store(path)
    with_store(path, lambda store: check(store.events("o7") == [(8, event("o7", 1))]))


def check(holds: bool) -> None:
    """It holds."""
    assert holds


# -- when the disk or another program is in the way


def unchanged_and_going_on(store: Store) -> None:
    """The batch that failed is not there at all, and the next one works."""
    assert store.recall("a") == kept("a")
    assert store.recall("b") is None
    assert sequences(store) == [1]
    assert store.outgoing_bytes("logs") == 0
    store.write(BIG)
    assert store.recall("b") == kept("b", raw=b"x" * 100_000)
    assert sequences(store) == [1, 2]
    assert sequences(store, "b") == [1]
    assert store.outgoing_bytes("logs") == 1


BIG = Batch(
    [kept("a", sequence=2), kept("b", raw=b"x" * 100_000)], [event("a", 2), event("b", 1)], outgoing=[("logs", b"x")]
)
SMALL = Batch([kept("a")], [event("a", 1)])


def test_batch_fails_as_a_whole_while_another_program_holds_the_file(store: Store) -> None:
    """It is told that it may work later, and then it does."""
    store.write(SMALL)
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert store._db is not None
    store._db.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(StoreError, match="another program locks") as told:
        store.write(BIG)
    assert told.value.passing
    other.execute("ROLLBACK")
    other.close()
    unchanged_and_going_on(store)


def test_batch_fails_as_a_whole_while_the_file_is_full(store: Store) -> None:
    """Nothing of it is stored, and when there is room again it is."""
    store.write(SMALL)
    assert store._db is not None
    pages = store._read("PRAGMA page_count")[0][0]
    store._db.execute(f"PRAGMA max_page_count = {pages + 5}")
    for _ in range(3):
        with pytest.raises(StoreError, match="is full: free some space") as told:
            store.write(BIG)
        assert told.value.passing
    store._db.execute("PRAGMA max_page_count = 1000000")
    unchanged_and_going_on(store)


def test_failed_batch_leaves_no_trace_in_memory(store: Store) -> None:
    """What was numbered in a batch that failed is unknown again: its number may be another's by now."""
    assert store._db is not None
    pages = store._read("PRAGMA page_count")[0][0]
    store._db.execute(f"PRAGMA max_page_count = {pages + 5}")
    with pytest.raises(StoreError, match="is full"):
        store.write(Batch([kept("b")], [event("b", 1)], outgoing=[("logs", b"x" * 100_000)]))
    store._db.execute("PRAGMA max_page_count = 1000000")
    store.write(Batch([kept("c")]))
    store.write(Batch(events=[event("b", 2)]))
    assert sequences(store, "c") == []
    assert store.strays == 1


def test_mistake_of_ours_leaves_nothing(store: Store) -> None:
    """A value of a type that can't be stored is no fault of the file; nothing of its batch is stored."""
    store.write(SMALL)
    with pytest.raises((sqlite3.ProgrammingError, sqlite3.InterfaceError)):
        store.write(Batch(BIG.operations, [*BIG.events, event("a", 3, text=[])], outgoing=BIG.outgoing))
    unchanged_and_going_on(store)


DISK = """
import sys
sys.path.insert(0, {tests!r})
from test_store import *
{limit}
store = Store({path!r})
store.write(SMALL)
more = [Batch([kept("a", raw=bytes([n]) * 20_000, sequence=n)], [event("a", n)]) for n in range(2, 200)]
written = 1
told = None
{full}
for n, batch in enumerate(more, 2):
    try:
        store.write(batch)
    except StoreError as error:
        told = error
        break
    written = n
assert told is not None and told.passing, told
for _ in range(3):
    try:
        store.write(more[written - 1])
        raise SystemExit("it was not full")
    except StoreError as error:
        assert error.passing
assert sequences(store, limit=1000) == list(range(1, written + 1)), written
{room}
for batch in more:
    store.write(batch)
assert sequences(store, limit=1000) == list(range(1, 200))
assert store.recall("a").sequence == 199
store.close()
print(written, told)
"""


def test_file_may_not_grow(tmp_path: Path) -> None:
    """Where the system refuses to let it grow, all that was acknowledged is there, and it goes on with room again."""
    limits = "import resource; old = resource.getrlimit(resource.RLIMIT_FSIZE)"
    full = "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, old[1]))"
    room = "resource.setrlimit(resource.RLIMIT_FSIZE, old)"
    told = child(disk(tmp_path / "x.db", limits, full, room))
    assert "check its disk" in told or "free some space" in told


def test_disk_is_full(tmp_path: Path) -> None:
    """On a disk that is really full all that was acknowledged is there, and it goes on with room again."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if (
        not hasattr(os, "geteuid")
        or os.geteuid() != 0
        or subprocess.run(mount, check=False, capture_output=True).returncode
    ):
        pytest.skip("no disk can be made here")
    try:
        room = f"import subprocess; subprocess.run(['mount', '-o', 'remount,size=99m', {str(small)!r}], check=True)"
        assert "is full: free some space" in child(disk(small / "x.db", "", "", room))
    finally:
        subprocess.run(["umount", str(small)], check=True)


def disk(path: Path, limit: str, full: str, room: str) -> str:
    """A program that fills a disk, and goes on when there is room."""
    return DISK.format(tests=str(Path(__file__).parent), path=str(path), limit=limit, full=full, room=room)


def child(program: str) -> str:
    """What another process says."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


WRITER = """
import sys
from otel_progress.monitor.state.saved import *
from otel_progress.monitor.state.store import Store
store = Store(sys.argv[1])
n = store.newest_revision()
while True:
    n += 1
    id = f"o{n % 7}"
    batch = Batch(
        [StoredOperation(id, "n", "running", "h", None, None, None, 1.0, 2.0, 1, n, "i", n, "", b"x" * 500)],
        [HistoryEvent(id, 1.0, 1, n, 1.0, "e")],
        [StoredProcess("i", "{}", float(n))],
        [("logs", b"%d" % n)],
    )
    store.write(batch)
    print(n, flush=True)
    if n % 50 == 0:
        store.prune(3.0, seconds=0.01)
"""


def writing(path: Path) -> subprocess.Popen[str]:
    """A process that writes, and says the number of each batch when it is written."""
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)


def test_what_was_acknowledged_outlives_a_kill(path: Path) -> None:
    """After each of ten SIGKILLs in the middle of writing, each batch that was acknowledged is there as a whole."""
    rng = random.Random(3)
    last = 0
    for _ in range(10):
        with writing(path) as running:
            assert running.stdout is not None
            for _ in range(rng.randrange(1, 120)):
                last = int(running.stdout.readline())
            os.kill(running.pid, signal.SIGKILL)
            last = max([last, *(int(line) for line in running.stdout.read().split("\n")[:-1] if line)])
        store = Store(path)
        newest = store.newest_revision()
        assert newest in (last, last + 1)
        said = sorted(n for at in range(7) for n in sequences(store, f"o{at}", limit=10_000))
        assert said == list(range(1, newest + 1))
        assert max(one.sequence for one in open_in(store)) == newest
        assert [body for _, body in store.outgoing("logs", 10**9)] == [b"%d" % n for n in range(1, newest + 1)][:1000]
        assert store.processes(["i"])[0].heard_at == newest
        assert store._read("PRAGMA integrity_check") == [("ok",)]
        store.close()


# -- readers beside the writer


def test_readers_see_whole_batches_while_it_writes(store: Store, path: Path) -> None:
    """Many read at once while one writes: each reads whole batches, none fails, and the log does not grow for ever."""
    over = threading.Event()
    wrong: list[object] = []
    reads = [0] * 4

    def read(number: int) -> None:
        seen = 0
        while not over.is_set() or reads[number] < 20:
            try:
                open_now = open_in(store)
                revisions = {one.revision for one in open_now}
                if len(open_now) != 10 or len(revisions) != 1 or revisions.pop() < seen:
                    wrong.append(open_now)
                seen = open_now[0].revision
                found = sequences(store, "o1", limit=100_000)
                if found != list(range(1, len(found) + 1)) or len(found) < seen:
                    wrong.append(found)
            except Exception as error:
                wrong.append(error)
                return
            reads[number] += 1

    store.limits = StoreLimits(log_bytes=4_000_000, look_every=8)

    def batch(n: int) -> Batch:
        return Batch(
            [kept(f"o{o}", revision=n, raw=b"x" * 2000) for o in range(10)], [event(f"o{o}", n) for o in range(10)]
        )

    store.write(batch(1))
    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for n in range(2, 1000):
            store.write(batch(n))
    finally:
        over.set()
        for thread in threads:
            thread.join(60)
    assert wrong == []
    assert min(reads) >= 20
    assert path.with_name(path.name + "-wal").stat().st_size < 2 * store.limits.log_bytes
    store.prune(1.0)
    assert path.with_name(path.name + "-wal").stat().st_size == 0


def test_closed_store_says_so(store: Store) -> None:
    """After its end each use is an error that says why; the end may come twice."""
    store.close()
    store.close()
    for use in (
        lambda: store.write(SMALL),
        lambda: store.prune(1.0),
        lambda: store.recall("a"),
        lambda: store.outgoing("logs", 1),
    ):
        with pytest.raises(StoreError, match="is closed"):
            use()


def test_one_that_runs_and_says_much_does_not_push_out_what_is_over(path: Path) -> None:
    """Where there is too much, long histories of those that run are shortened first, to their newest."""
    store = Store(path, most_bytes=1_000_000, limits=StoreLimits(tight_events=50))
    ids = [f"o{n}" for n in range(50)]
    history(store, ids, 2, "completed", 1.0)
    history(store, ["chatty"], 2_000, "running", 2.0, "x" * 1_000)
    while store.prune(3.0):
        pass
    assert store.count(Query()) == 50
    assert sequences(store, "chatty", limit=1000) == list(range(1_951, 2_001))
    store.close()


def test_of_many_that_run_each_keeps_a_share_of_the_file(path: Path) -> None:
    """The more run, the shorter are their histories where there is too much; a few events of each are always kept."""
    store = Store(path, most_bytes=1_000_000, limits=StoreLimits(tight_events=300, fewest_events=50))
    for running, kept in ((1, 300), (10, 200), (100, 50)):
        history(store, [f"r{running}-{number}" for number in range(running - store.open_count()[0])], 1, "running", 2.0)
        assert store._tight_events() == kept
    store.close()
