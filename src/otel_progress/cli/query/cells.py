"""What tables and headings show of one operation: its sign, state, percentage, counts and age."""

from __future__ import annotations

from datetime import datetime

from otel_progress import clock
from otel_progress.cli.query.rows import GONE, Row, mapping, number, stage_progress_of, text
from otel_progress.model import units
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Health, Status
from otel_progress.model.units import duration, stopwatch
from otel_progress.render import words


def icon(one: Snapshot) -> words.Span:
    """Its sign in the tree."""
    bad = words.trouble(one)
    if bad is not None:
        return words.UNKNOWN if one.health is Health.UNKNOWN else words.TROUBLE, f"bold {bad[1]}"
    if one.status in words.ICONS:
        return words.ICONS[one.status], words.STYLES.get(one.status, "yellow" if one.wait else "")
    return words.STILL, "cyan"


def state(one: Snapshot) -> words.Span:
    """Its status, or its trouble."""
    bad = words.trouble(one)
    if bad is not None:
        return bad[0], f"bold {bad[1]}"
    return one.status.value, words.STYLES.get(one.status, "yellow" if one.wait else "cyan")


def percent(one: Snapshot) -> str:
    """`45%`; rounded down, so that 100% means done. Empty if the counts beside it say less."""
    ratio = one.progress.stated
    return "" if ratio is None else units.percent(ratio)


def spent(one: Snapshot) -> str:
    """How long it took, `9.5 s`; while it runs, a clock."""
    return duration(one.elapsed) if one.status.final else stopwatch(one.elapsed)


def counted(one: Snapshot, row: Row) -> str:
    """How much is done; if it ended without a count of its own, the count of its last stage."""
    own = words.counted(one.progress)
    if own and (one.progress.completed or not one.status.final):
        return own
    return words.counted(stage_progress_of(row)) if one.status.final else own


def remaining(one: Snapshot) -> str:
    """`about 4 min`, `then about 4 min` during a wait, `beyond its total`; else empty without an estimate."""
    if one.progress.eta is None:
        beyond = not one.status.final and units.is_beyond(one.progress.completed, one.progress.total)
        return units.BEYOND if beyond else ""
    return words.remaining(one.progress, waits=one.status is Status.WAITING).removesuffix(" left")


def ago(point: float | None, now: float) -> str:
    """`3 min 12 s ago`."""
    return "" if point is None else f"{duration(max(0.0, now - point))} ago"


def begun(one: Snapshot, now: float) -> str:
    """How long ago it started: `3 min 12 s ago`; of what is heard, by the clock that measures how long it runs."""
    if one.started_at is None or one.status.final or one.health in GONE:
        return ago(one.started_at, now)
    return f"{duration(one.elapsed)} ago"


def doing(one: Snapshot) -> words.Span:
    """Why it is in trouble or ended, what it waits for, or what it does."""
    bad = words.trouble(one)
    if bad is not None:
        return (f"at {one.stuck_at}: " if one.stuck_at else "") + str(one.health_reason), bad[1]
    if one.wait is not None:
        return words.waiting(one.wait), "yellow"
    if one.status.final:
        return one.reason or "", words.STYLES.get(one.status, "")
    return "; ".join(filter(None, ("asked to stop" if one.cancel_requested else "", one.message))), ""


def until_words(muted: Row) -> str:
    """How long a mute lasts, by the clock of this machine."""
    until = number(muted.get("until"))
    if until is None:
        return "until it ends"
    at = datetime.fromtimestamp(until).astimezone()
    same_day = at.date() == datetime.fromtimestamp(clock.unix()).astimezone().date()
    return f"until {at:%H:%M}" if same_day else f"until {at:%Y-%m-%d %H:%M}"


def muted_words(row: Row) -> str | None:
    """Who muted an operation, until when and why; None if it is not muted."""
    muted = mapping(row.get("muted"))
    if not muted:
        return None
    by, why, through = (text(muted.get(key)) for key in ("by", "reason", "through"))
    who = f" by {by}" if by else ""
    above = f", through {through}" if through else ""
    return words.clean(f"muted{who} {until_words(muted)}{above}{f': {why}' if why else ''}")
