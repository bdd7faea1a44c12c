"""Draw docs/tutorial/stuck.png: the page of the monitor while the program of docs/tutorial.md hangs.

python -m tools.tutorial_picture [PATH]      needs playwright, pillow, and Chromium at /usr/bin/chromium
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Final

from playwright.sync_api import sync_playwright
from tests.terminal.real import Monitor
from tests.terminal.screens import Terminal
from tools.page_pictures import keep, opened

ROOT: Final = Path(__file__).parents[1]
SIZE: Final = {"width": 1100, "height": 760}


def main() -> None:
    """Take the picture."""
    path = Path(sys.argv[1]) if sys.argv[1:] else ROOT / "docs" / "tutorial" / "stuck.png"
    page = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    program = re.search(r"^```py\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    if program is None:
        raise SystemExit("docs/tutorial.md has no program in a fence `py`")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        (folder / "agent.py").write_text(program[1], encoding="utf-8")
        monitor = Monitor(folder)
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": monitor.url, "OTEL_PROGRESS_CONFIGURE": "true"}
        start = ["sh", "-c", f"cd {folder} && exec {sys.executable} agent.py"]
        try:
            with Terminal(program=start, env=env):
                browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
                seen = opened(browser, f"{monitor.url}/#/operations/research-1", SIZE, "light")
                seen.get_by_text("agent.py:").first.wait_for(timeout=90_000)
                seen.wait_for_timeout(3000)
                keep(seen, path)
                browser.close()
        finally:
            monitor.kill()


if __name__ == "__main__":
    main()
