"""Scheduled integrity checks of the store's file, while it is in use.

A page that a disk, another program or a person overwrote is noticed only when it is read. So all pages are read from
time to time, table by table, on a connection of its own that does not block others.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from otel_progress import clock
from otel_progress.errors import ProgressError

if TYPE_CHECKING:
    from otel_progress.monitor.state.store import Store

FIRST: Final = 60.0
"""Seconds from the start to the first check."""
EVERY: Final = 3600.0
AGAIN: Final = 60.0
"""Seconds from an aborted check to the next one."""
SHOWN: Final = 200
_ADVICE: Final = (
    "new data is still accepted, but may be lost: stop the monitor, keep the file for analysis, and start with an "
    "earlier copy of it, or with another --db"
)


class Integrity:
    """Checks a store from time to time, in a thread of its own.

    Attributes:
        damage: what is wrong with the file and what to do, as of the last check; None if nothing was found.
        looked_at: when it was last checked, in Unix seconds; None before the first check.
        seconds: how long that took.
    """

    def __init__(self, store: Store, on_damage: Callable[[str | None], None], *, every: float = EVERY) -> None:
        """`on_damage` is called after each check."""
        self.damage: str | None = None
        self.looked_at: float | None = None
        self.seconds = 0.0
        self._store = store
        self._on_damage = on_damage
        self._every = every
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otel-progress-integrity", daemon=True)

    def start(self) -> None:
        """Start; the first check follows soon."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Stop; a running check is aborted."""
        self._stopped.set()
        self._store.interrupt()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def look(self) -> bool:
        """Check now; False if it was aborted, so that nothing is known."""
        began = clock.monotonic()
        try:
            found = damage_of(self._store)
        except (sqlite3.OperationalError, ProgressError):
            return False  # aborted, or not readable, which the writer reports
        self.looked_at, self.seconds = clock.time_ns() / 1e9, clock.monotonic() - began
        self.damage = None if found is None else f"{self._store.path} is damaged ({found[:SHOWN]}): {_ADVICE}"
        self._on_damage(self.damage)
        return True

    def health(self) -> dict[str, Any]:
        """What `/health` says about it."""
        return {"integrity": self._report()}

    def _report(self) -> dict[str, Any]:
        if self.looked_at is None:
            return {"status": "not looked at yet"}
        found: dict[str, Any] = {"status": "damaged" if self.damage else "ok"}
        return {**found, "checked_at": self.looked_at, "seconds": round(self.seconds, 3)}

    def _run(self) -> None:
        wait = min(FIRST, self._every)
        while not self._stopped.wait(wait):
            wait = self._every if self.look() else min(AGAIN, self._every)


def damage_of(store: Store) -> str | None:
    """What is wrong with the pages of a store; None if nothing is.

    Raises:
        sqlite3.OperationalError: if it was aborted.
        StoreError: if the file cannot be opened.
    """
    with store.examining() as db:
        try:
            tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for name in tables:
                quoted = name.replace('"', '""')
                for (said,) in db.execute(f'PRAGMA quick_check("{quoted}")').fetchall():
                    if said != "ok":
                        return str(said)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            return str(error)
    return None
