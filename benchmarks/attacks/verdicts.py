"""Attacks: numbers of operations that try to exhaust the monitor."""

from __future__ import annotations

import http.client
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

from benchmarks.attacks import attack, attacks, hold
from benchmarks.monitor.load import Monitor, fetch
from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.model import wire
from otel_progress.model.snapshot import Branch, Snapshot, Wait
from otel_progress.model.status import Health, Status
from otel_progress.monitor.intake.request_queue import Job
from otel_progress.monitor.intake.requests import Envelope
from otel_progress.monitor.state.core import Core
from otel_progress.monitor.state.store import Store
from otel_progress.outbound import otlp
from otel_progress.testing import FakeClock

MANY: Final = 3_000
CHUNK: Final = 500
_numbers = count(1)


def said(snapshot: Snapshot, event: str = s.UPDATED) -> bytes:
    """Return the log record that carries a snapshot."""
    given = {key: value for key, value in wire.to_attributes(snapshot).items() if value is not None}
    moment = round(snapshot.timestamp * 1e9)
    return otlp.log_record(event, moment, moment, 9, "said", otlp.attributes(6, given), None, None, False)


def beat(interval: float = 5.0) -> bytes:
    """Return a heartbeat of a process."""
    given, now = otlp.attributes(6, {s.HEARTBEAT_INTERVAL: interval}), clock.time_ns()
    return otlp.log_record(s.PROCESS_HEARTBEAT, now, now, 9, "", given, None, None, False)


def request(records: Sequence[bytes], instance: str = "p") -> bytes:
    """Return a request of a process on another machine."""
    about = otlp.resource({"service.instance.id": instance, s.HOST_NAME: "elsewhere"})
    return otlp.envelope(about, otlp.scope(s.SCOPE, ""), records)


def running(number: int, **more: Any) -> Snapshot:
    """Return a running operation."""
    now, status = clock.time_ns() / 1e9, Status.WAITING if "wait" in more else Status.RUNNING
    return Snapshot(f"op-{number}", "work", status, now, **{"sequence": next(_numbers), "started_at": now, **more})


class Rig:
    """The state of a monitor with a clock that the attack advances."""

    def __init__(self, store: Store, fake: FakeClock) -> None:
        self.core = Core(store)
        self.fake = fake

    def send(self, records: Sequence[bytes], instance: str = "p") -> None:
        """Let a process send these."""
        for at in range(0, len(records), CHUNK):
            body = request(records[at : at + CHUNK], instance)
            self.core.work([Job(Envelope("logs", body), lambda _: None, True)])

    def judged(self, seconds: int, *beating: str) -> int:
        """Return the number of judgements in these seconds, while these processes are heard."""
        before = self.core.judging.rounds.judged
        for _ in range(seconds):
            for instance in beating:
                self.send([beat()], instance)
            self.fake.sleep(1.0)
            self.core.tick(clock.monotonic())
        return self.core.judging.rounds.judged - before


@contextmanager
def rig() -> Iterator[Rig]:
    """Return a monitor that has listened long enough to judge."""
    fake = FakeClock()
    before = clock.install(fake)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "m.db")
        try:
            found = Rig(store, fake)
            found.judged(20, "p")
            yield found
        finally:
            store.close()
            clock.install(before)


@attacks("verdicts", "thousands of operations that rest, {health}", health=["progressing", "silent", "slow", "looping"])
def rest(health: str) -> None:
    """Idle operations cost nothing per second."""
    with rig() as monitor:
        about = {"health": Health(health), "slow_after": 9e4, "stall_after": 9e4}
        monitor.send([said(running(n, **about)) for n in range(MANY)])
        hold(monitor.judged(1, "p") <= 2 * MANY, "each is judged when it is new")
        again = monitor.judged(60, "p")
        hold(again == 0, f"nothing is judged while nothing can change; {again} were in a minute")


@attack("verdicts", "a chain of thousands of stuck parents, each in a process of its own")
def chain() -> None:
    """Verdicts that depend on others are not computed each second either."""
    with rig() as monitor:
        processes = [f"p{n}" for n in range(8)]
        for n in range(MANY // 3):
            above = f"op-{n - 1}" if n else None
            one = running(n, health=Health.SILENT, idle=9.0, stall_after=5.0, parent_id=above)
            monitor.send([said(one)], processes[n % 8])
        monitor.judged(20, *processes)
        again = monitor.judged(60, *processes)
        hold(again == 0, f"nothing is judged while nothing can change; {again} were in a minute")
        monitor.send([said(running(MANY // 3 - 1, parent_id=f"op-{MANY // 3 - 2}"))], processes[0])
        again = monitor.judged(1, *processes)
        hold(again <= 40, f"what the last of them says concerns those right above it; {again} were judged")


@attack("verdicts", "thousands of limits that are reached in one second")
def limits_at_once() -> None:
    """Each limit is noticed in its second, after one or two judgements."""
    with rig() as monitor:
        wait = Wait("you", 0.0, 30.0)
        monitor.send([said(running(n, wait=wait, health=Health.WAITING)) for n in range(MANY // 2)])
        monitor.send([said(running(n, slow_after=30.0)) for n in range(MANY // 2, MANY)])
        monitor.judged(29, "p")
        spent = monitor.judged(2, "p")
        bad = sum(label.overdue or label.health is Health.SLOW for label in monitor.core.labels.values())
        hold(bad == MANY, f"all are overdue or slow; {bad} of {MANY} are")
        hold(spent <= 3 * MANY, f"each is judged about once; {spent} were")
        again = monitor.judged(60, "p")
        hold(again == 0, f"and then no more; {again} were")


@attack("verdicts", "a process with thousands of operations that comes and goes")
def come_and_go() -> None:
    """Operations of a process are judged only when it goes and when it comes back."""
    with rig() as monitor:
        monitor.send([said(running(n)) for n in range(MANY)])
        monitor.judged(1, "p")
        spent = 0
        for _ in range(3):
            spent += monitor.judged(20)
            hold({one.health for one in monitor.core.labels.values()} == {Health.DEAD}, "one that is not heard is dead")
            spent += monitor.judged(20, "p")
            hold(
                {one.health for one in monitor.core.labels.values()} == {Health.PROGRESSING}, "one that is heard lives"
            )
        hold(spent <= 3 * 2 * MANY, f"twice a time; {spent} were")


@attack("verdicts", "branches that wait for thousands of operations nobody knows")
def unknown_children() -> None:
    """Memory for unknown children is bounded, and nothing is judged at rest."""
    with rig() as monitor:
        for n in range(MANY // 5):
            branches = tuple(Branch(path=f"s{i}", child=f"x-{n}-{i}", health=Health.SLOW) for i in range(10))
            monitor.send([said(running(n, branches=branches, health=Health.SLOW))])
        monitor.judged(2, "p")
        hold(len(monitor.core.judging.rounds._resting) <= 11_000, "what is remembered is bounded")
        monitor.judged(1, "p")
        hold(monitor.judged(10, "p") == 0, "nothing is judged while nothing can change")


def fill(path: Path, operations: int) -> None:
    """Write a database with this number of running operations."""
    store = Store(path)
    core = Core(store)
    for at in range(0, operations, CHUNK):
        records = [said(running(n)) for n in range(at, min(at + CHUNK, operations))]
        core.work([Job(Envelope("logs", request([beat(), *records])), lambda _: None, True)])
    store.close()


@attacks("verdicts", "a restart with {number} operations that run", number=["12000"])
def restart(number: str) -> None:
    """It answers and accepts requests before all is loaded, says so, and calls nothing dead or lost."""
    operations = int(number)
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder) / "monitor.db", operations)
        with Monitor(Path(folder)) as monitor:
            first = fetch(monitor.host, "/health")
            hold(first.get("loading", {}).get("of") == operations, f"the first answer says that it loads: {first}")
            page = fetch(monitor.host, "/operations?limit=5")
            hold("loading" in page, "so does the first list")
            status = post(monitor.host, request([beat(), said(running(operations - 1))]))
            hold(status == 200, f"what comes in is taken meanwhile, not answered with {status}")
            end = time.monotonic() + 100
            while "loading" in fetch(monitor.host, "/health") and time.monotonic() < end:
                states = fetch(monitor.host, "/operations?limit=1")["counts"]
                hold(set(states) <= {"unknown", "progressing"}, f"nothing is concluded before: {states}")
                time.sleep(0.1)
            whole = fetch(monitor.host, "/operations?limit=1")
            hold(
                (whole["total"], "loading" in whole) == (operations, False), f"then all are there, not {whole['total']}"
            )


@attack("verdicts", "10000 operations at rest in a monitor that runs", long=True)
def rest_for_real() -> None:
    """A real monitor at rest uses no CPU."""
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder) / "monitor.db", 10_000)
        with Monitor(Path(folder)) as monitor:
            for _ in range(5):
                post(monitor.host, request([beat()]))
                time.sleep(4)
            before = seconds_of(monitor.process.pid)
            for _ in range(3):
                post(monitor.host, request([beat()]))
                time.sleep(4)
            spent = (seconds_of(monitor.process.pid) - before) / 12
            hold(spent < 0.05, f"at rest it takes less than 5% of a core, not {spent:.0%}")


def post(host: str, body: bytes) -> int:
    """Post log events; return the status of the answer."""
    connection = http.client.HTTPConnection(host, timeout=30)
    try:
        connection.request("POST", "/v1/logs", body, {"content-type": "application/x-protobuf"})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def seconds_of(pid: int) -> float:
    """Return the CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
