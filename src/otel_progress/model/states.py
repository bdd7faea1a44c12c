"""One word for the state of an operation: the words that lists group, mark, count and filter by.

They are defined here only; the monitor and its clients share them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from otel_progress.model.status import STUCK_WORD, Health, Status, word


class Label(NamedTuple):
    """A verdict without its evidence.

    Attributes:
        health: the verdict.
        overdue: whether a declared wait has exceeded its limit.
        frozen: whether its process is dead, and proven to be stopped.
    """

    health: Health
    overdue: bool = False
    frozen: bool = False


OPEN_STATES: Final = (
    STUCK_WORD,
    "looping",
    "frozen",
    "dead",
    "overdue",
    "slow",
    "unknown",
    "waiting",
    "pending",
    "progressing",
)
"""The states of operations that have not ended, the worst first."""
TROUBLE: Final = frozenset(OPEN_STATES[: OPEN_STATES.index("slow") + 1])
"""The states that lists mark and headers count as trouble; an ended operation is none, its status says how it ended."""
ENDED: Final = tuple(status.value for status in Status if status.final and status is not Status.SKIPPED)
"""The states of operations that have ended: their final status."""
STATES: Final = (*OPEN_STATES, *ENDED)
RANKS: Final = {state: rank for rank, state in enumerate(STATES)}
"""The order of states in lists."""
ANY_TROUBLE: Final = "trouble"
"""The filter word for all of `TROUBLE`."""
_ALSO: Final = {Health.SILENT.value: (STUCK_WORD,), "dead": ("dead", "frozen"), ANY_TROUBLE: tuple(TROUBLE)}
WORDS: Final = frozenset({*OPEN_STATES, *_ALSO})
"""The words that a filter accepts."""


def state_of(status: Status, label: Label) -> str:
    """The state of an operation, one of `STATES`: its final status, or else the verdict on it.

    Example:
        `state_of(Status.RUNNING, Label(Health.SILENT)) == "stuck"`
    """
    if status.final:
        return status.value
    if label.frozen:
        return "frozen"
    if label.overdue:
        return "overdue"
    if status is Status.PENDING and label.health is Health.WAITING:
        return "pending"
    return word(label.health)


def meant(words: frozenset[str]) -> frozenset[str]:
    """The states that filter words select: `silent` selects `stuck`, and `dead` includes `frozen`.

    Example:
        `meant(frozenset({"dead"})) == {"dead", "frozen"}`
    """
    return frozenset(state for word in words for state in _ALSO.get(word, (word,)))
