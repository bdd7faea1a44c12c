"""Tokens, sessions and the guard: what is let through, by rules alone; `tests/stress` attacks the real server."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import Headers

from otel_progress.errors import InvalidArgument
from otel_progress.monitor import auth as module
from otel_progress.monitor import sessions
from otel_progress.monitor.auth import ANYBODY, CONTROL, READ, RIGHTS, SEND, Auth, Identity, read_tokens
from otel_progress.outbound.loopback import is_loopback
from otel_progress.testing import FakeClock

TOKEN, OTHER = "a-token-of-twenty-chars", "another-one-of-twenty"


def auth(tokens: dict[str, Identity] | None = None, *, loopback: bool = True, **more: Any) -> Auth:
    """An auth on port 4318."""
    return Auth(tokens or {}, port=4318, loopback=loopback, **more)


def bearer(token: str) -> Headers:
    """The header of a token."""
    return Headers({"authorization": f"Bearer {token}"})


def test_monitor_that_others_reach_needs_a_token() -> None:
    """Off loopback there is no monitor without tokens."""
    with pytest.raises(InvalidArgument, match="--token-file"):
        auth(loopback=False)
    assert auth({TOKEN: ANYBODY}, loopback=False).needs_token


def test_token_tells_who_one_is() -> None:
    """Each token has its identity; others, halves and prefixes of one have none."""
    limited = Identity(frozenset({READ}), "ann")
    found = auth({TOKEN: limited, OTHER: ANYBODY})
    assert found.who(bearer(TOKEN)) is limited
    assert found.who(bearer(OTHER)) is ANYBODY
    for wrong in ("", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "ü" * 20, "\udcff"):
        assert found.by_token(wrong) is None
    assert found.who(Headers({"authorization": TOKEN})) is None
    assert found.who(Headers({"authorization": f"Basic {TOKEN}"})) is None
    assert found.who(Headers({})) is None


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digests of all tokens are compared, by `hmac.compare_digest`, also when the first one is right."""
    compared = []
    real = module.hmac.compare_digest
    monkeypatch.setattr(module.hmac, "compare_digest", lambda a, b: compared.append(a) or real(a, b))
    auth({TOKEN: ANYBODY, OTHER: ANYBODY}).by_token(TOKEN)
    assert compared == [
        sha256(token.encode()).digest() for token in (TOKEN, OTHER)
    ]  # of one length, whatever theirs is


def test_without_tokens_everybody_here_may_do_all() -> None:
    """On loopback there is nobody else."""
    assert auth().who(Headers({})) is ANYBODY


def cookie(found: Auth, session: str) -> Headers:
    """The header of a session."""
    return Headers({"cookie": f"other=1; {found.cookie}={session}; more=2"})


def test_session_is_who_opened_it_but_sends_nothing() -> None:
    """A session has the rights of its token without the one to send, until it is closed."""
    found = auth({TOKEN: ANYBODY})
    session = found.open(Identity(RIGHTS, "ann"))
    assert found.who(cookie(found, session)) == Identity(frozenset({READ, CONTROL}), "ann")
    assert found.who(cookie(found, session + "x")) is None
    assert auth({TOKEN: ANYBODY}).who(cookie(found, session)) is None
    found.close(session)
    found.close(session)
    assert found.who(cookie(found, session)) is None


def test_cookie_is_named_by_the_port() -> None:
    """A browser gives the cookies of a host to all its ports."""
    assert Auth({}, port=1, loopback=True).cookie != Auth({}, port=2, loopback=True).cookie


def test_session_ends_by_itself(fake: FakeClock) -> None:
    """It is good until just before its time is over."""
    found = auth({TOKEN: ANYBODY})
    session = found.open(ANYBODY)
    fake.sleep(sessions.SESSION_SECONDS - 0.1)
    assert found.who(cookie(found, session)) is not None
    fake.sleep(0.1)
    assert found.who(cookie(found, session)) is None


def test_link_works_once_and_not_for_long(fake: FakeClock) -> None:
    """A link opens one session, within five minutes."""
    found = auth({TOKEN: ANYBODY})
    ticket = found.link(Identity(owner="ann")).removeprefix("/login/")
    session = found.redeem(ticket)
    assert session is not None
    who = found.who(cookie(found, session))
    assert who is not None
    assert who.owner == "ann"
    assert found.redeem(ticket) is None
    late = found.link().removeprefix("/login/")
    fake.sleep(sessions.LINK_SECONDS)
    assert found.redeem(late) is None


def are_open(found: Auth, sessions: list[str]) -> list[bool]:
    return [found.who(cookie(found, session)) is not None for session in sessions]


def test_links_are_bounded() -> None:
    """The oldest go first."""
    found = auth({TOKEN: ANYBODY}, sessions_each=3)
    links = [found.link().removeprefix("/login/") for _ in range(5)]
    assert [found.redeem(link) is not None for link in links] == [False] * 2 + [True] * 3


def test_one_token_ends_no_session_of_another() -> None:
    """However often somebody logs in, only sessions of the same token make room; the oldest goes first."""
    limited = Identity(frozenset({READ}), "ann")
    found = auth({TOKEN: ANYBODY, OTHER: limited, OTHER + "2": limited}, sessions_each=3)

    def log_in(token: str) -> str:
        opened = found.log_in(token)
        assert opened is not None
        return opened[0]

    others = [log_in(TOKEN), log_in(OTHER + "2")]
    link = found.redeem(found.link().removeprefix("/login/"))
    assert link is not None
    mine = [log_in(OTHER) for _ in range(50)]
    assert are_open(found, [*others, link]) == [True] * 3
    assert are_open(found, mine) == [False] * 47 + [True] * 3
    assert found.log_in("wrong" * 10) is None
    assert found.denied == 1


def test_sessions_are_bounded_in_all() -> None:
    """With no room left a token gives up its own oldest session; its first one takes the place of who has most."""
    found = auth({TOKEN: ANYBODY}, sessions=5)
    many = [found.open(ANYBODY, b"many") for _ in range(4)]
    few = [found.open(ANYBODY, b"few") for _ in range(2)]
    assert are_open(found, [*many, *few]) == [True] * 4 + [False, True]
    new = found.open(ANYBODY, b"new")
    assert are_open(found, [*many, few[1], new]) == [False] + [True] * 5


def test_sessions_that_are_over_make_room_first(fake: FakeClock) -> None:
    """One that is too old takes no place from one that is not."""
    found = auth({TOKEN: ANYBODY}, sessions_each=2)
    found.open(ANYBODY)
    fake.sleep(sessions.SESSION_SECONDS - 1)
    late = found.open(ANYBODY)
    fake.sleep(2)
    assert are_open(found, [late, found.open(ANYBODY)]) == [True, True]


HERE = "127.0.0.1:4318"
NOT_KNOWN = "the monitor is not known as 'evil.example'; allow the name with --allowed-host"
GUARDED = [
    ("a program", "/operations", {"host": HERE}, True),
    ("by name", "/operations", {"host": "localhost:4318"}, True),
    ("in capitals", "/operations", {"host": "LocalHost:4318"}, True),
    ("IPv6", "/operations", {"host": "[::1]:4318"}, True),
    ("another loopback address", "/operations", {"host": "127.0.0.2:4318"}, True),
    ("a name that is allowed", "/operations", {"host": "mon.example"}, True),
    ("a name that points here now", "/operations", {"host": "evil.example:4318"}, False),
    ("that looks like us", "/operations", {"host": "127.0.0.1.evil.example:4318"}, False),
    ("that ends as we do", "/operations", {"host": "evil-localhost:4318"}, False),
    ("no name", "/operations", {}, False),
    ("our own page", "/operations", {"host": HERE, "origin": f"http://{HERE}", "sec-fetch-site": "same-origin"}, True),
    ("our own page behind TLS", "/operations", {"host": "mon.example", "origin": "https://mon.example"}, True),
    ("another port", "/operations", {"host": HERE, "origin": "http://127.0.0.1:8000"}, False),
    ("another port's GET", "/operations", {"host": HERE, "sec-fetch-site": "same-site"}, False),
    ("another site", "/operations", {"host": HERE, "origin": "https://evil.example"}, False),
    ("another site's image", "/operations", {"host": HERE, "sec-fetch-site": "cross-site"}, False),
    ("a sandbox", "/operations", {"host": HERE, "origin": "null"}, False),
    ("another name of ours", "/operations", {"host": HERE, "origin": "http://localhost:4318"}, False),
    ("a link to the page", "/", {"host": HERE, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, True),
    ("a link once", "/login/x", {"host": HERE, "sec-fetch-site": "none", "sec-fetch-mode": "navigate"}, True),
    ("the page in a script", "/", {"host": HERE, "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, False),
    ("a link to data", "/api", {"host": HERE, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, False),
    ("typed", "/operations", {"host": HERE, "sec-fetch-site": "none", "sec-fetch-mode": "navigate"}, True),
    ("our page sends", "/v1/logs", {"host": HERE, "origin": f"http://{HERE}", "sec-fetch-site": "same-origin"}, False),
    ("a page asks for commands", "/control", {"host": HERE, "origin": "http://127.0.0.1:1"}, False),
    ("a page sends without a body", "/v1/logs", {"host": HERE, "sec-fetch-site": "cross-site"}, False),
    ("fetch of Node.js", "/v1/logs", {"host": HERE, "sec-fetch-mode": "cors"}, True),
    ("fetch of Node.js cancels", "/operations/a/cancel", {"host": HERE, "sec-fetch-mode": "cors"}, True),
    ("a program sends", "/v1/logs", {"host": HERE}, True),
]


@pytest.mark.parametrize(("who", "path", "headers", "fine"), GUARDED, ids=[case[0] for case in GUARDED])
def test_guard_tells_ours_from_others(who: str, path: str, headers: dict[str, str], fine: bool) -> None:
    """Names that could be anybody's are no names of ours; pages of others get nothing; programs have no browser."""
    assert (auth(hosts=["Mon.Example"]).refuse(path, Headers(headers)) is None) is fine


def test_two_hosts_or_origins_are_none() -> None:
    """What is said twice could be read in two ways."""
    assert auth().refuse("/operations", Headers({"host": "evil.example"})) == (421, NOT_KNOWN)
    twice = [(b"host", HERE.encode()), (b"host", b"evil.example")]
    assert auth().refuse("/operations", Headers(raw=twice)) is not None
    twice = [(b"host", HERE.encode()), (b"origin", f"http://{HERE}".encode()), (b"origin", b"http://evil")]
    assert auth().refuse("/operations", Headers(raw=twice)) is not None


def test_with_tokens_and_for_others_any_name_will_do() -> None:
    """Off loopback no name is known: a page of another name has no session there; names that are given alone hold."""
    found = auth({TOKEN: ANYBODY}, loopback=False)
    assert found.refuse("/operations", Headers({"host": "build-7:4318"})) is None
    assert found.refuse("/operations", Headers({"host": "build-7:4318", "origin": "http://evil"})) is not None
    named = auth({TOKEN: ANYBODY}, loopback=False, hosts=["mon.example"])
    assert named.refuse("/operations", Headers({"host": "build-7:4318"})) is not None


def write(folder: Path, text: str) -> Path:
    """A token file."""
    path = folder / "tokens.txt"
    path.write_text(text, "utf-8")
    path.chmod(0o600)
    return path


def test_token_file(tmp_path: Path) -> None:
    """A token a line, with rights and owner; who is limited to an owner sends only where it is said so."""
    path = write(
        tmp_path,
        f"\ufeff# ours\n\n{TOKEN}\n{OTHER} rights=read # a comment\n"
        f"x{TOKEN} owner=ann\ny{TOKEN}#not-a-comment owner=bob rights=read,send\n",
    )
    assert read_tokens(path) == {
        TOKEN: Identity(RIGHTS),
        OTHER: Identity(frozenset({READ})),
        f"x{TOKEN}": Identity(frozenset({READ, CONTROL}), "ann"),
        f"y{TOKEN}#not-a-comment": Identity(frozenset({READ, SEND}), "bob"),
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("short", "16 ASCII characters"),
        ("ü" * 20, "ASCII"),
        ("# nothing", "no token"),
        (f"{TOKEN} rights=all", "line 1"),
        (f"{TOKEN} rights=", "line 1"),
        (f"{TOKEN} owner=", "line 1"),
        (f"{TOKEN}\n{TOKEN} {OTHER}", "line 2"),
    ],
)
def test_token_file_that_can_not_be_meant(tmp_path: Path, text: str, why: str) -> None:
    """The error says where and what to do, and shows no token, not even a part of one."""
    with pytest.raises(InvalidArgument, match=why) as caught:
        read_tokens(write(tmp_path, text))
    assert TOKEN not in str(caught.value)
    assert OTHER not in str(caught.value)


def test_token_file_that_is_not_there(tmp_path: Path) -> None:
    """It is named."""
    with pytest.raises(InvalidArgument, match="absent"):
        read_tokens(tmp_path / "absent")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    (tmp_path / "bytes").chmod(0o600)
    with pytest.raises(InvalidArgument, match="UTF-8"):
        read_tokens(tmp_path / "bytes")


def test_loopback() -> None:
    """Addresses that no other machine reaches."""
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]")))
    assert not any(map(is_loopback, ("", "0.0.0.0", "::", "10.0.0.1", "localhost.evil", "127.0.0.1.evil", "127.1")))
