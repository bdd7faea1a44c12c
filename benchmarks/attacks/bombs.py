"""Requests of a few kilobytes that try to cost much memory or time."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Final, NamedTuple

from otel_progress import semconv as s
from otel_progress.monitor.intake.requests import JSON, PROTOBUF
from otel_progress.outbound.otlp import chunk

MANY: Final = 2_000_000
FEW: Final = 500_000
"""A number below the limit on parts of a protobuf request."""
NAMED: Final = chunk(12, s.UPDATED.encode())
IDS: Final = chunk(1, b"1" * 16) + chunk(2, b"1" * 8)


class Bomb(NamedTuple):
    """A request: signal, content type, body, and whether the body is gzip."""

    signal: str
    kind: str
    body: bytes
    zipped: bool = True

    def request(self, host: str) -> bytes:
        """Return the whole HTTP request."""
        encoding = "Content-Encoding: gzip\r\n" if self.zipped else ""
        head = f"POST /v1/{self.signal} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {self.kind}\r\n{encoding}"
        return f"{head}Content-Length: {len(self.body)}\r\n\r\n".encode() + self.body


def _within(record: bytes) -> bytes:
    return chunk(1, chunk(2, chunk(2, record)))


def _logs(record: bytes, times: int = 1) -> bytes:
    return chunk(1, chunk(2, chunk(2, NAMED + record) * times))


def _nested(depth: int) -> bytes:
    value = b""
    for _ in range(depth):
        value = chunk(6, chunk(1, chunk(2, value)))
    return chunk(6, chunk(1, b"k") + chunk(2, value))


def _attributes(text: str) -> bytes:
    records = f'{{"eventName":"{s.UPDATED}","attributes":[{text}]}}'
    return f'{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{records}]}}]}}]}}'.encode()


def _two_parts() -> bytes:
    """Return gzip whose trailer claims a small size, which is that of its second part only."""
    return gzip.compress(_logs(b"\x32\x00" * MANY)) + gzip.compress(b"")


PLAIN: Final[dict[str, tuple[str, str, Callable[[], bytes]]]] = {
    "two million attributes": ("logs", PROTOBUF, lambda: _logs(b"\x32\x00" * MANY)),
    "a list of two million values": (
        "logs",
        PROTOBUF,
        lambda: _logs(chunk(6, chunk(1, b"k") + chunk(2, chunk(5, b"\x0a\x00" * MANY)))),
    ),
    "two million attributes of a resource": ("logs", PROTOBUF, lambda: chunk(1, chunk(1, b"\x0a\x00" * MANY))),
    "two million attributes of a span": ("traces", PROTOBUF, lambda: _within(IDS + b"\x4a\x00" * MANY)),
    "two million events of a span": ("traces", PROTOBUF, lambda: _within(IDS + b"\x5a\x00" * MANY)),
    "two million points of a metric": ("metrics", PROTOBUF, lambda: _within(chunk(5, b"\x0a\x00" * MANY))),
    "half a million attributes of a resource": ("logs", PROTOBUF, lambda: chunk(1, chunk(1, b"\x0a\x00" * FEW))),
    "half a million attributes of a span": ("traces", PROTOBUF, lambda: _within(IDS + b"\x4a\x00" * FEW)),
    "a thousand attributes of each of 500 records": ("logs", PROTOBUF, lambda: _logs(b"\x32\x00" * 1000, 500)),
    "lists of a thousand values in each of 500 records": (
        "logs",
        PROTOBUF,
        lambda: _logs(chunk(6, chunk(1, b"k") + chunk(2, chunk(5, b"\x0a\x00" * 1000))), 500),
    ),
    "maps in maps": ("logs", PROTOBUF, lambda: _logs(_nested(24), 8_000)),
    "maps in maps, thousands deep": ("logs", PROTOBUF, lambda: _logs(_nested(3_000))),
    "half a million attributes in JSON": ("logs", JSON, lambda: _attributes(",".join(["{}"] * FEW))),
    "60,000 attributes in JSON": ("logs", JSON, lambda: _attributes(",".join(["{}"] * 60_000))),
    "a million lists in JSON": ("logs", JSON, lambda: b'{"x":[' + b"[]," * 1_000_000 + b"0]}"),
    "a million names in JSON": ("logs", JSON, lambda: b'{"x":{' + b'"":0,' * 700_000 + b'"":0}}'),
    "JSON 100,000 deep": ("logs", JSON, lambda: b'{"resourceLogs":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "objects of JSON 100,000 deep": ("logs", JSON, lambda: b'{"a":' * 100_000 + b"0" + b"}" * 100_000),
    "JSON of quotes": ("logs", JSON, lambda: b'"' * 3_500_000 + b"," * 500_000),
}
BOMBS: Final = (*PLAIN, "gzip that lies about its size")
TELLING: Final = (
    "two million attributes",
    "half a million attributes of a span",
    "a thousand attributes of each of 500 records",
    "half a million attributes in JSON",
    "60,000 attributes in JSON",
    "JSON 100,000 deep",
)
"""Bombs that each run tries; the others are refused in the same way."""


def bomb(name: str) -> Bomb:
    """Return the bomb of this name."""
    if name not in PLAIN:
        return Bomb("logs", PROTOBUF, _two_parts())
    signal, kind, make = PLAIN[name]
    return Bomb(signal, kind, gzip.compress(make(), 6))
