"""What a set-up sends: plays operations by a clock of its own, and counts what the SDK would send for them.

`otel-progress doctor` and `python -m benchmarks.cost` run it as a process, as it configures the whole process and sets
its clock: `python -m otel_progress.rehearsal` plays an hour of one operation in a second or two, with the settings that
the environment names, and writes the counts as JSON. Nothing is sent.
"""

from __future__ import annotations

import argparse
import contextvars
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from otel_progress import clock, settings
from otel_progress.testing import FakeClock

if TYPE_CHECKING:
    from otel_progress.telemetry.tally import Counter, Tally

HOUR: Final = 3600.0
SPANS_EACH: Final = 5.0
"""Seconds between two exports of ended spans, the default of the OpenTelemetry SDK."""


@dataclass(frozen=True)
class Work:
    """Operations that count one unit a second in the running one of their stages, one stage after the other.

    Attributes:
        stages: stages of each operation, equally long; each knows its total.
        seconds: how long an operation takes; at its end the next one starts.
        at_once: operations that run side by side in the process.
        lasts: how long all of it is played, in seconds.
    """

    stages: int = 10
    seconds: int = 3600
    at_once: int = 1
    lasts: int = 3600


def rehearse(work: Work, *, endpoint: str | None = None, protocol: str | None = None) -> dict[str, Tally]:
    """Play the work, and return what was sent by signal; for a process of its own, as it changes all of it.

    The arguments are those of `configure()`, and whatever receives is taken for a Collector.
    """
    from otel_progress.outbound import transport
    from otel_progress.telemetry.tally import Counter

    counters = {signal: Counter(signal) for signal in settings.SIGNALS}
    # Before the modules are imported that use it.
    transport.connect = lambda signal, endpoint: counters[signal]  # noqa: ARG005
    from otel_progress.live.engine import process
    from otel_progress.telemetry import setup

    fake = FakeClock()
    clock.install(fake)
    process.threads_allowed = False
    setup.configure(endpoint=endpoint, protocol=protocol)
    play(work, fake, counters)
    setup.shutdown()
    for counter in counters.values():
        counter.end_hour()
    return {signal: counter.tally for signal, counter in counters.items()}


def play(work: Work, fake: FakeClock, counters: dict[str, Counter]) -> None:
    """Let the time of the work pass: jobs act once a second, the ticker and the exporters when it is their turn."""
    from otel_progress.live.engine import runtime
    from otel_progress.live.engine.ticker import ROUNDS
    from otel_progress.telemetry import setup

    jobs = [(contextvars.Context(), _job(work)) for _ in range(work.at_once)]
    began, pace = fake.monotonic(), runtime.ticker.interval / ROUNDS
    rounds = second = exports = 0
    while second <= work.lasts:
        due = min(second, (rounds + 1) * pace)
        fake.sleep(max(0.0, began + due - fake.monotonic()))
        if due >= second:
            for context, job in jobs:
                context.run(next, job, None)
            second += 1
            if second % HOUR == 0 and second < work.lasts:  # what is sent at its end belongs to the last hour
                for counter in counters.values():
                    counter.end_hour()
        if due >= (rounds + 1) * pace:
            runtime.ticker.round()
            rounds += 1
        if due >= exports * SPANS_EACH:
            setup.export()
            exports += 1


def _job(work: Work) -> Iterator[None]:
    """One operation after the other; each step is a second."""
    import otel_progress as progress

    each = work.seconds / work.stages
    for _ in range(max(1, work.lasts // work.seconds)):
        second = 0
        with progress.operation("rehearsal"):
            for stage in range(work.stages):
                end = math.ceil((stage + 1) * each)
                with progress.stage(f"stage {stage + 1}", total=end - second):
                    for _second in range(end - second):
                        yield
                        progress.advance()
                    second = end


def main() -> None:
    """Play what the command line says, and write the counts as JSON."""
    parser = argparse.ArgumentParser("python -m otel_progress.rehearsal")
    parser.add_argument("--endpoint")
    parser.add_argument("--protocol")
    for name, default in vars(Work()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    given = parser.parse_args()
    work = Work(given.stages, given.seconds, given.at_once, given.lasts)
    sent = rehearse(work, endpoint=given.endpoint, protocol=given.protocol)
    sys.stdout.write(json.dumps({signal: asdict(tally) for signal, tally in sent.items()}) + "\n")


if __name__ == "__main__":
    main()
