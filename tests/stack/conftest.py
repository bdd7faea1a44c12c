"""Fixtures of the tests against a real Collector, and deselection of the tests of Loki and Tempo if these are missing."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from . import build
from .collector import Collector
from .needed import built

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEFT_OUT = pytest.StashKey[dict[str, int]]()
NOT_GIVEN = (
    "{count} tests did not run: they need {title}, which is under the AGPL and is never built or downloaded here. "
    "OTEL_PROGRESS_{variable}_BINARY=PATH names one. Its queries were parsed by its real grammar."
)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    for name in build.GIVEN:
        config.addinivalue_line("markers", f"{name}: runs where OTEL_PROGRESS_{name.upper()}_BINARY names a program")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests of programs that were not named."""
    try:
        absent = [name for name in build.GIVEN if build.binary(name) is None]
    except build.BuildError as error:
        raise pytest.UsageError(str(error)) from None
    left_out = {item: name for item in items for name in absent if item.get_closest_marker(name)}
    if not left_out:
        return
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=list(left_out))
    config.stash[LEFT_OUT] = dict(Counter(left_out.values()))
    if hasattr(config, "workeroutput"):
        config.workeroutput["left_out"] = config.stash[LEFT_OUT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Receive from a worker of xdist what it deselected; all workers collect the same tests."""
    left_out = getattr(node, "workeroutput", {}).get("left_out")
    if left_out:
        node.config.stash[LEFT_OUT] = left_out


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report what was deselected."""
    for name, count in terminalreporter.config.stash.get(LEFT_OUT, {}).items():
        text = NOT_GIVEN.format(count=count, title=name.capitalize(), variable=name.upper())
        terminalreporter.write_line(text, yellow=True)


@pytest.fixture(scope="session")
def collector_binary() -> Path:
    """Return the Collector's binary."""
    return built(build.COLLECTOR)


@pytest.fixture
def collector(collector_binary: Path, tmp_path: Path) -> Iterator[Collector]:
    """Return a running Collector with `collector-config/local.yaml`, and a directory and ports of its own."""
    with Collector(collector_binary, tmp_path / "collector") as running:
        yield running
