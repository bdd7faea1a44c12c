"""MCP with the real SDK: what servers and clients do with tools, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvicorn
from mcp import Client, ClientSession, StdioServerParameters
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.exceptions import MCPError
from mcp_types import CreateMessageResult, TextContent

import otel_progress as progress
from otel_progress import semconv
from otel_progress.integrations import mcp as integration
from otel_progress.integrations.usual_limits import TOOL
from otel_progress.testing import Capture, capture

SECONDS = 20.0


@pytest.fixture
def seen() -> Iterator[Capture]:
    """What is reported of calls, with the integration on."""
    with capture() as found:
        integration.install()
        try:
            yield found
        finally:
            integration.uninstall()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is told more often."""
    monkeypatch.setattr(integration, "LOOK", 0.01)
    monkeypatch.setattr(integration, "ALIVE", 0.05)


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    """Run a coroutine, for so long at most."""
    return asyncio.run(asyncio.wait_for(work(), SECONDS))


async def until(true: Callable[[], Any]) -> None:
    """Wait for a condition."""
    while not true():
        await asyncio.sleep(0.005)


def running(name: str) -> list[progress.Operation]:
    """The running operations of a name in the server, which a client's own call is above."""
    return [one for one in progress.operations() if one.snapshot().name == name]


class Gate:
    """Tools that wait for each other."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.inside = 0

    async def wait(self) -> None:
        self.inside += 1
        await self.open.wait()


def test_call_is_an_operation_in_the_server(seen: Capture) -> None:
    """Named by its tool, and below the client's own call."""
    server = MCPServer("shop")

    @server.tool()
    async def search(query: str) -> str:
        progress.note(f"searching {query}")
        return "found"

    async def work() -> None:
        async with Client(server) as client:
            result = await client.call_tool("search", {"query": "tea"})
            assert not result.is_error

    run(work)
    seen.look()
    ends = [event.snapshot for event in seen.of(semconv.OPERATION_ENDED)]
    assert [(end.name, end.status.value) for end in ends] == [("search", "completed")] * 2
    assert ends[0].parent_id == ends[1].operation_id


def test_call_is_a_stage_of_what_runs_in_the_client(seen: Capture) -> None:
    """With the progress that the server reports."""
    server = MCPServer("shop")

    @server.tool()
    async def index(ctx: Context) -> str:
        for number in range(1, 4):
            await ctx.report_progress(number, 3, f"shelf {number}")
        return "done"

    async def work() -> None:
        async with Client(server) as client:
            with progress.operation("agent"):
                await client.call_tool("index", {})

    run(work)
    seen.look()
    stage = seen.ended("agent").stages[0]
    assert (stage.path, stage.status.value, stage.progress.completed, stage.progress.total) == (
        "index",
        "completed",
        3,
        3,
    )
    in_server = seen.ended("index")
    assert (in_server.progress.completed, in_server.progress.total, in_server.message) == (3, 3, "shelf 3")
    assert in_server.parent_id == seen.ended("agent").operation_id


def test_two_tools_of_one_session_run_in_parallel(seen: Capture) -> None:
    """Each is an operation of its own, and a stage of its own."""
    server = MCPServer("shop")
    gate: list[Gate] = []

    @server.tool()
    async def first() -> str:
        await gate[0].wait()
        return "1"

    @server.tool()
    async def second() -> str:
        await gate[0].wait()
        return "2"

    async def work() -> None:
        gate.append(Gate())
        async with Client(server) as client:
            with progress.operation("agent") as agent:
                calls = asyncio.gather(client.call_tool("first", {}), client.call_tool("second", {}))
                await until(lambda: gate[0].inside == 2)
                seen.look()
                assert {stage.path for stage in agent.snapshot().stages} == {"first", "second"}
                assert len(running("first")) == len(running("second")) == 1
                gate[0].open.set()
                await calls

    run(work)


def test_sync_tool_that_hangs_is_stuck_at_its_line(seen: Capture) -> None:
    """A tool in a worker thread: the verdict names its line, with nothing of ours in it."""
    server = MCPServer("shop")
    inside, release = threading.Event(), threading.Event()

    @server.tool()
    def crawl() -> str:
        inside.set()
        release.wait(SECONDS)  # the line where it hangs
        return "done"

    async def work() -> None:
        async with Client(server) as client:
            call = asyncio.ensure_future(client.call_tool("crawl", {}))
            await until(inside.is_set)
            try:
                await asyncio.to_thread(seen.advance, TOOL - 2)  # in this thread it would block the event loop
                assert not seen.of(semconv.STALLED)
                await asyncio.to_thread(seen.advance, 4)
                stalls = {event.snapshot.parent_id is None: event.snapshot for event in seen.of(semconv.STALLED)}
                assert "in crawl" in str(stalls[False].stuck_at)
                assert "test_mcp.py" in str(stalls[False].stuck_at)
            finally:
                release.set()
            await call

    run(work)


def test_async_tool_that_hangs_is_stuck_at_its_line(seen: Capture) -> None:
    """A tool that awaits for ever."""
    server = MCPServer("shop")
    gate: list[Gate] = []

    @server.tool()
    async def crawl() -> str:
        await gate[0].wait()
        return "done"

    async def work() -> None:
        gate.append(Gate())
        async with Client(server) as client:
            call = asyncio.ensure_future(client.call_tool("crawl", {}))
            await until(lambda: gate[0].inside)
            await asyncio.to_thread(seen.advance, TOOL + 2)
            stalls = {event.snapshot.parent_id is None: event.snapshot for event in seen.of(semconv.STALLED)}
            assert "test_mcp.py" in str(stalls[False].stuck_at)
            gate[0].open.set()
            await call

    run(work)


def test_client_is_told_that_a_quiet_call_is_alive(seen: Capture, often: None) -> None:
    """So that it does not give up; each value is above the one before, and none is progress in the client."""
    server = MCPServer("shop")
    gate: list[Gate] = []
    told: list[tuple[float, float | None, str | None]] = []

    @server.tool()
    async def crawl() -> str:
        await gate[0].wait()
        return "done"

    async def hear(done: float, total: float | None, message: str | None) -> None:
        told.append((done, total, message))

    async def work() -> None:
        gate.append(Gate())
        async with Client(server) as client:
            with progress.operation("agent") as agent:
                call = asyncio.ensure_future(client.call_tool("crawl", {}, progress_callback=hear))
                await until(lambda: len(told) >= 3)
                seen.advance(5)
                stage = agent.snapshot().stages[0]
                assert stage.progress.completed is None
                assert "alive, no progress for" in str(stage.message)
                gate[0].open.set()
                await call

    run(work)
    values = [done for done, _, _ in told]
    assert values == sorted(set(values))


def test_counts_of_a_tool_are_forwarded(seen: Capture, often: None) -> None:
    """What the tool counts by any means: the client sees it, with its message."""
    server = MCPServer("shop")
    gate: list[Gate] = []
    told: list[tuple[float, float | None, str | None]] = []

    @server.tool()
    async def crawl() -> str:
        progress.update(completed=7, total=9, message="page 7")
        await gate[0].wait()
        return "done"

    async def hear(done: float, total: float | None, message: str | None) -> None:
        told.append((done, total, message))

    async def work() -> None:
        gate.append(Gate())
        async with Client(server) as client:
            call = asyncio.ensure_future(client.call_tool("crawl", {}, progress_callback=hear))
            await until(lambda: (7, 9, "page 7") in told)
            gate[0].open.set()
            await call

    run(work)


@pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
def test_sampling_and_questions_are_waits(seen: Capture) -> None:
    """A tool that asks the client for a model's answer waits, and is not stuck."""
    server = MCPServer("shop")
    gate: list[Gate] = []

    @server.tool()
    async def summarize(ctx: Context) -> str:
        await ctx.session.create_message([], max_tokens=10)
        return "done"

    async def sample(context: Any, params: Any) -> CreateMessageResult:
        await gate[0].wait()
        return CreateMessageResult(role="assistant", content=TextContent(type="text", text="hi"), model="m")

    async def work() -> None:
        gate.append(Gate())
        async with Client(server, sampling_callback=sample, mode="legacy") as client:
            call = asyncio.ensure_future(client.call_tool("summarize", {}))
            await until(lambda: gate[0].inside)
            seen.advance(TOOL + 10)
            (inner,) = [one for one in running("summarize") if one.parent_id is not None]
            wait = inner.snapshot().wait
            assert wait is not None
            assert wait.reason == "sampling"
            gate[0].open.set()
            await call

    run(work)


def test_client_that_cancels_ends_the_call(seen: Capture) -> None:
    """`notifications/cancelled` cancels the operation, with the tool."""
    server = MCPServer("shop")
    gate: list[Gate] = []

    @server.tool()
    async def crawl() -> str:
        await gate[0].wait()
        return "done"

    async def work() -> None:
        gate.append(Gate())
        async with Client(server) as client:
            call = asyncio.ensure_future(client.call_tool("crawl", {}))
            await until(lambda: gate[0].inside)
            call.cancel()
            await until(lambda: not progress.operations())

    run(work)
    seen.look()
    assert {event.snapshot.status.value for event in seen.of(semconv.OPERATION_ENDED)} == {"cancelled"}


def test_a_client_that_cancels_leaves_the_calls_of_others(seen: Capture) -> None:
    """Two clients of a server give their calls the same ids."""
    server = MCPServer("shop")
    gate: list[Gate] = []

    @server.tool()
    async def crawl() -> str:
        await gate[0].wait()
        return "done"

    async def work() -> None:
        gate.append(Gate())
        async with Client(server) as one, Client(server) as other:
            left = asyncio.ensure_future(one.call_tool("crawl", {}))
            kept = asyncio.ensure_future(other.call_tool("crawl", {}))
            await until(lambda: gate[0].inside == 2)
            left.cancel()
            await until(lambda: len(integration._running) == 1)
            gate[0].open.set()
            assert not (await kept).is_error

    run(work)
    seen.look()
    ends = sorted(event.snapshot.status.value for event in seen.of(semconv.OPERATION_ENDED))
    assert ends == ["cancelled", "cancelled", "completed", "completed"]


def test_client_that_cancels_is_heard_in_a_thread(seen: Capture) -> None:
    """A sync tool can't be interrupted: it is asked to stop, and stops where it counts."""
    server = MCPServer("shop")
    inside = threading.Event()

    @server.tool()
    def crawl() -> str:
        for _ in progress.track(range(100_000)):
            inside.set()
            threading.Event().wait(0.005)
        return "done"

    async def work() -> None:
        async with Client(server) as client:
            call = asyncio.ensure_future(client.call_tool("crawl", {}))
            await until(inside.is_set)
            call.cancel()
            await until(lambda: not progress.operations())

    run(work)


def test_call_that_an_observer_cancels_has_an_answer(seen: Capture) -> None:
    """The client is told, and its session goes on."""
    server = MCPServer("shop")
    gate: list[Gate] = []

    @server.tool()
    async def crawl() -> str:
        asyncio.current_task().cancel()  # type: ignore[union-attr]  # as the control channel does
        progress.request_cancel("too expensive")
        await gate[0].wait()
        return "done"

    @server.tool()
    async def ping() -> str:
        return "pong"

    async def work() -> None:
        gate.append(Gate())
        async with Client(server) as client:
            with pytest.raises(MCPError, match="too expensive"):
                await client.call_tool("crawl", {})
            assert not (await client.call_tool("ping", {})).is_error

    run(work)


def test_client_that_drops_the_connection_ends_its_calls(seen: Capture) -> None:
    """No operation is left open."""
    server = MCPServer("shop")
    gate: list[Gate] = []

    @server.tool()
    async def crawl() -> str:
        await gate[0].wait()
        return "done"

    async def work() -> None:
        gate.append(Gate())
        client = Client(server)
        await client.__aenter__()
        call = asyncio.ensure_future(client.call_tool("crawl", {}))
        await until(lambda: gate[0].inside)
        await client.__aexit__(None, None, None)
        with pytest.raises(BaseException):  # noqa: B017
            await call
        await until(lambda: not progress.operations())

    run(work)


SERVER = """
import asyncio, os
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("shop")


@server.tool()
async def index(ctx: Context) -> str:
    await ctx.report_progress(2, 3, "shelf 2")
    return "done"


@server.tool()
async def die(ctx: Context) -> str:
    await ctx.report_progress(1, 3)
    os._exit(1)


server.run("stdio")
"""


def test_server_process_that_dies_in_the_middle(seen: Capture) -> None:
    """Over stdio, with a server that knows nothing of us: its progress is ours, and the lost call has failed."""

    async def work() -> None:
        started = StdioServerParameters(command=sys.executable, args=["-c", SERVER])
        async with Client(started) as client:
            with progress.operation("agent"):
                assert not (await client.call_tool("index", {})).is_error
                with pytest.raises(MCPError):
                    await client.call_tool("die", {})

    run(work)
    seen.look()
    stages = {stage.path: stage for stage in seen.ended("agent").stages}
    assert (stages["index"].status.value, stages["index"].progress.completed) == ("completed", 2)
    assert stages["die"].status.value == "failed"


def test_streamable_http(seen: Capture, often: None) -> None:
    """A client on a connection of its own: its call is below its operation, and it hears of the progress."""
    server = MCPServer("shop")
    told: list[float] = []

    @server.tool()
    async def crawl() -> str:
        progress.update(completed=7, total=9)
        while 7 not in told:
            await asyncio.sleep(0.005)
        return "done"

    async def hear(done: float, total: float | None, message: str | None) -> None:
        told.append(done)

    async def work() -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            port = listening.getsockname()[1]
            serving = uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_config=None, lifespan="on"))
            served = asyncio.ensure_future(serving.serve(sockets=[listening]))
            await until(lambda: serving.started)
            async with Client(f"http://127.0.0.1:{port}/mcp") as client:
                with progress.operation("agent"):
                    assert not (await client.call_tool("crawl", {}, progress_callback=hear)).is_error
            serving.should_exit = True
            await served

    run(work)
    seen.look()
    assert seen.ended("crawl").parent_id == seen.ended("agent").operation_id


def test_tool_that_fails(seen: Capture) -> None:
    """The SDK turns its exception into a result that says so."""
    server = MCPServer("shop")

    @server.tool()
    async def crawl() -> str:
        raise ValueError("no such page")

    async def work() -> None:
        async with Client(server) as client:
            with progress.operation("agent"):
                assert (await client.call_tool("crawl", {})).is_error

    run(work)
    seen.look()
    end = seen.ended("crawl")
    assert end.status.value == "failed"
    assert end.reason == "Error executing tool crawl"  # what the SDK tells the client
    assert seen.ended("agent").stages[0].status.value == "failed"


def test_same_call_again_and_again_is_a_loop(seen: Capture) -> None:
    """The client's operation makes steps of tool and arguments."""
    server = MCPServer("shop")

    @server.tool()
    async def look(place: str) -> str:
        return place

    async def work() -> None:
        async with Client(server) as client:
            with progress.operation("agent") as agent:
                for _ in range(12):
                    await client.call_tool("look", {"place": "secret-cave"})
                    seen.advance(2)
                snapshot = agent.snapshot()
                assert snapshot.health.value == "looping"
                assert "secret-cave" not in str(snapshot)

    run(work)


def test_server_that_was_made_before(seen: Capture) -> None:
    """Switched on later: a server is watched from its next call on."""
    integration.uninstall()
    server = MCPServer("shop")

    @server.tool()
    async def ping() -> str:
        return "pong"

    integration.install()
    integration.install()

    async def work() -> None:
        async with Client(server) as client:
            await client.call_tool("ping", {})

    run(work)
    seen.look()
    assert len(seen.of(semconv.OPERATION_ENDED)) == 2


def test_nothing_is_left_behind() -> None:
    """Taken out, a server and a session are what they were."""
    from mcp.client.session import ClientSession
    from mcp.server.lowlevel.server import Server
    from mcp.server.runner import ServerRunner
    from mcp.server.session import ServerSession

    kinds: list[tuple[Any, str]] = [
        (Server, "__init__"),
        (ServerRunner, "_on_request"),
        (ServerSession, "send_request"),
        (ClientSession, "call_tool"),
    ]
    before = [getattr(kind, name) for kind, name in kinds]
    integration.install()
    assert [getattr(kind, name) for kind, name in kinds] != before
    integration.uninstall()
    assert [getattr(kind, name) for kind, name in kinds] == before


def test_error_of_ours_leaves_the_call_alone(seen: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The integration is off, and tools go on."""
    server = MCPServer("shop")

    @server.tool()
    async def ping() -> str:
        return "pong"

    def fail(_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(integration, "_begun", fail)

    async def work() -> None:
        async with Client(server) as client:
            assert not (await client.call_tool("ping", {})).is_error

    run(work)
    assert not integration.switch.on


def test_client_that_passes_no_meta_on_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in old versions: the parent has no way to the server, and a call with it would fail."""

    async def call_tool(self: Any, name: str, arguments: Any = None) -> str:
        return name

    monkeypatch.setattr(ClientSession, "call_tool", call_tool)
    with pytest.raises(AttributeError, match="no meta"):
        integration.install()
    assert ClientSession.call_tool is call_tool
    assert not integration.switch.on
