"""`configure()` and `shutdown()`: from settings to a running pipeline, and back."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import uuid
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otel_progress import clock, forks, procfs
from otel_progress import semconv as s
from otel_progress.errors import InvalidArgument, InvalidState, MissingDependency
from otel_progress.live import hooks, preload, redaction
from otel_progress.live.boundary import public
from otel_progress.live.engine import learning, runtime
from otel_progress.model.redact import Redact
from otel_progress.model.values import Value
from otel_progress.outbound import otlp
from otel_progress.outbound.transport import OTLP, Transport, connect
from otel_progress.settings import Settings, read
from otel_progress.telemetry.control_channel import Channel
from otel_progress.telemetry.events import Events
from otel_progress.telemetry.farewell import Farewell
from otel_progress.telemetry.pipeline import Pipeline
from otel_progress.telemetry.run_series import Runs
from otel_progress.version import VERSION

if TYPE_CHECKING:
    from otel_progress.telemetry.metrics import ByName

log = logging.getLogger("otel_progress")
_OF_PROCESS: Final = (s.PROCESS_PID, s.PROCESS_CREATED)
PARK_SECONDS: Final = 1.0


class Configured:
    """One configuration at work: what it put into the hooks, and how to take it out again."""

    def __init__(self, settings: Settings, resource: Mapping[str, Any]) -> None:
        """Nothing is made, opened or started yet."""
        self.settings = settings
        self.resource = dict(resource)
        self._undo: list[Callable[[], None]] = []
        self.pipeline: Pipeline | None = None
        self.channel: Channel | None = None
        self.farewell: Farewell | None = None
        self.exporter: Any = None

    def install(self, *, forked: bool = False) -> None:
        """Take part in what happens from now on."""
        from opentelemetry.sdk.resources import Resource

        from otel_progress.telemetry.providers import Exporter, tracer_provider, unsent_spans

        settings = self.settings
        logs, metrics = (_transport(name, settings) for name in ("logs", "metrics"))
        resource = Resource.create(self.resource).merge(Resource(_process()))
        resource = Resource({s.HOST_NAME: socket.gethostname()}).merge(resource)
        if forked or s.SERVICE_INSTANCE_ID not in resource.attributes:
            resource = resource.merge(Resource({s.SERVICE_INSTANCE_ID: _instance()}))
        resource = Resource(redaction.attributes(resource.attributes))
        self.exporter = Exporter(settings, forked=forked)
        meters = self.exporter.meter_provider(settings, resource)
        tracers = tracer_provider(settings, resource, forked=forked)
        if tracers is not None:
            hooks.tracing.use(tracers)
        if meters is not None:
            self._hook(hooks.on_change, _by_name(meters, forked=forked).on_change)
        about = _resource_of(tracers, resource, forked=forked)
        offered = None
        if settings.control is not False:
            self.channel = Channel(
                settings.endpoints["logs"], str(about[s.SERVICE_INSTANCE_ID]), settings.control or False
            )
            offered = self.channel.offered
        self.pipeline = Pipeline(logs, metrics, otlp.resource(about), VERSION, settings.outbox, offered)
        self._hook_pipeline(self.pipeline)
        self.farewell = Farewell(self.pipeline, unsent_spans)
        self._hook(runtime.at_last, self.farewell.say)
        self._hook(runtime.at_exit, self.flush)
        self._hook(runtime.in_haste, self.pipeline.flush)
        self._hook(runtime.all_sent, self.pipeline.all_sent)
        self.exporter.start()

    def _hook_pipeline(self, pipeline: Pipeline) -> None:
        settings = self.settings
        events = Events(pipeline, settings.heartbeat)
        runs = Runs(pipeline, settings.metric_interval, settings.run_series_after, settings.run_series_max)
        self._hook(hooks.sinks, events.on_event)
        self._hook(hooks.on_change, runs.on_change)
        self._hook(hooks.on_tick, runs.on_tick)
        self._hook(hooks.on_tick, events.on_tick)

    def _hook(self, where: list[Any], what: Any) -> None:
        where.append(what)
        self._undo.append(lambda: where.remove(what))

    def flush(self, timeout: float) -> bool:
        """Have everything sent, within so many seconds."""
        deadline = clock.monotonic() + timeout
        exported = self.exporter.flush()
        sent = self.pipeline is None or self.pipeline.flush(timeout)
        return bool(exported.wait(max(0.0, deadline - clock.monotonic())) and sent)

    def unhook(self) -> None:
        """Take part no longer."""
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()

    def close(self, timeout: float) -> None:
        """Send what came last, and let threads and connections go."""
        if self.channel is not None:
            self.channel.close()
        if self.pipeline is not None:
            self.pipeline.flush(timeout)
            if self.farewell is not None:
                self.farewell.say(final=True)
            self.pipeline.close()
        if self.exporter is not None:
            self.exporter.close()


_configured: Configured | None = None
_lock = threading.RLock()
_hooked = False
_instruments: weakref.WeakKeyDictionary[Any, ByName] = weakref.WeakKeyDictionary()


@public(strict=True)
def configure(
    service_name: str | None = None,
    *,
    endpoint: str | None = None,
    headers: Mapping[str, str] | None = None,
    protocol: str | None = None,
    interval: float | None = None,
    resource: Mapping[str, Any] | None = None,
    history: str | os.PathLike[str] | None = None,
    control: bool | str | None = None,
    redact: Redact | str | None = None,
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
        history: a file in which to keep what runs teach about limits that nobody named, beyond this process;
            `OTEL_PROGRESS_HISTORY` names one too.
        control: whether a monitor may ask operations to stop. Unless said, one at the endpoint's own host and port may,
            if that is this machine, or is sent an authorization or a client certificate. False: none, True: any, an
            address such as `http://localhost:4318`: one there, too. `OTEL_PROGRESS_CONTROL` says it too.
        redact: called with what a text is (`message`, `note`, `stack`, … or the key of an attribute) and the text, for
            all that the job says and for stacks, before it is kept; returns what may leave. `mask_secrets` unless
            said, which masks what looks like a secret; `"off"` masks nothing, `"module:function"` names a function.
            It stays until `shutdown()`, also where `configure()` is called again without one.
            `OTEL_PROGRESS_REDACT` says it too: `secrets`, `off`, or `module:function`.
        handle_sigterm: end running operations as interrupted and flush when SIGTERM comes, then do what was
            done on it before. Only from the main thread.

    Raises:
        InvalidArgument: for a value that configure() can't use; the message names it and what would do.
        InvalidState: for `handle_sigterm` outside the main thread.
        MissingDependency: where the SDK or the exporter is not installed.
    """
    global _hooked
    preload.load()
    settings = read(
        endpoint=endpoint, headers=headers, protocol=protocol, interval=interval, history=history, control=control
    )
    if settings.disabled:
        return
    try:
        import opentelemetry.sdk  # noqa: F401
    except ImportError:
        raise MissingDependency("configure() needs the SDK: pip install otel-progress") from None
    hook = redaction.chosen(redact, settings.redact)
    _check(settings)
    about = dict(resource or {})
    if service_name is not None:
        about[s.SERVICE_NAME] = service_name
    if handle_sigterm and threading.current_thread() is not threading.main_thread():
        raise InvalidState("handle_sigterm=True needs the main thread, as signal handlers can be set only there")
    learned = _learning(settings, named=history is not None)
    with _lock:
        _replace(Configured(settings, about), 2.0, hook)
        if learned is not None:
            learning.learning = learned
        runtime.set_pace(settings.interval, settings.event_budget)
        if not _hooked:
            _hooked = True
            forks.in_child.append(_after_fork)
        runtime.want()
        if handle_sigterm:
            _chain_sigterm()
    if settings.metric_interval >= 180:
        log.warning(
            "OTEL_METRIC_EXPORT_INTERVAL is %.0f s: alerts on stuck and lost operations look back 3 minutes, and are "
            "blind with an interval of 180 s or more; use at most 60000 (ms)",
            settings.metric_interval,
        )


def _learning(settings: Settings, *, named: bool) -> learning.Learning | None:
    """What was learned so far, where a file for it is known.

    Raises:
        InvalidArgument: where the file that the caller named can't be used.
    """
    if settings.history is None:
        return None
    path = Path(settings.history).absolute()
    try:
        return learning.Learning(path)
    except (OSError, ValueError) as error:
        if named:
            raise InvalidArgument(f"history can't be kept in {path}: {error}") from error
        log.warning("OTEL_PROGRESS_HISTORY is not used, limits are learned in memory alone: %s", error)
        return None


@public(strict=True)
def shutdown(timeout: float = 2.0) -> None:
    """End what still runs as interrupted, flush, within so many seconds, and undo `configure()`.

    A server calls it when it stops, such as at the end of an ASGI lifespan. It may be called twice.
    """
    with _lock:
        if _configured is not None:
            _replace(None, timeout)
            runtime.unwant()
            runtime.rest()
            _unchain_sigterm()


def _replace(new: Configured | None, timeout: float, redact: Redact | None = None) -> None:
    """Put one configuration in the place of another, between two rounds of the ticker: no event falls between."""
    global _configured
    from otel_progress.telemetry.providers import detach_spans, let_go, no_spans

    old, deadline = _configured, clock.monotonic() + timeout
    if old is not None:
        runtime.finish(timeout, "telemetry was shut down" if new is None else None)
    parked = runtime.parking.acquire(timeout=PARK_SECONDS)
    try:
        processors = detach_spans()
        if old is not None:
            old.unhook()
        _configured = new
        redaction.use(redact)
        if new is not None:
            new.install()
        else:
            no_spans()
    except BaseException:
        if new is not None:
            new.unhook()
            new.close(0.0)
        _configured = None
        raise
    finally:
        if parked:
            runtime.parking.release()
        if old is not None:
            old.close(max(0.0, deadline - clock.monotonic()))
        let_go(processors, max(0.0, deadline - clock.monotonic()))


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
    if _configured is not None:
        _configured.unhook()
        _configured.install(forked=True)


def _instance() -> str:
    """The id of this process, as the SDK has it: it gives a forked child a fresh one, so that all signals agree."""
    try:
        from opentelemetry.sdk.resources import ServiceInstanceIdResourceDetector

        return str(ServiceInstanceIdResourceDetector().detect().attributes[s.SERVICE_INSTANCE_ID])
    except (ImportError, KeyError):
        return str(uuid.uuid4())


def _process() -> dict[str, Any]:
    """Which process of its host this one is, so that a watcher there can tell when it is gone."""
    about: dict[str, Any] = {s.PROCESS_PID: os.getpid()}
    seen = procfs.look(os.getpid())
    created = None if seen is None else procfs.created(seen)
    if created is not None:
        about[s.PROCESS_CREATED] = procfs.iso(created)
    return about


def _by_name(meters: Any, *, forked: bool) -> ByName:
    """The instruments on a provider; made once, as an SDK never forgets one."""
    from otel_progress.telemetry.metrics import ByName

    made = _instruments.get(meters)
    if made is None:
        made = _instruments[meters] = ByName(meters.get_meter(s.SCOPE, VERSION))
    elif forked:
        made._units.clear()
        made._units_seen.clear()
    return made


def _check(settings: Settings) -> None:
    """Raise MissingDependency for what is not installed, before anything changes."""
    from otel_progress.telemetry.providers import makers

    for name in ("traces", "metrics"):
        for make in makers(name, settings):
            if isinstance(make, partial):
                make().shutdown()
    for name in ("logs", "metrics"):
        _transport(name, settings)


def _transport(name: str, settings: Settings) -> Transport | None:
    """The transport of a signal, or None where `OTEL_LOGS_EXPORTER` or `OTEL_METRICS_EXPORTER` leaves OTLP out."""
    wanted = {part.strip() for part in getattr(settings, name).split(",")}
    return connect(name, settings.endpoints[name]) if wanted & OTLP else None


def _resource_of(tracers: Any, resource: Any, *, forked: bool) -> dict[str, Value]:
    """The attributes of the provider's resource where there is one, so that all signals name the same service."""
    found = getattr(tracers, "resource", None) or resource
    given = {s.HOST_NAME: resource.attributes[s.HOST_NAME], **found.attributes}
    given |= {key: resource.attributes[key] for key in _OF_PROCESS if key in resource.attributes}
    if forked or s.SERVICE_INSTANCE_ID not in given:
        given[s.SERVICE_INSTANCE_ID] = resource.attributes[s.SERVICE_INSTANCE_ID]
    return dict(redaction.attributes(given))


def _chain_sigterm() -> None:
    before = signal.getsignal(signal.SIGTERM)
    if getattr(before, "otel_progress", False):
        return

    def handle(number: int, frame: Any) -> None:
        if _configured is not None:
            runtime.finish_process("SIGTERM")
        if callable(before):
            before(number, frame)
        elif before != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    handle.otel_progress = True  # type: ignore[attr-defined]
    handle.before = before  # type: ignore[attr-defined]
    signal.signal(signal.SIGTERM, handle)


def _unchain_sigterm() -> None:
    """Put back the handler that was there before ours, where that can be done and ours is still the one."""
    handler = signal.getsignal(signal.SIGTERM)
    if getattr(handler, "otel_progress", False) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler.before)  # type: ignore[union-attr]
