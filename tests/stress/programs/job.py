"""A job that makes every API call once a round, and prints the longest duration and the result.

Arguments: seconds to run, and `sigterm` to handle SIGTERM. It also ends when a line arrives.
"""

import select
import sys
import time

import otel_progress as progress

sys.stdout.reconfigure(line_buffering=True)

seconds = float(sys.argv[1])
longest = ("nothing", 0.0)


def timed(what, call, *args, **kwargs):
    """Call it, and keep the longest duration."""
    global longest
    before = time.perf_counter()
    result = call(*args, **kwargs)
    took = time.perf_counter() - before
    if took > longest[1]:
        longest = (what, took)
    return result


progress.configure(handle_sigterm="sigterm" in sys.argv)
total = rounds = 0
end = time.monotonic() + seconds
print("begin", time.monotonic())
while rounds < 2 or time.monotonic() < end:
    rounds += 1
    operation = progress.operation("job", id=f"job-{rounds}", total=10, stall_after=5)
    timed("enter", operation.__enter__)
    stage = progress.stage("step", unit="item", total=10)
    timed("stage", stage.__enter__)
    for number in progress.track(range(10)):
        timed("advance", operation.advance)
        timed("note", progress.note, f"number {number}")
        timed("record", progress.record, "ok")
        timed("heartbeat", progress.heartbeat)
        timed("update", progress.update, message=f"at {number}")
        timed("usage", progress.usage, input_tokens=1, cost=0.1)
        total += number
    waiting = progress.waiting("a moment")
    timed("wait", waiting.__enter__)
    ready, _, _ = select.select([sys.stdin], [], [], 0.05)
    timed("wait end", waiting.__exit__, None, None, None)
    timed("result", progress.result, total=total)
    timed("snapshot", operation.snapshot)
    timed("inject", progress.inject)
    timed("stage end", stage.__exit__, None, None, None)
    timed("exit", operation.__exit__, None, None, None)
    if ready:
        break
print("result", total == rounds * 45)
print("rounds", rounds)
print("longest", longest[1], longest[0])
print("end", time.monotonic())
