"""The exit codes of `watch`, `list`, `show` and `cancel`."""

from __future__ import annotations

from typing import Final

from otel_progress.errors import ProgressError
from otel_progress.model.status import Status

OK: Final = 0
"""It was told; of one operation: it completed, or it obeyed."""
BAD: Final = 1
"""The operation failed, was lost, cancelled or interrupted; it was not cancelled."""
USAGE: Final = 2
"""The command line can't be meant."""
NO_MONITOR: Final = 3
"""No monitor answers there, or it does not let us in."""
NOT_FOUND: Final = 4
"""No such operation, or none any more."""
INTERRUPTED: Final = 130
"""Ctrl+C; 128 + n for other signals."""


def of_status(status: Status) -> int:
    """Of a command that tells of one operation: 1 where it is over and did not complete."""
    return BAD if status.final and status is not Status.COMPLETED else OK


class CommandError(ProgressError):
    """Why a command ends early, in words for its user, and its exit code."""

    def __init__(self, text: str, code: int) -> None:
        """With the exit code of the command."""
        super().__init__(text)
        self.code = code
