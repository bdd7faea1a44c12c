"""The command `report`: sources, words for runs, and input that is wrong."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import report_parts as scenes
from monitor_parts import Parts
from report_parts import DAY, lines_file, store_file

from otel_progress import cli, clock
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Status
from otel_progress.testing import Capture


@pytest.fixture
def lines(progress_capture: Capture, tmp_path: Path) -> Path:
    """A file of JSON lines with a few runs."""
    scenes.nightly(progress_capture, days=8)
    scenes.stuck(progress_capture)
    return lines_file(progress_capture.events, tmp_path / "progress.jsonl")


def test_one_run_as_text(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run is found by its id, also one with slashes; the exit code tells of the report, not of the run."""
    assert cli.main(["report", "nightly-06", "--file", str(lines)]) == 0
    assert "no space left on device" in capsys.readouterr().out
    assert cli.main(["report", "crawl/shop/1", "--file", str(lines)]) == 0
    assert "stuck" in capsys.readouterr().out


def test_the_beginning_of_an_id_and_a_name(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name stands for its newest run; the beginning of several ids is refused with these."""
    assert cli.main(["report", "nightly", "--file", str(lines)]) == 0
    assert "nightly-07" in capsys.readouterr().out
    assert cli.main(["report", "nightly-0", "--file", str(lines)]) == 2
    assert "nightly-00, nightly-01" in capsys.readouterr().err


def test_an_unknown_id_names_similar_ones(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is not there leads to what is."""
    assert cli.main(["report", "nigthly-03", "--file", str(lines)]) == 4
    assert "nightly-03" in capsys.readouterr().err
    assert cli.main(["report", "--name", "nightli", "--file", str(lines)]) == 4
    assert "nightly" in capsys.readouterr().err


def test_several_ids_are_compared(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ids that are named one by one are compared; one that is named twice counts once."""
    args = ["report", "nightly-00", "nightly-07", "nightly-00", "--file", str(lines), "--format", "json"]
    assert cli.main(args) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["report"], found["number"]) == ("comparison", 2)


def test_since_leaves_out_older_runs(
    lines: Path, capsys: pytest.CaptureFixture[str], progress_capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of a name are compared since 30 days by default; the report says since when."""
    args = ["report", "--name", "nightly", "--file", str(lines), "--format", "json"]
    cli.main([*args, "--since", "3d"])
    found = json.loads(capsys.readouterr().out)
    assert found["number"] == 3
    assert found["since"] == pytest.approx(clock.unix() - 3 * DAY)
    progress_capture.clock.sleep(27 * DAY)
    cli.main(args)
    assert json.loads(capsys.readouterr().out)["number"] == 3
    with pytest.raises(SystemExit):
        cli.main([*args, "--since", "yesterday"])


def test_broken_lines_are_counted(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line that was cut off, or is no UTF-8, no JSON or no event, is left out, and the report says how many were."""
    whole = lines.read_bytes()
    lines.write_bytes(b"\xff\xfe{\n[1]\n" + whole + b'{"event":1}\n' + whole.splitlines()[0][:200])
    assert cli.main(["report", "nightly-00", "--file", str(lines)]) == 0
    assert "4 lines are no event" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"nothing\n", b"\x00" * 100])
def test_a_file_without_events_is_refused(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of something else is named as such."""
    (tmp_path / "a").write_bytes(content)
    assert cli.main(["report", "a", "--file", str(tmp_path / "a")]) == 2
    assert "there is no event" in capsys.readouterr().err
    assert cli.main(["report", "a", "--db", str(tmp_path / "a")]) == 2
    assert cli.main(["report", "a", "--db", str(tmp_path / "missing")]) == 2


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ([], 2),
        (["a", "--name", "b"], 2),
        (["a", "--since", "3d"], 2),
        (["a", "--db", "x", "--file", "y"], 2),
        (["a", "--file", "LINES", "-o", "a.html", "--format", "csv"], 2),
        (["a", "--file", "LINES", "-o", "a.pdf"], 2),
        (["nightly-00", "--file", "LINES", "-o", "LINES", "--format", "json"], 2),
        (["nightly-00", "--file", "LINES", "-o", "missing/a.txt"], 1),
    ],
)
def test_a_contradiction_is_refused(
    more: list[str], code: int, lines: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two sources, two formats, no run, a file that can't be written: one line says what to do, and nothing is lost."""
    monkeypatch.chdir(lines.parent)
    before = lines.read_bytes()
    try:
        got = cli.main(["report", *(str(lines) if word == "LINES" else word for word in more)])
    except SystemExit as refused:
        got = int(str(refused.code))
    assert got == code
    assert capsys.readouterr().err
    assert lines.read_bytes() == before


def test_the_file_of_a_monitor(
    progress_capture: Capture, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of this machine's monitor is read by default, and not changed; similar ids are named from it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("OTEL_PROGRESS_MONITOR", raising=False)
    scenes.nightly(progress_capture, days=5)
    (tmp_path / "otel-progress").mkdir(mode=0o700)
    path = store_file(progress_capture.events, tmp_path / "otel-progress" / "monitor.db")
    before = path.read_bytes()
    assert cli.main(["report", "--name", "nightly", "-o", str(tmp_path / "a.html")]) == 0
    assert "median duration" in (tmp_path / "a.html").read_text("utf-8")
    assert cli.main(["report", "nightly-1"]) == 4
    assert "nightly-01" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_the_file_of_an_older_monitor(
    progress_capture: Capture, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that lacks what later versions store is read as well as it can be."""
    scenes.nightly(progress_capture, days=2)
    path = store_file(progress_capture.events, tmp_path / "monitor.db")
    with closing(sqlite3.connect(path)) as db:
        db.executescript("ALTER TABLE operations DROP COLUMN is_foreign; DROP TABLE keyframes;")
    assert cli.main(["report", "--name", "nightly", "--db", str(path), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["number"] == 2


def test_thousands_of_runs_are_read_in_slices(
    progress_capture: Capture, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every run is counted once, also where many ended at the same moment."""
    parts = Parts(tmp_path / "monitor.db")
    now = clock.unix()
    runs = [
        Snapshot(f"r-{n:04}", "r", Status.COMPLETED, now - n % 3, started_at=now - 60, elapsed=5.0, sequence=1)
        for n in range(1_203)
    ]
    for at in range(0, len(runs), 200):
        parts.say(*runs[at : at + 200], event="progress.operation.ended")
    parts.core.journal.save_changes()
    parts.store.close()
    assert cli.main(["report", "--name", "r", "--db", str(parts.path), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["number"], found["statistics"]["runs"]["ok"]) == (1_203, 1_203)
    assert len({run["operation_id"] for run in found["runs"]}) == 1_203


def test_a_reader_that_goes_away_is_no_error(lines: Path) -> None:
    """`| head` ends the command without a traceback."""
    command = f'"{sys.executable}" -m otel_progress report nightly-00 --file "{lines}" --format json | head -c 10'
    done = subprocess.run(command, shell=True, capture_output=True, timeout=60, env={**os.environ}, check=False)
    assert done.stderr == b""
    assert len(done.stdout) == 10
