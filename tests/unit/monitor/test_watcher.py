"""The watcher on a fake clock with fake processes: who is gone, who is only silent, and what is closed when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from monitor_parts import Parts, event_of, request_of
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_progress import clock, procfs
from otel_progress import semconv as s
from otel_progress.model import wire
from otel_progress.model.snapshot import Progress, Snapshot, SpanIds
from otel_progress.model.status import Status
from otel_progress.model.units import duration
from otel_progress.monitor.intake import records, requests
from otel_progress.monitor.intake.request_queue import Job
from otel_progress.monitor.intake.requests import Envelope, Sender
from otel_progress.monitor.state.ledger import Process
from otel_progress.monitor.state.watcher import Watcher
from otel_progress.outbound import otlp
from otel_progress.outbound.certificate import Exit
from otel_progress.outbound.last_metrics import last_metrics
from otel_progress.testing import FakeClock

BOOT = 1_000_000.0


class Machine:
    """The processes of a machine; each is created some seconds after `BOOT`."""

    def __init__(self) -> None:
        self.alive: dict[int, procfs.ProcessStat] = {}
        self.kills: int | None = 0
        self.connections: set[tuple[int, int]] = set()
        self.busy: set[int] = set()

    def start(self, pid: int, at: int = 10) -> None:
        self.alive[pid] = procfs.ProcessStat(pid, at, "S")

    def look(self, pid: int) -> procfs.ProcessStat | None:
        return self.alive.get(pid)

    def created(self, seen: procfs.ProcessStat) -> float | None:
        return BOOT + seen.ticks

    def executable(self, pid: int) -> str | None:
        return "node"

    def waits_in(self, pid: int) -> str:
        return "pipe_read"

    def has_running_thread(self, pid: int) -> bool:
        return pid in self.busy

    def memory_kills(self) -> int | None:
        return self.kills

    def pid_space(self) -> procfs.PidSpace:
        return procfs.PidSpace("boot", "pid:[1]", "machine")

    def is_hidden(self, pid: int) -> bool:
        return False

    def has_connection(self, pid: int, port: int) -> bool:
        return (pid, port) in self.connections


class Scene:
    """A watcher, its machine and its clock."""

    def __init__(self, time: FakeClock, *, eager: bool = True) -> None:
        self.time = time
        self.machine = Machine()
        self.told: list[str] = []
        self.sent: list[tuple[str, bytes]] = []
        self.looked: list[int] = []
        self.watcher = Watcher(
            lambda signal, body: self.sent.append((signal, body)),
            self.told.append,
            look_into=lambda pid, say: self.looked.append(pid),
            probe=self.machine,
            eager=eager,
        )
        self.machine.start(1)
        self.watcher.adopt(1)

    def say(self, pid: int = 1, status: Status = Status.RUNNING, **more: Any) -> None:
        """A process says how its operation is."""
        created = more.pop("created", procfs.iso(BOOT + 10))
        about = {"service.instance.id": f"p{pid}", s.PROCESS_PID: pid, s.PROCESS_CREATED: created}
        given = {"operation_id": f"o{pid}", "sequence": 1, "started_at": 5.0, "name": "work", **more}
        snapshot = Snapshot(status=status, timestamp=6.0, span=SpanIds("1" * 32, "2" * 16), **given)
        encoded = otlp.attributes(6, wire.to_attributes(snapshot))
        body = otlp.log_record(s.UPDATED, 6 * 10**9, 6 * 10**9, otlp.INFO, "", encoded, "1" * 32, "2" * 16, True)
        request = otlp.envelope(
            otlp.resource({key: value for key, value in about.items() if value is not None}),
            otlp.scope("", ""),
            [body],
        )
        self.watcher.hear(records.groups(requests.parse("logs", request)))

    def run(self, seconds: float, step: float = 0.25) -> None:
        """Let time go by."""
        for _ in range(round(seconds / step)):
            self.time.sleep(step)
            self.watcher.tick()

    def kill(self, pid: int) -> None:
        """A process is gone."""
        del self.machine.alive[pid]

    @property
    def lost(self) -> list[str]:
        """The operations that were closed."""
        return [loss.snapshot.operation_id for loss in self.watcher.losses]

    @property
    def certificates(self) -> list[str]:
        """The signals of the certificates that were sent."""
        return [signal for signal, _ in self.sent if signal != "metrics"]

    @property
    def points(self) -> list[tuple[str, str, dict[str, str], float]]:
        """The metrics that were sent: instance, name, labels other than that of the instance, value."""
        found = []
        for signal, body in self.sent:
            if signal != "metrics":
                continue
            for about in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                resource = {pair.key: pair.value.string_value for pair in about.resource.attributes}
                for metric in about.scope_metrics[0].metrics:
                    for point in (metric.gauge if metric.HasField("gauge") else metric.sum).data_points:
                        labels = {pair.key: pair.value.string_value for pair in point.attributes}
                        found.append((resource["service.instance.id"], metric.name, labels, point.as_double))
        return found

    def counted(self) -> list[float]:
        """The values of the counter of ended operations with status `lost`, in order."""
        return [value for _, name, about, value in self.points if name == s.ENDED.name]


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A scene on a fake clock."""
    time = FakeClock()
    before = clock.install(time)
    yield Scene(time)
    clock.install(before)


# -- gone


def test_operations_of_a_process_that_is_gone_are_closed(scene: Scene) -> None:
    """A worker that is gone while the command lives is closed a moment later, once, as an event and a span."""
    scene.machine.start(2)
    scene.say(1)
    scene.say(2)
    scene.kill(2)
    scene.run(5)
    assert scene.lost == ["o2"]
    assert scene.certificates == ["logs", "traces"]
    message = ExportLogsServiceRequest.FromString(dict(scene.sent)["logs"])
    record = message.resource_logs[0].scope_logs[0].log_records[0]
    assert record.event_name == s.OPERATION_ENDED
    assert scene.told == []
    assert not scene.watcher.waiting


def test_a_lost_run_lasted_as_long_as_its_process_was_seen(scene: Scene) -> None:
    """Its end is the last look at which its process was alive; that of a command is when it was waited for."""
    began = scene.time.time_ns() / 1e9
    scene.machine.start(2)
    scene.say(1, started_at=began)
    scene.say(2, started_at=began, elapsed=1.0)
    scene.run(2)
    alive = scene.time.time_ns() / 1e9
    scene.time.sleep(0.7)
    scene.kill(2)
    scene.run(5)
    assert [loss.snapshot.timestamp for loss in scene.watcher.losses] == [alive]
    scene.watcher.ended(Exit(1))
    ended = scene.time.time_ns() / 1e9
    scene.kill(1)
    scene.run(5)
    assert scene.watcher.losses[-1].snapshot.timestamp == ended


def test_nothing_is_closed_while_something_may_still_come(scene: Scene) -> None:
    """What the dead one had sent is taken first: only after a quiet moment, with nothing under way, it is closed."""
    scene.machine.start(2)
    scene.say(2)
    scene.kill(2)
    busy = True
    scene.watcher.settled = lambda: not busy
    scene.run(1)
    assert (scene.lost, scene.watcher.waiting) == ([], True)
    busy = False
    scene.say(2, Status.COMPLETED, sequence=2)
    scene.run(5)
    assert (scene.lost, scene.watcher.waiting) == ([], False)


def test_what_a_collector_holds_has_its_time(scene: Scene) -> None:
    """Where events came five seconds late, the end of one that is gone may still come so late: it is waited for."""
    for pid in (2, 3):
        scene.machine.start(pid)
        scene.say(pid)
    scene.run(6)
    scene.watcher.notice(scene.watcher.ledger.processes["p2"], 5.0)
    scene.kill(2)
    scene.kill(3)
    scene.run(5)
    assert (scene.lost, scene.watcher.waiting) == ([], True)
    scene.say(2, Status.COMPLETED, sequence=2)
    scene.run(6)
    assert (scene.lost, scene.watcher.waiting) == (["o3"], False)


@pytest.mark.parametrize(("silent", "itself", "presumed"), [(20, False, True), (20, True, False), (3, False, False)])
def test_one_that_was_not_heard_before_it_was_gone_may_have_ended(
    scene: Scene, silent: float, *, itself: bool, presumed: bool
) -> None:
    """Where the way to a monitor was cut, the end may come when that is over; it can't be so without a Collector."""
    scene = Scene(scene.time, eager=False)
    scene.machine.start(2)
    scene.say(2)
    scene.watcher.ledger.beat(scene.watcher.ledger.processes["p2"], 5.0, 6.0)
    scene.machine.connections = {(2, 5002)} if itself else set()
    scene.watcher.notice(scene.watcher.ledger.processes["p2"], 5.0, 5002)
    scene.run(silent)
    scene.kill(2)
    scene.run(120)
    gone = [one.instance for one in scene.watcher.take_gone()]
    assert (gone, scene.lost) == ((["p2"], []) if presumed else ([], ["o2"]))
    assert ("logs" in scene.certificates) is not presumed


def test_what_a_process_holds_itself_is_gone_with_it(scene: Scene) -> None:
    """Events that waited in the memory of a process that sends them itself hold up no proof, neither its nor others'."""
    for pid in (2, 3):
        scene.machine.start(pid)
        scene.say(pid)
    scene.machine.connections = {(2, 5002)}
    scene.run(6)
    scene.watcher.notice(scene.watcher.ledger.processes["p2"], 5.0, 5002)
    scene.kill(2)
    scene.kill(3)
    scene.run(1)
    assert scene.lost == ["o2", "o3"]


def test_what_came_by_the_connection_of_another_process_may_be_under_way(scene: Scene) -> None:
    """Where a Collector of this machine passed late events on, the end of the process is waited for."""
    scene.machine.start(2)
    scene.say(2)
    scene.machine.connections = {(9, 5002)}
    scene.run(6)
    scene.watcher.notice(scene.watcher.ledger.processes["p2"], 5.0, 5002)
    scene.kill(2)
    scene.run(4)
    assert scene.lost == []
    scene.run(2)
    assert scene.lost == ["o2"]


def test_one_that_sends_itself_waits_for_nobody_else(scene: Scene) -> None:
    """The delay of a Collector between other processes and the monitor holds up no proof of what does without one."""
    for pid in (2, 3):
        scene.machine.start(pid)
        scene.say(pid)
    scene.machine.connections = {(2, 5002)}
    scene.run(6)
    scene.watcher.notice(scene.watcher.ledger.processes["p2"], 1.0, 5002)
    scene.watcher.notice(scene.watcher.ledger.processes["p3"], 5.0, 5003)
    scene.kill(2)
    scene.kill(3)
    scene.run(1)
    assert scene.lost == ["o2"]


def test_what_waited_for_the_watcher_itself_was_not_late(scene: Scene) -> None:
    """An event from before its start came late for want of a watcher, so no proof is held up by that."""
    scene.machine.start(2)
    scene.say(2)
    scene.run(6)
    scene.watcher.notice(scene.watcher.ledger.processes["p2"], 20.0)
    scene.kill(2)
    scene.run(2)
    assert scene.lost == ["o2"]


def test_what_came_late_once_is_forgotten(scene: Scene) -> None:
    """An outage that delayed one event holds up no proof for ever."""
    scene.time.sleep(3700)
    scene.machine.start(2)
    scene.say(2)
    scene.watcher.notice(scene.watcher.ledger.processes["p2"], 3600.0)
    scene.kill(2)
    scene.run(31)
    assert scene.lost == ["o2"]


def test_closing_waits_for_quiet_and_not_for_ever(scene: Scene) -> None:
    """News of the dead one put the end off; a busy intake only for a while."""
    scene.machine.start(2)
    scene.say(2)
    scene.kill(2)
    for sequence in range(2, 6):
        scene.run(0.25)
        scene.say(2, sequence=sequence)
    assert scene.lost == []
    scene.watcher.settled = lambda: False
    scene.run(5)
    assert scene.lost == ["o2"]
    assert scene.watcher.losses[0].snapshot.sequence == 6


def test_pid_that_another_process_has_now_is_gone(scene: Scene) -> None:
    """The same pid with another start is another process."""
    scene.machine.start(2)
    scene.say(2)
    scene.machine.start(2, at=99)
    scene.run(1)
    assert scene.lost == ["o2"]


def test_process_that_was_never_seen_here_is_never_lost(scene: Scene) -> None:
    """One of another machine or container, or one that says no creation, can't be proven to be gone."""
    scene.machine.start(2, at=50)
    scene.say(2)
    scene.say(3)
    scene.machine.start(4)
    scene.say(4, created="yesterday")
    scene.machine.start(5)
    scene.say(5, created=None)
    for pid in (2, 4, 5):
        scene.kill(pid)
    scene.run(60)
    assert scene.lost == []


def test_command_itself_is_known_by_its_pid(scene: Scene) -> None:
    """The command that was killed before it was looked at is known all the same: its pid was given by us."""
    scene.kill(1)
    scene.say(1)
    scene.run(1)
    assert scene.lost == []
    scene.watcher.ended(Exit(signal="SIGKILL"))
    scene.run(1)
    assert scene.lost == ["o1"]
    assert scene.watcher.losses[0].exit == Exit(signal="SIGKILL", out_of_memory=False)


def test_command_is_not_gone_before_it_was_waited_for(scene: Scene) -> None:
    """Until its exit is known the command has no certificate, so that the certificate can tell the exit."""
    scene.say(1)
    scene.kill(1)
    scene.run(10)
    assert scene.lost == []
    scene.watcher.ended(Exit(code=3))
    scene.run(1)
    assert scene.watcher.losses[0].exit == Exit(code=3)


@pytest.mark.parametrize(("kills", "expected"), [(1, True), (0, False), (None, None)])
def test_kill_for_want_of_memory_is_told_apart(scene: Scene, kills: int | None, expected: bool | None) -> None:
    """A SIGKILL just after the kernel's count went up was the kernel's; without a count that is not known."""
    scene.say(1)
    scene.run(1)
    scene.kill(1)
    scene.machine.kills = kills
    scene.watcher.ended(Exit(signal="SIGKILL"))
    scene.run(1)
    assert scene.watcher.losses[0].exit.out_of_memory is expected
    assert ("out of memory" in (scene.watcher.losses[0].snapshot.reason or "")) is bool(expected)


def test_old_kill_for_want_of_memory_says_nothing_of_today(scene: Scene) -> None:
    """A count that went up long ago, or a way to die that is not SIGKILL, is no out of memory."""
    scene.say(1)
    scene.machine.kills = 5
    scene.run(10)
    scene.kill(1)
    scene.watcher.ended(Exit(signal="SIGKILL"))
    scene.run(1)
    assert scene.watcher.losses[0].exit.out_of_memory is False


# -- fencing


def test_operation_that_another_process_resumed_is_not_closed(scene: Scene) -> None:
    """When the process of an older attempt goes, the newer attempt elsewhere goes on."""
    scene.machine.start(2)
    scene.say(2, operation_id="same")
    scene.say(1, operation_id="same", started_at=50.0)
    scene.kill(2)
    scene.run(5)
    assert scene.lost == []
    assert scene.watcher.ledger.operations["same"].open


def test_late_event_does_not_reopen_what_was_closed(scene: Scene) -> None:
    """After the certificate nothing of that attempt counts, and there is no second certificate."""
    scene.machine.start(2)
    scene.say(2)
    scene.kill(2)
    scene.run(1)
    scene.say(2, sequence=9)
    scene.run(5)
    assert scene.lost == ["o2"]
    assert scene.watcher.ledger.operations["o2"].snapshot.status is Status.LOST


def test_metrics_end_with_the_process(scene: Scene) -> None:
    """The run and the name are at 0, the death is said in words, the loss is counted: as the process itself would."""
    scene.say(operation_id="run-1", parent_id="above", progress=Progress(14, 60))
    scene.kill(1)
    scene.watcher.ended(Exit(signal="SIGKILL", code=None))
    scene.run(2)
    assert {instance for instance, *_ in scene.points} == {"p1"}
    run = {s.OPERATION_NAME: "work", s.OPERATION_ID: "run-1"}
    found = {name: (labels, value) for _, name, labels, value in scene.points}
    assert found[s.RUN_ACTIVE.name] == ({**run, s.OPERATION_PARENT_ID: "above"}, 0.0)
    assert found[s.RUN_COMPLETED.name] == (run, 14.0)
    labels, moment = found[s.RUN_LOST.name]
    assert labels == {**run, s.EXIT: "killed by SIGKILL"}
    assert moment == scene.watcher.losses[0].snapshot.timestamp
    assert found[s.ACTIVE.name] == ({s.OPERATION_NAME: "work"}, 0.0)
    assert found[s.ENDED.name] == ({s.OPERATION_NAME: "work", s.STATUS: "lost"}, 1.0)


def test_last_metrics_have_the_environment() -> None:
    """The last points of a run are of the same series as those of its process, which have its environment."""
    lost = Snapshot("run-1", "work", Status.LOST, 1.0)
    [request] = last_metrics([lost], "gone", {s.ENVIRONMENT: "prod"}, 1)
    assert request.count(s.ENVIRONMENT.encode()) == 3  # the resource, and two series of the run


def test_counter_of_the_lost_rises_from_zero(scene: Scene) -> None:
    """A name's counter is 0 while its operations run, so that a store sees it rise; each loss is in it once."""
    scene.say(operation_id="one")
    scene.run(1)
    assert scene.counted() == [0.0]
    scene.say(operation_id="two")
    scene.say(operation_id="three", status=Status.COMPLETED)
    scene.run(1)
    scene.kill(1)
    scene.watcher.ended(Exit(code=0))
    scene.run(5)
    assert scene.counted() == [0.0, 2.0]
    assert {labels[s.EXIT] for _, name, labels, _ in scene.points if name == s.RUN_LOST.name} == {"exited with code 0"}


def test_death_that_two_watchers_prove_counts_once(scene: Scene) -> None:
    """`run` and a monitor that prove the same death send the same totals of the same series, so stores count it once."""
    other = Scene(scene.time)
    for one in (scene, other):
        one.say(operation_id="one")
        one.say(operation_id="two")
        one.run(1)
        one.kill(1)
        one.watcher.ended(Exit(code=0))
    scene.run(2)
    other.run(2)
    totals = [point for one in (scene, other) for point in one.points if point[1] == s.ENDED.name and point[3]]
    assert totals == [("p1", s.ENDED.name, {s.OPERATION_NAME: "work", s.STATUS: "lost"}, 2.0)] * 2


def test_thousands_of_lost_operations_are_counted_whole(scene: Scene) -> None:
    """What does not fit into one request goes on in the next; the count of a name is in one of them."""
    for number in range(2500):
        scene.say(operation_id=f"run-{number}")
    scene.kill(1)
    scene.watcher.ended(Exit(code=3))
    scene.run(2)
    lost = [labels[s.OPERATION_ID] for _, name, labels, _ in scene.points if name == s.RUN_LOST.name]
    assert len(lost) == len(set(lost)) == 2500
    assert scene.counted() == [0.0, 2500.0]
    assert max(len(body) for signal, body in scene.sent if signal == "metrics") < 1024 * 1024


def test_certificate_that_can_not_be_made_stops_nothing(scene: Scene) -> None:
    """Ids that are none harm only their own certificate."""
    scene.machine.start(2)
    scene.say(2)
    entry = scene.watcher.ledger.operations["o2"]
    bad = replace(entry.snapshot, operation_id="bad", span=SpanIds("no hex", "zz"))
    scene.watcher.ledger.apply(bad, "p2", 0.0)
    scene.kill(2)
    scene.run(2)
    assert sorted(scene.lost) == ["bad", "o2"]
    assert scene.certificates == ["logs", "traces"]
    assert "can't be closed" in scene.told[0]


# -- silent


def test_silence_is_told_once_and_the_return_too(scene: Scene) -> None:
    """A process that lives but is unheard for three of its intervals is told with its state; its stack is asked for."""
    scene.say(1, message="reading")
    scene.machine.alive[1] = procfs.ProcessStat(1, 10, "T")
    scene.run(14.75)
    assert scene.told == []
    scene.run(0.25)
    (told,) = scene.told
    assert told.startswith("frozen: nothing was heard of pid 1")
    assert "15 s" in told
    assert "stopped (T, in pipe_read)" in told
    assert "work [o1]: reading" in told
    assert scene.looked == [1]
    scene.run(60)
    assert len(scene.told) == 1
    scene.say(1, sequence=2)
    assert scene.told[1:] == [f"pid 1 is heard again, after {duration(75)}"]
    scene.run(20)
    assert len(scene.told) == 3
    assert scene.lost == []


@pytest.mark.parametrize("state", ["S", "R", "T"])
def test_a_silent_process_whose_first_thread_waits_may_be_at_work(scene: Scene, state: str) -> None:
    """The state of a process is that of its first thread: it says nothing of one in C code that lets no other run."""
    scene.say(1)
    scene.machine.alive[1] = procfs.ProcessStat(1, 10, state)
    scene.machine.busy.add(1)
    scene.run(15)
    assert ("), but another thread of it is running; running: " in scene.told[0]) == (state == "S")


def test_process_without_running_operations_may_be_silent(scene: Scene) -> None:
    """Only one that runs something is missed."""
    scene.say(1)
    scene.say(1, Status.COMPLETED, sequence=2)
    scene.run(60)
    assert scene.told == []


def test_watcher_that_was_asleep_knows_nothing(scene: Scene) -> None:
    """After a gap in its own looks the watcher waits three intervals anew before it calls anyone silent."""
    scene.say(1)
    scene.run(10)
    scene.time.sleep(3600)
    scene.watcher.tick()
    scene.run(14)
    assert scene.told == []
    scene.run(1.25)
    assert len(scene.told) == 1


def test_processes_that_run_nothing_are_forgotten(scene: Scene) -> None:
    """A command that has many short processes does not fill the memory; those that run something stay."""
    scene.say(1)
    for pid in range(2, 1200):
        scene.machine.start(pid)
        scene.say(pid, Status.COMPLETED)
        scene.kill(pid)
    scene.watcher.tick()
    assert list(scene.watcher._known) == ["p1"]


def test_core_tells_how_late_events_came_and_from_where(monitor: Parts) -> None:
    """The watcher learns the port of this machine that a request came from, to see who sends by itself."""
    told: list[tuple[float, int | None]] = []

    class Listening(Watcher):
        def notice(self, process: Process, late: float = 0.0, port: int | None = None) -> None:
            told.append((late, port))

    monitor.core.watcher = Listening(lambda *_: None, lambda _: None, probe=Machine(), ledger=monitor.core.ledger)
    started = Snapshot("a", "work", Status.RUNNING, clock.unix() - 5, started_at=clock.unix() - 5, sequence=1)
    body = request_of(event_of(started, s.OPERATION_STARTED))
    for sender in (Sender(("127.0.0.1", 5000)), Sender(("10.0.0.1", 5000), address="10.0.0.1")):
        monitor.core.work([Job(Envelope("logs", body, sender=sender), lambda _: None, True)])
    assert told == [(pytest.approx(5.0), 5000), (pytest.approx(5.0), None)]
