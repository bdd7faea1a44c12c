"""What can be recovered: the operations that a checkpoint store and a monitor know as interrupted or lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from otel_progress.cli.query.client import Client
from otel_progress.cli.query.exit_codes import NOT_FOUND, USAGE, CommandError
from otel_progress.cli.query.rows import Row, items, mapping, number, snapshot_of, stage_progress_of, text
from otel_progress.durable.store import CheckpointStore, StoredOperation, Suspect, find_store, standing
from otel_progress.model.command_line import shell_line, without_secrets
from otel_progress.model.secrets import mask_secrets
from otel_progress.model.snapshot import Progress
from otel_progress.model.status import Status

if TYPE_CHECKING:
    from otel_progress.durable.store import Holder

LOST: Final = (Status.LOST.value, Status.INTERRUPTED.value)
"""What the monitor is asked for."""
UNFINISHED: Final = (*LOST, Status.FAILED.value)
"""What can be resumed from a store."""
ASKED: Final = 200
"""The most operations that the monitor is asked for."""
SAME: Final = 2.0
"""Seconds by which the store and the monitor may differ on when an attempt started."""


@dataclass(frozen=True)
class Recoverable:
    """An operation that did not come to its end.

    Attributes:
        id: its id.
        name: its name.
        status: `lost`, `interrupted`, or `failed`; or `completed`, if keys were set aside.
        reason: how it ended.
        attempt: the number of its newest attempt.
        started_at: when that began (s, Unix).
        ended_at: when it ended, or was last heard of (s, Unix).
        progress: how far it was.
        stage: the path of the stage in which it was.
        message: what it was doing.
        stuck_at: the line where it was stuck, if it was.
        checkpoint_at: when it last saved something (s, Unix).
        host: its machine.
        pid: its process.
        command: the command line that started it.
        folder: the working directory of that.
        suspects: the keys that were in hand when it died.
        holder: its process according to the store; None if only the monitor knows it.
        trace_id: its trace.
    """

    id: str
    name: str
    status: str
    reason: str | None = None
    attempt: int = 1
    started_at: float = 0.0
    ended_at: float = 0.0
    progress: Progress = field(default_factory=Progress)
    stage: str | None = None
    message: str | None = None
    stuck_at: str | None = None
    checkpoint_at: float | None = None
    host: str | None = None
    pid: int | None = None
    command: tuple[str, ...] = ()
    folder: str = ""
    suspects: tuple[Suspect, ...] = ()
    holder: Holder | None = field(default=None, compare=False)
    trace_id: str | None = None

    @property
    def line(self) -> str:
        """The line that starts it again in a POSIX shell, without secrets; empty if its command is unknown."""
        return shell_line(self.shown, self.folder) if self.command else ""

    @property
    def shown(self) -> tuple[str, ...]:
        """The command line without secrets."""
        return without_secrets(self.command, mask_secrets)

    def to_json(self) -> dict[str, Any]:
        """All that is known, as JSON."""
        progress = self.progress
        found = {
            **{name: getattr(self, name) for name in _PLAIN},
            "completed": progress.completed,
            "total": progress.total,
            "unit": progress.unit if progress.completed is not None else None,
            "ratio": progress.ratio,
            "command": list(self.shown) or None,
            "line": self.line or None,
            "folder": self.folder or None,
            "in_store": self.holder is not None,
            "suspects": [vars(suspect) for suspect in self.suspects] or None,
        }
        return {key: value for key, value in found.items() if value is not None}


_PLAIN: Final = (
    *("id", "name", "status", "reason", "attempt", "started_at", "ended_at", "stage", "message", "stuck_at"),
    *("checkpoint_at", "host", "pid", "trace_id"),
)


def opened(where: str) -> CheckpointStore:
    """The store at an address; a file that does not exist is not created.

    Raises:
        CommandError: if there is none.
        InvalidArgument: if the address is invalid.
        CheckpointError: if it can't be used.
    """
    store = find_store(where)
    if store is None:
        raise CommandError(f"there is no checkpoint store {where}: check the path, or run a job that writes it", USAGE)
    return store


def of_store(store: CheckpointStore) -> Iterator[Recoverable]:
    """What the store knows as unfinished, or as completed without what was set aside; the newest first."""
    for stored in store.operations():
        status = standing(stored)
        if status in UNFINISHED:
            yield _stored(stored, status, store.suspects(stored.id))
        elif status == Status.COMPLETED.value:
            aside = [suspect for suspect in store.suspects(stored.id) if suspect.aside]
            if aside:
                yield _stored(stored, status, aside)


def _stored(stored: StoredOperation, status: str, suspects: Iterable[Suspect]) -> Recoverable:
    far, holder = stored.summary, stored.holder
    ratio = far.completed / far.total if far.completed is not None and far.total else None
    return Recoverable(
        stored.id,
        stored.name,
        status,
        stored.reason or ("its process is gone" if status == Status.LOST.value else None),
        stored.attempt,
        stored.started_at,
        stored.ended_at or stored.seen_at,
        Progress(far.completed, far.total, far.unit or "item", ratio),
        far.stage,
        far.message,
        None,
        stored.checkpoint_at,
        holder.host,
        holder.pid,
        holder.command,
        holder.cwd,
        tuple(suspects),
        holder,
        stored.trace_id,
    )


def of_monitor(client: Client) -> Iterator[Recoverable]:
    """What the monitor knows as lost or interrupted, the newest first, without those that a parent starts again."""
    rows = items(client.operations(limit=ASKED, status=",".join(LOST)).get("operations"))
    ids = {text(row.get("id")) for row in rows}
    for row in rows:
        if text(row.get("id")) and text(row.get("parent_id")) not in ids:
            yield _reported(row)


def with_monitor(client: Client, one: Recoverable) -> Recoverable | None:
    """Add what the monitor knows; None if it knows of a newer attempt that runs, or came to its end."""
    try:
        detail = client.operation(one.id)
    except CommandError as error:
        if error.code != NOT_FOUND:
            raise
        return one
    reported = _reported(detail)
    if one.holder is None or reported.started_at > one.started_at + SAME:
        return reported if reported.status in LOST else None
    if reported.started_at < one.started_at - SAME or one.status == Status.COMPLETED.value:
        return one
    return replace(
        one,
        reason=reported.reason or one.reason,
        attempt=max(one.attempt, reported.attempt),
        ended_at=reported.ended_at,
        progress=_further(one.progress, reported.progress),
        stage=reported.stage or one.stage,
        message=reported.message or one.message,
        stuck_at=reported.stuck_at,
        command=one.command or reported.command,
        folder=one.folder or reported.folder,
    )


def _further(stored: Progress, reported: Progress) -> Progress:
    """The later of two counts: the monitor hears less often than the store, and tells more."""
    if reported.completed is None:
        return stored
    same = stored.completed is not None and (stored.unit, stored.total) == (reported.unit, reported.total)
    return stored if same and stored.completed > reported.completed else reported  # type: ignore[operator] # checked


def _reported(row: Row) -> Recoverable:
    """From a row of the monitor, or from a detail, which has the command as well."""
    seen = snapshot_of(row)
    pid, command = number(row.get("pid")), mapping(row.get("command"))
    given = command.get("args")
    own = seen.progress
    return Recoverable(
        seen.operation_id,
        seen.name,
        seen.status.value,
        seen.reason,
        seen.attempt,
        seen.started_at or 0.0,
        seen.timestamp,
        own if own.completed or own.ratio else stage_progress_of(row),
        text(row.get("stage")),
        text(mapping(row.get("progress")).get("current_step")),
        seen.stuck_at,
        number(row.get("checkpoint_at")),
        text(row.get("host")),
        None if pid is None else int(pid),
        tuple(map(str, given)) if isinstance(given, list) else (),
        text(command.get("folder")) or "",
        trace_id=text(mapping(row.get("trace")).get("trace_id")),
    )


def chosen(found: Iterable[Recoverable], given: Iterable[str]) -> list[Recoverable]:
    """Those that were asked for, by id, by the beginning of an id, or by name; all, if none was named.

    Raises:
        CommandError: if there is none for a word, or more than one.
    """
    everything = list(found)
    wanted: dict[str, Recoverable] = {}
    for word in given:
        fits = [one for one in everything if one.id == word] or [
            one for one in everything if one.id.startswith(word) or one.name == word
        ]
        if not fits:
            raise CommandError(
                f"{word!r} is not known as interrupted or lost; `otel-progress recover` lists what is", NOT_FOUND
            )
        if len(fits) > 1 and any(one.name != word for one in fits):
            raise CommandError(f"{word!r} may be {', '.join(one.id for one in fits[:8])}: give more of the id", USAGE)
        wanted |= {one.id: one for one in fits}
    return list(wanted.values()) if wanted else everything
