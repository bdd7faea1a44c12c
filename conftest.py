"""What holds for all tests: examples of README and docs are tests too, and settings from outside don't count."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import settings
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

settings.register_profile("otel-progress", deadline=None)  # no test asserts a time
settings.load_profile("otel-progress")


def _nothing_leaves(_: dict[str, Any]) -> None:
    """An example's configure() must not look for a Collector on this machine."""
    os.environ["OTEL_SDK_DISABLED"] = "true"


def _as_before(_: dict[str, Any]) -> None:
    os.environ.pop("OTEL_SDK_DISABLED", None)


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/*.md"],
    setup=_nothing_leaves,
    teardown=_as_before,
).pytest()


def pytest_configure() -> None:
    """Forget the telemetry settings of this shell; unless a test names a port, all goes to a closed one."""
    for name in [name for name in os.environ if name.startswith("OTEL_") and not name.endswith("_BINARY")]:
        del os.environ[name]
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:1"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a test that is skipped has failed: there all that tests need is installed."""
    return _without_skips((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a file of tests."""
    return _without_skips((yield))


def _without_skips(report: Any) -> Any:
    if os.environ.get("CI") == "true" and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr[-1]}"
    return report
