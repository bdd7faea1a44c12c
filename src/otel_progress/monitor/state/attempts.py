"""Which events belong to one attempt: an emitter may round its start time in one event otherwise than in another."""

from __future__ import annotations

from typing import Final, Protocol

from otel_progress.model.status import Status

ROUNDED: Final = 0.001
"""Seconds by which start times of one attempt may differ in any case: some are rounded to the millisecond."""
JITTER: Final = 1.0
"""Seconds within which start times of one process are those of one attempt: some are rounded to the second."""
_DIGITS: Final = 5
"""The digits of a difference of two times since 1970 that are exact."""


class Said(Protocol):
    """What an event says of its attempt; named as in `Head`."""

    @property
    def status(self) -> Status:
        """The status of its operation."""

    @property
    def timestamp(self) -> float:
        """When it happened, in Unix seconds."""

    @property
    def attempt(self) -> int:
        """The number of the attempt, as its process counts."""

    @property
    def started_at(self) -> float | None:
        """When the attempt began, in Unix seconds; None if it has not, or if that is unknown."""


def is_same_attempt(one: Said, other: Said, same_process: bool) -> bool:
    """Whether both belong to one attempt; before its start, an attempt is identified by its number and process.

    Within a process a start of less than a second later is the same one, unless the first run was over by then.
    """
    if one.attempt != other.attempt:
        return False
    if one.started_at is None or other.started_at is None:
        return same_process
    apart = round(abs(one.started_at - other.started_at), _DIGITS)
    if apart <= ROUNDED:
        return True
    return same_process and apart < JITTER and not (_is_over(one, other) or _is_over(other, one))


def _is_over(one: Said, other: Said) -> bool:
    """Whether one had ended when the other began."""
    return one.status.final and other.started_at is not None and one.timestamp <= other.started_at
