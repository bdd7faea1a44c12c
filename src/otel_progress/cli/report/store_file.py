"""Reads runs from the database file of a monitor, whether or not that monitor runs; the file is never written."""

# ruff: noqa: S608  # only column names and placeholders are put into SQL; values are bound

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from otel_progress import clock, semconv
from otel_progress.cli.query.exit_codes import NOT_FOUND, USAGE, CommandError
from otel_progress.cli.report.source import Step
from otel_progress.model import stage_ends
from otel_progress.model.curve import Curve
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Health
from otel_progress.model.timeline import TIMED, order
from otel_progress.model.units import spelled
from otel_progress.monitor.state.as_of import at
from otel_progress.monitor.state.ledger import Entry
from otel_progress.monitor.state.restore import entry_of
from otel_progress.monitor.state.saved import HistoryEvent, StoredOperation
from otel_progress.monitor.state.store import COLUMNS
from otel_progress.monitor.web.detail_json import attempts_json
from otel_progress.reports.run import Attempt, Run, Told, pauses_of

APPLICATION: Final = 0x6F747067
"""The SQLite application id of the files of monitors."""
EVENTS: Final = 5_000
"""The most events of one run that are read, the newest."""
CHILDREN: Final = 100
BELOW: Final = 1_000
"""Operations below the children of a run that are read."""
SKEW: Final = 1.0
"""Seconds by which clocks of two processes may differ."""
BEATS: Final = 3
HEARTBEAT: Final = 15.0
"""Seconds between two heartbeats of a process that names no interval."""
SLICE: Final = 500
"""Runs that are read at once."""
KNOWN: Final = 2_000
_EVENT: Final = ", ".join(HistoryEvent._fields[1:])
_LIVES: Final = (semconv.OPERATION_STARTED, semconv.OPERATION_ENDED)


class StoreFile:
    """The database file of a monitor.

    Attributes:
        words: what it is, in words.
    """

    def __init__(self, path: Path) -> None:
        """Open the file for reading.

        Raises:
            CommandError: if it is missing, damaged, or something else.
        """
        self.words = f"the monitor's file {path}"
        self._path = path
        if not path.is_file():
            what = f"{path} is no regular file" if path.exists() else f"there is no file {path}"
            raise CommandError(f"{what}; --db names the file of a monitor, --file one of JSON lines", USAGE)
        try:
            self._db, ours, self._alone = _opened(path.resolve())
            there = {row[1] for row in self._db.execute("PRAGMA table_info(operations)")} | {"aside"}
            if list(self._db.execute("PRAGMA table_info(keyframes)")):
                there.add("keyframe")
            self._columns = ", ".join(sql if name in there else "NULL" for name, sql in COLUMNS.items())
        except sqlite3.Error as error:
            raise self._unreadable(error) from None
        if not ours or "dead" not in there:
            raise CommandError(f"{path} is no database of a monitor of this version", USAGE)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def find(self, given: str) -> list[str]:
        """The ids that a word may stand for."""
        sql = "SELECT operation_id FROM operations WHERE"
        exact = self._read(f"{sql} operation_id = ?", (given,))
        if exact:
            return [given]
        end = given[:-1] + chr(min(ord(given[-1]) + 1, 0x10FFFF)) if given else ""
        begun = self._read(f"{sql} operation_id >= ? AND operation_id < ? LIMIT 1000", (given, end)) if given else []
        if len(begun) != 1:
            named = f"{sql} name = ? ORDER BY ended, timestamp DESC LIMIT 1000"
            running = self._read(f"{sql} name = ? AND ended = 0 LIMIT 1000", (given,))
            begun = running or self._read(named, (given,))[:1] or begun
        return [row[0] for row in begun]

    def known(self) -> Iterable[str]:
        """The newest ids and names."""
        rows = self._read("SELECT operation_id, name FROM operations ORDER BY key DESC LIMIT ?", (KNOWN,))
        return [word for row in rows for word in (row[1], row[0])]

    def run(self, operation_id: str) -> Run:
        """All that the file holds of one run."""
        row = self._row(operation_id)
        entry = entry_of(_kept(row), 0.0)
        snapshot = _seen(entry, row)
        own = (entry.number, entry.head.started_at or 0.0)
        events = [event for event in self._events(operation_id) if (event.attempt, event.started_at) == own]
        told = tuple(_told(event) for event in sorted(events, key=order))
        timed = tuple(
            _told(event) for event in self._events(operation_id, TIMED) if (event.attempt, event.started_at) == own
        )
        attempts = attempts_json(self._events(operation_id, _LIVES), entry) if entry.number > 1 else []
        children, more = self._children(operation_id)
        below, missing = self._below(operation_id, children)
        dead = _kept(row).dead
        return Run(
            self._now(stage_ends.timed(snapshot, told), entry.instance),
            self.words,
            pauses_of(timed, snapshot),
            told,
            tuple(_attempt(one) for one in attempts),
            children,
            more,
            ratios=self._ratios(operation_id, own),
            alive=True if not snapshot.status.final and not dead and self._is_heard(entry.instance) else None,
            below=below,
            more_below=more + missing,
        )

    def _children(self, operation_id: str, most: int = CHILDREN) -> tuple[tuple[Snapshot, ...], int]:
        """The children of an operation, and how many more there are; those of an earlier attempt are left out."""
        began = "(SELECT CASE WHEN attempt > 1 THEN started_at END FROM operations WHERE operation_id = ?)"
        sql = f"FROM operations WHERE parent_id = ? AND (ended = 0 OR coalesce(started_at >= {began} - ?, 1))"
        given = (operation_id, operation_id, SKEW)
        rows = self._read(f"SELECT {self._columns} {sql} ORDER BY started_at LIMIT ?", (*given, most))
        count = self._read(f"SELECT count(*) {sql}", given)[0][0]
        found = tuple(child for row in rows if (child := _snapshot(row)) is not None)
        return found, count - len(found)

    def _below(self, operation_id: str, children: tuple[Snapshot, ...]) -> tuple[tuple[Snapshot, ...], int]:
        """The operations below the children, and how many of them are left out, as far as that is known."""
        found: list[Snapshot] = []
        seen, missing = {operation_id, *(child.operation_id for child in children)}, 0
        waiting = [child.operation_id for child in children]
        while waiting and len(found) < BELOW:
            some, more = self._children(waiting.pop(0), BELOW - len(found))
            fresh = [one for one in some if one.operation_id not in seen]
            seen.update(one.operation_id for one in fresh)
            found.extend(fresh)
            waiting.extend(one.operation_id for one in fresh)
            missing += more
        return tuple(found), missing

    def _is_heard(self, instance: str) -> bool:
        """Whether its process was heard of lately, as seen from now: three heartbeats may be missing."""
        rows = self._read("SELECT heard_at, interval FROM processes WHERE instance = ?", (instance,))
        return bool(rows) and clock.unix() - rows[0][0] <= BEATS * (rows[0][1] or HEARTBEAT)

    def _now(self, snapshot: Snapshot, instance: str) -> Snapshot:
        """The snapshot when its process was last heard of: a stuck run sends heartbeats, and no news."""
        if snapshot.status.final:
            return snapshot
        heard = self._read("SELECT heard_at FROM processes WHERE instance = ?", (instance,))
        later = max(0.0, heard[0][0] - snapshot.timestamp) if heard else 0.0
        reason = snapshot.health_reason
        return replace(at(snapshot, later), health_reason=None if reason is None else spelled(reason, later))

    def _ratios(self, operation_id: str, own: tuple[int, float]) -> tuple[tuple[float, float], ...]:
        """The ratio over time, as a few points."""
        rows = self._read(
            "SELECT timestamp, ratio FROM events WHERE operation = (SELECT key FROM operations WHERE operation_id = ?) "
            "AND attempt = ? AND started_at = ? AND ratio IS NOT NULL ORDER BY timestamp",
            (operation_id, *own),
        )
        curve = Curve()
        for when, ratio in rows:
            curve.add(when - own[1], ratio)
        return curve.until(rows[-1][0] - own[1], rows[-1][1]) if rows else ()

    def snapshots(self, operation_ids: list[str], step: Step) -> Iterator[Snapshot]:
        """The newest state of each run."""
        for number, operation_id in enumerate(operation_ids, 1):
            row = self._row(operation_id)
            yield _seen(entry_of(_kept(row), 0.0), row)
            step(number, len(operation_ids))

    def named(self, name: str, since: float, step: Step) -> Iterator[Snapshot]:
        """The runs of a name since a time, in order of time; read in slices, so that memory is bounded."""
        in_order = "SELECT key FROM operations WHERE name = ? AND timestamp >= ? ORDER BY timestamp, operation_id"
        keys = array("q", (row[0] for row in self._read(in_order, (name, since))))
        for begin in range(0, len(keys), SLICE):
            some = keys[begin : begin + SLICE]
            marks = ", ".join("?" * len(some))
            rows = self._read(f"SELECT key, {self._columns} FROM operations WHERE key IN ({marks})", some)
            found = {row[0]: row[1:] for row in rows}
            for number, key in enumerate(some, begin + 1):
                snapshot = _snapshot(found[key]) if key in found else None  # it was removed meanwhile
                if snapshot is not None:
                    yield snapshot
                step(number, len(keys))

    def _row(self, operation_id: str) -> Sequence[Any]:
        rows = self._read(f"SELECT {self._columns} FROM operations WHERE operation_id = ?", (operation_id,))
        if not rows:
            raise CommandError(f"{operation_id} is no longer there", NOT_FOUND)
        row: Sequence[Any] = rows[0]
        return row

    def _events(self, operation_id: str, names: Sequence[str] = ()) -> list[HistoryEvent]:
        chosen = f" AND event IN ({', '.join('?' * len(names))})" if names else " AND event NOT IN (?, ?)"
        given = (operation_id, *(names or (semconv.UPDATED, semconv.HEARTBEAT)), EVENTS)
        rows = self._read(
            f"SELECT {_EVENT} FROM events WHERE operation = (SELECT key FROM operations WHERE operation_id = ?)"
            f"{chosen} ORDER BY id DESC LIMIT ?",
            given,
        )
        return [HistoryEvent(operation_id, *row) for row in reversed(rows)]

    def _read(self, sql: str, given: Sequence[Any] = ()) -> list[Any]:
        try:
            if self._alone and _journal(self._path.resolve()):  # a monitor has started since
                self._db.close()
                self._db, _, self._alone = _opened(self._path.resolve())
            with closing(self._db.execute(sql, given)) as cursor:
                return cursor.fetchall()
        except (UnicodeEncodeError, OverflowError):
            return []  # no id holds a lone surrogate
        except sqlite3.Error as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: sqlite3.Error) -> CommandError:
        return CommandError(f"{self._path} can't be read: {error}", USAGE)


def _opened(path: Path) -> tuple[sqlite3.Connection, bool, bool]:
    """A connection that only reads, whether the file is a monitor's, and whether nobody else uses it.

    SQLite reads such a file without files beside it; otherwise it would leave `-shm` and `-wal` there.
    """
    alone = not _journal(path)
    address = f"file:{quote(str(path))}?mode=ro{'&immutable=1' if alone else ''}"
    db = sqlite3.connect(address, uri=True, timeout=5)
    ours = db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION
    db.execute("PRAGMA query_only = ON")
    return db, ours, alone


def _journal(path: Path) -> bool:
    """Whether somebody writes to the file, or was killed while writing."""
    return any(Path(f"{path}{suffix}").exists() for suffix in ("-wal", "-journal"))


def _kept(row: Sequence[Any]) -> StoredOperation:
    kept = StoredOperation._make(row)
    return kept._replace(presumed=bool(kept.presumed), dead=bool(kept.dead), is_foreign=bool(kept.is_foreign))


def _snapshot(row: Sequence[Any]) -> Snapshot | None:
    """A stored operation as a snapshot; None if its event can't be read."""
    try:
        return _seen(entry_of(_kept(row), 0.0), row)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None


def _seen(entry: Entry, row: Sequence[Any]) -> Snapshot:
    """The snapshot, with what the monitor concluded: its attempt, its end, the death of its process."""
    kept, snapshot = _kept(row), entry.snapshot
    snapshot = replace(snapshot, attempt=entry.number)
    if snapshot.status.final or not kept.dead:
        return snapshot
    return replace(snapshot, health=Health.DEAD, health_reason="nothing is heard of its process any more")


def _told(event: HistoryEvent) -> Told:
    return Told(event.sequence, event.timestamp, event.event, event.stage, event.text, event.status, event.attributes)


def _attempt(one: dict[str, Any]) -> Attempt:
    ratio, reason = one.get("ratio"), one.get("reason") or one.get("signal")
    return Attempt(one["attempt"], one.get("started_at"), one.get("ended_at"), one.get("status"), ratio, reason)
