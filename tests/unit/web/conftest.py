"""A process in which nothing is collected at first and at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from otel_progress.live.engine import runtime
from otel_progress.web.embedded import of_process


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """Return to a process that serves nothing."""
    of_process.close()
    yield
    runtime.ticker.ask(runtime.ticker.round, 5.0)  # what ended is told now, not to the next test
    of_process.close()
    runtime.rest()
