"""A named step inside an operation or another stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, NamedTuple, TypeVar

from otel_progress import clock, semconv
from otel_progress.errors import InvalidState
from otel_progress.live import context, hooks
from otel_progress.live.drops import drops
from otel_progress.live.endings import ending, words
from otel_progress.live.guard import tell_once
from otel_progress.live.node import Handle
from otel_progress.live.operation import Operation
from otel_progress.live.registry import CHANGES, registry
from otel_progress.model import values
from otel_progress.model.status import Status
from otel_progress.model.values import EMPTY


F = TypeVar("F", bound=Callable[..., Any])
MANY: Final = 256
"""Stages that an unwatched operation keeps before it folds the older ones."""


class StageOptions(NamedTuple):
    """What was said of a stage when it was made."""

    weight: float | None = None
    description: str | None = None
    expected: float | None = None
    stall_after: float | None = None
    critical: bool = True
    depends_on: tuple[str, ...] = ()


PLAIN = StageOptions()


class Stage(Handle):
    """A named step of what runs here: a decorator, for `with` and `async with`, or `start()` and `complete()`.

    It nests to any depth. Outside an operation it does nothing, and says so once in the log.
    """

    _opts: StageOptions
    _op: Operation | None = None
    _full_path: str | None = None
    _ended_ns = 0

    def __init__(
        self,
        name: str,
        *,
        parent: Handle | None = None,
        weight: float | None = None,
        total: float | None = None,
        unit: str | None = None,
        description: str | None = None,
        message: object = None,
        expected: float | None = None,
        stall_after: float | None = None,
        critical: bool = True,
        depends_on: Iterable[str] = (),
        attributes: Mapping[str, object] | None = None,
    ) -> None:
        """A stage that has not started.

        Args:
            name: the step; few values, as it is a label of metrics.
            parent: what it is a part of; what runs here unless said.
            weight: its share of the whole, where the operation has a plan; else that of the plan.
            total: how many units it has.
            unit: what is counted, in UCUM or a plain word (`file`, `By`).
            description: what it does, in words.
            message: the current step in words.
            expected: how long it is expected to take, in seconds.
            stall_after: seconds without progress after which it counts as stuck.
            critical: shown; changes no outcome.
            depends_on: names of stages that it needs; shown.
            attributes: what else is known of it.
        """
        if type(name) is not str or len(name) > values.NAME_LENGTH or not name.isprintable():
            name = values.text(name, drops, values.NAME_LENGTH)
        self.name = name
        self._parent = parent
        if total is not None or unit is not None or message is not None:
            self._measure(total, unit, message)
        if weight is description is expected is stall_after is None and critical is True and depends_on == ():
            self._opts = PLAIN
        else:
            self._opts = StageOptions(
                _limit(weight, zero=True),
                None if description is None else values.text(description, drops),
                _limit(expected),
                _limit(stall_after),
                bool(critical),
                tuple(values.text(item, drops, values.NAME_LENGTH) for item in depends_on),
            )
        if attributes:
            self.set(**dict(attributes))

    @property
    def operation(self) -> Operation:
        """The operation that it belongs to."""
        if self._op is None:
            return _nowhere
        return self._op

    @property
    def _path(self) -> str | None:
        path = self._full_path
        if path is None:
            above = self._parent._path if self._parent is not None else None
            path = self._full_path = self.name if above is None else f"{above}/{self.name}"
        return path

    # -- its life

    def start(self) -> Stage:
        """Start it below its parent, without making it current.

        Raises:
            InvalidState: if it was started before.
        """
        if self._started is not None:
            raise InvalidState(f"stage {self.name!r} was started before; make a new stage(...) for each run")
        parent = self._parent or context.innermost.get()
        while parent is not None and parent._status is not Status.RUNNING:
            parent = parent._parent
        operation = None if parent is None else parent.operation
        if parent is None or operation is None or operation._generation != registry.generation:
            context.outside("stage")
            return self
        self._parent = parent
        self._op = operation
        self._started = self._moved_at = now = clock.monotonic()
        self._started_ns = now_ns = clock.time_ns()
        self._status = Status.RUNNING
        try:
            if operation._span is not None:
                hooks.tracing.start_stage(self, parent, now_ns)
            stages = operation._stages
            if stages is None:
                stages = operation._first(self)
            stages.append(self)
            operation._running.append(self)  # type: ignore[union-attr]
            operation._moved_at = now
            if parent is not operation:
                operation._touch(parent, now)
            if operation._opts.plan is not None:
                operation._weigh(self)
            if hooks.wanted:
                changes = registry.changes
                if len(changes) < CHANGES:
                    changes.append((semconv.STAGE_STARTED, operation, self, now_ns, EMPTY))
                else:
                    drops.add(semconv.DROP_QUEUE)
        except Exception:
            tell_once("telemetry failed at the start of a stage; the job goes on")
        return self

    def _finish(self, status: Status, reason: str | None, error: BaseException | None) -> None:
        operation = self._op
        if operation is None or self._status is not Status.RUNNING:
            return
        self._ended = now = clock.monotonic()
        self._ended_ns = now_ns = clock.time_ns()
        self._status = status
        if reason is not None:
            self._reason = reason
        if operation._generation != registry.generation:
            return
        try:
            if self._lanes is not None:
                self._close_lanes()
            if self._span is not None:
                hooks.tracing.end(self, status, reason, error, now_ns)
            operation._running.remove(self)  # type: ignore[union-attr]
            operation._moved_at = now
            if self._parent is not operation:
                operation._touch(self._parent, now)
            if hooks.wanted:
                changes = registry.changes
                if len(changes) < CHANGES:
                    changes.append((semconv.STAGE_ENDED, operation, self, now_ns, EMPTY))
                else:
                    drops.add(semconv.DROP_QUEUE)
            elif len(operation._stages) > MANY:  # type: ignore[arg-type]
                operation._fold()
        except Exception:
            tell_once("telemetry failed at the end of a stage; the job goes on")

    def complete(self) -> None:
        """It is done."""
        self._finish(Status.COMPLETED, None, None)

    def fail(self, error: BaseException | str | None = None) -> None:
        """It failed, with an exception or a reason."""
        if isinstance(error, BaseException):
            self._finish(Status.FAILED, words(error), error)
        else:
            self._finish(Status.FAILED, error and values.text(error, drops), None)

    def cancel(self, reason: str | None = None) -> None:
        """It was given up."""
        self._finish(Status.CANCELLED, reason and values.text(reason, drops), None)

    def _fresh(self) -> Stage:
        """Another stage with the same options."""
        more = self._more
        stage = Stage(
            self.name,
            parent=self._parent,
            total=self._total,
            unit=self._unit,
            message=self._message,
            attributes=None if more is None else more.attributes,
        )
        stage._opts = self._opts
        return stage

    # -- with and async with

    def __enter__(self) -> Stage:
        """Start it, and make it current."""
        self.start()
        if self._op is not None:
            self._context = context.innermost.set(self)
            if self._span is not None:
                self._token = hooks.tracing.attach(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it with what happened; an exception passes unchanged."""
        if error is None:
            self._finish(Status.COMPLETED, None, None)
        else:
            self._finish(ending(error), words(error), error)
        if self._context is not None:
            context.leave(self)

    def __call__(self, fn: F) -> F:
        """Decorate a function: each call of it is a stage of its own."""
        from otel_progress.decorators import wrap

        decorated: F = wrap(fn, self)
        return decorated

    async def __aenter__(self) -> Stage:
        """Start it, and make it current."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it with what happened."""
        self.__exit__(kind, error, trace)


def _limit(value: Any, *, zero: bool = False) -> float | None:
    """A finite number above 0 (or 0 where that has a meaning), else None and counted."""
    if value is None:
        return None
    known = values.number(value, drops)
    if known is None or known < 0 or (known == 0 and not zero):
        drops.add(semconv.DROP_VALUE)
        return None
    return float(known)


_nowhere = Operation("nowhere")
