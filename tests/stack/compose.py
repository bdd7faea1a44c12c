"""Runs the services of compose.yaml as plain programs, without containers: the same commands and configurations.

It replaces what a container provides: mounted files are copied, named volumes are directories, and the names of other
services are loopback addresses.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

from .ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "compose.yaml"
PORTS = {
    "collector": (4317, 4318, 13133, 8888),
    "prometheus": (9090,),
    "tempo": (3200, 9095, 4318),
    "loki": (3100, 9096),
    "alertmanager": (9093,),
}
"""The ports of each service that runs here."""
HERE = r"0\.0\.0\.0|127\.0\.0\.1|localhost"


def model(program: Path) -> dict[str, Any]:
    """Return the content of compose.yaml with all profiles, as Compose parses it.

    Raises:
        subprocess.CalledProcessError: If it is not valid.
    """
    command = [str(program), "-format", "json", str(COMPOSE)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    read: dict[str, Any] = json.loads(done.stdout)
    return read


class Services:
    """The services, each with a directory of its own and free ports."""

    def __init__(self, services: Mapping[str, Any], programs: Mapping[str, Path], folder: Path) -> None:
        """Choose the ports without starting anything.

        Args:
            services: The definition of each service in the file.
            programs: The program that replaces each image.
            folder: The directory for all files.
        """
        self.services = services
        self.programs = programs
        self.folder = folder
        self.ports: dict[tuple[str, int], int] = {}
        self._guards = []
        for name, ports in PORTS.items():
            guard, free = free_ports(len(ports))
            self._guards.append(guard)
            self.ports |= {(name, port): mine for port, mine in zip(ports, free, strict=True)}

    def close(self) -> None:
        """Release the ports."""
        for guard in self._guards:
            guard.close()

    def url(self, name: str, port: int) -> str:
        """Return the address of the service that listens on this port in its container."""
        return f"http://127.0.0.1:{self.ports[name, port]}"

    def localized(self, name: str, text: str) -> str:
        """Return a text with the addresses and directories of this machine."""
        for (other, port), mine in self.ports.items():
            hosts = f"{HERE}|{other}" if other == name else other
            text = re.sub(rf"\b(?:{hosts}):{port}\b", f"127.0.0.1:{mine}", text)
            if other == name:
                text = re.sub(rf"(port: ){port}\b", rf"\g<1>{mine}", text)
        text = text.replace("0.0.0.0", "127.0.0.1")
        for volume in self.services[name].get("volumes", []):
            text = re.sub(rf"(?<![\w.-]){volume['target']}\b", str(self.place(name, volume)), text)
        return text

    def place(self, name: str, volume: Mapping[str, str]) -> Path:
        """Return the path of a mounted file or a volume of a service."""
        return self.folder / name / volume["target"].strip("/")

    def prepare(self, name: str) -> None:
        """Copy the files of a service."""
        for volume in self.services[name].get("volumes", []):
            place = self.place(name, volume)
            if volume["type"] == "volume":
                place.mkdir(parents=True, exist_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            text = Path(volume["source"]).read_text(encoding="utf-8")
            # A Collector's file has its own defaults; all relevant settings come from its environment.
            place.write_text(text if name == "collector" else self.localized(name, text), encoding="utf-8")

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment of a service."""
        own = self.services[name].get("environment", {})
        numbers = {str(port): str(mine) for (other, port), mine in self.ports.items() if other == name}
        return {key: numbers.get(value) or self.localized(name, value) for key, value in own.items()}

    @contextlib.contextmanager
    def running(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start a service with the command of its container."""
        self.prepare(name)
        command = [str(self.programs[name]), *(self.localized(name, part) for part in self.services[name]["command"])]
        kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder / name,
                env={**kept, **self.environment(name)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)  # as in a container
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def healthy(self, name: str) -> bool:
        """Return whether the health check of a service passes."""
        kind, *check = (self.localized(name, part) for part in self.services[name]["healthcheck"]["test"])
        assert kind == "CMD"
        if check[:-1] == ["wget", "-q", "--spider"]:
            with contextlib.suppress(OSError), urlopen(check[-1], timeout=5) as answer:
                return bool(answer.status == 200)
            return False
        command = [str(self.programs[name]), *check[1:]]
        return subprocess.run(command, check=False, capture_output=True, timeout=20).returncode == 0

    def wait_for(self, what: Callable[[], Any], timeout: float = 60) -> Any:
        """Return the result of a function as soon as it is true.

        Raises:
            AssertionError: If it is not true after `timeout` seconds.
        """
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if found := what():
                return found
            time.sleep(0.1)
        logs = "\n".join(
            f"{file.name}: {file.read_text(errors='replace')[-1500:]}" for file in self.folder.glob("*.log")
        )
        raise AssertionError(f"waited {timeout:g} s in vain\n{logs}")
