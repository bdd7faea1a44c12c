"""The operation is open around the event loop: `outside.py SHAPE`."""

import asyncio
import sys

import otel_progress as progress


async def ask():
    await asyncio.Event().wait()  # run


async def many():
    await asyncio.gather(asyncio.sleep(0), ask())


with progress.operation("job"):
    if sys.argv[1] == "run":
        asyncio.run(many())
    else:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(many())
