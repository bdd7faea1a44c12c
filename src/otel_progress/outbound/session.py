"""Sessions of requests with a deadline and a size limit for each exchange; importing this imports requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from http.cookiejar import DefaultCookiePolicy
from typing import Any, NamedTuple

import requests
from requests.adapters import HTTPAdapter

from otel_progress import clock
from otel_progress.outbound.deadline import HEAD_BYTES, Limited, TooMuch, within

CHUNK_BYTES = 8192
REFRESH = 60.0
"""Seconds for which `Session.repeat` keeps what the environment says."""


class Reply(NamedTuple):
    """A complete answer; the body is not decompressed."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


class Session(requests.Session):
    """A session that asks for uncompressed answers, and obeys `within`."""

    def __init__(self) -> None:
        """Prepare the session; nothing is opened."""
        super().__init__()
        self.headers["Accept-Encoding"] = "identity"
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))  # cookies would pile up
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter())
        self._heads: dict[Any, tuple[float, requests.PreparedRequest, Any]] = {}

    def ask(
        self, method: str, url: str, seconds: float, most_bytes: int, *, connect: float | None = None, **about: Any
    ) -> Reply:
        """Send a request and read its whole answer; redirects are not followed.

        Args:
            method: such as `POST`.
            url: where to.
            seconds: how long the exchange may take.
            most_bytes: how large the body may be.
            connect: how long connecting may take; as long as the exchange by default.
            about: arguments of `requests.Session.request`.

        Raises:
            requests.Timeout: if no complete answer came in time.
            requests.RequestException: if none came for another reason, or it was too large.
        """
        timeout = (connect or seconds, seconds)
        return _exchange(
            lambda: self.request(method, url, timeout=timeout, allow_redirects=False, stream=True, **about),
            seconds,
            most_bytes,
        )

    def repeat(
        self, url: str, body: bytes, seconds: float, most_bytes: int, headers: Mapping[str, str], verify: str | None
    ) -> Reply:
        """Post a body, as `ask` does, again and again to the same address, for half of the CPU time.

        The head of the request, and what the environment says of proxies and passwords, is found anew after `REFRESH`
        seconds, and after a failure.

        Raises:
            requests.Timeout: if no complete answer came in time.
            requests.RequestException: if none came for another reason, or it was too large.
        """
        request, settings = self._prepared(url, headers, verify)
        request.prepare_body(body, None)
        try:
            return _exchange(
                lambda: self.send(request, timeout=(seconds, seconds), allow_redirects=False, **settings),
                seconds,
                most_bytes,
            )
        except requests.RequestException:
            self._heads.clear()
            raise

    def _prepared(
        self, url: str, headers: Mapping[str, str], verify: str | None
    ) -> tuple[requests.PreparedRequest, dict[str, Any]]:
        """A request without a body, and how it is sent."""
        key, now = (url, verify, *headers.items()), clock.monotonic()
        known = self._heads.get(key)
        if known is None or not 0 <= now - known[0] < REFRESH:
            request = self.prepare_request(requests.Request("POST", url, headers=headers))
            settings = self.merge_environment_settings(url, {}, True, verify, None)
            known = self._heads[key] = now, request, settings
        return known[1].copy(), dict(known[2])


def _exchange(send: Callable[[], requests.Response], seconds: float, most_bytes: int) -> Reply:
    """Send a request and read its whole answer."""
    end = clock.monotonic() + seconds
    try:
        with within(seconds, most_bytes + HEAD_BYTES), send() as response:
            response.raw.headers.pop("Content-Encoding", None)  # so that it is not decompressed
            body = b""
            for part in response.iter_content(CHUNK_BYTES):
                body += part
                if len(body) > most_bytes:
                    raise requests.ConnectionError(TooMuch("the answer is too large"))
            return Reply(response.status_code, response.reason or "", response.headers, body)
    except requests.Timeout:
        raise
    except requests.RequestException as error:
        if clock.monotonic() < end:
            raise
        raise requests.ReadTimeout(*error.args) from error


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more)
        self.poolmanager.pool_classes_by_scheme = _limited(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **more: Any) -> Any:
        manager = super().proxy_manager_for(*args, **more)
        manager.pool_classes_by_scheme = _limited(manager)
        return manager


def _limited(manager: Any) -> dict[str, type]:
    return {scheme: _limited_pool(pool) for scheme, pool in manager.pool_classes_by_scheme.items()}


@cache
def _limited_pool(pool: Any) -> type:
    """The pool class whose connections obey the limits."""
    if issubclass(pool.ConnectionCls, Limited):
        return pool  # type: ignore[no-any-return]
    connection = type(pool.ConnectionCls.__name__, (Limited, pool.ConnectionCls), {})
    return type(pool.__name__, (pool,), {"ConnectionCls": connection})
