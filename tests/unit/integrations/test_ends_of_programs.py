"""How bars and spans end that were open when their program ended, in programs without a line of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PARTS = """
import sys, time
import otel_progress
from otel_progress.handlers.jsonlines import JsonLines
from tqdm import tqdm

def configure():
    otel_progress.configure(handlers=[JsonLines(sys.argv[1])], instrument=["tqdm", "live_spans"])

def shown(_, count=1):
    while len(otel_progress.operations()) < count:
        time.sleep(0.05)
"""
BEGIN = PARTS + "configure()"
LOOP = """
def read():
    for number in tqdm(range(50), desc="files"):
        shown(number)
        {last}
read()
"""
MOVED = """
def read():
    bar = tqdm(total=5, desc="files")
    shown(bar)
    bar.update({count})
    {last}
read()
"""
SPAN = """
from opentelemetry.sdk.trace import TracerProvider
span = TracerProvider().get_tracer("theirs").start_span("files")
shown(span)
{last}
"""


def end_of(source: str, tmp_path: Path, begin: str = BEGIN) -> dict[str, Any]:
    """Run a program; returns the end of its only operation."""
    kept = tmp_path / "events.jsonl"
    command = [sys.executable, "-c", begin + source, str(kept)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    events = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    ends: list[dict[str, Any]] = [event for event in events if event["event"] == "progress.operation.ended"]
    assert len(ends) == 1, (done.stderr, events)
    return ends[0]


PART, ALL = MOVED.replace("{count}", "1"), MOVED.replace("{count}", "5")


@pytest.mark.parametrize(
    ("source", "last", "status", "reason"),
    [
        (LOOP, "raise ValueError('no such file')", "failed", "ValueError: no such file"),
        (PART, "raise ValueError('no such file')", "failed", "ValueError: no such file"),
        (SPAN, "raise ValueError('no such file')", "failed", "ValueError: no such file"),
        (LOOP, "raise KeyboardInterrupt", "interrupted", "KeyboardInterrupt"),
        (LOOP, "break", "cancelled", "left early, after 0"),
        (PART, "sys.kept = bar", "interrupted", "the process ended"),
        (ALL, "sys.kept = bar", "completed", None),
    ],
)
def test_what_was_open_ends_as_its_program(
    source: str, last: str, status: str, reason: str | None, tmp_path: Path
) -> None:
    """By an exception that nobody caught it has failed; a bar that nobody closed has completed if all is done."""
    found = end_of(source.replace("{last}", last), tmp_path)["snapshot"]
    assert (found["name"], found["status"], found["reason"]) == ("files", status, reason)


FORKED = """
import os
child = os.fork()
if child:
    os.waitpid(child, 0)
    sys.exit()
configure()
for number in tqdm(range(2), desc="files"):
    shown(number)
os._exit(0)
"""
CHILD = """
import multiprocessing

def work():
    configure()
    for number in tqdm(range(2), desc="files"):
        shown(number)
    {last}

try:
    raise KeyError("handled by the parent")
except KeyError:
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
process.join()
"""
UNSEEN = """
import multiprocessing
from otel_progress.live import hooks

def work():
    configure()
    first, hooks.on_first = hooks.on_first, lambda: (time.sleep(1), setattr(hooks, "on_first", None))
    for number in tqdm(range(2), desc="files"):
        time.sleep(0.8)

process = multiprocessing.get_context("fork").Process(target=work)
process.start()
process.join()
"""
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")


@forks
@pytest.mark.parametrize("source", [FORKED, CHILD.replace("{last}", "pass"), UNSEEN])
def test_what_ended_in_a_forked_child_is_never_lost(source: str, tmp_path: Path) -> None:
    """Neither by `os._exit`, nor at the end of multiprocessing's own way, nor if it ended before it could be shown."""
    found = end_of(source, tmp_path, PARTS)["snapshot"]
    assert (found["name"], found["status"], found["reason"]) == ("files", "completed", None)


@forks
def test_what_a_child_left_open_by_a_crash_has_failed(tmp_path: Path) -> None:
    """With the exception that ended the child."""
    crash = CHILD.replace(
        "        shown(number)\n", "        shown(number)\n        raise ValueError('no such file')\n"
    )
    found = end_of(crash.replace("{last}", "pass"), tmp_path, PARTS)["snapshot"]
    assert (found["name"], found["status"], found["reason"]) == ("files", "failed", "ValueError: no such file")


THREAD = """
import threading
threading.excepthook = lambda args: print("theirs", args.exc_value, flush=True)

def crash():
    {work}

other = tqdm(total=2, desc="others")
thread = threading.Thread(target=crash, name="crashing")
thread.start()
thread.join()
other.update(2)
other.close()
time.sleep(1)
"""
LOOPS = """for number in tqdm(range(9), desc="files"):
        shown(number, 2)
        raise ValueError("no such file")"""
MOVES = """bar = tqdm(total=9, desc="files")
    bar.update()
    other.update()
    shown(bar, 2)
    raise ValueError("no such file")"""


@pytest.mark.parametrize("work", [LOOPS, MOVES])
def test_what_a_thread_left_open_by_a_crash_has_failed(work: str, tmp_path: Path) -> None:
    """The program goes on; another thread's bar is none of its business, even if the thread moved it."""
    kept = tmp_path / "events.jsonl"
    command = [sys.executable, "-c", BEGIN + THREAD.replace("{work}", work), str(kept)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    events = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    ends = {
        event["snapshot"]["name"]: (event["snapshot"]["status"], event["snapshot"]["reason"])
        for event in events
        if event["event"] == "progress.operation.ended"
    }
    assert ends == {"files": ("failed", "ValueError: no such file"), "others": ("completed", None)}, done.stderr
    assert done.stdout == "theirs no such file\n"


WORK = """
import concurrent.futures, multiprocessing

def work(number):
    for _ in tqdm(range(9), desc="fails" if number else "leaves"):
        shown(number)
        time.sleep(1)
        if number:
            raise ValueError("no such file")
        break
    time.sleep(2)

def begin():
    kept = f"{sys.argv[1]}.{multiprocessing.current_process().name}"
    otel_progress.configure(handlers=[JsonLines(kept)], instrument=["tqdm", "futures"])
"""
SUBMIT = """
with concurrent.futures.{pool} as pool:
    concurrent.futures.wait([pool.submit(work, number) for number in range(2)])
"""
APPLY = """
with multiprocessing.get_context("fork").Pool(2, begin) as pool:
    for given in [pool.apply_async(work, (number,)) for number in range(2)]:
        given.wait()
    pool.close()
    pool.join()
"""
POOLS = {
    "threads": SUBMIT.replace("{pool}", "ThreadPoolExecutor(2, initializer=begin)"),
    "processes": SUBMIT.replace("{pool}", "ProcessPoolExecutor(2, multiprocessing.get_context('fork'), begin)"),
    "multiprocessing": APPLY,
}


@forks
@pytest.mark.parametrize("pool", POOLS)
def test_a_loop_has_failed_whose_exception_a_pool_caught(pool: str, tmp_path: Path) -> None:
    """A loop that was left for another reason was only left."""
    kept = tmp_path / "events.jsonl"
    command = [sys.executable, "-c", PARTS + WORK + POOLS[pool], str(kept)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    events = [json.loads(line) for each in tmp_path.iterdir() for line in each.read_text().splitlines()]
    ends = {
        event["snapshot"]["name"]: (event["snapshot"]["status"], event["snapshot"]["reason"])
        for event in events
        if event["event"] == "progress.operation.ended"
    }
    assert ends == {
        "fails": ("failed", "ValueError: no such file"),
        "leaves": ("cancelled", "left early, after 0"),
    }, done.stderr


BELOW_RUN = {
    "joins": """
import threading
for thread in threading.enumerate():
    if thread is not threading.main_thread():
        thread.join()
print(threading.active_count())
""",
    "pickles": """
import os, pickle
print(1 if pickle.loads(pickle.dumps(os._exit)) is os._exit else 2)
""",
    "ends": "print(1)",
    "executes": """
import os, sys
os.execv(sys.executable, [sys.executable, "-c", "print(1)"])
""",
}


@pytest.mark.parametrize("last", BELOW_RUN)
def test_a_program_below_run_is_as_without(last: str) -> None:
    """It may wait for all of its threads, hand on `os._exit`, end within the first look at its bar, or execute another."""
    source = (
        "import time\nfrom rich.progress import Progress, TextColumn\nshown = Progress(TextColumn(''))\n"
        "for _ in shown.track(range(11)):\n    time.sleep(0.1)\n"
    )
    command = [sys.executable, "-m", "otel_progress", "run", "--", sys.executable, "-c", source + BELOW_RUN[last]]
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, check=False, env={**os.environ, **endpoint}
    )
    assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr
    assert "Traceback" not in done.stderr
