"""What to conclude about an operation: one pure function of (snapshot, now)."""

from __future__ import annotations

from dataclasses import dataclass

from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Health, Status


@dataclass(frozen=True)
class Verdict:
    """A conclusion with its evidence.

    Attributes:
        health: the conclusion.
        limit: which limit decided (`stall_after`, `slow_after`, `start_within`, `overdue_after`), or None.
        seconds: what was measured against the limit.
        allowed: the limit, in seconds.
        overdue: whether a declared wait is past its own limit.
    """

    health: Health
    limit: str | None = None
    seconds: float = 0.0
    allowed: float | None = None
    overdue: bool = False

    @property
    def reason(self) -> str | None:
        """The evidence in words."""
        if self.limit is None or self.allowed is None:
            return None
        what = _WORDS[self.limit]
        return f"{what} {self.seconds:.0f} s, {self.limit} is {self.allowed:g} s"

    @property
    def troubled(self) -> bool:
        """Whether somebody should look."""
        return self.health not in (Health.PROGRESSING, Health.WAITING) or self.overdue


_WORDS = {
    "stall_after": "no progress for",
    "slow_after": "running for",
    "start_within": "not started for",
    "overdue_after": "waiting for",
}


def judge(snapshot: Snapshot, now: float) -> Verdict:
    """The verdict on a snapshot at `now` (seconds since 1970), if nothing was heard of it since.

    A limit counts as reached at exactly its value. A declared wait stops the stuck clock; silence
    outranks slowness. A final status has no health of its own: it counts as progressing.
    """
    seen = snapshot.at(now)
    if seen.status.final:
        return Verdict(Health.PROGRESSING)
    if seen.status is Status.PENDING:
        if seen.start_within is not None and seen.elapsed >= seen.start_within:
            return Verdict(Health.SLOW, "start_within", seen.elapsed, seen.start_within)
        return Verdict(Health.WAITING)
    if seen.wait is not None:
        limit = seen.wait.overdue_after
        overdue = limit is not None and seen.wait.elapsed >= limit
        return Verdict(Health.WAITING, "overdue_after", seen.wait.elapsed, limit, overdue)
    if seen.stall_after is not None and seen.idle >= seen.stall_after:
        return Verdict(Health.SILENT, "stall_after", seen.idle, seen.stall_after)
    if seen.slow_after is not None and seen.elapsed >= seen.slow_after:
        return Verdict(Health.SLOW, "slow_after", seen.elapsed, seen.slow_after)
    return Verdict(Health.PROGRESSING, "stall_after", seen.idle, seen.stall_after)
