"""The benchmark runs. Tests ignore its figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import limits
from benchmarks.monitor import latency, readers, scale, traffic
from benchmarks.monitor.load import Sending
from benchmarks.monitor.traffic import Body, Program, Shape

from otel_progress.model.history import Learned
from otel_progress.monitor.intake import records, requests
from otel_progress.monitor.state.ledger import Ledger

ROOT = Path(__file__).parents[2]
ROWS = (
    "`track` over list, tuple, range",
    "`track` over any iterator",
    "`track` over an async iterator",
    "`advance()` on a handle",
    "stage enter + exit, recording",
    "the same, a stage inside a stage",
    "decorator, without SDK",
    "ticker, 500 live operations",
    "memory of a live operation",
    "`import otel_progress`",
    "99th percentile of a call",
)

MONITOR_ROWS = (
    "intake, log events |",
    "intake, log events, each update a second apart",
    "intake, spans",
    "from `advance()` to a reader, default interval",
    "from `advance()` to a reader, interval 0.1 s",
    "20 readers at 1,000 records/s, 512 a request",
    "10 readers at 2,000 records/s, 512 a request",
    "restart with 1,000 finished operations",
)


@pytest.fixture(scope="module")
def short() -> str:
    """Return the output of the short mode."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--short"],
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("row", ROWS)
def test_the_short_mode_measures_every_row(short: str, row: str) -> None:
    """Each row of the table exists, and was measured."""
    line = next((line for line in short.splitlines() if line.startswith(f"| {row}")), None)
    assert line is not None, short
    assert "not measured" not in line


def test_the_short_mode_keeps_nothing() -> None:
    """Figures of the short mode never reach the page, which has a place for those of the full one."""
    page = (ROOT / "docs" / "performance.md").read_text()
    assert page.count("<!-- measured: begin -->") == page.count("<!-- measured: end -->") == 1
    assert "500 live operations" not in page


@pytest.fixture(scope="module")
def short_monitor() -> str:
    """Return the output of the short mode of the monitor's benchmarks."""
    return of_monitor("intake", "latency", "readers", "restart")


def of_monitor(*names: str) -> str:
    """Return the output of the short mode of some of the monitor's benchmarks."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.monitor", *names, "--short"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=115,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("row", MONITOR_ROWS)
def test_the_short_mode_measures_every_row_of_the_monitor(short_monitor: str, row: str) -> None:
    """Each row of the monitor's table exists, with a measured figure."""
    line = next((line for line in short_monitor.splitlines() if line.startswith(f"| {row}")), None)
    assert line is not None, short_monitor
    assert "nan" not in line
    assert "inf" not in line


def test_the_short_mode_measures_a_fleet() -> None:
    """Programs with connections of their own are all heard, with all their operations, and nothing is refused."""
    line = next(one for one in of_monitor("scale").splitlines() if one.startswith('{"scale"'))
    for one in json.loads(line)["scale"].values():
        assert one["operations"] == scale.OPERATIONS_SHORT
        assert set(one["answers"]) <= {"200"}
        assert one["events_a_second"] > 0


def test_no_reader_of_the_short_mode_loses_an_end(short_monitor: str) -> None:
    """Operations end during the measurement, and each reader gets each end."""
    found = json.loads(next(line for line in short_monitor.splitlines() if line.startswith('{"readers"')))["readers"]
    assert all(one["ends"] > 0 and one["ends_lost"] == 0 for one in found.values()), found


def test_what_is_sent_is_what_real_programs_say() -> None:
    """Each request has its number of records, each of which is read, and what is said to have ended has ended."""
    shape, ledger, ended = Shape(operations=20, programs=2, batch=100), Ledger(), set[str]()
    for number in range(shape.programs):
        program = Program(shape, number, 1e9)
        for at in range(8):
            body = program.body(at)
            parcel = requests.Envelope("logs", body.data, zipped=True).open()
            (group,) = records.groups(parcel)
            assert len(group.records) == body.records == shape.batch
            ledger.hear(group.resource, group.records, float(at))
            ended.update(body.ended)
    assert ledger.unread == 0
    assert len(ledger.processes) == shape.programs
    over = {key for key, entry in ledger.operations.items() if not entry.open}
    assert over <= ended  # the last ones may be in the next request
    assert len(over) >= len(ended) - shape.programs
    assert shape.operations - shape.programs <= len(ledger.operations) - len(over) <= shape.operations + shape.programs
    assert all(entry.snapshot.stages for entry in ledger.operations.values())


def test_the_spans_are_whole_traces() -> None:
    """A request of spans has its number of spans, and shows the monitor as many traces as have their root in it."""
    (body,) = traffic.spans(Shape(batch=100), 1, 1e9)
    parcel = requests.Envelope("traces", body.data, zipped=True).open()
    spans = parcel.message.resource_spans[0].scope_spans[0].spans  # type: ignore[attr-defined]
    assert len(spans) == body.records == 100
    assert sum(not span.parent_span_id for span in spans) == 100 // 20


def test_a_step_counts_until_it_or_a_newer_one_is_seen() -> None:
    """A skipped step is as late as the one that replaced it; a step that nobody saw is never in time."""
    steps = [[0, 1, 10.0], [0, 2, 10.5], [1, 1, 11.0]]
    assert latency.delays(steps, {0: [(2, 12.0)], 1: []}) == [2.0, 1.5, float("inf")]


def _frame(place: int, rows: list[dict[str, object]]) -> bytes:
    return f"id: e-{place}\nevent: changes\ndata: {json.dumps({'rows': rows, 'removed': []})}".encode()


def test_each_request_is_timed_at_each_reader_and_each_end_that_one_missed_is_counted() -> None:
    """The time counts from the acknowledgement to the first frame with the request's data, or newer data."""
    bodies = [Body(0, 0, 1, b"", ("a",)), Body(0, 1, 1, b""), Body(1, 0, 1, b"", ("b",))]
    sent = Sending("localhost:1", "logs", bodies)
    sent.acknowledged = {(0, 0): 1.0, (0, 1): 2.0, (1, 0): 2.0}
    sent.delays = [0.25]
    stamp = {"progress": {"current_step": "@000.000001"}}
    frames = {
        7: _frame(7, [{"id": "a", "ended": True}, {"id": "x", **stamp}]),
        8: _frame(8, [{"id": "b", "ended": True, "progress": {"current_step": "@001.000000"}}]),
    }
    seen = [([7, 8], [2.5, 3.0], 0, 0, 0), ([7], [4.0], 0, 0, 0)]
    late, from_sent, lost = readers.judged(frames, seen, sent, bodies)
    assert sorted(late) == [0.5, 1.0, 1.5, 2.0, 3.0]
    assert sorted(from_sent) == [0.75, 1.25, 1.75, 2.25, 3.25]
    assert lost == 1


@pytest.mark.parametrize("kind", [kind for kind in limits.FAMILIES if "Pareto" not in kind])
def test_healthy_work_is_not_called_stuck(kind: str) -> None:
    """No learned limit is reached in 250 healthy runs of any kind; docs/accuracy.md names Pareto times."""
    found = limits.measure(limits.FAMILIES[kind], Learned, 250, f"healthy {kind}")
    assert found.runs == 250
    assert found.alarmed == 0


def test_the_table_of_limits_has_each_kind_of_work() -> None:
    """The page has a row for each simulated kind of work."""
    page = (ROOT / "docs" / "accuracy.md").read_text()
    table = page.partition(limits.BEGIN)[2].partition(limits.END)[0]
    assert all(f"| {kind} |" in table for kind in limits.FAMILIES)
