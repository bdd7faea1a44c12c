"""Run series: metrics by operation id while operations run, for a limited number of operations.

They use no SDK instrument, as these keep every attribute set, and put all ids after the 2,000th into one overflow
point. Each export writes the points from the registry; the labels of an operation are encoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.live.guard import drops, tell_once
from otel_progress.live.registry import registry
from otel_progress.live.state import Change
from otel_progress.model.health import NOT_MOVING
from otel_progress.model.status import Status
from otel_progress.outbound import otlp
from otel_progress.outbound.answer import ASK_AGAIN
from otel_progress.settings import EVERYTHING, Settings
from otel_progress.telemetry.outbox import REQUEST_BYTES
from otel_progress.telemetry.run_points import POINT_BYTES, Points, Shown, labels

if TYPE_CHECKING:
    from otel_progress.live.state import OperationState
    from otel_progress.telemetry.pipeline import Pipeline

FINALS: Final = 20_000
"""Last points, two for each ended operation, that may wait for the receiver."""
SOONEST: Final = 1.0
"""Seconds between two exports because verdicts changed, at least."""
AT_ONCE: Final = 100
"""Operations that such an export takes at most; the others go with the next."""
Request = tuple[bytes, Callable[[], None]]
T = TypeVar("T")


class LastPoint(NamedTuple):
    """The last point of a series: its metric, its head, and its encoded value."""

    metric: s.Metric
    head: bytes
    value: bytes


class RunSeries:
    """Encodes the run series; called in the ticker's thread."""

    def __init__(self, pipeline: Pipeline, settings: Settings) -> None:
        """Export as often, and of as many operations, as the settings say."""
        self._pipeline = pipeline
        self._interval = settings.metric_interval
        self._after = settings.run_series_after
        self._most = settings.run_series_max
        self._everything = settings.run_series == EVERYTHING
        self._next = 0.0
        self._asked_at = -ASK_AGAIN
        self._shown: dict[str, Shown] = {}
        self._left_out: set[str] = set()
        self._pending: dict[str, bytes] = {}
        self._finals: dict[tuple[s.Metric, bytes], LastPoint] = {}
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
            self._last(s.RUN_PENDING, waited)
        if change[0] == s.OPERATION_STARTED:
            return
        self._left_out.discard(key)
        self._urgent.pop(key, None)
        if key in self._shown:
            self._end(key)

    def _end(self, key: str) -> None:
        """Queue the last points of an operation until the receiver has them: how it ended, and that it is not active.

        At the exit of a process its end may not have been told yet.
        """
        shown = self._shown.pop(key)
        operation = shown.operation()
        if operation is not None and operation._status.final:
            self._last(s.RUN_ENDED, _end_head(operation), clock.time_ns() / 1e9)
        self._last(s.RUN_ACTIVE, shown.active_head)

    def _last(self, metric: s.Metric, head: bytes, value: float = 0.0) -> None:
        if self._pipeline.discards_series:
            return
        if len(self._finals) >= FINALS:
            drops.add(s.DROP_OUTBOX)
            self._finals.pop(next(iter(self._finals)))
        self._finals[metric, head] = LastPoint(metric, head, otlp.point_value(value))
        self._news = True

    def unsent(self) -> int:
        """The number of ended operations that still run for the receiver of metrics."""
        return sum(metric is s.RUN_ACTIVE for metric, _ in tuple(self._finals)) if self._pipeline.takes_series else 0

    def on_tick(self, now: float) -> None:
        """Export what is due; in between, the last points of ended operations, and operations with a new verdict."""
        due = now >= self._next
        if due:
            self._next = now + self._interval
        if self._pipeline.discards_series and not (due and now - self._asked_at >= ASK_AGAIN):
            return
        self._asked_at = now
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
            yield self._request(batch, now)

    def _last_points(self) -> Iterator[Request]:
        """Those of one operation go together, so that none ended in one series and runs in another."""
        time = otlp.point_time(clock.time_ns())
        for ended in _batches(self._finals.values(), lambda last: len(last.head) + POINT_BYTES):
            by_metric: dict[s.Metric, list[bytes]] = {}
            for last in ended:
                by_metric.setdefault(last.metric, []).append(last.head + time + last.value)
            metrics = [otlp.gauge(metric, points) for metric, points in by_metric.items()]
            yield self._pipeline.request(metrics), partial(self._forget, ended)

    def _requests(self, now: float) -> Iterator[Request]:
        for waiting in _batches(self._not_started(now), lambda item: 2 * (len(item[0]) + POINT_BYTES)):
            time = otlp.point_time(clock.time_ns())
            pending, within = (
                [head + time + otlp.point_value(values[column]) for head, *values in waiting] for column in (0, 1)
            )
            metrics = [otlp.gauge(s.RUN_PENDING, pending), otlp.gauge(s.RUN_START_WITHIN, within)]
            yield self._pipeline.request(metrics), _nothing
        for chosen in _batches(self._choose(now), self._size):
            yield self._request(chosen, now)

    def _size(self, operation: OperationState) -> int:
        """The largest size of the points of an operation."""
        return self._shown[operation.id].most_bytes

    def _not_started(self, now: float) -> Iterator[tuple[bytes, float, float]]:
        """Operations with `start_within` that have not started: the head of their points, waiting time, limit."""
        before, self._pending = self._pending, {}
        for operation in list(registry.pending):
            within = operation._opts.start_within
            if operation._status is Status.PENDING and within is not None and len(self._pending) < self._most:
                head = before.get(operation.id) or otlp.point_head(labels(operation))
                self._pending[operation.id] = head
                self._finals.pop((s.RUN_PENDING, head), None)
                yield head, max(0.0, now - operation._created), within
        for key in before.keys() - self._pending.keys():
            self._last(s.RUN_PENDING, before[key])

    def _forget(self, ended: list[LastPoint]) -> None:
        for last in ended:
            if self._finals.get(last[:2]) is last:
                del self._finals[last[:2]]

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
                shown = self._shown[key] = Shown(operation)
                self._finals.pop((s.RUN_ACTIVE, shown.active_head), None)  # of an earlier attempt
            yield operation

    def _request(self, operations: list[OperationState], now: float) -> Request:
        points = Points(now, clock.time_ns(), self._interval, everything=self._everything)
        for operation in operations:
            try:
                points.add(operation, self._shown[operation.id])
            except Exception:
                tell_once("the series of an operation could not be made; those of the others are")
        return self._pipeline.request(points.metrics()), points.delivered


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


def _end_head(operation: Any) -> bytes:
    """The head of the point that says when an operation ended, and how."""
    return otlp.point_head(
        labels(operation) + otlp.attributes(otlp.POINT_ATTRIBUTES, {s.STATUS: operation._status.value})
    )


def _nothing() -> None:
    """Do nothing after the delivery."""
