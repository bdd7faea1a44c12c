"""Who is admitted: with `authorize` whoever it says, without it this machine alone; never pages of other origins."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from web_parts import Client

from otel_progress import web
from otel_progress.errors import InvalidArgument
from otel_progress.web.access import FORWARDED


def status(client: Client, path: str = "/operations", method: str = "GET", **more: str) -> int:
    return asyncio.run(client.ask(path, method, **more)).status


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "127.8.9.1"])
def test_this_machine_is_served(address: str) -> None:
    """Without `authorize`, a client on loopback sees everything."""
    assert status(Client(web.app(), client=(address, 1))) == 200


@pytest.mark.parametrize("client", [("10.0.0.7", 1), ("testclient", 1), ("localhost.evil.example", 1), None, ("", 0)])
def test_other_machines_are_not(client: Any) -> None:
    """Without `authorize`, another machine, or a socket without an address, gets 403 with what to do."""
    answer = asyncio.run(Client(web.app(), client=client).ask("/operations"))
    assert answer.status == 403
    assert "authorize=" in answer.json["error"]


@pytest.mark.parametrize("header", FORWARDED)
def test_proxies_are_not(header: str) -> None:
    """Without `authorize`, a request with the header of a proxy is refused, though the proxy is on this machine."""
    assert status(Client(web.app()), **{header: "127.0.0.1"}) == 403


def test_plain_proxy_is_not() -> None:
    """HTTP/1.0, which nginx speaks if not told otherwise, and a Host that is not this machine are those of a proxy."""
    assert status(Client(web.app()), http="1.0") == 403
    assert status(Client(web.app()), host="app.example") == 403
    assert status(Client(web.app()), host="127.0.0.1.evil.example:80") == 403


@pytest.mark.parametrize(("said", "expected"), [(True, 200), ("ann", 200), (False, 403), (None, 403), ("", 403)])
def test_authorize_decides(said: Any, expected: int) -> None:
    """True and a name are served, wherever they come from; everything false is refused."""
    for answer in (lambda _: said, _later(said)):
        client = Client(web.app(authorize=answer), client=("10.0.0.7", 1))
        assert status(client, x_forwarded_for="8.8.8.8", host="app.example") == expected


def _later(said: Any) -> Any:
    async def answer(_: Any) -> Any:
        await asyncio.sleep(0)
        return said

    return answer


@pytest.mark.parametrize("said", [object(), 1, {"user": "ann"}, ["ann"]])
def test_only_bool_and_name(said: Any) -> None:
    """An object that merely is true opens nothing: the mistake is raised, and nothing is answered."""
    with pytest.raises(TypeError, match="must return True, False or the name"):
        status(Client(web.app(authorize=lambda _: said)))


def test_error_of_authorize() -> None:
    """An HTTPException is the answer; any other error is raised."""

    def login(_: Any) -> bool:
        raise HTTPException(401, "log in first", {"www-authenticate": "Cookie"})

    answer = asyncio.run(Client(web.app(authorize=login)).ask("/operations"))
    assert (answer.status, answer.json, answer.headers["www-authenticate"]) == (
        401,
        {"error": "log in first"},
        "Cookie",
    )
    with pytest.raises(ZeroDivisionError):
        status(Client(web.app(authorize=lambda _: 1 / 0)))


def test_authorize_sees_the_connection() -> None:
    """It gets cookies, headers, and what the middleware of the host added."""
    seen: list[Any] = []
    client = Client(web.app(authorize=lambda connection: seen.append(connection) or True))
    asyncio.run(client.ask("/operations?limit=3", cookie="session=x"))
    assert (seen[0].cookies, seen[0].query_params["limit"], seen[0].scope["method"]) == ({"session": "x"}, "3", "GET")


def test_session_of_the_host() -> None:
    """The session that a middleware of the host keeps reaches `authorize`, and is not taken for one of ours; WebSockets, too."""
    app = web.app(authorize=lambda connection: connection.session.get("user"))

    async def host(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "session": {"user": "ann"}}, receive, send)

    client = Client(host)
    assert status(client) == 200
    assert asyncio.run(client.socket("/operations/none/ws"))[-1]["type"] == "websocket.close"
    with pytest.raises(AssertionError, match="SessionMiddleware"):
        status(Client(app))


FOREIGN = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site"},
    {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_foreign_pages(headers: dict[str, str]) -> None:
    """A page of another origin can neither read, nor cancel, nor open a WebSocket, even with the user's cookie."""
    client = Client(web.app(authorize=lambda _: True))
    assert status(client, **headers) == 403
    assert status(client, "/operations/a", "DELETE", **headers) == 403
    assert asyncio.run(client.socket("/operations/a/ws", **headers)) == [
        {"type": "websocket.close", "code": 1008, "reason": ""}
    ]


def test_own_pages() -> None:
    """A page of the application itself may do all that, and so may one of an origin that is named."""
    client = Client(web.app(authorize=lambda _: True, origins=["https://App.example/"]))
    for headers in (
        {"origin": "http://localhost:8000", "sec_fetch_site": "same-origin"},
        {"origin": "https://app.example", "sec_fetch_site": "cross-site"},
    ):
        assert status(client, **headers) == 200
        assert status(client, "/operations/a", "DELETE", **headers) == 404
    assert status(client, origin="https://app.example.evil") == 403


@pytest.mark.parametrize(
    "wrong",
    [
        {"authorize": True},
        {"origins": "https://a.example"},
        {"origins": ["a.example"]},
        {"origins": ["https://a.example/x"]},
    ],
)
def test_wrong_arguments(wrong: dict[str, Any]) -> None:
    """What can't be meant is refused when the application is made."""
    with pytest.raises(InvalidArgument):
        web.app(**wrong)
