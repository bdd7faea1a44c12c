"""Spans: the record that stays. One for the operation, a child for each stage, with status, exception and events."""

from __future__ import annotations

import asyncio
import itertools
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

import otel_progress as progress
from otel_progress import OperationCancelled, semconv
from otel_progress.live import hooks
from otel_progress.live.trail import MOST as TRAIL
from otel_progress.model import wire
from otel_progress.testing import START, Capture


def span(captured: Capture, name: str) -> ReadableSpan:
    """The only span of a name."""
    (found,) = (span for span in captured.spans if span.name == name)
    return found


def parent(captured: Capture, name: str) -> str | None:
    """The name of the span above the span of a name; `?` where it is none of ours."""
    above = span(captured, name).parent
    if above is None:
        return None
    ids = {span.context.span_id: span.name for span in captured.spans}
    return ids.get(above.span_id, "?")


def events(captured: Capture, name: str) -> list[str]:
    """The names of a span's events, without the prefix."""
    return [event.name.removeprefix("progress.") for event in span(captured, name).events]


# -- who is below whom


def test_one_span_for_the_operation_and_a_child_for_each_stage(progress_capture: Capture) -> None:
    """An operation is a span, each of its stages a span below it, a nested stage one below that."""
    with progress.operation("survey"):
        with progress.stage("discover"):
            progress_capture.clock.sleep(1)
        with progress.stage("parse"), progress.stage("read"):
            progress_capture.clock.sleep(2)
    assert sorted(span.name for span in progress_capture.spans) == ["discover", "parse", "read", "survey"]
    assert [parent(progress_capture, name) for name in ("survey", "discover", "parse", "read")] == [
        None,
        "survey",
        "survey",
        "parse",
    ]
    times = {span.name: (span.start_time - START, span.end_time - START) for span in progress_capture.spans}
    second = 1_000_000_000
    assert times["survey"] == (0, 3 * second)
    assert times["discover"] == (0, second)
    assert times["read"] == (second, 3 * second)


def test_imperative_handles_are_below_what_they_were_made_of(progress_capture: Capture) -> None:
    """A stage of a handle is below this handle, whatever runs where it is started."""
    op = progress.operation("survey").start()
    with progress.operation("other"):
        outer = op.stage("outer").start()
        inner = outer.stage("inner").start()
        inner.complete()
        outer.complete()
    op.complete()
    assert [parent(progress_capture, name) for name in ("other", "outer", "inner")] == [None, "survey", "outer"]


def test_use_makes_a_handle_current(progress_capture: Capture) -> None:
    """Inside `use()` stages and raw spans are below the handle's span, and what was current comes back."""
    op = progress.operation("survey").start()
    tracer = trace.NoOpTracerProvider().get_tracer("x")
    assert tracer is not None
    with op.use():
        assert trace.get_current_span() is op._span
        with progress.stage("parse"):
            pass
    assert trace.get_current_span() is trace.INVALID_SPAN
    op.complete()
    assert parent(progress_capture, "parse") == "survey"


def test_operations_nest(progress_capture: Capture) -> None:
    """An operation that starts in a stage is below the stage's span, and names the operation as its parent."""
    with progress.operation("outer") as outer, progress.stage("step"), progress.operation("inner"):
        pass
    assert parent(progress_capture, "inner") == "step"
    assert span(progress_capture, "inner").attributes[semconv.OPERATION_PARENT_ID] == outer.id


def test_a_span_of_somebody_else_in_between_is_kept(progress_capture: Capture) -> None:
    """A raw OpenTelemetry span around a stage is the stage's parent, and the trace stays one."""
    with progress.operation("survey") as op:
        tracer = hooks.tracing._tracer  # type: ignore[attr-defined]
        with tracer.start_as_current_span("raw"), progress.stage("parse"):
            pass
    assert parent(progress_capture, "parse") == "raw"
    assert parent(progress_capture, "raw") == "survey"
    assert op.status is progress.Status.COMPLETED


def test_other_threads_and_tasks_are_below_what_they_carry(progress_capture: Capture) -> None:
    """A stage in a carried thread, in a task or in `to_thread` is below the stage it was started in."""
    with progress.operation("survey"), progress.stage("outer"):

        def work(name: str) -> None:
            with progress.stage(name):
                pass

        with ThreadPoolExecutor(1) as pool:
            pool.submit(progress.carry(work), "carried").result()
        with progress.CarryingExecutor(1) as pool:
            pool.submit(work, "pool").result()

        async def both() -> None:
            async def task() -> None:
                async with progress.stage("task"):
                    await asyncio.sleep(0)

            await asyncio.gather(task(), asyncio.to_thread(work, "to_thread"))

        asyncio.run(both())
        op = progress.current(required=True)
        thread = threading.Thread(target=lambda: op.stage("handle").start().complete())
        thread.start()
        thread.join()
    for name in ("carried", "pool", "task", "to_thread"):
        assert parent(progress_capture, name) == "outer", name
    assert parent(progress_capture, "handle") == "survey"


def test_a_remote_parent_is_the_parent(progress_capture: Capture) -> None:
    """An operation with `parent=extract(headers)` continues the trace of the process that wrote the headers."""
    with progress.operation("outer", id="outer-1"):
        headers = progress.inject()
    with progress.operation("inner", parent=progress.extract(headers)) as inner:
        progress_capture.look()
    outer = span(progress_capture, "outer")
    found = span(progress_capture, "inner")
    assert found.context.trace_id == outer.context.trace_id
    assert found.parent is not None
    assert (found.parent.span_id, found.parent.is_remote) == (outer.context.span_id, True)
    assert inner.parent_id == "outer-1"
    log = next(log for log in progress_capture.logs if log.attributes[semconv.OPERATION_NAME] == "inner")
    assert log.attributes[semconv.SPAN_PARENT_ID] == f"{outer.context.span_id:016x}"
    assert log.attributes[semconv.SPAN_PARENT_REMOTE] is True


def test_a_parent_can_be_sent_to_another_process(progress_capture: Capture) -> None:
    """What `extract` returned is pickled as its headers; one that found nothing stays empty."""
    with progress.operation("outer", id="outer-1"):
        given = progress.extract(progress.inject())
        empty = pickle.loads(pickle.dumps(progress.extract({})))
        with progress.operation("apart", parent=empty) as apart:
            assert apart.parent_id is None
    found = pickle.loads(pickle.dumps(given))
    assert found[:1] + found[2:] == given[:1] + given[2:]
    with progress.operation("inner", parent=found) as inner:
        progress_capture.look()
    assert inner.parent_id == "outer-1"
    assert span(progress_capture, "inner").context.trace_id == span(progress_capture, "outer").context.trace_id


# -- how it ended


class OwnError(Exception):
    """An exception of the user."""


ENDINGS: list[tuple[Callable[[], BaseException], str, str | None]] = [
    (lambda: ValueError("no"), "failed", "ValueError"),
    (lambda: OwnError("no"), "failed", f"{__name__}.OwnError"),
    (asyncio.CancelledError, "cancelled", "asyncio.exceptions.CancelledError"),
    (lambda: OperationCancelled("enough"), "cancelled", "otel_progress.errors.OperationCancelled"),
    (GeneratorExit, "cancelled", "GeneratorExit"),
    (KeyboardInterrupt, "interrupted", "KeyboardInterrupt"),
    (lambda: SystemExit(3), "interrupted", "SystemExit"),
    (lambda: SystemExit(0), "completed", None),
]


@pytest.mark.parametrize(("make", "status", "recorded"), ENDINGS, ids=[str(i[2]) + i[1] for i in ENDINGS])
def test_every_way_to_end_has_its_status_and_exception(
    make: Callable[[], BaseException], status: str, recorded: str | None, progress_capture: Capture
) -> None:
    """Whatever leaves an operation and its stage, both spans end with the right status, and with the exception."""
    error = make()
    with pytest.raises(type(error)) as caught, progress.operation("survey"), progress.stage("parse"):
        raise error
    assert caught.value is error
    for name in ("survey", "parse"):
        found = span(progress_capture, name)
        exceptions = [event for event in found.events if event.name == semconv.EXCEPTION]
        if recorded is None:
            assert found.status.status_code is StatusCode.UNSET
            assert exceptions == []
            continue
        assert found.attributes[semconv.STATUS] == status
        assert found.status.status_code is StatusCode.ERROR
        assert found.status.description.startswith(type(error).__name__)
        (exception,) = exceptions
        assert exception.attributes[semconv.EXCEPTION_TYPE] == recorded
        assert exception.attributes[semconv.EXCEPTION_MESSAGE] == str(error)
        assert "raise error" in exception.attributes[semconv.EXCEPTION_STACKTRACE]
        assert exception is found.events[-1]


def test_a_good_end_leaves_the_status_unset(progress_capture: Capture) -> None:
    """A completed span has no error; OpenTelemetry leaves OK to the application."""
    with progress.operation("survey"), progress.stage("parse"):
        pass
    assert {span.status.status_code for span in progress_capture.spans} == {StatusCode.UNSET}
    assert span(progress_capture, "survey").attributes[semconv.STATUS] == "completed"


def test_failing_by_hand_gives_the_reason(progress_capture: Capture) -> None:
    """`fail("why")` and `cancel("why")` end the span with this reason and without an exception."""
    op = progress.operation("survey").start()
    op.stage("parse").start().cancel("not needed")
    op.fail("disk full")
    found = span(progress_capture, "survey").status
    assert (found.status_code, found.description) == (StatusCode.ERROR, "disk full")
    assert span(progress_capture, "parse").status.description == "not needed"
    assert semconv.EXCEPTION not in events(progress_capture, "survey")


class BrokenError(Exception):
    """An exception that can't be shown."""

    def __str__(self) -> str:
        raise RuntimeError("not even this")


@pytest.mark.parametrize(
    "error",
    [BrokenError(), ValueError("\udcff in a file name"), ValueError("x" * 10_000_000)],
    ids=["broken", "odd", "huge"],
)
def test_an_exception_that_can_not_be_shown_ends_the_span_all_the_same(
    error: Exception, progress_capture: Capture
) -> None:
    """A span ends, small and in valid Unicode, whatever the exception's text is."""
    with pytest.raises(type(error)), progress.operation("survey"), progress.stage("parse"):
        raise error
    for name in ("survey", "parse"):
        found = span(progress_capture, name)
        assert found.status.status_code is StatusCode.ERROR
        said = [str(value) for event in found.events for value in (event.attributes or {}).values()]
        assert sum(map(len, said)) < 40_000
        "".join([*said, found.status.description]).encode()


# -- attributes


def test_every_stage_span_names_its_operation(progress_capture: Capture) -> None:
    """Id and name of the operation stand on every stage span, so that it is found without its root."""
    with progress.operation("survey", id="run-7"), progress.stage("parse"), progress.stage("read", attributes={"a": 1}):
        progress.advance()
    for name in ("parse", "read"):
        attributes = span(progress_capture, name).attributes
        assert (attributes[semconv.OPERATION_ID], attributes[semconv.OPERATION_NAME]) == ("run-7", "survey")
    assert span(progress_capture, "read").attributes[semconv.STAGE_PATH] == "parse/read"


def test_the_span_says_how_far_it_came(progress_capture: Capture) -> None:
    """At the end a span has counts, unit, message, outcomes, usage and results."""
    with progress.operation("survey", total=3, unit="file", attributes={"root": "/usr"}) as op:
        op.advance(2)
        op.update(message="done")
        op.record("ok")
        op.usage(input_tokens=7, cost=0.5)
        op.result(verdict="good")
    found = dict(span(progress_capture, "survey").attributes)
    assert found == {
        semconv.OPERATION_ID: op.id,
        semconv.OPERATION_NAME: "survey",
        semconv.OPERATION_ATTEMPT: 1,
        semconv.STATUS: "completed",
        semconv.COMPLETED: 2,
        semconv.TOTAL: 3,
        semconv.UNIT: "file",
        semconv.MESSAGE: "done",
        "progress.outcomes.ok": 1,
        "gen_ai.usage.input_tokens": 7,
        "progress.usage.cost.USD": 0.5,
        "progress.result.verdict": "good",
        "root": "/usr",
    }


def test_agents_bear_the_genai_conventions(progress_capture: Capture) -> None:
    """An operation with an agent is an `invoke_agent` of this agent."""
    with progress.operation("survey", agent="surveyor"):
        pass
    found = span(progress_capture, "survey").attributes
    assert found["gen_ai.operation.name"] == "invoke_agent"
    assert found["gen_ai.agent.name"] == "surveyor"


def test_who_it_is_outlasts_too_many_attributes(progress_capture: Capture) -> None:
    """With more than 128 attributes a span drops the oldest; ids, name, status and attempt are there all the same."""
    many = {f"k{number}": number for number in range(64)}
    with progress.operation("survey", id="run-7", agent="surveyor", attributes=many) as op:
        for number in range(64):
            op.record(f"outcome{number}")
            op.result(**{f"r{number}": number})
        trace.get_current_span().set_attributes({f"theirs{number}": number for number in range(100)})
        with progress.stage("parse", attributes=many) as stage:
            trace.get_current_span().set_attributes({f"theirs{number}": number for number in range(200)})
            stage.advance()
    found = span(progress_capture, "survey").attributes
    assert len(found) == 128
    assert found[semconv.OPERATION_ID] == "run-7"
    assert found[semconv.OPERATION_NAME] == "survey"
    assert found[semconv.OPERATION_ATTEMPT] == 1
    assert found[semconv.STATUS] == "completed"
    assert found["gen_ai.agent.name"] == "surveyor"
    assert span(progress_capture, "parse").attributes[semconv.OPERATION_ID] == "run-7"
    assert progress_capture.drops[semconv.DROP_ATTRIBUTE] > 0


def test_attributes_of_users_do_not_hide_who_it_is(progress_capture: Capture) -> None:
    """An attribute of the user named like one of ours does not replace it."""
    forged = {semconv.OPERATION_ID: "other", semconv.STATUS: "lost"}
    with progress.operation("survey", id="run-7", attributes=forged), progress.stage("parse", attributes=forged):
        pass
    for name in ("survey", "parse"):
        assert span(progress_capture, name).attributes[semconv.OPERATION_ID] == "run-7"
        assert span(progress_capture, name).attributes[semconv.STATUS] == "completed"


# -- events


def test_span_events_have_the_names_of_log_events(progress_capture: Capture) -> None:
    """What happened is on the operation's span under the names of the log events; what a stage said, on the stage's."""
    with progress.operation("survey", stall_after=5):
        with progress.stage("parse"):
            progress_capture.clock.sleep(1)
            progress.note("hello", files=3)
            progress_capture.clock.sleep(1)
            with progress.waiting("a person"):
                progress_capture.clock.sleep(1)
        progress_capture.advance(6)
        progress.heartbeat(step=1)
        for _ in range(4):
            progress.advance()
            progress_capture.advance(1)
    assert events(progress_capture, "survey") == [
        "operation.started",
        "stage.started",
        "stage.ended",
        "stalled",
        "heartbeat",
        "updated",
        "recovered",
        "operation.ended",
    ]
    assert events(progress_capture, "parse") == ["note", "wait.started", "wait.ended"]
    kept = span(progress_capture, "parse").events
    assert [(event.timestamp - START) / 1e9 for event in kept] == [1.0, 2.0, 3.0]
    assert kept[0].attributes == {semconv.NOTE_TEXT: "hello", "files": 3}
    stalled = span(progress_capture, "survey").events[3]
    assert stalled.attributes[semconv.HEALTH_REASON].startswith("no progress for")
    ended = span(progress_capture, "survey").events[2]
    assert ended.attributes == {
        semconv.STAGE_NAME: "parse",
        semconv.STAGE_PATH: "parse",
        semconv.STATUS: "completed",
    }


def test_progress_is_on_the_span_thinned(progress_capture: Capture) -> None:
    """A span tells how far it was: at most once in 5% where the whole is known, else at intervals that grow."""
    with progress.operation("survey", total=1000, unit="file") as op:
        with progress.stage("parse") as stage:
            for number in range(1000):
                op.advance()
                stage.advance(10)
                if number == 500:
                    stage.update(message="half")
                progress_capture.advance(1)
    told = [one for one in span(progress_capture, "survey").events if one.name == semconv.UPDATED]
    assert 18 <= len(told) <= 21
    first, last = told[0].attributes, told[-1].attributes
    assert (first[semconv.TOTAL], first[semconv.UNIT]) == (1000, "file")
    assert first[semconv.COMPLETED] <= 2
    assert last[semconv.COMPLETED] >= 950
    ratios = [one.attributes[semconv.RATIO] for one in told]
    assert all(b - a > 0.0499 for a, b in itertools.pairwise(ratios))
    growing = [one for one in span(progress_capture, "parse").events if one.name == semconv.UPDATED]
    assert 8 <= len(growing) <= 20
    gaps = [b.timestamp - a.timestamp for a, b in itertools.pairwise(growing)]
    assert gaps == sorted(gaps)
    assert growing[-1].attributes[semconv.MESSAGE] == "half"
    assert semconv.RATIO not in growing[-1].attributes
    assert len(span(progress_capture, "survey").events) < TRAIL


def test_a_job_of_a_month_keeps_its_span_small(progress_capture: Capture) -> None:
    """However long it runs, updates leave room for what else happens."""
    with progress.operation("train") as op:
        for day in range(30):
            for _ in range(20):
                op.advance()
                progress_capture.clock.sleep(4320)
                progress_capture.look()
            progress.note(f"day {day}", "ok")
    names = events(progress_capture, "train")
    assert names.count("note") == 30
    assert 3 < names.count("updated") <= 40
    assert len(names) < TRAIL


def test_progress_of_stages_side_by_side_is_on_their_own_spans(progress_capture: Capture) -> None:
    """Stages of the same name that run at once tell their own progress each, not that of the newest."""
    with progress.operation("survey") as op:
        stages = [
            op.stage("fetch", total=10, attributes={"n": n}).start()
            for n in range(3)
            if not progress_capture.clock.sleep(1)
        ]
        for n, stage in enumerate(stages):
            stage.advance(n + 1)
        progress_capture.advance(2)
        for stage in stages:
            stage.complete()
    found = {one.attributes["n"]: one.events for one in progress_capture.spans if one.name == "fetch"}
    assert {n: [e.attributes[semconv.COMPLETED] for e in kept] for n, kept in found.items()} == {0: [1], 1: [2], 2: [3]}


def test_a_stage_that_started_does_not_say_how_it_ended(progress_capture: Capture) -> None:
    """Each event has the state of its own time: at the start it runs, at the end it is completed, with its count."""
    with progress.operation("survey"), progress.stage("parse", total=3) as stage:
        stage.advance(3)
    started, ended = span(progress_capture, "survey").events[1:3]
    about = {semconv.STAGE_NAME: "parse", semconv.STAGE_PATH: "parse"}
    assert started.attributes == {**about, semconv.STATUS: "running"}
    assert ended.attributes[semconv.STATUS] == "completed"
    assert (ended.attributes[semconv.COMPLETED], ended.attributes[semconv.TOTAL]) == (3, 3)


def test_events_at_the_same_time_stand_between_start_and_end(progress_capture: Capture) -> None:
    """The start of the operation comes first and its end last, even where the clock did not move or went back."""
    with progress.operation("survey"):
        with progress.stage("a"):
            progress_capture.clock.jump(-3600)
        with progress.stage("b"):
            pass
    found = events(progress_capture, "survey")
    assert (found[0], found[-1]) == ("operation.started", "operation.ended")
    assert sorted(found[1:-1]) == ["stage.ended"] * 2 + ["stage.started"] * 2


@pytest.mark.parametrize("count", [31, 32, 500])
def test_stages_are_thinned_to_the_first_and_the_last(count: int, progress_capture: Capture) -> None:
    """At most 64 events: start, end, the first and the last stages stay, in the order of time; the rest is counted."""
    with progress.operation("survey"):
        for number in range(count):
            with progress.stage(f"s{number}"):
                progress_capture.clock.sleep(0.01)
            progress_capture.look()
    kept = span(progress_capture, "survey").events
    stamps = [event.timestamp for event in kept]
    assert stamps == sorted(stamps)
    assert len(kept) == min(TRAIL, 2 + 2 * count)
    assert kept[0].name == semconv.OPERATION_STARTED
    assert kept[1].attributes[semconv.STAGE_NAME] == "s0"
    assert kept[-2].attributes[semconv.STAGE_NAME] == f"s{count - 1}"
    assert kept[-1].name == semconv.OPERATION_ENDED
    assert progress_capture.drops.get(semconv.DROP_SPAN_EVENTS, 0) == 2 + 2 * count - len(kept)


def test_notes_make_room_for_changes_of_state(progress_capture: Capture) -> None:
    """Of 1,000 notes among 10 stages, 2 waits and a stall, only notes are left out."""
    with progress.operation("survey", stall_after=5):
        for number in range(10):
            with progress.stage(f"s{number}"):
                progress_capture.clock.sleep(0.1)
            for _ in range(50):
                progress.current(required=True).note("x")
        progress_capture.advance(6)
        for _ in range(2):
            with progress.waiting("a person"):
                progress_capture.clock.sleep(0.1)
                progress_capture.look()
        for _ in range(500):
            progress.note("y")
    found = events(progress_capture, "survey")
    assert len(found) <= TRAIL
    assert found.count("stage.started") == found.count("stage.ended") == 10
    assert found.count("wait.started") == found.count("wait.ended") == 2
    assert found.count("stalled") == found.count("recovered") == 1
    assert found.count("note") >= 8
    assert progress_capture.drops[semconv.DROP_SPAN_EVENTS] == 1000 - found.count("note")


def test_waits_and_stalls_outlast_stages(progress_capture: Capture) -> None:
    """Of hundreds of stages the middle is left out, a stall between them is not."""
    with progress.operation("survey", stall_after=5):
        for number in range(300):
            with progress.stage(f"s{number}"):
                progress_capture.clock.sleep(0.01)
            if number == 270:
                progress_capture.advance(6)
    found = events(progress_capture, "survey")
    assert len(found) == TRAIL
    assert "stalled" in found


def test_the_exception_is_one_of_the_64(progress_capture: Capture) -> None:
    """A failed operation with many stages has 64 events with the exception, which is the last."""

    @progress.operation
    def survey() -> None:
        for number in range(100):
            with progress.stage(f"s{number}"):
                pass
        raise ValueError("no")

    with pytest.raises(ValueError):
        survey()
    assert len(events(progress_capture, "survey")) == TRAIL
    assert events(progress_capture, "survey")[-2:] == ["operation.ended", "exception"]


def test_the_trail_of_a_stage_is_bounded(progress_capture: Capture) -> None:
    """A stage with 500 waits keeps the first and the last of them."""
    with progress.operation("survey"), progress.stage("parse"):
        for number in range(500):
            with progress.waiting(f"w{number}"):
                progress_capture.clock.sleep(0.01)
    kept = span(progress_capture, "parse").events
    reasons = [event.attributes[semconv.WAIT_REASON] for event in kept]
    assert len(kept) <= TRAIL
    assert (reasons[0], reasons[-1]) == ("w0", "w499")
    assert progress_capture.drops[semconv.DROP_SPAN_EVENTS] == 1000 - len(kept)


# -- when, and how often


def test_a_stage_is_exported_while_the_operation_runs(progress_capture: Capture) -> None:
    """A finished stage can be seen before the operation ends."""
    with progress.operation("survey"):
        with progress.stage("parse"):
            pass
        assert [span.name for span in progress_capture.spans] == ["parse"]


def test_no_span_is_exported_twice(progress_capture: Capture) -> None:
    """Each span is exported once, however many threads end it."""
    op = progress.operation("survey").start()
    stages = [op.stage(f"s{number}").start() for number in range(50)]

    def end() -> None:
        for stage in stages:
            stage.complete()
        op.complete()
        op.fail("late")

    threads = [threading.Thread(target=end) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = [span.context.span_id for span in progress_capture.spans]
    assert len(ids) == len(set(ids)) == 51


def test_an_unsampled_operation_records_nothing_and_is_seen_all_the_same(progress_capture: Capture) -> None:
    """If the sampler declines, no span is recorded, but events are sent with the ids and sampled=false."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    hooks.tracing.use(provider)
    op = progress.operation("survey").start()
    with op.use(), progress.stage("parse"):
        progress.note("hello")
        progress_capture.advance(1)
    op.fail(ValueError("no"))
    progress_capture.look()
    assert exporter.get_finished_spans() == ()
    logs = [log for log in progress_capture.logs if log.attributes.get(semconv.OPERATION_ID) == op.id]
    assert len(logs) == 5
    for log in logs:
        assert int(log.trace_id, 16)
        assert int(log.span_id, 16)
        assert not log.sampled
        snapshot = wire.from_attributes(log.attributes, 0.0, log.trace_id, log.span_id, log.sampled)
        assert snapshot.span is not None
        assert not snapshot.span.sampled
    assert progress_capture.ended("survey").status is progress.Status.FAILED


def test_without_a_provider_there_are_no_spans_and_no_ids(progress_capture: Capture) -> None:
    """An operation without any tracer provider runs and is seen; its events have no trace."""
    vars(hooks.tracing)["_tracer"] = trace.NoOpTracerProvider().get_tracer("x")
    with progress.operation("survey"), progress.stage("parse"):
        pass
    progress_capture.look()
    assert progress_capture.spans == ()
    assert {log.trace_id for log in progress_capture.logs} == {""}


def test_what_a_watcher_needs_to_close_the_trace_is_in_every_event(progress_capture: Capture) -> None:
    """Start time, kind and parent of the root span, and the span id of each running stage, are on the wire."""
    with progress.operation("outer"), progress.operation("survey") as op, progress.stage("parse") as stage:
        progress_capture.advance(1)
        log = [log for log in progress_capture.logs if log.attributes.get(semconv.OPERATION_ID) == op.id][-1]
        snapshot: Any = wire.from_attributes(log.attributes, 0.0, log.trace_id, log.span_id, log.sampled)
        open_ids = [stage._span.context.span_id, op._span.context.span_id]
    assert [int(snapshot.stages[0].span_id, 16), int(snapshot.span.span_id, 16)] == open_ids
    found = span(progress_capture, "survey")
    assert snapshot.span.start_time == found.start_time
    assert int(snapshot.span.parent_id, 16) == found.parent.span_id
    assert snapshot.span.kind == found.kind.name.lower()
    assert not snapshot.span.parent_remote
