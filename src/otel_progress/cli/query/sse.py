"""Server-sent events out of bytes, as the HTML standard has them; each line and each event has a limit."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Final, NamedTuple

FRAME: Final = 32 * 1024 * 1024
"""Characters that one event may hold."""


class Frame(NamedTuple):
    """One event; `id` is the last id that was named, here or before."""

    event: str
    data: str
    id: str


class TooLong(ValueError):
    """An event without an end in sight: whoever sends it is no monitor."""


class Parser:
    """Fed with bytes cut anywhere, gives whole events; what has no end yet waits."""

    def __init__(self, last_id: str = "", *, limit: int = FRAME) -> None:
        """For one connection; `last_id` is the last of the one before."""
        self.last_id = last_id
        self._limit = limit
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("replace").decode
        self._text = ""
        self._after_cr = False
        self._event, self._held = "", 0
        self._data: list[str] = []

    def feed(self, more: bytes) -> Iterator[Frame]:
        """The events that end in these bytes.

        Raises:
            TooLong: where an event is longer than the limit.
        """
        text = self._decode(more)
        if self._after_cr and text:
            text = text.removeprefix("\n")
            self._after_cr = False
        self._after_cr = self._after_cr or text.endswith("\r")
        *lines, rest = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        if lines:
            lines[0], self._text = self._text + lines[0], rest
        else:
            self._text += rest
        for line in lines:
            frame = self._line(line)
            if frame is not None:
                yield frame
        if self._held + len(self._text) > self._limit:
            raise TooLong("an event of the stream is too long")

    def _line(self, line: str) -> Frame | None:
        if not line:
            data, event = "\n".join(self._data), self._event
            had, self._event, self._data, self._held = bool(self._data), "", [], 0
            return Frame(event or "message", data, self.last_id) if had else None
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
            self._held += len(value)
        elif field == "event":
            self._event = value
        elif field == "id" and "\0" not in value:
            self.last_id = value
        return None
