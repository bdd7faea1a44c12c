"""Which operation is current: across tasks, threads, pools and processes."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import otel_progress as progress
from otel_progress import CarryingExecutor, Parent, carry, extract, inject, semconv
from otel_progress.testing import Capture


def name_here() -> str | None:
    """The name of the operation that runs here."""
    op = progress.current()
    return None if op is None else op.name


def test_tasks_and_to_thread_take_the_context_along(progress_capture: Capture) -> None:
    """asyncio tasks and to_thread know the operation in which they were made."""

    async def child() -> str | None:
        await asyncio.sleep(0)
        return name_here()

    async def main() -> None:
        async with progress.operation("outer"):
            task = asyncio.ensure_future(child())
            async with progress.operation("inner"):
                assert await asyncio.gather(child(), asyncio.to_thread(name_here)) == ["inner", "inner"]
            assert await task == "outer"
        assert await asyncio.gather(child(), asyncio.to_thread(name_here)) == [None, None]

    asyncio.run(main())


def test_a_task_that_outlives_its_stage_acts_on_what_is_left(progress_capture: Capture) -> None:
    """A task that goes on after its stage ended acts on the operation; after that, on nothing."""

    async def child(go_on: asyncio.Event) -> None:
        await go_on.wait()
        progress.advance()

    async def main() -> None:
        async with progress.operation("work") as op:
            event, late = asyncio.Event(), asyncio.Event()
            async with progress.stage("step"):
                task, after = asyncio.ensure_future(child(event)), asyncio.ensure_future(child(late))
            event.set()
            await task
            assert op.snapshot().progress.completed == 1
        late.set()
        await after
        assert op.snapshot().progress.completed == 1

    asyncio.run(main())
    assert progress_capture.drops == {semconv.DROP_OUTSIDE: 1}


def test_left_in_another_context(progress_capture: Capture) -> None:
    """A block that is left in another context than it was entered in ends its operation, and harms nothing."""
    op = progress.operation("work")
    contextvars.copy_context().run(op.__enter__)
    stage = op.stage("s")
    contextvars.copy_context().run(stage.__enter__)
    stage.__exit__(None, None, None)
    op.__exit__(None, None, None)
    assert op.status.value == stage.status.value == "completed"
    assert progress.current() is None


def test_threads_do_not_take_the_context_along_but_carry_does(progress_capture: Capture) -> None:
    """A plain thread and a plain pool know nothing; with carry(fn) they do."""
    found: list[str | None] = []
    with progress.operation("work"), ThreadPoolExecutor(1) as pool:
        for target in (name_here, carry(name_here)):
            thread = threading.Thread(target=lambda target=target: found.append(target()))
            thread.start()
            thread.join()
        assert [pool.submit(fn).result() for fn in (name_here, carry(name_here))] == [None, "work"]
    assert found == [None, "work"]


def test_carry_keeps_the_function(progress_capture: Capture) -> None:
    """A carried function takes and gives the same, raises the same, and may be called many times at once."""

    def work(a: int, *, b: int = 2) -> int:
        """Adds."""
        if a < 0:
            raise KeyError(a)
        progress.advance(a + b)
        return a + b

    with progress.operation("work") as op:
        carried = carry(work)
    assert (carried.__name__, carried.__doc__) == ("work", "Adds.")
    with progress.operation("other") as op:
        carried = carry(work)
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(carried, range(20))) == [n + 2 for n in range(20)]
        with pytest.raises(KeyError, match="-1"):
            carried(-1, b=3)
        assert op.snapshot().progress.completed == sum(range(20)) + 40


def test_carry_leaves_nothing_behind(progress_capture: Capture) -> None:
    """What a carried function makes current is not current in the next call, nor in its caller."""

    def leaky() -> str | None:
        before = name_here()
        progress.operation("leaked").__enter__()
        return before

    carried = carry(leaky)
    assert [carried(), carried()] == [None, None]
    assert name_here() is None


def test_carrying_executor(progress_capture: Capture) -> None:
    """Each task of a CarryingExecutor knows the stage in which it was submitted, with submit as with map."""

    def work(_: int = 0) -> str | None:
        progress.advance()
        return progress.current(required=True).snapshot().stage

    with progress.operation("work") as op, CarryingExecutor(2) as pool:
        with progress.stage("a"):
            first = pool.submit(work, 1)
            assert first.result() == "a"
        with progress.stage("b"):
            assert list(pool.map(work, range(5))) == ["b"] * 5
    assert [stage.progress.completed for stage in op.snapshot().stages] == [1, 5]


# -- other processes


def test_headers_round_trip(progress_capture: Capture) -> None:
    """What inject() writes, extract() reads: the operation is the parent, its span the parent of the span."""
    with progress.operation("above", id="run/ä 1") as above:
        headers = inject()
        assert inject(headers) is headers
    assert {"traceparent", "baggage"} <= set(headers)
    with progress.operation("below", parent=extract(headers)) as below:
        pass
    assert below.parent_id == above.id == "run/ä 1"
    spans = {span.name: span for span in progress_capture.spans}
    assert spans["below"].parent is not None
    assert spans["below"].parent.span_id == spans["above"].context.span_id
    assert spans["below"].parent.is_remote
    assert spans["below"].context.trace_id == spans["above"].context.trace_id


def test_headers_in_other_case(progress_capture: Capture) -> None:
    """Header names are read whatever their case, as HTTP has it."""
    with progress.operation("above") as above:
        headers = {key.title(): value for key, value in inject().items()}
    assert extract(headers).operation_id == above.id


def test_a_stage_is_the_parent_of_the_span_elsewhere(progress_capture: Capture) -> None:
    """Injected inside a stage, its span is the parent of the span elsewhere, and its operation the parent."""
    with progress.operation("above") as above, progress.stage("step"):
        found = extract(inject())
    assert found.operation_id == above.id
    with progress.operation("below", parent=found):
        pass
    spans = {span.name: span for span in progress_capture.spans}
    assert spans["below"].parent is not None
    assert spans["below"].parent.span_id == spans["step"].context.span_id


def test_environment_round_trip_to_a_child_process(progress_capture: Capture) -> None:
    """inject(environ=True) writes variables, which extract() finds in the child's environment."""
    code = "import otel_progress as p; op = p.operation('child', parent=p.extract()); print(op.parent_id)"
    with progress.operation("above", id="run-7"):
        environ = inject(dict(os.environ), environ=True)
    assert {"TRACEPARENT", "BAGGAGE"} <= set(environ)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "run-7"


def test_nothing_to_inject(progress_capture: Capture) -> None:
    """Where nothing runs there is nothing to write, and what was not written names no parent."""
    assert inject() == {}
    assert extract({}).operation_id is None
    with progress.operation("work", parent=extract({})) as op:
        assert op.parent_id is None


def test_the_callers_own_baggage_is_kept(progress_capture: Capture) -> None:
    """Baggage that the application set goes along."""
    from opentelemetry import baggage
    from opentelemetry.context import attach, detach

    token = attach(baggage.set_baggage("tenant", "acme"))
    try:
        with progress.operation("work"):
            assert "tenant=acme" in inject()["baggage"]
    finally:
        detach(token)


GARBAGE: dict[str, Callable[[], Any]] = {
    "no traceparent": lambda: {"traceparent": "garbage", "baggage": ";;;,=,"},
    "bytes": lambda: {b"traceparent": b"\xff"},
    "numbers": lambda: {1: 2, None: None},
    "long": lambda: {"baggage": "progress.operation.id=" + "x" * 7000},
    "zero ids": lambda: {"traceparent": f"00-{'0' * 32}-{'0' * 16}-01"},
    "surrogates": lambda: {"baggage": "progress.operation.id=%ff%fe\ud800"},
    "not a mapping": lambda: ["traceparent"],
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_headers_make_a_parent_that_can_be_used(name: str, progress_capture: Capture) -> None:
    """Headers that can't be read raise nothing; an operation below them runs, and can be sent."""
    found = extract(GARBAGE[name]())
    assert isinstance(found, Parent)
    with progress.operation("work", parent=found) as op:
        assert op.parent_id is None or len(op.parent_id) <= 200
    progress_capture.look()
    progress_capture.advance(1)
    assert progress_capture.ended("work").status.value == "completed"
    assert [log for log in progress_capture.logs if log.event_name == semconv.OPERATION_ENDED]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["traceparent", "tracestate", "baggage", "x"]), st.text(max_size=60)))
def test_any_headers_can_be_read(headers: dict[str, str]) -> None:
    """Whatever stands in headers, extract() gives a parent."""
    assert isinstance(extract(headers), Parent)
