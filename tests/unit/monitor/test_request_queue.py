"""Requests wait in a fair order, within bounds: no sender takes the turn of others, whatever it sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_progress.monitor.intake.request_queue import Job, RequestQueue
from otel_progress.monitor.intake.requests import CHEAPEST, Envelope, Refused, Sender


def job(connection: str, size: int = 10, token: str | None = None) -> Job:
    """A request."""
    return Job(Envelope("logs", bytes(size), sender=Sender(connection, token)), lambda _: None, True)


def order(queue: RequestQueue) -> list[object]:
    """Whose requests come, one after the other."""
    found = []
    while (one := queue.pop()) is not None:
        found.append(one.envelope.sender.connection)
    return found


def test_requests_of_one_connection_keep_their_order() -> None:
    """What one connection sends is taken as it came."""
    queue, jobs = RequestQueue(), [job("a", size) for size in (500_000, 10, 100_000, 10)]
    for one in jobs:
        queue.put(one)
    assert [queue.pop() for _ in jobs] == jobs


def test_thousand_requests_of_one_delay_another_by_one_at_the_most() -> None:
    """A newcomer comes after what is in hand, whatever another one has waiting."""
    queue = RequestQueue()
    for _ in range(1_000):
        queue.put(job("many"))
    queue.pop()
    queue.put(job("one"))
    assert "one" in order(queue)[:2]


def test_small_request_comes_before_the_large_ones_of_twenty_others() -> None:
    """What is dear waits longer than what is cheap, also where each comes by a connection of its own."""
    queue = RequestQueue()
    for number in range(20):
        queue.put(job(f"attack {number}", 1_000_000))
    queue.pop()
    queue.put(job("honest"))
    assert order(queue)[0] == "honest"


def test_large_request_is_not_put_off_for_ever() -> None:
    """However many small ones come, each connection gets its share: the large one is done when that is due."""
    queue, large = RequestQueue(), job("large", 50 * CHEAPEST)
    queue.put(large)
    for number in range(1_000):
        queue.put(job(f"a{number}"))
        queue.put(job(f"b{number}"))
        if queue.pop() is large:
            break
    else:
        pytest.fail("it was put off")
    assert number < 200


def test_connections_of_one_token_share_what_one_has() -> None:
    """Two teams get the same, although one of them comes by fifty connections."""
    queue = RequestQueue()
    queue.put(job("b", token="two"))
    for number in range(50):
        queue.put(job(f"a{number}", token="one"))
    for _ in range(4):
        queue.put(job("b", token="two"))
    assert [at for at, one in enumerate(order(queue)) if one == "b"][-1] < 25


def test_what_waits_is_bounded_and_who_is_furthest_ahead_makes_room() -> None:
    """When there is no room, the last of those who have most goes, and a newcomer gets a place; never the other way."""
    queue = RequestQueue(most_requests=10)
    for _ in range(10):
        assert queue.put(job("many")) == []
    with pytest.raises(Refused) as refused:
        queue.put(job("many"))
    assert (refused.value.status, refused.value.retry_after) == (429, 1)
    (gone,) = queue.put(job("one"))
    assert gone.envelope.sender.connection == "many"
    assert len(queue) == 10
    assert order(queue).count("one") == 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 300_000), st.booleans()), max_size=60))
def test_nothing_is_left_of_what_was_taken(steps: list[tuple[str, int, bool]]) -> None:
    """After any sequence all that was put comes out once, and the books are empty."""
    queue = RequestQueue()
    put = out = 0
    for connection, size, takes in steps:
        queue.put(job(connection, size))
        put += 1
        out += takes and queue.pop() is not None
    out += len(order(queue))
    assert (out, len(queue), queue.bytes) == (put, 0, 0)
    assert not queue._last
    assert not queue._connections
