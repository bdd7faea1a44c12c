"""The benchmark runs; what it finds is no matter of tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = (
    "`track` over list, tuple, range",
    "`track` over any iterator",
    "`track` over an async iterator",
    "`advance()` on a handle",
    "stage enter + exit, recording",
    "the same, a stage inside a stage",
    "decorator, without SDK",
    "ticker, 500 live operations",
    "memory a live operation",
    "`import otel_progress`",
    "99th percentile of a call",
)


@pytest.fixture(scope="module")
def short() -> str:
    """What the short mode prints."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--short"],
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("row", ROWS)
def test_the_short_mode_measures_every_row(short: str, row: str) -> None:
    """Each row of the table is there, and was measured."""
    line = next((line for line in short.splitlines() if line.startswith(f"| {row}")), None)
    assert line is not None, short
    assert "not measured" not in line


def test_the_short_mode_keeps_nothing() -> None:
    """Figures of the short mode never reach the page, which has room for those of the full one."""
    page = (ROOT / "docs" / "performance.md").read_text()
    assert page.count("<!-- measured: begin -->") == page.count("<!-- measured: end -->") == 1
    assert "500 live operations" not in page
