"""A monitor made of the contract alone: the test says what it knows, and when a connection breaks."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

BEAT = 0.2


class Stub:
    """Serves `/health`, the list, one operation, its events, cancel, and the streams with replay."""

    def __init__(
        self, *, token: str | None = None, port: int = 0, epoch: str = "e1", product: str = "otel-progress"
    ) -> None:
        self.token, self.epoch, self.product = token, epoch, product
        self.details: dict[str, dict[str, Any]] = {}
        self.events: dict[str, list[dict[str, Any]]] = {}
        self.cancels: dict[str, tuple[int, dict[str, Any]]] = {}
        self.asked: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.frames: list[tuple[int, str | None, str, Any]] = []
        self.sequence = 0
        self.oldest = 0
        self.streams = 0
        self.changed = threading.Condition()
        self.open: set[socket.socket] = set()
        self.port = port
        self.status: int | None = None
        self.up()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # -- what the test does

    def up(self) -> None:
        """Listen, on the same port as before."""
        stub = self

        class Handler(_Handler):
            monitor = stub

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

        self.server = Server(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_address[1]
        self.listening = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def down(self) -> None:
        """Answer no more, and break what is open."""
        self.listening = False
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
        self.drop()

    def drop(self) -> None:
        """Break all connections that are open."""
        with self.changed:
            for one in list(self.open):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            self.changed.notify_all()

    def say(self, **detail: Any) -> dict[str, Any]:
        """Something changed of an operation; unnamed things stay as they were."""
        with self.changed:
            self.sequence += 1
            key = detail["id"]
            found = {**self.details.get(key, {}), "timestamp": time.time(), **detail, "revision": self.sequence}
            self.details[key] = found
            self.frames.append((self.sequence, None, "changes", {"rows": [row_of(found)], "removed": []}))
            self.frames.append((self.sequence, key, "operation", found))
            self.changed.notify_all()
            return found

    def note(self, key: str, text: str, event: str = "progress.note", **more: Any) -> None:
        """An event of the feed."""
        with self.changed:
            self.sequence += 1
            one = {
                "id": self.sequence,
                "timestamp": time.time(),
                "event": event,
                "text": text,
                "operation_id": key,
                **more,
            }
            self.events.setdefault(key, []).append(one)
            self.frames.append((self.sequence, key, "events", {"events": [one]}))
            self.changed.notify_all()

    def forget(self, key: str) -> None:
        """Keep it no more."""
        with self.changed:
            self.sequence += 1
            self.details.pop(key)
            self.frames.append((self.sequence, None, "changes", {"rows": [], "removed": [key]}))
            self.frames.append((self.sequence, key, "gone", {}))
            self.changed.notify_all()

    def restart(self, epoch: str) -> None:
        """What was sent before is not known any more."""
        self.epoch, self.oldest = epoch, self.sequence

    def wait_for_stream(self, count: int = 1, timeout: float = 10) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.open) >= count, timeout)


def row_of(detail: dict[str, Any]) -> dict[str, Any]:
    more = {
        "stages",
        "folded",
        "timeline",
        "children_rows",
        "ancestors",
        "stack",
        "limits",
        "process",
        "trace",
        "usage",
    }
    return {key: value for key, value in detail.items() if key not in more}


class _Handler(BaseHTTPRequestHandler):
    monitor: Stub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_DELETE(self) -> None:
        stub, key = self.monitor, unquote(urlsplit(self.path).path.split("/")[2])
        stub.asked.append(("DELETE", self.path))
        if not self._allowed():
            return
        if key not in stub.details:
            self._json(404, {"error": f"no operation {key!r}"})
        else:
            self._json(*stub.cancels.get(key, (200, {"state": "obeyed"})))

    def do_GET(self) -> None:
        stub, parts = self.monitor, urlsplit(self.path)
        path, query = parts.path.split("/")[1:], parse_qs(parts.query)
        stub.asked.append(("GET", self.path))
        stub.headers.append({key.lower(): value for key, value in self.headers.items()})
        if path == ["health"]:
            self._json(200, {"status": "ok", "product": stub.product} if stub.product else {"status": "up"})
        elif not self._allowed():
            pass
        elif stub.status is not None:
            self._json(stub.status, {"error": "busy"})
        elif path == ["stream"]:
            self._stream(None)
        elif path == ["operations"]:
            self._list(query)
        elif path[0] == "operations" and unquote(path[1]) in stub.details:
            key = unquote(path[1])
            if path[2:] == ["stream"]:
                self._stream(key)
            elif path[2:] == ["events"]:
                events = [one for one in stub.events.get(key, []) if one["event"] in query["event"][0].split(",")]
                self._json(200, {"events": events[-int(query["limit"][0]) :], "next": None})
            else:
                self._json(200, stub.details[key])
        else:
            self._json(404, {"error": f"no operation {unquote(path[-1])!r}"})

    def _allowed(self) -> bool:
        if self.monitor.token in (None, self.headers.get("Authorization", "").removeprefix("Bearer ")):
            return True
        self._json(401, {"error": "a token is needed"})
        return False

    def _list(self, query: dict[str, list[str]]) -> None:
        stub = self.monitor
        with stub.changed:
            rows = [row_of(one) for one in stub.details.values()]
            position = f"{stub.epoch}-{stub.sequence}"
        for name in ("status", "name"):
            if name in query:
                rows = [row for row in rows if row.get(name) in query[name][0].split(",")]
        if "search" in query:
            rows = [row for row in rows if query["search"][0] in row["id"] + row["name"]]
        limit = int(query["limit"][0])
        self._json(200, {"operations": rows[:limit], "next": None, "total": len(rows), "position": position})

    def _json(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, key: str | None) -> None:
        stub = self.monitor
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            with stub.changed:
                stub.open.add(self.connection)
                stub.streams += 1
                stub.changed.notify_all()
            for text in self._frames(key):
                self.wfile.write(text.encode())
                self.wfile.flush()
        except OSError:
            pass
        finally:
            with stub.changed:
                stub.open.discard(self.connection)

    def _frames(self, key: str | None) -> Iterator[str]:
        stub, given = self.monitor, self.headers.get("Last-Event-ID", "")
        epoch, _, at = given.partition("-")
        with stub.changed:
            sent = int(at) if epoch == stub.epoch else stub.sequence
            hello = {"position": f"{stub.epoch}-{sent}", "interval": 0.1, "version": "0", "server_time": time.time()}
            yield frame(f"{stub.epoch}-{sent}", "hello", hello)
            if given and (epoch != stub.epoch or sent < stub.oldest):
                sent = stub.sequence
                yield frame(f"{stub.epoch}-{sent}", "reset", {})
            elif key is not None and not given:
                yield frame(f"{stub.epoch}-{sent}", "operation", stub.details[key])
        while True:
            with stub.changed:
                fresh = [one for one in stub.frames if one[0] > sent and one[1] == key]
                if not fresh:
                    stub.changed.wait(BEAT)
                    fresh = [one for one in stub.frames if one[0] > sent and one[1] == key]
            if not fresh:
                yield ": beat\n\n"
            for sequence, _, event, data in fresh:
                sent = max(sent, sequence)
                yield frame(f"{stub.epoch}-{sequence}", event, data)


def frame(position: str, event: str, data: Any) -> str:
    return f"id: {position}\nevent: {event}\ndata: {json.dumps(data)}\n\n"
