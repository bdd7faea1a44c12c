"""A tour: start a monitor, open its page, and run healthy and faulty jobs of every kind.

python examples/tour                 until Ctrl-C
python examples/tour --once          ends when every expected state was seen, after about a minute
python examples/tour --no-browser    prints the address of the page without opening it
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

HERE = Path(__file__).parent
SURVEY = HERE.parent / "survey.py"
PORT = 4318
SEEN = {
    "survey": ("completed", "surveys the source code of Python's standard library"),
    "research": ("stuck", "gets stuck: a server never answers; the page shows the line"),
    "release": ("waiting", "waits for a person, which is no trouble until it is overdue"),
    "import": ("failed", "fails at record 37"),
    "plan trip": ("looping", "loops: it calls the same two tools again and again, at a cost"),
    "crawl": ("lost", "is killed after 15 seconds, and cannot report its end"),
    "nightly": ("completed", "runs in four processes, shown as one job"),
}
"""Operation name to the verdict or status to wait for, and what the job demonstrates."""
PATIENCE = 120
"""Seconds to wait for all of them with `--once`."""


def main() -> int:
    """Run the tour."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--once", action="store_true", help="end when every expected state was seen")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with own_foreground():
        try:
            return tour(once=given.once, browser=not given.no_browser)
        except KeyboardInterrupt:
            print("\nall jobs have ended")
            return 0


def tour(*, once: bool, browser: bool) -> int:
    """Start the monitor and the jobs, follow them, and stop everything. Returns the exit code."""
    port = free_port()
    page = f"http://127.0.0.1:{port}"
    print("starting a monitor ...", flush=True)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        command = ["-m", "otel_progress.cli", "monitor", "--quiet", "--port", str(port), "--grpc-port", "none"]
        stack.enter_context(started([*command, "--db", str(Path(folder) / "tour.db")]))
        wait_for(f"{page}/health")
        print(f"the monitor is at {page}; starting the jobs:", flush=True)
        if browser:
            webbrowser.open(page)
        environ = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": page, "PYTHONUNBUFFERED": "1"}
        survey = ["--otlp", "--verbosity", "quiet", "--report", str(Path(folder) / "survey.md")]
        jobs = [[str(HERE / "jobs.py"), name] for name in ("researcher", "approver", "importer", "planner", "nightly")]
        jobs += [[str(SURVEY), *survey, *([] if once else ["--forever"])], [str(HERE / "jobs.py"), "crawler"]]
        *_, crawler = stack.enter_context(started(*jobs, environ=environ))
        for name, (_, about) in SEEN.items():
            print(f"  {name:10} {about}")
        watch = shlex.join([program("otel-progress"), "watch", "--url", page])
        print(f"in another terminal: {watch}\nCtrl-C ends everything\n", flush=True)
        return follow(page, crawler, once=once)


def program(name: str) -> str:
    """Return the shortest command for a program of this environment."""
    place = Path(sys.executable).parent / name
    if shutil.which(name) == str(place):
        return name
    with contextlib.suppress(ValueError):
        return str(place.relative_to(Path.cwd()))
    return str(place)


@contextlib.contextmanager
def own_foreground() -> Iterator[None]:
    """Receive Ctrl-C without `make`, which would report it as an error."""
    try:
        terminal, before = sys.stdin.fileno(), os.getpgrp()
        shared = os.isatty(terminal) and os.tcgetpgrp(terminal) == before != os.getpid()
    except (OSError, ValueError, AttributeError):
        shared = False
    if not shared:
        yield
        return
    os.setpgid(0, 0)
    # A background process may take the terminal only if it ignores SIGTTOU.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.tcsetpgrp(terminal, os.getpgrp())
    try:
        yield
    finally:
        os.tcsetpgrp(terminal, before)


def follow(page: str, crawler: subprocess.Popen[bytes], *, once: bool) -> int:
    """Print each expected state when it is seen, and kill the crawler after 15 s. Returns the exit code."""
    begin, left = time.monotonic(), dict(SEEN)
    while left or not once:
        passed = time.monotonic() - begin
        if passed > 15 and crawler.poll() is None:
            crawler.kill()
        if once and passed > PATIENCE:
            print(f"not seen in {PATIENCE} s: {', '.join(left)}")
            return 1
        with urlopen(f"{page}/operations", timeout=10) as answer:
            for row in json.load(answer)["operations"]:
                wanted = left.get(row["name"], ("",))[0]
                health = (row.get("verdict") or {}).get("health")
                if wanted in (row["status"], "stuck" if health == "silent" else health):
                    del left[row["name"]]
                    more = row.get("stuck_at") or (row.get("verdict") or {}).get("reason") or row.get("reason") or ""
                    print(f"{passed:5.0f} s  {row['name']}: {wanted}{f' - {more}' if more else ''}", flush=True)
        time.sleep(0.5)
    return 0


@contextlib.contextmanager
def started(*commands: list[str], environ: dict[str, str] | None = None) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run Python programs in sessions of their own, and stop them all at the end."""
    processes = [
        subprocess.Popen([sys.executable, *command], env=environ, stdin=subprocess.DEVNULL, start_new_session=True)
        for command in commands
    ]
    try:
        yield processes
    finally:
        for process in processes:
            # The whole group: its children must end too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(url: str) -> None:
    """Wait until `url` answers."""
    begin = time.monotonic()
    while True:
        with contextlib.suppress(OSError), urlopen(url, timeout=5):
            return
        if time.monotonic() - begin > 30:
            raise SystemExit("the monitor does not answer")
        time.sleep(0.1)


def free_port() -> int:
    """Return the usual port or, if it is in use, any free one."""
    for port in (PORT, 0):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)) as one:
            found: int = one.getsockname()[1]
            return found
    raise SystemExit("no port is free")


if __name__ == "__main__":
    sys.exit(main())
