"""The details of an operation on the page."""

from __future__ import annotations

import re
import time

import pytest

pytest.importorskip("playwright", reason="run `pip install playwright`")
from playwright.sync_api import expect
from tests.browser.scene import NASTY, base, progress, stage


def test_header(open_page):
    """The header shows the operation, its agent, its progress, and its ETA with interval and source."""
    page = open_page("#/operations/survey-1", wait=".tree-row")
    title = page.locator(".title")
    expect(title.locator("h1")).to_have_text("survey")
    for words in (
        "Progressing",
        "survey-1",
        "surveyor",
        "atlas:",
        "45%",
        "452 of 1,000 files",
        "38 files/s",
        "reading asyncio/base_events.py",
    ):
        expect(title).to_contain_text(words)
    assert re.fullmatch(r"(about \d+|\d+ to \d+) s left pace now", page.locator(".eta").inner_text())
    assert re.fullmatch(
        r"between \d+ s and \d+ s, in about 80% of all cases", page.locator(".eta").get_attribute("title")
    )
    expect(page).to_have_title("(5 in trouble) survey · otel-progress")


WATCH = """() => {
  window.said = [];
  const look = () => { said.push(document.body?.innerText ?? ""); requestAnimationFrame(look); };
  look();
}"""


def test_a_link_shows_the_operation_at_once(open_page, stub):
    """It is asked for while the page is still being read; no frame before says that there is trouble."""
    page = open_page("#/")
    page.add_init_script(f"({WATCH})()")
    page.goto(f"{stub.url}/?#/operations/survey-1")
    expect(page.locator(".title h1")).to_have_text("survey")
    assert not [text for text in page.evaluate("said") if "could not show" in text]


def test_time_left_in_words(open_page, world):
    """What is stuck has no estimate and says so; a wait delays one, unless it is for the children that give it."""
    now = time.time()
    later = {"seconds": 240.0, "low": 230.0, "high": 250.0, "source": "rate"}
    wait = {"status": "waiting", "wait": {"reason": "approval", "elapsed": 5.0}, "verdict": {"health": "waiting"}}
    world.put(base("late", "gate", now - 9, now, progress=progress(20, 50, eta=later), **wait))
    world.put(
        base("pool", "pool", now - 9, now, progress=progress(20, 50, eta={**later, "source": "children"}), **wait)
    )
    world.put(base("new", "fresh", now - 1, now, progress=progress(0, 200)))
    page = open_page("#/operations/crawl-7f3a", wait=".trouble")
    expect(page.locator(".big-time")).to_contain_text("no estimate while stuck")
    assert page.locator(".eta").count() == 0
    for key, said in (
        ("late", "then about 4 min pace now"),
        ("pool", "about 4 min left from its children"),
        ("new", "no estimate yet"),
    ):
        page.goto(re.sub("operations/.*", f"operations/{key}", page.url))
        expect(page.locator(".big-time")).to_contain_text(said)
    rows = page.locator(".row")
    expect(rows.filter(has_text="gate").locator(".row-time")).not_to_contain_text("min left")
    expect(rows.filter(has_text="pool").locator(".row-time")).to_contain_text("about 4 min left")


def test_evidence(open_page):
    """A stuck operation shows for how long, its limit, the source of the limit, and its call stack."""
    page = open_page("#/operations/crawl-7f3a", wait=".trouble", permissions=["clipboard-read", "clipboard-write"])
    trouble = page.locator(".trouble")
    for words in (
        "Stuck",
        "no progress for 3",
        "the limit is 30 s (stall_after, learned from 41 runs)",
        "12 of 50 pages",
        "agent.py:42 in fetch",
        "session.get(url)",
    ):
        expect(trouble).to_contain_text(words)
    page.get_by_role("button", name="Copy the stack").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert 'File "/srv/demo/agent.py"' in page.evaluate("navigator.clipboard.readText()")
    page.goto(page.url.replace("crawl-7f3a", "agent-loop-2"))
    expect(page.locator(".loop")).to_contain_text("14 times")
    expect(page.locator(".loop li")).to_have_count(2)


def test_tree(open_page):
    """Stages are below their parents, each with its bar; work without a known total shows no made-up number."""
    page = open_page("#/operations/survey-1", wait=".tree-row")
    lines = page.locator(".tree-row")
    expect(lines.filter(has_text="120 earlier, completed")).to_have_count(1)
    assert lines.filter(has_text="library").first.get_attribute("data-depth") == "1"
    tests = page.get_by_role("progressbar", name="progress of tests")
    expect(tests).to_have_attribute("aria-valuenow", "100")
    vendored = page.get_by_role("progressbar", name="progress of vendored")
    assert vendored.get_attribute("aria-valuenow") is None
    expect(lines.filter(has_text="vendored")).to_contain_text("8,231 tokens")
    expect(lines.filter(has_text="summarise")).to_contain_text("about 20 s")
    expect(lines.filter(has_text="upload")).to_contain_text("optional")


def test_children(open_page, world):
    """Children are in the tree with their own bars, which advance; a click opens one, and breadcrumbs lead back."""
    page = open_page("#/operations/survey-1", wait=".tree-row")
    expect(page.locator(".tree-row.child")).to_have_count(3)
    bar = page.locator(".tree-row.child").filter(has_text="part-2").get_by_role("progressbar")
    expect(bar).to_have_attribute("aria-valuenow", "64")
    world.put("survey-1/part-2", progress=progress(400, 500))
    expect(bar).to_have_attribute("aria-valuenow", "80")
    page.locator(".tree-row.child a").nth(1).click()
    expect(page.locator(".title .id").first).to_have_text("survey-1/part-2")
    page.locator(".crumbs a").click()
    expect(page.locator(".title .id").first).to_have_text("survey-1")


def test_time_line(open_page, world):
    """The timeline shows a stage where it ran, with its waits and stalls."""
    start = time.time() - 100
    stages = [stage("one", "completed", start, 25), stage("two", "completed", start + 50, 50)]
    marks = [
        {"kind": "wait", "stage": "two", "from": start + 75, "to": start + 100, "reason": "approval"},
        {"kind": "stall", "stage": "one", "from": start, "to": start + 25},
    ]
    world.put(
        base("gantt", "gantt", start, start + 100, status="completed", elapsed=100.0, stages=stages, timeline=marks)
    )
    page = open_page("#/operations/gantt", wait=".tree-row")

    def share(selector):
        box, lane = page.locator(selector).first.bounding_box(), page.locator(".lane").first.bounding_box()
        return round((box["x"] - lane["x"]) / lane["width"], 2), round(box["width"] / lane["width"], 2)

    assert share(".tree-row:nth-child(2) .lane-bar") == (0.0, 0.25)
    assert share(".tree-row:nth-child(3) .lane-bar") == (0.5, 0.5)
    assert share(".mark-wait") == (0.75, 0.25)
    assert share(".mark-stall") == (0.0, 0.25)
    expect(page.locator(".now-line")).to_have_count(0)
    expect(page.locator(".legend li").first).to_have_text("wait in two: approval, 25 s")


def test_facts(open_page):
    """Attributes, results, counters, outcomes, cost, tokens and limits are shown; the trace is a link if there is one."""
    page = open_page("#/operations/survey-1", wait=".cards")
    cards = page.locator(".cards")
    for words in ("0.1234 USD", "12,400", "431", "182,344", "/usr/lib/python3.11", "learned from 41 runs", "each 5 s"):
        expect(cards).to_contain_text(words)
    trace = page.get_by_role("link", name="Trace")
    assert trace.get_attribute("href").startswith("https://tempo.example/trace/4bf9")
    assert trace.get_attribute("rel") == "noopener noreferrer"
    page.goto(page.url.replace("survey-1", "crawl-7f3a"))
    expect(page.locator(".trace")).to_contain_text("4bf92f3577b34da6a3ce929d0e0e4736")
    expect(page.locator(".trace a")).to_have_count(0)


def test_feed_follows(open_page, world):
    """The feed follows its end unless the user scrolled up; then it shows the number of new lines. No line comes twice."""
    for number in range(150):
        world.say("survey-1", "progress.note", f"line {number}", agent="reader")
    page = open_page("#/operations/survey-1", wait=".line")
    box = page.locator(".feed-box")
    # A monitor that repeats its last line with the new ones.
    again = re.compile(r"after=(\d+)")
    page.route(
        again,
        lambda route: route.continue_(url=again.sub(lambda found: f"after={int(found[1]) - 1}", route.request.url)),
    )
    expect(page.get_by_text("line 149")).to_be_in_viewport()
    world.say("survey-1", "progress.note", "line 150", agent="reader")
    world.put("survey-1")
    expect(page.get_by_text("line 150")).to_be_in_viewport()
    box.evaluate("one => one.scrollTop = one.scrollHeight / 2")
    world.say("survey-1", "progress.note", "line 151", agent="reader")
    world.put("survey-1")
    fresh = page.get_by_role("button", name="1 new")
    expect(fresh).to_be_visible()
    expect(page.get_by_text("line 151")).not_to_be_in_viewport()
    fresh.click()
    expect(page.get_by_text("line 151")).to_be_in_viewport()
    for _ in range(10):
        box.evaluate("one => one.scrollTop = 0")
        page.wait_for_timeout(80)
        if page.get_by_text("looks below").count():
            break
    texts = page.locator(".line-text > bdi").all_text_contents()
    lines = [text for text in texts if text.startswith("line ")]
    assert lines == [f"line {number}" for number in range(152)]
    expect(page.get_by_role("button", name="Older")).to_have_count(0)


def test_feed_shows_an_overdue_wait(open_page, world):
    """A wait that is overdue is a line of its own, with its evidence, also while the wait goes on."""
    world.say(
        "survey-1",
        "progress.wait.overdue",
        "a wait is overdue: waiting for 60 s, overdue_after is 60 s",
        stage="parse/library",
        attributes={
            "progress.health.reason": "waiting for 60 s, overdue_after is 60 s",
            "progress.wait.reason": "approval",
            "progress.wait.overdue_by": 0.2,
        },
    )
    page = open_page("#/operations/survey-1", wait=".line")
    line = page.locator(".line", has=page.locator(".line-kind", has_text="overdue"))
    expect(line).to_have_count(1)
    expect(line.locator(".line-text")).to_contain_text("waiting for 1 min")


def test_feed_of_one_agent(open_page):
    """The feed can be filtered by agent, and can include plain updates."""
    page = open_page("#/operations/survey-1", wait=".line")
    expect(page.locator(".line-kind", has_text="update")).to_have_count(0)
    page.get_by_label("Agent").select_option("critic")
    expect(page.locator(".line")).to_have_count(2)
    page.get_by_label("Agent").select_option("")
    page.get_by_label("updates").check()
    expect(page.locator(".line-kind", has_text="update")).to_have_count(1)


def test_three_tools_with_one_that_hangs(open_page, world):
    """Parallel branches are listed with a verdict each; only the stage that hangs is marked."""
    now = time.time()
    branches = [
        {"label": "search", "path": "search", "health": "silent", "idle": 34.0, "stall_after": 4.0, "stuck_at": "tools.py:12 in search"},
        {"label": "approval", "path": "approval", "health": "progressing", "wait": {"reason": "ada", "elapsed": 40.0, "overdue_after": 6.0}},
        {"label": "weather", "path": "weather", "health": "progressing", "idle": 0.2, "stall_after": 4.0},
    ]  # fmt: skip
    stages = [stage(one["label"], "running", now - 40, 40.0) for one in branches]
    verdict = {"health": "silent", "branch": "search", "reason": "search: no progress for 34 s, stall_after is 4 s"}
    world.put(base("tools", "agent", now - 40, now, idle=34.0, stage="search", stages=stages, branches=branches, verdict=verdict))  # fmt: skip
    page = open_page("#/operations/tools", wait=".branches li")
    lines = page.locator(".branches li")
    assert [line.locator(".branch-state").inner_text() for line in lines.all()] == ["Stuck", "Overdue", "Progressing"]
    expect(lines.nth(0)).to_contain_text(re.compile(r"search.*no progress for 3\d s of 4 s.*at tools.py:12"))
    expect(lines.nth(1)).to_contain_text(re.compile(r"waits for ada for 4\d s, of at most 6 s"))
    rows = page.locator(".tree-row")
    expect(rows.filter(has_text="search")).to_contain_text("Stuck")
    expect(rows.filter(has_text="weather")).not_to_contain_text("Stuck")
    expect(page.locator(".row.current")).to_contain_text(re.compile(r"search: no progress for 3\d s"))


def test_runs_of_a_stage_are_one_row(open_page, world):
    """A repeated stage is one row with counts and quantiles; a failed run is below it."""
    now = time.time()
    runs = [stage("fetch", "failed" if number == 7 else "completed", now - 40 + number, 0.5) for number in range(30)]
    runs[7]["reason"] = "HTTP 500"
    told = [{"path": "fetch", "counts": {"completed": 399, "failed": 1}, "seconds": 120.0, "median": 0.25, "p90": 0.5, "p95": 0.75, "longest": 2.5, "folded": 370}]  # fmt: skip
    world.put(base("many", "many", now - 40, now, stages=[*runs, stage("store", "running", now, 1.0)], folded=[["completed", 370, 90.0]]))  # fmt: skip
    page = open_page("#/operations/many", wait=".tree-row")
    row = page.locator(".tree-row.runs")
    expect(row).to_have_count(1)
    expect(row).to_contain_text(re.compile(r"fetch\s*.30.*1 failed.*500 ms · p95 500 ms"))
    expect(page.locator(".tree-row").filter(has_text="HTTP 500")).to_have_count(1)
    expect(page.locator(".tree-row.folded")).to_contain_text("370 earlier")
    row.get_by_role("button").click()
    expect(page.locator(".tree-row.run")).to_have_count(30)
    world.put("many", repeated=told)
    expect(row).to_contain_text(re.compile(r"fetch\s*.400.*1 failed.*250 ms · p95 750 ms"))
    expect(page.locator(".tree-row.folded")).to_have_count(0)


def test_children_are_told_apart(open_page, world):
    """Children of one name show the attribute in which they differ, else their description."""
    now = time.time()
    world.put(base("parent", "parent", now - 40, now))
    for number, city in enumerate(("Bonn", "Mainz")):
        world.put(base(f"c0ffee-{number}", "look", now - 9, now, parent_id="parent", attributes={"model": "m", "city": city}))  # fmt: skip
        world.put(base(f"d0ffee-{number}", "tell", now - 9, now, parent_id="parent", description=f"tells of {city}"))
    page = open_page("#/operations/parent", wait=".tree-row.child")
    labels = page.locator(".child-label").all_inner_texts()
    assert sorted(labels) == ["city=Bonn", "city=Mainz", "tells of Bonn", "tells of Mainz"]


def test_feed_folds(open_page, world):
    """The end of an activity replaces its start; repeated lines become one."""
    now = time.time()
    world.put(base("feed", "feed", now - 40, now, stages=[stage("think", "running", now - 9, 9.0)]))
    for number in range(20):
        world.say("feed", "progress.stage.started", stage="fetch", timestamp=now - 40 + number)
        world.say("feed", "progress.stage.ended", stage="fetch", status="completed", timestamp=now - 39.5 + number)
    world.say("feed", "progress.stage.started", stage="think", timestamp=now - 9)
    page = open_page("#/operations/feed", wait=".line")
    lines = page.locator(".line")
    expect(lines).to_have_count(2)
    expect(lines.nth(0)).to_contain_text(re.compile(r"fetch\s*.20\s*completed\s*10 s in all"))
    expect(lines.nth(1)).to_contain_text(re.compile(r"think\s*runs"))
    world.say("feed", "progress.note", "a thought", stage="think")
    world.say("feed", "progress.stage.ended", stage="think", status="failed", timestamp=now - 5)
    world.put("feed")
    expect(lines).to_have_count(3)
    expect(lines.nth(2)).to_contain_text(re.compile(r"think\s*failed\s*4 s"))


def test_feed_of_activities(open_page, world):
    """The note that ends an activity replaces the note that started it."""
    now = time.time()
    world.put(base("feed", "feed", now - 40, now))
    world.say("feed", "progress.note", "searches", status="running", agent="ada", timestamp=now - 9)
    page = open_page("#/operations/feed", wait=".line")
    lines = page.locator(".line")
    expect(lines).to_contain_text([re.compile(r"runs\s*searches")])
    world.say("feed", "progress.note", "searches", status="ok", agent="ada", timestamp=now - 5)
    world.put("feed")
    expect(lines).to_contain_text([re.compile(r"ok\s*searches\s*4 s")])


def test_feed_filter(open_page, world):
    """The feed can be filtered by kind and text; attributes of a note are shown, nested values as JSON."""
    now = time.time()
    world.put(base("feed", "feed", now - 40, now))
    world.say("feed", "progress.stage.started", stage="fetch")
    given = {"progress.note.text": "asks", "city": "Bonn", "args": '{"days": [1, 2]}'}
    world.say("feed", "progress.note", "asks", agent="ada", attributes=given)
    world.say("feed", "progress.note", "no answer", status="warning", agent="bob")
    page = open_page("#/operations/feed", wait=".line")
    lines = page.locator(".line")
    expect(lines).to_have_count(3)
    expect(lines.nth(1)).to_contain_text(re.compile(r'city\s*Bonn\s*args\s*\{"days":\[1,2\]\}'))
    colours = [
        lines.nth(at).locator(".line-foot .agent").evaluate("one => getComputedStyle(one).color") for at in (1, 2)
    ]
    assert colours[0] != colours[1]
    page.get_by_label("Kind").select_option("note")
    expect(lines).to_have_count(2)
    page.get_by_label("Kind").select_option("problem")
    expect(lines).to_have_text(re.compile("no answer"))
    page.get_by_label("Kind").select_option("")
    page.get_by_label("Text in the activity").fill("bonn")
    expect(lines).to_have_text(re.compile("asks"))


def test_no_estimate(open_page, world):
    """Without an estimate, and once its time has passed, the page says so; a failed operation shows no 99%."""
    now = time.time()
    world.put(base("soon", "soon", now - 40, now - 10, progress=progress(5, 10, eta={"seconds": 3.0, "low": 1.0, "high": 5.0})))  # fmt: skip
    page = open_page("#/operations/soon", wait=".big")
    expect(page.locator(".big-time")).to_contain_text("no estimate")
    expect(page.locator(".row.current")).not_to_contain_text("moment")
    world.put("soon", status="failed", progress=progress(9, 10))
    expect(page.locator(".big-percent")).to_have_text("failed")
    expect(page.locator(".big-words")).to_contain_text("at 90%")


def test_hint(open_page, world):
    """The end of a failed operation shows its reason and the hint, as text, also one without the other."""
    now = time.time()
    world.put(
        base("full", "full", now - 40, now - 10, status="failed", reason="OSError: full", hint="free <b>2 GB</b>")
    )
    page = open_page("#/operations/full", wait=".trouble")
    expect(page.locator(".trouble")).to_contain_text("OSError: full")
    expect(page.locator(".trouble")).to_contain_text("hint: free <b>2 GB</b>")
    world.put("full", reason=None)
    expect(page.locator(".trouble")).not_to_contain_text("OSError")
    expect(page.locator(".trouble")).to_contain_text("hint: free")


def test_warning(open_page, world):
    """What is wrong with what is heard of an operation is marked in its row, and said in the detail, as text."""
    now = time.time()
    said = "the updates of its last 35 s can't be read <b>now</b>"
    world.put(base("lossy", "lossy", now - 40, now - 10, warning=said, progress=progress(5, 10)))
    page = open_page("#/operations/lossy", wait=".big")
    expect(page.locator("header p.warned")).to_have_text(said)
    page.get_by_label("Search operations").fill("lossy")
    expect(page.locator(".row .tag.warned")).to_have_attribute("title", said)
    world.put("lossy", warning=None)
    expect(page.locator(".warned")).to_have_count(0)


def test_text_is_text(open_page):
    """Telemetry is always shown as text; links lead only to http(s)."""
    page = open_page(
        "#/operations/%D9%86%D8%B5%2F%F0%9F%98%80", wait=".cards", viewport={"width": 1440, "height": 2400}
    )
    expect(page.locator("h1")).to_contain_text(NASTY)
    for part in (".description", ".facts", ".tree", ".cards", ".line", ".list"):
        expect(page.locator(part).first).to_contain_text("<script>alert(1)</script>")
    assert page.locator("#app script, #app img[src=x], #app [onerror]").count() == 0
    links = page.locator("#app a").evaluate_all("all => all.map((one) => one.href)")
    assert all(link.startswith("http") for link in links), links
    assert "https://example.org/x?a=b" in links
    page.get_by_role("button", name="more").first.click()
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, {"state": "obeyed"}), "Obeyed. It has ended."),
        ((202, {"state": "received"}), "Received. Its process received the request"),
        ((504, {"state": "timed out"}), "Timed out. Its process did not answer"),
        ((409, {"error": "it is over already"}), "Not cancelled. it is over already"),
    ],
)
def test_cancel(open_page, world, answer, said):
    """Cancel asks for confirmation, sends the reason, and shows the outcome."""
    world.on_cancel["survey-1"] = answer
    page = open_page("#/operations/survey-1", wait=".tree-row")
    page.get_by_role("button", name="Cancel").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Cancel survey?")
    dialog.get_by_label("Reason").fill("wrong & slow")
    assert not any(line.startswith("DELETE") for line in world.requests)
    dialog.get_by_role("button", name="Cancel operation").click()
    expect(dialog.get_by_role("status")).to_contain_text(said)
    assert "DELETE /operations/survey-1?wait=5&reason=wrong%20%26%20slow" in world.requests
    dialog.get_by_role("button", name="Close").last.click()
    expect(dialog).to_have_count(0)
    if answer[0] == 200:
        expect(page.locator(".trouble")).to_contain_text("wrong & slow")
        expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    if answer[0] == 202:
        expect(page.locator(".cancel")).to_contain_text("asked to stop")


def test_cancel_that_can_not_be(open_page, world):
    """If the process cannot be reached, or the user lacks the right, cancel is disabled and says why."""
    page = open_page("#/operations/train-12", wait=".title")
    expect(page.get_by_role("button", name="Cancel")).to_be_disabled()
    expect(page.locator(".cancel-why")).to_contain_text("no control channel")
    world.rights = ["read"]
    page.goto(page.url.replace("train-12", "survey-1"))
    page.reload()
    expect(page.locator(".cancel-why")).to_contain_text("may read, but not cancel")
    page.locator("body").press("c")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_not_known(open_page):
    """The address of an unknown operation says so, and shows the operation when it appears."""
    page = open_page("#/operations/nobody%2Fknows")
    expect(page.locator("h1")).to_have_text("This operation is not known")
    expect(page.locator(".detail")).to_contain_text("nobody/knows")
    page.get_by_role("button", name="Back to the operations").click()
    expect(page.locator(".detail")).to_contain_text("Choose an operation")


def test_appears_later(open_page, world):
    """An operation that was opened before it began appears by itself."""
    page = open_page("#/operations/soon")
    expect(page.locator("h1")).to_have_text("This operation is not known")
    now = time.time()
    world.put(base("soon", "soon", now, now))
    expect(page.locator("h1")).to_have_text("soon")


def test_detail_follows(open_page, world):
    """The open operation is requested when it changes, at most four times a second."""
    page = open_page("#/operations/survey-1", wait=".tree-row")
    page.wait_for_timeout(400)
    before = sum(line.startswith("GET /operations/survey-1?") for line in world.requests)
    began = time.time()
    for number in range(20):
        world.put("survey-1", progress=progress(500 + number, 1000))
        page.wait_for_timeout(50)
    expect(page.locator(".big-percent")).to_have_text("51%")
    asked = sum(line.startswith("GET /operations/survey-1?") for line in world.requests) - before
    assert 2 <= asked <= 4 * (time.time() - began) + 2


def test_child_that_is_the_cause_is_named(open_page, world):
    """An operation that waits for a stuck child in another process says so, in details and list, with a link to it."""
    now = time.time()
    reason = "waits for child sub/sub-1 in another process, which is stuck (no progress for 34 s, stall_after is 4 s)"
    world.put(base("parent", "parent", now - 40, now, idle=3.0, verdict={"health": "stuck", "reason": reason, "child": "sub-1"}))  # fmt: skip
    page = open_page("#/operations/parent", wait=".trouble")
    for place in (".trouble .evidence", ".row.current .why"):
        expect(page.locator(place)).to_contain_text(re.compile(r"which is stuck \(no progress for 3\d s, stall_after"))
        link = page.locator(place).get_by_role("link", name="child sub/sub-1")
        expect(link).to_have_attribute("href", "#/operations/sub-1")
    page.locator(".row.current .why a").click()
    page.wait_for_url(re.compile("#/operations/sub-1$"))


def test_feed_says_how_a_stage_ended(open_page, world):
    """The end of a stage is shown with its own status, even if only the text has it; else as a plain end."""
    now = time.time()
    world.put(base("ends", "ends", now - 40, now))
    for number, text in enumerate(("ends: stage a cancelled after 1 s", "ends: stage a failed after 1 s: X", "")):
        world.say("ends", "progress.stage.ended", text, stage="a", timestamp=now - 9 + number)
    page = open_page("#/operations/ends", wait=".line")
    assert page.locator(".line-kind").all_inner_texts() == ["cancelled", "failed", "ended"]
    expect(page.locator(".line svg.tone-good")).to_have_count(0)


def test_clocks_end_with_the_last_sign_of_life(open_page, world):
    """A dead, frozen or unknown operation shows the times of its last sign of life, in list and details."""
    now = time.time()
    for health in ("dead", "unknown"):
        world.put(base(health, health, now - 700, now - 600, elapsed=100.0, idle=7.0, verdict={"health": health, "reason": "not heard of for 600 s"}))  # fmt: skip
        page = open_page(f"#/operations/{health}", wait=".big-time")
        expect(page.locator(".big-time")).to_contain_text("1 min 40 s elapsed")
        expect(page.locator(".row.current .row-time")).to_have_text("1 min 40 s")


def test_no_pace_of_what_is_stuck(open_page, world):
    """A stuck operation and its stage show no rate; a child from before this attempt says so."""
    now = time.time()
    counted = {"completed": 3, "total": 9, "unit": "file", "rate": 2.0, "ratio": 0.33}
    steps = [{**stage("s", "running", now - 40, 40.0), "progress": counted}]
    more = {"stages": steps, "stage": "s", "progress": counted, "attempt": 2}
    for health, paces in (("stuck", 0), ("progressing", 2)):
        world.put(base(health, health, now - 40, now, verdict={"health": health, "reason": "x"}, **more))
        for name, began in (("old", 90), ("new", 10)):
            world.put(base(f"{health}/{name}", name, now - began, now, parent_id=health))
        page = open_page(f"#/operations/{health}", wait=".tree-row.child")
        expect(page.locator(".detail-main").get_by_text("files/s")).to_have_count(paces)
        expect(page.locator(".tree-row.child", has_text="earlier attempt")).to_have_count(1)


def test_attempts_are_one_history(open_page, world):
    """The attempts of an id stand below each other, the newest first; each says how it ended and where it was."""
    now = time.time()
    ended = {"ended_at": now - 400, "status": "lost", "ratio": 0.1, "reason": "its process was killed by SIGKILL"}
    attempts = [
        {"attempt": 1, "started_at": now - 609, "signal": "SIGKILL", **ended},
        {"attempt": 2, "started_at": now - 390},
        {"attempt": 3, "started_at": now - 60, "status": "running", "from": 0.1},
    ]
    world.put(base("ingest-7", "ingest", now - 60, now, attempt=3, progress=progress(45, 100), attempts=attempts))
    page = open_page("#/operations/ingest-7", wait=".attempts")
    rows = page.locator(".attempts li")
    expect(rows).to_have_count(3)
    for row, words in enumerate(
        (
            ("attempt 3", "progressing", "since ", "10% to 45%"),
            ("attempt 2", "unknown", "no end was reported"),
            ("attempt 1", "lost", "killed by SIGKILL", "3 min 29 s", "at 10%"),
        )
    ):
        for word in words:
            expect(rows.nth(row)).to_contain_text(word, ignore_case=True)
    expect(page.locator(".again")).to_have_count(0)


def test_command_to_copy(open_page, world):
    """What did not complete shows the command that starts it again, to copy; with a checkpoint, that resumes it."""
    now = time.time()
    line = "cd '/srv/the jobs' && python3 ingest.py --token '[redacted]' '<b>'"
    command = {"args": ["python3"], "folder": "/srv/the jobs", "line": line, "masked": True}
    world.put(base("ingest-7", "ingest", now - 60, now, status="lost", command=command, checkpoint_at=now - 240))
    world.put(base("ingest-8", "ingest", now - 60, now, status="failed", command=command))
    world.put(base("ingest-9", "ingest", now - 60, now, status="completed", command=command))
    page = open_page("#/operations/ingest-7", wait=".again", permissions=["clipboard-read", "clipboard-write"])
    again = page.locator(".again")
    for words in ("Resume it", line, "last checkpoint 4 min", "secrets are masked"):
        expect(again).to_contain_text(words)
    again.get_by_role("button", name="Copy").click()
    expect(again.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == line
    page.goto(page.url.replace("ingest-7", "ingest-8"))
    expect(again).to_contain_text("Start it again")
    page.goto(page.url.replace("ingest-8", "ingest-9"))
    expect(page.locator("h1")).to_have_text("ingest")
    expect(again).to_have_count(0)


def test_charts_of_progress(open_page, world):
    """Units and rate over time are drawn, in words too; without a count there is no chart, and no empty one."""
    now = time.time()
    curve = [[float(at), 3 * at] for at in range(1, 61)]
    counted = progress(180, 400, unit="record")
    world.put(base("drawn", "drawn", now - 60, now, progress=counted, statistics={"curve": curve}))
    world.put(base("bare", "bare", now - 60, now, progress={"unit": "1"}, statistics={"curve": []}))
    page = open_page("#/operations/drawn", wait=".chart")
    charts = page.locator(".chart")
    assert charts.count() == 2
    expect(charts.nth(0)).to_contain_text("180 records")
    expect(charts.nth(1)).to_contain_text("3.0 records/s on average")
    expect(charts.nth(0).locator("svg")).to_have_attribute("aria-label", "Completed: 180 records")
    page.goto(re.sub("operations/.*", "operations/bare", page.url))
    expect(page.locator("h1")).to_have_text("bare")
    assert page.locator(".chart").count() == 0


def test_charts_of_what_stands_still_or_is_invalid(open_page, world):
    """A line of what is stuck goes on flat until now; points that are no numbers are left out."""
    now = time.time()
    curve = [[1.0, 5], [2.0, 10], ["x", 3], [3.0], None, [30.0, 100]]
    world.put(
        base("still", "still", now - 300, now, idle=270.0, progress=progress(100, 400), statistics={"curve": curve})
    )
    page = open_page("#/operations/still", wait=".chart", viewport={"width": 390, "height": 900})
    line = page.locator(".chart").nth(0).locator(".chart-line").get_attribute("d")
    last, end = (spot.split() for spot in line.removeprefix("M").split("L")[-2:])
    assert (last[1], end[1]) == ("90", "90")
    assert float(end[0]) > 600 > 70 > float(last[0])
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_mean_rate_is_of_the_whole_run(open_page):
    """Units that came before the first point count, those of an earlier attempt do not."""
    found = open_page().evaluate("""async () => {
        const { meanOf } = await import("/static/charts.js");
        return [meanOf([[0.1, 60], [6, 60]]), meanOf([[0, 150], [5, 200]], 150), meanOf([]), meanOf([[0, 0]])];
    }""")
    assert found == [10, 10, 0, 0]


def test_the_feed_takes_the_time_of_a_stage_from_its_end(open_page):
    """Stages of one name side by side, or without a known start, have their own time; a sum is of all, or unknown."""
    found = open_page().evaluate("""async () => {
        const { activities } = await import("/static/activity.js");
        let id = 0;
        const line = (what, timestamp, seconds) => ({ id: ++id, event: `progress.stage.${what}`, stage: "s", timestamp, text: "n: stage s completed after 1 s", attributes: seconds == null ? undefined : { "progress.stage.elapsed": seconds } });
        const times = (lines) => activities(lines, new Set()).map(({ seconds, count }) => [seconds, count]);
        return [
            times([line("started", 0), line("started", 1), line("ended", 2, 1), line("ended", 3, 3)]),
            times([line("ended", 2, 0.25), line("ended", 3, 0.5)]),
            times([line("ended", 2), line("ended", 3, 0.5)]),
            times([line("started", 1), line("ended", 3)]),
        ];
    }""")
    assert found == [[[4, 2]], [[0.75, 2]], [[None, 2]], [[2, 1]]]


def test_rates_over_time(open_page):
    """Intervals are joined until each has its share; the rate is that of all units in it, and never below 0."""
    found = open_page().evaluate("""async () => {
        const { ratesOf, topOf, pointsOf } = await import("/static/charts.js");
        return [
            ratesOf([[0, 0], [10, 20], [20, 20], [30, 10]]), ratesOf([[0, 0], [1, 5], [2, 10], [100, 206]], 10), ratesOf([[5, 1]]), ratesOf([]),
            [0, 0.013, 7, 2300, NaN].map(topOf), pointsOf("x"), pointsOf([[2, 1], [1, 3], [2, 9]]),
        ];
    }""")
    assert found[:4] == [[[0, 10, 2], [10, 20, 0], [20, 30, 0]], [[0, 100, 2.06]], [], []]
    assert found[4] == pytest.approx([1, 0.02, 10, 2500, 1])
    assert found[5:] == [[], [[1, 3], [2, 1]]]


@pytest.mark.parametrize(("done", "said", "width"), [(60, "60%", "60%"), (100, "100%", "100%"), (None, "100%", "100%")])
def test_what_completed_below_its_total_is_no_100_percent(open_page, world, done, said, width):
    """A completed operation shows the percentage of its count, and 100% where it has none."""
    now = time.time()
    counted = {} if done is None else progress(done, 100, unit="row")
    world.put(base("sixty", "sixty", now - 60, now, status="completed", progress=counted, stages=[stage("load", "completed", now - 50, 9.0, progress=counted)]))  # fmt: skip
    page = open_page("#/operations/sixty", wait=".big")
    expect(page.locator(".big-percent")).to_have_text(said)
    assert page.locator(".big .bar-fill").evaluate("one => one.style.width") == width
    assert page.locator(".tree .bar-fill").first.evaluate("one => one.style.width") == width


def test_a_stall_outside_a_stage_stays_in_the_feed(open_page, world):
    """That it was stuck stays a line of its own, with its evidence, once it moves again, with or without a stage."""
    now = time.time()
    world.put(base("feed", "feed", now - 60, now))
    world.say("feed", "progress.stalled", timestamp=now - 30, attributes={"progress.health.reason": "no progress for 9 s"})  # fmt: skip
    world.say("feed", "progress.recovered", timestamp=now - 20)
    world.say("feed", "progress.stalled", stage="load", timestamp=now - 10, attributes={"progress.health.reason": "no progress for 5 s"})  # fmt: skip
    world.say("feed", "progress.recovered", timestamp=now - 7)
    page = open_page("#/operations/feed", wait=".line")
    lines = page.locator(".line")
    expect(lines).to_contain_text(
        [
            re.compile(r"stuck\s*no progress for 9 s"),
            re.compile(r"moves again\s*after 10 s"),
            re.compile(r"stuck\s*no progress for 5 s"),
            re.compile(r"moves again\s*after 3 s"),
        ]
    )
    assert page.locator(".line.going").count() == 0


def test_a_line_says_a_word_once(open_page, world):
    """A note does not repeat its status, and the time of a wait does not run into that by which it was overdue."""
    now = time.time()
    world.put(base("feed", "feed", now - 60, now))
    world.say("feed", "progress.note", "failed: DATEV ledger 0", status="failed", timestamp=now - 9)
    waited = {"progress.wait.reason": "approval", "progress.wait.duration": 2.0, "progress.wait.overdue_by": 1.0}
    world.say("feed", "progress.wait.ended", timestamp=now - 5, attributes=waited)
    page = open_page("#/operations/feed", wait=".line")
    lines = page.locator(".line-text")
    expect(lines.nth(0)).to_contain_text(re.compile(r"^failed\s*DATEV ledger 0"))
    expect(lines.nth(1)).to_contain_text(re.compile(r"waited for\s*approval\s*2 s, overdue by 1 s"))


def test_the_mean_rate_is_that_of_the_whole_run(open_page, world):
    """It counts from the start, and units of an earlier attempt, which were there at the start, are named apart."""
    now = time.time()
    curve = [[1.7, 3], [5.0, 9], [10.0, 20]]
    done = progress(20, 20, unit="ledger")
    world.put(base("mean", "mean", now - 10, now, status="completed", progress=done, statistics={"curve": curve}))
    more = progress(20, 20, unit="ledger", restored=10)
    again = {"curve": [[2.0, 12], [5.0, 16], [10.0, 20]]}
    world.put(base("again", "again", now - 10, now, status="completed", progress=more, statistics=again))
    page = open_page("#/operations/mean", wait=".chart")
    expect(page.locator(".chart").nth(1)).to_contain_text("2.0 ledgers/s on average")
    page.goto(re.sub("operations/.*", "operations/again", page.url))
    expect(page.locator("h1")).to_have_text("again")
    expect(page.locator(".chart").nth(0)).to_contain_text("20 ledgers, 10 ledgers of an earlier attempt")
    expect(page.locator(".chart").nth(1)).to_contain_text("1.0 ledgers/s on average")
    line = page.locator(".chart").nth(0).locator(".chart-line").get_attribute("d")
    assert line.startswith("M0 60L"), "the line starts at half of the total, not at zero"
