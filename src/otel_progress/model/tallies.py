"""Counts by a text that the job gives, for a bounded number of texts: outcomes by component, failures by message.

Failures are counted by Space-Saving: a message that comes more often than one in `COUNTERS` is always found.

Metwally, Agrawal, El Abbadi: "Efficient computation of frequent and top-k elements in data streams", ICDT 2005.
"""

from __future__ import annotations

from typing import Final

from otel_progress import semconv

COMPONENTS: Final = 32
"""Components with counts of their own; others are counted under `_other`."""
MESSAGES: Final = 32
"""Messages of failures that are told, the most frequent; one place is for all others, `_other`."""
COUNTERS: Final = 256
"""Messages of failures that are counted one by one."""
OUTCOMES: Final = 16
"""Outcomes of a component with a count of their own; others are counted under `_other`."""


class Tallies(dict[str, dict[str, int]]):
    """Outcomes by component."""

    __slots__ = ()

    def add(self, component: str, outcome: str, count: int = 1) -> None:
        """Add outcomes of a component."""
        if component not in self and len(self) >= COMPONENTS:
            component = semconv.OTHER_STAGE
        counts = self.setdefault(component, {})
        if outcome not in counts and len(counts) >= OUTCOMES:
            outcome = semconv.OTHER_STAGE
        counts[outcome] = counts.get(outcome, 0) + count


class Failures:
    """Failures by message.

    Up to `COUNTERS` messages are counted exactly. A new one of more takes the place of the rarest, and counts from
    there: what it may have been before is its `error`. So a count without its error is never too high, and too low by
    at most a share of 1/`COUNTERS` of all failures.
    """

    __slots__ = ("counts", "errors", "levels", "others", "total")

    def __init__(self) -> None:
        """None yet."""
        self.counts: dict[str, int] = {}
        self.errors: dict[str, int] = {}
        self.levels: dict[int, dict[str, None]] = {}
        """Messages by their count, so that the rarest is found without a search through all."""
        self.total = 0
        self.others = 0
        """Failures that somebody else counted under `_other`."""

    def __len__(self) -> int:
        """How many messages are counted one by one."""
        return len(self.counts)

    def __bool__(self) -> bool:
        """Whether there was any failure."""
        return self.total > 0

    def add(self, message: str, count: int = 1) -> None:
        """Add failures with this message."""
        if count <= 0:
            return
        self.total += count
        if message == semconv.OTHER_STAGE:
            self.others += count
            return
        before = self.counts.get(message)
        if before is None:
            before = self._replace_rarest() if len(self.counts) >= COUNTERS else 0
            if before:
                self.errors[message] = before
        else:
            self._leave(before, message)
        self.counts[message] = before + count
        self.levels.setdefault(before + count, {})[message] = None

    def top(self, most: int) -> tuple[tuple[str, int], ...]:
        """Return the most frequent messages with counts that are not too high; then the rest as `_other`, if any."""
        sure = ((message, count - self.errors.get(message, 0)) for message, count in self.counts.items())
        ranked = sorted(sure, key=lambda item: -item[1])[:most]
        rest = self.total - sum(count for _, count in ranked)
        return (*ranked, (semconv.OTHER_STAGE, rest)) if rest else tuple(ranked)

    def _replace_rarest(self) -> int:
        """Give up the message that is rarest for longest; returns its count."""
        least = min(self.levels)
        rarest = next(iter(self.levels[least]))
        self._leave(least, rarest)
        del self.counts[rarest]
        self.errors.pop(rarest, None)
        return least

    def _leave(self, level: int, message: str) -> None:
        messages = self.levels[level]
        del messages[message]
        if not messages:
            del self.levels[level]
