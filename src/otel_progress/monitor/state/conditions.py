"""One word for how an operation is: what lists group, mark, count and filter by. No other place decides it."""

from __future__ import annotations

from typing import Final, NamedTuple

from otel_progress.model.status import STUCK_WORD, Health, Status, word


class Label(NamedTuple):
    """A verdict without its evidence.

    Attributes:
        health: the verdict.
        overdue: whether a declared wait is past its own limit.
        frozen: whether its process is dead, and proven to be stopped.
    """

    health: Health
    overdue: bool = False
    frozen: bool = False


_OPEN: Final = (
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
"""The words for those that are not over, the worst first."""
TROUBLE: Final = frozenset(_OPEN[: _OPEN.index("slow") + 1])
"""The words that lists mark and headers count as trouble. What ended is no trouble any more: its status says how."""
ENDED: Final = tuple(status.value for status in Status if status.final and status is not Status.SKIPPED)
STATES: Final = (*_OPEN, *ENDED)
RANKS: Final = {word: rank for rank, word in enumerate(STATES)}
ANY_TROUBLE: Final = "trouble"
"""The filter word that stands for all of `TROUBLE`."""
_ALSO: Final = {Health.SILENT.value: (STUCK_WORD,), "dead": ("dead", "frozen"), ANY_TROUBLE: tuple(TROUBLE)}
WORDS: Final = frozenset({*_OPEN, *_ALSO})
"""The words that a filter takes."""


def state_of(status: Status, label: Label) -> str:
    """How it is, in one of `STATES`: the status of one that is over, else what is concluded of it."""
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
    """The states that filter words stand for: `silent` is `stuck`, and `dead` finds those that are frozen, too."""
    return frozenset(state for word in words for state in _ALSO.get(word, (word,)))
