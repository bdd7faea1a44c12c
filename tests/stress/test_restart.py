"""`otel-progress run --restart` with programs as users run them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from otel_progress import procfs
from otel_progress.cli.run import leftovers
from otel_progress.cli.run.restarts import RestartPolicy
from otel_progress.outbound.backoff import Backoff

from .program import environment
from .receiver import Receiver

pytestmark = pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="run works on Linux only")
QUICK = Backoff(first=0.05, longest=0.1)
CLI = (sys.executable, "-m", "otel_progress.cli", "run", "--restart")
COUNT = 'n=$(cat n 2>/dev/null || echo 0); n=$((n + 1)); echo $n > n; echo "start $n"; '
"""The beginning of a shell script: `$n` is the number of the start."""


class Place:
    """A folder in which commands run under `run --restart` in this process, with pauses of milliseconds."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capture = folder, capture
        self.errors = ""
        self.output: list[str] = []

    def run(self, *command: str, most: int | None = 3, env: dict[str, str] | None = None) -> int:
        from otel_progress.cli.run.supervisor import run

        code = run(list(command), environment(**(env or {})), restart=RestartPolicy(most, QUICK))
        said = self._capture.readouterr()
        self.output, self.errors = said.out.split("\n"), said.err
        return code

    def script(self, text: str, **more: Any) -> int:
        return self.run("sh", "-c", COUNT + text, **more)

    @property
    def starts(self) -> int:
        return int((self.folder / "n").read_text())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Place:
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path, capfd)


def until(condition: Callable[[], Any], timeout: float = 20.0) -> Any:
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


# -- what is started again


def test_script_that_fails_twice_runs_three_times(place: Place) -> None:
    """A command is started again until it succeeds; each failure, each pause and the success are printed."""
    assert place.script('[ "$n" = 1 ] && exit 3; [ "$n" = 2 ] && kill -SEGV $$; exit 0') == 0
    assert place.output[:3] == ["start 1", "start 2", "start 3"]
    first, second, last = place.errors.splitlines()
    assert first.startswith("otel-progress: the command ended with exit code 3 after ")
    assert first.endswith("; restarts in 50 ms (restart 1 of 3)")
    assert "was killed by SIGSEGV after" in second
    assert last == "otel-progress: the command succeeded after 2 restarts"


def test_crash_loop_ends_with_the_last_exit_code(place: Place) -> None:
    """A command that always crashes is started N more times, and its last end is the end of `run`."""
    assert place.script('[ "$n" = 3 ] && exit 42; kill -KILL $$', most=2) == 42
    assert place.starts == 3
    assert place.errors.splitlines()[-1].endswith("; not restarted: 2 restarts did not help")


def test_success_is_not_repeated(place: Place) -> None:
    """Without a failure nothing is printed and nothing happens again."""
    assert place.script("exit 0") == 0
    assert (place.starts, place.errors) == (1, "")


def test_command_that_does_not_exist_is_not_tried_again(place: Place) -> None:
    """A mistyped name is no failure that goes away."""
    assert place.run("no-such-command-here") == 127
    assert place.errors == "otel-progress: no-such-command-here: command not found\n"


def test_program_that_is_being_replaced_is_tried_again(place: Place) -> None:
    """A program that ran before and can't be started now, as in the middle of an update, counts as a failure."""
    program = place.folder / "job"
    program.write_text("#!/bin/sh\nmv job gone\nexit 7\n")
    program.chmod(0o755)
    assert place.run("./job", most=2) == 127
    assert place.errors.count("./job: command not found") == 2
    assert place.errors.splitlines()[-1].endswith("not restarted: 2 restarts did not help")


def test_file_on_stdin_is_read_from_the_start_again(place: Place) -> None:
    """Each start reads the file that `run` was given on stdin."""
    (place.folder / "lines").write_text("one\ntwo\n")
    with (place.folder / "lines").open() as file:
        kept = os.dup(0)
        os.dup2(file.fileno(), 0)
        try:
            assert place.run("sh", "-c", "cat; exit 1", most=1) == 1
        finally:
            os.dup2(kept, 0)
            os.close(kept)
    assert place.output[:4] == ["one", "two", "one", "two"]


# -- what a start leaves behind


def test_children_that_outlive_the_command_end_before_the_next_start(place: Place) -> None:
    """A worker in the background does not run beside that of the next start; a daemon with its own session stays."""
    script = """
        if [ "$n" = 2 ]; then ps -o stat= -p $(cat worker) | grep -v Z; exit 0; fi
        setsid sleep 60 & echo $! > daemon
        sleep 60 & echo $! > worker
        until [ "$(ps -o comm= -p $(cat daemon))" = sleep ]; do sleep 0.02; done
        kill -KILL $$
    """
    try:
        assert place.script(script) == 0
        assert place.output == ["start 1", "start 2", ""]
        worker, daemon = (int((place.folder / name).read_text()) for name in ("worker", "daemon"))
        assert f"ends what the command left behind: pid {worker}\n" in place.errors
        assert procfs.look(worker) is None
        assert procfs.look(daemon) is not None
    finally:
        os.kill(int((place.folder / "daemon").read_text()), signal.SIGKILL)


def test_child_that_ignores_sigterm_is_killed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not end within the grace period is killed, and only then the command is started again."""
    monkeypatch.setattr(leftovers.LeftProcesses.__init__, "__defaults__", (0.2,))
    script = """
        [ "$n" = 2 ] && exit 0
        sh -c 'trap "" TERM; echo $$ > worker; while true; do sleep 0.05; done' &
        while [ ! -s worker ]; do sleep 0.02; done
        kill -KILL $$
    """
    assert place.script(script) == 0
    assert procfs.look(int((place.folder / "worker").read_text())) is None


def test_process_group_of_the_command_stays_ours(place: Place) -> None:
    """Every start runs in the process group of `run`, so that Ctrl+C reaches each of them."""
    assert place.script("ps -o pgid= -p $$; exit 1", most=1) == 1
    groups = {line.strip() for line in place.output if line.strip().isdigit()}
    assert groups == {str(os.getpgrp())}


# -- signals


def test_program_that_ignores_sigterm_is_not_started_again(tmp_path: Path) -> None:
    """After SIGTERM to `run` the command is never restarted, also if it goes on and fails later."""
    script = "trap 'echo asked > told' TERM; echo ready; while [ ! -e told ]; do sleep 0.02; done; sleep 0.1; exit 5"
    run = started(tmp_path, "on-failure", script)
    assert run.stdout is not None
    assert run.stdout.readline() == "ready\n"
    run.send_signal(signal.SIGTERM)
    _, errors = run.communicate(timeout=30)
    assert run.returncode == 5
    assert "not restarted: SIGTERM was received" in errors


@pytest.mark.parametrize("ends", [signal.SIGTERM, signal.SIGHUP])
def test_signal_in_the_back_off_ends_it(tmp_path: Path, ends: signal.Signals) -> None:
    """SIGTERM ends the pause, and SIGHUP, as from a shell that ends; the exit code is that of the last start."""
    run = started(tmp_path, "on-failure:2", "exit 9")
    assert run.stderr is not None
    assert "restarts in 1 s (restart 1 of 2)" in run.stderr.readline()
    run.send_signal(signal.SIGUSR1)  # which changes nothing
    run.send_signal(ends)
    _, errors = run.communicate(timeout=30)
    assert run.returncode == 9
    assert f"not restarted: {ends.name} was received" in errors


def started(folder: Path, policy: str, script: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    command = [*CLI, policy, "--", "sh", "-c", script]
    return subprocess.Popen(command, cwd=folder, env=environment(), stdout=pipe, stderr=pipe, text=True)


# -- operations


JOB = """
import multiprocessing, os, sys
import otel_progress as progress
progress.configure("job")
def part():
    with progress.operation("part", id="part-1"):
        pass
with progress.operation("ingest", id="ingest-7") as op:
    op.advance(130)
    attempt = op.attempt
    worker = multiprocessing.get_context("fork").Process(target=part)
    worker.start()
    worker.join()
    with progress.stage("load"):
        import time
        time.sleep(0.4)
        if attempt == 1:
            os.kill(os.getpid(), 9)
"""


def test_attempts_of_an_id_are_counted_on(place: Place) -> None:
    """Each death is proven and told; the next start is the next attempt of the id, also in a forked worker."""
    with Receiver() as receiver:
        (place.folder / "job.py").write_text(JOB)
        assert place.run(sys.executable, "job.py", env=receiver.env) == 0
        ends = [
            (log.operation, log.attributes["progress.operation.attempt"], log.attributes["progress.status"])
            for log in receiver.of("progress.operation.ended")
        ]
        notes = receiver.of("progress.note")
    assert sorted(ends) == [
        ("ingest-7", 1, "lost"),
        ("ingest-7", 2, "completed"),
        ("part-1", 1, "completed"),
        ("part-1", 2, "completed"),
    ]
    (note,) = notes
    assert note.operation == "ingest-7"
    assert note.attributes["progress.status"] == "lost"
    assert note.attributes["progress.note.text"].endswith("restarts in 50 ms (restart 1 of 3)")
    assert place.errors.count("lost: ingest [ingest-7]") == 1


POISONED = """
import os, sys, time
import otel_progress as progress
with progress.operation("ingest", id="ingest-7", resume="work.db") as op:
    for document in op.track(range(6), key=lambda number: f"doc-{number}"):
        if document == 3:
            time.sleep(0.4)  # what is in hand, and the start, are told by now
            os.kill(os.getpid(), 11)
        print("did", document, flush=True)
"""


def test_item_that_ends_the_process_is_not_tried_for_ever(place: Place) -> None:
    """After its second death the item is set aside, in the store that the program alone names; the rest is done once."""
    (place.folder / "job.py").write_text(POISONED)
    with Receiver() as receiver:
        assert place.run(sys.executable, "job.py", most=4, env=receiver.env) == 0
        notes = [str(log.attributes["progress.note.text"]) for log in receiver.of("progress.note")]
        (end,) = [
            log for log in receiver.of("progress.operation.ended") if log.attributes["progress.status"] == "completed"
        ]
    assert "set aside in ingest-7: doc-3, as it was in hand at 2 deaths" in place.errors
    assert any(note.startswith("set aside: doc-3, as it was in hand") for note in notes)
    assert any(note.startswith("set aside, as it ended the process: doc-3") for note in notes)
    assert json.loads(str(end.attributes["progress.outcomes"])) == {"set aside": 1}
    assert [line for line in place.output if line in ("did 4", "did 5")] == ["did 4", "did 5"]
    assert "did 3" not in place.output
