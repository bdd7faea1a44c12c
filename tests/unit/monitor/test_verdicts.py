"""The observer: its label is its verdict, it changes by time alone, and it says unknown where it was blind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monitor_parts import Parts, Recorder, beat_of, event_of, parts, request_of, seconds

from otel_progress import semconv as s
from otel_progress.model.health import judge
from otel_progress.model.loop import Loop
from otel_progress.model.snapshot import Snapshot, Wait
from otel_progress.model.states import Label
from otel_progress.model.status import Health, Status
from otel_progress.monitor.intake import records, requests
from otel_progress.monitor.state.ledger import Ledger
from otel_progress.monitor.state.verdicts import BEFORE, Observer
from otel_progress.outbound import otlp
from otel_progress.testing import FakeClock

AT = 1_700_000_000.0


def snap(sequence: int = 1, status: Status = Status.RUNNING, **more: Any) -> Snapshot:
    """A snapshot of the operation `a`."""
    return Snapshot("a", "work", status, AT + sequence, sequence=sequence, **{"started_at": AT, **more})


def record(chunk: bytes) -> records.Record:
    """A record as the intake gives it."""
    body = otlp.envelope(otlp.resource({}), otlp.scope(s.SCOPE, ""), [chunk])
    (group,) = records.groups(requests.parse("logs", body))
    return group.records[0]


def eighths(least: int, most: int) -> st.SearchStrategy[float]:
    """Seconds that add up exactly."""
    return st.integers(least * 8, most * 8).map(lambda number: number / 8)


LIMITS = st.none() | eighths(0, 40)


@st.composite
def said(draw: st.DrawFn) -> Snapshot:
    """What a process may say of an operation that is not over."""
    status = draw(st.sampled_from([Status.RUNNING, Status.WAITING, Status.PENDING]))
    wait = Wait("you", draw(eighths(0, 20)), draw(LIMITS)) if status is Status.WAITING and draw(st.booleans()) else None
    elapsed = draw(eighths(0, 40))
    snapshot = snap(
        1,
        status,
        elapsed=elapsed,
        idle=min(elapsed, draw(eighths(0, 40))),
        stall_after=draw(LIMITS),
        slow_after=draw(LIMITS),
        start_within=draw(LIMITS),
        loop=Loop("step", ("x",), 9, 5, 3.0) if draw(st.integers(0, 5)) == 0 else None,
        wait=wait,
    )
    health = draw(st.sampled_from([judge(snapshot, snapshot.timestamp).health, Health.UNKNOWN, Health.SILENT]))
    return Snapshot(**{**{name: getattr(snapshot, name) for name in Snapshot.__dataclass_fields__}, "health": health})


@settings(max_examples=500)
@given(said(), eighths(0, 60), eighths(0, 60), eighths(0, 60), eighths(1, 20), st.booleans())
def test_label_is_the_verdict(
    snapshot: Snapshot, started: float, spoke: float, beat: float, interval: float, beats: bool
) -> None:
    """Without its evidence the verdict is the same, whatever was said, heard, and how long ago."""
    ledger = Ledger()
    observer = Observer(ledger, -started)
    process = ledger.hear({"service.instance.id": "p1"}, [record(event_of(snapshot))], -spoke)
    if beats:
        process = ledger.hear({"service.instance.id": "p1"}, (), -min(spoke, beat))
        ledger.beat(process, interval)
    entry = ledger.operations["a"]
    verdict = observer.verdict(entry, 0.0)
    assert observer.label(entry, 0.0) == Label(verdict.health, verdict.overdue)
    judged = judge(entry.snapshot, entry.snapshot.timestamp + spoke, observer.hearing(entry, 0.0))
    if verdict.detail is not None:  # of one that is not heard, what was known before is told, too
        verdict = replace(verdict, detail=verdict.detail.partition(BEFORE)[0])
    assert verdict == judged


@pytest.mark.parametrize("remaining", [2, 2.0], ids=["whole", "fraction"])
def test_wait_is_overdue_by_time_alone(remaining: float) -> None:
    """A wait that is not heard to end is overdue at its limit, also where the limit came as a whole number."""
    ledger = Ledger()
    observer = Observer(ledger, 0.0)
    event = event_of(
        snap(1, Status.WAITING, wait=Wait("you", 0.0, 2.0), health=Health.WAITING), **{s.WAIT_REMAINING: remaining}
    )
    ledger.hear({"service.instance.id": "p1"}, [record(event)], 1.0)
    entry = ledger.operations["a"]
    assert [observer.label(entry, now).overdue for now in (2.9, 3.0)] == [False, True]


def test_slow_and_not_started_by_time_alone() -> None:
    """A limit of the whole run, or of the wait for its start, is reached although nothing more is said."""
    for more, status in (
        ({"slow_after": 5.0}, Status.RUNNING),
        ({"start_within": 5.0, "started_at": None}, Status.PENDING),
    ):
        ledger = Ledger()
        observer = Observer(ledger, 0.0)
        first = snap(1, status, elapsed=2.0, **more)
        ledger.hear({"service.instance.id": "p1"}, [record(event_of(first))], 1.0)
        entry = ledger.operations["a"]
        assert [observer.label(entry, now).health is Health.SLOW for now in (3.9, 4.0)] == [False, True]


def test_program_that_says_no_health_is_judged_by_what_it_says() -> None:
    """An event of another language without a verdict is not unknown for that."""
    ledger = Ledger()
    observer = Observer(ledger, 0.0)
    ledger.hear({"service.instance.id": "p1"}, [record(event_of(snap(1), **{s.HEALTH: None}))], 1.0)
    assert observer.label(ledger.operations["a"], 2.0) == Label(Health.PROGRESSING)


def test_process_that_never_beat_is_never_dead(monitor: Parts, fake: FakeClock) -> None:
    """Nobody said when it would be heard of next."""
    monitor.say(snap(1))
    seconds(fake, monitor, 100)
    assert monitor.health() == "progressing"


def test_dead_after_three_beats_and_back_with_the_next(monitor: Parts, fake: FakeClock) -> None:
    """A process is dead at three intervals without a sign, exactly; and lives when it is heard."""
    seconds(fake, monitor, 20)
    monitor.say(snap(1))
    monitor.beat(interval=2.0)
    seconds(fake, monitor, 5.75)
    assert monitor.health() == "progressing"
    fake.sleep(0.25)
    assert monitor.health() == "dead"
    monitor.say(snap(2))
    assert monitor.health() == "progressing"


def test_asleep_is_blind(monitor: Parts, fake: FakeClock) -> None:
    """After a pause in which the monitor did not run, a process counts as dead only when it had time to be heard."""
    seconds(fake, monitor, 20)
    monitor.say(snap(1))
    monitor.beat()
    fake.sleep(60)
    monitor.tick()
    assert monitor.health() == "unknown"
    seconds(fake, monitor, 14)
    assert monitor.health() == "unknown"
    seconds(fake, monitor, 1)
    assert monitor.health() == "dead"


@pytest.mark.parametrize("restarts", [True, False])
def test_time_in_which_nobody_could_hear_is_no_idle_time(fake: FakeClock, tmp_path: Path, restarts: bool) -> None:
    """A process that judges itself said that it is stuck: what it said stands, and only what was heard is added."""
    heard = Recorder()
    with parts(tmp_path / "m.db", listeners=(heard,)) as monitor:
        stuck = replace(snap(1), health=Health.SILENT, idle=40.0, stall_after=30.0)
        monitor.say(stuck, event=s.STALLED)
        monitor.beat()
        fake.sleep(600)
        if restarts:
            monitor.restart()
        monitor.tick()
        for second in range(1, 20):
            seconds(fake, monitor, 1)
            monitor.beat()
            row = monitor.row()
            assert row["idle"] == pytest.approx(40 + second)
            assert row["trouble"] is True
            if second < 15:
                assert row["state"] == "unknown"
            else:
                assert row["verdict"]["reason"] == f"no progress for {40 + second} s, stall_after is 30 s"
        assert heard.kinds == []


def begin(monitor: Parts, *instances: str, host: str | None = None) -> None:
    """Processes with an operation each, which go by the same names."""
    more = {} if host is None else {s.HOST_NAME: host}
    for instance in instances:
        one = Snapshot(instance, "work", Status.RUNNING, AT, sequence=1, started_at=AT)
        monitor.take(request_of(event_of(one), beat_of(), instance=instance, **more))


def test_dead_stays_dead_whoever_else_is_heard(monitor: Parts, fake: FakeClock) -> None:
    """After a quiet night one heartbeat of another process proves nothing about those that were found dead."""
    seconds(fake, monitor, 20)
    begin(monitor, "p1", "p2")
    begin(monitor, "p3", "p4", host="far")
    seconds(fake, monitor, 490)
    monitor.beat("p1")
    monitor.take(request_of(beat_of(), instance="p3", **{s.HOST_NAME: "far"}))
    monitor.beat("stranger")
    monitor.tick()
    assert [monitor.health(key) for key in ("p1", "p2", "p3", "p4")] == ["progressing", "dead", "progressing", "dead"]
    assert monitor.core.labels["p2"].health is Health.DEAD
    monitor.beat("p2")
    assert monitor.health("p2") == "progressing"


def test_dead_stays_dead_while_the_monitor_sleeps_or_refuses(monitor: Parts, fake: FakeClock) -> None:
    """What was found dead before a time in which nothing could be heard is not unknown for that; others are."""
    seconds(fake, monitor, 20)
    begin(monitor, "p1", "p2")
    for _ in range(4):
        seconds(fake, monitor, 5)
        monitor.beat("p2")
    fake.sleep(60)
    monitor.tick()
    assert [monitor.health(key) for key in ("p1", "p2")] == ["dead", "unknown"]
    monitor.core.observer.was_deaf(fake.monotonic())
    assert [monitor.health(key) for key in ("p1", "p2")] == ["dead", "unknown"]
    seconds(fake, monitor, 15)
    assert [monitor.health(key) for key in ("p1", "p2")] == ["dead", "dead"]


def test_dead_stays_dead_over_a_restart_and_is_told_once(fake: FakeClock, tmp_path: Path) -> None:
    """A monitor that is started again knows who was dead, tells nobody again, and tells when they are heard."""
    heard = Recorder()
    with parts(tmp_path / "m.db", listeners=(heard,)) as monitor:
        begin(monitor, "p1", "p2")
        for _ in range(4):
            seconds(fake, monitor, 5)
            monitor.beat("p2")
        assert heard.kinds == ["dead"]
        fake.sleep(10)
        monitor.restart()
        assert [monitor.health(key) for key in ("p1", "p2")] == ["dead", "unknown"]
        monitor.beat("p2")
        seconds(fake, monitor, 5)
        assert heard.kinds == ["dead"]
        back = Snapshot("p1", "work", Status.RUNNING, AT + 9, sequence=9, started_at=AT)
        monitor.take_of("p1", event_of(back))
        monitor.tick()
        assert heard.kinds == ["dead", "recovered"]
        monitor.restart()
        monitor.take_of("p1", event_of(back))
        monitor.tick()
        assert heard.kinds == ["dead", "recovered"]


def test_gap_of_a_host_is_no_death_of_its_neighbours(monitor: Parts, fake: FakeClock) -> None:
    """Where a whole host was not heard for a while, and then one of its processes is, the others have time, too."""
    seconds(fake, monitor, 20)
    begin(monitor, "p1", "p2", host="far")
    begin(monitor, "near", host="near")
    for _ in range(3):
        seconds(fake, monitor, 4.5)
        monitor.take(request_of(beat_of(), instance="near", **{s.HOST_NAME: "near"}))
    monitor.take(request_of(beat_of(), instance="p1", **{s.HOST_NAME: "far"}))
    seconds(fake, monitor, 4)
    assert [monitor.health(key) for key in ("p1", "p2", "near")] == ["progressing", "unknown", "progressing"]
    monitor.take(request_of(beat_of(), instance="p2", **{s.HOST_NAME: "far"}))
    assert monitor.health("p2") == "progressing"


def test_one_process_that_went_quiet_and_came_back(monitor: Parts, fake: FakeClock) -> None:
    """It is dead, and with its first sign it is as it says; nobody else changes."""
    seconds(fake, monitor, 20)
    begin(monitor, "p1", "p2", host="here")
    for _ in range(20):
        seconds(fake, monitor, 5)
        monitor.take(request_of(beat_of(), instance="p2", **{s.HOST_NAME: "here"}))
    assert [monitor.health(key) for key in ("p1", "p2")] == ["dead", "progressing"]
    monitor.take(request_of(beat_of(), instance="p1", **{s.HOST_NAME: "here"}))
    assert [monitor.health(key) for key in ("p1", "p2")] == ["progressing", "progressing"]


def test_frozen_only_where_it_is_proven(monitor: Parts, fake: FakeClock) -> None:
    """Dead is who is not heard; frozen is said where the pid was seen to be stopped, with that as evidence."""
    stopped: dict[str, str] = {}
    monitor.core.observer.is_stopped = stopped.get
    seconds(fake, monitor, 20)
    begin(monitor, "p1", "p2")
    stopped["p2"] = "stopped (pid 7, state T)"
    seconds(fake, monitor, 10)
    assert [monitor.row(key)["state"] for key in ("p1", "p2")] == ["progressing", "progressing"]
    seconds(fake, monitor, 6)
    assert [monitor.row(key)["state"] for key in ("p1", "p2")] == ["dead", "frozen"]
    verdict = monitor.row("p2")["verdict"]
    assert (verdict["health"], verdict["frozen"]) == ("dead", True)
    assert verdict["reason"].startswith("its process is stopped (pid 7, state T); its process was not heard of for")
    assert "frozen" not in monitor.row("p1")["verdict"]


def test_elapsed_that_is_not_said_follows_from_the_start() -> None:
    """A program of another language that names only its start has run since then, and is slow by that."""
    ledger = Ledger()
    observer = Observer(ledger, 0.0)
    event = event_of(snap(30, slow_after=40.0), **{s.ELAPSED: None})
    ledger.hear({"service.instance.id": "p1"}, [record(event)], 1.0)
    entry = ledger.operations["a"]
    assert entry.snapshot.elapsed == 30.0
    assert [observer.label(entry, now).health for now in (10.9, 11.0)] == [Health.PROGRESSING, Health.SLOW]


def test_one_that_beats_slowly_does_not_hide_the_death_of_another(monitor: Parts, fake: FakeClock) -> None:
    """The pauses between the beats of a slow one are no gaps."""
    seconds(fake, monitor, 20)
    for instance, interval in (("fast", 2.0), ("slow", 30.0)):
        monitor.take_of(instance, event_of(Snapshot(instance, "work", Status.RUNNING, AT, sequence=1, started_at=AT)))
        monitor.beat(instance, interval)
    for _ in range(4):
        seconds(fake, monitor, 30)
        monitor.beat("slow", 30.0)
        assert monitor.health("slow") == "progressing"
    assert monitor.health("fast") == "dead"


def test_first_job_after_a_quiet_night_is_known_at_once(monitor: Parts, fake: FakeClock) -> None:
    """Where nobody ran, silence was no gap: what begins now is progressing."""
    monitor.say(snap(1))
    monitor.beat()
    monitor.say(snap(2, Status.COMPLETED))
    seconds(fake, monitor, 1000)
    monitor.say(Snapshot("b", "work", Status.RUNNING, AT + 1000, sequence=1, started_at=AT + 1000))
    monitor.beat()
    assert monitor.health("b") == "progressing"


def test_missing_is_what_is_beyond_the_allowed(monitor: Parts, fake: FakeClock) -> None:
    """Only time in which the observer could hear counts."""
    seconds(fake, monitor, 20)
    monitor.say(snap(1))
    monitor.beat()
    observer, process = monitor.core.observer, monitor.core.ledger.processes["p1"]
    now = fake.monotonic()

    def missed(after: float, presume_after: float) -> bool:
        return observer.standing(process, now + after, presume_after)[0].missed

    assert [missed(25, 10.0), missed(25, 10.1), missed(15, 0.1)] == [True, False, False]
    observer.was_deaf(now + 20)
    assert not missed(25, 0.1)


def test_heartbeat_alone_is_a_sign_of_life(monitor: Parts, fake: FakeClock) -> None:
    """An operation that says nothing for long lives while its process beats."""
    seconds(fake, monitor, 20)
    monitor.say(snap(1))
    for _ in range(10):
        monitor.beat()
        seconds(fake, monitor, 5)
    assert monitor.health() == "progressing"
