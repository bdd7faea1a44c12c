"""gzip for requests: by default over a network, as the variables say, and as long as the receiver takes it."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from otel_progress.outbound.loopback import is_loopback

if TYPE_CHECKING:
    from otel_progress.settings import Endpoint

LEVEL: Final = 3
"""Higher levels take twice the time for 3 to 30% fewer bytes; docs/performance.md has the numbers."""
LEAST: Final = 1024
"""The size from which a request is compressed, in bytes; a smaller one fits into a packet or two as it is."""


def is_wanted(endpoint: Endpoint) -> bool:
    """Whether requests to this endpoint are compressed: unless it is on this machine, where bytes cost nothing."""
    if endpoint.compression != "auto":
        return endpoint.compression == "gzip"
    try:
        host = urlsplit(endpoint.url).hostname
    except ValueError:
        return False
    return host is not None and not is_loopback(host)


class Compression:
    """gzip toward one receiver, until it turns out not to take it."""

    def __init__(self, endpoint: Endpoint) -> None:
        """As the endpoint wants it."""
        self._is_on = is_wanted(endpoint)
        self._is_proven = False

    def covers(self, body: bytes) -> bool:
        """Whether a request is worth it."""
        return self._is_on and len(body) >= LEAST

    def pack(self, body: bytes) -> bytes | None:
        """The compressed request; None if it is better sent as it is."""
        packed = gzip.compress(body, LEVEL, mtime=0) if self.covers(body) else body
        return packed if len(packed) < len(body) else None

    def may_be_to_blame(self, *, surely: bool) -> bool:
        """Whether a compressed request that was refused is to be sent again as it is.

        `surely` says that the answer is about the encoding. Any other refusal of the content may be, too, as long as
        the receiver accepted no compressed request.
        """
        return surely or not self._is_proven

    def accepted(self) -> None:
        """The receiver accepted a compressed request."""
        self._is_proven = True

    def stop(self) -> None:
        """The receiver does not take it: all further requests are sent as they are."""
        self._is_on = False
