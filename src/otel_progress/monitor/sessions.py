"""Sessions of browsers: so many a token, so many in all, and each for so long.

Secrets are kept as digests and looked up by these, so the time of a look-up tells nothing of those that are right.
"""

from __future__ import annotations

import secrets
from collections import Counter
from hashlib import sha256
from typing import Final, Generic, NamedTuple, TypeVar

from otel_progress import clock

SESSIONS: Final = 1_000
"""Sessions, and links that open one."""
SESSIONS_A_TOKEN: Final = 100
"""Sessions that one token may have open; its oldest one makes room for another."""
SESSION_SECONDS: Final = 12 * 3600.0
LINK_SECONDS: Final = 300.0
Who = TypeVar("Who")


class _Session(NamedTuple, Generic[Who]):
    """What a secret opens, until when, and by which token it was made."""

    until: float
    who: Who
    holder: bytes


class Secrets(Generic[Who]):
    """Secrets that were given out, each good for so long."""

    def __init__(self, seconds: float, most: int, most_each: int) -> None:
        """At most so many in all, and so many for each holder."""
        self._seconds, self._most, self._most_each = seconds, most, most_each
        self._held: dict[bytes, _Session[Who]] = {}

    def make(self, who: Who, holder: bytes = b"") -> str:
        """A new secret; where there are too many, the oldest of the same holder is over, else of who has most."""
        now = clock.monotonic()
        self._held = {key: one for key, one in self._held.items() if now < one.until}
        counts = Counter(one.holder for one in self._held.values())
        if counts[holder] >= self._most_each or (len(self._held) >= self._most and counts[holder]):
            self._drop_oldest(holder)
        elif len(self._held) >= self._most:
            self._drop_oldest(max(counts, key=counts.__getitem__))
        secret = secrets.token_urlsafe(32)
        self._held[_digest(secret)] = _Session(now + self._seconds, who, holder)
        return secret

    def get(self, secret: str) -> Who | None:
        """Who has this secret; None where it is none, or not good any more."""
        found = self._held.get(_digest(secret))
        return found.who if found is not None and clock.monotonic() < found.until else None

    def pop(self, secret: str) -> Who | None:
        """The same, and it is over."""
        found = self.get(secret)
        self._held.pop(_digest(secret), None)
        return found

    def _drop_oldest(self, holder: bytes) -> None:
        del self._held[next(key for key, one in self._held.items() if one.holder == holder)]


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "replace")).digest()
