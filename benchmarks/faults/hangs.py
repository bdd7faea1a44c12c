"""Threads that hang, each in a way of its own."""

from __future__ import annotations

import itertools
import queue
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import otel_progress as progress
from benchmarks.faults.job import Job


def deadlock(job: Job) -> None:
    """Two threads that each hold the lock that the other one wants."""
    limit = job.limit()
    first, second = threading.Lock(), threading.Lock()
    both = threading.Barrier(2)

    def other() -> None:
        with second:
            both.wait()
            with first:
                raise AssertionError("two threads have one lock")

    threading.Thread(target=other, daemon=True).start()
    with job.operation("deadlock", stall_after=limit) as operation:
        job.begin(operation)
        job.work(operation, job.some(1, 3))
        with first:
            both.wait()
            job.stuck(operation, limit, "deadlock")
            with second:  # stuck: deadlock
                job.advance(operation)


def endless_loop(job: Job) -> None:
    """A loop in Python that never ends, and is busy."""
    limit = job.limit()
    with job.operation("endless loop", stall_after=limit) as operation:
        job.begin(operation)
        job.work(operation, job.some(1, 3))
        job.stuck(operation, limit, "endless loop")
        number = 27
        while number:  # stuck: endless loop
            number = number // 2 if number % 2 == 0 else 3 * number + 1  # stuck: endless loop


def sleeping_io(job: Job) -> None:
    """A server that accepts the connection and never answers."""
    limit = job.limit()
    with socket.create_server(("127.0.0.1", 0)) as server, job.operation("fetch", stall_after=limit) as operation:
        job.begin(operation)
        job.work(operation, job.some(1, 3))
        with socket.create_connection(server.getsockname()) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            job.stuck(operation, limit, "sleeping io")
            connection.recv(1024)  # stuck: sleeping io


def child_that_hangs(job: Job) -> None:
    """A command that never returns, and was not declared as a wait."""
    limit = job.limit()
    with job.operation("convert", stall_after=limit) as operation:
        job.begin(operation)
        job.work(operation, job.some(1, 3))
        command = [sys.executable, "-c", "import time; time.sleep(600)"]
        job.stuck(operation, limit, "child that hangs")
        subprocess.run(command, check=True)  # stuck: child that hangs


def empty_queue(job: Job) -> None:
    """A consumer whose producer died."""
    limit = job.limit()
    items: queue.Queue[int] = queue.Queue()
    for number in range(20):
        items.put(number)
    with job.operation("consume", stall_after=limit, total=100) as operation:
        job.begin(operation)
        while True:
            if items.empty():
                job.stuck(operation, limit, "empty queue")
            items.get()  # stuck: empty queue
            job.advance(operation)
            time.sleep(0.1)


def stuck_stage(job: Job) -> None:
    """A stage with a limit of its own, in an operation that allows more."""
    limit = job.limit()
    with job.operation("pipeline", stall_after=60.0, plan=["load", "train"]) as operation:
        job.begin(operation)
        with progress.stage("load", total=10):
            job.work(operation, job.some(1, 3))
        with progress.stage("train", stall_after=limit):
            job.advance(operation)
            job.stuck(operation, limit, "stuck stage")
            threading.Event().wait()  # stuck: stuck stage


def stuck_worker(job: Job) -> None:
    """A worker of a pool hangs, and the operation waits for it."""
    limit = job.limit()

    def worker(number: int) -> None:
        if number == 30:
            job.stuck(operation, limit, "stuck worker")
            threading.Event().wait()  # stuck: stuck worker
        job.advance(operation)
        time.sleep(0.05)

    with job.operation("map", stall_after=limit) as operation:
        job.begin(operation)
        with ThreadPoolExecutor(1) as pool:
            for done in [pool.submit(progress.carry(worker), number) for number in range(40)]:
                done.result()


def long_pause(job: Job) -> None:
    """It hangs for longer than allowed, and then continues."""
    limit = job.limit()
    with job.operation("long pause", stall_after=limit) as operation:
        job.begin(operation)
        job.work(operation, job.some(1, 2))
        job.stuck(operation, limit, "long pause", last=False)
        time.sleep(limit + 3 + job.some(0, 3))  # stuck: long pause
        job.begin(operation)
        job.work(operation, limit / 2 + 4)
        job.end(operation)


def stuck_twice(job: Job) -> None:
    """It hangs, continues, and hangs at another line."""
    limit = job.limit()
    with job.operation("stuck twice", stall_after=limit) as operation:
        job.begin(operation)
        job.work(operation, 1)
        job.stuck(operation, limit, "stuck first", last=False)
        time.sleep(limit + 3)  # stuck: stuck first
        job.begin(operation)
        job.work(operation, limit / 2 + 4)
        job.stuck(operation, limit, "stuck again")
        any(map(time.sleep, itertools.repeat(600)))  # stuck: stuck again


def never_began(job: Job) -> None:
    """It hangs before the first unit is done."""
    limit = job.limit()
    with job.operation("never began", stall_after=limit, total=10) as operation:
        job.say(operation, "silent", limit, mark="never began", last=True)
        threading.Semaphore(0).acquire()  # stuck: never began


def heartbeats_only(job: Job) -> None:
    """A thread sends heartbeats, which do not count, while the work hangs."""
    limit = job.limit()
    with job.operation("heartbeats only", stall_after=limit) as operation:
        job.begin(operation)
        job.work(operation, job.some(1, 2))

        def beat() -> None:
            while True:
                operation.heartbeat(busy=True)
                operation.note("still there")
                time.sleep(0.5)

        threading.Thread(target=beat, daemon=True).start()
        job.stuck(operation, limit, "heartbeats only")
        threading.Event().wait()  # stuck: heartbeats only
