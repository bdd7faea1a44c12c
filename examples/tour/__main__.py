"""The tour: starts a monitor, opens its page, and runs jobs of every kind, good and bad, for you to look at.

python examples/tour                 until Ctrl-C
python examples/tour --once          ends by itself when all has been seen, in about a minute
python examples/tour --no-browser    names the page's address, and opens nothing
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
    "research": ("stuck", "gets stuck: a server never answers; the page says at which line"),
    "release": ("waiting", "waits for a human: that is no trouble, before it is overdue"),
    "import": ("failed", "fails at record 37"),
    "plan trip": ("looping", "loops: the same two tools again and again, and it costs"),
    "crawl": ("lost", "is killed after 15 seconds, and can't say so itself"),
    "nightly": ("completed", "works in four processes, shown as one"),
}
"""What is to be seen, by the name of the operation: how it stands or ends, and what it is there to show."""
PATIENCE = 120


def main() -> int:
    """Run the tour."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--once", action="store_true", help="end when all has been seen")
    parser.add_argument("--no-browser", action="store_true", help="open nothing")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with own_foreground():
        try:
            return tour(once=given.once, browser=not given.no_browser)
        except KeyboardInterrupt:
            print("\nall of it has ended")
            return 0


def tour(*, once: bool, browser: bool) -> int:
    """Start all, tell what is to be seen, and end all; returns the exit code."""
    port = free_port()
    page = f"http://127.0.0.1:{port}"
    print("starting a monitor ...", flush=True)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        command = ["-m", "otel_progress.cli", "monitor", "--quiet", "--port", str(port), "--grpc-port", "none"]
        stack.enter_context(started([*command, "--db", str(Path(folder) / "tour.db")]))
        wait_for(f"{page}/health")
        print(f"the monitor is at {page}; now the jobs:", flush=True)
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
        print(f"in another terminal: {watch}\nCtrl-C ends all of it\n", flush=True)
        return follow(page, crawler, once=once)


def program(name: str) -> str:
    """How a program of this environment is called from here."""
    place = Path(sys.executable).parent / name
    if shutil.which(name) == str(place):
        return name
    with contextlib.suppress(ValueError):
        return str(place.relative_to(Path.cwd()))
    return str(place)


@contextlib.contextmanager
def own_foreground() -> Iterator[None]:
    """Take Ctrl-C alone: `make`, which started us, would report it as an error of its own."""
    try:
        terminal, before = sys.stdin.fileno(), os.getpgrp()
        shared = os.isatty(terminal) and os.tcgetpgrp(terminal) == before != os.getpid()
    except (OSError, ValueError, AttributeError):
        shared = False
    if not shared:
        yield
        return
    os.setpgid(0, 0)
    # A process in the background may not take the terminal, unless it ignores the signal that says so.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.tcsetpgrp(terminal, os.getpgrp())
    try:
        yield
    finally:
        os.tcsetpgrp(terminal, before)


def follow(page: str, crawler: subprocess.Popen[bytes], *, once: bool) -> int:
    """Tell each thing that was to be seen when it is; kill the crawler in time."""
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
    """Python programs that run, and are ended at the end, all at once; Ctrl-C doesn't reach them by itself."""
    processes = [
        subprocess.Popen([sys.executable, *command], env=environ, stdin=subprocess.DEVNULL, start_new_session=True)
        for command in commands
    ]
    try:
        yield processes
    finally:
        for process in processes:
            # What it started has to end too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(url: str) -> None:
    """Until it answers."""
    begin = time.monotonic()
    while True:
        with contextlib.suppress(OSError), urlopen(url, timeout=5):
            return
        if time.monotonic() - begin > 30:
            raise SystemExit("the monitor does not answer")
        time.sleep(0.1)


def free_port() -> int:
    """The usual port, or any other where that is taken."""
    for port in (PORT, 0):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)) as one:
            found: int = one.getsockname()[1]
            return found
    raise SystemExit("no port can be had")


if __name__ == "__main__":
    sys.exit(main())
