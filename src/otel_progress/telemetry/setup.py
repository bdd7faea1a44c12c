"""`configure()` and `shutdown()`: from settings to a running pipeline, and back."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from otel_progress import clock, forks
from otel_progress import semconv as s
from otel_progress.errors import InvalidArgument, InvalidState, MissingDependency, ProgressError
from otel_progress.live import hooks, preload, redaction
from otel_progress.live.boundary import public
from otel_progress.live.engine import learning, process, runtime
from otel_progress.live.registry import registry
from otel_progress.model.redact import Redact
from otel_progress.settings import integrations, read
from otel_progress.telemetry import sigterm

if TYPE_CHECKING:
    from otel_progress.model.values import Value
    from otel_progress.telemetry.installation import Installation

log = logging.getLogger("otel_progress")
PARK_SECONDS: Final = 1.0
"""How long a new configuration waits for our threads to let go of the SDK's locks."""
PARK_LEAST: Final = 0.05
"""How long `shutdown()` waits for them at least, if its time is over."""
BLIND_SECONDS: Final = 180
"""The export interval of metrics from which on the alert rules can't work."""

_installed: Installation | None = None
_lock = threading.RLock()
_hears_of_forks = False
_guest_comes = False
"""Whether this thread is configuring as a guest; another operation may start in a signal handler meanwhile."""


@public(strict=True)
def configure(
    service_name: str | None = None,
    *,
    endpoint: str | None = None,
    headers: Mapping[str, str] | None = None,
    protocol: str | None = None,
    interval: float | None = None,
    update_interval: float | str | None = None,
    resource: Mapping[str, Any] | None = None,
    history: str | os.PathLike[str] | None = None,
    control: bool | str | None = None,
    redact: Redact | str | None = None,
    handle_sigterm: bool = False,
    checkpoints: object = None,
    handlers: Iterable[object] | None = None,
    run_series: str | None = None,
    instrument: str | Iterable[str] | None = None,
    capture_inputs: bool | None = None,
    stall_after: float | None = None,
) -> None:
    """Send operations as OpenTelemetry from now on; an application calls it once, at its start.

    Arguments take precedence over the standard `OTEL_*` variables. Spans and metrics by name use the application's
    providers, and new ones if there are none. Another call replaces the configuration.

    Args:
        service_name: the service, as backends show it (`service.name`).
        endpoint: the base address of an OTLP receiver; `http://localhost:4318` by default, unless handlers are given.
            For gRPC the scheme may be missing: TLS is used then, unless `OTEL_EXPORTER_OTLP_INSECURE` is true.
        headers: headers of each request, such as an authorization.
        protocol: `http/protobuf` (the default) or `grpc`.
        interval: the longest time from a change of state to its export, in seconds; 1 by default.
        update_interval: the longest time for which an event that says nothing but new counts waits after the last event
            of its operation, in seconds. None (the default): 2% of the time that the operation has run, at most 60.
            `"live"`: as `interval`. A monitor that shows an operation to somebody gets all of them, whatever is set.
            `OTEL_PROGRESS_UPDATE_INTERVAL` sets it, too.
        resource: more attributes of the service, such as `{"deployment.environment.name": "prod"}`.
        history: a file that keeps what runs teach, limits and times, beyond this process; `OTEL_PROGRESS_HISTORY` names
            one, too. One that can't be used is logged, and this process learns in memory alone.
        control: which monitors may ask operations to stop. None (the default): one at the endpoint's own host and port,
            if that is on this machine or gets an authorization or a client certificate. False: none. True: any. An
            address such as `http://localhost:4318`: also one there. `OTEL_PROGRESS_CONTROL` sets it, too.
        redact: a function that gets the kind of a text (`message`, `note`, `stack`, … or the key of an attribute) and
            the text, before it is kept, and returns what may leave the process. By default `mask_secrets`, which masks
            what looks like a secret; `"off"` masks nothing, `"module:function"` names a function. It stays until
            `shutdown()`, even if another `configure()` gives none. `OTEL_PROGRESS_REDACT` sets it, too.
        handle_sigterm: on SIGTERM, end running operations as interrupted, flush, and then call the handler that was
            set before. Only from the main thread.
        checkpoints: the store of operations with `resume=True`: a path, `sqlite:///work.db`,
            `redis://localhost:6379/0`, or a `CheckpointStore`. It is opened by the first of them.
        handlers: what else gets the events of this process: handlers, names of them such as `"console"`, or functions
            of an event. They run until `shutdown()`, or until another call gives others. `OTEL_PROGRESS_HANDLERS` names
            some, too, as in `console,webhook`; an argument takes precedence. With handlers nothing is sent as OTLP,
            unless `endpoint`, `headers`, `protocol`, `control`, or a variable `OTEL_EXPORTER_OTLP_*` or
            `OTEL_*_EXPORTER` asks for it.
        run_series: which metrics by operation id are sent: `"default"`, those that a panel or an alert reads, or
            `"all"`. `OTEL_PROGRESS_RUN_SERIES` sets it, too.
        instrument: the libraries whose work is seen without a line of code: `"auto"` (all that are known), or names
            such as `["tqdm", "rich"]`, in the place of earlier ones, until `shutdown()`. None (the default) leaves it
            to `OTEL_PROGRESS_INSTRUMENT`, and without that to nobody: `"none"`.
        capture_inputs: whether integrations keep what tools were asked for (arguments, inputs), which passes
            `redact`; False by default. `OTEL_PROGRESS_CAPTURE_INPUTS` sets it, too.
        stall_after: the allowed idle time of operations and stages that name none, in seconds; they are stuck after it.
            None (the default): what earlier runs taught; of live spans, what is usual for their kind.
            `OTEL_PROGRESS_STALL_AFTER` sets it, too.

    Raises:
        InvalidArgument: if a value is invalid; the message names it and what is allowed.
        InvalidState: if `handle_sigterm` is set outside the main thread.
        MissingDependency: if the SDK or an exporter is not installed.

    Example:
        `configure("backup", endpoint="http://localhost:4318")`
    """
    preload.load()
    if service_name is not None and not isinstance(service_name, str):
        raise InvalidArgument(f"service_name must be a text, not {service_name!r}")
    if checkpoints is not None:
        hooks.checkpoints = checkpoints
    settings = read(
        endpoint=endpoint,
        headers=headers,
        protocol=protocol,
        interval=interval,
        update_interval=update_interval,
        history=history,
        control=control,
        run_series=run_series,
        capture_inputs=capture_inputs,
        stall_after=stall_after,
        handlers=bool(handlers),
    )
    hooks.configured = True
    hooks.use_integrations(instrument)
    hooks.use_handlers(handlers)
    if settings.disabled:
        return
    try:
        import opentelemetry.sdk  # noqa: F401
    except ImportError:
        raise MissingDependency("configure() needs the SDK: pip install otel-progress") from None
    from otel_progress.telemetry.installation import Installation, check

    hook = redaction.chosen(redact, settings.redact)
    check(settings)
    about = dict(resource or {})
    if service_name is not None:
        about[s.SERVICE_NAME] = service_name
    if handle_sigterm and threading.current_thread() is not threading.main_thread():
        raise InvalidState("handle_sigterm=True needs the main thread, as signal handlers can be set only there")
    learned = None if history is None else learning.of_file(history)
    with _lock:
        _install(Installation(settings, about), hook, learned)
        if handle_sigterm:
            sigterm.chain(_on_sigterm)
    if settings.metric_interval >= BLIND_SECONDS:
        log.warning(
            "OTEL_METRIC_EXPORT_INTERVAL is %.0f s: alerts on stuck and lost operations look back 3 minutes, and are "
            "blind with an interval of 180 s or more; use at most 60000 (ms)",
            settings.metric_interval,
        )


def configure_as_guest() -> None:
    """Send operations where the environment says, as the program calls no `configure()`; that replaces this.

    It sets no global provider, as the program may still set its own.
    """
    global _guest_comes
    settings = read()
    with _lock:
        if _installed is not None or settings.disabled or _guest_comes:
            hooks.on_first = hooks.on_first if _guest_comes else None
            return
        _guest_comes = True
        try:
            from otel_progress.telemetry.installation import Installation, check

            check(settings.as_guest())
            _install(Installation(settings, {}, is_guest=True), redaction.chosen(None, settings.redact))
        except (ImportError, ProgressError) as error:
            log.warning("operations are not reported, although OTEL_PROGRESS_CONFIGURE asks for it: %s", error)
        finally:
            _guest_comes, hooks.on_first = False, None


def _install(new: Installation, hook: Redact | None, learned: learning.Learning | None = None) -> None:
    """Put a configuration to work; the lock is held."""
    global _hears_of_forks
    _replace(new, 2.0, hook)
    hooks.on_first = None
    if learned is not None:
        learning.learning = learned
    _know_attempts(new.settings.attempts)
    runtime.set_pace(
        new.settings.interval, new.settings.event_budget, new.settings.keyframe_interval, new.settings.update_interval
    )
    if not _hears_of_forks:
        _hears_of_forks = True
        forks.in_child.append(_after_fork)
    runtime.want()


def _know_attempts(attempts: Mapping[str, int]) -> None:
    """Continue the attempts that `otel-progress run --restart` passes on."""
    if attempts:
        registry.know_attempts(attempts)


@public(strict=True)
def shutdown(timeout: float = 2.0) -> None:
    """End running operations as interrupted, flush within the timeout (seconds), and undo `configure()`.

    A server calls it when it stops, as at the end of an ASGI lifespan. It may be called twice.
    """
    with _lock:
        if _installed is not None:
            _replace(None, timeout)
        hooks.checkpoints, hooks.configured = None, False
        hooks.use_handlers(())  # they got the ends
        hooks.use_integrations(False)
        runtime.unwant()
        runtime.rest()
        sigterm.unchain()


def _replace(new: Installation | None, timeout: float, redact: Redact | None = None) -> None:
    """Exchange the configuration between two rounds of the ticker, so that no event is lost."""
    global _installed
    from otel_progress.telemetry.providers import detach_spans, no_spans, shut_down

    old, deadline = _installed, clock.monotonic() + timeout
    if old is not None:
        runtime.finish(timeout, "telemetry was shut down" if new is None else None)
    left = max(PARK_LEAST, deadline - clock.monotonic())
    parked = process.parking.acquire(timeout=PARK_SECONDS if new is not None else min(PARK_SECONDS, left))
    try:
        processors = detach_spans()
        if old is not None:
            old.unhook()
        _installed = new
        redaction.use(redact)
        if new is not None:
            new.install()
        else:
            no_spans()
    except BaseException:
        if new is not None:
            new.unhook()
            new.close(0.0)
        _installed = None
        raise
    finally:
        if parked:
            process.parking.release()
        if old is not None:
            old.close(max(0.0, deadline - clock.monotonic()), replaced=new is not None)
        shut_down(processors, max(0.0, deadline - clock.monotonic()))


def export() -> None:
    """Send ended spans, and the metrics that are due: where threads are not allowed, as the fake clock has it."""
    from otel_progress.telemetry.providers import flush_spans

    if _installed is not None:
        flush_spans()
        _installed.exporter.export()


def resource() -> Mapping[str, Value]:
    """The resource attributes that the events of this process carry; none without a configuration."""
    return {} if _installed is None else _installed.about


def instrumented() -> None:
    """Add events, run series and integrations; `opentelemetry-instrument` calls it when the providers are set up."""
    try:
        configure(instrument=None if integrations() else "auto")
        hooks.configured = False  # the program has no line of ours
    except MissingDependency as error:
        log.warning("%s", error)


def _after_fork() -> None:
    """Install the configuration anew in a forked child, empty and with a new instance id."""
    global _lock
    _lock = threading.RLock()
    if _installed is not None:
        _installed.unhook()
        _installed.install(forked=True)
        _know_attempts(_installed.settings.attempts)


def _on_sigterm() -> None:
    if _installed is not None:
        runtime.finish_process("SIGTERM")
