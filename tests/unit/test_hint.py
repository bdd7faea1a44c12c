"""The line on stderr of a program that nobody watches: when it is said, and what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no pseudo-terminals here")
SAYS = """
import sys
import otel_progress as progress

@progress.operation("work")
def work():
    sys.stdin.readline()

work()
work()
"""
MEANT = """
import threading
import otel_progress as progress

def meant():
    return any(thread.name == "otel-progress-hint" for thread in threading.enumerate())

@progress.operation("work")
def work():
    print(meant(), flush=True)
"""
WITH_SDK = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
work()
"""
IN_A_TEST = """
import unittest
class TestOne(unittest.TestCase):
    def test_it(self):
        work()
unittest.main(argv=["job"], exit=False)
"""


def run(*arguments: str, terminal: bool = True, **environ: str) -> str:
    """Run Python with a terminal as its stderr; returns its stdout."""
    ours, theirs = os.openpty()
    given = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTEST_", "CI"))}
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=theirs if terminal else subprocess.PIPE,
            text=True,
            check=True,
            timeout=60,
            env={**given, "TERM": "xterm", **environ},
        )
    finally:
        os.close(theirs)
        os.close(ours)
    return done.stdout


def program(folder: Path, text: str) -> str:
    """Write a program."""
    path = folder / "job.py"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_line_is_said_once(tmp_path: Path) -> None:
    """A program on a terminal that calls no configure() is told how to see its operations, by the line to type."""
    ours, theirs = os.openpty()
    given = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTEST_", "CI"))}
    job = subprocess.Popen(
        [sys.executable, Path(program(tmp_path, SAYS)).name, "--token", "hunter2"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stderr=theirs,
        env={**given, "TERM": "xterm"},
    )
    os.close(theirs)
    said = b""
    while b"\n" not in said:
        said += os.read(ours, 4096)
    job.communicate(b"\n\n", timeout=60)
    try:
        said += os.read(ours, 4096)
    except OSError:
        pass  # the terminal is closed: nothing more was said
    os.close(ours)
    assert said.count(b"nobody watches the operations of this program") == 1
    assert b"otel-progress run -f -- python job.py --token" in said
    assert b"hunter2" not in said
    assert b"OTEL_PROGRESS_QUIET=1 hides this line" in said


def test_it_is_meant_for_ones_own_program(tmp_path: Path) -> None:
    """A script of one's own on a terminal is told, also if an installed package calls its function."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "caller.py").write_text("def call(fn):\n    fn()\n", encoding="utf-8")
    assert run(program(tmp_path, f"{MEANT}\nwork()")) == "True\n"
    job = program(tmp_path, f"{MEANT}\nfrom caller import call\ncall(work)")
    assert run(job, PYTHONPATH=str(folder)) == "True\n"


@pytest.mark.parametrize(
    ("start", "environ"),
    [
        (WITH_SDK, {}),
        (IN_A_TEST, {}),
        ("work()", {"OTEL_PROGRESS_QUIET": "1"}),
        ("work()", {"OTEL_SDK_DISABLED": "true"}),
        ("work()", {"CI": "true"}),
        ("work()", {"TERM": "dumb"}),
        ("work()", {"OTEL_PROGRESS_HANDLERS": "logging"}),
        ("progress.add_listener(lambda snapshot: None); work()", {}),
        ("import os\nif os.fork() == 0:\n    work()\n    os._exit(0)\nos.wait()", {}),
        ("import sys\nsys.ps1 = '>>> '\nwork()", {}),
    ],
)
def test_where_nothing_is_said(start: str, environ: dict[str, str], tmp_path: Path) -> None:
    """Nothing is said where it is unwanted, where somebody watches, in children, in tests, and at a prompt."""
    assert run(program(tmp_path, f"{MEANT}\n{start}"), **environ) == "False\n"


def test_nothing_is_said_without_a_terminal(tmp_path: Path) -> None:
    """A log file or a pipe gets no line."""
    assert run(program(tmp_path, f"{MEANT}\nwork()"), terminal=False) == "False\n"


def test_commands_of_installed_packages_are_silent(tmp_path: Path) -> None:
    """Users of a tool did not ask for us."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "tool.py").write_text(f"{MEANT}\nwork()", encoding="utf-8")
    assert run("-m", "tool", PYTHONPATH=str(folder)) == "False\n"


def test_who_comes_in_time_is_not_told(tmp_path: Path) -> None:
    """If somebody watches by the time that the line is due, it is not said."""
    late = """
from otel_progress import hint
with progress.operation("first"):
    print(hint.is_unwatched())
    progress.add_listener(lambda snapshot: None)
    print(hint.is_unwatched())
"""
    assert run(program(tmp_path, f"{MEANT}\n{late}")) == "True\nFalse\n"
