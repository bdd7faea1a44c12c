"""A user's program, run by test_dashboards.py, that produces what the panels' expectations describe.

`living`: operations that make progress, wait, are slow, loop, are stuck or do not start, until its input ends.
`killed`: one that makes progress until it is killed.
`ended`: some that complete, and one that fails.
"""

import sys
import threading
from collections.abc import Callable

import otel_progress as progress
from otel_progress.workflow import adaptive

over = threading.Event()


def tick() -> bool:
    """Return whether to go on, after a short pause."""
    return not over.wait(0.1)


def hang_here() -> None:
    """Do nothing until the end."""
    over.wait()


def moving() -> None:
    """Run an operation with every feature."""
    with progress.operation(
        "import", id="moving-1", total=1_000_000, unit="row", stall_after=60, slow_after=3600
    ) as it:
        with progress.stage("read", unit="file", total=2) as stage:
            stage.advance(2)
        with progress.stage("load"):
            it.update(message="reading orders")
            progress.note("the file is open")
            with progress.operation("chunk", id="child-1", total=1_000_000):
                while tick():
                    progress.advance(10)
                    it.advance(100)
                    it.usage(input_tokens=80, output_tokens=9, cost=0.004)


def staged() -> None:
    """Run an operation without a count of its own, whose stage counts."""
    with progress.operation("import", id="staged-1", stall_after=60):
        with progress.stage("convert", unit="page", total=5000):
            while tick() and tick():
                progress.advance()


def slow() -> None:
    """Run longer than its limit."""
    with progress.operation("import", id="slow-1", slow_after=0.5, stall_after=60):
        while tick():
            progress.advance()


def looping() -> None:
    """Loop."""
    with progress.operation("agent", id="looping-1", loop_after=3, stall_after=3600):
        while tick():
            progress.step("search cats")


def stuck() -> None:
    """Hang."""
    with progress.operation("import", id="stuck-1", stall_after=1):
        with progress.stage("fetch"):
            hang_here()


def waiting() -> None:
    """Wait for a person."""
    with progress.operation("approve", id="waiting-1", stall_after=60):
        with progress.waiting("approval", overdue_after=3600):
            hang_here()


def overdue() -> None:
    """Wait longer than the wait's limit."""
    with progress.operation("approve", id="overdue-1", stall_after=60):
        with progress.waiting("approval", overdue_after=0.5):
            hang_here()


def killed() -> None:
    """Make progress."""
    with progress.operation("import", id="killed-1", total=1_000_000, stall_after=60, slow_after=3600):
        while tick():
            progress.advance()


def ended() -> None:
    """Run several operations that end."""
    for number in range(1, 4):
        with progress.operation("report", id=f"ended-{number}", unit="page"):
            with progress.stage("collect"):
                over.wait(2 if number == 1 else 0.1)  # the first is old enough for run series
            with progress.stage("print", unit="page") as stage:
                stage.advance(10)
            progress.usage(input_tokens=100, output_tokens=10, cost=0.5)
    try:
        with progress.operation("report", id="failed-1"):
            raise ValueError("no paper")
    except ValueError:
        pass


SITUATIONS: dict[str, tuple[Callable[[], None], ...]] = {
    "living": (moving, staged, slow, looping, stuck, waiting, overdue),
    "killed": (killed,),
    "ended": (ended,),
}

progress.configure()
threads = [threading.Thread(target=work) for work in SITUATIONS[sys.argv[1]]]
late = progress.operation("import", id="late-1", start_within=0.5) if sys.argv[1] == "living" else None
limit = adaptive(start=8, name="search API") if sys.argv[1] == "living" else None
if late is not None:
    progress.advance()  # outside an operation: counted as dropped
for thread in threads:
    thread.start()
if sys.argv[1] != "ended":
    print("ready", flush=True)
    sys.stdin.read()
    over.set()
for thread in threads:
    thread.join()
progress.shutdown()
print("ended", flush=True)
