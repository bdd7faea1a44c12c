"""One POST request of a webhook, and its result."""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
from collections.abc import Mapping
from contextlib import closing
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from otel_progress import clock
from otel_progress.errors import InvalidArgument
from otel_progress.outbound import addresses as reach
from otel_progress.outbound.deadline import HEAD_BYTES, Plain, Tls, seconds_of, within
from otel_progress.outbound.trouble import plain

ALLOW: Final = "if that is meant, allow it by the option `addresses`"
ANSWER_BYTES: Final = 2 * HEAD_BYTES
"""The largest answer that is read, head included."""


class PostResult(NamedTuple):
    """The outcome of a POST.

    Attributes:
        status: the HTTP status; 0 without an answer.
        after: the pause that was asked for, in seconds.
        reason: what happened, in words: one short line of printable characters.
        forbidden: whether the receiver has an address that must not be reached.
    """

    status: int
    after: float | None = None
    reason: str = ""
    forbidden: bool = False

    @property
    def arrived(self) -> bool:
        """Whether the receiver accepted the delivery."""
        return 200 <= self.status < 300

    @property
    def retry(self) -> bool:
        """Whether a retry may succeed."""
        return not self.forbidden and (self.status in (0, 408, 429) or self.status >= 500)


class WebhookEndpoint:
    """An http or https address that takes POST requests; a name and password in it make a Basic authorization.

    Redirects are not followed, certificates are verified with the authorities that the system trusts, and no proxy is
    used. A request has one deadline, as described in `deadline`. Each request resolves the name anew, and checks the
    address that it connects to, as `addresses` says.
    """

    def __init__(self, url: str, addresses: str = "private") -> None:
        """Parse the address; nothing is opened.

        Args:
            url: the address.
            addresses: which addresses it may reach, one of `addresses.Addresses`.

        Raises:
            InvalidArgument: if the address is invalid; the message does not show it, as it may hold a secret.
        """
        self._addresses = reach.checked(addresses)
        if not isinstance(url, str):
            url = ""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        plain = all(33 <= ord(character) != 127 for character in url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
            raise InvalidArgument(
                "the address of the webhook must look like https://example.org/hook; "
                "it is not shown here, as it may hold a secret"
            )
        self._host = parts.hostname
        why = reach.objection_to_literal(self._host, addresses)
        if why is not None:
            raise InvalidArgument(f"the address of the webhook is {why}; {ALLOW}")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = port or (443 if self._tls else 80)
        self._target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe="%/:=&?~+!$,;'@()*")
        self._headers: dict[str, str] = {}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self._headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.shown: Final = f"{parts.scheme}://{host}" + (f":{port}" if port else "")
        """The address for logs, without name, password, path and query, each of which may be secret."""

    def post(self, body: bytes, headers: Mapping[str, str], timeout: float) -> PostResult:
        """Send a request within the timeout (seconds); it never raises."""
        try:
            with within(timeout, ANSWER_BYTES), closing(self._connection(timeout)) as connection:
                connection.request("POST", self._target, body, {**headers, **self._headers, "Connection": "close"})
                with connection.getresponse() as response:
                    after = seconds_of(response.headers.get("Retry-After", ""), clock.unix())
                    return PostResult(response.status, after, f"HTTP {response.status}")
        except reach.ForbiddenAddress as error:
            return PostResult(0, None, plain(str(error)), forbidden=True)
        except Exception as error:
            words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            return PostResult(0, None, plain(f"{type(error).__name__}: {words}"))

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        connection: Any = (
            Plain(self._host, self._port, timeout=timeout)
            if self._tls is None
            else Tls(self._host, self._port, timeout=timeout, context=self._tls)
        )
        connection._create_connection = self._connect  # noqa: SLF001  # where http.client opens its socket
        return connection  # type: ignore[no-any-return]

    def _connect(self, where: tuple[str, int], timeout: float | None, _: object = None) -> socket.socket:
        return reach.connect(*where, timeout, self._addresses)
