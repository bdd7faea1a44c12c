"""When verdicts change: known beforehand, so what rests is not judged, and nobody can tell the difference."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from monitor_parts import Parts, Recorder, beat_of, event_of, fake_time, parts, request_of, seconds

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.model.health import Hearing, Verdict, judge, next_change
from otel_progress.model.loop import Loop
from otel_progress.model.snapshot import Branch, Snapshot, SpanIds, StageSnapshot, Wait
from otel_progress.model.status import Health, Status
from otel_progress.monitor.state.ledger import Entry
from otel_progress.monitor.state.schedule import SPARE, Moments, Rounds
from otel_progress.testing import FakeClock

AT = 1_700_000_000.0


def eighths(least: int, most: int) -> st.SearchStrategy[float]:
    """Seconds that add up exactly."""
    return st.integers(least * 8, most * 8).map(lambda number: number / 8)


TIMES = eighths(0, 40) | st.floats(0, 40)
LIMITS = st.none() | TIMES
WAITS = st.none() | st.builds(Wait, st.just("you"), TIMES, LIMITS)
LOOPS = st.none() | st.none() | st.just(Loop("step", ("x",), 9, 5, 3.0))
HEALTHS = st.sampled_from([Health.PROGRESSING, Health.SILENT, Health.LOOPING, Health.WAITING, Health.SLOW])
BRANCHES = st.builds(
    Branch,
    path=st.sampled_from([None, "fetch", "train"]),
    child=st.none() | st.none() | st.sampled_from(["1", "2"]),
    idle=TIMES,
    stall_after=LIMITS,
    health=HEALTHS,
    wait=WAITS,
    loop=LOOPS,
)
SNAPSHOTS = st.builds(
    Snapshot,
    st.just("a"),
    st.just("work"),
    st.sampled_from([Status.RUNNING, Status.WAITING, Status.PENDING, Status.COMPLETED]),
    st.just(AT) | st.floats(AT, AT + 9),
    health=HEALTHS,
    elapsed=TIMES,
    idle=TIMES,
    stall_after=LIMITS,
    slow_after=LIMITS,
    start_within=LIMITS,
    loop=LOOPS,
    wait=WAITS,
    branches=st.lists(BRANCHES, max_size=3).map(tuple),
)
HEARINGS = st.none() | st.builds(Hearing, eighths(0, 40), eighths(1, 9), eighths(0, 60) | st.just(math.inf))


def gist(verdict: Verdict) -> tuple[Any, ...]:
    """What does not grow with time."""
    return verdict.health, verdict.limit, verdict.allowed, verdict.overdue, verdict.clock, verdict.branch


@settings(max_examples=1000)
@given(SNAPSHOTS, st.floats(-5, 60), HEARINGS, st.floats(0, 0.999_999))
def test_nothing_changes_before_the_moment_that_was_foretold(
    snapshot: Snapshot, since: float, hearing: Hearing | None, part: float
) -> None:
    """Whatever was said and heard: up to the next change the verdict is the same."""
    now = AT + since
    at = next_change(snapshot, now, hearing)
    assert at >= now
    for later in {(min(at, now + 1000) - now) * part, (min(at, now + 1000) - now) * 0.999_999}:
        if now + later < at:
            then = None if hearing is None else _later(hearing, later)
            assert gist(judge(snapshot, now + later, then)) == gist(judge(snapshot, now, hearing))


def _later(hearing: Hearing, seconds: float) -> Hearing:
    return replace(hearing, silence=hearing.silence + seconds, watching=hearing.watching + seconds)


@settings(max_examples=500)
@given(SNAPSHOTS, eighths(0, 60), HEARINGS)
def test_no_moment_is_foretold_in_vain_for_ever(snapshot: Snapshot, since: float, hearing: Hearing | None) -> None:
    """Who looks at each foretold moment, and a hair later where that came early, is through soon."""
    now, looks = AT + since, 0
    while (at := next_change(snapshot, now, hearing)) < math.inf:
        later = max(at, now + 1e-3) - now
        hearing = None if hearing is None else _later(hearing, later)
        now, looks = now + later, looks + 1
    assert looks <= 12


def test_moments_come_in_order_and_outdated_ones_take_no_room() -> None:
    """What was put anew is due at its new moment alone; what is outdated is thrown away."""
    moments = Moments()
    for number in range(10 * SPARE):
        moments.put("a", float(number))
    moments.put("b", 5.0)
    moments.put("c", math.inf)
    assert (len(moments), len(moments._heap) <= 2 * SPARE) == (2, True)
    assert [moments.pop(4.9), moments.pop(5.0), moments.pop(5.0), moments.pop(1e9)] == [[], ["b"], [], ["a"]]
    moments.put("d", 1.0)
    moments.put("d", math.inf)
    assert moments.pop(2.0) == []


# -- the same as to judge all of them each second


class All(Rounds):
    """Looks at all each second."""

    at = -1.0

    def due(self, now: float) -> list[Entry]:
        """All, and then what changed by that."""
        found = super().due(now)
        if self.at != now:
            self.at = now
            return [entry for entry in self._ledger.operations.values() if entry.open]
        return found


@dataclass
class Pair:
    """Two monitors that hear the same; one of them judges all each second."""

    fake: FakeClock
    both: list[Parts]
    heard: list[Recorder]
    stopped: dict[str, str] = field(default_factory=dict)

    def tick(self) -> None:
        """A second is over."""
        for monitor in self.both:
            monitor.tick()
        one, other = (self._state(monitor) for monitor in self.both)
        assert one == other
        assert sorted(self.heard[0].conclusions) == sorted(self.heard[1].conclusions)
        now = clock.monotonic()
        core = self.both[0].core
        for key, entry in core.ledger.operations.items():
            if entry.open:
                assert core.labels[key] == core.observer.label(entry, now), key

    def _state(self, monitor: Parts) -> Any:
        core = monitor.core
        statuses = {key: entry.head.status for key, entry in core.ledger.operations.items()}
        history = {key: sorted((event[4:-1] for event in monitor.history(key)), key=repr) for key in statuses}
        return dict(core.labels), statuses, core.journal.dead, core.judging.overdue, set(core.stalls.held), history


STUCK = st.builds(
    Snapshot, st.just("a"), st.just("work"), st.just(Status.RUNNING), st.just(AT), health=st.just(Health.SILENT),
    elapsed=eighths(0, 9), idle=eighths(5, 9), stall_after=eighths(1, 20), slow_after=LIMITS,
    branches=st.just(()) | st.lists(BRANCHES, min_size=2, max_size=3).map(tuple),
)  # fmt: skip
CHILDREN = st.builds(
    Snapshot, st.just("a"), st.just("work"), st.sampled_from([Status.RUNNING, Status.WAITING, Status.COMPLETED]),
    st.just(AT), health=st.sampled_from([Health.PROGRESSING, Health.SILENT]), elapsed=eighths(0, 9),
    slow_after=st.none() | eighths(0, 30), wait=WAITS, branches=st.just(()) | st.lists(BRANCHES, max_size=2).map(tuple),
)  # fmt: skip


def below(key: int, seen: Snapshot, event: str, spans: bool) -> tuple[Any, ...]:
    """An operation in a process of its own, below the one before it."""
    return "say", key, key % 3, key - 1 if key else None, seen, event, spans


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """What happens to two monitors."""
    events = st.sampled_from([s.UPDATED, s.STALLED, s.RECOVERED, s.WAIT_OVERDUE, s.OPERATION_ENDED])
    key, process = st.integers(0, 5), st.integers(0, 2)
    said = st.tuples(st.just("say"), key, process, st.none() | key, SNAPSHOTS, events, st.booleans())
    said |= st.builds(below, st.integers(0, 3), STUCK | CHILDREN, events, st.booleans())
    waits = st.tuples(st.just("wait"), st.integers(1, 12) | st.integers(12, 40))
    beats = st.tuples(st.just("beat"), st.integers(0, 2), st.sampled_from([1.0, 2.0, 5.0]))
    others = st.sampled_from(
        [("deaf",), ("asleep",), ("stop", 0), ("go on", 0), ("drop", 1), ("drop", 2), ("restart",)]
    )
    return draw(st.lists(said | said | waits | waits | beats | others, min_size=2, max_size=20))


def play(pair: Pair, step: tuple[Any, ...], number: int) -> None:
    """One thing happens to both."""
    what, *given = step
    if what == "wait":
        for _ in range(given[0]):
            pair.fake.sleep(1.0)
            pair.tick()
    elif what == "asleep":
        pair.fake.sleep(9.0)
    elif what in ("stop", "go on"):
        pair.stopped.update(p0="stopped") if what == "stop" else pair.stopped.clear()
    for monitor in pair.both:
        if what == "deaf":
            monitor.core.observer.was_deaf(clock.monotonic())
        elif what == "drop":
            monitor.core.ledger.drop(str(given[0]))
        elif what == "restart":
            restart(pair, monitor)
        elif what == "beat":
            monitor.take(request_of(beat_of(given[1]), instance=f"p{given[0]}", **{s.HOST_NAME: f"h{given[0] % 2}"}))
        elif what == "say":
            monitor.take(words(*given, number))


def words(key: int, process: int, parent: int | None, seen: Snapshot, event: str, spans: bool, number: int) -> bytes:
    """A request that says this of an operation."""
    stage = StageSnapshot("fetch", "fetch", Status.RUNNING, started_at=AT, span_id=f"{key:016x}")
    above = None if parent is None else f"{parent:016x}"
    now = clock.time_ns() / 1e9
    told = replace(
        seen,
        operation_id=str(key),
        parent_id=None if parent is None else str(parent),
        sequence=number,
        timestamp=now,
        started_at=now - seen.elapsed if seen.status is not Status.PENDING else None,
        stages=(stage,) if spans else (),
        span=SpanIds("a" * 32, "b" * 16, above),
    )
    return request_of(event_of(told, event), instance=f"p{process}", **{s.HOST_NAME: f"h{process % 2}"})


def restart(pair: Pair, monitor: Parts) -> None:
    """It ends and starts again."""
    monitor.restart()
    adapt(pair, monitor, pair.both.index(monitor))


def adapt(pair: Pair, monitor: Parts, which: int) -> None:
    """The second of both judges all."""
    core = monitor.core
    core.observer.is_stopped = pair.stopped.get
    core.listen(pair.heard[which])
    if which == 1:
        core.judging.rounds.__class__ = All


@settings(max_examples=150, deadline=None, phases=[Phase.reuse, Phase.generate])
@given(histories())
def test_nobody_can_tell_it_from_judging_all_each_second(steps: list[tuple[Any, ...]]) -> None:
    """Verdicts, what is concluded, and the history are the same at each tick, whatever happens."""
    with fake_time() as fake, TemporaryDirectory() as folder, ExitStack() as stack:
        both = [stack.enter_context(parts(Path(folder) / f"{n}.db", presume_after=60.0)) for n in (1, 2)]
        pair = Pair(fake, both, [Recorder(), Recorder()])
        for which, monitor in enumerate(both):
            adapt(pair, monitor, which)
        for number, step in enumerate(steps, 1):
            play(pair, step, number)
        play(pair, ("wait", 50), 0)


def test_what_is_lost_with_its_child_is_not_called_stuck(fake: FakeClock) -> None:
    """Of operations that are lost in the same second none is called stuck because its child was lost just before."""
    runs = Snapshot("a", "work", Status.RUNNING, AT, health=Health.PROGRESSING)
    stands = replace(runs, health=Health.SILENT, idle=5.0, stall_after=1.0)
    steps = [below(key, seen, s.UPDATED, False) for key, seen in ((0, runs), (0, stands), (2, runs), (1, stands))]
    with TemporaryDirectory() as folder, ExitStack() as stack:
        both = [stack.enter_context(parts(Path(folder) / f"{n}.db", presume_after=60.0)) for n in (1, 2)]
        pair = Pair(fake, both, [Recorder(), Recorder()])
        for which, monitor in enumerate(both):
            adapt(pair, monitor, which)
        for number, step in enumerate(steps, 1):
            play(pair, step, number)
        play(pair, ("wait", 62), 0)
        assert s.STALLED not in {event.event for monitor in both for event in monitor.history("1")}


# -- what rests costs nothing


def judged(fake: FakeClock, monitor: Parts, count: int) -> int:
    """The number of operations judged while heartbeats arrive for some seconds."""
    before = monitor.core.judging.rounds.judged
    for _ in range(count):
        monitor.beat()
        seconds(fake, monitor, 1)
    return monitor.core.judging.rounds.judged - before


def running(count: int, **more: Any) -> list[Snapshot]:
    """Operations that run, each below the one before it."""
    return [
        Snapshot(str(n), "work", Status.RUNNING, AT, started_at=AT, parent_id=str(n - 1) if n else None, **more)
        for n in range(count)
    ]


@pytest.mark.parametrize("health", [Health.PROGRESSING, Health.SILENT], ids=lambda health: str(health.value))
def test_operations_at_rest_are_not_judged(fake: FakeClock, monitor: Parts, health: Health) -> None:
    """However many they are, stuck or not, one below another or not: only heartbeats come in, and nothing is judged."""
    judged(fake, monitor, 20)
    monitor.say(*running(300, health=health, slow_after=3600.0))
    assert judged(fake, monitor, 1) == 300
    assert judged(fake, monitor, 60) == 0


def test_each_limit_is_judged_once(fake: FakeClock, monitor: Parts) -> None:
    """Of many operations those are judged whose limit is reached, in the second in which it is."""
    monitor.beat()
    judged(fake, monitor, 20)
    now = clock.time_ns() / 1e9
    monitor.say(*(Snapshot(str(n), "w", Status.RUNNING, now, started_at=now, slow_after=30.0 + n) for n in range(20)))
    judged(fake, monitor, 29)
    for number in range(20):
        assert judged(fake, monitor, 1) <= 2
        assert [monitor.core.labels[str(n)].health is Health.SLOW for n in range(20)].count(True) == number + 1
    assert judged(fake, monitor, 100) == 0


def test_process_that_is_missed_has_its_operations_judged_once(fake: FakeClock, monitor: Parts) -> None:
    """When it dies, and when it is heard again; not in the seconds between."""
    judged(fake, monitor, 20)
    monitor.say(*running(50))
    judged(fake, monitor, 1)
    before = monitor.core.judging.rounds.judged
    seconds(fake, monitor, 60)
    assert {label.health for label in monitor.core.labels.values()} == {Health.DEAD}
    assert monitor.core.judging.rounds.judged - before == 50
    assert judged(fake, monitor, 1) == 50
    assert {label.health for label in monitor.core.labels.values()} == {Health.PROGRESSING}
