"""A webhook that prints the alerts that Alertmanager sends, one block for each.

python examples/alerting/webhook.py [PORT]
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Webhook(BaseHTTPRequestHandler):
    """Receives the requests of Alertmanager."""

    def do_POST(self) -> None:
        """Print the alerts."""
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for alert in sent["alerts"]:
            print(f"{alert['status'].upper()}: {alert['labels']['alertname']}")
            for name, text in sorted(alert["annotations"].items()):
                print(f"  {name}: {text}")
        sys.stdout.flush()
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Do not log requests."""


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9099
    ThreadingHTTPServer(("127.0.0.1", port), Webhook).serve_forever()
