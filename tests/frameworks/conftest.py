"""The environment with agent frameworks, and programs that run in it as their users would write them.

A program is a function without a line of ours. A worker, one process for each file of tests, imports the framework once, runs
programs under the fake clock, and answers what was seen of them.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv" / "frameworks" / "bin" / "python"
PROGRAMS = Path(__file__).parent / "programs"
QUIET = {
    "OPENAI_API_KEY": "none",
    "OPENAI_AGENTS_DISABLE_TRACING": "",
    "LANGSMITH_TRACING": "false",
    "PYTHONPATH": "",
    "PYTHONUNBUFFERED": "1",
}


class Worker:
    """A process that runs programs of one file."""

    def __init__(self, python: Path, programs: str) -> None:
        self._process = subprocess.Popen(
            [python, str(PROGRAMS / "worker.py"), programs],
            env={**os.environ, **QUIET},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(
        self,
        program: str,
        *,
        until: str = "",
        advance: float = 0.0,
        cancel: str = "",
        also: str = "",
        limit: float | None = None,
        **given: Any,
    ) -> Seen:
        """Run a program; look at it when it is over, or `advance` seconds after it hangs in the stage `until`, or anywhere (`*`).

        `cancel` asks it to stop then: as a program that is `configured`, or as one `alone`, without a line of ours.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([program, until, advance, cancel, also, limit, given]) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("ANSWER "):
                return Seen(json.loads(line.removeprefix("ANSWER ")))
        pytest.fail(f"the worker ended while it ran {program}; its stderr is above")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


class Seen:
    """What was seen of a program."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.result = answer["result"]
        self.error: str | None = answer["error"]
        self.operations: list[dict[str, Any]] = answer["operations"]
        self.events: list[list[str]] = answer["events"]
        self.warnings: list[str] = answer["warnings"]

    @property
    def operation(self) -> dict[str, Any]:
        """The only operation."""
        assert len(self.operations) == 1, [(each["name"], each["status"]) for each in self.operations]
        return self.operations[0]

    @property
    def stages(self) -> list[tuple[str, str]]:
        """Paths and states of the stages of the only operation, in the order in which they started."""
        return [(each["path"], each["status"]) for each in self.operation["stages"]]

    def stage(self, path: str) -> dict[str, Any]:
        """The only stage of that path."""
        found = [each for one in self.operations for each in one["stages"] if each["path"] == path]
        assert len(found) == 1, [(each["path"], each["status"]) for one in self.operations for each in one["stages"]]
        return found[0]


Ask = Callable[..., Seen]


def healthy(seen: Seen) -> Seen:
    """Check that a program ended as it would without us, and that we logged nothing."""
    assert seen.error is None
    assert seen.warnings == []
    return seen


@pytest.fixture(scope="session")
def python() -> Path:
    """Return the Python of that environment. CI requires it."""
    if not PYTHON.exists():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("run `make test-frameworks`, which sets it up")
    return PYTHON


@pytest.fixture(scope="module")
def ask(python: Path, request: pytest.FixtureRequest) -> Iterator[Ask]:
    """Return a function that runs a program of the file `PROGRAMS`, and returns what was seen of it."""
    worker = Worker(python, request.module.PROGRAMS)
    yield worker
    worker.stop()
