"""One deadline and one size for a whole exchange, whatever the other side sends, and how slowly."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from benchmarks.attacks.zoo import KINDS, OK, Bad, Kind, read_request, trusted

from otel_progress.outbound import deadline
from otel_progress.outbound.deadline import Plain, Tls, TooMuch, seconds_of, within
from otel_progress.outbound.session import Session

SECONDS = 0.3
DRIP = 0.05
HELD = 5.0
"""Far more than the deadline, far less than a drip lasts."""


@contextlib.contextmanager
def timed() -> Iterator[None]:
    """The block ends long before the other side has sent everything."""
    ended = threading.Event()
    late: list[bool] = []
    watch = threading.Thread(target=lambda: late.append(not ended.wait(HELD)))
    watch.start()
    yield
    ended.set()
    watch.join()
    assert late == [False], "it was held"


DRIPS = [name for name in KINDS if "drips" in name or "without end" in name]


@pytest.mark.parametrize("name", DRIPS)
def test_no_drip_holds_a_session(name: str) -> None:
    """A request of a session ends at its deadline or size limit, however slowly or endlessly the other side sends."""
    with Bad(KINDS[name], drip=DRIP) as bad, Session() as session, timed():
        verify = trusted() if bad.kind.client == "https" else None
        with pytest.raises(requests.RequestException):
            session.ask("POST", f"{bad.url}/v1/logs", SECONDS, 65_536, data=b"x", verify=verify)


@pytest.mark.parametrize("name", ["drips the head", "drips the body", "100 Continue that drips"])
def test_the_end_of_the_time_is_a_timeout(name: str) -> None:
    """A slow answer is reported as a timeout, even in the middle of a body."""
    with Bad(KINDS[name], drip=DRIP) as bad, Session() as session, pytest.raises(requests.Timeout):
        session.ask("GET", bad.url, SECONDS, 65_536)


@pytest.mark.parametrize(
    "name", ["drips the head", "drips the body", "drips the body, TLS", "a TLS handshake that drips"]
)
def test_no_drip_holds_a_connection_of_http_client(name: str) -> None:
    """Connections of http.client obey the deadline of their thread, in the handshake, the head and the body."""
    with Bad(KINDS[name], drip=DRIP) as bad, timed(), within(SECONDS):
        context = ssl.create_default_context(cafile=trusted())
        made = Tls("127.0.0.1", bad.port, context=context) if bad.kind.client == "https" else None
        with contextlib.closing(made or Plain("127.0.0.1", bad.port)) as connection, pytest.raises(TimeoutError):
            connection.request("GET", "/")
            connection.getresponse().read()


def never_reads(bad: Bad, conn: socket.socket) -> None:
    """Read a byte now and then."""
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    while conn.recv(1) and not bad.closed.wait(DRIP):
        pass


@pytest.mark.parametrize("tls", [False, True])
def test_a_receiver_that_hardly_reads_holds_no_sender(tls: bool) -> None:
    """The deadline applies to sending, too."""
    kind = Kind("hardly reads", never_reads, client="https" if tls else "http", tls="good" if tls else "")
    with Bad(kind) as bad, Session() as session, timed(), pytest.raises(requests.RequestException):
        session.ask("POST", bad.url, SECONDS, 100, data=bytes(32 * 1024 * 1024), verify=trusted() if tls else None)


def test_a_proxy_that_drips_holds_no_sender() -> None:
    """The answer of a proxy to CONNECT is a part of the exchange."""
    with Bad(KINDS["drips the head"], drip=DRIP) as bad, Session() as session, timed():
        with pytest.raises(requests.RequestException):
            session.ask("POST", "https://far.invalid/v1/logs", SECONDS, 100, data=b"x", proxies={"https": bad.url})


def test_interim_answers_without_end_are_cut_off_by_their_size() -> None:
    """Endless `100 Continue` ends after 64 KiB, long before the time is over: it must not keep a core busy."""
    with Bad(KINDS["100 Continue without end"]) as bad, within(HELD * 10):
        with contextlib.closing(Plain("127.0.0.1", bad.port)) as connection, pytest.raises(TooMuch):
            connection.request("GET", "/")
            connection.getresponse()


def test_a_packed_answer_is_not_unpacked() -> None:
    """A compressed answer is never decompressed: a large one is refused, a small one is returned as received."""
    with Bad(KINDS["a gzip bomb"]) as bad, Session() as session:
        with pytest.raises(requests.RequestException, match="too large"):
            session.ask("GET", bad.url, HELD, 65_536)
        reply = session.ask("GET", bad.url, HELD * 10, 4_000_000)
        assert (reply.headers["Content-Encoding"], reply.body[:2]) == ("gzip", b"\x1f\x8b")
        assert len(reply.body) < 2_000_000


def test_cookies_are_not_kept() -> None:
    """Cookies of a receiver are not kept, so requests do not grow."""
    seen: list[str | None] = []

    def sets(_: Bad, conn: socket.socket) -> None:
        while (request := read_request(conn)) is not None:
            seen.append(request.headers.get("cookie"))
            conn.sendall(OK + f"Set-Cookie: a{len(seen)}=b\r\nContent-Length: 0\r\n\r\n".encode())

    with Bad(Kind("sets cookies", sets)) as bad, Session() as session:
        for _ in range(3):
            session.ask("GET", bad.url, HELD, 100)
        assert (seen, len(session.cookies)) == ([None] * 3, 0)


def test_limits_end_with_their_block_and_can_be_nested() -> None:
    """After a nested limit the outer one applies again, and after that none."""
    with within(100.0, 5):
        with within(0.0), pytest.raises(TimeoutError):
            deadline._here.limit.left()  # type: ignore[union-attr]
        assert deadline._here.limit is not None
        assert deadline._here.limit.left() > 1
        with pytest.raises(TooMuch):
            deadline._here.limit.take(6)
    assert deadline._here.limit is None


def test_a_connection_goes_on_with_its_own_timeout_afterwards() -> None:
    """Reads after the block, as of a stream, use the timeout of the connection."""

    def streams(_: Bad, conn: socket.socket) -> None:
        if read_request(conn):
            conn.sendall(OK + b"\r\nfirst")
            while conn.recv(1):
                pass

    with Bad(Kind("streams", streams)) as bad:
        connection = Plain("127.0.0.1", bad.port, timeout=47.0)
        with contextlib.closing(connection):
            with within(HELD):
                connection.request("GET", "/")
                sock = connection.sock
                answer = connection.getresponse()
            with answer:
                assert answer.read1(5) == b"first"
                assert sock is not None
                assert sock.gettimeout() == 47.0


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("3600", 3600.0),
        (" 0 ", 0.0),
        ("9" * 400, 9_999_999_999.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("-1", None),
        ("nan", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after(given: str, seconds: float | None) -> None:
    """`Retry-After` is a number of seconds or a date; anything else is ignored."""
    assert seconds_of(given, 10.0) == seconds


class KeepsOpen(BaseHTTPRequestHandler):
    """Answers each request of a connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    """The address of a server that keeps connections open."""
    with ThreadingHTTPServer(("127.0.0.1", 0), KeepsOpen) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_connection_that_the_program_closed_is_let_go(address: str) -> None:
    """After `os.closerange`, as of a daemon, its number may be a file of the program: nothing is sent there, or closed."""
    mine, other = socket.socketpair()
    with mine, other, Session() as session:
        assert session.ask("GET", address, HELD, 1024).status == 200
        (pool,) = session.get_adapter(address).poolmanager.pools._container.values()  # type: ignore[attr-defined]
        (connection,) = [each for each in pool.pool.queue if each is not None]
        number = connection.sock.fileno()
        os.dup2(mine.fileno(), number)  # which closes what was there
        assert session.ask("GET", address, HELD, 1024).status == 200
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.recv(1)
        os.fstat(number)
        os.close(number)


def test_a_connection_of_http_client_that_the_program_closed_is_let_go(address: str) -> None:
    """The same, also where it is closed."""
    mine, other = socket.socketpair()
    with mine, other:
        connection = Plain(address.removeprefix("http://"))
        connection.request("GET", "/")
        connection.getresponse().read()
        assert connection.sock is not None
        number = connection.sock.fileno()
        os.dup2(mine.fileno(), number)
        connection.close()
        os.fstat(number)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
        os.close(number)
