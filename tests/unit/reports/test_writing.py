"""Files of reports: formats by suffix, what was there, what can't be written; from inside the process."""

from __future__ import annotations

import importlib
import json
import os
import stat
from pathlib import Path

import pytest
import report_parts as scenes

import otel_progress as progress
from otel_progress.errors import InvalidArgument, MissingDependency
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Status
from otel_progress.reports import formats, html, writing
from otel_progress.reports.run import Run
from otel_progress.testing import Capture

RUN = Run(Snapshot("a", "n", Status.COMPLETED, 5.0, started_at=1.0, elapsed=4.0), "here")


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.html", "html"),
        ("a.HTM", "html"),
        ("b.md", "markdown"),
        ("c.json", "json"),
        ("d.csv", "csv"),
        ("e.txt", "text"),
    ],
)
def test_the_suffix_names_the_format(name: str, form: str) -> None:
    """The format follows from the name of the file."""
    assert writing.format_of(name) == form


@pytest.mark.parametrize(("name", "given"), [("a", None), ("a.pdf", None), ("a.html", "csv"), ("a", "pdf")])
def test_no_format_or_two_are_refused(name: str, given: str | None) -> None:
    """A file whose name says nothing, or something else than the given format, is refused."""
    with pytest.raises(InvalidArgument):
        writing.format_of(name, given)


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    """A file that is there is replaced, keeps its permissions, and no draft is left."""
    target = tmp_path / "a.txt"
    target.write_text("before")
    target.chmod(0o640)
    assert writing.write(RUN, target) == target
    assert target.read_text("utf-8") == formats.text(RUN)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """What a link points to is replaced."""
    (tmp_path / "real.txt").write_text("before")
    (tmp_path / "link.txt").symlink_to("real.txt")
    writing.write(RUN, tmp_path / "link.txt")
    assert (tmp_path / "link.txt").is_symlink()
    assert "before" not in (tmp_path / "real.txt").read_text("utf-8")


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If writing fails, the old report stays and no draft is left."""
    target = tmp_path / "a.txt"
    target.write_text("before")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        writing.write(RUN, target)
    assert target.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_html_without_jinja_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only HTML needs Jinja2, and its error names the extra."""

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(html.importlib, "import_module", missing)
    with pytest.raises(MissingDependency, match=r'pip install "otel-progress\[report\]"'):
        writing.write(RUN, tmp_path / "a.html")
    for name in ("a.txt", "a.md", "a.csv", "a.json"):
        writing.write(RUN, tmp_path / name)
    importlib.reload(json)


def test_an_operation_writes_its_report_while_it_runs(progress_capture: Capture, tmp_path: Path) -> None:
    """`op.report` works while it runs and says so; at the end, it does not."""
    with progress.operation("import", id="import-1", total=4, unit="file") as op:
        with op.stage("load"):
            op.advance()
            progress_capture.advance(3)
        with op.waiting("a rate limit"):
            progress_capture.advance(2)
        op.note("half of it", status="warning")
        assert op.report(tmp_path / "now.html") == tmp_path / "now.html"
        op.advance(3)
    op.report(tmp_path / "end.json")
    now = (tmp_path / "now.html").read_text("utf-8")
    assert "Still running, as of" in now
    assert "half of it" in now
    end = json.loads((tmp_path / "end.json").read_text("utf-8"))
    assert end["still_running"] is False
    assert [(pause["kind"], pause["reason"], pause["seconds"]) for pause in end["pauses"]] == [
        ("wait", "a rate limit", pytest.approx(2))
    ]


def test_a_report_that_cannot_be_written_does_not_break_the_job(
    progress_capture: Capture, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An unwritable place is logged, and the job goes on; a wrong name is an error of the caller."""
    with progress.operation("import") as op:
        assert op.report(tmp_path / "missing" / "a.txt") is None
        with pytest.raises(InvalidArgument):
            op.report(tmp_path / "a.pdf")
    progress_capture.look()
    assert "report" in caplog.text
    assert progress_capture.ended("import").status is Status.COMPLETED


def test_hostile_texts_from_the_process(progress_capture: Capture, tmp_path: Path) -> None:
    """What the process says is escaped as what a file says."""
    with progress.operation(scenes.HOSTILE, id="h") as op:
        op.note(scenes.HOSTILE)
        op.report(tmp_path / "a.html")
    assert "<script" not in (tmp_path / "a.html").read_text("utf-8")
