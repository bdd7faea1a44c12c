"""Log events; each carries the snapshot of its operation, so a reader that joins late is up to date after one event."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.live.diagnosis.vitals import vitals
from otel_progress.live.engine import process
from otel_progress.live.guard import drops
from otel_progress.live.registry import registry
from otel_progress.model import wire
from otel_progress.model.sentences import sentence
from otel_progress.model.snapshot import Event, Snapshot
from otel_progress.model.status import Status
from otel_progress.model.values import EMPTY, Value
from otel_progress.outbound import otlp
from otel_progress.telemetry.outbox import EncodedEvent

if TYPE_CHECKING:
    from otel_progress.live.state import OperationState
    from otel_progress.telemetry.pipeline import Pipeline

BYTES: Final = 256 * 1024
"""The largest encoded snapshot, and the largest event beside it; receivers accept requests of 4 MiB."""
NEWS_SECONDS: Final = 60.0
"""Seconds after which a heartbeat tells how the process is, whatever else was sent."""
_FIELD: Final = 6
_BAD_ENDS: Final = frozenset({Status.FAILED, Status.LOST, Status.INTERRUPTED})
_TROUBLE: Final = frozenset({s.STALLED, s.WAIT_OVERDUE, s.SLOW})
_BAD_NOTES: Final = frozenset({"failed", "error", "warning"})


class Events:
    """Encodes events and posts them; called in the ticker's thread."""

    def __init__(self, pipeline: Pipeline) -> None:
        """Post to a pipeline."""
        self._pipeline = pipeline
        self._beat_at = clock.monotonic()
        self._told: dict[str, int] = {}
        """What the last heartbeat said of what was dropped."""
        self._last: Snapshot | None = None
        self._keys: Mapping[str, object] = {}
        self._encoded = b""

    def on_event(self, event: Event, operation: OperationState) -> None:
        """Post an event of an operation."""
        snapshot = event.snapshot
        if snapshot is not self._last:
            self._encode(snapshot)
            self._last = snapshot
        encoded = self._encode_own(event) + self._encoded
        span = snapshot.span
        body = otlp.log_record(
            event.name,
            event.timestamp,
            clock.time_ns(),
            severity(event),
            sentence(event),
            encoded,
            span.trace_id if span else None,
            span.span_id if span else None,
            bool(span and span.sampled),
        )
        self._pipeline.post(EncodedEvent(event.name, operation.id, body))

    def _encode(self, snapshot: Snapshot) -> None:
        """Encode a snapshot, without details if it is too large."""
        for lighten in (None, _light, _bare):
            keys = wire.to_attributes(snapshot if lighten is None else lighten(snapshot))
            keys.pop(s.SEQUENCE, None)
            self._keys, self._encoded = keys, otlp.attributes(_FIELD, keys)
            if len(self._encoded) <= BYTES:
                return
            drops.add(s.DROP_ATTRIBUTE)

    def _encode_own(self, event: Event) -> bytes:
        """Encode what this event adds to the snapshot; the sequence comes first, as the monitor orders events by it.

        Attributes of the user never override those of the snapshot.
        """
        own: dict[str, Value] = {s.SEQUENCE: event.sequence}
        if event.stage is not None:
            own[s.STAGE_PATH] = event.stage
            own[s.STAGE_NAME] = event.stage.rpartition("/")[2]
        theirs = {}
        for key, value in event.attributes.items():
            if key in s.EVENT_ATTRIBUTES:
                if key not in self._keys:
                    own[key] = value
            elif key.startswith(s.PREFIX) or key in self._keys:
                drops.add(s.DROP_ATTRIBUTE)
            else:
                theirs[key] = value
        encoded = otlp.attributes(_FIELD, theirs)
        if len(encoded) > BYTES:
            drops.add(s.DROP_ATTRIBUTE, len(theirs))
            encoded = b""
        return otlp.attributes(_FIELD, own) + encoded

    def on_tick(self, now: float) -> None:
        """Post a heartbeat of the process when it is due, and send everything."""
        if self._is_beat_due(now):
            self._beat_at, self._told = now, dict(drops)
            self._beat()
        self._pipeline.poke()

    def _is_beat_due(self, now: float) -> bool:
        """Whether nothing else proves for long that the process is alive, or tells how it is."""
        if now - self._beat_at >= NEWS_SECONDS:
            return True
        pipeline = self._pipeline
        return pipeline.is_over(self._beat_at, now) and (pipeline.is_silent(now) or self._told != drops)

    def _beat(self) -> None:
        about: dict[str, Value] = {
            s.HEARTBEAT_INTERVAL: self._pipeline.interval,
            s.JUDGED_BY: "process",
            s.PROCESS_IN_FLIGHT: len(registry.live),
        }
        lag = process.lag.worst(process.loops)
        if lag is not None:
            about[s.PROCESS_LOOP_LAG] = lag
        about |= vitals()
        if drops:
            about[s.DROPPED] = json.dumps(dict(drops))
        now = clock.time_ns()
        text = f"the process is alive, {about[s.PROCESS_IN_FLIGHT]} operations in flight"
        body = otlp.log_record(
            s.PROCESS_HEARTBEAT, now, now, otlp.INFO, text, otlp.attributes(_FIELD, about), None, None, False
        )
        self._pipeline.post(EncodedEvent(s.PROCESS_HEARTBEAT, "", body))


def _light(snapshot: Snapshot) -> Snapshot:
    """The snapshot, with only the state of its stages."""
    return replace(
        snapshot,
        stages=tuple(
            replace(
                stage,
                description=None,
                message=None,
                reason=None,
                depends_on=(),
                outcomes=EMPTY,
                counters=EMPTY,
                attributes=EMPTY,
                usage=EMPTY,
                child_outcomes=EMPTY,
            )
            for stage in snapshot.stages
        ),
    )


def _bare(snapshot: Snapshot) -> Snapshot:
    """The snapshot without anything that may be large; numbers stay, such as what the process used."""
    return replace(
        snapshot,
        stages=(),
        folded=(),
        repeated=(),
        description=None,
        outcomes=EMPTY,
        counters=EMPTY,
        usage=EMPTY,
        result=EMPTY,
        attributes=EMPTY,
        components=(),
        failures=(),
        curve=(),
    )


def severity(event: Event) -> int:
    """ERROR for a bad end, WARN for what needs attention, otherwise INFO."""
    if event.name == s.OPERATION_ENDED and event.snapshot.status in _BAD_ENDS:
        return otlp.ERROR
    if event.name in _TROUBLE or event.attributes.get(s.NOTE_STATUS) in _BAD_NOTES:
        return otlp.WARN
    if event.name == s.STAGE_ENDED:
        stage = event.about
        return otlp.WARN if stage is not None and stage.status in _BAD_ENDS else otlp.INFO
    return otlp.INFO
