"""Resumable jobs on a disk that is full or read-only: a small tmpfs where one can be mounted, else a limit of files."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .program import PROGRAMS, environment

APART = ("unshare", "--user", "--map-root-user", "--mount")
"""In namespaces of its own, a program may mount what nobody else sees."""


def may_mount() -> bool:
    """Return whether this system lets us; some containers do not."""
    if shutil.which("unshare") is None:
        return False
    tried = ("sh", "-c", "mount -t tmpfs none /tmp")
    return subprocess.run([*APART, *tried], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("how", ["limit", *(["tmpfs"] if may_mount() else [])])
def test_what_was_saved_stays_and_the_rest_follows(tmp_path: Path, how: str) -> None:
    """A job that needs its store stops soon; one that does not goes on, and all is saved once there is room."""
    tmp_path.chmod(0o777)
    command = [*(APART if how == "tmpfs" else ()), sys.executable, str(PROGRAMS / "disks.py"), how, str(tmp_path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    tmp_path.chmod(0o755)
    assert done.returncode == 0, done.stderr
    needs, goes_on, with_room, read_only, all_the_same = done.stdout.splitlines()
    found = re.fullmatch(r"needs it: (\d+) .*(full|disk I/O error).* saved (\d+)", needs)
    assert found is not None
    taken, saved = int(found[1]), int(found[3])
    assert saved <= taken <= saved + 1000
    left = re.fullmatch(r"goes on: (\d+) all saved (\d+)", goes_on)
    assert left is not None
    assert int(left[1]) == 5_000 - saved
    assert int(left[2]) >= saved
    assert with_room == "with room: 0 all saved 5000"  # the second job's marks waited for it
    why = "was removed or replaced while it was in use" if how == "tmpfs" else "(Read-only|readonly|Permission)"
    assert re.match(f"read-only: 0 .*{why}", read_only)  # the other file system has no such file
    assert all_the_same == "read-only, goes on: 5000 all"
    assert "goes on without checkpoints" in done.stderr
