"""What alerts lack in a Prometheus: what its answers about rules, alerts and targets say."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from otel_progress.cli.doctor.findings import Problem, problem

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

PRODUCT: Final = "otel-progress"
"""The label `product` of all alerts."""
FILES: Final = {"panels.yaml": "run:progress_heard", "watchdog.yaml": "Watchdog"}
"""The files of rules beside rules.yaml, each with a rule of it."""
SHOWN: Final = 5
"""The most names in a finding."""


def has_rules(rules: dict[str, Any]) -> bool:
    """Whether the rules of rules.yaml are there."""
    return "OperationStuck" in _names(rules)


def of_rules(where: str, rules: dict[str, Any]) -> Iterator[Problem]:
    """Yield files that are not loaded, and rules that fail."""
    names = _names(rules)
    if absent := [file for file, rule in FILES.items() if rule not in names]:
        yield problem("rules_incomplete", f"{where} has no rules of {' and '.join(absent)}")
    wrong = {
        str(rule.get("name")): str(rule.get("lastError", ""))
        for group, rule in _rules(rules)
        if rule.get("health") == "err" and str(group.get("name", "")).startswith(PRODUCT)
    }
    if wrong:
        told = next((f" ({text})" for text in wrong.values() if text), "")
        yield problem("rules_fail", f"{where} can't evaluate {_listed(wrong)}{told}")


def of_alerts(where: str, alerts: dict[str, Any]) -> Iterator[Problem]:
    """Yield the alerts that fire now, each name once."""
    firing: Counter[str] = Counter()
    for alert in _dicts(alerts.get("alerts")):
        labels = alert.get("labels") or {}
        name = str(labels.get("alertname"))
        if alert.get("state") == "firing" and labels.get("product") == PRODUCT and name != FILES["watchdog.yaml"]:
            firing[name] += 1
    if firing:
        counts = [name if count == 1 else f"{name} ({count} times)" for name, count in firing.items()]
        yield problem("alerts_fire", f"{where} has alerts that fire now: {_listed(counts)}")


def of_collectors(where: str, ups: list[Any]) -> Iterator[Problem]:
    """Yield that no Collector is a target, or which of them can't be scraped."""
    if not ups:
        yield problem("collector_unscraped", f"{where} has no target with the job name otel-collector")
    down = dict.fromkeys(str(up.get("metric", {}).get("instance", "?")) for up in _dicts(ups) if _value(up) == "0")
    if down:
        yield problem("collector_down", f"{where} can't scrape the Collector {_listed(down)} (up is 0)")


def _value(sample: dict[str, Any]) -> str:
    value = sample.get("value")
    return str(value[1]) if isinstance(value, list) and len(value) == 2 else ""


def _names(rules: dict[str, Any]) -> set[str]:
    return {str(rule.get("name")) for _, rule in _rules(rules)}


def _rules(data: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for group in _dicts(data.get("groups")):
        for rule in _dicts(group.get("rules")):
            yield group, rule


def _dicts(found: Any) -> Iterator[dict[str, Any]]:
    """The objects of a list: what answers may be no Prometheus."""
    yield from (it for it in found if isinstance(it, dict)) if isinstance(found, list) else ()


def _listed(names: Collection[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(list(names)[:SHOWN]) + (f" and {more} more" if more > 0 else "")
