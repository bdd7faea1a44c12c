"""The configurations in collector-config/, each started for real with data of real programs."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import ssl
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from .backends import Prometheus
from .collector import CONFIGS, LOCAL, Collector
from .needed import installed
from .ports import free_ports
from .test_collector import send
from .test_sdk import PROGRAM, STATE, Run, events, last, points

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

FORWARD, SINGLE, AGENT, GATEWAY, SCRAPE, FREE, METRICS = (
    CONFIGS / f"{name}.yaml"
    for name in ("forward", "single", "agent", "gateway", "prometheus-scrape", "jaeger-victorialogs", "metrics-only")
)
COMBINATIONS = (
    (LOCAL,),
    (LOCAL, FORWARD),
    (SINGLE,),
    (SINGLE, SCRAPE),
    (SINGLE, FREE),
    (SINGLE, FREE, SCRAPE),
    (SINGLE, GATEWAY),
    (SINGLE, GATEWAY, SCRAPE),
    (SINGLE, METRICS),
    (SINGLE, SCRAPE, METRICS),
    (SINGLE, GATEWAY, METRICS),
    (AGENT,),
)
"""The variables for each file: all that the files' headers name."""
README = CONFIGS / "README.md"
TOKEN = "7d6f0c1e"
SELF = "OTEL_PROGRESS_SELF_PORT"
SMALLEST = "262144"
"""The least `OTEL_PROGRESS_QUEUE`, in bytes."""

pytestmark = [pytest.mark.timeout(120)]


@pytest.mark.parametrize("configs", COMBINATIONS, ids=lambda files: "+".join(file.stem for file in files))
def test_configuration_is_valid(collector_binary: Path, configs: Sequence[Path], certificates: Path) -> None:
    """The real Collector validates each configuration, alone or merged as its header says."""
    done = subprocess.run(
        [collector_binary, "validate", *(f"--config={file}" for file in configs)],
        env={
            **os.environ,
            "OTEL_PROGRESS_FORWARD": "http://127.0.0.1:4318",
            "OTEL_PROGRESS_GATEWAYS": "[127.0.0.1:4317, 127.0.0.1:5317]",
            "OTEL_PROGRESS_TLS": str(certificates),
            "OTEL_PROGRESS_TOKEN": TOKEN,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_file_is_used() -> None:
    """These tests cover every configuration, and the table of the README names each."""
    files = {file for files in COMBINATIONS for file in files}
    assert files == set(CONFIGS.glob("*.yaml"))
    text = README.read_text(encoding="utf-8")
    assert [file.name for file in files if f"| `{file.name}`" not in text] == []


@pytest.mark.parametrize("config", [FORWARD, SINGLE, AGENT, FREE], ids=lambda file: file.stem)
def test_nothing_is_given_up(config: Path) -> None:
    """What cannot be sent is retried without end; the Collector's default is five minutes."""
    text = config.read_text(encoding="utf-8")
    assert re.findall(r"max_elapsed_time: (\S+)", text) == ["0"]
    written = re.findall(r"retry_on_failure:(?: (&\w+|\*\w+))?\n", text)
    assert all(one.startswith("*") for one in written[1:])


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory with the certificates that the commands in the README make."""
    found = re.search(r"```sh\n(mkdir -p tls\n.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    folder = tmp_path_factory.mktemp("certificates")
    subprocess.run(["sh", "-e", "-c", found[1]], cwd=folder, check=True, capture_output=True, timeout=60)
    return folder / "tls"


class Watched(Collector):
    """A Collector whose own metrics can be read."""

    self_metrics = ""


@contextlib.contextmanager
def collector_with(
    binary: Path, folder: Path, *configs: Path, backend: Collector | None = None, env: dict[str, str] | None = None
) -> Iterator[Watched]:
    """A Collector that sends to a backend, with a port of its own for its own metrics."""
    guard, [own] = free_ports(1)
    if backend is not None:
        names = ("OTEL_PROGRESS_TEMPO", "OTEL_PROGRESS_PROMETHEUS", "OTEL_PROGRESS_LOKI")
        env = {**(env or {}), **dict.fromkeys(names, backend.http_endpoint)}
    with guard, Watched(binary, folder, configs=configs, env={**(env or {}), SELF: str(own)}) as running:
        running.self_metrics = f"http://127.0.0.1:{own}/metrics"
        yield running


def own_metrics(collector: Watched) -> dict[str, float]:
    """Return the sums of the Collector's own metrics, by name."""
    with urlopen(collector.self_metrics, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    sums: dict[str, float] = {}
    for line in lines:
        if not line.startswith("#"):
            name = re.match(r"\w+", line)
            assert name is not None
            sums[name[0]] = sums.get(name[0], 0) + float(line.split()[-1])
    return sums


def stages(collector: Collector, operation: str) -> set[object]:
    """Return the names of the stages of an operation that are reported as ended."""
    found = events(collector, operation)
    return {log["attributes"]["progress.stage.name"] for log in found if log["event_name"] == STATE[2]}


def all_arrived(collector: Collector, operation: str) -> bool:
    """Return whether everything that an operation of the program sends arrived after its end."""
    return bool(
        last(collector, operation).get("progress.status") == "completed"
        and {"work", "first", "second"} <= {span["name"] for span in collector.spans()}
        and points(collector, "progress.operation.ended")
        and points(collector, "progress.run.active", operation_id=operation)
        and max((point["time"], point["value"]) for point in points(collector, "progress.run.active"))[1] == 0
    )


def test_single_passes_all_on(collector_binary: Path, collector: Collector, tmp_path: Path) -> None:
    """The single Collector exports events, spans, run series and metrics by name; the rules find its own metrics."""
    with collector_with(collector_binary, tmp_path / "single", SINGLE, backend=collector) as single:
        with Run(single, "http/protobuf", "work", "op-1") as program:
            program.line("ready")
            collector.wait_for(lambda: points(collector, "progress.run.active", operation_id="op-1"))
            assert last(collector, "op-1")["progress.status"] == "running"
            program.end()
        collector.wait_for(lambda: all_arrived(collector, "op-1"))
        own = own_metrics(single)
        assert own["otelcol_exporter_sent_metric_points_total"] > 0
        assert own["otelcol_receiver_accepted_metric_points_total"] > 0
        assert own["otelcol_exporter_queue_capacity"] == 3 * 2**30


def test_metrics_only_takes_all_and_keeps_metrics(collector_binary: Path, collector: Collector, tmp_path: Path) -> None:
    """Without stores for traces and logs these are accepted without end, and nothing waits; metrics are sent."""
    env = {"OTEL_PROGRESS_QUEUE": SMALLEST}
    with collector_with(collector_binary, tmp_path / "single", SINGLE, METRICS, backend=collector, env=env) as single:
        assert {post_log(single) for _ in range(150)} == {200}
        with Run(single, "http/protobuf", "work", "op-1") as program:
            program.line("ready")
            collector.wait_for(lambda: points(collector, "progress.run.active", operation_id="op-1"))
            program.end()
        assert own_metrics(single)["otelcol_exporter_queue_capacity"] == int(SMALLEST)
    assert not collector.logs()
    assert not collector.spans()


@pytest.mark.parametrize("configs", [(SINGLE,), (SINGLE, FREE), (AGENT,)], ids=lambda files: files[-1].stem)
def test_smallest_queue_is_the_one_in_the_table(
    collector_binary: Path, certificates: Path, configs: Sequence[Path]
) -> None:
    """A queue of the documented least size is accepted, one of a byte less is not."""
    assert f"At least {SMALLEST}" in README.read_text(encoding="utf-8")
    env = {"OTEL_PROGRESS_GATEWAYS": "[127.0.0.1:4317]", "OTEL_PROGRESS_TLS": str(certificates)}
    command: list[Path | str] = [collector_binary, "validate", *(f"--config={file}" for file in configs)]
    codes = []
    for size in (SMALLEST, str(int(SMALLEST) - 1)):
        given = {**os.environ, **env, "OTEL_PROGRESS_TOKEN": TOKEN, "OTEL_PROGRESS_QUEUE": size}
        codes.append(subprocess.run(command, env=given, capture_output=True, timeout=60, check=False).returncode == 0)
    assert codes == [True, False]


def post_log(collector: Collector) -> int:
    """Send a log event of 5 kB, and return the status of the answer."""
    record = {"timeUnixNano": "1", "body": {"stringValue": "x" * 5000}}
    body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]})
    connection = http.client.HTTPConnection(urlsplit(collector.http_endpoint).netloc, timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/logs", body, {"Content-Type": "application/json"})
        return connection.getresponse().status


def test_single_loses_nothing_over_outage_and_kill(
    collector_binary: Path, collector: Collector, tmp_path: Path
) -> None:
    """Data from an outage of the backends, with a killed Collector, arrives when they are back."""
    with collector_with(collector_binary, tmp_path / "single", SINGLE, backend=collector) as single:
        with Run(single, "http/protobuf", "work", "op-1") as program:
            program.line("ready")
            collector.wait_for(lambda: points(collector, "progress.run.active"))
            collector.stop()
            said = [f"say-{number}" for number in range(10)]
            for word in said:
                program.tell(f"{word} while all is away")
                program.line("said")
            program.end()
        single.kill()
        single.start()
        collector.start()
        collector.wait_for(lambda: all_arrived(collector, "op-1"), 60)
        assert stages(collector, "op-1") == {"first", "second", *said}
        assert {span["name"] for span in collector.spans()} == {"work", "first", "second", *said}


@pytest.mark.parametrize("config", [SINGLE, AGENT], ids=lambda file: file.stem)
def test_full_queue_is_told(collector_binary: Path, tmp_path: Path, certificates: Path, config: Path) -> None:
    """When the queue is full, the sender is asked to retry later: nothing is dropped."""
    nobody = "127.0.0.1:1"
    env = {
        "OTEL_PROGRESS_QUEUE": "300000",
        "OTEL_PROGRESS_LOKI": f"http://{nobody}",
        "OTEL_PROGRESS_GATEWAYS": f"[{nobody}]",
        "OTEL_PROGRESS_TOKEN": TOKEN,
        "OTEL_PROGRESS_TLS": str(certificates),
    }
    with collector_with(collector_binary, tmp_path, config, env=env) as full:
        statuses = [post_log(full) for _ in range(150)]
    taken = statuses.index(503)
    assert taken > 10
    assert statuses == [200] * taken + [503] * (150 - taken)


class Tier(NamedTuple):
    """Agent, gateways, and the backend behind each gateway."""

    agent: Collector
    gateways: tuple[Collector, ...]
    backends: tuple[Collector, ...]

    def home(self, operation: str) -> int | None:
        """Return the number of the gateway that handles the events of an operation."""
        found = [number for number, backend in enumerate(self.backends) if events(backend, operation)]
        assert len(found) < 2, "the events of one process came on two ways"
        return found[0] if found else None


def address(collector: Collector) -> str:
    """Return its gRPC address, with the name in the certificate."""
    return f"localhost:{urlsplit(collector.grpc_endpoint).port}"


@pytest.fixture
def tier(collector_binary: Path, tmp_path: Path, certificates: Path) -> Iterator[Tier]:
    """Return an agent and two gateways with TLS and a token, each with a backend of its own."""
    with contextlib.ExitStack() as stack:
        secure = {"OTEL_PROGRESS_TLS": str(certificates), "OTEL_PROGRESS_TOKEN": TOKEN}
        backends = tuple(
            stack.enter_context(Collector(collector_binary, tmp_path / f"backend-{number}")) for number in range(2)
        )
        gateways = tuple(
            stack.enter_context(
                collector_with(
                    collector_binary, tmp_path / f"gateway-{number}", SINGLE, GATEWAY, backend=backend, env=secure
                )
            )
            for number, backend in enumerate(backends)
        )
        env = {**secure, "OTEL_PROGRESS_GATEWAYS": f"[{', '.join(map(address, gateways))}]"}
        agent = stack.enter_context(collector_with(collector_binary, tmp_path / "agent", AGENT, env=env))
        yield Tier(agent, gateways, backends)


@contextlib.contextmanager
def programs(tier: Tier) -> Iterator[dict[str, Run]]:
    """Run programs that send through the agent, until each gateway has one."""
    with contextlib.ExitStack() as stack:
        running: dict[str, Run] = {}
        for number in range(16):
            name = f"op-{number}"
            running[name] = stack.enter_context(Run(tier.agent, "http/protobuf", "work", name))
            running[name].line("ready")
            tier.agent.wait_for(lambda name=name: tier.home(name) is not None)  # type: ignore[misc]
            if {tier.home(name) for name in running} == {0, 1}:
                break
        yield running


def instances(collector: Collector, what: str) -> set[object]:
    """Return the processes whose logs or metrics arrived."""
    found = collector.logs() if what == "logs" else collector.metric_points()
    return {item["resource"]["service.instance.id"] for item in found}


def traces(collector: Collector) -> set[str]:
    """Return the ids of the traces whose spans arrived."""
    return {span["trace_id"] for span in collector.spans()}


def test_tier_keeps_together_what_belongs_together(tier: Tier) -> None:
    """Both gateways have work; events and series of a process, and the spans of a trace, use one of them."""
    with programs(tier) as running:
        for name, program in running.items():
            program.end()
            backend = tier.backends[tier.home(name) or 0]
            backend.wait_for(lambda name=name, backend=backend: last(backend, name)["progress.status"] == "completed")  # type: ignore[misc]
    one, other = tier.backends
    one.wait_for(lambda: len(one.spans()) + len(other.spans()) == 3 * len(running))
    assert not traces(one) & traces(other)
    for what in ("logs", "metrics"):
        assert not instances(one, what) & instances(other, what)
        assert len(instances(one, what) | instances(other, what)) == len(running)


def test_traces_are_spread(tier: Tier) -> None:
    """The traces of one process use both gateways, each trace as a whole, even if its spans arrive one by one."""
    ids = [f"{number:032x}" for number in range(1, 25)]
    for span_id in ("000000000000000a", "000000000000000b"):
        for trace_id in ids:
            span = {"name": "load", "traceId": trace_id, "spanId": span_id}
            send(tier.agent.http_endpoint, "traces", {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})
    one, other = tier.backends
    one.wait_for(lambda: len(one.spans()) + len(other.spans()) == 2 * len(ids))
    assert not traces(one) & traces(other)
    assert traces(one)
    assert traces(other)


def test_gateway_restarts_without_loss(tier: Tier) -> None:
    """While a gateway is killed the other's share goes on; the queued data arrives when it is back."""
    said = [f"say-{number}" for number in range(10)]
    with programs(tier) as running:
        homes = {tier.home(name): name for name in running}
        victim, other = homes[0], homes[1]
        tier.gateways[0].kill()
        for word in said:
            for name in (victim, other):
                running[name].tell(f"{word} while a gateway is away")
                running[name].line("said")
        tier.backends[1].wait_for(lambda: stages(tier.backends[1], other) >= set(said))
        assert not stages(tier.backends[0], victim) & set(said)
        running[victim].end()
        tier.gateways[0].start()
        tier.backends[0].wait_for(lambda: last(tier.backends[0], victim)["progress.status"] == "completed", 60)
        assert stages(tier.backends[0], victim) == {"first", "second", *said}
        # Traces have their own key, so some of them may have waited for the gateway too.
        tier.agent.wait_for(
            lambda: {"work", *said} <= {span["name"] for backend in tier.backends for span in backend.spans()}, 60
        )
        for name in running.keys() - {victim}:
            running[name].end()


def test_wrong_token_is_refused(
    tier: Tier, collector_binary: Path, tmp_path: Path, certificates: Path, run_program: Callable[..., int]
) -> None:
    """A gateway accepts nothing without its token or without TLS, neither from an agent nor from a program."""
    env = {
        "OTEL_PROGRESS_TLS": str(certificates),
        "OTEL_PROGRESS_TOKEN": "guessed",
        "OTEL_PROGRESS_GATEWAYS": f"[{address(tier.gateways[0])}]",
    }
    with collector_with(collector_binary, tmp_path / "stranger", AGENT, env=env) as stranger:
        with Run(stranger, "http/protobuf", "work", "refused") as program:
            program.line("ready")
            program.end()
        stranger.wait_for(lambda: "Unauthenticated" in stranger.log_file.read_text(encoding="utf-8"))
    port = urlsplit(tier.gateways[0].http_endpoint).port
    assert port is not None
    known = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
    for token, status in ((None, 401), ("guessed", 401), (TOKEN, 200)):
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        connection = http.client.HTTPSConnection("localhost", port, context=known, timeout=10)
        with contextlib.closing(connection):
            connection.request("POST", "/v1/logs", "{}", headers)
            assert connection.getresponse().status == status
    with urlopen_fails(f"http://localhost:{port}/v1/logs"):
        pass
    # A program that sends the token itself needs no agent.
    secure = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://localhost:{port}",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificates / "ca.crt"),
    }
    run_program("direct", **secure, OTEL_EXPORTER_OTLP_HEADERS=f"authorization=Bearer {TOKEN}")
    run_program("nobody", **secure)
    direct = tier.backends[0]
    direct.wait_for(lambda: last(direct, "direct").get("progress.status") == "completed")
    direct.wait_for(lambda: "work" in {span["name"] for span in direct.spans()})
    for backend in tier.backends:
        assert not events(backend, "refused")
        assert not events(backend, "nobody")


@contextlib.contextmanager
def urlopen_fails(url: str) -> Iterator[None]:
    """Require that a URL is not reachable without TLS."""
    with pytest.raises(OSError, match="400"):
        urlopen(url, timeout=10)
    yield


@pytest.fixture
def run_program() -> Callable[..., int]:
    """Return a function that runs the program to its end, with these variables."""

    def run(operation: str, **env: str) -> int:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
        command = [sys.executable, str(PROGRAM), "work", operation]
        done = subprocess.run(
            command, env={**kept, **env}, input="end\n", text=True, timeout=60, check=False, capture_output=True
        )
        assert done.returncode == 0, done.stderr
        return done.returncode

    return run


class ScrapingPrometheus(Prometheus):
    """A Prometheus without OTLP."""

    def command(self) -> Sequence[str]:
        """Return the command that starts it."""
        return [part for part in super().command() if part != "--web.enable-otlp-receiver"]


def test_prometheus_scrapes(collector_binary: Path, collector: Collector, tmp_path: Path) -> None:
    """An older Prometheus, with the settings from the file's header, has the same series under the same names."""
    binary = installed("prometheus")
    head = re.search(r"^#   (scrape_configs:\n(?:#     .*\n)+)", SCRAPE.read_text(encoding="utf-8"), re.MULTILINE)
    assert head is not None
    guard, [jobs] = free_ports(1)
    with (
        guard,
        collector_with(
            collector_binary,
            tmp_path / "c",
            SINGLE,
            SCRAPE,
            backend=collector,
            env={"OTEL_PROGRESS_SCRAPE": f"127.0.0.1:{jobs}"},
        ) as single,
    ):
        text = head[1].replace("\n#   ", "\n").replace("8889", str(jobs)).replace("15s", "1s").replace("60s", "1s")
        text = text.replace("8888", str(urlsplit(single.self_metrics).port))
        (tmp_path / "prometheus.yaml").write_text("global: {scrape_interval: 1s}\n" + text, encoding="utf-8")
        with (
            ScrapingPrometheus(binary, tmp_path / "p", config=tmp_path / "prometheus.yaml") as prometheus,
            Run(single, "http/protobuf", "work", "op-1") as program,
        ):
            program.line("ready")
            [active] = prometheus.wait_for(
                lambda: prometheus.query('progress_run_active{progress_operation_id="op-1"}')
            )
            assert active.value == 1
            assert active.labels["job"] == "stack"
            [instance] = instances(collector, "logs")
            assert active.labels == {
                "__name__": "progress_run_active",
                "job": "stack",
                "instance": instance,
                "progress_operation_name": "work",
                "progress_operation_id": "op-1",
            }
            assert prometheus.wait_for(lambda: prometheus.query('up{job="otel-collector"} == 1'))
            assert prometheus.query("progress_run_start_time_seconds")
            program.end()
            ended = 'progress_operation_ended_total{progress_status="completed"} == 1'
            prometheus.wait_for(lambda: prometheus.query(ended))
            assert not points(collector, "progress.run.active")
