"""Examines the configuration: packages, variables, where each signal goes, and where each value comes from."""

from __future__ import annotations

import logging
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import Final
from urllib.parse import unquote, urlsplit

from otel_progress.cli.doctor.findings import Level, Problem, ReportLine, problem
from otel_progress.settings import DEFAULT_ENDPOINTS, SIGNALS, TIMEOUT_MOST, Endpoint, Settings, read

STEP: Final = "settings"
DISTRIBUTION: Final = "otel-progress"
PACKAGES: Final = {
    "opentelemetry-api": "",
    "opentelemetry-sdk": "",
    "opentelemetry-exporter-otlp-proto-http": "",
    "requests": "",
    "opentelemetry-exporter-otlp-proto-grpc": "grpc",
    "grpcio": "grpc",
}
"""The packages that sending needs, with the extra that installs them; `""` for no extra."""
NOT_ASKED: Final = "none"
"""Stands for a backend that is not looked for, not even at its usual port."""
BLIND_SECONDS: Final = 180
LATE_SECONDS: Final = 60
"""Alerts of runs that hang come at most a minute late below it."""
SHORT_SECONDS: Final = 0.1
LONG_SECONDS: Final = 600
"""A timeout from this many seconds was surely intended in milliseconds."""
_ALL: Final = "OTEL_EXPORTER_OTLP"


@dataclass(frozen=True)
class DoctorOptions:
    """The options of the command line; None for those not given."""

    endpoint: str | None = None
    protocol: str | None = None
    prometheus: str | None = None
    loki: str | None = None
    tempo: str | None = None
    timeout: float = 30.0
    links: bool = False


def settings_of(given: DoctorOptions, environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """The settings as `configure()` would read them, and its warnings about invalid variables.

    Raises:
        InvalidArgument: if an option is invalid.
    """
    with _heard() as said:
        settings = read(endpoint=given.endpoint, protocol=given.protocol, environ=environ)
    return settings, list(dict.fromkeys(said))


def sent(settings: Settings) -> tuple[str, ...]:
    """The signals that are sent over OTLP."""
    return tuple(name for name in SIGNALS if "otlp" in getattr(settings, name))


def secrets(settings: Settings, environ: Mapping[str, str], *addresses: str | None) -> Iterator[str]:
    """The values to hide: those of headers, and passwords in addresses."""
    for endpoint in settings.endpoints.values():
        yield from (value for _, value in endpoint.headers)
    for name, value in environ.items():
        if "HEADERS" in name and name.startswith(_ALL):
            for part in value.split(","):
                yield from (part.partition("=")[2].strip(), unquote(part.partition("=")[2]).strip())
    given = [endpoint.url for endpoint in settings.endpoints.values()]
    proxies = [value for name, value in environ.items() if name.lower().endswith("_proxy")]
    named = [value for name, value in environ.items() if name.startswith(_ALL) and name.endswith("ENDPOINT")]
    for url in (*given, *proxies, *named, *filter(None, addresses)):
        login = (url.partition("://")[2] or url).partition("/")[0].rpartition("@")[0]
        yield from filter(None, (login, login.partition(":")[2], unquote(login.partition(":")[2])))


def shown(url: str) -> str:
    """An address without user, password and query."""
    parts = urlsplit(url)
    netloc = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{netloc}{parts.path}" if netloc else url.partition("?")[0]


def named(environ: Mapping[str, str], signal: str, what: str) -> str:
    """The variable of a signal if it is set, else the one for all signals."""
    own, shared = f"{_ALL}_{signal.upper()}_{what}", f"{_ALL}_{what}"
    return own if environ.get(own, "").strip() else shared


def source(given: str | None, option: str, environ: Mapping[str, str], signal: str, what: str) -> str:
    """The origin of a value: an option, a variable, or `default`."""
    if given is not None:
        return option
    name = named(environ, signal, what)
    return name if environ.get(name, "").strip() else "default"


def examine(
    settings: Settings, said: list[str], given: DoctorOptions, environ: Mapping[str, str]
) -> Iterator[ReportLine]:
    """The findings that need no request."""
    yield from packages(settings)
    yield from _ways(settings, given, environ)
    for text in said:
        yield _ignored(text, environ).line(STEP)
    if settings.disabled:
        yield problem("disabled", "OTEL_SDK_DISABLED is true: configure() does nothing").line(STEP)
    if settings.metric_interval >= BLIND_SECONDS:
        text = f"metrics are sent every {settings.metric_interval:g} s; alerts look back 180 s"
        yield problem("interval_blind", text).line(STEP)
    if settings.run_series_max == 0:
        yield problem("no_run_series", "OTEL_PROGRESS_RUN_SERIES_MAX is 0: no series by operation id").line(STEP)
    elif settings.run_series_after > LATE_SECONDS:
        text = f"OTEL_PROGRESS_RUN_SERIES_AFTER is {settings.run_series_after:g}: no series before that age (s)"
        yield problem("run_series_late", text).line(STEP)
    if settings.temporality == "delta":
        yield problem("temporality_delta", "counters and histograms are sent with delta temporality").line(STEP)
    if "service.instance.id=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").replace(" ", ""):
        text = "OTEL_RESOURCE_ATTRIBUTES gives service.instance.id: two processes must not share it"
        yield problem("instance_given", text).line(STEP)
    yield from _timeouts(environ)


def _ignored(text: str, environ: Mapping[str, str]) -> Problem:
    """The finding for a warning about an invalid variable."""
    name = text.partition("=")[0]
    value = environ.get(name, "").strip()
    if name.endswith("_ENDPOINT") and value and "://" not in value:
        return problem("scheme_missing", text, address=value, variable=name)
    return problem("value_ignored", text)


def packages(settings: Settings) -> Iterator[ReportLine]:
    """Versions, and packages that are missing or too old."""
    needed = {""} | {"grpc" for name in sent(settings) if settings.endpoints[name].protocol == "grpc"}
    found: dict[str, str | None] = {name: _version(name) for name, extra in PACKAGES.items() if extra in needed}
    ours = _version(DISTRIBUTION) or "?"
    versions = [f"{name} {version}" for name, version in found.items() if version and name.endswith(("sdk", "grpcio"))]
    yield ReportLine(
        STEP, Level.OK, ", ".join([f"Python {platform.python_version()}", f"otel-progress {ours}", *versions])
    )
    missing = [name for name, version in found.items() if version is None]
    for extra in ("", "grpc"):
        names = [name for name in missing if PACKAGES[name] == extra]
        if names:
            text = f"not installed: {', '.join(names)}"
            yield problem("package_missing", text, package=_with(extra)).line(STEP)
    for name, version in found.items():
        least = _least(name)
        if version is not None and least is not None and _numbers(version) < _numbers(least):
            text = f"{name} {version} is older than {least}"
            yield problem("package_old", text, package=_with(PACKAGES[name])).line(STEP)


def _with(extra: str) -> str:
    return f"{DISTRIBUTION}[{extra}]" if extra else DISTRIBUTION


def _ways(settings: Settings, given: DoctorOptions, environ: Mapping[str, str]) -> Iterator[ReportLine]:
    """The endpoint of each signal, and where it is configured."""
    going = sent(settings)
    for signal in SIGNALS:
        if signal not in going:
            name, value = f"OTEL_{signal.upper()}_EXPORTER", getattr(settings, signal)
            text = f"{signal} are not sent over OTLP: {name} is {value}"
            yield problem("exporter_off", text, variable=name).line(STEP)
            continue
        endpoint = settings.endpoints[signal]
        where = source(given.endpoint, "--endpoint", environ, signal, "ENDPOINT")
        how = source(given.protocol, "--protocol", environ, signal, "PROTOCOL")
        headers = ", ".join(name for name, _ in endpoint.headers)
        more = f"; headers: {headers}" if headers else ""
        why = _why(endpoint, where, signal, given, environ)
        text = f"{shown(endpoint.url)} ({why}), {endpoint.protocol} ({how}){more}"
        yield ReportLine(STEP, Level.NOTE, text, signals=(signal,))
    hosts = {signal: urlsplit(settings.endpoints[signal].url).netloc.rpartition("@")[2] for signal in going}
    if len(set(hosts.values())) > 1 and len({settings.endpoints[signal].protocol for signal in going}) == 1:
        own = [name for name in (named(environ, signal, "ENDPOINT") for signal in going) if name != f"{_ALL}_ENDPOINT"]
        text = ", ".join(f"{signal} go to {host}" for signal, host in hosts.items())
        yield problem("endpoints_differ", text, variable=" and ".join(own)).line(STEP)


def _why(endpoint: Endpoint, where: str, signal: str, given: DoctorOptions, environ: Mapping[str, str]) -> str:
    """Where an address comes from and, if it has no scheme, what follows from that."""
    address = given.endpoint or environ.get(named(environ, signal, "ENDPOINT"), "").strip()
    if not address or "://" in address:
        return where
    if endpoint.protocol != "grpc":
        default = "default; " if endpoint.url.startswith(DEFAULT_ENDPOINTS[endpoint.protocol]) else ""
        return f"{default}{where} names no scheme, so it is not used"
    insecure = named(environ, signal, "INSECURE")
    if environ.get(insecure, "").strip().lower() == "true":
        return f"{where}, which names no scheme: no TLS, as {insecure} is true"
    return f"{where}, which names no scheme: TLS, unless {insecure} is true"


def _timeouts(environ: Mapping[str, str]) -> Iterator[ReportLine]:
    for name in (f"{_ALL}_TIMEOUT", *(f"{_ALL}_{signal.upper()}_TIMEOUT" for signal in SIGNALS)):
        try:
            seconds = float(environ.get(name, "").strip() or TIMEOUT_MOST)
        except ValueError:
            continue
        if seconds >= LONG_SECONDS:
            yield problem("timeout_unit", f"{name}={seconds:g} means {seconds:g} seconds", variable=name).line(STEP)
        elif 0 < seconds < SHORT_SECONDS:
            yield problem("timeout_short", f"{name}={seconds:g}: {seconds:g} s a request", variable=name).line(STEP)
        elif seconds > TIMEOUT_MOST:
            text = f"{name}={seconds:g}: requests of otel-progress take {TIMEOUT_MOST:g} s at the most all the same"
            yield ReportLine(STEP, Level.NOTE, text)


def address(endpoint: Endpoint) -> tuple[str, int]:
    """Host and port.

    Raises:
        ValueError: if there is no host.
    """
    parts = urlsplit(endpoint.url)
    if not parts.hostname:
        raise ValueError(f"there is no host in {shown(endpoint.url)}")
    return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _least(name: str) -> str | None:
    """The oldest version of a package that ours requires."""
    try:
        required = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return None
    for line in required:
        found = re.match(r"([\w.-]+)[^;]*>=\s*([\d.]+)", line)
        if found and found[1].lower() == name:
            return found[2]
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


class _LogCollector(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__()
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(record.getMessage())


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Collect our own log messages, instead of logging them."""
    said: list[str] = []
    log, handler = logging.getLogger("otel_progress"), _LogCollector(said)
    propagated, log.propagate = log.propagate, False
    log.addHandler(handler)
    try:
        yield said
    finally:
        log.removeHandler(handler)
        log.propagate = propagated
