"""The list of operations."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("playwright", reason="run `pip install playwright`")
from playwright.sync_api import expect
from tests.browser.scene import base, many, progress
from tests.browser.stub import World

HEADS = ["Stuck", "Looping", "Dead", "Overdue", "Slow", "Unknown", "Waiting", "Not started", "Progressing", "Ended"]


def names(page):
    return page.locator(".row-name a").all_inner_texts()


def row(page, ident):
    return page.locator(f'[id="line-{ident}"]')


def test_groups_in_order(open_page):
    """Operations are grouped by verdict, those in trouble on top, each group with its count."""
    page = open_page(viewport={"width": 1440, "height": 2400})
    assert page.locator(".group-head .state").all_inner_texts() == HEADS
    assert page.locator(".group-head .count").all_inner_texts() == ["1", "1", "1", "1", "1", "1", "1", "1", "5", "8"]
    assert names(page)[:7] == ["crawl", "research", "train", "deploy", "etl", "import", "review"]


def test_header_counts_what_is_marked(open_page, world):
    """The number in trouble is that of the rows in marked groups; unknown is counted by itself."""
    page = open_page()
    summary = page.locator(".summary")
    expect(summary).to_contain_text("5 in trouble: 1 stuck, 1 looping, 1 dead, 1 overdue, 1 slow")
    expect(summary).to_contain_text("1 unknown")
    world.put(
        "survey-1", state="frozen", verdict={"health": "dead", "frozen": True, "reason": "its process is stopped"}
    )
    expect(page.locator(".group-head", has_text="Frozen")).to_contain_text("1")
    expect(summary).to_contain_text("6 in trouble")


def test_row_says_what_it_does(open_page):
    """A row has its agent, its stage, its percentage, and its ETA or what is wrong."""
    page = open_page(viewport={"width": 1600, "height": 2400})
    survey = row(page, "survey-1")
    expect(survey).to_contain_text("surveyor")
    expect(survey).to_contain_text("parse/library")
    expect(survey).to_contain_text("45%")
    expect(survey).to_contain_text("left")
    expect(row(page, "crawl-7f3a")).to_contain_text("no progress for 3")
    expect(row(page, "deploy-9")).to_contain_text("waits for approval for 1 min")
    expect(row(page, "train-12")).to_contain_text("attempt 2")
    expect(row(page, "http-GET")).to_contain_text("spans")
    expect(row(page, "report-7")).to_contain_text("ValueError: no such column")


def test_time_runs_on(open_page, world):
    """The elapsed time of a running operation advances without requests; an ended one shows how long ago it ended."""
    page = open_page(viewport={"width": 1440, "height": 2400})
    survey = row(page, "survey-1").locator(".row-time .dim")
    before, requests = survey.inner_text(), len(world.requests)
    expect(survey).not_to_have_text(before)
    expect(row(page, "report-8")).to_contain_text("11 min ago")
    assert len(world.requests) - requests <= 2, "it asked for the time"


def test_change_comes_by_itself(open_page, world):
    """A change appears without a reload, and moves the row to its new group."""
    page = open_page(viewport={"width": 1440, "height": 2400})
    world.put("review-3", status="running", wait=None, verdict={"health": "progressing"}, progress=progress(3, 4))
    expect(row(page, "review-3")).to_contain_text("75%")
    world.put("review-3", status="failed", reason="KeyError: 'x'")
    expect(row(page, "review-3")).to_contain_text("KeyError")
    expect(page.locator(".group-head", has_text="Waiting")).to_have_count(0)
    expect(page.locator(".group-head", has_text="Ended").locator(".count")).to_have_text("9")
    world.remove("review-3")
    expect(row(page, "review-3")).to_have_count(0)
    assert page.evaluate("performance.getEntriesByType('navigation').length") == 1


def test_newer_revision_holds(open_page):
    """Of two rows of an operation the one with the higher revision wins, in whatever order they arrive."""
    page = open_page()
    shown = page.evaluate(
        """async () => {
            const state = await import("/static/state.js");
            const row = state.rowOf("survey-1").peek();
            state.apply([{...row, name: "newer", revision: row.revision + 10}]);
            state.apply([{...row, name: "older", revision: row.revision + 9}]);
            return state.rowOf("survey-1").peek().name;
        }"""
    )
    assert shown == "newer"


def test_one_connection(open_page, world):
    """A tab holds one stream, whatever it shows."""
    page = open_page("#/operations/survey-1")
    page.wait_for_selector(".tree-row")
    row(page, "crawl-7f3a").click()
    page.wait_for_selector(".stack pre")
    assert sum("/stream" in line for line in world.requests) == 1


def test_ten_thousand_rows(open_page, world):
    """Of 10,000 operations only those in view are in the page, and the last one can be scrolled to."""
    many(world, 10_000)
    page = open_page()
    count = page.locator(".group-head", has_text="Progressing").locator(".count")
    expect(count).to_have_text("10,005")
    assert page.evaluate("document.querySelectorAll('*').length") < 1500
    assert int(page.locator(".list").get_attribute("aria-rowcount")) > 10_000
    page.evaluate("document.querySelector('.list').scrollTop = 300_000")
    expect(page.locator(".row").first).to_be_visible()
    assert page.evaluate("document.querySelectorAll('*').length") < 1500
    page.locator(".list").focus()
    page.keyboard.press("End")
    expect(page.locator(".row.cursor, .group-head.cursor")).to_be_visible()
    assert page.locator(".row-name a").last.inner_text() in {"etl", "survey", "import", "train"}


def test_what_one_reads_stays(open_page, world):
    """Rows that are added above do not move the visible row."""
    many(world, 300)
    page = open_page()
    expect(page.locator(".group-head", has_text="Progressing").locator(".count")).to_have_text("305")
    page.evaluate("document.querySelector('.list').scrollTop = 6000")
    watched = page.locator(".row-name a", has_text="batch").nth(8)
    ident = watched.evaluate("one => one.closest('.row').id")
    page.wait_for_timeout(100)
    before = page.locator(f"#{ident}").bounding_box()["y"]
    now = time.time()
    for number in range(5):
        world.put(base(f"new-{number}", "new", now, now, verdict={"health": "silent", "reason": "no progress"}))
    expect(page.locator(".summary")).to_contain_text("10 in trouble")
    page.wait_for_timeout(100)
    assert abs(page.locator(f"#{ident}").bounding_box()["y"] - before) < 2


def test_ended_ones_come_when_scrolled_to(open_page, world):
    """Ended operations are loaded page by page; the count is that of all, and no row comes twice."""
    now = time.time()
    many(world, 1500, now=now - 5000, ended=True)
    page = open_page()
    count = page.locator(".group-head", has_text="Ended").locator(".count")
    expect(page.locator(".summary")).to_contain_text("5 in trouble")
    known = "import('/static/state.js').then((state) => state.countKnown())"
    assert page.evaluate(known) <= 300
    page.locator(".list").focus()
    for _ in range(20):
        page.keyboard.press("End")
        page.wait_for_timeout(60)
        if page.evaluate(known) == len(world.operations):
            break
    assert page.evaluate(known) == len(world.operations)
    expect(page.locator(".more")).to_have_count(0)
    page.keyboard.press("Home")
    page.locator(".list").evaluate("one => one.scrollTop = 900")
    expect(count).to_have_text("1,508")


def test_the_monitor_is_told_what_is_visible(open_page, world):
    """The running rows on the screen and the open operation are named, whatever else is loaded; scrolling changes them."""

    def told(holds):
        until = time.monotonic() + 8
        while not holds(world.watching):
            assert time.monotonic() < until, world.watching
            page.wait_for_timeout(20)

    many(world, 1500, now=time.time())
    page = open_page("#/operations/report-7")
    told(lambda ids: {"crawl-7f3a", "report-7"} <= set(ids) and len(ids) < 40)
    page.locator(".list").evaluate("one => one.scrollTop = 30000")
    told(lambda ids: "report-7" in ids and "crawl-7f3a" not in ids and 10 < len(ids) < 40)


def test_search_asks_the_monitor_too(open_page, world):
    """A search filters the page at once, and adds results of the monitor a moment later."""
    many(world, 1500, now=time.time() - 5000, ended=True)
    page = open_page()
    page.locator("#search").fill("crawl")
    expect(page.locator(".row")).to_have_count(2)
    page.locator("#search").fill("batch-01499")
    expect(row(page, "batch-01499")).to_be_visible()
    assert any("search=batch-01499" in line for line in world.requests)
    page.locator("#search").fill("nothing of this kind")
    expect(page.locator(".nothing").first).to_have_text("Nothing matches this filter.")
    page.get_by_role("button", name="Clear filter").click()
    expect(row(page, "crawl-7f3a")).to_be_visible()


def test_chips(open_page):
    """Chips filter by group, status and name, and show counts."""
    page = open_page()
    page.get_by_role("button", name="Filter").click()
    page.get_by_role("button", name="Stuck 1").click()
    page.get_by_role("button", name="Dead 1").click()
    expect(page.locator(".row")).to_have_count(2)
    assert names(page) == ["crawl", "train"]
    page.get_by_role("button", name="Stuck 1").click()
    page.get_by_role("button", name="Dead 1").click()
    page.get_by_role("button", name="failed").click()
    expect(page.locator(".row")).to_have_count(1)
    page.get_by_role("button", name="failed").click()
    page.get_by_label("Name").select_option("import")
    expect(page.locator(".row")).to_have_count(2)


def test_groups_fold(open_page):
    """A group folds away and back, by mouse and by keyboard."""
    page = open_page()
    head = page.locator(".group-head", has_text="Stuck")
    head.click()
    expect(head).to_have_attribute("aria-expanded", "false")
    expect(row(page, "crawl-7f3a")).to_have_count(0)
    page.locator(".list").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    expect(row(page, "crawl-7f3a")).to_be_visible()


def test_trouble_is_announced(open_page, world):
    """Screen readers announce an operation that becomes stuck, and the title counts them."""
    page = open_page()
    expect(page).to_have_title("(5 in trouble) crawl · otel-progress")
    world.put("survey-1", verdict={"health": "silent", "reason": "no progress for 30 s"})
    expect(page.locator("body > [role=status]")).to_have_text("survey is stuck")
    expect(page).to_have_title("(6 in trouble) crawl · otel-progress")


def test_nothing_sent_yet(open_page, world):
    """An empty monitor explains how to send, and shows the first operation by itself."""
    world.operations.clear()
    page = open_page(wait=".empty", permissions=["clipboard-read", "clipboard-write"])
    origin = page.evaluate("location.origin")
    expect(page.locator(".empty")).to_contain_text(f"OTEL_EXPORTER_OTLP_ENDPOINT={origin}")
    expect(page.locator(".empty")).to_contain_text("otel-progress run -- python job.py")
    page.get_by_role("button", name="Copy").first.click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == f"export OTEL_EXPORTER_OTLP_ENDPOINT={origin}"
    now = time.time()
    world.put(base("first", "first", now, now))
    expect(row(page, "first")).to_be_visible()


def test_clocks_may_differ(open_page, world: World):
    """Times come from the monitor's clock, so a wrong clock of the browser changes nothing."""
    page = open_page(wait=None)
    page.clock.install(time=time.time() + 3600)
    page.reload()
    page.wait_for_selector(".row")
    expect(row(page, "review-3")).to_contain_text("waits for human for")
    expect(row(page, "review-3").locator(".row-time")).not_to_contain_text(" h")
