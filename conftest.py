"""Runs the Python examples of the README and the docs as tests."""

from __future__ import annotations

import os
from typing import Any

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
