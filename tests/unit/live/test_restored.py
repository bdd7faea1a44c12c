"""Restored units: what an earlier run completed is the start of the count, whatever counts in this run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import otel_progress as progress
from otel_progress.testing import Capture

Job = Callable[[progress.Operation, Capture], Iterator[None]]
"""A job that completes 500 units, one a second, and yields after each."""


def loop(op: progress.Operation, capture: Capture) -> Iterator[None]:
    """A loop over the rest; an item is counted when the next one is taken."""
    for number, _ in enumerate(progress.track(range(500, 1000))):
        if number:
            yield
        capture.advance(1)
    yield


def loop_with_initial(op: progress.Operation, capture: Capture) -> Iterator[None]:
    """A loop that names the restored units once more."""
    for number, _ in enumerate(progress.track(range(500, 1000), initial=500)):
        if number:
            yield
        capture.advance(1)
    yield


def advance(op: progress.Operation, capture: Capture) -> Iterator[None]:
    """Plain counts."""
    for _ in range(500):
        capture.advance(1)
        progress.advance()
        yield


def record(op: progress.Operation, capture: Capture) -> Iterator[None]:
    """Outcomes alone."""
    for _ in range(500):
        capture.advance(1)
        progress.record("ok")
        yield


def stage(op: progress.Operation, capture: Capture) -> Iterator[None]:
    """One stage that counts in the unit of the operation."""
    with progress.stage("rest", unit="row"):
        yield from advance(op, capture)


def stage_that_names_its_part(op: progress.Operation, capture: Capture) -> Iterator[None]:
    """One stage that knows how many units it has."""
    with progress.stage("rest", unit="row", total=500):
        yield from advance(op, capture)


def stages(op: progress.Operation, capture: Capture) -> Iterator[None]:
    """Stages one after the other: what ended stays counted."""
    for part in range(5):
        with progress.stage(f"part {part}", unit="row"):
            for _ in range(100):
                capture.advance(1)
                progress.advance()
                yield


def stage_with_initial(op: progress.Operation, capture: Capture) -> Iterator[None]:
    """The stage names the same restored units."""
    with progress.stage("rest", unit="row", total=1000):
        yield from loop_with_initial(op, capture)


def after_update(op: progress.Operation, capture: Capture) -> Iterator[None]:
    """A loop after `update(completed=)` instead of `restored=`."""
    op.update(completed=500)
    yield from loop(op, capture)


def after_update_of_both(op: progress.Operation, capture: Capture) -> Iterator[None]:
    """A loop after an update that names the total as well."""
    op.update(completed=500, total=1000)
    yield from loop(op, capture)


JOBS: list[Job] = [loop, loop_with_initial, advance, record, stage, stage_that_names_its_part, stages]
LATER: list[Job] = [stage_with_initial, after_update, after_update_of_both]


@pytest.mark.parametrize("job", JOBS + LATER, ids=lambda job: job.__name__)
@pytest.mark.parametrize("unit", [None, "row"])
def test_whatever_counts_adds_to_restored_units(job: Job, unit: str | None, progress_capture: Capture) -> None:
    """501, 502, ... of 1000, with the rate and the ETA of this run."""
    restored = None if job in (after_update, after_update_of_both) else 500
    with progress.operation("import", total=1000, unit=unit, restored=restored) as op:
        for number, _ in enumerate(job(op, progress_capture), 501):
            if number in (501, 502, 530, 700, 999):
                seen = op.snapshot().progress
                assert (seen.completed, seen.total) == (number, 1000)
                assert seen.ratio_raw == pytest.approx(number / 1000)
            if number in (530, 700):
                assert seen.rate == pytest.approx(1, rel=0.1)
                assert seen.eta is not None
                assert seen.eta.eta == pytest.approx(1000 - number, rel=0.1)
    seen = op.snapshot().progress
    assert (seen.completed, seen.total, seen.percentage) == (1000, 1000, 100)


@pytest.mark.parametrize("job", [loop, loop_with_initial], ids=lambda job: job.__name__)
def test_a_loop_says_the_total_of_both_runs(job: Job, progress_capture: Capture) -> None:
    """Without a total, the length of the loop is the rest."""
    with progress.operation("import", restored=500) as op:
        for number, _ in enumerate(job(op, progress_capture), 501):
            if number == 530:
                seen = op.snapshot().progress
                assert (seen.completed, seen.total) == (530, 1000)
                assert seen.eta is not None
                assert seen.eta.eta == pytest.approx(470, rel=0.1)


@pytest.mark.parametrize("job", [advance, record], ids=lambda job: job.__name__)
def test_without_a_total_the_count_goes_on(job: Job, progress_capture: Capture) -> None:
    """501, 502, ... with a rate; nobody knows the end."""
    with progress.operation("import", restored=500) as op:
        for number, _ in enumerate(job(op, progress_capture), 501):
            if number == 530:
                seen = op.snapshot().progress
                assert (seen.completed, seen.total, seen.eta) == (530, None, None)
                assert seen.rate == pytest.approx(1, rel=0.1)


def test_a_stage_without_its_operation_is_resumed(progress_capture: Capture) -> None:
    """What a stage restores is no pace of the operation around it."""
    with progress.operation("import", total=1000, unit="row") as op, progress.stage("rows", unit="row") as rows:
        rows.update(completed=500)
        for _ in range(30):
            progress_capture.advance(1)
            rows.advance()
        seen = op.snapshot().progress
        assert seen.completed == 530
        assert seen.eta is not None
        assert seen.eta.eta == pytest.approx(470, rel=0.1)


def test_a_later_update_sets_the_count(progress_capture: Capture) -> None:
    """A second `update(completed=)` counts for itself, beside a loop that only proves life."""
    with progress.operation("import", total=1000, restored=500) as op:
        for number, _ in enumerate(progress.track(range(10))):
            progress_capture.advance(1)
            op.update(completed=600 + number)
            assert op.snapshot().progress.completed == 600 + number


def test_a_decorated_call_adds_to_restored_units(progress_capture: Capture) -> None:
    """Each call of a decorated function begins with them."""

    @progress.operation("import", total=1000, restored=500)
    def work() -> object:
        for _ in progress.track(range(3)):
            pass
        op = progress.current()
        assert op is not None
        return op.snapshot().progress.completed

    assert (work(), work()) == (503, 503)


def test_a_loop_over_all_items_adds_them(progress_capture: Capture) -> None:
    """`initial` is added to the length: the iterable has only the rest."""
    with progress.operation("import") as op:
        for _ in progress.track(range(1000), initial=500):
            seen = op.snapshot().progress
            assert (seen.completed, seen.total) == (500, 1500)
            break


@pytest.mark.parametrize("loading", [1.5, 10, 60])
@pytest.mark.parametrize("each", [1, 7])
def test_a_checkpoint_that_took_time_to_load_is_no_pace(loading: float, each: float, progress_capture: Capture) -> None:
    """A first `update(completed=)` far beyond the pace of the units after it is restored."""
    with progress.operation("train", total=1000) as op:
        progress_capture.advance(loading)
        op.update(completed=500)
        for _ in range(20):
            progress_capture.advance(each)
            progress.advance()
        seen = op.snapshot().progress
        assert seen.completed == 520
        assert seen.eta is not None
        assert seen.eta.eta == pytest.approx(480 * each, rel=0.15)


@pytest.mark.parametrize("faster", [1, 3])
def test_batches_are_work(faster: int, progress_capture: Capture) -> None:
    """Counts that come at about the same speed are work, the first one too."""
    with progress.operation("load", total=1000) as op:
        progress_capture.advance(10 / faster)
        op.update(completed=20)
        for batch in range(2, 5):
            progress_capture.advance(10)
            op.update(completed=20 * batch)
        assert op._restored == 0
        assert op.snapshot().progress.completed == 80
