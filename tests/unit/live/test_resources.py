"""What the process uses: sampled by the ticker, and shown for operations and stages."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

import otel_progress as progress
from otel_progress import procfs, semconv
from otel_progress.live.diagnosis import vitals
from otel_progress.live.engine import resources
from otel_progress.model import wire
from otel_progress.model.resources import Resources, from_dict
from otel_progress.testing import Capture


class Machine:
    """A process whose numbers the test sets."""

    cpu = 0.0
    memory = 100.0
    below: ClassVar[dict[int, tuple[float, list[int]]]] = {}
    """Memory and children of other processes."""
    looks = 0
    broken = False

    def __init__(self, pid: int | None = None) -> None:
        """Stand for `psutil.Process`."""
        self.pid = pid

    def memory_info(self) -> SimpleNamespace:
        """Resident memory."""
        return SimpleNamespace(rss=Machine.memory if self.pid is None else Machine.below[self.pid][0])

    def cpu_times(self) -> SimpleNamespace:
        """CPU time, as the heartbeat reads it."""
        return SimpleNamespace(user=Machine.cpu, system=0.0)

    def num_threads(self) -> int:
        """Threads, which only the sampler asks for."""
        Machine.looks += 1
        if Machine.broken:
            raise OSError("no /proc")
        return 3

    def io_counters(self) -> SimpleNamespace:
        """Disk I/O, which is not known, as on macOS."""
        raise AttributeError("io_counters")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Machine]]:
    """A process of the test's own, and a sampler that starts anew."""

    def children(pid: int, most: int) -> list[int] | None:
        own = set(Machine.below) - {child for _, below in Machine.below.values() for child in below}
        return sorted(own) if pid == os.getpid() else Machine.below[pid][1]

    Machine.cpu, Machine.memory, Machine.below, Machine.looks, Machine.broken = 0.0, 100.0, {}, 0, False
    monkeypatch.setitem(sys.modules, "psutil", SimpleNamespace(Process=Machine))
    monkeypatch.setattr(vitals, "_meter", None)
    monkeypatch.setattr(resources, "sampler", resources.Sampler())
    monkeypatch.setattr(resources, "cpu_seconds", lambda: Machine.cpu)
    monkeypatch.setattr(procfs, "children", children)
    return Machine


def seen(op: progress.Operation) -> Resources:
    """The resources of an operation, which are known."""
    found = op.snapshot().resources
    assert found is not None
    return found


def test_an_operation_and_its_stages_say_what_they_used(progress_capture: Capture, machine: type[Machine]) -> None:
    """CPU time is the difference since the start, memory the peak since then; ends keep what they were."""
    machine.cpu = 1000.0
    with progress.operation("load") as op:
        progress_capture.advance(1)
        with progress.stage("read"):
            progress_capture.advance(1)
            machine.cpu, machine.memory = 1003.0, 900.0
            progress_capture.advance(6)
        progress_capture.advance(1)
        machine.memory = 200.0
        with progress.stage("write"):
            progress_capture.advance(1)
            machine.cpu = 1004.0
            progress_capture.advance(11)
        progress_capture.advance(1)
        assert seen(op).memory == 200.0
        assert seen(op).threads == 3
        assert seen(op).read_bytes is None
    progress_capture.advance(1)
    machine.cpu, machine.memory = 2000.0, 5000.0
    progress_capture.advance(20)
    read, write = op.snapshot().stages
    assert (read.cpu_seconds, read.peak_memory) == (3.0, 900.0)
    assert (write.cpu_seconds, write.peak_memory) == (1.0, 200.0)
    assert (seen(op).cpu_seconds, seen(op).peak_memory) == (4.0, 900.0)
    (stage, _) = op.statistics().stages
    assert (stage.cpu_seconds, stage.peak_memory) == (3.0, 900.0)
    sent = wire.from_attributes(wire.to_attributes(op.snapshot()), 1.0)
    assert sent.resources == seen(op)
    assert sent.stages[0].cpu_seconds == 3.0


def test_what_is_too_short_to_measure_says_nothing(progress_capture: Capture, machine: type[Machine]) -> None:
    """A stage that starts and ends between two looks used an unknown amount, not none."""
    with progress.operation("load") as op:
        with progress.stage("tiny"):
            machine.cpu += 5
        progress_capture.advance(6)
    (tiny,) = op.snapshot().stages
    assert tiny.cpu_seconds is None
    assert tiny.peak_memory is None


def test_it_is_sampled_each_five_seconds_while_operations_run(
    progress_capture: Capture, machine: type[Machine]
) -> None:
    """Samples are few, and none is taken while nothing runs; an hour keeps a bounded number of them."""
    progress_capture.advance(60)
    assert machine.looks == 0
    with progress.operation("load"):
        progress_capture.advance(60)
        assert 10 <= machine.looks <= 13
    looks = machine.looks
    progress_capture.advance(60)
    assert machine.looks <= looks + 1


def test_children_are_counted_with_all_below(progress_capture: Capture, machine: type[Machine]) -> None:
    """The memory of children and grandchildren is added up; of thousands only their number is known."""
    machine.below = {7: (50.0, [8]), 8: (25.0, []), 9: (10.0, [])}
    with progress.operation("load") as op:
        progress_capture.advance(6)
        assert (seen(op).children, seen(op).children_memory) == (2, 85.0)
        machine.below = {pid: (1.0, []) for pid in range(7, 3000)}
        progress_capture.advance(6)
        assert (seen(op).children, seen(op).children_memory) == (2993, None)


def test_a_process_that_cannot_be_read_says_nothing_more(progress_capture: Capture, machine: type[Machine]) -> None:
    """Once reading fails, resources are absent, and nobody tries again or complains."""
    with progress.operation("load") as op:
        machine.broken = True
        progress_capture.advance(60)
        assert op.snapshot().resources is None
    assert machine.looks == 1


def test_metrics_have_the_names_of_the_conventions(progress_capture: Capture, machine: type[Machine]) -> None:
    """CPU, memory and threads are metrics of the process; a value that is not known is no point."""
    with progress.operation("load"):
        progress_capture.advance(6)
        machine.cpu = 2.0
        progress_capture.advance(6)
        progress_capture.look()
        found = {point.name: point.value for point in progress_capture.metrics() if point.name.startswith("process.")}
    assert found[semconv.PROCESS_CPU_TIME.name] == 2.0
    assert found[semconv.PROCESS_MEMORY] == 100.0
    assert found[semconv.PROCESS_THREADS.name] == 3
    assert semconv.PROCESS_DISK_IO.name not in found


def test_without_psutil_all_is_absent_without_a_word() -> None:
    """Without psutil there are no resources, and no line on stderr; a fork in between changes nothing."""
    program = """if True:
        import os, sys
        sys.modules["psutil"] = None
        import otel_progress as progress
        from otel_progress.testing import capture
        with capture() as seen, progress.operation("load") as op:
            seen.advance(12)
            assert op.snapshot().resources is None
            print("fine")
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


def test_a_forked_child_measures_itself(progress_capture: Capture, machine: type[Machine]) -> None:
    """A forked child does not show the samples of its parent."""
    with progress.operation("load"):
        progress_capture.advance(6)
        assert resources.sampler.latest is not None
        resources.forget()
        assert resources.sampler.latest is None


def test_real_numbers_of_this_process() -> None:
    """With the real psutil the sampler reads this process, and finds a child that a thread started."""
    sampler = resources.Sampler()
    sampler._find()
    started: list[subprocess.Popen[bytes]] = []
    thread = threading.Thread(
        target=lambda: started.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1))
    )
    thread.start()
    thread.join()
    try:
        sampler._sample(1.0)
        found = sampler.latest
        assert found is not None
        assert (found.memory or 0) > 1e6
        assert (found.threads or 0) >= 1
        assert (found.children or 0) >= 1
    finally:
        for one in started:
            one.communicate(b"\n")


@pytest.mark.parametrize("given", [None, 5, [], {"memory": "x", "cpu": float("nan"), "threads": -1}])
def test_what_a_sender_made_up_is_ignored(given: Any) -> None:
    """Values that are no numbers of at least 0 are left out."""
    assert from_dict(given) is None
