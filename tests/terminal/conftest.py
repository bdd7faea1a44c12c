"""What tests in a terminal share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.terminal.real import Monitor
from tests.terminal.stub import Stub


@pytest.fixture
def monitor() -> Iterator[Stub]:
    stub = Stub()
    yield stub
    if stub.listening:
        stub.down()


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Monitor]:
    monitor = Monitor(tmp_path)
    yield monitor
    if monitor.process.poll() is None:
        monitor.kill()
