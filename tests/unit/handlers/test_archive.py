"""Archives: updates are kept, what became of an operation is answered after a restart, and everything is bounded."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

import otel_progress as progress
from otel_progress.handlers import archive_stores
from otel_progress.handlers.archive import Archive, archive
from otel_progress.handlers.archive_stores import Addition, SqliteArchive
from otel_progress.testing import Capture, FakeClock


@pytest.fixture(params=["memory", "sqlite"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an archive."""
    return "memory" if request.param == "memory" else f"sqlite:///{tmp_path}/runs.db"


def test_it_answers_what_became_of_an_operation(where: str, progress_capture: Capture) -> None:
    """Status, last snapshot and history; while it runs, too, and this moment included."""
    kept = archive(where)
    assert kept.of("survey-1") is None
    with kept, pytest.raises(ValueError, match="no"), progress.operation("survey", id="survey-1", total=4):
        with progress.stage("load"):
            progress.advance(1)
        running = kept.of("survey-1")
        assert running is not None
        assert running.status == "running"
        assert running.history[-1]["event"] == "progress.stage.ended"
        raise ValueError("no")
    found = kept.of("survey-1")
    assert found is not None
    assert (found.status, found.name) == ("failed", "survey")
    assert found.snapshot["reason"] == "ValueError: no"
    assert found.snapshot["percentage"] == 25.0
    first, *_, last = found.history
    assert first["text"] == "survey started"
    assert last["text"].endswith("(ValueError: no)")
    assert (last["status"], last["percentage"]) == ("failed", 25.0)
    assert kept.ids() == ["survey-1"]


def test_it_survives_a_kill(tmp_path: Path) -> None:
    """Another process reads it while the job runs, and after SIGKILL: the last known status, nothing invented."""
    file = tmp_path / "runs.db"
    program = f"""
        import sys, time, otel_progress as p
        from otel_progress.handlers.archive import archive
        with archive("sqlite:///{file}") as kept, p.operation("job", id="j1", total=10):
            p.advance(3)
            p.note("three")
            while not kept.of("j1") or kept.of("j1").snapshot["progress"]["completed"] != 3: time.sleep(0.05)
            print("ready", flush=True)
            time.sleep(60)
    """
    job = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        env={**os.environ, "OTEL_SDK_DISABLED": "true"},
    )
    assert job.stdout is not None
    assert job.stdout.readline() == b"ready\n"
    for _ in range(2):
        found = archive(f"sqlite:///{file}").of("j1")
        assert found is not None
        assert (found.status, found.snapshot["progress"]["completed"]) == ("running", 3)
        job.send_signal(signal.SIGKILL)
        job.wait(10)
    job.stdout.close()
    assert file.stat().st_mode & 0o777 == 0o600


def test_two_attempts_share_a_history(where: str, progress_capture: Capture) -> None:
    """A second run of an id continues the history; the snapshot is that of the newest."""
    with archive(where) as kept:
        progress.operation("job", id="same").start().fail("no")
        progress.operation("job", id="same").start().complete()
        found = kept.of("same")
    assert found is not None
    assert (found.status, found.snapshot["attempt"]) == ("completed", 2)
    assert [event["status"] for event in found.history if event["event"].endswith("ended")] == ["failed", "completed"]


def test_a_forked_child_reads_the_file(tmp_path: Path) -> None:
    """A pre-fork server: a connection is not shared, and the parent's goes on."""
    kept = archive(f"sqlite:///{tmp_path}/runs.db")
    with kept:
        progress.operation("job", id="a").start().complete()
        assert kept.of("a") is not None
        pid = os.fork()
        if not pid:
            found = kept.of("a")
            os._exit(0 if found is not None and found.status == "completed" else 1)
        assert os.waitpid(pid, 0)[1] == 0
        progress.operation("job", id="b").start().complete()
        assert kept.of("b") is not None


def test_a_forked_child_begins_with_an_empty_memory() -> None:
    """It has no share in that of its parent, and waits for none of its locks."""
    kept = archive()
    with kept:
        progress.operation("job", id="a").start().complete()
        assert kept.of("a") is not None
        with kept._store._lock:  # type: ignore[attr-defined]
            pid = os.fork()
            if not pid:
                os._exit(0 if kept.of("a") is None else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert kept.of("a") is not None


def test_many_threads_read_and_write(where: str) -> None:
    """Parallel operations, and readers beside them."""
    with archive(where) as kept:

        def work(number: int) -> None:
            with progress.operation("job", id=f"j{number}"):
                progress.note("x")
                kept.of(f"j{number}")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = [kept.of(f"j{number}") for number in range(8)]
    assert [one.status for one in found if one is not None] == ["completed"] * 8


def addition(id: str, at: float = 0.0, event: str = "{}") -> Addition:
    return Addition(id, "job", "running", at, "{}", event)


def test_what_is_old_expires(fake: FakeClock, tmp_path: Path) -> None:
    """An operation is gone once its last event is older than the limit, whether or not anything was written since."""
    store = SqliteArchive(str(tmp_path / "runs.db"), 2.0, 100)
    store.add(addition("old", archive_stores.clock.unix()))
    fake.sleep(2 * 86_400 - 1)
    assert store.ids(10) == ["old"]
    fake.sleep(2)
    assert store.of("old") is None
    assert store.ids(10) == []
    store.close()


def test_it_is_bounded(fake: FakeClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """100,000 runs, or one with 100,000 events: the newest are kept."""
    monkeypatch.setattr(archive_stores, "PRUNE_EVERY", 50)
    monkeypatch.setattr(archive_stores, "HISTORY", 20)
    monkeypatch.setattr(archive_stores, "EVENTS", 300)
    monkeypatch.setattr(archive_stores, "SPARE", 10)
    store = SqliteArchive(str(tmp_path / "runs.db"), 1.0, 100)
    now = archive_stores.clock.unix()
    for number in range(1_000):
        store.add(addition(str(number), now + number / 1000))
    db = sqlite3.connect(tmp_path / "runs.db")
    assert db.execute("SELECT count(*) FROM operations").fetchone()[0] <= 150
    assert db.execute("SELECT count(*) FROM events").fetchone()[0] <= 150
    for number in range(1_000):
        store.add(addition("long", now + 2, f'{{"n":{number}}}'))
    assert db.execute("SELECT count(*) FROM events WHERE id = 'long'").fetchone()[0] <= 30
    db.close()
    found = store.of("long")
    assert found is not None
    assert [event["n"] for event in found.history] == list(range(980, 1_000))
    store.close()


@pytest.mark.parametrize(
    "name", ["\ud800", "<script>alert(1)</script>", "a\x00b", "x" * 5_000, "'; DROP TABLE events;--"]
)
def test_any_text_can_be_kept(where: str, name: str) -> None:
    """Halves of surrogates, zero bytes, markup and SQL are texts like others."""
    with archive(where) as kept:
        handle = progress.operation(name).start()
        handle.note(name)
        handle.complete()
        found = kept.of(handle.id)
        assert found is not None
        assert found.status == "completed"


@pytest.mark.parametrize(
    "given", ["", "runs.db", "sqlite://", "sqlite://runs.db", "ftp://s3cr3t@x/", "mysql://s3cr3t@x/", None, 3]
)
def test_an_address_that_cannot_be_meant_is_refused_unshown(given: str) -> None:
    """The message shows what there is, and no password."""
    with pytest.raises(progress.InvalidArgument, match="an archive is memory, sqlite:///") as raised:
        archive(given)
    assert "s3cr3t" not in str(raised.value)


@pytest.mark.parametrize("id", ["x" * 2000, "a\0b", "a\r\nb", "  ", 7])
def test_an_operation_is_found_by_the_id_it_was_given(id: Any, progress_capture: Capture) -> None:
    """An id that was shortened or cleaned is so for whoever asks, too."""
    with archive() as kept:
        progress.operation("job", id=id).start().complete()
        found = kept.of(id)
        assert found is not None
        assert [found.operation_id] == kept.ids()


def test_what_is_no_id_is_refused() -> None:
    """The message says what is wrong."""
    kept: Any = archive()
    for given in (None, True, b"a", 1.5):
        with pytest.raises(progress.InvalidArgument, match="operation_id must be the id"):
            kept.of(given)
    for most in (0, -1, "10", True):
        with pytest.raises(progress.InvalidArgument, match="most must be"):
            kept.ids(most)


def test_a_file_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    """No database, that of another program, a folder, a link."""
    (tmp_path / "text.db").write_text("this is no database, but long enough to be read as one " * 20)
    (tmp_path / "link.db").symlink_to(tmp_path / "elsewhere")
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE mine (x)")
    other.close()
    for name in ("text.db", "other.db", "link.db", ".", "none/runs.db"):
        with pytest.raises(progress.ProgressError, match="can't be used"):
            archive(f"sqlite:///{tmp_path}/{name}")
    for wrong in (0, -1, float("nan"), True, "7"):
        with pytest.raises(progress.InvalidArgument, match="keep_days must be"):
            archive(keep_days=wrong)  # type: ignore[arg-type]
    with pytest.raises(progress.InvalidArgument, match="most must be"):
        archive(most=0)


def test_the_environment_names_it(tmp_path: Path) -> None:
    """`OTEL_PROGRESS_HANDLERS=archive` needs an address."""
    with pytest.raises(progress.InvalidArgument, match="set OTEL_PROGRESS_ARCHIVE_URL"):
        Archive.from_environment({})
    with pytest.raises(progress.InvalidArgument, match="KEEP_DAYS must be a number, not 'soon'"):
        Archive.from_environment({"OTEL_PROGRESS_ARCHIVE_URL": "memory", "OTEL_PROGRESS_ARCHIVE_KEEP_DAYS": "soon"})
    made = Archive.from_environment({"OTEL_PROGRESS_ARCHIVE_URL": f"sqlite:///{tmp_path}/runs.db"})
    assert made.ids() == []
