"""Detection of repeated steps: one step, or a cycle of up to eight."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from otel_progress.model.values import Attributes, no_attributes

CYCLE: Final = 8
"""Length of the longest cycle that is detected, in steps."""


@dataclass(frozen=True)
class Loop:
    """A cycle that repeats without new progress.

    Attributes:
        kind: `step` (by `step(key)`), `stage` (the same stages), `failure` (the same stage fails), `usage` (only
            tokens and cost grow).
        keys: the steps of one cycle, in order; empty for `usage`.
        repeats: how often the cycle came in a row.
        limit: the number of repeats that is allowed.
        seconds: time since the last completed unit, or since the loop began.
        spent: tokens and cost since that time.
    """

    kind: str
    keys: tuple[str, ...] = ()
    repeats: int = 0
    limit: int = 0
    seconds: float = 0.0
    spent: Attributes = field(default_factory=no_attributes)

    @property
    def what(self) -> str:
        """What repeats, the same text while the loop lasts: without a number, from the alphabetically first step on."""
        if self.kind == "usage":
            return "only tokens or cost grew"
        keys = min((self.keys[at:] + self.keys[:at] for at in range(len(self.keys))), default=())
        return " → ".join(keys) + (" failed" if self.kind == "failure" else "")

    @property
    def reason(self) -> str:
        """The evidence in words."""
        if self.kind == "usage":
            text = "only tokens or cost grew,"
        else:
            what = " → ".join(self.keys)
            text = f"{what} {'failed' if self.kind == 'failure' else 'came'} {self.repeats} times in a row"
        text += f" with no new progress for {self.seconds:.0f} s"
        if self.limit:
            text += f", loop_after is {self.limit}"
        return text


class Steps:
    """The last steps, and how long each cycle length has held; uses constant memory.

    `_held[p - 1]` counts the consecutive steps that equal the step `p` positions before them.
    """

    __slots__ = ("_held", "_recent")

    def __init__(self) -> None:
        """Start without steps."""
        self._recent: list[str] = []
        self._held = [0] * CYCLE

    def add(self, key: str) -> None:
        """Add a step."""
        held, recent = self._held, self._recent
        for position, earlier in enumerate(recent):
            held[position] = held[position] + 1 if earlier == key else 0
        self._recent = [key, *recent[: CYCLE - 1]]  # replaced, not modified: several threads may add steps

    def found(self, limit: int) -> tuple[tuple[str, ...], int] | None:
        """Return the shortest cycle that came at least `limit` times in a row, and its repeats; None without one."""
        for period, held in enumerate(self._held, 1):
            repeats = held // period + 1
            if held and repeats >= limit:
                return tuple(reversed(self._recent[:period])), repeats
        return None
