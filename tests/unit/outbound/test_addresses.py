"""Which addresses a webhook reaches: decided when it connects, whatever the name was resolved to before."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from webhook_receiver import Hook

from otel_progress.errors import InvalidArgument
from otel_progress.outbound import addresses
from otel_progress.outbound.addresses import objection
from otel_progress.outbound.webhook_endpoint import WebhookEndpoint


@pytest.fixture
def hook() -> Iterator[Hook]:
    """A receiver on this machine."""
    made = Hook()
    yield made
    made.stop()


Where = list[tuple[Any, ...]]


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What names resolve to, each time: the first list, then the second."""
    answers: list[list[str]] = []

    def getaddrinfo(host: str, port: int, *_: Any) -> Where:
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            (socket.AF_INET6 if ":" in one else socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found
        ]

    monkeypatch.setattr(addresses.socket, "getaddrinfo", getaddrinfo)
    return answers


NEVER = [
    "169.254.169.254",
    "169.254.0.1",
    "fe80::1",
    "fe80::1%eth0",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::",
    "fd00:ec2::254",
    "fd20:ce::254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "0.0.0.0",
    "::",
    "224.0.0.1",
]
PRIVATE = ["10.0.0.1", "172.16.0.1", "192.168.1.1", "fd12:3456::1", "::ffff:10.0.0.1"]
LOOPBACK = ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"]
PUBLIC = ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34"]


def test_what_each_choice_reaches() -> None:
    """Metadata services are reached by `any` alone, private networks not by `public`, this machine only if it is named."""
    for address in (*NEVER, *PRIVATE, *LOOPBACK, *PUBLIC):
        assert objection(address, "example.org", "any") is None
    for choice in ("private", "public"):
        assert all(objection(one, "example.org", choice) for one in NEVER)
        assert not any(objection(one, "example.org", choice) for one in PUBLIC)
    assert not any(objection(one, "hooks.internal", "private") for one in PRIVATE)
    assert all(objection(one, "hooks.internal", "public") for one in (*PRIVATE, *LOOPBACK))
    assert all(objection(one, "example.org", "private") for one in LOOPBACK)
    assert not any(objection(one, host, "private") for one in LOOPBACK for host in ("localhost", "127.0.0.1", "::1"))
    assert objection("127.0.0.1", "localhost", "public")


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest", "http://[fd00:ec2::254]/", "https://0.0.0.0/"])
def test_an_address_in_the_url_is_checked_at_once(url: str) -> None:
    """The mistake is an error at the start, which shows no address."""
    with pytest.raises(InvalidArgument, match=r"the address of the webhook is .*allow it by the option `addresses`"):
        WebhookEndpoint(url)
    WebhookEndpoint(url, "any")
    with pytest.raises(InvalidArgument, match="addresses must be public, private, any"):
        WebhookEndpoint(url, "none")


def test_rebinding_reaches_nothing(hook: Hook, resolved: list[list[str]]) -> None:
    """A name that was fine and then resolves to this machine or a metadata service is refused, and is not tried again."""
    endpoint = WebhookEndpoint(f"http://example.org:{hook.port}/", "public")
    for inside in ("127.0.0.1", "169.254.169.254", "::ffff:127.0.0.1"):
        resolved[:] = [[inside]]
        result = endpoint.post(b"{}", {}, 1.0)
        assert (result.status, result.retry, result.forbidden) == (0, False, True)
        assert inside in result.reason
    assert hook.posts == []


def test_a_name_that_resolves_to_this_machine_reaches_nothing(
    hook: Hook, resolved: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loopback is not the only way to this machine: its other addresses count as well, unless the URL says so."""
    resolved[:] = [["10.1.2.3"]]
    monkeypatch.setattr(addresses, "is_own", lambda family, where: where[0] == "10.1.2.3")
    opened = addresses._opened
    monkeypatch.setattr(addresses, "_opened", lambda sock, _, limit: opened(sock, ("127.0.0.1", hook.port), limit))
    monkeypatch.setattr(addresses.socket, "gethostname", lambda: "Box-7")
    for host, choice, reached in (
        ("rebind.test", "private", False),
        ("rebind.test", "any", True),
        ("box-7", "private", True),
        ("box-7", "public", False),
        ("10.1.2.3", "private", True),
    ):
        result = WebhookEndpoint(f"http://{host}:{hook.port}/", choice).post(b"{}", {}, 5.0)
        assert (result.arrived, result.forbidden) == (reached, not reached), (host, choice)


def test_an_address_is_ours_if_it_is_its_own_source() -> None:
    """No list of interfaces is needed, and nothing is sent."""
    assert addresses.is_own(socket.AF_INET, ("127.0.0.1", 9))
    assert not addresses.is_own(socket.AF_INET, ("198.51.100.7", 9))
    assert not addresses.is_own(socket.AF_INET6, ("no address", 9))


def test_a_forbidden_address_beside_an_allowed_one_is_left_out(hook: Hook, resolved: list[list[str]]) -> None:
    """Of several addresses only those are tried that may be reached."""
    resolved[:] = [["169.254.169.254", "127.0.0.1"]]
    assert WebhookEndpoint(f"http://localhost:{hook.port}/").post(b"{}", {}, 5.0).arrived
    assert len(hook.posts) == 1


def test_a_name_is_resolved_for_each_request(hook: Hook, resolved: list[list[str]]) -> None:
    """After a failover the new address is used."""
    resolved[:] = [["127.0.0.2"], ["127.0.0.1"]]
    endpoint = WebhookEndpoint(f"http://localhost:{hook.port}/")
    assert endpoint.post(b"{}", {}, 5.0).retry
    assert endpoint.post(b"{}", {}, 5.0).arrived


def test_a_redirect_to_a_metadata_service_is_not_followed(hook: Hook) -> None:
    """A redirect is a refusal, wherever it points."""
    hook.answer = lambda _: (307, {"Location": "http://169.254.169.254/latest/meta-data/"})
    result = WebhookEndpoint(hook.url).post(b"{}", {}, 5.0)
    assert (result.status, result.arrived, result.retry) == (307, False, False)
    assert len(hook.posts) == 1
