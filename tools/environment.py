"""Sets up a virtual environment for development, and says how far it is: python tools/environment.py FOLDER."""

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
PIP = ("-m", "pip", "--disable-pip-version-check", "install", "--progress-bar", "off")


def main(folder: Path) -> int:
    """Make the environment; returns the exit code of what failed, or 0."""
    if sys.version_info < OLDEST:
        print(f"otel-progress needs Python 3.10 or newer, not {sys.version.split()[0]}", file=sys.stderr)
        return 1
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    print(f"setting up {folder}, once, about a minute:", flush=True)
    steps = (
        ("a virtual environment", [sys.executable, "-m", "venv", str(folder)]),
        ("what development needs", [str(python), *PIP, "-r", str(NEEDED)]),
        ("otel-progress itself", [str(python), *PIP, "--no-deps", "--editable", str(ROOT)]),
    )
    for number, (what, command) in enumerate(steps, 1):
        code = run(f"  {number} of {len(steps)}: {what}", command)
        if code:
            return code
    return 0


def run(what: str, command: list[str]) -> int:
    """Run a step, with a line every few seconds; what it wrote is shown where it fails."""
    print(what, flush=True)
    begin = time.monotonic()
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
        reader.start()
        while reader.is_alive():
            reader.join(SAY_EVERY)
            if reader.is_alive():
                print(f"{what}, {doing(lines)}{time.monotonic() - begin:.0f} s", flush=True)
        reader.join()
        code = process.wait()
    if code:
        sys.stderr.write("".join(lines))
    return code


def doing(lines: list[str]) -> str:
    """What pip is at, by the lines that it wrote."""
    if any(line.startswith("Installing collected packages") for line in lines):
        return "putting them in place, "
    found = sum(line.startswith("Collecting ") for line in lines)
    return f"{found} packages found, " if found else ""


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
