"""From nothing to an alert: start a Collector, Prometheus, Alertmanager, a webhook, and a job that hangs.

python examples/alerting/demo.py COLLECTOR [SPEED]

COLLECTOR is the path of the program; `python tests/stack/build.py` builds one and prints its path. All programs use the
configurations of this directory and free ports. The alert arrives after about a minute. SPEED divides all times of
Prometheus and Alertmanager.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HERE = Path(__file__).parent
RULES = HERE.parents[1] / "grafana" / "alerts" / "rules.yaml"
PANELS, LINKS = RULES.with_name("panels.yaml"), RULES.with_name("links.yaml")
PORTS = ("4318", "8888", "8889", "9090", "9093", "9099", "13133")
"""OTLP, the Collector's metrics, the jobs' series, Prometheus, Alertmanager, the webhook, the health check."""
PATIENCE = 150
"""Seconds to wait for the alert."""


def free_ports() -> dict[str, str]:
    """Return a free port for each of PORTS."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in PORTS]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return {port: str(one.getsockname()[1]) for port, one in zip(PORTS, sockets)}


def configure(folder: Path, ports: Mapping[str, str], alertmanager: Path, speed: float) -> None:
    """Write the configurations to a directory, with these ports, and with all times divided by `speed`."""
    for file in (HERE / "collector.yaml", HERE / "prometheus.yaml", RULES, PANELS, LINKS, alertmanager):
        text = file.read_text(encoding="utf-8").replace("../../grafana/alerts/", "")
        for old, new in ports.items():
            text = re.sub(rf"(127\.0\.0\.1:|port: ){old}\b", rf"\g<1>{new}", text)
        if speed != 1 and file.name != "collector.yaml":
            text = faster(text, speed)
        name = "alertmanager.yaml" if file == alertmanager else file.name
        (folder / name).write_text(text, encoding="utf-8")


def faster(text: str, speed: float) -> str:
    """Return the configuration with all times divided by `speed`."""
    seconds = {"s": 1, "m": 60, "h": 3600}
    # A time is in brackets, at the end of a line, or a number that is marked.
    text = re.sub(
        r"(?<=[\[ ])(\d+)([smh])(?=\]|$)",
        lambda found: f"{round(int(found[1]) * seconds[found[2]] * 1000 / speed)}ms",
        text,
        flags=re.MULTILINE,
    )
    return re.sub(r"(\d+)(?=  # seconds$)", lambda found: f"{int(found[1]) / speed:g}", text, flags=re.MULTILINE)


def commands(collector: str, ports: Mapping[str, str]) -> dict[str, Sequence[str]]:
    """Return the commands, in the order in which they start."""
    return {
        "collector": [collector, "--config=collector.yaml"],
        "alertmanager": [
            found("prometheus-alertmanager", "alertmanager"),
            "--config.file=alertmanager.yaml",
            "--storage.path=alertmanager",
            "--cluster.listen-address=",
            f"--web.listen-address=127.0.0.1:{ports['9093']}",
        ],
        "prometheus": [
            found("prometheus"),
            "--config.file=prometheus.yaml",
            "--storage.tsdb.path=prometheus",
            f"--web.listen-address=127.0.0.1:{ports['9090']}",
        ],
    }


def found(*names: str) -> str:
    """Return the path of the first of these programs that is installed."""
    for name in names:
        path = shutil.which(name)
        if path:
            return path
    raise SystemExit(f"{names[0]} is not installed: `make stack` installs it")


@contextlib.contextmanager
def running(folder: Path, commands: Mapping[str, Sequence[str]]) -> Iterator[None]:
    """Run programs in a directory with their output in log files, and stop them at the end."""
    with contextlib.ExitStack() as stack:
        for name, command in commands.items():
            log = stack.enter_context((folder / f"{name}.log").open("ab"))
            process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            stack.callback(end, process)
        yield


def end(process: subprocess.Popen[bytes]) -> None:
    """Terminate a program, and kill it if it does not end within 10 s."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


READY = {"13133": "/", "9090": "/-/ready", "9093": "/-/ready"}
"""Port to the readiness path of the Collector, Prometheus and Alertmanager, which listen before they are ready."""


def ready(ports: Mapping[str, str], begin: float) -> None:
    """Wait until all three are ready."""
    for port, path in READY.items():
        while not is_ready(f"http://127.0.0.1:{ports[port]}{path}"):
            if time.monotonic() - begin > 60:
                raise SystemExit(f"the program on port {ports[port]} is not ready")
            time.sleep(0.1)


def is_ready(url: str) -> bool:
    """Return whether a program says that it is ready."""
    try:
        with urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:  # a refused connection, or an error status
        return False


def main() -> int:
    """Wait for the alert, and print it."""
    begin = time.monotonic()
    collector, speed = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    ports = free_ports()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        configure(folder, ports, HERE / "alertmanager.yaml", speed)
        heard = folder / "webhook.log"
        webhook = [sys.executable, str(HERE / "webhook.py"), ports["9099"]]
        stack.enter_context(running(folder, {"webhook": webhook, **commands(collector, ports)}))
        print("starting a Collector, Prometheus, Alertmanager and a webhook", flush=True)
        ready(ports, begin)
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{ports['4318']}"
        os.environ["OTEL_SERVICE_NAME"] = "demo"
        os.environ["OTEL_METRIC_EXPORT_INTERVAL"] = str(round(10_000 / speed))
        stack.enter_context(running(folder, {"job": [sys.executable, str(HERE / "stuck.py")]}))
        print(
            "started examples/alerting/stuck.py, which hangs after 2 s; its limit is 5 s, and the rule waits for 30 s"
        )
        while "FIRING: OperationStuck" not in heard.read_text(encoding="utf-8"):
            waited = time.monotonic() - begin
            if waited > PATIENCE:
                print("\nno alert came; see the logs:", *(file.read_text()[-500:] for file in folder.glob("*.log")))
                return 1
            print(f"\rwaiting for the alert at the webhook: {waited:.0f} s (it takes about 50)", end="", flush=True)
            time.sleep(1)
        print("\n\nThe webhook received:\n")
        print(heard.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
