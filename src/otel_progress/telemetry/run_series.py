"""Run series: metrics by operation id while operations run, for a limited number of operations.

They use no SDK instrument, as these keep every attribute set, and put all ids after the 2,000th into one overflow
point. Each export writes the points from the registry; the labels of an operation are encoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, Union

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.live.engine.branch_verdicts import Figures, figures
from otel_progress.live.guard import drops, tell_once
from otel_progress.live.registry import registry
from otel_progress.live.state import Change, HandleState
from otel_progress.model.health import NOT_MOVING
from otel_progress.model.status import Health, Status
from otel_progress.outbound import otlp
from otel_progress.telemetry.outbox import REQUEST_BYTES
from otel_progress.telemetry.run_values import COLUMNS, MARKS, cost_of, loop_of, overdue, values, what_repeats

if TYPE_CHECKING:
    from otel_progress.live.state import OperationState
    from otel_progress.telemetry.pipeline import Pipeline

FINALS: Final = 20_000
"""Last points, two for each ended operation, that may wait for the receiver."""
POINT_BYTES: Final = 24
"""The size of a point beside its head."""
LABEL_BYTES: Final = 6_000
"""The largest size of the additional labels of both health points, and of the points of loops and overdue waits."""
SOONEST: Final = 1.0
"""Seconds between two exports because verdicts changed, at least."""
AT_ONCE: Final = 100
"""Operations that such an export takes at most; the others go with the next."""
Request = tuple[bytes, Callable[[], None]]
T = TypeVar("T")


Finding = tuple[Health, Union[str, None], Union[str, None], Union[str, None]]
"""A verdict, the stage concerned, the line of code at which it is stuck, and what repeats while it loops."""


class Cached(NamedTuple):
    """The encoded heads of the points of an operation.

    Attributes:
        head: the head of most points.
        active_head: that of `progress.run.active`, which has the parent's id, too.
        parent_head: that of `progress.run.parent`; empty if the parent's name is not known.
        health: the verdict that `health_head` holds.
        health_head: the head of the current health point.
        before: that of the previous verdict, which is sent as 0, so that a query over time never finds two verdicts.
        had: the columns that had a value, and how often their end is still to be marked.
        costs: the heads of the points of what loops spent, by currency.
        overdue: those of the limits of overdue waits, by reason and stage, and how often their end is still to be
            marked.
        beside: the same of health points of loops beside a stuck branch.
    """

    head: bytes
    active_head: bytes
    parent_head: bytes
    health: Finding
    health_head: bytes
    before: bytes
    had: dict[int, int]
    costs: dict[str, bytes]
    overdue: dict[tuple[str, str | None], tuple[bytes, int]]
    beside: dict[Finding, tuple[bytes, int]]


class LastPoint(NamedTuple):
    """The last point of a series: its head, and its encoded value."""

    head: bytes
    value: bytes


class RunSeries:
    """Encodes the run series; called in the ticker's thread."""

    def __init__(self, pipeline: Pipeline, interval: float, after: float, most: int) -> None:
        """Export every `interval` seconds, for at most `most` operations older than `after` seconds."""
        self._pipeline = pipeline
        self._interval = interval
        self._after = after
        self._most = most
        self._next = 0.0
        self._shown: dict[str, Cached] = {}
        self._left_out: set[str] = set()
        self._pending: dict[str, bytes] = {}
        self._finals: dict[tuple[str, s.Metric], LastPoint] = {}
        self._news = False
        self._urgent: dict[str, OperationState] = {}
        self._urgent_from = 0.0

    def on_trouble(self, operation: OperationState) -> None:
        """Export the series of an operation soon, as the verdict on it changed."""
        self._urgent[operation.id] = operation

    def on_change(self, change: Change) -> None:
        """End the series of an operation that ended, and those of its wait for a start when it started."""
        if change[0] not in (s.OPERATION_STARTED, s.OPERATION_ENDED):
            return
        key = change[1].id
        if waited := self._pending.pop(key, None):
            self._last(key, s.RUN_PENDING, waited)
        if change[0] == s.OPERATION_STARTED:
            return
        self._left_out.discard(key)
        self._urgent.pop(key, None)
        if key in self._shown:
            self._end(key)
            self._last(key, s.RUN_ENDED, _end_head(change[1]), clock.time_ns() / 1e9)

    def _end(self, key: str) -> None:
        """Queue the last point of an operation, which is 0, until the receiver has it."""
        self._last(key, s.RUN_ACTIVE, self._shown.pop(key).active_head)

    def _last(self, key: str, metric: s.Metric, head: bytes, value: float = 0.0) -> None:
        if len(self._finals) >= FINALS:
            drops.add(s.DROP_OUTBOX)
            self._finals.pop(next(iter(self._finals)))
        self._finals[key, metric] = LastPoint(head, otlp.point_value(value))
        self._news = True

    def on_tick(self, now: float) -> None:
        """Export what is due; in between, the last points of ended operations, and operations with a new verdict."""
        due = now >= self._next
        if due:
            self._next = now + self._interval
        urgent = bool(self._urgent) and now >= self._urgent_from
        if not due and not self._news and not urgent:
            return
        if due or self._pipeline.series_waiting:  # what is posted replaces what waits
            running = list(self._requests(now))
            self._urgent.clear()
        else:
            running = list(self._urgent_requests(now)) if urgent else []
        if urgent:
            self._urgent_from = now + SOONEST
        requests = [*self._last_points(), *running]
        self._news = False
        if requests:
            self._pipeline.post_series(requests)
            self._pipeline.poke()

    def _urgent_requests(self, now: float) -> Iterator[Request]:
        chosen = [self._urgent.pop(key) for key in list(self._urgent)[:AT_ONCE]]
        for batch in _batches(self._with_series(chosen, now), self._size):
            yield self._request(batch, now), _nothing

    def _last_points(self) -> Iterator[Request]:
        time = otlp.point_time(clock.time_ns())
        for metric in (s.RUN_ENDED, s.RUN_ACTIVE, s.RUN_PENDING):
            finals = [item for item in self._finals.items() if item[0][1] is metric]
            for ended in _batches(finals, lambda item: len(item[1].head) + POINT_BYTES):
                points = [last.head + time + last.value for _, last in ended]
                yield self._pipeline.request([otlp.gauge(metric, points)]), partial(self._forget, dict(ended))

    def _requests(self, now: float) -> Iterator[Request]:
        for waiting in _batches(self._not_started(now), lambda item: 2 * (len(item[0]) + POINT_BYTES)):
            time = otlp.point_time(clock.time_ns())
            pending, within = (
                [head + time + otlp.point_value(values[column]) for head, *values in waiting] for column in (0, 1)
            )
            metrics = [otlp.gauge(s.RUN_PENDING, pending), otlp.gauge(s.RUN_START_WITHIN, within)]
            yield self._pipeline.request(metrics), _nothing
        for chosen in _batches(self._choose(now), self._size):
            yield self._request(chosen, now), _nothing

    def _size(self, operation: OperationState) -> int:
        """The largest size of the points of an operation."""
        return (len(self._shown[operation.id].active_head) + POINT_BYTES) * (len(COLUMNS) + 3) + LABEL_BYTES

    def _not_started(self, now: float) -> Iterator[tuple[bytes, float, float]]:
        """Operations with `start_within` that have not started: the head of their points, waiting time, limit."""
        before, self._pending = self._pending, {}
        for operation in list(registry.pending):
            within = operation._opts.start_within
            if operation._status is Status.PENDING and within is not None and len(self._pending) < self._most:
                head = before.get(operation.id) or _encode(operation).head
                self._pending[operation.id] = head
                self._finals.pop((operation.id, s.RUN_PENDING), None)
                yield head, max(0.0, now - operation._created), within
        for key in before.keys() - self._pending.keys():
            self._last(key, s.RUN_PENDING, before[key])

    def _forget(self, ended: dict[tuple[str, s.Metric], LastPoint]) -> None:
        for key, last in ended.items():
            if self._finals.get(key) is last:
                del self._finals[key]

    def _choose(self, now: float) -> Iterator[OperationState]:
        """The operations that have series: old enough, and up to the limit."""
        operations = registry.operations()
        alive = {operation.id for operation in operations}
        for key in self._shown.keys() - alive:
            self._end(key)
        self._left_out &= alive
        yield from self._with_series(operations, now)

    def _with_series(self, operations: list[OperationState], now: float) -> Iterator[OperationState]:
        for operation in operations:
            key = operation.id
            if operation._status is not Status.RUNNING:
                continue
            if now - (operation._started or now) < self._after and not _in_trouble(operation):
                continue
            if key not in self._shown:
                if len(self._shown) >= self._most:
                    if key not in self._left_out:
                        self._left_out.add(key)
                        drops.add(s.DROP_RUN_SERIES)
                    continue
                self._left_out.discard(key)
                self._finals.pop((key, s.RUN_ACTIVE), None)  # of an earlier attempt
                self._shown[key] = _encode(operation)
            yield operation

    def _request(self, operations: list[OperationState], now: float) -> bytes:
        at = clock.time_ns()
        time, encode = otlp.point_time(at), otlp.point_value
        points: list[list[bytes]] = [[] for _ in COLUMNS]
        healths: list[bytes] = []
        parents: list[bytes] = []
        costs: list[bytes] = []
        limits: list[bytes] = []
        for operation in operations:
            try:
                seen = figures(operation, now)
                cached = self._health_head(operation, seen)
                head, had = cached.head + time, cached.had
                found = values(operation, seen, now)
                points[0].append(cached.active_head + time + encode(1.0))
                if cached.parent_head:
                    parents.append(cached.parent_head + time + encode(1.0))
                for column, (out, value) in enumerate(zip(points[1:], found[1:]), 1):
                    if value is not None:
                        out.append(head + encode(value))
                        had[column] = MARKS
                    elif column in had:
                        out.extend(_gone(operation, column, had, head, at))
                healths.append(cached.health_head + time + encode(1.0))
                others: dict[bytes, float] = {}
                if _has_more(seen, cached):
                    costs += _costs(operation, seen, cached, time)
                    limits += _overdue(operation, seen, cached, time)
                    others = _beside(operation, seen, cached)
                if cached.before:
                    others.setdefault(cached.before, 0.0)
                healths += [other + time + encode(value) for other, value in others.items()]
            except Exception:
                tell_once("the series of an operation could not be made; those of the others are")
        metrics = [otlp.gauge(column.metric, encoded) for column, encoded in zip(COLUMNS, points) if encoded]
        if parents:
            metrics.append(otlp.gauge(s.RUN_PARENT, parents))
        if costs:
            metrics.append(otlp.gauge(s.RUN_LOOP_COST, costs))
        if limits:
            metrics.append(otlp.gauge(s.RUN_OVERDUE_AFTER, limits))
        return self._pipeline.request([*metrics, otlp.gauge(s.RUN_HEALTH, healths)])

    def _health_head(self, operation: OperationState, seen: Figures) -> Cached:
        cached = self._shown[operation.id]
        verdict, name = operation._health, None if seen.node is operation else seen.node.name
        at = seen.stuck_at if verdict in NOT_MOVING else None
        what = what_repeats(seen.loop) if verdict is Health.LOOPING else None
        found = verdict, name, at, what
        if cached.health != found:
            head = _finding_head(operation, found)
            cached = self._shown[operation.id] = cached._replace(
                health=found, health_head=head, before=cached.health_head
            )
        return cached


def _has_more(seen: Figures, cached: Cached) -> bool:
    """Whether there is a loop or a wait, or the end of one is still to be told; most operations have none."""
    return (
        seen.loop is not None
        or seen.wait is not None
        or seen.beside is not None
        or bool(cached.costs or cached.overdue or cached.beside)
    )


def _finding_head(operation: OperationState, found: Finding) -> bytes:
    """The head of the health point of a finding."""
    verdict, name, at, what = found
    labels: dict[str, Any] = {s.HEALTH: verdict.value, s.STAGE_NAME: name, s.STUCK_AT: at, s.LOOP: what}
    said = {key: value for key, value in labels.items() if value is not None}
    return otlp.point_head(_labels(operation) + otlp.attributes(otlp.POINT_ATTRIBUTES, said))


def _beside(operation: OperationState, seen: Figures, cached: Cached) -> dict[bytes, float]:
    """The heads and values of the health points of loops beside a stuck branch; 0 a few times once one is over."""
    known, now = cached.beside, None
    if operation._health is Health.SILENT and seen.beside is not None:
        live, branch, *_ = seen.beside
        name = None if live.node is operation else live.node.name
        now = Health.LOOPING, name, branch.stuck_at, what_repeats(branch.loop)
        known[now] = _finding_head(operation, now), MARKS
    points = {}
    for found, (head, marks) in tuple(known.items()):
        left = MARKS if found == now else marks - 1
        known[found] = head, left
        if not left:
            del known[found]
        if head != cached.health_head:
            points[head] = 1.0 if found == now else 0.0
    return points


def _gone(operation: OperationState, column: int, had: dict[int, int], head: bytes, at: int) -> Iterator[bytes]:
    """The point of a series that has no value any more."""
    value = COLUMNS[column].gone
    if value is not None:
        yield head + otlp.point_value(value)
        return
    had[column] -= 1
    if not had[column]:
        del had[column]
    yield otlp.point_without_value(_labels(operation), at)


def _costs(operation: OperationState, seen: Figures, cached: Cached, time: bytes) -> Iterator[bytes]:
    """The points of what a loop spent; 0 once it is over."""
    spent = cost_of(loop_of(operation, seen))
    for currency in spent.keys() - cached.costs.keys():
        labels = _labels(operation) + otlp.attributes(otlp.POINT_ATTRIBUTES, {s.CURRENCY: currency})
        cached.costs[currency] = otlp.point_head(labels)
    for currency, head in cached.costs.items():
        yield head + time + otlp.point_value(spent.get(currency, 0.0))


def _overdue(operation: OperationState, seen: Figures, cached: Cached, time: bytes) -> Iterator[bytes]:
    """The points of the limit of an overdue wait; 0 a few times once it is over, so that queries find only one wait."""
    now, known = overdue(operation, seen), cached.overdue
    for reason, stage in now.keys() - known.keys():
        about = {s.WAIT_REASON: reason} | ({} if stage is None else {s.STAGE_NAME: stage})
        labels = _labels(operation) + otlp.attributes(otlp.POINT_ATTRIBUTES, about)
        known[reason, stage] = otlp.point_head(labels), MARKS
    for wait, (head, marks) in tuple(known.items()):
        left = MARKS if wait in now else marks - 1
        known[wait] = head, left
        if not left:
            del known[wait]
        yield head + time + otlp.point_value(now.get(wait, 0.0))


def _batches(items: Iterable[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """The items in lists that each fit into a request."""
    batch: list[T] = []
    size = 0
    for item in items:
        more = size_of(item)
        if batch and size + more > REQUEST_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += more
    if batch:
        yield batch


def _in_trouble(operation: OperationState) -> bool:
    return operation._overdue or operation._health in NOT_MOVING


def _labels(operation: OperationState) -> bytes:
    who = {s.OPERATION_NAME: operation.name, s.OPERATION_ID: operation.id}
    where = {} if registry.environment is None else {s.ENVIRONMENT: registry.environment}
    return otlp.attributes(otlp.POINT_ATTRIBUTES, who | where)


def _encode(operation: OperationState) -> Cached:
    labels = _labels(operation)
    parent = operation.parent_id
    of = b"" if parent is None else otlp.attributes(otlp.POINT_ATTRIBUTES, {s.OPERATION_PARENT_ID: parent})
    nothing = (Health.UNKNOWN, None, None, None)
    heads = otlp.point_head(labels), otlp.point_head(labels + of), _parent_head(operation, labels + of)
    return Cached(*heads, nothing, b"", b"", {}, {}, {}, {})


def _parent_head(operation: OperationState, labels: bytes) -> bytes:
    """The head of the point that names the parent, if its name and service are known."""
    parent: Any = operation._opts.parent or operation._parent
    if operation.parent_id is None or isinstance(parent, str):
        return b""
    here = isinstance(parent, HandleState)
    name, service = (parent.operation.name, registry.service) if here else (parent.name, parent.service)
    if not name or not service:
        return b""
    about = {s.OPERATION_PARENT_NAME: name, s.OPERATION_PARENT_SERVICE: service}
    return otlp.point_head(labels + otlp.attributes(otlp.POINT_ATTRIBUTES, about))


def _end_head(operation: Any) -> bytes:
    """The head of the point that says when an operation ended, and how."""
    return otlp.point_head(
        _labels(operation) + otlp.attributes(otlp.POINT_ATTRIBUTES, {s.STATUS: operation._status.value})
    )


def _nothing() -> None:
    """Do nothing after the delivery."""
