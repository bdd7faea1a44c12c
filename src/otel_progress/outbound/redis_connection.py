"""A connection to Redis, for those who retry by themselves: the monitor's stream, and handlers."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from otel_progress.errors import InvalidArgument, MissingDependency

SOCKET_SECONDS: Final = 5.0
"""Seconds that Redis may be silent; longer than a read blocks."""


def connect(url: str) -> tuple[Any, str]:
    """A client for an address, which connects later and retries nothing, and the address without secrets.

    Raises:
        InvalidArgument: if the address is invalid.
        MissingDependency: if the client is not installed.
    """
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.connection import parse_url
        from redis.retry import Retry
    except ImportError:
        raise MissingDependency('Redis needs: pip install "otel-progress[redis]"') from None
    try:
        parse: Any = parse_url  # the client has no types
        parts = urlsplit(url)
        shown = _shown(parts)
        options: dict[str, Any] = {
            **parse(url),
            "retry": Retry(NoBackoff(), 0),  # whoever uses it retries
            "socket_timeout": SOCKET_SECONDS,
            "decode_responses": False,
            "protocol": 2,
        }
        if parts.scheme != "unix":
            options["socket_connect_timeout"] = SOCKET_SECONDS
        return redis.Redis(connection_pool=redis.ConnectionPool(**options)), shown
    except Exception:  # the error text may show a part of the password
        raise InvalidArgument(
            "the address of Redis must look like redis://localhost:6379/0, rediss://user:password@host:6379/0 or "
            "unix:///path/to/redis.sock; it is not shown here, as it may hold a password"
        ) from None


def _shown(parts: SplitResult) -> str:
    """The address without name, password and options."""
    if parts.scheme == "unix":
        return f"unix://{unquote(parts.path)}"
    host = parts.hostname or "localhost"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{parts.port or 6379}{parts.path}"
