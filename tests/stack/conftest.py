"""Fixtures of the tests against a real Collector."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from . import build
from .collector import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
