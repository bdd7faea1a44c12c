"""Divides a large OTLP request in JSON into smaller ones with the same content, without parsing its records.

Parsed JSON takes many times the memory of its text. So of a large request only the brackets are read at first: they
tell where its records are. What is around these is parsed as a whole, and they themselves one part at a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_LIST: Final = b"{[{[{["
"""The brackets around the records of a scope: request, resources, resource, scopes, scope, records."""
_PLACE: Final = "\0place"
"""In what is around the records, the key of the place where they are."""
MARGIN: Final = 1_024
"""The bytes of a part that are left for its outermost brackets and key."""
GROWS: Final = 2
"""How many times as long as the request all parts together may be, as each repeats what is around its records."""
DEEP: Final = 200
"""The most brackets around anything."""

_Lists = list[list[tuple[int, int]]]
"""Of each list of records where they begin and end."""


class Unreadable(ValueError):
    """The text is not JSON, or nothing in it can be divided."""


class TooLargePart(ValueError):
    """A record, or what is around all records, is too large for any part; the text says which."""


def parts(body: bytes, most: int) -> Iterator[bytes]:
    """Yield requests of about `most` bytes, and not more, that hold together what `body` holds, in its order.

    Raises:
        Unreadable: if it is not JSON.
        TooLargePart: if something in it fits into no part.
    """
    around, lists = _split(body)
    if len(around) > most:
        raise TooLargePart(f"all but the records has {len(around)} bytes; at most {most} are accepted")
    try:
        request = json.loads(around)
    except (ValueError, RecursionError) as error:
        raise Unreadable(str(error)) from None
    is_divided = False
    pieces = _bounded(_pieces(body, request, lists, most - MARGIN), GROWS * len(body), len(around))
    for field, found in groupby(pieces, key=itemgetter(0)):
        for some in _gathered((piece for _, piece in found), most - MARGIN):
            is_divided = True
            yield f"{{{json.dumps(field)}: [".encode() + some + b"]}"
    if not is_divided:
        yield around


def _gathered(pieces: Iterable[bytes], room: int) -> Iterator[bytes]:
    """As many pieces as have room each time, one at least, with commas between them."""
    some, size = list[bytes](), 0
    for piece in pieces:
        if some and size + len(piece) + 1 > room:
            yield b",".join(some)
            some, size = [], 0
        some.append(piece)
        size += len(piece) + 1
    if some:
        yield b",".join(some)


def _bounded(pieces: Iterator[tuple[str, bytes]], most: int, around: int) -> Iterator[tuple[str, bytes]]:
    """The pieces, as long as they have no more than `most` bytes together."""
    total = 0
    for field, piece in pieces:
        total += len(piece)
        if total > most:
            raise TooLargePart(f"what is around its records has {around} bytes, and is repeated too often")
        yield field, piece


def _pieces(body: bytes, request: Any, lists: _Lists, most: int) -> Iterator[tuple[str, bytes]]:
    """Resources with a scope and some of its records each, with the key of the list in which they belong."""
    for field, resource in _items(request):
        for inner, scope in _items(resource):
            keys = [key for key, value in scope.items() if _place_in(value) is not None]
            for key in keys:
                head = json.dumps({name: value for name, value in scope.items() if name not in keys})
                outer = json.dumps({name: value for name, value in resource.items() if name != inner})
                before = f"{_begun(outer)}{json.dumps(inner)}: [{_begun(head)}{json.dumps(key)}: [".encode()
                for piece in _joined(body, lists[_place_in(scope[key]) or 0], before, most):
                    yield field, piece


def _joined(body: bytes, records: list[tuple[int, int]], before: bytes, most: int) -> Iterator[bytes]:
    """A resource with some of the records each time."""
    after = b"]}]}"
    room = most - len(before) - len(after)
    largest = max((end - start for start, end in records), default=0)
    if largest > room:
        raise TooLargePart(f"a record has {largest} bytes; at most {room} are accepted")
    for some in _gathered((body[start:end] for start, end in records), room):
        yield before + some + after


def _begun(text: str) -> str:
    """A JSON object to which another key is added."""
    return "{" if text == "{}" else f"{text[:-1]}, "


def _items(given: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects in the lists of an object, with the key of their list."""
    for key, value in given.items() if isinstance(given, dict) else ():
        for one in value if isinstance(value, list) else ():
            if isinstance(one, dict):
                yield key, one


def _place_in(value: Any) -> int | None:
    """The number of the list of records that is in this place."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        place = value[0].get(_PLACE)
        return place if isinstance(place, int) else None
    return None


def _split(body: bytes) -> tuple[bytes, _Lists]:
    """What is around the records, with their places, and where the records of each list begin and end."""
    path = bytearray()
    lists: _Lists = []
    around = bytearray()
    taken = start = 0
    records: list[tuple[int, int]] = []
    for token in _TOKEN.finditer(body):
        mark = token.group()
        if mark in b"[{":
            path += mark
            if len(path) > DEEP:
                raise Unreadable("it is nested too deep")
            if len(path) == len(_LIST) + 1 and path.startswith(_LIST):
                start = token.start()
        elif mark in b"]}":
            if not path:
                raise Unreadable("a bracket closes what is not open")
            if len(path) == len(_LIST) + 1 and path.startswith(_LIST):
                records.append((start, token.end()))
            elif path == _LIST and records:
                around += body[taken : records[0][0]] + json.dumps({_PLACE: len(lists)}).encode()
                taken = records[-1][1]
                lists.append(records)
                records = []
            del path[-1]
    if path:
        raise Unreadable("it is truncated")
    return bytes(around + body[taken:]), lists
