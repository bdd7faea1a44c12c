"""The monitor: one process that receives OTLP and shows what runs. This module wires its parts and serves them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from otel_progress import semconv as s
from otel_progress.errors import InvalidArgument
from otel_progress.model.redact import Redact
from otel_progress.model.secrets import mask_secrets
from otel_progress.model.snapshot import Snapshot
from otel_progress.monitor.auth import NO_STORE, SAFE_HEADERS, Auth, Guard, Identity
from otel_progress.monitor.hooks import routes as hooks
from otel_progress.monitor.hooks.claude_code import ClaudeCode
from otel_progress.monitor.intake import http
from otel_progress.monitor.intake.acknowledgement import acknowledged
from otel_progress.monitor.intake.bodies import bodies
from otel_progress.monitor.intake.direct import DirectIntake
from otel_progress.monitor.intake.grpc import GrpcIntake
from otel_progress.monitor.intake.rate_limit import RATE
from otel_progress.monitor.intake.requests import Accepted, Envelope
from otel_progress.monitor.outlets.dispatch import Outlets
from otel_progress.monitor.outlets.relay import Relay
from otel_progress.monitor.ports import bound
from otel_progress.monitor.state.core import PRESUME_AFTER, Core
from otel_progress.monitor.state.integrity import Integrity
from otel_progress.monitor.state.store import BYTES as STORE_BYTES
from otel_progress.monitor.state.store import DAYS, Store
from otel_progress.monitor.state.watcher import Watcher
from otel_progress.monitor.uvicorn_server import Server, raise_file_limit
from otel_progress.monitor.web.cancel import Control
from otel_progress.monitor.web.control_notices import ControlNotices
from otel_progress.monitor.web.publish import Publisher
from otel_progress.monitor.web.request_error import error_as_json
from otel_progress.monitor.web.routes import Api
from otel_progress.monitor.web.stream import Hub
from otel_progress.monitor.web.threads import in_thread
from otel_progress.monitor.web.views import Views
from otel_progress.monitor.web.wishes import Wishes
from otel_progress.outbound.loopback import is_loopback
from otel_progress.version import VERSION

if TYPE_CHECKING:
    from otel_progress.outbound.webhook import WebhookOptions
    from otel_progress.settings import Endpoint

PORT: Final = 4318
GRPC_PORT: Final = 4317
INTERVAL: Final = 0.1
QUIET: Final = 2.0
"""Seconds without data from a process that is gone, before its operations are ended; long enough for
`otel-progress run`, which knows more about the process, to do so first.
"""
STOP_SECONDS: Final = 3.0
GARBAGE: Final = 50_000
"""New objects before a garbage collection: requests create many short-lived objects, and no cycles."""
CONTROL_PATH: Final = "/control"


@dataclass(frozen=True)
class Options:
    """The options of a monitor.

    Attributes:
        db: the file that keeps state and history.
        host: the address to listen on.
        port: the port of OTLP over HTTP, the API and the page; 0 for any free one.
        grpc_port: the port of OTLP over gRPC; None for none.
        interval: seconds between two frames of a stream.
        keep_days: how long ended operations are kept.
        keep_bytes: the size limit of the file.
        tokens: the rights of each token.
        hosts: further host names under which browsers may reach the monitor.
        forward: where requests are forwarded to, by signal.
        redis: the Redis that shares state with other monitors.
        webhook: where changes of operations are posted, and how.
        trace_url: the URL of a trace, with `{trace_id}` in it.
        presume_after: seconds without a sign of its process after which an operation counts as lost.
        client_rate: requests per second that one client of another machine may send; 0 for no limit.
        capture_inputs: whether the inputs of tools, which hooks of agents post, are shown.
        redact: what texts of such hooks pass through.
        temporary: whether it ends with a command, as a monitor of `run -f` does.
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
    webhook: WebhookOptions | None = None
    trace_url: str | None = None
    presume_after: float = PRESUME_AFTER
    client_rate: float = RATE
    capture_inputs: bool = False
    redact: Redact = mask_secrets
    temporary: bool = False


class Monitor:
    """All parts of a monitor: `__init__` binds the ports and opens the file, `run` serves until it is stopped."""

    def __init__(self, options: Options, say: Callable[[str], None] = lambda _: None) -> None:
        """Acquire ports and file; nothing is answered yet.

        Raises:
            InvalidArgument: if a port is in use, or anybody could reach the monitor without a token.
            StoreError: if the file cannot be opened.
            MissingDependency: if a package is missing.
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
        self.core = Core(self._store, forwards=options.forward, presume_after=options.presume_after)
        self.core.inbox.limit.rate = options.client_rate
        self.integrity = Integrity(self._store, self.core.faults.found_damage)
        self.relay = Relay(options.forward, self._store, self.core.journal.sent) if options.forward else None
        self.hub = Hub(options.interval, VERSION)
        self.hub.valid = self.auth.is_open
        self.views = Views(self.core, self._store, trace_url=options.trace_url)
        self.control = Control()
        self.views.can_reach = self.control.connected
        self.publisher = Publisher(self.core, self._store, self.views, self.hub, options.interval, self._tell_trouble)
        self.outlets = Outlets(self.core, self.views, options.redis, options.webhook, _origin(options.db))
        self.wishes = Wishes(self.core, self.hub, self.control)
        self.publisher.watched = self.wishes.is_watched
        self._notices = ControlNotices(self.control, self.views, self._say)
        for listener in (self._notices, self.outlets, self.relay):
            if listener is not None:
                self.core.listen(listener)
        watcher = Watcher(self.core.submit, lambda _: None, ledger=self.core.ledger, quiet=QUIET, eager=False)
        watcher.settled = lambda: not self.core.inbox.queue
        self.core.watcher = watcher
        self.core.mistakes.tell = self.core.aside.tell = self._say
        self.core.observer.is_stopped = watcher.is_stopped

    def _open_grpc(self, options: Options) -> Any:
        if options.grpc_port is None:
            return None
        try:
            control = None if self._is_wildcard else f"{self.url}{CONTROL_PATH}"
            headers = self._headers(control)
            return GrpcIntake(self.core.offer, self.auth, options.host, options.grpc_port, headers)
        except InvalidArgument as error:
            self._say(f"{error}; without gRPC: --grpc-port none")
            return None

    @property
    def _is_wildcard(self) -> bool:
        """Whether it listens on all addresses, so that the one by which others reach it is unknown."""
        return self._options.host in ("0.0.0.0", "::", "")  # noqa: S104

    @property
    def host(self) -> str:
        """An address at which this machine can reach it."""
        host = "127.0.0.1" if self._is_wildcard else self._options.host
        return f"[{host}]" if ":" in host else host

    @property
    def url(self) -> str:
        """The URL of the page."""
        return f"http://{self.host}:{self.port}"

    @property
    def grpc_port(self) -> int | None:
        """The port of gRPC, if it is served."""
        return None if self._grpc is None else self._grpc.port

    @property
    def forward(self) -> Mapping[str, Endpoint]:
        """Where requests are forwarded to, by signal."""
        return self._options.forward

    @property
    def path(self) -> Path:
        """The file that keeps state and history."""
        return self._options.db

    def application(self) -> Guard:
        """The ASGI application: OTLP, the API, the page."""
        relay = () if self.relay is None else (self.relay.health,)
        core = self.core
        of_core = (core.mistakes.health, core.clocks.health, core.ledger.health, core.aside.health)
        api = Api(
            self.core,
            self._store,
            self.views,
            self.hub,
            self.publisher,
            self.control,
            self.auth,
            VERSION,
            (self._intake_health, *of_core, self.integrity.health, self.outlets.health, self._lifetime, *relay),
            wishes=self.wishes,
        )
        intake = http.routes(self.take, headers=self._headers(CONTROL_PATH))
        sessions = ClaudeCode(self._options.redact, keep_inputs=self._options.capture_inputs)
        hook = hooks.route(sessions, self.take, self._known)
        wrong: dict[Any, Any] = {HTTPException: error_as_json}
        return Guard(Starlette(routes=[*intake, hook, *api.routes()], exception_handlers=wrong), self.auth)

    def _headers(self, control: str | None) -> http.BySignal:
        """The headers of answers, by signal: the control channel, and that metrics are not kept unless forwarded."""
        offered = {} if control is None else {s.CONTROL_HEADER: control}
        kept = "metrics" in self._options.forward
        return {"logs": offered, "metrics": {} if kept else {s.DISCARDS_HEADER: "metrics"}}

    async def _known(self, operation_id: str) -> Snapshot | None:
        """What is known of an operation."""
        entry = await in_thread(self.core.ledger.find, operation_id)
        return None if entry is None else entry.snapshot

    def _intake_health(self) -> dict[str, Any]:
        slow = bodies().given_up + (0 if self._grpc is None else self._grpc.given_up)
        return {"intake": {**self.core.inbox.statistics(), "too_slow": slow}}

    def _lifetime(self) -> dict[str, Any]:
        return {"temporary": True} if self._options.temporary else {}

    async def take(self, envelope: Envelope) -> Accepted:
        """Accept a request; returns once it is stored."""
        return await acknowledged(self.core.offer, envelope)

    def run(self, *, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until SIGTERM or SIGINT, or until `stop` is called; for a process that does nothing else."""
        gc.set_threshold(GARBAGE, 50, 50)
        raise_file_limit()
        try:
            import uvloop
        except ImportError:
            asyncio.run(self.serve(ready))
        else:
            uvloop.run(self.serve(ready))

    async def serve(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve on this loop."""
        self._notices.loop = asyncio.get_running_loop()
        self._server = Server(self.config(), self._ending, ready)
        self.core.start()
        self.integrity.start()
        self.outlets.start()
        publishing = asyncio.ensure_future(self.publisher.run())
        wishing = asyncio.ensure_future(self.wishes.run())
        try:
            if self._grpc is not None:
                self._grpc.start()
            await self._server.serve(sockets=[self._socket])
        finally:
            publishing.cancel()
            wishing.cancel()
            await asyncio.get_running_loop().run_in_executor(None, self.close)

    def stop(self) -> None:
        """Stop; any thread may call it."""
        self._server.should_exit = True

    def close(self) -> None:
        """Release everything; may be called twice."""
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

    def config(self) -> uvicorn.Config:
        """The configuration of its server."""
        self.direct = DirectIntake(
            self.core.offer,
            self.auth.may_send,
            headers=(*SAFE_HEADERS, NO_STORE),
            more=self._headers(CONTROL_PATH),
        )
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
            http=self.direct.protocol(),
            loop="none",
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=2,
            backlog=2048,
        )

    def _tell_trouble(self, trouble: str | None) -> None:
        self._say("the trouble is over" if trouble is None else f"trouble: {trouble}")


def _origin(db: Path) -> str:
    """The name of this monitor among others; it survives a restart."""
    return hashlib.sha256(f"{socket.gethostname()} {db.resolve()}".encode()).hexdigest()[:16]
