"""The load benchmark, short: everything that its operations send arrives. No test measures speed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .needed import built

ROOT = Path(__file__).parents[2]
OPERATIONS = 200

pytestmark = [pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def figures(collector_binary: Path) -> dict[str, str]:
    """Return the second table of the short mode, by the first column."""
    for name in ("prometheus", "victorialogs", "jaeger"):
        built(name)
    command = [sys.executable, "-m", "benchmarks.load", "--short"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", done.stdout, re.MULTILINE))


def test_nothing_is_lost(figures: dict[str, str]) -> None:
    """The end of each operation is in VictoriaLogs and Prometheus, each span is exported, and nothing is dropped."""
    assert figures["ends that processes said they could not send"] == "0"
    assert figures["ends in VictoriaLogs, in Prometheus"] == f"{OPERATIONS}, {OPERATIONS} of {OPERATIONS}"
    spans = OPERATIONS * 4 + 1  # three stages each, and the probe
    assert figures["spans passed on"] == f"{spans} of {spans}"
    assert figures["dropped by the SDK"] == "0"
    assert figures["refused or lost by the Collector"] == "0"


def test_each_run_has_its_series(figures: dict[str, str]) -> None:
    """Each operation has the ten run series of its settings."""
    assert figures["series in Prometheus"].endswith(f"of these run series {OPERATIONS * 10:,}")


def test_delays_are_measured(figures: dict[str, str]) -> None:
    """The delay to each backend comes from some samples at least."""
    for store in ("from a note to VictoriaLogs", "from a point to Prometheus"):
        found = re.search(r"\(of (\d+)\)", figures[store])
        assert found is not None
        assert int(found[1]) > 0
