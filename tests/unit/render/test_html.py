"""HTML of the tree and of lines: the words of the terminal, escaped."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from otel_progress.model.snapshot import Snapshot, StageSnapshot
from otel_progress.model.status import Status
from otel_progress.render import html
from otel_progress.render.tree import TreeNode, TreeOptions, TreeRow, rows_of

BAD = '<script>alert(\'1\')</script>" onload="x" &amp; \ud800 \u202e'


class Seen(HTMLParser):
    """The tags, attributes and text of a page; an unclosed tag is an error."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_every_text_is_escaped() -> None:
    """Names, stages, messages and reasons bring neither tags nor attributes; the page is valid UTF-8."""
    stage = StageSnapshot(path=BAD, name=BAD, status=Status.FAILED, reason=BAD, started_at=0.0)
    snapshot = Snapshot("1", BAD, Status.RUNNING, 0.0, stages=(stage,), message=BAD, attributes={BAD: BAD})
    rows = rows_of([TreeNode(0, BAD, snapshot)], TreeOptions(0, 3))
    page = html.panel((html.lines([((BAD, "bold"),)]), html.tree(rows, 3)))
    page.encode("utf-8")
    seen = Seen(page)
    assert seen.tags <= {"div", "span", "table", "tbody", "tr", "td"}
    assert seen.attributes == {"style", "colspan"}
    assert "<script>alert('1')</script>" in seen.text
    assert "+ 3 more" in seen.text


def test_a_row_has_its_columns() -> None:
    """Each part of a row is there, and the bar is as long as the ratio."""
    row = TreeRow(1, 0, "⠋", "cyan", "load", 0.25, "1/4 files", "2/s", "about 4 min left", "0:07", percent="25%")
    page = html.tree([row])
    assert Seen(page).text == "⠋ load25%1/4 files2/sabout 4 min left0:07"
    assert "width:25%" in page


@pytest.mark.parametrize(("ratio", "width"), [(-1.0, "0%"), (0.0, "0%"), (1 / 3, "33.33%"), (7.0, "100%")])
def test_bars(ratio: float, width: str) -> None:
    """A bar is never shorter than nothing, nor longer than its track."""
    assert f'"width:{width};' in html.bar(ratio)


def test_nothing_is_nothing() -> None:
    """Without rows and lines there is no markup."""
    assert html.tree([]) == html.lines([]) == ""


def test_colours_are_legible() -> None:
    """Each colour has a contrast of 4.5 to white, and of 3.6 to a dark page."""

    def luminance(colour: str) -> float:
        parts = [int(part, 16) / 255 for part in re.findall("..", colour[1:])]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for colour in html.COLOURS.values():
        assert 1.05 / (luminance(colour) + 0.05) >= 4.4, colour
        assert (luminance(colour) + 0.05) / (luminance("#1e1e1e") + 0.05) >= 3.5, colour


def test_styles() -> None:
    """Styles of the terminal have a meaning in CSS; one that is unknown has none."""
    assert html.css("bold red") == f"font-weight:700;color:{html.COLOURS['red']}"
    assert f"background:{html.COLOURS['red']}" in html.css("bold white on red")
    assert html.css("") == html.css("sparkling") == ""
