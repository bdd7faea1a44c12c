"""The control channel: a monitor that takes our events may ask operations to stop.

A receiver that has one names its URL in the answers to our log events. One thread then asks there for commands, in
requests that the receiver holds until it has something to say. It runs only while operations do, never holds the end
of the process, and what it can't reach it tries again: nothing of it reaches the job but what a command asks for.

Who may command is decided by where events are sent: a monitor on this machine, or one to which we show who we are. It
names its channel on the host and port that events are sent to; another one has to be set.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from ipaddress import ip_address
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.errors import MissingDependency
from otel_progress.live.drops import drops
from otel_progress.live.engine import runtime
from otel_progress.live.engine.commands import Commands
from otel_progress.live.guard import tell_once
from otel_progress.live.registry import registry
from otel_progress.outbound.backoff import STANDARD, Backoff
from otel_progress.settings import Endpoint

log = logging.getLogger("otel_progress")
WAIT: Final = 20.0
"""How long a receiver may hold a request, in seconds."""
GRACE: Final = 5.0
"""How much longer its answer may take."""
CONNECT: Final = 1.5
IDLE: Final = 60.0
"""So long without any operation, and nobody is asked any more."""
QUICK: Final = 1.0
"""An answer without a command that comes sooner than this counts as a failure, lest we ask in circles."""
STREAK: Final = 3
"""So many failures in a row are told."""
ANSWER_BYTES: Final = 1024 * 1024
COMMANDS: Final = 1_000
"""Commands taken from one answer."""
URL_LENGTH: Final = 2_000
OTLP_GRPC: Final = 4317
OTLP_HTTP: Final = 4318
OTHERS: Final = 100
"""URLs that said no, and are not asked again."""
_NO_CHANNEL: Final = frozenset({404, 405, 410})
_NO_RIGHT: Final = frozenset({401, 403})
_ABOUT_BODY: Final = frozenset({400, 413, 422})
_NO_PROXY: Final[Any] = {"http": None, "https": None, "all": None}


class Way(NamedTuple):
    """Where to ask, and whether who we are may be shown there."""

    url: str
    shown: str
    """The URL as it may be logged."""
    local: bool
    trusted: bool


def follow(offer: str, endpoint: Endpoint, where: bool | str = False) -> Way:
    """The way to the channel that the receiver at an endpoint offers: a path there, or an http(s) URL.

    Args:
        offer: what it says.
        endpoint: where events are sent.
        where: follow it to any URL, or to this address (scheme, host and port) too.

    Raises:
        ValueError: where it is not to be followed, or can't be read; the text says why.
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
    return Way(parts._replace(netloc=netloc, fragment="").geturl(), shown, local, secret)


def _is_local(host: str | None) -> bool:
    try:
        return host == "localhost" or (host is not None and ip_address(host).is_loopback)
    except ValueError:
        return False


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _own_ports(endpoint: Endpoint, base: SplitResult) -> tuple[int, ...]:
    """The port that events are sent to; to that of OTLP over gRPC belongs that of OTLP over HTTP."""
    own = _port(base)
    return (own, OTLP_HTTP) if endpoint.protocol == "grpc" and own == OTLP_GRPC else (own,)


def _address(parts: SplitResult) -> str:
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _is_there(parts: SplitResult, address: str) -> bool:
    """Whether it is at the address that was set."""
    there = urlsplit(address)
    return (parts.scheme, parts.hostname, _port(parts)) == (there.scheme, there.hostname, _port(there))


def _is_same_host(parts: SplitResult, base: SplitResult) -> bool:
    """Whether both are of one host."""
    if not parts.hostname or parts.port == 0:
        raise ValueError("it names no host")
    return parts.hostname == base.hostname or (_is_local(parts.hostname) and _is_local(base.hostname))


def _is_authorized(endpoint: Endpoint, base: SplitResult) -> bool:
    """Whether requests to it say who we are."""
    named = any(key.lower() == "authorization" for key, _ in endpoint.headers)
    return named or "@" in base.netloc or bool(endpoint.client_certificate)


class Channel:
    """Asks for commands where the receiver of our events says, and obeys them."""

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
        """Nothing is opened or started before a channel is offered.

        Args:
            endpoint: where log events go.
            instance: the `service.instance.id` under which they go.
            where: follow whatever URL is offered, or to this address too.
            wait: how long a receiver may hold a request, in seconds.
            idle: how long it is asked on after the last operation ended, in seconds.
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
        self._way: Way | None = None
        self._over: set[str] = set()
        self._told: set[str] = set()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def offered(self, offer: str) -> None:
        """The receiver says where it passes commands on; called for each of its answers, and never raises."""
        try:
            if offer != self._offer:
                self._way, self._offer = self._follow(offer), offer
            if self._way is not None and self._may_start(self._way):
                thread = threading.Thread(target=self._run, name="otel-progress-control", daemon=True)
                thread.start()
                self._thread = thread
        except RuntimeError:
            return  # the interpreter ends, and starts no thread any more
        except Exception:
            tell_once("the control channel could not be opened; the job goes on")

    def close(self) -> None:
        """Ask no more; a request that is under way is left to end by itself. It may be called twice."""
        self._stopped.set()

    def _follow(self, offer: str) -> Way | None:
        try:
            return follow(offer, self._endpoint, self._where)
        except ValueError as error:
            self._tell(
                "refused",
                "the control channel %r is not followed: %s. OTEL_PROGRESS_CONTROL=true follows any, false none",
                offer[:200],
                error,
            )
            return None

    def _may_start(self, way: Way) -> bool:
        running = self._thread is not None and self._thread.is_alive()
        wanted = runtime.threads_allowed and not self._stopped.is_set() and way.url not in self._over
        return not running and wanted and _in_flight()

    def _tell(self, what: str, text: str, *args: object) -> None:
        """Log it as a warning, once for each kind."""
        if what not in self._told:
            self._told.add(what)
            log.warning(text, *args)

    # -- the thread

    def _run(self) -> None:
        try:
            from otel_progress.outbound.session import Session

            with Session() as session:
                self._ask_on(session)
        except ImportError:
            self._stopped.set()
            self._tell("missing", "%s", MissingDependency("commands need: pip install otel-progress"))
        except Exception:
            tell_once("the control channel failed; the job goes on")

    def _ask_on(self, session: Any) -> None:
        """Ask again and again, while operations run."""
        busy_at, failures = clock.monotonic(), 0
        while not self._stopped.is_set():
            way, now = self._way, clock.monotonic()
            if way is None or way.url in self._over:
                return
            if _in_flight():
                busy_at = now
            elif now - busy_at >= self._idle:
                return
            reason = self._ask(session, way)
            if reason is None:
                failures = 0
                self._told.discard("failed")
                continue
            failures += 1
            if failures == STREAK and reason:
                text = "the control channel at %s does not answer (%s); nobody can ask an operation to stop from there"
                self._tell("failed", text, way.shown, reason)
            self._stopped.wait(self._backoff.pause(failures))

    def _ask(self, session: Any, way: Way) -> str | None:
        """Ask once, and obey; returns why it failed, empty where it only came too soon, or None."""
        answers, began = self._answers, clock.monotonic()
        try:
            status, body = self._post(session, way, answers)
        except Exception as error:
            return f"{type(error).__name__}: {error}"[:200]
        if self._stopped.is_set():
            return ""  # what came is not obeyed: whoever asks in our place gets it again
        if status in _NO_CHANNEL or status in _NO_RIGHT:
            if len(self._over) < OTHERS:
                self._over.add(way.url)
            else:
                self.close()
            if status in _NO_RIGHT:
                self._tell("right", "the control channel at %s refuses us (HTTP %d)", way.shown, status)
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
        soon = not self._answers and clock.monotonic() - began < QUICK
        return "" if soon and not answers else None

    def _post(self, session: Any, way: Way, answers: list[dict[str, str]]) -> tuple[int, bytes]:
        """Send a request as log events are sent, and wait for what it is answered."""
        endpoint = self._endpoint
        headers = dict(endpoint.headers) if way.trusted else {}
        headers |= {"content-type": "application/json", "user-agent": "otel-progress"}
        certificate = endpoint.client_certificate if way.trusted else None
        about = {"instance": self._instance, "pid": os.getpid(), "answers": answers, "wait": self._wait}
        reply = session.ask(
            "POST",
            way.url,
            self._wait + GRACE,
            ANSWER_BYTES,
            connect=CONNECT,
            data=json.dumps(about).encode(),
            headers=headers,
            verify=endpoint.certificate,
            cert=(certificate, endpoint.client_key) if certificate and endpoint.client_key else certificate,
            proxies=_NO_PROXY if way.local else None,
        )
        return reply.status, reply.body


def _in_flight() -> bool:
    """Whether anything runs, or waits for its start, that could be asked to stop."""
    return bool(registry.operations() or registry.pending)
