"""The Pythons of a watched command: what keeps us out of them, and the line that says so."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from otel_progress.cli.run.pythons import Python, Pythons, keeps_out, of
from otel_progress.settings import RUN

MARK = "http://127.0.0.1:1"
WAITS = "import sys; print('runs', flush=True); sys.stdin.read()"


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python that has no otel-progress."""
    folder = tmp_path_factory.mktemp("other")
    venv.create(folder, with_pip=False)
    return str(folder / "bin" / "python")


@contextmanager
def running(*command: str) -> Iterator[None]:
    environ = {**os.environ, RUN: MARK}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.communicate()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["/opt/v/bin/python", "job.py"], Python("/opt/v/bin/python", None)),
        (["v/bin/python3.12", "-u", "job.py", "-I"], Python("/srv/v/bin/python3.12", None)),
        (["/opt/python3", "-Ic", "pass"], Python("/opt/python3", "I")),
        (["/opt/python3", "-W", "error", "-S", "job.py"], Python("/opt/python3", "S")),
        (["/opt/python3", "-uE", "job.py"], Python("/opt/python3", "E")),
        (["/opt/python3", "-WIgnore", "job.py"], Python("/opt/python3", None)),
        (["/opt/python3", "-m", "job", "-E"], Python("/opt/python3", None)),
        (["/opt/pythonista", "job.py"], None),
        (["/bin/bash", "-c", "python job.py"], None),
        (["python-of-nobody", "job.py"], None),
        ([], None),
    ],
)
def test_a_process_is_a_python_by_its_command_line(words: list[str], found: Python | None) -> None:
    """The path is that of the environment, not of the file behind the link; options of the program mean nothing."""
    assert of(words, "/srv", "") == found


def test_a_python_without_us_is_named(other: str) -> None:
    """The answer is that of the Python itself, with the environment of the command."""
    assert keeps_out(Python(sys.executable, None), os.environ) == ""
    assert keeps_out(Python(other, None), os.environ) == f"{other} has no otel-progress: install it there, too"
    source = str(Path(__file__).parents[3] / "src")
    assert keeps_out(Python(other, None), {**os.environ, "PYTHONPATH": source}) == ""
    assert "was started with -I (isolated mode)" in keeps_out(Python(sys.executable, "I"), os.environ)
    assert keeps_out(Python("/nowhere/python", None), os.environ) == ""


def test_nothing_is_said_while_one_of_them_can_be_seen(other: str) -> None:
    """A helper without us means nothing beside a Python that has us, nor do other commands."""
    pythons = Pythons(MARK, os.environ, lambda: False)
    assert pythons.why() == ""
    with running(other, "-c", WAITS):
        assert pythons.why() == f"{other} has no otel-progress: install it there, too"
        with running(sys.executable, "-c", WAITS):
            assert pythons.why() == ""


def test_it_is_said_once_and_only_while_nothing_is_heard(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch ends with the first operation, or once it has said what keeps us out."""
    monkeypatch.setattr("otel_progress.cli.run.pythons.FIRST", 0.01)
    said: list[str] = []
    with running(other, "-c", WAITS):
        Pythons(MARK, os.environ, lambda: True).watch(said.append)
        silent = Pythons(MARK, os.environ, lambda: False)
        silent.watch(said.append)
        deadline = time.monotonic() + 60
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
    assert said == [f"nothing can be seen of this command: {silent.found}"]
    assert other in silent.found
