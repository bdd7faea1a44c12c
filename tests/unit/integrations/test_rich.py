"""Programs with rich's progress displays, written by people who never heard of otel-progress, are seen."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
import rich.progress
import tqdm
import tqdm.rich
from bar_parts import move_and_hang
from rich.console import Console

import otel_progress as progress
from otel_progress import semconv
from otel_progress.instrumenting import chosen
from otel_progress.model.status import Status
from otel_progress.testing import Capture, capture


@pytest.fixture(autouse=True)
def seen() -> Iterator[Capture]:
    """Capture all signals, with the integration on."""
    with capture() as found:
        chosen.start(["rich", "tqdm"])
        yield found
        chosen.stop()


@pytest.fixture
def console() -> Console:
    """Return a console that nobody sees."""
    return Console(file=io.StringIO())


def ended(seen: Capture, name: str) -> Any:
    seen.advance(1)
    return seen.ended(name)


def counts(found: Any) -> tuple[Any, Any]:
    return found.progress.completed, found.progress.total


def test_a_task_is_an_operation(seen: Capture, console: Console) -> None:
    """Its name has neither markup nor numbers, its message no markup."""
    with rich.progress.Progress(console=console) as shown:
        task = shown.add_task("[red]Downloading 1/3[/red]", total=4)
        for _ in range(4):
            seen.advance(0.5)
            shown.advance(task)
    found = ended(seen, "Downloading")
    assert (counts(found), found.status, found.message) == ((4, 4), Status.COMPLETED, "Downloading 1/3")


@pytest.mark.parametrize("total", [float("inf"), float("nan")])
def test_a_total_that_is_none_is_unknown(seen: Capture, console: Console, total: float) -> None:
    """rich takes any number; the task is seen all the same."""
    with rich.progress.Progress(rich.progress.TextColumn("{task.description}"), console=console) as shown:
        task = shown.add_task("stream", total=total)
        for _ in range(4):
            seen.advance(0.5)
            shown.advance(task)
    assert counts(ended(seen, "stream")) == (4, None)


def test_tasks_of_one_display_are_side_by_side(seen: Capture, console: Console) -> None:
    """Each is a stage of what runs around them."""
    with progress.operation("job"), rich.progress.Progress(console=console) as shown:
        tasks = [shown.add_task(name, total=2) for name in ("first", "second")]
        seen.advance(1.5)
        for task in tasks:
            shown.update(task, completed=1)
        seen.advance(1.5)
        paths = {stage.path: counts(stage) for stage in progress.operations()[0].snapshot().stages}
    assert paths == {"first": (1, 2), "second": (1, 2)}


def test_a_loop_by_track(seen: Capture, console: Console) -> None:
    """It ends with its last item; one that is left early is told."""
    for _ in rich.progress.track(range(4), "unpack", console=console, auto_refresh=False):
        seen.advance(0.5)
    found = ended(seen, "unpack")
    assert (counts(found), found.status) == ((4, 4), Status.COMPLETED)
    for i in rich.progress.track(range(9), "search", console=console, auto_refresh=False):
        seen.advance(0.5)
        if i == 4:
            break
    assert (ended(seen, "search").status, seen.ended("search").reason) == (Status.CANCELLED, "left early, after 4")


def test_an_exception_in_the_block_fails_its_tasks(seen: Capture, console: Console) -> None:
    """It passes unchanged; a task that was finished before has completed."""
    with pytest.raises(KeyError, match="mine"), rich.progress.Progress(console=console) as shown:
        shown.update(shown.add_task("done", total=1), completed=1)
        shown.add_task("open", total=None)
        seen.advance(1.5)
        raise KeyError("mine")
    found = ended(seen, "open")
    assert (found.status, found.reason) == (Status.FAILED, "KeyError: 'mine'")
    assert [event.snapshot.name for event in seen.of(semconv.OPERATION_ENDED)] == ["open"]


def test_a_task_that_is_removed_has_ended(seen: Capture, console: Console) -> None:
    """Its last count is kept."""
    shown = rich.progress.Progress(console=console)
    task = shown.add_task("part", total=5)
    seen.advance(1.5)
    shown.advance(task, 3)
    shown.remove_task(task)
    assert counts(ended(seen, "part")) == (3, 5)


def test_a_bar_of_tqdm_by_rich_is_seen_once(seen: Capture) -> None:
    """Both libraries see the same work."""
    with pytest.warns(tqdm.TqdmExperimentalWarning):
        shown = tqdm.rich.tqdm(range(4), desc="files", options={"console": Console(file=io.StringIO())})
    for _ in shown:
        seen.advance(0.5)
    seen.advance(1)
    assert [event.snapshot.name for event in seen.of(semconv.OPERATION_STARTED)] == ["files"]
    assert counts(seen.ended("files")) == (4, 4)


def test_the_class_is_restored(console: Console) -> None:
    """What is taken out is gone, and the display works."""
    ours = rich.progress.Progress.add_task
    chosen.stop()
    assert rich.progress.Progress.add_task is ours.__wrapped__  # type: ignore[attr-defined]
    assert list(rich.progress.track([1, 2], console=console)) == [1, 2]


@pytest.mark.parametrize("how", ["advance", "update"])
def test_a_task_that_another_thread_moves_is_stuck_at_the_line_of_that_thread(
    seen: Capture, console: Console, how: str
) -> None:
    """The thread that moved it last works on it, not the one that added it."""
    with progress.operation("job", stall_after=10), rich.progress.Progress(console=console) as shown:
        task = shown.add_task("files", total=4)
        move_and_hang(seen, lambda: getattr(shown, how)(task, advance=3))
    stalled = seen.of(semconv.STALLED)[0].snapshot
    assert counts(stalled.stages[0]) == (3, 4)
    assert "work_that_hangs" in str(stalled.stuck_at)
