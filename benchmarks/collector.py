"""Throughput of one Collector: requests of a real program, repeated through collector-config/single.yaml.

python -m benchmarks.collector COLLECTOR

The measure is CPU time of the Collector, so other load on the machine does not matter.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import psutil
import requests
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

ROOT = Path(__file__).parents[1]
PROGRAM = """
import time
import otel_progress as progress
progress.configure()
handles = []
for number in range(100):
    handle = progress.operation("import", total=1000, unit="row", stall_after=60, slow_after=3600).start()
    handle.stage("read").start().complete()
    handles.append((handle, handle.stage("load", total=1000).start()))
for _ in range(120):
    for _, stage in handles:
        stage.advance()
    time.sleep(0.1)
for handle, stage in handles:
    stage.complete()
    handle.complete()
"""
BACKEND = """
receivers:
  otlp: {protocols: {http: {endpoint: "127.0.0.1:%d"}}}
exporters: {nop: }
service:
  telemetry: {metrics: {level: none}}
  pipelines:
    logs: {receivers: [otlp], exporters: [nop]}
    traces: {receivers: [otlp], exporters: [nop]}
    metrics: {receivers: [otlp], exporters: [nop]}
"""
SECONDS = 10
SENT = {"logs": "log_records", "metrics": "metric_points", "traces": "spans"}


def ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    found = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return found


def records(signal: str, body: bytes) -> int:
    """Count the events, points or spans of a request."""
    if signal == "logs":
        logs = ExportLogsServiceRequest.FromString(body)
        return sum(len(scope.log_records) for one in logs.resource_logs for scope in one.scope_logs)
    if signal == "traces":
        traces = ExportTraceServiceRequest.FromString(body)
        return sum(len(scope.spans) for one in traces.resource_spans for scope in one.scope_spans)
    metrics = ExportMetricsServiceRequest.FromString(body)
    found = [m for one in metrics.resource_metrics for scope in one.scope_metrics for m in scope.metrics]
    return sum(len(getattr(m, m.WhichOneof("data")).data_points) for m in found)


def captured() -> dict[str, list[bytes]]:
    """Return the requests of the program."""
    bodies: dict[str, list[bytes]] = defaultdict(list)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            bodies[self.path.rpartition("/")[2]].append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    env = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}"}
    subprocess.run([sys.executable, "-c", PROGRAM], env=env, check=True)
    server.shutdown()
    return bodies


def own(port: int, prefix: str) -> float:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(prefix))


def replay(signal: str, bodies: list[bytes], url: str) -> None:
    """Send the requests repeatedly, in two threads."""
    end = time.monotonic() + SECONDS

    def work() -> None:
        session = requests.Session()
        session.headers["Content-Type"] = "application/x-protobuf"
        for body in itertools.cycle(bodies):
            if time.monotonic() > end:
                return
            session.post(f"{url}/v1/{signal}", data=body, timeout=30)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    collector = sys.argv[1]
    found = captured()
    behind, grpc, http, health, self_port = ports(5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "backend.yaml").write_text(BACKEND % behind)
        env = {
            **os.environ,
            "OTEL_PROGRESS_GRPC": f"127.0.0.1:{grpc}",
            "OTEL_PROGRESS_HTTP": f"127.0.0.1:{http}",
            "OTEL_PROGRESS_HEALTH": f"127.0.0.1:{health}",
            "OTEL_PROGRESS_SELF_PORT": str(self_port),
            "OTEL_PROGRESS_DATA": str(folder / "data"),
            **dict.fromkeys(
                ("OTEL_PROGRESS_TEMPO", "OTEL_PROGRESS_PROMETHEUS", "OTEL_PROGRESS_LOKI"), f"http://127.0.0.1:{behind}"
            ),
        }
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        configs = (folder / "backend.yaml", ROOT / "collector-config" / "single.yaml")
        running = [subprocess.Popen([collector, f"--config={config}"], env=env, **quiet) for config in configs]  # type: ignore[call-overload]
        try:
            time.sleep(3)
            process = psutil.Process(running[1].pid)
            for signal in ("logs", "metrics", "traces"):
                bodies = found[signal]
                count = sum(records(signal, body) for body in bodies)
                before, begin = process.cpu_times(), time.monotonic()
                replay(signal, bodies, f"http://127.0.0.1:{http}")
                accepted = own(self_port, f"otelcol_receiver_accepted_{SENT[signal]}")
                while own(self_port, f"otelcol_exporter_sent_{SENT[signal]}") < accepted:
                    time.sleep(0.1)
                wall, after = time.monotonic() - begin, process.cpu_times()
                used = after.user + after.system - before.user - before.system
                print(
                    f"{signal}: {sum(map(len, bodies)) / count:.0f} bytes each, {count / len(bodies):.0f} a request; "
                    f"{accepted:.0f} in {wall:.1f} s, {accepted / used:.0f} for each second of a core; "
                    f"memory {process.memory_info().rss / 2**20:.0f} MiB"
                )
        finally:
            for one in running:
                one.terminate()
            for one in running:
                one.wait()


if __name__ == "__main__":
    main()
