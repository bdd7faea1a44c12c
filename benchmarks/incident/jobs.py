"""The programs of the drill: `python -m benchmarks.incident.jobs KIND ID`.

Each prints `ready PID` once its work runs, and `moment NAME SECONDS` (since 1970) when something happens that an alert
is measured against. A line on its input is an order: `end`, `move`, or what its kind understands.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import otel_progress as progress

LIMIT = 20.0
"""`stall_after` of what will hang, in s."""
OVERDUE_AFTER = 20.0
PACE = 0.5
WARM_UP = 12.0
"""Seconds of normal progress before something goes wrong: longer than an export interval."""
LONGEST = 30 * 60

lines: list[str] = []
told = threading.Condition()


def listen() -> None:
    """Read the orders; the end of the input is an order to end."""
    for line in sys.stdin:
        with told:
            lines.append(line.strip())
            told.notify_all()
    with told:
        lines.append("end")
        told.notify_all()


def order(timeout: float | None = None) -> str:
    """Wait for an order; return an empty text if none came."""
    with told:
        told.wait_for(lambda: lines, timeout)
        return lines.pop(0) if lines else ""


def say(*words: object) -> None:
    """Print a line for the drill."""
    print(*words, flush=True)


def moment(name: str, later: float = 0.0) -> None:
    """Report that something happens now, or after `later` seconds."""
    say("moment", name, time.time() + later)


def warm_up(advance: Callable[[], object]) -> None:
    """Make normal progress for a while."""
    until = time.monotonic() + WARM_UP
    while time.monotonic() < until:
        time.sleep(PACE)
        advance()


def hang_here() -> str:
    """Make no progress until an order comes."""
    with told:
        told.wait_for(lambda: lines)  # this is the line that everything should name
        return lines.pop(0)


def stuck(name: str) -> None:
    """Hang in a stage; at `move` go on."""
    with progress.operation("import", id=name, stall_after=LIMIT), progress.stage("fetch", total=10_000) as stage:
        say("ready", os.getpid())
        warm_up(stage.advance)
        moment("limit", LIMIT)
        if hang_here() != "move":
            return
        moment("recovery")
        while not order(PACE):
            stage.advance()


def parallel(name: str) -> None:
    """Run three tools side by side, one of which hangs."""
    over: Future[None] = Future()

    def hang_in_tool() -> None:
        over.result()

    def tool(title: str) -> None:
        with progress.stage(title) as stage:
            warm_up(stage.advance)
            if title == "browse":
                moment("limit", LIMIT)
                hang_in_tool()
            while not over.done():
                time.sleep(PACE)
                stage.advance()

    with progress.operation("agent", id=name, stall_after=LIMIT), progress.CarryingExecutor(3) as pool:
        say("ready", os.getpid())
        for title in ("search", "browse", "read"):
            pool.submit(tool, title)
        order()
        over.set_result(None)


def looping(name: str) -> None:
    """Repeat two steps, and pay for each."""
    with progress.operation("chat", id=name, loop_after=4, stall_after=3600) as operation:
        say("ready", os.getpid())
        warm_up(operation.advance)
        rounds = 0
        while not order(PACE):
            for step in ("search", "read"):
                progress.step(step)
                operation.usage(cost=0.01)
            rounds += 1
            if rounds == 4:
                moment("limit")


def overdue(name: str) -> None:
    """Wait longer than the limit of the wait."""
    with progress.operation("approval", id=name, stall_after=3600) as operation:
        say("ready", os.getpid())
        warm_up(operation.advance)
        with progress.waiting("signature of the board", overdue_after=OVERDUE_AFTER):
            moment("limit", OVERDUE_AFTER)
            order()


def steady(name: str, kind: str = "steady") -> None:
    """Make progress until the end, in stages."""
    with progress.operation(kind, id=name, stall_after=LIMIT, total=1):
        with progress.stage("read", total=10) as stage:
            for _ in range(10):
                time.sleep(PACE / 10)
                stage.advance()
        with progress.stage("load", total=2_000) as stage:
            say("ready", os.getpid())
            while not order(PACE):
                stage.advance()
        progress.advance()


def greedy(name: str) -> None:
    """Make progress, then take memory until the kernel kills it."""
    with progress.operation("train", id=name, stall_after=120) as operation:
        say("ready", os.getpid())
        warm_up(operation.advance)
        moment("cause")
        taken = []
        while True:
            taken.append(bytearray(os.urandom(2**20) * 8))
            operation.advance()


def worker(name: str) -> None:
    """Run operations beside each other in a process that outlives them; at `end-first` the first half ends."""
    half = threading.Event()
    whole = threading.Event()

    def task(number: int) -> None:
        with progress.operation("task", id=f"{name}-{number}", stall_after=LIMIT) as operation:
            while not (half if number < 3 else whole).wait(PACE):
                operation.advance()

    threads = [threading.Thread(target=task, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    say("ready", os.getpid())
    while (given := order()) != "end":
        if given == "end-first":
            half.set()
    half.set()
    whole.set()
    for thread in threads:
        thread.join()


def healthy(name: str) -> None:
    """Run work that looks like trouble and is none: bursts, a long wait, idle and busy branches, short operations."""
    over = threading.Event()

    def bursts() -> None:
        with progress.operation("bursts", id=f"{name}-bursts", stall_after=LIMIT) as operation:
            while not over.wait(LIMIT * 0.7):
                operation.advance(100)

    def waits() -> None:
        with progress.operation("waits", id=f"{name}-waits", stall_after=LIMIT) as operation:
            operation.advance()
            with progress.waiting("the night", overdue_after=7200):
                over.wait()

    def branches() -> None:
        def branch(title: str, pace: float) -> None:
            with progress.stage(title) as stage:
                while not over.wait(pace):
                    stage.advance()

        whole = progress.operation("branches", id=f"{name}-branches", stall_after=LIMIT)
        with whole, progress.CarryingExecutor(3) as pool:
            for title, pace in (("quick", 0.1), ("slow", 5.0), ("slower", LIMIT / 2)):
                pool.submit(branch, title, pace)

    def short() -> None:
        number = 0
        while not over.wait(PACE):
            number += 1
            with progress.operation("short", id=f"{name}-short-{number}", stall_after=LIMIT):
                over.wait(0.1 if number % 5 else 12)

    def cycles() -> None:
        with progress.operation("cycles", id=f"{name}-cycles", loop_after=4, stall_after=LIMIT) as operation:
            while not over.wait(PACE):
                for step in ("search", "read", "write"):
                    progress.step(step)
                operation.advance()

    threads = [threading.Thread(target=work) for work in (bursts, waits, branches, short, cycles)]
    for thread in threads:
        thread.start()
    say("ready", os.getpid())
    while order() != "end":
        pass
    over.set()
    for thread in threads:
        thread.join()


KINDS: dict[str, Callable[[str], None]] = {
    "stuck": stuck,
    "parallel": parallel,
    "looping": looping,
    "overdue": overdue,
    "steady": steady,
    "deployed": lambda name: steady(name, "deployed"),
    "greedy": greedy,
    "worker": worker,
    "healthy": healthy,
}


def main() -> None:
    kind, name = sys.argv[1:]
    last = threading.Timer(LONGEST, os._exit, (3,))
    last.daemon = True
    last.start()
    threading.Thread(target=listen, daemon=True).start()
    progress.configure(handle_sigterm=True)
    KINDS[kind](name)
    progress.shutdown()
    say("ended")


if __name__ == "__main__":
    main()
