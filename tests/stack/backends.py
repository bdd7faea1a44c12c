"""Real Prometheus, Tempo and Loki for a test: start one, send it OTLP data, query it, stop it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlencode, urlsplit

from .ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from typing_extensions import Self

CONFIG = Path(__file__).with_name("config")

_POLL = 0.05
_START_TIMEOUT = 60.0

T = TypeVar("T")


class BackendError(Exception):
    """A backend did not start, stop or answer as expected; the message has its last output."""


class Backend:
    """A server with a directory and loopback ports of its own, which stay the same when it is restarted.

    As a context manager it starts on entry and stops on exit. Its data survives a stop.
    """

    name: str
    ready_path: str
    ports: int
    stop_timeout = 20.0
    hangs_at_stop = False

    def __init__(self, binary: Path, directory: Path, *, config: Path | None = None) -> None:
        """Choose its ports without starting it.

        Args:
            binary: The program, see `build.binary`.
            directory: Where it runs and keeps its data; created if it is missing.
            config: Its configuration instead of the one in `config/`.
        """
        self.binary = binary
        self.directory = directory
        self.data = directory / "data"
        self.log_file = directory / f"{self.name}.log"
        self.config = (config or CONFIG / f"{self.name}.yaml").resolve()
        self._process: subprocess.Popen[bytes] | None = None
        guard, self._ports = free_ports(self.ports)
        weakref.finalize(self, guard.close)
        self.endpoint = f"http://127.0.0.1:{self._ports[0]}"

    def command(self) -> Sequence[str]:
        """Return the command that starts it."""
        raise NotImplementedError

    def env(self) -> Mapping[str, str]:
        """Return the variables of its configuration."""
        return {}

    def __enter__(self) -> Self:
        """Start the server on entry."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server on exit."""
        self.stop()

    @property
    def pid(self) -> int | None:
        """The process id while it runs, or None."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start it and return once it is ready; do nothing if it already runs.

        Raises:
            BackendError: If it ended at once, or is not ready after 60 s.
        """
        if self._process is not None:
            return
        self.data.mkdir(parents=True, exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.directory,
                env={**kept, **self.env()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        for _ in _ticks(_START_TIMEOUT):
            if self._process.poll() is not None:
                code, self._process = self._process.returncode, None
                raise BackendError(f"{self.name} ended at once with exit code {code}{self._last_words()}")
            if self._is_ready():
                return
        self.kill()
        raise BackendError(f"{self.name} was not ready after {_START_TIMEOUT:g} s{self._last_words()}")

    def stop(self) -> None:
        """Stop it with SIGTERM, and wait; do nothing if it does not run.

        Raises:
            BackendError: If it had ended by itself, ended with an error, or did not end in time and was killed.
        """
        if self._process is None:
            return
        early = self._process.poll()
        self._process.terminate()
        try:
            code = self._process.wait(self.stop_timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            if self.hangs_at_stop:
                return
            raise BackendError(f"{self.name} did not stop within {self.stop_timeout:g} s{self._last_words()}") from None
        self._process = None
        if early is not None or code != 0:
            when = "before it was stopped" if early is not None else "when it was stopped"
            raise BackendError(f"{self.name} ended with exit code {code} {when}{self._last_words()}")

    def kill(self) -> None:
        """Kill it with SIGKILL, and wait; do nothing if it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def wait_for(self, predicate: Callable[[], T], timeout: float = 20) -> T:
        """Call the predicate until its result is true, and return the result.

        Raises:
            AssertionError: If it is not true after `timeout` seconds.
        """
        for _ in _ticks(timeout):
            if found := predicate():
                return found
        raise AssertionError(f"waited {timeout:g} s for {self.name} in vain{self._last_words()}")

    def get(self, path: str, **parameters: str | float) -> Any:
        """Return the JSON response of a path.

        Raises:
            BackendError: If the status is not 200.
        """
        query = f"?{urlencode(parameters)}" if parameters else ""
        status, body = self._request("GET", self.endpoint, path + query)
        if status != http.client.OK:
            raise BackendError(f"{self.name} answered {status} to {path + query}: {body.decode(errors='replace')}")
        return json.loads(body)

    def post(self, url: str, request: Mapping[str, Any]) -> None:
        """Send one OTLP/JSON request to a URL.

        Raises:
            BackendError: If the request is not accepted.
        """
        body = json.dumps(request)
        status, answer = self._request("POST", url, urlsplit(url).path, body, {"Content-Type": "application/json"})
        if status not in {http.client.OK, http.client.NO_CONTENT}:
            raise BackendError(f"{self.name} answered {status} to {url}: {answer.decode(errors='replace')}")

    def _request(self, method: str, url: str, path: str, *more: Any) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, *more)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def _is_ready(self) -> bool:
        try:
            return self._request("GET", self.endpoint, self.ready_path)[0] == http.client.OK
        except (OSError, http.client.HTTPException):
            return False

    def _last_words(self) -> str:
        if not self.log_file.exists():
            return ""
        lines = self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()
        return "; it said last:\n" + "\n".join(lines[-15:])


class Sample(NamedTuple):
    """A series and its values as (seconds, value), oldest first."""

    labels: dict[str, str]
    values: list[tuple[float, float]]

    @property
    def value(self) -> float:
        """Return the newest value."""
        return self.values[-1][1]


class Prometheus(Backend):
    """A Prometheus that receives metrics over OTLP/HTTP."""

    name = "prometheus"
    ready_path = "/-/ready"
    ports = 1

    @property
    def otlp_endpoint(self) -> str:
        """The base URL to which an OTLP exporter adds /v1/metrics."""
        return f"{self.endpoint}/api/v1/otlp"

    def command(self) -> Sequence[str]:
        """Return the command that starts it."""
        return [
            str(self.binary),
            f"--config.file={self.config}",
            f"--storage.tsdb.path={self.data}",
            f"--web.listen-address=127.0.0.1:{self._ports[0]}",
            "--web.enable-otlp-receiver",
            "--log.level=warn",
        ]

    def send(self, request: Mapping[str, Any]) -> None:
        """Send a request with metrics, as OTLP/JSON."""
        self.post(f"{self.otlp_endpoint}/v1/metrics", request)

    def query(self, promql: str, at: float | None = None) -> list[Sample]:
        """Return the result of an instant query, now or at a time in seconds since 1970."""
        data = self.get("/api/v1/query", query=promql, **({} if at is None else {"time": at}))["data"]
        if data["resultType"] == "scalar":
            return [Sample({}, _numbers([data["result"]]))]
        return [
            Sample(item["metric"], _numbers([item["value"]]) if "value" in item else _numbers(item["values"]))
            for item in data["result"]
        ]

    def query_range(self, promql: str, start: float, end: float, step: float = 1) -> list[Sample]:
        """Return the result of a range query, with times in seconds since 1970."""
        answer = self.get("/api/v1/query_range", query=promql, start=start, end=end, step=step)
        return [Sample(item["metric"], _numbers(item["values"])) for item in answer["data"]["result"]]


class Span(NamedTuple):
    """A span as stored in Tempo; ids are hex."""

    name: str
    trace_id: str
    span_id: str
    parent_span_id: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    events: list[str]
    status: str


class Tempo(Backend):
    """A single-process Tempo with local disk that receives spans over OTLP."""

    name = "tempo"
    ready_path = "/ready"
    ports = 4
    # Tempo 3.0 stores its data and then hangs if it was queried in its last seconds (grafana/tempo#7967).
    stop_timeout = 4.0
    hangs_at_stop = True

    @property
    def otlp_endpoint(self) -> str:
        """The base URL to which an OTLP/HTTP exporter adds /v1/traces."""
        return f"http://127.0.0.1:{self._ports[2]}"

    @property
    def grpc_endpoint(self) -> str:
        """The address for OTLP over gRPC."""
        return f"http://127.0.0.1:{self._ports[3]}"

    def command(self) -> Sequence[str]:
        """Return the command that starts it."""
        return [str(self.binary), f"-config.file={self.config}", "-config.expand-env=true"]

    def env(self) -> Mapping[str, str]:
        """Return the variables of its configuration."""
        names = ("TEMPO_HTTP_PORT", "TEMPO_GRPC_PORT", "TEMPO_OTLP_HTTP_PORT", "TEMPO_OTLP_GRPC_PORT")
        ports = {name: str(port) for name, port in zip(names, self._ports, strict=True)}
        return {**ports, "TEMPO_ADDRESS": "127.0.0.1", "TEMPO_DATA": str(self.data)}

    def send(self, request: Mapping[str, Any]) -> None:
        """Send a request with spans, as OTLP/JSON."""
        self.post(f"{self.otlp_endpoint}/v1/traces", request)

    def trace(self, trace_id: str) -> list[Span]:
        """Return the spans of a trace, or none if it is unknown."""
        status, body = self._request("GET", self.endpoint, f"/api/v2/traces/{trace_id}", None, _JSON)
        if status == http.client.NOT_FOUND:
            return []
        if status != http.client.OK:
            raise BackendError(f"tempo answered {status} for trace {trace_id}: {body.decode(errors='replace')}")
        return list(_spans(json.loads(body)["trace"]))

    def search(self, traceql: str, start: float | None = None, end: float | None = None) -> list[dict[str, Any]]:
        """Return the traces that match a TraceQL query, with the matching spans in `spanSets`."""
        traces: list[dict[str, Any]] = self.get("/api/search", q=traceql, **_between(start, end)).get("traces", [])
        return traces

    def query_range(self, traceql: str, start: float, end: float, step: str = "10s") -> list[dict[str, Any]]:
        """Return the series of a TraceQL metrics query, in seconds since 1970."""
        answer = self.get("/api/metrics/query_range", q=traceql, start=int(start), end=int(end), step=step)
        series: list[dict[str, Any]] = answer.get("series", [])
        return series


class Line(NamedTuple):
    """A log record as stored in Loki."""

    time: int
    """The time in nanoseconds since 1970."""
    text: str
    labels: dict[str, str]
    """The labels of its stream, and its structured metadata."""


class Loki(Backend):
    """A single-process Loki with local disk that receives log records over OTLP/HTTP."""

    name = "loki"
    ready_path = "/ready"
    ports = 2

    @property
    def otlp_endpoint(self) -> str:
        """The base URL to which an OTLP exporter adds /v1/logs."""
        return f"{self.endpoint}/otlp"

    def command(self) -> Sequence[str]:
        """Return the command that starts it."""
        return [str(self.binary), f"-config.file={self.config}", "-config.expand-env=true"]

    def env(self) -> Mapping[str, str]:
        """Return the variables of its configuration."""
        ports = {"LOKI_HTTP_PORT": str(self._ports[0]), "LOKI_GRPC_PORT": str(self._ports[1])}
        return {**ports, "LOKI_ADDRESS": "127.0.0.1", "LOKI_DATA": str(self.data)}

    def send(self, request: Mapping[str, Any]) -> None:
        """Send a request with log records, as OTLP/JSON."""
        self.post(f"{self.otlp_endpoint}/v1/logs", request)

    def query_range(self, logql: str, start: float | None = None, end: float | None = None) -> list[Line]:
        """Return the lines that match a LogQL query, oldest first; by default of the last hour."""
        data = self.get(
            "/loki/api/v1/query_range", query=logql, limit=5000, direction="forward", **_between(start, end)
        )["data"]
        if data["resultType"] != "streams":
            raise BackendError(f"{logql} gives numbers: ask with query()")
        return sorted(
            Line(int(moment), text, stream["stream"]) for stream in data["result"] for moment, text in stream["values"]
        )

    def labels(self) -> list[str]:
        """Return the names of the labels of all streams."""
        names: list[str] = self.get("/loki/api/v1/labels").get("data", [])
        return names

    def query(self, logql: str, at: float | None = None) -> list[Sample]:
        """Return the result of an instant metric query, now or at a time in seconds since 1970."""
        data = self.get("/loki/api/v1/query", query=logql, **({} if at is None else {"time": at}))["data"]
        return [Sample(item["metric"], _numbers([item["value"]])) for item in data["result"]]


_JSON = {"Accept": "application/json"}


def _between(start: float | None, end: float | None) -> dict[str, float]:
    return {name: int(moment) for name, moment in (("start", start), ("end", end)) if moment is not None}


def _numbers(pairs: list[list[Any]]) -> list[tuple[float, float]]:
    return [(float(moment), float(value)) for moment, value in pairs]


def _attributes(item: dict[str, Any]) -> dict[str, Any]:
    return {pair["key"]: next(iter(pair["value"].values()), None) for pair in item.get("attributes", [])}


def _spans(trace: dict[str, Any]) -> Iterator[Span]:
    for batch in trace.get("resourceSpans", []):
        for scope in batch.get("scopeSpans", []):
            for span in scope["spans"]:
                yield Span(
                    span["name"],
                    span["traceId"],
                    span["spanId"],
                    span.get("parentSpanId", ""),
                    _attributes(span),
                    _attributes(batch.get("resource", {})),
                    [event["name"] for event in span.get("events", [])],
                    span.get("status", {}).get("code", ""),
                )


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
