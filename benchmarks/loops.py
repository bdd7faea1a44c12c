"""Rows of `track` and `advance`: cost per item above a bare loop."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import progressbar
import rich.console
import rich.progress
import tqdm
import tqdm.asyncio

import otel_progress as progress
from benchmarks.harness import Cost, Row, compare, full_or_short, nanoseconds, tell

ITEMS = full_or_short(200_000, 5_000)
ROUNDS = full_or_short(30, 5)
NOWHERE = io.StringIO()
Source = Callable[[], Iterable[Any]]


def squares(count: int) -> Iterator[int]:
    for number in range(count):  # noqa: UP028  a generator of Python is the point
        yield number


async def aisle(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


def trackers() -> dict[str, Callable[[Any], Iterable[Any]]]:
    console = rich.console.Console(file=io.StringIO(), force_terminal=False)
    return {
        "bare": lambda items: items,
        "ours": progress.track,
        "tqdm": lambda items: tqdm.tqdm(items, file=NOWHERE),
        "tqdm disabled": lambda items: tqdm.tqdm(items, disable=True),
        "rich": lambda items: rich.progress.track(items, total=ITEMS, console=console),
        "progressbar2[fast]": lambda items: progressbar.progressbar(items, max_value=ITEMS, fd=NOWHERE),
    }


def over_bare(source: Source) -> dict[str, Cost]:
    """Return nanoseconds per item above a bare loop, by library."""

    def loop(tracker: Callable[[Any], Iterable[Any]]) -> Callable[[], None]:
        def run() -> None:
            for _ in tracker(source()):
                pass

        return run

    costs = compare({name: loop(tracker) for name, tracker in trackers().items()}, ROUNDS)
    return {name: cost.over(costs["bare"], ITEMS) for name, cost in costs.items() if name != "bare"}


def row(what: str, sources: dict[str, Source], bar: float) -> Row:
    """Return one row for several kinds of iterables; the bar applies to the slowest."""
    results = {kind: over_bare(source) for kind, source in sources.items()}
    ours = ", ".join(f"{kind} {nanoseconds(costs['ours'])}" for kind, costs in results.items())
    names = [name for name in next(iter(results.values())) if name != "ours"]
    least = {name: min(costs[name].least for costs in results.values()) for name in names}
    worst = max(costs["ours"].least for costs in results.values())
    met = worst <= bar and (bar > 3e-9 or worst <= min(least.values()))
    peers = ", ".join(f"{name} {value * 1e9:.1f}" for name, value in least.items())
    return Row(what, ours, f"{bar * 1e9:.0f} ns an item" + ("; no peer faster" if bar <= 3e-9 else ""), peers, met)


def async_row() -> Row:
    async def bare() -> None:
        async for _ in aisle(ITEMS):
            pass

    async def ours() -> None:
        async for _ in progress.track(aisle(ITEMS)):
            pass

    async def peer() -> None:
        async for _ in tqdm.asyncio.tqdm(aisle(ITEMS), file=NOWHERE):
            pass

    loop = asyncio.new_event_loop()
    with progress.operation("async"):
        costs = compare(
            {fn.__name__: (lambda fn=fn: loop.run_until_complete(fn())) for fn in (bare, ours, peer)}, ROUNDS
        )
    loop.close()
    cost, other = costs["ours"].over(costs["bare"], ITEMS), costs["peer"].over(costs["bare"], ITEMS)
    return Row(
        "`track` over an async iterator",
        nanoseconds(cost),
        "100 ns an item",
        f"tqdm {other.least * 1e9:.1f}",
        cost.least <= 100e-9,
    )


def advance_row() -> Row:
    bar, table = tqdm.tqdm(file=NOWHERE), rich.progress.Progress(console=rich.console.Console(file=NOWHERE))
    task = table.add_task("x", total=None)
    old = progressbar.ProgressBar(max_value=progressbar.UnknownLength, fd=NOWHERE).start()
    numbers = range(ITEMS)

    def times(step: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            for _ in numbers:
                step()

        return run

    with progress.operation("advance") as operation, operation.stage("count") as stage:

        def ours() -> None:
            for _ in numbers:
                stage.advance()

        def bare() -> None:
            for _ in numbers:
                pass

        costs = compare(
            {
                "bare": bare,
                "ours": ours,
                "tqdm.update": times(bar.update),
                "rich advance": times(lambda: table.advance(task)),
                "progressbar2 increment": times(old.increment),
            },
            full_or_short(20, 3),
        )
    base = costs.pop("bare")
    each = {name: cost.over(base, ITEMS) for name, cost in costs.items()}
    ours_ = each.pop("ours")
    peers = ", ".join(f"{name} {cost.least * 1e9:.0f}" for name, cost in each.items())
    return Row("`advance()` on a handle", nanoseconds(ours_), "35 ns", peers, ours_.least <= 35e-9)


def main() -> None:
    data = list(range(ITEMS))
    same = tuple(data)
    fixed: dict[str, Source] = {"list": lambda: data, "tuple": lambda: same, "range": lambda: range(ITEMS)}
    mapping = dict.fromkeys(data)
    free: dict[str, Source] = {
        "generator": lambda: squares(ITEMS),
        "dict": lambda: mapping,
        "map": lambda: map(abs, data),
    }
    with progress.operation("loops"):
        tell(row("`track` over list, tuple, range", fixed, 3e-9), row("`track` over any iterator", free, 8e-9))
    tell(async_row(), advance_row())


if __name__ == "__main__":
    main()
