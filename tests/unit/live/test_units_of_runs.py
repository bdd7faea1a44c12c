"""What earlier runs teach of the pace and of the end: for runs that count the same, and as long as it fits."""

from __future__ import annotations

from pathlib import Path

import pytest

import otel_progress as progress
from otel_progress.live.engine import learning
from otel_progress.model.estimate import Estimate
from otel_progress.testing import Capture


def copied(capture: Capture, total: int, unit: str, stop: float = 1.0) -> Estimate | None:
    """A run over twenty seconds, up to a part of it; returns the estimate before its first unit."""
    with progress.operation("copy", total=total, unit=unit) as op:
        capture.advance(0.5)
        found = op.snapshot().progress.eta
        for _ in range(20):
            capture.advance(1)
            op.advance(total // 20)
    capture.look()
    return found


def test_a_history_of_another_unit_says_nothing_of_the_pace(progress_capture: Capture) -> None:
    """Runs that counted megabytes say nothing about one that counts bytes, and those say it from the next run on."""
    for _ in range(3):
        copied(progress_capture, 500, "MB")
    known = copied(progress_capture, 500, "MB")
    assert known is not None
    assert known.eta == pytest.approx(20, rel=0.1)
    other = copied(progress_capture, 500_000_000, "By")
    assert other is None or other.eta == pytest.approx(20, rel=0.1)
    again = copied(progress_capture, 500_000_000, "By")
    assert again is not None
    assert again.eta == pytest.approx(20, rel=0.1)


def test_the_unit_is_kept_in_the_file(progress_capture: Capture, tmp_path: Path) -> None:
    """Another process knows the unit of earlier runs, and that it changed."""
    path = tmp_path / "history.json"
    for unit, total in (("MB", 500), ("MB", 500), ("By", 500_000_000)):
        learning.learning = learning.Learning(path)
        copied(progress_capture, total, unit)
        learning.learning.save()
    learning.learning = learning.Learning(path)
    other = copied(progress_capture, 500, "MB")
    assert other is None or other.eta == pytest.approx(20, rel=0.1)
    learning.learning = learning.Learning(path)
    known = copied(progress_capture, 500_000_000, "By")
    assert known is not None
    assert known.eta == pytest.approx(20, rel=0.1)


def by_ratio(capture: Capture, tail: float) -> list[float | None]:
    """A run that names only how much is done, and takes a while after that; the time left each second."""
    seen = []
    with progress.operation("render") as op:
        for part in range(1, 51):
            capture.advance(1)
            op.update(ratio=part / 50)
            found = op.snapshot().progress.eta
            seen.append(None if found is None else found.eta)
        for _ in range(int(tail)):
            capture.advance(1)
            found = op.snapshot().progress.eta
            seen.append(None if found is None else found.eta)
    capture.look()
    return seen


def test_what_comes_after_a_ratio_of_one_is_learned(progress_capture: Capture) -> None:
    """Work that names a ratio has a tail like work that counts: a report of 30 s after all is done."""
    for _ in range(3):
        by_ratio(progress_capture, 30)
    seen = by_ratio(progress_capture, 30)
    assert seen[24] == pytest.approx(25 + 30, rel=0.15)
    assert seen[48] == pytest.approx(1 + 30, rel=0.15)
    assert seen[59] == pytest.approx(20, rel=0.15)
