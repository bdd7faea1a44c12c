"""The alert rules under promtool: in every scenario exactly the alerts that it states, exactly when it states them."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import promtool as tool
from .mutants import MUTANTS, Mutant
from .scenarios import SCENARIOS, Scenario

PARTS = 8


def named(name: str) -> list[Scenario]:
    """The scenario with series that are scraped, and with series that are pushed."""
    found = [scenario for scenario in SCENARIOS if scenario.name == name]
    assert len(found) == 2, name
    return found


@pytest.mark.parametrize("part", range(PARTS))
def test_scenarios(promtool: str, part: int, tmp_path: Path) -> None:
    """At each moment the alerts fire that the scenario states, and no others; with and without stale markers."""
    said = tool.run(promtool, tool.RULES, SCENARIOS[part::PARTS], tmp_path)
    assert not said, said


def test_every_alert_fires_somewhere() -> None:
    """Each alert of the rules fires in a scenario, and each scenario fires alerts of the rules."""
    assert {alert for scenario in SCENARIOS for alert in scenario.touches} == tool.alerts()


@pytest.mark.parametrize("rule", sorted({mutant.rule for mutant in MUTANTS}))
def test_mutants(promtool: str, rule: str, tmp_path: Path) -> None:
    """Whatever is broken in a rule, a scenario notices it."""
    text = tool.RULES.read_text(encoding="utf-8")
    survivors = []
    for number, mutant in enumerate(MUTANTS):
        if mutant.rule == rule:
            folder = tmp_path / str(number)
            folder.mkdir()
            broken = folder / "broken.yaml"
            broken.write_text(mutant.of(text), encoding="utf-8")
            if not fails(promtool, broken, mutant, folder):
                survivors.append(str(mutant))
    assert not survivors, "\n".join(survivors)


def fails(promtool: str, broken: Path, mutant: Mutant, folder: Path) -> bool:
    """Whether the scenario finds other alerts than it states, either way; a rule that doesn't load is no mutant."""
    for scenario in reversed(named(mutant.caught_by)):
        said = tool.run(promtool, broken, [scenario], folder)
        assert not said or "got:" in said, f"{mutant}: {said}"
        if said:
            return True
    return False


def test_every_rule_has_mutants() -> None:
    """Each rule, alert or record, is broken in some way."""
    assert {mutant.rule for mutant in MUTANTS} == tool.alerts() | tool.records()
