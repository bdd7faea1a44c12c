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

    @property
    def counted(self) -> int:
        """The number of the attempt over all processes; 1 if its emitter names none, or counts those of its process."""


def is_same_attempt(one: Said, other: Said, same_process: bool) -> bool:
    """Whether both belong to one attempt; before its start, an attempt is identified by its number and process.

    Within a process a start of less than a second later is the same one, unless the first run was over by then. What
    another process says of the same start after the end is a run of its own, unless it is an end that an observer saw.
    """
    if one.attempt != other.attempt:
        return False
    if one.started_at == other.started_at and same_process:
        return True
    if one.started_at is None or other.started_at is None:
        return same_process
    if is_same_start(one, other):
        return same_process or not (_ran_later(one, other) or _ran_later(other, one))
    apart = _apart(one.started_at, other.started_at)
    return same_process and apart < JITTER and not (_is_over(one, other) or _is_over(other, one))


def is_same_start(one: Said, other: Said) -> bool:
    """Whether both name one start, as far as rounding allows."""
    if one.started_at is None or other.started_at is None:
        return False
    return _apart(one.started_at, other.started_at) <= ROUNDED


def _apart(one: float, other: float) -> float:
    """The seconds between two times since 1970, without what their floats can't hold."""
    return round(abs(one - other), _DIGITS)


def _is_over(one: Said, other: Said) -> bool:
    """Whether one had ended when the other began."""
    return one.status.final and other.started_at is not None and one.timestamp <= other.started_at


def _ran_later(end: Said, other: Said) -> bool:
    """Whether another process ran it when this run had ended; one that says how it was lost only saw the end."""
    return end.status.final and other.status is not Status.LOST and other.timestamp > end.timestamp


def began_later(one: Said, known: Said) -> bool:
    """Whether it is of a later attempt of the same process."""
    return not is_same_attempt(one, known, same_process=True) and _run(one) > _run(known)


def _run(said: Said) -> tuple[int, float]:
    return said.attempt, said.timestamp if said.started_at is None else said.started_at


def is_older(one: Said, known: Said) -> bool:
    """Whether an attempt in one process is older than a known one in another process.

    The number decides, whatever the clocks say; then the start, and if that is the same, what happened later. That an
    attempt without a number counts as the first makes this an order: by start alone, one without could be newer than
    the second of two with a number, and older than the first.
    """
    if one.counted != known.counted:
        return one.counted < known.counted
    return _place(one, known) < _place(known, one)


def _place(one: Said, other: Said) -> tuple[float, int, float]:
    began, others = (said.timestamp if said.started_at is None else said.started_at for said in (one, other))
    return (min(began, others) if _apart(began, others) <= ROUNDED else began, one.attempt, one.timestamp)
