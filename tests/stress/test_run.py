"""`otel-progress run` with real commands that really die, and a real receiver."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from otel_progress import procfs
from otel_progress.monitor.state.process_keys import OF_REQUESTS

from .program import Program, environment, run
from .receiver import Log, Receiver, Span

RUN = (sys.executable, "-m", "otel_progress.cli", "run")
PROTOCOLS = ("http/protobuf", "grpc")
pytestmark = pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="run works on Linux only")


@contextmanager
def watched(
    receiver: Receiver | None, name: str, *args: object, options: tuple[str, ...] = (), **env: str
) -> Iterator[Program]:
    """Return the program under `run`, when its operation runs and the receiver knows it."""
    command = (*RUN, *options, "--", sys.executable)
    known = {} if receiver is None else receiver.env
    with Program("watched", name, *args, env={**known, **env}, command=command) as program:
        program.line("ready")
        if receiver is not None:
            receiver.wait_for(lambda: inside(receiver, name))
        yield program


def inside(receiver: Receiver, name: str) -> Log | None:
    """Return the event that the innermost stage runs."""
    logs = [log for log in list(receiver.logs) if log.operation == name]
    return next((log for log in logs if log.attributes.get("progress.stage.current") == "outer/inner"), None)


def ends(receiver: Receiver, name: str) -> list[Log]:
    """Return the reported ends of an operation."""
    return [log for log in receiver.of("progress.operation.ended") if log.operation == name]


def spans(receiver: Receiver, name: str) -> dict[str, Span]:
    """Return the spans of an operation by name; none came twice."""
    of = [span for span in list(receiver.spans) if span.attributes.get("progress.operation.id") == name]
    assert len(of) == len({span.span_id for span in of})
    return {span.name + ("" if span.status == 2 else " ok"): span for span in of}


def until(condition: Callable[[], Any], timeout: float = 20.0) -> Any:
    """Wait until it is true."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


# -- the command dies


WAYS = {
    f"signal{int(signal.SIGKILL)}": (137, "progress.exit.signal", "SIGKILL"),
    f"signal{int(signal.SIGTERM)}": (143, "progress.exit.signal", "SIGTERM"),
    "segfault": (139, "progress.exit.signal", "SIGSEGV"),
    "abort": (134, "progress.exit.signal", "SIGABRT"),
    "exit3": (3, "progress.exit.code", 3),
    "exit0": (0, "progress.exit.code", 0),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_a_dead_command_left_open_is_closed(way: str) -> None:
    """A command that dies gets its operation ended as lost, and the spans that it could not send, under their ids."""
    code, key, value = WAYS[way]
    with Receiver() as receiver:
        with watched(receiver, "lost") as program:
            program.tell(way)
            program.finish(code)
        check_certificate(receiver, "lost", {key: value})
        assert "lost: train [lost], at outer/inner, 4 of 10 items" in program.errors
        assert ": reading part 2 - its process" in program.errors


def check_certificate(receiver: Receiver, name: str, exit: dict[str, Any]) -> None:
    """There is one end, after everything that was heard, and the trace is complete."""
    known = inside(receiver, name)
    assert known is not None
    (end,) = ends(receiver, name)
    said = end.attributes
    assert said["progress.status"] == "lost"
    assert exit.items() <= said.items()
    assert said["progress.stage.current"] == "outer/inner"
    assert said["progress.message"] == "reading part 2"
    assert said["progress.completed"] == 4
    heard = [log.attributes["progress.sequence"] for log in receiver.logs if log.operation == name and log is not end]
    assert said["progress.sequence"] == max(heard) + 1
    process = {key: value for key, value in known.resource.items() if key not in OF_REQUESTS}
    assert end.resource == process
    assert (end.trace_id, end.span_id) == (known.trace_id, known.span_id)
    ids = {
        stage["path"]: stage["span_id"]
        for stage in json.loads(known.attributes["progress.stages"])
        if "span_id" in stage
    }
    found = spans(receiver, name)
    root, outer, inner = found["train"], found["outer"], found["inner"]
    assert (root.span_id, root.parent_id) == (known.span_id, "")
    assert (outer.span_id, outer.parent_id) == (ids["outer"], root.span_id)
    assert (inner.span_id, inner.parent_id) == (ids["outer/inner"], outer.span_id)
    assert {span.trace_id for span in found.values()} == {known.trace_id}
    assert root.attributes["progress.status"] == "lost"
    assert root.attributes["team"] == "blue"
    assert exit.items() <= root.attributes.items()
    assert root.resource == process


def test_what_ended_gets_no_certificate() -> None:
    """A command that ends normally has sent everything itself; `run` adds nothing, and prints nothing on stderr."""
    with Receiver() as receiver:
        with watched(receiver, "fine") as program:
            program.tell("normally")
            program.finish(0)
        assert receiver.ended() == {"fine": "completed", "fine-before": "completed"}
        assert "lost" not in {span.attributes.get("progress.status") for span in receiver.spans}
        assert receiver.doubled() == []
        assert program.errors == "last words\n"


def test_an_operation_that_ended_before_is_left_alone() -> None:
    """Only what was running when the process disappeared is lost."""
    with Receiver() as receiver:
        with watched(receiver, "some") as program:
            program.tell("exit7")
            program.finish(7)
        assert receiver.ended() == {"some": "lost", "some-before": "completed"}
        assert len(receiver.of("progress.operation.ended")) == 2


def test_no_span_for_a_trace_that_is_not_sampled() -> None:
    """If the trace is not sampled the end is only an event."""
    with Receiver() as receiver:
        with watched(receiver, "dark", OTEL_TRACES_SAMPLER="always_off") as program:
            program.tell("exit3")
            program.finish(3)
        assert receiver.ended()["dark"] == "lost"
        assert receiver.spans == []


def test_the_tail_of_stderr_goes_along_only_when_asked() -> None:
    """stderr is sent only with `--stderr-tail`; it is shown in any case."""
    for options, expected in (((), None), (("--stderr-tail", "1"), "last words")):
        with Receiver() as receiver:
            with watched(receiver, "tail", options=options) as program:
                program.tell("exit3")
                program.finish(3)
            (end,) = ends(receiver, "tail")
            assert end.attributes.get("progress.exit.stderr") == expected
            assert program.errors.startswith("last words\n")


# -- one process of several


def test_worker_that_is_killed_is_lost_while_the_command_lives() -> None:
    """A dead process of a pool gets its death certificate while the others go on untouched."""
    with Receiver() as receiver:
        with watched(receiver, "whole", "pool") as program:
            pid = int(program.line("part")[2])
            while program.said[-1][1] != "0":
                pid = int(program.line("part")[2])
            receiver.wait_for(lambda: "whole-part-0" in receiver.heard())
            os.kill(pid, signal.SIGKILL)
            receiver.wait_for(lambda: "whole-part-0" in receiver.ended())
            assert program.process.poll() is None
            program.line("broken")
            program.tell("normally")
            program.finish(0)
        assert receiver.ended()["whole-part-0"] == "lost"
        assert receiver.ended()["whole"] == "completed"
        (end,) = ends(receiver, "whole-part-0")
        assert end.resource["process.pid"] == pid
        found = spans(receiver, "whole-part-0")
        assert found["chew"].parent_id == found["part"].span_id == end.span_id


@pytest.mark.parametrize(
    ("stop", "go_on", "state", "word"),
    [(signal.SIGSTOP, signal.SIGCONT, "stopped (T", "frozen"), (None, signal.SIGUSR1, "sleeping (S", "dead")],
    ids=["stopped", "in C code"],
)
def test_frozen_command_is_silent_and_gets_no_certificate(
    tmp_path: Path, stop: signal.Signals | None, go_on: signal.Signals, state: str, word: str
) -> None:
    """A process that is stopped, or holds the global lock, and goes on is reported once, and as back; never as lost.

    It is frozen only if its process is seen to be stopped; in C code it is dead, because nothing is heard of it.
    """
    told = tmp_path / "stderr"
    command = ("sh", "-c", 'exec "$@" 2>"$0"', str(told), *RUN, "--", sys.executable)
    with Receiver() as receiver:
        env = {**receiver.env, "OTEL_PROGRESS_HEARTBEAT": "0.5"}
        with Program("watched", "frozen", env=env, command=command) as program:
            pid = int(program.line("ready")[1])
            receiver.wait_for(lambda: inside(receiver, "frozen"))
            receiver.wait_for(lambda: receiver.of("progress.process.heartbeat"))
            if stop is None:
                program.tell("freeze")
                program.line("freezes")
            else:
                os.kill(pid, stop)
            until(lambda: f"{word}: nothing was heard" in told.read_text())
            until(lambda: "Thread " in told.read_text() or "its stack" in told.read_text())
            os.kill(pid, go_on)
            until(lambda: "is heard again" in told.read_text())
            program.tell("normally")
            program.finish(0)
        said = told.read_text()
        assert f"it is {state}" in said
        assert said.count(f"{word}: nothing was heard") == 1
        assert "freeze (watched.py" in said or stop is not None or "its stack" in said
        assert "lost" not in said
        assert receiver.ended()["frozen"] == "completed"


# -- what passes through


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_all_that_the_command_sends_arrives(protocol: str) -> None:
    """Behind `run` arrives what arrives without it: events, spans and metrics, over either protocol."""
    found = []
    for command in ((sys.executable,), (*RUN, "--", sys.executable)):
        with Receiver(protocol) as receiver:
            headers = {"OTEL_EXPORTER_OTLP_HEADERS": "x-key=1"}
            with Program("watched", "same", env={**receiver.env, **headers}, command=command) as program:
                program.line("ready")
                receiver.wait_for(lambda: inside(receiver, "same"))
                program.tell("normally")
                program.finish(0)
            assert receiver.doubled() == []
            names = {log.key for log in receiver.logs if log.name.rpartition(".")[2] in ("started", "ended")}
            shapes = {
                (span.name, tuple(sorted(span.attributes)), tuple(sorted(span.resource))) for span in receiver.spans
            }
            found.append((names, shapes, {point.name for point in receiver.points}, receiver.ended()))
    assert found[0] == found[1]


def test_what_ends_in_an_outage_is_sent_by_the_next_run(tmp_path: Path) -> None:
    """If nobody receives, the command runs as usual; its end, and the certificate of a killed one, arrive later, once."""
    state = {"XDG_STATE_HOME": str(tmp_path), "OTEL_PROGRESS_RUN_SERIES_AFTER": "0"}
    with Receiver(listening=False) as receiver:
        with (
            watched(None, "deaf", **receiver.env, **state) as killed,
            watched(None, "well", **receiver.env, **state) as well,
        ):
            killed.tell("exit3")
            well.tell("normally")
            killed.finish(3)
            well.finish(0)
        assert "lost: train [deaf]" in killed.errors
        assert (
            f"2 ends of operations kept in {tmp_path}/otel-progress/unsent; the next `otel-progress run`"
            in killed.errors
        )
        assert "did not take everything" in well.errors
        receiver.listen()
        with watched(receiver, "next", **state) as program:
            receiver.wait_for(lambda: receiver.ended().keys() >= {"deaf", "well", "deaf-before", "well-before"})
            receiver.wait_for(lambda: active(receiver, "deaf") == active(receiver, "well") == 0)
            program.tell("normally")
            program.finish(0)
            assert "unsent" not in program.errors
        assert (receiver.ended()["deaf"], receiver.ended()["well"]) == ("lost", "completed")
        assert len(ends(receiver, "deaf")) == len(ends(receiver, "well")) == 1
        assert {"train", "outer", "inner"} <= spans(receiver, "deaf").keys()
        assert receiver.doubled() == []


def active(receiver: Receiver, name: str) -> float | None:
    """Return the newest value of `progress.run.active` of an operation."""
    points = [point for point in list(receiver.points) if point.attributes.get("progress.operation.id") == name]
    return next((point.value for point in reversed(points) if point.name == "progress.run.active"), None)


def test_what_cannot_be_kept_is_reported(tmp_path: Path) -> None:
    """If nobody receives and the state folder can't be used, `run` reports what is lost, and the command runs as usual."""
    (tmp_path / "file").touch()
    state = {"XDG_STATE_HOME": str(tmp_path / "file")}
    with Receiver(listening=False) as receiver, watched(None, "deaf", **receiver.env, **state) as program:
        program.tell("exit3")
        program.finish(3)
        assert "of logs could not be passed on to http://127.0.0.1" in program.errors
        assert "can't be kept" in program.errors


def test_endpoint_that_comes_back_gets_all() -> None:
    """Data from an outage of the endpoint is forwarded when it is back, including the death certificate."""
    with Receiver(listening=False) as receiver, watched(None, "late", **receiver.env) as program:
        receiver.listen()
        program.tell("exit3")
        program.finish(3)
        assert receiver.ended()["late"] == "lost"
        assert "progress.operation.started" in {log.name for log in receiver.logs}


def test_two_commands_at_once_do_not_mix() -> None:
    """Two commands under `run` at the same time each have their own endpoint and their own death certificate."""
    with Receiver() as receiver:
        with watched(receiver, "one") as one, watched(receiver, "two") as two:
            one.tell("exit3")
            one.finish(3)
            two.tell("normally")
            two.finish(0)
        ended = receiver.ended()
        assert (ended["one"], ended["two"]) == ("lost", "completed")
        assert len(receiver.of("progress.operation.ended")) == 4


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_each_process_names_itself_in_all_signals(method: str) -> None:
    """Every process sends its own pid and creation time in events, spans and metrics, also a forked child."""
    with Receiver() as receiver:
        run("children", method, "end", env=receiver.env)
        keys = ("service.instance.id", "process.pid", "process.creation.time", "host.name")
        found = [
            {tuple(item.resource.get(key) for key in keys) for item in items}
            for items in (receiver.logs, receiver.spans, receiver.points)
        ]
        assert found[0] == found[1] == found[2]
        assert len(found[0]) == 5
        assert len({pid for _, pid, _, _ in found[0]}) == 5
        assert {host for _, _, _, host in found[0]} == {socket.gethostname()}
        assert all(procfs.from_iso(str(created)) for _, _, created, _ in found[0])


def test_process_behind_a_provider_of_its_own_names_itself() -> None:
    """Events have the resource of the application's provider, but this process's pid; a host in it stays."""
    script = (
        "import os, otel_progress\n"
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.resources import Resource\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "about = {'process.pid': 1, 'host.name': 'mine', 'team': 'blue'}\n"
        "trace.set_tracer_provider(TracerProvider(resource=Resource.create(about)))\n"
        "otel_progress.configure()\n"
        "with otel_progress.operation('own'): pass\n"
        "print(os.getpid())"
    )
    with Receiver() as receiver:
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment(**receiver.env),
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=True,
        )
        resource = receiver.of("progress.operation.ended")[0].resource
        assert (resource["process.pid"], resource["host.name"], resource["team"]) == (int(done.stdout), "mine", "blue")


# -- a command without telemetry


def plain(*command: str, options: tuple[str, ...] = (), **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command under `run`."""
    run = [*RUN, *options, "--", *command]
    return subprocess.run(run, env=environment(), capture_output=True, text=True, timeout=60, check=False, **more)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("exit 0", 0),
        ("exit 42", 42),
        ("kill -KILL $$", 137),
        ("kill -TERM $$", 143),
        ("kill -INT $$", 130),
    ],
)
def test_exit_code_is_the_commands(command: str, code: int) -> None:
    """The exit code is the command's, 128 + n for signal n; for a command without operations `run` prints nothing."""
    done = plain("sh", "-c", command)
    assert (done.returncode, done.stderr) == (code, "")


def test_command_that_can_not_start(tmp_path: Path) -> None:
    """The exit code is 127 for a missing command and 126 for one that cannot be executed, as in shells."""
    file = tmp_path / "file"
    file.write_text("no program")
    missing, locked = plain("no-such-command-here"), plain(str(file))
    assert (missing.returncode, "command not found" in missing.stderr) == (127, True)
    assert (locked.returncode, "Permission denied" in locked.stderr) == (126, True)


def test_streams_pass_through() -> None:
    """stdin, stdout and stderr are the command's; its arguments are unchanged."""
    script = "import sys; print(sys.stdin.read() + sys.argv[1]); print('bad', file=sys.stderr)"
    done = plain(sys.executable, "-c", script, "--help", input="good ")
    assert (done.stdout, done.stderr, done.returncode) == ("good --help\n", "bad\n", 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_from_another_process_is_passed_on(number: signal.Signals) -> None:
    """A signal to `run` reaches the command, which decides what happens."""
    script = (
        "import signal, sys\n"
        "for number in (1, 2, 15): signal.signal(number, lambda number, frame: sys.exit(40 + number))\n"
        "print('ready', flush=True)\n"
        "while True: signal.pause()"
    )
    process = subprocess.Popen(
        [*RUN, "--", sys.executable, "-c", script], env=environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(30) == 40 + number
    finally:
        process.kill()
        process.communicate()


IN_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
COUNTS = """
import os, signal, sys, time
came, asked = [], []
def count(number, frame):
    came.append(number)
    os.write(1, b"got ")
signal.signal(signal.SIGINT, count)
signal.signal(signal.SIGUSR1, lambda number, frame: asked.append(number))
print('front', os.tcgetpgrp(0) == os.getpgrp(), sys.stdin.isatty(), flush=True)
while not asked:
    time.sleep(0.02)
print('count', len(came), flush=True)
"""


def test_terminal_stays_the_commands() -> None:
    """In a terminal the command is in the foreground, and gets Ctrl+C once."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-c", IN_TERMINAL, *RUN, "--", sys.executable, "-c", COUNTS]
    process = subprocess.Popen(command, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""

    def read(word: bytes) -> None:
        nonlocal said
        while word not in said:
            assert select.select([ours], [], [], 30)[0], said
            said += os.read(ours, 1000)

    try:
        read(b"front True True")
        # A stopped `run` passes nothing on before the command has got its own Ctrl+C; else two would become one.
        process.send_signal(signal.SIGSTOP)
        os.write(ours, b"\x03")
        read(b"got")
        process.send_signal(signal.SIGCONT)
        # A second one is passed on, too, so it would count.
        process.send_signal(signal.SIGUSR1)
        read(b"count 1")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
