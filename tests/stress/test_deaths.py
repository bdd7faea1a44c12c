"""Deaths of several processes, seen by several observers: each operation is lost once, in events, spans and metrics."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .program import Program, environment
from .receiver import Receiver
from .test_monitor import CLI, JOB, Monitor, until
from .test_run import RUN, watched

pytestmark = pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="run works on Linux only")
AT_ONCE = {"OTEL_PROGRESS_RUN_SERIES_AFTER": "0"}


@contextmanager
def crew(receiver: Receiver, count: int, method: str) -> Iterator[tuple[Program, int, dict[str, int]]]:
    """A command with child processes under `run`; its pid, and the pid of each child's operation."""
    command = (*RUN, "--", sys.executable)
    with Program("crew", "whole", count, method, env={**receiver.env, **AT_ONCE}, command=command) as program:
        main = int(program.line("ready")[1])
        said = [program.line("part") for _ in range(count)]
        pids = {f"whole-{words[1]}": int(words[2]) for words in said}
        receiver.wait_for(lambda: receiver.heard() >= {"whole", *pids})
        receiver.wait_for(lambda: active(receiver) == dict.fromkeys(("whole", *pids), 1))
        yield program, main, pids


def active(receiver: Receiver) -> dict[str, float]:
    """The newest value of `progress.run.active` of each operation."""
    return {
        str(point.attributes["progress.operation.id"]): point.value
        for point in list(receiver.points)
        if point.name == "progress.run.active"
    }


def counted(receiver: Receiver, status: str) -> float:
    """How many operations ended with a status, by the counters of all processes together."""
    newest = {
        (str(point.resource["service.instance.id"]), str(point.attributes["progress.operation.name"])): point.value
        for point in list(receiver.points)
        if point.name == "progress.operation.ended" and point.attributes["progress.status"] == status
    }
    return sum(newest.values())


def lost_once(receiver: Receiver, *names: str) -> None:
    """Wait until each of these is lost, in all signals; nothing is said twice, and nothing else is lost."""
    receiver.wait_for(lambda: counted(receiver, "lost") >= len(names))
    assert counted(receiver, "lost") == len(names)
    ends = [log.operation for log in receiver.of("progress.operation.ended") if log.operation in names]
    assert sorted(ends) == sorted(names)
    assert {key for key, status in receiver.ended().items() if status == "lost"} == set(names)
    assert receiver.doubled() == []
    assert [active(receiver)[name] for name in names] == [0] * len(names)
    roots = [
        span.attributes["progress.operation.id"]
        for span in list(receiver.spans)
        if span.attributes.get("progress.status") == "lost" and span.name in ("whole", "part", "train")
    ]
    assert sorted(roots) == sorted(names)


def test_a_process_group_that_is_killed_is_lost_once_each() -> None:
    """SIGKILL to the process group that the command leads: `run` is in another one, and certifies each operation."""
    with Receiver() as receiver, crew(receiver, 3, "fork") as (program, main, pids):
        assert {os.getpgid(pid) for pid in pids.values()} == {os.getpgid(main)}
        assert os.getpgid(main) != os.getpgid(program.process.pid)
        os.killpg(os.getpgid(main), signal.SIGKILL)
        program.finish(137)
        lost_once(receiver, "whole", *pids)
        said = {log.operation: log.attributes for log in receiver.of("progress.operation.ended")}
        assert said["whole"]["progress.exit.signal"] == "SIGKILL"


def test_children_that_are_killed_one_by_one_are_lost_one_by_one() -> None:
    """Each killed child is lost at once; those that live are not, and the command completes."""
    with Receiver() as receiver, crew(receiver, 3, "fork") as (program, main, pids):
        dead: list[str] = []
        for name, pid in pids.items():
            os.kill(pid, signal.SIGKILL)
            dead.append(name)
            receiver.wait_for(lambda: receiver.ended().keys() >= set(dead))
            assert receiver.ended() == dict.fromkeys(dead, "lost")
        program.tell()
        program.line("over")
        program.finish(0)
        receiver.wait_for(lambda: receiver.ended().get("whole") == "completed")
        lost_once(receiver, *pids)
        assert counted(receiver, "completed") == 1
        about = {log.resource["process.pid"] for log in receiver.logs if log.operation == "whole"}
        assert about == {main}, "a forked child says nothing about the operation that its parent process runs"


def test_a_pool_that_one_killed_worker_breaks_is_lost_once_each() -> None:
    """The executor terminates all workers when one is killed: each of their operations has one end."""
    with Receiver() as receiver, crew(receiver, 2, "pool") as (program, _, pids):
        os.kill(pids["whole-0"], signal.SIGKILL)
        program.finish(0)
        receiver.wait_for(lambda: receiver.ended().keys() >= {"whole", *pids})
        ends = [log.operation for log in receiver.of("progress.operation.ended")]
        assert sorted(ends) == ["whole", "whole-0", "whole-1"]
        assert (receiver.ended()["whole"], receiver.ended()["whole-0"]) == ("completed", "lost")
        assert receiver.ended()["whole-1"] in ("lost", "interrupted")


def test_os_exit_inside_an_operation_is_lost_with_its_exit_code() -> None:
    """`os._exit(0)` in an operation is no success: the process is gone, and the operation had not ended."""
    with Receiver() as receiver:
        with watched(receiver, "left", **AT_ONCE) as program:
            receiver.wait_for(lambda: active(receiver).get("left") == 1)
            program.tell("exit0")
            program.finish(0)
        lost_once(receiver, "left")
        said = {log.operation: log.attributes for log in receiver.of("progress.operation.ended")}
        assert said["left"]["progress.exit.code"] == 0
        exits = {p.attributes["progress.exit"] for p in receiver.points if p.name == "progress.run.lost"}
        assert len(exits) == 1


def test_a_monitor_that_forwards_sends_what_run_kept(tmp_path: Path) -> None:
    """What ended under `run` while the endpoint was away arrives when a monitor that forwards to it starts."""
    state = {"XDG_STATE_HOME": str(tmp_path / "state"), **AT_ONCE}
    with Receiver(listening=False) as receiver:
        with watched(None, "deaf", **receiver.env, **state) as program:
            program.tell("exit3")
            program.finish(3)
        receiver.listen()
        monitor = Monitor(tmp_path, "--forward", receiver.endpoint, env=state)
        try:
            receiver.wait_for(lambda: receiver.ended().get("deaf") == "lost")
            receiver.wait_for(lambda: counted(receiver, "lost") == 1)
            assert active(receiver)["deaf"] == 0
            assert {"train", "outer", "inner"} <= {span.name for span in list(receiver.spans)}
            unsent = tmp_path / "state" / "otel-progress" / "unsent"
            until(lambda: not [path for path in unsent.rglob("*") if path.stat().st_size and path.suffix != ".lock"])
        finally:
            monitor.end()
            monitor.log.close()
        assert receiver.doubled() == []


def test_a_death_that_run_and_a_monitor_see_counts_once(tmp_path: Path) -> None:
    """Behind a monitor that forwards, a kill that `run` and the monitor both prove is one end and one count."""
    with Receiver() as receiver:
        monitor = Monitor(tmp_path, "--forward", receiver.endpoint)
        env = environment(OTEL_EXPORTER_OTLP_ENDPOINT=monitor.url, OTEL_PROGRESS_HEARTBEAT="1", **AT_ONCE)
        jobs = [
            subprocess.Popen(
                (*command, sys.executable, "-c", JOB, name),
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
            for name, command in (("watched", (*CLI, "run", "--")), ("alone", ()))
        ]
        try:
            until(lambda: monitor.health("watched") == monitor.health("alone") == "progressing")
            receiver.wait_for(lambda: active(receiver) == {"watched": 1, "alone": 1})
            for name in ("watched", "alone"):
                os.kill(monitor.row(name)["pid"], signal.SIGKILL)
            # The monitor certifies the one that nobody else watches; by then it has looked at the other one, too.
            receiver.wait_for(lambda: receiver.ended() == {"watched": "lost", "alone": "lost"})
            receiver.wait_for(lambda: counted(receiver, "lost") == 2)
            until(lambda: [job.poll() for job in jobs] == [137, -signal.SIGKILL])
            assert len(receiver.of("progress.operation.ended")) == 2
            assert active(receiver) == {"watched": 0, "alone": 0}
            assert receiver.doubled() == []
        finally:
            for job in jobs:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(job.pid, signal.SIGKILL)
                job.communicate()
            monitor.end()
            monitor.log.close()
