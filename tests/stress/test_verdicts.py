"""The verdicts on real, faulty processes are right. No test measures their delay."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from benchmarks.faults.observer import Conclusion, Observed
from benchmarks.faults.plan import KINDS, Case, Kind, draw
from benchmarks.faults.runner import Phase, Run
from benchmarks.faults.score import Score, marks, score

ROOT = Path(__file__).parents[2]
LINES = marks(ROOT / "benchmarks" / "faults", ROOT)
KIND = next(kind for family, kinds in KINDS if family == "silent" for kind in kinds)
SILENT = [Phase("progressing", 100.0), Phase("silent", 103.0, 2.0, "deadlock", last=True)]
RIGHT = next(iter(LINES["deadlock"])) + " in deadlock"


def judged(
    phases: Sequence[Phase], inside: Sequence[Conclusion], outside: Sequence[Conclusion] = (), kind: Kind = KIND
) -> Score:
    """Return the score of one operation."""
    run = Run(Case(0, kind, "silent", 0, watched=False), {"op": list(phases)}, closed_at=110.0)
    return score([run], lambda run, operation: Observed(list(inside), list(outside)), lambda since, until: 0.0, LINES)


@pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="run works on Linux only")
def test_no_verdict_is_wrong() -> None:
    """With faults of each family, and healthy programs, no verdict and no line of code is wrong."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.verdicts", "--short"],
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        timeout=115,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "- Wrong verdicts: 0; false alarms among them: 0." in said, said
    assert "- Wrong line" not in said, said
    counts = re.findall(r": (\d+) of (\d+)\.$", done.stdout, re.MULTILINE)
    assert len(counts) == 5, said
    assert all(right == of != "0" for right, of in counts), said


def test_the_same_seed_draws_the_same_cases() -> None:
    """A seed decides which programs run, with which parameters, in which order; another seed decides differently."""
    assert draw(7, short=False) == draw(7, short=False) != draw(8, short=False)


def test_a_run_has_three_hundred_processes_of_all_kinds() -> None:
    """A full run has each kind; a short one has each family."""
    full, short = draw(7, short=False), draw(7, short=True)
    assert len(full) >= 300
    assert {case.kind for case in full} == {kind for _, kinds in KINDS for kind in kinds}
    assert {case.family for case in short} == {family for family, _ in KINDS}


def test_each_program_that_names_a_mark_has_it() -> None:
    """The mark that a program names is in a line of its source."""
    text = "".join(file.read_text() for file in (ROOT / "benchmarks" / "faults").glob("*.py"))
    named = set(re.findall(r'mark="([\w ]+)"', text)) | set(re.findall(r'job\.stuck\(\w+, [\w\[\]]+, "([\w ]+)"', text))
    named |= set(re.findall(r'(?:hangs|lost)\(job, \w+, limit, "([\w ]+)"', text))
    assert named == set(LINES)


def test_the_right_verdict_counts_with_its_delay_and_its_line() -> None:
    """What is found in time counts as found; its delay counts from the limit."""
    found = judged(SILENT, [Conclusion(100.1, "progressing"), Conclusion(105.5, "silent", "", RIGHT)])
    assert found.confusion["inside", "silent", "silent"] == found.confusion["inside", "progressing", "progressing"] == 1
    assert [round(delay.seconds, 3) for delay in found.delays] == [0.5]
    assert (found.right_lines, found.wrong_lines) == (1, [])


@pytest.mark.parametrize(
    ("told", "want", "concluded"),
    [
        ([Conclusion(100.1, "progressing"), Conclusion(101.0, "silent")], "progressing", "silent"),
        ([Conclusion(100.1, "progressing")], "silent", "progressing"),
        ([Conclusion(100.1, "progressing"), Conclusion(104.0, "silent")], "silent", "early"),
        ([Conclusion(100.1, "progressing"), Conclusion(105.5, "looping")], "silent", "looping"),
        (
            [Conclusion(100.1, "progressing"), Conclusion(105.5, "silent"), Conclusion(107.0, "progressing")],
            "silent",
            "progressing",
        ),
        ([], "silent", "unheard"),
    ],
)
def test_what_is_wrong_counts_as_wrong(told: list[Conclusion], want: str, concluded: str) -> None:
    """A false alarm, a miss, an early one, another verdict, one that does not last, and silence are wrong verdicts."""
    found = judged(SILENT, told)
    assert found.confusion["inside", want, concluded] == 1
    wrong = next(wrong for wrong in found.wrong if (wrong.view, wrong.concluded) == ("inside", concluded))
    assert wrong.false_alarm is (want == "progressing")


def test_a_wrong_line_is_told() -> None:
    """An unmarked line is wrong, and so is none at all."""
    for at in ("benchmarks/faults/hangs.py:1 in deadlock", ""):
        found = judged(SILENT, [Conclusion(100.1, "progressing"), Conclusion(105.5, "silent", "", at)])
        assert found.right_lines == 0
        assert len(found.wrong_lines) == 1


def test_only_a_deaf_observer_may_know_nothing() -> None:
    """Unknown is not wrong if the Collector was away, and is wrong otherwise."""
    outage = next(kind for family, kinds in KINDS if family == "outage" for kind in kinds)
    told = [Conclusion(100.1, "progressing"), Conclusion(101.0, "unknown"), Conclusion(105.5, "silent")]
    assert judged(SILENT, told[:1] + told[2:], told, outage).wrong == []
    assert [wrong.concluded for wrong in judged(SILENT, told[:1] + told[2:], told).wrong] == ["unknown"]


def test_a_program_that_broke_is_told() -> None:
    """A program that did not reach its end has no verdict, but is reported."""
    found = judged(SILENT[:1], [])
    assert found.operations == 0
    assert len(found.broken) == 1
