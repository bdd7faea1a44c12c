"""The quick look at an operation that only advances does what the full look does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import otel_progress as progress
from otel_progress import clock
from otel_progress.live.engine import sampling
from otel_progress.testing import capture

FIELDS = ("_sampled", "_sampled_done", "_only_failed", "_counted_at", "_moved_at")
Op = progress.Operation


def settled(captured: object, name: str) -> Op:
    """An operation that has moved often enough to be looked at in one step."""
    operation = progress.operation(name, total=10_000, stall_after=60).start()
    for _ in range(40):
        operation.advance(2)
        captured.advance(1)  # type: ignore[attr-defined]
    return operation


def looked_at(operation: Op) -> dict[str, object]:
    return {name: getattr(operation, name) for name in FIELDS}


def test_both_looks_note_the_same() -> None:
    """Of two equal operations, one looked at in one step and one in full, the same is known."""
    with capture() as captured:
        quick, full = settled(captured, "quick"), settled(captured, "full")
        for operation in (quick, full):
            operation.advance()
        captured.advance(1)
        quick._observe_at = full._observe_at = quick._check_at = full._check_at = clock.monotonic() + 100
        captured.clock.sleep(0.25)
        for operation in (quick, full):
            operation.advance(3)
        full._sampled, full._sampled_done, full._moved_at = quick._sampled, quick._sampled_done, quick._moved_at
        full._advanced = quick._advanced
        now = clock.monotonic()
        assert sampling.moved_plainly(quick, now)
        assert sampling.sample(full, now)
        assert looked_at(quick) == looked_at(full)
        assert not sampling.moved_plainly(quick, now)
        quick.complete()
        full.complete()


@pytest.mark.parametrize(
    "happens",
    [
        lambda op: setattr(op, "_check_at", 0.0),
        lambda op: setattr(op, "_observe_at", 0.0),
        lambda op: op.record("ok"),
        lambda op: op.waiting("quota").__enter__(),
        lambda op: op.stage("inner").__enter__(),
        lambda op: next(iter(op.track([1, 2, 3]))),
        lambda op: op.advance(0.5),
    ],
    ids=["limit", "estimate", "record", "wait", "stage", "loop", "fraction"],
)
def test_whatever_else_is_due_is_looked_at_in_full(happens: Callable[[Op], object]) -> None:
    """A limit, an estimate, a wait, a stage or another way of counting needs the full look."""
    with capture() as captured:
        operation = settled(captured, "work")
        operation._observe_at = operation._check_at = clock.monotonic() + 100
        captured.clock.sleep(0.25)
        kept = happens(operation)
        operation.advance()
        assert not sampling.moved_plainly(operation, clock.monotonic())
        operation.complete()
        del kept


def test_an_update_that_is_not_due_makes_no_snapshot() -> None:
    """Between two updates of an operation that only advances its state is not read: each event has the next number."""
    with capture(update_interval=None) as captured:
        operation = settled(captured, "work")
        for _ in range(400):
            operation.advance(2)
            captured.advance(1)
        numbers = [event.sequence for event in captured.events]
        assert numbers == list(range(1, len(numbers) + 1))
        operation.complete()
