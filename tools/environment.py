"""Set up a virtual environment for development, and report progress: python tools/environment.py FOLDER."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEEDED = ROOT / "requirements-dev.txt"
OLDEST = (3, 10)
SAY_EVERY = 5.0
"""Seconds between two progress lines."""
PIP = ("-m", "pip", "--disable-pip-version-check", "install", "--progress-bar", "off")


def main(folder: Path, *, oldest: tuple[int, int] = OLDEST) -> int:
    """Set up the environment; return the exit code of the step that failed, or 0."""
    if sys.version_info < oldest:
        print(
            f"otel-progress needs Python {oldest[0]}.{oldest[1]} or newer, not {sys.version.split()[0]}",
            file=sys.stderr,
        )
        return 1
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    print(f"setting up {folder}; this happens once and takes about a minute:", flush=True)
    steps = (
        ("a virtual environment", [sys.executable, "-m", "venv", str(folder)]),
        ("packages for development", [str(python), *PIP, "-r", str(NEEDED)]),
        ("otel-progress itself", [str(python), *PIP, "--no-deps", "--editable", str(ROOT)]),
    )
    for number, (what, command) in enumerate(steps, 1):
        code = run(f"  {number} of {len(steps)}: {what}", command)
        if code:
            return code
    return 0


def run(what: str, command: list[str], *, say_every: float = SAY_EVERY) -> int:
    """Run a step with a progress line every few seconds; its output is shown if it fails."""
    print(what, flush=True)
    begin = time.monotonic()
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
        reader.start()
        while reader.is_alive():
            reader.join(say_every)
            if reader.is_alive():
                print(f"{what}, {doing(lines)}{time.monotonic() - begin:.0f} s", flush=True)
        reader.join()
        code = process.wait()
    if code:
        sys.stderr.write("".join(lines))
    return code


def doing(lines: list[str]) -> str:
    """Return what pip is doing, by its output so far."""
    if any(line.startswith("Installing collected packages") for line in lines):
        return "installing, "
    found = sum(line.startswith("Collecting ") for line in lines)
    return f"{found} packages found, " if found else ""


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
