"""Setting up the development environment reports each step, and why a step fails."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "environment.py"


@pytest.fixture
def environment() -> ModuleType:
    """The script."""
    found = importlib.util.spec_from_file_location("environment", SCRIPT)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_long_step_is_reported(environment: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """A step is reported when it begins, and repeatedly while it runs."""
    command = [sys.executable, "-c", "import time; time.sleep(0.3)"]
    assert environment.run("  2 of 3: packages", command, say_every=0.01) == 0
    first, *more = capsys.readouterr().out.splitlines()
    assert first == "  2 of 3: packages"
    assert more
    assert all(line.startswith("  2 of 3: packages, ") for line in more)


def test_what_pip_does_is_reported(environment: ModuleType) -> None:
    """The progress line says how many packages pip has found, and when it installs them."""
    lines = ["Collecting one\n", "Collecting two\n"]
    assert environment.doing([]) == ""
    assert environment.doing(lines) == "2 packages found, "
    assert environment.doing([*lines, "Installing collected packages: one, two\n"]) == "installing, "


def test_step_that_fails_shows_why(environment: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    """The output of a failing step is shown, and its exit code is returned."""
    assert environment.run("pip", [sys.executable, "-c", "import sys; print('no such package'); sys.exit(7)"]) == 7
    assert "no such package" in capfd.readouterr().err


def test_old_python_is_rejected(environment: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A Python that is too old is rejected before anything is created."""
    assert environment.main(tmp_path / "venv", oldest=(99, 0)) == 1
    assert "needs Python" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
