"""The death certificate: what a watcher sends for an operation whose process is proven to be gone.

It consists of one log event, and of the spans that the process can no longer send: the operation's, and one for each
open stage, under the original ids, so that the trace is complete. Nothing else sends spans for another process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from otel_progress import semconv as s
from otel_progress.model import wire
from otel_progress.model.snapshot import Snapshot, StageSnapshot
from otel_progress.model.status import Status
from otel_progress.model.units import duration, percent, units
from otel_progress.model.values import TEXT_LENGTH, Drops, Value, value
from otel_progress.outbound import otlp
from otel_progress.version import VERSION

STDERR: Final = 16_384
"""Characters of the last stderr output that are kept."""
_FIELD: Final = 6
_KINDS: Final = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}


@dataclass(frozen=True)
class Exit:
    """How a process ended, as far as it is known.

    Attributes:
        code: its exit code.
        signal: the signal that killed it, such as `SIGKILL`.
        out_of_memory: whether the kernel killed it for lack of memory; None if that is unknown.
        stderr: the last lines of its stderr, if they were asked for.
    """

    code: int | None = None
    signal: str | None = None
    out_of_memory: bool | None = None
    stderr: str | None = None

    @property
    def reason(self) -> str:
        """The end in words."""
        if self.signal is not None:
            said = f"its process was killed by {self.signal}"
        elif self.code is not None:
            said = f"its process ended with exit code {self.code}"
        else:
            said = "its process is gone"
        return said + (", out of memory" if self.out_of_memory else "")

    @property
    def label(self) -> str:
        """The end as the label of a metric."""
        if self.signal is not None:
            said = f"killed by {self.signal}"
        elif self.code is not None:
            said = f"exited with code {self.code}"
        else:
            said = "gone"
        return said + (" (out of memory)" if self.out_of_memory else "")

    @property
    def attributes(self) -> dict[str, Value]:
        """The attributes of the event and the spans; unknown ones are left out."""
        said: dict[str, Value | None] = {
            s.EXIT_CODE: self.code,
            s.EXIT_SIGNAL: self.signal,
            s.EXIT_OUT_OF_MEMORY: self.out_of_memory,
            s.EXIT_STDERR: self.stderr[-STDERR:] if self.stderr else None,
        }
        return {key: known for key, known in said.items() if known is not None}


@dataclass(frozen=True)
class Certificate:
    """Two complete OTLP requests; `traces` is empty if no span may be sent."""

    logs: bytes
    traces: bytes = b""


def certify(lost: Snapshot, exit: Exit, resource: Mapping[str, Any], now: int) -> Certificate:
    """Close an operation that was lost at the time of its snapshot; `now` is in ns since 1970.

    The resource is that of the lost process, so that backends store the end with the rest. A trace that is not sampled
    gets no spans, as they would be its only ones.
    """
    about = otlp.resource(known(resource))
    scope = otlp.scope(s.SCOPE, VERSION)
    span = lost.span
    traces = b""
    if span is not None and span.sampled:
        traces = otlp.envelope(about, scope, _spans(lost, exit))
    return Certificate(otlp.envelope(about, scope, [_event(lost, exit, now)]), traces)


def _event(lost: Snapshot, exit: Exit, now: int) -> bytes:
    moment = round(lost.timestamp * 1e9)
    span = lost.span
    return otlp.log_record(
        s.OPERATION_ENDED,
        moment,
        now,
        otlp.ERROR,
        _sentence(lost),
        otlp.attributes(_FIELD, {**wire.to_attributes(lost), **exit.attributes}),
        span.trace_id if span else None,
        span.span_id if span else None,
        bool(span and span.sampled),
    )


def remark(ended: Snapshot, text: str, status: str, resource: Mapping[str, Any], now: int, number: int = 1) -> bytes:
    """A complete OTLP request with a note on an operation that ended, for its activity feed.

    Args:
        ended: its last snapshot.
        text: the note.
        status: of the note, such as `warning`.
        resource: that of its process.
        now: in ns since 1970.
        number: 1 for the first note after the end, 2 for the second.
    """
    later = replace(ended, sequence=ended.sequence + number, timestamp=max(ended.timestamp, now / 1e9))
    span = later.span
    about = {s.NOTE_TEXT: text, s.NOTE_STATUS: status, **wire.to_attributes(later)}
    event = otlp.log_record(
        s.NOTE,
        round(later.timestamp * 1e9),
        now,
        otlp.WARN,
        f"{later.name}: {text}",
        otlp.attributes(_FIELD, about),
        span.trace_id if span else None,
        span.span_id if span else None,
        bool(span and span.sampled),
    )
    return otlp.envelope(otlp.resource(known(resource)), otlp.scope(s.SCOPE, VERSION), [event])


def _sentence(lost: Snapshot) -> str:
    """The end in words, with the progress of the operation, or else of its innermost stage."""
    about = _counted(lost)
    progress, done = about.progress, ""
    if progress.completed is not None:
        done = f", {units(progress.completed, progress.total, progress.unit)}"
    if progress.stated is not None:
        done += f", {percent(progress.stated)}"
    if isinstance(about, StageSnapshot) and done:
        done += f" in {about.path}"
    return f"{lost.name} {lost.status.value} after {duration(lost.elapsed)}{done} ({lost.reason})"


def _counted(lost: Snapshot) -> Snapshot | StageSnapshot:
    """Whose progress is shown: the operation's, unless only its innermost stage counted."""
    if lost.progress.completed or lost.progress.ratio:
        return lost
    stage = next((stage for stage in reversed(lost.stages) if stage.path == lost.stage), None)
    told = stage is not None and (stage.progress.completed is not None or stage.progress.ratio is not None)
    return stage if stage is not None and told else lost


def _spans(lost: Snapshot, exit: Exit) -> list[bytes]:
    """The spans that the process can no longer send: those of its open stages, then that of the operation."""
    span = lost.span
    assert span is not None
    end = round(lost.timestamp * 1e9)
    stages = [stage for stage in lost.stages if stage.span_id is not None and stage.status is Status.LOST]
    out = [
        _span(
            span.trace_id,
            str(stage.span_id),
            _above(stage, stages) or span.span_id,
            stage.name,
            1,
            round((stage.started_at or lost.timestamp) * 1e9),
            end,
            _of_stage(stage, lost),
            lost.reason,
        )
        for stage in stages
    ]
    kind = _KINDS.get(span.kind, 1)
    start = span.start_time or round((lost.started_at or lost.timestamp) * 1e9)
    about = {**_of_operation(lost), **exit.attributes}
    ids = (span.trace_id, span.span_id, span.parent_id)
    return [*out, _span(*ids, lost.name, kind, start, end, about, lost.reason, span.parent_remote)]


def _above(stage: StageSnapshot, stages: list[StageSnapshot]) -> str | None:
    """The span of the innermost open stage around this one; of several with the same path, the newest."""
    path = stage.path.removesuffix(f"/{stage.name}") if stage.path != stage.name else ""
    around = [
        other
        for other in stages
        if other is not stage and other.path == path and (other.started_at or 0.0) <= (stage.started_at or 0.0)
    ]
    return max(around, key=lambda other: other.started_at or 0.0).span_id if around else None


def _of_operation(lost: Snapshot) -> dict[str, Value]:
    """The attributes that the process would have set."""
    said = {
        **lost.attributes,
        **{f"{s.RESULT}.{key}": item for key, item in lost.result.items()},
        **{f"{s.OUTCOMES}.{key}": item for key, item in lost.outcomes.items()},
        s.OPERATION_ID: lost.operation_id,
        s.OPERATION_NAME: lost.name,
        s.OPERATION_ATTEMPT: lost.attempt,
        s.OPERATION_PARENT_ID: lost.parent_id,
        s.OPERATION_DESCRIPTION: lost.description,
        s.GEN_AI_OPERATION: None if lost.agent is None else s.GEN_AI_INVOKE_AGENT,
        s.GEN_AI_AGENT: lost.agent,
        s.STATUS: lost.status.value,
        s.STAGE_CURRENT: lost.stage,
        s.STACK: getattr(lost, "stack", None),
    }
    about = _counted(lost)
    if isinstance(about, StageSnapshot):
        said |= {s.STAGE_PATH: about.path}
    return known({**said, **_count(about), s.MESSAGE: lost.message})


def _of_stage(stage: StageSnapshot, lost: Snapshot) -> dict[str, Value]:
    said = {
        **stage.attributes,
        **{f"{s.OUTCOMES}.{key}": item for key, item in stage.outcomes.items()},
        s.OPERATION_ID: lost.operation_id,
        s.OPERATION_NAME: lost.name,
        s.STAGE_PATH: stage.path,
        s.STATUS: stage.status.value,
    }
    return known({**said, **_count(stage)})


def _count(about: Snapshot | StageSnapshot) -> dict[str, Any]:
    progress = about.progress
    return {
        s.COMPLETED: progress.completed,
        s.UNIT: None if progress.completed is None else progress.unit,
        s.TOTAL: progress.total,
        s.MESSAGE: about.message,
    }


def known(said: Mapping[str, Any]) -> dict[str, Value]:
    """The attributes with valid values, as senders are untrusted."""
    return {str(key): value(item, Drops(), TEXT_LENGTH) for key, item in said.items() if item is not None}


def _span(
    trace_id: str,
    span_id: str,
    parent_id: str | None,
    name: str,
    kind: int,
    start: int,
    end: int,
    about: Mapping[str, Value],
    reason: str | None,
    remote: bool = False,
) -> bytes:
    """An encoded span that ends as lost; times in ns."""
    return otlp.error_span(
        trace_id,
        span_id,
        parent_id,
        name,
        kind,
        start,
        max(start, end),
        otlp.attributes(otlp.SPAN_ATTRIBUTES, about),
        reason or Status.LOST.value,
        parent_remote=remote,
    )
