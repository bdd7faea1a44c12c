"""docs/semantic-conventions.md agrees with semconv.py and with what is really sent, in both directions."""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

import otel_progress as progress
from otel_progress import Health, StagePlan, Status, semconv
from otel_progress.live import trail
from otel_progress.live.engine import process
from otel_progress.live.engine.cadence import cadence
from otel_progress.model import wire
from otel_progress.outbound import otlp
from otel_progress.telemetry.events import severity
from otel_progress.testing import Capture, capture
from otel_progress.workflow import adaptive

PAGE = (Path(__file__).parents[2] / "docs" / "semantic-conventions.md").read_text(encoding="utf-8")
Row = dict[str, str]


def tables() -> Iterator[tuple[str, list[Row]]]:
    """Return each table of the page: its first heading, and its rows as heading to text."""
    for block in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE):
        lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in block.splitlines()]
        heads = lines[0]
        assert all(len(line) == len(heads) for line in lines), lines
        yield heads[0], [dict(zip(heads, line)) for line in lines[2:]]


def rows(first: str) -> dict[str, Row]:
    """Return all rows of the tables with this first heading, by the name in their first column."""
    found: dict[str, Row] = {}
    for heading, lines in tables():
        if heading == first:
            for line in lines:
                name = line[first].strip("`")
                assert name not in found, f"{name} is on the page twice"
                found[name] = line
    return found


def ticked(text: str) -> set[str]:
    """Return the words in back-ticks."""
    return set(re.findall(r"`([^`]+)`", text))


def names() -> set[str]:
    """Return the names of attributes in semconv.py."""
    constants = {key: value for key, value in vars(semconv).items() if isinstance(value, str) and key.isupper()}
    return {
        value
        for key, value in constants.items()
        if value.startswith(("progress.", "gen_ai.", "exception.", "process.", "host.", "event.", "disk."))
        and value not in semconv.EVENTS | semconv.GEN_AI_EVENTS | semconv.ITEM_EVENTS
        and key != "PREFIX"
    }


# -- the page and semconv.py


def test_attributes_are_those_of_semconv() -> None:
    """The page has each attribute of semconv.py once, and no other."""
    assert set(rows("attribute")) == names()


def test_events_are_those_of_semconv() -> None:
    """The page has each event, and correctly names the rationed ones."""
    found = rows("event")
    assert set(found) == semconv.EVENTS
    assert {name for name, row in found.items() if row["goes"] == "rationed"} == semconv.RATIONED


def test_span_events_of_agents_are_those_of_semconv() -> None:
    """The page has each event that only spans of agents have."""
    assert set(rows("span event")) == semconv.GEN_AI_EVENTS


def test_metrics_are_those_of_semconv() -> None:
    """The page has each metric with its unit."""
    found = rows("metric")
    assert {name: row["unit"].strip("`") for name, row in found.items()} == {
        metric.name: metric.unit for metric in semconv.METRICS
    }


def test_names_in_prometheus_follow_its_rules() -> None:
    """In Prometheus a unit becomes a suffix unless the name ends so, and a counter ends in `_total`."""
    suffixes = {"s": "_seconds", "1": "_ratio", "By": "_bytes"}
    for name, row in rows("metric").items():
        expected = name.replace(".", "_")
        suffix = suffixes.get(row["unit"].strip("`"), "")
        if not expected.endswith(suffix):
            expected += suffix
        if row["kind"] == "counter":
            expected += "_total"
        assert row["in Prometheus"] == f"`{expected}`"


def test_statuses_healths_and_reasons_are_those_of_the_code() -> None:
    """The page has each status, whether it is final, each health, and each drop reason."""
    found = rows("status")
    assert {name: row["final"] == "yes" for name, row in found.items()} == {
        status.value: status.final for status in Status
    }
    assert set(rows("health")) == {health.value for health in Health}
    assert set(rows("drop reason")) == {
        value for key, value in vars(semconv).items() if key.startswith("DROP_") and key != "DROP_REASON"
    }


# -- the page and what really leaves


def work(captured: Capture) -> None:
    """Run an operation with every feature."""
    loop = _Loop()
    process.loops.add(loop)
    plan = [StagePlan("first", weight=2, expected=30, total=10, unit="file", description="begin"), StagePlan("never")]
    about = {"root": "/usr"}
    with progress.operation("outer"):
        headers = progress.inject()
    for attempt in range(2):
        error = ValueError("no") if attempt else None
        op = progress.operation(
            "survey",
            id="survey-1",
            parent=progress.extract(headers),
            plan=plan,
            total=20,
            description="look",
            agent="surveyor",
            attributes=about,
            stall_after=5,
            slow_after=10,
            start_within=3,
        )
        try:
            with op:
                op.update(message="now")
                with progress.stage(
                    "first", stall_after=20, attributes=about, message="hello", depends_on=["never"]
                ) as first:
                    with progress.stage("inner", critical=False, total=5, expected=9):
                        for _ in range(4):
                            progress.advance()
                            captured.advance(1)
                        progress.record("failed", item="ast.py", component="parser", error="no date")
                        progress.usage(input_tokens=3)
                        with progress.operation("below"):
                            pass
                        for _ in progress.track(range(3), unit="token"):
                            pass
                        with progress.waiting("a person", overdue_after=8):
                            captured.advance(10)
                        progress.update(completed=5)  # all of it, but it goes on
                        captured.advance(1)
                    left, right = first.stage("left", stall_after=2).start(), first.stage("right").start()
                    captured.advance(4)  # in parallel
                    left.complete()
                    right.complete()
                    first.record("ok")
                with pytest.raises(ValueError), progress.stage("bad"):
                    raise ValueError("no")
                captured.advance(1)
                op.advance(3, unit="token")
                for number in range(70):
                    with progress.stage(f"s{number}"):
                        pass
                    with progress.stage("again"):
                        pass
                op.advance()
                captured.advance(2)
                op.advance()
                progress.note("draft is done", status="ok")
                progress.heartbeat()
                progress.usage(input_tokens=812, output_tokens=96, cost=0.004)
                progress.result(files=3)
                captured.advance(6)
                for _ in range(5):
                    op.advance()
                    captured.advance(1)
                op.update(total=21)
                op.request_cancel()
                captured.advance(2)
                if error:
                    error.__notes__ = ["say yes"]  # type: ignore[attr-defined] # as add_note does
                    raise error
        except ValueError:
            pass
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            with progress.operation("ingest", id="i", agent="surveyor", resume=f"{folder}/work.db") as resumed:
                list(resumed.track("abc", key=str))
        captured.advance(1)
    late = progress.operation("late", start_within=3)
    loop_of_steps = progress.operation("agent", loop_after=2, plan=[StagePlan("a", expected=1)]).start()
    for _ in range(70):
        loop_of_steps.advance()
        captured.advance(1)
    for _ in range(3):
        loop_of_steps.step("search")
        loop_of_steps.usage(input_tokens=5, cost=0.01)
        captured.advance(1)
    captured.advance(12)
    loop_of_steps.complete()
    late.start().complete()
    op = progress.operation("free", stall_after=100).start()
    op.update(ratio=0.5)
    counts = op.stage("counts", total=100).start()
    for _ in range(12):
        counts.advance()
        captured.advance(1)
    captured.metric_points = captured.metrics()  # type: ignore[attr-defined]
    with op.stage("again", total=9) as again:
        again.update(completed=4)  # of an earlier attempt
        captured.advance(1)
    op.complete()
    captured.advance(5)


class _Loop:
    """An event loop that answers at once."""

    def is_closed(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def call_soon_threadsafe(self, callback: Any, *args: Any) -> None:
        callback(*args)


@pytest.fixture(scope="module")
def seen() -> Iterator[Capture]:
    """Return everything that is sent when every feature is used."""
    with capture(run_series="all") as captured:
        limit = adaptive(name="search API")
        work(captured)
        cadence.fixed = 10.0
        with progress.operation("paced"):
            captured.advance(2)
        bar = progress.operation("bar")
        bar._observed = True
        with bar:
            captured.look()
        yield captured
    assert limit.size == 8


def places(captured: Capture) -> dict[str, set[str]]:
    """Return the signals of each attribute, in the words of the page."""
    found: dict[str, set[str]] = defaultdict(set)
    known = sorted(rows("attribute"), key=len, reverse=True)

    def saw(attributes: Any, where: str) -> None:
        for key in attributes or ():
            name = next((name for name in known if key == name or key.startswith(f"{name}.")), key)
            found[name].add(where)

    for log in captured.logs:
        saw({**log.attributes, **log.sent}, "heartbeat" if log.event_name == semconv.PROCESS_HEARTBEAT else "events")
    for body in captured.logs_receiver.requests:
        for group in ExportLogsServiceRequest.FromString(body).resource_logs:
            saw([pair.key for pair in group.resource.attributes if pair.key.startswith(semconv.PREFIX)], "resource")
    for span in captured.spans:
        saw(span.attributes, "spans")
        for event in span.events:
            saw(event.attributes, "span events")
    for point in captured.series:
        saw(point.attributes, "run series")
    for point in captured.metric_points:  # type: ignore[attr-defined]
        saw(point.attributes, "metrics")
    return found


def test_each_attribute_is_where_the_page_says(seen: Capture) -> None:
    """Each attribute is sent on exactly the signals that the page names; nothing else is sent."""
    found = places(seen)
    assert found.pop("root") == {"spans"}
    said = {name: set(row["where"].split(", ")) for name, row in rows("attribute").items()}
    for name, where in list(said.items()):
        if where <= {"resource", "certificate", "handlers"} and name != semconv.SCHEMA:  # these are tested elsewhere
            assert name not in found
            del said[name]
    assert said == found


TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "int": (int,),
    "double": (float,),
    "number": (int, float),
    "boolean": (bool,),
    "string[]": (list, tuple),
}


def test_spans_of_agents_have_the_proposed_events(seen: Capture) -> None:
    """They pause in a wait, and go on from a checkpoint."""
    assert {event.name for span in seen.spans for event in span.events} >= semconv.GEN_AI_EVENTS


def test_each_attribute_has_the_type_that_the_page_says(seen: Capture) -> None:
    """Types on the wire are those of the page, and JSON attributes are JSON."""
    said = rows("attribute")
    for log in seen.logs:
        for key, value in log.attributes.items():
            row = said[key]
            kinds = TYPES[row["type"]]
            assert type(value) in kinds, (key, value)
            if row["unit"] == "JSON":
                json.loads(value)


def test_each_event_leaves_with_the_severity_that_the_page_says(seen: Capture) -> None:
    """All events of the page were sent, with the severities of the page."""
    found: dict[str, set[str]] = defaultdict(set)
    for log in seen.logs:
        found[log.event_name].add(log.severity)
    said = {name: set(re.findall(r"INFO|WARN|ERROR", row["severity"])) for name, row in rows("event").items()}
    assert set(found) == set(said)
    for name, levels in found.items():
        assert levels <= said[name], name
    assert {otlp.INFO, otlp.WARN, otlp.ERROR} == {severity(event) for event in seen.events}


def test_each_metric_leaves_with_the_labels_that_the_page_says(seen: Capture) -> None:
    """Metrics, kinds and labels are those of the page."""
    labels: dict[str, set[str]] = defaultdict(set)
    for point in [*seen.series, *seen.metric_points]:  # type: ignore[attr-defined]
        labels[point.name] |= set(point.attributes)
    assert labels == {  # the last metrics of the lost: tested elsewhere
        name: ticked(row["labels"]) for name, row in rows("metric").items() if name != semconv.RUN_LOST.name
    }
    kinds = {
        metric.name: type(metric.data).__name__ + str(getattr(metric.data, "is_monotonic", ""))
        for resource in seen._memory._reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    words = {"SumTrue": "counter", "SumFalse": "up-down counter", "Histogram": "histogram", "Gauge": "gauge"}
    for name, row in rows("metric").items():
        assert row["kind"] == (words[kinds[name]] if name in kinds else "gauge")


def test_the_keys_of_a_stage_are_those_of_the_page(seen: Capture) -> None:
    """The keys in `progress.stages` are those of the page."""
    keys: set[str] = set()
    for log in seen.logs:
        for stage in json.loads(log.attributes.get(semconv.STAGES, "[]")):
            keys |= set(stage)
    assert keys == set(rows("key"))


def test_the_example_is_one() -> None:
    """The example on the page parses, and has nothing that a real event lacks."""
    (text,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    example = json.loads(text)
    attributes = example["attributes"]
    assert set(attributes) <= {name for name, row in rows("attribute").items() if "events" in row["where"].split(", ")}
    snapshot = wire.from_attributes(attributes, 1700000024.75, example["trace_id"], example["span_id"])
    assert (snapshot.name, snapshot.stage, snapshot.agent) == ("survey", "parse", "surveyor")
    assert [stage.path for stage in snapshot.stages] == ["discover", "parse"]
    assert snapshot.stages[1].progress.completed == 40


def test_examples_have_the_type_of_their_attribute() -> None:
    """An example value has the type beside it."""
    for name, row in rows("attribute").items():
        (example,) = ticked(row["example"])
        kind = row["type"]
        if kind == "string":
            if row["unit"] == "JSON":
                json.loads(example)
            continue
        assert type(json.loads(example)) in TYPES[kind], name


def test_the_limit_of_span_events_is_that_of_the_code() -> None:
    """Both places that name it say how many events a span keeps."""
    assert f"thinned to {trail.MOST}:" in PAGE
    assert f"| a span event beyond {trail.MOST} |" in PAGE
