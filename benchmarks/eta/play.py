"""Plays a run under the fake clock: through the SDK with its ticker, and to each other bar, at the same moments."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

import otel_progress as progress
from benchmarks.eta.peers import PEERS, Bar
from benchmarks.eta.runs import Run, Step
from benchmarks.eta.score import Forecast, Moment, Played
from otel_progress.live.engine import runtime
from otel_progress.testing import Capture

OURS = "ours"
TICK = 0.25
"""Seconds between two rounds of the ticker."""
EARLY = 10.0
"""Seconds in which each round is a moment, to see when the first estimate comes."""
MOMENTS = 120
"""Moments of a run, at least a second apart."""


class Ours:
    """A run as users write it: an operation, with stages by plan or with children."""

    def __init__(self, run: Run, name: str) -> None:
        stages = run.kind == "stages"
        plan = [progress.StagePlan(part, total=total) for part, total in run.parts] if stages else None
        total = None if stages else run.total
        self.kind, self.name = run.kind, name
        self.operation = progress.operation(name, plan=plan, total=total).start()
        self.parts: dict[str, Any] = {}
        if run.restored:
            self.operation.update(completed=run.restored)

    def act(self, step: Step) -> None:
        if step.act == "total":
            self.operation.update(total=step.number)
        elif step.act == "begin" and self.kind == "stages":
            stage = progress.stage(step.part, parent=self.operation, total=step.number)
            self.parts[step.part] = stage.start()
        elif step.act == "begin":
            child = progress.operation(f"{self.name} part", total=step.number, parent=self.operation)
            self.parts[step.part] = child.start()
        elif step.act == "end":
            self.parts[step.part].complete()
            if self.kind != "stages":
                self.operation.advance()
        else:
            (self.parts[step.part] if step.part else self.operation).advance(step.number)

    def forecast(self) -> Forecast | None:
        eta = self.operation.snapshot().progress.eta
        return None if eta is None else Forecast(eta.eta, eta.low, eta.high)

    def close(self) -> None:
        self.operation.complete()
        runtime.ticker.round(sample=True)


def counted(run: Run) -> Iterator[tuple[float, float, float | None]]:
    """What a bar of the whole run is told: when, units more, a new total. Children count as one unit each."""
    for step in run.steps:
        if step.act == "total":
            yield step.at, 0.0, step.number
        elif step.act == "units" and run.kind in ("plain", "stages"):
            yield step.at, step.number, None
        elif step.act == "end" and run.kind not in ("plain", "stages"):
            yield step.at, 1.0, None


def tell(bars: dict[str, Bar], run: Run, step: Step) -> float:
    """Tell the bars of a step; returns the units that it completed."""
    units = step.number if step.act == "units" else 0.0
    if run.kind not in ("plain", "stages"):
        units = 1.0 if step.act == "end" else 0.0
    for bar in bars.values():
        if step.act == "total":
            bar.retotal(step.number)
        elif units:
            bar.advance(units)
    return units


def timeline(run: Run) -> Iterator[tuple[float, int, Any]]:
    """All that happens, in order: steps, then rounds of the ticker, then moments."""
    seconds = run.seconds
    rounds = ((TICK * number, 1, None) for number in range(1, int(seconds / TICK) + 1))
    steps = ((step.at, 0, step) for step in run.steps)
    apart = max(1.0, seconds / MOMENTS)
    moments = ((apart * (number + 0.5), 2, None) for number in range(int(seconds / apart)))
    early = ((TICK * number, 3, None) for number in range(1, int(min(EARLY, seconds) / TICK) + 1))
    return heapq.merge(steps, rounds, moments, early, key=lambda one: one[:2])


def play(captured: Capture, run: Run, name: str) -> Played:
    """Play a run; returns what each forecast at each moment, and when the first estimate came."""
    clock, began = captured.clock, captured.clock.monotonic()
    ours = Ours(run, name)
    bars: dict[str, Bar] = {peer: make(run.total, run.restored) for peer, make in PEERS.items()}
    moments: list[Moment] = []
    first: dict[str, tuple[float, float]] = {}
    steps, known = 0, None if run.total is None else 0.0
    try:
        for at, kind, step in timeline(run):
            now = began + at
            if now > clock.monotonic():
                clock.sleep(now - clock.monotonic())
            if kind == 0:
                ours.act(step)
                moved = tell(bars, run, step) > 0
                known = at if known is None and step.act == "total" else known
                steps += moved and known is not None
            elif kind == 1:
                runtime.ticker.round()
            if kind >= 2 or (kind == 0 and len(first) <= len(PEERS) and steps <= 20):
                moment = _moment(ours, bars, at, run.seconds - at)
                for one in moment.forecasts:
                    first.setdefault(one, (steps, at - (known or 0.0)))
                if kind == 2:
                    moments.append(moment)
    finally:
        ours.close()
        for bar in bars.values():
            bar.close()
    captured.events.clear()
    return Played(run.seconds, tuple(moments), first)


def _moment(ours: Ours, bars: dict[str, Bar], at: float, left: float) -> Moment:
    found = {}
    own = ours.forecast()
    if own is not None:
        found[OURS] = own
    now = runtime_now()
    for name, bar in bars.items():
        eta = bar.eta(now)
        if eta is not None:
            found[name] = Forecast(eta)
    return Moment(at, left, found)


def runtime_now() -> float:
    from otel_progress import clock

    return clock.monotonic()
