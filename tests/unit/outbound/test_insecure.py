"""`OTEL_EXPORTER_OTLP_INSECURE`: whether a gRPC endpoint without a scheme is reached with TLS; against real servers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from otel_progress.outbound.grpc_transport import METHODS
from otel_progress.outbound.transport import connect
from otel_progress.settings import read

SECURE, PLAIN = True, False


@contextmanager
def receiver(authority: trustme.CA | None) -> Iterator[tuple[int, list[str]]]:
    """A gRPC server that takes every export, with TLS if there is an authority; its port, and what was called."""
    called: list[str] = []

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            def take(body: bytes, _: Any) -> bytes:
                called.append(details.method)
                return b""

            return grpc.unary_unary_rpc_method_handler(take)

    server = grpc.server(ThreadPoolExecutor(2), handlers=[Handler()])
    if authority is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        issued = authority.issue_cert("127.0.0.1")
        pair = issued.private_key_pem.bytes(), b"".join(part.bytes() for part in issued.cert_chain_pems)
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    try:
        yield port, called
    finally:
        server.stop(0).wait(20)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def variables(signal: str, port: int, scheme: str, tmp_path: Path, authority: trustme.CA) -> dict[str, str]:
    """The environment of a process that sends a signal over gRPC to this port, and knows the authority."""
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(file)
    return {
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT": f"{scheme}127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(file),
    }


@pytest.mark.parametrize(
    ("scheme", "insecure", "speaks"),
    [
        ("", {}, SECURE),
        ("", {"": "false"}, SECURE),
        ("", {"": "true"}, PLAIN),
        ("", {"LOGS_": "true"}, PLAIN),
        ("", {"": "true", "LOGS_": "false"}, SECURE),
        ("", {"TRACES_": "true"}, SECURE),
        ("http://", {}, PLAIN),
        ("http://", {"": "false"}, PLAIN),
        ("https://", {}, SECURE),
        ("https://", {"": "true", "LOGS_": "true"}, SECURE),
    ],
)
def test_insecure_decides_only_without_a_scheme(
    scheme: str, insecure: dict[str, str], speaks: bool, tmp_path: Path, authority: trustme.CA
) -> None:
    """The server that speaks TLS gets the request exactly if TLS is used, the one that does not exactly if it is not."""
    for server in (SECURE, PLAIN):
        with receiver(authority if server is SECURE else None) as (port, called):
            environ = variables("logs", port, scheme, tmp_path, authority)
            environ |= {f"OTEL_EXPORTER_OTLP_{name}INSECURE": value for name, value in insecure.items()}
            transport = connect("logs", read(environ=environ).endpoints["logs"])
            answer = transport.send(b"")
            transport.close()
            assert answer.delivered is (server is speaks)
            assert called == [METHODS["logs"]] * answer.delivered


@pytest.mark.parametrize("signal", ["traces", "metrics", "logs"])
def test_each_signal_has_a_variable_of_its_own(signal: str, tmp_path: Path, authority: trustme.CA) -> None:
    """`OTEL_EXPORTER_OTLP_TRACES_INSECURE` and its like hold for their signal."""
    with receiver(None) as (port, called):
        environ = variables(signal, port, "", tmp_path, authority)
        environ[f"OTEL_EXPORTER_OTLP_{signal.upper()}_INSECURE"] = "true"
        transport = connect(signal, read(environ=environ).endpoints[signal])
        assert transport.send(b"").delivered
        transport.close()
        assert called == [METHODS[signal]]


def test_tls_to_a_plain_server_says_what_to_do(tmp_path: Path, authority: trustme.CA) -> None:
    """The log names the cure if an address without a scheme meets a receiver without TLS."""
    with receiver(None) as (port, _):
        endpoint = read(environ=variables("logs", port, "", tmp_path, authority)).endpoints["logs"]
        transport = connect("logs", endpoint)
        trouble = transport.send(b"").trouble
        transport.close()
    assert trouble is not None
    assert trouble.text.startswith(
        f"127.0.0.1:{port} speaks no TLS: write http://127.0.0.1:{port}, or set OTEL_EXPORTER_OTLP_INSECURE=true"
    )
