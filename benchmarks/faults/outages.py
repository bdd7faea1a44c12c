"""Work while the Collector is away."""

from __future__ import annotations

import os
import signal
import threading
import time

from benchmarks.faults.deaths import BEATS, beat
from benchmarks.faults.job import Job


def moving(job: Job) -> None:
    """It continues to work."""
    with job.operation("moving", stall_after=job.limit()) as operation:
        job.begin(operation)
        outage = float(job.work_until_told(operation))
        job.work(operation, outage + 8)
        job.end(operation)


def stuck(job: Job) -> None:
    """It hangs in the middle of the outage."""
    limit = job.limit()
    with job.operation("stuck", stall_after=limit) as operation:
        job.begin(operation)
        job.work_until_told(operation)
        job.stuck(operation, limit, "outage")
        threading.Event().wait()  # stuck: outage


def killed(job: Job) -> None:
    """It is killed in the middle of the outage."""
    with job.operation("killed unseen", stall_after=30.0) as operation:
        job.begin(operation)
        outage = float(job.work_until_told(operation))
        job.say(operation, "dead", outage + BEATS * beat(), outside=True, last=True)
        os.kill(os.getpid(), signal.SIGKILL)


def ending(job: Job) -> None:
    """It ends in the middle of the outage; its process lives on and reports the end later."""
    with job.operation("ends unseen", stall_after=30.0) as operation:
        job.begin(operation)
        outage = float(job.work_until_told(operation))
        job.say(operation, "completed", last=True)
    time.sleep(outage + 12)
