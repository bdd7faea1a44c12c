"""Programs with frameworks of which we have no integration: their own spans, or those of OpenInference, are all we see."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

INTEGRATION = "live_spans"
hang = threading.Event()
here = threading.Event()
PROVIDER = TracerProvider()
trace.set_tracer_provider(PROVIDER)


def let_go() -> None:
    """Let what hangs go on."""
    hang.set()


def begin() -> None:
    """Let nothing go on that the next program hangs in."""
    hang.clear()
    here.clear()


def slow(city: str) -> str:
    """The weather of a city, from a server that never answers.

    Args:
        city: the city.
    """
    here.set()
    hang.wait()  # the line that hangs
    return "late"


async def slow_async(city: str) -> str:
    """The same, awaited.

    Args:
        city: the city.
    """
    here.set()
    while not hang.is_set():
        await asyncio.sleep(0.01)  # the await that hangs
    return "late"


def pydantic_ai(tool: str = "slow") -> Any:
    """An agent of pydantic-ai, by its own spans."""
    from pydantic_ai import Agent, InstrumentationSettings
    from pydantic_ai.models.test import TestModel

    Agent.instrument_all(InstrumentationSettings(tracer_provider=PROVIDER))
    agent = Agent(TestModel(call_tools=[tool]), name="weather", tools=[slow, slow_async])
    return agent.run_sync("Rome?").output


def streams(*answers: str, leaves: bool = False) -> Any:
    """Streams of pydantic-ai side by side, whose models say these words; at `...` one hangs."""
    from pydantic_ai import Agent, InstrumentationSettings
    from pydantic_ai.models.function import AgentInfo, FunctionModel

    Agent.instrument_all(InstrumentationSettings(tracer_provider=PROVIDER))

    async def read(answer: str) -> str:
        async def words(messages: Any, info: AgentInfo) -> Any:
            for word in answer.split():
                if word == "...":
                    here.set()
                    while not hang.is_set():
                        await asyncio.sleep(0.01)  # the stream that hangs
                else:
                    yield word

        agent = Agent(FunctionModel(stream_function=words), name=f"chat{len(answer)}")
        found = ""
        async with agent.run_stream("hi") as result:
            async for text in result.stream_text(debounce_by=None):
                found = text
                if leaves:
                    break
        return found

    async def all_of_them() -> list[str]:
        return list(await asyncio.gather(*(read(answer) for answer in answers)))

    return asyncio.run(all_of_them())


def one_stream(answer: str, leaves: bool = False) -> Any:
    """A stream of pydantic-ai."""
    return streams(answer, leaves=leaves)


def two_streams() -> Any:
    """Two of them, of which one hangs."""
    return streams("one two ... three", "one two")


def llama_index(tool: str = "slow") -> Any:
    """An agent of LlamaIndex, by OpenInference."""
    from llama_index.core.agent.workflow import FunctionAgent
    from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
    from llama_index.core.llms import MockFunctionCallingLLM
    from llama_index.core.tools import FunctionTool
    from openinference.instrumentation.llama_index import LlamaIndexInstrumentor

    LlamaIndexInstrumentor().instrument(tracer_provider=PROVIDER)

    def answer(messages: Any, **kwargs: Any) -> ChatMessage:
        if any(message.role == "tool" for message in messages):
            return ChatMessage(role="assistant", content="sunny")
        call = ToolCallBlock(tool_call_id="1", tool_name=tool, tool_kwargs={"city": "Rome"})
        return ChatMessage(role="assistant", blocks=[call])

    tools = [
        FunctionTool.from_defaults(fn=slow, name="slow"),
        FunctionTool.from_defaults(async_fn=slow_async, name="slow_async"),
    ]
    agent = FunctionAgent(
        name="weather", tools=tools, llm=MockFunctionCallingLLM(response_generator=answer), streaming=False
    )

    async def work() -> str:
        return str(await agent.run("Rome?", max_iterations=3))

    try:
        return asyncio.run(work())
    finally:
        LlamaIndexInstrumentor().uninstrument()


def smolagents() -> Any:
    """An agent of smolagents, by OpenInference."""
    import smolagents
    from openinference.instrumentation.smolagents import SmolagentsInstrumentor

    SmolagentsInstrumentor().instrument(tracer_provider=PROVIDER)

    class Model(smolagents.Model):
        def generate(self, messages: Any, **kwargs: Any) -> Any:
            import json

            last = any("late" in str(message) for message in messages)
            name, given = ("final_answer", {"answer": "sunny"}) if last else ("slow", {"city": "Rome"})
            call = smolagents.models.ChatMessageToolCall(
                id="1",
                type="function",
                function=smolagents.models.ChatMessageToolCallFunction(name=name, arguments=json.dumps(given)),
            )
            return smolagents.models.ChatMessage(role="assistant", content="", tool_calls=[call])

    try:
        agent = smolagents.ToolCallingAgent(
            tools=[smolagents.tool(slow)], model=Model(), verbosity_level=0, max_steps=3
        )
        return agent.run("Rome?")
    finally:
        SmolagentsInstrumentor().uninstrument()


def google_adk(tool: str = "slow") -> Any:
    """An agent of Google's ADK, by its own spans."""
    from google.adk.agents import LlmAgent
    from google.adk.models import BaseLlm, LlmResponse
    from google.adk.runners import InMemoryRunner
    from google.genai import types

    class Model(BaseLlm):
        async def generate_content_async(self, llm_request: Any, stream: bool = False) -> Any:
            parts = [part for content in llm_request.contents for part in content.parts]
            if any(part.function_response for part in parts):
                part = types.Part(text="sunny")
            else:
                part = types.Part(function_call=types.FunctionCall(name=tool, args={"city": "Rome"}))
            yield LlmResponse(content=types.Content(role="model", parts=[part]))

    runner = InMemoryRunner(
        LlmAgent(name="weather", model=Model(model="tiny-1"), tools=[slow, slow_async]), app_name="a"
    )

    async def work() -> str:
        session = await runner.session_service.create_session(app_name="a", user_id="u")
        asked = types.Content(role="user", parts=[types.Part(text="Rome?")])
        said = ""
        async for event in runner.run_async(user_id="u", session_id=session.id, new_message=asked):
            said = (event.content and event.content.parts and event.content.parts[0].text) or said
        return said

    return asyncio.run(work())
