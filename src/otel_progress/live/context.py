"""Which handle is current; across tasks, threads and processes.

A context variable holds the innermost handle. Tasks and `asyncio.to_thread` carry it on by themselves;
pool threads need `carry`, other processes `inject` and `extract`.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from typing_extensions import ParamSpec

from otel_progress import semconv
from otel_progress.live import callsite, hooks
from otel_progress.live.diagnosis.places import here
from otel_progress.live.drops import drops
from otel_progress.live.guard import NOTHING_LEFT, swallow
from otel_progress.model.origin import of_the_job

if TYPE_CHECKING:
    from otel_progress.live.diagnosis.places import Place
    from otel_progress.live.handle import Handle
    from otel_progress.live.use import Use

P = ParamSpec("P")
R = TypeVar("R")

innermost: contextvars.ContextVar[Handle | None] = contextvars.ContextVar("otel_progress", default=None)


def running_here() -> Handle | None:
    """The innermost handle that still runs and belongs to this process, or None."""
    node = innermost.get()
    while node is not None and not node._alive:
        node = node._parent
    return node


def enter(node: Handle) -> None:
    """Make a handle and its span current."""
    node._context = innermost.set(node)
    if node._place is not None:
        node._place = here()
    if node._span is not None:
        node._token = hooks.tracing.attach(node)


def leave(node: Handle | Use) -> None:
    """Make current again what was before; left in another context, there is nothing to undo."""
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
    """Whether a token could not be reset, as it is of another context; not where a signal handler raised the like."""
    return isinstance(error, (ValueError, RuntimeError, LookupError)) and not of_the_job(error)


def outside(what: str) -> None:
    """A module function was called where nothing runs: count it, and say so once for each call site."""
    drops.add(semconv.DROP_OUTSIDE)
    callsite.warn(
        what,
        "does nothing: no operation is running here. Open one with 'with operation(...)'; "
        "in a pool's thread, submit carry(fn) or use CarryingExecutor.",
    )


def carry(fn: Callable[P, R]) -> Callable[P, R]:
    """A function that runs in the context of here, wherever it is called.

    For the threads of a pool, which don't take the context along by themselves:
    `pool.submit(carry(work), item)`. It may be called many times, and in many threads at once.
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
