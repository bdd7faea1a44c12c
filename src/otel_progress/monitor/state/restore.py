"""Conversion between what is in the store and what is in memory: operations, processes, shown ratios."""

from __future__ import annotations

import json
from collections.abc import Container
from dataclasses import replace
from typing import Final

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.model import wire
from otel_progress.model.curve import Curve
from otel_progress.model.status import Health, Status
from otel_progress.monitor.intake.records import Record, parse_record
from otel_progress.monitor.state import foreign_traces, waits
from otel_progress.monitor.state.attempts import is_same_attempt
from otel_progress.monitor.state.ledger import Entry, Head, Ledger, Process, Seen, bare, counted, head_of, keyframe_of
from otel_progress.monitor.state.ledger import process_of as make_process
from otel_progress.monitor.state.rollup import Shown
from otel_progress.monitor.state.saved import StoredOperation, StoredProcess
from otel_progress.outbound import otlp

LEAST: Final = 3
"""Points from which on a curve is stored with an operation that is open."""
_OBSERVED_TIME: Final = b"\x59"
"""The tag of `observed_time_unix_nano` of a log record in protobuf."""
LARGEST: Final = 256 * 1024
"""Bytes of a record beside which there is room for a curve."""


def entry_of(kept: StoredOperation, heard_at: float | None = None) -> Entry:
    """A stored operation, as an entry; one that is presumed lost may still be heard of again.

    It was heard at `heard_at`, on the monotonic clock, or by default when the store says.
    """
    record = parse_record(kept.raw, is_foreign=kept.is_foreign)
    if heard_at is None:
        heard_at = _heard_at(record, kept.timestamp)
    keyframe = _keyframe_in(kept, record)
    if keyframe is not None and keyframe_of(record) is not None:
        record.build_on(keyframe)
    said = head_of(record)
    head = Head(
        kept.operation_id,
        kept.name,
        Status(kept.status),
        Health(kept.health),
        kept.timestamp,
        kept.attempt if said is None else said.attempt,
        kept.sequence,
        kept.started_at,
        kept.parent_id,
        kept.agent,
        kept.owner,
        counted=1 if said is None else said.counted,
    )
    before, waiting = None, _waiting_in(kept)
    if kept.presumed:
        earlier = head._replace(status=Status.RUNNING, sequence=head.sequence - 1)
        before = Entry(earlier, kept.instance, heard_at, said=keyframe or record)  # the record is the inferred end
        before.number, before.keyframe, before.pending = kept.attempt, keyframe or before.keyframe, waiting
    entry = Entry(head, kept.instance, heard_at, said=record, presumed=before)
    entry.number, entry.keyframe, entry.pending = kept.attempt, keyframe or entry.keyframe, waiting
    entry.wait_start = waits.after(None, waits.start_in(record, head), head.sequence - 1)
    entry.rolled = shown_of(kept.rolled)
    entry.revision = kept.revision
    told = record.brief.get(s.CURVE)
    if entry.open and isinstance(told, str):
        entry.curve = _curve_of(told)
    return entry


def _keyframe_in(kept: StoredOperation, record: Record) -> Record | None:
    """The stored keyframe, if the stored event or later ones may build on it: it may be one of an earlier attempt."""
    named = keyframe_of(record)
    if kept.keyframe is None or (named is None and not kept.presumed):
        return None
    found = parse_record(kept.keyframe, is_foreign=kept.is_foreign)
    its, own = head_of(found), head_of(record)
    same = its is not None and own is not None and is_same_attempt(its, own, same_process=True)
    return found if same and named in (None, found.brief.get(s.SEQUENCE)) else None


def _waiting_in(kept: StoredOperation) -> Record | None:
    """The stored delta that waits for its keyframe."""
    return None if kept.waiting is None else parse_record(kept.waiting, is_foreign=kept.is_foreign)


def _curve_of(told: str) -> Curve | None:
    try:
        return Curve(wire.read_curve(told))
    except (ValueError, RecursionError):
        return None


def _with_curve(entry: Entry, said: Record) -> bytes:
    """The log record of an open operation with its curve so far, which few events carry themselves."""
    if not entry.open or entry.curve is None or s.CURVE in said.brief or (count := counted(said, entry.head)) is None:
        return said.raw
    points = entry.curve.until(*count)
    if len(points) < LEAST or len(said.raw) > LARGEST:
        return said.raw
    return said.raw + otlp.attributes(6, {s.CURVE: json.dumps(points, separators=(",", ":"))})


def _raw_of(entry: Entry) -> bytes:
    """The log record of an operation."""
    return _with_curve(entry, entry.said) + _wait_of(entry) if isinstance(entry.said, Record) else raw_of(entry)


def _observed(heard_at: float) -> bytes:
    """The observed time of a log record: when it was heard, by the clock of this machine. The last one counts."""
    wall = clock.time_ns() - round((clock.monotonic() - heard_at) * 1e9)
    return _OBSERVED_TIME + max(0, wall).to_bytes(8, "little")


def _heard_at(record: Record, timestamp: float) -> float:
    """When a stored event was heard, on the monotonic clock; its `timestamp` may be of another clock."""
    return clock.monotonic() - max(0.0, clock.time_ns() / 1e9 - (record.observed / 1e9 or timestamp))


def _wait_of(entry: Entry) -> bytes:
    """The attributes that say for how long an operation has waited, and may yet, if its event does not."""
    start = entry.wait_start
    if start is None or entry.said is None or not entry.open:
        return b""
    counted, found = start.since_left(entry.head.timestamp), {}
    if s.WAIT_DURATION not in entry.said.attributes:
        found[s.WAIT_DURATION] = max(0.0, entry.head.timestamp - start.at)
    if counted and start.left is not None:
        found[s.WAIT_REMAINING] = start.left - counted
    return otlp.attributes(6, found) if found else b""


def kept_of(entry: Entry, ledger: Ledger, dead: Container[str]) -> StoredOperation:
    """An operation, as it is stored; `dead` holds those whose process was reported dead."""
    head, waiting = entry.head, (entry.presumed or entry).pending
    return StoredOperation(
        head.operation_id,
        head.name,
        head.status.value,
        head.health.value,
        head.parent_id,
        head.agent,
        ledger.owner_of(head),
        head.started_at,
        head.timestamp,
        entry.number,
        head.sequence,
        entry.instance,
        entry.revision,
        ledger.search_text(entry),
        _raw_of(entry) + _observed(entry.heard_at),
        entry.presumed is not None,
        head.operation_id in dead,
        rolled_of(ledger.rolled.get(head.operation_id, (entry.number, entry.rolled)), entry.number),
        isinstance(entry.said, Record) and entry.said.is_foreign,
        waiting.raw if isinstance(waiting, Record) else None,
        aside=entry.open and head.operation_id not in ledger.operations,
    )


def keyframe_to_keep(entry: Entry) -> Record | None:
    """The event that has to be stored beside the newest one, as that one or later ones build on it."""
    is_open = entry.open or entry.presumed is not None
    found = entry.keyframe
    return found if is_open and found is not entry.said and isinstance(found, Record) else None


def shown_of(text: str | None) -> Shown | None:
    """A stored shown ratio."""
    try:
        return None if text is None else Shown(*json.loads(text)[:1])
    except (ValueError, TypeError):
        return None


def rolled_of(known: tuple[int, Shown | None], number: int) -> str | None:
    """The shown ratio of an attempt, as it is stored."""
    return json.dumps(known[1]) if known[1] is not None and known[0] == number else None


def known_of(process: Process) -> StoredProcess:
    """A process, as it is stored."""
    wall = clock.time_ns() / 1e9 - (clock.monotonic() - process.heard_at)
    resource = json.dumps(dict(process.resource), default=repr)
    seen = None if process.seen is None else json.dumps(process.seen)
    return StoredProcess(process.instance, resource, wall, process.interval if process.beats else None, seen)


def process_of(known: StoredProcess, heard_at: float) -> Process:
    """A stored process."""
    try:
        resource = json.loads(known.resource)
    except ValueError:
        resource = {}
    return replace(make_process(known.instance, resource, heard_at, known.interval), seen=_seen_of(known.seen))


def _seen_of(text: str | None) -> Seen | None:
    """The process as it was seen alive before; None if that is unknown."""
    try:
        boot, namespace, machine, pid, ticks, is_certain = json.loads(text or "")
        return Seen(str(boot), str(namespace), str(machine), int(pid), int(ticks), bool(is_certain))
    except (ValueError, TypeError):
        return None


def raw_of(entry: Entry) -> bytes:
    """A log record for a snapshot that no event carried."""
    snapshot = entry.snapshot
    span, moment = snapshot.span, max(0, min(round(snapshot.timestamp * 1e9), foreign_traces.LATEST))
    try:
        attributes = wire.to_attributes(snapshot)
    except (
        ValueError,
        TypeError,
        OverflowError,
        RecursionError,
    ):  # decoded, but not encodable
        attributes = wire.to_attributes(replace(bare(entry.head), reason=snapshot.reason))
    return otlp.log_record(
        s.OPERATION_ENDED if snapshot.status.final else s.UPDATED,
        moment,
        moment,
        otlp.ERROR if snapshot.status is Status.LOST else otlp.INFO,
        "",
        otlp.attributes(6, attributes),
        span.trace_id if span else None,
        span.span_id if span else None,
        bool(span and span.sampled),
        tagged=False,
    )
