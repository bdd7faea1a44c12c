"""Who is in flight in this process, and what happened to them since the ticker last looked."""

from __future__ import annotations

import gc
import itertools
import logging
import os
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Final

from otel_progress import semconv
from otel_progress.errors import DuplicateOperation
from otel_progress.live import hooks
from otel_progress.live.drops import drops
from otel_progress.model.status import Status
from otel_progress.model.values import Attributes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_progress.live.handle import Handle
    from otel_progress.live.operation import Operation

log = logging.getLogger("otel_progress")

CHANGES: Final = 100_000
"""Changes that may wait for the ticker."""
ATTEMPTS: Final = 10_000
"""Ended ids whose attempts are remembered."""
NAMES: Final = 1_000
"""Operation names that are counted one by one; the rest are `_other`."""
PRUNE: Final = 1_000
"""Live operations from which on those that are gone without an end are looked for."""
FORK_WAIT: Final = 0.05

Change = tuple[str, "Operation", "Handle", int, Attributes]


class Registry:
    """The operations of this process; after a fork the child's is empty."""

    def __init__(self) -> None:
        """Nothing in flight."""
        self.generation = 0
        self.keeps_attempts = False
        self._reset()

    def _reset(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.RLock()
        self.pending: weakref.WeakSet[Operation] = weakref.WeakSet()
        self.live: dict[str, weakref.ref[Operation]] = {}
        self.changes: deque[Change] = deque()
        self.dropped: deque[tuple[Handle, Status, str | None]] = deque()
        self._prune_at = PRUNE
        self.attempts: dict[str, int] = {}
        self.begun: dict[str, int] = {}
        self.started: dict[str, int] = {}
        self.ended: dict[tuple[str, str], int] = {}
        self.usage: dict[tuple[str, str], float] = {}
        self.listed: weakref.WeakSet[Operation] | None = None
        self.prefix = os.urandom(8).hex()
        self.numbers = itertools.count(1)

    def add(self, operation: Operation) -> None:
        """Take an operation in; its attempt follows from the ids that ended before.

        Raises:
            DuplicateOperation: while another with the same id is alive here.
        """
        key = operation.id
        if key in self.live:
            self.end_dropped()
        with self.lock:
            if len(self.live) >= self._prune_at:
                self._prune()
            other = self.live.get(key)
            alive = other() if other is not None else None
            if alive is operation:
                return
            if alive is not None and not alive._status.final:
                raise DuplicateOperation(
                    f"operation {key!r} is running in this process already; "
                    "end it first, or leave the id out to get a fresh one"
                )
            if key in self.attempts:
                operation.attempt = self.attempts[key] + 1
            if self.keeps_attempts and operation._opts.id is not None and len(self.begun) < ATTEMPTS:
                self.begun[key] = operation.attempt
            self.live[key] = weakref.ref(operation)
            name = operation.name
            if name not in self.started and len(self.started) >= NAMES:
                name = semconv.OTHER_STAGE
            self.started[name] = self.started.get(name, 0) + 1

    def know_attempts(self, attempts: Mapping[str, int]) -> None:
        """Go on counting from what earlier processes did."""
        with self.lock:
            for key, number in attempts.items():
                self.attempts[key] = max(number, self.attempts.get(key, 0))

    def take_begun(self) -> dict[str, int]:
        """The attempts of given ids that began since this was called last, for the history file."""
        with self.lock:
            begun, self.begun = self.begun, {}
        return begun

    def expect(self, operation: Operation) -> None:
        """Remember one that should start within a limit."""
        self.pending.add(operation)
        if hooks.wanted:
            hooks.on_expect()

    def remove(self, operation: Operation, *, given: bool) -> None:
        """Let an ended operation go; the attempts of ids that callers gave are remembered."""
        with self.lock:
            known = self.live.get(operation.id)
            if known is not None and known() is operation:
                del self.live[operation.id]
            if given:
                self.attempts.pop(operation.id, None)
                self.attempts[operation.id] = operation.attempt
                if len(self.attempts) > ATTEMPTS:
                    del self.attempts[next(iter(self.attempts))]
            key = (self.name_of(operation), operation._status.value)
            self.ended[key] = self.ended.get(key, 0) + 1

    def _prune(self) -> None:
        """Forget ids of operations that are gone, so that unwatched ones with an id don't add up."""
        for key in [key for key, ref in self.live.items() if ref() is None]:
            del self.live[key]
        self._prune_at = max(PRUNE, 2 * len(self.live))

    def name_of(self, operation: Operation) -> str:
        """The name under which it is counted: its own, or `_other` where there are too many names."""
        return operation.name if operation.name in self.started else semconv.OTHER_STAGE

    def operations(self) -> list[Operation]:
        """Those that run now."""
        return [operation for ref in list(self.live.values()) if (operation := ref()) is not None]

    def in_flight(self) -> list[Operation]:
        """Those that run now, also those that nobody watches.

        An operation that nobody watches stands nowhere, so that it costs nothing. The first call looks for them among
        all objects of the process; from then on each one is noted when it starts.
        """
        listed = self.listed
        if listed is None:
            listed = self.listed = weakref.WeakSet()
            for one in gc.get_objects():
                if type(one) is self.kind:
                    listed.add(one)
        known = {id(one): one for one in (*self.operations(), *listed.copy())}
        found = [one for one in known.values() if one._status is Status.RUNNING and one._ours]
        return sorted(found, key=lambda one: one._started or 0.0)

    def report(self, event: str, operation: Operation, node: Handle, now: int, attributes: Attributes) -> None:
        """Leave a change for the ticker; there is always room for an end, so that nothing looks lost that is not."""
        if len(self.changes) >= (CHANGES if event != semconv.OPERATION_ENDED else 2 * CHANGES):
            drops.add(semconv.DROP_QUEUE)
        else:
            self.changes.append((event, operation, node, now, attributes))
            if event == semconv.OPERATION_ENDED:
                hooks.on_end()

    def used(self, name: str, key: str, amount: float) -> None:
        """Count tokens (`input_tokens`, `output_tokens`) and money (`cost.USD`) by operation name."""
        with self.lock:
            name = name if name in self.started else semconv.OTHER_STAGE
            self.usage[name, key] = self.usage.get((name, key), 0) + amount

    def end_dropped(self) -> None:
        """End what was dropped without an end; a finalizer only left it here."""
        while self.dropped:
            node, status, reason = self.dropped.popleft()
            node._finish(status, reason, None)

    # -- fork

    def before_fork(self, timeout: float = FORK_WAIT) -> None:
        """Hold the lock for the fork, so that no change is cut in two; 50 ms at the most."""
        if self.lock.acquire(timeout=timeout):
            self._held_by = threading.get_ident()

    def after_fork_in_parent(self) -> None:
        """Go on; another thread may be forking too, and only the one that holds the lock lets it go."""
        if self._held_by == threading.get_ident():
            self._held_by = None
            self.lock.release()

    def after_fork_in_child(self) -> None:
        """Start from nothing: what ran belongs to the parent."""
        self.generation += 1
        self._held_by = None
        self._reset()
        drops.clear()

    # -- the end

    def free(self, timeout: float) -> None:
        """Go on with a fresh lock if the old one can't be had: a signal may have come while its thread held it."""
        if self.lock.acquire(timeout=timeout):
            self.lock.release()
        else:
            self.lock = threading.RLock()

    _held_by: int | None = None
    kind: type[Operation]
    """The class of operations; `operation.py` puts it here."""


registry = Registry()
