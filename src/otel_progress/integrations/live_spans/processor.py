"""The span processor that remembers open spans, and the look at them in each round of the ticker."""

from __future__ import annotations

import sys
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import StatusCode, get_current_span

from otel_progress import semconv
from otel_progress.integrations import seen
from otel_progress.integrations.live_spans import kinds
from otel_progress.integrations.live_spans.kinds import Kind
from otel_progress.integrations.naming import without_ids
from otel_progress.integrations.switch import captured
from otel_progress.telemetry import adoption
from otel_progress.telemetry.adoption import Status, clock, here, innermost
from otel_progress.telemetry.span_places import is_ours_thread, working

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

    from otel_progress import Operation, Stage
    from otel_progress.telemetry.adoption import Place

PATIENCE: Final = 1.0
"""The age from which an open span is shown, in seconds; agents, models and tools are shown at the next look."""
UNWINDS: Final = 10.0
"""Seconds for which a span may go on after the work around it was cancelled or failed, before it is shown on its own:
most of what is cancelled ends later than who cancelled it."""
MOST: Final = 1_000
"""Spans that are shown at the same time."""
FRESH: Final = 10_000
"""New spans between two looks; if there are more, all open ones are looked at."""
UNSEEN: Final = 100_000
"""Open spans that are remembered while nobody looks."""
SELDOM: Final = 4
"""Looks from one check of what a span says to the next."""
CHAIN: Final = 64
"""Spans around one that are looked at."""
_SCOPE: Final = semconv.SCOPE
_ref = weakref.ref


class Entry:
    """An open span.

    Attributes:
        span: the span, not kept alive.
        key: its span id.
        parent: the entry of the span around it, if that was open; kept, as that may end first.
        place: the thread and task that opened it.
        within: the declared handle that was current then.
        started: when it was opened (s, monotonic).
        handle: its operation or stage, or that of the span around it if it is hidden.
        implicit: whether the context of its thread or task says what is around it.
        left: whether its thread or task does other work now, outside of it.
        ended: whether it ended.
        hidden: whether it is the same work as the span around it.
        touched: whether a span in it began or ended since the last look.
        kind: what kind of work it is, as far as was told.
        counted: input and output tokens that ended spans in it reported.
        said: how much it had said at the last look.
        outlived: whether the work around it, which has its tokens so far, ended before it.
        twin: whether somebody else declared the same work, and counts and steps for it.
    """

    __slots__ = (
        *("counted", "ended", "handle", "hidden", "implicit", "key", "kind", "left", "outlived", "parent", "place"),
        *("said", "span", "started", "touched", "twin", "within"),
    )

    def __init__(
        self, key: int, span: Any, parent: Entry | None, place: Place, within: Any, started: float, implicit: bool
    ) -> None:
        """Of a span that begins."""
        self.implicit = implicit
        self.left = False
        self.key = key
        self.span = span
        self.parent = parent
        self.place = place
        self.within = within
        self.started = started
        self.handle: Operation | Stage | None = None
        self.ended = self.hidden = self.touched = self.twin = self.outlived = False
        self.kind = Kind.PLAIN
        self.counted: tuple[int, int] | None = None
        self.said = 0


class LiveSpans(SpanProcessor):
    """Remembers open spans, and shows those that last as operations and stages."""

    def __init__(self) -> None:
        """No span is open."""
        self._lock = threading.RLock()
        self.broken = False
        self.forget()

    def forget(self) -> None:
        """Forget all spans: they are another process's."""
        self._lock = threading.RLock()
        self._open: dict[int, Entry] = {}
        self._fresh: deque[Entry] = deque(maxlen=FRESH)
        self._waiting: deque[Entry] = deque()
        self._refused: deque[Entry] = deque()
        self._alone: list[tuple[float, Entry]] = []
        """What went on after the work around it had ended, and when it is shown on its own (s, monotonic)."""
        self._shown: dict[int, Entry] = {}
        self._newest: dict[tuple[int, int], Entry] = {}
        """The newest span of a thread or task that the context there is around; only while spans are shown."""
        self._looks = 0
        self._rests = True

    def close(self) -> None:
        """See no more spans."""
        self.broken = True
        for entry in tuple(self._shown.values()):
            if not entry.hidden and entry.handle is not None:
                adoption.end(entry.handle, Status.INTERRUPTED, "live spans were switched off")
        self.forget()

    # -- in the threads of the program

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Remember a span that begins."""
        try:
            scope = span.instrumentation_scope
            if self.broken or (scope is not None and (scope.name == _SCOPE or scope.name in seen.scopes)):
                return
            within = innermost.get()
            if within is not None and within in seen.whole:
                return
            above = span.parent
            parent = None if above is None else self._open.get(above.span_id)
            key = span.context.span_id
            now, implicit = clock.monotonic(), parent_context is None
            self._open[key] = entry = Entry(key, _ref(span), parent, here(), within, now, implicit)
            self._fresh.append(entry)
            if parent is not None:
                parent.touched = True
            if self._rests:
                self._begin()
        except Exception:
            self._fails()

    def on_end(self, span: ReadableSpan) -> None:
        """Forget a span that ended, and end what it was shown as."""
        try:
            entry = self._open.pop(span.context.span_id, None)
            if entry is None:
                return
            entry.ended = True
            if entry.parent is not None:
                entry.parent.touched = True
            kind = kinds.kind_of(span)
            if kind is Kind.MODEL:
                self._count(entry, span)
            elif kind is Kind.TOOL:
                self._step(entry, span)
            if entry.handle is not None:
                self._shown.pop(entry.key, None)
                if not entry.hidden:
                    adoption.end(entry.handle, *_outcome(span))
        except Exception:
            self._fails()

    def shutdown(self) -> None:
        """The provider is shut down; its spans that are open may end all the same."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002
        """There is nothing to send."""
        return True

    def here(self, around: Any) -> Any:
        """The handle of the current span if that was opened inside `around`, the current handle; it is shown now."""
        try:
            entry = self._open.get(get_current_span().get_span_context().span_id)
            if entry is None or entry.ended or entry.within is not around:
                return None
            return self._show(entry)
        except Exception:
            self._fails()
            return None

    def _begin(self) -> None:
        """A span was opened, but no round of the ticker saw any yet."""
        adoption.begin()
        if len(self._open) > UNSEEN:
            self._open.clear()

    def _fails(self) -> None:
        self.broken = True
        adoption.tell_once("live spans failed, and are switched off; the program goes on")

    def _count(self, entry: Entry, span: ReadableSpan) -> None:
        """Count the tokens of a model's span that no span inside it reported already."""
        if entry.twin or any(above.twin for above in _around(entry)):
            return
        used, known = kinds.tokens_of(span), entry.counted or (0, 0)
        more = max(0, used[0] - known[0]), max(0, used[1] - known[1])
        if more == (0, 0):
            return
        target: Any = entry.handle
        last = entry
        for above in _around(entry):
            before = above.counted or (0, 0)
            above.counted = before[0] + more[0], before[1] + more[1]
            target = target or above.handle
            last = above
        target = target or last.within
        if target is not None:
            target.usage(input_tokens=more[0], output_tokens=more[1])

    def _step(self, entry: Entry, span: ReadableSpan) -> None:
        """A tool's call is a step of what called it."""
        own = entry.handle
        if entry.twin:
            return
        caller = next((above.handle for above in _around(entry) if above.handle not in (None, own)), entry.within)
        key = None if caller is None else kinds.step_of(span)
        if key is not None and caller is not None:
            caller.step(key)

    # -- in the ticker's thread

    def look(self, now: float) -> None:
        """Show spans that last, and end what was made of spans that are gone."""
        if self.broken:
            return
        self._rests = False
        self._looks += 1
        if not self._shown or len(self._newest) > FRESH:
            self._newest.clear()
        for entry in self._new():
            if entry.implicit and self._shown:
                self._newest[_where(entry)] = entry
            span = None if entry.ended else entry.span()
            if span is None:
                self._gone(entry)
            elif kinds.kind_of(span) in kinds.AI:
                self._show(entry)
            else:
                self._waiting.append(entry)
        while self._waiting and self._waiting[0].started <= now - PATIENCE:
            self._look_at(self._waiting.popleft())
        for _ in range(min(len(self._refused), MOST - len(self._shown))):
            self._look_at(self._refused.popleft())
        if self._alone:
            due = [entry for at, entry in self._alone if at <= now]
            self._alone = [(at, entry) for at, entry in self._alone if at > now]
            for entry in due:
                self._look_at(entry)
        for entry in _values(self._shown):
            self._see(entry, now)

    def _new(self) -> list[Entry]:
        fresh = self._fresh
        if len(fresh) < FRESH:
            return [fresh.popleft() for _ in range(len(fresh))]
        fresh.clear()
        self._waiting.clear()
        return [entry for entry in _values(self._open) if entry.handle is None]

    def _look_at(self, entry: Entry) -> None:
        if entry.ended or entry.span() is None:
            self._gone(entry)
        else:
            self._show(entry)

    def _gone(self, entry: Entry) -> None:
        """A span that ended, or whose last reference was dropped without an end."""
        if not entry.ended:
            entry.ended = True
            self._open.pop(entry.key, None)

    def _see(self, entry: Entry, now: float) -> None:
        """Look at a span that is shown."""
        handle, span = entry.handle, entry.span()
        if entry.ended or handle is None:
            self._shown.pop(entry.key, None)
            return
        if span is None:
            self._shown.pop(entry.key, None)
            self._gone(entry)
            if not entry.hidden:
                adoption.end(handle, Status.INTERRUPTED, "abandoned: the span was dropped without an end")
            return
        if handle.status.final:  # it ended with the work around it, and goes on
            self._shown.pop(entry.key, None)
            entry.handle, entry.hidden, entry.twin, entry.outlived = None, False, False, True
            self._alone.append((now + (0.0 if handle.status is Status.COMPLETED else UNWINDS), entry))
            return
        if self._looks % SELDOM == 0:
            said = len(span.events) + len(span.attributes or ())
            if said != entry.said:
                entry.touched, entry.said = True, said
                self._learn(entry, span, handle)
        if entry.touched:
            entry.touched = False
            handle.touch()
        left = not entry.hidden and entry.kind is not Kind.MODEL and self._is_left(entry)
        if left != entry.left:
            entry.left = left
            adoption.leave_alone(handle, left)

    def _is_left(self, entry: Entry) -> bool:
        """Whether its thread or task went on to other work, which began outside of it, and nothing else works in it.

        Then it was forgotten, or ends somewhere else: that nothing happens in it is no sign of a hang.
        """
        newest = self._newest.get(_where(entry))
        if newest is None or newest.started <= entry.started or entry in _around(newest):
            return False
        return not any(entry in _around(other) for other in _values(self._shown))

    def _learn(self, entry: Entry, span: Span, handle: Operation | Stage) -> None:
        """A span said more: its kind may be known now."""
        kind = kinds.kind_of(span)
        if kind is not entry.kind:
            entry.kind = kind
            if kind in kinds.LIMITS and (not entry.hidden or kind in kinds.AI):
                adoption.limit(handle, kinds.LIMITS[kind])

    # -- showing

    def _show(self, entry: Entry) -> Operation | Stage | None:
        """Make an operation or a stage of an open span, after the spans around it; None if there is no room."""
        with self._lock:
            if entry.handle is not None:
                return entry.handle
            span = entry.span()
            if entry.ended or span is None:
                return None
            waiting = []
            above = None
            for around in _around(entry):
                if around.handle is not None and not around.handle.status.final:
                    above = around
                    break
                if not around.ended and around.span() is not None:
                    waiting.append(around)
            for around in (*reversed(waiting), entry):
                if self._adopt(around, above):
                    above = around
            return entry.handle

    def _adopt(self, entry: Entry, above: Entry | None) -> bool:
        """Show one span below the one around it that is shown; returns whether it is shown now."""
        span = entry.span()
        if entry.handle is not None:
            return True
        if span is None or (above is None and entry.within is None and is_ours_thread(entry.place)):
            return False
        if len(self._shown) >= MOST:
            adoption.drops.add(semconv.DROP_LIVE_SPANS)
            self._refused.append(entry)
            return False
        kind, name = kinds.kind_of(span), without_ids(span.name)
        entry.kind = kind
        inside = entry.within if above is None or entry.within is not above.within else above.handle
        if inside is not None and inside.status.final:
            inside = None if above is None else above.handle
        if above is not None and inside is above.handle and inside is not None:
            if kinds.is_same(name, kind, inside.name, above.kind):
                entry.handle, entry.hidden = inside, True
                if kind in kinds.AI and above.kind not in kinds.LIMITS:
                    adoption.limit(inside, kinds.LIMITS.get(kind))
        if entry.handle is None and (twin := adoption.twin(span.name, entry.started)) is not None:
            entry.handle, entry.hidden, entry.twin = twin, True, True
        if entry.handle is None:
            entry.handle = adoption.adopt(
                span,
                inside=inside,
                started=entry.started,
                place=entry.place,
                places=lambda: self._places(entry),
                usual_limit=kinds.LIMITS.get(kind),
                name=name,
                agent=None if inside is not None else kinds.agent_of(span),
                message=kinds.message_of(span, kind),
            )
            given = captured(kinds.arguments_of(span)) if kind is Kind.TOOL else None
            if given is not None:
                entry.handle.set(arguments=given)
            if inside is None and entry.counted is not None and not entry.outlived:
                entry.handle.usage(input_tokens=entry.counted[0], output_tokens=entry.counted[1])
        entry.said = len(span.events) + len(span.attributes or ())
        self._shown[entry.key] = entry
        if entry.ended:  # meanwhile, in another thread
            self._shown.pop(entry.key, None)
            if not entry.hidden:
                adoption.end(entry.handle, *_outcome(span))
        return True

    def _places(self, entry: Entry) -> list[Place]:
        """Where the work of a span that is shown runs now, by the innermost spans in it."""
        handle = entry.handle
        mine = [one for one in _values(self._open) if not one.ended and _owner(one) is handle]
        mine.sort(key=lambda one: one.started, reverse=True)

        def is_ours(span_id: int) -> bool:
            found = self._open.get(span_id)
            return found is not None and _owner(found) is handle

        return working([one.place for one in mine], is_ours)


def _values(entries: dict[int, Entry]) -> tuple[Entry, ...]:
    """The entries at one moment; the garbage collection may end spans meanwhile."""
    for _ in range(3):
        try:
            return tuple(entries.values())
        except RuntimeError:
            pass
    return ()


def _where(entry: Entry) -> tuple[int, int]:
    """Identifies the thread and the task that opened it."""
    place = entry.place
    return place.thread, 0 if place.task is None else id(place.task())


def _around(entry: Entry) -> list[Entry]:
    """The spans around one, the nearest first."""
    found: list[Entry] = []
    above = entry.parent
    while above is not None and len(found) < CHAIN:
        found.append(above)
        above = above.parent
    return found


def _owner(entry: Entry) -> Operation | Stage | None:
    """The handle to which the work of a span belongs."""
    if entry.handle is not None:
        return entry.handle
    return next((above.handle for above in _around(entry) if above.handle is not None), None)


def _outcome(span: ReadableSpan) -> tuple[Status, str | None]:
    """How the work of a span ended, and why."""
    if span.status.status_code is StatusCode.ERROR:
        return Status.FAILED, span.status.description or "failed"
    error = sys.exc_info()[1]
    if error is None or isinstance(error, Exception):
        return Status.COMPLETED, None
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        stopped = not (isinstance(error, SystemExit) and error.code in (None, 0))
        return (Status.INTERRUPTED, type(error).__name__) if stopped else (Status.COMPLETED, None)
    return Status.CANCELLED, type(error).__name__
