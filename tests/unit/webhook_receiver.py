"""A real receiver of webhooks on this machine."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Post(NamedTuple):
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> Any:
        return json.loads(self.body)

    @property
    def delivery(self) -> str:
        return self.headers["otel-progress-delivery"]


class Hook:
    """A real receiver on this machine; `answer` gets the number of the request and says its status and headers."""

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.posts: list[Post] = []
        self.answer: Callable[[Post], tuple[int, dict[str, str]]] = lambda post: (200, {})
        self.changed = threading.Condition()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                post = Post(self.path, {key.lower(): value for key, value in self.headers.items()}, body)
                with hook.changed:
                    hook.posts.append(post)
                    hook.changed.notify_all()
                status, headers = hook.answer(post)
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.end_headers()

            def do_GET(self) -> None:
                raise AssertionError("a redirect was followed")

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # clients that hang up

        self.server = Server(("127.0.0.1", port), Handler)
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def wait(self, count: int) -> list[Post]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.posts) >= count, 20), self.posts
            return list(self.posts)

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
