"""Real Jaeger and VictoriaLogs for a test: backends of traces and log events under the Apache-2.0 licence."""

from __future__ import annotations

import base64
import calendar
import copy
import http.client
import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from .backends import Backend, BackendError, Line, Span
from .collector import CONFIGS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class JaegerSpan(NamedTuple):
    """A span as stored in Jaeger, with Jaeger's warnings."""

    span: Span
    warnings: list[str]
    event_attributes: list[dict[str, Any]]
    """The attributes of each event, in order, with its name under `event`."""


class Jaeger(Backend):
    """A single-process Jaeger 2 with local disk that receives spans over OTLP/HTTP."""

    name = "jaeger"
    ready_path = "/api/services"
    ports = 4

    def __init__(self, binary: Path, directory: Path, *, config: Path | None = None) -> None:
        """Choose its ports; the configuration is the shipped one."""
        super().__init__(binary, directory, config=config or CONFIGS / "stores" / "jaeger.yaml")

    @property
    def otlp_endpoint(self) -> str:
        """The base URL to which an OTLP/HTTP exporter adds /v1/traces."""
        return f"http://127.0.0.1:{self._ports[1]}"

    def command(self) -> Sequence[str]:
        """Return the command that starts it."""
        return [str(self.binary), f"--config={self.config}"]

    def env(self) -> Mapping[str, str]:
        """Return the variables of its configuration."""
        names = ("HTTP", "OTLP", "GRPC", "HEALTH")
        ports = {
            f"OTEL_PROGRESS_JAEGER_{name}": f"127.0.0.1:{port}" for name, port in zip(names, self._ports, strict=True)
        }
        # Otherwise it traces itself, and sends that to port 4317 of this machine.
        return {**ports, "OTEL_PROGRESS_JAEGER_DATA": str(self.data), "OTEL_TRACES_SAMPLER": "always_off"}

    def send(self, request: Mapping[str, Any]) -> None:
        """Send a request with spans, as OTLP/JSON."""
        self.post(f"{self.otlp_endpoint}/v1/traces", request)

    def trace(self, trace_id: str) -> list[JaegerSpan]:
        """Return the spans of a trace, or none if it is unknown."""
        status, body = self._request("GET", self.endpoint, f"/api/traces/{trace_id}")
        if status == http.client.NOT_FOUND:
            return []
        if status != http.client.OK:
            raise BackendError(f"jaeger answered {status} for trace {trace_id}: {body.decode(errors='replace')}")
        return [span for trace in json.loads(body)["data"] for span in _spans(trace)]

    def search(self, service: str, **tags: str) -> list[list[JaegerSpan]]:
        """Return the traces of the last hour with a span that has these tags; `__` in a name means a dot."""
        asked = json.dumps({name.replace("__", "."): value for name, value in tags.items()})
        found = self.get("/api/traces", service=service, tags=asked, lookback="1h", limit=1000)
        return [_spans(trace) for trace in found["data"]]


class VictoriaLogs(Backend):
    """A single-process VictoriaLogs with local disk that receives log records over OTLP/HTTP."""

    name = "victorialogs"
    ready_path = "/health"
    ports = 1

    def __init__(self, binary: Path, directory: Path) -> None:
        """Choose its port; it has no configuration file."""
        super().__init__(binary, directory, config=binary)

    @property
    def otlp_endpoint(self) -> str:
        """The base URL to which an OTLP/HTTP exporter adds /v1/logs."""
        return f"{self.endpoint}/insert/opentelemetry"

    def command(self) -> Sequence[str]:
        """Return the command that starts it."""
        return [
            str(self.binary),
            f"-httpListenAddr=127.0.0.1:{self._ports[0]}",
            f"-storageDataPath={self.data}",
            "-retentionPeriod=14d",
            # A kill loses younger data.
            "-inmemoryDataFlushInterval=1s",
            "-loggerLevel=WARN",
        ]

    def send(self, request: Mapping[str, Any]) -> None:
        """Send a request with log records, given as OTLP/JSON, in protobuf, the only format that it reads."""
        copied = copy.deepcopy(dict(request))
        for record in (
            record
            for resource in copied["resourceLogs"]
            for scope in resource["scopeLogs"]
            for record in scope["logRecords"]
        ):
            for name in ("traceId", "spanId"):
                if name in record:
                    record[name] = base64.b64encode(bytes.fromhex(record[name])).decode()
        body = ParseDict(copied, ExportLogsServiceRequest()).SerializeToString()
        url = f"{self.otlp_endpoint}/v1/logs"
        headers = {"Content-Type": "application/x-protobuf", "VL-Stream-Fields": "service.name"}
        status, answer = self._request("POST", url, urlsplit(url).path, body, headers)
        if status != http.client.OK:
            raise BackendError(f"victorialogs answered {status}: {answer.decode(errors='replace')}")

    def written(self) -> bool:
        """Return whether data and its index are on its disk; a part that `parts.json` does not list is lost."""
        return all(
            any(
                json.loads(listed.read_text() or "[]") or ()
                for listed in self.data.glob(f"partitions/*/{kind}/parts.json")
            )
            for kind in ("datadb", "indexdb")
        )

    def count(self, logsql: str, what: str = "count()") -> float:
        """Return the number of records that match a LogsQL query, or another LogsQL statistic."""
        path = f"/select/logsql/query?{urlencode({'query': f'{logsql} | stats {what} as found'})}"
        status, body = self._request("GET", self.endpoint, path)
        if status != http.client.OK:
            raise BackendError(f"victorialogs answered {status} to {logsql}: {body.decode(errors='replace')}")
        return float(json.loads(body)["found"])

    def query(self, logsql: str) -> list[Line]:
        """Return the records that match a LogsQL query, oldest first."""
        path = f"/select/logsql/query?{urlencode({'query': f'{logsql} | sort by (_time)'})}"
        status, body = self._request("GET", self.endpoint, path)
        if status != http.client.OK:
            raise BackendError(f"victorialogs answered {status} to {logsql}: {body.decode(errors='replace')}")
        return [_line(json.loads(row)) for row in body.splitlines()]


def _line(row: dict[str, str]) -> Line:
    moment, _, fraction = row["_time"].removesuffix("Z").partition(".")
    seconds = calendar.timegm(time.strptime(moment, "%Y-%m-%dT%H:%M:%S"))
    return Line(seconds * 10**9 + int(fraction.ljust(9, "0")), row.get("_msg", ""), row)


def _spans(trace: dict[str, Any]) -> list[JaegerSpan]:
    resources = {key: _tags(process["tags"]) for key, process in trace["processes"].items()}
    for key, process in trace["processes"].items():
        resources[key]["service.name"] = process["serviceName"]
    return [_span(span, resources[span["processID"]]) for span in trace["spans"]]


def _span(span: dict[str, Any], resource: dict[str, Any]) -> JaegerSpan:
    attributes = _tags(span["tags"])
    parents = [ref["spanID"] for ref in span["references"] if ref["refType"] == "CHILD_OF"]
    events = [_tags(log["fields"]) for log in span["logs"]]
    made = Span(
        span["operationName"],
        span["traceID"],
        span["spanID"],
        parents[0] if parents else "",
        attributes,
        resource,
        [event["event"] for event in events],
        attributes.get("otel.status_code", ""),
    )
    return JaegerSpan(made, span.get("warnings") or [], events)


def _tags(tags: list[dict[str, Any]]) -> dict[str, Any]:
    return {tag["key"]: tag["value"] for tag in tags}
