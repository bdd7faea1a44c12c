"""A real OpenTelemetry Collector for a test: start it, stop it, kill it, and read what it received."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import socket
import subprocess
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from . import otlp_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from typing_extensions import Self

CONFIGS = Path(__file__).parents[2] / "collector-config"
LOCAL = CONFIGS / "local.yaml"

_POLL = 0.02
_START_TIMEOUT = 30.0
_STOP_TIMEOUT = 20.0
# Below the ephemeral port range: while the Collector is down, no client can be given one of its ports. The
# Collector object holds the first port of each block as long as it lives, so that no other test, in this process
# or another, takes the rest.
_BLOCK = 4
_BLOCKS = range(20_000, 32_000, _BLOCK)

_STORES = tuple(
    f"OTEL_PROGRESS_{name}" for name in ("TEMPO", "PROMETHEUS", "LOKI", "JAEGER", "VICTORIALOGS", "FORWARD")
)
_NOBODY = "http://127.0.0.1:1"
"""The address of backends that a test does not name: a default could be a real backend on this machine."""

T = TypeVar("T")


class CollectorError(Exception):
    """The Collector did not start or stop as expected; the message ends with its last output."""


class Collector:
    """A Collector with a directory and ports of its own, which stay the same when it is restarted.

    As a context manager it starts on entry and stops on exit. The received data can be read at any
    time, also after a stop or a kill.
    """

    def __init__(
        self,
        binary: Path,
        directory: Path,
        *,
        configs: Sequence[Path] = (LOCAL,),
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Choose its ports without starting it.

        Args:
            binary: The program, see `build.collector_binary`.
            directory: Where it runs and keeps its data; created if it is missing.
            configs: The configuration files, merged in this order.
            env: More variables for the configuration.
        """
        self.directory = directory
        self.log_file = directory / "collector.log"
        self._data = directory / "otel-data"
        self._command = [str(binary), *(f"--config={config.resolve()}" for config in configs)]
        self._process: subprocess.Popen[bytes] | None = None
        guard = _free_block()
        weakref.finalize(self, guard.close)
        grpc, http_, self._health_port = (guard.getsockname()[1] + offset for offset in range(1, _BLOCK))
        self.grpc_endpoint = f"http://127.0.0.1:{grpc}"
        self.http_endpoint = f"http://127.0.0.1:{http_}"
        self._env = {
            **os.environ,
            "OTEL_PROGRESS_GRPC": f"127.0.0.1:{grpc}",
            "OTEL_PROGRESS_HTTP": f"127.0.0.1:{http_}",
            "OTEL_PROGRESS_HEALTH": f"127.0.0.1:{self._health_port}",
            "OTEL_PROGRESS_DATA": str(self._data),
            **dict.fromkeys(_STORES, _NOBODY),
            **(env or {}),
        }

    def __enter__(self) -> Self:
        """Start the Collector on entry."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the Collector on exit."""
        self.stop()

    @property
    def pid(self) -> int | None:
        """The process id while it runs, or None."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start it and return once it receives data; do nothing if it already runs.

        Raises:
            CollectorError: If it ended at once, or is not ready after 30 s.
        """
        if self._process is not None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.directory,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        for _ in _ticks(_START_TIMEOUT):
            if self._process.poll() is not None:
                code, self._process = self._process.returncode, None
                raise CollectorError(f"it ended at once with exit code {code}{self._last_words()}")
            if self._is_ready():
                return
        self.kill()
        raise CollectorError(f"it was not ready after {_START_TIMEOUT:g} s{self._last_words()}")

    def stop(self) -> None:
        """Stop it with SIGTERM, and wait; do nothing if it does not run.

        Raises:
            CollectorError: If it had ended by itself, ended with an error, or did not end within 20 s
                and was killed.
        """
        if self._process is None:
            return
        early = self._process.poll()
        self._process.terminate()
        try:
            code = self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise CollectorError(f"it did not stop within {_STOP_TIMEOUT:g} s{self._last_words()}") from None
        self._process = None
        # The Collector handles SIGTERM only a moment after it reports that it is ready. Before that the signal ends it
        # at once, which loses nothing.
        if early is not None or code not in {0, -signal.SIGTERM}:
            when = "before it was stopped" if early is not None else "when it was stopped"
            raise CollectorError(f"it ended with exit code {code} {when}{self._last_words()}")

    def kill(self) -> None:
        """Kill it with SIGKILL, and wait; do nothing if it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def logs(self) -> list[otlp_json.Log]:
        """Return the received log records, in order of arrival."""
        return otlp_json.logs(self._read("logs"))

    def spans(self) -> list[otlp_json.Span]:
        """Return the received spans, in order of arrival."""
        return otlp_json.spans(self._read("traces"))

    def metric_points(self) -> list[otlp_json.MetricPoint]:
        """Return the received metric data points, in order of arrival."""
        return otlp_json.metric_points(self._read("metrics"))

    def wait_for(self, predicate: Callable[[], T], timeout: float = 20) -> T:
        """Call the predicate until its result is true, and return the result.

        Raises:
            AssertionError: If it is not true after `timeout` seconds; the message says how much arrived.
        """
        for _ in _ticks(timeout):
            if found := predicate():
                return found
        arrived = f"{len(self.logs())} logs, {len(self.spans())} spans, {len(self.metric_points())} metric points"
        raise AssertionError(f"waited {timeout:g} s in vain; {arrived} had arrived{self._last_words()}")

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._health_port, timeout=1)
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/")
                return connection.getresponse().status == http.client.OK
            except (OSError, http.client.HTTPException):
                return False

    def _read(self, kind: str) -> str:
        # Rotated files have a timestamp after a dash, so they sort before the current one.
        files = sorted(self._data.glob(f"{kind}*.jsonl"))
        return "".join(file.read_text(encoding="utf-8", errors="replace") for file in files)

    def _last_words(self) -> str:
        if not self.log_file.exists():
            return ""
        lines = self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()
        return "; it said last:\n" + "\n".join(lines[-15:])


def _ticks(timeout: float) -> Iterator[None]:
    """Yield at least once, then again until the time is up, after `_POLL` seconds or as long as the caller took."""
    end = time.monotonic() + timeout
    while True:
        began = time.monotonic()
        yield
        now = time.monotonic()
        if now >= end:
            return
        time.sleep(max(_POLL, now - began))


def _free_block() -> socket.socket:
    """Return a socket that holds the first port of a block whose other ports are free."""
    # Not the shared generator: test runners seed it, so parallel workers would try the same blocks.
    for block in random.SystemRandom().sample(_BLOCKS, k=len(_BLOCKS)):
        with contextlib.ExitStack() as probes:
            guard = socket.socket()
            try:
                guard.bind(("127.0.0.1", block))
                for offset in range(1, _BLOCK):
                    probes.enter_context(socket.socket()).bind(("127.0.0.1", block + offset))
            except OSError:
                guard.close()
            else:
                return guard
    raise CollectorError("there are no free ports")
