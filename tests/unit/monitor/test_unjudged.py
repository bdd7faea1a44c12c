"""Programs without an SDK of ours say how far they are, but not that they hang: the monitor says it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from monitor_parts import WALL, Parts, Recorder, beat_of, names, parts, request_of, seconds

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.model.status import Status
from otel_progress.monitor.intake.requests import Accepted, Envelope
from otel_progress.monitor.state import judging
from otel_progress.monitor.state.unjudged import SHORTEST
from otel_progress.outbound import otlp
from otel_progress.testing import FakeClock

NODE = "my-emitter"
BEAT = object()


class Emitter:
    """A program in another language: what it sends is all that is known of it."""

    def __init__(self, monitor: Parts, scope: str = NODE, instance: str = "n1", **resource: Any) -> None:
        self.monitor = monitor
        self.scope = scope
        self.resource = {"service.name": "node", "service.instance.id": instance, **resource}
        self.sequence = 0
        self.skew = 0.0

    def record(self, event: str = s.UPDATED, at: float = 0.0, **about: Any) -> bytes:
        """An event of its operation; `at` is added to the time."""
        self.sequence += 1
        given = {
            s.OPERATION_ID: "a",
            s.OPERATION_NAME: "work",
            s.STATUS: "running",
            s.SEQUENCE: self.sequence,
            s.START_TIME: WALL,
            s.STALL_AFTER: 4,
            **{key.replace("__", "."): value for key, value in about.items()},
        }
        moment = round((clock.unix() + self.skew + at) * 1e9)
        known = otlp.attributes(6, {key: value for key, value in given.items() if value is not None})
        return otlp.log_record(event, moment, moment, 9, "", known, None, None, False)

    def send(self, *records: bytes) -> None:
        """Send these records."""
        about = otlp.resource({key.replace("__", "."): value for key, value in self.resource.items()})
        assert self.monitor.take(otlp.envelope(about, otlp.scope(self.scope, "1"), records)) == [Accepted()]

    def say(self, event: str = s.UPDATED, **about: Any) -> None:
        """Send one event."""
        self.send(self.record(event, **about))

    def live(self, fake: FakeClock, count: float, **about: Any) -> None:
        """Let time pass with a heartbeat each second, and with an update if something is given."""
        for _ in range(round(count)):
            seconds(fake, self.monitor, 1)
            self.send(beat_of(1.0))
            if about:
                self.say(**about)
        self.monitor.tick()


@pytest.fixture
def node(monitor: Parts) -> Emitter:
    """A program that has just begun."""
    found = Emitter(monitor)
    found.send(beat_of(1.0), found.record(s.OPERATION_STARTED, progress__completed=0))
    return found


def test_hung_work_is_stuck_although_its_process_lives(node: Emitter, fake: FakeClock) -> None:
    """Exactly when nothing moved for the declared limit, with evidence, an event and a notice; heartbeats are no progress."""
    recorder = node.monitor.listen()
    node.live(fake, 3)
    assert node.monitor.health() == "progressing"
    node.live(fake, 1)
    assert node.monitor.health() == "stuck"
    row = node.monitor.row()
    assert row["verdict"]["reason"] == "no progress for 4 s, stall_after is 4 s"
    assert node.monitor.core.labels["a"].health == "silent"
    node.live(fake, 30)
    assert names(node.monitor.history()) == [s.OPERATION_STARTED, s.STALLED]
    assert recorder.kinds == ["stalled"]


@pytest.mark.parametrize("silent", [2, 6])
def test_update_that_may_wait_is_no_stall(node: Emitter, fake: FakeClock, silent: int) -> None:
    """Until its pause and 2 s for the way are over, silence proves nothing; then all of it counts."""
    recorder = node.monitor.listen()
    node.say(progress__completed=1, progress__update__pause=10.0)
    node.live(fake, 12)
    assert (node.monitor.health(), recorder.kinds) == ("progressing", [])
    assert node.monitor.row()["progress"]["completed"] == 1
    node.say(progress__completed=2, progress__update__pause=10.0)
    node.live(fake, 12 if silent == 6 else silent)
    assert (node.monitor.health(), recorder.kinds) == ("progressing", [])
    node.live(fake, 11)
    assert (node.monitor.health(), recorder.kinds) == ("stuck", ["stalled"])
    assert names(node.monitor.history()).count(s.STALLED) == 1


def test_update_that_shows_no_progress_counts_although_the_next_one_may_wait(node: Emitter, fake: FakeClock) -> None:
    """What an event says counts at once: its pause only excuses the silence after it."""
    for _ in range(3):
        node.live(fake, 2)
        node.say(progress__completed=0, progress__update__pause=10.0)
    node.monitor.tick()
    assert node.monitor.health() == "stuck"


def test_updates_that_say_the_same_again_are_no_progress(node: Emitter, fake: FakeClock) -> None:
    """A timer that repeats the state does not move the work; a count that changes does."""
    node.live(fake, 10, progress__completed=5)
    assert node.monitor.health() == "stuck"
    for number in range(6, 20):
        node.live(fake, 1, progress__completed=number)
    assert node.monitor.health() == "progressing"


def test_recovery_needs_the_hold(node: Emitter, fake: FakeClock) -> None:
    """One sign of progress does not end a stall: it must move for half the limit, without a pause of half the limit."""
    recorder = node.monitor.listen()
    node.live(fake, 5)
    node.say(progress__completed=1)
    node.live(fake, 1)
    assert node.monitor.health() == "stuck"
    node.live(fake, 4)  # it hung again
    for number in range(2, 5):
        node.say(progress__completed=number)
        node.live(fake, 1)
    assert node.monitor.health() == "progressing"
    assert recorder.kinds == ["stalled", "recovered"]
    assert names(node.monitor.history()).count(s.RECOVERED) == 1


@pytest.mark.parametrize(
    "about",
    [
        {"progress__status": "waiting", "progress__wait__reason": "approval"},
        {"progress__status": "waiting"},
        {"progress__status": "pending"},
    ],
)
def test_declared_wait_is_no_stall(node: Emitter, fake: FakeClock, about: dict[str, Any]) -> None:
    """However long it lasts; the time after it counts from its end."""
    node.say(s.WAIT_STARTED, **about)
    node.live(fake, 60)
    assert node.monitor.health() == "waiting"
    assert node.monitor.core.labels["a"].health == "waiting"
    node.say(s.WAIT_ENDED, progress__wait__reason="approval")
    node.live(fake, 3)
    assert node.monitor.health() == "progressing"
    node.live(fake, 2)
    assert node.monitor.health() == "stuck"


def test_repeated_remaining_time_of_a_process_that_judges(monitor: Parts, fake: FakeClock) -> None:
    """No event says that the wait is overdue: the label follows from the limit that counts from its first event."""
    node = Emitter(monitor, **{s.JUDGED_BY: "process"})
    wait = {"progress__status": "waiting", "progress__health": "waiting", "progress__wait__reason": "a lock"}
    node.say(s.WAIT_STARTED, progress__wait__remaining=10.0, **wait)
    seconds(fake, monitor, 6)
    node.say(progress__wait__remaining=10.0, **wait)
    seconds(fake, monitor, 3)
    assert not monitor.core.labels["a"].overdue
    seconds(fake, monitor, 2)
    assert monitor.core.labels["a"].overdue


def test_stuck_work_that_waits_or_ends_is_not_stuck(node: Emitter, fake: FakeClock) -> None:
    """What happens to it is said by its process."""
    node.live(fake, 5)
    node.say(s.WAIT_STARTED, progress__status="waiting", progress__wait__reason="approval")
    node.live(fake, 1)
    assert node.monitor.health() == "waiting"
    node.say(s.OPERATION_ENDED, progress__status="completed")
    assert node.monitor.row()["status"] == "completed"
    assert node.monitor.core.judging.stuck == set()


def test_idle_time_of_the_sender_counts(node: Emitter, fake: FakeClock) -> None:
    """Who says `progress.idle` sees more than the state shows."""
    for _ in range(10):
        node.live(fake, 1, progress__completed=5, progress__idle=0.2)
    assert node.monitor.health() == "progressing"
    for number in range(5):
        node.live(fake, 1, progress__completed=5, progress__idle=number + 1.0)
    assert node.monitor.health() == "stuck"


def test_limit_of_the_current_stage_counts(node: Emitter, fake: FakeClock) -> None:
    """A stage may take longer than the operation allows elsewhere."""
    stages = json.dumps([{"path": "load", "status": "running", "stall_after": 20}])
    node.say(s.STAGE_STARTED, progress__stages=stages, progress__stage__current="load")
    node.live(fake, 19)
    assert node.monitor.health() == "progressing"
    node.live(fake, 2)
    assert node.monitor.health() == "stuck"


def test_stages_are_not_judged_one_by_one(node: Emitter, fake: FakeClock) -> None:
    """A stage that hangs is not seen while another one moves, whatever its limit; an operation of its own is."""
    child = {"progress__operation__id": "b", "progress__operation__parent__id": "a"}
    node.say(s.OPERATION_STARTED, **child)
    for number in range(1, 7):
        both = [
            {"path": "load", "status": "running", "completed": number},
            {"path": "save", "status": "running", "stall_after": 2},
        ]
        node.live(fake, 1, progress__stages=json.dumps(both), progress__stage__current="load")
    assert (node.monitor.health(), node.monitor.health("b")) == ("progressing", "stuck")


def test_without_a_limit_its_own_pace_is_one(monitor: Parts, fake: FakeClock) -> None:
    """Not before enough was heard, then ten times the longest gap, and never less than a minute."""
    node = Emitter(monitor)
    node.say(s.OPERATION_STARTED, progress__stall_after=None)
    node.live(fake, 30)
    assert monitor.health() == "progressing"
    for number in range(15):
        node.live(fake, 1, progress__completed=number, progress__stall_after=None)
    node.live(fake, SHORTEST - 2)
    assert monitor.health() == "progressing"
    node.live(fake, 320)
    assert monitor.health() == "stuck"
    assert "gaps" in monitor.row()["verdict"]["reason"]


def test_batch_after_an_outage_is_no_stall(node: Emitter, fake: FakeClock) -> None:
    """What arrives late, and together, says nothing of the time in which nothing could be heard."""
    late = [node.record(at=-60.0 + number, progress__completed=number) for number in range(60)]
    seconds(fake, node.monitor, 2)
    node.send(*late)
    node.live(fake, 3)
    assert node.monitor.health() == "progressing"
    node.live(fake, 3)
    assert node.monitor.health() == "stuck"


def test_stall_that_late_events_refute_is_none(node: Emitter, fake: FakeClock) -> None:
    """It ends at once, leaves the times of the operation, stays in the feed with what became of it, and is told once."""
    recorder = node.monitor.listen()
    node.live(fake, 6)
    assert node.monitor.health() == "stuck"
    node.send(*(node.record(at=number - 5.0, progress__completed=number) for number in range(6)))
    node.live(fake, 1)
    assert node.monitor.health() == "progressing"
    assert recorder.kinds == ["stalled", "recovered"]
    told = [event for event in node.monitor.history() if event.event in (s.STALLED, s.RECOVERED)]
    assert [event.text for event in told][1] == "work was not stuck: its events arrived late"
    entry = node.monitor.core.ledger.find("a")
    assert entry is not None
    assert node.monitor.views.detail(entry)["timeline"] == []
    node.live(fake, 5)
    assert node.monitor.health() == "stuck"
    node.monitor.restart()
    node.live(fake, 5)
    assert node.monitor.health() == "stuck"
    assert [one["to"] for one in node.monitor.views.detail(node.monitor.core.ledger.operations["a"])["timeline"]] == [
        None
    ]


def test_refuted_stall_is_not_known_after_a_restart(node: Emitter, fake: FakeClock) -> None:
    """Stall and end have the same time, and the end counts."""
    node.live(fake, 6)
    node.send(*(node.record(at=number - 5.0, progress__completed=number) for number in range(6)))
    node.live(fake, 1)
    node.monitor.restart()
    node.live(fake, 1)
    assert node.monitor.health() == "progressing"
    assert node.monitor.core.judging.stuck == set()


def test_clock_that_is_set_forward_is_no_pause(node: Emitter, fake: FakeClock) -> None:
    """An update that says nothing new does not show for how long nothing moved, if the clock was set before it."""
    for number in range(1, 11):
        node.live(fake, 1, progress__completed=number)
    node.skew = 7200.0
    node.live(fake, 2, progress__completed=10)
    assert node.monitor.health() == "progressing"


@pytest.mark.parametrize("skew", [-7200.0, 7200.0])
def test_clock_of_the_sender_may_be_wrong_and_may_be_set(node: Emitter, fake: FakeClock, skew: float) -> None:
    """Neither a clock that is hours off nor one that is set in between makes work stuck, or hides a hang."""
    node.skew = skew
    for number in range(1, 8):
        node.live(fake, 1, progress__completed=number)
        node.skew = skew if number > 4 else -skew
    assert node.monitor.health() == "progressing"
    node.live(fake, 5)
    assert node.monitor.health() == "stuck"


def test_deaf_monitor_judges_from_when_it_hears(node: Emitter, fake: FakeClock) -> None:
    """While it slept, progress may have been lost."""
    fake.sleep(100)
    node.monitor.tick()
    node.send(beat_of(1.0))
    node.live(fake, 2)
    assert node.monitor.health() != "stuck"
    node.live(fake, 4)
    assert node.monitor.health() == "stuck"


DEAF = ["asleep", "refusing", "restarted"]


def deafen(fake: FakeClock, monitor: Parts, how: str, count: float = 60) -> None:
    """For some seconds the monitor can't hear, in one of three ways; what was sent meanwhile is lost."""
    fake.sleep(count)
    if how == "restarted":
        monitor.restart()
    elif how == "refusing":
        monitor.core.observer.was_deaf(clock.monotonic())
    monitor.tick()


@pytest.mark.parametrize("how", DEAF)
@pytest.mark.parametrize("beats", [True, False])
def test_hang_that_a_deaf_monitor_knew_is_unknown_until_it_heard_enough(
    fake: FakeClock, tmp_path: Path, how: str, beats: bool
) -> None:
    """It may have moved meanwhile, or not: that is said, nobody is told anything, and it is idle for what was heard."""
    recorder = Recorder()
    with parts(tmp_path / "m.db", listeners=(recorder,)) as monitor:
        node = Emitter(monitor)

        def live(count: int) -> None:
            if beats:
                node.live(fake, count)
            else:
                seconds(fake, monitor, count)

        node.send(*([beat_of(1.0)] if beats else []), node.record(s.OPERATION_STARTED, progress__stall_after=8))
        live(9)
        assert monitor.health() == "stuck"
        deafen(fake, monitor, how)
        for second in range(1, 8):
            live(1)
            row = monitor.row()
            assert (row["state"], row["trouble"]) == ("unknown", True)
            assert monitor.core.labels["a"].health == "unknown"
            assert row["verdict"]["reason"] == f"the monitor was not listening until {second} s ago; before that: stuck"
            assert row["idle"] == pytest.approx(second)
        live(2)
        assert monitor.health() == "stuck"
        assert monitor.core.labels["a"].health == "silent"
        assert monitor.row()["verdict"]["reason"] == "no progress for 9 s, stall_after is 8 s"
        assert recorder.kinds == ["stalled"]
        assert [name for name in names(monitor.history()) if name != s.OPERATION_STARTED] == [s.STALLED]


@pytest.mark.parametrize("how", DEAF)
def test_only_an_event_after_a_deaf_time_shows_that_it_moves_again(fake: FakeClock, tmp_path: Path, how: str) -> None:
    """It has recovered when it moved for the hold time since then, whatever it did before the monitor was deaf."""
    recorder = Recorder()
    with parts(tmp_path / "m.db", listeners=(recorder,)) as monitor:
        node = Emitter(monitor)
        node.send(beat_of(1.0), node.record(s.OPERATION_STARTED, progress__completed=0))
        node.live(fake, 6)
        node.say(progress__completed=1)
        node.live(fake, 1)
        assert "moving again" in monitor.row()["verdict"]["reason"]
        deafen(fake, monitor, how)
        node.live(fake, 1)
        assert monitor.health() == "unknown"
        node.say(progress__completed=2)
        monitor.tick()
        assert monitor.row()["verdict"]["reason"].startswith("moving again")
        assert recorder.kinds == ["stalled"]
        node.live(fake, 1)
        node.say(progress__completed=3)
        node.live(fake, 1)
        assert (monitor.health(), recorder.kinds) == ("progressing", ["stalled", "recovered"])


def test_pause_over_a_deaf_time_teaches_no_limit(monitor: Parts, fake: FakeClock) -> None:
    """A night for which a laptop slept is not how long the work may stand still."""
    node = Emitter(monitor)
    node.say(s.OPERATION_STARTED, progress__stall_after=None)
    for number in range(6):
        node.live(fake, 1, progress__completed=number, progress__stall_after=None)
    deafen(fake, monitor, "asleep", 8 * 3600)
    for number in range(6, 16):
        node.live(fake, 1, progress__completed=number, progress__stall_after=None)
    node.live(fake, SHORTEST + 1)
    assert monitor.health() == "stuck"


def test_stall_by_a_learned_limit_ends_after_a_restart(node: Emitter, fake: FakeClock) -> None:
    """What was learned is gone with the restart: it recovers by the shortest such limit."""
    for number in range(1, 15):
        node.live(fake, 1, progress__completed=number, progress__stall_after=None)
    node.live(fake, SHORTEST + 1)
    assert node.monitor.health() == "stuck"
    node.monitor.restart()
    for number in range(15, 30):
        node.live(fake, 1, progress__completed=number, progress__stall_after=None)
    assert node.monitor.health() == "progressing"
    assert node.monitor.core.judging.stuck == set()


def test_sleep_is_noticed_before_what_arrived_meanwhile(node: Emitter, fake: FakeClock) -> None:
    """What waited in the socket is heard after the pause, not in it."""
    node.live(fake, 6)
    core = node.monitor.core
    fake.sleep(60)
    core.start()
    try:
        done = threading.Event()
        about = otlp.resource({"service.name": "node", "service.instance.id": "n1"})
        body = otlp.envelope(about, otlp.scope(NODE, "1"), [beat_of(1.0)])
        core.offer(Envelope("logs", body), lambda _: done.set())
        assert done.wait(60)
        assert node.monitor.health() == "unknown"
    finally:
        core.stop()


def test_process_without_heartbeats_is_judged_by_its_progress_alone(monitor: Parts, fake: FakeClock) -> None:
    """It may be dead as well; what is known is that nothing moves."""
    node = Emitter(monitor)
    node.say(s.OPERATION_STARTED)
    seconds(fake, monitor, 5)
    assert monitor.health() == "stuck"


@pytest.mark.parametrize("beats", [True, False])
def test_stuck_work_is_stuck_after_a_restart(fake: FakeClock, tmp_path: Path, beats: bool) -> None:
    """A restart of the monitor neither hides a hang nor reports it twice; what was well is judged from then on."""
    with parts(tmp_path / "m.db") as monitor:
        node, other = Emitter(monitor), Emitter(monitor, instance="n2")
        node.say(s.OPERATION_STARTED)
        other.say(s.OPERATION_STARTED, progress__operation__id="b", progress__stall_after=8)
        seconds(fake, monitor, 5)
        monitor.restart()
        for _ in range(5):
            if beats:
                node.send(beat_of(1.0))
            seconds(fake, monitor, 1)
        assert monitor.health() == "stuck"
        assert monitor.row()["verdict"]["reason"].startswith("no progress for")
        assert monitor.health("b") == "progressing"
        seconds(fake, monitor, 4)
        assert monitor.health("b") == "stuck"
        assert names(monitor.history()).count(s.STALLED) == 1


@pytest.mark.parametrize("interval", [1.0, 5.0, 30.0])
def test_work_that_hangs_over_a_restart_is_stuck_whatever_the_interval(
    fake: FakeClock, tmp_path: Path, interval: float
) -> None:
    """Once the process is heard, the limit counts from the moment at which the monitor hears."""
    with parts(tmp_path / "m.db") as monitor:
        node = Emitter(monitor)
        node.send(node.record(s.OPERATION_STARTED, progress__stall_after=8), beat_of(interval))
        seconds(fake, monitor, 2)
        monitor.restart()
        seconds(fake, monitor, 1)
        assert monitor.health() == "unknown", "nothing was heard yet"
        for second in range(7):
            if second % interval == 0:
                node.send(beat_of(interval))
            assert monitor.health() == "progressing", second
            seconds(fake, monitor, 1)
        assert monitor.health() == "stuck"
        assert names(monitor.history()).count(s.STALLED) == 1


def test_states_of_many_operations_are_kept_as_reported(
    monitor: Parts, fake: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read of them takes five times the memory: once they are judged, it is released; the verdicts stay."""
    monkeypatch.setattr(judging, "SNAPSHOTS", 2)
    node = Emitter(monitor)
    for number in range(4):
        node.say(progress__operation__id=str(number))
    seconds(fake, monitor, 1)
    entries = list(monitor.core.ledger.operations.values())
    assert [entry.is_read for entry in entries] == [False] * 4
    assert len({id(label) for label in monitor.core.labels.values()}) == 1
    seconds(fake, monitor, 4)
    assert {monitor.health(str(number)) for number in range(4)} == {"stuck"}


def test_dead_outranks_stuck(node: Emitter, fake: FakeClock) -> None:
    """A process that stops its heartbeats is dead, whatever its work did before."""
    node.live(fake, 5)
    seconds(fake, node.monitor, 4)
    assert node.monitor.health() == "dead"


# -- who judges


@pytest.mark.parametrize(
    ("scope", "resource", "silent"),
    [
        (s.SCOPE, {}, False),
        (s.SCOPE, {s.JUDGED_BY: "monitor"}, True),
        (NODE, {s.JUDGED_BY: "process"}, False),
        (NODE, {s.JUDGED_BY: "monitor"}, True),
        (NODE, {s.JUDGED_BY: "nonsense"}, True),
        ("", {}, True),
    ],
)
def test_who_judges(monitor: Parts, fake: FakeClock, scope: str, resource: dict[str, str], silent: bool) -> None:
    """The resource says it; else the scope of our SDK promises it, also of an SDK from before this attribute."""
    node = Emitter(monitor, scope, **resource)
    node.say(s.OPERATION_STARTED)
    for _ in range(6):
        node.live(fake, 1)
    assert (monitor.health() == "stuck") is silent
    monitor.restart()
    node.live(fake, 6)
    assert (monitor.health() == "stuck") is silent


def test_heartbeat_may_promise(monitor: Parts, fake: FakeClock) -> None:
    """An attribute of the heartbeat is enough, also if it arrives after the first events."""
    node = Emitter(monitor)
    node.say(s.OPERATION_STARTED)
    given = otlp.attributes(6, {s.HEARTBEAT_INTERVAL: 1.0, s.JUDGED_BY: "process"})
    moment = clock.time_ns()
    node.send(otlp.log_record(s.PROCESS_HEARTBEAT, moment, moment, 9, "", given, None, None, False))
    node.say()
    node.live(fake, 10)
    assert monitor.health() == "progressing"


def test_our_verdict_stays_ours(monitor: Parts, fake: FakeClock) -> None:
    """What our SDK calls progressing after its limit is progressing: it may hold updates back."""
    node = Emitter(monitor, s.SCOPE)
    node.say(s.OPERATION_STARTED, progress__health="progressing")
    node.live(fake, 30)
    assert monitor.health() == "progressing"
    node.say(s.STALLED, progress__health="silent")
    assert monitor.health() == "stuck"
    assert names(monitor.history()) == [s.OPERATION_STARTED, s.STALLED]


def test_foreign_program_may_report_stalls_itself(node: Emitter, fake: FakeClock) -> None:
    """A stall that the process reports is not reported a second time."""
    node.say(s.STALLED, progress__health="silent")
    node.live(fake, 10)
    assert node.monitor.health() == "stuck"
    assert names(node.monitor.history()).count(s.STALLED) == 1


def test_events_without_a_body_are_said_in_words(node: Emitter, fake: FakeClock) -> None:
    """The feed and reports say what happened, whatever an emitter leaves out."""
    stages = json.dumps([{"path": "load", "status": "completed", "started_at": clock.unix()}])
    fake.sleep(2)
    node.say(s.STAGE_ENDED, progress__stage__path="load", progress__stages=stages)
    node.say(s.WAIT_STARTED, progress__status="waiting", progress__wait__reason="a lock")
    node.say(s.WAIT_ENDED, progress__wait__reason="a lock")
    node.say(s.STALLED)
    node.say(s.RECOVERED)
    node.say(s.OPERATION_ENDED, progress__status="failed", progress__status__reason="disk full", progress__completed=3)
    assert [event.text for event in node.monitor.history()] == [
        "work started",
        "work: stage load completed after 2 s",
        "work: waits for a lock",
        "work: waited for a lock",
        "work: stuck: no progress",
        "work: moves again",
        "work failed after 2 s (disk full)",
    ]


def test_two_processes_with_one_instance_are_told(node: Emitter, fake: FakeClock) -> None:
    """A heartbeat sent by a process of its own proves nothing of the work if it names another pid."""
    work, beats = (
        Emitter(node.monitor, instance="n2", process__pid=11),
        Emitter(node.monitor, instance="n2", process__pid=12),
    )
    work.say(s.OPERATION_STARTED, progress__operation__id="b")
    assert node.monitor.core.mistakes.health() == {}
    beats.send(beat_of(1.0))
    assert "is that of the process with the pid 11, too" in node.monitor.core.mistakes.health()["mistakes"]["newest"]


def test_certificate_from_run_does_not_promise(node: Emitter, fake: FakeClock) -> None:
    """`otel-progress run` ends one operation of a foreign process: the others are judged as before."""
    node.send(node.record(s.OPERATION_STARTED, progress__operation__id="b"))
    ended = Emitter(node.monitor, s.SCOPE)
    ended.sequence = 5
    ended.say(s.OPERATION_ENDED, progress__operation__id="b", progress__status="lost")
    node.live(fake, 6)
    assert node.monitor.health() == "stuck"
    entry = node.monitor.core.ledger.find("b")
    assert entry is not None
    assert entry.head.status is Status.LOST


def test_process_of_both_kinds_keeps_its_promise(node: Emitter, fake: FakeClock) -> None:
    """Our SDK beside hand-made events of one process: from then on nothing of it is judged twice."""
    node.monitor.take(request_of(beat_of(60.0), instance="n1"))
    node.live(fake, 10)
    assert node.monitor.health() == "progressing"
