"""What a report is written to and read from, and texts that a reader would take for more than text."""

from __future__ import annotations

import csv
import io
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
import report_parts as scenes
from report_parts import read
from test_trees_and_ends import runs_of

import otel_progress as progress
from otel_progress.cli.query.exit_codes import CommandError
from otel_progress.cli.report.lines_file import LinesFile
from otel_progress.cli.report.store_file import StoreFile
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Status
from otel_progress.model.values import Attributes
from otel_progress.reports import formats, writing
from otel_progress.reports.comparison import compare
from otel_progress.reports.run import Run
from otel_progress.testing import Capture

ZWSP = "\u200b"


def run_of(reason: str, *, name: str = "n", cost: float = 0.0) -> Run:
    """A run that failed for a reason."""
    usage = Attributes({"cost.USD": cost} if cost else {})
    return Run(Snapshot("n-1", name, Status.FAILED, 10.0, started_at=0.0, elapsed=10.0, reason=reason, usage=usage), "")


def test_a_pipe_that_nobody_reads_never_holds_the_job_up(
    progress_capture: Capture, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`op.report` to a pipe without a reader is logged, and the job goes on."""
    os.mkfifo(tmp_path / "a.md")
    with progress.operation("import") as op:
        assert op.report(tmp_path / "a.md") is None
    assert "nobody reads from this pipe" in caplog.text


def test_a_pipe_with_a_slow_reader_gets_all(tmp_path: Path) -> None:
    """A report that is larger than the buffer of a pipe arrives whole."""
    os.mkfifo(tmp_path / "a.md")
    long = run_of("x" * 300_000)
    found: list[str] = []
    descriptor = os.open(tmp_path / "a.md", os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)

    def take() -> None:
        with os.fdopen(descriptor, encoding="utf-8") as file:
            found.append(file.read())

    reader = threading.Thread(target=take, name="reader")
    writer = threading.Thread(target=lambda: writing.write(long, tmp_path / "a.md"), name="writer")
    writer.start()
    writer.join(0.2)
    reader.start()
    writer.join()
    reader.join()
    assert found == [formats.markdown(long)]


def test_a_pipe_whose_reader_is_stuck_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that takes nothing is waited for a few seconds at most."""
    monkeypatch.setattr(writing, "PATIENCE", 0.05)
    os.mkfifo(tmp_path / "a.md")
    descriptor = os.open(tmp_path / "a.md", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(TimeoutError, match="nobody reads from it"):
            writing.write(run_of("x" * 300_000), tmp_path / "a.md")
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("place", ["fifo", "folder", "/dev/zero"])
def test_a_source_that_is_no_regular_file_is_refused_at_once(place: str, tmp_path: Path) -> None:
    """A pipe, a device and a folder are named as what they are, and never read without end."""
    path = Path(place) if place.startswith("/") else tmp_path / place
    if place == "fifo":
        os.mkfifo(path)
    if place == "folder":
        path.mkdir()
    with pytest.raises(CommandError, match="is no regular file"):
        LinesFile(path, lambda *_: None)
    with pytest.raises(CommandError, match="is no regular file"):
        StoreFile(path)


def test_reading_a_file_of_a_monitor_leaves_nothing_beside_it(progress_capture: Capture, tmp_path: Path) -> None:
    """No `-shm`, no `-wal`, if no monitor uses the file."""
    scenes.tiny(progress_capture)
    path = scenes.store_file(progress_capture.events, tmp_path / "monitor.db")
    for left in tmp_path.glob("monitor.db-*"):
        left.unlink()
    with closing(StoreFile(path)) as store:
        assert store.run("ping-1").snapshot.name == "ping"
    assert not list(tmp_path.glob("monitor.db-*"))


def test_a_monitor_that_starts_meanwhile_is_read_from_then_on(progress_capture: Capture, tmp_path: Path) -> None:
    """What a monitor writes while a report reads is seen."""
    scenes.tiny(progress_capture)
    path = scenes.store_file(progress_capture.events, tmp_path / "monitor.db")
    with closing(StoreFile(path)) as store, closing(sqlite3.connect(path)) as monitor:
        assert store.find("ping-1") == ["ping-1"]
        monitor.execute("UPDATE operations SET operation_id = 'ping-2'")
        monitor.commit()
        assert store.find("ping-2") == ["ping-2"]


@pytest.mark.parametrize("text", ["\ufeff=1+1", "\u200b=1", "\x00=1", " \u2060+1", "\t@a", "\u202e-1"])
def test_no_cell_is_a_formula_behind_signs_that_are_not_seen(text: str) -> None:
    """A formula after a mark that a spreadsheet drops begins with an apostrophe; no control character is left."""
    for found in (run_of(text), run_of("", name=text)):
        cells = [cell for row in csv.reader(io.StringIO(formats.as_csv(found))) for cell in row]
        assert all(cell.isprintable() for cell in cells)
        assert any(cell.startswith("'") and cell.lstrip("' ")[:1] in "=+@-" for cell in cells)


def test_a_sum_has_no_noise_in_csv() -> None:
    """0.1 + 0.2 is 0.3 in a table."""
    one = run_of("", cost=0.1 + 0.2).snapshot
    assert formats.as_csv(compare([one], source="", as_of=0.0)).splitlines()[1].endswith(",0.3,")


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("evil@example.com", f"evil@{ZWSP}example.com"),
        ("mailto:a@b.com", f"mailto:a@{ZWSP}b.com"),
        ("Www.evil.com", f"Www{ZWSP}.evil.com"),
        ("http://x.y", f"http:/{ZWSP}/x.y"),
        ("http&#58;//x.y", rf"http\&\#{ZWSP}58;/{ZWSP}/x.y"),
        ("@octocat see #12 and GH-7", rf"@{ZWSP}octocat see \#{ZWSP}12 and GH{ZWSP}-7"),
        ("1. a", r"1\. a"),
        ("2) a", r"2\) a"),
        ("- a", r"\- a"),
        ("+ a", r"\+ a"),
        ("    code", "code"),
        ("=====", r"\====="),
    ],
)
def test_no_text_is_a_link_a_list_or_a_mention_in_markdown(text: str, marked: str) -> None:
    """Each sign that GitHub or another reader of Markdown would act on is plain text."""
    assert f"> {marked}\n" in formats.markdown(run_of(text))


def test_a_parent_costs_the_same_by_every_source(progress_capture: Capture, tmp_path: Path) -> None:
    """What a parent cost is what it spent itself, alone and beside its children; nothing counts twice."""
    scenes.pool(progress_capture)
    for source, run in runs_of(progress_capture, "pool-1", tmp_path).items():
        tile = next(tile for tile in formats.document_of(run).tiles if tile.name == "cost")
        assert tile.value == "1.00 USD", source
        every = compare([run.snapshot, *run.children, *run.below], source=source, as_of=0.0)
        assert every.statistics.cost == {"USD": 1.5}, source


def test_money_is_never_in_powers_of_ten(progress_capture: Capture, tmp_path: Path) -> None:
    """A large amount has two decimals and groups in each text."""
    with progress.operation("train", id="train-1", total=3, unit="item") as op:
        op.usage(cost=99_999.99)
        op.advance(3)
    progress_capture.look()
    assert "cost=99,999.99 USD" in op.summary()
    with read(progress_capture.events, tmp_path, "lines") as source:
        run = source.run("train-1")
        many = compare([run.snapshot], source="", as_of=0.0)
    for text in (formats.text(run), formats.markdown(run), formats.text(many)):
        assert "99,999.99 USD" in text
        assert "e+0" not in text
    assert "33,333.33 USD per item" in formats.text(run)
