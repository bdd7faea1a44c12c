"""Log events: each carries the snapshot of its operation, so a reader that joins late is right after the next one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.live import runtime
from otel_progress.live.drops import drops
from otel_progress.live.registry import registry
from otel_progress.model import wire
from otel_progress.model.snapshot import Event, Snapshot
from otel_progress.model.status import Status
from otel_progress.model.values import Value
from otel_progress.telemetry import protobuf
from otel_progress.telemetry.outbox import Letter

if TYPE_CHECKING:
    from otel_progress.live.operation import Operation
    from otel_progress.telemetry.pipeline import Pipeline

_FIELD: Final = 6
_WARNINGS: Final = frozenset({s.STALLED})
_BAD_ENDS: Final = frozenset({Status.FAILED, Status.LOST, Status.INTERRUPTED})


class Events:
    """Encodes events and posts them; lives in the ticker's thread."""

    def __init__(self, pipeline: Pipeline, heartbeat: float) -> None:
        """Post to a pipeline; the process gives a heartbeat each so many seconds."""
        self._pipeline = pipeline
        self._heartbeat = heartbeat
        self._next_beat = 0.0
        self._last: Snapshot | None = None
        self._keys: dict[str, Value] = {}
        self._encoded = b""
        self._lags: dict[int, float] = {}

    def on_event(self, event: Event, operation: Operation) -> None:
        """Post an event of an operation."""
        snapshot = event.snapshot
        if snapshot is not self._last:
            self._last = snapshot
            self._keys = wire.to_attributes(snapshot)  # type: ignore[assignment]
            self._keys.pop(s.SEQUENCE, None)
            self._encoded = protobuf.attributes(_FIELD, self._keys)
        own: dict[str, Value] = {s.SEQUENCE: event.sequence}
        if event.stage is not None:
            own[s.STAGE_PATH] = event.stage
            own[s.STAGE_NAME] = event.stage.rpartition("/")[2]
        own.update(event.attributes)
        if own.keys() & self._keys.keys():
            encoded = protobuf.attributes(_FIELD, {**self._keys, **own})
        else:
            encoded = self._encoded + protobuf.attributes(_FIELD, own)
        span = snapshot.span
        body = protobuf.log_record(
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
        self._pipeline.post(Letter(event.name, operation.id, body))

    def on_tick(self, now: float) -> None:
        """Give the process's heartbeat when it is time, and have everything sent."""
        if now >= self._next_beat:
            self._next_beat = now + self._heartbeat
            self._beat()
        self._pipeline.poke()

    def _beat(self) -> None:
        about: dict[str, Value] = {
            s.HEARTBEAT_INTERVAL: self._heartbeat,
            s.PROCESS_IN_FLIGHT: len(registry.live),
        }
        lag = self._loop_lag()
        if lag is not None:
            about[s.PROCESS_LOOP_LAG] = lag
        if drops:
            about[s.DROPPED] = json.dumps(dict(drops))
        now = clock.time_ns()
        text = f"the process is alive, {about[s.PROCESS_IN_FLIGHT]} operations in flight"
        body = protobuf.log_record(
            s.PROCESS_HEARTBEAT, now, now, protobuf.INFO, text, protobuf.attributes(_FIELD, about), None, None, False
        )
        self._pipeline.post(Letter(s.PROCESS_HEARTBEAT, "", body))

    def _loop_lag(self) -> float | None:
        """How late the event loops are, in seconds: the answer to the last question, or how long it is due."""
        lags = []
        for loop in list(runtime.loops):
            if loop.is_closed():
                continue
            asked, key = clock.monotonic(), id(loop)
            before = self._lags.get(key, 0.0)
            lags.append(asked + before if before < 0 else before)
            if before >= 0:
                self._lags[key] = -asked
                try:
                    loop.call_soon_threadsafe(self._answer, key, asked)
                except RuntimeError:
                    self._lags.pop(key, None)
        return max(lags) if lags else None

    def _answer(self, key: int, asked: float) -> None:
        self._lags[key] = clock.monotonic() - asked


def severity(event: Event) -> int:
    """WARN for what somebody should look at, ERROR for a bad end, else INFO."""
    if event.name == s.OPERATION_ENDED and event.snapshot.status in _BAD_ENDS:
        return protobuf.ERROR
    if event.name in _WARNINGS or event.attributes.get(s.NOTE_STATUS) in ("failed", "error"):
        return protobuf.WARN
    return protobuf.INFO


def sentence(event: Event) -> str:
    """The event in words, for those who read logs."""
    snapshot, about = event.snapshot, event.attributes
    if event.name == s.NOTE:
        return f"{snapshot.name}: {about.get(s.NOTE_TEXT, '')}"
    what = event.name.removeprefix("progress.").replace(".", " ")
    if event.name.startswith("progress.stage") and event.stage:
        what = f"{what.replace('stage', 'stage ' + event.stage, 1)}"
    elif event.name == s.OPERATION_ENDED:
        what = f"{snapshot.status.value}" + (f" ({snapshot.reason})" if snapshot.reason else "")
    elif event.name == s.STALLED:
        what = f"stuck: {snapshot.health_reason}"
    elif event.name in (s.WAIT_STARTED, s.WAIT_ENDED):
        what = f"{what}: {about.get(s.WAIT_REASON, '')}"
    elif snapshot.message:
        what = f"{what}: {snapshot.message}"
    percent = snapshot.progress.percentage
    return f"{snapshot.name}: {what}" + (f", {percent:g}%" if percent is not None else "")
