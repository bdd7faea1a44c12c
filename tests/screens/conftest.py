"""The environment with Streamlit, Gradio and Jupyter, and programs that run in it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.browser.conftest import browser  # noqa: F401

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv" / "screens" / "bin" / "python"
PROGRAMS = Path(__file__).parent / "programs"
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false", "CI": "", "TERM": "dumb"}


@pytest.fixture(scope="session")
def python() -> Path:
    """Return the Python of that environment. CI requires it."""
    if not PYTHON.exists():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("run `make test-screens`, which sets it up")
    return PYTHON


@pytest.fixture(scope="session")
def ask(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Return a function that runs a program with JSON as its input, and returns its answer."""

    def asked(program: str, given: object = None) -> Any:
        answer = tmp_path_factory.mktemp("answer") / "answer.json"
        done = subprocess.run(
            [python, str(PROGRAMS / program), str(answer)],
            input=json.dumps(given),
            env={**os.environ, **QUIET},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(answer.read_text(encoding="utf-8"))

    return asked


@pytest.fixture
def serve(python: Path, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Return a function that starts an app on a free port, and returns its address when it answers."""
    with contextlib.ExitStack() as stack:

        def served(kind: str, app: Path, **variables: str) -> str:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = str(probe.getsockname()[1])
            streamlit = ["-m", "streamlit", "run", str(app), "--server.headless", "true", "--server.port", port]
            command = [*streamlit, "--server.address", "127.0.0.1"] if kind == "streamlit" else [str(app)]
            log = stack.enter_context((tmp_path / "server.log").open("w"))
            process = subprocess.Popen(
                [python, *command],
                env={**os.environ, **QUIET, "GRADIO_SERVER_PORT": port, **variables},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            wait_for(f"http://127.0.0.1:{port}/", process, tmp_path / "server.log")
            return f"http://127.0.0.1:{port}"

        yield served
    log = tmp_path / "server.log"
    assert not log.exists() or "Traceback" not in log.read_text(), log.read_text()


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
    """Wait until an address answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)
    pytest.fail(f"{address} does not answer: {log.read_text()}")
