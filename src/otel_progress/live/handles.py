"""`Operation` and `Stage`, the handles that users hold.

Each names the other in its signatures, so they are put together here, from their lives (`operation.py`, `stage.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, TypeVar

from otel_progress import clock
from otel_progress.errors import InvalidArgument
from otel_progress.live import context, hooks, preload
from otel_progress.live.counting import restore
from otel_progress.live.guard import NOTHING_LEFT, swallow
from otel_progress.live.operation import OperationLife
from otel_progress.live.registry import registry
from otel_progress.live.stage import StageLife
from otel_progress.live.state import share_keys
from otel_progress.model.snapshot import Snapshot, StageSnapshot
from otel_progress.model.statistics import Statistics, Tally, statistics_of
from otel_progress.model.status import Status

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from otel_progress.live.records import Parent
    from otel_progress.live.stage import StageGiven
    from otel_progress.model.plan import Plan, StagePlan

    class OperationGiven(TypedDict, total=False):
        """The options of an operation beside its name; see `otel_progress.operation`."""

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
        restored: float | None
        resume: object
        fingerprint: str | None
        resume_mismatch: Literal["raise", "restart", "keep"]
        wait_for_lease: float | None
        required: bool


_BLANK: Final = Snapshot("", "", Status.PENDING, 0.0)
_NO_STATISTICS: Final = Statistics(Tally(), None, Tally())
_BLANK_STAGE: Final = StageSnapshot("", "", Status.PENDING)

F = TypeVar("F", bound="Callable[..., Any] | classmethod[Any, ..., Any] | staticmethod[..., Any]")


def decorate(template: Operation | Stage, fn: F) -> F:
    """Decorate a function with an operation or a stage for each call; return it unchanged if that fails."""
    try:
        registry.pending.discard(template)  # type: ignore[arg-type] # a template, itself never started
        decorated: F = hooks.wrap(fn, template)
    except BaseException as error:
        try:
            swallow(error, "a decorator; the function runs without it")
        except NOTHING_LEFT:
            pass
        return fn
    return decorated


class Operation(OperationLife):
    """An operation, for `with`, `async with`, or `start()` and `complete()`, `fail()`, `cancel()`.

    `with operation.use():` makes a started one current.
    """

    @property
    def operation(self) -> Operation:
        """Itself."""
        return self

    def stage(self, name: str, **options: Unpack[StageGiven]) -> Stage:
        """A stage of this operation; see `otel_progress.stage`."""
        return _stage_of(self, name, options)

    def __call__(self, fn: F) -> F:
        """Decorate a function: each call of it is an operation of its own."""
        return decorate(self, fn)

    def snapshot(self) -> Snapshot:
        """Everything that is known of it now, as an immutable value.

        If no memory is left, it holds only id, name and status.
        """
        try:
            now = clock.monotonic()
            if not self._announced and self._status is Status.RUNNING:
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
        """A summary in a few lines: status, time, progress, stages, outcomes, results."""
        try:
            text: str = preload.get("model.summary").summary(self.snapshot())
        except BaseException as error:
            try:
                swallow(error, "summary")
            except NOTHING_LEFT:
                pass
            return f"{self.name}: {self._status._value_}"
        return text

    def statistics(self) -> Statistics:
        """Outcomes, durations, units, tokens, cost and failures until now, as an immutable value.

        Example: `op.statistics().items.success_rate`
        """
        try:
            found: Statistics = statistics_of(self.snapshot())
        except BaseException as error:
            try:
                swallow(error, "statistics")
            except NOTHING_LEFT:
                pass
            return _NO_STATISTICS
        return found

    def report(self, path: str | os.PathLike[str], format: str | None = None) -> Path | None:
        """Write a report of it to a file, also while it runs; the report then says so.

        An existing file is replaced once the report is complete. If the file can't be written, that is logged, and
        the job goes on.

        Args:
            path: the file; `.html`, `.md`, `.json`, `.csv` and `.txt` name the format.
            format: the format, for other names: `html`, `markdown`, `json`, `csv` or `text`.

        Returns:
            The path of the file; None if it could not be written.

        Raises:
            InvalidArgument: if the format is unknown, or not the one that the name of the file says.
            MissingDependency: if it is HTML and Jinja2 is not installed: `pip install "otel-progress[report]"`.
        """
        try:
            from otel_progress.live import report_file

            return report_file.write(self, path, format)
        except BaseException as error:
            try:
                swallow(error, "report")
            except NOTHING_LEFT:
                pass
            return None

    def summary_dict(self) -> dict[str, Any]:
        """The summary as plain JSON, with the keys of `Snapshot.to_dict()`; durations in seconds."""
        try:
            found: dict[str, Any] = preload.get("model.summary").summary_dict(self.snapshot())
        except BaseException as error:
            try:
                swallow(error, "summary_dict")
            except NOTHING_LEFT:
                pass
            return {"operation_id": self._id or self._opts.id or "", "name": self.name, "status": self._status._value_}
        return found


class Stage(StageLife):
    """A named step of an operation: a decorator, for `with` and `async with`, or `start()` and `complete()`.

    Stages nest to any depth. Outside an operation a stage does nothing, and logs that once.
    """

    @property
    def operation(self) -> Operation:
        """The operation that it belongs to."""
        if self._op is None:
            return Operation("nowhere")  # a new one each time, so that nothing reported to it is shared
        operation: Operation = self._op  # type: ignore[assignment]
        return operation

    def stage(self, name: str, **options: Unpack[StageGiven]) -> Stage:
        """A stage of this stage; see `otel_progress.stage`."""
        return _stage_of(self, name, options)

    def __call__(self, fn: F) -> F:
        """Decorate a function: each call of it is a stage of its own."""
        return decorate(self, fn)

    def snapshot(self) -> StageSnapshot:
        """Everything that is known of it now, as an immutable value; before its start it is pending."""
        try:
            found: StageSnapshot = preload.get("live.engine.capture").capture_stage(self, clock.monotonic())
        except BaseException as error:
            try:
                swallow(error, "snapshot")
            except NOTHING_LEFT:
                pass
            try:
                found = object.__new__(StageSnapshot)
                vars(found).update(vars(_BLANK_STAGE), name=self.name, path=self.name, status=self._status)
            except NOTHING_LEFT:
                found = _BLANK_STAGE
        return found


running_here: Callable[[], Operation | Stage | None] = context.running_here  # type: ignore[assignment]
"""The innermost handle that runs here, in this process."""
asked_here: Callable[[], Operation | Stage | None] = context.asked_here  # type: ignore[assignment]
"""The same, or one that has ended after it was asked to stop."""


def _stage_of(parent: Operation | Stage, name: str, options: Any) -> Stage:
    """A stage of a handle."""
    if "parent" in options:
        raise InvalidArgument("the stage of a handle has that handle as its parent; use otel_progress.stage(parent=)")
    try:
        return Stage(name, parent=parent, **options)
    except NOTHING_LEFT:
        return NO_STAGE


class _NoOperation(Operation):
    def start(self) -> Self:
        return self

    __enter__ = start


class _NoStage(Stage):
    def __enter__(self, current: bool = True) -> Self:
        return self


NO_OPERATION: Final[Operation] = object.__new__(_NoOperation)
"""Given where no memory or frame is left to make another one: it never starts, so that it can be given again."""
NO_STAGE: Final[Stage] = object.__new__(_NoStage)


# -- one for each call of a decorated function


def fresh_operation(template: Operation) -> Operation:
    """Another operation with the same options."""
    operation: Operation = object.__new__(type(template))
    operation.name = template.name
    operation._opts = template._opts
    if template._total is not None:
        operation._total = template._total
    operation._unit = template._unit
    if template._named_before:
        restore(operation, template._named_before)
    more = template._extras
    if more is not None:
        operation._with_extras().attributes = more.attributes
    if template._opts.start_within is not None:
        operation._created = clock.monotonic()
    return operation


def quiet_operation(template: Operation) -> Operation:
    """A running operation that nobody watches: it has what its own code may ask for, and nothing else."""
    operation: Operation = object.__new__(Operation)
    operation.name = template.name
    operation._opts = template._opts
    operation._parent = context.innermost.get()
    operation._generation = registry.generation
    operation._started = operation._moved_at = clock.monotonic()
    operation._status = Status.RUNNING
    if registry.listed is not None:
        registry.listed[id(operation)] = operation
    if template._extras is not None or template._total is not None or template._unit_named:
        operation._total, operation._unit = template._total, template._unit
    if template._named_before:
        restore(operation, template._named_before)
        if template._extras is not None:
            operation._with_extras().attributes = template._extras.attributes
    return operation


def fresh_stage(template: Stage) -> Stage:
    """Another stage with the same options."""
    more = template._extras
    stage = Stage(
        template.name,
        parent=template._parent,  # type: ignore[arg-type]
        total=template._total,
        unit=template._unit if template._unit_named else None,
        message=template._message,
        attributes=None if more is None else more.attributes,
    )
    stage._opts = template._opts
    return stage


_STORED: Final = """
    name _opts _parent _generation _started _moved_at _started_ns _status _total _unit _created _observe_at _id
    _span _announced _trail _advanced _check_at _sequence _sent_revision _valid_count _shown _sampled _pace
    _gaps _extras _context _place _learned
"""
share_keys(Operation, _STORED.split())
