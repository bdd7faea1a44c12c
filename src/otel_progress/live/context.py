"""The current handle, across tasks and threads.

A context variable holds the innermost handle. Tasks and `asyncio.to_thread` inherit it; pool threads need `carry`,
other processes `inject` and `extract`.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from typing_extensions import ParamSpec

from otel_progress import semconv
from otel_progress.live import hooks, misuse
from otel_progress.live.diagnosis.places import here
from otel_progress.live.guard import NOTHING_LEFT, drops, swallow
from otel_progress.live.registry import registry
from otel_progress.model.origin import of_the_job
from otel_progress.model.status import Status

if TYPE_CHECKING:
    from otel_progress.live.diagnosis.places import Place
    from otel_progress.live.records import Parent
    from otel_progress.live.state import HandleState

P = ParamSpec("P")
R = TypeVar("R")

innermost: contextvars.ContextVar[HandleState | None] = contextvars.ContextVar("otel_progress", default=None)
inherited: contextvars.ContextVar[Parent | None] = contextvars.ContextVar("otel_progress_inherited", default=None)
"""The operation of another process that this work is for: the parent of operations that have no other one."""


def running_here() -> HandleState | None:
    """The innermost handle that still runs and belongs to this process, or None."""
    node = innermost.get()
    while node is not None and not is_alive(node):
        node = node._parent
    return watched_here() if node is None else node


def watched_here() -> HandleState | None:
    """The innermost handle of work that was not written for this package, if such work runs here."""
    watcher = hooks.watcher
    return None if watcher is None else watcher.here(innermost.get())


def asked_here() -> HandleState | None:
    """The innermost handle that still runs, or has ended after it was asked to stop: its threads may not know."""
    node = innermost.get()
    while node is not None and not is_alive(node):
        one = node.operation
        if one._status.final and one._cancel_reason is not None and registry.owns(one):
            return node
        node = node._parent
    return watched_here() if node is None else node


def is_alive(node: HandleState) -> bool:
    """Whether a handle runs, in this process."""
    return node._status is Status.RUNNING and registry.owns(node.operation)


def enter(node: HandleState) -> None:
    """Make a handle and its span current."""
    node._context = innermost.set(node)
    if node._place is not None:
        node._place = here()
    if node._span is not None:
        node._token = hooks.tracing.attach(node)


def leave(node: HandleState | Use) -> None:
    """Restore what was current before; in another context there is nothing to restore."""
    token, node._context = node._context, None
    span_token, node._token = node._token, None
    if token is None:
        return
    try:
        innermost.reset(token)
    except (ValueError, RuntimeError, LookupError) as error:
        if not is_elsewhere(error):
            raise
        return
    if span_token is not None:
        hooks.tracing.detach(span_token)


def is_elsewhere(error: BaseException) -> bool:
    """Whether the error says that a token belongs to another context, and no signal handler raised it."""
    return isinstance(error, (ValueError, RuntimeError, LookupError)) and not of_the_job(error)


class Use:
    """Makes a started handle current, for `with` and `async with`; ends nothing."""

    def __init__(self, node: HandleState, *, span: bool = True) -> None:
        """Of a started handle, with or without its span."""
        self._node = node
        self._span = node._span if span is not False else None
        self._context: Any = None
        self._token: Any = None
        self._places: tuple[Place, Place] | None = None

    def __enter__(self) -> Any:
        """Make the handle current."""
        self._context = innermost.set(self._node)
        try:
            before = self._node._place
            if before is not None:
                self._node._place = place = here()
                self._places = before, place
            self._token = hooks.tracing.attach(self._node) if self._span is not None else None
        except BaseException as error:
            try:
                swallow(error, "use")
            except NOTHING_LEFT:
                pass
        return self._node

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore what was current before."""
        try:
            if self._places is not None and self._node._place is self._places[1]:
                self._node._place = self._places[0]  # where its work goes on
            leave(self)
        except BaseException as broken:
            try:
                swallow(broken, "use")
            except NOTHING_LEFT:
                pass

    async def __aenter__(self) -> Any:
        """Make the handle current."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore what was current before."""
        self.__exit__(kind, error, trace)


def outside(what: str) -> None:
    """Count a call outside of any running operation, and log it once for each call site."""
    drops.add(semconv.DROP_OUTSIDE)
    node = innermost.get()
    if node is not None and node.operation._status.final:
        misuse.warn(what, "does nothing: its operation %r has ended already", node.operation.name)
        return
    misuse.warn(
        what,
        "does nothing: no operation is running here. Open one with 'with operation(...)'; "
        "in a pool's thread, submit carry(fn) or use CarryingExecutor.",
    )


def carry_only(fn: Callable[P, R], node: HandleState) -> Callable[P, R]:
    """Return a function that runs `fn` as part of a handle, and with no other variable of this context."""

    def carried(*args: P.args, **kwargs: P.kwargs) -> R:
        place = here()
        places: set[Place] = vars(node).setdefault("_carried", set())
        places.add(place)
        token = innermost.set(node)
        try:
            return fn(*args, **kwargs)
        finally:
            innermost.reset(token)
            places.discard(place)

    return carried


def carry(fn: Callable[P, R]) -> Callable[P, R]:
    """Return a function that runs `fn` in the current context, in whatever thread it is called.

    Pool threads don't inherit the context. The function may be called many times, and in many threads at once.

    Example: `pool.submit(carry(work), item)`
    """
    context = contextvars.copy_context()

    def carried(*args: P.args, **kwargs: P.kwargs) -> R:
        node = context.get(innermost)
        if node is None or not hooks.wanted:
            return context.copy().run(fn, *args, **kwargs)
        places: set[Place] = set()
        try:
            place = here()
            places = vars(node).setdefault("_carried", places)  # one step, so that two threads get the same
            places.add(place)
        except BaseException as error:
            swallow(error, "carry")
            return context.copy().run(fn, *args, **kwargs)
        try:
            return context.copy().run(fn, *args, **kwargs)
        finally:
            places.discard(place)

    try:
        return functools.wraps(fn)(carried)
    except BaseException as error:
        try:
            swallow(error, "carry")
        except NOTHING_LEFT:
            pass
        return carried
