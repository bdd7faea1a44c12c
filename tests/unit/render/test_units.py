"""Durations, counts, sizes and rates in words: the cases that the page must pass as well."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from otel_progress import semconv
from otel_progress.cli.query import cells
from otel_progress.cli.query.rows import snapshot_of
from otel_progress.model import units
from otel_progress.model.estimate import Estimate
from otel_progress.model.sentences import sentence
from otel_progress.model.snapshot import Event, Progress, Snapshot, Wait
from otel_progress.model.status import Status
from otel_progress.model.units import amount, rate, stopwatch
from otel_progress.outbound.payloads import Change
from otel_progress.render import words
from otel_progress.render.tree import TreeNode, TreeOptions, rows_of
from otel_progress.render.words import counted

CASES: Final[dict[str, list[list[Any]]]] = json.loads(
    (Path(__file__).parents[2] / "words.json").read_text(encoding="utf-8")
)


def reported(given: dict[str, Any], later: float) -> Snapshot:
    """An operation whose estimate was reported some seconds ago."""
    seconds, low, high, source = given["eta"].values()
    told = Progress(
        given.get("completed"),
        given.get("total"),
        ratio=given.get("ratio"),
        eta=Estimate(seconds, low, high, source),
    )
    status = Status(given.get("status", "running"))
    wait = Wait("quota", 1.0) if status is Status.WAITING else None
    return Snapshot("a", "work", status, 0.0, progress=told, wait=wait).at(later)


def time_left(given: dict[str, Any], later: float) -> str:
    """What is shown of an estimate, some seconds after it was reported."""
    now = reported(given, later)
    return "" if now.progress.eta is None else words.remaining(now.progress, waits=now.status is Status.WAITING)


def remaining(text: str, waits: bool = False, source: str | None = None) -> str:
    """The function of the page has no keywords."""
    return units.remaining(text, waits=waits, source=source)


FUNCTIONS: Final[dict[str, Callable[..., str]]] = {
    "duration": units.duration,
    "lasting": units.lasting,
    "spelled": units.spelled,
    "percent": units.percent,
    "count": units.count,
    "size": units.size,
    "money": units.money,
    "rate": units.rate,
    "plural": units.plural,
    "left": units.left,
    "remaining": remaining,
    "time_left": time_left,
    "unforeseen": units.unforeseen,
}


@pytest.mark.parametrize("name", CASES)
def test_words_are_those_of_the_page(name: str) -> None:
    """Each shared case has the text that the page shows for it."""
    assert [[*given, FUNCTIONS[name](*given)] for *given, _ in CASES[name]] == CASES[name]


@pytest.mark.parametrize(("given", "later", "said"), CASES["time_left"])
def test_every_view_says_the_same_of_one_moment(given: dict[str, Any], later: float, said: str) -> None:
    """The console's tree, the lists and details of `watch`, log lines and webhooks have the words of the page."""
    now = reported(given, later)
    row = {"id": "a", "name": "work", "status": now.status.value, "timestamp": 0.0, "progress": {**given}}
    row |= {"wait": {"reason": "quota", "elapsed": 1.0}} if now.wait else {}
    heard = snapshot_of(row, later)
    for seen in (now, heard):
        (whole, *_) = rows_of([TreeNode(0, "work", seen)], TreeOptions(0, 3, words.Calm()))
        assert whole.eta == (said or words.remaining(seen.progress))
        assert cells.remaining(seen) == said.removesuffix(" left")
    if later == 0:
        assert f", {said}" in sentence(Event(semconv.UPDATED, 0, now))
        assert ("left", said) in Change("1", "stalled", 0.0, row).facts()


def test_every_function_has_shared_cases() -> None:
    """The file of cases covers what both sides say."""
    assert set(CASES) == set(FUNCTIONS)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0:00"), (59.9, "0:59"), (60, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (90061, "25:01:01")],
)
def test_stopwatch(seconds: float, shown: str) -> None:
    """What ticks on the terminal is shown as on a stopwatch."""
    assert stopwatch(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.02, "20 ms"),
        (45.4525, "45.5 s"),
        (59.97, "60 s"),
        (1800, "1800 s"),
        (86400.04, "86400 s"),
        (3e7, "30000000 s"),
    ],
)
def test_limits_on_the_wire_have_one_decimal(seconds: float, said: str) -> None:
    """Evidence on the wire has its limits in seconds, with at most one decimal."""
    assert units.in_seconds(seconds) == said


def test_evidence_ticks_in_the_words_of_its_limit() -> None:
    """What is let tick is spelled as the limit beside it is, and is never below what is known otherwise."""
    told = "load: no progress for 20 s, stall_after is 90 s"
    assert units.spelled(told, 75.5) == "load: no progress for 1 min 35 s, stall_after is 1 min 30 s"
    assert units.spelled(told, least=30.2) == "load: no progress for 30 s, stall_after is 1 min 30 s"


def test_bytes_are_scaled() -> None:
    """The unit `By` makes a size of a count."""
    assert (amount(3_200_000, "By"), amount(3_200_000, "row")) == ("3.2 MB", "3,200,000")


def test_no_rate_is_empty() -> None:
    """Without a rate nothing is said."""
    assert rate(None, "file") == ""


@pytest.mark.parametrize(
    ("completed", "total", "unit", "text"),
    [
        (3, 10, "file", "3 of 10 files"),
        (1, None, "file", "1 file"),
        (1_234_567, 2_000_000, "row", "1,234,567 of 2,000,000 rows"),
        (1_200, 3_000_000, "By", "1.2 kB of 3.0 MB"),
    ],
)
def test_units_in_a_sentence(completed: int, total: int | None, unit: str, text: str) -> None:
    """A sentence says how much of how much, in the plural of the unit."""
    assert units.units(completed, total, unit) == text


def test_one_has_no_plural() -> None:
    """What follows a single one is singular: of `1/1,812` the last number counts."""
    assert [counted(Progress(done, total, "url")) for done, total in ((1, None), (1, 1), (1, 20), (2, None))] == (
        ["1 url", "1 url", "1/20 urls", "2 urls"]
    )


def test_counts_in_a_column() -> None:
    """A count says its total while that is not reached, and never stands without a word for what it counts."""
    assert counted(Progress(3, 10, "file")) == "3/10 files"
    assert counted(Progress(10, 10, "file")) == "10 files"
    assert counted(Progress(3, None)) == "3 items"
    assert counted(Progress(1, None)) == "1 item"
    assert counted(Progress(3, 10)) == "3/10"
    assert counted(Progress(10, 10)) == "10 items"
    assert counted(Progress(3, None, "1")) == "3 done"
    assert counted(Progress()) == ""
