"""The OpenAI Agents SDK, by a trace processor beside its own.

A trace is an operation: one call of `Runner.run`, or what `with trace(...)` holds. Agents, tools, guardrails, model
calls and custom spans are stages, as they nest; a handoff is a line of the feed.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, TypeVar

from otel_progress import Operation, Stage, operation, semconv, stage
from otel_progress.integrations import seen
from otel_progress.integrations.switch import Patch, Switch, call_of, captured, observed
from otel_progress.integrations.usual_limits import MODEL, NODE, STREAM, TOOL

LIBRARY: Final = "openai-agents"
TESTED: Final = ("0.24", "1")
MODULES: Final = ("agents",)

OPEN: Final = 100_000
"""Spans that are open at a time, at most; others are not seen."""
BARE: Final = "Agent workflow"
"""The SDK's name for a trace that has none: its first agent names the operation."""
DELTA: Final = ".delta"
"""How the type of a streamed event ends that brings a token or a few."""
STREAMING: Final = (
    ("agents.models.openai_responses", "OpenAIResponsesModel"),
    ("agents.models.openai_chatcompletions", "OpenAIChatCompletionsModel"),
)
"""The models whose streamed tokens are counted."""

ERRORS: Final = "agents.util._error_tracing"
"""The module by which the SDK tells a span of an error, while it handles that."""
SCOPES: Final = ("openinference.instrumentation.openai_agents",)
"""Spans of the same work."""

F = TypeVar("F", bound=Callable[..., Any])
switch: Final = Switch("openai_agents")
_processors: list[Any] = []
_before: dict[type, Any] = {}
_attached: Final = Patch()


def install() -> None:
    """Add our processor, and count the tokens of streams."""
    from agents.tracing import TracingProcessor, add_trace_processor, get_trace_provider

    if not _processors:
        _processors.append(_processor(TracingProcessor))
        add_trace_processor(_processors[0])
    switch.on = True
    seen.scopes.update(SCOPES)
    provider = get_trace_provider()
    if "create_trace" not in vars(provider):
        provider.create_trace = _kept(provider)
    if ERRORS in sys.modules:
        _attached.put(sys.modules[ERRORS], {"attach_error_to_current_span": _attaching})
    for module, name in STREAMING:
        model = getattr(sys.modules.get(module), name, None)
        if model is not None and model not in _before:
            _before[model] = model.stream_response
            model.stream_response = _counted(model.stream_response)


def uninstall() -> None:
    """End what is open, and leave later runs alone. The SDK takes no processor back: it stays, doing nothing."""
    from agents.tracing import get_trace_provider

    switch.on = False
    vars(get_trace_provider()).pop("create_trace", None)
    for model, before in _before.items():
        model.stream_response = before  # type: ignore[attr-defined]
    _before.clear()
    _attached.restore()
    _forget()


def _forget() -> None:
    seen.scopes.difference_update(SCOPES)
    for processor in _processors:
        processor.seen.clear()


def _kept(provider: Any) -> Any:
    """The method that makes traces, which first adds our processor again where others took the place of all."""
    create_trace = provider.create_trace

    @functools.wraps(create_trace)
    def create(*args: Any, **kwargs: Any) -> Any:
        if switch.on:
            there = getattr(getattr(provider, "_multi_processor", None), "_processors", None)
            if there is not None and _processors[0] not in there:
                provider.register_processor(_processors[0])
        return create_trace(*args, **kwargs)

    return create


def _guarded(event: F) -> F:
    """An event whose own errors switch the integration off."""
    return switch.guard(event, _forget)


def _processor(base: Any) -> Any:
    """Make the processor, of the SDK's base class."""

    class ProgressProcessor(base):  # type: ignore[misc]
        """Turns traces and spans into operations and stages."""

        def __init__(self) -> None:
            self.seen = Spans()

        @_guarded
        def on_trace_start(self, trace: Any) -> None:
            self.seen.trace_started(trace)

        @_guarded
        def on_trace_end(self, trace: Any) -> None:
            self.seen.trace_ended(trace)

        @_guarded
        def on_span_start(self, span: Any) -> None:
            self.seen.started(span)

        @_guarded
        def on_span_end(self, span: Any) -> None:
            self.seen.ended(span)

        def shutdown(self) -> None:
            """Nothing is kept that could be lost."""

        def force_flush(self) -> None:
            """Nothing is kept back."""

    return ProgressProcessor()


class Entry:
    """A trace or a span that is open; one that is not shown has no handle."""

    __slots__ = ("__weakref__", "above", "error_before", "handle", "open", "raised", "stream", "used")

    def __init__(self, above: Entry | None) -> None:
        """Inside another one."""
        self.above = above
        self.handle: Operation | Stage | None = None
        self.used: Any = None
        self.stream: Stage | None = None
        self.open: weakref.WeakSet[Entry] = weakref.WeakSet()
        self.error_before = sys.exc_info()[1]
        self.raised: BaseException | None = None


class Spans:
    """All that is open, by id."""

    def __init__(self) -> None:
        """Nothing is open."""
        self._open: dict[str, Entry] = {}
        self._traces: dict[str, tuple[Entry, Any]] = {}

    def clear(self) -> None:
        """Forget all, and end what was seen of it."""
        traces = list(self._traces.values())
        self._open.clear()
        self._traces.clear()
        for entry, _ in traces:
            if entry.handle is not None:
                entry.handle.cancel("the integration was switched off")

    # -- what the SDK tells

    def trace_started(self, trace: Any) -> None:
        """A workflow begins; its operation starts now, or with its first span if only that names it."""
        if len(self._traces) >= OPEN:
            return
        entry = Entry(None)
        self._traces[trace.trace_id] = entry, trace
        if trace.name and trace.name != BARE:
            _operate(entry, trace, trace.name, None)

    def trace_ended(self, trace: Any) -> None:
        """A workflow is over, with what was left open in it."""
        entry, _ = self._traces.pop(trace.trace_id, (None, None))
        if entry is not None:
            self._end(entry, None)

    def started(self, span: Any) -> None:
        """An agent, a tool, a model call, or another part of a workflow begins."""
        root, trace = self._traces.get(span.trace_id, (None, None))
        if root is None or trace is None or len(self._open) >= OPEN:
            return
        above = self._open.get(span.parent_id) or root
        entry = self._open[span.span_id] = Entry(above)
        above.open.add(entry)
        data = span.span_data
        kind, name = data.type, str(getattr(data, "name", None) or data.type)
        if kind == "agent" and root.handle is None:
            _operate(root, trace, name, name)
        host = _host(above)
        if kind in ("task", "turn", "handoff"):
            return
        if host is None:
            host = _operate(root, trace, trace.name or name, None)
        if kind in ("generation", "response"):
            model = getattr(data, "model", None)
            entry.handle = observed(stage(f"chat {model}" if model else "chat", parent=host), MODEL).start()
            seen.whole.add(entry.handle)
            entry.used = _use(entry.handle)
            entry.handle.update(message="no token yet")
        elif kind == "agent":
            entry.handle = observed(stage(name, parent=host), NODE).start()
            entry.used = _use(entry.handle)
        else:
            named = {"mcp_tools": "list tools", "guardrail": f"guardrail {name}"}.get(kind, name)
            entry.handle = observed(stage(named, parent=host), TOOL)
            entry.handle.__enter__()

    def ended(self, span: Any) -> None:
        """A part is over; only now all is known of it."""
        entry = self._open.pop(span.span_id, None)
        if entry is None:
            return
        data, handle, host = span.span_data, entry.handle, _host(entry.above)
        if data.type == "handoff" and host is not None:
            host.note(f"handed off to {data.to_agent}", "ok")
        if handle is not None and not handle.status.final:  # else what it was part of ended before
            if data.type == "function" and data.input is None:
                entry.raised = None  # the run keeps what may be sensitive out of traces
            elif data.type == "function":
                call = call_of(data.name, data.input, span.error or data.output)
                if call is not None:
                    handle.step(call)
                kept = captured(data.input)
                if kept is not None:
                    handle.set(**{semconv.TOOL_ARGUMENTS[0]: kept})
            elif data.type == "guardrail" and data.triggered:
                handle.note(f"{data.name} was triggered", "warning")
            elif data.type in ("generation", "response"):
                handle.usage(**_usage(data))
        self._end(entry, span.error)

    def token(self, key: str) -> None:
        """A model streams a token, or a chunk of a few."""
        entry = self._open.get(key)
        if entry is None or entry.handle is None:
            return
        if entry.stream is None:
            entry.handle.update(message="streaming")
            entry.stream = observed(stage("stream", parent=entry.handle, unit="token"), STREAM).start()
        entry.stream.advance()

    def raised(self, key: str, error: BaseException | None) -> None:
        """A tool raised what its model hears of, and the SDK keeps out of the trace."""
        entry = self._open.get(key)
        if entry is not None and error is not entry.error_before:
            entry.raised = error

    def _end(self, entry: Entry, said: Any) -> None:
        """End a handle, with the error that the SDK names, or else the one that leaves the block of the span."""
        for left in tuple(entry.open):
            if left.handle is not None and not left.handle.status.final:
                left.handle.cancel("left unfinished")
        raised = sys.exc_info()[1]
        error = None if raised is entry.error_before else raised
        if isinstance(error, (StopIteration, StopAsyncIteration)):
            error = None
        handle = entry.handle
        if entry.stream is not None:
            entry.stream.__exit__(None if error is None else type(error), error, None)
        if entry.used is not None:
            entry.used.__exit__(None, None, None)
        if handle is None:
            return
        if said and error is None:
            handle.fail(entry.raised or _reason(said))
        handle.__exit__(None if error is None else type(error), error, None)


def _reason(said: Any) -> str:
    """What the SDK says of an error: its message, and the text of the exception that a tool raised."""
    about = said.get("data")
    raised = about.get("error") if isinstance(about, dict) else None
    return ": ".join(str(part) for part in (said.get("message"), raised) if part) or "failed"


def _operate(entry: Entry, trace: Any, name: str, agent: str | None) -> Operation:
    """Start the operation of a trace."""
    group = getattr(trace, "group_id", None)
    attributes = {semconv.CONVERSATIONS[0]: group} if group else {}
    made = observed(operation(name, agent=agent, attributes=attributes)).start()
    entry.handle = made
    entry.used = _use(made)
    return made


def _use(handle: Operation | Stage) -> Any:
    """Make a handle current in the code that follows; its end may come in another task, so without its span."""
    used = handle.use(span=False)
    used.__enter__()
    return used


def _host(entry: Entry | None) -> Operation | Stage | None:
    """The handle of a part, or of the nearest one around it that is shown."""
    while entry is not None and entry.handle is None:
        entry = entry.above
    return None if entry is None else entry.handle


def _counted(stream_response: Any) -> Any:
    """The method by which a model streams, counting what it brings for the span that is current then."""

    @functools.wraps(stream_response)
    async def counted(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        from agents.tracing import get_current_span

        key = None
        events = stream_response(*args, **kwargs)
        try:
            async for event in events:
                if switch.on and str(getattr(event, "type", "")).endswith(DELTA):
                    key = key or getattr(get_current_span(), "span_id", None)
                    _heard(key)
                yield event
        finally:
            await events.aclose()

    return counted


def _attaching(plain: Any) -> Any:
    def attach_error_to_current_span(error: Any) -> Any:
        _raised()
        return plain(error)

    return attach_error_to_current_span


@_guarded
def _raised() -> None:
    from agents.tracing import get_current_span

    key = getattr(get_current_span(), "span_id", None)
    for processor in _processors:
        if key is not None:
            processor.seen.raised(key, sys.exc_info()[1])


@_guarded
def _heard(key: str | None) -> None:
    for processor in _processors:
        if key is not None:
            processor.seen.token(key)


def _usage(data: Any) -> dict[str, Any]:
    """The tokens that a model call names."""
    told = data.usage or getattr(getattr(data, "response", None), "usage", None) or {}
    read = told.get if isinstance(told, dict) else functools.partial(_read, told)
    amounts = {
        "input_tokens": read("input_tokens") or read("prompt_tokens"),
        "output_tokens": read("output_tokens") or read("completion_tokens"),
    }
    return {key: amount for key, amount in amounts.items() if amount}


def _read(told: Any, key: str) -> Any:
    return getattr(told, key, None)
