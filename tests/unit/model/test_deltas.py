"""Keyframes and deltas: a keyframe and any later delta are the whole state, and no delta harms its reader."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from snapshot_parts import SNAPSHOT, STAGE, closed

from otel_progress import Snapshot, StageSnapshot, Status
from otel_progress import semconv as s
from otel_progress.model import wire
from otel_progress.model.deltas import FEW, Keyframe, StageText, merge, merge_stages
from otel_progress.model.snapshot import Progress, Wait

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def keyframe_of(snapshot: Snapshot) -> Keyframe:
    """What a sender remembers of a keyframe."""
    return Keyframe(snapshot.sequence, wire.state_of(snapshot), texts_of(snapshot))


def texts_of(snapshot: Snapshot) -> list[StageText]:
    """The stages of a snapshot as events tell them."""
    return [StageText(fields) for fields in wire.stages_of(snapshot)]


def delta_of(first: Snapshot, later: Snapshot) -> dict[str, Any] | None:
    """The attributes of a delta as they arrive, where there is one."""
    found = keyframe_of(first).difference(wire.state_of(later), texts_of(later))
    return None if found is None else {s.SEQUENCE: later.sequence, **found}


def read(attributes: dict[str, Any], like: Snapshot) -> Snapshot:
    """The snapshot that a reader makes of attributes."""
    ids = like.span
    more = {} if ids is None else {"trace_id": ids.trace_id, "span_id": ids.span_id, "sampled": ids.sampled}
    return wire.from_attributes(attributes, like.timestamp, **more)  # type: ignore[arg-type]


def same_run(first: Snapshot, later: Snapshot) -> Snapshot:
    """The later one, as of the operation and the trace of the first."""
    known = {name: getattr(first, name) for name in ("operation_id", "name", "attempt", "started_at", "span")}
    return replace(later, **known)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Snapshot, Snapshot]:
    """Two states of one operation: some fields stay, others change, come or go; so do stages, in any order."""
    first = draw(SNAPSHOT)
    other = same_run(first, draw(SNAPSHOT))
    changed = draw(st.sets(st.sampled_from([name for name in vars(other) if name not in ("stages", "status", "wait")])))
    later = replace(first, **{name: getattr(other, name) for name in changed})
    if draw(st.booleans()):
        later = replace(later, status=other.status, wait=other.wait)
    stages = draw(st.permutations([*first.stages, *draw(st.lists(STAGE, max_size=3))]))
    return first, closed(replace(later, stages=tuple(stages[: draw(st.integers(0, len(stages)))])))


@QUICK
@given(pairs())
def test_a_keyframe_and_any_later_delta_are_the_whole_snapshot(states: tuple[Snapshot, Snapshot]) -> None:
    """Field by field, with all stages in their order; but for the curve, and what changes with each look."""
    first, later = (replace(one, curve=()) for one in states)
    delta = delta_of(first, later)
    if delta is not None:  # else a keyframe says it better
        assert fixed(read(merge(wire.to_attributes(first), delta), later)) == fixed(later)


def fixed(seen: Snapshot) -> Snapshot:
    """A state without what a delta leaves as it was."""
    learned = {} if seen.stall_after_source is None else {"stall_after": None}
    stages = [one if one.status.final else replace(one, cpu_seconds=None, peak_memory=None) for one in seen.stages]
    return replace(seen, stages=tuple(stages), resources=None, **learned)


def plain(sequence: int, *stages: StageSnapshot, **more: Any) -> Snapshot:
    """A state of the operation `a`."""
    return Snapshot(
        "a", "work", Status.RUNNING, 100.0 + sequence, sequence=sequence, started_at=99.0, stages=stages, **more
    )


def stage(path: str, status: Status = Status.RUNNING, **more: Any) -> StageSnapshot:
    """A stage."""
    return StageSnapshot(path.rpartition("/")[2], path, status, **more)


def seen(first: Snapshot, later: Snapshot) -> Snapshot:
    """What a reader knows that has the keyframe and the delta."""
    delta = delta_of(first, later)
    assert delta is not None
    return read(merge(wire.to_attributes(first), delta), later)


def test_what_did_not_change_is_not_sent() -> None:
    """Apart from what tells a reader which operation it is and how it does."""
    first = plain(1, stage("a", Status.COMPLETED), stage("b"), description="long")
    delta = delta_of(first, replace(first, sequence=2, elapsed=1.0))
    assert delta is not None
    assert set(delta) == {
        *(s.SEQUENCE, s.KEYFRAME, s.OPERATION_ID, s.OPERATION_NAME),
        *(s.START_TIME, s.STATUS, s.HEALTH, s.ELAPSED),
    }


def test_what_a_table_of_newest_records_shows_is_always_said() -> None:
    """The attempt, the stage and the current step, as log stores show one record at a time."""
    first = plain(1, stage="load", message="m", attempt=2)
    delta = delta_of(first, replace(first, sequence=2))
    assert delta is not None
    assert (delta[s.OPERATION_ATTEMPT], delta[s.STAGE_CURRENT], delta[s.MESSAGE]) == (2, "load", "m")


def test_a_learned_limit_stays_that_of_the_keyframe() -> None:
    """It changes all the time, and the process judges by it; it is told when it comes or goes, and a named one always."""
    learned = plain(1, stall_after=50.0, stall_after_source="learned from this run")
    for first, later, limit in (
        (learned, replace(learned, stall_after=52.0), 50.0),
        (learned, replace(learned, stall_after=30.0, stall_after_source=None), 30.0),
        (learned, replace(learned, stall_after=None, stall_after_source=None), None),
        (plain(1), learned, 50.0),
        (plain(1, stall_after=50.0), plain(2, stall_after=52.0), 52.0),
    ):
        assert seen(first, replace(later, sequence=2)).stall_after == limit


def test_without_an_elapsed_time_that_of_the_keyframe_is_not_taken() -> None:
    """Its start says it: of the operation, and of a stage that runs."""
    first = plain(1, stage("a", started_at=99.5, elapsed=1.5), elapsed=2.0)
    delta = delta_of(first, plain(7, stage("a", started_at=99.5, elapsed=7.5), elapsed=8.0))
    assert delta is not None
    del delta[s.ELAPSED], delta[s.STAGES]
    keyframe = wire.to_attributes(first)
    stages = [{name: value for name, value in one.items() if name != "elapsed"} for one in wire.stages_of(first)]
    found = read(merge({**keyframe, s.STAGES: json.dumps(stages)}, delta), plain(7))
    assert (found.elapsed, found.stages[0].elapsed) == (8.0, 7.5)


def test_what_a_new_stage_uses_is_told_at_its_end() -> None:
    """Its CPU time and memory change with each look, and nothing is decided by them."""
    begun = stage("b", cpu_seconds=1.0, peak_memory=5.0)
    assert seen(plain(1, stage("a")), plain(2, stage("a"), begun)).stages[1].cpu_seconds is None
    ended = replace(begun, status=Status.COMPLETED)
    assert seen(plain(1, stage("a")), plain(2, stage("a"), ended)).stages[1] == ended


@pytest.mark.parametrize("length", [5, 500])
def test_a_message_that_is_removed_is_gone_and_one_that_comes_back_too(length: int) -> None:
    """Where the keyframe has it and the state has not, the delta says so; back at the keyframe's it says nothing."""
    first = plain(1, message="m" * length)
    assert seen(first, plain(2)).message is None
    assert seen(first, plain(3, message="n" * length)).message == "n" * length
    assert seen(first, plain(4, message="m" * length)).message == "m" * length


def test_numbers_that_hash_alike_are_told_apart() -> None:
    """The hash of 0 is that of 2**61 - 1."""
    first = plain(1, progress=Progress(0))
    assert seen(first, plain(2, progress=Progress(2**61 - 1))).progress == Progress(2**61 - 1)


def test_a_wait_of_the_keyframe_that_is_over_is_gone() -> None:
    """With its reason, its duration and its limit."""
    first = replace(plain(1, wait=Wait("you", 1.0, 5.0)), status=Status.WAITING)
    delta = delta_of(first, plain(2))
    assert delta is not None
    assert set(delta[s.UNSET]) == {s.WAIT_REASON, s.WAIT_DURATION, s.WAIT_REMAINING}
    assert seen(first, plain(2)).wait is None


def test_parallel_stages_of_one_path_are_told_apart() -> None:
    """Also without span ids, and when they start at the same time."""
    same = [stage("load", elapsed=1.0), stage("load", elapsed=1.0), stage("load", elapsed=1.0)]
    changed = [same[0], replace(same[1], status=Status.FAILED), same[2]]
    assert seen(plain(1, *same), plain(2, *changed)).stages == tuple(changed)


def test_stages_that_left_the_list_are_gone() -> None:
    """Beyond 64, the oldest are folded."""
    listed = [stage(f"s{number}", Status.COMPLETED) for number in range(65)]
    assert seen(plain(1, *listed[:64]), plain(2, *listed[1:])).stages == tuple(listed[1:])


def test_no_stages_after_some() -> None:
    """An empty list is said, too."""
    assert seen(plain(1, stage("a")), plain(2)).stages == ()


def test_a_keyframe_is_sent_where_most_stages_changed() -> None:
    """A delta with more than half of them, and more than a few, would save nothing."""
    before = [stage(f"s{number}") for number in range(2 * FEW + 2)]
    after = [replace(one, elapsed=1.0) for one in before]
    half = len(before) // 2
    assert delta_of(plain(1, *before), plain(2, *after[:half], *before[half:])) is not None
    assert delta_of(plain(1, *before), plain(2, *after[: half + 1], *before[half + 1 :])) is None


def test_of_a_list_in_which_all_stages_changed_the_others_are_gone() -> None:
    """A list without a pair means something else to a reader."""
    assert seen(plain(1, stage("a"), stage("b")), plain(2, stage("c"))).stages == (stage("c"),)


def test_a_running_stage_says_what_changed_of_it() -> None:
    """Its fields that differ; those that it has no more are null."""
    first = plain(1, stage("a", span_id="ab" * 8, started_at=99.0, message="m"))
    later = plain(2, stage("a", span_id="ab" * 8, started_at=99.0, elapsed=3.0))
    delta = delta_of(first, later)
    assert delta is not None
    assert json.loads(delta[s.STAGES]) == [[0, {"elapsed": 3.0, "message": None}]]
    assert seen(first, later).stages == later.stages


def test_a_planned_stage_that_starts_says_what_changed_of_it() -> None:
    """It was known by its path."""
    first = plain(1, stage("a", Status.PENDING, planned=True, description="long"))
    later = plain(2, stage("a", planned=True, description="long", started_at=100.0))
    delta = delta_of(first, later)
    assert delta is not None
    assert json.loads(delta[s.STAGES]) == [[0, {"status": "running", "started_at": 100.0, "elapsed": 0.0}]]


def test_a_simple_sender_lists_the_stages_that_changed() -> None:
    """Each replaces the one with its span id, else with its path; others are new."""
    before = [{"path": "a", "span_id": "1"}, {"path": "a", "span_id": "2"}, {"path": "b"}]
    given: list[Any] = [{"path": "a", "span_id": "2", "n": 1}, {"path": "b", "n": 2}, {"path": "c"}]
    assert merge_stages(before, given) == [before[0], *given]


ODD: list[Any] = [
    [[0, {"a": 1}], [-1, {"a": 1}], [9, {"a": 1}], [0, None], [0, [1]]][1:],
    [[0, 10**9]] * 1000,
    [[-5, -1]],
    [[5, 2]],
    [["a", 1], [0], [0, True], 7, None, [[0, 1]]],
    {"path": "a"},
    7,
]


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_what_means_nothing_adds_nothing(odd: Any) -> None:
    """A delta never becomes much larger than its keyframe and itself."""
    known = [{"path": "a"}, {"path": "b"}]
    found = merge_stages(known, odd)
    assert all(one in known for one in found)
    assert len(found) <= len(known) + (len(odd) if isinstance(odd, list) else 0)


def test_what_belongs_to_the_event_of_a_keyframe_is_not_inherited() -> None:
    """Its stage, its note, the curve, and what the user gave the event."""
    event = {s.STAGE_PATH: "a", s.NOTE_TEXT: "hello", s.CURVE: "[]", "mine": 1, s.SEQUENCE: 1, s.MESSAGE: "m"}
    assert merge(event, {s.SEQUENCE: 2, s.KEYFRAME: 1}) == {s.SEQUENCE: 2, s.KEYFRAME: 1, s.MESSAGE: "m"}


@pytest.mark.parametrize("odd", [7, "x", [1, None], {}], ids=repr)
def test_an_odd_list_of_removed_attributes_removes_nothing(odd: Any) -> None:
    """Senders are untrusted."""
    assert merge({s.MESSAGE: "m"}, {s.UNSET: odd}) == {s.MESSAGE: "m"}


def test_a_delta_without_its_keyframe_says_what_it_says() -> None:
    """Its pairs stand for stages that nobody knows."""
    first = plain(1, stage("a"), stage("b"))
    delta = delta_of(first, plain(2, stage("a"), stage("b", elapsed=3.0), stage("c")))
    assert delta is not None
    assert [one["path"] for one in json.loads(merge({}, delta)[s.STAGES])] == ["c"]
