"""Hints: what to do about a failure is shown with its reason, wherever that is shown."""

from __future__ import annotations

import sys
from typing import Any

import pytest

import otel_progress as progress
from otel_progress import Operation, Status
from otel_progress.model import wire
from otel_progress.model.sentences import sentence
from otel_progress.model.snapshot import Event, Snapshot
from otel_progress.render import plain
from otel_progress.testing import Capture

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

HINT = "free 2 GB in /data"


def noted(error: BaseException, *notes: Any) -> BaseException:
    error.__notes__ = list(notes)  # as add_note does, which Python 3.10 does not have
    return error


def ended_with(error: BaseException) -> Snapshot:
    with pytest.raises(BaseException) as raised, progress.operation("a") as one:
        raise error
    assert raised.value is error
    return one.snapshot()


def test_fail_with_a_hint() -> None:
    """`fail(error, hint=)` takes an exception, a text or nothing, and the hint is beside the reason."""
    for error, reason in ((OSError("full"), "OSError: full"), ("full", "full"), (None, None)):
        one = progress.operation("a").start()
        one.fail(error, hint=HINT)
        seen = one.snapshot()
        assert (seen.status, seen.reason, seen.hint) == (Status.FAILED, reason, HINT)


def test_notes_of_an_exception() -> None:
    """An exception that leaves the block brings its notes as the hint; `fail(error)` does so as well."""
    assert ended_with(noted(OSError("full"), HINT, "see\n  the runbook")).hint == f"{HINT}; see the runbook"
    one = progress.operation("a").start()
    one.fail(noted(OSError("full"), HINT))
    assert one.snapshot().hint == HINT
    other = progress.operation("a").start()
    other.fail(noted(OSError("full"), "said by a library"), hint=HINT)
    assert other.snapshot().hint == HINT, "what the code says here comes first"


def test_notes_inside_a_group() -> None:
    """The notes of exceptions in a group count, as a task group wraps what its tasks raise."""
    inner = (noted(OSError("full"), HINT), noted(OSError("full"), HINT), noted(OSError("gone"), "mount it"))
    error = ExceptionGroup("both", inner)
    assert ended_with(error).hint == f"{HINT}; mount it"


def test_decorated_functions() -> None:
    """A decorated function whose exception has a note ends with a hint."""
    ended: list[Operation] = []

    @progress.operation("a")
    def work() -> None:
        ended.append(progress.current(required=True))
        raise noted(OSError("full"), HINT)

    with pytest.raises(OSError):
        work()
    assert ended[0].snapshot().hint == HINT


def test_no_hint_without_a_failure() -> None:
    """What completes, and what failed without a note, has none; a later `fail` changes nothing."""
    with progress.operation("a") as one:
        pass
    one.fail("late", hint=HINT)
    assert one.snapshot().hint is None
    assert ended_with(OSError("full")).hint is None
    assert ended_with(noted(SystemExit(0), HINT)).hint is None


def test_a_stage_says_it_in_its_reason() -> None:
    """The hint of a stage is part of its reason; its operation has none unless it fails with the exception."""
    with progress.operation("a") as one:
        progress.stage("load").start().fail("no file", hint=HINT)
    seen = one.snapshot()
    assert (seen.stages[0].reason, seen.hint) == (f"no file (hint: {HINT})", None)


class Odd(Exception):
    """An exception whose notes can't be read."""

    @property
    def __notes__(self) -> Any:
        raise ValueError


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (noted(OSError(), 7, None, b"x"), None),
        (noted(OSError(), "x" * 10_000_000), "x" * 1023 + "…"),
        (noted(OSError(), *["same"] * 100_000), "same"),
        (noted(OSError(), *map(str, range(100))), "0; 1; 2; 3; 4; 5; 6; 7"),
        (noted(OSError(), "password=hunter2"), "password=[redacted]"),
        (noted(OSError(), "  \n "), None),
        (Odd(), None),
    ],
)
def test_hostile_notes(error: BaseException, hint: str | None) -> None:
    """Notes of any kind and size end in one bounded, redacted line, or in none."""
    assert ended_with(error).hint == hint


def test_notes_that_are_no_list() -> None:
    """`__notes__` that is anything but a list is ignored."""
    error = OSError()
    error.__notes__ = "text"  # type: ignore[assignment]
    assert ended_with(error).hint is None


def test_wherever_the_reason_is(progress_capture: Capture) -> None:
    """The wire, JSON, the summary, sentences and the closing lines of a terminal say it."""
    events: list[Event] = []
    progress.add_listener(lambda _, event: events.append(event))
    with pytest.raises(OSError), progress.operation("a") as one:
        raise noted(OSError("full"), HINT)
    progress_capture.look()
    seen = one.snapshot()
    there_and_back = wire.from_attributes(wire.to_attributes(seen), seen.timestamp)
    assert there_and_back.hint == seen.to_dict()["hint"] == HINT
    assert one.summary_dict()["hint"] == HINT
    assert f"\n  hint: {HINT}" in one.summary()
    assert sentence(events[-1]).endswith(f"(OSError: full); hint: {HINT}")
    assert f"hint: {HINT}" in "".join(text for line in plain.closing(seen, "a", 9) for text, _ in line)
