"""The page with the real monitor: until its first rows are painted, and from a request of a program to the frame.

A program changes one operation ten times a second, beside many others that run. Each change names the time right before
its request, so the delay has all parts: the request, the store, the next round of publishing, the stream and the page.
"""

from __future__ import annotations

import http.client
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import Row, full_or_short
from benchmarks.monitor.flood import body
from benchmarks.monitor.load import Monitor, on_other_cores, percentile
from otel_progress import semconv as s
from otel_progress.outbound import otlp

OPERATIONS: Final = full_or_short(2_000, 50)
SECONDS: Final = full_or_short(15.0, 2.0)
LOADS: Final = full_or_short(5, 2)
INTERVAL: Final = 0.02
"""Seconds between two rounds of publishing; the default is 0.1."""
READY: Final = 0.5
PAINT: Final = 0.05
CHROMIUM: Final = "/usr/bin/chromium"
WATCHED: Final = "watched"
"""It begins last, so the page shows it first."""


class Program:
    """Sends the changes of one operation."""

    def __init__(self, host: str) -> None:
        """To a monitor."""
        self._connection = http.client.HTTPConnection(host, timeout=60)
        self._began = 0.0
        self._sequence = 0
        about = {"service.name": "page", "service.instance.id": "page", s.HEARTBEAT_INTERVAL: 600.0}
        self._about = otlp.resource(about), otlp.scope(s.SCOPE, "1")

    def post(self, data: bytes) -> None:
        """Send a request."""
        self._connection.request("POST", "/v1/logs", data, {"Content-Type": "application/x-protobuf"})
        answer = self._connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise SystemExit(f"the monitor answered {answer.status}")

    def change(self) -> None:
        """Say what time it is."""
        self._sequence += 1
        now = time.time()
        self._began = self._began or now
        said = {
            s.OPERATION_ID: WATCHED,
            s.OPERATION_NAME: "work",
            s.STATUS: "running",
            s.HEALTH: "progressing",
            s.SEQUENCE: self._sequence,
            s.START_TIME: self._began,
            s.ELAPSED: now - self._began,
            s.MESSAGE: f"at {now:.4f}",
        }
        moment = int(now * 1e9)
        event = otlp.log_record(
            s.UPDATED, moment, moment, otlp.INFO, "it moved", otlp.attributes(6, said), None, None, False
        )
        self.post(otlp.envelope(*self._about, [event]))


def measure(seconds: float = SECONDS) -> dict[str, Any]:
    """Load the page repeatedly, then watch the changes of one row."""
    try:
        from playwright.sync_api import sync_playwright

        from benchmarks.page import WATCH
    except ImportError as error:
        return {"not measured": str(error)}
    if not Path(CHROMIUM).exists():
        return {"not measured": f"there is no {CHROMIUM}"}
    with (
        tempfile.TemporaryDirectory() as name,
        on_other_cores(),
        Monitor(Path(name), "--interval", str(INTERVAL)) as monitor,
        sync_playwright() as playwright,
    ):
        program = Program(monitor.host)
        for at in range(0, OPERATIONS, 50):
            program.post(body(f"page-{at}", 50))
        program.change()
        options = ["--no-sandbox", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        ready = []
        for number in range(LOADS):
            page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
            page.add_init_script(WATCH)
            page.goto(monitor.url)
            page.wait_for_function("() => seen.ready !== null")
            ready.append(page.evaluate("seen.ready"))
            if number + 1 < LOADS:
                page.context.close()
        page.wait_for_selector(f"#line-{WATCHED}")
        page.evaluate("(id) => follow(id)", WATCHED)
        sent, until = 0, time.monotonic() + seconds
        while time.monotonic() < until:
            program.change()
            sent += 1
            page.wait_for_timeout(100)
        page.wait_for_timeout(500)
        delays = page.evaluate("seen.delays")
        browser.close()
    return {
        "operations": OPERATIONS,
        "ready_ms": round(statistics.median(ready)),
        "ready_worst_ms": round(max(ready)),
        "paint_p50_ms": round(percentile(delays, 0.5), 1),
        "paint_p99_ms": round(percentile(delays, 0.99), 1),
        "painted": len(delays),
        "sent": sent,
    }


def rows(found: dict[str, Any]) -> list[Row]:
    """Return the rows of the table."""
    if "not measured" in found:
        return [Row("the page", f"not measured: {found['not measured']}", "", "")]
    return [
        Row(
            f"page with {found['operations']:,} operations, real monitor, until its rows are painted",
            f"{found['ready_ms']} ms (worst {found['ready_worst_ms']})",
            f"{READY * 1e3:.0f} ms",
            "none",
            found["ready_ms"] <= READY * 1e3,
        ),
        Row(
            f"from a program's request to the frame, published each {INTERVAL * 1e3:.0f} ms",
            f"p50 {found['paint_p50_ms']:.0f}, p99 {found['paint_p99_ms']:.0f} ms "
            f"({found['painted']} of {found['sent']} changes)",
            f"p99 {PAINT * 1e3:.0f} ms",
            "none",
            found["paint_p99_ms"] <= PAINT * 1e3,
        ),
    ]
