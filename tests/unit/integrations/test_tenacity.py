"""The pause before a retry is a declared wait, and no trouble; each failure stands in the feed."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import stamina
import tenacity
from tqdm import tqdm

import otel_progress as progress
from otel_progress import semconv
from otel_progress.instrumenting import chosen
from otel_progress.live import hooks
from otel_progress.model.status import Status
from otel_progress.testing import Capture, capture


@pytest.fixture(autouse=True)
def seen() -> Iterator[Capture]:
    """Capture all signals, with the integration on."""
    with capture() as found:
        chosen.start("tenacity")
        yield found
        chosen.stop()


def failing(times: int) -> Any:
    """Return a function that fails so often before it succeeds."""
    left = [times]

    def load() -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise ConnectionError("refused")
        return "loaded"

    return load


def test_a_pause_is_a_wait_and_no_stall(seen: Capture) -> None:
    """However long it is; afterwards the work goes on."""
    reasons: list[Any] = []

    def sleep(seconds: float) -> None:
        seen.advance(seconds)
        reasons.append(progress.operations()[0].snapshot().wait.reason)

    retry = tenacity.retry(wait=tenacity.wait_fixed(60), stop=tenacity.stop_after_attempt(3), sleep=sleep)
    with progress.operation("job", stall_after=10):
        assert retry(failing(2))() == "loaded"
    seen.look()
    assert reasons == ["retry", "retry"]
    assert seen.of(semconv.STALLED) == []
    assert [note.text for note in seen.ended("job").notes if note.status == "warning"] == [
        "load, try 1: ConnectionError: refused",
        "load, try 2: ConnectionError: refused",
    ]


@pytest.mark.parametrize("inside", [False, True])
def test_a_pause_in_a_bar_that_is_not_shown_yet(seen: Capture, inside: bool) -> None:
    """A bar that becomes an operation or a stage while the first item waits for its retry waits, too."""
    chosen.start("tenacity,tqdm")
    hooks.stall_after = 10.0
    load = tenacity.retry(wait=tenacity.wait_fixed(60), sleep=seen.advance)(failing(2))
    with progress.operation("job", stall_after=10) if inside else contextlib.nullcontext():
        for _ in tqdm(range(3), desc="load", disable=True):
            load()
            seen.advance(9)
    seen.look()
    assert len(seen.of(semconv.WAIT_STARTED)) == len(seen.of(semconv.WAIT_ENDED)) == 2
    assert seen.of(semconv.STALLED) == []


def test_the_last_failure(seen: Capture) -> None:
    """A `RetryError` tells only the type of what failed: the feed has its text."""
    retry = tenacity.retry(wait=tenacity.wait_fixed(60), stop=tenacity.stop_after_attempt(2), sleep=seen.advance)
    with pytest.raises(tenacity.RetryError), progress.operation("job"):
        retry(failing(2))()
    seen.look()
    assert seen.ended("job").status is Status.FAILED
    assert seen.ended("job").notes[-1].text == "gave up after try 2: ConnectionError: refused"


def test_a_block_that_is_tried_again(seen: Capture) -> None:
    """`for attempt in Retrying()`, with the last error as ever."""
    tries = tenacity.Retrying(wait=tenacity.wait_fixed(5), stop=tenacity.stop_after_attempt(2), sleep=seen.advance)
    with progress.operation("job"), pytest.raises(tenacity.RetryError):
        for attempt in tries:
            with attempt:
                raise KeyError("x")
    seen.look()
    assert len(seen.of(semconv.WAIT_STARTED)) == 1


def test_stamina_and_coroutines(seen: Capture) -> None:
    """stamina is made of tenacity; its pauses count in asyncio, too."""
    load = failing(2)

    @stamina.retry(on=ConnectionError, wait_initial=0.001, wait_max=0.001, wait_jitter=0)
    async def fetch() -> Any:
        return load()

    async def main() -> None:
        async with progress.operation("job"):
            assert await fetch() == "loaded"

    asyncio.run(main())
    seen.look()
    assert seen.ended("job").status is Status.COMPLETED
    assert [note.text for note in seen.ended("job").notes if note.status == "warning"] == [
        "attempt, try 1: ConnectionError: refused",
        "attempt, try 2: ConnectionError: refused",
    ]
    assert [event.attributes[semconv.WAIT_REASON] for event in seen.of(semconv.WAIT_ENDED)] == ["retry"] * 2


def test_the_function_that_sleeps_is_the_users() -> None:
    """It can be read, replaced and copied as ever."""

    def sleep(_: float) -> None: ...

    retry = tenacity.Retrying(sleep=sleep)
    assert retry.sleep is sleep
    assert retry.copy().sleep is sleep
    assert copy.copy(retry).sleep is sleep
    assert f"sleep={sleep}" in repr(retry)
    retry.sleep = print
    assert retry.sleep is print
    chosen.stop()
    assert retry.sleep is print
    assert tenacity.Retrying(sleep=sleep).sleep is sleep
    assert pickle.loads(pickle.dumps(tenacity.Retrying())).sleep is tenacity.nap.sleep


def test_without_an_operation_nothing_is_said(seen: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """A program that reports nothing retries as ever."""
    assert tenacity.retry(sleep=lambda _: None)(failing(1))() == "loaded"
    assert (seen.events, caplog.records) == ([], [])


def test_a_wait_of_the_program_is_its_own(seen: Capture) -> None:
    """Who declares the pause is not told twice."""
    retry = tenacity.retry(wait=tenacity.wait_fixed(5), sleep=seen.advance)
    with progress.operation("job"), progress.waiting("my back-off"):
        retry(failing(1))()
    seen.look()
    assert [event.attributes[semconv.WAIT_REASON] for event in seen.of(semconv.WAIT_STARTED)] == ["my back-off"]
