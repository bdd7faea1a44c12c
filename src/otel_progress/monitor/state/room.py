"""Which row leaves a full ledger: one of the client that has the most, so that a flood of one hurts nobody else.

A client is who sent it (token and address), and holds rows in the name of its services and their processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any, Final, Protocol

from otel_progress import semconv as s
from otel_progress.model.health import BEATS
from otel_progress.monitor.state.holders import Holder

SILENT_AFTER: Final = 60.0
"""Seconds without a sign of life after which the rows of a process that promises no heartbeats go first."""
OPERATIONS_FULL: Final = "operations"
"""An operation was put aside as there were too many of them."""
PROCESSES_FULL: Final = "processes"
"""It was put aside with its process, as there were too many of those."""
BYTES_FULL: Final = "bytes"
"""It was put aside as all operations together were too large."""
REASONS: Final = (OPERATIONS_FULL, PROCESSES_FULL, BYTES_FULL)


class Heard(Protocol):
    """A process that was heard of, as far as it matters here; see `ledger.Process`."""

    @property
    def instance(self) -> str:
        """Its key."""

    @property
    def resource(self) -> Mapping[str, Any]:
        """Its resource attributes."""

    @property
    def heard_at(self) -> float:
        """When it was last heard of."""

    @property
    def interval(self) -> float:
        """The longest silence that it promises, in seconds."""

    @property
    def beats(self) -> bool:
        """Whether it promises any."""


class Room:
    """Knows who holds which open operations and which processes. It belongs to the thread of the ledger.

    Attributes:
        client: who sends what is taken now; None for this process itself, and for what was loaded from the store.
        counts: how many open operations were put aside, by one of `REASONS`.
        idle: the processes without open operations; they make room before any other one.
    """

    def __init__(self) -> None:
        """Nobody holds anything."""
        self.client: Hashable = None
        self.counts = Counter[str]()
        self.idle: dict[str, None] = {}
        self._operations, self._processes = Holder(), Holder()
        self._holders: dict[str, Holder] = {}
        """The holder of each process."""
        self._now = 0.0

    # -- processes

    def hear(self, process: Heard, now: float, *, busy: bool) -> None:
        """A process was heard, or loaded."""
        self._now = max(now, self._now)
        holder = self._holders.get(process.instance)
        if holder is None:
            path = (self.client, _service(process))
            self._holders[process.instance] = self._processes.add(path, process.instance)
            if not busy:
                self.idle[process.instance] = None
        else:
            holder.rows[process.instance] = holder.rows.pop(process.instance)  # those heard longest ago come first

    def next_process(self) -> str:
        """The process that makes room: an idle one, or of whoever has the most of them the one heard longest ago."""
        idle = next(iter(self.idle), None)
        return next(iter(self._processes.path_of_largest()[-1].rows)) if idle is None else idle

    def drop_process(self, instance: str) -> None:
        """A process left memory."""
        self.idle.pop(instance, None)
        holder = self._holders.pop(instance, None)
        if holder is not None:
            holder.remove(instance)

    # -- operations

    def enter(self, operation_id: str, instance: str, process: Heard | None) -> Holder:
        """An operation is open; returns its holder, from which it is removed when it is not."""
        self.idle.pop(instance, None)
        return self._operations.add((self.client, _service(process), instance), operation_id)

    def is_of_client(self, holder: Holder | None) -> bool:
        """Whether the holder of an operation is a process of who sends what is taken now."""
        service = None if holder is None else holder.above
        return service is not None and service.above is not None and service.above.name == self.client

    def next_operation(self, processes: Mapping[str, Heard]) -> str:
        """The open operation that makes room: the oldest one of whoever has the most.

        Of the processes of that service those go first that are silent.
        """
        _, service, process = self._operations.path_of_largest()
        silent = (one for one in service.in_turn() if self._is_silent(processes.get(str(one.name))))
        return next(iter(next(silent, process).rows))

    def heaviest(self, sizes: Mapping[str, int]) -> list[str]:
        """The open operations of the service that holds the most bytes, in the order in which they make room."""
        sums = Counter[Holder]()
        leaves = list(self._operations.leaves())
        for leaf in leaves:
            size = sum(sizes.get(key, 0) for key in leaf.rows)
            holder: Holder | None = leaf
            while holder is not None:
                sums[holder] += size
                holder = holder.above
        service = self._operations
        for _ in range(2):
            service = max(service.below.values(), key=sums.__getitem__)
        found: list[str] = []
        for process in sorted(service.below.values(), key=sums.__getitem__, reverse=True):
            found += sorted(process.rows, key=lambda key: sizes.get(key, 0), reverse=True)
        return found

    def _is_silent(self, process: Heard | None) -> bool:
        if process is None:
            return False
        allowed = BEATS * process.interval if process.beats else SILENT_AFTER
        return self._now - process.heard_at >= allowed


def _service(process: Heard | None) -> str | None:
    """The name of its service; senders are untrusted, so it may be no text."""
    name = None if process is None else process.resource.get(s.SERVICE_NAME)
    return name if isinstance(name, str) else None
