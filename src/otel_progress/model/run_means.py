"""Means over the completed runs of a name, in which newer runs count more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Final

if TYPE_CHECKING:
    from typing_extensions import Self

NEWEST: Final = 0.3
"""The least weight of the newest run."""
_MOST: Final = 1e10
"""The longest time that is remembered, in seconds."""


@dataclass
class RunMeans:
    """How long something took in the completed runs of a name; subclasses may have more means.

    Attributes:
        what: a word for it.
        runs: the number of completed runs.
        seconds: how long it took, on average.
        squares: the mean square of that.
    """

    what: ClassVar[str] = "times"
    runs: int = 0
    seconds: float = 0.0
    squares: float = 0.0

    def _add(self, seconds: float, **means: float) -> None:
        """Add a completed run; one of an impossible time is left out."""
        if 0 <= seconds < _MOST:
            newest = max(NEWEST, 1.0 / (self.runs + 1))
            self._move(newest, {"seconds": seconds, "squares": seconds * seconds, **means})
            self.runs += 1

    def merge(self, other: Self) -> None:
        """Add what another process learned."""
        if not other.runs:
            return
        whole = self.runs + other.runs
        part = max(other.runs / whole, min(1.0, NEWEST * other.runs)) if self.runs else 1.0
        self._move(part, {name: getattr(other, name) for name in _names(other)})
        self.runs = whole

    def _move(self, part: float, means: Mapping[str, float]) -> None:
        """Move each mean towards another one by this part."""
        for name, mean in means.items():
            setattr(self, name, getattr(self, name) + part * (mean - getattr(self, name)))

    def to_list(self) -> list[float]:
        """Return plain numbers."""
        return [self.runs, *(round(getattr(self, name), 6) for name in _names(self))]

    @classmethod
    def from_list(cls, given: Any) -> Self:
        """Read what `to_list` returned.

        Raises:
            TypeError, ValueError: if it is anything else.
        """
        runs, *means = map(float, given)
        named = dict(zip(_names(cls), means, strict=True))
        if not 0 <= runs < _MOST or not all(
            0 <= mean < (_MOST**2 if name == "squares" else _MOST) for name, mean in named.items()
        ):
            raise ValueError(f"the {cls.what} of earlier runs are invalid")
        return cls(int(runs), **named)


def _names(of: RunMeans | type[RunMeans]) -> list[str]:
    return [field.name for field in fields(of) if field.name != "runs"]
