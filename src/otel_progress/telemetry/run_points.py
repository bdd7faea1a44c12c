"""The points of the run series of a request: encoded, and only those that the receiver needs.

What seldom changes is sent when it changes, and once a minute: a verdict, a limit, a total. Rules look back for four
minutes: a minute more than for other series, so that a run that is killed loses its verdict and its limits with these,
not sooner.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Union

from otel_progress import semconv as s
from otel_progress.live.engine.branch_verdicts import Figures, figures
from otel_progress.live.registry import registry
from otel_progress.live.state import HandleState
from otel_progress.model.health import NOT_MOVING
from otel_progress.model.status import Health
from otel_progress.outbound import otlp
from otel_progress.telemetry.run_values import (
    COLUMNS,
    MARKS,
    Column,
    cost_of,
    loop_of,
    overdue,
    values,
    what_repeats,
)

if TYPE_CHECKING:
    from otel_progress.live.state import OperationState

POINT_BYTES: Final = 24
"""The size of a point beside its head."""
LABEL_BYTES: Final = 6_000
"""The largest size of the additional labels of both health points, and of the points of loops and overdue waits."""
REPEAT: Final = 60.0
"""Seconds after which a value that has not changed is sent again."""
Key = Union[int, bytes]
"""What a value belongs to: a column, or the head of a point."""
Finding = tuple[Health, Union[str, None], Union[str, None], Union[str, None]]
"""A verdict, the stage concerned, the line of code at which it is stuck, and what repeats while it loops."""


class Shown:
    """An operation that has series: the encoded heads of its points, and what the receiver knows.

    The ticker's thread uses it; `told` and `repeat_at` are set by the sender's thread, once a request is delivered.

    Attributes:
        operation: refers to the operation, weakly.
        heads: the head of most points, by what they are of: `stage`, or nothing for the operation itself.
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
        told: the values that the receiver has, of those that are not sent each time; NaN if the series ended.
        repeat_at: the monotonic time from which on all of these are sent again.
    """

    __slots__ = (
        "active_head",
        "before",
        "beside",
        "costs",
        "had",
        "heads",
        "health",
        "health_head",
        "operation",
        "overdue",
        "parent_head",
        "repeat_at",
        "told",
    )

    def __init__(self, operation: OperationState) -> None:
        """Encode the labels of an operation."""
        self.operation = weakref.ref(operation)
        plain = labels(operation)
        parent = operation.parent_id
        of = b"" if parent is None else otlp.attributes(otlp.POINT_ATTRIBUTES, {s.OPERATION_PARENT_ID: parent})
        self.heads = {of: otlp.point_head(plain + _of(of)) for of in (None, s.OF_STAGE)}
        self.active_head = otlp.point_head(plain + of)
        self.parent_head = _parent_head(operation, plain + of)
        self.health: Finding = (Health.UNKNOWN, None, None, None)
        self.health_head = b""
        self.before = b""
        self.had: dict[int, int] = {}
        self.costs: dict[str, bytes] = {}
        self.overdue: dict[tuple[str, str | None], tuple[bytes, int]] = {}
        self.beside: dict[Finding, tuple[bytes, int]] = {}
        self.told: dict[Key, float] = {}
        self.repeat_at = 0.0

    @property
    def most_bytes(self) -> int:
        """The largest size of all its points."""
        longest = max(len(self.active_head), len(self.heads[s.OF_STAGE]))
        return (longest + POINT_BYTES) * (len(COLUMNS) + 3) + LABEL_BYTES


class Points:
    """The points of one request."""

    def __init__(self, now: float, at: int, interval: float, *, everything: bool) -> None:
        """Collect points.

        Args:
            now: the monotonic time.
            at: the time of the points, in ns since 1970.
            interval: seconds between two exports.
            everything: whether series are wanted that no panel and no alert reads.
        """
        self._now = now
        self._at = at
        self._time = otlp.point_time(at)
        self._repeat_at = now + REPEAT - interval / 2
        self._everything = everything
        self._points: dict[s.Metric, list[bytes]] = {}
        self._news: list[tuple[Shown, dict[Key, float], bool]] = []

    def metrics(self) -> list[bytes]:
        """All points, encoded by metric."""
        return [otlp.gauge(metric, points) for metric, points in self._points.items()]

    def delivered(self) -> None:
        """Remember what the receiver has now."""
        for shown, news, complete in self._news:
            if complete:
                shown.told, shown.repeat_at = news, self._repeat_at
            else:
                shown.told.update(news)

    def add(self, operation: OperationState, shown: Shown) -> None:
        """Add the points of an operation."""
        found = _OfOne(self, shown, complete=self._now >= shown.repeat_at)
        seen = figures(operation, self._now)
        found.always(s.RUN_ACTIVE, shown.active_head, 1.0)
        if shown.parent_head:
            found.seldom(s.RUN_PARENT, shown.parent_head, 1.0)
        self._values(operation, seen, shown, found)
        for metric, head, value in (*_costs(operation, seen, shown), *_overdue(operation, seen, shown)):
            found.always(metric, head, value)
        _judge(operation, seen, shown)
        points = {shown.health_head: 1.0, **_beside(operation, seen, shown)}
        if shown.before:
            points.setdefault(shown.before, 0.0)
        for head, value in points.items():
            found.seldom(s.RUN_HEALTH, head, value)
        self._news.append((shown, found.news, found.complete))

    def _values(self, operation: OperationState, seen: Figures, shown: Shown, found: _OfOne) -> None:
        had = shown.had
        given = values(operation, seen, self._now, everything=self._everything)
        for number, (column, known) in enumerate(zip(COLUMNS, given)):
            value = column.gone if known is None and number in had else known
            if value is not None:
                had[number] = MARKS
                found.of_column(number, column, value)
            elif number in had:
                had[number] -= 1
                if not had[number]:
                    del had[number]
                found.news[number] = math.nan
                ended = otlp.point_without_value(labels(operation) + _of(column.of), self._at)
                self.put(column.metric, ended)

    def put(self, metric: s.Metric, point: bytes) -> None:
        """Add an encoded point."""
        self._points.setdefault(metric, []).append(point)

    def encode(self, head: bytes, value: float) -> bytes:
        """A point of this request."""
        return head + self._time + otlp.point_value(value)


class _OfOne:
    """The points of one operation in a request; `complete` if those go that the receiver has already."""

    __slots__ = ("_points", "_shown", "complete", "news")

    def __init__(self, points: Points, shown: Shown, *, complete: bool) -> None:
        self._points = points
        self._shown = shown
        self.complete = complete
        self.news: dict[Key, float] = {}

    def always(self, metric: s.Metric, head: bytes, value: float) -> None:
        self._points.put(metric, self._points.encode(head, value))

    def seldom(self, metric: s.Metric, head: bytes, value: float, key: Key | None = None) -> None:
        key = head if key is None else key
        if self.complete or self._shown.told.get(key) != value:
            self.news[key] = value
            self.always(metric, head, value)

    def of_column(self, number: int, column: Column, value: float) -> None:
        head = self._shown.heads[column.of]
        if column.seldom:
            self.seldom(column.metric, head, value, number)
        else:
            self.always(column.metric, head, value)


def labels(operation: OperationState) -> bytes:
    """The labels that all series of an operation have, encoded."""
    who = {s.OPERATION_NAME: operation.name, s.OPERATION_ID: operation.id}
    where = {} if registry.environment is None else {s.ENVIRONMENT: registry.environment}
    return otlp.attributes(otlp.POINT_ATTRIBUTES, who | where)


def _of(what: str | None) -> bytes:
    return b"" if what is None else otlp.attributes(otlp.POINT_ATTRIBUTES, {s.OF: what})


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


def _judge(operation: OperationState, seen: Figures, shown: Shown) -> None:
    """Encode the verdict if it is another than before."""
    verdict, name = operation._health, None if seen.node is operation else seen.node.name
    at = seen.stuck_at if verdict in NOT_MOVING else None
    what = what_repeats(seen.loop) if verdict is Health.LOOPING else None
    found = verdict, name, at, what
    if shown.health != found:
        shown.before = shown.health_head
        shown.health, shown.health_head = found, _finding_head(operation, found)


def _finding_head(operation: OperationState, found: Finding) -> bytes:
    """The head of the health point of a finding."""
    verdict, name, at, what = found
    said = {s.HEALTH: verdict.value, s.STAGE_NAME: name, s.STUCK_AT: at, s.LOOP: what}
    more = {key: value for key, value in said.items() if value is not None}
    return otlp.point_head(labels(operation) + otlp.attributes(otlp.POINT_ATTRIBUTES, more))


def _beside(operation: OperationState, seen: Figures, shown: Shown) -> dict[bytes, float]:
    """The heads and values of the health points of loops beside a stuck branch; 0 a few times once one is over."""
    known, now = shown.beside, None
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
        if head != shown.health_head:
            points[head] = 1.0 if found == now else 0.0
    return points


def _costs(operation: OperationState, seen: Figures, shown: Shown) -> Iterator[tuple[s.Metric, bytes, float]]:
    """What a loop spent; 0 once it is over."""
    spent = cost_of(loop_of(operation, seen))
    for currency in spent.keys() - shown.costs.keys():
        more = otlp.attributes(otlp.POINT_ATTRIBUTES, {s.CURRENCY: currency})
        shown.costs[currency] = otlp.point_head(labels(operation) + more)
    for currency, head in shown.costs.items():
        yield s.RUN_LOOP_COST, head, spent.get(currency, 0.0)


def _overdue(operation: OperationState, seen: Figures, shown: Shown) -> Iterator[tuple[s.Metric, bytes, float]]:
    """The limit of an overdue wait; 0 a few times once it is over, so that queries find only one wait."""
    now, known = overdue(operation, seen), shown.overdue
    for reason, stage in now.keys() - known.keys():
        about = {s.WAIT_REASON: reason} | ({} if stage is None else {s.STAGE_NAME: stage})
        head = otlp.point_head(labels(operation) + otlp.attributes(otlp.POINT_ATTRIBUTES, about))
        known[reason, stage] = head, MARKS
    for wait, (head, marks) in tuple(known.items()):
        left = MARKS if wait in now else marks - 1
        known[wait] = head, left
        if not left:
            del known[wait]
        yield s.RUN_OVERDUE_AFTER, head, now.get(wait, 0.0)
