"""Reads call stacks of threads and tasks thousands of times while they start, run, wait and end: `stacks.py LOOKS`.

It prints how many looks found something, and which of the job's objects are left at the end.
"""

import asyncio
import faulthandler
import gc
import queue
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor, as_completed
from multiprocessing.pool import ThreadPool

import anyio
import anyio.to_thread
import trio

from otel_progress.live.diagnosis.call_stack import here, where

faulthandler.enable()
sys.stdout.reconfigure(line_buffering=True)
sys.setswitchinterval(1e-4)

LOOKS = int(sys.argv[1])
stop = threading.Event()
places = {}
errors = []


class Kept:
    """A local variable of the job."""

    alive = 0

    def __init__(self):
        Kept.alive += 1
        weakref.finalize(self, Kept.gone).atexit = False

    @classmethod
    def gone(cls):
        """Count one down."""
        cls.alive -= 1


def deep(number):
    """Call itself, and end."""
    kept = Kept()
    places["deep", number % 7] = here()
    if number % 40:
        deep(number + 1)
    else:
        time.sleep(0)
    return kept


def numbers(count):
    """Yield slowly."""
    kept = Kept()
    for number in range(count):
        places["generator"] = here()
        yield number, kept


def in_threads(which):
    """Run short threads, deep calls and pools, one after another."""
    number = which
    while not stop.is_set():
        thread = threading.Thread(target=deep, args=(number,))
        thread.start()
        for _ in numbers(20):
            pass
        thread.join()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(deep, range(38, 42)))
            for _ in as_completed([pool.submit(deep, number) for number in range(36, 40)]):
                places["as_completed", which] = here()
        in_a_queue(which)
        with ThreadPool(2) as pool:
            pool.map(deep, range(38, 42))
        number += 1


shared = threading.RLock()


def in_a_queue(which):
    """Work behind a queue, with a lock that others want."""
    items = queue.Queue()

    def work():
        while (item := items.get()) is not None:
            places["work", which] = here()
            with shared:
                deep(item)
            items.task_done()
        items.task_done()

    worker = threading.Thread(target=work)
    worker.start()
    for item in (38, 39, None):
        items.put(item)
    places["join", which] = here()
    items.join()
    worker.join()


async def leaf(kept):
    """Wait briefly in one of several ways."""
    places["leaf", id(kept) % 11] = here()
    await asyncio.sleep(0)
    await asyncio.wait_for(asyncio.sleep(0.0005), 5)
    return kept


async def items():
    """Yield asynchronously."""
    for _ in range(3):
        places["items"] = here()
        yield await leaf(Kept())


async def nested(depth):
    """Await itself, then something slow in many ways."""
    places["nested", depth] = here()
    if depth:
        return await nested(depth - 1)
    async for _ in items():
        pass
    await asyncio.gather(*[leaf(Kept()) for _ in range(5)])
    await asyncio.shield(leaf(Kept()))
    await asyncio.wait([asyncio.ensure_future(leaf(Kept()))])
    for done in asyncio.as_completed([leaf(Kept()), leaf(Kept())]):
        await done
    await asyncio.to_thread(deep, 30)
    if sys.version_info >= (3, 11):
        async with asyncio.TaskGroup() as group:
            group.create_task(leaf(Kept()))
            group.create_task(leaf(Kept()))


async def of_anyio(lock, kept):
    """Run a task in a group of AnyIO, on either backend."""
    places["anyio", id(kept) % 11] = here()
    async with lock:
        await anyio.sleep(0)
    with anyio.move_on_after(5):
        await anyio.to_thread.run_sync(deep, 38)


async def in_groups():
    """Run groups of AnyIO tasks endlessly."""
    lock = anyio.Lock()
    while not stop.is_set():
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(of_anyio, lock, Kept())


async def in_nurseries():
    """Run tasks of trio endlessly."""
    while not stop.is_set():
        async with trio.open_nursery() as nursery:
            places["nursery", 0] = here()
            for _ in range(3):
                nursery.start_soon(of_anyio, anyio.Lock(), Kept())
            with trio.move_on_after(0.001):
                await trio.to_thread.run_sync(deep, 30)


async def in_tasks():
    """Run tasks endlessly."""
    while not stop.is_set():
        tasks = [asyncio.ensure_future(nested(depth)) for depth in (0, 5, 30)]
        cancelled = asyncio.ensure_future(nested(2))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.gather(*tasks, cancelled, return_exceptions=True)


def guarded(fn, *args):
    """Run it, and keep its error."""
    try:
        fn(*args)
    except BaseException as error:
        errors.append(repr(error))


def loop():
    """Run an event loop of its own."""
    asyncio.run(in_tasks())


def main():
    """Look while everything runs."""
    jobs = [threading.Thread(target=guarded, args=(in_threads, number)) for number in range(3)]
    jobs += [threading.Thread(target=guarded, args=(loop,)) for _ in range(2)]
    jobs += [threading.Thread(target=guarded, args=(anyio.run, in_groups)) for _ in range(2)]
    jobs += [threading.Thread(target=guarded, args=(trio.run, main)) for main in (in_groups, in_nurseries)]
    for job in jobs:
        job.start()
    found = located = 0
    longest = 0
    for number in range(LOOKS):
        every = list(places.values())
        some = every[number % len(every) :][:6] if every else []
        seen = where(some)
        if seen is not None:
            found += 1
            located += bool(seen.at)
            longest = max(longest, len(seen.stack))
    stop.set()
    for job in jobs:
        job.join(60)
    print("ended", not any(job.is_alive() for job in jobs))
    print("errors", len(errors), *errors[:3])
    print("found", found)
    print("located", located)
    print("longest", longest)
    places.clear()
    gc.collect()
    print("left", Kept.alive)
    print("frames", sum(type(thing).__name__ in {"frame", "coroutine"} for thing in gc.get_objects()))


main()
