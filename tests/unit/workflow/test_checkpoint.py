"""Workflows that go on where an earlier attempt ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from otel_progress import CheckpointMismatch, InvalidArgument, ProgressError, Status
from otel_progress.durable.store import open_store
from otel_progress.testing import Capture
from otel_progress.workflow import Step, Workflow


def make(store: Path, calls: list[str], *, broken: bool, **options: Any) -> Workflow:
    """Two steps, of which the second fails or not."""

    def plan(task: str) -> dict[str, list[str]]:
        calls.append("plan")
        return {"queries": [task, "more"]}

    def search(plan: dict[str, list[str]]) -> int:
        calls.append("search")
        if broken:
            raise ConnectionError("reset")
        return len(plan["queries"])

    return Workflow(
        "w", stages=[Step("plan", plan), Step("search", search, after=["plan"])], checkpoint=store, **options
    )


def test_it_goes_on_after_a_failure(tmp_path: Path, progress_capture: Capture) -> None:
    """A step that completed is not run again; its result is passed on as before."""
    calls: list[str] = []
    with pytest.raises(ConnectionError):
        make(tmp_path / "work.db", calls, broken=True).run("tea", id="r")
    again = make(tmp_path / "work.db", calls, broken=False)
    assert again.run("tea", id="r") == {"plan": {"queries": ["tea", "more"]}, "search": 2}
    assert calls == ["plan", "search", "search"]
    snapshot = again.get_progress("r")
    assert snapshot is not None
    assert (snapshot.attempt, snapshot.status) == (2, Status.COMPLETED)
    assert snapshot.stages[0].message == "done before"
    assert snapshot.result == {}  # results are the job's own; they leave the process only if it says so


def test_another_task_is_another_work(tmp_path: Path, progress_capture: Capture) -> None:
    """The same id with another task, or with other steps, is refused; `resume_mismatch` decides otherwise."""
    calls: list[str] = []
    with pytest.raises(ConnectionError):
        make(tmp_path / "work.db", calls, broken=True).run("tea", id="r")
    with pytest.raises(CheckpointMismatch, match="coffee"):
        make(tmp_path / "work.db", calls, broken=False).run("coffee", id="r")
    restart = make(tmp_path / "work.db", calls, broken=False, resume_mismatch="restart")
    assert restart.run("coffee", id="r")["plan"] == {"queries": ["coffee", "more"]}


def test_a_step_that_failed_and_completes_later(tmp_path: Path, progress_capture: Capture) -> None:
    """What was made without its result is made again; what it was not waited for stays."""
    calls: list[str] = []

    def facts() -> int:
        calls.append("facts")
        if calls.count("facts") == 1:
            raise ConnectionError("reset")
        return 12

    def review(facts: int | None) -> dict[str, object]:
        calls.append("review")
        return {"facts": facts}

    def other() -> int:
        calls.append("other")
        return 1

    def last() -> None:
        calls.append("last")
        if calls.count("last") == 1:
            raise ValueError("later")

    stages = [
        Step("facts", facts, critical=False),
        Step("other", other),
        Step("review", review, after=["facts", "other"]),
        Step("last", last, after=["review"]),
    ]
    work = Workflow("w", stages=stages, checkpoint=tmp_path / "work.db")
    with pytest.raises(ValueError, match="later"):
        work.run("t", id="r")
    assert work.run("t", id="r") == {"facts": 12, "other": 1, "review": {"facts": 12}, "last": None}
    assert [calls.count(name) for name in ("facts", "other", "review", "last")] == [2, 1, 2, 2]
    snapshot = work.get_progress("r")
    assert snapshot is not None
    assert "runs again, as there was no result of facts before" in [note.text for note in snapshot.notes]
    assert work.run("t", id="r")["review"] == {"facts": 12}
    assert calls.count("review") == 2


def test_it_needs_an_id(tmp_path: Path, progress_capture: Capture) -> None:
    """Without an id no later attempt could find it."""
    with pytest.raises(InvalidArgument, match="id"):
        make(tmp_path / "work.db", [], broken=False).run("tea")


def test_results_must_be_json(tmp_path: Path, progress_capture: Capture) -> None:
    """A result that can't be kept fails its step with a clear error."""
    work = Workflow("w", stages=[Step("a", object)], checkpoint=tmp_path / "work.db")
    with pytest.raises(ProgressError, match="JSON"):
        work.run(id="r")


PROGRAM = """
import os, sys, time
from otel_progress.workflow import Step, Workflow

def plan():
    print("plan", flush=True)
    return 1

def dies(plan):
    print("search", flush=True)
    if sys.argv[2] == "die":
        time.sleep(1)  # results are saved within a quarter of a second
        os.kill(os.getpid(), 9)
    return plan + 1

work = Workflow("w", stages=[Step("plan", plan), Step("search", dies, after=["plan"])], checkpoint=sys.argv[1])
print(work.run(id="r"))
"""


def test_it_goes_on_after_a_kill(tmp_path: Path) -> None:
    """What a killed process had completed is kept, and the next one need not wait for its lease."""
    said = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "work.db"), how],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        ).stdout
        for how in ("die", "live")
    ]
    assert said == ["plan\nsearch\n", "search\n{'plan': 1, 'search': 2}\n"]


def test_steps_get_results_as_they_are_kept(tmp_path: Path, progress_capture: Capture) -> None:
    """What a step changes in the result of another is not kept, so no later step sees it, whether resumed or not."""
    broken = [True]

    def enrich(find: dict[str, list[int]]) -> int:
        find["pages"].append(2)
        return 1

    def write(find: dict[str, list[int]], enrich: int) -> list[int]:
        if broken.pop():
            raise ConnectionError
        return find["pages"]

    find = Step("find", lambda: {"pages": [1]})
    steps = [find, Step("enrich", enrich, after=["find"]), Step("write", write, after=["find", "enrich"])]
    work = Workflow("w", stages=steps, checkpoint=tmp_path / "work.db")
    with pytest.raises(ConnectionError):
        work.run(id="r")
    broken.append(False)
    resumed = work.run(id="r")
    broken.append(False)
    assert resumed == work.run(id="other") == {"find": {"pages": [1]}, "enrich": 1, "write": [1]}


def test_where_it_was_is_no_step_that_never_began(tmp_path: Path, progress_capture: Capture) -> None:
    """`recover` and the feed of the next attempt name the step that failed, not the last one of the plan."""

    def load(plan: int) -> int:
        raise ConnectionError

    steps = [Step("plan", lambda: 1), Step("load", load, after=["plan"]), Step("write", lambda: 2, after=["load"])]
    work = Workflow("w", stages=steps, checkpoint=tmp_path / "work.db")
    for _ in range(2):
        with pytest.raises(ConnectionError):
            work.run(id="r")
    found = open_store(tmp_path / "work.db").operation("r")
    assert found is not None
    assert found.summary.stage == "load"
    snapshot = work.get_progress("r")
    assert snapshot is not None
    assert [note.text for note in snapshot.notes if "resumed" in note.text] == [
        "resumed (attempt 2, after it failed 0 s ago in load)"
    ]
