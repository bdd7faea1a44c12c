"""What a set-up sends, counted by a play of its own clock."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from benchmarks.cost.__main__ import Case, bars, dollars

from otel_progress.outbound import otlp
from otel_progress.telemetry.tally import Counter, Tally


def rehearse(*options: str, **environ: str) -> dict[str, dict[str, int]]:
    """Play what the options say, in a process with these variables."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    command = [sys.executable, "-m", "otel_progress.rehearsal", *options]
    done = subprocess.run(command, env={**kept, **environ}, capture_output=True, text=True, timeout=60, check=True)
    found: dict[str, dict[str, int]] = json.loads(done.stdout)
    return found


MINUTE = ("--stages", "3", "--seconds", "60", "--lasts", "60")


def test_each_signal_is_counted() -> None:
    """A minute of three stages: a span for each and one for the whole, a start and an end of each, and updates."""
    sent = rehearse(*MINUTE)
    assert sent["traces"]["items"] == 4
    assert sent["logs"]["items"] >= 2 + 2 * 3
    assert sent["metrics"]["series"] > 10
    assert all(0 < one["zipped"] < one["size"] for one in sent.values())
    assert all(one["requests"] > 0 for one in sent.values())


def test_settings_decide_what_is_counted() -> None:
    """A signal that is off has no counts, and fewer events are sent if the budget allows fewer."""
    usual = rehearse(*MINUTE)
    frugal = rehearse(*MINUTE, OTEL_METRICS_EXPORTER="none", OTEL_PROGRESS_EVENT_BUDGET="0.05")
    assert frugal["metrics"]["items"] == 0
    assert frugal["logs"]["items"] < usual["logs"]["items"]


def test_operations_side_by_side_and_one_after_another() -> None:
    """Two at once for twice their length are four operations, and each has spans of its own."""
    sent = rehearse("--stages", "2", "--seconds", "20", "--lasts", "40", "--at-once", "2")
    assert sent["traces"]["items"] == 4 * 3


def test_the_end_of_an_hour_of_work_is_in_that_hour() -> None:
    """What is sent as the work ends makes no second hour: a shorter one of the same stages has as many series."""
    hour = rehearse("--stages", "3", "--seconds", "3600", "--lasts", "3600")["metrics"]["series"]
    less = rehearse("--stages", "3", "--seconds", "3000", "--lasts", "3000")["metrics"]["series"]
    assert hour == less


def test_series_are_counted_by_the_hour() -> None:
    """A series that is sent again in the same hour is one, in the next hour one more; each bucket is one."""
    counter = Counter("metrics")
    from otel_progress import semconv as s

    point = otlp.point_head(b"") + otlp.point_time(1) + otlp.point_value(1.0)
    body = otlp.envelope(otlp.resource({}), otlp.scope("a", "1"), [otlp.gauge(s.RUN_ACTIVE, [point, point])])
    counter.send(body)
    counter.send(body)
    counter.end_hour()
    counter.send(body)
    counter.end_hour()
    assert counter.tally.series == 2
    assert counter.tally.items == 6
    assert counter.tally.requests == 3


def test_the_bill_is_that_of_a_thousand_operation_hours() -> None:
    """Bytes count as sent, series by the hours in which they exist."""
    found = {"logs": Tally(size=2_000_000), "traces": Tally(size=1_000_000), "metrics": Tally(items=1000, series=730)}
    prices = {"logs": 0.5, "spans": 1.0, "series": 10.0, "points": 0.0}
    assert dollars(found, 1.0, prices) == pytest.approx(1000 * (0.001 + 0.001 + 0.01))
    assert dollars(found, 2.0, {**prices, "series": 0.0, "points": 5.0}) == pytest.approx(500 * (0.002 + 0.005))


def test_a_further_operation_is_what_more_of_them_add() -> None:
    """The bars compare the first operation, which bears the heartbeats of its process, and each further one."""
    many = Case(10, 3600, 100)
    results = {
        Case(10, 3600, 1): {"logs": Tally(size=390_000)},
        many: {"logs": Tally(size=390_000 + (many.at_once - 1) * 210_000)},
        Case(10, 86_400, 1): {"logs": Tally(size=5_000_000)},
    }
    first, further, day = bars(results)[2:]  # type: ignore[arg-type]
    assert first.endswith("| 390 | 400 | yes |")
    assert "| 210 | 200 | **no** |" in further
    assert day.endswith("| 5,000 | 5,000 | yes |")
