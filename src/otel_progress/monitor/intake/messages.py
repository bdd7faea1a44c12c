"""OTLP's protobuf messages: the only module of the monitor that imports `opentelemetry.proto` and `google.protobuf`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

__all__ = [
    "Resource",
    "RECORD_PATH",
    "REQUESTS",
    "SIGNALS",
    "DecodeError",
    "ExportLogsServiceRequest",
    "ExportTraceServiceRequest",
    "LogRecord",
    "Message",
    "from_json",
    "item_count",
    "response",
    "to_json",
]

REQUESTS: Final[Mapping[str, type[Message]]] = {
    "logs": ExportLogsServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "traces": ExportTraceServiceRequest,
}
"""The request message of each signal."""
SIGNALS: Final = tuple(REQUESTS)
"""The signals that are accepted."""
RECORD_PATH: Final = (1, 2, 2)
"""The field numbers from a request to its resources, their scopes and their records; the same for all signals."""
_RESPONSES: Final[Mapping[str, tuple[type[Message], str]]] = {
    "logs": (ExportLogsServiceResponse, "rejected_log_records"),
    "metrics": (ExportMetricsServiceResponse, "rejected_data_points"),
    "traces": (ExportTraceServiceResponse, "rejected_spans"),
}


def response(signal: str, rejected: int = 0, reason: str = "") -> Message:
    """The response to an accepted request; with `rejected` or a `reason` it reports a partial success."""
    kind, field = _RESPONSES[signal]
    message: Any = kind()
    if rejected or reason:
        setattr(message.partial_success, field, rejected)
        message.partial_success.error_message = reason
    built: Message = message
    return built


def item_count(signal: str, body: bytes) -> int:
    """The number of log records, spans or data points in a request; 0 if it is not such a request."""
    try:
        message: Any = REQUESTS[signal].FromString(body)
    except DecodeError:
        return 0
    if signal == "logs":
        return sum(len(scope.log_records) for about in message.resource_logs for scope in about.scope_logs)
    if signal == "traces":
        return sum(len(scope.spans) for about in message.resource_spans for scope in about.scope_spans)
    metrics = (one for about in message.resource_metrics for scope in about.scope_metrics for one in scope.metrics)
    kinds = ((one, one.WhichOneof("data")) for one in metrics)
    return sum(len(getattr(one, kind).data_points) for one, kind in kinds if kind is not None)


def from_json(signal: str, value: Any) -> Message:
    """The request message of a parsed JSON value; unknown fields are ignored.

    Raises:
        ValueError: if the value is no such message.
    """
    if not isinstance(value, dict):
        raise ValueError(f"it must be an object, not {json.dumps(value)[:50]}")
    message = REQUESTS[signal]()
    try:
        json_format.ParseDict(value, message, ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise ValueError(str(error)) from None
    return message


def to_json(message: Message) -> str:
    """A message as JSON."""
    return json_format.MessageToJson(message, indent=None)
