"""Counts with their unit, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otel_progress.model.values import Number

_MEASURES: Final = frozenset({"min", "mol", "rad", "deg", "cal", "bar", "sec"})


def plural(unit: str, count: float = 2) -> str:
    """Return the plural of a unit (`files` for `file`) unless the count is 1; units of measurement stay unchanged."""
    plain = len(unit) > 2 and unit.isascii() and unit.isalpha() and unit.islower() and unit not in _MEASURES
    if not plain or count == 1 or (unit.endswith("s") and unit[-2] != "s"):
        return unit
    if unit.endswith("y") and unit[-2] not in "aeiou":
        return f"{unit[:-1]}ies"
    return unit + ("es" if unit.endswith(("tch", "sh", "ss", "x")) else "s")


def units(completed: Number, total: Number | None, unit: str) -> str:
    """Format a count: `3 of 10 files`."""
    whole = "" if total is None else f" of {total:g}"
    return f"{completed:g}{whole} {plural(unit, completed if total is None else total)}"
