"""OTLP, coming in: from a request to a message, and from a message to our events. All of this is pure."""

from __future__ import annotations

import base64
import json
import math
import re
import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any, Final, NamedTuple

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.model.status import Status
from otel_progress.monitor.intake import request_size
from otel_progress.monitor.intake.request_size import varint

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
BYTES: Final = 4 * 1024 * 1024
"""The most that a request holds, before and after it is unpacked."""
RECORDS: Final = 65_536
"""The most groups, scopes and records in a request; a few bytes each become hundreds in memory."""
MEMBERS: Final = 16
"""The most parts of a gzip body; each has a head of its own."""
BODY_SECONDS: Final = 10.0
"""The longest that a body may take to come in."""
DEPTH: Final = 20
"""The deepest that values are nested."""
RECORD_BYTES: Final = 320 * 1024
"""The largest event that is taken; ours have 256 KiB at the most."""
RECORD_SMALL: Final = 8 * 1024
"""In a request without a larger record nothing needs to be cut."""
RECORD_PARTS: Final = RECORD_SMALL // 2
"""The most attributes and values in one record; a small one can't hold more."""
READ: Final = 131_072
"""The most attributes that are read of one request; one of 4 MiB with events of ours has 67,000."""
CHEAPEST: Final = 16 * 1024
"""The size in bytes that a smaller request is charged for, too."""
JSON_COST: Final = 16
"""So much longer it takes to read JSON than protobuf."""
PACKED: Final = 32
"""The best ratio at which telemetry packs; what packs better costs more."""
RESOURCE_BYTES: Final = 16 * 1024
"""Of a resource that is larger only what is short is kept."""
SHORT: Final = 1_024
"""What names something is cut to so many characters."""
TEXT: Final = 16_384
"""Other texts of an event are cut to so many characters."""
ATTRIBUTES: Final = 128
"""So many attributes are kept, of what is an event's own and of a resource."""
_REQUESTS: Final[Mapping[str, type[Message]]] = {
    "logs": ExportLogsServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "traces": ExportTraceServiceRequest,
}
SIGNALS: Final = tuple(_REQUESTS)
"""What is taken."""
_RESPONSES: Final[Mapping[str, tuple[type[Message], str]]] = {
    "logs": (ExportLogsServiceResponse, "rejected_log_records"),
    "metrics": (ExportMetricsServiceResponse, "rejected_data_points"),
    "traces": (ExportTraceServiceResponse, "rejected_spans"),
}
_HEX_IDS: Final = frozenset({"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"})
_SMALLER: Final = "send fewer at a time"
_LEVELS: Final = (1, 2, 2)
"""The fields that lead from a request to its groups, their scopes and their records, in all three signals."""
_FIXED: Final = {1: 8, 5: 4}


class Refused(Exception):
    """A request that is not taken, with the HTTP status that says why."""

    def __init__(self, status: int, reason: str, retry_after: int | None = None) -> None:
        """With a status, a reason in words, and maybe the seconds after which it may come again."""
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class Allowance:
    """What may still be read of a request; what is beyond that is left out, and counted.

    Attributes:
        left: so many attributes more.
        refused: records and spans that were left out.
    """

    __slots__ = ("left", "refused")

    def __init__(self) -> None:
        """For a whole request."""
        self.left = READ
        self.refused = 0

    def covers(self, message: Any, is_large: bool) -> bool:
        """Whether a record or a span may be read whose attributes were taken off; `is_large` where it may be large."""
        if self.left >= 0 and not (is_large and _has_too_many_parts(message)):
            return True
        self.refused += 1
        return False


def _has_too_many_parts(message: Message) -> bool:
    if message.ByteSize() <= RECORD_SMALL:
        return False
    kind = _kind("logs" if isinstance(message, LogRecord) else "traces")
    for level in _LEVELS:
        kind = kind.parts[level]
    return request_size.count(message.SerializeToString(), kind, RECORD_PARTS) > RECORD_PARTS


@lru_cache(maxsize=4)
def _kind(signal: str) -> request_size.Kind:
    return request_size.kind_of(_REQUESTS[signal].DESCRIPTOR)


@dataclass(frozen=True)
class Parcel:
    """A request that came in: its signal, the message, the same as protobuf bytes, and those of its largest record."""

    signal: str
    message: Message
    body: bytes
    largest: int = RECORD_SMALL + 1
    allowance: Allowance = field(default_factory=Allowance)


@dataclass(frozen=True)
class Taken:
    """What became of a parcel: items that were refused although the rest was taken, and why."""

    rejected: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Sender:
    """Who waits for the answer to a request.

    Attributes:
        connection: what its requests come by.
        token: what it was admitted by; many connections may share one.
        is_gone: whether nobody waits for the answer any more.
    """

    connection: Hashable = None
    token: Hashable = None
    is_gone: Callable[[], bool] = lambda: False


NOBODY: Final = Sender()
"""The sender of what this process says itself."""


@dataclass(frozen=True)
class Envelope:
    """A request as it came in: its signal, its body, whether that is gzip, whether it is JSON, and its sender."""

    signal: str
    body: bytes
    zipped: bool = False
    is_json: bool = False
    sender: Sender = NOBODY

    @property
    def size(self) -> int:
        """How many bytes it says that it has when it is unpacked; `open` refuses one that has more."""
        if not self.zipped:
            return len(self.body)
        return max(len(self.body), int.from_bytes(self.body[-4:], "little"))

    @property
    def cost(self) -> int:
        """What it will cost to read, about, in bytes of protobuf.

        What packs far better than telemetry does consists of many small parts, and JSON takes longer.
        """
        size = max(CHEAPEST, min(self.size, BYTES))
        return size * max(1, size // (max(1, len(self.body)) * PACKED)) * (JSON_COST if self.is_json else 1)

    def open(self, most_bytes: int = BYTES, most_records: int = RECORDS) -> Parcel:
        """The message in it.

        Raises:
            Refused: for what is no such message, or holds too much.
        """
        said = max(self.size, MEMBERS * len(self.body))
        body = inflate(self.body, min(most_bytes, said)) if self.zipped else self.body
        return parse(self.signal, body, json_body=self.is_json, most=most_records)


_KIND: Final = "value"
_BRIEF: Final[Mapping[str, str]] = {
    s.OPERATION_ID: "string_value",
    s.OPERATION_NAME: "string_value",
    s.OPERATION_PARENT_ID: "string_value",
    s.OPERATION_ATTEMPT: "int_value",
    s.SEQUENCE: "int_value",
    s.STATUS: "string_value",
    s.HEALTH: "string_value",
    s.START_TIME: "double_value",
    s.ELAPSED: "double_value",
    s.SLOW_AFTER: "double_value",
    s.START_WITHIN: "double_value",
    s.WAIT_REMAINING: "double_value",
    s.RATIO: "double_value",
    s.GEN_AI_AGENT: "string_value",
    s.STAGE_PATH: "string_value",
    s.HEARTBEAT_INTERVAL: "double_value",
}
"""What is read of every event at once, and the form in which it usually comes; the rest is read when somebody asks."""
_LAST: Final = s.IDLE
"""In an event of our own SDK all that is read at once of one that runs stands before this one."""
_WAIT: Final = frozenset({s.WAIT_REASON, s.WAIT_DURATION})
_OWN: Final = s.EVENT_ATTRIBUTES | {s.EXIT_CODE, s.EXIT_SIGNAL, s.EXIT_OUT_OF_MEMORY, s.EXIT_STDERR}


class Record:
    """One of our log events. All but what its operation is told apart and judged by is decoded when it is asked for.

    Attributes:
        event: its name.
        time: when it happened, in ns since 1970.
        brief: the attributes that are read at once.
        own: what it says beside the state of its operation.
        trace: the id of its trace, 16 bytes or none.
    """

    __slots__ = ("_message", "_raw", "brief", "event", "own", "time", "trace")

    def __init__(self, event: str, message: LogRecord) -> None:
        """Read a record that bears one of our names."""
        self.event = event
        self.time: int = message.time_unix_nano or message.observed_time_unix_nano or clock.time_ns()
        self.trace: bytes = message.trace_id
        self._message: LogRecord | None = message
        self._raw = b""
        self.brief: dict[str, Any] = {}
        self.own: dict[str, Any] = _NOTHING
        brief, usual = self.brief, _BRIEF.get
        plain, whole = event in _PLAIN, event in _WHOLE
        for pair in message.attributes:
            key = pair.key
            if key == _LAST and not whole and _is_read(brief):
                break
            form = usual(key)
            if form is not None:
                value = pair.value
                brief[key] = getattr(value, form) or _scalar(value)
            elif not plain and _is_own(event, key):
                if self.own is _NOTHING:
                    self.own = {}
                if key not in self.own:  # what the event says stands before what the state says
                    self.own[key] = _value(pair.value, 0)

    def bound(self) -> None:
        """Cut what is too long; an id can't be cut, as it would be another one."""
        for key, value in self.brief.items():
            if type(value) is str and len(value) > SHORT:
                self.brief[key] = None if key in _IDS else value[:SHORT]
        kept = islice(self.own.items(), ATTRIBUTES)
        self.own = {key[:SHORT]: value[:TEXT] if type(value) is str else value for key, value in kept}

    def seal(self) -> None:
        """Hold no more of its request than itself from now on; a part of a message keeps all of that in memory."""
        if self._message is not None:
            self._raw, self._message = self._message.SerializeToString(), None

    @property
    def raw(self) -> bytes:
        """All of it, as protobuf."""
        self.seal()
        return self._raw

    @property
    def text(self) -> str:
        """The event in words."""
        text: str = self._whole().body.string_value
        return text

    @property
    def owner(self) -> str | None:
        """Whom its operation belongs to, as far as this event says."""
        for pair in self._whole().attributes:
            if pair.key == s.ATTRIBUTES:
                return owner_in(pair.value.string_value)
        return None

    @property
    def attributes(self) -> dict[str, Any]:
        """All its attributes."""
        found = plain(self._whole().attributes)
        for key in _JSON_TEXTS & found.keys():
            found[key] = sound_json(found[key])
        return found

    @property
    def trace_id(self) -> str:
        """In hex, or empty."""
        return self.trace.hex()

    @property
    def span_id(self) -> str:
        """In hex, or empty."""
        return self._whole().span_id.hex()

    @property
    def sampled(self) -> bool:
        """Whether its trace is kept."""
        return bool(self._whole().flags & 1)

    def _whole(self) -> LogRecord:
        return LogRecord.FromString(self._raw) if self._message is None else self._message


def _is_own(event: str, key: str) -> bool:
    """Whether an event says this beside the state of its operation."""
    if key in _WAIT:
        return event in (s.WAIT_STARTED, s.WAIT_ENDED)
    if key == s.STATUS_REASON:
        return event == s.OPERATION_ENDED
    return key in _OWN or not key.startswith(_NOT_OWN)


_NOTHING: Final[dict[str, Any]] = {}


def _is_read(brief: Mapping[str, Any]) -> bool:
    """Whether it is an event of our own SDK, of one that runs: the rest of it is read when somebody asks."""
    return next(iter(brief), None) == s.SEQUENCE and brief.get(s.STATUS) == Status.RUNNING


def _scalar(value: Any) -> Any:
    """The value, in whatever form it came; None where it is no scalar."""
    kind = value.WhichOneof(_KIND)
    return getattr(value, kind) if kind in _SCALARS else None


_IDS: Final = frozenset({s.OPERATION_ID, s.OPERATION_PARENT_ID})
_JSON_TEXTS: Final = frozenset(
    {s.ATTRIBUTES, s.COUNTERS, s.LOOP, s.OUTCOMES, s.RESULT, s.STAGES, s.STAGES_FOLDED, s.STAGES_REPEATED, s.USAGE}
)
_SCALARS: Final = frozenset({"string_value", "int_value", "double_value", "bool_value"})
_PLAIN: Final = frozenset({s.UPDATED, s.HEARTBEAT})
"""Events that say nothing beside the state."""
_WHOLE: Final = frozenset({s.OPERATION_ENDED, s.STALLED, s.RECOVERED, s.WAIT_STARTED, s.WAIT_ENDED})
"""Events that are about what is part of the state as well; of the others all that they say stands before it."""
_NOT_OWN: Final = (s.PREFIX, "gen_ai.", s.EVENT_NAME)


def owner_in(attributes: str) -> str | None:
    """The owner that the attributes of an operation name."""
    if '"owner"' not in attributes:
        return None
    return _short_owner(attributes) if len(attributes) <= SHORT else _owner(attributes)


def _owner(attributes: str) -> str | None:
    try:
        owner = json.loads(attributes).get(s.OWNER)
    except (ValueError, AttributeError, RecursionError):
        return None
    return owner if isinstance(owner, str) and len(owner) <= SHORT else None


_short_owner = lru_cache(maxsize=10_000)(_owner)


def sound_json(text: Any) -> Any:
    """The same JSON text without what can't be said again, and not deeper than `DEPTH`.

    What comes from another program may be well-formed, and yet make what we answer ill-formed.
    """
    if not isinstance(text, str) or not (_ODD.search(text) or text.count("[") + text.count("{") > ODD_BRACKETS):
        return text
    try:
        return json.dumps(_sound(json.loads(text), 0), ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        return "null"


_ODD: Final = re.compile(r"\\u[dD][89a-fA-F]|(?<![0-9.a-f])[0-9]{16}|[0-9][eE][+]?[0-9]{3,}(?![0-9a-f])|NaN|Infinity")
"""What JSON may say that can't be said again: half a surrogate pair, and numbers beyond 64 bits."""
ODD_BRACKETS: Final = 300
"""So many lists and objects may be nested too deep."""
_INT: Final = 2**63 - 1


def _sound(value: Any, depth: int) -> Any:
    if depth > DEPTH:
        return None
    if isinstance(value, dict):
        return {_utf8(key): _sound(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_sound(item, depth + 1) for item in value]
    if isinstance(value, str):
        return _utf8(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return max(-_INT, min(value, _INT))
    return value


def _utf8(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def record(raw: bytes) -> Record:
    """The record that these bytes are.

    Raises:
        DecodeError: where they are none.
    """
    message = LogRecord.FromString(raw)
    return Record(_event(message), message)


class Group(NamedTuple):
    """What one resource said under one scope; `records` are those that are events of ours, but `void` ones."""

    resource: dict[str, Any]
    scope: str
    records: tuple[Record, ...]
    void: int = 0


Due = Callable[[str, int], bool]
"""Whether a plain update of this operation, at this time in ns, is wanted for its own sake."""


def groups(parcel: Parcel, is_due: Due = lambda *_: True) -> Iterator[Group]:
    """Our events in a request of logs; a group without any is still a sign of life of its resource.

    A plain update that is followed by a newer event of its operation is void, unless it is due.
    """
    message = parcel.message
    assert isinstance(message, ExportLogsServiceRequest)
    for by_resource in message.resource_logs:
        resource = about(by_resource.resource, parcel.allowance)
        for by_scope in by_resource.scope_logs:
            found, void = _records(by_scope.log_records, is_due, parcel)
            if parcel.largest > RECORD_SMALL:
                found = [_bounded(record) for record in found]
            yield Group(resource, by_scope.scope.name, tuple(found), void)


def _records(messages: Any, is_due: Due, parcel: Parcel) -> tuple[list[Record], int]:
    """Our events, without those that are void, and how many these are."""
    is_large, left = parcel.largest > RECORD_SMALL, parcel.allowance.left
    found: list[Record] = []
    newest: dict[Any, int] = {}
    void = 0
    for message in reversed(messages):
        event = message.event_name or _event(message)
        if event not in s.EVENTS:
            continue
        attributes = message.attributes
        if event == s.UPDATED:
            key, sequence = _place(attributes)
            if sequence < newest.get(key, 0) and not is_due(key, message.time_unix_nano):
                void += 1
                continue
        left -= len(attributes)
        if left < 0 or (is_large and _has_too_many_parts(message)):
            parcel.allowance.refused += 1
            continue
        record = Record(event, message)
        found.append(record)
        said = record.brief.get(s.SEQUENCE)
        if event == s.OPERATION_STARTED:
            newest.pop(record.brief.get(s.OPERATION_ID), None)  # what stands before it is of another attempt
        elif type(said) is int:
            newest[record.brief.get(s.OPERATION_ID)] = said
    found.reverse()
    parcel.allowance.left = left
    return found, void


def _place(attributes: Any) -> tuple[str, int]:
    """Operation and sequence of an event, where it is one of our own SDK."""
    if len(attributes) > 3 and attributes[0].key == s.SEQUENCE:
        for at in (1, 3):  # behind the stage, where it is about one
            if attributes[at].key == s.OPERATION_ID:
                return attributes[at].value.string_value, attributes[0].value.int_value
    return "", 0


def _bounded(record: Record) -> Record:
    """The same with nothing in it that is too long; of one that is too large nothing is left, so it is no event."""
    if len(record.raw) > RECORD_BYTES:
        return Record(record.event, LogRecord(event_name=record.event))
    record.bound()
    return record


def about(resource: Any, allowance: Allowance) -> dict[str, Any]:
    """What a resource says of itself; of a large one, what is short."""
    allowance.left -= min(len(resource.attributes), RECORD_PARTS)
    if resource.ByteSize() <= RESOURCE_BYTES and allowance.left >= 0:
        return plain(resource.attributes)
    some = (pair for pair in islice(resource.attributes, RECORD_PARTS) if pair.ByteSize() <= 4 * SHORT)
    found = ((pair.key, _value(pair.value, 0)) for pair in (some if allowance.left >= 0 else ()))
    return dict(islice(((key, value) for key, value in found if _is_short(value)), ATTRIBUTES))


def _is_short(value: Any) -> bool:
    return not isinstance(value, (list, dict, bytes)) and (not isinstance(value, str) or len(value) <= SHORT)


def _event(message: LogRecord) -> str:
    """The name of an event; before log records had a name of their own, it was an attribute."""
    name: str = message.event_name
    if not name:
        for pair in islice(message.attributes, ATTRIBUTES):
            if pair.key == s.EVENT_NAME:
                return str(pair.value.string_value)
    return name


def plain(pairs: Any, depth: int = 0) -> dict[str, Any]:
    """Attributes as a dict of plain values."""
    return {pair.key: _value(pair.value, depth) for pair in pairs}


def _value(value: Any, depth: int) -> Any:
    kind = value.WhichOneof("value")
    if kind is None or depth > DEPTH:
        return None
    if kind == "array_value":
        return [_value(item, depth + 1) for item in value.array_value.values]
    if kind == "kvlist_value":
        return plain(value.kvlist_value.values, depth + 1)
    return getattr(value, kind)


def inflate(body: bytes, most: int) -> bytes:
    """Unpack gzip, to at most so many bytes.

    Raises:
        Refused: for what is no whole gzip, or would be larger.
    """
    out = bytearray()
    for _ in range(MEMBERS):
        unzip = zlib.decompressobj(31)
        try:
            out += unzip.decompress(body, most + 1 - len(out))
        except zlib.error as error:
            raise Refused(400, f"the body is no gzip: {error}") from None
        if len(out) > most:
            raise Refused(413, f"unpacked, the body is larger than {most} bytes")
        if not unzip.eof:
            raise Refused(400, "the gzip body is cut off")
        body = unzip.unused_data
        if not body:
            return bytes(out)
    raise Refused(400, f"the gzip body has more than {MEMBERS} parts")


def count(body: bytes, most: int) -> int:
    """Groups, scopes and records of a request, counted without building any; the count ends above `most`.

    Raises:
        Refused: for what is no protobuf.
    """
    return _walk(body, most)[0]


def _walk(body: bytes, most: int) -> tuple[int, int]:
    """What `count` counts, and how large the largest record is."""
    try:
        return _walked(body, most)
    except request_size.Malformed as error:
        raise Refused(400, str(error)) from None


def _walked(body: bytes, most: int) -> tuple[int, int]:
    found = largest = 0
    spans = [(0, len(body), 0)]
    while spans and found <= most:
        at, end, level = spans.pop()
        while at < end and found <= most:
            tag, at = varint(body, at, end)
            kind = tag & 7
            if kind == 2:
                size, at = varint(body, at, end)
                if at + size > end:
                    raise request_size.Malformed("the body is no protobuf: it is cut off")
                if tag >> 3 == _LEVELS[level]:
                    found += 1
                    if level + 1 < len(_LEVELS):
                        spans.append((at, at + size, level + 1))
                    elif size > largest:
                        largest = size
                at += size
            elif kind == 0:
                _, at = varint(body, at, end)
            elif kind in _FIXED:
                at += _FIXED[kind]
            else:
                raise request_size.Malformed("the body is no protobuf")
    return found, largest


def parse(signal: str, body: bytes, *, json_body: bool = False, most: int = RECORDS) -> Parcel:
    """A body, unpacked already, as a message.

    Raises:
        Refused: for what is no such message, or holds too many records.
    """
    if json_body:
        return _parse_json(signal, body, most)
    largest = _admitted(body, most)
    _check_parts(signal, body)
    try:
        return Parcel(signal, _REQUESTS[signal].FromString(body), body, largest)
    except DecodeError as error:
        raise Refused(400, f"the body is no protobuf message of {signal}: {error}") from None


def _check_parts(signal: str, body: bytes) -> None:
    try:
        has_too_many = request_size.holds_more(body, _kind(signal))
    except request_size.Malformed as error:
        raise Refused(400, str(error)) from None
    if has_too_many:
        raise Refused(413, f"the request holds more than {request_size.PARTS} attributes and values; {_SMALLER}")


def _parse_json(signal: str, body: bytes, most: int) -> Parcel:
    if request_size.json_holds_more(body):
        raise Refused(
            413,
            f"the request holds more than {request_size.OBJECTS} objects or {request_size.TOKENS} values; {_SMALLER}",
        )
    message = _REQUESTS[signal]()
    try:
        given = _with_base64(json.loads(body))
        json_format.ParseDict(given, message, ignore_unknown_fields=True)
    except (ValueError, TypeError, AttributeError, RecursionError, json_format.ParseError) as error:
        raise Refused(400, f"the body is no JSON message of {signal}: {str(error)[:200]}") from None
    packed = message.SerializeToString()
    return Parcel(signal, message, packed, _admitted(packed, most))


def _admitted(body: bytes, most: int) -> int:
    """The size of the largest record of a request that does not hold too many."""
    found, largest = _walk(body, most)
    if found > most:
        raise Refused(413, f"the request holds more than {most} records")
    return largest


def _with_base64(value: Any) -> Any:
    """The same with ids as protobuf's JSON has them; OTLP writes them in hex."""
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


def answer(signal: str, taken: Taken) -> Message:
    """The message that answers a request which was taken, in part at least."""
    kind, field = _RESPONSES[signal]
    message: Any = kind()
    if taken.rejected or taken.reason:
        setattr(message.partial_success, field, taken.rejected)
        message.partial_success.error_message = taken.reason
    built: Message = message
    return built
