"""The Python call stacks of another process, read by py-spy if it is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

SECONDS: Final = 5.0
LINES: Final = 60
BYTES: Final = 8_192


def find() -> str | None:
    """The path of py-spy: beside this Python, or in PATH."""
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.exists() else shutil.which("py-spy")


def dump(pid: int, program: str | None, timeout: float = SECONDS) -> str:
    """The stacks of all threads as `program` prints them, or why they can't be read. The process is not stopped."""
    if program is None:
        return 'its stack is not known; for that: pip install "otel-progress[stacks]"'
    try:
        done = subprocess.run(  # noqa: S603  # py-spy, with a pid
            [program, "dump", "--nonblocking", "--pid", str(pid)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"py-spy could not read its stack ({type(error).__name__})"
    if done.returncode != 0:
        why = done.stderr[-500:].decode("utf-8", "replace").strip().splitlines()
        return f"py-spy could not read its stack: {why[0] if why else done.returncode}"
    lines = done.stdout[:BYTES].decode("utf-8", "replace").rstrip().splitlines()
    return "\n".join([*lines[:LINES], *(["…"] if len(lines) > LINES else [])])


def tell(pid: int, say: Callable[[str], None]) -> None:
    """Read the stacks in a new thread, and pass them to `say`."""
    threading.Thread(target=lambda: say(dump(pid, find())), name="otel-progress-stack", daemon=True).start()
