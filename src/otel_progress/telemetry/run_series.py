"""Series by operation id, while operations run, and capped.

They never stand on an SDK instrument, which keeps every attribute set it ever saw: after 2,000 ids all would be one
overflow point. Their points are written from the registry at each export; who an operation is, is encoded once.
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
from otel_progress.model.health import STUCK
from otel_progress.model.status import Health, Status
from otel_progress.outbound import otlp
from otel_progress.telemetry.outbox import REQUEST_BYTES

if TYPE_CHECKING:
    from otel_progress.live.state import OperationState
    from otel_progress.telemetry.pipeline import Pipeline

FINALS: Final = 10_000
"""Ended operations whose last point may wait for the receiver."""
POINT_BYTES: Final = 24
"""What a point holds beside its head."""
LABEL_BYTES: Final = 2_600
"""The most that the labels of both health points hold beside those of all points."""
_FIELD: Final = 7
Request = tuple[bytes, Callable[[], None]]
T = TypeVar("T")


Finding = tuple[Health, Union[str, None], Union[str, None]]
"""A verdict, the stage, and the line of code at which it is stuck."""


class Cached(NamedTuple):
    """What is encoded once for an operation: the heads of its points.

    The one that says that it is active names its parent, too, and the health points have labels of their own.

    `had` holds the columns of `_GONE` that had a value.

    The health point of the verdict before stays, and says 0, so that no reader who looks back finds two that stand.
    """

    head: bytes
    active_head: bytes
    health: Finding
    health_head: bytes
    before: bytes = b""
    had: frozenset[int] = frozenset()


class Runs:
    """Makes the run series; lives in the ticker's thread."""

    def __init__(self, pipeline: Pipeline, interval: float, after: float, most: int) -> None:
        """Export each `interval` seconds, for at most so many operations that are older than `after` seconds."""
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
        """An operation that had series ended: its last point says 0."""
        if change[0] != s.OPERATION_ENDED:
            return
        key = change[1].id
        self._left_out.discard(key)
        if key in self._shown:
            self._end(key)

    def _end(self, key: str) -> None:
        """The series of an operation end: their last point waits until the receiver has it."""
        self._last(key, s.RUN_ACTIVE, self._shown.pop(key).active_head)

    def _last(self, key: str, metric: s.Metric, head: bytes) -> None:
        if len(self._finals) >= FINALS:
            drops.add(s.DROP_OUTBOX)
            self._finals.pop(next(iter(self._finals)))
        self._finals[key, metric] = head
        self._news = True

    def on_tick(self, now: float) -> None:
        """Export when it is time; in between, the last points of operations that ended."""
        due = now >= self._next
        if due:
            self._next = now + self._interval
        elif not self._news:
            return
        everything = due or self._pipeline.series_waiting  # what is posted takes the place of what waits
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
        """The most bytes that the points of an operation take."""
        return (len(self._shown[operation.id].active_head) + POINT_BYTES) * (len(_SERIES) + 2) + LABEL_BYTES

    def _not_started(self, now: float) -> Iterator[tuple[bytes, float, float]]:
        """Those that should start within a limit and did not yet: the head of their points, since when, the limit."""
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
        """Those that are old enough, the ones that have series already first, up to the cap."""
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
        at = seen.stuck_at if verdict in STUCK else None
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
"""What a series says once it had a value and has none, so that no reader who looks back takes the last one as it is."""


def _values(operation: OperationState, seen: Figures, now: float) -> tuple[float | None, ...]:
    """The values of one operation, in the order of `_SERIES`; None where it has none."""
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
    """The items in lists that fit a request each."""
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
    """Nothing follows from the delivery."""
