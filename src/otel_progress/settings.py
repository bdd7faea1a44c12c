"""The only reader of the environment: the standard `OTEL_*` variables, and a few of ours.

A value that can't be meant is told in the log, and the default stands: a typo in a variable must not stop a job.
"""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from otel_progress.errors import InvalidArgument

log = logging.getLogger("otel_progress")

TIMEOUT_MOST: Final = 1.5
"""The longest that one request of ours may take, in seconds."""
INTERVAL: Final = (0.01, 3600.0)
"""From the shortest to the longest time between two looks, and between two heartbeats, in seconds."""
MOST: Final = 1e9
TEMPORALITIES: Final = ("cumulative", "delta", "lowmemory")
SIGNALS: Final = ("logs", "metrics", "traces")
PROTOCOLS: Final = ("http/protobuf", "grpc")
NAMED_PROTOCOLS: Final = {"otlp_proto_http": "http/protobuf", "otlp_proto_grpc": "grpc"}
"""Names of exporters that say a protocol, as `OTEL_TRACES_EXPORTER` may have them."""
DEFAULT_PORTS: Final = {"http/protobuf": "http://localhost:4318", "grpc": "http://localhost:4317"}


@dataclass(frozen=True)
class Endpoint:
    """Where one signal goes, and how."""

    protocol: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    timeout: float = TIMEOUT_MOST
    compression: str = "none"
    certificate: str | None = None
    client_key: str | None = None
    client_certificate: str | None = None
    insecure: bool = False


@dataclass(frozen=True)
class Settings:
    """What `configure` and the environment said together; times in seconds.

    Attributes:
        interval: what left the process is never older than this.
        metric_interval: from one export of the run series, and of our own metric reader, to the next.
        heartbeat: from one heartbeat of the process to the next.
        run_series_after: an operation has series of its own when it is older than this.
        run_series_max: so many operations have series of their own at once.
        event_budget: updates, notes and heartbeats of the work a second, of the whole process.
        outbox: events that are kept for a Collector that does not answer.
        history: the file in which learned limits are kept, or None.
        redact: how what leaves is redacted: `secrets`, `off`, or `module:function`.
        control: whether commands are taken from where events go: never, from any URL that is named there, or from this
            address too; None: from the endpoint's own host and port, if that is this machine or we are authorized.
    """

    disabled: bool = False
    interval: float = 1.0
    metric_interval: float = 10.0
    heartbeat: float = 5.0
    run_series_after: float = 5.0
    run_series_max: int = 1000
    event_budget: float = 200.0
    outbox: int = 10_000
    history: str | None = None
    redact: str = "secrets"
    control: bool | str | None = None
    traces: str = "otlp"
    metrics: str = "otlp"
    logs: str = "otlp"
    temporality: str = "cumulative"
    explicit: bool = False
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)


class Environment:
    """Reads variables, and tells of those that can't be read."""

    def __init__(self, given: Mapping[str, str]) -> None:
        """Read from a mapping like `os.environ`."""
        self._given = given
        self._told: set[str] = set()

    def text(self, *names: str, otherwise: str = "") -> str:
        """The first variable that is set to something."""
        for name in names:
            value = self._given.get(name, "").strip()
            if value:
                return value
        return otherwise

    def number(self, name: str, otherwise: float, least: float, most: float = MOST, scale: float = 1.0) -> float:
        """A number from `least` to `most`; both, and what is returned, in units that are `scale` of the variable's."""
        given = self.text(name)
        if not given:
            return otherwise
        try:
            value = float(given) * scale
        except ValueError:
            value = math.nan
        if least <= value <= most:
            return value
        log.warning(
            "%s=%r is not a number from %g to %g; %g is used",
            name,
            given,
            least / scale,
            most / scale,
            otherwise / scale,
        )
        return otherwise

    def choice(self, names: tuple[str, ...], allowed: tuple[str, ...], otherwise: str) -> str:
        """One of the allowed words."""
        given = self.text(*names).lower()
        if given in allowed or not given:
            return given or otherwise
        log.warning("%s=%r is not one of %s; %s is used", names[0], given, ", ".join(allowed), otherwise)
        return otherwise

    def endpoint(self, name: str, protocol: str, otherwise: str) -> str:
        """An address; gRPC needs no scheme in it."""
        given = self.text(name)
        if not given or _is_url(given) or (protocol == "grpc" and "://" not in given):
            return given or otherwise
        if name not in self._told:  # it is asked for each signal
            self._told.add(name)
            log.warning("%s=%r is no address that begins with http:// or https://; %s is used", name, given, otherwise)
        return otherwise

    def flag(self, name: str) -> bool:
        """Whether it is set to `true`."""
        return self.text(name).lower() == "true"

    def control(self, name: str) -> bool | str | None:
        """True, false, an address, or None where it is not set, or to `auto`."""
        given = self.text(name)
        if is_address(given):
            return given
        return {"true": True, "false": False}.get(self.choice((name,), ("true", "false", "auto"), "auto"))


def attended() -> bool:
    """Whether a human may look at the terminal who can see it redrawn: not in CI, nor where `TERM` is `dumb`."""
    return os.environ.get("TERM") not in ("dumb", "unknown") and not os.environ.get("CI")


def quiet_grpc() -> None:
    """Keep the lines of gRPC's C++ code off stderr, unless the user wants them; of use before it is imported."""
    if "grpc" not in sys.modules:
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def parse_headers(given: str) -> tuple[tuple[str, str], ...]:
    """`key=value,key=value` with percent-encoding, as OpenTelemetry writes headers."""
    pairs = []
    for part in given.split(","):
        key, equals, value = part.partition("=")
        name, content = unquote(key).strip().lower(), unquote(value).strip()
        if equals and name and _sendable(name + content):
            pairs.append((name, content))
        elif part.strip():
            log.warning("a header of OTEL_EXPORTER_OTLP_HEADERS is not a key=value of plain ASCII; it is left out")
    return tuple(pairs)


def _sendable(text: str) -> bool:
    """Whether every client can send it in a header."""
    return text.isascii() and text.isprintable()


def is_address(text: str) -> bool:
    """Whether it is http(s)://HOST, maybe with a port, and nothing else."""
    try:
        parts = urlsplit(text)
        rest = parts.path.strip("/") or parts.query or parts.fragment or parts.username or parts.password
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not rest
    except ValueError:
        return False


def _is_url(target: str) -> bool:
    try:
        urlsplit(target)
    except ValueError:  # such as half an IPv6 address
        return False
    return target.startswith(("http://", "https://"))


def _endpoint(
    env: Environment, signal: str, url: str | None, headers: tuple[tuple[str, str], ...] | None, protocol: str | None
) -> Endpoint:
    """Where a signal (`TRACES`, `METRICS`, `LOGS`) goes: what is given, its own variables, those of all."""

    def names(what: str) -> tuple[str, str]:
        return f"OTEL_EXPORTER_OTLP_{signal}_{what}", f"OTEL_EXPORTER_OTLP_{what}"

    named = NAMED_PROTOCOLS.get(env.text(f"OTEL_{signal}_EXPORTER").lower())
    spoken = protocol or named or env.choice(names("PROTOCOL"), PROTOCOLS, "http/protobuf")
    own, shared = names("ENDPOINT")
    target = url or env.endpoint(shared, spoken, DEFAULT_PORTS[spoken])
    if spoken == "http/protobuf":
        target = f"{target.rstrip('/')}/v1/{signal.lower()}"
    if url is None:
        target = env.endpoint(own, spoken, target)
    own_timeout, timeout = names("TIMEOUT")
    seconds = env.number(own_timeout, env.number(timeout, TIMEOUT_MOST, 0.001), 0.001)
    return Endpoint(
        spoken,
        target,
        parse_headers(env.text(*names("HEADERS"))) if headers is None else headers,
        min(seconds, TIMEOUT_MOST),
        env.choice(names("COMPRESSION"), ("gzip", "none"), "none"),
        env.text(*names("CERTIFICATE")) or None,
        env.text(*names("CLIENT_KEY")) or None,
        env.text(*names("CLIENT_CERTIFICATE")) or None,
        env.text(*names("INSECURE")).lower() == "true",
    )


def read(
    *,
    endpoint: str | None = None,
    headers: Mapping[str, str] | None = None,
    protocol: str | None = None,
    interval: float | None = None,
    history: str | os.PathLike[str] | None = None,
    control: bool | str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings: what is given here, else the environment, else the defaults.

    Raises:
        InvalidArgument: where a given value can't be meant.
    """
    env = Environment(os.environ if environ is None else environ)
    if protocol is not None and protocol not in PROTOCOLS:
        raise InvalidArgument(f"protocol must be one of {', '.join(PROTOCOLS)}, not {protocol!r}")
    if endpoint is not None and not (isinstance(endpoint, str) and _is_url(endpoint)):
        raise InvalidArgument(
            f"endpoint must begin with http:// or https://, as in http://localhost:4318, not {endpoint!r}"
        )
    if interval is not None and not (isinstance(interval, (int, float)) and INTERVAL[0] <= interval <= INTERVAL[1]):
        raise InvalidArgument(f"interval must be from {INTERVAL[0]} to {INTERVAL[1]:g} seconds, not {interval!r}")
    if history is not None and not isinstance(history, (str, os.PathLike)):
        raise InvalidArgument(f"history must be the path of a file, not {history!r}")
    if control is not None and not isinstance(control, bool) and not (isinstance(control, str) and is_address(control)):
        raise InvalidArgument(
            f"control must be True, False, None or an address as in http://localhost:4318, not {control!r}"
        )
    pairs = None if headers is None else tuple((str(key).lower(), str(value)) for key, value in headers.items())
    for key, value in pairs or ():
        if not key or not _sendable(key + value):
            raise InvalidArgument(f"the header {key!r} must have a name, and be plain ASCII without line breaks")
    defaults = Settings()
    return Settings(
        disabled=env.flag("OTEL_SDK_DISABLED"),
        interval=interval or env.number("OTEL_PROGRESS_INTERVAL", defaults.interval, *INTERVAL),
        metric_interval=env.number("OTEL_METRIC_EXPORT_INTERVAL", defaults.metric_interval, 0.001, scale=0.001),
        heartbeat=env.number("OTEL_PROGRESS_HEARTBEAT", defaults.heartbeat, *INTERVAL),
        run_series_after=env.number("OTEL_PROGRESS_RUN_SERIES_AFTER", defaults.run_series_after, 0),
        run_series_max=int(env.number("OTEL_PROGRESS_RUN_SERIES_MAX", defaults.run_series_max, 0)),
        event_budget=env.number("OTEL_PROGRESS_EVENT_BUDGET", defaults.event_budget, 0.01),
        outbox=int(env.number("OTEL_PROGRESS_OUTBOX", defaults.outbox, 1)),
        history=env.text("OTEL_PROGRESS_HISTORY") or None if history is None else os.fspath(history),
        redact=env.text("OTEL_PROGRESS_REDACT", otherwise=defaults.redact),
        control=env.control("OTEL_PROGRESS_CONTROL") if control is None else control,
        traces=env.text("OTEL_TRACES_EXPORTER", otherwise=defaults.traces).lower(),
        metrics=env.text("OTEL_METRICS_EXPORTER", otherwise=defaults.metrics).lower(),
        logs=env.text("OTEL_LOGS_EXPORTER", otherwise=defaults.logs).lower(),
        temporality=env.choice(
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",), TEMPORALITIES, defaults.temporality
        ),
        explicit=endpoint is not None,
        endpoints={
            signal.lower(): _endpoint(env, signal, endpoint, pairs, protocol)
            for signal in ("TRACES", "METRICS", "LOGS")
        },
    )
