"""One number for one thing: percentages, lost runs, durations, medians, stalls and attempts, in every table alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import report_parts as scenes
from report_parts import read
from test_comparison import AT, of, run, stage
from test_situations import Report, report, table_of  # noqa: F401  # `report` is a fixture
from test_trees_and_ends import runs_of

import otel_progress as progress
from otel_progress.model.resources import Resources
from otel_progress.model.snapshot import Progress, Snapshot
from otel_progress.model.status import Health, Status
from otel_progress.model.units import part
from otel_progress.model.values import Attributes
from otel_progress.reports import compared, formats
from otel_progress.reports.document import Document, Table
from otel_progress.reports.html import html
from otel_progress.reports.run import Pause, Run, within
from otel_progress.testing import Capture


def rows_of(page: Document, title: str, at: int = 0) -> list[dict[str, str]]:
    """A table below a heading."""
    section = next(section for section in page.sections if section.title == title)
    table = [block for block in section.blocks if isinstance(block, Table)][at]
    return [dict(zip((column.name for column in table.columns), (cell.text for cell in row))) for row in table.rows]


def tiles_of(page: Document) -> dict[str, tuple[str, str]]:
    """The figures at the top, by name."""
    return {tile.name: (tile.value, tile.remark) for tile in page.tiles}


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        *((0.0, "0%"), (0.0001, "under 1%"), (0.0049, "under 1%"), (0.005, "1%"), (1 / 6, "17%"), (1 / 37, "3%")),
        *((32 / 36, "89%"), (0.994, "99%"), (0.995, "over 99%"), (1499 / 1500, "over 99%"), (1.0, "100%"), (2, "200%")),
    ],
)
def test_a_part_is_rounded_to_the_nearest_but_never_to_nothing_or_to_all(ratio: float, text: str) -> None:
    """Nearly all is not all, and hardly any is not none."""
    assert part(ratio) == text


@pytest.mark.parametrize("number", [6, 7, 12, 37, 200])
def test_what_changed_is_the_difference_of_what_is_shown(number: int) -> None:
    """The points of the failure rate are those between the two percentages beside them."""
    failed = [run(n, 10.0, Status.FAILED if n in (0, number + 1) else Status.COMPLETED) for n in range(number + 2)]
    for row in rows_of(compared.document(of(*failed)), "What changed"):
        before, newest = (int(row[name].removeprefix("under ").removesuffix("%")) for name in ("before", "newest"))
        assert row["change"].split()[0] == f"{newest - before:+d}"


def test_a_lost_run_is_no_success_in_any_table() -> None:
    """One lost run of five: the failure rate is 20%, and 80% are successes."""
    page = compared.document(of(*(run(n, 1.0) for n in range(4)), run(4, 1.0, Status.LOST)))
    assert tiles_of(page)["failure rate"] == ("20%", "1 of 5 failed or lost")
    (row,) = rows_of(page, "Failures")
    assert (row["ok"], row["others"], row["success"]) == ("4", "1 lost", "80%")


def test_runs_without_an_end_have_no_part_in_durations() -> None:
    """Median, mean, p90 and longest are of runs that ended, as the chart is; a stuck run is called stuck."""
    stuck = replace(run(4, 56.5, Status.RUNNING), health=Health.SILENT, health_reason="no progress for 50 s")
    found = of(*(run(n, float(seconds)) for n, seconds in enumerate((4, 6, 8, 10))), stuck)
    page = compared.document(found)
    assert tiles_of(page)["median duration"] == ("7 s", "mean 7 s")
    assert tiles_of(page)["p90"] == ("10 s", "longest 10 s")
    assert rows_of(page, "Runs")[0]["state"] == "stuck"
    assert found.statistics.durations is not None
    assert found.statistics.durations.count == 4


def test_the_end_of_an_attempt_is_its_start_and_its_length(progress_capture: Capture, tmp_path: Path) -> None:
    """An attempt is as long as its run, however late its line was written, and ends before the next one begins."""
    for reason in ("no route", None):
        with progress.operation("load", id="load-1") as op:
            progress_capture.advance(0.2)
            if reason:
                op.fail(reason)
        progress_capture.clock.sleep(0.06)
        progress_capture.look()
    late = [
        replace(e, snapshot=replace(e.snapshot, timestamp=e.snapshot.timestamp + 0.06)) for e in progress_capture.events
    ]
    with read(late, tmp_path, "lines") as source:
        found = source.run("load-1")
    assert [row["duration"] for row in table_of(found, "Attempts")] == ["200 ms", "200 ms"]
    assert "those of attempt 2 alone" in formats.text(found)


def test_a_stall_is_inside_its_stage() -> None:
    """An observer sees half a second later that a stage moved on: the stall ends with the stage."""
    first = replace(stage("collect", 5.6), started_at=AT)
    again = replace(stage("collect", 5.0), started_at=AT + 10)
    one = run(0, 20.0, stages=(first, again))
    given = Pause("stall", "collect", AT + 1.5, AT + 6.1, "")
    (found,) = within([given], one)
    assert found.end == AT + 5.6
    other = Pause("stall", None, AT + 1.5, AT + 6.1, "")
    assert within([other], one) == (other,)


def test_one_hang_has_one_length(report: Report, progress_capture: Capture) -> None:  # noqa: F811
    """Tile, table and feed say the same length of a hang."""
    scenes.stuck(progress_capture, ends=True)
    found = report("crawl/shop/1")
    (row,) = table_of(found, "Waits and stalls")
    assert tiles_of(formats.document_of(found))["duration"][1] == f"{row['duration']} stuck"
    if "JSON lines" in found.source:  # the words of the other source are made up
        assert f"it was stuck for {row['duration']}" in formats.text(found)


def test_quantiles_of_repeated_stages_are_those_of_the_monitor(progress_capture: Capture, tmp_path: Path) -> None:
    """A comparison has p50 and p90 of stages that ran often in each run, by every source."""
    from otel_progress.reports.comparison import compare

    for number in range(3):
        with progress.operation("load", id=f"load-{number}") as op:
            for part_ in range(20):
                with op.stage("insert"):
                    progress_capture.clock.sleep(0.1 * (part_ + 1))
        progress_capture.look()
    found = []
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        found.append(runs_of(progress_capture, f"load-{number}", tmp_path / str(number)))
    for source in ("lines", "api", "store"):
        many = compare([runs[source].snapshot for runs in found], source=source, as_of=AT)
        (row,) = rows_of(compared.document(many), "Slowest stages")
        assert row["p50"], source
        assert row["p90"], source


def test_a_stage_that_failed_and_was_retried_is_completed(progress_capture: Capture, tmp_path: Path) -> None:
    """Its row shows how it ended, how many of its runs failed, and why."""
    with progress.operation("etl", id="etl-1") as op:
        for number in range(2):
            with op.stage("gzip") as gzip:
                progress_capture.clock.sleep(1)
                if not number:
                    gzip.fail("disk full")
    progress_capture.look()
    with read(progress_capture.events, tmp_path, "lines") as source:
        (row,) = table_of(source.run("etl-1"), "Stages")
    assert (row["state"], row["runs"], row["failed"], row["reason"]) == ("completed", "2", "1", "disk full")


def test_shares_above_all_are_explained(report: Report, progress_capture: Capture) -> None:  # noqa: F811
    """Stages side by side take more than the time there was: the table says why."""
    scenes.side_by_side(progress_capture)
    assert "what ran side by side overlaps" in formats.text(report("build-1"))
    scenes.tiny(progress_capture)
    assert "overlaps" not in formats.text(report("ping-1"))


def test_children_show_in_what_they_differ() -> None:
    """The attribute that all children share is left out."""
    children = tuple(
        replace(run(n, 1.0), attributes=Attributes({"region": region, "owner": "ann"}))
        for n, region in enumerate(("EU", "US"))
    )
    rows = table_of(Run(run(9, 2.0), "", children=children), "Children")
    assert [row["attributes"] for row in rows] == ["region=EU", "region=US"]


def test_later_attempts_are_named_in_a_comparison() -> None:
    """What earlier attempts did is not counted, and the report says so."""
    text = formats.text(of(run(0, 1.0), run(1, 1.0, attempt=3)))
    assert "1 run is a second or later attempt" in text
    assert "later attempt" not in formats.text(of(run(0, 1.0)))


def test_bytes_of_disks_are_those_of_the_process() -> None:
    """What was read since the process began is not called that of the run."""
    text = formats.text(Run(run(0, 1.0, resources=Resources(read_bytes=5_000_000)), ""))
    assert "5.0 MB since the process began" in text


def test_stages_of_another_name_are_not_gone() -> None:
    """Runs of different names have different stages: none of them came or went."""
    runs = [replace(run(n, 10.0, stages=(stage("ab"[n > 2], 5.0),)), name="ab"[n > 2]) for n in range(4)]
    assert not [change for change in of(*runs).changes if change.what == "stage"]


def test_what_has_not_started_is_not_called_running() -> None:
    """A pending operation has not started."""
    text = formats.text(Run(Snapshot("n", "n", Status.PENDING, AT), "", alive=True))
    assert "Still running" not in text
    assert "Not started yet" in text


def test_an_open_stall_has_the_length_of_its_row(progress_capture: Capture, tmp_path: Path) -> None:
    """The evidence beside `so far` is as old as that."""
    scenes.stuck(progress_capture)
    with read(progress_capture.events, tmp_path, "store") as source:
        found = source.run("crawl/shop/1")
    (row,) = table_of(found, "Waits and stalls")
    assert row["duration"].endswith("so far")
    assert "no progress for 10 s" not in row["reason"]


def test_times_have_room_on_a_phone() -> None:
    """A time in a table of cards is as wide as any other cell of it."""
    page = html(of(run(0, 1.0)))
    assert ".wide td, .wide td.time { display: grid;" in page
    assert 'class=" time"' in page


def test_counts_have_their_unit_and_no_unit_without_a_count() -> None:
    """`60 items` beside the percentage; a run without a count has no unit in CSV."""
    counted = run(0, 1.0, progress=Progress(60, 60, "item", ratio=1.0))
    assert tiles_of(formats.document_of(Run(counted, "")))["progress"] == ("100%", "60 items")
    assert "item" not in formats.as_csv(of(run(0, 1.0))).splitlines()[1]
    assert "item" not in formats.as_csv(Run(run(0, 1.0), "")).splitlines()[1]
