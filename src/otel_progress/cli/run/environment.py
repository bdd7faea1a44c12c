"""The environment of a watched command: its telemetry is sent to us instead of to the configured endpoints.

A program that calls no `configure()` reports all the same, as the environment asks it to.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from otel_progress import instrumenting
from otel_progress.settings import CONFIGURE, HEARTBEAT, INSTRUMENT, RUN, SIGNALS, Endpoint, Settings, read

_ALL: Final = "OTEL_EXPORTER_OTLP"
_OURS: Final = (
    "ENDPOINT",
    "PROTOCOL",
    "HEADERS",
    "COMPRESSION",
    "CERTIFICATE",
    "CLIENT_KEY",
    "CLIENT_CERTIFICATE",
    "INSECURE",
)
"""Variables that describe the endpoint; they apply to the real one, which only we talk to."""
_PROXIES: Final = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
LISTEN_SECONDS: Final = 0.5
TO_RUN: Final = 5.0
"""The longest silence of a watched program in seconds, as we judge it like a monitor."""


def redirected(environ: Mapping[str, str], endpoint: str) -> dict[str, str]:
    """The environment changed so that OTLP goes to this endpoint over http/protobuf."""
    out = dict(environ)
    for signal in ("", *SIGNALS):
        prefix = f"{_ALL}_{signal.upper()}" if signal else _ALL
        for what in _OURS:
            out.pop(f"{prefix}_{what}", None)
    out[f"{_ALL}_ENDPOINT"], out[f"{_ALL}_PROTOCOL"] = endpoint, "http/protobuf"
    out[RUN] = endpoint
    out.setdefault(CONFIGURE, "true")
    out.setdefault(HEARTBEAT, f"{TO_RUN:g}")
    _instrument(out)
    for signal in SIGNALS:
        name = f"OTEL_{signal.upper()}_EXPORTER"
        if name in out:
            out[name] = out[name].replace("otlp_proto_grpc", "otlp_proto_http")
    if any(out.get(name) for name in _PROXIES):
        for name in ("no_proxy", "NO_PROXY"):
            out[name] = ",".join(filter(None, (out.get(name), "127.0.0.1")))
    return out


def _instrument(out: dict[str, str]) -> None:
    """Have each Python below look for libraries that it knows, unless that is switched off."""
    start = os.path.join(os.path.dirname(instrumenting.__file__), "start")
    asked = out.setdefault(INSTRUMENT, "auto").strip().lower()
    given = out.get("PYTHONPATH", "")
    before = [each for each in given.split(os.pathsep) if each != start] if given else []  # an empty entry is the cwd
    if asked != "none" and os.pathsep not in start:
        out["PYTHONPATH"] = os.pathsep.join([start, *before])


def endpoints(environ: Mapping[str, str]) -> tuple[dict[str, Endpoint], bool]:
    """The endpoint of each signal, and whether one was guessed.

    Without a configured endpoint it is the default one if something listens there, else the signal is not forwarded.
    """
    settings = read(environ=environ)
    found: dict[str, Endpoint] = {}
    guessed = False
    listening: dict[str, bool] = {}
    for signal in SIGNALS:
        endpoint = settings.endpoints[signal]
        if not _named(environ, signal):
            if not listening.setdefault(endpoint.url.partition("/v1/")[0], listens(endpoint.url)):
                continue
            guessed = True
        found[signal] = endpoint
    return found, guessed


def absent(environ: Mapping[str, str], found: Mapping[str, Endpoint]) -> dict[str, Endpoint]:
    """The default endpoint of each signal for which no endpoint was found: nothing listens there yet."""
    known = read(environ=environ).endpoints
    return {signal: known[signal] for signal in SIGNALS if signal not in found}


def mute(environ: Mapping[str, str]) -> str:
    """Why the command can't report its operations; empty if it can."""
    settings: Settings = read(environ=environ)
    if settings.disabled:
        return "OTEL_SDK_DISABLED is set"
    if not any(part.strip().startswith("otlp") for part in settings.logs.split(",")):
        return f"OTEL_LOGS_EXPORTER={settings.logs} keeps its log events from us"
    asked = environ.get(CONFIGURE, "").strip().lower()
    if asked not in ("", "true"):
        return f"{CONFIGURE}={asked}, so the command must call otel_progress.configure()"
    return ""


def _named(environ: Mapping[str, str], signal: str) -> bool:
    return any(environ.get(name) for name in (f"{_ALL}_ENDPOINT", f"{_ALL}_{signal.upper()}_ENDPOINT"))


def listens(url: str) -> bool:
    """Whether something accepts connections there."""
    try:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port or 80), LISTEN_SECONDS):
            return True
    except (OSError, ValueError):
        return False
