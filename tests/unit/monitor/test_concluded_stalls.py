"""A stall that the monitor concluded is taken back when late events show by their times that it was none."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monitor_parts import WALL, Parts, fake_time, names, parts, seconds

from otel_progress import semconv as s
from otel_progress.monitor.intake.requests import Accepted
from otel_progress.monitor.state import concluded_stalls
from otel_progress.monitor.state.concluded_stalls import ConcludedStall, ConcludedStalls, Moment
from otel_progress.outbound import otlp
from otel_progress.testing import FakeClock

LIMIT = 4.0
Stalls = list[tuple[int, int | None]]


def record(number: int, at: float, event: str = s.UPDATED, *, key: str = "a", **about: Any) -> bytes:
    """An event of a program without an SDK of ours; it counts its events unless it says something else."""
    given = {
        s.OPERATION_ID: key,
        s.OPERATION_NAME: "work",
        s.STATUS: "running",
        s.SEQUENCE: number,
        s.START_TIME: WALL,
        s.STALL_AFTER: LIMIT,
        s.COMPLETED: number,
        **{name.replace("__", "."): value for name, value in about.items()},
    }
    moment = round((WALL + at) * 1e9)
    return otlp.log_record(event, moment, moment, 9, "", otlp.attributes(6, given), None, None, False)


def send(monitor: Parts, *records: bytes) -> None:
    """Let the program send these in one request."""
    about = otlp.resource({"service.instance.id": "n1"})
    assert monitor.take(otlp.envelope(about, otlp.scope("mine", "1"), records)) == [Accepted()]


def stalls(monitor: Parts) -> Stalls:
    """The stalls in the timeline, in seconds since the start; None is the end of one that lasts."""
    entry = monitor.core.ledger.find("a")
    assert entry is not None
    found = [one for one in monitor.views.detail(entry)["timeline"] if one["kind"] == "stall"]
    return [(int(one["from"] - WALL), None if one["to"] is None else int(one["to"] - WALL)) for one in found]


@contextmanager
def begun(path: Path) -> Iterator[tuple[FakeClock, Parts]]:
    """A monitor that heard the start of an operation."""
    with fake_time() as fake, parts(path) as monitor:
        send(monitor, record(1, 0.0, s.OPERATION_STARTED))
        yield fake, monitor


@pytest.fixture
def begun_here(monitor: Parts, fake: FakeClock) -> Parts:
    """A monitor that heard the start of an operation."""
    send(monitor, record(1, 0.0, s.OPERATION_STARTED))
    return monitor


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_backlog_in_any_order_refutes_the_stall_if_its_times_leave_no_gap(data: st.DataObject) -> None:
    """However it is divided into requests, and whatever arrives twice; a gap of the limit in it is a stall."""
    pauses = data.draw(st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.5, 5.0]), min_size=8, max_size=20))
    times = list(itertools.accumulate(pauses))
    late = [record(number, at) for number, at in enumerate(times, 2)]
    end = data.draw(st.sampled_from([None, times[-1] + 1, times[-1] + 6]))
    if end is not None:
        late.append(record(len(times) + 2, end, s.OPERATION_ENDED, progress__status="completed"))
    arriving = data.draw(st.permutations([*late, *data.draw(st.lists(st.sampled_from(late), max_size=5))]))
    gap = max(pauses if end is None else [*pauses, end - times[-1]])
    with TemporaryDirectory() as folder, begun(Path(folder) / "m.db") as (fake, monitor):
        seconds(fake, monitor, times[-1] if end is None else end)
        assert stalls(monitor) == [(4, None)]
        while arriving:
            size = data.draw(st.integers(1, 8))
            send(monitor, *arriving[:size])
            arriving = arriving[size:]
        monitor.tick()
        assert bool(stalls(monitor)) is (gap >= LIMIT)
        if gap < LIMIT and end is None:
            assert monitor.health() == "progressing"
        assert stalls(monitor) == stalls_after_a_restart(monitor)


def stalls_after_a_restart(monitor: Parts) -> Stalls:
    """The stalls in the timeline that the file has."""
    monitor.restart()
    return stalls(monitor)


def test_newest_first_is_told_once_and_at_once(begun_here: Parts, fake: FakeClock) -> None:
    """The stall ends, leaves the timeline, and stays in the feed with what became of it."""
    monitor, recorder = begun_here, begun_here.listen()
    seconds(fake, monitor, 60)
    assert monitor.health() == "stuck"
    send(monitor, *(record(number, number) for number in range(60, 1, -1)))
    monitor.tick()
    assert (monitor.health(), stalls(monitor)) == ("progressing", [])
    assert recorder.kinds == ["stalled", "recovered"]
    told = [one.text for one in monitor.history() if one.event in (s.STALLED, s.RECOVERED)]
    assert told[1:] == ["work was not stuck: its events arrived late"]
    seconds(fake, monitor, 5)
    assert stalls(monitor) == [(64, None)]


def test_a_backlog_after_the_recovery_corrects_the_timeline(begun_here: Parts, fake: FakeClock) -> None:
    """The newest events were enough to end the stall; the older ones show that there was none."""
    monitor, recorder = begun_here, begun_here.listen()
    seconds(fake, monitor, 60)
    for number in range(60, 70):
        send(monitor, record(number, number))
        seconds(fake, monitor, 1)
    assert stalls(monitor) == [(4, 62)]
    send(monitor, *(record(number, number) for number in range(59, 30, -1)))
    monitor.tick()
    assert stalls(monitor) == [(4, 62)]
    send(monitor, *(record(number, number) for number in range(30, 1, -1)))
    monitor.tick()
    assert stalls(monitor) == []
    assert recorder.kinds == ["stalled", "recovered"]
    assert names(monitor.history()).count(s.RECOVERED) == 2


def test_a_backlog_after_the_end_corrects_the_timeline(begun_here: Parts, fake: FakeClock) -> None:
    """The end arrived first, and is told; its own times are all that there is, however late they arrive."""
    monitor, recorder = begun_here, begun_here.listen()
    seconds(fake, monitor, 120)
    send(monitor, record(61, 61, s.OPERATION_ENDED, progress__status="completed"))
    monitor.tick()
    assert stalls(monitor) == [(4, 61)]
    for number in range(60, 1, -1):
        send(monitor, record(number, number))
    monitor.tick()
    assert stalls(monitor) == []
    assert recorder.kinds == ["stalled"]


def test_updates_that_repeat_the_state_are_no_progress(begun_here: Parts, fake: FakeClock) -> None:
    """Newest first, too: only where they show another state than the event before them, by sequence."""
    monitor = begun_here
    seconds(fake, monitor, 30)
    send(monitor, *(record(number, number, progress__completed=number // 3) for number in range(30, 1, -1)))
    monitor.tick()
    assert stalls(monitor) == []
    seconds(fake, monitor, 30)
    send(monitor, *(record(number, number, progress__completed=number // 6) for number in range(60, 30, -1)))
    monitor.tick()
    assert stalls(monitor) == [(34, None)]


def test_a_declared_wait_in_the_backlog_is_no_gap(begun_here: Parts, fake: FakeClock) -> None:
    """The work need not move in it."""
    monitor = begun_here
    seconds(fake, monitor, 30)
    waiting = {"progress__status": "waiting", "progress__wait__reason": "a lock"}
    late = [record(2, 2), record(3, 3, s.WAIT_STARTED, **waiting), record(4, 25, s.WAIT_ENDED), record(5, 28)]
    send(monitor, *reversed([*late, record(6, 30)]))
    monitor.tick()
    assert stalls(monitor) == []


def test_deltas_on_the_known_keyframe_count(begun_here: Parts, fake: FakeClock) -> None:
    """They say all, together with it."""
    monitor = begun_here
    seconds(fake, monitor, 30)
    send(monitor, *(record(number, number, progress__keyframe=1) for number in range(30, 1, -1)))
    monitor.tick()
    assert stalls(monitor) == []


def test_what_another_attempt_did_refutes_nothing(begun_here: Parts, fake: FakeClock) -> None:
    """Late events of the run before say nothing about this one."""
    monitor = begun_here
    other = {"progress__start_time": WALL + 10, "progress__operation__attempt": 2}
    seconds(fake, monitor, 10)
    send(monitor, record(1, 10, s.OPERATION_STARTED, **other))
    seconds(fake, monitor, 10)
    assert stalls(monitor) == [(14, None)]
    send(monitor, *(record(number, number) for number in range(20, 1, -1)), record(2, 20, **other))
    monitor.tick()
    assert stalls(monitor) == [(14, None)]


# -- the rule


def refuted(stall: ConcludedStall, times: list[float], delay: float = 0.0) -> bool:
    """Whether events at these times, of which all are heard after the last one, refute a stall."""
    found = False
    for number, at in enumerate(times, 1):
        stall.add(Moment(number, at, times[-1] + delay, number))
        found = found or stall.is_refuted()
    return found


@given(
    times=st.lists(st.floats(-0.5, 40.0), min_size=1, max_size=20),
    delay=st.floats(0.0, 20.0),
    limit=st.sampled_from([4.0, 10.0]),
)
def test_only_a_stall_that_was_none_is_refuted(times: list[float], delay: float, limit: float) -> None:
    """Whatever clock says when the events happened: if it is right, and leaves a gap of the limit, the stall stands."""
    times = sorted(times)
    found = refuted(ConcludedStall(Moment(0, 0.0, 0.0, 0), limit), times, delay)
    if max(b - a for a, b in itertools.pairwise([0.0, *times])) >= limit or times[0] < 0:
        assert not found
    elif delay == 0:
        assert found


def test_a_clock_that_was_set_back_proves_nothing() -> None:
    """Not even of an operation that is over."""
    stall = ConcludedStall(Moment(0, 0.0, 0.0, 0), LIMIT)
    for number, at in enumerate([1.0, 2.0, 1.5, 3.0], 1):
        stall.add(Moment(number, at, 30.0, number))
    stall.is_over = True
    assert not stall.is_refuted()


def test_stalls_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One with too many events stays, and so do the oldest ones if there are too many events of all."""
    monkeypatch.setattr(concluded_stalls, "MOMENTS", 5)
    monkeypatch.setattr(concluded_stalls, "ALL_MOMENTS", 12)
    known = ConcludedStalls()
    for key in "abc":
        known.begin(key, Moment(0, 0.0, 0.0, 0), LIMIT)
        for number in range(9, 0, -1):
            known.hear_late(key, Moment(number, float(number), 9.0, number))
    assert [key in known for key in "abc"] == [False, True, True]
    assert known.refuted() == []
    known.forget("b")
    known.forget("c")
    assert (len(known._stalls), known._moments, bool(known)) == (0, 0, False)
