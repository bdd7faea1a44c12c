"""The page on the real monitor, with a real program that sends to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

pytest.importorskip("playwright", reason="run `pip install playwright`")
from playwright.sync_api import expect
from tests.browser.server_process import ServerProcess

PROGRAM = """
import time
import otel_progress as progress
progress.configure()
with progress.operation("survey", id="survey/1", agent="surveyor", total=10_000, unit="file", description="<script>alert(1)</script>") as survey:
    with progress.stage("read", total=10_000, unit="file"):
        for number in range(10_000):
            progress.raise_if_cancelled()
            progress.advance()
            if number % 100 == 0:
                progress.note(f"{number} files so far")
            time.sleep(0.01)
"""


class Monitor(ServerProcess):
    """`otel-progress monitor` in a process of its own, which can be killed and started again on its file."""

    def start(self):
        command = [
            sys.executable,
            "-m",
            "otel_progress.cli",
            "monitor",
            "--port",
            str(self.port),
            "--grpc-port",
            "none",
            "--db",
            str(self.folder / "monitor.db"),
            "--quiet",
        ]
        return self.launch(command, "/health", 20, stdout=subprocess.DEVNULL)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stderr.close()


@pytest.fixture
def stub(tmp_path):
    """Return the real monitor in place of the stub."""
    monitor = Monitor(tmp_path).start()
    yield monitor
    monitor.kill()


@pytest.fixture
def program(stub, tmp_path):
    environment = {
        **os.environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": stub.url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "XDG_CACHE_HOME": str(tmp_path),
    }
    running = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    yield running
    running.kill()
    running.wait()


def test_lives_through_a_kill(open_page, stub, program):
    """A program is shown while it runs; after the monitor is killed and restarted, nothing is repeated or missing."""
    page = open_page("#/operations/survey%2F1", wait=None)
    page.wait_for_selector(".tree-row", timeout=20_000)
    expect(page.locator("h1")).to_have_text("survey")
    expect(page.locator(".description")).to_have_text("<script>alert(1)</script>")
    expect(page.get_by_text("0 files so far", exact=True)).to_have_count(1)
    stub.kill()
    expect(page.locator(".light")).to_contain_text("Reconnecting")
    bar = page.locator(".tree-row", has_text="read").get_by_role("progressbar")
    before = bar.get_attribute("aria-valuenow")
    stub.start()
    expect(page.locator(".light")).to_have_text("Live", timeout=15_000)
    expect(bar).not_to_have_attribute("aria-valuenow", before, timeout=20_000)
    expect(page.locator('[id="line-survey%2F1"]')).to_have_count(1)
    notes = [text for text in page.locator(".line-text > bdi").all_text_contents() if text.endswith("files so far")]
    assert len(notes) == len(set(notes)) > 0


def test_cancel(open_page, stub, program):
    """Cancel on the page ends the operation in its process, and the page shows it."""
    page = open_page("#/operations/survey%2F1", wait=None)
    page.wait_for_selector(".tree-row", timeout=20_000)
    button = page.get_by_role("button", name="Cancel")
    expect(button).to_be_enabled(timeout=15_000)
    button.click()
    page.get_by_role("button", name="Cancel operation").click()
    expect(page.get_by_role("dialog").get_by_role("status")).to_contain_text("Obeyed", timeout=15_000)
    expect(page.locator(".title .state")).to_contain_text("cancelled", timeout=10_000)
    assert program.wait(15) is not None


def test_the_report_of_a_run_is_saved(stub, open_page, program):
    """The button saves the report as a file; the title keeps its place beside it, on a phone too."""
    for width in (1280, 390):
        page = open_page("#/operations/survey%2F1", wait=None, viewport={"width": width, "height": 800})
        page.wait_for_selector(".title-id", timeout=20_000)
        with page.expect_download() as saved:
            page.get_by_role("button", name="Report").click()
        assert saved.value.suggested_filename == "survey-1.html"
        text = saved.value.path().read_text(encoding="utf-8")
        assert "Still running" in text
        assert "&lt;script&gt;" in text
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        expect(page.locator(".title h1")).to_be_visible()
