"""The alert rules under promtool: each scenario fires exactly its stated alerts at the stated times."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from . import promtool as tool
from .mutants import MUTANTS, Mutant
from .scenarios import SCENARIOS, Scenario

PARTS = 16


def named(name: str) -> list[Scenario]:
    """Return the scenario with scraped series, and with pushed series."""
    found = [scenario for scenario in SCENARIOS if scenario.name == name]
    assert len(found) == 2, name
    return found


@pytest.mark.parametrize("part", range(PARTS))
def test_scenarios(promtool: str, part: int, tmp_path: Path) -> None:
    """At each moment exactly the stated alerts fire, with and without stale markers."""
    said = tool.run(promtool, tool.RULES, SCENARIOS[part::PARTS], tmp_path)
    assert not said, said


def test_every_alert_fires_somewhere() -> None:
    """Each alert of the rules fires in a scenario, and scenarios state only alerts of the rules."""
    assert {alert for scenario in SCENARIOS for alert in scenario.touches} == tool.alerts()


@pytest.mark.parametrize("rule", sorted({mutant.rule for mutant in MUTANTS}))
def test_mutants(promtool: str, rule: str, tmp_path: Path) -> None:
    """A scenario notices each fault in a rule."""
    text = tool.RULES.read_text(encoding="utf-8")
    survivors = []
    for number, mutant in enumerate(MUTANTS):
        if mutant.rule == rule:
            folder = tmp_path / str(number)
            folder.mkdir()
            broken = folder / "broken.yaml"
            broken.write_text(tool.affected_by(rule, tool.without_annotations(mutant.of(text))), encoding="utf-8")
            if not fails(promtool, broken, mutant, folder):
                survivors.append(str(mutant))
    assert not survivors, "\n".join(survivors)


def fails(promtool: str, broken: Path, mutant: Mutant, folder: Path) -> bool:
    """Return whether the scenario finds other alerts than stated. A rule that does not load is not a valid mutant."""
    there = tool.alerts(broken)
    for scenario in reversed(named(mutant.caught_by)):
        stated = tuple(fires for fires in scenario.alerts if fires.alert in there)
        said = tool.run(promtool, broken, [replace(scenario, alerts=stated)], folder)
        assert not said or "got:" in said, f"{mutant}: {said}"
        if said:
            return True
    return False


def test_every_rule_has_mutants() -> None:
    """Each rule, alert or recording, has a mutant."""
    assert {mutant.rule for mutant in MUTANTS} == tool.alerts() | tool.records()
