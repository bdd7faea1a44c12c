"""The file of the monitor under the feet of it: removed, replaced, cut off, overwritten."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from monitor_parts import Parts, event_of, open_in, parts, request_of

from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Status
from otel_progress.monitor.intake.requests import Accepted, Refused
from otel_progress.monitor.state.integrity import Integrity
from otel_progress.monitor.state.saved import Batch
from otel_progress.monitor.state.store import Store, StoreError, StoreLimits
from otel_progress.testing import FakeClock

AT = 1_700_000_000.0


@pytest.fixture
def monitor(fake: FakeClock, tmp_path: Path) -> Iterator[Parts]:
    """The inside of a monitor."""
    (tmp_path / "state").mkdir()
    with parts(tmp_path / "state" / "m.db") as found:
        yield found


def snap(key: str, sequence: int = 1, **more: Any) -> Snapshot:
    """A snapshot of an operation."""
    return Snapshot(key, "work", Status.RUNNING, AT + sequence, sequence=sequence, started_at=AT, **more)


def wal(path: Path) -> Path:
    """The log of a file."""
    return Path(f"{path}-wal")


def emptied(monitor: Parts) -> None:
    """All is in the file, and nothing in its log."""
    assert monitor.store._db is not None
    monitor.store._checkpoint(monitor.store._db)


def replace_by_a_copy(path: Path) -> None:
    """As an editor or a backup tool does."""
    shutil.copy(path, f"{path}.copy")
    os.replace(f"{path}.copy", path)


def cut(path: Path, size: int) -> None:
    """Truncate it to this size."""
    with path.open("r+b") as file:
        file.truncate(size)


HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "removed": (Path.unlink, "m.db was removed while the monitor ran"),
    "renamed": (lambda path: path.rename(path.with_name("moved.db")), "was removed while the monitor ran"),
    "replaced by a copy": (replace_by_a_copy, "was replaced by another file"),
    "replaced by a link": (lambda path: (path.rename(f"{path}2"), path.symlink_to(f"{path}2")), "was replaced"),
    "folder renamed": (lambda path: path.parent.rename(path.parent.with_name("x")), "the folder of .* was removed"),
    "folder removed": (lambda path: shutil.rmtree(path.parent), "the folder of .* was removed"),
    "folder replaced": (
        lambda path: (shutil.copytree(path.parent, f"{path.parent}2"), shutil.rmtree(path.parent),
                      Path(f"{path.parent}2").rename(path.parent)),
        "was replaced by another file",
    ),
    "cut off": (lambda path: cut(path, 8192), "was truncated"),
    "emptied": (lambda path: cut(path, 0), "the start of .* was overwritten or truncated"),
    "beginning overwritten": (lambda path: path.open("r+b").write(b"\0" * 100), "the start of .* was overwritten"),
    "log removed": (lambda path: wal(path).unlink(), "m.db-wal, the newest part of the database, was removed"),
    "log replaced": (lambda path: replace_by_a_copy(wal(path)), "m.db-wal, .*, was replaced"),
    "log cut off": (lambda path: cut(wal(path), 32), "m.db-wal, .*, was truncated"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("harm", HARM)
def test_nothing_is_acknowledged_that_a_restart_would_not_find(monitor: Parts, harm: str) -> None:
    """The next request is refused, with what happened and what to do; at rest it is told within a second."""
    do, why = HARM[harm]
    monitor.say(*(snap(str(n)) for n in range(50)))
    emptied(monitor)
    assert monitor.say(snap("stored")) == Accepted()
    do(monitor.path)
    (answer,) = monitor.take(request_of(event_of(snap("lost"))))
    assert isinstance(answer, Refused)
    assert answer.status == 503
    for text in (answer.reason, monitor.core.faults.text or ""):
        assert re.search(f"{why}.*restart the monitor", text)
    monitor.core.faults.current = None
    monitor.tick()
    assert monitor.core.faults.text is not None


def test_it_goes_on_where_the_file_is_put_back(monitor: Parts) -> None:
    """What was refused is taken when it comes again, once, and the trouble is over, also where nothing comes."""
    monitor.say(snap("a"))
    away = monitor.path.with_name("away")
    monitor.path.rename(away)
    assert isinstance(monitor.say(snap("b")), Refused)
    monitor.tick()
    away.rename(monitor.path)
    monitor.tick()
    assert monitor.core.faults.text is None
    assert monitor.say(snap("b")) == Accepted()
    monitor.restart()
    assert {one.operation_id for one in open_in(monitor.store)} == {"a", "b"}
    assert len(monitor.history("b")) == 1


def test_end_of_the_monitor_leaves_what_was_put_in_place_of_its_file(monitor: Parts) -> None:
    """It does not write its log into another file, nor delete the log of that."""
    monitor.say(snap("a"))
    shutil.rmtree(monitor.path.parent)
    monitor.path.parent.mkdir()
    with closing(sqlite3.connect(monitor.path)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("CREATE TABLE theirs (x)")
        log = wal(monitor.path).read_bytes()
        monitor.store.close()
        assert wal(monitor.path).read_bytes() == log
        assert other.execute("SELECT count(*) FROM theirs").fetchone() == (0,)
    monitor.path.unlink()


def test_what_the_store_does_itself_is_no_harm(monitor: Parts) -> None:
    """It grows, empties its log, gives room back and begins its log anew; none of that looks like harm."""
    store = monitor.store
    store.limits = StoreLimits(look_every=1, log_bytes=100_000, free_pages=8)
    assert store._db is not None
    store._db.execute("PRAGMA wal_autocheckpoint = 20")
    for turn in range(1, 40):
        assert monitor.say(*(snap(f"{turn}-{n}", message="x" * 2000) for n in range(30))) == Accepted()
        if turn % 7 == 0:
            store._db.execute("DELETE FROM events")
            store._db.execute("DELETE FROM operations")
            store.prune(AT)
        store.check()
    assert monitor.core.faults.text is None


def test_others_may_empty_the_log_into_the_file(monitor: Parts) -> None:
    """As the shell of SQLite and tools for backups do: nothing is lost by that."""
    for turn in range(3):
        assert monitor.say(*(snap(f"{turn}-{n}") for n in range(30))) == Accepted()
        with closing(sqlite3.connect(monitor.path)) as other:
            assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        assert wal(monitor.path).stat().st_size == 0
        monitor.tick()
        assert monitor.core.faults.text is None


def test_lock_that_was_removed_is_held_anew(monitor: Parts) -> None:
    """Else a second monitor could start on the same file."""
    Path(f"{monitor.path}.lock").unlink()
    monitor.tick()
    with pytest.raises(StoreError, match="in use by another monitor"):
        Store(monitor.path)
    assert monitor.core.faults.text is None


# -- what was there before


@pytest.mark.parametrize("bits", [0o666, 0o644])
def test_file_of_before_is_made_private(tmp_path: Path, bits: int) -> None:
    """With its log and all beside it."""
    path = tmp_path / "m.db"
    Store(path).close()
    for name in ("", "-wal", "-shm", ".lock"):
        Path(f"{path}{name}").touch()
        Path(f"{path}{name}").chmod(bits)
    store = Store(path)
    store.write(Batch())
    assert {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == dict.fromkeys(
        ("m.db", "m.db-wal", "m.db-shm", "m.db.lock"), 0o600
    )
    store.close()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to give files away")
@pytest.mark.parametrize("name", ["", "-wal", "-shm", "-journal", ".lock"])
def test_file_that_somebody_else_put_beside_it_is_refused(tmp_path: Path, name: str) -> None:
    """As everybody can in a folder for all: what SQLite finds in a journal, it would put into the file."""
    tmp_path.chmod(0o1777)
    path = tmp_path / "m.db"
    Store(path).close()
    planted = Path(f"{path}{name}")
    planted.touch()
    os.chown(planted, 65_534, 65_534)
    with pytest.raises(StoreError, match=r"belongs to another user \(uid 65534\)"):
        Store(path)


@pytest.mark.parametrize("name", ["", "-wal", "-shm", "-journal", ".lock"])
def test_link_in_place_of_a_file_of_ours_is_refused(tmp_path: Path, name: str) -> None:
    """But for the file itself, which somebody may keep elsewhere by a link of his own; nothing behind it is touched."""
    path, other = tmp_path / "m.db", tmp_path / "other"
    other.write_text("theirs")
    other.chmod(0o644)
    Path(f"{path}{name}").symlink_to(other)
    with pytest.raises(StoreError, match=r"is a link|not a database"):
        Store(path)
    assert other.read_text() == "theirs"


def test_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    """They could replace the file."""
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(StoreError, match=r"can be written by .*chmod"):
        Store(folder / "m.db")
    assert list(folder.iterdir()) == []


# -- overwritten pages


def many(store: Store) -> None:
    """A file of many pages."""
    from test_store import event, kept

    store.write(Batch([kept(str(n), raw=b"x" * 500) for n in range(300)], [event(str(n), 1) for n in range(300)]))
    assert store._db is not None
    store._checkpoint(store._db)


def test_overwritten_pages_are_found_and_told(tmp_path: Path) -> None:
    """With what to do; and where all is well, that is told, and when it was looked at."""
    store = Store(tmp_path / "m.db")
    many(store)
    told: list[str | None] = []
    looker = Integrity(store, told.append)
    assert looker.health() == {"integrity": {"status": "not looked at yet"}}
    assert looker.look()
    assert (looker.health()["integrity"]["status"], told) == ("ok", [None])
    with store.path.open("r+b") as file:
        file.seek(5 * 4096)
        file.write(os.urandom(20 * 4096))
    assert looker.look()
    assert looker.health()["integrity"]["status"] == "damaged"
    assert told[-1] is not None
    assert "is damaged" in told[-1]
    assert "stop the monitor" in told[-1]
    store.close()


def test_look_is_broken_off_when_the_store_closes_or_its_log_grows(tmp_path: Path) -> None:
    """It never holds up what the monitor is there for, and what is broken off says nothing."""
    store = Store(tmp_path / "m.db")
    many(store)
    looker = Integrity(store, lambda _: pytest.fail("it was broken off"), every=0.01)
    with store.examining() as db:
        store.interrupt()
        assert db.execute("SELECT 1").fetchone() == (1,)
    store.close()
    assert not looker.look()
    looker.start()
    looker.stop(5)


def test_damage_stays_told_when_something_was_stored_since(monitor: Parts) -> None:
    """That a write went well does not mend other pages."""
    monitor.core.faults.damage = "the file is damaged"
    assert monitor.say(snap("a")) == Accepted()
    assert monitor.core.faults.text == "the file is damaged"
