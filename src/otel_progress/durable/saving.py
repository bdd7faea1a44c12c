"""What of an operation is not saved yet, and its way to the store: the lease, errors, the last write."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, TypeVar

from otel_progress import clock, semconv
from otel_progress.durable import order
from otel_progress.durable.kept import (
    ORDER,
    RENEW,
    WORKER_LOST,
    Acquired,
    Batch,
    Keys,
    StoredOperation,
    Summary,
)
from otel_progress.durable.scope import Scope
from otel_progress.durable.store import CheckpointStore
from otel_progress.durable.wording import resumed, withheld
from otel_progress.durable.writer import writer_of
from otel_progress.errors import (
    CheckpointError,
    LeaseLost,
)
from otel_progress.live import misuse, stopping
from otel_progress.live.guard import drops, say
from otel_progress.live.reporting import report, tell_agent
from otel_progress.model.status import Status
from otel_progress.model.values import attributes

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_progress.live.state import OperationState

T = TypeVar("T")
MOST: Final = 896
"""Unsaved marks at which the job waits for the writer; a loop looks after each 128, so there are never 1,000."""
WAIT_SECONDS: Final = 30.0
"""Seconds that the job waits for the writer, at most."""
END_SECONDS: Final = 10.0
"""Seconds that the end of an operation waits for its last write, at most."""
PATIENCE: Final = 15.0
"""Seconds for which a passing error is not told to the job; half the time of a lease."""
POLL: Final = 0.25
"""Seconds between two tries to get a lease."""
SUMMARY_EVERY: Final = 1.0
"""Seconds between two notes of how far the operation is."""
TELL_EVERY: Final = 10.0
"""Seconds between two events about checkpoints."""


def pause(seconds: float) -> None:
    """Wait for the given number of seconds."""
    threading.Event().wait(seconds)


def _is_ours() -> bool:
    """Whether this thread is one of the library, which waits for no store."""
    return threading.current_thread().name.startswith("otel-progress")


class Saving:
    """What a running operation saves: its lease, its scopes, and the writer's side.

    Attributes:
        before: how the operation stood before this attempt; None in a first one.
        id: the id of the operation.
        attempt: the number of this attempt.
        over: whether nothing more will be written. Written: writer.
        error: why nothing can be saved now, if it can't. Written: writer. Read: job.
    """

    def __init__(self, operation: OperationState, store: CheckpointStore, acquired: Acquired, required: bool) -> None:
        """It holds the lease."""
        self.before = acquired.before
        self.attempt = acquired.lease.attempt
        self.id = acquired.lease.id
        self.over = False
        self.error: CheckpointError | None = None
        self._ref = weakref.ref(operation)
        self._store = store
        self._lease = acquired.lease
        self._required = required
        self._writer = writer_of(store)
        self._used: dict[str, list[Scope]] = {}
        self._using: list[Scope] = []
        self._lock = threading.RLock()
        self._closed: list[str] = []
        self._withheld: list[str] = []
        self._failing_since: float | None = None
        self._lost = self._worker_lost = self._given_up = self._asked = False
        self._ended: tuple[str, str | None] | None = None
        self._span: tuple[str, str] | None = None
        now = clock.monotonic()
        self._renew_at = now + RENEW
        self._summary_at = self._tell_at = 0.0
        self._tell_resume_at = now + SUMMARY_EVERY
        self._to_tell: tuple[StoredOperation, str] | None = None
        self._stored: float | None = None
        self._untold = 0

    @property
    def _operation(self) -> Any:
        """The operation; None once it was dropped without an end."""
        return self._ref()

    def abandon(self) -> None:
        """The operation does not start after all: free its lease."""
        self._store.write(self._lease, Batch(ended=("cancelled", "it was not started")))

    def goes_on(self, done: int | None = None, total: int | None = None) -> None:
        """Say in the feed that it goes on: as soon as it is known how many of its items are done.

        A loop over a list knows it; else it is what the store has, said at the first wait or mark, after a
        second, or at the end.

        Args:
            done: the number of items that are done, of those that are there now; None if nobody looked.
            total: the number of items.
        """
        if self._to_tell is None:
            return
        with self._lock:
            found, self._to_tell = self._to_tell, None
        operation = self._operation
        if found is not None and operation is not None:
            stored = self._stored if total is None else done
            operation.note(resumed(*found, self.attempt, stored, total))

    def _marks(self, stage: str | None) -> tuple[int, bool]:
        """How many items the operation itself has done, and whether it or the stage it was in has marks at all."""
        found = self._done_in("", self._operation._scope.loaded or Keys())
        if found or not stage:
            return found, bool(found)
        inner = self._read(lambda: self._store.keys(self.id, stage)) or Keys()
        return 0, bool(self._done_in(stage, inner))

    def _done_in(self, path: str, keys: Keys) -> int:
        position = order.read(self._read(lambda: self._store.state(self.id, path, ORDER))).position
        return order.done(position, keys.failed) if position else len(keys.done)

    def forked(self) -> None:
        """This process was forked from the one that holds the operation; called in the child."""
        self._lock = threading.RLock()
        self._lost = self.over = True
        self.error = CheckpointError(
            f"this process was forked from the one that runs operation {self.id!r}, and can't save for it: return the "
            "key to that process, and call done(key) there"
        )

    def end(self, status: str, reason: str | None) -> None:
        """Write the end with the next round; a later end changes nothing."""
        if self._ended is None:
            self._ended = status, reason
            self._writer.kick()

    def unsaved(self, status: Status) -> CheckpointError | None:
        """An operation is about to end: save all that one has which completed, and wait for it.

        Returns:
            Why that can't be done, if saving is required.
        """
        self.goes_on()
        if status is not Status.COMPLETED or self._ended is not None or _is_ours():
            return None
        if self._withheld and not self._lost:
            return withheld(self.id, self._withheld)
        if not self._required:
            return None
        if not self._lost and (self._failing_since is not None or self._is_behind()):
            self._wait_until_saved(lambda: self._failing_since is None)
            self._given_up = self._failing_since is not None or self._is_behind()
        return self.error or (self._late(END_SECONDS) if self._given_up else None)

    def _is_behind(self) -> bool:
        """Whether the store does not know all yet."""
        with self._lock:
            return not all(scope.clean() for scopes in self._used.values() for scope in scopes)

    def _wait_until_saved(self, is_saved: Callable[[], bool]) -> None:
        """Write, for `END_SECONDS` while an error may pass."""
        for _ in range(round(END_SECONDS / POLL)):
            done = self._writer.flush(END_SECONDS)
            if is_saved() or not done or self.error is not None:
                break
            pause(POLL)  # the cause may pass

    def _write_end(self, status: Status, reason: str | None) -> None:
        self.end(status.value, reason)
        if self._given_up or _is_ours():
            return
        self._wait_until_saved(lambda: self.over)
        if not self.over and status is Status.COMPLETED and self._required:
            raise self.error or self._late(END_SECONDS)

    def _late(self, seconds: float) -> CheckpointError:
        return CheckpointError(
            f"the checkpoint store did not take the marks of {self._lease.id!r} within {seconds:.0f} s"
        )

    def flush(self) -> None:
        """Write soon what is not saved."""
        self.goes_on()
        if not self._lost:
            self._writer.kick()

    def _read(self, read: Callable[[], T]) -> T | None:
        """Read from the store, for `PATIENCE` seconds while an error may pass; None if it fails and may fail.

        Raises:
            CheckpointError: if it fails, and saving is required.
        """
        deadline = clock.monotonic() + PATIENCE
        while True:
            try:
                return read()
            except CheckpointError as error:
                if self._required and error.passing and clock.monotonic() < deadline:
                    pause(POLL)
                    continue
                if self._required:
                    raise
                self._failed(error)
                return None

    def _settle(self) -> None:
        if not self._writer.flush(WAIT_SECONDS) and self._required:
            raise self.error or self._late(WAIT_SECONDS)

    def _has_ended(self) -> CheckpointError:
        return CheckpointError(f"operation {self.id!r} has ended, so nothing more can be saved")

    def check(self) -> None:
        """Raise what went wrong.

        Raises:
            LeaseLost: if another process took over.
            CheckpointError: if nothing can be saved, and saving is required.
        """
        error = self.error
        if error is not None and (self._required or self._lost):
            raise error
        if self._ended is not None:
            raise self._has_ended()

    def press(self, scope: Scope) -> None:
        """Many marks are not saved: write at once, and wait if there are too many."""
        self._writer.hurry()
        while scope.behind() >= MOST:
            self._settle()
            self.check()
            if self._failing_since is None:
                return
            if not self._required:
                return  # the job goes on, and what is not saved is kept
            pause(POLL)

    def takes_all(self) -> None:
        """The job says that a loop is to take all items."""
        self._asked = True

    def _look(self, operation: OperationState) -> None:
        """Say it if the job has a loop, and resumes nothing."""
        if operation._has_tracked and not self._asked:
            self._asked = True
            misuse.warn_of(
                "unmarked",
                operation.name,
                "operation %r can be resumed, but its loop takes all items in each attempt: track(..., key=lambda "
                "item: item.id) leaves out what is done, track(..., mark=True) the first ones; track(..., mark=False) "
                "if all are wanted",
                operation.name,
            )

    # -- the writer's side

    def save(self, now: float) -> None:
        """Write what is not saved, and renew the lease; in the writer's thread."""
        if self.over or self._lost:
            self.over = True
            return
        if self._operation is None and self._ended is None:
            self._ended = "interrupted", "dropped without an end"
        if self._to_tell is not None and now >= self._tell_resume_at:
            self.goes_on()
        ended = self._ended
        batch = self._batch(now, ended is not None)
        quiet = not (batch.saves or batch.hands or batch.closed or ended)
        if quiet and now < self._renew_at:
            return
        try:
            self._store.write(self._lease, batch)
        except LeaseLost as error:
            self._lose(error)
            return
        except CheckpointError as error:
            self._failed(error)
            return
        except Exception as error:  # of a store that somebody else wrote
            self._failed(CheckpointError(f"the checkpoint store failed: {type(error).__name__}: {error}"))
            return
        self.error = self._failing_since = None
        if ended is not None:
            self.error = self._has_ended()  # for a loop that is left open, and taken up again
        self._renew_at = now + RENEW
        self._saved(batch)
        self.over = ended is not None
        if batch.saves:
            self._tell(now, batch)

    def _batch(self, now: float, last: bool) -> Batch:
        lost = self._ended is not None and self._worker_lost
        batch = Batch(ended=self._ended, span=self._span, died=WORKER_LOST if lost else None)
        batch.closed = tuple(self._closed)
        with self._lock:
            self._using = [scope for scopes in self._used.values() for scope in scopes]
        for scope in self._using:
            scope.take(batch)
        if last or batch.saves or now >= self._summary_at:
            self._summary_at = now + SUMMARY_EVERY
            batch.summary = self._summary()
        return batch

    def _saved(self, batch: Batch) -> None:
        self._span = None
        del self._closed[: len(batch.closed)]
        for scope in self._using:
            scope.saved(batch)
        with self._lock:
            for path, scopes in tuple(self._used.items()):
                scopes[:] = [scope for scope in scopes if not scope.is_over()]
                if not scopes:
                    del self._used[path]

    def _summary(self) -> Summary | None:
        operation = self._operation
        if operation is None:
            return None
        self._look(operation)
        seen = operation.snapshot()
        begun = [stage for stage in seen.stages if stage.status not in (Status.PENDING, Status.SKIPPED)]
        here = next((stage for stage in reversed(begun) if not stage.status.final), begun[-1] if begun else None)
        progress = seen.progress
        if progress.completed is None and here is not None:
            progress = here.progress
        return Summary(progress.completed, progress.total, progress.unit, here.path if here else None, seen.message)

    def _lose(self, error: LeaseLost) -> None:
        self._lost = self.over = True
        self.error = error
        operation = self._operation
        if operation is not None:
            stopping.ask(operation, str(error))  # its resumable loops raise the error itself

    def _failed(self, error: CheckpointError) -> None:
        now = clock.monotonic()
        if self._failing_since is None:
            self._failing_since = now
            say("operation %r can't save its checkpoints; it is tried again: %s", self.id, error)
        if not error.passing or now - self._failing_since >= PATIENCE:
            self.error = error

    def _tell(self, now: float, batch: Batch) -> None:
        """Report that work was saved."""
        operation = self._operation
        self._untold += sum(map(len, batch.done.values())) + sum(map(len, batch.failed.values()))
        if operation is not None and (now >= self._tell_at or batch.ended):
            self._tell_at = now + TELL_EVERY
            marks, self._untold = self._untold, 0
            tell_agent(operation, semconv.GEN_AI_CHECKPOINTED)
            report(semconv.CHECKPOINT, operation, attributes({semconv.CHECKPOINT_KEYS: marks}, drops))
