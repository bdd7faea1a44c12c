"""Rich on one file: lines that stay, and below them lines that are drawn anew."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from otel_progress.handlers.diversion import Diversion
from otel_progress.handlers.words import ASCII

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.text import Text

    from otel_progress.handlers.words import Line


class Screen:
    """Writes lines with their styles, and no markup; what the encoding can't say is said in ASCII.

    The cursor is never hidden, as a process that is killed could not give it back.
    """

    def __init__(self, file: IO[str], *, draws: bool) -> None:
        """Nothing is written yet."""
        self._draws = draws
        self.rich = _console(file, draws=draws)
        self._encoding = self.rich.encoding or "ascii"
        self._diversion = Diversion(self._above, file)
        self._live = False
        self._drawn: list[Line] = []
        self._width = 0

    def print(self, lines: Sequence[Line]) -> None:
        """Lines that stay, above those that are drawn."""
        if lines:
            with self.rich:
                drawn = self._erase()
                self.rich.print(self._text(lines), soft_wrap=not self._draws)
                self._put(drawn)

    def draw(self, lines: list[Line]) -> None:
        """Lines in the place of those before, as far as they are new."""
        if self._live and (lines != self._drawn or self.rich.width != self._width):
            with self.rich:
                self._erase()
                self._put(lines)

    def put_up(self) -> None:
        """Begin to draw; only while something runs, so that the terminal is the job's own for the rest."""
        if not self._live:
            self._live = True
            self._diversion.on()

    def take_down(self) -> None:
        """Take away what is drawn, and give the terminal back."""
        live, self._live = self._live, False
        if live:
            try:
                with self.rich:
                    self._erase()
                    self.rich.show_cursor(True)
            finally:
                self._drawn = []
                self._diversion.off()

    def forget(self) -> None:
        """In a forked child: what is drawn is the parent's."""
        self._live, self._drawn = False, []
        self._diversion.off(forked=True)

    def _above(self, lines: Sequence[str]) -> None:
        from rich.text import Text

        with self.rich:
            drawn = self._erase()
            for line in lines:
                self.rich.print(Text.from_ansi(line), soft_wrap=True)
            self._put(drawn)

    def _erase(self) -> list[Line]:
        """Take away what is drawn; the cursor stands where its first line was. Returns it."""
        from rich.control import Control
        from rich.segment import ControlType

        drawn, self._drawn = self._drawn, []
        if drawn:
            erase: list[tuple[ControlType, int]] = [(ControlType.ERASE_IN_LINE, 2)]
            above = [(ControlType.CURSOR_UP, 1), *erase] * (self._rows(drawn) - 1)
            self.rich.control(Control(ControlType.CARRIAGE_RETURN, *erase, *above))
        return drawn

    def _rows(self, lines: Sequence[Line]) -> int:
        """How many rows they take by now: a terminal that got narrower has broken the longer ones."""
        from rich.cells import cell_len

        width = max(1, self.rich.width)
        if width >= self._width:
            return len(lines)
        return sum(max(1, -(-sum(cell_len(words) for words, _ in line) // width)) for line in lines)

    def _put(self, lines: list[Line]) -> None:
        if lines:
            self.rich.print(self._text(lines, no_wrap=True), end="", crop=True)
        self._drawn, self._width = lines, self.rich.width

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


def _console(file: IO[str], *, draws: bool) -> Console:
    """A console that tells of a pipe that nobody reads; Rich itself would end the process, and take its stdout."""
    from rich.console import Console

    class Told(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Told(file=file, force_terminal=True if draws else None)
