"""The functions that users call; each acts on the innermost stage or operation that runs here.

Where nothing runs they do nothing, count the call, and say so once for each call site.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from otel_progress import semconv
from otel_progress.errors import InvalidArgument, NoOperation
from otel_progress.live import context, hooks, preload
from otel_progress.live.boundary import public
from otel_progress.live.guard import NOTHING_LEFT, swallow
from otel_progress.live.handle import NO_WAIT, AsyncTracked, Tracked, listening, nothing, tracked
from otel_progress.live.operation import Operation
from otel_progress.live.registry import registry
from otel_progress.live.stage import Stage
from otel_progress.model.values import Number, shown

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from otel_progress.live.engine.listeners import Callback, OnVerdict
    from otel_progress.live.operation import OperationGiven
    from otel_progress.live.stage import StageGiven
    from otel_progress.live.waits import Waiting

T = TypeVar("T")
F = TypeVar("F", bound="Callable[..., Any] | classmethod[Any, ..., Any] | staticmethod[..., Any]")


@overload
def operation(name: F, /) -> F: ...
@overload
def operation(name: str, **options: Unpack[OperationGiven]) -> Operation: ...
@overload
def operation(**options: Unpack[OperationGiven]) -> Unnamed: ...
def operation(name: Any = None, **options: Any) -> Any:
    """An operation: one run of a long piece of work, seen while it runs.

    As a decorator (`@operation`, `@operation("survey", stall_after=30)`) each call of the function is an
    operation; with `with` or `async with` the block is; `operation("x").start()` is for code that spans callbacks.

    Args:
        name: the kind of work; few values, as it is a label of metrics. A bare decorator takes the function's name.
        id: the id of this run; a fresh one unless given. The same id after its end is a new attempt.
        plan: stages that are known before they run: a list of `StagePlan` or names, or `phases({...})`.
        total: how many units there are in all.
        unit: what is counted, in UCUM or a plain word (`file`, `By`, `token`).
        description: what it does, in words.
        agent: the agent that does it (`gen_ai.agent.name`).
        attributes: what else is known of it; at most 64.
        parent: the operation that it is part of; the current one unless said. `extract()` gives one from elsewhere.
        stall_after: seconds without progress after which a branch of it counts as stuck; learned from what it does
            unless said. `None`, said explicitly, lets it idle.
        slow_after: seconds of run time after which it counts as slow; from the plan, or learned, unless said.
        start_within: seconds from here within which `start()` should come.
        loop_after: so many times in a row the same step (or stage, or cycle of up to eight) may come without
            new progress; more counts as looping. Unless said, 10 steps or failed stages in a row do.
        stall_policy: `report`, or `cancel`: once it is silent or looping, the work is asked to stop.
        heartbeat_counts: whether a heartbeat of the work counts as progress.

    Raises:
        InvalidArgument: for an empty name, a total below 0, a limit that is not above 0, what is no number, or a plan
            that is invalid.
    """
    try:
        return Operation(name, **options) if isinstance(name, str) else _nameless(Operation, name, options)
    except BaseException as error:
        try:
            swallow(error, "operation")
        except NOTHING_LEFT:
            pass
        return name if callable(name) else object.__new__(Operation)


@overload
def stage(name: F, /) -> F: ...
@overload
def stage(name: str, *, parent: Operation | Stage | None = None, **options: Unpack[StageGiven]) -> Stage: ...
@overload
def stage(**options: Unpack[StageGiven]) -> Unnamed: ...
def stage(name: Any = None, **options: Any) -> Any:
    """A named step of what runs here; it nests to any depth.

    As a decorator (`@stage`, `@stage("parse", weight=3)`) each call of the function is a stage; with `with` or
    `async with` the block is; `stage("x").start()` is for code that spans callbacks.

    Args:
        name: the step; few values, as it is a label of metrics. A bare decorator takes the function's name.
        parent: what it is a part of; what runs here unless said.
        weight: its share of the whole, where the operation has a plan; else that of the plan.
        total: how many units it has.
        unit: what is counted, in UCUM or a plain word (`file`, `By`).
        description: what it does, in words.
        message: the current step in words.
        expected: how long it is expected to take, in seconds.
        stall_after: seconds without progress after which it counts as stuck; that of its parent unless said.
            `None`, said explicitly, lets it idle.
        critical: shown; changes no outcome.
        depends_on: names of stages that it needs; shown.
        attributes: what else is known of it.
    """
    try:
        if not options and type(name) is str:
            return Stage(name)
        return Stage(name, **options) if isinstance(name, str) else _nameless(Stage, name, options)
    except BaseException as error:
        try:
            swallow(error, "stage")
        except NOTHING_LEFT:
            pass
        return name if callable(name) else object.__new__(Stage)


def _nameless(kind: type[Operation | Stage], fn: Any, options: dict[str, Any]) -> Any:
    if fn is None:
        return Unnamed(kind, options)
    what = kind.__name__.lower()
    if not callable(fn) and not hasattr(fn, "__func__"):
        raise InvalidArgument(f"the name of {what}(...) must be a text, not {shown(fn)}")
    if options:
        raise InvalidArgument(f"options go with a name: @{what}('name', stall_after=30)")
    return kind(_name_of(fn))(fn)


class Unnamed:
    """`@operation(stall_after=30)`: the name comes from the function."""

    def __init__(self, kind: type[Operation | Stage], options: dict[str, Any]) -> None:
        """Options that wait for a function."""
        template = kind("unnamed", **options)
        if isinstance(template, Operation):
            options = {**options, "plan": template._opts.plan}  # what was given may be an iterator, read by now
        self._kind = kind
        self._options = options

    def __call__(self, fn: F) -> F:
        """Decorate the function."""
        decorated: F = self._kind(_name_of(fn), **self._options)(fn)
        return decorated


def _name_of(fn: Any) -> str:
    fn = getattr(fn, "__func__", fn)
    return str(getattr(fn, "__name__", None) or type(fn).__name__)


def _wrap(fn: Any, template: Operation | Stage) -> Any:
    return preload.get("decorators").wrap(fn, template)


preload.modules.append("decorators")  # brings wrapt, which costs more to import than all of this package
hooks.wrap = _wrap


@overload
def current(*, required: Literal[True]) -> Operation: ...
@overload
def current(*, required: bool = False) -> Operation | None: ...
@public()
def current(*, required: bool = False) -> Operation | None:
    """The operation that runs here, or None.

    Raises:
        NoOperation: with `required=True`, where none runs.
    """
    node = context.running_here()
    if node is None and required:
        raise NoOperation("no operation is running here; use 'with operation(...)' first")
    return None if node is None else node.operation


@public(makes=list)
def operations() -> list[Operation]:
    """The operations that run in this process, in the order in which they started.

    Each has `snapshot()`, `summary()` and `request_cancel()`. An operation that ended, or did not start yet, is not
    among them, nor one of another process: the monitor knows those.
    """
    return registry.in_flight()


@public()
def get(id: str) -> Operation | None:
    """The operation with this id that runs in this process, or None."""
    return next((one for one in registry.in_flight() if one.id == id), None)


@overload
def track(
    iterable: Iterable[T], *, unit: str | None = None, total: Number | None = None, desc: object = None
) -> Tracked[T]: ...
@overload
def track(
    iterable: AsyncIterable[T], *, unit: str | None = None, total: Number | None = None, desc: object = None
) -> AsyncTracked[T]: ...
def track(iterable: Any, *, unit: str | None = None, total: Number | None = None, desc: object = None) -> Any:
    """The same items; what a loop took of them is the progress of the stage (or operation) that runs here.

    The item in hand is not counted yet. Each loop is a lane: lanes in the stage's unit add up to its
    progress, one inside another lane is only proof of life, and other units are counters of their own.

    Args:
        iterable: anything for `for`, or for `async for`; its length, if it has one, adds to the total.
        unit: what is counted; the unit of the stage unless said. The first loop names the unit of a stage or operation
            that has none.
        total: how many items there are, where the iterable can't tell (a generator), or tells it wrong.
        desc: what the loop does, in words; shown as the current step while it runs.
    """
    node = None
    try:
        node = context.running_here()
        if node is None:
            context.outside("track")
    except BaseException as error:
        try:
            swallow(error, "track")
        except NOTHING_LEFT:
            pass
    return tracked(iterable, node, unit, total, desc)


def advance(n: Number = 1, unit: str | None = None) -> None:
    """Add `n` completed units.

    Args:
        n: how many; a number of at least 0 and below 2**63. Anything else is ignored, with a warning once a call site.
        unit: what is counted where it is not the unit of the stage: a counter of its own beside the progress.
    """
    try:
        node = context.running_here()
        if node is None:
            context.outside("advance")
        else:
            node.advance(n, unit)
    except BaseException as error:
        try:
            swallow(error, "advance")
        except NOTHING_LEFT:
            pass


@public()
def update(
    *,
    completed: Number | None = None,
    total: Number | None = None,
    ratio: float | None = None,
    message: object = None,
) -> None:
    """Say how far it is: units done, units in all, a ratio from 0 to 1, the current step in words."""
    node = context.running_here()
    if node is None:
        context.outside("update")
    else:
        node.update(completed=completed, total=total, ratio=ratio, message=message)


@public()
def set(**attributes: object) -> None:
    """Set attributes of the stage or operation that runs here."""
    node = context.running_here()
    if node is None:
        context.outside("set")
    else:
        node.set(**attributes)


@public()
def heartbeat(**details: object) -> None:
    """The work is alive; it counts as progress only with `heartbeat_counts=True`."""
    node = context.running_here()
    if node is None:
        context.outside("heartbeat")
    else:
        node.heartbeat(**details)


@public(NO_WAIT)
def waiting(reason: object, *, overdue_after: float | None = None) -> Waiting:
    """A declared pause, for `with` or `async with`: a human, a rate limit, a child, a back-off."""
    node = context.running_here()
    if node is None:
        context.outside("waiting")
        return NO_WAIT
    return node.waiting(reason, overdue_after=overdue_after)


@public()
def note(text: object, /, status: str | None = None, **attributes: object) -> None:
    """A line of the activity feed; it never counts as progress."""
    node = context.running_here()
    if node is None:
        context.outside("note")
    else:
        node.note(text, status, **attributes)


@public()
def record(outcome: str, *, item: object = None, component: object = None) -> None:
    """Count an item that is done by its outcome: `ok`, `failed`, `skipped`, or a word of yours.

    Where nothing else counts, the number of records is the progress. What failed shows in the feed.
    """
    node = context.running_here()
    if node is None:
        context.outside("record")
    else:
        node.record(outcome, item=item, component=component)


@public()
def step(key: object, /) -> None:
    """The work takes this step now; the same step, or the same few, again and again without progress is a loop.

    Args:
        key: what it does and on what, such as `f"search {query}"`; equal keys are the same step.
    """
    node = context.running_here()
    if node is None:
        context.outside("step")
    else:
        node.step(key)


@public()
def usage(
    *,
    input_tokens: int | None = None,
    output_tokens: int | None = None,
    cost: float | None = None,
    currency: str = "USD",
) -> None:
    """Add up tokens and cost."""
    node = context.running_here()
    if node is None:
        context.outside("usage")
    else:
        node.usage(input_tokens=input_tokens, output_tokens=output_tokens, cost=cost, currency=currency)


@public()
def result(**results: object) -> None:
    """What came out of it; shown in every summary."""
    node = context.running_here()
    if node is None:
        context.outside("result")
    else:
        node.result(**results)


@public()
def request_cancel(reason: str | None = None) -> None:
    """Ask the operation that runs here to stop."""
    node = context.running_here()
    if node is None:
        context.outside("request_cancel")
    else:
        node.request_cancel(reason)


@public(False)
def cancel_requested() -> bool:
    """Whether somebody asked the operation that runs here to stop."""
    node = context.running_here()
    if node is None:
        context.outside("cancel_requested")
        return False
    return node.cancel_requested()


@public()
def raise_if_cancelled() -> None:
    """Raise `OperationCancelled` if somebody asked the operation that runs here to stop."""
    node = context.running_here()
    if node is None:
        context.outside("raise_if_cancelled")
    else:
        node.raise_if_cancelled()


@public(nothing)
def add_listener(callback: Callback) -> Callable[[], None]:
    """Call this with a snapshot at every change of every operation; returns a function that takes it out again.

    A callback that takes two arguments gets the event as the second: `event.name` says what happened. One that takes
    only the snapshot is told of a final status exactly once.

    Example: `add_listener(lambda snapshot, event: print(event.name, snapshot.status))`
    """
    return listening().listen(callback, None)  # type: ignore[no-any-return]


@public(nothing)
def on_stall(callback: Callback) -> Callable[[], None]:
    """Call this with a snapshot when an operation is found silent or looping; returns a function that takes it out.

    `snapshot.stuck_at` is the line of code at which it hangs, `snapshot.health_reason` the evidence.
    """
    return listening().listen(callback, None, semconv.STALLED)  # type: ignore[no-any-return]


@public(nothing)
def on_verdict(callback: OnVerdict) -> Callable[[], None]:
    """Call this when the verdict on an operation changes; returns a function that takes it out again.

    The callback gets the old health, the new one, and a snapshot as evidence: `health_reason`, `overdue`, `stuck_at`,
    `branches`. A wait that becomes overdue is a change from `waiting` to `waiting`, with `snapshot.overdue`. It runs in
    a thread of its own; an async one on the loop where it was added.

    Example: `on_verdict(lambda old, new, seen: print(seen.name, old, "->", new, seen.health_reason))`
    """
    return listening().listen_to_verdicts(callback, None)  # type: ignore[no-any-return]


@public(nothing)
def on_recover(callback: Callback) -> Callable[[], None]:
    """Call this with a snapshot when an operation moves again that was stuck; returns a function that takes it out.

    One that completes meanwhile is told before its end, with a final status; one that fails or is cancelled is not.
    """
    return listening().listen(callback, None, semconv.RECOVERED)  # type: ignore[no-any-return]
