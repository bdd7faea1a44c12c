"""Programs as users write them, with spans and no line of ours: each shows what runs, and where it hangs."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import multiprocessing
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from live_span_parts import AGENT, MODEL, TOOL, Program, beside, program

import otel_progress
from otel_progress import semconv
from otel_progress.integrations import live_spans
from otel_progress.model.status import Health, Status


@pytest.fixture
def app() -> Iterator[Program]:
    with program() as found:
        yield found


Hold = Callable[[], None]


class Loop:
    """An event loop in a thread of its own, in which a program runs until the test ends."""

    def __init__(self, main: Callable[[Loop], Any]) -> None:
        self.there = threading.Event()
        self._main = main
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    async def _run(self) -> None:
        self.loop, self.go_on = asyncio.get_running_loop(), asyncio.Event()
        await self._main(self)

    async def hang(self) -> None:
        self.loop.call_soon(self.there.set)
        await self.go_on.wait()

    def __enter__(self) -> Loop:
        self._thread.start()
        assert self.there.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.go_on.set)
        self._thread.join(30)


def test_parallel_tools_each_are_a_branch(app: Program) -> None:
    """Of three tools under asyncio.gather one hangs while others come and go: it alone is stuck, at its await."""

    async def tool(loop: Loop, name: str) -> None:
        with app.span(f"execute_tool {name}", attributes=TOOL):
            if name == "slow":
                await loop.hang()

    async def main(loop: Loop) -> None:
        with app.span("invoke_agent crew", attributes=AGENT):
            await asyncio.gather(*(tool(loop, name) for name in ("quick", "slow", "quick too")))

    with Loop(main):
        app.advance(121)
        [(branches, line)] = app.stalls()
        assert branches == ("execute_tool slow",)
        assert "in hang" in line
    app.advance(1)
    assert app.captured.ended("invoke_agent crew").status is Status.COMPLETED


def test_an_agent_inside_an_agent_is_a_stage(app: Program) -> None:
    """An agent that a tool of another agent calls is a stage at its depth, and its model hangs in it."""

    def work(hold: Hold) -> None:
        with app.span("invoke_agent boss", attributes=AGENT), app.span("execute_tool delegate", attributes=TOOL):
            with app.span("invoke_agent helper", attributes=AGENT), app.span("chat m", attributes=MODEL):
                hold()

    with beside(work):
        app.advance(2)
        path = "execute_tool delegate/invoke_agent helper/chat m"
        assert app.running()[0] == "invoke_agent boss"
        assert app.running()[-1] == path
        app.advance(296)
        assert app.stalls() == []
        app.advance(4)
        assert [branches for branches, _ in app.stalls()] == [(path,)]


def test_pool_threads_are_branches_of_their_caller(app: Program) -> None:
    """Spans in a pool's threads that got the context are stages of the caller's; the one that hangs has its line."""
    go_on, there = threading.Event(), threading.Barrier(3)

    def embed(part: int) -> None:
        with app.span(f"embed {part}", attributes=TOOL):
            there.wait(30)
            if part == 1:
                hang_here(go_on)

    with ThreadPoolExecutor(3) as pool, app.span("index"):
        works = [pool.submit(contextvars.copy_context().run, embed, part) for part in range(3)]
        works[0].result(30)
        works[2].result(30)
        app.advance(125)
        assert app.running() == ["index", "embed 1"]
        [(branches, line)] = app.stalls()
        assert branches == ("embed 1",)
        assert line.endswith("in hang_here")
        go_on.set()


def hang_here(go_on: threading.Event) -> None:
    go_on.wait(60)


def test_a_stream_lives_as_long_as_tokens_come(app: Program) -> None:
    """A model's stream that tells each token as an event is well for hours; without one for 300 s it is stuck."""
    with app.span("chat m", attributes=MODEL) as span:
        for _ in range(5):
            app.advance(250)
            span.add_event("token")
        app.advance(2)
        assert app.stalls() == []
        app.advance(300)
        assert len(app.stalls()) == 1
        [snapshot] = app.snapshots()
        assert snapshot.health is Health.SILENT


def test_a_generator_that_is_dropped_ends_its_span(app: Program) -> None:
    """A consumer that leaves a stream early closes its generator: its operation is over, not stuck."""

    def tokens() -> Iterator[str]:
        with app.span("chat m", attributes=MODEL):
            yield "a"
            yield "b"

    stream = tokens()
    next(stream)
    app.advance(2)
    assert app.running() == ["chat m"]
    del stream
    gc.collect()
    app.advance(400)
    assert app.running() == []
    assert app.stalls() == []


def test_cells_of_a_notebook_each_are_a_run(app: Program) -> None:
    """Each cell has an event loop of its own and installs again; each run is an operation of its own."""

    async def cell() -> None:
        with app.span("invoke_agent x", attributes=AGENT):
            app.advance(1)
            await asyncio.sleep(0)

    for _ in range(2):
        live_spans.install()
        asyncio.run(cell())
    app.advance(1)
    assert app.captured.names() == [semconv.OPERATION_STARTED, semconv.OPERATION_ENDED] * 2
    first, second = (event.snapshot.operation_id for event in app.captured.of(semconv.OPERATION_ENDED))
    assert first != second


def test_a_forked_child_has_only_its_own_spans(app: Program) -> None:
    """What was open at the fork is the parent's; the child's spans are operations of the child."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def child() -> None:
        app.advance(2)
        inherited = app.running()
        with app.span("own"):
            app.advance(2)
            sender.send((inherited, app.running()))

    with app.span("parent"):
        app.advance(2)
        process = context.Process(target=child)
        process.start()
        assert receiver.poll(60)
        assert receiver.recv() == ([], ["own"])
        process.join(60)
        app.advance(2)
        assert app.running() == ["parent"]


def test_thousands_of_short_spans_leave_nothing(app: Program) -> None:
    """A flood of short spans makes no event and no stage beside the one that lasts, which they show alive."""
    from otel_progress.live.hooks import watcher

    with app.span("serve", attributes=TOOL):
        for _ in range(15):
            for _ in range(200):
                with app.span("GET /item"):
                    pass
            app.advance(10)
        assert app.stalls() == []
        [snapshot] = app.snapshots()
        assert snapshot.stages == ()
        assert len(watcher._open) == 1
        assert not watcher._waiting
        assert not watcher._fresh
        app.advance(125)
        assert len(app.stalls()) == 1


def test_a_span_may_end_in_another_thread(app: Program) -> None:
    """A span that a thread opens and another one ends is an operation until then."""
    span = app.tracer.start_span("upload")
    app.advance(2)
    assert app.running() == ["upload"]
    thread = threading.Thread(target=span.end)
    thread.start()
    thread.join()
    app.advance(1)
    assert app.captured.ended("upload").status is Status.COMPLETED


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (ValueError("no such file"), Status.FAILED),
        (KeyboardInterrupt(), Status.INTERRUPTED),
        (SystemExit(0), Status.COMPLETED),
        (asyncio.CancelledError(), Status.CANCELLED),
        (GeneratorExit(), Status.CANCELLED),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_a_span_raises_is_its_end(app: Program, raised: BaseException, status: Status) -> None:
    """An exception that leaves a span passes, and is how its operation ends, with its reason."""
    with pytest.raises(type(raised)) as caught, app.span("work"):
        app.advance(2)
        raise raised
    assert caught.value is raised
    app.advance(1)
    ended = app.captured.ended("work")
    assert ended.status is status
    if status is Status.FAILED:
        assert "no such file" in (ended.reason or "")


@pytest.mark.parametrize(
    ("arguments", "result", "loops"),
    [
        ("{}", "page 1", True),
        ("other", "page 1", False),
        ("{}", "other", False),  # the next page of a list that only the tool knows
        ("{}", None, False),
        ("{}", "", False),
    ],
)
def test_a_tool_that_is_called_again_and_again_is_a_loop(
    app: Program, arguments: str, result: str | None, loops: bool
) -> None:
    """The same tool with the same arguments and the same result ten times is a loop; all else may be work."""
    with app.span("invoke_agent x", attributes=AGENT):
        app.advance(1)
        for number in range(12):
            about = {**TOOL, "gen_ai.tool.call.arguments": arguments.replace("other", str(number))}
            if result is not None:
                about["gen_ai.tool.call.result"] = result.replace("other", str(number))
            with app.span("execute_tool search", attributes=about):
                pass
        app.advance(8)
        [snapshot] = app.snapshots()
        assert (snapshot.health is Health.LOOPING) is loops


def test_a_tool_that_fails_in_the_same_way_again_and_again_is_a_loop(app: Program) -> None:
    """Its error is its result."""
    with app.span("invoke_agent x", attributes=AGENT):
        app.advance(1)
        for _ in range(12):
            with (
                pytest.raises(ConnectionError),
                app.span("execute_tool search", attributes={**TOOL, "gen_ai.tool.call.arguments": "{}"}),
            ):
                raise ConnectionError("refused")
        app.advance(8)
        assert app.snapshots()[0].health is Health.LOOPING


def test_stages_of_the_same_name_are_no_loop(app: Program) -> None:
    """A span that comes again and again is known by its name alone, which says nothing of its work."""
    with otel_progress.operation("agent") as agent:
        for _ in range(30):
            with app.span("call the model"):
                app.advance(20)
        assert agent.snapshot().health is Health.PROGRESSING


def test_declared_and_live_ones_nest_both_ways(app: Program) -> None:
    """A span in an operation is its stage, an operation in a span its child, a stage in that its stage."""
    with otel_progress.operation("batch") as batch, app.span("fetch"):
        app.advance(2)
        assert app.running() == ["batch", "fetch"]
        with otel_progress.stage("parse"):
            assert app.running() == ["batch", "fetch", "fetch/parse"]
        with otel_progress.operation("inner") as inner, app.span("deep"):
            app.advance(2)
            assert inner.parent_id == batch.id
            assert app.running() == ["batch", "fetch", "inner", "deep"]
    with app.span("outer"), otel_progress.operation("declared") as declared:
        outer = next(one for one in otel_progress.operations() if one.name == "outer")
        assert declared.parent_id == outer.id
        for _ in otel_progress.track(range(3)):
            pass
    app.advance(1)
    assert app.captured.ended("declared").progress.completed == 3


def test_an_async_generator_holds_its_span_until_it_is_closed(app: Program) -> None:
    """One that is not exhausted is an operation until it is closed."""

    async def tokens() -> AsyncGenerator[str, None]:
        with app.span("chat m", attributes=MODEL):
            yield "a"
            yield "b"

    async def main() -> None:
        stream = tokens()
        async for _ in stream:
            break
        app.advance(2)
        assert app.running() == ["chat m"]
        await stream.aclose()

    asyncio.run(main())
    app.advance(1)
    assert app.running() == []
