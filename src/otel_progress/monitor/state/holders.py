"""How many rows each client, service and process has, so that the one with the most gives up its own first.

Rows are counted on each step of a path: a client, one of its services, one of that service's processes. What gives up a
row is found from the top: the client with the most rows, then its service with the most, then that one's process. All
processes that a client makes up count as that client, however few rows each of them has.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Final

EXAMINED: Final = 16
"""The most holders at the end of a path that are examined for one to prefer; each is examined in turn."""


class Holder:
    """A holder, and those below it.

    Attributes:
        name: its last step of the path.
        above: the holder that it is a part of.
        count: the rows of it and of all below it.
        rows: its own rows, the oldest first.
        below: those that are a part of it.
    """

    __slots__ = ("_most", "_ranks", "above", "below", "count", "name", "rows")

    def __init__(self, name: Hashable = None, above: Holder | None = None) -> None:
        """Without rows."""
        self.name = name
        self.above = above
        self.count = self._most = 0
        self.rows: dict[str, None] = {}
        self.below: dict[Hashable, Holder] = {}
        self._ranks: dict[int, dict[Holder, None]] = {}
        """Those below by their number of rows; `_most` is the highest number."""

    def add(self, path: tuple[Hashable, ...], row: str) -> Holder:
        """Add a row at the end of a path; returns the holder there."""
        holder = self
        for name in path:
            found = holder.below.get(name)
            holder = Holder(name, holder) if found is None else found
            if found is None and holder.above is not None:
                holder.above.below[name] = holder
        if row not in holder.rows:
            holder.rows[row] = None
            holder.change(1)
        return holder

    def remove(self, row: str) -> None:
        """Remove a row of its own; to be called on the holder that `add` returned."""
        if row in self.rows:
            del self.rows[row]
            self.change(-1)

    def change(self, by: int) -> None:
        """It has one row more (1) or less (-1), and so have all above it."""
        before, self.count = self.count, self.count + by
        if self.above is not None:
            self.above.rank(self, before)
            self.above.change(by)

    def rank(self, holder: Holder, before: int) -> None:
        """One of those below has one row more or less than before; without rows it is none any more."""
        rank = self._ranks.get(before)
        if rank is not None:
            rank.pop(holder, None)
            if not rank:
                del self._ranks[before]
                self._most -= self._most == before
        if holder.count:
            self._ranks.setdefault(holder.count, {})[holder] = None
            self._most = max(self._most, holder.count)
        else:
            del self.below[holder.name]

    def largest(self) -> Holder:
        """Of those below it the one with the most rows; of several, the one that came last."""
        return next(reversed(self._ranks[self._most]))

    def path_of_largest(self) -> list[Holder]:
        """The holders from the first below it to the one that has to make room."""
        path, holder = [], self
        while holder.below:
            holder = holder.largest()
            path.append(holder)
        return path

    def leaves(self) -> Iterator[Holder]:
        """The holders at the ends of all paths."""
        for holder in self.below.values():
            yield from holder.leaves() if holder.below else (holder,)

    def in_turn(self) -> Iterator[Holder]:
        """Some of those below it; the next call continues with others."""
        for _ in range(min(EXAMINED, len(self.below))):
            name = next(iter(self.below))
            holder = self.below[name] = self.below.pop(name)
            yield holder
