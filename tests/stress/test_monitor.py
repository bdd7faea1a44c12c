"""A real monitor, real jobs, and real kills: nothing acknowledged is lost, and running operations come back."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from .program import environment

CLI = (sys.executable, "-m", "otel_progress.cli")
JOB = """
import select, sys, time
import otel_progress as p
p.configure("job")
with p.operation("work", id=sys.argv[1], stall_after=60) as op:
    with p.stage("count", total=1_000_000) as stage:
        p.note("note 0")
        print("ready", flush=True)
        number = 0
        while True:
            number += 1
            stage.advance()
            if number % 10 == 0:
                p.note(f"note {number // 10}")
            if number % 5 == 0 and sys.stdin in select.select([sys.stdin], [], [], 0)[0]:
                break
            time.sleep(0.01)
print("last", number // 10, flush=True)
"""


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def until(condition: Callable[[], Any], timeout: float = 30.0) -> Any:
    """Wait until it is true."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


class Monitor:
    """`otel-progress monitor`, which can be killed and started again on the same port and file."""

    def __init__(self, folder: Path, *options: str, env: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.command = (*CLI, "monitor", "--port", str(self.port), "--grpc-port", "none", "--db", str(folder / "m.db"))
        self.options = options
        self.env = environment(**(env or {}))
        self.log = (folder / "monitor.log").open("wb")
        self.start()

    def start(self) -> None:
        """Start it."""
        self.process = subprocess.Popen(
            (*self.command, *self.options), env=self.env, stdout=self.log, stderr=subprocess.STDOUT
        )
        until(lambda: self.get("/health"))

    def get(self, path: str) -> Any:
        """Return its response, or None without one."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None

    def row(self, key: str) -> dict[str, Any]:
        """Return an operation, or an empty row if there is none."""
        return self.get(f"/operations/{quote(key, safe='')}") or {}

    def health(self, key: str) -> str:
        """Return the verdict on a running operation."""
        return str((self.row(key).get("verdict") or {}).get("health", ""))

    def events(self, key: str) -> list[dict[str, Any]]:
        """Return the whole history."""
        found: list[dict[str, Any]] = []
        after = 0
        while True:
            page = self.get(f"/operations/{quote(key, safe='')}/events?limit=1000&after={after}")
            found += page["events"]
            if page["next"] is None:
                return found
            after = page["next"]

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self.process.kill()
        self.process.wait()

    def end(self) -> float:
        """Stop it with SIGTERM, and return how long it took."""
        began = time.monotonic()
        self.process.terminate()
        self.process.wait(20)
        return time.monotonic() - began


@contextmanager
def monitored(folder: Path, *options: str) -> Iterator[Monitor]:
    """Return a monitor, and stop it at the end."""
    monitor = Monitor(folder, *options)
    try:
        yield monitor
    finally:
        if monitor.process.poll() is None:
            monitor.kill()
        monitor.log.close()


@contextmanager
def job(monitor: Monitor, key: str, command: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """Run a job that counts until a line comes, or it is killed."""
    env = environment(OTEL_EXPORTER_OTLP_ENDPOINT=monitor.url, OTEL_PROGRESS_HEARTBEAT="1")
    process = subprocess.Popen(
        (*command, sys.executable, "-c", JOB, key),
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()


def notes(events: list[dict[str, Any]]) -> list[int]:
    """Return the numbers of the notes in a history."""
    return [
        int(event["attributes"]["progress.note.text"].split()[1])
        for event in events
        if event["event"] == "progress.note"
    ]


def test_killed_in_the_middle_it_comes_back_with_all_of_it(tmp_path: Path) -> None:
    """After SIGKILL under load state and history survive; running operations are unknown first, then correct."""
    with monitored(tmp_path) as monitor, job(monitor, "long"), job(monitor, "end me") as ends:
        until(lambda: monitor.health("long") == monitor.health("end me") == "progressing")
        for _ in range(2):
            before = monitor.row("long")
            seen = notes(monitor.events("long"))
            monitor.kill()
            monitor.start()
            row = monitor.row("long")
            assert row["status"] == "running"
            assert row["started_at"] == before["started_at"]
            assert row["revision"] >= before["revision"]
            assert notes(monitor.events("long"))[: len(seen)] == seen
            until(lambda: monitor.health("long") == "progressing")
            until(lambda before=row: monitor.row("long")["said_at"] > before["said_at"])
            assert monitor.row("long")["revision"] > row["revision"]
        assert ends.stdin is not None
        assert ends.stdout is not None
        ends.stdin.write("\n")
        ends.stdin.flush()
        last = int(ends.stdout.readline().split()[1])
        until(lambda: monitor.row("end me")["status"] == "completed")
        until(lambda: monitor.events("end me")[-1]["event"] == "progress.operation.ended")
        history = monitor.events("end me")
        assert sorted(notes(history)) == list(range(last + 1))
        assert [event["event"] for event in history].count("progress.operation.ended") == 1
        assert len({event["sequence"] for event in history}) == len(history)


def test_one_whose_process_is_killed_is_lost_within_seconds(tmp_path: Path) -> None:
    """If the pid with that start time is gone, that is proof, and there is one end."""
    with monitored(tmp_path) as monitor, job(monitor, "victim") as process:
        until(lambda: monitor.health("victim") == "progressing")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        began = time.monotonic()
        until(lambda: monitor.row("victim")["status"] == "lost", timeout=15)
        assert time.monotonic() - began < 10
        history = until(lambda: [e for e in monitor.events("victim") if e["event"] == "progress.operation.ended"])
        assert len(history) == 1
        row = monitor.row("victim")
        assert [stage["status"] for stage in row["stages"]] == ["lost"]
        monitor.kill()
        monitor.start()
        assert monitor.row("victim")["status"] == "lost"


def test_one_that_is_killed_while_the_monitor_is_down_is_lost_after_its_start(tmp_path: Path) -> None:
    """What the monitor saw alive before is proven to be gone; what still lives, heard or stopped, is not lost."""
    with monitored(tmp_path) as monitor, job(monitor, "victim") as process, job(monitor, "stopped") as stopped:
        until(lambda: monitor.health("victim") == monitor.health("stopped") == "progressing")
        os.kill(stopped.pid, signal.SIGSTOP)
        monitor.kill()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        monitor.start()
        until(lambda: monitor.row("victim")["status"] == "lost", timeout=15)
        assert monitor.row("victim")["reason"] == "its process is gone"
        assert monitor.row("stopped")["status"] == "running"
        assert [e["event"] for e in monitor.events("victim")].count("progress.operation.ended") == 1


@pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="run works on Linux only")
def test_one_under_run_that_is_killed_while_the_monitor_is_down_ends_once(tmp_path: Path) -> None:
    """Whether the certificate of `run` arrives or not, the operation is lost, once."""
    with monitored(tmp_path) as monitor, job(monitor, "victim", command=(*CLI, "run", "--")):
        row = until(lambda: monitor.row("victim").get("pid") and monitor.row("victim"))
        monitor.end()
        os.kill(row["pid"], signal.SIGKILL)
        monitor.start()
        until(lambda: monitor.row("victim")["status"] == "lost", timeout=15)
        assert [e["event"] for e in monitor.events("victim")].count("progress.operation.ended") == 1


@pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="run works on Linux only")
def test_with_run_there_is_one_end_and_it_knows_more(tmp_path: Path) -> None:
    """`run` saw how the process died: its death certificate is the only end."""
    with monitored(tmp_path) as monitor:
        command = (*CLI, "run", "--")
        with job(monitor, "victim", command=command) as process:
            row = until(lambda: monitor.row("victim").get("pid") and monitor.row("victim"))
            os.kill(row["pid"], signal.SIGKILL)
            assert process.wait(20) == 137
            until(lambda: monitor.row("victim")["status"] == "lost")
            time.sleep(4)  # ours would have arrived by then
            ends = [e for e in monitor.events("victim") if e["event"] == "progress.operation.ended"]
            assert len(ends) == 1
            assert "SIGKILL" in monitor.row("victim")["reason"]


def test_stopped_process_is_dead_and_comes_back(tmp_path: Path) -> None:
    """A stopped process is not lost, because it exists. It goes on as before."""
    with monitored(tmp_path) as monitor, job(monitor, "frozen") as process:
        until(lambda: monitor.health("frozen") == "progressing")
        os.kill(process.pid, signal.SIGSTOP)
        until(lambda: monitor.health("frozen") == "dead")
        os.kill(process.pid, signal.SIGCONT)
        until(lambda: monitor.health("frozen") == "progressing")
        assert monitor.row("frozen")["status"] == "running"


def test_it_ends_in_good_time_with_open_streams(tmp_path: Path) -> None:
    """SIGTERM with readers, one of which reads nothing: it ends within 2 s, and restarts at once."""
    with monitored(tmp_path) as monitor, job(monitor, "long"):
        until(lambda: monitor.health("long") == "progressing")
        readers = []
        for path in ("/stream", "/stream", "/operations/long/stream"):
            reader = socket.create_connection(("127.0.0.1", monitor.port))
            reader.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{monitor.port}\r\n\r\n".encode())
            assert b"200" in reader.recv(100)
            readers.append(reader)
        assert monitor.end() < 2
        for reader in readers:
            reader.close()
        monitor.start()
        until(lambda: monitor.health("long") == "progressing")
