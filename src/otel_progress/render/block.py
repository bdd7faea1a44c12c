"""The last rows of a command's output, as a terminal shows them.

A small terminal emulator for displays of several rows, such as bars of tqdm at several positions. It knows text,
colours, erasing, and cursor movements relative to the current row.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

_PARTS: Final = re.compile(
    r"(?P<text>[^\x00-\x1f\x7f]+)"
    r"|\x1b\[(?P<given>[0-?]*)[ -/]*(?P<code>[@-~])"
    r"|(?P<string>\x1b[\]P^_X][^\x07\x1b]*(?:\x07|\x1b\\))"
    r"|(?P<cut>\x1b(?:\[[0-?]*[ -/]*|[\]P^_X][^\x07\x1b]*\x1b?|[ -/]*)\Z)"
    r"|(?P<escape>\x1b[ -/]*[0-~])"
    r"|(?P<control>[\x00-\x1f\x7f])"
)
_ABSOLUTE: Final = frozenset("HLMSTdfrsu")
_ESCAPES: Final = frozenset("78DMEc")
_ALTERNATE: Final = frozenset(("?47", "?1047", "?1049"))
_HELD: Final = 4_096
"""The most characters of a sequence whose end is awaited."""
_ACCENTS: Final = 8
"""The most characters of one sign; with more accents it is no text."""
_COLOURS: Final = 256
"""The most characters of colours that hold together."""

Cell = tuple[str, str]
"""The colours, as escape sequences, and the sign; empty for the second half of a wide one."""
BLANK: Final[Cell] = ("", " ")


class Block:
    """Rows, the cursor, and how far up the command has moved it from the last row."""

    def __init__(self, width: int, height: int) -> None:
        """Start with an empty row; the size is the terminal's, in columns and rows."""
        self.width, self.height = max(2, width), max(2, height)
        self.rows: list[list[Cell]] = [[]]
        self.row = self.column = 0
        self.colour = ""
        self.first = 0
        """The first row that is not settled; the rows before it stand on the terminal for good."""
        self.reach = 0
        """The most rows from the last one up to the cursor."""
        self.back = 0
        """Settled rows that the command moved into, since `settled` was called."""
        self.near = 0
        """Settled rows that stand directly above the others, without lines of ours in between."""
        self.since_up = 0
        """Rows that were settled since the cursor moved up."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._cut = ""

    # -- what the command writes

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Take output; returns sequences for the terminal itself, and the rest from one on that is not known here."""
        text = self._cut + self._decoder.decode(data)
        self._cut = ""
        other = ""
        for part in _PARTS.finditer(text):
            sign = part[0]
            if part["text"]:
                self._write(sign)
            elif part["code"]:
                given, code = part["given"], part["code"]
                if code in _ABSOLUTE or given in _ALTERNATE or (code == "J" and given.strip("0")):
                    return encoded(other), encoded(text[part.start() :])
                if given[:1] in ("<", "=", ">", "?") or code not in "ABCDEFGJKm@PX":
                    other += sign
                else:
                    self._control(code, given)
            elif part["cut"]:
                self._cut = sign if len(sign) <= _HELD else ""
            elif part["string"]:
                other += "" if sign.startswith("\x1b]8;") else sign  # a link would go on in our own lines
            elif part["escape"]:
                if sign[1:] in _ESCAPES:
                    return encoded(other), encoded(text[part.start() :])
                other += sign
            else:
                self._sign(sign)
        return encoded(other), None

    def _sign(self, sign: str) -> None:
        if sign == "\n":
            self._next_row()
        elif sign == "\r":
            self.column = 0
        elif sign == "\b":
            self.column = max(0, self._at - 1)
        elif sign == "\t":
            self.column = min(self.width - 1, self.column // 8 * 8 + 8)

    def _control(self, code: str, given: str) -> None:
        number = int(given) if given.isdecimal() else 0
        many, cells, at = min(_HELD, max(1, number)), self.rows[self.row], self._at
        if code == "m":
            self._coloured(given)
        elif code == "K":
            if number == 1:
                cells[: at + 1] = [BLANK] * min(at + 1, len(cells))
            else:
                del cells[0 if number else at :]
        elif code == "J":
            del cells[at:]
            self.rows[self.row + 1 :] = [[] for _ in self.rows[self.row + 1 :]]
        elif code in "AF":
            self._up(many)
            self.column = at if code == "A" else 0
        elif code in "BE":
            self.row = min(len(self.rows) - 1, self.row + many)
            self.column = at if code == "B" else 0
        elif code in "CDG":
            self.column = min(self.width - 1, max(0, {"C": at + many, "D": at - many, "G": many - 1}[code]))

    @property
    def _at(self) -> int:
        """The column of the cursor; after the last one it stays there until more is written."""
        return min(self.column, self.width - 1)

    def _coloured(self, given: str) -> None:
        sign = f"\x1b[{given}m"
        if not given.strip("0;:"):
            self.colour = ""
        elif given.startswith("0;") or len(self.colour) + len(sign) > _COLOURS:
            self.colour = sign
        else:
            self.colour += sign

    def _next_row(self) -> None:
        self.row, self.column = self.row + 1, 0
        if self.row == len(self.rows):
            self.rows.append([])

    def _up(self, many: int) -> None:
        last = len(self.rows) - 1
        row = min(self.row, max(self.row - many, last - self.height + 1))
        if row < 0:
            self.rows[:0] = [[] for _ in range(-row)]
            self.first, last, row = self.first - row, last - row, 0
        self.row = row
        self.back += max(0, self.first - row)
        self.first = min(self.first, row)
        self.reach = max(self.reach, last - row)
        self.since_up = 0

    def _write(self, text: str) -> None:
        if text.isascii():
            while text:
                if self.column >= self.width:
                    self._next_row()
                room = self.width - self.column
                self._put([(self.colour, sign) for sign in text[:room]])
                text = text[room:]
            return
        from rich.cells import cell_len

        for sign in text:
            size = cell_len(sign)
            if size == 0:
                self._combine(sign)
                continue
            if self.column + size > self.width:
                self._next_row()
            self._put([(self.colour, sign), (self.colour, "")][:size])

    def _put(self, new: list[Cell]) -> None:
        cells, at = self.rows[self.row], self.column
        end = self.column = at + len(new)
        cells += [BLANK] * (at - len(cells))
        if 0 < at < len(cells) and not cells[at][1]:
            cells[at - 1] = BLANK
        if end < len(cells) and not cells[end][1]:
            cells[end] = BLANK
        cells[at:end] = new

    def _combine(self, sign: str) -> None:
        cells = self.rows[self.row]
        at = min(self.column, len(cells)) - 1
        while at > 0 and not cells[at][1]:
            at -= 1
        if at >= 0 and len(cells[at][1]) < _ACCENTS:
            cells[at] = (cells[at][0], cells[at][1] + sign)

    # -- what is seen of it

    def settled(self) -> list[str]:
        """Settle the rows that are farther up than the cursor has ever been; returns them."""
        end = max(self.first, len(self.rows) - 1 - self.reach)
        found = [ansi(cells) for cells in self.rows[self.first : end]]
        self.first, self.back, self.near = end, 0, self.near + len(found)
        self.since_up += len(found)
        gone = min(self.first, max(0, len(self.rows) - self.height))
        del self.rows[:gone]
        self.row, self.first = self.row - gone, self.first - gone
        return found

    def open(self) -> list[str]:
        """The rows that are not settled, without empty ones at the end."""
        found = [ansi(cells) for cells in self.rows[self.first :]]
        while found and not found[-1]:
            found.pop()
        return found

    def as_left(self) -> str:
        """The open rows, and the cursor where the command left it."""
        at, rows = self.row - self.first, self.open()
        rows += [""] * (at + 1 - len(rows))
        up = len(rows) - 1 - at
        return "\r\n".join(rows) + (f"\x1b[{up}A" if up else "") + f"\x1b[{self._at + 1}G"

    def below(self) -> int:
        """How many rows below the cursor the first one without text is."""
        at, rows = self.row - self.first, len(self.open())
        return max(0, rows - at)


def ansi(cells: list[Cell]) -> str:
    """A row as text with colours, which end with it."""
    end = len(cells)
    while end and cells[end - 1] == BLANK:
        end -= 1
    parts, before = [], ""
    for colour, sign in cells[:end]:
        if colour != before:
            parts.append(f"\x1b[0m{colour}" if before else colour)
            before = colour
        parts.append(sign)
    return "".join(parts) + ("\x1b[0m" if before else "")


def encoded(text: str) -> bytes:
    """The bytes of text that `Block` decoded."""
    return text.encode("utf-8", "surrogateescape")
