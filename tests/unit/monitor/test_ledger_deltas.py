"""The ledger and deltas: any order, loss and doubling of what an operation sent ends in the same state."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monitor_parts import Parts, parts, request_of

import otel_progress as progress
from otel_progress import Snapshot
from otel_progress import semconv as s
from otel_progress.model import wire
from otel_progress.model.units import duration
from otel_progress.monitor.intake.messages import ExportLogsServiceRequest
from otel_progress.monitor.intake.records import groups, parse_record
from otel_progress.monitor.intake.requests import Parcel
from otel_progress.monitor.state.ledger import Ledger, keyframe_of
from otel_progress.outbound import otlp
from otel_progress.testing import Capture, capture

ABOUT = {"service.instance.id": "p1"}


def sent(captured: Capture) -> list[bytes]:
    """What left the process about operations, one by one."""
    found = []
    for request in captured.logs_receiver.requests:
        for by_resource in ExportLogsServiceRequest.FromString(request).resource_logs:
            for by_scope in by_resource.scope_logs:
                found += [one.SerializeToString() for one in by_scope.log_records if "process" not in one.event_name]
    return found


def named(raw: bytes) -> int | None:
    """The keyframe that an event names."""
    return keyframe_of(parse_record(raw))


def number(raw: bytes) -> int:
    """The sequence of an event."""
    return int(parse_record(raw).brief[s.SEQUENCE])


def hear(ledger: Ledger, *raws: bytes, at: float = 1.0) -> None:
    """Let a process send these."""
    ledger.hear(ABOUT, [parse_record(raw) for raw in raws], at)


def state(ledger: Ledger) -> Snapshot:
    """The state of the only operation."""
    (entry,) = ledger.operations.values()
    return entry.snapshot


def apart(one: bytes, other: bytes) -> float:
    """Seconds between two events."""
    return (parse_record(other).time - parse_record(one).time) / 1e9


def work(captured: Capture, rounds: int = 12) -> None:
    """An operation with stages, a message that comes and goes, a wait and counts."""
    op = progress.operation("work", id="a", total=rounds).start()
    for turn in range(rounds):
        with op.stage(f"s{turn % 3}", total=4) as stage:
            for _ in range(4):
                stage.advance()
                op.set(turn=turn)
                op.update(message=f"m{turn}" if turn % 2 else None)
                captured.advance(1.5)
        if turn == 5:
            with op.waiting("you"):
                captured.advance(2)
        op.advance()
    op.complete()
    captured.look()


@pytest.fixture(scope="module")
def story() -> list[bytes]:
    """What a whole operation sent."""
    with capture() as captured:
        work(captured)
        return sent(captured)


def final_of(story: Sequence[bytes]) -> Snapshot:
    """What the end says."""
    ledger = Ledger()
    hear(ledger, story[-1])
    return state(ledger)


def test_most_events_are_deltas(story: list[bytes]) -> None:
    """Otherwise the other tests here prove nothing; the first and the last event are keyframes."""
    assert sum(named(raw) is not None for raw in story) > len(story) * 0.7
    assert (named(story[0]), named(story[-1])) == (None, None)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_order_loss_and_doubling_ends_in_the_same_state(story: list[bytes], data: st.DataObject) -> None:
    """As long as the end arrived, at any place."""
    kept = data.draw(st.lists(st.sampled_from(story), max_size=40))
    events = data.draw(st.permutations([*kept, story[-1]]))
    ledger = Ledger()
    for raw in events:
        hear(ledger, raw)
    assert state(ledger) == final_of(story)
    assert ledger.lacking == ledger.incomplete == {}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_the_newest_delta_and_its_keyframe_are_the_state(story: list[bytes], data: st.DataObject) -> None:
    """Whatever else was lost, doubled or came late: the reader knows the same as one that heard everything."""
    last = data.draw(st.integers(0, len(story) - 2))
    before = story[: last + 1]
    needed = [raw for raw in before if number(raw) in (number(story[last]), named(story[last]))]
    kept = data.draw(st.lists(st.sampled_from(before), max_size=20))
    ledger, whole = Ledger(), Ledger()
    for raw in data.draw(st.permutations([*kept, *needed])):
        hear(ledger, raw)
    for raw in before:
        hear(whole, raw)
    assert state(ledger) == state(whole)
    assert ledger.lacking == ledger.incomplete == {}


def split(story: Sequence[bytes]) -> tuple[bytes, list[bytes], bytes, list[bytes]]:
    """Two keyframes, each with the deltas that build on it."""
    frames = [raw for raw in story if named(raw) is None]
    first, second = next(
        (one, other)
        for one, other in itertools.pairwise(frames)
        if all(sum(named(raw) == number(frame) for raw in story) >= 3 for frame in (one, other))
    )
    return (
        first,
        [raw for raw in story if named(raw) == number(first)],
        second,
        [raw for raw in story if named(raw) == number(second)],
    )


def test_a_delta_of_an_unknown_operation_is_shown_as_far_as_it_goes(story: list[bytes]) -> None:
    """Its name, its status and what it says are known, and a keyframe is wanted; then it is whole."""
    first, deltas, _, _ = split(story)
    ledger, whole = Ledger(), Ledger()
    hear(ledger, deltas[0])
    assert (state(ledger).name, state(ledger).status.value) == ("work", "running")
    assert list(ledger.lacking) == ["a"]
    hear(ledger, deltas[1])
    assert state(ledger).sequence == number(deltas[1])
    hear(ledger, first)
    hear(whole, first, deltas[1])
    assert state(ledger) == state(whole)
    assert ledger.lacking == {}


def test_without_its_keyframe_a_delta_leaves_the_state_and_proves_life(story: list[bytes]) -> None:
    """Only its clock goes on. Once the keyframe comes, the newest delta counts; older ones do not."""
    first, deltas, second, more = split(story)
    ledger, whole = Ledger(), Ledger()
    hear(ledger, first, deltas[0])
    known = state(ledger)
    hear(ledger, more[1], at=5.0)
    hear(ledger, more[0], at=6.0)
    assert state(ledger) == replace(known, elapsed=known.elapsed + apart(deltas[0], more[1]))
    assert ledger.operations["a"].heard_at == 5.0
    assert list(ledger.lacking) == ["a"]
    hear(ledger, second)
    hear(whole, second, more[1])
    assert state(ledger) == state(whole)
    assert ledger.lacking == {}


def test_a_keyframe_that_came_too_late_changes_nothing(story: list[bytes]) -> None:
    """A newer one is known, with a delta on it."""
    first, _, second, more = split(story)
    ledger = Ledger()
    hear(ledger, second, more[0])
    known = state(ledger)
    hear(ledger, first)
    assert state(ledger) == known


def test_a_presumed_loss_is_undone_by_a_delta_without_its_keyframe(story: list[bytes]) -> None:
    """It is a sign of life."""
    first, deltas, _, more = split(story)
    ledger = Ledger()
    hear(ledger, first, deltas[0])
    known = state(ledger)
    assert ledger.presume_lost("a", "not heard of") is not None
    hear(ledger, deltas[0])
    assert not ledger.operations["a"].open
    hear(ledger, more[0])
    assert ledger.operations["a"].open
    assert state(ledger) == replace(known, elapsed=known.elapsed + apart(deltas[0], more[0]))


def test_a_presumed_loss_is_undone_by_a_delta_on_the_known_keyframe(story: list[bytes]) -> None:
    """The inferred end is no keyframe."""
    first, deltas, _, _ = split(story)
    ledger, whole = Ledger(), Ledger()
    hear(ledger, first, deltas[0])
    ledger.presume_lost("a", "not heard of")
    hear(ledger, deltas[2])
    hear(whole, first, deltas[2])
    assert state(ledger) == state(whole)


def test_a_delta_of_a_newer_attempt_does_not_build_on_the_older_one(progress_capture: Capture) -> None:
    """What the older attempt said is not said of the newer one; sequences start anew with each."""
    stories = []
    for turn in range(2):
        before = len(sent(progress_capture))
        op = progress.operation("work", id="a", description=f"run {turn}").start()
        for _ in range(4):
            op.advance()
            progress_capture.advance(1)
        (op.fail if turn == 0 else op.complete)()
        progress_capture.look()
        stories.append(sent(progress_capture)[before:])
    old, new = stories
    delta = next(raw for raw in new if named(raw) == number(old[0]))
    ledger = Ledger()
    hear(ledger, old[0], delta)
    assert (state(ledger).attempt, state(ledger).description) == (2, None)
    assert list(ledger.lacking) == ["a"]
    hear(ledger, old[-1])
    assert state(ledger).attempt == 2
    hear(ledger, new[0])
    assert (state(ledger).description, state(ledger).sequence) == ("run 1", number(delta))


def test_more_than_64_stages_of_which_some_left_the_list(progress_capture: Capture) -> None:
    """Readers see the list that the process has, in its order."""
    op = progress.operation("work", id="a").start()
    for turn in range(90):
        with op.stage(f"s{turn}"):
            progress_capture.advance(1)
    progress_capture.advance(1)
    ledger = Ledger()
    hear(ledger, *sent(progress_capture))
    truth = wire.from_attributes(wire.to_attributes(op.snapshot()), 0.0)
    assert [stage.path for stage in state(ledger).stages] == [stage.path for stage in truth.stages]
    assert state(ledger).folded == truth.folded
    op.complete()


# -- the monitor


def deliver(monitor: Parts, *raws: bytes) -> None:
    """Let a process send these to a monitor."""
    monitor.take(request_of(*(otlp.chunk(2, raw) for raw in raws)))


def of_monitor(monitor: Parts) -> Snapshot:
    """What a monitor knows of the operation; the curve depends on what it heard."""
    found = monitor.core.ledger.find("a")
    assert found is not None
    return replace(found.snapshot, curve=())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_restarts_between_change_nothing(story: list[bytes], data: st.DataObject) -> None:
    """With the newest delta and its keyframe, in any order, the state is that of a reader that heard everything."""
    last = data.draw(st.integers(0, len(story) - 1))
    before = story[: last + 1]
    needed = [raw for raw in before if number(raw) in (number(story[last]), named(story[last]))]
    kept = data.draw(st.lists(st.sampled_from(before), max_size=8))
    with TemporaryDirectory() as folder, parts(Path(folder) / "m.db") as monitor:
        for raw in (story[0], *data.draw(st.permutations([*kept, *needed]))):
            deliver(monitor, raw)
            known, lacking = of_monitor(monitor), monitor.core.ledger.health()
            monitor.restart()
            assert (of_monitor(monitor), monitor.core.ledger.health()) == (known, lacking)
        whole = Ledger()
        hear(whole, *before)
        assert of_monitor(monitor) == replace(state(whole), curve=())
        assert monitor.core.ledger.health() == {}


@pytest.mark.parametrize("is_presumed_lost", [False, True])
def test_a_delta_that_waits_outlasts_a_restart(tmp_path: Path, story: list[bytes], is_presumed_lost: bool) -> None:
    """The keyframe is asked for at once, and completes it; after a presumed loss, too."""
    first, deltas, second, more = split(story)
    whole = Ledger()
    hear(whole, second, more[1])
    with parts(tmp_path / "monitor.db") as monitor:
        deliver(monitor, first, deltas[0], more[1])
        if is_presumed_lost:
            monitor.core.ledger.presume_lost("a", "not heard of")
            monitor.core.journal.save_changes()
        monitor.restart()
        assert ("a" in monitor.core.ledger.lacking) is not is_presumed_lost
        deliver(monitor, second)
        assert of_monitor(monitor) == replace(state(whole), curve=())
        monitor.restart()
        assert of_monitor(monitor) == replace(state(whole), curve=())


def test_a_presumed_loss_is_undone_after_a_restart_by_a_delta_without_its_keyframe(
    tmp_path: Path, story: list[bytes]
) -> None:
    """It is a sign of life: what the last keyframe said is the state until the next one."""
    first, deltas, _, more = split(story)
    with parts(tmp_path / "monitor.db") as monitor:
        deliver(monitor, first, deltas[0])
        monitor.core.ledger.presume_lost("a", "not heard of")
        monitor.core.journal.save_changes()
        monitor.restart()
        assert monitor.row()["status"] == "lost"
        deliver(monitor, more[0])
        assert (monitor.row()["status"], of_monitor(monitor).status.value) == ("running", "running")
        assert not [stage.path for stage in of_monitor(monitor).stages if stage.status.value == "lost"]


@pytest.mark.parametrize("is_presumed_lost", [False, True])
def test_a_restarted_monitor_goes_on_with_deltas(tmp_path: Path, story: list[bytes], is_presumed_lost: bool) -> None:
    """The keyframe is stored beside the newest event, also that of one that is presumed lost."""
    first, deltas, _, _ = split(story)
    whole = Ledger()
    hear(whole, first, deltas[2])
    with parts(tmp_path / "monitor.db") as monitor:
        monitor.take(request_of(*(otlp.chunk(2, raw) for raw in (first, deltas[0]))))
        if is_presumed_lost:
            monitor.core.ledger.presume_lost("a", "not heard of")
            monitor.core.journal.save_changes()
        before = state(monitor.core.ledger)
        monitor.restart()
        found = monitor.core.ledger.find("a")
        assert found is not None
        assert (found.snapshot.status, found.snapshot.stages) == (before.status, before.stages)
        monitor.take(request_of(otlp.chunk(2, deltas[2])))
        assert replace(state(monitor.core.ledger), curve=()) == replace(state(whole), curve=())
        assert monitor.core.ledger.lacking == {}


def test_a_keyframe_is_stored_as_long_as_a_delta_builds_on_it(tmp_path: Path, story: list[bytes]) -> None:
    """Each delta is a small row; the keyframe goes when the operation has ended."""
    first, deltas, _, _ = split(story)
    kept = []
    with parts(tmp_path / "monitor.db") as monitor:
        for raw in (first, *deltas[:3], story[-1]):
            monitor.take(request_of(otlp.chunk(2, raw)))
            found = monitor.store.recall("a")
            assert found is not None
            kept.append(found.keyframe)
    assert kept == [None, first, first, first, None]


def test_what_lacks_a_keyframe_is_marked_and_counted(tmp_path: Path, story: list[bytes]) -> None:
    """The row says for how long its updates were not read and what the newest counts, `/health` how many lack one."""
    first, deltas, second, more = split(story)
    newest = parse_record(more[1])
    with parts(tmp_path / "monitor.db") as monitor:
        ledger = monitor.core.ledger
        monitor.take(request_of(*(otlp.chunk(2, raw) for raw in (first, deltas[0]))))
        assert "warning" not in monitor.row() or "keyframe" not in monitor.row()["warning"]
        monitor.take(request_of(otlp.chunk(2, more[1])))
        later = duration(apart(deltas[0], more[1]))
        said = f"the updates of its last {later} can't be read, as their keyframe is missing"
        counted = newest.brief.get(s.COMPLETED)
        assert monitor.row()["warning"].startswith(
            said if counted is None else f"{said}; the newest one counts {counted}"
        )
        assert monitor.row()["said_at"] == pytest.approx(newest.time / 1e9)
        assert ledger.health() == {"keyframes": {"missing": 1, "newest": "a"}}
        monitor.take(request_of(otlp.chunk(2, second)))
        assert "keyframe" not in monitor.row().get("warning", "")
        assert ledger.health() == {}
        monitor.take(request_of(otlp.chunk(2, deltas[1]), instance="p2"))
        monitor.take(request_of(otlp.chunk(2, story[-1])))
        assert ledger.health() == {}


def test_first_delta_of_an_operation_is_marked(tmp_path: Path, story: list[bytes]) -> None:
    """What it leaves out is unknown."""
    first, deltas, _, _ = split(story)
    with parts(tmp_path / "monitor.db") as monitor:
        monitor.take(request_of(otlp.chunk(2, deltas[0])))
        assert "its keyframe is missing: only what its newest update says" in monitor.row()["warning"]
        monitor.restart()
        assert "its keyframe is missing" in monitor.row()["warning"]
        assert monitor.core.ledger.health() == {"keyframes": {"missing": 1, "newest": "a"}}
        monitor.take(request_of(otlp.chunk(2, first)))
        assert "keyframe" not in monitor.row().get("warning", "")


def test_what_is_shared_with_others_is_whole(story: list[bytes]) -> None:
    """Another monitor on the stream needs no keyframe."""
    first, deltas, _, _ = split(story)
    ledger, other = Ledger(), Ledger()
    record = parse_record(deltas[-1])
    ledger.hear(ABOUT, [parse_record(first), record], 1.0)
    hear(other, record.whole)
    assert named(record.whole) is None
    assert state(other) == state(ledger)


def test_an_update_on_which_a_later_one_builds_is_not_left_out() -> None:
    """Of several updates in a request the newest is enough, but a keyframe that it names is needed."""
    with capture() as captured:
        op = progress.operation("work", id="a").start()
        for _ in range(40):
            op.advance()
            captured.advance(1)
        raws = [raw for raw in sent(captured) if parse_record(raw).event == s.UPDATED]
        op.complete()
    newest = raws[-1]
    keyframe = next(raw for raw in raws if number(raw) == named(newest))
    body = request_of(*(otlp.chunk(2, raw) for raw in raws))
    parcel = Parcel("logs", ExportLogsServiceRequest.FromString(body), body)
    (group,) = groups(parcel, lambda *_: False)
    assert [one.raw for one in group.records] == [keyframe, newest]
    assert group.void == len(raws) - 2
