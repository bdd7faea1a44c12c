"""The ledger: any order, doubles and losses end in the same state, and nothing undoes an end."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_progress import semconv as s
from otel_progress.model import wire
from otel_progress.model.ratio import ALMOST
from otel_progress.model.snapshot import Progress, Snapshot, StageSnapshot, Wait
from otel_progress.model.stage_runs import Runs
from otel_progress.model.status import Status
from otel_progress.model.values import Attributes
from otel_progress.monitor.intake.records import owner_in
from otel_progress.monitor.state.ledger import INTERVAL, Entry, Ledger, head_of_snapshot, lose, read


class Said(NamedTuple):
    """A log event as the intake gives it."""

    event: str
    time: int
    attributes: dict[str, Any]
    trace_id: str = "1" * 32
    span_id: str = "2" * 16
    sampled: bool = True
    is_foreign: bool = False

    @property
    def brief(self) -> dict[str, Any]:
        """What is read at once."""
        return self.attributes

    @property
    def owner(self) -> str | None:
        """Whom it belongs to."""
        return owner_in(self.attributes.get(s.ATTRIBUTES, "{}"))


def said(snapshot: Snapshot, event: str = s.UPDATED) -> Said:
    """The event that carries a snapshot."""
    return Said(event, round(snapshot.timestamp * 1e9), dict(wire.to_attributes(snapshot)))


def beat(interval: object = 2.0) -> Said:
    """A heartbeat of the process."""
    return Said(s.PROCESS_HEARTBEAT, 0, {s.HEARTBEAT_INTERVAL: interval})


def resource(instance: str = "p1", **more: Any) -> dict[str, Any]:
    """What a process says of itself."""
    return {"service.instance.id": instance, **more}


def snap(sequence: int = 1, status: Status = Status.RUNNING, started: float | None = 100.0, **more: Any) -> Snapshot:
    """A snapshot of the operation `a`."""
    given = {"timestamp": 100.0 + sequence, "attempt": 1, **more}
    return Snapshot("a", "work", status, sequence=sequence, started_at=started, **given)


def run_of(attempt: int, started: float, end: Status) -> list[Snapshot]:
    """All snapshots of an attempt: made, running, ended."""
    pending = Snapshot("a", "work", Status.PENDING, started - 0.5, attempt=attempt, sequence=1)
    running = [
        Snapshot("a", "work", Status.RUNNING, started + number, attempt=attempt, sequence=number, started_at=started)
        for number in range(2, 5)
    ]
    last = Snapshot("a", "work", end, started + 9, attempt=attempt, sequence=6, started_at=started)
    return [pending, *running, replace(last, sequence=5), last]


FINALS = [status for status in Status if status.final and status is not Status.SKIPPED]


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[tuple[str, Snapshot]], Snapshot]:
    """What one to three attempts of an id said, shuffled, doubled and lost in part; and the last word of the last."""
    attempts = draw(st.integers(1, 3))
    events: list[tuple[str, Snapshot]] = []
    for number in range(attempts):
        attempt = draw(st.sampled_from([1, number + 1]))  # in another process it is a first one again
        run = run_of(attempt, 100.0 * (number + 1), draw(st.sampled_from(FINALS)))
        events += [(f"p{number}", snapshot) for snapshot in run]
    last = events[-1]
    kept = [*draw(st.lists(st.sampled_from(events), max_size=30)), last]
    return draw(st.permutations(kept)), last[1]


@given(histories())
def test_any_order_doubles_and_losses_end_in_the_same_state(history: tuple[list[Any], Snapshot]) -> None:
    """As long as the last event arrived, the state is what it says."""
    events, last = history
    ledger = Ledger()
    for instance, snapshot in events:
        ledger.hear(resource(instance), [said(snapshot)], 1.0)
    found = ledger.operations["a"].snapshot
    assert (found.status, found.started_at, found.sequence) == (last.status, last.started_at, last.sequence)
    assert ledger.unread == 0
    assert list(ledger.busy()) == []


def test_what_is_newest_counts() -> None:
    """Of a running operation the event with the highest sequence is the state, whenever it comes."""
    ledger = Ledger()
    for sequence in (3, 5, 4):
        ledger.hear(resource(), [said(snap(sequence, message=f"at {sequence}"))], 1.0)
    assert ledger.operations["a"].snapshot.message == "at 5"


@pytest.mark.parametrize("end", FINALS)
def test_late_event_does_not_undo_an_end(end: Status) -> None:
    """After an end nothing of the same attempt counts, not even with a higher sequence or another end."""
    ledger = Ledger()
    ledger.apply(snap(5, end), "p1", 1.0)
    other = Status.FAILED if end is not Status.FAILED else Status.COMPLETED
    for late in (snap(4), snap(9), snap(9, other)):
        ledger.apply(late, "p1", 2.0)
    assert ledger.operations["a"].snapshot == snap(5, end)


def test_older_attempt_changes_nothing() -> None:
    """An attempt that started before the one that is known is old news, whoever says it, even its end."""
    ledger = Ledger()
    newer = snap(1, started=200.0)
    ledger.apply(newer, "p2", 1.0)
    ledger.apply(snap(99, Status.COMPLETED, started=100.0), "p1", 1.0)
    assert ledger.operations["a"].snapshot == newer
    assert [entry.instance for entry in ledger.open_of("p2")] == ["p2"]
    assert ledger.open_of("p1") == []


def test_newer_attempt_begins_anew() -> None:
    """A newer attempt takes the place of one that ended, and belongs to its own process."""
    ledger = Ledger()
    ledger.apply(snap(9, Status.FAILED), "p1", 1.0)
    ledger.apply(snap(1, started=200.0, attempt=2), "p2", 1.0)
    assert ledger.operations["a"].open
    assert [process for process in ("p1", "p2") if ledger.open_of(process)] == ["p2"]


def test_one_that_waits_for_its_start_is_newer_than_the_attempt_before() -> None:
    """A new attempt counts from when it was made, although it has not started."""
    ledger = Ledger()
    ledger.apply(snap(9, Status.FAILED), "p1", 1.0)
    ledger.apply(snap(1, Status.PENDING, None, attempt=2, timestamp=150.0), "p1", 1.0)
    assert ledger.operations["a"].snapshot.attempt == 2
    ledger.apply(snap(2, started=151.0, attempt=2), "p1", 1.0)
    ledger.apply(snap(1, Status.PENDING, None, attempt=2, timestamp=150.0), "p1", 1.0)
    assert ledger.operations["a"].snapshot.status is Status.RUNNING


def test_proven_loss_stays() -> None:
    """What is lost by proof stays lost, whatever comes later of that attempt."""
    ledger = Ledger()
    ledger.apply(snap(5), "p1", 1.0)
    ledger.apply(lose(snap(5), "gone"), "p1", 1.0)
    ledger.apply(snap(9), "p1", 1.0)
    ledger.apply(snap(9, Status.COMPLETED), "p1", 1.0)
    assert ledger.operations["a"].snapshot.status is Status.LOST


def test_presumed_loss_is_undone_by_a_later_sign_of_life() -> None:
    """What only counts as lost is not any more when its attempt says something new; an old event says nothing new."""
    ledger = Ledger()
    ledger.apply(snap(5), "p1", 1.0)
    assert ledger.presume_lost("a", "not heard of") is not None
    ledger.apply(snap(4), "p1", 1.0)
    ledger.apply(snap(5), "p1", 1.0)
    assert ledger.operations["a"].snapshot.status is Status.LOST
    ledger.apply(snap(6), "p1", 2.0)
    assert ledger.operations["a"].snapshot == snap(6)
    assert ledger.operations["a"].presumed is None
    ledger.apply(snap(7, Status.COMPLETED), "p1", 2.0)
    assert ledger.presume_lost("a", "not heard of") is None


def test_presumed_loss_becomes_a_proven_one() -> None:
    """Proof makes a presumed loss final."""
    ledger = Ledger()
    ledger.apply(snap(5), "p1", 1.0)
    ledger.presume_lost("a", "not heard of")
    ledger.apply(lose(snap(5), "gone"), "p1", 1.0)
    ledger.apply(snap(9), "p1", 2.0)
    assert ledger.operations["a"].snapshot.reason == "gone"


def test_process_is_known_by_what_it_says() -> None:
    """Of each process its pid, creation, host, heartbeat and the last time that it was heard are kept."""
    ledger = Ledger()
    about = resource(**{s.PROCESS_PID: 7, s.PROCESS_CREATED: "2026-01-01T00:00:00.000Z", s.HOST_NAME: "here"})
    process = ledger.hear(about, [], 1.0)
    assert (process.pid, process.created, process.host) == (7, "2026-01-01T00:00:00.000Z", "here")
    assert (process.interval, process.heard_at) == (INTERVAL, 1.0)
    ledger.hear(about, [beat(2.0)], 3.0)
    process = ledger.hear(about, [], 4.0)
    assert (process.interval, process.heard_at) == (2.0, 4.0)
    assert [ledger.hear(about, [beat(bad)], 5.0).interval for bad in ("x", -1, float("inf"), None)] == [2.0] * 4


def test_process_without_an_instance_id_is_told_apart_by_what_else_it_says() -> None:
    """Two processes of a sender that gives no instance ids do not mix."""
    ledger = Ledger()
    for pid in (7, 8):
        ledger.hear({s.PROCESS_PID: pid}, [], 1.0)
    assert sorted(process.pid or 0 for process in ledger.processes.values()) == [7, 8]


NO_EVENTS: list[dict[str, Any]] = [
    {s.OPERATION_ATTEMPT: "one"},
    {s.SEQUENCE: 1.5},
    {s.SEQUENCE: True},
    {s.START_TIME: "now"},
    {s.START_TIME: float("nan")},
    {s.STATUS: "fine"},
    {s.STATUS: 3},
    {s.STATUS: "skipped"},
    {s.OPERATION_ID: 3},
    {s.OPERATION_NAME: None},
    {s.START_TIME: None},
]


@pytest.mark.parametrize("wrong", NO_EVENTS, ids=repr)
def test_what_is_no_event_of_ours_is_counted_and_left_out(wrong: dict[str, Any]) -> None:
    """An event that bears a name of ours but is none harms nothing."""
    ledger = Ledger()
    event = said(snap(7))
    ledger.hear(resource(), [event._replace(attributes={**event.attributes, **wrong}), said(snap(3))], 1.0)
    assert ledger.unread == 1
    assert ledger.operations["a"].snapshot.sequence == 3


@pytest.mark.parametrize("odd", [4, None, True, 1.5], ids=repr)
def test_a_parent_that_is_no_text_is_ignored(odd: object) -> None:
    """The parent says neither which operation an event belongs to nor which event is the newest."""
    ledger = Ledger()
    event = said(snap(7))
    ledger.hear(resource(), [event._replace(attributes={**event.attributes, s.OPERATION_PARENT_ID: odd})], 1.0)
    assert ledger.unread == 0
    assert (ledger.operations["a"].head.parent_id, ledger.operations["a"].snapshot.parent_id) == (None, None)


UNSOUND: list[dict[str, Any]] = [
    {s.STAGES: "[[]]"},
    {s.STAGES: "{"},
    {s.STAGES: "7"},
    {s.STAGES: "[" * 100_000},
    {s.ATTRIBUTES: "[]"},
    {s.STAGES: '[{"path":7,"status":"running"}]'},
    {s.STAGES: '[{"path":"a","status":"running","span_id":7}]'},
    {s.STAGES: '[{"path":"a","status":"running","started_at":"now"}]'},
]


@pytest.mark.parametrize("wrong", UNSOUND, ids=repr)
def test_of_an_event_that_is_sound_in_part_only_that_part_counts(wrong: dict[str, Any]) -> None:
    """What is wrong is ignored, and hides nothing else; a stage stays that says which it is, and its status."""
    ledger = Ledger()
    event = said(snap(7, agent="me", message="here"))
    ledger.hear(resource(), [event._replace(attributes={**event.attributes, **wrong})], 1.0)
    seen = ledger.operations["a"].snapshot
    assert replace(seen, stages=(), span=None) == replace(snap(7, agent="me", message="here"), health=seen.health)
    assert [stage.path for stage in seen.stages] == (["a"] if '"path":"a"' in wrong.get(s.STAGES, "") else [])


RATIOS: list[Any] = [7.0, -3.0, 1e300, float("nan"), float("inf"), "0.5", True, 2]


@pytest.mark.parametrize("ratio", RATIOS, ids=repr)
def test_no_ratio_beats_a_wrong_one(ratio: Any) -> None:
    """Outside 0 to 1 it is unknown, of an operation and of a stage, and so are counts below 0."""
    ledger = Ledger()
    stage = {"path": "a", "status": "running", "ratio": ratio, "ratio_raw": ratio, "completed": -4, "total": -2}
    wrong = {s.RATIO: ratio, s.RATIO_RAW: ratio, s.COMPLETED: -5, s.TOTAL: -1, s.RATE: -2.0}
    event = said(snap(7))
    given = {**event.attributes, **wrong, s.STAGES: json.dumps([stage])}
    ledger.hear(resource(), [event._replace(attributes=given)], 1.0)
    seen = ledger.operations["a"].snapshot
    assert (seen.progress, seen.stages[0].progress) == (Progress(), Progress())


COUNTS: list[tuple[str, int, int, float | None, float | None]] = [
    ("running", 40, 120, 1 / 3, 1 / 3),
    ("waiting", 0, 4, 0.0, 0.0),
    ("running", 4, 4, ALMOST, 1.0),
    ("running", 6, 4, ALMOST, 1.0),
    ("completed", 4, 4, 1.0, 1.0),
    ("completed", 3, 4, 0.75, 0.75),
    ("failed", 3, 4, 0.75, 0.75),
    ("failed", 4, 4, None, None),
    ("lost", 0, 4, None, None),
    ("pending", 0, 4, None, None),
    ("running", 4, 0, None, None),
]


@pytest.mark.parametrize(("status", "completed", "total", "ratio", "raw"), COUNTS)
def test_ratio_that_is_not_said_follows_from_the_counts(
    status: str, completed: int, total: int, ratio: float | None, raw: float | None
) -> None:
    """Of what another SDK sent; only completed work shows all of it, and what ended otherwise not more."""
    ledger = Ledger()
    stage = {"path": "a", "status": status, "completed": completed, "total": total}
    event = said(snap(7))
    given = {s.STATUS: status, s.COMPLETED: completed, s.TOTAL: total, s.STAGES: json.dumps([stage])}
    told = event._replace(attributes={**event.attributes, **given}, is_foreign=True)
    ledger.hear(resource(), [told], 1.0)
    seen = ledger.operations["a"].snapshot
    wanted = Progress(completed, total, ratio=ratio, ratio_raw=raw)
    assert (seen.progress, seen.stages[0].progress) == (wanted, wanted)


@pytest.mark.parametrize("wrong", [{s.MESSAGE: 5}, {s.STAGES_FOLDED: "[1]"}, {s.RATE: "4"}, {s.ETA: 1.0}], ids=repr)
def test_an_attribute_of_another_type_counts_as_not_said(wrong: dict[str, Any]) -> None:
    """The rest of its event is believed."""
    ledger = Ledger()
    event = said(snap(7, agent="me", stall_after=30.0))
    ledger.hear(resource(), [event._replace(attributes={**event.attributes, **wrong})], 1.0)
    assert replace(ledger.operations["a"].snapshot, span=None) == snap(7, agent="me", stall_after=30.0)


def test_operations_that_ended_make_room_but_not_below_one_that_runs() -> None:
    """Ended operations in memory are limited; those below a running one stay, others are recalled."""
    ledger = Ledger(most_ended=2)
    ledger.apply(replace(snap(), operation_id="parent"), "p1", 1.0)
    for number in range(5):
        parent = "parent" if number < 2 else None
        ledger.apply(replace(snap(5, Status.COMPLETED), operation_id=str(number), parent_id=parent), "p1", 1.0)
    assert sorted(ledger.operations) == ["0", "1", "parent"]
    assert set(ledger.children["parent"]) == {"0", "1"}
    ledger.recall = {"4": Entry(head_of_snapshot(replace(snap(5, Status.COMPLETED), operation_id="4")), "p1", 1.0)}.get
    ledger.apply(replace(snap(9), operation_id="4"), "p1", 1.0)
    assert "4" not in ledger.operations


def test_each_change_is_told_and_numbered() -> None:
    """Who wants to know hears of each operation that changed, with rising numbers; what changed nothing is not told."""
    told: list[tuple[str, int]] = []
    ledger = Ledger(on_change=lambda entry: told.append((entry.head.operation_id, entry.revision)))
    for sequence in (1, 2, 1):
        ledger.apply(snap(sequence), "p1", 1.0)
    assert told == [("a", 1), ("a", 2)]


def test_owner_stays() -> None:
    """An operation belongs to whom it said first, although an event was too large to say it again."""
    ledger = Ledger()
    ledger.apply(snap(1, attributes=Attributes({s.OWNER: "ann"})), "p1", 1.0)
    ledger.apply(snap(2), "p1", 1.0)
    assert ledger.operations["a"].head.owner == "ann"


def test_number_of_operations_is_bounded_and_those_that_run_stay() -> None:
    """Where there is no room, those that ended first go; only then one that runs, and that is counted."""
    ledger = Ledger(most=3)
    for number in range(5):
        status = Status.COMPLETED if number % 2 else Status.RUNNING
        ledger.apply(replace(snap(1, status), operation_id=str(number)), "p1", 1.0)
    assert (sorted(ledger.operations), ledger.room.counts.total()) == (["0", "2", "4"], 0)
    ledger.apply(replace(snap(), operation_id="5"), "p1", 1.0)
    assert (sorted(ledger.operations), ledger.room.counts.total()) == (["2", "4", "5"], 1)
    assert len(ledger.open_of("p1")) == 3


def test_loss_closes_all_that_was_open() -> None:
    """A lost operation has no open stage, no wait and no ETA; its sequence is one above the last."""
    stages = (
        StageSnapshot("a", "a", Status.COMPLETED),
        StageSnapshot("b", "b", Status.WAITING),
        StageSnapshot("c", "b/c", Status.RUNNING),
        StageSnapshot("d", "d", Status.PENDING),
    )
    before = snap(5, Status.WAITING, stages=stages, wait=Wait("you", 1.0), progress=Progress(1, 2), elapsed=5.0)
    lost = lose(before, "gone", 115.0)
    assert [stage.status.value for stage in lost.stages] == ["completed", "lost", "lost", "pending"]
    assert (lost.status, lost.reason, lost.sequence, lost.wait) == (Status.LOST, "gone", 6, None)
    assert (lost.timestamp, lost.elapsed, lost.progress) == (115.0, 15.0, Progress(1, 2))
    assert lose(before, "gone", 50.0).timestamp == before.timestamp
    assert read(said(lost)) is not None


@pytest.mark.parametrize("folded", [0, 40])
def test_a_stage_that_was_open_at_the_loss_is_one_of_its_runs(folded: int) -> None:
    """Where the time went is asked of what was lost: the run that hung counts, with all of its time."""
    listed = [StageSnapshot("f", "f", Status.COMPLETED, started_at=at, elapsed=2.0) for at in (100.0, 102.0)]
    runs = Runs()
    for _ in range(2 + folded):
        runs.add("completed", 2.0)
    hangs = StageSnapshot("f", "f", Status.RUNNING, started_at=104.0, elapsed=1.0)
    before = snap(5, stages=(*listed, hangs), repeated=(runs.seen("f", folded),), elapsed=5.0)
    lost = lose(before, "gone", before.timestamp + 7)
    (found,) = lost.repeated
    assert (dict(found.counts), found.seconds) == ({"completed": 2 + folded, "lost": 1}, 2.0 * (2 + folded) + 8.0)
    assert (found.longest, found.folded, lost.stages[-1].elapsed) == (8.0, folded, 8.0)


def test_a_second_run_that_was_open_at_the_loss_makes_the_stage_a_repeated_one() -> None:
    """One that had ended was no repeated stage before."""
    first = StageSnapshot("f", "f", Status.COMPLETED, started_at=100.0, elapsed=2.0)
    lost = lose(snap(5, stages=(first, replace(first, status=Status.RUNNING))), "gone")
    assert [(runs.path, dict(runs.counts)) for runs in lost.repeated] == [("f", {"completed": 1, "lost": 1})]


def counted(sequence: int, completed: int, **more: Any) -> Snapshot:
    """An operation that has counted, one second after the other."""
    return snap(sequence, elapsed=float(sequence), progress=Progress(completed, 100), **more)


def test_the_curve_of_an_open_operation_is_kept() -> None:
    """Most events carry only the present: what was heard makes the curve, also that of an operation presumed lost."""
    ledger = Ledger()
    for sequence in (1, 3, 5):
        ledger.take(said(counted(sequence, 10 * sequence)), "p1", 0.0)
    assert ledger.operations["a"].curve_so_far == ((0.0, 0), (1.0, 10), (3.0, 30), (5.0, 50))
    ledger.take(said(counted(4, 40)), "p1", 0.0)  # late: it changes nothing
    lost = ledger.presume_lost("a", "killed")
    assert lost is not None
    assert lost.snapshot.curve == ((0.0, 0), (1.0, 10), (3.0, 30), (5.0, 50))


def test_a_told_curve_replaces_what_was_heard() -> None:
    """A monitor that starts late, or again, has the whole curve with the first event that carries it."""
    ledger = Ledger()
    ledger.take(said(counted(50, 50)), "p1", 0.0)
    told = ((10.0, 5), (20.0, 20), (60.0, 60))
    ledger.take(said(counted(60, 60, curve=told)), "p1", 0.0)
    ledger.take(said(counted(70, 90)), "p1", 0.0)
    assert ledger.operations["a"].curve_so_far == ((10.0, 5), (20.0, 20), (60.0, 60), (70.0, 90))


def test_each_attempt_has_a_curve_of_its_own() -> None:
    """A new attempt starts a new curve."""
    ledger = Ledger()
    ledger.take(said(counted(5, 50)), "p1", 0.0)
    ledger.take(said(counted(1, 3, started=200.0, attempt=2)), "p2", 0.0)
    assert ledger.operations["a"].curve_so_far == ((0.0, 0), (1.0, 3))


@pytest.mark.parametrize("told", ["no JSON", "[[", '{"a": 1}', "[[1, 2], 3, [4]]", "[" * 2000])
def test_an_invalid_curve_is_skipped(told: str) -> None:
    """Senders are untrusted: the event counts, its curve does not."""
    ledger = Ledger()
    event = said(counted(5, 50))
    event.attributes[s.CURVE] = told
    assert ledger.take(event, "p1", 0.0) is not None
    assert ledger.operations["a"].curve is not None


def test_a_lost_run_that_counted_all_states_no_percentage() -> None:
    """Nor does its stage: 99% would suggest that something was left. What is known of the rest stays."""
    whole, half = Progress(300, 300, "item", 0.9999, 0.9999), Progress(30, 60, "item", 0.5, 0.5)
    stages = (
        StageSnapshot("load", "load", Status.RUNNING, whole),
        StageSnapshot("check", "check", Status.RUNNING, half),
    )
    lost = lose(snap(1, progress=whole, stages=stages), "gone")
    assert [one.progress.stated for one in (lost, *lost.stages)] == [None, None, 0.5]
    assert lost.progress.completed == 300
