"""The examples of integrations know nothing of otel-progress, and are seen below `otel-progress run`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples" / "integrations"


@pytest.mark.parametrize(
    ("example", "name", "count"),
    [("tqdm_loop.py", "pass", 2), ("rich_bars.py", "unpack", 40), ("retries.py", "pages", 30)],
)
def test_an_example_is_seen_while_it_runs(example: str, name: str, count: int, tmp_path: Path) -> None:
    """Its operation has all that the bar counted, and ended well."""
    assert "import otel_progress" not in (EXAMPLES / example).read_text(encoding="utf-8")
    command = [sys.executable, "-m", "otel_progress", "run", "-f", "--", sys.executable, str(EXAMPLES / example)]
    done = subprocess.run(
        command,
        env={**os.environ, "XDG_DATA_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ends = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(f"✓ {name} ")]
    assert len(ends) == 1, done.stdout + done.stderr
    assert str(count) in ends[0]
    assert "WARNING" not in done.stderr
