"""Tokens and sessions, and a guard against foreign web pages in a browser.

On loopback without tokens everybody on this machine may read and cancel; web pages may not, as `Host`, `Origin` and
`Sec-Fetch-Site` are checked. With tokens, each request needs one in `Authorization: Bearer …`; a browser has a session
cookie instead, opened with a token or a link that works once.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import takewhile
from pathlib import Path
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from otel_progress import files
from otel_progress.errors import InvalidArgument
from otel_progress.monitor.sessions import (
    LINK_SECONDS,
    SESSION_SECONDS,
    SESSIONS,
    SESSIONS_A_TOKEN,
    Secrets,
)
from otel_progress.outbound.loopback import is_loopback
from otel_progress.outbound.trouble import MISDIRECTED

SEND, READ, CONTROL = "send", "read", "control"
RIGHTS: Final = frozenset({SEND, READ, CONTROL})
TOKEN_LENGTH: Final = 16
CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
SAFE_HEADERS: Final = (
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
NO_STORE: Final = (b"cache-control", b"no-store")
_FREE: Final = frozenset({"/", "/session", "/health", "/api"})
WATCHING: Final = "/watching"
"""The path at which a screen says what it shows; that needs no more than the right to read."""
_PAGE: Final = ("/static/", "/login/")
"""Besides `/`, the paths that need no token and may be reached by a link from another site; they hold no data."""
BROWSER: Final = ("origin", "sec-fetch-site")
"""Headers that only browsers send, `Origin` with every POST. `fetch` of Node.js sends `Sec-Fetch-Mode`, too."""
_FOREIGN: Final = "requests from other web pages are not accepted"


@dataclass(frozen=True)
class Identity:
    """The rights of a token; with an owner, only for the operations of that owner."""

    rights: frozenset[str] = RIGHTS
    owner: str | None = None

    def may_see(self, owner: str | None) -> bool:
        """Whether the operations of this owner may be seen."""
        return self.owner is None or self.owner == owner


ANYBODY: Final = Identity()


class Auth:
    """The tokens, and the sessions opened with them."""

    def __init__(
        self,
        tokens: Mapping[str, Identity],
        *,
        port: int,
        hosts: Iterable[str] = (),
        loopback: bool,
        sessions: int = SESSIONS,
        sessions_each: int = SESSIONS_A_TOKEN,
    ) -> None:
        """Without tokens, everybody on this machine may do everything.

        Args:
            tokens: the rights of each token.
            port: the port of the monitor; it is part of the cookie's name, as all ports of a host share cookies.
            hosts: further host names under which browsers may reach the monitor.
            loopback: whether it listens on loopback only.
            sessions: the most sessions.
            sessions_each: the most sessions of one token, and the most login links.

        Raises:
            InvalidArgument: if anybody could reach the monitor without a token.
        """
        if not tokens and not loopback:
            raise InvalidArgument(
                "a monitor that others can reach needs a token: put one into a file and name it with --token-file"
            )
        self._tokens = {sha256(token.encode()).digest(): identity for token, identity in tokens.items()}
        self.cookie: Final = f"otel-progress-{port}"
        self._hosts = None if tokens and not loopback and not hosts else frozenset(map(str.lower, hosts))
        self._sessions: Secrets[Identity] = Secrets(SESSION_SECONDS, sessions, sessions_each)
        self._links: Secrets[Identity] = Secrets(LINK_SECONDS, sessions_each, sessions_each)
        self.denied = 0
        """Requests with an unknown token."""

    @property
    def needs_token(self) -> bool:
        """Whether requests need a token."""
        return bool(self._tokens)

    def by_token(self, token: str) -> Identity | None:
        """The identity of a token; compared in constant time."""
        found, given = None, _digest(token)
        for known, identity in self._tokens.items():
            if hmac.compare_digest(known, given):
                found = identity
        self.denied += found is None
        return found

    def log_in(self, token: str) -> tuple[str, Identity] | None:
        """Open a session with a token; returns it with the identity, or None if the token is unknown."""
        identity = self.by_token(token) if self._tokens else ANYBODY
        return None if identity is None else (self.open(identity, _digest(token) if self._tokens else b""), identity)

    def link(self, identity: Identity = ANYBODY) -> str:
        """A path that opens a session once, within five minutes."""
        return f"/login/{self._links.make(identity)}"

    def redeem(self, ticket: str) -> str | None:
        """The session that a link opens; None if the link is used or expired."""
        identity = self._links.pop(ticket)
        self.denied += identity is None
        return None if identity is None else self.open(identity)

    def open(self, identity: Identity, holder: bytes = b"") -> str:
        """Open a session for the holder of a token; without the right to send, which browsers do not need."""
        return self._sessions.make(Identity(identity.rights - {SEND}, identity.owner), holder)

    def close(self, session: str) -> None:
        """End a session."""
        self._sessions.pop(session)

    def is_open(self, session: str) -> bool:
        """Whether a session is open."""
        return self._sessions.get(session) is not None

    def session_of(self, headers: Headers) -> str:
        """The session in the cookie of a request, or an empty string."""
        for part in headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == self.cookie:
                return value
        return ""

    def who(self, headers: Headers) -> Identity | None:
        """The identity of the sender of a request; None if a token is needed and missing."""
        if not self._tokens:
            return ANYBODY
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.by_token(token.strip())
        return self._sessions.get(self.session_of(headers))

    def may_send(self, path: str, headers: Headers) -> bool:
        """Whether the sender of a request may send to this path; a refusal is not counted, as nothing is answered."""
        if self.refuse(path, headers) is not None:
            return False
        denied, identity = self.denied, self.who(headers)
        self.denied = denied
        return identity is not None and SEND in identity.rights

    def session_behind(self, headers: Headers) -> str | None:
        """The session by which a request came in; None if it used a token."""
        scheme = headers.get("authorization", "").partition(" ")[0]
        return self.session_of(headers) if self._tokens and scheme.lower() != "bearer" else None

    def refuse(self, path: str, headers: Headers) -> tuple[int, str] | None:
        """Why a request is refused by its origin, as a status and words; None if it is allowed."""
        hosts = headers.getlist("host")
        host = hosts[0].lower() if len(hosts) == 1 else ""
        if self._hosts is not None and not self._is_us(host):
            return MISDIRECTED, f"the monitor is not known as {host[:100]!r}; allow the name with --allowed-host"
        why = self._why_not(path, headers)
        return None if why is None else (403, why)

    @staticmethod
    def _why_not(path: str, headers: Headers) -> str | None:
        if _is_for_programs(path) and any(name in headers for name in BROWSER):
            return "requests from web pages are not accepted here"
        is_page = path == "/" or path.startswith(_PAGE)
        return _FOREIGN if is_foreign(headers, may_navigate=is_page) else None

    def _is_us(self, host: str) -> bool:
        """Whether a Host header names this monitor, rather than a name that somebody else could point to it."""
        name = name_of(host)
        return is_loopback(name) or (self._hosts is not None and name in self._hosts)


def name_of(host: str) -> str:
    """The name in a Host header, without the port."""
    return host if host.endswith("]") or ":" not in host else host.rpartition(":")[0]


def is_foreign(headers: Headers, *, may_navigate: bool = False) -> bool:
    """Whether a page of another origin sends a request; `may_navigate` allows links from other sites.

    The page may be served over http or, behind a proxy, over https; one host and port cannot be both.
    """
    hosts, origins = headers.getlist("host"), headers.getlist("origin")
    host = hosts[0].lower() if len(hosts) == 1 else ""
    if origins and (not host or len(origins) > 1 or origins[0].lower() not in (f"http://{host}", f"https://{host}")):
        return True
    if headers.get("sec-fetch-site", "none") in ("same-origin", "none"):
        return False
    return not (may_navigate and headers.get("sec-fetch-mode") == "navigate")


class Guard:
    """ASGI middleware that admits requests, and puts the sender into `scope["identity"]`."""

    def __init__(self, app: ASGIApp, auth: Auth) -> None:
        """Guard an application."""
        self._app = app
        self._auth = auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers, raw = Headers(scope=scope), scope.get("raw_path")
        path = raw.partition(b"?")[0].decode("latin-1") if raw else scope["path"]
        scope = {**scope, "path": path}  # not decoded: an id is one path segment, whatever it contains
        safe = safely(send, scope)
        refused = self._auth.refuse(path, headers)
        if refused is not None:
            if not _is_probe(path, scope, refused[0]):
                await deny(*refused, scope, receive, safe)
                return
            scope["identity"] = scope["session"] = None  # a probe hears only whether the monitor is well
            await self._app(scope, receive, safe)
            return
        identity = self._auth.who(headers)
        if identity is None and not _is_free(path, scope):
            await deny(401, "a token is needed: send it as `Authorization: Bearer TOKEN`", scope, receive, safe)
            return
        needed = _right(scope["type"], scope.get("method", "GET"), path)
        if identity is not None and needed is not None and needed not in identity.rights:
            await deny(403, f"this token has no right to {needed}", scope, receive, safe)
            return
        scope["identity"] = identity
        scope["session"] = self._auth.session_behind(headers) if identity is not None else None
        await self._app(scope, receive, safe)


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "replace")).digest()


def _is_free(path: str, scope: Scope) -> bool:
    """Whether a path needs no token: the page, which holds no data, what opens a session, and `/health`."""
    if scope["type"] != "http":
        return False
    return path in _FREE or path.startswith(_PAGE)


def _is_probe(path: str, scope: Scope, status: int) -> bool:
    """Whether this asks for nothing but `/health`, by another name than ours, as Kubernetes and load balancers do."""
    return (
        status == MISDIRECTED and path == "/health" and scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
    )


def _is_for_programs(path: str) -> bool:
    return path.startswith(("/v1/", "/hooks/")) or path == "/control"


def _right(kind: str, method: str, path: str) -> str | None:
    if _is_for_programs(path):
        return SEND
    if kind == "http" and (path in _FREE or path.startswith(_PAGE)):
        return None
    return READ if kind == "websocket" or method in ("GET", "HEAD") or path == WATCHING else CONTROL


def safely(send: Send, scope: Scope) -> Send:
    """Security headers that limit what browsers do with a response."""

    async def safe(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            has = {name.lower() for name, _ in message["headers"]}
            more = [pair for pair in SAFE_HEADERS if pair[0] not in has]
            if b"cache-control" not in has and not scope["path"].startswith("/static/"):
                more.append(NO_STORE)
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return safe


async def deny(status: int, why: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a request, or a WebSocket."""
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    await refuse(JSONResponse({"error": why}, status, headers), scope, receive, send)


async def refuse(answer: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a refusal; on a server that knows no refusals of WebSockets the WebSocket is closed."""
    if scope["type"] != "websocket":
        await answer(scope, receive, send)
    elif "websocket.http.response" in scope.get("extensions", {}):
        await WebSocket(scope, receive, send).send_denial_response(answer)
    else:
        await WebSocket(scope, receive, send).close(1008)


def read_tokens(path: Path) -> dict[str, Identity]:
    """Read a file of tokens, one per line, optionally with `rights=read,control,send` and `owner=NAME`.

    `#` starts a comment.

    A token limited to an owner may send only if its line says so, as senders name the owner of an operation.

    Raises:
        InvalidArgument: if the file cannot be read, is not private, or is invalid; a token is never shown.
    """
    try:
        lines = files.read_private(path, secret=True).decode("utf-8-sig").splitlines()
    except files.Unsafe as error:
        raise InvalidArgument(f"the token file {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InvalidArgument(f"the token file {path} can't be read: {why}") from None
    found: dict[str, Identity] = {}
    for number, line in enumerate(lines, 1):
        words = list(takewhile(lambda word: not word.startswith("#"), line.split()))
        if words:
            where = f"{path}, line {number}"
            found[checked(words[0], where)] = _identity(words[1:], where)
    if not found:
        raise InvalidArgument(f"the token file {path} holds no token")
    return found


def _identity(options: Iterable[str], where: str) -> Identity:
    rights: frozenset[str] | None = None
    owner = None
    for option in options:
        key, _, value = option.partition("=")
        if key == "rights" and value and set(value.split(",")) <= RIGHTS:
            rights = frozenset(value.split(","))
        elif key == "owner" and value:
            owner = value
        else:  # not shown, as it may be part of a token
            raise InvalidArgument(
                f"{where}: invalid options behind the token; a line is a token, optionally followed by "
                "rights=read,control,send and owner=NAME"
            )
    if rights is None:
        rights = RIGHTS if owner is None else RIGHTS - {SEND}
    return Identity(rights, owner)


def checked(token: str, where: str) -> str:
    """Check that a token is long enough and fits into a header.

    Raises:
        InvalidArgument: if not.
    """
    if len(token) < TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidArgument(
            f"{where}: a token has {TOKEN_LENGTH} ASCII characters at least, and no spaces; make one with: "
            'python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return token
