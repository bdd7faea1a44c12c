"""When each operation must be looked at again: only what may have changed is judged, so what rests costs nothing.

A verdict changes because something was said of an operation, because a limit of it is reached, because its process
is missed, or heard again, or because one of these is true of an operation below it. The first three are known by
their moments; who is below whom is known by the ledger.
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
"""The most outdated items in a heap; beyond this it is rebuilt."""

MOST_RESTING: Final = 10_000
"""So many operations are remembered that are not known to be below those that wait for them.

Those that wait for further ones are looked at each second."""


class Moments:
    """Keys by the moment at which each is due."""

    def __init__(self) -> None:
        """None is due."""
        self._at: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        """How many are due some time."""
        return len(self._at)

    def put(self, key: str, at: float) -> None:
        """It is due then, and not before; with infinity never."""
        if at == math.inf:
            self._at.pop(key, None)
        elif self._at.get(key) != at:
            self._at[key] = at
            heapq.heappush(self._heap, (at, key))
            if len(self._heap) > 2 * len(self._at) + SPARE:
                self._heap = [(at, key) for key, at in self._at.items()]
                heapq.heapify(self._heap)

    def pop(self, now: float) -> list[str]:
        """Those that are due; they are not due again until somebody says so."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            at, key = heapq.heappop(self._heap)
            if self._at.get(key) == at:
                del self._at[key]
                found.append(key)
        return found


class Rounds:
    """Says each second which operations are to be looked at; it belongs to the thread of the core.

    Attributes:
        judged: how many operations were to be looked at so far.
    """

    def __init__(self, ledger: Ledger, observer: Observer, presume_after: float) -> None:
        """Of the operations of a ledger; after so many seconds unheard of, one may be presumed lost."""
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
        """By the id of an operation, those whose branches wait for it, although it is not known to be below them."""
        self._epoch = observer.epoch
        ledger.on_part = self.part

    def change(self, key: str) -> None:
        """Something was said of an operation, or concluded."""
        self._changed[key] = None

    def mark(self, key: str) -> None:
        """An operation is to be looked at; nothing changed for those above it."""
        self._marked[key] = None

    def part(self, parent_id: str) -> None:
        """An operation has one child less."""
        self._changed[parent_id] = None

    def hear(self, process: Process) -> None:
        """A process was heard."""
        known = self._standings.get(process.instance)
        if known is None or not known.is_well or (known.beats, known.interval) != (process.beats, process.interval):
            self._heard[process.instance] = None

    def due(self, now: float) -> list[Entry]:
        """The operations to be looked at now; `looked` is to be called for each."""
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
        """It was looked at; when that is to be done again follows from what it says, and from what is below it."""
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
        """An operation is held no more, or is over."""
        self._operations.put(key, math.inf)

    def _above(self, key: str) -> dict[str, None]:
        """Those whose verdicts may rest on this one's."""
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
        """The processes whose standing may be another one."""
        heard, self._heard = self._heard, {}
        due = self._processes.pop(now)
        if len(self._standings) > len(self._ledger.processes) + SPARE:
            self._standings = {key: one for key, one in self._standings.items() if key in self._ledger.processes}
        if self._observer.epoch != self._epoch:
            self._epoch = self._observer.epoch
            return [process.instance for process in self._ledger.busy()]
        return dict.fromkeys([*heard, *due, *self._observer.dead])

    def _judge_new(self, now: float) -> None:
        """Processes of operations that came in another way than from them."""
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
