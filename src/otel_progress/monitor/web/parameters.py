"""The query parameters of the routes: which names each route takes, and how their values are parsed.

A name that a route does not take is refused, as it would change nothing.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from starlette.datastructures import QueryParams

from otel_progress.model.states import WORDS
from otel_progress.model.status import Status
from otel_progress.monitor.state.saved import Query
from otel_progress.monitor.web import openapi
from otel_progress.monitor.web.openapi import TIME_MOST
from otel_progress.monitor.web.request_error import RequestError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Scope

    from otel_progress.monitor.auth import Identity

SHOWN: Final = 50
"""Characters shown of an unknown name or word."""
STATUSES: Final = frozenset(status.value for status in Status if status is not Status.SKIPPED)
"""The words that `status` takes."""
_SECONDS: Final = re.compile(r"-?[0-9]{1,30}(\.[0-9]{0,30})?([eE][+-]?[0-9]{1,3})?")


@lru_cache(maxsize=1)
def _known() -> dict[tuple[str, str], tuple[str, ...]]:
    """The parameters of each route and method, from the OpenAPI document."""
    return {
        (path, method.upper()): tuple(one["name"] for one in about.get("parameters", ()) if one["in"] == "query")
        for path, methods in openapi.document("")["paths"].items()
        for method, about in methods.items()
    }


def wrong_name(path: str, method: str, given: Iterable[str]) -> str | None:
    """What is wrong with the first parameter that a route does not take; None if it takes them all."""
    known = _known().get((path, "GET" if method == "HEAD" else method), ())
    odd = next((name for name in given if name not in known), None)
    if odd is None:
        return None
    if not known:
        return f"{odd[:SHOWN]!r} is not a parameter: this route takes none"
    guess = "".join(f"; did you mean {near!r}?" for near in difflib.get_close_matches(odd[:SHOWN].lower(), known, 1))
    return f"{odd[:SHOWN]!r} is not a parameter of this route{guess or '.'} It takes {', '.join(known)}"


def check_names(path: str, scope: Scope) -> None:
    """Refuse a query parameter that a route does not take.

    Raises:
        RequestError: for the first such parameter; it lists those that the route takes.
    """
    given = QueryParams(scope.get("query_string", b""))
    reason = wrong_name(path, scope.get("method", "GET"), given.keys())
    if reason is not None:
        raise RequestError(400, reason)


def query_of(request: Request, identity: Identity) -> tuple[Query, frozenset[str]]:
    """The filter of a list: what the store can look up, and the verdicts.

    Raises:
        RequestError: for an invalid value; so do the functions below.
    """
    get = request.query_params.get
    query = Query(
        statuses=words(request, "status", STATUSES),
        name=get("name"),
        search=get("search") or None,
        since=time(request, "since"),
        until=time(request, "until"),
        parent=get("parent"),
        owner=identity.owner,
    )
    return query, frozenset(words(request, "verdict", WORDS))


def words(request: Request, key: str, known: frozenset[str]) -> tuple[str, ...]:
    """Words from a fixed set, separated by commas."""
    given = [word for word in request.query_params.get(key, "").split(",") if word]
    for word in given:
        if word not in known:
            raise RequestError(400, f"{key}={word[:SHOWN]} is invalid; it is one or more of {', '.join(sorted(known))}")
    return tuple(given)


def number(request: Request, key: str, default: int, most: int) -> int:
    """A whole number from 0 to `most`; a limit of 0 counts as 1."""
    given = request.query_params.get(key)
    if given is None:
        return default
    if not given.isascii() or not given.isdecimal() or len(given) > 19 or int(given) > most:
        raise RequestError(400, f"{key} must be a whole number from 0 to {most}")
    return int(given) if key != "limit" else max(1, int(given))


def seconds(request: Request, key: str, default: float, most: float) -> float:
    """A number of seconds from 0 to `most`."""
    given = time(request, key)
    if given is None:
        return default
    if not 0 <= given <= most:
        raise RequestError(400, f"{key} must be a number of seconds from 0 to {most:g}")
    return given


def time(request: Request, key: str) -> float | None:
    """A time in Unix seconds, or a duration in seconds."""
    given = request.query_params.get(key)
    if given is None:
        return None
    if not _SECONDS.fullmatch(given) or not abs(found := float(given)) <= TIME_MOST:
        raise RequestError(400, f"{key} must be a number of seconds")
    return found
