"""The examples of integrations, below `otel-progress run`, as a reader starts them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tests.frameworks.conftest import QUIET, ROOT

EXAMPLES = ROOT / "examples" / "integrations"


@pytest.mark.parametrize(
    ("name", "line"), [("langgraph_agent.py", "in weather"), ("openai_agents_tools.py", "in weather")]
)
def test_example(python: Path, tmp_path: Path, name: str, line: str) -> None:
    """The tool that hangs is reported while it does, with its line; the program itself has no line of ours."""
    program = EXAMPLES / name
    assert "otel_progress" not in program.read_text(encoding="utf-8")
    environment = {**os.environ, **QUIET, "OTEL_PROGRESS_STALL_AFTER": "1", "HOME": str(tmp_path)}
    del environment["OTEL_EXPORTER_OTLP_ENDPOINT"]
    done = subprocess.run(
        [python, "-m", "otel_progress", "run", "-f", "--", python, program, "--seconds", "6"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "It is sunny." in said
    assert "Traceback" not in said
    stuck = [text for text in said.splitlines() if "STUCK" in text]
    assert stuck, said
    assert line in stuck[0]
    assert "guide" in stuck[0]
