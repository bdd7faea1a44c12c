"""OTLP's protobuf messages: the only module of the monitor that imports `opentelemetry.proto` and `google.protobuf`."""

from __future__ import annotations

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

__all__ = [
    "RECORD_PATH",
    "REQUESTS",
    "SIGNALS",
    "DecodeError",
    "ExportLogsServiceRequest",
    "ExportTraceServiceRequest",
    "LogRecord",
    "Message",
    "from_json",
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


def from_json(signal: str, value: Any) -> Message:
    """The request message of a parsed JSON value; unknown fields are ignored.

    Raises:
        ValueError: if the value is no such message.
    """
    message = REQUESTS[signal]()
    try:
        json_format.ParseDict(value, message, ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise ValueError(str(error)) from None
    return message


def to_json(message: Message) -> str:
    """A message as JSON."""
    return json_format.MessageToJson(message, indent=None)
