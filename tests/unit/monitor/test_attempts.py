"""Attempts: each start time is one, the monitor numbers them, and an id that runs twice is told."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from monitor_parts import Parts, beat_of, event_of, request_of, seconds

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.model.snapshot import Progress, Snapshot
from otel_progress.model.status import Status
from otel_progress.monitor.intake.records import groups
from otel_progress.monitor.intake.requests import parse
from otel_progress.monitor.state.ledger import Ledger
from otel_progress.outbound import otlp
from otel_progress.testing import FakeClock

AT = 1_700_000_000.0


def run(started: float, sequence: int = 1, status: Status = Status.RUNNING, attempt: int = 1, **more: Any) -> Snapshot:
    """An event of one run of the id `a`, some seconds after the first one began."""
    began = AT + started
    return Snapshot("a", "w", status, began + sequence, attempt=attempt, sequence=sequence, started_at=began, **more)


def number(monitor: Parts) -> int:
    """Which attempt is shown."""
    return int(monitor.row()["attempt"])


def test_process_that_is_started_again_is_attempt_2(monitor: Parts) -> None:
    """A process numbers by its own memory; the monitor knows the id, and goes on counting, also after a restart."""
    monitor.say(run(0), event=s.OPERATION_STARTED)
    monitor.say(run(0, 2, Status.FAILED), event=s.OPERATION_ENDED)
    monitor.say(run(100), event=s.OPERATION_STARTED, instance="p2")
    assert number(monitor) == 2
    monitor.restart()
    assert number(monitor) == 2
    monitor.say(run(100, 2), instance="p2")
    monitor.say(run(200, attempt=2), event=s.OPERATION_STARTED, instance="p2")
    assert number(monitor) == 3
    monitor.say(run(0, 3), event=s.NOTE)  # late, of the first
    assert [(one.attempt, one.started_at - AT) for one in monitor.history()] == [
        (1, 0.0), (1, 0.0), (2, 100.0), (2, 100.0), (3, 200.0), (1, 0.0)
    ]  # fmt: skip


def test_count_of_a_process_that_knows_more_is_taken(monitor: Parts) -> None:
    """A process whose history file knows earlier runs says attempt 5: nobody knows better."""
    monitor.say(run(0, attempt=5))
    assert number(monitor) == 5
    monitor.say(run(100, attempt=1), instance="p2")
    assert number(monitor) == 6


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), min_size=1, max_size=30))
def test_numbers_rise_with_start_times(said: list[tuple[int, int]]) -> None:
    """In whatever order runs speak, the number shown only rises, by one for each later start; others change nothing."""
    ledger, before, starts = Ledger(), 0, set()
    for start, sequence in said:
        newer = not starts or start > max(starts)
        starts.add(start)
        entry = ledger.apply(run(start * 100.0, sequence), f"p{start}", 1.0)
        assert entry.number == (before + 1 if newer else before)
        assert (entry.head.started_at or 0) - AT == max(starts) * 100.0
        before = entry.number


# -- start times that differ by rounding

END = AT + 9.7


@st.composite
def rounded_runs(draw: st.DrawFn) -> list[Snapshot]:
    """The events of one run, each with its start rounded otherwise, in any order; the last one ends it."""
    began = AT + 0.4567891
    starts = st.sampled_from(
        [began, round(began, 6), round(began, 3), float(int(began * 1000)) / 1000, AT, began - 0.3]
    )
    events = [
        Snapshot("a", "w", Status.RUNNING, AT + 1 + number, sequence=number, started_at=draw(starts))
        for number in range(1, 6)
    ]
    events.append(Snapshot("a", "w", Status.COMPLETED, END, sequence=6, started_at=draw(starts)))
    return draw(st.permutations(events))


@given(rounded_runs())
def test_start_time_that_is_rounded_otherwise_makes_no_attempt(events: list[Snapshot]) -> None:
    """In whatever order they come, the events of a process with about the same start are one attempt, and end once."""
    ledger = Ledger()
    for event in events:
        for group in groups(parse("logs", request_of(event_of(event)))):
            ledger.hear(group.resource, group.records, 1.0)
    entry = ledger.operations["a"]
    assert (entry.number, entry.head.status, entry.head.sequence, entry.rivals) == (1, Status.COMPLETED, 6, None)
    assert entry.head.started_at == entry.snapshot.started_at == round(events[0].started_at or 0.0, 6)


def test_rounded_start_stays_the_first_one_in_state_and_history(monitor: Parts) -> None:
    """State, history and what follows a restart name the start that came first."""
    for sequence, began in enumerate((0.4567891, 0.457, 0.456, 0.0), 1):
        monitor.say(run(began, sequence), event=s.NOTE)
        monitor.restart()
    assert number(monitor) == 1
    assert {(one.attempt, one.started_at) for one in monitor.history()} == {(1, round(AT + 0.4567891, 6))}
    assert monitor.row()["started_at"] == round(AT + 0.4567891, 6)


def test_second_run_within_a_second_is_an_attempt_if_the_first_one_was_over(monitor: Parts) -> None:
    """A process that tries again at once begins a new attempt, although the start is less than a second later."""
    first = Snapshot("a", "w", Status.FAILED, AT + 0.2, sequence=2, started_at=AT)
    monitor.say(first, event=s.OPERATION_ENDED)
    monitor.say(
        Snapshot("a", "w", Status.RUNNING, AT + 0.3, sequence=1, started_at=AT + 0.3), event=s.OPERATION_STARTED
    )
    assert (number(monitor), monitor.row()["status"]) == (2, "running")


def test_two_processes_are_one_attempt_only_within_a_millisecond(monitor: Parts) -> None:
    """Another process that starts the id within a second is another run; one that repeats the start in ms is not."""
    monitor.say(run(0.0001), event=s.OPERATION_STARTED)
    monitor.say(run(0.0004, 2, Status.LOST), event=s.OPERATION_ENDED, instance="observer")
    assert (number(monitor), monitor.row()["status"]) == (1, "lost")
    monitor.say(run(0.5), event=s.OPERATION_STARTED, instance="p2")
    assert (number(monitor), monitor.row()["status"]) == (2, "running")


# -- what another process says of the same start, and what numbers say


def run_of(number: int | None, start: int, sequence: int, status: Status) -> Snapshot:
    """An event of a run; its attempt is 0 if it names none."""
    began = AT + start * 10
    return Snapshot("a", "w", status, began + sequence, attempt=number or 0, sequence=sequence, started_at=began)


def hear(ledger: Ledger, event: Snapshot, instance: str, *, numbered: bool = True) -> None:
    """An event of an emitter without an SDK of ours arrives."""
    about = otlp.resource({s.SERVICE_INSTANCE_ID: instance})
    said = event_of(event) if numbered else event_of(event, **{s.OPERATION_ATTEMPT: None})
    for group in groups(parse("logs", otlp.envelope(about, otlp.scope("emitter", ""), [said]))):
        ledger.hear(group.resource, group.records, 1.0)


RETRIED = (
    ("p1", Snapshot("a", "w", Status.RUNNING, AT, sequence=1, started_at=AT)),
    ("p1", Snapshot("a", "w", Status.FAILED, AT + 0.2, sequence=2, started_at=AT)),
    ("p2", Snapshot("a", "w", Status.RUNNING, AT + 0.4, sequence=1, started_at=AT)),
    ("p2", Snapshot("a", "w", Status.RUNNING, AT + 2, sequence=2, started_at=AT)),
    ("p2", Snapshot("a", "w", Status.COMPLETED, AT + 3, sequence=3, started_at=AT)),
)
NUMBERED = tuple(
    (f"p{attempt}", Snapshot("a", "w", status, at, attempt=attempt, sequence=sequence, started_at=began))
    for attempt, began in ((1, AT), (2, AT - 110), (3, AT - 5))
    for sequence, status, at in ((1, Status.RUNNING, began), (2, Status.FAILED, began + 1))
)


@given(st.permutations(RETRIED * 2))
def test_retry_that_names_the_same_start_ends_as_the_retry(told: list[tuple[str, Snapshot]]) -> None:
    """In whatever order the events of both processes come, and come again, the state is that of the later run."""
    ledger = Ledger()
    for instance, event in told:
        hear(ledger, event, instance)
    assert ledger.operations["a"].head.status is Status.COMPLETED


@given(st.permutations(NUMBERED * 2))
def test_numbers_that_count_all_attempts_beat_clocks(told: list[tuple[str, Snapshot]]) -> None:
    """In whatever order they come, and come again, the highest number is the newest attempt."""
    ledger = Ledger()
    for instance, event in told:
        hear(ledger, event, instance)
    entry = ledger.operations["a"]
    assert (entry.instance, entry.head.attempt, entry.head.sequence) == ("p3", 3, 2)


@given(
    st.lists(st.tuples(st.sampled_from([None, 1, 2, 3]), st.integers(0, 5)), min_size=2, max_size=4, unique=True),
    st.data(),
)
def test_there_is_one_order_of_attempts(runs: list[tuple[int | None, int]], data: st.DataObject) -> None:
    """Whatever numbers they name, or none, and whatever the clocks say: any order of arrival ends in the same attempt."""
    told = [
        (f"p{place}", run_of(number, start, sequence, status))
        for place, (number, start) in enumerate(runs)
        for sequence, status in ((1, Status.RUNNING), (2, Status.FAILED))
    ]
    shown = set()
    for _ in range(3):
        ledger = Ledger()
        for instance, event in data.draw(st.permutations(told)):
            hear(ledger, event, instance, numbered=event.attempt > 0)
        head = ledger.operations["a"].head
        shown.add((ledger.operations["a"].instance, head.sequence))
    newest = max(runs, key=lambda run: (run[0] or 1, run[1]))
    same = {f"p{place}" for place, run in enumerate(runs) if (run[0] or 1, run[1]) == (newest[0] or 1, newest[1])}
    assert {instance for instance, _ in shown} <= same
    assert {sequence for _, sequence in shown} == {2}


def test_observer_that_calls_an_ended_run_lost_begins_no_attempt(monitor: Parts) -> None:
    """Who only saw the process end says nothing new of a run that ended."""
    monitor.say(run(0, 2, Status.COMPLETED), event=s.OPERATION_ENDED)
    monitor.say(run(0, 3, Status.LOST), event=s.OPERATION_ENDED, instance="observer")
    assert (number(monitor), monitor.row()["status"]) == (1, "completed")


# -- two at once


def beat(monitor: Parts, instance: str) -> None:
    """A heartbeat of a process, at the time of the clock."""
    monitor.take(request_of(beat_of(), instance=instance))


def test_two_live_processes_with_one_id_are_shown(monitor: Parts, fake: FakeClock) -> None:
    """The newest run is shown, with a warning and the other one beside it; it goes when that one is over or dead."""
    heard = monitor.listen()
    now = clock.time_ns() / 1e9 - AT
    first = event_of(run(now), event=s.OPERATION_STARTED)
    monitor.take(request_of(first, beat_of(), instance="p1", **{s.PROCESS_PID: 11, s.HOST_NAME: "here"}))
    seconds(fake, monitor, 10)
    second = request_of(event_of(run(now + 10)), beat_of(), instance="p2", **{s.PROCESS_PID: 12})
    monitor.take(second)
    assert "also_running" not in monitor.row()
    seconds(fake, monitor, 3)
    beat(monitor, "p1")
    row = monitor.row()
    assert row["attempt"] == 2
    assert row["also_running"] == [{"attempt": 1, "started_at": AT + now, "instance": "p1", "pid": 11, "host": "here"}]
    assert row["warning"] == (
        "two processes run the operation 'a': attempt 2 (pid 12), attempt 1 (pid 11 on here); "
        "give each run an id of its own, or stop one"
    )
    beat(monitor, "p1")
    assert [(one["attempt"], one["status"]) for one in detail(monitor)["attempts"]] == [(1, "running"), (2, "running")]
    assert heard.rivals == ["p2"]
    monitor.say(run(now + 10, 2), instance="p2")
    assert "warning" in monitor.row()
    monitor.say(run(now, 9, Status.COMPLETED), event=s.OPERATION_ENDED, instance="p1")
    assert "also_running" not in monitor.row()
    assert monitor.row()["status"] == "running"


def test_run_that_died_before_the_next_is_no_rival(monitor: Parts, fake: FakeClock) -> None:
    """What a killed process said before the new one began, and what comes late of that, proves nothing."""
    now = clock.time_ns() / 1e9 - AT
    monitor.take(request_of(event_of(run(now)), beat_of(), instance="p1"))
    late = request_of(beat_of(), instance="p1")
    seconds(fake, monitor, 2)
    monitor.take(request_of(event_of(run(now + 2)), beat_of(), instance="p2"))
    monitor.take(late)
    monitor.take(request_of(event_of(run(now, 2)), instance="p1"))
    assert "also_running" not in monitor.row()


def test_rival_that_is_not_heard_any_more_is_none(monitor: Parts, fake: FakeClock) -> None:
    """A dead process runs nothing, as far as anybody knows."""
    now = clock.time_ns() / 1e9 - AT
    monitor.take(request_of(event_of(run(now)), beat_of(), instance="p1"))
    fake.sleep(5)
    monitor.take(request_of(event_of(run(now + 5)), beat_of(), instance="p2"))
    fake.sleep(5)
    beat(monitor, "p1")
    assert "also_running" in monitor.row()
    for _ in range(4):
        seconds(fake, monitor, 4)
        beat(monitor, "p2")
    assert "also_running" not in monitor.row()


def test_rival_that_only_speaks_up_later_is_found(monitor: Parts) -> None:
    """After a restart of the monitor the older run is known again with its next event."""
    monitor.say(run(10), instance="p2")
    monitor.say(run(0, 60), instance="p1")
    assert [one["attempt"] for one in monitor.row()["also_running"]] == [1]


# -- the history of an id, and the command that starts it again


THREE = {
    f"{what}{place}": Snapshot("a", "w", status, began + later, sequence=sequence, started_at=began)
    for place, (began, end) in enumerate(
        ((AT, Status.COMPLETED), (AT + 2, Status.FAILED), (AT + 4, Status.COMPLETED)),
    )
    for what, sequence, later, status in (("S", 1, 0, Status.RUNNING), ("U", 2, 3, Status.RUNNING), ("E", 3, 9, end))
}
NAMES = {"S": s.OPERATION_STARTED, "U": s.UPDATED, "E": s.OPERATION_ENDED}
SHUFFLED = [" ".join(Random(seed).sample(sorted(THREE), 9)) for seed in range(12)]


@pytest.mark.parametrize(
    "order", ["E0 E2 E1", "S0 E1 S2 U1 E2 E0", "E0 S1 U0 E1", "E2 E0 E1", "S1 U0 S2 U2 E1 E2 E0", *SHUFFLED]
)
def test_attempt_that_is_told_is_one_run_and_no_run_runs_after_its_end(monitor: Parts, order: str) -> None:
    """In whatever order runs in three processes are heard: an attempt is one of them, and each end is one."""
    for one in order.split():
        monitor.say(THREE[one], event=NAMES[one[0]], instance=f"p{one[1]}")
    found = detail(monitor)
    newest = max(order.split(), key=lambda one: one[1])[1]
    assert (found["started_at"], found["status"]) == (THREE[f"S{newest}"].started_at, THREE[f"E{newest}"].status.value)
    assert "warning" not in found
    runs = [
        {"started_at": end.started_at, "status": end.status.value} for end in (THREE[f"E{place}"] for place in "012")
    ]
    for attempt in found.get("attempts", ()):
        told = {"started_at": attempt["started_at"], "status": attempt.get("status")}
        assert told in runs or told["status"] is None
        assert attempt.get("ended_at", attempt["started_at"] + 9) == attempt["started_at"] + 9


def test_attempts_are_told_in_order(monitor: Parts) -> None:
    """The detail tells each attempt: when it ran, how it ended and where it was; one without an end says nothing."""
    monitor.say(run(0), event=s.OPERATION_STARTED)
    assert "attempts" not in detail(monitor)
    lost = {s.EXIT_SIGNAL: "SIGKILL"}
    monitor.say(run(0, 2), event=s.CHECKPOINT)
    monitor.say(run(0, 3, Status.LOST, reason="its process was killed by SIGKILL"), event=s.OPERATION_ENDED, **lost)
    monitor.say(run(100), event=s.OPERATION_STARTED, instance="p2")
    monitor.say(run(200), event=s.OPERATION_STARTED, instance="p3")
    found = detail(monitor)
    assert found["attempts"] == [
        {
            "attempt": 1,
            "started_at": AT,
            "ended_at": AT + 3,
            "status": "lost",
            "signal": "SIGKILL",
            "reason": "its process was killed by SIGKILL",
        },
        {"attempt": 2, "started_at": AT + 100},
        {"attempt": 3, "started_at": AT + 200, "status": "running"},
    ]
    assert "checkpoint_at" not in found
    monitor.say(run(200, 2, Status.FAILED), event=s.OPERATION_ENDED, instance="p3")
    assert detail(monitor)["checkpoint_at"] == AT + 2


def test_command_is_a_line_for_a_shell(monitor: Parts) -> None:
    """The command of the process is quoted, with its folder; masked and cut ones are marked, nonsense is left out."""
    given = {s.PROCESS_COMMAND_ARGS: ("python3", "in gest.py", "[redacted]", "…"), s.PROCESS_FOLDER: "/srv/a b"}
    monitor.take(request_of(event_of(run(0)), instance="p1", **given))
    assert detail(monitor)["command"] == {
        "args": ["python3", "in gest.py", "[redacted]", "…"],
        "folder": "/srv/a b",
        "line": "cd '/srv/a b' && python3 'in gest.py' '[redacted]' '…'",
        "masked": True,
        "cut": True,
    }
    monitor.take(request_of(event_of(run(100)), instance="p2", **{s.PROCESS_COMMAND_ARGS: "python3"}))
    assert "command" not in detail(monitor)


def detail(monitor: Parts) -> dict[str, Any]:
    entry = monitor.core.ledger.find("a")
    assert entry is not None
    return monitor.views.detail(entry)


def test_a_resumed_attempt_begins_where_the_earlier_one_was_saved(monitor: Parts) -> None:
    """`from` is what was restored, not how far the snapshot of its start had come; the first attempt has none."""
    monitor.say(run(0, progress=Progress(11, 200, "row", 0.055, 0.055)), event=s.OPERATION_STARTED)
    lost = {s.EXIT_SIGNAL: "SIGKILL"}
    was = Progress(150, 200, "row", 0.75, 0.75)
    monitor.say(run(0, 3, Status.LOST, progress=was), event=s.OPERATION_ENDED, **lost)
    again = Progress(160, 200, "row", 0.8, 0.8, restored=149)
    monitor.say(run(100, progress=again), event=s.OPERATION_STARTED, instance="p2")
    first, second = detail(monitor)["attempts"]
    assert "from" not in first
    assert second["from"] == 0.745
    monitor.restart()
    assert detail(monitor)["attempts"][1]["from"] == 0.745
