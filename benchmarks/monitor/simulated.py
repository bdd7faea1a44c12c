"""A fleet and a monitor in one thread, in simulated time: the CPU seconds a second that each part of the monitor needs.

python -m benchmarks.monitor.simulated --operations 50000 --processes 5000 --seconds 30

The clocks are simulated, so the result does not depend on how busy the machine is; only CPU time of the monitor's code
counts. The kernel's work for sockets is not in it, nor is waiting for locks between its threads.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import cProfile
import heapq
import io
import json
import pstats
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from benchmarks.monitor import fleet as fleets
from benchmarks.monitor.fleet import Fleet, Given, Program
from otel_progress import clock
from otel_progress.monitor.app import Monitor, Options
from otel_progress.monitor.web.publish import ALL
from otel_progress.monitor.web.stream import Reader

STEP: Final = 0.01
"""Seconds between two turns of the core."""
T = TypeVar("T")


class SimulatedClock:
    """Both clocks, moved by the simulation."""

    def __init__(self) -> None:
        """Start at the present."""
        self.now = time.time()
        self._zero = self.now - 1000

    def monotonic(self) -> float:
        """Seconds since the start of the simulation, and a thousand."""
        return self.now - self._zero

    def time_ns(self) -> int:
        """The simulated wall clock."""
        return int(self.now * 1e9)


class Transport(asyncio.Transport):
    """Takes what is written to it, and counts it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.written = 0
        self.closed = False
        self.answered: Callable[[], object] = lambda: None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the addresses."""
        return {"peername": ("127.0.0.1", 1024 + self.number), "sockname": ("127.0.0.1", 4318)}.get(name, default)

    def write(self, data: Any) -> None:
        """Count, and go on."""
        self.written += len(data)
        self.answered()

    def is_closing(self) -> bool:
        """Return whether it was closed."""
        return self.closed

    def close(self) -> None:
        """Close."""
        self.closed = True

    def pause_reading(self) -> None:
        """Do nothing."""

    def resume_reading(self) -> None:
        """Do nothing."""

    def get_write_buffer_size(self) -> int:
        """Return 0: all is written at once."""
        return 0


class Costs:
    """CPU seconds by the part of the monitor that used them."""

    def __init__(self, profile: cProfile.Profile | None) -> None:
        self.seconds: dict[str, float] = {}
        self._profile = profile

    def of(self, part: str, act: Callable[[], T]) -> T:
        """Call it, and add its CPU time to a part."""
        before = time.thread_time()
        if self._profile is not None:
            self._profile.enable()
        try:
            return act()
        finally:
            if self._profile is not None:
                self._profile.disable()
            self.seconds[part] = self.seconds.get(part, 0.0) + time.thread_time() - before


class Line:
    """Stands in for the connections of one program: what it posts goes into the protocol of the monitor."""

    def __init__(self, protocol: Any, waiting: list[tuple[Any, bytes]]) -> None:
        self._protocol = protocol
        self._waiting = waiting
        self._queue: collections.deque[bytes] = collections.deque()
        self._busy = False

    def answered(self) -> None:
        """Hand over the next request."""
        self._busy = bool(self._queue)
        if self._queue:
            self._waiting.append((self._protocol, self._queue.popleft()))

    def post(self, path: str, headers: str, body: bytes, then: Any = None) -> None:
        """Hand a request over at the next turn."""
        del then
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:4318\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        self._queue.append(head.encode() + body)
        if not self._busy:
            self.answered()


class Simulation:
    """A monitor, and a fleet that sends to it."""

    def __init__(self, folder: Path, given: Given, readers: int, profile: cProfile.Profile | None) -> None:
        """Neither has begun."""
        self.clock = SimulatedClock()
        clock.install(self.clock)
        self._loop = asyncio.SelectorEventLoop()
        self._loop.time = self.clock.monotonic  # type: ignore[method-assign]
        self.monitor = Monitor(Options(folder / "monitor.db", port=0, grpc_port=None))
        self.costs = Costs(profile)
        self.events = self.requests = 0
        self._given = given
        self._waiting: list[tuple[Any, bytes]] = []
        self._schedule: list[tuple[float, int]] = []
        self._fleet = Fleet("127.0.0.1:4318", given._replace(processes=0))
        self._programs = [Program(number, given, self._fleet) for number in range(given.processes)]
        self._readers = readers
        self._publish_at = self._tick_at = 0.0

    def run(self, seconds: float) -> dict[str, Any]:
        """Build the load up, then keep it for `seconds` of simulated time."""
        return self._loop.run_until_complete(self._run(seconds))

    async def _run(self, seconds: float) -> dict[str, Any]:
        from uvicorn.server import ServerState

        loop = asyncio.get_running_loop()
        config, state = self.monitor.config(), ServerState()
        config.load()
        each = fleets.WARM_UP / max(1, self._given.operations // self._given.processes) * STEP
        begun = 0.0
        place = 0
        while place < len(self._programs):
            begun += each
            while place < min(begun, len(self._programs)):
                protocol: Any = config.http_protocol_class(config=config, server_state=state, app_state={}, _loop=loop)
                transport, line = Transport(place), Line(protocol, self._waiting)
                protocol.connection_made(transport)
                transport.answered = line.answered
                self._programs[place].links = line  # type: ignore[assignment]
                self._programs[place].begin(self.clock.now)
                heapq.heappush(self._schedule, (self.clock.now, place))
                place += 1
            await self._step()
        for _ in range(int(5 / STEP)):
            await self._step()
        for _ in range(self._readers):
            self.monitor.hub.topic(ALL).readers.add(Reader(self.monitor.hub.numbers.sequence))
        if self._readers:  # the rows that were waiting are shown once
            for _ in range(int(10 / STEP)):
                await self._step()
        building = dict(self.costs.seconds)
        self.costs.seconds.clear()
        self._fleet.events = self.requests = 0
        began = self.clock.now
        while self.clock.now < began + seconds:
            await self._step()
        lasted = self.clock.now - began
        return {
            "operations": len(self.monitor.core.ledger.operations),
            "events_a_second": round(self._fleet.events / lasted),
            "requests_a_second": round(self.requests / lasted),
            "of_a_core": {part: round(used / lasted, 3) for part, used in self.costs.seconds.items()},
            "whole": round(sum(self.costs.seconds.values()) / lasted, 3),
            "building": {part: round(used, 1) for part, used in building.items()},
            "us_an_event": round(1e6 * sum(self.costs.seconds.values()) / max(1, self._fleet.events), 1),
            "memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
            "list_ms": round(self._list() * 1e3),
            "taken": self.monitor.core.taken,
            "held_mb": round(self.monitor.core.held / 1e6),
            "dropped": self.monitor.core.inbox.statistics(),
            "forgotten": self.monitor.core.ledger.room.counts.total(),
            "file_mb": round(sum(one.stat().st_size for one in self.monitor.path.parent.glob("monitor.db*")) / 1e6),
        }

    def _list(self) -> float:
        from otel_progress.monitor.state.saved import Query
        from otel_progress.monitor.web.listing import Listing

        listing = Listing(self.monitor.core, self.monitor._store, self.monitor.views)
        times = []
        for _ in range(3):
            before = time.thread_time()
            listing.page(Query(), frozenset(), 200, None)
            times.append(time.thread_time() - before)
        return min(times)

    async def _step(self) -> None:
        self.clock.now += STEP
        while self._schedule and self._schedule[0][0] <= self.clock.now:
            _, number = heapq.heappop(self._schedule)
            program = self._programs[number]
            program.turn(self.clock.now)
            heapq.heappush(self._schedule, (program.next_at, number))
        waiting, core = list(self._waiting), self.monitor.core
        self._waiting.clear()
        self.requests += len(waiting)
        self.costs.of("requests", lambda: [protocol.data_received(data) for protocol, data in waiting])
        while core.inbox.queue:
            self.costs.of("core", lambda: core.work(core.inbox.turn([])))
        if waiting:
            began = time.thread_time()
            await asyncio.sleep(0)
            self.costs.seconds["answers"] = self.costs.seconds.get("answers", 0.0) + time.thread_time() - began
        now = self.clock.monotonic()
        if now >= self._tick_at:
            self._tick_at = now + 1
            self.costs.of("tick", lambda: core.tick(now))
        if now >= self._publish_at:
            self._publish_at = now + 0.05
            self.costs.of("publish", self.monitor.publisher.publish)


def main() -> None:
    """Simulate, and print what it cost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.monitor.simulated", description="A simulated fleet.")
    parser.add_argument("--operations", type=int, default=50_000)
    parser.add_argument("--processes", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--readers", type=int, default=0)
    parser.add_argument("--whole", action="store_true", help="every event carries the whole state")
    parser.add_argument("--live", action="store_true", help="every operation reports each second")
    parser.add_argument("--no-metrics", action="store_true")
    parser.add_argument("--profile", action="store_true")
    told = parser.parse_args()
    given = Given(told.operations, told.processes, told.whole, told.live, not told.no_metrics, False, True, 1)
    profile = cProfile.Profile(time.thread_time) if told.profile else None
    with tempfile.TemporaryDirectory() as name:
        simulation = Simulation(Path(name), given, told.readers, profile)
        print(json.dumps(simulation.run(told.seconds), indent=1))
    if profile is not None:
        out = io.StringIO()
        pstats.Stats(profile, stream=out).sort_stats("cumtime").print_stats(75)
        sys.stdout.write(out.getvalue())


if __name__ == "__main__":
    main()
