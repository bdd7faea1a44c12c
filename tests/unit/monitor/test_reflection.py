"""A client of gRPC's server reflection learns OTLP's services from the monitor, and can call them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from hypothesis import given
from hypothesis import strategies as st
from tests.stress.served import Served, serving

from otel_progress.monitor.intake import reflection
from otel_progress.monitor.intake.grpc import SERVICES

grpc = pytest.importorskip("grpc")
LOGS = "opentelemetry.proto.collector.logs.v1.LogsService"


@pytest.fixture(scope="module")
def monitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A monitor that serves."""
    with serving(tmp_path_factory.mktemp("reflection"), grpc_port=0) as found:
        yield found


def ask(**request: Any) -> Any:
    """The response to one request, without a server."""
    raw = ServerReflectionRequest(host="h", **request).SerializeToString()
    found = ServerReflectionResponse.FromString(reflection.respond(raw, SERVICES))
    assert found.original_request.SerializeToString() == raw
    return found


def test_client_builds_a_request_from_what_it_learns(monitor: Served) -> None:
    """The official client finds service, method and messages, and sends a request that the monitor takes."""
    with grpc.insecure_channel(f"127.0.0.1:{monitor.monitor.grpc_port}") as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(database.get_services()) == set(SERVICES)
        pool = descriptor_pool.DescriptorPool(database)
        method = pool.FindServiceByName(LOGS).FindMethodByName("Export")
        kind, answer = (message_factory.GetMessageClass(one) for one in (method.input_type, method.output_type))
        request = kind()
        record = request.resource_logs.add().scope_logs.add().log_records.add(event_name="progress.updated")
        for key, value in {"id": "by-reflection", "name": "job"}.items():
            record.attributes.add(key=f"progress.operation.{key}").value.string_value = value
        record.attributes.add(key="progress.status").value.string_value = "running"
        record.attributes.add(key="progress.start_time").value.double_value = 1_700_000_000.0
        record.attributes.add(key="progress.sequence").value.int_value = 1
        said = channel.unary_unary(f"/{LOGS}/Export")(request.SerializeToString(), timeout=20)
        assert not answer.FromString(said).HasField("partial_success")
    assert monitor.detail("by-reflection")["status"] == "running"


def test_version_1_answers_as_its_alpha(monitor: Served) -> None:
    """Both names of the service have the same method, and no other."""
    request = ServerReflectionRequest(list_services="*").SerializeToString()
    with grpc.insecure_channel(f"127.0.0.1:{monitor.monitor.grpc_port}") as channel:
        for service in reflection.SERVICES:
            call = channel.stream_stream(f"/{service}/{reflection.METHOD}")(iter([request, request]), timeout=20)
            names = [[one.name for one in ServerReflectionResponse.FromString(raw).list_services_response.service]
                     for raw in call]  # fmt: skip
            assert names == [list(SERVICES)] * 2
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(f"/{service}/Other")(b"", timeout=20)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_idle_call_ends(monitor: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that keeps a call open without asking is not waited for."""
    monkeypatch.setattr(reflection, "SECONDS", 0.1)
    never = threading.Event()
    with grpc.insecure_channel(f"127.0.0.1:{monitor.monitor.grpc_port}") as channel:
        (service, *_) = reflection.SERVICES
        waiting = (b"" for _ in iter(never.wait, True))
        assert list(channel.stream_stream(f"/{service}/{reflection.METHOD}")(waiting, timeout=20)) == []
        never.set()


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"file_containing_symbol": "google.protobuf.Struct"}, reflection.NOT_FOUND),
        ({"file_containing_symbol": "no.such.Thing"}, reflection.NOT_FOUND),
        ({"file_by_filename": "../etc/passwd"}, reflection.NOT_FOUND),
        ({"file_by_filename": "x" * 2_000}, reflection.UNIMPLEMENTED),
        ({"all_extension_numbers_of_type": "a"}, reflection.UNIMPLEMENTED),
        ({}, reflection.UNIMPLEMENTED),
    ],
)
def test_nothing_but_otlp_is_described(request_: dict[str, Any], code: int) -> None:
    """Other files of the process are not found, and what cannot be answered is an error in its response."""
    raw = ServerReflectionRequest(**request_).SerializeToString()
    assert ServerReflectionResponse.FromString(reflection.respond(raw, SERVICES)).error_response.error_code == code


def test_file_comes_with_what_it_needs() -> None:
    """The file of a symbol is the first, and those that it needs follow once each; by its name it is the same."""
    found = ask(file_containing_symbol=f"{LOGS}.Export").file_descriptor_response.file_descriptor_proto
    again = ask(file_by_filename="opentelemetry/proto/collector/logs/v1/logs_service.proto")
    assert list(found) == list(again.file_descriptor_response.file_descriptor_proto)
    pool = descriptor_pool.DescriptorPool()
    for raw in reversed(found):
        pool.AddSerializedFile(raw)
    assert pool.FindServiceByName(LOGS).full_name == LOGS
    assert len(set(found)) == len(found) == 4


@given(st.binary(max_size=300))
def test_any_bytes_are_answered(raw: bytes) -> None:
    """Whatever is sent, the response is one that a client can read."""
    assert ServerReflectionResponse.FromString(reflection.respond(raw, SERVICES)).WhichOneof("message_response")
