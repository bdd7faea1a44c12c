"""What `recover` prints: a few lines for each operation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from otel_progress.cli.query.cells import ago
from otel_progress.model.command_line import is_cut
from otel_progress.model.status import Status
from otel_progress.model.units import duration, percent, plural, units
from otel_progress.render import words
from otel_progress.render.words import Line

if TYPE_CHECKING:
    from otel_progress.cli.recover.recoverable import Recoverable
    from otel_progress.durable.store import Suspect

KEYS: Final = 5
"""The most keys that are shown of an operation."""
KEY: Final = 60
"""The most characters of a key."""


def listed(found: Sequence[Recoverable], more: int, where: str, why: str | None, now: float) -> list[Line]:
    """The list, and where it comes from.

    Args:
        found: the operations.
        more: how many are not shown.
        where: the address of the store; empty without one.
        why: why no monitor was asked.
        now: the time (s, Unix).
    """
    out: list[Line] = []
    for one in found:
        out += [*_operation(one, now, bool(where)), ()]
    if not found:
        out.append((("nothing was interrupted or lost", ""),))
    kinds = Counter(one.status for one in found)
    if len(kinds) > 1:  # `list --status lost` names fewer
        out.append(((", ".join(f"{count:,} {status}" for status, count in kinds.most_common()), "dim"),))
    if more:
        out.append(((f"+ {more:,} more; --limit N shows more", "dim"),))
    if why is not None:
        out.append(((f"only the store {plain(where)} is asked: {plain(why)}", "dim"),))
    elif not where:
        out.append((("only the monitor is asked; --store names the checkpoint store", "dim"),))
    return out


def _operation(one: Recoverable, now: float, has_store: bool) -> list[Line]:
    status = Status(one.status)
    style = words.STYLES.get(status, "")
    reason = f": {plain(one.reason)}" if one.reason else ""
    attempt = f", attempt {one.attempt}" if one.attempt > 1 else ""
    name = "" if one.name == one.id else f"  {plain(one.name)}"
    head: Line = (
        (f"{words.ICONS[status]} ", style),
        (plain(one.id), "bold"),
        (name, ""),
        (f"  {one.status}{_without(one)}", style),
        (f" {ago(one.ended_at, now)}{attempt}{reason}", ""),
    )
    elsewhere = "not in this store: only the monitor knows it" if has_store and one.holder is None else ""
    facts = [_far(one), _saved(one, now), elsewhere, *_keys(one.suspects)]
    line = one.line
    if line:
        said = "  (it was too long to be kept whole)" if is_cut(one.command) else ""
        if plain(line) != line:
            said = "  (not to be copied: it has line breaks or control characters, which --run keeps)"
        facts.append(plain(line) + said)
    return [head, *(((f"    {fact}", ""),) for fact in facts if fact)]


def _without(one: Recoverable) -> str:
    """What a completed operation left out."""
    count = _aside(one)
    return f" without {count:,} {plural('item', count)}" if count else ""


def _aside(one: Recoverable) -> int:
    """The number of items that a completed operation left out."""
    return sum(suspect.aside for suspect in one.suspects) if one.status == Status.COMPLETED.value else 0


def _far(one: Recoverable) -> str:
    """How far it was: `130 of 1,351 items, 9%, in load: reading part 2, at parse.py:88`."""
    progress = one.progress
    done, stated, aside = progress.completed, progress.stated, _aside(one)
    if aside and done is not None and progress.total:
        done = max(0, done - aside)  # the program has left them behind as well
        stated = min(1.0, done / progress.total)
    said = [] if done is None else [units(done, progress.total, progress.unit)]
    if stated is not None:
        said.append(percent(stated))
    if one.stage:
        said.append(f"in {plain(one.stage)}")
    text = ", ".join(said) + (f": {plain(one.message)}" if one.message and one.message != one.stage else "")
    return text.removeprefix(": ") + (f", stuck at {plain(one.stuck_at)}" if one.stuck_at else "")


def _saved(one: Recoverable, now: float) -> str:
    if one.checkpoint_at is None:
        return "" if one.holder is None else "it has saved nothing, so it begins anew"
    return f"last checkpoint {duration(max(0.0, now - one.checkpoint_at))} ago"


def _keys(suspects: Sequence[Suspect]) -> list[str]:
    """The keys that ended its process: those that are set aside, and those that may be."""
    aside = [suspect for suspect in suspects if suspect.aside]
    others = [suspect for suspect in suspects if not suspect.aside]
    out = []
    if aside:
        out.append(f"set aside, as they ended the process: {_named(aside)}")
    if others:
        out.append(f"in hand when its process died: {_named(others)}")
    return out


def _named(suspects: Sequence[Suspect]) -> str:
    names = [
        plain(suspect.key)[:KEY] + (f" ({suspect.deaths} times)" if suspect.deaths > 1 else "") for suspect in suspects
    ]
    return ", ".join(names[:KEYS]) + (f" and {len(names) - KEYS:,} more" if len(names) > KEYS else "")


def plain(value: str | None) -> str:
    """A text without characters that a terminal can't show."""
    return words.clean(value or "")
