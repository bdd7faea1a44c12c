"""A SQLite file as the checkpoint store uses it: its connection, migrations, errors in words that help, and forks.

A connection must not cross a fork, so it is closed before one and opened again when it is needed.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar

from otel_progress import files
from otel_progress.errors import CheckpointError

T = TypeVar("T")
BUSY_SECONDS: Final = 5.0
"""Seconds that a call waits for another process that writes."""
FORK_SECONDS: Final = 1.0
"""Seconds that a fork waits for a write, at most."""
_APPLICATION: Final = 0x6F746363
"""The SQLite application id of these files."""


class SqliteFile:
    """A SQLite file that several processes write to.

    Attributes:
        path: the file.
        closed: whether it was closed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the file; it is created if it does not exist.

        Raises:
            CheckpointError: if it can't be written, is damaged, not ours, or of a newer version.
        """
        self.path = Path(os.path.abspath(path))
        self.closed = False
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._stuck = False
        self._run(lambda _: None)
        forking[:] = [ref for ref in forking if ref() is not None]
        forking.append(weakref.ref(self))

    def _connected(self) -> sqlite3.Connection:
        if self.closed:
            raise CheckpointError(f"the checkpoint store {self.path} is closed")
        if self._db is None:
            self._db = self._connect()
        try:
            found = os.stat(self.path)
            identity = found.st_dev, found.st_ino
        except FileNotFoundError:
            identity = None
        if identity is None or self._identity != identity:
            if self._identity is not None:
                raise CheckpointError(
                    f"{self.path} was removed or replaced while it was in use, so nothing can be saved: put it back, "
                    "or start the job again"
                )
            self._identity = identity
        return self._db

    def _connect(self) -> sqlite3.Connection:
        if self._identity is None:  # closing a descriptor of a file releases the locks that SQLite has on it
            os.close(files.open_private(self.path))
            for name in ("-wal", "-shm", "-journal"):  # SQLite would apply their content
                files.tighten(f"{self.path}{name}")
        db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        version = _one(db, "PRAGMA user_version")
        if _one(db, "SELECT count(*) FROM sqlite_master") and _one(db, "PRAGMA application_id") != _APPLICATION:
            raise CheckpointError(f"{self.path} is the database of another program: name another file")
        scripts = migrations()
        if version > len(scripts):
            raise CheckpointError(
                f"{self.path} was made by a newer version of otel-progress: install that one, or name another file"
            )
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA foreign_keys = ON")
        if version < len(scripts):
            self._migrate(db, scripts)

    def _migrate(self, db: sqlite3.Connection, scripts: Sequence[str]) -> None:
        """Bring the file to the newest version; another process may do the same at the same time."""
        db.execute("BEGIN EXCLUSIVE")
        try:
            for number, script in enumerate(scripts[_one(db, "PRAGMA user_version") :], 1):
                for statement in filter(str.strip, script.split(";\n")):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {number}")
            db.execute(f"PRAGMA application_id = {_APPLICATION}")
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something with the connection, and say errors in words that help."""
        try:
            with self._lock:
                return work(self._connected())
        except sqlite3.Error as error:
            raise _explain(error, self.path) from error
        except files.Unsafe as error:
            raise CheckpointError(f"{self.path} can't be used: {error}") from error
        except FileNotFoundError as error:
            missing = "the folder" if not self.path.parent.is_dir() else "it"
            raise CheckpointError(
                f"{self.path} can't be opened, as {missing} does not exist: create {missing}, or name another file"
            ) from error
        except OSError as error:
            raise CheckpointError(
                f"{self.path} can't be opened ({error.strerror}): change its permissions, or name another file"
            ) from error

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something in one transaction."""

        def whole(db: sqlite3.Connection) -> T:
            with _transaction(db):
                return work(db)

        return self._run(whole)

    def pause(self, timeout: float = FORK_SECONDS) -> None:
        """Close the connection before a fork; `resume` has to follow."""
        if self._lock.acquire(timeout=timeout):
            if self._db is not None:
                self._db.close()
                self._db = None
        else:
            self._stuck = True

    def resume(self) -> None:
        """Go on after a fork, in the parent."""
        if self._stuck:
            self._stuck = False
        else:
            self._lock.release()

    def resume_in_child(self) -> None:
        """Go on after a fork, in the child."""
        self._lock = threading.RLock()
        if self._stuck:  # its connection belongs to the parent, whose thread was writing
            self.closed = True
            _leaked.append(self._db)
            self._db = None

    def rest(self) -> None:
        """Close the connection until it is needed again, so that the file stands alone, without its log."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def close(self) -> None:
        """Close the file; may be called twice."""
        self.closed = True
        self.rest()

    def __del__(self) -> None:
        db = getattr(self, "_db", None)
        if db is not None:
            db.close()


def migrations() -> list[str]:
    """The scripts that bring an empty file to the newest version, in order."""
    folder = resources.files("otel_progress.durable") / "sql"
    names = sorted(
        (entry.name for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda name: int(name[:-4])
    )
    return [(folder / name).read_text(encoding="utf-8") for name in names]


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _one(db: sqlite3.Connection, query: str) -> Any:
    return db.execute(query).fetchone()[0]


def _explain(error: sqlite3.Error, path: Path) -> CheckpointError:
    """An SQLite error in words that help; recognised by its text, as Python 3.10 does not expose the code."""
    said = str(error)
    if "locked" in said or "busy" in said:
        told = CheckpointError(f"another program locks {path} for more than {BUSY_SECONDS:.0f} s: close it there")
        told.passing = True
        return told
    if "is full" in said:
        return CheckpointError(f"the disk of {path} is full, so nothing can be saved: free some space")
    if "readonly" in said or "unable to open" in said:
        return CheckpointError(f"{path} can't be written ({said}): change its permissions, or name another file")
    if "malformed" in said or "not a database" in said:
        return CheckpointError(
            f"{path} is damaged or no database ({said}): keep it for analysis, and name another file"
        )
    return CheckpointError(f"{path} can't be used ({said}): check its disk, or name another file")


# -- forks

forking: Final[list[weakref.ref[SqliteFile]]] = []
_leaked: Final[list[Any]] = []
_paused: list[SqliteFile] = []


def _before_fork() -> None:
    forking[:] = [ref for ref in forking if ref() is not None]
    _paused[:] = [store for ref in forking if (store := ref()) is not None and not store.closed]
    for store in _paused:
        store.pause()


def _after_fork() -> None:
    while _paused:
        _paused.pop().resume()


def _in_child() -> None:
    while _paused:
        _paused.pop().resume_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
