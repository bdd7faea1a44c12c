"""The jobs of the tour, each in a process of its own. They sleep instead of calling a model; hangs are real.

python examples/tour/jobs.py NAME      one of researcher, approver, importer, planner, crawler, nightly
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import otel_progress as progress


def read_page(address: tuple[str, int]) -> bytes:
    """Request a page from a server that accepts the connection and never answers."""
    with socket.create_connection(address) as connection:
        return connection.recv(1)


@progress.operation("research", agent="researcher", stall_after=8)
def researcher() -> None:
    """Get stuck: a server never answers, and there is no timeout."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        progress.stage("read sources", total=9, unit="source") as sources,
    ):
        for number in range(1, 5):
            time.sleep(1)
            progress.usage(input_tokens=900, output_tokens=120, cost=0.004)
            progress.note(f"read source {number}")
            sources.advance()
        progress.update(message="the fifth source")
        read_page(server.getsockname()[:2])


@progress.operation("release", agent="approver", stall_after=10)
def approver() -> None:
    """Wait for a person, which is no trouble before the wait's own limit."""
    with progress.stage("draft", total=3, unit="section") as draft:
        for _ in range(3):
            time.sleep(1)
            draft.advance()
    progress.note("the draft is ready")
    with progress.waiting("approval by a person", overdue_after=30):
        time.sleep(3600)


@progress.operation("import", total=80, unit="record", stall_after=10)
def importer() -> None:
    """Fail at an invalid record."""
    for number in range(1, 81):
        time.sleep(0.25)
        progress.update(message=f"record {number}")
        if number % 20 == 0:
            progress.record("skipped", item=number)
        if number == 37:
            raise ValueError("record 37: 'n/a' is not a date")
        progress.advance()


@progress.operation("plan trip", agent="planner", loop_after=8, stall_after=60)
def planner() -> None:
    """Loop: call the same two tools again and again, and spend tokens."""
    with progress.stage("think", total=2, unit="idea") as ideas:
        for _ in range(2):
            time.sleep(1)
            ideas.advance()
    while True:
        for tool in ("search flights", "compare prices"):
            progress.step(tool)
            progress.update(message=tool)
            progress.usage(input_tokens=1400, output_tokens=90, cost=0.006)
            time.sleep(0.4)


@progress.operation("crawl", total=600, unit="page", stall_after=10)
def crawler() -> None:
    """Make progress until the tour kills the process."""
    for number in range(600):
        time.sleep(0.05)
        progress.update(message=f"page {number}")
        progress.advance()


def nightly() -> None:
    """Run one job in four processes: a parent, and three children that count."""
    with progress.operation("nightly", stall_after=30):
        environment = progress.inject(dict(os.environ), environ=True)
        running = [
            subprocess.Popen([sys.executable, __file__, "part", str(number)], env=environment) for number in range(3)
        ]
        with progress.stage("wait for the parts"), progress.waiting("the parts", overdue_after=120):
            for process in running:
                process.wait()


def part() -> None:
    """Count, as one of the three children."""
    number = int(sys.argv[2])
    with progress.operation("count", parent=progress.extract(), total=100, unit="table", stall_after=20):
        for _ in range(100):
            time.sleep(0.15 + 0.05 * number)
            progress.advance()
        progress.usage(cost=0.02)


JOBS = {job.__name__: job for job in (researcher, approver, importer, planner, crawler, nightly, part)}

if __name__ == "__main__":
    if sys.argv[1:2] == [] or sys.argv[1] not in JOBS:
        sys.exit(__doc__)
    progress.configure(service_name=sys.argv[1])
    try:
        JOBS[sys.argv[1]]()
    except ValueError:
        sys.exit(1)  # it was reported; a traceback in the terminal adds nothing
    except KeyboardInterrupt:
        sys.exit(130)
