"""A program without a line of ours is watched, and behaves as without us: nobody can ask its operations to stop."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import tqdm.std
from opentelemetry.sdk.trace import TracerProvider

import otel_progress as progress
from otel_progress import semconv
from otel_progress.instrumenting import chosen
from otel_progress.live import hooks
from otel_progress.live.engine.commands import Commands
from otel_progress.model.status import Status
from otel_progress.testing import Capture, capture

bar = partial(tqdm.std.tqdm, file=io.StringIO())


@pytest.fixture
def seen() -> Iterator[Capture]:
    """Capture all signals, with bars and spans seen."""
    with capture() as found:
        chosen.start(["tqdm", "live_spans"])
        yield found
        chosen.stop()


def ask(key: str) -> Any:
    """Ask an operation to stop as a monitor does; returns the answer."""
    return Commands().obey({"id": key, "kind": "cancel", "operation_id": key, "reason": "enough"})


def looped(seen: Capture) -> tuple[int, Any]:
    """Loop over a bar of 20 items, and ask the outermost operation to stop after some: items done, and the answer."""
    done, answer = 0, None
    for done in bar(range(1, 21), desc="files"):
        seen.advance(0.5)
        if done == 8:
            answer = ask(progress.operations()[0].id)
    return done, answer


def test_a_bar_takes_no_request(seen: Capture) -> None:
    """The request is refused in words that say what to do, and the loop runs to its end."""
    done, answer = looped(seen)
    assert (done, answer["state"]) == (20, "refused")
    assert "SIGINT" in answer["detail"]
    seen.advance(1)
    assert seen.ended("files").status is Status.COMPLETED
    assert not seen.ended("files").cancel_requested


def test_a_program_that_configures_takes_requests(seen: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a line of ours, and knows what a request raises."""
    monkeypatch.setattr(hooks, "configured", True)
    with pytest.raises(progress.OperationCancelled):
        looped(seen)


def test_a_bar_in_a_declared_operation_takes_requests(seen: Capture) -> None:
    """So does a program that opened the operation itself."""
    with pytest.raises(progress.OperationCancelled), progress.operation("job"):
        looped(seen)
    seen.advance(1)
    assert seen.of(semconv.OPERATION_ENDED)[-1].snapshot.status is Status.CANCELLED


def test_declared_operations_in_a_span_take_requests(seen: Capture) -> None:
    """A request for the operation of a span reaches those in it that the program opened itself."""
    tracer = TracerProvider().get_tracer("theirs")
    with tracer.start_as_current_span("outer"):
        seen.advance(2)
        outer = progress.operations()[0]
        assert ask(outer.id)["state"] == "refused"
        with progress.operation("inner") as inner:
            command = {"id": "again", "kind": "cancel", "operation_id": outer.id, "reason": "enough"}
            assert Commands().obey(command)["state"] == "received"  # type: ignore[index]
            assert inner.cancel_requested()
            assert not outer.cancel_requested()
