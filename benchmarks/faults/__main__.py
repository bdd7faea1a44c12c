"""One fault program: `python -m benchmarks.faults NAME KIND SEED [short] [watched]`."""

from __future__ import annotations

import signal
import sys

import otel_progress as progress
from benchmarks.faults.job import Job
from benchmarks.faults.plan import PROGRAMS

LONGEST = 240
"""Seconds after which the program ends in any case, so that none is left behind."""


def main() -> None:
    signal.alarm(LONGEST)
    name, kind, seed, *more = sys.argv[1:]
    progress.configure("verdicts")
    PROGRAMS[kind](Job(name, int(seed), short="short" in more, watched="watched" in more))


if __name__ == "__main__":
    main()
