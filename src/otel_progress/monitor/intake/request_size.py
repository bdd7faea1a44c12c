"""Count the parts of a request in its bytes, before anything is parsed.

Two bytes of protobuf become up to a hundred bytes in memory, and cost as much time as an attribute of fifty bytes. So
the number of parts in a request is limited, too: resources, records, attributes, values, and any other message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

PARTS: Final = 262_144
"""The most parts in a request. A request of 4 MiB with events of ours has 135,000."""
OTHERS: Final = 2
"""The most fields that are no parts, for each part that is allowed; an attribute has two of both."""
UNCOUNTED: Final = 1024 * 1024
"""Requests up to this size in bytes are not counted; at worst they hold twice the parts that are allowed."""
OBJECTS: Final = 65_536
"""The most objects in a JSON request; one takes ten times as long to parse as a part of protobuf."""
TOKENS: Final = 4 * OBJECTS
"""The most values in a JSON request, objects and lists included."""
_FIXED: Final = {1: 8, 5: 4}
_TEXT: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
"""A JSON string; an unterminated one ends with the body, so that the search never backtracks."""


class Malformed(ValueError):
    """These bytes are not protobuf."""


class MessageType:
    """A message type: which of its fields are parts, and of what type they are.

    Attributes:
        parts: by field number; the type of repeated strings and bytes is empty.
    """

    __slots__ = ("parts",)

    def __init__(self) -> None:
        """Without parts."""
        self.parts: dict[int, MessageType] = {}


def kind_of(descriptor: Any) -> MessageType:
    """The message type of a protobuf descriptor."""
    return _kind_of(descriptor, {})


def _kind_of(descriptor: Any, known: dict[str, MessageType]) -> MessageType:
    found = known.get(descriptor.full_name)
    if found is None:
        found = known[descriptor.full_name] = MessageType()
        for field in descriptor.fields:
            if field.message_type is not None:
                found.parts[field.number] = _kind_of(field.message_type, known)
            elif field.type in (field.TYPE_STRING, field.TYPE_BYTES) and _is_repeated(field):
                found.parts[field.number] = MessageType()
    return found


def _is_repeated(field: Any) -> bool:
    repeated = getattr(field, "is_repeated", None)  # protobuf before 6 has labels alone
    return field.label == field.LABEL_REPEATED if repeated is None else bool(repeated)


def holds_more(body: bytes, kind: MessageType, most: int = PARTS) -> bool:
    """Whether a message holds more than `most` parts.

    Each part begins with one of a few bytes. The number of these bytes is an upper bound that is found a hundred times
    faster, so parts are counted one by one only if it is exceeded.

    Raises:
        Malformed: if it is not protobuf.
    """
    if len(body) <= UNCOUNTED:
        return False
    if len(body) - len(body.translate(None, tags(kind))) <= most:
        return False
    return count(body, kind, most) > most


@lru_cache(maxsize=16)
def tags(kind: MessageType) -> bytes:
    """The bytes that a part of such a message can begin with."""
    numbers = {number for one in _all(kind, {}) for number in one.parts}
    assert max(numbers) < 16, "a field whose tag is longer than one byte"
    return bytes(number << 3 | 2 | more for number in numbers for more in (0, 0x80))  # a tag may be padded


def _all(kind: MessageType, seen: dict[int, MessageType]) -> Iterator[MessageType]:
    if id(kind) not in seen:
        seen[id(kind)] = kind
        yield kind
        for one in kind.parts.values():
            yield from _all(one, seen)


def count(body: bytes, kind: MessageType, most: int) -> int:
    """Count the parts of a message; counting stops above `most`.

    A message with more than `OTHERS` times as many other fields counts as one with more parts.

    Raises:
        Malformed: if it is not protobuf.
    """
    found, others = 0, OTHERS * most
    stack: list[tuple[int, int, Mapping[int, MessageType]]] = [(0, len(body), kind.parts)]
    while stack:
        at, end, parts = stack.pop()
        while at < end:
            tag = body[at]
            at += 1
            if tag >= 0x80:
                tag, at = varint(body, at - 1, end)
            form = tag & 7
            if form == 2:
                size = body[at] if at < end else 0x80
                at += 1
                if size >= 0x80:
                    size, at = varint(body, at - 1, end)
                part = parts.get(tag >> 3)
                if part is not None:
                    found += 1
                    if found > most:
                        return found
                    if size > 1 and part.parts:
                        stack.append((at, min(at + size, end), part.parts))
                    at += size
                    continue
                at += size
            elif form == 0:
                _, at = varint(body, at, end)
            elif form in _FIXED:
                at += _FIXED[form]
            else:
                raise Malformed("the body is not protobuf")
            others -= 1
            if others < 0:
                return most + 1
    return found


def varint(body: bytes, at: int, end: int) -> tuple[int, int]:
    """Decode a varint; returns its value and the offset behind it.

    Raises:
        Malformed: if it is not a varint.
    """
    value = shift = 0
    while at < end and shift < 70:
        byte = body[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise Malformed("the body is not protobuf")


def json_holds_more(body: bytes, objects: int = OBJECTS, tokens: int = TOKENS) -> bool:
    """Whether a JSON body holds more objects or values than this; the content of strings does not count."""
    if not _is_above(body, objects, tokens):
        return False
    return _is_above(_TEXT.sub(b"", body), objects, tokens)


def _is_above(body: bytes, objects: int, tokens: int) -> bool:
    """Each value except the outermost follows a comma, or is the first in an object or a list."""
    made = body.count(b"{")
    return made > objects or made + body.count(b"[") + body.count(b",") > tokens
