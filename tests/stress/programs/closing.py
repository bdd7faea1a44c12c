"""Reads await chains of coroutines while another thread closes them, with switches of threads in between: `closing.py SECONDS`."""

import gc
import os
import sys
import threading
import time
import types

from otel_progress.live.diagnosis.awaits import chain

sys.setswitchinterval(1e-6)
newest = [None]


@types.coroutine
def pause():
    """Wait."""
    yield


async def inner():
    """Wait inside."""
    await pause()


async def outer():
    """Wait for another one."""
    await inner()


def work(*_):
    """Let other threads run, wherever the collector does."""
    for _ in range(30):
        len("x")


def close():
    """Start coroutines and close them, endlessly."""
    gc.callbacks.append(work)
    gc.set_threshold(1)
    while True:
        coroutine = outer()
        coroutine.send(None)
        newest[0] = coroutine
        coroutine.close()


threading.Thread(target=close, daemon=True).start()
end, looks = time.monotonic() + float(sys.argv[1]), 0
while time.monotonic() < end:
    if newest[0] is not None:
        chain(newest[0])
        looks += 1
print("looks", looks, flush=True)
os._exit(0)
