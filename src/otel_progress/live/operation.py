"""One run of a long piece of work."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypedDict, TypeVar

from otel_progress import clock, semconv
from otel_progress.errors import InvalidArgument, InvalidState, ProgressError
from otel_progress.live import callsite, context, hooks, preload, redaction
from otel_progress.live.boundary import public
from otel_progress.live.branches import find_wait, touch_lanes
from otel_progress.live.child_operations import ChildOperations
from otel_progress.live.drops import drops
from otel_progress.live.guard import NOTHING_LEFT, swallow, tell_once
from otel_progress.live.handle import Handle
from otel_progress.live.leaving import leave_child
from otel_progress.live.outcome import ending, words
from otel_progress.live.registry import registry
from otel_progress.live.running import fold
from otel_progress.live.trail import keep
from otel_progress.model import feed, values
from otel_progress.model.plan import make_plan
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Health, Status
from otel_progress.model.values import EMPTY, Attributes

if TYPE_CHECKING:
    from otel_progress.live.engine.listeners import Listener
    from otel_progress.live.engine.parallel import Judged
    from otel_progress.live.engine.watchdog import Trouble
    from otel_progress.live.stage import Stage
    from otel_progress.live.track import Request
    from otel_progress.live.waits import Waiting
    from otel_progress.model.plan import Plan, StagePlan
    from otel_progress.model.repeats import FoldedRuns
    from otel_progress.model.snapshot import Note

    class OperationGiven(TypedDict, total=False):
        """What may be said of an operation beside its name; see `otel_progress.operation`."""

        id: str | None
        plan: Plan | Iterable[StagePlan | str] | None
        total: float | None
        unit: str | None
        description: str | None
        agent: str | None
        attributes: Mapping[str, object] | None
        parent: Operation | Stage | Parent | str | None
        stall_after: float | None
        slow_after: float | None
        start_within: float | None
        loop_after: int | None
        stall_policy: Literal["report", "cancel"]
        heartbeat_counts: bool


NOTES: Final = 20
"""Lines of the activity feed that a snapshot holds."""
WEIGHED: Final = 1_000
"""Stage names that may take part in the ratio."""
NEAR: Final = 64
"""Stages around one that hear in its own thread that it moved."""
_NEAR: Final = range(NEAR)

F = TypeVar("F", bound="Callable[..., Any] | classmethod[Any, ..., Any] | staticmethod[..., Any]")


def decorate(template: Operation | Stage, fn: F) -> F:
    """The function with an operation or a stage for each call; where that can't be made, the function itself."""
    try:
        registry.pending.discard(template)  # type: ignore[arg-type] # a pattern, itself never to be started
        decorated: F = hooks.wrap(fn, template)
    except BaseException as error:
        try:
            swallow(error, "a decorator; the function runs without it")
        except NOTHING_LEFT:
            pass
        return fn
    return decorated


class Parent(NamedTuple):
    """An operation elsewhere, as `extract` found it: its id, and its OpenTelemetry context."""

    operation_id: str | None
    context: Any = None


class OperationOptions(NamedTuple):
    """What was said of an operation when it was made."""

    id: str | None = None
    plan: Plan | None = None
    description: str | None = None
    agent: str | None = None
    parent: Any = None
    stall_after: float | None = None
    slow_after: float | None = None
    start_within: float | None = None
    heartbeat_counts: bool = False
    loop_after: int | None = None
    cancels: bool = False


PLAIN: Final = OperationOptions()
_BLANK: Final = Snapshot("", "", Status.PENDING, 0.0)
UNSAID: Final[Any] = object()
"""The limit is not named: it is inherited, or learned."""


def idle_limit(given: float | None, check: Callable[[str, float | None], float | None]) -> float | None:
    """`stall_after` as options hold it: None where it was not said, infinity where it may idle (`None`, said so)."""
    if given is UNSAID:
        return None
    return math.inf if given is None else check("stall_after", given)


class Operation(Handle):
    """An operation, for `with`, `async with`, or `start()` and `complete()`, `fail()`, `cancel()`.

    `with operation.use():` makes a started one current where that is wanted.
    """

    attempt = 1
    _id: str | None = None
    _opts: OperationOptions = PLAIN
    _generation = -1
    _sequence = 0
    _cancel_reason: str | None = None
    _request: Request | None = None
    _stages: list[Stage] | None = None
    _running: dict[Stage, None] | None = None
    """The stages that run, in the order of their start; a dict, so that one leaves it in one step."""
    _pauses: dict[Waiting, None] | None = None
    """The declared waits that are open anywhere in it."""
    _first_stage: Stage | None = None
    _weighed: dict[str, Stage] | None = None
    _folded: dict[str, tuple[int, float]] | None = None
    _runs: FoldedRuns | None = None
    _notes: deque[Note] | None = None
    _listeners: list[Listener] | None = None
    _verdict_listeners: list[Listener] | None = None
    _estimate_ends = math.inf
    """When to tell whether the rate or ETA that was told still holds (s, monotonic)."""
    _health = Health.PROGRESSING
    _health_reason: str | None = None
    _check_at = 0.0
    _overdue = False
    _stalled_at: float | None = None
    _troubles: dict[object, Trouble] | None = None
    _worst: Judged | None = None
    _tracks = False
    """Whether a loop was opened anywhere in it."""
    _slow = False
    _children: ChildOperations | None = None
    _late = False
    _rationed: deque[Any] | None = None
    _stage_tokens: Any = None
    _over = False
    _said = 0
    _told = 0
    _surveyed: tuple[float, Any] | None = None
    _seen_by_ticker = False

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
        parent: Operation | Stage | Parent | str | None = None,
        stall_after: float | None = UNSAID,
        slow_after: float | None = None,
        start_within: float | None = None,
        loop_after: int | None = None,
        stall_policy: Literal["report", "cancel"] = "report",
        heartbeat_counts: bool = False,
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
        )
        if options != PLAIN:
            self._opts = options
        if total is not None or unit is not None:
            self._measure(total, unit, None)
        if attributes:
            self._with_more().attributes = values.attributes(attributes, drops)
        self._created = clock.monotonic()
        if options.start_within is not None:
            redaction.of_start(self)
            registry.expect(self)

    @classmethod
    def _fresh(cls, template: Operation) -> Operation:
        """Another operation with the same options, as a decorated function needs one for each call."""
        operation: Operation = cls.__new__(cls)
        operation.name = template.name
        operation._opts = template._opts
        if template._total is not None:
            operation._total = template._total
        operation._unit = template._unit
        more = template._more
        if more is not None:
            operation._with_more().attributes = more.attributes
        if template._opts.start_within is not None:
            operation._created = clock.monotonic()
        return operation

    @classmethod
    def _quiet(cls, template: Operation) -> Operation:
        """A running operation that nobody watches: what its own code may ask for, and nothing else."""
        operation: Operation = cls.__new__(cls)
        operation.name = template.name
        operation._opts = template._opts
        operation._parent = context.innermost.get()
        operation._generation = registry.generation
        operation._started = operation._moved_at = clock.monotonic()
        operation._status = Status.RUNNING
        if registry.listed is not None:
            registry.listed.add(operation)
        if template._more is not None or template._total is not None or template._unit_named:
            operation._total, operation._unit = template._total, template._unit
            if template._more is not None:
                operation._with_more().attributes = template._more.attributes
        return operation

    # -- who it is

    @property
    def operation(self) -> Operation:
        """Itself."""
        return self

    @property
    def id(self) -> str:
        """The id of this run; unique, unless the caller gave it."""
        if self._id is None:
            self._id = self._opts.id or f"{registry.prefix}-{next(registry.numbers):x}"
        return self._id

    @property
    def parent_id(self) -> str | None:
        """The id of the operation that it is part of, if any."""
        parent = self._opts.parent or self._parent
        if isinstance(parent, Handle):
            return parent.operation.id if getattr(parent, "_op", parent) is not None else None
        return parent.operation_id if isinstance(parent, Parent) else parent

    @property
    def status(self) -> Status:
        """What happened to it so far; it waits while one of its stages does."""
        if self._status is Status.RUNNING and self._running:
            try:
                return Status.RUNNING if find_wait(self, 0.0) is None else Status.WAITING
            except BaseException as error:
                try:
                    swallow(error, "status")
                except NOTHING_LEFT:
                    pass
        return Status.WAITING if self._waits and not self._status.final else self._status

    @property
    def _ours(self) -> bool:
        """Whether it was started in this process, not in the one that this was forked from."""
        return self._generation == registry.generation

    # -- its life

    def start(self) -> Operation:
        """Start it, without making it current.

        Raises:
            InvalidState: if it was started before.
            DuplicateOperation: while another with its id runs in this process.
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
            self._too_early("advance")
        options = self._opts
        above = context.innermost.get()
        if above is not None and options.parent is None:
            while above is not None and above._status is not Status.RUNNING:
                above = above._parent
            self._parent = above
        self._generation = registry.generation
        if options.cancels and not hooks.wanted and preload.load():
            preload.get("live.engine.runtime").want()  # somebody has to look
        if options.id is not None:
            registry.add(self)
        redaction.of_start(self)
        self._started = self._moved_at = self._observe_at = clock.monotonic()
        self._started_ns = clock.time_ns()
        self._status = Status.RUNNING
        if registry.listed is not None:
            registry.listed.add(self)
        try:
            hooks.tracing.start(self, options.parent or self._parent, self._started_ns)
        except BaseException:
            tell_once("no span could be started for an operation; the job goes on")
        try:
            if hooks.wanted:
                self._announce()
            parent = self._parent_here()
            if parent is not None:
                parent._adopt(self)
        except ProgressError:
            raise
        except BaseException:
            tell_once("telemetry failed at the start of an operation; the job goes on")

    def _announce(self) -> None:
        """Somebody takes events: stand in the registry, and tell of the start."""
        if self._opts.id is None:
            registry.add(self)
        self._seen_by_ticker = True
        for prepare in hooks.on_operation:
            prepare(self)
        self._report(semconv.OPERATION_STARTED, self, EMPTY)

    def _finish(self, status: Status, reason: str | None, error: BaseException | None) -> None:
        try:
            self._end(status, reason, error)
        except BaseException as broken:
            if self._seen_by_ticker and not self._left and self._status is Status.RUNNING:
                self._left = True
                registry.dropped.append((self, status, reason))  # the ticker ends it
            try:
                swallow(broken, "the end of an operation")
            except NOTHING_LEFT:
                pass

    def _end(self, status: Status, reason: str | None, error: BaseException | None) -> None:
        running, self._running = self._running, {}  # at once, so that many stages end in a time that grows as they do
        for stage in reversed(tuple(running or ())):
            stage._finish(status, reason, None)
        with registry.lock:
            before = self._status
            if before is not Status.RUNNING and before is not Status.PENDING:
                return
            if status is Status.CANCELLED and self._cancel_reason is not None:
                reason = _why(reason, self._cancel_reason)
            self._reason = reason
            self._ended = clock.monotonic()
            self._status = status
        if before is Status.PENDING or not self._ours:
            return
        if self._lanes is not None:
            self._close_lanes()
        parent = self._parent_here()
        if parent is not None:
            parent._let_go(self)
        if self._seen_by_ticker or self._opts.id is not None:
            registry.remove(self, given=self._opts.id is not None)
        if self._seen_by_ticker:
            self._report(semconv.OPERATION_ENDED, self, EMPTY)
        if self._span is not None:
            hooks.tracing.end(self, status, reason, error, clock.time_ns())

    # -- with and async with

    def __enter__(self) -> Operation:
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
        """End it with what happened; an exception passes unchanged."""
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

    async def __aenter__(self) -> Operation:
        """Start it, and make it current."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it with what happened."""
        self.__exit__(kind, error, trace)

    def __call__(self, fn: F) -> F:
        """Decorate a function: each call of it is an operation of its own."""
        return decorate(self, fn)

    def __del__(self) -> None:
        if self._status is Status.RUNNING and self._seen_by_ticker:
            registry.dropped.append((self, Status.INTERRUPTED, "dropped without an end"))

    # -- what is known of it

    def snapshot(self) -> Snapshot:
        """Everything that is known of it now, as an immutable value.

        Where no memory is left to find more, it holds only who it is and its status.
        """
        try:
            now = clock.monotonic()
            if not self._seen_by_ticker and self._status is Status.RUNNING:
                preload.get("live.engine.sampling").sample(self, now)  # nobody else looks
            found: Snapshot = preload.get("live.engine.capture").capture(self, now, clock.time_ns())
        except BaseException as error:
            try:
                swallow(error, "snapshot")
            except NOTHING_LEFT:
                pass
            try:
                found = object.__new__(Snapshot)
                vars(found).update(vars(_BLANK), operation_id=self._id or self._opts.id or "", name=self.name)
                vars(found).update(status=self._status, timestamp=self._started_ns / 1e9)
            except NOTHING_LEFT:
                found = _BLANK
        return found

    def summary(self) -> str:
        """What became of it in a few lines: status, time, progress, stages, outcomes, results."""
        try:
            text: str = preload.get("model.summary").summary(self.snapshot())
        except BaseException as error:
            try:
                swallow(error, "summary")
            except NOTHING_LEFT:
                pass
            return f"{self.name}: {self._status._value_}"
        return text

    def summary_dict(self) -> dict[str, Any]:
        """What `summary` tells as plain JSON, under the keys of `Snapshot.to_dict()`; durations in seconds."""
        try:
            found: dict[str, Any] = preload.get("model.summary").summary_dict(self.snapshot())
        except BaseException as error:
            try:
                swallow(error, "summary_dict")
            except NOTHING_LEFT:
                pass
            return {"operation_id": self._id or self._opts.id or "", "name": self.name, "status": self._status._value_}
        return found

    # -- what its handles report

    def _report(self, event: str, node: Handle, attributes: Attributes) -> None:
        if not self._ours or self._started is None or not (hooks.wanted or node._span is not None):
            return
        now = clock.time_ns()
        if node._span is not None:
            keep(node, event, now, attributes)
        if hooks.wanted:
            registry.report(event, self, node, now, attributes)

    def _first(self, stage: Stage) -> list[Stage]:
        """Begin the list of stages."""
        with registry.lock:
            if self._stages is None:
                self._first_stage = stage
                self._running = {}
                self._stages = []
            return self._stages

    def _fold(self) -> None:
        fold(self)

    def _weigh(self, stage: Stage) -> None:
        """Let a stage take part in the ratio: planned ones, and others that name a weight."""
        plan = self._opts.plan
        if stage._parent is not self or plan is None:
            return
        if self._weighed is None:
            self._weighed = {}
        position = plan.index(stage.name)
        if position is not None:
            planned = plan.stages[position]
            if stage._total is None and planned.total is not None:
                stage._total = planned.total
            if not stage._unit_named and planned.unit is not None:
                stage._unit = planned.unit
        if position is not None or (stage._opts.weight is not None and len(self._weighed) < WEIGHED):
            self._weighed[stage.name] = stage
        elif stage._opts.weight is None:
            known = ", ".join(planned.name for planned in plan.stages[:5]) + (", …" if len(plan.stages) > 5 else "")
            callsite.warn(
                "stage",
                "opens %r, which is not in the plan of operation %r (%s), so it doesn't move the percentage; "
                "name it there, or give stage(..., weight=)",
                stage.name,
                self.name,
                known,
            )

    def _touch(self, node: Handle | None, now: float) -> None:
        """Something got done: the idle time of the node, and of what is around it, starts at zero.

        Of very deep stages the ticker tells those farther out.
        """
        self._moved_at = now
        for _ in _NEAR:
            if node is None or node is self:
                return
            node._moved_at = now
            node = node._parent

    def _heard(self, node: Handle) -> None:
        """The work gave a heartbeat; it is progress only where the user says so."""
        if self._opts.heartbeat_counts:
            node._bumps += 1

    # -- its children in this process

    def _host(self) -> Handle | None:
        """The operation or stage of this process in which it was started, if any."""
        given = self._opts.parent
        host = given if isinstance(given, Handle) else self._parent if given is None else None
        return None if host is None or getattr(host, "_op", host) is None else host

    def _parent_here(self) -> Operation | None:
        """The operation of this process that it is a part of, if any."""
        host = self._host()
        if host is not None:
            return host.operation
        given = self._opts.parent
        key = given.operation_id if isinstance(given, Parent) else given
        known = registry.live.get(key) if key is not None else None
        return None if known is None else known()

    def _adopt(self, child: Operation) -> None:
        """A child started: the branch that started it waits for it."""
        if child is self or not self._ours:
            return
        children = self._children
        if children is None:
            # one step, so that two threads get the same
            children = vars(self).setdefault("_children", ChildOperations())
        children.take(child)
        child._begin_in(child._host() or self)
        self._check_at = 0.0

    def _let_go(self, child: Operation) -> None:
        """A child ended, which is progress of the branch that waited for it."""
        if self._children is not None:
            self._children.leave(child)
        leave_child(child, child._host() or self)
        if self._status is Status.RUNNING:
            host, ended = child._host() or self, child._ended or clock.monotonic()
            self._touch(host, ended)
            if self._tracks:
                touch_lanes(host, child._place, ended)
            self._check_at = 0.0

    def _add_note(self, note: Note) -> None:
        if self._notes is None:
            self._notes = deque(maxlen=NOTES)
        feed.add(self._notes, note)

    def _used(self, key: str, amount: float) -> None:
        if hooks.wanted:
            registry.used(self.name, key, amount)


def _known_parent(given: Any) -> Operation | Stage | Parent | str | None:
    if isinstance(given, str):
        return values.text(given, drops, values.NAME_LENGTH)
    if isinstance(given, Parent) and given.operation_id is not None:
        return Parent(values.text(given.operation_id, drops, values.NAME_LENGTH), given.context)
    if given is not None and not isinstance(given, (Handle, Parent)):
        raise InvalidArgument(
            f"parent is an operation, a stage, what extract() found, or an id, not {values.shown(given)}"
        )
    found: Any = given
    return found  # type: ignore[no-any-return]


def _why(reason: str | None, asked: str) -> str:
    """Why it was cancelled: what its end says, or where that says nothing, why somebody asked for it."""
    says_nothing = reason is None or reason in ("CancelledError", "Cancelled")
    return f"cancelled: {asked}" if says_nothing else str(reason)


def _repeats(given: Any) -> int | None:
    if given is None or (type(given) is int and given >= 2):
        return given
    raise InvalidArgument(
        f"loop_after is how often the same step may come in a row, a whole number from 2 on, not {values.shown(given)}"
    )


def _cancels(policy: object) -> bool:
    if isinstance(policy, str) and policy in ("report", "cancel"):
        return policy == "cancel"
    raise InvalidArgument(f"stall_policy is 'report' or 'cancel', not {values.shown(policy)}")


def _plan(given: Plan | Iterable[StagePlan | str] | None) -> Plan | None:
    return None if given is None else make_plan(given)


registry.kind = Operation


def share_names(cls: type[Handle], names: tuple[str, ...]) -> None:
    """Have CPython share these attribute names among all instances.

    It does so only for names that one of the first instances had; an instance with another one needs a dict of its
    own, which takes more memory than all the rest of it. There is room for 29 names.
    """
    first = cls.__new__(cls)
    for name in names:
        setattr(first, name, getattr(cls, name, None))


share_names(
    Operation,
    (
        *(
            "name",
            "_opts",
            "_parent",
            "_generation",
            "_started",
            "_moved_at",
            "_started_ns",
            "_status",
            "_total",
            "_unit",
        ),
        *(
            "_created",
            "_observe_at",
            "_id",
            "_span",
            "_seen_by_ticker",
            "_trail",
            "_advanced",
            "_check_at",
            "_sequence",
        ),
        *("_told", "_sound", "_shown", "_seen", "_pace", "_lived", "_more", "_context", "_place", "_learned"),
    ),
)
