"""Counts by a text that the job gives, for a bounded number of texts: outcomes by component, failures by message."""

from __future__ import annotations

from typing import Final

from otel_progress import semconv

COMPONENTS: Final = 32
"""Components with counts of their own; others are counted under `_other`."""
MESSAGES: Final = 32
"""Messages of failures with a count of their own; the rarest of more is counted under `_other`."""
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


class Failures(dict[str, int]):
    """Failures by message."""

    __slots__ = ()

    def add(self, message: str, count: int = 1) -> None:
        """Add failures with this message."""
        if message not in self and len(self) >= MESSAGES + (semconv.OTHER_STAGE in self):
            rarest = min((known for known in self if known != semconv.OTHER_STAGE), key=lambda known: self[known])
            self[semconv.OTHER_STAGE] = self.get(semconv.OTHER_STAGE, 0) + self.pop(rarest)
        self[message] = self.get(message, 0) + count

    def top(self, most: int) -> tuple[tuple[str, int], ...]:
        """Return the most frequent messages; `_other` comes last."""
        ranked = sorted(self.items(), key=lambda item: (item[0] == semconv.OTHER_STAGE, -item[1]))
        return tuple(ranked[:most])
