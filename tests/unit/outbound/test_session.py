"""A session that posts to one address again and again does so as a single request would."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from otel_progress import clock
from otel_progress.outbound.session import REFRESH, Session
from otel_progress.testing import FakeClock

Seen = list[tuple[dict[str, str], bytes]]
HEADERS = {"Content-Encoding": "gzip"}


@pytest.fixture
def seen() -> Seen:
    """Head and body of each request that came."""
    return []


@pytest.fixture
def address(seen: Seen) -> Iterator[str]:
    """A server that answers all requests."""

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((dict(self.headers), body))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *arguments: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1/logs"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def session() -> Iterator[Session]:
    with Session() as opened:
        opened.headers["User-Agent"] = "otel-progress"
        yield opened


def test_a_post_is_what_a_single_request_is(address: str, seen: Seen, session: Session) -> None:
    """Head and body are the same, also those of the second one, which is longer."""
    for body in (b"one", b"the other"):
        asked = session.ask("POST", address, 5.0, 100, data=body, headers=HEADERS, verify=None)
        posted = session.repeat(address, body, 5.0, 100, HEADERS, None)
        assert (posted.status, posted.body) == (asked.status, asked.body) == (200, b"ok")
        assert seen[-1] == seen[-2]
        assert seen[-1][1] == body


def test_an_answer_that_is_too_large_is_refused(address: str, session: Session) -> None:
    """The limit of bytes holds for each post."""
    with pytest.raises(requests.ConnectionError, match="too large"):
        session.repeat(address, b"one", 5.0, 1, {}, None)


def test_the_environment_is_read_anew(
    address: str, seen: Seen, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that the environment names is used after a while, and not again once a request through it failed."""
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    fake = FakeClock()
    before = clock.install(fake)
    try:
        session.repeat(address, b"first", 5.0, 100, {}, None)
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        session.repeat(address, b"second", 5.0, 100, {}, None)
        fake.sleep(REFRESH)
        with pytest.raises(requests.ConnectionError):
            session.repeat(address, b"lost", 5.0, 100, {}, None)
        monkeypatch.delenv("http_proxy")
        session.repeat(address, b"third", 5.0, 100, {}, None)
    finally:
        clock.install(before)
    assert [body for _, body in seen] == [b"first", b"second", b"third"]
