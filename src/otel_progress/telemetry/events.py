"""Log events: keyframes carry the whole snapshot of their operation, the others what differs from the last keyframe."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.live import hooks, redaction
from otel_progress.live.diagnosis.vitals import vitals
from otel_progress.live.engine import process
from otel_progress.live.guard import drops
from otel_progress.live.registry import registry
from otel_progress.model import wire
from otel_progress.model.deltas import Keyframe, StageText
from otel_progress.model.event_waits import ABOUT_WAITS, with_its_wait
from otel_progress.model.sentences import sentence
from otel_progress.model.snapshot import Event, Snapshot, StageSnapshot
from otel_progress.model.status import Health, Status
from otel_progress.model.units import count, plural
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
LATE: Final = 10**9
"""Nanoseconds after which an event says when it was observed, too."""
SAMPLED: Final = 1.0
"""Seconds between two looks at a count: a shorter idle time says nothing while the work moves."""
SAME: Final = 0.05
"""By how many seconds an elapsed time may differ from what its start says, to be left out."""
LAGS: Final = 0.5
"""Seconds from which on the lag of an event loop is told with each heartbeat."""
_FIELD: Final = 6
_FINAL: Final = frozenset(status.value for status in Status if status.final)
_BAD_ENDS: Final = frozenset({Status.FAILED, Status.LOST, Status.INTERRUPTED})
_TROUBLE: Final = frozenset({s.STALLED, s.WAIT_OVERDUE, s.SLOW})
_BAD_NOTES: Final = frozenset({"failed", "error", "warning"})


class Events:
    """Encodes events and posts them; called in the ticker's thread."""

    def __init__(self, pipeline: Pipeline) -> None:
        """Post to a pipeline."""
        self._pipeline = pipeline
        self._beat_at = self._news_at = clock.monotonic()
        self._told: dict[str, int] | None = None
        """What the last heartbeat with news said of what was dropped; None before the first one."""
        self._state = _State()
        self._keyframes: dict[str, Keyframe] = {}
        """The last keyframe of each operation that runs, by its id."""
        self._ended: dict[str, _Texts] = {}
        """The ended stages of each operation that runs, by its id, as events told them last."""

    def on_event(self, event: Event, operation: OperationState) -> None:
        """Post an event of an operation."""
        encoded, is_keyframe = self._encode(event, operation)
        span, now = event.snapshot.span, clock.time_ns()
        body = otlp.log_record(
            event.name,
            event.timestamp,
            now if now - event.timestamp > LATE else 0,
            severity(event),
            sentence(event),
            encoded,
            span.trace_id if span else None,
            span.span_id if span else None,
            bool(span and span.sampled),
        )
        self._pipeline.post(EncodedEvent(event.name, operation.id, body, is_keyframe))

    def on_seen_end(self, end: hooks.SeenEnd) -> None:
        """Send the end of an operation of another process, which can't do so itself any more."""
        about: dict[str, Value] = {
            s.OPERATION_ID: end.operation_id,
            s.OPERATION_NAME: end.name,
            s.STATUS: end.status.value,
            s.STATUS_REASON: redaction.text("reason", end.reason),
            s.PROCESS_PID: end.pid,
        }
        body = otlp.log_record(
            s.OPERATION_ENDED,
            clock.time_ns(),
            0,
            otlp.ERROR if end.status in _BAD_ENDS else otlp.INFO,
            f"{end.name} {end.status.value}: {about[s.STATUS_REASON]}",
            otlp.attributes(_FIELD, about),
            None,
            None,
            False,
        )
        self._pipeline.post(EncodedEvent(s.OPERATION_ENDED, end.operation_id, body, is_keyframe=True))
        self._pipeline.poke()

    def _encode(self, event: Event, operation: OperationState) -> tuple[bytes, bool]:
        """Encode an event; returns whether it is a keyframe as well."""
        event = replace(event, snapshot=with_its_wait(event)) if event.name in ABOUT_WAITS else event
        key = operation.id
        known = self._keyframes.get(key)
        if known is not None and event.sequence != operation._keyframe:
            encoded = self._delta(event, known)
            if encoded is not None:
                return encoded, False
        state = self._whole(event.snapshot)
        own, theirs = _own(event, state.attributes)
        if event.name == s.OPERATION_ENDED:
            self._keyframes.pop(key, None)
            self._ended.pop(key, None)
        else:
            about = {name: value for name, value in own.items() if name in wire.STATE}
            self._keyframes[key] = Keyframe(event.sequence, {**state.attributes, **about}, state.stages, state.detail)
        return otlp.attributes(_FIELD, own) + state.encoded + theirs, True

    def _delta(self, event: Event, keyframe: Keyframe) -> bytes | None:
        """Encode an event as a delta; None if a keyframe says it better."""
        snapshot = event.snapshot
        state = self._read(snapshot, keyframe.detail)
        delta = keyframe.difference(state.attributes, state.stages)
        if delta is None:
            return None
        encoded = otlp.attributes(_FIELD, delta)
        if len(encoded) > BYTES:
            return None
        own, theirs = _own(event, state.attributes)
        if state.elapsed is not None and not _is_about(state.elapsed, snapshot.started_at, snapshot.timestamp):
            own[s.ELAPSED] = state.elapsed  # else its start says it
        if event.name == s.UPDATED:
            own.pop(s.STAGE_NAME, None)  # its path says it
            if event.stage is not None and event.stage == snapshot.stage:
                del own[s.STAGE_PATH]  # the current stage says it
        return otlp.attributes(_FIELD, own) + encoded + theirs

    def _read(self, snapshot: Snapshot, detail: int) -> _State:
        """The attributes of a snapshot; events of one round share it."""
        if self._state.snapshot is not snapshot or self._state.detail != detail:
            key = snapshot.operation_id
            self._state = _State(snapshot, detail, self._ended.get(key, _NO_TEXTS))
            if not snapshot.status.final:
                self._ended[key] = self._state.ended
        return self._state

    def _whole(self, snapshot: Snapshot) -> _State:
        """The attributes of a snapshot, encoded; without details if they are too large."""
        for detail in range(len(_DETAILS)):
            state = self._read(snapshot, detail)
            if not state.encoded:
                state.encode()
            if len(state.encoded) <= BYTES:
                break
            drops.add(s.DROP_ATTRIBUTE)
        return state

    def on_tick(self, now: float) -> None:
        """Post a heartbeat of the process when it is due, and send everything."""
        if self._is_beat_due(now):
            self._beat_at = now
            self._beat(now)
        self._pipeline.poke()

    def _is_beat_due(self, now: float) -> bool:
        """Whether nothing else proves for long that the process is alive, or tells how it is."""
        if now - self._news_at >= NEWS_SECONDS:
            return True
        pipeline = self._pipeline
        return pipeline.is_over(self._beat_at, now) and (pipeline.is_silent(now) or (self._told or {}) != drops)

    def _beat(self, now: float) -> None:
        """Post a heartbeat, which tells how the process is, or only that it is; the resource has the interval."""
        lag = process.lag.worst(process.loops)
        is_soon = now - self._news_at >= NEWS_SECONDS - self._pipeline.interval / 2
        text, about = "the process is alive", dict[str, Value]()
        if is_soon or self._told != drops or (lag or 0.0) >= LAGS:
            self._news_at, self._told = now, dict(drops)
            text += f", {count(len(registry.live))} {plural('operation', len(registry.live))} in flight"
            about = self._news(lag)
        when = clock.time_ns()
        body = otlp.log_record(
            s.PROCESS_HEARTBEAT, when, 0, otlp.INFO, text, otlp.attributes(_FIELD, about), None, None, False
        )
        self._pipeline.post(EncodedEvent(s.PROCESS_HEARTBEAT, "", body))

    def _news(self, lag: float | None) -> dict[str, Value]:
        """How the process is; `lag` is that of its slowest event loop, in seconds."""
        about: dict[str, Value] = {
            s.HEARTBEAT_INTERVAL: self._pipeline.interval,
            s.JUDGED_BY: "process",
            s.PROCESS_IN_FLIGHT: len(registry.live),
        }
        if lag is not None:
            about[s.PROCESS_LOOP_LAG] = lag
        about |= vitals()
        if drops:
            about[s.DROPPED] = json.dumps(dict(drops))
        return about


_Texts: TypeAlias = "dict[int, tuple[StageSnapshot, StageText]]"
"""Ended stages by their identity, which holds while they are kept here."""
_NO_TEXTS: Final[_Texts] = {}


class _State:
    """The state of an operation as attributes; the curve and the elapsed time apart, as deltas go without them."""

    __slots__ = ("attributes", "curve", "detail", "elapsed", "encoded", "ended", "snapshot", "stages")

    def __init__(self, snapshot: Snapshot | None = None, detail: int = 0, ended: _Texts = _NO_TEXTS) -> None:
        """Read a snapshot; `detail` is the place in `_DETAILS` of what makes it smaller, `ended` is known already."""
        self.snapshot = snapshot
        self.detail = detail
        self.encoded = b""
        self.attributes: dict[str, Value] = {}
        self.stages: list[StageText] = []
        self.ended: _Texts = {}
        self.curve: Value | None = None
        self.elapsed: Value | None = None
        if snapshot is not None:
            lighter = _DETAILS[detail](snapshot)
            self.attributes.update(wire.state_of(lighter))
            self.stages = [self._told(stage, snapshot.timestamp, ended) for stage in lighter.stages]
            self.curve = self.attributes.pop(s.CURVE, None)
            self.elapsed = self.attributes.pop(s.ELAPSED, None)
            if snapshot.health is Health.PROGRESSING and (snapshot.idle or 0.0) < SAMPLED and s.IDLE in self.attributes:
                self.attributes[s.IDLE] = 0.0

    def _told(self, stage: StageSnapshot, now: float, ended: _Texts) -> StageText:
        """A stage as events tell it; one that ended is the same object each time, so its text is made once."""
        if not stage.status.final:
            return StageText(_lean(wire.stage_of(stage), now))
        known = ended.get(id(stage)) or (stage, StageText(_lean(wire.stage_of(stage), now)))
        self.ended[id(stage)] = known
        return known[1]

    def encode(self) -> None:
        """Encode all of it."""
        both = (s.ELAPSED, self.elapsed), (s.CURVE, self.curve)
        more: dict[str, Value] = {name: value for name, value in both if value is not None}
        if self.stages:
            more[s.STAGES] = f"[{','.join(stage.text for stage in self.stages)}]"
        self.encoded = otlp.attributes(_FIELD, {**self.attributes, **more})


def _is_about(elapsed: Any, started_at: Any, now: float) -> bool:
    """Whether a reader finds the same elapsed time from the start."""
    return started_at is not None and abs(now - started_at - elapsed) < SAME


def _lean(stage: dict[str, Any], now: float) -> dict[str, Any]:
    """A stage without what a reader finds itself, or what means nothing."""
    final, idle = stage["status"] in _FINAL, stage.get("idle")
    if idle is not None and (final or idle < SAMPLED):
        del stage["idle"]
    if not final and "elapsed" in stage and _is_about(stage["elapsed"], stage.get("started_at"), now):
        del stage["elapsed"]
    return stage


def _own(event: Event, state: Mapping[str, object]) -> tuple[dict[str, Value], bytes]:
    """What this event adds to the state of its operation, and what the user adds, encoded.

    The sequence comes first, as the monitor orders events by it. Attributes of the user never override the state.
    """
    own: dict[str, Value] = {s.SEQUENCE: event.sequence}
    if event.stage is not None:
        own[s.STAGE_PATH] = event.stage
        own[s.STAGE_NAME] = event.stage.rpartition("/")[2]
    theirs = {}
    for key, value in event.attributes.items():
        if key in s.EVENT_ATTRIBUTES:
            if key not in state:
                own[key] = value
        elif key.startswith(s.PREFIX) or key in state:
            drops.add(s.DROP_ATTRIBUTE)
        else:
            theirs[key] = value
    encoded = otlp.attributes(_FIELD, theirs)
    if len(encoded) > BYTES:
        drops.add(s.DROP_ATTRIBUTE, len(theirs))
        encoded = b""
    return own, encoded


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


_DETAILS: Final[tuple[Callable[[Snapshot], Snapshot], ...]] = (lambda snapshot: snapshot, _light, _bare)
"""What makes a snapshot smaller, one after the other, if it is too large for an event."""


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
