"""Attacks: secrets planted in everything that leaves the process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.attacks import attack, attacks, hold

PROGRAM = Path(__file__).with_name("programs") / "leaky.py"
SECRET = "hunter2correcthorse"
HOOK = """
import otel_progress as progress
def hide(what, text):
    return text.replace("correcthorse", "****")
"""
WAIT = 30.0


class Ear(ThreadingHTTPServer):
    """An OTLP receiver that records the bytes of all requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Heard)
        self.bytes: dict[str, bytes] = {}
        self.came = threading.Condition()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def wait_for(self, *texts: bytes) -> bytes:
        """Return all received bytes once each of these texts has arrived."""

        def all_came() -> bool:
            return all(any(text in body for body in self.bytes.values()) for text in texts)

        with self.came:
            hold(self.came.wait_for(all_came, WAIT), f"not all of {texts} came")
            return b"".join(self.bytes.values())


class _Heard(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server: Ear = self.server  # type: ignore[assignment]
        with server.came:
            server.bytes[self.path] = server.bytes.get(self.path, b"") + body
            server.came.notify_all()
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.send_error(404)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # of a sender that was killed
            super().handle()

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""


@contextlib.contextmanager
def ear() -> Iterator[Ear]:
    server = Ear()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def environment(endpoint: str, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PYTEST_"))}
    return {
        **kept,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        "OTEL_PROGRESS_INTERVAL": "0.2",
        "OTEL_PROGRESS_RUN_SERIES_AFTER": "0.1",
        "TOLD": SECRET,
        **more,
    }


def clean(heard: bytes, secret: str = SECRET) -> None:
    """Raise if the received bytes contain a secret."""
    at = heard.find(secret.encode())
    hold(at < 0, f"it left beside {heard[max(0, at - 120) : at]!r}")


@attacks("secrets", "a job that {ends} says it in all ways, over {how}", ends=("ends", "hangs"), how=("pipe", "run"))
def told_in_all_ways(ends: str, how: str) -> None:
    with ear() as receiver, tempfile.TemporaryDirectory() as folder:
        watched = [sys.executable, "-m", "otel_progress", "run", "--stderr-tail", "5", "--"] if how == "run" else []
        job = subprocess.Popen(
            [*watched, sys.executable, str(PROGRAM), ends],
            env=environment(receiver.endpoint, OTEL_PROGRESS_HISTORY=str(Path(folder, "history.json"))),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            if ends == "hangs":
                heard = receiver.wait_for(b"progress.stalled")
                os.killpg(job.pid, signal.SIGKILL) if how == "pipe" else _kill_child(job.pid)
            job.communicate(timeout=WAIT)
        finally:
            with contextlib.suppress(OSError):
                os.killpg(job.pid, signal.SIGKILL)
        expected = [b"progress.operation.ended"]
        if how == "run" and ends == "hangs":
            expected += [b"SIGKILL", b"password: [redacted]"]  # the certificate, with the tail of stderr
        if ends == "ends":
            expected += [b"exception.stacktrace"]
        heard = receiver.wait_for(b"login with password=[redacted]", b"progress.run.", *expected)
        clean(heard)
        for file in Path(folder).iterdir():
            clean(file.read_bytes())


def _kill_child(pid: int) -> None:
    """Kill the command that `otel-progress run` watches."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)


@attack("secrets", "a hook of the user's, named by the environment, holds in every process")
def hook_by_name() -> None:
    with ear() as receiver, tempfile.TemporaryDirectory() as folder:
        Path(folder, "hiding.py").write_text(HOOK)
        named = {"OTEL_PROGRESS_REDACT": "hiding:hide", "PYTHONPATH": folder}
        job = subprocess.run(
            [sys.executable, "-m", "otel_progress", "run", "--", sys.executable, str(PROGRAM), "ends"],
            env=environment(receiver.endpoint, **named),
            cwd=folder,
            capture_output=True,
            timeout=WAIT,
            check=False,
        )
        hold(job.returncode == 1, f"it ended with {job.returncode}: {job.stderr!r}")
        clean(receiver.wait_for(b"login with password=hunter2****", b"exception.stacktrace"), "correcthorse")


def leaky(receiver: Ear, *args: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, str(PROGRAM), "ends", *args],
        env=environment(receiver.endpoint),
        capture_output=True,
        timeout=WAIT,
        check=False,
    )


@attacks("secrets", "the outlet {outlet} of the process", outlet=("console", "jsonlines"))
def outlet_of_the_process(outlet: str) -> None:
    with ear() as receiver:
        job = leaky(receiver, outlet)
    own = f"starting with token={SECRET}".encode()  # the job's own line, which goes on as it is
    said = job.stdout + job.stderr.partition(b"Traceback")[0].replace(own, b"")
    hold(b"login with password=[redacted]" in said, f"it said {said[-300:]!r}")
    clean(said)


@attack("secrets", "a hook that fails, or returns no text")
def hook_that_fails() -> None:
    with ear() as receiver:
        job = leaky(receiver, "hook")
        hold(b"ValueError: password=" in job.stderr, f"the job's own exception did not pass: {job.stderr[-500:]!r}")
        clean(receiver.wait_for(b"exception.stacktrace"))
