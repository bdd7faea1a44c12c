"""Passing on: nothing waits for it, nothing is lost in passing, and what is lost is counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from otel_progress import clock
from otel_progress.outbound.answer import Answer
from otel_progress.outbound.backoff import Backoff
from otel_progress.outbound.queue import MERGE_AFTER, MemoryQueue, without_credentials
from otel_progress.testing import FakeClock


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


def end(number: int) -> bytes:
    """The mark of an operation's end in a request, and a number."""
    return b"%d\x62\x18progress.operation.ended" % number


def test_ends_are_dropped_last(far: Far) -> None:
    """While the endpoint hangs, requests with an end stay as long as any other can be dropped; the order stays."""
    made = MemoryQueue("logs", "http://there/v1/logs", far, 3 * len(end(1)), Backoff(first=0.01, longest=0.01))
    far.may.clear()
    made.put(b"first")
    assert far.busy.wait(20)
    for body in (end(1), b"a" * 20, end(2), b"b" * 20, b"c" * 10):
        made.put(body)
    far.may.set()
    assert made.wait(soon())
    assert far.sent == [b"first", end(1), end(2), b"c" * 10]
    for number in range(3, 9):
        far.may.clear() if number == 3 else None
        made.put(end(number))
    far.may.set()
    assert made.wait(soon())
    assert far.sent[-2:] == [end(7), end(8)]
    made.stop()


def joined(bodies: list[bytes]) -> list[bytes]:
    """Merge requests."""
    return [b"+".join(bodies)]


def test_what_waited_for_long_is_merged(far: Far, fake: FakeClock) -> None:
    """During an outage of 10 minutes each request is kept; of a longer one, what the requests say about the present."""
    far.answer = lambda tried: Answer(False, retry=True)
    made = MemoryQueue("metrics", "http://there/v1/metrics", far, 1000, Backoff(first=60.0, longest=60.0), joined)
    made.put(b"a")
    assert far.busy.wait(20)
    fake.sleep(MERGE_AFTER - 1)
    made.put(b"b")
    far.answer = lambda tried: Answer(True)
    fake.sleep(2)
    made.put(b"c")
    assert made.wait(soon())
    assert far.sent[0] in (b"a+b", b"a+b+c")
    assert made.lost == 0
    made.stop()


def test_what_has_no_room_is_merged(far: Far) -> None:
    """What can be merged is merged before anything is dropped."""
    made = MemoryQueue(
        "metrics", "http://there/v1/metrics", far, 30, Backoff(first=0.01, longest=0.01), lambda b: b[-1:]
    )
    far.may.clear()
    made.put(b"first")
    assert far.busy.wait(20)
    for number in range(4):
        made.put(b"%d" % number * 10)
    far.may.set()
    assert made.wait(soon())
    assert (far.sent, made.lost) == ([b"first", b"3" * 10], 0)
    made.stop()


def test_merge_that_fails_loses_nothing(far: Far) -> None:
    """An error in merging keeps the requests as they are, within the limit."""
    made = MemoryQueue("metrics", "http://there/v1/metrics", far, 30, Backoff(first=0.01, longest=0.01), lambda b: b[9])
    far.may.clear()
    made.put(b"first")
    assert far.busy.wait(20)
    for number in range(4):
        made.put(b"%d" % number * 10)
    far.may.set()
    assert made.wait(soon())
    assert (far.sent, made.lost) == ([b"first", b"1" * 10, b"2" * 10, b"3" * 10], 1)
    made.stop()


def test_rest_is_handed_over(queue: MemoryQueue, far: Far) -> None:
    """What is taken at the end, in order, is neither sent nor counted as lost."""
    far.answer = lambda tried: Answer(False, retry=True)
    for part in (b"a", b"b"):
        queue.put(part)
    assert far.busy.wait(20)
    assert queue.take_rest() == [b"a", b"b"]
    assert queue.take_rest() == []
    assert (queue.lost, far.sent) == (0, [])


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
