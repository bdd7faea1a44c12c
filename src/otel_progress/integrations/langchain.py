"""LangChain and LangGraph, by one callback handler that every run inherits.

A graph is an operation, and so is any other chain, model or tool that runs by itself. Its nodes, tools, model calls and
retrievers are stages; what else LangChain runs in between is not shown. A graph that asks a person waits until it is
resumed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, TypeVar

from otel_progress.errors import OperationCancelled
from otel_progress.integrations import seen
from otel_progress.integrations.langchain_runs import Runs
from otel_progress.integrations.switch import Switch

LIBRARY: Final = "langchain-core"
TESTED: Final = ("1.4", "2")
MODULES: Final = ("langchain_core.tracers.context",)

SCOPES: Final = ("openinference.instrumentation.langchain",)
"""Spans of the same runs."""

F = TypeVar("F", bound=Callable[..., Any])

switch: Final = Switch("langchain")
_handlers: list[Any] = []


def install() -> None:
    """Have every run of LangChain inherit our handler."""
    from langchain_core.callbacks import BaseCallbackHandler
    from langchain_core.tracers.context import register_configure_hook

    if not _handlers:
        handler = _handler(BaseCallbackHandler)
        register_configure_hook(ContextVar("otel_progress_langchain", default=handler), inheritable=True)
        _handlers.append(handler)
    switch.on = True
    seen.scopes.update(SCOPES)


def uninstall() -> None:
    """End what is open, and leave later runs alone. LangChain takes no hook back: the handler stays, doing nothing."""
    switch.on = False
    _forget()


def _forget() -> None:
    seen.scopes.difference_update(SCOPES)
    for handler in _handlers:
        handler.runs.clear()


def _guarded(event: F) -> F:
    """An event whose own errors switch the integration off; only a request to stop reaches LangChain."""
    return switch.guard(event, _forget, (OperationCancelled,))


def _handler(base: Any) -> Any:
    """Make the handler, of LangChain's base class."""

    class ProgressHandler(base):  # type: ignore[misc]
        """Turns runs into operations and stages."""

        run_inline = True
        """In the task that works, not in a thread of a pool."""
        raise_error = True
        """So that a request to stop ends the graph at its next node, tool, model call or token."""

        def __init__(self) -> None:
            self.runs = Runs()

        @_guarded
        def on_chain_start(self, serialized: Any, inputs: Any, **about: Any) -> None:
            self.runs.chain_started(inputs, about)

        @_guarded
        def on_chain_end(self, outputs: Any, **about: Any) -> None:
            self.runs.ended(about["run_id"], result=outputs)

        @_guarded
        def on_tool_start(self, serialized: Any, input_str: str, **about: Any) -> None:
            given = about.get("inputs")
            self.runs.tool_started(_name(serialized, about), input_str if given is None else given, about)

        @_guarded
        def on_tool_end(self, output: Any, **about: Any) -> None:
            self.runs.ended(about["run_id"], result=output)

        @_guarded
        def on_chat_model_start(self, serialized: Any, messages: Any, **about: Any) -> None:
            self.runs.model_started(_name(serialized, about), about)

        @_guarded
        def on_llm_start(self, serialized: Any, prompts: Any, **about: Any) -> None:
            self.runs.model_started(_name(serialized, about), about)

        @_guarded
        def on_llm_new_token(self, token: Any, **about: Any) -> None:
            self.runs.token(about["run_id"])

        @_guarded
        def on_llm_end(self, response: Any, **about: Any) -> None:
            self.runs.model_ended(about["run_id"], response)

        @_guarded
        def on_retriever_start(self, serialized: Any, query: str, **about: Any) -> None:
            self.runs.tool_started(_name(serialized, about), query, about)

        @_guarded
        def on_retriever_end(self, documents: Any, **about: Any) -> None:
            self.runs.ended(about["run_id"])

        @_guarded
        def on_chain_error(self, error: BaseException, **about: Any) -> None:
            self.runs.ended(about["run_id"], error)

        on_tool_error = on_llm_error = on_retriever_error = on_chain_error

        @_guarded
        def on_retry(self, retry_state: Any, **about: Any) -> None:
            self.runs.retried(about["run_id"], retry_state)

    return ProgressHandler()


def _name(serialized: Any, about: dict[str, Any]) -> str:
    """The name of a tool, model or retriever."""
    said = about.get("name")
    if said:
        return str(said)
    known = serialized if isinstance(serialized, dict) else {}
    return str(known.get("name") or (known.get("id") or ["run"])[-1])
