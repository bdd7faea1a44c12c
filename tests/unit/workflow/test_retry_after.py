"""How long a server asks to wait, as the exceptions of HTTP clients say it."""

from __future__ import annotations

import urllib.error
from email.message import Message
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from otel_progress.testing import FakeClock
from otel_progress.workflow.retry_after import retry_after


def with_headers(**headers: str) -> Exception:
    error = ValueError("429")
    error.response = SimpleNamespace(headers={name.replace("_", "-"): value for name, value in headers.items()})  # type: ignore[attr-defined]
    return error


def of_requests() -> Exception:
    answer = requests.Response()
    answer.headers["retry-after"] = "7"
    return requests.HTTPError("429", response=answer)


def of_urllib() -> Exception:
    headers = Message()
    headers["Retry-After"] = "7"
    return urllib.error.HTTPError("http://x", 429, "slow down", headers, None)


def wrapped() -> Exception:
    error = ValueError("wrapped")
    error.__cause__ = of_requests()
    return error


def own(value: Any) -> Exception:
    error = ValueError()
    error.retry_after = value  # type: ignore[attr-defined]
    return error


class Hostile(Exception):
    @property
    def response(self) -> object:
        raise RuntimeError("not yet")


ERRORS: dict[str, tuple[Exception, float | None]] = {
    "requests": (of_requests(), 7),
    "urllib": (of_urllib(), 7),
    "wrapped": (wrapped(), 7),
    "milliseconds": (with_headers(retry_after_ms="1500", Retry_After="9"), 1.5),
    "a date": (with_headers(Retry_After="Tue, 14 Nov 2023 22:13:50 GMT"), 30),
    "a date that is over": (with_headers(Retry_After="Tue, 14 Nov 2000 22:13:50 GMT"), 0),
    "no date": (with_headers(Retry_After="soon"), None),
    "a day": (with_headers(Retry_After="86400"), 3600),
    "below zero": (with_headers(Retry_After="-3"), None),
    "nan": (with_headers(Retry_After="nan"), None),
    "an attribute": (own(2.5), 2.5),
    "an attribute that is no number": (own("soon"), None),
    "no headers": (ValueError("x"), None),
    "hostile": (Hostile(), None),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_the_server_asks(case: str, fake: FakeClock) -> None:
    """Seconds, milliseconds and dates are read, at most an hour; what can't be read asks nothing."""
    error, expected = ERRORS[case]
    assert retry_after(error) == expected
