"""Standard streams that the caller closed, and commands that can't be started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from otel_progress.cli.run.spawning import NotStarted, spawn

FILL = """
import os, sys
from otel_progress.cli import streams
if sys.argv[1] == "taken":
    mine = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)
streams.fill()
streams.fill()
for stream in (sys.stdout, sys.stderr):
    stream.write("lost\\n")
    stream.flush()
with open(sys.argv[3], "w") as out:
    out.write(repr([os.readlink(f"/proc/self/fd/{n}") for n in (0, 1, 2)] + [os.get_inheritable(n) for n in (0, 1, 2)]))
"""


_CLOSED = """
import os, sys
os.closerange(0, 3)
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[1:]])
"""


@pytest.mark.parametrize("taken", ["free", "taken"])
def test_the_null_device_stands_for_what_is_closed(taken: str, tmp_path: Path) -> None:
    """Its number is taken, and not inherited; a file that has the number already is left alone."""
    file, out = tmp_path / "file", tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", _CLOSED, FILL, taken, str(file), str(out)], check=False, timeout=60)
    assert done.returncode == 0
    first = "/dev/null" if taken == "free" else str(file)
    assert out.read_text() == repr([first, "/dev/null", "/dev/null", False, False, False])
    assert not file.exists() or file.read_text() == ""


def test_a_name_that_is_told_is_short_and_printable() -> None:
    """Whatever the name is, one line says which command can't be started."""
    with pytest.raises(NotStarted) as caught:
        spawn(["\x1b[31m" + "x" * 5_000], os.environ)
    assert str(caught.value).startswith("?[31mxxx")
    assert len(str(caught.value)) < 300


def test_an_argument_that_no_system_takes_is_told() -> None:
    """A NUL, which only a program can give, is an error of the command and not of ours."""
    with pytest.raises(NotStarted) as caught:
        spawn(["true", "a\0b"], os.environ)
    assert caught.value.code == 126
