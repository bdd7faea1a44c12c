"""What a report knows of one run, whatever it was read from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, NamedTuple

from otel_progress.model.snapshot import Snapshot
from otel_progress.model.timeline import TIMED, timeline


class Told(NamedTuple):
    """An event of a run; `text` says it in words, `attributes` are JSON text."""

    sequence: int
    timestamp: float
    event: str
    stage: str | None = None
    text: str = ""
    status: str | None = None
    attributes: str | None = None


class Pause(NamedTuple):
    """A wait or a stall; times in Unix seconds, `end` is None while it lasts."""

    kind: str
    stage: str | None
    begin: float
    end: float | None
    reason: str
    stuck_at: str | None = None

    def seconds(self, as_of: float) -> float:
        """How long it lasted, or has lasted so far."""
        return max(0.0, (as_of if self.end is None else self.end) - self.begin)


class Attempt(NamedTuple):
    """One attempt of an id; what is not known is None."""

    number: int
    started_at: float | None = None
    ended_at: float | None = None
    status: str | None = None
    ratio: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Run:
    """One run, as a source knows it.

    Attributes:
        snapshot: its newest state; that of its end, if it ended.
        source: where it was read, in words.
        pauses: waits and stalls, in order of their begin.
        feed: what happened, in order.
        attempts: the attempts of its id, if there was more than one.
        children: its child operations, as far as the source lists them.
        more_children: child operations beyond these.
        unknown: what this source can't know, in words.
        ratios: the ratio over time (seconds since the start, 0 to 1), if the source has it.
        alive: whether its process is alive, of a run without an end; None if that is not known.
        below: the operations below its children, as far as the source lists them.
        more_below: operations below it that are not listed, if `children` or `below` are not all of them.
    """

    snapshot: Snapshot
    source: str
    pauses: tuple[Pause, ...] = ()
    feed: tuple[Told, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    children: tuple[Snapshot, ...] = ()
    more_children: int = 0
    unknown: str | None = None
    ratios: tuple[tuple[float, float], ...] = ()
    alive: bool | None = None
    below: tuple[Snapshot, ...] = ()
    more_below: int = 0

    @property
    def as_of(self) -> float:
        """When this was true, in Unix seconds: its end, or when it was last heard of."""
        return self.snapshot.timestamp

    @property
    def began(self) -> float:
        """When it started, in Unix seconds."""
        one = self.snapshot
        return one.timestamp - one.elapsed if one.started_at is None else one.started_at


def pauses_of(events: Iterable[Told], snapshot: Snapshot) -> tuple[Pause, ...]:
    """Return the waits and stalls of a run from its events; those still open end with the run."""
    timed = (event for event in events if event.event in TIMED)
    ended = snapshot.timestamp if snapshot.status.final else None
    return within((pause_of(one) for one in timeline(timed, ended, snapshot.stages)), snapshot)


def within(pauses: Iterable[Pause], snapshot: Snapshot) -> tuple[Pause, ...]:
    """Pauses that end with their stage at the latest: an observer looks a little later whether something moves."""
    ends: dict[str, list[tuple[float, float]]] = {}
    for stage in snapshot.stages:
        if stage.started_at is not None and not stage.untimed:
            end = stage.started_at + stage.elapsed if stage.status.final else float("inf")
            ends.setdefault(stage.path, []).append((stage.started_at, end))
    found = []
    for pause in pauses:
        runs = [end for begin, end in ends.get(pause.stage or "", ()) if begin <= pause.begin <= end]
        last = max(runs, default=None)
        if last is not None and pause.end is not None and last < pause.end:
            found.append(pause._replace(end=last))
        else:
            found.append(pause)
    return tuple(found)


def pause_of(one: Mapping[str, Any]) -> Pause:
    """Read an interval of `timeline`, or of the API."""
    end = one.get("to")
    stage, place = one.get("stage"), one.get("stuck_at")
    return Pause(
        str(one.get("kind")),
        stage if isinstance(stage, str) else None,
        float(one["from"]),
        None if end is None else float(end),
        str(one.get("reason") or ""),
        place if isinstance(place, str) else None,
    )


def moment(seconds: float | None) -> str:
    """A time in UTC: `2026-11-29 16:04:11`; empty if it is not known."""
    try:
        return "" if seconds is None else f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return ""
