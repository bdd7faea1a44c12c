"""The quick look at an operation that only advances does what the full look does, and hides nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

import otel_progress as progress
from otel_progress import clock, semconv
from otel_progress.live.engine import keyframes, runtime, sampling, ticker
from otel_progress.live.engine.cadence import cadence
from otel_progress.live.state import OperationState
from otel_progress.model.snapshot import Event
from otel_progress.model.values import Attributes
from otel_progress.telemetry.memory import Point
from otel_progress.testing import Capture, capture

FIELDS = ("_sampled", "_sampled_done", "_only_failed", "_counted_at", "_moved_at", "_has_news")
LONG = 1_000.0
Op = progress.Operation


def settled(captured: Capture, name: str) -> Op:
    """An operation that has moved often enough to be looked at in one step, for a long time."""
    operation = progress.operation(name, total=10_000, stall_after=60).start()
    for _ in range(40):
        operation.advance(2)
        captured.advance(1)
    operation._observe_at = operation._check_at = operation._keyframe_at = operation._estimate_ends = (
        clock.monotonic() + LONG
    )
    sampling.quiet(operation)
    return operation


def looked_at(operation: Op) -> dict[str, object]:
    return {name: getattr(operation, name) for name in FIELDS}


def is_quick(operation: Op, now: float) -> bool:
    """Whether the ticker looks at nothing but its counts."""
    return now < operation._counts_until and sampling.counts_alone(operation, now) is not None


def test_both_looks_note_the_same() -> None:
    """Of two equal operations, one looked at in one step and one in full, the same is known."""
    with capture(update_interval=None) as captured:
        quick, full = settled(captured, "quick"), settled(captured, "full")
        for operation in (quick, full):
            operation.advance()
        captured.advance(1)
        for operation in (quick, full):
            operation._observe_at = operation._check_at = clock.monotonic() + LONG
            sampling.quiet(operation)
        captured.clock.sleep(0.25)
        for operation in (quick, full):
            operation.advance(3)
            operation._has_news = False
        full._sampled, full._sampled_done, full._moved_at = quick._sampled, quick._sampled_done, quick._moved_at
        full._advanced = quick._advanced
        now = clock.monotonic()
        assert sampling.counts_alone(quick, now)
        assert sampling.sample(full, now)
        full._has_news = True  # as the ticker does
        assert looked_at(quick) == looked_at(full)
        assert sampling.counts_alone(quick, now) is False
        quick.complete()
        full.complete()


def wait_untold(op: Op) -> object:
    """A wait that is not told, as there were many short ones."""
    op._short_waits = {"a lock": 10}
    return op.waiting("a lock").__enter__()


def loop_as_an_update_leaves(op: Op) -> object:
    """A loop that begins between a look and the snapshot of an update, which shows it already."""
    kept = next(iter(op.track([1, 2, 3])))
    runtime.ticker._update(op)
    return kept


@pytest.mark.parametrize(
    "happens",
    [
        lambda op: setattr(op, "_check_at", 0.0),
        lambda op: op.record("ok"),
        lambda op: op.waiting("quota").__enter__(),
        lambda op: op.stage("inner").__enter__(),
        lambda op: next(iter(op.track([1, 2, 3]))),
        lambda op: op.advance(0.5),
        lambda op: op.advance(1, unit="page"),
        lambda op: op.update(message="look"),
        lambda op: op.step("look"),
        lambda op: op.usage(input_tokens=1),
        lambda op: progress.operation("child", parent=op).start(),
        lambda op: keyframes.request(op),
        wait_untold,
        loop_as_an_update_leaves,
    ],
    ids=[
        *("limit", "record", "wait", "stage", "loop", "fraction", "unit", "message", "step", "tokens", "child"),
        *("keyframe", "untold", "update"),
    ],
)
def test_whatever_else_is_due_is_looked_at_in_full(happens: Callable[[Op], object]) -> None:
    """A limit, a keyframe, a wait, a stage or another way of counting needs the full look, from the next round on."""
    with capture(update_interval=None) as captured:
        operation = settled(captured, "work")
        captured.clock.sleep(0.25)
        assert is_quick(operation, clock.monotonic())
        kept = happens(operation)
        looks: list[OperationState] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ticker.Ticker, "_look", lambda _, found, now: bool(looks.append(found)))
            operation.advance()
            captured.look()
        assert operation in looks
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


# -- a random job


def wait_often(op: Op, captured: Capture) -> None:
    """The last of these waits is not told."""
    for _ in range(11):
        with op.waiting("a lock"):
            captured.advance(0.5)


def loop(op: Op, captured: Capture) -> None:
    for _ in op.track(range(3)):
        captured.advance(0.4)


def inside(op: Op, captured: Capture) -> None:
    with op.stage("part", total=3) as stage:
        stage.advance()
        captured.advance(1.3)


def beside(op: Op, captured: Capture) -> None:
    with progress.operation("child", id="child", parent=op):
        captured.advance(1.3)
        op.advance()
        captured.advance(1.3)


RARELY: tuple[Callable[[Op, Capture], object], ...] = (
    wait_often,
    loop,
    inside,
    beside,
    lambda op, _: op.note("look"),
    lambda op, _: op.heartbeat(),
    lambda op, _: op.update(message="next"),
    lambda op, _: op.update(total=op._advanced + 200),
    lambda op, _: op.set(part=1),
    lambda op, _: op.record("failed"),
    lambda op, _: op.step("again"),
    lambda op, _: op.usage(output_tokens=3),
    lambda op, _: op.advance(0.5),
    lambda op, _: op.touch(),
    lambda op, _: keyframes.request(op),
    lambda op, _: cadence.ask([op.id], 5.0),
    lambda op, captured: captured.advance(7),
    lambda op, captured: captured.advance(45),
)


def lasting(event: Event) -> Event:
    """An event without what is another in each run: what the process uses, and the stack of this test."""
    about = {
        key: value for key, value in event.attributes.items() if key != semconv.STACK and not key.startswith("process.")
    }
    return replace(event, attributes=Attributes(about), snapshot=replace(event.snapshot, resources=None, stack=None))


def told(seed: int) -> tuple[list[Event], list[Point]]:
    """All events and points of a random job."""
    chance = random.Random(seed)
    with capture(update_interval=None) as captured:
        cadence.live_until = 0.0
        op = progress.operation("job", id="job", total=chance.choice([None, 500]), stall_after=30).start()
        for _ in range(chance.randrange(200, 400)):
            if chance.random() < 0.02:
                chance.choice(RARELY)(op, captured)
            op.advance(chance.choice([0, 1, 1, 2]))
            captured.advance(chance.choice([0.3, 1.0, 1.0, 2.5]))
        op.complete()
        captured.look()
        return [lasting(event) for event in captured.events], captured.series


@pytest.fixture
def looks() -> Iterator[list[bool]]:
    """Whether each look was a quick one."""
    found: list[bool] = []
    quickly = sampling.counts_alone

    def count(operation: OperationState, now: float) -> bool | None:
        moved = quickly(operation, now)
        found.append(moved is not None)
        return moved

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ticker, "counts_alone", count)
        yield found


@pytest.mark.parametrize("seed", range(12))
def test_a_random_job_is_told_the_same_without_quick_looks(seed: int, looks: list[bool]) -> None:
    """All events and series of a job are the same, whether or not it is looked at in one step while it only counts."""
    quickly = told(seed)
    assert any(looks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ticker, "quiet", lambda operation: None)
        looks.clear()
        assert told(seed) == quickly
    assert not looks
