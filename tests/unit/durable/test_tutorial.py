"""The program of `docs/resume.md` does what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

from otel_progress.durable.store import find_store

PAGE = Path(__file__).parents[3] / "docs" / "resume.md"


def test_program_of_the_page_goes_on_after_a_kill(tmp_path: Path) -> None:
    """Killed by hand in the middle, it says where it goes on, does the rest, and then finds nothing to do."""
    text = PAGE.read_text(encoding="utf-8").split("## Try it", 1)[1]
    found = re.search(r"```py\n(.*?)```", text, re.DOTALL)
    assert found is not None
    (tmp_path / "ingest.py").write_text(found[1].replace("sleep(0.05)", "sleep(0.004)"), encoding="utf-8")
    command = [sys.executable, "ingest.py"]
    first = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    done: int = 0
    while not done and time.monotonic() < deadline:
        store = find_store(str(tmp_path / "work.db"))
        done = 0 if store is None else len(store.keys("ingest-2026-11", "").done)
        time.sleep(0.01)
    first.kill()
    first.wait()
    assert 0 < done < 400
    second, third = (
        subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True) for _ in range(2)
    )
    said = r"resumed at \d+ of 400 items \(attempt 2, after its process died at most .* ago\)"
    assert re.search(said, second.stdout + second.stderr)
    assert "resumed at 400 of 400 items (attempt 3, after it completed" in third.stdout + third.stderr
