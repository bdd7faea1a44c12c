"""Programs with the OpenAI Agents SDK as their users write them: no line is about otel-progress."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agents import (
    Agent,
    GuardrailFunctionOutput,
    OpenAIChatCompletionsModel,
    Runner,
    function_tool,
    handoff,
    input_guardrail,
    trace,
)
from agents.testing import ScriptedModel, assistant_message, function_call
from agents.tracing import set_trace_processors
from openai import AsyncOpenAI

INTEGRATION = "openai_agents"
hang = threading.Event()
here = threading.Event()
set_trace_processors([])  # nothing is sent to OpenAI


def let_go() -> None:
    """Let what hangs go on."""
    hang.set()


def begin() -> None:
    """Let nothing go on that the next program hangs in."""
    hang.clear()
    here.clear()


@function_tool
def quick(city: str) -> str:
    """The weather, at once."""
    return f"sunny in {city}"


@function_tool
def slow(city: str) -> str:
    """The weather, from a server that never answers."""
    here.set()
    hang.wait()  # the line that hangs
    return "late"


@function_tool
async def slow_async(city: str) -> str:
    """The same, awaited."""
    here.set()
    while not hang.is_set():
        await asyncio.sleep(0.01)  # the await that hangs
    return "late"


@function_tool
def breaks(city: str) -> str:
    """A tool that raises."""
    raise ConnectionError("no route")


TOOLS = {"quick": quick, "slow": slow, "slow_async": slow_async, "breaks": breaks}


def model(*steps: Any) -> ScriptedModel:
    return ScriptedModel(steps, emit_traces=True)


def calls(*names: str) -> list[Any]:
    return [function_call(name, {"city": "Rome"}, call_id=f"{name}-{index}") for index, name in enumerate(names)]


def tools(*names: str) -> Any:
    agent = Agent("weather", model=model(calls(*names), [assistant_message("sunny")]), tools=list(TOOLS.values()))
    return Runner.run_sync(agent, "Rome?").final_output


def two_tools(slow: str) -> Any:
    return tools("quick", slow)


def a_tool_that_raises() -> Any:
    return tools("breaks")


def handoffs() -> Any:
    spanish = Agent("spanish", model=model([assistant_message("hola")]))
    call = function_call("transfer_to_spanish", "{}", call_id="1")
    triage = Agent("triage", model=model([call]), handoffs=[handoff(spanish)])
    return Runner.run_sync(triage, "hola?").final_output


def agents_as_tools() -> Any:
    inner = Agent("researcher", model=model(calls("quick"), [assistant_message("sunny")]), tools=[quick])
    research = inner.as_tool("research", "Ask the researcher.")
    call = function_call("research", {"input": "Rome?"}, call_id="1")
    boss = Agent("boss", model=model([call], [assistant_message("done")]), tools=[research])
    return Runner.run_sync(boss, "Rome?").final_output


def guarded(trips: bool) -> Any:
    @input_guardrail
    async def polite(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(None, tripwire_triggered=trips)

    agent = Agent("guarded", model=model([assistant_message("hello")]), input_guardrails=[polite])
    return Runner.run_sync(agent, "hi").final_output


def a_workflow() -> Any:
    def agent() -> Any:
        return Agent("writer", model=model([assistant_message("text")]))

    async def work() -> list[str]:
        with trace("report", group_id="case-7"):
            first = await Runner.run(agent(), "draft")
            second = await Runner.run(agent(), "final")
        return [first.final_output, second.final_output]

    return asyncio.run(work())


def many(count: int = 20) -> Any:
    def agent() -> Any:
        return Agent("writer", model=model([assistant_message("text")]))

    async def work() -> int:
        return len(await asyncio.gather(*(Runner.run(agent(), "draft") for _ in range(count))))

    return asyncio.run(work())


def fails() -> Any:
    return Runner.run_sync(Agent("broken", model=model(ConnectionError("no model"))), "hi").final_output


def inside_an_except() -> Any:
    """A run in the handler of an error that has nothing to do with it."""
    try:
        raise ValueError("earlier")
    except ValueError:
        return Runner.run_sync(Agent("writer", model=model([assistant_message("text")])), "draft").final_output


def cancelled() -> Any:
    return tools("slow_async")


def instrumented(answer: str = "one two ...") -> Any:
    """Spans of OpenInference for the same work, of the SDK and of the client below it."""
    from openinference.instrumentation.openai import OpenAIInstrumentor
    from openinference.instrumentation.openai_agents import OpenAIAgentsInstrumentor
    from opentelemetry.sdk.trace import TracerProvider

    provider = TracerProvider()
    OpenAIAgentsInstrumentor().instrument(tracer_provider=provider)
    OpenAIInstrumentor().instrument(tracer_provider=provider)
    try:
        return streams(answer)
    finally:
        OpenAIInstrumentor().uninstrument()
        OpenAIAgentsInstrumentor().uninstrument()


@contextmanager
def server(words: list[str]) -> Iterator[str]:
    """A server of the chat completions API that streams these words; `...` hangs."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for word in words:
                if word == "...":
                    here.set()
                    hang.wait()
                    continue
                self.send({"choices": [{"index": 0, "delta": {"role": "assistant", "content": word}}]})
            usage = {"prompt_tokens": 9, "completion_tokens": len(words), "total_tokens": 9 + len(words)}
            self.send({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            self.send({"choices": [], "usage": usage})
            self.wfile.write(b"data: [DONE]\n\n")

        def send(self, what: dict[str, Any]) -> None:
            chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "tiny-1", **what}
            self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            self.wfile.flush()

        def log_message(self, *args: Any) -> None:
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.server_address[1]}/v1"
    finally:
        listening.shutdown()
        listening.server_close()


def left(how: str) -> Any:
    """A reader that takes one event, and leaves."""

    async def read(url: str) -> str:
        client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
        agent = Agent("chat", model=OpenAIChatCompletionsModel("tiny-1", client))
        result = Runner.run_streamed(agent, "hi")
        events = result.stream_events()
        async for event in events:
            if event.type == "raw_response_event":
                break
        if how == "aclose":
            await events.aclose()  # type: ignore[attr-defined]
        elif how == "cancel":
            result.cancel()
        return event.type

    with server(["one", "two", "three"]) as url:
        return asyncio.run(read(url))


def two_streams() -> Any:
    """Two streams side by side, of which one hangs."""

    async def read(url: str) -> list[Any]:
        client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)

        async def one(name: str) -> Any:
            result = Runner.run_streamed(Agent(name, model=OpenAIChatCompletionsModel(name, client)), "hi")
            return [event.type async for event in result.stream_events()]

        return await asyncio.gather(one("tiny-1"), one("tiny-2"))

    with server(["one", "two", "..."]) as url:
        return len(asyncio.run(read(url)))


def streams(answer: str) -> Any:
    async def read(url: str) -> list[str]:
        client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
        agent = Agent("chat", model=OpenAIChatCompletionsModel("tiny-1", client))
        result = Runner.run_streamed(agent, "hi")
        kinds = [event.type async for event in result.stream_events()]
        return [result.final_output, str(len(kinds) > 0)]

    with server(answer.split()) as url:
        return asyncio.run(read(url))
