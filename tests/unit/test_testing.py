"""`otel_progress.testing` keeps its promises: time stands still, nothing leaks in or out, all signals are there."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

import otel_progress as progress
from otel_progress import clock, semconv
from otel_progress.live import hooks
from otel_progress.live.engine import process, runtime
from otel_progress.live.guard import drops
from otel_progress.live.registry import registry
from otel_progress.testing import START, Capture, FakeClock, capture


def test_fake_clock_stands_still() -> None:
    """The fake clock moves only when a test moves it, both clocks together; a jump moves only the wall clock."""
    fake = FakeClock()
    assert (fake.time_ns(), fake.time_ns(), fake.monotonic()) == (START, START, 1000.0)
    fake.sleep(1.5)
    assert (fake.time_ns(), fake.monotonic()) == (START + 1_500_000_000, 1001.5)
    fake.jump(-3600)
    assert (fake.time_ns(), fake.monotonic()) == (START + 1_500_000_000 - 3600 * 10**9, 1001.5)
    assert FakeClock(start_ns=5).time_ns() == 5


def test_clock_install_gives_the_one_before() -> None:
    """install() installs a clock, and returns the previous one."""
    fake = FakeClock()
    before = clock.install(fake)
    try:
        assert (clock.monotonic(), clock.time_ns(), clock.unix()) == (1000.0, START, START / 1e9)
    finally:
        assert clock.install(before) is fake
    assert clock.time_ns() > START


def test_a_jump_of_the_wall_clock_makes_no_duration(progress_capture: Capture) -> None:
    """If the wall clock jumps, elapsed and idle stay right."""
    with progress.operation("work", stall_after=100) as op:
        progress_capture.advance(5)
        for jump in (3600, -7200):
            progress_capture.clock.jump(jump)
            progress_capture.look()
            found = op.snapshot()
            assert (found.elapsed, found.idle, found.health.value) == (5, 5, "progressing")
    progress_capture.look()
    assert progress_capture.of(semconv.STALLED) == []


def test_no_thread_runs_while_a_capture_is_open(progress_capture: Capture) -> None:
    """Under a capture our threads are not started, whatever is called."""
    before = set(threading.enumerate())
    progress.add_listener(print)
    with progress.operation("work"), progress.stage("s"):
        progress_capture.advance(2)
    assert set(threading.enumerate()) <= before


def test_time_passes_only_by_advance(progress_capture: Capture) -> None:
    """advance(seconds) lets exactly that much time pass, in rounds of the ticker."""
    with progress.operation("work") as op:
        for seconds in (0.1, 1, 2.5, 0):
            before = progress_capture.clock.monotonic()
            progress_capture.advance(seconds)
            assert progress_capture.clock.monotonic() - before == pytest.approx(seconds)
    assert op.snapshot().elapsed == pytest.approx(3.6)


def test_all_signals_are_captured(progress_capture: Capture) -> None:
    """A capture has the events, logs, spans, run series and metrics by name of an operation."""
    with progress.operation("work", total=10) as op:
        op.advance()
        progress_capture.advance(20)
    progress_capture.advance(1)
    assert progress_capture.names()[0] == semconv.OPERATION_STARTED
    assert progress_capture.names()[-1] == semconv.OPERATION_ENDED
    assert progress_capture.of(semconv.UPDATED)[0].snapshot.progress.completed == 1
    assert progress_capture.ended("work").operation_id == op.id
    assert {semconv.OPERATION_STARTED, semconv.OPERATION_ENDED} <= {log.event_name for log in progress_capture.logs}
    assert [span.name for span in progress_capture.spans] == ["work"]
    assert semconv.RUN_IDLE.name in {point.name for point in progress_capture.series}
    assert semconv.ENDED.name in {point.name for point in progress_capture.metrics()}
    assert progress_capture.drops == {}


def test_ended_says_when_nothing_did(progress_capture: Capture) -> None:
    """ended() for a name that did not end raises an AssertionError that says what to do."""
    with pytest.raises(AssertionError, match=r"no operation 'work' ended; look\(\)"):
        progress_capture.ended("work")


def test_settings_of_a_capture() -> None:
    """A capture accepts limits by the names of Settings; an unknown one is an error."""
    with capture(event_budget=2.0) as captured:
        with progress.operation("work") as op:
            for number in range(10):
                op.note(str(number))
            captured.look()
            assert len(captured.of(semconv.NOTE)) == 2
    with pytest.raises(TypeError, match="colour"), capture(colour="red"):
        pass


def test_a_capture_leaves_everything_as_it_was() -> None:
    """After a capture, also after an error, clock, hooks, registry, ticker, drops and context are as before."""

    def state() -> list[object]:
        return [
            clock.monotonic,
            clock.time_ns,
            hooks.wanted,
            list(hooks.sinks),
            list(hooks.on_tick),
            list(hooks.on_change),
            dict(vars(hooks.tracing)),
            runtime.ticker,
            process.threads_allowed,
            registry.live,
            dict(drops),
            progress.current(),
        ]

    before = state()
    with pytest.raises(KeyError), capture():
        progress.advance()
        progress.operation("left open").start()
        raise KeyError
    assert state() == before


def test_what_runs_outside_is_not_seen(progress_capture: Capture) -> None:
    """A capture inside an operation starts empty, and the operation goes on afterwards."""
    with progress.operation("outer", id="x") as outer:
        with capture() as inner:
            assert progress.current() is None
            with progress.operation("inner", id="x") as op:
                assert op.parent_id is None
            inner.look()
            assert {event.snapshot.name for event in inner.events} == {"inner"}
        assert progress.current() is outer
        outer.advance()
        progress_capture.advance(1)
    progress_capture.look()
    assert progress_capture.ended("outer").progress.completed == 1


def test_ids_count_up(progress_capture: Capture) -> None:
    """Ids of traces and spans are consecutive, so that whole spans can be compared."""
    with progress.operation("work"), progress.stage("s"):
        pass
    assert [(span.name, span.context.trace_id, span.context.span_id) for span in progress_capture.spans] == [
        ("s", 1, 2),
        ("work", 1, 1),
    ]


def test_the_pytest_plugin_is_there_by_itself(tmp_path: object) -> None:
    """A test that requests progress_capture gets it, without a conftest."""
    import pathlib

    folder = pathlib.Path(str(tmp_path))
    (folder / "test_mine.py").write_text(
        "import otel_progress as progress\n"
        "def test_mine(progress_capture):\n"
        "    with progress.operation('work') as op:\n"
        "        op.advance(3)\n"
        "    progress_capture.advance(10)\n"
        "    assert progress_capture.ended('work').progress.completed == 3\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_capture_is_apart_from_a_ticker_that_runs() -> None:
    """A capture samples only its own operations, although the process's ticker has a thread."""
    with capture():
        process.threads_allowed = True
        runtime.want()
        runtime.ensure()
        outside = runtime.ticker
        rounds: list[float] = []
        hooks.on_tick.append(rounds.append)
        with capture() as captured:
            seen = len(rounds)
            with progress.operation("inside") as op:
                for _ in range(1000):
                    op.note("x")
                assert not threading.Event().wait(outside.interval)
                assert len(registry.changes) >= 1000
            captured.look()
            assert len(rounds) == seen
        while len(rounds) == seen:
            assert not threading.Event().wait(0.01)
        outside.stop()


FORKS = """
import multiprocessing

import otel_progress as progress
from otel_progress.testing import capture


def work(number):
    with progress.operation("child"):
        return number + 1


with capture(), progress.operation("parent"):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(work, [1, 2, 3]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_process_forks_while_a_capture_is_open() -> None:
    """Code under test may use pools of processes."""
    done = subprocess.run([sys.executable, "-c", FORKS], check=False, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[2, 3, 4]\n", "")
