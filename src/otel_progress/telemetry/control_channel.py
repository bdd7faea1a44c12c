"""The control channel: a monitor that receives our events may ask operations to stop, and for more of their events.

Such a monitor names the URL of its channel in the answers to our log events. One thread then asks there for commands by
long polling. It runs only while operations do, never delays the end of the process, and retries what fails; only the
commands themselves reach the job.

Where events are sent decides who may command: a monitor on this machine, or one that gets our credentials. The channel
must be on the host and port that events are sent to; any other has to be configured.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from dataclasses import replace
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.errors import MissingDependency
from otel_progress.live import hooks
from otel_progress.live.engine import process, wishes
from otel_progress.live.engine.commands import Commands
from otel_progress.live.guard import drops, tell_once
from otel_progress.live.registry import registry
from otel_progress.outbound.backoff import STANDARD, Backoff
from otel_progress.outbound.loopback import is_loopback
from otel_progress.outbound.trouble import MISDIRECTED, of_error
from otel_progress.settings import Endpoint, run_endpoint

log = logging.getLogger("otel_progress")
WAIT: Final = 20.0
"""How long a receiver may hold a request, in seconds."""
GRACE: Final = 5.0
"""Seconds that the answer may take beyond that."""
CONNECT: Final = 1.5
"""How long connecting may take, in seconds."""
IDLE: Final = 60.0
"""How long the channel is polled after the last operation ended, in seconds."""
QUICK: Final = 1.0
"""An empty answer sooner than this (seconds) counts as a failure, so that polling never becomes a busy loop."""
STREAK: Final = 3
"""The number of failures in a row that is logged."""
ANSWER_BYTES: Final = 1024 * 1024
COMMANDS: Final = 1_000
"""Commands that are taken from one answer."""
URL_LENGTH: Final = 2_000
OTLP_GRPC: Final = 4317
OTLP_HTTP: Final = 4318
REFUSALS: Final = 100
"""URLs that are remembered as having refused us, and are not asked again."""
_NO_CHANNEL: Final = frozenset({404, 405, 410})
_NO_RIGHT: Final = frozenset({401, 403, MISDIRECTED})
_ABOUT_BODY: Final = frozenset({400, 413, 422})
_NO_PROXY: Final[Any] = {"http": None, "https": None, "all": None}


class ChannelAddress(NamedTuple):
    """Where to ask for commands, and whether credentials may be sent there."""

    url: str
    shown: str
    """The URL for logs, without credentials."""
    local: bool
    trusted: bool


def follow(offer: str, endpoint: Endpoint, where: bool | str = False) -> ChannelAddress:
    """Resolve the channel that a receiver offers: a path on the endpoint, or an http(s) URL.

    Args:
        offer: the channel, as the receiver names it.
        endpoint: where events are sent.
        where: True follows any URL, an address (scheme, host and port) also one there.

    Raises:
        ValueError: if the offer is invalid or must not be followed; the message says why.
    """
    if len(offer) > URL_LENGTH or not offer.isascii() or not offer.isprintable() or "\\" in offer or " " in offer:
        raise ValueError("it is no URL")
    base = urlsplit(endpoint.url)
    whole = offer.lower().startswith(("http://", "https://"))
    if not whole and (endpoint.protocol == "grpc" or not offer.startswith("/") or offer.startswith("//")):
        raise ValueError("it is neither a path nor an http(s) URL" if "://" in offer else "a whole URL is needed")
    parts = urlsplit(offer if whole else urljoin(base.geturl(), offer))
    if whole and "@" in parts.netloc:
        raise ValueError("it holds a name or a password")
    local, same = _is_local(parts.hostname), _is_same_host(parts, base)
    secret = same and (parts.scheme == "https" or local or base.scheme != "https")
    named = isinstance(where, str) and _is_there(parts, where)
    if where is not True and not named and not (secret and (local or _is_authorized(endpoint, base))):
        raise ValueError("it is neither on this machine nor, as safely, where the endpoint is that we authorize at")
    if where is not True and not named and _port(parts) not in _own_ports(endpoint, base):
        raise ValueError(f"it is not on the endpoint's own port; OTEL_PROGRESS_CONTROL={_address(parts)} follows it")
    host = parts.netloc.rpartition("@")[2]
    shown = parts._replace(netloc=host, query="", fragment="").geturl()
    user = base.netloc.rpartition("@")[0]
    netloc = f"{user}@{host}" if secret and user else host
    return ChannelAddress(parts._replace(netloc=netloc, fragment="").geturl(), shown, local, secret)


def _is_local(host: str | None) -> bool:
    return host is not None and is_loopback(host)


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _own_ports(endpoint: Endpoint, base: SplitResult) -> tuple[int, ...]:
    """The port that events are sent to; the standard port of gRPC includes that of HTTP."""
    own = _port(base)
    return (own, OTLP_HTTP) if endpoint.protocol == "grpc" and own == OTLP_GRPC else (own,)


def _address(parts: SplitResult) -> str:
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _is_there(parts: SplitResult, address: str) -> bool:
    """Whether the URL is at the configured address."""
    there = urlsplit(address)
    return (parts.scheme, parts.hostname, _port(parts)) == (there.scheme, there.hostname, _port(there))


def _is_same_host(parts: SplitResult, base: SplitResult) -> bool:
    """Whether both URLs name the same host."""
    if not parts.hostname or parts.port == 0:
        raise ValueError("it names no host")
    return parts.hostname == base.hostname or (_is_local(parts.hostname) and _is_local(base.hostname))


def _is_authorized(endpoint: Endpoint, base: SplitResult) -> bool:
    """Whether requests to the endpoint carry credentials."""
    named = any(key.lower() == "authorization" for key, _ in endpoint.headers)
    return named or "@" in base.netloc or bool(endpoint.client_certificate)


class Channel:
    """Polls the channel that the receiver of our events offers, and obeys its commands."""

    def __init__(
        self,
        endpoint: Endpoint,
        instance: str,
        where: bool | str = False,
        *,
        wait: float = WAIT,
        idle: float = IDLE,
        backoff: Backoff = STANDARD,
    ) -> None:
        """Prepare; nothing is opened or started before a channel is offered.

        Args:
            endpoint: where log events are sent.
            instance: their `service.instance.id`.
            where: True follows any offered URL, an address also one there.
            wait: how long a receiver may hold a request, in seconds.
            idle: how long the channel is polled after the last operation ended, in seconds.
            backoff: the pauses after requests that failed.
        """
        self._endpoint = endpoint
        self._instance = instance
        self._where = where
        self._wait = wait
        self._idle = idle
        self._backoff = backoff
        self._commands = Commands()
        self._answers: list[dict[str, str]] = []
        self._offer: str | None = None
        self._address: ChannelAddress | None = None
        self._refused: set[str] = set()
        self._warned: set[str] = set()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def offered(self, offer: str) -> None:
        """Take an offer of the receiver; called with each of its answers, never raises."""
        try:
            if offer != self._offer:
                self._address, self._offer = self._follow(offer), offer
            if self._address is not None and self._may_start(self._address):
                thread = threading.Thread(target=self._run, name="otel-progress-control", daemon=True)
                thread.start()
                self._thread = thread
        except RuntimeError:
            return  # the interpreter ends, and starts no thread any more
        except Exception:
            tell_once("the control channel could not be opened; the job goes on")

    def close(self) -> None:
        """Stop polling; a request in flight ends by itself. May be called twice."""
        self._stopped.set()

    def _follow(self, offer: str) -> ChannelAddress | None:
        try:
            return follow(offer, self._endpoint, self._where)
        except ValueError as error:
            self._warn(
                "refused",
                "the control channel %r is not followed: %s. OTEL_PROGRESS_CONTROL=true follows any, false none",
                offer[:200],
                error,
            )
            return None

    def _may_start(self, address: ChannelAddress) -> bool:
        running = self._thread is not None and self._thread.is_alive()
        wanted = process.threads_allowed and not self._stopped.is_set() and address.url not in self._refused
        return not running and wanted and _in_flight()

    def _warn(self, what: str, text: str, *args: object) -> None:
        """Log a warning, once for each kind; where nobody at this program can act on it, as information."""
        if what not in self._warned:
            self._warned.add(what)
            log.log(_level(), text, *args)

    # -- the thread

    def _run(self) -> None:
        try:
            from otel_progress.outbound.session import Session

            with Session() as session:
                self._poll(session)
        except ImportError:
            self._stopped.set()
            self._warn("missing", "%s", MissingDependency("commands need: pip install otel-progress"))
        except Exception:
            tell_once("the control channel failed; the job goes on")

    def _poll(self, session: Any) -> None:
        """Poll while operations run."""
        busy_at, failures = clock.monotonic(), 0
        while not self._stopped.is_set():
            address, now = self._address, clock.monotonic()
            if address is None or address.url in self._refused:
                return
            if _in_flight():
                busy_at = now
            elif now - busy_at >= self._idle:
                return
            reason = self._ask(session, address)
            if reason is None:
                failures = 0
                if "failed" in self._warned:
                    self._warned.discard("failed")
                    log.log(_level(), "the control channel at %s answers again", address.shown)
                continue
            failures += 1
            if failures == STREAK and reason:
                text = "the control channel at %s does not answer (%s); nobody can ask an operation to stop from there"
                self._warn("failed", text, address.shown, reason)
            self._stopped.wait(self._backoff.pause(failures))

    def _ask(self, session: Any, address: ChannelAddress) -> str | None:
        """Ask once, and obey; returns why that failed (empty if the answer only came too soon), or None."""
        answers, began = self._answers, clock.monotonic()
        try:
            status, body = self._post(session, address, answers)
        except Exception as error:
            asked = replace(self._endpoint, url=address.url, protocol="http/protobuf", timeout=self._wait + GRACE)
            return of_error(asked, error).text.partition(": ")[0]
        if self._stopped.is_set():
            return ""  # the commands are not obeyed: the monitor sends them again to the next one that asks
        if status in _NO_CHANNEL or status in _NO_RIGHT:
            if len(self._refused) < REFUSALS:
                self._refused.add(address.url)
            else:
                self.close()
            if status in _NO_RIGHT:
                self._warn("right", "the control channel at %s refuses us (HTTP %d)", address.shown, status)
            return ""
        if status in _ABOUT_BODY and answers:
            self._answers = []
            drops.add(s.DROP_REJECTED, len(answers))
        if status != 200:
            return f"HTTP {status}"
        try:
            commands = json.loads(body)["commands"][:COMMANDS]
        except (ValueError, LookupError, TypeError, RecursionError):
            return "its answer can't be read"
        self._answers = [answer for answer in map(self._commands.obey, commands) if answer is not None]
        if self._answers or answers:
            return None
        early = QUICK - (clock.monotonic() - began)
        if early > 0 and commands:
            self._stopped.wait(early)  # a monitor may wish again and again
        return "" if early > 0 and not commands else None

    def _post(self, session: Any, address: ChannelAddress, answers: list[dict[str, str]]) -> tuple[int, bytes]:
        """Post a request with the settings of log events, and wait for its answer."""
        endpoint = self._endpoint
        headers = dict(endpoint.headers) if address.trusted else {}
        headers |= {"content-type": "application/json", "user-agent": "otel-progress"}
        certificate = endpoint.client_certificate if address.trusted else None
        about: dict[str, Any] = {"instance": self._instance, "pid": os.getpid(), "answers": answers, "wait": self._wait}
        about["does"] = wishes.KNOWN
        reply = session.ask(
            "POST",
            address.url,
            self._wait + GRACE,
            ANSWER_BYTES,
            connect=CONNECT,
            data=json.dumps(about).encode(),
            headers=headers,
            verify=endpoint.certificate,
            cert=(certificate, endpoint.client_key) if certificate and endpoint.client_key else certificate,
            proxies=_NO_PROXY if address.local else None,
        )
        return reply.status, reply.body


def _level() -> int:
    """The level of messages: programs without a line of ours take no requests, and `run` shows how its monitor is."""
    asked = any(hooks.takes_requests(operation) for operation in registry.operations())
    return logging.WARNING if asked and not run_endpoint() else logging.INFO


def _in_flight() -> bool:
    """Whether any operation runs or waits for its start."""
    return bool(registry.operations() or registry.pending)
