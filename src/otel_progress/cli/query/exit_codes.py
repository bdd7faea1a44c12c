"""The exit codes of `watch`, `list`, `show` and `cancel`."""

from __future__ import annotations

from typing import Final

from otel_progress.errors import ProgressError
from otel_progress.model.status import Status

OK: Final = 0
"""Success; for one operation: it completed, or it stopped when asked to."""
BAD: Final = 1
"""The operation failed, was lost, cancelled or interrupted; for `cancel`: it did not stop."""
USAGE: Final = 2
"""The command line is invalid."""
NO_MONITOR: Final = 3
"""No monitor answers, or it denies access."""
NOT_FOUND: Final = 4
"""There is no such operation, or no longer."""
NO_READER: Final = 141
"""Nobody reads the output any more: 128 + SIGPIPE."""
INTERRUPTED: Final = 130
"""Ctrl+C; 128 + n for other signals."""


def of_status(status: Status) -> int:
    """The exit code of a command about one operation: 1 if it ended and did not complete."""
    return BAD if status.final and status is not Status.COMPLETED else OK


class CommandError(ProgressError):
    """A command ends early: the message for its user, and the exit code."""

    def __init__(self, text: str, code: int) -> None:
        """Create it with the message and the exit code."""
        super().__init__(text)
        self.code = code
