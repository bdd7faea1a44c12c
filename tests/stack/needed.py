"""The programs that tests run: found, never built or installed. Without them a test is skipped, which in CI is a failure."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from . import build


def built(name: str) -> Path:
    """A program of `build.py`, or one that the environment names."""
    try:
        found = build.binary(name)
    except build.BuildError as error:
        pytest.fail(str(error))
    if found is None:
        pytest.skip(f"there is no {name}: `make stack` builds it")
    return found


def installed(*names: str) -> Path:
    """A program of the system, by the first of these names that is there."""
    for name in names:
        if found := shutil.which(name):
            return Path(found)
    pytest.skip(f"there is no {names[0]}: `make stack` installs it")
