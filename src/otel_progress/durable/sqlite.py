"""The store in a SQLite file, which the processes of one machine share.

What a write returned from survives the death of the process, SIGKILL included, as the operating system has it. It is
not synced to the disk each time, so a power cut may lose the last seconds; the file stays intact.

A connection must not cross a fork, so it is closed before one and opened again when it is needed.
"""

# ruff: noqa: S608  # only column names are put into SQL; values are bound

from __future__ import annotations

import json
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar

from otel_progress import clock, files
from otel_progress.durable.holder import Holder, this_process
from otel_progress.durable.kept import (
    KEEP_DAYS,
    LEASE,
    LOST,
    RUNNING,
    STOPPED,
    Acquired,
    Batch,
    Claim,
    Keys,
    Kind,
    Lease,
    StoredOperation,
    Summary,
    Suspect,
    held,
    is_blamed,
    lost,
    poisonous,
    refused,
    too_old,
)
from otel_progress.errors import CheckpointError

T = TypeVar("T")
BUSY_SECONDS: Final = 5.0
"""Seconds that a call waits for another process that writes."""
PRUNE_EVERY: Final = 3600.0
"""Seconds between two looks for operations that are too old."""
FORK_SECONDS: Final = 1.0
"""Seconds that a fork waits for a write, at most."""
_APPLICATION: Final = 0x6F746363
"""The SQLite application id of these files."""
_DAY: Final = 86_400.0
_HOLDER: Final = ("host", "boot", "namespace", "pid", "ticks", "command", "cwd")
_COLUMNS: Final = (
    *("id", "name", "attempt", "status", "reason", "fingerprint", "started_at", "ended_at", "seen_at"),
    *("lease_until", "lease_mono", "fence", "checkpoint_at", "trace_id", "span_id"),
    *("completed", "total", "unit", "stage", "message"),
    *_HOLDER,
)
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM operations"
_MARK: Final = (
    "INSERT INTO marks (scope, item, failed) SELECT ?, value, ? FROM json_each(?) WHERE true "
    "ON CONFLICT DO UPDATE SET failed = excluded.failed"
)
_stores: Final[dict[Path, weakref.ref[SqliteStore]]] = {}
_stores_lock = threading.Lock()


def opened(path: str) -> SqliteStore:
    """The store of a path; the same one for the same file as long as it is open."""
    key = Path(os.path.realpath(path))
    with _stores_lock:
        known = _stores.get(key)
        store = None if known is None else known()
        for gone in [one for one, ref in _stores.items() if ref() is None]:
            del _stores[gone]
        if store is None or store.closed:
            store = SqliteStore(path)
            _stores[key] = weakref.ref(store)
        return store


class SqliteStore:
    """Keeps operations in a SQLite file.

    Attributes:
        path: the file.
        closed: whether it was closed.
        encode: makes a text of a state, if it is not to be JSON.
        decode: the reverse of it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        keep_days: float = KEEP_DAYS,
        encode: Callable[[Any], str] | None = None,
        decode: Callable[[str], Any] | None = None,
    ) -> None:
        """Open the file; it is created if it does not exist.

        Args:
            path: the file. No other user can read it.
            keep_days: days after its last sign of life for which an operation is kept.
            encode: makes a text of a state or a result; by default they are JSON.
            decode: the reverse of it.

        Raises:
            CheckpointError: if it can't be written, is damaged, not ours, or of a newer version.
        """
        self.path = Path(os.path.abspath(path))
        self.closed = False
        self.encode, self.decode = encode, decode
        self._keep = keep_days * _DAY
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._prune_at = 0.0
        self._run(lambda _: None)
        forking[:] = [ref for ref in forking if ref() is not None]
        forking.append(weakref.ref(self))

    # -- the connection

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

    _stuck = False

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

    # -- the lease

    def acquire(self, claim: Claim) -> Acquired:
        """See `CheckpointStore.acquire`."""
        return self._transact(lambda db: self._acquire(db, claim))

    def _acquire(self, db: sqlite3.Connection, claim: Claim) -> Acquired:
        now, mono = clock.unix(), clock.monotonic()
        self._prune(db, now, mono)
        before = _operation(db, claim.id)
        if before is not None:
            ours = before.holder.is_same(claim.holder)  # an attempt of this process whose end could not be written
            if not ours and held(before, claim.holder, now, mono):
                raise refused(before, now)
            if before.status == RUNNING:
                _empty_hands(db, claim.id, None, blamed=is_blamed(before, claim.holder))
            if claim.fresh:
                db.execute(
                    "DELETE FROM scopes WHERE operation = (SELECT key FROM operations WHERE id = ?)", (claim.id,)
                )
        lease = Lease(claim.id, 1 if before is None else before.attempt + 1, 1 if before is None else before.fence + 1)
        holder = claim.holder
        row: dict[str, Any] = {
            "id": claim.id,
            "name": claim.name,
            "attempt": lease.attempt,
            "status": RUNNING,
            "reason": None,
            "fingerprint": claim.fingerprint,
            "started_at": now,
            "ended_at": None,
            "seen_at": now,
            "lease_until": now + LEASE,
            "lease_mono": mono + LEASE,
            "fence": lease.fence,
            "host": holder.host,
            "boot": holder.boot,
            "namespace": holder.namespace,
            "pid": holder.pid,
            "ticks": holder.ticks,
            "command": json.dumps(holder.command),
            "cwd": holder.cwd,
        }
        changed = ", ".join(f"{column} = excluded.{column}" for column in row if column != "id")
        db.execute(
            f"INSERT INTO operations ({', '.join(row)}) VALUES ({', '.join('?' * len(row))}) "
            f"ON CONFLICT (id) DO UPDATE SET {changed}",
            tuple(row.values()),
        )
        return Acquired(lease, before)

    def died(self, id: str, attempt: int, how: str) -> None:
        """See `CheckpointStore.died`."""

        def work(db: sqlite3.Connection) -> None:
            found = _operation(db, id)
            if found is None or found.attempt != attempt or found.status not in (RUNNING, LOST):
                return
            if found.status == RUNNING:
                _empty_hands(db, id, how, blamed=how.partition(",")[0] not in STOPPED)
            db.execute(
                "UPDATE operations SET status = ?, reason = ?, lease_until = 0, ended_at = coalesce(ended_at, ?) "
                "WHERE id = ?",
                (LOST, how, clock.unix(), id),
            )

        self._transact(work)

    # -- what is kept

    def write(self, lease: Lease, batch: Batch) -> None:
        """See `CheckpointStore.write`."""
        self._transact(lambda db: self._write(db, lease, batch))

    def _write(self, db: sqlite3.Connection, lease: Lease, batch: Batch) -> None:
        found = db.execute("SELECT key, fence, status FROM operations WHERE id = ?", (lease.id,)).fetchone()
        if found is None or found[1] != lease.fence or found[2] != RUNNING:
            raise lost(lease, str(self.path) if found is None else None)
        key = found[0]
        scope = _Scopes(db, key)
        for path, items in batch.done.items():
            _mark(db, scope[path], items, failed=False)
        for path, items in batch.failed.items():
            _mark(db, scope[path], items, failed=True)
        for (path, kind), text in batch.states.items():
            db.execute(
                "INSERT INTO states (scope, kind, version, text) VALUES (?, ?, 1, ?) ON CONFLICT DO UPDATE SET "
                "version = version + 1, text = excluded.text",
                (scope[path], kind, text),
            )
        for path, items in batch.hands.items():
            number = scope[path]
            db.execute("DELETE FROM hands WHERE scope = ?", (number,))
            db.executemany("INSERT OR IGNORE INTO hands (scope, item) VALUES (?, ?)", [(number, one) for one in items])
        for path in batch.closed:
            db.execute(
                "DELETE FROM scopes WHERE operation = ? AND path >= ? AND path < ?", (key, path, path[:-1] + "0")
            )
        if batch.ended is not None:
            _empty_hands(db, lease.id, batch.died, blamed=batch.died is not None)
        _describe(db, key, batch)

    def keys(self, id: str, scope: str) -> Keys:
        """See `CheckpointStore.keys`."""

        def work(db: sqlite3.Connection) -> Keys:
            number = db.execute(f"SELECT key FROM scopes WHERE path = ? AND {_OF}", (scope, id)).fetchone()
            if number is None:
                return Keys()
            marks = db.execute("SELECT item, failed FROM marks WHERE scope = ?", number).fetchall()
            deaths = db.execute("SELECT item, aside FROM deaths WHERE scope = ?", number).fetchall()
            return Keys(
                frozenset(item for item, failed in marks if not failed),
                frozenset(item for item, failed in marks if failed),
                frozenset(item for item, aside in deaths if aside),
                frozenset(item for item, aside in deaths if not aside),
            )

        return self._run(work)

    def state(self, id: str, scope: str, kind: Kind) -> str | None:
        """See `CheckpointStore.state`."""

        def work(db: sqlite3.Connection) -> str | None:
            found = db.execute(
                f"SELECT text FROM states JOIN scopes ON scopes.key = scope WHERE kind = ? AND path = ? AND {_OF}",
                (kind, scope, id),
            ).fetchone()
            return None if found is None else str(found[0])

        return self._run(work)

    # -- for those who look

    def operation(self, id: str) -> StoredOperation | None:
        """See `CheckpointStore.operation`."""
        return self._run(lambda db: _operation(db, id))

    def operations(self) -> list[StoredOperation]:
        """See `CheckpointStore.operations`."""
        return self._run(lambda db: [_read(row) for row in db.execute(f"{_SELECT} ORDER BY seen_at DESC, id")])

    def suspects(self, id: str) -> list[Suspect]:
        """See `CheckpointStore.suspects`."""
        query = (
            f"SELECT path, item, deaths, aside FROM deaths JOIN scopes ON scopes.key = scope WHERE {_OF} ORDER BY 1, 2"
        )
        return self._run(
            lambda db: [
                Suspect(path, item, times, bool(aside)) for path, item, times, aside in db.execute(query, (id,))
            ]
        )

    def set_aside(self, id: str, scope: str, key: str) -> None:
        """See `CheckpointStore.set_aside`."""

        def work(db: sqlite3.Connection) -> None:
            owner = db.execute("SELECT key FROM operations WHERE id = ?", (id,)).fetchone()
            if owner is not None:
                db.execute(
                    "INSERT INTO deaths (scope, item, deaths, aside) VALUES (?, ?, 0, 1) "
                    "ON CONFLICT DO UPDATE SET aside = 1",
                    (_Scopes(db, owner[0])[scope], key),
                )

        self._transact(work)

    def release(self, id: str) -> None:
        """See `CheckpointStore.release`."""
        query = f"DELETE FROM deaths WHERE scope IN (SELECT key FROM scopes WHERE {_OF})"
        self._transact(lambda db: db.execute(query, (id,)))

    def forget(self, id: str) -> None:
        """See `CheckpointStore.forget`."""

        def work(db: sqlite3.Connection) -> None:
            found = _operation(db, id)
            if found is not None and held(found, this_process(), clock.unix(), clock.monotonic()):
                raise refused(found, clock.unix())
            db.execute("DELETE FROM operations WHERE id = ?", (id,))

        self._transact(work)

    def _prune(self, db: sqlite3.Connection, now: float, mono: float) -> None:
        """Delete what was not heard of for too long, by the times that the store itself has noted."""
        if mono < self._prune_at:
            return
        self._prune_at = mono + PRUNE_EVERY
        rows = db.execute("SELECT key, id, seen_at FROM operations ORDER BY seen_at DESC").fetchall()
        here = this_process()
        for row in too_old(((seen_at, (key, id)) for key, id, seen_at in rows), now, self._keep):
            found = _operation(db, row[1])
            if found is not None and not held(found, here, now, mono):
                db.execute("DELETE FROM operations WHERE key = ?", (row[0],))


_OF: Final = "operation = (SELECT key FROM operations WHERE id = ?)"


class _Scopes:
    """The numbers of the scopes of an operation, created when they are asked for."""

    def __init__(self, db: sqlite3.Connection, operation: int) -> None:
        self._db = db
        self._operation = operation

    def __getitem__(self, path: str) -> int:
        about = (self._operation, path)
        found = self._db.execute("SELECT key FROM scopes WHERE operation = ? AND path = ?", about).fetchone()
        if found is not None:
            return int(found[0])
        return int(self._db.execute("INSERT INTO scopes (operation, path) VALUES (?, ?)", about).lastrowid or 0)


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


def _mark(db: sqlite3.Connection, scope: int, items: Sequence[str], *, failed: bool) -> None:
    """Mark keys. One statement has them all: SQLite releases the interpreter's lock once, not for each of them."""
    text = json.dumps(items)
    db.execute(_MARK, (scope, failed, text))
    if not failed and db.execute("SELECT 1 FROM deaths WHERE scope = ? LIMIT 1", (scope,)).fetchone():
        db.execute("DELETE FROM deaths WHERE scope = ? AND item IN (SELECT value FROM json_each(?))", (scope, text))


def _describe(db: sqlite3.Connection, key: int, batch: Batch) -> None:
    """Renew the lease, and note how the operation stands."""
    now = clock.unix()
    row: dict[str, Any] = {"seen_at": now, "lease_until": now + LEASE, "lease_mono": clock.monotonic() + LEASE}
    if batch.saves:
        row["checkpoint_at"] = now
    if batch.summary is not None:
        row |= vars(batch.summary)
    if batch.span is not None:
        row["trace_id"], row["span_id"] = batch.span
    if batch.ended is not None:
        row["status"], row["reason"] = batch.ended
        row |= {"ended_at": now, "lease_until": 0.0, "lease_mono": 0.0}
    db.execute(
        f"UPDATE operations SET {', '.join(f'{column} = ?' for column in row)} WHERE key = ?", (*row.values(), key)
    )


def _empty_hands(db: sqlite3.Connection, id: str, how: str | None, *, blamed: bool) -> None:
    """Nothing is in hand any more: a death is counted for each key that was, and set aside what ended the process."""
    mine = f"scope IN (SELECT key FROM scopes WHERE {_OF})"
    if blamed:
        db.execute(
            f"INSERT INTO deaths (scope, item, deaths, aside) SELECT scope, item, 1, 0 FROM hands WHERE {mine} "
            "ON CONFLICT DO UPDATE SET deaths = deaths + 1",
            (id,),
        )
        counted = (
            "SELECT path, item, deaths FROM deaths JOIN hands USING (scope, item) JOIN scopes ON scopes.key = scope"
        )
        for path, item in poisonous(db.execute(f"{counted} WHERE {_OF}", (id,)).fetchall(), how):
            scope = f"(SELECT key FROM scopes WHERE {_OF} AND path = ?)"
            db.execute(f"UPDATE deaths SET aside = 1 WHERE item = ? AND scope = {scope}", (item, id, path))
    db.execute(f"DELETE FROM hands WHERE {mine}", (id,))


def _operation(db: sqlite3.Connection, id: str) -> StoredOperation | None:
    row = db.execute(f"{_SELECT} WHERE id = ?", (id,)).fetchone()
    return None if row is None else _read(row)


def _read(row: Sequence[Any]) -> StoredOperation:
    found = dict(zip(_COLUMNS, row, strict=True))
    holder = {name: found.pop(name) for name in _HOLDER}
    holder["command"] = tuple(json.loads(holder["command"]))
    summary = Summary(*(found.pop(name) for name in ("completed", "total", "unit", "stage", "message")))
    return StoredOperation(holder=Holder(**holder), summary=summary, **found)


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

forking: Final[list[weakref.ref[SqliteStore]]] = []
_leaked: Final[list[Any]] = []
_paused: list[SqliteStore] = []


def _before_fork() -> None:
    forking[:] = [ref for ref in forking if ref() is not None]
    _paused[:] = [store for ref in forking if (store := ref()) is not None and not store.closed]
    for store in _paused:
        store.pause()


def _after_fork() -> None:
    while _paused:
        _paused.pop().resume()


def _in_child() -> None:
    global _stores_lock
    _stores_lock = threading.Lock()
    while _paused:
        _paused.pop().resume_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
