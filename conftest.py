"""Common test set-up: the examples of README and docs run as tests, and outside settings are ignored."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import settings
from opentelemetry.context import Context, attach
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

# No test asserts a time. A build draws the same examples each time, so that it fails by what was changed; machines of
# developers look for new ones.
settings.register_profile("otel-progress", deadline=None, derandomize=os.environ.get("CI") == "true")
settings.load_profile("otel-progress")


def _nothing_leaves(names: dict[str, Any]) -> None:
    """Keep an example's configure() from looking for a Collector on this machine, and its files out of our folder."""
    os.environ["OTEL_SDK_DISABLED"] = "true"
    names["_before"], names["_folder"] = os.getcwd(), tempfile.TemporaryDirectory()
    os.chdir(names["_folder"].name)


def _as_before(names: dict[str, Any]) -> None:
    import otel_progress

    gc.collect()
    otel_progress.shutdown(0.1)  # no operation and no handler of one document is seen by the next one
    os.environ.pop("OTEL_SDK_DISABLED", None)
    os.chdir(names["_before"])
    names["_folder"].cleanup()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/how-to/*.md"],
    setup=_nothing_leaves,
    teardown=_as_before,
).pytest()


def pytest_configure() -> None:
    """Remove the telemetry settings of this shell. Unless a test names a port, all data goes to a closed one."""
    for name in [name for name in os.environ if name.startswith("OTEL_") and not name.endswith("_BINARY")]:
        del os.environ[name]
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:1"


def pytest_runtest_setup() -> None:
    """Begin outside of all spans, also if an earlier test left one open."""
    attach(Context())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn skipped tests into failures in CI, where everything that tests need is installed."""
    return _without_skips((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Do the same for skipped files."""
    return _without_skips((yield))


def _without_skips(report: Any) -> Any:
    if os.environ.get("CI") == "true" and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr[-1]}"
    return report
