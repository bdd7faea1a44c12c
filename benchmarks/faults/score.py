"""The comparison of the truth about each operation with what was concluded; pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.faults.observer import Conclusion, Observed
from benchmarks.faults.runner import BEAT, Phase, Run

HEALTHY: Final = frozenset({"progressing", "waiting", "completed"})
SOON: Final = 0.1
"""Seconds before its limit from which a verdict counts as early: clocks are read one after another."""
NEAR: Final = 0.3
"""Seconds by which a change may be seen before the program reports it: events are emitted in rounds."""
BRIEF: Final = 1.5
"""Seconds of a phase that an observer may miss."""
_LISTS: Final = (
    *("delays", "wrong", "wrong_lines", "wrong_branches"),
    *("silent_by_run", "lines_by_run", "certificates", "broken"),
)
_LINE: Final = re.compile(r"\S+\.py:\d+(?= in )")
_MARK: Final = re.compile(r"# stuck: ([\w ]+)$")


@dataclass(frozen=True)
class Delay:
    """Seconds from a limit to its verdict; `lag` is how late the machine was in that time."""

    view: str
    want: str
    seconds: float
    lag: float
    operation: str


@dataclass(frozen=True)
class Wrong:
    """A wrong verdict."""

    view: str
    operation: str
    want: str
    concluded: str
    evidence: str

    @property
    def false_alarm(self) -> bool:
        """Whether the wrong verdict was a false alarm."""
        return self.want in HEALTHY and self.concluded not in HEALTHY | {"unknown", "unheard"}


@dataclass
class Score:
    """All findings; views are `inside` and `outside`."""

    operations: int = 0
    processes: int = 0
    confusion: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    delays: list[Delay] = field(default_factory=list)
    wrong: list[Wrong] = field(default_factory=list)
    right_lines: int = 0
    wrong_lines: list[str] = field(default_factory=list)
    right_branches: int = 0
    wrong_branches: list[str] = field(default_factory=list)
    silent_by_run: list[tuple[bool, str]] = field(default_factory=list)
    lines_by_run: list[tuple[bool, str]] = field(default_factory=list)
    certificates: list[tuple[bool, str]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def recall(self, view: str, want: str) -> tuple[int, int]:
        """Return how many were found, and how many there were."""
        rows = {key: n for key, n in self.confusion.items() if key[:2] == (view, want)}
        return rows.get((view, want, want), 0), sum(rows.values())

    def add(self, other: Score) -> None:
        """Add the findings of another score."""
        self.operations += other.operations
        self.processes += other.processes
        self.confusion.update(other.confusion)
        self.right_lines += other.right_lines
        self.right_branches += other.right_branches
        for name in (
            "delays",
            "wrong",
            "wrong_lines",
            "wrong_branches",
            "silent_by_run",
            "lines_by_run",
            "certificates",
            "broken",
        ):
            getattr(self, name).extend(getattr(other, name))


def marks(folder: Path, root: Path) -> dict[str, set[str]]:
    """Return the lines where programs hang by their mark, such as `benchmarks/faults/hangs.py:12`."""
    found: dict[str, set[str]] = {}
    for file in folder.glob("*.py"):
        for number, line in enumerate(file.read_text().splitlines(), 1):
            mark = _MARK.search(line)
            if mark:
                found.setdefault(mark.group(1), set()).add(f"{file.relative_to(root)}:{number}")
    return found


def score(
    runs: Sequence[Run],
    seen_of: Callable[[Run, str], Observed],
    lag: Callable[[float, float], float],
    lines: dict[str, set[str]],
) -> Score:
    """Compare all runs with what was observed."""
    found = Score()
    for run in runs:
        found.processes += 1
        if not run.phases or any(not phases[-1].last for phases in run.phases.values()):
            found.broken.append(f"{run.case.name}: {run.said.strip()[-500:] or 'no end'}")
            continue
        for operation, phases in run.phases.items():
            found.operations += 1
            seen = seen_of(run, operation)
            blind = bool(run.case.kind.group)
            _compare(found, "inside", operation, phases, seen.inside, run.closed_at, lag)
            _compare(found, "outside", operation, phases, seen.outside, run.closed_at, lag, blind=blind)
            _check_lines(found, operation, phases, seen.inside, lines)
            _check_branches(found, operation, phases, seen.inside)
            if run.case.watched:
                _check_watched(found, run, operation, phases, seen, lines)
    return found


def _compare(
    found: Score,
    view: str,
    operation: str,
    phases: Sequence[Phase],
    told: Sequence[Conclusion],
    closed_at: float,
    lag: Callable[[float, float], float],
    *,
    blind: bool = False,
) -> None:
    """Compare each phase; `blind` if the observer could not hear for a while, and so may have concluded nothing."""
    told = sorted(told, key=lambda one: one.at)
    before = "progressing"
    for number, phase in enumerate(phases):
        after = phases[number + 1] if number + 1 < len(phases) else None
        end = closed_at if after is None else after.at
        if view == "inside" and phase.outside:
            continue
        carried = [one.label for one in told if one.at <= phase.at][-1:]
        here = [one for one in told if phase.at < one.at <= end and not _belongs(one, after)]
        if not here and not carried:
            if end - phase.at > BRIEF:
                found.confusion[view, phase.want, "unheard"] += 1
                found.wrong.append(Wrong(view, operation, phase.want, "unheard", "nothing was heard of it"))
            continue
        allowed = {phase.want, before, *carried} | ({"unknown"} if blind else set())
        reached = next((one for one in here if one.label == phase.want), None)
        _judge_one(found, view, operation, phase, here, carried, allowed, end, reached)
        limited = phase.after > 0 or phase.want == "looping"
        if reached is not None and carried != [phase.want] and limited and not blind:
            due = phase.at + phase.after
            found.delays.append(Delay(view, phase.want, reached.at - due, lag(due, reached.at), operation))
        before = phase.want


def _belongs(one: Conclusion, phase: Phase | None) -> bool:
    """Whether a conclusion belongs to the next phase."""
    return phase is not None and one.label == phase.want and one.at > phase.at - NEAR


def _judge_one(
    found: Score,
    view: str,
    operation: str,
    phase: Phase,
    here: Sequence[Conclusion],
    carried: Sequence[str],
    allowed: set[str],
    end: float,
    reached: Conclusion | None,
) -> None:
    """Count the conclusions of a phase: the last verdict, and each that was neither true nor left from before."""
    for one in here:
        flapped = reached is not None and one.at > reached.at and one.label != phase.want
        if one.label not in allowed or (flapped and "unknown" not in allowed):
            found.confusion[view, phase.want, one.label] += 1
            found.wrong.append(Wrong(view, operation, phase.want, one.label, one.evidence))
            return
    soon = BEAT + SOON if phase.want == "dead" else SOON  # it counts from when the process was last heard of
    if reached is not None and phase.after and carried != [phase.want] and reached.at < phase.at + phase.after - soon:
        early = phase.at + phase.after - reached.at
        found.confusion[view, phase.want, "early"] += 1
        found.wrong.append(Wrong(view, operation, phase.want, "early", f"{early:.2f} s early; {reached.evidence}"))
        return
    last = here[-1].label if here else carried[-1]
    if last != phase.want and end - phase.at <= BRIEF + phase.after:
        return  # over before it could be heard of
    found.confusion[view, phase.want, last] += 1
    if last != phase.want and not (last == "unknown" and "unknown" in allowed):
        evidence = here[-1].evidence if here else "nothing new was heard"
        found.wrong.append(Wrong(view, operation, phase.want, last, evidence))


def _check_lines(
    found: Score, operation: str, phases: Sequence[Phase], told: Sequence[Conclusion], lines: dict[str, set[str]]
) -> None:
    """Check the line of code in the first verdict of each phase that names one."""
    for number, phase in enumerate(phases):
        end = phases[number + 1].at if number + 1 < len(phases) else float("inf")
        if not phase.mark or phase.outside:
            continue
        named = [one for one in told if phase.at < one.at <= end and one.label == phase.want and one.stuck_at]
        if not named:
            found.wrong_lines.append(f"{operation}: no line was named, {phase.mark} is right")
        elif lines[phase.mark] & set(_LINE.findall(named[0].stuck_at)):  # what waits for a thread names both lines
            found.right_lines += 1
        else:
            found.wrong_lines.append(f"{operation}: {named[0].stuck_at}, {phase.mark} is right")


def _check_branches(found: Score, operation: str, phases: Sequence[Phase], told: Sequence[Conclusion]) -> None:
    """Check the branch in the first verdict of each phase with a branch in trouble."""
    for number, phase in enumerate(phases):
        end = phases[number + 1].at if number + 1 < len(phases) else float("inf")
        if not phase.branch:
            continue
        named = [one for one in told if phase.at < one.at <= end and one.label == phase.want]
        if named and named[0].stage == phase.branch:
            found.right_branches += 1
        else:
            said = named[0].stage if named else "no branch"
            found.wrong_branches.append(f"{operation}: {said} was named, {phase.branch} is right")


def _check_watched(
    found: Score, run: Run, operation: str, phases: Sequence[Phase], seen: Observed, lines: dict[str, set[str]]
) -> None:
    """Check what `otel-progress run` reported."""
    frozen = [phase for phase in phases if phase.frozen]
    if frozen:
        right = run.silent_at is not None and "lost" not in {one.label for one in seen.outside} | set(seen.spans)
        found.silent_by_run.append((right, f"{operation}: {run.said.strip()[-300:]}"))
        if run.silent_at is not None:
            late = run.silent_at - frozen[0].at - frozen[0].after
            found.delays.append(Delay("run", "silent (frozen)", late, 0.0, operation))
        if frozen[0].mark:
            right = any(line in run.said for line in lines[frozen[0].mark])
            found.lines_by_run.append((right, f"{operation}: {run.said.strip()[-300:]}"))
    if phases[-1].want == "lost":
        found.certificates.append(("lost" in seen.spans, f"{operation}: {run.said.strip()[-300:]}"))


def labels(found: Score, view: str) -> Iterator[str]:
    """Return all verdicts of a view, the usual ones first."""
    usual = ("progressing", "waiting", "overdue", "slow", "silent", "looping", "dead", "lost", "completed", "failed")
    every = {label for key in found.confusion if key[0] == view for label in key[1:]}
    yield from (label for label in usual if label in every)
    yield from sorted(every - set(usual))
