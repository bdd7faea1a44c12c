"""What a process used, as an operation in it sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from otel_progress.model.values import Number, finite


@dataclass(frozen=True)
class Resources:
    """What the process of an operation used; None is not known. Operations that run side by side share it.

    Attributes:
        cpu_seconds: CPU time since the operation started, with that of child processes that ended.
        cpu: CPU utilisation lately, in cores.
        memory: resident memory now, in bytes.
        peak_memory: the most resident memory seen since the operation started, in bytes; sampled every 5 s.
        threads: threads of the process.
        read_bytes: bytes that the process read from disks, since its start.
        written_bytes: bytes that it wrote to disks, since its start.
        children: child processes now.
        children_memory: resident memory of these and of all below, in bytes, if they are at most 100; memory that
            several share is counted for each.
    """

    cpu_seconds: float | None = None
    cpu: float | None = None
    memory: Number | None = None
    peak_memory: Number | None = None
    threads: int | None = None
    read_bytes: Number | None = None
    written_bytes: Number | None = None
    children: int | None = None
    children_memory: Number | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what is known, in plain JSON types; bytes and counts are whole, times to the millisecond."""
        given = {name: value for name in self.__dataclass_fields__ if (value := getattr(self, name)) is not None}
        return {name: round(value, 3) if name in _PARTS else round(value) for name, value in given.items()}


_WHOLE = frozenset({"threads", "children"})
_PARTS = frozenset({"cpu_seconds", "cpu"})


def from_dict(given: object) -> Resources | None:
    """Read what `to_dict` returned; senders are untrusted, so what is no number of at least 0 is skipped."""
    if not isinstance(given, Mapping):
        return None
    known = {
        name: int(value) if name in _WHOLE else value
        for name in Resources.__dataclass_fields__
        if finite(value := given.get(name, -1)) and value >= 0
    }
    return Resources(**known) if known else None
