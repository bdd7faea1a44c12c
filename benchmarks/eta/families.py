"""The families of runs. Each draws what all runs of a name share, then run by run what differs."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from typing import Final

from benchmarks.eta.recorded import recorded
from benchmarks.eta.runs import Draw, Family, Run, Step, noise, plain, scale

Shape = Callable[[float, int], float]
"""Relative time of a unit, from the share of units before it (0 to 1) and its number."""


def shaped(draw_shape: Callable[[random.Random], Shape], sigma: float = 0.1) -> Family:
    """Units whose time follows a shape that all runs of a name share."""

    def family(rng: random.Random) -> Draw:
        count, seconds, shape = round(scale(rng, 40, 1500)), scale(rng, 40, 900), draw_shape(rng)

        def run(_: int) -> Run:
            many = max(20, round(count * rng.uniform(0.9, 1.1)))
            base = seconds / count * rng.uniform(0.9, 1.1)
            return plain(base * shape(i / many, i) * noise(rng, sigma) for i in range(many))

        return run

    return family


def constant(rng: random.Random) -> Draw:
    count, seconds = round(scale(rng, 40, 1500)), scale(rng, 40, 900)
    return lambda _: plain([seconds / count] * count)


def heavy(rng: random.Random) -> Draw:
    count, base, alpha = round(scale(rng, 40, 1000)), scale(rng, 0.1, 1), rng.uniform(1.3, 2.0)
    return lambda _: plain(base * rng.paretovariate(alpha) for _ in range(count))


def warm_up(rng: random.Random) -> Shape:
    factor, share = rng.uniform(3, 15), rng.uniform(0.03, 0.15)
    return lambda part, _: 1 + factor * math.exp(-part / share)


def slowing(rng: random.Random) -> Shape:
    factor = rng.uniform(1, 5)
    return lambda part, _: 1 + factor * part


def speeding(rng: random.Random) -> Shape:
    factor = rng.uniform(1, 5)
    return lambda part, _: 1 + factor * (1 - part)


def step_change(rng: random.Random) -> Shape:
    at, factor = rng.uniform(0.2, 0.8), scale(rng, 0.2, 5)
    return lambda part, _: factor if part >= at else 1.0


def sawtooth(rng: random.Random) -> Shape:
    periods, factor = rng.randint(4, 12), rng.uniform(1, 4)
    return lambda part, _: 1 + factor * ((part * periods) % 1.0)


def kinds(rng: random.Random) -> Shape:
    times = [scale(rng, 0.2, 5) for _ in range(rng.randint(2, 5))]
    return lambda _, number: times[number % len(times)]


def stall(rng: random.Random) -> Draw:
    inner = shaped(lambda _: lambda _, __: 1.0)(rng)
    size = rng.uniform(0.1, 0.5)

    def run(number: int) -> Run:
        whole = inner(number)
        at, pause = rng.uniform(0.1, 0.9) * whole.seconds, size * whole.seconds * rng.uniform(0.7, 1.3)
        steps = tuple(step if step.at < at else step._replace(at=step.at + pause) for step in whole.steps)
        return Run(steps, whole.total)

    return run


def large(rng: random.Random) -> Draw:
    count, seconds = rng.randint(4, 15), scale(rng, 5, 90)
    return lambda _: plain(seconds * noise(rng, 0.4) for _ in range(count))


def bursts(rng: random.Random) -> Draw:
    pause, size, many = scale(rng, 3, 30), rng.randint(10, 200), rng.randint(8, 40)

    def run(_: int) -> Run:
        steps, at = [], 0.0
        for _ in range(many):
            at += pause * noise(rng, 0.4)
            steps.append(Step(at, "units", size))
        return Run(tuple(steps), size * many)

    return run


def some_stages(rng: random.Random) -> list[tuple[str, int, float]]:
    """Draw stages: name, units, seconds a unit."""
    names = ("fetch", "parse", "train", "test", "publish")[: rng.randint(3, 5)]
    units = [round(scale(rng, 10, 300)) for _ in names]
    return [(name, many, scale(rng, 10, 300) / many) for name, many in zip(names, units)]


def stages(rng: random.Random) -> Draw:
    parts = some_stages(rng)

    def run(_: int) -> Run:
        steps, at = [], 0.0
        for name, many, base in parts:
            steps.append(Step(at, "begin", many, name))
            pace = base * rng.uniform(0.85, 1.15)
            for _ in range(many):
                at += pace * noise(rng, 0.2)
                steps.append(Step(at, "units", 1, name))
            steps.append(Step(at, "end", 0, name))
        return Run(tuple(steps), sum(many for _, many, _ in parts), 0, _totals(parts), "stages")

    return run


def _totals(parts: list[tuple[str, int, float]]) -> tuple[tuple[str, float], ...]:
    return tuple((name, many) for name, many, _ in parts)


def parallel(rng: random.Random) -> Draw:
    parts = some_stages(rng)

    def run(_: int) -> Run:
        steps = []
        for name, many, base in parts:
            steps.append(Step(0.0, "begin", many, name))
            at, pace = 0.0, base * rng.uniform(0.85, 1.15)
            for _ in range(many):
                at += pace * noise(rng, 0.2)
                steps.append(Step(at, "units", 1, name))
            steps.append(Step(at, "end", 0, name))
        steps.sort(key=lambda step: step.at)
        return Run(tuple(steps), sum(many for _, many, _ in parts), 0, _totals(parts), "stages")

    return run


def growing(rng: random.Random) -> Draw:
    """Work that is discovered while it is done, as by a crawler."""
    inner, first, last = shaped(lambda _: lambda _, __: 1.0, 0.3)(rng), rng.uniform(0.1, 0.4), rng.uniform(0.3, 0.8)

    def run(number: int) -> Run:
        whole = inner(number)
        assert whole.total is not None
        steps = list(whole.steps)
        for found in range(1, 21):
            at, share = whole.seconds * last * found / 20, first + (1 - first) * found / 20
            steps.append(Step(at, "total", round(whole.total * share)))
        steps.sort(key=lambda step: step.at)
        return Run(tuple(_plausible(steps)), max(1, round(whole.total * first)))

    return run


def _plausible(steps: list[Step]) -> list[Step]:
    """Let the total never fall below the count."""
    done, most, kept = 0.0, 0.0, []
    for step in steps:
        done += step.number if step.act == "units" else 0
        if step.act == "total":
            most = max(done + 1, step.number)
            kept.append(step._replace(number=most))
        else:
            if most and done > most:
                most = done + 1
                kept.append(Step(step.at, "total", most))
            kept.append(step)
    return kept


def queue(rng: random.Random) -> Draw:
    """Each unit may add another one, until the end, as in a crawl of a site or a queue with a producer."""
    first, base, more = round(scale(rng, 30, 150)), scale(rng, 0.2, 2), rng.uniform(0.3, 0.8)

    def run(_: int) -> Run:
        steps, at, done, total = [], 0.0, 0, first
        while done < total:
            at += base * noise(rng, 0.4)
            if rng.random() < more:
                total += 1
                steps.append(Step(at, "total", total))
            done += 1
            steps.append(Step(at, "units", 1))
        return Run(tuple(steps), first)

    return run


def agent(rng: random.Random) -> Draw:
    """Steps of an agent: tools that take a second, or a minute."""
    count, base, sigma = rng.randint(8, 30), scale(rng, 4, 12), rng.uniform(0.8, 1.3)
    return lambda _: plain(base * noise(rng, sigma) for _ in range(count))


def pool(rng: random.Random) -> Draw:
    """Some workers that take the next task each, of very different lengths; the last ones run alone."""
    count, workers, base = rng.randint(40, 200), rng.randint(4, 12), scale(rng, 4, 20)

    def run(_: int) -> Run:
        free, ends = [0.0] * workers, []
        for _ in range(count):
            at = heapq.heappop(free) + base * noise(rng, 1.0)
            heapq.heappush(free, at)
            ends.append(at)
        return Run(tuple(Step(at, "units", 1) for at in sorted(ends)), count)

    return run


def moved(rng: random.Random) -> Draw:
    """From the third run on, the work is on another machine, some times as fast or as slow."""
    inner, factor = shaped(lambda _: lambda _, __: 1.0, 0.3)(rng), rng.choice((1.0, -1.0)) * rng.uniform(0.7, 1.4)

    def run(number: int) -> Run:
        whole, other = inner(number), 1.0 if number < 2 else math.exp(factor)
        return Run(tuple(step._replace(at=step.at * other) for step in whole.steps), whole.total)

    return run


def resume(rng: random.Random) -> Draw:
    count, base = round(scale(rng, 100, 2000)), scale(rng, 0.1, 1)

    def run(_: int) -> Run:
        done = round(count * rng.uniform(0.2, 0.8))
        return plain((base * noise(rng, 0.3) for _ in range(count - done)), restored=done)

    return run


def children(kind: str) -> Family:
    """A parent whose units are children of their own; two run at a time."""

    def family(rng: random.Random) -> Draw:
        count, many, base = rng.randint(4, 12), round(scale(rng, 20, 200)), scale(rng, 10, 60)

        def run(_: int) -> Run:
            steps, free, parts = [], [0.0, 0.0], []
            for number in range(count):
                name, at = f"part-{number}", min(free)
                lane, pace = free.index(at), base / many * noise(rng, 0.4)
                steps.append(Step(at, "begin", many, name))
                for _ in range(many):
                    at += pace * noise(rng, 0.2)
                    steps.append(Step(at, "units", 1, name))
                steps.append(Step(at, "end", 0, name))
                free[lane] = at
                parts.append((name, float(many)))
            steps.sort(key=lambda step: step.at)
            return Run(tuple(steps), count, 0, tuple(parts), kind)

        return run

    return family


def unknown(rng: random.Random) -> Draw:
    inner, known = shaped(lambda _: lambda _, __: 1.0, 0.3)(rng), rng.uniform(0.1, 0.5)

    def run(number: int) -> Run:
        whole = inner(number)
        assert whole.total is not None
        steps = [*whole.steps, Step(whole.seconds * known, "total", whole.total)]
        steps.sort(key=lambda step: step.at)
        return Run(tuple(steps), None)

    return run


def weekly(rng: random.Random) -> Draw:
    """A job of an hour or two, which grows a little each week and whose pace drifts the same way each time."""
    count, seconds = rng.randint(300, 900), rng.uniform(3000, 7000)
    factor, growth = rng.uniform(0.5, 3), rng.uniform(1.0, 1.03)

    def run(number: int) -> Run:
        many = round(count * growth**number)
        pace = seconds / count * noise(rng, 0.05)
        return plain(pace * (1 + factor * (i / many) ** 2) * noise(rng, 0.3) for i in range(many))

    return run


def nightly(rng: random.Random) -> Draw:
    """Any mix of warm-up, drift, and a slow end; the same for each run of a name."""
    first, then, tail = warm_up(rng), rng.choice((slowing, speeding))(rng), scale(rng, 0.3, 4)
    return shaped(lambda _: lambda part, i: first(part, i) * then(part, i) * (tail if part > 0.8 else 1.0), 0.3)(rng)


FAMILIES: Final[dict[str, Family]] = {
    "constant pace": constant,
    "noisy": shaped(lambda _: lambda _, __: 1.0, 0.6),
    "heavy-tailed items": heavy,
    "warm-up": shaped(warm_up),
    "slowing down": shaped(slowing),
    "speeding up": shaped(speeding),
    "step change": shaped(step_change),
    "one long stall": stall,
    "few large items": large,
    "bursts": bursts,
    "sawtooth": shaped(sawtooth),
    "kinds in turn": shaped(kinds),
    "stages of different pace": stages,
    "parallel stages": parallel,
    "growing total": growing,
    "queue with a producer": queue,
    "steps of an agent": agent,
    "pool of workers": pool,
    "another machine": moved,
    "resumed": resume,
    "child operations": children("children"),
    "total known late": unknown,
    "hours, once a week": weekly,
    "tenth run of a name": nightly,
    **{f"recorded: {name}": recorded(name) for name in ("compiling files", "parsing files", "tests", "downloads")},
}
INDEPENDENT: Final = {
    *("constant pace", "noisy", "heavy-tailed items", "few large items", "bursts", "one long stall"),
    *("steps of an agent", "pool of workers"),
}
"""Families in which earlier runs say little: noise is drawn anew in each run."""
TENTH: Final = {"tenth run of a name"}
"""Families in which the first and the tenth run count."""
LONG: Final = {"hours, once a week"}
