"""The functions that users call; each acts on the current stage or operation.

*Current* is the innermost stage or operation that runs in this thread or task. Without one a function does nothing,
counts the call, and logs one warning for each call site.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from otel_progress import semconv, settings
from otel_progress.errors import InvalidArgument, NoOperation
from otel_progress.live import context, hooks, preload
from otel_progress.live.boundary import public
from otel_progress.live.guard import NOTHING_LEFT, swallow
from otel_progress.live.handle import NO_WAIT, listening, nothing
from otel_progress.live.handles import NO_OPERATION, NO_STAGE, Operation, Stage, asked_here, running_here
from otel_progress.live.registry import registry
from otel_progress.live.track import AsyncTracked, Tracked, tracked
from otel_progress.model.values import Number, shown

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from otel_progress.live.handle import Callback, OnVerdict
    from otel_progress.live.handles import OperationGiven
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
    """Define an operation: one run of a long piece of work.

    As a decorator (`@operation`, `@operation("survey", stall_after=30)`) it makes each call of the function an
    operation. As a context manager (`with`, `async with`) it makes the block one. `operation("x").start()` is for
    code that spans callbacks.

    Args:
        name: The kind of work. It is a metric label, so use few values. A bare decorator takes the function's name.
        id: The id of this run; a generated one by default. Using an id again after its end makes a new attempt.
        plan: The stages that are known in advance: a list of `StagePlan` or names, or `phases({...})`.
        total: The number of units in all.
        unit: What is counted, in UCUM or as a plain word (`file`, `By`, `token`).
        description: What the operation does, in words.
        agent: The agent that does the work (`gen_ai.agent.name`).
        attributes: Up to 64 attributes.
        parent: The parent operation; the current one by default. `extract()` returns one from another process.
        stall_after: Seconds without progress after which a branch counts as stuck. By default the limit is learned.
            An explicit `None` means no limit.
        slow_after: Run time in seconds after which the operation counts as slow. By default the limit comes from the
            plan, or is learned.
        start_within: Seconds from now within which `start()` is expected.
        loop_after: The number of times in a row that the same step (or stage, or cycle of up to eight) may come
            without new progress before the operation counts as looping. A given number applies at once; the
            default, 10 steps or failed stages, only after 5 s without progress.
        stall_policy: `report`, or `cancel` to ask the work to stop once it is stuck or looping.
        heartbeat_counts: Whether a heartbeat of the work counts as progress.
        restored: Units that an earlier run completed, as by a checkpoint. They count as done, never as pace. What
            counts in this run adds to them: `advance`, `record`, `track` loops, and stages that count in its unit.
        resume: The store that keeps what is done, so that a later attempt with the same `id` goes on from there: a
            path, `sqlite:///work.db`, `redis://localhost:6379/0`, a `CheckpointStore`, or True for that of
            `configure(checkpoints=...)`.
        fingerprint: What the code and its arguments are known by, such as a version. A decorated function has its name
            and its arguments.
        resume_mismatch: What to do if the fingerprint differs from that of the saved work: `raise`, `restart` (forget
            it), or `keep` (use it all the same).
        wait_for_lease: Seconds to wait for another process that holds the operation; none by default.
        required: Whether the operation needs its store. If False, it goes on without one, and logs that.

    Raises:
        CheckpointError: At the start, if the store can't be used.
        CheckpointMismatch: At the start, if the saved work belongs to other code or arguments.
        OperationHeld: At the start, if another process holds the operation.
        InvalidArgument: If the name is empty, the total or `restored` is below 0, a limit is not above 0, a number is
            not a number, or the plan is invalid.

    Example: `operation("import", total=200, unit="file", stall_after=30)`
    """
    try:
        return Operation(name, **options) if isinstance(name, str) else _nameless(Operation, name, options)
    except BaseException as error:
        try:
            swallow(error, "operation")
        except NOTHING_LEFT:
            pass
        if callable(name):
            return name
        try:
            return object.__new__(Operation)
        except NOTHING_LEFT:
            return NO_OPERATION


@overload
def stage(name: F, /) -> F: ...
@overload
def stage(name: str, *, parent: Operation | Stage | None = None, **options: Unpack[StageGiven]) -> Stage: ...
@overload
def stage(**options: Unpack[StageGiven]) -> Unnamed: ...
def stage(name: Any = None, **options: Any) -> Any:
    """Define a stage: a named part of the current operation or stage. Stages nest to any depth.

    As a decorator (`@stage`, `@stage("parse", weight=3)`) it makes each call of the function a stage. As a context
    manager (`with`, `async with`) it makes the block one. `stage("x").start()` is for code that spans callbacks.

    Args:
        name: The name of the stage. It is a metric label, so use few values. A bare decorator takes the function's
            name.
        parent: The operation or stage that it belongs to; the current one by default.
        weight: Its share of the whole, if the operation has a plan. By default the plan's weight.
        total: The number of units of this stage.
        unit: What is counted, in UCUM or as a plain word (`file`, `By`).
        description: What the stage does, in words.
        message: The current step, in words.
        expected: The expected duration in seconds.
        stall_after: Seconds without progress after which the stage counts as stuck; its parent's limit by default.
            An explicit `None` means no limit.
        critical: Whether the work depends on this stage. It is displayed, and changes no outcome.
        depends_on: The names of the stages that it needs. They are displayed, and change no outcome.
        once: Whether a resumed operation leaves it out if it completed before: then `restored` is its result, and a
            decorated function is not called, but gives back its stored return value.
        key: What it works on, a text or a whole number, such as the id of an item. A resumed operation tells stages of
            one name apart by it, also those that run side by side.
        attributes: Attributes of the stage.

    Raises:
        InvalidArgument: If an option is unknown or its value is invalid.

    Example: `stage("parse", total=10, unit="file")`
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
        if callable(name):
            return name
        try:
            return object.__new__(Stage)
        except NOTHING_LEFT:
            return NO_STAGE


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
    """A decorator that takes the name from the function, such as `@operation(stall_after=30)`."""

    def __init__(self, kind: type[Operation | Stage], options: dict[str, Any]) -> None:
        """Keep the options until a function is decorated."""
        template = kind("unnamed", **options)
        if isinstance(template, Operation):
            options = {**options, "plan": template._opts.plan}  # the template read the iterator
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


def _open_session(operation: Any, wait: float) -> Any:
    from otel_progress.durable.opening import open_session

    return open_session(operation, wait)


def _use_handlers(given: Any) -> None:
    if given is None and not settings.handlers():
        return
    from otel_progress.handlers import chosen

    if given is None:
        chosen.start_named(settings.handlers())
    else:
        chosen.start(given)


def _use_integrations(given: object) -> None:
    if given is None and not settings.integrations():
        return
    from otel_progress.instrumenting import chosen

    if given is None:
        chosen.start_named(settings.integrations())
    elif given is False:
        chosen.stop()
    else:
        chosen.start(given)


def use_named_integrations() -> None:
    """Put on the integrations that the environment names; called once the package is imported."""
    try:
        _use_integrations(None)
    except BaseException as error:
        swallow(error, "the start of integrations")


def _first_operation() -> None:
    """Configure, start handlers and learn as the environment asks, if the program did not."""
    try:
        _use_handlers(None)
        if settings.history_file() is not None:
            preload.get("live.engine.runtime").want()
        if settings.configures_itself():
            from otel_progress.telemetry.setup import configure_as_guest

            configure_as_guest()
        else:
            hooks.on_first = None
            if not hooks.wanted and settings.has_terminal():
                from otel_progress import hint

                hint.later()
    except BaseException as error:
        hooks.on_first = None
        swallow(error, "the start of the first operation")


hooks.on_first = _first_operation
hooks.open_session = _open_session
hooks.use_handlers = _use_handlers
hooks.use_integrations = _use_integrations
preload.modules.append("decorators")  # imports wrapt, which takes longer than the rest of this package
hooks.wrap = _wrap


@overload
def current(*, required: Literal[True]) -> Operation: ...
@overload
def current(*, required: bool = False) -> Operation | None: ...
@public()
def current(*, required: bool = False) -> Operation | None:
    """Return the current operation, or None.

    Raises:
        NoOperation: If `required` is true and no operation is current.
    """
    node = running_here()
    if node is None and required:
        raise NoOperation("no operation is running here; use 'with operation(...)' first")
    return None if node is None else node.operation


@public(makes=list)
def operations() -> list[Operation]:
    """Return the operations that run in this process, in the order in which they started.

    The list has no operation that is pending or has ended, and none of another process; the monitor shows those.

    Example: `[one.snapshot().progress.percentage for one in operations()]`
    """
    return registry.in_flight(Operation)


@public()
def get(id: str) -> Operation | None:
    """Return the operation with this id that runs in this process, or None."""
    return next((one for one in registry.in_flight(Operation) if one.id == id), None)


@overload
def track(
    iterable: Iterable[T],
    *,
    unit: str | None = None,
    total: Number | None = None,
    desc: object = None,
    label: Callable[[T], object] | None = None,
    initial: Number = 0,
    key: Callable[[T], object] | None = None,
    mark: bool | None = None,
    retry_failed: bool = True,
) -> Tracked[T]: ...
@overload
def track(
    iterable: AsyncIterable[T],
    *,
    unit: str | None = None,
    total: Number | None = None,
    desc: object = None,
    label: Callable[[T], object] | None = None,
    initial: Number = 0,
    key: Callable[[T], object] | None = None,
    mark: bool | None = None,
    retry_failed: bool = True,
) -> AsyncTracked[T]: ...
def track(
    iterable: Any,
    *,
    unit: str | None = None,
    total: Number | None = None,
    desc: object = None,
    label: Callable[[Any], object] | None = None,
    initial: Number = 0,
    key: Callable[[Any], object] | None = None,
    mark: bool | None = None,
    retry_failed: bool = True,
) -> Any:
    """Iterate over the items, and count each one that the loop has finished.

    The item that the loop is working on is not counted yet. Each loop is a lane: lanes in the stage's unit add up to
    its progress, a lane inside another lane only proves life, and other units have counters of their own.

    Args:
        iterable: Anything for `for` or `async for`. Its length, if it has one, is added to the total.
        unit: What is counted; the unit of the stage by default. The first loop sets the unit of a stage or operation
            that has none.
        total: The number of items, if the iterable does not know it (a generator) or reports it wrong.
        desc: What the loop does, in words. It is the current step while the loop runs.
        label: What an item is called, as a function of the item, such as `str`. The item in hand is then the current
            step, after `desc`, unless `update(message=)` was called in the loop. It is called only when a
            snapshot is taken, in another thread, so it must do no more than read the item; see the guide.
        initial: Items that an earlier run completed, as by a checkpoint. They count as done, never as pace. The
            iterable has only the rest, so that `track(range(500, 1000), initial=500)` begins at 500 of 1,000; a given
            total includes them. Units that `restored=` names as well count once.
        key: The key of an item, a text or a whole number. In a resumable operation the loop leaves out the items whose
            keys are done, and marks each as done when the next one is taken or the loop ends. `break` marks nothing.
        mark: False if another thread or a pool does the work: call `done(key)` when an item is done. True without a
            `key` goes by position: the first items are left out, as many as were done. Without `key` and `mark`, the
            loop takes all items in each attempt: nobody said that the work of one is finished when the next is taken.
        retry_failed: Whether items that failed in an earlier attempt are tried again.

    Raises:
        InvalidArgument: If two items have the same key, or a key is empty, too long, or neither text nor number; or
            if a set is to go by position.
        CheckpointMismatch: If the first items of a loop by position are not those that were done.
        InvalidState: If another thread or task takes the items of a loop that marks them, or the stage has another
            loop with keys.
        CheckpointError: If marks can't be saved.
        LeaseLost: If another process has taken over the operation.

    Example: `for file in track(["a.py", "b.py"], unit="file"): print(file)`
    """
    node = None
    try:
        node = asked_here()
        if node is None:
            context.outside("track")
    except BaseException as error:
        try:
            swallow(error, "track")
        except NOTHING_LEFT:
            pass
    return tracked(iterable, node, unit, total, desc, initial, key, mark, retry_failed, label)


def advance(n: Number = 1, unit: str | None = None) -> None:
    """Add `n` completed units.

    Args:
        n: A number of at least 0 and below 2**63. Any other value is ignored, with one warning for each call site.
        unit: What is counted, if it is not the unit of the stage. It gets a counter of its own beside the progress.

    Example: `advance(120, unit="token")`
    """
    try:
        node = running_here()
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
    """Set the progress, the message, or both. What is not given stays as it is.

    Args:
        completed: The number of completed units. It is progress only above the highest count so far.
        total: The number of units in all.
        ratio: The progress from 0 to 1, for work without units.
        message: The current step, in words.

    Example: `update(completed=3, total=12, message="reading c.py")`
    """
    node = running_here()
    if node is None:
        context.outside("update")
    else:
        node.update(completed=completed, total=total, ratio=ratio, message=message)


@public()
def set(**attributes: object) -> None:
    """Set attributes of the current stage or operation.

    Example: `set(root="/srv", parser="ast")`
    """
    node = running_here()
    if node is None:
        context.outside("set")
    else:
        node.set(**attributes)


@public()
def heartbeat(**details: object) -> None:
    """Report that the work is alive.

    A heartbeat counts as progress only for an operation with `heartbeat_counts=True`.

    Args:
        details: Attributes of the heartbeat.

    Example: `heartbeat(batch=7)`
    """
    node = running_here()
    if node is None:
        context.outside("heartbeat")
    else:
        node.heartbeat(**details)


@public()
def touch() -> None:
    """Report that the work goes on: its idle time begins anew, although nothing was completed.

    What repeats without progress is still a loop.
    """
    node = running_here()
    if node is None:
        context.outside("touch")
    else:
        node.touch()


@public(NO_WAIT)
def waiting(reason: object, *, overdue_after: float | None = None) -> Waiting:
    """Declare a wait, as a context manager: for a person, a rate limit, a child, a back-off.

    A declared wait stops the stall clock of its own branch.

    Args:
        reason: What the work waits for, in words.
        overdue_after: Seconds after which the wait is overdue; no limit by default.

    Example: `with waiting("rate limit", overdue_after=60): print("paused")`
    """
    node = running_here()
    if node is None:
        context.outside("waiting")
        return NO_WAIT
    return node.waiting(reason, overdue_after=overdue_after)


@public()
def note(text: object, /, status: str | None = None, **attributes: object) -> None:
    """Add a line to the activity feed. A note never counts as progress.

    Args:
        text: The line.
        status: How it is meant, such as `ok`, `warning` or `failed`. `running` marks an activity that goes on; a later
            note of the same text in the same stage replaces it.
        attributes: Attributes of the note.

    Example: `note("draft is done", "ok", files=3)`
    """
    node = running_here()
    if node is None:
        context.outside("note")
    else:
        node.note(text, status, **attributes)


@public()
def record(
    outcome: str, *, item: object = None, component: object = None, error: BaseException | str | None = None
) -> None:
    """Count a finished item by its outcome.

    If nothing else counts (no `advance`, `track` or `update(completed=)`), the number of records is the progress.
    Failed items appear in the activity feed.

    Args:
        outcome: `ok`, `failed`, `skipped`, or a word of your own.
        item: The item.
        component: The part of the system that handled it; statistics count by it.
        error: Why it failed: an exception or a message; statistics count by it.

    Example: `record("failed", item="ast.py", component="parser")`
    """
    node = running_here()
    if node is None:
        context.outside("record")
    else:
        node.record(outcome, item=item, component=component, error=error)


@public()
def step(key: object, /) -> None:
    """Report a step, so that a loop is detected: the same steps again and again without progress.

    Args:
        key: What the step does, and on what. Equal keys are the same step.

    Example: `step("search cats")`
    """
    node = running_here()
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
    """Add tokens and cost to the totals of the current stage or operation.

    Args:
        input_tokens: Tokens sent to a model.
        output_tokens: Tokens received from it.
        cost: The cost, in `currency`.
        currency: The currency of the cost; each one has a total of its own.

    Example: `usage(input_tokens=812, output_tokens=96, cost=0.004)`
    """
    node = running_here()
    if node is None:
        context.outside("usage")
    else:
        node.usage(input_tokens=input_tokens, output_tokens=output_tokens, cost=cost, currency=currency)


@public()
def result(**results: object) -> None:
    """Record results. They appear in every summary.

    Example: `result(verdict="promising", files=3)`
    """
    node = running_here()
    if node is None:
        context.outside("result")
    else:
        node.result(**results)


@public()
def request_cancel(reason: str | None = None) -> None:
    """Ask the current operation to stop, with the operations below it in this process.

    `raise_if_cancelled` and `track` loops raise; no task is cancelled.

    Args:
        reason: Why, in words.

    Example: `request_cancel("not needed any more")`
    """
    node = running_here()
    if node is None:
        context.outside("request_cancel")
    else:
        node.request_cancel(reason)


@public(False)
def cancel_requested() -> bool:
    """Return whether the current operation was asked to stop."""
    node = asked_here()
    if node is None:
        context.outside("cancel_requested")
        return False
    return node.cancel_requested()


@public()
def raise_if_cancelled() -> None:
    """Raise `OperationCancelled` if the current operation was asked to stop.

    Raises:
        OperationCancelled: If it was; the exception has the reason.
    """
    node = asked_here()
    if node is None:
        context.outside("raise_if_cancelled")
    else:
        node.raise_if_cancelled()


@public(nothing)
def add_listener(callback: Callback) -> Callable[[], None]:
    """Call `callback` at every change of every operation.

    Args:
        callback: A function or coroutine function. It gets a snapshot; if its signature requires two arguments, it gets
            the event as the second, and `event.name` says what happened. With one argument it gets each final status
            exactly once.

    Returns:
        A function that removes the listener.

    Example: `add_listener(lambda snapshot, event: print(event.name, snapshot.status))`
    """
    return listening().listen(callback, None)  # type: ignore[no-any-return]


@public(nothing)
def on_stall(callback: Callback) -> Callable[[], None]:
    """Call `callback` when an operation becomes stuck or starts looping.

    Args:
        callback: A function or coroutine function. It gets a snapshot: `snapshot.stuck_at` is the line of code at which
            the operation hangs, `snapshot.health_reason` the evidence.

    Returns:
        A function that removes the listener.

    Example: `on_stall(lambda snapshot: print(snapshot.name, "hangs at", snapshot.stuck_at))`
    """
    return listening().listen(callback, None, semconv.STALLED)  # type: ignore[no-any-return]


@public(nothing)
def on_verdict(callback: OnVerdict) -> Callable[[], None]:
    """Call `callback` when the verdict on an operation changes.

    A wait that becomes overdue is a change from `waiting` to `waiting`, with `snapshot.overdue` set.

    Args:
        callback: A function or coroutine function. It gets the old health, the new health, and a snapshot with the
            evidence (`health_reason`, `overdue`, `stuck_at`, `branches`). A function runs in the thread of the
            listeners; a coroutine function runs on the event loop where it was added.

    Returns:
        A function that removes the listener.

    Example: `on_verdict(lambda old, new, seen: print(seen.name, old, "->", new, seen.health_reason))`
    """
    return listening().listen_to_verdicts(callback, None)  # type: ignore[no-any-return]


@public(nothing)
def on_recover(callback: Callback) -> Callable[[], None]:
    """Call `callback` when an operation that was stuck makes progress again.

    If the operation completes while it is stuck, the callback runs before the end is reported, with the final status.
    If it fails or is cancelled, the callback does not run.

    Args:
        callback: A function or coroutine function. It gets a snapshot.

    Returns:
        A function that removes the listener.

    Example: `on_recover(lambda snapshot: print(snapshot.name, "moves again"))`
    """
    return listening().listen(callback, None, semconv.RECOVERED)  # type: ignore[no-any-return]
