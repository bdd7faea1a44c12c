"""The query parameters that each route takes; a name that it does not take is refused, as it would change nothing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from otel_progress.monitor.web import openapi

SHOWN: Final = 50
"""Characters shown of an unknown name."""


@lru_cache(maxsize=1)
def _known() -> dict[tuple[str, str], tuple[str, ...]]:
    """The parameters of each route and method, as the description of the API has them."""
    return {
        (path, method.upper()): tuple(one["name"] for one in about.get("parameters", ()) if one["in"] == "query")
        for path, methods in openapi.document("")["paths"].items()
        for method, about in methods.items()
    }


def wrong_name(path: str, method: str, given: Iterable[str]) -> str | None:
    """What is wrong with the first parameter that a route does not take; None where it takes them all."""
    known = _known().get((path, "GET" if method == "HEAD" else method), ())
    odd = next((name for name in given if name not in known), None)
    if odd is None:
        return None
    if not known:
        return f"{odd[:SHOWN]!r} is not a parameter: this route takes none"
    nearest = difflib.get_close_matches(odd[:SHOWN], known, 1, 0.0)[0]
    return f"{odd[:SHOWN]!r} is not a parameter of this route; did you mean {nearest!r}? It takes {', '.join(known)}"
