"""The alert rules with the real Collector, Prometheus and Alertmanager: what a webhook receives, and what it does not."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
from grafana.generator.firing import since
from grafana.generator.queries import WHO

from .alert_demo import demo
from .needed import installed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from typing_extensions import Self

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("alert_program.py")
ALERTMANAGER = ROOT / "grafana" / "alerts" / "alertmanager.yaml"
SPEED = 20
"""The divisor of all times of the rules, Prometheus and Alertmanager."""
WINDOW = 180 / SPEED
PATIENCE = 60.0

# They share the programs.
pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("alerts")]


class Webhook:
    """Receives the requests of Alertmanager."""

    def __init__(self) -> None:
        """Listen on a free port."""
        self.alerts: list[dict[str, Any]] = []
        self.messages: list[list[dict[str, Any]]] = []
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                webhook.alerts.extend(sent["alerts"])
                webhook.messages.append(sent["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = str(self.server.server_address[1])
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        """Stop listening."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def seen(self, status: str, name: str, operation: str) -> list[dict[str, Any]]:
        """Return the alerts of this name about an operation."""
        return [
            alert
            for alert in list(self.alerts)
            if alert["status"] == status
            and alert["labels"]["alertname"] == name
            and alert["labels"].get("progress_operation_id") == operation
        ]


class Stack:
    """The running programs, and what the webhook received."""

    def __init__(
        self, ports: dict[str, str], webhook: Webhook, folder: Path, commands: dict[str, Sequence[str]]
    ) -> None:
        """Keep the addresses of the programs, and how to start them."""
        self.ports = ports
        self.webhook = webhook
        self.folder = folder
        self.commands = commands
        self.running: dict[str, contextlib.ExitStack] = {}

    def start(self, *names: str) -> None:
        """Start these programs, and wait until all are ready."""
        for name in names:
            self.running[name] = contextlib.ExitStack()
            self.running[name].enter_context(demo.running(self.folder, {name: self.commands[name]}))
        demo.ready(self.ports, time.monotonic())

    def stop(self, *names: str) -> None:
        """Stop these programs."""
        for name in names:
            self.running.pop(name).close()

    def wait_for(self, what: Callable[[], Any]) -> Any:
        """Return the result of a function as soon as it is true."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if found := what():
                return found
            time.sleep(0.05)
        names = [(alert["status"], alert["labels"]) for alert in self.webhook.alerts]
        logs = "\n".join(f"{file.name}: {file.read_text()[-800:]}" for file in self.folder.glob("*.log"))
        raise AssertionError(f"waited {PATIENCE:g} s in vain; received {names}\n{logs}")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return Prometheus's response."""
        with urlopen(
            f"http://127.0.0.1:{self.ports['9090']}/api/v1/query?query={quote(expression)}", timeout=10
        ) as got:
            answer: dict[str, Any] = json.load(got)
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def all_come_through(self) -> bool:
        """Return whether the rules saw a working Collector for a whole window."""
        return bool(self.query("min_over_time(collector:progress_works:count[5m]) == 1"))


class Run:
    """The running program with one operation."""

    def __init__(self, stack: Stack, operation: str, name: str = "import", **more: str) -> None:
        """Start it, with more environment variables."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
        env = {
            **kept,
            "OTEL_SERVICE_NAME": "stack",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{stack.ports['4318']}",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
            "OTEL_PROGRESS_RUN_SERIES_AFTER": "0.5",
            **more,
        }
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), operation, name],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._line("ready")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def _line(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == word

    def tell(self, order: str) -> None:
        """Send it a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """End its operation, and wait for its exit."""
        self.tell("end")
        self._line("ended")
        assert self.process.wait(20) == 0

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait(20)


@pytest.fixture(scope="module")
def stack(collector_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Return the programs with the shipped rules and routing, accelerated."""
    for name in ("prometheus", "prometheus-alertmanager"):
        installed(name)
    folder = tmp_path_factory.mktemp("alerts")
    webhook = Webhook()
    try:
        ports = {**demo.free_ports(), "9099": webhook.port}
        demo.configure(folder, ports, ALERTMANAGER, SPEED)
        running = Stack(ports, webhook, folder, demo.commands(str(collector_binary), ports))
        try:
            running.start(*running.commands)
            running.wait_for(running.all_come_through)
            yield running
        finally:
            running.stop(*list(running.running))
    finally:
        webhook.close()


def test_killed(stack: Stack) -> None:
    """A killed run alerts as not heard from; a run beside it does not alert."""
    with Run(stack, "victim") as victim, Run(stack, "bystander") as bystander:
        series = 'progress_run_active{progress_operation_id=~"victim|bystander"} == 1'
        stack.wait_for(lambda: len(stack.query(series)) == 2)
        victim.kill()
        [alert, *_] = stack.wait_for(lambda: stack.webhook.seen("firing", "OperationLost", "victim"))
        assert alert["labels"]["severity"] == "critical"
        assert alert["labels"]["progress_operation_name"] == "import"
        assert alert["annotations"]["runbook_url"].startswith("https://runbook.invalid?var-name=import&var-id=victim&")
        assert alert["annotations"]["dashboard_url"].startswith("https://grafana.invalid/d/otel-progress-operation?")
        assert "not heard from" in alert["annotations"]["summary"]
        assert alert["annotations"]["stage"] == "fetch"
        bystander.end()
    assert not [it for it in stack.webhook.alerts if it["labels"].get("progress_operation_id") == "bystander"]


def test_restarts_while_a_run_is_lost(stack: Stack) -> None:
    """Restarts of the Collector and of Prometheus resolve no alert about a lost run, nor change since when it holds; that it is resumed resolves it."""
    lost = 'ALERTS{alertname="OperationLost", alertstate="firing", progress_operation_id="restarted"}'
    with Run(stack, "restarted") as run:
        stack.wait_for(lambda: stack.query('progress_run_active{progress_operation_id="restarted"} == 1'))
        run.kill()
    stack.wait_for(lambda: stack.webhook.seen("firing", "OperationLost", "restarted"))
    since_when = since('progress_operation_id="restarted"', f"alertname, {WHO}")
    [began] = stack.query(f"max({since_when})")
    stack.stop("collector")
    stack.wait_for(lambda: stack.query("collector:progress_outage"))
    stack.start("collector")
    stack.wait_for(lambda: stack.query("collector:progress_works:count == 1"))
    assert stack.query("collector:progress_blind:last5m")
    stack.stop("prometheus")
    stack.start("prometheus")
    # More rounds than would end the alert if it were not kept.
    stack.wait_for(lambda: stack.query(f"count_over_time({lost}[3s]) >= 4"))
    assert not stack.webhook.seen("resolved", "OperationLost", "restarted")
    assert [it["value"][1] for it in stack.query(f"max({since_when})")] == [began["value"][1]]
    assert {it["labels"]["severity"] for it in stack.webhook.seen("firing", "OperationLost", "restarted")} == {
        "critical"
    }
    with Run(stack, "restarted") as run:
        stack.wait_for(lambda: stack.webhook.seen("resolved", "OperationLost", "restarted"))
        run.end()


def test_stuck(stack: Stack) -> None:
    """A stuck run alerts with the line of code; a restart of the Collector does not resolve that, a recovery does."""
    with Run(stack, "hanging") as run:
        stack.wait_for(lambda: stack.query('progress_run_active{progress_operation_id="hanging"} == 1'))
        run.tell("hang")
        [alert, *_] = stack.wait_for(lambda: stack.webhook.seen("firing", "OperationStuck", "hanging"))
        line = 1 + PROGRAM.read_text(encoding="utf-8").splitlines().index("        told.wait_for(lambda: lines)")
        assert alert["annotations"]["stuck_at"] == f"alert_program.py:{line} in hang_here"
        assert alert["annotations"]["stage"] == "fetch"
        assert "its limit is 2 s" in alert["annotations"]["description"]
        stack.stop("collector")
        stack.wait_for(lambda: stack.query("collector:progress_outage"))
        stack.start("collector")
        stack.wait_for(lambda: stack.query("collector:progress_works:count == 1"))
        stack.wait_for(
            lambda: stack.query('timestamp(progress_run_idle_seconds{progress_operation_id="hanging"}) > time() - 1')
        )
        assert not stack.webhook.seen("resolved", "OperationStuck", "hanging")
        run.tell("move")
        stack.wait_for(lambda: stack.webhook.seen("resolved", "OperationStuck", "hanging"))
        run.end()
    # The name was stuck too, but an alert names a run of it, so the alert for the name is not sent.
    names = [it["labels"] for it in stack.webhook.alerts if it["labels"].get("progress_operation_name") == "import"]
    assert "StuckByName" not in {it["alertname"] for it in names}


def test_stuck_without_series(stack: Stack) -> None:
    """A stuck run beyond the limit of run series alerts by its name, and a recovery resolves that."""

    def seen(status: str) -> list[dict[str, Any]]:
        alerts = [it for it in list(stack.webhook.alerts) if it["labels"].get("progress_operation_name") == "capped"]
        assert {it["labels"]["alertname"] for it in alerts} <= {"StuckByName"}
        return [it for it in alerts if it["status"] == status]

    with Run(stack, "unseen", "capped", OTEL_PROGRESS_RUN_SERIES_MAX="0") as run:
        run.tell("hang")
        [alert, *_] = stack.wait_for(lambda: seen("firing"))
        assert alert["labels"]["severity"] == "critical"
        assert "progress_operation_id" not in alert["labels"]
        run.tell("move")
        stack.wait_for(lambda: seen("resolved"))
        run.end()


def test_finished(stack: Stack) -> None:
    """A finished run never alerts, although its series ended long ago."""
    with Run(stack, "good") as run:
        active = 'run:progress_active:last6h{progress_operation_id="good"}'
        stack.wait_for(lambda: stack.query(f"{active} == 1"))
        run.end()
    stack.wait_for(lambda: stack.query(f"{active} == 0"))
    gone = 'present_over_time(progress_run_active{progress_operation_id="good"}[%dms])'
    window = round(WINDOW * 1000)
    # Twice the time after which a killed run would alert: the window, the `for`, the group.
    stack.wait_for(lambda: not stack.query(gone % (2 * window)))
    assert stack.query(f"{active} == 0")
    assert not [it for it in stack.webhook.alerts if it["labels"].get("progress_operation_id") == "good"]
    assert not [it for it in stack.webhook.alerts if it["labels"]["alertname"] in ("PipelineDown", "ReporterLost")]


def alert(name: str, number: int | None = None, **labels: str) -> dict[str, Any]:
    """Return an alert as Prometheus sends it."""
    run = {} if number is None else {"progress_operation_id": f"r{number}"}
    who = {"job": "work", "instance": "a", "progress_operation_name": "many", "severity": "critical"}
    who["product"] = "otel-progress"
    return {"labels": {"alertname": name, **who, **run, **labels}, "annotations": {}}


def post(ports: dict[str, str], *alerts: dict[str, Any]) -> None:
    """Send alerts to Alertmanager."""
    url = f"http://127.0.0.1:{ports['9093']}/api/v2/alerts"
    body = json.dumps(alerts).encode()
    with urlopen(Request(url, body, {"Content-Type": "application/json"}), timeout=10) as answer:
        assert answer.status == 200


Alone = tuple[dict[str, str], Webhook]
"""The ports and the webhook of an Alertmanager without a Prometheus."""
ALONE = 40
"""The divisor of its times."""
GROUP_INTERVAL = 90 / ALONE
AGAIN = 60 / ALONE
"""How often Prometheus sends an alert again, also one that is resolved."""


def eventually(what: Callable[[], bool], webhook: Webhook) -> None:
    """Wait until a function is true."""
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, webhook.messages
        time.sleep(0.05)


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[Alone]:
    """Return the ports and the webhook of an Alertmanager alone, with the shipped routing, accelerated."""
    installed("prometheus-alertmanager")
    webhook = Webhook()
    ports = {**demo.free_ports(), "9099": webhook.port}
    demo.configure(tmp_path, ports, ALERTMANAGER, ALONE)
    command = demo.commands("", ports)["alertmanager"]
    try:
        with demo.running(tmp_path, {"alertmanager": command}):
            eventually(lambda: demo.is_ready(f"http://127.0.0.1:{ports['9093']}/-/ready"), webhook)
            yield ports, webhook
    finally:
        webhook.close()


def test_many_are_one_message(alertmanager: Alone) -> None:
    """200 stuck runs of a name are one message, and of a run only the worst alert is sent.

    The alert for the name is sent only if there is none for a run of it.
    """
    ports, webhook = alertmanager
    stuck = [alert("OperationStuck", number) for number in range(200)]
    slow = [alert("OperationSlow", number, severity="warning") for number in range(200)]
    other = alert("StuckByName", progress_operation_name="other")
    post(ports, *stuck, *slow, alert("OperationLost", 0), alert("StuckByName"), other)

    def told() -> set[tuple[str, str]]:
        labels = [it["labels"] for message in list(webhook.messages) for it in message]
        return {(it["alertname"], it.get("progress_operation_id", it["progress_operation_name"])) for it in labels}

    wanted = {("OperationStuck", f"r{number}") for number in range(1, 200)}
    wanted |= {("OperationLost", "r0"), ("StuckByName", "other")}
    eventually(lambda: wanted <= told(), webhook)
    assert told() == wanted
    assert len(webhook.messages) == 3


def over(given: dict[str, Any]) -> dict[str, Any]:
    """Return an alert as Prometheus sends it once it is resolved, and again for a quarter of an hour."""
    now = datetime.now(timezone.utc)
    begin = (now - timedelta(minutes=1)).isoformat()
    return {**given, "startsAt": begin, "endsAt": now.isoformat()}


@contextlib.contextmanager
def again(ports: dict[str, str]) -> Iterator[list[dict[str, Any]]]:
    """Send each of these alerts again and again, as Prometheus does: each at a time of its own."""
    sent: list[dict[str, Any]] = []
    ended = threading.Event()

    def send() -> None:
        turn = 0
        while not ended.wait(AGAIN / 2):
            turn += 1
            if mine := sent[turn % 2 :: 2]:
                post(ports, *mine)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        ended.set()
        thread.join()


def test_a_recovery_is_told_once(alertmanager: Alone) -> None:
    """Prometheus sends resolved alerts again for a quarter of an hour; no message is without news while another run is stuck."""
    ports, webhook = alertmanager
    runs = [alert("OperationStuck", number) for number in range(4)]

    def until(status: str, *numbers: int) -> None:
        eventually(lambda: all(webhook.seen(status, "OperationStuck", f"r{number}") for number in numbers), webhook)

    post(ports, *runs[:3])
    until("firing", 0, 1, 2)
    with again(ports) as resent:
        for number in range(2):
            resent.append(over(runs[number]))
            post(ports, resent[-1])
            until("resolved", number)
        time.sleep(2.5 * GROUP_INTERVAL)
        assert len(webhook.messages) == 3
        post(ports, runs[3])  # a further run is told
        until("firing", 3)
        time.sleep(1.5 * GROUP_INTERVAL)
    assert len(webhook.messages) == 4


def test_the_end_of_an_alert_that_another_inhibits(alertmanager: Alone) -> None:
    """It is told if both end at once, as for a run that is resumed; if it ends before, then when it is sent again after the other."""
    ports, webhook = alertmanager
    stuck = [alert("OperationStuck", number, progress_operation_name=f"n{number}") for number in range(2)]
    lost = [alert("OperationLost", number, progress_operation_name=f"n{number}") for number in range(2)]

    def told(status: str, name: str, number: int) -> bool:
        return bool(webhook.seen(status, name, f"r{number}"))

    post(ports, *stuck)
    eventually(lambda: told("firing", "OperationStuck", 0) and told("firing", "OperationStuck", 1), webhook)
    post(ports, *lost)
    eventually(lambda: told("firing", "OperationLost", 0) and told("firing", "OperationLost", 1), webhook)
    post(ports, over(stuck[0]), over(lost[0]), over(stuck[1]))
    eventually(lambda: told("resolved", "OperationStuck", 0) and told("resolved", "OperationLost", 0), webhook)
    time.sleep(GROUP_INTERVAL)
    assert not told("resolved", "OperationStuck", 1)
    post(ports, over(lost[1]))
    eventually(lambda: told("resolved", "OperationLost", 1), webhook)
    post(ports, over(stuck[1]))
    eventually(lambda: told("resolved", "OperationStuck", 1), webhook)


def test_demo(collector_binary: Path) -> None:
    """The accelerated example: the alert arrives at its webhook with the line at which its job hangs."""
    installed("prometheus")
    examples = ROOT / "examples" / "alerting"
    command = [sys.executable, str(examples / "demo.py"), str(collector_binary), "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FIRING: OperationStuck" in done.stdout
    line = 1 + (examples / "stuck.py").read_text(encoding="utf-8").splitlines().index("    answer.wait()")
    assert f"stuck_at: stuck.py:{line} in fetch" in done.stdout
