"""Between what the monitor keeps on disk and what it holds: an operation, its process, how far it was shown."""

from __future__ import annotations

import json
from dataclasses import replace

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.model import wire
from otel_progress.model.status import Health, Status
from otel_progress.monitor.intake import records
from otel_progress.monitor.state import foreign_traces
from otel_progress.monitor.state.ledger import Entry, Head, Process, bare, head_of
from otel_progress.monitor.state.ledger import process_of as make_process
from otel_progress.monitor.state.rollup import Shown
from otel_progress.monitor.state.saved import Kept, Known
from otel_progress.outbound import otlp


def entry_of(kept: Kept, heard_at: float) -> Entry:
    """The entry that was kept; one that is presumed to be lost still may be heard of again."""
    record = records.parse_record(kept.raw)
    said = None if record is None else head_of(record)
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
    )
    before = None
    if kept.presumed:
        earlier = head._replace(status=Status.RUNNING, sequence=head.sequence - 1)
        before = Entry(earlier, kept.instance, heard_at, said=record)
        before.number = kept.attempt
    entry = Entry(head, kept.instance, heard_at, said=record, presumed=before)
    entry.number = kept.attempt
    entry.rolled = shown_of(kept.rolled)
    entry.revision = kept.revision
    return entry


def shown_of(text: str | None) -> Shown | None:
    """How far it was shown, as it was kept."""
    try:
        return None if text is None else Shown(*json.loads(text))
    except (ValueError, TypeError):
        return None


def rolled_of(known: tuple[int, Shown | None], number: int) -> str | None:
    """How far an attempt was shown, as it is kept."""
    return json.dumps(known[1]) if known[1] is not None and known[0] == number else None


def known_of(process: Process) -> Known:
    """A process as it is kept."""
    wall = clock.time_ns() / 1e9 - (clock.monotonic() - process.heard_at)
    resource = json.dumps(dict(process.resource), default=repr)
    return Known(process.instance, resource, wall, process.interval if process.beats else None)


def process_of(known: Known, heard_at: float) -> Process:
    """A process as it was kept."""
    try:
        resource = json.loads(known.resource)
    except ValueError:
        resource = {}
    return make_process(known.instance, resource, heard_at, known.interval)


def raw_of(entry: Entry) -> bytes:
    """An event that says what a snapshot says which came in none."""
    snapshot = entry.snapshot
    span, moment = snapshot.span, max(0, min(round(snapshot.timestamp * 1e9), foreign_traces.LATEST))
    try:
        attributes = wire.to_attributes(snapshot)
    except (ValueError, TypeError, OverflowError, RecursionError):  # what somebody sent can be read, but not said again
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
