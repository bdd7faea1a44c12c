"""What a checkpoint store is: the protocol, its values, and `open_store`.

A store keeps for each operation who holds it, how it stands, which keys are done, and small states of its scopes. A
*scope* is a place in the operation that has keys and a state of its own: the operation itself (the empty text), or a
stage by its path. One process at a time holds an operation, by a lease with a fencing number.
"""

from __future__ import annotations

import os
import re
from typing import Any, Final, Protocol, runtime_checkable

from otel_progress import clock
from otel_progress.durable.holder import Holder, this_process
from otel_progress.durable.kept import (
    LOST,
    RUNNING,
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
)
from otel_progress.errors import InvalidArgument
from otel_progress.model.values import shown

__all__ = [
    "Acquired",
    "Batch",
    "CheckpointStore",
    "Claim",
    "Holder",
    "Keys",
    "Lease",
    "StoredOperation",
    "Summary",
    "Suspect",
    "find_store",
    "open_store",
    "standing",
]


@runtime_checkable
class CheckpointStore(Protocol):
    """Keeps operations. Each method may wait for I/O, may be called in any thread, and may raise `CheckpointError`."""

    def acquire(self, claim: Claim) -> Acquired:
        """Take an operation for a new attempt.

        A death is counted for each key that was in hand when the attempt before died.

        Raises:
            OperationHeld: if another process holds it.
        """
        ...

    def keys(self, id: str, scope: str) -> Keys:
        """The keys of a scope."""
        ...

    def state(self, id: str, scope: str, kind: Kind) -> str | None:
        """A text of a scope, as it was written; None if there is none."""
        ...

    def write(self, lease: Lease, batch: Batch) -> None:
        """Write all of a batch or nothing, and renew the lease.

        Raises:
            LeaseLost: if another attempt has taken the operation.
        """
        ...

    def operation(self, id: str) -> StoredOperation | None:
        """An operation, or None if it is unknown."""
        ...

    def operations(self) -> list[StoredOperation]:
        """All operations; those that were heard of last come first."""
        ...

    def suspects(self, id: str) -> list[Suspect]:
        """The keys that were in hand when a process died and are not done since."""
        ...

    def set_aside(self, id: str, scope: str, key: str) -> None:
        """Have later attempts skip a key."""
        ...

    def release(self, id: str) -> None:
        """Have later attempts try again what was set aside, and forget its deaths."""
        ...

    def died(self, id: str, attempt: int, how: str) -> None:
        """Note how the process of an attempt died, and free its lease.

        An attempt that ended, and a newer one, are left as they are.
        """
        ...

    def forget(self, id: str) -> None:
        """Delete all that is kept of an operation.

        Raises:
            OperationHeld: if a process holds it.
        """
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


_OPTIONS: Final = re.compile(r"\?\w+=")
"""Options of a URL; a SQLite store takes none."""


def open_store(where: Any) -> CheckpointStore:
    """Open a store; the same address gives the same object, as long as it is open.

    Args:
        where: a path, `sqlite:///relative.db`, `sqlite:////absolute.db`, `redis://host:port/0`, or a store.

    Raises:
        InvalidArgument: if that names no store.
        CheckpointError: if it can't be used; the message says what to do.
    """
    if isinstance(where, CheckpointStore):
        return where
    if not isinstance(where, (str, os.PathLike)) or not os.fspath(where):
        raise InvalidArgument(f"a checkpoint store is a path, a URL or a CheckpointStore, not {shown(where)}")
    text = os.fspath(where)
    if not isinstance(text, str):
        raise InvalidArgument(f"the path of a checkpoint store is a text, not {shown(text)}")
    scheme, separator, rest = text.partition("://")
    if separator and rest and scheme in ("redis", "rediss", "unix"):
        from otel_progress.durable import redis

        return redis.opened(text)
    from otel_progress.durable import sqlite

    return sqlite.opened(_file_of(text))


def _file_of(address: str) -> str:
    """The SQLite file of an address; what looks like an address of another kind would be a file of an odd name.

    Raises:
        InvalidArgument: if it names no file.
    """
    scheme, separator, rest = address.partition("://")
    path = address
    if separator:
        path = rest[1:] if scheme == "sqlite" and rest.startswith("/") else ""
    if not path.strip() or path == ":memory:" or path.startswith(("sqlite:", "file:")) or _OPTIONS.search(path):
        raise InvalidArgument(
            f"{shown(_without_password(address))} names no checkpoint store: use a path, sqlite:///work.db, "
            "sqlite:////var/lib/work.db, or redis://localhost:6379/0"
        )
    return path


def _without_password(address: str) -> str:
    """An address without user and password."""
    head, sign, rest = address.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{head}{sign}{authority.rpartition('@')[2]}{slash}{path}"


def find_store(where: str) -> CheckpointStore | None:
    """The store at an address; None if its file does not exist, which opening it would create.

    Raises:
        InvalidArgument: if the address is invalid.
        CheckpointError: if it can't be used; the message says what to do.
    """
    path = where.removeprefix("sqlite:///")
    return open_store(where) if "://" in path or os.path.exists(path) else None


def standing(found: StoredOperation) -> str:
    """How an operation stands now: `running` if a process holds it, `lost` if that is gone, else how it ended."""
    if found.status != RUNNING:
        return found.status
    return RUNNING if held(found, this_process(), clock.unix(), clock.monotonic()) else LOST
