"""Passing on: nothing waits for it, nothing is lost in passing, and what is lost is counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from otel_progress import clock
from otel_progress.outbound.answer import Answer
from otel_progress.outbound.backoff import Backoff
from otel_progress.outbound.queue import MemoryQueue, without_credentials


class Far:
    """A transport in memory whose answers, and their time, a test decides."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.tried = 0
        self.answer: Callable[[int], Answer] = lambda tried: Answer(True)
        self.may = threading.Event()
        self.may.set()
        self.busy = threading.Event()
        self.closed = threading.Event()

    def send(self, body: bytes, timeout: float | None = None) -> Answer:
        self.busy.set()
        assert self.may.wait(20)
        self.tried += 1
        answer = self.answer(self.tried)
        if answer.delivered:
            self.sent.append(body)
        return answer

    def close(self) -> None:
        self.closed.set()


@pytest.fixture
def far() -> Far:
    """The other end."""
    return Far()


@pytest.fixture
def queue(far: Far) -> Iterator[MemoryQueue]:
    """A queue with room for ten bytes."""
    made = MemoryQueue("logs", "http://user:secret@there:4318/v1/logs", far, 10, Backoff(first=0.01, longest=0.01))
    yield made
    far.may.set()
    made.stop()
    assert far.closed.wait(20)


def soon() -> float:
    """A deadline that is far away."""
    return clock.monotonic() + 20


def test_all_is_sent_in_order(queue: MemoryQueue, far: Far) -> None:
    """Requests arrive once, unchanged, in order."""
    for part in (b"a", b"b", b"c"):
        queue.put(part)
    assert queue.wait(soon())
    assert far.sent == [b"a", b"b", b"c"]
    assert (queue.lost, queue.refused) == (0, 0)


def test_what_may_be_tried_again_is(queue: MemoryQueue, far: Far) -> None:
    """A temporary failure delays a request, and loses none."""
    far.answer = lambda tried: Answer(tried > 3, retry=True)
    queue.put(b"a")
    queue.put(b"b")
    assert queue.wait(soon())
    assert far.sent == [b"a", b"b"]
    assert queue.lost == 0


def test_what_is_refused_is_counted(queue: MemoryQueue, far: Far) -> None:
    """A final refusal loses one request; rejected items of an accepted request are counted, too."""
    far.answer = lambda tried: Answer(tried != 1, reason="HTTP 400", rejected=2 if tried == 2 else 0)
    for part in (b"a", b"b", b"c"):
        queue.put(part)
    assert queue.wait(soon())
    assert far.sent == [b"b", b"c"]
    assert (queue.lost, queue.refused) == (1, 2)


def test_who_puts_never_waits_and_the_oldest_go_first(queue: MemoryQueue, far: Far) -> None:
    """While the endpoint hangs, the oldest requests are dropped for lack of room, except the one in flight."""
    far.may.clear()
    queue.put(b"first")
    assert far.busy.wait(20)
    for number in range(10):
        queue.put(b"%d" % number)
    far.may.set()
    assert queue.wait(soon())
    assert far.sent == [b"first", b"5", b"6", b"7", b"8", b"9"]
    assert queue.lost == 5


def test_end_does_not_wait_for_a_pause_that_was_asked_for(queue: MemoryQueue, far: Far) -> None:
    """A receiver that asked to wait a minute gets a last chance before the end; then what waits is lost."""
    far.answer = lambda tried: Answer(tried > 1, retry=True, after=60.0, reason="HTTP 429")
    queue.put(b"a")
    while queue._not_before == 0.0:
        assert far.busy.wait(20)
    queue.hurry(soon())
    assert queue.wait(soon())
    assert far.sent == [b"a"]
    far.answer = lambda tried: Answer(False, retry=True, reason="HTTP 429")
    queue.put(b"b")
    assert not queue.wait(clock.monotonic() + 0.01)
    queue.stop()
    queue.stop()
    assert queue.lost == 1


def test_secrets_in_an_address_are_not_shown(queue: MemoryQueue) -> None:
    """The name and password of an address are left out where it is shown."""
    assert queue.url == "http://there:4318/v1/logs"
    assert without_credentials("localhost:4317") == "localhost:4317"
    assert without_credentials("http://there/a@b") == "http://there/a@b"
