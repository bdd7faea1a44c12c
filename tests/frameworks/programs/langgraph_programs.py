"""Programs with LangGraph and LangChain as their users write them: no line is about otel-progress."""

from __future__ import annotations

import asyncio
import concurrent.futures
import operator
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, TypedDict

from langchain.agents import create_agent
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, RetryPolicy, Send, interrupt

INTEGRATION = "langchain"
hang = threading.Event()


here = threading.Event()
"""Whether a program hangs."""


def hangs() -> None:
    """Hang until the test lets go."""
    here.set()
    hang.wait()


async def hangs_async() -> None:
    """Hang in a task."""
    here.set()
    while not hang.is_set():
        await asyncio.sleep(0.01)


def let_go() -> None:
    """Let what hangs go on."""
    hang.set()


def begin() -> None:
    """Let nothing go on that the next program hangs in."""
    hang.clear()
    here.clear()


class Model(BaseChatModel):
    """A model that gives the answers of a script, each text word by word; `...` hangs."""

    script: list[Any]
    said: int = 0

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
        return {"ls_provider": "here", "ls_model_name": "tiny-1", "ls_model_type": "chat"}

    def bind_tools(self, tools: Any, **kwargs: Any) -> Model:
        return self

    def _next(self, messages: list[BaseMessage]) -> Any:
        index = sum(isinstance(each, AIMessage) for each in messages)
        return self.script[min(index, len(self.script) - 1)]

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: Any = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **_: Any,
    ) -> ChatResult:
        answer = self._next(messages)
        if answer == "...":
            hangs()
            answer = "late"
        message = answer if isinstance(answer, AIMessage) else AIMessage(answer)
        message = message.model_copy(
            update={"usage_metadata": {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}}
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _words(self, messages: list[BaseMessage]) -> Iterator[ChatGenerationChunk]:
        answer = self._next(messages)
        if isinstance(answer, AIMessage):
            calls = [
                {"name": call["name"], "args": str(call["args"]).replace("'", '"'), "id": call["id"], "index": index}
                for index, call in enumerate(answer.tool_calls)
            ]
            yield ChatGenerationChunk(message=AIMessageChunk("", tool_call_chunks=calls))
            return
        for word in answer.split():
            yield ChatGenerationChunk(message=AIMessageChunk(word))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: Any = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **_: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self._words(messages):
            if chunk.text == "...":
                hangs()
                continue
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: Any = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **_: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._words(messages):
            if chunk.text == "...":
                await hangs_async()
                continue
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk


def calls(*names: str, **arguments: Any) -> AIMessage:
    """An answer that calls tools."""
    made = [{"name": name, "args": arguments, "id": f"call-{index}-{name}"} for index, name in enumerate(names)]
    return AIMessage("", tool_calls=made)


@tool
def quick(city: str) -> str:
    """The weather, at once."""
    return f"sunny in {city}"


@tool
def slow(city: str) -> str:
    """The weather, from a server that never answers."""
    here.set()
    hang.wait()  # the line that hangs
    return "late"


@tool
async def slow_async(city: str) -> str:
    """The same, awaited."""
    here.set()
    while not hang.is_set():
        await asyncio.sleep(0.01)  # the await that hangs
    return "late"


ASKED = {"messages": [("user", "How is the weather?")]}


# 1. An agent with two parallel tools, one of which hangs


def two_tools() -> Any:
    agent = create_agent(
        Model(script=[calls("quick", "slow", city="Rome"), "It is sunny."]), [quick, slow], name="weather"
    )
    return agent.invoke(ASKED)["messages"][-1].content


def two_tools_async(name: str = "slow_async") -> Any:
    tools = [quick, slow, slow_async]
    agent = create_agent(Model(script=[calls("quick", name, city="Rome"), "It is sunny."]), tools, name="weather")
    return asyncio.run(agent.ainvoke(ASKED))["messages"][-1].content


# 2. A supervisor with agents below it, as tools and as a graph


def supervisor() -> Any:
    researcher = create_agent(Model(script=[calls("quick", city="Rome"), "sunny"]), [quick], name="researcher")

    @tool
    def research(question: str) -> str:
        """Ask the researcher."""
        return str(researcher.invoke({"messages": [("user", question)]})["messages"][-1].content)

    boss = create_agent(Model(script=[calls("research", question="Rome?"), "done"]), [research], name="boss")
    return boss.invoke(ASKED)["messages"][-1].content


class Numbers(TypedDict):
    numbers: Annotated[list[int], operator.add]
    ready: bool


def subgraphs() -> Any:
    inner = StateGraph(Numbers)
    inner.add_node("double", lambda state: {"numbers": [2 * state["numbers"][-1]]})
    inner.add_edge(START, "double")
    outer = StateGraph(Numbers)
    outer.add_node("first", inner.compile())
    outer.add_node("second", lambda state: {"ready": True})
    outer.add_edge(START, "first")
    outer.add_edge("first", "second")
    return outer.compile(name="nested").invoke({"numbers": [1], "ready": False})


# 3. A graph with a loop that does not end


def endless(rounds: int = 30) -> Any:
    visits: list[int] = []

    def check(state: Numbers) -> Any:
        visits.append(1)
        if len(visits) == rounds:
            hangs()
        return {"ready": len(visits) > rounds}

    graph = StateGraph(Numbers)
    graph.add_node("check", check)
    graph.add_node("repair", lambda state: {"ready": False})
    graph.add_edge(START, "check")
    graph.add_conditional_edges("check", lambda state: END if state["ready"] else "repair")
    graph.add_edge("repair", "check")
    return graph.compile(name="endless").invoke({"numbers": [], "ready": False}, {"recursion_limit": 1000})


def counting(rounds: int = 30) -> Any:
    """The same shape, but each round has a new number: not a loop."""

    def count(state: Numbers) -> Any:
        if len(state["numbers"]) == rounds - 1:
            hangs()
        return {"numbers": [len(state["numbers"])]}

    graph = StateGraph(Numbers)
    graph.add_node("count", count)
    graph.add_edge(START, "count")
    graph.add_conditional_edges("count", lambda state: END if len(state["numbers"]) >= rounds else "count")
    return len(
        graph.compile(name="counting").invoke({"numbers": [], "ready": False}, {"recursion_limit": 1000})["numbers"]
    )


def same_tool(times: int = 15) -> Any:
    agent = create_agent(Model(script=[calls("quick", city="Rome")] * times + ["..."]), [quick], name="forgetful")
    return agent.invoke(ASKED, {"recursion_limit": 200})["messages"][-1].content


def next_pages(times: int = 25) -> Any:
    """A tool without arguments gives another page each time."""
    pages = iter(range(times))

    @tool
    def next_page() -> str:
        """The next page."""
        return f"page {next(pages)}"

    agent = create_agent(Model(script=[calls("next_page")] * times + ["..."]), [next_page], name="reader")
    return agent.invoke(ASKED, {"recursion_limit": 200})["messages"][-1].content


def works_off(rounds: int = 30, says: bool = True) -> Any:
    """A node works off a queue outside of the graph; its state does not change, and it says what it did or nothing."""
    jobs = list(range(rounds))

    def work(state: Numbers) -> Any:
        jobs.pop()
        if not jobs:
            hangs()
        return {"ready": False, "done": str(jobs)} if says else {}

    graph = StateGraph(Numbers)
    graph.add_node("work", work)
    graph.add_edge(START, "work")
    graph.add_conditional_edges("work", lambda state: "work" if jobs else END)
    return graph.compile(name="works_off").invoke({"numbers": [], "ready": False}, {"recursion_limit": 1000})["ready"]


# 4. Streaming chat


def chat(answer: str = "one two three") -> Any:
    agent = create_agent(Model(script=[answer]), [], name="chat")
    return [chunk.text for chunk, _ in agent.stream(ASKED, stream_mode="messages")]


def chat_async(answer: str = "one two three") -> Any:
    agent = create_agent(Model(script=[answer]), [], name="chat")

    async def read() -> list[str]:
        return [chunk.text async for chunk, _ in agent.astream(ASKED, stream_mode="messages")]

    return asyncio.run(read())


def dropped() -> Any:
    """A client that goes away after the first word."""
    agent = create_agent(Model(script=["one two three"]), [], name="chat")
    for chunk, _ in agent.stream(ASKED, stream_mode="messages"):
        return chunk.text


def dropped_async() -> Any:
    agent = create_agent(Model(script=["one two three"]), [], name="chat")

    async def read() -> str:
        stream = agent.astream(ASKED, stream_mode="messages")
        async for chunk, _ in stream:
            await stream.aclose()
            return chunk.text
        return ""

    return asyncio.run(read())


# 5. A person answers, in the same process or in another one


class Refund(TypedDict):
    answer: str
    amount: int


def refund_graph(saver: Any) -> Any:
    graph = StateGraph(Refund)
    graph.add_node("prepare", lambda state: {"amount": 100})
    graph.add_node("approve", lambda state: {"answer": interrupt({"amount": state["amount"]})})
    graph.add_node("pay", lambda state: {"amount": 0})
    graph.add_edge(START, "prepare")
    graph.add_edge("prepare", "approve")
    graph.add_edge("approve", "pay")
    return graph.compile(checkpointer=saver, name="refund")


THREAD: Any = {"configurable": {"thread_id": "customer-7"}}


def asks(answers: bool = True, again: bool = False) -> Any:
    graph = refund_graph(InMemorySaver())
    graph.invoke({"answer": "", "amount": 0}, THREAD)
    if again:
        graph.invoke({"answer": "", "amount": 0}, THREAD)
    if answers:
        return graph.invoke(Command(resume="yes"), THREAD)["answer"]


def asks_async() -> Any:
    graph = refund_graph(InMemorySaver())

    async def talk() -> Any:
        await graph.ainvoke({"answer": "", "amount": 0}, THREAD)
        return (await graph.ainvoke(Command(resume="yes"), THREAD))["answer"]

    return asyncio.run(talk())


def ask_first(file: str) -> Any:
    from langgraph.checkpoint.sqlite import SqliteSaver

    with SqliteSaver.from_conn_string(file) as saver:
        return len(refund_graph(saver).invoke({"answer": "", "amount": 0}, THREAD)["__interrupt__"])


def answer_later(file: str) -> Any:
    from langgraph.checkpoint.sqlite import SqliteSaver

    with SqliteSaver.from_conn_string(file) as saver:
        return refund_graph(saver).invoke(Command(resume="yes"), THREAD)["answer"]


# 6. Map and reduce


def map_reduce(items: int = 12) -> Any:
    graph = StateGraph(Numbers)
    graph.add_node("square", lambda given: {"numbers": [given["number"] ** 2]})
    graph.add_node("total", lambda state: {"ready": True})
    graph.add_conditional_edges(START, lambda state: [Send("square", {"number": n}) for n in range(items)], ["square"])
    graph.add_edge("square", "total")
    return sum(graph.compile(name="squares").invoke({"numbers": [], "ready": False})["numbers"])


# 7. What fails and is tried again


def retries() -> Any:
    tries: list[int] = []

    def flaky(state: Numbers) -> Any:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("no route")
        return {"ready": True}

    graph = StateGraph(Numbers)
    graph.add_node("flaky", flaky, retry_policy=RetryPolicy(initial_interval=0.01, jitter=False))
    graph.add_edge(START, "flaky")
    return graph.compile(name="retries").invoke({"numbers": [], "ready": False})["ready"]


def fails() -> Any:
    graph = StateGraph(Numbers)
    graph.add_node("divide", lambda state: {"numbers": [1 // 0]})
    graph.add_edge(START, "divide")
    return graph.compile(name="fails").invoke({"numbers": [], "ready": False})


# 8. Many at once


def many(count: int = 50) -> Any:
    chain = ChatPromptTemplate.from_template("{x}") | Model(script=["hello"])
    return len(asyncio.run(chain.with_config(run_name="greet").abatch([{"x": str(n)} for n in range(count)])))


def many_in_threads(count: int = 20) -> Any:
    chain = ChatPromptTemplate.from_template("{x}") | Model(script=["hello"])
    return len(chain.with_config(run_name="greet").batch([{"x": str(n)} for n in range(count)], {"max_concurrency": 4}))


# 9. In a web application


def web() -> Any:
    import httpx
    from fastapi import FastAPI

    agent = create_agent(Model(script=["hello"]), [], name="web")
    app = FastAPI()

    @app.get("/chat")
    async def answer() -> str:
        return str((await agent.ainvoke(ASKED))["messages"][-1].content)

    async def clients() -> list[str]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            answers = await asyncio.gather(*(client.get("/chat") for _ in range(5)))
        return [each.json() for each in answers]

    return asyncio.run(clients())


# 10. In a pool of threads


def pool() -> Any:
    agent = create_agent(Model(script=[calls("quick", city="Rome"), "sunny"]), [quick], name="pooled")
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(agent.invoke, ASKED) for _ in range(8)]
        return [each.result()["messages"][-1].content for each in futures]


# instrumented by others


def instrumented() -> Any:
    """Spans of OpenInference for the same runs."""
    from openinference.instrumentation.langchain import LangChainInstrumentor
    from opentelemetry.sdk.trace import TracerProvider

    provider = TracerProvider()
    LangChainInstrumentor().instrument(tracer_provider=provider)
    try:
        return two_tools()
    finally:
        LangChainInstrumentor().uninstrument()


def own_span() -> Any:
    """A span of the user's own in a node."""
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider().get_tracer("mine")

    def node(state: Numbers) -> Any:
        with tracer.start_as_current_span("download"):
            hangs()
        return {"ready": True}

    graph = StateGraph(Numbers)
    graph.add_node("fetch", node)
    graph.add_edge(START, "fetch")
    return graph.compile(name="spans").invoke({"numbers": [], "ready": False})["ready"]


# and small ones


def prompts_alone() -> Any:
    prompt = ChatPromptTemplate.from_template("{x}")
    return len([prompt.invoke({"x": n}) for n in range(5)])


def one_call(answer: str = "hello") -> Any:
    return Model(script=[answer]).invoke("hi").content


def a_chain_of_functions() -> Any:
    return (RunnableLambda(lambda x: x + 1) | RunnableLambda(lambda x: x * 2)).invoke(3)


def speaks() -> Any:
    """Code of a user who knows otel-progress, in nodes and after graphs."""
    import otel_progress

    said: list[Any] = []

    def node(state: Numbers) -> Any:
        found = otel_progress.current()
        otel_progress.note("hello")
        said.append(found is not None and found.snapshot().stage)
        return {"ready": True}

    async def node_async(state: Numbers) -> Any:
        return node(state)

    def graph(fn: Any) -> Any:
        made = StateGraph(Numbers)
        made.add_node("node", fn)
        made.add_edge(START, "node")
        return made.compile(name="speaks")

    from opentelemetry import trace

    def after() -> list[Any]:
        return [said.pop(), otel_progress.current(), not trace.get_current_span().get_span_context().is_valid]

    async def in_a_task() -> list[Any]:
        await graph(node_async).ainvoke({"numbers": [], "ready": False})
        return after()

    graph(node).invoke({"numbers": [], "ready": False})
    return [after(), asyncio.run(in_a_task())]


def cancelled(how: str = "async") -> Any:
    agent = create_agent(
        Model(script=[calls("slow_async" if how == "async" else "slow", city="Rome"), "late"]),
        [slow, slow_async],
        name="weather",
    )
    if how == "async":
        return asyncio.run(agent.ainvoke(ASKED))["messages"][-1].content
    return agent.invoke(ASKED)["messages"][-1].content
