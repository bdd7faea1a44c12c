"""One configuration at work: its pipeline, its exporter, and the hooks by which it hears of operations."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.live import hooks
from otel_progress.live.engine import process
from otel_progress.live.registry import registry
from otel_progress.model.values import Value
from otel_progress.outbound.transport import OTLP, Transport, connect
from otel_progress.settings import Settings
from otel_progress.telemetry.control_channel import Channel
from otel_progress.telemetry.events import Events
from otel_progress.telemetry.exporters import makers
from otel_progress.telemetry.farewell import Farewell
from otel_progress.telemetry.metrics import ByName
from otel_progress.telemetry.pipeline import Pipeline
from otel_progress.telemetry.providers import Exporter, tracer_provider, unsent_spans
from otel_progress.telemetry.resource import detect, environment_of, exported, service_of
from otel_progress.telemetry.run_series import RunSeries
from otel_progress.version import VERSION

_instruments: weakref.WeakKeyDictionary[Any, ByName] = weakref.WeakKeyDictionary()


class Installation:
    """One configuration at work: the pipeline and exporter it made, and the hooks it registered."""

    def __init__(self, settings: Settings, resource: Mapping[str, Any], *, is_guest: bool = False) -> None:
        """Remember what to install; nothing is made, opened or started. A guest sets no global provider."""
        self.settings = settings
        self._own = settings.as_guest() if is_guest else settings
        self.resource = dict(resource)
        self.about: dict[str, Value] = {}
        """The resource attributes of our requests."""
        self._undo: list[Callable[[], None]] = []
        self.pipeline: Pipeline | None = None
        self.channel: Channel | None = None
        self.farewell: Farewell | None = None
        self.exporter: Any = None

    def install(self, *, forked: bool = False) -> None:
        """Make the pipeline and the exporter, and register with the hooks."""
        settings = self.settings
        hooks.stall_after, hooks.captures_inputs = settings.stall_after, settings.capture_inputs
        logs, metrics = (transport_of(name, settings) for name in ("logs", "metrics"))
        resource = detect(self.resource, forked=forked)
        self.exporter = Exporter(settings, forked=forked)
        meters = self.exporter.meter_provider(self._own, resource)
        tracers = tracer_provider(self._own, resource, forked=forked)
        if tracers is not None:
            hooks.tracing.use(tracers)
        if meters is not None:
            self._hook(hooks.on_change, _by_name(meters, forked=forked).on_change)
        about = self.about = exported(tracers, resource, forked=forked)
        offered = None
        if settings.control is not False:
            self.channel = Channel(
                settings.endpoints["logs"], str(about[s.SERVICE_INSTANCE_ID]), settings.control or False
            )
            offered = self.channel.offered
        registry.service = service_of(about)
        registry.environment = environment_of(about)
        self.pipeline = Pipeline(logs, metrics, about, VERSION, settings.outbox, offered, settings.heartbeat)
        runs = self._hook_pipeline(self.pipeline)
        self.farewell = Farewell(self.pipeline, unsent_spans, registry.unreported, runs.unsent)
        self._hook(process.at_last, self.farewell.say)
        self._hook(process.at_exit, self.flush)
        self._hook(process.in_haste, self.pipeline.flush)
        self._hook(process.all_sent, self.pipeline.all_sent)
        self._hook(hooks.on_trouble, self.exporter.on_trouble)
        self.exporter.start()

    def _hook_pipeline(self, pipeline: Pipeline) -> RunSeries:
        settings = self.settings
        events = Events(pipeline)
        runs = RunSeries(pipeline, settings)
        self._hook(hooks.paced_sinks, events.on_event)
        self._hook(hooks.seen_ends, events.on_seen_end)
        self._hook(hooks.on_change, runs.on_change)
        self._hook(hooks.on_trouble, runs.on_trouble)
        self._hook(hooks.on_tick, runs.on_tick)
        self._hook(hooks.on_tick, events.on_tick)
        return runs

    def _hook(self, where: list[Any], what: Any) -> None:
        where.append(what)
        self._undo.append(lambda: where.remove(what))

    def flush(self, timeout: float) -> bool:
        """Send everything; return whether that succeeded within the timeout (seconds)."""
        deadline = clock.monotonic() + timeout
        exported = self.exporter.flush()
        sent = self.pipeline is None or self.pipeline.flush(timeout)
        return bool(exported.wait(max(0.0, deadline - clock.monotonic())) and sent)

    def unhook(self) -> None:
        """Unregister from all hooks."""
        hooks.stall_after, hooks.captures_inputs = None, False
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()

    def close(self, timeout: float, *, replaced: bool = False) -> None:
        """Send what is left within the timeout (seconds), and end threads and connections."""
        if self.channel is not None:
            self.channel.close()
        if self.pipeline is not None:
            self.pipeline.flush(timeout)
            if self.farewell is not None:
                self.farewell.say(final=True, replaced=replaced)
            self.pipeline.close()
        if self.exporter is not None:
            self.exporter.close()


def check(settings: Settings) -> None:
    """Check that all clients and exporters are installed, before anything changes.

    Raises:
        MissingDependency: if one is not.
    """
    for name in ("traces", "metrics"):
        for make in makers(name, settings):
            if isinstance(make, partial):
                make().shutdown()
    for name in ("logs", "metrics"):
        transport_of(name, settings)


def transport_of(name: str, settings: Settings) -> Transport | None:
    """The transport of a signal, or None if `OTEL_LOGS_EXPORTER` or `OTEL_METRICS_EXPORTER` does not name OTLP."""
    wanted = {part.strip() for part in getattr(settings, name).split(",")}
    return connect(name, settings.endpoints[name]) if wanted & OTLP else None


def _by_name(meters: Any, *, forked: bool) -> ByName:
    """The instruments on a provider; made once for each, as the SDK keeps them for good."""
    made = _instruments.get(meters)
    if made is None:
        made = _instruments[meters] = ByName(meters.get_meter(s.SCOPE, VERSION))
    elif forked:
        made.restart()
    return made
