"""The tokens of a trace, counted once, whoever reports them.

A call to a model reports its tokens; an agent, a chain or a second instrumentation around it may report them again. So
a span counts as much as it reports, or as much as the spans below it report, whichever is more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from otel_progress import semconv as s
from otel_progress.model.values import finite

KNOWN: Final = 2_000
"""The most spans of a trace whose tokens are kept apart; those of further spans are added up."""
DEEP: Final = 64
"""The most ancestors of a span that are looked at."""
_KINDS: Final = {"input_tokens": s.INPUT_TOKENS, "output_tokens": s.OUTPUT_TOKENS}
"""The attributes that say how many tokens of each kind a span used; of several on one span the first counts."""

Tokens = dict[str, float]


class _Reported(NamedTuple):
    above: bytes
    tokens: Tokens


class SpanUsage:
    """The tokens that the spans of one trace reported."""

    __slots__ = ("_spans", "before")

    def __init__(self) -> None:
        """Nothing is reported yet."""
        self.before: Tokens = {}
        """What was counted before this monitor started."""
        self._spans: dict[bytes, _Reported] = {}

    def add(self, span_id: bytes, above: bytes, attributes: Mapping[str, Any]) -> None:
        """A span with these attributes arrived; `above` is its parent."""
        tokens = {kind: used for kind, keys in _KINDS.items() if (used := _first(attributes, keys)) is not None}
        if not tokens:
            return
        if len(self._spans) < KNOWN:
            self._spans[span_id] = _Reported(above, tokens)
        else:
            self.before = _sum(self.before, tokens)

    def total(self, parents: Mapping[bytes, Any]) -> Tokens:
        """The tokens of the trace; `parents` has the position of each known span, with its parent as `above`."""
        below: dict[bytes, list[bytes]] = {}
        tops = []
        for span_id, reported in self._spans.items():
            around = self._around(reported.above, parents)
            if around is None:
                tops.append(span_id)
            else:
                below.setdefault(around, []).append(span_id)
        found, whole = dict(self.before), Tokens()
        for top in tops:
            tokens = self._of(top, below, 0)
            if self.before and not self._spans[top].above:
                whole = tokens  # the root holds what was counted before
            else:
                found = _sum(found, tokens)
        return _most(found, whole)

    def _around(self, above: bytes, parents: Mapping[bytes, Any]) -> bytes | None:
        """The nearest ancestor that reports tokens, too."""
        for _ in range(DEEP):
            if above in self._spans:
                return above
            place = parents.get(above)
            if place is None:
                return None
            above = place.above
        return None

    def _of(self, span_id: bytes, below: Mapping[bytes, list[bytes]], depth: int) -> Tokens:
        parts = Tokens()
        for one in below.get(span_id, ()) if depth < DEEP else ():
            parts = _sum(parts, self._of(one, below, depth + 1))
        return _most(self._spans[span_id].tokens, parts)


def _first(attributes: Mapping[str, Any], keys: tuple[str, ...]) -> float | None:
    for key in keys:
        used = attributes.get(key)
        if isinstance(used, (int, float)) and not isinstance(used, bool) and finite(used) and used >= 0:
            return used
    return None


def _sum(one: Mapping[str, float], other: Mapping[str, float]) -> Tokens:
    return {kind: one.get(kind, 0) + other.get(kind, 0) for kind in {**one, **other}}


def _most(one: Mapping[str, float], other: Mapping[str, float]) -> Tokens:
    return {kind: max(one.get(kind, 0), other.get(kind, 0)) for kind in {**one, **other}}
