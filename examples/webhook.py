"""A receiver of webhooks that verifies signatures, and a job that posts to it: it stalls, goes on, and fails.

python examples/webhook.py

The receiver prints what it accepts. It needs only the standard library; in your own, use a library for Standard
Webhooks. The job posts from its own process; `otel-progress monitor --webhook` posts the same.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import otel_progress as progress
from otel_progress.handlers.webhook import WebhookHandler

KEY = b"0123456789abcdef0123456789abcdef"  # 24 to 64 random bytes
SECRET = "whsec_" + base64.b64encode(KEY).decode()
OLD = 300.0


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        genuine = is_genuine(self.headers["webhook-id"], self.headers["webhook-timestamp"], body, self.headers)
        if genuine:
            said = json.loads(body)
            print(f"{said['kind']:>9}  {said['event']['text']}", flush=True)
        self.send_response(204 if genuine else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print no requests."""


def is_genuine(id: str, timestamp: str, body: bytes, headers) -> bool:
    right = hmac.new(KEY, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    given = headers.get("webhook-signature", "").split()
    expected = f"v1,{base64.b64encode(right).decode()}"
    return any(hmac.compare_digest(expected, one) for one in given) and abs(time.time() - int(timestamp)) < OLD


def job() -> None:
    with progress.operation("nightly import", total=45, stall_after=1.5) as operation:
        for number in range(45):
            time.sleep(2.5 if number == 5 else 0.05)  # the sixth file hangs for a while
            operation.advance()
        raise RuntimeError("the archive is full")


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with WebhookHandler(f"http://127.0.0.1:{server.server_port}/hook", secret=SECRET):
        try:
            job()
        except RuntimeError as error:
            print(f"the job failed: {error}")
    server.shutdown()
    server.server_close()


if __name__ == "__main__":
    main()
