"""What operations and stages have in common: counts, notes, waits, attributes, listeners, cancelling.

Calls here only store a value for the ticker to read. None of them takes a lock, reads a clock it does not need, or
calls OpenTelemetry.
"""

from __future__ import annotations

import sys
import threading
import zlib
from collections import defaultdict, deque
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from otel_progress import clock, semconv
from otel_progress.live import hooks, misuse, preload, redaction
from otel_progress.live.boundary import public
from otel_progress.live.context import Use
from otel_progress.live.counting import add, set_completed, set_ratio
from otel_progress.live.guard import NOTHING_LEFT, drops, swallow
from otel_progress.live.lane import Request
from otel_progress.live.misuse import accepted, too_early, too_late
from otel_progress.live.outcome import words
from otel_progress.live.registry import registry
from otel_progress.live.reporting import report
from otel_progress.live.running import touch
from otel_progress.live.state import HandleState
from otel_progress.live.stopping import asked_to_stop, stop_all
from otel_progress.live.track import AsyncTracked, Tracked, tracked
from otel_progress.live.waits import Waiting
from otel_progress.model import feed, values
from otel_progress.model.origin import of_the_job
from otel_progress.model.reported import Note
from otel_progress.model.status import Health, Status
from otel_progress.model.values import EMPTY, Number

if TYPE_CHECKING:
    from otel_progress.live.records import Extras
    from otel_progress.model.snapshot import Event, Snapshot

    OnVerdict = Callable[[Health, Health, Snapshot], object]
    Callback = Callable[[Snapshot], object] | Callable[[Snapshot, Event], object]

T = TypeVar("T")
NOTES: Final = 20
"""Lines of the activity feed that a snapshot holds."""
NO_WAIT: Final = Waiting(None, "", None)


def nothing() -> None:
    """Remove a listener that could not be added."""


def listening() -> Any:
    """The module of the listeners, imported late.

    Raises:
        NotImported: if it can't be imported now.
    """
    return preload.get("live.engine.listeners")


def redact_options(node: HandleState) -> None:
    """Redact the message and the attributes that were given before the start."""
    if node._message is not None:
        node._message = redaction.text("message", node._message)
    more = node._extras
    if more is not None and more.attributes:
        more.attributes = redaction.attributes(more.attributes)


class Handle(HandleState):
    """What the code of an operation or a stage says about it."""

    def _measure(self, total: object, unit: object, message: object) -> None:
        """Set its total, unit and first message."""
        if total is not None:
            self._total = values.size("total", total)
        if unit is not None:
            self._unit = values.text(unit, drops, values.NAME_LENGTH)
        if message is not None:
            self._message = values.text(message, drops)

    # -- the hot path

    def advance(self, n: Number = 1, unit: str | None = None) -> None:
        """Add `n` completed units; from now on this count is the progress, not that of `track`.

        An invalid number is ignored, with a warning once for each call site.

        Args:
            n: a number of any type, at least 0 and below 2**63.
            unit: counts in this unit instead, in a counter of its own beside the progress.

        Example: `op.advance(len(batch))`
        """
        if unit is None:
            try:
                if 0 <= n < 1_073_741_823:  # no NaN; an int of one digit in CPython costs least
                    self._advanced += n
                else:
                    add(self, n)
            except BaseException as error:
                self._add_anyhow(n, error)
        else:
            self._count_in(unit, n)

    @public(name="advance")
    def _add_anyhow(self, n: object, error: BaseException) -> None:
        """Add what could not be added directly; raise the error if it is the job's own."""
        if of_the_job(error):
            raise error
        add(self, n)

    @public(name="advance")
    def _count_in(self, unit: str, n: Number) -> None:
        """Add to the counter of another unit."""
        if self._status is Status.PENDING:
            too_early(self, "advance")
        if too_late(self, "advance"):
            return
        known = accepted("advance", "n", n)
        key = values.text(unit, drops, values.NAME_LENGTH)
        if known is None:
            return
        if key == self._unit and self._unit_named:
            self.advance(known)
            return
        units = self._with_extras().units
        if key not in units and len(units) >= values.ATTRIBUTE_COUNT:
            drops.add(semconv.DROP_ATTRIBUTE)
            return
        units[key] += known
        self.operation._revision += 1

    @overload
    def track(
        self,
        iterable: Iterable[T],
        *,
        unit: str | None = None,
        total: Number | None = None,
        desc: object = None,
        label: Callable[[T], object] | None = None,
        initial: Number = 0,
        key: Callable[[T], object] | None = None,
        mark: bool | None = None,
        retry_failed: bool = True,
    ) -> Tracked[T]: ...
    @overload
    def track(
        self,
        iterable: AsyncIterable[T],
        *,
        unit: str | None = None,
        total: Number | None = None,
        desc: object = None,
        label: Callable[[T], object] | None = None,
        initial: Number = 0,
        key: Callable[[T], object] | None = None,
        mark: bool | None = None,
        retry_failed: bool = True,
    ) -> AsyncTracked[T]: ...
    def track(
        self,
        iterable: Any,
        *,
        unit: str | None = None,
        total: Number | None = None,
        desc: object = None,
        label: Callable[[Any], object] | None = None,
        initial: Number = 0,
        key: Callable[[Any], object] | None = None,
        mark: bool | None = None,
        retry_failed: bool = True,
    ) -> Any:
        """Return the same items, counted as a loop takes them; see `otel_progress.track`."""
        try:
            if self._status is Status.PENDING:
                too_early(self, "track")
            too_late(self, "track")
        except BaseException as error:
            try:
                swallow(error, "track")
            except NOTHING_LEFT:
                pass
        return tracked(iterable, self, unit, total, desc, initial, key, mark, retry_failed, label)

    # -- progress, attributes, feed

    @public()
    def update(
        self,
        *,
        completed: Number | None = None,
        total: Number | None = None,
        ratio: float | None = None,
        message: object = None,
    ) -> None:
        """Set its progress: completed units, total units, a ratio from 0 to 1, the current step in words.

        Example: `op.update(completed=3, total=12, message="reading c.py")`
        """
        if too_late(self, "update"):
            return
        if message is not None:
            self._message = redaction.text("message", message)
        if total is not None:
            known = accepted("update", "total", total)
            if known is not None:
                self._total, self._counts_itself = known, True
        if completed is not None or ratio is not None:
            if self._status is Status.PENDING:
                too_early(self, "update")
            again = None if completed is None else set_completed(self, completed)
            if again is not None:
                self._step(f"completed {again:g}")
            if ratio is not None:
                set_ratio(self, ratio)
        self.operation._revision += 1

    @public()
    def set(self, /, **attributes: object) -> None:
        """Set attributes, shown in every summary and on the span; None values are ignored.

        Example: `op.set(root="/srv", parser="ast")`
        """
        if too_late(self, "set"):
            return
        more = self._with_extras()
        more.attributes = redaction.attributes(attributes, more.attributes)
        self.operation._revision += 1

    @public()
    def heartbeat(self, /, **details: object) -> None:
        """Report that the work is alive. It resets the idle time only with `heartbeat_counts=True`."""
        if self._status is Status.PENDING:
            too_early(self, "heartbeat")
        if too_late(self.operation, "heartbeat"):
            return
        more = self.operation._with_extras()
        more.beats += 1
        more.beat_at = clock.unix()
        if self.operation._opts.heartbeat_counts:
            self._uncounted += 1
        self._say(semconv.HEARTBEAT, redaction.attributes(details) if details else EMPTY)

    @public()
    def touch(self) -> None:
        """Report that the work goes on: its idle time begins anew, although nothing was completed.

        What repeats without progress is still a loop.
        """
        if self._status is not Status.RUNNING:
            return
        operation = self.operation
        touch(operation, self, clock.monotonic())
        if operation._health is not Health.PROGRESSING:
            operation._check_at = 0.0

    @public()
    def note(self, text: object, /, status: str | None = None, **attributes: object) -> None:
        """Add a line to the activity feed; it never resets the idle time.

        Args:
            text: the line.
            status: its kind, such as `ok`, `warning`, `failed`; `running` for an activity that continues until a later
                note with the same text replaces it.
            attributes: attributes of the event.

        Example: `op.note("3 files skipped", status="warning")`
        """
        if self._status is Status.PENDING:
            too_early(self, "note")
        if too_late(self.operation, "note"):
            return
        line = redaction.text("note", text)
        self._tell(line, None if status is None else values.text(status, drops, values.NAME_LENGTH), attributes)

    @public()
    def record(
        self,
        outcome: str,
        *,
        item: object = None,
        component: object = None,
        error: BaseException | str | None = None,
    ) -> None:
        """Count an item by its outcome (`ok`, `failed`, `skipped`, or another word).

        If nothing else counts (no `advance`, no `update(completed=)`, no `track`), the number of records is the
        progress. Failed items appear in the feed. `statistics()` counts by `component`, and failures by their `error`.

        Example: `op.record("failed", item=path, error=error)`
        """
        if self._status is Status.PENDING:
            too_early(self, "record")
        if too_late(self, "record"):
            return
        key = values.text(outcome, drops, values.NAME_LENGTH)
        for node in {self, self.operation}:
            outcomes = node._with_extras().outcomes
            if key in outcomes or len(outcomes) < values.ATTRIBUTE_COUNT:
                outcomes[key] += 1
            else:
                drops.add(semconv.DROP_ATTRIBUTE)
        session = self.operation._session
        if session is not None:
            session.recorded(self, key, item)
        part = "" if component is None else redaction.text("component", component, values.NAME_LENGTH)
        failed = key == "failed"
        why = _message(error) if failed else None
        if part or why:
            _tally(self.operation._with_extras(), part, key, why)
        self._recorded += 1
        self._failures += failed
        self.operation._revision += 1
        if failed:
            thing = None if item is None else redaction.text("item", item, values.NAME_LENGTH)
            about = {semconv.OUTCOME: key, semconv.ITEM: thing, semconv.COMPONENT: component}
            line = ": ".join(filter(None, ("failed", " ".join(filter(None, (part, thing))), why)))
            self._tell(line, key, about)

    @public()
    def step(self, key: object, /) -> None:
        """Report a step of the work; the same step, or cycle of steps, repeated without progress is a loop.

        Args:
            key: what it does and on what, such as `f"search {query}"`; equal keys are the same step.
        """
        if self._status is Status.PENDING:
            too_early(self, "step")
        if too_late(self, "step"):
            return
        short = type(key) is str and len(key) <= values.NAME_LENGTH
        self._step(key if short else _long_key(key))  # type: ignore[arg-type]

    def _step(self, key: str) -> None:
        """Record the step in this handle and those around it."""
        preload.get("live.engine.loops").step(self, key)

    @public()
    def usage(
        self,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cost: float | None = None,
        currency: str = "USD",
    ) -> None:
        """Add tokens and cost; it never resets the idle time. What a stage spends counts for it and for the operation.

        Example: `op.usage(input_tokens=900, output_tokens=120, cost=0.004)`
        """
        if too_late(self.operation, "usage"):
            return
        about = {"input_tokens": input_tokens, "output_tokens": output_tokens}
        if cost is not None:
            about["cost." + values.text(currency, drops, 8)] = cost  # type: ignore[assignment]
        usage = self.operation._with_extras().usage
        node: HandleState = self
        more = None if node.operation is node else self._with_extras()
        if more is not None and more.spent is None:
            more.spent = defaultdict(int)
        for key, raw in about.items():
            amount = accepted("usage", key.partition(".")[0], raw) if raw is not None else None
            if not amount:
                continue
            if key in usage or len(usage) < values.ATTRIBUTE_COUNT:
                usage[key] += amount
                preload.get("live.engine.loops").spends(self, key, amount)
                if more is not None and more.spent is not None:
                    more.spent[key] += amount
                if usage[key] > values.INT_MAX:  # noqa: PLR1730 - min() would lose what another thread adds meanwhile
                    usage[key] = values.INT_MAX
                self.operation._revision += 1
                if hooks.wanted:
                    registry.used(self.operation._text_name, key, amount)
            else:
                drops.add(semconv.DROP_ATTRIBUTE)

    @public()
    def result(self, /, **results: object) -> None:
        """Record results, shown in every summary.

        Example: `op.result(rows=1_200, best=0.93)`
        """
        if too_late(self.operation, "result"):
            return
        if self._opts.once and self.operation._session is not None:
            self.operation._session.result(self, results)
        more = self.operation._with_extras()
        more.result = redaction.attributes(results, more.result)
        self.operation._revision += 1

    # -- checkpoints

    @property
    def restored(self) -> dict[str, Any] | None:
        """What an earlier attempt saved: the last state given to `checkpoint`; None in a first attempt.

        Of a stage with `once=True` it is what `result` got in the run that completed, maybe nothing (`{}`).

        Raises:
            CheckpointError: if it can't be read.
        """
        session = self.operation._session
        return None if session is None else session.restored(self)

    @public(strict=True)
    def checkpoint(self, /, **state: object) -> None:
        """Save a small state as JSON, for `restored` in a later attempt; it replaces the one before.

        It is written within 0.25 s, and at the end of a stage, so that this may be called in a loop.

        Raises:
            CheckpointError: if it is not JSON, has more than 1 MiB, or can't be saved.
            LeaseLost: if another process has taken over the operation.

        Example: `op.checkpoint(offset=1_200, best=0.93)`
        """
        session = _session_of(self, "checkpoint")
        if session is not None:
            session.checkpoint(self, state)

    @public(strict=True)
    def done(self, key: object) -> None:
        """Mark a key as done, from any thread or task; later attempts leave it out. It counts as one completed unit.

        Args:
            key: a text or a whole number that names the work; 5 and "5" are the same key.

        Raises:
            InvalidArgument: if the key is empty, too long, or neither text nor number.
            CheckpointError: if it can't be saved.
            LeaseLost: if another process has taken over the operation.

        Example: `stage.done(page.url)`
        """
        session = _session_of(self, "done")
        if session is not None:
            session.done(self, key)

    @public(False)
    def is_done(self, key: object) -> bool:
        """Whether a key is done, in this attempt or an earlier one; without a store nothing is."""
        session = _session_of(self, "is_done")
        return session is not None and session.is_done(self, key)

    @public(NO_WAIT)
    def waiting(self, reason: object, *, overdue_after: float | None = None) -> Waiting:
        """Declare a wait, for `with` or `async with`; the idle time does not grow during it.

        Args:
            reason: what it waits for.
            overdue_after: seconds after which the wait is overdue.

        Example: `with op.waiting("rate limit", overdue_after=60): sleep(30)`
        """
        if self._status is Status.PENDING:
            too_early(self, "waiting")
        if too_late(self, "waiting"):
            return NO_WAIT
        if overdue_after is not None and not values.number(overdue_after, drops, 0) > 0:  # type: ignore[operator]
            misuse.refused("waiting", "overdue_after", overdue_after, "a number of seconds above 0")
            overdue_after = None
        return Waiting(self, redaction.text("wait", reason), overdue_after)

    @public(nothing)
    def add_listener(self, callback: Callback) -> Callable[[], None]:
        """Call `callback` with a snapshot at every change of the operation; returns a function that removes it.

        A callback with two parameters gets the event as the second: `event.name` says what happened. One that takes
        only the snapshot gets a final status exactly once. Callbacks run in a thread of their own; an async one runs
        on the loop where it was added, one event after the other. Its errors are logged once, and never reach the job.
        """
        return listening().listen(callback, self.operation)  # type: ignore[no-any-return]

    @public(nothing)
    def on_stall(self, callback: Callback) -> Callable[[], None]:
        """Call `callback` with a snapshot when the operation becomes silent or looping; see `add_listener`."""
        return listening().listen(callback, self.operation, semconv.STALLED)  # type: ignore[no-any-return]

    @public(nothing)
    def on_recover(self, callback: Callback) -> Callable[[], None]:
        """Call `callback` with a snapshot when a stuck operation moves again, or completes; see `add_listener`."""
        return listening().listen(callback, self.operation, semconv.RECOVERED)  # type: ignore[no-any-return]

    @public(nothing)
    def on_verdict(self, callback: OnVerdict) -> Callable[[], None]:
        """Call `callback` when the verdict on the operation changes; see `otel_progress.on_verdict`."""
        return listening().listen_to_verdicts(callback, self.operation)  # type: ignore[no-any-return]

    # -- its end

    @public()
    def complete(self, message: object = None) -> None:
        """End it as completed; a later end changes nothing.

        Args:
            message: the result in words, such as `12 files parsed`; shown beside the status and as the current step.
        """
        if self._status is Status.PENDING:
            too_early(self, "complete")
        said = None if message is None else redaction.text("message", message)
        if said is not None and not self._status.final:
            self._message = said
        self._finish(Status.COMPLETED, said, None)

    @public()
    def fail(self, error: BaseException | str | None = None, *, hint: object = None) -> None:
        """End it as failed, with an exception or a reason; a later end changes nothing.

        Args:
            error: the exception, or the reason in words.
            hint: what to do about it, shown with the reason; without one, the notes of the exception
                (`add_note`) are it. Of a stage it becomes part of its reason.

        Example: `op.fail("the disk is full", hint="run `make clean`, then start it again")`
        """
        given = error if isinstance(error, BaseException) else None
        reason = words(given) if given is not None or error is None else redaction.text("reason", error)
        said = None if hint is None else redaction.text("hint", hint)
        if said is not None and self._kind == "stage":
            reason = said if reason is None else f"{reason} (hint: {said})"
        elif said is not None and not self._status.final:
            self._hint = said
        self._finish(Status.FAILED, reason, given)

    @public()
    def cancel(self, reason: str | None = None) -> None:
        """End it as cancelled; a later end changes nothing."""
        self._finish(Status.CANCELLED, None if reason is None else redaction.text("reason", reason), None)

    def use(self, *, span: bool = True) -> Use:
        """Make it current, for `with` or `async with`; this does not end it.

        Args:
            span: whether its span is current too. If code may never leave the block in the context in which it
                entered it, as between two callbacks, say False: a span that is left current becomes the parent of
                what comes later.
        """
        return Use(self, span=span)

    # -- cancelling

    @public()
    def request_cancel(self, reason: str | None = None) -> None:
        """Ask the operation to stop, with the operations below it in this process.

        `raise_if_cancelled` and `track` loops raise; no task is cancelled. After the end of the operation it changes
        nothing.

        Example: `op.request_cancel("disk full")`
        """
        stop_all(self.operation, reason)  # one that comes too late is nobody's mistake

    @public(False)
    def cancel_requested(self) -> bool:
        """Whether the operation was asked to stop."""
        return self.operation._cancel_reason is not None

    @public()
    def raise_if_cancelled(self) -> None:
        """Raise `OperationCancelled` if the operation was asked to stop."""
        reason = self.operation._cancel_reason
        if reason is not None:
            request = self.operation._request or Request(asked_to_stop(self.operation.name, reason))
            raise request.error()

    # -- the feed

    def _tell(self, line: str, status: str | None, attributes: Mapping[str, object]) -> None:
        """Add a line to the feed, and report it."""
        kept = redaction.attributes(attributes) if attributes else EMPTY
        operation = self.operation
        if operation._notes is None:
            operation._notes = deque(maxlen=NOTES)
        feed.add(operation._notes, Note(clock.unix(), line, status, self._path, kept))
        self._say(semconv.NOTE, kept, {semconv.NOTE_TEXT: line, semconv.NOTE_STATUS: status})

    def _say(self, event: str, details: Mapping[str, object], more: Mapping[str, object] = EMPTY) -> None:
        """Report an event that the budget may delay."""
        given = {**details, **more}
        report(event, self, values.attributes(given, drops) if given else EMPTY)


def _tally(more: Extras, component: str, outcome: str, failure: str | None) -> None:
    """Count a record by its component, and by its message."""
    with registry.lock:
        if component:
            more.components.add(component, outcome)
        if failure:
            more.failures.add(failure)


def _message(error: object) -> str | None:
    """Return an exception or a text as the message of a failure."""
    if error is None:
        return None
    return words(error) if isinstance(error, BaseException) else redaction.text("reason", error)


def _session_of(node: HandleState, call: str) -> hooks.Session | None:
    """What saves the checkpoints of a handle; None, with a warning, if its operation is not resumable."""
    operation = node.operation
    if operation._session is None and operation._opts.resume is None:
        misuse.warn(call, "saves nothing: operation %r has no resume=..., such as resume='work.db'", operation.name)
    session: hooks.Session | None = operation._session
    return session


def _long_key(key: object) -> str:
    """A short text for a key that is long or no text; different keys stay different."""
    text = values.text(key, drops, sys.maxsize)
    if len(text) <= values.NAME_LENGTH:
        return text
    return f"{text[: values.NAME_LENGTH - 12]}…#{zlib.crc32(text.encode()):08x}"


def _locked_advance(self: Handle, n: Number = 1, unit: str | None = None) -> None:
    """`advance` for interpreters without a global lock."""
    if unit is not None:
        self._count_in(unit, n)
        return
    with _advance_lock:
        try:
            if 0 <= n < 1_073_741_823:
                self._advanced += n
            else:
                add(self, n)
        except BaseException as error:
            self._add_anyhow(n, error)


_advance_lock = threading.Lock()
if not getattr(sys, "_is_gil_enabled", bool)() and hasattr(sys, "_is_gil_enabled"):
    Handle.advance = _locked_advance  # type: ignore[method-assign]
