"""How the tests are divided among workers, and in which order: those that wait for real programs come first."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parents[1]
FIRST = (
    "tests/stack",
    "tests/stress",
    "tests/terminal",
    "tests/browser",
    "tests/screens",
    "tests/frameworks",
    "tests/website",
    "tests/unit/test_benchmarks.py",
    "tests/alerts",
    "tests/unit/test_examples.py",
    "tests/unit/outbound",
    "tests/unit/monitor",
    "tests/unit/telemetry",
)
"""Files and folders whose tests take longest, the longest first: at the end no worker waits for another."""
APART = ("tests/alerts/test_scenarios.py", "tests/stress/test_attacks.py")
"""Long files whose tests share nothing, and so can run in any worker."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests by file, after pytest-randomly has shuffled them."""
    items.sort(key=lambda item: place(item.path))


@cache
def place(file: Path) -> int:
    """Return the place of a file in the order."""
    inside = file.relative_to(ROOT)
    parents = {it.as_posix() for it in (inside, *inside.parents)}
    return next((number for number, first in enumerate(FIRST) if first in parents), len(FIRST))


class ByFile(LoadScopeScheduling):
    """All tests of a file run in one worker, because they share fixtures; those of `APART` run anywhere."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return nodeid if file in APART else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    """Return what divides the tests, in their order."""
    config.option.loadscopereorder = False
    return ByFile(config, log)
