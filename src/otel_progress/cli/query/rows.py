"""Converts the rows of a monitor into snapshots, which the tree, the summary and the plain lines show.

The input is untrusted: values of a wrong type are left out, and texts are cleaned here, once.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, TypeVar

from otel_progress.model.distinguish import Known, apart
from otel_progress.model.estimate import Estimate
from otel_progress.model.snapshot import Branch, Progress, Snapshot, StageSnapshot, Wait
from otel_progress.model.stage_runs import StageRuns, read_buckets
from otel_progress.model.states import TROUBLE
from otel_progress.model.status import Health, Status, word
from otel_progress.model.units import amount, spelled
from otel_progress.model.values import Attributes
from otel_progress.render.words import DOT, clean, counted, waiting

Row = Mapping[str, Any]
T = TypeVar("T")

STAGES: Final = 1_000
"""The most stages that are read of one operation."""
BRANCHES: Final = 16
TEXT: Final = 1_024
CALM: Final = (Health.PROGRESSING, Health.WAITING)
GONE: Final = (Health.DEAD, Health.UNKNOWN)
"""In these states, clocks stop at the last sign of life."""
STOPPED: Final = (Health.SILENT, Health.LOOPING, *GONE)
"""In these states, rate and ETA mean nothing."""
UNKNOWN: Final = Health.UNKNOWN.value
"""It is marked like trouble, but counted apart."""
SHORT_ID: Final = 10
"""Characters at the end of a generated id that tell it apart; the page's `shortId` shows as many."""
_MADE_UP: Final = re.compile(r"[0-9a-f]{16}-\d+")


@dataclass(frozen=True)
class ObservedSnapshot(Snapshot):
    """An operation as observed from outside its process; `frozen` if that process is stopped."""

    frozen: bool = False

    @classmethod
    def of(cls, snapshot: Snapshot, *, frozen: bool) -> ObservedSnapshot:
        """A snapshot of the process itself, with what the observer knows of that process."""
        return cls(**{one.name: getattr(snapshot, one.name) for one in fields(Snapshot) if one.init}, frozen=frozen)


@dataclass(frozen=True)
class NamedBranch(Branch):
    """A branch with the name that the monitor gives it."""

    name: str | None = None

    @property
    def label(self) -> str:
        """Its name, or what the branch itself calls it."""
        return self.name or super().label


def snapshot_of(row: Row, later: float = 0.0) -> Snapshot:
    """The operation `later` seconds after the monitor made the row; in a row without stages, the message names one."""
    stages = tuple(_stage(one) for one in items(row.get("stages"))[:STAGES])
    health, reason = verdict_of(row)
    stage = text(row.get("stage"))
    message = text(mapping(row.get("progress")).get("current_step"))
    if "stages" not in row:
        within = f"{stage or ''} {counted(_progress(mapping(row.get('stage_progress'))))}".strip()
        message = DOT.join(filter(None, (within, "" if message == stage else message))) or None
        stage = None
    limits = mapping(row.get("limits"))
    found = ObservedSnapshot(
        text(row.get("id")) or "?",
        text(row.get("name")) or "?",
        status_of(row),
        number(row.get("timestamp")) or 0.0,
        attempt=int(number(row.get("attempt")) or 1),
        parent_id=text(row.get("parent_id")),
        health=health,
        health_reason=reason,
        reason=_reason(row),
        hint=text(row.get("hint")),
        started_at=number(row.get("started_at")),
        elapsed=number(row.get("elapsed")) or 0.0,
        idle=number(row.get("idle")) or 0.0,
        stall_after=number(limits.get("stall_after")),
        stuck_at=text(row.get("stuck_at")),
        stack=row["stack"] if isinstance(row.get("stack"), str) else None,
        stage=stage,
        message=message,
        description=text(row.get("description")),
        agent=text(row.get("agent")),
        progress=_progress(mapping(row.get("progress"))),
        stages=stages,
        folded=tuple(_folded(row.get("folded"))),
        wait=_wait(row.get("wait")),
        branches=_branches(row.get("branches")),
        repeated=tuple(_runs(one) for one in items(row.get("repeated"))[:STAGES]),
        outcomes=numbers(row.get("outcomes")),
        counters=numbers(row.get("counters")),
        usage=_usage(row),
        result=plain(row.get("result")),
        attributes=plain(row.get("attributes")),
        cancel_requested=bool(row.get("cancel")),
        frozen=bool(mapping(row.get("verdict")).get("frozen")),
    )
    if found.status.final:
        return found
    now = later_of(found, later)
    return replace(now, health_reason=_evidence(now, row, later))


def _reason(row: Row) -> str | None:
    """Why it ended; a loss that is not proven is called presumed."""
    reason = text(row.get("reason"))
    return f"presumed, {reason or 'its process was not heard of'}" if row.get("presumed") else reason


def _evidence(now: Snapshot, row: Row, later: float) -> str | None:
    """Why it is in trouble, with its clock advanced and in the format of the terminal."""
    reason = now.health_reason
    if reason is None:
        return None
    if now.health is Health.WAITING and now.wait is not None and "child" not in mapping(row.get("verdict")):
        branch = text(mapping(row.get("verdict")).get("branch"))
        return f"{branch}: {waiting(now.wait)}" if branch else waiting(now.wait)
    child = mapping(row.get("verdict")).get("child")  # that evidence has a clock of its own
    least = now.idle if now.health is Health.SILENT and child is None else 0.0
    return spelled(reason, later, least)


def _branches(given: object) -> tuple[Branch, ...]:
    """Its branches, if there is more than one; the worst first."""
    found = tuple(_branch(one) for one in items(given)[:BRANCHES])
    return found if len(found) > 1 else ()


def _branch(one: Row) -> Branch:
    return NamedBranch(
        text(one.get("path")),
        text(one.get("lane")),
        text(one.get("child")),
        idle=number(one.get("idle")) or 0.0,
        stall_after=number(one.get("stall_after")),
        health=_one_of(Health, one.get("health"), Health.PROGRESSING),
        reason=text(one.get("reason")),
        wait=_wait(one.get("wait")),
        stuck_at=text(one.get("stuck_at")),
        name=text(one.get("label")),
    )


_TIMES: Final = ("seconds", "median", "p90", "p95", "longest")


def _runs(one: Row) -> StageRuns:
    known = {status.value for status in Status}
    given = {key: number(item) or 0 for key, item in mapping(one.get("counts")).items() if key in known}
    seconds, median, p90, p95, longest = (float(number(one.get(name)) or 0.0) for name in _TIMES)
    counts = Attributes({key: int(count) for key, count in given.items()})
    p99 = number(one.get("p99"))
    folded = int(number(one.get("folded")) or 0)
    return StageRuns(
        text(one.get("path")) or "?",
        counts,
        seconds,
        median,
        p90,
        p95,
        longest,
        folded,
        None if p99 is None else float(p99),
        read_buckets(one.get("buckets"), sum(int(count) for count in given.values())),
    )


def trouble_of(row: Row) -> str | None:
    """The trouble that is marked and counted: `stuck`, `looping`, `frozen`, `dead`, `overdue`, `slow`; or None.

    Every count of trouble uses this function, so that counts and marks agree.
    """
    if status_of(row).final:
        return None
    health, verdict = verdict_of(row)[0], mapping(row.get("verdict"))
    if health is Health.DEAD and verdict.get("frozen"):
        return "frozen"
    if verdict.get("overdue") and health not in STOPPED:
        return "overdue"
    found = word(health)
    return found if found in TROUBLE else None


def mark_of(row: Row) -> str | None:
    """The mark of a row: its trouble, or `unknown` if the monitor itself can't tell."""
    unknown = not status_of(row).final and verdict_of(row)[0] is Health.UNKNOWN
    return UNKNOWN if unknown else trouble_of(row)


def stage_progress_of(row: Row) -> Progress:
    """The progress of the innermost stage of a row."""
    return _progress(mapping(row.get("stage_progress")))


def verdict_of(row: Row) -> tuple[Health, str | None]:
    """The monitor's verdict and its reason; no reason if all is well."""
    verdict = mapping(row.get("verdict"))
    health = _one_of(Health, verdict.get("health"), Health.PROGRESSING)
    if health in CALM and not verdict.get("overdue"):
        return health, None
    return health, text(verdict.get("reason")) or health.value


def status_of(row: Row) -> Status:
    """Its status; an unknown word means running, unless the row has ended."""
    return _one_of(Status, row.get("status"), Status.FAILED if row.get("ended") else Status.RUNNING)


def label_of(row: Row, *, child: bool = False, alone: bool = True) -> str:
    """Its name and id; for a child with a generated id, only the number of it.

    The numbers count the operations of one process: without `alone`, when siblings run in other processes, a child
    has the end of its id.
    """
    name, key = text(row.get("name")) or "?", text(row.get("id")) or "?"
    if child and _MADE_UP.fullmatch(key):
        return f"{name} #{key.rpartition('-')[2]}" if alone else f"{name} …{key[-SHORT_ID:]}"
    return key if key.startswith(name) else f"{name} {key}"


def labels_of(rows: Sequence[Row]) -> list[str]:
    """Labels that tell siblings apart: by a differing attribute, by their description, else by id."""
    by_name: dict[object, list[int]] = {}
    for place, row in enumerate(rows):
        by_name.setdefault(row.get("name"), []).append(place)
    labels = [label_of(row, child=True) for row in rows]
    often = Counter(labels)
    labels = [label_of(row, child=True, alone=often[label] < 2) for row, label in zip(rows, labels)]
    for places in by_name.values():
        known = [known_of(rows[place]) for place in places]
        for place, differs in zip(places, apart(known)):
            if differs:
                labels[place] = f"{text(rows[place].get('name')) or '?'} ({clean(differs)})"
    return labels


def known_of(row: Row) -> Known:
    """What may tell a row apart from its siblings."""
    return plain(row.get("attributes") or row.get("labels")), text(row.get("description"))


def shown(value: object) -> str:
    """A value as text; a nested one as JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return amount(value)
    return clean(", ".join(map(str, value)) if isinstance(value, tuple) else value)


def later_of(found: Snapshot, later: float) -> Snapshot:
    """The operation with its running clocks advanced."""
    gone = found.health in STOPPED
    later = 0.0 if found.health in GONE else later
    now = found.at(found.timestamp + later)
    stands = found.wait is not None
    stages = (
        stage if stage.status.final else _on(found, stage, later, gone=gone, stands=stands) for stage in now.stages
    )
    progress = _without_estimate(now.progress) if gone else now.progress
    return replace(now, progress=progress, stages=tuple(stages))


def _on(found: Snapshot, stage: StageSnapshot, later: float, *, gone: bool, stands: bool) -> StageSnapshot:
    if not stage.has_run:
        return stage
    wait = stage.wait and replace(stage.wait, elapsed=stage.wait.elapsed + later)
    idle = stage.idle + (0.0 if wait else found.still(later))
    progress = stage.progress if wait or stands else stage.progress.after(later, found.update_pause)
    progress = _without_estimate(progress) if gone else progress
    return replace(stage, elapsed=stage.elapsed + later, idle=idle, wait=wait, progress=progress)


def _without_estimate(progress: Progress) -> Progress:
    return replace(progress, eta=None, rate=None)


def _stage(given: Row) -> StageSnapshot:
    path = text(given.get("path")) or text(given.get("name")) or "?"
    progress = mapping(given.get("progress"))
    status = _one_of(Status, given.get("status"), Status.RUNNING)
    return StageSnapshot(
        text(given.get("name")) or path,
        path,
        status,
        _progress(progress),
        planned=bool(given.get("planned")),
        weight=number(given.get("weight")),
        expected=number(given.get("expected")),
        started_at=number(given.get("started_at")),
        elapsed=number(given.get("elapsed")) or 0.0,
        idle=number(given.get("idle")) or 0.0,
        description=text(given.get("description")),
        message=text(given.get("message")) or text(progress.get("current_step")),
        reason=text(given.get("reason")),
        wait=_wait(given.get("wait")),
        outcomes=numbers(given.get("outcomes")),
        counters=numbers(given.get("counters")),
        usage=numbers(given.get("usage")),
        child_outcomes=numbers(given.get("child_outcomes")),
        untimed=given.get("elapsed") is None and status not in (Status.PENDING, Status.SKIPPED),
    )


def _progress(given: Row) -> Progress:
    ratio, percentage = number(given.get("ratio")), number(given.get("percentage"))
    if ratio is None and percentage is not None:
        ratio = percentage / 100
    return Progress(
        number(given.get("completed")),
        number(given.get("total")),
        text(given.get("unit")) or "item",
        None if ratio is None else min(1.0, max(0.0, ratio)),
        number(given.get("ratio_raw")),
        rate=number(given.get("rate")),
        eta=_eta(mapping(given.get("eta"))),
        restored=number(given.get("restored")),
    )


def _eta(given: Row) -> Estimate | None:
    eta = number(given.get("seconds"))
    if eta is None or eta < 0:
        return None
    low, high = number(given.get("low")), number(given.get("high"))
    source, runs = text(given.get("source")) or "", int(number(given.get("runs")) or 0)
    return Estimate(eta, eta if low is None else low, eta if high is None else high, source, runs)


def _wait(given: object) -> Wait | None:
    if not isinstance(given, Mapping):
        return None
    overdue = number(given.get("overdue_after"))
    return Wait(text(given.get("reason")) or "", number(given.get("elapsed")) or 0.0, overdue)


def _usage(row: Row) -> Attributes:
    """Cost and tokens including those of its children, else its own."""
    found: dict[str, Any] = {f"{key}_tokens": value for key, value in numbers(row.get("tokens")).items()}
    found.update({f"cost.{key}": value for key, value in numbers(row.get("cost")).items()})
    return Attributes(found) if found else numbers(row.get("usage"))


def _folded(given: object) -> Iterable[tuple[str, int, float]]:
    for one in given if isinstance(given, list) else ():
        if isinstance(one, list) and len(one) == 3:
            yield clean(one[0]), int(number(one[1]) or 0), number(one[2]) or 0.0


# -- single values


def text(value: object) -> str | None:
    """A short text on one line, or None."""
    if not isinstance(value, str) or not value:
        return None
    return clean(value if len(value) <= TEXT else value[: TEXT - 1] + "…")


def number(value: object) -> int | float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) and abs(value) < 1e18 else None


def numbers(value: object) -> Attributes:
    """The values of a mapping that are numbers."""
    return Attributes({clean(key): item for key, item in mapping(value).items() if number(item) is not None})


def plain(value: object) -> Attributes:
    """The values of a mapping, converted to types of attributes."""
    return Attributes({clean(key): _plain(item) for key, item in mapping(value).items()})


def mapping(value: object) -> Row:
    """The mapping, or an empty one."""
    return value if isinstance(value, Mapping) else {}


def items(value: object) -> list[Row]:
    """The items of a list that are mappings."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _plain(item: object) -> Any:
    if isinstance(item, dict) or (isinstance(item, list) and any(isinstance(one, (dict, list)) for one in item)):
        return clean(json.dumps(item, ensure_ascii=False))
    if isinstance(item, list):
        return tuple(clean(one) if isinstance(one, str) else one for one in item)
    return clean(item) if isinstance(item, str) else "" if item is None else item


def _one_of(kind: type[T], value: object, otherwise: T) -> T:
    try:
        return kind(value)  # type: ignore[call-arg]
    except ValueError:
        return otherwise
