"""An ASGI server that configures at the start of its lifespan and shuts down at its end; work goes on meanwhile."""

import asyncio
import sys
import time
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette

import otel_progress as progress


async def background():
    """Work without an end."""
    with progress.operation("background", id="background") as operation, progress.stage("inside"):
        print("ready", flush=True)
        while True:
            await asyncio.sleep(0.01)
            operation.heartbeat()


@asynccontextmanager
async def lifespan(_):
    """Configure and shut down as in the guide."""
    progress.configure()
    task = asyncio.ensure_future(background())
    with progress.operation("done", id="done"):
        await asyncio.sleep(0)
    yield
    progress.shutdown()
    print("end", time.monotonic(), flush=True)
    task.cancel()


if __name__ == "__main__":
    uvicorn.run(Starlette(lifespan=lifespan), port=0, log_level="error")
    sys.exit(0)
