"""`@operation` and `@stage` for functions, coroutines, generators, async generators and methods.

The kind of a function is determined once, when it is decorated. The wrapper is a wrapt `FunctionWrapper`, so the
signature, `inspect`, binding to instances and pickling by name work as without it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import wrapt

from otel_progress import clock
from otel_progress.errors import InvalidArgument
from otel_progress.live import context, hooks
from otel_progress.live.context import Use
from otel_progress.live.guard import NOTHING_LEFT, swallow
from otel_progress.live.handles import Operation, Stage, fresh_operation, fresh_stage, quiet_operation
from otel_progress.live.outcome import ending, words
from otel_progress.live.registry import registry
from otel_progress.model.status import Status
from otel_progress.model.values import shown

Maker = Callable[[], Any]
RETURNED: Final = "returned"
"""The key under which the return value of a function is kept."""


def _find(module: str, qualname: str) -> Any:
    return functools.reduce(getattr, qualname.split("."), importlib.import_module(module))


class _Bound(wrapt.BoundFunctionWrapper):  # type: ignore[type-arg]
    """A decorated bound method. It is pickled as methods are."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        wrapped = self.__wrapped__
        owner = getattr(wrapped, "__self__", None)
        return (
            (_find, (wrapped.__module__, wrapped.__qualname__))
            if owner is None
            else (getattr, (owner, wrapped.__name__))
        )


class _Decorated(wrapt.FunctionWrapper):  # type: ignore[type-arg]
    """A function whose calls are operations or stages. It is pickled by its qualified name."""

    __bound_function_wrapper__ = _Bound

    def __reduce_ex__(self, protocol: Any) -> str:
        name: str = self.__wrapped__.__qualname__
        return name

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self


def wrap(fn: Any, template: Operation | Stage) -> Any:
    """Decorate a function, coroutine function, generator function, async generator function or method.

    Args:
        fn: What to decorate.
        template: An operation or stage that holds the options; each call gets a fresh one.

    Raises:
        InvalidArgument: If `fn` is a class or not callable.
    """
    if inspect.isclass(fn):
        raise InvalidArgument(f"{shown(fn)} is a class: decorate the method that does the work instead")
    if not callable(fn) and not isinstance(fn, (classmethod, staticmethod)):
        raise InvalidArgument(f"only functions can be decorated, not {shown(fn)}")
    make: Maker = partial(fresh_stage, template) if isinstance(template, Stage) else _maker(template)
    inner = fn.__func__ if isinstance(fn, (classmethod, staticmethod)) else fn
    # A wrapper may return something else than what it wraps, so the function is not unwrapped.
    kinds = (inner, getattr(inner, "__call__", None))
    if template._opts.once or (isinstance(template, Operation) and template._opts.resume is not None):
        return _Decorated(fn, _resumable(template, make, kinds))
    if any(map(inspect.iscoroutinefunction, kinds)):
        return _Decorated(fn, _coroutine(make, inner))
    if any(map(inspect.isasyncgenfunction, kinds)):
        return _Decorated(fn, _async_generator(make))
    if any(map(inspect.isgeneratorfunction, kinds)):
        return _Decorated(fn, _generator(make))
    if isinstance(template, Operation):
        return _Decorated(fn, _watched_or_not(make, template))
    return _Decorated(fn, _function(make))


def _resumable(template: Operation | Stage, make: Maker, kinds: tuple[Any, ...]) -> Any:
    """Wrap a function whose calls are known by their arguments: a resumable operation, or a stage that runs once."""
    from otel_progress.durable.fingerprint import of_arguments, of_call

    if any(map(inspect.isasyncgenfunction, kinds)) or any(map(inspect.isgeneratorfunction, kinds)):
        raise InvalidArgument(
            f"the generator {shown(getattr(kinds[0], '__name__', kinds[0]))} can't be resumed, as what it was doing is "
            "lost with its process: decorate a function, or open the operation or stage inside it"
        )

    resume = template._opts.resume if isinstance(template, Operation) else None
    known = resume is None or resume.fingerprint is not None

    def made(wrapped: Any, args: Any, kwargs: Any) -> Any:
        node: Any = make()
        if isinstance(node, Stage):
            node._arguments = of_arguments(wrapped, args, kwargs)
            owner = getattr(wrapped, "__self__", None)
            if owner is None and getattr(wrapped, "__closure__", None):
                owner = wrapped
            node._called_on = owner
        elif not known:
            node._fingerprint = of_call(wrapped, args, kwargs)
        return node

    def call(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        with made(wrapped, args, kwargs) as node:
            kept = _kept(node)
            if kept is not None:
                return kept[RETURNED]
            value = wrapped(*args, **kwargs)
            _keep(node, value)
            return value

    async def run(wrapped: Any, args: Any, kwargs: Any) -> Any:
        async with made(wrapped, args, kwargs) as node:
            kept = _kept(node)
            if kept is not None:
                return kept[RETURNED]
            value = await wrapped(*args, **kwargs)
            _keep(node, value)
            return value

    def later(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        return run(wrapped, args, kwargs)

    return later if any(map(inspect.iscoroutinefunction, kinds)) else call


def _kept(node: Operation | Stage) -> dict[str, Any] | None:
    """What a function that runs once returned before; None if it is to be called."""
    session = node.operation._session
    if session is None or not isinstance(node, Stage) or not node._opts.once:
        return None
    if node._called_on is not None:
        session.called(node, node._called_on)
    kept = node.restored
    return kept if kept is not None and RETURNED in kept else None


def _keep(node: Operation | Stage, value: Any) -> None:
    """Keep the return value of a function that runs once."""
    session = node.operation._session
    if session is not None and node._opts.once:
        session.result(node, {RETURNED: value})


def _maker(template: Operation) -> Maker:
    fresh = fresh_operation

    def make() -> Operation:
        try:
            return fresh(template)
        except BaseException as error:
            swallow(error, "a decorated function")
            return object.__new__(Operation)

    return make


def _function(make: Maker) -> Any:
    def call(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        with make():
            return wrapped(*args, **kwargs)

    return call


def _watched_or_not(make: Maker, template: Operation) -> Any:
    """Wrap a function as `_function` does, with a fast path for processes without any observer."""
    quiet = quiet_operation
    enter, leave = context.innermost.set, context.innermost.reset
    absent = hooks.tracing.absent
    if template._opts.id is not None:
        return _function(make)

    def call(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        if hooks.wanted or hooks.on_first is not None or not absent():
            with make():
                return wrapped(*args, **kwargs)
        try:
            operation = quiet(template)
        except Exception as error:
            swallow(error, "a decorated function")
            return wrapped(*args, **kwargs)
        token = enter(operation)
        try:
            result = wrapped(*args, **kwargs)
        except BaseException as error:
            try:
                operation._finish(ending(error), words(error), error)
            except NOTHING_LEFT:
                pass
            raise
        finally:
            leave(token)
        if hooks.wanted or operation._running:
            operation._finish(Status.COMPLETED, None, None)
        else:
            operation._ended = clock.monotonic()
            operation._status = Status.COMPLETED
        return result

    return call


def _coroutine(make: Maker, fn: Any) -> Any:
    async def run(wrapped: Any, args: Any, kwargs: Any) -> Any:
        with make():
            return await wrapped(*args, **kwargs)

    while isinstance(fn, functools.partial):
        fn = fn.func
    # "never awaited" warnings and the reprs of tasks show these names.
    run.__name__ = getattr(fn, "__name__", type(fn).__name__)
    run.__qualname__ = getattr(fn, "__qualname__", type(fn).__qualname__)

    def call(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        return run(wrapped, args, kwargs)

    return call


def _generator(make: Maker) -> Any:
    def call(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        return _Generator(wrapped(*args, **kwargs), make())

    return call


def _async_generator(make: Maker) -> Any:
    def call(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        return _AsyncGenerator(wrapped(*args, **kwargs), make())

    return call


class _Driven(wrapt.ObjectProxy):  # type: ignore[type-arg]
    """A generator whose operation is current only while it runs, never in its caller."""

    def __init__(self, wrapped: Any, node: Operation | Stage) -> None:
        super().__init__(wrapped)
        self._self_node = node
        self._self_end = weakref.finalize(self, _abandoned, node)
        self._self_end.atexit = False

    def _self_enter(self) -> Use | None:
        use = None
        try:
            node = self._self_node
            if node._status is Status.PENDING and node._started is None:
                node.start()
            use = Use(node)
            use.__enter__()
            node._suspended = False
        except BaseException as error:
            try:
                swallow(error, "a decorated generator")
            except NOTHING_LEFT:
                pass
            except BaseException:  # raised by a signal handler: the generator does not run
                self._self_leave(use)
                raise
        return use

    def _self_leave(self, use: Use | None) -> None:
        try:
            self._self_node._suspended = True  # until the consumer asks for the next item
        except NOTHING_LEFT:
            pass
        if use is not None:
            use.__exit__(None, None, None)

    def _self_done(self, error: BaseException | None) -> None:
        """End the operation or stage. No error of ours may replace the generator's own exception."""
        try:
            self._self_over(error)
        except BaseException as broken:
            if broken is error:
                return
            try:
                swallow(broken, "the end of a generator")
            except NOTHING_LEFT:
                pass

    def _self_over(self, error: BaseException | None) -> None:
        wrapped = self.__wrapped__
        if getattr(wrapped, "gi_running", False) or getattr(wrapped, "ag_running", False):
            return  # called while it was already running: it goes on
        over = isinstance(error, (StopIteration, StopAsyncIteration))
        status = Status.COMPLETED if over else ending(error)
        self._self_node._finish(status, None if over else words(error), None if over else error)
        self._self_end.detach()


def _abandoned(node: Operation | Stage) -> None:
    """Cancel what a dropped generator left open. A finalizer may run at any line, so it only queues the end."""
    if node._status is not Status.RUNNING:
        return
    if hooks.wanted:
        registry.dropped.append((node, Status.CANCELLED, "the generator was dropped before its end"))
    else:
        node._status = Status.CANCELLED


class _Generator(_Driven):
    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        return self._self_step(self.__wrapped__.send, value)

    def throw(self, *error: Any) -> Any:
        return self._self_step(self.__wrapped__.throw, *error)

    def close(self) -> None:
        if self._self_node._started is None:
            self.__wrapped__.close()
            return
        use = self._self_enter()
        try:
            self.__wrapped__.close()
        except BaseException as error:
            self._self_done(error)
            raise
        finally:
            self._self_leave(use)
        self._self_done(GeneratorExit())

    def _self_step(self, step: Any, *args: Any) -> Any:
        use = self._self_enter()
        try:
            return step(*args)
        except BaseException as error:
            self._self_done(error)
            raise
        finally:
            self._self_leave(use)


class _AsyncGenerator(_Driven):
    def __aiter__(self) -> Any:
        return self

    def __anext__(self) -> Any:
        return self._self_step(self.__wrapped__.__anext__())

    def asend(self, value: Any) -> Any:
        return self._self_step(self.__wrapped__.asend(value))

    def athrow(self, *error: Any) -> Any:
        return self._self_step(self.__wrapped__.athrow(*error))

    def aclose(self) -> Any:
        return self._self_close()

    async def _self_close(self) -> None:
        if self._self_node._started is None:
            await self.__wrapped__.aclose()
            return
        await self._self_step(self.__wrapped__.aclose())
        self._self_done(GeneratorExit())

    async def _self_step(self, step: Any) -> Any:
        use = self._self_enter()
        try:
            return await step
        except BaseException as error:
            self._self_done(error)
            raise
        finally:
            self._self_leave(use)
