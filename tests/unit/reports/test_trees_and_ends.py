"""Reports of what has children, of what was lost, and of what goes on from an earlier attempt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import report_parts as scenes
from report_parts import read
from test_situations import ApiClient, table_of

import otel_progress as progress
from otel_progress import procfs
from otel_progress.cli.report.lines_file import LinesFile, is_alive
from otel_progress.cli.report.monitor_api import MonitorApi
from otel_progress.cli.report.store_file import StoreFile
from otel_progress.monitor.web import report as monitor_report
from otel_progress.reports import charts, formats
from otel_progress.reports.run import Run
from otel_progress.testing import Capture

KILLED = """
import os, signal, sys, time
import otel_progress as progress
from otel_progress.handlers.jsonlines import JsonLines
with JsonLines(sys.argv[1]):
    op = progress.operation("import", id="import-1", total=100, unit="row").start()
    op.advance(7)
    while not os.path.exists(sys.argv[1]) or '"completed":7' not in open(sys.argv[1]).read():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def runs_of(captured: Capture, operation_id: str, folder: Path) -> dict[str, Run]:
    """A run as each source knows it; each operation was in a process of its own."""
    found: dict[str, Run] = {}
    with read(captured.events, folder, "lines") as lines:
        found["lines"] = lines.run(operation_id)
    parts = scenes.received(captured.events, folder / "monitor.db", apart=True)
    found["api"] = MonitorApi(ApiClient(parts)).run(operation_id)  # type: ignore[arg-type]
    entry = parts.core.archive.operation(operation_id)
    assert entry is not None
    found["monitor"] = monitor_report.run_of(parts.views, parts.store, entry)
    parts.store.close()
    with closing(StoreFile(folder / "monitor.db")) as store:
        found["store"] = store.run(operation_id)
    return found


def test_a_pool_is_told_alone_and_with_all_below_it(progress_capture: Capture, tmp_path: Path) -> None:
    """Every source lists the children, and tells what the parent did itself from what all of them did."""
    scenes.pool(progress_capture)
    for source, run in runs_of(progress_capture, "pool-1", tmp_path).items():
        rows = table_of(run, "Children")
        assert [(row["id"], row["state"], row["counted"]) for row in rows] == [
            ("part-0", "completed", "4 rows"),
            ("part-1", "completed", "4 rows"),
        ], source
        alone, whole = table_of(run, "With children")
        assert (alone["statistics of"], alone["operations"], alone["units"], alone["cost"]) == (
            *("this operation", "1", "2 parts"),
            "1.00 USD",
        ), source
        assert (whole["statistics of"], whole["operations"], whole["cost"]) == ("with children", "5", "1.50 USD"), (
            source
        )
        assert (whole["units"], whole["tokens"]) == ("2 parts, 8 rows, 2 items", "200 input"), source
        assert (whole["records ok"], whole["records failed"]) == ("1", "1"), source
        said = json.loads(formats.as_json(run))["with_children"]
        assert (said["operations"], said["not_counted"], said["statistics"]["cost"]) == (5, 0, {"USD": 1.5}), source
        assert "no route to host" in formats.text(run), source


def test_a_run_that_goes_on_has_the_pace_of_this_attempt(progress_capture: Capture, tmp_path: Path) -> None:
    """Units of an earlier attempt are done, and count neither as rate nor for the cost of a unit nor as a jump."""
    scenes.continued(progress_capture)
    for source, run in runs_of(progress_capture, "load-1", tmp_path).items():
        facts = dict(formats.document_of(run).sections[0].blocks[0].rows)  # type: ignore[union-attr, arg-type]
        assert facts["units"] == "1,000 rows", source
        assert facts["of an earlier attempt"] == "600 rows", source
        assert facts["mean rate"] == "10/s", source
        tile = next(tile for tile in formats.document_of(run).tiles if tile.name == "cost")
        assert tile.remark == "0.005 USD per row", source
        _, speed = charts.curves(run)
        assert float(speed.most.partition("/")[0]) < 20, source


def test_an_open_run_has_its_units_and_its_rate(progress_capture: Capture, tmp_path: Path) -> None:
    """What did not end has a curve of units from every source, also from the file of a monitor."""
    scenes.continued(progress_capture, ends=False)
    for source, run in runs_of(progress_capture, "load-1", tmp_path).items():
        titles = [curve.title for curve in charts.curves(run)]
        assert titles == ["completed rows", "rate"], source


def test_a_killed_process_is_no_running_one(tmp_path: Path) -> None:
    """Lines of a process that was killed have no end: the report says that it is gone, and when it was last heard of."""
    lines = tmp_path / "lines.jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, str(lines)], check=False, timeout=30)
    assert done.returncode == -signal.SIGKILL
    with closing(LinesFile(lines, lambda *_: None)) as source:
        run = source.run("import-1")
    assert run.alive is False
    page = formats.document_of(run)
    assert (page.state, page.tone) == ("no end known", "bad")
    assert page.remarks[0].text.startswith("No end is known, and its process is gone")
    text = formats.text(run)
    assert "Still running" not in text
    assert "estimate" not in text
    assert "ran at least" in text
    assert json.loads(formats.as_json(run))["still_running"] is False


@pytest.mark.parametrize(
    ("change", "alive"),
    [
        ({}, True),
        ({"ticks": 1}, False),
        ({"boot": "of another machine"}, None),
        ({"namespace": "pid:[1]"}, None),
        ({"pid": "7"}, None),
        ({"ticks": None}, None),
    ],
)
def test_only_what_can_be_seen_from_here_is_told(change: dict[str, Any], alive: bool | None) -> None:
    """A pid counts on the machine and in the namespace that gave it, and with its start alone."""
    seen = procfs.look(os.getpid())
    assert seen is not None
    here = {"pid": seen.pid, "ticks": seen.ticks, "boot": procfs.boot_id(), "namespace": procfs.pid_namespace()}
    assert is_alive({**here, **change}) is alive


def test_an_older_file_cannot_tell(progress_capture: Capture, tmp_path: Path) -> None:
    """Without the process in its lines, nothing says whether a run lives: the report says both."""
    scenes.tiny(progress_capture)
    scenes.continued(progress_capture, ends=False)
    lines = scenes.lines_file(progress_capture.events, tmp_path / "old.jsonl")
    kept = [{k: v for k, v in json.loads(line).items() if k != "process"} for line in lines.read_text().splitlines()]
    lines.write_text("".join(json.dumps(one) + "\n" for one in kept))
    with closing(LinesFile(lines, lambda *_: None)) as source:
        page = formats.document_of(source.run("load-1"))
        assert source.run("ping-1").snapshot.status.final
    assert page.state == "no end known"
    assert page.remarks[0].text.endswith("and may still run or have been killed.")


def test_a_report_holds_no_more_than_its_reader_may_see(progress_capture: Capture, tmp_path: Path) -> None:
    """Children of others are in no report of an owner, nor in its sums."""
    with progress.operation("pool", id="pool-1", attributes={"owner": "ann"}):
        for owner in ("ann", "bob"):
            with progress.operation("part", id=f"part-of-{owner}", attributes={"owner": owner}) as part:
                part.usage(cost=1.0)
                progress_capture.advance(1)
    progress_capture.look()
    parts = scenes.received(progress_capture.events, tmp_path / "monitor.db", apart=True)
    entry = parts.core.archive.operation("pool-1")
    assert entry is not None
    for owner, ids, cost in ((None, ["part-of-ann", "part-of-bob"], "2.00 USD"), ("ann", ["part-of-ann"], "1.00 USD")):
        run = monitor_report.run_of(parts.views.of(owner), parts.store, entry)
        assert [row["id"] for row in table_of(run, "Children")] == ids
        assert table_of(run, "With children")[1]["cost"] == cost
        assert ("bob" in formats.as_json(run)) == (owner is None)
    parts.store.close()
