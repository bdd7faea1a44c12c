"""`progress_callback`: whatever an agent gives it, it reports or ignores that, and never raises."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from otel_progress import StageSnapshot
from otel_progress.live import misuse
from otel_progress.testing import Capture
from otel_progress.workflow import Step, Workflow


@pytest.fixture(autouse=True)
def each_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test warn for the same line."""
    monkeypatch.setattr(misuse, "_told", set())


class Odd:
    """Raises wherever it is looked at."""

    def __float__(self) -> float:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        raise RuntimeError("no")


def after(*args: Any, **named: Any) -> StageSnapshot:
    """A stage after its step reported this, once."""
    seen: list[StageSnapshot] = []

    def agent(task: object, progress_callback: Any) -> str:
        progress_callback(*args, **named)
        found = work.get_progress("r")
        assert found is not None
        seen.append(found.stages[0])
        return "done"

    work = Workflow("w", stages=[Step("s", agent)])
    assert work.run("t", id="r") == {"s": "done"}
    return seen[0]


@pytest.mark.parametrize("percent", [75, 75.0, "75", " 75 % ", "75%", Decimal(75), Fraction(75)])
def test_a_percentage(percent: object, progress_capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """Numbers of any type count, as text as well."""
    found = after(percent, "half")
    assert (found.message, found.progress.percentage) == ("half", 75)
    assert not [record for record in caplog.records if "progress_callback" in record.getMessage()]


NONE: dict[str, Any] = {
    "words": "half",
    "empty": "",
    "too much": 120,
    "below": -1,
    "nan": math.nan,
    "inf": math.inf,
    "nan as text": "nan",
    "list": [],
    "dict": {},
    "huge": 10**400,
    "class": object,
    "raises": Odd(),
    "complex": 1j,
    "function": print,
}


@pytest.mark.parametrize("percent", NONE.values(), ids=list(NONE))
def test_what_is_no_percentage(percent: object, progress_capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """It is ignored, and the log says so in the words of the callback; the message still counts."""
    assert after(percent, "half").message == "half"
    (said,) = {record.getMessage() for record in caplog.records}
    assert said.startswith("progress_callback() at ")
    assert "is ignored: percent must be a number from 0 to 100, not " in said


@pytest.mark.parametrize(
    ("args", "named", "said"), [((10, "a", "b", "c"), {}, "4 arguments"), ((10,), {"eta": 3, "step": 1}, "eta, step")]
)
def test_more_than_it_knows(
    args: Any, named: Any, said: str, progress_capture: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    """Arguments of other callbacks are named once, and ignored."""
    after(*args, **named)
    assert f"knows percent and message, and ignores the rest: {said}" in caplog.text


def test_nothing(progress_capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """A call without anything, or with a message alone, is fine."""
    after()
    assert after(message="reads").message == "reads"
    assert not caplog.records


@pytest.mark.parametrize("percent", [None, "x"])
def test_it_may_be_awaited(percent: object, progress_capture: Capture) -> None:
    """Also where it ignores what it is given."""

    async def agent(task: object, progress_callback: Any) -> str:
        await progress_callback(percent)
        return "done"

    assert Workflow("w", stages=[Step("s", agent)]).run("t") == {"s": "done"}
