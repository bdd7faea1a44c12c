"""Threads: a thread of a pool gets the current operation only through `carry` or `CarryingExecutor`."""

from __future__ import annotations

import argparse
import zlib
from concurrent.futures import ThreadPoolExecutor

import otel_progress as progress
from otel_progress.handlers.console import Console

BLOCK = bytes(range(256)) * 2048


def compress(number: int) -> int:
    """Compress a block, which releases the GIL. `advance` finds the current stage by itself."""
    size = sum(len(zlib.compress(BLOCK[round_:], 9)) for round_ in range(number % 7 + 4))
    progress.advance()
    progress.record("ok")
    return size


def main() -> None:
    with Console(), progress.operation("compress", plan=["carrying_executor", "carry", "track"], stall_after=30):
        with progress.stage("carrying_executor", total=60, unit="block"), progress.CarryingExecutor(2) as pool:
            sizes = list(pool.map(compress, range(60)))
        with progress.stage("carry", total=60, unit="block"), ThreadPoolExecutor(2) as plain:
            sizes += plain.map(progress.carry(compress), range(60))
        with progress.stage("track"):
            for size in progress.track(sizes, unit="block"):
                progress.set(last_size=size)
        progress.result(compressed=sum(sizes))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
