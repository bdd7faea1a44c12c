"""The spool: what a receiver that was away did not take before the command had ended, kept for the next process.

A private folder holds a file for each request, named by time, signal and receiver. A file has the body of an OTLP
request and no header: credentials are those of the process that sends it, and only the address that refused it gets it.
The folder is bounded in size and in time; the oldest files go first, and the ends of operations last.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from otel_progress import clock, files
from otel_progress.outbound import otlp
from otel_progress.outbound.answer import Answer
from otel_progress.outbound.backoff import STANDARD, Backoff
from otel_progress.outbound.queue import Merge, SignalQueue, without_credentials
from otel_progress.outbound.transport import Transport, connect
from otel_progress.settings import Endpoint

BYTES: Final = 16 * 1024 * 1024
"""The size of all files together."""
KEPT_SECONDS: Final = 7 * 24 * 3600.0
"""The age at which a file is deleted."""
REQUEST_BYTES: Final = 512 * 1024
"""The size up to which requests become one file; every receiver takes a request of this size."""
UNFINISHED: Final = ".part"
UNFINISHED_SECONDS: Final = 3600.0
"""The age at which a file that nobody finished is deleted."""
_NAME: Final = re.compile(r"(\d{20})-(\d{4})-([01])-(logs|metrics|traces)-([0-9a-f]{16})\.otlp")


class SpoolFile(NamedTuple):
    """A file of the spool, as its name describes it; in order, the first to be deleted comes first."""

    is_lasting: bool
    time: int
    number: int
    signal: str
    receiver: str
    path: Path


class _Chunk(NamedTuple):
    """Requests of a signal that become one file; lasting ones are dropped last."""

    signal: str
    body: bytes
    requests: int
    is_lasting: bool


class Kept(NamedTuple):
    """What was put into the spool: ends of operations, requests; and what was dropped, for its age or for room."""

    ends: int
    requests: int
    dropped: int


class Spool:
    """The folder; any number of processes may use it at once."""

    def __init__(self, folder: Path, most_bytes: int = BYTES) -> None:
        """Use this folder, which is created when something is kept."""
        self.folder = folder
        self._most = most_bytes

    def keep(self, rest: Mapping[str, list[bytes]], endpoints: Mapping[str, Endpoint]) -> Kept:
        """Keep requests, by signal, for the endpoints of their signals; without room, the oldest are dropped.

        Raises:
            OSError: if they can't be written.
        """
        files.make_folder(self.folder)
        chunks = [chunk for signal, bodies in rest.items() for chunk in _chunks(signal, bodies)]
        now, left, ends, requests, dropped = clock.time_ns(), self._most, 0, 0, 0
        for number, chunk in sorted(enumerate(chunks), key=lambda item: (item[1].is_lasting, item[0]), reverse=True):
            left -= len(chunk.body)
            if left < 0:
                dropped += chunk.requests
                continue
            receiver = _receiver(endpoints[chunk.signal])
            name = f"{now:020}-{number:04}-{int(chunk.is_lasting)}-{chunk.signal}-{receiver}.otlp"
            _write(self.folder / name, chunk.body)
            requests += chunk.requests
            ends += otlp.ends_in(chunk.body) if chunk.signal == "logs" else 0
        return Kept(ends, requests, dropped + self.trim())

    def trim(self) -> int:
        """Delete files that are too old, and the oldest if all are too large; returns how many."""
        now, total, gone = clock.time_ns(), 0, 0
        for path in self.folder.glob(f"*{UNFINISHED}"):  # its process was killed, unless it is new
            with contextlib.suppress(FileNotFoundError):
                if now / 1e9 - path.stat().st_mtime > UNFINISHED_SECONDS:
                    path.unlink()
        for file in sorted(self._files(), reverse=True):
            with contextlib.suppress(FileNotFoundError):
                total += file.path.stat().st_size
                if total > self._most or now - file.time > KEPT_SECONDS * 1e9:
                    file.path.unlink()
                    gone += 1
        return gone

    def waiting(self, signal: str, endpoint: Endpoint) -> list[SpoolFile]:
        """The files for an endpoint, oldest first."""
        receiver = _receiver(endpoint)
        found = [file for file in self._files() if (file.signal, file.receiver) == (signal, receiver)]
        return sorted(found, key=lambda file: (file.time, file.number))

    def senders(self, endpoints: Mapping[str, Endpoint], renew: Merge) -> list[SpoolQueue]:
        """Start to send what waits for these endpoints, in threads; none for what another process sends already.

        Args:
            endpoints: where each signal goes.
            renew: makes kept metrics fit to be sent now.
        """
        found: list[SpoolQueue] = []
        try:
            files.check_folder(self.folder)
            self.trim()
        except OSError:
            return found
        for signal, endpoint in endpoints.items():
            with contextlib.suppress(OSError):
                if self.waiting(signal, endpoint):
                    lock = files.Lock(self.folder / f"{signal}-{_receiver(endpoint)}.lock")
                    found.append(SpoolQueue(self, signal, endpoint, connect(signal, endpoint), lock, renew))
        return found

    def _files(self) -> list[SpoolFile]:
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        parts = [match for name in names if (match := _NAME.fullmatch(name))]
        return [
            SpoolFile(one[3] == "1", int(one[1]), int(one[2]), one[4], one[5], self.folder / one[0]) for one in parts
        ]


class SpoolQueue(SignalQueue):
    """Sends the files for one endpoint, and deletes each that arrived; holds the lock of that endpoint."""

    def __init__(
        self,
        spool: Spool,
        signal: str,
        endpoint: Endpoint,
        transport: Transport,
        lock: files.Lock,
        renew: Merge,
        backoff: Backoff = STANDARD,
    ) -> None:
        """Start the thread."""
        super().__init__(signal, endpoint.url, transport, backoff)
        self._lock = lock
        self._renew = renew
        self._files = spool.waiting(signal, endpoint)
        self._bodies: list[bytes] = []
        self._thread.start()

    def stop(self) -> None:
        """Send no more; what waits stays in the spool."""
        self._halt()
        self._lock.release()

    def _is_waiting(self) -> bool:
        return bool(self._files)

    def _head(self) -> bytes | None:
        return self._bodies[0] if self._bodies else None

    def _fill(self) -> None:
        """Read the next file; one that can't be read, or has nothing left to say, is skipped."""
        while self._files and not self._bodies:
            try:
                body = files.read_private(self._files[0].path, secret=True)
                self._bodies = self._renew([body]) if self.signal == "metrics" else [body]
            except OSError:
                self._bodies = []
            if not self._bodies:
                self._finish()
        if not self._files:
            self._lock.release()
            with self._ready:
                self._ready.notify_all()

    def _pop(self, delivered: bool) -> None:
        self.lost += not delivered
        del self._bodies[0]
        if not self._bodies:
            self._finish()

    def _finish(self) -> None:
        path = self._files.pop(0).path
        with contextlib.suppress(OSError):
            path.unlink()

    def _worthless(self, answer: Answer) -> bool:
        """A wrong token or address can be corrected; only a refusal of the content is final."""
        return answer.about_data


def _receiver(endpoint: Endpoint) -> str:
    """The receiver as part of a file name: protocol and address, without credentials."""
    said = f"{endpoint.protocol} {without_credentials(endpoint.url)}"
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _chunks(signal: str, bodies: list[bytes]) -> Iterator[_Chunk]:
    """Requests put together: the bytes of two requests are those of one with the content of both."""
    for is_lasting in (False, True):
        parts: list[bytes] = []
        size = 0
        for body in bodies:
            if (signal == "metrics" or bool(otlp.ends_in(body))) is not is_lasting:
                continue
            if parts and size + len(body) > REQUEST_BYTES:
                yield _Chunk(signal, b"".join(parts), len(parts), is_lasting)
                parts, size = [], 0
            parts.append(body)
            size += len(body)
        if parts:
            yield _Chunk(signal, b"".join(parts), len(parts), is_lasting)


def _write(path: Path, body: bytes) -> None:
    """Write a file that others see only when it is complete."""
    unfinished = path.with_suffix(f".{os.getpid()}{UNFINISHED}")
    fd = files.open_private(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        with open(fd, "wb") as file:
            file.write(body)
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
