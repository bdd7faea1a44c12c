"""Draw docs/terminal.svg: the console while examples/survey.py and examples/agent.py run.

python tools/picture.py [PATH]
"""

from __future__ import annotations

import asyncio
import io
import logging
import re
import sys
import sysconfig
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console as RichConsole
from rich.terminal_theme import TerminalTheme
from rich.text import Text

HERE = Path(__file__).parent.parent
sys.path.insert(0, str(HERE / "examples"))

import agent  # noqa: E402
import survey  # noqa: E402

from otel_progress.handlers.console import Console  # noqa: E402
from otel_progress.render.screen import Screen  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_progress.render.words import Line

WIDTH = 100
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace"
NORMAL = ["484f58", "ff7b72", "3fb950", "d29922", "58a6ff", "bc8cff", "39c5cf", "c9d1d9"]
BRIGHT = ["484f58", "ffa198", "56d364", "e3b341", "79c0ff", "d2a8ff", "56d4dd", "f0f6fc"]


def colour(given: str) -> tuple[int, int, int]:
    """Convert a hexadecimal colour for Rich."""
    red, green, blue = bytes.fromhex(given)
    return red, green, blue


THEME = TerminalTheme(colour("0d1117"), colour("c9d1d9"), list(map(colour, NORMAL)), list(map(colour, BRIGHT)))


def anywhere(line: Line) -> Line:
    """Return the line with the usual folder of Python's library instead of this machine's."""
    return tuple((text.replace(sysconfig.get_paths()["stdlib"], "/usr/lib/python3"), style) for text, style in line)


class Recorder(Screen):
    """A screen that records its output, and takes a picture at the first interesting moment."""

    def __init__(self) -> None:
        """Draw to a terminal in memory."""
        super().__init__(io.StringIO(), draws=True)
        self.rich.size = (WIDTH, 40)
        self.feed: list[Line] = []
        self.picture: Text | None = None
        self.taken = threading.Event()

    def print(self, lines: Sequence[Line]) -> None:
        """Record the lines above the tree."""
        self.feed.extend(lines)

    def draw(self, lines: list[Line], above: Sequence[Line] = ()) -> None:
        """Take the picture once something has failed and four running things have an estimate."""
        self.feed.extend(above)
        tree = self._text(lines).plain
        if (
            "failed" in self._text(self.feed).plain
            and tree.count(" left") + tree.count("almost done") >= 4
            and not self.taken.is_set()
        ):
            self.picture = self._text([anywhere(line) for line in (*self.feed, *lines)])
            self.taken.set()


def watch() -> Text:
    """Run both examples until the picture is taken."""
    console, screen = Console(live=True), Recorder()
    console.start()
    console._screen = screen  # noqa: SLF001 - the picture needs the screen of a console that runs
    agent.speed = 0.7
    report = Path(tempfile.mkdtemp()) / "survey.md"
    for work in (
        lambda: survey.survey(Path(sysconfig.get_paths()["stdlib"]), None, report),
        lambda: asyncio.run(agent.answer_question("How did this library come to be?")),
    ):
        threading.Thread(target=work, daemon=True).start()
        screen.taken.wait(0.5)
    if not screen.taken.wait(60) or screen.picture is None:
        raise SystemExit("no picture was taken within a minute")
    return screen.picture


def svg(picture: Text) -> str:
    """Return the picture as SVG with the reader's own fonts."""
    paper = RichConsole(width=WIDTH, record=True, file=io.StringIO(), force_terminal=True)
    paper.print(picture, no_wrap=True, crop=True)
    drawn = paper.export_svg(title="otel-progress", theme=THEME, unique_id="seen")
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r"font-family: [^;]*;", f"font-family: {FONTS};", drawn)
    drawn = drawn.replace("textLength=", 'lengthAdjust="spacingAndGlyphs" textLength=')
    return re.sub(r"<!--.*?-->\s*", "", drawn)


def main() -> None:
    """Write the picture; log messages of the interrupted examples are suppressed."""
    logging.disable()
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "docs" / "terminal.svg"
    path.write_text(svg(watch()), encoding="utf-8")


if __name__ == "__main__":
    main()
