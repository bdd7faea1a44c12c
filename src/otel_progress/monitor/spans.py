"""Operations of programs that don't know us, as far as their spans tell.

A trace is an operation, its root span names it, and the spans below are its stages. A span is sent at its end only:
until the root has come, the operation runs as far as is known, and nobody can say whether it is stuck.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.model import wire
from otel_progress.model.snapshot import Snapshot, SpanIds, StageSnapshot
from otel_progress.model.status import Health, Status
from otel_progress.model.values import Attributes
from otel_progress.monitor import otlp
from otel_progress.telemetry import protobuf

TRACES: Final = 10_000
"""The most traces that are followed at once."""
STAGES: Final = 64
KNOWN: Final = 2_000
"""The most spans of a trace whose place is remembered."""
ATTRIBUTES: Final = 32
TEXT: Final = 200
MARK: Final = "spans:"
"""What the instance of a process begins with that is known by its spans alone."""
_ERROR: Final = 2
_REMOTE: Final = 0x200
_INSTANCE: Final = "service.instance.id"
_TOKENS: Final = {f"{s.GEN_AI_USAGE}.{kind}_tokens": f"{kind}_tokens" for kind in ("input", "output")}


@dataclass
class _Trace:
    """What is known of a trace so far; times in ns."""

    name: str
    started: int
    first: int
    last: int = 0
    root: Any = None
    agent: str | None = None
    paths: dict[bytes, str] = field(default_factory=dict)
    stages: list[StageSnapshot] = field(default_factory=list)
    folded: int = 0
    folded_seconds: float = 0.0
    usage: dict[str, float] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)


class Spans:
    """The traces that are followed; it belongs to one thread."""

    def __init__(self) -> None:
        """None yet."""
        self._traces: dict[bytes, _Trace] = {}

    def groups(self, parcel: otlp.Parcel, is_ours: Callable[[bytes, str], bool]) -> Iterator[otlp.Group]:
        """What a request of spans tells of operations, as events of ours would tell it.

        `is_ours` says of a trace id and an instance whether log events tell of them already, which is better.
        """
        message = parcel.message
        assert isinstance(message, ExportTraceServiceRequest)
        for by_resource in message.resource_spans:
            resource = otlp.plain(by_resource.resource.attributes)
            instance = str(resource.get(_INSTANCE) or resource.get("service.name") or "")
            touched: dict[bytes, None] = {}
            for by_scope in by_resource.scope_spans:
                for span in sorted(by_scope.spans, key=lambda span: span.start_time_unix_nano):
                    if len(span.trace_id) == 16 and not is_ours(span.trace_id, instance):
                        self._add(span, str(resource.get("service.name", "trace")))
                        touched[span.trace_id] = None
            if touched:
                about = {**resource, _INSTANCE: MARK + instance}
                yield otlp.Group(about, s.SCOPE, tuple(self._records(touched)))

    def _add(self, span: Any, service: str) -> None:
        trace = self._traces.get(span.trace_id)
        if trace is None:
            if len(self._traces) >= TRACES:
                del self._traces[next(iter(self._traces))]
            start = span.start_time_unix_nano
            trace = self._traces[span.trace_id] = _Trace(service[:TEXT], start, start)
        trace.first = min(trace.first, span.start_time_unix_nano)
        trace.last = max(trace.last, span.end_time_unix_nano)
        about = otlp.plain(span.attributes)
        for key, kind in _TOKENS.items():
            used = about.get(key)
            if isinstance(used, (int, float)):
                trace.usage[kind] = trace.usage.get(kind, 0) + used
        agent = about.get(s.GEN_AI_AGENT)
        if isinstance(agent, str) and (trace.agent is None or not span.parent_span_id):
            trace.agent = agent[:TEXT]
        if not span.parent_span_id or (span.flags & _REMOTE and span.parent_span_id not in trace.paths):
            trace.root, trace.name, trace.attributes = span, span.name[:TEXT] or service, about
        else:
            _add_stage(trace, span)

    def _records(self, ids: Iterable[bytes]) -> Iterator[otlp.Record]:
        for trace_id in ids:
            trace = self._traces[trace_id]
            snapshot = _snapshot(trace_id, trace)
            if snapshot.status.final:
                del self._traces[trace_id]
            name = s.OPERATION_ENDED if snapshot.status.final else s.UPDATED
            moment = round(snapshot.timestamp * 1e9)
            severity = protobuf.ERROR if snapshot.status is Status.FAILED else protobuf.INFO
            text = f"{snapshot.name} {snapshot.status.value}" if snapshot.status.final else snapshot.message or ""
            encoded = protobuf.attributes(6, wire.to_attributes(snapshot))
            ids_of = snapshot.span
            yield otlp.record(
                protobuf.bare_log_record(
                    name,
                    moment,
                    moment,
                    severity,
                    text,
                    encoded,
                    ids_of.trace_id if ids_of else None,
                    ids_of.span_id if ids_of else None,
                    True,
                )
            )


def _add_stage(trace: _Trace, span: Any) -> None:
    name = span.name[:TEXT].replace("/", "∕") or "span"  # noqa: RUF001  # a slash would part the path
    above = trace.paths.get(span.parent_span_id)
    path = name if above is None or above.count("/") > 8 else f"{above}/{name}"
    if len(trace.paths) < KNOWN:
        trace.paths[span.span_id] = path
    failed = span.status.code == _ERROR
    stage = StageSnapshot(
        name,
        path,
        Status.FAILED if failed else Status.COMPLETED,
        started_at=span.start_time_unix_nano / 1e9,
        elapsed=max(0, span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        reason=span.status.message[:TEXT] or None if failed else None,
    )
    trace.stages.append(stage)
    if len(trace.stages) > STAGES:
        oldest = trace.stages.pop(0)
        trace.folded += 1
        trace.folded_seconds += oldest.elapsed


def _snapshot(trace_id: bytes, trace: _Trace) -> Snapshot:
    root = trace.root
    status, reason, moment = Status.RUNNING, None, trace.last
    if root is not None:
        failed = root.status.code == _ERROR
        status, moment = (Status.FAILED if failed else Status.COMPLETED), root.end_time_unix_nano
        reason = (root.status.message[:TEXT] or "the root span says error") if failed else None
    first = root.start_time_unix_nano if root is not None else trace.first
    newest = trace.stages[-1] if trace.stages else None
    return Snapshot(
        trace_id.hex(),
        trace.name,
        status,
        moment / 1e9,
        sequence=clock.time_ns() // 1_000_000,  # the traces that are followed are forgotten at a restart
        health=Health.PROGRESSING,
        reason=reason,
        started_at=trace.started / 1e9,  # as it was said first, as it tells attempts apart
        elapsed=max(0, moment - first) / 1e9,
        message=newest.name if newest is not None and root is None else None,
        agent=trace.agent,
        stages=tuple(sorted(trace.stages, key=lambda stage: stage.started_at or 0.0)),
        folded=(("completed", trace.folded, trace.folded_seconds),) if trace.folded else (),
        usage=Attributes(trace.usage),
        attributes=Attributes(_scalars(trace.attributes)),
        span=SpanIds(trace_id.hex(), root.span_id.hex() if root is not None and root.span_id else "0" * 15 + "1"),
    )


def _scalars(about: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in about.items() if isinstance(value, (str, int, float, bool))}
    return {key: value[:TEXT] if isinstance(value, str) else value for key, value in list(found.items())[:ATTRIBUTES]}
