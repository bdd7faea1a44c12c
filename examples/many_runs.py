"""Statistics: what one run did, and what many runs of a job have in common."""

from __future__ import annotations

import argparse
import random
import time

import otel_progress as progress


def run(seed: int) -> progress.Operation:
    """Import 300 rows from three sources; some fail, some need a second try."""
    dice = random.Random(seed)
    with progress.operation("import", total=300) as op:
        for source in ("shop", "warehouse", "archive"):
            with op.stage(f"read {source}"):
                for row in range(100):
                    time.sleep(0.0005)
                    if dice.random() < 0.03:
                        op.record("retried", component=source)
                    late = dice.random() < 0.02
                    error = TimeoutError("no answer within 5 s") if late else None
                    op.record("failed" if late else "ok", item=row, component=source, error=error)
        op.usage(input_tokens=40 * 300, cost=0.0012)
        op.result(rows=op.statistics().items.ok)
    return op


def main() -> None:
    runs = [run(seed) for seed in range(5)]
    last = runs[-1].statistics()
    print(f"last run: {last.items.ok} of {last.items.ok + last.items.failed} rows, {last.rate['item']:.0f} rows/s")
    for component, tally in last.components:
        print(f"  {component}: {tally.ok} ok, {tally.failed} failed, {tally.retried} retried")
    for message, count in last.failures:
        print(f"  {count} x {message}")
    many = progress.aggregate(runs)
    spread = many.statistics.durations
    assert spread is not None
    assert spread.p90 is not None
    print(f"{spread.count} runs: mean {spread.mean:.2f} s, 90% within {spread.p90:.2f} s; rows {many.values('rows')}")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
