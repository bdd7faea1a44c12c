"""A large request in JSON is read in parts, which hold together what it holds, each within the bounds of a small one."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monitor_parts import WALL, Parts

from otel_progress.monitor.intake import json_parts
from otel_progress.monitor.intake.request_queue import Job
from otel_progress.monitor.intake.requests import BYTES, LARGEST, Accepted, Acknowledgement, Envelope, Refused

MOST = 8_192
ODD = st.text(st.sampled_from('ab"\\[]{},:é'), max_size=20)


def request_with(shape: list[list[list[str]]]) -> dict[str, Any]:
    """A request with these resources, scopes and texts of records."""
    return {
        "resourceLogs": [
            {
                "resource": {"attributes": [{"key": "r", "value": {"intValue": str(at)}}]},
                "schemaUrl": "u[{",
                "scopeLogs": [
                    {"scope": {"name": f"s{inner}"}, "logRecords": [{"body": {"stringValue": text}} for text in texts]}
                    for inner, texts in enumerate(scopes)
                ],
            }
            for at, scopes in enumerate(shape)
        ]
    }


def flat(*requests: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The records with all that is around them, in order."""
    return [
        (about["resource"], about["schemaUrl"], scope["scope"], record)
        for request in requests
        for about in request["resourceLogs"]
        for scope in about["scopeLogs"]
        for record in scope["logRecords"]
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.lists(ODD.map(lambda text: text * 20), max_size=12), max_size=3), max_size=4), st.booleans()
)
def test_parts_hold_what_the_request_holds(shape: list[list[list[str]]], spaced: bool) -> None:
    """Each record is in one of them, in order, with its resource and scope, whatever its texts look like."""
    request = request_with(shape)
    body = json.dumps(request, indent=2 if spaced else None, ensure_ascii=spaced).encode()
    found = list(json_parts.parts(body, MOST))
    assert flat(*map(json.loads, found)) == flat(request)
    assert all(len(part) <= MOST for part in found)


def test_many_small_resources_share_parts() -> None:
    """A Collector sends for many programs at once."""
    request = request_with([[["x" * 50]]] * 200)
    found = list(json_parts.parts(json.dumps(request).encode(), 40_000))
    assert len(found) == 2
    assert flat(*map(json.loads, found)) == flat(request)


def test_what_fits_into_no_part_is_named() -> None:
    """A record, or what is around all of them; a head that many scopes would repeat is refused before it grows."""
    with pytest.raises(json_parts.TooLargePart, match="a record has 9"):
        list(json_parts.parts(json.dumps(request_with([[["x" * 9_000]]])).encode(), MOST))
    many = request_with([[["x"]] * 4])
    many["resourceLogs"][0]["resource"]["attributes"][0]["key"] = "k" * MOST
    with pytest.raises(json_parts.TooLargePart, match="all but the records has"):
        list(json_parts.parts(json.dumps(many).encode(), MOST))
    grows = request_with([[["x"]] * 12])
    grows["resourceLogs"][0]["resource"]["attributes"][0]["key"] = "k" * 6_000
    with pytest.raises(json_parts.TooLargePart, match="repeated too often"):
        list(json_parts.parts(json.dumps(grows).encode(), MOST))


@pytest.mark.parametrize("body", [b"[" * 10_000, b"]", b"{", b'{"a": nul}', b'{"resourceLogs": [', b"\xff", b'"'])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    """Whatever the brackets say."""
    with pytest.raises(json_parts.Unreadable):
        list(json_parts.parts(body, MOST))


def operations(count: int, size: int) -> bytes:
    """A request of many operations."""
    request = request_with([[[""] * count]])
    for number, record in enumerate(request["resourceLogs"][0]["scopeLogs"][0]["logRecords"]):
        given: dict[str, Any] = {"progress.operation.id": str(number), "progress.operation.name": "n"}
        given |= {"progress.status": "running", "progress.message": "x" * size}
        pairs: list[dict[str, Any]] = [{"key": key, "value": {"stringValue": text}} for key, text in given.items()]
        pairs.append({"key": "progress.sequence", "value": {"intValue": "1"}})
        pairs.append({"key": "progress.start_time", "value": {"doubleValue": WALL}})
        record |= {"eventName": "progress.updated", "timeUnixNano": str(round(WALL * 1e9)), "attributes": pairs}
    return json.dumps(request).encode()


@pytest.mark.parametrize("zipped", [False, True])
def test_large_request_in_json_is_taken(monitor: Parts, zipped: bool) -> None:
    """Above 4 MiB in parts, each of which is within the bounds of a small request."""
    body = operations(400, 15_000)
    assert BYTES < len(body) < LARGEST
    envelope = Envelope("logs", gzip.compress(body) if zipped else body, zipped=zipped, is_json=True)
    assert max(len(parcel.body) for parcel in envelope.parcels()) <= BYTES
    answers: list[Acknowledgement] = []
    monitor.core.work([Job(envelope, answers.append, True)])
    assert answers == [Accepted()]
    assert len(monitor.core.ledger.operations) == 400


def test_bomb_of_values_is_refused_before_it_is_parsed() -> None:
    """The whole request may hold as much as its parts."""
    body = b'{"resourceLogs": [' + b"{}," * (LARGEST // 4) + b"{}]}"
    with pytest.raises(Refused, match="objects"):
        list(Envelope("logs", body, is_json=True).parcels())
