"""What the layers above put in here, so that `live` needs to know none of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from otel_progress.live.handle import Handle
    from otel_progress.live.operation import Operation
    from otel_progress.live.registry import Change
    from otel_progress.live.stage import Stage
    from otel_progress.model.snapshot import Event, Snapshot, SpanIds
    from otel_progress.model.status import Health
from otel_progress.model.status import Status


class Tracing(Protocol):
    """Makes a span of each operation and stage; `telemetry/spans.py` does."""

    def use(self, provider: Any) -> None:
        """Make spans by this tracer provider."""

    def absent(self) -> bool:
        """Whether no span can be made, as no SDK was set up."""

    def start(self, operation: Operation, parent: object, now: int) -> None:
        """Start the span of an operation below that of its parent, at a time in ns."""

    def start_stage(self, stage: Stage, inside: bool, current: bool, now: int) -> None:
        """Start the span of a stage of an operation that has one.

        `inside` says whether its parent is current, `current` whether the span is to be: its token goes to the stage.
        """

    def attach(self, node: Handle) -> Any:
        """Make the handle's span current; returns what `detach` needs."""

    def detach(self, token: Any) -> None:
        """Undo an attach."""

    def end(self, node: Handle, status: Status, reason: str | None, error: BaseException | None, now: int) -> None:
        """End the span of a handle with what happened, at a time in ns."""

    def ids(self, node: Handle) -> SpanIds | None:
        """The ids of the handle's span, or None where it has none."""


class NoTracing:
    """No spans at all."""

    def use(self, provider: Any) -> None: ...  # noqa: D102
    def absent(self) -> bool:  # noqa: D102
        return True

    def start(self, operation: Operation, parent: object, now: int) -> None: ...  # noqa: D102
    def start_stage(self, stage: Stage, inside: bool, current: bool, now: int) -> None: ...  # noqa: D102
    def attach(self, node: Handle) -> Any: ...  # noqa: D102
    def detach(self, token: Any) -> None: ...  # noqa: D102
    def end(self, node: Handle, status: Status, reason: str | None, error: BaseException | None, now: int) -> None: ...  # noqa: D102
    def ids(self, node: Handle) -> SpanIds | None: ...  # noqa: D102


def _no_decorators(fn: Any, template: Operation | Stage) -> Any:
    raise NotImplementedError("import otel_progress, which brings the decorators")


wrap: Callable[[Any, Operation | Stage], Any] = _no_decorators
"""Decorates a function with an operation or a stage; `api.py` puts `decorators.wrap` here."""

tracing: Tracing = NoTracing()

wanted = False
"""Whether anybody takes events: a pipeline, an SDK, a listener, a handler. Without, nothing is reported."""

on_operation: list[Callable[[Operation], None]] = []
"""Called in the caller's thread when an operation starts and somebody wants events."""


def nobody() -> None:
    """Nobody is interested."""


on_expect: Callable[[], None] = nobody
"""Called when an operation is made that should start within a limit, and somebody wants events."""

on_end: Callable[[], None] = nobody
"""Called in the caller's thread when an operation ended, after its change was left for the ticker."""

on_change: list[Callable[[Change], None]] = []
"""Called in the ticker's thread with each change, even where its event is folded into others."""

sinks: list[Callable[[Event, Operation], None]] = []
"""Called in the ticker's thread with each event and its operation, in order."""

verdicts: list[Callable[[Operation, Health, Health, Snapshot], None]] = []
"""Called in the ticker's thread when the verdict on an operation changed: the old health, the new one, the evidence."""

on_tick: list[Callable[[float], None]] = []
"""Called in the ticker's thread after each round, with the monotonic time."""
