"""One POST request of a webhook, and its result."""

from __future__ import annotations

import base64
import http.client
import ssl
from collections.abc import Mapping
from contextlib import closing
from typing import Final, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from otel_progress import clock
from otel_progress.errors import InvalidArgument
from otel_progress.outbound.deadline import HEAD_BYTES, Plain, Tls, seconds_of, within

ANSWER_BYTES: Final = 2 * HEAD_BYTES
"""The largest answer that is read, head included."""


class PostResult(NamedTuple):
    """The outcome of a POST: the HTTP status (0 without an answer), the pause asked for (seconds), and words."""

    status: int
    after: float | None = None
    reason: str = ""

    @property
    def arrived(self) -> bool:
        """Whether the receiver accepted the delivery."""
        return 200 <= self.status < 300

    @property
    def retry(self) -> bool:
        """Whether a retry may succeed."""
        return self.status in (0, 408, 429) or self.status >= 500


class WebhookEndpoint:
    """An http or https address that takes POST requests; a name and password in it make a Basic authorization.

    Redirects are not followed, certificates are verified with the authorities that the system trusts, and no proxy is
    used. A request has one deadline, as described in `deadline`.
    """

    def __init__(self, url: str) -> None:
        """Parse the address; nothing is opened.

        Raises:
            InvalidArgument: if the address is invalid; the message does not show it, as it may hold a secret.
        """
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
        except Exception as error:
            words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            return PostResult(0, None, f"{type(error).__name__}: {words}"[:200])

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        if self._tls is not None:
            return Tls(self._host, self._port, timeout=timeout, context=self._tls)
        return Plain(self._host, self._port, timeout=timeout)
