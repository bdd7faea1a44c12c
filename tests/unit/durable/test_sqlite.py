"""The store in a SQLite file: what it keeps, who may write, and what it says when it can't be used."""

from __future__ import annotations

import os
import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from otel_progress import CheckpointError, InvalidArgument, LeaseLost, OperationHeld, procfs
from otel_progress.durable.holder import Holder, this_process
from otel_progress.durable.sqlite import SqliteStore
from otel_progress.durable.store import Batch, Claim, Keys, Lease, Suspect, open_store, standing
from otel_progress.testing import FakeClock

HERE = this_process()
GONE = replace(HERE, ticks=1)
"""A process with our pid that started at another time: it is dead, and the pid was used again."""
_seen = procfs.look(os.getppid())
OTHER = replace(HERE, pid=os.getppid(), ticks=0 if _seen is None else _seen.ticks)
"""Another process of this machine that is alive."""
AFAR = Holder("elsewhere", "", "", 4711, 0, ("python", "job.py"), "/srv")


@pytest.fixture
def store(tmp_path: Path, fake: FakeClock) -> SqliteStore:
    """Return an empty store under a clock that stands still."""
    return SqliteStore(tmp_path / "work.db")


def claim(holder: Holder = OTHER, **options: object) -> Claim:
    return Claim("a", "job", holder, **options)  # type: ignore[arg-type]


def test_what_was_written_is_read_by_another(store: SqliteStore) -> None:
    """Keys, states and results are kept by scope."""
    lease = store.acquire(claim()).lease
    store.write(
        lease,
        Batch(
            done={"": ["x", "y"], "s": ["x"]},
            failed={"": ["z"]},
            states={("s", "state"): '{"n":1}', ("s", "result"): "{}"},
        ),
    )
    store.close()
    again = SqliteStore(store.path)
    assert again.keys("a", "") == Keys(frozenset("xy"), frozenset("z"))
    assert again.keys("a", "s") == Keys(frozenset("x"))
    assert (again.state("a", "s", "state"), again.state("a", "s", "result")) == ('{"n":1}', "{}")
    assert again.state("a", "", "state") is None
    assert again.keys("b", "") == Keys()


def test_a_later_mark_replaces_an_earlier_one(store: SqliteStore) -> None:
    """A failed key that is done later is done."""
    lease = store.acquire(claim()).lease
    store.write(lease, Batch(failed={"": ["x"]}))
    store.write(lease, Batch(done={"": ["x"]}))
    assert store.keys("a", "") == Keys(frozenset("x"))


@pytest.mark.parametrize("key", ["ü", "a b", "a'b", 'a"b', "x\ny", "😀", "[1]", "5", "null"])
def test_any_text_is_a_key(store: SqliteStore, key: str) -> None:
    """Keys come back as they were."""
    lease = store.acquire(claim()).lease
    store.write(lease, Batch(done={"": [key]}))
    assert store.keys("a", "").done == {key}


def test_a_closed_scope_is_forgotten_with_all_inside(store: SqliteStore) -> None:
    """What belongs to an item that is done goes; its neighbours stay."""
    lease = store.acquire(claim()).lease
    inside = ['["k"]/read', '["k"]/read["p"]/parse', '["kk"]/read', "read"]
    store.write(lease, Batch(done={path: ["x"] for path in inside}))
    store.write(lease, Batch(closed=['["k"]/']))
    assert [bool(store.keys("a", path).done) for path in inside] == [False, False, True, True]


def test_an_operation_has_one_holder(store: SqliteStore, fake: FakeClock) -> None:
    """A second process is told who holds it, since when and until when; once it ended anyone may take it."""
    lease = store.acquire(claim()).lease
    fake.sleep(5)
    with pytest.raises(OperationHeld, match=rf"held by process {os.getppid()} on .* for 5 s so far .*expires in 25 s"):
        store.acquire(claim(AFAR))
    store.write(lease, Batch(ended=("completed", None)))
    assert store.acquire(claim(AFAR)).lease == Lease("a", 2, 2)


def test_a_process_takes_over_from_itself(store: SqliteStore) -> None:
    """An attempt whose end could not be written doesn't lock out the next one of the same process."""
    store.acquire(claim(HERE))
    assert store.acquire(claim(HERE)).lease.attempt == 2


def test_a_lease_expires_unless_it_is_renewed(store: SqliteStore, fake: FakeClock) -> None:
    """A lease is free exactly 30 s after its last write."""
    lease = store.acquire(claim(AFAR)).lease
    fake.sleep(20)
    store.write(lease, Batch())
    fake.sleep(29.9)
    with pytest.raises(OperationHeld):
        store.acquire(claim())
    fake.sleep(0.1)
    assert store.acquire(claim()).lease.attempt == 2


def test_who_lost_the_lease_can_not_write(store: SqliteStore, fake: FakeClock) -> None:
    """Fencing: a write with an older number changes nothing."""
    old = store.acquire(claim(AFAR)).lease
    fake.sleep(30)
    new = store.acquire(claim()).lease
    with pytest.raises(LeaseLost, match="attempt 1 can't save"):
        store.write(old, Batch(done={"": ["x"]}))
    assert store.keys("a", "") == Keys()
    store.write(new, Batch(done={"": ["y"]}))
    store.forget("b")
    with pytest.raises(LeaseLost):
        store.write(Lease("never", 1, 1), Batch())


@pytest.mark.parametrize("jump", [3600, -3600])
def test_a_jump_of_the_wall_clock_ends_no_lease_on_this_machine(
    store: SqliteStore, fake: FakeClock, jump: float
) -> None:
    """Processes of one machine go by its monotonic clock."""
    store.acquire(claim(OTHER))
    fake.jump(jump)
    with pytest.raises(OperationHeld):
        store.acquire(claim(HERE))
    fake.sleep(30)
    assert store.acquire(claim(HERE)).lease.attempt == 2


def test_proof_of_death_frees_the_lease_at_once(store: SqliteStore) -> None:
    """A holder on this machine whose process is gone holds nothing."""
    store.acquire(claim(GONE))
    found = store.operation("a")
    assert found is not None
    assert standing(found) == "lost"
    assert store.acquire(claim()).lease.attempt == 2


def test_a_holder_elsewhere_can_not_be_proven_dead(store: SqliteStore) -> None:
    """Another machine or pid namespace has other processes."""
    store.acquire(claim(replace(GONE, namespace="pid:[1]")))
    with pytest.raises(OperationHeld):
        store.acquire(claim())


def test_keys_in_hand_at_a_death_are_suspects(store: SqliteStore) -> None:
    """Each death counts; an end in good order does not; a key that is done is no suspect any more."""
    for _ in range(2):
        lease = store.acquire(claim(GONE)).lease
        store.write(lease, Batch(hands={"": ["x"], "s": ["y"]}))
        store.write(lease, Batch(hands={"s": []}))
    lease = store.acquire(claim()).lease
    assert store.suspects("a") == [Suspect("", "x", 2, False)]
    store.write(lease, Batch(hands={"": ["z"]}, done={"": ["x"]}, ended=("failed", "ValueError")))
    store.acquire(claim())
    assert store.suspects("a") == []


def test_a_key_can_be_set_aside(store: SqliteStore) -> None:
    """Later attempts learn of it with the keys of its scope."""
    lease = store.acquire(claim(GONE)).lease
    store.write(lease, Batch(hands={"s": ["x"]}))
    store.died("a", 1, "SIGKILL")
    store.set_aside("a", "s", "x")
    assert store.suspects("a") == [Suspect("s", "x", 1, True)]
    assert store.keys("a", "s").aside == {"x"}


def test_a_watcher_says_how_a_process_died(store: SqliteStore) -> None:
    """That ends the attempt as lost, and frees its lease; it does not change an end, nor a newer attempt."""
    lease = store.acquire(claim()).lease
    store.died("a", 1, "SIGKILL")
    found = store.operation("a")
    assert found is not None
    assert (found.status, found.reason, found.lease_until) == ("lost", "SIGKILL", 0)
    with pytest.raises(LeaseLost):
        store.write(lease, Batch())
    lease = store.acquire(claim()).lease
    store.died("a", 1, "SIGSEGV")
    store.write(lease, Batch(ended=("completed", None)))
    store.died("a", 2, "SIGSEGV")
    found = store.operation("a")
    assert found is not None
    assert (found.status, found.reason) == ("completed", None)


def test_a_fresh_claim_forgets_what_was_kept(store: SqliteStore) -> None:
    """The attempts go on, with nothing done."""
    lease = store.acquire(claim()).lease
    store.write(lease, Batch(done={"": ["x"]}, states={("", "state"): "{}"}, ended=("failed", None)))
    assert store.acquire(claim(fresh=True)).lease.attempt == 2
    assert store.keys("a", "") == Keys()
    assert store.state("a", "", "state") is None


def test_old_operations_are_removed(tmp_path: Path, fake: FakeClock) -> None:
    """What was not heard of for 30 days goes with all that was kept of it, when another starts."""
    store = SqliteStore(tmp_path / "work.db")
    store.write(store.acquire(claim()).lease, Batch(done={"": ["x"]}, ended=("failed", None)))
    for day in range(1, 31):
        fake.sleep(86_400)
        store.write(store.acquire(Claim(f"day {day}", "job", HERE)).lease, Batch(ended=("completed", None)))
    assert "a" in {one.id for one in store.operations()}
    fake.sleep(3601)
    store.acquire(Claim("c", "job", HERE))
    assert [one.id for one in store.operations()] == ["c", *(f"day {day}" for day in range(30, 0, -1))]
    assert _count(store.path, "marks") == _count(store.path, "scopes") == 0


def test_a_pause_of_the_store_counts_as_a_week(store: SqliteStore, fake: FakeClock) -> None:
    """A store that is used each month keeps the last five operations: nobody knows that the clock is right."""
    for month in range(10):
        store.write(store.acquire(Claim(f"month {month}", "job", HERE)).lease, Batch(ended=("completed", None)))
        fake.sleep(30 * 86_400)
    assert [one.id for one in store.operations()] == [f"month {month}" for month in range(9, 4, -1)]


@pytest.mark.parametrize("days", [40, 4000, -40])
def test_a_clock_that_is_wrong_deletes_nothing(store: SqliteStore, fake: FakeClock, days: float) -> None:
    """Of a process whose clock is ahead or behind, or of one after it: neither what is held nor what has ended."""
    store.write(store.acquire(Claim("done", "job", HERE)).lease, Batch(done={"": ["x"]}, ended=("failed", None)))
    lease = store.acquire(claim(OTHER)).lease
    for number in range(5):
        for jump in (days, -days):
            fake.jump(jump * 86_400)
            again = SqliteStore(store.path)
            again.write(again.acquire(Claim(f"{number} {jump}", "job", HERE)).lease, Batch(ended=("completed", None)))
            with pytest.raises(OperationHeld):
                again.acquire(claim(HERE))
            again.close()
    store.write(lease, Batch(done={"": ["y"]}))
    assert store.keys("done", "").done == {"x"}


def test_what_is_held_is_never_removed(store: SqliteStore, fake: FakeClock) -> None:
    """A holder whose clock was behind by months, and that writes no more than each 10 s."""
    fake.jump(-100 * 86_400)
    lease = store.acquire(claim(OTHER)).lease
    fake.jump(100 * 86_400)
    _execute(store.path, "UPDATE operations SET lease_until = 1, seen_at = 1")
    for day in range(40):
        fake.jump(86_400)
        again = SqliteStore(store.path)
        again.write(again.acquire(Claim(f"{day}", "job", HERE)).lease, Batch(ended=("completed", None)))
        again.close()
    store.write(lease, Batch(done={"": ["y"]}))
    fake.sleep(31)
    _execute(store.path, "UPDATE operations SET seen_at = 1 WHERE id = 'a'")
    SqliteStore(store.path).acquire(Claim("last", "job", HERE))
    with pytest.raises(LeaseLost, match=r"was deleted from .*work\.db"):
        store.write(lease, Batch(done={"": ["y"]}))


def _count(path: Path, table: str) -> int:
    db = sqlite3.connect(path)
    number = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    db.close()
    return int(number)


def test_forget_deletes_what_nobody_holds(store: SqliteStore) -> None:
    """A running operation is kept."""
    lease = store.acquire(claim()).lease
    with pytest.raises(OperationHeld):
        store.forget("a")
    store.write(lease, Batch(ended=("completed", None)))
    store.forget("a")
    assert store.operations() == []


def test_the_file_is_private(store: SqliteStore) -> None:
    """No other user can read it, its log or its index, whatever the umask."""
    store.acquire(claim())
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in store.path.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert "work.db-wal" in modes


@pytest.mark.parametrize("content", [b"no database, but some text " * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """The error comes when the store is opened, and the file is left as it is."""
    path = tmp_path / "work.db"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged or no database"):
        SqliteStore(path)
    assert path.read_bytes() == content


def test_a_half_written_file_is_refused_or_read(store: SqliteStore) -> None:
    """A file that was cut off is an error that says so, never a silent new start."""
    lease = store.acquire(claim()).lease
    store.write(lease, Batch(done={"": [f"key-{number}" for number in range(5000)]}))
    store.close()
    content = store.path.read_bytes()
    store.path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        SqliteStore(store.path).keys("a", "")


def test_the_database_of_another_program_is_refused(tmp_path: Path) -> None:
    """It is not ours to change."""
    db = sqlite3.connect(tmp_path / "work.db")
    db.execute("CREATE TABLE accounts (money)")
    db.close()
    with pytest.raises(CheckpointError, match="another program"):
        SqliteStore(tmp_path / "work.db")


def test_a_newer_version_is_refused(store: SqliteStore) -> None:
    """The error says to install the newer release."""
    store.close()
    db = sqlite3.connect(store.path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(CheckpointError, match="newer version of otel-progress"):
        SqliteStore(store.path)


def test_a_file_that_can_not_be_made_is_refused(tmp_path: Path) -> None:
    """A missing folder, and a folder in place of the file."""
    with pytest.raises(CheckpointError, match="can't be opened"):
        SqliteStore(tmp_path / "missing" / "work.db")
    with pytest.raises(CheckpointError, match="can't be"):
        SqliteStore(tmp_path)


def test_a_link_is_refused(tmp_path: Path) -> None:
    """Another user could lead us to any file."""
    (tmp_path / "work.db").symlink_to(tmp_path / "other.db")
    with pytest.raises(CheckpointError, match="is a link"):
        SqliteStore(tmp_path / "work.db")


def test_a_locked_file_is_an_error_after_a_while(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program that holds the file is named as the cause, and nothing is lost."""
    lease = store.acquire(claim()).lease
    store._connected().execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(CheckpointError, match="another program locks"):
        store.write(lease, Batch(done={"": ["x"]}))
    other.execute("ROLLBACK")
    other.close()
    store.write(lease, Batch(done={"": ["x"]}))
    assert store.keys("a", "").done == {"x"}


def test_a_full_disk_is_an_error_and_what_was_saved_stays(store: SqliteStore) -> None:
    """The transaction is undone as a whole; with room again, the same batch is written."""
    lease = store.acquire(claim()).lease
    store.write(lease, Batch(done={"": ["x"]}))
    db = store._connected()
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages}")
    batch = Batch(done={"": [f"key-{number}" for number in range(5000)]})
    with pytest.raises(CheckpointError, match="is full"):
        store.write(lease, batch)
    assert store.keys("a", "").done == {"x"}
    db.execute("PRAGMA max_page_count = 1000000")
    store.write(lease, batch)
    assert len(store.keys("a", "").done) == 5001


def test_a_read_only_file_is_an_error(store: SqliteStore) -> None:
    """The error says what to change."""
    lease = store.acquire(claim()).lease
    store._connected().close()
    store._db = sqlite3.connect(f"file:{store.path}?mode=ro", uri=True, isolation_level=None)
    with pytest.raises(CheckpointError, match=r"can't be written .* permissions"):
        store.write(lease, Batch(done={"": ["x"]}))


def test_a_file_that_was_removed_is_an_error(store: SqliteStore) -> None:
    """What is written to a removed file would be lost in silence."""
    lease = store.acquire(claim()).lease
    store.path.unlink()
    with pytest.raises(CheckpointError):
        store.write(lease, Batch(done={"": ["x"]}))


def test_a_store_at_rest_is_one_file(store: SqliteStore) -> None:
    """Its log is gone, and it is used again as if nothing had been."""
    lease = store.acquire(claim()).lease
    store.write(lease, Batch(done={"": ["x"]}))
    store.rest()
    assert [path.name for path in store.path.parent.iterdir()] == ["work.db"]
    store.write(lease, Batch(done={"": ["y"]}))
    assert store.keys("a", "").done == {"x", "y"}


def test_a_closed_store_says_so(store: SqliteStore) -> None:
    """It may be closed twice."""
    store.close()
    store.close()
    with pytest.raises(CheckpointError, match="is closed"):
        store.operations()


@pytest.mark.parametrize("address", ["{}/work.db", "sqlite:///{}/work.db"])
def test_one_address_is_one_store(tmp_path: Path, address: str) -> None:
    """Two stores of one file would release each other's locks."""
    first = open_store(address.format(tmp_path))
    assert open_store(str(tmp_path / "." / "work.db")) is first
    assert open_store(first) is first
    first.close()
    assert open_store(tmp_path / "work.db") is not first


@pytest.mark.parametrize(
    "wrong",
    [
        *("", " ", "mysql://host/db", "sqlite://work.db", "sqlite:///", 5, b"work.db", True),
        *("sqlite:", "sqlite:work.db", "sqlite:///:memory:", ":memory:", "file:work.db", "work.db?mode=ro"),
        "redis://host/name",
    ],
)
def test_a_wrong_address_is_refused(wrong: object) -> None:
    """The error says what an address looks like."""
    with pytest.raises(InvalidArgument, match=r"checkpoint store|no address of Redis"):
        open_store(wrong)


def _execute(path: Path, statement: str) -> None:
    db = sqlite3.connect(path)
    with db:
        db.execute(statement)
    db.close()
