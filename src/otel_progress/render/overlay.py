"""A tree below the output of a command.

The command's output goes to the terminal unchanged, with its colours and cursor movements; the tree is erased before
and redrawn after it, in one write. An unfinished line, such as a prompt or the command's own progress bar, is shown
above the tree, and is written when it ends.
"""

from __future__ import annotations

import os
import re
import select
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Final

from otel_progress.render.screen import Screen
from otel_progress.render.words import Line

if TYPE_CHECKING:
    from rich.text import Text

PENDING: Final = 65_536
"""The most bytes of an unfinished line; a longer one is broken."""
_LEAVES: Final = r"\x1b(?:\[[0-9;?]*[ABEFHJLMSTdfrsu]|[78DMEc])"
"""Sequences that move the cursor to another line, or change the whole terminal."""
_MOVES: Final = re.compile(_LEAVES.encode())
_MOVES_OF_TEXT: Final = re.compile(_LEAVES)
_STRINGS: Final = re.compile(rb"\x1b[\]P^_X][^\x07\x1b]*(?:\x07|\x1b\\)?")
"""Titles, links and the like, which show no text."""
_PARTS: Final = re.compile(
    r"(?P<text>[^\x00-\x1f\x7f]+)|\x1b\[(?P<many>[0-9;:?]*)(?P<code>[^0-9;:?])?|\x1b[^\[]?|[\x00-\x1f\x7f]"
)
_CONTROL: Final = re.compile(r"\x1b\[[0-9;:]*m")
_COLOURS: Final = re.compile(rb"\x1b\[([0-9;:]*)m")
_RESET: Final = b"\x1b[0m"
_SEEN: Final = 4_096
"""The bytes at the end of the output that are searched for colours."""


class Overlay(Screen):
    """A screen shared with a command; any thread may give the command's output to `pass_on`."""

    def __init__(self, file: IO[str]) -> None:
        """Nothing is written yet."""
        super().__init__(file, draws=True)
        self._file = file
        self._pending = b""
        self._colours = b""
        self._begun = False
        """Whether the terminal shows the unfinished line already, at the cursor."""
        self._gone = False
        self._tree: list[Line] = []
        self._picture: tuple[list[Line], int, str] = ([], 0, "")

    def pass_on(self, data: bytes) -> None:
        """Write the command's output."""
        with self._lock:
            whole, self._pending = split(self._pending + data)
            if not self._live:
                self._begun = bool(self._pending)
                self._put(data)
                return
            erase = self._captured(self._erase)
            self._drawn = self._with_pending()
            self._width = self.rich.width
            back = self._colours if whole else b""
            self._colours = colours_after(self._colours, whole)
            end = _RESET if self._colours else b""
            picture = self._rendered(self._drawn).encode(self._encoding, "replace")
            self._put(erase.encode() + back + whole + end + picture)

    def draw(self, lines: list[Line], above: Sequence[Line] = ()) -> None:
        """Redraw the lines below the command's output."""
        with self._lock:
            self._tree = lines
            if self._live and self._begun:
                self._begun = False
                self._put(b"\r\x1b[2K")
            super().draw(self._with_pending(), above)

    def take_down(self) -> None:
        """Erase what is drawn, and write the command's unfinished line."""
        with self._lock:
            live, rest = self._live, self._pending
            super().take_down()
            if live and rest:
                end = b"\n" if is_text(rest) else b""
                self._put(self._colours + rest + _RESET + end)
            self._colours = b""
            self._tree = []

    def _with_pending(self) -> list[Line]:
        if not self._pending:
            return list(self._tree)
        return [self._line(self._pending), *self._tree]

    def _line(self, pending: bytes) -> Line:
        """The unfinished line as it looks on a terminal, cut to the width."""
        from rich.text import Text

        text = Text.from_ansi(shown(self._colours + pending), no_wrap=True)
        text.truncate(max(1, self.rich.width - 1))
        segments = text.render(self.rich, end="")
        return tuple((part.text, str(part.style) if part.style else "") for part in segments) or (("", ""),)

    def _write(self, drawn: list[Line], above: Sequence[Text] = (), *, soft: bool = False) -> None:
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


def split(data: bytes) -> tuple[bytes, bytes]:
    """Split output into whole lines and the unfinished one, without text that was overwritten."""
    cut = data.rfind(b"\n") + 1
    whole, rest = data[:cut], data[cut:]
    again = rest.rstrip(b"\r").rfind(b"\r")
    if again > 0 and not _MOVES.search(rest, 0, again):
        rest = rest[again:]
    return (whole, rest) if len(rest) <= PENDING else (whole + rest + b"\r\n", b"")


def shown(pending: bytes) -> str:
    """What a terminal shows of an unfinished line, with colours; of several lines, the first with any text."""
    text = _STRINGS.sub(b"", pending).decode("utf-8", "replace")
    lines = (_cells(part[-_SEEN:]) for part in _MOVES_OF_TEXT.split(text))
    return next((line for line in lines if _CONTROL.sub("", line).strip()), "")


def is_text(pending: bytes) -> bool:
    """Whether a terminal shows any text of an unfinished line."""
    return bool(_CONTROL.sub("", shown(pending)).strip())


def _cells(text: str) -> str:
    """A line as a terminal shows it, after overwriting and erasing."""
    cells: list[str] = []
    at, colour = 0, ""
    for part in _PARTS.finditer(text.expandtabs()):
        sign = part[0]
        if part["text"]:
            cells += [" "] * (at - len(cells))
            cells[at : at + len(sign)] = (colour + one for one in sign)
            at += len(sign)
        elif sign == "\r":
            at = 0
        elif sign == "\b":
            at = max(0, at - 1)
        elif part["code"] == "m":
            colour = sign if part["many"].strip("0;:") == "" else colour + sign
        elif part["code"] == "K":
            del cells[0 if part["many"] == "2" else at :]
        elif part["code"] in ("C", "D", "G"):
            many = int(part["many"]) if part["many"].isdecimal() else 1
            at = min(_SEEN, max(0, {"C": at + many, "D": at - many, "G": many - 1}[part["code"]]))
    return "\x1b[0m".join(cells)


def colours_after(before: bytes, data: bytes) -> bytes:
    """The colours in effect after the data: those since the last reset."""
    found = before
    for colour in _COLOURS.finditer(data[-_SEEN:]):
        found = b"" if colour[1].strip(b"0;:") == b"" else (found + colour[0])[-_SEEN // 8 :]
    return found
