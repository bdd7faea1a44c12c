"""What is shown: JSON whatever came in, and the state as it is now."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from monitor_parts import Parts, seconds

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.model.estimate import Estimate
from otel_progress.model.snapshot import Branch, Progress, Snapshot, StageSnapshot, Wait
from otel_progress.model.stage_runs import StageRuns
from otel_progress.model.status import Health, Status
from otel_progress.model.timeline import timeline
from otel_progress.model.values import Attributes
from otel_progress.monitor.state.saved import HistoryEvent
from otel_progress.monitor.web.detail_json import event_json
from otel_progress.monitor.web.dump import dump
from otel_progress.testing import FakeClock

AT = 1_700_000_000.0


def snap(sequence: int = 1, status: Status = Status.RUNNING, key: str = "a", **more: Any) -> Snapshot:
    """A snapshot of an operation."""
    known = {"timestamp": AT + sequence, "started_at": AT, **more}
    return Snapshot(key, "work", status, sequence=sequence, **known)


def text(monitor: Parts, key: str = "a") -> dict[str, Any]:
    """The row as it is kept ready."""
    entry = monitor.core.ledger.find(key)
    assert entry is not None
    found: dict[str, Any] = json.loads(monitor.views.row_text(entry))
    return found


def detail(monitor: Parts, key: str = "a") -> dict[str, Any]:
    """All there is."""
    entry = monitor.core.ledger.find(key)
    assert entry is not None
    found: dict[str, Any] = json.loads(dump(monitor.views.detail(entry)))
    return found


# -- one language


def test_rows_and_details_speak_as_to_dict_does(monitor: Parts) -> None:
    """The keys that a bar, a list and a history need are those of `Snapshot.to_dict()`, with the same values."""
    seen = snap(
        5,
        stall_after=300.0,
        elapsed=60.0,
        stage="parse",
        progress=Progress(4, 10, "file", 0.4, 0.4, 0.1, Estimate(60.0, 50.0, 90.0, "rate")),
        stages=(
            StageSnapshot("load", "load", Status.COMPLETED, started_at=AT, elapsed=2.0, planned=True),
            StageSnapshot("parse", "parse", Status.RUNNING, started_at=AT + 2, planned=True),
            StageSnapshot("report", "report", Status.PENDING, planned=True),
        ),
        repeated=(StageRuns("load", Attributes({"completed": 3, "failed": 1}), 9.0, 2.0, 3.0, 3.0, 3.0, 0),),
    )
    monitor.say(seen)
    own, row, all_of_it = seen.to_dict(), text(monitor), detail(monitor)
    for key in ("operation_id", "name", "status", "percentage", "current_step", "eta"):
        assert row[key] == all_of_it[key] == own[key], key
    assert row["verdict"]["health"] == own["verdict"]["health"] == "progressing"
    for key in (
        *("current_stage", "total_stages", "stages_completed", "failed_stage", "stage_history", "elapsed_time"),
        *("average_stage_duration", "estimated_completion", "updated_at", "repeated", "attributes", "result"),
    ):
        assert all_of_it[key] == own[key], key
    assert (row["percentage"], row["eta"]["seconds"], all_of_it["current_stage"]) == (40, 60, 1)
    assert (row["id"], row["progress"]["percentage"]) == ("a", 40)


def test_what_is_not_known_is_null(monitor: Parts) -> None:
    """A row has the keys of a bar whatever it knows, so that no reader computes with what is not there."""
    monitor.say(snap(1, Status.COMPLETED))
    row = text(monitor)
    assert {key: row[key] for key in ("percentage", "current_step", "eta", "verdict")} == {
        "percentage": None,
        "current_step": None,
        "eta": None,
        "verdict": None,
    }


def test_the_verdict_says_stuck(monitor: Parts) -> None:
    """What the wire calls silent is stuck for whoever reads the API."""
    monitor.say(snap(1, health=Health.SILENT, idle=400.0, stall_after=300.0))
    assert text(monitor)["verdict"]["health"] == detail(monitor)["verdict"]["health"] == "stuck"


# -- JSON

TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.characters(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner),
    max_leaves=10,
)


@given(TREES)
def test_whatever_it_is_it_is_json_in_one_line(value: object) -> None:
    """No NaN, no half of a character, and nothing that any reader of lines takes for an end."""
    found = dump(value)
    assert len(found.encode().decode().splitlines()) == 1
    json.loads(found, parse_constant=lambda name: pytest.fail(name))


@pytest.mark.parametrize(
    "odd", ["\ud800", "a\u2028b\u2029c\x85d", "\n\nevent: hello", float("nan"), {1: b"x"}, {"a": {None: 1}}]
)
def test_odd_values(odd: Any) -> None:
    """Values that JSON does not have are told as near as it can."""
    found = dump({"x": odd})
    assert len(found.encode().splitlines()) == len(found.splitlines()) == 1
    assert "x" in json.loads(found)


def test_what_is_nested_without_end_is_cut() -> None:
    """However deep, it is told so far."""
    value: Any = float("nan")
    for _ in range(100_000):
        value = [value]
    assert "…" in dump(value)


# -- rows


def test_row_that_is_kept_ready_changes_with_children(monitor: Parts) -> None:
    """A row that was made before the first child came shows it as soon as it has."""
    monitor.say(snap(1))
    assert "children" not in text(monitor)
    monitor.say(snap(1, key="b", parent_id="a", usage=Attributes({"cost.USD": 2.0})))
    assert (text(monitor)["children"], text(monitor)["cost"]) == (1, {"USD": 2.0})


def test_evidence_of_trouble_is_that_of_now(monitor: Parts, fake: FakeClock) -> None:
    """A row of one that is stuck does not go on to show for how long it was when somebody looked first."""
    monitor.say(snap(1, idle=5.0, stall_after=5.0))
    monitor.tick()
    assert text(monitor)["verdict"]["reason"] == "no progress for 5 s, stall_after is 5 s"
    seconds(fake, monitor, 60)
    assert text(monitor)["verdict"]["reason"] == "no progress for 65 s, stall_after is 5 s"


def test_what_is_stuck_or_dead_has_no_estimate(monitor: Parts, fake: FakeClock) -> None:
    """Beside a verdict that it does not move there is no time at which it will be done."""
    going = Progress(5, 10, eta=Estimate(5.0, 3.0, 8.0, "rate"))
    monitor.say(snap(1, progress=going))
    assert text(monitor)["progress"]["eta"]["seconds"] == 5.0
    monitor.say(snap(2, progress=going, idle=5.0, stall_after=5.0))
    monitor.tick()
    assert "eta" not in text(monitor)["progress"]
    assert "eta" not in detail(monitor)["progress"]
    monitor.say(snap(3, progress=going))
    monitor.beat()
    for _ in range(30):
        monitor.beat("p2")
        seconds(fake, monitor, 1)
    assert text(monitor)["verdict"]["health"] == "dead"
    assert "eta" not in text(monitor)["progress"]


def test_row_of_one_whose_stage_alone_counts(monitor: Parts) -> None:
    """What the innermost running stage counts is told beside, from nothing done on."""
    for completed in (0, 7):
        stage = StageSnapshot("load", "load", Status.RUNNING, Progress(completed, 10, "file", completed / 10))
        monitor.say(snap(completed + 1, stage="load", stages=(stage,)))
        row = text(monitor)
        assert "ratio" not in row["progress"]
        assert (row["stage_progress"]["completed"], row["stage_progress"]["percentage"]) == (completed, completed * 10)
    monitor.say(snap(20, stage="load", stages=(StageSnapshot("load", "load", Status.RUNNING),)))
    assert "stage_progress" not in text(monitor)


def test_figures_below_one_that_ended_stay_when_it_is_held_no_more(monitor: Parts) -> None:
    """The cost of what an old operation called is shown for as long as it is kept, in lists and alone."""
    monitor.core.ledger.most_ended = 1
    spent = Attributes({"cost.USD": 1.0})
    monitor.say(snap(2, key="top"))
    monitor.say(snap(2, Status.COMPLETED, "child", parent_id="top", usage=spent), event=s.OPERATION_ENDED)
    monitor.say(snap(3, Status.COMPLETED, "top", usage=spent), event=s.OPERATION_ENDED)
    assert text(monitor, "top")["cost"] == {"USD": 2.0}
    for number in range(8):
        monitor.say(snap(1, Status.COMPLETED, f"other{number}"), event=s.OPERATION_ENDED)
    assert set(monitor.core.ledger.operations) & {"top", "child"} == set()
    row = text(monitor, "top")
    assert (row["cost"], row["children"]) == ({"USD": 2.0}, 1)
    assert [child["id"] for child in detail(monitor, "top")["children_rows"]] == ["child"]


def test_detail_says_all_that_the_row_says(monitor: Parts) -> None:
    """The detail is the row and more; no child is no number."""
    monitor.say(snap(1, Status.WAITING, wait=Wait("approval", 1.0, 2.0), description="d", message="m"))
    row, whole = text(monitor), detail(monitor)
    assert {key: value for key, value in row.items() if key != "verdict"}.items() <= whole.items()
    assert row["verdict"].items() <= whole["verdict"].items()
    assert "children" not in whole
    assert (whole["process"]["instance"], whole["control"], whole["notes_url"]) == ("p1", False, "/operations/a/events")


def test_children_have_what_tells_them_apart(monitor: Parts) -> None:
    """The rows of children in a detail bear their attributes and description; those of lists do not."""
    monitor.say(snap(key="top"))
    monitor.say(snap(key="child", parent_id="top", description="of Bonn", attributes=Attributes({"city": "Bonn"})))
    (child,) = detail(monitor, "top")["children_rows"]
    assert (child["description"], child["attributes"]) == ("of Bonn", {"city": "Bonn"})
    assert "attributes" not in text(monitor, "child")


def test_detail_tells_how_many_children_failed(monitor: Parts) -> None:
    """Children that failed or were lost are an outcome of an operation that recorded none itself."""
    for key, status in {"b": Status.FAILED, "c": Status.LOST, "d": Status.COMPLETED}.items():
        monitor.say(snap(key=key, parent_id="top", status=status))
    monitor.say(snap(key="top"))
    assert detail(monitor, "top")["outcomes"] == {"failed": 2}
    monitor.say(snap(2, key="top", outcomes=Attributes({"ok": 1})))
    assert detail(monitor, "top")["outcomes"] == {"ok": 1}


def test_children_are_those_of_the_newest_attempt(monitor: Parts) -> None:
    """What ran below an attempt that is over is not listed below the next one."""
    monitor.say(snap(1))
    monitor.say(snap(2, key="old", status=Status.FAILED, parent_id="a"))
    monitor.say(snap(2, key="left", parent_id="a"), instance="p3")
    monitor.say(snap(1, attempt=2, started_at=AT + 50, timestamp=AT + 51), instance="p2")
    monitor.say(snap(1, key="new", parent_id="a", started_at=AT + 52, timestamp=AT + 53), instance="p2")
    found = detail(monitor)
    assert [one["id"] for one in found["children_rows"]] == ["left", "new"]
    assert found["children"] == 2


def test_ancestors_in_a_circle(monitor: Parts) -> None:
    """Operations that are each above the other have an end to what is above them."""
    monitor.say(snap(1, parent_id="b"))
    monitor.say(snap(1, key="b", parent_id="a"))
    assert [one["id"] for one in detail(monitor)["ancestors"]] == ["b"]
    assert [one["id"] for one in detail(monitor)["children_rows"]] == ["b"]


# -- time line


def happened(event: str, sequence: int, stage: str | None = None, **more: Any) -> HistoryEvent:
    """An event of a history."""
    return HistoryEvent("a", AT, 1, sequence, AT + sequence, event, stage, "said", attributes=json.dumps(more))


WAITS = [
    happened(s.WAIT_STARTED, 1, "load", **{s.WAIT_REASON: "you"}),
    happened(s.WAIT_ENDED, 3, "load"),
    happened(s.STALLED, 4, "load", **{s.HEALTH_REASON: "no progress"}),
    happened(s.RECOVERED, 6, "parse"),
    happened(s.WAIT_STARTED, 7, None),
]


@given(st.permutations(WAITS))
def test_waits_and_stalls_in_whatever_order_they_came(events: list[HistoryEvent]) -> None:
    """What begins and ends one is told by the numbers of its events; one that recovers elsewhere is over too."""
    found = timeline(events)
    assert [(one["kind"], one["from"] - AT, one["to"] and one["to"] - AT, one["reason"]) for one in found] == [
        ("wait", 1, 3, "you"),
        ("stall", 4, 6, "no progress"),
        ("wait", 7, None, "said"),
    ]


def test_stall_of_a_branch_ends_by_itself(monitor: Parts) -> None:
    """Of two branches that were stuck, one moves again: its stall is over, and the other one's goes on, each with its
    own reason and line; once all move, nothing is open."""

    def say(sequence: int, *stuck: str, event: str = s.UPDATED, **more: Any) -> None:
        health = {name: Health.SILENT if name in stuck else Health.PROGRESSING for name in "AB"}
        branches = tuple(Branch(name, health=health[name], idle=9.0, stall_after=5.0) for name in "AB")
        said = snap(sequence, health=Health.SILENT if stuck else Health.PROGRESSING, branches=branches, stage="A")
        monitor.say(said, event=event, **more)

    def stalls() -> list[tuple[Any, ...]]:
        found = detail(monitor)["timeline"]
        return [(one["stage"], one["from"] - AT, one["to"] and one["to"] - AT, one.get("stuck_at")) for one in found]

    for sequence, name, stuck in ((1, "A", "A"), (2, "B", "AB")):
        own = {
            s.STAGE_PATH: name,
            s.STUCK_BRANCHES: (name,),
            s.STUCK_AT: f"{name}.py:1",
            s.HEALTH_REASON: f"{name}: no",
        }
        say(sequence, *stuck, event=s.STALLED, **own)
    assert stalls() == [("A", 1, None, "A.py:1"), ("B", 2, None, "B.py:1")]
    assert [one["reason"] for one in detail(monitor)["timeline"]] == ["A: no", "B: no"]
    say(3, "B")
    assert stalls() == [("A", 1, 3, "A.py:1"), ("B", 2, None, "B.py:1")]
    assert [event.text for event in monitor.history() if event.sequence < 0] == ["work still stuck, but not A any more"]
    monitor.restart()
    say(4, "B")
    assert [event.event for event in monitor.history() if event.sequence < 0] == [s.RECOVERED]
    say(5, event=s.RECOVERED)
    assert [one[2] for one in stalls()] == [3, 5]


def test_stall_ends_with_its_stage() -> None:
    """A stage that is over is not stuck, also where no event says that it moved."""
    stalled = [happened(s.STALLED, 1, "A", **{s.STUCK_BRANCHES: ["A", "B"]})]
    stages = [
        StageSnapshot("A", "A", Status.COMPLETED, started_at=AT, elapsed=3.0),
        StageSnapshot("B", "B", Status.RUNNING, started_at=AT),
    ]
    assert [(one["stage"], one["to"]) for one in timeline(stalled, None, stages)] == [("A", AT + 3), ("B", None)]


def test_nothing_is_open_after_the_end(monitor: Parts) -> None:
    """A wait in which an operation was lost ends with it, although no event says so."""
    monitor.say(snap(1, Status.WAITING, wait=Wait("you", 0.0)), event=s.WAIT_STARTED)
    assert detail(monitor)["timeline"][0].get("to") is None
    monitor.core.ledger.presume_lost("a", "gone")
    assert detail(monitor)["timeline"][0]["to"] == AT + 1
    assert timeline([*WAITS, happened(s.OPERATION_ENDED, 9)])[-1]["to"] == AT + 9


def test_time_line_is_that_of_the_newest_run(monitor: Parts) -> None:
    """What another run of the id waited for, in another process and so with the same attempt, is not shown."""
    monitor.say(snap(1, Status.WAITING, wait=Wait("old", 0.0)), event=s.WAIT_STARTED)
    again = snap(1, Status.WAITING, wait=Wait("new", 0.0), started_at=AT + 50, timestamp=AT + 51)
    monitor.say(again, event=s.WAIT_STARTED, instance="p2")
    assert [one["reason"] for one in detail(monitor)["timeline"]] == ["new"]


def test_event_whose_attributes_can_not_be_read() -> None:
    """It is shown without them."""
    assert "attributes" not in event_json(1, HistoryEvent("a", AT, 1, 1, AT, s.NOTE, attributes="{"))
    assert "attributes" not in event_json(1, HistoryEvent("a", AT, 1, 1, AT, s.NOTE, attributes="[1]"))


# -- the moment of the answer


def test_clocks_go_on_to_the_moment_of_the_answer(monitor: Parts, fake: FakeClock) -> None:
    """Time spent, idle and waited is that of now, of stages too, in lists as alone; `timestamp` says of when it is."""
    load = StageSnapshot("load", "load", Status.RUNNING, started_at=AT, elapsed=1.0, idle=0.5)
    done = StageSnapshot("done", "done", Status.COMPLETED, started_at=AT, elapsed=1.0)
    monitor.say(snap(1, elapsed=1.0, idle=0.5, stages=(done, load)))
    monitor.say(snap(1, Status.WAITING, "b", elapsed=1.0, idle=0.5, wait=Wait("you", 0.25, 60.0)))
    for waited in (7.5, 10.0):
        fake.sleep(waited if waited == 7.5 else 2.5)
        for found in (text(monitor), detail(monitor)):
            assert (found["elapsed"], found["idle"]) == (1.0 + waited, 0.5 + waited)
            assert (found["timestamp"], found["said_at"]) == (AT + 1 + waited, AT + 1)
            assert found["as_of"] == pytest.approx(clock.unix(), abs=1e-3), "by the monitor's own clock"
        assert [(one["elapsed"], one["idle"]) for one in detail(monitor)["stages"]] == [
            (1.0, 0.0), (1.0 + waited, 0.5 + waited)
        ]  # fmt: skip
        for found in (text(monitor, "b"), detail(monitor, "b")):
            assert (found["elapsed"], found["idle"], found["wait"]["elapsed"]) == (1.0 + waited, 0.5, 0.25 + waited)


def test_estimate_runs_down_to_the_moment_of_the_answer(monitor: Parts, fake: FakeClock) -> None:
    """The ETA is that of `timestamp`, in lists as alone, of stages too; it runs down by the unit in hand, and ends when its time is over; a wait pauses it."""
    told = Progress(1, 4, "file", 0.25, 0.25, 0.1, Estimate(30.0, 20.0, 60.0, "rate"))
    load = StageSnapshot("load", "load", Status.RUNNING, told, started_at=AT, elapsed=1.0)
    monitor.say(snap(1, elapsed=1.0, stage="load", stages=(load,), progress=told))
    monitor.say(snap(1, Status.WAITING, "b", progress=told, wait=Wait("you", 0.25, 60.0)))
    text(monitor)
    fake.sleep(12)
    monitor.beat()
    for found in (text(monitor), detail(monitor)):
        assert found["timestamp"] == AT + 13
        assert [found["eta"][key] for key in ("seconds", "low", "high")] == [21, 14, 51]
        assert found["progress"]["eta"]["seconds"] == found["stage_progress"]["eta"]["seconds"] == 21
    found = detail(monitor)
    assert (found["eta"]["seconds"], found["stages"][0]["progress"]["eta"]["seconds"]) == (21, 21)
    fake.sleep(20)
    monitor.beat()
    for found in (text(monitor), detail(monitor)):
        assert found["eta"] is None
        assert "eta" not in found["progress"]
        assert "eta" not in found["stage_progress"]
    assert "eta" not in detail(monitor)["stages"][0]["progress"]
    for found in (text(monitor, "b"), detail(monitor, "b")):
        assert found["eta"]["seconds"] == 30


def test_estimate_by_children_runs_down(monitor: Parts, fake: FakeClock) -> None:
    """An ETA that comes from children is that of the answer, too, and ends with theirs."""
    told = Progress(1, 4, "file", 0.25, 0.25, 0.1, Estimate(30.0, 20.0, 60.0, "rate"))
    monitor.say(snap(1, progress=Progress(0, 2, "item", 0.0, 0.0)))
    for key in "bc":
        monitor.say(snap(1, key=key, parent_id="a", progress=told), instance=f"p-{key}")
    assert text(monitor)["eta"]["seconds"] == 30
    fake.sleep(12)
    for instance in ("p1", "p-b", "p-c"):
        monitor.beat(instance)
    assert text(monitor)["eta"]["seconds"] == 21
    fake.sleep(20)
    for instance in ("p1", "p-b", "p-c"):
        monitor.beat(instance)
    assert text(monitor)["eta"] is None


def test_clocks_stop_with_the_last_sign_of_life(monitor: Parts, fake: FakeClock) -> None:
    """Of one whose process is dead, nobody knows whether it went on after that; of one that ended, all is said."""
    seconds(fake, monitor, 20)
    monitor.say(snap(1, elapsed=1.0))
    monitor.beat(interval=2.0)
    seconds(fake, monitor, 3)
    monitor.beat(interval=2.0)
    seconds(fake, monitor, 60)
    row = text(monitor)
    assert (row["state"], row["elapsed"], row["timestamp"]) == ("dead", 4.0, AT + 4)
    monitor.say(snap(9, Status.COMPLETED, elapsed=9.0), event=s.OPERATION_ENDED)
    fake.sleep(60)
    assert (text(monitor)["elapsed"], text(monitor)["timestamp"]) == (9.0, AT + 9)


def test_where_it_is_stuck_goes_when_it_moves_or_ends(monitor: Parts) -> None:
    """A line of code is where it is stuck, and not where it once was."""
    stuck = {"idle": 9.0, "stall_after": 5.0, "stuck_at": "a.py:1 in f", "stack": "a\nb"}
    monitor.say(snap(1, health=Health.SILENT, **stuck), event=s.STALLED)
    assert (detail(monitor)["stuck_at"], detail(monitor)["stack"]) == ("a.py:1 in f", "a\nb")
    for number, status in enumerate((Status.RUNNING, Status.FAILED), 2):
        monitor.say(snap(number, status, **{**stuck, "idle": 0.0}))
        assert {"stuck_at", "stack"} & detail(monitor).keys() == set()


# -- one number


def child(key: str, ratio: float | None = None, status: Status = Status.RUNNING, sequence: int = 1) -> Snapshot:
    """A child of `a`."""
    return snap(sequence, status, key, parent_id="a", progress=Progress(ratio=ratio, ratio_raw=ratio))


def test_number_is_that_of_its_own_count_once_it_begins(monitor: Parts) -> None:
    """A pool of chunks: first the children make the percentage, then the count of the parent, which is beside it."""

    def told(completed: int, status: Status = Status.RUNNING) -> Snapshot:
        ratio = completed / 12
        return snap(2 + completed, status, progress=Progress(completed, 12, "chunk", ratio, ratio))

    monitor.say(told(0))
    for key in "bcde":
        monitor.say(child(key, 0.8), instance=f"p-{key}")
    shown = [text(monitor)["percentage"]]
    assert shown == [26.67]
    for completed in range(1, 12):
        monitor.say(told(completed))
        if completed == 5:
            monitor.tick()
            monitor.restart()
        found = text(monitor)
        assert (found["progress"]["completed"], found["progress"]["total"]) == (completed, 12)
        assert "rolled_up" not in found["progress"]
        shown.append(found["percentage"])
    assert shown[1:] == [round(completed / 12 * 100, 2) for completed in range(1, 12)]
    monitor.say(told(12, Status.COMPLETED), event=s.OPERATION_ENDED)
    assert text(monitor)["percentage"] == 100


def test_number_of_a_failure_does_not_fall(monitor: Parts) -> None:
    """At another end, too, it is at least what was shown."""
    monitor.say(snap(1, progress=Progress(0, 12, "chunk", 0.0, 0.0)))
    for key in "bcde":
        monitor.say(child(key, 0.8), instance=f"p-{key}")
    before = text(monitor)["percentage"]
    failed = snap(3, Status.FAILED, progress=Progress(1, 12, "chunk", 1 / 12, 1 / 12))
    monitor.say(failed, event=s.OPERATION_ENDED)
    assert text(monitor)["percentage"] >= before > 8.4


def test_a_pool_without_a_total_has_neither_percentage_nor_estimate(monitor: Parts, fake: FakeClock) -> None:
    """Two workers take 24 tasks in turn, and the parent names no total: whoever sees two of them knows nothing of the rest."""
    monitor.say(snap(1))
    for task in range(24):
        key, instance = f"task-{task}", f"p{task % 2}"
        soon = Progress(8, 10, "item", 0.8, 0.8, 4.0, Estimate(0.5, 0.4, 0.6, "rate"))
        monitor.say(snap(1, key=key, parent_id="a", progress=soon), instance=instance)
        found = text(monitor)
        assert (found["percentage"], found["eta"]) == (None, None)
        if task:
            done = snap(2, Status.COMPLETED, key=f"task-{task - 1}", parent_id="a")
            monitor.say(done, event=s.OPERATION_ENDED, instance=f"p{(task - 1) % 2}")
            found = text(monitor)
            assert (found["percentage"], found["eta"]) == (None, None)
    monitor.say(snap(2, progress=Progress(0, 24, "item", 0.0, 0.0)))
    assert text(monitor)["percentage"] == pytest.approx(100 * 23.8 / 24, abs=0.01)


def test_a_parent_is_not_idle_while_something_below_it_moves(monitor: Parts, fake: FakeClock) -> None:
    """Its own process counts nothing for minutes; the newest progress below it, in other processes, is what it shows."""
    monitor.say(snap(1, idle=0.0))
    monitor.say(snap(1, key="b", parent_id="a", idle=0.0), instance="p2")
    for second in range(1, 4):
        fake.sleep(10)
        for instance in ("p1", "p2", "p3"):
            monitor.beat(instance)
        monitor.say(snap(second, key="c", parent_id="b", idle=1.0), instance="p3")
        assert text(monitor)["idle"] == text(monitor, "b")["idle"] == pytest.approx(1, abs=1)
    fake.sleep(5)
    for instance in ("p1", "p2", "p3"):
        monitor.beat(instance)
    assert text(monitor)["idle"] == pytest.approx(6, abs=1)


def test_more_children_than_the_total_take_the_percentage_back(monitor: Parts) -> None:
    """A total of two with three children counts something else: what was shown is not known any more."""
    monitor.say(snap(1, progress=Progress(0, 2, "item", 0.0, 0.0)))
    for number, key in enumerate("bcd"):
        monitor.say(child(key, 0.5), instance=f"p-{key}")
        assert text(monitor)["percentage"] == (25 * (number + 1) if number < 2 else None)


def test_beyond_its_total_after_its_children_counted(monitor: Parts) -> None:
    """A parent whose children were counted and that goes beyond its own total by itself has no percentage."""
    monitor.say(snap(1, progress=Progress(0, 4, "item", 0.0, 0.0)))
    monitor.say(child("b", 0.8), instance="p2")
    assert text(monitor)["percentage"] == 20
    monitor.say(snap(2, progress=Progress(9, 4, "item", None, None, 2.0)))
    found = text(monitor)
    assert (found["percentage"], found["progress"]["completed"], found["progress"]["rate"]) == (None, 9, 2.0)


def test_rolled_up_number_never_goes(monitor: Parts) -> None:
    """More children, one that tells nothing, all of them over, a restart: within an attempt it stays, and says how far they are."""
    monitor.say(snap(1, progress=Progress(0, 4, "item", 0.0, 0.0)))
    shown = []

    def look() -> None:
        shown.append(text(monitor)["progress"].get("ratio"))

    monitor.say(child("b", 0.8), instance="p2")
    look()
    for key in "cd":
        monitor.say(child(key, 0.0), instance=f"p-{key}")
        look()
    monitor.tick()
    monitor.restart()
    look()
    monitor.say(child("e"), instance="p5")
    look()
    for number, key in enumerate("bcde"):
        monitor.say(child(key, 1.0, Status.COMPLETED, 9), event=s.OPERATION_ENDED, instance=f"q{number}")
        look()
    monitor.say(snap(2, progress=Progress(0, 4, "item", 0.0, 0.0)))
    look()
    assert None not in shown
    assert shown[0] == pytest.approx(0.8 / 4)
    assert shown[2] == pytest.approx(0.8 / 4)
    assert shown[2:] == sorted(shown[2:])
    assert shown[-1] < 1
    monitor.say(snap(3, Status.COMPLETED), event=s.OPERATION_ENDED)
    assert text(monitor)["progress"]["percentage"] == 100
    monitor.say(snap(100, started_at=AT + 99), instance="p9")
    assert "ratio" not in text(monitor)["progress"] or text(monitor)["progress"]["ratio"] < 1


@pytest.mark.parametrize(
    ("status", "progress", "shown"),
    [
        (Status.FAILED, Progress(ratio=0.9999), {}),
        (Status.FAILED, Progress(3, 10, "file", 0.3), {"ratio": 0.3, "completed": 3, "total": 10}),
        (Status.COMPLETED, Progress(0, 2, "item", 1.0), {"ratio": 1.0}),
        (Status.COMPLETED, Progress(2, 2, "item", 1.0), {"ratio": 1.0, "completed": 2, "total": 2}),
        (Status.LOST, Progress(ratio=0.0), {}),
    ],
)
def test_number_at_the_end(monitor: Parts, status: Status, progress: Progress, shown: dict[str, Any]) -> None:
    """What failed was not at 99%, what completed not at 100% with 0 of 2, what a stage did not at 0%."""
    stage = StageSnapshot("load", "load", status, Progress(12, 20, "row", 0.6))
    monitor.say(snap(9, status, progress=progress, stage="load", stages=(stage,)), event=s.OPERATION_ENDED)
    found = text(monitor)
    assert {key: value for key, value in found["progress"].items() if key in ("ratio", "completed", "total")} == shown
    assert (found["stage_progress"]["completed"], found["stage_progress"]["total"]) == (12, 20)


def test_what_was_stuck_before_the_monitor_was_away_stays_visible(monitor: Parts, fake: FakeClock) -> None:
    """Until its process is heard again, the row says that, what was known before, and stays marked as trouble."""
    for _ in range(4):
        fake.sleep(5)
        monitor.beat()
    stuck = {"health": Health.SILENT, "health_reason": "no progress for 40 s", "stuck_at": "a.py:1 in f"}
    monitor.say(snap(2, **stuck), event=s.STALLED)
    assert monitor.row()["state"] == "stuck"
    monitor.restart()
    fake.sleep(3)
    while not monitor.core.loading.done:
        monitor.core.loading.step()
    row = monitor.row()
    assert (row["state"], row["trouble"], row["stuck_at"]) == ("unknown", True, "a.py:1 in f")
    assert row["verdict"]["reason"] == (
        "the monitor was not listening until 3 s ago; before that: stuck, no progress for 40 s"
    )
    entry = monitor.core.ledger.find("a")
    assert entry is not None
    assert monitor.views.is_trouble(entry)
