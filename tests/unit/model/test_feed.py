"""The activity feed: a running activity becomes the line of its end. Labels that distinguish things of one name."""

from __future__ import annotations

import otel_progress as progress
from otel_progress import semconv
from otel_progress.model.distinguish import LENGTH, apart
from otel_progress.model.values import EMPTY, Attributes
from otel_progress.testing import START, Capture


def test_an_activity_that_runs_becomes_the_one_that_ended(progress_capture: Capture) -> None:
    """The end of an activity replaces its start and keeps its time; both are events."""
    with progress.operation("agent") as op:
        progress.note("read a.txt", "running")
        progress.note("read b.txt", "running", tries=1)
        progress.note("a word")
        progress_capture.clock.sleep(3)
        progress.note("read a.txt", "ok", rows=3)
        with progress.stage("other"):
            progress.note("read b.txt", "ok")
        seen = op.snapshot()
    assert [(note.text, note.status, note.stage, note.started_at) for note in seen.notes] == [
        ("read b.txt", "running", None, None),
        ("a word", None, None, None),
        ("read a.txt", "ok", None, START / 1e9),
        ("read b.txt", "ok", "other", None),
    ]
    progress_capture.look()
    assert len(progress_capture.of(semconv.NOTE)) == 5


def test_an_activity_may_tell_how_it_goes_on(progress_capture: Capture) -> None:
    """Each further note of a running activity replaces the one before, and keeps the time of the start."""
    with progress.operation("agent") as op:
        for page in range(100):
            progress.note("crawl", "running", page=page)
            progress_capture.clock.sleep(1)
        [note] = op.snapshot().notes
        progress.note("crawl", "failed")
        progress.note("crawl", "failed")
        both = op.snapshot().notes
    assert (note.attributes, note.started_at) == ({"page": 99}, START / 1e9)
    assert [(one.status, one.started_at) for one in both] == [("failed", START / 1e9), ("failed", None)]


def test_what_differs_most_sets_apart() -> None:
    """The attribute with the most values, else the description, else nothing; long values are cut."""
    same = {"model": "m"}
    given = [(Attributes({**same, "n": n % 2, "topic": topic}), "x") for n, topic in enumerate(["a", "b", "c" * 99])]
    found = apart(given)
    assert found[:2] == ["topic=a", "topic=b"]
    assert found[2].startswith("topic=ccc")
    assert len(found[2]) == LENGTH
    assert apart([(EMPTY, "one"), (EMPTY, "two"), (EMPTY, None)]) == ["one", "two", ""]
    assert apart([(Attributes(same), None), (Attributes(same), None)]) == ["", ""]
    assert apart([(Attributes(same), None), (EMPTY, None)]) == ["model=m", ""]
    assert apart([(Attributes(same), "alone")]) == [""]
    assert apart([]) == []
