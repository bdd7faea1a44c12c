"""`otel-progress doctor` against real servers with one fault each: it finds exactly that fault."""

from __future__ import annotations

import io
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import certifi
import pytest
import trustme

from otel_progress.cli.doctor import connection
from otel_progress.cli.doctor.backends import all_three
from otel_progress.cli.doctor.command import doctor
from otel_progress.cli.doctor.configuration import DoctorOptions, settings_of
from otel_progress.cli.doctor.end_to_end import ProbeProcess, _tell_sent, find
from otel_progress.cli.doctor.findings import KINDS
from otel_progress.cli.doctor.report import Report

from .program import environment
from .receiver import ENDLESS, GARBAGE, NO_ANSWER, RESET, Answer, Receiver

TOKEN = "s3cret-t0ken-of-mine"
HTTP, GRPC = "http/protobuf", "grpc"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Isolate the tests from the machine's own proxies and certificate authorities."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "curl_ca_bundle"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def examine(endpoint: str, protocol: str = HTTP, timeout: float = 20.0, **more: Any) -> dict[str, Any]:
    """Return the report on an endpoint; lower-case arguments are options, upper-case ones variables."""
    out = io.StringIO()
    # Ignore programs at the usual ports of this machine.
    options = {"prometheus": "none", "loki": "none", "tempo": "none"}
    options |= {key: value for key, value in more.items() if key.islower()}
    env = {key: str(value) for key, value in more.items() if key.isupper()}
    env = {ENDPOINT: endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol, **env}
    code = doctor(DoctorOptions(timeout=timeout, **options), environment(**env), out, as_json=True)
    report: dict[str, Any] = json.loads(out.getvalue())
    assert code == (0 if report["ok"] else 1)
    assert TOKEN not in out.getvalue()
    return report


def found(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the findings, code to line; each has its fix, filled in."""
    lines = {line["code"]: line for line in report["lines"] if "code" in line}
    for code, line in lines.items():
        assert line["fix"], code
        assert "{" not in line["fix"].replace("{out_of", "").replace("{trans", ""), line["fix"]
    return lines


def levels(report: dict[str, Any], step: str) -> list[str]:
    """Return the levels of the lines of a step."""
    return [line["level"] for line in report["lines"] if line["step"] == step]


class _Web(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        status, headers, given, ahead = self.server.answer  # type: ignore[attr-defined]
        path = self.path.partition("?")[0]
        body = next((body for start, body in given.items() if path.startswith(start)), b"")
        self.send_response_only(status)
        when = datetime.now(timezone.utc) + timedelta(seconds=ahead)
        self.send_header("Date", when.strftime("%a, %d %b %Y %H:%M:%S GMT"))
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Do not log requests."""

    def handle(self) -> None:
        with suppress(OSError):
            super().handle()


@contextmanager
def web(
    status: int = 200,
    headers: dict[str, str] | None = None,
    body: bytes | dict[str, bytes] = b"",
    *,
    ahead: float = 0.0,
    tls: ssl.SSLContext | None = None,
) -> Iterator[str]:
    """An HTTP/1.1 server that gives one response to all, or one by the start of the path; returns host and port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Web)
    server.answer = (status, headers or {}, body if isinstance(body, dict) else {"": body}, ahead)  # type: ignore[attr-defined]
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


# -- all is well


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
def test_all_is_well(protocol: str) -> None:
    """With a receiver that accepts everything there is no finding, and it got start, update, end, span and series."""
    with Receiver(protocol) as receiver:
        report = examine(receiver.endpoint, protocol)
        assert not found(report)
        assert report["ok"]
        names = [log.name for log in receiver.logs if log.operation == report["operation"]]
        assert {"progress.operation.started", "progress.updated", "progress.operation.ended"} <= set(names)
        assert "otel_progress.doctor" in [span.name for span in receiver.spans]
        ids = {point.attributes.get("progress.operation.id") for point in receiver.points}
        assert report["operation"] in ids
        active = receiver.values("progress.run.active")
        assert (active[0], active[-1]) == (1.0, 0.0)
        assert receiver.values("progress.operation.started", name="otel_progress.doctor")[-1] == 1.0
    assert levels(report, "test operation") == ["ok", "ok", "ok"]
    assert levels(report, "endpoint") == ["ok", "ok", "ok"]


def test_each_run_is_another_operation() -> None:
    """Two runs have two ids."""
    with Receiver(listening=False) as receiver:
        assert examine(receiver.endpoint)["operation"] != examine(receiver.endpoint)["operation"]


# -- connections


def test_name_that_does_not_resolve() -> None:
    """An unknown host name is reported by name."""
    report = examine("http://collector.invalid:4318")
    assert set(found(report)) == {"name_unknown"}
    assert "collector.invalid" in found(report)["name_unknown"]["text"]
    assert ENDPOINT in found(report)["name_unknown"]["fix"]


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
def test_nothing_listens(protocol: str) -> None:
    """A refused connection is one finding for all signals, and nothing is sent."""
    with Receiver(protocol, listening=False) as receiver:
        report = examine(receiver.endpoint, protocol)
    assert set(found(report)) == {"refused"}
    assert found(report)["refused"]["signals"] == ["logs", "metrics", "traces"]
    assert "otelcol" in found(report)["refused"]["fix"]
    assert levels(report, "test operation") == ["note"]


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
def test_no_connection_in_time(protocol: str) -> None:
    """An address that accepts no connection is unreachable."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(8):  # nobody accepts them, so the queue is full and the system no longer responds
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        report = examine(f"http://127.0.0.1:{server.getsockname()[1]}", protocol)
    assert set(found(report)) == {"unreachable"}


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
def test_no_answer_in_time(protocol: str) -> None:
    """A server that accepts connections and requests, and never responds, hangs."""
    with Receiver(protocol) as receiver:
        receiver.fail(NO_ANSWER)
        report = examine(receiver.endpoint, protocol)
    assert set(found(report)) == {"hangs"}


def test_silent_socket() -> None:
    """Over HTTP, a port that accepts and says nothing at all hangs."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert set(found(examine(f"http://127.0.0.1:{server.getsockname()[1]}"))) == {"hangs"}


def test_http_to_the_port_of_grpc() -> None:
    """HTTP sent to a gRPC server is recognised by the server's HTTP/2."""
    with Receiver(GRPC) as receiver:
        report = examine(receiver.endpoint, HTTP)
    assert set(found(report)) == {"port_of_grpc"}
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in found(report)["port_of_grpc"]["fix"]


def test_grpc_to_the_port_of_http() -> None:
    """gRPC sent to an HTTP server is recognised by the server's HTTP/1."""
    with Receiver(HTTP) as receiver:
        report = examine(receiver.endpoint, GRPC)
    assert set(found(report)) == {"port_of_http"}
    assert "http/protobuf" in found(report)["port_of_http"]["fix"]


def test_speakers_are_told_apart() -> None:
    """HTTP/1, HTTP/2 and TLS are recognised, a silent port is not."""
    with Receiver(GRPC) as receiver:
        assert connection.speaker("127.0.0.1", receiver.port, 5.0) == connection.HTTP_2
    with web() as where:
        assert connection.speaker("127.0.0.1", int(where.rpartition(":")[2]), 5.0) == connection.HTTP_1
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert connection.speaker("127.0.0.1", server.getsockname()[1], 0.2) is None


@pytest.mark.parametrize("endpoint", ["http://", "http:///v1"])
def test_no_address(endpoint: str) -> None:
    """An endpoint without a host is reported as no address."""
    assert set(found(examine(endpoint))) == {"address"}


def test_invalid_port() -> None:
    """An endpoint with an invalid port is not used, as `configure()` would not use it, and the report says so."""
    assert "value_ignored" in set(found(examine("http://host:notaport")))


# -- answers


ANSWERS: dict[str, tuple[str, int, dict[str, str], bytes]] = {
    "401": ("unauthorized", 401, {"WWW-Authenticate": 'Bearer realm="x"'}, b""),
    "403": ("forbidden", 403, {}, b"no"),
    "404": ("path", 404, {}, b"404 page not found"),
    "405": ("path", 405, {}, b""),
    "413": ("too_large", 413, {}, b""),
    "415": ("refused_data", 415, {}, b""),
    "421": ("other_name", 421, {}, b"no"),
    "429": ("busy", 429, {"Retry-After": "7"}, b""),
    "503": ("busy", 503, {}, b""),
    "502": ("gateway", 502, {}, b"<html>bad gateway</html>"),
    "504": ("gateway", 504, {}, b""),
    "500": ("failed", 500, {}, b"boom"),
    "301": ("redirected", 301, {"Location": f"https://user:{TOKEN}@elsewhere.example/x?key={TOKEN}"}, b""),
    "page": ("web_page", 200, {"Content-Type": "text/html; charset=utf-8"}, b"<!doctype html><p>hello"),
    "text": ("not_otlp", 200, {"Content-Type": "text/plain"}, b"hello"),
    "bytes": ("not_otlp", 200, {"Content-Type": "application/x-protobuf"}, b"\xff\xff"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_answers_of_http(case: str) -> None:
    """Each response that is not an acceptance is named correctly, for all signals."""
    code, status, headers, body = ANSWERS[case]
    with web(status, headers, body) as where:
        report = examine(f"http://{where}")
    assert set(found(report)) == {code}
    assert not report["ok"]


@pytest.mark.parametrize(
    ("given", "word"), [("", "no header authorization"), (f"authorization=Bearer%20{TOKEN}", "not accepted")]
)
def test_401_says_which_header(given: str, word: str) -> None:
    """A 401 reports whether the header authorization was missing or refused, and never shows its value."""
    with web(401, body=f"you sent Bearer {TOKEN}".encode()) as where:
        report = examine(f"http://{where}", OTEL_EXPORTER_OTLP_HEADERS=given)
    assert word in found(report)["unauthorized"]["text"]


def test_retry_after_is_told() -> None:
    """For a busy receiver the finding says when to retry."""
    with web(429, {"Retry-After": "7"}) as where:
        assert "again after 7 s" in found(examine(f"http://{where}"))["busy"]["text"]


@pytest.mark.parametrize(("status", "code"), [(401, "unauthorized"), (404, "path"), (429, "busy"), (503, "busy")])
def test_answers_of_grpc(status: int, code: str) -> None:
    """gRPC codes have the meaning of the corresponding HTTP codes."""
    with Receiver(GRPC) as receiver:
        receiver.fail(status)
        report = examine(receiver.endpoint, GRPC)
    assert set(found(report)) == {code}


@pytest.mark.parametrize("status", [RESET, GARBAGE, ENDLESS])
def test_answers_that_are_none(status: int) -> None:
    """A reset, bytes that are not HTTP, and a body without an end are not OTLP responses."""
    with Receiver(HTTP) as receiver:
        receiver.fail(status)
        assert set(found(examine(receiver.endpoint))) == {"not_otlp"}


def test_one_signal_without_a_pipeline() -> None:
    """If one signal has no path, it is named, and the others go on."""
    with Receiver(HTTP) as receiver:
        receiver.answer = lambda signal: Answer(404 if signal == "logs" else 200)
        report = examine(receiver.endpoint)
    assert set(found(report)) == {"path"}
    assert found(report)["path"]["signals"] == ["logs"]
    assert "logs" in found(report)["path"]["fix"]
    assert levels(report, "test operation") == ["ok", "ok"]


# -- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """An authority that is not trusted by default."""
    return trustme.CA()


def served(cert: trustme.LeafCert, client: trustme.CA | None = None) -> ssl.SSLContext:
    """Return the server's side; with a client's authority it requires a client certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    cert.configure_cert(context)
    if client is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        client.configure_trust(context)
    return context


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path) -> str:
    """Return the file with the authority's certificate."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def test_trusted_certificate_is_no_finding(authority: trustme.CA, trusted: str) -> None:
    """With the authority's file a private certificate is fine."""
    with web(tls=served(authority.issue_cert("127.0.0.1"))) as where:
        assert not found(examine(f"https://{where}", OTEL_EXPORTER_OTLP_CERTIFICATE=trusted))


def test_untrusted_certificate(authority: trustme.CA) -> None:
    """A certificate of an unknown authority is reported as such."""
    with web(tls=served(authority.issue_cert("127.0.0.1"))) as where:
        report = examine(f"https://{where}")
    assert set(found(report)) == {"certificate_untrusted"}
    assert "OTEL_EXPORTER_OTLP_CERTIFICATE" in found(report)["certificate_untrusted"]["fix"]


def test_expired_certificate(authority: trustme.CA, trusted: str) -> None:
    """An expired certificate is reported as such."""
    before = datetime.now(timezone.utc)
    cert = authority.issue_cert(
        "127.0.0.1", not_before=before - timedelta(days=9), not_after=before - timedelta(days=1)
    )
    with web(tls=served(cert)) as where:
        report = examine(f"https://{where}", OTEL_EXPORTER_OTLP_CERTIFICATE=trusted)
    assert set(found(report)) == {"certificate_expired"}


def test_certificate_of_another_name(authority: trustme.CA, trusted: str) -> None:
    """A certificate for another name is reported as such."""
    with web(tls=served(authority.issue_cert("other.example"))) as where:
        report = examine(f"https://{where}", OTEL_EXPORTER_OTLP_CERTIFICATE=trusted)
    assert set(found(report)) == {"certificate_name"}


def test_client_certificate_is_wanted(authority: trustme.CA, trusted: str, tmp_path: Path) -> None:
    """A server that requires a client certificate is reported; with an accepted one all is well."""
    pem = tmp_path / "client.pem"
    authority.issue_cert("job@example.org").private_key_and_cert_chain_pem.write_to_path(str(pem))
    with web(tls=served(authority.issue_cert("127.0.0.1"), authority)) as where:
        without = examine(f"https://{where}", OTEL_EXPORTER_OTLP_CERTIFICATE=trusted)
        with_it = examine(
            f"https://{where}",
            OTEL_EXPORTER_OTLP_CERTIFICATE=trusted,
            OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE=str(pem),
            OTEL_EXPORTER_OTLP_CLIENT_KEY=str(pem),
        )
    assert set(found(without)) == {"client_certificate"}
    assert not found(with_it)


def test_authorities_of_another_variable(authority: trustme.CA, trusted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenTelemetry's variable takes precedence over REQUESTS_CA_BUNDLE; without it, that one is named."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
    with web(tls=served(authority.issue_cert("127.0.0.1"))) as where:
        named = examine(f"https://{where}", OTEL_EXPORTER_OTLP_CERTIFICATE=trusted)
        report = examine(f"https://{where}")
    assert not found(named)
    assert set(found(report)) == {"certificate_untrusted"}
    assert "REQUESTS_CA_BUNDLE" in found(report)["certificate_untrusted"]["text"]


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
def test_plain_text_to_tls(protocol: str, authority: trustme.CA) -> None:
    """http:// for a port that speaks TLS is reported."""
    with web(tls=served(authority.issue_cert("127.0.0.1"))) as where:
        report = examine(f"http://{where}", protocol)
    assert set(found(report)) == {"tls_needed"}
    assert "https://" in found(report)["tls_needed"]["fix"]


def test_go_server_with_tls() -> None:
    """A server that responds in plain text with the advice to speak TLS is believed."""
    with web(400, body=b"Client sent an HTTP request to an HTTPS server.\n") as where:
        assert set(found(examine(f"http://{where}"))) == {"tls_needed"}


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
def test_tls_to_plain_text(protocol: str) -> None:
    """https:// for a port without TLS is reported."""
    with Receiver(protocol) as receiver:
        report = examine(receiver.endpoint.replace("http:", "https:"), protocol)
    assert set(found(report)) == {"tls_not_spoken"}


def test_missing_file_of_certificates(tmp_path: Path) -> None:
    """A missing file is named, with its variable."""
    path = str(tmp_path / "none.pem")
    report = examine("https://127.0.0.1:1", OTEL_EXPORTER_OTLP_CERTIFICATE=path)
    assert set(found(report)) == {"certificate_file"}
    assert path in found(report)["certificate_file"]["text"]
    assert "OTEL_EXPORTER_OTLP_CERTIFICATE" in found(report)["certificate_file"]["fix"]


# -- proxies


@pytest.mark.parametrize("status", [407, None])
def test_proxy_that_fails(status: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that is away, or requires a password, is named, without the password."""
    with ExitStack() as stack:
        where = "127.0.0.1:1" if status is None else stack.enter_context(web(status))
        monkeypatch.setenv("HTTP_PROXY", f"http://me:{TOKEN}@{where}")
        monkeypatch.setenv("http_proxy", f"http://me:{TOKEN}@{where}")
        report = examine("http://collector.invalid:4318")
    assert set(found(report)) == {"proxy"}
    assert "NO_PROXY" in found(report)["proxy"]["fix"]


def test_no_proxy_for_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that does not apply to the endpoint is ignored."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.0/8")
    with Receiver(HTTP, listening=False) as receiver:
        assert set(found(examine(receiver.endpoint))) == {"refused"}


# -- clock


@pytest.mark.parametrize(("ahead", "codes"), [(-60, {"clock_skew"}), (60, {"clock_skew"}), (4, set())])
def test_clocks_that_differ(ahead: float, codes: set[str]) -> None:
    """More than 10 s between the clocks is reported, with the direction; it is not an error by itself."""
    with web(ahead=ahead) as where:
        report = examine(f"http://{where}")
    assert set(found(report)) == codes
    assert report["ok"]
    if codes:
        assert ("ahead of" if ahead > 0 else "behind") in found(report)["clock_skew"]["text"]


# -- the test operation


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
def test_partial_success(protocol: str) -> None:
    """What a receiver refused of an accepted request is reported in the receiver's words."""
    body = b"\x0a\x0d\x08\x02\x12\x09too early"
    with Receiver(protocol) as receiver:
        receiver.answer = lambda signal: Answer(
            200, body=body if signal == "metrics" else b"", headers={"Content-Type": "application/x-protobuf"}
        )
        report = examine(receiver.endpoint, protocol)
    assert set(found(report)) == {"partly_rejected"}
    line = found(report)["partly_rejected"]
    assert line["signals"] == ["metrics"]
    assert "2 items" in line["text"]
    assert "too early" in line["text"]


def test_refused_only_when_it_holds_something() -> None:
    """The test operation finds a receiver that accepts an empty request and refuses a full one."""
    with Receiver(HTTP) as receiver:
        receiver.answer = lambda signal: Answer(200 if receiver.requests[signal] == 1 else 400, body=b"")
        report = examine(receiver.endpoint)
    assert set(found(report)) == {"not_accepted"}
    assert "HTTP 400" in found(report)["not_accepted"]["text"]


@pytest.mark.parametrize("status", [400, 422])
def test_empty_requests_may_be_refused(status: int) -> None:
    """A receiver that refuses an empty request is fine if it accepts the test operation."""
    with Receiver(HTTP) as receiver:
        receiver.answer = lambda signal: Answer(status if receiver.requests[signal] == 1 else 200)
        assert not found(examine(receiver.endpoint))


def test_sampler_that_leaves_it_out() -> None:
    """A trace that is not sampled is reported, and is not an error."""
    with Receiver(HTTP) as receiver:
        report = examine(receiver.endpoint, OTEL_TRACES_SAMPLER="always_off")
    assert set(found(report)) == {"not_sampled"}
    assert report["ok"]


def test_operation_that_can_not_run() -> None:
    """If configure() fails, its error is reported."""
    with Receiver(HTTP) as receiver:
        report = examine(receiver.endpoint, OTEL_TRACES_EXPORTER="otlp,nosuch")
    assert set(found(report)) == {"operation_failed"}
    assert "nosuch" in found(report)["operation_failed"]["text"]


def test_signal_of_which_nothing_was_sent() -> None:
    """A test operation that ended without a request for a signal is reported as such."""
    said = [{"event": "started", "at": 0, "trace": "0", "sampled": True}, {"event": "ended", "at": 0}]
    process = subprocess.Popen([sys.executable, "-c", "pass"], text=True)
    process.wait()
    report = Report(io.StringIO(), as_json=True)
    assert not _tell_sent(report, ProbeProcess(process, said), ("traces",))
    assert [line.code for line in report.lines] == ["not_sent"]


def test_too_little_time() -> None:
    """If the test operation exceeds its time, it is ended, and missing signals are reported as not sent."""
    with Receiver(HTTP) as receiver:
        report = examine(receiver.endpoint, timeout=1.0)
    assert set(found(report)) == {"not_sent"}
    assert "--timeout" in found(report)["not_sent"]["fix"]


def test_secrets_are_not_shown_to_a_person() -> None:
    """Values of headers and passwords of addresses appear nowhere, even if a server returns them."""
    out = io.StringIO()
    with web(500, body=f"bad token {TOKEN}".encode()) as where:
        env = {
            ENDPOINT: f"http://me:{TOKEN}@{where}",
            "OTEL_EXPORTER_OTLP_HEADERS": f"x-key=Bearer%20{TOKEN}",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"ftp://me:{TOKEN}@{where}",
        }
        assert (
            doctor(DoctorOptions(prometheus="none", loki="none", tempo="none", timeout=10), environment(**env), out)
            == 1
        )
    assert TOKEN not in out.getvalue()
    assert "x-key" in out.getvalue()
    assert "***" in out.getvalue()


# -- backends


def test_backend_that_is_away() -> None:
    """A named backend that does not answer is reported."""
    with Receiver(HTTP) as receiver:
        report = examine(receiver.endpoint, loki="http://127.0.0.1:1")
    assert set(found(report)) == {"backend_away"}
    assert "--loki" in found(report)["backend_away"]["fix"]


def test_backend_that_does_not_answer() -> None:
    """A backend that accepts connections and does not answer is asked until the time is over, then reported."""
    with Receiver(HTTP) as receiver, socket.create_server(("127.0.0.1", 0)) as server:
        report = examine(receiver.endpoint, timeout=7.0, tempo=f"http://127.0.0.1:{server.getsockname()[1]}")
    assert set(found(report)) == {"backend_away"}
    assert "does not answer" in found(report)["backend_away"]["text"]


@pytest.mark.parametrize(
    ("code", "status", "kind", "body"),
    [
        ("backend_forbids", 401, "text/plain", b"no org id"),
        ("backend_wrong", 200, "text/html", b"<html>"),
        ("backend_wrong", 404, "text/plain", b"404 page not found"),
    ],
)
def test_backends_that_are_none(code: str, status: int, kind: str, body: bytes) -> None:
    """An address with another service, or one that requires a password, is reported for each backend."""
    with Receiver(HTTP) as receiver, web(status, {"Content-Type": kind}, body) as where:
        url = f"http://me:{TOKEN}@{where}"
        report = examine(receiver.endpoint, prometheus=url, loki=url, tempo=url, timeout=8.0)
    lines = [line for line in report["lines"] if "code" in line]
    assert [line["code"] for line in lines] == [code] * 3
    assert {line["fix"].partition("--")[2].split()[0].rstrip(".") for line in lines} == {"prometheus", "loki", "tempo"}


@pytest.mark.parametrize(
    ("option", "body", "code"),
    [
        ("prometheus", b'{"status":"success","data":[]}', "series_missing"),
        ("prometheus", b'{"status":"success","data":["odd"]}', "backend_wrong"),
        ("loki", b'{"data":{"result":[]}}', "events_missing"),
        ("loki", b'{"data":{"result":[{"stream":{"service_name":"x"}}]}}', "event_name_missing"),
        ("tempo", b"echo", "trace_missing"),
    ],
)
def test_what_does_not_arrive(option: str, body: bytes, code: str) -> None:
    """A backend that answers without the operation is reported, within the given time."""
    with Receiver(HTTP) as receiver, web(200, {"Content-Type": "application/json"}, body) as where:
        report = examine(receiver.endpoint, timeout=8.0, **{option: f"http://{where}"})
    assert set(found(report)) == {code}


LOKI = {"data": {"result": [{"stream": {"event_name": f"progress.operation.{name}"}} for name in ("started", "ended")]}}


@pytest.mark.parametrize(
    ("option", "body"),
    [
        ("loki", {"/loki/api/v1/query_range": json.dumps(LOKI).encode()}),
        ("tempo", {"/api/v2/traces/": b'{"trace":{"name":"otel_progress.doctor"}}'}),
        ("tempo", {"/api/traces/": b'{"batches":[{"name":"otel_progress.doctor"}]}'}),
        ("prometheus", {"/api/v1/series": b'{"status":"success","data":[{"__name__":"progress_run_active"}]}'}),
    ],
)
def test_what_arrives_is_followed(option: str, body: dict[str, bytes]) -> None:
    """A backend that has the operation is reported with its delay, and the doctor stops waiting."""
    with Receiver(HTTP) as receiver, web(200, {"Content-Type": "application/json"}, body) as where:
        report = examine(receiver.endpoint, **{option: f"http://{where}"})
    assert not found(report)
    line = next(line for line in report["lines"] if line["step"] == "end to end" and line["level"] == "ok")
    assert line["text"].startswith(f"{option.title()} at http://{where} has ")
    assert "(delay " in line["text"]


PROMETHEUS = {
    "/api/v1/series": b'{"status":"success","data":[]}',
    "/api/v1/status/flags": b'{"data":{"web.enable-otlp-receiver":"false"}}',
}


def test_prometheus_that_takes_no_otlp() -> None:
    """Prometheus without its OTLP receiver is named as the likely cause."""
    with Receiver(HTTP) as receiver, web(200, {"Content-Type": "application/json"}, PROMETHEUS) as where:
        report = examine(receiver.endpoint, timeout=8.0, prometheus=f"http://{where}")
    assert set(found(report)) == {"otlp_receiver_off"}
    assert "--web.enable-otlp-receiver" in found(report)["otlp_receiver_off"]["fix"]


ALL_RULES: list[dict[str, str]] = [{"name": it} for it in ("OperationStuck", "run:progress_heard", "Watchdog")]
OURS = {"groups": [{"name": "otel-progress", "rules": ALL_RULES}]}


@pytest.mark.parametrize(
    ("address", "reach", "codes"),
    [
        (None, False, {"link_unset"}),
        ("https://runbook.invalid", False, {"link_unset"}),
        ("wiki/r", False, {"link_invalid"}),
        ("https://wiki/r#x", False, {"link_invalid"}),
        ("https://wiki/r/", False, {"link_invalid"}),
        ("http://127.0.0.1:9/r", False, set()),
        ("http://127.0.0.1:9/r", True, {"link_unreachable"}),
    ],
)
def test_addresses_in_links(address: str | None, reach: bool, codes: set[str]) -> None:
    """An address for the links of alerts is reported if it is missing, invalid or, on request, out of reach."""
    rules = {"data": OURS}
    with Receiver(HTTP) as receiver, web(200, {"Content-Type": "text/html"}, b"a page") as page:
        links = {"grafana": f"http://{page}", "alertmanager": f"http://{page}"}
        links |= {} if address is None else {"runbook": address}
        body = {
            "/api/v1/series": b'{"status":"success","data":[{"__name__":"progress_run_active"}]}',
            "/api/v1/rules": json.dumps(rules).encode(),
            "/api/v1/query": json.dumps({"data": {"result": [{"metric": links}]}}).encode(),
        }
        with web(200, {"Content-Type": "application/json"}, body) as where:
            report = examine(receiver.endpoint, prometheus=f"http://{where}", links=reach)
    assert set(found(report)) == codes
    assert report["ok"]


ADDRESSES = {"result": [{"metric": dict.fromkeys(("runbook", "grafana", "alertmanager"), "https://wiki/r")}]}


@pytest.mark.parametrize(
    ("rules", "alertmanagers", "answer", "codes"),
    [
        ({"groups": []}, {"activeAlertmanagers": []}, {"result": []}, {"rules_missing"}),
        (OURS, {"activeAlertmanagers": []}, ADDRESSES, {"alertmanager_missing"}),
        (OURS, None, ADDRESSES, set()),
        (OURS, {"activeAlertmanagers": [{"url": "a"}]}, ADDRESSES, set()),
        (OURS, {"activeAlertmanagers": [{"url": "a"}]}, {"result": []}, {"collector_unscraped", "link_unset"}),
    ],
)
def test_what_alerts_lack(
    rules: dict[str, Any], alertmanagers: dict[str, Any] | None, answer: dict[str, Any], codes: set[str]
) -> None:
    """A Prometheus without our rules, an Alertmanager or the Collector's own metrics is reported, but is no error."""
    data = {"/api/v1/rules": rules, "/api/v1/alertmanagers": alertmanagers, "/api/v1/query": answer}
    body = {path: json.dumps({"status": "success", "data": it}).encode() for path, it in data.items()}
    body["/api/v1/series"] = b'{"status":"success","data":[{"__name__":"progress_run_active"}]}'
    with Receiver(HTTP) as receiver, web(200, {"Content-Type": "application/json"}, body) as where:
        report = examine(receiver.endpoint, prometheus=f"http://{where}")
    assert set(found(report)) == codes
    assert report["ok"]


FIRING = {"state": "firing", "labels": {"alertname": "PipelineDown", "product": "otel-progress"}}
ALWAYS = {"state": "firing", "labels": {"alertname": "Watchdog", "product": "otel-progress"}}
OTHERS = {"state": "firing", "labels": {"alertname": "DiskFull"}}
FAILS = {"name": "run:progress_health:last3m", "health": "err", "lastError": "duplicate series"}


@pytest.mark.parametrize(
    ("path", "data", "code", "word"),
    [
        ("/api/v1/alerts", {"alerts": [FIRING, FIRING, ALWAYS, OTHERS]}, "alerts_fire", "PipelineDown (2 times)"),
        ("/api/v1/alerts", {"alerts": [ALWAYS, OTHERS, {**FIRING, "state": "pending"}]}, "", ""),
        (
            "/api/v1/rules",
            {"groups": [{"name": "otel-progress", "rules": [*ALL_RULES, FAILS]}]},
            "rules_fail",
            "last3m (duplicate series)",
        ),
        ("/api/v1/rules", {"groups": [{"rules": ALL_RULES[:1]}]}, "rules_incomplete", "panels.yaml and watchdog.yaml"),
        (
            "/api/v1/query",
            {"result": [{**ADDRESSES["result"][0], "value": [0, "0"]}]},
            "collector_down",
            "up is 0",
        ),
        (
            "/api/v1/series",
            [{"__name__": "progress_run_active", "job": "collector", "exported_job": "work"}],
            "labels_renamed",
            "job collector",
        ),
    ],
)
def test_what_prometheus_tells(path: str, data: Any, code: str, word: str) -> None:
    """What fires, fails, is not loaded, is down or has renamed labels in Prometheus is named."""
    sound: dict[str, Any] = {"/api/v1/rules": OURS, "/api/v1/query": ADDRESSES}
    sound["/api/v1/series"] = [{"__name__": "progress_run_active"}]
    body = {at: json.dumps({"status": "success", "data": it}).encode() for at, it in {**sound, path: data}.items()}
    with Receiver(HTTP) as receiver, web(200, {"Content-Type": "application/json"}, body) as where:
        report = examine(receiver.endpoint, prometheus=f"http://{where}")
    told = found(report)
    assert set(told) == ({code} if code else set())
    assert not code or word in told[code]["text"]


def test_clock_of_a_backend() -> None:
    """A backend whose clock differs is reported by name."""
    body = b'{"data":{"result":[]}}'
    with Receiver(HTTP) as receiver, web(200, {"Content-Type": "application/json"}, body, ahead=90) as where:
        report = examine(receiver.endpoint, timeout=6.0, loki=f"http://{where}")
    assert "Loki" in found(report)["clock_skew"]["text"]


@pytest.mark.parametrize(("empty", "code"), [(404, "path"), (200, "not_accepted")])
def test_no_backend_is_asked_for_what_was_not_accepted(empty: int, code: str) -> None:
    """If log events are refused, at once or at arrival, their absence in Loki is not a finding of its own."""
    with Receiver(HTTP) as receiver, web(200, {"Content-Type": "application/json"}, b'{"data":{"result":[]}}') as where:
        receiver.answer = lambda signal: Answer(
            200 if signal != "logs" else empty if receiver.requests[signal] == 1 else 400
        )
        report = examine(receiver.endpoint, loki=f"http://{where}")
    assert set(found(report)) == {code}


# -- the command


NO_STORES = ("--prometheus", "none", "--loki", "none", "--tempo", "none")


def command(
    *options: str, env: dict[str, str], python: tuple[str, ...] = (sys.executable,)
) -> subprocess.CompletedProcess[str]:
    """Run it as a user does."""
    return subprocess.run(
        [*python, "-m", "otel_progress.cli", "doctor", *NO_STORES, *options],
        env=environment(**env),
        check=False,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
    )


def test_command_says_what_it_found() -> None:
    """As a command: sign, finding and fix on stdout, exit code 1; no colour without a terminal."""
    with Receiver(HTTP, listening=False) as receiver:
        ended = command("--endpoint", receiver.endpoint, env={"PYTHONIOENCODING": "utf-8"})
    assert ended.returncode == 1, ended.stderr
    assert "✗ logs, metrics, traces: nothing listens on" in ended.stdout
    assert "fix: Start `otel-progress monitor`" in ended.stdout
    assert "--endpoint" in ended.stdout
    assert "\x1b" not in ended.stdout
    assert not ended.stderr


def test_command_in_a_terminal_without_signs() -> None:
    """An encoding without the signs gets plain ones."""
    with Receiver(HTTP, listening=False) as receiver:
        ended = command("--endpoint", receiver.endpoint, env={"PYTHONIOENCODING": "ascii"})
    assert "  x logs, metrics, traces: nothing listens on" in ended.stdout


def sites(tmp_path: Path, *names: str) -> str:
    """Return a directory with only these distributions, for PYTHONPATH."""
    for name in names:
        for file in metadata.files(name) or ():
            target = tmp_path / file
            if ".." not in file.parts and file.suffix not in (".pth", ".pyc"):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(Path(file.locate()).read_bytes())
    return f"{Path(__file__).parents[2] / 'src'}:{tmp_path}"


MINIMAL = ("otel-progress", "opentelemetry-api", "typing-extensions", "wrapt")


def test_without_the_extra(tmp_path: Path) -> None:
    """Installed without its dependencies, it says what to install, and exits with 1."""
    env = {"PYTHONPATH": sites(tmp_path, *MINIMAL)}
    ended = command("--json", env=env, python=(sys.executable, "-S"))
    assert ended.returncode == 1, ended.stderr
    lines = found(json.loads(ended.stdout))
    assert set(lines) == {"package_missing"}
    assert 'pip install "otel-progress"' in lines["package_missing"]["fix"]


def test_without_grpc(tmp_path: Path) -> None:
    """With gRPC configured and not installed, it says what to install."""
    env = {"PYTHONPATH": sites(tmp_path, *MINIMAL), "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    ended = command("--json", env=env, python=(sys.executable, "-S"))
    fixes = [line["fix"] for line in json.loads(ended.stdout)["lines"] if line.get("code") == "package_missing"]
    assert any("otel-progress[grpc]" in fix for fix in fixes)


def test_with_an_old_sdk(tmp_path: Path) -> None:
    """An SDK that is too old is reported with both versions."""
    path = sites(tmp_path, *MINIMAL, "opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http", "requests")
    info = next(tmp_path.glob("opentelemetry_sdk-*.dist-info"))
    text = (info / "METADATA").read_text(encoding="utf-8")
    version = metadata.version("opentelemetry-sdk")
    (info / "METADATA").write_text(text.replace(f"Version: {version}", "Version: 1.20.0"), encoding="utf-8")
    ended = command("--json", env={"PYTHONPATH": path}, python=(sys.executable, "-S"))
    lines = found(json.loads(ended.stdout))
    assert set(lines) == {"package_old"}
    assert "1.20.0 is older than" in lines["package_old"]["text"]


def test_backends_beside_the_endpoint_are_found() -> None:
    """With an endpoint on this machine, a backend at its usual port is found, unless something else is there."""
    answers = {"/loki/api/v1/status/buildinfo": b'{"version":"3"}', "/api/echo": b"echo"}
    with web(body=answers) as where, web(404) as other:
        here, elsewhere = (
            settings_of(DoctorOptions(), {ENDPOINT: url})[0]
            for url in ("http://localhost:4318", "http://collector:4318")
        )
        prometheus, loki, tempo = known = all_three()
        loki.port = tempo.port = int(where.rpartition(":")[2])
        prometheus.port = int(other.rpartition(":")[2])
        assert [backend.name for backend in find(here, DoctorOptions(), known)] == ["Loki", "Tempo"]
        assert find(elsewhere, DoctorOptions(), known) == []
        assert [backend.url for backend in find(elsewhere, DoctorOptions(loki="http://l:1"), known)] == ["http://l:1"]
        loki.port, prometheus.port = prometheus.port, tempo.port
        assert [backend.name for backend in find(here, DoctorOptions(), known)] == ["Tempo"]


def test_every_finding_is_tested() -> None:
    """Each code has a test that names it."""
    texts = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parents[1].rglob("test_doctor.py"))
    assert [code for code in KINDS if f'"{code}"' not in texts] == []
