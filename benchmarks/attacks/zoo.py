"""Bad receivers on real sockets: each accepts connections in a thread and does one thing wrong.

    with Bad(KINDS["drips the head"], drip=0.1) as bad:
        ...             # send to bad.url
        bad.mend()      # from now on an honest OTLP receiver on the same port
        bad.bodies      # the requests accepted since then

A `Witness` stands where nothing may be sent; it records who connects.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime as dt
import functools
import gzip
import ipaddress
import random
import socket
import ssl
import struct
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from typing_extensions import ParamSpec

if TYPE_CHECKING:
    from typing_extensions import Self

KEPT, REFUSED, TAKEN = "kept", "refused", "taken"
"""What a sender does with state changes: keep them, drop and count them, or have them delivered."""
LATE: Final = 30.0
CHUNK: Final = 4096
SILENT_CLOSE: Final = struct.pack("ii", 1, 0)
SETTINGS: Final = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""The empty SETTINGS frame with which an HTTP/2 server begins."""
OK: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\n"


class Request(NamedTuple):
    """A received request."""

    path: str
    headers: dict[str, str]
    body: bytes


def read_request(conn: socket.socket) -> Request | None:
    """Return the next request of a connection, or None at its end."""
    head = b""
    while b"\r\n\r\n" not in head:
        more = conn.recv(65536)
        if not more:
            return None
        head += more
    top, _, body = head.partition(b"\r\n\r\n")
    first, *lines = top.decode("latin-1").split("\r\n")
    headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    wanted = int(headers.get("content-length", "0"))
    while len(body) < wanted:
        more = conn.recv(65536)
        if not more:
            return None
        body += more
    if headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    return Request(first.split()[1], headers, body)


Talk = Callable[["Bad", socket.socket], None]


@dataclass(frozen=True)
class Kind:
    """One kind of bad receiver.

    Attributes:
        name: what it does.
        talk: misbehaves on a connection.
        fate: what happens to state changes that are sent to it.
        client: `https` if senders use TLS.
        tls: its certificate: `good`, `self-signed`, `expired`; empty for plain text.
        accepts: False if it never accepts a connection.
        http: whether it speaks HTTP/1; those that do not are tried against gRPC, too.
    """

    name: str
    talk: Talk
    fate: str = KEPT
    client: str = "http"
    tls: str = ""
    accepts: bool = True
    http: bool = True


class Bad:
    """A bad receiver on a port of 127.0.0.1, until it is mended or closed."""

    def __init__(self, kind: Kind, *, drip: float = 0.5, paths: str = "", other: str = "http://127.0.0.1:1") -> None:
        """Listen.

        Args:
            kind: what it does wrong.
            drip: seconds between two bytes of a slow transfer.
            paths: prefixes of paths on which it is bad; it is honest elsewhere.
            other: the address of another host to which it points.
        """
        self.kind, self.drip, self.paths, self.other = kind, drip, paths, other
        self.connections = 0
        self.bodies: list[Request] = []
        self.honest = False
        self.closed = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._fillers: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0), backlog=0 if not kind.accepts else 128)
        self.port: int = self._server.getsockname()[1]
        self.url = f"{kind.client}://localhost:{self.port}".replace("localhost", "127.0.0.1")
        self._grpc: Any = None
        if kind.accepts:
            self._accept()
        else:
            self._fill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        threading.Thread(target=self._serve, args=(self._server,), name=f"zoo-{self.kind.name}", daemon=True).start()

    def _fill(self) -> None:
        """Fill the backlog of connections."""
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(("127.0.0.1", self.port))
            self._fillers.append(filler)

    def _serve(self, server: socket.socket) -> None:
        while not self.closed.is_set():
            try:
                conn, _ = server.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._open.add(conn)
            threading.Thread(target=self._handle, args=(conn,), name="zoo-connection", daemon=True).start()

    def _handle(self, conn: socket.socket) -> None:
        kind = self.kind
        try:
            if self.honest:
                self._take(conn)
            elif kind.tls:
                with _context(kind.tls).wrap_socket(conn, server_side=True) as wrapped:
                    kind.talk(self, wrapped)
            else:
                kind.talk(self, conn)
        except (OSError, ValueError):
            pass
        finally:
            with self._lock:
                self._open.discard(conn)
            conn.close()

    def _take(self, conn: socket.socket) -> None:
        """Accept a request like an honest receiver, with TLS if senders use it."""
        stream = conn
        if self.kind.client == "https":
            stream = _context("good").wrap_socket(conn, server_side=True)
        with stream:
            while (request := read_request(stream)) is not None:
                self.bodies.append(request)
                stream.sendall(OK + b"Content-Length: 0\r\n\r\n")

    def take(self, conn: socket.socket) -> Request | None:
        """Read the next request for a bad path; requests for other paths are answered honestly."""
        while (request := read_request(conn)) is not None:
            if request.path.startswith(self.paths):
                return request
            self.bodies.append(request)
            conn.sendall(OK + f"Otel-Progress-Control: {self.paths}\r\nContent-Length: 0\r\n\r\n".encode())
        return None

    def drops(self, conn: socket.socket, text: bytes, *, fast: bool = False) -> None:
        """Send this repeatedly, byte by byte (or whole, if `fast`), until the other side closes."""
        while not self.closed.is_set():
            for piece in [text * 64] if fast else [text[at : at + 1] for at in range(len(text))]:
                conn.sendall(piece)
                if not fast and self.closed.wait(self.drip):
                    return

    def mend(self, *, grpc: bool = False) -> None:
        """Be an honest receiver on the same port from now on."""
        self.honest = not grpc
        for filler in self._fillers:
            filler.close()
        if grpc:
            self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()
            self._let_go()
            self._grpc = honest_grpc(self)
            return
        self._let_go()
        if not self.kind.accepts:
            self._accept()

    def _let_go(self) -> None:
        with self._lock:
            for conn in self._open:
                with contextlib.suppress(OSError):
                    conn.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening, and cut all connections."""
        self.closed.set()
        for one in (*self._fillers, self._server):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._let_go()
        if self._grpc is not None:
            self._grpc.stop(None)


class Witness:
    """A port that must receive no connection; it records what arrives."""

    def __init__(self) -> None:
        """Listen."""
        self.heard: list[bytes] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._serve, name="zoo-witness", daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                conn, _ = self._server.accept()
                with conn:
                    conn.settimeout(1.0)
                    self.heard.append(conn.recv(65536))
            except OSError:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


# -- what is made once

P = ParamSpec("P")
T = TypeVar("T")
_making = threading.RLock()


def once(make: Callable[P, T]) -> Callable[P, T]:
    """Cache the result, even if several threads call at the same time."""
    kept = functools.cache(make)

    @functools.wraps(make)
    def get(*args: P.args, **kwargs: P.kwargs) -> T:
        with _making:
            return kept(*args, **kwargs)

    return get


@once
def authority() -> trustme.CA:
    """Return the authority that signs the good certificates."""
    return trustme.CA()


@once
def folder() -> Path:
    """Return the folder of the certificates of this process."""
    made = tempfile.TemporaryDirectory(prefix="zoo-")
    atexit.register(made.cleanup)
    return Path(made.name)


def trusted() -> str:
    """Return the file with the authority that senders trust."""
    path = folder() / "authority.pem"
    if not path.exists():
        authority().cert_pem.write_to_path(str(path))
    return str(path)


@once
def _context(which: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2", "http/1.1"])
    if which == "self-signed":
        context.load_cert_chain(_self_signed())
        return context
    past = dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc)
    given = {"not_before": past, "not_after": past + dt.timedelta(days=1)} if which == "expired" else {}
    authority().issue_cert("127.0.0.1", "localhost", **given).configure_cert(context)
    return context


def _self_signed() -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.timezone.utc)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now)
    made = made.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
    signed = made.add_extension(names, critical=False).sign(key, hashes.SHA256())
    path = folder() / "self-signed.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    path.write_bytes(secret + signed.public_bytes(serialization.Encoding.PEM))
    return path


# -- what they do


def _reset(conn: socket.socket) -> None:
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, SILENT_CLOSE)
    conn.close()


def late(bad: Bad, conn: socket.socket) -> None:
    while bad.take(conn) and not bad.closed.wait(LATE):
        conn.sendall(OK + b"Content-Length: 0\r\n\r\n")


def silent(bad: Bad, conn: socket.socket) -> None:
    while conn.recv(CHUNK):
        pass
    bad.closed.wait(LATE)


def resets(_: Bad, conn: socket.socket) -> None:
    _reset(conn)


def resets_later(bad: Bad, conn: socket.socket) -> None:
    if bad.take(conn):
        conn.sendall(OK + b"Content-Length: 100\r\n\r\nhalf")
        _reset(conn)


def garbage(_: Bad, conn: socket.socket) -> None:
    conn.recv(CHUNK)
    conn.sendall(random.Random(7).randbytes(5000))


def _once(answer: bytes) -> Talk:
    def talk(bad: Bad, conn: socket.socket) -> None:
        while bad.take(conn):
            conn.sendall(answer)

    return talk


def _then(head: bytes, text: bytes, *, fast: bool = False) -> Talk:
    """Answer a request with a head, and then with this endlessly."""

    def talk(bad: Bad, conn: socket.socket) -> None:
        if bad.take(conn):
            conn.sendall(head)
            bad.drops(conn, text, fast=fast)

    return talk


def _status(line: str, *headers: str, body: bytes = b"") -> Talk:
    head = "\r\n".join([f"HTTP/1.1 {line}", *headers, f"Content-Length: {len(body)}", "", ""])
    return _once(head.encode() + body)


def _points(status: str, header: str, path: str, *, other: bool) -> Talk:
    def talk(bad: Bad, conn: socket.socket) -> None:
        while (request := bad.take(conn)) is not None:
            target = bad.other + path if other else request.path
            conn.sendall(f"HTTP/1.1 {status}\r\n{header}: {target}\r\nContent-Length: 0\r\n\r\n".encode())

    return talk


def old(bad: Bad, conn: socket.socket) -> None:
    if bad.take(conn):
        conn.sendall(b"<html>this is a page of 1991</html>")


def before_1997(bad: Bad, conn: socket.socket) -> None:
    if bad.take(conn):
        conn.sendall(b"HTTP/1.0 200 OK\r\n\r\n")


def bomb(bad: Bad, conn: socket.socket) -> None:
    body = _bomb()
    while bad.take(conn):
        conn.sendall(OK + f"Content-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


@once
def _bomb() -> bytes:
    """Return a gigabyte of zeros, compressed twice."""
    inner = gzip.compress(bytes(32 * 1024 * 1024), 9)
    return b"".join([inner] * 32)


def handshake(bad: Bad, conn: socket.socket) -> None:
    """Send the head of a handshake record that announces 16 KiB, then zeros, one at a time."""
    conn.recv(CHUNK)
    conn.sendall(b"\x16\x03\x03\x40\x00")
    bad.drops(conn, b"\x00")


def http_2(text: bytes, *, fast: bool = False) -> Talk:
    """Begin as an HTTP/2 server, and then send this endlessly."""

    def talk(bad: Bad, conn: socket.socket) -> None:
        conn.recv(CHUNK)
        conn.sendall(SETTINGS)
        bad.drops(conn, text, fast=fast)

    return talk


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def goes_away(bad: Bad, conn: socket.socket) -> None:
    conn.recv(CHUNK)
    conn.sendall(SETTINGS + _frame(7, 0, 0, bytes(8)))
    bad.closed.wait(0.05)


def cuts_streams(_: Bad, conn: socket.socket) -> None:
    conn.recv(CHUNK)
    conn.sendall(SETTINGS + _frame(4, 1, 0))
    for stream in range(1, 1000, 2):
        if not conn.recv(CHUNK):
            return
        conn.sendall(_frame(3, 0, stream, (2).to_bytes(4, "big")))


def head_without_end(bad: Bad, conn: socket.socket) -> None:
    conn.recv(CHUNK)
    conn.sendall(SETTINGS + _frame(4, 1, 0))
    conn.recv(CHUNK)
    conn.sendall(_frame(1, 0, 1, b"\x88"))
    bad.drops(conn, _frame(9, 0, 1, b"\x00\x01a\x01b" * 100), fast=True)


PAGE: Final = b"<!DOCTYPE html><html><body>Please log in</body></html>"
_SOME: Final = [
    Kind("answers after 30 s", late),
    Kind("accepts and says nothing", silent, http=False),
    Kind("never accepts", silent, accepts=False, http=False),
    Kind("resets at once", resets, http=False),
    Kind("resets in the middle", resets_later),
    Kind("garbage", garbage, http=False),
    Kind("413", _status("413 Content Too Large"), REFUSED),
    Kind("429 for an hour", _status("429 Too Many Requests", "Retry-After: 3600")),
    Kind("503 for ever", _status("503 Service Unavailable")),
    Kind("redirects to itself", _points("307 Temporary Redirect", "Location", "", other=False)),
    Kind("redirects to another host", _points("308 Permanent Redirect", "Location", "/v1/logs", other=True)),
    Kind("a self-signed certificate", _status("200 OK"), client="https", tls="self-signed"),
    Kind("an expired certificate", _status("200 OK"), client="https", tls="expired"),
    Kind("plain text where TLS is due", _status("200 OK"), client="https"),
    Kind("TLS where plain text is due", _status("200 OK"), tls="good"),
    Kind("a TLS handshake that drips", handshake, client="https", http=False),
    Kind("HTTP/1.0", before_1997, TAKEN),
    Kind("HTTP/0.9", old),
    Kind("chunks without end", _then(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n")),
    Kind("chunks without end, fast", _then(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", fast=True)),
    Kind("a chunk's size without end", _then(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0", fast=True)),
    Kind("trailers without end", _then(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n", fast=True)),
    Kind("a length that is too long", _then(OK + b"Content-Length: 5000\r\n\r\n", b"x")),
    Kind("a length that is too short", _once(OK + b"Content-Length: 2\r\n\r\n" + b"x" * 5000), TAKEN),
    Kind("a body without end", _then(OK + b"\r\n", b"x", fast=True)),
    Kind("drips the head", _then(b"", b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 4096)),
    Kind("drips the body", _then(OK + b"Content-Length: 4096\r\n\r\n", b"x")),
    Kind("drips the body, TLS", _then(OK + b"Content-Length: 4096\r\n\r\n", b"x"), client="https", tls="good"),
    Kind("100 Continue without end", _then(b"", b"HTTP/1.1 100 Continue\r\n\r\n", fast=True)),
    Kind("100 Continue that drips", _then(b"", b"HTTP/1.1 100 Continue\r\n\r\n")),
    Kind("headers without end", _then(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n", fast=True)),
    Kind("a header without end", _then(b"HTTP/1.1 200 OK\r\nX: ", b"x", fast=True)),
    Kind("a gzip bomb", bomb),
    Kind("another host's control channel", _points("200 OK", "Otel-Progress-Control", "/control", other=True), TAKEN),
    Kind("a web page", _status("200 OK", "Content-Type: text/html", body=PAGE)),
]
KINDS: Final = {kind.name: kind for kind in _SOME}
"""Bad receivers for HTTP/1 senders."""
_OF_GRPC: Final = [
    *(kind for kind in _SOME if not kind.http),
    Kind("HTTP/1 in place of HTTP/2", _status("200 OK")),
    Kind("a web page", _status("200 OK", "Content-Type: text/html", body=PAGE)),
    Kind("a self-signed certificate", silent, client="https", tls="self-signed"),
    Kind("plain text where TLS is due", silent, client="https"),
    Kind("HTTP/2 that never answers", http_2(b"")),
    Kind("HTTP/2 that drips", http_2(_frame(6, 0, 0, bytes(8)))),
    Kind("pings without end", http_2(_frame(6, 0, 0, bytes(8)), fast=True)),
    Kind("settings without end", http_2(SETTINGS, fast=True)),
    Kind("goes away at once", goes_away),
    Kind("cuts each stream off", cuts_streams),
    Kind("metadata without end", head_without_end),
]
KINDS_OF_GRPC: Final = {kind.name: kind for kind in _OF_GRPC}
"""Bad receivers for gRPC senders; `grpc_server` makes those that answer in gRPC itself."""


# -- gRPC


def grpc_server(answer: Callable[[bytes, Any], bytes], address: str = "127.0.0.1:0", *, tls: bool = False) -> Any:
    """Start a gRPC server that answers each call like this; return it and its port."""
    import grpc

    class Every(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            def handle(body: bytes, context: Any) -> bytes:
                return answer(details.method.encode() + b"\n" + body, context)

            return grpc.unary_unary_rpc_method_handler(handle)

    server = grpc.server(ThreadPoolExecutor(4), handlers=[Every()])
    if tls:
        made = authority().issue_cert("127.0.0.1", "localhost")
        pair = (made.private_key_pem.bytes(), b"".join(part.bytes() for part in made.cert_chain_pems))
        port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    else:
        port = server.add_insecure_port(address)
    server.start()
    return server, port


def honest_grpc(bad: Bad) -> Any:
    """Replace a bad receiver by an honest gRPC server."""

    def take(request: bytes, _: Any) -> bytes:
        method, _, body = request.partition(b"\n")
        bad.bodies.append(Request(method.decode(), {}, body))
        return b""

    return grpc_server(take, f"127.0.0.1:{bad.port}", tls=bad.kind.client == "https")[0]
