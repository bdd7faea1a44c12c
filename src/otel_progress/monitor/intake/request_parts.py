"""Divides a large OTLP request into smaller ones with the same content, without parsing its records.

A parsed message takes many times the memory of its bytes. So a large request is read one part at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from otel_progress.monitor.intake.messages import RECORD_PATH
from otel_progress.monitor.intake.request_size import Malformed, varint
from otel_progress.outbound.otlp import chunk

HEAD: Final = 8
"""The part of a request that a resource or a scope may take without its records: one in so many bytes of the limit."""
_FIXED: Final = {1: 8, 5: 4}


class TooLarge(ValueError):
    """A resource, a scope or a record is too large for any part; the text names it."""


class _Field(NamedTuple):
    number: int
    whole: bytes
    """With its tag and length."""
    payload: bytes
    """What is in it; empty if it has no length of its own."""


def parts(body: bytes, most: int) -> Iterator[bytes]:
    """Yield requests of at most `most` bytes that hold together what `body` holds, in its order.

    Raises:
        Malformed: if it is not protobuf.
        TooLarge: if something in it fits into no part.
    """
    if len(body) <= most:
        yield body
        return
    yield from _joined((part for field in _fields(body) for part in _of_resource(field, most)), most)


def _of_resource(field: _Field, most: int) -> Iterator[bytes]:
    """The resources of a request, those that are too large in several pieces."""
    level = RECORD_PATH[0]
    if len(field.whole) <= most or field.number != level:
        yield field.whole
        return
    head, inner = _head(field, RECORD_PATH[1], "resource", most)
    room = most - len(head) - 16
    pieces = (piece for one in inner for piece in _of_scope(one, room))
    for joined in _joined(pieces, room):
        yield chunk(level, head + joined)


def _of_scope(field: _Field, most: int) -> Iterator[bytes]:
    if len(field.whole) <= most:
        yield field.whole
        return
    head, inner = _head(field, RECORD_PATH[2], "scope", most)
    room = most - len(head) - 16
    for one in inner:
        if len(one.whole) > room:
            raise TooLarge(f"a record has {len(one.whole)} bytes; at most {room} are accepted")
    for joined in _joined((one.whole for one in inner), room):
        yield chunk(field.number, head + joined)


def _head(field: _Field, inner: int, what: str, most: int) -> tuple[bytes, list[_Field]]:
    """What belongs to all that is in a resource or a scope, and what is in it."""
    fields = list(_fields(field.payload))
    head = b"".join(one.whole for one in fields if one.number != inner)
    if len(head) > most // HEAD:
        raise TooLarge(f"a {what} has {len(head)} bytes; at most {most // HEAD} are accepted")
    return head, [one for one in fields if one.number == inner]


def _joined(pieces: Iterator[bytes], most: int) -> Iterator[bytes]:
    """Pieces in a row, as many as fit."""
    out = bytearray()
    for piece in pieces:
        if out and len(out) + len(piece) > most:
            yield bytes(out)
            out = bytearray()
        out += piece
    if out:
        yield bytes(out)


def _fields(body: bytes) -> Iterator[_Field]:
    at = 0
    while at < len(body):
        begin = at
        tag, at = varint(body, at, len(body))
        start, kind = at, tag & 7
        if kind == 2:
            size, start = varint(body, at, len(body))
            at = start + size
        elif kind == 0:
            _, at = varint(body, at, len(body))
        elif kind in _FIXED:
            at += _FIXED[kind]
        else:
            raise Malformed("the body is not protobuf")
        if at > len(body):
            raise Malformed("the body is not protobuf: it is truncated")
        yield _Field(tag >> 3, body[begin:at], body[start:at] if kind == 2 else b"")
