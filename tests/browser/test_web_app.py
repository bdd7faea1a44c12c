"""The web component in the page of a real FastAPI application: `examples/fastapi_app`, in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="run `pip install playwright`")
from playwright.sync_api import expect
from tests.browser.server_process import ServerProcess

EXAMPLE = Path(__file__).parents[2] / "examples" / "fastapi_app"
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
ELEMENT = "progress-operation"


class Application(ServerProcess):
    """The example under uvicorn, which can be ended and started again."""

    def start(self):
        command = [
            sys.executable,
            "-W",
            "error",
            "-m",
            "uvicorn",
            "--app-dir",
            str(EXAMPLE),
            "app:api",
            "--port",
            str(self.port),
        ]
        environment = {**os.environ, "TMPDIR": str(self.folder), "ROW_SECONDS": "0.01"}
        return self.launch([*command, "--log-level", "warning"], "/user", 30, env=environment)

    def end(self, how=signal.SIGTERM):
        """End it; returns what it wrote to stderr."""
        self.process.send_signal(how)
        with self.process.stderr as stream:
            said = stream.read().decode()
        self.process.wait(20)
        return said


@pytest.fixture
def stub(tmp_path):
    """Return the application in place of the stub."""
    application = Application(tmp_path).start()
    yield application
    if application.process.poll() is None:
        application.end(signal.SIGKILL)


@pytest.fixture
def open_as(open_page):
    """Return a function that opens the page as a user, in a browser context of its own."""

    def opened(user, **options):
        page = open_page("", wait=None, **options)
        page.get_by_label("Your name").fill(user)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("button", name="Start")).to_be_visible()
        return page

    return opened


def start(page, title, hangs=False):
    page.get_by_label("What to import").fill(title)
    page.get_by_label("gets stuck").set_checked(hangs)
    page.get_by_role("button", name="Start").click()
    return page.locator(ELEMENT).first


def test_a_job_from_start_to_end(open_as):
    """Counts move, the state is in words, hostile text is text, and the final state stays; a strict CSP forbids nothing of it."""
    page = open_as("ann")
    page.evaluate("() => document.addEventListener('ended', (event) => (window.ended = event.detail.status))")
    shown = start(page, HOSTILE)
    bar = shown.locator("[part=bar]")
    expect(shown.locator("[part=name]")).to_have_text(HOSTILE)
    expect(shown.locator("[part=state]")).to_have_text("Progressing")
    expect(shown.locator("[part=stages]")).to_contain_text(re.compile(r"read.* of 200 rows"))
    expect(bar).to_have_attribute("aria-valuenow", re.compile(r"^[1-9]"))
    expect(bar).to_have_attribute("aria-label", f"progress of {HOSTILE}")
    late = page.context.new_page()  # opened in the middle
    late.goto(page.url)
    expect(late.locator(ELEMENT).locator("[part=state]")).to_have_text("Progressing")
    expect(late.locator(ELEMENT).locator("[part=stages]")).to_contain_text("of 200 rows")
    for one in (shown, late.locator(ELEMENT)):
        expect(one.locator("[part=state]")).to_have_text("completed", timeout=25_000)
        expect(one.locator("[part=trouble]")).to_have_text("200 rows imported")
        expect(one.locator("[part=bar]")).to_have_attribute("aria-valuenow", "100")
        expect(one.get_by_role("button")).to_have_count(0)
    assert page.evaluate("window.ended") == "completed"


def test_users_and_a_stuck_job(open_as):
    """A job that hangs is stuck in the page of its user alone, and ends by the button; the other can't even name it."""
    ann, bob = open_as("ann"), open_as("bob")
    shown = start(ann, "orders", hangs=True)
    start(bob, "invoices")
    expect(shown.locator("[part=state]")).to_have_text("Stuck", timeout=25_000)
    expect(shown.locator("[part=trouble]")).to_contain_text("no progress for")
    expect(shown.get_by_role("status").nth(1)).to_contain_text("orders: Stuck")
    src = shown.get_attribute("src")
    bob.reload()
    expect(bob.locator(ELEMENT)).to_have_count(1)
    asked = "async ([src, method]) => (await fetch(src, { method })).status"
    assert [
        bob.evaluate(asked, [path, method])
        for path, method in ((src, "GET"), (f"{src}/stream", "GET"), (src, "DELETE"))
    ] == [404, 404, 404]
    bob.evaluate("(src) => document.querySelector('progress-operation').setAttribute('src', src)", src)
    expect(bob.locator(ELEMENT).locator("[part=note]")).to_have_text(
        "This operation is not known here yet, or it is not yours.", timeout=10_000
    )
    shown.get_by_role("button", name="Cancel").click()
    expect(shown.get_by_role("button", name="Keep it running")).to_be_focused()
    shown.get_by_role("button", name="Keep it running").click()
    shown.get_by_role("button", name="Cancel").click()
    shown.get_by_role("button", name="Cancel operation").click()
    expect(shown.locator("[part=state]")).to_have_text("cancelled", timeout=10_000)
    expect(shown.get_by_role("button")).to_have_count(0)


def test_restart_of_the_server(open_as, stub):
    """The server ends at once in spite of open streams, and leaves nothing; the page says that the new one knows nothing."""
    page = open_as("ann")
    shown = start(page, "orders")
    expect(shown.locator("[part=stages]")).to_contain_text("of 200 rows")
    began = time.monotonic()
    said = stub.end()
    assert time.monotonic() - began < 15
    assert "Traceback" not in said
    assert list(stub.folder.glob("otel-progress-web-*")) == []
    expect(shown.locator("[part=note]")).to_contain_text("This is the last known state", timeout=10_000)
    stub.start()
    note = shown.locator("[part=note]")  # sessions of the example are gone, too
    expect(note).to_contain_text("you may not see this", timeout=15_000)


def test_many_elements_of_one_page(open_as):
    """A page with more elements than a browser has connections shows them all, and still sends other requests."""
    page = open_as("ann")
    for number in range(9):
        start(page, f"part {number}")
        expect(page.locator(ELEMENT)).to_have_count(number + 1)
    for number in range(9):
        expect(page.locator(ELEMENT).nth(number).locator("[part=state]")).to_have_text("Progressing", timeout=15_000)
    assert page.evaluate("async () => (await fetch('user')).status") == 200


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible(open_as, scheme):
    """The component passes axe in both colour schemes, stuck and with its question open."""
    from axe_playwright_python.sync_playwright import Axe

    page = open_as("ann", color_scheme=scheme)
    shown = start(page, "orders", hangs=True)
    expect(shown.locator("[part=state]")).to_have_text("Stuck", timeout=25_000)
    shown.get_by_role("button", name="Cancel").click()
    found = Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []


@pytest.mark.parametrize(
    "src", ["javascript:alert(1)", "data:text/html,x", "blob:{origin}/7", "http://[", "mailto:a@b.c"]
)
def test_an_address_that_is_none_is_not_asked(open_as, src):
    """Only a path and http or https name a server; anything else is said, and no request leaves."""
    page = open_as("eve")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate(
        """src => {
            const one = document.createElement("progress-operation");
            one.id = "odd";
            one.setAttribute("src", src.replace("{origin}", location.origin));
            document.body.append(one);
        }""",
        src,
    )
    expect(page.locator("#odd [part=note]")).to_contain_text("src is not the address of an operation")
    page.wait_for_timeout(300)
    assert asked == []


def test_a_server_that_does_not_allow_the_page_is_named(open_as):
    """Another origin that never answers is no lost connection; a name can't turn its text around."""
    page = open_as("eve")
    page.evaluate("""() => {
        const real = window.fetch;
        const row = { id: "x", name: "invoice\\u202egpj.exe", status: "completed", ended: true, progress: {} };
        window.fetch = async (url, options) => {
            if (url.startsWith("https://other.example")) throw new TypeError("refused");
            if (!url.includes("/turned")) return real(url, options);
            return url.endsWith("/stream") ? new Response(null, { status: 204 }) : Response.json(row);
        };
        for (const src of ["https://other.example/operations/1", "/turned"]) {
            const one = document.createElement("progress-operation");
            one.id = src === "/turned" ? "turned" : "other";
            one.setAttribute("src", src);
            document.body.append(one);
        }
    }""")
    expect(page.locator("#turned [part=name]")).to_have_text("invoice gpj.exe")
    expect(page.locator("#turned [part=card]")).to_have_attribute("aria-label", "invoice gpj.exe")
    expect(page.locator("#other [part=note]")).to_contain_text("No answer from https://other.example", timeout=8_000)
