"""One place of the drill: the shipped Collector, Prometheus, Alertmanager and stores, and the webhook that is told."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from tests.stack import build
from tests.stack.backends import Backend, Prometheus
from tests.stack.collector import CONFIGS, Collector
from tests.stack.ports import free_ports
from tests.stack.stores import Jaeger, VictoriaLogs

from benchmarks.harness import ROOT, clean_environment

ALERTS = ROOT / "grafana" / "alerts"
PROMETHEUS = ROOT / "compose" / "prometheus.yaml"
JOBS = "benchmarks.incident.jobs"
SERVICE = "incident"
READY = 120.0


class Missing(Exception):
    """A program that the drill needs is not installed."""


def program(name: str, *system: str) -> Path:
    """Return a built program, or one of the system."""
    found = build.binary(name) if name else None
    found = found or next((Path(path) for it in system if (path := shutil.which(it))), None)
    if found is None:
        raise Missing(f"there is no {name or system[0]}: `make stack` builds or installs it")
    return found


class ShippedPrometheus(Prometheus):
    """A Prometheus that receives OTLP, or only scrapes."""

    def __init__(self, binary: Path, directory: Path, *, otlp: bool) -> None:
        super().__init__(binary, directory)
        self.otlp = otlp

    def command(self) -> Sequence[str]:
        """Return the command that starts it."""
        given = super().command()
        return given if self.otlp else [it for it in given if it != "--web.enable-otlp-receiver"]


class Alertmanager(Backend):
    """An Alertmanager with the shipped routing."""

    name = "alertmanager"
    ready_path = "/-/ready"
    ports = 1

    def command(self) -> Sequence[str]:
        """Return the command that starts it."""
        return [
            str(self.binary),
            f"--config.file={self.config}",
            f"--storage.path={self.data}",
            "--cluster.listen-address=",
            f"--web.listen-address=127.0.0.1:{self._ports[0]}",
        ]


class Webhook:
    """Receives the requests of Alertmanager, with the time of each."""

    def __init__(self) -> None:
        self.messages: list[tuple[float, dict[str, Any]]] = []
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                webhook.messages.append((time.time(), body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        """Stop listening."""
        self.server.shutdown()
        self.server.server_close()


class Run:
    """A program of the drill, and the moments that it reported."""

    def __init__(
        self, kind: str, name: str, endpoint: str, moments: dict[str, float], wrap: Sequence[str] = ()
    ) -> None:
        self.name, self.moments = name, moments
        self.pid = 0
        self.ready = threading.Event()
        env = {**clean_environment(), "OTEL_SERVICE_NAME": SERVICE, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        command = [*wrap, sys.executable, "-m", JOBS, kind, name]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            match line.split():
                case ["ready", pid]:
                    self.pid = int(pid)
                    self.ready.set()
                case ["moment", name, at]:
                    self.moments[f"{self.name}.{name}"] = float(at)

    def tell(self, order: str) -> None:
        """Send it an order; one that is gone hears nothing."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.write(order + "\n")
            self.process.stdin.flush()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the program itself, not to its runner."""
        if not self.ready.wait(30):
            raise RuntimeError(f"{self.name} did not start")
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def close(self) -> None:
        """Make sure that it is gone."""
        if self.process.poll() is None:
            if self.ready.is_set():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(3)
            self.process.kill()
        self.process.wait()


class Place:
    """The running programs of one place."""

    def __init__(self, name: str, folder: Path, *, scrape: bool) -> None:
        self.name, self.folder, self.scrape = name, folder, scrape
        self.webhook = Webhook()
        self.moments: dict[str, float] = {}
        self.runs: dict[str, Run] = {}
        self.prometheus: Prometheus
        self.logs: VictoriaLogs
        self.traces: Jaeger
        self.collector: Collector

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Start everything; the runs end with it."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.webhook.close)
            guard, [own, jobs] = free_ports(2)
            stack.enter_context(guard)
            self.logs = VictoriaLogs(program("victorialogs"), self.folder / "victorialogs")
            self.traces = Jaeger(program("jaeger"), self.folder / "jaeger")
            binary = program("prometheus")
            self.prometheus = ShippedPrometheus(binary, self.folder / "prometheus", otlp=not self.scrape)
            for store in (self.logs, self.traces):
                store.start()
                stack.callback(store.kill)  # nobody needs what they would still write
            self.collector = self._collector(own, jobs)
            self.collector.start()
            stack.callback(self.collector.kill)
            manager = Alertmanager(program("", "prometheus-alertmanager", "alertmanager"), self.folder / "alertmanager")
            manager.config = self._routing()
            self.prometheus.config = self._rules(manager, own, jobs)
            for server in (manager, self.prometheus):
                server.start()
                stack.callback(server.kill)
            stack.callback(self._close_runs)
            self._wait_until_it_works()
            yield

    def _collector(self, own: int, jobs: int) -> Collector:
        env = {
            "OTEL_PROGRESS_SELF_PORT": str(own),
            "OTEL_PROGRESS_SCRAPE": f"127.0.0.1:{jobs}",
            "OTEL_PROGRESS_PROMETHEUS": self.prometheus.otlp_endpoint,
            "OTEL_PROGRESS_JAEGER": self.traces.otlp_endpoint,
            "OTEL_PROGRESS_VICTORIALOGS": self.logs.otlp_endpoint,
        }
        names = ["single.yaml", "jaeger-victorialogs.yaml", *(["prometheus-scrape.yaml"] if self.scrape else [])]
        configs = [CONFIGS / name for name in names]
        return Collector(program(build.COLLECTOR), self.folder / "collector", configs=configs, env=env)

    def _routing(self) -> Path:
        """Return a copy of the shipped routing, with the webhook's address, and addresses in the links."""
        copied = self.folder / "alerts"
        shutil.copytree(ALERTS, copied, dirs_exist_ok=True)
        links = copied / "links.yaml"
        if links.exists():
            links.write_text(links.read_text().replace(".invalid", ".example"))
        file = copied / "alertmanager.yaml"
        file.write_text(file.read_text().replace("127.0.0.1:9099", self.webhook.address))
        return file

    def _rules(self, manager: Alertmanager, own: int, jobs: int) -> Path:
        """Return a copy of the shipped configuration of Prometheus, with other addresses."""
        given = yaml.safe_load(PROMETHEUS.read_text())
        given["rule_files"] = [str(self.folder / "alerts" / Path(it).name) for it in given["rule_files"]]
        address = manager.endpoint.removeprefix("http://")
        given["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [address]}]}]
        shown = {"otel-collector": f"127.0.0.1:{own}", "prometheus": self.prometheus.endpoint.removeprefix("http://")}
        kept = [it for it in given["scrape_configs"] if it["job_name"] in shown]
        for it in kept:
            it["static_configs"] = [{"targets": [shown[it["job_name"]]]}]
        given["scrape_configs"] = kept
        if self.scrape:
            del given["otlp"]
            given["storage"] = {}
            kept += documented_scrape(jobs)
        file = self.folder / "prometheus.yaml"
        file.write_text(yaml.safe_dump(given))
        return file

    def _wait_until_it_works(self) -> None:
        end = time.monotonic() + READY
        while time.monotonic() < end:
            if self.prometheus.query("collector:progress_works:count == 1"):
                return
            time.sleep(0.5)
        raise RuntimeError(f"Prometheus saw no working Collector within {READY:g} s")

    def start(self, kind: str, name: str, *, watched: bool, group: Path | None = None) -> None:
        """Start a program, under `otel-progress run` if it is watched."""
        wrap = [sys.executable, "-m", "otel_progress.cli", "run", "--"] if watched else []
        if group is not None:
            # A shell enters the control group, so that only this program is limited.
            wrap = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group), *wrap]
        self.runs[name] = Run(kind, name, self.collector.http_endpoint, self.moments, wrap)

    def wait_until_ready(self) -> None:
        """Wait until all programs work."""
        for run in self.runs.values():
            if not run.ready.wait(READY):
                raise RuntimeError(f"{run.name} was not ready within {READY:g} s")

    def kill(self, name: str) -> None:
        """Kill a program."""
        self.runs[name].send(signal.SIGKILL)
        self.moments[f"{name}.cause"] = time.time()

    def deploy(self) -> None:
        """Replace the deployed programs: each is sent SIGTERM, and a new one starts."""
        old = [run for name, run in self.runs.items() if name.startswith("deploy-old")]
        for run in old:
            run.send(signal.SIGTERM)
            self.start("deployed", run.name.replace("old", "new"), watched=False)

    def down(self) -> None:
        """Stop the Collector."""
        self.collector.stop()
        self.moments["down"] = time.time()

    def up(self) -> None:
        """Start the Collector again."""
        self.collector.start()
        self.moments["up"] = time.time()

    def _close_runs(self) -> None:
        for run in self.runs.values():
            run.close()


def documented_scrape(jobs: int) -> list[dict[str, Any]]:
    """Return the jobs for the series of runs that prometheus-scrape.yaml documents, with another address."""
    text = (CONFIGS / "prometheus-scrape.yaml").read_text()
    block = re.search(r"^# +scrape_configs:\n((?:# +.*\n)+)", text, re.MULTILINE)
    if block is None:
        raise RuntimeError("prometheus-scrape.yaml documents no scrape job")
    lines = [line.removeprefix("#") for line in block[0].splitlines()]
    indent = len(lines[0]) - len(lines[0].lstrip())
    found = yaml.safe_load("\n".join(line[indent:] for line in lines))["scrape_configs"]
    wanted: list[dict[str, Any]] = [it for it in found if it["job_name"].startswith("otel-progress")]
    for job in wanted:
        job["static_configs"] = [{"targets": [f"127.0.0.1:{jobs}"]}]
    return wanted


Say = Callable[[str], None]
Values = Mapping[str, float]
