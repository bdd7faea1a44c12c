"""Draw docs/stuck.svg: a real run of the program of README.md, which hangs and is found.

python -m tools.stuck_picture [PATH]      about 20 seconds; needs Linux, and no monitor on port 4318

The picture is animated with the pauses of the run. Viewers that do not animate show its last moment.
"""

from __future__ import annotations

import re
import shlex
import sys
import tempfile
import time
from collections import defaultdict
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

from tests.terminal.screens import Terminal
from tools.picture import BRIGHT, FONTS, NORMAL

ROOT: Final = Path(__file__).parents[1]
COMMAND: Final = "otel-progress run -f -- python agent.py"
COLUMNS, ROWS = 92, 9
SAMPLE: Final = 0.5
"""Seconds between two looks at the screen."""
STAYS: Final = 4.0
"""Seconds for which the last moment stays before the picture begins anew."""
CELL, LINE, SIZE, MARGIN, BAR = 8.4, 20, 14, 16, 34
NAMES: Final = ("black", "red", "green", "brown", "blue", "magenta", "cyan", "white")
COLOURS: Final = {
    **dict(zip(NAMES, NORMAL)),
    **{f"bright{name}": colour for name, colour in zip(NAMES, BRIGHT)},
    "default": "c9d1d9",
}


class Run(NamedTuple):
    """Characters side by side that look the same."""

    column: int
    text: str
    colour: str
    is_bold: bool


Row = tuple[Run, ...]
BOLD: Final = ' font-weight="bold"'


def program() -> str:
    """Return the program of README.md."""
    found = re.search(r"^```py\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    if found is None:
        raise SystemExit("README.md has no program in a fence `py`")
    return found[1]


def record() -> tuple[list[tuple[float, list[Row]]], float]:
    """Run the program until it is found to be stuck; return the screens with their times, and the length in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "agent.py").write_text(program(), encoding="utf-8")
        bin = Path(sys.executable).parent
        start = f"cd {folder} && PATH={shlex.quote(str(bin))}:$PATH && exec {COMMAND}"
        frames: list[tuple[float, list[Row]]] = []
        env = {"XDG_STATE_HOME": folder}
        with Terminal(program=["sh", "-c", start], columns=COLUMNS, lines=ROWS, env=env) as terminal:
            begin = time.monotonic()
            seen_at = None
            while seen_at is None or time.monotonic() - seen_at < 2:
                time.sleep(SAMPLE)
                now = time.monotonic() - begin
                with terminal.changed:
                    rows = [row(terminal.screen.buffer[at]) for at in range(ROWS)]
                    if seen_at is None and "STUCK" in terminal.text:
                        seen_at = time.monotonic()
                if any(rows) and (not frames or frames[-1][1] != rows):
                    frames.append((now, rows))
                if now > 120:
                    raise SystemExit(f"it was not found to be stuck within two minutes:\n{terminal.text}")
    begins = next(at for at, (_, rows) in enumerate(frames) if any("pages" in run.text for row in rows for run in row))
    first = frames[begins][0] - 1.0  # the start of Python is shortened to a second
    return [(at - first, rows) for at, rows in frames[begins:]], now - first + STAYS


def row(cells: defaultdict[int, object]) -> Row:
    """Return a line of the screen, without spaces at its end."""
    runs: list[Run] = []
    looks = [(at, cells[at]) for at in range(COLUMNS)]
    for (colour, bold), group in groupby(looks, key=lambda it: (it[1].fg, it[1].bold)):  # type: ignore[attr-defined]
        found = list(group)
        text = "".join(cell.data for _, cell in found)  # type: ignore[attr-defined]
        if text.strip():
            lead = len(text) - len(text.lstrip())
            runs.append(Run(found[0][0] + lead, text.strip(), COLOURS.get(colour, colour), bold))
    return tuple(runs)


def svg(frames: list[tuple[float, list[Row]]], length: float) -> str:
    """Return the picture: each line of each moment once, shown while it was on the screen."""
    shown: dict[tuple[int, Row], list[tuple[float, float]]] = defaultdict(list)
    for (begin, rows), (end, _) in zip(frames, [*frames[1:], (length, [])]):
        for at, line in enumerate(rows):
            if line:
                times = shown[at, line]
                if times and times[-1][1] == begin:
                    times[-1] = (times[-1][0], end)
                else:
                    times.append((begin, end))
    used = max(at for at, _ in shown) + 1
    width, height = COLUMNS * CELL + 2 * MARGIN, BAR + (used + 1) * LINE + MARGIN
    styles, lines = [], []
    for number, ((at, line), times) in enumerate(shown.items()):
        stops = [(begin, 1) for begin, _ in times] + [(end, 0) for _, end in times if end < length]
        steps = "".join(f"{100 * when / length:.2f}%{{opacity:{on}}}" for when, on in sorted(stops))
        lasts = times[-1][1] >= length
        styles.append(
            f"@keyframes k{number}{{0%{{opacity:0}}{steps}}}"
            f".l{number}{{opacity:{int(lasts)};animation:k{number} {length:.1f}s infinite step-end}}"
        )
        lines.append(f'<g class="l{number}">{drawn(at + 1, line)}</g>')
    prompt = drawn(0, (Run(0, "$", "3fb950", True), Run(2, COMMAND, "f0f6fc", False)))
    dots = "".join(
        f'<circle cx="{18 + 20 * at}" cy="17" r="6" fill="#{it}"/>'
        for at, it in enumerate(("ff5f57", "febc2e", "28c840"))
    )
    still = "@media (prefers-reduced-motion:reduce){g{animation:none!important}}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img">'
        "<title>A research agent hangs on page 12 of 40; after five seconds it is reported stuck, at its line</title>"
        f"<style>text{{font:{SIZE}px {FONTS};white-space:pre}}{''.join(styles)}{still}</style>"
        f'<rect width="{width:g}" height="{height:g}" rx="8" fill="#0d1117"/>{dots}{prompt}{"".join(lines)}</svg>\n'
    )


def drawn(at: int, line: Row) -> str:
    """Return a line as text, each run at its place and of its width in any font."""
    y = BAR + (at + 1) * LINE - 4
    return "".join(
        f'<text x="{MARGIN + run.column * CELL:.1f}" y="{y}" fill="#{run.colour}" '
        f'textLength="{len(run.text) * CELL:.1f}" lengthAdjust="spacingAndGlyphs"'
        f"{BOLD if run.is_bold else ''}>{escape(run.text, quote=False)}</text>"
        for run in line
    )


def main() -> None:
    """Write the picture."""
    path = Path(sys.argv[1]) if sys.argv[1:] else ROOT / "docs" / "stuck.svg"
    path.write_text(svg(*record()), encoding="utf-8")
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
