"""OTLP requests: their size limits, how they are unpacked and parsed, and how they are answered or refused.

Nothing here performs I/O. `http.py` and `grpc.py` receive requests, `records.py` reads events from them.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Union

from otel_progress.monitor.intake import json_parts, request_parts, request_size
from otel_progress.monitor.intake.json_text import whole_texts
from otel_progress.monitor.intake.messages import (
    RECORD_PATH,
    REQUESTS,
    DecodeError,
    LogRecord,
    Message,
    from_json,
)
from otel_progress.monitor.intake.request_size import Malformed, varint
from otel_progress.outbound.loopback import is_loopback

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
BYTES: Final = 4 * 1024 * 1024
"""The size in bytes up to which a request is parsed as a whole."""
LARGEST: Final = 4 * BYTES
"""The size limit of a request in bytes, both compressed and uncompressed; above `BYTES` it is parsed in parts."""
RECORDS: Final = 65_536
"""The most resources, scopes and records in a request; each takes a few bytes on the wire and hundreds in memory."""
OTHERS: Final = 4 * RECORDS
"""The most other fields of a request, its resources and its scopes; a group with a scope and a record has four."""
MEMBERS: Final = 16
"""The most members of a gzip body; each has its own header."""
BODY_SECONDS: Final = 10.0
"""Seconds within which a body must arrive."""
RECORD_SMALL: Final = 8 * 1024
"""Bytes up to which a record is small: it needs no check of its own, and nothing in it is cut."""
RECORD_PARTS: Final = RECORD_SMALL // 2
"""The most attributes and values in one record; a small record cannot hold more."""
READ: Final = 131_072
"""The most attributes read from one request; a request of 4 MiB with our own events has 67,000."""
CHEAPEST: Final = 16 * 1024
"""The minimum cost of a request in bytes; smaller requests cost as much."""
JSON_COST: Final = 16
"""How many times longer JSON takes to parse than protobuf."""
PACKED: Final = 32
"""The best compression ratio of real telemetry; a request with a higher ratio costs more."""
_HEX_IDS: Final = frozenset({"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"})
_SMALLER: Final = "send smaller batches"
_FIXED: Final = {1: 8, 5: 4}


RETRY_AFTER: Final = 1
"""Seconds after which a sender should retry while the store cannot be written; many exporters give up after 5 s."""


class Refused(Exception):
    """A refused request, with the HTTP status and the reason."""

    def __init__(self, status: int, reason: str, retry_after: int | None = None) -> None:
        """With `retry_after` the sender may retry after that many seconds."""
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class Allowance:
    """How many attributes may still be read from a request; what exceeds it is skipped and counted.

    Attributes:
        left: the number of attributes left; negative once the allowance is exceeded.
        refused: the number of records and spans skipped.
        too_large: the number of events skipped because each has too many bytes.
    """

    __slots__ = ("left", "refused", "too_large")

    def __init__(self, attributes: int = READ) -> None:
        """For a whole request."""
        self.left = attributes
        self.refused = 0
        self.too_large = 0

    def covers(self, message: Any, is_large: bool) -> bool:
        """Whether a record or span may be read; the caller has already subtracted its attributes from `left`.

        `is_large` says that the request holds records above `RECORD_SMALL`.
        """
        if self.left >= 0 and not (is_large and has_too_many_parts(message)):
            return True
        self.refused += 1
        return False


def has_too_many_parts(message: Message) -> bool:
    """Whether a log record or a span holds more than `RECORD_PARTS` attributes and values."""
    if message.ByteSize() <= RECORD_SMALL:
        return False
    kind = _kind("logs" if isinstance(message, LogRecord) else "traces")
    for number in RECORD_PATH:
        kind = kind.parts[number]
    return request_size.count(message.SerializeToString(), kind, RECORD_PARTS) > RECORD_PARTS


@lru_cache(maxsize=4)
def _kind(signal: str) -> request_size.MessageType:
    return request_size.kind_of(REQUESTS[signal].DESCRIPTOR)


@dataclass(frozen=True)
class Parcel:
    """A parsed request.

    Attributes:
        signal: `logs`, `metrics` or `traces`.
        message: the request message.
        body: the same message as protobuf bytes.
        largest: the size of its largest record in bytes.
        allowance: how much may be read from it.
    """

    signal: str
    message: Message
    body: bytes
    largest: int = RECORD_SMALL + 1
    allowance: Allowance = field(default_factory=Allowance)


@dataclass(frozen=True)
class Accepted:
    """The answer to an accepted request: how many of its items were rejected, and why."""

    rejected: int = 0
    reason: str = ""


Acknowledgement = Union[Accepted, Refused]
Done = Callable[[Acknowledgement], None]
"""Called once with the answer to a request, by another thread."""


@dataclass(frozen=True)
class Sender:
    """Who waits for the answer to a request.

    Attributes:
        connection: the connection that the request came by.
        token: the token that admitted it; many connections may share one.
        is_gone: whether nobody waits for the answer any more.
        address: where the connection comes from; None for this machine, which is never too fast.
    """

    connection: Hashable = None
    token: Hashable = None
    is_gone: Callable[[], bool] = lambda: False
    address: str | None = None

    @property
    def port(self) -> int | None:
        """The port that the connection comes from, if that is this machine; None if it is another one, or unknown."""
        if self.address is not None:
            return None
        connection = self.connection
        last = connection[-1] if isinstance(connection, tuple) else str(connection).rpartition(":")[2]
        return int(last) if str(last).isdecimal() else None


def address_of(host: str | None) -> str | None:
    """The address of a sender; None for this machine."""
    return None if host is None or _is_here(host) else host


_is_here = lru_cache(maxsize=10_000)(is_loopback)

NOBODY: Final = Sender()
"""The sender of requests that this process makes itself."""


@dataclass(frozen=True)
class Envelope:
    """An unparsed request: its signal, its body and encoding, and its sender."""

    signal: str
    body: bytes
    zipped: bool = False
    is_json: bool = False
    sender: Sender = NOBODY

    @property
    def size(self) -> int:
        """The uncompressed size in bytes that the body claims; `open` refuses a body that is larger."""
        if not self.zipped:
            return len(self.body)
        return max(len(self.body), int.from_bytes(self.body[-4:], "little"))

    @property
    def cost(self) -> int:
        """The estimated cost of reading it, in bytes of protobuf.

        A body that compresses far better than telemetry consists of many small parts, and JSON takes longer.
        """
        size = max(CHEAPEST, min(self.size, LARGEST))
        return size * max(1, size // (max(1, len(self.body)) * PACKED)) * (JSON_COST if self.is_json else 1)

    def open(self, most_bytes: int = BYTES, most_records: int = RECORDS) -> Parcel:
        """Unpack and parse it.

        Raises:
            Refused: if it is malformed or exceeds a limit.
        """
        return parse(self.signal, self._unpacked(most_bytes), json_body=self.is_json, most=most_records)

    def check(self) -> None:
        """Unpack it and look through its parts, without parsing them: for requests of which nothing is kept.

        Raises:
            Refused: if it is malformed or exceeds a limit.
        """
        if self.is_json:
            for _ in self.parcels():
                pass
        else:
            _largest_record(self._unpacked(LARGEST), RECORDS)

    def _unpacked(self, most: int) -> bytes:
        claimed = max(self.size, MEMBERS * len(self.body))
        return inflate(self.body, min(most, claimed)) if self.zipped else self.body

    def parcels(self) -> Iterator[Parcel]:
        """Unpack and parse it, a large one in parts: only one part of it is in memory as a message.

        Raises:
            Refused: if it is malformed or exceeds a limit.
        """
        if self.size <= BYTES:
            yield self.open()
            return
        if self.is_json:
            yield from self._json_parcels()
            return
        body = self._unpacked(LARGEST)
        _largest_record(body, LARGEST // BYTES * RECORDS)  # each part may have RECORDS
        try:
            for part in request_parts.parts(body, BYTES):
                yield parse(self.signal, part)
        except request_parts.TooLarge as error:
            raise Refused(413, str(error)) from None
        except Malformed as error:
            raise Refused(400, str(error)) from None

    def _json_parcels(self) -> Iterator[Parcel]:
        body = self._unpacked(LARGEST)
        times = LARGEST // BYTES
        if request_size.json_holds_more(body, times * request_size.OBJECTS, times * request_size.TOKENS):
            raise Refused(413, f"the request holds more than {times * request_size.OBJECTS} objects; {_SMALLER}")
        try:
            for part in json_parts.parts(body, BYTES):
                yield parse(self.signal, part, json_body=True)
        except json_parts.TooLargePart as error:
            raise Refused(413, str(error)) from None
        except json_parts.Unreadable as error:
            raise Refused(400, f"the body is not a JSON message of {self.signal}: {str(error)[:200]}") from None


def inflate(body: bytes, most: int) -> bytes:
    """Unpack gzip, up to `most` bytes.

    Raises:
        Refused: if the body is not complete gzip, or its content is larger.
    """
    out = bytearray()
    for _ in range(MEMBERS):
        unzip = zlib.decompressobj(31)
        try:
            out += unzip.decompress(body, most + 1 - len(out))
        except zlib.error as error:
            raise Refused(400, f"the body is not gzip: {error}") from None
        if len(out) > most:
            raise Refused(413, f"the uncompressed body is larger than {most} bytes; {_SMALLER}")
        if not unzip.eof:
            raise Refused(400, "the gzip body is truncated")
        body = unzip.unused_data
        if not body:
            return bytes(out)
    raise Refused(400, f"the gzip body has more than {MEMBERS} members")


def parse(signal: str, body: bytes, *, json_body: bool = False, most: int = RECORDS, attributes: int = READ) -> Parcel:
    """Parse an uncompressed body.

    Args:
        signal: `logs`, `metrics` or `traces`.
        body: protobuf or JSON.
        json_body: whether it is JSON.
        most: the most resources, scopes and records in it.
        attributes: the most attributes that are read from it.

    Raises:
        Refused: if it is malformed or exceeds a limit.
    """
    if json_body:
        return _parse_json(signal, body, most, attributes)
    largest = _largest_record(body, most)
    _check_parts(signal, body)
    try:
        message = REQUESTS[signal].FromString(body)
    except DecodeError as error:
        raise Refused(400, f"the body is not a protobuf message of {signal}: {error}") from None
    return Parcel(signal, message, body, largest, Allowance(attributes))


def _parse_json(signal: str, body: bytes, most: int, attributes: int) -> Parcel:
    if request_size.json_holds_more(body):
        raise Refused(
            413,
            f"the request holds more than {request_size.OBJECTS} objects or {request_size.TOKENS} values; {_SMALLER}",
        )
    try:
        message = _from_json(signal, _with_base64(json.loads(body)))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(400, f"the body is not a JSON message of {signal}: {str(error)[:200]}") from None
    packed = message.SerializeToString()
    return Parcel(signal, message, packed, _largest_record(packed, most), Allowance(attributes))


def _from_json(signal: str, given: Any) -> Any:
    """The message; a text that was cut in the middle of a character loses that half, as JavaScript cuts them."""
    try:
        return from_json(signal, given)
    except ValueError:
        whole = whole_texts(given)
        if whole == given:
            raise
        return from_json(signal, whole)


def _with_base64(value: Any) -> Any:
    """Ids as protobuf's JSON mapping wants them; OTLP writes them in hex."""
    if isinstance(value, list):
        return [_with_base64(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: base64.b64encode(bytes.fromhex(item)).decode()
        if key in _HEX_IDS and isinstance(item, str)
        else _with_base64(item)
        for key, item in value.items()
    }


def _check_parts(signal: str, body: bytes) -> None:
    try:
        has_too_many = request_size.holds_more(body, _kind(signal))
    except Malformed as error:
        raise Refused(400, str(error)) from None
    if has_too_many:
        raise Refused(
            413, f"the request holds more than {request_size.PARTS} attributes and values, or other fields; {_SMALLER}"
        )


def _largest_record(body: bytes, most: int) -> int:
    """The size of the largest record of a request that holds at most `most` resources, scopes and records.

    Raises:
        Refused: if it holds more, or is not protobuf.
    """
    try:
        found, largest = count_records(body, most)
    except Malformed as error:
        raise Refused(400, str(error)) from None
    if found > most:
        raise Refused(413, f"the request holds more than {most} resources, scopes and records; {_SMALLER}")
    return largest


def count_records(body: bytes, most: int) -> tuple[int, int]:
    """Count resources, scopes and records without parsing them; with it comes the size of the largest record.

    Counting stops above `most`.

    Raises:
        Malformed: if the body is not protobuf, or hardly anything in it is a record.
    """
    found = largest = others = 0
    spans = [(0, len(body), 0)]
    while spans and found <= most:
        at, end, level = spans.pop()
        while at < end and found <= most:
            tag, at = varint(body, at, end)
            kind = tag & 7
            if kind == 2:
                size, at = varint(body, at, end)
                if at + size > end:
                    raise Malformed("the body is not protobuf: it is truncated")
                if tag >> 3 == RECORD_PATH[level]:
                    found += 1
                    if level + 1 < len(RECORD_PATH):
                        spans.append((at, at + size, level + 1))
                    elif size > largest:
                        largest = size
                    at += size
                    continue
                at += size
            elif kind == 0:
                _, at = varint(body, at, end)
            elif kind in _FIXED:
                at += _FIXED[kind]
            else:
                raise Malformed("the body is not protobuf")
            others += 1
            if others > OTHERS:
                raise Malformed(f"the body holds more than {OTHERS} fields around its records")
    return found, largest
