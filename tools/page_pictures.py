"""Draw docs/monitor/*.png: the page of the monitor while the jobs of examples/tour and an agent with three tools run.

python tools/page_pictures.py [FOLDER]      needs playwright, pillow, and Chromium at /usr/bin/chromium
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

HERE = Path(__file__).parent.parent
JOBS = ("researcher", "approver", "planner", "nightly")
COLOURS = 128
WIDE = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
AGENT = """
import contextvars, random, socket, threading, time
import otel_progress as progress

progress.configure()

def offers(cities):
    for number in range(90):
        try:
            with progress.stage("fetch offer"):
                time.sleep(0.03 if number % 45 else 0.1)
                if number % 45 == 7:
                    raise OSError("HTTP 503 from offers")
        except OSError:
            pass

def search():
    with progress.stage("search", stall_after=5):
        connection, _ = socket.socketpair()
        connection.recv(1)

def compare(city, agent, pace):
    with progress.operation("compare", agent=agent, total=120, unit="offer", attributes={"city": city}):
        for _ in range(120):
            time.sleep(random.uniform(0.5, 1.5) * pace)
            progress.advance()

def tool(name):
    with progress.stage(name):
        while True:
            time.sleep(1)
            progress.heartbeat()

with progress.operation("plan trip", id="trip-31", agent="planner", heartbeat_counts=True,
                        description="A week in June: weather, offers, and what we know already."):
    offers(90)
    progress.note("three tools are asked side by side", tools=["weather", "search", "database"], city="Lisbon")
    work = [(search, ()), (tool, ("weather",)), (tool, ("database",)), (compare, ("Lisbon", "reader", 0.4)),
            (compare, ("Porto", "reader", 0.6)), (compare, ("Faro", "critic", 0.9))]
    threads = [threading.Thread(target=contextvars.copy_context().run, args=(call, *given)) for call, given in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """Run the monitor and all jobs; returns the address of the page."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    page = f"http://127.0.0.1:{port}"
    (folder / "agent.py").write_text(AGENT, encoding="utf-8")
    monitor = ["-m", "otel_progress.cli", "monitor", "--quiet", "--port", str(port), "--grpc-port", "none"]
    command = [sys.executable, *monitor, "--db", str(folder / "monitor.db")]
    processes = [subprocess.Popen(command, cwd=folder, start_new_session=True)]
    try:
        wait_for(f"{page}/health")
        about = {"OTEL_EXPORTER_OTLP_ENDPOINT": page, "OTEL_RESOURCE_ATTRIBUTES": "host.name=atlas"}
        jobs = [["agent.py"], *([str(HERE / "examples" / "tour" / "jobs.py"), name] for name in JOBS)]
        for number, job in enumerate(jobs):
            environ = {**os.environ, **about, "OTEL_SERVICE_NAME": "tour" if number else "agent"}
            processes.append(subprocess.Popen([sys.executable, *job], cwd=folder, env=environ, start_new_session=True))
        yield page
    finally:
        for process in processes:  # with its children
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(url: str) -> None:
    """Wait until it answers."""
    for _ in range(300):
        with contextlib.suppress(OSError), urlopen(url, timeout=5):
            return
        time.sleep(0.1)
    raise SystemExit("the monitor does not answer")


def opened(browser: Browser, address: str, size: dict[str, int], scheme: str) -> Page:
    """Open the page at one address."""
    page = browser.new_page(viewport=size, color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    page.goto(address)
    return page


def keep(page: Page, path: Path) -> None:
    """Save a picture with few colours."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size:,} bytes")


def main() -> None:
    """Take the four pictures."""
    into = Path(sys.argv[1]) if sys.argv[1:] else HERE / "docs" / "monitor"
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        options = ["--no-sandbox", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=options)
        with running(Path(folder)) as address:
            trip = f"{address}/#/operations/trip-31"
            light, dark = opened(browser, trip, WIDE, "light"), opened(browser, trip, WIDE, "dark")
            phone, whole = opened(browser, address, PHONE, "light"), opened(browser, address, WIDE, "light")
            light.get_by_text("agent.py:").first.wait_for(timeout=90_000)
            whole.locator(".row", has_text="research").get_by_text("no progress").wait_for(timeout=90_000)
            light.wait_for_timeout(4000)
            keep(light, into / "stuck.png")
            keep(phone, into / "phone.png")
            dark.wait_for_timeout(6000)
            keep(dark, into / "overview-dark.png")
            keep(whole, into / "overview-light.png")
        browser.close()


if __name__ == "__main__":
    main()
