"""The two things that are said of an operation: what happened, and what an observer concludes."""

from __future__ import annotations

from enum import Enum
from typing import Final


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

    @classmethod
    def _missing_(cls, value: object) -> Health | None:
        """`Health("stuck")` is `Health.SILENT`: people say stuck, the wire says silent."""
        return cls.SILENT if value == STUCK_WORD else None


STUCK_WORD: Final = "stuck"
"""What people say and read for `Health.SILENT`."""


def word(health: Health) -> str:
    """The word that people read for a verdict: `stuck` for `Health.SILENT`, for the others their value.

    Screens, sentences, filters and the key `verdict` of JSON use it; the wire keeps `silent`. `Health(word(health))`
    is `health` again.
    """
    return STUCK_WORD if health is Health.SILENT else health.value
