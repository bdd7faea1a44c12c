"""The drill's pure parts: the plan, the matching of messages with expectations, the report."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from benchmarks.incident import report, values
from benchmarks.incident.match import Received, changes, compare, lacking, link, row_fits, without_news
from benchmarks.incident.plan import DEPLOYED, SCENARIOS, Message, Panel, choose, length
from benchmarks.incident.values import Value, address, board, fill, panels, variables

STUCK = Message("OperationStuck", "run-1", "run-1.limit", 45, links=())
MOMENTS = {"run-1.limit": 1000.0}


def alert(
    status: str = "firing", name: str = "OperationStuck", run: str = "run-1", **annotations: str
) -> dict[str, Any]:
    """Return an alert as Alertmanager sends it."""
    labels = {"alertname": name, "progress_operation_id": run, "severity": "critical"}
    return {"status": status, "labels": labels, "annotations": annotations}


def received(at: float, *alerts: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """Return a message."""
    return at, {"alerts": list(alerts)}


def marks(*messages: tuple[float, dict[str, Any]], wanted: tuple[Message, ...] = (STUCK,)) -> list[str]:
    """Return the marks of the lines about these messages."""
    return [it.mark for it in compare([("stuck", it) for it in wanted], MOMENTS, changes(messages))]


def test_what_is_in_time_is_expected() -> None:
    """An alert within its bar is expected, at exactly the bar too; after it, it is late."""
    assert marks(received(1045.0, alert())) == ["expected"]
    assert marks(received(1045.1, alert())) == ["late"]


def test_what_does_not_come_is_missing() -> None:
    """An expected alert that does not come is missing."""
    assert marks() == ["missing"]


def test_an_alert_before_its_cause_is_false() -> None:
    """What comes before its cause is no answer to it."""
    assert marks(received(999.0, alert())) == ["missing", "false"]


def test_a_cause_that_never_happened_is_missing() -> None:
    """If the program never came to its moment, the expectation is missing, and the alert false."""
    wanted = (Message("OperationStuck", "run-1", "run-1.other", 45, links=()),)
    assert marks(received(1001.0, alert()), wanted=wanted) == ["missing", "false"]


def test_a_repeated_message_is_no_news() -> None:
    """Alertmanager repeats all alerts of a group when one changes."""
    assert marks(received(1010.0, alert()), received(1070.0, alert())) == ["expected"]


def test_a_message_without_news_is_false() -> None:
    """A message that only repeats what was said, such as an earlier recovery, is marked."""
    first = received(1010.0, alert())
    over = (1040.0, {"alerts": [alert("resolved"), alert(run="run-2")], "status": "firing"})
    again = (1060.0, {"alerts": [alert("resolved")], "status": "firing"})
    assert [(it.alert, it.mark) for it in without_news([first, over, again])] == [("OperationStuck", "false")]
    assert without_news([first, over]) == []


def test_a_false_resolve_and_the_alert_told_anew_are_false() -> None:
    """Nobody recovered: the message *resolved* is false, and so is the second alarm."""
    found = marks(received(1010.0, alert()), received(1047.0, alert("resolved")), received(1080.0, alert()))
    assert found == ["expected", "false", "false"]


def test_an_expected_resolve() -> None:
    """A recovery is told."""
    resolved = Message("OperationStuck", "run-1", "run-1.limit", 240, "resolved", links=())
    found = marks(received(1010.0, alert()), received(1200.0, alert("resolved")), wanted=(STUCK, resolved))
    assert found == ["expected", "expected"]


def test_an_alert_about_healthy_work_is_false() -> None:
    """Any alert that nobody expects is false, also one with another name about the same run."""
    other = alert(run="healthy-1")
    second = alert(name="OperationSlow")
    assert marks(received(1010.0, alert(), other, second)) == ["expected", "false", "false"]


def test_what_an_alert_lacks() -> None:
    """Texts, absolute links and the severity are checked; a placeholder is no link."""
    wanted = Message("OperationStuck", "run-1", "", 45, says=("in hang_here", "fetch"), links=("runbook", "logs"))
    annotations = {
        "stuck_at": "jobs.py:1 in hang_here",
        "runbook_url": "https://runbook.invalid#x",
        "logs_url": "/explore",
    }
    got = Received(0, "firing", {"severity": "warning"}, annotations)
    assert lacking(wanted, got) == ("text 'fetch'", "link runbook", "link logs", "severity critical (is warning)")
    good = Received(0, "firing", {}, {"dashboard_url": "https://grafana.example/d/x?var-id=1"})
    assert link(good, "dashboard") == "https://grafana.example/d/x?var-id=1"


def test_an_incomplete_alert_is_wrong() -> None:
    """An alert in time that lacks a text counts as wrong."""
    wanted = Message("OperationStuck", "run-1", "run-1.limit", 45, says=("line 7",), links=())
    assert marks(received(1010.0, alert(summary="stuck")), wanted=(wanted,)) == ["incomplete"]


@pytest.mark.parametrize(
    ("labels", "value", "fits"),
    [
        ((("stage", "fetch"),), 7, True),
        ((("stage", "other"),), 7, False),
        ((("at", "~jobs.py:.* in hang"),), 7, True),
        ((("at", "~hang"),), 7, False),
        ((("missing", ""),), 7, True),
        ((), 6.9, False),
        ((), 7.1, False),
    ],
)
def test_rows(labels: tuple[tuple[str, str], ...], value: float, fits: bool) -> None:
    """A row fits by its labels, whole regular expressions, and the bounds of its value."""
    assert row_fits(labels, 7, 7, {"stage": "fetch", "at": "jobs.py:3 in hang"}, value) is fits


def test_plan_is_complete() -> None:
    """Each moment that a message counts from can happen, each run starts before anything is done with it."""
    for it in SCENARIOS:
        started = {step.run for step in it.steps if step.action == "start"}
        assert {step.run for step in it.steps if step.action in ("order", "kill")} <= started, it.name
        for message in it.messages:
            assert message.cause in ("up", "down") or message.cause.partition(".")[0] in started, it.name
            assert it.name, message.within
    assert len({step.run for it in SCENARIOS for step in it.steps if step.action == "start"}) >= DEPLOYED + 10


def test_an_outage_of_six_minutes_has_ends_in_it() -> None:
    """Down and up are 6 minutes apart, and the ends are between them."""
    [outage] = [it for it in SCENARIOS if it.name == "outage"]
    at = {step.action: step.at for step in outage.steps if step.action in ("down", "up")}
    assert at["up"] - at["down"] == 360
    assert all(at["down"] < step.at < at["up"] for step in outage.steps if step.action in ("order", "kill"))


def test_each_false_alarm_has_the_time_to_show() -> None:
    """A scenario lasts longer than the slowest alert after its last deed: 5 min for silence, 7 min after an outage."""
    by_name = {it.name: it for it in SCENARIOS}
    assert by_name["outage"].until >= 30 + 360 + 7 * 60
    assert by_name["deploy"].until >= 50 + 5 * 60
    assert by_name["restart"].until >= 315 + 60


def test_healthy_work_runs_beside_what_is_chosen() -> None:
    """`--only` keeps the healthy work of the same place; `lost` is another word for killed."""
    assert [it.name for it in choose(["lost"])] == ["killed", "healthy"]
    assert [it.name for it in choose(["outage"])] == ["outage", "healthy-outage"]
    assert choose([]) == list(SCENARIOS)
    assert length(choose(["overdue"])) == 130
    with pytest.raises(ValueError, match="no such scenario: stack; there are stuck"):
        choose(["stack"])


def test_every_expected_panel_exists() -> None:
    """Each expectation names a panel of a shipped dashboard, a store, and no variable stays open in its queries."""
    for panel in {it.where: it for scenario in SCENARIOS for it in scenario.panels}.values():
        if panel.where.startswith(("logs", "trace")):
            continue
        name, title, ref = address(panel.where)
        json_ = board(name)
        [shown] = [it for it in panels(json_) if it.get("title") == title]
        assert ref in ("", *(target["refId"] for target in shown["targets"])), panel.where
        for target in shown["targets"]:
            if target["datasource"]["type"] == "prometheus":
                query = fill(target["expr"], variables(json_, panel.run))
                assert not re.search(r"\$\{?(?!__all)[A-Za-z_]", query), panel.where


def test_the_report_says_what_is_wrong() -> None:
    """Each line has its mark in text, Markdown and JSON, and all wrong ones are counted."""
    got = changes([received(1010.0, alert(summary="a | b")), received(1020.0, alert(run="healthy-1"))])
    missing = Message("OperationLost", "run-2", "run-1.limit", 60, links=())
    lines = compare([("stuck", STUCK), ("killed", missing)], MOMENTS, got)
    seen = [
        Value("stuck", Panel(95, "operation: Verdict", "run-1", (), 7, 7), "expected", "7"),
        Value("stuck", Panel(95, "logs", "run-1", (("stage", "fetch"),)), "missing", "nothing"),
        Value("stuck", Panel(95, "now: Running", "run-2", absent=True), "false", "1"),
    ]
    assert report.wrong(lines, seen) == 4
    assert report.told(lines[0]).split()[:3] == ["expected", "10.0", "s"]
    assert report.details(lines[0]) == ["    summary: a | b"]
    assert report.details(lines[1]) == []
    text = report.markdown(SCENARIOS, lines, seen, ["memory, which needs a group"])
    for wanted in ("**missing**", "**false**", "| expected |", "Not played: memory"):
        assert wanted in text
    found = json.loads(json.dumps(report.as_json(lines, seen, [])))
    assert [it["mark"] for it in found["messages"]] == ["expected", "missing", "false"]
    assert found["wrong"] == 4
    assert "expected: 7" in report.shown(seen[0])


def test_a_broken_query_is_a_finding() -> None:
    """A panel whose query fails is missing, and the drill goes on."""
    found = values.read(None, "stuck", Panel(0, "operation: No such panel", "run-1"))  # type: ignore[arg-type]
    assert found.mark == "missing"
    assert "No such panel" in found.shown
