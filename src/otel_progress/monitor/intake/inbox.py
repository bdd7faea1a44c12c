"""The way from the receivers to the core's thread: requests are queued, taken in turns, or refused and counted."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from otel_progress import clock
from otel_progress.monitor.intake.rate_limit import RateLimit
from otel_progress.monitor.intake.request_queue import (
    ALONE,
    FULL,
    LATE,
    TURN_BYTES,
    TURN_REQUESTS,
    TURN_SECONDS,
    Job,
    RequestQueue,
)
from otel_progress.monitor.intake.requests import LARGEST, Done, Envelope, Refused, Sender

GATHER: Final = 0.005
"""Seconds from one turn to the next: requests that arrive together share a transaction."""
BEHIND: Final = 3.0
"""Seconds that requests may wait before nobody counts as dead any more: a sign of life may be among them."""
REASONS: Final = ("no_room", "too_fast", "client_gone", "too_large", "records")
"""Why requests are not accepted; `records` counts records in accepted requests that hold too much."""


class Inbox:
    """Hands requests from any thread to one thread.

    Attributes:
        queue: the requests that wait.
        limit: how many requests a client may send.
        dropped: how many requests were not accepted, by reason; see `REASONS`.
        refused: how many requests were refused.
    """

    def __init__(self, on_deaf: Callable[[float], None]) -> None:
        """`on_deaf` is called with the time when something may not have been heard."""
        self.queue = RequestQueue()
        self.limit = RateLimit()
        self.dropped = Counter[str]()
        self.refused = 0
        self._on_deaf = on_deaf
        self._ready = threading.Condition()
        self._stopped = self._woken = False
        self._behind_since: float | None = None
        self._turned_at = 0.0

    def stop(self) -> None:
        """Accept no more; what waits is still taken."""
        with self._ready:
            self._stopped = True
            self._ready.notify()

    def wake(self) -> None:
        """Let `wait` return, although nothing was received."""
        with self._ready:
            self._woken = True
            self._ready.notify()

    def offer(self, envelope: Envelope, done: Done, own: bool) -> None:
        """Queue a request.

        Raises:
            Refused: if it is too large, if its client sends too many, or if there is no room.
        """
        size = len(envelope.body)
        if size > LARGEST:
            self.dropped["too_large"] += 1
            raise Refused(413, f"a request may have {LARGEST} bytes, this one has {size}; send smaller batches")
        with self._ready:
            if self._stopped:
                raise Refused(503, "the monitor is shutting down", 1)
            self._check_rate(envelope.sender)
            try:
                out = self.queue.put(Job(envelope, done, own))
            except Refused:
                self._has_no_room()
                raise
            self._ready.notify()
        for job in out:
            self._has_no_room()
            job.done(Refused(429, FULL, 1))

    def _check_rate(self, sender: Sender) -> None:
        if sender.address is None:
            return
        after = self.limit.take((sender.token, sender.address), clock.monotonic())
        if after is not None:
            self.refused += 1
            self.dropped["too_fast"] += 1
            raise Refused(
                429, f"one client may send {self.limit.rate:g} requests per second; send larger batches", after
            )

    def _has_no_room(self) -> None:
        self.refused += 1
        self.dropped["no_room"] += 1
        self._on_deaf(clock.monotonic())

    def wait(self, until: float) -> bool:
        """Wait for requests, or until it is woken; returns False once it is stopped and empty."""
        with self._ready:
            self._ready.wait_for(self._has_work, max(0.0, until - clock.monotonic()))
            self._woken = False
            return bool(self.queue) or not self._stopped

    def gather(self) -> None:
        """Wait until the last turn was a moment ago, or enough requests wait for a turn."""
        with self._ready:
            pause = self._turned_at + GATHER - clock.monotonic()
            if pause > 0:
                self._ready.wait_for(lambda: self._stopped or len(self.queue) >= TURN_REQUESTS, pause)
        self._turned_at = clock.monotonic()

    def _has_work(self) -> bool:
        return bool(self.queue) or self._stopped or self._woken

    def turn(self, taken: list[Job], most_cost: float = math.inf) -> Iterator[Job]:
        """Take requests until they cost so much that others should be answered first; appends them to `taken`.

        Where the next one costs more than `most_cost`, it waits for another turn, and a large one begins a turn.
        """
        spent, until = 0, clock.monotonic() + TURN_SECONDS
        while len(taken) < TURN_REQUESTS and spent < TURN_BYTES and clock.monotonic() <= until:
            with self._ready:
                job = self.queue.pop(min(most_cost, ALONE) if taken else most_cost)
            if job is None:
                return
            if job.envelope.sender.is_gone():
                self._drop(job)
                continue
            spent += job.envelope.cost
            taken.append(job)
            yield job

    def _drop(self, job: Job) -> None:
        """Nobody waits for the answer: a sender that wants the request to be stored sends it again."""
        self.dropped["client_gone"] += 1
        now = clock.monotonic()
        if now - job.since > LATE:
            self._on_deaf(now)
        job.done(Refused(408, "the connection was closed before the request was taken"))

    def note_delay(self) -> None:
        """Notice that requests have been waiting for too long; to be called after each turn."""
        if not self.queue:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = clock.monotonic()
        elif clock.monotonic() - self._behind_since > BEHIND:
            self._on_deaf(clock.monotonic())

    def statistics(self) -> dict[str, int]:
        """How many requests wait, and how many requests and records were not accepted, in all and by reason."""
        return {
            "waiting": len(self.queue),
            "refused": self.refused,
            **{reason: self.dropped[reason] for reason in REASONS},
        }
