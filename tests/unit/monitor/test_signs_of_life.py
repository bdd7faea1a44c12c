"""What proves that a process is alive: whatever it sends, itself, within three of the intervals that it promised."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from monitor_parts import Parts, beat_of, event_of, fake_time, parts, request_of, seconds

from otel_progress import clock, procfs
from otel_progress import semconv as s
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Status
from otel_progress.monitor.state.ledger import Ledger
from otel_progress.monitor.state.process_keys import declared_instance
from otel_progress.monitor.web.cancel import Control
from otel_progress.testing import FakeClock

FIXED = "the only worker"
"""An instance id that each run of a program has."""
BEGAN = 1_700_000_000.0


@pytest.fixture
def fake() -> Iterator[FakeClock]:
    """A clock that stands still."""
    with fake_time() as found:
        yield found


@pytest.fixture
def monitor(fake: FakeClock, tmp_path: Path) -> Iterator[Parts]:
    """A monitor."""
    with parts(tmp_path / "m.db") as found:
        yield found


class Sender:
    """A process that runs an operation."""

    def __init__(self, monitor: Parts, pid: int, key: str, instance: str = FIXED, **about: Any) -> None:
        self.monitor, self.key, self.instance = monitor, key, instance
        self.about = {s.PROCESS_PID: pid, s.PROCESS_CREATED: procfs.iso(BEGAN + pid), s.HOST_NAME: "far", **about}
        self.sequence = 0

    def say(self, status: Status = Status.RUNNING, event: str = s.UPDATED, **resource: Any) -> None:
        """It reports its operation."""
        self.sequence += 1
        now = clock.time_ns() / 1e9
        one = Snapshot(self.key, "work", status, now, sequence=self.sequence, started_at=BEGAN)
        self.send(event_of(one, event), **resource)

    def beat(self) -> None:
        """It sends a heartbeat."""
        self.send(beat_of())

    def send(self, *records: bytes, **resource: Any) -> None:
        """It sends a request."""
        self.monitor.take(request_of(*records, instance=self.instance, **{**self.about, **resource}))


def promising(interval: object) -> dict[str, Any]:
    """A resource that promises an interval."""
    return {s.HEARTBEAT_INTERVAL: interval, s.SCHEMA: 2}


# -- without a heartbeat


@pytest.mark.parametrize("interval", [2.0, 15.0])
def test_a_promise_in_the_resource_is_enough(interval: float, monitor: Parts, fake: FakeClock) -> None:
    """Who never sent a heartbeat is dead after three of the intervals that its requests promise, not before."""
    sender = Sender(monitor, 7, "a", **promising(interval))
    seconds(fake, monitor, 60)
    sender.say()
    seconds(fake, monitor, 3 * interval - 1)
    assert monitor.health() != "dead"
    seconds(fake, monitor, 2)
    assert monitor.health() == "dead"


@pytest.mark.parametrize("event", sorted(s.EVENTS - {s.OPERATION_ENDED, s.PROCESS_HEARTBEAT}))
def test_any_event_is_a_sign_of_life(event: str, monitor: Parts, fake: FakeClock) -> None:
    """An event of another operation of the process keeps this one from being dead, whatever it is."""
    sender = Sender(monitor, 7, "a", **promising(2.0))
    other = Sender(monitor, 7, "b", **promising(2.0))
    sender.say()
    for _ in range(12):
        seconds(fake, monitor, 5)
        other.say(event=event)
    assert monitor.health() != "dead"


def test_a_newer_promise_counts(monitor: Parts, fake: FakeClock) -> None:
    """A process that turns to another interval is dead after three of that."""
    sender = Sender(monitor, 7, "a")
    seconds(fake, monitor, 60)
    sender.say(**promising(15.0))
    sender.say(**promising(5.0))
    seconds(fake, monitor, 16)
    assert monitor.health() == "dead"
    sender.say(**promising(15.0))
    seconds(fake, monitor, 40)
    assert monitor.health() != "dead"


@pytest.mark.parametrize("bad", ["5", 0, -1.0, float("inf"), float("nan"), True, None])
def test_what_is_no_interval_promises_nothing(bad: object) -> None:
    """A process whose promise is no number of seconds is never missed."""
    process = Ledger().hear({s.SERVICE_INSTANCE_ID: "p1", s.HEARTBEAT_INTERVAL: bad}, [], 1.0)
    assert not process.beats


def test_a_promise_survives_a_kill_of_the_monitor(monitor: Parts, fake: FakeClock) -> None:
    """It is stored with the first event, and so is a change of it."""
    sender = Sender(monitor, 7, "a")
    sender.say(**promising(15.0))
    seconds(fake, monitor, 1)
    sender.say(**promising(5.0))
    monitor.restart()
    seconds(fake, monitor, 20)
    assert monitor.health() == "dead"


def test_what_a_request_says_of_itself_is_no_part_of_the_process(monitor: Parts) -> None:
    """Certificates and last metrics in the name of a process neither promise heartbeats nor say a schema."""
    Sender(monitor, 7, "a", **promising(5.0)).say()
    [process] = monitor.core.ledger.processes.values()
    assert not {s.SCHEMA, s.HEARTBEAT_INTERVAL} & set(process.resource)


def test_what_describes_a_process_is_kept(monitor: Parts) -> None:
    """Only some requests describe a process. What one adds is kept, and nothing else about the process changes."""
    sender = Sender(monitor, 7, "a", **promising(5.0))
    for about in ({}, {s.PROCESS_COMMAND_ARGS: ("run", "me")}, {}, {s.PROCESS_COMMAND_ARGS: ("other",), "mine": "new"}):
        sender.say(**about)
    [process] = monitor.core.ledger.processes.values()
    assert list(process.resource[s.PROCESS_COMMAND_ARGS]) == ["run", "me"]
    assert "mine" not in process.resource


def test_who_judges_is_known_without_a_heartbeat(monitor: Parts) -> None:
    """The scope of our SDK says it: such a process judges its operations itself."""
    Sender(monitor, 7, "a", **promising(5.0)).say()
    assert not monitor.core.observer.judges(monitor.core.ledger.operations["a"])


# -- one instance id, several processes


def test_a_killed_run_does_not_live_on_in_the_next_one(monitor: Parts, fake: FakeClock) -> None:
    """Two runs with one instance id, the first is killed: it is dead, although the second is heard all the time."""
    first, second = Sender(monitor, 7, "a", **promising(5.0)), Sender(monitor, 8, "b", **promising(5.0))
    first.say()
    seconds(fake, monitor, 3)
    for _ in range(10):
        second.say()
        second.beat()
        seconds(fake, monitor, 4)
    assert (monitor.health("a"), monitor.health("b")) == ("dead", "progressing")
    second.say(Status.COMPLETED, s.OPERATION_ENDED)
    assert [monitor.row(key)["status"] for key in "ab"] == ["running", "completed"]


def test_processes_that_share_an_instance_id_live_and_die_apart(monitor: Parts, fake: FakeClock) -> None:
    """Workers with one instance id, at the same time: each proves only that it lives itself."""
    workers = [Sender(monitor, pid, f"w{pid}", **promising(5.0)) for pid in (7, 8, 9)]
    for second in range(60):
        for worker in workers:
            if second < 20 or worker is not workers[0]:
                worker.say()
        seconds(fake, monitor, 1)
    assert [monitor.health(worker.key) == "dead" for worker in workers] == [True, False, False]
    assert len(monitor.core.ledger.processes) == 3


def test_they_are_told_apart_after_a_restart_of_the_monitor(monitor: Parts, fake: FakeClock) -> None:
    """The monitor knows who is who from its store: the second run lives, the first is dead."""
    first, second = Sender(monitor, 7, "a", **promising(5.0)), Sender(monitor, 8, "b", **promising(5.0))
    first.say()
    second.say()
    monitor.restart()
    for _ in range(30):
        second.beat()
        seconds(fake, monitor, 1)
    assert (monitor.health("a"), monitor.health("b") == "dead") == ("dead", False)


def test_a_restarted_container_is_another_process(monitor: Parts, fake: FakeClock) -> None:
    """Its pid is 1 again; the time of its creation tells it apart."""
    first = Sender(monitor, 1, "a", **promising(5.0))
    second = Sender(monitor, 1, "b", **promising(5.0), **{s.PROCESS_CREATED: procfs.iso(BEGAN + 500)})
    first.say()
    for _ in range(8):
        second.say()
        seconds(fake, monitor, 4)
    assert monitor.health("a") == "dead"


@pytest.mark.parametrize(
    "again",
    [
        {s.PROCESS_CREATED: procfs.iso(BEGAN + 7.4)},
        {s.PROCESS_CREATED: None},
        {s.PROCESS_PID: None},
        {s.PROCESS_CREATED: "yesterday"},
    ],
)
def test_a_process_that_says_less_or_nearly_the_same_is_the_same(again: dict[str, Any], monitor: Parts) -> None:
    """Two readings of a creation time differ a little, and spans may come without a pid."""
    sender = Sender(monitor, 7, "a", **promising(5.0))
    sender.say()
    sender.about = {key: value for key, value in {**sender.about, **again}.items() if value is not None}
    sender.say()
    assert list(monitor.core.ledger.processes) == [FIXED]


def test_where_the_first_run_was_on_this_machine_it_is_lost(monitor: Parts, fake: FakeClock) -> None:
    """The watcher looks for the pid of the first run, whatever the second one sends."""
    from otel_progress.monitor.state.watcher import Watcher

    core, posted = monitor.core, list[bytes]()
    machine = Machine()
    core.watcher = Watcher(
        lambda signal, body: posted.append(body) if signal == "logs" else None,
        lambda _: None,
        probe=machine,
        ledger=core.ledger,
        quiet=0.3,
        eager=False,
    )
    here = {s.HOST_NAME: socket.gethostname(), **promising(5.0)}
    first, second = Sender(monitor, 7, "a", **here), Sender(monitor, 8, "b", **here)
    machine.alive = {7, 8}
    first.say()
    machine.alive = {8}
    for _ in range(5):
        second.say()
        core.watcher.tick()
        seconds(fake, monitor, 1)
    monitor.take(*posted)
    assert [monitor.row(key)["status"] for key in "ab"] == ["lost", "running"]


class Machine:
    """A machine on which some processes are alive."""

    def __init__(self) -> None:
        self.alive: set[int] = set()

    def look(self, pid: int) -> procfs.ProcessStat | None:
        """The process with this pid."""
        return procfs.ProcessStat(pid, pid * 100, "S") if pid in self.alive else None

    def created(self, seen: procfs.ProcessStat) -> float | None:
        """When it was created."""
        return BEGAN + seen.pid

    def executable(self, pid: int) -> str | None:
        """Python."""
        return "python"

    def has_running_thread(self, _: int) -> bool:
        return False

    def waits_in(self, pid: int) -> str:
        """Unknown."""
        return ""

    def memory_kills(self) -> int | None:
        """None."""
        return 0

    def pid_space(self) -> procfs.PidSpace:
        """Where its pids count."""
        return procfs.PidSpace("boot", "pid:[1]", "machine")

    def is_hidden(self, pid: int) -> bool:
        """None is."""
        return False

    def has_connection(self, pid: int, port: int) -> bool:
        """None has."""
        return False


def test_both_are_reached_by_the_instance_id_that_they_send(monitor: Parts) -> None:
    """A process polls for commands with its instance id; the monitor's own key of it leads there."""
    for pid in (7, 8):
        Sender(monitor, pid, f"w{pid}", **promising(5.0)).say()
    keys = list(monitor.core.ledger.processes)
    assert len(keys) == 2
    assert [declared_instance(key) for key in keys] == [FIXED] * 2

    async def poll() -> list[bool]:
        control = Control()
        await control.poll(FIXED, 8, (), 0)
        return [control.connected(key) for key in keys]

    assert asyncio.run(poll()) == [True, True]


@pytest.mark.parametrize("instance", ["p1", "p (pid 1)", "(x)", "p\u00a0(pid", ""])
def test_the_instance_id_of_a_key(instance: str) -> None:
    """Of a process alone, the key is the id, whatever it looks like to people."""
    ledger = Ledger()
    about = {s.SERVICE_INSTANCE_ID: instance, s.PROCESS_PID: 1, s.HOST_NAME: "far"}
    first = ledger.hear(about, [], 1.0).instance
    assert declared_instance(first) == first
    key = ledger.hear({**about, s.PROCESS_PID: 2}, [], 1.0).instance
    assert declared_instance(key) == instance or not instance
