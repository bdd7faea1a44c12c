"""Reports of what real users run, read from a file of JSON lines and from the file of a monitor."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import report_parts as scenes
from monitor_parts import Parts
from report_parts import read

from otel_progress import semconv as s
from otel_progress.cli.report.monitor_api import MonitorApi
from otel_progress.monitor.web.dump import dump
from otel_progress.reports import charts, formats
from otel_progress.reports.document import Gantt, Table
from otel_progress.reports.html import html
from otel_progress.reports.run import Run
from otel_progress.testing import Capture

Report = Callable[[str], Run]


class Tags(HTMLParser):
    """The elements and attributes of a page, as a browser reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep them."""
        self.found.add(tag)
        self.attributes |= {name for name, _ in attrs}


@pytest.fixture(params=["lines", "store"])
def report(request: pytest.FixtureRequest, progress_capture: Capture, tmp_path: Path) -> Report:
    """Read a run from what the events of this test left."""

    def found(operation_id: str) -> Run:
        with read(progress_capture.events, tmp_path, request.param) as source:
            return source.run(operation_id)

    return found


def table_of(run: Run, title: str) -> list[dict[str, str]]:
    """The first table below a heading, a dict a row."""
    section = next(section for section in formats.document_of(run).sections if section.title == title)
    table = next(block for block in section.blocks if isinstance(block, Table))
    names = [column.name for column in table.columns]
    return [dict(zip(names, (cell.text for cell in row))) for row in table.rows]


def test_stages_side_by_side_overlap(report: Report, progress_capture: Capture) -> None:
    """Each stage has its own time: those that ran at once overlap, and a nested one lies below its parent."""
    scenes.side_by_side(progress_capture)
    run = report("build-1")
    chart = charts.gantt(run)
    assert isinstance(chart, Gantt)
    (compiled, link, docs) = chart.lanes
    assert [(lane.label, lane.depth) for lane in chart.lanes] == [("compile", 0), ("link", 1), ("docs", 0)]
    assert compiled.bars[0].width == pytest.approx(5 / 6 * 1000, abs=1)
    assert docs.bars[0].x == link.bars[0].x == pytest.approx(2 / 6 * 1000, abs=1)
    assert docs.bars[0].x + docs.bars[0].width == pytest.approx(1000, abs=1)
    rows = {row["stage"]: row for row in table_of(run, "Stages")}
    assert rows["compile"]["duration"] == "5 s"
    assert rows["compile"]["counted"] == "4 files"
    assert rows["docs"]["share"] == "67%"


def test_a_stuck_run_shows_where_it_hangs(report: Report, progress_capture: Capture) -> None:
    """A run that hangs when its process dies shows the stall, its line and its count; nothing says that it ended."""
    scenes.stuck(progress_capture)
    run = report("crawl/shop/1")
    page = formats.document_of(run)
    assert page.state == "stuck"
    assert any(remark.text.startswith("Still running, as of 20") for remark in page.remarks)
    (stall,) = run.pauses
    assert (stall.kind, stall.stage, stall.end) == ("stall", "fetch", None)
    assert "report_parts.py" in (stall.stuck_at or "")
    assert table_of(run, "Where it is stuck")[0]["line"] == stall.stuck_at
    assert charts.gantt(run).lanes[0].bars[-1].tone == "stall"  # type: ignore[union-attr]
    assert "so far" in formats.text(run)


def test_a_file_cannot_know_whether_a_run_without_an_end_lives(progress_capture: Capture, tmp_path: Path) -> None:
    """JSON lines without an end say so: it may run, or have been killed."""
    scenes.stuck(progress_capture)
    with read(progress_capture.events, tmp_path, "lines") as source:
        run = replace(source.run("crawl/shop/1"), alive=None)  # its process can't be seen from here
    page = formats.document_of(run)
    assert page.state == "stuck"
    assert page.remarks[0].text.endswith("and may still run or have been killed.")
    assert page.sections[1].title == "Where it was stuck"


def test_a_stall_that_ended_keeps_its_length(report: Report, progress_capture: Capture) -> None:
    """A run that moved again says how long it was stuck, and is not called stuck."""
    scenes.stuck(progress_capture, ends=True)
    run = report("crawl/shop/1")
    (stall,) = run.pauses
    assert stall.end is not None
    assert 30 < stall.seconds(run.as_of) < 45
    page = formats.document_of(run)
    assert page.state == "completed"
    assert page.tiles[1].remark.endswith("stuck")


def test_a_wait_of_hours_is_waiting_and_no_stall(report: Report, progress_capture: Capture) -> None:
    """A declared wait takes its share of the time, under its reason."""
    scenes.long_wait(progress_capture)
    run = report("release-1")
    (wait,) = run.pauses
    assert (wait.kind, wait.reason) == ("wait", "approval by a person")
    assert wait.seconds(run.as_of) == pytest.approx(5 * 3_600, abs=1)
    assert formats.document_of(run).tiles[1].remark == "5 h waiting"


def test_a_run_of_two_milliseconds(report: Report, progress_capture: Capture) -> None:
    """A tiny run without stages has a report without empty sections, in every format."""
    scenes.tiny(progress_capture)
    run = report("ping-1")
    assert [section.title for section in formats.document_of(run).sections] == ["Summary", "Resources", "Feed"]
    assert "2 ms" in formats.text(run)
    assert "<h2>Stages" not in html(run)


def test_a_cancelled_run_is_no_failure(report: Report, progress_capture: Capture) -> None:
    """It says who cancelled it, and how far it was."""
    scenes.cancelled(progress_capture)
    page = formats.document_of(report("export-1"))
    assert (page.state, page.tone) == ("cancelled", "warn")
    assert page.remarks[0].text == "by the user"
    assert next(tile for tile in page.tiles if tile.name == "progress").value == "30%"


def test_currencies_are_never_added_up(report: Report, progress_capture: Capture) -> None:
    """Each currency has its own sum and its own cost a unit."""
    scenes.currencies(progress_capture)
    page = formats.document_of(report("translate-1"))
    cost = next(tile for tile in page.tiles if tile.name == "cost")
    assert sorted(cost.value.split(", ")) == ["0.25 USD", "1.50 EUR"]
    assert sorted(cost.remark.removesuffix(" per page").split(", ")) == ["0.0625 USD", "0.375 EUR"]


def test_a_count_that_falls_is_no_negative_rate(report: Report, progress_capture: Capture) -> None:
    """The curve shows the jump and the fall; the rate has a gap where units were taken back."""
    scenes.jumps(progress_capture)
    done, speed = charts.curves(report("sync-1"))
    assert done.most == "1,000"
    assert len(speed.pieces) == 3, "both falls"
    ys = [float(point.split(",")[1]) for curve in (done, speed) for piece in curve.pieces for point in piece.split()]
    assert all(0 <= y <= 100 for y in ys)


def test_attempts_of_an_id(report: Report, progress_capture: Capture) -> None:
    """A run that took three attempts lists each with its end; the report is that of the last."""
    scenes.resumed(progress_capture)
    run = report("migrate-1")
    rows = table_of(run, "Attempts")
    assert [row["state"] for row in rows] == ["failed", "failed", "completed"]
    assert [row["duration"] for row in rows] == ["5 s", "10 s", "15 s"]
    assert run.snapshot.progress.completed == 9


def test_children_of_other_processes(report: Report, progress_capture: Capture) -> None:
    """Children are listed with their state, whatever process they ran in."""
    import otel_progress as progress

    with progress.operation("pool", id="pool-1"):
        for number in range(3):
            with progress.operation("part", id=f"part-{number}", total=2) as part:
                part.advance(2)
                progress_capture.advance(1)
                if number == 1:
                    part.fail("no route")
    progress_capture.look()
    rows = table_of(report("pool-1"), "Children")
    assert [(row["id"], row["state"]) for row in rows] == [
        ("part-0", "completed"),
        ("part-1", "failed"),
        ("part-2", "completed"),
    ]


def test_every_format_survives_hostile_texts(report: Report, progress_capture: Capture) -> None:
    """Markup is text in HTML, formulas are text in CSV, JSON stays JSON, and no control character reaches a terminal."""
    scenes.hostile(progress_capture)
    key = progress_capture.of(s.OPERATION_ENDED)[0].snapshot.operation_id
    run = report(key)
    page = html(run)
    tags = Tags()
    tags.feed(page)
    assert not tags.found & {"script", "img", "iframe", "object", "link", "a", "form", "base"}
    assert not {name for name in tags.attributes if name.startswith("on") or name in ("href", "src")}
    assert page.encode("utf-8")
    text = formats.text(run)
    assert "\x1b" not in text
    assert "\u202e" not in text
    marked = formats.markdown(run)
    assert not re.search(r"(?<!\\)<script", marked)
    assert not re.search(r"(?<!\\)\]\(", marked)
    assert json.loads(formats.as_json(run))["operation"]["operation_id"] == key
    cells = [cell for row in csv.reader(io.StringIO(formats.as_csv(run))) for cell in row]
    assert any(cell.startswith("'=") for cell in cells)
    assert not any(cell.startswith(("=", "@", "+")) for cell in cells)


def test_the_same_run_reads_the_same_from_both(progress_capture: Capture, tmp_path: Path) -> None:
    """The file of JSON lines and that of the monitor lead to the same stages, failures and cost."""
    scenes.hostile(progress_capture)
    scenes.currencies(progress_capture)
    found = {}
    for kind in ("lines", "store"):
        with read(progress_capture.events, tmp_path, kind) as source:
            run = source.run("translate-1")
            found[kind] = (
                formats.as_csv(run).replace("None", ""),
                formats.document_of(run).tiles,
                [pause.kind for pause in run.pauses],
            )
    assert found["lines"] == found["store"]


class ApiClient:
    """A client that answers as the API of a monitor does, without a network."""

    url = "http://monitor"

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def check(self) -> None:
        """It is there."""

    def operation(self, key: str) -> dict[str, Any]:
        """The details, as they come out of JSON."""
        entry = self.parts.core.archive.operation(key)
        assert entry is not None
        found: dict[str, Any] = json.loads(dump(self.parts.views.detail(entry)))
        return found

    def ask(self, path: str) -> dict[str, Any]:
        """The events of an operation."""
        rows = self.parts.store.events(unquote(path.split("/")[2]), before=2**62, limit=1_000)
        return {"events": [self.parts.views.event(number, event) for number, event in rows]}


def test_the_api_of_a_monitor_tells_the_same(progress_capture: Capture, tmp_path: Path) -> None:
    """A report by the API has the stages, the stall with its line, the feed and the clocks of that moment."""
    scenes.stuck(progress_capture, ends=True)
    parts = scenes.received(progress_capture.events, tmp_path / "monitor.db")
    run = MonitorApi(ApiClient(parts)).run("crawl/shop/1")  # type: ignore[arg-type]
    parts.store.close()
    with read(progress_capture.events, tmp_path, "lines") as source:
        same = source.run("crawl/shop/1")
    assert formats.as_csv(run) == formats.as_csv(same)
    (stall,), (told,) = run.pauses, same.pauses
    assert (stall.stage, stall.reason, stall.stuck_at) == (told.stage, told.reason, told.stuck_at)
    assert stall.begin == pytest.approx(told.begin, abs=0.001)
    assert stall.end == pytest.approx(told.end, abs=0.001)
    assert formats.document_of(run).tiles == formats.document_of(same).tiles


def test_ten_thousand_stages(progress_capture: Capture, tmp_path: Path) -> None:
    """A run of 10,000 stages has a small report; those that are not listed are counted."""
    import otel_progress as progress

    with progress.operation("crawl", id="c") as op:
        for number in range(10_000):
            with op.stage(f"page {number}"):
                progress_capture.clock.sleep(0.01)
        page = op.report(tmp_path / "c.html")
    assert page is not None
    text = page.read_text("utf-8")
    assert len(text) < 150_000
    assert "other stages" in text
    assert "keeps only its newest stages" in text
