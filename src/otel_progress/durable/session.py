"""One attempt of a resumable operation: its lease, its scopes, and what it saves."""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Collection
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

from otel_progress import clock, semconv
from otel_progress.durable import loop, order
from otel_progress.durable.again import may_begin
from otel_progress.durable.holder import this_process
from otel_progress.durable.kept import (
    LOST,
    ORDER,
    POISON,
    RENEW,
    RESULT,
    RUNNING,
    STATE,
    WORKER_LOST,
    Acquired,
    Batch,
    Claim,
    Keys,
    Kind,
    StoredOperation,
    Summary,
    is_worker_lost,
)
from otel_progress.durable.scope import KEYS, UNREAD, Runs, Scope, as_key, as_part, as_text, inside, part
from otel_progress.durable.store import CheckpointStore, open_store
from otel_progress.durable.told import tell_runner
from otel_progress.durable.wording import SHOWN, all_at_once, how_it_ended, mixed, one_of, resumed, twice, withheld
from otel_progress.durable.writer import writer_of
from otel_progress.errors import (
    CheckpointError,
    CheckpointMismatch,
    InvalidArgument,
    InvalidState,
    LeaseLost,
    OperationHeld,
)
from otel_progress.live import hooks, misuse, stopping
from otel_progress.live.counting import count_anew, restore
from otel_progress.live.diagnosis.places import here
from otel_progress.live.guard import drops, say
from otel_progress.live.reporting import report, tell_agent
from otel_progress.model.origin import of_the_job
from otel_progress.model.secrets import mask_secrets
from otel_progress.model.status import Status
from otel_progress.model.units import units
from otel_progress.model.values import attributes
from otel_progress.settings import read

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_progress.live.lane import Lane
    from otel_progress.live.records import LoopOptions, Resume
    from otel_progress.live.state import HandleState, OperationState, StageState

T = TypeVar("T")
MOST: Final = 896
"""Unsaved marks at which the job waits for the writer; a loop looks after each 128, so there are never 1,000."""
WAIT_SECONDS: Final = 30.0
"""Seconds that the job waits for the writer, at most."""
END_SECONDS: Final = 10.0
"""Seconds that the end of an operation waits for its last write, at most."""
CAREFUL: Final = 1000
"""Items after a death before each of which its key is written, so that one that kills again is known."""
PATIENCE: Final = 15.0
"""Seconds for which a passing error is not told to the job; half the time of a lease."""
POLL: Final = 0.25
"""Seconds between two tries to get a lease."""
SUMMARY_EVERY: Final = 1.0
"""Seconds between two notes of how far the operation is."""
TELL_EVERY: Final = 10.0
"""Seconds between two events about checkpoints."""
OWNERS: Final = 100_000
"""Calls of methods and closures that are compared with each other."""


def pause(seconds: float) -> None:
    """Wait for the given number of seconds."""
    threading.Event().wait(seconds)


def _is_ours() -> bool:
    """Whether this thread is one of the library, which waits for no store."""
    return threading.current_thread().name.startswith("otel-progress")


def open_session(operation: OperationState, wait: float) -> Session | None:
    """Take the operation of a handle that is about to start; None if it goes on without a store.

    Args:
        operation: the handle.
        wait: seconds to wait for its lease.

    Raises:
        CheckpointError: if the store can't be used and is required.
        CheckpointMismatch: if what was saved belongs to other code or other arguments.
        OperationHeld: if another process holds the operation.
    """
    options: Resume = operation._opts.resume  # type: ignore[assignment]
    where = (hooks.checkpoints or read().checkpoints) if options.store is True else options.store
    if where is None:
        raise InvalidArgument("resume=True needs a store: configure(checkpoints='work.db'), or resume='work.db'")
    try:
        store = open_store(where)
        tell_runner(where, store)
        return _opened(operation, options, store, wait)
    except (InvalidArgument, CheckpointMismatch, OperationHeld):
        raise
    except Exception as error:
        if options.required or of_the_job(error):
            raise
        say("operation %r goes on without checkpoints: %s", operation.name, error)
        return None


def _opened(operation: OperationState, options: Resume, store: CheckpointStore, wait: float) -> Session:
    fingerprint = operation._fingerprint or options.fingerprint
    before = store.operation(operation.id)
    fresh = before is not None and _differs(before, fingerprint, options.mismatch)
    claim = Claim(operation.id, operation.name, this_process(), fingerprint, fresh)
    writer_of(store).settle(operation.id, END_SECONDS)
    session = Session(operation, store, _acquired(store, claim, wait), options.required)
    if fresh:
        session.before = None
    return session


def _differs(before: StoredOperation, fingerprint: str | None, policy: str) -> bool:
    """Whether what was saved is to be forgotten, as it belongs to other code or arguments."""
    if before.fingerprint is None or fingerprint is None or before.fingerprint == fingerprint or policy == "keep":
        return False
    if policy == "restart":
        return True
    raise CheckpointMismatch(
        f"the checkpoint of operation {before.id!r} belongs to {mask_secrets('command', before.fingerprint)}, and this "
        f"is {mask_secrets('command', fingerprint)}: use another id, or say how to go on: resume_mismatch='restart' "
        "forgets what was saved, 'keep' uses it all the same; fingerprint='v1' names the work in place of its arguments"
    )


def _acquired(store: CheckpointStore, claim: Claim, wait: float) -> Acquired:
    deadline = clock.monotonic() + wait
    while True:
        try:
            return store.acquire(claim)
        except OperationHeld:
            left = deadline - clock.monotonic()
            if left <= 0:
                raise
        pause(min(POLL, left))


class Session:
    """What a running operation saves, and what it found.

    Attributes:
        before: how the operation stood before this attempt; None in a first one.
        id: the id of the operation.
        attempt: the number of this attempt.
        careful: before how many items the key in hand is written, as the attempt before died. Written: job.
        over: whether nothing more will be written. Written: writer.
        error: why nothing can be saved now, if it can't. Written: writer. Read: job.
    """

    def __init__(self, operation: OperationState, store: CheckpointStore, acquired: Acquired, required: bool) -> None:
        """A session that holds the lease."""
        self.before = acquired.before
        self.careful = 0
        self.attempt = acquired.lease.attempt
        self.over = False
        self._ref = weakref.ref(operation)
        self.id = acquired.lease.id
        self._store = store
        self._lease = acquired.lease
        self._required = required
        self._mismatch: str = operation._opts.resume.mismatch  # type: ignore[union-attr] # it is resumable
        self._encode = getattr(store, "encode", None)
        self._decode = getattr(store, "decode", None) or json.loads
        self._writer = writer_of(store)
        self._used: dict[str, list[Scope]] = {}
        self._inner: set[str] = set()
        self._owners: dict[str, Any] = {}
        self._using: list[Scope] = []
        self._lock = threading.RLock()
        self._closed: list[str] = []
        self._withheld: list[str] = []
        self.error: CheckpointError | None = None
        self._failing_since: float | None = None
        self._lost = self._worker_lost = self._handed = self._given_up = False
        self._ended: tuple[str, str | None] | None = None
        self._span: tuple[str, str] | None = None
        self._renew_at = clock.monotonic() + RENEW
        self._summary_at = 0.0
        self._to_tell: tuple[StoredOperation, str] | None = None
        self._stored: float | None = None
        self._tell_resume_at = clock.monotonic() + SUMMARY_EVERY
        self._tell_at = 0.0
        self._untold = 0
        operation._scope = Scope("", operation)
        self.restored(operation)
        self._asked = False

    @property
    def _operation(self) -> Any:
        """The operation; None once it was dropped without an end."""
        return self._ref()

    # -- its life

    def abandon(self) -> None:
        """The operation does not start after all: free its lease."""
        self._store.write(self._lease, Batch(ended=("cancelled", "it was not started")))

    def started(self) -> None:
        """The operation started, with its span: begin to write, and say what was found."""
        ids = hooks.tracing.ids(self._operation)
        if ids is not None:
            self._span = ids.trace_id, ids.span_id
        self._writer.add(self)
        if self.before is not None and self.before.status in (RUNNING, LOST):
            self.careful = CAREFUL
        if self.before is not None:
            far = self.before.summary
            done, some = self._marks(far.stage)
            self._stored = done or (far.completed if some else None)
            self._to_tell = self.before, how_it_ended(self.before)
            tell_agent(self._operation, semconv.GEN_AI_RESUMED)
            if not done:
                self.goes_on()

    def goes_on(self, done: int | None = None, total: int | None = None) -> None:
        """Say in the feed that it goes on: as soon as it is known how many of its items are done.

        A loop over a list knows it; else it is what the store has, said at the first stage, wait or mark, after a
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

    def ended(self, node: HandleState, status: Status, reason: str | None, error: BaseException | None) -> None:
        """A handle ended.

        Raises:
            CheckpointError: if the last marks of a completed operation could not be saved.
            LeaseLost: if that is because another process took over.
        """
        scope: Scope | None = node._scope
        if scope is not None and error is not None and status is Status.FAILED:
            loop.blame(scope, error)
        if is_worker_lost(error):
            self._worker_lost = True
        if node is not self._operation:
            self._stage_ended(node, status)  # type: ignore[arg-type] # the other kind of handle
            return
        self._worker_lost = self._worker_lost and status is Status.FAILED
        if not self._lost:
            self._write_end(status, reason)
        if isinstance(self.error, LeaseLost) and status is Status.COMPLETED and self._required:
            raise self.error

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

    # -- scopes

    def stage_started(self, stage: StageState) -> None:
        """A stage started. Its path is decided now, as a later attempt repeats the order of starts."""
        self.goes_on()
        node = stage._parent
        outer: Scope = stage.operation._scope if node is None or node._scope is None else node._scope
        place = here()
        apart = stage._arguments or ("" if stage._opts.key is None else f"({as_part(stage._opts.key)})")
        with self._lock:
            doubtful = outer.doubtful() if apart else None
            while doubtful is not None:  # what its arguments tell apart needs no order
                outer = doubtful.above or outer
                doubtful = outer.doubtful()
            key = outer.item_of(place)
            base = f"{inside(outer.path, key)}{part(stage.name)}{apart}"
            stage._scope = scope = Scope(base, stage, outer, named=bool(apart), item=key)
            self._asked = self._asked or stage._opts.once
            if key is not None:
                self._inner.add(inside(outer.path, key))
            if apart:
                return
            if key is None and outer.giver:
                scope.unknown = tuple(islice(outer.giver, SHOWN))
            runs = outer.runs if key is None else outer.item_runs.setdefault(key, {})
            scope.own = mine = runs.setdefault(base, Runs())
            side_by_side = mine.open is not None and mine.open._status is Status.RUNNING
            if side_by_side or (mine.completed and mine.place != place):
                mine.mixed = True
            mine.open, mine.place = stage, place
            if mine.completed and not stage._opts.once:
                scope.path = f"{base}~{mine.completed + 1}"

    def _stage_ended(self, stage: StageState, status: Status) -> None:
        scope: Scope | None = stage._scope
        if scope is None:
            return
        with self._lock:
            if scope.own is not None and scope.own.open is stage:
                scope.own.open = None
                scope.own.completed += status is Status.COMPLETED
        if stage._opts.once and status is Status.COMPLETED:
            self._keep(stage, scope)
        if scope.path in self._used:
            scope.item = None
            if not self._worker_lost:
                scope.hand.clear()
            self.flush()
        elif scope.item_above is None and self._is_behind():
            self.flush()  # what the job said of the operation; of a stage of an item, it is not worth a write

    def _keep(self, stage: StageState, scope: Scope) -> None:
        """Keep the result of a stage that ran once: now that it completed, and not before."""
        if self.restored(stage) is None or scope.kept is not None:
            text = scope.kept or as_text("the result of a stage", {}, self._encode)
            with self._lock:
                scope.states[RESULT] = text
                using = self._used.setdefault(scope.path, [])
                if scope not in using:
                    using.append(scope)
        if not scope.named:
            scope.ran.add(scope.path)

    def _refuse(self, node: HandleState, scope: Scope) -> None:
        """Refuse what a later attempt could not tell apart from others.

        Raises:
            InvalidState: if it could not.
        """
        one = scope.doubtful()
        if one is not None:
            found = one.node()
            name = node.name if found is None else found.name
            raise InvalidState(one_of(name, one.unknown) if one.unknown else mixed(name))
        if node._opts.once and not scope.named and scope.path in scope.ran and not node._status.final:
            raise InvalidState(twice(node.name))

    def _use(self, node: HandleState, *, reads: bool = False) -> Scope:
        """The scope of a handle, with its keys read; one that only reads may do so after the end.

        Raises:
            CheckpointError: if it can't be told apart from another, or read; or if this session can't save.
        """
        if not reads or self._ended is None or self._lost:
            self.check()
        self._asked = True
        scope: Scope | None = node._scope
        if scope is None:
            raise CheckpointError(f"{node._kind} {node.name!r} has not started, so nothing of it can be saved")
        if scope.above is not None:
            self._refuse(node, scope)
        if scope.loaded is not None:
            return scope
        with self._lock:
            is_saved = all(one.clean() for one in self._used.get(scope.path, ()))
        if not is_saved:
            self._settle()  # without the lock, which the writer needs
        found = self._read(lambda: self._store.keys(self._lease.id, scope.path)) or Keys()
        with self._lock:
            if scope.loaded is None:
                scope.loaded = found
                self._used.setdefault(scope.path, []).append(scope)
        return scope

    def called(self, node: HandleState, owner: object) -> None:
        """A function that runs once is called as a stage, of this object or with this closure.

        Raises:
            InvalidState: if another object's call in this attempt has the same name and arguments.
        """
        scope: Scope | None = node._scope
        if scope is None:
            return
        try:
            mine: Any = weakref.ref(owner)
        except TypeError:
            return  # of a class with slots
        known = self._owners.get(scope.path)
        if known is None and len(self._owners) < OWNERS:
            known = self._owners.setdefault(scope.path, mine)
        if known is not None and known() is not owner:
            raise InvalidState(
                f"stage {node.name!r} runs once for each set of arguments, and was called with the same ones for two "
                "objects, so one would get the result of the other: make what tells them apart an argument"
            )

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

    # -- what the job says

    def restored(self, node: HandleState) -> dict[str, Any] | None:
        """The state that an earlier attempt left; of a stage that runs once, the result of its completed run."""
        scope = self._use(node, reads=True)
        if scope.restored is UNREAD:
            kind: Kind = RESULT if node._opts.once else STATE
            text = self._read(lambda: self._store.state(self._lease.id, scope.path, kind))
            scope.restored = None if text is None else self._decode(text)
            if node._opts.once and text is not None and node._message is None and self._ended is None:
                node.update(message="done before")  # type: ignore[attr-defined] # it looks like work that took no time
        found: dict[str, Any] | None = scope.restored
        return found

    def checkpoint(self, node: HandleState, state: dict[str, Any]) -> None:
        """Save a state with the next write; it replaces the one before."""
        scope = self._use(node)
        if node._opts.once:
            raise InvalidState(
                f"stage {node.name!r} runs once and keeps its result alone: use result(...), or leave out once=True"
            )
        text = as_text("the state of a checkpoint", state, self._encode)
        if scope.restored is UNREAD:
            self.restored(node)
        scope.states[STATE] = text

    def result(self, node: HandleState, results: dict[str, Any]) -> None:
        """Keep results of a stage that runs once; more of them are added."""
        if not node._opts.once:
            return
        scope = self._use(node)
        known = {} if scope.kept is None else self._decode(scope.kept)
        scope.kept = as_text("the result of a stage", {**known, **results}, self._encode)

    def done(self, node: HandleState, key: object) -> None:
        """Mark a key as done."""
        text = as_key(key)
        scope = self._use(node)
        if scope.automatic and scope.item == text:
            scope.outcome = scope.outcome or "done"
            return
        if self._knows(scope, text):
            return
        scope.counted = True
        if self._handed and scope.loop is None:
            self._look_elsewhere(node, text)
        self._count_restored(scope)
        if len(scope.marked) >= KEYS:
            raise CheckpointError(f"a stage keeps at most {KEYS:,} keys: keep an offset, as in checkpoint(offset=...)")
        scope.marked.add(text)
        scope.hand.pop(text, None)
        scope.pending.append(text)
        self._let_go(scope, text)
        if self.careful or (scope.loaded is not None and text in scope.loaded.suspects):
            self._settle()  # what came through a death is no suspect any more
        node.advance(1)  # type: ignore[attr-defined]
        if len(scope.pending) >= loop.HALF:
            self.press(scope)

    def is_done(self, node: HandleState, key: object) -> bool:
        """Whether a key is done, in this attempt or an earlier one."""
        text = as_key(key)
        scope = self._use(node, reads=True)
        if not scope.recounted and self._ended is None:
            self._count_restored(scope)
        if self._knows(scope, text):
            return True
        if not scope.automatic and self._ended is None:
            with self._lock:
                scope.give(text, here())
        return text in scope.seen and text != scope.item

    def _let_go(self, scope: Scope, key: str) -> None:
        """An item that the job marks itself is done or failed."""
        with self._lock:
            scope.take_back(key)
        if key in scope.item_runs or inside(scope.path, key) in self._inner:
            self.close_item(scope, key)

    @staticmethod
    def _knows(scope: Scope, key: str) -> bool:
        loaded: Keys = scope.loaded  # type: ignore[assignment]
        return key in loaded.done or key in scope.marked

    def _count_restored(self, scope: Scope) -> None:
        """Count the keys of earlier attempts as completed, once, as the code goes by `is_done` and `done`."""
        loaded, node = scope.loaded, scope.node()
        if not scope.recounted and scope.loop is None and loaded is not None and node is not None:
            scope.recounted = True
            units = len(loaded.done)
            restore(node, units if node._total is None else min(units, node._total))
            self.goes_on()

    def recorded(self, node: HandleState, outcome: str, item: object) -> None:
        """An item was recorded: one that failed is not marked as done."""
        if outcome != "failed":
            return
        key = str(item) if isinstance(item, (str, int)) else None
        above: HandleState | None = node
        while above is not None:
            scope: Scope | None = above._scope
            if scope is not None and scope.loaded is not None:
                if scope.item is not None and (key == scope.item or scope.place == here()):
                    scope.outcome = "failed"
                    return
                if key is not None and (key in scope.hand or key in scope.giver):
                    scope.hand.pop(key, None)
                    scope.failed.append(key)
                    with self._lock:
                        scope.take_back(key)
                    return
            above = None if above is self._operation else above._parent

    def loop(self, node: HandleState, items: Any, options: LoopOptions, lane: Lane | None) -> Any:
        """The items of a loop that are not done; each is marked when the next one is taken, if that is asked for.

        Raises:
            InvalidState: if a second loop is opened in a handle, and is not one that is tried again.
        """
        scope = self._use(node)
        mixed = options.mark and scope.counted and node._advanced != len(scope.marked)
        if not may_begin(scope, options, mixed) or self._runs_twice(scope):
            raise InvalidState(
                f"{node._kind} {node.name!r} has keys already, of another loop or by done(), which can't be told apart "
                "from those of this loop: give each loop a stage of its own; code that is tried again, too"
            )
        repeated, scope.again = scope.loop is not None and not scope.again, False
        if not options.mark:
            if node._total is None and lane is not None:
                node._total = lane.total
            scope.counted = True
            node._counts_itself = True  # by done(), not by what a pool has taken
        elif scope.counted and scope.loop is None:
            count_anew(node)  # the loop leaves out what was marked before it, and counts that
        if scope.loop is None:
            if options.key is None:
                self._goes_on(scope, items)
            else:
                self._look_for_position(scope, node)
        found = loop.opened(self, scope, items, options, lane)
        if repeated:
            done = scope.order.position if options.key is None else len(scope.marked)
            node.note(f"the loop begins again: {units(done, None, 'item')} {'is' if done == 1 else 'are'} done")  # type: ignore[attr-defined]
        return found

    def tries_again(self, node: HandleState) -> None:
        """The work of a handle begins again: its loop goes on, and stages inside have the keys they had before."""
        scope: Scope | None = node._scope
        if scope is None:
            return
        with self._lock:
            scope.again = scope.loaded is not None
            scope.begin_again()

    def _runs_twice(self, scope: Scope) -> bool:
        """Whether a loop of the same stage with the same key runs at the same time."""
        with self._lock:
            using = [one for one in self._used.get(scope.path, ()) if one.loop is not None and one is not scope]
        return any(node is not None and not node._status.final for node in (one.node() for one in using))

    def _look_elsewhere(self, node: HandleState, key: str) -> None:
        """Say it if a loop of another handle has handed out a key that is marked here."""
        with self._lock:
            found = [one for scopes in self._used.values() for one in scopes if key in one.hand]
        for other in (one.node() for one in found):
            if other is not None and other is not node:
                misuse.warn_of(
                    "done",
                    f"{node.name}/{other.name}",
                    "%s %r marks %s as done, which a loop of %s %r has handed out, and which stays in hand there: call "
                    "done(key) of the handle whose loop it is",
                    *(node._kind, node.name, key, other._kind, other.name),
                )

    def give(self, scope: Scope, key: str) -> None:
        """A loop that does not mark hands a key to the place that takes it."""
        self._handed = True
        with self._lock:
            scope.give(key, here())

    def collected(self, node: HandleState) -> None:
        """All items of a loop that marks are taken at once, by a comprehension or `list`: their work may follow.

        Raises:
            InvalidState: in a task, where it does: nothing is awaited in between.
        """
        if here().task is not None:
            raise InvalidState(all_at_once(node.name))
        misuse.warn_of("collected", f"{self.id}/{node.name}", "%s", all_at_once(node.name))

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

    def _look_for_position(self, scope: Scope, node: HandleState) -> None:
        """Say it if a loop by key went by position before: its items are taken again."""
        if self.before is None or (scope.loaded is not None and scope.loaded.done):
            return
        found = order.read(self._read(lambda: self._store.state(self._lease.id, scope.path, ORDER)))
        if found.position:
            text = f"the loop went by position before, and goes by key now: {found.position:,} done items come again"
            node.note(text, "warning")  # type: ignore[attr-defined] # of a handle
            say("%s %r: %s", node._kind, node.name, text)

    def _goes_on(self, scope: Scope, items: Any) -> None:
        """Read how far a loop by position is."""
        found = order.read(self._read(lambda: self._store.state(self._lease.id, scope.path, ORDER)))
        scope.order = scope.saved_order = found
        if self._mismatch == "keep":
            scope.order = scope.saved_order = found._replace(digest=None)
        elif self._mismatch == "restart" and isinstance(items, Collection):
            if len(items) < found.position or order.of(islice(items, found.position)) != found.digest:
                scope.order = order.Order()

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

    def hand_over(self) -> None:
        """Write before an item is handed out that may have killed the attempt before; called while `careful`."""
        self.careful = max(0, self.careful - 1)
        self._settle()

    def worst(self, scope: Scope) -> frozenset[str]:
        """The keys that were in hand at more deaths than any other, if those are too many for chance."""
        found = self._read(lambda: self._store.suspects(self.id)) or ()
        deaths = {one.key: one.deaths for one in found if one.scope == scope.path and not one.aside}
        most = max(deaths.values(), default=0)
        keys = frozenset(key for key, times in deaths.items() if times == most)
        return keys if most > POISON else frozenset()

    def withhold(self, node: Any, keys: Sequence[str]) -> None:
        """Leave keys for the next attempt, as one of those in hand ends the process; this one does not complete."""
        self._withheld += keys
        node.note(
            f"left for the next attempt, as one of them may end the process: {', '.join(keys[:SHOWN])}", "warning"
        )

    def close_item(self, scope: Scope, key: str) -> None:
        """An item is done, so what stages inside it kept is no longer needed."""
        with self._lock:
            scope.item_runs.pop(key, None)
            scope.item_ran.pop(key, None)
        prefix = inside(scope.path, key)
        if prefix in self._inner:
            self._inner.discard(prefix)
            self._closed.append(prefix)

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
        stage = seen.stages[-1].path if seen.stages else None
        progress = seen.progress
        if progress.completed is None and seen.stages:
            progress = seen.stages[-1].progress
        return Summary(progress.completed, progress.total, progress.unit, stage, seen.message)

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
