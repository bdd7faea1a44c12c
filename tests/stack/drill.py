"""The outage drill's program and Collectors, and functions that count what arrived."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import weakref
from collections import Counter
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

from .collector import CONFIGS, Collector
from .ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from .otlp_json import Log

PROGRAM = Path(__file__).with_name("outage_program.py")
SINGLE = CONFIGS / "single.yaml"
PATIENCE = 60.0
STARTED, STAGE_STARTED, NOTE, STAGE_ENDED, ENDED = EACH = (
    "progress.operation.started",
    "progress.stage.started",
    "progress.note",
    "progress.stage.ended",
    "progress.operation.ended",
)
"""The events of each operation of `do`, once each."""
BEAT = "progress.process.heartbeat"

Event = tuple[str, str, object, object]
"""(id, name, attempt, sequence): identifies an event, however often it arrives."""


class Drill:
    """The running program."""

    def __init__(self, endpoint: str, protocol: str = "http/protobuf", **env: str) -> None:
        """Start it with an endpoint."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            env={
                **kept,
                "OTEL_SERVICE_NAME": "drill",
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                "OTEL_METRIC_EXPORT_INTERVAL": "500",
                "OTEL_PROGRESS_RUN_SERIES_AFTER": "0.1",
                "OTEL_PROGRESS_HEARTBEAT": "0.5",
                "OTEL_PROGRESS_EVENT_BUDGET": "100000",
                "OTEL_BSP_SCHEDULE_DELAY": "200",
                **env,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        self.line("ready")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.strip())

    def line(self, word: str) -> None:
        """Wait until its next line is this word."""
        try:
            said = self._lines.get(timeout=PATIENCE)
        except Empty:
            raise AssertionError(f"the program did not say {word!r} within {PATIENCE:g} s") from None
        assert said == word

    def order(self, order: str) -> None:
        """Send a command. When this returns, the program has executed it, but not necessarily sent its telemetry."""
        assert self.process.stdin is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        self.line("done")

    def do(self, prefix: str, count: int, size: int = 0) -> set[str]:
        """Let it run a number of operations, and return their ids."""
        self.order(f"do {prefix} {count} {size}")
        return {f"{prefix}-{number}" for number in range(count)}

    def end(self) -> None:
        """Let it end, and wait."""
        assert self.process.stdin is not None
        self.process.stdin.write("end\n")
        self.process.stdin.flush()
        self.line("ended")
        assert self.process.wait(PATIENCE) == 0


class Single(Collector):
    """A Collector with single.yaml whose backends are other Collectors, and whose own metrics can be read."""

    def __init__(self, binary: Path, folder: Path, backends: dict[str, str], *overlays: Path, **env: str) -> None:
        """Set where the signals of `TEMPO`, `PROMETHEUS` and `LOKI` go."""
        guard, [self.own_port] = free_ports(1)
        weakref.finalize(self, guard.close)
        addresses = {f"OTEL_PROGRESS_{name}": address for name, address in backends.items()}
        super().__init__(
            binary,
            folder,
            configs=(SINGLE, *overlays),
            env={**addresses, "OTEL_PROGRESS_SELF_PORT": str(self.own_port), **env},
        )

    def figure(self, name: str, **labels: str) -> float:
        """Return the sum of one of its own metrics."""
        with urlopen(f"http://127.0.0.1:{self.own_port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            float(line.split()[-1])
            for line in lines
            if line.startswith((name + "{", name + " ")) and all(part in line for part in wanted)
        )


def overlay(path: Path, text: str) -> Path:
    """Return a configuration that extends single.yaml."""
    path.write_text(text, encoding="utf-8")
    return path


def events(logs: Sequence[Log]) -> Counter[Event]:
    """Return how often each event of an operation arrived."""
    known = [(log["event_name"], log["attributes"]) for log in logs]
    return Counter(
        (
            str(attributes["progress.operation.id"]),
            name,
            attributes.get("progress.operation.attempt", 1),
            attributes["progress.sequence"],
        )
        for name, attributes in known
        if "progress.operation.id" in attributes
    )


def doubles(logs: Sequence[Log], ids: set[str]) -> int:
    """Return the number of repeated events of these operations, not counting the first of each."""
    return sum(count - 1 for event, count in events(logs).items() if event[0] in ids)


def distinct(logs: Sequence[Log]) -> Counter[tuple[str, str]]:
    """Return the number of different events of each kind for each operation."""
    return Counter((operation, name) for operation, name, _, _ in events(logs))


def whole(ids: set[str]) -> Counter[tuple[str, str]]:
    """Return the events that `do` sends for these operations."""
    return Counter((operation, event) for operation in ids for event in EACH)


def counted(logs: Sequence[Log], ids: set[str]) -> Counter[tuple[str, str]]:
    """Return what arrived of these operations, without updates, which newer ones replace."""
    return Counter(
        {(id_, event): count for (id_, event), count in distinct(logs).items() if id_ in ids and event in EACH}
    )


def spans_of(collector: Collector) -> Counter[tuple[str, str]]:
    """Return how often each span arrived, by operation id and span name."""
    return Counter((str(span["attributes"]["progress.operation.id"]), span["name"]) for span in collector.spans())


def dropped(logs: Sequence[Log]) -> dict[str, int]:
    """Return what the program dropped, by reason."""
    said: dict[str, Any] = {}
    for log in logs:
        if log["event_name"] == BEAT and "progress.dropped" in log["attributes"]:  # some only say that it is alive
            said = json.loads(str(log["attributes"]["progress.dropped"]))
    return said


def arrived(collector: Collector, event: str) -> int:
    """Return the number of events with this name in the files, faster than reading them all."""
    return _count(collector, "logs", f'"eventName":"{event}"')


def spans_arrived(collector: Collector, name: str) -> int:
    """Return the number of spans with this name in the files, just as fast."""
    return _count(collector, "traces", f'"name":"{name}"')


def _count(collector: Collector, kind: str, text: str) -> int:
    files = (collector.directory / "otel-data").glob(f"{kind}*.jsonl")
    return sum(file.read_bytes().count(text.encode()) for file in files)
