"""Frames that are deflated once: whatever blocks a reader gets in a row, its gzip stream is valid."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_progress.monitor.web import packing
from otel_progress.monitor.web.packing import Checksum, accepts_gzip, packed, stored
from otel_progress.monitor.web.stream import Hub, Text

PARTS = st.lists(st.tuples(st.binary(max_size=200), st.booleans()))


@given(PARTS)
def test_blocks_in_any_row_are_one_gzip_stream(parts: list[tuple[bytes, bool]]) -> None:
    """Packed and stored parts unpack to their content, checked by the sum at the end."""
    out, sum_ = bytearray(packing.HEADER), Checksum()
    for data, is_packed in parts:
        out += packed(data) if is_packed else stored(data)
        sum_.add(data)
    out += sum_.end()
    assert gzip.decompress(bytes(out)) == b"".join(data for data, _ in parts)


@given(PARTS)
def test_each_block_can_be_read_when_it_arrives(parts: list[tuple[bytes, bool]]) -> None:
    """A reader sees each part at once, not when the next one comes."""
    unpack = zlib.decompressobj(31)
    assert unpack.decompress(packing.HEADER) == b""
    for data, is_packed in parts:
        assert unpack.decompress(packed(data) if is_packed else stored(data)) == data


def test_stored_parts_may_be_long() -> None:
    """More than one block fits is stored in several."""
    data = bytes(range(256)) * 1000
    assert zlib.decompressobj(-15).decompress(stored(data)) == data


@pytest.mark.parametrize(
    ("header", "accepts"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("gzip, deflate, br, zstd", True),
        ("", False),
        ("deflate, br", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("x-gzip", False),
    ],
)
def test_who_accepts_gzip(header: str, accepts: bool) -> None:
    """Only who names it, and does not exclude it by a quality of 0."""
    assert accepts_gzip(header) is accepts


def test_a_frame_is_packed_once_for_all_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand readers of a frame cost one compression; none, if it was made with the frame."""
    made: list[bytes] = []

    def counted(data: bytes) -> bytes:
        made.append(data)
        return packed(data)

    monkeypatch.setattr(packing, "packed", counted)
    hub = Hub(0.1, "0")
    hub.topic("all")
    hub.publish("all", "changes", '{"rows":[]}')
    hub.publish("all", "changes", Text(b'{"rows":[1]}', packed(b'{"rows":[1]}')))
    frames = hub.topic("all").frames
    for frame in frames:
        assert len({frame.packed for _ in range(1000)}) == 1
        assert zlib.decompressobj(-15).decompress(frame.packed) == frame.bytes
    assert made == [frames[0].bytes]
