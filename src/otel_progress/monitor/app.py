"""The monitor: one process that takes OTLP and shows what runs. Here its parts are put together and served."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from otel_progress import procfs
from otel_progress import semconv as s
from otel_progress.errors import InvalidArgument
from otel_progress.monitor.auth import Auth, Guard, Identity, is_loopback
from otel_progress.monitor.intake import http
from otel_progress.monitor.intake.bodies import bodies
from otel_progress.monitor.intake.records import Envelope, Refused, Taken
from otel_progress.monitor.intake.server import Guarded
from otel_progress.monitor.outlets.dispatch import Outlets
from otel_progress.monitor.outlets.relay import Relay
from otel_progress.monitor.state.core import PRESUME_AFTER, Core, Told
from otel_progress.monitor.state.integrity import Integrity
from otel_progress.monitor.state.ledger import instance_of
from otel_progress.monitor.state.store import BYTES as STORE_BYTES
from otel_progress.monitor.state.store import DAYS, Store
from otel_progress.monitor.state.watcher import Watcher
from otel_progress.monitor.web.cancel import Control
from otel_progress.monitor.web.publish import Publisher
from otel_progress.monitor.web.routes import Api, about
from otel_progress.monitor.web.stream import Hub
from otel_progress.monitor.web.views import Views
from otel_progress.version import VERSION

if TYPE_CHECKING:
    from otel_progress.monitor.state.ledger import Entry, Head
    from otel_progress.settings import Endpoint

PORT: Final = 4318
GRPC_PORT: Final = 4317
INTERVAL: Final = 0.1
QUIET: Final = 2.0
"""For so many seconds nothing must have come from a process that is gone, before we close what it left open:
`otel-progress run`, which knows more of it, comes first."""
STOP_SECONDS: Final = 3.0
FILES: Final = 8_192
GARBAGE: Final = 50_000
"""So many new objects before a look for garbage: what comes in makes many that are gone at once, and no circles."""
CONTROL_HEADER: Final = "Otel-Progress-Control"
CONTROL_PATH: Final = "/control"


@dataclass(frozen=True)
class Options:
    """How a monitor is to be.

    Attributes:
        db: the file that keeps state and history.
        host: the address to listen on.
        port: of OTLP over HTTP, the API and the page; 0 for any that is free.
        grpc_port: of OTLP over gRPC; None for none.
        interval: seconds between two frames of a stream.
        keep_days: how long operations that are over are kept.
        keep_bytes: how large the file may get.
        tokens: what each token may do.
        hosts: further names by which browsers may know us.
        forward: where to pass requests on to, by signal.
        redis: the Redis to share state by.
        webhook: where to post what somebody should know, and the secret to sign it with.
        trace_url: where a trace is shown, with `{trace_id}` in it.
        presume_after: seconds without a sign of its process, after which an operation counts as lost.
    """

    db: Path
    host: str = "127.0.0.1"
    port: int = PORT
    grpc_port: int | None = GRPC_PORT
    interval: float = INTERVAL
    keep_days: float = DAYS
    keep_bytes: int = STORE_BYTES
    tokens: Mapping[str, Identity] = field(default_factory=dict)
    hosts: tuple[str, ...] = ()
    forward: Mapping[str, Endpoint] = field(default_factory=dict)
    redis: str | None = None
    webhook: tuple[str, bytes | None] | None = None
    trace_url: str | None = None
    presume_after: float = PRESUME_AFTER


class Monitor:
    """All parts: `__init__` holds the ports and the file, and `run` serves until it is told to stop."""

    def __init__(self, options: Options, say: Callable[[str], None] = lambda _: None) -> None:
        """Hold what is needed; nothing is answered yet.

        Raises:
            InvalidArgument: where a port is held by another program, or anybody could reach us without a token.
            StoreError: where the file can't be had.
            MissingDependency: where a package is missing.
        """
        self._say = say
        self._options = options
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as opened:
            self._socket = opened.enter_context(bound(options.host, options.port))
            self.port: Final[int] = self._socket.getsockname()[1]
            self.auth = Auth(options.tokens, port=self.port, hosts=options.hosts, loopback=is_loopback(options.host))
            self._store = Store(options.db, keep_days=options.keep_days, most_bytes=options.keep_bytes)
            opened.callback(self._store.close)
            self._build(options)
            self._grpc = self._open_grpc(options)
            self._stack = opened.pop_all()

    def _build(self, options: Options) -> None:
        self.core = Core(
            self._store,
            forwards=options.forward,
            presume_after=options.presume_after,
            on_stored=self._stored,
            wants=self._wants,
            on_verdict=self._conclude,
            on_rival=self._rival,
            wake=self._wake,
        )
        self.integrity = Integrity(self._store, self._found)
        self.relay = Relay(options.forward, self._store, self.core.forget) if options.forward else None
        self.hub = Hub(options.interval, VERSION)
        self.hub.valid = self.auth.is_open
        self.views = Views(self.core, self._store, trace_url=options.trace_url)
        self.control = Control()
        self.views.can_reach = self.control.connected
        self.publisher = Publisher(self.core, self._store, self.views, self.hub, options.interval, self._tell_trouble)
        self.outlets = Outlets(self.core, self.views, options.redis, options.webhook, _origin(options.db))
        self.core.watcher = Watcher(self._post, lambda _: None, ledger=self.core.ledger, quiet=QUIET, eager=False)
        self.core.watcher.settled = lambda: self.core.idle
        self.core.observer.is_stopped = self.core.watcher.is_stopped
        self._loop: asyncio.AbstractEventLoop | None = None

    def _open_grpc(self, options: Options) -> Any:
        if options.grpc_port is None:
            return None
        from otel_progress.monitor.intake.grpc import GrpcIntake

        try:
            control = None if self._is_wildcard else f"{self.url}{CONTROL_PATH}"
            return GrpcIntake(self.core.offer, self.auth, options.host, options.grpc_port, control)
        except InvalidArgument as error:
            self._say(f"{error}; without gRPC: --grpc-port none")
            return None

    @property
    def _is_wildcard(self) -> bool:
        """Whether it listens on all addresses, so that nobody knows by which one others reach it."""
        return self._options.host in ("0.0.0.0", "::", "")  # noqa: S104

    @property
    def host(self) -> str:
        """An address at which it can be reached from this machine."""
        host = "127.0.0.1" if self._is_wildcard else self._options.host
        return f"[{host}]" if ":" in host else host

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{self.host}:{self.port}"

    @property
    def grpc_port(self) -> int | None:
        """The port of gRPC, where it is served."""
        return None if self._grpc is None else self._grpc.port

    @property
    def path(self) -> Path:
        """The file that keeps state and history."""
        return self._options.db

    def application(self) -> Guard:
        """The ASGI application: OTLP, the API, the page."""
        api = Api(
            self.core,
            self._store,
            self.views,
            self.hub,
            self.publisher,
            self.control,
            self.auth,
            about(VERSION),
            self._details,
        )
        intake = http.routes(self.take, headers={CONTROL_HEADER: CONTROL_PATH})
        wrong: dict[Any, Any] = {HTTPException: _told}
        return Guard(Starlette(routes=[*intake, *api.routes()], exception_handlers=wrong), self.auth)

    def _details(self) -> dict[str, Any]:
        """How the ways in and out are."""
        slow = bodies().given_up + (0 if self._grpc is None else self._grpc.given_up)
        return {
            "intake": {**self.core.intake(), "too_slow": slow},
            "integrity": self.integrity.told(),
            **self.outlets.health(),
        }

    async def take(self, envelope: Envelope) -> Taken:
        """Take a request; the answer comes when it is stored."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Taken] = loop.create_future()

        def settle(found: Taken | Refused) -> None:
            if answer.done():
                return
            if isinstance(found, Refused):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        def done(found: Taken | Refused) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, found)

        self.core.offer(envelope, done)
        return await answer

    def run(self, *, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until SIGTERM or SIGINT, or until `stop` is called; for a process that does nothing else."""
        gc.set_threshold(GARBAGE, 50, 50)
        _allow_files()
        try:
            import uvloop
        except ImportError:
            asyncio.run(self.serve(ready))
        else:
            uvloop.run(self.serve(ready))

    async def serve(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve on this loop."""
        self._loop = asyncio.get_running_loop()
        self._server = _Server(self._config(), self._ending, ready)
        self.core.start()
        self.integrity.start()
        self.outlets.start()
        publishing = asyncio.ensure_future(self.publisher.run())
        try:
            if self._grpc is not None:
                self._grpc.start()
            await self._server.serve(sockets=[self._socket])
        finally:
            publishing.cancel()
            await asyncio.get_running_loop().run_in_executor(None, self.close)

    def stop(self) -> None:
        """End; any thread may call it."""
        self._server.should_exit = True

    def close(self) -> None:
        """Let all go; it may be called twice."""
        if self._grpc is not None:
            self._grpc.stop()
        self.core.stop(STOP_SECONDS)
        if self.relay is not None:
            self.relay.stop(STOP_SECONDS)
        self.outlets.stop(STOP_SECONDS)
        self.integrity.stop(STOP_SECONDS)
        self._stack.close()

    def losses(self) -> list[str]:
        """What could not be passed on, in words."""
        return [*(self.relay.losses() if self.relay is not None else []), *self.outlets.losses()]

    def _ending(self) -> None:
        self.hub.close()
        self.control.close()

    def _config(self) -> uvicorn.Config:
        logging.getLogger("uvicorn").addHandler(logging.NullHandler())
        return uvicorn.Config(
            self.application(),
            interface="asgi3",
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="websockets-sansio",
            ws_max_size=64 * 1024,
            ws_per_message_deflate=False,
            http=Guarded,
            loop="none",
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=2,
            backlog=2048,
        )

    def _stored(self, told: list[Told]) -> None:
        """In the core's thread: say what was stored to those who pass it on."""
        ended = [
            (one.head, instance_of(one.resource))
            for one in told
            if one.record.event == s.OPERATION_ENDED and one.head is not None
        ]
        if ended and self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._tell_ends, ended)
        self.outlets.take(told)

    def _found(self, damage: str | None) -> None:
        """The file was looked at."""
        self.core.damage = damage

    def _tell_trouble(self, trouble: str | None) -> None:
        self._say("all is well again" if trouble is None else f"trouble: {trouble}")

    def _wants(self, event: str) -> bool:
        return event == s.OPERATION_ENDED or self.outlets.wants(event)

    def _conclude(self, entry: Entry, kind: str) -> None:
        self.outlets.conclude(entry, kind)

    def _rival(self, entry: Entry) -> None:
        """In the core's thread: two processes run one id; both are warned, and so is who reads our log."""
        text = self.views.warning(entry)
        if text is None:
            return
        self._say(f"warning: {text}")
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._warn, entry, text)

    def _warn(self, entry: Entry, text: str) -> None:
        for instance in (entry.instance, *(entry.rivals or ())):
            self.control.warn(entry.head.operation_id, instance, text)

    def _wake(self, signal: str) -> None:
        if self.relay is not None:
            self.relay.wake(signal)

    def _tell_ends(self, ended: list[tuple[Head, str]]) -> None:
        for head, instance in ended:
            self.control.ended(head.operation_id, head.status.value, head.attempt, instance)

    def _post(self, signal: str, body: bytes) -> None:
        """A certificate of ours goes the way of all that comes in."""
        with contextlib.suppress(Refused):
            self.core.offer(Envelope(signal, body), lambda _: None)


async def _told(_: Request, error: Exception) -> Response:
    """What the router refuses, as JSON."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _allow_files() -> None:
    """Let there be as many connections as the system lets us have; each reader is one."""
    try:
        import resource
    except ImportError:
        return  # a system without such limits
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _origin(db: Path) -> str:
    """The name of this monitor among others, the same after a restart."""
    return hashlib.sha256(f"{socket.gethostname()} {db.resolve()}".encode()).hexdigest()[:16]


class _Server(uvicorn.Server):
    """Ends the streams when it is to end, so that it can."""

    def __init__(self, config: uvicorn.Config, ending: Callable[[], None], ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ending = ending
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End at SIGINT and SIGTERM, and let us put all in order after that: uvicorn would raise them again first."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._ending()
        await super().shutdown(sockets)


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        InvalidArgument: where it can't; it names who holds the port, and what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family)
    if sys.platform != "win32":
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(2048)
    except socket.gaierror:
        found.close()
        raise InvalidArgument(f"--host {host!r} is no address of this machine") from None
    except (OSError, OverflowError) as error:
        found.close()
        why = error.strerror if isinstance(error, OSError) else "it is no port"
        raise InvalidArgument(held(port, why or str(error))) from None
    return found


def held(port: int, why: str) -> str:
    """What to do about a port that can't be had."""
    holder = procfs.listener(port)
    if holder is None:
        return f"port {port} can't be had ({why}); give another one with --port"
    return (
        f"port {port} is held by {holder.name} (pid {holder.pid}); either stop it and pass on to it from here with "
        f"--forward, or listen elsewhere, as with --port {port + 100}, and have that program or yours send there"
    )
