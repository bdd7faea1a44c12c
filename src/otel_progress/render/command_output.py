"""What a command has written to its terminal: what is settled, and what it may still write over."""

from __future__ import annotations

import re
from typing import Final

from otel_progress.render.block import Block, ansi, encoded

PENDING: Final = 65_536
"""The most bytes of an unfinished line; a longer one is broken."""
_LEAVES: Final = r"\x1b(?:\[[0-9;?]*[ABEFHJLMSTdfrsu]|[78DMEc])"
"""Sequences that move the cursor to another line, or change the whole terminal."""
_MOVES: Final = re.compile(_LEAVES.encode())
_MOVES_OF_TEXT: Final = re.compile(_LEAVES)
_STRINGS: Final = re.compile(rb"\x1b[\]P^_X][^\x07\x1b]*(?:\x07|\x1b\\)?")
"""Titles, links and the like, which show no text."""
_CONTROL: Final = re.compile(r"\x1b\[[0-9;:]*m")
_COLOURS: Final = re.compile(rb"\x1b\[([0-9;:]*)m")
_RESET: Final = b"\x1b[0m"
_SEEN: Final = 4_096
"""The bytes at the end of the output that are searched for colours."""
_UP: Final = re.compile(rb"\x1b\[[0-9]*[AF]")
_UNKNOWN: Final = re.compile(rb"\x1b(?:\[[0-9;?]*[HLMSTdfrsu]|\[0*[1-9]J|\[\?(?:47|1047|1049)[hl]|[78DMEc])")
"""Sequences after which nothing is known of the rows on the terminal."""
RECENT: Final = 16_384
"""The bytes of settled output that are kept, for a command that moves up into it."""
QUIET: Final = 200
"""The rows that are settled since the cursor moved up until the block is given up: whole lines are cheaper."""


class CommandOutput:
    """The output of a command, divided into what is settled and what is not.

    At first only the unfinished line is not settled. Once the command has moved the cursor up, it is a block of rows:
    as many as it has ever moved up.
    """

    def __init__(self) -> None:
        """Nothing is written yet."""
        self._pending = b""
        self._recent = b""
        self._colours = b""
        self._block: Block | None = None
        self._begun = False
        """Whether the terminal shows what is not settled already, with the cursor where the command left it."""
        self._left = False
        """Whether it was left once: what stands above the cursor may be another's."""

    def passed(self, data: bytes) -> None:
        """The data was written to the terminal, where nothing is drawn."""
        self._begun = bool(data) or self._begun
        if self._block is None:
            whole, self._pending = split(self._pending + data)
            self._colours = colours_after(self._colours, whole)
            self._remember(data)
            return
        _, rest = self._block.feed(data)
        self._block.settled()
        if rest is not None:
            self._block, self._recent = None, b""
            self._pending = split(rest)[1]

    def adopted(self, width: int, height: int) -> bytes:
        """Take over what the terminal shows already; returns what erases the part that is not settled."""
        begun, self._begun = self._begun, False
        if not begun:
            return b""
        if self._block is None:
            block = Block(width, height)
            if _UP.search(self._recent):
                block.feed(self._recent)
            if not block.reach:
                self._recent = self._recent[: self._recent.rfind(b"\n") + 1]
                return _RESET + (b"\r\x1b[2K" if self._pending else b"")
            block.settled()
            block.near = block.first
            self._begin(block)
        assert self._block is not None
        up = self._block.row - self._block.first
        return _RESET + (b"\x1b[%dA" % up if up and not self._left else b"") + b"\r\x1b[J"

    def take(self, data: bytes, width: int, height: int) -> bytes:
        """Take output that was not written; returns what to write, from where the part begins that is not settled."""
        written = b""
        if self._block is not None and self._block.since_up > QUIET:
            written = self._give_up()
        if self._block is None:
            data, self._pending = self._pending + data, b""
            up = _UP.search(data)
            if up is None:
                return written + self._lines(data)
            written += self._lines(data[: up.start()])
            for unknown in list(_UNKNOWN.finditer(self._pending))[-1:]:
                written += self._pending[: unknown.end()]
                self._pending, self._recent = self._pending[unknown.end() :], b""
            self._begin(self._known_rows(width, height))
            data = data[up.start() :]
        return written + self._rows(data, width, height)

    def rows(self) -> list[str]:
        """What is not settled, as rows with colours."""
        if self._block is not None:
            return self._block.open()
        return [shown(self._colours + self._pending)] if self._pending else []

    def parted(self) -> None:
        """Lines of ours were written below what is settled: the command no longer reaches what stands above them."""
        self._recent = b""
        if self._block is not None:
            self._block.near = 0

    def left(self) -> bytes:
        """What is not settled as it is written when nothing is drawn any more, for a command that may go on."""
        self._left = True
        self.parted()
        if self._block is not None:
            return encoded(self._block.as_left())
        end = b"\n" if is_text(self._pending) else b""
        before, self._colours = self._colours, b""
        return before + self._pending + _RESET + end if self._pending else b""

    def ended(self) -> bytes:
        """What moves the cursor below all rows of a block that was left; what follows is another's."""
        below = 0 if self._block is None else self._block.below()
        self._block, self._pending, self._recent = None, b"", b""
        return b"\r" + b"\n" * below if below else b""

    # -- whole lines and one without an end

    def _lines(self, data: bytes) -> bytes:
        whole, self._pending = split(data)
        self._remember(whole)
        if not whole:
            return b""
        before = self._colours
        self._colours = colours_after(before, whole)
        return before + whole + (_RESET if self._colours else b"")

    def _remember(self, data: bytes) -> None:
        self._recent += data[-RECENT:]
        for unknown in _UNKNOWN.finditer(self._recent):
            self._recent = self._recent[unknown.end() :]
        if len(self._recent) > RECENT:
            self._recent = self._recent[-RECENT:].partition(b"\n")[2]

    # -- a block

    def _known_rows(self, width: int, height: int) -> Block:
        """The rows on the terminal, of which only the unfinished line is not settled."""
        block = Block(width, height)
        block.feed(self._recent)
        block.settled()
        del block.rows[block.row + 1 :]
        block.first = block.near = block.row
        block.reach = 0
        block.colour = self._colours.decode("ascii", "replace")
        block.feed(self._pending)
        return block

    def _begin(self, block: Block) -> None:
        self._block, self._pending, self._recent, self._colours = block, b"", b"", b""

    def _rows(self, data: bytes, width: int, height: int) -> bytes:
        block = self._block
        assert block is not None
        block.width, block.height = max(2, width), max(2, height)
        written, rest = block.feed(data)
        back = min(block.back, block.near)
        block.near -= back
        written += b"\x1b[%dA\r\x1b[J" % back if back else b""
        written += encoded("".join(f"{row}\r\n" for row in block.settled()))
        return written if rest is None else written + self._give_up() + self._lines(self._pending + rest)

    def _give_up(self) -> bytes:
        """Settle all of the block but the row of the cursor."""
        block, self._block = self._block, None
        assert block is not None
        at, rows = block.row - block.first, block.open()
        rows += [""] * (at + 1 - len(rows))
        if at == len(rows) - 1:
            last, place = rows.pop(), f"\x1b[{block.column + 1}G"
        else:
            last, place = "", f"\x1b[{len(rows) - at}A\x1b[{block.column + 1}G"
        self._pending = encoded(last + place + block.colour)
        self._recent = encoded("".join(f"{ansi(row)}\r\n" for row in block.rows[: block.first]))
        lines = encoded("".join(f"{row}\r\n" for row in rows))
        self._remember(lines)
        return lines


def split(data: bytes) -> tuple[bytes, bytes]:
    """Split output into whole lines and the unfinished one, without text that was overwritten."""
    cut = data.rfind(b"\n") + 1
    whole, rest = data[:cut], data[cut:]
    again = rest.rstrip(b"\r").rfind(b"\r")
    if again > 0 and not _MOVES.search(rest, 0, again):
        colours = b"".join(colour[0] for colour in _COLOURS.finditer(rest, max(0, again - _SEEN), again))
        rest = colours[max(0, colours.rfind(_RESET)) :][-_SEEN // 8 :] + rest[again:]
    return (whole, rest) if len(rest) <= PENDING else (whole + rest + b"\r\n", b"")


def shown(pending: bytes) -> str:
    """What a terminal shows of an unfinished line, with colours; of several lines, the first with any text."""
    text = _STRINGS.sub(b"", pending).decode("utf-8", "replace")
    lines = (_line(part[-_SEEN:]) for part in _MOVES_OF_TEXT.split(text))
    return next((line for line in lines if _CONTROL.sub("", line).strip()), "")


def is_text(pending: bytes) -> bool:
    """Whether a terminal shows any text of an unfinished line."""
    return bool(_CONTROL.sub("", shown(pending)).strip())


def _line(text: str) -> str:
    block = Block(2 * _SEEN, 2)
    block.feed(encoded(text))
    return ansi(block.rows[0])


def colours_after(before: bytes, data: bytes) -> bytes:
    """The colours in effect after the data: those since the last reset."""
    found = before
    for colour in _COLOURS.finditer(data[-_SEEN:]):
        found = b"" if colour[1].strip(b"0;:") == b"" else (found + colour[0])[-_SEEN // 8 :]
    return found
