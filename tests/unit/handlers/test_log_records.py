"""Log records: which level, which words, which fields."""

from __future__ import annotations

import logging

import pytest

import otel_progress as progress
from otel_progress.handlers.log_records import LOGGER, LoggingHandler
from otel_progress.testing import Capture


def test_levels_words_and_fields(progress_capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """Each change is one record; how bad it is decides the level."""
    caplog.set_level(logging.DEBUG, LOGGER)
    with LoggingHandler(), pytest.raises(ValueError, match="no"), progress.operation("job", id="j1", total=4) as job:
        with job.stage("load", stall_after=5):
            progress.advance(2)
            progress_capture.advance(10)
            progress.advance(1)
            progress_capture.advance(1)
        progress.note("disk is full", "failed")
        with progress.waiting("the reviewer", overdue_after=1):
            progress_capture.advance(3)
        raise ValueError("no")
    said = [(one.levelname, one.getMessage()) for one in caplog.records if one.name == LOGGER]
    assert said[0] == ("INFO", "job j1: started")
    assert said[-1][0] == "ERROR"
    assert said[-1][1].startswith("job j1: failed after 14 s")
    assert said[-1][1].endswith("ValueError: no")
    levels = {text.split(": ", 1)[1]: level for level, text in said}
    assert levels["load started"] == "DEBUG"
    assert [level for text, level in levels.items() if "no progress for" in text] == ["WARNING"]
    assert [level for text, level in levels.items() if text.startswith("moving again")] == ["INFO"]
    assert [level for text, level in levels.items() if "disk is full" in text] == ["WARNING"]
    assert [level for text, level in levels.items() if text.startswith("overdue after")] == ["WARNING"]
    last = vars(caplog.records[-1])
    assert {key: last[f"progress_{key}"] for key in ("operation_id", "operation_name", "status", "total")} == {
        "operation_id": "j1",
        "operation_name": "job",
        "status": "failed",
        "total": 4,
    }


def test_updates_are_not_logged(progress_capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """Counts alone make no record, even at DEBUG; a logger may be given."""
    caplog.set_level(logging.DEBUG)
    with LoggingHandler(logging.getLogger("mine")), progress.operation("job", total=100):
        for _ in range(10):
            progress.advance()
            progress_capture.advance(1)
    assert [one.getMessage().partition(": ")[2] for one in caplog.records if one.name == "mine"] == [
        "started",
        "completed after 10 s, 10/100",
    ]


def test_logger_must_be_one() -> None:
    """Anything else is an error at once."""
    with pytest.raises(progress.InvalidArgument, match=r"logging\.Logger"):
        LoggingHandler(3)  # type: ignore[arg-type]


def test_line_breaks_stay_out_of_the_log(progress_capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """A name cannot forge a second line."""
    caplog.set_level(logging.INFO, LOGGER)
    with LoggingHandler(), progress.operation("job\nERROR root: forged"):
        pass
    assert all("\n" not in one.getMessage() for one in caplog.records)
