"""A parser of server-sent events, as the HTML standard defines them; events are limited in size."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Final, NamedTuple

FRAME: Final = 32 * 1024 * 1024
"""The most characters of one event."""


class Frame(NamedTuple):
    """One event; `id` is the newest id so far, of this event or of one before."""

    event: str
    data: str
    id: str


class TooLong(ValueError):
    """An event is larger than any that a monitor sends."""


class Parser:
    """Turns chunks of bytes, cut anywhere, into whole events; an incomplete one is kept."""

    def __init__(self, last_id: str = "", *, limit: int = FRAME) -> None:
        """Start a connection; `last_id` is the newest id of the connection before."""
        self.last_id = last_id
        self._limit = limit
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("replace").decode
        self._text = ""
        self._after_cr = False
        self._event, self._held = "", 0
        self._data: list[str] = []

    def feed(self, more: bytes) -> Iterator[Frame]:
        """Take a chunk and yield the events that it completes.

        Raises:
            TooLong: if an event exceeds the limit.
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
