"""Of the metrics of a long outage the newest point of each series is kept, and only what is still true is sent late."""

from __future__ import annotations

from typing import Any

import pytest

from otel_progress.monitor.intake import newest_points
from otel_progress.monitor.intake.messages import REQUESTS
from otel_progress.monitor.intake.newest_points import newest
from otel_progress.outbound import otlp
from otel_progress.semconv import Metric

S = 10**9
NOW = 1_800_000_000 * S
OLD = NOW - 3600 * S
Row = tuple[str, str, str, float, int]


def point(value: float, time: int, **labels: str) -> bytes:
    """A point."""
    return otlp.point_head(otlp.attributes(7, labels)) + otlp.point_time(time) + otlp.point_value(value)


def gauge(name: str, *points: bytes, instance: str = "i") -> bytes:
    """A request with a gauge."""
    return envelope(instance, otlp.gauge(Metric(name, "1", "what"), points))


def total(name: str, *points: bytes, instance: str = "i") -> bytes:
    """A request with a cumulative counter."""
    return envelope(instance, otlp.counter(Metric(name, "1", "what"), points))


def envelope(instance: str, metric: bytes) -> bytes:
    """A request."""
    return otlp.envelope(otlp.resource({"service.instance.id": instance}), otlp.scope("s", "1"), [metric])


def delta(value: int, time: int, kind: str = "sum") -> bytes:
    """A request with a delta."""
    request: Any = REQUESTS["metrics"]()
    about = request.resource_metrics.add()
    about.resource.attributes.add(key="service.instance.id").value.string_value = "i"
    scope = about.scope_metrics.add()
    scope.scope.name = "s"
    metric = scope.metrics.add(name="d")
    data = getattr(metric, kind)
    data.aggregation_temporality = 1
    found = data.data_points.add(time_unix_nano=time)
    setattr(found, "as_int" if kind == "sum" else "count", value)
    body: bytes = request.SerializeToString()
    return body


def rows(bodies: list[bytes]) -> list[Row]:
    """Return instance, name, labels, value and time of each point, in order."""
    found: list[Row] = []
    for body in bodies:
        message: Any = REQUESTS["metrics"].FromString(body)
        for about in message.resource_metrics:
            instance = "".join(one.value.string_value for one in about.resource.attributes)
            for metric in about.scope_metrics[0].metrics:
                for one in getattr(metric, metric.WhichOneof("data")).data_points:
                    labels = ",".join(f"{label.key}={label.value.string_value}" for label in one.attributes)
                    value = one.count if hasattr(one, "count") else one.as_double or one.as_int
                    found.append((instance, metric.name, labels, value, (one.time_unix_nano - NOW) // S))
    return found


def test_newest_of_each_series() -> None:
    """One point remains of each series, the newest, with its time; series differ by process, name and labels."""
    bodies = [
        gauge("a", point(number, NOW - (60 - number) * S, id="x"), point(1, NOW - 60 * S, id="y"))
        for number in range(9)
    ]
    bodies += [gauge("a", point(5, NOW - 5 * S, id="x"), instance="j"), total("c", point(3, NOW - 7 * S))]
    assert sorted(rows(newest(bodies, NOW))) == [
        ("i", "a", "id=x", 8, -52),
        ("i", "a", "id=y", 1, -60),
        ("i", "c", "", 3, -7),
        ("j", "a", "id=x", 5, -5),
    ]


def test_order_does_not_matter() -> None:
    """An older point that comes later replaces nothing, and labels in another order are the same series."""
    first = gauge("a", point(2, NOW - S, id="x", name="n"))
    assert rows(newest([first, gauge("a", point(1, NOW - 9 * S, name="n", id="x"))], NOW)) == rows([first])


@pytest.mark.parametrize("kind", ["sum", "histogram"])
def test_deltas_are_all_kept(kind: str) -> None:
    """Each delta says what no other says."""
    found = rows(newest([delta(number, NOW - (9 - number) * S, kind) for number in range(1, 4)], NOW))
    assert [(row[3], row[4]) for row in found] == [(1, -8), (2, -7), (3, -6)]


def test_kind_and_text_of_metrics_stay() -> None:
    """A merged request says the same about each metric: unit, description, kind."""
    for body in (gauge("a", point(1, NOW)), total("b", point(1, NOW)), delta(1, NOW)):
        assert REQUESTS["metrics"].FromString(newest([body], NOW)[0]) == REQUESTS["metrics"].FromString(body)


def test_what_is_still_true_gets_the_present_time() -> None:
    """Of old points, totals and the ends of runs are sent as of now; what was measured then is not sent."""
    bodies = [
        gauge("progress.run.active", point(0, OLD, id="ended"), point(1, OLD, id="unheard")),
        gauge("progress.run.pending", point(0, OLD)),
        gauge("progress.run.lost", point(OLD / S, OLD)),
        gauge("progress.run.ratio", point(0.5, OLD)),
        gauge("progress.run.eta", otlp.point_without_value(b"", OLD)),
        total("progress.operation.ended", point(7, OLD)),
        delta(1, OLD),
    ]
    assert sorted((row[1], row[2], row[4]) for row in rows(newest(bodies, NOW))) == [
        ("progress.operation.ended", "", 0),
        ("progress.run.active", "id=ended", 0),
        ("progress.run.lost", "", 0),
        ("progress.run.pending", "", 0),
    ]


def test_requests_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many series become several requests, none much larger than the limit, and nothing is lost between them."""
    monkeypatch.setattr(newest_points, "REQUEST_BYTES", 2000)
    found = newest([gauge("a", *(point(n, NOW - n * S, id=f"run-{n}") for n in range(200)))], NOW)
    assert len(found) > 3
    assert max(map(len, found)) < 2300
    assert sorted(row[3] for row in rows(found)) == list(range(200))


def test_what_is_no_request_is_kept() -> None:
    """Bytes that can't be read are passed on as they are, for the receiver to judge."""
    assert newest([b"\xff\xff"], NOW) == [b"\xff\xff"]
