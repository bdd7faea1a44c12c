"""When an operation waited and was stuck, from the events that begin and end that."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final, Protocol

from otel_progress import semconv as s
from otel_progress.model.fields import StageSnapshot

TIMED: Final = (s.WAIT_STARTED, s.WAIT_ENDED, s.STALLED, s.RECOVERED, s.OPERATION_ENDED)
"""The events that begin and end waits and stalls."""
INFERRED: Final = 1000
"""The most events that can be inferred after a reported one, each with a number of its own."""

Json = dict[str, Any]


class TimedEvent(Protocol):
    """An event of one operation, as a history keeps it; `sequence` is below 0 for one that an observer inferred."""

    @property
    def sequence(self) -> int:
        """Its number in the attempt."""

    @property
    def timestamp(self) -> float:
        """When it happened, in Unix seconds."""

    @property
    def event(self) -> str:
        """Its name."""

    @property
    def stage(self) -> str | None:
        """The path of its stage."""

    @property
    def text(self) -> str:
        """The event in words."""

    @property
    def attributes(self) -> str | None:
        """Its other attributes, as JSON text."""


def order(event: TimedEvent) -> tuple[int, bool, float]:
    """The sort key of events, in whatever order they arrived: an inferred one follows the one it was inferred from."""
    if event.sequence >= 0:
        return event.sequence, False, 0.0
    return -event.sequence // INFERRED, True, event.timestamp


def attributes_of(event: TimedEvent) -> Json:
    """The attributes of an event; none if they cannot be read."""
    try:
        found = json.loads(event.attributes or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def branches_of(own: Json, stage: str | None) -> list[str]:
    """The labels of the branches that a stall, or its end, is about."""
    told = own.get(s.STUCK_BRANCHES)
    labels = [one for one in told if isinstance(one, str)] if isinstance(told, list) else []
    return labels or [stage or ""]


def timeline(
    events: Iterable[TimedEvent], ended_at: float | None = None, stages: Iterable[StageSnapshot] = ()
) -> list[Json]:
    """Waits and stalls as intervals; a stall ends with its stage, if the stages are known, and with the operation."""
    told = (event for event in events if event.sequence >= 0 or event.event in (s.STALLED, s.RECOVERED))
    spans = _Intervals({stage.path for stage in stages})
    for event in sorted(told, key=order):
        spans.take(event)
    ends = _ends(stages)
    for (kind, label), item in spans.open.items():
        end = ends.get(item["stage"] or label) if kind == "stall" else None
        if end is not None and end >= item["from"]:
            item["to"] = end
        elif ended_at is not None:
            item["to"] = max(ended_at, item["from"])
    return spans.found


def stuck_branches(events: Iterable[TimedEvent]) -> list[str]:
    """The labels of the branches that are stuck according to a history."""
    spans = _Intervals(set())
    for event in sorted(events, key=order):
        spans.take(event)
    return [label for kind, label in spans.open if kind == "stall"]


def _ends(stages: Iterable[StageSnapshot]) -> dict[str, float]:
    """When each stage ended, by path, if none of its runs is still open."""
    ends: dict[str, float] = {}
    runs = set()
    for stage in stages:
        if stage.started_at is not None and stage.status.final:
            if stage.untimed:
                continue
            ends[stage.path] = max(ends.get(stage.path, 0.0), stage.started_at + stage.elapsed)
        elif stage.has_run and not stage.status.final:
            runs.add(stage.path)
    return {path: end for path, end in ends.items() if path not in runs}


def _wait_of(event: TimedEvent, own: Json) -> tuple[str, str]:
    """The key of the wait that an event is about: waits of one stage may lie in each other."""
    return "wait", json.dumps([event.stage, own.get(s.WAIT_REASON)])


class _Intervals:
    """Intervals, and those that are open: waits by stage and reason, stalls by branch."""

    def __init__(self, paths: set[str]) -> None:
        self.found: list[Json] = []
        self.open: dict[tuple[str, str], Json] = {}
        self._paths = paths
        self._concluded: set[tuple[str, str]] = set()
        """The open stalls that an observer concluded."""

    def take(self, event: TimedEvent) -> None:
        own = attributes_of(event)
        if event.event == s.WAIT_STARTED:
            self._begin(_wait_of(event, own), event, event.stage, own.get(s.WAIT_REASON))
        elif event.event == s.WAIT_ENDED:
            key = _wait_of(event, own)
            self._end([key] if key in self.open else self._newest_wait(event.stage), event)
        elif event.event == s.STALLED:
            self._stall(event, own)
        elif event.event == s.RECOVERED:
            named = own.get(s.STUCK_BRANCHES)  # the process says that all move, the monitor which
            keys = [("stall", label) for label in branches_of(own, event.stage)] if named else self._of("stall")
            self._end(keys, event)
        else:
            self._end(list(self.open), event)

    def _stall(self, event: TimedEvent, own: Json) -> None:
        """Begin an interval for each branch; stage, reason and line of the event belong to the first one."""
        first, *others = branches_of(own, event.stage)
        item = self._begin(("stall", first), event, event.stage, own.get(s.HEALTH_REASON))
        if item is not None and isinstance(own.get(s.STUCK_AT), str):
            item["stuck_at"] = own[s.STUCK_AT]
        for label in others:
            stage = label if label in self._paths else label.partition(" in ")[0]
            if stage in self._paths or not self._paths:
                self._begin(("stall", label), event, stage, f"stuck at the same time as {first}")

    def _begin(self, key: tuple[str, str], event: TimedEvent, stage: str | None, reason: object) -> Json | None:
        if key in self.open:
            return None
        reason = reason if isinstance(reason, str) else event.text
        item = {"kind": key[0], "stage": stage, "from": event.timestamp, "to": None, "reason": reason}
        self.open[key] = item
        self.found.append(item)
        (self._concluded.add if event.sequence < 0 else self._concluded.discard)(key)
        return item

    def _end(self, keys: list[tuple[str, str]], event: TimedEvent) -> None:
        for key in keys:
            item = self.open.pop(key, None)
            if item is not None:
                item["to"] = event.timestamp
            if item is not None and key in self._concluded and event.timestamp <= item["from"]:
                self.found.remove(item)  # the observer that concluded it found out that it was none

    def _newest_wait(self, stage: str | None) -> list[tuple[str, str]]:
        """The open wait that began last, in this stage if there is one: the end of a wait need not say its reason."""
        waits = self._of("wait")
        return ([key for key in waits if self.open[key]["stage"] == stage] or waits)[-1:]

    def _of(self, kind: str) -> list[tuple[str, str]]:
        return [key for key in self.open if key[0] == kind]
