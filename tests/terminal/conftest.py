"""What tests in a terminal share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.terminal.stub import Stub


@pytest.fixture
def monitor() -> Iterator[Stub]:
    stub = Stub()
    yield stub
    if stub.listening:
        stub.down()
