"""The console: a live tree on a terminal, plain lines elsewhere."""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import pty
import re
import select
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otel_progress as progress
from otel_progress.handlers import live_view as module
from otel_progress.handlers.console import Console
from otel_progress.live import guard, hooks
from otel_progress.live.engine import runtime
from otel_progress.render.tree import TreeLayout, TreeRow
from otel_progress.render.words import ASCII, MOVING, clean
from otel_progress.testing import Capture

SURVEY = Path(__file__).parents[3] / "examples" / "survey.py"
Show = Callable[..., tuple[Console, "Terminal"]]


class Terminal(io.StringIO):
    """A terminal's screen, as far as Rich uses one: it keeps what was written, and what is seen of it."""

    def isatty(self) -> bool:
        return True

    @property
    def seen(self) -> list[str]:
        lines, row, column = [""], 0, 0
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", self.getvalue()):
            if part == "\r":
                column = 0
            elif part == "\n":
                row, column = row + 1, 0
                lines.extend([""] * (row + 1 - len(lines)))
            elif part.endswith("A") and part.startswith("\x1b"):
                row = max(0, row - int(part[2:-1] or 1))
            elif part.endswith("K") and part.startswith("\x1b"):
                lines[row] = ""
            elif not part.startswith("\x1b"):
                line = lines[row].ljust(column)
                lines[row] = line[:column] + part + line[column + len(part) :]
                column += len(part)
        return [line.rstrip() for line in lines]

    @property
    def text(self) -> str:
        return "\n".join(self.seen)

    @property
    def cursor_hidden(self) -> bool:
        """Whether it stays hidden if the process is killed now."""
        return self.getvalue().rfind("\x1b[?25l") > self.getvalue().rfind("\x1b[?25h")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(guard, "_told", set())


@pytest.fixture
def show(progress_capture: Capture) -> Iterator[Show]:
    """A started console on a terminal of its own; the test turns the crank with `refresh()`."""
    made = []

    def start(
        verbosity: str = "normal", width: int = 100, height: int = 30, **options: object
    ) -> tuple[Console, Terminal]:
        terminal = Terminal()
        console = Console(verbosity, terminal, **options)
        console.start()
        console._screen.rich.size = (width, height)
        made.append(console)
        return console, terminal

    yield start
    for console in made:
        console.stop()


def plain(verbosity: str = "normal", **options: object) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(verbosity, out, **options).start(), out


def lines(out: io.StringIO) -> list[str]:
    """The lines without the time of day."""
    return [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in out.getvalue().splitlines()]


def see(captured: Capture, console: Console) -> None:
    """Have the console look at what happened so far."""
    captured.look()
    console.refresh()


# -- plain lines


def test_what_began_and_ended_in_one_look_is_one_line(progress_capture: Capture) -> None:
    """Starts whose end is known by the time of the look are left out; each end and each other start is told."""
    console, out = plain()
    with progress.operation("job"):
        for number in range(2):
            with progress.stage("load"), progress.waiting("a human"):
                progress_capture.clock.sleep(number)
        with progress.stage("parse"):
            progress.note("read a.txt", "running")
            progress.note("read b.txt", "running")
            progress.note("read a.txt", "ok", rows=3)
            see(progress_capture, console)
    console.stop()
    assert lines(out)[:8] == [
        "job: started",
        "job: load waited 0 s: a human",
        "job: load completed after 0 s",
        "job: load waited 1 s: a human",
        "job: load completed after 1 s",
        "job: parse started",
        "job: parse: … read b.txt",
        "job: parse: ✓ read a.txt  rows=3",
    ]


def test_one_line_for_each_change_of_state(progress_capture: Capture) -> None:
    """Without a terminal, each change of state is one plain line, and the end is a summary."""
    console, out = plain()
    with progress.operation("job"):
        with progress.stage("load", total=2, unit="file") as stage:
            see(progress_capture, console)
            stage.advance(2)
            with progress.waiting("a human"):
                progress_capture.clock.sleep(2)
                see(progress_capture, console)
            see(progress_capture, console)
    console.stop()
    assert lines(out)[:5] == [
        "job: started",
        "job: load started",
        "job: load waits: a human",
        "job: load waited 2 s: a human",
        "job: load completed after 2 s, 2 files",
    ]
    assert lines(out)[5] == "✓ job completed after 2 s"
    assert "load" in lines(out)[6]
    assert "\x1b" not in out.getvalue()


def test_progress_lines_come_every_few_seconds(progress_capture: Capture) -> None:
    """An operation tells its progress in at most one plain line in `every` seconds."""
    console, out = plain(every=5)
    with progress.operation("job", total=100, unit="row") as job:
        for _ in range(80):
            job.advance()
            progress_capture.advance(0.25)
            console.refresh()
        told = [line for line in lines(out) if "rows" in line]
    console.stop()
    assert [line.split()[1:4] for line in told] == [
        ["21%", "21/100", "rows"],
        ["41%", "41/100", "rows"],
        ["61%", "61/100", "rows"],
    ]


def test_progress_lines_get_rarer(progress_capture: Capture) -> None:
    """A run of hours does not fill a log: after the first minutes a line comes every fiftieth of its age."""
    console, out = plain(every=5)
    with progress.operation("job"):
        progress_capture.clock.sleep(10_000)
        for _ in range(150):
            progress_capture.advance(1)
            console.refresh()
    console.stop()
    assert sum("elapsed" in line for line in lines(out)) <= 1


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("CI", "true")])
def test_no_tree_where_nobody_looks(
    progress_capture: Capture, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """TERM=dumb and CI mean plain lines, even on a terminal."""
    monkeypatch.setenv(name, value)
    terminal = Terminal()
    with Console(file=terminal) as console, progress.operation("job"):
        progress_capture.advance(1)
        console.refresh()
    assert "job: started" in terminal.text
    assert "\x1b[?25l" not in terminal.getvalue()


def test_an_encoding_without_signs_gets_ascii(progress_capture: Capture) -> None:
    """A file that can't take the signs gets ASCII, and no error."""
    raw = io.BytesIO()
    with Console(file=io.TextIOWrapper(raw, encoding="ascii")), progress.operation("job") as job:
        job.update(message="漢字")
        job.result(word="漢")
    assert b"+ job completed" in raw.getvalue()
    assert b"word ?" in raw.getvalue()


def test_what_is_too_much_is_a_number(progress_capture: Capture) -> None:
    """Many short operations fill no log: some are told, the rest is counted; what failed is always told."""
    console, out = plain()
    for number in range(300):
        job = progress.operation("short").start()
        job.fail("broke") if number == 299 else job.complete()
    console.stop()
    assert len(lines(out)) < 60
    assert any("more that ended or changed" in line for line in lines(out))
    assert any("failed after 0 s" in line and "broke" in line for line in lines(out))


# -- verbosity


def noisy(captured: Capture, console: Console) -> None:
    with progress.operation("job", stall_after=5):
        with progress.stage("load"):
            progress.note("a word")
        captured.advance(8)
        console.refresh()
        for _ in range(4):
            progress.advance()
            captured.advance(1)
    console.stop()


def test_quiet_tells_endings_and_trouble(progress_capture: Capture) -> None:
    """Quiet tells of trouble, of its end, and the summary; nothing else."""
    console, out = plain("quiet")
    noisy(progress_capture, console)
    told = lines(out)
    assert told[0].startswith("job: STUCK no progress for 5 s")
    assert told[1].startswith("job: moving again after")
    assert told[2].startswith("✓ job completed")
    assert not any("started" in line or "a word" in line for line in told)


def test_normal_tells_notes_warnings_and_failed_items(progress_capture: Capture) -> None:
    """At its default verbosity the console tells each note with its status and attributes, and each failed item."""
    console, out = plain()
    with progress.operation("job"):
        progress.note("a word", n=1, tags=["a", "b"])
        progress.note("disk is nearly full", "warning")
        progress.note("seen", "custom")
        progress.record("failed", item="ast.py", component="parser")
        progress.record("ok", item="b.py")
    console.stop()
    assert lines(out)[1:5] == [
        "job: a word  n=1, tags=a, b",
        "job: ! disk is nearly full",
        "job: seen [custom]",
        "job: ✗ failed: parser ast.py",
    ]


def test_notes_stand_above_the_tree_and_an_activity_in_it(progress_capture: Capture, show: Show) -> None:
    """In a terminal a note stays above the tree; an activity that goes on is a row of it until its end is noted."""
    console, terminal = show()
    with progress.operation("job"):
        progress.note("a word")
        progress.note("read a.txt", "running", rows=3)
        progress_capture.advance(4)
        console.refresh()
        assert any(line.endswith("job: a word") for line in terminal.seen)
        assert any("… read a.txt  rows=3  4 s" in line for line in terminal.seen)
        progress.note("read a.txt", "ok")
        progress_capture.advance(1)
        console.refresh()
        assert not any("… read a.txt" in line for line in terminal.seen)
        assert any("✓ read a.txt" in line for line in terminal.seen)


def test_verbose_tells_notes(progress_capture: Capture) -> None:
    """Verbose tells every note, with its stage."""
    console, out = plain("verbose")
    noisy(progress_capture, console)
    assert "job: load: a word" in lines(out)


def test_quiet_draws_no_tree(progress_capture: Capture, show: Show) -> None:
    """Quiet leaves the terminal alone while the work runs."""
    console, terminal = show("quiet")
    with progress.operation("job"):
        progress_capture.advance(1)
        console.refresh()
        assert terminal.getvalue() == ""


def test_a_wrong_verbosity_is_told() -> None:
    """An invalid verbosity is an error that names the valid ones."""
    with pytest.raises(progress.InvalidArgument, match="'quiet', 'normal' or 'verbose'"):
        Console("loud")  # type: ignore[arg-type]


def test_rich_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Rich the error says what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(progress.MissingDependency, match=r"pip install \"otel-progress\[console\]\""):
        Console()


# -- the tree


def test_the_tree_shows_what_runs(progress_capture: Capture, show: Show) -> None:
    """The tree has the whole, stages done, running and pending, counts, pace, message and counters."""
    console, terminal = show()
    with progress.operation("job", plan=["load", "train", "assess"]) as job:
        with progress.stage("load"):
            progress_capture.advance(2)
        with progress.stage("train", total=100, unit="epoch") as stage:
            for _ in range(10):
                stage.advance(5)
                progress_capture.advance(1)
            stage.update(message="epoch 50")
            job.record("ok")
            job.usage(output_tokens=1200)
            console.refresh()
            seen = terminal.seen
    assert re.match(r". job .*50%.* (about|up to|\d+ to) \d+ s left +0:12", seen[0])
    assert seen[1].strip() == "1 ok · 1,200 output tokens"
    assert re.match(r"  ✓ load .*2 s", seen[2])
    assert re.match(
        r"  . train +━+╾?─+ +50%  50/100 epochs  (4\.9|5\.[01])/s +(about|up to|\d+ to) \d+ s left +0:10", seen[3]
    )
    assert seen[4].strip() == "epoch 50"
    assert seen[5].strip() == "· assess"


def test_the_tree_shows_the_plan(progress_capture: Capture, show: Show) -> None:
    """Pending stages say what they wait for, and how long they take; many names are counted."""
    console, terminal = show()
    names = [f"search {n}" for n in range(5)]
    plan = [
        progress.StagePlan("plan"),
        *(progress.StagePlan(name, depends_on=("plan",), expected=60) for name in names),
        progress.StagePlan("write", depends_on=tuple(names)),
    ]
    with progress.operation("job", plan=plan), progress.stage("plan"):
        progress_capture.look()
        console.refresh()
        seen = terminal.seen
    assert re.match(r"  · search 0 +after plan +~1 min$", seen[2])
    assert re.match(r"  · write +after 5 stages$", seen[7])


def test_stage_that_outlasts_its_plan_says_what_was_planned(progress_capture: Capture, show: Show) -> None:
    """Where only the plan knew its time, the column of the time left says it, as a whole; its own estimate goes first."""
    console, terminal = show()
    plan = [progress.StagePlan("load", expected=3), progress.StagePlan("train", expected=3)]
    with progress.operation("job", plan=plan):
        with progress.stage("load"):
            progress_capture.advance(5)
            console.refresh()
            assert re.search(r"load +.*planned: 3 s in all +0:05$", terminal.seen[1])
        with progress.stage("train", total=10) as train:
            for _ in range(5):
                progress_capture.advance(2)
                train.advance()
                progress_capture.look()
            console.refresh()
            assert re.search(r"train +.* s left +0:10$", "\n".join(terminal.seen), re.MULTILINE)


def test_the_tree_goes_away(progress_capture: Capture, show: Show) -> None:
    """When the last operation ends, the tree is gone, the summary stays, and the terminal is as it was."""
    console, terminal = show()
    with progress.operation("job"):
        with progress.stage("load"):
            progress_capture.advance(3)
        console.refresh()
        assert terminal.seen[0].endswith("0:03")
        assert not terminal.cursor_hidden
    progress_capture.look()
    console.refresh()
    assert not terminal.cursor_hidden
    assert terminal.seen[0] == "✓ job completed after 3 s"
    assert re.match(r"  ✓ load +3 s  100% of the time  ▪{20}$", terminal.seen[1])
    assert terminal.text.count("job") == 1


def test_what_just_ended_does_not_blink(progress_capture: Capture, show: Show) -> None:
    """A child that ended stays in the tree from the first moment on: as it was, then as an ended line."""
    console, terminal = show()
    with progress.operation("parent"):
        with progress.operation("child"):
            progress_capture.advance(1)
            console.refresh()
        console.refresh()
        assert "child" in terminal.text
        progress_capture.look()
        console.refresh()
        assert re.search(r"✓ child .*1 s", terminal.text)


def test_children_stand_below_their_parent(progress_capture: Capture, show: Show) -> None:
    """Children, running and ended, stand below their parent; one that failed is told above, too."""
    console, terminal = show()
    with progress.operation("parent"), progress.stage("step"):
        progress.operation("good").start().complete()
        progress.operation("bad").start().fail("broke")
        with progress.operation("running"):
            progress_capture.advance(1)
            console.refresh()
            seen = terminal.seen
    assert "bad: failed after 0 s: broke" in seen[0]
    assert "1 failed" in seen[2]  # the outcome of the parent
    rows = [line for line in seen[1:] if "failed" not in line]
    assert [line.split()[1] for line in rows] == ["parent", "step", "good", "bad", "running"]
    assert all(line.startswith("    ") for line in rows[2:])


def test_what_is_to_come_stands_below_the_children(progress_capture: Capture, show: Show) -> None:
    """Children stand between the stages that began and those that are still to come."""
    console, terminal = show()
    with progress.operation("parent", plan=["first", "second"]), progress.stage("first"):
        progress.operation("over").start().complete()
        with progress.operation("child"):
            progress_capture.advance(1)
            console.refresh()
            assert [line.split()[1] for line in terminal.seen] == ["parent", "first", "over", "child", "second"]


def test_a_name_that_ran_twice_has_a_number(progress_capture: Capture, show: Show) -> None:
    """A name alone says which operation it is, until it ran more than once in this process."""
    console, terminal = show()
    with progress.operation("job"):
        progress_capture.advance(1)
        console.refresh()
        assert re.match(r". job  ", terminal.seen[0])
        with progress.operation("job"):
            progress_capture.advance(1)
            console.refresh()
            assert [re.findall(r"job (#\w+)", line) for line in terminal.seen] == [["#1"], ["#2"]]


def test_a_summary_breaks_between_words(progress_capture: Capture, show: Show) -> None:
    """On a terminal a result that is too long for a line goes on in the next with a whole word."""
    _, terminal = show(width=40)
    with progress.operation("job") as job:
        job.result(files=300, functions=5_588, branches=11_677, classes=1_066)
    progress_capture.look()
    runtime.finish(1.0)
    assert all(len(line) <= 40 for line in terminal.seen)
    assert {"5,588", "11,677", "1,066"} <= set(terminal.text.split())


def test_messages_are_no_markup(progress_capture: Capture, show: Show) -> None:
    """Markup, control characters and line ends in names and messages are shown as text on one line."""
    console, terminal = show()
    with progress.operation("[red]job"), progress.stage("[/b]"):
        progress.update(message="[bold]x[/nothing]\x1b[2J\nnext\x07 :smile:")
        progress_capture.advance(1)
        console.refresh()
        assert "[bold]x[/nothing] [2J next  :smile:" in terminal.text
        assert "[red]job" in terminal.seen[0]
        assert "[/b]" in terminal.seen[1]
        assert "\x1b[2J" not in terminal.getvalue()
        assert "\x07" not in terminal.getvalue()


def test_trouble_stands_out(progress_capture: Capture, show: Show) -> None:
    """What is stuck has a badge with its evidence in the tree, and a line above that stays."""
    console, terminal = show()
    with progress.operation("job", stall_after=10):
        progress_capture.advance(8)
        console.refresh()
        assert "idle 8 s of 10 s" in terminal.text
        progress_capture.advance(4)
        console.refresh()
        assert "job: STUCK no progress for 10 s" in terminal.seen[0]
        top = next(row for row, text in enumerate(terminal.seen) if text.startswith("! job"))
        assert " ".join(terminal.seen[:top]).endswith("in test_trouble_stands_out")
        assert terminal.seen[top + 1].strip() == "STUCK  no progress for 12 s, stall_after is 10 s"
        assert re.fullmatch(r"at test_console.py:\d+ in test_trouble_stands_out", terminal.seen[top + 2].strip())


def test_branch_is_named_once(progress_capture: Capture, show: Show) -> None:
    """The line about a stuck branch does not repeat the stage that its evidence begins with."""
    console, terminal = show(live=False)

    def work() -> None:
        with progress.stage("db", stall_after=10):
            begun.set()
            done.wait()

    begun, done = threading.Event(), threading.Event()
    with progress.operation("job"):
        with progress.stage("web", stall_after=None):
            thread = threading.Thread(target=progress.carry(work))
            thread.start()
            begun.wait()
            with progress.stage("query", stall_after=None):
                progress_capture.advance(12)
                console.refresh()
            done.set()
            thread.join()
    told = next(line for line in terminal.getvalue().splitlines() if "STUCK" in line)
    assert told.count("db") == 1, told


def test_each_place_that_gets_stuck_is_told(progress_capture: Capture, show: Show) -> None:
    """Of two tools that hang side by side both are named: each when it gets stuck, the other beside it."""
    console, terminal = show(live=False)

    def work(name: str, limit: float) -> None:
        with progress.stage(name, stall_after=limit):
            begun.release()
            done.wait()

    begun, done = threading.Semaphore(0), threading.Event()
    with progress.operation("job"):
        limits = {"slow": 10, "slower": 20, "slowest": 20}
        threads = [threading.Thread(target=progress.carry(work), args=each) for each in limits.items()]
        for thread in threads:
            thread.start()
            begun.acquire()
        for _ in range(3):
            progress_capture.advance(11)
            console.refresh()
        done.set()
        for thread in threads:
            thread.join()
    written = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())
    told = [line.partition("job: ")[2] for line in written.splitlines() if "STUCK" in line]
    first, second = (line for line in told if "no progress" in line)
    repeated = told[-1]
    assert first.startswith("STUCK slow: no progress for 10 s")
    assert "also stuck" not in first
    assert second.startswith("STUCK slow")
    assert second.count(" at test_console.py:") == 3
    assert all(re.search(rf"\b{name}\b", second) for name in limits)
    assert re.match(r"STUCK  .*idle 33 s of 20 s  elapsed 33 s  at test_console.py:\d+ in work", repeated), repeated


def test_idle_is_silent_at_first(progress_capture: Capture, show: Show) -> None:
    """Idle time is shown from a quarter of its limit on, after half a minute at the latest, and not before."""
    console, terminal = show()
    with progress.operation("job", stall_after=40):
        progress_capture.advance(9.9)
        console.refresh()
        assert "idle" not in terminal.text
        progress_capture.advance(0.1)
        console.refresh()
        assert "idle 10 s of 40 s" in terminal.text
    with progress.operation("long", stall_after=3600):
        progress_capture.advance(29.9)
        console.refresh()
        assert "idle" not in terminal.text
        progress_capture.advance(0.1)
        console.refresh()
        assert "idle 30 s of 1 h" in terminal.text


def test_slow_units_do_not_flicker(progress_capture: Capture, show: Show) -> None:
    """Units of four seconds each, far below the limit, never show idle time, so rows stay where they are."""
    console, terminal = show()
    with progress.operation("job", total=10, stall_after=60) as op:
        for _ in range(10):
            for _ in range(8):
                progress_capture.advance(0.5)
                console.refresh()
                assert "idle" not in terminal.text
            op.advance()


def test_a_wait_is_shown_with_its_limit(progress_capture: Capture, show: Show) -> None:
    """A declared wait shows its reason, how long, and its limit; past it, it is overdue."""
    console, terminal = show()
    with progress.operation("job"), progress.stage("ask"), progress.waiting("a human", overdue_after=10):
        progress_capture.advance(4)
        console.refresh()
        assert "waits for 4 s of 10 s: a human" in terminal.text
        progress_capture.advance(7)
        console.refresh()
        assert "OVERDUE  waiting for 11 s, overdue_after is 10 s" in terminal.text


def test_an_overdue_wait_is_a_line_once(progress_capture: Capture, show: Show) -> None:
    """Plain lines say it once, by the verdict or, beside a stuck branch, by the event; the end says by how much."""
    console, terminal = show(live=False)
    with progress.operation("job", stall_after=5) as op:
        stuck, asks = op.stage("stuck").start(), op.stage("asks").start()
        with asks.waiting("ada", overdue_after=10):
            progress_capture.advance(13)
            console.refresh()
        stuck.complete()
        asks.complete()
    with progress.operation("other"), progress.waiting("bob", overdue_after=10):
        progress_capture.advance(13)
        console.refresh()
    console.refresh()
    assert terminal.text.count("asks overdue after 10 s: ada") == 1
    assert terminal.text.count("asks waited 13 s, overdue by 3 s: ada") == 1
    assert terminal.text.count("OVERDUE waiting for 10 s") == 1
    assert "overdue after 10 s: bob" not in terminal.text


def test_only_what_fits(progress_capture: Capture, show: Show) -> None:
    """The tree is never higher than the terminal; it says how many are left out, and shows trouble first."""
    console, terminal = show(height=10)
    jobs = [
        progress.operation("job", id=f"n{number}", stall_after=1 if number == 90 else None).start()
        for number in range(100)
    ]
    captured_before = jobs[50]._sequence
    progress_capture.advance(3)
    terminal.truncate(0)
    console.refresh()
    drawn = [line for line in terminal.seen if line and "STUCK no" not in line]
    assert len(drawn) <= 9
    assert any("n90" in line for line in drawn)
    shown = sum("job n" in line for line in drawn)
    assert drawn[-1] == f"+ {100 - shown} more"
    assert captured_before <= jobs[50]._sequence
    for job in jobs:
        job.complete()


def test_hidden_operations_cost_no_snapshot(
    progress_capture: Capture, show: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only operations that are visible are captured for a drawing."""
    console, _ = show(height=10)
    jobs = [progress.operation("job").start() for _ in range(50)]
    progress_capture.advance(1)
    taken = []
    whole = progress.Operation.snapshot
    monkeypatch.setattr(progress.Operation, "snapshot", lambda self: taken.append(self) or whole(self))
    console.refresh()
    assert 0 < len(taken) <= 10
    for job in jobs:
        job.complete()


def test_many_ended_stages_are_one_line(progress_capture: Capture, show: Show) -> None:
    """Normal verbosity shows the newest three ended stages without a plan, verbose shows all that a snapshot has."""
    for verbosity, shown in (("normal", 3), ("verbose", 20)):
        console, terminal = show(verbosity, height=60)
        with progress.operation("job"):
            for number in range(20):
                with progress.stage(f"step {number}"):
                    pass
            progress_capture.advance(1)
            console.refresh()
            assert sum("✓ step" in line for line in terminal.seen) == shown
            assert ("17 more stages" in terminal.text) is (verbosity == "normal")
        console.stop()


def test_a_repeated_stage_is_one_line_with_its_durations(progress_capture: Capture, show: Show) -> None:
    """400 runs are one row with median and 95% quantile and what failed, in the tree and in the summary."""
    console, terminal = show(width=120)
    with progress.operation("crawl"):
        with progress.stage("login"):
            pass
        for number in range(400):
            stage = progress.stage("fetch").start()
            progress_capture.clock.sleep(1 if number % 10 == 0 else 0.2)
            stage.fail("no answer") if number in (7, 150, 399) else stage.complete()
        with progress.stage("fetch"):
            see(progress_capture, console)
            rows = [line for line in terminal.seen if "fetch" in line]
    assert "✓ fetch x 400  median 200 ms  p95 980 ms  3 failed" in rows[0]
    assert [("✗ fetch" in row) for row in rows[1:]] == [True] * 3 + [False]
    assert not any("more stages" in line for line in terminal.seen)
    progress_capture.look()
    console.stop()
    [told] = [line for line in terminal.seen if "fetch x 401" in line]
    assert told.endswith("median 198 ms  p95 980 ms  3 failed")


def test_stages_and_children_of_one_name_are_told_apart(progress_capture: Capture, show: Show) -> None:
    """What differs stands beside the name: an attribute, else the description, else the number."""
    console, terminal = show(width=120)
    with progress.operation("crawl"):
        with progress.operation("research", attributes={"model": "m", "topic": "moon"}).start().use() as one:
            pass
        two = progress.operation("research", attributes={"model": "m", "topic": "sun"}).start()
        for number in range(2):
            progress.stage("fetch", attributes={"url": f"/{number}"}).start()
        for text in ("first", "second"):
            progress.operation("look", description=text).start()
        for _ in range(2):
            progress.operation("plain").start()
        see(progress_capture, console)
        names = [word for line in terminal.seen for word in re.findall(r"(?:research|fetch|look|plain) \S+", line)]
        assert names == [
            *("fetch (url=/0)", "fetch (url=/1)", "research (topic=moon)", "research (topic=sun)"),
            *("look (first)", "look (second)", "plain #6", "plain #7"),
        ]
        one.complete("12 pages")
        two.fail("no answer")
        see(progress_capture, console)
        assert any("research (topic=sun): failed" in line for line in terminal.seen)


def test_what_was_set_and_counted_is_shown(progress_capture: Capture, show: Show) -> None:
    """Attributes and counters of operations and running stages are in the tree and, with the last words, in the summary."""
    console, terminal = show(width=120)
    with progress.operation("crawl", attributes={"site": "example.org"}) as op:
        op.set(depth=3)
        with progress.stage("fetch", unit="file", attributes={"url": "/a"}) as stage:
            list(progress.track("abc", unit="token"))
            list(progress.track("ab", unit="page"))
            see(progress_capture, console)
            assert any("site=example.org, depth=3" in line for line in terminal.seen)
            assert any("token=3, page=2  url=/a" in line for line in terminal.seen)
            stage.complete("all there")
        op.complete("2 pages fetched")
    progress_capture.look()
    console.stop()
    assert any(line.startswith("✓ crawl completed") and line.endswith(": 2 pages fetched") for line in terminal.seen)
    assert any("fetch" in line and line.endswith("token=3, page=2  url=/a  all there") for line in terminal.seen)
    assert any("site=example.org, depth=3" in line for line in terminal.seen)


def test_nothing_new_is_not_drawn(progress_capture: Capture, show: Show) -> None:
    """A drawing that would look the same is not made."""
    console, terminal = show()
    with progress.operation("job"):
        progress_capture.advance(5)
        console.refresh()
        size = len(terminal.getvalue())
        console.refresh()
        assert len(terminal.getvalue()) == size


texts = st.text(max_size=60)


@given(
    rows=st.lists(
        st.builds(
            TreeRow,
            st.integers(0, 9),
            st.integers(0, 12),
            st.sampled_from(MOVING),
            st.sampled_from(("", "dim", "red")),
            texts.map(clean),
            st.none() | st.floats(0, 1),
            texts.map(clean),
            texts.map(clean),
            texts.map(clean),
            texts.map(clean),
            st.none() | st.tuples(st.tuples(texts.map(clean), st.just(""))),
        ),
        max_size=40,
    ),
    width=st.integers(10, 200),
    height=st.integers(2, 50),
    more=st.integers(0, 3),
)
def test_lines_always_fit(rows: list[TreeRow], width: int, height: int, more: int) -> None:
    """Whatever the rows, there are at most `height` lines of at most `width` cells."""
    from rich.cells import cell_len

    laid = TreeLayout().lines(rows, width, height, more)
    assert len(laid) <= height
    for line in laid:
        shown = "".join(words for words, _ in line)
        assert cell_len(shown) <= width
        assert cell_len(shown.translate(ASCII)) <= width


# -- prints and log lines


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A terminal that becomes standard output and error with `take()`, as pytest puts its own there after setup."""

    class Standard(Terminal):
        def take(self) -> None:
            monkeypatch.setattr(sys, "stdout", self)
            monkeypatch.setattr(sys, "stderr", self)

    return Standard()


@pytest.fixture
def logger(on_terminal: Any) -> Iterator[logging.Logger]:
    made = logging.getLogger("a.job")
    handler = logging.StreamHandler(on_terminal)
    made.addHandler(handler)
    made.propagate = False
    yield made
    made.removeHandler(handler)


def test_prints_and_logs_stay_above(progress_capture: Capture, on_terminal: Any, logger: logging.Logger) -> None:
    """Prints, and log lines of a handler that kept the stream, stand whole and unchanged above the tree."""
    on_terminal.take()
    console = Console().start()
    with progress.operation("job", total=3) as job:
        progress_capture.advance(1)
        console.refresh()
        for number in range(3):
            print(f"[bold]printed[/bold] {number} [/x]")
            logger.warning("logged %d", number)
            print("half", end="", flush=True)
            job.advance()
            progress_capture.advance(1)
            console.refresh()
            print(" whole")
        seen = on_terminal.seen
    console.stop()
    expected = [
        line
        for number in range(3)
        for line in (f"[bold]printed[/bold] {number} [/x]", f"logged {number}", "half whole")
    ]
    assert seen[:9] == expected
    assert re.match(r". job", seen[9])
    assert len(seen) == 10
    assert sys.stdout is on_terminal


def test_streams_are_given_back(progress_capture: Capture, on_terminal: Any, logger: logging.Logger) -> None:
    """While nothing runs, prints and handlers have their own streams; a handler made meanwhile works on."""
    on_terminal.take()
    console = Console().start()
    assert sys.stdout is on_terminal
    with progress.operation("job"):
        progress_capture.advance(1)
        console.refresh()
        assert sys.stdout is not on_terminal
        late = logging.StreamHandler()
        print("no end", end="")
    progress_capture.look()
    console.refresh()
    assert sys.stdout is on_terminal
    assert logger.handlers[0].stream is on_terminal  # type: ignore[attr-defined]
    late.emit(logging.makeLogRecord({"msg": "late word"}))
    console.stop()
    assert "no end" in on_terminal.text
    assert "late word" in on_terminal.text


def test_a_file_is_not_diverted(progress_capture: Capture, on_terminal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output that goes to a file stays the file's."""
    file = io.StringIO()
    on_terminal.take()
    monkeypatch.setattr(sys, "stdout", file)
    with Console() as console, progress.operation("job"):
        progress_capture.advance(1)
        console.refresh()
        print("for the file")
    assert file.getvalue() == "for the file\n"
    assert "for the file" not in on_terminal.getvalue()


# -- when things go wrong


def test_an_error_stops_the_console(
    progress_capture: Capture, on_terminal: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error in a drawing is logged once; the console stops, gives the terminal back, and the job goes on."""
    on_terminal.take()
    console = Console().start()
    with progress.operation("job") as job:
        progress_capture.advance(1)
        console.refresh()
        monkeypatch.setattr(module, "rows_of", lambda *_: 1 / 0)
        console.refresh()
        console.refresh()
        assert job.status is progress.Status.RUNNING
    assert [record.message for record in caplog.records] == ["the console failed, and stops; the job goes on"]
    assert sys.stdout is on_terminal
    assert not on_terminal.cursor_hidden
    assert console._take not in hooks.sinks
    console.stop()


def test_a_closed_file_is_not_felt(progress_capture: Capture, caplog: pytest.LogCaptureFixture) -> None:
    """A file that was closed stops the console, not the job."""
    console, out = plain()
    out.close()
    with progress.operation("job"):
        progress_capture.advance(1)
        console.refresh()
    console.stop()
    assert len(caplog.records) == 1


def test_the_queue_is_bounded(progress_capture: Capture) -> None:
    """Events that the console can't take in time are dropped and counted, endings last."""
    console, _ = plain()
    with progress.operation("job"):
        for _ in range(40):
            for number in range(40):
                with progress.waiting(f"reason {number}, {progress_capture.clock.monotonic()}"):
                    pass
            progress_capture.advance(1)
    progress_capture.look()
    assert len(console._view.queue) <= module.QUEUE + 1
    assert progress_capture.drops["listener"] > 0
    assert console._view.queue[-1][0].name == "progress.operation.ended"
    console.stop()


def test_start_and_stop_twice(progress_capture: Capture) -> None:
    """Starting or stopping twice does no more than once; started again, it works again."""
    console, out = plain()
    assert console.start() is console
    assert hooks.sinks.count(console._take) == 1
    console.stop()
    console.stop()
    assert console._take not in hooks.sinks
    with console, progress.operation("job"):
        pass
    assert out.getvalue().count("completed") == 1


def test_a_flush_is_not_the_end(progress_capture: Capture, show: Show) -> None:
    """What is called at the end of a process, and by a flush, shows what ended; the next drawing goes on."""
    console, terminal = show()
    with progress.operation("job"):
        progress_capture.advance(1)
        console.refresh()
        runtime.finish(1.0)
        assert terminal.text.strip() == ""
        console.refresh()
        assert "job" in terminal.seen[0]


# -- real processes


def run(code: str, *, tty: bool = False, **environment: str) -> str:
    """Run the code in a process of its own, on a pseudo-terminal if need be; returns what it wrote."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    env = {**os.environ, "TERM": "xterm", **environment}
    if not tty:
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=60).stderr
    return on_pty(command, env)


def on_pty(command: list[str], env: dict[str, str], interrupt_at: bytes | None = None) -> str:
    near, far = pty.openpty()
    process = subprocess.Popen(command, env=env, stdin=far, stdout=far, stderr=far, start_new_session=True)
    os.close(far)
    told = b""
    while True:
        ready, _, _ = select.select([near], [], [], 60)
        try:
            data = os.read(near, 65536) if ready else b""
        except OSError:
            data = b""
        if not data:
            break
        told += data
        if interrupt_at is not None and interrupt_at in told:
            process.send_signal(signal.SIGINT)
            interrupt_at = None
    os.close(near)
    process.wait(60)
    return re.sub(r"\x1b\[[0-9;]*m", "", told.decode()) + f"exit {process.returncode}"


def test_a_forked_child_shows_nothing() -> None:
    """A forked child's operations are not shown, and its prints go out as they are."""
    told = run(
        """
        import os, time, warnings
        warnings.simplefilter("ignore")
        import otel_progress as progress
        from otel_progress.handlers.console import Console
        with Console(live=True) as console, progress.operation("parent"):
            while console._screen._live is None:
                time.sleep(0.01)
            child = os.fork()
            if not child:
                with progress.operation("not to be seen"):
                    print("from the child", flush=True)
                    console.refresh()
                os._exit(0)
            os.waitpid(child, 0)
        """,
        tty=True,
    )
    assert "from the child" in told
    assert "not to be seen" not in told
    assert told.count("completed") == 1
    assert told.endswith("exit 0")


def test_ctrl_c_leaves_a_clean_terminal() -> None:
    """Ctrl-C ends the operation as interrupted, tells so, and gives the cursor back."""
    told = on_pty([sys.executable, str(SURVEY)], {**os.environ, "TERM": "xterm"}, interrupt_at=b"parse")
    assert "survey interrupted after" in told
    assert told.rfind("\x1b[?25h") > told.rfind("\x1b[?25l")
    assert told.endswith("exit 130")


def test_the_end_of_the_process_is_told() -> None:
    """A console that nobody stopped tells of what ended with the process."""
    told = run(
        """
        import otel_progress as progress
        from otel_progress.handlers.console import Console
        Console().start()
        job = progress.operation("job").start()
        """
    )
    assert "job: started" in told
    assert "■ job interrupted after " in told
