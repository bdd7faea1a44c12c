"""Labels that distinguish operations or stages with the same name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from otel_progress.model.summary import shown
from otel_progress.model.values import Attributes

LENGTH: Final = 40
"""Characters kept of a label."""
Known: TypeAlias = "tuple[Attributes, str | None]"
"""The attributes and the description of an operation or stage."""


def apart(given: Sequence[Known]) -> list[str]:
    """Return for each what differs: `topic=solar`, else its description; empty texts if nothing differs.

    If several attributes differ, the first with the most distinct values is used.
    """
    if len(given) < 2:
        return [""] * len(given)
    keys = dict.fromkeys(key for attributes, _ in given for key in attributes)
    values = {key: [attributes.get(key) for attributes, _ in given] for key in keys}
    best = max(values, key=lambda key: len(set(values[key])), default=None)
    if best is not None and len(set(values[best])) > 1:
        return ["" if value is None else _short(f"{best}={shown(value)}") for value in values[best]]
    descriptions = [description for _, description in given]
    return [_short(one or "") for one in descriptions] if len(set(descriptions)) > 1 else [""] * len(given)


def _short(text: str) -> str:
    return text if len(text) <= LENGTH else text[: LENGTH - 1] + "…"
