"""When metrics by name are exported, and with which histograms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from benchmarks import bill
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.resources import Resource

import otel_progress as progress
from otel_progress import semconv
from otel_progress.live import hooks
from otel_progress.outbound.answer import Answer
from otel_progress.settings import Endpoint, Settings, read
from otel_progress.telemetry import exporters, providers
from otel_progress.telemetry.metrics import ByName
from otel_progress.testing import Capture

HISTOGRAMS = {semconv.OPERATION_DURATION.name, semconv.STAGE_DURATION.name}


class Sent:
    """An exporter of metrics that keeps what it is given."""

    def __init__(self) -> None:
        """Nothing was sent yet."""
        self.names: list[set[str]] = []
        self.data: list[MetricsData] = []

    def export(self, data: MetricsData) -> None:
        """Keep the names of the metrics."""
        self.data.append(data)
        self.names.append({m.name for r in data.resource_metrics for sc in r.scope_metrics for m in sc.metrics})


class Set:
    """An `Exporter` without a thread, its exporter in memory, and our instruments."""

    def __init__(self, captured: Capture, patch: pytest.MonkeyPatch, settings: Settings) -> None:
        """Make the provider; it does not become the global one."""
        self.sent, self.captured = Sent(), captured
        patch.setattr(providers, "_global_meters", object())
        patch.setattr(providers, "_global_reader", None)
        patch.setattr(providers, "makers", lambda *_: iter([lambda: self.sent]))
        self.exporter = providers.Exporter(settings)
        meters = self.exporter.meter_provider(settings, Resource({}))
        hooks.on_change.append(ByName(meters.get_meter(semconv.SCOPE)).on_change)
        hooks.on_trouble.append(self.exporter.on_trouble)

    def ten_seconds(self) -> set[str] | None:
        """What the thread sends after its next pause."""
        self.captured.advance(10)
        count = len(self.sent.names)
        self.exporter.export()
        return self.sent.names[-1] if len(self.sent.names) > count else None


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, progress_capture: Capture) -> Iterator[Any]:
    """Make a `Set` with these settings; its first export, of everything, is over."""

    def make(settings: Settings | None = None) -> Set:
        found = Set(progress_capture, monkeypatch, settings or Settings())
        found.exporter.export()
        return found

    return make


def test_without_news_everything_leaves_each_minute(made: Any) -> None:
    """A quiet process sends its metrics by name once in 60 s."""
    exports = made()
    with progress.operation("job"):
        exports.ten_seconds()
        rest = [exports.ten_seconds() for _ in range(11)]
    assert [found is not None for found in rest] == [False] * 4 + [True] + [False] * 5 + [True]


def test_counts_leave_within_ten_seconds_of_a_start_or_an_end(made: Any) -> None:
    """ErrorRate and the number of active operations are no older than before; durations follow within the minute."""
    exports = made()
    with progress.operation("job"):
        found = exports.ten_seconds()
        assert {semconv.ACTIVE.name, semconv.STARTED.name} <= found
    found = exports.ten_seconds()
    assert semconv.ENDED.name in found
    assert not found & HISTOGRAMS
    rest = [exports.ten_seconds() for _ in range(4)]
    assert rest[:3] == [None] * 3
    assert semconv.OPERATION_DURATION.name in rest[3]


def test_a_stall_leaves_within_ten_seconds(made: Any) -> None:
    """StuckByName hears of an operation beyond the limit of run series as soon as before."""
    exports = made()
    with progress.operation("job", stall_after=25):
        assert [exports.ten_seconds() is not None for _ in range(3)] == [True, False, True]


def test_the_end_of_the_process_sends_all(made: Any) -> None:
    """A process that lives for 20 s sends counts and durations with its flush."""
    exports = made()
    with progress.operation("job"), progress.stage("load"):
        exports.captured.advance(20)
    exports.captured.advance(1)
    exports.exporter.export(flush=True)
    assert {semconv.ENDED.name, *HISTOGRAMS} <= exports.sent.names[-1]


def test_deltas_have_no_export_in_between(made: Any) -> None:
    """What is read as a delta is not read again, so nothing is read that is not sent."""
    exports = made(replace(Settings(), temporality="delta"))
    with progress.operation("job"), progress.stage("load"):
        pass
    found = [exports.ten_seconds() for _ in range(6)]
    assert found[:5] == [None] * 5
    assert found[5] >= HISTOGRAMS


def test_the_variable_sets_both_intervals(made: Any) -> None:
    """With `OTEL_METRIC_EXPORT_INTERVAL=10000` everything leaves every 10 s, as named."""
    exports = made(read(environ={"OTEL_METRIC_EXPORT_INTERVAL": "10000"}))
    with progress.operation("job"), progress.stage("load"):
        pass
    assert all((exports.ten_seconds() or set()) >= HISTOGRAMS for _ in range(3))


@pytest.mark.parametrize("exponential", [True, False])
def test_the_aggregation_of_histograms_is_as_the_variable_says(made: Any, *, exponential: bool) -> None:
    """`base2_exponential_bucket_histogram` gives exponential buckets, in spite of the advice for explicit ones."""
    name = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
    exports = made(read(environ={name: "base2_exponential_bucket_histogram"} if exponential else {}))
    for seconds in range(1, 90):
        with progress.operation("job"):
            exports.captured.clock.sleep(float(seconds))
    exports.captured.look()
    exports.exporter.export(flush=True)
    (metric,) = (
        metric
        for resource in exports.sent.data[-1].resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == semconv.OPERATION_DURATION.name
    )
    (point,) = metric.data.data_points
    assert hasattr(point, "scale") is exponential
    if exponential:
        base = 2 ** (2**-point.scale)
        assert base < 1.1, "a quantile is wrong by at most half of this"
        assert math.isclose(point.sum, sum(range(1, 90)))


def test_the_buckets_are_worth_their_price() -> None:
    """Against 19 bounds before: fewer, a mean error of quantiles that isn't larger, and a smaller largest one."""
    before, now = (bill.errors(bounds, bill.durations()) for bounds in (bill.OLD_BUCKETS, bill.BUCKETS))
    assert len(bill.BUCKETS) < len(bill.OLD_BUCKETS)
    assert sum(now) <= sum(before)
    assert now[-1] < before[-1]


def test_a_receiver_that_keeps_no_metrics_gets_them_once_a_minute(
    made: Any, monkeypatch: pytest.MonkeyPatch, progress_capture: Capture
) -> None:
    """However many operations start and end; when one that does takes its place, it has all from the next one on."""
    sent: list[bytes] = []
    answer = Answer(True, discards=True)

    class Receiver:
        def send(self, body: bytes) -> Answer:
            sent.append(body)
            return answer

        def close(self) -> None:
            pass

    monkeypatch.setattr(exporters, "connect", lambda *_: Receiver())
    exports = made()
    exports.exporter._exporters = [exporters.OtlpMetrics(Endpoint("http/protobuf", "http://localhost:4318", ()))]
    for _ in range(18):
        with progress.operation("job"):
            exports.ten_seconds()
    assert len(sent) == 3
    answer = Answer(True)
    for _ in range(6):
        with progress.operation("job"):
            exports.ten_seconds()
    assert len(sent) == 3 + 6
