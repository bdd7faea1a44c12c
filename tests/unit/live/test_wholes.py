"""A whole never ends before a part of it."""

from __future__ import annotations

import pytest

import otel_progress as progress
from otel_progress.testing import Capture


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_an_operation_ends_after_a_stage_at_any_depth(depth: int, progress_capture: Capture) -> None:
    """Stages between them that have no estimate of their own pass it on."""
    with progress.operation("work", total=100, unit="file") as op:
        inner = op.stage("outer 0").start()
        for level in range(depth):
            inner = inner.stage(f"outer {level + 1}").start()
        slow = inner.stage("slow", total=1000, unit="row").start()
        for _ in range(40):
            progress_capture.advance(1)
            op.advance()
            slow.advance()
        seen = op.snapshot()
        part = next(one for one in seen.stages if one.name == "slow").progress.eta
        whole = seen.progress.eta
        assert part is not None
        assert whole is not None
        assert part.eta == pytest.approx(960, rel=0.1)
        assert whole.eta >= part.eta
        assert whole.low >= part.low
        assert whole.high >= part.high


def test_a_parent_ends_after_its_child(progress_capture: Capture) -> None:
    """A child operation is a part of the one around it, and a grandchild of both."""
    with progress.operation("all", total=4) as op:
        for _ in range(2):
            progress_capture.advance(10)
            op.advance()
        with progress.operation("one"), progress.operation("inner", total=1000) as inner:
            for _ in range(20):
                progress_capture.advance(1)
                inner.advance()
            part = inner.snapshot().progress.eta
            whole = op.snapshot().progress.eta
            assert part is not None
            assert whole is not None
            assert part.eta == pytest.approx(980, rel=0.1)
            assert whole.eta >= part.eta
