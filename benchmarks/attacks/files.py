"""Attacks: the files of a running monitor, changed by others."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from benchmarks.attacks import Broke, attack, attacks, hold
from benchmarks.attacks.verdicts import beat, post, request, running, said
from benchmarks.monitor.load import Monitor, fetch
from otel_progress.errors import ProgressError
from otel_progress.files import Lock
from otel_progress.monitor.state.integrity import Integrity
from otel_progress.monitor.state.saved import Batch, StoredOperation
from otel_progress.monitor.state.store import Store

PATIENCE: Final = 30.0


class Sender:
    """Sends one operation after the other, and records which were acknowledged."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.acknowledged: list[tuple[float, str]] = []
        self.refused: list[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def send(self, number: int) -> int:
        """Send one operation; return the status of the answer."""
        began = time.monotonic()
        status = post(self.host, request([beat(), said(running(number))]))
        if status == 200:
            self.acknowledged.append((began, f"op-{number}"))
        else:
            self.refused.append(status)
        return status

    def __enter__(self) -> Sender:
        self._thread.start()
        self.wait_for(lambda: len(self.acknowledged) >= 20, "it takes what comes")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE)

    def wait_for(self, met: Callable[[], bool], promise: str) -> None:
        """Wait until the condition is true."""
        end = time.monotonic() + PATIENCE
        while not met():
            if time.monotonic() > end:
                raise Broke(promise)
            time.sleep(0.02)

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            with contextlib.suppress(OSError):
                self.send(number)
            number += 1
            time.sleep(0.002)


@contextmanager
def kept() -> Iterator[Path]:
    """Provide a folder for a database."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        state.mkdir()
        yield state


@contextmanager
def monitored(state: Path) -> Iterator[Monitor]:
    """Run a monitor with its database in this folder, and its log elsewhere."""
    path = state / "m.db"
    with tempfile.TemporaryDirectory() as logs, Monitor(Path(logs), "--db", str(path)) as monitor:
        monitor.db = path
        yield monitor


def stored(path: Path) -> set[str]:
    """Return what a restart finds."""
    store = Store(path)
    try:
        return {one.operation_id for one in store.open_slice(0, 2**62, 2**31)[0]}
    finally:
        store.close()


def swap(path: Path) -> None:
    """Replace the file with a copy."""
    shutil.copy(path, f"{path}.copy")
    os.replace(f"{path}.copy", path)


def cut_file(path: Path) -> None:
    """Cut off the end of the file."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    time.sleep(0.5)
    cut(path, path.stat().st_size // 2)


def cut(path: Path, size: int) -> None:
    """Truncate the file to this size."""
    with path.open("r+b") as file:
        file.truncate(size)


def swap_folder(path: Path) -> None:
    """Replace the folder with a copy."""
    copy = path.parent.with_name("copy")
    shutil.copytree(path.parent, copy)
    path.parent.rename(path.parent.with_name("before"))
    copy.rename(path.parent)


def beside(path: Path, name: str) -> Path:
    """Return the path of a file beside the database."""
    return Path(f"{path}{name}")


HARM: Final[dict[str, Callable[[Path], object]]] = {
    "removed": Path.unlink,
    "removed with all beside it": lambda path: [file.unlink() for file in path.parent.glob(f"{path.name}*")],
    "renamed": lambda path: path.rename(path.with_name("away.db")),
    "replaced by a copy": swap,
    "replaced by an empty file": lambda path: (path.unlink(), path.touch()),
    "replaced by a link to itself": lambda path: (path.rename(f"{path}2"), path.symlink_to(f"{path}2")),
    "in a folder that was removed": lambda path: shutil.rmtree(path.parent),
    "in a folder that was renamed": lambda path: path.parent.rename(path.parent.with_name("away")),
    "in a folder that was replaced": swap_folder,
    "cut off": cut_file,
    "emptied": lambda path: cut(path, 0),
    "without its log": lambda path: beside(path, "-wal").unlink(),
    "with a copy of its log": lambda path: swap(beside(path, "-wal")),
    "with its log cut off": lambda path: cut(beside(path, "-wal"), 40),
}


@attacks("files", "the database {how}, while operations come in", how=HARM)
def under_its_feet(how: str) -> None:
    """What is acknowledged afterwards survives a restart; otherwise it is refused, and all views say why."""
    with kept() as state, monitored(state) as monitor:
        with Sender(monitor.host) as sender:
            HARM[how](monitor.db)
            harmed = time.monotonic()
            sender.wait_for(lambda: bool(sender.refused), "what comes in is refused with a word, not lost")
            time.sleep(0.3)
        hold(set(sender.refused) == {503}, f"it is told to come again: {set(sender.refused)}")
        wait_for_word(monitor)
        os.kill(monitor.process.pid, signal.SIGKILL)
        monitor.process.wait()
        late = {key for began, key in sender.acknowledged if began > harmed}
        found: set[str] = set()
        with contextlib.suppress(ProgressError, sqlite3.Error):
            found = stored(monitor.db)
        hold(late <= found, f"{len(late - found)} of {len(late)} were acknowledged after that and are gone")


def wait_for_word(monitor: Monitor) -> None:
    """Wait until all views report it."""
    end, told = time.monotonic() + PATIENCE, ""
    while time.monotonic() < end and not told:
        told = str(fetch(monitor.host, "/health").get("trouble") or "")
        time.sleep(0.05)
    hold(re.search(r"while the monitor ran.*restart the monitor", told), f"/health says what happened: {told!r}")
    log = monitor.log.read_text(errors="replace")
    hold("while the monitor ran" in log, f"and so does the log: {log[-300:]!r}")


@attack("files", "the database at rest removed")
def at_rest() -> None:
    """It is reported although nothing arrives, and ends when the file is back."""
    with kept() as state, monitored(state) as monitor:
        post(monitor.host, request([said(running(1))]))
        away = monitor.db.with_name("away")
        monitor.db.rename(away)
        wait_for_word(monitor)
        away.rename(monitor.db)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and "trouble" in fetch(monitor.host, "/health"):
            time.sleep(0.05)
        hold("trouble" not in fetch(monitor.host, "/health"), "with the file put back all is well")
        hold(post(monitor.host, request([said(running(2))])) == 200, "and what comes in is taken")


@attack("files", "another file system over the folder, then none")
def mounted_over() -> None:
    """Simulate a lost disk; skipped if mounting is not permitted."""
    with kept() as state, monitored(state) as monitor:
        if subprocess.run(["mount", "-t", "tmpfs", "none", str(state)], capture_output=True, check=False).returncode:
            return
        try:
            hold(post(monitor.host, request([said(running(1))])) == 503, "what comes in is refused")
            wait_for_word(monitor)
        finally:
            subprocess.run(["umount", str(state)], check=True)
        hold(post(monitor.host, request([said(running(2))])) == 200, "with the folder back it is taken")


@attack("files", "a disk that is full, and has room again")
def full() -> None:
    """What was acknowledged survives a kill; skipped if mounting is not permitted."""
    with kept() as state:
        made = ["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "none", str(state)]
        if subprocess.run(made, capture_output=True, check=False).returncode:
            return
        try:
            with monitored(state) as monitor:
                sender = Sender(monitor.host)
                ballast = state / "ballast"
                ballast.write_bytes(b"x" * 1_500_000)
                number = 0
                while not sender.refused and number < 5_000:
                    number += 1
                    status = post(monitor.host, request([said(running(number, message="x" * 900))]))
                    if status == 200:
                        sender.acknowledged.append((0.0, f"op-{number}"))
                    else:
                        sender.refused.append(status)
                hold(sender.refused == [503], f"a full disk is told: {sender.refused}")
                hold("is full" in str(fetch(monitor.host, "/health").get("trouble")), "and so is why")
                ballast.unlink()
                hold(sender.send(number + 1) == 200, "with room it goes on")
                os.kill(monitor.process.pid, signal.SIGKILL)
                monitor.process.wait()
            found = stored(state / "m.db")
            missing = [key for _, key in sender.acknowledged if key not in found]
            hold(not missing, f"{len(missing)} that were acknowledged are gone")
        finally:
            subprocess.run(["umount", str(state)], check=True)


@attacks("files", "pages overwritten with {what}", what=["zeros", "noise", "other pages"])
def overwritten(what: str) -> None:
    """The integrity check finds it, and says what to do."""
    with kept() as state:
        store = Store(state / "m.db")
        told: list[str | None] = []
        try:
            one = StoredOperation(
                "", "work", "running", "progressing", None, None, None, 1.0, 1.0, 1, 1, "p", 1, "work", b"x" * 900
            )
            store.write(Batch([one._replace(operation_id=f"op-{n}") for n in range(2_000)]))
            store.prune(1.0)
            looker = Integrity(store, told.append)
            hold(looker.look() and told == [None], f"where nothing is wrong nothing is found: {told}")
            with store.path.open("r+b") as file:
                file.seek(4096 * 10)
                other = file.read(4096 * 30)
                file.seek(4096 * 60)
                file.write({"zeros": b"\0" * len(other), "noise": os.urandom(len(other))}.get(what, other))
            looker.look()
            hold(told[-1] and "is damaged" in told[-1] and "stop the monitor" in told[-1], f"it is found: {told[-1]}")
        finally:
            store.close()


# -- what somebody else put there


@attacks(
    "files",
    "a {kind} where {file} is to be",
    kind=["link", "dangling link", "pipe"],
    file=["m.db.lock", "m.db-wal", "m.db-journal"],
)
def planted(kind: str, file: str) -> None:
    """It is rejected with advice; nothing is written through it, and nothing blocks."""
    with kept() as state:
        victim = state.with_name("victim")
        if kind != "dangling link":
            victim.write_text("precious")
            victim.chmod(0o644)
        planted = state / file
        if kind == "pipe":
            os.mkfifo(planted)
        else:
            planted.symlink_to(victim)
        told = refusal(state / "m.db")
        hold("is a link" in told or "no plain file" in told, f"it is refused with a clear word: {told!r}")
        if kind == "dangling link":
            hold(not victim.exists(), "nothing is made where the link points to")
        else:
            hold(victim.read_text() == "precious" and victim.stat().st_mode & 0o777 == 0o644, "nothing is touched")


def refusal(path: Path, umask: int = 0o022) -> str:
    """Return the message of a monitor that does not start; an empty text if it starts."""
    command = [sys.executable, "-m", "otel_progress.cli", "monitor", "--port", "0", "--grpc-port", "none"]
    with subprocess.Popen(
        [*command, "--db", str(path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, umask=umask
    ) as running:
        assert running.stdout is not None
        try:
            for line in running.stdout:
                if "page " in line:
                    return ""
                if "otel-progress: " in line:
                    return line
        finally:
            running.kill()
    return ""


@attacks("files", "a umask of {umask}", umask=["000", "022", "777"])
def umask(umask: str) -> None:
    """Whatever the umask, no one else may read or write created files."""
    with kept() as state:
        state.chmod(0o700)
        hold(refusal(state / "deep" / "m.db", int(umask, 8)) == "", "the monitor starts")
        modes = {file.name: file.stat().st_mode & 0o777 for file in (state / "deep").iterdir()}
        hold(modes and set(modes.values()) == {0o600}, f"all files are for their owner alone: {modes}")
        hold((state / "deep").stat().st_mode & 0o777 == 0o700, "and so is the folder")


@attack("files", "a database that everybody could write until now")
def wide_open() -> None:
    """The file becomes private, with all files beside it."""
    with kept() as state:
        Store(state / "m.db").close()
        for name in ("m.db", "m.db.lock", "m.db-wal", "m.db-shm"):
            (state / name).touch()
            (state / name).chmod(0o666)
        hold(refusal(state / "m.db") == "", "the monitor starts")
        modes = {file.name: file.stat().st_mode & 0o777 for file in state.iterdir()}
        hold(set(modes.values()) == {0o600}, f"all files are for their owner alone: {modes}")


@attacks("files", "a folder with mode {mode}", mode=["777", "757", "1777"])
def folders(mode: str) -> None:
    """If others could replace the file, the monitor does not start; the sticky bit prevents that."""
    with kept() as state:
        state.chmod(int(mode, 8))
        told = refusal(state / "m.db")
        hold(bool(told) is (mode != "1777"), f"a folder of mode {mode}: {told!r}")
        hold(not told or "chmod" in told, "it says what to do")


@attack("files", "somebody who may only read the lock, and holds it")
def reader_holds() -> None:
    """Only users who may write the file can keep the monitor from starting."""
    import fcntl

    with kept() as state:
        lock = state / "m.db.lock"
        lock.touch()
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            hold(refusal(state / "m.db") == "", "the monitor starts")


@attack("files", "the lock removed, and a second monitor started")
def second_monitor() -> None:
    """The first monitor locks the new file within a second, or reports a rival."""
    with kept() as state, monitored(state) as monitor:
        lock = Path(f"{monitor.db}.lock")
        lock.unlink()
        end = time.monotonic() + PATIENCE
        while not lock.exists() and time.monotonic() < end:
            time.sleep(0.05)
        hold("in use by another monitor" in refusal(monitor.db), "a second monitor does not start")
        lock.unlink()
        with contextlib.ExitStack() as stack, contextlib.suppress(BlockingIOError):
            stack.enter_context(Lock(lock))
            end = time.monotonic() + PATIENCE
            while "trouble" not in fetch(monitor.host, "/health") and time.monotonic() < end:
                time.sleep(0.05)
            told = str(fetch(monitor.host, "/health").get("trouble"))
            hold("in use by another monitor" in told, f"a rival is told: {told}")


@attack("files", "a token file that others can write or read")
def tokens() -> None:
    """One more line in it would grant access."""
    with kept() as state:
        path = state / "tokens"
        path.write_text("x" * 32)
        for mode, why in ((0o666, "written by others"), (0o644, "read by everybody"), (0o600, "")):
            path.chmod(mode)
            command = [sys.executable, "-m", "otel_progress.cli", "monitor", "--port", "0", "--grpc-port", "none"]
            command += ["--db", str(state / "m.db"), "--token-file", str(path)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
                assert running.stdout is not None
                line = running.stdout.readline()
                running.kill()
            hold(why in line, f"mode {mode:o}: {line!r}")


@attack("files", "the database read by others, as by a backup")
def backup() -> None:
    """A backup does no harm, and is consistent."""
    with kept() as state, monitored(state) as monitor, Sender(monitor.host) as sender:
        for turn in range(5):
            with closing(sqlite3.connect(monitor.db)) as other:
                other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            with closing(sqlite3.connect(monitor.db)) as source, closing(sqlite3.connect(state / f"{turn}.db")) as copy:
                source.backup(copy)
                hold(copy.execute("PRAGMA integrity_check").fetchone() == ("ok",), "a backup is whole")
        hold(not sender.refused, f"nothing is refused for it: {sender.refused}")
        hold(json.dumps(fetch(monitor.host, "/health")).count("trouble") <= 1, "and nothing is told to be wrong")
