"""The store in a SQLite file, which the processes of one machine share.

What a write returned from survives the death of the process, SIGKILL included, as the operating system has it. It is
not synced to the disk each time, so a power cut may lose the last seconds; the file stays intact.
"""

# ruff: noqa: S608  # only column names are put into SQL; values are bound

from __future__ import annotations

import json
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from otel_progress import clock
from otel_progress.durable.holder import this_process
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
    Suspect,
    held,
    is_blamed,
    lost,
    refused,
    too_old,
)
from otel_progress.durable.sqlite_file import SqliteFile
from otel_progress.durable.sqlite_rows import OF, SELECT, Scopes, describe, empty_hands, mark, operation_of, read

PRUNE_EVERY: Final = 3600.0
"""Seconds between two looks for operations that are too old."""
_DAY: Final = 86_400.0
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


class SqliteStore(SqliteFile):
    """Keeps operations in a SQLite file.

    Attributes:
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
        self.encode, self.decode = encode, decode
        self._keep = keep_days * _DAY
        self._prune_at = 0.0
        super().__init__(path)

    def acquire(self, claim: Claim) -> Acquired:
        """See `CheckpointStore.acquire`."""
        return self._transact(lambda db: self._acquire(db, claim))

    def _acquire(self, db: sqlite3.Connection, claim: Claim) -> Acquired:
        now, mono = clock.unix(), clock.monotonic()
        self._prune(db, now, mono)
        before = operation_of(db, claim.id)
        if before is not None:
            ours = before.holder.is_same(claim.holder)  # an attempt of this process whose end could not be written
            if not ours and held(before, claim.holder, now, mono):
                raise refused(before, now)
            if before.status == RUNNING:
                empty_hands(db, claim.id, None, blamed=is_blamed(before, claim.holder))
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
            found = operation_of(db, id)
            if found is None or found.attempt != attempt or found.status not in (RUNNING, LOST):
                return
            if found.status == RUNNING:
                empty_hands(db, id, how, blamed=how.partition(",")[0] not in STOPPED)
            db.execute(
                "UPDATE operations SET status = ?, reason = ?, lease_until = 0, ended_at = coalesce(ended_at, ?) "
                "WHERE id = ?",
                (LOST, how, clock.unix(), id),
            )

        self._transact(work)

    def write(self, lease: Lease, batch: Batch) -> None:
        """See `CheckpointStore.write`."""
        self._transact(lambda db: self._write(db, lease, batch))

    def _write(self, db: sqlite3.Connection, lease: Lease, batch: Batch) -> None:
        found = db.execute("SELECT key, fence, status FROM operations WHERE id = ?", (lease.id,)).fetchone()
        if found is None or found[1] != lease.fence or found[2] != RUNNING:
            raise lost(lease, str(self.path) if found is None else None)
        key = found[0]
        scope = Scopes(db, key)
        for path, items in batch.done.items():
            mark(db, scope[path], items, failed=False)
        for path, items in batch.failed.items():
            mark(db, scope[path], items, failed=True)
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
            empty_hands(db, lease.id, batch.died, blamed=batch.died is not None)
        describe(db, key, batch)

    def keys(self, id: str, scope: str) -> Keys:
        """See `CheckpointStore.keys`."""

        def work(db: sqlite3.Connection) -> Keys:
            number = db.execute(f"SELECT key FROM scopes WHERE path = ? AND {OF}", (scope, id)).fetchone()
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
                f"SELECT text FROM states JOIN scopes ON scopes.key = scope WHERE kind = ? AND path = ? AND {OF}",
                (kind, scope, id),
            ).fetchone()
            return None if found is None else str(found[0])

        return self._run(work)

    def operation(self, id: str) -> StoredOperation | None:
        """See `CheckpointStore.operation`."""
        return self._run(lambda db: operation_of(db, id))

    def operations(self) -> list[StoredOperation]:
        """See `CheckpointStore.operations`."""
        return self._run(lambda db: [read(row) for row in db.execute(f"{SELECT} ORDER BY seen_at DESC, id")])

    def suspects(self, id: str) -> list[Suspect]:
        """See `CheckpointStore.suspects`."""
        query = (
            f"SELECT path, item, deaths, aside FROM deaths JOIN scopes ON scopes.key = scope WHERE {OF} ORDER BY 1, 2"
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
                    (Scopes(db, owner[0])[scope], key),
                )

        self._transact(work)

    def release(self, id: str) -> None:
        """See `CheckpointStore.release`."""
        query = f"DELETE FROM deaths WHERE scope IN (SELECT key FROM scopes WHERE {OF})"
        self._transact(lambda db: db.execute(query, (id,)))

    def forget(self, id: str) -> None:
        """See `CheckpointStore.forget`."""

        def work(db: sqlite3.Connection) -> None:
            found = operation_of(db, id)
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
            found = operation_of(db, row[1])
            if found is not None and not held(found, here, now, mono):
                db.execute("DELETE FROM operations WHERE key = ?", (row[0],))


def _in_child() -> None:
    global _stores_lock
    _stores_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
