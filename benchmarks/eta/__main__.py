"""Accuracy of the ETA beside tqdm, rich and progressbar2, under one fake clock.

python -m benchmarks.eta                    three seeds, drawn now; saved in docs/accuracy.md
python -m benchmarks.eta --seed 7           this seed only; saves nothing
python -m benchmarks.eta --only stall       only families whose name contains this; saves nothing
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Sequence

from benchmarks.eta import peers, report
from benchmarks.eta.families import FAMILIES, LONG, TENTH
from benchmarks.eta.play import OURS, play
from benchmarks.eta.runs import WEEK, Family
from benchmarks.eta.score import Scores
from benchmarks.harness import ROOT
from otel_progress.testing import capture

PAGE = ROOT / "docs" / "accuracy.md"
BEGIN, END = "<!-- eta: begin -->", "<!-- eta: end -->"
SEEDS = 3
CAREERS = 2
"""Names in each family, for each seed."""
RUNS = 5
"""Runs of each name."""
WHO = (OURS, *peers.PEERS)


def career(name: str, family: Family, rng: random.Random, runs: int, scored: set[int]) -> tuple[Scores, Scores]:
    """Run one name again and again; returns the scores of its first run, and of later ones."""
    first, again, draw = Scores(), Scores(), family(rng)
    with capture() as captured, peers.on(captured.clock):
        for number in range(runs):
            played = play(captured, draw(number), name)
            if number in scored:
                (again if number else first).add(played, WHO, OURS)
            captured.clock.sleep(WEEK if name in LONG else 60.0)
    return first, again


def measure(seed: int, names: Sequence[str], careers: int) -> dict[str, tuple[Scores, Scores]]:
    """Run one seed."""
    found = {}
    for name in names:
        rng, began = random.Random(f"{seed} {name}"), time.monotonic()
        first, again = Scores(), Scores()
        many = 1 if name in LONG else careers
        for _ in range(many):
            tenth = name in TENTH
            one, more = career(name, FAMILIES[name], rng, 10 if tenth else RUNS, {0, 9} if tenth else set(range(RUNS)))
            first.include(one)
            again.include(more)
        found[name] = first, again
        print(f"  {name}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return found


def keep(text: str) -> None:
    """Replace the text between the marks of the page."""
    head, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.eta", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, action="append", help="run this seed, keeping nothing")
    parser.add_argument("--only", action="append", metavar="TEXT", help="run only families whose name holds this")
    parser.add_argument("--short", action="store_true", help="one seed, one name in each family, keeping nothing")
    given = parser.parse_args()
    names = [name for name in FAMILIES if not given.only or any(text in name for text in given.only)]
    if not names:
        parser.error(f"no such family; there are {', '.join(FAMILIES)}")
    if given.short:
        names = [name for name in names if name not in LONG]
    os.environ["OTEL_PROGRESS_HISTORY"] = ""
    seeds = given.seed or [random.randrange(10**6) for _ in range(1 if given.short else SEEDS)]
    print(f"seeds {', '.join(map(str, seeds))}", flush=True)
    whole: dict[str, tuple[Scores, Scores]] = {name: (Scores(), Scores()) for name in names}
    began = time.monotonic()
    for seed in seeds:
        for name, (first, again) in measure(seed, names, 1 if given.short else CAREERS).items():
            whole[name][0].include(first)
            whole[name][1].include(again)
    text = report.text(whole, seeds, time.monotonic() - began)
    print(text)
    if not (given.seed or given.only or given.short):
        keep(text)


if __name__ == "__main__":
    main()
