"""Gzip for streams with many readers: each frame is deflated once, and its bytes are valid in every reader's stream.

A deflate stream is a row of blocks. Blocks that refer to nothing before them and end at a full byte can be put into any
stream (RFC 1951; a full flush makes such blocks), so a reader's gzip stream is a header and the same blocks as for all
others. Only the checksum at its end is its own.
"""

from __future__ import annotations

import zlib
from typing import Final

LEVEL: Final = 1
"""The level of compression: rows repeat their keys, so more costs time and saves little."""
HEADER: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_LAST: Final = b"\x01\x00\x00\xff\xff"
"""An empty block that ends the stream."""
_STORED: Final = 65_535
"""The most bytes of a block that is not compressed."""


def packed(data: bytes) -> bytes:
    """Deflate blocks with this content, which fit into any stream."""
    deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflate.compress(data) + deflate.flush(zlib.Z_FULL_FLUSH)


def stored(data: bytes) -> bytes:
    """The same without compression, for a few bytes."""
    blocks = (data[at : at + _STORED] for at in range(0, len(data), _STORED))
    return b"".join(b"\x00" + _size(len(one)) + _size(len(one) ^ 0xFFFF) + one for one in blocks)


def _size(number: int) -> bytes:
    return number.to_bytes(2, "little")


class Checksum:
    """The end of one reader's stream."""

    __slots__ = ("_crc", "_size")

    def __init__(self) -> None:
        """Of an empty stream."""
        self._crc = self._size = 0

    def add(self, data: bytes) -> None:
        """Account for what was sent, before it was packed."""
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)

    def end(self) -> bytes:
        """The bytes that end the stream."""
        return _LAST + self._crc.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little")


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an `Accept-Encoding` header accepts gzip.

    Example:
        `accepts_gzip("gzip, deflate;q=0.5")` is true, `accepts_gzip("gzip;q=0")` is not.
    """
    for part in accept_encoding.lower().split(","):
        name, _, quality = part.partition(";")
        if name.strip() == "gzip":
            return not quality.strip(" 0.").endswith("=")
    return False
