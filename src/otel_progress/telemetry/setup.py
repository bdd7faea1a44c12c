"""`configure()` and `shutdown()`: from settings to a running pipeline, and back."""

from __future__ import annotations

import logging
import signal
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.errors import InvalidState, MissingDependency
from otel_progress.live import hooks, runtime
from otel_progress.model.values import Drops, Value, attributes
from otel_progress.settings import Settings, read
from otel_progress.telemetry import protobuf
from otel_progress.telemetry.events import Events
from otel_progress.telemetry.pipeline import Pipeline
from otel_progress.telemetry.runs import Runs
from otel_progress.telemetry.transport import Transport, connect

log = logging.getLogger("otel_progress")
_INSTANCE = "service.instance.id"


class Configured:
    """One configuration at work: what it put into the hooks, and how to take it out again."""

    def __init__(self, settings: Settings, resource: Mapping[str, Any]) -> None:
        """Build all parts; nothing is opened or started yet."""
        self.settings = settings
        self.resource = dict(resource)
        self._undo: list[Callable[[], None]] = []
        self.pipeline: Pipeline | None = None
        self.exporter: Any = None

    def install(self, *, fresh_instance: bool) -> None:
        """Take part in what happens from now on."""
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.resources import Resource

        from otel_progress import __version__
        from otel_progress.telemetry.metrics import ByName
        from otel_progress.telemetry.providers import Exporter, tracer_provider

        settings = self.settings
        if fresh_instance or _INSTANCE not in self.resource:
            self.resource[_INSTANCE] = str(uuid.uuid4())
        resource = Resource.create(self.resource)
        tracers = tracer_provider(settings, resource) if not fresh_instance else None
        self.exporter = Exporter(settings)
        meters = self.exporter.meter_provider(settings, resource)
        if tracers is not None:
            hooks.tracing.use(tracers)
        if meters is not None and (isinstance(meters, MeterProvider) or not fresh_instance):
            by_name = ByName(meters.get_meter(s.SCOPE, __version__))
            self._hook(hooks.on_change, by_name.on_change)
        self._start_pipeline(settings, _resource_of(tracers, resource, self.resource[_INSTANCE]), __version__)
        self._hook(runtime.at_exit, self.flush)
        self._hook(hooks.on_operation, self._on_operation)

    def _start_pipeline(self, settings: Settings, resource: Mapping[str, Value], version: str) -> None:
        logs, metrics = (_transport(name, settings) for name in ("logs", "metrics"))
        pipeline = self.pipeline = Pipeline(logs, metrics, protobuf.resource(resource), version, settings.outbox)
        events = Events(pipeline, settings.heartbeat)
        runs = Runs(pipeline, settings.metric_interval, settings.run_series_after, settings.run_series_max)
        self._hook(hooks.sinks, events.on_event)
        self._hook(hooks.on_change, runs.on_change)
        self._hook(hooks.on_tick, runs.on_tick)
        self._hook(hooks.on_tick, events.on_tick)

    def _hook(self, where: list[Any], what: Any) -> None:
        where.append(what)
        self._undo.append(lambda: where.remove(what))

    def _on_operation(self, operation: object) -> None:
        self.exporter.start()

    def flush(self, timeout: float) -> bool:
        """Have everything sent, within so many seconds."""
        deadline = clock.monotonic() + timeout
        exported = self.exporter.flush()
        sent = self.pipeline is None or self.pipeline.flush(timeout)
        return bool(exported.wait(max(0.0, deadline - clock.monotonic())) and sent)

    def remove(self) -> None:
        """Take part no longer, and let threads and connections go."""
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()
        if self.pipeline is not None:
            self.pipeline.close()
        if self.exporter is not None:
            self.exporter.close()


_configured: Configured | None = None
_lock = threading.RLock()
_hooked = False


def configure(
    service_name: str | None = None,
    *,
    endpoint: str | None = None,
    headers: Mapping[str, str] | None = None,
    protocol: str | None = None,
    interval: float | None = None,
    resource: Mapping[str, Any] | None = None,
    handle_sigterm: bool = False,
) -> None:
    """Send operations as OpenTelemetry from now on; an application calls it once, at its start.

    What is not given here comes from the standard `OTEL_*` variables. Spans and metrics by name use the providers
    that exist; where there are none, they are made. Called again, it takes the place of what was before.

    Args:
        service_name: the service, as backends show it (`service.name`).
        endpoint: the base address of an OTLP receiver, such as `http://localhost:4318`.
        headers: sent with each request, such as an authorization.
        protocol: `http/protobuf` (the default) or `grpc`.
        interval: what left the process is never older than this, in seconds; 1 unless said.
        resource: more attributes of the service, such as `{"deployment.environment.name": "prod"}`.
        handle_sigterm: end running operations as interrupted and flush when SIGTERM comes, then do what was
            done on it before. Only from the main thread.

    Raises:
        InvalidArgument: for an endpoint, a protocol or an interval that can't be meant.
        InvalidState: for `handle_sigterm` outside the main thread.
        MissingDependency: where the SDK or the exporter is not installed.
    """
    global _configured, _hooked
    settings = read(endpoint=endpoint, headers=headers, protocol=protocol, interval=interval)
    if settings.disabled:
        return
    try:
        import opentelemetry.sdk  # noqa: F401
    except ImportError:
        raise MissingDependency('configure() needs the SDK: pip install "otel-progress[otlp]"') from None
    about = dict(attributes(resource or {}, Drops()))
    if service_name is not None:
        about["service.name"] = service_name
    if handle_sigterm:
        _chain_sigterm()
    with _lock:
        if _configured is not None:
            shutdown()
        made = Configured(settings, about)
        try:
            made.install(fresh_instance=False)
        except BaseException:
            made.remove()
            raise
        _configured = made
        if not _hooked:
            _hooked = True
            runtime.in_child.append(_after_fork)
        runtime.set_pace(settings.interval, settings.event_budget)
        runtime.want()
    if settings.metric_interval >= 180:
        log.warning(
            "OTEL_METRIC_EXPORT_INTERVAL is %.0f s: alerts on stuck and lost operations look back 3 minutes, and are blind "
            "with an interval of 180 s or more; use at most 60000 (ms)",
            settings.metric_interval,
        )


def shutdown(timeout: float = 2.0) -> None:
    """Flush, within so many seconds, and undo `configure()`; operations go on unseen. It may be called twice."""
    global _configured
    with _lock:
        configured, _configured = _configured, None
        if configured is None:
            return
        runtime.finish(timeout)
        configured.remove()
        from otel_progress.telemetry.providers import let_spans_go

        let_spans_go()
        hooks.wanted = bool(hooks.sinks)


def flush(timeout: float = 2.0) -> bool:
    """Have everything reported so far sent, within so many seconds; whether that could be done in time."""
    return runtime.finish(timeout)


def instrumented() -> None:
    """Called by `opentelemetry-instrument` when the providers are set up: adds events and run series."""
    try:
        configure()
    except MissingDependency as error:
        log.warning("%s", error)


def _after_fork() -> None:
    """All is built again in a forked child: with a fresh instance id, and empty."""
    global _lock
    _lock = threading.RLock()
    configured = _configured
    if configured is None:
        return
    configured.pipeline = None
    for undo in reversed(configured._undo):
        undo()
    configured._undo.clear()
    configured.install(fresh_instance=True)


def _transport(name: str, settings: Settings) -> Transport | None:
    """The transport of a signal, or None where `OTEL_LOGS_EXPORTER` or `OTEL_METRICS_EXPORTER` leaves OTLP out."""
    wanted = {part.strip() for part in getattr(settings, name).split(",")}
    return connect(name, settings.endpoints[name]) if "otlp" in wanted else None


def _resource_of(tracers: Any, resource: Any, instance: str) -> dict[str, Value]:
    """The attributes of the provider's resource where there is one, so that all signals name the same service."""
    found = getattr(tracers, "resource", None) or resource
    given = {**found.attributes}
    given.setdefault(_INSTANCE, instance)
    return dict(attributes(given, Drops()))


def _chain_sigterm() -> None:
    if threading.current_thread() is not threading.main_thread():
        raise InvalidState("handle_sigterm=True needs the main thread, as signal handlers can be set only there")
    before = signal.getsignal(signal.SIGTERM)
    if getattr(before, "otel_progress", False):
        return

    def handle(number: int, frame: Any) -> None:
        runtime.finish(runtime.EXIT_SECONDS, "SIGTERM")
        if callable(before):
            before(number, frame)
        elif before != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    handle.otel_progress = True  # type: ignore[attr-defined]
    signal.signal(signal.SIGTERM, handle)
