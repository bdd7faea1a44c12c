"""Stages that run once, in threads, tasks and processes, killed at random moments: each item gets its own result."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, json, random, sys, time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

import otel_progress as progress

kind, seed = sys.argv[1], int(sys.argv[2])
ITEMS = [f"i{number}" for number in range(120)]
random.Random(seed).shuffle(ITEMS)


@progress.stage("read", once=True)
def read(item):
    time.sleep(0.002)
    return f"text {item}"


@progress.stage("load", once=True)
async def load(item):
    await asyncio.sleep(0.002)
    return f"text {item}"


def page_of(item):
    with progress.stage("fetch", once=True, key=item) as fetch:
        if fetch.restored is None:
            fetch.result(page=f"page {item}")
            time.sleep(0.001)
            return f"page {item}"
        return fetch.restored["page"]


def work(item):
    with progress.stage("item", key=item):
        return item, page_of(item), read(item)


async def later(op, item, gate):
    async with gate:
        with progress.stage("item", key=item):
            check(item, page_of(item), await load(item))
        op.done(item)


def check(item, page, text):
    if (page, text) != (f"page {item}", f"text {item}"):
        print(json.dumps([item, page, text]), flush=True)


async def tasks(op):
    gate = asyncio.Semaphore(8)
    await asyncio.gather(*[later(op, item, gate) for item in progress.track(ITEMS, key=str, mark=False)])


with progress.operation("once", id=kind, resume="once.db") as op:
    if kind == "tasks":
        asyncio.run(tasks(op))
    else:
        with progress.CarryingExecutor(4) as pool:
            for item, page, text in pool.map(work, progress.track(ITEMS, key=str, mark=False)):
                check(item, page, text)
                op.done(item)
print("completed", op.attempt, op.snapshot().progress.completed, flush=True)
"""


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_results_of_killed_attempts_are_right(tmp_path: Path, kind: str) -> None:
    """In another order each time, nothing is mixed up, empty or lost, and what is left out is named."""
    (tmp_path / "job.py").write_text(PROGRAM, encoding="utf-8")
    draw = random.Random(kind)
    said: list[str] = []
    for seed in range(40):
        command = [sys.executable, "job.py", kind, str(seed)]
        job = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if seed < 6:
            time.sleep(draw.uniform(0.4, 0.9))
            job.kill()
        out, errors = job.communicate(timeout=60)
        is_to_start_again = job.returncode == 1 and "the next attempt tries them apart: start it again" in errors
        assert job.returncode in (0, -9) or is_to_start_again, errors
        said += out.splitlines()
        if job.returncode == 0:
            break
    wrong = [line for line in said if not line.startswith("completed")]
    assert [json.loads(line) for line in wrong] == []
    word, _, completed = said[-1].split()
    left_out = errors.count("leaves out")  # alone in hand at the third kill
    assert (word, int(completed) + left_out) == ("completed", 120), errors
