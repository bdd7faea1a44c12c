"""Fixtures of the tests against a real Collector, and what happens to the tests of Tempo where there is none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from . import build
from .collector import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEFT_OUT = pytest.StashKey[int]()
NO_TEMPO = (
    "Tempo is not here: the Go module proxy may not give its module, `python tests/stack/build.py tempo` says why; "
    "OTEL_PROGRESS_TEMPO_BINARY=PATH gives one. Its {count} tests are left out; TraceQL is held against its grammar."
)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", "tempo: needs a real Tempo, and is left out where there is none")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the tests of Tempo out where there is none: it alone may be missing, in CI too."""
    left_out = [item for item in items if item.get_closest_marker("tempo")]
    try:
        if not left_out or build.binary("tempo") is not None:
            return
    except build.BuildError as error:
        raise pytest.UsageError(str(error)) from None
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
    config.stash[LEFT_OUT] = len(left_out)
    if hasattr(config, "workeroutput"):
        config.workeroutput["tempo_left_out"] = len(left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear from a worker of xdist what it left out; all of them collect the same tests."""
    count = getattr(node, "workeroutput", {}).get("tempo_left_out")
    if count:
        node.config.stash[LEFT_OUT] = count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out."""
    count = terminalreporter.config.stash.get(LEFT_OUT, 0)
    if count:
        terminalreporter.write_line(NO_TEMPO.format(count=count), yellow=True)


@pytest.fixture(scope="session")
def collector_binary() -> Path:
    """Return the Collector's binary, built when it is missing; skip without Go, but never in CI."""
    try:
        return build.build()
    except build.NoGoError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no Collector: {error}")
        pytest.skip(f"no Collector: {error}")
    except build.BuildError as error:
        pytest.fail(f"no Collector: {error}")


@pytest.fixture
def collector(collector_binary: Path, tmp_path: Path) -> Iterator[Collector]:
    """Return a running Collector with `collector-config/local.yaml`, a folder and ports of its own."""
    with Collector(collector_binary, tmp_path / "collector") as running:
        yield running
