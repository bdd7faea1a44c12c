"""The last metrics of operations whose process is proven to be gone, under the resource of that process.

Stores of metrics would otherwise show them as running until silence proves something, minutes later.

A counter that first appears with the value 1 never shows an increase. So `lost_counters_at_zero` is sent when an
operation name is first heard of, and the count of the lost follows at the end. The counts are totals of a process that
is gone: a second observer of the same death sends the same values, so nothing is counted twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from otel_progress import semconv as s
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Status
from otel_progress.model.values import Value
from otel_progress.outbound import otlp
from otel_progress.version import VERSION

OPERATIONS: Final = 1000
"""Operations in one request: about 600 kB at the most usual label lengths, below the 1 MiB that receivers take."""


def lost_counters_at_zero(names: Iterable[str], resource: Mapping[str, Value], now: int) -> bytes:
    """A request that says that no operation of these names was lost so far; `now` is in ns since 1970."""
    points = [_count(name, 0.0, now) for name in names]
    return _request(resource, [otlp.counter(s.ENDED, points)])


def last_metrics(lost: Sequence[Snapshot], exit: str, resource: Mapping[str, Value], now: int) -> Iterator[bytes]:
    """Requests that end the series of the lost operations of one process.

    Args:
        lost: all operations that the process left open.
        exit: how it ended, in words.
        resource: its resource.
        now: the time of the points, in ns since 1970: later than any point of the process itself.
    """
    where = {s.ENVIRONMENT: resource[s.ENVIRONMENT]} if resource.get(s.ENVIRONMENT) else {}
    counts = Counter(snapshot.name for snapshot in lost)
    names = list(counts)
    for at in range(0, max(len(lost), len(names)), OPERATIONS):
        some, few = lost[at : at + OPERATIONS], names[at : at + OPERATIONS]
        metrics = [
            otlp.gauge(s.RUN_ACTIVE, [_point({**_of(one, parent=True), **where}, 0.0, now) for one in some]),
            otlp.gauge(s.RUN_LOST, [_point({**_of(one), **where, s.EXIT: exit}, one.timestamp, now) for one in some]),
        ]
        counted = [one for one in some if one.progress.completed is not None]
        if counted:
            points = [_point({**_of(one), **where}, one.progress.completed or 0, now) for one in counted]
            metrics.append(otlp.gauge(s.RUN_COMPLETED, points))
        if few:
            ended = [_count(name, float(counts[name]), now) for name in few]
            active = [_point({s.OPERATION_NAME: name}, 0.0, now) for name in few]
            metrics += [
                otlp.counter(s.ENDED, ended),
                otlp.counter(s.ACTIVE, active, monotonic=False),
            ]
        yield _request(resource, metrics)


def _request(resource: Mapping[str, Value], metrics: Iterable[bytes]) -> bytes:
    return otlp.envelope(otlp.resource(resource), otlp.scope(s.SCOPE, VERSION), metrics)


def _of(lost: Snapshot, *, parent: bool = False) -> dict[str, Any]:
    """The labels of a run series."""
    said = {s.OPERATION_NAME: lost.name, s.OPERATION_ID: lost.operation_id}
    return said | ({s.OPERATION_PARENT_ID: lost.parent_id} if parent and lost.parent_id is not None else {})


def _point(labels: Mapping[str, Value], value: float, now: int) -> bytes:
    return (
        otlp.point_head(otlp.attributes(otlp.POINT_ATTRIBUTES, labels)) + otlp.point_time(now) + otlp.point_value(value)
    )


def _count(name: str, value: float, now: int) -> bytes:
    return _point({s.OPERATION_NAME: name, s.STATUS: Status.LOST.value}, value, now)
