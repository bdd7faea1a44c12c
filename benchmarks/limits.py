"""Accuracy of learned limits: false alarms in healthy work, and the delay until a hang is reported; simulated.

python -m benchmarks.limits            10,000 runs of each kind of work, some minutes; saved in docs/accuracy.md
python -m benchmarks.limits --short    some hundred runs of each; saves nothing

A *career* is a series of runs of one name, each with what the earlier ones taught. Each pause of a run is compared
with the limit of that moment; then the run hangs once, at a random moment, and the limit is the delay.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from benchmarks.harness import ROOT
from otel_progress.model.history import EVERY, SHORT, Durations, Learned, Seen

PAGE: Final = ROOT / "docs" / "accuracy.md"
BEGIN, END = "<!-- limits: begin -->", "<!-- limits: end -->"
CAREER: Final = 25
"""Runs of one name."""
Moves = Iterator[tuple[float, float]]
"""Seconds without progress, and the units completed after them; no units mean the end of the run."""
Work = Callable[[random.Random], Callable[[int], Moves]]
"""Draws the parameters of a career, and returns a function that draws its runs by number."""


# -- healthy work


def units(count: int, draw: Callable[[], float], last: float = 0.0) -> Moves:
    """Yield units, then a last pause before the end; quick units are seen once a second, as by the ticker."""
    passed = done = 0.0
    for _ in range(count):
        gap = draw()
        if gap < SHORT:
            passed, done = passed + gap, done + 1
            if passed >= EVERY:
                yield passed, done
                passed = done = 0.0
        else:
            if done:
                yield passed, done
            yield gap, 1.0
            passed = done = 0.0
    if done:
        yield passed, done
    yield last, 0.0


def go_on(*parts: Moves) -> Moves:
    """Chain parts, with one end."""
    for part in parts:
        yield from (move for move in part if move[1])
    yield 0.01, 0.0


def scale(rng: random.Random, low: float, high: float) -> float:
    """Draw a parameter of which only the order of magnitude is known."""
    return low * (high / low) ** rng.random()


def each(draw: Callable[[random.Random], float], low: float = 0.02, high: float = 5.0) -> Work:
    """Units with times of the same distribution."""

    def career(rng: random.Random) -> Callable[[int], Moves]:
        size, many = scale(rng, low, high), rng.randint(100, 600)
        return lambda _: units(many, lambda: size * draw(rng))

    return career


def jitter(rng: random.Random, size: float) -> float:
    """Steady work."""
    return size * rng.uniform(0.7, 1.3)


def bursts(rng: random.Random) -> Callable[[int], Moves]:
    """Nothing for a while, then hundreds at once."""
    pause = scale(rng, 3, 60)

    def run(_: int) -> Moves:
        for _ in range(rng.randint(5, 40)):
            yield pause * rng.lognormvariate(0, 0.4), 300.0
        yield 0.1, 0.0

    return run


def phases(slower: float, *, again: bool) -> Work:
    """A quick phase, then one that is slower by this factor; once, or alternating."""

    def career(rng: random.Random) -> Callable[[int], Moves]:
        size = scale(rng, 0.02, 5)

        def run(_: int) -> Moves:
            parts = []
            for _ in range(rng.randint(2, 4) if again else 1):
                parts.append(units(rng.randint(50, 400), lambda: jitter(rng, size)))
                parts.append(units(rng.randint(10, 60), lambda: jitter(rng, size * slower)))
            return go_on(*parts)

        return run

    return career


def upload(rng: random.Random) -> Callable[[int], Moves]:
    """300 units, then one that takes 20 to 45 s."""
    size = scale(rng, 0.02, 1)
    return lambda _: go_on(units(300, lambda: jitter(rng, size)), iter([(rng.uniform(20, 45), 1.0)]))


def flush(rng: random.Random) -> Callable[[int], Moves]:
    """A stage whose end takes up to 45 s, a different time in each run."""
    size, most = scale(rng, 0.02, 1), rng.uniform(10, 45)
    return lambda _: units(rng.randint(300, 800), lambda: jitter(rng, size), last=most * rng.uniform(0.3, 1))


def epochs(rng: random.Random) -> Callable[[int], Moves]:
    """Steps, and after each epoch a validation of up to 40 s that counts nothing."""
    size, pause, steps = scale(rng, 0.05, 1), scale(rng, 5, 40), rng.randint(100, 400)

    def run(_: int) -> Moves:
        parts = []
        for _ in range(rng.randint(2, 6)):
            parts.append(units(steps, lambda: jitter(rng, size)))
            parts.append(iter([(pause * rng.uniform(0.7, 1.1), 1.0)]))
        return go_on(*parts)

    return run


def collections(rng: random.Random) -> Callable[[int], Moves]:
    """One unit in 100 waits for the garbage collector, for up to 15 s."""
    size = scale(rng, 0.02, 2)
    return lambda _: units(
        rng.randint(200, 600), lambda: jitter(rng, size) + (rng.random() < 0.01) * scale(rng, 0.5, 15)
    )


def load(rng: random.Random) -> Callable[[int], Moves]:
    """In one run of ten the machine is busy: all takes up to ten times as long, with pauses of up to 30 s."""
    size = scale(rng, 0.02, 3)

    def run(_: int) -> Moves:
        busy = rng.uniform(2, 10) if rng.random() < 0.1 else 1.0
        still = 0.02 if busy > 1 else 0.0
        return units(
            rng.randint(100, 500), lambda: busy * jitter(rng, size) + (rng.random() < still) * rng.uniform(5, 30)
        )

    return run


def cached(rng: random.Random) -> Callable[[int], Moves]:
    """Up to nine first runs hit a cache; then one has its first unit after up to five minutes."""
    quick, first, size = rng.randint(1, 9), scale(rng, 10, 300), scale(rng, 0.05, 20)

    def run(number: int) -> Moves:
        if number < quick:
            return units(rng.choice((0, 300)), lambda: 0.001, last=rng.uniform(0.1, 5))
        slow = iter([(first * rng.uniform(0.8, 1.2), 1.0)])
        return go_on(slow, units(rng.randint(20, 100), lambda: jitter(rng, size)))

    return run


def cached_one_by_one(rng: random.Random) -> Callable[[int], Moves]:
    """Items hit a cache (milliseconds) or miss it (seconds), in stretches."""
    hit, miss = rng.uniform(0.3, 0.98), scale(rng, 0.5, 20)
    return lambda _: units(300, lambda: 0.005 if rng.random() < hit else miss * rng.lognormvariate(0, 0.5))


def big_steps(rng: random.Random) -> Callable[[int], Moves]:
    """A thousand units at a time."""
    size = scale(rng, 2, 120)
    return lambda _: ((gap, count * 1000.0) for gap, count in units(30, lambda: size * rng.lognormvariate(0, 0.5)))


def uncounted(rng: random.Random) -> Callable[[int], Moves]:
    """No units; runs take about the same time."""
    size = scale(rng, 1, 600)
    return lambda _: iter([(size * rng.lognormvariate(0, 0.6), 0.0)])


def uncounted_cached(rng: random.Random) -> Callable[[int], Moves]:
    """No units; about half of the runs hit a cache (50 ms)."""
    size = scale(rng, 1, 300)
    return lambda _: iter([(0.05 if rng.random() < 0.5 else size * rng.lognormvariate(0, 0.6), 0.0)])


def growing(rng: random.Random) -> Callable[[int], Moves]:
    """Each run has 10% more to do, and takes 10% longer over each unit."""
    size = scale(rng, 0.05, 2)
    return lambda number: units(int(50 * 1.1**number), lambda: jitter(rng, size * 1.1**number))


def agents(rng: random.Random) -> Callable[[int], Moves]:
    """Few units, each a call to a model or a tool: seconds, sometimes a minute."""
    size = scale(rng, 1, 15)
    return lambda _: units(rng.randint(4, 30), lambda: size * rng.lognormvariate(0, 0.9))


FAMILIES: Final[dict[str, Work]] = {
    "steady": each(lambda rng: jitter(rng, 1)),
    "exponential": each(lambda rng: rng.expovariate(1)),
    "log-normal, sigma 1": each(lambda rng: rng.lognormvariate(0, 1)),
    "log-normal, sigma 1.5": each(lambda rng: rng.lognormvariate(0, 1.5)),
    "Pareto, alpha 3": each(lambda rng: rng.paretovariate(3)),
    "Pareto, alpha 2.5": each(lambda rng: rng.paretovariate(2.5)),
    "Pareto, alpha 2": each(lambda rng: rng.paretovariate(2)),
    "bursts": bursts,
    "quick, then 10 times slower": phases(10, again=False),
    "quick and 10 times slower in turn": phases(10, again=True),
    "300 units, then one of 20 to 45 s": upload,
    "a flush of up to 45 s at the end": flush,
    "a validation of up to 40 s after each epoch": epochs,
    "garbage collections of up to 15 s": collections,
    "a busy machine in one run of ten": load,
    "up to nine first runs from a cache": cached,
    "items from a cache or not": cached_one_by_one,
    "a thousand units at a time": big_steps,
    "no unit at all": uncounted,
    "no unit at all, half from a cache": uncounted_cached,
    "each run 10% larger and slower": growing,
    "agents": agents,
}


# -- the rule before, for comparison


class Before(Learned):
    """The previous rule: at least a minute, and every gap counts the same, whatever its run."""

    def stall_after(self, seen: Seen = Seen()) -> float | None:  # noqa: B008 - it is frozen
        gaps = Durations(dict(self.gaps.counts))
        gaps.add(EVERY, seen.steady)
        if gaps.total < 1:
            return None
        learned = max(60.0, _bound(gaps))
        weight = gaps.total / (gaps.total + 50)
        return max(learned, math.exp((1 - weight) * math.log(1800) + weight * math.log(learned)))

    def slow_after(self) -> float | None:
        return max(60.0, _bound(self.durations)) if self.runs >= 5 else None


def _bound(durations: Durations) -> float:
    median = math.log(durations.quantile(0.5))
    spread = max(0.25, (math.log(durations.quantile(0.95)) - median) / 1.645)
    return max(3 * math.exp(median + 4 * spread), 1.5 * durations.longest)


# -- living through it


@dataclass
class Found:
    """The results for one kind of work.

    Attributes:
        runs: number of runs.
        alarmed: healthy runs that were called stuck.
        slow: healthy runs that were called slow.
        delays: the limit at a random moment of the first, and of the last run of each career.
    """

    runs: int = 0
    alarmed: int = 0
    slow: int = 0
    delays: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))


class Lived(NamedTuple):
    """One run: false alarms, duration, and the limit at a random moment."""

    alarms: int
    seconds: float
    delay: float


def live(known: Learned, moves: list[tuple[float, float]], hang: int) -> Lived:
    """Simulate a run and learn from it; it would hang before the move of this number."""
    units = steady = seconds = longest = 0.0
    gaps = alarms = 0
    delay = math.inf
    for number, (gap, done) in enumerate(moves):
        limit = None
        if gap > 12 or number == hang:
            limit = known.stall_after(Seen(units, steady, gaps, longest))
        if number == hang and limit is not None:
            delay = limit
        seconds += gap
        told = limit is not None and gap >= limit
        alarms += told
        taught = limit if told and limit is not None else gap
        if gap < SHORT:
            steady += gap if done else 0.0
        else:
            gaps, longest = gaps + 1, max(longest, taught)
            known.gaps.add(taught)
        units += done
    known.gaps.add(EVERY, steady if units else 0.0)
    known.ended(seconds, longest if units else seconds, counted=bool(units))
    return Lived(alarms, seconds, delay)


def measure(work: Work, rule: type[Learned], runs: int, seed: str) -> Found:
    """Simulate a number of runs of one kind of work."""
    rng, found = random.Random(seed), Found()
    for _ in range(max(1, runs // CAREER)):
        known, draw = rule(), work(rng)
        for number in range(CAREER):
            moves = list(draw(number))
            limit = known.slow_after()
            lived = live(known, moves, int(rng.random() * len(moves)))
            found.runs += 1
            found.alarmed += lived.alarms > 0
            found.slow += limit is not None and lived.seconds >= limit
            if number in (0, CAREER - 1):
                found.delays[number > 0].append(lived.delay)
    return found


def row(name: str, work: Work, runs: int, seed: int) -> str:
    """Return a row of the table: the previous rule and the current one."""
    cells = []
    for rule in (Before, Learned):
        found = measure(work, rule, runs, f"{seed} {name}")
        first, last = (_delay(statistics.median(delays)) for delays in found.delays)
        cells += [f"{found.alarmed}", f"{found.slow}", first, last]
    return f"| {name} | {' | '.join(cells)} |"


def _delay(seconds: float) -> str:
    return f"{seconds:,.0f} s" if math.isfinite(seconds) else "never"


HEAD: Final = (
    "| | before | | | | now | | | |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|\n"
    "| work | stuck | slow | first run | 25th | stuck | slow | first run | 25th |"
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help="few runs, keeping nothing")
    parser.add_argument("--seed", type=int, help="repeat a drawing, keeping nothing")
    parser.add_argument("only", nargs="*", help="kinds of work whose names hold one of these words, keeping nothing")
    given = parser.parse_args()
    seed = random.randrange(10**6) if given.seed is None else given.seed
    runs = 250 if given.short else 10_000
    lines = [f"Seed {seed}, {runs:,} healthy runs of each kind of work.\n", HEAD]
    print("\n".join(lines), flush=True)
    for name, work in FAMILIES.items():
        if not given.only or any(word in name for word in given.only):
            lines.append(row(name, work, runs, seed))
            print(lines[-1], flush=True)
    if not (given.short or given.only or given.seed is not None):
        head, _, rest = PAGE.read_text().partition(BEGIN)
        text = "\n".join(lines)
        PAGE.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
