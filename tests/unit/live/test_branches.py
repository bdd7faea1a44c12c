"""Branches: each line of work that runs inside an operation is judged by itself."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any

import pytest

import otel_progress as progress
from otel_progress import Health, Status, semconv
from otel_progress.model.health import Hearing, judge
from otel_progress.model.wire import from_attributes, to_attributes
from otel_progress.testing import Capture


class Worker:
    """A thread that does what it is told, one thing after another, in the context in which it was made."""

    def __init__(self, name: str) -> None:
        self._asked: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._done: SimpleQueue[Any] = SimpleQueue()
        self.thread = threading.Thread(target=progress.carry(self._run), name=name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while (call := self._asked.get()) is not None:
            self._done.put(call())

    def do(self, call: Callable[[], Any]) -> Any:
        """Do it there, and wait for it."""
        self._asked.put(call)
        return self._done.get(timeout=20)

    def end(self) -> None:
        self._asked.put(None)
        self.thread.join(20)


@contextmanager
def workers(*names: str) -> Iterator[list[Worker]]:
    made = [Worker(name) for name in names]
    try:
        yield made
    finally:
        for worker in made:
            worker.end()


def stuck(captured: Capture) -> list[tuple[str | None, Any]]:
    """The stage of each stall event, and the branches that it names."""
    return [(event.stage, event.attributes.get(semconv.STUCK_BRANCHES)) for event in captured.of(semconv.STALLED)]


# -- neighbours


def test_a_neighbour_that_moves_hides_no_hang(progress_capture: Capture) -> None:
    """Of two stages side by side, the one that hangs is told, with its name, while the other moves."""
    with progress.operation("work") as op:
        hangs, moves = op.stage("hangs", stall_after=4).start(), op.stage("moves").start()
        for _ in range(20):
            moves.advance()
            progress_capture.advance(1)
        seen = op.snapshot()
        assert (seen.health, seen.stage, seen.stall_after) == (Health.SILENT, "hangs", 4)
        assert seen.idle == pytest.approx(20, abs=1)
        assert seen.health_reason == "hangs: no progress for 20 s, stall_after is 4 s"
        assert stuck(progress_capture) == [("hangs", ("hangs",))]
        hangs.complete()
        progress_capture.advance(1)
        assert op.snapshot().health is Health.PROGRESSING
        progress_capture.advance(3)
        assert len(progress_capture.of(semconv.RECOVERED)) == 1
        moves.complete()


def test_the_hung_one_of_three_threads_is_found(progress_capture: Capture) -> None:
    """Three parallel tools in threads: the hung one is stuck at its own line, whatever the others do."""
    gate = threading.Event()
    entered = threading.Event()

    def hang() -> None:
        with progress.stage("tool b", stall_after=5):
            entered.set()
            gate.wait(30)  # here it hangs

    with progress.operation("agent") as op, workers("a", "c") as (a, c):
        thread = threading.Thread(target=progress.carry(hang), daemon=True)
        thread.start()
        assert entered.wait(20)
        stages = {worker: op.stage(name, stall_after=5) for worker, name in ((a, "tool a"), (c, "tool c"))}
        for worker, stage in stages.items():
            worker.do(stage.__enter__)
        for _ in range(12):
            for worker, stage in stages.items():
                worker.do(stage.advance)
            progress_capture.advance(1)
        seen = op.snapshot()
        assert (seen.health, seen.stage) == (Health.SILENT, "tool b")
        assert seen.stuck_at is not None
        assert seen.stuck_at.endswith("in hang")
        assert {branch.path: branch.health for branch in seen.branches} == {
            "tool a": Health.PROGRESSING,
            "tool b": Health.SILENT,
            "tool c": Health.PROGRESSING,
        }
        for worker, stage in stages.items():
            worker.do(lambda stage=stage: stage.__exit__(None, None, None))
        gate.set()
        thread.join(20)


def test_the_hung_one_of_a_gather_is_found_with_its_line(progress_capture: Capture) -> None:
    """Of three coroutines in `gather`, the one that awaits what never comes is named, with its line."""

    async def hang(event: asyncio.Event) -> None:
        with progress.stage("hangs", stall_after=4):
            await event.wait()  # here it hangs

    async def move(event: asyncio.Event) -> None:
        with progress.stage("moves", stall_after=4) as stage:
            while not event.is_set():
                stage.advance()
                await asyncio.sleep(0)

    async def main() -> None:
        event = asyncio.Event()
        with progress.operation("agent") as op:
            both = asyncio.gather(hang(event), move(event), move(event))
            for _ in range(8):
                await asyncio.sleep(0.001)
                progress_capture.advance(1)
            seen = op.snapshot()
            assert (seen.health, seen.stage) == (Health.SILENT, "hangs")
            assert seen.stuck_at is not None
            assert seen.stuck_at.endswith("in hang")
            event.set()
            await both

    asyncio.run(main())


def test_each_branch_is_told_once_and_the_operation_recovers_when_all_have(progress_capture: Capture) -> None:
    """One event for each branch that gets stuck, those of one look together; recovered when none is."""
    with progress.operation("work", stall_after=5) as op:
        stages = [op.stage(name).start() for name in "abc"]
        progress_capture.advance(8)
        assert [(len(names), set(names)) for _, names in stuck(progress_capture)] == [(3, set("abc"))]
        for _ in range(8):
            stages[0].advance()
            stages[1].advance()
            progress_capture.advance(1)
        assert op.snapshot().health is Health.SILENT
        assert progress_capture.of(semconv.RECOVERED) == []
        progress_capture.advance(8)  # a and b again
        assert len(stuck(progress_capture)) == 2
        for _ in range(8):
            for stage in stages:
                stage.advance()
            progress_capture.advance(1)
        assert len(progress_capture.of(semconv.RECOVERED)) == 1
        assert op.snapshot().health is Health.PROGRESSING
        for stage in stages:
            stage.complete()


def test_at_most_sixteen_branches_are_named(progress_capture: Capture) -> None:
    """However many branches hang, an event and a snapshot name sixteen of them, and one that moves is among them."""
    with progress.operation("work", stall_after=5) as op:
        stages = [op.stage(f"s{number}").start() for number in range(40)]
        free = op.stage("free", stall_after=None).start()
        progress_capture.advance(8)
        ((_, names),) = stuck(progress_capture)
        assert len(names) == 16
        branches = op.snapshot().branches
        assert len(branches) == 16
        assert branches[-1].path == "free"
        for stage in [*stages, free]:
            stage.complete()


# -- waits


def test_a_wait_of_one_branch_stops_only_its_clock(progress_capture: Capture) -> None:
    """One thread in `waiting` hides no hung neighbour; with all of them waiting, the operation waits."""
    with progress.operation("work", stall_after=5) as op:
        polite, hung = op.stage("polite").start(), op.stage("hung").start()
        with polite.waiting("rate limit"):
            progress_capture.advance(8)
            assert (op.snapshot().health, op.snapshot().stage) == (Health.SILENT, "hung")
            with hung.waiting("a person"):
                progress_capture.advance(1)
                assert (op.snapshot().health, op.snapshot().status) == (Health.WAITING, Status.WAITING)
        polite.complete()
        hung.complete()


def test_an_overdue_wait_is_not_hidden(progress_capture: Capture) -> None:
    """A wait past its limit outranks a neighbour that moves: health waiting, overdue, told once."""
    with progress.operation("work") as op:
        waits, moves = op.stage("waits").start(), op.stage("moves").start()
        with waits.waiting("approval", overdue_after=5):
            for _ in range(8):
                moves.advance()
                progress_capture.advance(1)
            seen = op.snapshot()
            assert (seen.health, seen.overdue, seen.stage) == (Health.WAITING, True, "waits")
            assert seen.wait is not None
            assert seen.wait.reason == "approval"
            assert len(progress_capture.of(semconv.WAIT_OVERDUE)) == 1
            again = from_attributes(to_attributes(seen), seen.timestamp)
            assert (again.overdue, again.wait, again.branches[0].path) == (True, seen.wait, "waits")
        progress_capture.advance(1)
        assert not op.snapshot().overdue
        waits.complete()
        moves.complete()


def test_a_wait_of_the_main_thread_is_not_hidden_by_its_workers(progress_capture: Capture) -> None:
    """A wait that was declared on the operation, beside stages in threads, is a branch of its own."""
    with progress.operation("work") as op, workers("w") as (worker,):
        stage = op.stage("download")
        worker.do(stage.__enter__)
        with op.waiting("approval", overdue_after=5):
            for _ in range(8):
                worker.do(stage.advance)
                progress_capture.advance(1)
            assert (op.snapshot().health, op.snapshot().overdue) == (Health.WAITING, True)
        worker.do(lambda: stage.__exit__(None, None, None))


def test_back_off_in_one_of_many_is_healthy(progress_capture: Capture) -> None:
    """A declared back-off longer than the limit, beside neighbours that move, is no trouble."""
    with progress.operation("work", stall_after=5) as op:
        one, other = op.stage("one").start(), op.stage("other").start()
        with one.waiting("back-off"):
            for _ in range(20):
                other.advance()
                progress_capture.advance(1)
        assert stuck(progress_capture) == []
        one.complete()
        other.complete()


# -- whose progress counts


def test_what_is_counted_outside_counts_for_a_stage_that_counts_nothing(progress_capture: Capture) -> None:
    """`with op.stage("work"): for …: op.advance()` is healthy, and so it is with two stages around."""
    with progress.operation("work", stall_after=5) as op, op.stage("outer") as outer, outer.stage("inner"):
        for _ in range(12):
            (op if _ % 2 else outer).advance()
            progress_capture.advance(2)
        assert stuck(progress_capture) == []
        progress_capture.advance(6)
        assert stuck(progress_capture) == [("outer/inner", ("outer/inner",))]


def test_one_that_may_idle_is_not_judged(progress_capture: Capture) -> None:
    """`stall_after=None`, said explicitly, means that this branch may idle; the others are judged as ever."""
    with progress.operation("work", stall_after=5) as op:
        idles, moves = op.stage("listener", stall_after=None).start(), op.stage("moves").start()
        for _ in range(20):
            moves.advance()
            progress_capture.advance(1)
        assert stuck(progress_capture) == []
        assert op.snapshot().health is Health.PROGRESSING
        moves.complete()
        progress_capture.advance(600)
        assert stuck(progress_capture) == []
        idles.complete()


def test_an_operation_that_may_idle_is_not_judged(progress_capture: Capture) -> None:
    """`stall_after=None` on the operation stops learned limits, too."""
    with progress.operation("server", stall_after=None) as op:
        for _ in range(300):
            op.advance()
            progress_capture.advance(1)
        progress_capture.advance(5_000)
        assert stuck(progress_capture) == []
        assert op.snapshot().stall_after is None


# -- loops of their own place


def test_the_hung_loop_of_several_threads_is_found(progress_capture: Capture) -> None:
    """Several threads loop over parts of one stage: each loop has its own clock, and the hung one is named."""
    with progress.operation("work", stall_after=5) as op, op.stage("crawl") as crawl, workers("one", "two") as made:
        loops = [worker.do(lambda: iter(crawl.track(range(100)))) for worker in made]
        for worker, loop in zip(made, loops):
            worker.do(loop.__next__)
        for _ in range(10):
            made[0].do(loops[0].__next__)
            progress_capture.advance(1)
        seen = op.snapshot()
        assert (seen.health, seen.stage) == (Health.SILENT, "crawl")
        assert stuck(progress_capture) == [("crawl", ("crawl in thread two",))]
        assert seen.branches[0].lane == "thread two"
        del loops


def test_long_items_side_by_side_are_healthy(progress_capture: Capture) -> None:
    """Loops whose items take less than the limit are healthy, and so is one whose own steps are counted."""
    with progress.operation("work", stall_after=10) as op, op.stage("files") as files, workers("one", "two") as made:
        loops = [worker.do(lambda: iter(files.track(range(100)))) for worker in made]
        for turn in range(40):
            if turn % 8 == 0:
                made[0].do(loops[0].__next__)
            if turn % 9 == 0:
                made[1].do(loops[1].__next__)
            progress_capture.advance(1)
        assert stuck(progress_capture) == []
        for _ in range(20):
            files.advance()  # of the items in hand: the own count rules
            progress_capture.advance(1)
        assert stuck(progress_capture) == []
        del loops


def test_a_loop_waits_for_the_stages_of_its_item(progress_capture: Capture) -> None:
    """A loop whose item runs stages in tasks of their own is as well as those."""

    async def part(turns: int) -> None:
        with progress.stage("part") as stage:
            for _ in range(turns):
                stage.advance()
                await asyncio.sleep(0)
                progress_capture.advance(1)

    async def main() -> None:
        with progress.operation("work", stall_after=5):
            for _ in progress.track(range(3)):
                await asyncio.gather(part(8), part(8))

    asyncio.run(main())
    assert stuck(progress_capture) == []


def test_a_generator_at_work_for_its_consumer_is_not_stuck(progress_capture: Capture) -> None:
    """A stage inside a generator is suspended while its consumer works; the consumer's progress counts for it."""

    def produce() -> Iterator[int]:
        with progress.stage("produce", stall_after=5) as stage:
            yield from stage.track(range(3))

    with progress.operation("work") as op:
        for _ in op.track(produce()):
            with op.stage("consume", stall_after=5) as consume:
                for _ in range(8):
                    consume.advance()
                    progress_capture.advance(1)
    assert stuck(progress_capture) == []


def test_a_decorated_generator_waits_for_its_consumer(progress_capture: Capture) -> None:
    """An operation that is a generator and was not asked for more waits, instead of being stuck."""

    @progress.operation("source", stall_after=5)
    def source() -> Iterator[int]:
        for number in progress.track(range(3)):
            yield number
            progress_capture.advance(8)  # its own hang

    generator = source()
    next(generator)
    progress_capture.advance(20)
    assert stuck(progress_capture) == []
    next(generator)
    assert len(stuck(progress_capture)) == 1
    generator.close()


# -- loops of steps


def test_a_looping_branch_is_found_beside_one_that_moves(progress_capture: Capture) -> None:
    """Steps that repeat in one branch are a loop of that branch; progress of a neighbour resets nothing."""
    with progress.operation("agents") as op:
        rounds, moves = op.stage("agent one").start(), op.stage("agent two").start()
        for _ in range(15):
            with rounds.stage("turn") as turn:
                turn.step("search kittens")
                progress_capture.advance(0.5)
            moves.advance()
            progress_capture.advance(0.5)
        seen = op.snapshot()
        assert (seen.health, seen.branches[0].path) == (Health.LOOPING, "agent one")
        assert seen.health_reason is not None
        assert seen.health_reason.startswith("agent one: search kittens came ")
        rounds.complete()
        moves.complete()


# -- children


def test_a_parent_is_as_well_as_its_child(progress_capture: Capture) -> None:
    """A parent whose child moves is healthy, however short its own limit; a stuck child makes it stuck, by name."""
    with progress.operation("parent", stall_after=2) as parent, progress.operation("child", stall_after=10) as child:
        for _ in range(20):
            child.advance()
            progress_capture.advance(1)
        assert stuck(progress_capture) == []
        (branch,) = parent.snapshot().branches
        assert (branch.child, branch.child_name, branch.health) == (child.id, "child", Health.PROGRESSING)
        progress_capture.advance(12)
        assert [event.snapshot.name for event in progress_capture.of(semconv.STALLED)] == ["child", "parent"]
        seen = parent.snapshot()
        assert seen.health is Health.SILENT
        assert seen.health_reason is not None
        assert re.fullmatch(r"child child: no progress for 1[234] s, stall_after is 10 s", seen.health_reason)
    progress_capture.look()
    assert {event.snapshot.name for event in progress_capture.of(semconv.OPERATION_ENDED)} == {"parent", "child"}


def test_a_parent_recovers_with_its_child(progress_capture: Capture) -> None:
    """The parent is stuck for as long as its child is, and its own clock starts when the child ends."""
    with progress.operation("parent", stall_after=5) as parent:
        with progress.operation("child", stall_after=4) as child:
            progress_capture.advance(6)
            assert parent.snapshot().health is Health.SILENT
            for _ in range(6):
                child.advance()
                progress_capture.advance(1)
            assert parent.snapshot().health is Health.PROGRESSING
        progress_capture.advance(4)
        assert parent.snapshot().health is Health.PROGRESSING
        progress_capture.advance(2)
        assert parent.snapshot().health is Health.SILENT


def test_a_stage_that_hangs_beside_a_moving_child_is_stuck(progress_capture: Capture) -> None:
    """Only the branch in which the child was started waits for it."""
    with progress.operation("parent", stall_after=5) as parent:
        hangs = parent.stage("hangs").start()
        child = progress.operation("child", parent=parent).start()
        for _ in range(8):
            child.advance()
            progress_capture.advance(1)
        assert [event.snapshot.name for event in progress_capture.of(semconv.STALLED)] == ["parent"]
        assert parent.snapshot().stage == "hangs"
        hangs.complete()
        child.complete()


def test_children_of_gathered_tasks_are_waited_for(progress_capture: Capture) -> None:
    """Children that were started in tasks of their own are branches; what awaits them is not judged."""

    async def child(name: str, turns: int) -> None:
        with progress.operation(name, stall_after=5) as op:
            for _ in range(turns):
                op.advance()
                await asyncio.sleep(0)
                progress_capture.advance(1)

    async def main() -> None:
        with progress.operation("parent", stall_after=2), progress.stage("fan out"):
            await asyncio.gather(*(child(f"child {number}", 6) for number in range(3)))

    asyncio.run(main())
    assert stuck(progress_capture) == []


def test_a_parent_waits_while_its_only_child_waits(progress_capture: Capture) -> None:
    """A wait of the child is one of the parent, and an overdue one is overdue for both."""
    with progress.operation("parent", stall_after=2) as parent, progress.operation("child") as child:
        with child.waiting("a person", overdue_after=10):
            progress_capture.advance(6)
            assert (parent.snapshot().status, parent.snapshot().health) == (Status.WAITING, Health.WAITING)
            progress_capture.advance(6)
            assert parent.snapshot().overdue
    assert stuck(progress_capture) == []


def test_deep_families_are_looked_at_in_time(progress_capture: Capture) -> None:
    """Hundreds of operations inside each other make no error and no false verdict."""
    made = []
    for number in range(300):
        made.append(progress.operation(f"level {number % 7}", stall_after=2, parent=made[-1] if made else None).start())
    for _ in range(5):
        made[-1].advance()
        progress_capture.advance(1)
    assert stuck(progress_capture) == []
    for op in reversed(made):
        op.complete()


# -- from outside


def test_an_observer_judges_the_branches_too(progress_capture: Capture) -> None:
    """From the wire an observer draws the same conclusion, and none that the process did not draw."""
    with progress.operation("work", stall_after=5) as op:
        hangs, moves = op.stage("hangs").start(), op.stage("moves").start()
        for _ in range(8):
            moves.advance()
            progress_capture.advance(1)
        said = from_attributes(to_attributes(op.snapshot()), op.snapshot().timestamp)
        heard = Hearing(silence=0.5)
        verdict = judge(said, said.timestamp + 60, heard)
        assert (verdict.health, verdict.branch) == (Health.SILENT, "hangs")
        hangs.complete()
        progress_capture.advance(1)
        said = from_attributes(to_attributes(op.snapshot()), op.snapshot().timestamp)
        assert judge(said, said.timestamp + 60, heard).health is Health.PROGRESSING
        moves.complete()


# -- slow


def test_slow_is_told_once(progress_capture: Capture) -> None:
    """Past `slow_after` one event tells it, whatever comes in between."""
    with progress.operation("work", slow_after=5) as op:
        for turn in range(20):
            op.advance()
            progress_capture.advance(1)
            if turn == 10:
                with op.waiting("a person"):
                    progress_capture.advance(2)
        assert len(progress_capture.of(semconv.SLOW)) == 1


# -- listeners


def test_each_change_of_the_verdict_is_told(progress_capture: Capture) -> None:
    """`on_verdict` hears the old health, the new one and the evidence, of one operation or of all, until taken out."""
    told: list[tuple[str, str, Health, Health, bool]] = []

    def hear(who: str) -> Callable[[Health, Health, progress.Snapshot], None]:
        return lambda old, new, seen: told.append((who, seen.name, old, new, seen.overdue))

    remove = progress.on_verdict(hear("all"))
    with progress.operation("work", stall_after=5) as op:
        op.on_verdict(hear("one"))
        progress_capture.advance(8)
        for _ in range(6):
            op.advance()
            progress_capture.advance(1)
        with op.waiting("approval", overdue_after=3):
            progress_capture.advance(5)
        remove()
        progress_capture.advance(1)
    want = [
        (Health.PROGRESSING, Health.SILENT, False),
        (Health.SILENT, Health.PROGRESSING, False),
        (Health.PROGRESSING, Health.WAITING, False),
        (Health.WAITING, Health.WAITING, True),
    ]
    assert [one[2:] for one in told if one[0] == "all"] == want
    assert [one[2:] for one in told if one[0] == "one"] == [*want, (Health.WAITING, Health.PROGRESSING, False)]


def test_a_count_that_goes_up_and_down_is_a_loop(progress_capture: Capture) -> None:
    """`completed` 3, 4, 3, 4 is no progress: silent at the limit, and a loop after enough turns."""
    with progress.operation("sync", stall_after=5) as op:
        op.update(completed=4)
        for _ in range(12):
            for number in (3, 4):
                op.update(completed=number)
                progress_capture.advance(0.5)
        assert op.snapshot().health is Health.LOOPING
        assert op.snapshot().health_reason == (
            "completed 3 came 12 times in a row with no new progress for 12 s, loop_after is 10"
        )
        assert len(progress_capture.of(semconv.STALLED)) == 1


def test_what_fails_again_and_again_is_a_loop_and_no_silence(progress_capture: Capture) -> None:
    """A record is an item that is over, so it resets the idle time; one that failed ends no loop of steps."""
    with progress.operation("fetch", stall_after=5, loop_after=6) as op:
        for _ in range(8):
            op.step("page 7")
            op.record("failed", item="page 7")
            progress_capture.advance(2)
        assert op.snapshot().health is Health.LOOPING
    with progress.operation("batch", stall_after=5, loop_after=6) as op:
        for number in range(8):
            op.step("page")
            op.record("ok", item=f"page {number}")
            progress_capture.advance(2)
        assert op.snapshot().health is Health.PROGRESSING
        assert op.snapshot().progress.completed == 8


def test_a_child_that_is_dropped_ends_while_its_parent_runs(progress_capture: Capture) -> None:
    """What is known of a stuck child keeps it not alive: dropped without an end, it is interrupted."""
    import gc

    with progress.operation("parent") as parent:
        child = progress.operation("child", stall_after=3, parent=parent).start()
        progress_capture.advance(6)
        assert parent.snapshot().health is Health.SILENT
        del child
        gc.collect()
        progress_capture.advance(2)
        assert progress_capture.ended("child").status is Status.INTERRUPTED
        assert parent.snapshot().health is Health.PROGRESSING


# -- which of several speaks


def test_the_branch_that_got_stuck_last_speaks(progress_capture: Capture) -> None:
    """Each stall event, and the snapshot with it, tells of the branch that got stuck now, not of an older one."""
    with progress.operation("work", stall_after=3) as op:
        first, second = op.stage("first").start(), op.stage("second").start()
        for turn in range(8):
            if turn < 3:
                second.advance()
            progress_capture.advance(1)
        told = [(event.stage, event.snapshot.stage) for event in progress_capture.of(semconv.STALLED)]
        assert told == [("first", "first"), ("second", "second")]
        assert {branch.path for branch in op.snapshot().branches if branch.health is Health.SILENT} == {
            "first",
            "second",
        }
        first.complete()
        second.complete()
    assert op.snapshot().stuck_at is None


def test_a_neighbour_that_ends_is_no_recovery(progress_capture: Capture) -> None:
    """A loop that hangs stays stuck, told once, when the loops beside it are over."""
    with progress.operation("work", stall_after=4) as op, workers("one", "two") as made:
        loops = [worker.do(lambda: iter(op.track(range(9)))) for worker in made]
        for worker, loop in zip(made, loops):
            worker.do(loop.__next__)
        for _ in range(8):
            made[0].do(loops[0].__next__)
            progress_capture.advance(1)
        made[0].do(lambda lane=loops[0]: next(lane, None))
        progress_capture.advance(12)
        assert len(progress_capture.of(semconv.STALLED)) == 1
        assert progress_capture.of(semconv.RECOVERED) == []
        assert op.snapshot().idle == pytest.approx(20, abs=2)
        del loops


def test_a_looping_agent_that_spends_is_told_by_its_steps(progress_capture: Capture) -> None:
    """Where steps repeat and tokens grow, the evidence names the steps."""
    with progress.operation("agent", stall_after=5) as op:
        for _ in range(40):
            op.step("tool:grep foo")
            op.usage(input_tokens=50, output_tokens=5)
            progress_capture.advance(0.5)
        seen = op.snapshot()
        assert seen.health is Health.LOOPING
        assert seen.health_reason is not None
        assert seen.health_reason.startswith("tool:grep foo came ")


# -- what looks like a hang, and is none


def step_of(kind: str, stage: progress.Stage, lines: Iterator[int]) -> None:
    """One step of work inside an item of a loop."""
    if kind == "inner loop":
        next(lines)
    elif kind == "another unit":
        stage.advance(1, unit="token")
    elif kind == "record":
        stage.record("ok")
    elif kind == "heartbeat":
        progress.heartbeat()


@pytest.mark.parametrize("kind", ["inner loop", "another unit", "record", "heartbeat"])
def test_work_inside_the_items_of_parallel_loops_counts(kind: str, progress_capture: Capture) -> None:
    """Two workers loop over one stage, and work on each item for longer than the limit, step by step."""
    with (
        progress.operation("work", stall_after=10, heartbeat_counts=True) as op,
        op.stage("files") as files,
        workers("one", "two") as made,
    ):
        loops = [worker.do(lambda: iter(files.track(range(9)))) for worker in made]
        lines = []
        for worker, loop in zip(made, loops):
            worker.do(loop.__next__)
            lines.append(worker.do(lambda: iter(files.track(range(99)))))
        for _ in range(30):
            for worker, inner in zip(made, lines):
                worker.do(lambda inner=inner: step_of(kind, files, inner))
            progress_capture.advance(1)
        assert stuck(progress_capture) == []
        del loops, lines


@pytest.mark.parametrize("kind", ["wait", "child"])
def test_the_end_of_a_wait_or_child_restarts_the_clock_of_a_parallel_loop(kind: str, progress_capture: Capture) -> None:
    """A loop whose item waits as declared, or runs a child, begins anew at the end of it."""
    with progress.operation("work", stall_after=10) as op, op.stage("files") as files, workers("one", "two") as made:
        loops = [worker.do(lambda: iter(files.track(range(9)))) for worker in made]
        for worker, loop in zip(made, loops):
            worker.do(loop.__next__)
        if kind == "wait":
            inside: list[Any] = [files.waiting("rate limit") for _ in made]
        else:
            inside = [progress.operation("kid", parent=files) for _ in made]
        for worker, one in zip(made, inside):
            worker.do(one.__enter__)
        for _ in range(20):
            for one in inside if kind == "child" else ():
                one.advance()
            progress_capture.advance(1)
        for worker, one in zip(made, inside):
            worker.do(lambda one=one: one.__exit__(None, None, None))
        progress_capture.advance(5)
        assert stuck(progress_capture) == []
        del loops


def test_a_wait_in_a_task_of_its_own_is_one_of_the_loop(progress_capture: Capture) -> None:
    """`wait_for` runs a wait in a task of its own: no loop of the stage is called stuck meanwhile."""

    async def main() -> None:
        async with progress.operation("work", stall_after=2), progress.stage("fetch") as stage:
            over = asyncio.Event()

            async def call() -> None:
                async with progress.waiting("rate limit", overdue_after=60):
                    await over.wait()

            async def worker() -> None:
                for _ in stage.track(range(2)):
                    await asyncio.create_task(call())

            both = asyncio.gather(worker(), worker())
            for _ in range(6):
                await asyncio.sleep(0.001)
                progress_capture.advance(1)
            over.set()
            await both

    asyncio.run(main())
    assert stuck(progress_capture) == []


def test_a_stage_that_fails_for_ever_is_one_stall(progress_capture: Capture) -> None:
    """A stage that fails and is tried again is one loop, told once, though each try is a stage of its own."""
    with progress.operation("work") as op:
        for _ in range(30):
            with pytest.raises(OSError, match="503"), op.stage("call"):
                progress_capture.advance(0.5)
                raise OSError("503")
        assert op.snapshot().health is Health.LOOPING
    assert len(progress_capture.of(semconv.STALLED)) == 1


def test_slow_items_in_stages_of_their_own_do_not_flap(progress_capture: Capture) -> None:
    """Units that take longer than the limit, each in a stage: one stall, as without the stages."""
    with progress.operation("work", stall_after=10) as op:
        for _ in range(6):
            with op.stage("item"):
                progress_capture.advance(12)
    assert len(progress_capture.of(semconv.STALLED)) == 1


def test_a_parent_tells_the_progress_of_its_children(progress_capture: Capture) -> None:
    """What moves a child moves its parent, and an update tells so."""
    with progress.operation("nightly", total=3) as op:
        for name in "abc":
            with progress.operation(name, total=20) as child:
                for _ in range(20):
                    child.advance()
                    progress_capture.advance(0.5)
                told = [one.snapshot for one in progress_capture.events if one.snapshot.name == "nightly"][-1]
                assert told.progress.ratio == pytest.approx(op.snapshot().progress.ratio, abs=0.04)


def test_thousands_of_branches_hide_none(progress_capture: Capture) -> None:
    """However many branches move, one that hangs is found."""
    with progress.operation("work", stall_after=10) as op:
        hung = op.stage("hung").start()
        others = [op.stage(f"s{number}").start() for number in range(1_100)]
        for _ in range(4):
            for one in others:
                one.advance()
            progress_capture.advance(3)
        assert op.snapshot().stage == "hung"
        for one in (hung, *others):
            one.complete()


def test_a_declared_wait_for_a_child_is_a_wait(progress_capture: Capture) -> None:
    """A parent that says that it waits for its child waits while the child moves, and is stuck when the child is."""
    with progress.operation("parent", stall_after=2) as parent:
        with parent.waiting("the child", overdue_after=30), progress.operation("child", stall_after=5) as child:
            for _ in range(6):
                child.advance()
                progress_capture.advance(1)
            assert (parent.snapshot().status, parent.snapshot().health) == (Status.WAITING, Health.WAITING)
            progress_capture.advance(8)
            assert parent.snapshot().health is Health.SILENT
            for _ in range(20):
                child.advance()
                progress_capture.advance(1)
            assert parent.snapshot().overdue


# -- one trouble over stages that follow one another


def healths(about: progress.Operation) -> list[Health]:
    """Each new health of an operation, in its order."""
    told: list[Health] = []
    about.on_verdict(lambda old, new, seen: told.append(new) if old is not new else None)
    return told


def names(captured: Capture, about: str) -> list[str]:
    """The stalls and recoveries that were told of an operation."""
    known = (semconv.STALLED, semconv.RECOVERED)
    return [event.name for event in captured.events if event.name in known and event.snapshot.name == about]


ONCE = [semconv.STALLED, semconv.RECOVERED]


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((("think", 1.0),), id="one stage a turn"),
        pytest.param((("think", 0.1),), id="many stages in one look"),
        pytest.param((("think", 1.0), (None, 0.6)), id="a gap between them"),
        pytest.param((("think", 1.0), ("act", 1.0)), id="two stages in turn"),
    ],
)
def test_one_hang_is_one_stall_and_one_recovery(
    shape: tuple[tuple[str | None, float], ...], progress_capture: Capture
) -> None:
    """Turns that are well after one that hung never look stuck again; the recovery comes after half the limit."""
    with progress.operation("turns", stall_after=10) as op:
        told = healths(op)
        for number in range(22):
            for name, seconds in shape:
                if name is None:
                    progress_capture.advance(seconds)
                    continue
                with op.stage(name):
                    progress_capture.advance(13 if number == 1 and name == "think" else seconds)
        progress_capture.advance(5)
        assert told == [Health.SILENT, Health.PROGRESSING]
        assert names(progress_capture, "turns") == ONCE
        (recovered,) = progress_capture.of(semconv.RECOVERED)
        stalled_at = progress_capture.of(semconv.STALLED)[0].snapshot.elapsed
        assert recovered.snapshot.elapsed - stalled_at == pytest.approx(3 + 5, abs=1)


def test_a_stage_that_hangs_again_before_the_recovery_is_the_same_stall(progress_capture: Capture) -> None:
    """Until it has moved for long enough, another hang is no new stall, but it is stuck, with evidence of now."""
    with progress.operation("turns", stall_after=10) as op:
        for seconds in (12, 12):
            with op.stage("think"):
                progress_capture.advance(seconds)
                seen = op.snapshot()
            progress_capture.advance(0.6)
        assert seen.health is Health.SILENT
        assert seen.stuck_at is not None
        assert names(progress_capture, "turns") == [semconv.STALLED]


def test_a_child_whose_stages_follow_one_another_is_one_stall_of_its_parent(progress_capture: Capture) -> None:
    """The parent of a child that hung once is told stuck once, and well once, after the child."""
    with progress.operation("boss", stall_after=3) as boss, progress.operation("kid", stall_after=3) as kid:
        told = healths(boss)
        for number in range(12):
            with kid.stage("turn"):
                progress_capture.advance(8 if number == 1 else 1)
        assert told == [Health.SILENT, Health.PROGRESSING]
        assert names(progress_capture, "kid") == names(progress_capture, "boss") == ONCE


def test_retries_with_pauses_between_are_one_stall(progress_capture: Capture) -> None:
    """A stage that fails again and again is one loop, also where each try is followed by a pause outside of it."""
    with progress.operation("work") as op:
        for _ in range(30):
            with pytest.raises(OSError, match="503"), op.stage("call"):
                progress_capture.advance(0.5)
                raise OSError("503")
            progress_capture.advance(0.7)
        assert op.snapshot().health is Health.LOOPING
    assert len(progress_capture.of(semconv.STALLED)) == 1


def test_the_evidence_of_a_child_is_of_now_at_any_depth(progress_capture: Capture) -> None:
    """`health_reason` and the reason of the branch grow with the idle time, above a child of a child, too."""
    with (
        progress.operation("top", stall_after=3) as top,
        progress.operation("mid", stall_after=3),
        progress.operation("kid", stall_after=3),
    ):
        progress_capture.advance(14)
        seen = top.snapshot()
        assert seen.idle == 14
        assert seen.health_reason == "child mid: child kid: no progress for 14 s, stall_after is 3 s"
        assert seen.branches[0].reason == "child kid: no progress for 14 s, stall_after is 3 s"


# -- a hang beside a loop


def _hangs_beside(captured: Capture, op: progress.Operation, rounds: Callable[[Worker], None], sure: bool) -> None:
    """One thread hangs in a stage, with a limit of 20 s, while another one repeats itself for a minute.

    `sure`: before the limit, too, it is known which of them repeats itself.
    """
    with workers("hung", "busy") as (hung, busy):
        stage = progress.stage("A-stuck", stall_after=20)
        hung.do(stage.__enter__)
        for _ in range(60):
            rounds(busy)
            captured.advance(1)
        seen = op.snapshot()
        assert seen.health is Health.SILENT
        assert seen.stage == "A-stuck"
        assert seen.loop is None
        assert seen.health_reason is not None
        assert seen.health_reason.removeprefix("A-stuck: ").startswith("no progress for ")
        told = [
            event for event in captured.of(semconv.STALLED) if "A-stuck" in event.attributes[semconv.STUCK_BRANCHES]
        ]
        if sure:
            assert len(told) == 1
            assert " came " not in str(told[0].attributes[semconv.HEALTH_REASON])
        hung.do(lambda: stage.__exit__(None, None, None))


def _in_one_stage() -> Callable[[Worker], None]:
    stage = progress.stage("B-loop")
    begun: list[Any] = []

    def rounds(busy: Worker) -> None:
        if not begun:
            begun.append(busy.do(stage.__enter__))
        busy.do(lambda: progress.step("search cats"))

    return rounds


def _turn(name: str = "turn", *, fails: bool = False, key: str = "search cats") -> Callable[[Worker], None]:
    def once() -> None:
        with suppress(ValueError), progress.stage(name):
            if fails:
                raise ValueError
            progress.step(key)

    return lambda busy: busy.do(once)


def _spends() -> Callable[[Worker], None]:
    stage = progress.stage("B-spends", stall_after=20)
    begun: list[Any] = []

    def rounds(busy: Worker) -> None:
        if not begun:
            begun.append(busy.do(stage.__enter__))
        busy.do(lambda: progress.usage(input_tokens=10))

    return rounds


@pytest.mark.parametrize("kind", ["one stage", "a stage each", "same name", "failures", "without a stage", "tokens"])
def test_a_hang_beside_a_loop_is_a_hang(kind: str, progress_capture: Capture) -> None:
    """The steps, failures and cost of one branch are never the loop of another one: a hang beside it is told."""
    with progress.operation("agents", loop_after=10, stall_after=15) as op:
        rounds = {
            "one stage": _in_one_stage,
            "a stage each": _turn,
            "same name": lambda: _turn("A-stuck"),
            "failures": lambda: _turn("fetch", fails=True),
            "without a stage": lambda: lambda busy: busy.do(lambda: op.step("search cats")),
            "tokens": _spends,
        }[kind]()
        _hangs_beside(progress_capture, op, rounds, sure=kind not in ("same name", "without a stage"))


def test_a_loop_with_pauses_in_stages_of_their_own_is_one_loop(progress_capture: Capture) -> None:
    """A stage between two turns of a loop, in the same thread, is a part of it: told once, and never over."""
    with progress.operation("agent", loop_after=5) as op:
        for _ in range(20):
            with progress.stage("think"):
                progress.step("search cats")
                progress_capture.advance(0.5)
            with progress.stage("pause"):
                progress_capture.advance(1)
                health = op.snapshot().health
        assert health is Health.LOOPING
        assert len(progress_capture.of(semconv.STALLED)) == 1
        assert progress_capture.of(semconv.RECOVERED) == []
