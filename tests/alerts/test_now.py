"""What *Operations now* and *One operation* say of runs that were killed, fell silent, ended or came back."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from grafana.generator.common import ID_VARIABLE, choices
from grafana.generator.firing import OURS, firing, since
from grafana.generator.now import SEEN
from grafana.generator.queries import (
    BY_NAME,
    EXIT,
    HEALTH,
    ID,
    NAME,
    OF_STAGE,
    STAGE,
    VERDICTS,
    beyond,
    from_start,
    heard,
    near,
    nearest,
    numbered,
    series,
    value,
)

from otel_progress import semconv as s

WHO = 'job="shop", progress_operation_name="import", progress_operation_id="r"'
A, B = f'{WHO}, instance="a"', f'{WHO}, instance="b"'
STAGED = f'progress_health="progressing", {STAGE}="load"'
CHOSEN = {"namespace": ".*", "cluster": ".*", "environment": ".*", "job": ".+", "name": ".+", "unrecorded": ".+"}
TIMES = {"heard": "45s", "gap": "3m", "known": "6h"}
WORKS = {"collector:progress_works:count": "1x100"}
BLIND = {"collector:progress_works:count": "1x6 0x100", "collector:progress_blind:last5m": "_x6 1x100"}
STATE = f"max by ({ID}, {STAGE}, {EXIT}) ({numbered(BY_NAME, tuple(VERDICTS))})"


def of(metric: s.Metric, who: str = A, more: str = "") -> str:
    """Return the series of a run."""
    return f"{series(metric)}{{{who}{more and ', ' + more}}}"


def run(values: str, who: str = A, start: str = "0") -> dict[str, str]:
    """Return the series of a run whose samples come each 15 s until they stop."""
    count = values.rsplit("x", maxsplit=1)[-1]
    return {
        of(s.RUN_ACTIVE, who): values,
        of(s.RUN_START_TIME, who): f"{start}x{count}" if "x" in values else start,
        of(s.RUN_HEALTH, who, STAGED): f"1x{count}",
    }


LIVING = run("1x100")
GONE = run("1x8")
"""It is last heard at 2 min."""
ENDED = {**run("1x8"), of(s.RUN_ACTIVE): "1x8 0"}
AGAIN = {**GONE, **run("_x10 1x100", B, "_x10 150")}
PROVEN = {**GONE, of(s.RUN_ACTIVE): "1x8 0", of(s.RUN_LOST, A, f'{EXIT}="killed by SIGKILL"'): "_x8 125"}
PROVEN_AGAIN = {**PROVEN, **run("_x10 1x100", B, "_x10 150")}
OTHER_BEFORE = {**GONE, **run("1x4", B, "-100")}
"""An earlier attempt in another process, whose last verdict is 1, too."""
OVERDUE = {**LIVING, of(s.RUN_WAIT_REMAINING): "60-15x100", of(s.RUN_IDLE): "0x100", of(s.RUN_STALL_AFTER): "60x100"}
LOAD, DEAD = {STAGE: "load"}, VERDICTS["dead"]
R = {ID: "r"}


@pytest.mark.parametrize(
    ("given", "seconds", "word", "more"),
    [
        pytest.param(LIVING, 300, "progressing", LOAD, id="living"),
        pytest.param(GONE, 150, "progressing", LOAD, id="a_gap_of_two_exports"),
        pytest.param(GONE, 180, "unheard", LOAD, id="unheard_after_45_s"),
        pytest.param(GONE, 400, "dead", LOAD, id="dead_after_3_min_with_its_stage"),
        pytest.param(OTHER_BEFORE, 400, "dead", LOAD, id="the_newest_of_two_attempts"),
        pytest.param(ENDED, 180, "ended", {}, id="ended"),
        pytest.param(ENDED, 400, "ended", {}, id="ended_long_ago"),
        pytest.param(AGAIN, 200, "progressing", LOAD, id="goes_on_elsewhere"),
        pytest.param(AGAIN, 600, "progressing", LOAD, id="goes_on_elsewhere_for_long"),
        pytest.param(PROVEN, 150, "killed", {**LOAD, EXIT: "killed by SIGKILL"}, id="killed_at_once_with_its_exit"),
        pytest.param(PROVEN, 1200, "killed", {**LOAD, EXIT: "killed by SIGKILL"}, id="killed_stays_known"),
        pytest.param(PROVEN_AGAIN, 300, "progressing", LOAD, id="a_newer_attempt_voids_a_kill"),
        pytest.param(OVERDUE, 300, "overdue", {}, id="overdue"),
    ],
)
def test_verdict(
    promtool: str, given: dict[str, str], seconds: int, word: str, more: dict[str, str], tmp_path: Path
) -> None:
    """A run has one verdict, the worst that is known, with its stage; what isn't heard is never green."""
    wanted = {frozenset({**R, **more}.items()): float(VERDICTS[word])}
    check(promtool, STATE, {**WORKS, **given}, seconds, wanted, tmp_path)


def test_silence_proves_nothing_while_no_collector_works(promtool: str, tmp_path: Path) -> None:
    """While no Collector works, a silent run is unheard, and never called dead."""
    check(promtool, STATE, {**BLIND, **GONE}, 200, {frozenset({**R, **LOAD}.items()): VERDICTS["unheard"]}, tmp_path)
    check(promtool, STATE, {**BLIND, **GONE}, 600, {}, tmp_path)


def test_what_is_lost_stays_lost_while_no_collector_works(promtool: str, tmp_path: Path) -> None:
    """A run that the rules took for lost before an outage is still called dead in it, as its alert goes on."""
    given = {**BLIND, **GONE, f"run:progress_lost_time_seconds{{{A}}}": "_x16 1x100"}
    check(promtool, STATE, {**WORKS, **given}, 600, {frozenset({**R, **LOAD}.items()): DEAD}, tmp_path)


@pytest.mark.parametrize(
    ("expression", "given", "seconds", "wanted"),
    [
        pytest.param(near(BY_NAME), OVERDUE, 300, 1, id="an_overdue_wait_has_reached_its_limit"),
        pytest.param(near(BY_NAME), OVERDUE, 30, 0, id="a_wait_in_time_has_not"),
        pytest.param(beyond(BY_NAME), OVERDUE, 300, 240, id="overdue_by"),
        pytest.param(beyond(BY_NAME), LIVING, 300, None, id="nothing_is_past_a_limit"),
        pytest.param(nearest(BY_NAME), LIVING, 300, 0, id="a_run_without_limits_is_listed"),
        pytest.param(heard(BY_NAME), GONE, 1200, 120_000, id="last_heard"),
        pytest.param(heard(BY_NAME), PROVEN, 1200, 135_000, id="last_heard_of_a_kill"),
        pytest.param(heard(BY_NAME), ENDED, 1200, None, id="what_ended_is_not_waited_for"),
        pytest.param(from_start(nearest(BY_NAME), BY_NAME), LIVING, 300, 0, id="start_of_links"),
        pytest.param(
            value(s.RUN_ETA, BY_NAME), {**LIVING, of(s.RUN_ETA): "60x8 stale"}, 150, None, id="an_eta_that_is_withdrawn"
        ),
        pytest.param(
            value(s.RUN_ETA, BY_NAME),
            {**LIVING, of(s.RUN_ETA): "60x40", of(s.RUN_HEALTH, A, f'{HEALTH}="silent"'): "1x40"},
            150,
            None,
            id="an_eta_that_lingers_while_it_is_stuck",
        ),
        pytest.param(
            value(s.RUN_COMPLETED, f"{BY_NAME}, {OF_STAGE}"),
            {**LIVING, of(s.RUN_COMPLETED, A, OF_STAGE): "5x8 stale"},
            150,
            None,
            id="the_count_of_a_stage_that_ended",
        ),
    ],
)
def test_value(
    promtool: str, expression: str, given: dict[str, str], seconds: int, wanted: float | None, tmp_path: Path
) -> None:
    """Each column of the tables has the value that a person expects, and none where nothing is known."""
    expected = {} if wanted is None else {frozenset[tuple[str, str]](): wanted}
    check(promtool, f"sum({expression})", {**WORKS, **given}, seconds, expected, tmp_path)


BY_NAME_EACH_MINUTE = {
    series(s.ACTIVE) + '{job="shop", progress_operation_name="import", instance="a"}': "1 _ _ _ " * 25
}


@pytest.mark.parametrize(
    ("given", "seconds", "ago"),
    [
        pytest.param({**LIVING, **BY_NAME_EACH_MINUTE}, 358, 13, id="the_newest_series_of_a_run"),
        pytest.param(BY_NAME_EACH_MINUTE, 358, 58, id="metrics_by_name_where_nothing_runs"),
        pytest.param(GONE, 300, 180, id="silent_for_minutes"),
        pytest.param(GONE, 1201, 1081, id="silent_for_long"),
        pytest.param({}, 300, None, id="never"),
    ],
)
def test_last_heard(promtool: str, given: dict[str, str], seconds: int, ago: float | None, tmp_path: Path) -> None:
    """The time since the newest metrics is true to the second, however often they come."""
    wanted = {} if ago is None else {frozenset[tuple[str, str]](): ago}
    check(promtool, SEEN[0], given, seconds, wanted, tmp_path)


def test_list_of_runs(promtool: str, tmp_path: Path) -> None:
    """The list shows name, start and state, also of a run whose start is not known."""
    given = {**GONE, of(s.RUN_ACTIVE, A.replace('"r"', '"x"')): "1x100"}
    # The start is 1970-01-01 00:00.
    texts = {"r": "import, day 01 at 00:00 UTC, unheard"}
    wanted = {frozenset({ID: key, "choice": text}.items()): 1.0 for key, text in texts.items()}
    check(promtool, f"max by ({ID}, choice) ({choices()})", {**WORKS, **given}, 180, wanted, tmp_path)


@pytest.mark.parametrize("key", ["r", "q\"uo'te", 'a", b="c', "x=y, z"])
def test_the_list_of_runs_takes_any_id(key: str) -> None:
    """The expression of the variable finds the whole id, whatever characters it has; Grafana escapes none in the text."""
    text = f'{{choice="load, day 01 at 00:00 UTC, stuck",{ID}="{key}",{NAME}="load"}} 1 1700000000000'
    found = re.search(str(ID_VARIABLE["regex"])[1:-1].replace("(?<", "(?P<"), text)
    assert found is not None
    assert (found["text"], found["value"]) == ("load, day 01 at 00:00 UTC, stuck", key)


def alert(name: str, instance: str, more: str = "") -> str:
    """Return the series of a firing alert."""
    where = f'{OURS}, job="shop", instance="{instance}", progress_operation_name="import"{more}'
    return f'ALERTS{{alertname="{name}", alertstate="firing", severity="critical", {where}}}'


RUN = ', progress_operation_id="r"'


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        pytest.param([("StuckByName", "a", "")], {("StuckByName", "a")}, id="alone"),
        pytest.param(
            [("OperationStuck", "a", RUN), ("StuckByName", "a", ""), ("OperationSlow", "a", RUN)],
            {("OperationStuck", "a")},
            id="the_run_is_named",
        ),
        pytest.param(
            [("OperationStuck", "a", RUN), ("StuckByName", "b", "")],
            {("OperationStuck", "a"), ("StuckByName", "b")},
            id="in_another_process",
        ),
        pytest.param([("OperationLost", "a", RUN), ("OperationStuck", "a", RUN)], {("OperationLost", "a")}, id="lost"),
        pytest.param([("PipelineDown", "c", ""), ("OperationStuck", "a", RUN)], {("PipelineDown", "c")}, id="blind"),
    ],
)
def test_alerts(promtool: str, given: list[tuple[str, str, str]], shown: set[tuple[str, str]], tmp_path: Path) -> None:
    """The table of alerts leaves out exactly what Alertmanager inhibits."""
    wanted = {frozenset({"alertname": name, "instance": it}.items()): 1.0 for name, it in shown}
    series_ = {alert(*it): "1x100" for it in given}
    text = firing('job=~".+"')
    check(promtool, f"max by (alertname, instance) ({text})", series_, 300, wanted, tmp_path)


ANY_JOB = 'job=~".+"'
EARLY = {"run:progress_start_time_seconds:last6h": "7", "run:progress_slow_after_seconds:last3m": "30"}
BEGAN = {
    "OperationStuck": ({s.RUN_IDLE: "100+15x40"}, -100),
    "OperationLooping": ({s.RUN_IDLE: "0x8 15+15x40"}, 120),
    "OperationSlow": ({}, 37),
    "OperationOverdueWait": ({s.RUN_WAIT_REMAINING: "60-15x40"}, 60),
    "OperationNotStarted": ({s.RUN_PENDING: "20+15x40", s.RUN_START_WITHIN: "60x40"}, 40),
    "OperationLost": ({}, 250),
    "ReporterLost": ({}, 260),
    "ErrorRate": ({}, 290),
}
"""Alert to series of the run, and when its condition began."""


@pytest.mark.parametrize("name", BEGAN)
def test_since_comes_from_the_run(promtool: str, name: str, tmp_path: Path) -> None:
    """After a restart Prometheus takes each alert for new; the run's own series say since when it really holds."""
    series_, began = BEGAN[name]
    given = {of(metric): values for metric, values in series_.items()}
    given |= {f"{recorded}{{{A}}}": f"{value}x40" for recorded, value in EARLY.items()}
    given[f"run:progress_heard_time_seconds{{{A}}}"] = "250x40"
    given['instance:progress_heard_time_seconds{job="shop", instance="a"}'] = "260x40"
    whose = 'job="shop", instance="a"' if name == "ReporterLost" else A
    given[f'ALERTS{{alertname="{name}", alertstate="firing", severity="critical", {OURS}, {whose}}}'] = "_x19 1x20"
    given[f'ALERTS_FOR_STATE{{alertname="{name}", severity="critical", {OURS}, {whose}}}'] = "_x19 290x20"
    text = f"max by (alertname) ({since(ANY_JOB, 'alertname, job, progress_operation_name, progress_operation_id')})"
    check(promtool, text, given, 315, {frozenset({("alertname", name)}): 1000 * began}, tmp_path)


def test_since_of_a_run_that_fell_silent(promtool: str, tmp_path: Path) -> None:
    """A stuck run that is no longer heard keeps the time of its last progress until its alert is that it is lost."""
    given = {
        f"run:progress_heard_time_seconds{{{A}}}": "15+15x8 135x12",
        f"run:progress_idle_seconds:last3m{{{A}}}": "0x2 15+15x6 90x12",
        of(s.RUN_IDLE): "0x2 15+15x6 stale",
        f'ALERTS{{alertname="OperationStuck", alertstate="firing", severity="critical", {OURS}, {A}}}': "1x40",
        f'ALERTS_FOR_STATE{{alertname="OperationStuck", severity="critical", {OURS}, {A}}}': "290x40",
    }
    text = f"max by (alertname) ({since(ANY_JOB, 'alertname, job, progress_operation_name, progress_operation_id')})"
    check(promtool, text, given, 450, {frozenset({("alertname", "OperationStuck")}): 45_000}, tmp_path)


def filled(expression: str) -> str:
    """Return a query with its variables replaced."""
    for name, chosen in {**CHOSEN, **TIMES}.items():
        expression = expression.replace(f"${name}", chosen)
    return expression


def check(
    promtool: str,
    expression: str,
    given: dict[str, str],
    seconds: int,
    wanted: dict[frozenset[tuple[str, str]], float],
    folder: Path,
) -> None:
    """Compare the result of an expression at a time with labels and values."""
    text = filled(expression)
    samples = [
        {"labels": "{" + ", ".join(f'{key}="{it}"' for key, it in sorted(labels)) + "}", "value": number}
        for labels, number in wanted.items()
    ]
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in given.items()],
        "promql_expr_test": [{"expr": text, "eval_time": f"{seconds}s", "exp_samples": samples}],
    }
    file = folder / "test.json"
    file.write_text(json.dumps({"evaluation_interval": "15s", "tests": [test]}), encoding="utf-8")
    done = subprocess.run(
        [promtool, "test", "rules", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
