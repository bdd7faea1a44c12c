"""From `advance()` in a real program, through a real monitor, to the change at a plain reader of its stream.

Each step names the time when the program made it. A step that was replaced before anyone saw it counts until the newer
one is seen.
"""

from __future__ import annotations

import json
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import ROOT, Row, clean_environment, full_or_short
from benchmarks.monitor.load import Monitor, percentile

BARS: Final = {None: 1.5, 0.1: 0.25}
"""Bars in seconds, by the interval of the program; None is the default interval."""
OPERATIONS: Final = 10
SECONDS: Final = full_or_short(20.0, 1.5)
_STEP: Final = re.compile(rb'"current_step":"@(\d+)\.(\d+)"')


def program(interval: float | None, seconds: float) -> None:
    """Run operations that advance now and then, and print the operation and time of each step."""
    import otel_progress

    otel_progress.configure(interval=interval)
    running = [otel_progress.operation("steps", total=1_000_000).start() for _ in range(OPERATIONS)]
    steps, counts, end = [], [0] * OPERATIONS, time.monotonic() + seconds
    chance = random.Random(7)
    while time.monotonic() < end:
        time.sleep(chance.uniform(0.005, 0.06))
        one = chance.randrange(OPERATIONS)
        counts[one] += 1
        now = time.monotonic()
        running[one].advance()
        running[one].update(message=f"@{one}.{counts[one]}")
        steps.append((one, counts[one], now))
    time.sleep(2 * (interval or 1.0) + 1)
    for operation in running:
        operation.complete()
    print(json.dumps(steps))


def read(host: str, process: subprocess.Popen[str]) -> tuple[list[list[float]], dict[int, list[tuple[int, float]]]]:
    """Return the steps of a program, and for each operation which were seen and when, until it ends."""
    address, _, port = host.rpartition(":")
    seen: dict[int, list[tuple[int, float]]] = {one: [] for one in range(OPERATIONS)}
    rest = b""
    with socket.create_connection((address, int(port))) as stream:
        stream.sendall(f"GET /stream HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n".encode())
        stream.settimeout(0.5)
        while process.poll() is None:
            try:
                data = stream.recv(1 << 20)
            except TimeoutError:
                continue
            now = time.monotonic()
            if not data:
                raise SystemExit("the monitor ended the stream")
            *frames, rest = (rest + data).split(b"\n\n")
            for one, count in _STEP.findall(b"\n".join(frames)):
                seen[int(one)].append((int(count), now))
    assert process.stdout is not None
    return json.loads(process.stdout.read()), seen


def delays(steps: list[list[float]], seen: dict[int, list[tuple[int, float]]]) -> list[float]:
    """Return seconds from each step until it, or a newer one of its operation, was seen."""
    found = []
    for one, count, at in steps:
        when = next((moment for told, moment in seen[int(one)] if told >= count), None)
        found.append(float("inf") if when is None else when - at)
    return found


def measure(seconds: float = SECONDS) -> dict[str, Any]:
    """Run the program with each interval."""
    out: dict[str, Any] = {}
    for interval in BARS:
        with tempfile.TemporaryDirectory() as folder, Monitor(Path(folder), "--interval", "0.1") as monitor:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.monitor.latency", json.dumps(interval), str(seconds)],
                cwd=ROOT,
                env={**clean_environment(), "OTEL_EXPORTER_OTLP_ENDPOINT": monitor.url},
                stdout=subprocess.PIPE,
                text=True,
            )
            try:
                found = delays(*read(monitor.host, process))
            finally:
                process.kill()
                process.wait()
        out[str(interval or "default")] = {
            "steps": len(found),
            "p50_s": round(percentile(found, 0.5), 3),
            "p99_s": round(percentile(found, 0.99), 3),
            "worst_s": round(max(found), 3),
        }
    return out


def rows(found: dict[str, Any]) -> list[Row]:
    """Return the rows of the table."""
    return [
        Row(
            f"from `advance()` to a reader, {f'interval {interval:g} s' if interval else 'default interval'}",
            f"p50 {one['p50_s'] * 1e3:.0f}, p99 {one['p99_s'] * 1e3:.0f}, worst {one['worst_s'] * 1e3:.0f} ms "
            f"({one['steps']:,} steps)",
            f"p99 {bar * 1e3:.0f} ms",
            "none",
            one["p99_s"] <= bar,
        )
        for interval, bar in BARS.items()
        for one in (found[str(interval or "default")],)
    ]


if __name__ == "__main__":
    program(json.loads(sys.argv[1]), float(sys.argv[2]))
