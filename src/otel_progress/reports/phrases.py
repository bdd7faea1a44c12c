"""Amounts, counts and attributes as text."""

from __future__ import annotations

from collections.abc import Mapping

from otel_progress.model import units
from otel_progress.model.snapshot import Progress
from otel_progress.model.summary import shown
from otel_progress.model.units import BYTES, amount, count, plural
from otel_progress.render import words
from otel_progress.render.words import clean


def money(cost: Mapping[str, object]) -> str:
    """Amounts of money: `1.2 USD, 3 EUR`; currencies are never added up."""
    return ", ".join(units.money(n, clean(currency)) for currency, n in cost.items() if isinstance(n, (int, float)))


def numbers(values: Mapping[str, object]) -> list[tuple[str, float]]:
    """The numbers among values, by name."""
    return [(key, value) for key, value in values.items() if isinstance(value, (int, float))]


def quantity(unit: str, n: float) -> str:
    """A number of units: `3 rows`, `4.2 MB`."""
    return amount(n, unit) + ("" if unit in ("1", *BYTES) else f" {plural(clean(unit), n)}")


def tokens(tokens: Mapping[str, object]) -> str:
    """Tokens by direction: `1,200 input, 300 output`."""
    return ", ".join(f"{count(n)} {clean(key)}" for key, n in numbers(tokens))


def listed(values: Mapping[str, object]) -> str:
    """Values by name: `shard=3, region=eu`."""
    return ", ".join(f"{key}={shown(value)}" for key, value in values.items())


def counted(progress: Progress) -> str:
    """What is done with its unit, items too: `60 items`, `7/100 rows`."""
    said, of = words.counted(progress), progress.total
    is_bare = progress.unit == "item" and bool(said) and bool(of) and of != progress.completed
    return f"{said} {plural('item', of or 0)}" if is_bare else said
