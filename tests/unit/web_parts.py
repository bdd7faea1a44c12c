"""An ASGI client without a network."""

from __future__ import annotations

import asyncio
import json
from typing import Any


class Answer:
    """A response: its status, headers and body."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.messages: list[dict[str, Any]] = []

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Sends requests to an application."""

    def __init__(self, app: Any, *, root_path: str = "", client: Any = ("127.0.0.1", 5000)) -> None:
        self.app = app
        self.root_path = root_path
        self.client = client

    def scope(self, path: str, kind: str = "http", method: str = "GET", http: str = "1.1", **headers: str) -> Any:
        from urllib.parse import unquote

        named = {"host": "localhost:8000", **{name.replace("_", "-"): value for name, value in headers.items()}}
        path, _, query = path.partition("?")
        return {
            "type": kind,
            "method": method,
            "http_version": http,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "root_path": self.root_path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in named.items()],
            "client": self.client,
            "extensions": {},
        }

    async def ask(self, path: str, method: str = "GET", *, http: str = "1.1", **headers: str) -> Answer:
        """Send a request, and return the whole response."""
        found = Answer()
        incoming = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> Any:
            return incoming.pop() if incoming else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            found.messages.append(message)
            if message["type"] == "http.response.start":
                found.status = message["status"]
                found.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                found.body += message.get("body", b"")

        await self.app(self.scope(path, method=method, http=http, **headers), receive, send)
        return found

    async def socket(self, path: str, **headers: str) -> list[Any]:
        """Open a WebSocket, and return all that is sent until it is closed."""
        sent: list[Any] = []
        incoming = [{"type": "websocket.connect"}]

        async def receive() -> Any:
            return incoming.pop() if incoming else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        await asyncio.wait_for(self.app(self.scope(path, "websocket", **headers), receive, send), 20)
        return sent


async def until(true: Any) -> Any:
    """Wait until a coroutine function returns something true, and return that."""
    for _ in range(400):
        found = await true()
        if found:
            return found
        await asyncio.sleep(0.025)
    raise AssertionError("it did not happen")
