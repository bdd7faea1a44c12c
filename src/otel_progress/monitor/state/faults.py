"""What is wrong with the monitor itself; every view shows it."""

from __future__ import annotations


class Faults:
    """Why the monitor cannot store, read or pass on what it receives.

    Attributes:
        current: the newest error; the next successful write clears it.
        damage: what is wrong with pages of the file.
        displaced: why the file may not be found again, such as that it was moved.
    """

    def __init__(self) -> None:
        """All is well."""
        self.current: str | None = None
        self.damage: str | None = None
        self.displaced: str | None = None

    def found_damage(self, damage: str | None) -> None:
        """Record the result of an integrity check."""
        self.damage = damage

    @property
    def text(self) -> str | None:
        """What is wrong, in words; None if all is well."""
        return self.current or self.damage
