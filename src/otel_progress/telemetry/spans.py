"""A span for each operation and stage, and the context that is passed on to other processes.

Spans come from the application's tracer provider. Without one, no span is made.
"""

from __future__ import annotations

import copyreg
from collections.abc import Mapping, MutableMapping
from contextvars import Token
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import baggage, propagate, trace
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, set_span_in_context

from otel_progress import semconv as s
from otel_progress import settings
from otel_progress.live import context, hooks, preload, redaction
from otel_progress.live.boundary import public
from otel_progress.live.counting import own_progress
from otel_progress.live.guard import drops, tell_once
from otel_progress.live.records import Parent, TrailEntry
from otel_progress.live.registry import registry
from otel_progress.live.state import HandleState, OperationState, StageState
from otel_progress.live.survey import settled
from otel_progress.live.trail import MOST, ReachedProgress, thin
from otel_progress.model import values
from otel_progress.model.origin import of_the_job
from otel_progress.model.snapshot import SpanIds
from otel_progress.model.status import Status as Ending
from otel_progress.model.values import EMPTY
from otel_progress.telemetry import exceptions
from otel_progress.version import VERSION

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer, TracerProvider

_ERRORS: Final = frozenset({Ending.FAILED, Ending.CANCELLED, Ending.INTERRUPTED, Ending.LOST})
_KIND: Final = SpanKind.INTERNAL
_KEY: Final = next(iter(set_span_in_context(trace.INVALID_SPAN, Context())))
"""The key under which a context keeps its span; with it, the context of a stage is made in one step."""
OPERATION_ID: Final = s.OPERATION_ID
OPERATION_NAME: Final = s.OPERATION_NAME
_ORDER: Final = {s.OPERATION_STARTED: 0, s.OPERATION_ENDED: 2}
ATTRIBUTES: Final = 128
"""Attributes of a span; the default limit of the SDK."""


class HandleSpans:
    """Makes, attaches and ends the spans of handles."""

    def __init__(self) -> None:
        """Leave the tracer open until the first span."""
        self._tracer: Tracer | None = None
        self._named = settings.names_tracer_provider()

    def use(self, provider: TracerProvider) -> None:
        """Make spans with this provider from now on."""
        self._tracer = provider.get_tracer(s.SCOPE, VERSION)

    def absent(self) -> bool:
        """Whether no SDK was set up; called with each decorated function, so it must be cheap."""
        return self._tracer is None and getattr(trace, "_TRACER_PROVIDER", self) is None and not self._named

    def start(self, operation: OperationState, parent: object, now: int) -> None:
        """Start the span of an operation as a child of its parent's; without an SDK there is none."""
        if operation._adopted is not None:
            operation._span = operation._adopted.span
            return
        if operation._observed and not hooks.takes_requests(operation):
            return  # spans of a program that knows nothing of us are its own
        if self._tracer is None:
            if self.absent():
                return
            self._tracer = trace.get_tracer(s.SCOPE, VERSION)
        span = self._tracer.start_span(
            operation.name, _above(parent), _KIND, _of_operation(operation), _links(operation), now, False, False
        )
        if span.is_recording():
            operation._span = span
            if not hooks.wanted:
                preload.get("live.engine.runtime").want()
        elif span.get_span_context().is_valid:
            operation._span = span

    def start_stage(self, stage: StageState, inside: bool, current: bool, now: int) -> None:
        """Start the span of a stage; it has the operation's id and name, so that it is found without the root span."""
        if stage._adopted is not None:
            stage._span = stage._adopted.span
            return
        if stage._observed and not hooks.takes_requests(stage._op):  # type: ignore[arg-type]
            return
        if self._tracer is None:
            self._tracer = trace.get_tracer(s.SCOPE, VERSION)
        operation: OperationState = stage._op  # type: ignore[assignment]
        if hooks.watcher is not None and inside:
            between = hooks.watcher.here(stage._parent)
            if between is not None and between.operation is operation:
                stage._parent = between
        attributes: dict[str, Any] = {OPERATION_ID: operation._id, OPERATION_NAME: operation.name}
        if stage._parent is not operation:
            attributes[s.STAGE_PATH] = stage._full_path or stage._path
        if stage._extras is not None:
            attributes = {**stage._extras.attributes, **attributes}
        around: Any = get_current() if inside else _above(stage._parent)
        stage._span = span = self._tracer.start_span(stage.name, around, _KIND, attributes, None, now, False, False)
        if current:
            stage._token = attach(Context({**(around if inside else get_current()), _KEY: span}))

    def attach(self, node: HandleState) -> Any:
        """Make the handle's span current."""
        span = node._span
        return attach(set_span_in_context(span))

    @staticmethod
    def detach(token: Any) -> None:
        """Undo `attach`; the API's own `detach` would swallow what a signal handler raises in it."""
        if type(token) is Token:
            token.var.reset(token)
        else:
            detach(token)

    def end(self, node: HandleState, status: Ending, reason: str | None, error: BaseException | None, now: int) -> None:
        """End the span with its status, exception, attributes and events; one of the program is its own."""
        if node._adopted is not None:
            return
        span: Span = node._span
        if (
            status is not Ending.COMPLETED
            or node._lanes is not None
            or node._extras is not None
            or node._message is not None
            or node._trail is not None
            or node._counts_itself
            or node._named_before
            or node._advanced
            or node._nested is not None
            or not isinstance(node, StageState)
        ):
            try:
                _record_end(span, node, status, reason, error, now)
            except BaseException:
                tell_once("the end of a span could not be recorded completely; it ends all the same")
        span.end(now)

    def ids(self, node: HandleState) -> SpanIds | None:
        """The ids of the handle's span."""
        span: Span | None = node._span
        if span is None:
            return None
        ids = span.get_span_context()
        above = getattr(span, "parent", None)
        return SpanIds(
            f"{ids.trace_id:032x}",
            f"{ids.span_id:016x}",
            None if above is None else f"{above.span_id:016x}",
            above is not None and above.is_remote,
            ids.trace_flags.sampled,
            getattr(span, "start_time", None) or node._started_ns,
        )


def _above(parent: object) -> Context | None:
    """The context to start a span in; None for the current one."""
    if isinstance(parent, Parent):
        found: Context | None = parent.context
        return found
    if isinstance(parent, HandleState) and parent is not context.innermost.get() and parent._span is not None:
        return set_span_in_context(parent._span)
    return None


def _record_end(
    span: Span, node: HandleState, status: Ending, reason: str | None, error: BaseException | None, now: int
) -> None:
    """Set the attributes and status that are known at the end, and add the events."""
    span.set_attributes(_at_end(node, status))
    bad = status in _ERRORS
    recorded = bad and error is not None
    for name, when, about in _events(node, MOST - recorded):
        span.add_event(name, _event(name, about), when)
    if error is not None and recorded:
        span.add_event(s.EXCEPTION, exceptions.attributes(error), now)
    if bad:
        span.set_status(Status(StatusCode.ERROR, reason or status.value))


def _links(operation: OperationState) -> list[Link] | None:
    """A link to the span of the attempt that it goes on from."""
    earlier = operation._earlier_span
    if earlier is None:
        return None
    try:
        trace_id, span_id = int(earlier[0], 16), int(earlier[1], 16)
    except ValueError:
        return None
    return [Link(SpanContext(trace_id, span_id, is_remote=True))]


def _of_operation(operation: OperationState) -> dict[str, Any]:
    """The attributes at the start."""
    given = EMPTY if operation._extras is None else operation._extras.attributes
    return {**given, **_identity(operation)}


def _identity(operation: OperationState) -> dict[str, Any]:
    """The attributes that identify the operation."""
    options = operation._opts
    attributes: dict[str, Any] = {
        s.OPERATION_ID: operation.id,
        s.OPERATION_NAME: operation.name,
        s.OPERATION_ATTEMPT: operation.attempt,
    }
    parent = operation.parent_id
    if parent is not None:
        attributes[s.OPERATION_PARENT_ID] = parent
    if options.agent is not None:
        attributes[s.GEN_AI_OPERATION] = s.GEN_AI_INVOKE_AGENT
        attributes[s.GEN_AI_AGENT] = options.agent
    if options.description is not None:
        attributes[s.OPERATION_DESCRIPTION] = redaction.described(options.description)
    return attributes


def _at_end(node: HandleState, status: Ending) -> dict[str, Any]:
    """The attributes at the end; the identity comes last, as a span with too many attributes drops the oldest."""
    found = settled(node)
    done, total = found.completed, found.total
    if isinstance(node, OperationState):
        ours = _identity(node)
    else:
        ours = {s.OPERATION_ID: node.operation.id, s.OPERATION_NAME: node.operation.name, s.STAGE_PATH: node._path}
    ours[s.STATUS] = status.value
    if done is not None:
        ours[s.COMPLETED], ours[s.UNIT] = min(done, values.INT_MAX), found.unit
    if total is not None:
        ours[s.TOTAL] = min(total, values.INT_MAX)
    if node._message is not None:
        ours[s.MESSAGE] = node._message
    given = _given(node)
    room = ATTRIBUTES - len(ours)
    if len(given) > room:
        drops.add(s.DROP_ATTRIBUTE, len(given) - room)
    return {**dict(islice(given.items(), room)), **ours}


def _given(node: HandleState) -> dict[str, Any]:
    """The user's data: attributes, usage, results, outcomes."""
    more = node._extras
    if more is None:
        return {}
    given: dict[str, Any] = dict(more.attributes)
    for key, amount in more.usage.items():
        given[f"{s.GEN_AI_USAGE if key.endswith('_tokens') else s.USAGE}.{key}"] = amount
    given |= {f"{s.RESULT}.{key}": value for key, value in more.result.items()}
    given |= {f"{s.OUTCOMES}.{key}": count for key, count in more.outcomes.items()}
    return given


def _events(node: HandleState, most: int) -> list[TrailEntry]:
    """The events of the span, with the starts and ends of its stages; at most `most`."""
    kept: list[TrailEntry] = list(node._trail or ())
    lost = 0
    if isinstance(node, OperationState) and node._stages is not None:
        stages = list(node._stages)
        lost = 2 * sum(count for count, _ in (node._folded or {}).values())
        if node._first_stage is not None and node._first_stage not in stages:
            stages.insert(0, node._first_stage)
            lost -= 2
        for stage in stages:
            kept.append((s.STAGE_STARTED, stage._started_ns, stage))
            if stage._status.final:
                kept.append((s.STAGE_ENDED, stage._ended_ns, stage))
    kept.sort(key=lambda event: (_ORDER.get(event[0], 1), event[1]))
    lost += max(0, len(kept) - most)
    if lost:
        drops.add(s.DROP_SPAN_EVENTS, lost)
    return thin(kept, most)


def _event(name: str, about: Any) -> Mapping[str, Any]:
    """The attributes of a span event: those given, or those of the stage or progress it is about."""
    if isinstance(about, ReachedProgress):
        return about.attributes()
    if not isinstance(about, StageState):
        return about if about is not None else EMPTY
    attributes: dict[str, Any] = {s.STAGE_NAME: about.name, s.STAGE_PATH: about._path}
    if name != s.STAGE_ENDED:
        return {**attributes, s.STATUS: Ending.RUNNING.value}  # its end was not known yet
    attributes[s.STATUS] = about._status.value
    done, total, _ = own_progress(about)
    reached = ReachedProgress(done, total, about._unit, None, about._message)
    return {**attributes, **reached.attributes()}


_BAGGAGE: Final = (s.OPERATION_ID, s.OPERATION_PARENT_NAME, s.OPERATION_PARENT_SERVICE)


def _said_of(operation: OperationState, found: Context) -> Context:
    """A context whose baggage names an operation as the parent: by its id, its name and its service."""
    for key, text in zip(_BAGGAGE, (operation.id, operation.name, registry.service)):
        found = baggage.set_baggage(key, text, found) if text else baggage.remove_baggage(key, found)
    return found


def _carrier(carrier: MutableMapping[str, str] | None = None, **_: Any) -> MutableMapping[str, str]:
    """What `inject` returns if it fails."""
    return {} if carrier is None else carrier


@public(makes=_carrier)
def inject(carrier: MutableMapping[str, str] | None = None, *, environ: bool = False) -> MutableMapping[str, str]:
    """Write the current operation and trace into headers, for a process that does a part of the work.

    Args:
        carrier: where to write; a new dict by default.
        environ: write environment variables (`TRACEPARENT`, `BAGGAGE`) instead of headers.

    Returns:
        The carrier.

    Example:
        `subprocess.run(command, env=inject(dict(os.environ), environ=True))`
    """
    carrier = {} if carrier is None else carrier
    node = context.running_here()
    now = get_current()
    if node is not None:
        now = _said_of(node.operation, now)
        node.operation._handed_over = True
    headers: dict[str, str] = {}
    propagate.inject(headers, now)
    for key, value in headers.items():
        carrier[key.upper().replace("-", "_") if environ else key] = value
    return carrier


@public(Parent(None, None))
def extract(carrier: Mapping[str, str] | None = None) -> Parent:
    """Read the operation and trace that another process wrote with `inject`.

    Args:
        carrier: the headers; the environment by default.

    Returns:
        The parent of new operations; it is empty if the headers are missing or invalid.

    Example:
        `with operation("part", parent=extract(headers)): ...`
    """
    if carrier is None:
        carrier = settings.propagated()
    try:
        plain = {str(key).lower(): str(value) for key, value in carrier.items()}
        found = propagate.extract(plain, Context())
        parent, name, service = (baggage.get_baggage(key, found) for key in _BAGGAGE)
    except Exception as error:
        if of_the_job(error):
            raise
        return Parent(None, None)
    if not parent:
        return Parent(None, found)
    return Parent(str(parent), found, str(name) if name else None, str(service) if service else None)


def _portable(parent: Parent) -> tuple[Any, tuple[dict[str, str]]]:
    """How a parent is pickled, as for a pool of processes: as its headers, since a context can't be."""
    headers: dict[str, str] = {}
    if parent.context is not None:
        propagate.inject(headers, context=parent.context)
    return extract, (headers,)


copyreg.pickle(Parent, _portable)
hooks.tracing = HandleSpans()
