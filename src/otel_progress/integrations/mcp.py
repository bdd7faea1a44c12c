"""MCP: each call of a tool is an operation in the server, and in the client a stage of what runs, or an operation.

While a call runs, the server tells a client that gave a progress token how far it is, and else that it is alive, so
that clients do not give it up. Only values that grow count as progress in the client.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from inspect import signature
from typing import Any, Final

import otel_progress as progress
from otel_progress.integrations.switch import Switch, call_of, captured, observed
from otel_progress.integrations.usual_limits import TOOL

LIBRARY: Final = "mcp"
TESTED: Final = ("2.3", "3")
MODULES: Final = ("mcp.server.lowlevel.server", "mcp.client.session")
LOOK: Final = 1.0
"""Seconds between two looks at how far a call is."""
ALIVE: Final = 10.0
"""Seconds after which a call is reported as alive, if nothing changed."""
STEP: Final = 1e-6
"""By how much the progress of a call that makes none rises with each report, as each must be above the one before."""
NAMES: Final = 200
"""The most names of operations in a server, as clients may call tools by any name."""
OTHER: Final = "tool"
NAME: Final = 100
REASON: Final = 200
WAITS: Final = {"sampling/createMessage": "sampling", "elicitation/create": "a human", "roots/list": "the client"}
"""What a tool waits for, by the request that it sends to the client."""
CANCELLED: Final = -32800
"""The error code for a call that was cancelled by somebody else than the client; that of LSP."""

SERVE: Final = "_on_request"
"""The method by which a server takes a request; it is not public."""

switch = Switch("mcp")
_plain: dict[str, Any] = {}
_names: dict[str, None] = {}


class Call:
    """A call in the server: its operation, and what the client was told."""

    def __init__(self, operation: progress.Operation) -> None:
        """The client was told nothing yet."""
        self.operation = operation
        self.sent = 0.0
        self.said: tuple[Any, ...] = ()
        self.quiet = 0.0
        self.by_client = False

    def tool_reports(self, done: float, total: float | None, message: str | None) -> None:
        """The tool itself reports how far it is."""
        self.sent, self.quiet = max(self.sent, done), 0.0
        self.said = (done, total, message)
        options: dict[str, Any] = {"total": total, "message": message}
        self.operation.update(completed=done, **{key: value for key, value in options.items() if value is not None})

    def report(self, passed: float) -> tuple[float, float | None, str] | None:
        """What the client is to be told after some more seconds; None if that is nothing."""
        snapshot = self.operation.snapshot()
        counts = snapshot.progress
        done: float | None = counts.completed
        total: float | None = counts.total
        if done is None:
            done, total = counts.ratio, None if counts.ratio is None else 1.0
        message = snapshot.message or snapshot.stage
        self.quiet += passed
        if (done, total, message) == self.said or (done is None and message is None):
            if self.quiet < ALIVE:
                return None
            message = _alive(snapshot)
        else:
            self.said = (done, total, message)
        self.quiet = 0.0
        self.sent = max(done or 0.0, self.sent + STEP)
        return self.sent, total, message or snapshot.name


_call: ContextVar[Call | None] = ContextVar("otel-progress-mcp-call", default=None)
_running: dict[tuple[int, str], Call] = {}


def install() -> None:
    """Watch servers and sessions, as far as they are imported; calls that run already are not seen.

    Raises:
        AttributeError, ImportError: if the library has no middleware, a class is missing, or a call takes no meta.
    """
    server, client = sys.modules.get(MODULES[0]), sys.modules.get(MODULES[1])
    caller = getattr(client, "ClientSession", None)
    if caller is not None and "meta" not in signature(caller.call_tool).parameters:
        raise AttributeError("its client passes no meta on")  # ours would break its calls
    if server is not None and hasattr(server, "Server") and "init" not in _plain:
        kind, runner, session = _server_kinds(server)
        plain = {"init": kind.__init__, "serve": getattr(runner, SERVE)}
        plain |= {"ask": session.send_request, "report": session.report_progress}
        kind.__init__ = _wrapped_init(plain["init"])
        setattr(runner, SERVE, _wrapped_serve(plain["serve"]))
        session.send_request, session.report_progress = _wrapped_ask(plain["ask"]), _wrapped_report(plain["report"])
        _plain.update(plain)
    if caller is not None and "call" not in _plain:
        _plain["call"] = caller.call_tool
        caller.call_tool = _wrapped_call(caller.call_tool)
    switch.on = True


def uninstall() -> None:
    """Undo it; servers that exist keep a middleware that does nothing."""
    switch.on = False
    server, client = sys.modules.get(MODULES[0]), sys.modules.get(MODULES[1])
    if server is not None and "init" in _plain:
        kind, runner, session = _server_kinds(server)
        kind.__init__ = _plain.pop("init")
        setattr(runner, SERVE, _plain.pop("serve"))
        session.send_request, session.report_progress = _plain.pop("ask"), _plain.pop("report")
    if client is not None and "call" in _plain:
        client.ClientSession.call_tool = _plain.pop("call")


def _server_kinds(server: Any) -> tuple[Any, Any, Any]:
    """The classes of servers, of what runs them, and of their sessions."""
    from mcp.server.runner import ServerRunner
    from mcp.server.session import ServerSession

    return server.Server, ServerRunner, ServerSession


# -- the server


def _wrapped_init(plain: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(plain)
    def init(self: Any, *args: Any, **options: Any) -> None:
        plain(self, *args, **options)
        _watch(self)

    return init


def _wrapped_serve(plain: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(plain)
    async def serve(self: Any, *args: Any, **options: Any) -> Any:
        _watch(self.server)  # it may have been made before we were switched on
        return await plain(self, *args, **options)

    return serve


def _watch(server: Any) -> None:
    if switch.on and middleware not in server.middleware:
        server.middleware.insert(0, middleware)  # outside of the span that the SDK makes


async def middleware(ctx: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
    """Run a call of a tool as an operation."""
    if not switch.on or ctx.method not in ("tools/call", "notifications/cancelled"):
        return await call_next(ctx)
    try:
        call = None
        if ctx.method == "tools/call":
            call = _begun(ctx)
        else:
            _cancelled(ctx)
    except BaseException:
        switch.failed()
        call = None
    if call is None:
        return await call_next(ctx)
    key = _key(ctx, ctx.request_id)
    _running[key] = call
    token = _call.set(call)
    try:
        return await _served(ctx, call, call_next)
    except asyncio.CancelledError:
        if call.by_client or not call.operation.cancel_requested():
            raise
        raise _refused(call.operation) from None  # somebody else cancelled it: the client hears of it
    finally:
        _call.reset(token)
        _running.pop(key, None)


def _begun(ctx: Any) -> Call | None:
    if ctx.request_id is None:
        return None
    params = ctx.params or {}
    given = params.get("name")
    name = str(given)[:NAME] if given else OTHER
    if len(_names) >= NAMES and name not in _names:
        name = OTHER
    _names[name] = None
    operation = observed(progress.operation(name, parent=progress.extract(_meta(params))), TOOL)
    kept = captured(params.get("arguments"))
    if kept is not None:
        operation.set(arguments=kept)
    return Call(operation)


def _cancelled(ctx: Any) -> None:
    """The client does not want a result any more; code in a thread hears of it as well."""
    params = ctx.params or {}
    call = _running.get(_key(ctx, params.get("requestId")))
    if call is not None:
        call.by_client = True
        reason = params.get("reason")
        call.operation.request_cancel(f"by the client: {reason}"[:REASON] if reason else "by the client")


def _key(ctx: Any, request_id: object) -> tuple[int, str]:
    """Identifies a request among those of all clients."""
    return id(getattr(ctx.session, "_connection", None)), str(request_id)


def _meta(params: Mapping[str, Any]) -> dict[str, str]:
    found = params.get("_meta")
    return {key: value for key, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}


async def _served(ctx: Any, call: Call, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
    """Run the tool, and tell the client how far it is; the SDK sends it only if the client wants to know.

    What tells it is no work of the operation, so it begins outside.
    """
    failure: Exception | None = None
    result: Any = None
    async with _telling(ctx.session, call):
        try:
            with call.operation:
                result = await call_next(ctx)
                _judge(call.operation, result)
        except Exception as error:
            failure = error  # raised outside of the task group, which would wrap it
    if failure is not None:
        raise failure
    return result


@asynccontextmanager
async def _telling(session: Any, call: Call) -> AsyncIterator[None]:
    import anyio

    async with anyio.create_task_group() as group:
        group.start_soon(_tell, session, call)
        try:
            yield
        finally:
            group.cancel_scope.cancel()


async def _tell(session: Any, call: Call) -> None:
    import anyio

    while switch.on:
        await anyio.sleep(LOOK)
        try:
            found = call.report(LOOK)
            if found is not None:
                await _plain["report"](session, *found)
        except Exception:
            switch.failed()


def _alive(snapshot: progress.Snapshot) -> str:
    if snapshot.wait is not None:
        return f"alive, waits for {snapshot.wait.reason} for {snapshot.wait.elapsed:.0f} s"
    return f"alive, no progress for {snapshot.idle:.0f} s"


def _judge(handle: progress.Operation | progress.Stage, result: Any) -> None:
    """A tool that fails says so in its result."""
    failed = result.get("isError") if isinstance(result, dict) else getattr(result, "is_error", False)
    if failed is True:
        content = result.get("content") if isinstance(result, dict) else getattr(result, "content", None)
        handle.fail(_text(content) or "the tool reported an error")


def _text(content: Any) -> str:
    for part in content if isinstance(content, (list, tuple)) else ():
        text = part.get("text") if isinstance(part, dict) else getattr(part, "text", None)
        if isinstance(text, str):
            return text[:REASON]
    return ""


def _refused(operation: progress.Operation) -> Exception:
    from mcp.shared.exceptions import MCPError

    task = asyncio.current_task()
    if task is not None and hasattr(task, "uncancel"):
        task.uncancel()
    return MCPError(CANCELLED, f"cancelled: {operation.snapshot().reason or 'no reason given'}")


def _wrapped_ask(plain: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(plain)
    async def send_request(self: Any, request: Any, *args: Any, **options: Any) -> Any:
        reason = WAITS.get(getattr(request, "method", "")) if switch.on and _call.get() is not None else None
        if reason is None:
            return await plain(self, request, *args, **options)
        with progress.waiting(reason):
            return await plain(self, request, *args, **options)

    return send_request


def _wrapped_report(plain: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(plain)
    async def report_progress(
        self: Any, progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        call = _call.get()
        if switch.on and call is not None:
            try:
                call.tool_reports(progress, total, message)
            except BaseException:
                switch.failed()
        await plain(self, progress, total, message)

    return report_progress


# -- the client


def _wrapped_call(plain: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(plain)
    async def call_tool(
        self: Any,
        name: str,
        arguments: dict[str, Any] | None = None,
        read_timeout_seconds: float | None = None,
        progress_callback: Any = None,
        **options: Any,
    ) -> Any:
        if not switch.on:
            return await plain(self, name, arguments, read_timeout_seconds, progress_callback, **options)
        inside = progress.current()
        handle: Any = observed((progress.operation if inside is None else progress.stage)(name[:NAME]), TOOL)
        with handle:
            kept = captured(arguments)
            if kept is not None:
                handle.note(f"{name[:NAME]} was called", arguments=kept)
            options["meta"] = {**progress.inject(), **(options.get("meta") or {})}
            heard = _hearing(handle, progress_callback)
            try:
                result = await plain(self, name, arguments, read_timeout_seconds, heard, **options)
            except Exception as error:
                _step(inside, call_of(name[:NAME], arguments, f"{type(error).__name__}: {error}"))
                raise
            _step(inside, call_of(name[:NAME], arguments, _content(result)))
            _judge(handle, result)
            return result

    return call_tool


def _step(inside: Any, call: str | None) -> None:
    if inside is not None and call is not None:
        inside.step(call)


def _content(result: Any) -> Any:
    """What a tool gave back, as plain values; None if nobody knows."""
    try:
        return result.structured_content or [each.model_dump(mode="json") for each in result.content]
    except Exception:
        return None


def _hearing(handle: Any, also: Any) -> Callable[[float, float | None, str | None], Awaitable[None]]:
    """What takes the progress of a called tool, before the program's own callback."""
    highest = 0.0

    async def heard(done: float, total: float | None, message: str | None) -> None:
        nonlocal highest
        try:
            given = {"total": total, "message": message}
            if done - highest > 10 * STEP:  # less is a sign of life
                highest = done
                given["completed"] = done
            handle.update(**{key: value for key, value in given.items() if value is not None})
        except BaseException:
            switch.failed()
        if also is not None:
            await also(done, total, message)

    return heard
