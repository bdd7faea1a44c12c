"""The test operation of `doctor`, in its own process: configured and sent like a user's operation.

It writes what it sends, and the results, to stdout as JSON lines. Run `python -m otel_progress.cli.doctor.probe ID`.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from typing import Any, Final

from otel_progress import clock
from otel_progress.outbound import transport
from otel_progress.outbound.answer import Answer
from otel_progress.outbound.transport import Transport

NAME: Final = "otel_progress.doctor"
STEP_SECONDS: Final = 0.8
"""Seconds between two steps: long enough that each is sampled and sent by itself."""
FLUSH_SECONDS: Final = 4.0


class Recorder:
    """A transport that reports the result of each request."""

    def __init__(self, signal: str, inner: Transport) -> None:
        """Wrap another transport."""
        self._signal = signal
        self._inner = inner

    def send(self, body: bytes, timeout: float | None = None) -> Answer:
        """Send, and report the result."""
        began = clock.monotonic()
        answer = self._inner.send(body, timeout)
        say(
            "answer",
            signal=self._signal,
            delivered=answer.delivered,
            rejected=answer.rejected,
            reason=answer.reason,
            seconds=clock.monotonic() - began,
        )
        return answer

    def close(self) -> None:
        """Close connections."""
        self._inner.close()


_writing = threading.Lock()


def say(event: str, **about: Any) -> None:
    """Report to the doctor."""
    with _writing:
        sys.stdout.write(json.dumps({"event": event, **about}) + "\n")
        sys.stdout.flush()


def record() -> None:
    """Make every new transport report the results of its requests."""
    make = transport.connect
    transport.connect = lambda signal, endpoint: Recorder(signal, make(signal, endpoint))


def work(key: str) -> None:
    """Run the test operation: start it, take two steps, end it."""
    import otel_progress

    pause = threading.Event().wait
    with otel_progress.operation(NAME, id=key, total=2, unit="step", stall_after=60) as operation:
        span = operation.snapshot().span
        say(
            "started",
            at=clock.unix(),
            trace=span.trace_id if span is not None else None,
            sampled=span is not None and span.sampled,
        )
        with otel_progress.stage("check"):
            pause(STEP_SECONDS)
            operation.update(completed=1, message="half of it is done")
            pause(STEP_SECONDS)
        operation.advance()
    say("done", at=clock.unix())


def main() -> None:
    """Run the test operation."""
    parser = argparse.ArgumentParser("python -m otel_progress.cli.doctor.probe")
    parser.add_argument("id")
    parser.add_argument("--endpoint")
    parser.add_argument("--protocol")
    options = parser.parse_args()
    record()  # before what uses transports is imported
    import otel_progress

    otel_progress.configure(endpoint=options.endpoint, protocol=options.protocol)
    work(options.id)
    otel_progress.shutdown(FLUSH_SECONDS)
    say("ended", at=clock.unix())


if __name__ == "__main__":
    main()
