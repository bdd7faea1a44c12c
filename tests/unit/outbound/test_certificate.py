"""The certificate: one event and the spans that can't come any more, as the process itself would have sent them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

import otel_progress as progress
from otel_progress import semconv as s
from otel_progress.model import wire
from otel_progress.model.snapshot import Progress, Snapshot, SpanIds, StageSnapshot
from otel_progress.model.status import Status
from otel_progress.model.values import Attributes
from otel_progress.monitor.intake import records, requests
from otel_progress.monitor.state.ledger import lose
from otel_progress.outbound.certificate import Certificate, Exit, certify
from otel_progress.testing import Capture

KILLED = Exit(signal="SIGKILL")
RESOURCE = {"service.name": "job", "service.instance.id": "p1", "process.pid": 7, "flags": ["a", "b"]}


def stage(path: str, span_id: str | None, status: Status = Status.RUNNING, at: float = 101.0) -> StageSnapshot:
    """A stage whose name is the end of its path."""
    return StageSnapshot(path.rpartition("/")[2], path, status, started_at=at, span_id=span_id, message="now")


def running(**more: Any) -> Snapshot:
    """An operation with a stage in a stage."""
    given: dict[str, Any] = {
        "started_at": 100.0,
        "sequence": 8,
        "stage": "outer/inner",
        "message": "reading",
        "progress": Progress(4, 10, "file"),
        "agent": "reader",
        "parent_id": "whole",
        "attributes": Attributes(team="blue", sizes=(1, 2)),
        "outcomes": Attributes(ok=4),
        "stages": (
            stage("first", None, Status.COMPLETED),
            stage("outer", "aa" * 8),
            stage("outer/inner", "bb" * 8, at=102.0),
        ),
        "span": SpanIds("11" * 16, "22" * 8, "33" * 8, True, True, 100 * 10**9),
        **more,
    }
    return Snapshot("a", "read", Status.RUNNING, 105.0, **given)


def spans(certificate: Certificate) -> dict[str, Span]:
    """Name to span."""
    message = ExportTraceServiceRequest.FromString(certificate.traces)
    return {span.name: span for span in message.resource_spans[0].scope_spans[0].spans}


def plain(pairs: Any) -> dict[str, Any]:
    """Attributes as a dict."""
    return records.to_dict(pairs)


def made(exit: Exit = KILLED, **more: Any) -> Certificate:
    """The certificate of one that went at 110 s."""
    return certify(lose(running(**more), exit.reason, 110.0), exit, RESOURCE, 111 * 10**9)


def test_event_is_one_of_ours() -> None:
    """The event reads back as the lost snapshot, with how the process ended, under the original ids and resource."""
    parcel = requests.parse("logs", made(Exit(3, stderr="boom")).logs)
    (group,) = records.groups(parcel)
    (record,) = group.records
    assert group.resource == RESOURCE
    assert group.scope == s.SCOPE
    assert (record.event, record.time, record.sampled) == (s.OPERATION_ENDED, 110 * 10**9, True)
    found = wire.from_attributes(record.attributes, 110.0, record.trace_id, record.span_id)
    assert found == lose(running(), "its process ended with exit code 3", 110.0)
    assert record.attributes[s.EXIT_CODE] == 3
    assert record.attributes[s.EXIT_STDERR] == "boom"
    message = ExportLogsServiceRequest.FromString(made().logs)
    log = message.resource_logs[0].scope_logs[0].log_records[0]
    assert log.severity_text == "ERROR"
    assert log.body.string_value == "read lost after 5 s, 4 of 10 files (its process was killed by SIGKILL)"
    assert log.observed_time_unix_nano == 111 * 10**9


def test_spans_close_the_trace() -> None:
    """Root and open stages have their original ids, parents and starts, and end as errors when the process went."""
    found = spans(made())
    assert set(found) == {"read", "outer", "inner"}
    root, outer, inner = found["read"], found["outer"], found["inner"]
    assert (root.span_id.hex(), root.parent_span_id.hex()) == ("22" * 8, "33" * 8)
    assert (outer.span_id.hex(), outer.parent_span_id) == ("aa" * 8, root.span_id)
    assert (inner.span_id.hex(), inner.parent_span_id) == ("bb" * 8, outer.span_id)
    assert [span.start_time_unix_nano // 10**9 for span in (root, outer, inner)] == [100, 101, 102]
    for span in found.values():
        assert span.trace_id.hex() == "11" * 16
        assert (span.end_time_unix_nano, span.kind) == (110 * 10**9, Span.SPAN_KIND_INTERNAL)
        assert (span.status.code, span.status.message) == (2, "its process was killed by SIGKILL")
    assert (root.flags, outer.flags) == (0x300, 0x100)
    about = plain(root.attributes)
    assert (
        about
        | {
            s.STATUS: "lost",
            s.OPERATION_ID: "a",
            s.OPERATION_PARENT_ID: "whole",
            s.STAGE_CURRENT: "outer/inner",
            s.MESSAGE: "reading",
            s.COMPLETED: 4,
            s.TOTAL: 10,
            s.GEN_AI_AGENT: "reader",
            s.EXIT_SIGNAL: "SIGKILL",
            "team": "blue",
            "sizes": [1, 2],
        }
        == about
    )
    assert plain(inner.attributes) == {
        s.OPERATION_ID: "a",
        s.OPERATION_NAME: "read",
        s.STAGE_PATH: "outer/inner",
        s.STATUS: "lost",
        s.MESSAGE: "now",
    }
    message = ExportTraceServiceRequest.FromString(made().traces)
    assert plain(message.resource_spans[0].resource.attributes) == RESOURCE


def test_spans_are_those_that_the_process_would_have_sent(progress_capture: Capture) -> None:
    """Ids, parents, starts, kinds and the attributes that both have are equal to those of the real spans."""
    with progress.operation("read", id="a", total=10, attributes={"team": "blue"}) as operation:
        operation.advance(2)
        progress_capture.advance(1)
        with progress.stage("outer", total=3) as outer:
            outer.advance()
            with progress.stage("inner"):
                operation.update(message="reading")
                progress_capture.advance(2)
                snapshot = progress_capture.events[-1].snapshot
    real = {span.name: span for span in progress_capture.spans}
    found = spans(certify(lose(snapshot, "gone"), Exit(), RESOURCE, 0))
    assert set(real) == set(found)
    for name, span in real.items():
        copy, ids = found[name], span.get_span_context()
        assert ids is not None
        assert (copy.trace_id.hex(), copy.span_id.hex()) == (f"{ids.trace_id:032x}", f"{ids.span_id:016x}")
        assert copy.parent_span_id.hex() == (f"{span.parent.span_id:016x}" if span.parent else "")
        assert abs(copy.start_time_unix_nano - (span.start_time or 0)) < 1000
        about, attributes = plain(copy.attributes), dict(span.attributes or {})
        about.pop(s.STAGE_PATH, None)
        attributes.pop(s.STAGE_PATH, None)
        assert {**attributes, s.STATUS: "lost"} | about == about


def test_trace_that_is_not_sampled_gets_no_span() -> None:
    """The spans would be the only ones of their trace."""
    for span in (None, SpanIds("11" * 16, "22" * 8, sampled=False)):
        certificate = made(span=span)
        assert certificate.traces == b""
        assert certificate.logs


def test_stages_that_ended_have_sent_their_spans() -> None:
    """Only a stage that was open gets a span; one whose outer stage is over hangs on the root."""
    stages = (stage("outer", "aa" * 8, Status.COMPLETED), stage("outer/inner", "bb" * 8), stage("plain", None))
    found = spans(made(stages=stages))
    assert set(found) == {"read", "inner"}
    assert found["inner"].parent_span_id.hex() == "22" * 8


def test_of_stages_with_one_path_the_last_one_before_is_the_outer_one() -> None:
    """Where two open stages have the same path, the outer one is the last that started before the inner."""
    stages = (
        stage("outer", "aa" * 8, at=101.0),
        stage("outer", "cc" * 8, at=103.0),
        stage("outer/inner", "bb" * 8, at=102.0),
        stage("outer/other", "dd" * 8, at=104.0),
    )
    found = spans(made(stages=stages))
    assert found["inner"].parent_span_id.hex() == "aa" * 8
    assert found["other"].parent_span_id.hex() == "cc" * 8


@pytest.mark.parametrize(
    ("exit", "reason", "attributes"),
    [
        (Exit(), "its process is gone", {}),
        (Exit(code=0), "its process ended with exit code 0", {s.EXIT_CODE: 0}),
        (
            Exit(signal="SIGKILL", out_of_memory=True),
            "its process was killed by SIGKILL, out of memory",
            {s.EXIT_SIGNAL: "SIGKILL", s.EXIT_OUT_OF_MEMORY: True},
        ),
        (Exit(out_of_memory=False, stderr=""), "its process is gone", {s.EXIT_OUT_OF_MEMORY: False}),
    ],
)
def test_exit_in_words_and_attributes(exit: Exit, reason: str, attributes: dict[str, Any]) -> None:
    """What is known of the exit is said; what is not known is left out."""
    assert (exit.reason, exit.attributes) == (reason, attributes)


def test_stderr_is_bounded() -> None:
    """Of a long stderr the end is kept."""
    assert Exit(stderr="a" * 100_000 + "z").attributes[s.EXIT_STDERR] == "a" * 16_383 + "z"


def test_attributes_of_any_kind_are_made_safe() -> None:
    """What another sender put into its JSON harms nothing."""
    odd: Any = Attributes({"deep": {"a": [1]}, "none": None, "mixed": [1, "a"], "long": "x" * 10**6})
    root = spans(made(attributes=odd))["read"]
    about = plain(root.attributes)
    assert about["deep"] == '{"a": [1]}'
    assert "none" not in about
    assert about["mixed"] == ["1", "a"]
    assert len(about["long"]) == 16_384


def test_page_has_what_a_certificate_says() -> None:
    """The page of the conventions has each attribute of a certificate, with its type."""
    page = (Path(__file__).parents[3] / "docs" / "semantic-conventions.md").read_text(encoding="utf-8")
    lines = [[cell.strip(" `") for cell in line.split("|")] for line in page.splitlines() if "| certificate |" in line]
    kinds = {"string": str, "int": int, "boolean": bool}
    exit = Exit(3, "SIGKILL", True, "boom")
    said = {s.EXIT: exit.label, **exit.attributes}
    assert {line[1]: kinds[line[2]] for line in lines} == {key: type(value) for key, value in said.items()}


def test_certificate_tells_what_the_stage_had() -> None:
    """Where the operation counted nothing itself, its end says 12 of 20 in the stage, and not 0%."""
    counted = replace(stage("load", "aa" * 8), progress=Progress(12, 20, "row", 0.6))
    known = running(stage="load", stages=(counted,), progress=Progress(None, None, "item", 0.0, 0.0))
    lost = lose(known, KILLED.reason)
    certificate = certify(lost, KILLED, RESOURCE, 1)
    record = ExportLogsServiceRequest.FromString(certificate.logs).resource_logs[0].scope_logs[0].log_records[0]
    said = "read lost after 0 s, 12 of 20 rows, 60% in load (its process was killed by SIGKILL)"
    assert record.body.string_value == said
    assert s.RATIO not in {pair.key for pair in record.attributes}
    about = {pair.key: pair.value for pair in spans(certificate)["read"].attributes}
    assert (about[s.COMPLETED].int_value, about[s.TOTAL].int_value) == (12, 20)
    assert (about[s.UNIT].string_value, about[s.STAGE_PATH].string_value) == ("row", "load")
