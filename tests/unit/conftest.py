"""Fixtures for the tests of the monitor's inside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from monitor_parts import Parts, fake_time, parts

from otel_progress.testing import FakeClock


@pytest.fixture
def fake() -> Iterator[FakeClock]:
    """Return a clock that stands still."""
    with fake_time() as found:
        yield found


@pytest.fixture
def monitor(fake: FakeClock, tmp_path: Path) -> Iterator[Parts]:
    """Return the inside of a monitor."""
    with parts(tmp_path / "m.db") as found:
        yield found
