"""The rows of the checkpoint store in SQLite: how operations, scopes and marks are read and written."""

# ruff: noqa: S608  # only column names are put into SQL; values are bound

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from otel_progress import clock
from otel_progress.durable.holder import Holder
from otel_progress.durable.kept import (
    LEASE,
    Batch,
    StoredOperation,
    Summary,
    poisonous,
)

_HOLDER: Final = ("host", "boot", "namespace", "pid", "ticks", "command", "cwd")
_COLUMNS: Final = (
    *("id", "name", "attempt", "status", "reason", "fingerprint", "started_at", "ended_at", "seen_at"),
    *("lease_until", "lease_mono", "fence", "checkpoint_at", "trace_id", "span_id"),
    *("completed", "total", "unit", "stage", "message"),
    *_HOLDER,
)
SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM operations"
_MARK: Final = (
    "INSERT INTO marks (scope, item, failed) SELECT ?, value, ? FROM json_each(?) WHERE true "
    "ON CONFLICT DO UPDATE SET failed = excluded.failed"
)
OF: Final = "operation = (SELECT key FROM operations WHERE id = ?)"


class Scopes:
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


def mark(db: sqlite3.Connection, scope: int, items: Sequence[str], *, failed: bool) -> None:
    """Mark keys. One statement has them all: SQLite releases the interpreter's lock once, not for each of them."""
    text = json.dumps(items)
    db.execute(_MARK, (scope, failed, text))
    if not failed and db.execute("SELECT 1 FROM deaths WHERE scope = ? LIMIT 1", (scope,)).fetchone():
        db.execute("DELETE FROM deaths WHERE scope = ? AND item IN (SELECT value FROM json_each(?))", (scope, text))


def describe(db: sqlite3.Connection, key: int, batch: Batch) -> None:
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


def empty_hands(db: sqlite3.Connection, id: str, how: str | None, *, blamed: bool) -> None:
    """Nothing is in hand any more: a death is counted for each key that was, and set aside what ended the process."""
    mine = f"scope IN (SELECT key FROM scopes WHERE {OF})"
    if blamed:
        db.execute(
            f"INSERT INTO deaths (scope, item, deaths, aside) SELECT scope, item, 1, 0 FROM hands WHERE {mine} "
            "ON CONFLICT DO UPDATE SET deaths = deaths + 1",
            (id,),
        )
        counted = (
            "SELECT path, item, deaths FROM deaths JOIN hands USING (scope, item) JOIN scopes ON scopes.key = scope"
        )
        for path, item in poisonous(db.execute(f"{counted} WHERE {OF}", (id,)).fetchall(), how):
            scope = f"(SELECT key FROM scopes WHERE {OF} AND path = ?)"
            db.execute(f"UPDATE deaths SET aside = 1 WHERE item = ? AND scope = {scope}", (item, id, path))
    db.execute(f"DELETE FROM hands WHERE {mine}", (id,))


def operation_of(db: sqlite3.Connection, id: str) -> StoredOperation | None:
    """An operation by its id, or None if it is unknown."""
    row = db.execute(f"{SELECT} WHERE id = ?", (id,)).fetchone()
    return None if row is None else read(row)


def read(row: Sequence[Any]) -> StoredOperation:
    """An operation from a row of `SELECT`."""
    found = dict(zip(_COLUMNS, row, strict=True))
    holder = {name: found.pop(name) for name in _HOLDER}
    holder["command"] = tuple(json.loads(holder["command"]))
    summary = Summary(*(found.pop(name) for name in ("completed", "total", "unit", "stage", "message")))
    return StoredOperation(holder=Holder(**holder), summary=summary, **found)
