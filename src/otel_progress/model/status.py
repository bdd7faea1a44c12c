"""Status (what happened to an operation) and health (what an observer concludes about it)."""

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
    """Only for a planned stage: it never ran, and its operation is over or past it."""

    __str__ = str.__str__

    @property
    def final(self) -> bool:
        """Whether no other status can follow."""
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
        """Accept the word shown to people: `Health("stuck")` is `Health.SILENT`."""
        return cls.SILENT if value == STUCK_WORD else None


STUCK_WORD: Final = "stuck"
"""The word shown to people for `Health.SILENT`."""


def word(health: Health) -> str:
    """Return the word shown to people: `stuck` for `Health.SILENT`, the value for all others.

    Screens, sentences, filters and the JSON key `verdict` use it; the wire format keeps `silent`.

    Example:
        `Health(word(Health.SILENT)) is Health.SILENT`
    """
    return STUCK_WORD if health is Health.SILENT else health.value
