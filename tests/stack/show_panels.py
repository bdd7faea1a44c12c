"""`python -m tests.stack.show_panels` prints what differs from the texts in `panels/shown/`; with `--update` it writes them anew."""

from __future__ import annotations

import difflib
import sys
import tempfile
from pathlib import Path

from . import build
from .backends import Prometheus
from .panel_screens import SCREENS, show, tell


def main(arguments: list[str]) -> int:
    """Compare or update; the exit code is 1 if something differs."""
    with tempfile.TemporaryDirectory() as folder, Prometheus(build.build("prometheus"), Path(folder)) as prometheus:
        build.build(build.PANELS)
        tell(prometheus)
        shown = show(prometheus)
    code = 0
    for screen in SCREENS:
        before = screen.file.read_text(encoding="utf-8") if screen.file.exists() else ""
        if "--update" in arguments:
            screen.file.write_text(shown[screen.name], encoding="utf-8")
        elif before != shown[screen.name]:
            code = 1
            texts = (before.splitlines(), shown[screen.name].splitlines())
            names = (f"{screen.name} (kept)", f"{screen.name} (shown now)")
            print("\n".join(difflib.unified_diff(*texts, *names, lineterm="")))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
