"""Where the command `report` reads: what every source offers, and what is said if a run is not there."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from otel_progress.cli.query.exit_codes import NOT_FOUND, USAGE, CommandError
from otel_progress.model.snapshot import Snapshot
from otel_progress.render.words import clean
from otel_progress.reports.run import Run

NEAR: Final = 5
"""Ids and names that are offered in place of an unknown one."""
CHOICES: Final = 5

Step = Callable[[int, int], None]
"""Called with the number of runs that were read, and how many there are."""


class Source(Protocol):
    """What a report is read from."""

    words: str
    """Where that is, in words."""

    def close(self) -> None:
        """Close what it reads from; nothing is read afterwards."""

    def find(self, given: str) -> list[str]:
        """The ids that a word may stand for: itself, those that begin with it, or the run of that name."""

    def known(self) -> Iterable[str]:
        """Ids and names there are, to suggest one; the newest, and not all."""

    def run(self, operation_id: str) -> Run:
        """All that is known of one run."""

    def snapshots(self, operation_ids: list[str], step: Step) -> Iterator[Snapshot]:
        """The newest state of each run."""

    def named(self, name: str, since: float, step: Step) -> Iterator[Snapshot]:
        """The runs of a name that began or were heard of since a time, in order of time."""


def resolve(source: Source, given: str) -> str:
    """The id that a word stands for.

    Raises:
        CommandError: if there is none, with similar ones; or if there are several.
    """
    found = source.find(given)
    if len(found) == 1:
        return found[0]
    if found:
        more = f" and {len(found) - CHOICES} more" if len(found) > CHOICES else ""
        ids = ", ".join(clean(one) for one in found[:CHOICES])
        raise CommandError(f"{clean(given)!r} may be {ids}{more}: give more of the id", USAGE)
    raise CommandError(f"no operation {clean(given)!r} in {source.words}{_near(source, given)}", NOT_FOUND)


def unknown_name(source: Source, name: str, since: str) -> CommandError:
    """The error for a name without runs."""
    where = f"no run of {clean(name)!r} {since} in {source.words}{_near(source, name)}"
    return CommandError(f"{where}; --since reaches further back", NOT_FOUND)


def _near(source: Source, given: str) -> str:
    known = list(dict.fromkeys(source.known()))
    if not known:
        return ", which holds none"
    low = given.lower()
    near = [one for one in known if low and (low in one.lower() or one.lower() in low)]
    near = list(dict.fromkeys(near + difflib.get_close_matches(given, known[:5_000], NEAR)))[:NEAR]
    said = ", ".join(clean(one) for one in near or known[:NEAR])
    return f"; similar: {said}" if near else f"; there are, for example, {said}"
