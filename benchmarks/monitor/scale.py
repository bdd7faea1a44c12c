"""Many live operations of many programs: what the monitor needs for them, and how quickly it answers meanwhile.

A fleet of programs sends as the SDK does, over connections of their own; see `fleet.py`. The CPU of the monitor is that
of its process while the load is steady. One reader follows the stream of all operations: each message says when it
was made, so the delay is that from the program to the reader.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import ROOT, SHORT, Row, clean_environment, full_or_short
from benchmarks.monitor.load import Monitor, keep_to, loading, on_other_cores, percentile

SECONDS: Final = full_or_short(30.0, 3.0)
BAR: Final = 50_000
"""Live operations that a core must have room for."""
MEMORY: Final = 1e9
READY: Final = 0.5
"""Seconds within which a list must be answered."""
LIST: Final = "/operations?limit=200"
_STAMP: Final = re.compile(rb'"current_step":"@(\d+\.\d+)')


@dataclass(frozen=True)
class Case:
    """A number of operations and programs, the readers of the stream, and what else the fleet is told."""

    name: str
    operations: int
    processes: int
    readers: int = 1
    options: tuple[str, ...] = ()


OPERATIONS_SHORT: Final = 200
OPERATIONS: Final = full_or_short(10_000, OPERATIONS_SHORT)
"""On two cores, the fleet of more of them takes all that the monitor leaves."""
EACH: Final = 10
"""Operations of a program."""


def cases(operations: int) -> tuple[Case, Case]:
    """Return the cases with this number of operations."""
    programs = max(1, operations // EACH)
    return Case("nobody looks", operations, programs, 0), Case("one page", operations, programs, 1)


class Reader:
    """One reader of the stream; it notes how old each message is that it sees."""

    def __init__(self, host: str, packed: bool = False) -> None:
        """Connect and read, in a thread."""
        address, _, port = host.rpartition(":")
        self._stream = socket.create_connection((address, int(port)), 30)
        accepts = "Accept-Encoding: deflate, gzip\r\n" if packed else ""
        self._stream.sendall(f"GET /stream HTTP/1.1\r\nHost: {host}\r\n{accepts}\r\n".encode())
        self.delays: list[float] = []
        self.bytes = 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        rest = b""
        while data := self._received():
            now = time.time()
            self.bytes += len(data)
            whole, _, rest = (rest + data).rpartition(b"\n\n")
            self.delays += [now - float(stamp) for stamp in _STAMP.findall(whole)]

    def _received(self) -> bytes:
        try:
            return self._stream.recv(1 << 20)
        except OSError:
            return b""  # it left

    def close(self) -> None:
        """Leave."""
        self._stream.close()


def measure(seconds: float = SECONDS, *, operations: int = OPERATIONS, profile: Path | None = None) -> dict[str, Any]:
    """Measure all cases, each with its own monitor."""
    found = {}
    for number, case in enumerate(cases(operations)):
        told = None if profile is None else profile.with_suffix(f".{number}.txt")
        found[case.name] = one(case, seconds, told)
    return found


def one(case: Case, seconds: float, profile: Path | None = None) -> dict[str, Any]:
    """Measure one case."""
    with tempfile.TemporaryDirectory() as name, on_other_cores(), Monitor(Path(name), profile=profile) as monitor:
        fleet = subprocess.Popen(
            [
                sys.executable,
                *("-m", "benchmarks.monitor.fleet", monitor.host),
                *("--operations", str(case.operations), "--processes", str(case.processes)),
                *("--seconds", str(seconds), *(("--short",) if SHORT else ()), *case.options),
            ],
            cwd=ROOT,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        keep_to(loading(), fleet.pid)
        assert fleet.stdout is not None
        try:
            built = json.loads(fleet.stdout.readline())
            readers = [Reader(monitor.host) for _ in range(case.readers)]
            cpu, began = monitor.cpu(), time.monotonic()
            answers = _ask(monitor, began + seconds - 1)
            used = monitor.cpu() - cpu
            took = time.monotonic() - began
            steady = json.loads(fleet.stdout.readline())
            for reader in readers:
                reader.close()
            health = monitor.get("/health")
            memory, peak, size = monitor.memory(), monitor.peak(), monitor.size()
        finally:
            fleet.kill()
            fleet.wait()
    seen = [delay for reader in readers for delay in reader.delays]
    return {
        "expected": case.operations,
        "programs": case.processes,
        "operations": health["operations"]["running"],
        "events_a_second": round(steady["events"] / steady["seconds"]),
        "requests_a_second": round(steady["requests"] / steady["seconds"]),
        "cpu_of_a_core": round(used / took, 3),
        "memory_mb": round(memory / 1e6),
        "peak_mb": round(peak / 1e6),
        "file_mb": round(size / 1e6),
        "acknowledged_p50_ms": round(steady["p50"] * 1e3, 1),
        "acknowledged_p99_ms": round(steady["p99"] * 1e3, 1),
        "late_s": round(steady["late"], 2),
        "answers": steady["answers"],
        "while_building": built["answers"],
        "fleet_cpu": round((steady["used"] - built["used"]) / steady["seconds"], 2),
        **{f"{path.partition('?')[0]}_ms": round(percentile(times, 0.5) * 1e3) for path, times in answers.items()},
        **{f"{path.partition('?')[0]}_p99_ms": round(percentile(times, 0.99) * 1e3) for path, times in answers.items()},
        "seen_p50_ms": round(percentile(seen or [0.0], 0.5) * 1e3),
        "seen_p99_ms": round(percentile(seen or [0.0], 0.99) * 1e3),
        "seen_a_second": round(len(seen) / seconds / max(1, case.readers)),
        "stream_kb_a_second": round(sum(reader.bytes for reader in readers) / seconds / 1e3),
        "dropped": health["intake"],
    }


def _ask(monitor: Monitor, until: float) -> dict[str, list[float]]:
    """Ask for lists and health again and again; return how long each took."""
    answers: dict[str, list[float]] = {LIST: [], "/health": []}
    while time.monotonic() < until:
        for path, times in answers.items():
            connection = http.client.HTTPConnection(monitor.host, timeout=60)
            begin = time.monotonic()
            connection.request("GET", path)
            connection.getresponse().read()
            times.append(time.monotonic() - begin)
            connection.close()
        time.sleep(max(0.0, min(2.0, until - time.monotonic())))
    return answers


def rows(found: dict[str, Any]) -> list[Row]:
    """Return the rows of the table."""
    out = []
    for name, one in found.items():
        reached = one["operations"] >= 0.99 * one["expected"] and set(one["answers"]) <= {"200"}
        out.append(
            Row(
                f"{one['expected']:,} live operations of {one['programs']:,} programs, {name}",
                f"{100 * one['cpu_of_a_core']:.0f}% of a core, so about "
                f"{one['operations'] / max(one['cpu_of_a_core'], 0.001):,.0f} a core; {one['peak_mb']:,} MB; "
                f"{one['events_a_second']:,} events/s, {one['requests_a_second']:,} requests/s, acknowledged p99 "
                f"{one['acknowledged_p99_ms']:.0f} ms; list {one['/operations_ms']:,} ms, health "
                f"{one['/health_ms']:,} ms",
                f"50,000 a core, {MEMORY / 1e6:,.0f} MB, list {READY * 1e3:.0f} ms",
                "none",
                reached
                and one["operations"] >= BAR * one["cpu_of_a_core"]
                and one["peak_mb"] * 1e6 <= MEMORY
                and one["/operations_ms"] <= READY * 1e3,
            )
        )
    return out
