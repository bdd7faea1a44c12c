"""The percentage in words never contradicts the counts beside it, though the bar never falls."""

from __future__ import annotations

import pytest

import otel_progress as progress
from otel_progress.cli.query.cells import percent
from otel_progress.cli.query.rows import snapshot_of
from otel_progress.model.snapshot import Progress, Snapshot
from otel_progress.model.status import Status
from otel_progress.monitor.web.row_json import progress_json
from otel_progress.render.plain import progressed
from otel_progress.render.tree import TreeLayout, TreeNode, TreeOptions, rows_of
from otel_progress.testing import Capture


def test_after_the_total_grew_only_the_counts_are_stated(progress_capture: Capture) -> None:
    """5 of 11 pages are not 50%: the bar stays, and no text has a percentage."""
    with progress.operation("crawl", total=10, unit="page") as op:
        for _ in range(5):
            op.advance()
        seen = op.snapshot()
        assert progressed(seen).startswith("50%  5/10 pages")
        assert percent(seen) == "50%"
        op.update(total=11)
        progress_capture.advance(1)
        seen = op.snapshot()
    assert seen.progress.ratio == 0.5
    assert progressed(seen).startswith("5/11 pages")
    (row,) = (row for row in rows_of([TreeNode(0, "crawl", seen)], TreeOptions(0, 3)) if row.amount)
    assert (row.percent, row.amount, row.ratio) == ("", "5/11 pages", 0.5)
    sent = progress_json(seen.progress, None)
    assert sent["ratio_raw"] == pytest.approx(5 / 11)
    assert sent["ratio"] == 0.5


@pytest.mark.parametrize(
    ("given", "stated"),
    [
        (Progress(150, 100, ratio=0.9999, ratio_raw=1.0), None),
        (Progress(9, 10, ratio=0.9, ratio_raw=0.9), 0.9),
        (Progress(1, 4, ratio=0.37, ratio_raw=0.37), 0.37),
        (Progress(10, 10, ratio=0.9999, ratio_raw=1.0), 0.9999),
        (Progress(52, 82, ratio=0.9, ratio_raw=0.634), None),
        (Progress(ratio=0.9, ratio_raw=0.5), 0.9),
        (Progress(5, ratio=0.9, ratio_raw=0.5), 0.9),
        (Progress(5, 10), None),
        (Progress(10, 10, ratio=1.0, ratio_raw=1.0), 1.0),
    ],
)
def test_stated(given: Progress, stated: float | None) -> None:
    """A part of the next unit is no contradiction, and without counts there is none."""
    assert given.stated == stated
    row = {"id": "a", "name": "a", "status": "running", "progress": progress_json(given, None)}
    assert snapshot_of(row, 0.0).progress.stated == stated


@pytest.mark.parametrize(("ratio", "full"), [(0.99, False), (0.9999, False), (1.0, True)])
def test_bar_looks_full_only_at_the_end(ratio: float, full: bool) -> None:
    """Beside 99%, the last cell of the bar is empty, whatever its length."""
    one = Snapshot("a-1", "a", Status.RUNNING, 0.0, progress=Progress(ratio=ratio, ratio_raw=ratio))
    rows = rows_of([TreeNode(0, "a", one)], TreeOptions(0, 3))
    for width in (60, 80, 100, 120):
        (line,) = TreeLayout().lines(rows, width, 5, 0)
        bar = "".join(sign for sign in "".join(text for text, _ in line) if sign in "━╾─")
        assert bar
        assert (set(bar) == {"━"}) is full
        assert full or bar.endswith("─")
