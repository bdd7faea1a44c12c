"""Draw docs/reports/*.png: the report of a run that was stuck, and of thirty nights compared, both under a fake clock.

python tools/report_pictures.py      needs playwright, pillow, and Chromium at /usr/bin/chromium
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

import otel_progress as progress
from otel_progress import cli
from otel_progress.handlers.jsonlines import line_of
from otel_progress.testing import Capture, capture

FOLDER = Path(__file__).parent.parent / "docs" / "reports"
COLOURS = 64
HEIGHT = 1_130


def nightly_import(captured: Capture) -> None:
    """A run with a wait, a stall, failures and a cost."""
    about = "Orders of all shops into the warehouse"
    op = progress.operation(
        "nightly import", id="nightly-31", total=2400, unit="order", stall_after=60, description=about
    )
    op.start()
    with op.stage("fetch", total=6, unit="shop") as fetch:
        for _ in range(6):
            fetch.advance()
            captured.advance(14)
    with op.stage("wait for the backup") as pause, pause.waiting("the nightly backup"):
        captured.advance(150)
    with op.stage("import") as whole:
        with whole.stage("validate"):
            for batch in range(40):
                orders(op, captured, batch, 5)
        with whole.stage("write"):
            captured.advance(130)
            for batch in range(40):
                orders(op, captured, batch, 3)
    op.usage(cost=1.84, currency="EUR")
    op.result(rows=2392, warehouse="dwh-2")
    op.complete()


def orders(op: progress.Operation, captured: Capture, batch: int, seconds: float) -> None:
    """Thirty orders; of some batches one fails."""
    for number in range(30):
        bad = number == 7 and batch % 10 == 0
        op.record(
            "failed" if bad else "ok", component="orders", error="order 4711: 'n/a' is not a date" if bad else None
        )
    op.advance(30)
    captured.advance(seconds)


def nights(captured: Capture) -> None:
    """Thirty nights, of which the last ones are slower; one fails."""
    for day in range(30):
        slow = day >= 23
        with progress.operation("nightly", id=f"nightly-{day + 1:02}", total=12, unit="table") as op:
            for name, seconds in (
                ("dump", 200 + day * 3),
                ("copy", 980 if slow else 500 + day % 5 * 20),
                ("check", 160),
            ):
                with op.stage(name):
                    captured.clock.sleep(seconds)
            op.advance(12)
            op.usage(cost=0.48, currency="EUR")
            if day == 26:
                op.fail("no space left on device")
        captured.look()
        captured.clock.sleep(86_400 - 1_200)


def draw(browser: Browser, page: Path, picture: Path) -> None:
    """Draw the upper part of a report."""
    context = browser.new_context(viewport={"width": 1040, "height": HEIGHT}, device_scale_factor=1)
    opened = context.new_page()
    opened.goto(page.as_uri())
    image = Image.open(io.BytesIO(opened.screenshot()))
    image.convert("RGB").quantize(COLOURS).save(picture, optimize=True)
    context.close()


def report(job: object, arguments: Iterable[str], folder: Path) -> Path:
    """Run a job, and write its report."""
    with capture() as captured:
        job(captured)  # type: ignore[operator]
        captured.look()
        lines, page = folder / "progress.jsonl", folder / "report.html"
        lines.write_text("".join(f"{line_of(event)}\n" for event in captured.events), encoding="utf-8")
        cli.main(["report", *arguments, "--file", str(lines), "-o", str(page)])
    return page


def main() -> None:
    """Draw both."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        folder = Path(name)
        draw(browser, report(nightly_import, ["nightly-31"], folder), FOLDER / "run.png")
        draw(browser, report(nights, ["--name", "nightly"], folder), FOLDER / "nights.png")
        browser.close()


if __name__ == "__main__":
    main()
