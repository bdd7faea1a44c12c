"""Systems without POSIX: what the package does there, as `posix_hidden.py` has it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

HIDDEN = [sys.executable, str(Path(__file__).with_name("posix_hidden.py"))]
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
JOB = """
import json, sys, threading
import otel_progress as progress

seen = []
folder = sys.argv[1]
progress.configure("job", handlers=[seen.append], checkpoints=f"{folder}/work.db", history=f"{folder}/history.json",
                   handle_sigterm=True, interval=0.05)

@progress.operation("work", id="one", resume=True, stall_after=0.1)
def work():
    with progress.stage("load", total=3):
        for item in progress.track(range(3), mark=True):
            progress.note(f"item {item}")
    stalled = threading.Event()
    progress.current().on_stall(lambda *_: stalled.set())
    assert stalled.wait(60)
    return progress.current().snapshot()

snapshot = work()
progress.shutdown(5)
print(json.dumps({
    "events": sorted({event.name for event in seen}),
    "stuck_at": snapshot.stuck_at,
    "stages": [(stage.name, stage.progress.completed) for stage in snapshot.stages],
}))
"""


def test_an_operation_without_posix(tmp_path: Path) -> None:
    """It runs, is saved, is found stuck at its line, and is reported to its end."""
    program = tmp_path / "job.py"
    program.write_text(JOB, encoding="utf-8")
    done = subprocess.run(
        [*HIDDEN, str(program), str(tmp_path)], capture_output=True, text=True, check=False, timeout=120, env=ENVIRON
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert {"progress.operation.started", "progress.stalled", "progress.operation.ended"} <= set(told["events"])
    assert told["stages"] == [["load", 3]]
    assert told["stuck_at"].endswith(" in work")


def test_a_monitor_without_posix(tmp_path: Path) -> None:
    """It opens its file, and answers."""
    command = [*HIDDEN, "-m", "otel_progress", "monitor", "--port", "0", "--grpc-port", "none"]
    monitor = subprocess.Popen([*command, "--db", str(tmp_path / "monitor.db")], stdout=subprocess.PIPE, text=True)
    try:
        assert monitor.stdout is not None
        page = next(found[1] for line in monitor.stdout if (found := re.search(r"page +(\S+)", line)))
        with urlopen(f"{page}/health", timeout=60) as answer:
            assert answer.status == 200
    finally:
        monitor.kill()
        monitor.communicate()


def test_run_without_posix() -> None:
    """`run` names what the system lacks, and the other way."""
    done = subprocess.run(
        [*HIDDEN, "-m", "otel_progress", "run", "--", "true"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 125
    assert "run works on Linux only: start `otel-progress monitor` instead" in done.stderr
