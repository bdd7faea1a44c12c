"""The store: the state of operations, their history, their processes and the requests to forward, in a SQLite file.

What `write` returned from survives the death of the process, SIGKILL included, as it is in the hands of the operating
system. It is not synced to the disk each time, so a power cut may lose what came after the last checkpoint; the file
stays intact. One thread writes and prunes; any thread reads, on a connection of its own, and never for long.
"""

# ruff: noqa: S608  # only column names and placeholders are put into SQL; values are bound

from __future__ import annotations

import base64
import json
import math
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from otel_progress import clock, files
from otel_progress.errors import InvalidArgument, ProgressError
from otel_progress.model.status import Status
from otel_progress.monitor.state.file_identity import FileIdentity
from otel_progress.monitor.state.saved import Batch, HistoryEvent, Mute, Query, StoredOperation, StoredProcess

DAYS: Final = 30.0
BYTES: Final = 1024 * 1024 * 1024
KEYS: Final = 50_000
"""The most operations whose key is cached in memory."""
EVENT_BYTES: Final = 250
"""The bytes of a plain update in the history, with its index."""
READERS: Final = 8
"""The most idle connections for reading."""
BUSY_SECONDS: Final = 0.5
"""Seconds that a write waits for another program that locks the file: exporters that give up after 5 s retry often."""
WAL_PAGES: Final = 4096
"""The pages in the log before a checkpoint; a page is written to the file once, however often it changed."""
LOG_BYTES: Final = WAL_PAGES * 4096
"""The size in bytes to which SQLite truncates the log after a checkpoint."""
WAL_HEAD: Final = 32
FRAME_HEAD: Final = 24
CACHE_KIB: Final = 16 * 1024
LOST: Final = (
    "so new data would be lost: nothing is accepted. Restore the file and the monitor continues, or restart the "
    "monitor and it starts with what is there"
)
"""What to do if the file is not the one that is written to."""
_APPLICATION: Final = 0x6F747067
"""The SQLite application id of our files."""
_OPEN: Final = frozenset(status.value for status in Status if not status.final)
_MINE: Final = "operation = (SELECT key FROM operations WHERE operation_id = ?)"
_DAY: Final = 86_400.0
_INTEGER: Final = 2**63 - 1
_OURS: Final = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError)
"""Errors about the data that is written, not about the file."""
_WRITTEN: Final = StoredOperation._fields[:-2]
_IS_ASIDE: Final = f"ended = 1 AND status IN ({', '.join(repr(status) for status in sorted(_OPEN))})"
COLUMNS: Final[Mapping[str, str]] = {
    **dict(zip(_WRITTEN, _WRITTEN)),
    "keyframe": "(SELECT k.raw FROM keyframes AS k WHERE k.operation = operations.key)",
    "aside": _IS_ASIDE,
}
"""The fields of a `StoredOperation`, each with the SQL that reads it from the table `operations`."""
_KEPT: Final = ", ".join(COLUMNS.values())
_EVENT: Final = ", ".join(HistoryEvent._fields[1:])


def _upsert(table: str, columns: Sequence[str], key: str) -> str:
    changed = ", ".join(f"{column} = excluded.{column}" for column in columns if column != key)
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks}) ON CONFLICT ({key}) DO UPDATE SET {changed}"


_PUT_OPERATION: Final = _upsert("operations", (*_WRITTEN, "ended"), "operation_id")
_PUT_KEYFRAME: Final = _upsert("keyframes", ("operation", "raw"), "operation")
_PUT_PROCESS: Final = _upsert("processes", StoredProcess._fields, "instance")
_PUT_MUTE: Final = _upsert("mutes", Mute._fields, "operation_id")
_PUT_NUMBER: Final = _upsert("numbers", ("name", "value"), "name")
_ADD_EVENT: Final = (
    f"INSERT INTO events (operation, {_EVENT}) VALUES ({', '.join('?' * len(HistoryEvent._fields))}) "
    "ON CONFLICT (operation, started_at, attempt, sequence) DO NOTHING"
)


class StoreError(ProgressError):
    """The file cannot be read or written; the text says what to do.

    If `passing` is set, a retry may succeed, and nothing is lost.
    """

    def __init__(self, text: str, *, passing: bool = False) -> None:
        """With what is wrong and what to do."""
        super().__init__(text)
        self.passing = passing


def _explain(error: sqlite3.Error, path: Path) -> StoreError:
    """An SQLite error in words that help; recognised by its text, as Python 3.10 does not expose the code."""
    said = str(error)
    other = "keep it for analysis, and start with another --db"
    if "locked" in said or "busy" in said:
        return StoreError(f"another program locks {path}: close it there; the monitor retries", passing=True)
    if "is full" in said:
        return StoreError(f"the disk of {path} is full: free some space; the monitor retries", passing=True)
    if "I/O error" in said:
        return StoreError(f"{path} can't be written ({said}): check its disk; the monitor retries", passing=True)
    if "malformed" in said:
        return StoreError(f"{path} is damaged ({said}): {other}")
    if "not a database" in said:
        return StoreError(f"{path} is not a database, or its header is damaged: {other}")
    if "readonly" in said or "unable to open" in said:
        return StoreError(f"{path} can't be written ({said}): change its permissions, or start with another --db")
    return StoreError(f"{path} can't be used ({said}): {other}")


@dataclass(frozen=True)
class StoreLimits:
    """How much a store keeps, and how it works.

    Attributes:
        events: the most events kept of a running operation.
        tight_events: the same when the file is too large, before any ended operation is removed; of many operations
            fewer, so that their histories fit into half of the file.
        fewest_events: the events that are always kept of a running operation.
        processes: the most processes kept.
        trimmed: the most running operations whose history one call of `prune` shortens, unless the file is too large.
        chunk: the most rows that are deleted in one transaction.
        free_pages: the free pages that stay in the file for later use.
        log_bytes: if the log is larger because of constant readers, the writer waits for a moment without any.
        look_every: the number of batches between two checks of the size of the log.
    """

    events: int = 10_000
    tight_events: int = 1_000
    fewest_events: int = 50
    processes: int = 20_000
    trimmed: int = 2_000
    chunk: int = 5_000
    free_pages: int = 1024
    log_bytes: int = 4 * LOG_BYTES
    look_every: int = 64


class Store:
    """The file of one monitor.

    Attributes:
        path: the file.
        limits: how much it keeps, and how it works.
        strays: events that were not stored, as their operation is not.
        aged: operations removed for their age.
        squeezed: operations removed for lack of space.
        trimmed: events removed from the history of running operations.
        unfinished: whether the last call of `prune` left something to remove, as its time was over.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        keep_days: float = DAYS,
        most_bytes: int = BYTES,
        limits: StoreLimits = StoreLimits(),  # it is immutable
    ) -> None:
        """Open the file; it is created if it does not exist.

        Raises:
            StoreError: if it is in use, damaged, not ours, made by a newer version, or not writable.
        """
        self.strays = self.aged = self.squeezed = self.trimmed = 0
        self.unfinished = False
        self.limits = limits
        self._keep = keep_days * _DAY
        self._most = most_bytes
        self._keys: dict[str, int] = {}
        self._readers: list[sqlite3.Connection] = []
        self._examined: list[sqlite3.Connection] = []
        self._closed = False
        self._trimmed_to = 0
        self._look_in = self.limits.look_every
        self.path = Path(path)
        self._db: sqlite3.Connection | None = None
        self._place: FileIdentity | None = None
        try:
            files.make_folder(Path(os.path.abspath(path)).parent)
            self.path = files.resolve(path)
            files.make_folder(self.path.parent)
            self._lock = files.Lock(f"{self.path}.lock")
        except files.Held as held:
            raise self._taken(held.pid) from None
        except OSError as error:
            raise self._unopened(error) from None
        try:
            # Only with the lock held: closing a file releases all locks that SQLite has on it.
            for name in ("-wal", "-shm", "-journal"):  # SQLite would apply their content to the file
                files.tighten(f"{self.path}{name}")
            self._place = FileIdentity(self.path, LOG_BYTES)
            self._db = _connect(str(self.path))
            self._prepare(self._db)
            self._place.begin(self._log_needed)
        except OSError as error:
            self.close()
            raise self._unopened(error) from None
        except sqlite3.Error as error:
            self.close()
            raise _explain(error, self.path) from None
        except BaseException:
            self.close()
            raise

    def _taken(self, pid: int | None) -> StoreError:
        who = "" if pid is None else f" (pid {pid})"
        return StoreError(f"{self.path} is in use by another monitor{who}: stop that one, or start with another --db")

    def _unopened(self, error: OSError) -> StoreError:
        if isinstance(error, files.Unsafe):
            return StoreError(f"{self.path} can't be used: {error}")
        return StoreError(
            f"{self.path} can't be opened ({error.strerror}): change its permissions, free some space, or start with "
            "another --db"
        )

    def _prepare(self, db: sqlite3.Connection) -> None:
        version = _one(db, "PRAGMA user_version")
        if _one(db, "SELECT count(*) FROM sqlite_master"):
            if _one(db, "PRAGMA application_id") != _APPLICATION:
                raise StoreError(f"{self.path} is the database of another program: start with another --db")
        else:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # it has an effect only before the first table
        scripts = migrations()
        if version > len(scripts):
            raise StoreError(
                f"{self.path} was made by a newer version of otel-progress: "
                "install that one, or start with another --db"
            )
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        db.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        db.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        for number, script in enumerate(scripts[version:], version + 1):
            mark = f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {number};"
            db.executescript(f"BEGIN IMMEDIATE; {script}; {mark} COMMIT;")

    def close(self) -> None:
        """Close the file, once the writing thread is done; may be called twice."""
        self._closed = True
        self.interrupt()
        while self._readers:
            with suppress(IndexError):
                self._readers.pop().close()
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._checkpoint(self._db)
            self._db.close()
            self._db = None
        if self._place is not None:
            self._place.close()
        self._lock.release()

    # -- writing, by one thread

    def write(self, batch: Batch) -> None:
        """Write all of it or nothing; what was written before is not written twice.

        Text that cannot be stored (an unpaired surrogate) is escaped, and a number is clipped to 64 bits.

        Raises:
            StoreError: if it could not be written; then nothing of it is in the file.
        """
        self.check()
        try:
            self._write(batch)
        except (UnicodeEncodeError, OverflowError, sqlite3.IntegrityError):
            self._write(_storable(batch))
        self.check()
        self._look_in -= 1
        if self._look_in <= 0:
            self._look_in = self.limits.look_every
            self._bound_log()

    def check(self) -> None:
        """Check that a restart would read what is written; to be called each second while nothing is.

        Raises:
            StoreError: if the file was removed, replaced or truncated.
        """
        if self._place is None or self._closed:
            return
        what = self._place.lost()
        if what is not None:
            raise StoreError(f"{what}, {LOST}")
        try:
            self._lock.renew()
        except files.Held as held:
            raise self._taken(held.pid) from None
        except OSError as error:
            raise self._unopened(error) from None

    def _write(self, batch: Batch) -> None:
        with self._transaction() as db:
            self._remove(db, batch.removed)
            if batch.operations:
                states = [(*kept[:-2], kept.aside or kept.status not in _OPEN) for kept in batch.operations]
                db.executemany(_PUT_OPERATION, states)
                db.execute(_PUT_NUMBER, ("revision", max(kept.revision for kept in batch.operations)))
            self._put_keyframes(db, batch.keyframes)
            strays = self._add_events(db, batch.events)
            for operation_id, started_at in batch.restarted.items():
                key = self._find_key(db, operation_id)
                db.execute("UPDATE OR IGNORE events SET started_at = ? WHERE operation = ?", (started_at, key))
            if batch.processes:
                db.executemany(_PUT_PROCESS, batch.processes)
            if batch.outgoing:
                rows = [(signal, len(body), body) for signal, body in batch.outgoing]
                db.executemany("INSERT INTO outgoing (signal, size, body) VALUES (?, ?, ?)", rows)
            if batch.sent:
                db.executemany("DELETE FROM outgoing WHERE id = ?", [(id,) for id in batch.sent])
            if batch.mutes:
                db.executemany("DELETE FROM mutes WHERE operation_id = ?", [(key,) for key in batch.mutes])
                db.executemany(_PUT_MUTE, [mute for mute in batch.mutes.values() if mute is not None])
        self.strays += strays

    def _put_keyframes(self, db: sqlite3.Connection, keyframes: Mapping[str, bytes | None]) -> None:
        for operation_id, raw in keyframes.items():
            key = self._keys.get(operation_id) or self._find_key(db, operation_id)
            if key is not None and raw is not None:
                db.execute(_PUT_KEYFRAME, (key, raw))
            elif key is not None:
                db.execute("DELETE FROM keyframes WHERE operation = ?", (key,))

    def _remove(self, db: sqlite3.Connection, ids: Iterable[str]) -> None:
        for operation_id in ids:
            key = self._find_key(db, operation_id)
            db.execute("DELETE FROM events WHERE operation = ?", (key,))
            db.execute("DELETE FROM operations WHERE key = ?", (key,))
            self._keys.pop(operation_id, None)

    def _add_events(self, db: sqlite3.Connection, events: Sequence[HistoryEvent]) -> int:
        """Returns the number of events whose operation is not stored."""
        rows = []
        known = self._keys
        for event in events:
            key = known.get(event[0]) or self._find_key(db, event[0])
            if key is not None:
                rows.append((key, *event[1:]))
        if rows:
            db.executemany(_ADD_EVENT, rows)
        return len(events) - len(rows)

    def _find_key(self, db: sqlite3.Connection, operation_id: str) -> int | None:
        found = db.execute("SELECT key FROM operations WHERE operation_id = ?", (operation_id,)).fetchone()
        if found is None:
            return None
        if len(self._keys) >= KEYS:
            del self._keys[next(iter(self._keys))]
        key: int = found[0]
        self._keys[operation_id] = key
        return key

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._db
        if db is None:
            raise self._is_closed()
        try:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
        except BaseException as error:
            self._keys.clear()  # keys assigned in it are void
            with suppress(sqlite3.Error):
                if db.in_transaction:
                    db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error) and not isinstance(error, _OURS):
                raise _explain(error, self.path) from None
            raise

    # -- making room, by the same thread

    def prune(self, now: float, *, seconds: float = 0.25, gone: Callable[[list[str]], None] | None = None) -> int:
        """Remove what is too old or too much, for about `seconds`.

        Call it again while it returns more than 0, or leaves something `unfinished`.

        Operations that ended or were put aside are removed by age, then the oldest by size; of a running one, only
        events beyond the newest 10,000 are removed.

        Args:
            now: in Unix seconds.
            seconds: about how long it may take.
            gone: called with the ids of removed operations.

        Returns:
            The number of operations, and events of running ones, that were removed.

        Raises:
            StoreError: if the file cannot be written.
        """
        deadline = clock.monotonic() + seconds
        self.unfinished = False
        before = now - self._keep
        gone = gone or (lambda _: None)
        aged = self._forget(deadline, lambda: self._oldest(before), gone)
        trimmed = (
            self._trim(deadline, self._tight_events(), -1)
            if self._too_large()
            else self._trim(deadline, self.limits.events, self.limits.trimmed)
        )
        squeezed = self._forget(deadline, lambda: self._oldest(math.inf) if self._too_large() else [], gone)
        self.aged += aged
        self.squeezed += squeezed
        self.trimmed += trimmed
        with self._transaction() as db:
            db.execute(
                "DELETE FROM processes WHERE heard_at < max(?, ifnull((SELECT heard_at FROM processes "
                "ORDER BY heard_at DESC LIMIT 1 OFFSET ?), ?)) AND instance NOT IN "
                "(SELECT instance FROM operations WHERE ended = 0)",
                (before, self.limits.processes - 1, before),
            )
        self._shrink(deadline)
        return aged + squeezed + trimmed

    def _tight_events(self) -> int:
        """The most events of a running operation while the file is too large."""
        room = self._most // 2 // EVENT_BYTES // max(1, self.open_count()[0])
        return min(self.limits.tight_events, max(self.limits.fewest_events, room))

    def _oldest(self, before: float) -> list[Any]:
        return self._read(
            "SELECT key, operation_id FROM operations WHERE ended = 1 AND timestamp <= ? ORDER BY timestamp LIMIT 100",
            (before,),
        )

    def _forget(self, deadline: float, find: Callable[[], list[Any]], gone: Callable[[list[str]], None]) -> int:
        """The history of an operation is deleted first, so that nothing is orphaned if the process dies in between."""
        went = 0
        while found := find():
            if clock.monotonic() >= deadline:
                self.unfinished = True
                break
            ids: list[str] = []
            with self._transaction() as db:
                left = self.limits.chunk
                for key, operation_id in found:
                    sql = "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE operation = ? LIMIT ?)"
                    left -= db.execute(sql, (key, left)).rowcount
                    if left <= 0:
                        break
                    db.execute("DELETE FROM operations WHERE key = ?", (key,))
                    ids.append(operation_id)
            for operation_id in ids:
                self._keys.pop(operation_id, None)
            went += len(ids)
            gone(ids)
        return went

    def _trim(self, deadline: float, most: int, looks: int) -> int:
        """Shorten the histories of up to this many running operations (-1: all); the next call continues from there."""
        went = 0
        keys = self._read(
            "SELECT key FROM operations WHERE ended = 0 AND key > ? ORDER BY key LIMIT ?", (self._trimmed_to, looks)
        )
        for (key,) in keys:
            last = self._read(
                "SELECT id FROM events WHERE operation = ? ORDER BY id DESC LIMIT 1 OFFSET ?", (key, most)
            )
            removed = self.limits.chunk if last else 0
            while removed == self.limits.chunk and clock.monotonic() < deadline:
                with self._transaction() as db:
                    removed = db.execute(
                        "DELETE FROM events WHERE id IN "
                        "(SELECT id FROM events WHERE operation = ? AND id <= ? ORDER BY id LIMIT ?)",
                        (key, last[0][0], self.limits.chunk),
                    ).rowcount
                went += removed
            if clock.monotonic() >= deadline:
                self._trimmed_to = key - 1
                self.unfinished = self.unfinished or removed == self.limits.chunk
                return went
        self._trimmed_to = keys[-1][0] if len(keys) == looks else 0
        return went

    def _too_large(self) -> bool:
        """Whether the file is too large; requests to forward have a limit of their own."""
        pages = self._read("SELECT page_count - freelist_count FROM pragma_page_count(), pragma_freelist_count()")[0][0]
        used: int = pages * self._read("PRAGMA page_size")[0][0]
        if used <= self._most:
            return False
        waiting: int = self._read("SELECT ifnull(sum(size), 0) FROM outgoing")[0][0]
        return used - waiting > self._most

    def _shrink(self, deadline: float) -> None:
        """Return free pages to the file system."""
        db = self._db
        if db is None:
            return
        try:
            while _one(db, "PRAGMA freelist_count") > self.limits.free_pages and clock.monotonic() < deadline:
                db.executescript(
                    f"PRAGMA incremental_vacuum({self.limits.free_pages})"
                )  # execute() would take only one page
            self._checkpoint(db)
        except sqlite3.Error as error:
            raise _explain(error, self.path) from None

    def _bound_log(self) -> None:
        """Each reader finishes after a moment, so the wait is short; a failure here harms nothing that is written."""
        with suppress(OSError, sqlite3.Error):
            if self._db is not None and os.stat(f"{self.path}-wal").st_size > self.limits.log_bytes:
                self.interrupt()
                self._checkpoint(self._db, wait=BUSY_SECONDS)

    def _checkpoint(self, db: sqlite3.Connection, *, wait: float = 0.0) -> None:
        """Empty the log unless a reader holds it for too long; not into a file that is no longer ours."""
        if self._place is not None and self._place.lost() is not None:
            return
        db.execute(f"PRAGMA busy_timeout = {wait * 1000:.0f}")
        try:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            if self._place is not None:
                self._place.emptied()
        finally:
            db.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000:.0f}")

    def _log_needed(self) -> int:
        """How many bytes of the log hold what is not in the file; if unknown, all of it."""
        assert self._db is not None
        try:
            _, frames, _ = self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            return 0 if frames <= 0 else WAL_HEAD + frames * (_one(self._db, "PRAGMA page_size") + FRAME_HEAD)
        except sqlite3.Error:
            return LOG_BYTES

    # -- reading, by any thread

    def open_count(self) -> tuple[int, int]:
        """The number of operations that have not ended, and the key of the newest one."""
        found = self._read("SELECT count(*), ifnull(max(key), 0) FROM operations WHERE ended = 0")[0]
        return int(found[0]), int(found[1])

    def open_slice(self, after: int, last: int, limit: int) -> tuple[list[StoredOperation], int]:
        """Operations that have not ended, by a range of keys, and the key to continue after."""
        sql = f"SELECT key, {_KEPT} FROM operations WHERE ended = 0 AND key > ? AND key <= ? ORDER BY key LIMIT ?"
        rows = self._read(sql, (after, last, limit))
        return [_kept(row[1:]) for row in rows], rows[-1][0] if rows else last

    def below(self, parent_ids: Iterable[str], limit: int, *, ended: bool = False) -> list[StoredOperation]:
        """The children of these operations, the newest first; all, or only those that ended."""
        found: list[StoredOperation] = []
        only = "AND +ended = 1 " if ended else ""
        wanted = list(dict.fromkeys(parent_ids))
        for at in range(0, len(wanted), 500):
            some = wanted[at : at + 500]
            sql = f"SELECT {_KEPT} FROM operations WHERE parent_id IN ({_marks(some)}) {only}ORDER BY key DESC LIMIT ?"
            found += [_kept(row) for row in self._read(sql, (*some, limit - len(found)))]
        return found

    def recall(self, operation_id: str) -> StoredOperation | None:
        """An operation; None if it is not stored."""
        found = self._read(f"SELECT {_KEPT} FROM operations WHERE operation_id = ?", (operation_id,))
        return _kept(found[0]) if found else None

    def children(self, parent_id: str, limit: int) -> list[StoredOperation]:
        """The children of an operation, the newest first."""
        sql = f"SELECT {_KEPT} FROM operations WHERE parent_id = ? ORDER BY key DESC LIMIT ?"
        return [_kept(row) for row in self._read(sql, (parent_id, limit))]

    def processes(self, instances: Iterable[str]) -> list[StoredProcess]:
        """Those of these processes that are stored."""
        sql = f"SELECT {', '.join(StoredProcess._fields)} FROM processes WHERE instance IN (%s)"
        return [StoredProcess(*row) for row in self._read_of(sql, instances)]

    def mutes(self, limit: int) -> list[Mute]:
        """Muted operations, the newest first."""
        sql = f"SELECT {', '.join(Mute._fields)} FROM mutes ORDER BY since DESC LIMIT ?"
        return [Mute(*row) for row in self._read(sql, (limit,))]

    def newest_revision(self) -> int:
        """The highest revision that was ever written."""
        found = self._read("SELECT value FROM numbers WHERE name = 'revision'")
        return int(found[0][0]) if found else 0

    def ended(self, query: Query, limit: int, cursor: str | None = None) -> tuple[list[StoredOperation], str | None]:
        """Ended operations, the newest end first, and the cursor behind them; None if there are no more.

        Raises:
            InvalidArgument: for an invalid cursor.
        """
        where, given = _where(query)
        if cursor is not None:
            where += " AND (timestamp, operation_id) < (?, ?)"
            given += _from_cursor(cursor)
        sql = f"SELECT {_KEPT} FROM operations WHERE {where} ORDER BY timestamp DESC, operation_id DESC LIMIT ?"
        rows = [_kept(row) for row in self._read(sql, (*given, limit + 1))]
        if len(rows) <= limit:
            return rows, None
        del rows[limit:]
        return rows, _to_cursor(rows[-1]) if rows else None

    def count(self, query: Query) -> int:
        """The number of ended operations that match."""
        where, given = _where(query)
        return int(self._read(f"SELECT count(*) FROM operations WHERE {where}", given)[0][0])

    def counts(self, query: Query) -> dict[str, int]:
        """The number of ended operations that match, by status."""
        where, given = _where(query)
        return dict(self._read(f"SELECT status, count(*) FROM operations WHERE {where} GROUP BY status", given))

    def attempt_at(self, operation_id: str, started_at: float) -> int | None:
        """The number of the attempt that began at this time, according to the history."""
        sql = (
            "SELECT attempt FROM events WHERE operation = (SELECT key FROM operations WHERE operation_id = ?) "
            "AND started_at = ? ORDER BY id DESC LIMIT 1"
        )
        found = self._read(sql, (operation_id, started_at))
        return int(found[0][0]) if found else None

    def has_event(self, operation_id: str, started_at: float, sequence: int, name: str) -> bool:
        """Whether this event is in the history of an operation."""
        sql = (
            "SELECT 1 FROM events WHERE operation = (SELECT key FROM operations WHERE operation_id = ?) "
            "AND started_at = ? AND sequence = ? AND event = ? LIMIT 1"
        )
        return bool(self._read(sql, (operation_id, started_at, sequence, name)))

    def events(
        self,
        operation_id: str,
        *,
        after: int = 0,
        before: int | None = None,
        names: Sequence[str] | None = None,
        limit: int = 200,
    ) -> list[tuple[int, HistoryEvent]]:
        """The history of an operation, oldest first, with the id of each event.

        Args:
            operation_id: the operation.
            after: only events with a higher id, the oldest ones first.
            before: only events with a lower id, and of those the newest.
            names: only events with these names.
            limit: the most events.
        """
        where = "operation = (SELECT key FROM operations WHERE operation_id = ?) AND id > ?"
        given: list[Any] = [operation_id, after]
        if before is not None:
            where += " AND id < ?"
            given.append(before)
        if names is not None:
            where += f" AND event IN ({_marks(names)})"
            given += names
        order = "ASC" if before is None else "DESC"
        inner = f"SELECT id FROM events WHERE {where} ORDER BY id {order} LIMIT ?"  # so that only the index is sorted
        rows = self._read(f"SELECT id, {_EVENT} FROM events WHERE id IN ({inner}) ORDER BY id", (*given, limit))
        return [(row[0], HistoryEvent(operation_id, *row[1:])) for row in rows]

    def count_events(self, operation_id: str, after: int, until: int) -> int:
        """The number of events of an operation with an id above `after` and up to `until`."""
        return int(self._read(f"SELECT count(*) FROM events WHERE {_MINE} AND id > ? AND id <= ?",
                              (operation_id, after, until))[0][0])  # fmt: skip

    def event_after(self, operation_id: str, number: int, distance: int) -> int:
        """The id of the event that is `distance` behind this one; 0 if there is none."""
        sql = f"SELECT id FROM events WHERE {_MINE} AND id > ? ORDER BY id LIMIT 1 OFFSET ?"
        found = self._read(sql, (operation_id, number, distance - 1))
        return int(found[0][0]) if found else 0

    def event_before(self, operation_id: str, number: int, distance: int) -> int:
        """The id of the event that is `distance` before this one; 0 if there is none."""
        sql = f"SELECT id FROM events WHERE {_MINE} AND id < ? ORDER BY id DESC LIMIT 1 OFFSET ?"
        found = self._read(sql, (operation_id, number, distance - 1))
        return int(found[0][0]) if found else 0

    def newest_event_id(self) -> int:
        """The highest id that an event has or had; 0 before the first."""
        found = self._read("SELECT seq FROM sqlite_sequence WHERE name = 'events'")
        return int(found[0][0]) if found else 0

    def outgoing(self, signal: str, limit_bytes: int, *, after: int = 0) -> list[tuple[int, bytes]]:
        """The oldest requests to forward, with their ids: as many as fit into the limit, but at least one."""
        ids: list[int] = []
        for id, size in self.outgoing_sizes(signal, after=after):
            limit_bytes -= size
            if ids and limit_bytes < 0:
                break
            ids.append(id)
        if not ids:
            return []
        sql = "SELECT id, body FROM outgoing WHERE signal = ? AND id BETWEEN ? AND ? ORDER BY id"
        return self._read(sql, (signal, ids[0], ids[-1]))

    def outgoing_sizes(self, signal: str, *, after: int = 0, limit: int = 1000) -> list[tuple[int, int]]:
        """The ids and sizes of the oldest requests to forward."""
        sql = "SELECT id, size FROM outgoing WHERE signal = ? AND id > ? ORDER BY id LIMIT ?"
        return self._read(sql, (signal, after, limit))

    def outgoing_bytes(self, signal: str, *, after: int = 0) -> int:
        """The size of all requests to forward, in bytes."""
        sql = "SELECT ifnull(sum(size), 0) FROM outgoing WHERE signal = ? AND id > ?"
        return int(self._read(sql, (signal, after))[0][0])

    # -- connections for reading

    def _read(self, sql: str, given: Sequence[Any] = ()) -> list[Any]:
        """All rows at once: a slow reader would keep the log from being emptied."""
        try:
            db = self._readers.pop()
        except IndexError:
            db = self._reader()
        try:
            try:
                return db.execute(sql, given).fetchall()
            except (UnicodeEncodeError, OverflowError):
                return db.execute(sql, [_bent(value) for value in given]).fetchall()
        except sqlite3.Error as error:
            raise _explain(error, self.path) from None
        finally:
            if self._closed or len(self._readers) >= READERS:
                db.close()
            else:
                self._readers.append(db)

    def _read_of(self, sql: str, values: Iterable[str]) -> Iterator[Any]:
        wanted = list(dict.fromkeys(values))
        for at in range(0, len(wanted), 500):
            some = wanted[at : at + 500]
            yield from self._read(sql % _marks(some), some)

    def _reader(self) -> sqlite3.Connection:
        if self._closed:
            raise self._is_closed()
        try:
            db = _connect(f"file:{quote(str(self.path))}?mode=ro", uri=True)
            db.execute("PRAGMA query_only = ON")
        except sqlite3.Error as error:
            raise _explain(error, self.path) from None
        return db

    @contextmanager
    def examining(self) -> Iterator[sqlite3.Connection]:
        """A connection to read the whole file with; `interrupt` aborts it, also if the log grows too large.

        Raises:
            StoreError: if the file cannot be opened.
        """
        db = self._reader()
        self._examined.append(db)
        try:
            yield db
        finally:
            self._examined.remove(db)
            db.close()

    def interrupt(self) -> None:
        """Abort the integrity check."""
        for db in tuple(self._examined):
            with suppress(sqlite3.Error):
                db.interrupt()

    def _is_closed(self) -> StoreError:
        return StoreError(f"{self.path} is closed: open it anew")


def migrations() -> list[str]:
    """The SQL scripts of all schema versions, in order; the first creates version 1 in an empty file."""
    folder = resources.files(__package__).joinpath("sql")
    found = sorted((int(file.name.partition(".")[0]), file) for file in folder.iterdir() if file.name.endswith(".sql"))
    return [file.read_text(encoding="utf-8") for _, file in found]


def _connect(name: str, *, uri: bool = False) -> sqlite3.Connection:
    return sqlite3.connect(name, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=uri)


def _one(db: sqlite3.Connection, sql: str) -> int:
    return int(db.execute(sql).fetchone()[0])


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _kept(row: Sequence[Any]) -> StoredOperation:
    kept = StoredOperation._make(row)
    return kept._replace(
        presumed=bool(kept.presumed), dead=bool(kept.dead), is_foreign=bool(kept.is_foreign), aside=bool(kept.aside)
    )


def _where(query: Query) -> tuple[str, tuple[Any, ...]]:
    terms = [
        "ended = 1" if query.parent is None else "+ended = 1"
    ]  # the plus: children are found by the index of their parent
    given: list[Any] = []
    if query.statuses:
        terms.append(f"status IN ({_marks(query.statuses)})")
        given += query.statuses
    if query.search:
        terms.append("instr(text, ?) > 0")  # LIKE ignores case for ASCII only, and has wildcards
        given.append(query.search.lower())
    others: tuple[tuple[str, str | float | None], ...] = (
        ("name = ?", query.name),
        ("timestamp >= ?", query.since),
        ("timestamp < ?", query.until),
        ("parent_id = ?", query.parent),
        ("owner = ?", query.owner),
    )
    for term, value in others:
        if value is not None:
            terms.append(term)
            given.append(value)
    return " AND ".join(terms), tuple(given)


def _to_cursor(kept: StoredOperation) -> str:
    return base64.urlsafe_b64encode(json.dumps([kept.timestamp, kept.operation_id]).encode()).decode()


def _from_cursor(cursor: str) -> tuple[float, str]:
    try:
        timestamp, operation_id = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii")))
        if not isinstance(operation_id, str):
            raise TypeError
        return float(timestamp), operation_id
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise InvalidArgument("invalid cursor: start without one") from None


def _storable(batch: Batch) -> Batch:
    return replace(
        batch,
        operations=[StoredOperation(*map(_bent, kept)) for kept in batch.operations],
        events=[HistoryEvent(*map(_bent, event)) for event in batch.events],
        processes=[StoredProcess(*map(_bent, known)) for known in batch.processes],
        mutes={key: None if mute is None else Mute(*map(_bent, mute)) for key, mute in batch.mutes.items()},
    )


def _bent(value: Any) -> Any:
    """The value, or the nearest one that SQLite can hold."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, float):
        return 0.0 if math.isnan(value) else value
    if isinstance(value, int):
        return max(-_INTEGER, min(value, _INTEGER))
    return value
