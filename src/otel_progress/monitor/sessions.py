"""Browser sessions and login links: limited in number for each token and in all, and in time.

Secrets are kept and looked up as digests, so the time of a look-up reveals nothing about valid ones.
"""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Generic, TypeVar

from otel_progress import clock

SESSIONS: Final = 1_000
"""The most sessions, and the most login links."""
SESSIONS_A_TOKEN: Final = 100
"""The most sessions of one token; beyond it the oldest one ends."""
SESSION_SECONDS: Final = 12 * 3600.0
LINK_SECONDS: Final = 300.0
Who = TypeVar("Who")


@dataclass(frozen=True)
class _Session(Generic[Who]):  # Python 3.10 has no generic named tuples
    """What a secret opens, until when, and the token it was made with."""

    until: float
    who: Who
    holder: bytes


class Secrets(Generic[Who]):
    """Secrets that were handed out, each valid for a time."""

    def __init__(self, seconds: float, most: int, most_each: int) -> None:
        """At most `most` in all, and `most_each` for each holder; each is valid for `seconds`."""
        self._seconds, self._most, self._most_each = seconds, most, most_each
        self._held: dict[bytes, _Session[Who]] = {}

    def make(self, who: Who, holder: bytes = b"") -> str:
        """A new secret; if there are too many, the oldest of the same holder, or of the one with most, ends."""
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
        """Who has this secret; None if it is unknown or expired."""
        found = self._held.get(_digest(secret))
        return found.who if found is not None and clock.monotonic() < found.until else None

    def pop(self, secret: str) -> Who | None:
        """Who has this secret; it is invalid from now on."""
        found = self.get(secret)
        self._held.pop(_digest(secret), None)
        return found

    def _drop_oldest(self, holder: bytes) -> None:
        del self._held[next(key for key, one in self._held.items() if one.holder == holder)]


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "replace")).digest()
