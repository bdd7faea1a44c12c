"""A batch of items over four stages, resumable: each item leaves a line for each stage in a file of results.

Arguments: the store, the file of results, the number of items, `one` or `pool`, and seconds that an item takes.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time

from otel_progress import operation, stage, track

STAGES = ("fetch", "parse", "check", "load")
store, results, count, mode, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], float(sys.argv[5])
items = [f"item-{number:05d}" for number in range(count)]
out = os.open(results, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def work(name: str, key: str) -> str:
    time.sleep(seconds)
    os.write(out, f"{name} {key} {hash_of(name, key)}\n".encode())
    return key


def hash_of(name: str, key: str) -> int:
    return sum(map(ord, name + key)) % 97


def fetch(key: str) -> str:
    return work("fetch", key)


def parse(key: str) -> str:
    return work("parse", key)


def check(key: str) -> str:
    return work("check", key)


def load(key: str) -> str:
    return work("load", key)


def main() -> None:
    with operation("batch", id="batch-1", resume=store) as op:
        print("begins", op.attempt, flush=True)
        for step in (fetch, parse, check, load):
            with stage(step.__name__) as st:
                if mode == "one":
                    for key in track(items, key=str):
                        step(key)
                        st.checkpoint(last=key)
                else:
                    with multiprocessing.get_context("fork").Pool(4) as pool:
                        for key in pool.imap_unordered(step, track(items, key=str, mark=False)):
                            st.done(key)
    print("completed", op.attempt, flush=True)


if __name__ == "__main__":
    main()
