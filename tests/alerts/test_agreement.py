"""The rules and model/health.py give the same verdict on the same scenarios, after the delay of each.

For a parent with a child in another process, which model/health.py cannot know, the monitor's verdict is compared.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_progress.model.health import Verdict, judge
from otel_progress.model.snapshot import Snapshot
from otel_progress.model.status import Health, Status
from otel_progress.monitor.state.ledger import Ledger
from otel_progress.monitor.state.verdicts import Observer

from .runs import BEAT, Span, within
from .scenarios import (
    AGAIN_KEEP,
    GAP,
    LOOP_FOR,
    LOST_FOR,
    PENDING_FOR,
    SCENARIOS,
    SLOW_FOR,
    STUCK_FOR,
    WAIT_FOR,
    Scenario,
)

LATE = 35
"""What an export, a scrape, an evaluation and a heartbeat may add to each edge."""
README = Path(__file__).parents[2] / "grafana" / "alerts" / "README.md"

ON = {
    "OperationLost": GAP + LOST_FOR,
    "OperationStuck": STUCK_FOR,
    "OperationLooping": LOOP_FOR,
    "OperationSlow": SLOW_FOR,
    "OperationOverdueWait": WAIT_FOR,
    "OperationNotStarted": PENDING_FOR,
}
"""By how much the alert comes later than the verdict; a verdict that ends earlier needs no alert."""

DIFFERENCES = {
    "Going back": "a run that is stuck again and again",
    "Collector outage": "a run that was lost before it",
    "The Collector keeps a value": "a killed run whose last value is kept",
    "A clock that is wrong": "pushed series of a clock that is ahead",
    "Six hours": "a run that was lost for so long",
    "Several things at once": "a run that is stuck, loops and is slow",
    "A child is stuck or dead": "a parent that waits for such a child",
}
"""The intended differences that a scenario shows: a row of the README's table, and the scenarios that show it."""

_BELOW = "A child is stuck or dead"
_NEVER = {"OperationStuck of r1": (math.inf, 0.0)}
EXTRA: dict[str, tuple[str, dict[str, tuple[float, float]]]] = {
    "stuck_dithers": ("Going back", {"OperationStuck": (0, AGAIN_KEEP)}),
    "outage_while_lost": ("Collector outage", {"OperationLost": (0, 360)}),
    "frozen_value": ("The Collector keeps a value", {"OperationLost": (300, 0)}),
    "clock_ahead": (
        "A clock that is wrong",
        {"OperationStuck": (120, 120), "OperationLost": (120, 120), "OperationSlow": (120, 120)},
    ),
    "long_lost": ("Six hours", {"OperationLost": (0, -math.inf)}),
    "doubled": ("Several things at once", {"OperationStuck": (0, math.inf), "OperationSlow": (math.inf, 0)}),
    "branch_overdue_beside_hang": ("Several things at once", {"OperationOverdueWait": (math.inf, 0)}),
    "parent_stuck_and_restart": (_BELOW, {"OperationStuck of r1": (GAP + 60, 0)}),
    "parent_once_stuck_and_outage": (_BELOW, {"OperationStuck of r1": (GAP, 0)}),
    "parent_stuck_before_its_child_and_outage": (_BELOW, {"OperationStuck of r1": (GAP, 0)}),
    "child_here_stuck": (_BELOW, _NEVER),
    "child_elsewhere_stuck": (_BELOW, _NEVER),
    "grandchild_elsewhere_stuck": (_BELOW, {**_NEVER, "OperationStuck of c1": (math.inf, 0)}),
    "child_elsewhere_killed": (_BELOW, {"OperationStuck of r1": (GAP + 60, 0)}),
    "child_elsewhere_resumed": (_BELOW, _NEVER),
    "child_elsewhere_gaps": (_BELOW, _NEVER),
    "child_elsewhere_after_outage": (_BELOW, _NEVER),
}
"""What a scenario adds to ON and OFF, for an alert or for that of one run. With an infinite delay no verdict is needed."""


def expected_alert(verdict: Verdict, snapshot: Snapshot) -> str | None:
    """Return the alert that corresponds to a verdict."""
    if verdict.health is Health.SLOW:
        return "OperationNotStarted" if snapshot.status is Status.PENDING else "OperationSlow"
    if verdict.health is Health.WAITING:
        return "OperationOverdueWait" if verdict.overdue else None
    return {
        Health.DEAD: "OperationLost",
        Health.SILENT: "OperationStuck",
        Health.LOOPING: "OperationLooping",
    }.get(verdict.health)


def verdicts(scenario: Scenario, key: str) -> Iterator[tuple[float, Verdict, Snapshot]]:
    """Return an observer's verdict on an operation, at each heartbeat."""
    if has_child_elsewhere(scenario):
        yield from monitored(scenario, key)
        return
    for time in range(0, int(scenario.world.until) + 1, BEAT):
        heard = scenario.world.heard(key, time)
        if heard is not None:
            snapshot, at, hearing = heard
            yield time, judge(snapshot, snapshot.timestamp + time - at, hearing), snapshot


def has_child_elsewhere(scenario: Scenario) -> bool:
    """Return whether an operation has a child in another process."""
    where = {(run.id, run.process) for run in scenario.world.runs}
    parents = {key for key, _ in where}
    return any(run.parent in parents and (run.parent, run.process) not in where for run in scenario.world.runs)


def one_service(scenario: Scenario) -> bool:
    """Whether runs are of one service and environment and each id of one name: a monitor knows them by their ids alone."""
    names = {(run.id, run.name, run.process.job) for run in scenario.world.runs}
    places = {run.process.environment for run in scenario.world.runs if run.process.environment}
    return len({job for *_, job in names}) == 1 and len({key for key, *_ in names}) == len(names) and len(places) < 2


def monitored(scenario: Scenario, key: str) -> Iterator[tuple[float, Verdict, Snapshot]]:
    """Return the verdict of a monitor that hears all processes."""
    world = scenario.world
    ledger = Ledger()
    observer = Observer(ledger, -math.inf)
    for time in range(int(world.until) + 1):
        if within(time, (*world.way.down, *world.way.blocked)):
            observer.was_deaf(time)
        observer.look(time)
        if time % BEAT == 0:
            for process in world.processes:
                if world.way.open(process, time):
                    ledger.beat(ledger.hear({"service.instance.id": process.instance}, (), time), BEAT)
            for run in world.runs:
                begin = run.start if run.made is None else run.made
                known = ledger.find(run.id)
                told = known is not None and not known.open and known.head.attempt >= run.attempt
                if begin <= time and world.way.open(run.process, time) and not told:
                    ledger.apply(run.snapshot(time, world.way.skew), run.process.instance, time)
            entry = ledger.find(key)
            if entry is not None:
                yield time, observer.verdict(entry, time), entry.snapshot


def spans(scenario: Scenario, key: str) -> dict[str, list[Span]]:
    """Return when the verdicts require each alert. Interruptions of less than GAP are ignored, except for dead."""
    found: dict[str, list[Span]] = {}
    for time, verdict, snapshot in verdicts(scenario, key):
        alert = expected_alert(verdict, snapshot)
        if alert is not None:
            mine = found.setdefault(alert, [])
            if mine and time - mine[-1][1] < (GAP if alert != "OperationLost" else BEAT):
                mine[-1] = mine[-1][0], time + BEAT
            else:
                mine.append((time, time + BEAT))
    return found


def keys(scenario: Scenario) -> list[str]:
    """Return its operations; of very many, the first and the last."""
    found = list(dict.fromkeys(run.id for run in scenario.world.runs))
    return found if len(found) < 50 else [found[0], found[-1]]


@pytest.mark.parametrize("scenario", [it for it in SCENARIOS if one_service(it)], ids=str)
def test_same_verdict(scenario: Scenario) -> None:
    """Each lasting verdict has its alert, and each alert its verdict, with begin and end within the delays."""
    more = EXTRA[scenario.name][1] if scenario.name in EXTRA else {}
    until = scenario.world.until
    for key in keys(scenario):
        said = spans(scenario, key)
        for alert, delay in ON.items():
            fired: list[Span] = []
            for it in scenario.alerts:
                if it.alert == alert and it.id == key:
                    # As for verdicts, short interruptions are ignored; and a change of severity is none.
                    begin = fired.pop()[0] if fired and it.begin - fired[-1][1] < GAP else it.begin
                    fired.append((begin, it.end))
            extra_on, extra_off = more.get(f"{alert} of {key}", more.get(alert, (0, 0)))
            on, off = delay + extra_on + LATE, extra_off + LATE
            wanted = said.get(alert, [])
            for begin, end in wanted:
                late = [at for at, _ in fired if begin - LATE <= at <= begin + on]
                inside = [at for at, to in fired if at <= begin and to >= end]
                assert late or inside or end - begin <= on, f"{key}: {alert} misses at {begin} to {end}: {fired}"
            for begin, end in fired:
                if begin >= until or extra_on == math.inf:
                    continue
                mine = [(at, to) for at, to in wanted if at - LATE <= begin <= at + on]
                assert mine, f"{key}: {alert} fires at {begin} without a verdict: {wanted}"
                last = max(to for at, to in wanted if at < end)
                died = any(abs(at - last) < LATE for at, _ in said.get("OperationLost", []))
                allowed = math.inf if died else last + off
                assert end >= until + extra_off if last >= until else last - LATE <= end <= allowed, (
                    f"{key}: {alert} ends at {end}, the verdict at {last}"
                )


@pytest.mark.parametrize("name", sorted(EXTRA))
def test_differences_are_needed(name: str) -> None:
    """Each stated difference exists: without it, the two sides do not agree."""
    for scenario in SCENARIOS:
        if scenario.name == name:
            saved = EXTRA.pop(name)
            try:
                test_same_verdict(scenario)
            except AssertionError:
                return
            finally:
                EXTRA[name] = saved
    pytest.fail("the two sides agree without it")


def test_blind_observers_say_nothing() -> None:
    """While the observer hears nothing, the verdict is unknown, and no alert about a run begins."""
    seen = 0
    for scenario in SCENARIOS:
        if scenario.world.way.down and scenario.world.runs:
            for key in keys(scenario):
                for time, verdict, snapshot in verdicts(scenario, key):
                    over = snapshot.status.final
                    if any(begin + BEAT <= time < end for begin, end in scenario.world.way.down) and not over:
                        assert verdict.health is Health.UNKNOWN, (str(scenario), time)
                        assert not any(it.id and it.begin == time for it in scenario.alerts)
                        seen += 1
    assert seen > 100


def test_differences_are_written_down() -> None:
    """The README's table of intended differences has all that the scenarios show."""
    part = README.read_text(encoding="utf-8").split("## Where the alerts and the verdict differ")[1]
    rows = re.findall(r"^\| ([^|]+?) \|", part, re.MULTILINE)
    assert set(DIFFERENCES) == {name for name, _ in EXTRA.values()}
    assert set(DIFFERENCES) <= set(rows), set(DIFFERENCES) - set(rows)


def test_monitor_is_asked() -> None:
    """In some scenarios the parent's own process and the monitor disagree."""
    differ = set()
    for scenario in SCENARIOS:
        if has_child_elsewhere(scenario):
            for time, verdict, _ in verdicts(scenario, "r1"):
                heard = scenario.world.heard("r1", time)
                assert heard is not None
                snapshot, at, hearing = heard
                if judge(snapshot, snapshot.timestamp + time - at, hearing).health is not verdict.health:
                    differ.add(scenario.name)
    assert len(differ) >= 10, differ
