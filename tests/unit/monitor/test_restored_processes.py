"""What the monitor proves after a restart: deaths of processes that it saw alive before, here, and nothing else."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from monitor_parts import Parts, Recorder, beat_of, event_of, names, parts, request_of, seconds
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_progress import clock, procfs
from otel_progress import semconv as s
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Status
from otel_progress.monitor.state.watcher import UNDER_WAY, Watcher
from otel_progress.outbound.certificate import Exit, certify
from otel_progress.testing import FakeClock

HERE = procfs.PidSpace("boot-1", "pid:[1]", "machine-1")
GONE = "its process is gone"


class Machine:
    """A machine; processes are created some seconds after its boot."""

    def __init__(self, began: float) -> None:
        self.boot = began
        self.space = HERE
        self.alive: dict[int, int] = {}
        """The start of each process, by pid."""
        self.hidden: set[int] = set()

    def look(self, pid: int) -> procfs.ProcessStat | None:
        """The process with this pid."""
        found = self.alive.get(pid) if pid not in self.hidden else None
        return None if found is None else procfs.ProcessStat(pid, found, "S")

    def created(self, seen: procfs.ProcessStat) -> float | None:
        """When it was created."""
        return self.boot + seen.ticks

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
        return self.space

    def is_hidden(self, pid: int) -> bool:
        """Whether only the kernel knows of it."""
        return pid in self.hidden and pid in self.alive

    def has_connection(self, pid: int, port: int) -> bool:
        """None has."""
        return False


class Scene:
    """A machine with a monitor that can be stopped and started; one job with pid 7 ran for ten seconds."""

    def __init__(self, monitor: Parts, fake: FakeClock) -> None:
        self.monitor, self.fake = monitor, fake
        self.began = clock.time_ns() / 1e9
        self.machine = Machine(self.began - 100)
        self.sent: list[tuple[str, bytes]] = []
        self.queued: list[bytes] = []
        self.watch()
        self.machine.alive[7] = 50
        self.say()
        seconds(fake, monitor, 10)
        self.beat()

    def watch(self) -> Recorder:
        """Let the monitor look at this machine."""
        core = self.monitor.core

        def post(signal: str, body: bytes) -> None:
            self.sent.append((signal, body))
            self.queued += [body] if signal == "logs" else []

        core.watcher = Watcher(post, lambda _: None, probe=self.machine, ledger=core.ledger, quiet=2.0, eager=False)
        return self.monitor.listen()

    def about(self, pid: int = 7) -> dict[str, Any]:
        """The resource of a process."""
        created = procfs.iso(self.machine.boot + self.machine.alive.get(pid, 50))
        return {s.PROCESS_PID: pid, s.PROCESS_CREATED: created, s.HOST_NAME: socket.gethostname()}

    def say(self, pid: int = 7, status: Status = Status.RUNNING, key: str = "a", event: str = s.UPDATED) -> None:
        """A process reports its operation."""
        now = clock.time_ns() / 1e9
        given = {"sequence": round(now - self.began) + 1, "started_at": self.began, "elapsed": now - self.began}
        one = Snapshot(key, "work", status, timestamp=now, **given)
        self.monitor.take(request_of(event_of(one, event), instance=f"p{pid}", **self.about(pid)))

    def beat(self, pid: int = 7) -> None:
        """A process sends a heartbeat."""
        self.monitor.take(request_of(beat_of(), instance=f"p{pid}", **self.about(pid)))

    def restart(self, after: float = 60.0) -> Recorder:
        """The monitor is killed, and started some seconds later."""
        self.fake.sleep(after)
        self.monitor.restart()
        return self.watch()

    def run(self, count: float = 10) -> None:
        """Let time go by."""
        for _ in range(round(count)):
            seconds(self.fake, self.monitor, 1)
            queued, self.queued = self.queued, []
            self.monitor.take(*queued)

    def status(self, key: str = "a") -> str:
        """What is shown."""
        return str(self.monitor.row(key)["status"])

    def ends(self, key: str = "a") -> int:
        """The ends in the history."""
        return names(self.monitor.history(key)).count(s.OPERATION_ENDED)

    @property
    def counted(self) -> list[float]:
        """The values of the counter of lost operations that were sent since the start of the scene."""
        found = []
        for signal, body in self.sent:
            if signal == "metrics":
                for about in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                    metrics = [one for scope in about.scope_metrics for one in scope.metrics]
                    found += [p.as_double for one in metrics if one.name == s.ENDED.name for p in one.sum.data_points]
        return found


@pytest.fixture
def scene(fake: FakeClock, tmp_path: Path) -> Iterator[Scene]:
    """A scene on a fake clock."""
    with parts(tmp_path / "m.db") as monitor:
        yield Scene(monitor, fake)


def test_death_while_the_monitor_is_down_is_told_within_seconds(scene: Scene) -> None:
    """The job is lost, in the same words as ever; its time ends with the last sign of life, not with the restart."""
    del scene.machine.alive[7]
    heard = scene.restart(after=3_600)
    scene.run(5)
    row = scene.monitor.row()
    assert (row["status"], row["reason"]) == ("lost", GONE)
    assert row["elapsed"] == pytest.approx(10, abs=1)
    assert heard.conclusions == [("lost", "a")]
    assert not scene.sent


def test_loss_after_a_restart_is_certified_once(scene: Scene) -> None:
    """When nothing can be under way any more, metrics and certificate follow; there is still one end, told once."""
    del scene.machine.alive[7]
    heard = scene.restart()
    scene.run(UNDER_WAY + 10)
    assert scene.counted == [0.0, 1.0]
    assert [signal for signal, _ in scene.sent].count("logs") == 1
    assert heard.conclusions == [("lost", "a")]
    assert [one for one in heard.events if not one.held] == []
    scene.run(UNDER_WAY + 10)
    scene.restart()
    scene.run(UNDER_WAY + 10)
    assert scene.counted == [0.0, 1.0]
    assert (scene.status(), scene.ends(), scene.monitor.row()["reason"]) == ("lost", 1, GONE)


def test_two_restarts_count_a_death_once(scene: Scene) -> None:
    """The second of two monitors, one after the other on the same file, finds it lost already."""
    del scene.machine.alive[7]
    scene.restart()
    scene.run(5)
    heard = scene.restart(after=1)
    scene.run(UNDER_WAY + 10)
    assert (scene.status(), scene.ends(), heard.conclusions) == ("lost", 1, [])


def test_end_that_was_under_way_counts(scene: Scene) -> None:
    """An operation that completed while the monitor was down is completed, once a Collector delivers that."""
    del scene.machine.alive[7]
    scene.restart()
    scene.run(30)
    assert scene.status() == "lost"
    scene.say(status=Status.COMPLETED, event=s.OPERATION_ENDED)
    scene.run(UNDER_WAY + 10)
    assert scene.status() == "completed"
    assert not scene.sent


def test_what_lives_and_is_silent_is_not_lost(scene: Scene) -> None:
    """A process that hangs is dead (unheard of), as without a restart, but never lost."""
    scene.restart()
    scene.run(120)
    assert (scene.status(), scene.monitor.health()) == ("running", "dead")
    del scene.machine.alive[7]
    scene.run(5)
    assert scene.status() == "lost"


def test_what_is_heard_after_the_restart_and_dies_is_proven_at_once(scene: Scene) -> None:
    """Once its process was heard, it is as if there had been no restart."""
    scene.restart(after=1)
    scene.say()
    scene.run(3)
    del scene.machine.alive[7]
    scene.run(6)
    assert (scene.status(), scene.counted[-1]) == ("lost", 1.0)


def test_pid_of_another_process_keeps_nothing_alive(scene: Scene) -> None:
    """The pid was reused while the monitor was down: who has it now was created later."""
    scene.machine.alive[7] = 160
    scene.restart()
    scene.run(5)
    assert scene.status() == "lost"


def test_after_a_reboot_it_is_presumed_lost(scene: Scene) -> None:
    """No process survives a reboot, whoever has its pid and its ticks now; but only a presumption is made of it."""
    scene.machine.space = replace(HERE, boot="boot-2")
    scene.restart()
    scene.run(UNDER_WAY + 10)
    assert scene.status() == "lost"
    assert not scene.sent


@pytest.mark.parametrize(
    "space",
    [
        procfs.PidSpace("boot-2", "pid:[1]", "machine-2"),
        procfs.PidSpace("boot-2", "pid:[1]", ""),
        replace(HERE, namespace="pid:[2]"),
        procfs.PidSpace("", "", "machine-1"),
        replace(HERE, namespace=""),
    ],
    ids=["copied to another machine", "nobody knows which machine", "in a container", "no /proc", "no namespaces"],
)
def test_elsewhere_nothing_is_proven(scene: Scene, space: procfs.PidSpace) -> None:
    """On another machine or in another pid namespace a pid says nothing, so the job is dead, not lost."""
    del scene.machine.alive[7]
    scene.machine.space = space
    scene.restart()
    scene.run(60)
    assert (scene.status(), scene.monitor.health()) == ("running", "dead")


def test_under_another_host_name_nothing_is_proven(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clone of a machine may have its ids, but not its name."""
    del scene.machine.alive[7]
    scene.restart()
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    scene.run(60)
    assert scene.status() == "running"


def test_process_that_may_not_be_seen_is_not_lost(scene: Scene) -> None:
    """A monitor that runs as another user after the restart, with `hidepid`, doesn't take hidden for gone."""
    scene.machine.hidden.add(7)
    scene.restart()
    scene.run(60)
    assert scene.status() == "running"
    del scene.machine.alive[7]
    scene.run(5)
    assert scene.status() == "lost"


def test_child_of_a_pool_is_lost_and_the_others_are_not(scene: Scene) -> None:
    """Each worker is a process of its own."""
    scene.machine.alive[8] = 55
    scene.say(8, key="b")
    del scene.machine.alive[8]
    scene.restart(after=1)
    scene.run(5)
    assert (scene.status("a"), scene.status("b")) == ("running", "lost")


def test_run_knows_more_and_comes_late(scene: Scene) -> None:
    """The certificate of `run`, which saw how the process died, replaces the presumption; there is one end."""
    last = scene.monitor.core.ledger.operations["a"].snapshot
    del scene.machine.alive[7]
    heard = scene.restart(after=1)
    scene.run(5)
    lost = replace(last, status=Status.LOST, sequence=last.sequence + 1, reason="its process was killed by SIGKILL")
    about = {"service.instance.id": "p7", **scene.about()}
    scene.monitor.take(certify(lost, Exit(signal="SIGKILL"), about, clock.time_ns()).logs)
    scene.run(UNDER_WAY + 10)
    assert (scene.status(), scene.monitor.row()["reason"]) == ("lost", "its process was killed by SIGKILL")
    assert (scene.ends(), heard.conclusions, scene.sent) == (1, [("lost", "a")], [])


def test_what_was_never_seen_alive_is_never_lost(scene: Scene) -> None:
    """Its pid may be one of another namespace with the same host name."""
    scene.say(9, key="b")
    scene.restart()
    scene.run(60)
    assert scene.status("b") == "running"


def test_hidden_is_told_from_gone(tmp_path: Path) -> None:
    """Without an entry in `/proc`, the kernel tells whether there is a process with this pid."""
    assert procfs.is_hidden(os.getpid(), tmp_path)
    assert not procfs.is_hidden(os.getpid())
    assert not procfs.is_hidden(2**22 + 1, tmp_path)
