"""What a span says of its work: its kind, limit, name, tokens, and what tells a tool's calls apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import SpanKind

from otel_progress import semconv as s
from otel_progress.integrations.switch import call_of
from otel_progress.integrations.usual_limits import MODEL, TOOL

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan


class Kind(Enum):
    """What kind of work a span is."""

    AGENT = "agent"
    MODEL = "model"
    TOOL = "tool"
    CHAIN = "chain"
    SERVER = "server"
    CONSUMER = "consumer"
    PLAIN = "plain"


LIMITS: Final = {Kind.MODEL: MODEL, Kind.TOOL: TOOL, Kind.SERVER: math.inf, Kind.CONSUMER: math.inf}
"""The allowed idle time by kind, in seconds; infinity: never judged, as a stream or a queue may be silent for hours."""
AI: Final = frozenset({Kind.AGENT, Kind.MODEL, Kind.TOOL})
_GEN_AI: Final = {
    s.GEN_AI_INVOKE_AGENT: Kind.AGENT,
    "invoke_workflow": Kind.AGENT,
    "create_agent": Kind.AGENT,
    "execute_tool": Kind.TOOL,
    "chat": Kind.MODEL,
    "text_completion": Kind.MODEL,
    "generate_content": Kind.MODEL,
    "embeddings": Kind.MODEL,
}
_OPENINFERENCE: Final = {
    "AGENT": Kind.AGENT,
    "LLM": Kind.MODEL,
    "EMBEDDING": Kind.MODEL,
    "TOOL": Kind.TOOL,
    "CHAIN": Kind.CHAIN,
}
_BY_SPAN: Final = {SpanKind.SERVER: Kind.SERVER, SpanKind.CONSUMER: Kind.CONSUMER}
_OPENINFERENCE_KIND: Final = "openinference.span.kind"
_MCP_METHOD: Final = "mcp.method.name"
_HOSTS: Final = ("server.address", "net.peer.name", "http.host", "url.full", "http.url")
_ABOUT: Final = {Kind.MODEL: s.MODEL_NAMES, Kind.TOOL: s.TOOL_NAMES}
_ASGI: Final = (" http receive", " http send", " websocket receive", " websocket send")
_BARE: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "HTTP"})


def kind_of(span: ReadableSpan) -> Kind:
    """The kind of work of a span, by what it says until now."""
    said: Mapping[str, Any] = span.attributes or {}
    if said:
        operation = said.get(s.GEN_AI_OPERATION)
        if operation is not None:
            return _GEN_AI.get(operation, Kind.PLAIN)
        named = said.get(_OPENINFERENCE_KIND)
        if named is not None:
            return _OPENINFERENCE.get(named, Kind.PLAIN)
        if said.get(_MCP_METHOD) == "tools/call":
            return Kind.TOOL
    named = span.name.partition(" ")[0]
    if "_" in named and named in _GEN_AI:
        return _GEN_AI[named]  # as the conventions name spans; ADK says the rest when they end
    return _BY_SPAN.get(span.kind, Kind.PLAIN)


def agent_of(span: ReadableSpan) -> str | None:
    """The agent that does the work of a span."""
    said: Mapping[str, Any] = span.attributes or {}
    named = said.get(s.GEN_AI_AGENT)
    if named is not None:
        return str(named)
    return span.name.removeprefix(f"{s.GEN_AI_INVOKE_AGENT} ") if kind_of(span) is Kind.AGENT else None


def message_of(span: ReadableSpan, kind: Kind) -> str | None:
    """What a span is about, where its name does not say it: the model, the tool, the host of a request, the agent."""
    said: Mapping[str, Any] = span.attributes or {}
    keys = _ABOUT.get(kind) or (_HOSTS if span.name in _BARE else (s.GEN_AI_AGENT,))
    found = next((str(said[key]) for key in keys if said.get(key)), None)
    return None if found is None or found in span.name else found


def tokens_of(span: ReadableSpan) -> tuple[int, int]:
    """The input and output tokens that a span reports."""
    said: Mapping[str, Any] = span.attributes or {}
    return _number(said, s.INPUT_TOKENS), _number(said, s.OUTPUT_TOKENS)


def _number(said: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    for key in keys:
        found = said.get(key)
        if type(found) is int and found >= 0:
            return found
    return 0


def arguments_of(span: ReadableSpan) -> Any:
    """What a tool was asked for; None where that is not known."""
    said: Mapping[str, Any] = span.attributes or {}
    return next((said[key] for key in s.TOOL_ARGUMENTS if said.get(key) is not None), None)


def step_of(span: ReadableSpan) -> str | None:
    """What tells the call of a tool apart: its name, arguments and result; None where one of these is not known."""
    said: Mapping[str, Any] = span.attributes or {}
    arguments = arguments_of(span)
    if arguments is None:
        return None
    name = next((said[key] for key in s.TOOL_NAMES if said.get(key)), span.name)
    result = span.status.description or next((said[key] for key in s.TOOL_RESULTS if said.get(key) is not None), None)
    return call_of(str(name), arguments, result)


def is_same(name: str, kind: Kind, above: str, kind_above: Kind) -> bool:
    """Whether a span is the same work as the one around it: a layer of it, or seen by a second instrumentation."""
    if kind is Kind.CHAIN:
        return True
    if kind in AI and kind_above in AI and kind is not kind_above:
        return False
    if kind is Kind.PLAIN and kind_above is Kind.MODEL and name.partition(" ")[0] in _BARE:
        return True
    if name.startswith(above) and name[len(above) :] in _ASGI:
        return True
    return name == above or above.startswith(f"{name} ") or above.endswith(f" {name}")
