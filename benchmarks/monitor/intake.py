"""Records a second on one core, each acknowledged after the commit, beside Jaeger with the same spans.

All servers run at once and are loaded in turn, so that load on the machine affects all alike. Acknowledged records are
counted.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import Row, full_or_short, rotated
from benchmarks.monitor import traffic
from benchmarks.monitor.jaeger import Jaeger, Unavailable
from benchmarks.monitor.load import Monitor, Sending, Server, on_other_cores, percentile
from benchmarks.monitor.traffic import Body, Shape

BAR: Final = 50_000
MEMORY: Final = 100e6
ROUNDS: Final = full_or_short(3, 1)
SHORTEST: Final = full_or_short(2.0, 0.2)
"""Approximate seconds of load in one turn."""
EXPECTED: Final = 40_000
PEER: Final = f"Jaeger {Jaeger.version}"


@dataclass
class Candidate:
    """A server with one kind of load."""

    name: str
    server: Server
    host: str
    signal: str
    turns: list[list[Body]]
    rates: list[float] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    cpu: float = 0.0
    records: int = 0
    refused: int = 0

    def turn(self, number: int) -> None:
        """Load it for one turn."""
        before = self.server.cpu()
        sent = Sending(self.host, self.signal, self.turns[number]).run()
        self.rates.append(sent.records / sent.seconds)
        self.cpu += self.server.cpu() - before
        self.records += sent.records
        self.refused += sent.refused
        self.delays += sent.delays

    def figures(self) -> dict[str, Any]:
        """Return the figures."""
        return {
            "records_a_second": round(statistics.median(self.rates)),
            "best_records_a_second": round(max(self.rates)),
            "cpu_seconds_a_million": round(self.cpu / self.records * 1e6, 2),
            "records_a_second_of_its_core": round(self.records / self.cpu),
            "acknowledged_p50_ms": round(percentile(self.delays, 0.5) * 1e3, 1),
            "acknowledged_p99_ms": round(percentile(self.delays, 0.99) * 1e3, 1),
            "memory_peak_mb": round(self.server.peak() / 1e6, 1),
            "records": self.records,
            "asked_to_wait": self.refused,
        }


def measure(seconds: float = SHORTEST, *, peer: bool = True, profile: Path | None = None) -> dict[str, Any]:
    """Load all of them in turn; return the figures of each."""
    begin = time.time()
    loads = {
        "log events": Shape(tag="a"),
        "log events, each update a second apart": Shape(tag="b", rate=2_000, seed=2),
    }
    requests = max(20, round(seconds * EXPECTED / traffic.BATCH))
    log_turns = {name: turns(traffic.events(shape, requests * ROUNDS, begin)) for name, shape in loads.items()}
    span_turns = turns(traffic.spans(Shape(tag="c"), requests * ROUNDS // 2, begin))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        candidates = []
        for number, (name, given) in enumerate([*log_turns.items(), ("spans", span_turns)]):
            place = folder / str(number)
            place.mkdir()
            told = None if profile is None else profile.with_suffix(f".{number}.txt")
            monitor = stack.enter_context(Monitor(place, profile=told))
            signal = "traces" if name == "spans" else "logs"
            candidates.append(Candidate(name, monitor, monitor.host, signal, given))
        missing = None
        if peer:
            try:
                found = stack.enter_context(Jaeger(folder))
                candidates.append(Candidate(PEER, found, found.host, "traces", span_turns))
            except Unavailable as error:
                missing = str(error)
        with on_other_cores():
            for number in range(ROUNDS):
                for candidate in rotated(candidates, number):
                    candidate.turn(number)
        out: dict[str, Any] = {one.name: one.figures() for one in candidates}
        for one in candidates:
            if isinstance(one.server, Monitor):
                out[one.name]["file_mb"] = round(one.server.size() / 1e6, 1)
                out[one.name]["taken"] = one.server.get("/health")["records"]
    if missing:
        out[PEER] = {"not measured": missing}
    return out


def turns(bodies: list[Body]) -> list[list[Body]]:
    """Split the requests into one part per round, in order."""
    each = len(bodies) // ROUNDS
    return [bodies[at * each : (at + 1) * each] for at in range(ROUNDS)]


def rows(found: dict[str, Any]) -> list[Row]:
    """Return the rows of the table."""
    out = []
    peer = found.get(PEER, {})
    for name, one in found.items():
        if name == PEER:
            continue
        beside = "none"
        if name == "spans":
            beside = f"{PEER}: {peer.get('not measured', 'not asked for')}"
            if "records_a_second" in peer:
                ratio = one["cpu_seconds_a_million"] / peer["cpu_seconds_a_million"]
                beside = (
                    f"{PEER}: {peer['records_a_second']:,}/s, {peer['cpu_seconds_a_million']:.1f} CPU s a million "
                    f"(ours takes {ratio:.1f} times that, yet keeps operations and not each span), "
                    f"{peer['memory_peak_mb']:.0f} MB"
                )
        met = None if name == "spans" else one["records_a_second"] >= BAR
        out.append(
            Row(
                f"intake, {name}",
                f"{one['records_a_second']:,}/s (best {one['best_records_a_second']:,}), "
                f"{one['cpu_seconds_a_million']:.1f} CPU s a million, {one['memory_peak_mb']:.0f} MB, acknowledged "
                f"p50 {one['acknowledged_p50_ms']:.0f}, p99 {one['acknowledged_p99_ms']:.0f} ms",
                f"{BAR:,}/s, {MEMORY / 1e6:.0f} MB" if name != "spans" else "",
                beside,
                met if met is None else met and one["memory_peak_mb"] * 1e6 <= MEMORY,
            )
        )
    return out
