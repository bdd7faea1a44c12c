"""Requests of one client per second: the limit, what comes at once, and that others are not held back."""

from __future__ import annotations

from typing import Any

import pytest
from monitor_parts import Parts, request_of

from otel_progress.monitor.intake.grpc import _address
from otel_progress.monitor.intake.rate_limit import RateLimit
from otel_progress.monitor.intake.requests import Accepted, Envelope, Refused, Sender, address_of
from otel_progress.testing import FakeClock


def test_a_client_may_send_at_the_rate_for_ever() -> None:
    """A client that keeps to the rate is never refused."""
    limit = RateLimit(10, burst=1)
    assert [limit.take("a", number / 10) for number in range(1000)] == [None] * 1000


def test_what_exceeds_the_burst_is_refused_until_its_time() -> None:
    """After a burst a client is told when to retry, and then it is accepted."""
    limit = RateLimit(8, burst=2)
    answers = [limit.take("a", 0.0) for _ in range(30)]
    assert answers[:17] == [None] * 17
    assert set(answers[17:]) == {1}
    assert limit.take("a", 1.0) is None


def test_others_are_not_held_back() -> None:
    """The flood of one client refuses nothing of another."""
    limit = RateLimit(10, burst=1)
    for _ in range(1000):
        limit.take("flood", 0.0)
    assert limit.take("flood", 0.0) is not None
    assert limit.take("other", 0.0) is None


def test_clients_are_bounded_and_the_fastest_is_remembered() -> None:
    """Of more clients than are remembered, those that exceed the rate are kept."""
    limit = RateLimit(10, burst=1, clients=10)
    for _ in range(100):
        limit.take("flood", 0.0)
    for number in range(1000):
        assert limit.take(number, 0.0) is None
    assert limit.take("flood", 0.0) is not None


def test_no_limit() -> None:
    """A rate of 0 refuses nothing."""
    limit = RateLimit(0)
    assert [limit.take("a", 0.0) for _ in range(100_000)] == [None] * 100_000


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.1:5000", "10.0.0.1"),
        ("ipv6:%5B2001:db8::1%5D:5000", "2001:db8::1"),
        ("ipv4:127.0.0.1:5000", None),
        ("ipv6:%5B::1%5D:5000", None),
        ("unix:", None),
    ],
)
def test_address_of_a_grpc_peer(peer: str, address: str | None) -> None:
    """The address is what stands before the port; this machine has none."""
    assert _address(peer) == address


@pytest.mark.parametrize(
    ("host", "address"), [("10.0.0.1", "10.0.0.1"), ("127.0.0.1", None), ("::1", None), (None, None)]
)
def test_this_machine_is_never_limited(host: str | None, address: str | None) -> None:
    """Programs, Collectors and proxies of this machine share one address."""
    assert address_of(host) == address


def test_a_flood_is_answered_with_429_and_counted(monitor: Parts, fake: FakeClock) -> None:
    """A client of another machine is told when to retry; another token at that address is served."""
    inbox = monitor.core.inbox
    inbox.limit = RateLimit(4, burst=1)
    flood = Envelope("logs", request_of(), sender=Sender("c1", 1, address="10.0.0.1"))
    refused: list[Refused] = []
    for _ in range(20):
        try:
            inbox.offer(flood, lambda _: None, own=True)
        except Refused as one:
            refused.append(one)
    assert len(refused) == 15
    assert {(one.status, one.retry_after) for one in refused} == {(429, 1)}
    assert inbox.statistics()["too_fast"] == 15
    inbox.offer(Envelope("logs", request_of(), sender=Sender("c2", 2, address="10.0.0.1")), lambda _: None, own=True)
    fake.sleep(1)
    inbox.offer(flood, lambda _: None, own=True)
    answers: list[Any] = []
    inbox.offer(flood, answers.append, own=True)
    monitor.core.work(inbox.turn([]))
    assert answers == [Accepted()]
