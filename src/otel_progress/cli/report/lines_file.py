"""Reads runs from a file of JSON lines, as the handler `JsonLines` writes it; what is no such line is counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from otel_progress import procfs, semconv
from otel_progress.cli.query.exit_codes import NOT_FOUND, USAGE, CommandError
from otel_progress.cli.query.rows import Row, items, mapping, number, numbers, snapshot_of, text
from otel_progress.cli.report.source import Step
from otel_progress.model import sentences
from otel_progress.model.curve import Curve, Points
from otel_progress.model.resources import from_dict
from otel_progress.model.snapshot import Event, Snapshot
from otel_progress.model.values import Attributes
from otel_progress.reports.run import Attempt, Run, Told, pauses_of

LINE: Final = 16 * 1024 * 1024
"""Bytes of a line; a longer one is skipped."""
FEED: Final = 5_000
"""Events of one run that are kept."""
CHILDREN: Final = 100
BELOW: Final = 1_000
"""Operations below the children of a run that are read."""
_QUIET: Final = frozenset({semconv.UPDATED, semconv.HEARTBEAT})


class _Line:
    """A value over time, of the newest attempt."""

    def __init__(self) -> None:
        self._curve = Curve()
        self._last: tuple[float, int | float] | None = None

    def add(self, spent: float, value: float | None) -> None:
        """Add the value after so many seconds; a clock that went back is that of another attempt."""
        if value is None:
            return
        if self._last is not None and spent < self._last[0]:
            self._curve = Curve()
        self._last = (spent, value)
        self._curve.add(spent, value)

    def points(self) -> Points:
        """Return the points, the last one for the newest value."""
        return () if self._last is None else self._curve.until(*self._last)


@dataclass
class _Found:
    """What the first reading of the file keeps of each run: where its newest line is."""

    name: str
    timestamp: float
    attempt: int
    at: int
    parent: str | None
    lines: list[int] = field(default_factory=list)
    ratios: _Line = field(default_factory=_Line)
    units: _Line = field(default_factory=_Line)
    process: Row = field(default_factory=dict)

    def follow(self, seen: Row) -> None:
        """Keep the ratio and the completed units over time: most lines carry only the present."""
        progress, spent = mapping(seen.get("progress")), number(seen.get("elapsed"))
        if spent is not None:
            self.ratios.add(float(spent), number(progress.get("ratio")))
            self.units.add(float(spent), number(progress.get("completed")))


class LinesFile:
    """A file of JSON lines; it is read once for an index of its runs, then only the lines that are needed.

    Attributes:
        words: what it is, in words, and how much of it can't be read.
    """

    def __init__(self, path: Path, step: Step) -> None:
        """Read the file.

        Raises:
            CommandError: if it can't be read, or holds no run.
        """
        self._path = path
        self._runs: dict[str, _Found] = {}
        self._order: list[str] = []
        bad = 0
        if path.exists() and not path.is_file():
            raise CommandError(f"{path} is no regular file: it is read more than once", USAGE)
        try:
            size = path.stat().st_size
            self._file = path.open("rb")
            for at, line in self._lines():
                bad += not self._take(at, line)
                step(at, size)
        except OSError as error:
            raise CommandError(f"{path} can't be read: {error.strerror}", USAGE) from None
        self.words = f"the JSON lines of {path}"
        if not self._runs:
            self._file.close()
        if bad:
            self.words += f" ({bad:,} {'line is' if bad == 1 else 'lines are'} no event and left out)"
        if not self._runs:
            raise CommandError(f"there is no event in {path}; --file is for what the handler jsonlines wrote", USAGE)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Position and content of each line; one that is too long is empty."""
        at, cut = 0, False
        while line := self._file.readline(LINE):
            whole = line.endswith(b"\n") or len(line) < LINE
            if line.strip():
                yield at, b"" if cut or not whole else line
            at, cut = at + len(line), not whole

    def _take(self, at: int, line: bytes) -> bool:
        said = _event(line)
        if said is None:
            return False
        seen = mapping(said["snapshot"])
        key = str(seen["operation_id"])
        when, attempt = number(seen.get("updated_at")) or 0.0, int(number(seen.get("attempt")) or 1)
        found = self._runs.get(key)
        if found is None:
            found = self._runs[key] = _Found(str(seen.get("name")), when, attempt, at, text(seen.get("parent_id")))
        elif (attempt, when) >= (found.attempt, found.timestamp):
            found.timestamp, found.attempt, found.at = when, attempt, at
        found.follow(seen)
        found.process = mapping(said.get("process")) or found.process
        if said.get("event") not in _QUIET and len(found.lines) < FEED:
            found.lines.append(at)
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def find(self, given: str) -> list[str]:
        """The ids that a word may stand for."""
        if given in self._runs:
            return [given]
        begun = [key for key in self._runs if given and key.startswith(given)]
        if len(begun) == 1:
            return begun
        named = [key for key, found in self._runs.items() if found.name == given]
        return sorted(named, key=lambda key: self._runs[key].timestamp)[-1:] or begun

    def known(self) -> Iterable[str]:
        """Names and ids, the newest first."""
        newest = sorted(self._runs, key=lambda key: -self._runs[key].timestamp)[:2_000]
        return [word for key in newest for word in (self._runs[key].name, key)]

    def run(self, operation_id: str) -> Run:
        """All that the file says of one run."""
        found = self._runs.get(operation_id)
        if found is None:
            raise CommandError(f"{operation_id} is not there", NOT_FOUND)
        snapshot = self._snapshot(found)
        events = [said for at in found.lines if (said := self._at(at)) is not None]
        attempts: dict[int, Attempt] = {}
        told = []
        for said in events:
            seen = mapping(said["snapshot"])
            attempt = int(number(seen.get("attempt")) or 1)
            one = attempts.get(attempt) or Attempt(attempt, number(seen.get("started_at")))
            if said.get("event") == semconv.OPERATION_ENDED:
                ratio = number(mapping(seen.get("progress")).get("ratio"))
                when, status = _ended_at(seen), text(seen.get("status"))
                one = one._replace(ended_at=when, status=status, ratio=ratio, reason=text(seen.get("reason")))
            attempts[attempt] = one
            if attempt == found.attempt:
                told.append(_told(said))
        children, below = self._below(operation_id)
        return Run(
            snapshot,
            self.words,
            pauses_of(told, snapshot),
            tuple(told),
            tuple(attempts[key] for key in sorted(attempts)),
            tuple(self._snapshot(one) for one in children[:CHILDREN]),
            max(0, len(children) - CHILDREN),
            ratios=found.ratios.points(),
            alive=None if snapshot.status.final else is_alive(found.process),
            below=tuple(self._snapshot(one) for one in below[:BELOW]),
            more_below=max(0, len(children) - CHILDREN) + max(0, len(below) - BELOW),
        )

    def _below(self, operation_id: str) -> tuple[list[_Found], list[_Found]]:
        """The children of an operation, and all that is below these."""
        by_parent: dict[str, list[str]] = {}
        for key, one in self._runs.items():
            if one.parent is not None:
                by_parent.setdefault(one.parent, []).append(key)
        levels: list[list[str]] = [by_parent.get(operation_id, [])]
        seen = {operation_id, *levels[0]}
        while levels[-1]:
            fresh = [key for above in levels[-1] for key in by_parent.get(above, ()) if key not in seen]
            seen.update(fresh)
            levels.append(fresh)
        return [self._runs[key] for key in levels[0]], [self._runs[key] for level in levels[1:] for key in level]

    def snapshots(self, operation_ids: list[str], step: Step) -> Iterator[Snapshot]:
        """The newest state of each run."""
        for count, key in enumerate(operation_ids, 1):
            yield self._snapshot(self._runs[key])
            step(count, len(operation_ids))

    def named(self, name: str, since: float, step: Step) -> Iterator[Snapshot]:
        """The runs of a name since a time, in order of time."""
        chosen = [key for key, found in self._runs.items() if found.name == name and found.timestamp >= since]
        yield from self.snapshots(sorted(chosen, key=lambda key: self._runs[key].timestamp), step)

    def _at(self, at: int) -> dict[str, Any] | None:
        self._file.seek(at)
        return _event(self._file.readline(LINE))

    def _snapshot(self, found: _Found) -> Snapshot:
        said = self._at(found.at)
        if said is None:
            raise CommandError(f"{self._path} changed while it was read; read it again", USAGE)
        snapshot = read_snapshot(mapping(said["snapshot"]))
        return replace(snapshot, curve=found.units.points()) if not snapshot.curve else snapshot


def _ended_at(seen: Row) -> float | None:
    """When an attempt ended: its start and how long it took; the line may have been written later."""
    began, spent = number(seen.get("started_at")), number(seen.get("elapsed"))
    return number(seen.get("updated_at")) if began is None or spent is None else began + spent


def is_alive(process: Row) -> bool | None:
    """Whether the process that wrote a line is alive, by its pid and start; None if it can't be seen from here."""
    pid, ticks = process.get("pid"), process.get("ticks")
    here = procfs.boot_id(), procfs.pid_namespace()
    if not isinstance(pid, int) or not isinstance(ticks, int) or not all(here):
        return None
    if (process.get("boot"), process.get("namespace")) != here:
        return None
    seen = procfs.look(pid)
    return seen is not None and seen.ticks == ticks


def _event(line: bytes) -> dict[str, Any] | None:
    """An event with its snapshot; None if the line is cut off or something else."""
    try:
        said = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or not isinstance(said.get("snapshot"), dict):
        return None
    key = said["snapshot"].get("operation_id")
    return said if isinstance(key, str) and key else None


def read_snapshot(given: dict[str, Any] | Any) -> Snapshot:
    """Read what `Snapshot.to_dict` returned, or the details of the monitor's API; both are untrusted."""
    row = {**given, "id": given.get("operation_id") or given.get("id")}
    row.setdefault("timestamp", given.get("updated_at"))
    if number(given.get("updated_at")) is not None:
        row["timestamp"] = given["updated_at"]
    found = snapshot_of(row)
    if "usage" in given:  # `tokens` and `cost` of the monitor are those with children
        found = replace(found, usage=numbers(given["usage"]))
    measured = mapping(given.get("statistics"))
    stages = tuple(
        replace(stage, cpu_seconds=number(one.get("cpu_seconds")), peak_memory=number(one.get("peak_memory")))
        for stage, one in zip(found.stages, items(given.get("stages")))
    )
    return replace(
        found,
        stages=stages,
        components=tuple(_components(measured.get("components"))),
        failures=tuple(_own_failures(measured.get("failures"), found)),
        curve=tuple(_curve(measured.get("curve"))),
        resources=from_dict(given.get("resources")),
        child_outcomes=_tally(measured.get("children")),
    )


def _components(given: object) -> Iterator[tuple[str, Attributes]]:
    for name, tally in list(mapping(given).items())[:128]:
        yield str(name), _tally(tally)


def _tally(given: object) -> Attributes:
    """Counts by outcome, from a tally as JSON."""
    tally = mapping(given)
    counts = {key: number(tally.get(key)) for key in ("ok", "failed", "skipped", "retried")}
    counts.update({str(key): number(n) for key, n in mapping(tally.get("others")).items()})
    return Attributes({key: n for key, n in counts.items() if n})


def _own_failures(told: object, found: Snapshot) -> Iterator[tuple[str, int]]:
    """Messages of failed records: statistics list those of stages and of the run as well, which are counted anew."""
    counted: Counter[str | None] = Counter(
        stage.reason for stage in found.stages if stage.status.value == "failed" and stage.reason
    )
    if found.status.value == "failed" and found.reason and found.reason not in counted:
        counted[found.reason] += 1
    for one in items(told):
        message, count = text(one.get("message")), int(number(one.get("count")) or 0)
        left = count - counted[message]
        if message and left > 0:
            yield message, left


def _curve(given: object) -> Iterator[tuple[float, int | float]]:
    for point in given if isinstance(given, list) else ():
        if isinstance(point, list) and len(point) == 2:
            at, done = number(point[0]), number(point[1])
            if at is not None and done is not None:
                yield float(at), done


def _told(said: dict[str, Any]) -> Told:
    own, name = mapping(said.get("attributes")), str(said.get("event"))
    snapshot = read_snapshot(said["snapshot"])
    when = _seconds(said.get("timestamp")) or snapshot.timestamp
    stage = said.get("stage") if isinstance(said.get("stage"), str) else None
    event = Event(name, int(when * 1e9), snapshot, stage=stage, attributes=Attributes(own))
    words = sentences.sentence(event) if name in sentences.SENTENCES else name
    attributes: dict[str, object] = dict(own)
    if name == semconv.STALLED and snapshot.stuck_at:
        attributes.setdefault(semconv.STUCK_AT, snapshot.stuck_at)
        attributes.setdefault(semconv.HEALTH_REASON, snapshot.health_reason)
    return Told(
        int(number(said.get("sequence")) or 0), when, name, stage, words, None, json.dumps(attributes, default=str)
    )


def _seconds(given: object) -> float | None:
    try:
        return datetime.fromisoformat(str(given)).timestamp()
    except (ValueError, OverflowError):
        return None
