"""Fixtures for the tests of the alert rules."""

from __future__ import annotations

import os
import shutil

import pytest


@pytest.fixture(scope="session")
def promtool() -> str:
    """Return the path of promtool; skip without it, but fail in CI."""
    found = shutil.which("promtool")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("there is no promtool: `make stack` installs it")
        pytest.skip("there is no promtool: `make stack` installs it")
    return found
