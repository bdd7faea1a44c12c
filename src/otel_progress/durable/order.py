"""How far a loop by position is: the number of items done, and a digest of them, by which other items are noticed."""

from __future__ import annotations

import dataclasses
import enum
import os
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple
from zlib import crc32

from otel_progress.durable.fingerprint import TEXTS
from otel_progress.errors import CheckpointMismatch

LENGTH: Final = 256
"""Characters or bytes of a text that are looked at; of its length all."""
PARTS: Final = 16
"""Parts of a list or a dict that are looked at."""
DEPTH: Final = 3
"""Lists in lists that are looked into."""
_MASK: Final = 0xFFFFFFFF


class Order(NamedTuple):
    """The items that a loop by position has done: how many, and their digest; None if any others will do."""

    position: int = 0
    digest: int | None = 0

    @property
    def text(self) -> str:
        """As the store keeps it."""
        return f"{self.position} {self.digest:08x}"


def read(text: str | None) -> Order:
    """What the store kept; the beginning if it kept nothing."""
    if text is None:
        return Order()
    position, digest = text.split()
    return Order(int(position), int(digest, 16))


def done(position: int, failed: Iterable[str]) -> int:
    """How many of the first items are done: not those that failed, whose keys are their positions."""
    return position - sum(key.isdecimal() and int(key) < position for key in failed)  # others are of a loop by key


def add(digest: int, item: object) -> int:
    """The digest of some items and one more. Of objects that no other process could recognise the type counts."""
    text = item if type(item) is str else _text(item, DEPTH)
    try:
        data = text[:LENGTH].encode()
    except UnicodeEncodeError:
        data = text[:LENGTH].encode("utf-8", "surrogatepass")
    return crc32(data, (digest + len(text) + 1) & _MASK)


def of(items: Iterable[object]) -> int:
    """The digest of items."""
    digest = 0
    for item in items:
        digest = add(digest, item)
    return digest


def _text(item: Any, depth: int) -> str:
    try:
        if isinstance(item, str):
            return f"{item[:LENGTH]!r}{len(item)}"
        if isinstance(item, enum.Enum):
            return item.name
        if isinstance(item, (int, float)):
            return str(hash(item))  # the same in each process, also for a number of a million digits
        if isinstance(item, (bytes, bytearray)):
            return f"{bytes(item[:LENGTH])!r}{len(item)}"
        if isinstance(item, TEXTS):
            return str(item)
        if isinstance(item, os.PathLike):
            return str(os.fspath(item))
        if depth:
            return _parts(item, depth - 1)
    except Exception:  # of a class of the job
        pass
    return type(item).__qualname__


def _parts(item: Any, depth: int) -> str:
    """The first parts of a list, a dict or a dataclass, so that a long one costs no more."""
    parts: Iterable[Any] = ()
    if isinstance(item, (list, tuple)):
        parts = item[:PARTS]
    elif isinstance(item, Mapping):
        parts = (pair for pair, _ in zip(item.items(), range(PARTS), strict=False))
    elif dataclasses.is_dataclass(item):
        parts = (getattr(item, one.name) for one in dataclasses.fields(item)[:PARTS])
    size = len(item) if hasattr(item, "__len__") else ""
    return f"{type(item).__qualname__}{size}({','.join(_text(one, depth) for one in parts)})"


def changed(where: str, position: int, taken: int) -> CheckpointMismatch:
    """The error for a loop whose first items are others than those that were done."""
    what = f"there are only {taken:,}" if taken < position else f"its first {position:,} items are others now"
    return CheckpointMismatch(
        f"the loop of {where} goes by position, and {position:,} items were done, but {what}, so some would be left "
        "out that nobody did: give the loop a key, as in track(items, key=lambda item: item.id), and the operation "
        "another id; or say how to go on: resume_mismatch='restart' takes all items of a list again, 'keep' goes "
        "on at that position all the same"
    )
