"""Settings from arguments and the environment: the standard `OTEL_*` variables, and a few of our own.

No other module reads `os.environ`; commands get it from `environment` and hand it on as a mapping. An invalid value is
logged, and the default is used: a typo in a variable must not stop a job.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import unquote, urlsplit

from otel_progress import semconv
from otel_progress.errors import InvalidArgument

log = logging.getLogger("otel_progress")

TIMEOUT_MOST: Final = 1.5
"""The longest that one request of ours may take, in seconds."""
INTERVAL: Final = (0.01, 3600.0)
"""The shortest and the longest interval between two samples, and between two heartbeats, in seconds."""
LIVE: Final = 0.0
"""The pause between two updates of an operation that means none: they leave as soon as they are read."""
MOST: Final = 1e9
ATTEMPT_MOST: Final = 1_000_000_000
TEMPORALITIES: Final = ("cumulative", "delta", "lowmemory")
HISTOGRAMS: Final = ("explicit_bucket_histogram", "base2_exponential_bucket_histogram")
EVERYTHING: Final = "all"
RUN_SERIES: Final = ("default", EVERYTHING)
EXPORT_INTERVAL: Final = "OTEL_METRIC_EXPORT_INTERVAL"
SIGNALS: Final = ("logs", "metrics", "traces")
PROTOCOLS: Final = ("http/protobuf", "grpc")
NAMED_PROTOCOLS: Final = {"otlp_proto_http": "http/protobuf", "otlp_proto_grpc": "grpc"}
"""The protocols that the exporter names in `OTEL_TRACES_EXPORTER` and its like imply."""
ATTEMPTS: Final = "OTEL_PROGRESS_ATTEMPTS"
"""The variable by which `otel-progress run --restart` passes on the last attempt of each id, as a JSON object."""
CONFIGURE: Final = "OTEL_PROGRESS_CONFIGURE"
"""The variable by which `otel-progress run` has programs report that call no `configure()`."""
HEARTBEAT: Final = "OTEL_PROGRESS_HEARTBEAT"
"""The variable that sets the longest silence of a process, in seconds."""
HANDLERS: Final = "OTEL_PROGRESS_HANDLERS"
"""The variable that names the handlers to start, separated by commas."""
UNSAMPLED: Final = "OTEL_PROGRESS_UNSAMPLED_SPANS"
"""The variable by which live spans see spans that the sampler drops."""
INSTRUMENT: Final = "OTEL_PROGRESS_INSTRUMENT"
"""The variable that names the integrations to put on, separated by commas, or `auto` or `none`."""
CAPTURE_INPUTS: Final = "OTEL_PROGRESS_CAPTURE_INPUTS"
"""The variable that lets integrations keep what tools were asked for."""
CHECKPOINTS: Final = "OTEL_PROGRESS_CHECKPOINTS"
STORES: Final = "OTEL_PROGRESS_STORES"
"""The variable that names the checkpoint store."""
QUIET: Final = "OTEL_PROGRESS_QUIET"
"""The variable that keeps programs silent that nobody watches."""
RUN: Final = "OTEL_PROGRESS_RUN"
"""The variable in which `otel-progress run` names its own endpoint to the command."""
_PROPAGATED: Final = ("TRACEPARENT", "TRACESTATE", "BAGGAGE")
DEFAULT_ENDPOINTS: Final = {"http/protobuf": "http://localhost:4318", "grpc": "http://localhost:4317"}


@dataclass(frozen=True)
class Endpoint:
    """Where one signal goes, and how; the URL always has a scheme, and `https` means TLS for gRPC too."""

    protocol: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    timeout: float = TIMEOUT_MOST
    compression: str = "auto"
    """`gzip`, `none`, or `auto`: gzip unless the receiver is on this machine."""
    certificate: str | None = None
    client_key: str | None = None
    client_certificate: str | None = None
    is_bare: bool = field(default=False, compare=False)
    """The address was written without a scheme, which `url` has all the same."""


@dataclass(frozen=True)
class Settings:
    """The settings of one `configure()` call, with the environment taken into account; times in seconds.

    Attributes:
        disabled: `configure()` does nothing.
        interval: the longest time from a change of state to its export.
        update_interval: how long plain updates (new counts alone) of an operation wait after its last event; None: 2%
            of its age, from one interval to 60 s.
        metric_interval: time between two exports of the run series, in seconds.
        by_name_interval: time between two exports of all metrics by name, in seconds.
        histograms: the aggregation of histograms on a meter provider of ours.
        heartbeat: the longest time without a sign of life of the process; None: 5 s toward a monitor, else 15 s.
        run_series: which run series there are: `default`, those that a panel or an alert reads, or `all`.
        run_series_after: the age from which an operation has series of its own.
        run_series_max: operations that may have series of their own at the same time.
        event_budget: updates, notes and heartbeats of operations per second, for the whole process.
        stall_after: the allowed idle time of work that names none, or None.
        keyframe_interval: the longest time between two events of an operation that carry its whole state.
        outbox: events that are kept while the receiver does not answer.
        history: the file in which learned limits are kept, or None.
        attempts: the last attempt of ids that ran in earlier processes.
        checkpoints: the checkpoint store, a path or a URL, or None.
        redact: how outgoing text is redacted: `secrets`, `off`, or `module:function`.
        capture_inputs: whether integrations keep what tools were asked for.
        control: whose commands are obeyed. False: nobody's. True: those from any URL that the receiver names. A URL:
            also those from that address. None: those from the endpoint's own host and port, if it is on this machine or
            gets our credentials.
        traces: the exporters for spans, as `OTEL_TRACES_EXPORTER` lists them.
        metrics: those for metrics, as `OTEL_METRICS_EXPORTER` lists them.
        logs: those for log events, as `OTEL_LOGS_EXPORTER` lists them.
        temporality: the aggregation temporality of counters and histograms.
        endpoints: the endpoint of each signal: `traces`, `metrics`, `logs`.
    """

    disabled: bool = False
    interval: float = 1.0
    update_interval: float | None = None
    metric_interval: float = 10.0
    by_name_interval: float = 60.0
    histograms: str = "explicit_bucket_histogram"
    heartbeat: float | None = None
    run_series: str = "default"
    run_series_after: float = 5.0
    run_series_max: int = 1000
    event_budget: float = 200.0
    stall_after: float | None = None
    keyframe_interval: float = 300.0
    outbox: int = 10_000
    history: str | None = None
    attempts: Mapping[str, int] = field(default_factory=dict)
    checkpoints: str | None = None
    redact: str = "secrets"
    capture_inputs: bool = False
    control: bool | str | None = None
    traces: str = "otlp"
    metrics: str = "otlp"
    logs: str = "otlp"
    temporality: str = "cumulative"
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)

    def as_guest(self) -> Settings:
        """The same without exporters for spans and metrics by name, and so without providers of our own."""
        return replace(self, traces="none", metrics="none")


class Environment:
    """Reads variables from a mapping, and logs invalid values, each once."""

    def __init__(self, given: Mapping[str, str]) -> None:
        """Read from a mapping like `os.environ`."""
        self._given = given
        self._warned: set[str] = set()

    def text(self, *names: str, default: str = "") -> str:
        """The first of the variables that is set and not empty."""
        for name in names:
            value = self._given.get(name, "").strip()
            if value:
                return value
        return default

    def number(self, name: str, default: float, least: float, most: float = MOST, scale: float = 1.0) -> float:
        """A number from `least` to `most`, multiplied by `scale`; the limits and the default are scaled already."""
        found = self._number(name, f"{default / scale:g}", least, most, scale)
        return default if found is None else found

    def number_if_set(self, name: str, least: float, most: float) -> float | None:
        """A number from `least` to `most`; None if the variable is not set, or invalid."""
        return self._number(name, "the default", least, most)

    def _number(self, name: str, default: str, least: float, most: float, scale: float = 1.0) -> float | None:
        given = self.text(name)
        if not given:
            return None
        try:
            value = float(given) * scale
        except ValueError:
            value = math.nan
        if least <= value <= most:
            return value
        limits = f"from {least / scale:g} to {most / scale:g}"
        self._warn(f"{name}={given!r} is not a number {limits}; {default} is used")
        return None

    def choice(self, names: tuple[str, ...], allowed: tuple[str, ...], default: str) -> str:
        """One of the allowed words, in any case."""
        given = self.text(*names).lower()
        if given in allowed or not given:
            return given or default
        name = next(name for name in names if self.text(name))
        self._warn(f"{name}={given!r} is not one of {', '.join(allowed)}; {default} is used")
        return default

    def endpoint(self, name: str, protocol: str, default: str) -> str:
        """An address; for gRPC the scheme may be missing."""
        if _has_wrong_port(self.text(name)):
            self._warn(f"{name}={self.text(name)!r} has an invalid port (1 to 65535); {default} is used")
            return default
        given = self.text(name)
        if not given or _is_target(given, protocol):
            return given or default
        self._warn(f"{name}={given!r} is not an address that begins with http:// or https://; {default} is used")
        return default

    def flag(self, name: str) -> bool:
        """Whether the variable is `true`."""
        return self.text(name).lower() == "true"

    def is_about_otlp(self) -> bool:
        """Whether a variable sets where OTLP goes, or how."""
        return any(name.startswith("OTEL_EXPORTER_OTLP_") and value.strip() for name, value in self._given.items())

    def attempts(self, name: str) -> dict[str, int]:
        """A JSON object with the last attempt of each id; what is no attempt is left out."""
        given = self.text(name)
        try:
            found = json.loads(given) if given else {}
            return {str(key): it for key, it in found.items() if type(it) is int and 0 < it <= ATTEMPT_MOST}
        except (ValueError, AttributeError, RecursionError):
            self._warn(f"{name} is no JSON object of attempts by id; it is ignored")
            return {}

    def control(self, name: str) -> bool | str | None:
        """True, False, an address, or None if the variable is `auto` or not set."""
        given = self.text(name)
        if is_address(given):
            return given
        return {"true": True, "false": False}.get(self.choice((name,), ("true", "false", "auto"), "auto"))

    def update_interval(self, name: str, given: float | str | None) -> float | None:
        """A pause between updates in seconds, or None if neither the argument nor the variable sets one."""
        asked = self.text(name) if given is None else given
        if str(asked).lower() == "live":
            return LIVE
        if given is not None:
            return float(given)
        try:
            seconds = float(asked) if asked else None
        except ValueError:
            seconds = math.nan
        if seconds is None or INTERVAL[0] <= seconds <= INTERVAL[1]:
            return seconds
        least, most = INTERVAL
        self._warn(f"{name}={asked!r} is neither live nor a number from {least:g} to {most:g}; 2% of the age is used")
        return None

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            log.warning("%s", text)


def environment() -> dict[str, str]:
    """A copy of the environment of this process."""
    return dict(os.environ)


def has_terminal() -> bool:
    """Whether stderr is a terminal."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except Exception:
        return False  # of the user's own stream


def attended() -> bool:
    """Whether the terminal can be redrawn for a human: false in CI, and if `TERM` is `dumb` or `unknown`."""
    return os.environ.get("TERM") not in ("dumb", "unknown") and not os.environ.get("CI")


def history_file() -> str | None:
    """The file in which is kept what runs teach, as `OTEL_PROGRESS_HISTORY` names it, or None."""
    return Environment(os.environ).text("OTEL_PROGRESS_HISTORY") or None


def handlers() -> tuple[str, ...]:
    """The handlers that `OTEL_PROGRESS_HANDLERS` names, as in `console,webhook`."""
    return tuple(one.strip() for one in Environment(os.environ).text(HANDLERS).split(",") if one.strip())


def integrations() -> tuple[str, ...]:
    """The integrations that `OTEL_PROGRESS_INSTRUMENT` names, as in `tqdm,rich`; empty if there is no need to look."""
    given = os.environ.get(INSTRUMENT, "")
    return tuple(one.strip().lower() for one in given.split(",") if one.strip()) if given else ()


def service_name() -> str:
    """The service that `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` names, or `unknown_service`."""
    env = Environment(os.environ)
    pairs = (pair.partition("=") for pair in env.text("OTEL_RESOURCE_ATTRIBUTES").split(","))
    listed = [unquote(value).strip() for key, _, value in pairs if key.strip() == semconv.SERVICE_NAME]
    return env.text("OTEL_SERVICE_NAME") or (listed[-1] if listed else "") or "unknown_service"


def configures_itself() -> bool:
    """Whether the first operation is to configure, if the program did not."""
    return Environment(os.environ).flag(CONFIGURE)


def is_quiet() -> bool:
    """Whether a program that nobody watches says nothing of it."""
    env = Environment(os.environ)
    return env.text(QUIET).lower() not in ("", "0", "false") or env.flag("OTEL_SDK_DISABLED")


def run_endpoint() -> str:
    """The address of the `otel-progress run` that started this process; empty without one."""
    return Environment(os.environ).text(RUN)


def sees_unsampled() -> bool:
    """Whether live spans show spans, too, that the sampler drops; each of them costs as much as one that is sent."""
    return Environment(os.environ).flag(UNSAMPLED)


def stores_file() -> str | None:
    """The file in which this process tells `otel-progress run` its checkpoint stores, if that watches it."""
    return Environment(os.environ).text(STORES) or None


def quiet_grpc() -> None:
    """Keep gRPC's C++ code from logging to stderr, unless the user set `GRPC_VERBOSITY`; call before importing grpc."""
    if "grpc" not in sys.modules:
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def names_tracer_provider() -> bool:
    """Whether `OTEL_PYTHON_TRACER_PROVIDER` names a provider, which the API then loads at its first use."""
    return "OTEL_PYTHON_TRACER_PROVIDER" in os.environ


def propagated() -> dict[str, str]:
    """The trace context and baggage that the parent process passed on in the environment, as headers."""
    return {name.lower(): os.environ[name] for name in _PROPAGATED if name in os.environ}


def parse_headers(given: str) -> tuple[tuple[str, str], ...]:
    """Parse `key=value,key=value` with percent-encoding, the form of `OTEL_EXPORTER_OTLP_HEADERS`."""
    pairs = []
    for part in given.split(","):
        key, equals, value = part.partition("=")
        name, content = unquote(key).strip().lower(), unquote(value).strip()
        if equals and name and _sendable(name + content):
            pairs.append((name, content))
        elif part.strip():
            log.warning("a header in OTEL_EXPORTER_OTLP_HEADERS is not key=value in printable ASCII; it is left out")
    return tuple(pairs)


def _sendable(text: str) -> bool:
    """Whether every HTTP and gRPC client accepts the text in a header."""
    return text.isascii() and text.isprintable()


def is_address(text: str) -> bool:
    """Whether the text is `http(s)://HOST[:PORT]` and nothing else."""
    try:
        parts = urlsplit(text)
        rest = parts.path.strip("/") or parts.query or parts.fragment or parts.username or parts.password
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not rest
    except ValueError:
        return False


def _has_wrong_port(target: str) -> bool:
    """Whether an address has a port that cannot exist."""
    try:
        parts = urlsplit(target if "://" in target else f"//{target}")
    except ValueError:
        return False
    try:
        return parts.port == 0
    except ValueError:
        return True


def _is_url(target: str) -> bool:
    try:
        urlsplit(target)
    except ValueError:  # such as half an IPv6 address
        return False
    return target.startswith(("http://", "https://"))


def _is_target(text: str, protocol: str) -> bool:
    """Whether the text is a URL or, for gRPC, an address without a scheme."""
    return _is_url(text) or (protocol == "grpc" and "://" not in text)


def _endpoint(
    env: Environment, signal: str, url: str | None, headers: tuple[tuple[str, str], ...] | None, protocol: str | None
) -> Endpoint:
    """The endpoint of a signal (`TRACES`, `METRICS`, `LOGS`): arguments first, its own variables, then the shared ones.

    https://opentelemetry.io/docs/specs/otel/protocol/exporter/

    Raises:
        InvalidArgument: if the argument `url` is not an address.
    """

    def names(what: str) -> tuple[str, str]:
        return f"OTEL_EXPORTER_OTLP_{signal}_{what}", f"OTEL_EXPORTER_OTLP_{what}"

    named = NAMED_PROTOCOLS.get(env.text(f"OTEL_{signal}_EXPORTER").lower())
    spoken = protocol or named or env.choice(names("PROTOCOL"), PROTOCOLS, "http/protobuf")
    if url is not None and not (isinstance(url, str) and url.strip() and _is_target(url, spoken)):
        raise InvalidArgument(f"endpoint must begin with http:// or https://, as in http://localhost:4318, not {url!r}")
    own, shared = names("ENDPOINT")
    target = url or env.endpoint(shared, spoken, DEFAULT_ENDPOINTS[spoken])
    if spoken == "http/protobuf":
        target = f"{target.rstrip('/')}/v1/{signal.lower()}"
    if url is None:
        target = env.endpoint(own, spoken, target)
    insecure = env.choice(names("INSECURE"), ("true", "false"), "false") == "true"
    is_bare = "://" not in target
    if spoken == "grpc" and is_bare:  # a scheme takes precedence over INSECURE
        target = f"http://{target}" if insecure else f"https://{target}"
    own_timeout, timeout = names("TIMEOUT")
    seconds = env.number(own_timeout, env.number(timeout, TIMEOUT_MOST, 0.001), 0.001)
    return Endpoint(
        spoken,
        target,
        parse_headers(env.text(*names("HEADERS"))) if headers is None else headers,
        min(seconds, TIMEOUT_MOST),
        env.choice(names("COMPRESSION"), ("gzip", "none"), "auto"),
        env.text(*names("CERTIFICATE")) or None,
        env.text(*names("CLIENT_KEY")) or None,
        env.text(*names("CLIENT_CERTIFICATE")) or None,
        is_bare,
    )


def read(
    *,
    endpoint: str | None = None,
    headers: Mapping[str, str] | None = None,
    protocol: str | None = None,
    interval: float | None = None,
    update_interval: float | str | None = None,
    history: str | os.PathLike[str] | None = None,
    control: bool | str | None = None,
    run_series: str | None = None,
    capture_inputs: bool | None = None,
    stall_after: float | None = None,
    handlers: bool = False,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Combine the arguments, the environment and the defaults, in this order of precedence.

    With `handlers`, nothing is sent by default, unless an argument or a variable is about a receiver of OTLP.

    Raises:
        InvalidArgument: if an argument has an invalid value; variables never raise.
    """
    env = Environment(os.environ if environ is None else environ)
    if isinstance(endpoint, str) and _has_wrong_port(endpoint):
        raise InvalidArgument(f"endpoint has an invalid port (1 to 65535): {endpoint!r}")
    if protocol is not None and protocol not in PROTOCOLS:
        raise InvalidArgument(f"protocol must be one of {', '.join(PROTOCOLS)}, not {protocol!r}")
    if interval is not None and not (isinstance(interval, (int, float)) and INTERVAL[0] <= interval <= INTERVAL[1]):
        raise InvalidArgument(f"interval must be from {INTERVAL[0]} to {INTERVAL[1]:g} seconds, not {interval!r}")
    if update_interval is not None and update_interval != "live":
        if type(update_interval) not in (int, float) or not INTERVAL[0] <= float(update_interval) <= INTERVAL[1]:
            raise InvalidArgument(
                f'update_interval must be "live" or from {INTERVAL[0]} to {INTERVAL[1]:g} seconds, not '
                f"{update_interval!r}"
            )
    if history is not None and not isinstance(history, (str, os.PathLike)):
        raise InvalidArgument(f"history must be the path of a file, not {history!r}")
    if control is not None and not isinstance(control, bool) and not (isinstance(control, str) and is_address(control)):
        raise InvalidArgument(
            f"control must be True, False, None or an address as in http://localhost:4318, not {control!r}"
        )
    if stall_after is not None and not (type(stall_after) in (int, float) and 0 < stall_after <= MOST):
        raise InvalidArgument(f"stall_after must be a number of seconds above 0, not {stall_after!r}")
    if run_series is not None and run_series not in RUN_SERIES:
        raise InvalidArgument(f"run_series must be one of {', '.join(RUN_SERIES)}, not {run_series!r}")
    if capture_inputs is not None and not isinstance(capture_inputs, bool):
        raise InvalidArgument(f"capture_inputs must be True, False or None, not {capture_inputs!r}")
    pairs = None if headers is None else tuple((str(key).lower(), str(value)) for key, value in headers.items())
    for key, value in pairs or ():
        if not key or not _sendable(key + value):
            raise InvalidArgument(f"the header {key!r} must have a name, and be plain ASCII without line breaks")
    defaults = Settings()
    metric_interval = env.number(EXPORT_INTERVAL, defaults.metric_interval, 0.001, scale=0.001)
    asked = env.control("OTEL_PROGRESS_CONTROL") if control is None else control
    sends = not handlers or bool(endpoint or headers or protocol or asked) or env.is_about_otlp()
    exporter = "otlp" if sends else "none"
    return Settings(
        disabled=env.flag("OTEL_SDK_DISABLED"),
        interval=interval or env.number("OTEL_PROGRESS_INTERVAL", defaults.interval, *INTERVAL),
        update_interval=env.update_interval("OTEL_PROGRESS_UPDATE_INTERVAL", update_interval),
        metric_interval=metric_interval,
        by_name_interval=metric_interval if env.text(EXPORT_INTERVAL) else defaults.by_name_interval,
        histograms=env.choice(
            ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",), HISTOGRAMS, defaults.histograms
        ),
        heartbeat=env.number_if_set(HEARTBEAT, *INTERVAL),
        run_series=run_series or env.choice(("OTEL_PROGRESS_RUN_SERIES",), RUN_SERIES, defaults.run_series),
        run_series_after=env.number("OTEL_PROGRESS_RUN_SERIES_AFTER", defaults.run_series_after, 0),
        run_series_max=int(env.number("OTEL_PROGRESS_RUN_SERIES_MAX", defaults.run_series_max, 0)),
        event_budget=env.number("OTEL_PROGRESS_EVENT_BUDGET", defaults.event_budget, 0.01),
        stall_after=stall_after or env.number_if_set("OTEL_PROGRESS_STALL_AFTER", 0.001, MOST),
        keyframe_interval=env.number("OTEL_PROGRESS_KEYFRAME_INTERVAL", defaults.keyframe_interval, 1.0),
        outbox=int(env.number("OTEL_PROGRESS_OUTBOX", defaults.outbox, 1)),
        history=env.text("OTEL_PROGRESS_HISTORY") or None if history is None else os.fspath(history),
        attempts=env.attempts(ATTEMPTS),
        checkpoints=env.text(CHECKPOINTS) or None,
        redact=env.text("OTEL_PROGRESS_REDACT", default=defaults.redact),
        capture_inputs=env.flag(CAPTURE_INPUTS) if capture_inputs is None else capture_inputs,
        control=asked,
        traces=env.text("OTEL_TRACES_EXPORTER", default=exporter).lower(),
        metrics=env.text("OTEL_METRICS_EXPORTER", default=exporter).lower(),
        logs=env.text("OTEL_LOGS_EXPORTER", default=exporter).lower(),
        temporality=env.choice(
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",), TEMPORALITIES, defaults.temporality
        ),
        endpoints={
            signal.lower(): _endpoint(env, signal, endpoint, pairs, protocol)
            for signal in ("TRACES", "METRICS", "LOGS")
        },
    )
