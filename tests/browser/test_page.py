"""The page as a whole: connection, keyboard, appearance, access."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="run `pip install playwright`")
from playwright.sync_api import expect
from tests.browser.scene import base, many, progress
from tests.browser.stub import STATIC

PHONE = {"width": 390, "height": 844}
SEEN = "import('/static/state.js').then((state) => state.countKnown())"


def light(page):
    return page.locator(".light")


def row(page, ident):
    return page.locator(f'[id="line-{ident}"]')


def test_reconnects(open_page, world, stub):
    """After an outage of the monitor the page shows what happened meanwhile, without repeats or gaps."""
    page = open_page("#/operations/survey-1", viewport={"width": 1440, "height": 2400})
    expect(light(page)).to_have_text("Live")
    world.put("survey-1", progress=progress(700, 1000))
    expect(page.locator(".big-percent")).to_have_text("70%")
    seen = world.sequence
    stub.stop()
    expect(light(page)).to_contain_text("Reconnecting")
    now = time.time()
    world.put(base("while-away", "while away", now, now))
    world.put("survey-1", progress=progress(900, 1000))
    world.say("survey-1", "progress.note", "said while away")
    world.put("review-3", status="failed", reason="KeyError")
    stub.start()
    expect(light(page)).to_have_text("Live")
    expect(page.locator(".lost")).to_have_count(0)
    expect(row(page, "while-away")).to_have_count(1)
    expect(row(page, "review-3")).to_contain_text("KeyError")
    expect(page.locator(".big-percent")).to_have_text("90%")
    expect(page.get_by_text("said while away")).to_have_count(1)
    assert page.evaluate(SEEN) == len(world.operations)
    assert f"GET /stream?after=a-{seen}" in world.requests
    assert sum("GET /operations?" in line for line in world.requests) == 1, "the list was loaded anew without need"


def test_other_monitor(open_page, world, stub):
    """If the monitor no longer knows the position, the list is loaded anew, and removed operations disappear."""
    page = open_page(viewport={"width": 1440, "height": 2400})
    expect(light(page)).to_have_text("Live")
    stub.stop()
    world.epoch, world.revision, world.sequence = "b", 0, 0
    world.log.clear()
    del world.operations["review-3"]
    for ident in list(world.operations):
        world.put(ident, name=f"new {world.operations[ident]['name']}"[:40])
    stub.start()
    expect(row(page, "crawl-7f3a")).to_contain_text("new crawl")
    expect(row(page, "review-3")).to_have_count(0)
    assert page.evaluate(SEEN) == len(world.operations)
    world.put("crawl-7f3a", name="newer crawl")
    expect(row(page, "crawl-7f3a")).to_contain_text("newer crawl")


def test_backs_off(open_page, stub):
    """Reconnects slow down to 5 s, with jitter; the user can request the next one at once."""
    page = open_page()
    expect(light(page)).to_have_text("Live")
    tries = []
    page.on("request", lambda request: tries.append(time.monotonic()) if "/stream" in request.url else None)
    stub.stop()
    expect(page.locator(".lost")).to_contain_text("The connection to the monitor is lost")
    page.wait_for_timeout(6000)  # a busy machine delays the first ones, too
    gaps = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert 3 <= len(tries) <= 12, tries
    assert max(gaps[1:]) > gaps[0], gaps
    stub.start()
    page.get_by_role("button", name="Try now").click()
    expect(light(page)).to_have_text("Live")


def test_hidden_tab(open_page, world):
    """A hidden tab closes its stream, and catches up when it is shown."""
    page = open_page()
    expect(light(page)).to_have_text("Live")
    hide = "(hidden) => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true}); document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(hide, True)
    expect(light(page)).to_have_text("Paused")
    world.put("survey-1", progress=progress(990, 1000))
    page.evaluate(hide, False)
    expect(light(page)).to_have_text("Live")
    expect(page.locator(".summary")).to_contain_text("5 in trouble")
    page.locator("#search").fill("survey-1")
    expect(row(page, "survey-1")).to_contain_text("99%")
    assert sum("/stream" in line for line in world.requests) == 2


def test_refresh_goes_on(open_page):
    """After a refresh the same operation is open, in the same theme."""
    page = open_page("#/operations/crawl-7f3a", wait=".trouble")
    page.keyboard.press("t")
    page.keyboard.press("t")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.reload()
    expect(page.locator("h1")).to_have_text("crawl")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark
    page.keyboard.press("t")
    assert page.locator("html").get_attribute("data-theme") is None


def test_most_urgent_operation_is_open(open_page, world):
    """While nobody has chosen an operation, the first one in trouble is open, once; its address is not taken."""
    page = open_page()
    expect(page.locator("h1")).to_have_text("crawl")
    assert page.url.endswith("#/")
    page.keyboard.press("Escape")
    expect(page.locator(".detail")).to_contain_text("Choose an operation")
    world.put("survey-1", verdict={"health": "silent", "reason": "no progress for 30 s"})
    expect(page).to_have_title("(6 in trouble) otel-progress")
    expect(page.locator(".detail")).to_contain_text("Choose an operation")


def test_narrow_page_begins_with_the_list(open_page):
    """Where an operation would cover the list, none is open until it is chosen."""
    page = open_page(viewport={"width": 390, "height": 844})
    expect(page).to_have_title("(5 in trouble) otel-progress")
    expect(row(page, "crawl-7f3a")).to_be_visible()


def test_keyboard(open_page):
    """Everything can be done by keyboard: move, open, go back, search, fold, cancel, help."""
    page = open_page()
    expect(page.locator("h1")).to_have_text("crawl")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("k")
    expect(row(page, "crawl-7f3a")).to_have_class(re.compile("cursor"))
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("crawl")
    assert page.url.endswith("#/operations/crawl-7f3a")
    expect(row(page, "crawl-7f3a")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("c")
    expect(page.get_by_role("dialog")).to_contain_text("Cancel crawl?")
    page.keyboard.press("j")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator("h1")).to_have_text("crawl")
    page.keyboard.press("Escape")
    expect(page.locator(".detail")).to_contain_text("Choose an operation")
    page.keyboard.press("/")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type("etl?")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("Backspace")
    expect(page.locator(".row").first).to_contain_text("etl")
    page.keyboard.press("Escape")
    expect(row(page, "crawl-7f3a")).to_be_visible()
    expect(page.locator(".list")).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")
    expect(row(page, "crawl-7f3a")).to_have_count(0)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    active = page.locator(".list").get_attribute("aria-activedescendant")
    assert active == "line-agent-loop-2"
    expect(page.locator(f'[id="{active}"]')).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Keys and words")


def test_focus_is_seen(open_page):
    """The element with the keyboard focus is outlined."""
    page = open_page()
    for _ in range(5):
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", page.evaluate("document.activeElement.outerHTML")


def test_phone(open_page):
    """A narrow screen has one column: the list, or the operation with a way back."""
    page = open_page(viewport=PHONE)
    expect(page.locator(".detail")).not_to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    row(page, "crawl-7f3a").click()
    expect(page.locator(".trouble")).to_be_visible()
    expect(page.locator("#search")).not_to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    expect(page.locator("h1")).to_be_focused()
    page.get_by_role("button", name="Operations").click()
    expect(row(page, "crawl-7f3a")).to_be_visible()
    page.go_back()
    expect(page.locator("h1")).to_have_text("crawl")


def test_token(open_page, world):
    """If a token is required the page asks for it, reports a wrong one, and allows logging out."""
    world.token = "right"
    page = open_page("#/operations/survey-1", wait=".login")
    field = page.get_by_label("Token")
    expect(field).to_be_focused()
    assert field.get_attribute("type") == "password"
    field.fill("wrong")
    field.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("this token is not known")
    field.fill("right")
    field.press("Enter")
    expect(page.locator("h1")).to_have_text("survey")
    expect(light(page)).to_have_text("Live")
    assert "right" not in page.evaluate(
        "document.documentElement.outerHTML + document.cookie + JSON.stringify({...localStorage, ...sessionStorage})"
    )
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Token")).to_be_visible()


def test_token_taken_back(open_page, world, stub):
    """When a session ends, the page shows the form instead of retrying for ever."""
    world.token = "one"
    page = open_page(wait=".login")
    page.get_by_label("Token").fill("one")
    page.keyboard.press("Enter")
    expect(light(page)).to_have_text("Live")
    stub.stop()
    world.token = "two"
    stub.start()
    expect(page.get_by_label("Token")).to_be_visible()


def test_calm(open_page):
    """The page respects prefers-reduced-motion."""
    moves = "getComputedStyle(document.querySelector('.tree .bar-open .bar-fill')).animationName"
    page = open_page("#/operations/survey-1", wait=".tree .bar-open")
    assert page.evaluate(moves) == "none"
    page = open_page("#/operations/survey-1", wait=".tree .bar-open", reduced_motion="no-preference")
    assert page.evaluate(moves) == "drift"


@pytest.mark.parametrize(("scheme", "size"), [("light", (1440, 900)), ("dark", (1440, 900)), ("light", (390, 844))])
def test_accessible(open_page, world, scheme, size):
    """axe finds no serious issue in the list, details, dialogs, form and empty page."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="run `pip install axe-playwright-python`")
    many(world, 30)
    page = open_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)

    def check(where):
        found = (
            axe.Axe()
            .run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]})
            .response["violations"]
        )
        serious = [
            f"{one['id']}: {one['nodes'][0]['html'][:160]} {one['nodes'][0]['failureSummary']}"
            for one in found
            if one["impact"] in {"serious", "critical"}
        ]
        assert not serious, (where, serious)

    if size[0] > 800:
        page.get_by_role("button", name="Filter").click()
    check("list")
    for ident in (
        ("survey-1", "crawl-7f3a", "train-12", "report-7")
        if (scheme, size[0]) == ("light", 1440)
        else ("survey-1", "crawl-7f3a")
    ):
        page.goto(page.url.split("#")[0] + f"#/operations/{ident}")
        page.wait_for_selector(".title h1")
        expect(page.locator(".title .id").first).to_have_text(ident)
        check(ident)
    page.keyboard.press("?")
    page.wait_for_selector("dialog")
    check("help")
    page.keyboard.press("Escape")
    if size[0] < 800:
        return
    world.operations.clear()
    world.token = "x"
    page.reload()
    page.wait_for_selector(".login")
    check("login")
    world.token = None
    page.goto(page.url.split("#")[0])
    page.wait_for_selector(".empty")
    check("empty")


def test_needs_no_network():
    """All assets of the page are local: no address of another host, no script or style inside the HTML."""
    html = (STATIC / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", html)
    for file in STATIC.rglob("*"):
        if file.suffix in {".js", ".css", ".html"} and file.parent.name != "vendor":
            text = re.sub(r"http://www\.w3\.org/\d+/svg", "", file.read_text())
            assert not re.search(r"https?://\w", text), file
            assert not re.search(
                r"innerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|dangerouslySet", text
            ), file


def test_all_is_fetched_at_once():
    """The page names each module, so that none is discovered late."""
    html = (STATIC / "index.html").read_text()
    named = set(re.findall(r'static/([\w./-]+\.js)"', html))
    assert named == {str(file.relative_to(STATIC)) for file in STATIC.rglob("*.js")}


def test_vendored_with_licence():
    """Each vendored library is listed with its version, and its licence lies beside it."""
    vendor = STATIC / "vendor"
    listed = (vendor / "README.md").read_text()
    for file in vendor.glob("*.js"):
        line = next(line for line in listed.splitlines() if line.startswith(f"| `{file.name}`"))
        licence = re.search(r"`(LICENSE-[\w-]+\.txt)`", line)
        assert re.search(r"\d+\.\d+\.\d+", line)
        assert licence
        assert len(Path(vendor / licence[1]).read_text()) > 900
        assert not re.search(r'(from|import)\s*"(?!\./)', file.read_text()), file
