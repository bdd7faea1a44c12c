"""What an operation and a stage have in common: counts, notes, waits, attributes.

Calls here only put a value where the ticker will read it. None of them takes a lock, reads a clock it
does not need, or calls OpenTelemetry.
"""

from __future__ import annotations

import sys
import threading
import zlib
from collections import defaultdict
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, overload

from otel_progress import clock, semconv
from otel_progress.errors import InvalidArgument
from otel_progress.live import callsite, preload, redaction, track
from otel_progress.live.boundary import public
from otel_progress.live.diagnosis.places import here
from otel_progress.live.diagnosis.reading import is_task
from otel_progress.live.drops import drops
from otel_progress.live.guard import NOTHING_LEFT, swallow
from otel_progress.live.outcome import words
from otel_progress.live.registry import registry
from otel_progress.live.running import around
from otel_progress.live.track import Lane, Request
from otel_progress.live.use import Use
from otel_progress.live.waits import Waiting
from otel_progress.model import values
from otel_progress.model.origin import of_the_job
from otel_progress.model.snapshot import Note
from otel_progress.model.status import Status
from otel_progress.model.values import EMPTY, Attributes, Number

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from otel_progress.live.below import Below
    from otel_progress.live.diagnosis.places import Place
    from otel_progress.live.engine.learning import Limits, Lived
    from otel_progress.live.engine.listeners import Callback, OnVerdict
    from otel_progress.live.engine.loops import Loops
    from otel_progress.live.operation import Operation
    from otel_progress.live.stage import Stage, StageGiven
    from otel_progress.live.trail import Kept
    from otel_progress.model.estimate import Pace
    from otel_progress.model.loop import Loop

T = TypeVar("T")
ITEM: Final = str(b"item", "ascii")
"""The unit where none was named; an object of its own, so that `unit="item"` is another."""
LANES = 16
"""Lanes kept one by one; more closed ones become sums."""


class _Tracked:
    """What `track` gives a loop: each loop over it opens a lane of its own."""

    __slots__ = ("_desc", "_iterable", "_iterator", "_node", "_total", "_unit")

    def __init__(
        self, iterable: Any, node: Handle | None, unit: str | None, total: Number | None, desc: object
    ) -> None:
        """For the loops of a node; without a node, nothing is counted."""
        self._iterable = iterable
        self._node = node
        self._unit = unit
        self._total = total
        self._desc = desc
        self._iterator: Any = None

    def _lane(self) -> Lane | None:
        """A lane for a new loop, or None where nothing runs that it could belong to."""
        node = self._node
        try:
            if node is not None and not node._status.final:
                return node._open_lane(self._iterable, self._unit, self._total, self._desc)
        except BaseException as error:
            try:
                swallow(error, "track")
            except NOTHING_LEFT:
                pass
        return None

    def __len__(self) -> int:
        """The length of what is tracked, else the total that was given for it."""
        if type(self._total) is int and not hasattr(self._iterable, "__len__"):
            return self._total
        return len(self._iterable)


class Tracked(_Tracked, Generic[T]):
    """What `track` gives a `for`: each loop over it opens a lane of its own; one begun with `next` goes on."""

    __slots__ = ()

    def __iter__(self) -> Iterator[T]:
        """A new loop over the items, or the one that `next` began."""
        begun: Iterator[T] | None = self._iterator
        if begun is not None:
            return begun
        lane = self._lane()
        return iter(self._iterable) if lane is None else track.loop(self._iterable, lane)

    def __next__(self) -> T:
        """The next item, for those who loop by hand."""
        if self._iterator is None:
            self._iterator = iter(self)
        try:
            item: T = next(self._iterator)
        except StopIteration:
            self._iterator = None
            raise
        return item


class AsyncTracked(_Tracked, Generic[T]):
    """What `track` gives an `async for`: each loop over it opens a lane of its own; one begun with `anext` goes on."""

    __slots__ = ()

    def __aiter__(self) -> AsyncIterator[T]:
        """A new async loop over the items, or the one that `anext` began."""
        begun: AsyncIterator[T] | None = self._iterator
        if begun is not None:
            return begun
        lane = self._lane()
        if lane is None:
            plain: AsyncIterator[T] = self._iterable.__aiter__()
            return plain
        return track.async_loop(self._iterable, lane)

    async def __anext__(self) -> T:
        """The next item, for those who loop by hand."""
        if self._iterator is None:
            self._iterator = self.__aiter__()
        try:
            item: T = await self._iterator.__anext__()
        except StopAsyncIteration:
            self._iterator = None
            raise
        return item


class _Both(Tracked[T], AsyncTracked[T]):
    """What `track` gives for something that `for` and `async for` both take."""

    __slots__ = ()


def tracked(
    iterable: Any, node: Handle | None, unit: str | None, total: Number | None = None, desc: object = None
) -> Any:
    """The loops of a node over anything that can be looped over."""
    try:
        if total is not None:
            total = accepted("track", "total", total)
        many, later = hasattr(iterable, "__iter__"), hasattr(iterable, "__aiter__")
        kind = (_Both if many else AsyncTracked) if later else Tracked
        if many or later:
            return kind(iterable, node, unit, total, desc)
    except BaseException as error:
        try:
            swallow(error, "track")
        except NOTHING_LEFT:
            pass
        return iterable
    iter(iterable)
    return Tracked(iterable, node, unit, total, desc)


def accepted(call: str, option: str, value: object) -> Number | None:
    """A number of at least 0 that a running job said; anything else is warned about, and None."""
    known = values.count(value, drops)
    if known is None:
        callsite.refused(call, option, value)
    return known


def _ends_with_task(place: Place) -> bool:
    """Whether an asyncio task runs there, which is cancelled as such."""
    return place.task is not None and is_task(place.task())


def asked_to_stop(name: str, reason: str) -> str:
    """The text of `OperationCancelled`."""
    return f"{name!r} was asked to stop: {reason}"


def length(iterable: object) -> int | None:
    """How many items it says it has, or None."""
    hint = getattr(type(iterable), "__len__", None) or getattr(type(iterable), "__length_hint__", None)
    try:
        result = hint(iterable) if hint else None
    except BaseException as error:
        if of_the_job(error):
            raise
        return None
    return result if isinstance(result, int) and 0 <= result <= values.INT_MAX else None


_ABOUT_ONE: Final = 1.001
"""A ratio up to here is 1 with an error of rounding; one above is a percentage, or a mistake."""
_NO_COUNTS: Final[Mapping[str, Number]] = {}
NO_WAIT: Final = Waiting(None, "", None)


def nothing() -> None:
    """Take out a listener that could not be added."""


def listening() -> Any:
    """The module of the listeners.

    Raises:
        NotImported: where it is not there.
    """
    return preload.get("live.engine.listeners")


class More:
    """What only few handles have, made when it is needed first."""

    __slots__ = ("attributes", "beat_at", "beats", "outcomes", "result", "sums", "units", "usage")

    def __init__(self) -> None:
        """Nothing yet."""
        self.attributes: Attributes = EMPTY
        # `counts[key] += n` is one step for other threads, `counts[key] = counts.get(key, 0) + n` is not.
        self.outcomes: defaultdict[str, Number] = defaultdict(int)
        self.usage: defaultdict[str, Number] = defaultdict(int)
        self.result: Attributes = EMPTY
        self.sums: dict[str | None, tuple[Number, Number]] = {}
        self.units: defaultdict[str, Number] = defaultdict(int)
        self.beats = 0
        self.beat_at: float | None = None


class Handle:
    """An operation or a stage, as its code sees it."""

    _stage_kind: type[Stage]
    # The usual values stand here, so that a new handle sets only what differs.
    name = "unnamed"
    _left = False
    """Whether its end failed in the job's thread, and was left to the ticker."""
    _parent: Handle | None = None
    _status = Status.PENDING
    _reason: str | None = None
    _started: float | None = None
    _started_ns = 0
    _ended: float | None = None
    _created = 0.0
    _moved_at = 0.0
    _counted_at = 0.0
    _observe_at = 0.0
    _advanced: Any = 0
    _sound: Any = 0
    _sound_raw: Any = None
    _base: Number = 0
    _bumps = 0
    _seen: Any = 0
    _own = False
    """Whether it said how far it is; then `track` only proves that it lives."""
    _said_done = False
    """Whether it said how many units are done."""
    _highest: Number = 0
    """The most units that `update` said are done."""
    _highest_ratio = 0.0
    _recorded = 0
    _failures = 0
    _done: Any = 0
    _only_failed = False
    """Outcomes that were recorded on it."""
    _total: Number | None = None
    _unit = ITEM
    _ratio: float | None = None
    _below: Below | None = None
    _began: tuple[Any, Number, int] = (0, 0, 0)
    """What the handle around it had counted by `advance` and `update`, and what had ended there, when it began."""
    _part: tuple[Number, float] = (0, 0.0)
    """Its count, and how far what runs inside came with the next units since."""
    _unheard = False
    """Whether it was begun where no operation runs, and that was said."""
    _scale: tuple[float, float] | None = None
    _shown: float | None = None
    _lanes: list[Lane] | None = None
    _waits: list[Waiting] | None = None
    _message: str | None = None
    _more: More | None = None
    _pace: Pace | None = None
    _span: Any = None
    _token: Any = None
    _context: Any = None
    _trail: list[Kept] | None = None
    _lived: Lived | None = None
    """The gaps of its run, as far as there are any; kept by `learning`."""
    _waited: float = 0.0
    """Seconds that its declared waits took, as far as they are over."""
    _place: Place | None = None
    _carried: set[Place] | None = None
    _suspended = False
    _named: float | None = None
    _loops_apart = False
    _learned: Limits | None = None
    _loops: Loops | None = None
    _loop: Loop | None = None

    def _measure(self, total: object, unit: object, message: object) -> None:
        """Take what the caller said of its size and its first step."""
        if total is not None:
            self._total = values.size("total", total)
        if unit is not None:
            self._unit = values.text(unit, drops, values.NAME_LENGTH)
        if message is not None:
            self._message = values.text(message, drops)

    @property
    def operation(self) -> Operation:
        """The operation that it is, or belongs to."""
        raise NotImplementedError

    @property
    def status(self) -> Status:
        """What happened to it so far."""
        return Status.WAITING if self._waits and not self._status.final else self._status

    @property
    def _alive(self) -> bool:
        """Whether it runs, in this process."""
        return self._status is Status.RUNNING and self.operation._ours

    # -- the hot path

    def advance(self, n: Number = 1, unit: str | None = None) -> None:
        """Add `n` completed units; from now on this count rules, not that of `track`.

        Anything else than such a number is ignored, with a warning once a call site; what was counted stays.

        Args:
            n: how many; a number of at least 0 and below 2**63, of any kind.
            unit: what is counted where it is not the unit of the handle: a counter of its own beside the progress.
        """
        if unit is None:
            try:
                if n < 1_073_741_823:  # no NaN, no infinity; an int of one digit in CPython, so that this costs least
                    self._advanced += n
                else:
                    self._add(n)
            except BaseException as error:
                self._add_anyhow(n, error)
        else:
            self._count_in(unit, n)

    @public(name="advance")
    def _add_anyhow(self, n: object, error: BaseException) -> None:
        """Add what could not be added as it is, unless the error is the job's own."""
        if of_the_job(error):
            raise error
        self._add(n)

    def _add(self, n: object) -> None:
        """Add a number that is large, or can't be added as it is (a Decimal to a float); refuse what is none."""
        known = values.count(n, drops)
        if known is None:
            callsite.refused("advance", "n", n)
            return
        if known >= values.INT_MAX:
            callsite.refused("advance", "n", n, "below 2**63")
            return
        try:
            self._advanced += known
        except TypeError:  # a Decimal and a float
            self._advanced = self._plain_advanced() + known

    @public(name="advance")
    def _count_in(self, unit: str, n: Number) -> None:
        """Add to the counter of another unit."""
        if self._status is Status.PENDING:
            self._too_early("advance")
        known = accepted("advance", "n", n)
        key = values.text(unit, drops, values.NAME_LENGTH)
        if known is None:
            return
        if key == self._unit and self._unit_named:
            self.advance(known)
            return
        units = self._with_more().units
        if key not in units and len(units) >= values.ATTRIBUTE_COUNT:
            drops.add(semconv.DROP_ATTRIBUTE)
            return
        units[key] += known
        self.operation._said += 1

    @overload
    def track(
        self, iterable: Iterable[T], *, unit: str | None = None, total: Number | None = None, desc: object = None
    ) -> Tracked[T]: ...
    @overload
    def track(
        self, iterable: AsyncIterable[T], *, unit: str | None = None, total: Number | None = None, desc: object = None
    ) -> AsyncTracked[T]: ...
    def track(self, iterable: Any, *, unit: str | None = None, total: Number | None = None, desc: object = None) -> Any:
        """The same items, counted while a loop takes them; see `otel_progress.track`."""
        try:
            if self._status is Status.PENDING:
                self._too_early("track")
        except BaseException as error:
            try:
                swallow(error, "track")
            except NOTHING_LEFT:
                pass
        return tracked(iterable, self, unit, total, desc)

    def _too_early(self, call: str) -> None:
        """Say that it was used before its start; what is lost by it, nobody can give back."""
        if self._started is None and not self._unheard:
            what = "operation" if self.operation is self else "stage"
            callsite.warn(
                call,
                "comes before the start of %s %r, so nobody sees it; call start() first, or open it with 'with'",
                what,
                self.name,
            )

    # -- what it says about itself

    @public()
    def update(
        self,
        *,
        completed: Number | None = None,
        total: Number | None = None,
        ratio: float | None = None,
        message: object = None,
    ) -> None:
        """Say how far it is: units done, units in all, a ratio from 0 to 1, the current step in words."""
        if message is not None:
            self._message = redaction.text("message", message)
        if total is not None:
            known = accepted("update", "total", total)
            if known is not None:
                self._total, self._own = known, True
        if completed is not None or ratio is not None:
            if self._status is Status.PENDING:
                self._too_early("update")
            self._say_how_far(completed, ratio)
        self.operation._said += 1

    def _say_how_far(self, completed: object, ratio: object) -> None:
        """Take units done or a ratio; only what is above the highest so far is progress."""
        done = None if completed is None else accepted("update", "completed", completed)
        if done is not None:
            highest = max(self._highest, self._counted())
            self._base = done - self._plain_advanced()
            self._ratio = None
            self._own = self._said_done = True
            if done > highest:
                self._bumps += 1
            elif done < highest:
                self._again(done)
            self._highest = max(done, highest)
        part = None if ratio is None else accepted("update", "ratio", ratio)
        if part is not None:
            if part > _ABOUT_ONE:
                callsite.refused("update", "ratio", ratio, "a number from 0 to 1")
                return
            self._own, self._ratio = True, min(1.0, float(part))
            if self._ratio > self._highest_ratio:
                self._bumps += 1
                self._highest_ratio = self._ratio

    def _again(self, completed: Number) -> None:
        """A count below the highest so far was said: work that comes again, not progress."""
        self._step(f"completed {completed:g}")

    @public()
    def set(self, /, **attributes: object) -> None:
        """Set attributes; they show in every summary and on the span. A None is left out."""
        more = self._with_more()
        more.attributes = redaction.attributes(attributes, more.attributes)
        self.operation._said += 1

    @public()
    def heartbeat(self, /, **details: object) -> None:
        """The work is alive. It resets the idle time only with `heartbeat_counts=True`."""
        if self._status is Status.PENDING:
            self._too_early("heartbeat")
        more = self.operation._with_more()
        more.beats += 1
        more.beat_at = clock.unix()
        self.operation._heard(self)
        self._say(semconv.HEARTBEAT, redaction.attributes(details) if details else EMPTY)

    @public()
    def note(self, text: object, /, status: str | None = None, **attributes: object) -> None:
        """A line of the activity feed; it never resets the idle time.

        Args:
            text: the line.
            status: how it is meant, such as `ok`, `warning`, `failed`; `running` for an activity that goes on, which a
                later note of the same text ends: it takes the place of the first one.
            attributes: what goes with it.
        """
        if self._status is Status.PENDING:
            self._too_early("note")
        line = redaction.text("note", text)
        self._tell(line, None if status is None else values.text(status, drops, values.NAME_LENGTH), attributes)

    @public()
    def record(self, outcome: str, *, item: object = None, component: object = None) -> None:
        """Count an item that is done, by its outcome (`ok`, `failed`, `skipped`, or another word).

        Where nothing else counts (no `advance`, no `update(completed=)`, no `track`), the number of records is the
        count. What failed shows in the feed.
        """
        if self._status is Status.PENDING:
            self._too_early("record")
        key = values.text(outcome, drops, values.NAME_LENGTH)
        for node in (self, self.operation) if self is not self.operation else (self,):
            outcomes = node._with_more().outcomes
            if key in outcomes or len(outcomes) < values.ATTRIBUTE_COUNT:
                outcomes[key] += 1
            else:
                drops.add(semconv.DROP_ATTRIBUTE)
        self._recorded += 1
        self._failures += key == "failed"
        self.operation._said += 1
        if key == "failed":
            thing = None if item is None else redaction.text("item", item, values.NAME_LENGTH)
            about = {semconv.OUTCOME: key, semconv.ITEM: thing, semconv.COMPONENT: component}
            part = "" if component is None else redaction.text("component", component, values.NAME_LENGTH)
            line = "failed: " + " ".join(filter(None, (part, thing))) if part or thing else "failed"
            self._tell(line, key, about)

    @public()
    def step(self, key: object, /) -> None:
        """The work takes this step now; the same step, or the same few, again and again without progress is a loop.

        Args:
            key: what it does and on what, such as `f"search {query}"`; equal keys are the same step.
        """
        if self._status is Status.PENDING:
            self._too_early("step")
        short = type(key) is str and len(key) <= values.NAME_LENGTH
        self._step(key if short else _long_key(key))  # type: ignore[arg-type]

    def _step(self, key: str) -> None:
        """Tell the step to this handle and to what is around it."""
        now = clock.monotonic()
        lives = self._with_loops(now).lives(self.operation)
        for node in around(self):
            node._with_loops(now).step(node, key, now, lives)

    @public()
    def usage(
        self,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cost: float | None = None,
        currency: str = "USD",
    ) -> None:
        """Add up tokens and cost; it never resets the idle time."""
        about = {"input_tokens": input_tokens, "output_tokens": output_tokens}
        if cost is not None:
            about["cost." + values.text(currency, drops, 8)] = cost  # type: ignore[assignment]
        if self.operation._loops is None:
            self.operation._with_loops(clock.monotonic())
        usage = self.operation._with_more().usage
        for key, raw in about.items():
            amount = accepted("usage", key.partition(".")[0], raw) if raw is not None else None
            if not amount:
                continue
            if key in usage or len(usage) < values.ATTRIBUTE_COUNT:
                usage[key] += amount
                if usage[key] > values.INT_MAX:  # noqa: PLR1730 - min() would lose what another thread adds meanwhile
                    usage[key] = values.INT_MAX
                self.operation._said += 1
                self.operation._used(key, amount)
            else:
                drops.add(semconv.DROP_ATTRIBUTE)

    @public()
    def result(self, /, **results: object) -> None:
        """What came out of it; shown in every summary."""
        more = self.operation._with_more()
        more.result = redaction.attributes(results, more.result)
        self.operation._said += 1

    @public(NO_WAIT)
    def waiting(self, reason: object, *, overdue_after: float | None = None) -> Waiting:
        """A declared pause, for `with` or `async with`: the stuck clock stops until its end.

        Args:
            reason: what it waits for.
            overdue_after: after so many seconds the wait itself counts as trouble.
        """
        if self._status is Status.PENDING:
            self._too_early("waiting")
        if overdue_after is not None and not values.number(overdue_after, drops, 0) > 0:  # type: ignore[operator]
            callsite.refused("waiting", "overdue_after", overdue_after, "a number of seconds above 0")
            overdue_after = None
        return Waiting(self, redaction.text("wait", reason), overdue_after)

    def stage(self, name: str, **options: Unpack[StageGiven]) -> Stage:
        """A stage of this one; see `otel_progress.stage`."""
        if "parent" in options:
            raise InvalidArgument(
                "the stage of a handle has that handle as its parent; use otel_progress.stage(parent=)"
            )
        return self._stage_kind(name, parent=self, **options)

    @public(nothing)
    def add_listener(self, callback: Callback) -> Callable[[], None]:
        """Call this with a snapshot at every change of the operation; returns a function that takes it out again.

        A callback that takes two arguments gets the event as the second: `event.name` says what happened. One that
        takes only the snapshot is told of a final status exactly once. It runs in a thread of its own; an async one
        runs on the loop where it was added, one event after the other. What it raises is logged once, and never
        reaches the job.
        """
        return listening().listen(callback, self.operation)  # type: ignore[no-any-return]

    @public(nothing)
    def on_stall(self, callback: Callback) -> Callable[[], None]:
        """Call this with a snapshot when the operation is found silent or looping; see `add_listener`."""
        return listening().listen(callback, self.operation, semconv.STALLED)  # type: ignore[no-any-return]

    @public(nothing)
    def on_recover(self, callback: Callback) -> Callable[[], None]:
        """Call this with a snapshot when the operation moves again after that, or completes; see `add_listener`."""
        return listening().listen(callback, self.operation, semconv.RECOVERED)  # type: ignore[no-any-return]

    @public(nothing)
    def on_verdict(self, callback: OnVerdict) -> Callable[[], None]:
        """Call this when the verdict on the operation changes; see `otel_progress.on_verdict`."""
        return listening().listen_to_verdicts(callback, self.operation)  # type: ignore[no-any-return]

    # -- its end

    @public()
    def complete(self, message: object = None) -> None:
        """It is done; a later end changes nothing.

        Args:
            message: what came of it in words, such as `12 files parsed`; shown beside the status wherever that is, and
                as the current step from now on.
        """
        if self._status is Status.PENDING:
            self._too_early("complete")
        said = None if message is None else redaction.text("message", message)
        if said is not None and not self._status.final:
            self._message = said
        self._finish(Status.COMPLETED, said, None)

    @public()
    def fail(self, error: BaseException | str | None = None) -> None:
        """It failed, with an exception or a reason; a later end changes nothing."""
        if isinstance(error, BaseException):
            self._finish(Status.FAILED, words(error), error)
        else:
            self._finish(Status.FAILED, None if error is None else redaction.text("reason", error), None)

    @public()
    def cancel(self, reason: str | None = None) -> None:
        """It was given up; a later end changes nothing."""
        self._finish(Status.CANCELLED, None if reason is None else redaction.text("reason", reason), None)

    def use(self) -> Use:
        """Make it current, for `with` or `async with`; that ends nothing."""
        return Use(self)

    # -- cancelling

    @public()
    def request_cancel(self, reason: str | None = None) -> None:
        """Ask the operation to stop; its code finds out by `cancel_requested` or `raise_if_cancelled`."""
        operation = self.operation
        operation._cancel_reason = (redaction.text("reason", reason) if reason is not None else "") or "requested"
        operation._said += 1

    @public(False)
    def cancel_requested(self) -> bool:
        """Whether somebody asked the operation to stop."""
        return self.operation._cancel_reason is not None

    @public()
    def raise_if_cancelled(self) -> None:
        """Raise `OperationCancelled` if somebody asked the operation to stop."""
        reason = self.operation._cancel_reason
        if reason is not None:
            request = self.operation._request or Request(asked_to_stop(self.operation.name, reason))
            raise request.error()

    # -- for the ticker and the capture

    def _finish(self, status: Status, reason: str | None, error: BaseException | None) -> None:
        """End it with a status; a later end changes nothing."""
        raise NotImplementedError

    @property
    def _path(self) -> str | None:
        return None

    def _tell(self, line: str, status: str | None, attributes: Mapping[str, object]) -> None:
        """Put a line into the feed, and report it."""
        kept = redaction.attributes(attributes) if attributes else EMPTY
        self.operation._add_note(Note(clock.unix(), line, status, self._path, kept))
        self._say(semconv.NOTE, kept, {semconv.NOTE_TEXT: line, semconv.NOTE_STATUS: status})

    def _say(self, event: str, details: Mapping[str, object], more: Mapping[str, object] = EMPTY) -> None:
        """Report an event that the budget may hold back."""
        given = {**details, **more}
        self.operation._report(event, self, values.attributes(given, drops) if given else EMPTY)

    def _with_more(self) -> More:
        if self._more is None:
            vars(self).setdefault("_more", More())  # one step, so that two threads get the same
        more: More = vars(self)["_more"]
        return more

    def _with_loops(self, now: float) -> Loops:
        """The memory of what it does again and again, made when it is needed first."""
        loops = self._loops
        if loops is None:
            made = preload.get("live.engine.loops").Loops(self, now)
            loops = vars(self).setdefault("_loops", made)  # one step, so that two threads get the same
        return loops

    def _plain_advanced(self) -> Number:
        """What `advance` summed up, as a finite number."""
        raw, sound = self._advanced, self._sound
        if type(raw) is int:
            if raw > values.INT_MAX:
                drops.add(semconv.DROP_VALUE)
                raw = self._advanced = values.INT_MAX
            if raw < sound:
                self._fell(sound, raw)
            self._sound = raw
            return raw
        if raw is self._sound_raw:
            return sound  # type: ignore[no-any-return]
        known = values.number(raw, drops)
        if getattr(raw, "itemsize", 8) < 8:
            self._narrow(raw)
        if known is None:
            self._fell(sound, raw)
            known = self._advanced = sound  # what it was before something came that is no number
        elif known < sound:
            self._fell(sound, known)
        self._sound, self._sound_raw = known, raw
        return known

    def _fell(self, before: object, now: object) -> None:
        """Say once that `advance` took something away; the call itself is too quick to look."""
        callsite.warn_of(
            "fell",
            f"{self.operation.name}/{self._path or ''}",
            "the count of %s %r went from %s to %s: advance() takes numbers of at least 0; "
            "update(completed=) sets a count",
            "operation" if self.operation is self else "stage",
            self.name,
            values.shown(before),
            values.shown(now),
        )

    def _narrow(self, raw: object) -> None:
        """Say once that sums of this kind of number wrap around."""
        callsite.warn_of(
            "narrow",
            f"{self.operation.name}/{self._path or ''}",
            "%s %r counts in %s, whose sums lose what does not fit; call advance(int(n)) or advance(float(n))",
            "operation" if self.operation is self else "stage",
            self.name,
            type(raw).__name__,
        )

    def _begin_in(self, outer: Handle) -> None:
        """Remember what the handle around it had counted, and what had ended there, when it began."""
        self._began = outer._advanced, outer._base, 0 if outer._below is None else outer._below.ended

    def _counted(self) -> Number:
        """The own count: at least 0, within 64 bits."""
        return max(0, min(self._base + self._plain_advanced(), values.INT_MAX))

    def _open_lane(self, iterable: object, unit: str | None, total: Number | None = None, desc: object = None) -> Lane:
        place = here()
        lanes = self._lanes
        known = None if unit is None else values.text(unit, drops, values.NAME_LENGTH)
        if lanes is None:
            if known is not None and not self._unit_named and not self._counts:
                self._unit = known  # the first to say what is counted here
            lanes = vars(self).setdefault("_lanes", [])  # one step, so that two threads get the same
        nested = any(not lane.closed and lane.place == place for lane in lanes)
        lane = Lane(length(iterable) if total is None else int(total), known, place, nested, clock.monotonic())
        if total is not None:
            lane.named = True
        if desc is not None:
            lane.desc, lane.over = redaction.text("message", desc), self._message
        if len(lanes) >= LANES:
            self._fold_lanes()
        lanes.append(lane)
        operation = self.operation
        operation._said += 1
        operation._tracks = True
        request = operation._request
        if request is not None and not request.told and not _ends_with_task(place):
            lane.request = request
        return lane

    @property
    def _unit_named(self) -> bool:
        """Whether somebody said what is counted."""
        return self._unit is not ITEM

    @property
    def _counts(self) -> bool:
        """Whether it counted units by itself: by `advance`, `update(completed=)` or `record`."""
        return self._said_done or bool(self._plain_advanced()) or bool(self._recorded)

    @property
    def _words(self) -> str | None:
        """The current step in words: what `update(message=)` said, or the `desc` of a loop that began later."""
        for lane in reversed(self._lanes or ()):
            if lane.desc is not None and not lane.closed:
                return lane.desc if lane.over is self._message else self._message
        return self._message

    def _stop_loops(self, request: Request) -> None:
        """Make its open loops raise at their next item; those of an asyncio task end with the task."""
        for lane in list(self._lanes or ()):
            if not _ends_with_task(lane.place):
                lane.stop(request)

    def _fold_lanes(self) -> None:
        """Turn closed lanes into sums by unit, so that their number is bounded."""
        with registry.lock:
            sums = self._with_more().sums
            for lane in [lane for lane in self._lanes or () if lane.closed]:
                key = None if lane.nested else lane.unit or self._unit
                if key not in sums and len(sums) >= values.ATTRIBUTE_COUNT:
                    key = None
                done, total = sums.get(key, (0, 0))
                sums[key] = (done + lane.completed, total + (lane.total or 0))
                self._lanes.remove(lane)  # type: ignore[union-attr]

    def _lane_counts(self) -> dict[str | None, tuple[Number, Number | None]]:
        """Completed and total of the lanes, by unit; nested ones under None."""
        counts: dict[str | None, tuple[Number, Number | None]] = {}
        if self._more is not None:
            counts.update(self._more.sums)
        for lane in list(self._lanes or ()):
            key = None if lane.nested else lane.unit or self._unit
            done, total = counts.get(key, (0, 0))
            size = lane.total
            counts[key] = (done + lane.completed, None if total is None or size is None else total + size)
        return counts

    def _progress(self) -> tuple[Number | None, Number | None, Mapping[str, Number]]:
        """What it counted by itself: completed (None where nothing was), total, and the counts in other units."""
        total, more = self._total, self._more
        done: Number | None = None
        others = _NO_COUNTS if more is None or not more.units else dict(more.units)
        if self._lanes is not None:
            lanes = self._lane_counts()
            in_unit = lanes.pop(self._unit, None)
            lanes.pop(None, None)
            if lanes:
                others = dict(others)
                for unit, (amount, _) in lanes.items():
                    others[unit] = others.get(unit, 0) + amount  # type: ignore[index, arg-type]
            if in_unit is not None and not self._own:
                done, total = in_unit[0], in_unit[1] if total is None else total
        if self._said_done or self._plain_advanced():
            return self._counted(), self._total, others
        if done is None and self._recorded and self._ratio is None and self._lanes is None:
            done = self._recorded
        elif done is None and self._own and self._ratio is None and self._lanes is not None:
            done = 0  # it said how much there is, and so rules over its loops
        return done, total, others

    def _life(self) -> Any:
        """A value that changes with each completed unit, in any unit and at any depth."""
        advanced = self._advanced
        life = (advanced if type(advanced) is int else self._plain_advanced()) + self._bumps
        if self._lanes:
            life += sum(lane.completed for lane in list(self._lanes))
        more = self._more
        if more is not None:
            life += self._recorded
            if more.sums:
                life += sum(done for done, _ in more.sums.values())
            if more.units:
                life += sum(tuple(more.units.values()))
        return life

    def _close_lanes(self) -> None:
        for lane in list(self._lanes or ()):
            lane.close()


def _long_key(key: object) -> str:
    """A text for a key that is long, or no text; keys that differ stay different."""
    text = values.text(key, drops, sys.maxsize)
    if len(text) <= values.NAME_LENGTH:
        return text
    return f"{text[: values.NAME_LENGTH - 12]}…#{zlib.crc32(text.encode()):08x}"


def _locked_advance(self: Handle, n: Number = 1, unit: str | None = None) -> None:
    """The advance of interpreters without a global lock."""
    if unit is not None:
        self._count_in(unit, n)
        return
    with _advance_lock:
        try:
            if n < 1_073_741_823:
                self._advanced += n
            else:
                self._add(n)
        except BaseException as error:
            self._add_anyhow(n, error)


_advance_lock = threading.Lock()
if not getattr(sys, "_is_gil_enabled", bool)() and hasattr(sys, "_is_gil_enabled"):
    Handle.advance = _locked_advance  # type: ignore[method-assign]
