"""A large request is read in parts, which hold together what it holds, each within the bounds of a small one."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monitor_parts import Parts, event_of
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from otel_progress import semconv as s
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Status
from otel_progress.monitor.intake import request_parts, requests
from otel_progress.monitor.intake.request_size import Malformed
from otel_progress.monitor.intake.requests import BYTES, LARGEST, Accepted, Envelope, Refused, count_records
from otel_progress.outbound import otlp


def body_of(shape: list[list[list[int]]]) -> ExportLogsServiceRequest:
    """A request with these resources, scopes and sizes of records."""
    message, number = ExportLogsServiceRequest(), 0
    for at, scopes in enumerate(shape):
        resource = message.resource_logs.add(schema_url="u")
        resource.resource.attributes.add(key="r").value.int_value = at
        for inner, records in enumerate(scopes):
            scope = resource.scope_logs.add()
            scope.scope.name = f"s{inner}"
            for size in records:
                number += 1
                scope.log_records.add(event_name=str(number)).body.string_value = "x" * size
    return message


def flat(*messages: ExportLogsServiceRequest) -> list[tuple[int, str, str, str]]:
    """The records with their resource and scope, in order."""
    return [
        (about.resource.attributes[0].value.int_value, about.schema_url, scope.scope.name, record.event_name)
        for message in messages
        for about in message.resource_logs
        for scope in about.scope_logs
        for record in scope.log_records
    ]


SHAPES = st.lists(st.lists(st.lists(st.integers(0, 300), max_size=20), max_size=5), max_size=5)


@settings(max_examples=60)
@given(SHAPES, st.integers(1_000, 4_000))
def test_parts_hold_everything_once(shape: list[list[list[int]]], most: int) -> None:
    """Each part is small enough, and all of them are the request: resources, scopes and order included."""
    whole = body_of(shape)
    found = list(request_parts.parts(whole.SerializeToString(), most))
    assert all(len(part) <= most for part in found)
    assert flat(*map(ExportLogsServiceRequest.FromString, found)) == flat(whole)


@given(st.binary(max_size=200))
def test_any_bytes_are_divided_or_malformed(body: bytes) -> None:
    """Bytes of anybody end in parts or in a word, never in another error."""
    try:
        assert b"".join(request_parts.parts(body, 16)) or not body
    except (Malformed, request_parts.TooLarge):
        pass


@pytest.mark.parametrize(
    ("shape", "resource", "words"),
    [([[[5_000]]], 1, "a record has 50"), ([[[100] * 50]], 900, "a resource has 9")],
)
def test_what_fits_into_no_part_is_named(shape: list[list[list[int]]], resource: int, words: str) -> None:
    """With its size and the limit."""
    whole = body_of(shape)
    whole.resource_logs[0].resource.attributes.add(key="x").value.string_value = "y" * resource
    with pytest.raises(request_parts.TooLarge, match=words):
        list(request_parts.parts(whole.SerializeToString(), 2_000))


def batch(count: int) -> bytes:
    """What a Collector that batches by items sends: events of many operations."""
    at = 1_700_000_000.0
    records = [
        event_of(
            Snapshot(str(number), "work", Status.RUNNING, at, sequence=1, started_at=at),
            s.OPERATION_STARTED,
            text="x" * 7_500,
        )
        for number in range(count)
    ]
    resource = otlp.resource({"service.instance.id": "p1"})
    return otlp.envelope(resource, otlp.scope(s.SCOPE, ""), records)


@pytest.mark.parametrize("zipped", [False, True])
def test_batch_of_a_collector_above_the_limit_of_a_part_is_taken(monitor: Parts, zipped: bool) -> None:
    """8,192 records at a time are not dropped; what is forwarded goes in parts, too."""
    monitor.options = {"forwards": ["logs"]}
    monitor.restart()
    body = batch(700)
    assert BYTES < len(body) < LARGEST
    seen: list[int] = []
    parse = requests.parse
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests, "parse", lambda signal, part, **more: seen.append(len(part)) or parse(signal, part))
        envelope = Envelope("logs", gzip.compress(body, 1) if zipped else body, zipped)
        answers: list[object] = []
        from otel_progress.monitor.intake.request_queue import Job

        monitor.core.work([Job(envelope, answers.append, True)])
    assert answers == [Accepted()]
    assert len(monitor.core.ledger.operations) == 700
    assert len(seen) > 1
    assert max(seen) <= BYTES
    assert [len(one) <= BYTES for _, one in monitor.store.outgoing("logs", LARGEST)] == [True] * len(seen)


def test_limits_of_the_whole_request(monitor: Parts) -> None:
    """Above 16 MiB, in whatever encoding, the answer names the limit and what to do."""
    zeros = gzip.compress(bytes(LARGEST + 1), 1)
    with pytest.raises(Refused, match=f"larger than {LARGEST} bytes; send smaller batches"):
        list(Envelope("logs", zeros, zipped=True).parcels())
    for is_json in (False, True):
        with pytest.raises(Refused, match=f"a request may have {LARGEST} bytes"):
            monitor.core.offer(Envelope("logs", bytes(LARGEST + 1), is_json=is_json), lambda _: None)


BOMBS = {
    "records": otlp.chunk(1, otlp.chunk(2, b"\x12\x00" * (LARGEST // 2 - 64))),
    "groups": b"\x0a\x00" * (LARGEST // 2),
    "scopes": otlp.chunk(1, b"\x12\x00" * (LARGEST // 2 - 64)),
    "unknown fields of a request": b"\x7a\x00" * (LARGEST // 2),
    "unknown fields of a scope": otlp.chunk(1, otlp.chunk(2, b"\x78\x00" * (LARGEST // 2 - 64))),
}


@pytest.mark.parametrize("name", BOMBS)
def test_request_of_very_many_tiny_parts_is_refused_by_its_bytes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 MiB of empty records, groups or fields pack into 16 kB: nothing of them is divided or built."""
    monkeypatch.setattr(requests, "REQUESTS", {})
    monkeypatch.setattr(request_parts, "_Field", None)
    envelope = Envelope("logs", gzip.compress(BOMBS[name], 1), zipped=True)
    with pytest.raises(Refused, match=r"the request holds more|fields around its records"):
        list(envelope.parcels())
    with pytest.raises(Refused, match=r"the request holds more|fields around its records"):
        envelope.check()


def test_part_of_a_large_request_may_have_as_many_records_as_a_small_one() -> None:
    """A large request may have the records of each of its parts, not only those of one."""
    records = b"".join(otlp.chunk(2, otlp.chunk(3, b"x" * 80)) for _ in range(requests.RECORDS + 100))
    body = otlp.chunk(1, otlp.chunk(2, records))
    assert BYTES < len(body) < LARGEST
    parcels = list(Envelope("logs", body).parcels())
    assert sum(count_records(one.body, requests.RECORDS)[0] for one in parcels) >= requests.RECORDS + 100
