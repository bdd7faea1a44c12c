"""Rich on one file: lines that stay, and below them lines that are drawn anew."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from otel_progress.handlers.diversion import Diversion
from otel_progress.handlers.words import ASCII

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.live import Live
    from rich.text import Text

    from otel_progress.handlers.words import Line


class Screen:
    """Writes lines with their styles, and no markup; what the encoding can't say is said in ASCII."""

    def __init__(self, file: IO[str], *, draws: bool) -> None:
        """Nothing is written yet."""
        from rich.console import Console

        self._draws = draws
        self.rich = Console(file=file, force_terminal=True if draws else None)
        self._encoding = self.rich.encoding or "ascii"
        self._diversion = Diversion(self._above, file)
        self._live: Live | None = None
        self._drawn: list[Line] = []

    def print(self, lines: Sequence[Line]) -> None:
        """Lines that stay."""
        if lines:
            self.rich.print(self._text(lines), soft_wrap=not self._draws)

    def draw(self, lines: list[Line]) -> None:
        """Lines in the place of those before, as far as they are new."""
        if self._live is not None and lines != self._drawn:
            self._drawn = lines
            self._live.update(self._text(lines, no_wrap=True), refresh=True)

    def put_up(self) -> None:
        """Begin to draw; only while something runs, so that the terminal is the job's own for the rest."""
        from rich.live import Live

        if self._live is None:
            self._live = Live(
                console=self.rich, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
            # A process that is killed can't give a hidden cursor back.
            self.rich.show_cursor(True)
            self._diversion.on()

    def take_down(self) -> None:
        """Take away what is drawn, and give the terminal back."""
        live, self._live = self._live, None
        self._drawn = []
        if live is not None:
            try:
                live.update(self._text([]))
                live.stop()
            finally:
                self._diversion.off()

    def forget(self) -> None:
        """In a forked child: what is drawn is the parent's."""
        self._live = None
        self._diversion.off(forked=True)

    def _above(self, lines: Sequence[str]) -> None:
        from rich.text import Text

        for line in lines:
            self.rich.print(Text.from_ansi(line), soft_wrap=True)

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
