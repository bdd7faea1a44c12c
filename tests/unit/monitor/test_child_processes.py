"""A parent whose children run in other processes: it is as well as they are, and what its process says is no alarm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monitor_parts import Parts, Recorder, beat_of, event_of, fake_time, names, parts, request_of, seconds

from otel_progress import semconv as s
from otel_progress.cli.report.lines_file import read_snapshot
from otel_progress.model.loop import Loop
from otel_progress.model.snapshot import Branch, Snapshot, SpanIds, StageSnapshot, Wait
from otel_progress.model.statistics import statistics_of
from otel_progress.model.status import Health, Status
from otel_progress.model.values import Attributes
from otel_progress.monitor.state.child_processes import STOPPED
from otel_progress.monitor.state.ledger import Ledger
from otel_progress.monitor.state.verdicts import Observer
from otel_progress.testing import FakeClock

AT = 1_700_000_000.0


class Scene:
    """A monitor, and what it passes on to people."""

    def __init__(self, monitor: Parts, fake: FakeClock) -> None:
        self.monitor = monitor
        self.fake = fake
        self.heard = Recorder()
        self.sequences: dict[str, int] = {}
        self.plug()

    def plug(self) -> None:
        """Listen."""
        self.monitor.core.listen(self.heard)

    def say(
        self, key: str, health: Health = Health.PROGRESSING, event: str = s.UPDATED, instance: str = "", **more: Any
    ) -> None:
        """An operation, in a process of its own unless said otherwise, says how it is."""
        number = self.sequences[key] = self.sequences.get(key, 0) + 1
        idle = 3.0 if health is Health.SILENT else 0.0
        known = {"started_at": AT, "idle": idle, "stall_after": 2.0, "health": health, "status": Status.RUNNING, **more}
        one = Snapshot(key, "work", timestamp=AT + number, sequence=number, **known)
        trace = None if one.span is None else one.span.trace_id
        self.monitor.say(one, event=event, instance=instance or f"p-{key}", trace=trace)

    def stall(self, key: str = "parent", **more: Any) -> None:
        """Its process calls it stuck."""
        self.say(key, Health.SILENT, s.STALLED, **more)

    def end(self, key: str, status: Status = Status.COMPLETED, **more: Any) -> None:
        """It ends."""
        self.say(key, event=s.OPERATION_ENDED, status=status, **more)

    def told(self) -> list[tuple[str, str]]:
        """What people heard of stalls, recoveries and deaths."""
        said = [
            ({s.STALLED: "stalled", s.RECOVERED: "recovered"}[one.record.event], one.head.operation_id)
            for one in self.heard.events
            if one.head is not None and not one.held and one.record.event in (s.STALLED, s.RECOVERED)
        ]
        return said + self.heard.conclusions

    def verdict(self, key: str = "parent") -> dict[str, Any]:
        """The verdict that is shown."""
        found: dict[str, Any] = self.monitor.row(key)["verdict"]
        return found


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A parent that began, in a process of its own."""
    with fake_time() as fake, parts(tmp_path / "m.db") as monitor:
        found = Scene(monitor, fake)
        found.say("parent")
        yield found


def test_parent_is_as_well_as_its_child_in_another_process(scene: Scene) -> None:
    """A stall that its process can't know to be none is overruled, with the child as evidence, and nobody is told."""
    scene.say("child", parent_id="parent")
    scene.stall()
    verdict = scene.verdict()
    assert (verdict["health"], verdict["child"]) == ("progressing", "child")
    assert verdict["reason"] == "waits for child work/child in another process, which is progressing"
    row = scene.monitor.row("parent")
    assert (row["state"], "trouble" in row, "stuck_at" in row) == ("progressing", False, False)
    seconds(scene.fake, scene.monitor, 60)
    assert scene.told() == []
    assert s.STALLED not in names(scene.monitor.history("parent"))
    scene.say("parent", event=s.RECOVERED)
    assert scene.told() == []
    assert s.RECOVERED not in names(scene.monitor.history("parent"))


def test_recovery_right_before_the_end_of_a_parent_whose_stall_was_held_back(scene: Scene) -> None:
    """The recovery that is sent with the end has the final status, and ends a stall that the history never had."""
    scene.say("child", parent_id="parent")
    scene.stall()
    scene.end("child", parent_id="parent")
    scene.say("parent", event=s.RECOVERED, status=Status.COMPLETED)
    scene.end("parent")
    assert scene.told() == []
    assert not {s.STALLED, s.RECOVERED} & set(names(scene.monitor.history("parent")))


def test_child_is_frozen_where_that_is_proven(scene: Scene) -> None:
    """Its parent uses the word that its own row has."""
    scene.monitor.core.observer.is_stopped = {"p-child": "stopped (pid 7, state T)"}.get
    seconds(scene.fake, scene.monitor, 20)
    scene.say("child", parent_id="parent")
    scene.monitor.take(request_of(beat_of(), instance="p-child"))
    seconds(scene.fake, scene.monitor, 20)
    scene.stall()
    assert (scene.monitor.row("child")["state"], scene.verdict()["health"]) == ("frozen", "stuck")
    assert "which is frozen (its process is stopped (pid 7, state T);" in scene.verdict()["reason"]


def test_parent_without_a_child_elsewhere_is_stuck_at_once(scene: Scene) -> None:
    """A child in the parent's own process is that process's business, also one that moves."""
    scene.say("inside", parent_id="parent", instance="p-parent")
    scene.stall()
    assert scene.verdict()["health"] == "stuck"
    assert scene.monitor.row("parent")["state"] == "stuck"
    assert scene.told() == [("stalled", "parent")]


def test_child_that_ended_leaves_the_parent_time_to_notice(scene: Scene) -> None:
    """Its idle clock starts at the end of the child: stuck is who makes no progress for its own limit after that."""
    scene.say("child", parent_id="parent")
    scene.stall()
    seconds(scene.fake, scene.monitor, 30)
    scene.end("child", parent_id="parent")
    assert scene.verdict()["reason"] == "its child work/child in another process ended 0 s ago"
    scene.fake.sleep(1.75)
    assert scene.verdict()["health"] == "progressing"
    scene.fake.sleep(0.25)
    assert scene.verdict()["health"] == "stuck"
    scene.monitor.tick()
    scene.monitor.tick()
    assert scene.told() == [("stalled", "parent")]
    assert names(scene.monitor.history("parent")).count(s.STALLED) == 1
    scene.say("parent", event=s.RECOVERED)
    assert scene.told() == [("stalled", "parent"), ("recovered", "parent")]


def test_child_that_is_stuck_makes_the_parent_stuck_and_is_named(scene: Scene) -> None:
    """Then the stall is told, with the child."""
    scene.say("child", parent_id="parent")
    scene.stall()
    scene.stall("child", parent_id="parent")
    verdict = scene.verdict()
    assert (verdict["health"], verdict["child"]) == ("stuck", "child")
    assert verdict["reason"].startswith("waits for child work/child in another process, which is stuck (no progress")
    scene.monitor.tick()
    scene.monitor.tick()
    assert sorted(scene.told()) == [("stalled", "child"), ("stalled", "parent")]


def children() -> list[Any]:
    """A child, and what its parent is for it."""
    return [
        pytest.param({"slow_after": 1.0, "elapsed": 5.0}, "slow", id="slow"),
        pytest.param({"status": Status.WAITING, "wait": Wait("you", 1.0, 60.0)}, "waiting", id="waiting"),
        pytest.param({"status": Status.WAITING, "wait": Wait("you", 9.0, 5.0)}, "overdue", id="overdue"),
        pytest.param({"status": Status.PENDING, "started_at": None}, "waiting", id="pending"),
        pytest.param({"health": Health.LOOPING, "loop": Loop("step", ("x",), 9, 5, 3.0)}, "looping", id="looping"),
    ]


@pytest.mark.parametrize(("child", "state"), children())
def test_parent_is_as_well_as_its_child_whatever_that_is(scene: Scene, child: dict[str, Any], state: str) -> None:
    """Slow, waiting, overdue, not started or looping: so is what waits for it."""
    scene.say("child", parent_id="parent", **child)
    scene.stall()
    assert scene.monitor.row("parent")["state"] == state
    assert scene.verdict()["child"] == "child"


def test_dead_child_makes_the_parent_stuck(scene: Scene) -> None:
    """The parent lives, and will wait in vain: it is stuck, and says why."""
    seconds(scene.fake, scene.monitor, 20)
    scene.say("child", parent_id="parent")
    scene.monitor.beat("p-child", interval=2.0)
    scene.stall()
    assert scene.verdict()["health"] == "progressing"
    seconds(scene.fake, scene.monitor, 6)
    assert scene.verdict("child")["health"] == "dead"
    assert scene.verdict()["health"] == "stuck"
    assert "which is dead (its process was not heard of" in scene.verdict()["reason"]
    scene.monitor.tick()
    assert sorted(scene.told()) == [("dead", "child"), ("stalled", "parent")]


def test_lost_child_is_over(scene: Scene) -> None:
    """A child that is lost by proof has ended: the parent has its limit to notice, then it is stuck."""
    scene.say("child", parent_id="parent")
    scene.stall()
    scene.end("child", Status.LOST, parent_id="parent")
    assert scene.verdict()["health"] == "progressing"
    scene.fake.sleep(2)
    assert scene.verdict()["health"] == "stuck"


def test_worst_of_several_children_counts(scene: Scene) -> None:
    """One that moves does not hide one that is stuck; one that ended hides nothing."""
    for key in ("one", "two", "three"):
        scene.say(key, parent_id="parent")
    scene.stall()
    scene.end("one", parent_id="parent")
    assert scene.verdict()["health"] == "progressing"
    scene.stall("two", parent_id="parent")
    assert (scene.verdict()["health"], scene.verdict()["child"]) == ("stuck", "two")


def test_over_several_levels_and_processes(scene: Scene) -> None:
    """Each level that its process calls stuck is as well as what is below it; also where two share a process."""
    scene.say("middle", parent_id="parent", instance="p-parent")
    scene.say("low", parent_id="middle")
    scene.say("lowest", parent_id="low")
    for key, above, instance in (("low", "middle", ""), ("middle", "parent", "p-parent")):
        scene.stall(key, parent_id=above, instance=instance)
    scene.stall()
    assert [scene.verdict(key)["health"] for key in ("parent", "middle", "low", "lowest")] == ["progressing"] * 4
    assert [scene.verdict(key)["child"] for key in ("parent", "middle", "low")] == ["middle", "low", "lowest"]
    scene.stall("lowest", parent_id="low")
    scene.monitor.tick()
    assert [scene.verdict(key)["health"] for key in ("parent", "middle", "low", "lowest")] == ["stuck"] * 4
    assert len(scene.told()) == 4


def lanes(*stuck: str, **more: Any) -> dict[str, Any]:
    """A parent with two stages side by side, of which these are stuck."""
    stages = tuple(
        StageSnapshot(name, name, Status.RUNNING, started_at=AT, span_id=letter * 16)
        for name, letter in zip("xy", "ab")
    )
    health = {name: Health.SILENT if name in stuck else Health.PROGRESSING for name in "xy"}
    known = {"idle": 9.0, "stall_after": 2.0, **more}
    branches = tuple(Branch(path=name, health=health[name], **known) for name in "xy")
    return {"stages": stages, "branches": branches}


def in_stage(scene: Scene, key: str, above: str, event: str = s.UPDATED, **more: Any) -> None:
    """A child in a process of its own, started by the stage with this span, says how it is."""
    scene.say(key, event=event, parent_id="parent", span=SpanIds("1" * 32, "2" * 16, above * 16), **more)


def branches(scene: Scene) -> dict[str, dict[str, Any]]:
    """The branches of the parent that are shown."""
    entry = scene.monitor.core.ledger.find("parent")
    assert entry is not None
    return {one["path"]: one for one in scene.monitor.views.detail(entry)["branches"]}


def test_branch_whose_child_is_stuck_is_named(scene: Scene) -> None:
    """Of two stages that each wait for a child elsewhere, the one whose child is stuck is blamed, by that one's clock."""
    in_stage(scene, "good", "a")
    in_stage(scene, "bad", "b")
    scene.stall(**lanes("x", "y", idle=57.0, stuck_at="parent.py:3"))
    assert scene.verdict()["health"] == "progressing"
    in_stage(scene, "bad", "b", s.STALLED, health=Health.SILENT, idle=49.0)
    entry = scene.monitor.core.ledger.find("parent")
    assert entry is not None
    detail = scene.monitor.views.detail(entry)
    verdict = detail["verdict"]
    assert (verdict["health"], verdict["child"], verdict["branch"]) == ("stuck", "bad", "y")
    assert verdict["reason"].startswith(
        "y: waits for child work/bad in another process, which is stuck (no progress for 49 s"
    )
    assert (verdict["seconds"], detail["idle"], detail["stage"], detail["stuck_at"]) == (49.0, 49.0, "y", "parent.py:3")
    shown = branches(scene)
    assert (shown["x"]["health"], shown["x"]["child"], "stuck_at" in shown["x"]) == ("progressing", "good", False)
    assert shown["x"]["reason"] == "waits for child work/good in another process, which is progressing"
    assert (shown["y"]["health"], shown["y"]["child"], shown["y"]["idle"]) == ("stuck", "bad", 49.0)


@pytest.mark.parametrize("before", [True, False])
def test_stall_of_two_stages_at_once_is_told_of_the_one_that_is_stuck(scene: Scene, before: bool) -> None:
    """Its event names both; the one whose child moves is in no history and no time line."""
    in_stage(scene, "good", "a")
    in_stage(scene, "bad", "b")
    if before:
        in_stage(scene, "bad", "b", s.STALLED, health=Health.SILENT)
    one = Snapshot(
        "parent", "work", Status.RUNNING, AT + 9, sequence=9, health=Health.SILENT, started_at=AT, idle=3.0,
        stall_after=2.0, stage="x", **lanes("x", "y", stuck_at="parent.py:3"),
    )  # fmt: skip
    scene.monitor.say(one, event=s.STALLED, instance="p-parent", **{s.STUCK_BRANCHES: ("x", "y")})
    in_stage(scene, "bad", "b", s.STALLED, health=Health.SILENT)
    scene.monitor.tick()
    entry = scene.monitor.core.ledger.find("parent")
    assert entry is not None
    (stall,) = scene.monitor.views._timeline(entry)
    assert (stall["stage"], stall["to"], stall["stuck_at"]) == ("y", None, "parent.py:3")
    assert scene.told().count(("stalled", "parent")) == 1


def test_each_stall_of_a_parent_is_in_its_history(scene: Scene) -> None:
    """What the monitor concludes again and again, while the parent says nothing, is kept each time."""
    scene.say("child", parent_id="parent")
    scene.stall()
    for _ in range(2):
        scene.stall("child", parent_id="parent")
        seconds(scene.fake, scene.monitor, 2)
        scene.say("child", event=s.RECOVERED, parent_id="parent")
        seconds(scene.fake, scene.monitor, 2)
    assert [event for event in names(scene.monitor.history("parent")) if event in (s.STALLED, s.RECOVERED)] == [
        s.STALLED, s.RECOVERED, s.STALLED, s.RECOVERED,
    ]  # fmt: skip
    entry = scene.monitor.core.ledger.find("parent")
    assert entry is not None
    assert [one["to"] is None for one in scene.monitor.views._timeline(entry)] == [False, False]


def test_stall_of_a_stage_whose_child_moves_is_not_told(scene: Scene) -> None:
    """Of two stalls that were held back, the one of the stage whose child got stuck is told alone."""
    in_stage(scene, "good", "a")
    in_stage(scene, "bad", "b")
    for name, stuck in (("x", "x"), ("y", "xy")):
        one = Snapshot(
            "parent", "work", Status.RUNNING, AT + 9, sequence=ord(name), health=Health.SILENT, started_at=AT,
            idle=3.0, stall_after=2.0, stage=name, **lanes(*stuck),
        )  # fmt: skip
        scene.monitor.say(one, event=s.STALLED, instance="p-parent", **{s.STUCK_BRANCHES: (name,)})
    in_stage(scene, "bad", "b", s.STALLED, health=Health.SILENT, idle=49.0)
    scene.monitor.tick()
    scene.monitor.tick()
    stalls = [one for one in scene.monitor.history("parent") if one.event == s.STALLED]
    assert [json.loads(one.attributes or "")[s.STUCK_BRANCHES] for one in stalls] == [["y"]]
    assert sorted(scene.told()) == [("stalled", "bad"), ("stalled", "parent")]


@pytest.mark.parametrize(
    ("child", "health", "state"),
    [
        ({"health": Health.LOOPING, "loop": Loop("step", ("x",), 9, 5, 3.0)}, "looping", "looping"),
        ({"status": Status.WAITING, "wait": Wait("you", 9.0, 5.0)}, "waiting", "overdue"),
    ],
)
def test_stage_is_what_its_child_is(scene: Scene, child: dict[str, Any], health: str, state: str) -> None:
    """A stage above a child that loops is looping, and one above an overdue wait is overdue."""
    in_stage(scene, "good", "a")
    in_stage(scene, "bad", "b", **child)
    scene.stall(**lanes("x", "y"))
    assert scene.monitor.row("parent")["state"] == state
    shown = branches(scene)
    assert (shown["x"]["health"], shown["y"]["health"]) == ("progressing", health)
    assert ("wait" in shown["y"]) is (state == "overdue")


def test_branch_whose_child_is_over_is_gone(scene: Scene) -> None:
    """What the ledger knows of a child is newer than the parent's last word; one elsewhere leaves time to notice."""
    for key in ("one", "two", "three"):
        scene.say(key, parent_id="parent", instance="p-parent")
    moving = tuple(Branch(path="x", child=key, child_name="work") for key in ("one", "two", "three"))
    scene.say("parent", branches=moving)
    scene.end("one", Status.CANCELLED, parent_id="parent", instance="p-parent")
    entry = scene.monitor.core.ledger.find("parent")
    assert entry is not None
    assert [one["child"] for one in scene.monitor.views.detail(entry)["branches"]] == ["two", "three"]
    in_stage(scene, "good", "a")
    scene.stall(**lanes("x"))
    in_stage(scene, "good", "a", s.OPERATION_ENDED, status=Status.COMPLETED)
    assert branches(scene)["x"]["reason"] == "its child work/good in another process ended 0 s ago"


@pytest.mark.parametrize(
    ("above", "stuck", "health"),
    [
        ("a" * 16, "x", "progressing"),  # the stage that waits for the child
        ("a" * 16, "xy", "stuck"),  # and another one, which does not
        ("a" * 16, "y", "stuck"),
        ("c" * 16, "y", "progressing"),  # nobody knows which stage waits
        (None, "xy", "progressing"),
    ],
)
def test_stage_that_hangs_beside_a_child_elsewhere(scene: Scene, above: str | None, stuck: str, health: str) -> None:
    """It is still stuck where the child's trace tells that another stage started it."""
    span = SpanIds("1" * 32, "2" * 16, above)
    one = Snapshot("child", "work", Status.RUNNING, AT, sequence=1, started_at=AT, parent_id="parent", span=span)
    scene.monitor.take_of("p-child", event_of(one, trace="1" * 32))
    scene.stall(**lanes(*stuck))
    assert scene.verdict()["health"] == health


def test_stall_that_was_told_before_the_child_was_known_is_taken_back(scene: Scene) -> None:
    """A child process takes a moment to start: who was told of the parent's stall is told that it is none, once."""
    scene.stall()
    assert scene.told() == [("stalled", "parent")]
    scene.say("child", parent_id="parent")
    scene.monitor.tick()
    scene.monitor.tick()
    assert scene.told() == [("stalled", "parent"), ("recovered", "parent")]
    entry = scene.monitor.core.ledger.find("parent")
    assert entry is not None
    assert [(one["kind"], one["to"] is None) for one in scene.monitor.views._timeline(entry)] == [("stall", False)]
    scene.say("parent", Health.SILENT)
    scene.end("child", parent_id="parent")
    seconds(scene.fake, scene.monitor, 3)
    assert scene.told()[2:] == [("stalled", "parent")]
    scene.say("parent", event=s.RECOVERED)
    assert sorted(scene.told()) == [("recovered", "parent")] * 2 + [("stalled", "parent")] * 2


def test_child_of_the_own_process_that_is_stuck_is_not_hidden_by_one_elsewhere(scene: Scene) -> None:
    """The process is right about what it knows."""
    scene.say("inside", parent_id="parent", instance="p-parent")
    scene.say("outside", parent_id="parent")
    scene.stall("inside", parent_id="parent", instance="p-parent")
    scene.stall()
    assert scene.verdict()["health"] == "stuck"


def test_parents_in_a_circle(scene: Scene) -> None:
    """Operations that each claim to be above the other are what their processes say."""
    scene.say("a", parent_id="b")
    scene.say("b", parent_id="a")
    scene.stall("a", parent_id="b")
    scene.stall("b", parent_id="a")
    assert [scene.verdict(key)["health"] for key in "ab"] == ["stuck", "stuck"]


def test_held_stall_outlives_the_monitor(scene: Scene) -> None:
    """After a restart a stall that nobody was told is told when it stands; one that was told is not told again."""
    scene.say("child", parent_id="parent")
    scene.say("other")
    scene.stall()
    scene.stall("other")
    assert scene.told() == [("stalled", "other")]
    scene.monitor.restart()
    scene.plug()
    scene.say("child", parent_id="parent")
    scene.monitor.tick()
    assert scene.verdict()["health"] == "progressing"
    scene.end("child", parent_id="parent")
    seconds(scene.fake, scene.monitor, 3)
    assert scene.told() == [("stalled", "other"), ("stalled", "parent")]
    assert names(scene.monitor.history("parent")).count(s.STALLED) == 1


def test_end_of_a_child_before_a_restart_is_not_fresh_after_it(scene: Scene) -> None:
    """How long ago a child ended is known by when it said so, not by when the monitor was started."""
    scene.say("child", parent_id="parent")
    scene.end("child", parent_id="parent")
    seconds(scene.fake, scene.monitor, 60)
    scene.stall()
    scene.monitor.restart()
    assert scene.verdict()["health"] == "stuck"


def test_row_of_a_parent_is_a_newer_one_when_its_child_changes(scene: Scene) -> None:
    """A page that keeps the row with the higher revision shows what the child did to its parent."""
    before = scene.monitor.row("parent")["revision"]
    scene.say("child", parent_id="parent")
    after = scene.monitor.row("parent")["revision"]
    assert after > before


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_tree_has_a_verdict_that_follows_from_its_parts(data: st.DataObject) -> None:
    """A parent that its process calls stuck is stuck, unless something below it in another process explains it."""
    keys = "abcdef"
    ledger = Ledger()
    observer = Observer(ledger, 0.0)
    shape: dict[str, tuple[str | None, str, Health]] = {}
    for key in keys:
        parent = data.draw(st.sampled_from([None, *keys]))
        instance = data.draw(st.sampled_from(["p1", "p2"]))
        health = data.draw(st.sampled_from([Health.PROGRESSING, Health.SILENT]))
        shape[key] = parent, instance, health
        idle = 5.0 if health is Health.SILENT else 0.0
        one = Snapshot(
            key, "w", Status.RUNNING, AT, sequence=1, started_at=AT, parent_id=parent, health=health, idle=idle,
            stall_after=2.0,
        )  # fmt: skip
        ledger.apply(one, instance, 0.0)
    for key in keys:
        verdict = observer.verdict(ledger.operations[key], 0.0)
        _, instance, health = shape[key]
        assert observer.label(ledger.operations[key], 0.0).health is verdict.health
        below = [other for other in keys if shape[other][0] == key and other != key]
        if health is Health.PROGRESSING:
            assert verdict.health is Health.PROGRESSING
        elif all(shape[other][1] == instance and not [k for k in keys if shape[k][0] == other] for other in below):
            assert verdict.health is Health.SILENT
        elif verdict.health not in STOPPED:
            assert any(shape[other][2] is Health.PROGRESSING for other in keys)


def test_failed_children_of_other_processes_are_no_records_of_the_parent(scene: Scene) -> None:
    """A parent that records nothing counts how its children ended, wherever they ran: no success rate of records."""
    for number in range(4):
        scene.say(f"kid-{number}", parent_id="parent")
    for number in range(3):
        scene.end(f"kid-{number}", parent_id="parent")
    scene.end("kid-3", Status.FAILED, parent_id="parent")
    scene.say("own", parent_id="parent", instance="p-parent")
    scene.end("own", Status.FAILED, parent_id="parent", instance="p-parent")
    scene.say("parent", child_outcomes=Attributes({"failed": 1}), outcomes=Attributes({"failed": 1}))
    detail = detail_of(scene)
    assert detail["outcomes"] == {"failed": 2}
    assert (detail["statistics"]["children"]["ok"], detail["statistics"]["children"]["failed"]) == (3, 2)
    items = detail["statistics"]["items"]
    assert (items["failed"], items["success_rate"]) == (0, None)
    read = statistics_of(read_snapshot(json.loads(json.dumps(detail))))
    assert (read.items.failed, read.items.success_rate, read.children.failed) == (0, None, 2)


def test_records_of_a_parent_are_its_own_beside_failed_children(scene: Scene) -> None:
    """A parent that records has the success rate of its records, whatever became of its children."""
    scene.say("kid", parent_id="parent")
    scene.end("kid", Status.FAILED, parent_id="parent")
    scene.say("parent", outcomes=Attributes({"ok": 3, "failed": 1}))
    detail = detail_of(scene)
    assert detail["outcomes"] == {"ok": 3, "failed": 1}
    assert detail["statistics"]["items"]["success_rate"] == 0.75
    assert detail["statistics"]["children"]["failed"] == 1
    assert statistics_of(read_snapshot(detail)).items.success_rate == 0.75


def detail_of(scene: Scene) -> dict[str, Any]:
    """The details of the parent, as the API shows them."""
    entry = scene.monitor.core.ledger.find("parent")
    assert entry is not None
    return scene.monitor.views.detail(entry)


def test_the_end_of_a_child_elsewhere_is_progress_of_its_parent(scene: Scene) -> None:
    """The idle time that is shown starts with it, also before the parent's own limit is over."""
    scene.say("child", parent_id="parent")
    scene.say("parent", idle=65.0, stall_after=300.0)
    scene.end("child", parent_id="parent")
    scene.fake.sleep(4)
    assert scene.monitor.row("parent")["idle"] == pytest.approx(4.0, abs=0.5)
