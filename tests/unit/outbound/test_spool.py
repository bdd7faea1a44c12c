"""The spool: what a receiver that was away did not take is sent once by a later process, to that receiver alone."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from otel_progress import clock, files
from otel_progress.outbound import otlp, spool
from otel_progress.outbound.answer import Answer
from otel_progress.outbound.spool import Kept, Spool, SpoolQueue
from otel_progress.settings import Endpoint
from otel_progress.testing import FakeClock

URL = "http://me:secret@there:4318/v1/logs"
HERE = Endpoint("http/protobuf", URL, (("authorization", "Bearer secret"),))
DAY = 24 * 3600.0


def end(name: str, size: int = 0) -> bytes:
    """A request with the end of an operation."""
    record = otlp.log_record("progress.operation.ended", 1, 1, otlp.INFO, name + size * ".", b"", None, None, False)
    return otlp.envelope(otlp.resource({}), otlp.scope("s", "1"), [record])


def note(size: int = 0) -> bytes:
    """A request with another event."""
    record = otlp.log_record("progress.note", 1, 1, otlp.INFO, size * ".", b"", None, None, False)
    return otlp.envelope(otlp.resource({}), otlp.scope("s", "1"), [record])


class Far:
    """A receiver: what it got, by address, and its answer."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.answer = Answer(True)
        self.asked = threading.Event()

    def connect(self, signal: str, endpoint: Endpoint) -> Way:
        return Way(self, endpoint.url)


class Way:
    """A transport to it."""

    def __init__(self, far: Far, url: str) -> None:
        self._far, self._url = far, url

    def send(self, body: bytes, timeout: float | None = None) -> Answer:
        self._far.asked.set()
        if self._far.answer.delivered:
            self._far.got.append((self._url, body))
        return self._far.answer

    def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Far:
    """The receiver of all transports."""
    made = Far()
    monkeypatch.setattr(spool, "connect", made.connect)
    return made


@pytest.fixture
def kept(tmp_path: Path) -> Spool:
    """A spool."""
    return Spool(tmp_path / "state" / "unsent")


@pytest.fixture
def send(kept: Spool) -> Iterator[Callable[..., list[SpoolQueue]]]:
    """Send what waits, as a new process would."""
    made: list[SpoolQueue] = []

    def start(endpoint: Endpoint = HERE, signal: str = "logs", of: Spool = kept) -> list[SpoolQueue]:
        found = of.senders({signal: endpoint}, list)
        made.extend(found)
        return found

    yield start
    for one in made:
        one.stop()


def names(of: Spool) -> list[str]:
    """Return the names of the waiting requests' files."""
    return sorted(name for name in os.listdir(of.folder) if name.endswith(".otlp"))


def soon() -> float:
    """A deadline that is far away."""
    return clock.monotonic() + 20


def test_next_process_sends_it_once(kept: Spool, far: Far, send: Callable[..., list[SpoolQueue]]) -> None:
    """What waits is sent once, in few requests; afterwards nothing is left of it."""
    assert kept.keep({"logs": [note(), end("a"), end("b")], "traces": []}, {"logs": HERE}) == Kept(2, 3, 0)
    (queue,) = send()
    assert queue.wait(soon())
    assert b"".join(sorted(body for _, body in far.got)) == b"".join(sorted([note(), end("a") + end("b")]))
    assert names(kept) == []
    queue.stop()
    assert send() == []


def test_two_processes_do_not_send_the_same(kept: Spool, far: Far, send: Callable[..., list[SpoolQueue]]) -> None:
    """While one process tries to send, another leaves it alone; when the first is gone, the next one takes over."""
    kept.keep({"logs": [end("a")]}, {"logs": HERE})
    far.answer = Answer(False, retry=True)
    (queue,) = send()
    assert far.asked.wait(20)
    assert send() == []
    queue.stop()
    far.answer = Answer(True)
    (queue,) = send()
    assert queue.wait(soon())
    assert len(far.got) == 1


@pytest.mark.parametrize(
    "url", ["http://there:4317/v1/logs", "http://elsewhere:4318/v1/logs", "https://there:4318/v1/logs"]
)
def test_no_other_receiver_gets_it(kept: Spool, far: Far, send: Callable[..., list[SpoolQueue]], url: str) -> None:
    """It goes to the address that it was for, with the present credentials, and to no other."""
    kept.keep({"logs": [end("a")]}, {"logs": HERE})
    assert send(Endpoint("http/protobuf", url)) == []
    assert send(Endpoint("grpc", URL)) == []
    (queue,) = send(Endpoint("http/protobuf", "http://you:other@there:4318/v1/logs"))
    assert queue.wait(soon())
    assert [to for to, _ in far.got] == ["http://you:other@there:4318/v1/logs"]


def test_nobody_else_can_read_it(kept: Spool) -> None:
    """Folder and files are private whatever the umask, and hold no credentials, not even in their names."""
    before = os.umask(0)
    try:
        kept.keep({"logs": [end("a")]}, {"logs": HERE})
    finally:
        os.umask(before)
    (name,) = names(kept)
    path = kept.folder / name
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.folder.stat().st_mode) == 0o700
    assert "secret" not in name
    assert path.read_bytes() == end("a")


def test_nothing_is_sent_from_a_folder_that_others_can_write(
    kept: Spool, far: Far, send: Callable[..., list[SpoolQueue]]
) -> None:
    """Another user could have put anything into it."""
    kept.keep({"logs": [end("a")]}, {"logs": HERE})
    kept.folder.chmod(0o777)
    assert send() == []
    with pytest.raises(files.Unsafe):
        kept.keep({"logs": [end("b")]}, {"logs": HERE})


@pytest.mark.parametrize("older", [False, True], ids=["of one run", "of an earlier run"])
def test_ends_are_dropped_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, older: bool) -> None:
    """Without room the oldest requests are dropped and counted, and ends only when nothing else is left."""
    monkeypatch.setattr(spool, "REQUEST_BYTES", 1)
    small = Spool(tmp_path / "unsent", 1000)
    first, second = [end("a", 100)], [note(300), note(301), note(302)]
    if older:
        small.keep({"logs": first}, {"logs": HERE})
        found = small.keep({"logs": second}, {"logs": HERE})
    else:
        found = small.keep({"logs": first + second}, {"logs": HERE})
        assert found.ends == 1
    assert found.dropped == 2
    sizes = sorted(one.path.stat().st_size for one in small.waiting("logs", HERE))
    assert sizes == sorted([len(first[0]), len(second[2])])
    assert small.keep({"logs": [end("b", 700)]}, {"logs": HERE}).dropped == 2


def test_old_files_are_deleted(tmp_path: Path, far: Far, fake: FakeClock) -> None:
    """What is a week old is not sent any more."""
    kept = Spool(tmp_path / "unsent")
    kept.keep({"logs": [end("a")]}, {"logs": HERE})
    fake.jump(7 * DAY - 1)
    assert kept.trim() == 0
    fake.jump(2)
    assert kept.senders({"logs": HERE}, list) == []
    assert names(kept) == []


@pytest.mark.parametrize("status", ["retry", "wrong token", "malformed"])
def test_refusal(kept: Spool, far: Far, send: Callable[..., list[SpoolQueue]], status: str) -> None:
    """Only what is refused for its content is given up: an outage ends, and a wrong token can be corrected."""
    kept.keep({"logs": [end("a")]}, {"logs": HERE})
    far.answer = Answer(False, retry=status == "retry", about_data=status == "malformed", reason=status)
    (queue,) = send()
    assert far.asked.wait(20)
    if status == "malformed":
        assert queue.wait(soon())
    queue.stop()
    assert (len(names(kept)), queue.lost) == ((0, 1) if status == "malformed" else (1, 0))


def test_metrics_are_renewed(kept: Spool, far: Far) -> None:
    """Kept metrics are made fit for the present before they are sent; what has nothing left to say is not sent."""
    where = Endpoint("http/protobuf", "http://there:4318/v1/metrics")
    kept.keep({"metrics": [b"old"]}, {"metrics": where})
    (queue,) = kept.senders({"metrics": where}, lambda bodies: [bodies[0] + b"-1", bodies[0] + b"-2"])
    assert queue.wait(soon())
    assert [body for _, body in far.got] == [b"old-1", b"old-2"]
    queue.stop()
    kept.keep({"metrics": [b"old"]}, {"metrics": where})
    (queue,) = kept.senders({"metrics": where}, lambda bodies: [])
    assert queue.wait(soon())
    assert (len(far.got), names(kept)) == (2, [])
    queue.stop()


def test_half_a_file_is_never_sent(kept: Spool, far: Far, send: Callable[..., list[SpoolQueue]]) -> None:
    """A process that is killed while it writes leaves nothing that is sent."""
    kept.keep({"logs": [end("a")]}, {"logs": HERE})
    (name,) = names(kept)
    (kept.folder / name).rename(kept.folder / f"{name[:-5]}.4711.part")
    assert send() == []
    kept.keep({"traces": [b"x"]}, {"traces": HERE})
    os.utime(kept.folder / f"{name[:-5]}.4711.part", (1, 1))
    kept.trim()
    assert len(os.listdir(kept.folder)) == 1
