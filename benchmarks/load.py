"""Load test: many operations through one Collector to Prometheus, VictoriaLogs and Jaeger; resources and losses.

python -m benchmarks.load           2,000 operations in 20 processes for 5 minutes, saved in docs/performance.md
python -m benchmarks.load --many    10,000 operations in 100 processes, 5 minutes from an age of 10 minutes on; saved
python -m benchmarks.load --short   200 operations in 4 processes for 20 seconds; saves nothing

`--operations`, `--processes`, `--age`, `--seconds` and `--stage` (seconds of one) change the size; the table says it.
With an age of 10 minutes, the processes begin one after the other over 10 minutes, and the operations are 10 to 20
minutes old when it begins: those of a fleet that begins at once have an event a second each for their first minute.

All programs are real, with the configurations that we ship; `make stack` builds them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
from grafana.generator import now as dashboard
from tests.stack import build
from tests.stack.backends import BackendError, Prometheus
from tests.stack.collector import CONFIGS
from tests.stack.drill import Single, overlay
from tests.stack.grafana_queries import interpolate
from tests.stack.stores import Jaeger, VictoriaLogs

from benchmarks.__main__ import PAGE, machine
from benchmarks.harness import ROOT, SHORT, clean_environment


def size() -> argparse.Namespace:
    """Return the size of the load, by the options."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.load", description="Load a whole stack.")
    options.add_argument("--many", action="store_true", help="10,000 operations in 100 processes")
    options.add_argument("--short", action="store_true", help="200 operations for 20 seconds; saves nothing")
    many, short = "--many" in sys.argv, SHORT
    usual = (200, 4, 0, 20, 10) if short else (10_000, 100, 600, 300, 20) if many else (2_000, 20, 0, 300, 10)
    about = ("running at once", "the processes", "their age when it begins, s", "measured, s", "one stage, s")
    for name, number, what in zip(("operations", "processes", "age", "seconds", "stage"), usual, about):
        options.add_argument(f"--{name}", type=int, default=number, help=what)
    return options.parse_args()


SIZE = size()
OPERATIONS, PROCESSES, AGE, SECONDS, STAGE_SECONDS = SIZE.operations, SIZE.processes, SIZE.age, SIZE.seconds, SIZE.stage
BEGIN, END = (f"<!-- {'many' if SIZE.many else 'load'}: {edge} -->" for edge in ("begin", "end"))
PATIENCE = 60.0
Answer = TypeVar("Answer")
DETAILED = "service: {telemetry: {metrics: {level: detailed}}}"
"""Collector settings that also report requests."""
APART = AGE / PROCESSES
"""Seconds between the starts of two processes."""
AGES = [AGE + round((PROCESSES - 1 - number) * APART) for number in range(PROCESSES)]
"""How old the operations of each process are when it begins."""
SPANS = 1 + OPERATIONS // PROCESSES * sum(2 + (age + SECONDS) // STAGE_SECONDS for age in AGES)
SIGNALS = {"events": "log_records", "points": "metric_points", "spans": "spans"}
EXPORTERS = {"events": "otlp_http/victorialogs", "points": "otlp_http/prometheus", "spans": "otlp_http/jaeger"}
CHOSEN = {
    **dict.fromkeys(("job", "name", "environment", "cluster", "namespace"), ".*"),
    "job": "load",
    "unrecorded": ".+",
    "heard": "45s",
    "gap": "3m",
    "known": "6h",
}
"""The choices of a user of the dashboard, without recorded rules."""
LOST = ("receiver_refused", "exporter_enqueue_failed", "exporter_send_failed")
"""Metrics of the Collector for data that it refused or could not export."""


def patiently(ask: Callable[[], Answer]) -> Answer:
    """Return an answer; where all programs take more than the machine has, one may not come the first time."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return ask()
        except (OSError, BackendError):
            if time.monotonic() > end:
                raise


class Job:
    """A program of load_job.py, running.

    Attributes:
        unsent: the ends of operations that it said it could not send, once it has ended.
    """

    unsent = 0

    def __init__(self, endpoint: str, service: str, *arguments: object, **env: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load_job", *map(str, arguments)],
            cwd=ROOT,
            env={**clean_environment(), "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_SERVICE_NAME": service, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def line(self, word: str) -> str:
        """Wait for a line of output that begins with this word, and return what follows it."""
        assert self.process.stdout is not None
        said, _, rest = self.process.stdout.readline().strip().partition(" ")
        if said != word:
            raise SystemExit(f"a job said {said!r} instead of {word!r}")
        return rest

    def end(self) -> None:
        """Ask it to end, and wait."""
        _, said = self.process.communicate("\n", timeout=PATIENCE)
        print(said, end="", file=sys.stderr)
        if self.process.returncode:
            raise SystemExit(f"a job ended with exit code {self.process.returncode}")
        self.unsent = sum(int(number) for number in re.findall(r"(\d+) ends? of (?:an )?operations?", said))


@dataclass
class Use:
    """Resources of processes: CPU time as a share of a core, and peak memory of all samples."""

    processes: list[psutil.Process]
    seconds: float = 0.0
    cpu: float = 0.0
    memory: int = 0
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._before = self._cpu()

    def _cpu(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self.processes)

    def look(self) -> None:
        """Take a sample."""
        self.seconds = time.monotonic() - self.began
        self.cpu = (self._cpu() - self._before) / self.seconds
        self.memory = max(self.memory, *(process.memory_info().rss for process in self.processes))


class Delays:
    """Delays from an event until a backend has it; polled in a thread."""

    def __init__(self, ask: Callable[[], list[float]]) -> None:
        """Start polling; `ask` returns the times of what the backend has."""
        self.seconds: list[float] = []
        self._ask = ask
        self._known: set[float] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Delays:
        self._known.update(self._ask())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.1):
            found = patiently(self._ask)
            now = time.time()
            self.seconds += [now - moment for moment in set(found) - self._known]
            self._known.update(found)

    def quantile(self, part: float) -> float:
        """Return the delay that this share does not exceed."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else math.nan

    def __str__(self) -> str:
        return f"p50 {self.quantile(0.5):.2f} s, p99 {self.quantile(0.99):.2f} s (of {len(self.seconds)})"


@dataclass
class Stack:
    """The running programs."""

    collector: Single
    prometheus: Prometheus
    victorialogs: VictoriaLogs
    jaeger: Jaeger

    def totals(self) -> dict[str, float]:
        """Return the metrics of the Collector."""
        figure = self.collector.figure
        found = {name: figure(f"otelcol_receiver_accepted_{what}_total") for name, what in SIGNALS.items()}
        found |= {
            f"sent {name}": figure(f"otelcol_exporter_sent_{what}_total", exporter=EXPORTERS[name])
            for name, what in SIGNALS.items()
        }
        found["requests"] = figure("http_server_request_body_size_bytes_count")
        found["bytes"] = figure("http_server_request_body_size_bytes_sum")
        found["lost"] = sum(figure(f"otelcol_{kind}_{what}_total") for kind in LOST for what in SIGNALS.values())
        return found

    def notes(self) -> list[float]:
        """Return the times of the notes of the probe that VictoriaLogs has."""
        query = '_time:20s {"service.name"="probe"} "probe: probe "'
        return [line.time / 1e9 for line in self.victorialogs.query(query)]

    def points(self) -> list[float]:
        """Return the time of the newest point of the probe that Prometheus has."""
        return [sample.value for sample in self.prometheus.query('timestamp(progress_run_idle_seconds{job="probe"})')]

    def verdicts(self) -> dict[str, float]:
        """Count the operations by verdict, by the queries of the dashboard; without those that are 0."""
        found = {
            query.legend: sum(sample.value for sample in self.prometheus.query(interpolate(query.text, CHOSEN)))
            for query in dashboard.counts.queries.values()
        }
        return {name: number for name, number in found.items() if number}

    def ended(self) -> tuple[float, float]:
        """Count the operations that VictoriaLogs and Prometheus know as ended."""
        events = (
            '_time:10m {"service.name"="load"} event_name:="progress.operation.ended" "progress.status":="completed"'
        )
        series = self.prometheus.query('sum(max_over_time(progress_operation_ended_total{job="load"}[1h]))')
        return self.victorialogs.count(events), sum(sample.value for sample in series)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Stack]:
    """Start all programs."""
    programs = {name: build.binary(name) for name in build.NAMES}
    missing = [name for name in ("prometheus", "victorialogs", "jaeger", "otelcol") if programs[name] is None]
    if missing:
        raise SystemExit(f"{', '.join(missing)} missing: `make stack` builds it")
    otelcol: Any = programs["otelcol"]
    with contextlib.ExitStack() as stack:
        prometheus = stack.enter_context(Prometheus(programs["prometheus"], folder / "prometheus"))  # type: ignore[arg-type]
        logs = stack.enter_context(VictoriaLogs(programs["victorialogs"], folder / "victorialogs"))  # type: ignore[arg-type]
        traces = stack.enter_context(Jaeger(programs["jaeger"], folder / "jaeger"))  # type: ignore[arg-type]
        addresses = {
            "JAEGER": traces.otlp_endpoint,
            "PROMETHEUS": prometheus.otlp_endpoint,
            "VICTORIALOGS": logs.otlp_endpoint,
        }
        overlays = (CONFIGS / "jaeger-victorialogs.yaml", overlay(folder / "detailed.yaml", DETAILED))
        single = stack.enter_context(Single(otelcol, folder / "collector", addresses, *overlays))
        yield Stack(single, prometheus, logs, traces)


@dataclass
class Result:
    """The measurements."""

    uses: dict[str, Use]
    before: dict[str, float]
    after: dict[str, float]
    seconds: float
    log_delays: Delays
    metric_delays: Delays
    waited: float
    series: float = 0
    run_series: float = 0
    streams: int = 0
    ended: tuple[float, float] = (0, 0)
    unsent: int = 0
    spans: float = 0
    lost: float = 0
    verdicts: dict[str, float] = field(default_factory=dict)
    threads: list[dict[str, float]] = field(default_factory=list)
    dropped: dict[str, float] = field(default_factory=dict)

    def rate(self, name: str) -> float:
        """Return the number a second."""
        return (self.after[name] - self.before[name]) / self.seconds

    def thread(self, name: str) -> float:
        """Return the CPU seconds of all threads of a name in the jobs."""
        return sum(of.get(name, 0.0) for of in self.threads)


def measure(stack: Stack) -> Result:
    """Run the jobs and measure."""
    endpoint = stack.collector.http_endpoint
    with contextlib.ExitStack() as parts:
        probe = parts.enter_context(Job(endpoint, "probe", "probe", OTEL_METRIC_EXPORT_INTERVAL="1000"))
        probe.line("ready")
        jobs = begin(parts, endpoint)
        for job in jobs:
            job.line("old")
        pids: dict[str, int | None] = {
            "Collector": stack.collector.pid,
            "Prometheus": stack.prometheus.pid,
            "VictoriaLogs": stack.victorialogs.pid,
            "Jaeger": stack.jaeger.pid,
        }
        uses = {name: Use([psutil.Process(pid)]) for name, pid in pids.items()}
        uses["jobs"] = Use([psutil.Process(job.process.pid) for job in jobs])
        before, began, waited = patiently(stack.totals), time.monotonic(), 0.0
        with Delays(stack.notes) as logs, Delays(stack.points) as metrics:
            end = began + SECONDS - 2
            while time.monotonic() < end:
                time.sleep(1)
                for use in uses.values():
                    use.look()
                waited = max(waited, patiently(lambda: stack.collector.figure("otelcol_exporter_queue_size")))
            after, seconds = patiently(stack.totals), time.monotonic() - began
        result = Result(uses, before, after, seconds, logs, metrics, waited)
        result.verdicts = patiently(stack.verdicts)
        result.series = sum(sample.value for sample in stack.prometheus.query('count({job="load"})'))
        result.run_series = sum(
            sample.value for sample in stack.prometheus.query('count({__name__=~"progress_run_.*", job="load"})')
        )
        result.streams = int(stack.victorialogs.count("_time:1h *", "count_uniq(_stream_id)"))
        result.threads = [json.loads(job.line("over")) for job in jobs]
        for job in [*jobs, probe]:
            job.end()
        result.unsent = sum(job.unsent for job in jobs)
    complete(stack, result)
    return result


def begin(parts: contextlib.ExitStack, endpoint: str) -> list[Job]:
    """Start the processes, one after the other over as many seconds as the youngest operations are to be old."""
    jobs, began = [], time.monotonic()
    for number, age in enumerate(AGES):
        time.sleep(max(0.0, began + number * APART - time.monotonic()))
        work = (OPERATIONS // PROCESSES, age, SECONDS, STAGE_SECONDS)
        jobs.append(parts.enter_context(Job(endpoint, "load", *work)))
        if AGE:
            print(f"\r{number + 1} of {PROCESSES} processes have begun", end="", file=sys.stderr, flush=True)
    for job in jobs:
        job.line("ready")
    return jobs


def complete(stack: Stack, result: Result) -> None:
    """Wait until all has arrived or nothing more comes, and count it."""
    end = time.monotonic() + PATIENCE
    wanted = (OPERATIONS, OPERATIONS)
    while time.monotonic() < end:
        totals = patiently(stack.totals)
        result.ended, result.spans, result.lost = patiently(stack.ended), totals["sent spans"], totals["lost"]
        if result.ended == wanted and result.spans == SPANS:
            break
        time.sleep(0.5)
    result.dropped = {
        sample.labels["progress_drop_reason"]: sample.value
        for sample in stack.prometheus.query(
            "sum by (progress_drop_reason) (max_over_time(progress_sdk_dropped_total{job='load'}[1h])) > 0"
        )
    }


def table(result: Result) -> str:
    """Return the figures as Markdown."""
    lines = ["| part | CPU, of a core | memory, at most |", "|---|---|---|"]
    for name, use in result.uses.items():
        count = len(use.processes)
        part = f"one of {count} jobs with {OPERATIONS // count} operations" if name == "jobs" else name
        lines.append(f"| {part} | {100 * use.cpu / count:.1f}% | {use.memory / 1e6:.0f} MB |")
    drops = ", ".join(f"{reason} {count:g}" for reason, count in result.dropped.items()) or "0"
    events = result.after["events"] - result.before["events"]
    age = f", from an age of {AGE} to {max(AGES)} s on" if AGE else ""
    rows = {
        "operations that ran at once": f"{OPERATIONS:,} in {PROCESSES} processes, for {SECONDS} s{age}",
        "events a second": f"{result.rate('events'):,.0f}",
        "metric points a second": f"{result.rate('points'):,.0f}",
        "spans a second": f"{result.rate('spans'):,.0f}",
        "requests a second to the Collector": f"{result.rate('requests'):,.0f}",
        "bytes a second to the Collector": f"{result.rate('bytes') / 1e6:.2f} MB",
        "ticker, all processes": f"{100 * result.thread('otel-progress-ticker') / SECONDS:.1f}% of a core",
        "sender": f"{1e6 * result.thread('otel-progress-sender') / max(1.0, events):.1f} µs an event",
        "waited in the Collector, at most": f"{result.waited / 1e6:.1f} MB",
        "series in Prometheus": f"{result.series:,.0f}, of these run series {result.run_series:,.0f}",
        "streams in VictoriaLogs": f"{result.streams}",
        "from a note to VictoriaLogs": str(result.log_delays),
        "from a point to Prometheus": str(result.metric_delays),
        "by the dashboard": ", ".join(f"{number:,.0f} {name}" for name, number in result.verdicts.items()),
        "ends in VictoriaLogs, in Prometheus": f"{result.ended[0]:,.0f}, {result.ended[1]:,.0f} of {OPERATIONS:,}",
        "ends that processes said they could not send": f"{result.unsent:,}",
        "spans passed on": f"{result.spans:,.0f} of {SPANS:,}",
        "dropped by the SDK": drops,
        "refused or lost by the Collector": f"{result.lost:g}",
    }
    lines += ["", "| what | figure |", "|---|---|", *(f"| {what} | {figure} |" for what, figure in rows.items())]
    return "\n".join(lines)


def keep(text: str) -> None:
    """Replace the text between the marks of the page."""
    head, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as stack:
        text = table(measure(stack))
        load = statistics.fmean(os.getloadavg()[:2])
        text = f"{text}\n\n{machine()} Load average at the end {load:.1f}."
        print(text, flush=True)  # before the programs end: on a busy machine one may not do so in time
        if not SHORT:
            keep(text)


if __name__ == "__main__":
    main()
