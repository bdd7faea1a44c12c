"""Rows of integrations: what a bar of tqdm or rich costs more when it is seen."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any

import rich.console
import rich.progress
import tqdm

import otel_progress as progress
from benchmarks.harness import Cost, Row, compare, full_or_short, nanoseconds, tell
from otel_progress.instrumenting import chosen

ITEMS = full_or_short(200_000, 5_000)
BARS = full_or_short(300, 20)
ROUNDS = full_or_short(30, 5)
BAR = 10e-9
"""Seconds an item that a loop over tqdm may cost more."""
NOWHERE = io.StringIO()


def seen_or_not(work: Callable[[], object], name: str) -> dict[str, Cost]:
    """Return the cost of some work with an integration and without, in turn."""

    def run(asked: str) -> Callable[[], object]:
        def once() -> None:
            chosen.start(asked)
            work()

        return once

    try:
        with progress.operation("bars"):
            return compare({"plain": run("none"), "seen": run(name)}, ROUNDS)
    finally:
        chosen.stop()


def loop_of(bar: Callable[[Any], Iterable[Any]]) -> Callable[[], None]:
    def run() -> None:
        for _ in bar(items):
            pass

    items = list(range(ITEMS))
    return run


def loop_row(what: str, name: str, bar: Callable[[Any], Iterable[Any]]) -> Row:
    """Return the row of a loop, an item."""
    costs = seen_or_not(loop_of(bar), name)
    more = costs["seen"].over(costs["plain"], ITEMS)
    plain = costs["plain"].least / ITEMS
    return Row(
        f"a loop over {what}, seen",
        f"{nanoseconds(more)} more",
        f"{BAR * 1e9:.0f} ns an item more",
        f"{what} itself {plain * 1e9:.1f}",
        more.least <= BAR,
    )


def bar_row() -> Row:
    """Return the row of a bar of no items."""

    def bars() -> None:
        for _ in range(BARS):
            for _ in tqdm.tqdm((), file=NOWHERE):
                pass

    costs = seen_or_not(bars, "tqdm")
    more = costs["seen"].over(costs["plain"], BARS)
    plain = costs["plain"].least / BARS
    return Row(
        "a bar of tqdm, seen",
        f"{more.least * 1e6:.1f} µs more",
        "50 µs more",
        f"tqdm itself {plain * 1e6:.1f}",
        more.least <= 50e-6,
    )


def rows() -> list[Row]:
    """Return all rows."""
    console = rich.console.Console(file=io.StringIO(), force_terminal=False)
    return [
        loop_row("tqdm", "tqdm", lambda items: tqdm.tqdm(items, file=NOWHERE)),
        loop_row("tqdm with `disable=True`", "tqdm", lambda items: tqdm.tqdm(items, disable=True)),
        loop_row("rich", "rich", lambda items: rich.progress.track(items, total=ITEMS, console=console)),
        bar_row(),
    ]


if __name__ == "__main__":
    tell(*rows())
