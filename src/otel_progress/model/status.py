"""The two things that are said of an operation: what happened, and what an observer concludes."""

from __future__ import annotations

from enum import Enum


class Status(str, Enum):
    """What happened to an operation or a stage."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    INTERRUPTED = "interrupted"
    SKIPPED = "skipped"
    """Only of a planned stage: it never ran, and its operation is over or past it."""

    __str__ = str.__str__

    @property
    def final(self) -> bool:
        """Whether nothing can follow it."""
        return self not in _OPEN


_OPEN = frozenset({Status.PENDING, Status.RUNNING, Status.WAITING})


class Health(str, Enum):
    """What an observer concludes about an operation that is not over."""

    PROGRESSING = "progressing"
    WAITING = "waiting"
    SLOW = "slow"
    SILENT = "silent"
    LOOPING = "looping"
    DEAD = "dead"
    UNKNOWN = "unknown"

    __str__ = str.__str__
