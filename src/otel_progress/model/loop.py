"""Whether the same steps come again and again: one step, or a cycle of up to eight."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from otel_progress.model.values import EMPTY, Attributes

CYCLE: Final = 8
"""The longest cycle that is recognised, in steps."""


def _empty() -> Attributes:
    return EMPTY


@dataclass(frozen=True)
class Loop:
    """What repeats without new progress.

    Attributes:
        kind: `step` (by `step(key)`), `stage` (the same stages), `failure` (the same stage fails), `usage` (only
            tokens and cost grow).
        keys: the steps of one turn, in their order; empty for `usage`.
        repeats: how often they came in a row.
        limit: how many repeats were allowed.
        seconds: since the last completed unit, or since it began.
        spent: tokens and cost since then.
    """

    kind: str
    keys: tuple[str, ...] = ()
    repeats: int = 0
    limit: int = 0
    seconds: float = 0.0
    spent: Attributes = field(default_factory=_empty)

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
    """The last steps, and for each length of a cycle for how long it has held; constant memory.

    `_held[p - 1]` counts the steps in a row that were the same as the one `p` steps before.
    """

    __slots__ = ("_held", "_recent")

    def __init__(self) -> None:
        """No step yet."""
        self._recent: list[str] = []
        self._held = [0] * CYCLE

    def add(self, key: str) -> None:
        """One more step."""
        held, recent = self._held, self._recent
        for place, earlier in enumerate(recent):
            held[place] = held[place] + 1 if earlier == key else 0
        self._recent = [key, *recent[: CYCLE - 1]]  # never changed in place: several threads may take steps

    def found(self, limit: int) -> tuple[tuple[str, ...], int] | None:
        """The shortest cycle that came at least `limit` times in a row, and how often; None without one."""
        for period, held in enumerate(self._held, 1):
            repeats = held // period + 1
            if held and repeats >= limit:
                return tuple(reversed(self._recent[:period])), repeats
        return None
