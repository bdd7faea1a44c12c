"""Stalls that the monitor concluded, and what was heard since of that time: events that arrive late may refute one.

They may arrive in any order, the newest first as well. What counts are their own times, in the order of the operation.
"""

from __future__ import annotations

import bisect
from typing import Final, NamedTuple

MOMENTS: Final = 1_000
"""The most events of one stall that are remembered; a stall with more stays."""
ALL_MOMENTS: Final = 100_000
"""The most events of all stalls that are remembered; beyond it the oldest stalls stay."""


class Moment(NamedTuple):
    """An event of an operation.

    Attributes:
        sequence: its number in the attempt.
        said: when it happened, by the sender.
        heard: when it was heard.
        mark: a number that changes with everything that is progress.
        moves: whether it is progress by itself.
        waits: whether the operation need not move after it.
    """

    sequence: int
    said: float
    heard: float
    mark: int
    moves: bool = True
    waits: bool = False


class ConcludedStall:
    """A stall: what was heard before it, and since then.

    Attributes:
        limit: the time without progress that was reached, in seconds.
        is_over: whether the operation ended: then nothing else can have happened after its last event.
    """

    def __init__(self, first: Moment, limit: float) -> None:
        """It began after the last progress that was heard; the sequence is that of the newest event by then."""
        self.limit = limit
        self.is_over = False
        self._moments = [first]
        self._is_full = False

    def __len__(self) -> int:
        return len(self._moments)

    def add(self, moment: Moment) -> bool:
        """Note an event; whether it says something new about the stall."""
        place = bisect.bisect_left(self._moments, moment.sequence, key=lambda one: one.sequence)
        if place == 0 or (place < len(self._moments) and self._moments[place].sequence == moment.sequence):
            return False
        if len(self._moments) >= MOMENTS:
            self._is_full = True
            return False
        self._moments.insert(place, moment)
        return True

    def is_refuted(self) -> bool:
        """Whether it was none: up to some sign of progress no time without any can have reached the limit.

        What the times of the events leave of the time that passed, as when the clock was set, may all be such a time,
        unless the operation is over: then its own times are all that there is.
        """
        if self._is_full:
            return False
        first = before = self._moments[0]
        moved, gap = first.said, 0.0
        for one in self._moments[1:]:
            if one.said < before.said:  # its clock was set back
                return False
            if before.waits:
                moved = one.said
            if one.moves or one.mark != before.mark:
                gap, moved = max(gap, one.said - moved), one.said
                if gap >= self.limit:
                    return False
                left = max(0.0, (one.heard - first.heard) - (one.said - first.said))
                if not self.is_over and gap + left < self.limit:
                    return True
            before = one
        return self.is_over


class ConcludedStalls:
    """The last stall of each operation. It belongs to the thread of the core."""

    def __init__(self) -> None:
        """None yet."""
        self._stalls: dict[str, ConcludedStall] = {}
        self._late: dict[str, None] = {}
        self._moments = 0

    def __bool__(self) -> bool:
        return bool(self._stalls)

    def __contains__(self, operation_id: str) -> bool:
        return operation_id in self._stalls

    def begin(self, operation_id: str, first: Moment, limit: float) -> None:
        """An operation is found to be stuck."""
        self.forget(operation_id)
        self._stalls[operation_id] = ConcludedStall(first, limit)
        self._moments += 1
        while self._moments > ALL_MOMENTS:
            self.forget(next(iter(self._stalls)))

    def forget(self, operation_id: str) -> None:
        """The stall of an operation stands, or was none."""
        stall = self._stalls.pop(operation_id, None)
        if stall is not None:
            self._moments -= len(stall)
            self._late.pop(operation_id, None)

    def hear(self, operation_id: str, moment: Moment) -> bool:
        """The newest event of a stuck operation was heard; whether its stall was none, which is then forgotten."""
        return self._add(operation_id, moment) and self._take(operation_id)

    def hear_late(self, operation_id: str, moment: Moment) -> None:
        """An event of an operation was heard of which newer ones are known; `refuted` says what follows."""
        if self._add(operation_id, moment):
            self._late[operation_id] = None

    def end(self, operation_id: str, moment: Moment) -> bool:
        """An operation ended; whether its stall was none, as `hear` does."""
        stall = self._stalls.get(operation_id)
        if stall is not None:
            stall.is_over = True
        return self.hear(operation_id, moment)

    def refuted(self) -> list[str]:
        """The operations whose stall was none, as events that were heard late since the last call show."""
        late, self._late = self._late, {}
        return [key for key in late if self._take(key)]

    def _add(self, operation_id: str, moment: Moment) -> bool:
        stall = self._stalls.get(operation_id)
        if stall is None or not stall.add(moment):
            return False
        self._moments += 1
        while self._moments > ALL_MOMENTS and (oldest := next(iter(self._stalls))) != operation_id:
            self.forget(oldest)
        return self._moments <= ALL_MOMENTS

    def _take(self, operation_id: str) -> bool:
        found = operation_id in self._stalls and self._stalls[operation_id].is_refuted()
        if found:
            self.forget(operation_id)
        return found
