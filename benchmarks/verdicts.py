"""Accuracy of the verdicts: real processes with faults and healthy ones, and the conclusions about them.

python -m benchmarks.verdicts                three seeds; some minutes each; saved in docs/accuracy.md
python -m benchmarks.verdicts --seed 7       this seed only; saves nothing
python -m benchmarks.verdicts --short        about forty processes in a minute; saves nothing
python -m benchmarks.verdicts --only loop    only cases whose name contains this; saves nothing
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import random
import signal
import sys
import time

from benchmarks.__main__ import machine
from benchmarks.faults import report
from benchmarks.faults.load import Load
from benchmarks.faults.observer import Observed
from benchmarks.faults.runner import Run, Runner
from benchmarks.faults.score import Score, marks, score
from benchmarks.harness import ROOT

PAGE = ROOT / "docs" / "accuracy.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
SEEDS = 3


def tell(line: str) -> None:
    """Print a progress line; on a terminal each replaces the previous one."""
    end = "\r" if sys.stderr.isatty() else "\n"
    print(f"{line:<100}", end=end, file=sys.stderr, flush=True)


async def measure(seed: int, load: Load, *, short: bool, only: list[str]) -> Score:
    """Run one seed."""
    runner = Runner(seed, short=short, load=load, tell=tell, only=only)
    await runner.run()

    def seen(run: Run, operation: str) -> Observed:
        return runner.observers[run.case.kind.group].of(operation)

    return score(runner.runs, seen, load.worst, marks(ROOT / "benchmarks" / "faults", ROOT))


def text(found: Score, title: str) -> str:
    """Return all tables of the findings."""
    return "\n\n".join(
        [
            f"## {title}: {found.operations} operations in {found.processes} processes",
            "In the process (by its events):",
            report.confusion(found, "inside"),
            "Outside (by an observer of the log events):",
            report.confusion(found, "outside"),
            report.recalls(found),
            "Delay over the limit:",
            report.delays(found),
            report.evidence(found),
        ]
    )


def keep(measured: str) -> None:
    """Replace the text between the marks of the page."""
    head, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n{measured}\n{END}{rest.partition(END)[2]}")


def measure_all(seeds: list[int], *, short: bool, only: list[str]) -> tuple[Score, str]:
    """Run several seeds; return all findings, and the text about them."""
    load = Load()
    load.start()
    whole, parts, began = Score(), [], time.monotonic()
    try:
        for seed in seeds:
            print(f"seed {seed}", flush=True)
            found = asyncio.run(measure(seed, load, short=short, only=only))
            whole.add(found)
            parts.append(text(found, f"Seed {seed}"))
            print(f"\n{parts[-1]}\n", flush=True)
    finally:
        load.stop()
    if len(seeds) > 1:
        parts.insert(0, text(whole, "All seeds"))
    today = dt.datetime.now(dt.timezone.utc).date()
    about = (
        f"`python -m benchmarks.verdicts` on {today}, {(time.monotonic() - began) / 60:.0f} minutes, "
        f"seeds {', '.join(map(str, seeds))}. {machine()} A process that only slept woke up "
        f"{load.quantile(0.95) * 1000:.0f} ms late (95th percentile; 99th {load.quantile(0.99) * 1000:.0f} ms)."
    )
    return whole, "\n\n".join([about, *parts])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdicts", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, action="append", help="run this seed, keeping nothing")
    parser.add_argument("--only", action="append", metavar="TEXT", help="run only cases whose name holds this")
    parser.add_argument("--short", action="store_true", help="one seed, few processes, keeping nothing")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that no process is left
    seeds = given.seed or [random.randrange(10**6) for _ in range(1 if given.short else SEEDS)]
    whole, measured = measure_all(seeds, short=given.short, only=given.only or [])
    print(measured if len(seeds) > 1 else measured.partition("\n")[0])
    if not (given.seed or given.short or given.only):
        keep(measured)
    if whole.broken:
        sys.exit("some programs broke")


if __name__ == "__main__":
    main()
