"""Records how long the units of real work take, once, into a small file.

python -m benchmarks.eta.record             all of it, some minutes
python -m benchmarks.eta.record downloads   this kind of work only
"""

from __future__ import annotations

import ast
import gzip
import http.server
import json
import os
import random
import subprocess
import sys
import sysconfig
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from benchmarks.eta.recorded import FILE, timings
from benchmarks.harness import ROOT

RUNS = 4
Times = list[float]


def library() -> list[Path]:
    """Return the files of the standard library, the largest folders only."""
    root = Path(sysconfig.get_paths()["stdlib"])
    return sorted(path for path in root.rglob("*.py") if not {"test", "tests", "site-packages"} & {*path.parts})


def compiling() -> Times:
    """Compile each file."""
    times = []
    for path in library():
        began = time.perf_counter()
        compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
        times.append(time.perf_counter() - began)
    return times


def parsing() -> Times:
    """Parse each file, and walk its tree."""
    times = []
    for path in library():
        began = time.perf_counter()
        sum(1 for _ in ast.walk(ast.parse(path.read_bytes())))
        times.append(time.perf_counter() - began)
    return times


def tests() -> Times:
    """Run some tests of this repository, and take the time from one result to the next."""
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:randomly", "tests/unit/model", "tests/unit/render"]
    unbuffered = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=unbuffered, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    times, before = [], 0.0
    for line in process.stdout:
        now = time.perf_counter()
        if line.startswith("collect"):
            before = now
        elif "%]" in line:
            times.append(now - before)
            before = now
    process.wait()
    return times


class Throttled(http.server.BaseHTTPRequestHandler):
    """Sends as many bytes as the path asks for, slowly, and slower from time to time."""

    def do_GET(self) -> None:
        size, pace = int(self.path[1:]), 4_000_000.0 * random.lognormvariate(0, 0.5)
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        while size > 0:
            part = min(size, 65_536)
            self.wfile.write(b"x" * part)
            size -= part
            time.sleep(part / pace)

    def log_message(self, *_: object) -> None:
        pass


def downloads() -> Times:
    """Download a hundred files of various sizes, one after the other."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Throttled)
    threading.Thread(target=server.serve_forever, name="throttled", daemon=True).start()
    times = []
    rng = random.Random(len("downloads"))
    sizes = [round(min(3e6, rng.lognormvariate(11.5, 1.2))) for _ in range(100)]
    for size in sizes:
        began = time.perf_counter()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/{size}") as answer:
            answer.read()
        times.append(time.perf_counter() - began)
    server.shutdown()
    server.server_close()
    return times


WORK = {"compiling files": compiling, "parsing files": parsing, "tests": tests, "downloads": downloads}


def recorded(names: list[str]) -> Iterator[tuple[str, list[Times]]]:
    for name in names:
        runs = [[round(seconds, 5) for seconds in WORK[name]()] for _ in range(RUNS)]
        print(f"{name}: {', '.join(f'{len(run)} units in {sum(run):.1f} s' for run in runs)}", flush=True)
        yield name, runs


def main() -> None:
    only = sys.argv[1:] or list(WORK)
    text = json.dumps({**timings(), **dict(recorded(only))}, separators=(",", ":"))
    FILE.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{FILE.name}: {FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
