"""The bill of metrics: samples sent and series made, and how wrong quantiles of histograms are.

python -m benchmarks.bill demo [SECONDS]      run the jobs of the tour (default 75 s), count points and series
python -m benchmarks.bill scrape [SECONDS]    the same through a Collector, as a Prometheus that scrapes it stores them
python -m benchmarks.bill stages              2,000 short operations of 10 stages in one process
python -m benchmarks.bill quantiles           relative error of quantiles for several sets of buckets

A sample is one value of one series as Prometheus stores it: a histogram has one series for each bucket, and two more.
A scrape takes every series that the Collector holds, whether it has changed or not. `--scrape-all` scrapes everything
each 10 s, as before collector-config/prometheus-scrape.yaml had two jobs for it; with `PYTHONPATH=OTHER/src` the jobs
of the tour run on another version of the package.
"""

from __future__ import annotations

import bisect
import contextlib
import math
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from otel_progress.telemetry.metrics import BUCKETS

TOUR = Path(__file__).parents[1] / "examples" / "tour" / "jobs.py"
SURVEY = Path(__file__).parents[1] / "examples" / "survey.py"
JOBS = ("researcher", "approver", "importer", "planner", "nightly", "crawler")
OLD_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 28800, 86400)


class Bill:
    """Samples by kind of metric, and the series that exist."""

    def __init__(self) -> None:
        self.samples: Counter[str] = Counter()
        self.series: dict[str, set[tuple[Any, ...]]] = {}
        self.lock = threading.Lock()

    def take(self, body: bytes) -> None:
        """Count a request of the metrics signal."""
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            instance = next(a.value.string_value for a in resource.resource.attributes if a.key.endswith("instance.id"))
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                self._add(metric, instance)

    def _add(self, metric: Any, instance: str) -> None:
        kind = "run series" if ".run." in metric.name else "by name, histograms"
        data = getattr(metric, metric.WhichOneof("data"))
        for point in data.data_points:
            size = 1
            if hasattr(point, "explicit_bounds"):
                size = len(point.bucket_counts) + 2
            elif kind != "run series" and not hasattr(point, "scale"):
                kind = "by name, counts"
            key = (instance, metric.name, *sorted((a.key, str(a.value)) for a in point.attributes))
            with self.lock:
                self.samples[kind] += size
                self.series.setdefault(kind, set()).update((*key, number) for number in range(size))

    def scraped(self, text: str, relabel: Iterable[Mapping[str, Any]]) -> None:
        """Count what a scrape stores after its rules, which keep or drop series by their names."""
        for line in text.splitlines():
            name = line.partition("{")[0].partition(" ")[0]
            if line.startswith("#") or any(
                bool(re.fullmatch(it["regex"], name)) is (it["action"] == "drop") for it in relabel
            ):
                continue
            histogram = "_duration_" in name
            kind = "by name, histograms" if histogram else "run series" if "_run_" in name else "by name, counts"
            self.samples[kind] += 1
            self.series.setdefault(kind, set()).add((line.rpartition("}")[0],))

    def lines(self) -> Iterator[str]:
        """The table."""
        for kind in ("run series", "by name, counts", "by name, histograms"):
            yield f"{kind:22} {self.samples[kind]:8} samples {len(self.series.get(kind, ())):7} series"
        yield f"{'all':22} {sum(self.samples.values()):8} samples {sum(map(len, self.series.values())):7} series"


@contextlib.contextmanager
def receiver(bill: Bill) -> Iterator[str]:
    """An OTLP receiver that counts metrics and discards the rest."""

    class Receive(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Content-Encoding") == "gzip":
                import gzip

                body = gzip.decompress(body)
            if self.path.endswith("/metrics"):
                bill.take(body)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receive)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()


@contextlib.contextmanager
def tour(endpoint: str) -> Iterator[None]:
    """The jobs of the tour, which send to an endpoint."""
    environ = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    commands = [[str(TOUR), job] for job in JOBS]
    commands.append([str(SURVEY), "--otlp", "--verbosity", "quiet", "--report", os.devnull, "--forever"])
    run = [
        subprocess.Popen(
            [sys.executable, *command],
            env=environ,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for command in commands
    ]
    try:
        yield
    finally:
        for sent, pause in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 0.0)):
            for process in run:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, sent)
            time.sleep(pause)
        for process in run:
            process.wait()


def demo(seconds: float) -> None:
    """Run the jobs of the tour, and print the bill."""
    bill = Bill()
    with receiver(bill) as endpoint, tour(endpoint):
        time.sleep(seconds)
    print(*bill.lines(), sep="\n")


def scrape(seconds: float, *, everything: bool) -> None:
    """Run the jobs of the tour with a Collector, scrape it as its configuration documents, and print the bill."""
    from tests.stack import build
    from tests.stack.collector import CONFIGS, Collector
    from tests.stack.ports import free_ports

    from benchmarks.incident.place import documented_scrape, program

    bill = Bill()
    guard, [port] = free_ports(1)
    jobs = [{"scrape_interval": "10s"}] if everything else documented_scrape(port)
    with guard, receiver(bill) as sink, tempfile.TemporaryDirectory() as folder:
        env = {"OTEL_PROGRESS_SCRAPE": f"127.0.0.1:{port}", "OTEL_PROGRESS_TEMPO": sink, "OTEL_PROGRESS_LOKI": sink}
        configs = [CONFIGS / "single.yaml", CONFIGS / "prometheus-scrape.yaml"]
        with (
            Collector(program(build.COLLECTOR), Path(folder), configs=configs, env=env) as collector,
            tour(collector.http_endpoint),
        ):
            for second in range(round(seconds) + 1):
                due = [job for job in jobs if second and not second % int(job["scrape_interval"].removesuffix("s"))]
                if due:
                    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                        text = answer.read().decode()
                    for job in due:
                        bill.scraped(text, job.get("metric_relabel_configs", ()))
                time.sleep(1)
    print(*bill.lines(), sep="\n")


def stages() -> None:
    """2,000 short operations of 10 stages: a tenth of their names are used by each."""
    import otel_progress as progress

    bill = Bill()
    with receiver(bill) as endpoint:
        progress.configure(endpoint=endpoint, service_name="bill")
        for number in range(2_000):
            with progress.operation("short"):
                for stage in range(10):
                    with progress.stage(f"part {(number + stage * 50) % 500}"):
                        progress.advance()
        progress.shutdown()
    print(*bill.lines(), sep="\n")


# -- quantiles


def quantile(bounds: Sequence[float], counts: Sequence[int], q: float) -> float:
    """The quantile as Prometheus finds it: linear within a bucket."""
    rank, below = q * sum(counts), 0
    for number, count in enumerate(counts):
        if below + count >= rank and count:
            if number == len(bounds):
                break
            low = bounds[number - 1] if number else 0.0
            return low + (bounds[number] - low) * (rank - below) / count
        below += count
    return bounds[-1]


def errors(bounds: Sequence[float], samples: list[list[float]]) -> list[float]:
    """The relative errors of p50, p90 and p95, sorted."""
    found = []
    for values in samples:
        counts = [0] * (len(bounds) + 1)
        for value in values:
            counts[bisect.bisect_left(bounds, value)] += 1
        for q in (0.5, 0.9, 0.95):
            found.append(abs(quantile(bounds, counts, q) / values[int(q * len(values))] - 1))
    return sorted(found)


def spread(low: float, high: float, count: int) -> list[float]:
    """Bounds at equal ratios."""
    return [low * (high / low) ** (number / (count - 1)) for number in range(count)]


def durations() -> list[list[float]]:
    """200 kinds of work: log-normal durations with medians from 0.3 s to 14 hours, sorted."""
    dice = random.Random(1)
    samples = []
    for _ in range(200):
        median = 10 ** dice.uniform(math.log10(0.3), math.log10(50_000))
        sigma = dice.choice((0.15, 0.3, 0.6, 1.0))
        samples.append(sorted(median * math.exp(dice.gauss(0, sigma)) for _ in range(400)))
    return samples


def quantiles() -> None:
    """Print the errors of several sets of bounds."""
    samples = durations()
    base = 2 ** (1 / 16)  # the scale to which 160 exponential buckets hold such durations
    sets = {"before": OLD_BUCKETS, "now": BUCKETS}
    sets |= {f"equal ratios, {n}": spread(0.1, 90_000, n) for n in (10, 12, 14, 17, 20, 24, 32)}
    sets["exponential, scale 4"] = [0.01 * base**n for n in range(int(math.log(2e7, base)))]
    for name, bounds in sets.items():
        found = errors(bounds, samples)
        mean = sum(found) / len(found)
        size = len(bounds) if len(bounds) < 100 else 160
        print(f"{name:22} {size:4} mean {mean:6.1%} p90 {found[int(0.9 * len(found))]:6.1%} max {found[-1]:6.1%}")


if __name__ == "__main__":
    length = float(next((word for word in sys.argv[2:] if word[0].isdigit()), 75))
    {
        "demo": lambda: demo(length),
        "scrape": lambda: scrape(length, everything="--scrape-all" in sys.argv),
        "stages": stages,
        "quantiles": quantiles,
    }[sys.argv[1]]()
