"""What a handle keeps as the job reported it: waits and notes."""

from __future__ import annotations

from dataclasses import dataclass, field

from otel_progress.model.values import Attributes, no_attributes


@dataclass(frozen=True)
class Wait:
    """A declared wait: its reason, how long it has lasted, and when it is overdue (seconds)."""

    reason: str
    elapsed: float
    overdue_after: float | None = None


@dataclass(frozen=True)
class Note:
    """A line of the activity feed; `timestamp` is in seconds since 1970.

    A note with the status `running` (or `started`, `in progress`) reports an ongoing activity. A later note with the
    same text in the same stage replaces it and keeps its `started_at` (seconds since 1970).
    """

    timestamp: float
    text: str
    status: str | None = None
    stage: str | None = None
    attributes: Attributes = field(default_factory=no_attributes)
    started_at: float | None = None
