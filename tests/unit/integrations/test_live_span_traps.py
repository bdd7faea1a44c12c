"""What instrumentations do that makes a naive look at spans say something wrong."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio.to_thread
import pytest
from live_span_parts import AGENT, MODEL, TOOL, Program, beside, program
from opentelemetry import context as contexts
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

import otel_progress
from otel_progress import semconv
from otel_progress.integrations import live_spans
from otel_progress.integrations.live_spans import processor
from otel_progress.model.status import Health, Status


@pytest.fixture
def app() -> Iterator[Program]:
    with program() as found:
        yield found


Hold = Callable[[], None]

# -- kinds and limits


def test_a_kind_that_is_told_late_sets_the_limit(app: Program) -> None:
    """A span that says what it is only after it was shown is judged by the limit of that kind."""
    with app.span("step") as span:
        app.advance(600)
        assert app.stalls() == []
        span.set_attribute("openinference.span.kind", "TOOL")
        app.advance(2)
        app.advance(121)
        assert len(app.stalls()) == 1


@pytest.mark.parametrize("kind", [SpanKind.SERVER, SpanKind.CONSUMER])
def test_servers_and_consumers_may_be_silent(app: Program, kind: SpanKind) -> None:
    """A stream to a client or a queue without messages is never stuck by a usual or a learned limit."""
    for _ in range(12):
        with app.span("GET /stream", kind=kind):
            app.advance(3)
    with app.span("GET /stream", kind=kind):
        app.advance(900)
        assert app.stalls() == []
        with app.span("execute_tool x", attributes=TOOL):
            app.advance(122)
            assert len(app.stalls()) == 1


def test_a_declared_limit_holds_for_the_spans_inside(app: Program) -> None:
    """What the operation around names takes precedence over the limit of a kind."""
    with otel_progress.operation("job", stall_after=20), app.span("execute_tool x", attributes=TOOL):
        app.advance(23)
        assert len(app.stalls()) == 1


# -- how spans end


def test_a_child_that_outlives_its_parent_is_shown_on_its_own(app: Program) -> None:
    """A background task whose request is over is an operation of its own, and judged by its own time."""
    request = app.tracer.start_span("POST /job", kind=SpanKind.SERVER)
    task = app.tracer.start_span("execute_tool mail", set_span_in_context(request), attributes=TOOL)
    app.advance(2)
    assert app.running() == ["POST /job", "execute_tool mail"]
    request.end()
    app.advance(1)
    assert app.running() == ["execute_tool mail"]
    app.advance(120)
    [stall] = app.captured.of(semconv.STALLED)
    assert stall.snapshot.name == "execute_tool mail"
    task.end()


def test_what_is_cancelled_later_than_its_parent_is_no_operation_of_its_own(app: Program) -> None:
    """A cancelled agent ends before the tool that it cancelled: nothing new begins, and no token counts twice."""
    agent = app.tracer.start_span("invoke_agent boss", attributes={"gen_ai.operation.name": "invoke_agent"})
    inside = set_span_in_context(agent)
    tool = app.tracer.start_span("execute_tool ask", inside, attributes=TOOL)
    app.advance(2)
    agent.set_status(StatusCode.ERROR)
    agent.end()
    app.advance(5)
    assert app.running() == []
    tool.end()
    app.advance(60)
    assert len(app.captured.of(semconv.OPERATION_STARTED)) == 1


def test_what_goes_on_long_after_its_parent_failed_is_shown(app: Program) -> None:
    """What hangs is never hidden."""
    agent = app.tracer.start_span("invoke_agent boss", attributes={"gen_ai.operation.name": "invoke_agent"})
    tool = app.tracer.start_span("execute_tool ask", set_span_in_context(agent), attributes=TOOL)
    app.advance(2)
    agent.set_status(StatusCode.ERROR)
    agent.end()
    app.advance(15)
    assert app.running() == ["execute_tool ask"]
    tool.end()


def test_a_span_whose_parent_ended_before_it_was_shown_belongs_to_the_one_around(app: Program) -> None:
    """The entry of a parent is kept: what is around that is found through it."""
    with app.span("root"):
        middle = app.tracer.start_span("middle")
        inner = app.tracer.start_span("inner", set_span_in_context(middle))
        middle.end()
        app.advance(2)
        assert app.running() == ["root", "inner"]
        inner.end()


def test_a_span_that_is_dropped_is_abandoned_and_not_stuck(app: Program) -> None:
    """A span without an end that nobody can end any more is interrupted; nothing keeps it alive."""
    span = app.tracer.start_span("execute_tool lost", attributes=TOOL)
    app.advance(2)
    del span
    gc.collect()
    app.advance(300)
    assert app.stalls() == []
    ended = app.captured.ended("execute_tool lost")
    assert ended.status is Status.INTERRUPTED
    assert "abandoned" in (ended.reason or "")


def test_a_span_that_was_forgotten_is_not_stuck(app: Program) -> None:
    """Its thread works outside of it; once a span begins in it again, its idle time counts again."""
    forgotten = app.tracer.start_span("execute_tool lost", attributes=TOOL)
    app.advance(2)
    for _ in range(30):
        with app.span("turn"):
            app.advance(10)
    assert app.running() == ["execute_tool lost"]
    assert app.stalls() == []
    with app.tracer.start_as_current_span("inside", set_span_in_context(forgotten)), app.span("deeper"):
        app.advance(2)
    app.advance(121)
    assert len(app.stalls()) == 1
    forgotten.end()


def test_a_tool_that_begins_a_trace_of_its_own_is_not_left(app: Program) -> None:
    """A span with a context that was given says nothing about where its thread is: the tool around it still hangs."""
    with app.span("execute_tool poll", attributes=TOOL):
        app.advance(2)
        with app.tracer.start_as_current_span("message", contexts.Context()):
            app.advance(2)
        app.advance(121)
        assert len(app.stalls()) == 1


# -- the same work, seen twice


def test_two_instrumentations_of_one_call_are_one(app: Program) -> None:
    """A span with the name of the one around it is hidden, and its tokens count once."""
    used = {"gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 7}
    with app.span("invoke_agent x", attributes=AGENT), app.span("chat m", attributes=MODEL) as outer:
        with app.span("chat m", attributes=MODEL) as inner, app.span("POST", attributes={"server.address": "llm"}):
            app.advance(2)
            assert app.running() == ["invoke_agent x", "chat m"]
            inner.set_attributes(used)
        outer.set_attributes(used)
        outer.set_attribute("gen_ai.usage.output_tokens", 9)
    app.advance(1)
    assert app.captured.ended("invoke_agent x").usage == {"input_tokens": 100, "output_tokens": 9}


def test_tokens_of_calls_before_the_first_look_count(app: Program) -> None:
    """What short calls reported before their agent was shown is added to it then."""
    with app.span("invoke_agent x", attributes=AGENT):
        with app.span("chat m", attributes={**MODEL, "gen_ai.usage.input_tokens": 5}):
            pass
        app.advance(1)
        with app.span("chat m", attributes={**MODEL, "gen_ai.usage.input_tokens": 6}):
            pass
    app.advance(1)
    assert app.captured.ended("invoke_agent x").usage == {"input_tokens": 11}


def test_a_request_shows_its_host(app: Program) -> None:
    """A name that says nothing has what it is about as its message."""
    with app.span("GET", kind=SpanKind.CLIENT, attributes={"server.address": "example.org"}):
        app.advance(2)
        [snapshot] = app.snapshots()
        assert snapshot.message == "example.org"


def test_what_a_specific_integration_declared_is_not_shown_twice(app: Program) -> None:
    """A span of the name and start of a declared operation or stage is that one, whose tokens are its integration's."""
    graph = otel_progress.operation("graph").start()
    node = graph.stage("node").start()
    with app.span("graph", attributes=AGENT), app.span("node", attributes=MODEL) as span:
        with app.span("execute_tool x", attributes=TOOL):
            app.advance(2)
            assert app.running() == ["graph", "node", "node/execute_tool x"]
        span.set_attribute("gen_ai.usage.input_tokens", 5)
    node.complete()
    graph.complete()
    app.advance(2)
    assert app.captured.ended("graph").usage == {}
    assert app.running() == []


def test_arguments_of_tools_are_kept_only_if_asked_for(app: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are private by default."""
    from otel_progress.live import hooks

    for asked in (False, True):
        monkeypatch.setattr(hooks, "captures_inputs", asked)
        with app.span("execute_tool x", attributes={**TOOL, "gen_ai.tool.call.arguments": "where I live"}):
            app.advance(1)
        app.advance(1)
        assert ("where I live" in str(app.captured.events[-1])) is asked


def test_our_own_spans_are_not_shown_again(app: Program) -> None:
    """Spans of declared operations pass through the same provider, and are what they are already."""
    from otel_progress.live import hooks

    hooks.tracing.use(app.provider)
    with otel_progress.operation("job"), otel_progress.stage("part"):
        app.advance(2)
        assert app.running() == ["job", "part"]


# -- whose line


def test_a_pool_thread_that_went_on_to_other_work_is_not_the_place(app: Program) -> None:
    """A handler that opened a span in a pool's thread is gone when that thread hangs in somebody else's code."""
    go_on = threading.Event()
    spans = []

    def handler() -> None:
        spans.append(app.tracer.start_span("tool", attributes=TOOL))

    with ThreadPoolExecutor(1) as pool:
        pool.submit(contextvars.copy_context().run, handler).result(30)
        pool.submit(contextvars.copy_context().run, somebody_else, go_on)
        app.advance(122)
        [(_, line)] = app.stalls()
        assert line == ""
        [stall] = app.captured.of(semconv.STALLED)
        assert "somebody_else" not in str(stall.attributes)
        go_on.set()
    spans[0].end()


def somebody_else(go_on: threading.Event) -> None:
    go_on.wait(60)


@pytest.mark.parametrize("run", [asyncio.to_thread, anyio.to_thread.run_sync], ids=["asyncio", "anyio"])
def test_sync_work_in_a_worker_thread_has_its_line(app: Program, run: Callable[..., object]) -> None:
    """A sync tool that a task runs in a worker thread hangs at its own line, not at the await."""

    def work(hold: Hold) -> None:
        async def main() -> None:
            with app.span("execute_tool sync", attributes=TOOL):
                await run(hangs_in_thread, hold)  # type: ignore[misc]

        asyncio.run(main())

    with beside(work):
        app.advance(122)
        [(_, line)] = app.stalls()
        [stall] = app.captured.of(semconv.STALLED)
        assert "in hangs_in_thread" in stall.attributes[semconv.STACK]
        assert line.endswith("in __call__")


def hangs_in_thread(hold: Hold) -> None:
    hold()


def test_the_task_that_works_in_a_span_is_the_place(app: Program) -> None:
    """A span that one task opened and another one works in hangs where that one does."""
    go_on: list[asyncio.Event] = []

    def work(hold: Hold) -> None:
        async def other(span: object) -> None:
            contexts.attach(set_span_in_context(span))  # type: ignore[arg-type]
            go_on.append(asyncio.Event())
            loop.call_later(0, there.set)
            await go_on[0].wait()

        async def main() -> None:
            nonlocal loop
            loop = asyncio.get_running_loop()
            span = app.tracer.start_span("execute_tool x", attributes=TOOL)
            await asyncio.gather(other(span), elsewhere())
            span.end()

        async def elsewhere() -> None:
            await go_on[0].wait()

        asyncio.run(main())

    loop = asyncio.new_event_loop()
    loop.close()
    there = threading.Event()
    thread = threading.Thread(target=work, args=(lambda: None,), daemon=True)
    thread.start()
    assert there.wait(30)
    app.advance(122)
    [(_, line)] = app.stalls()
    assert line.endswith("in other")
    loop.call_soon_threadsafe(go_on[0].set)
    thread.join(30)


# -- providers and samplers


def test_private_and_earlier_providers_are_seen() -> None:
    """Providers that were made before, and ones that are never made global, are seen alike."""
    early = TracerProvider(shutdown_on_exit=False)
    tracer = early.get_tracer("early")
    with program() as app:
        with tracer.start_as_current_span("early"):
            app.advance(2)
            assert app.running() == ["early"]
        with TracerProvider(shutdown_on_exit=False).get_tracer("late").start_as_current_span("late"):
            app.advance(2)
            assert app.running() == ["late"]


@pytest.mark.parametrize("asked", [True, False])
def test_unsampled_spans_are_seen_by_choice_and_never_exported(asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `OTEL_PROGRESS_UNSAMPLED_SPANS=true` what the sampler drops is shown; it stays unsampled."""
    monkeypatch.setenv("OTEL_PROGRESS_UNSAMPLED_SPANS", "true" if asked else "false")
    with program() as app:
        provider, exported = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False), InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(exported))
        with provider.get_tracer("app").start_as_current_span("quiet"):
            app.advance(2)
            assert app.running() == (["quiet"] if asked else [])
        app.advance(1)
        assert exported.get_finished_spans() == ()
        assert [log.sampled for log in app.captured.logs] == ([False, False] if asked else [])


# -- bounds and errors


def test_at_most_so_many_are_shown(app: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the cap open spans wait, which is counted; they are shown when there is room."""
    monkeypatch.setattr(processor, "MOST", 3)
    spans = [app.tracer.start_span(f"part {number}") for number in range(5)]
    app.advance(2)
    assert len(app.running()) == 3
    assert app.captured.drops[semconv.DROP_LIVE_SPANS] >= 2
    for span in spans[:3]:
        span.end()
    app.advance(2)
    assert app.running() == ["part 3", "part 4"]
    for span in spans[3:]:
        span.end()


def test_an_error_of_ours_never_reaches_the_program(app: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """If anything fails, live spans are switched off with one line in the log, and the program goes on."""

    def broken() -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(processor, "here", broken)
    with app.span("job"), app.span("part"):
        app.advance(2)
    assert app.running() == []
    assert len(app.exported.get_finished_spans()) == 2


def test_more_new_spans_than_are_queued_are_all_looked_at(app: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst between two looks loses none of those that stay open."""
    monkeypatch.setattr(processor, "FRESH", 4)
    from otel_progress.live.hooks import watcher

    watcher.forget()
    spans = [app.tracer.start_span(f"part {number}") for number in range(9)]
    app.advance(2)
    assert len(app.running()) == 9
    for span in spans:
        span.end()


def test_health_of_a_silent_server_is_not_that_of_its_stage(app: Program) -> None:
    """The stage that hangs is the branch that speaks for the operation."""
    with app.span("POST /chat", kind=SpanKind.SERVER), app.span("execute_tool x", attributes=TOOL):
        app.advance(125)
        [snapshot] = app.snapshots()
        assert snapshot.health is Health.SILENT


def test_nothing_is_imported_or_started_by_the_import() -> None:
    """Importing the integration patches nothing, and starts no thread."""
    code = (
        "import threading; from opentelemetry.sdk.trace import TracerProvider as P; before = P.__init__;"
        "from otel_progress.integrations import live_spans;"
        "assert P.__init__ is before and threading.active_count() == 1, threading.enumerate()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert live_spans.LIBRARY == "opentelemetry-sdk"


class Unready(TracerProvider):
    """A provider of the program: its constructor ends after that of the SDK, and nobody may call it before."""

    def __init__(self) -> None:
        super().__init__(shutdown_on_exit=False)
        self.ready = True

    def __getattribute__(self, name: str) -> Any:
        if name in ("add_span_processor", "sampler", "force_flush", "shutdown", "get_tracer"):
            assert "ready" in object.__getattribute__(self, "__dict__"), name
        return super().__getattribute__(name)

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        assert self.ready
        super().add_span_processor(span_processor)


@pytest.mark.parametrize("unsampled", ["false", "true"])
def test_a_provider_is_touched_only_by_its_own_code_while_it_is_built(
    unsampled: str, app: Program, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What the constructor of a subclass sets after the SDK's is needed by its methods; its spans are seen all the same."""
    monkeypatch.setenv("OTEL_PROGRESS_UNSAMPLED_SPANS", unsampled)
    provider = Unready()
    span = provider.get_tracer("theirs").start_span("long")
    app.advance(2)
    assert app.running() == ["long"]
    span.end()
    assert not caplog.records
