"""A tree below the output of a command.

The command's output goes to the terminal unchanged, with its colours and cursor movements; the tree is erased before
and redrawn after it, in one write. What the command may still write over is shown above the tree, and is written when
it is settled: an unfinished line, such as a prompt or a progress bar, or the rows of several bars.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING

from otel_progress.render.command_output import CommandOutput, is_text, split
from otel_progress.render.screen import Screen
from otel_progress.render.words import Line

if TYPE_CHECKING:
    from rich.text import Text


class Overlay(Screen):
    """A screen shared with a command; any thread may give the command's output to `pass_on`."""

    def __init__(self, file: IO[str]) -> None:
        """Nothing is written yet."""
        super().__init__(file, draws=True)
        self._file = file
        self._output = CommandOutput()
        self._gone = False
        self._tree: list[Line] = []
        self._picture: tuple[list[Line], int, str] = ([], 0, "")

    def pass_on(self, data: bytes) -> None:
        """Write the command's output."""
        with self._lock:
            if not self._live:
                self._output.passed(data)
                self._put(data)
                return
            erase = self._output.adopted(*self.rich.size) + self._captured(self._erase).encode()
            whole = self._output.take(data, *self.rich.size)
            self._drawn = self._all()
            self._width = self.rich.width
            self._put(erase + whole + self._rendered(self._drawn).encode(self._encoding, "replace"))

    def draw(self, lines: list[Line], above: Sequence[Line] = ()) -> None:
        """Redraw the lines below the command's output."""
        with self._lock:
            self._tree = lines
            if self._live:
                self._put(self._output.adopted(*self.rich.size))
            super().draw(self._all(), above)

    def print(self, lines: Sequence[Line]) -> None:
        """Print lines that stay, above the drawn ones; below all of the command's, if nothing is drawn any more."""
        with self._lock:
            if not self._live:
                self._put(self._output.ended())
            super().print(lines)

    def take_down(self) -> None:
        """Erase what is drawn, and write what the command has not finished."""
        with self._lock:
            live = self._live
            super().take_down()
            if live:
                self._put(self._output.left())
            self._tree = []

    @property
    def room(self) -> int:
        """The rows for our own lines: the command's block has at most half of the terminal."""
        height = self.rich.height
        return max(height // 2, height - 1 - max(1, len(self._output.rows())))

    def _all(self) -> list[Line]:
        """What the command has not finished, its last rows if not all have room, and our own lines."""
        rows = self._output.rows()
        room = max(1, self.rich.height - 1 - len(self._tree))
        return [*(self._line(row) for row in rows[-room:]), *self._tree]

    def _line(self, row: str) -> Line:
        """A row with colours, cut to the width."""
        from rich.text import Text

        text = Text.from_ansi(row, no_wrap=True)
        text.truncate(max(1, self.rich.width))
        segments = text.render(self.rich, end="")
        return tuple((part.text, str(part.style) if part.style else "") for part in segments) or (("", ""),)

    def _write(self, drawn: list[Line], above: Sequence[Text] = (), *, soft: bool = False) -> None:
        if above:
            self._output.parted()

        def all_of_it() -> None:
            self._erase()
            for text in above:
                self.rich.print(text, soft_wrap=soft)

        told = self._captured(all_of_it) + self._rendered(drawn)
        self._drawn, self._width = drawn, self.rich.width
        self._put(told.encode(self._encoding, "replace"))

    def _rendered(self, drawn: list[Line]) -> str:
        """The drawn lines as text; cached, because the output above them changes more often."""
        known, width, picture = self._picture
        if known != drawn or width != self.rich.width:
            picture = self._captured(lambda: self.rich.print(self._text(drawn, no_wrap=True), end="")) if drawn else ""
            self._picture = (drawn, self.rich.width, picture)
        return picture

    def _captured(self, act: Callable[[], None]) -> str:
        with self.rich.capture() as held:
            act()
        return held.get()

    def _put(self, data: bytes) -> None:
        """Write all of it, unless the terminal is gone."""
        try:
            if not self._gone:
                self._file.flush()
                write_all(self._file.fileno(), data)
        except (OSError, ValueError):
            self._gone = True


class PlainOverlay(Screen):
    """The same on a terminal that can't be redrawn: our lines stay, and each begins on a new line."""

    def __init__(self, file: IO[str]) -> None:
        """Nothing is written yet."""
        super().__init__(file, draws=False)
        self._file = file
        self._pending = b""

    def pass_on(self, data: bytes) -> None:
        """Write the command's output."""
        with self._lock:
            self._pending = split(self._pending + data)[1]
            with suppress(OSError, ValueError):  # the terminal may be gone
                write_all(self._file.fileno(), data)

    def print(self, lines: Sequence[Line]) -> None:
        """Print lines that stay, after ending the command's unfinished line."""
        with self._lock:
            if lines:
                self._end_line()
            super().print(lines)

    def take_down(self) -> None:
        """End the command's unfinished line."""
        with self._lock:
            self._end_line()

    def _end_line(self) -> None:
        rest, self._pending = self._pending, b""
        if is_text(rest):
            self._file.write("\n")
            self._file.flush()


def write_all(file: int, data: bytes) -> None:
    """Write all of it, even if the file was made non-blocking.

    Raises:
        OSError: if it can't be written.
    """
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(file, rest) :]
        except BlockingIOError:
            select.select([], [file], [])
