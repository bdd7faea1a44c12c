"""Run series: metrics by operation id while operations run, for a limited number of operations.

They use no SDK instrument, as these keep every attribute set, and put all ids after the 2,000th into one overflow
point. Each export writes the points from the registry; the labels of an operation are encoded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, Union

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.live.engine import limits, progress
from otel_progress.live.engine.branch_verdicts import Figures, figures
from otel_progress.live.guard import drops, tell_once
from otel_progress.live.registry import registry
from otel_progress.live.state import Change
from otel_progress.live.survey import Survey
from otel_progress.model.health import NOT_MOVING
from otel_progress.model.status import Health, Status
from otel_progress.outbound import otlp
from otel_progress.telemetry.outbox import REQUEST_BYTES

if TYPE_CHECKING:
    from otel_progress.live.state import OperationState
    from otel_progress.telemetry.pipeline import Pipeline

FINALS: Final = 10_000
"""Ended operations whose last point may wait for the receiver."""
POINT_BYTES: Final = 24
"""The size of a point beside its head."""
LABEL_BYTES: Final = 2_600
"""The largest size of the additional labels of both health points."""
_FIELD: Final = 7
Request = tuple[bytes, Callable[[], None]]
T = TypeVar("T")


Finding = tuple[Health, Union[str, None], Union[str, None]]
"""A verdict, the stage concerned, and the line of code at which it is stuck."""


class Cached(NamedTuple):
    """The encoded heads of the points of an operation.

    Attributes:
        head: the head of most points.
        active_head: that of `progress.run.active`, which names the parent, too.
        health: the verdict that `health_head` holds.
        health_head: the head of the current health point.
        before: that of the previous verdict, which is sent as 0, so that a query over time never finds two verdicts.
        had: the columns of `_GONE` that had a value.
    """

    head: bytes
    active_head: bytes
    health: Finding
    health_head: bytes
    before: bytes = b""
    had: frozenset[int] = frozenset()


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
        self._finals: dict[tuple[str, s.Metric], bytes] = {}
        self._news = False

    def on_change(self, change: Change) -> None:
        """End the series of an operation that ended."""
        if change[0] != s.OPERATION_ENDED:
            return
        key = change[1].id
        self._left_out.discard(key)
        if key in self._shown:
            self._end(key)

    def _end(self, key: str) -> None:
        """Queue the last point of an operation, which is 0, until the receiver has it."""
        self._last(key, s.RUN_ACTIVE, self._shown.pop(key).active_head)

    def _last(self, key: str, metric: s.Metric, head: bytes) -> None:
        if len(self._finals) >= FINALS:
            drops.add(s.DROP_OUTBOX)
            self._finals.pop(next(iter(self._finals)))
        self._finals[key, metric] = head
        self._news = True

    def on_tick(self, now: float) -> None:
        """Export when it is due; in between, export the last points of ended operations."""
        due = now >= self._next
        if due:
            self._next = now + self._interval
        elif not self._news:
            return
        everything = due or self._pipeline.series_waiting  # what is posted replaces what waits
        running = list(self._requests(now)) if everything else []
        requests = [*self._last_points(), *running]
        self._news = False
        if requests:
            self._pipeline.post_series(requests)
            self._pipeline.poke()

    def _last_points(self) -> Iterator[Request]:
        time, zero = otlp.point_time(clock.time_ns()), otlp.point_value(0.0)
        for metric in (s.RUN_ACTIVE, s.RUN_PENDING):
            finals = [item for item in self._finals.items() if item[0][1] is metric]
            for ended in _batches(finals, lambda item: len(item[1]) + POINT_BYTES):
                points = [head + time + zero for _, head in ended]
                yield self._pipeline.request([_gauge(metric, points)]), partial(self._forget, dict(ended))

    def _requests(self, now: float) -> Iterator[Request]:
        for waiting in _batches(self._not_started(now), lambda item: 2 * (len(item[0]) + POINT_BYTES)):
            time = otlp.point_time(clock.time_ns())
            pending, within = (
                [head + time + otlp.point_value(values[column]) for head, *values in waiting] for column in (0, 1)
            )
            yield self._pipeline.request([_gauge(s.RUN_PENDING, pending), _gauge(s.RUN_START_WITHIN, within)]), _nothing
        for chosen in _batches(self._choose(now), self._size):
            yield self._request(chosen, now), _nothing

    def _size(self, operation: OperationState) -> int:
        """The largest size of the points of an operation."""
        return (len(self._shown[operation.id].active_head) + POINT_BYTES) * (len(_SERIES) + 2) + LABEL_BYTES

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

    def _forget(self, ended: dict[tuple[str, s.Metric], bytes]) -> None:
        for key, head in ended.items():
            if self._finals.get(key) is head:
                del self._finals[key]

    def _choose(self, now: float) -> Iterator[OperationState]:
        """The operations that have series: old enough, and up to the limit."""
        operations = registry.operations()
        alive = {operation.id for operation in operations}
        for key in self._shown.keys() - alive:
            self._end(key)
        self._left_out &= alive
        for operation in operations:
            key = operation.id
            if operation._status is not Status.RUNNING or now - (operation._started or now) < self._after:
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
        time = otlp.point_time(clock.time_ns())
        one, encode = otlp.point_value(1.0), otlp.point_value
        points: list[list[bytes]] = [[] for _ in _SERIES]
        healths = []
        for operation in operations:
            try:
                seen = figures(operation, now)
                cached = self._health_head(operation, seen)
                head = cached.head + time
                values = _values(operation, seen, now)
                points[0].append(cached.active_head + time + one)
                for out, value in zip(points[1:], values[1:]):
                    if value is not None:
                        out.append(head + encode(value))
                for column, gone in _GONE:
                    if values[column] is not None:
                        if column not in cached.had:
                            cached = self._shown[operation.id] = cached._replace(had=cached.had | {column})
                    elif column in cached.had:
                        points[column].append(head + encode(gone))
                healths.append(cached.health_head + time + one)
                if cached.before:
                    healths.append(cached.before + time + encode(0.0))
            except Exception:
                tell_once("the series of an operation could not be made; those of the others are")
        metrics = [_gauge(metric, encoded) for metric, encoded in zip(_SERIES, points) if encoded]
        return self._pipeline.request([*metrics, _gauge(s.RUN_HEALTH, healths)])

    def _health_head(self, operation: OperationState, seen: Figures) -> Cached:
        cached = self._shown[operation.id]
        verdict, name = operation._health, None if seen.node is operation else seen.node.name
        at = seen.stuck_at if verdict in NOT_MOVING else None
        if cached.health != (verdict, name, at):
            labels: dict[str, Any] = {s.HEALTH: verdict.value, s.STAGE_NAME: name, s.STUCK_AT: at}
            said = {key: value for key, value in labels.items() if value is not None}
            head = otlp.point_head(_labels(operation) + otlp.attributes(_FIELD, said))
            cached = self._shown[operation.id] = cached._replace(
                health=(verdict, name, at), health_head=head, before=cached.health_head
            )
        return cached


_SERIES: Final = (
    s.RUN_ACTIVE,
    s.RUN_START_TIME,
    s.RUN_IDLE,
    s.RUN_LAST_HEARTBEAT,
    s.RUN_STALL_AFTER,
    s.RUN_SLOW_AFTER,
    s.RUN_ETA,
    s.RUN_WAIT_REMAINING,
    s.RUN_RATIO,
    s.RUN_COMPLETED,
    s.RUN_TOTAL,
)
_GONE: Final = ((_SERIES.index(s.RUN_WAIT_REMAINING), 0.0), (_SERIES.index(s.RUN_STALL_AFTER), math.inf))
"""The value of a series that had one and has none now, so that a query over time does not find the old one."""


def _values(operation: OperationState, seen: Figures, now: float) -> tuple[float | None, ...]:
    """The values of an operation, in the order of `_SERIES`; None without one."""
    survey = Survey(operation)
    found = survey.of(operation)
    eta = progress.eta(operation, found, now, survey)
    return (
        1.0,
        operation._started_ns / 1e9,
        seen.idle,
        operation._extras.beat_at if operation._extras is not None else None,
        seen.stall_after,
        limits.slow_after(operation),
        eta.eta if eta is not None else None,
        seen.wait_remaining,
        progress.shown_ratio(operation, found.raw),
        found.completed,
        found.total,
    )


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


def _labels(operation: OperationState) -> bytes:
    return otlp.attributes(_FIELD, {s.OPERATION_NAME: operation.name, s.OPERATION_ID: operation.id})


def _encode(operation: OperationState) -> Cached:
    labels = _labels(operation)
    parent = operation.parent_id
    of = b"" if parent is None else otlp.attributes(_FIELD, {s.OPERATION_PARENT_ID: parent})
    return Cached(otlp.point_head(labels), otlp.point_head(labels + of), (Health.UNKNOWN, None, None), b"")


def _gauge(metric: s.Metric, points: list[bytes]) -> bytes:
    return otlp.gauge(metric.name, metric.unit, metric.description, points)


def _nothing() -> None:
    """Do nothing after the delivery."""
