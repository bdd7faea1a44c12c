"""The life of an operation: its options, its start and its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal

from otel_progress import clock, semconv
from otel_progress.errors import CheckpointError, InvalidArgument, InvalidState, OperationHeld, ProgressError
from otel_progress.live import context, hooks, misuse, preload
from otel_progress.live.boundary import public
from otel_progress.live.branches import find_wait
from otel_progress.live.child_operations import adopt, let_go
from otel_progress.live.counting import restore
from otel_progress.live.diagnosis.places import sleep
from otel_progress.live.guard import NOTHING_LEFT, drops, swallow, tell_once
from otel_progress.live.handle import Handle, redact_options
from otel_progress.live.outcome import ending, hint_of, why, words
from otel_progress.live.records import PLAIN, UNSAID, OperationOptions, Parent, Resume, idle_limit
from otel_progress.live.registry import registry
from otel_progress.live.reporting import announce, report
from otel_progress.live.running import parent_of
from otel_progress.live.state import HandleState, OperationState, StageState
from otel_progress.live.track import close_lanes
from otel_progress.model import values
from otel_progress.model.origin import of_the_job
from otel_progress.model.plan import make_plan
from otel_progress.model.status import Status
from otel_progress.model.values import EMPTY

if TYPE_CHECKING:
    from typing_extensions import Self

    from otel_progress.model.plan import Plan, StagePlan


LEASE_POLL: Final = 0.25
"""Seconds between two tries to take an operation that another process holds."""


class OperationLife(Handle, OperationState):
    """An operation from its creation to its end; `handles.Operation` adds what users get from it."""

    @public(strict=True, name="operation")
    def __init__(
        self,
        name: str,
        *,
        id: str | None = None,
        plan: Plan | Iterable[StagePlan | str] | None = None,
        total: float | None = None,
        unit: str | None = None,
        description: str | None = None,
        agent: str | None = None,
        attributes: Mapping[str, object] | None = None,
        parent: Handle | Parent | str | None = None,
        stall_after: float | None = UNSAID,
        slow_after: float | None = None,
        start_within: float | None = None,
        loop_after: int | None = None,
        stall_policy: Literal["report", "cancel"] = "report",
        heartbeat_counts: bool = False,
        restored: float | None = None,
        resume: object = None,
        fingerprint: str | None = None,
        resume_mismatch: Literal["raise", "restart", "keep"] = "raise",
        wait_for_lease: float | None = None,
        required: bool = True,
    ) -> None:
        """An operation that has not started; see `otel_progress.operation`."""
        if not isinstance(name, str) or not name:
            raise InvalidArgument(f"an operation's name must be a text that is not empty, not {values.shown(name)}")
        preload.load()
        self.name = values.text(name, drops, values.NAME_LENGTH)
        options = OperationOptions(
            None if id is None else values.text(id, drops, values.NAME_LENGTH),
            _plan(plan),
            None if description is None else values.text(description, drops),
            None if agent is None else values.text(agent, drops, values.NAME_LENGTH),
            _known_parent(parent),
            idle_limit(stall_after, values.positive),
            values.positive("slow_after", slow_after),
            values.positive("start_within", start_within),
            bool(heartbeat_counts),
            _repeats(loop_after),
            _cancels(stall_policy),
            _resume(id, resume, fingerprint, resume_mismatch, wait_for_lease, required),
        )
        if options != PLAIN:
            self._opts = options
        if total is not None or unit is not None:
            self._measure(total, unit, None)
        if attributes:
            self._with_extras().attributes = values.attributes(attributes, drops)
        done = values.size("restored", restored)
        if done:
            restore(self, done)
        self._created = clock.monotonic()
        if options.start_within is not None:
            redact_options(self)
            registry.expect(self)

    # -- identity

    @property
    def id(self) -> str:
        """The id of this run, unique unless the caller gave it."""
        if self._id is None:
            self._id = self._opts.id or f"{registry.prefix}-{next(registry.numbers):x}"
        return self._id

    @property
    def parent_id(self) -> str | None:
        """The id of the operation that it is part of, if any."""
        parent = self._opts.parent or self._parent
        if isinstance(parent, HandleState):
            return None if isinstance(parent, StageState) and parent._op is None else parent.operation.id
        return parent.operation_id if isinstance(parent, Parent) else parent

    @property
    def status(self) -> Status:
        """What happened to it; waiting while all that runs in it waits."""
        if self._status is Status.RUNNING and self._running:
            try:
                return Status.RUNNING if find_wait(self, 0.0) is None else Status.WAITING
            except BaseException as error:
                try:
                    swallow(error, "status")
                except NOTHING_LEFT:
                    pass
        return Status.WAITING if self._waits and not self._status.final else self._status

    # -- its life

    def start(self) -> Self:
        """Start it, without making it current.

        Raises:
            InvalidState: if it was started before.
            DuplicateOperation: if another with its id runs in this process.
        """
        if self._status is not Status.PENDING or self._started is not None:
            what = "ended before its start" if self._started is None else "was started before"
            raise InvalidState(f"operation {self.name!r} {what}; make a new operation(...) for each run")
        try:
            self._start()
        except BaseException as error:
            try:
                swallow(error, "the start of an operation")
            except NOTHING_LEFT:
                pass
        return self

    def _start(self) -> None:
        if self._advanced:
            misuse.too_early(self, "advance")
        if hooks.on_first is not None:
            hooks.on_first()
        options = self._opts
        adopted = self._adopted
        if options.parent is None and adopted is None:
            self._parent = _running_around()
            self._opts = options = options if self._parent is not None else _inheriting(options)
        self._generation = registry.generation
        if options.cancels and not hooks.wanted and preload.load():
            preload.get("live.engine.runtime").want()  # the ticker has to run
        if options.resume is not None and self._session is None:
            self._open_session(options.resume.wait_for_lease)
        if options.id is not None:
            self._register()
        redact_options(self)
        now, self._started_ns = clock.monotonic(), clock.time_ns()
        if adopted is not None:
            self._started_ns -= round((now - adopted.started) * 1e9)
            now = adopted.started
        self._started = self._moved_at = self._observe_at = now
        self._status = Status.RUNNING
        if registry.listed is not None:
            registry.listed[id(self)] = self
        try:
            hooks.tracing.start(self, options.parent or self._parent, self._started_ns)
        except BaseException:
            tell_once("no span could be started for an operation; the job goes on")
        try:
            if hooks.wanted:
                announce(self)
            if adopted is not None:
                self._place = adopted.place
            parent = parent_of(self)
            if parent is not None:
                adopt(parent, self)
        except ProgressError:
            raise
        except BaseException:
            tell_once("telemetry failed at the start of an operation; the job goes on")
        if self._session is not None:
            self._session.started()

    def _register(self) -> None:
        """Register it; its attempt follows from earlier ones with its id, here or in its store."""
        session = self._session
        try:
            registry.add(self)
        except BaseException:
            if session is not None:
                session.abandon()
            raise
        if session is not None:
            self.attempt = max(self.attempt, session.attempt)

    def _open_session(self, wait: float | None) -> None:
        """Take the operation from its store, and wait at most the given seconds for its lease.

        Raises:
            CheckpointError: if that can't be done.
        """
        registry.refuse_duplicate(self)
        self._generation = registry.generation
        try:
            self._session = session = hooks.open_session(self, wait or 0.0)
        except ProgressError:
            raise
        except Exception as error:  # of a store that somebody else wrote, or of an import
            if of_the_job(error):
                raise
            raise CheckpointError(
                f"the checkpoint store can't be used: {words(error)}; required=False goes on without it"
            ) from error
        before = None if session is None else session.before
        if before is not None and before.trace_id and before.span_id:
            self._earlier_span = before.trace_id, before.span_id

    def _finish(self, status: Status, reason: str | None, error: BaseException | None) -> None:
        try:
            self._end(status, reason, error)
        except BaseException as broken:
            if self._announced and not self._end_deferred and self._status is Status.RUNNING:
                self._end_deferred = True
                registry.dropped.append((self, status, reason))  # the ticker ends it
            try:
                swallow(broken, "the end of an operation")
            except NOTHING_LEFT:
                pass

    def _end(self, status: Status, reason: str | None, error: BaseException | None) -> None:
        running, self._running = self._running, {}  # at once, so that many stages end in a time that grows as they do
        for stage in reversed(tuple(running or ())):
            stage._finish(status, reason, None)
        unsaved = self._unsaved(status)
        if unsaved is not None:
            status = Status.FAILED if isinstance(unsaved, ProgressError) else ending(unsaved)
            reason, error = words(unsaved), unsaved
        hint = None if error is None or status is Status.COMPLETED else hint_of(error)
        with registry.lock:
            before = self._status
            if before is not Status.RUNNING and before is not Status.PENDING:
                return
            if status is Status.CANCELLED:
                reason = why(reason, self._cancel_reason)
            self._reason = reason
            if hint is not None and self._hint is None:
                self._hint = hint
            self._ended = clock.monotonic()
            self._final_advanced = self._advanced
            self._status = status
        if before is Status.PENDING or not registry.owns(self):
            return
        if self._lanes is not None:
            close_lanes(self)
        try:
            if self._session is not None:
                self._session.ended(self, status, reason, error)
        except CheckpointError as late:
            unsaved, status, reason, error = late, Status.FAILED, words(late), late
            with registry.lock:
                self._status, self._reason = status, reason
        finally:
            self._report_end(status, reason, error)
        if unsaved is not None:
            raise unsaved

    def _unsaved(self, status: Status) -> BaseException | None:
        """Save what is left before the end; returns why that failed, or what interrupted it, such as Ctrl+C."""
        if self._session is None or self._status is not Status.RUNNING:
            return None
        try:
            unsaved: CheckpointError | None = self._session.unsaved(status)
        except BaseException as stopped:
            if isinstance(stopped, ProgressError) or of_the_job(stopped):
                return stopped
            tell_once("telemetry failed before the end of an operation; the job goes on")
            return None
        return unsaved

    def _report_end(self, status: Status, reason: str | None, error: BaseException | None) -> None:
        parent = parent_of(self)
        if parent is not None:
            let_go(parent, self)
        if self._announced or self._opts.id is not None:
            registry.remove(self, given=self._opts.id is not None)
        if self._announced:
            report(semconv.OPERATION_ENDED, self, EMPTY)
        if self._span is not None:
            hooks.tracing.end(self, status, reason, error, clock.time_ns())

    # -- with and async with

    def __enter__(self) -> Self:
        """Start it, and make it current."""
        fresh = self._started is None
        try:
            self.start()
            context.enter(self)
        except BaseException as error:
            try:
                swallow(error, "the start of an operation")
            except NOTHING_LEFT:
                pass
            except BaseException as meant:  # a signal handler's: the block is never entered
                if fresh and self._started is not None:
                    self.__exit__(type(meant), meant, None)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it; an exception passes unchanged."""
        try:
            if error is None:
                self._finish(Status.COMPLETED, None, None)
            else:
                self._finish(ending(error), words(error), error)
        except BaseException as broken:
            try:
                swallow(broken, "the end of an operation")
            except NOTHING_LEFT:
                pass
        finally:
            try:
                context.leave(self)
            except NOTHING_LEFT:
                pass

    async def __aenter__(self) -> Self:
        """Start it, and make it current."""
        options = self._opts.resume
        if options is not None and options.wait_for_lease and self._started is None and self._session is None:
            await self._open_later(options.wait_for_lease)
        return self.__enter__()

    async def _open_later(self, wait: float) -> None:
        """Take the operation from its store; the event loop goes on while another process holds it."""
        deadline = clock.monotonic() + wait
        while True:
            try:
                self._open_session(None)
            except OperationHeld:
                if clock.monotonic() >= deadline:
                    raise
            else:
                return
            await sleep(LEASE_POLL)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.__exit__(kind, error, trace)

    def __del__(self) -> None:
        if self._status is Status.RUNNING and self._announced:
            registry.dropped.append((self, Status.INTERRUPTED, "dropped without an end"))


def _inheriting(options: OperationOptions) -> OperationOptions:
    """The options, with the operation of another process that this work is for as the parent, if there is one."""
    given = context.inherited.get()
    return options if given is None else options._replace(parent=given)


def _running_around() -> HandleState | None:
    """The innermost handle here that runs, that of a live span included."""
    above = context.innermost.get()
    if hooks.watcher is not None:
        above = hooks.watcher.here(above) or above
    while above is not None and above._status is not Status.RUNNING:
        above = above._parent
    return above


def _known_parent(given: Any) -> HandleState | Parent | str | None:
    if isinstance(given, str):
        return values.text(given, drops, values.NAME_LENGTH)
    if isinstance(given, Parent) and given.operation_id is not None:
        key, name, service = (
            None if it is None else values.text(it, drops, values.NAME_LENGTH)
            for it in (given.operation_id, given.name, given.service)
        )
        return Parent(key, given.context, name, service)
    if given is not None and not isinstance(given, (HandleState, Parent)):
        raise InvalidArgument(
            f"parent is an operation, a stage, what extract() found, or an id, not {values.shown(given)}"
        )
    found: Any = given
    return found  # type: ignore[no-any-return]


def _resume(id: object, store: Any, fingerprint: Any, mismatch: Any, wait: Any, required: Any) -> Resume | None:
    if store is None or store is False:
        return None
    if id is None:
        raise InvalidArgument("resume needs id=..., the same in each attempt: it is what a later attempt is found by")
    _check_id(id)
    if mismatch not in ("raise", "restart", "keep"):
        raise InvalidArgument(f"resume_mismatch is 'raise', 'restart' or 'keep', not {values.shown(mismatch)}")
    if fingerprint is not None and (not isinstance(fingerprint, str) or not fingerprint):
        raise InvalidArgument(f"fingerprint is a text, such as a version, not {values.shown(fingerprint)}")
    return Resume(store, fingerprint, mismatch, values.size("wait_for_lease", wait), bool(required))


def _check_id(id: object) -> None:
    """Refuse an id that a later attempt would not be found by, or that would be cut to another one.

    Raises:
        InvalidArgument: if it is such an id.
    """
    kept = values.text(id, drops, values.NAME_LENGTH)
    if callable(id) or " at 0x" in kept or not kept.strip():
        raise InvalidArgument(
            f"id={values.shown(id)} is no id that a later attempt could be found by: give a text or a number"
        )
    if isinstance(id, str) and kept != id:
        raise InvalidArgument(
            f"the id of a resumable operation has at most {values.NAME_LENGTH} printable characters, and another one "
            f"than {values.shown(id)} could look the same: use a shorter one, or a digest of it"
        )


def _repeats(given: Any) -> int | None:
    if given is None or (type(given) is int and given >= 2):
        return given
    raise InvalidArgument(f"loop_after must be a whole number of at least 2, not {values.shown(given)}")


def _cancels(policy: object) -> bool:
    if isinstance(policy, str) and policy in ("report", "cancel"):
        return policy == "cancel"
    raise InvalidArgument(f"stall_policy is 'report' or 'cancel', not {values.shown(policy)}")


def _plan(given: Plan | Iterable[StagePlan | str] | None) -> Plan | None:
    return None if given is None else make_plan(given)
