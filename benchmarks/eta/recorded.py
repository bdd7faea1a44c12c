"""Timings of real work, recorded by `record.py`."""

from __future__ import annotations

import functools
import gzip
import json
import random
from pathlib import Path

from benchmarks.eta.runs import Draw, Family, Run, plain

STRETCH = 20.0
"""Quick work is played this much slower, as on a slow machine or with more of it; otherwise it is over in 2 s."""
QUICK = 10.0
"""Seconds of a run below which it is quick."""
FILE = Path(__file__).with_name("recorded.json.gz")


@functools.cache
def timings() -> dict[str, list[list[float]]]:
    """Return seconds of each unit, for each run of each kind of work."""
    found: dict[str, list[list[float]]] = json.loads(gzip.decompress(FILE.read_bytes())) if FILE.exists() else {}
    return found


def recorded(name: str) -> Family:
    """The runs of one kind of work, in an order that the seed decides."""

    def family(rng: random.Random) -> Draw:
        runs = list(timings()[name])
        rng.shuffle(runs)

        def run(number: int) -> Run:
            times = runs[number % len(runs)]
            stretch = STRETCH if sum(times) < QUICK else 1.0
            return plain(seconds * stretch for seconds in times)

        return run

    return family
