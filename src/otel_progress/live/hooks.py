"""Hooks: callables that the layers above install here, so that the handles import none of them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from otel_progress.errors import CheckpointError
    from otel_progress.live.lane import Lane
    from otel_progress.live.records import LoopOptions
    from otel_progress.live.state import Change, HandleState, OperationState, StageState
    from otel_progress.model.snapshot import Event, Snapshot, SpanIds
    from otel_progress.model.status import Health, Status


class Tracing(Protocol):
    """Creates a span for each operation and stage; `telemetry/spans.py` implements it."""

    def use(self, provider: Any) -> None:
        """Create spans with this tracer provider."""

    def absent(self) -> bool:
        """Whether no span can be created, as no SDK was set up."""

    def start(self, operation: OperationState, parent: object, now: int) -> None:
        """Start the span of an operation as a child of its parent's, at a time in ns."""

    def start_stage(self, stage: StageState, inside: bool, current: bool, now: int) -> None:
        """Start the span of a stage of an operation that has one.

        `inside` says whether its parent is current, `current` whether the span is to be: its token goes to the stage.
        """

    def attach(self, node: HandleState) -> Any:
        """Make the handle's span current; returns what `detach` needs."""

    def detach(self, token: Any) -> None:
        """Undo an attach."""

    def end(self, node: HandleState, status: Status, reason: str | None, error: BaseException | None, now: int) -> None:
        """End the span of a handle with what happened, at a time in ns."""

    def ids(self, node: HandleState) -> SpanIds | None:
        """The ids of the handle's span, or None without one."""


class Limit(Protocol):
    """A limit of concurrency; `workflow/limit.py` has one."""

    name: str

    @property
    def size(self) -> int:
        """How many tasks or threads it lets through at once now."""


class Session(Protocol):
    """Saves the checkpoints of one running operation; `durable/session.py` implements it.

    Each method may raise `CheckpointError`.
    """

    attempt: int
    before: Any

    def abandon(self) -> None:
        """The operation does not start after all."""

    def started(self) -> None:
        """The operation runs, and has its span."""

    def stage_started(self, stage: StageState) -> None:
        """A stage of it runs."""

    def unsaved(self, status: Status) -> CheckpointError | None:
        """The operation is about to end: save all if it completed; returns why that can't be done, if it must be."""

    def ended(self, node: HandleState, status: Status, reason: str | None, error: BaseException | None) -> None:
        """The operation or a stage of it ended."""

    def flush(self) -> None:
        """Write soon what is not saved; does not wait."""

    def loop(self, node: HandleState, items: Any, options: LoopOptions, lane: Lane | None) -> Any:
        """The items of a loop that are not done yet."""

    def tries_again(self, node: HandleState) -> None:
        """The work of a handle begins again, in the same attempt."""

    def collected(self, node: HandleState) -> None:
        """All items of a loop that marks are taken at once."""

    def takes_all(self) -> None:
        """The job says that a loop is to take all items."""

    def restored(self, node: HandleState) -> dict[str, Any] | None:
        """What an earlier attempt left of a handle."""

    def checkpoint(self, node: HandleState, state: dict[str, Any]) -> None:
        """Save the state of a handle."""

    def result(self, node: HandleState, results: dict[str, Any]) -> None:
        """Keep results of a stage that runs once."""

    def called(self, node: HandleState, owner: object) -> None:
        """A method or a closure that runs once is called as a stage."""

    def done(self, node: HandleState, key: object) -> None:
        """Mark a key as done."""

    def is_done(self, node: HandleState, key: object) -> bool:
        """Whether a key is done."""

    def recorded(self, node: HandleState, outcome: str, item: object) -> None:
        """An item was recorded."""


class NoTracing:
    """Creates no spans."""

    def use(self, provider: Any) -> None: ...  # noqa: D102
    def absent(self) -> bool:  # noqa: D102
        return True

    def start(self, operation: OperationState, parent: object, now: int) -> None: ...  # noqa: D102
    def start_stage(self, stage: StageState, inside: bool, current: bool, now: int) -> None: ...  # noqa: D102
    def attach(self, node: HandleState) -> Any: ...  # noqa: D102
    def detach(self, token: Any) -> None: ...  # noqa: D102
    def end(self, node: HandleState, status: Status, *rest: Any) -> None: ...  # noqa: D102
    def ids(self, node: HandleState) -> SpanIds | None: ...  # noqa: D102


def _no_decorators(fn: Any, template: Any) -> Any:
    raise NotImplementedError("import otel_progress, which brings the decorators")


wrap: Callable[[Any, Any], Any] = _no_decorators
"""Decorates a function with an operation or a stage; `api.py` installs `decorators.wrap`."""

tracing: Tracing = NoTracing()


def _no_store(operation: Any, wait: float) -> Any:
    raise NotImplementedError("import otel_progress, which brings the checkpoint stores")


open_session: Callable[[Any, float], Session | None] = _no_store
"""Opens the session of a resumable operation that starts. It waits at most the given seconds for the lease. `api.py`
installs `durable.opening.open_session`."""


def _no_handlers(given: Any) -> None:
    raise NotImplementedError("import otel_progress, which brings the handlers")


use_handlers: Callable[[Any], None] = _no_handlers
"""Starts these handlers in the place of earlier ones; with None those that the environment names, if none were started
yet. `api.py` installs it."""


def _no_integrations(given: object) -> None:
    raise NotImplementedError("import otel_progress, which brings the integrations")


use_integrations: Callable[[object], None] = _no_integrations
"""Puts on these integrations in the place of earlier ones; with None those that the environment names, if none were
chosen yet; with False none, until the next call. `api.py` installs it."""

configured = False
"""Whether the program called `configure` itself. Else nothing is raised in work that only integrations see."""


def takes_requests(operation: OperationState) -> bool:
    """Whether its program knows requests to stop: it called `configure`, or made this or one around it itself."""
    above: HandleState | None = operation
    while above is not None and above.operation._observed:
        above = above.operation._parent
    return above is not None or configured


captures_inputs = False
"""Whether integrations keep what tools were asked for, as `configure(capture_inputs=...)` says."""

checkpoints: Any = None
"""The checkpoint store that `configure` named."""

wanted = False
"""Whether anything consumes events: a pipeline, an SDK, a listener, a handler, or the history that the environment
names. Otherwise nothing is reported."""

on_operation: list[Callable[[OperationState], None]] = []
"""Called in the caller's thread when an operation starts, if events are wanted."""


stall_after: float | None = None
"""The allowed idle time of work that names none, in seconds, as `configure` or the environment sets it."""


class Watcher(Protocol):
    """Makes work live that was not written for this package; one at a time."""

    def look(self, now: float) -> None:
        """A round of the ticker begins, at a monotonic time."""

    def here(self, around: HandleState | None) -> HandleState | None:
        """The innermost handle of such work that runs here inside `around`, the handle that is current."""

    def forget(self) -> None:
        """What was seen belongs to another process, or to another test."""


watcher: Watcher | None = None
"""Hears of each round of the ticker before it takes changes, and is asked what runs where no handle is current."""


def nobody() -> None:
    """Do nothing: no hook is installed."""


on_first: Callable[[], None] | None = None
"""Called in the caller's thread when an operation starts, until it is None: the first one may have to configure."""

on_process_end: list[Callable[[float], None]] = []
"""Called first when the process ends by itself, in the thread that ends it, with the seconds that they may wait."""

on_expect: Callable[[], None] = nobody
"""Called when an operation with `start_within` is created, if events are wanted."""

on_end: Callable[[], None] = nobody
"""Called in the caller's thread when an operation ended, after its change was queued for the ticker."""


class SeenEnd(NamedTuple):
    """The end of an operation of another process of this machine, as this one saw or caused it.

    Attributes:
        operation_id: the id of the operation.
        name: its name.
        pid: the process that ran it.
        status: how it ended.
        reason: why.
    """

    operation_id: str
    name: str
    pid: int
    status: Status
    reason: str


seen_ends: list[Callable[[SeenEnd], None]] = []
"""Called in any thread with the end of an operation of another process."""

on_change: list[Callable[[Change], None]] = []
"""Called in the ticker's thread with each change, even if its event is folded into others."""

sinks: list[Callable[[Event, OperationState], None]] = []
"""Called in the ticker's thread with each event and its operation, in order."""

paced_sinks: list[Callable[[Event, OperationState], None]] = []
"""The same, but plain updates wait as the cadence says (`engine/cadence.py`): what leaves for a receiver."""

item_sinks: list[Callable[[Event, OperationState], None]] = []
"""The same for the events of single items; while there is none, nobody looks for them."""

verdicts: list[Callable[[OperationState, Health, Health, Snapshot], None]] = []
"""Called in the ticker's thread when the verdict on an operation changed: old health, new health, snapshot."""

on_trouble: list[Callable[[OperationState], None]] = []
"""Called in the ticker's thread when an operation became stuck, looping or overdue, or is so no longer."""

limits: weakref.WeakSet[Limit] = weakref.WeakSet()
"""Limits of concurrency whose sizes are observed as a metric."""

on_tick: list[Callable[[float], None]] = []
"""Called in the ticker's thread after each round, with the monotonic time."""
