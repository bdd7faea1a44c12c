"""Many pools of processes, one after another, each ended in one of the possible ways.

`STRESS_HAND_OVER` is the maximum delay of SIGTERM in seconds, for busy machines.
Arguments: a seed, how many pools, and `parent` (this process is configured, and forks inherit that) or `bare`.
Prints `done <id>` for each operation whose result arrived, and which has therefore ended.
"""

import multiprocessing
import os
import random
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import otel_progress as progress
from otel_progress.live.engine import termination

termination.SECONDS = float(os.environ.get("STRESS_HAND_OVER", termination.SECONDS))
sys.stdout.reconfigure(line_buffering=True)


def init(wanted=True):
    """Set a worker up as users do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if wanted:
        progress.configure()


def work(key):
    """Run a task of a worker; its operation has ended when its result arrives."""
    with progress.operation("task", id=key, total=2) as task, progress.stage("inside"):
        task.advance(2)
    return key


def slow(key):
    """Run a task that may be terminated."""
    with progress.operation("slow", id=key):
        time.sleep(random.random() / 20)
    return key


def keep_working(tasks, results):
    """Run a daemonic worker, which its parent terminates."""
    init()
    with progress.operation("worker", id=f"worker-{os.getpid()}-{time.time_ns()}"):
        for key in iter(tasks.get, None):
            results.put(work(key))


def inside(key, method):
    """Run a pool in a worker of a pool."""
    keys = [f"{key}.{n}" for n in range(2)]
    with multiprocessing.get_context(method).Pool(2, init) as pool:
        return [work(key), *pool.map(work, keys)]


def plain(context, size, keys, options):
    """Run `with Pool(...) as pool: pool.map(...)`."""
    with context.Pool(size, init, options) as pool:
        yield from pool.map(work, keys, chunksize=1)


def recycled(context, size, keys, options):
    """Run a pool whose workers are replaced after two tasks."""
    with context.Pool(size, init, options, maxtasksperchild=2) as pool:
        yield from pool.imap_unordered(work, keys)


def left_early(context, size, keys, options):
    """Run a pool that is left while workers are busy."""
    with context.Pool(size, init, options) as pool:
        for number, key in enumerate(pool.imap_unordered(slow, keys)):
            yield key
            if number == size:
                break


def executor(context, size, keys, options):
    """Run a ProcessPoolExecutor."""
    with ProcessPoolExecutor(size, context, init, options) as pool:
        yield from pool.map(work, keys)


def daemons(context, size, keys, _):
    """Run processes that are terminated when the last result arrives."""
    tasks, results = context.Queue(), context.Queue()
    workers = [context.Process(target=keep_working, args=(tasks, results), daemon=True) for _ in range(size)]
    for worker in workers:
        worker.start()
    for key in keys:
        tasks.put(key)
    for _ in keys:
        yield results.get()
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join()


def nested(context, size, keys, options):
    """Run pools in the workers of an executor."""
    with ProcessPoolExecutor(size, context, init, options) as pool:
        for found in pool.map(inside, keys[:2], [context.get_start_method()] * 2):
            yield from found


def loky(context, size, keys, _):
    """Run an executor of loky."""
    from loky import ProcessPoolExecutor as Loky

    with Loky(size, initializer=init) as pool:
        yield from pool.map(work, keys)


KINDS = [plain] * 6 + [recycled] * 2 + [left_early] * 2 + [executor] * 2 + [daemons] * 2 + [nested, loky]


def main():
    """Run all of them."""
    seed, count, how = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    pick = random.Random(seed)
    if how == "parent":
        progress.configure()
    multiprocessing.set_forkserver_preload(["otel_progress", "opentelemetry.sdk.trace", "requests"])
    with progress.operation("whole", id=f"whole-{seed}"):
        for number in range(count):
            kind, size = pick.choice(KINDS), pick.randint(1, 4)
            method = pick.choice(["fork"] * 6 + ["forkserver"] * 2 + ["spawn"])
            keys = [f"{seed}-{number}-{n}" for n in range(pick.randint(size, 4 * size))]
            inherits = how == "parent" and method == "fork" and pick.random() < 0.5
            for key in kind(multiprocessing.get_context(method), size, keys, (not inherits,)):
                print("done", key, kind.__name__, method)
    print("end", time.monotonic())


if __name__ == "__main__":
    main()
