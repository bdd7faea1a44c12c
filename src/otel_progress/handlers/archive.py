"""An archive: keeps the updates of operations, and answers what became of one, after a restart, too."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from otel_progress.errors import InvalidArgument
from otel_progress.handlers.archive_stores import Addition, Archived, ArchiveStore, RedisArchive, SqliteArchive
from otel_progress.handlers.handler import EXIT_SECONDS, Handler
from otel_progress.handlers.operation_row import event_json, json_text
from otel_progress.live.engine import runtime
from otel_progress.model import values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from otel_progress.model.snapshot import Event

__all__ = ["Archive", "Archived", "archive"]

KEEP_DAYS: Final = 30.0
MOST: Final = 10_000
"""The most operations that are kept, by default."""
FOR_EVER: Final = 36_500.0


class Archive(Handler):
    """Keeps every change, and each update of counts as far as the store keeps up; `of(id)` returns what it has.

    Of each operation it keeps the last snapshot and at most 1,000 events, in a file at most 100,000 events in all;
    beyond that the oldest go. An archive can be read whether or not it was started.

    Args:
        where: `memory`, `sqlite:///relative.db`, `sqlite:////absolute.db`, or `redis://host:port/0`.
        keep_days: days after its last event for which an operation is kept.
        most: the most operations that are kept; those heard of longest ago go first.

    Raises:
        InvalidArgument: if an argument is invalid.
        ProgressError: if the file can't be used.
        MissingDependency: if the client for Redis is not installed.
    """

    def __init__(self, where: str = "memory", *, keep_days: float = KEEP_DAYS, most: int = MOST) -> None:
        """Open the store; Redis need not be there yet."""
        if isinstance(keep_days, bool) or not isinstance(keep_days, (int, float)) or not 0 < keep_days <= FOR_EVER:
            raise InvalidArgument(f"keep_days must be above 0 and at most {FOR_EVER:,.0f}, not {keep_days!r}")
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise InvalidArgument(f"most must be a whole number above 0, not {most!r}")
        scheme, separator, rest = where.partition("://") if isinstance(where, str) else ("", "", "")
        if where == "memory":
            self._store: ArchiveStore = SqliteArchive(None, keep_days, most)
        elif scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
            self._store = SqliteArchive(rest[1:], keep_days, most)
        elif separator and scheme in ("redis", "rediss", "unix"):
            self._store = RedisArchive(where, self.pause, keep_days, most)
        else:
            raise InvalidArgument(
                "an archive is memory, sqlite:///runs.db, sqlite:////var/lib/runs.db or redis://localhost:6379/0; what "
                "was given is not shown here, as it may hold a password"
            )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Archive:
        """Make it from `OTEL_PROGRESS_ARCHIVE_URL` and `_KEEP_DAYS`.

        Raises:
            InvalidArgument: if there is no URL, or a variable is invalid.
        """
        where, days = environ.get("OTEL_PROGRESS_ARCHIVE_URL"), environ.get("OTEL_PROGRESS_ARCHIVE_KEEP_DAYS")
        if not where:
            raise InvalidArgument("set OTEL_PROGRESS_ARCHIVE_URL, as in sqlite:///runs.db")
        try:
            return cls(where, keep_days=float(days) if days else KEEP_DAYS)
        except ValueError as error:
            if isinstance(error, InvalidArgument):
                raise
            raise InvalidArgument(f"OTEL_PROGRESS_ARCHIVE_KEEP_DAYS must be a number, not {days!r}") from None

    def of(self, operation_id: str) -> Archived | None:
        """What is kept of an operation, this moment included; None if nothing is.

        Args:
            operation_id: the id, as it was given to `operation`; one that was too long is shortened as it was there.

        Raises:
            InvalidArgument: if it is no id.
            ProgressError: if the store can't be read.

        Example:
            `archive("sqlite:///runs.db").of("survey-1").status`
        """
        if isinstance(operation_id, bool) or not isinstance(operation_id, (str, int)):
            raise InvalidArgument(f"operation_id must be the id of an operation, not {values.shown(operation_id)}")
        with self._caught_up():
            return self._store.of(values.text(operation_id, values.Drops(), values.NAME_LENGTH))

    def ids(self, most: int = 100) -> list[str]:
        """The ids of the operations that were heard of last, the newest first.

        Raises:
            InvalidArgument: if `most` is no whole number above 0.
            ProgressError: if the store can't be read.
        """
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise InvalidArgument(f"most must be a whole number above 0, not {values.shown(most)}")
        with self._caught_up():
            return self._store.ids(most)

    def handle(self, event: Event) -> None:
        """Keep an event."""
        seen = event.snapshot
        whole = seen.to_dict()
        brief = {key: whole[key] for key in ("status", "percentage", "current_step")}
        said = json_text({**event_json(event), **brief})
        self._store.add(
            Addition(seen.operation_id, seen.name, seen.status.value, seen.timestamp, json_text(whole), said)
        )

    def closed(self) -> None:
        """Close the file or the connection."""
        self._store.close()

    @contextmanager
    def _caught_up(self) -> Iterator[None]:
        """Wait until what happened so far is kept, for a second at most; an archive that only reads is closed after."""
        thread = self._thread
        if self._running and thread is not threading.current_thread():
            runtime.ticker.ask(runtime.ticker.round, EXIT_SECONDS / 2)
            self._exit(EXIT_SECONDS)
        try:
            yield
        finally:
            if not self._running:
                self._store.close()


def archive(where: str = "memory", *, keep_days: float = KEEP_DAYS, most: int = MOST) -> Archive:
    """An archive; see `Archive`.

    Example:
        `with archive("sqlite:///runs.db") as kept: work(); print(kept.of("survey-1").status)`
    """
    return Archive(where, keep_days=keep_days, most=most)
