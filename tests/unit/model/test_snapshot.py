"""Snapshots: everything that is known at one moment, as an immutable value."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from typing import Any

import pytest

import otel_progress as progress
from otel_progress import Health, Snapshot, StagePlan, Status
from otel_progress.model.snapshot import Wait
from otel_progress.model.values import Attributes
from otel_progress.testing import START, Capture


@pytest.fixture
def full(progress_capture: Capture) -> Snapshot:
    """A snapshot with something in each of its fields."""
    plan = [StagePlan("load", expected=30), StagePlan("later", depends_on=("load",))]
    with progress.operation(
        "survey",
        id="run-1",
        plan=plan,
        description="looks at all",
        agent="surveyor",
        attributes={"root": "/", "depths": [1, 2]},
        parent="above",
        stall_after=30,
        slow_after=600,
        start_within=60,
    ) as op:
        with progress.stage("load", total=10, unit="file", message="reading", attributes={"a": 1}) as load:
            load.advance(4)
            load.record("ok", item="x")
            load.record("failed", item="y", component="disk")
            progress_capture.advance(10)
            list(progress.track([1, 2], unit="token"))
            progress.usage(input_tokens=5, cost=0.25)
            progress.result(verdict="good", parts=("a", "b"))
            progress.note("a line", status="warning", n=1)
            progress.heartbeat()
            op.request_cancel("enough")
            with progress.waiting("a person", overdue_after=60):
                progress_capture.advance(5)
                return op.snapshot()


def walk(value: Any) -> Any:
    """Yield the value and everything in it."""
    yield value
    if is_dataclass(value):
        for field in fields(value):
            yield from walk(getattr(value, field.name))
    elif isinstance(value, dict):
        for item in value.values():
            yield from walk(item)
    elif isinstance(value, tuple):
        for item in value:
            yield from walk(item)


def test_what_it_holds(full: Snapshot) -> None:
    """A snapshot holds everything that was reported, in these fields."""
    assert (full.operation_id, full.name, full.status, full.attempt) == ("run-1", "survey", Status.WAITING, 1)
    assert (full.parent_id, full.description, full.agent) == ("above", "looks at all", "surveyor")
    assert (full.stall_after, full.slow_after, full.start_within) == (30, 600, 60)
    assert (full.stage, full.message, full.health, full.cancel_requested) == ("load", "reading", Health.WAITING, True)
    assert full.started_at == START / 1e9
    assert full.timestamp == START / 1e9 + 15
    assert full.elapsed == 15
    assert full.wait == Wait("a person", 5, 60)
    assert full.attributes == {"root": "/", "depths": (1, 2)}
    assert full.outcomes == {"ok": 1, "failed": 1}
    assert full.usage == {"input_tokens": 5, "cost.USD": 0.25}
    assert full.result == {"verdict": "good", "parts": ("a", "b")}
    assert [(note.text, note.status, note.stage) for note in full.notes] == [
        ("failed: disk y", "failed", "load"),
        ("a line", "warning", "load"),
    ]
    assert full.notes[1].attributes == {"n": 1}
    assert full.heartbeat_at == START / 1e9 + 10
    assert full.span is not None
    load, later = full.stages
    assert (load.counters, load.outcomes, load.attributes) == ({"token": 2}, {"ok": 1, "failed": 1}, {"a": 1})
    assert (later.status, later.depends_on) == (Status.PENDING, ("load",))


def test_it_never_changes(full: Snapshot) -> None:
    """No field can be set, and nothing in it can be changed."""
    for value in walk(full):
        if is_dataclass(value):
            with pytest.raises(FrozenInstanceError):
                value.name = "x"  # type: ignore[attr-defined, union-attr]
        if isinstance(value, dict):
            for change in (
                lambda d: d.__setitem__("a", 1),
                lambda d: d.__delitem__("a"),
                lambda d: d.update(a=1),
                lambda d: d.pop("a", None),
                lambda d: d.setdefault("a", 1),
                lambda d: d.clear(),
                lambda d: d.popitem(),
                lambda d: d.__ior__({"a": 1}),
            ):
                with pytest.raises(TypeError, match="copy it first"):
                    change(value)
        assert not isinstance(value, (list, set)), value


def test_it_stays_as_it_was(progress_capture: Capture) -> None:
    """What the operation does later does not reach an earlier snapshot."""
    with progress.operation("work") as op:
        op.record("ok")
        op.set(a=1)
        before = op.snapshot()
        text = repr(before)
        op.record("ok")
        op.set(a=2, b=3)
        op.note("more")
        op.usage(cost=1)
        with progress.stage("s"):
            pass
        assert repr(before) == text


@pytest.mark.parametrize(
    "again",
    [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s)), lambda s: replace(s)],
    ids=["copy", "deepcopy", "pickle", "replace"],
)
def test_it_copies_pickles_and_hashes(again: Any, full: Snapshot) -> None:
    """A copy is equal, has the same hash, and is as frozen."""
    other = again(full)
    assert other == full
    assert hash(other) == hash(full)
    assert {full: 1}[other] == 1
    assert isinstance(other.attributes, Attributes)
    assert replace(full, timestamp=0.0) != full


def only_json(value: Any) -> bool:
    """Whether the value has exactly the types of JSON."""
    if type(value) is dict:
        return all(type(key) is str and only_json(item) for key, item in value.items())
    if type(value) is list:
        return all(map(only_json, value))
    return value is None or type(value) in (str, int, float, bool)


def test_to_dict_is_plain_json(full: Snapshot) -> None:
    """to_dict() holds only JSON types, under the documented keys."""
    found = full.to_dict()
    assert only_json(found)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["operation_id"] == "run-1"
    assert found["stage"] == "load"
    assert found["progress_percentage"] == full.progress.percentage == 20
    assert found["message"] == "reading"
    assert found["status"] == "waiting"
    assert found["timestamp"] == "2023-11-14T22:13:35+00:00"
    assert found["metadata"] == {"root": "/", "depths": [1, 2]}
    assert found["stages"][0]["progress"]["completed"] == 4
    assert found["attributes"] == found["metadata"]


def test_to_dict_of_one_that_has_nothing(progress_capture: Capture) -> None:
    """An operation that reported nothing has the same keys."""
    found = progress.operation("empty").snapshot().to_dict()
    assert (found["status"], found["stage"], found["progress_percentage"]) == ("pending", None, None)
    assert only_json(found)


def test_at_a_later_time(full: Snapshot) -> None:
    """at(now) is the same operation later: it ran and waited on, and was idle only where it did not wait."""
    later = full.at(full.timestamp + 7)
    assert (later.timestamp, later.elapsed, later.idle) == (full.timestamp + 7, 22, full.idle)
    assert later.wait == Wait("a person", 12, 60)
    running = replace(full, status=Status.RUNNING, wait=None)
    assert running.at(full.timestamp + 7).idle == full.idle + 7
    assert later.operation_id == full.operation_id


@pytest.mark.parametrize("status", [status for status in Status if status.final])
def test_at_changes_nothing_that_is_over(status: Status, full: Snapshot) -> None:
    """What is over, and what is asked for an earlier time, stays as it is."""
    over = replace(full, status=status)
    assert over.at(full.timestamp + 1000) is over
    assert full.at(full.timestamp - 1) is full
    assert full.at(full.timestamp) is full


@pytest.mark.parametrize(
    ("ratio", "percentage"),
    [(None, None), (0.0, 0), (0.12345, 12.35), (0.5, 50), (0.99994, 99.99), (0.9999999, 99.99), (1.0, 100)],
)
def test_percentage(ratio: float | None, percentage: float | None) -> None:
    """The percentage has two digits, and is 100 only at the end."""
    assert progress.Progress(ratio=ratio).percentage == percentage


@pytest.mark.parametrize("status", Status)
def test_which_statuses_are_final(status: Status) -> None:
    """All but pending, running and waiting are final; each is its own text."""
    assert status.final == (status not in {Status.PENDING, Status.RUNNING, Status.WAITING})
    assert str(status) == status.value == f"{status}"
