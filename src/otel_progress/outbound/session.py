"""Sessions of requests whose exchanges have one deadline and one size; importing this imports requests."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from http.cookiejar import DefaultCookiePolicy
from typing import Any, NamedTuple

import requests
from requests.adapters import HTTPAdapter

from otel_progress import clock
from otel_progress.outbound.deadline import HEAD_BYTES, Limited, TooMuch, within

PIECE = 8192


class Reply(NamedTuple):
    """A whole answer; the body is as it came, unpacked by nobody."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


class Session(requests.Session):
    """A session that asks for answers that are not packed, and obeys `within`."""

    def __init__(self) -> None:
        """Nothing is opened."""
        super().__init__()
        self.headers["Accept-Encoding"] = "identity"
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))  # kept, they would pile up
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter())

    def ask(
        self, method: str, url: str, seconds: float, most_bytes: int, *, connect: float | None = None, **about: Any
    ) -> Reply:
        """Send a request and read all of its answer; redirects are not followed.

        Args:
            method: such as `POST`.
            url: where to.
            seconds: how long all of it may take.
            most_bytes: how large the body may be.
            connect: how long of it connecting may take; all of it unless said.
            about: what `requests.Session.request` takes.

        Raises:
            requests.Timeout: where no whole answer came in that time.
            requests.RequestException: where none came for another reason, or a larger one.
        """
        end = clock.monotonic() + seconds
        try:
            return self._ask(method, url, (connect or seconds, seconds), most_bytes, about)
        except requests.Timeout:
            raise
        except requests.RequestException as error:
            if clock.monotonic() < end:
                raise
            raise requests.ReadTimeout(*error.args) from error

    def _ask(
        self, method: str, url: str, timeout: tuple[float, float], most_bytes: int, about: Mapping[str, Any]
    ) -> Reply:
        seconds = timeout[1]
        with (
            within(seconds, most_bytes + HEAD_BYTES),
            self.request(method, url, timeout=timeout, allow_redirects=False, stream=True, **about) as response,
        ):
            response.raw.headers.pop("Content-Encoding", None)  # lest it is unpacked
            body = b""
            for part in response.iter_content(PIECE):
                body += part
                if len(body) > most_bytes:
                    raise requests.ConnectionError(TooMuch("the answer is larger than any that is expected"))
            return Reply(response.status_code, response.reason or "", response.headers, body)


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
    """The class of pools with connections that obey the limits."""
    if issubclass(pool.ConnectionCls, Limited):
        return pool  # type: ignore[no-any-return]
    connection = type(pool.ConnectionCls.__name__, (Limited, pool.ConnectionCls), {})
    return type(pool.__name__, (pool,), {"ConnectionCls": connection})
