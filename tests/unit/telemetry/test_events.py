"""Log events: the live wire. Each carries the whole operation, bounded; all of them stay within a budget."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import otel_progress as progress
from otel_progress import Operation, Stage, semconv
from otel_progress.live.engine import runtime
from otel_progress.live.registry import CHANGES, registry
from otel_progress.model import wire
from otel_progress.model.estimate import Estimate
from otel_progress.model.resources import Resources
from otel_progress.model.sentences import SENTENCES, sentence
from otel_progress.model.snapshot import Event, Snapshot, StageSnapshot
from otel_progress.model.stage_runs import StageRuns
from otel_progress.model.status import Health, Status
from otel_progress.model.values import Attributes
from otel_progress.outbound import otlp
from otel_progress.telemetry.events import BYTES, _bare, _light, severity
from otel_progress.telemetry.memory import Log
from otel_progress.testing import START, Capture, capture


def read(log: Log) -> Snapshot:
    """The snapshot that a reader makes of a log event."""
    return wire.from_attributes(log.attributes, log.time / 1e9, log.trace_id, log.span_id, log.sampled)


def of(captured: Capture, operation: Operation) -> list[Log]:
    """The log events of one operation."""
    return [log for log in captured.logs if log.attributes.get(semconv.OPERATION_ID) == operation.id]


def names(logs: list[Log]) -> list[str]:
    """The names of log events, without the prefix."""
    return [log.event_name.removeprefix("progress.") for log in logs]


def seconds(log: Log) -> float:
    """The timestamp of a log event, in seconds since the clock started."""
    return (log.time - START) / 1e9


# -- what every event carries


def test_every_event_carries_the_snapshot_and_a_rising_sequence_number(progress_capture: Capture) -> None:
    """Each log event of an operation reads back as the whole operation, and its number is higher than the last."""
    with progress.operation("survey", description="look at it") as op:
        with progress.stage("parse", total=3) as stage:
            progress_capture.advance(1)
            stage.advance()
            progress_capture.advance(1)
            progress.note("half way")
            with progress.waiting("a person"):
                progress_capture.advance(1)
        progress.heartbeat()
        progress_capture.advance(1)
    progress_capture.advance(1)
    logs = of(progress_capture, op)
    assert len(logs) > 8
    numbers = [log.attributes[semconv.SEQUENCE] for log in logs]
    assert numbers == sorted(set(numbers))
    for log in logs:
        snapshot = read(log)
        assert (snapshot.operation_id, snapshot.name, snapshot.description) == (op.id, "survey", "look at it")
        assert [stage.path for stage in snapshot.stages] == ["parse"]


def test_events_have_the_time_at_which_it_happened(progress_capture: Capture) -> None:
    """The timestamp of an event is when it happened, not when it was sent."""
    op = progress.operation("survey").start()
    progress_capture.clock.sleep(0.1)
    op.stage("parse").start()
    progress_capture.clock.sleep(0.1)
    op.note("hello")
    progress_capture.advance(0.05)
    found = {log.event_name: seconds(log) for log in of(progress_capture, op)}
    assert found == {
        semconv.OPERATION_STARTED: 0.0,
        semconv.STAGE_STARTED: pytest.approx(0.1),
        semconv.NOTE: pytest.approx(0.2),
    }


def test_events_carry_the_ids_of_the_root_span(progress_capture: Capture) -> None:
    """Trace id and span id of every event are those of the operation's span, also for what happens in a stage."""
    with progress.operation("survey") as op:
        with progress.stage("parse"):
            progress.note("hello")
        progress_capture.advance(1)
    progress_capture.advance(1)
    root = next(span for span in progress_capture.spans if span.name == "survey").context
    for log in of(progress_capture, op):
        assert (log.trace_id, log.span_id) == (f"{root.trace_id:032x}", f"{root.span_id:016x}")
        assert log.sampled


def test_stage_events_name_their_stage(progress_capture: Capture) -> None:
    """An event of a stage carries its name and its path; an event of the operation carries neither."""
    with progress.operation("survey") as op, progress.stage("parse"), progress.stage("read"):
        pass
    progress_capture.look()
    about = [log.attributes for log in of(progress_capture, op)]
    found = [(attributes.get(semconv.STAGE_PATH), attributes.get(semconv.STAGE_NAME)) for attributes in about]
    assert found == [
        (None, None),
        ("parse", "parse"),
        ("parse/read", "read"),
        ("parse/read", "read"),
        ("parse", "parse"),
        (None, None),
    ]


# -- the snapshot is bounded


def test_at_most_64_stages_are_told_and_the_older_ones_are_counts_and_seconds(progress_capture: Capture) -> None:
    """Of 100 ended stages the failed and the newest are listed, the other 36 are a count and seconds."""
    with progress.operation("survey") as op:
        for number in range(100):
            stage = op.stage(f"s{number}").start()
            progress_capture.clock.sleep(0.5)
            if number % 4:
                stage.complete()
            else:
                stage.fail("no")
        progress_capture.look()
        snapshot = read(of(progress_capture, op)[-1])
    failed, newest = range(0, 100, 4), [number for number in range(100) if number % 4][-39:]
    assert [stage.name for stage in snapshot.stages] == [f"s{number}" for number in sorted([*failed, *newest])]
    assert snapshot.folded == (("completed", 36, 18.0),)


def test_running_stages_are_told_before_newer_ended_ones(progress_capture: Capture) -> None:
    """A stage that runs stays in every snapshot, however many end after it."""
    with progress.operation("survey") as op:
        op.stage("old").start()
        for number in range(200):
            op.stage(f"s{number}").start().complete()
        progress_capture.look()
        snapshot = read(of(progress_capture, op)[-1])
    assert len(snapshot.stages) == 64
    assert snapshot.stages[0].name == "old"
    assert snapshot.folded == (("completed", 137, 0.0),)


def test_many_running_stages_are_bounded_too(progress_capture: Capture) -> None:
    """Of 200 concurrent stages the newest 64 are listed, the others are a count and seconds."""
    with progress.operation("survey") as op:
        for number in range(200):
            op.stage(f"s{number}").start()
        progress_capture.advance(2)
        snapshot = read(of(progress_capture, op)[-1])
    assert [stage.name for stage in snapshot.stages] == [f"s{number}" for number in range(136, 200)]
    assert [(status, count) for status, count, _ in snapshot.folded] == [("running", 136)]


def test_a_huge_operation_makes_events_of_bounded_size(progress_capture: Capture) -> None:
    """No event is larger than two bounds, whatever attributes stages have; who it is and how it stands stay."""
    huge = {f"k{number}": "ü" * 5000 for number in range(100)}
    with progress.operation("survey", attributes=huge) as op:
        for number in range(64):
            op.stage(f"s{number}", attributes=huge, description="d" * 5000).start()
        op.note("n" * 9999, **{key: [value] * 100 for key, value in huge.items()})
        progress_capture.advance(1)
    progress_capture.look()
    assert max(map(len, progress_capture.logs_receiver.requests)) < 1024 * 1024
    logs = of(progress_capture, op)
    assert sum(len(str(value)) for log in logs[-1:] for value in log.attributes.values()) < 2 * BYTES
    assert read(logs[-1]).status is Status.COMPLETED
    assert semconv.NOTE in [log.event_name for log in logs]
    assert progress_capture.drops[semconv.DROP_ATTRIBUTE] > 0


# -- freshness


def test_a_change_of_state_goes_in_the_next_round(progress_capture: Capture) -> None:
    """Starts, ends, waits and stages leave within a quarter of the interval, each as an event of its own."""
    op = progress.operation("survey").start()
    stage = op.stage("parse").start()
    with stage.waiting("a person"):
        pass
    stage.complete()
    op.complete()
    progress_capture.clock.sleep(0.25)
    runtime.ticker.round()
    assert names(of(progress_capture, op)) == [
        "operation.started",
        "stage.started",
        "wait.started",
        "wait.ended",
        "stage.ended",
        "operation.ended",
    ]


SAYINGS: dict[str, Any] = {
    "advance": (lambda op: op.advance(2), lambda s: s.progress.completed == 2),
    "completed": (lambda op: op.update(completed=3), lambda s: s.progress.completed == 3),
    "total": (lambda op: op.update(total=9), lambda s: s.progress.total == 9),
    "ratio": (lambda op: op.update(ratio=0.5), lambda s: s.progress.ratio == 0.5),
    "message": (lambda op: op.update(message="now"), lambda s: s.message == "now"),
    "set": (lambda op: op.set(a=1), lambda s: s.attributes == {"a": 1}),
    "record": (lambda op: op.record("ok"), lambda s: s.outcomes == {"ok": 1}),
    "usage": (lambda op: op.usage(input_tokens=5), lambda s: s.usage == {"input_tokens": 5}),
    "result": (lambda op: op.result(best=1), lambda s: s.result == {"best": 1}),
    "cancel": (lambda op: op.request_cancel(), lambda s: s.cancel_requested),
    "heartbeat": (lambda op: op.heartbeat(), lambda s: s.heartbeat_at is not None),
    "note": (lambda op: op.note("x"), lambda s: s.sequence == 2),
    "track": (lambda op: next(op.track([1, 2])), lambda s: s.progress.total == 2),
}


@pytest.mark.parametrize("saying", SAYINGS)
@pytest.mark.parametrize("offset", [0.0, 0.01, 0.24, 0.3, 0.5, 0.74])
def test_what_is_said_is_out_within_a_second(saying: str, offset: float) -> None:
    """A reader knows every change of an operation a second later."""
    say, known = SAYINGS[saying]
    with capture() as captured:
        op = progress.operation("survey").start()
        runtime.ticker.round()
        captured.clock.sleep(offset)
        say(op)
        for _ in range(4):
            captured.clock.sleep(0.25 - offset % 0.25 if _ == 0 and offset % 0.25 else 0.25)
            runtime.ticker.round()
        assert known(read(of(captured, op)[-1]))


def test_what_does_not_change_is_not_said_again(progress_capture: Capture) -> None:
    """A quiet operation costs no events: only the process's heartbeat goes on."""
    op = progress.operation("survey").start()
    op.update(message="thinking", total=3)
    progress_capture.advance(1)
    before = len(of(progress_capture, op))
    progress_capture.advance(60)
    assert len(of(progress_capture, op)) == before


def test_the_shorter_limit_of_a_new_stage_counts_at_once(progress_capture: Capture) -> None:
    """A stage with a short stall_after in an operation with a long one is stuck when its own limit is reached."""
    with progress.operation("survey", stall_after=3600) as op:
        progress_capture.advance(5)
        with progress.stage("parse", stall_after=10):
            progress_capture.advance(11)
            assert names(of(progress_capture, op))[-1] == "stalled"


# -- the budget


def moving(captured: Capture, count: int, rounds: int) -> Counter[int]:
    """Count the rationed events that leave in each quarter of a second while operations move for some rounds."""
    operations = [progress.operation("survey").start() for _ in range(count)]
    captured.look()
    runs: Counter[int] = Counter()
    for number in range(rounds):
        for op in operations:
            op.advance()
        captured.clock.sleep(0.25)
        before = len(captured.events)
        runtime.ticker.round()
        runs[number] = sum(event.name in semconv.RATIONED for event in captured.events[before:])
    return runs


def test_ten_thousand_operations_cost_no_more_than_two_hundred() -> None:
    """However many operations move, no second holds more updates than the budget, and the budget is used."""
    with capture() as captured:
        few = moving(captured, 200, 20)
    with capture() as captured:
        many = moving(captured, 10_000, 20)
    for runs in (few, many):
        assert max(sum(runs[at + step] for step in range(4)) for at in range(17)) <= 200
    assert sum(many.values()) >= 200 * 4
    assert sum(many.values()) <= sum(few.values()) * 1.35


def test_the_budget_is_shared_fairly() -> None:
    """Where the budget is short, no operation gets a second event before each other that moved had one."""
    with capture(event_budget=10) as captured:
        operations = [progress.operation("survey").start() for _ in range(35)]
        noisy = operations[0]
        captured.look()
        for _ in range(32):
            noisy.note("me, me, me")
        for _ in range(16):
            for op in operations:
                op.advance()
            captured.advance(0.25)
        rationed = [log for log in captured.logs if log.event_name in semconv.RATIONED]
        owners = Counter(log.attributes[semconv.OPERATION_ID] for log in rationed)
        assert len(rationed) == 40
        assert max(owners.values()) - min(owners.values()) <= 1
        assert len(owners) == 35


def test_what_the_budget_skips_is_counted() -> None:
    """A round in which an operation moved again before its update could go counts as one skipped."""
    with capture(event_budget=1) as captured:
        first, second = progress.operation("a").start(), progress.operation("b").start()
        captured.look()
        first.advance()
        second.advance()
        captured.look()
        assert semconv.DROP_BUDGET not in captured.drops
        second.advance()
        captured.look()
        assert captured.drops[semconv.DROP_BUDGET] == 1
        second.advance()
        captured.look()
        assert captured.drops[semconv.DROP_BUDGET] == 2


def test_notes_that_find_no_room_are_counted() -> None:
    """Of 300 notes in a second with a budget of 1, one goes, 199 wait, and 100 are counted as skipped."""
    with capture(event_budget=1) as captured:
        op = progress.operation("survey").start()
        for number in range(300):
            op.note(f"n{number}")
        captured.look()
        assert captured.drops[semconv.DROP_BUDGET] == 100
        assert names(of(captured, op)).count("note") == 1
        op.complete()
        captured.advance(2)
        assert captured.drops[semconv.DROP_BUDGET] == 100 + 199
        assert names(of(captured, op))[-1] == "operation.ended"


def test_changes_of_state_need_no_budget() -> None:
    """With a budget of one event, a thousand operations still start, wait and end in the next round."""
    with capture(event_budget=1) as captured:
        for _ in range(1000):
            with progress.operation("survey") as op, op.waiting("x"):
                op.note("n")
        captured.look()
        found = Counter(names(captured.logs))
    for name in ("operation.started", "wait.started", "wait.ended", "operation.ended"):
        assert found[name] == 1000
    assert found["note"] == 1


# -- stage events are folded


def test_stage_events_above_fifty_a_second_are_folded_and_counted(progress_capture: Capture) -> None:
    """Of 1,000 short stages in a second about 50 events go, the rest is counted, and the next event has the truth."""
    with progress.operation("survey") as op:
        for number in range(1000):
            with progress.stage(f"s{number}"):
                progress_capture.clock.sleep(0.001)
            if number % 250 == 249:
                runtime.ticker.round()
        progress_capture.advance(1)
        logs = of(progress_capture, op)
        events = [name for name in names(logs) if name.startswith("stage.")]
        assert 50 <= len(events) <= 100
        assert progress_capture.drops[semconv.DROP_FOLDED] == 2000 - len(events)
        snapshot = read(logs[-1])
        assert sum(count for _, count, _ in snapshot.folded) + len(snapshot.stages) == 1000
        assert snapshot.stages[-1].name == "s999"


def test_a_folded_stage_is_told_by_the_next_update(progress_capture: Capture) -> None:
    """A round in which all stage events are folded makes an update, so that a reader knows the stage all the same."""
    op = progress.operation("survey").start()
    for _ in range(50):
        op.stage("s").start().complete()
    runtime.ticker.round()
    op.stage("late").start()
    progress_capture.clock.sleep(0.001)
    runtime.ticker.round()
    last = of(progress_capture, op)[-1]
    assert last.event_name == semconv.UPDATED
    assert read(last).stage == "late"


def test_folding_one_operation_leaves_the_others_alone(progress_capture: Capture) -> None:
    """The limit on stage events holds for each operation by itself."""
    busy, calm = progress.operation("busy").start(), progress.operation("calm").start()
    for _ in range(200):
        busy.stage("s").start().complete()
    calm.stage("s").start().complete()
    progress_capture.look()
    assert names(of(progress_capture, calm)) == ["operation.started", "stage.started", "stage.ended"]


# -- the end


def test_nothing_comes_after_the_end(progress_capture: Capture) -> None:
    """Nothing that happens to an operation after its end makes an event."""
    op = progress.operation("survey").start()
    stage = op.stage("parse").start()
    wait = op.waiting("a person")
    wait.__enter__()
    op.complete()
    op.note("late")
    stage.note("late")
    stage.complete()
    op.heartbeat()
    op.advance()
    op.update(message="late")
    wait.__exit__(None, None, None)
    progress_capture.look()
    op.note("later")
    op.set(a=1)
    progress_capture.advance(5)
    assert names(of(progress_capture, op))[-1] == "operation.ended"
    assert names(of(progress_capture, op)).count("operation.ended") == 1


def test_what_was_said_before_the_end_comes_before_it(progress_capture: Capture) -> None:
    """Notes that were said just before the end go before its event, in their order."""
    with progress.operation("survey") as op:
        for number in range(5):
            op.note(str(number))
    progress_capture.look()
    logs = of(progress_capture, op)
    assert names(logs) == ["operation.started", *["note"] * 5, "operation.ended"]
    assert [log.attributes[semconv.NOTE_TEXT] for log in logs[1:6]] == list("01234")


def test_an_end_finds_room_where_nothing_else_does(progress_capture: Capture) -> None:
    """When the queue of changes is full, what does not fit is counted, but the end of an operation still goes."""
    op = progress.operation("survey").start()
    noisy = progress.operation("noisy").start()
    registry.changes.extend([(semconv.NOTE, noisy, noisy, START, Attributes())] * (CHANGES - 2))
    op.note("no room")
    with op.waiting("no room"):
        op.complete()
    assert progress_capture.drops[semconv.DROP_QUEUE] == 3
    progress_capture.look()
    assert names(of(progress_capture, op))[-1] == "operation.ended"


# -- words for people


def event(name: str, **changes: Any) -> Event:
    """An event of an operation named survey."""
    attributes = Attributes({key.replace("__", "."): value for key, value in changes.pop("attributes", {}).items()})
    stage = changes.pop("stage", None)
    snapshot = Snapshot("id-1", "survey", changes.pop("status", Status.RUNNING), 0.0, **changes)
    return Event(name, 0, snapshot, 1, stage, attributes)


PARSE = StageSnapshot("parse", "parse", Status.RUNNING, progress.Progress(3, 10, "file", 0.3, 0.3), elapsed=75.0)
FAILED = StageSnapshot("parse", "parse", Status.FAILED, elapsed=2.0, reason="ValueError: no")

EXAMPLES = [
    (event(semconv.OPERATION_STARTED, description="look at it"), "survey started: look at it", otlp.INFO),
    (event(semconv.OPERATION_STARTED, attempt=2), "survey started, attempt 2", otlp.INFO),
    (
        event(semconv.OPERATION_ENDED, status=Status.COMPLETED, elapsed=192.0, progress=progress.Progress(ratio=1.0)),
        "survey completed after 3 min 12 s, 100%",
        otlp.INFO,
    ),
    (
        event(semconv.OPERATION_ENDED, status=Status.FAILED, elapsed=2.0, reason="ValueError: no"),
        "survey failed after 2 s (ValueError: no)",
        otlp.ERROR,
    ),
    (event(semconv.OPERATION_ENDED, status=Status.INTERRUPTED), "survey interrupted after 0 s", otlp.ERROR),
    (event(semconv.OPERATION_ENDED, status=Status.CANCELLED), "survey cancelled after 0 s", otlp.INFO),
    (event(semconv.STAGE_STARTED, stage="parse", stages=(PARSE,)), "survey: stage parse started", otlp.INFO),
    (
        event(semconv.STAGE_ENDED, stage="parse", stages=(PARSE,)),
        "survey: stage parse running after 1 min 15 s, 3 of 10 files",
        otlp.INFO,
    ),
    (
        event(semconv.STAGE_ENDED, stage="parse", stages=(FAILED,)),
        "survey: stage parse failed after 2 s (ValueError: no)",
        otlp.WARN,
    ),
    (event(semconv.STAGE_ENDED, stage="gone"), "survey: stage gone ended", otlp.INFO),
    (
        event(semconv.UPDATED, stage="parse", stages=(PARSE,), progress=progress.Progress(ratio=0.25), message="a.py"),
        "survey: parse, 3 of 10 files, 25%: a.py",
        otlp.INFO,
    ),
    (event(semconv.UPDATED, stage="parse", stages=(PARSE,)), "survey: parse, 3 of 10 files, 30%", otlp.INFO),
    (
        event(
            semconv.UPDATED,
            progress=progress.Progress(1, 2, "page", 0.5, 0.5, 0.1, Estimate(90.0, 60.0, 120.0, "rate")),
        ),
        "survey: 1 of 2 pages, 50%, 1 to 2 min left",
        otlp.INFO,
    ),
    (event(semconv.UPDATED, progress=progress.Progress(7)), "survey: 7 items", otlp.INFO),
    (event(semconv.UPDATED), "survey: goes on", otlp.INFO),
    (
        event(semconv.UPDATED, health=Health.SLOW, health_reason="running for 60 s, slow_after is 60 s"),
        "survey: goes on (slow: running for 1 min, slow_after is 1 min)",
        otlp.INFO,
    ),
    (event(semconv.HEARTBEAT, stage="parse"), "survey: the work gave a heartbeat in parse", otlp.INFO),
    (
        event(semconv.NOTE, attributes={semconv.NOTE_TEXT: "draft is done"}),
        "survey: draft is done",
        otlp.INFO,
    ),
    (
        event(semconv.NOTE, attributes={semconv.NOTE_TEXT: "a.py", semconv.NOTE_STATUS: "failed"}),
        "survey: a.py",
        otlp.WARN,
    ),
    (
        event(semconv.WAIT_STARTED, attributes={semconv.WAIT_REASON: "approval"}),
        "survey: waits for approval",
        otlp.INFO,
    ),
    (
        event(semconv.WAIT_ENDED, attributes={semconv.WAIT_REASON: "approval", semconv.WAIT_DURATION: 40.0}),
        "survey: waited 40 s for approval",
        otlp.INFO,
    ),
    (
        event(semconv.STALLED, stage="parse", health_reason="no progress for 30 s, stall_after is 30 s"),
        "survey: stuck in parse: no progress for 30 s, stall_after is 30 s",
        otlp.WARN,
    ),
    (
        event(semconv.RECOVERED, attributes={semconv.STALL_DURATION: 43.0}),
        "survey: moves again after 43 s",
        otlp.INFO,
    ),
    (event(semconv.CHECKPOINT, attributes={semconv.CHECKPOINT_KEYS: 0}), "survey: checkpoint saved", otlp.INFO),
    (
        event(semconv.CHECKPOINT, attributes={semconv.CHECKPOINT_KEYS: 1}),
        "survey: checkpoint saved, 1 key marked",
        otlp.INFO,
    ),
]


@pytest.mark.parametrize(("said", "text", "level"), EXAMPLES)
def test_an_event_reads_as_a_sentence_of_the_right_severity(said: Event, text: str, level: int) -> None:
    """The body says who, what and how far in words; WARN and ERROR are kept for what somebody should look at."""
    assert sentence(said) == text
    assert severity(said) == level


def test_every_event_has_words_of_its_own() -> None:
    """There is a sentence for each event of an operation."""
    assert set(SENTENCES) == (semconv.EVENTS | semconv.ITEM_EVENTS) - {semconv.PROCESS_HEARTBEAT}


# -- what users name can't lie


def test_names_that_users_choose_never_say_otherwise_than_the_snapshot(progress_capture: Capture) -> None:
    """A note can't override the operation, the status or the sequence number; attempts are counted."""
    forged = {
        semconv.OPERATION_ID: "other",
        semconv.STATUS: "failed",
        semconv.SEQUENCE: 99,
        semconv.ETA: "soon",
        semconv.STAGE_PATH: "x",
        semconv.GEN_AI_AGENT: "spy",
        "fine": 1,
    }
    with progress.operation("survey", agent="surveyor") as op:
        op.note("hello", **forged)
        progress_capture.look()
    log = next(log for log in progress_capture.logs if log.event_name == semconv.NOTE)
    snapshot = read(log)
    assert (snapshot.operation_id, snapshot.status, snapshot.agent) == (op.id, Status.RUNNING, "surveyor")
    assert log.attributes[semconv.SEQUENCE] < 99
    assert semconv.ETA not in log.attributes
    assert log.attributes["fine"] == 1
    assert progress_capture.drops[semconv.DROP_ATTRIBUTE] == 6


def test_the_end_of_a_wait_is_no_wait(progress_capture: Capture) -> None:
    """After wait.ended a reader knows that nobody waits; and where another wait goes on, that this one does."""
    with progress.operation("survey") as op:
        with op.waiting("outer"):
            with op.waiting("inner"):
                progress_capture.advance(2)
            progress_capture.look()
            seen = read(of(progress_capture, op)[-1])
            assert seen.wait is not None
            assert (seen.wait.reason, seen.wait.elapsed) == ("outer", 2.0)
        progress_capture.look()
        last = of(progress_capture, op)[-1]
        assert last.event_name == semconv.WAIT_ENDED
        assert (read(last).wait, read(last).status) == (None, Status.RUNNING)
        assert (last.attributes[semconv.WAIT_REASON], last.attributes[semconv.WAIT_DURATION]) == ("outer", 2.0)


def waits_told(captured: Capture, operation: Operation) -> list[tuple[str, Any, Any, Any]]:
    """The events about waits: name, reason, duration, and by how much that wait was overdue."""
    about = (semconv.WAIT_REASON, semconv.WAIT_DURATION, semconv.WAIT_OVERDUE_BY)
    found = [log for log in of(captured, operation) if log.event_name.startswith("progress.wait.")]
    return [
        (log.event_name.removeprefix("progress.wait."), *(log.attributes.get(name) for name in about)) for log in found
    ]


def test_an_event_about_a_wait_tells_of_that_wait(progress_capture: Capture) -> None:
    """Whether another wait lies around it or follows at once; the event after it tells what the work waits for now."""
    with progress.operation("survey") as op:
        with op.waiting("outer", overdue_after=30):
            progress_capture.advance(2)
            with op.waiting("inner", overdue_after=1):
                progress_capture.advance(3)
            progress_capture.look()
            last = read(of(progress_capture, op)[-1])
            assert (last.status, last.wait and (last.wait.reason, last.wait.overdue_after)) == (
                Status.WAITING,
                ("outer", 30.0),
            )
            progress_capture.advance(1)
        with op.waiting("next"):
            progress_capture.look()
            last = read(of(progress_capture, op)[-1])
            assert (last.status, last.wait and last.wait.reason) == (Status.WAITING, "next")
        progress_capture.look()
        found = waits_told(progress_capture, op)
        assert [one for one in found if one[0] == "ended"] == [
            ("ended", "inner", 3.0, 2.0),
            ("ended", "outer", 6.0, None),
            ("ended", "next", 0.0, None),
        ]
        assert [one[:2] for one in found if one[0] == "started"] == [
            ("started", reason) for reason in ("outer", "inner", "next")
        ]


# -- a reader that loses some is right again after the next one


class Job:
    """An operation that does as it is told."""

    def __init__(self) -> None:
        self.op = progress.operation("survey", total=50, stall_after=5).start()
        self.stages: list[Stage] = []
        self.waits: list[Any] = []
        self.loop: Any = None

    def do(self, what: str, value: int) -> None:
        here = self.stages[-1] if self.stages else self.op
        if what == "stage":
            self.stages.append(here.stage(f"s{value}", total=value or None).start())
        elif what == "end" and self.stages:
            (self.stages.pop().complete if value % 2 else self.stages.pop().fail)()
        elif what == "wait":
            self.waits.append(here.waiting(f"w{value}", overdue_after=value or None))
            self.waits[-1].__enter__()
        elif what == "unwait" and self.waits:
            self.waits.pop(value % len(self.waits)).__exit__(None, None, None)
        elif what == "advance":
            here.advance(value)
        elif what == "track":
            self.loop = iter(here.track(list(range(value)), unit="page" if value % 2 else None))
            next(self.loop, None)
        elif what == "update":
            here.update(completed=value, message=f"m{value}")
        elif what == "say":
            here.set(k=value)
            here.record("failed" if value % 2 else "ok", item=value)
            here.usage(input_tokens=value, cost=value / 7)
            here.result(best=value)
            here.note("note", value=value)
            here.heartbeat(value=value)


STEPS = st.tuples(
    st.sampled_from(["stage", "end", "wait", "unwait", "advance", "track", "update", "say", "pass"]), st.integers(0, 9)
)
TIME_FIELDS = {
    *("timestamp", "elapsed", "idle", "progress", "stages", "wait", "health_reason", "branches", "curve", "resources"),
    "update_pause",
}
OTHER_FIELDS = {"sequence", "span", "notes"}
STAGE_TIME_FIELDS = {"elapsed", "idle", "progress", "wait", "cpu_seconds", "peak_memory"}


def rounded(truth: Snapshot) -> Snapshot:
    """The truth as exact as numbers are on the wire; what the wire does not carry stays."""
    again = wire.from_attributes(wire.to_attributes(truth), truth.timestamp)
    return replace(again, curve=truth.curve, notes=truth.notes, span=truth.span, repeated=truth.repeated)


def assert_same(seen: Snapshot, truth: Snapshot) -> None:
    """A reader knows the truth as of the time when the event was sent."""
    seen, truth = seen.at(truth.timestamp), rounded(truth)
    if not truth.status.final:  # events carry them at the end only
        truth = replace(truth, repeated=tuple(replace(runs, buckets=()) for runs in truth.repeated))
    for name in set(vars(truth)) - TIME_FIELDS - OTHER_FIELDS:
        assert getattr(seen, name) == getattr(truth, name), name
    if truth.status.final:  # until then a reader has the events
        assert seen.curve == truth.curve
    for name in ("completed", "total", "unit", "ratio", "ratio_raw"):
        assert getattr(seen.progress, name) == getattr(truth.progress, name), name
    assert seen.elapsed == pytest.approx(truth.elapsed, abs=0.26)
    unsaid = 1.0 if truth.health is Health.PROGRESSING else 0.0  # then a shorter idle time is told as 0
    assert truth.idle - unsaid - 0.26 <= seen.idle <= truth.idle + 0.26
    assert (truth.update_pause or 0.0) <= (seen.update_pause or 0.0) <= 1.5 * (truth.update_pause or 0.0)
    assert (seen.wait and seen.wait.reason) == (truth.wait and truth.wait.reason)
    assert {(one.path, one.health, one.wait and one.wait.reason) for one in seen.branches} == {
        (one.path, one.health, one.wait and one.wait.reason) for one in truth.branches
    }
    assert len(seen.stages) == len(truth.stages)
    for mine, real in zip(seen.stages, truth.stages):
        for name in set(vars(real)) - STAGE_TIME_FIELDS:
            assert getattr(mine, name) == getattr(real, name), name
        assert mine.progress.completed == real.progress.completed


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=25), st.data())
def test_a_reader_that_loses_any_events_but_the_last_is_right_after_the_last(
    steps: list[tuple[str, int]], data: st.DataObject
) -> None:
    """Whichever events a reader gets, when it got the newest, it knows what the process knows."""
    with capture(event_budget=100_000) as captured:
        job = Job()
        for what, value in steps:
            job.do(what, value)
            captured.advance(value / 8)
        captured.advance(1)
        logs = of(captured, job.op)
        got = [log for log in logs[:-1] if data.draw(st.booleans())]
        newest = max([*got, logs[-1]], key=lambda log: log.attributes[semconv.SEQUENCE])
        assert newest is logs[-1]
        assert_same(read(newest), job.op.snapshot())
        job.op.complete()
        captured.look()
        assert_same(read(of(captured, job.op)[-1]), job.op.snapshot())


@settings(max_examples=30, deadline=None)
@given(st.lists(STEPS, max_size=15))
def test_every_event_can_be_read_and_none_comes_after_the_end(steps: list[tuple[str, int]]) -> None:
    """Each event of any run can be read back; sequence numbers rise; the end is the last."""
    with capture(event_budget=5) as captured:
        job = Job()
        for what, value in steps:
            job.do(what, value)
            captured.advance(value / 16)
        job.op.complete()
        for what, value in steps:
            job.do(what, value)
        captured.advance(2)
        logs = of(captured, job.op)
        snapshots = [read(log) for log in logs]
        numbers = [snapshot.sequence for snapshot in snapshots]
        assert numbers == sorted(set(numbers))
        assert names(logs).index("operation.ended") == len(logs) - 1


# -- what a large snapshot leaves out

_NUMBERS = Attributes({"ok": 1})
_TALL = Snapshot(
    "a",
    "a",
    Status.RUNNING,
    1.0,
    stages=(
        StageSnapshot(
            *("load", "load", Status.RUNNING),
            description="d",
            message="m",
            reason="r",
            depends_on=("x",),
            outcomes=_NUMBERS,
            counters=_NUMBERS,
            attributes=_NUMBERS,
            usage=_NUMBERS,
            child_outcomes=_NUMBERS,
            elapsed=2.0,
            cpu_seconds=1.0,
            peak_memory=5,
        ),
    ),
    description="d",
    reason="r",
    hint="h",
    stack="s",
    folded=(("completed", 1, 1.0),),
    repeated=(StageRuns("load", _NUMBERS, 1.0, 1.0, 1.0, 1.0, 1.0),),
    outcomes=_NUMBERS,
    counters=_NUMBERS,
    usage=_NUMBERS,
    result=_NUMBERS,
    attributes=_NUMBERS,
    components=(("c", _NUMBERS),),
    failures=(("no disk", 1),),
    curve=((0.0, 1),),
    resources=Resources(cpu_seconds=1.0),
    child_outcomes=_NUMBERS,
)


def without(lighter: Any, whole: Any) -> set[str]:
    """The fields that went out."""
    return {one.name for one in fields(whole) if getattr(lighter, one.name) != getattr(whole, one.name)}


def test_a_large_snapshot_first_loses_the_details_of_its_stages() -> None:
    """State and clocks of stages stay, and all that is said of the operation."""
    light = _light(_TALL)
    assert without(light, _TALL) == {"stages"}
    details = {"description", "message", "reason", "depends_on", "attributes"}
    assert without(light.stages[0], _TALL.stages[0]) == details | {"outcomes", "counters", "usage", "child_outcomes"}


def test_a_snapshot_that_is_still_too_large_keeps_state_and_numbers() -> None:
    """What may be large goes out; state, evidence, resources and the numbers of children stay."""
    lists = {"stages", "folded", "repeated", "components", "failures", "curve"}
    maps = {"outcomes", "counters", "usage", "result", "attributes"}
    assert without(_bare(_TALL), _TALL) == lists | maps | {"description"}


@pytest.mark.parametrize(
    ("components", "stages", "kept"),
    [(10, 10, "all"), (10, 5_000, "without stages"), (30_000, 10, "bare")],
    ids=["small", "many long stages", "endless components"],
)
def test_events_of_any_size_fit(progress_capture: Capture, components: int, stages: int, kept: str) -> None:
    """An event is never larger than its bound, and what went out is counted as dropped."""
    del progress_capture
    told = tuple((f"component {n}", _NUMBERS) for n in range(components))
    listed = tuple(replace(_TALL.stages[0], path=f"stage {n}", message="x" * 200) for n in range(stages))
    whole = replace(_TALL, components=told, stages=listed)
    sizes = [len(otlp.attributes(6, wire.to_attributes(one))) for one in (whole, _light(whole), _bare(whole))]
    assert sizes[2] <= BYTES
    assert sizes[0] > sizes[1] > sizes[2]
    assert (sizes[0] <= BYTES) == (kept == "all")
