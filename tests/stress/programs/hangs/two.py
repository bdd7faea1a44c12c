"""Two operations in one process, in parallel threads or tasks, each at its own line: `two.py SHAPE`."""

import asyncio
import sys
import threading

import otel_progress as progress


def one():
    with progress.operation("one"):
        threading.Event().wait()  # threads one


def other():
    with progress.operation("other"):
        threading.Lock().acquire() and threading.Event().wait()  # threads other


async def one_task():
    with progress.operation("one"):
        await asyncio.Event().wait()  # tasks one


async def other_task():
    with progress.operation("other"):
        await asyncio.get_running_loop().create_future()  # tasks other


async def both():
    await asyncio.gather(one_task(), other_task())


def parts():
    """Run two stages of one operation, the second in another thread."""


if sys.argv[1] == "threads":
    for work in (one, other):
        threading.Thread(target=work).start()
else:
    asyncio.run(both())
