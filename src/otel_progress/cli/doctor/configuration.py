"""What `doctor` reads: packages, variables, where each signal goes, and where each value comes from."""

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

from otel_progress.cli.doctor.findings import Level, Line, problem
from otel_progress.cli.run.environment import SIGNALS
from otel_progress.settings import TIMEOUT_MOST, Endpoint, Settings, read

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
"""What sending needs, and the extra that brings it; `""` is the package without any."""
NOT_ASKED: Final = "none"
"""In place of a backend's address: it is not looked for, not even at its usual port."""
BLIND_SECONDS: Final = 180
SHORT_SECONDS: Final = 0.1
LONG_SECONDS: Final = 600
"""No one waits that long for an answer: such a timeout was meant in milliseconds."""
_ALL: Final = "OTEL_EXPORTER_OTLP"


@dataclass(frozen=True)
class Given:
    """What the command line says; None where it says nothing."""

    endpoint: str | None = None
    protocol: str | None = None
    prometheus: str | None = None
    loki: str | None = None
    tempo: str | None = None
    timeout: float = 30.0


def settings_of(given: Given, environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """The settings as `configure()` would have them, and what it would say of variables that can't be meant.

    Raises:
        InvalidArgument: where the command line names what can't be meant.
    """
    with _heard() as said:
        settings = read(endpoint=given.endpoint, protocol=given.protocol, environ=environ)
    return settings, list(dict.fromkeys(_set_name(text, environ) for text in said))


def sent(settings: Settings) -> tuple[str, ...]:
    """The signals that go out over OTLP."""
    return tuple(name for name in SIGNALS if "otlp" in getattr(settings, name))


def secrets(settings: Settings, environ: Mapping[str, str], *addresses: str | None) -> Iterator[str]:
    """What must not be shown: values of headers, and passwords in addresses."""
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
        login = url.partition("://")[2].partition("/")[0].rpartition("@")[0]
        yield from filter(None, (login, login.partition(":")[2], unquote(login.partition(":")[2])))


def shown(url: str) -> str:
    """An address without name, password and query."""
    parts = urlsplit(url)
    netloc = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{netloc}{parts.path}" if netloc else url.partition("?")[0]


def named(environ: Mapping[str, str], signal: str, what: str) -> str:
    """The variable of a signal that stands, or the one that would hold for all."""
    own, shared = f"{_ALL}_{signal.upper()}_{what}", f"{_ALL}_{what}"
    return own if environ.get(own, "").strip() else shared


def source(given: str | None, option: str, environ: Mapping[str, str], signal: str, what: str) -> str:
    """Where a value comes from, in words."""
    if given is not None:
        return option
    name = named(environ, signal, what)
    return name if environ.get(name, "").strip() else "default"


def examine(settings: Settings, said: list[str], given: Given, environ: Mapping[str, str]) -> Iterator[Line]:
    """All that can be told without sending anything."""
    yield from packages(settings)
    yield from _ways(settings, given, environ)
    for text in said:
        yield problem("value_ignored", text).line(STEP)
    if settings.disabled:
        yield problem("disabled", "OTEL_SDK_DISABLED is true: configure() does nothing").line(STEP)
    if settings.metric_interval >= BLIND_SECONDS:
        text = f"metrics are sent every {settings.metric_interval:g} s; alerts look back 180 s"
        yield problem("interval_blind", text).line(STEP)
    if settings.run_series_max == 0:
        yield problem("no_run_series", "OTEL_PROGRESS_RUN_SERIES_MAX is 0: no series by operation id").line(STEP)
    yield from _timeouts(environ)


def packages(settings: Settings) -> Iterator[Line]:
    """Versions, and what is missing or too old."""
    needed = {""} | {"grpc" for name in sent(settings) if settings.endpoints[name].protocol == "grpc"}
    found: dict[str, str | None] = {name: _version(name) for name, extra in PACKAGES.items() if extra in needed}
    ours = _version(DISTRIBUTION) or "?"
    versions = [f"{name} {version}" for name, version in found.items() if version and name.endswith(("sdk", "grpcio"))]
    yield Line(STEP, Level.OK, ", ".join([f"Python {platform.python_version()}", f"otel-progress {ours}", *versions]))
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


def _ways(settings: Settings, given: Given, environ: Mapping[str, str]) -> Iterator[Line]:
    """Where each signal goes, and who says so."""
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
        text = f"{shown(endpoint.url)} ({where}{_security(signal, given, environ)}), {endpoint.protocol} ({how}){more}"
        yield Line(STEP, Level.NOTE, text, signals=(signal,))
    hosts = {signal: urlsplit(settings.endpoints[signal].url).netloc.rpartition("@")[2] for signal in going}
    if len(set(hosts.values())) > 1 and len({settings.endpoints[signal].protocol for signal in going}) == 1:
        own = [name for name in (named(environ, signal, "ENDPOINT") for signal in going) if name != f"{_ALL}_ENDPOINT"]
        text = ", ".join(f"{signal} go to {host}" for signal, host in hosts.items())
        yield problem("endpoints_differ", text, variable=" and ".join(own)).line(STEP)


def _security(signal: str, given: Given, environ: Mapping[str, str]) -> str:
    """Why a gRPC address without a scheme is reached with or without TLS; empty for every other address."""
    address = environ.get(named(environ, signal, "ENDPOINT"), "").strip()
    if given.endpoint is not None or not address or "://" in address:
        return ""
    insecure = named(environ, signal, "INSECURE")
    if environ.get(insecure, "").strip().lower() == "true":
        return f", which names no scheme: no TLS, as {insecure} is true"
    return f", which names no scheme: TLS, unless {insecure} is true"


def _timeouts(environ: Mapping[str, str]) -> Iterator[Line]:
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
            yield Line(STEP, Level.NOTE, text)


def address(endpoint: Endpoint) -> tuple[str, int]:
    """Host and port.

    Raises:
        ValueError: where it names none.
    """
    parts = urlsplit(endpoint.url)
    if not parts.hostname:
        raise ValueError(f"there is no host in {shown(endpoint.url)}")
    return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _set_name(text: str, environ: Mapping[str, str]) -> str:
    """What was said of a variable of one signal is about that of all, where only that one is set."""
    name, equals, rest = text.partition("=")
    for signal in SIGNALS:
        shared = name.replace(f"{_ALL}_{signal.upper()}_", f"{_ALL}_")
        if equals and name not in environ and shared in environ:
            return f"{shared}={rest}"
    return text


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _least(name: str) -> str | None:
    """The oldest version of a package that ours says it needs."""
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


class _Heard(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__()
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(record.getMessage())


@contextmanager
def _heard() -> Iterator[list[str]]:
    """What our own log says meanwhile; it goes nowhere else."""
    said: list[str] = []
    log, handler = logging.getLogger("otel_progress"), _Heard(said)
    propagated, log.propagate = log.propagate, False
    log.addHandler(handler)
    try:
        yield said
    finally:
        log.removeHandler(handler)
        log.propagate = propagated
