"""The metrics of a Streamlit panel; `tests/screens` draws them in a real page."""

from __future__ import annotations

from dataclasses import replace

import pytest

from otel_progress import Progress, Snapshot, StageSnapshot, Status
from otel_progress.handlers.streamlit import _metrics
from otel_progress.model.estimate import Estimate
from otel_progress.render.tree import TreeRow


@pytest.mark.parametrize(
    ("own", "inner", "status", "said"),
    [
        (5.0, 10.0, Status.RUNNING, "about 10 s"),  # no operation ends before its stage
        (40.0, 10.0, Status.RUNNING, "about 5 s"),
        (5.0, 10.0, Status.COMPLETED, "about 5 s"),
        (5.0, None, Status.RUNNING, "about 5 s"),
        (None, 10.0, Status.RUNNING, "no estimate"),
    ],
)
def test_an_operation_has_no_less_time_left_than_its_stage(
    own: float | None, inner: float | None, status: Status, said: str
) -> None:
    """The time left of the operation agrees with that of the running stages below it; else it is that of its row."""

    def progress(eta: float | None) -> Progress:
        return Progress(4, 10, "file", 0.4, eta=None if eta is None else Estimate(eta, eta, eta, "rate"))

    whole = Snapshot("i", "import", Status.RUNNING, 100.0, progress=progress(own))
    whole = replace(whole, stages=(StageSnapshot("load", "load", status, progress(inner)),))
    top = TreeRow(0, 0, eta="no estimate" if own is None else "about 5 s left")
    assert dict(_metrics(whole, top))["Left"] == said
