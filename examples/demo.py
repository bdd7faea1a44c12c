"""The demo of compose.yaml: repeated surveys, an agent, and a job that hangs, until it is stopped.

python examples/demo.py
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

EXAMPLES = Path(__file__).parent
COMMANDS = {
    "survey": [str(EXAMPLES / "survey.py"), "--forever", "--otlp", "--verbosity", "quiet"],
    "librarian": [__file__, "agent"],
    "importer": [str(EXAMPLES / "alerting" / "stuck.py")],
}
"""Service name to the arguments of its program."""


def answer_questions() -> None:
    """Run the example agent, one question after the other."""
    import agent

    import otel_progress as progress

    progress.configure()
    while True:
        asyncio.run(agent.answer_question("How did this library come to be?"))
        time.sleep(5)


def main() -> int:
    """Start all programs, and stop all when one ends or this one gets SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    running = [
        subprocess.Popen([sys.executable, *command], env={**os.environ, "OTEL_SERVICE_NAME": name})
        for name, command in COMMANDS.items()
    ]
    try:
        while all(process.poll() is None for process in running):
            time.sleep(1)
        return 1
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


if __name__ == "__main__":
    if sys.argv[1:] == ["agent"]:
        answer_questions()
    sys.exit(main())
