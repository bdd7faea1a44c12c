"""CPU of one observation with its estimate: ours as the ticker makes it, theirs as an update and a look."""

from __future__ import annotations

import time

import otel_progress as progress
from benchmarks.eta import peers
from benchmarks.eta.peers import PEERS
from otel_progress.live.engine.progress import observe, progress_of
from otel_progress.live.survey import Survey
from otel_progress.testing import capture

OBSERVATIONS = 1000
ROUNDS = 5


def cpu(who: str) -> float:
    """Return the CPU seconds of a thousand observations; the best of some rounds."""
    return min(_ours() if who not in PEERS else _theirs(who) for _ in range(ROUNDS))


def _ours() -> float:
    with capture() as captured:
        operation = progress.operation("cost", total=10 * OBSERVATIONS).start()
        spent = 0.0
        for _ in range(OBSERVATIONS):
            captured.clock.sleep(1.0)
            operation.advance()
            now = captured.clock.monotonic()
            began = time.thread_time()
            observe(operation, now)
            progress_of(operation, now, Survey(operation))
            spent += time.thread_time() - began
        operation.complete()
    return spent


def _theirs(who: str) -> float:
    with capture() as captured, peers.on(captured.clock):
        bar: peers.Bar = PEERS[who](10 * OBSERVATIONS, 0)
        spent = 0.0
        for _ in range(OBSERVATIONS):
            captured.clock.sleep(1.0)
            began = time.thread_time()
            bar.advance(1)
            bar.eta(captured.clock.monotonic())
            spent += time.thread_time() - began
        bar.close()
    return spent
