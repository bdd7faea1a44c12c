"""Support for fault programs: parameters drawn from the seed, and reports of the truth at each moment."""

from __future__ import annotations

import json
import random
import select
import sys
import threading
import time
from typing import Any

import otel_progress as progress


class Job:
    """One run of a fault program.

    It prints the truth as lines of JSON: from `at` on, `want` is what an observer should conclude about an operation,
    at the latest `after` seconds later. The last such line of an operation has `last`.
    """

    def __init__(self, name: str, seed: int, *, short: bool, watched: bool) -> None:
        self.name = name
        self.watched = watched
        self.short = short
        self.random = random.Random(seed)
        self._numbers = 0
        self._moved: dict[str, float] = {}
        self._lock = threading.Lock()

    # -- parameters

    def limit(self) -> float:
        """A limit in seconds."""
        return round(self.random.uniform(1.5, 2.5) if self.short else self.random.uniform(2.0, 6.0), 2)

    def some(self, low: float, high: float) -> float:
        """Return the seconds; half of them in short mode."""
        return self.random.uniform(low, high) * (0.5 if self.short else 1.0)

    def operation(self, name: str, **options: Any) -> progress.Operation:
        """Make an operation with a unique id."""
        self._numbers += 1
        return progress.operation(name, id=f"{self.name}.{self._numbers}", **options)

    # -- the truth

    def say(self, operation: progress.Operation, want: str, after: float = 0.0, **more: Any) -> None:
        """Report what is to be concluded `after` seconds from the last progress (or from `at`).

        Args:
            operation: the operation.
            want: a health, `overdue`, or a final status.
            after: in seconds.
            more: `at`, in seconds since 1970; `mark`, the name of the lines at which it hangs; `branch`, the stage
                that is in trouble; `last`; `outside` if its own process can't know; `moved` if the limit
                counts from the last progress.
        """
        if more.pop("moved", False):
            more["at"] = self._moved.get(operation.id, time.time())
        self.tell(op=operation.id, want=want, after=after, **{"at": time.time(), **more})

    def tell(self, **line: Any) -> None:
        """Print a line of JSON."""
        with self._lock:
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()

    def begin(self, operation: progress.Operation, want: str = "progressing") -> None:
        """Report that it runs from now on."""
        self.say(operation, want)

    def end(self, operation: progress.Operation, want: str = "completed") -> None:
        """Report that it is about to end."""
        self.say(operation, want, last=True)

    def stuck(self, operation: progress.Operation, limit: float, mark: str, **more: Any) -> None:
        """Report that it makes no progress after the last unit."""
        self.say(operation, "silent", limit, moved=True, mark=mark, **{"last": True, **more})

    def advance(self, operation: progress.Operation, amount: int = 1) -> None:
        """Complete a unit."""
        operation.advance(amount)
        self._moved[operation.id] = time.time()

    def work(self, operation: progress.Operation, seconds: float, pause: float = 0.2) -> None:
        """Make progress for a while."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.advance(operation)
            time.sleep(pause)
        self.advance(operation)

    def work_until_told(self, operation: progress.Operation) -> str:
        """Make progress until a line arrives."""
        self.tell(ready=True)
        while not select.select([sys.stdin], [], [], 0.2)[0]:
            self.advance(operation)
        self.advance(operation)
        return sys.stdin.readline().strip()
