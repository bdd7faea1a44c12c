"""The running operations of this process, and the changes that wait for the ticker."""

from __future__ import annotations

import gc
import itertools
import logging
import math
import os
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Final, TypeVar

from otel_progress import semconv
from otel_progress.errors import DuplicateOperation
from otel_progress.live import hooks
from otel_progress.live.guard import drops
from otel_progress.model.status import Status
from otel_progress.model.values import Attributes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_progress.live.state import Change, HandleState, OperationState

log = logging.getLogger("otel_progress")

CHANGES: Final = 100_000
"""Changes that may wait for the ticker."""
ATTEMPTS: Final = 10_000
"""Ended ids whose attempts are remembered."""
NAMES: Final = 1_000
"""Operation names that are counted one by one; the rest are `_other`."""
PRUNE: Final = 1_000
"""Live operations from which on those dropped without an end are removed."""
NEVER: Final = (math.inf, 0.0)
"""The next look while no ticker runs."""
FORK_WAIT: Final = 0.05
"""Seconds that a fork waits for the lock, at most."""

OperationT = TypeVar("OperationT", bound="OperationState")


class Registry:
    """The operations of this process; after a fork the child's is empty.

    Attributes:
        generation: rises at each fork in the child. Written: fork. Read: all.
        pid: of this process. Written: fork. Read: runtime.
        lock: guards what several threads change in more than one step; never held across I/O.
        live: running operations that somebody watches, or whose id was given, by id. Written: job. Read: all.
        pending: operations with `start_within` that have not started. Written: job, ticker. Read: ticker, commands.
        changes: changes for the ticker, in order. Written: job. Read: ticker.
        ends_dropped: ends for which `changes` had no room. Written: job. Read: the end of the process.
        dropped: handles that finalizers found without an end, with status and reason. Written: job. Read: ticker.
        listed: all running operations by `id()`, once `in_flight` was called. Written: job. Read: job.
        attempts: the last attempt of each given id that ended. Written: job. Read: job, commands.
        begun: attempts of given ids that began and are not saved. Written: job. Read: ticker (learning).
        keeps_attempts: whether `begun` is kept. Written: learning. Read: job.
        started: number of started operations by name. Written: job. Read: metrics.
        ended: number of ended operations by name and status. Written: job. Read: metrics.
        usage: tokens and money by operation name. Written: job. Read: metrics.
        service: the service of this process, as Prometheus names it. Written: configure. Read: job, ticker.
        environment: its deployment environment, if it has one. Written: configure. Read: ticker.
        prefix: random beginning of the ids of this process. Written: fork. Read: job, commands.
        numbers: numbers the ids. Written and read: job.
        next_look: when the ticker is to look next (s, monotonic), and by how much it may be late; infinity while none
            runs. Written: ticker. Read: ticker, look (standstill).
        stood: when the ticker looked last (s, monotonic), and for how long the process had stood still then. Written
            and read: ticker.
    """

    def __init__(self) -> None:
        """No operation runs."""
        self.generation = 0
        self.keeps_attempts = False
        self.service: str | None = None
        self.environment: str | None = None
        self._reset()

    def _reset(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.RLock()
        self.pending: weakref.WeakSet[OperationState] = weakref.WeakSet()
        self.live: dict[str, weakref.ref[OperationState]] = {}
        self.changes: deque[Change] = deque()
        self.ends_dropped = 0
        self.dropped: deque[tuple[HandleState, Status, str | None]] = deque()
        self._prune_at = PRUNE
        self.attempts: dict[str, int] = {}
        self.begun: dict[str, int] = {}
        self.started: dict[str, int] = {}
        self.ended: dict[tuple[str, str], int] = {}
        self.usage: dict[tuple[str, str], float] = {}
        self.listed: weakref.WeakValueDictionary[int, OperationState] | None = None
        self.prefix = os.urandom(8).hex()
        self.numbers = itertools.count(1)
        self.next_look = NEVER
        self.stood = (0.0, 0.0)

    def add(self, operation: OperationState) -> None:
        """Register an operation; its attempt follows from earlier ones with its id.

        Raises:
            DuplicateOperation: if another operation with its id runs in this process.
        """
        key = operation.id
        with self.lock:
            if len(self.live) >= self._prune_at:
                self._prune()
            self.refuse_duplicate(operation)
            other = self.live.get(key)
            if other is not None and other() is operation:
                return
            if key in self.attempts:
                operation.attempt = self.attempts[key] + 1
            if self.keeps_attempts and operation._opts.id is not None and len(self.begun) < ATTEMPTS:
                self.begun[key] = operation.attempt
            self.live[key] = weakref.ref(operation)
            name = operation._text_name
            if name not in self.started and len(self.started) >= NAMES:
                name = semconv.OTHER_STAGE
            self.started[name] = self.started.get(name, 0) + 1

    def refuse_duplicate(self, operation: OperationState) -> None:
        """Raise what `add` would raise, before anything else is done for the operation.

        Raises:
            DuplicateOperation: if another operation with its id runs in this process.
        """
        key = operation.id
        if key in self.live:
            self.end_dropped()
        with self.lock:
            other = self.live.get(key)
            alive = other() if other is not None else None
            if alive is not None and alive is not operation and not alive._status.final:
                other_id = "or leave the id out" if operation._opts.resume is None else "or use another id"
                raise DuplicateOperation(
                    f"operation {key!r} is running in this process already; end it first, {other_id} to get a fresh one"
                )

    def know_attempts(self, attempts: Mapping[str, int]) -> None:
        """Continue the attempts of earlier processes."""
        with self.lock:
            for key, number in attempts.items():
                self.attempts[key] = max(number, self.attempts.get(key, 0))

    def take_begun(self) -> dict[str, int]:
        """The attempts of given ids that began since the last call, for the history file."""
        with self.lock:
            begun, self.begun = self.begun, {}
        return begun

    def expect(self, operation: OperationState) -> None:
        """Watch a pending operation that has `start_within`."""
        self.pending.add(operation)
        if hooks.wanted:
            hooks.on_expect()

    def remove(self, operation: OperationState, *, given: bool) -> None:
        """Remove an ended operation; the attempts of given ids are remembered."""
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
        """Forget the ids of operations that no longer exist."""
        for key in [key for key, ref in self.live.items() if ref() is None]:
            del self.live[key]
        self._prune_at = max(PRUNE, 2 * len(self.live))

    def name_of(self, operation: OperationState) -> str:
        """The name under which an operation is counted: its own, or `_other` if there are too many names."""
        return operation.name if operation._text_name in self.started else semconv.OTHER_STAGE

    def find(self, key: str) -> OperationState | None:
        """The running operation of this id that somebody watches; None if there is none."""
        ref = self.live.get(key)
        return None if ref is None else ref()

    def operations(self) -> list[OperationState]:
        """The running operations that somebody watches."""
        return [operation for ref in list(self.live.values()) if (operation := ref()) is not None]

    def in_flight(self, kind: type[OperationT]) -> list[OperationT]:
        """The running operations of this class, those that nobody watches included.

        An operation that nobody watches is not registered, so that it costs nothing. The first call searches all
        objects of the process for them; from then on each is listed when it starts.
        """
        listed = self.listed
        if listed is None:
            # No WeakSet: a set that could not grow for want of memory fills up, and then a lookup never ends.
            listed = self.listed = weakref.WeakValueDictionary()
            for one in gc.get_objects():
                if type(one) is kind:
                    listed[id(one)] = one
        known = {id(one): one for one in (*self.operations(), *listed.values()) if isinstance(one, kind)}
        found = [one for one in known.values() if one._status is Status.RUNNING and self.owns(one)]
        return sorted(found, key=lambda one: one._started or 0.0)

    def owns(self, operation: OperationState) -> bool:
        """Whether an operation was started in this process, not in the one that this was forked from."""
        return operation._generation == self.generation

    def report(
        self, event: str, operation: OperationState, node: HandleState, now: int, attributes: Attributes
    ) -> None:
        """Queue a change for the ticker; ends have room of their own, so that no ended operation looks lost."""
        if len(self.changes) >= (CHANGES if event != semconv.OPERATION_ENDED else 2 * CHANGES):
            drops.add(semconv.DROP_QUEUE)
            self.ends_dropped += event == semconv.OPERATION_ENDED
        else:
            self.changes.append((event, operation, node, now, attributes))
            if event == semconv.OPERATION_ENDED:
                hooks.on_end()

    def unreported(self) -> tuple[int, int]:
        """The numbers of ends and of other changes that the ticker did not emit, as the process ends.

        An operation that still runs counts as an end: there was no time to end it as interrupted.
        """
        waiting = self.changes.copy()
        ends = sum(change[0] == semconv.OPERATION_ENDED for change in waiting)
        running = sum(not operation._status.final for operation in self.operations())
        return ends + running + self.ends_dropped, len(waiting) - ends

    def used(self, name: str, key: str, amount: float) -> None:
        """Count tokens (`input_tokens`, `output_tokens`) and money (`cost.USD`) by operation name."""
        with self.lock:
            name = name if name in self.started else semconv.OTHER_STAGE
            self.usage[name, key] = self.usage.get((name, key), 0) + amount

    def end_dropped(self) -> None:
        """End the handles that finalizers left here: they were dropped without an end."""
        while self.dropped:
            node, status, reason = self.dropped.popleft()
            node._finish(status, reason, None)

    # -- fork

    def before_fork(self, timeout: float = FORK_WAIT) -> None:
        """Hold the lock for the fork, so that no change is cut in two; waits at most 50 ms."""
        if self.lock.acquire(timeout=timeout):
            self._held_by = threading.get_ident()

    def after_fork_in_parent(self) -> None:
        """Release the lock if this thread holds it; another thread may be forking too."""
        if self._held_by == threading.get_ident():
            self._held_by = None
            self.lock.release()

    def after_fork_in_child(self) -> None:
        """Start empty: what ran belongs to the parent."""
        self.generation += 1
        self._held_by = None
        self._reset()
        drops.clear()

    # -- the end

    def free(self, timeout: float) -> None:
        """Replace the lock if it can't be acquired: a signal handler may have interrupted the thread that holds it."""
        if self.lock.acquire(timeout=timeout):
            self.lock.release()
        else:
            self.lock = threading.RLock()

    _held_by: int | None = None


registry = Registry()
