"""A real monitor in its own process, and a sender."""

from __future__ import annotations

import collections
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psutil

from benchmarks.harness import ROOT, clean_environment
from benchmarks.monitor.traffic import Body

CONNECTIONS: Final = 8
PATIENCE: Final = 60.0
PATHS: Final = {"logs": "/v1/logs", "traces": "/v1/traces"}


def serving() -> set[int]:
    """Return the CPU core of the measured server."""
    return {min(os.sched_getaffinity(0))} if hasattr(os, "sched_getaffinity") else set()


def loading() -> set[int]:
    """Return the cores for everything else; the same one if there is no other."""
    mine = serving()
    every = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    return (every - mine) or mine


def keep_to(cores: set[int], process: int = 0) -> None:
    """Pin a process, or this one, to these cores, if the system supports it."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process, cores)


class Server:
    """A measured program, pinned to one core and observed from outside."""

    def __init__(self, command: list[str], log: Path, cores: set[int], env: dict[str, str] | None = None) -> None:
        """Start it with its output in a file."""
        self.began = time.monotonic()
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**clean_environment(), **(env or {})},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        keep_to(cores, self.process.pid)  # before it has threads, which then keep to them, too
        self._seen = psutil.Process(self.process.pid)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()

    def cpu(self) -> float:
        """Return its CPU seconds."""
        used = self._seen.cpu_times()
        return float(used.user + used.system)

    def memory(self) -> int:
        """Return its resident bytes."""
        return int(self._seen.memory_info().rss)

    def peak(self) -> int:
        """Return its peak resident bytes."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM"):
                    return int(line.split()[1]) * 1024
        return self.memory()

    def failed(self, what: str) -> SystemExit:
        """Raise with its output: it did not do what was expected."""
        said = self.log.read_text(errors="replace").strip().splitlines()[-5:]
        return SystemExit(f"{what}: {' / '.join(said)}")


class Monitor(Server):
    """The monitor, started by its command."""

    def __init__(self, folder: Path, *more: str, profile: Path | None = None) -> None:
        """Start it with its database in a folder, and further options."""
        program = ["otel_progress.cli"] if profile is None else ["benchmarks.monitor.profiled", str(profile)]
        self.db = folder / "monitor.db"
        command = [
            sys.executable,
            "-m",
            *program,
            "monitor",
            "--port",
            "0",
            "--grpc-port",
            "none",
            "--db",
            str(self.db),
        ]
        super().__init__([*command, *more], folder / "monitor.log", serving())
        self.url = ""

    def __enter__(self) -> Monitor:
        self.url = self._address()
        return self

    def _address(self) -> str:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.process.poll() is None:
            for line in self.log.read_text(errors="replace").splitlines():
                if line.strip().startswith("page "):
                    return line.split()[1]
            time.sleep(0.005)
        raise self.failed("the monitor did not start")

    @property
    def host(self) -> str:
        """Return host and port."""
        return urlsplit(self.url).netloc

    def get(self, path: str) -> Any:
        """Return its answer."""
        return fetch(self.host, path)

    def size(self) -> int:
        """Return the bytes of its files."""
        return sum(file.stat().st_size for file in self.db.parent.glob("monitor.db*"))


def fetch(host: str, path: str) -> Any:
    """Fetch JSON from a server."""
    connection = http.client.HTTPConnection(host, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


class Sending:
    """Sends requests over several connections, each program over one, and records when each was acknowledged.

    Attributes:
        acknowledged: time of each acknowledgement by program and number; monotonic seconds.
        delays: seconds from the first byte sent to the answer.
        records: number of acknowledged records.
        refused: number of refusals with Retry-After.
        late: seconds by which the latest request missed its time.
    """

    def __init__(self, host: str, signal: str, bodies: Iterable[Body], rate: float | None = None) -> None:
        """Send to a host, at a rate of records a second or as fast as they are accepted."""
        self._host = host
        self._path = PATHS[signal]
        self._rate = rate
        self._queues: list[collections.deque[tuple[float, Body]]] = [collections.deque() for _ in range(CONNECTIONS)]
        self.total = 0
        for body in bodies:
            self._queues[body.program % CONNECTIONS].append((self.total, body))
            self.total += body.records
        self.acknowledged: dict[tuple[int, int], float] = {}
        self.delays: list[float] = []
        self.records = self.refused = 0
        self.late = 0.0
        self.began = self.ended = 0.0
        self._over = threading.Event()
        self._failed: list[BaseException] = []
        self._threads = [threading.Thread(target=self._guarded, args=(queue,), daemon=True) for queue in self._queues]

    def start(self) -> None:
        """Begin."""
        self.began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop sending."""
        self._over.set()

    def wait(self) -> None:
        """Wait until all is sent."""
        for thread in self._threads:
            thread.join()
        self.ended = time.monotonic()
        if self._failed:
            raise self._failed[0]

    def run(self) -> Sending:
        """Send all of it."""
        self.start()
        self.wait()
        return self

    @property
    def seconds(self) -> float:
        """Return the seconds that it took."""
        return self.ended - self.began

    def _guarded(self, queue: collections.deque[tuple[float, Body]]) -> None:
        try:
            self._work(queue)
        except BaseException as error:
            self._failed.append(error)
            self._over.set()

    def _work(self, queue: collections.deque[tuple[float, Body]]) -> None:
        connection = http.client.HTTPConnection(self._host, timeout=PATIENCE)
        try:
            while queue and not self._over.is_set():
                before, body = queue.popleft()
                if self._rate is not None:
                    due = self.began + before / self._rate
                    self._over.wait(max(0.0, due - time.monotonic()))
                    self.late = max(self.late, time.monotonic() - due)
                self._send(connection, body)
        finally:
            connection.close()

    def _send(self, connection: http.client.HTTPConnection, body: Body) -> None:
        headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
        given_up = time.monotonic() + PATIENCE
        while not self._over.is_set():
            begin = time.monotonic()
            connection.request("POST", self._path, body.data, headers)
            answer = connection.getresponse()
            said = answer.read()
            now = time.monotonic()
            if answer.status == 200:
                self.acknowledged[body.program, body.number] = now
                self.delays.append(now - begin)
                self.records += body.records
                return
            if answer.status not in (429, 503) or now > given_up:
                raise SystemExit(f"the server answered {answer.status}: {said[:200]!r}")
            self.refused += 1
            self._over.wait(0.05)


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value that this share does not exceed; NaN without values."""
    found = sorted(values)
    return found[min(len(found) - 1, int(share * len(found)))] if found else float("nan")


@contextlib.contextmanager
def on_other_cores() -> Iterator[None]:
    """Keep this process off the core of the server."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    keep_to(loading())
    try:
        yield
    finally:
        keep_to(before)
