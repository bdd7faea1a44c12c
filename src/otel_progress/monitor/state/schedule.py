"""When each operation must be judged again: only what may have changed is judged, so that idle operations cost nothing.

A verdict changes because an event arrived, because a limit was reached, because the process is missed or heard again,
or because one of these is true of an operation below it. The first three have known times; the ledger knows the
children.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from otel_progress.monitor.state.child_processes import DEPTH

if TYPE_CHECKING:
    from otel_progress.monitor.state.ledger import Entry, Ledger, Process
    from otel_progress.monitor.state.verdicts import Observer, Standing

SPARE: Final = 1_000
"""The most outdated items in a heap; beyond it the heap is rebuilt."""

MOST_RESTING: Final = 10_000
"""The most operations that are waited for without being known as children of those that wait.

Operations that wait for others beyond that are judged each second.
"""


class Moments:
    """A priority queue of keys by the time at which each is due."""

    def __init__(self) -> None:
        """Nothing is due."""
        self._at: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        """The number of keys that are due at some time."""
        return len(self._at)

    def put(self, key: str, at: float) -> None:
        """Set when a key is due; infinity means never."""
        if at == math.inf:
            self._at.pop(key, None)
        elif self._at.get(key) != at:
            self._at[key] = at
            heapq.heappush(self._heap, (at, key))
            if len(self._heap) > 2 * len(self._at) + SPARE:
                self._heap = [(at, key) for key, at in self._at.items()]
                heapq.heapify(self._heap)

    def at(self, key: str) -> float:
        """When a key is due; infinity if never."""
        return self._at.get(key, math.inf)

    def pop(self, now: float) -> list[str]:
        """Remove and return the keys that are due."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            at, key = heapq.heappop(self._heap)
            if self._at.get(key) == at:
                del self._at[key]
                found.append(key)
        return found


class Rounds:
    """Chooses the operations that are judged each second; it belongs to the thread of the core.

    Attributes:
        judged: the number of operations chosen so far.
    """

    def __init__(self, ledger: Ledger, observer: Observer, presume_after: float) -> None:
        """For a ledger; an operation not heard of for `presume_after` seconds may be presumed lost."""
        self.judged = 0
        self._ledger = ledger
        self._observer = observer
        self._presume_after = presume_after
        self._operations, self._processes = Moments(), Moments()
        self._changed: dict[str, None] = {}
        self._marked: dict[str, None] = {}
        self._heard: dict[str, None] = {}
        self._standings: dict[str, Standing] = {}
        self._resting: dict[str, set[str]] = {}
        """The operations whose branches wait for an operation that is not known as their child, by its id."""
        self._epoch = observer.epoch
        ledger.on_part = self.part

    def change(self, key: str) -> None:
        """An operation was reported on, or concluded about."""
        self._changed[key] = None

    def is_settled(self, entry: Entry) -> bool:
        """Whether an operation was judged, no other one rests on it, and no limit is near that its last look missed."""
        key = entry.head.operation_id
        standing = self._standings.get(entry.instance)
        return (
            standing is not None
            and standing.is_well
            and entry.head.parent_id is None
            and key not in self._changed
            and key not in self._resting
            and key not in self._ledger.children
            and self._operations.at(key) <= self._observer.due(entry)
        )

    def mark(self, key: str) -> None:
        """An operation is to be judged; nothing changed for its ancestors."""
        self._marked[key] = None

    def part(self, parent_id: str) -> None:
        """An operation lost a child."""
        self._changed[parent_id] = None

    def hear(self, process: Process) -> None:
        """A process was heard."""
        known = self._standings.get(process.instance)
        if known is None or not known.is_well or (known.beats, known.interval) != (process.beats, process.interval):
            self._heard[process.instance] = None

    def due(self, now: float) -> list[Entry]:
        """The operations to judge now; call `looked` for each of them."""
        for instance in self._to_judge(now):
            self._judge(instance, now)
        self._judge_new(now)
        origins = [*self._operations.pop(now), *self._changed]
        chosen = dict.fromkeys(origins) | self._marked
        known = self._ledger.operations.get
        for key in origins:
            origin = known(key)
            if origin is not None and origin.head.parent_id is not None:
                chosen |= self._above(key)
            if key in self._resting:
                chosen |= dict.fromkeys(self._resting.pop(key))
        self._changed.clear()
        self._marked.clear()
        found = [entry for key in chosen if (entry := known(key)) is not None and entry.open]
        self.judged += len(found)
        return found

    def is_missed(self, instance: str) -> bool:
        """Whether a process was not heard for so long that its operations count as lost."""
        standing = self._standings.get(instance)
        return standing is not None and standing.missed

    def looked(self, entry: Entry, now: float) -> None:
        """An operation was judged; schedule its next time."""
        key = entry.head.operation_id
        if not entry.open:
            return
        at, rests_on = self._observer.next_look(entry, now)
        if rests_on and len(self._resting) >= MOST_RESTING:
            at, rests_on = now, frozenset()
        for other in rests_on:
            self._resting.setdefault(other, set()).add(key)
        self._operations.put(key, max(at, math.nextafter(now, math.inf)))

    def forget(self, key: str) -> None:
        """An operation ended, or left memory."""
        self._operations.put(key, math.inf)

    def _above(self, key: str) -> dict[str, None]:
        """The ancestors whose verdicts may rest on this operation."""
        found: dict[str, None] = {}
        entry = self._ledger.operations.get(key)
        while entry is not None and len(found) < DEPTH:
            above = entry.head.parent_id
            if above is None or above == key or above in found:
                break
            found[above] = None
            entry = self._ledger.operations.get(above)
        return found

    def _to_judge(self, now: float) -> Iterable[str]:
        """The processes whose standing may have changed."""
        heard, self._heard = self._heard, {}
        due = self._processes.pop(now)
        if len(self._standings) > len(self._ledger.processes) + SPARE:
            self._standings = {key: one for key, one in self._standings.items() if key in self._ledger.processes}
        if self._observer.epoch != self._epoch:
            self._epoch = self._observer.epoch
            self._changed.update(dict.fromkeys(self._observer.unjudged.stuck()))
            return [process.instance for process in self._ledger.busy()]
        return dict.fromkeys([*heard, *due, *self._observer.dead])

    def _judge_new(self, now: float) -> None:
        """Judge processes of operations that others reported."""
        known = self._ledger.operations.get
        for key in list(self._changed):
            entry = known(key)
            if entry is not None and entry.open and entry.instance not in self._standings:
                self._judge(entry.instance, now)

    def _judge(self, instance: str, now: float) -> None:
        process = self._ledger.processes.get(instance)
        if process is None or not self._ledger.is_busy(instance):
            self._standings.pop(instance, None)
            self._observer.forget(instance)
            return
        standing, at = self._observer.standing(process, now, self._presume_after)
        if standing != self._standings.get(instance):
            self._standings[instance] = standing
            self._changed.update((entry.head.operation_id, None) for entry in self._ledger.open_of(instance))
        self._processes.put(instance, max(at, math.nextafter(now, math.inf)))
