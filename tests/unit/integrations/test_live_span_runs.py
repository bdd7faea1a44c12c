"""Programs without a line of ours, as processes: below `otel-progress run` and `opentelemetry-instrument`."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """\
import os, sys, time
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

if "own" in sys.argv:
    trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("app")

def tool():
    with tracer.start_as_current_span("execute_tool search", attributes={"gen_ai.operation.name": "execute_tool"}):
        while not os.path.exists(sys.argv[1]):
            time.sleep(0.05)

with tracer.start_as_current_span("invoke_agent writer", attributes={"gen_ai.operation.name": "invoke_agent"}):
    tool()
"""
NONE = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
SCRIPTS = Path(sys.executable).parent


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ([sys.executable, "-m", "otel_progress", "run", "-f", "--", sys.executable], {}),
        ([str(SCRIPTS / "opentelemetry-instrument"), sys.executable], {**NONE, "OTEL_PROGRESS_HANDLERS": "console"}),
    ],
    ids=["run", "opentelemetry-instrument"],
)
def test_a_tool_that_hangs_is_told_with_its_line(tmp_path: Path, command: list[str], more: dict[str, str]) -> None:
    """The operation is shown while it runs, its stall with the line, and its end once it goes on."""
    program, go_on = tmp_path / "prog.py", tmp_path / "go_on"
    program.write_text(PROGRAM, encoding="utf-8")
    own = ["own"] if "run" in command else []
    with subprocess.Popen(
        [*command, str(program), str(go_on), *own],
        env={**os.environ, "OTEL_PROGRESS_STALL_AFTER": "1", "PYTHONUTF8": "1", **more},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    ) as process:
        watchdog = threading.Timer(150, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line)
                if "STUCK" in line:
                    go_on.touch()
        finally:
            watchdog.cancel()
    text = "".join(said)
    assert "in tool" in next((line for line in said if "STUCK" in line), text)
    assert "✓ invoke_agent writer" in text
    assert process.returncode == 0


def test_the_example_runs(tmp_path: Path) -> None:
    """The example works without us, too."""
    found = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "integrations" / "plain_spans.py")],
        env={**os.environ, "HANG": "0", "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert found.stdout == "SEARCH AND WEATHER\n"
