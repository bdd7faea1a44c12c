"""Our events in an OTLP logs request, read lazily: only what orders and judges an operation is decoded at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, Final, NamedTuple

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.model.attribute_types import JSON_TEXTS
from otel_progress.model.deltas import merge
from otel_progress.model.wire import STATE
from otel_progress.monitor.intake.json_text import DEPTH, sound_json
from otel_progress.monitor.intake.messages import ExportLogsServiceRequest, LogRecord, Resource
from otel_progress.monitor.intake.requests import RECORD_PARTS, RECORD_SMALL, Allowance, Parcel, has_too_many_parts

RECORD_BYTES: Final = 320 * 1024
"""The largest event that is kept whole; our own have at most 256 KiB."""
RESOURCE_BYTES: Final = 16 * 1024
"""Of a larger resource only short attributes are kept."""
REPEATED: Final = 10_000
"""The most resources whose attributes are remembered: each request of a program repeats them."""
REPEATED_BYTES: Final = 1_024
"""The size of a resource in bytes up to which its attributes are remembered."""
SHORT: Final = 1_024
"""The most characters of a name; longer ones are cut."""
TEXT: Final = 16_384
"""The most characters of any other text of an event; longer ones are cut."""
ATTRIBUTES: Final = 128
"""The most attributes kept of a resource, and of an event beside the state of its operation."""
_KIND: Final = "value"
_BRIEF: Final[Mapping[str, str]] = {
    s.OPERATION_ID: "string_value",
    s.OPERATION_NAME: "string_value",
    s.OPERATION_PARENT_ID: "string_value",
    s.OPERATION_ATTEMPT: "int_value",
    s.SEQUENCE: "int_value",
    s.KEYFRAME: "int_value",
    s.STATUS: "string_value",
    s.HEALTH: "string_value",
    s.START_TIME: "double_value",
    s.ELAPSED: "double_value",
    s.IDLE: "double_value",
    s.SLOW_AFTER: "double_value",
    s.START_WITHIN: "double_value",
    s.WAIT_REMAINING: "double_value",
    s.RATIO: "double_value",
    s.COMPLETED: "int_value",
    s.TOTAL: "int_value",
    s.RESTORED: "int_value",
    s.CURVE: "string_value",
    s.GEN_AI_AGENT: "string_value",
    s.STAGE_PATH: "string_value",
    s.STAGE_CURRENT: "string_value",
    s.HEARTBEAT_INTERVAL: "double_value",
    s.JUDGED_BY: "string_value",
    s.PROCESS_PID: "int_value",
}
"""The attributes that are decoded at once, with their usual type; the others are decoded on demand."""
_OF_EVENTS: Final = _BRIEF.keys() - STATE
"""Those of them that a delta does not inherit."""
_USUAL: Final[Mapping[str, tuple[str, str]]] = {name: (name, form) for name, form in _BRIEF.items()}
_OWN: Final = s.EVENT_ATTRIBUTES | {s.EXIT_CODE, s.EXIT_SIGNAL, s.EXIT_OUT_OF_MEMORY, s.EXIT_STDERR}
_WHOLE: Final = frozenset({s.OPERATION_ID, s.OPERATION_PARENT_ID, s.CURVE})
"""Texts that mean something else, or nothing, once they are cut."""
_SCALARS: Final = frozenset({"string_value", "int_value", "double_value", "bool_value"})
_PLAIN: Final = frozenset({s.UPDATED, s.HEARTBEAT})
"""Events that carry nothing beside the state."""
_WAITS: Final = frozenset({s.WAIT_STARTED, s.WAIT_OVERDUE, s.WAIT_ENDED})
_STALLS: Final = frozenset({s.OPERATION_ENDED, s.STALLED, s.RECOVERED})
_OWN_IN: Final[Mapping[str, frozenset[str]]] = {
    s.WAIT_REASON: _WAITS,
    s.WAIT_DURATION: _WAITS,
    s.STATUS_REASON: frozenset({s.OPERATION_ENDED}),
    s.HEALTH_REASON: _STALLS | {s.SLOW, s.WAIT_OVERDUE},
    s.STUCK_AT: _STALLS,
    s.STACK: _STALLS,
}
"""Attributes of the state that belong to these events themselves, too."""
_NOT_OWN: Final = (s.PREFIX, "gen_ai.", s.EVENT_NAME)
_NOTHING: Final[dict[str, Any]] = {}


class Record:
    """One of our log events. What neither orders nor judges its operation is decoded on demand.

    A delta says all that its keyframe says, once it was put on that keyframe.

    Attributes:
        base: the keyframe that a delta was put on.
        event: the event name.
        is_foreign: whether no SDK of ours sent it; then a ratio that is left out follows from the counts.
        time: when it happened, in ns since 1970.
        brief: the attributes that are decoded at once.
        left_out: the names of the attributes that made it too large, and were removed.
        own: the attributes that are not part of the state of its operation.
        trace: the trace id, 16 bytes or none.
    """

    __slots__ = (
        *("_message", "_raw", "_unsets", "base", "brief"),
        *("event", "is_foreign", "left_out", "own", "time", "trace"),
    )

    def __init__(self, event: str, message: LogRecord, *, is_foreign: bool = False) -> None:
        """Read a record with one of our event names."""
        self.event = event
        self.is_foreign = is_foreign
        self.base: Record | None = None
        self.left_out: tuple[str, ...] = ()
        self.time: int = message.time_unix_nano or message.observed_time_unix_nano or clock.time_ns()
        self.trace: bytes = message.trace_id
        self._message: LogRecord | None = message
        self._raw = b""
        self._unsets = False
        self.brief: dict[str, Any] = {}
        self.own: dict[str, Any] = _NOTHING
        brief, usual = self.brief, _USUAL.get
        plain = event in _PLAIN
        for pair in message.attributes:  # all of them: OTLP attributes have no order
            key = pair.key
            known = usual(key)
            if known is not None:
                name, form = known  # all records share it: a name of its own would take as much memory as its value
                value = pair.value
                found = getattr(value, form) or _scalar(value)
                if found is not None or value.WhichOneof(_KIND) is not None:  # without a value it counts as missing
                    brief[name] = found
            elif key == s.UNSET:
                self._unsets = True
            elif not plain and _is_own(event, key):
                if self.own is _NOTHING:
                    self.own = {}
                if key not in self.own:  # a key should occur once; the first wins
                    self.own[key] = _value(pair.value, 0)

    def bound(self) -> None:
        """Cut what is too long; an id that is too long is dropped, as a cut id would be another one."""
        for key, value in self.brief.items():
            if type(value) is str and len(value) > (TEXT if key == s.CURVE else SHORT):
                self.brief[key] = None if key in _WHOLE else value[:SHORT]
        kept = islice(self.own.items(), ATTRIBUTES)
        self.own = {key[:SHORT]: value[:TEXT] if type(value) is str else value for key, value in kept}

    def shorten(self) -> bool:
        """Remove the largest attributes from an event that is too large; returns whether that was enough.

        What is small stays, such as id, status and sequence: an end that is not known would be a loss.
        """
        message = self._whole()
        message.body.Clear()
        left_out = []
        for pair in sorted(message.attributes, key=lambda pair: -pair.ByteSize()):
            if message.ByteSize() <= RECORD_BYTES:
                break
            message.attributes.remove(pair)
            left_out.append(pair.key[:SHORT])
        if message.ByteSize() > RECORD_BYTES:
            return False
        self.__init__(self.event, message, is_foreign=self.is_foreign)  # type: ignore[misc]
        self.left_out = tuple(left_out)
        self.seal()
        return True

    def build_on(self, keyframe: Record) -> None:
        """Put a delta on its keyframe."""
        own = self.brief
        brief = {**keyframe.brief, **own}
        for key in _OF_EVENTS | self._unset() if self._unsets else _OF_EVENTS:
            if key not in own:
                brief.pop(key, None)
        self.base, self.brief = keyframe, brief
        if self.event == s.UPDATED and s.STAGE_PATH not in self.brief and s.STAGE_CURRENT in self.brief:
            self.brief[s.STAGE_PATH] = self.brief[s.STAGE_CURRENT]

    def _unset(self) -> set[str]:
        for pair in self._whole().attributes:
            if pair.key == s.UNSET:
                return {item.string_value for item in pair.value.array_value.values}
        return set()

    def seal(self) -> None:
        """Keep only its own bytes: a part of a protobuf message keeps the whole message in memory."""
        if self._message is not None:
            self._raw, self._message = self._message.SerializeToString(), None

    @property
    def observed(self) -> int:
        """When it was heard first, in ns since 1970; 0 if that is not known."""
        moment: int = self._whole().observed_time_unix_nano
        return moment

    @property
    def raw(self) -> bytes:
        """The record as it was sent, as protobuf."""
        self.seal()
        return self._raw

    @property
    def whole(self) -> bytes:
        """The record with all that its keyframe says, as protobuf; as it was sent if it is none, or has none."""
        if self.base is None:
            return self.raw
        found, gone = LogRecord.FromString(self.raw), self._unset()
        keyframe = LogRecord.FromString(self.base.raw)
        told = {pair.key: pair.value for pair in keyframe.attributes if pair.key in STATE - gone}
        told |= {pair.key: pair.value for pair in found.attributes if pair.key not in (s.KEYFRAME, s.UNSET)}
        del found.attributes[:]
        for key, value in told.items():
            found.attributes.add(key=key, value=value)
        stages = self.attributes.get(s.STAGES)
        for pair in found.attributes:
            if pair.key == s.STAGES and isinstance(stages, str):
                pair.value.string_value = stages
        raw: bytes = found.SerializeToString()
        return raw

    @property
    def text(self) -> str:
        """The event in words."""
        text: str = self._whole().body.string_value
        return text

    @property
    def owner(self) -> str | None:
        """The owner of its operation, if this event names one."""
        for pair in self._whole().attributes:
            if pair.key == s.ATTRIBUTES:
                return owner_in(pair.value.string_value)
        return None if self.base is None else self.base.owner

    @property
    def attributes(self) -> dict[str, Any]:
        """All attributes, with those that a delta has from its keyframe."""
        found = to_dict(self._whole().attributes)
        for key in JSON_TEXTS & found.keys():
            found[key] = sound_json(found[key])
        if s.KEYFRAME not in self.brief:
            return found
        try:
            return merge({} if self.base is None else self.base.attributes, found)
        except (ValueError, RecursionError):  # stages that are no JSON
            return found

    @property
    def trace_id(self) -> str:
        """The trace id in hex, or empty."""
        return self.trace.hex()

    @property
    def span_id(self) -> str:
        """The span id in hex, or empty."""
        return self._whole().span_id.hex()

    @property
    def sampled(self) -> bool:
        """Whether its trace is sampled."""
        return bool(self._whole().flags & 1)

    def _whole(self) -> LogRecord:
        return LogRecord.FromString(self._raw) if self._message is None else self._message


@lru_cache(maxsize=4_096)
def _is_own(event: str, key: str) -> bool:
    """Whether an attribute belongs to the event rather than to the state of its operation."""
    events = _OWN_IN.get(key)
    if events is not None:
        return event in events
    return key in _OWN or not key.startswith(_NOT_OWN)


def _scalar(value: Any) -> Any:
    """The value, whatever its type; None if it is not a scalar."""
    kind = value.WhichOneof(_KIND)
    return getattr(value, kind) if kind in _SCALARS else None


def owner_in(attributes: str) -> str | None:
    """The owner that the attributes of an operation, as JSON text, name."""
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


def parse_record(raw: bytes, *, is_foreign: bool = False) -> Record:
    """Read a record from its protobuf bytes, which do not say whether an SDK of ours sent it.

    Raises:
        DecodeError: if they are not a log record.
    """
    message = LogRecord.FromString(raw)
    return Record(_event_name(message), message, is_foreign=is_foreign)


class Group(NamedTuple):
    """Our events of one resource and scope, in order.

    Attributes:
        resource: the attributes of the resource.
        scope: the name of the scope.
        records: the events.
        void: the number of updates left out because a newer event of their operation follows.
        unknown: names of events that look like ours but are not known; empty for one without a name.
    """

    resource: dict[str, Any]
    scope: str
    records: tuple[Record, ...]
    void: int = 0
    unknown: tuple[str, ...] = ()


def sliced(group: Group, most: int) -> Iterator[Group]:
    """The same events in groups of at most `most`; what is said of the whole group comes with the first."""
    if len(group.records) <= most:
        yield group
        return
    yield group._replace(records=group.records[:most])
    for at in range(most, len(group.records), most):
        yield Group(group.resource, group.scope, group.records[at : at + most])


Due = Callable[[str, int], bool]
"""Whether a plain update of this operation at this time in ns is wanted for the history."""


def groups(parcel: Parcel, is_due: Due = lambda *_: True) -> Iterator[Group]:
    """Our events in a logs request; a group without events is still a sign of life of its resource.

    A plain update is left out if a newer event of its operation follows, unless it is due.
    """
    message = parcel.message
    assert isinstance(message, ExportLogsServiceRequest)
    for by_resource in message.resource_logs:
        resource = resource_attributes(by_resource.resource, parcel.allowance)
        for by_scope in by_resource.scope_logs:
            unknown: list[str] = []
            is_foreign = by_scope.scope.name != s.SCOPE
            found, void = _records(by_scope.log_records, is_due, parcel, unknown, is_foreign=is_foreign)
            if parcel.largest > RECORD_SMALL:
                found = _bounded(found, parcel.allowance)
            yield Group(resource, by_scope.scope.name, tuple(found), void, tuple(unknown))


def _records(
    messages: Any, is_due: Due, parcel: Parcel, unknown: list[str], *, is_foreign: bool
) -> tuple[list[Record], int]:
    """Our events without void updates, and the number of these."""
    is_large, left = parcel.largest > RECORD_SMALL, parcel.allowance.left
    found: list[Record] = []
    newest: dict[Any, int] = {}
    keyframes: set[Any] = set()
    void = 0
    for message in reversed(messages):
        event = message.event_name or _event_name(message)
        if event not in s.EVENTS:
            if event.startswith(s.PREFIX) or (not event and _is_nameless(message)):
                unknown.append(event[:SHORT])
            continue
        attributes = message.attributes
        if event == s.UPDATED:
            key, sequence = _key_and_sequence(attributes)
            is_needed = (key, sequence) in keyframes or is_due(key, message.time_unix_nano)
            if sequence < newest.get(key, 0) and not is_needed:
                void += 1
                continue
        left -= len(attributes)
        if left < 0 or (is_large and has_too_many_parts(message)):
            parcel.allowance.refused += 1
            continue
        record = Record(event, message, is_foreign=is_foreign)
        found.append(record)
        said = record.brief.get(s.SEQUENCE)
        if event == s.OPERATION_STARTED:
            newest.pop(record.brief.get(s.OPERATION_ID), None)  # what precedes a start is of an earlier attempt
        elif type(said) is int:
            newest[record.brief.get(s.OPERATION_ID)] = said
        keyframe = record.brief.get(s.KEYFRAME)
        if keyframe is not None:
            keyframes.add((record.brief.get(s.OPERATION_ID), keyframe))
    found.reverse()
    parcel.allowance.left = left
    return found, void


def _key_and_sequence(attributes: Any) -> tuple[str, int]:
    """Operation id and sequence number of an event of our own SDK, whose order of attributes is known."""
    if len(attributes) > 4 and attributes[0].key == s.SEQUENCE:
        for at in range(1, 5):  # behind the stage if it is about one, and behind the keyframe if it has one
            if attributes[at].key == s.OPERATION_ID:
                return attributes[at].value.string_value, attributes[0].value.int_value
    return "", 0


def _bounded(found: list[Record], allowance: Allowance) -> list[Record]:
    """The records with nothing in them that is too long; what is too large in spite of that is left out and counted."""
    kept = [record for record in found if len(record.raw) <= RECORD_BYTES or record.shorten()]
    allowance.too_large += len(found) - len(kept)
    for record in kept:
        record.bound()
    return kept


def resource_attributes(resource: Any, allowance: Allowance) -> dict[str, Any]:
    """The attributes of a resource; of a large one only the short ones."""
    allowance.left -= min(len(resource.attributes), RECORD_PARTS)
    size = resource.ByteSize()
    if size <= REPEATED_BYTES and allowance.left >= 0:
        return dict(_repeated(resource.SerializeToString()))
    if size <= RESOURCE_BYTES and allowance.left >= 0:
        return to_dict(resource.attributes)
    some = (pair for pair in islice(resource.attributes, RECORD_PARTS) if pair.ByteSize() <= 4 * SHORT)
    found = ((pair.key, _value(pair.value, 0)) for pair in (some if allowance.left >= 0 else ()))
    return dict(islice(((key, value) for key, value in found if _is_short(value)), ATTRIBUTES))


@lru_cache(maxsize=REPEATED)
def _repeated(raw: bytes) -> dict[str, Any]:
    """The attributes of a resource that sends often."""
    return to_dict(Resource.FromString(raw).attributes)


def _is_short(value: Any) -> bool:
    return not isinstance(value, (list, dict, bytes)) and (not isinstance(value, str) or len(value) <= SHORT)


def _event_name(message: LogRecord) -> str:
    """The name of an event; older log records carry it as an attribute."""
    name: str = message.event_name
    if not name:
        for pair in islice(message.attributes, ATTRIBUTES):
            if pair.key == s.EVENT_NAME:
                return str(pair.value.string_value)
    return name


def _is_nameless(message: LogRecord) -> bool:
    """Whether a record without a name has the attributes of an event; logs of a program may have the id alone."""
    keys = {pair.key for pair in islice(message.attributes, ATTRIBUTES)}
    return {s.OPERATION_ID, s.STATUS} <= keys


def to_dict(pairs: Any, depth: int = 0) -> dict[str, Any]:
    """OTLP attributes as a dict of plain values."""
    return {pair.key: _value(pair.value, depth) for pair in pairs}


def _value(value: Any, depth: int) -> Any:
    kind = value.WhichOneof(_KIND)
    if kind is None or depth > DEPTH:
        return None
    if kind == "array_value":
        return [_value(item, depth + 1) for item in value.array_value.values]
    if kind == "kvlist_value":
        return to_dict(value.kvlist_value.values, depth + 1)
    return getattr(value, kind)
