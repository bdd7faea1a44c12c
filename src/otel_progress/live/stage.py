"""The life of a stage: its options, its start and its end, counted in nanoseconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypedDict

from otel_progress import clock, semconv
from otel_progress.errors import InvalidArgument, InvalidState
from otel_progress.live import context, hooks, misuse
from otel_progress.live.boundary import public
from otel_progress.live.counting import begin_in
from otel_progress.live.diagnosis.places import here as this_place
from otel_progress.live.guard import NOTHING_LEFT, drops, swallow
from otel_progress.live.handle import Handle, redact_options
from otel_progress.live.nested_counts import leave
from otel_progress.live.outcome import ending, why, words
from otel_progress.live.records import PLAIN as NO_OPTIONS
from otel_progress.live.records import PLAIN_STAGE, UNSAID, StageOptions, idle_limit
from otel_progress.live.registry import CHANGES, registry
from otel_progress.live.running import fold, touch
from otel_progress.live.state import HandleState, OperationState, StageState
from otel_progress.live.track import close_lanes
from otel_progress.model import values
from otel_progress.model.status import Status
from otel_progress.model.values import EMPTY

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    class StageGiven(TypedDict, total=False):
        """The options of a stage.

        Attributes:
            weight: its share of the whole, if the operation has a plan; by default that of the plan.
            total: units in all.
            unit: what is counted, as a UCUM unit or a plain word (`By`, `file`).
            description: what it does, in words.
            message: the current step in words.
            expected: the expected duration, in seconds.
            stall_after: seconds without progress after which it is stuck; an explicit None lets it idle.
            critical: whether it is critical; shown only.
            depends_on: names of stages that it needs; shown only.
            attributes: further attributes.
            once: whether a resumed operation leaves it out if it completed before.
            key: what it works on, a text or a whole number: tells it apart from others of its name after a resume.
        """

        weight: float | None
        total: float | None
        unit: str | None
        description: str | None
        message: object
        expected: float | None
        stall_after: float | None
        critical: bool
        depends_on: Iterable[str]
        attributes: Mapping[str, object] | None
        once: bool
        key: str | int | None


RUNNING: Final = Status.RUNNING
COMPLETED: Final = Status.COMPLETED
NOTHING: Final = HandleState._advanced
STAGE_STARTED: Final = semconv.STAGE_STARTED
STAGE_ENDED: Final = semconv.STAGE_ENDED
innermost: Final = context.innermost
KNOWN_NAMES: Final = 1_000
"""Valid names that are remembered."""
_names: Final[set[str]] = set()
MANY: Final = 256
"""Ended stages that an unwatched operation keeps before it folds the older ones."""
WEIGHED: Final = 1_000
"""Stage names that may take part in the ratio."""


class StageLife(Handle, StageState):
    """A stage from its creation to its end; `handles.Stage` adds what users get from it."""

    def __init__(self, name: str, *, parent: Handle | None = None, **options: Unpack[StageGiven]) -> None:
        """A stage that has not started.

        Args:
            name: the name, of few values, as it is a label of metrics.
            parent: the handle around it; by default the one that runs here.
            options: see `StageGiven`: `weight`, `total`, `unit`, `description`, `message`,
                `expected`, `stall_after`, `critical`, `depends_on`, `attributes`.

        Raises:
            InvalidArgument: if an option is invalid: a negative weight or total, a time that is not above 0.
        """
        if parent is not None:
            if not issubclass(type(parent), HandleState):
                raise InvalidArgument(f"parent is an operation or a stage, not {values.shown(parent)}")
            self._parent = parent
        try:
            self.name = name if type(name) is str and name in _names else _name(name)
            if options:
                self._given(**options)
        except BaseException as error:
            try:
                swallow(error, "stage")
            except NOTHING_LEFT:
                pass

    @public(strict=True, name="stage")
    def _given(
        self,
        *,
        weight: float | None = None,
        total: float | None = None,
        unit: str | None = None,
        description: str | None = None,
        message: object = None,
        expected: float | None = None,
        stall_after: float | None = UNSAID,
        critical: bool = True,
        depends_on: Iterable[str] = (),
        attributes: Mapping[str, object] | None = None,
        once: bool = False,
        key: str | int | None = None,
    ) -> None:
        """Take the options of `StageGiven`."""
        self._measure(total, unit, message)
        options = StageOptions(
            _float(values.size("weight", weight)),
            None if description is None else values.text(description, drops),
            _float(values.positive("expected", expected)),
            idle_limit(stall_after, values.positive),
            bool(critical),
            values.names("depends_on", depends_on, drops),
            bool(once),
            _key(key),
        )
        if options != PLAIN_STAGE:
            self._opts = options
        if attributes:
            self._with_extras().attributes = values.attributes(attributes, drops)

    @property
    def _path(self) -> str | None:
        path = self._full_path
        if path is None:
            above = self._parent
            path = self._text_name
            while isinstance(above, StageState) and len(path) <= values.MESSAGE_LENGTH:
                known = above._full_path
                path = f"{known or above._text_name}/{path}"
                above = None if known is not None else above._parent
            if len(path) > values.MESSAGE_LENGTH:
                path = "…" + path[1 - values.MESSAGE_LENGTH :]
            self._full_path = path
        return path

    # -- its life

    def start(self) -> Self:
        """Start it below its parent, without making it current.

        Raises:
            InvalidState: if it was started before.
        """
        return self.__enter__(False)

    def __enter__(self, current: bool = True) -> Self:  # noqa: C901, PLR0915 - in one piece, as it is counted in ns
        """Start it, and make it current."""
        if self._started is not None:
            raise InvalidState(f"stage {self.name!r} was started before; make a new stage(...) for each run")
        here = innermost.get()
        parent = here if self._parent is None else self._parent
        given = parent
        try:
            while parent is not None and parent._status is not RUNNING:
                parent = parent._parent
            if parent is None and self._parent is None:
                parent = context.watched_here()
            if parent is None:
                self._nowhere(given)
                return self
            operation: OperationState = parent if parent._op is None else parent._op  # type: ignore[assignment]
            if operation._generation != registry.generation:
                self._nowhere(None)
                return self
            self._parent = parent
            self._op = operation
            self._started = self._moved_at = now = clock.monotonic()
            self._started_ns = now_ns = clock.time_ns()
            self._status = RUNNING
            if self._extras is not None or self._message is not None:
                redact_options(self)
            if current:
                self._context = innermost.set(self)
            if parent._advanced is not NOTHING or parent._base or parent._nested is not None:
                begin_in(self, parent)
            if operation._session is not None:
                operation._session.stage_started(self)
            if operation._span is not None:
                hooks.tracing.start_stage(self, parent is here, current, now_ns)
            stages = operation._stages
            if stages is None:
                stages = begin_stages(operation, self)
            stages.append(self)
            operation._running[self] = None  # type: ignore[index]
            operation._moved_at = now
            if parent is not operation:
                touch(operation, parent, now)
            options = operation._opts
            if options is not NO_OPTIONS and options.plan is not None:
                _weigh(operation, self)
            if hooks.wanted:
                self._place = this_place()
                changes = registry.changes
                if len(changes) < CHANGES:
                    changes.append((STAGE_STARTED, operation, self, now_ns, EMPTY))
                else:
                    drops.add(semconv.DROP_QUEUE)
        except BaseException as error:
            try:
                swallow(error, "the start of a stage")
            except NOTHING_LEFT:
                pass
            except BaseException as meant:  # a signal handler's: the block is never entered
                self.__exit__(type(meant), meant, None)
                raise
        return self

    def _nowhere(self, parent: HandleState | None) -> None:
        """Warn that no operation runs that it could be part of."""
        if parent is not None and parent._status is Status.PENDING and parent._started is None:
            misuse.too_early(parent, "stage")
        else:
            context.outside("stage")
        self._warned_outside = True

    def _finish(  # noqa: C901 - in one piece, as it is counted in ns
        self, status: Status, reason: str | None, error: BaseException | None
    ) -> None:
        operation = self._op
        if operation is None or self._status is not RUNNING:
            return
        try:
            self._ended = now = clock.monotonic()
            self._ended_ns = now_ns = clock.time_ns()
            self._final_advanced = self._advanced
            self._status = status
            if reason is not None:
                self._reason = reason
            if operation._generation != registry.generation:
                return
            if self._lanes is not None:
                close_lanes(self)
            silent = (
                self._extras is None
                and self._lanes is None
                and not self._counts_itself
                and not self._named_before
                and self._nested is None
                and not self._advanced
            )
            if not silent:
                leave(self)
            if self._span is None:
                pass
            elif silent and status is COMPLETED and self._message is None and self._trail is None:
                self._span.end(now_ns)  # nothing to add
            else:
                hooks.tracing.end(self, status, reason, error, now_ns)
            running = operation._running
            ran = running is not None and running.pop(self, self) is None  # not where the whole operation ends
            operation._moved_at = now
            if self._parent is not operation:
                touch(operation, self._parent, now)
            if hooks.wanted:
                changes = registry.changes
                if len(changes) < CHANGES:
                    changes.append((STAGE_ENDED, operation, self, now_ns, EMPTY))
                else:
                    drops.add(semconv.DROP_QUEUE)
            elif ran and len(operation._stages) > MANY + len(running):  # type: ignore[arg-type]
                fold(operation)
            if operation._session is not None:
                operation._session.ended(self, status, reason, error)
        except BaseException as broken:
            if self._status is RUNNING:
                if operation._announced and not self._end_deferred:
                    self._end_deferred = True
                    registry.dropped.append((self, status, reason))  # the ticker ends it
                else:
                    self._status = status
            try:
                swallow(broken, "the end of a stage")
            except NOTHING_LEFT:
                pass

    # -- with and async with

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it; an exception passes unchanged."""
        token = self._context
        try:
            if token is not None:
                self._context = None
                innermost.reset(token)
                token = self._token
                if token is not None:
                    self._token = None
                    hooks.tracing.detach(token)
        except BaseException as broken:
            try:
                if not context.is_elsewhere(broken):  # left in another context: there is nothing to restore
                    swallow(broken, "the end of a stage")
            except NOTHING_LEFT:
                pass
        finally:
            try:
                if error is None:
                    self._finish(COMPLETED, None, None)
                else:
                    status = ending(error)
                    asked = None if self._op is None or status is not Status.CANCELLED else self._op._cancel_reason
                    self._finish(status, why(words(error), asked), error)
            except BaseException as broken:
                if self._status is RUNNING and hooks.wanted:
                    registry.dropped.append((self, COMPLETED if error is None else Status.FAILED, None))
                try:
                    swallow(broken, "the end of a stage")
                except NOTHING_LEFT:
                    pass

    async def __aenter__(self) -> Self:
        """Start it, and make it current."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.__exit__(kind, error, trace)


def _key(given: Any) -> str | int | None:
    if given is None or (isinstance(given, str) and given):
        return given
    number = values.whole(given)
    if number is not None:
        return number
    raise InvalidArgument(f"the key of a stage is a text or a whole number, not {values.shown(given)}")


def begin_stages(operation: OperationState, stage: StageLife) -> list[StageState]:
    """Create the list of stages; returns the one of another thread if that came first."""
    with registry.lock:
        if operation._stages is None:
            operation._first_stage = stage
            operation._running = {}
            operation._stages = []
        return operation._stages


def _weigh(operation: OperationState, stage: StageLife) -> None:
    """Let a stage take part in the ratio if it is planned or names a weight."""
    plan = operation._opts.plan
    if stage._parent is not operation or plan is None:
        return
    if operation._weighed is None:
        operation._weighed = {}
    position = plan.index(stage.name)
    if position is not None:
        planned = plan.stages[position]
        if stage._total is None and planned.total is not None:
            stage._total = planned.total
        if not stage._unit_named and planned.unit is not None:
            stage._unit = planned.unit
    if position is not None or (stage._opts.weight is not None and len(operation._weighed) < WEIGHED):
        operation._weighed[stage.name] = stage
    elif stage._opts.weight is None:
        known = ", ".join(planned.name for planned in plan.stages[:5]) + (", …" if len(plan.stages) > 5 else "")
        misuse.warn(
            "stage",
            "opens %r, which is not in the plan of operation %r (%s), so it doesn't move the percentage; "
            "name it there, or give stage(..., weight=)",
            stage.name,
            operation.name,
            known,
        )


def _name(name: object) -> str:
    """The name as a short, printable text; valid names are remembered."""
    if type(name) is not str or len(name) > values.NAME_LENGTH or not name.isprintable():
        return values.text(name, drops, values.NAME_LENGTH)
    if len(_names) < KNOWN_NAMES:
        _names.add(name)
    return name


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)
