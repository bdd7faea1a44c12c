"""Row of the decorator in a process without an SDK."""

from __future__ import annotations

import otel_progress as progress
from benchmarks.harness import Row, compare, full_or_short, microseconds, tell

CALLS = full_or_short(2_000, 500)


def work(number: int) -> int:
    return number


@progress.operation("work")
def watched(number: int) -> int:
    return number


def bare() -> None:
    for _ in range(CALLS):
        work(1)


def ours() -> None:
    for _ in range(CALLS):
        watched(1)


if __name__ == "__main__":
    costs = compare({"bare": bare, "ours": ours}, full_or_short(300, 20))
    cost = costs["ours"].over(costs["bare"], CALLS)
    tell(
        Row(
            "decorator, without SDK",
            f"{microseconds(cost)} (median {cost.median * 1e6:.2f})",
            "1.5 µs over the bare call",
            f"the bare call {microseconds(costs['bare'].over(type(cost)(0, 0), CALLS))}",
            cost.least <= 1.5e-6,
        )
    )
