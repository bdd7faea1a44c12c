"""The time of all queries of one refresh of a dashboard while 2,000 runs are alive, on a real Prometheus.

python -m benchmarks.refresh [RUNS] [MINUTES]    default 2,000 runs with a history of 10 minutes; takes about 3 minutes

It sends the run series of all runs each 10 s, as the library does, lets the shipped rules work for a minute, and then
asks what an open dashboard asks of Prometheus at a refresh, one query after another, five times. With `--without-rules`
there are no rules, and the dashboards compute what these would have recorded.
"""

from __future__ import annotations

import http.client
import json
import os
import struct
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from grafana.generator import DASHBOARDS, links
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from tests.stack import build
from tests.stack.backends import Prometheus
from tests.stack.grafana_queries import interpolate

from otel_progress import semconv as s

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "tests" / "stack" / "config" / "prometheus.yaml"
RULES = ROOT / "grafana" / "alerts"
STEP = 10
ROUNDS = 5
NOTHING: Mapping[str, str] = {}
PROCESSES = 20
MARK = 0x7FFFFFFFFFFFFFF1
"""The time in a request that is to be replaced."""
CHOSEN = {
    **dict.fromkeys(("environment", "cluster", "namespace", "job", "name", "service"), ".*"),
    "heard": "45s",
    "gap": "3m",
    "known": "6h",
    "window": "1h",
    "id": "run-7",
    "currency": "USD",
}
IN_TROUBLE = {"silent": 40, "looping": 10, "slow": 40, "waiting": 200}
"""How many runs of 2,000 have which verdict; the others make progress."""


class Request:
    """The run series of one process as an OTLP request, at the time `MARK`."""

    def __init__(self, process: int) -> None:
        self.request = ExportMetricsServiceRequest()
        resource = self.request.resource_metrics.add()
        for key, value in (("service.name", "shop"), ("service.instance.id", f"process-{process}")):
            resource.resource.attributes.add(key=key).value.string_value = value
        self.scope = resource.scope_metrics.add()
        self.metrics: dict[s.Metric, Any] = {}

    def point(self, metric: s.Metric, run: int, value: float, more: Mapping[str, str] = NOTHING) -> None:
        """Add a point of a run."""
        if metric not in self.metrics:
            self.metrics[metric] = self.scope.metrics.add(name=metric.name, unit=metric.unit).gauge
        data = self.metrics[metric].data_points.add(time_unix_nano=MARK, as_double=value)
        for key, text in {s.OPERATION_NAME: f"kind-{run % 7}", s.OPERATION_ID: f"run-{run}", **more}.items():
            data.attributes.add(key=key).value.string_value = text


def add(request: Request, run: int, health: str, start: float) -> None:
    """Add all series of a run."""
    values: dict[s.Metric, float] = {
        s.RUN_ACTIVE: 1,
        s.RUN_START_TIME: start - run % 600,
        s.RUN_IDLE: 400 if health == "silent" else run % 50,
        s.RUN_STALL_AFTER: 300,
        s.RUN_SLOW_AFTER: 30 if health == "slow" else 86400,
    }
    if health == "waiting":
        values[s.RUN_WAIT_REMAINING] = -5 if run % 10 == 0 else 600
    if run % 2:
        values |= {s.RUN_RATIO: 0.5, s.RUN_COMPLETED: 500, s.RUN_TOTAL: 1000, s.RUN_ETA: 60}
    for metric, value in values.items():
        request.point(metric, run, value)
    if not run % 2:
        for metric, value in ((s.RUN_COMPLETED, 500), (s.RUN_TOTAL, 1000), (s.RUN_ETA, 60)):
            request.point(metric, run, value, {s.OF: s.OF_STAGE})
    stuck = {s.STUCK_AT: "job.py:7 in load"} if health == "silent" else {}
    request.point(s.RUN_HEALTH, run, 1, {s.HEALTH: health, s.STAGE_NAME: f"stage {run % 5}", **stuck})


def requests(runs: int, start: float) -> list[bytes]:
    """Return one request for each process."""
    healths = [name for name, count in IN_TROUBLE.items() for _ in range(count * runs // 2000)]
    found = []
    for process in range(PROCESSES):
        request = Request(process)
        for run in range(process, runs, PROCESSES):
            add(request, run, healths[run] if run < len(healths) else "progressing", start)
        found.append(request.request.SerializeToString())
    return found


def send(prometheus: Prometheus, bodies: list[bytes], moment: float) -> None:
    """Send all requests with a time."""
    url = urlsplit(f"{prometheus.otlp_endpoint}/v1/metrics")
    connection = http.client.HTTPConnection(url.netloc, timeout=60)
    for body in bodies:
        at = body.replace(struct.pack("<Q", MARK), struct.pack("<Q", int(moment * 1e9)))
        connection.request("POST", url.path, at, {"Content-Type": "application/x-protobuf"})
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == http.client.OK, text
    connection.close()


def queries(uid: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Return the queries of the panels, marks and variables that an open dashboard asks of Prometheus at a refresh."""
    name = uid.removeprefix("otel-progress-")
    dashboard = json.loads((ROOT / "grafana" / "dashboards" / f"{name}.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:  # those of collapsed rows are deeper
        for target in panel.get("targets", ()):
            if target["datasource"]["type"] == "prometheus":
                yield f"{panel['title']} {target['refId']}", target
    for mark in dashboard["annotations"]["list"]:
        if mark["datasource"]["type"] == "prometheus" and mark["enable"]:
            yield mark["name"], {**mark, "instant": False}
    for variable in dashboard["templating"]["list"]:
        text = variable["query"]["query"] if variable["type"] == "query" else ""
        if text.startswith("query_result("):
            yield f"${variable['name']}", {"expr": text[len("query_result(") : -1], "instant": True}


def used(prometheus: Prometheus) -> float:
    """Return the processor time that Prometheus has used, in seconds."""
    fields = Path(f"/proc/{prometheus.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(title: str, prometheus: Prometheus, bodies: list[bytes], asked: dict[str, tuple[str, bool]]) -> None:
    """Print the processor time of one round of queries, the mean of five, and the least time of each query."""
    found: dict[str, tuple[float, int]] = {}
    took = 0.0
    for _ in range(ROUNDS):
        now = time.time()
        send(prometheus, bodies, now)  # on a busy machine they would else be silent for too long
        before = used(prometheus)
        for name, (text, instant) in asked.items():
            begun = time.monotonic()
            rows = prometheus.query(text, now) if instant else prometheus.query_range(text, now - 3600, now, 60)
            found[name] = min(found.get(name, (9e9, 0)), (time.monotonic() - begun, len(rows)))
        took += (used(prometheus) - before) / ROUNDS
    least = sum(seconds for seconds, _ in found.values())
    print(f"{title}: {took:.2f} s of processor time, {least:.2f} s one after another, for {len(found)} queries")
    for name, (seconds, count) in found.items():
        print(f"  {1000 * seconds:7.0f} ms {count:6} rows  {name}")


def record(prometheus: Prometheus, bodies: list[bytes], start: float) -> None:
    """Send a history from `start` on, and then a minute in real time."""
    for moment in range(int(start), int(time.time()), STEP):
        send(prometheus, bodies, moment)
    for _ in range(6):
        begun = time.time()
        send(prometheus, bodies, begun)
        time.sleep(max(0.0, STEP - (time.time() - begun)))


def main(arguments: list[str]) -> None:
    """Print the times."""
    numbers = [int(it) for it in arguments if it.isdigit()]
    runs, minutes = [*numbers, *(2000, 10)[len(numbers) :]]
    ruled = "--without-rules" not in arguments
    chosen = {**CHOSEN, "unrecorded": "-" if ruled else ".+"}
    files = [it for it in sorted(RULES.glob("*.yaml")) if "\ngroups:" in it.read_text(encoding="utf-8")]
    start = time.time() - 60 * minutes
    bodies = requests(runs, start)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "prometheus.yaml"
        base = CONFIG.read_text(encoding="utf-8")
        config.write_text(f"{base}\nrule_files: {json.dumps([str(it) for it in files if ruled])}\n", encoding="utf-8")
        with Prometheus(build.build("prometheus"), Path(folder) / "prometheus", config=config) as prometheus:
            record(prometheus, bodies, start)
            # Rules that go on beside the queries would count as theirs.
            prometheus.stop()
            config.write_text(base, encoding="utf-8")
            prometheus.start()
            send(prometheus, bodies, time.time())
            for uid in (links.NOW, links.OPERATION):
                asked = {
                    name: (interpolate(str(target["expr"]), chosen), bool(target["instant"]))
                    for name, target in queries(uid)
                }
                report(next(it.title for it in DASHBOARDS if it.uid == uid), prometheus, bodies, asked)
            for file in files if ruled else ():
                for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]:
                    recorded = {it["record"]: (it["expr"], True) for it in group["rules"] if "record" in it}
                    report(f"rules {group['name']}, each {group['interval']}", prometheus, bodies, recorded)


if __name__ == "__main__":
    main(sys.argv[1:])
