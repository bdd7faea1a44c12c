"""The events of this process on their way to the embedded monitor: the same bytes as over the network, without one."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from otel_progress import semconv as s
from otel_progress.live import hooks
from otel_progress.live.engine import keyframes, runtime
from otel_progress.live.registry import registry
from otel_progress.monitor.intake.requests import Acknowledgement, Envelope, Refused
from otel_progress.outbound.answer import Answer
from otel_progress.telemetry.events import Events
from otel_progress.telemetry.pipeline import TO_MONITOR, Pipeline
from otel_progress.telemetry.resource import detect, exported
from otel_progress.version import VERSION

if TYPE_CHECKING:
    from otel_progress.live.state import OperationState
    from otel_progress.model.snapshot import Event
    from otel_progress.monitor.state.core import Core

WAITING: Final = 10_000
"""Events that wait for the first request, at most; the newest ones stay, and ends longest."""
TAKEN_WITHIN: Final = 5.0
"""Seconds within which the core takes a request."""


class Handover:
    """A transport to a core in the same process."""

    def __init__(self) -> None:
        """There is no core yet."""
        self.core: Core | None = None

    def send(self, body: bytes, timeout: float | None = None) -> Answer:
        """Hand a request over, and wait until it is stored."""
        answers: list[Acknowledgement] = []
        answered = threading.Event()

        def done(found: Acknowledgement) -> None:
            answers.append(found)
            answered.set()

        try:
            if self.core is None:
                return Answer(delivered=False, retry=True, reason="nothing takes events here yet")
            self.core.offer(Envelope("logs", body), done)
        except Refused as refused:
            return _refusal(refused)
        if not answered.wait(timeout or TAKEN_WITHIN):
            return Answer(delivered=False, retry=True, unclear=True, reason="they were not taken in time")
        found = answers[0]
        return _refusal(found) if isinstance(found, Refused) else Answer(delivered=True, rejected=found.rejected)

    def close(self) -> None:
        """Do nothing; there is no connection."""


def _refusal(refused: Refused) -> Answer:
    return Answer(
        delivered=False,
        retry=refused.status in (429, 503),
        after=refused.retry_after,
        about_data=refused.status in (400, 413),
        too_large=refused.status == 413,
        reason=f"the pages of this process: {refused.reason}",
    )


class Feed:
    """Collects the events of this process from `start` on, and passes them on once there is a core."""

    def __init__(self, *, forked: bool = False) -> None:
        """Prepare; nothing is collected yet. A forked process is an instance of its own."""
        about = exported(None, detect({}, forked=forked), forked=forked)
        self.instance = str(about[s.SERVICE_INSTANCE_ID])
        """The id of this process among its events."""
        self._handover = Handover()
        self._pipeline = Pipeline(self._handover, None, about, VERSION, WAITING, heartbeat=TO_MONITOR)
        self._events = Events(self._pipeline)
        self._is_connected = False

    def start(self) -> None:
        """Collect from now on; running operations report their whole state soon."""
        hooks.sinks.append(self._take)
        hooks.on_tick.append(self._on_tick)
        for operation in registry.operations():
            keyframes.request(operation)
        runtime.want()

    def connect(self, core: Core) -> None:
        """Pass on what was collected, and what follows; returns once the core has what was collected."""
        self._handover.core = core
        self._pipeline.flush(TAKEN_WITHIN)
        self._is_connected = True

    def stop(self) -> None:
        """Pass on what is left, and collect no more."""
        self.drop()
        if self._is_connected:
            self._pipeline.flush(1.0)
        self._pipeline.close()
        runtime.unwant()

    def drop(self) -> None:
        """Remove the hooks, as in a forked child, where no thread runs that could take anything."""
        for place, call in ((hooks.sinks, self._take), (hooks.on_tick, self._on_tick)):
            if call in place:
                place.remove(call)  # type: ignore[arg-type]
        runtime.unwant()

    def _take(self, event: Event, operation: OperationState) -> None:
        """Collect an event; here no update waits."""
        if event.snapshot.update_pause is not None:
            event = replace(event, snapshot=replace(event.snapshot, update_pause=None))
        self._events.on_event(event, operation)

    def _on_tick(self, now: float) -> None:
        if self._is_connected:
            self._events.on_tick(now)
