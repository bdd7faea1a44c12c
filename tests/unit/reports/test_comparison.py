"""Many runs compared: numbers that can be worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import report_parts as scenes
from report_parts import DAY, read

from otel_progress.model.snapshot import Progress, Snapshot, StageSnapshot
from otel_progress.model.status import Status
from otel_progress.model.values import Attributes
from otel_progress.reports import charts, compared, formats
from otel_progress.reports.comparison import Change, Comparison, compare
from otel_progress.reports.document import Columns
from otel_progress.reports.html import html
from otel_progress.testing import Capture

AT = 1_700_000_000.0


def run(number: int, seconds: float, status: Status = Status.COMPLETED, **more: object) -> Snapshot:
    """A run that ended."""
    began = AT + number * DAY
    return Snapshot(f"n-{number}", "n", status, began + seconds, started_at=began, elapsed=seconds, **more)  # type: ignore[arg-type]


def of(*runs: Snapshot, **more: int) -> Comparison:
    """Compare these."""
    return compare(runs, source="here", as_of=AT, **more)


def stage(name: str, seconds: float) -> StageSnapshot:
    """A stage that completed."""
    return StageSnapshot(name, name, Status.COMPLETED, started_at=AT, elapsed=seconds)


@pytest.mark.parametrize("kind", ["lines", "store"])
def test_a_month_of_nights(kind: str, progress_capture: Capture, tmp_path: Path) -> None:
    """30 nights: one failed, the copy took twice as long in the last quarter, and each night cost 0.50 USD."""
    scenes.nightly(progress_capture)
    since = progress_capture.clock.time_ns() / 1e9 - 40 * DAY
    with read(progress_capture.events, tmp_path, kind) as source:
        found = compare(source.named("nightly", since, lambda *_: None), source=source.words, as_of=AT, since=since)
    assert (found.number, found.ended, found.recent) == (30, 30, 7)
    assert found.failure_rate == pytest.approx(1 / 30)
    assert found.statistics.cost == {"USD": 15.0}
    changes = {(change.what, change.of): change for change in found.changes}
    duration = changes["duration", ""]
    assert (duration.before, duration.recent) == (pytest.approx(100), pytest.approx(150))
    assert changes["stage", "copy"].factor == pytest.approx(1.0)
    assert ("stage", "dump") not in changes
    assert ("cost", "USD") not in changes
    assert changes["failure rate", ""].recent == pytest.approx(1 / 7)
    slowest = next(one for one in compared.document(found).sections if one.title == "Slowest stages").blocks[0]
    assert slowest.rows[0][0].text == "copy"  # type: ignore[union-attr]
    for form in (formats.text, formats.markdown, html):
        assert "copy" in form(found)
    assert formats.as_csv(found).count("\r\n") == 31


def test_numbers_by_hand() -> None:
    """Eight runs: the newest two are compared with six; medians are of completed runs, cost is a mean of all."""
    usage = Attributes({"cost.EUR": 2.0})
    runs = [run(n, 10.0, usage=usage, progress=Progress(100, 100, "row")) for n in range(6)]
    dear = Attributes({"cost.EUR": 3.0})
    runs += [run(6, 20.0, usage=dear, progress=Progress(50, 50, "row")), run(7, 99.0, Status.LOST)]
    found = of(*runs)
    assert found.recent == 2
    assert set(found.changes) == {
        Change("failure rate", "", 0.0, 0.5),
        Change("duration", "", 10.0, 20.0),
        Change("units", "row", 100, 50),
        Change("cost", "EUR", 2.0, 1.5),
    }
    assert found.changes[0].what == "failure rate"
    assert found.failure_rate == 1 / 8
    assert found.statistics.runs.ok == 7


def test_a_change_below_ten_percent_is_none() -> None:
    """Noise is not called a change."""
    found = of(*(run(n, 10.0 if n < 6 else 10.9) for n in range(8)))
    assert found.changes == ()
    assert "no difference of 10% or more" in formats.text(found)
    assert of(*(run(n, 10.0 if n < 6 else 11.0) for n in range(8))).changes[0].what == "duration"


def test_three_runs_tell_no_change() -> None:
    """With fewer than four runs that ended nothing is called a change, and the report says why."""
    found = of(run(0, 1.0), run(1, 1.0), run(2, 9.0))
    assert (found.recent, found.changes) == (0, ())
    assert "too few runs" in formats.text(found)


def test_stages_that_came_and_went() -> None:
    """A stage that only the newest runs have is new; one that they lack is gone."""
    runs = [run(n, 10.0, stages=(stage("old" if n < 3 else "new", 5.0),)) for n in range(4)]
    text = formats.text(of(*runs))
    assert [change.of for change in of(*runs).changes] == ["old", "new"]
    assert "time in stage old a run, median" in text
    assert "gone" in text


def test_running_runs_are_counted_apart() -> None:
    """One that still runs is neither a success nor a failure, and its duration is marked."""
    found = of(run(0, 1.0), run(1, 2.0, Status.RUNNING))
    assert (found.number, found.ended, found.failure_rate) == (2, 1, 0.0)
    text = formats.text(found)
    assert "1 run has no end yet" in text
    assert "2 s so far" in text


def test_runs_beyond_the_bound_are_counted_and_named() -> None:
    """Only the newest runs are kept one by one; statistics count all, and the report says so."""
    found = of(*(run(n, 1.0) for n in range(50)), most=10)
    assert (found.number, len(found.rows), found.statistics.runs.ok) == (50, 10, 50)
    assert found.rows[0].operation_id == "n-40"
    assert "show the newest 10" in formats.text(found)


def test_many_runs_share_bars() -> None:
    """More runs than there is room for share bars, whose height is their median; each run is in one of them."""
    chart = charts.durations(of(*(run(n, float(n + 1)) for n in range(1_000))).rows)
    assert isinstance(chart, Columns)
    assert len(chart.bars) <= charts.COLUMNS
    assert "each 12 runs" in chart.title
    assert chart.bars[-1][1] == 0
