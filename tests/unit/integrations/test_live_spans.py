"""Open spans of any instrumentation are operations and stages while they run, and nothing of them is sent twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


def agent(hold: Callable[[], None], app: Program) -> None:
    with app.span("invoke_agent writer", attributes=AGENT):
        with app.span("execute_tool search", attributes=TOOL):
            hold()


def test_an_agent_with_a_tool_that_hangs_is_stuck_at_its_line(app: Program) -> None:
    """The local root is the operation, its open child a stage; the stall names the stage and the line that hangs."""
    with beside(agent, app):
        app.advance(1)
        assert app.running() == ["invoke_agent writer", "execute_tool search"]
        app.advance(118)
        assert app.stalls() == []
        app.advance(2)
        [(branches, line)] = app.stalls()
        assert branches == ("execute_tool search",)
        assert line.endswith("in __call__")
        [snapshot] = app.snapshots()
        assert snapshot.health is Health.SILENT
        assert snapshot.agent == "writer"
    app.advance(1)
    assert app.captured.ended("invoke_agent writer").status is Status.COMPLETED


def test_events_bear_the_ids_of_the_program_s_spans(app: Program) -> None:
    """Trace id and span id are those that the program exports, and no span of ours is made."""
    with beside(agent, app):
        app.advance(2)
    app.advance(1)
    tool, root = app.exported.get_finished_spans()
    started = next(log for log in app.captured.logs if log.event_name == semconv.OPERATION_STARTED)
    assert started.trace_id == f"{root.context.trace_id:032x}"
    assert started.span_id == f"{root.context.span_id:016x}"
    assert started.attributes[semconv.SPAN_START_TIME] == root.start_time
    assert f"{tool.context.span_id:016x}" in started.attributes[semconv.STAGES]
    assert app.captured.spans == ()
    assert [span.events for span in (tool, root)] == [(), ()]


def test_it_began_when_its_span_did(app: Program) -> None:
    """What is shown late has the time of its span's start, on both clocks."""
    with beside(lambda hold: hold_in(hold, app, "batch")):
        app.advance(0.9)
        assert app.running() == []
        app.advance(4.1)
        [snapshot] = app.snapshots()
        assert snapshot.elapsed == pytest.approx(5)
        assert snapshot.started_at == pytest.approx(app.captured.clock.time_ns() / 1e9 - 5)


def hold_in(hold: Callable[[], None], app: Program, name: str, **attributes: Any) -> None:
    with app.span(name, attributes=attributes):
        hold()


def test_short_spans_are_never_shown(app: Program) -> None:
    """A span that ends within a second makes no operation, whatever its kind, unless a look finds it open."""
    for _ in range(100):
        with app.span("GET /", attributes=MODEL):
            pass
    app.advance(5)
    assert app.captured.events == []


def test_current_finds_the_operation_of_a_live_span(app: Program) -> None:
    """Inside a span the module functions act on its stage, and it is shown at once."""
    with app.span("job"):
        with app.span("part"):
            found = otel_progress.current()
            assert found is not None
            assert found.name == "job"
            otel_progress.note("here")
            assert app.running() == ["job", "part"]
    assert otel_progress.current() is None


def test_installed_twice_it_sees_once(app: Program) -> None:
    """A second install changes nothing, also for providers that exist."""
    live_spans.install()
    with app.span("job"):
        app.advance(2)
        assert app.running() == ["job"]
    app.advance(1)
    assert app.captured.names() == [semconv.OPERATION_STARTED, semconv.OPERATION_ENDED]


def test_after_uninstall_nothing_is_seen() -> None:
    """Uninstalling restores the class of the providers, and providers that exist stay silent."""
    from opentelemetry.sdk.trace import TracerProvider

    before = TracerProvider.__init__
    with program() as app:
        assert TracerProvider.__init__ is not before
        live_spans.uninstall()
        assert TracerProvider.__init__ is before
        with app.span("job"):
            app.advance(2)
            assert app.running() == []


def test_set_limit_counts_for_work_that_names_none() -> None:
    """`stall_after` of the settings applies to operations and stages that name no limit, and to no other."""
    with program(stall_after=3.0) as app:
        with beside(agent, app), otel_progress.operation("own", stall_after=60):
            app.advance(5)
            assert app.stalls()[0][0] == ("execute_tool search",)
            assert len(app.stalls()) == 1


def test_a_name_of_the_conventions_tells_the_kind(app: Program) -> None:
    """A span that says nothing else is a tool by its name: Google's ADK tells the rest when the span ends."""
    with app.span("execute_tool search"):
        app.advance(119)
        assert app.snapshots()[0].health is Health.PROGRESSING
        app.advance(2)
        assert app.snapshots()[0].health is Health.SILENT


@pytest.mark.parametrize(
    ("span", "name"),
    [
        ("Crew_5922dcfe-10e6-41f0-9d40-bc00d81b4508.kickoff", "Crew.kickoff"),
        ("GET /jobs/5922DCFE-10e6-41f0-9d40-bc00d81b4508", "GET /jobs"),
        ("5922dcfe-10e6-41f0-9d40-bc00d81b4508", "5922dcfe-10e6-41f0-9d40-bc00d81b4508"),
        ("a-b-c-d-e", "a-b-c-d-e"),
    ],
)
def test_a_name_with_an_id_of_its_own(app: Program, span: str, name: str) -> None:
    """Names of operations are labels, and few: what runs once is left out, unless nothing else is there."""

    def work(hold: Callable[[], None], app: Program) -> None:
        with app.span(span):
            hold()

    with beside(work, app):
        app.advance(2)
        assert app.running() == [name]
