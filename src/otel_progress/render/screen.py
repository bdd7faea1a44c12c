"""A terminal screen made with Rich: lines that stay, and below them lines that are redrawn."""

from __future__ import annotations

import threading
from typing import IO, TYPE_CHECKING

from otel_progress.render.diversion import Diversion
from otel_progress.render.words import ASCII

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text

    from otel_progress.render.words import Line


class Screen:
    """Writes styled lines, without markup; signs that the encoding lacks are replaced by ASCII.

    Each frame is one write, so that neither a reader nor an interrupt sees half of it. The cursor is never hidden,
    because a killed process could not show it again.
    """

    def __init__(self, file: IO[str], *, draws: bool) -> None:
        """Create it; nothing is written yet."""
        from rich.console import Console

        self._draws = draws
        self.rich = Console(file=file, force_terminal=True if draws else None)
        self._encoding = self.rich.encoding or "ascii"
        self._diversion = Diversion(self._above, file)
        self._lock = threading.RLock()
        self._live = False
        self._drawn: list[Line] = []
        self._width = 0

    @property
    def room(self) -> int:
        """The rows for lines that are drawn."""
        return self.rich.height - 2

    def print(self, lines: Sequence[Line]) -> None:
        """Print lines that stay, above the drawn ones."""
        if lines:
            with self._lock:
                self._write(self._drawn, [self._text(lines)], soft=not self._draws)

    def draw(self, lines: list[Line], above: Sequence[Line] = ()) -> None:
        """Redraw the lines if they changed, and print lines that stay above them."""
        if not self._live:
            self.print(above)
        elif above or lines != self._drawn or self.rich.width != self._width:
            with self._lock:
                self._write(lines, [self._text(above)] if above else [])

    def put_up(self) -> None:
        """Start drawing; only while something runs, so that the terminal is the job's own otherwise."""
        if not self._live:
            self._live = True
            self._diversion.on()

    def take_down(self) -> None:
        """Erase what is drawn, and restore the terminal."""
        live, self._live = self._live, False
        if live:
            try:
                with self._lock:
                    self._write([])
                self.rich.show_cursor(True)
            finally:
                self._drawn = []
                self._diversion.off()

    def forget(self) -> None:
        """Reset in a forked child: what is drawn, and the lock, are the parent's."""
        self._lock = threading.RLock()
        self._live, self._drawn = False, []
        self._diversion.off(forked=True)

    def _above(self, lines: Sequence[str]) -> None:
        from rich.text import Text

        with self._lock:
            self._write(self._drawn, [Text.from_ansi(line) for line in lines], soft=True)

    def _write(self, drawn: list[Line], above: Sequence[Text] = (), *, soft: bool = False) -> None:
        """Erase what is drawn, print what stays, and draw."""
        with self.rich.capture() as held:
            self._erase()
            for text in above:
                self.rich.print(text, soft_wrap=soft)
            if drawn:
                self.rich.print(self._text(drawn, no_wrap=True), end="")
        told, width, file = held.get(), self.rich.width, self.rich.file
        self._drawn, self._width = drawn, width
        file.write(told)
        file.flush()

    def _erase(self) -> None:
        """Erase the drawn lines, and move the cursor to where the first one began."""
        from rich.control import Control
        from rich.segment import ControlType

        if self._drawn:
            erase: list[tuple[ControlType, int]] = [(ControlType.ERASE_IN_LINE, 2)]
            above = [(ControlType.CURSOR_UP, 1), *erase] * (self._rows(self._drawn) - 1)
            self.rich.control(Control(ControlType.CARRIAGE_RETURN, *erase, *above))

    def _rows(self, lines: Sequence[Line]) -> int:
        """The rows that the lines occupy: a terminal that was made narrower has wrapped longer ones."""
        from rich.cells import cell_len

        width = max(1, self.rich.width)
        if width >= self._width:
            return len(lines)
        return sum(max(1, -(-sum(cell_len(words) for words, _ in line) // width)) for line in lines)

    def _text(self, lines: Sequence[Line], *, no_wrap: bool = False) -> Text:
        from rich.text import Text

        text = Text(no_wrap=no_wrap, overflow="crop" if no_wrap else "fold", end="")
        for number, line in enumerate(lines):
            text.append("\n" if number else "")
            for words, style in line:
                text.append(self._encodable(words), style or None)
        return text

    def _encodable(self, words: str) -> str:
        if words.isascii() or self._encoding.lower().startswith("utf"):
            return words
        return words.translate(ASCII).encode(self._encoding, "replace").decode(self._encoding)
