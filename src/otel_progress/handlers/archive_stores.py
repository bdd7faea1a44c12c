"""Where an archive keeps operations: in memory or a SQLite file, or in Redis. Bounded, and what is old expires."""

# only constants are put into SQL; values are bound

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from otel_progress import clock, files
from otel_progress.errors import ProgressError
from otel_progress.handlers.redis_client import RedisClient

HISTORY: Final = 1_000
"""The events that are kept of an operation, the newest ones."""
EVENTS: Final = 100_000
"""The events that a file keeps of all operations."""
SPARE: Final = 100
"""Further events of an operation before the oldest are removed."""
PRUNE_EVERY: Final = 256
"""Additions between two looks for what is too old or too much."""
BUSY_SECONDS: Final = 5.0
DAY: Final = 86_400.0
PREFIX: Final = "otel-progress:archive:"
_APPLICATION: Final = 0x6F746172
"""The SQLite application id of these files."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS operations (
    id TEXT PRIMARY KEY, name TEXT, status TEXT, updated_at REAL, snapshot TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (number INTEGER PRIMARY KEY, id TEXT, event TEXT);
CREATE INDEX IF NOT EXISTS events_of ON events (id, number);
CREATE INDEX IF NOT EXISTS operations_by_age ON operations (updated_at);
"""


@dataclass(frozen=True)
class Archived:
    """What an archive has of an operation.

    Attributes:
        operation_id: its id.
        name: its name.
        status: its status as last reported; `running` also if its process died since.
        updated_at: when that was, in seconds since 1970.
        snapshot: the last snapshot, with the keys of `Snapshot.to_dict()`.
        history: its events, the oldest first: `event`, `timestamp`, `text`, `attributes`, maybe `stage`, and how far
            the operation was (`status`, `percentage`, `current_step`).
    """

    operation_id: str
    name: str
    status: str
    updated_at: float
    snapshot: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...]


class Addition(NamedTuple):
    """An event to keep, and the operation after it; `snapshot` and `event` are JSON texts."""

    id: str
    name: str
    status: str
    updated_at: float
    snapshot: str
    event: str


class ArchiveStore(Protocol):
    """A place for operations."""

    def add(self, one: Addition) -> None:
        """Keep an event."""

    def of(self, id: str) -> Archived | None:
        """What is kept of an operation."""

    def ids(self, most: int) -> list[str]:
        """The ids of the operations that were heard of last, the newest first."""

    def close(self) -> None:
        """Let go of files and connections; they are opened again when needed."""


class SqliteArchive:
    """In a SQLite file, which the processes of one machine may share, or in memory."""

    def __init__(self, path: str | None, keep_days: float, most: int) -> None:
        """Open the file, or memory.

        Args:
            path: the file, which no other user can read; None for memory.
            keep_days: how long an operation is kept after its last event.
            most: the most operations that are kept.

        Raises:
            ProgressError: if the file can't be used.
        """
        self._path = None if path is None else os.path.abspath(path)
        self._keep, self._most = keep_days * DAY, most
        self._db: sqlite3.Connection | None = None
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._added = 0
        self._counts: dict[str, int] = {}
        with self._used():
            pass

    def add(self, one: Addition) -> None:
        """See `ArchiveStore`."""
        with self._used() as db:
            id = _sound(one.id)
            db.execute("BEGIN IMMEDIATE")
            db.execute(
                "INSERT INTO operations VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET name = excluded.name, "
                "status = excluded.status, updated_at = excluded.updated_at, snapshot = excluded.snapshot",
                (id, _sound(one.name), one.status, one.updated_at, one.snapshot),
            )
            db.execute("INSERT INTO events (id, event) VALUES (?, ?)", (id, one.event))
            self._shorten(db, id)
            if self._added % PRUNE_EVERY == 0:
                self._prune(db)
            db.execute("COMMIT")
            self._added += 1

    def _shorten(self, db: sqlite3.Connection, id: str) -> None:
        """Remove the oldest events of an operation with too many, now and then."""
        count = self._counts.pop(id, 0) + 1
        if count % SPARE == 0:
            db.execute(
                "DELETE FROM events WHERE id = ? AND number <= "
                "(SELECT number FROM events WHERE id = ? ORDER BY number DESC LIMIT 1 OFFSET ?)",
                (id, id, HISTORY),
            )
        self._counts[id] = count
        if len(self._counts) > self._most:
            del self._counts[next(iter(self._counts))]

    def _prune(self, db: sqlite3.Connection) -> None:
        """Remove what is too old, and what is too much."""
        db.execute("DELETE FROM operations WHERE updated_at < ?", (clock.unix() - self._keep,))
        db.execute(
            "DELETE FROM operations WHERE id IN (SELECT id FROM operations ORDER BY updated_at DESC LIMIT -1 OFFSET ?)",
            (self._most,),
        )
        db.execute("DELETE FROM events WHERE number <= (SELECT max(number) FROM events) - ?", (EVENTS,))
        db.execute("DELETE FROM events WHERE id NOT IN (SELECT id FROM operations)")

    def of(self, id: str) -> Archived | None:
        """See `ArchiveStore`."""
        with self._used() as db:
            row = db.execute(
                "SELECT id, name, status, updated_at, snapshot FROM operations WHERE id = ? AND updated_at >= ?",
                (_sound(id), clock.unix() - self._keep),
            ).fetchone()
            if row is None:
                return None
            events = db.execute(
                "SELECT event FROM events WHERE id = ? ORDER BY number DESC LIMIT ?", (row[0], HISTORY)
            ).fetchall()
        found, name, status, when, snapshot = row
        history = tuple(json.loads(event) for (event,) in reversed(events))
        return Archived(found, name, status, when, json.loads(snapshot), history)

    def ids(self, most: int) -> list[str]:
        """See `ArchiveStore`."""
        with self._used() as db:
            found = db.execute(
                "SELECT id FROM operations WHERE updated_at >= ? ORDER BY updated_at DESC LIMIT ?",
                (clock.unix() - self._keep, most),
            )
            return [id for (id,) in found]

    def close(self) -> None:
        """Close the file; memory stays."""
        if self._path is not None and self._pid == os.getpid():
            with self._lock:
                db, self._db = self._db, None
                if db is not None:
                    db.close()

    def __del__(self) -> None:
        """Close what was left open, memory included."""
        db = getattr(self, "_db", None)
        if db is not None and self._pid == os.getpid():
            db.close()

    @contextmanager
    def _used(self) -> Iterator[sqlite3.Connection]:
        """The connection, for this thread alone; errors say what to do."""
        if self._pid != os.getpid():  # a connection must not cross a fork
            self._pid, self._lock = os.getpid(), threading.RLock()
            _leaked.append(self._db)
            self._db = None
        with self._lock:
            try:
                if self._db is None:
                    self._db = self._open()
                try:
                    yield self._db
                finally:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
            except (sqlite3.Error, OSError) as error:
                raise ProgressError(
                    f"the archive {self._path or 'in memory'} can't be used ({error}): name another file"
                ) from error

    def _open(self) -> sqlite3.Connection:
        if self._path is not None:
            os.close(files.open_private(self._path))
            for name in ("-wal", "-shm", "-journal"):  # SQLite would apply their content
                files.tighten(f"{self._path}{name}")
        db = sqlite3.connect(
            self._path or ":memory:", timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            known = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if known and db.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
                raise sqlite3.DatabaseError("it is the database of another program")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            if not known:
                db.executescript(f"PRAGMA application_id = {_APPLICATION};{_SCHEMA}")
        except BaseException:
            db.close()
            raise
        return db


_leaked: Final[list[object]] = []
"""Connections of the parent process, which a forked child must neither use nor close."""


class RedisArchive:
    """In Redis, which processes of many machines may share; all keys begin with `otel-progress:archive:`."""

    def __init__(self, url: str, pause: Callable[[float], bool], keep_days: float, most: int) -> None:
        """Prepare the client.

        Args:
            url: redis://, rediss:// or unix://.
            pause: see `RedisClient`.
            keep_days: how long an operation is kept after its last event.
            most: the most operations that are kept.
        """
        self._client = RedisClient(url, pause)
        self._keep, self._most = round(keep_days * DAY), most
        self._added = 0

    def add(self, one: Addition) -> None:
        """See `ArchiveStore`."""
        if not self._client.write(lambda client: self._add(client, one)):
            return
        if self._added % PRUNE_EVERY == 0:
            self._client.write(self._prune)
        self._added += 1

    def _add(self, client: Any, one: Addition) -> None:
        pipe = client.pipeline(transaction=True)
        head, events = _keys(one.id)
        state = {"name": _sound(one.name), "status": one.status, "updated_at": repr(one.updated_at)}
        pipe.hset(head, mapping={**state, "snapshot": one.snapshot})
        pipe.rpush(events, one.event)
        pipe.ltrim(events, -HISTORY, -1)
        for key in (head, events):
            pipe.expire(key, self._keep)
        pipe.zadd(f"{PREFIX}all", {_sound(one.id): one.updated_at})
        pipe.execute()

    def _prune(self, client: Any) -> None:
        everything = f"{PREFIX}all"
        old = client.zrangebyscore(everything, "-inf", clock.unix() - self._keep, start=0, num=10_000)
        excess = client.zcard(everything) - self._most
        if excess > 0:
            old = [*old, *client.zrange(everything, 0, min(excess, 10_000) - 1)]
        if old:
            pipe = client.pipeline(transaction=False)
            pipe.zrem(everything, *old)
            for id in old:
                pipe.delete(*_keys(id.decode()))
            pipe.execute()

    def of(self, id: str) -> Archived | None:
        """See `ArchiveStore`."""
        head, events = _keys(id)
        state, listed = self._read(
            lambda client: client.pipeline(transaction=True).hgetall(head).lrange(events, 0, -1).execute()
        )
        if not state:
            return None
        found = {key.decode(): value.decode() for key, value in state.items()}
        history = tuple(json.loads(event) for event in listed)
        when = float(found["updated_at"])
        return Archived(_sound(id), found["name"], found["status"], when, json.loads(found["snapshot"]), history)

    def ids(self, most: int) -> list[str]:
        """See `ArchiveStore`."""
        since = clock.unix() - self._keep
        found = self._read(lambda client: client.zrevrangebyscore(f"{PREFIX}all", "+inf", since, start=0, num=most))
        return [id.decode() for id in found]

    def _read(self, work: Callable[[Any], Any]) -> Any:
        from redis.exceptions import RedisError

        try:
            return self._client.once(work)
        except (RedisError, OSError) as error:
            raise ProgressError(
                f"the archive at {self._client.shown} can't be read ({type(error).__name__}: {error}): start Redis, or "
                "check address and password"
            ) from error

    def close(self) -> None:
        """See `ArchiveStore`."""
        self._client.close()


def _keys(id: str) -> tuple[str, str]:
    return f"{PREFIX}operation:{_sound(id)}", f"{PREFIX}events:{_sound(id)}"


def _sound(text: str) -> str:
    """The text without halves of surrogate pairs, which neither store can keep."""
    return text.encode("utf-8", "replace").decode()
