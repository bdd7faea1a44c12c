"""What senders get wrong in events, in words that name the field and what it must be; told once for each sender.

Our own SDK makes none of these mistakes, so of its events only those that are refused are examined.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, Protocol

from otel_progress import semconv as s
from otel_progress.model import wire
from otel_progress.model.attribute_types import JSON_LISTS, JSON_TEXTS, is_stage, is_valid, is_whole, meant, wrong_keys
from otel_progress.model.status import Status
from otel_progress.model.values import finite

SENDERS: Final = 1_000
"""The most senders whose mistakes are remembered; the oldest makes room."""
SHOWN: Final = 60
"""The most characters of a wrong value that are shown."""
KEY_LENGTH: Final = 1_024
LATEST: Final = 1e11
"""The latest time in seconds since 1970 that is taken for one; a larger number is in milliseconds, or less."""
KINDS: Final = (
    "event_name",
    "attribute_name",
    "instance",
    "operation_id",
    "operation_name",
    "operation_parent_id",
    "status",
    "order",
    "start_time",
    "type",
    "json",
    "not_final",
    "heartbeat_interval",
    "too_many_parts",
    "too_large",
    "schema",
    "other",
)
"""The kinds that are counted; `order` is about `progress.sequence` and `progress.operation.attempt`, and `schema` about
a sender that is newer than this monitor.
"""
_NAMES: Final = frozenset(name for name in vars(s).values() if isinstance(name, str) and name.startswith(s.PREFIX))
_STATUSES: Final = tuple(status.value for status in Status if status is not Status.SKIPPED)
_FINAL: Final = tuple(status.value for status in Status if status.final and status is not Status.SKIPPED)


class Event(Protocol):
    """An event, as far as it is examined."""

    @property
    def event(self) -> str:
        """Its name."""

    @property
    def brief(self) -> Mapping[str, Any]:
        """The attributes that order it."""

    @property
    def attributes(self) -> Mapping[str, Any]:
        """All attributes."""


class Mistake(NamedTuple):
    """Something that a sender gets wrong.

    Attributes:
        kind: one of `KINDS`.
        field: the attribute that is wrong, or what else is.
        words: what is wrong, and what it must be.
    """

    kind: str
    field: str
    words: str


class Mistakes:
    """Counts mistakes, and tells the first about each field of each sender. It belongs to the thread of the core.

    Attributes:
        counts: how many there were, by kind.
        fields: how many there were, by field.
        newest: the last one that was told, with its sender.
        tell: called with the words of each that is told.
    """

    def __init__(self) -> None:
        """None yet."""
        self.counts = Counter[str]()
        self.fields = Counter[str]()
        self.newest: str | None = None
        self.tell: Callable[[str], object] = lambda _: None
        self._senders: dict[str, dict[tuple[str, str], str]] = {}

    def note(self, mistake: Mistake, instance: str, name: str) -> str | None:
        """Count a mistake; returns its words if it is the first about its field from this sender.

        Args:
            mistake: what is wrong.
            instance: the sender.
            name: the sender, as people know it.
        """
        kind, field, words = mistake
        self.counts[kind] += 1
        self.fields[field] += 1
        known = self._senders.get(instance)
        if known is None:
            if len(self._senders) >= SENDERS:
                del self._senders[next(iter(self._senders))]
            known = self._senders[instance] = {}
        if (kind, field) in known:
            return None
        known[kind, field] = words
        self.newest = f"{name}: {words}"
        self.tell(f"{self.newest} (told once)")
        return words

    def of(self, instance: str) -> list[str]:
        """The mistakes of a sender; any thread may call it."""
        return list(self._senders.get(instance, {}).values())

    def health(self) -> dict[str, Any]:
        """The mistakes so far, for `/health`."""
        if self.newest is None:
            return {}
        counts = {kind: n for kind in KINDS if (n := self.counts[kind])}
        return {"mistakes": {**counts, "fields": dict(self.fields), "newest": self.newest}}


def unknown_event(name: str) -> Mistake:
    """An event name that begins with `progress.` and is none of ours; or none at all."""
    if not name:
        words = f"an event needs its name, as `event_name` or as the attribute {s.EVENT_NAME}: without it it is ignored"
        return Mistake("event_name", s.EVENT_NAME, words)
    words = f"{_shown(name)} is no event name: see docs/semantic-conventions.md for those that exist"
    return Mistake("event_name", s.EVENT_NAME, words)


def no_instance(resource: Mapping[str, Any]) -> Mistake | None:
    """A sender that names neither itself nor its pid; None if it does."""
    if s.SERVICE_INSTANCE_ID in resource or s.PROCESS_PID in resource:
        return None
    words = f"a resource needs {s.SERVICE_INSTANCE_ID}: without it nobody can tell its processes apart"
    return Mistake("instance", s.SERVICE_INSTANCE_ID, words)


def shared_instance(pid: int | None) -> Mistake:
    """A sender whose instance id is that of another process, with this pid."""
    words = (
        f"{s.SERVICE_INSTANCE_ID} is that of the process with the pid {pid}, too: each process needs one of its own; "
        f"who sends heartbeats for another process names the {s.PROCESS_PID} of that one"
    )
    return Mistake("instance", s.SERVICE_INSTANCE_ID, words)


def newer_schema(resource: Mapping[str, Any]) -> Mistake | None:
    """A sender whose version of the wire is newer than ours; None if it is not."""
    schema = resource.get(s.SCHEMA)
    if type(schema) is not int or schema <= wire.SCHEMA:
        return None
    words = (
        f"{s.SCHEMA} is {schema}, and this monitor reads {wire.SCHEMA}: install a newer otel-progress here, "
        "otherwise some of what is sent is not shown"
    )
    return Mistake("schema", s.SCHEMA, words)


def too_large(field: str, largest: int) -> Mistake:
    """An attribute that makes an event larger than `largest` bytes."""
    words = f"{field} makes an event larger than {largest // 1024} KiB: it is left out"
    return Mistake("too_large", field, words)


def refusal(event: Event) -> Mistake:
    """Why an event cannot be taken."""
    get = event.brief.get
    key, name, status = get(s.OPERATION_ID), get(s.OPERATION_NAME), get(s.STATUS)
    if not isinstance(key, str) or not 0 < len(key) <= KEY_LENGTH:
        is_dropped = key is None and s.OPERATION_ID in event.brief
        given = "it is longer" if is_dropped else _is(key)
        words = f"{s.OPERATION_ID} must be a text of 1 to {KEY_LENGTH} characters, {given}"
        return Mistake("operation_id", s.OPERATION_ID, words)
    if not isinstance(name, str):
        return Mistake("operation_name", s.OPERATION_NAME, f"{s.OPERATION_NAME} must be a text, {_is(name)}")
    if status not in _STATUSES:
        return Mistake("status", s.STATUS, f"{s.STATUS} must be one of {', '.join(_STATUSES)}, {_is(status)}")
    for field, standard in ((s.OPERATION_ATTEMPT, 1), (s.SEQUENCE, 0)):
        if not is_whole(get(field, standard)):
            return Mistake("order", field, f"{field} must be an integer of at least 0, {_is(get(field))}")
    if s.START_TIME in event.brief and not finite(get(s.START_TIME)):
        words = f"{s.START_TIME} must be a number of seconds since 1970, {_is(get(s.START_TIME))}"
        return Mistake("start_time", s.START_TIME, words)
    if isinstance(get(s.OPERATION_PARENT_ID), str):
        words = f"{s.OPERATION_PARENT_ID} may have {KEY_LENGTH} characters"
        return Mistake("operation_parent_id", s.OPERATION_PARENT_ID, words)
    return Mistake("other", "event", "an event cannot be read")


def mistakes(event: Event, *, is_promised: bool = False) -> Iterator[Mistake]:
    """What is wrong with an event that was taken nevertheless; the wrong values are ignored.

    With `is_promised` the resource says the interval of heartbeats.
    """
    get = event.brief.get
    if event.event == s.PROCESS_HEARTBEAT:
        interval = get(s.HEARTBEAT_INTERVAL)
        if is_promised and interval is None:
            return
        if not isinstance(interval, (int, float)) or not finite(interval) or interval <= 0:
            text = f"a heartbeat needs {s.HEARTBEAT_INTERVAL}, in seconds above 0, {_is(interval)}"
            words = f"{text}: without it nobody can tell when the process is dead"
            yield Mistake("heartbeat_interval", s.HEARTBEAT_INTERVAL, words)
        return
    yield from _wrong_order(event)
    if event.event == s.OPERATION_ENDED and get(s.STATUS) not in _FINAL:
        words = f"{s.OPERATION_ENDED} needs a {s.STATUS} of {', '.join(_FINAL)}, {_is(get(s.STATUS))}"
        yield Mistake("not_final", s.STATUS, words)
    attributes, unknown = event.attributes, None
    for key, value in attributes.items():
        if not key.startswith(s.PREFIX) or key == s.START_TIME:
            continue
        if key not in _NAMES:
            unknown = unknown or key
        elif value is not None and not is_valid(key, value):
            yield Mistake("type", key, f"{key} must be {meant(key)}, {_is(value)}: it is ignored")
    if unknown is not None:
        words = f"{_shown(unknown)} is no attribute: see docs/semantic-conventions.md for those that exist"
        yield Mistake("attribute_name", f"{s.PREFIX}*", words)
    yield from _wrong_json(attributes)


def _wrong_order(event: Event) -> Iterator[Mistake]:
    """What an event lacks that says which attempt it belongs to, and which event is the newest."""
    get = event.brief.get
    started = get(s.START_TIME)
    if isinstance(started, (int, float)) and finite(started) and started > LATEST:
        words = f"{s.START_TIME} must be in seconds since 1970, it is {started:.0f}: is that milliseconds?"
        yield Mistake("start_time", s.START_TIME, words)
    elif started is None and get(s.STATUS) != Status.PENDING:
        words = f"an event needs {s.START_TIME}, in seconds since 1970: without it nobody can tell attempts apart"
        yield Mistake("start_time", s.START_TIME, words)
    if get(s.SEQUENCE) is None:
        words = f"an event needs {s.SEQUENCE}, which rises: without it nobody can tell which one is the newest"
        yield Mistake("order", s.SEQUENCE, words)


def sequence_anew(given: int, known: int, later: float) -> Mistake:
    """An event that is newer by its time, but older by its number than another one of its attempt."""
    words = (
        f"{s.SEQUENCE} must rise within an attempt: {given} is the number of an event {later:.0f} s after that with "
        f"{known}, so it counts as older; a run that begins anew needs a {s.START_TIME} of its own"
    )
    return Mistake("order", s.SEQUENCE, words)


def _wrong_json(attributes: Mapping[str, Any]) -> Iterator[Mistake]:
    for key in JSON_TEXTS & attributes.keys():
        given = attributes[key]
        if isinstance(given, str):
            try:
                found = json.loads(given)
            except (ValueError, RecursionError) as error:
                words = f"{key} must be JSON, {_is(given)} ({str(error)[:SHOWN]})"
                yield Mistake("json", key, words)
            else:
                kind, form = (list, "list") if key in JSON_LISTS else (dict, "object")
                if not isinstance(found, kind):
                    yield Mistake("type", key, f"{key} must be a JSON {form}, it is {_shown(given)}: it is ignored")
                elif key == s.STAGES:
                    yield from _wrong_stages(list(found))


def _wrong_stages(stages: list[Any]) -> Iterator[Mistake]:
    """What is wrong with the keys of stages."""
    for stage in stages:
        if not is_stage(stage):
            path, status = (stage.get("path"), stage.get("status")) if isinstance(stage, dict) else (None, None)
            field = "status" if isinstance(path, str) else "path"
            must = f"one of {', '.join(Status)}, {_is(status)}" if field == "status" else f"a text, {_is(path)}"
            of = f"the stage {_shown(path)}" if field == "status" else "a stage"
            words = f"`{field}` of {of} in {s.STAGES} must be {must}: the stage is ignored"
            yield Mistake("type", f"{s.STAGES}: {field}", words)
            continue
        for key, words in wrong_keys(stage).items():
            where = f"`{key}` of the stage {_shown(stage['path'])} in {s.STAGES}"
            yield Mistake("type", f"{s.STAGES}: {key}", f"{where} must be {words}, {_is(stage[key])}: it is ignored")


def _is(value: object) -> str:
    """The wrong value, as the end of a sentence."""
    if value is None:
        return "it is missing"
    kinds = {str: "the text", bool: "the boolean", int: "the integer", float: "the number"}
    kind = kinds.get(type(value))
    return f"it is {type(value).__name__}" if kind is None else f"it is {kind} {_shown(value)}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
