"""Processes that fight for one operation: never two of them write.

`python -m tests.stress.test_leases 8 60` has 8 processes fight for a minute, and prints what happened.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from otel_progress import procfs
from otel_progress.durable.sqlite import SqliteStore

from .program import PROGRAMS, environment

LEASE = 1.0
KEYS = 100
"""Keys that an attempt marks."""
WITNESS = """
CREATE TABLE seen (at INTEGER PRIMARY KEY, item TEXT, fence INTEGER);
CREATE TRIGGER witness AFTER INSERT ON marks BEGIN
  INSERT INTO seen (item, fence) SELECT NEW.item, fence FROM operations;
END;
"""
"""Notes in the transaction of each mark who may write at that moment."""


@dataclass
class Fight:
    """What happened: attempts that ended well, attempts that lost their lease, refusals, and holders stopped."""

    won: list[int]
    lost: list[int]
    refused: int
    stopped: int
    store: Path

    def verify(self) -> int:
        """Check that nobody wrote whose lease was over, and that what was reported as saved is; returns the marks."""
        db = sqlite3.connect(self.store)
        seen = db.execute("SELECT item, fence FROM seen ORDER BY at").fetchall()
        marks = {item for (item,) in db.execute("SELECT item FROM marks")}
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.close()
        fences = [fence for _, fence in seen]
        assert fences == sorted(fences)
        assert [item for item, fence in seen if int(item.partition(":")[0]) != fence] == []
        assert len(set(self.won)) == len(self.won)
        assert [attempt for attempt in self.won if any(f"{attempt}:{n}" not in marks for n in range(KEYS))] == []
        return len(marks)


def fight(folder: Path, processes: int, seconds: float) -> Fight:
    """Let processes fight, and stop the holder now and then for longer than its lease lasts."""
    path = folder / "work.db"
    SqliteStore(path).close()
    db = sqlite3.connect(path)
    db.executescript(WITNESS)
    db.close()
    command = [sys.executable, str(PROGRAMS / "fighter.py"), str(path), str(seconds), str(LEASE)]
    pipe = subprocess.PIPE
    crowd = [subprocess.Popen(command, env=environment(), stdin=pipe, stdout=pipe, text=True) for _ in range(processes)]
    for one in crowd:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in crowd:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    stopped = _stop_holders(path, {one.pid for one in crowd}, seconds)
    said = [json.loads(one.communicate(timeout=60)[0]) for one in crowd]
    total = {what: [attempt for one in said for attempt in one[what]] for what in ("won", "lost", "held")}
    return Fight(total["won"], total["lost"], len(total["held"]), stopped, path)


def _stop_holders(path: Path, pids: set[int], seconds: float) -> int:
    store, chance, stopped = SqliteStore(path), random.Random(14), 0
    until = time.monotonic() + seconds - LEASE
    while time.monotonic() < until:
        time.sleep(chance.uniform(0.05, 0.3))
        found = store.operation("job-1")
        if found is None or found.status != "running" or found.holder.pid not in pids:
            continue
        if procfs.look(found.holder.pid) is not None:
            os.kill(found.holder.pid, signal.SIGSTOP)
            time.sleep(LEASE * chance.uniform(0.8, 1.6))
            os.kill(found.holder.pid, signal.SIGCONT)
            stopped += 1
    store.close()
    return stopped


def test_never_two_holders_that_both_write(tmp_path: Path) -> None:
    """A holder that slept through its lease writes nothing more, and is told; what ended well is saved."""
    seen = fight(tmp_path, 4, 3.0)
    assert seen.verify() >= KEYS * len(seen.won) > 0
    assert seen.stopped


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as where:
        found = fight(Path(where), int(sys.argv[1]), float(sys.argv[2]))
        print(
            f"{sys.argv[1]} processes in {sys.argv[2]} s: {len(found.won)} attempts ended well, {len(found.lost)} lost "
            f"their lease, {found.refused} were refused; {found.stopped} holders were stopped for about a lease; "
            f"{found.verify():,} marks, each by the holder of that moment"
        )
