"""Processes: the parent passes its operation on in the environment, and the children's operations become its children.

Each process shows and sends its own operations. The parent's id and the trace connect them. Here the children write
JSON lines, and the parent checks the parent id in them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import otel_progress as progress
from otel_progress.handlers.console import Console
from otel_progress.handlers.jsonlines import JsonLines


def child(start: int, report: str) -> None:
    """Count primes, in a process of its own."""
    with (
        JsonLines(report),
        progress.operation("count_primes", parent=progress.extract(), total=60_000, unit="number"),
    ):
        found = 0
        for number in progress.track(range(start, start + 60_000)):
            found += number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))
        progress.result(primes=found)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Console(), progress.operation("primes", stall_after=60) as whole:
        reports = [Path(folder) / f"{number}.jsonl" for number in range(3)]
        with progress.stage("count", unit="process"):
            environment = progress.inject(dict(os.environ), environ=True)
            running = [
                subprocess.Popen([sys.executable, __file__, str(number * 60_000), str(report)], env=environment)
                for number, report in enumerate(reports)
            ]
            for process in progress.track(running):
                with progress.waiting("a child process", overdue_after=60):
                    if process.wait():
                        progress.record("failed", item=process.pid)
        last = [json.loads(report.read_text(encoding="utf-8").splitlines()[-1])["snapshot"] for report in reports]
        assert all(snapshot["parent_id"] == whole.id for snapshot in last)
        progress.result(primes=sum(snapshot["result"]["primes"] for snapshot in last))


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1].isdigit():
        child(int(sys.argv[1]), sys.argv[2])
    else:
        argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
        main()
