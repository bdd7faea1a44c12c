"""Generators: the operation lasts as long as the generator, and is current only inside it."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

import otel_progress as progress
from otel_progress.handlers.console import Console


@progress.operation("collatz", total=400, unit="number")
def collatz(count: int) -> Iterator[tuple[int, int]]:
    """Yield each number whose Collatz sequence is longer than all before, with its length."""
    longest = 0
    for start in range(1, count + 1):
        for first in range(start * 500, start * 500 + 40):
            number, steps = first, 0
            while number != 1:
                number, steps = (number // 2 if number % 2 == 0 else 3 * number + 1), steps + 1
            if steps > longest:
                longest = steps
                progress.note(f"{first} takes {steps} steps")
                yield first, steps
        progress.advance()


@progress.operation("countdown", unit="tick")
async def countdown(seconds: float) -> AsyncGenerator[int, None]:
    """Yield ticks. If the consumer leaves the loop early, the operation ends as cancelled."""
    async for tick in progress.track(ticks(seconds)):
        yield tick


async def ticks(seconds: float) -> AsyncIterator[int]:
    for tick in range(int(seconds / 0.1)):
        await asyncio.sleep(0.1)
        yield tick


async def leave_early() -> None:
    stream = countdown(5)
    async for tick in stream:
        if tick == 10:
            break
    await stream.aclose()


def main() -> None:
    with Console():
        records = list(collatz(400))
        assert progress.current() is None, "the generator's operation is current only inside it"
        print(f"{len(records)} records; the longest sequence has {records[-1][1]} steps")
        asyncio.run(leave_early())


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
