"""How much a request holds, counted in its bytes before any of it is built.

Two bytes of protobuf become up to a hundred bytes in memory, and cost as much time as an attribute of fifty bytes. So
a request is bounded by the number of its parts, too: groups, records, attributes, values, and any other message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

PARTS: Final = 262_144
"""The most parts in a request. A request of 4 MiB with events of ours has 135,000."""
UNCOUNTED: Final = 1024 * 1024
"""Requests up to this size in bytes are not counted: at worst they hold twice the parts that are allowed."""
OBJECTS: Final = 65_536
"""The most objects in a request in JSON. To read one takes ten times as long as a part of protobuf."""
TOKENS: Final = 4 * OBJECTS
"""The most values in a request in JSON, objects and lists included."""
_FIXED: Final = {1: 8, 5: 4}
_TEXT: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
"""A string of JSON. One that is not closed ends with the body, so that the search never goes back."""


class Malformed(ValueError):
    """These bytes are no protobuf."""


class Kind:
    """A kind of message: which of its fields are parts, and of what kind they are.

    Attributes:
        parts: by the number of the field; the kind is empty for texts that may come more than once.
    """

    __slots__ = ("parts",)

    def __init__(self) -> None:
        """Without parts."""
        self.parts: dict[int, Kind] = {}


def kind_of(descriptor: Any) -> Kind:
    """The kind of message that a descriptor of protobuf tells of."""
    return _kind_of(descriptor, {})


def _kind_of(descriptor: Any, known: dict[str, Kind]) -> Kind:
    found = known.get(descriptor.full_name)
    if found is None:
        found = known[descriptor.full_name] = Kind()
        for field in descriptor.fields:
            if field.message_type is not None:
                found.parts[field.number] = _kind_of(field.message_type, known)
            elif field.type in (field.TYPE_STRING, field.TYPE_BYTES) and _is_repeated(field):
                found.parts[field.number] = Kind()
    return found


def _is_repeated(field: Any) -> bool:
    repeated = getattr(field, "is_repeated", None)  # protobuf before 6 has labels alone
    return field.label == field.LABEL_REPEATED if repeated is None else bool(repeated)


def holds_more(body: bytes, kind: Kind, most: int = PARTS) -> bool:
    """Whether a message holds more parts than so many.

    The parts are counted one by one only where there may be too many. Each part begins with one of a few bytes, so
    the number of these bytes, which is found a hundred times faster, is never below that of the parts.

    Raises:
        Malformed: where it is no protobuf.
    """
    if len(body) <= UNCOUNTED:
        return False
    if len(body) - len(body.translate(None, tags(kind))) <= most:
        return False
    return count(body, kind, most) > most


@lru_cache(maxsize=16)
def tags(kind: Kind) -> bytes:
    """The bytes that any part of such a message begins with."""
    numbers = {number for one in _all(kind, {}) for number in one.parts}
    assert max(numbers) < 16, "a field with a longer tag"
    return bytes(number << 3 | 2 | more for number in numbers for more in (0, 0x80))  # a tag may have bits to spare


def _all(kind: Kind, seen: dict[int, Kind]) -> Iterator[Kind]:
    if id(kind) not in seen:
        seen[id(kind)] = kind
        yield kind
        for one in kind.parts.values():
            yield from _all(one, seen)


def count(body: bytes, kind: Kind, most: int) -> int:
    """The parts of a message; the count ends above `most`.

    Raises:
        Malformed: where it is no protobuf.
    """
    found = 0
    stack: list[tuple[int, int, Mapping[int, Kind]]] = [(0, len(body), kind.parts)]
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
            elif form == 0:
                _, at = varint(body, at, end)
            elif form in _FIXED:
                at += _FIXED[form]
            else:
                raise Malformed("the body is no protobuf")
    return found


def varint(body: bytes, at: int, end: int) -> tuple[int, int]:
    """A number, and what comes behind it.

    Raises:
        Malformed: where it is none.
    """
    value = shift = 0
    while at < end and shift < 70:
        byte = body[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise Malformed("the body is no protobuf")


def json_holds_more(body: bytes, objects: int = OBJECTS, tokens: int = TOKENS) -> bool:
    """Whether a body of JSON holds more objects or values than this; what is inside strings does not count."""
    if not _is_above(body, objects, tokens):
        return False
    return _is_above(_TEXT.sub(b"", body), objects, tokens)


def _is_above(body: bytes, objects: int, tokens: int) -> bool:
    """Each value but the outermost follows a comma, or is the first in an object or a list."""
    made = body.count(b"{")
    return made > objects or made + body.count(b"[") + body.count(b",") > tokens
