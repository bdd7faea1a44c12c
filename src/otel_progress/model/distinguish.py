"""Labels that distinguish operations or stages with the same name."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final, TypeAlias

from otel_progress.model.summary import shown
from otel_progress.model.values import Attributes

LENGTH: Final = 40
"""Characters kept of a label."""
NEWEST: Final = 16
"""The most operations of one kind that are labelled apart."""
KINDS: Final = 200
"""The most kinds that are kept."""
Known: TypeAlias = "tuple[Attributes, str | None]"
"""The attributes and the description of an operation or stage."""


class Kin:
    """The newest operations of each kind (such as a name), with what may tell them apart."""

    def __init__(self) -> None:
        """Start without any."""
        self._kinds: dict[Hashable, dict[str, Known]] = {}

    def take(self, kind: Hashable, key: str, known: Known) -> None:
        """Take an operation, which is the newest of its kind now."""
        kin = self._kinds.pop(kind, {})
        kin.pop(key, None)
        kin[key] = known
        while len(kin) > NEWEST:
            del kin[next(iter(kin))]
        self._kinds[kind] = kin
        while len(self._kinds) > KINDS:
            del self._kinds[next(iter(self._kinds))]

    def differs(self, kind: Hashable, key: str) -> str:
        """What differs of an operation from the others of its kind, or an empty text."""
        kin = self._kinds.get(kind, {})
        return dict(zip(kin, apart(list(kin.values())))).get(key) or ""


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
