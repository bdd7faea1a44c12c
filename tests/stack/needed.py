"""Finds the programs that tests run, without building or installing them. A missing one skips the test, and fails in CI."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from . import build


def built(name: str) -> Path:
    """Return a program of `build.py`, or one that the environment names."""
    try:
        found = build.binary(name)
    except build.BuildError as error:
        pytest.fail(str(error))
    if found is None:
        pytest.skip(f"there is no {name}: `make stack` builds it")
    return found


def installed(*names: str) -> Path:
    """Return a program of the system: the first of these names that exists."""
    for name in names:
        if found := shutil.which(name):
            return Path(found)
    pytest.skip(f"there is no {names[0]}: `make stack` installs it")
