"""Wrong use is told at the earliest point: options raise at once, methods of a running job warn once a call site."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

import otel_progress as progress
from otel_progress import InvalidArgument, Operation, StagePlan, phases, semconv
from otel_progress.live import misuse
from otel_progress.model import values
from otel_progress.model.values import INT_MAX
from otel_progress.testing import Capture


@pytest.fixture(autouse=True)
def _nothing_told() -> None:
    misuse._told.clear()


Call = Callable[[Operation], object]

RUNNING: dict[str, tuple[Call, str]] = {
    "update total": (
        lambda op: op.update(total=-5),
        "update() at {} is ignored: total must be a number of at least 0, not -5",
    ),
    "update total text": (lambda op: op.update(total="ten"), "total must be a number of at least 0, not 'ten'"),  # type: ignore[arg-type]
    "update total digits": (lambda op: op.update(total="10"), "total must be a number of at least 0, not '10'"),  # type: ignore[arg-type]
    "update completed": (lambda op: op.update(completed=math.nan), "completed must be a number of at least 0, not nan"),
    "update ratio": (lambda op: op.update(ratio=30), "ratio must be a number from 0 to 1, not 30"),
    "advance text": (
        lambda op: op.advance("x"),
        "advance() at {} is ignored: n must be a number of at least 0, not 'x'",
    ),  # type: ignore[arg-type]
    "advance in a unit": (lambda op: op.advance(-1, "token"), "n must be a number of at least 0, not -1"),
    "track": (lambda op: list(op.track([1], total=-1)), "track() at {} is ignored: total must be a number"),
    "usage": (
        lambda op: op.usage(cost="free"),
        "usage() at {} is ignored: cost must be a number of at least 0, not 'free'",
    ),  # type: ignore[arg-type]
    "tokens": (lambda op: op.usage(input_tokens=-5), "input_tokens must be a number of at least 0, not -5"),
    "waiting": (
        lambda op: op.waiting("x", overdue_after=-1),
        "overdue_after must be a number of seconds above 0, not -1",
    ),
    "huge value": (lambda op: op.update(total="x" * 9999), "xxx…"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", RUNNING)
def test_a_running_job_is_warned_once_a_call_site(
    name: str, progress_capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """A method of a running job never raises: it leaves the value out, and says once a line which, and what would do."""
    call, text = RUNNING[name]
    with progress.operation("work", total=10) as op:
        op.advance(4)
        for _ in range(3):
            call(op)
        found = op.snapshot()
        assert (found.progress.completed, found.progress.total, found.usage) == (4, 10, {})
    (record,) = caplog.records
    assert text.replace("{}", f"{__file__}:{call.__code__.co_firstlineno}") in record.getMessage()
    assert record.levelname == "WARNING"
    assert len(record.getMessage()) < 400


@pytest.mark.parametrize("n", [-3, -2.5, -math.inf, -(10**400)])
def test_a_negative_number_changes_no_count(
    n: float, progress_capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """It is ignored, as the warning at the first call says, also between two looks."""
    with progress.operation("work", total=100) as op, progress.stage("step") as stage:
        stage.advance(5)
        progress_capture.look()
        stage.advance(2)
        for _ in range(3):
            stage.advance(n)
        stage.advance(1)
        assert op.snapshot().stages[0].progress.completed == 8
    (record,) = caplog.records
    assert "is ignored: n must be a number of at least 0, not -" in record.getMessage()


OPTIONS: dict[str, tuple[Callable[[], object], str]] = {
    "total": (lambda: progress.operation("x", total=-5), "total must be a number of at least 0, not -5"),
    "total text": (lambda: progress.operation("x", total="ten"), "total must be a number of at least 0, not 'ten'"),  # type: ignore[arg-type]
    "total bool": (lambda: progress.operation("x", total=True), "total must be a number of at least 0, not True"),
    "total nan": (lambda: progress.operation("x", total=math.nan), "not nan"),
    "total inf": (lambda: progress.operation("x", total=math.inf), "not inf"),
    "time": (lambda: progress.operation("x", slow_after="1h"), "slow_after must be a number of seconds above 0"),  # type: ignore[arg-type]
    "timedelta": (lambda: progress.operation("x", stall_after=timedelta(1)), "must be a number of seconds above 0"),  # type: ignore[arg-type]
    "stage total": (lambda: progress.stage("x", total=-5), "total must be a number of at least 0, not -5"),
    "stage of a handle": (lambda: progress.operation("x").stage("y", total="ten"), "not 'ten'"),  # type: ignore[arg-type]
    "weight": (lambda: progress.stage("x", weight=-1), "weight must be a number of at least 0, not -1"),
    "expected": (
        lambda: progress.stage("x", expected=0),
        "expected must be a number of seconds above 0, or None, not 0",
    ),
    "stall_after": (lambda: progress.stage("x", stall_after=-5), "stall_after must be a number of seconds above 0"),
    "depends_on": (lambda: progress.stage("x", depends_on=5), "depends_on must be a list of names, not 5"),  # type: ignore[arg-type]
    "parts of 1": (lambda: phases({"a": 0, "b": 0.2}), r"\[0, 0.2\] look like ratios"),
    "no dict": (lambda: phases(["a"]), "takes a dict of names and percentages"),  # type: ignore[arg-type]
    "plan": (lambda: StagePlan("a", depends_on=5), "depends_on of 'a' must be a list of names, not 5"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_raise_at_once(name: str) -> None:
    """A wrong option of operation, stage or phases raises `InvalidArgument` where it is given."""
    make, text = OPTIONS[name]
    with pytest.raises(InvalidArgument, match=text):
        make()


@pytest.mark.parametrize("value", [Decimal("2.5"), Fraction(5, 2), 2.5])
def test_numbers_of_any_kind_are_options(value: Any, progress_capture: Capture) -> None:
    """Decimals and fractions are numbers, as those of numpy are."""
    with (
        progress.operation("x", total=value, stall_after=value) as op,
        progress.stage("s", weight=value, expected=value),
    ):
        found = op.snapshot()
        assert (found.progress.total, found.stall_after, found.stages[0].weight) == (2.5, 2.5, 2.5)


def test_whole_numbers_of_any_kind_stay_whole(progress_capture: Capture) -> None:
    """What is an integer by its type stays one; above 64 bits it is cut, and counted."""

    class Int64:
        def __index__(self) -> int:
            return 5

    with progress.operation("x", total=Int64()) as op:  # type: ignore[arg-type]
        op.update(completed=Int64())  # type: ignore[arg-type]
        found = op.snapshot().progress
        assert (found.completed, type(found.completed), found.total) == (5, int, 5)
        op.update(total=2**70)
        assert op.snapshot().progress.total == INT_MAX
    assert progress_capture.drops[semconv.DROP_VALUE] == 1


def test_beyond_64_bits_nothing_is_known(progress_capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """A total of more than 64 bits is cut, so it gives no percentage; such an `advance` is ignored, and a warning says so."""
    with progress.operation("x", total=10**30) as op:
        op.advance(10**28)
        op.advance(10**10)
        found = op.snapshot().progress
        assert (found.completed, found.total, found.percentage) == (10**10, INT_MAX, None)
    assert "below 2**63" in caplog.text


def test_a_stage_that_the_plan_does_not_name(progress_capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """A stage below the operation that its plan does not name is told once; one with a weight, or deeper, is meant."""
    with progress.operation("release", plan=["design", "build"]):
        for name in ("bild", "other"):
            with progress.stage(name):
                pass
        with progress.stage("build"), progress.stage("inner"):
            pass
        with progress.stage("heavy", weight=2):
            pass
    (record,) = caplog.records
    assert "opens 'bild', which is not in the plan of operation 'release' (design, build)" in record.getMessage()
    assert "weight=" in record.getMessage()


EARLY: dict[str, Callable[[Operation], object]] = {
    "update": lambda op: op.update(completed=3),
    "record": lambda op: op.record("ok"),
    "note": lambda op: op.note("hello"),
    "track": lambda op: list(op.track([1])),
    "waiting": lambda op: op.waiting("tea"),
    "heartbeat": lambda op: op.heartbeat(),
    "step": lambda op: op.step("a"),
    "stage": lambda op: op.stage("a").start(),
    "complete": lambda op: op.complete(),
}


@pytest.mark.parametrize("name", EARLY)
def test_an_operation_used_before_its_start(
    name: str, progress_capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """What comes before `start()` is told once a call site, with what to do."""
    for _ in range(2):
        EARLY[name](progress.operation("work"))
    (record,) = caplog.records
    line = f"{__file__}:{EARLY[name].__code__.co_firstlineno}"
    assert record.getMessage() == (
        f"{name}() at {line} comes before the start of operation 'work', so nobody sees it; "
        "call start() first, or open it with 'with'"
    )


LATE: dict[str, Callable[[Operation], object]] = {
    "update": lambda op: op.update(completed=9, total=50, message="late"),
    "record": lambda op: op.record("failed"),
    "note": lambda op: op.note("late"),
    "set": lambda op: op.set(key="late"),
    "result": lambda op: op.result(key="late"),
    "usage": lambda op: op.usage(cost=1.0),
    "track": lambda op: list(op.track([1])),
    "waiting": lambda op: op.waiting("tea").__enter__(),
    "heartbeat": lambda op: op.heartbeat(),
    "step": lambda op: op.step("a"),
}


@pytest.mark.parametrize("name", LATE)
def test_an_operation_used_after_its_end(
    name: str, progress_capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """What comes after the end changes nothing, and is told once a call site."""
    with progress.operation("work", total=3) as op:
        op.advance(3)
    before = op.summary_dict()
    for _ in range(2):
        LATE[name](op)
    assert op.summary_dict() | {"updated_at": 0} == before | {"updated_at": 0}
    (record,) = caplog.records
    line = f"{__file__}:{LATE[name].__code__.co_firstlineno}"
    assert record.getMessage() == (
        f"{name}() at {line} is ignored: operation 'work' has ended (completed), and its figures are final"
    )


@pytest.mark.parametrize("tracks", [False, True])
def test_advance_after_the_end(tracks: bool, progress_capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """Units counted after the end change neither the event of the end nor later snapshots, and are told once."""
    with progress.operation("late", total=3) as op, op.stage("load", total=2) as stage:
        if tracks:
            list(op.track("abc"))
        else:
            op.advance(3)
        stage.advance()
    before = op.summary()
    op.advance()
    stage.advance(5)
    progress_capture.look()
    ended = progress_capture.ended("late").progress
    assert (ended.completed, ended.percentage) == (3, 100)
    op.advance(10**400)
    op.advance(2.5)
    assert (op.snapshot().progress.completed, stage.snapshot().progress.completed) == (3, 1)
    assert op.summary() == before
    told = [record.getMessage() for record in caplog.records]
    assert "advance() is ignored after the end of operation 'late': its figures are final" in told[0] + told[1]
    assert sum("stage 'load'" in line for line in told) == 1


def test_advance_after_the_end_was_sent(progress_capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """The ticker notices units that are counted soon after it sent the end, though nobody asks for a snapshot."""
    with progress.operation("late", total=3) as op:
        op.advance(3)
    op.advance()
    progress_capture.look()
    (record,) = caplog.records
    assert "operation 'late'" in record.getMessage()


def test_track_and_advance_that_disagree(progress_capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """A loop as long as the total, beside a lower count of `advance`, is told once; batches of units are meant."""
    for _ in range(2):
        with progress.operation("both", total=3) as op:
            list(op.track("abc"))
            op.advance()
    (record,) = caplog.records
    assert "the loop took 3 items, advance() counted 1, which is shown" in record.getMessage()
    with progress.operation("batches", total=20) as op:
        for _ in op.track("ab"):
            op.advance(10)
    with progress.operation("short batches", total=20) as op:
        for _ in op.track("abc"):
            pass
        op.advance()
    with progress.operation("each", total=3) as op:
        for _ in op.track("abc"):
            op.advance()
    assert len(caplog.records) == 1


def test_a_request_to_stop_after_the_end(progress_capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """A request that comes too late changes nothing, and is nobody's mistake."""
    with progress.operation("late") as op:
        pass
    op.request_cancel("too slow")
    assert not op.cancel_requested()
    assert not caplog.records


KEPT = {
    "NaN": ([5, math.nan, 3], 8),
    "infinity": ([5, math.inf, 3], 8),
    "a NaN of decimals": ([5, Decimal("nan"), 3], 8),
    "a NaN among floats": ([0.5, math.nan, 0.25], 0.75),
    "beyond 64 bits": ([5, 10**400, 3], 8),
    "beyond all floats": ([1.5, 10**400, 3], 4.5),
    "a complex number": ([5, 1j, 3], 8),
    "a list": ([5, [1], 3], 8),
    "nothing": ([5, None, 3], 8),
}


@pytest.mark.parametrize("look", [False, True], ids=["unseen", "seen"])
@pytest.mark.parametrize(("steps", "count"), KEPT.values(), ids=KEPT)
def test_what_is_no_number_takes_no_count_away(
    steps: list[Any], count: float, look: bool, progress_capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """`advance` ignores what it can't count, and names value, call site and remedy; what was counted stays.

    That holds whether or not the ticker looked in between.
    """
    with progress.operation("survey") as op:
        for step in steps:
            op.advance(step)
            if look:
                progress_capture.advance(1)
        op.update(message="update() works on")
        assert op.snapshot().progress.completed == count
    (record,) = (record for record in caplog.records if record.levelname == "WARNING")
    told = record.getMessage()
    assert "test_misuse.py" in told
    assert values.shown(steps[1]) in told
    assert "is ignored: n must be " in told


MIXED = {
    "floats and decimals": ([1.5, Decimal("2.5"), 1, Decimal("0.5"), 0.5], 6),
    "decimals and floats": ([Decimal("1.5"), 2.5, Decimal(1)], 5),
    "fractions": ([Fraction(1, 4), 0.5, Fraction(1, 4), 1], 2),
    "truths": ([True, True, False], 2),
    "large numbers": ([2**40, 2**40, 1], 2**41 + 1),
    "large floats": ([1e12, 0.5], 1e12 + 0.5),
    "large decimals and floats": ([0.5, Decimal(2**40)], 2**40 + 0.5),
}


@pytest.mark.parametrize(("steps", "count"), MIXED.values(), ids=MIXED)
def test_numbers_of_different_kinds_add_up(
    steps: list[Any], count: float, progress_capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """Ints, bools, floats, decimals and fractions count together, in any order, without a warning."""
    with progress.operation("survey") as op:
        for step in steps:
            op.advance(step)
        assert op.snapshot().progress.completed == count
        op.update(completed=count)
        op.advance(1)
        assert op.snapshot().progress.completed == count + 1
    assert caplog.records == []


class Byte(int):
    """A number of 8 bits, as numpy has them: sums wrap around."""

    itemsize = 1

    def __add__(self, other: int) -> Byte:
        return Byte((int(self) + int(other)) % 256)

    __radd__ = __add__


def test_numbers_that_wrap_around_are_told(progress_capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """A count in numbers of fewer than 64 bits is lost where it wraps; the first look says so, and what to do."""
    with progress.operation("survey") as op:
        op.advance(Byte(200))
        progress_capture.advance(1)
    (record,) = caplog.records
    assert "counts in Byte, whose sums lose what does not fit; call advance(int(n))" in record.getMessage()


def test_advance_before_the_start_is_told_at_the_start(
    progress_capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """`advance` does not look; `start()` sees what was counted before, and keeps it."""
    op = progress.operation("work")
    op.advance(3)
    assert not caplog.records
    with op:
        assert op.snapshot().progress.completed == 3
    assert "advance() at" in caplog.records[0].getMessage()


def test_what_may_be_said_before_the_start(progress_capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """Attributes, a total and a message are taken along; giving one up before its start is fine."""
    op = progress.operation("work")
    op.set(a=1)
    op.update(total=5, message="soon")
    op.cancel("not needed")
    assert not caplog.records


def test_a_stage_outside_is_told_once(progress_capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """A stage where no operation runs says so once; what is done with it says nothing more."""
    with progress.stage("alone") as stage:
        stage.update(completed=1)
        stage.note("x")
        list(stage.track([1]))
    (record,) = caplog.records
    assert "no operation is running here" in record.getMessage()


def test_warnings_are_bounded(progress_capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """After the limit of places, one line says that no more are named."""
    for number in range(misuse.SITES + 10):
        misuse.warn_of("test", f"n{number}", "place %d", number)
    assert len(caplog.records) == misuse.SITES + 1
    assert "no more of them are logged" in caplog.records[-1].getMessage()
    misuse._told.clear()


@pytest.mark.parametrize("value", [5, None, [1], {"a": 1}, b"bytes"])
def test_a_name_that_is_no_text_loses_nothing(value: object, progress_capture: Capture) -> None:
    """A name that the job replaced by something else than a text is sent as text, and the operation is not lost."""
    with progress.operation("survey", id="one") as operation:
        progress_capture.look()
        with progress.stage("load") as stage:
            operation.name = stage.name = value  # type: ignore[assignment]
            stage.advance(1)
            progress_capture.advance(2)
    progress_capture.look()
    [ended] = progress_capture.of("progress.operation.ended")
    assert type(ended.snapshot.name) is str
    assert {type(one.name) for one in ended.snapshot.stages} == {str}
    assert ended.snapshot.status is progress.Status.COMPLETED


def test_a_call_after_the_end_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """A carried function that runs after the end of its operation is told so, not to open one."""
    with progress.operation("work"):
        late = progress.carry(lambda: progress.advance())
    late()
    assert "does nothing: its operation 'work' has ended already" in caplog.text


def test_a_callback_that_is_none_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """A listener must be callable; anything else is ignored with a warning."""
    progress.on_stall(5)  # type: ignore[arg-type]
    assert "on_stall() at" in caplog.text
    assert "callback must be a function, not 5" in caplog.text
