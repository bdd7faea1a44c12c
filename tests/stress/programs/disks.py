"""A resumable job on a disk that is full, then has room again, and on one that can only be read.

Arguments: `tmpfs` or `limit`, and a folder: a small tmpfs of its own is mounted there, or the size of files is limited.
Prints what happens, one line each.
"""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

from otel_progress import CheckpointError, operation, track
from otel_progress.durable.sqlite import SqliteStore

how, folder = sys.argv[1], Path(sys.argv[2])
path, filler = folder / "work.db", folder / "filler"
ROOM = 256 * 1024
ITEMS = 5_000


def mount(options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)


def fill() -> None:
    """Leave room for a few thousand keys."""
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, resource.RLIM_INFINITY))
    else:
        mount("size=8m")
        filler.write_bytes(b"x" * (8 * 1024 * 1024 - ROOM))


def free() -> None:
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    else:
        filler.unlink()


def make_read_only() -> None:
    if how == "limit":
        folder.chmod(0o555)
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
            os.seteuid(65534)
    else:
        mount("size=1m,ro")


def job(**options: bool) -> str:
    """Return how many items were taken, and the error if there was one."""
    taken = 0
    try:
        with operation("job", id="job-1", resume=path, **options):
            for _ in track(range(ITEMS), key=lambda number: f"{number:0>60}"):
                taken += 1
    except CheckpointError as error:
        return f"{taken} {error}"
    return f"{taken} all"


def saved() -> int:
    """Return how many marks are saved, in a file that is whole."""
    store = SqliteStore(path)
    found = len(store.keys("job-1", "").done)
    store.close()
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
    return found


fill()
print("needs it:", job(), "saved", saved(), flush=True)
print("goes on:", job(required=False), "saved", saved(), flush=True)
free()
print("with room:", job(), "saved", saved(), flush=True)
make_read_only()
print("read-only:", job(), flush=True)
print("read-only, goes on:", job(required=False), flush=True)
