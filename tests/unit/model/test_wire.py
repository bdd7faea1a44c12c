"""A snapshot as OpenTelemetry attributes, and back."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from snapshot_parts import SNAPSHOT

from otel_progress import Health, Snapshot, StageSnapshot, Status, semconv
from otel_progress.model.attribute_types import JSON_TEXTS
from otel_progress.model.health import judge
from otel_progress.model.snapshot import Branch
from otel_progress.model.values import INT_MAX, INT_MIN
from otel_progress.model.wire import from_attributes, to_attributes

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


Told = TypeVar("Told", Snapshot, StageSnapshot)


def as_said(read: Told, given: Told) -> Told:
    """What was read, without a ratio that followed from counts."""
    progress = given.progress
    if progress.ratio is None and progress.ratio_raw is None and progress.completed is not None and progress.total:
        return replace(read, progress=replace(read.progress, ratio=None, ratio_raw=None))
    return read


@QUICK
@given(SNAPSHOT)
def test_a_snapshot_comes_back_as_it_was(snapshot: Snapshot) -> None:
    """What is written to attributes is read back the same, but for the notes, which are events of their own.

    A ratio that is missing beside counts is read from these; our SDK never leaves it out while something runs.
    """
    ids = snapshot.span
    given_ids = {} if ids is None else {"trace_id": ids.trace_id, "span_id": ids.span_id, "sampled": ids.sampled}
    attributes = to_attributes(snapshot)
    read = from_attributes(attributes, snapshot.timestamp, **given_ids)  # type: ignore[arg-type]
    stages = tuple(map(as_said, read.stages, snapshot.stages))
    assert replace(as_said(read, snapshot), stages=stages) == snapshot


@QUICK
@given(SNAPSHOT)
def test_attributes_are_what_every_backend_can_carry(snapshot: Snapshot) -> None:
    """Only texts, booleans, 64-bit integers and finite floats, under names that semconv.py knows."""
    names = {value for value in vars(semconv).values() if isinstance(value, str)}
    for key, value in to_attributes(snapshot).items():
        assert key in names
        assert type(value) in (str, bool, int, float)
        assert not isinstance(value, float) or math.isfinite(value)
        assert isinstance(value, (str, bool)) or INT_MIN <= value <= INT_MAX


@QUICK
@given(SNAPSHOT)
def test_structured_attributes_are_json(snapshot: Snapshot) -> None:
    """What has structure is strict JSON, which any language can read."""

    def refuse(constant: str) -> Any:
        raise AssertionError(constant)

    for key, value in to_attributes(snapshot).items():
        if key in {semconv.STAGES, semconv.STAGES_FOLDED, semconv.OUTCOMES, semconv.RESULT, semconv.ATTRIBUTES}:
            assert isinstance(value, str)
            json.loads(value, parse_constant=refuse)


def test_a_wait_that_is_over_is_no_wait_of_the_snapshot() -> None:
    """The event that ends a wait carries its reason; the operation runs and waits for nothing."""
    running = Snapshot("1", "work", Status.RUNNING, 5.0)
    attributes = {**to_attributes(running), semconv.WAIT_REASON: "tea", semconv.WAIT_DURATION: 3.0}
    assert from_attributes(attributes, 5.0) == running


def test_what_is_usual_is_left_out() -> None:
    """An empty snapshot has few attributes."""
    assert set(to_attributes(Snapshot("1", "work", Status.RUNNING, 5.0))) == {
        semconv.OPERATION_ID,
        semconv.OPERATION_NAME,
        semconv.OPERATION_ATTEMPT,
        semconv.STATUS,
        semconv.HEALTH,
        semconv.UNIT,
        semconv.SEQUENCE,
        semconv.ELAPSED,
        semconv.IDLE,
    }


def test_what_is_missing_has_its_usual_value() -> None:
    """The least that makes a snapshot: an id, a name and a status; what is not known is unknown."""
    found = from_attributes(
        {semconv.OPERATION_ID: "1", semconv.OPERATION_NAME: "work", semconv.STATUS: "running"}, timestamp=5.0
    )
    assert found == Snapshot("1", "work", Status.RUNNING, 5.0, health=Health.UNKNOWN)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {semconv.OPERATION_ID: "1", semconv.OPERATION_NAME: "work"},
        {semconv.OPERATION_ID: "1", semconv.OPERATION_NAME: "work", semconv.STATUS: "dancing"},
    ],
)
def test_attributes_of_no_snapshot_are_an_error(attributes: dict[str, Any]) -> None:
    """Attributes that are not those of a snapshot raise KeyError or ValueError."""
    with pytest.raises((KeyError, ValueError)):
        from_attributes(attributes, 5.0)


def test_repeated_stages_of_another_version_are_read() -> None:
    """An older sender names no repeated stages, a newer one may say more of each; both are read."""
    known = {semconv.OPERATION_ID: "1", semconv.OPERATION_NAME: "a", semconv.STATUS: "running"}
    old = known | {semconv.STAGES_FOLDED: '[["completed",36,18.0]]'}
    assert (from_attributes(old, 1.0).folded, from_attributes(old, 1.0).repeated) == ((("completed", 36, 18.0),), ())
    new = known | {semconv.STAGES_REPEATED: '[["fetch",{"completed":2},3.0,1.5,2,2,2,0,"more"]]'}
    (runs,) = from_attributes(new, 1.0).repeated
    assert (runs.path, runs.count, runs.median) == ("fetch", 2, 1.5)


@pytest.mark.parametrize(
    "text", ['[["fetch"]]', '[["a",{"completed":"x"},1,1,1,1,1,1]]', "[[1,{},1,1,1,1,1,1]]", "[7]"]
)
def test_repeated_stages_that_make_no_sense_are_left_out(text: str) -> None:
    """Anything but a list of runs is ignored, as one wrong value must not hide the rest."""
    known = {semconv.OPERATION_ID: "1", semconv.OPERATION_NAME: "a", semconv.STATUS: "running", semconv.COMPLETED: 3}
    seen = from_attributes(known | {semconv.STAGES_REPEATED: text}, 1.0)
    assert (seen.repeated, seen.progress.completed) == ((), 3)


WRONG = ("2026-11-30T20:00:00Z", -1, float("inf"), True, {}, [], ["x"], [1, 2], [None], 10**400)
RIGHT = {
    **dict.fromkeys(("completed", "total", "rate", "weight", "peak_memory", "ratio"), (-1, float("inf"), "x", [1])),
    **dict.fromkeys(("started_at", "elapsed", "idle", "cpu_seconds", "expected", "stall_after"), WRONG),
    **dict.fromkeys(("name", "unit", "message", "reason", "description", "span_id"), (3, {}, ["x"], True)),
    **dict.fromkeys(("outcomes", "counters", "attributes", "usage", "child_outcomes", "planned"), ("x", 3, [1])),
    **dict.fromkeys(("depends_on", "wait", "eta"), ("lock", 30, {}, [1], [1, 2, 3, 4], [[], [], []])),
}


@pytest.mark.parametrize("key", RIGHT)
def test_wrong_key_of_a_stage_hides_nothing_else(key: str) -> None:
    """It is ignored: the stage is read with its other keys, and so are the other stages and the operation."""
    known = {semconv.OPERATION_ID: "1", semconv.OPERATION_NAME: "a", semconv.STATUS: "running", semconv.COMPLETED: 3}
    stage = {"path": "a", "status": "running", "elapsed": 2.0, "message": "so far", "total": 4}
    plain = from_attributes(known | {semconv.STAGES: json.dumps([{**stage, key: None}, stage])}, 1.0)
    for wrong in RIGHT[key]:
        seen = from_attributes(known | {semconv.STAGES: json.dumps([{**stage, key: wrong}, stage])}, 1.0)
        assert seen == plain, wrong


@pytest.mark.parametrize(
    "wrong", [None, 7, "a", [], {}, {"path": 7, "status": "running"}, {"path": "b", "status": "done"}]
)
def test_stage_without_path_or_status_is_left_out(wrong: object) -> None:
    """Nobody knows which one it is, or how it stands; all else is read."""
    known = {semconv.OPERATION_ID: "1", semconv.OPERATION_NAME: "a", semconv.STATUS: "running", semconv.COMPLETED: 3}
    seen = from_attributes(known | {semconv.STAGES: json.dumps([wrong, {"path": "a", "status": "running"}])}, 1.0)
    assert ([stage.path for stage in seen.stages], seen.progress.completed) == (["a"], 3)


@pytest.mark.parametrize("key", sorted(JSON_TEXTS))
@pytest.mark.parametrize("text", ["", "[{", "null", "7", '"x"', "[7]", "[null]", '{"a": {"b": []}}', "[" * 100_000])
def test_json_that_says_nothing_hides_nothing_else(key: str, text: str) -> None:
    """It is ignored, whatever is in it."""
    known = {semconv.OPERATION_ID: "1", semconv.OPERATION_NAME: "a", semconv.STATUS: "running", semconv.COMPLETED: 3}
    seen = from_attributes({**known, key: text}, 1.0)
    assert seen.progress.completed == 3


@pytest.mark.parametrize(
    "item",
    [
        {"idle": "x", "stall_after": 5},
        {"stall_after": "5"},
        {"idle": int("9" * 400)},
        {"wait": [{"a": 1}, "x", []]},
        {"wait": 5},
        {"loop": {"kind": [], "keys": [1, {}], "repeats": "x", "limit": 1, "seconds": 1, "spent": {}}},
        {"health": "silent", "reason": [1, 2], "stall_after": "x"},
        {"health": {}, "path": 5, "child": []},
        "a text",
        None,
        [],
    ],
)
def test_branches_of_a_wrong_type_are_read_as_far_as_they_can_be(item: object) -> None:
    """Whatever a sender writes into a branch, the rest of the operation is known, and can be judged."""
    good = {"path": "good", "idle": 2.5, "stall_after": 5, "health": "silent"}
    attributes = {
        semconv.OPERATION_ID: "1",
        semconv.OPERATION_NAME: "work",
        semconv.STATUS: "running",
        semconv.BRANCHES: json.dumps([item, good]),
    }
    read = from_attributes(attributes, 100.0)
    assert read.branches[-1] == Branch(path="good", idle=2.5, stall_after=5, health=Health.SILENT)
    assert judge(read, 160.0).health is Health.SILENT
    assert json.dumps(read.to_dict())
