"""A flood of one client: how long another one waits for its answers meanwhile, as a multiple of what it waits alone.

Both are real clients with a token each, over an address of this machine that is not loopback, as the monitor limits no
client of its own machine. The limit is set low, so that it is reached in a moment. One flood has many small requests,
the other large ones with thousands of operations that nobody has heard of.

python -m benchmarks.monitor.flood HOST:PORT TOKEN KIND     is the flood itself
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import http.client
import ipaddress
import json
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.harness import ROOT, Row, clean_environment, full_or_short
from benchmarks.monitor.load import Monitor, keep_to, loading, on_other_cores, percentile
from otel_progress import semconv as s
from otel_progress.outbound import otlp

SECONDS: Final = full_or_short(5.0, 0.5)
ROUNDS: Final = full_or_short(2, 1)
RATE: Final = 100
"""Requests a second that a client may send."""
CONNECTIONS: Final = 8
PAUSE: Final = 0.02
"""Seconds between two requests of the other client."""
NEW: Final = full_or_short(20_000, 500)
"""New operations in a large request."""
KINDS: Final = {"small": 1, "large": NEW}
TOKENS: Final = {"flood": "benchmark-token-of-the-flood-0123", "other": "benchmark-token-of-the-other-0123"}


def address() -> str | None:
    """Return an IPv4 address of this machine that is not loopback; None if it has none."""
    found = (one.address for many in psutil.net_if_addrs().values() for one in many if one.family.name == "AF_INET")
    return next((one for one in found if not ipaddress.ip_address(one).is_loopback), None)


def body(instance: str, count: int) -> bytes:
    """Return a request of a program that starts new operations."""
    moment = time.time_ns()
    about = otlp.resource({"service.name": instance, "service.instance.id": instance, s.HEARTBEAT_INTERVAL: 600.0})
    known = {s.OPERATION_NAME: "work", s.STATUS: "running", s.SEQUENCE: 1, s.START_TIME: moment / 1e9}
    events = [
        otlp.log_record(
            s.OPERATION_STARTED, moment, moment, otlp.INFO, "work started",
            otlp.attributes(6, {s.OPERATION_ID: uuid.uuid4().hex, **known}), None, None, False,
        )
        for _ in range(count)
    ]  # fmt: skip
    return otlp.envelope(about, otlp.scope(s.SCOPE, "1"), events)


class Client:
    """Sends requests over one connection, and notes how long each was waited for."""

    def __init__(self, host: str, token: str) -> None:
        """Not connected yet."""
        self._connection = http.client.HTTPConnection(host, timeout=60)
        self._headers = {"Content-Type": "application/x-protobuf", "Authorization": f"Bearer {token}"}
        self.delays: list[float] = []
        self.answers: collections.Counter[str] = collections.Counter()

    def send(self, data: bytes) -> float | None:
        """Send a request; return after how many seconds it may be sent again, if it was refused."""
        begin = time.monotonic()
        self._connection.request("POST", "/v1/logs", data, self._headers)
        answer = self._connection.getresponse()
        answer.read()
        self.delays.append(time.monotonic() - begin)
        after = answer.headers["Retry-After"]
        self.answers[f"{answer.status}" + (" with Retry-After" if after else "")] += 1
        return float(after) if after else None


async def flood(host: str, token: str, count: int) -> None:
    """Send as fast as it is answered, whatever the answer is, until SIGTERM; print the answers."""
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    clients = [Client(host, token) for _ in range(CONNECTIONS if count == 1 else 1)]

    def work(client: Client) -> None:
        while not over.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                client.send(body(f"flood-{uuid.uuid4().hex[:4]}", count))

    waiting = [asyncio.to_thread(work, client) for client in clients]
    print("ready", flush=True)
    await asyncio.gather(*waiting)
    print(json.dumps(sum((client.answers for client in clients), collections.Counter[str]())), flush=True)


@contextlib.contextmanager
def flooding(host: str, kind: str) -> Iterator[collections.Counter[str]]:
    """Flood meanwhile; yields a counter that has the answers in the end."""
    command = [sys.executable, "-m", "benchmarks.monitor.flood", host, TOKENS["flood"], kind]
    more = ["--short"] if NEW < 1000 else []
    process = subprocess.Popen(
        [*command, *more], cwd=ROOT, env=clean_environment(), stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    keep_to(loading(), process.pid)
    answers: collections.Counter[str] = collections.Counter()
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield answers
        process.send_signal(signal.SIGTERM)
        answers.update(json.loads(process.stdout.readline() or "{}"))
    finally:
        process.kill()
        process.wait()


def measure(seconds: float = SECONDS) -> dict[str, Any]:
    """Measure the other client alone and beside each flood, in turn."""
    here = address() or "127.0.0.1"
    delays: dict[str, list[float]] = {kind: [] for kind in ("alone", *KINDS)}
    answers: dict[str, collections.Counter[str]] = {kind: collections.Counter() for kind in KINDS}
    with tempfile.TemporaryDirectory() as name:
        tokens = Path(name) / "tokens.txt"
        tokens.write_text("".join(f"{token}\n" for token in TOKENS.values()))
        tokens.chmod(0o600)
        options = ("--host", here, "--token-file", str(tokens), "--client-rate", str(RATE))
        with on_other_cores(), Monitor(Path(name), *options) as monitor:
            other = Client(monitor.host, TOKENS["other"])
            for _ in range(ROUNDS):
                for kind in delays:
                    with contextlib.ExitStack() as stack:
                        if kind != "alone":
                            told = stack.enter_context(flooding(monitor.host, kind))
                        other.delays.clear()
                        _keep_sending(other, seconds)
                        delays[kind] += other.delays
                    if kind != "alone":
                        answers[kind] += told
    return {
        "limited": here != "127.0.0.1",
        "answers_of_the_other": other.answers,
        "answers_of_the_flood": answers,
        **{f"{kind}_p50_ms": round(percentile(found, 0.5) * 1e3, 2) for kind, found in delays.items()},
        **{f"{kind}_p99_ms": round(percentile(found, 0.99) * 1e3, 2) for kind, found in delays.items()},
    }


def _keep_sending(client: Client, seconds: float) -> None:
    data, until = body("other", 1), time.monotonic() + seconds
    while time.monotonic() < until:
        client.send(data)
        time.sleep(PAUSE)


def rows(found: dict[str, Any]) -> list[Row]:
    """Return the rows of the table."""
    out = []
    for kind, what in (("small", "small requests"), ("large", f"requests with {NEW:,} new operations")):
        middle, worst = (found[f"{kind}_{part}_ms"] / found[f"alone_{part}_ms"] for part in ("p50", "p99"))
        answers = ", ".join(f"{count:,} x {answer}" for answer, count in found["answers_of_the_flood"][kind].items())
        out.append(
            Row(
                f"another client's request during a flood of {what}",
                f"p50 {found[f'{kind}_p50_ms']:.1f} ms = {middle:.1f} x that alone, p99 {found[f'{kind}_p99_ms']:.1f} "
                f"ms = {worst:.1f} x; the flood got {answers or 'no answer'}",
                "none refused" if found["limited"] else "none refused (this machine has only loopback: no limit)",
                "none",
                set(found["answers_of_the_other"]) == {"200"},
            )
        )
    return out


if __name__ == "__main__":
    asyncio.run(flood(sys.argv[1], sys.argv[2], KINDS[sys.argv[3]]))
