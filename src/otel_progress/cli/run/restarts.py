"""When a command is started again: the option `--restart`, the back-off, and the reasons not to restart. Pure."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from otel_progress.cli.parsing import whole
from otel_progress.model.status import Status
from otel_progress.model.units import duration
from otel_progress.outbound.backoff import Backoff
from otel_progress.outbound.certificate import Exit

if TYPE_CHECKING:
    from otel_progress.model.snapshot import Snapshot

ON_FAILURE: Final = "on-failure"
BACKOFF: Final = Backoff(first=1.0, longest=60.0)
"""The pauses before restarts: 1 s, doubling up to 60 s."""
STEADY: Final = 300.0
"""Seconds that a command must have run for the pauses to begin again at the first one."""
MOST: Final = 1_000_000
_OF_A_STALL: Final = ", stall_after is "
"""What the reason contains if the stall policy of an operation stopped it (`model/health.py`)."""


@dataclass(frozen=True)
class RestartPolicy:
    """What `--restart` asks for.

    Attributes:
        most: the most restarts; None for any number.
        backoff: the pauses before restarts.
    """

    most: int | None = None
    backoff: Backoff = field(default=BACKOFF)


def restart_policy(text: str) -> RestartPolicy:
    """Read the value of `--restart`: `on-failure`, or `on-failure:N`."""
    when, colon, count = text.partition(":")
    if when != ON_FAILURE:
        raise argparse.ArgumentTypeError(f"must be {ON_FAILURE} or {ON_FAILURE}:N, as in {ON_FAILURE}:5, not {text!r}")
    return RestartPolicy(whole(1, MOST, f" after {ON_FAILURE}:")(count) if colon else None)


@dataclass(frozen=True)
class StartResult:
    """How one start of the command ended.

    Attributes:
        exit: its exit code or signal; neither if it could not be started.
        ran: seconds from its start to its end.
        unfinished: its outermost operations that did not complete.
    """

    exit: Exit
    ran: float
    unfinished: tuple[Snapshot, ...] = ()

    @property
    def words(self) -> str:
        """The end in words, without a subject."""
        if self.exit.signal is not None:
            said = f"was killed by {self.exit.signal}"
        else:
            said = f"ended with exit code {self.exit.code}"
        return said + (", out of memory," if self.exit.out_of_memory else "") + f" after {duration(self.ran)}"


class Restarts:
    """Counts the restarts of one command, and decides on the next one."""

    def __init__(self, policy: RestartPolicy) -> None:
        """No restart was made yet."""
        self._policy = policy
        self._failures = 0
        self.made = 0

    @property
    def count(self) -> str:
        """The last restart and the limit in words: `restart 2 of 5`."""
        return f"restart {self.made}" + ("" if self._policy.most is None else f" of {self._policy.most}")

    @property
    def made_words(self) -> str:
        """How many there were: `2 restarts`."""
        return f"{self.made} {'restart' if self.made == 1 else 'restarts'}"

    def against(self, result: StartResult, asked: str | None) -> str | None:
        """Why the command is not restarted; None if it is to be restarted.

        Args:
            result: how its last start ended.
            asked: what asked it to stop, in words.
        """
        if result.exit.code == 0:
            return "it succeeded"
        if asked is not None:
            return asked
        if was_cancelled(result.unfinished):
            return "its operation was asked to stop"
        if self._policy.most is not None and self.made >= self._policy.most:
            return f"{self.made_words} did not help"
        return None

    def next_pause(self, ran: float) -> float:
        """Count a restart; returns the seconds to wait before it, after a start that ran for `ran` seconds."""
        self._failures = 1 if ran >= STEADY else self._failures + 1
        self.made += 1
        return self._policy.backoff.pause(self._failures)


def was_cancelled(unfinished: Iterable[Snapshot]) -> bool:
    """Whether the last operations that did not complete had been asked to stop, so that the failure is their end.

    An operation that its own stall policy stopped does not count: that is a failure.
    """
    found = [one for one in unfinished if one.status is not Status.COMPLETED]
    last = max((one.timestamp for one in found), default=0.0)
    return bool(found) and all(one.cancel_requested and not _was_stuck(one) for one in found if one.timestamp == last)


def _was_stuck(one: Snapshot) -> bool:
    return one.loop is not None or _OF_A_STALL in (one.reason or "")
