"""How long a server asks to wait before the next try."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

from otel_progress import clock

MOST: Final = 3600.0
"""Seconds that a server may ask for; more is taken as that."""
CAUSES: Final = 5
"""Causes of an exception that are searched."""


def retry_after(error: BaseException) -> float | None:
    """The seconds that the HTTP answer behind an exception asks to wait, or None.

    Exceptions of httpx, requests, urllib, aiohttp and the clients built on them are read: the headers `Retry-After`
    (seconds or a date) and `retry-after-ms` of their answer, and a number `retry_after` of the exception itself.
    """
    try:
        found = next((seconds for one in _chain(error) for seconds in _asked(one) if seconds is not None), None)
    except Exception:  # an attribute of somebody else's exception may do anything
        return None
    return None if found is None else min(found, MOST)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(CAUSES):
        if error is None:
            return
        yield error
        error = error.__cause__


def _asked(error: BaseException) -> Iterator[float | None]:
    yield from (_of_headers(headers) for headers in _headers(error))
    yield _number(getattr(error, "retry_after", None))


def _headers(error: BaseException) -> Iterator[Mapping[str, Any]]:
    for holder in (getattr(error, "response", None), error):
        headers = getattr(holder, "headers", None)
        if callable(getattr(headers, "get", None)):
            yield headers  # type: ignore[misc]


def _of_headers(headers: Mapping[str, Any]) -> float | None:
    thousandths = _number(_get(headers, "retry-after-ms"))
    if thousandths is not None:
        return thousandths / 1000
    given = _get(headers, "Retry-After")
    seconds = _number(given)
    if seconds is not None or given is None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(str(given)).timestamp() - clock.time_ns() / 1e9)
    except (ValueError, TypeError, OverflowError):
        return None


def _get(headers: Mapping[str, Any], name: str) -> Any:
    """A header by its name; a plain dict knows no other case."""
    found = headers.get(name)
    return headers.get(name.lower()) if found is None else found


def _number(given: Any) -> float | None:
    """A number of seconds of at least 0."""
    try:
        seconds = float(given)
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
