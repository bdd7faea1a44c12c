"""The HTML report in a real Chromium: nothing in it runs, it fits a phone, and it prints on A4."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("playwright", reason="run `pip install playwright`")

from otel_progress.model.snapshot import Progress, Snapshot, StageSnapshot
from otel_progress.model.status import Status
from otel_progress.model.values import Attributes
from otel_progress.reports.comparison import compare
from otel_progress.reports.html import html
from otel_progress.reports.run import Pause, Run, Told

AT = 1_700_000_000.0
HOSTILE = (
    "<script>document.title='owned'</script>\"'><img src=x onerror=\"document.title='owned'\"><svg onload=alert(1)>"
)


def run_of(stages=6, feed=20, text="a stage"):
    """A run with all that a report can show, and `text` in every place."""
    listed = tuple(
        StageSnapshot(
            f"{text} {n}", f"{text} {n}", Status.COMPLETED, Progress(5, 10, text), started_at=AT + n, elapsed=2.0
        )
        for n in range(stages)
    )
    snapshot = Snapshot(
        text,
        text,
        Status.FAILED,
        AT + 100,
        attempt=2,
        started_at=AT,
        elapsed=100.0,
        reason=text,
        hint=text,
        stuck_at=text,
        stack=text,
        description=text,
        stages=listed,
        progress=Progress(5, 10, text, 0.5, 0.5),
        outcomes=Attributes({"ok": 3, "failed": 2, text: 1}),
        components=((text, Attributes({"ok": 3, "failed": 2})),),
        failures=((text, 2),),
        attributes=Attributes({text: text}),
        curve=tuple((float(n), n * n) for n in range(20)),
    )
    pauses = (Pause("wait", f"{text} 1", AT + 1, AT + 2, text), Pause("stall", None, AT + 5, None, text, text))
    told = tuple(Told(n, AT + n, "progress.note", None, f"{text} {n}") for n in range(feed))
    return Run(snapshot, text, pauses, told, children=(snapshot,))


@pytest.fixture
def show(browser, tmp_path):
    """Return a function that opens a report; any dialog, request or console message of it fails the test."""
    pages, problems = [], []

    def shown(report, width=1280):
        path = tmp_path / "report.html"
        path.write_text(html(report), encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 844})
        page = context.new_page()
        page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
        page.on("console", lambda message: problems.append(message.text))
        page.on("request", lambda request: problems.append(request.url) if request.url != path.as_uri() else None)
        pages.append(context)
        page.goto(path.as_uri())
        return page

    yield shown
    for context in pages:
        context.close()
    assert problems == []


def test_markup_in_every_text_is_text(show):
    """A name, a reason, a unit, a line of code with markup shows as it is, and runs nothing."""
    page = show(run_of(text=HOSTILE))
    page.wait_for_timeout(100)
    assert "owned" not in page.title().replace(HOSTILE, "")
    assert page.locator("h1").inner_text() == HOSTILE
    assert page.locator("script, img, iframe, object, embed, link, a").count() == 0


def test_it_loads_nothing(show):
    """The file is whole: no request leaves it, and its policy allows none."""
    page = show(run_of())
    policy = page.locator("meta[http-equiv]").get_attribute("content")
    assert "default-src 'none'" in policy


@pytest.mark.parametrize("text", ["a stage", "a" * 300, HOSTILE])
def test_it_fits_a_phone(show, text):
    """Nothing is wider than a phone, however long the words are."""
    page = show(run_of(text=text), width=390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    beyond = page.evaluate(
        "[...document.querySelectorAll('td,dd,h1,.lane')].filter(e => e.getBoundingClientRect().right > 391).length"
    )
    assert beyond == 0


def test_a_report_prints_on_a_few_pages_of_a4(show):
    """A common run takes two or three pages, and no page is wider than A4."""
    page = show(run_of())
    pdf = page.pdf(prefer_css_page_size=True, print_background=True)
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 3
    assert set(re.findall(rb"/MediaBox\s*\[0 0 (\d+)", pdf)) <= {b"594", b"595", b"596"}


def test_ten_thousand_stages_of_a_comparison_stay_small(show):
    """Many runs with many stages make a page that opens: what is not listed is counted."""
    runs = [
        Snapshot(
            f"r-{n}",
            "r",
            Status.COMPLETED,
            AT + n * 100,
            started_at=AT + n * 100,
            elapsed=50.0 + n % 7,
            stages=tuple(
                StageSnapshot(f"s{n}-{k}", f"s{n}-{k}", Status.COMPLETED, started_at=AT, elapsed=1.0) for k in range(50)
            ),
        )
        for n in range(200)
    ]
    page = show(compare(runs, source="here", as_of=AT))
    assert page.locator("svg rect").count() < 200
    assert "more stages" in page.content()
    assert len(page.content()) < 200_000
