"""Call stacks are read while everything changes under the reader."""

from __future__ import annotations

from otel_progress.live.diagnosis.call_stack import STACK_LENGTH

from .program import run

LOOKS = 1500


def test_looks_at_threads_and_tasks_that_come_and_go() -> None:
    """Many looks at short threads, pools, generators and tasks do no harm, leak nothing, and find the line."""
    found = run("stacks", LOOKS).values()
    assert (found["ended"], found["errors"]) == ("True", "0")
    assert int(found["found"]) > LOOKS // 2
    assert found["located"] == found["found"]
    assert int(found["longest"]) <= STACK_LENGTH
    assert (found["left"], found["frames"]) == ("0", "0")


def test_looks_at_coroutines_while_they_are_closed() -> None:
    """A coroutine that another thread closes at this moment is read without harm."""
    assert int(run("closing", 5).values()["looks"]) > 0
