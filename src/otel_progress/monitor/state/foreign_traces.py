"""Operations of programs without our SDK, from their spans.

A trace is an operation, named by its root span, and the spans below are its stages. A span is sent only when it ends:
until the root arrives, the operation counts as running, under the name of the service that nobody heard of called, and
nobody can say whether it is stuck. If the caller is outside of everything that is received, no root ever arrives: then
the called span counts as the root, until more arrives.

If log events report on the same trace, whether before the spans or after them, they know more: the operation is theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.model import wire
from otel_progress.model.snapshot import Snapshot, SpanIds, StageSnapshot
from otel_progress.model.status import Health, Status
from otel_progress.model.values import Attributes, finite
from otel_progress.monitor.intake import records
from otel_progress.monitor.intake.messages import ExportTraceServiceRequest
from otel_progress.monitor.intake.requests import RECORD_SMALL, Parcel
from otel_progress.monitor.state.ledger import KEY_LENGTH, MARK, Entry
from otel_progress.monitor.state.span_usage import SpanUsage
from otel_progress.outbound import otlp

TRACES: Final = 10_000
"""The most traces that are followed, ended ones included, as spans may arrive later than their root."""
STAGES: Final = 64
KNOWN: Final = 2_000
"""The most spans of a trace whose position is remembered."""
SPANS: Final = 200_000
"""The most such spans of all traces together."""
ATTRIBUTES: Final = 32
TEXT: Final = 200
DEEP: Final = 8
LATEST: Final = 2**63 - 1
"""The latest time that can be encoded, in ns since 1970; senders may send any."""
SETTLED: Final = 60.0
"""Seconds without a span after which the caller of an ended span counts as outside."""
_ERROR: Final = 2
_REMOTE: Final = 0x200
_READ: Final = frozenset({s.OPERATION_ID, s.GEN_AI_AGENT, *s.INPUT_TOKENS, *s.OUTPUT_TOKENS})
"""The attributes that are read of a span that is only a stage."""
HOMES: Final = 16
"""The most processes of a trace that are told apart."""


class _SpanPosition(NamedTuple):
    """The position of a span in its trace."""

    above: bytes
    name: str


class _End(NamedTuple):
    """The end of a span, which is a stage or may be the end of the operation; times in ns."""

    name: str
    started: int
    ended: int
    failed: bool
    reason: str | None
    span_id: bytes
    above: bytes
    attributes: Mapping[str, Any]
    agent: str | None

    @property
    def elapsed(self) -> float:
        """How long it took, in seconds."""
        return (self.ended - self.started) / 1e9


@dataclass
class _Trace:
    """What is known of a trace so far; times in ns.

    Attributes:
        homes: the resource attributes of the processes that it came from, by instance, in the order of their first
            spans.
        first: the earliest start of its spans.
        ended_at: the sequence number of the event that reported the end.
        root: the end of the root span.
        rooted: the instance of the process that sent the root span.
        entries: the ends of spans that were called from another process.
        stages: the ends of the newest spans below the root, and the stages that were known before this monitor started.
    """

    homes: dict[str, dict[str, Any]]
    first: int
    last: int = 0
    sequence: int = 0
    told: bool = False
    ended_at: int | None = None
    heard_at: float = 0.0
    settled: bool = False
    root: _End | None = None
    rooted: str | None = None
    entries: dict[bytes, _End] = field(default_factory=dict)
    called: dict[str, int] = field(default_factory=dict)
    """The processes that were called from another one, by instance, with the earliest start of such a call."""
    claims: set[str] = field(default_factory=set)
    """The ids of operations that its spans name."""
    agent: str | None = None
    places: dict[bytes, _SpanPosition] = field(default_factory=dict)
    stages: list[_End | StageSnapshot] = field(default_factory=list)
    folded: int = 0
    folded_seconds: float = 0.0
    usage: SpanUsage = field(default_factory=SpanUsage)
    before: Snapshot | None = None
    """What was known of it before this monitor started."""

    @property
    def home(self) -> dict[str, Any]:
        """The process of the operation: that of the root, or else one that none of the others called, if known."""
        instance = self.rooted
        if instance is None:
            instance = next((one for one in self.homes if one not in self.called), None)
        if instance is None:
            instance = min(self.called, key=self.called.__getitem__)
        return self.homes[instance]

    @property
    def name(self) -> str:
        """The service of that process."""
        service = self.home.get(s.SERVICE_NAME)
        return service[:TEXT] if isinstance(service, str) and service else "trace"


Find = Callable[[str], "Entry | None"]


class ForeignTraces:
    """The traces that are followed; it belongs to one thread."""

    def __init__(self, traces: int = TRACES, spans: int = SPANS) -> None:
        """None yet; `traces` and `spans` limit how many are remembered."""
        self._most_traces = traces
        self._most_spans = spans
        self._traces: dict[bytes, _Trace] = {}
        self._callers: dict[bytes, None] = {}
        """Traces that may have to be settled."""
        self._claims: dict[str, bytes] = {}
        """The traces whose spans name an operation, by its id."""
        self._known = 0

    def groups(
        self,
        parcel: Parcel,
        is_ours: Callable[[bytes, str], bool],
        find: Find = lambda _: None,
        now: float = 0.0,
        owns: Callable[[bytes, str], bool] = lambda *_: False,
    ) -> Iterator[records.Group]:
        """What a request of spans says about operations, as events like our own.

        Args:
            parcel: the request.
            is_ours: whether our own events report on a trace id and an instance, which is better.
            find: returns what was known of an operation before this monitor started.
            now: by the monotonic clock.
            owns: whether log events report on the operation that a span of this trace names.
        """
        message = parcel.message
        assert isinstance(message, ExportTraceServiceRequest)
        touched: dict[bytes, _Trace] = {}
        allowance, is_large = parcel.allowance, parcel.largest > RECORD_SMALL
        for by_resource in message.resource_spans:
            resource = records.resource_attributes(by_resource.resource, parcel.allowance)
            instance = str(resource.get(s.SERVICE_INSTANCE_ID) or resource.get(s.SERVICE_NAME) or "")
            about = {**resource, s.SERVICE_INSTANCE_ID: MARK + instance}
            for by_scope in by_resource.scope_spans:
                if by_scope.scope.name == s.SCOPE:
                    continue
                for span in by_scope.spans:
                    if len(span.trace_id) != 16 or not span.span_id or is_ours(span.trace_id, instance):
                        continue
                    allowance.left -= len(span.attributes)
                    if not ((allowance.left >= 0 and not is_large) or allowance.covers(span, is_large)):
                        continue
                    attributes = _attributes_of(span)
                    if self._is_claimed(span.trace_id, attributes, owns):
                        touched.pop(span.trace_id, None)
                    else:
                        touched[span.trace_id] = self._add(span, attributes, about, find, now)
        yield from _by_home(touched)

    def settle(self, now: float) -> list[Snapshot]:
        """The ends of traces without a root of which nothing has arrived for a while."""
        found = []
        for trace_id in list(self._callers):
            trace = self._traces.get(trace_id)
            if trace is None or trace.root is not None:
                del self._callers[trace_id]
            elif now - trace.heard_at >= SETTLED:
                del self._callers[trace_id]
                if not any(entry.above in trace.places for entry in trace.entries.values()):
                    trace.settled, trace.told = True, False
                    found.append(_snapshot(trace_id, trace))
        return found

    def is_called(self, trace_id: bytes) -> bool:
        """Whether a call from another process ended in this trace, so that the operation may be that of the caller."""
        trace = self._traces.get(trace_id)
        return trace is not None and bool(trace.entries)

    def claimed(self, operation_id: str) -> bytes | None:
        """The trace whose spans name this operation."""
        return self._claims.get(operation_id)

    def drop(self, trace_id: bytes) -> None:
        """Log events report on this trace: follow it no more."""
        trace = self._traces.pop(trace_id, None)
        if trace is not None:
            self._let_go(trace_id, trace)

    def _is_claimed(self, trace_id: bytes, attributes: Mapping[str, Any], owns: Callable[[bytes, str], bool]) -> bool:
        claim = attributes.get(s.OPERATION_ID)
        if not isinstance(claim, str) or not 0 < len(claim) <= KEY_LENGTH:
            return False
        if self._claims.get(claim) == trace_id:
            return False  # log events on it would have ended that claim
        if owns(trace_id, claim):
            return True
        if len(self._claims) < self._most_traces:
            self._claims.setdefault(claim, trace_id)
        return False

    def _add(self, span: Any, attributes: Mapping[str, Any], about: dict[str, Any], find: Find, now: float) -> _Trace:
        trace = self._traces.get(span.trace_id)
        if trace is None:
            trace = self._begin(span, find)
        claim = attributes.get(s.OPERATION_ID)
        if isinstance(claim, str) and self._claims.get(claim) == span.trace_id:
            trace.claims.add(claim)
        trace.heard_at = now
        instance = str(about[s.SERVICE_INSTANCE_ID])
        if len(trace.homes) < HOMES:
            trace.homes.setdefault(instance, about)
        if span.span_id in trace.places or (trace.root is not None and trace.root.span_id == span.span_id):
            return trace  # its sender says it again
        trace.told, trace.settled = False, False
        trace.first = min(trace.first, span.start_time_unix_nano)
        trace.last = max(trace.last, span.end_time_unix_nano)
        trace.usage.add(span.span_id, span.parent_span_id, attributes)
        end = _end_of(span, attributes)
        if end.agent is not None and (trace.agent is None or not span.parent_span_id):
            trace.agent = end.agent
        if not span.parent_span_id:
            if trace.root is None:
                trace.root, trace.rooted = end, instance
                trace.homes.setdefault(instance, about)
            return trace
        if span.flags & _REMOTE and len(trace.entries) < STAGES:
            trace.entries[end.span_id] = end
            if instance in trace.homes:
                trace.called[instance] = min(trace.called.get(instance, end.started), end.started)
            self._callers[span.trace_id] = None
        if len(trace.places) < KNOWN:
            trace.places[end.span_id] = _SpanPosition(end.above, _step(end.name))
            self._known += 1
        _add_stage(trace, end)
        while self._known > self._most_spans and len(self._traces) > 1:
            self._forget()
        return trace

    def _begin(self, span: Any, find: Find) -> _Trace:
        if len(self._traces) >= self._most_traces:
            self._forget()
        trace = _Trace({}, span.start_time_unix_nano)
        entry = find(span.trace_id.hex())
        if entry is not None and entry.instance.startswith(MARK):
            _go_on(trace, entry)
        self._traces[span.trace_id] = trace
        return trace

    def _forget(self) -> None:
        """Forget an ended trace; the oldest one if none of the oldest few has ended."""
        some = list(islice(self._traces, STAGES))
        gone = next((trace_id for trace_id in some if _is_over(self._traces[trace_id])), some[0])
        self._let_go(gone, self._traces.pop(gone))

    def _let_go(self, trace_id: bytes, trace: _Trace) -> None:
        self._known -= len(trace.places)
        self._callers.pop(trace_id, None)
        for claim in trace.claims:
            self._claims.pop(claim, None)


def _by_home(touched: Mapping[bytes, _Trace]) -> Iterator[records.Group]:
    homes: dict[str, tuple[dict[str, Any], list[records.Record]]] = {}
    for trace_id, trace in touched.items():
        if trace.settled:
            continue  # nothing came but what was said before
        _, found = homes.setdefault(str(trace.home[s.SERVICE_INSTANCE_ID]), (trace.home, []))
        found.append(_record(trace_id, trace))
    for home, found in homes.values():
        yield records.Group(home, s.SCOPE, tuple(found))


def _record(trace_id: bytes, trace: _Trace) -> records.Record:
    """The trace as an event; the same event as before if nothing has arrived since."""
    snapshot = _snapshot(trace_id, trace)
    final = snapshot.status.final
    if final and trace.ended_at is None:
        trace.ended_at = snapshot.sequence
    moment = min(round(snapshot.timestamp * 1e9), LATEST)
    return records.parse_record(
        otlp.log_record(
            s.OPERATION_ENDED if trace.ended_at == snapshot.sequence else s.UPDATED,
            moment,
            moment,
            otlp.ERROR if snapshot.status is Status.FAILED else otlp.INFO,
            f"{snapshot.name} {snapshot.status.value}" if final else snapshot.message or "",
            otlp.attributes(6, wire.to_attributes(snapshot)),
            trace_id.hex(),
            snapshot.span.span_id if snapshot.span is not None else "0" * 15 + "1",
            True,
            tagged=False,
        )
    )


def _go_on(trace: _Trace, entry: Entry) -> None:
    """Continue from what was known before this monitor started."""
    known = entry.snapshot
    trace.before = known if entry.presumed is None else None
    if trace.before is not None and known.status.final:
        trace.ended_at = known.sequence
    trace.agent, trace.sequence = known.agent, known.sequence
    if known.started_at is not None:
        trace.first = min(trace.first, round(known.started_at * 1e9))
    trace.last = round(known.timestamp * 1e9)
    trace.stages = list(known.stages)
    for _, count, seconds in known.folded:
        trace.folded += count
        trace.folded_seconds += seconds
    trace.usage.before = {
        key: used for key, used in known.usage.items() if isinstance(used, (int, float)) and finite(used)
    }


def _is_over(trace: _Trace) -> bool:
    return trace.root is not None or trace.settled or (trace.before is not None and trace.before.status.final)


def _attributes_of(span: Any) -> dict[str, Any]:
    """The attributes of a span; if it is only a stage, those that are read of one."""
    if not span.parent_span_id or span.flags & _REMOTE:
        return records.to_dict(span.attributes)
    return records.to_dict(pair for pair in span.attributes if pair.key in _READ)


def _step(name: str) -> str:
    """The name of a span as a part of the path of a stage."""
    return name.replace("/", "∕") or "span"  # noqa: RUF001  # a slash would part the path


def _end_of(span: Any, attributes: Mapping[str, Any]) -> _End:
    failed = span.status.code == _ERROR
    agent = attributes.get(s.GEN_AI_AGENT)
    return _End(
        span.name[:TEXT],
        span.start_time_unix_nano,
        max(span.start_time_unix_nano, span.end_time_unix_nano),
        failed,
        (span.status.message[:TEXT] or None) if failed else None,
        span.span_id,
        span.parent_span_id,
        _scalars(attributes) if not span.parent_span_id or span.flags & _REMOTE else {},
        agent[:TEXT] if isinstance(agent, str) else None,
    )


def _add_stage(trace: _Trace, end: _End) -> None:
    trace.stages.append(end)
    if len(trace.stages) > STAGES:
        oldest = trace.stages.pop(0)
        trace.folded += 1
        trace.folded_seconds += oldest.elapsed


def _path(trace: _Trace, end: _End) -> str:
    """The names of its ancestors and its own, as far as they have arrived."""
    names, place = [_step(end.name)], trace.places.get(end.span_id)
    while place is not None and len(names) < DEEP:
        place = trace.places.get(place.above)
        if place is not None:
            names.append(place.name)
    return "/".join(reversed(names))


def _stage(trace: _Trace, end: _End) -> StageSnapshot:
    return StageSnapshot(
        _step(end.name),
        _path(trace, end),
        Status.FAILED if end.failed else Status.COMPLETED,
        started_at=end.started / 1e9,
        elapsed=end.elapsed,
        reason=end.reason,
    )


def _stages(trace: _Trace) -> tuple[StageSnapshot, ...]:
    """The stages in the order of their starts, ancestors first."""
    found = [one if isinstance(one, StageSnapshot) else _stage(trace, one) for one in trace.stages]
    return tuple(sorted(found, key=lambda stage: (stage.started_at or 0.0, stage.path.count("/"))))


def _end(trace: _Trace) -> _End | None:
    """What ended the operation: its root, or else the first span that was called from outside."""
    if trace.root is not None:
        return trace.root
    return min(trace.entries.values(), key=lambda end: end.started) if trace.settled else None


def _snapshot(trace_id: bytes, trace: _Trace) -> Snapshot:
    if not trace.told:
        trace.told = True
        trace.sequence = max(trace.sequence + 1, clock.time_ns() // 1_000_000)  # later than before a restart, too
    end, before = _end(trace), trace.before
    status, reason, moment, name, first = Status.RUNNING, None, trace.last, trace.name, trace.first
    if end is not None:
        status = Status.FAILED if end.failed else Status.COMPLETED
        reason = (end.reason or "the root span says error") if end.failed else None
        moment, name, first = end.ended, end.name or trace.name, end.started
    elif before is not None and before.status.final:
        status, reason, moment = before.status, before.reason, round(before.timestamp * 1e9)
        name, first = before.name, round((before.started_at or 0.0) * 1e9) or first
    stages = _stages(trace)
    newest = _step(trace.stages[-1].name) if trace.stages else None
    return Snapshot(
        trace_id.hex(),
        name,
        status,
        moment / 1e9,
        sequence=trace.sequence,
        health=Health.PROGRESSING,
        reason=reason,
        started_at=first / 1e9,
        elapsed=max(0, moment - first) / 1e9,
        message=None if status.final else newest,
        agent=(end.agent if end is not None else None) or trace.agent,
        stages=stages,
        folded=(("completed", trace.folded, trace.folded_seconds),) if trace.folded else (),
        usage=Attributes(trace.usage.total(trace.places)),
        attributes=Attributes(_known_attributes(end, before)),
        span=SpanIds(trace_id.hex(), end.span_id.hex() if end is not None else "0" * 15 + "1"),
    )


def _known_attributes(end: _End | None, before: Snapshot | None) -> Mapping[str, Any]:
    if end is not None:
        return end.attributes
    return {} if before is None else before.attributes


def _scalars(about: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        key[:TEXT]: value[:TEXT] if isinstance(value, str) else value
        for key, value in about.items()
        if isinstance(value, (str, bool)) or finite(value)
    }
    return dict(list(found.items())[:ATTRIBUTES])
