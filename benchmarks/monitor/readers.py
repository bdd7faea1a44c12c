"""Many readers of the live stream while records arrive: delays, and lost ends.

200 operations run in 20 programs. Each request of a program updates its ten operations, so a frame of the stream has
the rows of all programs whose request arrived since the last frame. A request has reached a reader when a frame with
its stamp, or with a newer one of that program, has; the time counts from its acknowledgement.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import ROOT, Row, clean_environment, full_or_short
from benchmarks.monitor import traffic
from benchmarks.monitor.load import Monitor, Sending, keep_to, loading, on_other_cores, percentile
from benchmarks.monitor.traffic import Body, Shape

SHARES: Final = ((0.86, "update"), (0.91, "stage"), (0.97, "note"), (0.998, "wait"), (1.0, "end"))
SECONDS: Final = full_or_short(12.0, 1.0)
LAST: Final = full_or_short(5.0, 1.5)
"""Seconds after the last request in which its frame may still come."""
ENOUGH: Final = 0.95
"""Share of the records that must arrive in time for a figure to count at that rate."""
PER_CLIENT: Final = 25 * 1024


@dataclass(frozen=True)
class Case:
    """A number of readers, a rate of records, a request size, and the bar in seconds, if any."""

    clients: int
    rate: int
    batch: int = traffic.BATCH
    bar: float | None = None

    @property
    def name(self) -> str:
        """Describe the case."""
        return f"{self.clients:,} readers at {self.rate:,} records/s, {self.batch} a request"


CASES: Final = (
    Case(*full_or_short((1_000, 10_000), (20, 1_000)), bar=0.15),
    Case(*full_or_short((100, 20_000), (10, 2_000)), bar=0.1),
    Case(*full_or_short((1_000, 10_000), (20, 1_000)), batch=64),
)


class Clients:
    """The process with the readers."""

    def __init__(self, host: str, count: int) -> None:
        """Connect all of them."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.monitor.clients", host, str(count)],
            cwd=ROOT,
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        keep_to(loading(), self._process.pid)
        self._expect("ready")

    def _expect(self, word: str) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != word:
            raise SystemExit("the readers failed")

    def end(self, folder: Path) -> tuple[dict[int, bytes], list[Any], float]:
        """Return all frames, the frames and times of each reader, and the CPU seconds of all readers."""
        path = folder / "seen"
        assert self._process.stdin is not None
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        self._expect("written")
        self.kill()
        found: tuple[dict[int, bytes], list[Any], float] = pickle.loads(path.read_bytes())
        return found

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.communicate()


def measure(seconds: float = SECONDS, *, profile: Path | None = None) -> dict[str, Any]:
    """Measure all cases, each with its own monitor."""
    out = {}
    for number, case in enumerate(CASES):
        told = None if profile is None else profile.with_suffix(f".{number}.txt")
        out[case.name] = one(case, seconds, told)
    return out


def one(case: Case, seconds: float, profile: Path | None = None) -> dict[str, Any]:
    """Apply the same load to two fresh monitors: without readers, and with them."""
    shape = Shape(200, 20, case.rate, case.batch, SHARES, stamped=True)
    bodies = traffic.events(shape, round(seconds * case.rate / case.batch), time.time())
    with tempfile.TemporaryDirectory() as name, on_other_cores():
        folder = Path(name)
        (folder / "alone").mkdir()
        with Monitor(folder / "alone") as monitor:
            alone = Load(monitor, bodies, case.rate)
        with Monitor(folder, profile=profile) as monitor:
            clients = Clients(monitor.host, case.clients)
            try:
                load = Load(monitor, bodies, case.rate)
                time.sleep(LAST)
                frames, seen, used = clients.end(folder)
            finally:
                clients.kill()
    late, from_sent, lost = judged(frames, seen, load.sent, bodies)
    rows_a_frame = [frame.count(b'"revision":') for frame in frames.values()]
    return {
        "p50_ms": round(percentile(late, 0.5) * 1e3, 1),
        "p99_ms": round(percentile(late, 0.99) * 1e3, 1),
        "worst_ms": round(max(late) * 1e3, 1),
        "from_sent_p99_ms": round(percentile(from_sent, 0.99) * 1e3, 1),
        "ends": sum(len(body.ended) for body in bodies),
        "ends_lost": lost,
        "frames_each": len(frames),
        "rows_a_frame": round(sum(rows_a_frame) / len(rows_a_frame), 1),
        "mb_a_second_to_all": round(sum(map(len, frames.values())) * len(seen) / load.seconds / 1e6, 1),
        "kib_a_client": round((load.memory - alone.memory) / case.clients / 1024, 1),
        "cpu_of_a_core": round(load.cpu / load.seconds, 3),
        "cpu_of_a_core_without_readers": round(alone.cpu / alone.seconds, 3),
        "cpu_of_a_core_of_the_readers": round(used / load.seconds, 3),
        "reconnected": sum(one[3] for one in seen),
        "resets": sum(one[2] for one in seen),
        "torn": sum(one[4] for one in seen),
        "records_a_second": round(load.sent.records / load.seconds),
        "sent_late_s": round(load.sent.late, 3),
    }


class Load:
    """A load at a steady rate, and the resources of the monitor."""

    def __init__(self, monitor: Monitor, bodies: list[Body], rate: float) -> None:
        """Send all of it."""
        before = monitor.cpu()
        self.memory = 0
        self.sent = Sending(monitor.host, "logs", bodies, rate)
        over = threading.Event()
        looking = threading.Thread(target=self._look, args=(monitor, over))
        looking.start()
        self.sent.run()
        over.set()
        looking.join()
        self.cpu = monitor.cpu() - before
        self.seconds = self.sent.seconds

    def _look(self, monitor: Monitor, over: threading.Event) -> None:
        while not over.wait(0.25):
            self.memory = max(self.memory, monitor.memory())


def judged(
    frames: dict[int, bytes], seen: list[Any], sent: Sending, bodies: list[Body]
) -> tuple[list[float], list[float], int]:
    """Return the seconds from acknowledgement and from sending to each reader, and the number of lost ends."""
    told: dict[int, list[float]] = {}
    ended: dict[int, set[str]] = {}
    newest: dict[int, int] = {}
    waiting: dict[int, list[int]] = {}
    for program, number in sorted(sent.acknowledged):
        waiting.setdefault(program, []).append(number)
    for place in sorted(frames):
        data = json.loads(frames[place].partition(b"\ndata: ")[2])
        ended[place] = {row["id"] for row in data["rows"] if row.get("ended")}
        for row in data["rows"]:
            stamp = row.get("progress", {}).get("current_step", "")
            if stamp.startswith("@"):
                program, number = map(int, stamp[1:].split("."))
                newest[program] = max(newest.get(program, -1), number)
        for program, number in newest.items():
            queue = waiting.get(program, [])
            while queue and queue[0] <= number:
                told.setdefault(place, []).append(sent.acknowledged[program, queue.pop(0)])
    for queue in waiting.values():
        if queue:
            raise SystemExit(f"no frame told of {len(queue)} requests")
    took = percentile(sent.delays, 0.5)
    late = [
        when - moment
        for places, times, *_ in seen
        for place, when in zip(places, times)
        for moment in told.get(place, ())
    ]
    wanted = {key for body in bodies for key in body.ended}
    lost = 0
    for places, *_ in seen:
        had = set(places)
        if len(had) < len(ended):
            lost += len(wanted - set().union(*(ended[place] for place in had)))
    lost += len(seen) * len(wanted - set().union(*ended.values()))
    return late, [one + took for one in late], lost


def rows(found: dict[str, Any]) -> list[Row]:
    """Return the rows of the table."""
    out = []
    for case in CASES:
        one = found[case.name]
        met, reached = None, one["records_a_second"] / case.rate
        short = "" if reached >= ENOUGH else f"**only {one['records_a_second']:,} records/s arrived**; "
        if case.bar is not None:
            met = one["p99_ms"] <= case.bar * 1e3 and not one["ends_lost"] and reached >= ENOUGH
            met = met and (case.clients < 1_000 or one["kib_a_client"] * 1024 <= PER_CLIENT)
        out.append(
            Row(
                case.name,
                f"{short}p50 {one['p50_ms']:.0f}, p99 {one['p99_ms']:.0f} ms; {one['kib_a_client']:.0f} KiB a reader; "
                f"{one['ends_lost']} of {one['ends']:,} ends lost; {100 * one['cpu_of_a_core']:.0f}% of a core "
                f"({100 * one['cpu_of_a_core_without_readers']:.0f}% without readers), "
                f"{one['mb_a_second_to_all']:.0f} MB/s to all",
                "" if case.bar is None else f"p99 {case.bar * 1e3:.0f} ms, no end lost, 25 KiB a reader",
                "none",
                met,
            )
        )
    return out
